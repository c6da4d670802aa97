"""A standalone script for a failed requirement: what was done to the subject, as a user would write it."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from nnspec.adapters import carried, load
from nnspec.adapters.blame import Watched
from nnspec.adapters.roles import Roles
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Case, laid_out
from nnspec.conformance.formats import is_floating
from nnspec.conformance.requirements import Check, requirements
from nnspec.conformance.system import processes, signals
from nnspec.conformance.trial.record import Call, Mismatch
from nnspec.conformance.trial.source import literal, written

LARGEST = 20_000  # elements written out; a script with more would be no help
Crash = tuple[str, str, str, Case, str]  # requirement, form, dtype, case, what happened


def reproduce(subject: Subject, check: Check, form: str, dtype: str, failure: Mismatch) -> str:
    """The text of the script; "" where the arrays are too large to be written out, or steps are not known."""
    if failure.script is None and sum(_size(c) for c in failure.calls) > LARGEST:
        return ""
    try:
        lines = failure.script if failure.script is not None else list(_Replay(subject, form, failure).lines())
    except KeyError:  # a module whose making is not among the steps
        return ""
    if not lines:
        return ""
    names = _names(subject, form, failure.calls, check)
    if failure.script is not None:  # a program says itself what it uses
        names = set(re.findall(r"\w+", "\n".join(lines))) & subject.classes.keys()
    return _render(
        subject,
        names,
        lines,
        requirement=check.identifier,
        sentence=requirements()[check.identifier].sentence,
        about=f"{subject.name} ({form}, {dtype}) breaks it: {failure.message}",
    )


def reproduce_crash(subject: Subject, identifier: str, form: str, dtype: str, case: Case, what: str) -> str:
    """The script of a call that ended the process or hung; "" where it cannot be written."""
    if _size(Call(case)) > LARGEST:
        return ""
    replay = _Replay(subject, form, Mismatch(what))
    step = "second" if "tangent" in case.arrays else "gradient" if "cotangent" in case.arrays else "call"
    call = Call(case, given=case, step=step)
    result = "result" if step == "call" else step
    lines = [*replay.step(call), f'print("returned", {result}, sep="\\n")']
    return _render(
        subject,
        _names(subject, form, [call], None),
        lines,
        requirement=identifier,
        sentence=requirements()[identifier].sentence,
        about=f"{subject.name} ({form}, {dtype}): {what}.",
    )


def crash_scripts(subject: str, framework: str | None, device: str | None, crashes: list[Crash]) -> list[str]:
    """The scripts of calls that ended the process, written by another process, which loads the subject."""
    # a pickled array forgets how it lies in memory
    layouts = [{n: a.strides for n, a in case.arrays.items() if a is not None} for *_, case, _ in crashes]
    try:
        told = _in_another_process(pickle.dumps((subject, framework, device, crashes, layouts)))
        return list(json.loads(told.splitlines()[-1]))
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return [""] * len(crashes)


def _in_another_process(data: bytes) -> bytes:
    """Return what `_main` says to some data. It goes through files: the subject may leave processes that hold pipes."""
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as told:
        asked.write(data)
        asked.seek(0)
        command = [sys.executable, "-m", "nnspec.conformance.report.script", str(os.getpid())]
        process = subprocess.Popen(command, stdin=asked, stdout=told, stderr=subprocess.DEVNULL, start_new_session=True)
        began = time.monotonic()
        try:
            while process.poll() is None and time.monotonic() - began < (10 if signals.received() else 120):
                time.sleep(0.02)
        finally:
            processes.end_group(process)
            process.wait()
        told.seek(0)
        return told.read()


def _main() -> None:
    processes.end_with(int(sys.argv[1]))
    name, framework, device, crashes, layouts = pickle.load(sys.stdin.buffer)
    subject, scripts = load(name, framework, device), []
    for (identifier, form, dtype, case, what), strides in zip(crashes, layouts, strict=True):
        floats = {n: a for n, a in case.arrays.items() if a is not None and a.size and is_floating(a.dtype)}
        case = case.but(**{n: laid_out(a, strides[n]) for n, a in floats.items()})
        scripts.append(reproduce_crash(subject, identifier, form, dtype, case, what))
    print("\n" + json.dumps(scripts))


def _render(subject: Subject, names: set[str], lines: list[str], **text: str) -> str:
    body = "\n".join(lines)
    # each line once: a file is run once, so that its classes know one another
    recipes = "\n".join(dict.fromkeys("\n".join(subject.recipe(n) for n in sorted(names)).splitlines()))
    adapter = subject.framework.framework if isinstance(subject.framework, Watched) else subject.framework
    used = carried.sources(adapter, f"{body}\n{recipes}")
    if "laid_out(" in body:
        used.append(inspect.getsource(laid_out).rstrip())
    template = resources.files(__package__).joinpath("reproduce.py.jinja").read_text("utf-8")
    rendered: str = jinja2.Template(template, keep_trailing_newline=True).render(
        {name: value.replace("\\", "/").replace('"""', "'''") for name, value in text.items()},
        preamble=carried.preamble(adapter, subject.device),
        bridge="\n\n\n".join(used),
        recipes=recipes,
        lines=body,
    )
    return rendered


def _size(call: Call) -> int:
    arrays = [*call.case.arrays.values(), *call.entries.values()]
    return sum(a.size for a in arrays if a is not None)


def _names(subject: Subject, form: str, calls: list[Call], check: Check | None) -> set[str]:
    stems = {c.case.stem for c in calls} or {check.stem if check else ""}
    if form == "function":
        functions = {name for stem in stems if (name := SIGNATURES[stem].function)}
        beside = {f"{name}{of}" for name in functions for of in ("_vjp", "_vjp_vjp")}
        return functions | (beside & subject.functions.keys())
    return {subject.class_of(c.case.stem, c.case.arrays) for c in calls if c.step in ("build", "call", "gradient")}


class _Replay:
    """Writes the steps down one after the other; what they gave has the number of the step in its name."""

    def __init__(self, subject: Subject, form: str, failure: Mismatch) -> None:
        self.subject, self.form, self.failure = subject, form, failure
        self.number = 0
        self.layers: dict[int, str] = {}  # modules that live through several steps, by identity
        self.written: dict[str, np.ndarray | None] = {}  # arrays as the script has them by now
        self.given: dict[str, np.ndarray | None] = {}  # the very arrays that they stand for
        self.wanted = ""  # the end of the script, which may ask for results as they first were

    def lines(self) -> Iterator[str]:
        """The whole script; nothing where its end would not follow from the steps."""
        failure = self.failure
        end = self._end()
        if end is None:
            return
        self.wanted = "\n".join(end)
        for call in failure.calls:
            if "result is None" in failure.holds and call is failure.calls[-1]:
                *before, last = self.step(call, keep=False)
                yield from before
                yield from ["try:", f"    {last}", "except Exception as error:"]
                yield from ["    print(f'refused: {type(error).__name__}: {error}')", "    sys.exit(0)"]
            else:
                yield from self.step(call)
        yield from end

    def _end(self) -> list[str] | None:
        failure = self.failure
        if failure.expected is not None:
            return self._compare(failure.actual, failure.expected)
        if failure.holds and failure.calls:
            step = failure.calls[-1].step
            what = step if step in ("gradient", "second") else "result"
            return [f'print("{what}", {what}, sep="\\n")', f"sys.exit(0 if {failure.holds} else {failure.message!r})"]
        last = failure.calls[-1] if failure.calls else None
        gave = last and (last.results is not None or last.entries or (last.step == "build" and last.module))
        raised = last and last.step in ("call", "gradient", "second", "build") and not gave
        return ["sys.exit(0)"] if raised else None

    def _compare(self, actual: Any, expected: Expected) -> list[str] | None:
        value = np.asarray(expected.value, np.float64 if is_floating(expected.value.dtype) else None)
        place, source = self._place(actual), self._place(expected.source)
        if place is None or (source is None and expected.source is not None):
            return None
        bound = expected.within().astype(np.float64)
        bound = np.broadcast_to(bound if bound.shape == value.shape else bound.max(initial=0), value.shape)
        return [
            f"expected = {source.replace('result', 'first') if source else literal(value)}",  # as it was at first
            f"bound = {literal(bound) if bound.any() else 0}",
            f"actual = {place}",
            'print("expected", expected, "actual", actual, sep="\\n")',
            "if actual.shape != expected.shape:",
            '    sys.exit("the result has another shape than the specification says")',
            "same = (abs(actual - expected) <= bound) | (actual == expected) | (np.isnan(actual) & np.isnan(expected))",
            'sys.exit(0 if np.all(same) else "the result differs from what the specification says")',
        ]

    def _place(self, array: Any) -> str | None:
        """What the script calls an array: a result, a part of one, an operand, an entry of the state."""
        if not isinstance(array, np.ndarray):
            return None
        if (result := self._result(array)) is not None:
            return result
        for number, call in enumerate(self.failure.calls, start=1):
            for name, operand in (call.given.arrays if call.given else {}).items():
                if array is operand:
                    return _variable(name)
            for key, entry in call.entries.items():
                if array is entry and call.step in ("state", "gradient", "second"):
                    return f"{call.step}{number}[{key!r}]"
        return None

    def _result(self, array: np.ndarray, before: int = sys.maxsize) -> str | None:
        for number, call in enumerate(self.failure.calls[: before - 1], start=1):
            for n, result in enumerate(call.results if call.results and call.step == "call" else ()):
                name = f"result{number}" if n == 0 else f"results{number}[{n}]"
                if array is result:
                    return name
                if (part := _part(array, result)) is not None:
                    return name + part
        return None

    def step(self, call: Call, *, keep: bool = True) -> Iterator[str]:
        """The lines of one step; without `keep` the last of them is the call, and its result is only named."""
        self.number += 1
        if call.step in ("build", "call", "gradient", "second"):
            yield from self._operands(call)
            layer = self.layers.get(id(call.module)) if call.module is not None else None
            if self.form == "class" and layer is None:
                layer = f"layer{self.number}"
                yield from self._build(call, layer)
                self.layers[id(call.module)] = layer
            if call.step == "call":
                yield from self._call(call, layer, keep)
            elif call.step == "gradient":
                yield self._gradient(call, layer, keep)
            else:
                yield self._second(call.case)
            return
        if call.step == "spoil":
            yield f"{self._place((call.results or ())[0])}[...] = nan"
            return
        layer = self.layers[id(call.module)]
        if call.step == "mode":
            yield f"set_training({layer}, {call.case.arguments['training']})"
        elif call.step == "state":
            yield f"state{self.number} = {self._state(call, layer)}"
        else:
            calls = list(enumerate(self.failure.calls[: self.number - 1], start=1))
            known = [f"state{n}" for n, c in calls if c.step == "state" and c.entries is call.entries]
            own = self._roles(call).own({key: key for key in call.entries})
            if known and all(key == page for key, page in own.items()):
                yield f"load_entries({layer}, {known[0]})"
                return
            given = {k: f"{known[0]}[{page!r}]" if known else literal(call.entries[page]) for k, page in own.items()}
            yield f"load_entries({layer}, {{{', '.join(f'{key!r}: {array}' for key, array in given.items())}}})"

    def _roles(self, call: Call) -> Roles:
        """Which of a module's entries have the roles of the page's keys: scripts use the module's own keys."""
        return self.subject.known_roles(call.case.stem, call.case.arrays)

    def _state(self, call: Call, layer: str) -> str:
        """The state by the page's keys, whose arrays may have other keys in the module, or not be saved."""
        keys = self._roles(call).own({key: key for key in call.entries})
        entries = (f"{page!r}: read({layer}, {own!r})" for own, page in keys.items())
        return f"{{{', '.join(entries)}}}"

    def _operands(self, call: Call) -> Iterator[str]:
        for name, array in call.case.arrays.items():
            given = call.given.arrays[name] if call.given else None
            if name in self.written and _same(self.written[name], array):
                pass
            elif given is not None and (result := self._result(given, self.number)) is not None:
                yield f"{_variable(name)} = {result}"  # what an earlier step gave
            elif given is not None and (same := [n for n, a in self.given.items() if a is given and n != name]):
                yield f"{_variable(name)} = {_variable(same[0])}"  # one array in two places
            elif given is not None and given is self.given.get(name):  # the very array, with other values in it
                yield f"{_variable(name)}[...] = {literal(array)}"
            else:
                yield f"{_variable(name)} = {'None' if array is None else written(array)}"
            self.written[name], self.given[name] = array, given

    def _build(self, call: Call, layer: str) -> Iterator[str]:
        case = call.case
        cls = self.subject.class_of(case.stem, case.arrays)
        positional, keywords, training = self.subject.constructor(case.stem, case.arrays, case.arguments)
        dtype = next(a.dtype.name for a in case.arrays.values() if a is not None)
        state = {n: a for n, a in case.arrays.items() if n != "x" and not n.startswith("cotangent")}
        own = self._roles(call).own({n: _variable(n) for n, a in state.items() if a is not None})
        given = [f"{key!r}: {array}" for key, array in own.items()]
        yield f"{layer} = construct({cls}, {positional!r}, {keywords!r}, np.dtype({dtype!r}))"
        if given:
            yield f"load_entries({layer}, {{{', '.join(given)}}})"
        yield f"set_training({layer}, {training})"

    def _gradient(self, call: Call, layer: str | None, keep: bool) -> str:
        case, signature = call.case, SIGNATURES[call.case.stem]
        copy = "" if call.given else ".copy()"
        if layer is not None:
            found = f"differentiate_module({layer}, to_native(x{copy}), to_native(cotangent{copy}))"
        else:
            lacks = self.subject.lacks(case.stem, self.form)
            native = {n: "None" if a is None else f"to_native({_variable(n)}{copy})" for n, a in case.arrays.items()}
            operands = {n: v for n, v in native.items() if n not in lacks and not n.startswith("cotangent")}
            cotangents = [v for n, v in native.items() if n.startswith("cotangent")]
            if "equation" in case.arguments:
                operands = {"equation": repr(case.arguments["equation"]), **operands}
            keywords = {n: v for n, v in case.arguments.items() if n not in lacks and n != "equation"}
            chosen = (signature.differentiates(n, call.wanted) for n in operands)
            wanted = [case.arrays.get(n) is not None and c for n, c in zip(operands, chosen, strict=True)]
            name = signature.function
            ways = ("differentiate", name) if hasattr(self.subject.framework, "vjp") else ("by_own_vjp", f"{name}_vjp")
            found = f"{ways[0]}({ways[1]}, [{', '.join(operands.values())}], {keywords!r}, "
            found = f"dict(zip({tuple(operands)!r}, {found}{wanted!r}, [{', '.join(cotangents)}])))"
        if not keep:
            return f"result = {found}"
        name, page = f"gradient = gradient{self.number}", "n"
        if layer is not None and (roles := self._roles(call)).renamed:
            page = f"{ {own: page for page, own in roles.keys.items()} }.get(n, n)"
        return f"{name} = {{{page}: to_numpy(g) for n, g in {found}.items() if g is not None}}"

    def _second(self, case: Case) -> str:
        name, lacks = SIGNATURES[case.stem].function, self.subject.lacks(case.stem, self.form)
        native = {n: "None" if a is None else f"to_native({_variable(n)}.copy())" for n, a in case.arrays.items()}
        tangent, cotangent = native.pop("tangent"), native.pop("cotangent", None)
        operands = {n: a for n, a in native.items() if n not in lacks}
        keywords = {n: v for n, v in case.arguments.items() if n not in lacks}
        if cotangent is None:
            found = f'{{"y": push_forward_twice({name}, [{", ".join(operands.values())}], {keywords!r}, {tangent})}}'
        else:
            differentiates = SIGNATURES[case.stem].differentiates
            wanted = [case.arrays[n] is not None and differentiates(n, None) for n in operands]
            given = f"[{', '.join(operands.values())}], {keywords!r}, {wanted!r}, {cotangent}, {tangent}"
            automatic = hasattr(self.subject.framework, "vjp")
            found = f"differentiate_again({name}, {given})" if automatic else f"by_own_vjp_vjp({name}_vjp_vjp, {given})"
            found = f"dict(zip({('cotangent', *operands)!r}, {found}))"
        return f"second = second{self.number} = {{n: to_numpy(g) for n, g in {found}.items() if g is not None}}"

    def _call(self, call: Call, layer: str | None, keep: bool) -> Iterator[str]:
        case, signature, number = call.case, SIGNATURES[call.case.stem], self.number
        copy = "" if call.given else ".copy()"  # what the subject does to a copy shows nowhere else
        if layer is None:
            lacks = self.subject.lacks(case.stem, self.form)
            arrays = {_variable(n): a for n, a in case.arrays.items() if n not in lacks}
            given = ["None" if a is None else f"to_native({n}{copy})" for n, a in arrays.items()]
            if "equation" in case.arguments:
                given.insert(0, repr(case.arguments["equation"]))
            given += [f"{n}={v!r}" for n, v in case.arguments.items() if n not in lacks and n != "equation"]
            called = f"{signature.function}({', '.join(given)})"
        else:
            called = f"{layer}(to_native(x{copy}))"
        if not keep:
            yield f"result = {called}"
        elif len(signature.results) == 1:
            yield f"result = result{number} = to_numpy({called})"
        elif layer is None:
            yield f"results{number} = [to_numpy(r) for r in {called}]"
            yield f"result = result{number} = results{number}[0]"
        else:
            yield f"result = result{number} = to_numpy({called})"
            own = self._roles(call).own({n: n for n in signature.results[1:]})
            further = "".join(f", read({layer}, {n!r})" for n in own)
            yield f"results{number} = [result{further}]"
        if re.search(rf"first{number}\b", self.wanted):
            yield f"first{number} = result.copy()"
        if re.search(rf"firsts{number}\b", self.wanted):
            yield f"firsts{number} = [r.copy() for r in results{number}]"


def _part(array: np.ndarray, whole: np.ndarray) -> str | None:
    """The index that cuts a view, along one axis, out of a result."""
    if array.ndim != whole.ndim or array.dtype != whole.dtype or not np.shares_memory(array, whole):
        return None
    cut = [axis for axis in range(whole.ndim) if array.shape[axis] != whole.shape[axis]]
    if len(cut) > 1 or array.strides != whole.strides:
        return None
    axis = cut[0] if cut else 0
    begin = (array.ctypes.data - whole.ctypes.data) // (whole.strides[axis] or 1) if whole.ndim else 0
    return f"[{':, ' * axis}{begin}:{begin + array.shape[axis]}]" if cut else ""


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    alike = (a.dtype, a.shape, a.strides) == (b.dtype, b.shape, b.strides)
    return alike and bool(np.array_equal(a, b, equal_nan=is_floating(a.dtype)))


def _variable(name: str) -> str:
    return name.replace(".", "_")


if __name__ == "__main__":
    _main()

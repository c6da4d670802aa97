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
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from nnspec.adapters import carried, load
from nnspec.adapters.blame import Watched
from nnspec.adapters.subject import Subject
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Case
from nnspec.conformance.formats import is_floating
from nnspec.conformance.layouts import laid_out, offset_of
from nnspec.conformance.requirements import Check, requirements
from nnspec.conformance.system import processes, signals
from nnspec.conformance.trial.dying import smallest_crash
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.replay import NotRecorded, Replay
from nnspec.conformance.trial.source import literal
from nnspec.conformance.trial.steps import Call, Step, steps_of

LARGEST = 20_000  # elements written out; a script with more would be no help
Crash = tuple[str, str, str, Case, str, bool]  # requirement, form, dtype, case, what happened, if the process ended


def reproduce(subject: Subject, check: Check, form: str, dtype: str, failure: Mismatch) -> str:
    """The text of the script; "" where the arrays are too large to be written out, or steps are not known."""
    about = f"{subject.name} ({form}, {dtype}) breaks it: {failure.message}"
    if _elements(failure.steps) > LARGEST:
        return ""
    replay = Replay(subject, form, failure.steps)
    try:
        end = _end(failure, replay)
        if not end:
            return ""
        last = failure.steps[-1] if failure.steps else None
        if isinstance(last, Call) and "result is None" in failure.holds:
            lines = list(replay.refusal(last))
        else:
            lines = list(replay.lines())
    except NotRecorded:
        return ""
    return _render(subject, form, [*lines, *end], check.identifier, about)


def reproduce_crash(subject: Subject, identifier: str, form: str, dtype: str, case: Case, what: str) -> str:
    """The script of a call that ended the process or hung; "" where it cannot be written."""
    steps = steps_of(form, case)
    if _elements(steps) > LARGEST:
        return ""
    lines = [*Replay(subject, form, steps).lines(), f'print("returned", {steps[-1].kind}, sep="\\n")']
    return _render(subject, form, lines, identifier, f"{subject.name} ({form}, {dtype}): {what}.")


def _elements(steps: Iterable[Step]) -> int:
    return sum(array.size for step in steps for array in step.writes().values() if array is not None)


def crash_scripts(
    subject: str, framework: str | None, device: str | None, crashes: list[Crash]
) -> list[tuple[str, dict[str, Any] | None, bool]]:
    """The scripts of calls that ended the process, written by another process, which loads the subject.

    Beside each script, the smaller case that it is about, as plain data, None where none was found; and whether the
    call may end a new process, too.
    """
    # a pickled array forgets how it lies in memory
    of_each = ([(n, a) for n, a in case.arrays.items() if a is not None] for *_, case, _, _ in crashes)
    layouts = [{n: (a.strides, offset_of(a)) for n, a in arrays} for arrays in of_each]
    try:
        told = _in_another_process(pickle.dumps((subject, framework, device, crashes, layouts)))
        return [(script, case, recurs) for script, case, recurs in json.loads(told.splitlines()[-1])]
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return [("", None, True)] * len(crashes)


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
    from nnspec.conformance.report.report import plain_case

    name, framework, device, crashes, layouts = pickle.load(sys.stdin.buffer)
    subject, scripts = load(name, framework, device), []
    for (identifier, form, dtype, case, what, ended), lie in zip(crashes, layouts, strict=True):
        floats = {n: a for n, a in case.arrays.items() if a is not None and a.size and is_floating(a.dtype)}
        case = case.but(**{n: laid_out(a, *lie[n]) for n, a in floats.items()})
        forks = ended and device in (None, "cpu")  # no other device survives a fork
        found = smallest_crash(subject, form, case) if forks else case
        script = reproduce_crash(subject, identifier, form, dtype, found or case, what)
        scripts.append((script, None if found is None or found is case else plain_case(found), found is not None))
    print("\n" + json.dumps(scripts))


def _render(subject: Subject, form: str, lines: list[str], identifier: str, about: str) -> str:
    body = "\n".join(lines)
    known = subject.functions if form == "function" else subject.classes
    names = sorted(set(re.findall(r"\w+", body)) & known.keys())
    # each line once: a file is run once, so that its classes know one another
    recipes = "\n".join(dict.fromkeys("\n".join(subject.recipe(n) for n in names).splitlines()))
    adapter = subject.framework.framework if isinstance(subject.framework, Watched) else subject.framework
    adapter = adapter.in_scripts(form)
    used = carried.sources(adapter, f"{body}\n{recipes}")
    if "laid_out(" in body:
        used.append(inspect.getsource(laid_out).rstrip())
    text = {"requirement": identifier, "sentence": requirements()[identifier].sentence, "about": about}
    rendered: str = _template().render(
        {name: value.replace("\\", "/").replace('"""', "'''") for name, value in text.items()},
        preamble=carried.preamble(adapter, subject.device),
        bridge="\n\n\n".join(used),
        recipes=recipes,
        lines=body,
    )
    return rendered


@cache
def _template() -> jinja2.Template:
    """Return the compiled template, which takes as long to compile as ten cases take to judge."""
    text = resources.files(__package__).joinpath("reproduce.py.jinja").read_text("utf-8")
    return jinja2.Template(text, keep_trailing_newline=True)


# -- the end of a script -----------------------------------------------------------------------------------------------


def _end(failure: Mismatch, replay: Replay) -> list[str]:
    """The lines that judge what the steps gave; none where nothing follows from it."""
    if failure.end is not None:
        return failure.end
    if failure.expected is not None:
        return _compared(failure.actual, failure.expected, replay)
    last = failure.steps[-1] if failure.steps else None
    if last is not None and failure.holds:
        what = last.kind or "result"
        return [f'print("{what}", {what}, sep="\\n")', f"sys.exit(0 if {failure.holds} else {failure.message!r})"]
    return [] if last is None or last.done else ["sys.exit(0)"]  # a step that raised raises again


def _compared(actual: Any, expected: Expected, replay: Replay) -> list[str]:
    value = np.asarray(expected.value, np.float64 if is_floating(expected.value.dtype) else None)
    bound = expected.within().astype(np.float64)
    bound = np.broadcast_to(bound if bound.shape == value.shape else bound.max(initial=0), value.shape)
    return [
        f"expected = {literal(value) if expected.source is None else replay.first(expected.source)}",
        f"bound = {literal(bound) if bound.any() else 0}",
        f"actual = {replay.place(actual)}",
        'print("expected", expected, "actual", actual, sep="\\n")',
        "if actual.shape != expected.shape:",
        '    sys.exit("the result has another shape than the specification says")',
        "same = (abs(actual - expected) <= bound) | (actual == expected) | (np.isnan(actual) & np.isnan(expected))",
        'sys.exit(0 if np.all(same) else "the result differs from what the specification says")',
    ]


if __name__ == "__main__":
    _main()

"""A standalone script for a failed requirement: the calls that failed, as a user would write them."""

from __future__ import annotations

import inspect
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject
from nnspec.conformance.cases import Case
from nnspec.conformance.requirements import Check, requirements
from nnspec.conformance.trial import Call, Mismatch

LARGEST = 20_000  # elements written out; a script with more would be no help


def reproduce(subject: Subject, check: Check, form: str, dtype: str, failure: Mismatch) -> str:
    """The text of the script; "" where the arrays are too large to be written out."""
    calls = failure.calls
    if failure.script is None and (not calls or sum(_size(c) for c in calls) > LARGEST):
        return ""
    lines = failure.script if failure.script is not None else _replay(subject, form, calls, failure)
    template = resources.files("nnspec.conformance").joinpath("reproduce.py.jinja").read_text("utf-8")
    framework = inspect.getmodule(subject.framework.to_native)
    used = [n for n in ("to_native", "to_numpy", "construct", "load_entries", "state", "set_training")]
    text = jinja2.Template(template, keep_trailing_newline=True).render(
        requirement=check.identifier,
        sentence=requirements()[check.identifier].sentence,
        subject=subject.name,
        form=form,
        dtype=dtype,
        message=failure.message.replace('"""', "'''").replace("\\", "/"),
        imports="import torch\nfrom torch import nn" if hasattr(framework, "torch") else "import inspect",
        framework="\n\n".join(inspect.getsource(getattr(framework, n)).rstrip() for n in used)
        .replace("Mapping[str, Any]", "dict")
        .replace("Mapping[str, np.ndarray]", "dict"),
        recipes="\n".join(subject.recipe(n) for n in sorted(_names(subject, form, calls, check))),
        lines=lines,
    )
    return text


def recorded_call(subject: str, identifier: str, form: str, dtype: str, case: Case, what: str) -> str:
    """The script of a call that ended the process or hung. Of the subject only the name is known: it is not loaded."""
    arrays = "\n".join(f"    {n!r}: {'None' if a is None else literal(a)}," for n, a in case.arrays.items())
    return (
        f'"""{identifier} on {subject} ({form}, {dtype}): the call {what}."""\n\n'
        "import numpy as np\n\nfrom nnspec.adapters import load\n\nnan, inf = np.nan, np.inf\n"
        f"arrays = {{\n{arrays}\n}}\n"
        f"print(load({subject!r}).call({case.stem!r}, {form!r}, arrays, {case.arguments!r}))\n"
    )


def _size(call: Call) -> int:
    return sum(a.size for a in call.case.arrays.values() if a is not None)


def _names(subject: Subject, form: str, calls: list[Call], check: Check) -> set[str]:
    stems = {c.case.stem for c in calls} or {check.stem}
    if form == "function":
        return {name for stem in stems if (name := SIGNATURES[stem].function)}
    return {name for stem in stems for name in SIGNATURES[stem].classes if name in subject.classes}


def _replay(subject: Subject, form: str, calls: list[Call], failure: Mismatch) -> list[str]:
    lines: list[str] = []
    for number, call in enumerate(calls, start=1):
        lines += _one_call(subject, form, call, number)
    if failure.expected is None:
        return [*lines, f"sys.exit({('the last call: ' + failure.message)!r})"]
    same = [n for n, c in enumerate(calls, 1) if c.results is not None and failure.actual is c.results[0]]
    value = np.asarray(failure.expected.value, np.float64 if failure.expected.value.dtype.kind == "f" else None)
    bound = np.broadcast_to(np.asarray(failure.expected.bound, np.float64), value.shape)
    lines += [f"expected = {literal(value)}", f"bound = {literal(bound) if bound.any() else 0}"]
    actual = f"result{same[-1]}" if same else literal(np.asarray(failure.actual))
    return [
        *lines,
        f"actual = {actual}",
        'print("expected", expected, "actual", actual, sep="\\n")',
        "same = actual.shape == expected.shape and np.all(",
        "    (abs(actual - expected) <= bound) | (actual == expected) | (np.isnan(actual) & np.isnan(expected))",
        ")",
        'sys.exit(0 if same else "the result differs from what the specification says")',
    ]


def _one_call(subject: Subject, form: str, call: Call, number: int) -> list[str]:
    case, stem, lines = call.case, SIGNATURES[call.case.stem], []
    for name, array in case.arrays.items():
        lines.append(f"{_identifier(name)} = {'None' if array is None else literal(array)}")
    lacks = subject.lacks(case.stem, form)
    if form == "function":
        arrays = [n for n in case.arrays if n not in lacks]
        operands = [f"{_identifier(n)} if {_identifier(n)} is None else to_native({_identifier(n)})" for n in arrays]
        if "equation" in case.arguments:
            operands.insert(0, repr(case.arguments["equation"]))
        keywords = [f"{n}={v!r}" for n, v in case.arguments.items() if n not in lacks and n != "equation"]
        called = f"{stem.function}({', '.join(operands + keywords)})"
    else:
        cls = subject.class_of(case.stem, case.arrays)
        positional, keywords_given, training = subject.constructor(case.stem, case.arrays, case.arguments)
        entries = ", ".join(f"{n!r}: {_identifier(n)}" for n, a in case.arrays.items() if n != "x" and a is not None)
        dtype = next(a.dtype for a in case.arrays.values() if a is not None)
        lines.append(f"layer = construct({cls}, {positional!r}, {keywords_given!r}, np.dtype({dtype.name!r}))")
        lines += [f"load_entries(layer, {{{entries}}})", f"set_training(layer, {training})"]
        called = "layer(to_native(x))"
    lines.append(f"result{number} = {called}")
    if len(stem.results) > 1 and form == "function":
        lines.append(f"result{number} = result{number}[0]")
    return [*lines, f"result{number} = to_numpy(result{number})"]


def _identifier(name: str) -> str:
    return name.replace(".", "_")


def literal(array: np.ndarray) -> str:
    """An array as Python source."""
    kind = array.dtype.name
    if array.size == 0:
        return f"np.zeros({array.shape}, np.{kind})"
    first = array.flat[0]
    if array.size > 8 and np.all(array == first):
        return f"np.full({array.shape}, {first.item()!r}, np.{kind})"
    return f"np.array({np.asarray(array).tolist()!r}, np.{kind})"


__all__: list[Any] = ["literal", "reproduce"]

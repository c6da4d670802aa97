"""What the mistake probably is: a fault of the catalogue that gives what the subject gave, right or wrong, explains it.

The calls of a failing case, and of some that passed, are made again by those faults that are known to break the
requirement. A fault explains a call if it gives a result of the same shape that agrees in half of its digits, or raises
where the subject raised. This is a hint and no verdict, so that half of the digits will do: a subject may add up in
another order than the fault.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from nnspec.adapters.subject import Subject, Unsupported
from nnspec.conformance.faults import Fault, catalogue
from nnspec.conformance.findings import broken_by_faults
from nnspec.conformance.formats import is_floating
from nnspec.conformance.trial import Call, Outcome

Array = np.ndarray
Given = tuple[Array, ...] | None  # what a call gave; None where it raised


@dataclass(frozen=True)
class Cause:
    """A fault, and how many of the calls it explains."""

    fault: str
    mistake: str
    explained: int
    of: int


def causes(identifier: str, outcome: Outcome) -> list[Cause]:
    """The faults that explain the failing case, those first that explain most of what else was seen."""
    assert outcome.failure is not None
    failing, others = _alone(outcome.failure.calls), _alone(call for calls in outcome.seen for call in calls)
    if not failing:
        return []
    found = []
    for fault in _candidates(identifier):
        if all(_explains(fault, call) for call in failing):
            explained = len(failing) + sum(_explains(fault, call) for call in others)
            found.append(Cause(fault.key, fault.mistake, explained, len(failing) + len(others)))
    return sorted(found, key=lambda cause: -cause.explained)


def _alone(calls: Iterable[Call]) -> list[Call]:
    """Calls that depend on nothing but their case."""
    return [call for call in calls if call.module is None and call.step in ("call", "gradient")]


@functools.cache
def _candidates(identifier: str) -> list[Fault]:
    """The faults that break a requirement: its own, and others of the block."""
    stem, _, name = identifier.partition(".")
    breaking = {key for key, names in broken_by_faults().items() if {name, f"{name}!"} & {*names}}
    own = [f for f in catalogue().values() if f.requirement == identifier]
    return own + [
        f for f in catalogue().values() if f.key in breaking and f.requirement.startswith(f"{stem}.") and f not in own
    ]


@functools.cache
def _subject(key: str) -> Subject:
    return catalogue()[key].subject()


def _explains(fault: Fault, call: Call) -> bool:
    subject, case = _subject(fault.key), call.case
    forms = subject.forms(case.stem)
    if not forms:
        return False
    form = "function" if "function" in forms else forms[0]
    operands = {name: None if a is None else np.array(a) for name, a in case.arrays.items()}
    given: Given
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            if call.step == "gradient":
                found = subject.gradients(case.stem, form, operands, case.arguments, call.wanted)
                shared = [n for n, a in found.items() if a is not None and n in call.entries]
                return bool(shared) and _same([call.entries[n] for n in shared], [found[n] for n in shared])
            given = subject.call(case.stem, form, operands, case.arguments)
    except Unsupported:
        return False
    except Exception:
        given = None
    if given is None or call.results is None:
        return given is None and call.results is None
    return _same(call.copies[:1], given[:1])


def _same(actual: Sequence[Array], of_fault: Sequence[Array | None]) -> bool:
    return all(b is not None and _agree(np.asarray(a), np.asarray(b)) for a, b in zip(actual, of_fault, strict=True))


def _agree(a: Array, b: Array) -> bool:
    """Whether two results have one shape, and half of their digits in common, as measured by the largest of them."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not is_floating(a.dtype):
        return np.array_equal(a, b)
    digits = math.sqrt(float(np.finfo(a.dtype).eps)) if a.dtype.kind == "f" else 2.0**-4
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return False
    size = max(float(np.abs(a[finite]).max(initial=0)), float(np.abs(b[finite]).max(initial=0)))
    return bool(np.all(np.abs(a[finite] - b[finite]) <= digits * size))

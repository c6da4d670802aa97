"""What the mistake probably is: a fault of the catalogue that gives what the subject gave, right or wrong, explains it.

The calls of a failing case, and those of others that were right or wrong, are made again by the faults that are known
to break the requirement, and by the reference. A fault explains a result if it has the same shape and lies far nearer
to it than the right one; or if it raises where the subject raised. All calls must be explained. This is a hint and no
verdict: how near is a matter of habit (see `_near`), and no bound is derived.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from nnspec.adapters.for_reference import subject as reference
from nnspec.adapters.subject import Subject, Unsupported
from nnspec.conformance.faults import Fault, broken_by_faults, catalogue
from nnspec.conformance.formats import STORED, is_floating
from nnspec.conformance.trial import Call, Outcome

Array = np.ndarray
Results = dict[str, Array] | None  # by the operand, of a gradient; None where it raised


@dataclass(frozen=True)
class Cause:
    """A fault, what to do instead, where it is known from, and how many calls it explains: all that were looked at."""

    fault: str
    mistake: str
    fix: str
    origin: str
    calls: int


def causes(identifier: str, outcome: Outcome) -> list[Cause]:
    """The faults that explain all that was seen of a failing check, its own before others."""
    assert outcome.failure is not None
    failing = _alone(outcome.failure.calls)
    if not failing:
        return []
    others = _alone(call for calls in outcome.seen for call in calls)
    seen = [(call, _seen(call), _made(reference(), call)) for call in (*failing, *others)]
    if all(_explains(right, actual, right) for _, actual, right in seen[: len(failing)]):
        return []  # nothing that a call alone would show: of a write, an alias, a later call
    return [
        Cause(fault.key, fault.mistake, fault.fix, fault.origin, len(seen))
        for fault in _candidates(identifier)
        if all(_explains(_made(_subject(fault.key), call), actual, right) for call, actual, right in seen)
    ]


def _alone(calls: Iterable[Call]) -> list[Call]:
    """Calls that depend on nothing but their case."""
    return [call for call in calls if call.module is None and call.step in ("call", "gradient")]


@functools.cache
def _candidates(identifier: str) -> list[Fault]:
    """The faults that break a requirement: its own, and others of the block."""
    name = identifier.partition(".")[2]
    breaking = {key for key, names in broken_by_faults().items() if {name, f"{name}!"} & {*names}}
    found = [f for f in catalogue().values() if f.key in breaking or f.requirement == identifier]
    found = [f for f in found if f.requirement.partition(".")[0] == identifier.partition(".")[0]]
    return sorted(found, key=lambda fault: fault.requirement != identifier)


@functools.cache
def _subject(key: str) -> Subject:
    return catalogue()[key].subject()


def _seen(call: Call) -> Results:
    if call.step == "gradient":
        return dict(call.entries) or None
    return None if call.results is None else {"y": call.copies[0]}


def _made(subject: Subject, call: Call) -> Results:
    """The same call of another subject, as a function where it has one."""
    case, forms = call.case, subject.forms(call.case.stem)
    operands = {name: None if a is None else np.array(a) for name, a in case.arrays.items()}
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            if call.step == "call":
                return {"y": subject.call(case.stem, forms[0], operands, case.arguments)[0]}
            found = subject.gradients(case.stem, forms[0], operands, case.arguments, call.wanted)
            return {name: gradient for name, gradient in found.items() if gradient is not None}
    except Unsupported:
        return {}
    except Exception:
        return None


def _explains(made: Results, actual: Results, right: Results) -> bool:
    if made is None or actual is None:
        return made is None and actual is None
    names = made.keys() & actual.keys()
    return bool(names) and all(_near(made[n], actual[n], None if right is None else right.get(n)) for n in names)


def _near(made: Array, actual: Array, right: Array | None) -> bool:
    """Equal but for roundings, or else sixteen times nearer than the right result, as seen by the largest element."""
    if (made.shape, made.dtype) != (actual.shape, actual.dtype):
        return False
    if not is_floating(actual.dtype):
        return np.array_equal(made, actual)
    residual, size = _apart(made, actual), float(np.abs(actual[np.isfinite(actual)]).max(initial=0))
    far = _apart(right, actual) if right is not None and right.shape == actual.shape else 0.0
    roundings = 32 * STORED[actual.dtype.name].u * size if actual.dtype.name in STORED else 0.0
    return residual <= max(roundings, far / 16 if np.isfinite(far) else 0.0)


def _apart(a: Array, b: Array) -> float:
    """The largest difference of two elements; infinite where one is not finite, and not the same as the other."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0))

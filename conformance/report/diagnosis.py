"""What the mistake probably is: a fault of the catalogue that does what the subject did explains it.

Of a check that failed, the smallest case and some others, right and wrong, are put to the faults that are known to
break the requirement, and to the reference. A fault explains a case if the check sees of it what it saw of the subject,
step by step: the same shapes and flags, an exception where there was one, results that lie far nearer to the subject's
than the right ones, and in the end the same complaint or none. All cases must be explained. This is a hint and no
verdict: how near is a matter of habit (see `_near`), and no bound is derived. A case with a large size is put to the
mistakes of kernels, too.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnspec.adapters.for_reference import subject as reference
from nnspec.adapters.subject import Subject, Unsupported
from nnspec.conformance.faults import Fault, broken_by_faults, catalogue, fault_named
from nnspec.conformance.formats import STORED, is_floating
from nnspec.conformance.requirements import Check, kind
from nnspec.conformance.trial.record import COSTLY, CallFails, Outcome, Sighting
from nnspec.conformance.trial.run import sight
from nnspec.conformance.trial.trial import Trial

Array = np.ndarray
Step = tuple[str, int]
SMALL = "small"  # the regime of sizes that shows no mistakes of kernels


@dataclass(frozen=True)
class Cause:
    """A fault, what to do instead, where it is known from, and how many cases it explains: all that were looked at.

    Where nothing was seen of the subject but exceptions, the fault raises as well. Much does, so that this alone
    explains nothing: it also has to break just the requirements that the subject breaks, which the report can tell.
    """

    fault: str
    mistake: str
    fix: str
    origin: str
    cases: int
    raises: bool = False  # nothing was seen but exceptions


def causes(check: Check, outcome: Outcome) -> list[Cause]:
    """Return the faults that explain everything seen of a failing check, the faults of its requirement first."""
    failing = outcome.failure.sighting if outcome.failure else None
    if failing is None:  # a state machine, which has no cases
        return []
    sightings = [failing, *(s for s in outcome.seen if s is not failing)]
    raises = all(_only_raised(sighting) for sighting in sightings)
    cases = [_Seen(check, sighting) for sighting in sightings]
    return [
        Cause(fault.key, fault.mistake, fault.fix, fault.origin, len(cases), raises)
        for fault in _candidates(check, getattr(failing.case, "sizes", SMALL))
        if all(case.explained_by(_subject(fault.key)) for case in cases)
    ]


def _only_raised(sighting: Sighting) -> bool:
    """Return whether the subject did nothing but raise an exception."""
    return sighting.wrong == "raised" and all(what.startswith("raised") for what, _ in sighting.seen)


def _candidates(check: Check, sizes: str) -> list[Fault]:
    """Return the faults that break a requirement: its own first, then others of the block.

    In a case of large sizes, these are also all mistakes of the block's kernels, forward or backward as the check is.
    """
    name = check.identifier.partition(".")[2]
    breaking = {key for key, names in broken_by_faults().items() if {name, f"{name}!"} & {*names}}
    found = [f for f in catalogue().values() if f.key in breaking or f.requirement == check.identifier]
    found = [f for f in found if f.stem == check.stem]
    if check.effort >= COSTLY:
        found = [f for f in found if f.requirement == check.identifier]
    elif sizes != SMALL:
        kernels = (f for f in catalogue(sizes).values() if f.stem == check.stem)
        found += [f for f in kernels if (kind(f.requirement) == "gradient") == check.differentiates]
    return sorted(found, key=lambda fault: fault.requirement != check.identifier)


@functools.cache
def _subject(key: str) -> Subject:
    return fault_named(key).subject()


@dataclass
class _Seen:
    """What was seen of the subject in one case, to be compared with what is seen of others there."""

    check: Check
    actual: Sighting

    def explained_by(self, fault: Subject) -> bool:
        """Return whether the check sees the same of a fault at each step, and the same failure at the end."""
        made = self.sight(fault)
        if made is None or made.wrong != self.actual.wrong or len(made.seen) != len(self.actual.seen):
            return False
        random = functools.cache(lambda: self.random(fault, made))
        return all(
            step == its_step and self.alike(step, value, its_value, random)
            for (step, value), (its_step, its_value) in zip(_steps(made), _steps(self.actual), strict=True)
        )

    def alike(self, step: Step, made: Any, actual: Any, random: Callable[[], set[Step]]) -> bool:
        """The same in a step. Arrays are near each other; of what a fault draws at random, the shapes are the same."""
        if not isinstance(made, np.ndarray) or not isinstance(actual, np.ndarray):
            return bool(made == actual) or (made != made and actual != actual)  # NaN
        return _near(made, actual, self.right.get(step)) or (made.shape == actual.shape and step in random())

    def random(self, fault: Subject, made: Sighting) -> set[Step]:
        """The steps in which a fault gives other values another time."""
        again = self.sight(fault)
        known = dict(_steps(again)) if again else {}
        arrays = {step: value for step, value in _steps(made) if isinstance(value, np.ndarray)}
        return {
            step
            for step, value in arrays.items()
            if not np.array_equal(value, known.get(step, ()), equal_nan=is_floating(value.dtype))
        }

    def sight(self, subject: Subject) -> Sighting | None:
        """Return what the check sees of a subject, in the same form if it has one; None if it cannot be judged."""
        own = subject.forms(self.check.stem)
        if self.actual.form == "function" and "function" not in own:  # a mistake in a class is none in a function
            return None
        trial = Trial(subject, self.actual.form if self.actual.form in own else own[0], self.actual.dtype)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return sight(trial, self.check, self.actual.case)
        except (Unsupported, CallFails):
            return None

    @functools.cached_property
    def right(self) -> dict[Step, Any]:
        """What the check sees of the reference, by step."""
        made = self.sight(reference())
        return dict(_steps(made)) if made else {}


def _steps(sighting: Sighting) -> list[tuple[Step, Any]]:
    """Return what was seen, by its name and by how often that name came before."""
    counts: Counter[str] = Counter()
    found = []
    for name, value in sighting.seen:
        found.append(((name, counts[name]), value))
        counts[name] += 1
    return found


def _near(made: Array, actual: Array, right: Array | None) -> bool:
    """Return whether two arrays are equal up to rounding, or 16 times nearer to each other than to the right one."""
    if (made.shape, made.dtype) != (actual.shape, actual.dtype):
        return False
    if not is_floating(actual.dtype):
        return np.array_equal(made, actual)
    residual, size = _apart(made, actual), float(np.abs(actual[np.isfinite(actual)]).max(initial=0))
    far = _apart(right, actual) if right is not None and right.shape == actual.shape else 0.0
    roundings = 32 * STORED[actual.dtype.name].u * size if actual.dtype.name in STORED else 0.0
    return residual <= max(roundings, far / 16 if np.isfinite(far) else 0.0)


def _apart(a: Array, b: Array) -> float:
    """Return the largest difference of two elements; infinity if one of two unequal elements is not finite."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0))

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
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nnspec.adapters.for_reference import subject as reference
from nnspec.adapters.subject import Subject, Unsupported
from nnspec.conformance.faults import Fault, anew, broken_by_faults, catalogue, fault_named
from nnspec.conformance.formats import STORED, is_floating
from nnspec.conformance.requirements import Check, kind
from nnspec.conformance.trial.record import COSTLY, CallFails, Outcome, Sighting
from nnspec.conformance.trial.run import sight
from nnspec.conformance.trial.trial import Trial

Array = np.ndarray
Step = tuple[str, int]
Faults = dict[str, Fault]
Piece = tuple[str, str]  # a fault in a form of its block
SECONDS = 20.0  # of computing, in which the causes of all failing checks of a subject are sought
LEAST = 0.5  # of computing, for each check after that
DEPENDING = ("memory", "state")  # kinds of requirements: with mistakes in them, results may depend on earlier calls
BETWEEN = 4  # cases that a fault meets before one is put to it again
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


@dataclass
class Search:
    """The faults that explain everything seen of a failing check, and whether the time was up before all were tried."""

    causes: list[Cause]
    cut: bool = False


@dataclass
class Suspicion:
    """What the searches for the causes of a subject's failing checks have shown so far, and the time that is left."""

    seconds: float = SECONDS  # of computing, for all checks that are still to come
    least: float = LEAST  # of computing, for each of them in any case
    explaining: set[Piece] = field(default_factory=set)
    contradicted: set[Piece] = field(default_factory=set)  # by one check at least


def causes(check: Check, outcome: Outcome) -> list[Cause]:
    """Return the faults that explain everything seen of a failing check, the faults of its requirement first."""
    return search(check, outcome, Suspicion()).causes


def search(check: Check, outcome: Outcome, so_far: Suspicion) -> Search:
    """Look for the faults that explain everything seen of a failing check.

    Faults that another check has contradicted, and that explain none, are tried last. If no fault explains the check,
    those whose results may depend on more than the case are tried once more.
    """
    failing = outcome.failure.sighting if outcome.failure else None
    if failing is None:  # a state machine, which has no cases
        return Search([])
    begin = time.thread_time()
    end = begin + max(so_far.least, so_far.seconds)
    sightings = [failing, *(s for s in outcome.seen if s is not failing)]
    cases = [_Seen(check, sighting) for sighting in sightings]
    tried: set[str] = set()

    def explained(faults: Iterable[Fault], by: Callable[[Fault], bool]) -> list[Fault]:
        found = []
        for fault in faults:
            if time.thread_time() > end:
                break
            tried.add(fault.key)
            found += [fault] * by(fault)
        return found

    candidates = _candidates(check, getattr(failing.case, "sizes", SMALL))
    unlikely = {key for key, form in so_far.contradicted - so_far.explaining if form == failing.form}
    met = explained(sorted(candidates, key=lambda fault: fault.key in unlikely), _explaining(cases))
    found = [fault for fault in candidates if fault in met]
    if not found and (depending := [f for f in candidates if f.sizes == SMALL and kind(f.requirement) in DEPENDING]):
        begun = anew(check.stem), anew(check.stem)
        found = explained(depending, lambda fault: _sometimes(fault.key, cases, begun))
    keys, now = {fault.key for fault in found}, time.thread_time()
    so_far.seconds -= now - begin
    so_far.explaining |= {(key, failing.form) for key in keys}
    so_far.contradicted |= {(key, failing.form) for key in tried - keys}
    raises = all(_only_raised(sighting) for sighting in sightings)
    return Search([Cause(f.key, f.mistake, f.fix, f.origin, len(cases), raises) for f in found], now > end)


def _explaining(cases: list[_Seen]) -> Callable[[Fault], bool]:
    """Return what says whether a fault explains all cases: the one that failed first, then small ones before large."""
    first, *others = cases
    ordered = [first, *sorted(others, key=lambda case: case.size)]
    return lambda fault: all(case.explained_by(_subject(fault.key)) for case in ordered)


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


class _Contradiction(Exception):
    """A fault does something else than the subject."""


class _Doubt(Exception):
    """A fault gives an array of other values than the subject, which it may draw at random."""

    def __init__(self, step: Step, value: Array) -> None:
        super().__init__(step)
        self.step, self.value = step, value


@dataclass
class _Seen:
    """What was seen of the subject in one case, to be compared with what is seen of others there."""

    check: Check
    actual: Sighting

    @functools.cached_property
    def size(self) -> int:
        """The number of elements seen: the less, the faster it is compared."""
        return sum(value.size for _, value in self.actual.seen if isinstance(value, np.ndarray))

    @functools.cached_property
    def steps(self) -> dict[Step, Any]:
        """What was seen of the subject, by step."""
        return dict(_steps(self.actual))

    def explained_by(self, fault: Subject) -> bool:
        """Return whether the check sees the same of a fault at each step, and the same failure at the end.

        Of what a fault draws at random, which is another array each time, the shape is the same.
        """
        doubts: dict[Step, Array] = {}
        while True:
            try:
                made = self.sight(fault)
                for step, value in _steps(made) if made else ():
                    self.compare(doubts, step, value)
            except _Contradiction:
                return False
            except _Doubt as doubt:
                doubts[doubt.step] = doubt.value
            else:
                return made is not None and self.ends_like(made)

    def compare(self, doubts: dict[Step, Array], step: Step, made: Any) -> None:
        """Raise _Contradiction, or _Doubt, if a step of a fault differs from the subject's."""
        if step not in self.steps:  # of a case that failed, the last steps may have been dropped
            if self.actual.wrong:
                return
            raise _Contradiction
        actual = self.steps[step]
        if self.alike(step, made, actual):
            return
        if not isinstance(made, np.ndarray) or not isinstance(actual, np.ndarray) or made.shape != actual.shape:
            raise _Contradiction
        if step not in doubts:
            raise _Doubt(step, made.copy())
        if np.array_equal(made, doubts[step], equal_nan=is_floating(made.dtype)):
            raise _Contradiction

    def ends_like(self, made: Sighting) -> bool:
        """Return whether as many steps were seen of a fault, and the same was wrong."""
        return made.wrong == self.actual.wrong and len(made.seen) == len(self.actual.seen)

    def alike(self, step: Step, made: Any, actual: Any) -> bool:
        """Return whether a fault gives the same in a step, or an array that is near the subject's."""
        if not isinstance(made, np.ndarray) or not isinstance(actual, np.ndarray):
            return bool(made == actual) or (made != made and actual != actual)  # NaN
        return _near(made, actual, self.right.get(step))

    def sight(self, subject: Subject) -> Sighting | None:
        """Return what the check sees of a subject, in the same form if it has one; None if it cannot be judged."""
        own = subject.forms(self.check.stem)
        if self.actual.form == "function" and "function" not in own:  # a mistake in a class is none in a function
            return None
        form = self.actual.form if self.actual.form in own else own[0]
        trial = Trial(subject, form, self.actual.dtype)
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


# -- what depends on more than the case --------------------------------------------------------------------------------


def _sometimes(key: str, cases: list[_Seen], begun: tuple[Faults, Faults]) -> bool:
    """Return whether a fault that remembers earlier calls, or leaves memory unwritten, explains what was seen.

    A fault that has `begun` anew meets the cases in the order in which the subject did. A case in which it does
    something else is put to another one after other cases, with other numbers in freed memory. The subject must have
    given what both give. In one case at least that failed, the fault must do all that the subject did.
    """
    one, other = (faults[key].subject() for faults in begun)
    shown = False
    for number, case in enumerate(cases):
        made = _after_filling(one, case, 1.0)
        if made and _same(case, made):
            shown |= bool(case.actual.wrong)
            continue
        for before in reversed(cases[number + 1 : number + 1 + BETWEEN]):
            before.sight(other)
        again = _after_filling(other, case, np.nan)
        if again and _same(case, again):
            shown |= bool(case.actual.wrong)
        elif not (made and again and _possible(case, [made, again])):
            return False
    return shown


def _after_filling(subject: Subject, case: _Seen, value: float) -> Sighting | None:
    """Return what is seen of a fault in a case after freed memory was filled with a number."""
    arrays = [a for _, a in case.actual.seen if isinstance(a, np.ndarray) and is_floating(a.dtype)]
    subject.framework.dirty([np.full_like(a, value) for a in arrays])
    return case.sight(subject)


def _same(case: _Seen, made: Sighting) -> bool:
    return case.ends_like(made) and all(
        step in case.steps and case.alike(step, value, case.steps[step]) for step, value in _steps(made)
    )


def _possible(case: _Seen, ways: list[Sighting]) -> bool:
    """Return whether the subject differs from a fault only in what differs from one way of the fault to another."""
    open_steps = False
    for (step, actual), *made in zip(_steps(case.actual), *map(_steps, ways), strict=False):
        if any(its_step != step for its_step, _ in made):
            return open_steps
        values = [value for _, value in made]
        if any(case.alike(step, value, actual) for value in values):
            continue
        if not all(isinstance(value, np.ndarray) and value.shape == np.shape(actual) for value in values):
            if all(np.all(_equal(value, values[0])) for value in values):
                return False
        else:
            steady = functools.reduce(np.logical_and, [_equal(value, values[0]) for value in values])
            if steady.all() or not _near(values[0][steady], actual[steady], None):
                return False
        open_steps = True
    return open_steps or any(way.wrong != ways[0].wrong for way in ways)


def _equal(a: Any, b: Any) -> Any:
    """Return where two arrays of one shape are equal, NaN to NaN; or whether all else is."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return a is b or (type(a) is type(b) and a == b)
    if a.shape != b.shape:
        return False
    return (a == b) | ((a != a) & (b != b))


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

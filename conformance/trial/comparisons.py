"""How the results of a check compare with what is expected, and in which class of accuracy they are.

A whole case must be in one class: each comparison leaves only those classes open in which its result is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nnspec.conformance.bounds.arithmetic import CLASSES, Accuracy
from nnspec.conformance.bounds.rule import Expected, compare, correct
from nnspec.conformance.formats import STORED, name_of
from nnspec.conformance.trial.record import Mismatch, difference, is_complex
from nnspec.conformance.trial.steps import Step

Array = np.ndarray
Told = Callable[[Mismatch], Mismatch]


@dataclass
class Comparisons:
    """The comparisons of one trial. `weaker` are the classes beside B that its subject may be in."""

    flushes: bool = False
    weaker: tuple[str, ...] = ()
    worst: float = 0.0  # the largest error / bound of a result that is not correctly rounded
    worst_case: str = ""
    reached: str = "A"  # the worst class of accuracy that a case needed
    open: tuple[Accuracy, ...] = ()  # the classes that the case may still be in, the best first
    excluded: tuple[Mismatch, int, int] | None = None  # by class B; how many steps and sightings before it
    steps: list[Step] = field(default_factory=list)  # of the case
    seen: list[tuple[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._all = tuple(Accuracy(name, self.flushes) for name in ("B", *self.weaker))
        self.begin([], [])

    def begin(self, steps: list[Step], seen: list[tuple[str, Any]]) -> None:
        """Open every class for a new case, which appends to these lists."""
        self.open = self._all
        self.steps, self.seen, self.excluded = steps, seen, None

    def end(self) -> None:
        """Note the class of a case that is right."""
        if self.excluded:
            self.reached = max(self.reached, self.open[0].name, key=list(CLASSES).index)

    def blamed(self, mismatch: Mismatch) -> Mismatch:
        """Return the mismatch to report for a case that is wrong: the first result that class B excludes, if any."""
        if self.excluded is None:
            return mismatch
        first, steps, seen = self.excluded
        del self.steps[steps:], self.seen[seen:]
        return first.with_traceback(None)  # raised in one place, it is one failure to Hypothesis

    def expect(self, actual: Array, expected: Expected, what: str, told: Told) -> None:
        """Raise a Mismatch where the result is in no class that is open; `told` adds what a script needs."""
        self._same_kind(actual, expected, what, told)
        right = correct(actual, expected)
        if right.all():
            return
        fitting, largest = self._fitting(actual, expected, right)
        self._narrow(fitting, lambda: told(self._mismatch(actual, expected, what)))
        self._note(actual, expected, largest)

    def expect_one(
        self, actual: Sequence[Array], ways: Iterable[Sequence[Expected]], what: Sequence[str]
    ) -> Sequence[Expected]:
        """Return the best of several ways in which all results may be right.

        Raise a Mismatch where no class that is open has one; it is about the first way.
        """
        found = []  # ways, and the classes in which all results are right
        for way in ways:
            classes = [self._classes(one, expected) for one, expected in zip(actual, way, strict=True)]
            found.append((way, {accuracy for accuracy in self.open if all(accuracy in each for each in classes)}))
            if len(found[-1][1]) == len(self.open):
                break
        first, (best, _) = found[0][0], max(found, key=lambda one: len(one[1]))
        fitting = tuple(accuracy for accuracy in self.open if any(accuracy in classes for _, classes in found))
        self._narrow(fitting, lambda: self._first_wrong(actual, first, what))
        for one, expected, name in zip(actual, best, what, strict=True):
            self._same_kind(one, expected, name, _as_it_is)
            right = correct(one, expected)
            if not right.all():
                self._note(one, expected, self._fitting(one, expected, right)[1])
        return best

    def _classes(self, actual: Array, expected: Expected) -> tuple[Accuracy, ...]:
        """Return the open classes in which the result is right."""
        if actual.shape != expected.value.shape:
            return ()
        right = correct(actual, expected)
        return self.open if right.all() else self._fitting(actual, expected, right)[0]

    def _fitting(self, actual: Array, expected: Expected, right: Array) -> tuple[tuple[Accuracy, ...], float]:
        """Return the open classes in which the result is right, and the largest error / bound in the best of them.

        A result in class B is in every other class: no bound of theirs is smaller.
        """
        fitting: list[Accuracy] = []
        largest = 0.0
        for accuracy in self.open:
            _, wrong, ratio = compare(actual, expected, accuracy, right)
            if not wrong.any():
                largest = largest if fitting else float(ratio.max(initial=0))
                if accuracy.name == "B":
                    return self.open, largest
                fitting.append(accuracy)
        return tuple(fitting), largest

    def _narrow(self, fitting: tuple[Accuracy, ...], mismatch: Callable[[], Mismatch]) -> None:
        """Keep these classes open; `mismatch` says what is wrong in class B, if it is now closed."""
        if fitting == self.open:
            return
        if self.excluded is None:
            self.excluded = (mismatch(), len(self.steps), len(self.seen))
        if not fitting:
            raise self.excluded[0]
        self.open = fitting

    def _same_kind(self, actual: Array, expected: Expected, what: str, told: Told) -> None:
        if actual.shape != expected.value.shape:
            raise told(self._mismatch(actual, expected, what))
        if is_complex(actual) and not is_complex(expected.value):
            raise told(Mismatch(f"{what} has dtype {actual.dtype}, expected real numbers"))

    def _first_wrong(self, actual: Sequence[Array], way: Sequence[Expected], what: Sequence[str]) -> Mismatch:
        wrong = (each for each in zip(actual, way, what, strict=True) if self.open[0] not in self._classes(*each[:2]))
        return self._mismatch(*next(wrong))

    def _mismatch(self, actual: Array, expected: Expected, what: str) -> Mismatch:
        """What is wrong in the best class that is open."""
        if actual.shape != expected.value.shape:
            message = f"{what} has shape {actual.shape}, expected {expected.value.shape}"
            return Mismatch(message, actual, expected.under(self.open[0]))
        error, wrong, _ = compare(actual, expected, self.open[0])
        severity = np.where(np.isnan(error), np.inf, error)
        index = np.unravel_index(np.argmax(np.where(wrong, severity, -1)), actual.shape)
        stored = expected.stored(actual.dtype, self.open[0])
        return Mismatch(difference(what, actual, stored, error, index, int(wrong.sum())), actual, stored)

    def _note(self, actual: Array, expected: Expected, largest: float) -> None:
        """Note how much of its bound a right result takes, and which of the classes A, Bp and B it is in."""
        if largest > self.worst:
            self.worst, self.worst_case = largest, str(self.steps[-1]) if self.steps else ""
        if name_of(actual.dtype) not in STORED or expected.source is not None:
            return
        if self.reached == "A" and not np.array_equal(actual, expected.nearest(actual.dtype), equal_nan=True):
            self.reached = "Bp"
        if self.reached == "Bp" and not self._probable(actual, expected):
            self.reached = "B"

    def _probable(self, actual: Array, expected: Expected) -> bool:
        """Whether errors are no larger than those of independent roundings."""
        if expected.probable is None:
            return False
        probable = Expected(expected.value, expected.probable)
        return not compare(actual, probable, Accuracy("B", self.flushes))[1].any()


def _as_it_is(mismatch: Mismatch) -> Mismatch:
    return mismatch

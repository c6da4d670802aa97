"""Comparisons: which class of accuracy a case is in, what is reported, and when a bound is evaluated."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec.conformance.bounds.arithmetic import Accuracy
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.trial.comparisons import Comparisons
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.steps import Line

ONE = np.ones(1)
OFF = np.array([1.25], np.float32)
FIRST = Line("first()")


def allowed_in(*names, value=ONE):
    """An expectation that OFF meets in these classes alone."""
    return Expected(value, lambda accuracy: 0.5 if accuracy.name in names else 0.125)


def compared(*weaker):
    found = Comparisons(weaker=weaker)
    found.begin([], [])
    return found


def expect(comparisons, actual, expected, what="the result"):
    comparisons.expect(actual, expected, what, lambda mismatch: mismatch)


def test_a_correctly_rounded_result_needs_no_bound():
    def bound(accuracy):
        raise AssertionError("the bound was evaluated")

    comparisons = compared()
    third = Expected(np.array([1 / 3, np.nan, np.inf, 0.0]), bound)
    expect(comparisons, np.array([1 / 3, np.nan, np.inf, -0.0], np.float32), third)
    comparisons.end()
    assert (comparisons.worst, comparisons.reached) == (0, "A")
    with pytest.raises(AssertionError, match="evaluated"):
        expect(comparisons, np.array([0.3, np.nan, np.inf, 0.0], np.float32), third)


def test_an_exact_expectation_is_not_met_by_its_rounding():
    with pytest.raises(Mismatch):
        expect(compared(), np.array([1 / 3], np.float32), Expected.exactly(np.array([1 / 3])))


def test_a_bound_is_evaluated_once_for_each_accuracy():
    asked = []

    def bound(accuracy):
        asked.append(accuracy)
        return 0.5

    expected = Expected(ONE, bound)
    for flushes in (False, True, False):
        expect(Comparisons(flushes=flushes), OFF, expected)
    assert asked == [Accuracy("B", False), Accuracy("B", True)]


def test_a_case_is_in_one_class():
    comparisons = compared("B2", "L")
    expect(comparisons, OFF, allowed_in("B2"))
    with pytest.raises(Mismatch):
        expect(comparisons, OFF, allowed_in("L"))
    comparisons.begin([], [])
    expect(comparisons, OFF, allowed_in("B2", "L"))
    expect(comparisons, OFF, allowed_in("L"))
    comparisons.end()
    assert comparisons.reached == "L"


def test_the_first_result_outside_class_b_is_reported():
    steps, seen = [FIRST], [("result", ONE)]
    comparisons = Comparisons(weaker=("L",))
    comparisons.begin(steps, seen)
    expect(comparisons, OFF, allowed_in("L"), "the first")
    steps.append(Line("second()"))
    seen.append(("result", OFF))
    with pytest.raises(Mismatch, match=r"the first\[0\] is 1.25, expected 1.0 .*allowed 0.125"):
        expect(comparisons, OFF, allowed_in(), "the second")
    other = comparisons.blamed(Mismatch("of another kind"))
    assert other.message.startswith("the first")
    assert other.expected.bound == 0.125
    assert steps == [FIRST]
    assert seen == [("result", ONE)]


def test_without_a_weaker_class_the_mismatch_at_hand_is_reported():
    mismatch = Mismatch("of another kind")
    assert compared("L").blamed(mismatch) is mismatch


def test_each_class_may_have_a_way_of_its_own():
    comparisons = compared("B2", "L")
    comparisons.expect_one([OFF], [[allowed_in("B2")], [allowed_in("L")]], ["the result"])
    assert [accuracy.name for accuracy in comparisons.open] == ["B2", "L"]
    expect(comparisons, OFF, allowed_in("L"))
    assert [accuracy.name for accuracy in comparisons.open] == ["L"]


def test_results_that_are_right_in_no_way_differ_from_the_first():
    ways = ([allowed_in("B"), allowed_in(value=2 * ONE)], [allowed_in(), allowed_in("B")])
    with pytest.raises(Mismatch, match=r"the second\[0\] is 1.25, expected 2.0"):
        compared().expect_one([OFF, OFF], ways, ["the first", "the second"])


def test_the_best_way_is_chosen_and_its_error_noted():
    comparisons, right = compared(), [allowed_in("B")]
    assert comparisons.expect_one([OFF], ([allowed_in()], right), ["the result"]) is right
    assert comparisons.worst == 0.5

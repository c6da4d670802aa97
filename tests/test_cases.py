"""Cases: what they are drawn from, how they lie in memory, and how a failing one is made small."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from nnspec.adapters import load
from nnspec.conformance.bounds import wiring
from nnspec.conformance.case import Case, as_pair, minimise
from nnspec.conformance.checks import load_checks
from nnspec.conformance.checks.cases import KINDS, Data, data
from nnspec.conformance.checks.test_resnet34 import dense
from nnspec.conformance.drawing import LENGTH, Decision, Draw, integers, lists, pairs, permutations, reaches, some_of
from nnspec.conformance.layouts import LAYOUTS
from nnspec.conformance.levels import levels
from nnspec.conformance.requirements import CHECKS, Check
from nnspec.conformance.trial.layouts import in_layouts
from nnspec.conformance.trial.search import rows, smallest, spread_rows
from nnspec.conformance.trial.trial import Trial


def case(**arrays):
    return Case("linear", {n: None if a is None else np.array(a, np.float32) for n, a in arrays.items()})


def least(decision: Decision, holds):
    """Return the smallest of what a decision gives and for which a condition holds."""

    def made(row):
        return decision.make(Draw(row))

    row = next(row for row in rows(0, 1000) if holds(made(row)))
    return made(smallest(decision, row, lambda row: holds(made(row))))


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_shuffled_data_are_the_same_values_elsewhere():
    plain = Case("batch_norm", {"x": np.arange(12.0).reshape(3, 4), "mean": np.arange(4), "var": None}, {"eps": 1.0})
    other = Case("batch_norm", {"x": np.zeros((2, 1)), "y": np.arange(12.0)})
    shuffled = plain.shuffled(1)
    assert np.array_equal(np.sort(shuffled["x"], None), np.arange(12))
    assert not np.array_equal(shuffled["x"], plain["x"])
    assert not np.array_equal(shuffled["x"], plain.shuffled(2)["x"])
    assert np.array_equal(shuffled["mean"], plain["mean"])  # integers may be more than values
    assert (shuffled["var"], shuffled["eps"]) == (None, 1.0)
    assert np.array_equal(shuffled["x"].ravel(), other.shuffled(1)["y"])  # what two cases share stays shared


@pytest.mark.parametrize("kind", KINDS)
def test_data_is_the_same_each_time(kind):
    def fill():
        values = least(data("float32", (kind,)), lambda d: d.seed >= 10_000)
        return values.inputs(2, 3), values.weights(2, 3), values.offsets(2)

    for a, b in zip(fill(), fill(), strict=True):
        assert a.dtype == np.float32
        assert np.array_equal(a, b)


@pytest.mark.parametrize("seed", range(0, 50_000, 2500))
def test_integers_are_small_and_not_zero(seed):
    array = Data("integers", seed, "float64").inputs(5, 5)
    assert np.array_equal(array, np.rint(array))
    assert np.all((abs(array) >= 1) & (abs(array) <= 8))


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (1, 4), (3, 2), (4, 1), (4, 4)])
@pytest.mark.parametrize("seed", range(0, 50_000, 10_000))
def test_one_hot_weights_copy(outputs, inputs, seed):
    values = Data("one-hot", seed, "float32")
    weight = values.weights(outputs, inputs, 2)
    assert np.all(np.count_nonzero(weight.reshape(outputs, -1), axis=1) == 1)
    assert np.all(np.frexp(abs(weight[weight != 0]))[0] == 0.5)
    assert not values.offsets(outputs).any()
    assert values.inputs(3, 3).all()


def test_weights_may_be_empty():
    values = Data("one-hot", 0, "float32")
    assert values.weights(0, 3).shape == (0, 3)
    assert values.weights(3, 0).shape == (3, 0)


def test_pairs_are_an_int_where_both_are_equal():
    assert least(pairs(1, 3), lambda p: True) == 1
    assert least(pairs(1, 3), lambda p: as_pair(p)[0] != as_pair(p)[1]) in ((1, 2), (2, 1))
    assert least(pairs(0, 2), lambda p: as_pair(p) == (2, 2)) == 2
    assert as_pair(3) == (3, 3)


def test_smaller_bytes_are_earlier_choices():
    for limit in (1, 2, 3, 7, 256, 1000):
        numbers = [Draw(bytes([byte, 0])).below(limit) for byte in range(256)]
        assert numbers == sorted(numbers)
        assert numbers[0] == 0
        assert numbers[-1] < limit
        assert limit > 256 or len({*numbers}) == limit


def test_bytes_that_are_used_up_are_zero():
    draw = Draw(b"\xff")
    assert [draw(integers(3, 5)) for _ in range(3)] == [5, 3, 3]
    assert Draw(b"").below(1000) == 0


def test_each_decision_of_a_failing_case_becomes_small():
    found = least(lists(integers(0, 9), 2, 8), lambda drawn: max(drawn) >= 7)
    assert sorted(found) == [*(len(found) - 1) * [0], 7]


def test_a_failing_case_is_made_smaller_in_a_limited_number_of_calls():
    calls = []
    many = lists(integers(0, 9), 8, 8)
    row = smallest(many, b"\xff" * LENGTH, lambda row: bool(calls.append(row)), calls=5)
    assert row == b"\xff" * LENGTH
    assert len({*calls}) == len(calls) == 5


def test_spread_cases_have_more_pairs_of_levels_than_random_ones_and_begin_with_the_smallest():
    load_checks()
    check = CHECKS["linear.arguments.together"]
    decision = in_layouts(check.drawn(), check, "function")

    def reached(chosen):
        found = [levels(decision.make(Draw(row)).arranged()) for row in chosen]
        return len({pair for of_case in found for pair in itertools.combinations(sorted(of_case), 2)})

    spread = [*spread_rows(decision, 1, 20)]
    assert spread == [*spread_rows(decision, 1, 20)]
    assert (spread[0], len({*spread})) == (bytes(LENGTH), 20)
    assert reached(spread) > 1.2 * reached(rows(1, 20))


def test_a_case_that_several_rows_decide_is_judged_once():
    judged = []
    check = Check("relu.output.size", lambda subject, case: judged.append(case), lambda **_: integers(0, 2))
    outcome = Trial(load("reference"), "function", "float32").run(check)
    assert (outcome.verdict, outcome.cases, sorted(judged)) == ("pass", 3, [0, 1, 2])


def test_kernels_written_to_again_are_those_of_the_seed():
    for seed in (0, 3, 0, 1):
        kernels = dense(Case("resnet34", {"x": np.zeros((1, 3, 4, 4))}, {"seed": seed}), "float32")
        for key, copies in wiring.kernels(seed, 3).items():
            assert np.array_equal(kernels[key], wiring.dense(copies, "float32"))


def test_some_values_are_drawn_once_each():
    draw = Draw(bytes(range(250, 130, -2)))
    assert sorted(draw(permutations("abcdef"))) == list("abcdef")
    assert len({*draw(some_of("abcdef", 2, 4))}) in (2, 3, 4)
    assert draw(some_of("", 0, 3)) == []


def test_a_case_has_the_same_values_in_each_dtype():
    single, double = (Draw(bytes(range(LENGTH)))(data(dtype)).inputs(4, 5) for dtype in ("float32", "float64"))
    assert np.array_equal(single, double.astype(np.float32))


def test_a_corner_that_is_rare_is_told():
    reaches(integers(0, 9), lambda n: n == 3)
    with pytest.raises(AssertionError, match="reach the corner, expected 5%"):
        reaches(integers(0, 99), lambda n: n == 3)


def test_values_of_large_arrays_are_there():
    values = Data("normal", 65535, "float32")
    assert all(values.inputs(size).shape == (size,) for size in (2**16, 2**16, 2**18))


# -- changing ----------------------------------------------------------------------------------------------------------


def test_a_case_reads_like_a_call():
    drawn = Case("conv2d", {"x": np.zeros((1, 2)), "bias": None}, {"stride": (1, 2)})
    assert str(drawn) == "conv2d(x(1, 2), bias=None, stride=(1, 2))"
    assert drawn["stride"] == (1, 2)
    assert drawn["bias"] is None


def test_but_leaves_the_case_alone():
    drawn = Case("conv2d", {"x": np.zeros(2), "bias": None}, {"stride": 1})
    other = drawn.but(x=np.ones(2), stride=2)
    assert (other["stride"], drawn["stride"]) == (2, 1)
    assert other["x"].all()
    assert not drawn["x"].any()


# -- memory ----------------------------------------------------------------------------------------------------------


def test_a_case_is_handed_over_in_its_layouts():
    plain = Case("conv2d", {"x": np.arange(120.0).reshape(2, 3, 4, 5), "weight": np.ones((2, 3)), "bias": None})
    assert plain.arranged()["x"].flags.c_contiguous
    lying = plain.lying("channels last", "x")
    assert lying["x"].flags.c_contiguous
    assert str(lying) == "conv2d(x(2, 3, 4, 5) channels last, weight(2, 3), bias=None)"
    arranged = lying.but(weight=np.zeros((2, 3))).arranged()
    assert arranged["x"].strides == LAYOUTS["channels last"](plain["x"]).strides
    assert arranged["weight"].flags.c_contiguous
    assert np.array_equal(arranged["x"], plain["x"])
    assert {*plain.lying("negative strides").layouts} == {"x", "weight"}


# -- smaller -----------------------------------------------------------------------------------------------------------


def test_what_does_not_matter_becomes_zero():
    rng = np.random.default_rng(0)
    large = case(x=rng.standard_normal((4, 8)), weight=rng.standard_normal((3, 8)), bias=None)
    small = minimise(large, lambda c: c["x"][2, 5] != 0 and c["weight"][1, 5] != 0)
    assert np.count_nonzero(small["x"]) == 1
    assert np.count_nonzero(small["weight"]) == 1
    assert abs(small["x"][2, 5]) == abs(small["weight"][1, 5]) == 1
    assert np.count_nonzero(large["x"]) == 32, "the case itself is left alone"


def test_a_sign_that_matters_is_kept():
    small = minimise(case(x=[3.5, -2.5, 7]), lambda c: (c["x"] < 0).any())
    assert small["x"].tolist() == [0, -1, 0]


def test_a_value_that_matters_is_kept():
    assert minimise(case(x=[3.5, -2.5]), lambda c: c["x"][0] == 3.5)["x"].tolist() == [3.5, 0]


def test_not_a_number_that_matters_is_kept():
    small = minimise(case(x=[3.5, np.nan]), lambda c: bool(np.isnan(c["x"]).any()))
    assert np.isnan(small["x"][1])
    assert small["x"][0] == 0


def test_a_layout_stays_where_it_matters():
    large = case(x=np.ones((2, 2)), weight=np.ones((2, 2))).lying("reversed axes")
    small = minimise(large, lambda c: not c.arranged()["x"].flags.c_contiguous)
    assert small.layouts == {"x": "reversed axes"}


def test_tries_are_bounded():
    tries = []
    minimise(case(x=np.ones(1000) * 3), lambda c: bool(tries.append(c)), calls=50)
    assert len(tries) == 50


def test_the_result_fails():
    def fails(c):
        return c["x"].sum() > 10

    assert fails(minimise(case(x=np.arange(12) * 1.5), fails))

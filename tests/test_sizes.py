"""Cases with long sizes: what a sweep visits, what it finds, and how small the failing case becomes."""

import math

import numpy as np
import pytest
from nnspec.adapters import load
from nnspec.conformance.bounds.batch_norm import _Batch
from nnspec.conformance.bounds.batch_norm import expected as batch_norm
from nnspec.conformance.bounds.rule import compare, short_sums
from nnspec.conformance.case import Case
from nnspec.conformance.checks import load_checks
from nnspec.conformance.checks.laws import few
from nnspec.conformance.drawing import Draw, dimension
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.sizes import LADDER, ROOM, SWEEPS, ladder, rows
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.avg_pool2d import avg_pool2d
from nnspec.reference.conv2d import conv2d
from nnspec.reference.max_pool2d import max_pool2d
from nnspec.reference.relu import relu

load_checks()


def outcome(functions, identifier, sizes="boundary"):
    return Trial(load(functions), "function", "float32", sizes=sizes).run(CHECKS[identifier])


def columns_of_32(x, weight, bias=None, **arguments):
    y = conv2d(x, weight, bias, **arguments)
    if y.shape[-1] > 32:
        y[..., y.shape[-1] - y.shape[-1] % 32 :] = 0
    return y


def test_sweep_visits_every_axis_with_every_size():
    decision = CHECKS["conv2d.arguments.together"].drawn("float32", sizes="boundary")
    seen = set()
    for row in rows("conv2d", "boundary", 0, 0):
        decision.make(draw := Draw(row))
        seen.add(frozenset(draw.planned.items()))
    for axis in SWEEPS["conv2d"].axes:
        for size in LADDER:
            assert size ** len(axis) > ROOM or frozenset(dict.fromkeys(axis, size).items()) in seen, (axis, size)


@pytest.mark.parametrize("stem", SWEEPS)
def test_a_sweep_names_its_sizes(stem):
    sweep = SWEEPS[stem]
    assert {name for axis in sweep.axes for name in axis} <= sweep.names.keys()


def test_missing_tail_is_found_and_shrinks_to_the_tile():
    assert outcome({"conv2d": columns_of_32}, "conv2d.arguments.together", "small").verdict == "pass"
    found = outcome({"conv2d": columns_of_32}, "conv2d.arguments.together")
    assert found.verdict == "fail"
    assert found.failure.case["x"].shape == (1, 1, 1, 33)
    assert found.failure.case["weight"].shape == (1, 1, 1, 1)


def test_boundaries_tell_a_tile_from_a_limit():
    [boundary] = outcome({"conv2d": columns_of_32}, "conv2d.arguments.together").failure.boundaries
    assert str(boundary) == "OW > 32 and OW mod 32 ≠ 0"

    def of_100_columns(x, weight, bias=None, **arguments):
        y = conv2d(x, weight, bias, **arguments)
        y[..., 100:] = 0
        return y

    failure = outcome({"conv2d": of_100_columns}, "conv2d.arguments.together").failure
    assert [str(boundary) for boundary in failure.boundaries] == ["OW > 100"]
    assert failure.case["x"].shape == (1, 1, 1, 101)


def test_a_limit_on_several_sizes_is_told_along_one():
    def of_4096_elements(x):
        y = np.array(x)
        y.reshape(-1)[:4096] = relu(y.reshape(-1)[:4096])
        return y

    failure = outcome({"relu": of_4096_elements}, "relu.negative.zero").failure
    assert [str(boundary) for boundary in failure.boundaries] == ["the size of axis 0 > 4096"]
    assert failure.case["x"].size == 4097


def test_a_tail_of_one_element_is_tried_with_much_data():
    """Only a maximum below 0 shows that the last vector of columns began at 0."""

    def vectors_of_8(x, **arguments):
        y = max_pool2d(x, **arguments)
        tail = y[..., y.shape[3] // 8 * 8 :] if y.shape[3] > 8 else y[..., :0]
        tail[...] = np.maximum(tail, 0)
        return y

    failures = [
        outcome({"max_pool2d": vectors_of_8}, f"max_pool2d.{n}").failure for n in ("stride.step", "padding.never-wins")
    ]
    assert [str(boundary) for failure in failures for boundary in failure.boundaries] == ["OW > 8 and OW mod 8 ≠ 0"] * 2
    hanging = outcome({"max_pool2d": vectors_of_8}, "max_pool2d.ceil-mode.last-window").failure
    assert hanging.boundaries == []  # the case has one more window than was planned


def test_a_size_that_a_small_case_had_is_made_smaller():
    def unrolled(x, weight, bias=None, **arguments):
        weight = np.array(weight)
        if weight.shape[1] > 8:
            weight[:, weight.shape[1] - weight.shape[1] % 8 :] = 0
        return conv2d(x, weight, bias, **arguments)

    failure = outcome({"conv2d": unrolled}, "conv2d.arguments.together", "small").failure
    assert str(failure.boundaries[0]) == "C/groups > 8 and C/groups mod 8 ≠ 0"
    assert failure.case["x"].shape == (1, 9, 1, 1)


def test_second_call_of_a_large_shape_is_judged():
    seen = set()

    def pool(x, **arguments):
        y = avg_pool2d(x, **arguments)
        if y.shape[1] > 256 and x.shape in seen:
            y[:, 256:] = 0
        seen.add(x.shape)
        return y

    assert outcome({"avg_pool2d": pool}, "avg_pool2d.arguments.together").verdict == "fail"


def test_small_cases_have_no_plan():
    decision = CHECKS["conv2d.arguments.together"].drawn("float32")
    for number in range(50):
        case = decision.make(draw := Draw(np.random.default_rng(number).bytes(80)))
        assert draw.planned == {}
        assert case.sizes == "small"


def test_plan_keeps_to_what_is_legal():
    draw = Draw(bytes(9), {"padding0": 4, "kernel0": 9})
    draw.plan = {}
    assert draw(dimension(0, 1, of="padding", most=1)) == 1
    assert draw(dimension(1, 2, of="kernel")) == 9


def test_tiles_add_their_own_sizes():
    assert {95, 96, 97, 193} <= set(ladder((96,)))
    assert ladder() == LADDER


def test_checks_of_refusals_draw_no_long_sizes():
    assert CHECKS["conv2d.refuses.stride"].regimes("boundary", "quick") == ()
    assert CHECKS["conv2d.output.value"].regimes("", "ci") == ("boundary",)
    assert CHECKS["conv2d.output.value"].regimes("", "quick") == ()


def test_few_images_of_many_are_judged_alone():
    assert list(few(3)) == [0, 1, 2]
    assert {0, 1024} <= set(few(1025)) <= set(range(1025))


def test_right_code_passes():
    assert outcome({"relu": relu}, "relu.negative.zero").verdict == "pass"


def test_sums_of_integers_are_judged_in_float64():
    assert short_sums([np.full(1000, 8.0), np.full(1000, -8.0)])
    assert not short_sums([np.full(1000, 8.0), np.full(2**20, 8.0**8)])
    assert not short_sums([np.array([0.5]), np.array([1.0])])
    assert not short_sums([np.array([np.inf, 1.0])])
    assert not short_sums([np.array([np.nan, 1.0])])


def one_pass(x):
    total, squares = (np.add.accumulate(a, axis=1, dtype=np.float32)[:, -1:] for a in (x, x * x))
    n = np.float32(x.shape[1])
    return total / n, squares / n - (total / n) ** 2


def two_passes(x):
    n = np.float32(x.shape[1])
    mean = np.add.accumulate(x, axis=1, dtype=np.float32)[:, -1:] / n
    return mean, np.add.accumulate((x - mean) ** 2, axis=1, dtype=np.float32)[:, -1:] / n


@pytest.mark.parametrize(("statistics", "right"), [(one_pass, False), (two_passes, True)])
def test_bound_of_a_long_variance_tells_one_pass_from_two(statistics, right):
    x = 1000 + np.random.default_rng(0).standard_normal((9, 3, 11, 55)).astype(np.float32)
    zeros, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
    arrays = {"x": x, "running_mean": zeros, "running_var": ones, "weight": ones, "bias": zeros}
    mean, variance = (a[:, :, None] for a in statistics(x.swapaxes(0, 1).reshape(3, -1)))
    with np.errstate(invalid="ignore"):
        y = (x - mean) / np.sqrt(variance + np.float32(1e-5))
    wrong = compare(y, batch_norm(Case("batch_norm", arrays, {"training": True}))[0])[1]
    assert wrong.any() != right


def test_bound_of_long_sums_of_equal_values_is_that_of_any_order():
    values = np.random.default_rng(0).standard_normal((64, 1, 30, 30))
    assert _Batch(values, np.zeros(()), 1e-5, np.float32).terms < values.size
    assert _Batch(values, np.zeros(()), 1e-5, np.float32, (np.ones_like(values),)).terms == values.size
    assert _Batch(values[:, :, :1, :1], np.zeros(()), 1e-5, np.float32).terms == 64


@pytest.mark.parametrize("stem", [stem for stem, sweep in SWEEPS.items() if sweep.layers])
def test_every_layer_is_visited_once_with_whole_numbers(stem):
    check = next(c for c in CHECKS.values() if c.stem == stem and c.regimes("layers", "quick"))
    assert check.regimes("all", "quick") == ("boundary", "layers")
    assert check.regimes("layers", "quick") == ("layers",)
    decision, seen = check.drawn("float32", sizes="layers"), []
    for row in rows(stem, "layers", 0, 5):
        case = decision.make(draw := Draw(row))
        seen.append(draw.plan)
        assert draw.data[0] == "integers" or math.prod(n for n in draw.plan.values() if n) <= ROOM
        assert draw.planned.items() <= draw.plan.items()
        assert len(case["x"]) in [draw.plan.get(first) for first in ("images0", "values0", "rows0", "axis0")]
    assert seen == list(SWEEPS[stem].layers)


def test_checks_that_do_not_sweep_visit_no_layers():
    assert CHECKS["conv2d.stride.step"].regimes("layers", "quick") == ()

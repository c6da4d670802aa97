"""The reference against the definition in exact fractions, and against torch where it is installed."""

from fractions import Fraction

import numpy as np
import pytest
from nnspec.conformance.bounds import batch_norm as bounds
from nnspec.conformance.bounds.rule import compare
from nnspec.conformance.case import Case
from nnspec.reference.batch_norm import BatchNorm1d, BatchNorm2d, batch_norm, batch_norm_vjp, definition

SHAPES = [(5, 3), (3, 3), (4, 3, 2), (3, 3, 3), (2, 3, 4, 5), (3, 3, 3, 3), (1, 3, 1, 2), (2, 1, 1, 1)]


def statistics(x):
    """Mean and variance with divisor n of each channel, exactly, and n."""
    channels = [[Fraction(int(v)) for v in np.take(x, c, axis=1).ravel()] for c in range(x.shape[1])]
    means = [sum(values) / len(values) for values in channels]
    spreads = [sum((v - m) ** 2 for v in values) / len(values) for values, m in zip(channels, means, strict=True)]
    return means, spreads, len(channels[0])


def random_case(seed, shape):
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, shape).astype(float)
    mean, weight, bias = rng.integers(-4, 5, (3, shape[1])).astype(float)
    return x, mean, rng.integers(1, 5, shape[1]).astype(float), weight, bias


def assert_near(actual, expected, scale=1.0):
    """Equal but for some twenty roundings of numbers below 100."""
    np.testing.assert_allclose(actual, np.array(expected, float), rtol=0, atol=20 * 2**-53 * 100 * scale)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_training_equals_the_definition(shape, seed):
    x, mean, var, weight, bias = random_case(seed, shape)
    means, spreads, n = statistics(x)
    y, new_mean, new_var = batch_norm(x, mean, var, weight, bias, training=True, momentum=0.25, eps=0.5)
    for c, (m, v) in enumerate(zip(means, spreads, strict=True)):
        d = np.take(x, c, axis=1) - float(m)
        assert_near(np.take(y, c, axis=1), d / np.sqrt(float(v) + 0.5) * weight[c] + bias[c])
        assert_near(new_mean[c], (3 * Fraction(mean[c]) + m) / 4)
        assert_near(new_var[c], (3 * Fraction(var[c]) + v * n / (n - 1)) / 4)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_is_exact_where_the_roots_are(shape):
    x, mean, _, weight, bias = random_case(0, shape)
    var = np.full(shape[1], 3.75)
    y, same_mean, same_var = batch_norm(x, mean, var, weight, bias, eps=0.25)
    for index in np.ndindex(shape):
        c = index[1]
        assert y[index] == (x[index] - mean[c]) / 2 * weight[c] + bias[c]
    np.testing.assert_array_equal(same_mean, mean)
    np.testing.assert_array_equal(same_var, var)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2), (1, 3, 2, 2), (4, 3, 2, 2), (0, 3)])
def test_equals_its_definition_where_nothing_is_rounded(shape, training, absent):
    """Each four values of a channel are its mean and 3, −1, −1, −1: their variance is 3, and with eps its root is 2."""
    _, mean, _, weight, bias = random_case(0, shape)
    n = int(np.prod(shape)) // 3
    deviations = np.random.default_rng(0).permuted(np.tile([3.0, -1, -1, -1], (3, n // 4)), axis=1)
    x = (mean[:, None] + deviations).reshape(3, shape[0], *shape[2:]).swapaxes(0, 1)
    operands = (x, mean, np.full(3, 3.0), *((None, None) if absent else (weight, bias)))
    arguments = {"training": training, "momentum": 0.25, "eps": 1.0}
    for fast, right in zip(batch_norm(*operands, **arguments), definition(*operands, **arguments), strict=True):
        np.testing.assert_array_equal(fast, right, strict=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [False, True])
def test_differs_from_its_definition_by_rounding_alone(shape, training):
    operands = random_case(3, shape)
    arguments = {"training": training, "momentum": 0.25, "eps": 0.5}
    names = ("x", "running_mean", "running_var", "weight", "bias")
    right = bounds.expected(Case("batch_norm", dict(zip(names, operands, strict=True)), arguments))
    for function in (batch_norm, definition):  # each within the bound that any order of its roundings has
        for actual, one in zip(function(*operands, **arguments), right, strict=True):
            _, off, _ = compare(actual, one)
            assert not off.any()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch(shape, affine, training):
    torch = pytest.importorskip("torch")
    x, mean, var, weight, bias = random_case(1, shape)
    if not affine:
        weight = bias = None
    ours = batch_norm(x, mean, var, weight, bias, training=training, momentum=0.3)
    theirs = [None if a is None else torch.tensor(a) for a in (x, mean, var, weight, bias)]
    y = torch.nn.functional.batch_norm(*theirs, training=training, momentum=0.3).numpy()
    assert_near(ours[0], y, 1 / np.sqrt(1e-5))  # a constant channel magnifies the rounding of its mean
    for actual, expected in zip(ours[1:], theirs[1:3], strict=True):
        assert_near(actual, expected.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_the_dtype_stays(dtype):
    x, *vectors = (a.astype(dtype) for a in random_case(2, (4, 3, 2)))
    for training in (False, True):
        assert [a.dtype for a in batch_norm(x, *vectors, training=training)] == [dtype] * 3


def test_a_large_mean_costs_no_more_than_its_rounding():
    x = 1000 + np.random.default_rng(0).standard_normal((256, 1))
    narrow = x.astype(np.float32)
    zero, one = np.zeros(1), np.ones(1)
    exact = batch_norm(narrow.astype(float), zero, one, training=True)[0]
    y = batch_norm(narrow, zero.astype(np.float32), one.astype(np.float32), training=True)[0]
    assert np.abs(y - exact).max() < 256 * 1000 * 2**-24


@pytest.mark.parametrize("shape", [(0, 2), (0, 2, 3), (0, 2, 3, 3), (2, 2, 0)])
def test_a_batch_of_nothing_keeps_the_statistics(shape):
    mean, var = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    y, new_mean, new_var = batch_norm(np.ones(shape), mean, var, training=True)
    assert y.shape == shape
    np.testing.assert_array_equal([new_mean, new_var], [mean, var])


def test_an_empty_batch_without_statistics_has_gradients_of_zero():
    x, weight = np.ones((0, 2, 3)), np.ones(2)
    dx, dmean, dvar, dweight, dbias = batch_norm_vjp(x, x, None, None, weight, None, training=True)
    assert dx.shape == x.shape
    assert dmean is dvar is dbias is None
    np.testing.assert_array_equal(dweight, [0, 0])


@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0, None])
@pytest.mark.parametrize(
    ("name", "shape"), [("BatchNorm1d", (4, 3)), ("BatchNorm1d", (4, 3, 2)), ("BatchNorm2d", (2, 3, 2, 3))]
)
def test_modules_go_the_way_of_torchs(name, shape, momentum):
    torch = pytest.importorskip("torch")
    ours = {"BatchNorm1d": BatchNorm1d, "BatchNorm2d": BatchNorm2d}[name](3, momentum=momentum, dtype=np.float64)
    theirs = getattr(torch.nn, name)(3, momentum=momentum).double()
    rng = np.random.default_rng(0)
    for mode in (False, True, True, False, True, False):
        x = rng.standard_normal(shape)
        assert_near(ours.train(mode)(x), theirs.train(mode)(torch.tensor(x)).detach().numpy())
        state = theirs.state_dict()
        assert list(ours.state_dict()) == list(state)
        for key, value in ours.state_dict().items():
            assert_near(value, state[key].numpy())


def test_what_is_refused_changes_nothing():
    layer = BatchNorm2d(2)
    with pytest.raises(ValueError, match="more than one value"):
        layer(np.ones((1, 2, 1, 1), np.float32))
    assert layer.num_batches_tracked.data == 0

"""The reference against the definition as index loops, and against torch where it is installed."""

import numpy as np
import pytest
from nnspec.reference.linear import Linear, linear


def by_loops(x, weight, bias):
    y = np.zeros((*x.shape[:-1], len(weight)))
    for *lead, o in np.ndindex(y.shape):
        y[*lead, o] = bias[o]
        for i in range(x.shape[-1]):
            y[*lead, o] += weight[o, i] * x[*lead, i]
    return y


def random_case(rng):
    lead, (i, o) = rng.integers(0, 4, rng.integers(0, 4)), rng.integers(0, 5, 2)
    return (rng.integers(-9, 10, shape).astype(float) for shape in ((*lead, i), (o, i), (o,)))


@pytest.mark.parametrize("seed", range(50))
def test_equals_loops(seed):
    x, weight, bias = random_case(np.random.default_rng(seed))
    np.testing.assert_array_equal(linear(x, weight, bias), by_loops(x, weight, bias), strict=True)


@pytest.mark.parametrize("seed", range(50))
def test_equals_torch(seed):
    torch = pytest.importorskip("torch")
    x, weight, bias = random_case(np.random.default_rng(seed))
    theirs = torch.nn.functional.linear(*map(torch.from_numpy, (x, weight, bias))).numpy()
    np.testing.assert_array_equal(linear(x, weight, bias), theirs, strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_keeps_the_dtype(dtype):
    assert linear(np.ones((2, 3), dtype), np.ones((4, 3), dtype), np.ones(4, dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("x", "weight", "bias"),
    [
        ((), (2, 1), (2,)),
        ((3,), (2, 2, 3), (2,)),
        ((4, 1), (2, 3), (2,)),
        ((4, 3), (2, 1), (2,)),
        ((3, 2), (2, 3), (2,)),
        ((4, 3), (2, 3), (3,)),
        ((0, 3), (1, 3), (3,)),
    ],
)
def test_refuses_what_torch_refuses(x, weight, bias):
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="expected"):
        linear(np.ones(x), np.ones(weight), np.ones(bias))
    with pytest.raises(RuntimeError):
        torch.nn.functional.linear(torch.ones(x), torch.ones(weight), torch.ones(bias))


@pytest.mark.parametrize("bias", [(1,), (4, 2), ()])
def test_refuses_a_bias_that_would_broadcast(bias):
    with pytest.raises(ValueError, match="one value per channel"):
        linear(np.ones((4, 3)), np.ones((2, 3)), np.ones(bias))


def test_module_applies_its_weight_and_bias():
    layer, x = Linear(3, 2, dtype=np.float64), np.arange(12.0).reshape(2, 2, 3)
    assert layer.weight.data.shape == (2, 3)
    np.testing.assert_array_equal(layer(x), linear(x, layer.weight.data, layer.bias.data))


def test_module_without_bias_has_one_parameter():
    layer, x = Linear(3, 2, bias=False), np.ones(3, np.float32)
    assert [key for key, _ in layer.named_parameters()] == ["weight"]
    np.testing.assert_array_equal(layer(x), linear(x, layer.weight.data))


def test_module_starts_within_its_range():
    layer = Linear(100, 1000, rng=np.random.default_rng(0))
    for values in (layer.weight.data, layer.bias.data):
        assert 0.095 < np.abs(values).max() <= np.float32(0.1)


@pytest.mark.parametrize("sizes", [(-1, 2), (2, -1)])
def test_module_refuses_negative_sizes(sizes):
    with pytest.raises(ValueError, match="expected at least 0"):
        Linear(*sizes)


def test_module_of_no_input_features_gives_its_bias():
    layer = Linear(0, 2)
    np.testing.assert_array_equal(layer(np.ones((1, 0), np.float32)), layer.bias.data[None])

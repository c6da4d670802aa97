"""The reference against the definition as index loops, and against torch where it is installed."""

import numpy as np
import pytest
from nnspec.reference.relu import ReLU, relu

SHAPES = [(), (0,), (5,), (2, 0, 3), (2, 3, 4), (1, 2, 1, 3, 2)]


def by_loops(x):
    y = x.copy()
    for index in np.ndindex(x.shape):
        if x[index] < 0:
            y[index] = 0
    return y


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble, np.int32, np.uint8])
def test_equals_loops(shape, dtype):
    x = np.asarray(np.random.default_rng(0).normal(0, 9, shape)).astype(dtype)
    np.testing.assert_array_equal(relu(x), by_loops(x), strict=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch(shape):
    torch = pytest.importorskip("torch")
    x = np.asarray(np.random.default_rng(0).normal(size=shape))
    np.testing.assert_array_equal(relu(x), torch.relu(torch.from_numpy(x)).numpy(), strict=True)


def test_special_values_equal_torch():
    torch = pytest.importorskip("torch")
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1e308, -1e308])
    np.testing.assert_array_equal(relu(x), torch.relu(torch.from_numpy(x)).numpy())


@pytest.mark.parametrize("shape", SHAPES)
def test_is_an_array_in_fresh_memory(shape):
    x = np.ones(shape)
    y = relu(x)
    assert isinstance(y, np.ndarray)
    assert not np.shares_memory(x, y)


def test_module_has_no_state_and_applies_relu():
    layer = ReLU()
    assert layer.state_dict() == {}
    np.testing.assert_array_equal(layer(np.array([-1.0, 2.0])), [0.0, 2.0])

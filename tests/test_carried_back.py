"""What is carried back through blocks in a row: whatever the operands are instead, the gradients are within bounds."""

import numpy as np
import pytest
from nnspec.conformance.bounds import batch_norm as rule_batch_norm
from nnspec.conformance.bounds.arithmetic import CLASS_B
from nnspec.conformance.bounds.residual import max_pool_vjp
from nnspec.conformance.bounds.running_error import Approximate, bilinear_block, relu_vjp
from nnspec.conformance.case import Case
from nnspec.reference.batch_norm import batch_norm_vjp
from nnspec.reference.max_pool2d import max_pool2d_vjp
from nnspec.reference.resnet34 import POOL

SHAPE = (2, 3, 5, 4)


FLOAT64 = CLASS_B.of("float64")


def off(rng, size, *shape):
    """An array that a subject may have in place of another, and how far it may be from that."""
    value = rng.standard_normal(shape)
    error = size * rng.uniform(0, 1, shape)
    return value, error, value + error * rng.choice([-0.999, -0.5, 0, 0.999], shape)


def worst(actual, value, bound):
    return float(np.max(np.abs(actual - value) / bound))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [1e-8, 1e-5, 1e-2])
@pytest.mark.parametrize("seed", range(5))
def test_batch_norm(training, size, seed):
    rng = np.random.default_rng(seed)
    (x, e, x_there), (g, e_g, g_there) = (off(rng, size, *SHAPE) for _ in range(2))
    (var, weight), (mean, bias) = rng.uniform(0.5, 2, (2, 3)), rng.standard_normal((2, 3))
    arrays = {"x": x, "running_mean": mean, "running_var": var, "weight": weight, "bias": bias, "cotangent": g}
    expected = rule_batch_norm.expected_gradients(Case("batch_norm", arrays, {"training": training}), e, e_g)
    dx, _, _, dweight, dbias = batch_norm_vjp(g_there, x_there, mean, var, weight, bias, training=training)
    for name, actual in (("x", dx), ("weight", dweight), ("bias", dbias)):
        ratio = worst(actual, expected[name].value, expected[name].within())
        assert 0.02 < ratio <= 1, name  # sound, and not by much too wide


@pytest.mark.parametrize("seed", range(5))
def test_products_of_two_that_are_off(seed):
    rng = np.random.default_rng(seed)
    (a, e_a, a_there), (b, e_b, b_there) = off(rng, 1e-3, 4, 6), off(rng, 1e-3, 6, 3)
    found = bilinear_block(np.matmul, Approximate(a, e_a, FLOAT64), Approximate(b, e_b, FLOAT64))
    assert 0.1 < worst(a_there @ b_there, found.value, found.error) <= 1


def test_a_sign_that_is_not_certain_decides_nothing():
    g, x = (
        Approximate.given(np.full(4, 8.0)),
        Approximate(np.array([1.0, 0.1, 0.0, -1.0]), np.full(4, 0.5), FLOAT64),
    )
    found = relu_vjp(g, x)
    low, high, rounding = found.value - found.error, found.value + found.error, 8 * 2.0**-50
    for bound, right in ((low, [8, 0, 0, 0]), (high, [8, 8, 8, 0])):
        assert np.all(np.abs(bound - right) <= rounding)
    assert np.all(low <= [8, 0, 0, 0])
    assert np.all(high >= [8, 8, 8, 0])


@pytest.mark.parametrize("size", [0, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_max_pool(size, seed):
    rng = np.random.default_rng(seed)
    (x, e, x_there), (g, e_g, g_there) = off(rng, size, 1, 2, 7, 6), off(rng, 1e-3, 1, 2, 4, 3)
    found = max_pool_vjp(Approximate(g, e_g, FLOAT64), Approximate(x, e, FLOAT64))
    actual = max_pool2d_vjp(g_there, x_there, **POOL)
    assert np.all(np.abs(actual - found.value) <= found.error)
    assert (found.error < 0.01).mean() > 0.5

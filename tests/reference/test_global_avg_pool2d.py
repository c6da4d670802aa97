"""The reference against the definition as index loops, and against torch where it is installed."""

import ml_dtypes
import numpy as np
import pytest
from nnspec.reference.global_avg_pool2d import GlobalAvgPool2d, global_avg_pool2d


def by_loops(x):
    y = np.zeros(x.shape[:2])
    for n, c, i, j in np.ndindex(x.shape):
        y[n, c] += x[n, c, i, j]
    return y / (x.shape[2] * x.shape[3])


def random_image(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(-9, 10, (*rng.integers(0, 4, 2), *rng.integers(1, 9, 2))).astype(float)


@pytest.mark.parametrize("seed", range(30))
def test_equals_loops(seed):
    x = random_image(seed)
    np.testing.assert_array_equal(global_avg_pool2d(x), by_loops(x))


@pytest.mark.parametrize("seed", range(30))
def test_equals_torch(seed):
    torch = pytest.importorskip("torch")
    x = random_image(seed)
    theirs = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), 1)
    np.testing.assert_allclose(global_avg_pool2d(x), theirs[:, :, 0, 0], rtol=2**-52)  # torch multiplies by 1/n


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.longdouble])
def test_keeps_the_dtype_and_does_not_saturate(dtype):
    y = global_avg_pool2d(np.ones((1, 1, 64, 64), dtype))
    assert y.dtype == dtype
    assert y.item() == 1


@pytest.mark.parametrize("shape", [(3,), (3, 3), (1, 1, 1, 3, 3), (1, 1, 0, 3), (1, 1, 3, 0)])
def test_refuses_other_ranks_and_empty_images(shape):
    with pytest.raises(ValueError, match="x of shape"):
        global_avg_pool2d(np.ones(shape))


def test_module_is_the_function():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    np.testing.assert_array_equal(GlobalAvgPool2d()(x), global_avg_pool2d(x))

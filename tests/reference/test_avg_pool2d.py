"""The reference against the definition as index loops, and against torch where it is installed."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from nnspec.reference.avg_pool2d import AvgPool2d, avg_pool2d, definition


def starts(size, kernel_size, stride, padding, ceil_mode):
    """The rows of x at which windows begin, one by one; None where there is no window."""
    found = []
    for start in itertools.count(-padding, stride):
        overhang = start + kernel_size - (size + padding)
        if overhang > 0 and not (ceil_mode and overhang < stride and start < size):
            return found or None
        found.append(start)


def by_loops(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override):
    (h, w), (ph, pw) = x.shape[2:], padding
    rows, columns = (starts(*axis, ceil_mode) for axis in zip((h, w), kernel_size, stride, padding, strict=True))
    if rows is None or columns is None:
        return None
    y = np.zeros((*x.shape[:2], len(rows), len(columns)))
    for b, c, r, s in np.ndindex(y.shape):
        inside = within_padding = 0
        for i, j in np.ndindex(kernel_size):
            row, column = rows[r] + i, columns[s] + j
            within_padding += row < h + ph and column < w + pw
            if 0 <= row < h and 0 <= column < w:
                inside += 1
                y[b, c, r, s] += x[b, c, row, column]
        y[b, c, r, s] /= divisor_override or (within_padding if count_include_pad else inside)
    return y


def random_case(rng):
    kernel_size, stride = (tuple(map(int, rng.integers(1, 5, 2))) for _ in range(2))
    padding = tuple(int(rng.integers(k // 2 + 1)) for k in kernel_size)
    x = rng.integers(-9, 10, (*rng.integers(1, 4, 2), *rng.integers(1, 9, 2))).astype(float)
    hyper = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "ceil_mode": bool(rng.integers(2))}
    override = [None, None, 1, 7, -3][rng.integers(5)]
    return x, hyper | {"count_include_pad": bool(rng.integers(2)), "divisor_override": override}


@pytest.mark.parametrize("seed", range(100))
def test_equals_loops(seed):
    x, hyper = random_case(np.random.default_rng(seed))
    expected = by_loops(x, **hyper)
    if expected is None:
        with pytest.raises(ValueError, match="kernel_size"):
            avg_pool2d(x, **hyper)
    else:
        np.testing.assert_array_equal(avg_pool2d(x, **hyper), expected)  # one rounding, in the division


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("seed", range(50))
def test_equals_its_definition(seed, dtype):
    x, hyper = random_case(np.random.default_rng(seed))
    x = x.astype(dtype)
    try:
        expected = definition(x, **hyper)
    except ValueError:
        with pytest.raises(ValueError, match="kernel_size"):
            avg_pool2d(x, **hyper)
    else:
        np.testing.assert_array_equal(avg_pool2d(x, **hyper), expected, strict=True)


@pytest.mark.parametrize("seed", range(100))
def test_equals_torch(seed):
    torch = pytest.importorskip("torch")
    x, hyper = random_case(np.random.default_rng(seed))
    try:
        theirs = torch.nn.functional.avg_pool2d(torch.from_numpy(x), **hyper)
    except RuntimeError:
        with pytest.raises(ValueError, match="kernel_size"):
            avg_pool2d(x, **hyper)
    else:
        np.testing.assert_array_equal(avg_pool2d(x, **hyper), theirs)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.longdouble])
def test_keeps_the_dtype_and_does_not_saturate(dtype):
    y = avg_pool2d(np.ones((1, 1, 64, 64), dtype), kernel_size=64)
    assert y.dtype == dtype
    assert y.item() == 1


def test_module_applies_its_arguments():
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8))
    hyper = {"kernel_size": (3, 2), "stride": 2, "padding": (1, 0), "ceil_mode": True, "count_include_pad": False}
    np.testing.assert_array_equal(AvgPool2d((3, 2), 2, (1, 0), True, False)(x), avg_pool2d(x, **hyper))
    np.testing.assert_array_equal(AvgPool2d(2, divisor_override=3)(x), avg_pool2d(x, kernel_size=2, divisor_override=3))

"""The reference against the definition as index loops, and against torch where it is installed."""

import itertools

import numpy as np
import pytest
from nnspec.reference.max_pool2d import MaxPool2d, definition, max_pool2d, max_pool2d_vjp


def starts(size, kernel_size, stride, padding, dilation, ceil_mode):
    """The rows of x at which windows begin, one by one; None where there is no window."""
    extent = dilation * (kernel_size - 1) + 1
    found = []
    for start in itertools.count(-padding, stride):
        overhang = start + extent - (size + padding)
        if overhang > 0 and not (ceil_mode and overhang < stride and start < size):
            return found or None
        found.append(start)


def by_loops(x, kernel_size, stride, padding, dilation, ceil_mode):
    axes = zip(x.shape[2:], kernel_size, stride, padding, dilation, strict=True)
    rows, columns = (starts(*axis, ceil_mode) for axis in axes)
    if rows is None or columns is None:
        return None
    y = np.full((*x.shape[:2], len(rows), len(columns)), -np.inf)
    for b, c, r, s in np.ndindex(y.shape):
        for i, j in np.ndindex(kernel_size):
            row, column = rows[r] + i * dilation[0], columns[s] + j * dilation[1]
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                y[b, c, r, s] = max(y[b, c, r, s], x[b, c, row, column])
    return y


def random_case(rng):
    kernel_size, stride, dilation = (tuple(map(int, rng.integers(1, 4, 2))) for _ in range(3))
    padding = tuple(int(rng.integers(k // 2 + 1)) for k in kernel_size)
    x = rng.integers(-99, 0, (*rng.integers(1, 4, 2), *rng.integers(1, 9, 2))).astype(float)
    hyper = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    return x, hyper | {"ceil_mode": bool(rng.integers(2))}


@pytest.mark.parametrize("seed", range(100))
def test_equals_loops(seed):
    x, hyper = random_case(np.random.default_rng(seed))
    expected = by_loops(x, **hyper)
    if expected is None:
        with pytest.raises(ValueError, match="kernel_size"):
            max_pool2d(x, **hyper)
    else:
        np.testing.assert_array_equal(max_pool2d(x, **hyper), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.uint16])
@pytest.mark.parametrize("seed", range(50))
def test_equals_its_definition(seed, dtype):
    x, hyper = random_case(np.random.default_rng(seed))
    x = np.abs(x).astype(dtype)
    if dtype == np.float32:
        x[x > 90] = np.nan
    try:
        expected = definition(x, **hyper)
    except ValueError:
        with pytest.raises(ValueError, match="kernel_size"):
            max_pool2d(x, **hyper)
    else:
        np.testing.assert_array_equal(max_pool2d(x, **hyper), expected, strict=True)


def vjp_by_loops(cotangent, x, kernel_size, stride, padding, dilation, ceil_mode):
    axes = zip(x.shape[2:], kernel_size, stride, padding, dilation, strict=True)
    rows, columns = (starts(*axis, ceil_mode) for axis in axes)
    dx = np.zeros(x.shape)
    for b, c, r, s in np.ndindex(cotangent.shape):
        place = None  # of the largest element so far; a later one must be larger, and there may be none in the image
        for i, j in np.ndindex(kernel_size):
            here = b, c, rows[r] + i * dilation[0], columns[s] + j * dilation[1]
            inside = 0 <= here[2] < x.shape[2] and 0 <= here[3] < x.shape[3]
            if inside and (place is None or x[here] > x[place]):
                place = here
        if place is not None:
            dx[place] += cotangent[b, c, r, s]
    return dx


@pytest.mark.parametrize("values", ["different", "tied", "minus infinity"])
@pytest.mark.parametrize("seed", range(100))
def test_vjp_equals_loops(seed, values):
    rng = np.random.default_rng(seed)
    x, hyper = random_case(rng)
    x = {"different": x + rng.random(x.shape), "tied": x // 50, "minus infinity": np.where(x < -20, -np.inf, x)}[values]
    try:
        y = max_pool2d(x, **hyper)
    except ValueError:
        return
    cotangent = rng.integers(-9, 10, y.shape).astype(float)
    np.testing.assert_array_equal(max_pool2d_vjp(cotangent, x, **hyper), vjp_by_loops(cotangent, x, **hyper))


@pytest.mark.parametrize("seed", range(100))
def test_equals_torch(seed):
    torch = pytest.importorskip("torch")
    x, hyper = random_case(np.random.default_rng(seed))
    try:
        theirs = torch.nn.functional.max_pool2d(torch.from_numpy(x), **hyper)
    except RuntimeError:
        with pytest.raises(ValueError, match="kernel_size"):
            max_pool2d(x, **hyper)
    else:
        np.testing.assert_array_equal(max_pool2d(x, **hyper), theirs)


@pytest.mark.parametrize("position", range(9))
def test_nan_is_seen_at_every_position(position):
    x = np.arange(9.0)
    x[position] = np.nan
    assert np.isnan(max_pool2d(x.reshape(1, 1, 3, 3), kernel_size=3)).all()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float32, np.longdouble])
def test_pads_with_the_least_value_of_the_dtype(dtype):
    x = np.arange(4).reshape(1, 1, 2, 2).astype(dtype)
    y = max_pool2d(x, kernel_size=2, stride=1, padding=1)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.ravel(), [0, 1, 1, 2, 3, 3, 2, 3, 3])


def test_module_applies_its_arguments():
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8))
    hyper = {"kernel_size": (3, 2), "stride": 2, "padding": (1, 0), "dilation": 2, "ceil_mode": True}
    np.testing.assert_array_equal(MaxPool2d((3, 2), 2, (1, 0), 2, ceil_mode=True)(x), max_pool2d(x, **hyper))
    np.testing.assert_array_equal(MaxPool2d(2)(x), max_pool2d(x, kernel_size=2, stride=2))

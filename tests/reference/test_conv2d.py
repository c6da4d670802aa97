"""The reference against the definition as index loops, and against torch where it is installed."""

import numpy as np
import pytest
from nnspec.reference.conv2d import Conv2d, conv2d, conv2d_vjp, definition


def by_loops(x, weight, bias, stride, padding, dilation, groups):
    (n, _, h, w), (o, cg, kh, kw) = x.shape, weight.shape
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    oh, ow = (h + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (w + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((n, o, oh, ow))
    for b, k, r, s in np.ndindex(y.shape):
        y[b, k, r, s] = bias[k]
        for channel, i, j in np.ndindex(cg, kh, kw):
            row, column = r * sh + i * dh - ph, s * sw + j * dw - pw
            if 0 <= row < h and 0 <= column < w:
                y[b, k, r, s] += weight[k, channel, i, j] * x[b, k // (o // groups) * cg + channel, row, column]
    return y


def random_case(rng):
    groups, cg, og, n = rng.integers(1, 4, 4)
    stride, dilation, kernel = (tuple(map(int, rng.integers(1, 4, 2))) for _ in range(3))
    padding = tuple(map(int, rng.integers(0, 3, 2)))
    size = [
        max(1, d * (k - 1) + 1 - 2 * p) + rng.integers(0, 4) for d, k, p in zip(dilation, kernel, padding, strict=True)
    ]
    x = rng.integers(-9, 10, (n, groups * cg, *size)).astype(float)
    weight = rng.integers(-9, 10, (groups * og, cg, *kernel)).astype(float)
    hyper = {"stride": stride, "padding": padding, "dilation": dilation, "groups": int(groups)}
    return x, weight, rng.integers(-9, 10, groups * og).astype(float), hyper


def test_words_stand_for_borders():
    rng = np.random.default_rng(0)
    x, weight, cotangent = (
        rng.integers(-9, 10, shape).astype(float) for shape in [(2, 1, 5, 6), (1, 1, 2, 3), (2, 1, 5, 6)]
    )
    padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (1, 1)))
    weight = weight.repeat(2, 2)  # four rows: one more below
    same = conv2d(x, weight, padding="same")
    assert np.array_equal(same, conv2d(padded, weight))
    assert np.array_equal(same, definition(x, weight, padding="same"))
    assert np.array_equal(conv2d(x, weight, padding="valid"), conv2d(x, weight))
    dx, dweight, _ = conv2d_vjp(cotangent, x, weight, padding="same")
    dpadded, same_weight, _ = conv2d_vjp(cotangent, padded, weight)
    assert np.array_equal(dx, dpadded[:, :, 1:-2, 1:-1])
    assert np.array_equal(dweight, same_weight)
    with pytest.raises(ValueError, match="stride"):
        conv2d(x, weight, padding="same", stride=2)


@pytest.mark.parametrize("seed", range(50))
def test_equals_loops(seed):
    x, weight, bias, hyper = random_case(np.random.default_rng(seed))
    np.testing.assert_array_equal(conv2d(x, weight, bias, **hyper), by_loops(x, weight, bias, **hyper))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("seed", range(50))
def test_equals_its_definition(seed, dtype):
    x, weight, bias, hyper = random_case(np.random.default_rng(seed))
    x, weight, bias = (a.astype(dtype) for a in (x, weight, bias))
    np.testing.assert_array_equal(conv2d(x, weight, bias, **hyper), definition(x, weight, bias, **hyper), strict=True)
    np.testing.assert_array_equal(conv2d(x, weight, **hyper), definition(x, weight, **hyper), strict=True)


@pytest.mark.parametrize("seed", range(50))
def test_equals_torch(seed):
    torch = pytest.importorskip("torch")
    x, weight, bias, hyper = random_case(np.random.default_rng(seed))
    theirs = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, weight, bias)), **hyper)
    np.testing.assert_array_equal(conv2d(x, weight, bias, **hyper), theirs)


def test_module_applies_its_weight_and_bias():
    layer = Conv2d(4, 6, (2, 3), stride=2, padding=(1, 0), groups=2, dtype=np.float64)
    x = np.arange(4.0 * 30).reshape(1, 4, 5, 6)
    expected = conv2d(x, layer.weight.data, layer.bias.data, stride=2, padding=(1, 0), groups=2)
    np.testing.assert_array_equal(layer(x), expected)


def test_a_large_image_equals_its_rows_one_by_one():
    rng = np.random.default_rng(0)
    x, weight = rng.integers(-9, 10, (2, 64, 60, 40)).astype(float), rng.integers(-9, 10, (3, 64, 5, 5)).astype(float)
    whole = conv2d(x, weight)
    for r in range(whole.shape[2]):
        np.testing.assert_array_equal(whole[:, :, r : r + 1], conv2d(x[:, :, r : r + 5], weight))

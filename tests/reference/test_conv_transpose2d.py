"""The reference against the definition as index loops, against conv2d, and against torch where it is installed."""

import numpy as np
import pytest
from nnspec.reference.conv2d import conv2d
from nnspec.reference.conv_transpose2d import ConvTranspose2d, conv_transpose2d, definition


def by_loops(x, weight, bias, stride, padding, output_padding, dilation, groups):
    (n, c, h, w), (_, og, kh, kw) = x.shape, weight.shape
    (sh, sw), (ph, pw), (eh, ew), (dh, dw) = stride, padding, output_padding, dilation
    oh, ow = (h - 1) * sh - 2 * ph + dh * (kh - 1) + eh + 1, (w - 1) * sw - 2 * pw + dw * (kw - 1) + ew + 1
    y = np.zeros((n, groups * og, oh, ow)) + np.reshape(bias, (-1, 1, 1))
    for b, channel, r, s, k, i, j in np.ndindex(n, c, h, w, og, kh, kw):
        row, column = r * sh + i * dh - ph, s * sw + j * dw - pw
        if 0 <= row < oh and 0 <= column < ow:
            y[b, channel // (c // groups) * og + k, row, column] += weight[channel, k, i, j] * x[b, channel, r, s]
    return y


def random_case(rng):
    groups, cg, og, n = rng.integers(1, 4, 4)
    stride, dilation, kernel = (tuple(map(int, rng.integers(1, 4, 2))) for _ in range(3))
    output_padding = tuple(int(rng.integers(max(s, d))) for s, d in zip(stride, dilation, strict=True))
    size = tuple(rng.integers(1, 5, 2))
    whole = [
        (m - 1) * s + d * (k - 1) + e + 1
        for m, s, d, k, e in zip(size, stride, dilation, kernel, output_padding, strict=True)
    ]
    padding = tuple(int(rng.integers(min(4, (m + 1) // 2))) for m in whole)
    x = rng.integers(-9, 10, (n, groups * cg, *size)).astype(float)
    weight = rng.integers(-9, 10, (groups * cg, og, *kernel)).astype(float)
    hyper = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    return x, weight, rng.integers(-9, 10, groups * og).astype(float), hyper | {"groups": int(groups)}


@pytest.mark.parametrize("seed", range(50))
def test_equals_loops(seed):
    x, weight, bias, hyper = random_case(np.random.default_rng(seed))
    np.testing.assert_array_equal(conv_transpose2d(x, weight, bias, **hyper), by_loops(x, weight, bias, **hyper))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("seed", range(50))
def test_equals_its_definition(seed, dtype):
    x, weight, bias, hyper = random_case(np.random.default_rng(seed))
    x, weight, bias = (a.astype(dtype) for a in (x, weight, bias))
    fast, expected = (f(x, weight, bias, **hyper) for f in (conv_transpose2d, definition))
    np.testing.assert_array_equal(fast, expected, strict=True)
    fast, expected = (f(x, weight, **hyper) for f in (conv_transpose2d, definition))
    np.testing.assert_array_equal(fast, expected, strict=True)


@pytest.mark.parametrize("seed", range(50))
def test_equals_torch(seed):
    torch = pytest.importorskip("torch")
    x, weight, bias, hyper = random_case(np.random.default_rng(seed))
    theirs = torch.nn.functional.conv_transpose2d(*map(torch.from_numpy, (x, weight, bias)), **hyper)
    np.testing.assert_array_equal(conv_transpose2d(x, weight, bias, **hyper), theirs)


@pytest.mark.parametrize("seed", range(50))
def test_is_the_adjoint_of_conv2d(seed):
    rng = np.random.default_rng(seed)
    x, weight, _, hyper = random_case(rng)
    y = conv_transpose2d(x, weight, **hyper)
    hyper.pop("output_padding")
    image = rng.integers(-9, 10, y.shape).astype(float)
    down = conv2d(image, weight, **hyper)[..., : x.shape[2], : x.shape[3]]  # dilation lets output_padding exceed stride
    assert (down * x).sum() == (image * y).sum()


@pytest.mark.parametrize("output_padding", [(1, 0), (0, 2)])
def test_refuses_output_padding_per_axis(output_padding):
    x = np.ones((1, 1, 2, 2))
    with pytest.raises(ValueError, match="output_padding"):
        conv_transpose2d(x, x, stride=(1, 2), output_padding=output_padding)


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble])
def test_keeps_the_dtype(dtype):
    layer = ConvTranspose2d(2, 2, 3, dtype=dtype)
    assert layer(np.ones((1, 2, 2, 2), dtype)).dtype == dtype


def test_module_applies_its_weight_and_bias():
    layer = ConvTranspose2d(4, 6, (2, 3), 2, (1, 0), 1, 2, True, (1, 2), dtype=np.float64)
    assert [key for key, _ in layer.named_parameters()] == ["weight", "bias"]
    assert layer.weight.data.shape == (4, 3, 2, 3)
    limit = 1 / np.sqrt(3 * 2 * 3)
    assert 0.8 * limit < abs(layer.weight.data).max() <= limit
    x = np.arange(4.0 * 30).reshape(1, 4, 5, 6)
    hyper = {"stride": 2, "padding": (1, 0), "output_padding": 1, "groups": 2, "dilation": (1, 2)}
    np.testing.assert_array_equal(layer(x), conv_transpose2d(x, layer.weight.data, layer.bias.data, **hyper))
    assert ConvTranspose2d(1, 1, 1, bias=False).bias is None

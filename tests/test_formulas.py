"""The formulas of the pages, written out in loops over their indices, give what the reference gives.

Numbers are small and whole, so that sums are exact and results are equal.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from nnspec.reference.avg_pool2d import avg_pool2d, avg_pool2d_vjp
from nnspec.reference.basic_block import ResidualBlock
from nnspec.reference.batch_norm import batch_norm, batch_norm_vjp
from nnspec.reference.conv2d import conv2d, conv2d_vjp
from nnspec.reference.conv_transpose2d import conv_transpose2d, conv_transpose2d_vjp
from nnspec.reference.einsum import einsum, einsum_vjp
from nnspec.reference.global_avg_pool2d import global_avg_pool2d, global_avg_pool2d_vjp
from nnspec.reference.linear import linear, linear_vjp
from nnspec.reference.max_pool2d import max_pool2d, max_pool2d_vjp
from nnspec.reference.mlp import MLP
from nnspec.reference.module import Buffer, Module, Parameter
from nnspec.reference.relu import relu, relu_vjp
from nnspec.reference.resnet34 import POOL, ResNet34
from nnspec.reference.sgd import sgd_step

SH, SW, PH, PW, DH, DW, G = 2, 1, 1, 2, 1, 2, 2
CONVOLUTION = {"stride": (SH, SW), "padding": (PH, PW), "dilation": (DH, DW), "groups": G}


def whole(*shape: int) -> np.ndarray:
    """Return small whole numbers, the same ones for a shape each time."""
    return np.random.default_rng(shape).integers(-4, 5, shape).astype(float)


def at(a: np.ndarray, n: int, c: int, p: int, q: int, outside: float = 0) -> float:
    """Return an element of images, or `outside` beyond their borders: x̂ of the pages."""
    return a[n, c, p, q] if 0 <= p < a.shape[2] and 0 <= q < a.shape[3] else outside


def test_convolution():
    x, w, b = whole(2, 4, 5, 6), whole(6, 2, 3, 2), whole(6)
    y = conv2d(x, w, b, **CONVOLUTION)
    o_per_group, c_per_group = 6 // G, 4 // G

    def first(o):
        return o // o_per_group * c_per_group

    expected = np.zeros_like(y)
    for n, o, r, s in np.ndindex(y.shape):
        expected[n, o, r, s] = b[o] + sum(
            w[o, c, i, j] * at(x, n, first(o) + c, r * SH + i * DH - PH, s * SW + j * DW - PW)
            for c, i, j in np.ndindex(w.shape[1:])
        )
    np.testing.assert_array_equal(y, expected)

    g = whole(*y.shape)
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), g.sum((0, 2, 3))
    for n, c, p, q in np.ndindex(x.shape):
        outputs = [o for o in range(6) if first(o) <= c < first(o) + c_per_group]
        for o, (i, j, r, s) in itertools.product(outputs, np.ndindex(3, 2, *y.shape[2:])):
            if (r * SH + i * DH - PH, s * SW + j * DW - PW) == (p, q):
                dx[n, c, p, q] += w[o, c - first(o), i, j] * g[n, o, r, s]
    for o, c, i, j in np.ndindex(w.shape):
        for n, r, s in np.ndindex(len(x), *y.shape[2:]):
            dw[o, c, i, j] += at(x, n, first(o) + c, r * SH + i * DH - PH, s * SW + j * DW - PW) * g[n, o, r, s]
    for found, wanted in zip(conv2d_vjp(g, x, w, b, **CONVOLUTION), (dx, dw, db), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_transposed_convolution():
    x, w, b = whole(2, 4, 3, 3), whole(4, 3, 3, 2), whole(6)
    y = conv_transpose2d(x, w, b, output_padding=(1, 0), **CONVOLUTION)

    def first(c):
        return c // (4 // G) * (6 // G)

    expected = np.zeros_like(y) + b[:, None, None]
    for n, c, o, i, j, r, s in np.ndindex(2, 4, 3, 3, 2, 3, 3):
        u, v = r * SH + i * DH - PH, s * SW + j * DW - PW
        if 0 <= u < y.shape[2] and 0 <= v < y.shape[3]:
            expected[n, first(c) + o, u, v] += w[c, o, i, j] * x[n, c, r, s]
    np.testing.assert_array_equal(y, expected)

    g = whole(*y.shape)
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), g.sum((0, 2, 3))
    for n, c, o, i, j, r, s in np.ndindex(2, 4, 3, 3, 2, 3, 3):
        arrived = at(g, n, first(c) + o, r * SH + i * DH - PH, s * SW + j * DW - PW)
        dx[n, c, r, s] += w[c, o, i, j] * arrived
        dw[c, o, i, j] += x[n, c, r, s] * arrived
    found = conv_transpose2d_vjp(g, x, w, b, output_padding=(1, 0), **CONVOLUTION)
    for one, wanted in zip(found, (dx, dw, db), strict=True):
        np.testing.assert_array_equal(one, wanted)


def test_maximum_of_windows():
    x, (kh, kw) = whole(2, 2, 6, 7), (2, 3)
    arguments = {"kernel_size": (kh, kw), "stride": (SH, SW), "padding": (1, 1), "dilation": (DH, DW)}
    y = max_pool2d(x, **arguments)
    expected, g, dx = np.zeros_like(y), whole(*y.shape), np.zeros_like(x)
    for n, c, r, s in np.ndindex(y.shape):
        places = [(r * SH + i * DH - 1, s * SW + j * DW - 1) for i, j in np.ndindex(kh, kw)]
        best = max(places, key=lambda place: at(x, n, c, *place, outside=-np.inf))  # the first, of equal ones
        expected[n, c, r, s] = at(x, n, c, *best, outside=-np.inf)
        dx[n, c, *best] += g[n, c, r, s]
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(max_pool2d_vjp(g, x, **arguments), dx)


@pytest.mark.parametrize("count_include_pad", [True, False])
def test_average_of_windows(count_include_pad):
    x, (kh, kw) = 720 * whole(2, 2, 5, 7), (3, 2)  # multiples of every divisor
    arguments = {"kernel_size": (kh, kw), "stride": 2, "padding": 1, "ceil_mode": True}
    y = avg_pool2d(x, count_include_pad=count_include_pad, **arguments)
    expected, g, dx = np.zeros_like(y), 720 * whole(*y.shape), np.zeros_like(x)
    border = 1 if count_include_pad else 0
    for n, c, r, s in np.ndindex(y.shape):
        places = [(r * 2 + i - 1, s * 2 + j - 1) for i, j in np.ndindex(kh, kw)]
        counted = [(p, q) for p, q in places if -border <= p < 5 + border and -border <= q < 7 + border]
        expected[n, c, r, s] = sum(at(x, n, c, *place) for place in places) / len(counted)
        for p, q in places:
            if 0 <= p < 5 and 0 <= q < 7:
                dx[n, c, p, q] += g[n, c, r, s] / len(counted)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(avg_pool2d_vjp(g, x, count_include_pad=count_include_pad, **arguments), dx)


def test_number_of_windows_with_ceil_mode():
    for h, k, s, d in itertools.product(range(1, 9), range(1, 4), range(1, 5), range(1, 3)):
        for p in range(k // 2 + 1):
            if h + 2 * p < d * (k - 1) + 1:
                continue
            oh = -(-(h + 2 * p - d * (k - 1) - 1) // s) + 1
            oh -= (oh - 1) * s >= h + p
            arguments = {"kernel_size": (k, 1), "stride": (s, 1), "padding": (p, 0), "ceil_mode": True}
            assert max_pool2d(np.ones((1, 1, h, 1)), dilation=(d, 1), **arguments).shape[2] == oh
            if d == 1:
                assert avg_pool2d(np.ones((1, 1, h, 1)), **arguments).shape[2] == oh


def test_mean_over_an_image():
    x, g = 6 * whole(2, 3, 2, 3), 6 * whole(2, 3)
    y, dx = np.zeros((2, 3)), np.zeros_like(x)
    for n, c, i, j in np.ndindex(x.shape):
        y[n, c] += x[n, c, i, j] / 6
        dx[n, c, i, j] = g[n, c] / 6
    np.testing.assert_array_equal(global_avg_pool2d(x), y)
    np.testing.assert_array_equal(global_avg_pool2d_vjp(g, x), dx)


def test_batch_normalisation_and_its_gradients():
    """Values of ±2 around the mean have the variance 4, so that roots are exact; eps is next to nothing."""
    x = np.array([[1.0, 7.0], [5.0, 3.0], [5.0, 3.0], [1.0, 7.0]])
    w, b, g = np.array([3.0, -1.0]), np.array([2.0, 5.0]), whole(4, 2)
    mean, variance = x.sum(0) / 4, ((x - x.sum(0) / 4) ** 2).sum(0) / 4
    tiny, old = 1e-300, np.array([8.0, 16.0])
    y, running_mean, running_var = batch_norm(x, old, old, w, b, training=True, momentum=0.25, eps=tiny)
    normal = (x - mean) / np.sqrt(variance + tiny)
    np.testing.assert_array_equal(y, normal * w + b)
    np.testing.assert_array_equal(running_mean, 0.75 * old + 0.25 * mean)
    np.testing.assert_array_equal(running_var, 0.75 * old + 0.25 * variance * 4 / 3)
    dx, _, _, dw, db = batch_norm_vjp(g, x, old, old, w, b, training=True, eps=tiny)
    s = 1 / np.sqrt(variance + tiny)
    np.testing.assert_array_equal(dx, w * s * (g - g.mean(0) - normal * (g * normal).mean(0)))
    np.testing.assert_array_equal((dw, db), ((g * normal).sum(0), g.sum(0)))
    assert np.array_equal(batch_norm_vjp(g, x, old, np.full(2, 4.0), w, b, eps=tiny)[0], w / 2 * g)


def test_sums_of_products_of_labels():
    x, w = whole(2, 3), whole(3, 4)
    y, g = np.zeros((2, 4)), whole(2, 4)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i, j, k in np.ndindex(2, 3, 4):
        y[i, k] += x[i, j] * w[j, k]
        dx[i, j] += g[i, k] * w[j, k]
        dw[j, k] += g[i, k] * x[i, j]
    np.testing.assert_array_equal(einsum("ij,jk->ik", x, w), y)
    for found, wanted in zip(einsum_vjp(g, "ij,jk->ik", x, w), (dx, dw), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_linear_layer():
    x, w, b, g = whole(2, 5, 3), whole(4, 3), whole(4), whole(2, 5, 4)
    y, dx, dw, db = np.zeros((2, 5, 4)) + b, np.zeros_like(x), np.zeros_like(w), g.sum((0, 1))
    for n, m, o, i in np.ndindex(2, 5, 4, 3):
        y[n, m, o] += w[o, i] * x[n, m, i]
        dx[n, m, i] += w[o, i] * g[n, m, o]
        dw[o, i] += g[n, m, o] * x[n, m, i]
    np.testing.assert_array_equal(linear(x, w, b), y)
    for found, wanted in zip(linear_vjp(g, x, w, b), (dx, dw, db), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_relu():
    x, g = whole(20), whole(20, 1).ravel()
    np.testing.assert_array_equal(relu(x), [max(a, 0) for a in x])
    np.testing.assert_array_equal(relu_vjp(g, x), [b if a > 0 else 0 for a, b in zip(x, g, strict=True)])


def test_perceptron():
    network, x, g = MLP(3, [4, 5], 2, dtype=np.float64), whole(3), whole(2)
    parameters = dict(network.named_parameters())
    for p in parameters.values():
        p.data[...] = whole(*p.data.shape)
    w, b = ([p.data for key, p in parameters.items() if key.endswith(name)] for name in ("weight", "bias"))
    a, h = [x], []
    for weight, bias in zip(w, b, strict=True):
        h.append(weight @ a[-1] + bias)
        a.append(np.maximum(h[-1], 0))
    y, vjp = network.vjp(x)
    np.testing.assert_array_equal(y, h[-1])
    back = [g]
    for n in (2, 1):
        back.insert(0, (w[n].T @ back[0]) * (h[n - 1] > 0))
    np.testing.assert_array_equal(vjp(g), w[0].T @ back[0])
    for n in range(3):
        np.testing.assert_array_equal(parameters[f"fc{n + 1}.weight"].grad, np.outer(back[n], a[n]))
        np.testing.assert_array_equal(parameters[f"fc{n + 1}.bias"].grad, back[n])


@pytest.mark.parametrize("stride", [1, 2])
def test_residual_block(stride):
    block = ResidualBlock(2, 2, stride, dtype=np.float64).eval()
    x = whole(1, 2, 4, 4)
    inner, through_inner = block.conv1.vjp(x)
    inner, through_bn1 = block.bn1.vjp(inner)
    f, through_conv2 = block.conv2.vjp(relu(inner))
    f, through_bn2 = block.bn2.vjp(f)
    s, through_shortcut = block.downsample.vjp(x) if block.downsample else (x, lambda t: t)
    y, vjp = block.vjp(x)
    np.testing.assert_array_equal(y, relu(f + s))
    g = whole(*y.shape)
    t = g * (f + s > 0)
    a = through_conv2(through_bn2(t)) * (inner > 0)
    np.testing.assert_array_equal(vjp(g), through_inner(through_bn1(a)) + through_shortcut(t))


def test_steps_with_momentum():
    """One formula serves the first step too: the velocity before it is 0."""
    p, v, velocity, lr, momentum, decay = whole(5), np.zeros(5), None, 0.5, 0.25, 2.0
    found = p
    for step in range(3):
        g = whole(5, step + 1)[:, 0]
        v = momentum * v + (g + decay * p)
        p = p - lr * v
        found, velocity = sgd_step(found, g, velocity, lr=lr, momentum=momentum, weight_decay=decay)
        np.testing.assert_array_equal(found, p)


def test_state_of_a_module():
    def state(m):
        own = {k: e for k, e in vars(m).items() if isinstance(e, Parameter) or (isinstance(e, Buffer) and e.persistent)}
        children = [(n, c) for n, c in vars(m).items() if isinstance(c, Module)]
        return own | {f"{n}.{k}": e for n, c in children for k, e in state(c).items()}

    block = ResidualBlock(1, 2, stride=2)
    found = block.state_dict()
    assert {k: e.data.shape for k, e in state(block).items()} == {k: a.shape for k, a in found.items()}
    assert len(found) == 18


def test_residual_network():
    network = ResNet34(in_channels=1, num_classes=3, width=1, dtype=np.float64, rng=np.random.default_rng(0)).eval()
    x, g = whole(2, 1, 40, 33), whole(2, 3)
    stem, through_conv = network.conv1.vjp(x)
    normed, through_norm = network.bn1.vjp(stem)
    pooled = max_pool2d(relu(normed), **POOL)
    y, back = pooled, []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        y, through = stage.vjp(y)
        back.append(through)
    hw, z = y.shape[2] * y.shape[3], y.mean((2, 3))
    w, b = network.fc.weight.data, network.fc.bias.data
    expected = np.broadcast_to(((g @ w) / hw)[:, :, None, None], y.shape)
    for through in reversed(back):
        expected = through(expected)
    expected = through_conv(through_norm(relu_vjp(max_pool2d_vjp(expected, relu(normed), **POOL), normed)))
    network.fc.weight.grad = network.fc.bias.grad = None
    scores, pull = network.vjp(x)
    np.testing.assert_allclose(scores, z @ w.T + b)
    np.testing.assert_allclose(pull(g), expected)
    np.testing.assert_allclose(network.fc.weight.grad, sum(np.outer(g[n], z[n]) for n in range(2)))
    np.testing.assert_allclose(network.fc.bias.grad, g.sum(0))

"""The blocks as one writes them with jax.numpy, jax.lax and jax.nn.

JAX itself refuses most of what is wrong; what it would take otherwise is refused here.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import lax
from nnspec.adapters import chains

HIGHEST = lax.Precision.HIGHEST  # no fewer bits than the operands have, on any device


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"expected {what}")


def _pair(name: str, value: Any, least: int) -> tuple[int, int]:
    rows, columns = (value, value) if isinstance(value, int) else value
    _require(min(rows, columns) >= least, f"{name} of at least {least}, not {value}")
    return rows, columns


def _vectors(length: int, *vectors: jax.Array | None) -> None:
    for vector in vectors:  # before anything is computed with them: JAX would broadcast those of length 1
        _require(vector is None or vector.shape == (length,), f"a vector of length {length}")


def _biased(y, bias, axis):
    return y if bias is None else y + lax.broadcast_in_dim(bias, y.shape, (axis,))


def einsum(equation, *operands):
    """jnp.einsum"""
    return jnp.einsum(equation, *operands, precision=HIGHEST)


def linear(x, weight, bias=None):
    """(…, I) -> (…, O)"""
    _require(x.ndim > 0 and weight.ndim == 2, f"x (…, I) and weight (O, I), not {x.shape} and {weight.shape}")
    _vectors(len(weight), bias)
    return _biased(lax.dot_general(x, weight, (((x.ndim - 1,), (1,)), ((), ())), precision=HIGHEST), bias, x.ndim - 1)


def relu(x):
    """jax.nn.relu"""
    return jax.nn.relu(x)


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, H, W) -> (N, O, OH, OW)"""
    stride, dilation = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    if isinstance(padding, str):
        _require(x.ndim == weight.ndim == 4, f"four dimensions, not {x.shape} and {weight.shape}")
        span = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
        around = lax.padtype_to_pads(x.shape[2:], span, stride, padding.upper())
    else:
        around = [(p, p) for p in _pair("padding", padding, 0)]
    return _convolution(x, weight, bias, stride, around, (1, 1), dilation, groups, "OIHW")


def conv_transpose2d(x, weight, bias=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """(N, C, H, W) -> (N, O, OH, OW): a convolution of x spread by the stride with the kernel turned round."""
    stride, padding, dilation = _pair("stride", stride, 1), _pair("padding", padding, 0), _pair("dilation", dilation, 1)
    more, (c, o, kh, kw) = _pair("output_padding", output_padding, 0), weight.shape
    limit = tuple(map(max, stride, dilation))
    _require(more[0] < limit[0] and more[1] < limit[1], f"output_padding below {limit}, not {more}")
    _require(groups > 0 and c % groups == 0, f"groups that divide {c}, not {groups}")
    weight = lax.rev(weight, (2, 3)).reshape(groups, c // groups, o, kh, kw).swapaxes(0, 1)
    before = [d * (k - 1) - p for k, p, d in zip((kh, kw), padding, dilation, strict=True)]
    around = [(b, b + e) for b, e in zip(before, more, strict=True)]
    weight = weight.reshape(c // groups, groups * o, kh, kw)
    return _convolution(x, weight, bias, (1, 1), around, stride, dilation, groups, "IOHW")


def _convolution(x, weight, bias, stride, around, spread, dilation, groups, kernel):
    _require(x.ndim == weight.ndim == 4, f"four dimensions, not {x.shape} and {weight.shape}")
    _vectors(weight.shape[kernel.index("O")], bias)
    for n, k, (before, behind), s, d in zip(x.shape[2:], weight.shape[2:], around, spread, dilation, strict=True):
        _require((n - 1) * s + before + behind >= d * (k - 1), f"room for a kernel {weight.shape} over {x.shape}")
    y = lax.conv_general_dilated(
        x, weight, stride, around, spread, dilation, ("NCHW", kernel, "NCHW"), groups, precision=HIGHEST
    )
    return _biased(y, bias, 1)


def batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
    """y, and the running statistics after the call; axis 1 of x has the channels."""
    _require(x.ndim > 1 and eps >= 0, f"at least two axes and eps of at least 0, not {x.shape} and {eps}")
    _vectors(x.shape[1], running_mean, running_var, weight, bias)
    axes, n = (0, *range(2, x.ndim)), x.size // max(x.shape[1], 1)
    if training:
        if n == 0:
            return x, running_mean, running_var
        _require(n > 1, "more than one value for each channel")
        wide = x.dtype if running_mean is None else running_mean.dtype
        mean, var = jnp.mean(x, axes, dtype=wide), jnp.var(x, axes, dtype=wide)
    else:
        _require(running_mean is not None and running_var is not None, "a running mean and a running variance")
        mean, var = running_mean, running_var
    scale = lax.rsqrt(var + eps) if weight is None else lax.rsqrt(var + eps) * weight
    mean_of, scale_of = (jnp.expand_dims(vector, axes) for vector in (mean, scale))
    y = _biased((x - mean_of) * scale_of, bias, 1).astype(x.dtype)
    if not training or running_mean is None:
        return y, running_mean, running_var
    moved = [(1 - momentum) * r + momentum * b for r, b in ((running_mean, mean), (running_var, var * (n / (n - 1))))]
    return (y, *moved)


def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """(N, C, H, W) -> (N, C, OH, OW)"""
    kernel, step, around, size = _windows(x, kernel_size, stride, padding, dilation, ceil_mode)
    least = np.array(-np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min, x.dtype)
    if dilation not in (1, (1, 1)):  # JAX has no gradient of dilated windows, so they are laid side by side
        x = lax.pad(x, least, [(0, 0, 0), (0, 0, 0), *((*a, 0) for a in around)])
        spots = zip(size, step, kernel, _pair("dilation", dilation, 1), strict=True)
        rows, columns = ((np.arange(n)[:, None] * s + np.arange(k) * d).ravel() for n, s, k, d in spots)
        x, step, around = x[:, :, rows[:, None], columns], kernel, [(0, 0), (0, 0)]
    return lax.reduce_window(x, least, lax.max, (1, 1, *kernel), (1, 1, *step), [(0, 0), (0, 0), *around])


def avg_pool2d(
    x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """(N, C, H, W) -> (N, C, OH, OW)"""
    kernel, step, around, size = _windows(x, kernel_size, stride, padding, 1, ceil_mode)
    _require(divisor_override != 0, "a divisor_override other than 0")
    counts = []
    for n, k, s, (p, _), windows in zip(x.shape[2:], kernel, step, around, size, strict=True):
        first, border = np.arange(windows) * s - p, p if count_include_pad else 0
        counts.append(np.minimum(first + k, n + border) - np.maximum(first, -border))
    divisor = np.outer(*counts) if divisor_override is None else np.array(divisor_override)
    zero = np.zeros((), x.dtype)
    total = lax.reduce_window(x, zero, lax.add, (1, 1, *kernel), (1, 1, *step), [(0, 0), (0, 0), *around])
    return total / divisor.astype(x.dtype)


def _windows(x, kernel_size, stride, padding, dilation, ceil_mode):
    """Kernel, stride, padding before and behind, and how many windows there are; each for rows and for columns."""
    _require(x.ndim == 4, f"(N, C, H, W), not {x.shape}")
    kernel = _pair("kernel_size", kernel_size, 1)
    step = kernel if stride is None else _pair("stride", stride, 1)
    padding, dilation, around, size = _pair("padding", padding, 0), _pair("dilation", dilation, 1), [], []
    for n, k, s, p, d in zip(x.shape[2:], kernel, step, padding, dilation, strict=True):
        span = d * (k - 1) + 1
        left = n + 2 * p - span + (s - 1 if ceil_mode else 0)
        _require(p <= k // 2 and left >= 0, f"padding up to half of {kernel}, and room for a window, not {padding}")
        size.append(min(left // s + 1, -(-(n + p) // s)))  # a window begins before the far padding
        around.append((p, max(0, (size[-1] - 1) * s + span - n - p)))
    return kernel, step, around, size


def global_avg_pool2d(x):
    """(N, C, H, W) -> (N, C)"""
    _require(x.ndim == 4 and 0 not in x.shape[2:], f"(N, C, H, W) with rows and columns, not {x.shape}")
    return jnp.mean(x, (2, 3))


# -- networks: pure functions of a state, which is a flat mapping from the pages' keys to arrays ----------------------


fused_chain = chains.in_a_row({name: globals()[name] for name in chains.BLOCKS})


def init(block: str, sizes: Mapping[str, Any], dtype: Any) -> dict[str, jax.Array]:
    """The state of a new network: kernels of He's variance for the outputs, norms that change nothing yet."""
    rng = np.random.default_rng()  # jax.random would compile a program for each shape

    def kernel(*shape: int) -> jax.Array:
        _require(min(shape) >= 0, f"sizes of at least 0, not {shape}")
        return jnp.asarray(rng.normal(0, np.sqrt(2 / max(shape[0] * math.prod(shape[2:]), 1)), shape), dtype)

    def dense(name: str, i: int, o: int) -> dict[str, jax.Array]:
        return {f"{name}.weight": kernel(o, i), f"{name}.bias": jnp.zeros(o, dtype)}

    def normed(name: str, norm: str, o: int, i: int, k: int) -> dict[str, jax.Array]:
        zeros, ones = jnp.zeros(o, dtype), jnp.ones(o, dtype)
        vectors = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones}
        vectors["num_batches_tracked"] = jnp.zeros((), np.int64)
        return {f"{name}.weight": kernel(o, i, k, k), **{f"{norm}.{key}": array for key, array in vectors.items()}}

    def residual(name: str, i: int, o: int, stride: int) -> dict[str, jax.Array]:
        _require(stride >= 1, f"a stride of at least 1, not {stride}")
        state = {**normed(f"{name}conv1", f"{name}bn1", o, i, 3), **normed(f"{name}conv2", f"{name}bn2", o, o, 3)}
        return state if (stride, i) == (1, o) else state | normed(f"{name}downsample.0", f"{name}downsample.1", o, i, 1)

    if block == "mlp":
        widths = (sizes["in_features"], *sizes["hidden_features"], sizes["out_features"])
        layers = [dense(f"fc{n}", i, o) for n, (i, o) in enumerate(itertools.pairwise(widths), start=1)]
        return {key: array for layer in layers for key, array in layer.items()}
    if block == "basic_block":
        return residual("", sizes["in_channels"], sizes["out_channels"], sizes["stride"])
    state = normed("conv1", "bn1", 64, sizes["in_channels"], 7)
    for name, i, o, stride in _resnet34_blocks():
        state |= residual(name, i, o, stride)
    return state | dense("fc", 512, sizes["num_classes"])


def apply(
    block: str, state: Mapping[str, jax.Array], x: jax.Array, training: bool, sizes: Mapping[str, Any]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The result of a network, and its state after the call: in training the statistics move."""
    after = dict(state)

    def normed(x: jax.Array, name: str, norm: str, stride: int, padding: int) -> jax.Array:
        x = conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)
        vectors = [state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        y, mean, var = batch_norm(x, *vectors, training=training)
        counted = state[f"{norm}.num_batches_tracked"] + training
        after.update({f"{norm}.running_mean": mean, f"{norm}.running_var": var, f"{norm}.num_batches_tracked": counted})
        return y

    def residual(x: jax.Array, name: str, stride: int) -> jax.Array:
        y = relu(normed(x, f"{name}conv1", f"{name}bn1", stride, 1))
        y = normed(y, f"{name}conv2", f"{name}bn2", 1, 1)
        if f"{name}downsample.0.weight" in state:
            x = normed(x, f"{name}downsample.0", f"{name}downsample.1", stride, 0)
        return relu(y + x)

    if block == "mlp":
        last = len(sizes["hidden_features"]) + 1
        for n in range(1, last):
            x = relu(linear(x, state[f"fc{n}.weight"], state[f"fc{n}.bias"]))
        return linear(x, state[f"fc{last}.weight"], state[f"fc{last}.bias"]), after
    if block == "basic_block":
        return residual(x, "", sizes["stride"]), after
    x = max_pool2d(relu(normed(x, "conv1", "bn1", 2, 3)), kernel_size=3, stride=2, padding=1)
    for name, _, _, stride in _resnet34_blocks():
        x = residual(x, name, stride)
    return linear(global_avg_pool2d(x), state["fc.weight"], state["fc.bias"]), after


def _resnet34_blocks() -> Iterator[tuple[str, int, int, int]]:
    """The key before a block's entries, its channels, and its stride."""
    channels = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for number in range(blocks):
            yield f"layer{stage}.{number}.", channels, width, 2 if stage > 1 and number == 0 else 1
            channels = width


def declines(stem: str, arrays: Mapping[str, np.ndarray | None], arguments: Mapping[str, Any]) -> str | None:
    """Name the defect that forbids a call: seen in jaxlib 0.10, where XLA then ends the process.

    Where the kernel is larger than the image, XLA has the two change places (`SwapConvOperands` of its algebraic
    simplifier). An axis along which an image is spread as far apart as the kernel is long, without padding, is left as
    it was, which fails a check of sizes unless image and kernel are equally long there. Such images are the x of a
    transposed convolution, where it is run or its weight's gradient taken, and the cotangent of a convolution.
    """
    x, weight = arrays.get("x"), arrays.get("weight")
    if x is None or weight is None or not x.ndim == weight.ndim == 4:
        return None
    if arguments.get("groups", 1) != 1 and x.itemsize < 8:  # in float64, groups are first made one dense convolution
        return None
    names = ("stride", "padding", "dilation", "output_padding")
    given = [arguments.get(name, name in ("stride", "dilation")) for name in names]
    if any(isinstance(value, str) or np.size(value) > 2 for value in given):  # no defect was seen, or it is refused
        return None
    s, p, d, e = (np.broadcast_to(value, 2) for value in given)
    n, k = np.array(x.shape[2:]), np.array(weight.shape[2:])
    if stem == "conv_transpose2d":
        small, large = n, (n - 1) * s - 2 * p + d * (k - 1) + e + 1
    elif stem == "conv2d" and "cotangent" in arrays:
        small, large = (n + 2 * p - d * (k - 1) - 1) // s + 1, n
    else:
        return None
    spread = (k == 2) & (s == 2) & (p == 1) & (d == 1) & (large == 2 * (small - 1)) & (small != 2) & (k > small)[::-1]
    back = (p == d * (k - 1)) & (e == 0) & (large == s) & (s == d + 1) & (small != large) & (large > small)[::-1]
    if spread.any() or (back.any() and stem == "conv_transpose2d" and "cotangent" in arrays):
        where = "kernel larger than the image, which is spread apart by the kernel's length"
        return f"jaxlib {jaxlib.__version__}: XLA ends the process ({where})"
    return None

"""Convolution of an image with a kernel (cross-correlation). Page: spec/conv2d.md"""

import numpy as np
from nnspec.reference.arguments import Array, Pair, Rows, length, like, pair, rank
from nnspec.reference.module import Module, Parameter, Pullback, pullback
from nnspec.reference.windows import output_size, pad, scatter, windows
from numpy.typing import DTypeLike


def definition(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """Return the convolution, as `conv2d` does: the formula, in a form that is short and slow.

    Shapes and errors are those of `conv2d`.

    By construction: conv2d.arguments.defaults.
    """
    strides, paddings, dilations, overhang = _check(x, weight, bias, stride, padding, dilation, groups)
    (n, _, h, w), (o, cg, kh, kw) = x.shape, weight.shape
    oh, ow = output_size((h, w), (kh, kw), strides, paddings, dilations, overhang)
    view = windows(pad(x, paddings, 0, overhang), (kh, kw), strides, dilations)
    view = view.reshape(n, groups, cg, kh, kw, oh, ow)
    kernels = weight.reshape(groups, o // groups, cg, kh, kw)
    y = np.einsum("gocij,ngcijrs->ngors", kernels, view).reshape(n, o, oh, ow)
    return y if bias is None else y + bias[:, None, None]


# The fast forms copy windows as columns of a matrix, and few at a time, so that the columns and their product stay in
# the processor's cache. COLUMNS is about how many elements of one image are copied at once: in float32, twice as many
# take 1.4 times as long on an image of 64 × 112 × 112, and fewer gain nothing. Of small images, as many are taken at
# once as have PIXELS windows together: single images of 4 × 3 × 3 take five times as long, and more gain a few percent.
COLUMNS = 2**19
PIXELS = 400


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """Return the convolution of images with kernels.

    x has shape (N, C, H, W), weight (O, C/groups, KH, KW) and bias (O,); the result has shape (N, O, OH, OW) and x's
    dtype. Raises ValueError for arguments that the page refuses (`conv2d.refuses.*`).

    By construction: conv2d.arguments.together, conv2d.batch.independent, conv2d.batch.empty, conv2d.special.value,
    conv2d.special.groups, conv2d.range.ends, conv2d.input.unchanged, conv2d.input.layout, conv2d.memory.in-bounds,
    conv2d.memory.all-written, conv2d.memory.alignment, conv2d.call.stateless, conv2d.call.neighbours,
    conv2d.refuses.window, conv2d.dilation.gap, conv2d.output.dtype, conv2d.output.fresh, conv2d.window.local,
    conv2d.law.shift, conv2d.domain.outside.
    """
    strides, paddings, dilations, overhang = _check(x, weight, bias, stride, padding, dilation, groups)
    (n, c, h, w), (o, cg, kh, kw) = x.shape, weight.shape
    # [conv2d.output.size]
    oh, ow = output_size((h, w), (kh, kw), strides, paddings, dilations, overhang)
    padded = pad(x, paddings, 0, overhang)  # [conv2d.padding.zeros]
    # [conv2d.stride.step]
    view = windows(padded, (kh, kw), strides, dilations)  # (N, C, KH, KW, OH, OW)
    kernels = weight.reshape(groups, o // groups, cg * kh * kw)
    y = np.empty((n, groups, o // groups, oh * ow), x.dtype)
    rows = max(1, COLUMNS // (c * kh * kw * ow))
    for images in _batches(n, oh * ow):
        for r in range(0, oh, rows):
            some = view[images, ..., r : r + rows, :]  # (images, C, KH, KW, rows, OW)
            # One column for each window, with the elements in the order in which a kernel is stored; one matrix for
            # each group, of its own channels: [conv2d.kernel.orientation] [conv2d.groups.block-diagonal]
            # (C, KH, KW, images, rows, OW): the first three axes are rows of the matrices, the last three columns.
            # Groups have channels side by side, so that the first axis splits into groups.
            columns = some.transpose(1, 2, 3, 0, 4, 5).reshape(groups, cg * kh * kw, -1)
            product = kernels @ columns  # the sum over C, KH and KW: [conv2d.output.value]
            product = product.reshape(groups, o // groups, len(some), -1)  # columns: images, and pixels of each
            y[images, ..., r * ow : (r + rows) * ow] = product.transpose(2, 0, 1, 3)
    y = y.reshape(n, o, oh, ow)
    if bias is not None:
        y += bias[:, None, None]  # [conv2d.bias.per-channel]
    return y


def conv2d_vjp(
    cotangent: Array,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array | None]:
    """Return the gradients of x, weight and bias, each like its operand; None for an absent bias.

    The cotangent of the result has shape (N, O, OH, OW). Raises ValueError as `conv2d` does, and for a cotangent of
    another shape.

    By construction: conv2d.gradient.frozen,
    conv2d.gradient.batch, conv2d.gradient.special, conv2d.gradient.unchanged, conv2d.gradient.layout,
    conv2d.gradient.bias.
    """
    strides, paddings, dilations, overhang = _check(x, weight, bias, stride, padding, dilation, groups)
    size = output_size(x.shape[2:], weight.shape[2:], strides, paddings, dilations, overhang)
    like("cotangent", cotangent, (len(x), len(weight), *size))
    dx = gradient_of_x(cotangent, x.shape, weight, strides, paddings, dilations, groups, overhang)
    dweight = gradient_of_weight(
        cotangent, pad(x, (0, 0), 0, overhang), weight.shape, strides, paddings, dilations, groups
    )
    dbias = None if bias is None else cotangent.sum((0, 2, 3))
    return dx, dweight, dbias


def gradient_of_x(
    cotangent: Array,
    shape: tuple[int, ...],
    weight: Array,
    stride: Rows,
    padding: Rows,
    dilation: Rows,
    groups: int,
    overhang: Rows,
) -> Array:
    """Return the gradient of an x of this shape, which has padding on both sides and overhang at the far ends.

    As result = kernels @ columns, the gradient of the columns is kernelsᵀ @ cotangent. `scatter` adds it up over the
    windows that an element of x is in.

    By construction: conv2d.gradient.like-operand.
    """
    (n, c, h, w), (o, cg, kh, kw), (oh, ow), (ph, pw) = shape, weight.shape, cotangent.shape[2:], padding
    eh, ew = overhang
    kernels = weight.reshape(groups, o // groups, cg * kh * kw).swapaxes(1, 2)
    padded = np.zeros((n, c, h + 2 * ph + eh, w + 2 * pw + ew), cotangent.dtype)
    for images in _batches(n, oh * ow):
        dy = cotangent[images].swapaxes(0, 1).reshape(groups, o // groups, -1)
        columns = (kernels @ dy).reshape(c, kh, kw, -1, oh, ow).transpose(3, 0, 1, 2, 4, 5)
        scatter(columns, padded[images], stride, dilation)  # [conv2d.gradient.x]
    # Drop the gradient of the padding. Elements in no window keep 0.
    return padded[:, :, ph : ph + h, pw : pw + w]


def gradient_of_weight(
    cotangent: Array, x: Array, shape: tuple[int, ...], stride: Rows, padding: Rows, dilation: Rows, groups: int
) -> Array:
    """Return the gradient of a weight of this shape.

    As result = kernels @ columns, the gradient of the kernels is cotangent @ columnsᵀ.

    By construction: conv2d.gradient.empty.
    """
    (o, cg, kh, kw), (oh, ow) = shape, cotangent.shape[2:]
    view = windows(pad(x, padding), (kh, kw), stride, dilation)[..., :oh, :ow]
    kernels = np.zeros((groups, o // groups, cg * kh * kw), x.dtype)  # stays 0 without images
    for images in _batches(len(x), oh * ow):
        columns = view[images].transpose(1, 2, 3, 0, 4, 5).reshape(groups, cg * kh * kw, -1)
        dy = cotangent[images].swapaxes(0, 1).reshape(groups, o // groups, -1)
        kernels += dy @ columns.swapaxes(1, 2)  # [conv2d.gradient.weight]
    return kernels.reshape(shape)


def _batches(n: int, pixels: int) -> list[slice]:
    """Return slices that cut n images, with `pixels` windows each, into batches of about PIXELS windows."""
    images = max(1, PIXELS // pixels)
    return [slice(i, i + images) for i in range(0, n, images)]


def _borders(padding, kernel_size, stride, dilation):
    """Return the padding of both sides, and by how much there is more at the bottom and on the right."""
    if padding == "valid":  # [conv2d.padding.valid]
        return (0, 0), (0, 0)
    if padding != "same":
        return pair("padding", padding, 0), (0, 0)
    if stride != (1, 1):
        raise ValueError(f"padding='same' with stride={stride}: expected a stride of 1")
    rows, columns = (d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True))
    return (rows // 2, columns // 2), (rows % 2, columns % 2)  # [conv2d.padding.same]


def _check(x, weight, bias, stride, padding, dilation, groups):
    """Return stride, padding, dilation and overhang as pairs. Raises ValueError for arguments that the page refuses.

    By construction: conv2d.refuses.rank, conv2d.batch.absent, conv2d.arguments.pairs, conv2d.refuses.stride,
    conv2d.refuses.padding, conv2d.refuses.dilation, conv2d.refuses.bias.
    """
    rank("x", x, 4)
    rank("weight", weight, 4)
    stride = pair("stride", stride, 1)
    dilation = pair("dilation", dilation, 1)
    padding, overhang = _borders(padding, weight.shape[2:], stride, dilation)
    (_, c, _, _), (o, cg, _, _) = x.shape, weight.shape
    if groups < 1 or c % groups or o % groups:  # [conv2d.refuses.groups]
        raise ValueError(f"groups={groups}: expected a divisor of C={c} and O={o}")
    if c != cg * groups:  # [conv2d.refuses.channels]
        raise ValueError(f"x of shape {x.shape}: expected C = {cg * groups} (weight {weight.shape}, groups={groups})")
    length("bias", bias, o)
    return stride, padding, dilation, overhang


class Conv2d(Module):
    """A convolution with its own weight and bias.

    Both are drawn from U(−1/√fan_in, 1/√fan_in), where fan_in = C/groups·KH·KW.

    By construction: conv2d.refuses.kernel-size, conv2d.init.range, conv2d.parameters.complete, conv2d.buffers.none,
    conv2d.state.own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = rng or np.random.default_rng()
        kh, kw = pair("kernel_size", kernel_size, 1)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups}: expected a divisor of {in_channels=} and {out_channels=}")
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        shape = (out_channels, in_channels // groups, kh, kw)
        limit = 1 / np.sqrt(np.prod(shape[1:]))
        self.weight = Parameter(rng.uniform(-limit, limit, shape).astype(dtype))
        self.bias = Parameter(rng.uniform(-limit, limit, out_channels).astype(dtype)) if bias else None

    def forward(self, x: Array) -> Array:
        """Return the convolution (N, O, OH, OW) of images x (N, C, H, W)."""
        return conv2d(x, self.weight.data, None if self.bias is None else self.bias.data, **self._arguments())

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback."""
        return self.forward(x), pullback(conv2d_vjp, x, self.weight, self.bias, **self._arguments())

    def _arguments(self):
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

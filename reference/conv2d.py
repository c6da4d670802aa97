"""Convolution of an image with a kernel (cross-correlation). Page: spec/conv2d.md"""

import numpy as np
from nnspec.reference.arguments import Array, Pair, Rows, length, like, pair, rank
from nnspec.reference.module import Module, Parameter, Pullback, pullback
from nnspec.reference.windows import output_size, pad, scatter, windows
from numpy.typing import DTypeLike


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,) -> (N, O, OH, OW), in x's dtype.

    Raises ValueError for whatever the page refuses (`conv2d.refuses.*`).
    """
    # [conv2d.input.unchanged] [conv2d.input.layout] operands are only read, by NumPy's own rules;
    # [conv2d.call.stateless] nothing is kept
    (sh, sw), (ph, pw), (dh, dw) = _check(x, weight, bias, stride, padding, dilation, groups)
    (n, c, h, w), (o, cg, kh, kw) = x.shape, weight.shape
    # [conv2d.output.size] [conv2d.refuses.window]
    oh, ow = output_size((h, w), (kh, kw), (sh, sw), (ph, pw), (dh, dw))
    # [conv2d.padding.zeros] zeros on both sides; then [conv2d.stride.step] every stride-th window
    # of [conv2d.dilation.gap] every dilation-th row and column: [conv2d.arguments.together] none asks about another
    view = windows(pad(x, (ph, pw)), (kh, kw), (sh, sw), (dh, dw))  # (N, C, KH, KW, OH, OW)
    kernels = weight.reshape(groups, o // groups, cg * kh * kw)
    y = np.empty((n, groups, o // groups, oh * ow), x.dtype)  # [conv2d.output.dtype] [conv2d.output.fresh]
    # The windows are copied as columns of a matrix, so few rows of a large image at a time that they stay in the
    # processor's cache. [conv2d.batch.independent] each image has its own columns, [conv2d.batch.empty] be there none;
    # [conv2d.special.value] each window has its own, and [conv2d.range.ends] nothing is added to its sum
    rows = max(1, 2**19 // (c * kh * kw * ow))
    for images in _batches(n, oh * ow):
        for r in range(0, oh, rows):
            some = view[images, ..., r : r + rows, :]
            columns = some.transpose(1, 2, 3, 0, 4, 5).reshape(groups, cg * kh * kw, -1)
            # [conv2d.output.value] [conv2d.kernel.orientation] the sum over C, KH and KW is a matrix product
            # [conv2d.groups.block-diagonal] [conv2d.special.groups] of group g's kernels with group g's channels only
            product = (kernels @ columns).reshape(groups, o // groups, len(some), -1)
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
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array | None]:
    """cotangent (N, O, OH, OW) of the result -> the gradients of x, weight and bias, each like its operand.

    That of an absent bias is None. Raises ValueError as `conv2d` does, and for a cotangent of another shape.
    """
    strides, paddings, dilations = _check(x, weight, bias, stride, padding, dilation, groups)
    size = output_size(x.shape[2:], weight.shape[2:], strides, paddings, dilations)
    like("cotangent", cotangent, (len(x), len(weight), *size))
    # [conv2d.gradient.unchanged] operands and cotangent are only read, [conv2d.gradient.layout] by NumPy's own rules
    dx = gradient_of_x(cotangent, x.shape, weight, strides, paddings, dilations, groups)
    dweight = gradient_of_weight(cotangent, x, weight.shape, strides, paddings, dilations, groups)
    dbias = None if bias is None else cotangent.sum((0, 2, 3))  # [conv2d.gradient.bias]
    return dx, dweight, dbias


def gradient_of_x(
    cotangent: Array, shape: tuple[int, ...], weight: Array, stride: Rows, padding: Rows, dilation: Rows, groups: int
) -> Array:
    """Of x, which has this shape. y = kernels @ columns, so kernelsᵀ times y's cotangent is that of the columns."""
    (n, c, h, w), (o, cg, kh, kw), (oh, ow), (ph, pw) = shape, weight.shape, cotangent.shape[2:], padding
    kernels = weight.reshape(groups, o // groups, cg * kh * kw).swapaxes(1, 2)
    padded = np.zeros((n, c, h + 2 * ph, w + 2 * pw), cotangent.dtype)
    for images in _batches(n, oh * ow):  # [conv2d.gradient.batch]
        dy = cotangent[images].swapaxes(0, 1).reshape(groups, o // groups, -1)
        columns = (kernels @ dy).reshape(c, kh, kw, -1, oh, ow).transpose(3, 0, 1, 2, 4, 5)
        # [conv2d.gradient.x] [conv2d.gradient.special] an element gets something from each of its windows, and no other
        scatter(columns, padded[images], stride, dilation)
    # [conv2d.gradient.like-operand] what fell on the padding is nobody's, and what no window reached stays 0
    return padded[:, :, ph : ph + h, pw : pw + w]


def gradient_of_weight(
    cotangent: Array, x: Array, shape: tuple[int, ...], stride: Rows, padding: Rows, dilation: Rows, groups: int
) -> Array:
    """Of the weight, which has this shape. y = kernels @ columns, so y's cotangent times columnsᵀ is the kernels'."""
    (o, cg, kh, kw), (oh, ow) = shape, cotangent.shape[2:]
    view = windows(pad(x, padding), (kh, kw), stride, dilation)[..., :oh, :ow]
    kernels = np.zeros((groups, o // groups, cg * kh * kw), x.dtype)  # [conv2d.gradient.empty]
    for images in _batches(len(x), oh * ow):
        columns = view[images].transpose(1, 2, 3, 0, 4, 5).reshape(groups, cg * kh * kw, -1)
        dy = cotangent[images].swapaxes(0, 1).reshape(groups, o // groups, -1)
        kernels += dy @ columns.swapaxes(1, 2)  # [conv2d.gradient.weight]
    return kernels.reshape(shape)


def _batches(n, pixels):
    """Few images at a time keep the columns small; so many small ones that the product is worth its start."""
    images = max(1, 400 // pixels)
    return [slice(i, i + images) for i in range(0, n, images)]


def _check(x, weight, bias, stride, padding, dilation, groups):
    rank("x", x, 4)  # [conv2d.refuses.rank]
    rank("weight", weight, 4)
    stride = pair("stride", stride, 1)  # [conv2d.refuses.stride]
    padding = pair("padding", padding, 0)  # [conv2d.refuses.padding]
    dilation = pair("dilation", dilation, 1)  # [conv2d.refuses.dilation]
    (_, c, _, _), (o, cg, _, _) = x.shape, weight.shape
    if groups < 1 or c % groups or o % groups:  # [conv2d.refuses.groups]
        raise ValueError(f"groups={groups}: expected a divisor of C={c} and O={o}")
    if c != cg * groups:  # [conv2d.refuses.channels]
        raise ValueError(f"x of shape {x.shape}: expected C = {cg * groups} (weight {weight.shape}, groups={groups})")
    length("bias", bias, o)  # [conv2d.refuses.bias]
    return stride, padding, dilation


class Conv2d(Module):
    """Convolution with its own weight and bias, both drawn from U(−1/√fan_in, 1/√fan_in), fan_in = C/groups·KH·KW."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
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
        """(N, C, H, W) -> (N, O, OH, OW)"""
        return conv2d(x, self.weight.data, None if self.bias is None else self.bias.data, **self._arguments())

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """forward(x), and its pullback."""
        return self.forward(x), pullback(conv2d_vjp, x, self.weight, self.bias, **self._arguments())

    def _arguments(self):
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

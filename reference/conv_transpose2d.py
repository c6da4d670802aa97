"""Transposed convolution: the gradient of a convolution for its input. Page: spec/conv_transpose2d.md"""

import numpy as np
from nnspec.reference.arguments import Array, Pair, length, like, pair, rank
from nnspec.reference.conv2d import conv2d, gradient_of_weight
from nnspec.reference.module import Module, Parameter, Pullback, pullback
from nnspec.reference.windows import scatter
from numpy.typing import DTypeLike


def definition(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """Return the transposed convolution, as `conv_transpose2d` does: the formula, in a form that is short and slow.

    Shapes and errors are those of `conv_transpose2d`.

    By construction: conv_transpose2d.arguments.defaults.
    """
    arguments = _check(x, weight, bias, stride, padding, output_padding, dilation, groups)
    (sh, sw), (ph, pw), _, (dh, dw) = arguments
    (n, c, h, w), (_, og, kh, kw) = x.shape, weight.shape
    oh, ow = _output_size((h, w), (kh, kw), *arguments)
    kernels = weight.reshape(groups, c // groups, og, kh, kw)
    whole = np.zeros((n, og * groups, oh + 2 * ph, ow + 2 * pw), x.dtype)
    for r, s in np.ndindex(h, w):  # every pixel adds the kernels, times its channels, to the elements around it
        pixel = x[:, :, r, s].reshape(n, groups, c // groups)
        stamp = np.einsum("ngc,gcoij->ngoij", pixel, kernels).reshape(n, og * groups, kh, kw)
        rows, columns = np.arange(kh) * dh + r * sh, np.arange(kw) * dw + s * sw
        whole[:, :, rows[:, None], columns] += stamp
    y = whole[:, :, ph : ph + oh, pw : pw + ow]
    return y if bias is None else y + bias[:, None, None]


def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """Return the transposed convolution of images with kernels.

    x has shape (N, C, H, W), weight (C, O/groups, KH, KW) and bias (O,); the result has shape (N, O, OH, OW) and x's
    dtype. Raises ValueError for arguments that the page refuses (`conv_transpose2d.refuses.*`).

    By construction: conv_transpose2d.arguments.together, conv_transpose2d.batch.independent,
    conv_transpose2d.batch.empty, conv_transpose2d.special.value, conv_transpose2d.special.groups,
    conv_transpose2d.range.ends, conv_transpose2d.law.adjoint, conv_transpose2d.output.fresh,
    conv_transpose2d.law.shift,
    conv_transpose2d.input.unchanged, conv_transpose2d.input.layout, conv_transpose2d.memory.in-bounds,
    conv_transpose2d.memory.all-written, conv_transpose2d.memory.alignment, conv_transpose2d.call.stateless,
    conv_transpose2d.call.neighbours, conv_transpose2d.output.dtype, conv_transpose2d.groups.block-diagonal,
    conv_transpose2d.stride.step, conv_transpose2d.dilation.gap, conv_transpose2d.output-padding.far-end,
    conv_transpose2d.bias.per-channel, conv_transpose2d.domain.outside.
    """
    arguments = _check(x, weight, bias, stride, padding, output_padding, dilation, groups)
    strides, (ph, pw), _, dilations = arguments
    (n, c, h, w), (_, og, kh, kw) = x.shape, weight.shape
    o = og * groups
    oh, ow = _output_size((h, w), (kh, kw), *arguments)
    # With the rows and columns that padding removes again: [conv_transpose2d.output-padding.computed]
    whole = np.zeros((n, o, oh + 2 * ph, ow + 2 * pw), x.dtype)
    # The first axis of weight belongs to x, and is summed over: [conv_transpose2d.kernel.channels]
    kernels = weight.reshape(groups, c // groups, og * kh * kw).swapaxes(1, 2)
    images = x.reshape(n, groups, c // groups, h * w)
    for k in range(n):  # one image at a time keeps the columns small
        # A matrix product for each group: [conv_transpose2d.output.value]
        columns = (kernels @ images[k]).reshape(1, o, kh, kw, h, w)
        # Add each element where a convolution would read it: [conv_transpose2d.kernel.orientation]
        scatter(columns, whole[k : k + 1], strides, dilations)
    # [conv_transpose2d.padding.crop]
    y = whole[:, :, ph : ph + oh, pw : pw + ow]
    if bias is not None:
        y += bias[:, None, None]
    return y


def conv_transpose2d_vjp(
    cotangent: Array,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array | None]:
    """Return the gradients of x, weight and bias, each like its operand; None for an absent bias.

    The cotangent of the result has shape (N, O, OH, OW). Raises ValueError as `conv_transpose2d` does, and for a
    cotangent of another shape.

    By construction: conv_transpose2d.gradient.frozen,
    conv_transpose2d.gradient.batch, conv_transpose2d.gradient.special,
    conv_transpose2d.gradient.empty, conv_transpose2d.gradient.unchanged, conv_transpose2d.gradient.layout,
    conv_transpose2d.gradient.bias, conv_transpose2d.gradient.like-operand.
    """
    arguments = _check(x, weight, bias, stride, padding, output_padding, dilation, groups)
    (n, _, h, w), (_, og, kh, kw) = x.shape, weight.shape
    like("cotangent", cotangent, (n, og * groups, *_output_size((h, w), (kh, kw), *arguments)))
    # The adjoint of the adjoint of a convolution is the convolution. With output_padding more windows may fit than x
    # has elements; drop the last ones, which no element belongs to.
    dx = conv2d(cotangent, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
    dx = dx[:, :, :h, :w]  # [conv_transpose2d.gradient.x]
    # Σ conv2d(g, weight) · x = Σ g · conv_transpose2d(x, weight), so that both have one gradient for weight:
    # [conv_transpose2d.gradient.weight]
    strides, paddings, _, dilations = arguments
    dweight = gradient_of_weight(x, cotangent, weight.shape, strides, paddings, dilations, groups)
    dbias = None if bias is None else cotangent.sum((0, 2, 3))
    return dx, dweight, dbias


def _output_size(size, kernel_size, stride, padding, output_padding, dilation):
    """Return (OH, OW). Raises ValueError if one of them is below 1.

    By construction: conv_transpose2d.output.size.
    """
    oh, ow = (
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, k, s, p, e, d in zip(size, kernel_size, stride, padding, output_padding, dilation, strict=True)
    )
    if min(oh, ow) < 1:  # [conv_transpose2d.refuses.output-size]
        raise ValueError(f"padding={padding} leaves an output of {(oh, ow)}: expected at least 1 in each direction")
    return oh, ow


def _check(x, weight, bias, stride, padding, output_padding, dilation, groups):
    """Return stride, padding, output_padding and dilation as pairs. Raises ValueError for what the page refuses.

    By construction: conv_transpose2d.refuses.rank, conv_transpose2d.batch.absent, conv_transpose2d.arguments.pairs,
    conv_transpose2d.refuses.stride, conv_transpose2d.refuses.padding, conv_transpose2d.refuses.output-padding,
    conv_transpose2d.refuses.dilation, conv_transpose2d.refuses.dilation-zero, conv_transpose2d.refuses.bias.
    """
    rank("x", x, 4)
    rank("weight", weight, 4)
    stride = pair("stride", stride, 1)
    padding = pair("padding", padding, 0)
    output_padding = pair("output_padding", output_padding, 0)
    dilation = pair("dilation", dilation, 1)
    limit = tuple(map(max, stride, dilation))
    # [conv_transpose2d.refuses.output-padding-limit]
    if any(e >= most for e, most in zip(output_padding, limit, strict=True)):
        raise ValueError(f"output_padding={output_padding}: expected less than stride or dilation, so below {limit}")
    (_, channels, _, _), (c, og, _, _) = x.shape, weight.shape
    if groups < 1 or c % groups:  # [conv_transpose2d.refuses.groups]
        raise ValueError(f"groups={groups}: expected a divisor of C={c}")
    if channels != c:  # [conv_transpose2d.refuses.channels]
        raise ValueError(f"x of shape {x.shape}: expected C = {c} (weight {weight.shape})")
    length("bias", bias, og * groups)
    return stride, padding, output_padding, dilation


class ConvTranspose2d(Module):
    """A transposed convolution with its own weight and bias.

    Both are drawn from U(−1/√fan_in, 1/√fan_in), where fan_in = O/groups·KH·KW.

    By construction: conv_transpose2d.refuses.kernel-size, conv_transpose2d.init.range,
    conv_transpose2d.parameters.complete, conv_transpose2d.buffers.none, conv_transpose2d.state.own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pair = 1,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = rng or np.random.default_rng()
        kh, kw = pair("kernel_size", kernel_size, 1)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups}: expected a divisor of {in_channels=} and {out_channels=}")
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.dilation, self.groups = dilation, groups
        shape = (in_channels, out_channels // groups, kh, kw)
        limit = 1 / np.sqrt(np.prod(shape[1:]))
        self.weight = Parameter(rng.uniform(-limit, limit, shape).astype(dtype))
        self.bias = Parameter(rng.uniform(-limit, limit, out_channels).astype(dtype)) if bias else None

    def forward(self, x: Array) -> Array:
        """Return the transposed convolution (N, O, OH, OW) of images x (N, C, H, W)."""
        return conv_transpose2d(x, self.weight.data, None if self.bias is None else self.bias.data, **self._arguments())

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback."""
        return self.forward(x), pullback(conv_transpose2d_vjp, x, self.weight, self.bias, **self._arguments())

    def _arguments(self):
        names = ("stride", "padding", "output_padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

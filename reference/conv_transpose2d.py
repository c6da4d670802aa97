"""Transposed convolution: what convolution sends back to its input. Page: spec/conv_transpose2d.md"""

import numpy as np
from nnspec.reference.arguments import Array, Pair, length, like, pair, rank
from nnspec.reference.conv2d import conv2d, gradient_of_weight
from nnspec.reference.module import Module, Parameter, Pullback, pullback
from nnspec.reference.windows import scatter
from numpy.typing import DTypeLike


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
    """x (N, C, H, W), weight (C, O/groups, KH, KW), bias (O,) -> (N, O, OH, OW), in x's dtype.

    Raises ValueError for whatever the page refuses (`conv_transpose2d.refuses.*`).
    """
    # [conv_transpose2d.input.unchanged] [conv_transpose2d.input.layout] operands are only read, by NumPy's own rules;
    # [conv_transpose2d.call.stateless] nothing is kept
    (sh, sw), (ph, pw), (eh, ew), (dh, dw) = _check(x, weight, bias, stride, padding, output_padding, dilation, groups)
    (n, c, h, w), (_, og, kh, kw) = x.shape, weight.shape
    o = og * groups
    oh, ow = _output_size((h, w), (kh, kw), (sh, sw), (ph, pw), (eh, ew), (dh, dw))
    # [conv_transpose2d.output-padding.computed] rows that padding crops are computed too: output_padding keeps some
    whole = np.zeros((n, o, oh + 2 * ph, ow + 2 * pw), x.dtype)  # [conv_transpose2d.output.dtype]
    # [conv_transpose2d.kernel.channels] weight's first axis is x's, and is summed over
    kernels = weight.reshape(groups, c // groups, og * kh * kw).swapaxes(1, 2)
    images = x.reshape(n, groups, c // groups, h * w)
    # One image at a time keeps the columns small; [conv_transpose2d.batch.independent] no image sees another.
    for k in range(n):  # [conv_transpose2d.batch.empty]
        # [conv_transpose2d.output.value] every element of x times every element of the kernel, summed over C,
        # [conv_transpose2d.groups.block-diagonal] group g's kernels with group g's channels only, be they NaN:
        # [conv_transpose2d.special.groups]
        columns = (kernels @ images[k]).reshape(1, o, kh, kw, h, w)
        # [conv_transpose2d.special.value] [conv_transpose2d.range.ends] only what an element itself has part in is
        # [conv_transpose2d.kernel.orientation] [conv_transpose2d.law.adjoint] added where convolution would read them,
        # [conv_transpose2d.stride.step] stride apart, [conv_transpose2d.dilation.gap] the kernel spread by dilation
        scatter(columns, whole[k : k + 1], (sh, sw), (dh, dw))
    # [conv_transpose2d.padding.crop] PH rows off above and below; [conv_transpose2d.output-padding.far-end]
    y = whole[:, :, ph : ph + oh, pw : pw + ow]  # [conv_transpose2d.arguments.together] [conv_transpose2d.output.fresh]
    if bias is not None:
        y += bias[:, None, None]  # [conv_transpose2d.bias.per-channel]
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
    """cotangent (N, O, OH, OW) of the result -> the gradients of x, weight and bias, each like its operand.

    That of an absent bias is None. Raises ValueError as `conv_transpose2d` does, and for a cotangent of another shape.
    """
    arguments = _check(x, weight, bias, stride, padding, output_padding, dilation, groups)
    (n, _, h, w), (_, og, kh, kw) = x.shape, weight.shape
    like("cotangent", cotangent, (n, og * groups, *_output_size((h, w), (kh, kw), *arguments)))
    # [conv_transpose2d.gradient.unchanged] [conv_transpose2d.gradient.layout] all is only read, as NumPy does
    # The adjoint of the adjoint: convolution takes the cotangent back to x. With output_padding it may have room for
    # more windows than x has elements; those are the last ones, and nobody's.
    # [conv_transpose2d.gradient.x] [conv_transpose2d.gradient.batch] [conv_transpose2d.gradient.special]
    dx = conv2d(cotangent, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)[:, :, :h, :w]
    # <conv2d(g, weight), x> is what both blocks have in common: its gradient by weight is the weight's in either
    # [conv_transpose2d.gradient.weight] [conv_transpose2d.gradient.empty]
    strides, paddings, _, dilations = arguments
    dweight = gradient_of_weight(x, cotangent, weight.shape, strides, paddings, dilations, groups)
    dbias = None if bias is None else cotangent.sum((0, 2, 3))  # [conv_transpose2d.gradient.bias]
    return dx, dweight, dbias  # [conv_transpose2d.gradient.like-operand]


def _output_size(size, kernel_size, stride, padding, output_padding, dilation):
    oh, ow = (  # [conv_transpose2d.output.size]
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, k, s, p, e, d in zip(size, kernel_size, stride, padding, output_padding, dilation, strict=True)
    )
    if min(oh, ow) < 1:  # [conv_transpose2d.refuses.output-size]
        raise ValueError(f"padding={padding} leaves an output of {(oh, ow)}: expected at least 1 in each direction")
    return oh, ow


def _check(x, weight, bias, stride, padding, output_padding, dilation, groups):
    rank("x", x, 4)  # [conv_transpose2d.refuses.rank]
    rank("weight", weight, 4)
    stride = pair("stride", stride, 1)  # [conv_transpose2d.refuses.stride]
    padding = pair("padding", padding, 0)  # [conv_transpose2d.refuses.padding]
    output_padding = pair("output_padding", output_padding, 0)  # [conv_transpose2d.refuses.output-padding]
    # [conv_transpose2d.refuses.dilation] [conv_transpose2d.refuses.dilation-zero]
    dilation = pair("dilation", dilation, 1)
    limit = tuple(map(max, stride, dilation))
    if any(e >= most for e, most in zip(output_padding, limit, strict=True)):
        # [conv_transpose2d.refuses.output-padding-limit]
        raise ValueError(f"output_padding={output_padding}: expected less than stride or dilation, so below {limit}")
    (_, channels, _, _), (c, og, _, _) = x.shape, weight.shape
    if groups < 1 or c % groups:  # [conv_transpose2d.refuses.groups]
        raise ValueError(f"groups={groups}: expected a divisor of C={c}")
    if channels != c:  # [conv_transpose2d.refuses.channels]
        raise ValueError(f"x of shape {x.shape}: expected C = {c} (weight {weight.shape})")
    length("bias", bias, og * groups)  # [conv_transpose2d.refuses.bias]
    return stride, padding, output_padding, dilation


class ConvTranspose2d(Module):
    """Transposed convolution with its own weight and bias, both drawn from U(−1/√fan_in, 1/√fan_in).

    Here fan_in = O/groups·KH·KW, that of the convolution whose adjoint this is.
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
        """(N, C, H, W) -> (N, O, OH, OW)"""
        return conv_transpose2d(x, self.weight.data, None if self.bias is None else self.bias.data, **self._arguments())

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """forward(x), and its pullback."""
        return self.forward(x), pullback(conv_transpose2d_vjp, x, self.weight, self.bias, **self._arguments())

    def _arguments(self):
        names = ("stride", "padding", "output_padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

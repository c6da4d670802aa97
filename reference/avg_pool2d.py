"""The mean of every window. Page: spec/avg_pool2d.md"""

from typing import NamedTuple

import numpy as np
from nnspec.reference.arguments import Array, Pair, like, pair, rank
from nnspec.reference.module import Module, Pullback, pullback
from nnspec.reference.windows import pad, pooled_size, scatter, windows


def avg_pool2d(
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,  # [avg_pool2d.padding.default]
    ceil_mode: bool = False,
    count_include_pad: bool = True,  # [avg_pool2d.divisor.default]
    divisor_override: int | None = None,
) -> Array:
    """x (N, C, H, W) -> (N, C, OH, OW), in x's dtype.

    Raises ValueError for whatever the page refuses (`avg_pool2d.refuses.*`).
    """
    # [avg_pool2d.input.unchanged] [avg_pool2d.input.layout] x is only read, through NumPy's strides;
    # [avg_pool2d.call.stateless] nothing is kept
    plan = _plan(x, kernel_size, stride, padding, ceil_mode, divisor_override)
    # [avg_pool2d.output.value] [avg_pool2d.padding.zeros] [avg_pool2d.arguments.together] [avg_pool2d.output.fresh]
    y = _sums(pad(x, plan.padding, 0, plan.overhang), plan) / _divisor(x, plan, count_include_pad, divisor_override)
    return y.astype(x.dtype, copy=False)  # [avg_pool2d.output.dtype]


def avg_pool2d_vjp(
    cotangent: Array,
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """cotangent (N, C, OH, OW) of the result -> the gradient of x: each window hands every element the same share.

    Raises ValueError as `avg_pool2d` does, and for a cotangent of another shape.
    """
    plan = _plan(x, kernel_size, stride, padding, ceil_mode, divisor_override)
    (n, c, h, w), (ph, pw) = x.shape, plan.padding
    like("cotangent", cotangent, (n, c, *plan.size))
    # [avg_pool2d.gradient.unchanged] [avg_pool2d.gradient.layout] the cotangent is only read, through NumPy's strides;
    # [avg_pool2d.gradient.divisor] the same divisor as on the way there
    share = (cotangent / _divisor(x, plan, count_include_pad, divisor_override)).astype(x.dtype, copy=False)
    dpadded = np.zeros(pad(x, plan.padding, 0, plan.overhang).shape, x.dtype)
    shares = np.broadcast_to(share[:, :, None, None], (n, c, *plan.kernel_size, *plan.size))
    # [avg_pool2d.gradient.x] where windows overlap, an element gets a share from each; [avg_pool2d.gradient.batch]
    # [avg_pool2d.gradient.channel] [avg_pool2d.gradient.empty] images and channels have windows of their own,
    # [avg_pool2d.gradient.special] and nothing reaches beyond a window
    scatter(shares, dpadded, plan.stride, (1, 1))
    # [avg_pool2d.gradient.like-operand] what fell on the padding is nobody's, and what no window reached stays 0
    return dpadded[:, :, ph : ph + h, pw : pw + w]


class _Plan(NamedTuple):
    """Where the windows lie."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    overhang: tuple[int, int]
    size: tuple[int, int]  # OH, OW


def _plan(x, kernel_size, stride, padding, ceil_mode, divisor_override):
    (kh, kw), (sh, sw), (ph, pw) = _check(x, kernel_size, stride, padding, divisor_override)
    # [avg_pool2d.ceil-mode.last-window] stride − 1 more rows hold one more window, and not a whole one too many:
    # [avg_pool2d.ceil-mode.exact] none where the windows fit exactly
    overhang = (sh - 1, sw - 1) if ceil_mode else (0, 0)
    # [avg_pool2d.output.size] [avg_pool2d.refuses.window] [avg_pool2d.ceil-mode.dropped]
    size = pooled_size(x.shape[2:], (kh, kw), (sh, sw), (ph, pw), (1, 1), overhang)
    return _Plan((kh, kw), (sh, sw), (ph, pw), overhang, size)


def _sums(padded, plan):
    (kh, kw), (oh, ow) = plan.kernel_size, plan.size
    # [avg_pool2d.kernel.rows-columns] [avg_pool2d.stride.step]
    view = windows(padded, (kh, kw), plan.stride, (1, 1))[..., :oh, :ow]
    # [avg_pool2d.sum.wide] float16 and bfloat16 are summed in float32
    total = np.zeros((*view.shape[:2], oh, ow), np.result_type(padded, np.float32))
    # One image at a time, so that it stays in the processor's cache: [avg_pool2d.batch.independent] no image sees
    # another, [avg_pool2d.channel.independent] and no channel
    for image, out in zip(view, total, strict=True):  # [avg_pool2d.batch.empty]
        for i, j in np.ndindex(kh, kw):  # a whole image per step is much faster than image.sum over short axes
            out += image[:, i, j]  # [avg_pool2d.window.local] [avg_pool2d.range.ends]
    return total


def _divisor(x, plan, count_include_pad, divisor_override):
    if divisor_override is not None:
        return divisor_override  # [avg_pool2d.divisor.override]
    # The sum of ones counts: [avg_pool2d.divisor.include-pad] [avg_pool2d.divisor.exclude-pad] the elements of the
    # padding where that is asked for, [avg_pool2d.divisor.overhang] those of the overhang never.
    ones = pad(np.ones((1, 1, *x.shape[2:]), x.dtype), plan.padding, 1 if count_include_pad else 0)
    return _sums(pad(ones, (0, 0), 0, plan.overhang), plan)


def _check(x, kernel_size, stride, padding, divisor_override):
    rank("x", x, 4)  # [avg_pool2d.refuses.rank]
    kernel_size = pair("kernel_size", kernel_size, 1)  # [avg_pool2d.refuses.kernel-size]
    # [avg_pool2d.stride.default] [avg_pool2d.refuses.stride]
    stride = kernel_size if stride is None else pair("stride", stride, 1)
    padding = pair("padding", padding, 0)  # [avg_pool2d.refuses.padding]
    if any(p > k // 2 for p, k in zip(padding, kernel_size, strict=True)):  # [avg_pool2d.refuses.padding-half]
        raise ValueError(f"padding={padding}: expected at most half of kernel_size={kernel_size}")
    if divisor_override == 0:  # [avg_pool2d.refuses.divisor]
        raise ValueError("divisor_override=0: expected another integer, or None")
    return kernel_size, stride, padding


class AvgPool2d(Module):
    """The mean of every window."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, OH, OW)"""
        return avg_pool2d(x, **self._arguments())

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """forward(x), and its pullback."""
        return self.forward(x), pullback(avg_pool2d_vjp, x, **self._arguments())

    def _arguments(self):
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
        return {name: getattr(self, name) for name in names}

"""The mean of every window. Page: spec/avg_pool2d.md"""

import numpy as np
from nnspec.reference.arguments import Array, Pair, pair, rank
from nnspec.reference.module import Module
from nnspec.reference.windows import pad, pooled_size, windows


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
    (kh, kw), (sh, sw), (ph, pw) = _check(x, kernel_size, stride, padding, divisor_override)
    # [avg_pool2d.ceil-mode.last-window] stride − 1 more rows hold one more window, and not a whole one too many:
    # [avg_pool2d.ceil-mode.exact] none where the windows fit exactly
    overhang = (sh - 1, sw - 1) if ceil_mode else (0, 0)
    # [avg_pool2d.output.size] [avg_pool2d.refuses.window] [avg_pool2d.ceil-mode.dropped]
    h, w = x.shape[2:]
    oh, ow = pooled_size((h, w), (kh, kw), (sh, sw), (ph, pw), (1, 1), overhang)

    def sums(images: Array) -> Array:
        # [avg_pool2d.kernel.rows-columns] [avg_pool2d.stride.step]
        view = windows(images, (kh, kw), (sh, sw), (1, 1))[..., :oh, :ow]
        # [avg_pool2d.sum.wide] float16 and bfloat16 are summed in float32
        total = np.zeros((*view.shape[:2], oh, ow), np.result_type(images, np.float32))
        # One image at a time, so that it stays in the processor's cache: [avg_pool2d.batch.independent] no image sees
        # another, [avg_pool2d.channel.independent] and no channel
        for image, out in zip(view, total, strict=True):  # [avg_pool2d.batch.empty]
            for i, j in np.ndindex(kh, kw):  # a whole image per step is much faster than image.sum over short axes
                out += image[:, i, j]  # [avg_pool2d.window.local]
        return total

    divisor: Array | int | None = divisor_override  # [avg_pool2d.divisor.override]
    if divisor is None:
        # The sum of ones counts: [avg_pool2d.divisor.include-pad] [avg_pool2d.divisor.exclude-pad] the elements of the
        # padding where that is asked for, [avg_pool2d.divisor.overhang] those of the overhang never.
        ones = pad(np.ones((1, 1, h, w), x.dtype), (ph, pw), 1 if count_include_pad else 0)
        divisor = sums(pad(ones, (0, 0), 0, overhang))
    # [avg_pool2d.output.value] [avg_pool2d.padding.zeros] [avg_pool2d.arguments.together] [avg_pool2d.output.fresh]
    y = sums(pad(x, (ph, pw), 0, overhang)) / divisor
    return y.astype(x.dtype, copy=False)  # [avg_pool2d.output.dtype]


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
        return avg_pool2d(
            x,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
            divisor_override=self.divisor_override,
        )

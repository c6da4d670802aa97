"""The mean of every window. Page: spec/avg_pool2d.md"""

import numpy as np
from nnspec.reference.arguments import Array, Pair, like, pair, rank
from nnspec.reference.module import Module, Pullback, pullback
from nnspec.reference.windows import Layout, pad, pooled_size, scatter


def definition(
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Return the mean of every window, as `avg_pool2d` does: the formula, in a form that is short and slow.

    x has shape (N, C, H, W) and the result (N, C, OH, OW). Raises ValueError as `avg_pool2d` does.
    """
    layout = _layout(x, kernel_size, stride, padding, ceil_mode, divisor_override)
    windows = layout.windows(x, 0)  # (N, C, KH, KW, OH, OW)
    total = windows.sum(axis=(2, 3), dtype=np.result_type(x, np.float32))
    return (total / _divisor(x, layout, count_include_pad, divisor_override)).astype(x.dtype)


def avg_pool2d(
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Return the mean of every window.

    x has shape (N, C, H, W); the result has shape (N, C, OH, OW) and x's dtype. Raises ValueError for arguments that
    the page refuses (`avg_pool2d.refuses.*`).

    By construction: avg_pool2d.arguments.together, avg_pool2d.window.local, avg_pool2d.range.ends,
    avg_pool2d.batch.independent, avg_pool2d.channel.independent, avg_pool2d.batch.empty, avg_pool2d.input.unchanged,
    avg_pool2d.input.layout, avg_pool2d.memory.in-bounds, avg_pool2d.memory.all-written, avg_pool2d.memory.alignment,
    avg_pool2d.call.stateless, avg_pool2d.call.neighbours, avg_pool2d.padding.default, avg_pool2d.arguments.defaults,
    avg_pool2d.divisor.default, avg_pool2d.output.fresh, avg_pool2d.output.dtype, avg_pool2d.domain.outside.
    """
    layout = _layout(x, kernel_size, stride, padding, ceil_mode, divisor_override)
    total = _sums(layout.windows(x, 0))  # [avg_pool2d.padding.zeros]
    # [avg_pool2d.output.value]
    y = total / _divisor(x, layout, count_include_pad, divisor_override)
    return y.astype(x.dtype, copy=False)


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
    """Return the gradient of x: each window passes the same share of its cotangent to each of its elements.

    The cotangent of the result has shape (N, C, OH, OW); the gradient is like x. Raises ValueError as `avg_pool2d`
    does, and for a cotangent of another shape.

    By construction: avg_pool2d.gradient.batch, avg_pool2d.gradient.channel, avg_pool2d.gradient.empty,
    avg_pool2d.gradient.special, avg_pool2d.gradient.unchanged, avg_pool2d.gradient.layout, avg_pool2d.gradient.divisor,
    avg_pool2d.gradient.like-operand.
    """
    layout = _layout(x, kernel_size, stride, padding, ceil_mode, divisor_override)
    (n, c, h, w), (ph, pw) = x.shape, layout.padding
    like("cotangent", cotangent, (n, c, *layout.output_size))
    share = cotangent / _divisor(x, layout, count_include_pad, divisor_override)
    share = share.astype(x.dtype, copy=False)
    dpadded = np.zeros(pad(x, layout.padding, 0, layout.overhang).shape, x.dtype)
    shares = np.broadcast_to(share[:, :, None, None], (n, c, *layout.kernel_size, *layout.output_size))
    # An element in several windows gets a share from each: [avg_pool2d.gradient.x]
    scatter(shares, dpadded, layout.stride, layout.dilation)
    # Drop the gradient of the padding. Elements in no window keep 0.
    return dpadded[:, :, ph : ph + h, pw : pw + w]


def _sums(windows: Array) -> Array:
    """Return the sum of each window of a view (N, C, KH, KW, OH, OW), in at least float32: (N, C, OH, OW)."""
    n, c, kh, kw, oh, ow = windows.shape
    total = np.zeros((n, c, oh, ow), np.result_type(windows, np.float32))  # [avg_pool2d.sum.wide]
    # One image at a time, so that it stays in the processor's cache. The sum runs over whole images, one kernel
    # element after the other, because NumPy's reductions over short axes are several times slower.
    for image, out in zip(windows, total, strict=True):
        for i, j in np.ndindex(kh, kw):
            out += image[:, i, j]
    return total


def _divisor(x: Array, layout: Layout, count_include_pad: bool, divisor_override: int | None) -> Array | int:
    """Return the number that the sum of each window is divided by: an int, or an array (1, 1, OH, OW)."""
    if divisor_override is not None:
        return divisor_override  # [avg_pool2d.divisor.override]
    # Count elements as a sum of ones. Ones in the padding count it, zeros do not:
    # [avg_pool2d.divisor.include-pad] [avg_pool2d.divisor.exclude-pad]
    ones = pad(np.ones((1, 1, *x.shape[2:]), x.dtype), layout.padding, 1 if count_include_pad else 0)
    ones = pad(ones, (0, 0), 0, layout.overhang)  # [avg_pool2d.divisor.overhang]
    return _sums(layout.windows_of_padded(ones))


def _layout(
    x: Array, kernel_size: Pair, stride: Pair | None, padding: Pair, ceil_mode: bool, divisor_override: int | None
) -> Layout:
    """Return where the windows lie. Raises ValueError for arguments that the page refuses.

    By construction: avg_pool2d.refuses.rank, avg_pool2d.batch.absent, avg_pool2d.refuses.kernel-size,
    avg_pool2d.arguments.pairs, avg_pool2d.refuses.stride, avg_pool2d.refuses.padding, avg_pool2d.ceil-mode.exact,
    avg_pool2d.output.size, avg_pool2d.refuses.window, avg_pool2d.ceil-mode.dropped, avg_pool2d.kernel.rows-columns,
    avg_pool2d.stride.step.
    """
    rank("x", x, 4)
    kernel_size = pair("kernel_size", kernel_size, 1)
    if stride is None:
        stride = kernel_size  # [avg_pool2d.stride.default]
    stride = pair("stride", stride, 1)
    padding = pair("padding", padding, 0)
    if any(p > k // 2 for p, k in zip(padding, kernel_size, strict=True)):  # [avg_pool2d.refuses.padding-half]
        raise ValueError(f"padding={padding}: expected at most half of kernel_size={kernel_size}")
    if divisor_override == 0:  # [avg_pool2d.refuses.divisor]
        raise ValueError("divisor_override=0: expected another integer, or None")
    (sh, sw), size, dilation = stride, x.shape[2:], (1, 1)
    # See max_pool2d for the overhang: [avg_pool2d.ceil-mode.last-window]
    overhang = (sh - 1, sw - 1) if ceil_mode else (0, 0)
    output_size = pooled_size(size, kernel_size, stride, padding, dilation, overhang)
    return Layout(kernel_size, stride, padding, dilation, overhang, output_size)


class AvgPool2d(Module):
    """The mean of every window, as a layer without parameters.

    By construction: avg_pool2d.parameters.none.
    """

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
        """Return the means (N, C, OH, OW) of images x (N, C, H, W)."""
        return avg_pool2d(x, **self._arguments())

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback."""
        return self.forward(x), pullback(avg_pool2d_vjp, x, **self._arguments())

    def _arguments(self):
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
        return {name: getattr(self, name) for name in names}

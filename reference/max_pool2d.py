"""The largest element of every window. Page: spec/max_pool2d.md"""

import numpy as np
from nnspec.reference.arguments import Array, Pair, like, pair, rank
from nnspec.reference.module import Module, Pullback
from nnspec.reference.windows import Layout, pooled_size


def definition(
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Return the maximum of every window, as `max_pool2d` does: the formula, in a form that is short and slow.

    x has shape (N, C, H, W) and the result (N, C, OH, OW). Raises ValueError as `max_pool2d` does.
    """
    layout = _layout(x, kernel_size, stride, padding, dilation, ceil_mode)
    windows = layout.windows(x, _least(x.dtype))  # (N, C, KH, KW, OH, OW)
    return windows.max(axis=(2, 3))


def max_pool2d(
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Return the maximum of every window.

    x has shape (N, C, H, W) and a floating-point or integer dtype; the result has shape (N, C, OH, OW) and x's dtype.
    Raises ValueError for arguments that the page refuses (`max_pool2d.refuses.*`).

    By construction: max_pool2d.window.all-padding, max_pool2d.value.minus-infinity, max_pool2d.arguments.together,
    max_pool2d.batch.independent, max_pool2d.channel.independent, max_pool2d.batch.empty, max_pool2d.input.unchanged,
    max_pool2d.input.layout, max_pool2d.memory.in-bounds, max_pool2d.memory.all-written, max_pool2d.memory.alignment,
    max_pool2d.call.stateless, max_pool2d.call.neighbours, max_pool2d.range.ends, max_pool2d.padding.default,
    max_pool2d.arguments.defaults, max_pool2d.output.dtype, max_pool2d.output.fresh, max_pool2d.law.anywhere,
    max_pool2d.domain.outside.
    """
    layout = _layout(x, kernel_size, stride, padding, dilation, ceil_mode)
    windows = layout.windows(x, _least(x.dtype))
    y = np.empty((*x.shape[:2], *layout.output_size), x.dtype)
    # One image at a time, so that it stays in the processor's cache. The maximum runs over whole images, one kernel
    # element after the other, because NumPy's reductions over short axes are several times slower.
    for image, out in zip(windows, y, strict=True):
        out[...] = image[:, 0, 0]
        for i, j in np.ndindex(layout.kernel_size):
            np.maximum(out, image[:, i, j], out=out)  # [max_pool2d.output.value] [max_pool2d.nan.propagates]
    return y


def max_pool2d_vjp(
    cotangent: Array,
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Return the gradient of x: each window passes its cotangent to the first, row by row, of its largest elements.

    The cotangent of the result has shape (N, C, OH, OW); the gradient has x's shape and the cotangent's dtype. Raises
    ValueError as `max_pool2d` does, and for a cotangent of another shape.

    By construction: max_pool2d.gradient.ceil-mode, max_pool2d.gradient.unchanged, max_pool2d.gradient.layout,
    max_pool2d.gradient.batch, max_pool2d.gradient.empty, max_pool2d.gradient.special.
    """
    chosen = first_maxima(x, kernel_size, stride, padding, dilation, ceil_mode)
    return pass_to(chosen, cotangent, x.shape)


def first_maxima(
    x: Array, kernel_size: Pair, stride: Pair | None, padding: Pair, dilation: Pair, ceil_mode: bool
) -> Array:
    """Return the place of the first maximum of every window, as an array of integers of shape (N, C, OH, OW).

    A place is an index into the flattened channel, row·W + column. x.size stands for a place in the padding, which
    only a window without any element of x has.

    By construction: max_pool2d.gradient.padding.
    """
    layout = _layout(x, kernel_size, stride, padding, dilation, ceil_mode)
    (n, c, h, w), (kh, kw), (oh, ow) = x.shape, layout.kernel_size, layout.output_size
    # The place of each element of each window: the windows of an image whose elements are their own places. In an
    # image of three columns, a window of 2×2 at the top left has the places 0, 1, 3 and 4.
    places = layout.windows(np.arange(h * w).reshape(1, 1, h, w), x.size).reshape(kh * kw, oh * ow)
    inside = (places < h * w).argmax(0).reshape(oh, ow)  # for each window the first element outside the padding
    maxima = np.empty((n, c, oh, ow), places.dtype)
    for image, out in zip(x, maxima, strict=True):
        elements = layout.windows(image[None], -np.inf)[0]  # (C, KH, KW, OH, OW)
        largest = np.full((c, oh, ow), -np.inf, x.dtype)
        # The number k = i·KW + j of the element that each window chooses so far. It starts outside the padding, since
        # −∞ in the image is not greater than −∞ in the padding: [max_pool2d.gradient.minus-infinity]
        chosen = np.full((c, oh, ow), inside, np.min_scalar_type(kh * kw))
        for k, (i, j) in enumerate(np.ndindex(kh, kw)):
            element = np.ascontiguousarray(elements[:, i, j])  # one copy, because both lines below read it
            # The product is k where the element is larger than all before it, and 0 elsewhere. k grows, so that the
            # maximum of the numbers is the last one that was strictly larger. This is faster than writing under a mask.
            np.maximum(chosen, np.multiply(element > largest, k, dtype=chosen.dtype), out=chosen)
            # [max_pool2d.gradient.ties] an equal element is not greater, and the first one stays chosen
            np.maximum(largest, element, out=largest)
        # Column by column of `places`, which are windows: the place of the element with the chosen number.
        out[...] = np.take_along_axis(places, chosen.reshape(c, oh * ow), 0).reshape(c, oh, ow)
    return maxima


def pass_to(chosen: Array, cotangent: Array, shape: tuple[int, ...]) -> Array:
    """Return an array of x's shape: the sum of the cotangents of the windows that chose each element, or 0.

    `chosen` comes from `first_maxima`. Raises ValueError for a cotangent of another shape than `chosen`.

    By construction: max_pool2d.gradient.channel, max_pool2d.gradient.like-operand.
    """
    like("cotangent", cotangent, chosen.shape)
    n, c, h, w = shape
    size = n * c * h * w
    # One more place, behind the last image, takes the cotangents of windows that lie in the padding and is cut off
    # at the end: [max_pool2d.gradient.all-padding]
    dx = np.zeros(size + 1, cotangent.dtype)
    first = h * w * np.arange(n * c).reshape(n, c, 1, 1)  # where each channel begins
    at = np.minimum(chosen + first, size)
    # `dx[at] += cotangent` would keep only one of several windows: [max_pool2d.gradient.overlap]
    np.add.at(dx, at.ravel(), cotangent.ravel())  # [max_pool2d.gradient.x]
    return dx[:-1].reshape(shape)


def _least(dtype: np.dtype) -> float:
    """Return the least value of the dtype, −∞ or the smallest integer. [max_pool2d.padding.never-wins]"""
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf  # [max_pool2d.dtype.integer]


def _layout(x: Array, kernel_size: Pair, stride: Pair | None, padding: Pair, dilation: Pair, ceil_mode: bool) -> Layout:
    """Return where the windows lie. Raises ValueError for arguments that the page refuses.

    By construction: max_pool2d.refuses.rank, max_pool2d.batch.absent, max_pool2d.refuses.kernel-size,
    max_pool2d.arguments.pairs, max_pool2d.refuses.stride, max_pool2d.refuses.padding, max_pool2d.refuses.dilation,
    max_pool2d.ceil-mode.exact, max_pool2d.output.size, max_pool2d.refuses.window, max_pool2d.ceil-mode.dropped,
    max_pool2d.kernel.rows-columns, max_pool2d.stride.step, max_pool2d.dilation.gap.
    """
    rank("x", x, 4)
    kernel_size = pair("kernel_size", kernel_size, 1)
    if stride is None:
        stride = kernel_size  # [max_pool2d.stride.default]
    stride = pair("stride", stride, 1)
    padding = pair("padding", padding, 0)
    dilation = pair("dilation", dilation, 1)
    if any(p > k // 2 for p, k in zip(padding, kernel_size, strict=True)):  # [max_pool2d.refuses.padding-half]
        raise ValueError(f"padding={padding}: expected at most half of kernel_size={kernel_size}")
    (sh, sw), size = stride, x.shape[2:]
    # stride − 1 more rows at the bottom give room for the window that begins in the image and reaches beyond it, and
    # for no window that fits without them: [max_pool2d.ceil-mode.last-window]
    overhang = (sh - 1, sw - 1) if ceil_mode else (0, 0)
    output_size = pooled_size(size, kernel_size, stride, padding, dilation, overhang)
    return Layout(kernel_size, stride, padding, dilation, overhang, output_size)


class MaxPool2d(Module):
    """The maximum of every window, as a layer without parameters.

    By construction: max_pool2d.parameters.none.
    """

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        dilation: Pair = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def forward(self, x: Array) -> Array:
        """Return the maxima (N, C, OH, OW) of images x (N, C, H, W)."""
        return max_pool2d(x, **self._arguments())

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback, which remembers the element that each window chose."""
        chosen = first_maxima(x, **self._arguments())
        return self.forward(x), lambda cotangent: pass_to(chosen, cotangent, x.shape)

    def _arguments(self):
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return {name: getattr(self, name) for name in names}

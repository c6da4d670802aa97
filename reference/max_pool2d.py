"""The largest element of every window. Page: spec/max_pool2d.md"""

import numpy as np
from nnspec.reference.arguments import Array, Pair, like, pair, rank
from nnspec.reference.module import Module, Pullback
from nnspec.reference.windows import pad, pooled_size, windows


def max_pool2d(
    x: Array,
    *,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,  # [max_pool2d.padding.default]
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """x (N, C, H, W) -> (N, C, OH, OW), in x's dtype, floating-point or integer.

    Raises ValueError for whatever the page refuses (`max_pool2d.refuses.*`).
    """
    # [max_pool2d.input.unchanged] [max_pool2d.input.layout] x is only read, through NumPy's strides;
    # [max_pool2d.call.stateless] nothing is kept
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = _check(x, kernel_size, stride, padding, dilation)
    n, c, h, w = x.shape
    # [max_pool2d.ceil-mode.last-window] stride − 1 more rows hold one more window, and not a whole one too many:
    # [max_pool2d.ceil-mode.exact] none where the windows fit exactly
    overhang = (sh - 1, sw - 1) if ceil_mode else (0, 0)
    # [max_pool2d.output.size] [max_pool2d.refuses.window] [max_pool2d.ceil-mode.dropped]
    oh, ow = pooled_size((h, w), (kh, kw), (sh, sw), (ph, pw), (dh, dw), overhang)
    # [max_pool2d.padding.never-wins] [max_pool2d.window.all-padding] no element is less than this,
    # [max_pool2d.dtype.integer] and x's dtype can hold it
    least = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    # [max_pool2d.kernel.rows-columns] [max_pool2d.stride.step] [max_pool2d.dilation.gap]: together they lay the windows
    # [max_pool2d.arguments.together] of the padded image
    view = windows(pad(x, (ph, pw), least, overhang), (kh, kw), (sh, sw), (dh, dw))[..., :oh, :ow]
    y = np.empty((n, c, oh, ow), x.dtype)  # [max_pool2d.output.dtype] [max_pool2d.output.fresh]
    # One image at a time, so that it stays in the processor's cache: [max_pool2d.batch.independent] no image sees
    # another, [max_pool2d.channel.independent] and no channel
    for image, out in zip(view, y, strict=True):  # [max_pool2d.batch.empty]
        # [max_pool2d.output.value] [max_pool2d.value.minus-infinity] the largest so far, from the first element on
        out[...] = image[:, 0, 0]
        for i, j in np.ndindex(kh, kw):  # a whole image per step is much faster than image.max over short axes
            np.maximum(out, image[:, i, j], out=out)  # [max_pool2d.nan.propagates] be it the first or the second
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
    """cotangent (N, C, OH, OW) of the result -> the gradient of x.

    Each window hands its cotangent to the first element, row by row, that is its maximum. Raises ValueError as
    `max_pool2d` does, and for a cotangent of another shape.
    """
    chosen = first_maxima(x, kernel_size, stride, padding, dilation, ceil_mode)
    return handed_back(cotangent, chosen, x.shape)


def first_maxima(
    x: Array, kernel_size: Pair, stride: Pair | None, padding: Pair, dilation: Pair, ceil_mode: bool
) -> Array:
    """(N, C, OH, OW): where in its channel, row by row, each window has its first maximum; x.size if in the padding."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = _check(x, kernel_size, stride, padding, dilation)
    n, c, h, w = x.shape
    overhang = (sh - 1, sw - 1) if ceil_mode else (0, 0)  # [max_pool2d.gradient.ceil-mode]
    oh, ow = pooled_size((h, w), (kh, kw), (sh, sw), (ph, pw), (dh, dw), overhang)

    def view(images: Array, border: float) -> Array:
        padded = pad(images, (ph, pw), border, overhang)
        return windows(padded, (kh, kw), (sh, sw), (dh, dw))[..., :oh, :ow]

    # where in its channel each element of each window lies, the windows side by side, [max_pool2d.gradient.padding]
    places = view(np.arange(h * w).reshape(1, 1, h, w), x.size).reshape(kh * kw, oh * ow)
    inside = (places < h * w).argmax(0).reshape(oh, ow)  # of each window, the first element that is no padding
    maxima = np.empty((n, c, oh, ow), places.dtype)
    # [max_pool2d.gradient.unchanged] x is only read, [max_pool2d.gradient.layout] through its strides
    for image, out in zip(x, maxima, strict=True):  # [max_pool2d.gradient.batch]
        elements = view(image[None], -np.inf)[0]  # (C, KH, KW, OH, OW)
        largest = np.full((c, oh, ow), -np.inf, x.dtype)
        # which of its elements each window chooses: [max_pool2d.gradient.minus-infinity] at first no padding
        chosen = np.full((c, oh, ow), inside, np.min_scalar_type(kh * kw))
        for k, (i, j) in enumerate(np.ndindex(kh, kw)):
            element = np.ascontiguousarray(elements[:, i, j])  # it is read twice
            # [max_pool2d.gradient.ties] a later element must be larger; its k is larger too, and so there is no need of
            # slow writes under a mask
            np.maximum(chosen, np.multiply(element > largest, k, dtype=chosen.dtype), out=chosen)
            np.maximum(largest, element, out=largest)
        out[...] = np.take_along_axis(places, chosen.reshape(c, oh * ow), 0).reshape(c, oh, ow)
    return maxima


def handed_back(cotangent: Array, chosen: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of an x of that shape: to the elements chosen, and to no other. [max_pool2d.gradient.x]"""
    like("cotangent", cotangent, chosen.shape)
    n, c, h, w = shape
    size = n * c * h * w
    # one place more, behind the last image: [max_pool2d.gradient.all-padding] what gets there is dropped
    dx = np.zeros(size + 1, cotangent.dtype)  # [max_pool2d.gradient.empty]
    at = chosen + h * w * np.arange(n * c).reshape(
        n, c, 1, 1
    )  # [max_pool2d.gradient.channel] [max_pool2d.gradient.special]
    # [max_pool2d.gradient.overlap] one may be chosen often
    np.add.at(dx, np.minimum(at, size).ravel(), cotangent.ravel())
    return dx[:-1].reshape(shape)  # [max_pool2d.gradient.like-operand]


def _check(x, kernel_size, stride, padding, dilation):
    rank("x", x, 4)  # [max_pool2d.refuses.rank]
    kernel_size = pair("kernel_size", kernel_size, 1)  # [max_pool2d.refuses.kernel-size]
    # [max_pool2d.stride.default] [max_pool2d.refuses.stride]
    stride = kernel_size if stride is None else pair("stride", stride, 1)
    padding = pair("padding", padding, 0)  # [max_pool2d.refuses.padding]
    dilation = pair("dilation", dilation, 1)  # [max_pool2d.refuses.dilation]
    if any(p > k // 2 for p, k in zip(padding, kernel_size, strict=True)):  # [max_pool2d.refuses.padding-half]
        raise ValueError(f"padding={padding}: expected at most half of kernel_size={kernel_size}")
    return kernel_size, stride, padding, dilation


class MaxPool2d(Module):
    """The largest element of every window."""

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
        """(N, C, H, W) -> (N, C, OH, OW)"""
        return max_pool2d(x, **self._arguments())

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """forward(x), and its pullback, for which each window's choice is kept."""
        chosen = first_maxima(x, **self._arguments())
        return self.forward(x), lambda cotangent: handed_back(cotangent, chosen, x.shape)

    def _arguments(self):
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return {name: getattr(self, name) for name in names}

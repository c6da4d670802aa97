"""The mean of every channel. Page: spec/global_avg_pool2d.md"""

import numpy as np
from nnspec.reference.arguments import Array, like, rank
from nnspec.reference.module import Module, Pullback, pullback


def global_avg_pool2d(x: Array) -> Array:
    """Return the mean of every channel of every image.

    x has shape (N, C, H, W); the result has shape (N, C) and x's dtype. Raises ValueError for an x of another rank and
    for images without elements (`global_avg_pool2d.refuses.*`).

    By construction: global_avg_pool2d.image.any-size, global_avg_pool2d.output.size, global_avg_pool2d.output.fresh,
    global_avg_pool2d.batch.independent, global_avg_pool2d.batch.empty, global_avg_pool2d.channel.independent,
    global_avg_pool2d.special.value, global_avg_pool2d.range.ends, global_avg_pool2d.input.unchanged,
    global_avg_pool2d.input.layout, global_avg_pool2d.memory.in-bounds, global_avg_pool2d.memory.all-written,
    global_avg_pool2d.memory.alignment, global_avg_pool2d.call.stateless, global_avg_pool2d.call.neighbours,
    global_avg_pool2d.refuses.rank, global_avg_pool2d.batch.absent, global_avg_pool2d.output.value,
    global_avg_pool2d.output.dtype, global_avg_pool2d.domain.outside.
    """
    rank("x", x, 4)
    if 0 in x.shape[2:]:  # [global_avg_pool2d.image.empty]
        raise ValueError(f"x of shape {x.shape}: expected H and W of at least 1")
    wide = np.result_type(x, np.float32)  # [global_avg_pool2d.sum.wide]
    y = x.mean(axis=(2, 3), dtype=wide)
    return y.astype(x.dtype, copy=False)


def global_avg_pool2d_vjp(cotangent: Array, x: Array) -> Array:
    """Return the gradient of x: every pixel gets the same share of the cotangent of its channel.

    The cotangent of the result has shape (N, C); the gradient is like x. Raises ValueError for an x of another rank
    and for a cotangent of another shape.

    By construction: global_avg_pool2d.gradient.batch, global_avg_pool2d.gradient.channel,
    global_avg_pool2d.gradient.special, global_avg_pool2d.gradient.empty, global_avg_pool2d.gradient.unchanged,
    global_avg_pool2d.gradient.layout, global_avg_pool2d.gradient.like-operand.
    """
    rank("x", x, 4)
    n, c, h, w = x.shape
    like("cotangent", cotangent, (n, c))
    share = (cotangent / (h * w)).astype(x.dtype, copy=False)  # [global_avg_pool2d.gradient.x]
    return np.repeat(share, h * w, axis=1).reshape(x.shape)


class GlobalAvgPool2d(Module):
    """The mean of every channel, as a layer without parameters.

    By construction: global_avg_pool2d.parameters.none.
    """

    def forward(self, x: Array) -> Array:
        """Return the means (N, C) of images x (N, C, H, W)."""
        return global_avg_pool2d(x)

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback."""
        return self.forward(x), pullback(global_avg_pool2d_vjp, x)

"""The mean of every channel. Page: spec/global_avg_pool2d.md"""

import numpy as np
from nnspec.reference.arguments import Array, like, rank
from nnspec.reference.module import Module, Pullback, pullback


def global_avg_pool2d(x: Array) -> Array:
    """x (N, C, H, W) -> (N, C), in x's dtype.

    Raises ValueError for an x of another rank and for images without elements (`global_avg_pool2d.refuses.*`).
    """
    # [global_avg_pool2d.input.unchanged] [global_avg_pool2d.input.layout] x is only read, through NumPy's strides;
    # [global_avg_pool2d.call.stateless] nothing is kept
    rank("x", x, 4)  # [global_avg_pool2d.refuses.rank]
    if 0 in x.shape[2:]:  # [global_avg_pool2d.image.empty]
        raise ValueError(f"x of shape {x.shape}: expected H and W of at least 1")
    # [global_avg_pool2d.output.value] [global_avg_pool2d.image.any-size] over all of H and W, whatever they are;
    # [global_avg_pool2d.batch.independent] [global_avg_pool2d.batch.empty] not over N,
    # [global_avg_pool2d.channel.independent] [global_avg_pool2d.special.value] and not over C;
    # [global_avg_pool2d.range.ends] and nothing is added to the sum;
    # [global_avg_pool2d.output.size] no axis of size 1 stays; [global_avg_pool2d.sum.wide] halves are summed in float32
    y = x.mean(axis=(2, 3), dtype=np.result_type(x, np.float32))  # [global_avg_pool2d.output.fresh]
    return y.astype(x.dtype, copy=False)  # [global_avg_pool2d.output.dtype]


def global_avg_pool2d_vjp(cotangent: Array, x: Array) -> Array:
    """cotangent (N, C) of the result -> the gradient of x: every pixel gets the same share of its channel's."""
    rank("x", x, 4)
    n, c, h, w = x.shape
    like("cotangent", cotangent, (n, c))
    # [global_avg_pool2d.gradient.unchanged] [global_avg_pool2d.gradient.layout] the cotangent is only read;
    # [global_avg_pool2d.gradient.x] [global_avg_pool2d.gradient.channel] each pixel gets a share of its own channel's
    # cotangent, [global_avg_pool2d.gradient.batch] in its own image: [global_avg_pool2d.gradient.special] of no other
    share = (cotangent / (h * w)).astype(x.dtype, copy=False)
    # [global_avg_pool2d.gradient.like-operand] [global_avg_pool2d.gradient.empty]
    return np.repeat(share, h * w, axis=1).reshape(x.shape)


class GlobalAvgPool2d(Module):
    """The mean of every channel."""

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C)"""
        return global_avg_pool2d(x)

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """forward(x), and its pullback."""
        return self.forward(x), pullback(global_avg_pool2d_vjp, x)

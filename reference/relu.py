"""ReLU: replace negative elements by zero. Page: spec/relu.md"""

import numpy as np
from nnspec.reference.arguments import Array, like
from nnspec.reference.module import Module, Pullback, pullback


def relu(x: Array) -> Array:
    """Return max(x, 0), element by element, in x's shape and dtype.

    By construction: relu.positive.kept, relu.negative.zero, relu.infinite.value, relu.integer.value,
    relu.batch.independent, relu.batch.empty, relu.output.dtype, relu.output.fresh, relu.input.unchanged,
    relu.input.layout, relu.memory.in-bounds, relu.memory.all-written, relu.memory.alignment, relu.call.stateless,
    relu.call.neighbours, relu.range.ends, relu.domain.outside.
    """
    # np.maximum keeps NaN, unlike np.fmax and np.where(x > 0, x, 0): [relu.nan.propagates]
    # It returns a scalar for an x without dimensions, hence asarray: [relu.output.size]
    return np.asarray(np.maximum(x, 0))


def relu_vjp(cotangent: Array, x: Array) -> Array:
    """Return the gradient of x: the cotangent where x is positive, and 0 elsewhere.

    x and the cotangent of the result have one shape. Raises ValueError for a cotangent of another shape.

    By construction: relu.gradient.positive, relu.gradient.negative, relu.gradient.range, relu.gradient.like-operand,
    relu.gradient.empty, relu.gradient.unchanged, relu.gradient.layout.
    """
    like("cotangent", cotangent, x.shape)
    # At x = 0 the gradient is 0: [relu.gradient.zero]
    # A choice and not a product, because 0 · ∞ is NaN: [relu.gradient.infinite-cotangent]
    return np.where(x > 0, cotangent, np.zeros((), cotangent.dtype))


class ReLU(Module):
    """ReLU as a layer without parameters.

    By construction: relu.parameters.none.
    """

    def forward(self, x: Array) -> Array:
        """Return max(x, 0), in x's shape."""
        return relu(x)

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback."""
        return self.forward(x), pullback(relu_vjp, x)

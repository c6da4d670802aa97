"""The rectifier: what is negative becomes zero. Page: spec/relu.md"""

import numpy as np
from nnspec.reference.arguments import Array, like
from nnspec.reference.module import Module, Pullback, pullback


def relu(x: Array) -> Array:
    """An array of any shape -> max(x, 0), element by element, in x's dtype."""
    # [relu.positive.kept] [relu.negative.zero] [relu.infinite.value] [relu.integer.value]
    # [relu.batch.independent] [relu.batch.empty] [relu.input.layout] element by element, whatever the shape
    # [relu.input.unchanged] [relu.call.stateless] not in place, and nothing is kept
    # [relu.nan.propagates] which np.maximum does, and np.fmax and np.where(x > 0, x, 0) do not
    # [relu.output.dtype] [relu.output.fresh] [relu.output.size] an array even where x has no dimensions
    return np.asarray(np.maximum(x, 0))


def relu_vjp(cotangent: Array, x: Array) -> Array:
    """cotangent of the result -> the gradient of x: the cotangent where x is positive, and 0 elsewhere."""
    like("cotangent", cotangent, x.shape)
    # [relu.gradient.unchanged] [relu.gradient.layout] [relu.gradient.like-operand] element by element, to a new array:
    # [relu.gradient.positive] [relu.gradient.negative] [relu.gradient.zero] not greater than 0 gets nothing,
    # [relu.gradient.empty] [relu.gradient.infinite-cotangent] and 0 is chosen, where a product with it may be NaN
    return np.where(x > 0, cotangent, np.zeros((), cotangent.dtype))


class ReLU(Module):
    """The rectifier as a layer; it has no parameters. [relu.parameters.none]"""

    def forward(self, x: Array) -> Array:
        """An array of any shape -> one of the same shape."""
        return relu(x)

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """forward(x), and its pullback."""
        return self.forward(x), pullback(relu_vjp, x)

"""The rectifier: what is negative becomes zero. Page: spec/relu.md"""

import numpy as np
from nnspec.reference.arguments import Array
from nnspec.reference.module import Module


def relu(x: Array) -> Array:
    """An array of any shape -> max(x, 0), element by element, in x's dtype."""
    # [relu.positive.kept] [relu.negative.zero] [relu.infinite.value] [relu.integer.value]
    # [relu.batch.independent] [relu.batch.empty] [relu.input.layout] element by element, whatever the shape
    # [relu.input.unchanged] [relu.call.stateless] not in place, and nothing is kept
    # [relu.nan.propagates] which np.maximum does, and np.fmax and np.where(x > 0, x, 0) do not
    # [relu.output.dtype] [relu.output.fresh] [relu.output.size] an array even where x has no dimensions
    return np.asarray(np.maximum(x, 0))


class ReLU(Module):
    """The rectifier as a layer; it has no parameters. [relu.parameters.none]"""

    def forward(self, x: Array) -> Array:
        """An array of any shape -> one of the same shape."""
        return relu(x)

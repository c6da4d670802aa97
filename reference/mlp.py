"""The multilayer perceptron: a stack of linear layers with a ReLU between them. Page: spec/mlp.md"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from nnspec.reference.arguments import Array
from nnspec.reference.linear import Linear, linear
from nnspec.reference.module import Module, Pullback
from nnspec.reference.relu import ReLU, relu
from numpy.typing import DTypeLike


def mlp(x: Array, *parameters: Array) -> Array:
    """x (..., I), then the weight (H, I) and the bias (H,) of each layer in order -> (..., O), in x's dtype.

    Raises ValueError for any operand that `linear` refuses.
    """
    weights, biases = parameters[::2], parameters[1::2]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = relu(linear(x, weight, bias))
    return linear(x, weights[-1], biases[-1])


class MLP(Module):
    """Linear layers `fc1`, `fc2`, … with a ReLU between each two of them."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int | Iterable[int],
        out_features: int,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = rng or np.random.default_rng()  # one for all layers, which would otherwise begin alike
        hidden = [*hidden_features] if isinstance(hidden_features, Iterable) else [hidden_features]
        sizes = [in_features, *hidden, out_features]  # [mlp.depth.any] [mlp.depth.none]
        self.depth = len(hidden)
        # [mlp.parameters.complete] [mlp.depth.distinct] [mlp.parameters.names] [mlp.depth.names]
        # [mlp.refuses.sizes] [mlp.refuses.hidden-sizes] [mlp.init.distinct]
        for n, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            setattr(self, f"fc{n}", Linear(inputs, outputs, dtype=dtype, rng=rng))
        self.relu = ReLU()

    def forward(self, x: Array) -> Array:
        """(..., I) -> (..., O)"""
        # As Linear and ReLU do: [mlp.refuses.rank] [mlp.refuses.features] [mlp.leading.any] [mlp.batch.empty]
        # [mlp.batch.independent] [mlp.input.layout] [mlp.input.unchanged] [mlp.call.stateless]
        *hidden, last = self._stack()
        for layer in hidden:  # [mlp.hidden.bias] [mlp.depth.bias]
            x = self.relu(layer(x))  # [mlp.hidden.relu] [mlp.depth.activated]
        # [mlp.output.value] [mlp.output.bias] [mlp.arguments.together] [mlp.output.size] [mlp.output.dtype]
        return last(x)  # [mlp.output.fresh] [mlp.output.linear] nothing follows the last layer

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback, which runs the pullbacks of the layers, the last one first."""
        # As Linear's and ReLU's: [mlp.gradient.like-operand] [mlp.gradient.layout] [mlp.gradient.unchanged]
        # [mlp.gradient.batch] [mlp.gradient.empty]
        *hidden, last = self._stack()
        pullbacks = []
        for layer in hidden:
            x, through_layer = layer.vjp(x)  # [mlp.gradient.first-weight] [mlp.gradient.first-bias]
            x, through_relu = self.relu.vjp(x)  # [mlp.gradient.hidden-relu]
            pullbacks += [through_layer, through_relu]
        y, through_last = last.vjp(x)  # [mlp.gradient.second-weight] [mlp.gradient.second-bias]

        def pull(cotangent: Array) -> Array:
            for through in reversed([*pullbacks, through_last]):
                cotangent = through(cotangent)  # [mlp.gradient.x] [mlp.depth.gradient]
            return cotangent

        return y, pull

    def _stack(self) -> list[Linear]:
        return [getattr(self, f"fc{n}") for n in range(1, self.depth + 2)]

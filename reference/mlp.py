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
    """Return linear layers of x with a ReLU between each two of them. This is the formula.

    x has shape (..., I). For each layer in order, `parameters` has a weight, (H, I) for the first, and a bias, (H,).
    The result has shape (..., O) and x's dtype. Raises ValueError for operands that `linear` refuses.
    """
    weights, biases = parameters[::2], parameters[1::2]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = relu(linear(x, weight, bias))
    return linear(x, weights[-1], biases[-1])


class MLP(Module):
    """Linear layers `fc1`, `fc2`, … with a ReLU between each two of them.

    By construction: mlp.buffers.none, mlp.state.own, mlp.refuses.sizes, mlp.refuses.hidden-sizes, mlp.init.distinct,
    mlp.depth.none, mlp.parameters.complete, mlp.depth.distinct, mlp.parameters.names, mlp.depth.names, mlp.init.range.
    """

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
        rng = rng or np.random.default_rng()  # one generator for all layers, so that they differ
        hidden = [*hidden_features] if isinstance(hidden_features, Iterable) else [hidden_features]
        sizes = [in_features, *hidden, out_features]  # [mlp.depth.any]
        self.depth = len(hidden)
        for n, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            setattr(self, f"fc{n}", Linear(inputs, outputs, dtype=dtype, rng=rng))
        self.relu = ReLU()

    def forward(self, x: Array) -> Array:
        """Return the output (..., O) of the last layer for x (..., I).

        By construction: mlp.arguments.together, mlp.refuses.rank, mlp.refuses.features, mlp.leading.any,
        mlp.hidden.bias, mlp.depth.bias, mlp.output.bias, mlp.output.size, mlp.output.dtype, mlp.output.fresh,
        mlp.batch.empty, mlp.batch.independent, mlp.input.layout, mlp.memory.in-bounds, mlp.memory.all-written,
        mlp.memory.alignment, mlp.input.unchanged, mlp.call.stateless, mlp.call.neighbours, mlp.depth.activated,
        mlp.output.value, mlp.law.permutation, mlp.domain.outside.
        """
        *hidden, last = self._stack()
        for layer in hidden:
            x = self.relu(layer(x))  # [mlp.hidden.relu]
        return last(x)  # nothing follows the last layer: [mlp.output.linear]

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback, which runs the pullbacks of the layers, the last one first.

        By construction: mlp.gradient.frozen,
        mlp.gradient.like-operand, mlp.gradient.batch, mlp.gradient.empty, mlp.gradient.layout,
        mlp.gradient.unchanged, mlp.gradient.first-weight, mlp.gradient.first-bias, mlp.gradient.hidden-relu,
        mlp.gradient.second-weight, mlp.gradient.second-bias, mlp.gradient.x.
        """
        *hidden, last = self._stack()
        pullbacks = []
        for layer in hidden:
            x, through_layer = layer.vjp(x)
            x, through_relu = self.relu.vjp(x)
            pullbacks += [through_layer, through_relu]
        y, through_last = last.vjp(x)

        def pull(cotangent: Array) -> Array:
            for through in reversed([*pullbacks, through_last]):
                cotangent = through(cotangent)  # [mlp.depth.gradient]
            return cotangent

        return y, pull

    def _stack(self) -> list[Linear]:
        return [getattr(self, f"fc{n}") for n in range(1, self.depth + 2)]

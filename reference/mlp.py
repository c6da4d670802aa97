"""The multilayer perceptron with one hidden layer. Page: spec/mlp.md"""

import numpy as np
from nnspec.reference.arguments import Array
from nnspec.reference.linear import Linear, linear
from nnspec.reference.module import Module, Pullback
from nnspec.reference.relu import ReLU, relu
from numpy.typing import DTypeLike


def mlp(x: Array, weight1: Array, bias1: Array, weight2: Array, bias2: Array) -> Array:
    """x (..., I), weight1 (H, I), bias1 (H,), weight2 (O, H), bias2 (O,) -> (..., O), in x's dtype.

    Raises ValueError for whatever `linear` refuses.
    """
    hidden = relu(linear(x, weight1, bias1))
    return linear(hidden, weight2, bias2)


class MLP(Module):
    """Linear, ReLU, Linear."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = rng or np.random.default_rng()  # one for both layers, which would else begin alike
        # [mlp.parameters.complete] [mlp.parameters.names] [mlp.refuses.sizes]
        self.fc1 = Linear(in_features, hidden_features, dtype=dtype, rng=rng)
        self.relu = ReLU()
        self.fc2 = Linear(hidden_features, out_features, dtype=dtype, rng=rng)

    def forward(self, x: Array) -> Array:
        """(..., I) -> (..., O)"""
        # As Linear and ReLU do: [mlp.refuses.rank] [mlp.refuses.features] [mlp.leading.any] [mlp.batch.empty]
        # [mlp.batch.independent] [mlp.input.layout] [mlp.input.unchanged] [mlp.call.stateless]
        hidden = self.fc1(x)  # [mlp.hidden.bias]
        hidden = self.relu(hidden)  # [mlp.hidden.relu]
        # [mlp.output.value] [mlp.output.bias] [mlp.arguments.together] [mlp.output.size] [mlp.output.dtype]
        return self.fc2(hidden)  # [mlp.output.fresh] [mlp.output.linear] nothing follows the second layer

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """forward(x), and its pullback: those of the layers, the last one first."""
        # As Linear's and ReLU's: [mlp.gradient.like-operand] [mlp.gradient.layout] [mlp.gradient.unchanged]
        # [mlp.gradient.batch] [mlp.gradient.empty]
        hidden, through_fc1 = self.fc1.vjp(x)  # [mlp.gradient.first-weight] [mlp.gradient.first-bias]
        hidden, through_relu = self.relu.vjp(hidden)  # [mlp.gradient.hidden-relu]
        y, through_fc2 = self.fc2.vjp(hidden)  # [mlp.gradient.second-weight] [mlp.gradient.second-bias]
        return y, lambda cotangent: through_fc1(through_relu(through_fc2(cotangent)))  # [mlp.gradient.x]

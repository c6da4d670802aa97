"""A weight matrix and a bias applied to the last axis. Page: spec/linear.md"""

import math

import numpy as np
from nnspec.reference.arguments import Array, length, like, rank
from nnspec.reference.module import Module, Parameter, Pullback, pullback
from numpy.typing import DTypeLike


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x (..., I), weight (O, I), bias (O,) -> (..., O), in x's dtype.

    Raises ValueError for whatever the page refuses (`linear.refuses.*`).
    """
    # [linear.input.unchanged] [linear.input.layout] [linear.call.stateless] operands are only read; nothing is kept
    _check(x, weight, bias)
    # [linear.output.value] [linear.weight.orientation] every row of weight meets the last axis of x,
    # [linear.leading.any] [linear.output.size] whatever comes before it:
    # [linear.special.value] [linear.batch.independent] row by row, [linear.batch.empty] none at all,
    # [linear.features.zero] or rows of nothing
    # [linear.features.one] weight stays a matrix, be it of one row or one column
    y = x @ weight.T  # [linear.output.dtype] [linear.output.fresh] a product is never a view
    if bias is not None:
        y += bias  # [linear.bias.per-feature] [linear.arguments.together] [linear.range.ends] nothing is added beside
    return y


def linear_vjp(
    cotangent: Array, x: Array, weight: Array, bias: Array | None = None
) -> tuple[Array, Array, Array | None]:
    """cotangent (..., O) of the result -> the gradients of x, weight and bias, each like its operand; None for None."""
    _check(x, weight, bias)
    like("cotangent", cotangent, (*x.shape[:-1], len(weight)))
    # [linear.gradient.unchanged] operands and cotangent are only read, [linear.gradient.layout] by NumPy's own rules
    dx = cotangent @ weight  # [linear.gradient.x] [linear.gradient.batch] [linear.gradient.special] row by row
    # Every row of x met the same weight and the same bias: their gradients are sums over all rows,
    # [linear.gradient.empty] be there none. [linear.gradient.features-zero] A −1 has no answer where a size is 0.
    n = math.prod(x.shape[:-1])
    rows = cotangent.reshape(n, len(weight))
    dweight = rows.T @ x.reshape(n, x.shape[-1])  # [linear.gradient.weight]
    dbias = None if bias is None else rows.sum(0)  # [linear.gradient.bias]
    return dx, dweight, dbias  # [linear.gradient.like-operand]


def _check(x, weight, bias):
    if x.ndim == 0:  # [linear.refuses.rank]
        raise ValueError("x of shape (): expected at least 1 dimension")
    rank("weight", weight, 2)
    if x.shape[-1] != weight.shape[1]:  # [linear.refuses.features]
        raise ValueError(f"x of shape {x.shape}: expected last size {weight.shape[1]} (weight {weight.shape})")
    length("bias", bias, weight.shape[0])  # [linear.refuses.bias] [linear.refuses.bias-broadcast]


class Linear(Module):
    """A linear layer with its own weight and bias, both drawn from U(−1/√in_features, 1/√in_features)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = rng or np.random.default_rng()
        if min(in_features, out_features) < 0:  # [linear.refuses.sizes]
            raise ValueError(f"{in_features=}, {out_features=}: expected at least 0")
        limit = 1 / np.sqrt(max(in_features, 1))  # [linear.init.range]
        # [linear.parameters.complete]
        self.weight = Parameter(rng.uniform(-limit, limit, (out_features, in_features)).astype(dtype))
        self.bias = Parameter(rng.uniform(-limit, limit, out_features).astype(dtype)) if bias else None

    def forward(self, x: Array) -> Array:
        """(..., I) -> (..., O)"""
        return linear(x, self.weight.data, None if self.bias is None else self.bias.data)

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """forward(x), and its pullback."""
        return self.forward(x), pullback(linear_vjp, x, self.weight, self.bias)

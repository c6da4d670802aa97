"""A weight matrix and a bias applied to the last axis. Page: spec/linear.md"""

import math

import numpy as np
from nnspec.reference.arguments import Array, length, like, rank
from nnspec.reference.module import Module, Parameter, Pullback, pullback
from numpy.typing import DTypeLike


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return the product of the last axis of x with each row of the weight, plus the bias.

    x has shape (..., I), weight (O, I) and bias (O,); the result has shape (..., O) and x's dtype. Raises ValueError
    for arguments that the page refuses (`linear.refuses.*`). This is the formula, and fast enough as it stands.

    By construction: linear.output.size, linear.output.dtype, linear.output.fresh, linear.arguments.together,
    linear.leading.any, linear.batch.independent, linear.batch.empty, linear.features.zero, linear.features.one,
    linear.special.value, linear.range.ends, linear.input.unchanged, linear.input.layout, linear.memory.in-bounds,
    linear.memory.all-written, linear.memory.alignment, linear.call.stateless, linear.call.neighbours,
    linear.weight.orientation, linear.domain.outside.
    """
    _check(x, weight, bias)
    y = x @ weight.T  # [linear.output.value]
    if bias is not None:
        y += bias  # [linear.bias.per-feature]
    return y


def linear_vjp(
    cotangent: Array, x: Array, weight: Array, bias: Array | None = None
) -> tuple[Array, Array, Array | None]:
    """Return the gradients of x, weight and bias, each like its operand; None for an absent bias.

    The cotangent of the result has shape (..., O). Raises ValueError as `linear` does, and for a cotangent of another
    shape.

    By construction: linear.gradient.frozen,
    linear.gradient.batch, linear.gradient.empty, linear.gradient.special,
    linear.gradient.like-operand, linear.gradient.unchanged, linear.gradient.layout, linear.gradient.x,
    linear.gradient.weight, linear.gradient.bias.
    """
    _check(x, weight, bias)
    like("cotangent", cotangent, (*x.shape[:-1], len(weight)))
    dx = cotangent @ weight
    # All rows of x share weight and bias, whose gradients are sums over all rows. Their number is computed, because
    # reshape cannot infer a −1 if another size is 0: [linear.gradient.features-zero]
    n = math.prod(x.shape[:-1])
    rows = cotangent.reshape(n, len(weight))
    dweight = rows.T @ x.reshape(n, x.shape[-1])
    dbias = None if bias is None else rows.sum(0)
    return dx, dweight, dbias


def _check(x, weight, bias):
    """Raise ValueError for arguments that the page refuses.

    By construction: linear.refuses.bias, linear.refuses.bias-broadcast.
    """
    if x.ndim == 0:  # [linear.refuses.rank]
        raise ValueError("x of shape (): expected at least 1 dimension")
    rank("weight", weight, 2)
    if x.shape[-1] != weight.shape[1]:  # [linear.refuses.features]
        raise ValueError(f"x of shape {x.shape}: expected last size {weight.shape[1]} (weight {weight.shape})")
    length("bias", bias, weight.shape[0])


class Linear(Module):
    """A linear layer with its own weight and bias, both drawn from U(−1/√in_features, 1/√in_features).

    By construction: linear.parameters.complete, linear.buffers.none, linear.state.own.
    """

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
        self.weight = Parameter(rng.uniform(-limit, limit, (out_features, in_features)).astype(dtype))
        self.bias = Parameter(rng.uniform(-limit, limit, out_features).astype(dtype)) if bias else None

    def forward(self, x: Array) -> Array:
        """Return the products (..., O) of x (..., I)."""
        return linear(x, self.weight.data, None if self.bias is None else self.bias.data)

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback."""
        return self.forward(x), pullback(linear_vjp, x, self.weight, self.bias)

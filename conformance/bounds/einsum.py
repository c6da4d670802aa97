"""The bound of a sum of products of several factors, contracted in any order.

However the factors are paired and partial sums taken, the computation is a tree of multiplications and additions. Take
one term of the sum, a product of p factors, and count the roundings that it passes through on its way up:

- multiplications: p − 1, one wherever two of its factors, or partial sums with them, meet;
- additions: at most k − 1, for k terms in all. By induction: a partial sum of kᵢ terms adds at most kᵢ − 1. Multiplied,
  partial sums of k₁ and k₂ terms have k₁·k₂ terms and (k₁ − 1) + (k₂ − 1) ≤ k₁·k₂ − 1 additions behind them; a sum of m
  such products, each of at least one term, adds m − 1 more, and has at least k₁·k₂ + m − 1 terms.

So each term carries at most n = k + p − 2 factors 1 + δ with |δ| ≤ u, and the result is off by at most
((1 + u)ⁿ − 1)·magnitude ≤ n·u·(1 + n·u)·magnitude while n·u ≤ 1. (The sharper n·u is proved for one sum of products of
two, not for sums within sums.) 1 + 2·n·u in place of 1 + n·u covers that the magnitude is itself a rounded sum.

The gradient of an operand is such a sum too: of products of the cotangent and the other operands.

A product that underflows is off by η/2, which the factors that follow, each at most L, may enlarge: in all by at most
k·(p − 1)·L^(p−2)·η/2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nnspec.conformance.bounds.arithmetic import Accuracy
from nnspec.conformance.bounds.rule import Array, Expected, Sums, exact, probable_terms, where_finite
from nnspec.reference.einsum import einsum, einsum_vjp


def sum_of_products(equation: str, *operands: Array) -> Expected:
    """Return the expected result of an einsum, with its bound."""
    return _bounded(operands, Sums(lambda *present: einsum(equation, *present), *operands))


def gradient(cotangent: Array, equation: str, *operands: Array, by: int) -> Expected:
    """Return the expected gradient for one operand, with its bound: the operand itself is no factor of it."""
    sums = Sums(lambda g, *present: einsum_vjp(g, equation, *present)[by], cotangent, *operands)
    return _bounded([cotangent, *operands[:by], *operands[by + 1 :]], sums)


def _bounded(factors: Sequence[Array], sums: Sums) -> Expected:
    dtype, others = factors[0].dtype, len(factors) - 1

    def of_roundings(n: Array, accuracy: Accuracy) -> Array:
        form = accuracy.of(dtype)
        largest = max(1.0, *(float(np.abs(a).max(initial=0)) for a in factors))
        underflow = sums.terms * others * largest ** max(0, others - 1) * form.eta / 2
        # what is stored in between: sums over labels that one factor has alone, and products of some of the factors
        intermediate = 2 * others * form.extra
        return (n * (form.u + form.u_wide) * (1 + 2 * roundings() * form.u) + intermediate) * sums.magnitude + underflow

    def roundings() -> Array:
        return np.where(sums.terms > 0, sums.terms + others - 1, 0)

    def bound(accuracy: Accuracy) -> Array:
        rounds_nowhere = exact(factors, sums.terms, sums.magnitude, accuracy.of(dtype))
        return where_finite(np.where(rounds_nowhere, 0.0, of_roundings(roundings(), accuracy)), sums.value)

    return Expected(sums.value, bound, probable=lambda accuracy: of_roundings(probable_terms(roundings()), accuracy))

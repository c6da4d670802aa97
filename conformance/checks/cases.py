"""What a check is run on: arrays and arguments by name, drawn so that the smallest failing case is small to read.

Hypothesis draws the configuration, and a kind and a seed for the data; NumPy fills the arrays. A failing case's data is
simplified afterwards (`minimise`), which is a hundred times faster than drawing every element.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from nnspec.conformance.case import Array, Case, whole


@dataclass(frozen=True)
class Data:
    """A source of values: `kind` says what they look like, `seed` which ones they are."""

    kind: str
    seed: int
    dtype: str
    rng: np.random.Generator

    def inputs(self, *shape: int) -> Array:
        """Values of an input: integers in [−8, 8] without 0, or N(0, 1)."""
        if self.kind == "integers":
            return self._integers(8, shape)
        return self.rng.standard_normal(shape).astype(self.dtype)

    def weights(self, *shape: int) -> Array:
        """Values of a weight whose first axis counts the outputs: in the one-hot draw a single ±2ʲ for each of them."""
        if self.kind != "one-hot":
            return self.inputs(*shape)
        weight = np.zeros((shape[0], int(np.prod(shape[1:]))), self.dtype)
        if weight.size:
            places = self.rng.integers(0, weight.shape[1], shape[0])
            weight[np.arange(shape[0]), places] = self.rng.choice([-1, 1], shape[0]) * 2.0 ** self.rng.integers(
                -3, 4, shape[0]
            )
        return weight.reshape(shape)

    def offsets(self, *shape: int) -> Array:
        """Values of a bias: zeros in the one-hot draw, where nothing but copies is wanted."""
        return np.zeros(shape, self.dtype) if self.kind == "one-hot" else self.inputs(*shape)

    def _integers(self, largest: int, shape: tuple[int, ...]) -> Array:
        return (self.rng.integers(1, largest + 1, shape) * self.rng.choice([-1, 1], shape)).astype(self.dtype)

    def cotangents(self, *shape: int) -> Array:
        """Values of a cotangent: in the one-hot draw a single ±2ʲ for each channel, so that gradients are copies."""
        if self.kind != "one-hot" or len(shape) < 2:
            return self.inputs(*shape)
        return np.moveaxis(self.weights(shape[1], shape[0], *shape[2:]), 0, 1).copy()


# -- strategies --------------------------------------------------------------------------------------------------------


def composite(function: Callable[..., Any]) -> Callable[..., st.SearchStrategy[Any]]:
    """`st.composite`, but the same arguments give the same strategy: to examine a new one takes Hypothesis longer than
    to draw from it. The arguments must be hashable."""
    return functools.lru_cache(maxsize=1000, typed=True)(st.composite(function))


def any_of(*values: Any) -> st.SearchStrategy[Any]:
    """`st.sampled_from`, made once for the same values, which must be hashable."""
    return _any_of(values, repr(values))


@functools.lru_cache(maxsize=1000)
def _any_of(values: tuple[Any, ...], _written: str) -> st.SearchStrategy[Any]:
    # as written they differ where they are equal: 1 from True, 0.0 from −0.0
    return st.sampled_from(values)


KINDS = ("integers", "one-hot", "normal")


@composite
def data(draw: st.DrawFn, dtype: str, kinds: tuple[str, ...] = KINDS) -> Data:
    """The three draws of the verdict rule: exact integers, one-hot weights on full mantissas, N(0, 1)."""
    kind, seed = draw(any_of(*kinds)), draw(st.integers(0, 2**16 - 1))
    return Data(kind, seed, dtype, np.random.default_rng(seed))


@composite
def with_cotangent(
    draw, cases: st.SearchStrategy[Case], shape: Callable[[Case], tuple[int, ...]], name: str = "cotangent"
):
    """A case and a cotangent of its result, whose shape `shape(case)` tells. Integers go with integers."""
    case = draw(cases)
    arrays = [a for a in case.arrays.values() if a is not None]
    whole = all(np.array_equal(a, np.rint(a)) for a in arrays)
    values = draw(data(arrays[0].dtype.name, ("integers",) if whole else ("normal", "one-hot")))
    return replace(case, arrays={**case.arrays, name: values.cotangents(*shape(case))})


@st.composite
def wholes(draw: st.DrawFn, *, of: Callable[..., st.SearchStrategy[Case]], **choices: Any):
    """Cases of the strategy `of` in whole numbers."""
    return whole(draw(of(**choices)))


@st.composite
def specials(
    draw: st.DrawFn,
    *,
    of: Callable[..., st.SearchStrategy[Case]],
    operand: str,
    values: tuple[float, ...] = (np.nan, np.inf, -np.inf),
    **choices: Any,
):
    """Cases of the strategy `of` in whole numbers, where elements of one operand are not finite."""
    case = whole(draw(of(**choices)))
    return case.but(**{operand: not_finite_somewhere(draw, np.array(case[operand]), values)})


def not_finite_somewhere(draw: st.DrawFn, a: Array, values: tuple[float, ...] = (np.nan, np.inf, -np.inf)) -> Array:
    """An infinity or NaN in up to three places."""
    value = draw(any_of(*values))
    for _ in range(draw(st.integers(1, 3))):
        a.flat[draw(st.integers(0, a.size - 1))] = value
    return a


def pairs(low: int, high: int) -> st.SearchStrategy[int | tuple[int, int]]:
    """(rows, columns), each in [low, high]; equal ones as a single int, which must mean the same."""
    return st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda p: p[0] if p[0] == p[1] else p)


# -- memory layouts ----------------------------------------------------------------------------------------------------


# -- smaller data ------------------------------------------------------------------------------------------------------

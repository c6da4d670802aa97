"""What a check is run on: arrays and arguments by name, drawn so that the smallest failing case is small to read.

A row of bytes decides the configuration, and the kind and the seed of the data. A failing case's data is
simplified afterwards (`minimise`), which is a hundred times faster than drawing every element.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.subject import Lacks
from nnspec.conformance.case import Array, Case, whole
from nnspec.conformance.drawing import Decision, Draw, any_of, composite, integers, some_of
from nnspec.conformance.formats import name_of
from nnspec.conformance.sizes import ROOM


class Data:
    """A source of values: `kind` says what they look like, `seed` which ones they are.

    The values of a case lie one behind the other in a table, which is faster than to seed a generator for each case.
    """

    def __init__(self, kind: str, seed: int, dtype: str) -> None:
        self.kind, self.seed, self.dtype = kind, seed, dtype
        self._at = 2 * seed % TABLE

    def inputs(self, *shape: int) -> Array:
        """Values of an input: integers in [−8, 8] without 0, or N(0, 1)."""
        return self._next("integers" if self.kind == "integers" else "normal", shape)

    def weights(self, *shape: int) -> Array:
        """Values of a weight whose first axis counts the outputs: in the one-hot draw a single ±2ʲ for each of them."""
        if self.kind != "one-hot":
            return self.inputs(*shape)
        weight = np.zeros((shape[0], math.prod(shape[1:])), self.dtype)
        if weight.size:
            weight[np.arange(shape[0]), self.below(weight.shape[1], shape[0])] = self._next("powers", (shape[0],))
        return weight.reshape(shape)

    def offsets(self, *shape: int) -> Array:
        """Values of a bias: zeros in the one-hot draw, where nothing but copies is wanted."""
        return np.zeros(shape, self.dtype) if self.kind == "one-hot" else self.inputs(*shape)

    def cotangents(self, *shape: int) -> Array:
        """Values of a cotangent: in the one-hot draw a single ±2ʲ for each channel, so that gradients are copies."""
        if self.kind != "one-hot" or len(shape) < 2:
            return self.inputs(*shape)
        return np.moveaxis(self.weights(shape[1], shape[0], *shape[2:]), 0, 1).copy()

    def below(self, limit: int, *shape: int) -> np.ndarray:
        """Whole numbers from 0 to limit − 1, each as likely as the others."""
        return self._next("uniform", shape, "int64") % limit

    def _next(self, kind: str, shape: tuple[int, ...], dtype: str = "") -> Array:
        """Copy the next values of a table."""
        table, size = _table(kind, dtype or self.dtype), math.prod(shape)
        if size > len(table) // 2:
            return np.resize(table[self._at | 1 :], shape)  # repeats after an odd number of elements
        if self._at + size > len(table):
            self._at = (self._at + size) % 1009
        begin, self._at = self._at, self._at + size
        return table[begin : self._at].reshape(shape).copy()


WHOLE = 4  # of so many cases with a long size, hardly more than one has data that rounds
TABLE = 2**17  # values of each kind


@functools.cache
def _table(kind: str, dtype: str) -> np.ndarray:
    """Values of one kind, the same ones in each dtype."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], TABLE)
    values: Array
    if kind == "normal":
        values = rng.standard_normal(TABLE)
    elif kind == "integers":
        values = signs * rng.integers(1, 9, TABLE)
    elif kind == "powers":
        values = signs * 2.0 ** rng.integers(-3, 4, TABLE)
    else:
        values = rng.integers(0, 2**40, TABLE)
    return values.astype(dtype)


KINDS = ("integers", "one-hot", "normal")


@composite
def data(draw: Draw, dtype: str, kinds: tuple[str, ...] = KINDS) -> Data:
    """The three draws of the verdict rule: exact integers, one-hot weights on full mantissas, N(0, 1)."""
    if draw.plan is not None and "integers" in kinds:  # mostly: the bound of a long sum may be larger than its terms
        several = math.prod(n for n in draw.plan.values() if n) <= ROOM  # of a whole layer, integers alone
        kinds = ("integers",) * (WHOLE - 1) * len(kinds) + kinds if several else ("integers",)
    # Each source of one case begins elsewhere, also where all bytes are 0.
    made = Data(kinds[draw.below(len(kinds))], draw.below(2**16) + 4099 * draw.used, dtype)
    draw.data = draw.data or (made.kind, made.seed)
    return made


@composite
def with_cotangent(draw, cases: Decision[Case], shape: Callable[[Case], tuple[int, ...]], name: str = "cotangent"):
    """A case and a cotangent of its result, whose shape `shape(case)` tells. Integers go with integers."""
    case = draw(cases)
    arrays = [a for a in case.arrays.values() if a is not None]
    whole = all((a == np.rint(a)).all() for a in arrays)
    values = draw(data(name_of(arrays[0].dtype), ("integers",) if whole else ("normal", "one-hot")))
    return case.holding({name: values.cotangents(*shape(case))})


@composite
def altered(draw: Draw, *, of: Callable[..., Decision[Case]], how: Callable[[Draw, Case], Any], **choices: Any):
    """A case, changed by `how(draw, case)`."""
    return how(draw, draw(of(**choices)))


@composite
def wholes(draw: Draw, *, of: Callable[..., Decision[Case]], **choices: Any):
    """Cases of the strategy `of` in whole numbers."""
    return whole(draw(of(**choices)))


@composite
def specials(
    draw: Draw,
    *,
    of: Callable[..., Decision[Case]],
    operand: str,
    values: tuple[float, ...] = (np.nan, np.inf, -np.inf),
    **choices: Any,
):
    """Cases of the strategy `of` in whole numbers, where elements of one operand are not finite."""
    case = whole(draw(of(**choices)))
    return case.but(**{operand: not_finite_somewhere(draw, np.array(case[operand]), values)})


@composite
def leaving_out(
    draw: Draw,
    *,
    of: Callable[..., Decision[Case]],
    arguments: tuple[str, ...],
    lacks: frozenset[str],
    defaults: tuple[str, ...],
    **choices: Any,
):
    """Cases of the strategy `of` that vary these arguments and leave out some of `defaults`, beside the others.

    An argument without a default is never left out.
    """
    domain = draw.domain
    having = [name for name in defaults if not {name, f"default of {name}"} & lacks]
    if not having:
        raise Lacks(f"{', '.join(defaults)} have no defaults")
    having = [n for n in having if n not in domain.conditions or domain.allows(n, domain.quantity(n).neutral)]
    if not having:
        raise OutOfDomain(domain.outside(next(name for name in defaults if name in domain.conditions)))
    left_out = draw(some_of(having, 1, len(having)))
    vary = tuple(name for name in arguments if name not in left_out)
    return draw(of(lacks=lacks, vary=vary, **choices)).without(*left_out)


def not_finite_somewhere(draw: Draw, a: Array, values: tuple[float, ...] = (np.nan, np.inf, -np.inf)) -> Array:
    """An infinity or NaN in up to three places."""
    value = draw(any_of(*values))
    for _ in range(draw(integers(1, 3))):
        a.flat[draw(integers(0, a.size - 1))] = value
    return a


def illegal_pairs(least: int, legal: int) -> Decision[Any]:
    """One of a pair's values, or both, below `least`; or three values where two are expected, each of them legal."""
    three = (legal, legal, legal), (legal, legal, legal + 1)
    return any_of(least - 1, (least - 1, least), (least, least - 1), (least, least - 2), *three, *three)

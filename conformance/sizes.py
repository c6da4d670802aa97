"""Regimes of sizes: small ones, those at the boundaries of tiles and vectors, and the layers of well-known networks.

A kernel works through its operands in tiles, in vectors and in blocks of threads. It goes wrong where a size is no
multiple of theirs, or is larger than one of them. Such a size is called long here. Few cases have more than one long
size, and all others are tiny, so that a large case takes about as long as a small one.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nnspec.conformance.drawing import LENGTH, Decision, Draw, Plan

REGIMES = {  # what the user asks for -> the regimes that cases are drawn from
    "small": ("small",),
    "boundary": ("small", "boundary"),
    "layers": ("small", "layers"),
    "all": ("small", "boundary", "layers"),
}
OF_PROFILE = {"quick": "small", "ci": "boundary", "deep": "boundary"}  # where the user asks for nothing
KINDS = ("value", "shape", "gradient")  # requirements of these kinds are judged on long sizes too

# Powers of two, which tiles, vectors and blocks of threads have as their sizes, less one and plus one; and 64, since
# there are fast paths for multiples alone
LADDER = (5, 7, 9, 15, 17, 31, 33, 63, 64, 65, 127, 129, 255, 257, 511, 513, 1023, 1025)
ROOM = 2**17  # the product of the sizes of a plan is at most this, so that a case takes milliseconds
AXES = 3  # long axes of one plan, at most
MORE = 3  # of so many plans, one has a second long axis
OF_EACH_FORM = 2  # cases of a sweep, each with another long axis
SIZE = 256  # decisions of a plan have fewer choices than this: each takes one byte


@dataclass(frozen=True)
class Sweep:
    """Which sizes of a block are long, and with which arguments.

    `names` says how the page calls a size. `axes` are the quantities that kernels work through in tiles: each is one
    size, or several sizes that are equal. `forms` are arguments as networks have them. `layers` are whole layers.
    """

    names: Mapping[str, str]
    axes: tuple[tuple[str, ...], ...]
    forms: tuple[Plan, ...] = ()
    layers: tuple[Plan, ...] = ()

    def plan(self, draw: Draw, ladder: Sequence[int]) -> Plan:
        """Draw arguments, and up to three long axes. Earlier choices are: no arguments, no axis, a smaller size."""
        form = draw.below(1 + len(self.forms))
        plan = dict(self.forms[form - 1]) if form else {}
        room = ROOM // math.prod(n for n in plan.values() if n)
        for limit in self._limits(ladder)[2::2]:
            axis, size = self.axes[draw.below(len(self.axes))], draw.below(limit) - limit + 1 + len(ladder)
            fits = [n for n in ladder[: max(size, 0)] if n ** len(axis) <= room]
            if fits:
                plan |= dict.fromkeys(axis, fits[-1])
                room //= fits[-1] ** len(axis)
        return plan

    def _limits(self, ladder: Sequence[int]) -> tuple[int, ...]:
        """Return the numbers of choices of a plan's decisions: of the form, then the axis and the size of each axis."""
        sizes = 1 + len(ladder)
        return 1 + len(self.forms), *(n for more in (1, MORE, MORE) for n in (len(self.axes), more * sizes))

    def rows(self, source: random.Random, ladder: Sequence[int]) -> Iterator[bytes]:
        """Yield rows that visit every axis with every size, the smaller ones first, and then every form."""
        places = [place for place, _ in enumerate(ladder, 1)]
        for (place, size), (number, axis) in itertools.product(enumerate(ladder, 1), enumerate(self.axes)):
            if size ** len(axis) <= ROOM:
                yield _row((0, number, place, 0, 0, 0, 0), self._limits(ladder), source)
        for form in OF_EACH_FORM * [*range(1, 1 + len(self.forms))]:
            decisions = form, source.randrange(len(self.axes)), source.choice(places)
            yield _row(decisions, self._limits(ladder), source)


SWEEPS: dict[str, Sweep] = {}  # stem -> what its strategy can make long


def _row(decisions: Sequence[int], limits: Sequence[int], source: random.Random) -> bytes:
    """Return a row that begins with these decisions, and goes on at random."""
    made = [-(-value * SIZE // limit) for value, limit in zip(decisions, limits, strict=False)]
    return bytes(made) + source.randbytes(LENGTH + len(limits) - len(made))


def ladder(tiles: Collection[int] = ()) -> tuple[int, ...]:
    """Return the sizes of a sweep for a subject that declares tiles of these sizes."""
    more = {n for tile in tiles for n in (tile - 1, tile, tile + 1, 2 * tile + 1) if n > 0}
    return tuple(sorted({*LADDER, *more}))


def planning(stem: str, regime: str, tiles: Collection[int] = ()) -> Decision[Plan | None]:
    """Return what decides on the long sizes of a case; None where all sizes are small."""
    if regime == "small":
        return Decision(lambda draw: None)
    sweep, sizes = SWEEPS[stem], ladder(tiles)
    if regime == "layers":
        return Decision(lambda draw: sweep.layers[draw.below(len(sweep.layers))])
    return Decision(lambda draw: sweep.plan(draw, sizes))


def rows(stem: str, regime: str, seeded: int, count: int, tiles: Collection[int] = ()) -> Iterator[bytes]:
    """Yield the rows of a check that carries the sweep: all of it, then random ones, `count` at least.

    In the regime of layers every layer is visited once.
    """
    source, sweep = random.Random(seeded), SWEEPS[stem]
    if regime == "layers":
        yield from (_row((layer,), (len(sweep.layers),), source) for layer in range(len(sweep.layers)))
        return
    swept = [*sweep.rows(source, ladder(tiles))]
    yield from swept
    yield from (source.randbytes(len(swept[0])) for _ in range(count))


def regimes(asked: str, profile: str) -> tuple[str, ...]:
    """Return the regimes beside "small" that cases are drawn from."""
    return REGIMES[asked or OF_PROFILE[profile]][1:]


def arguments(**given: int | tuple[int, int]) -> Plan:
    """Return the plan that has these arguments, each a pair or a number for both axes, and every other neutral."""
    neutral = {"kernel": 1, "stride": 1, "padding": 0, "dilation": 1}
    both = {name: (value, value) if isinstance(value, int) else value for name, value in {**neutral, **given}.items()}
    sizes = {f"{name}{axis}": value for name in neutral for axis, value in enumerate(both[name])}
    return sizes | {f"{name}0": both[name][0] for name in given if name not in neutral}

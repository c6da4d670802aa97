"""How cases are drawn: from a row of random bytes. Each decision reads the next byte or two.

To draw each decision from Hypothesis takes longer than to call the subject. A smaller byte is an earlier choice, and 0
is the first choice, so that a failing case becomes smaller as its bytes do. The same bytes give the same decisions for
each dtype. Decisions are written as Hypothesis's strategies are.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

LENGTH = 80  # bytes of a case: more than its decisions take

T = TypeVar("T")
Made = tuple[int, int, int, int]  # a decision: the bytes from … to …, the limit, and the number below it


class Draw:
    """Bytes, one or two of which are read for each decision. Those behind the last byte are 0.

    `sizes` is the regime of sizes, a key of REGIMES. `data` is the kind and the seed of the first data that was drawn.
    """

    def __init__(self, values: bytes) -> None:
        self.values, self.used = values, 0
        self.made: list[Made] = []
        self.sizes = "small"
        self.data: tuple[str, int] | None = None

    def __call__(self, decision: Decision[T]) -> T:
        """Decide."""
        return decision.make(self)

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to limit − 1; the smaller the byte, the smaller the number."""
        begin, size = self.used, 1 if limit <= 256 else 2
        self.used = end = begin + size
        read = int.from_bytes(self.values[begin:end].ljust(size, b"\0"), "big")
        value = (read * limit) >> 8 * size
        self.made.append((begin, end, limit, value))
        return value

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers that were decided: where these are equal, so are the cases."""
        return tuple(value for *_, value in self.made)


@dataclass(frozen=True)
class Decision(Generic[T]):
    """A decision, or several, that `make` makes."""

    make: Callable[[Draw], T]

    def map(self, change: Callable[[T], Any]) -> Decision[Any]:
        """Return the decision whose result is changed."""
        return Decision(lambda draw: change(self.make(draw)))


def composite(function: Callable[..., T]) -> Callable[..., Decision[T]]:
    """Make a function of `draw` and keywords a function of the keywords that returns a decision."""

    @functools.wraps(function)
    def decided(*given: Any, **keywords: Any) -> Decision[T]:
        return Decision(lambda draw: function(draw, *given, **keywords))

    return decided


def integers(low: int, high: int) -> Decision[int]:
    """A whole number from low to high."""
    return Decision(lambda draw: low + draw.below(high - low + 1))


def booleans() -> Decision[bool]:
    """False or True."""
    return Decision(lambda draw: draw.below(2) == 1)


def any_of(*values: T) -> Decision[T]:
    """One of the values."""
    return Decision(lambda draw: values[draw.below(len(values))])


# A regime of sizes: makes a number of what `of` names, where a few `small` numbers are legal.
Regime = Callable[[Draw, str, tuple[int, ...]], int]
REGIMES: dict[str, Regime] = {"small": lambda draw, of, small: small[draw.below(len(small))]}


def dimension(*small: int, of: str = "axis") -> Decision[int]:
    """A size. `of` says of what: an axis, the windows of one, a kernel, stride, padding, dilation, or groups.

    Every block draws its sizes here, so that a regime can choose others.
    """
    return Decision(lambda draw: REGIMES[draw.sizes](draw, of, small))


SIZES = (1, 1, 2, 2, 3, 3, 4, 5)  # of an axis, or numbers of its windows: small, and 5 in one case of eight


def one_of(*decisions: Decision[Any]) -> Decision[Any]:
    """What one of the decisions gives."""
    return Decision(lambda draw: draw(decisions[draw.below(len(decisions))]))


MORE_OFTEN = any_of(False, True, True)


def tuples(*decisions: Decision[Any]) -> Decision[tuple[Any, ...]]:
    """What each of the decisions gives."""
    return Decision(lambda draw: tuple(draw(one) for one in decisions))


def pairs(low: int, high: int, of: str = "axis") -> Decision[int | tuple[int, int]]:
    """(rows, columns), each a dimension from low to high; equal ones as a single int, which must mean the same."""
    one = dimension(*range(low, high + 1), of=of)

    def make(draw: Draw) -> int | tuple[int, int]:
        rows, columns = draw(one), draw(one)
        return rows if rows == columns else (rows, columns)

    return Decision(make)


def lists(of: Decision[T], min_size: int, max_size: int) -> Decision[list[T]]:
    """From min_size to max_size values."""
    return Decision(lambda draw: [draw(of) for _ in range(min_size + draw.below(max_size - min_size + 1))])


def some_of(values: Iterable[T], min_size: int, max_size: int) -> Decision[list[T]]:
    """From min_size to max_size of the values, no value twice, in any order."""

    def make(draw: Draw) -> list[T]:
        left = list(values)
        size = min_size + draw.below(min(max_size, len(left)) - min_size + 1)
        return [left.pop(draw.below(len(left))) for _ in range(size)]

    return Decision(make)


def permutations(values: Sequence[T]) -> Decision[list[T]]:
    """All of the values, in any order."""
    return some_of(values, len(values), len(values))


def reaches(decision: Decision[T], corner: Callable[[T], Any], share: float = 0.05, cases: int = 1000) -> None:
    """Raise AssertionError unless at least this share of cases reaches a corner.

    The cases are always the same. A check of 20 cases is likely to miss what a smaller share of them reaches.
    """
    source = random.Random(0)
    found = sum(bool(corner(decision.make(Draw(source.randbytes(LENGTH))))) for _ in range(cases))
    assert found >= share * cases, f"{found} of {cases} cases reach the corner, expected {share:.0%}"

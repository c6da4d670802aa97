"""How cases are drawn: from a row of random bytes. Each decision reads the next byte or two.

To draw each decision from Hypothesis takes longer than to call the subject. A smaller byte is an earlier choice, and 0
is the first choice, so that a failing case becomes smaller as its bytes do. The same bytes give the same decisions for
each dtype. Decisions are written as Hypothesis's strategies are.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.domains import EVERYTHING

LENGTH = 80  # bytes of a case: more than its decisions take

T = TypeVar("T")
Made = tuple[int, int, int, int]  # a decision: the bytes from … to …, the limit, and the number below it
# Sizes that a case must have, by what they are sizes of and, from 0, by how often one of the kind was drawn before:
# {"windows1": 33} are 33 windows in a row.
Plan = Mapping[str, int]


class Draw:
    """Bytes, one or two of which are read for each decision. Those behind the last byte are 0.

    `plan` has the sizes that the case must have; where it is None, every size is small. What is `fixed` goes before it.
    `planned` has those of them that the case has or, if something may be fixed, all sizes of the case. `domain` holds
    the sizes and arguments that the subject claims, and `written` the arguments that it lacks because they have one
    value in its domain. `data` is the kind and the seed of the first data that was drawn.
    """

    def __init__(self, values: bytes, fixed: Plan | None = None) -> None:
        self.values, self.used = values, 0
        self.made: list[Made] = []
        self.plan: Plan | None = None
        self.fixed = fixed
        self.planned: dict[str, int] = {}
        self.domain = EVERYTHING
        self.written: frozenset[str] = frozenset()
        self.data: tuple[str, int] | None = None
        self._drawn: Counter[str] = Counter()

    def __call__(self, decision: Decision[T]) -> T:
        """Decide."""
        return decision.make(self)

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to limit − 1; the smaller the byte, the smaller the number."""
        begin = self.used
        if limit <= 256:  # nearly always, and more often than anything else here
            end = begin + 1
            value = (self.values[begin] * limit) >> 8 if begin < len(self.values) else 0
        else:
            end = begin + 2
            value = (int.from_bytes(self.values[begin:end].ljust(2, b"\0"), "big") * limit) >> 16
        self.used = end
        self.made.append((begin, end, limit, value))
        return value

    def size(self, of: str, most: int | None, least: int) -> int | None:
        """Return the next size of a kind as it is fixed, or as the plan has it; None where it is to be drawn.

        It is made as large as `least`, and no larger than `most`.
        """
        key = f"{of}{self._drawn[of]}"
        self._drawn[of] += 1
        size = (self.fixed or {}).get(key, (self.plan or {}).get(key))
        if size is not None:
            size = self.planned[key] = max(least, size if most is None else min(size, most))
        return size

    def drawn(self, of: str, size: int) -> int:
        """Return the last size of a kind, which was drawn since nothing fixed or planned it."""
        if self.fixed is not None:
            self.planned[f"{of}{self._drawn[of] - 1}"] = size
        return size

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers that were decided: where these are equal, so are the cases."""
        return tuple(value for *_, value in self.made)


@dataclass(eq=False, slots=True)
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


TINY = 3  # sizes beside those of a plan are no larger
PLAIN = ("stride", "padding", "dilation", "groups")  # what is mostly at its least beside the sizes of a plan


def dimension(
    *small: int, of: str = "axis", most: int | None = None, name: str = "", times: int = 1, equal: int = 0
) -> Decision[int]:
    """A size. `of` says of what, such as an axis, the windows of one, a kernel, or a stride.

    Every block draws its sizes here, so that a plan can give others: any from 1, or from the least of `small`, up to
    `most`. Beside those of a plan, sizes are tiny. `name` is the quantity for which a domain can be declared, and
    `times` the size a part of it. `equal` is the size where the domain says that it equals another.
    """

    def make(draw: Draw) -> int:
        condition = draw.domain.conditions.get(name)
        if condition is not None and condition.equal:
            return legal(draw, name, equal)
        numbers = small if condition is None else draw.domain.numbers(name, small, times) or (0,)
        if draw.plan is None:
            n = numbers[draw.below(len(numbers))]
            if draw.fixed is not None:
                size = draw.size(of, most, min(numbers))
                n = draw.drawn(of, n) if size is None else size
        else:
            tiny = _tiny(numbers, of)
            size = draw.size(of, most, tiny[0])
            n = draw.drawn(of, tiny[draw.below(len(tiny))]) if size is None else size
        return legal(draw, name, n, times)

    return Decision(make)


@functools.cache
def _tiny(small: tuple[int, ...], of: str) -> list[int]:
    """Return what is drawn beside the sizes of a plan, the least first."""
    few = sorted({n for n in small if n <= TINY and (n or of == "padding")}) or [min(small)]
    return [few[0]] * 2 * (len(few) - 1) + few if of in PLAIN else few


def planned(least: int, of: str) -> Decision[int]:
    """A size as the plan has it, else the least one."""
    return Decision(lambda draw: least if draw.plan is None else draw.size(of, None, least) or least)


def legal(draw: Draw, name: str, n: int, times: int = 1, least: int = 0) -> int:
    """Return the number that the domain allows a quantity in place of n: one from `least` on, times `times`.

    Raises OutOfDomain where there is none.
    """
    if name not in draw.domain.conditions:
        return n
    found = draw.domain.nearest(name, n, times, least)
    if found is None:
        raise OutOfDomain(draw.domain.outside(name))
    return found


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

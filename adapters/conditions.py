"""Conditions: which values a quantity may have, as a file, the command line and JSON write them.

    3, (3, 3), one_of(1, 2), multiple_of(16) & at_most(512), at_least(8), between(64, 128), square(), equal_to("H")

In JSON a condition is a value, a list of values, or an object of such calls: {"multiple_of": 16, "at_most": 512}.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class DomainError(ValueError):
    """A domain that cannot be declared; the message says what is expected."""


@dataclass(frozen=True)
class Condition:
    """Which values a quantity may have: one of `values` if there are any, multiples, in a range, or equal to another.

    A condition on a pair with a range or multiples holds for its rows and for its columns. `alike`: they are equal.
    """

    values: tuple[Any, ...] | None = None
    multiple: int = 1
    least: int | None = None
    most: int | None = None
    equal: str = ""  # the name of another quantity
    alike: bool = False  # whether a pair has as many rows as columns
    text: str = field(default="", compare=False)  # as it was written

    def __and__(self, other: Condition) -> Condition:
        if not isinstance(other, Condition):
            return NotImplemented
        values = self.values if other.values is None else other.values
        if self.values is not None and other.values is not None:
            values = tuple(value for value in self.values if value in other.values)
        return Condition(
            values,
            math.lcm(self.multiple, other.multiple),
            max((n for n in (self.least, other.least) if n is not None), default=None),
            min((n for n in (self.most, other.most) if n is not None), default=None),
            self.equal or other.equal,
            self.alike or other.alike,
            f"{self} & {other}",
        )

    def __str__(self) -> str:
        return self.text

    def as_json(self) -> dict[str, Any]:
        """Return the condition as an object of JSON, which `joined` reads."""
        told = {"one_of": self.values, "at_least": self.least, "at_most": self.most, "equal_to": self.equal or None}
        told |= {"multiple_of": self.multiple if self.multiple > 1 else None, "square": self.alike or None}
        return {name: value for name, value in told.items() if value is not None}

    def admits(self, value: Any) -> bool:
        """Return whether a value, a pair among them, meets the condition; `equal` is not looked at."""
        if self.values is not None and value not in self.values:
            return False
        if self.alike and isinstance(value, tuple) and len({*value}) > 1:
            return False
        if self.multiple == 1 and self.least is None and self.most is None:
            return True
        sides = value if isinstance(value, tuple) else (value,)
        return all(isinstance(n, int) and self._in_range(n) for n in sides)

    def _in_range(self, n: int) -> bool:
        low, high = self.least, self.most
        return n % self.multiple == 0 and (low is None or n >= low) and (high is None or n <= high)


def multiple_of(n: int) -> Condition:
    """Return the condition that a size is divisible by n."""
    return Condition(multiple=_whole("multiple_of", n, 1), text=f"multiple_of({n})")


def at_most(n: int) -> Condition:
    """Return the condition that a size is n or less."""
    return Condition(most=_whole("at_most", n, 0), text=f"at_most({n})")


def at_least(n: int) -> Condition:
    """Return the condition that a size is n or more."""
    return Condition(least=_whole("at_least", n, 0), text=f"at_least({n})")


def between(low: int, high: int) -> Condition:
    """Return the condition that a size is from low to high, both included."""
    if _whole("between", low, 0) > _whole("between", high, 0):
        raise DomainError(f"between({low}, {high}): admits nothing; expected the smaller number first")
    return Condition(least=low, most=high, text=f"between({low}, {high})")


def one_of(*values: Any) -> Condition:
    """Return the condition that a quantity has one of these values."""
    if not values:
        raise DomainError("one_of(): expected at least one value")
    text = f"one_of({', '.join(map(repr, values))})" if len(values) > 1 else repr(values[0])
    return Condition(tuple(values), text=text)


def square(yes: bool = True) -> Condition:
    """Return the condition that a pair has as many rows as columns."""
    if yes is not True:
        raise DomainError(f"square({yes!r}): expected no argument")
    return Condition(alike=True, text="square()")


def equal_to(quantity: str) -> Condition:
    """Return the condition that a quantity equals another one, as `groups` does `in_channels` in depthwise kernels."""
    if not isinstance(quantity, str):
        raise DomainError(f"equal_to({quantity!r}): expected the name of a quantity")
    return Condition(equal=quantity, text=f"equal_to({quantity!r})")


def _whole(name: str, n: Any, least: int) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or n < least:
        raise DomainError(f"{name}({n!r}): expected a whole number from {least} on")
    return n


VOCABULARY = {f.__name__: f for f in (multiple_of, at_most, at_least, between, one_of, equal_to, square)}


def joined(conditions: Mapping[str, Any]) -> Condition:
    """Return the condition that an object of JSON writes: calls by name, each with its argument or a list of them."""
    found: Condition | None = None
    for name, given in conditions.items():
        if name not in VOCABULARY:
            raise DomainError(f"{name!r} is no condition; expected some of {', '.join(VOCABULARY)}")
        several = isinstance(given, list | tuple) and name in ("between", "one_of")
        one = _called(name, given if several else [given])
        found = one if found is None else found & one
    if found is None:
        raise DomainError("{}: expected a condition, such as {'multiple_of': 16}")
    return found


def parsed(text: str) -> Any:
    """Return the value or condition that a text writes, as JSON or as Python: float16, (3, 3), multiple_of(16)."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return _evaluated(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError:
        raise DomainError(f"{text!r}: expected a value or a condition, such as 3, (3, 3) or multiple_of(16)") from None


def _evaluated(node: ast.expr) -> Any:
    match node:
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            both = _evaluated(left), _evaluated(right)
            if not all(isinstance(one, Condition) for one in both):
                raise DomainError(f"{ast.unparse(node)}: expected a condition on both sides of &")
            return both[0] & both[1]
        case ast.Call(func=ast.Name(id=name), args=given, keywords=[]) if name in VOCABULARY:
            return _called(name, [_evaluated(one) for one in given])
        case ast.Name(id=name):
            return name
    try:
        return ast.literal_eval(node)
    except ValueError:
        known = ", ".join(VOCABULARY)
        raise DomainError(f"{ast.unparse(node)}: expected a value, or a condition of {known}") from None


def _called(name: str, given: Any) -> Condition:
    try:
        return VOCABULARY[name](*given)
    except TypeError:
        raise DomainError(f"{name}({', '.join(map(repr, given))}): expected another number of arguments") from None

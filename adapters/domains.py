"""The domain of a block: the arguments, sizes and dtypes for which a subject claims to work.

    from nnspec.adapters import multiple_of

    DOMAIN = {"conv2d": {"kernel_size": (3, 3), "stride": 1, "in_channels": multiple_of(16), "dtype": "float16"}}

`quantities` has the names, `conditions` what can be said of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nnspec.adapters.conditions import Condition, DomainError, equal_to, joined, one_of, parsed
from nnspec.adapters.equations import is_equation, other_equations
from nnspec.adapters.names import DTYPES, nearest
from nnspec.adapters.quantities import MOST, QUANTITIES, WITHOUT, Quantity, normal, parts
from nnspec.adapters.signatures import EQUATION, Arrays, as_number

LARGE = 5000  # a size outside the domain is no larger: an array would hardly fit into memory
NEIGHBOURS = ((-1, -1), (1, 1), (0, 1), (1, 0), (0, -1), (-1, 0), (-2, -2), (2, 2))  # of rows and columns
OTHER_NUMBERS = (0.1, 0.5, 1e-5, 1e-3)  # for a momentum or an eps
SHORT = DTYPES[2:]  # those whose sums are kept in float32, the dtype that a result may then have


@dataclass(frozen=True)
class Domain:
    """What a subject claims of one block; without conditions, everything."""

    stem: str = ""
    conditions: Mapping[str, Condition] = field(default_factory=dict)  # by quantity
    dtypes: tuple[str, ...] = ()  # none: those of the subject
    result: str = ""  # the dtype of results, where it is not that of the operands
    # what it does not declare, but showed (see `narrowing`): quantities among the conditions; and those of gradients
    shown: frozenset[str] = frozenset()
    backward: Mapping[str, Condition] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.conditions or self.dtypes or self.result)

    def __hash__(self) -> int:
        return hash((self.stem, tuple(self.conditions), self.dtypes, self.result, self.shown, tuple(self.backward)))

    def __str__(self) -> str:
        parts = [f"{name}={condition}" for name, condition in self.conditions.items()]
        parts += [f"dtype={one_of(*self.dtypes)}"] if self.dtypes else []
        return ", ".join([*parts, *([f"result={self.result!r}"] if self.result else [])])

    def as_json(self) -> dict[str, Any]:
        """Return the domain as an object of JSON, which `read_domain` reads."""
        told: dict[str, Any] = {name: condition.as_json() for name, condition in self.conditions.items()}
        told |= {"dtype": [*self.dtypes]} if self.dtypes else {}
        return told | ({"result": self.result} if self.result else {})

    @property
    def claimed(self) -> Domain:
        """The domain that it declares, without what it showed."""
        return self.asking(*self.shown)

    @property
    def of_gradients(self) -> Domain:
        """The domain of calls that are differentiated."""
        both = {**self.conditions, **self.backward}
        return replace(self, conditions=both, shown=self.shown.union(self.backward)) if self.backward else self

    def asking(self, *names: str) -> Domain:
        """Return the domain without what the subject showed of some quantities, of which a requirement asks more."""
        dropped = self.shown.intersection(names)
        kept = {name: condition for name, condition in self.conditions.items() if name not in dropped}
        return replace(self, conditions=kept, shown=self.shown - dropped) if dropped else self

    def fixing(self, name: str, value: Any) -> Domain:
        """Return the domain in which a quantity has one value, in place of what it was allowed."""
        condition = replace(one_of(value), values=(normal(self.quantity(name), value),))
        return replace(self, conditions={**self.conditions, name: condition})

    def excludes(self, values: Mapping[str, Any]) -> str | None:
        """Return the condition that some quantities, by name, do not meet, in words; None if they meet all."""
        for name, condition in self.conditions.items():
            if values.get(name) is None:
                continue
            value = normal(self.quantity(name), values[name])
            other = values.get(condition.equal)
            unequal = other is not None and normal(self.quantity(condition.equal), other) != value
            if unequal or not self.allows(name, value):
                return self.outside(name)
        return None

    def excludes_call(self, arrays: Arrays, arguments: Mapping[str, Any]) -> str | None:
        """Return the condition that a call does not meet, as `excludes` does; the dtype of x among them."""
        x = arrays.get("x")
        if self.dtypes and x is not None and x.dtype.name not in self.dtypes:
            return f"outside the domain dtype={one_of(*self.dtypes)}"
        known = QUANTITIES[self.stem] if self.conditions else {}
        return self.excludes({name: quantity.of(arrays, arguments) for name, quantity in known.items()})

    def outside(self, name: str) -> str:
        """Return what to say of a call that does not meet the condition on a quantity."""
        return f"outside the domain {name}={self.conditions[name]}"

    @property
    def fixed(self) -> frozenset[str]:
        """The quantities that have one value; a function may have it written into its code, and no such argument."""
        return frozenset(name for name, condition in self.conditions.items() if len(condition.values or ()) == 1)

    def quantity(self, name: str) -> Quantity:
        """Return the quantity of a name."""
        return QUANTITIES[self.stem][name]

    def lacks_feature(self, name: str) -> str | None:
        """Return why the feature of an argument is outside: its neutral value is the only one. None if it is not."""
        condition = self.conditions.get(name)
        if condition is None or condition.values is None:
            return None
        neutral = normal(self.quantity(name), self.quantity(name).neutral)
        return self.outside(name) if set(condition.values) == {neutral} else None

    def allows(self, name: str, value: Any) -> bool:
        """Return whether a quantity may have a value, whatever the others have."""
        condition = self.conditions.get(name)
        return condition is None or all(map(condition.admits, parts(self.quantity(name), value)))

    # -- values to draw ------------------------------------------------------------------------------------------------

    def numbers(self, name: str, small: Sequence[int], times: int = 1, least: int = 0) -> tuple[int, ...]:
        """Return for each small number the legal one that a strategy draws in its place; none where there is none.

        The smallest number becomes the smallest legal number that is no smaller, the next one the next legal number,
        and so on. Legal is a number n, `least` or more, such that the quantity may be n · times.
        """
        if name not in self.conditions:
            return tuple(small)
        chosen: dict[int, int] = {}
        lowest = least
        for n in sorted(set(small)):
            found = self._next(name, max(n, lowest), times)
            if found is None:
                found = self._before(name, n, times, least)
            if found is None:  # all legal numbers are larger, and taken
                found = self._next(name, max(n, least), times)
            if found is not None:
                chosen[n], lowest = found, found + 1
        return tuple(chosen[n] for n in small if n in chosen)

    def nearest(self, name: str, n: int, times: int = 1, least: int = 0) -> int | None:
        """Return the smallest legal number from n on, or the largest below it; None where there is none."""
        return next(iter(self.numbers(name, (n,), times, least)), None)

    def _next(self, name: str, n: int, times: int) -> int | None:
        """Return the smallest legal number from n on."""
        condition, own = self.conditions[name], self.quantity(name)
        if condition.values is not None:
            fitting = (v // times for v in self._values(name) if v % times == 0 and v >= n * times)
            return min(fitting, default=None)
        step = math.lcm(condition.multiple, times)
        total = -(-max(n * times, condition.least or 0, own.least) // step) * step
        return None if total > min(MOST, condition.most if condition.most is not None else MOST) else total // times

    def _before(self, name: str, n: int, times: int, least: int) -> int | None:
        """Return the largest legal number below n."""
        condition, own = self.conditions[name], self.quantity(name)
        lowest = max(least * times, own.least, condition.least or 0)
        if condition.values is not None:
            fitting = (v // times for v in self._values(name) if v % times == 0 and lowest <= v < n * times)
            return max(fitting, default=None)
        step = math.lcm(condition.multiple, times)
        high = min(n * times - 1, condition.most if condition.most is not None else MOST)
        total = high // step * step
        return total // times if total >= lowest else None

    def _values(self, name: str) -> Iterator[int]:
        """Yield the values of a quantity that a condition lists, without those that another condition excludes."""
        condition = self.conditions[name]
        yield from (v for v in condition.values or () if isinstance(v, int) and condition.admits(v))

    def beyond(self, name: str) -> tuple[Any, ...]:
        """Return values of a quantity just outside: neighbours of the smallest legal ones, and of the largest."""
        condition, own = self.conditions[name], self.quantity(name)
        if own.kind == "flag":
            return tuple(value for value in (False, True) if not condition.admits(value))
        if own.kind == "number":
            return tuple(value for value in OTHER_NUMBERS if not condition.admits(value))
        if own.kind == "word":
            return tuple(word for word in other_equations(condition.values or ()) if not condition.admits(word))
        if own.kind == "pair":
            legal = [normal(own, value) for value in self.choices(name, (1, 2, 3))]
            sides = [(r + up, c + across) for r, c in legal for up, across in NEIGHBOURS]
            pairs = [p for p in sides if min(p) >= own.least and (condition.equal or not condition.admits(p))]
            return tuple(as_number(pair) for pair in dict.fromkeys(pairs))
        near = [n + by for n in self.numbers(name, (1, 2)) for by in (-1, 1, condition.multiple // 2)]
        near += [1] if condition.most is None else [1, condition.most + 1]
        outside = {n for n in near if own.least <= n <= LARGE and (condition.equal or not condition.admits(n))}
        return tuple(sorted(outside))

    def choices(self, name: str, small: Sequence[Any]) -> tuple[Any, ...]:
        """Return the legal values of an argument, those among the small values if there are any. Equal pairs are ints.

        The small values of a pair are those of its rows and of its columns.
        """
        if name not in self.conditions:
            return tuple(small)
        condition, own = self.conditions[name], self.quantity(name)
        if own.kind == "pair":
            alike = itertools.product(small, repeat=2)
            legal = [pair for pair in alike if condition.admits(pair)]
            if not legal and condition.values is not None:
                legal = [pair for pair in condition.values if condition.admits(pair)]
            if not legal:
                sides = itertools.product(self.numbers(name, small), repeat=2)
                legal = [pair for pair in sides if not condition.alike or len({*pair}) == 1]
            return tuple(as_number(pair) for pair in dict.fromkeys(legal))
        legal = [value for value in small if condition.admits(value)]
        if not legal and condition.values is not None:
            legal = [value for value in condition.values if condition.admits(value)]
        return tuple(legal or self.numbers(name, small))


EVERYTHING = Domain()


# -- what a file, the command line or a program declares ---------------------------------------------------------------


def read_domains(value: Any, known: Mapping[str, Domain] | None = None) -> dict[str, Domain]:
    """Return the domain of each block that a mapping declares, in Python or as JSON, on top of those that are known.

    Raises DomainError for what cannot be declared.
    """
    if not isinstance(value, Mapping):
        raise DomainError("expected a mapping from blocks to their domains, such as {'conv2d': {'stride': 1}}")
    known = known or {}
    return {**known, **{str(stem): read_domain(stem, own, known.get(stem)) for stem, own in value.items()}}


def read_domain(stem: Any, value: Any, before: Domain | None = None) -> Domain:
    """Return the domain of a block that a mapping from quantities to conditions declares, on top of the one `before`.

    Raises DomainError for what cannot be declared.
    """
    if stem in WITHOUT:
        blocks = ", ".join(QUANTITIES)
        raise DomainError(f"{stem} has no domain: {WITHOUT[stem]}; expected some of {blocks}. Dtypes: DTYPES")
    if stem not in QUANTITIES:
        blocks = f"{nearest(str(stem), QUANTITIES)}; expected some of {', '.join(QUANTITIES)}"
        raise DomainError(f"{stem!r} is no block with a domain{blocks}")
    if not isinstance(value, Mapping):
        raise DomainError(f"{stem}: expected a mapping from quantities to conditions, such as {{'dtype': 'float16'}}")
    known = QUANTITIES[stem]
    for name in value:
        if name not in known and name not in ("dtype", "result"):
            names = [*known, "dtype", "result"]
            raise DomainError(
                f"{stem}.{name}: no such quantity{nearest(str(name), names)}; expected {', '.join(names)}"
            )
    before = before or Domain(stem)
    conditions = {name: _condition(stem, known[name], own) for name, own in value.items() if name in known}
    dtypes = _dtypes(stem, value["dtype"]) if "dtype" in value else before.dtypes
    result = value.get("result", before.result)
    domain = Domain(stem, {**before.conditions, **conditions}, dtypes, _result(stem, result, dtypes) if result else "")
    for name, condition in conditions.items():
        if not condition.equal and not domain.choices(name, (False, True) if known[name].kind == "flag" else (1, 2, 3)):
            raise DomainError(f"{stem}.{name} = {condition}: admits nothing")
    return domain


def read_options(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what options of the command line declare: conv2d.stride=1, or JSON of the form of DOMAIN."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        if text.lstrip().startswith("{"):
            try:
                read = parsed(text)
            except DomainError as error:
                raise DomainError(f"{text}: {error}") from None
            if not isinstance(read, Mapping) or not all(isinstance(own, Mapping) for own in read.values()):
                raise DomainError(f'{text}: expected an object of blocks, such as {{"conv2d": {{"stride": 1}}}}')
            for stem, own in read.items():
                found.setdefault(stem, {}).update(own)
            continue
        where, equals, value = text.partition("=")
        stem, dot, name = where.strip().partition(".")
        if not (equals and dot and name):
            raise DomainError(f"{text}: expected BLOCK.QUANTITY=CONDITION, such as conv2d.stride=1")
        found.setdefault(stem, {})[name] = parsed(value)
    return found


def _condition(stem: str, quantity: Quantity, value: Any) -> Condition:
    where = f"{stem}.{quantity.name}"
    if isinstance(value, Mapping):
        value = joined(value)
    if not isinstance(value, Condition):
        pair = quantity.kind == "pair" and _is_pair(value)
        several = isinstance(value, list | tuple | set | frozenset) and not pair
        if several and quantity.kind == "pair" and isinstance(value, tuple) and all(isinstance(n, int) for n in value):
            raise DomainError(f"{where} = {value!r}: expected a pair (rows, columns); for several values say one_of(…)")
        if several and not value:
            raise DomainError(f"{where} = {value!r}: admits nothing; expected {quantity.expected}")
        value = one_of(*value) if several else one_of(tuple(value) if pair else value)
    if value.equal and value.equal != quantity.equal_to:
        can = f"expected {equal_to(quantity.equal_to)}" if quantity.equal_to else "it can be declared equal to none"
        raise DomainError(f"{where} = {value}: {can}")
    if value.alike and quantity.kind != "pair":
        raise DomainError(f"{where} = {value}: it has no rows and columns; expected {quantity.expected}")
    if quantity.kind in ("flag", "number", "word") and value.values is None:
        raise DomainError(f"{where} = {value}: expected {quantity.expected}")
    if value.values is not None:
        for one in value.values:
            _require(where, quantity, one)
        value = replace(value, values=tuple(normal(quantity, one) for one in value.values))
    return value


def _require(where: str, quantity: Quantity, value: Any) -> None:
    """Raise DomainError for a value that a quantity cannot have."""
    if quantity.kind == "flag":
        right = isinstance(value, bool)
    elif quantity.kind == "word":
        right = is_equation(value) if quantity.name == EQUATION else isinstance(value, str)
    elif quantity.kind == "number":
        right = isinstance(value, int | float) and not isinstance(value, bool) and value >= quantity.least
    else:
        sides = value if quantity.kind == "pair" and _is_pair(value) else (value,)
        right = all(isinstance(n, int) and not isinstance(n, bool) and n >= quantity.least for n in sides)
    if not right and not (value is None and quantity.neutral is None and quantity.name == "divisor_override"):
        raise DomainError(f"{where} = {value!r}: expected {quantity.expected}")


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(n, int) for n in value)


def _dtypes(stem: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, Condition):
        value = value.values
    several = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple | set) else ()
    if not several or not all(one in DTYPES for one in several):
        raise DomainError(f"{stem}.dtype = {value!r}: expected some of {', '.join(DTYPES)}")
    return several


def _result(stem: str, value: Any, dtypes: Iterable[str]) -> str:
    dtypes = tuple(dtypes)
    if value != "float32" or not dtypes or not set(dtypes) <= set(SHORT):
        given = f"with dtype = {', '.join(dtypes)}" if dtypes else "without dtype"
        raise DomainError(
            f"{stem}.result = {value!r} {given}: expected 'float32', and dtype some of {', '.join(SHORT)}"
        )
    return "float32"

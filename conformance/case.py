"""A case: arrays and arguments by name, the layout of each array in memory, and how a failing case is made smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from nnspec.adapters.domains import EVERYTHING, Domain
from nnspec.conformance.drawing import Decision, Draw, Plan
from nnspec.conformance.formats import is_floating
from nnspec.conformance.layouts import LAYOUTS

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """One call of a block: its operands, and its arguments."""

    stem: str
    arrays: dict[str, Any]  # each an Array, or None where it is absent
    arguments: dict[str, Any] = field(default_factory=dict)
    layouts: dict[str, str] = field(default_factory=dict)  # array -> its layout, a key of LAYOUTS; else contiguous
    # how it was drawn: the regime of its sizes, the kind of its data and their seed
    sizes: str = "small"
    data: tuple[str, int] | None = None

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name] if name in self.arrays else self.arguments[name]

    def but(self, **changes: Any) -> Case:
        """The same case with other arrays or arguments."""
        arrays = {n: changes.get(n, a) for n, a in self.arrays.items()}
        rest = {n: v for n, v in changes.items() if n not in arrays}
        return self._changed(arrays=arrays, arguments={**self.arguments, **rest})

    def without(self, *names: str) -> Case:
        """The same case with arguments left out, so that the subject's own defaults stand in."""
        return replace(self, arguments={n: v for n, v in self.arguments.items() if n not in names})

    def map(self, change: Callable[[Array], Array]) -> Case:
        """The same case with every array changed."""
        return self._changed(arrays={n: None if a is None else change(a) for n, a in self.arrays.items()})

    def holding(self, arrays: dict[str, Any]) -> Case:
        """The same case with these arrays in the place of all of its own, or beside its own under other names."""
        return self._changed(arrays={**self.arrays, **arrays})

    def _changed(self, **fields: Any) -> Case:
        """The same case with other fields: what `dataclasses.replace` gives, in a third of its time."""
        case = object.__new__(Case)
        vars(case).update(vars(self), **fields)
        return case

    def lying(self, layout: str, *names: str) -> Case:
        """The same case with these arrays, or all, in another layout when they are handed over."""
        present = [n for n, a in self.arrays.items() if a is not None and (not names or n in names)]
        return self._changed(layouts={**self.layouts, **dict.fromkeys(present, layout)})

    def contiguous(self) -> Case:
        """The same case with every array contiguous when it is handed over."""
        return replace(self, layouts={})

    def arranged(self) -> Case:
        """The same case with fresh arrays that lie in memory as `layouts` says."""
        arrays = {
            n: None if a is None else LAYOUTS.get(self.layouts.get(n, ""), np.array)(a) for n, a in self.arrays.items()
        }
        return self._changed(arrays=arrays, layouts={})

    def shuffled(self, seed: int) -> Case:
        """The same case with the elements of each array in another order: the same shapes, and legal where it was.

        Arrays of one size are all shuffled alike, so that what two cases have in common they still have.
        """

        def shuffle(a: Array) -> Array:
            return np.random.default_rng(seed).permuted(a.ravel()).reshape(a.shape) if is_floating(a.dtype) else a

        return self.map(shuffle)

    def __str__(self) -> str:
        lies = {n: f" {layout}" for n, layout in self.layouts.items()}
        arrays = [f"{n}=None" if a is None else f"{n}{a.shape}{lies.get(n, '')}" for n, a in self.arrays.items()]
        return f"{self.stem}({', '.join(arrays + [f'{n}={v!r}' for n, v in self.arguments.items()])})"


def drawn_within(
    sizes: str,
    planning: Decision[Plan | None],
    decision: Decision[Any],
    domain: Domain = EVERYTHING,
    written: frozenset[str] = frozenset(),
) -> Decision[Any]:
    """Return the decision whose sizes are planned by that of a regime, within a domain. Its cases know how.

    `written` are the arguments with one value in the domain that the subject's function lacks.
    """

    def make(draw: Draw) -> Any:
        draw.plan, draw.domain, draw.written = draw(planning), domain, written
        made = draw(decision)
        return made._changed(sizes=sizes, data=draw.data) if isinstance(made, Case) else made

    return Decision(make)


def whole(case: Case) -> Case:
    """The same case with every element a whole number from 1 to 8, or from −8 to −1: no 0, and nothing that rounds."""
    return case.map(lambda a: np.copysign(np.clip(np.rint(np.abs(a)), 1, 8), a).astype(a.dtype))


def as_pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """(rows, columns)"""
    return (value, value) if isinstance(value, int) else value


def minimise(case: Case, fails: Callable[[Case], bool], calls: int = 200) -> Case:
    """Make arrays contiguous, set blocks of the data to zero, then single values to 1, while the case still fails.

    At most `calls` cases are tried.
    """
    for smaller in _simplifications(case):
        if calls <= 0:
            break
        candidate = smaller(case)
        if candidate is not None:
            calls -= 1
            if fails(candidate):
                case = candidate
    return case


def _simplifications(case: Case) -> Iterator[Callable[[Case], Case | None]]:
    yield from (_contiguous(name) for name in case.layouts)
    for name, array in case.arrays.items():
        if array is None or not is_floating(array.dtype):
            continue
        size = array.size
        while size >= 1:  # blocks that halve: everything, each half, … each element
            yield from (_setting(name, slice(start, start + size), 0.0) for start in range(0, array.size, size))
            size //= 2
    for value in (1.0, -1.0):
        for name, array in case.arrays.items():
            if array is not None and is_floating(array.dtype):
                yield from (_setting(name, slice(i, i + 1), value) for i in range(array.size))


def _contiguous(name: str) -> Callable[[Case], Case | None]:
    return lambda case: replace(case, layouts={n: layout for n, layout in case.layouts.items() if n != name})


def _setting(name: str, where: slice, value: float) -> Callable[[Case], Case | None]:
    def change(case: Case) -> Case | None:
        part = case.arrays[name].reshape(-1)[where]
        if not part.any() or (value and (part[0] == value or part[0] * value < 0)):  # nothing to gain; a sign stays
            return None
        array = np.array(case.arrays[name], order="C")
        array.reshape(-1)[where] = value
        return case.but(**{name: array})

    return change

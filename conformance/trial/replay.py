"""Steps written down as a script: what it calls modules and arrays, and which arrays it has written out by then."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from nnspec.adapters.roles import Roles
from nnspec.adapters.signatures import entries
from nnspec.adapters.subject import Subject
from nnspec.conformance.case import Case
from nnspec.conformance.formats import is_floating
from nnspec.conformance.layouts import offset_of
from nnspec.conformance.trial.source import literal, written

if TYPE_CHECKING:
    from nnspec.conformance.trial.steps import Call, OnCase, Step


class NotRecorded(Exception):
    """The record does not say how a module or an array came about."""


class Replay:
    """The steps of a case as the lines of a script. What a step gave has the step's number in its name."""

    def __init__(self, subject: Subject, form: str, steps: Sequence[Step]) -> None:
        self.subject, self.form, self.steps = subject, form, steps
        self._written: dict[str, np.ndarray | None] = {}  # operand -> its values, as the script has them by now
        self._given: dict[str, np.ndarray | None] = {}  # operand -> the very array that they stand for
        self._first: set[str] = set()  # names of results that are needed as they first were

    def lines(self) -> Iterator[str]:
        """The lines of all steps."""
        for step in self.steps:
            yield from step.lines(self)

    def refusal(self, call: Call) -> Iterator[str]:
        """The lines of all steps, the last of which is a call that must be refused."""
        before: list[Step] = list(self.steps[:-1])
        attempted: list[Step] = []
        if before and before[-1].makes and before[-1].result is call.module:  # its constructor may refuse as well
            attempted.append(before.pop())
        for step in before:
            yield from step.lines(self)
        yield from self.operands(call)
        attempt = [line for step in attempted for line in step.lines(self)]
        yield "try:"
        yield from (textwrap.indent(line, "    ") for line in [*attempt, f"result = {call.expression(self)}"])
        yield "except Exception as error:"
        yield from ["    print(f'refused: {type(error).__name__}: {error}')", "    sys.exit(0)"]

    # -- names ---------------------------------------------------------------------------------------------------------

    def number(self, step: Step) -> int:
        """The number of a step, from 1."""
        return 1 + next(n for n, known in enumerate(self.steps) if known is step)

    def layer(self, module: Any) -> str:
        """The name of a module: that of the step that made it."""
        for number, step in enumerate(self.steps, start=1):
            if step.makes and step.result is module:
                return f"layer{number}"
        raise NotRecorded("a module")

    def state(self, entries: Mapping[str, np.ndarray]) -> str | None:
        """The name of what a step read, if these are its entries."""
        read = (n for n, step in enumerate(self.steps, start=1) if step.kind == "state" and step.result is entries)
        return next((f"state{number}" for number in read), None)

    def place(self, array: Any) -> str:
        """The name of an array: a result, a part of one, an operand, an entry of a state, a gradient."""
        name = self._find(array) or self._operand(array)
        if name is None:
            raise NotRecorded("an array")
        return name

    def first(self, array: np.ndarray) -> str:
        """The name of the values that an array first had: a later step may write to a result."""
        name = self.place(array)
        if not name.startswith("result"):
            return name
        name = name.replace("result", "first", 1)
        self._first.add(name.partition("[")[0])
        return name

    def first_values(self, call: Call) -> Iterator[str]:
        """The lines that keep a call's results as they are."""
        number = self.number(call)
        if f"first{number}" in self._first:
            yield f"first{number} = result.copy()"
        if f"firsts{number}" in self._first:
            yield f"firsts{number} = [r.copy() for r in results{number}]"

    def _find(self, array: Any, before: int | None = None) -> str | None:
        """The name of an array that a step gave, if one of the steps before a number did."""
        given = [(n, a) for k, step in enumerate(self.steps[:before], start=1) for n, a in step.names(k).items()]
        for name, known in given:
            if array is known:
                return name
            if (part := _part(array, known)) is not None:
                return name + part
        return None

    def _operand(self, array: Any) -> str | None:
        handed = filter(None, (getattr(step, "given", None) for step in self.steps))
        return next((variable(n) for case in handed for n, a in case.arrays.items() if array is a), None)

    # -- what a step's lines are made of -------------------------------------------------------------------------------

    def operands(self, step: OnCase) -> Iterator[str]:
        """The lines that write out the arrays of a step, where the script does not have them by then."""
        for name, array in step.writes().items():
            given = step.given.arrays[name] if step.given else None
            if name in self._written and _same(self._written[name], array):
                pass
            elif given is not None and (result := self._find(given, self.number(step) - 1)) is not None:
                yield f"{variable(name)} = {result}"
            elif given is not None and (same := [n for n, a in self._given.items() if a is given and n != name]):
                yield f"{variable(name)} = {variable(same[0])}"  # one array in two places
            elif array is not None and given is not None and given is self._given.get(name):  # has other values by now
                yield f"{variable(name)}[...] = {literal(array)}"
            else:
                yield f"{variable(name)} = {'None' if array is None else written(array)}"
            self._written[name], self._given[name] = array, given

    def lacks(self, stem: str) -> frozenset[str]:
        """What the subject's block lacks."""
        return self.subject.lacks(stem, self.form)

    def roles(self, case: Case, module: Any, page: Collection[str] | None = None) -> Roles:
        """Which of a module's entries have the roles of the page's keys: scripts use the module's own keys."""
        if module is None:  # it was never made
            return self.subject.known_roles(case.stem, case.arrays)
        return self.subject.roles(case.stem, type(module), page or entries(case.arrays), module)


def variable(name: str) -> str:
    """The name of an operand in a script."""
    return name.replace(".", "_")


def _part(array: Any, whole: np.ndarray) -> str | None:
    """The index that cuts a view, along one axis, out of a result."""
    if not isinstance(array, np.ndarray) or array.ndim != whole.ndim or array.dtype != whole.dtype:
        return None
    cut = [axis for axis in range(whole.ndim) if array.shape[axis] != whole.shape[axis]]
    if len(cut) > 1 or array.strides != whole.strides or not np.shares_memory(array, whole):
        return None
    axis = cut[0] if cut else 0
    begin = (array.ctypes.data - whole.ctypes.data) // (whole.strides[axis] or 1) if whole.ndim else 0
    return f"[{':, ' * axis}{begin}:{begin + array.shape[axis]}]" if cut else ""


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    alike = (a.dtype, a.shape, a.strides) == (b.dtype, b.shape, b.strides)
    return alike and offset_of(a) == offset_of(b) and bool(np.array_equal(a, b, equal_nan=is_floating(a.dtype)))

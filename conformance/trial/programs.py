"""Programs: lines of Python run on the subject's own classes, and shown as they were run when one of them fails.

Modules, parameters and optimisers are checked in the words that a user writes. Arrays alone need translating: a program
says `to_native(…)` and `to_numpy(…)`, as the adapter defines them, so that its lines are the script that reproduces it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from nnspec.adapters.blame import theirs
from nnspec.adapters.carried import callables
from nnspec.adapters.subject import Lacks
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.source import literal
from nnspec.conformance.trial.steps import Line, Names
from nnspec.conformance.trial.trial import Trial


class Program:
    """The lines run so far, and the names that they have defined. `needs` are classes that the subject must have."""

    def __init__(self, trial: Trial, *needs: str) -> None:
        subject = trial.subject
        for name in needs:
            if name not in subject.classes:
                raise Lacks(f"there is no class {name}")
        elsewhere = hasattr(subject.framework, "program")
        known = callables(subject.framework) | dict(subject.classes)
        self.names = subject.framework.program() if elsewhere else Names(known)
        self.trial = trial
        self.steps = [Line("import copy", self.names)]

    def __str__(self) -> str:
        return "\n".join([step.text for step in self.steps[1:]])

    def run(self, *lines: str) -> Program:
        """Run lines one after the other; what one of them raises is a Mismatch. The program itself."""
        for line in lines:
            step = Line(line, self.names)
            self.steps.append(step)
            with self._watched(line):
                step.run(self.trial.subject)
        return self

    def value(self, expression: str) -> Any:
        """What an expression gives, as it is."""
        with self._watched(expression, expression):
            value = self.names.value(expression)
        self.trial.seen.append((expression, value))
        return value

    def array(self, expression: str) -> np.ndarray:
        """What an expression gives, as a copy in NumPy."""
        return np.array(self.value(f"to_numpy({expression})"))

    # -- verdicts --------------------------------------------------------------------------------------------------

    def holds(self, expression: str, says: str = "") -> None:
        """The expression is true; `says` says it in words, where it is hard to read."""
        if not self.value(expression):
            raise self._mismatch(f"not so: {says or expression}", [f"assert {expression}"])

    def equals(self, expression: str, value: Any) -> None:
        """The expression equals a plain value: a flag, a number, a list of keys."""
        actual = self.value(expression)
        if type(actual) is not type(value) or actual != value:
            message, script = f"{expression} is {actual!r}, expected {value!r}", f"assert {expression} == {value!r}"
            raise self._mismatch(message, [script])

    def agree(self, expression: str, other: str) -> None:
        """Both expressions give the same array, whatever it is: the second is the right one."""
        self.gives(expression, self.array(other), source=f"to_numpy({other})")

    def gives(self, expression: str, expected: Expected | np.ndarray, source: str = "") -> None:
        """The expression gives this array, within its bound. `source`: what a script has in the array's place."""
        if not isinstance(expected, Expected):
            expected = Expected.exactly(expected)

        def told(mismatch: Mismatch) -> Mismatch:
            right = mismatch.expected or expected
            value = source or literal(np.asarray(right.value, np.float64))
            bound = literal(right.within().astype(np.float64)) if right.within().any() else "0"
            script = [
                f"actual, expected = to_numpy({expression}), {value}",
                'print("expected", expected, "actual", actual, sep="\\n")',
                "same = (actual == expected) | np.isnan(actual) & np.isnan(expected)",
                f"assert actual.shape == expected.shape and np.all(same | (abs(actual - expected) <= {bound}))",
            ]
            return self._mismatch(mismatch.message, script, mismatch.actual, right)

        self.trial.expect(self.array(expression), expected, expression, told)

    def refuses(self, *lines: str, kinds: tuple[type[Exception], ...] = (Exception,)) -> None:
        """One of the lines must raise an exception of these kinds."""
        before, attempt = list(self.steps), "\n".join(lines).replace("\n", "\n    ")
        expected = " or ".join("an exception" if kind is Exception else kind.__name__ for kind in kinds)
        guarded = f"try:\n    {attempt}\nexcept ({''.join(f'{k.__name__}, ' for k in kinds)}):\n    "
        end = [f"{guarded}sys.exit(0)", f"sys.exit({f'accepted; expected {expected}'!r})"]
        try:
            self.run(*lines)
        except Mismatch as mismatch:
            if isinstance(mismatch.raised, kinds):
                self.steps = [*before, Line(f"{guarded}pass", self.names)]  # further lines follow the refusal
                return
            mismatch.message = mismatch.message.replace("expected no exception", f"expected {expected}")
            mismatch.steps, mismatch.end = [*before], end
            raise
        accepted = self._mismatch(f"{'; '.join(lines)} was accepted; expected {expected}", end)
        accepted.steps = [*before]
        raise accepted

    @contextmanager
    def _watched(self, text: str, *last: str) -> Iterator[None]:
        """Around a line or an expression. The script of what it raises ends with `last`, which is no step."""
        try:
            with self.trial.watched(lambda: f"{self}\n{text}", "no exception"), theirs():
                yield
        except Mismatch as mismatch:
            told = self._mismatch(f"{text} {mismatch.message}", [*last])
            told.raised = mismatch.raised
            raise told from None

    def _mismatch(self, message: str, end: list[str], *about: Any) -> Mismatch:
        mismatch = Mismatch(message, *about)
        mismatch.case, mismatch.steps, mismatch.end = str(self), [*self.steps], [*end, "sys.exit(0)"]
        return mismatch

"""What is kept of a trial: what went wrong, what was called, what was seen, and what came of it."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nnspec import adapters
from nnspec.adapters.blame import LONGEST, Ended, Raised, Unusable, told
from nnspec.adapters.subject import Unsupported
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.system import legible

if TYPE_CHECKING:
    from nnspec.conformance.requirements import Check
    from nnspec.conformance.trial.boundaries import Boundary
    from nnspec.conformance.trial.steps import Step

LONG = 4096  # an array of more elements is not kept as a whole
PLAIN = bool | int | float | str | None
COSTLY = 10  # a check of this effort or more reports the first failing case: to look for a smaller one takes too long
NUMBER = re.compile(r"(?<![\w.])-?\d+(\.\d*)?(e[-+]?\d+)?")  # except digits in names, as of a layer or a dtype
# Folders whose files are no subject.
OURS = ("<nnspec", str(Path(__file__).parents[1]), str(Path(adapters.__file__).parent))


class Mismatch(AssertionError):
    """The subject did something else than the requirement says."""

    verdict = "fail"

    def __init__(self, message: str, actual: Any = None, expected: Expected | None = None, *, holds: str = "") -> None:
        super().__init__(message)
        self.message, self.actual, self.expected = message, actual, expected
        self.holds = holds  # where there is no expected value: what a script asks of `result`, the last one, in Python
        self.case: Any = None  # a Case, or several, or whatever else the check drew
        self.steps: list[Step] = []  # what was done to the subject
        # the lines that end its script, where neither `expected` nor `holds` says them; empty: there is no script
        self.end: list[str] | None = None
        self.raised: BaseException | None = None  # by the subject, in the call that went wrong
        self.sighting: Sighting | None = None
        self.boundaries: list[Boundary] = []  # where its long sizes begin to fail

    @property
    def misshapen(self) -> bool:
        """Whether it is the shape that is wrong, so that of the values nothing is known."""
        if self.expected is not None and isinstance(self.actual, np.ndarray):
            return self.actual.shape != self.expected.value.shape
        return ".shape ==" in self.holds

    @property
    def words(self) -> str:
        """What is wrong, without the numbers; of a value only that it is wrong, since the values are known."""
        return "a value" if self.expected is not None else NUMBER.sub("", self.message)


class Died(Mismatch):
    """The program that computes the subject's results ended in the call. No check may take this for a refusal."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(clean(str(ended)))
        self.verdict = ended.verdict


class Spoilt(Died):
    """A call raised, and since then every call raises: this process can judge no more."""


class CallFails(Exception):
    """The call that a law starts from fails by itself: other checks judge that, and this one has nothing to go by."""


@dataclass(frozen=True)
class Sighting:
    """All that a check saw of the subject in one case, in order: what it gave, that it raised, and what was wrong."""

    form: str
    dtype: str
    case: Any  # as it was drawn
    seen: list[tuple[str, Any]]  # what it is, and an array or something plain
    wrong: str = ""  # in words, without numbers; nothing where the case passed


@dataclass
class Outcome:
    """What a trial came to."""

    verdict: str
    cases: int = 0
    reason: str = ""
    failure: Mismatch | None = None
    failed_at: int = 0  # which case was the first that failed, from 1; 0: none
    worst: float = 0.0  # largest error / bound seen
    worst_case: str = ""  # the call that it was seen in
    accuracy: str = ""  # the class of accuracy that all cases were in, where something was computed
    seconds: float = 0.0
    unsupported: Counter[str] = field(default_factory=Counter)
    known_defects: Counter[str] = field(default_factory=Counter)  # of the framework: cases not made for its sake
    out_of_domain: Counter[str] = field(default_factory=Counter)  # cases not made, because they are outside the domain
    seen: list[Sighting] = field(default_factory=list)  # in some cases that were right or wrong
    # a failure that belongs to another requirement: the check under that requirement's name, and its outcome
    elsewhere: tuple[Check, Outcome] | None = None


def is_complex(array: np.ndarray | None) -> bool:
    """Whether it is an array of complex numbers."""
    return array is not None and array.dtype.kind == "c"


def parts(what: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What the subject gave: of tuples and mappings each part, of long arrays some elements and the shape."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from parts(f"{what} {key}", value[key])
    elif isinstance(value, tuple | list):
        yield f"length of {what}", len(value)
        for number, part in enumerate(value):
            yield from parts(f"{what} {number}", part)
    elif isinstance(value, np.ndarray) and value.size > LONG:
        yield f"shape of {what}", value.shape
        yield what, value.ravel()[:: -(-value.size // LONG)].copy()
    else:
        yield what, value if isinstance(value, np.ndarray | PLAIN) else object


def mismatched(failed: Raised | Unusable, expected: str) -> Mismatch:
    """What the subject raised, or returned unusable, in the words of a report."""
    if isinstance(failed, Ended):
        return Died(failed)
    if isinstance(failed, Unusable):
        message = clean(str(failed))
        return Mismatch(message if "expected" in message else f"{message}, expected {expected}")
    mismatch = Mismatch(f"raised {brief(failed.error)}, expected {expected}")
    mismatch.raised = failed.error
    return mismatch


def brief(error: BaseException) -> str:
    """An exception in one line: its type, the first line of its text, and the subject's line that raised it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(OURS)]
    where = f" at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else ""
    return clean(f"{told(error)}{where}")


def reason_of(declined: Unsupported) -> str:
    """What the subject says of a case that it declines."""
    return clean(told(declined).partition(": ")[2]) or "no reason given"


def clean(text: str) -> str:
    """A text of the subject's, fit for a terminal and a file: not too long, one line, and all of it printable."""
    cut = text if len(text) <= 2 * LONGEST else text[: 2 * LONGEST] + "…"
    return legible.text(cut).replace("\n", "\\n").replace("\t", " ")


def difference(
    what: str, actual: np.ndarray, expected: Expected, error: np.ndarray, index: tuple[Any, ...], wrong: int
) -> str:
    """Say of the worst of the wrong elements what it is, and what was expected."""
    place = f"[{', '.join(str(int(i)) for i in index)}]" if index else ""
    bound = np.broadcast_to(expected.within(), actual.shape)
    allowed = f"allowed {float(bound[index]):.3g}" if bound[index] else "must be exact"
    count = f"; {wrong} of {actual.size} elements are wrong" if actual.size > 1 else ""
    return (
        f"{what}{place} is {actual[index]!s}, expected {expected.value[index]!s} "
        f"(error {float(error[index]):.3g}, {allowed}){count}"
    )

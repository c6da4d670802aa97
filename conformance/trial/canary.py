"""A call that is known to return. Where it raises as well after another call has raised, that call spoilt the process.

So it is on a GPU: after one bad launch every call raises until the process ends. Values that are judged then seem to be
wrong, and refusals right. The first call that raised is to blame, and only a new process can go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nnspec.adapters.blame import Ended, Raised, Unsupported, Unusable, told
from nnspec.adapters.subject import Subject
from nnspec.conformance.case import Case

TRIES = 3  # a call that raises now and then returns in one of them
LARGEST = 1 << 16  # elements of a call that is worth repeating


@dataclass
class Canary:
    """What one process knows: the last call that returned, and what spoilt the process, if anything has."""

    good: tuple[str, Case] | None = field(default=None, repr=False)  # its form, and the call
    spoilt: str = ""  # the first call that raised of those that have raised ever since

    def returned(self, form: str, case: Case) -> None:
        """Remember a call that returned."""
        if sum(a.size for a in case.arrays.values() if a is not None) <= LARGEST:
            self.good = form, case

    def after(self, error: BaseException, what: Any, subject: Subject) -> Ended | None:
        """Return what to say if a call, which has raised an error, has spoilt the process; None if it has not."""
        if not self.spoilt and self.good is not None and not self._returns(subject):
            self.spoilt = f"every call raises since {what} raised {told(error)}"
        return Ended(self.spoilt, "crash") if self.spoilt else None

    def _returns(self, subject: Subject) -> bool:
        """Whether the call that returned before does so again."""
        assert self.good is not None
        form, case = self.good
        for _ in range(TRIES):
            copies = {name: None if a is None else a.copy() for name, a in case.arrays.items()}
            try:
                subject.call(case.stem, form, copies, case.arguments)
            except Raised:
                continue
            except (Unsupported, Unusable):
                pass
            return True
        return False

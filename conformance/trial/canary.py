"""A call that is known to return. Where it raises as well after another call has raised, that call spoilt the process.

So it is on a GPU: after one bad launch every call raises until the process ends. Values that are judged then seem to be
wrong, and refusals right. The first call that raised is to blame, and only a new process can go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nnspec.adapters.blame import Ended, Raised, Unsupported, Unusable, theirs, told
from nnspec.adapters.subject import Subject
from nnspec.conformance.case import Case

TRIES = 3  # a call that raises now and then returns in one of them
LARGEST = 1 << 16  # elements of a call that is worth repeating


@dataclass
class Canary:
    """What one process knows: the last call that returned, and what spoilt the process, if anything has."""

    good: tuple[str, Case] | None = field(default=None, repr=False)  # its form, and the call
    typical: Callable[[], Any] | None = field(default=None, repr=False)  # a call that returned before any check did
    spoilt: str = ""  # the first call that raised of those that have raised ever since

    def returned(self, form: str, case: Case) -> None:
        """Remember a call that returned."""
        if sum(a.size for a in case.arrays.values() if a is not None) <= LARGEST:
            self.good = form, case

    def after(self, error: BaseException, what: Any, subject: Subject) -> Ended | None:
        """Return what to say if a call, which has raised an error, has spoilt the process; None if it has not."""
        known = self.good is not None or self.typical is not None
        if not self.spoilt and known and not self._returns(subject):
            self.spoilt = f"every call raises since {what} raised {told(error)}"
        return Ended(self.spoilt, "crash") if self.spoilt else None

    def _returns(self, subject: Subject) -> bool:
        """Whether the call that returned before does so again."""
        for _ in range(TRIES):
            try:
                self._call(subject)
            except Raised:
                continue
            except (Unsupported, Unusable):
                pass
            return True
        return False

    def _call(self, subject: Subject) -> None:
        if self.good is None:
            assert self.typical is not None
            with theirs():
                self.typical()
            return
        form, case = self.good
        copies = {name: None if a is None else np.array(a) for name, a in case.arrays.items()}
        subject.call(case.stem, form, copies, case.arguments)

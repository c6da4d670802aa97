"""Cases outside the domain that a subject declares, and the law that such a call is right or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnspec.adapters.blame import KnownDefect, OutOfDomain
from nnspec.adapters.names import LONG
from nnspec.adapters.subject import Unsupported
from nnspec.conformance.case import Case
from nnspec.conformance.checks.laws import Judge, Law, law
from nnspec.conformance.drawing import Decision, Draw, any_of, composite
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial


@composite
def outside(draw: Draw, *, of: Callable[..., Decision[Case]], dtype: str, lacks: frozenset[str], **choices: Any):
    """Cases of the strategy `of` with one quantity outside the domain, or in a dtype outside it.

    Arguments that are written into the code of the subject can have no other value.
    """
    domain = draw.domain
    others = tuple(name for name in LONG if name not in domain.dtypes) if domain.dtypes else ()
    names = [name for name in domain.conditions if name not in draw.written and domain.beyond(name)]
    names += ["dtype"] if others else []
    if not names:
        raise OutOfDomain("no argument leads outside the domain")
    name = draw(any_of(*names))
    if name == "dtype":
        return draw(of(dtype=draw(any_of(*others)), lacks=lacks, **choices))
    draw.domain = domain.fixing(name, draw(any_of(*domain.beyond(name))))
    return draw(of(dtype=dtype, lacks=lacks, **choices))


def right_or_refused(right: Law) -> Law:
    """Return the law that a call is as the law `right` says, or raises an exception."""

    @law()
    def is_right_or_refused(subject: Trial, case: Any, judge: Judge) -> None:
        """The result is right, or there is none: the call raises an exception."""
        try:
            right(subject.beyond(), case, judge)
        except KnownDefect:
            raise
        except Unsupported:
            return
        except Mismatch as mismatch:
            if mismatch.raised is None:
                excluded = subject.excludes(case) if isinstance(case, Case) else "outside the domain"
                mismatch.message += f"; the call is {excluded or 'in the domain'}"
                raise

    return is_right_or_refused

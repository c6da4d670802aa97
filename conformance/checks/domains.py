"""Cases outside the domain that a subject declares, or shows, and laws about such calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nnspec.adapters.blame import KnownDefect, OutOfDomain
from nnspec.adapters.names import LONG
from nnspec.adapters.subject import Lacks, Unsupported
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
    domain = draw.domain  # what the subject shows, other requirements are about
    others = tuple(name for name in LONG if name not in domain.dtypes) if domain.dtypes else ()
    names = [n for n in domain.claimed.conditions if n not in draw.written and domain.beyond(n)]
    names += ["dtype"] if others else []
    if not names:
        raise OutOfDomain("no argument leads outside the domain")
    name = draw(any_of(*names))
    if name == "dtype":
        return draw(of(dtype=draw(any_of(*others)), lacks=lacks, **choices))
    draw.domain = domain.fixing(name, draw(any_of(*domain.beyond(name))))
    return draw(of(dtype=dtype, lacks=lacks, **choices))


# of each argument of rows and columns: unequal pairs
UNEQUAL: dict[str, tuple[tuple[int, int], ...]] = {
    "kernel_size": ((1, 2), (2, 1), (2, 3), (3, 1)),
    "stride": ((1, 2), (2, 1), (2, 3)),
    "padding": ((0, 1), (1, 0)),
    "dilation": ((1, 2), (2, 1), (2, 3)),
    "output_padding": ((0, 1), (1, 0)),
}


@composite
def asking(draw: Draw, *, quantity: str, of: Callable[..., Decision[Case]], **choices: Any):
    """Cases of the strategy `of`, whatever the subject shows not to take of a quantity."""
    draw.domain = draw.domain.asking(quantity)
    return draw(of(**choices))


@composite
def unequal(
    draw: Draw,
    *,
    of: Callable[..., Decision[Case]],
    stem: str,
    names: tuple[str, ...],
    lacks: frozenset[str],
    **choices: Any,
):
    """Cases of the strategy `of` in which one of these arguments has different numbers for rows and for columns.

    They lie within the domain that the subject declares, whatever it shows not to take of that argument.
    """
    domain = draw.domain.claimed
    possible = {n: [p for p in UNEQUAL[n] if domain.allows(n, p)] for n in names if n not in lacks}
    if not possible:
        raise Lacks(f"there is no argument {' or '.join(names)}")
    if not any(possible.values()):
        raise OutOfDomain(domain.outside(next(name for name in possible if name in domain.conditions)))
    name = draw(any_of(*(name for name, pairs in possible.items() if pairs)))
    draw.domain = replace(draw.domain.asking(name), stem=stem).fixing(name, draw(any_of(*possible[name])))
    return draw(of(lacks=lacks, **choices))


@law()
def is_accepted(subject: Trial, case: Case, judge: Judge) -> None:
    """The call returns. Whether it is right, other checks ask, but for what the subject shows not to take."""
    result = subject.beyond()(case)
    if subject.excludes(case):
        subject.expect(result, judge(case))


def anywhere(right: Law) -> Law:
    """Return the law `right` about calls that may lie outside what the subject shows to take."""

    @law(**right.options)
    def holds_anywhere(subject: Trial, case: Any, judge: Judge) -> None:
        """It holds, whatever the subject shows not to take."""
        right(subject.beyond(), case, judge)

    return holds_anywhere


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

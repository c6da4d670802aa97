"""One typical call of a block: what checks use that call a block without judging it."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.domains import Domain
from nnspec.adapters.subject import Subject, SubjectError
from nnspec.conformance.case import Case, whole
from nnspec.conformance.checks import load_checks
from nnspec.conformance.drawing import Decision, Draw
from nnspec.conformance.formats import is_floating
from nnspec.conformance.requirements import CHECKS, requirements
from nnspec.conformance.trial.record import COSTLY
from nnspec.conformance.trial.search import rows
from nnspec.conformance.trial.trial import Trial

DRAWN, LARGEST = 8, 4096  # cases to choose from; elements of one at most


def typical_cases(trial: Trial, stem: str, backward: bool = False) -> Iterator[Case]:
    """The cases of the first check of such cases on the block's page, in whole numbers, the largest first."""
    lacks, domain = frozenset(trial.subject.lacks(stem, trial.form)), trial.subject.domain(stem)
    yield from _typical_cases(stem, backward, trial.form, trial.dtype, lacks, domain)


@functools.lru_cache(256)
def _typical_cases(
    stem: str, backward: bool, form: str, dtype: str, lacks: frozenset[str], domain: Domain
) -> list[Case]:
    for drawn in _cases_of_checks(stem, form, dtype, lacks, domain):
        found = [case for case in drawn if _is_typical(case, stem, backward)]
        small = [case for case in found if _size(case) <= LARGEST]
        if found := small or sorted(found, key=_size)[: bool(domain)]:  # a domain may have no small cases
            in_evaluation = {"training": False} if form == "class" and "training" in found[0].arguments else {}
            return sorted((whole(case).but(**in_evaluation) for case in found), key=_size, reverse=True)
    return []


def _cases_of_checks(stem: str, form: str, dtype: str, lacks: frozenset[str], domain: Domain) -> Iterator[list[Any]]:
    """Yield some cases of each check on the block's page."""
    load_checks([stem])
    missing = lacks - domain.fixed
    for identifier in requirements():
        check = CHECKS.get(identifier)
        if check is None or check.stem != stem or form not in check.forms or dtype not in check.dtypes:
            continue
        if (missing | {"domain"}) & {*check.needs} or not check.per_dtype or check.effort >= COSTLY:
            continue
        decision = check.drawn(dtype, lacks, domain=domain)
        if not isinstance(decision, type):  # a state machine has no cases
            yield [*_drawn(decision)]


def _with_every_operand(stem: str, form: str, dtype: str, lacks: frozenset[str], domain: Domain) -> Iterator[Case]:
    """Yield the smallest of the first cases on the block's page in which no operand is absent."""
    for drawn in _cases_of_checks(stem, form, dtype, lacks, domain):
        found = [case for case in drawn if _is_typical(case, stem, False)]
        found = [case for case in found if all(array is not None for array in case.arrays.values())]
        found = [case for case in found if domain.excludes_call(case.arrays, case.arguments) is None]
        if found:
            yield min(found, key=_size)
            return


def with_typical_calls(subject: Subject, blocks: Collection[str] | None) -> Subject:
    """Return the subject with typical calls within the domains of these blocks, or of all.

    Raises SubjectError for a domain within which no case can be drawn.
    """
    typical = {}
    for stem, domain in subject.domains.items():
        for form in subject.forms(stem) if domain.conditions and (not blocks or stem in blocks) else ():
            lacks, dtype = frozenset(subject.lacks(stem, form)), subject.within(stem).dtypes[0]
            for name in sorted(lacks & domain.conditions.keys()):
                if name not in domain.fixed and not domain.allows(name, domain.quantity(name).neutral):
                    message = f"the {form} has no argument {name}; expected one value of {stem}.{name}"
                    raise SubjectError(f"{subject.name}: DOMAIN: {message}")
            about = form, dtype, lacks, domain
            if not (cases := _typical_cases(stem, False, *about)):
                drawn = [*_cases_of_checks(stem, *about)]
                if any(drawn) or not drawn:  # its cases are programs, or all of its checks take long
                    continue
                raise SubjectError(f"{subject.name}: no case of {stem} can be drawn within its domain, {domain}")
            typical[stem] = tuple(
                ({name: None if a is None else a.shape for name, a in case.arrays.items()}, case.arguments)
                for case in (*_with_every_operand(stem, *about), *reversed(cases))
            )
    return replace(subject, typical=typical) if typical else subject


def _drawn(decision: Decision[Any]) -> Iterator[Any]:
    for row in rows(0, DRAWN):
        with suppress(OutOfDomain):
            yield decision.make(Draw(row))


def _is_typical(case: Any, stem: str, backward: bool) -> bool:
    """Whether it is one call, with a cotangent or without, on ordinary numbers."""
    if not isinstance(case, Case) or case.stem != stem or "tangent" in case.arrays:
        return False
    arrays = [a for a in case.arrays.values() if a is not None]
    usual = all(a.size and is_floating(a.dtype) and np.isfinite(a.astype(np.float64)).all() for a in arrays)
    return bool(arrays) and usual and ("cotangent" in case.arrays) == backward


def _size(case: Case) -> int:
    return sum(a.size for a in case.arrays.values() if a is not None)

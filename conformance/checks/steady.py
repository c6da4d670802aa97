"""Whether a block gives the same result in every call with the same operands.

A race or memory that nobody initialised spoils one call of many. A check that fails now and then because of it names
the wrong requirement, and so this is looked at before all checks: one case in whole numbers, whose sums are the same in
any order of summation, is called so often that a fault in one call of twenty goes unseen once in two thousand runs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import noting_interrupts
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Unsupported
from nnspec.conformance.case import Case, whole
from nnspec.conformance.drawing import Draw
from nnspec.conformance.formats import is_floating
from nnspec.conformance.requirements import CHECKS, requirements
from nnspec.conformance.trial.record import COSTLY, Mismatch
from nnspec.conformance.trial.search import rows
from nnspec.conformance.trial.trial import Trial

CALLS = 150
SECONDS = 0.4  # of computing, for results and again for gradients; a block that takes longer is called less often
WAITING = 1.0  # seconds that may pass meanwhile, on a machine that has other things to do
DRAWN, LARGEST = 8, 4096  # cases to choose from; elements of one at most
Record = dict[str, Any]


def unsteady(trial: Trial, stem: str, *, gradients: bool = True) -> Record | None:
    """Return what a report says of a block that gives different results for the same operands; None if it does not.

    The block's function is called, or one module of its class in evaluation mode; and its gradients are taken.
    """
    if not (SIGNATURES[stem].function or SIGNATURES[stem].operands):  # it is no block that is called
        return None
    with noting_interrupts():
        return _compared(trial, stem, False) or (_compared(trial, stem, True) if gradients else None)


def _compared(trial: Trial, stem: str, backward: bool) -> Record | None:
    act: Callable[[Trial, Case], Any] = Trial.gradients if backward else Trial.results
    for case in _cases(trial, stem, backward):
        subject = replace(trial, steps=[], seen=[])
        try:
            if trial.form == "class" and not backward:
                subject = subject.kept(case)
            act(subject, case)
        except (Mismatch, Unsupported):  # nothing to compare: the checks will tell of it, or a smaller case will do
            continue
        seen = _outcomes(subject, act, case)
        return _told(trial, "gradients" if backward else "results", case, seen) if len(seen) > 1 else None
    return None


def _cases(trial: Trial, stem: str, backward: bool) -> Iterator[Case]:
    """The cases of the first check of such cases on the block's page, in whole numbers, the largest first."""
    lacks = trial.subject.lacks(stem, trial.form)
    for identifier in requirements():
        check = CHECKS.get(identifier)
        if check is None or check.stem != stem or trial.form not in check.forms or trial.dtype not in check.dtypes:
            continue
        if lacks & {*check.needs} or not check.per_dtype or check.effort >= COSTLY:
            continue
        decision = check.drawn(trial.dtype, lacks)
        if isinstance(decision, type):  # a state machine has no cases
            continue
        drawn = [decision.make(Draw(row)) for row in rows(0, DRAWN)]
        if found := [case for case in drawn if _is_typical(case, stem, backward)]:
            in_evaluation = {"training": False} if trial.form == "class" and "training" in found[0].arguments else {}
            yield from sorted((whole(case).but(**in_evaluation) for case in found), key=_size, reverse=True)
            return


def _is_typical(case: Any, stem: str, backward: bool) -> bool:
    """Whether it is one call, with a cotangent or without, on ordinary numbers."""
    if not isinstance(case, Case) or case.stem != stem or "tangent" in case.arrays:
        return False
    arrays = [a for a in case.arrays.values() if a is not None]
    usual = all(a.size and is_floating(a.dtype) and np.isfinite(a.astype(np.float64)).all() for a in arrays)
    return bool(arrays) and usual and ("cotangent" in case.arrays) == backward and _size(case) <= LARGEST


def _size(case: Case) -> int:
    return sum(a.size for a in case.arrays.values() if a is not None)


def _outcomes(subject: Trial, act: Callable[[Trial, Case], Any], case: Case) -> Counter[Any]:
    """Count what the calls gave, bit by bit."""
    seen: Counter[Any] = Counter()
    computed, waited = time.thread_time() + SECONDS, time.perf_counter() + WAITING
    while seen.total() < CALLS and time.thread_time() < computed and time.perf_counter() < waited:
        subject.steps, subject.seen = [], []
        try:
            seen[_bits(act(subject, case))] += 1
        except Mismatch as mismatch:
            seen[mismatch.words] += 1
    return seen


def _bits(results: Any) -> tuple[Any, ...]:
    """What makes two results equal: shapes, dtypes and every bit, where all NaN are one."""
    arrays = results.values() if isinstance(results, dict) else results
    return tuple((a.shape, a.dtype.name, np.where(np.isnan(a), np.nan, a).tobytes()) for a in arrays)


def _told(trial: Trial, what: str, case: Case, seen: Counter[Any]) -> Record:
    calls, differing = seen.total(), seen.total() - max(seen.values())
    about = {"block": case.stem, "form": trial.form, "dtype": trial.dtype, "calls": calls, "differing": differing}
    message = f"{what} differ from call to call: {differing} of {calls} calls of {case} gave another result"
    return {**about, "message": message}

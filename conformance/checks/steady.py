"""Whether a block gives the same result in every call with the same operands.

A race or memory that nobody initialised spoils one call of many. A check that fails now and then because of it names
the wrong requirement, and so this is looked at before all checks: one case in whole numbers, whose sums are the same in
any order of summation, is called so often that a fault in one call of twenty goes unseen once in two thousand runs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import noting_interrupts
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Unsupported
from nnspec.conformance.case import Case
from nnspec.conformance.checks.typical import typical_cases
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial

CALLS = 150
SECONDS = 0.4  # of computing, for results and again for gradients; a block that takes longer is called less often
WAITING = 1.0  # seconds that may pass meanwhile, on a machine that has other things to do
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
    for case in typical_cases(trial, stem, backward):
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

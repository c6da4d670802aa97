"""Whether a block gives the same result in every call with the same operands.

A race or memory that nobody initialised spoils one call of many. A check that fails now and then because of it names
the wrong requirement, and so this is looked at before all checks: one case in whole numbers, whose sums are the same in
any order of summation, is called so often that a fault in one call of twenty goes unseen once in two thousand runs.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from nnspec.adapters.blame import Raised, Unusable, noting_interrupts
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Unsupported
from nnspec.conformance.case import Case
from nnspec.conformance.checks.typical import typical_cases
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial

CALLS = 150
SECONDS = 0.4  # of computing, for results and again for gradients; a block that takes longer is called less often
WAITING = 1.0  # seconds that may pass meanwhile, on a machine that has other things to do
AT_ONCE = 0.1  # seconds in which two threads call at once
LONG = 20_000  # elements of x, during whose copy Python lets the other thread run
SWITCHING = 1e-6  # seconds after which Python lets the other thread run
Record = dict[str, Any]


def unsteady(trial: Trial, stem: str, *, gradients: bool = True) -> Record | None:
    """Return what a report says of a block that gives different results for the same operands; None if it does not.

    The block's function is called, or one module of its class in evaluation mode. With `gradients`, these are taken,
    too, and two threads call the function at once.
    """
    if not (SIGNATURES[stem].function or SIGNATURES[stem].operands):  # it is no block that is called
        return None
    with noting_interrupts():
        found = _compared(trial, stem, False)
        if gradients:
            found = found or _compared(trial, stem, True) or _at_once(trial, stem)
        return found


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


def _at_once(trial: Trial, stem: str) -> Record | None:
    """Compare what two threads get, which call a function at once with other numbers, with what each call gives alone.

    A place that all calls write to, such as scratch memory, then holds what the other call has written. On a GPU each
    thread has a stream of its own.
    """
    subject = trial.subject
    unsafe = subject.compiles_per_shape or subject.domain(stem).claimed.conditions or not subject.framework.concurrent
    if trial.form == "class" or unsafe:
        return None
    for case in map(_longer, typical_cases(trial, stem)):
        both = case, case.map(lambda a: a + np.ones((), a.dtype))
        alone = [_alone(trial, one) for one in both]
        if alone[0] == alone[1] or not all(isinstance(bits, tuple) for bits in alone):
            continue
        if trial.journal:
            trial.journal.note(f"{case}, called from two threads at once")
        seen = [Counter[Any]() for _ in both]
        meet = threading.Barrier(len(both))
        _run_at_once([partial(_call_on, trial, one, counts, meet) for one, counts in zip(both, seen, strict=True)])
        if trial.journal:
            trial.journal.rest()
        calls, right = sum(c.total() for c in seen), sum(c[a] for c, a in zip(seen, alone, strict=True))
        message = f"results differ where two threads call at once: {calls - right} of {calls} calls of {case} gave "
        about = {"block": stem, "form": trial.form, "dtype": trial.dtype, "calls": calls, "differing": calls - right}
        return {**about, "message": message + "another result than alone"} if calls > right else None
    return None


def _longer(case: Case) -> Case:
    """The case with so large a batch that calls overlap; as it is where x has no batch."""
    x = case.arrays.get("x")
    return case if x is None or not x.ndim else case.but(x=np.concatenate([x] * -(-LONG // x.size)))


def _alone(trial: Trial, case: Case) -> Any:
    """The bits of a call's results, or in words that it raises."""
    copies = {name: None if a is None else a.copy() for name, a in case.arrays.items()}
    try:
        return _bits(trial.subject.call(case.stem, trial.form, copies, case.arguments))
    except (Raised, Unusable, Unsupported) as failed:
        return str(failed)


def _call_on(trial: Trial, case: Case, seen: Counter[Any], meet: threading.Barrier) -> None:
    """Call again and again for some time, each time together with the other thread, and count what the calls give."""
    until = time.perf_counter() + AT_ONCE
    try:
        with trial.subject.framework.stream(), suppress(threading.BrokenBarrierError):
            while seen.total() < CALLS and time.perf_counter() < until:
                meet.wait(WAITING)
                seen[_alone(trial, case)] += 1
    finally:
        meet.abort()


def _run_at_once(acts: Sequence[Callable[[], None]]) -> None:
    """Run functions in threads that take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCHING)
    threads = [threading.Thread(target=act) for act in acts]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)


def _bits(results: Any) -> tuple[Any, ...]:
    """What makes two results equal: shapes, dtypes and every bit, where all NaN are one."""
    arrays = results.values() if isinstance(results, dict) else results
    return tuple((a.shape, a.dtype.name, np.where(np.isnan(a), np.nan, a).tobytes()) for a in arrays)


def _told(trial: Trial, what: str, case: Case, seen: Counter[Any]) -> Record:
    calls, differing = seen.total(), seen.total() - max(seen.values())
    about = {"block": case.stem, "form": trial.form, "dtype": trial.dtype, "calls": calls, "differing": differing}
    message = f"{what} differ from call to call: {differing} of {calls} calls of {case} gave another result"
    return {**about, "message": message}

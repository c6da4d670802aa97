"""The smallest case found in which a call ends its process: each candidate is called in a process of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from nnspec.adapters.signatures import cotangents
from nnspec.adapters.subject import Subject
from nnspec.conformance.case import Case, minimise

PATIENCE = 2.0  # seconds after which a call counts as one that returns
BUDGET = 10.0  # seconds for all candidates of a case
CALLS = 100  # candidates of the values
EVERY = 0.005  # seconds between two looks at a process


def smallest_crash(subject: Subject, form: str, case: Case) -> Case | None:
    """Return the smallest case found whose call ends the process, too; None where the call ends no forked process."""
    until = time.monotonic() + BUDGET

    def dies(candidate: Case) -> bool:
        return time.monotonic() < until and _dies(subject, form, candidate)

    return minimise(_shorter(case, dies), dies, CALLS) if dies(case) else None


def _dies(subject: Subject, form: str, case: Case) -> bool:
    """Whether a call ends a process that is forked for it, before it returns or raises."""
    process = os.fork()
    if not process:
        _call(subject, form, case)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status != 0
        time.sleep(EVERY)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def _call(subject: Subject, form: str, case: Case) -> None:
    """Make a call in this process, and end it with status 0 unless the call does otherwise."""
    try:
        if any(cotangents(case.arrays)):
            subject.gradients(case.stem, form, case.arrays, case.arguments)
        else:
            subject.call(case.stem, form, case.arrays, case.arguments)
    except BaseException:  # a call that raises ends no process
        os._exit(0)
    os._exit(0)


def _shorter(case: Case, dies: Callable[[Case], bool]) -> Case:
    """Return the case with axes cut, while its call still ends the process."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _cuts(case):
            if dies(candidate):
                case, smaller = candidate, True
                break
    return case


def _cuts(case: Case) -> Iterator[Case]:
    """The case with all axes of one size cut alike, or one axis alone: to one element, or to half."""
    arrays = {name: a for name, a in case.arrays.items() if a is not None}
    for size in sorted({n for a in arrays.values() for n in a.shape if n > 1}, reverse=True):
        for to in dict.fromkeys((1, size // 2)):
            yield case.map(partial(_cut_size, size, to))
    for name, array in arrays.items():
        for axis, size in enumerate(array.shape):
            for to in dict.fromkeys((1, size // 2)) if size > 1 else ():
                yield case.but(**{name: _cut(array, [axis], to)})


def _cut_size(size: int, to: int, array: np.ndarray) -> np.ndarray:
    """The first elements of an array along all axes of one size."""
    return _cut(array, [axis for axis in range(array.ndim) if array.shape[axis] == size], to)


def _cut(array: np.ndarray, axes: list[int], to: int) -> np.ndarray:
    """The first elements of an array along some axes."""
    return np.array(array[tuple(slice(to) if axis in axes else slice(None) for axis in range(array.ndim))])

"""One typical call of a block: what checks use that call a block without judging it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from nnspec.conformance.case import Case, whole
from nnspec.conformance.checks import load_checks
from nnspec.conformance.drawing import Draw
from nnspec.conformance.formats import is_floating
from nnspec.conformance.requirements import CHECKS, requirements
from nnspec.conformance.trial.record import COSTLY
from nnspec.conformance.trial.search import rows
from nnspec.conformance.trial.trial import Trial

DRAWN, LARGEST = 8, 4096  # cases to choose from; elements of one at most


def typical_cases(trial: Trial, stem: str, backward: bool = False) -> Iterator[Case]:
    """The cases of the first check of such cases on the block's page, in whole numbers, the largest first."""
    yield from _typical_cases(stem, backward, trial.form, trial.dtype, frozenset(trial.subject.lacks(stem, trial.form)))


@functools.lru_cache(256)
def _typical_cases(stem: str, backward: bool, form: str, dtype: str, lacks: frozenset[str]) -> list[Case]:
    load_checks()
    for identifier in requirements():
        check = CHECKS.get(identifier)
        if check is None or check.stem != stem or form not in check.forms or dtype not in check.dtypes:
            continue
        if lacks & {*check.needs} or not check.per_dtype or check.effort >= COSTLY:
            continue
        decision = check.drawn(dtype, lacks)
        if isinstance(decision, type):  # a state machine has no cases
            continue
        drawn = [decision.make(Draw(row)) for row in rows(0, DRAWN)]
        if found := [case for case in drawn if _is_typical(case, stem, backward)]:
            in_evaluation = {"training": False} if form == "class" and "training" in found[0].arguments else {}
            return sorted((whole(case).but(**in_evaluation) for case in found), key=_size, reverse=True)
    return []


def _is_typical(case: Any, stem: str, backward: bool) -> bool:
    """Whether it is one call, with a cotangent or without, on ordinary numbers."""
    if not isinstance(case, Case) or case.stem != stem or "tangent" in case.arrays:
        return False
    arrays = [a for a in case.arrays.values() if a is not None]
    usual = all(a.size and is_floating(a.dtype) and np.isfinite(a.astype(np.float64)).all() for a in arrays)
    return bool(arrays) and usual and ("cotangent" in case.arrays) == backward and _size(case) <= LARGEST


def _size(case: Case) -> int:
    return sum(a.size for a in case.arrays.values() if a is not None)

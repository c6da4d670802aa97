"""Laws of memory: a call keeps to its operands, writes all of its results, and takes operands wherever they lie.

The laws compare results of the subject with one another. Of gradients, and of results beside the first, they ask that
no NaN of the memory around or under them appears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from nnspec.adapters.signatures import COTANGENT
from nnspec.adapters.subject import Unsupported
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Array, Case
from nnspec.conformance.checks.laws import Judge, law, own
from nnspec.conformance.layouts import ALIGNED, PATTERNS, offsets
from nnspec.conformance.trial import guards
from nnspec.conformance.trial.record import CallFails, Mismatch
from nnspec.conformance.trial.trial import Trial


@law(effort=7)
def stays_in_bounds(subject: Trial, case: Case, judge: Judge) -> None:
    """Memory around the operands is not written to, and what it holds does not show in results or gradients."""
    guards.need_places(subject)
    plain, backward = _presumed(subject, case, judge), _with_cotangent(subject, case)
    for offset in offsets(np.dtype(subject.dtype)):
        numbers, others = guards.call(subject, case, offset, PATTERNS[0]), [rule.source for rule in plain[1:]]
        beside = [_no_nan(result, source) for result, source in zip(numbers[1:], others, strict=True)]
        expected = [replace(own(numbers[0], judge(case)), source=plain[0].source), *beside]
        for value in PATTERNS[1:]:
            _expect(subject, guards.call(subject, case, offset, value), expected, _in_place(value))
    if backward and (gradients := _gradients(subject, backward)):
        one = np.dtype(subject.dtype).itemsize
        guards.call(subject, backward, one, PATTERNS[0], Trial.gradients)
        for value in PATTERNS[1:]:
            ways_back = guards.call(subject, backward, one, value, Trial.gradients)
            _expect_gradients(subject, ways_back, gradients, _in_place(value))


def _in_place(value: float) -> str:
    return f"with {_told(value)} in place of numbers around the operands,"


@law(effort=7)
def writes_everything(subject: Trial, case: Case, judge: Judge) -> None:
    """What the memory of a result held before does not show in it."""
    guards.need_dirt(subject)
    results, backward = _presumed(subject, case, judge), _with_cotangent(subject, case)
    gradients = _gradients(subject, backward) if backward else {}
    first, layer = results[0].value, subject.kept(case)
    like = [np.empty(first.shape, subject.dtype), *gradients.values()]
    for value in PATTERNS:
        before = f"after freed memory was filled with {_told(value)},"
        with guards.dirtied(subject, like, value):
            found = layer.results(case)
        _expect(subject, found, results, before)
        if backward and gradients and np.isnan(value):
            with guards.dirtied(subject, like, value):
                ways_back = subject.gradients(backward)
            _expect_gradients(subject, ways_back, gradients, before)


@law(effort=7)
def ignores_alignment(subject: Trial, case: Case, judge: Judge) -> None:
    """Operands may begin at any address that an element can have."""
    guards.need_places(subject)
    _presumed(subject, case, judge)
    aligned = own(guards.call(subject, case, 0, 0.0, untouched=False)[0], judge(case))
    for offset in offsets(np.dtype(subject.dtype)):
        result = guards.call(subject, case, offset, 0.0, untouched=False)[0]
        what = f"with operands {offset} bytes behind an address divisible by {ALIGNED}, the result"
        subject.expect(result, aligned, what)


def _told(value: float) -> str:
    return "NaN" if np.isnan(value) else f"±{value:g}"


def _presumed(subject: Trial, case: Case, judge: Judge) -> list[Expected]:
    """What is expected of all results, by those of a plain call. CallFails where it raises, which others judge."""
    try:
        first, *others = subject.results(case)
    except Mismatch as mismatch:
        raise CallFails(mismatch.message) from None
    return [own(first, judge(case)), *(_no_nan(other) for other in others)]


def _no_nan(found: Array, source: Array | None = None) -> Expected:
    """Anything but NaN where it has none. A script computes `source`, or what was found."""
    return Expected(found, np.inf, found if source is None else source)


def _with_cotangent(subject: Trial, case: Case) -> Case | None:
    """The case with a cotangent of whole numbers; None where nothing differentiates the block."""
    if subject.module is not None or "vjp" in subject.subject.lacks(case.stem, subject.form):
        return None
    result = subject.seen[-1][1][0]
    cotangent = (np.arange(result.size) % 5 - 2).reshape(result.shape).astype(result.dtype)
    return replace(case, arrays={**case.arrays, COTANGENT: cotangent})


def _gradients(subject: Trial, case: Case) -> dict[str, Array]:
    """The gradients of a plain call; none where it raises, which other checks judge."""
    try:
        return subject.gradients(case)
    except (Mismatch, Unsupported):
        return {}


def _expect(subject: Trial, found: Sequence[Array], expected: Sequence[Expected], how: str) -> None:
    for n, (result, rule) in enumerate(zip(found, expected, strict=True)):
        subject.expect(result, rule, f"{how} the result" if n == 0 else f"{how} result {n}")


def _expect_gradients(subject: Trial, found: Mapping[str, Array], expected: Mapping[str, Array], how: str) -> None:
    for name, gradient in expected.items():
        if name in found:
            subject.expect(found[name], _no_nan(gradient), f"{how} the gradient of {name}")

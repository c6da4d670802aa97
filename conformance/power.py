"""How strong the checks are: every fault must be killed by the check that bears its requirement."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import nnspec.conformance
from nnspec.conformance.faults import Fault, catalogue
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial import Outcome, Trial, forms


@dataclass(frozen=True)
class Verdict:
    """What one fault met with one seed."""

    fault: Fault
    seed: int
    killed: bool
    outcome: Outcome | None  # None where its requirement has no check, or the check does not apply to it


def load_checks() -> None:
    """Import every check file, which registers its checks."""
    for module in pkgutil.iter_modules(nnspec.conformance.__path__):
        if module.name.startswith("test_"):
            importlib.import_module(f"nnspec.conformance.{module.name}")


def measure(faults: Iterable[Fault], profile: str, seeds: Iterable[int]) -> Iterator[Verdict]:
    """Put each fault to its own check. The first dtype in which it fails kills it."""
    load_checks()
    seeds = list(seeds)
    for fault in faults:
        subject = fault.subject()
        for seed in seeds:
            outcome = _judge(fault, subject, profile, seed)
            yield Verdict(fault, seed, outcome is not None and outcome.verdict == "fail", outcome)


def _judge(fault, subject, profile: str, seed: int) -> Outcome | None:
    check, outcome = CHECKS.get(fault.requirement), None
    if check is None:
        return None
    for form in forms(subject, check):
        for dtype in ("float32", "float64") if check.per_dtype else ("float32",):
            outcome = Trial(subject, form, dtype, profile, seed).run(check)
            if outcome.verdict == "fail":
                return outcome
    return outcome


def faults_of(blocks: Iterable[str] = ()) -> list[Fault]:
    """The catalogue, or the part of it that belongs to some blocks."""
    wanted = set(blocks)
    return [f for f in catalogue().values() if not wanted or f.requirement.split(".")[0] in wanted]

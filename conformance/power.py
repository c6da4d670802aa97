"""How strong the checks are: every fault must be killed by the check that bears its requirement."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import nnspec.conformance
from nnspec.adapters.names import LONG
from nnspec.adapters.subject import Subject
from nnspec.conformance.faults import Fault, catalogue
from nnspec.conformance.requirements import CHECKS, Check
from nnspec.conformance.trial import Outcome, Trial, forms


@dataclass(frozen=True)
class Verdict:
    """What one fault met with one seed."""

    key: str
    seed: int
    killed: bool
    why: str  # what the check said; or that there is none, or that it does not apply

    @property
    def stem(self) -> str:
        """The block."""
        return self.key.split(".")[0]


def load_checks() -> None:
    """Import every check file, which registers its checks."""
    for module in pkgutil.iter_modules(nnspec.conformance.__path__):
        if module.name.startswith("test_"):
            importlib.import_module(f"nnspec.conformance.{module.name}")


def measure(key: str, profile: str, seed: int) -> Verdict:
    """Put a fault to its own check. The first form and dtype in which it fails kills it."""
    load_checks()
    fault = catalogue()[key]
    check = CHECKS.get(fault.requirement)
    outcome = judge(fault.subject(), check, profile, seed) if check else None
    if outcome is None:
        return Verdict(key, seed, False, "no check applies")
    return Verdict(key, seed, outcome.verdict == "fail", outcome.reason or outcome.verdict)


def measure_all(faults: Iterable[Fault], profile: str, seeds: Iterable[int], workers: int = 1) -> Iterator[Verdict]:
    """Every fault with every seed, over worker processes."""
    jobs = [(f.key, profile, seed) for f in faults for seed in seeds]
    if workers < 2:
        yield from (measure(*job) for job in jobs)
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before the workers import NumPy
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(measure, *job) for job in jobs]):
            yield done.result()


def judge(subject: Subject, check: Check, profile: str, seed: int) -> Outcome | None:
    """What a check comes to in the first form and dtype in which it fails, or else in the last; None without a form."""
    outcome = None
    for form in forms(subject, check):
        for dtype in LONG if check.per_dtype else LONG[:1]:
            outcome = Trial(subject, form, dtype, profile, seed).run(check)
            if outcome.verdict == "fail":
                return outcome
    return outcome


def faults_of(blocks: Iterable[str] = ()) -> list[Fault]:
    """The catalogue, or the part of it that belongs to some blocks."""
    wanted = set(blocks)
    return [f for f in catalogue().values() if not wanted or f.requirement.split(".")[0] in wanted]

"""Whether a correct subject ever falls outside its class, and how much of the bounds it uses.

    python benchmarks/quality/soundness.py torch --outputs 50000

An output is an array that a check compares with what the specification says, where that allows for rounding. All
checks of all blocks are run, at `quick` if nothing is said, seed after seed, until there are as many outputs of a
dtype. The table has for each block the largest error / bound, the median of the largest in each output that rounding
has touched at all, and the classes that they were in. Exit status 1 if a *must* fails that no waiver covers.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
from nnspec.adapters.loading import load
from nnspec.adapters.names import DTYPES, LONG
from nnspec.adapters.signatures import SIGNATURES
from nnspec.conformance.bounds.arithmetic import CLASSES
from nnspec.conformance.bounds.rule import Expected, compare
from nnspec.conformance.checks import load_checks
from nnspec.conformance.report import waivers
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.run import forms
from nnspec.conformance.trial.search import PROFILES
from nnspec.conformance.trial.trial import Trial


@dataclass
class Observed(Trial):
    """A trial that keeps the largest error / bound of each output."""

    ratios: list[float] = field(default_factory=list)

    def expect(self, actual: np.ndarray, expected: Expected, *more: Any, **named: Any) -> None:
        super().expect(actual, expected, *more, **named)
        self._keep(actual, expected)

    def expect_one(
        self, actual: Sequence[np.ndarray], ways: Iterable[Sequence[Expected]], what: Sequence[str]
    ) -> Sequence[Expected]:
        best = super().expect_one(actual, ways, what)
        for one, expected in zip(actual, best, strict=True):
            self._keep(one, expected)
        return best

    def _keep(self, actual: np.ndarray, expected: Expected) -> None:
        accuracy = self.compared.open[0]
        if np.any(expected.within(accuracy)) and np.all(np.isfinite(expected.stored(actual.dtype, accuracy).bound)):
            self.ratios.append(float(compare(actual, expected, accuracy)[2].max(initial=0)))


@dataclass
class Tally:
    """What was seen of a block in a dtype."""

    ratios: list[float] = field(default_factory=list)
    classes: Counter[str] = field(default_factory=Counter)
    outside: list[str] = field(default_factory=list)
    shoulds: Counter[str] = field(default_factory=Counter)


def observe(name: str, stem: str, dtype: str, profile: str, seed: int) -> tuple[str, Tally]:
    """All checks of a block, in one dtype and with one seed."""
    load_checks()
    warnings.simplefilter("ignore")
    subject, tally = load(name), Tally()
    for check in [c for c in CHECKS.values() if c.stem == stem and dtype in c.dtypes]:
        for form in forms(subject, check):
            trial = Observed(subject, form, dtype, profile, seed)
            outcome: Any = trial.run(check)
            tally.ratios += trial.ratios
            tally.classes[outcome.accuracy or "-"] += len(trial.ratios)
            if outcome.verdict != "fail" or waivers.find(waivers.load(None), name, check.identifier, form, dtype):
                continue
            if check.decides:
                tally.outside.append(f"{check.identifier} {form} seed {seed}: {outcome.reason}")
            else:
                tally.shoulds[check.identifier] += 1
    return stem, tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subject", choices=["torch", "jax", "jax-jit", "reference"])
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="default: float32 and float64")
    parser.add_argument("--profile", default="quick", choices=[*PROFILES])
    parser.add_argument("--outputs", type=int, default=50_000)
    parser.add_argument("-n", type=int, default=2, metavar="WORKERS")
    options = parser.parse_args()
    outside = 0
    with ProcessPoolExecutor(options.n) as pool:
        for dtype in options.dtype or LONG:
            tallies: dict[str, Tally] = defaultdict(Tally)
            for seed in count():
                stems = [*SIGNATURES]
                asked = ((options.subject, s, dtype, options.profile, seed) for s in stems)
                jobs = pool.map(observe, *zip(*asked, strict=True))
                for stem, seen in jobs:
                    tallies[stem].ratios += seen.ratios
                    tallies[stem].classes += seen.classes
                    tallies[stem].outside += seen.outside
                    tallies[stem].shoulds += seen.shoulds
                if sum(len(t.ratios) for t in tallies.values()) >= options.outputs:
                    break
            outside += show(options.subject, dtype, seed + 1, tallies)
    return int(outside > 0)


def show(subject: str, dtype: str, seeds: int, tallies: dict[str, Tally]) -> int:
    """The table of one dtype; how many results were outside their class."""
    everything = np.concatenate([t.ratios for t in tallies.values()])
    print(f"{subject}, {dtype}: {len(everything)} outputs, {seeds} seeds")
    print(f"  {'block':18} {'outputs':>8} {'largest':>8} {'median':>7}  classes")
    for stem, tally in tallies.items():
        if tally.ratios:
            print(f"  {stem:18} {_figures(tally.ratios)}  {_classes(tally.classes)}")
    total = sum((t.classes for t in tallies.values()), Counter[str]())
    print(f"  {'all':18} {_figures(everything)}  {_classes(total)}")
    outside = [line for tally in tallies.values() for line in tally.outside]
    for line in outside:
        print(f"  outside: {line}")
    for name, times in sum((t.shoulds for t in tallies.values()), Counter[str]()).items():
        print(f"  a should: {name}, {times} times")
    print(f"  {len(outside)} checks failed", flush=True)
    return len(outside)


def _figures(ratios: Any) -> str:
    touched = [ratio for ratio in ratios if ratio > 0] or [0.0]
    return f"{len(ratios):8} {max(touched):8.3f} {float(np.median(touched)):7.3f}"


def _classes(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in (*CLASSES, "-") if counts[name])


if __name__ == "__main__":
    sys.exit(main())

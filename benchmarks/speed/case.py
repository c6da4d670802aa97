"""What a case costs, and where the time goes: CPU time of one process, in shares.

    python benchmarks/speed/case.py [SUBJECT] [--profile quick] [--block BLOCK …]

Drawing makes the case from its bytes. The subject's share is every step that a check does to the subject: arrays to
the framework and back, the call, the gradients. Comparison includes the bounds that it needs. The rest is the
reference, the law and the bookkeeping, which the bodies of the checks mix. Programs, which checks of modules and
optimisers run on subject and reference side by side, belong to the rest.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when NumPy and torch are imported
from nnspec.adapters import Subject, load
from nnspec.conformance.checks import load_checks
from nnspec.conformance.drawing import Decision
from nnspec.conformance.requirements import CHECKS, Check
from nnspec.conformance.trial.comparisons import Comparisons
from nnspec.conformance.trial.run import forms
from nnspec.conformance.trial.trial import Trial

PARTS = ("drawing", "subject", "comparison", "rest")


class Clock:
    """The CPU time of each part. Time in a part that is called from another part counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running, self._since = "rest", time.process_time()

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count the time in the block for a part."""
        before = self._switch(part)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, part: str) -> str:
        now, before = time.process_time(), self._running
        self.seconds[before] += now - self._since
        self._running, self._since = part, now
        return before

    def timing(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts for a part."""

        def timed(*given: Any, **keywords: Any) -> Any:
            with self.of(part):
                return function(*given, **keywords)

        return timed


def run(subject: Subject, check: Check, profile: str, clock: Clock) -> int:
    """Run a check in all forms and dtypes; return the number of cases."""
    drawn, cases = check.drawn, 0

    def timed(*given: Any, **keywords: Any) -> Any:
        made = drawn(*given, **keywords)
        return Decision(clock.timing("drawing", made.make)) if isinstance(made, Decision) else made

    object.__setattr__(check, "drawn", timed)
    for form in forms(subject, check):
        able = [dtype for dtype in subject.dtypes if dtype in check.dtypes]
        for dtype in able if check.per_dtype else able[:1]:
            cases += Trial(subject, form, dtype, profile).run(check).cases
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subject", nargs="?", default="torch")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--block", action="append", default=[])
    asked = parser.parse_args()
    load_checks()
    subject = load(asked.subject, profile=asked.profile)
    clock = Clock()
    Trial.do = clock.timing("subject", Trial.do)  # type: ignore[method-assign]
    for name in ("expect", "expect_one"):
        setattr(Comparisons, name, clock.timing("comparison", getattr(Comparisons, name)))
    print(f"{'block':18} {'cases':>6} {'ms/case':>8}  {'  '.join(PARTS)}")
    blocks = dict.fromkeys(check.stem for check in CHECKS.values() if not asked.block or check.stem in asked.block)
    for block in blocks:
        clock.seconds.clear()
        cases = sum(run(subject.within(block), c, asked.profile, clock) for c in CHECKS.values() if c.stem == block)
        whole = sum(clock.seconds.values())
        shares = "  ".join(f"{clock.seconds[part] / whole:{len(part)}.0%}" for part in PARTS)
        print(f"{block:18} {cases:6} {1e3 * whole / max(1, cases):8.2f}  {shares}", flush=True)


if __name__ == "__main__":
    main()

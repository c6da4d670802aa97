"""How small the reported cases are: for each fault of the catalogue, the case that its own check reports.

    python benchmarks/quality/minimal.py [--block BLOCK]…

Counted are the elements of the input (of the first operand), and the arguments that have another value than their
neutral one although the check would still fail with that: what a reader must think about, and need not have. Of blocks
whose cases are programs (module, sequential, sgd) nothing is counted. Ends with 1 where the median of the elements is
above 4, or that of such arguments above 1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np
from nnspec.adapters.signatures import SIGNATURES
from nnspec.conformance.case import Case
from nnspec.conformance.checks import load_checks
from nnspec.conformance.faults import catalogue
from nnspec.conformance.power import faults_of
from nnspec.conformance.requirements import CHECKS, Check, block_of
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.run import forms
from nnspec.conformance.trial.trial import Trial

ELEMENTS, NEEDLESS = 4, 1  # medians at most


def measure(key: str) -> tuple[str, int, int, int, str] | None:
    """Of one fault: elements of the input, arguments that are not neutral, those that could be, and the case."""
    load_checks()
    warnings.simplefilter("ignore")
    fault = catalogue()[key]
    subject, check = fault.subject(), CHECKS[fault.requirement]
    for form in forms(subject, check):
        trial = Trial(subject, form, "float32", "quick", 0)
        failure = trial.run(check).failure
        if failure is None:
            continue
        drawn = failure.case
        case = drawn if isinstance(drawn, Case) else next((c for c in _parts(drawn) if isinstance(c, Case)), None)
        if case is None:
            return None
        first = next((a for a in case.arrays.values() if a is not None), np.zeros(0))
        others = dict(_neutral(case))
        judged = drawn is case and ".refuses." not in key  # what is refused is the argument itself
        needless = [n for n, v in others.items() if judged and fails(trial, check, case.but(**{n: v}))]
        return key, first.size, len(others), len(needless), str(case)
    return None


def _parts(drawn: Any) -> Any:
    return drawn if isinstance(drawn, tuple) else ()


def _neutral(case: Case) -> Iterator[tuple[str, Any]]:
    """The arguments that are not neutral, with their neutral values; a mode, and a window's size, are neither."""
    for name, neutral in SIGNATURES[case.stem].arguments.items():
        value = case.arguments.get(name, neutral)
        if name == "stride" and neutral is None:
            neutral = case["kernel_size"]
        if name == "momentum" and case.stem == "batch_norm":
            neutral = 0.5  # the same, read either way
        if name not in ("kernel_size", "training", "equation") and value not in (neutral, (neutral, neutral)):
            yield name, neutral


def fails(trial: Trial, check: Check, case: Case) -> bool:
    """If the check still fails. A case that is not legal, such as one whose cotangent does not fit, does not count."""
    try:
        check.body(trial, case)
    except Mismatch:
        return True
    except Exception:
        return False
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", action="append", default=[])
    parser.add_argument("--list", action="store_true", help="each fault with its case")
    parser.add_argument("-n", type=int, default=2, metavar="WORKERS")
    options = parser.parse_args()
    rows: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    with ProcessPoolExecutor(options.n) as pool:
        for found in pool.map(measure, [f.key for f in faults_of(options.block)], chunksize=4):
            if found:
                key, *counts, case = found
                rows[block_of(key)].append(tuple(counts))
                if options.list:
                    print(f"{counts[0]:5} {counts[1]} {counts[2]}  {key}: {case}")
    print(
        f"{'block':18} {'faults':>6} {'elements':>9} {'at most 4':>10} {'not neutral':>12} {'needless':>9} {'> 1':>5}"
    )
    everything = [row for block in rows.values() for row in block]
    for name, block in (*rows.items(), ("all", everything)):
        elements, others, needless = zip(*block, strict=True)
        small = f"{100 * np.mean(np.array(elements) <= ELEMENTS):.0f} %"
        print(
            f"{name:18} {len(block):6}  {statistics.median(elements):8g}  {small:>9}  {statistics.median(others):11g}  "
            f"{statistics.median(needless):8g}  {sum(n > NEEDLESS for n in needless):3}"
        )
    elements, _, needless = zip(*everything, strict=True)
    return int(statistics.median(elements) > ELEMENTS or statistics.median(needless) > NEEDLESS)


if __name__ == "__main__":
    sys.exit(main())

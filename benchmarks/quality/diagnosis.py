"""How often the likely cause that a report names is right: each fault of the catalogue is put to its own check.

    python benchmarks/quality/diagnosis.py [--block BLOCK]…

Named alone: it, and nothing else. Tied: it, and others that give the same in every call that was looked at. First: it
stands before all others. None: no cause is named, as for what depends on all that was called before, and for the lives
of networks. Wrong: others are named, and not it. The seed is another than the one that the order of findings was
measured with. Ends with 1 where fewer than 95 in a hundred come first, or others are named for more than one. What
whole reports say, of one mistake or two: causes.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
from nnspec.conformance.checks import load_checks
from nnspec.conformance.faults import catalogue
from nnspec.conformance.power import faults_of, judge
from nnspec.conformance.report.diagnosis import causes
from nnspec.conformance.requirements import CHECKS, block_of

COLUMNS = ("faults", "alone", "tied", "first", "none", "wrong", "survived")
SEED = 7


def measure(key: str) -> tuple[str, list[str]]:
    """What is said of one fault."""
    load_checks()
    warnings.simplefilter("ignore")
    fault = catalogue()[key]
    check = CHECKS[fault.requirement]
    outcome = judge(fault.subject(), check, "quick", SEED)
    if outcome is None or outcome.failure is None:
        return key, ["survived"]
    named = [cause.fault for cause in causes(check, outcome)]
    if not named:
        return key, ["none"]
    if key not in named:
        return key, ["wrong"]
    return key, ["alone" if named == [key] else "tied", *(["first"] if named[0] == key else [])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", action="append", default=[])
    parser.add_argument("-n", type=int, default=2, metavar="WORKERS")
    options = parser.parse_args()
    keys = [f.key for f in faults_of(options.block) if f.decides]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    with ProcessPoolExecutor(options.n) as pool:
        for key, said in pool.map(measure, keys, chunksize=4):
            counts[block_of(key)].update(["faults", *said])
            if "wrong" in said:
                print(f"wrong: {key}")
    total = sum(counts.values(), Counter[str]())
    print(f"{'block':18} {' '.join(f'{name:>8}' for name in COLUMNS)}")
    for block, count in (*counts.items(), ("all", total)):
        print(f"{block:18} {' '.join(f'{count[name]:8}' for name in COLUMNS)}")
    return int(100 * total["wrong"] > total["faults"] or 100 * total["first"] < 95 * total["faults"])


if __name__ == "__main__":
    sys.exit(main())

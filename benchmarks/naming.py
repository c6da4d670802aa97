"""Whether a single mistake is named first: for every fault, where its own requirement stands among those broken.

Runs all checks of a block against each of its faults, as `nnspec check` does, and prints how many faults have their
requirement among the first three findings, and which have not.
"""

import argparse
import os
import sys
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from nnspec.conformance import report
from nnspec.conformance.faults import catalogue
from nnspec.conformance.power import faults_of, load_checks
from nnspec.conformance.requirements import CHECKS, requirements
from nnspec.conformance.trial import Trial, forms


def broken_by(key: str, seed: int) -> tuple[str, list[str]]:
    """The requirements that a fault breaks, in the order in which they are reported."""
    load_checks()
    warnings.simplefilter("ignore")
    subject, stem = catalogue()[key].subject(), key.split(".")[0]
    broken: list[report.Record] = []
    for identifier, page in requirements().items():
        check = CHECKS.get(identifier)
        if page.stem == stem and page.level == "must" and check is not None:
            trials = [
                Trial(subject, form, dtype, "quick", seed)
                for form in forms(subject, check)
                for dtype in ("float32", "float64")[: 1 + check.per_dtype]
            ]
            outcomes = (trial.run(check) for trial in trials)
            if failure := next((outcome.failure for outcome in outcomes if outcome.verdict == "fail"), None):
                shape = {"misshapen": failure.misshapen}
                broken.append({"requirement": identifier, "verdict": "fail", "level": "must", "failure": shape})
    return key, [r["requirement"] for r in report.findings(broken)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keys = [f.key for f in faults_of(options.block) if requirements()[f.requirement].level == "must"]
    ranks: Counter[str] = Counter()
    with ProcessPoolExecutor(2) as pool:
        for key, broken in pool.map(broken_by, keys, [options.seed] * len(keys)):
            own = key.partition("/")[0]
            rank = broken.index(own) + 1 if own in broken else 0
            ranks["first three" if 0 < rank <= 3 else "later" if rank else "not named"] += 1
            if not 0 < rank <= 3:
                print(f"{key}: place {rank or '-'} of {len(broken)}: {', '.join(broken[:4])}", flush=True)
    print(f"{len(keys)} faults: {dict(ranks)}")
    return int(ranks["first three"] < len(keys))


if __name__ == "__main__":
    sys.exit(main())

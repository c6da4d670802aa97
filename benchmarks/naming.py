"""Whether a single mistake is named first: for every fault, where its own requirement stands among those broken.

Runs the checks of a block against each of its faults, as `nnspec check` does, but for those that could only come later,
and prints how many faults have their requirement among the first three findings, and which have not.
"""

import argparse
import os
import sys
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from nnspec.adapters.subject import Subject
from nnspec.conformance import report
from nnspec.conformance.faults import catalogue
from nnspec.conformance.power import faults_of, judge, load_checks
from nnspec.conformance.requirements import CHECKS, requirements


def broken_by(key: str, seed: int) -> tuple[str, list[str]]:
    """The requirements that a fault breaks, in the order in which they are reported, as far as its own at least."""
    load_checks()
    warnings.simplefilter("ignore")
    subject, own = catalogue()[key].subject(), key.partition("/")[0]
    page = [i for i, r in requirements().items() if r.stem == own.split(".")[0] and r.level == "must" and i in CHECKS]
    broken = {own: failure_of(subject, own, seed)}
    shape = broken[own]
    if shape and not shape["failure"]["misshapen"]:  # then what comes later on the page is reported later
        last = page.index(own)
        page = [i for n, i in enumerate(page) if n <= last or i.partition(".")[2] in report.OWN]
    for identifier in page:
        if identifier not in broken:
            broken[identifier] = failure_of(subject, identifier, seed)
    found = [broken[identifier] for identifier in page]
    return key, [r["requirement"] for r in report.findings(r for r in found if r)]


def failure_of(subject: Subject, identifier: str, seed: int) -> report.Record | None:
    """What of a record the order of the findings goes by; None where the check passes."""
    outcome = judge(subject, CHECKS[identifier], "quick", seed)
    if outcome is None or outcome.failure is None:
        return None
    shape = {"misshapen": outcome.failure.misshapen}
    return {"requirement": identifier, "verdict": "fail", "level": "must", "failure": shape}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", type=int, default=2, metavar="WORKERS")
    options = parser.parse_args()
    keys = [f.key for f in faults_of(options.block) if requirements()[f.requirement].level == "must"]
    ranks: Counter[str] = Counter()
    with ProcessPoolExecutor(options.n) as pool:
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

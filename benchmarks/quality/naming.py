"""Whether a single mistake is named first: for every fault, where its own requirement stands among those it breaks.

    python benchmarks/quality/naming.py

By what conformance/faults/broken.json says that each fault breaks, and twice: as findings are ordered for a user, and
with the fault in question left out of what is known, as for a mistake that nobody has thought of. Exit status 1 if
fewer than 99, or 95, of 100 are among the first three findings.

    python benchmarks/quality/naming.py --write [--block B] [--new]

puts the faults to all checks of their block first, at `quick` in float32, and writes down what they break: needed where
faults, checks or cases have changed. All blocks take about an hour on two cores; --new leaves those that are in the
file as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from nnspec.conformance.checks import load_checks
from nnspec.conformance.faults import broken_by_faults, catalogue
from nnspec.conformance.power import faults_of, judge
from nnspec.conformance.report.findings import Broken, ranked
from nnspec.conformance.requirements import CHECKS, block_of, requirements
from nnspec.conformance.trial.record import Outcome
from nnspec.conformance.trial.run import forms
from nnspec.conformance.trial.trial import Trial

FILE = Path(__file__).parents[2] / "conformance" / "faults" / "broken.json"


def broken_by(key: str) -> tuple[str, list[str]]:
    """The fault, and the requirements of its block that it breaks, each with a ! where a shape is wrong."""
    load_checks()
    warnings.simplefilter("ignore")
    fault, names = catalogue()[key], []
    for identifier in musts(block_of(key)):
        outcome = outcome_of(key, identifier, fault.requirement)
        if outcome is not None and outcome.failure is not None:
            names.append(identifier.partition(".")[2] + "!" * outcome.failure.misshapen)
    return key, names


def outcome_of(key: str, identifier: str, own: str) -> Outcome | None:
    """What a check comes to: its own in both dtypes, others in float32."""
    subject, check, outcome = catalogue()[key].subject(), CHECKS[identifier], None
    if identifier == own:
        return judge(subject, check, "quick", 0)
    for form in forms(subject, check):
        outcome = Trial(subject, form, "float32", "quick", 0).run(check)
        if outcome.verdict == "fail":
            break
    return outcome


def musts(stem: str) -> list[str]:
    """The requirements of a block that decide, and that have a check."""
    return [i for i, r in requirements().items() if r.stem == stem and r.level == "must" and i in CHECKS]


def write(keys: list[str], workers: int) -> None:
    """Measure these faults, and put them in the place of what is in the file."""
    known = dict(broken_by_faults()) if FILE.exists() else {}
    with ProcessPoolExecutor(workers) as pool:
        for n, (key, names) in enumerate(pool.map(broken_by, keys), start=1):
            known[key] = names
            print(f"\r{n} of {len(keys)}", end="", file=sys.stderr, flush=True)
    known = {key: known[key] for key in catalogue() if key in known}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(names)}" for key, names in known.items())
    FILE.write_text(f"{{\n{lines}\n}}\n", "utf-8")
    broken_by_faults.cache_clear()


def place(key: str, known: Broken) -> int:
    """Where a fault's own requirement comes, from 1."""
    _, _, own = key.partition("/")[0].partition(".")
    names = ranked(block_of(key), broken_by_faults()[key], known)
    return names.index(own) + 1 if own in names else sys.maxsize


def score(keys: list[str]) -> bool:
    """Print the share of faults that are named among the first three; whether it is as large as it must be."""
    known, enough = broken_by_faults(), True
    for title, apart, least in (("known mistakes", False, 0.99), ("each as if unknown", True, 0.95)):
        places: dict[str, Counter[bool]] = {}
        first = 0
        for key in keys:
            others = {k: v for k, v in known.items() if k != key} if apart else known
            at = place(key, others)
            places.setdefault(block_of(key), Counter())[at <= 3] += 1
            first += at == 1
            if at > 3 and not apart:
                print(f"{key}: place {at} of {len(known[key])}")
        for stem, counts in places.items():
            print(f"  {stem:18} {counts[True]} of {counts.total()}")
        named = sum(counts[True] for counts in places.values())
        print(f"{title}: {named} of {len(keys)} among the first three ({100 * named / len(keys):.1f} %), {first} first")
        enough &= named >= least * len(keys)
    return enough


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", action="append", default=[])
    parser.add_argument("--write", action="store_true", help="put the faults to the checks first")
    parser.add_argument("--new", action="store_true", help="only those that have not been put to them yet")
    parser.add_argument("-n", type=int, default=2, metavar="WORKERS")
    options = parser.parse_args()
    load_checks()
    keys = [f.key for f in faults_of(options.block) if f.decides]
    if options.write:
        known = broken_by_faults() if options.new else {}
        write([key for key in keys if key not in known], options.n)
    return int(not score(keys))


if __name__ == "__main__":
    sys.exit(main())

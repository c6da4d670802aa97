"""Whether a single mistake is named first: for every fault, where its own requirement stands among those it breaks.

    python benchmarks/quality/naming.py [--block B]

Reads what measure_faults.py wrote, and ranks the broken requirements twice: as for a user, and with the fault left out
of what is known, as for a mistake that nobody has thought of. Exit status 1 if fewer than 99, or 95, of 100 are among
the first three findings.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from nnspec.conformance.faults import broken_by_faults
from nnspec.conformance.power import faults_of
from nnspec.conformance.report.findings import Broken, ranked
from nnspec.conformance.requirements import block_of


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
    options = parser.parse_args()
    return int(not score([f.key for f in faults_of(options.block) if f.decides]))


if __name__ == "__main__":
    sys.exit(main())

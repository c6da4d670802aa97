"""Measure the faults of the catalogue: the requirements that each breaks, and the cases until its own check fails.

    python benchmarks/quality/measure_faults.py [--block B]… [--new] [-n WORKERS]

Puts each fault to all checks of its block, at `quick` in float32, and to its own check at `ci` with five seeds. Writes
one file for each block, conformance/faults/BLOCK.json, and from all of these files the score in spec/evidence.md.
--new keeps what is in the files, and measures only what is missing. All blocks take about an hour on two cores. Exit
status 1 if a fault survives.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from nnspec.conformance import power
from nnspec.conformance.checks import load_checks
from nnspec.conformance.faults import Fault, catalogue, measured
from nnspec.conformance.requirements import CHECKS, block_of, requirements
from nnspec.conformance.trial.record import Outcome
from nnspec.conformance.trial.run import forms
from nnspec.conformance.trial.trial import Trial

ROOT = Path(__file__).parents[2]
PROFILE, SEEDS = "ci", 5


def measure(key: str, known: dict[str, Any]) -> dict[str, Any]:
    """Return a fault's entry in the file of its block. Measures what is not `known`."""
    if "breaks" not in known:
        known = {"breaks": broken_by(key) if catalogue()[key].decides else [], "cases": []}
    verdicts = [power.measure(key, PROFILE, seed) for seed in range(len(known["cases"]), SEEDS)]
    return {"breaks": known["breaks"], "cases": known["cases"] + [v.cases if v.killed else None for v in verdicts]}


def broken_by(key: str) -> list[str]:
    """Return the requirements of its block that a fault breaks, each with a ! if a shape is wrong."""
    load_checks()
    warnings.simplefilter("ignore")
    fault, names = catalogue()[key], []
    for identifier in musts(block_of(key)):
        outcome = outcome_of(key, identifier, fault.requirement)
        if outcome is not None and outcome.failure is not None:
            names.append(identifier.partition(".")[2] + "!" * outcome.failure.misshapen)
    return names


def outcome_of(key: str, identifier: str, own: str) -> Outcome | None:
    """Return the outcome of a check: of its own in all dtypes up to one that fails; of others in float32."""
    subject, check, outcome = catalogue()[key].subject(), CHECKS[identifier], None
    if identifier == own:
        found = power.judge(subject, check, "quick", 0)
        return found if (found and found.failure) or not check.narrow else power.judge(subject, check, "ci", 0)
    for form in forms(subject, check):
        outcome = Trial(subject, form, "float32", "quick", 0).run(check)
        if outcome.verdict == "fail":
            break
    return outcome


def musts(stem: str) -> list[str]:
    """Return the requirements of a block at level *must* that have a check."""
    return [i for i, r in requirements().items() if r.stem == stem and r.level == "must" and i in CHECKS]


def write(faults: list[Fault], workers: int, keep: bool) -> None:
    """Measure these faults, and write their entries into the files of their blocks. `keep` what is there."""
    known = [measured(fault.stem).get(fault.key, {}) if keep else {} for fault in faults]
    found: dict[str, dict[str, Any]] = {}
    with ProcessPoolExecutor(workers) as pool:
        entries = pool.map(measure, [fault.key for fault in faults], known)
        for n, (fault, entry) in enumerate(zip(faults, entries, strict=True), start=1):
            found[fault.key] = entry
            print(f"\r{n} of {len(faults)}", end="", file=sys.stderr, flush=True)
    for stem in sorted({fault.stem for fault in faults}):
        every = {**measured(stem), **found}
        kept = {fault.key: every[fault.key] for fault in power.faults_of([stem]) if fault.key in every}
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in kept.items())
        (ROOT / "conformance" / "faults" / f"{stem}.json").write_text(f"{{\n{lines}\n}}\n", "utf-8")
    measured.cache_clear()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", action="append", default=[])
    parser.add_argument("--new", action="store_true", help="measure only what is missing in the files")
    parser.add_argument("-n", type=int, default=2, metavar="WORKERS")
    options = parser.parse_args()
    write(power.faults_of(options.block), options.n, options.new)
    score = power.assemble(power.recorded(), PROFILE, SEEDS, 0)
    power.write_into(ROOT / "spec" / "evidence.md", score)
    print(f"{score['killed']} of {score['runs']} killed")
    return int(score["killed"] < score["runs"])


if __name__ == "__main__":
    sys.exit(main())

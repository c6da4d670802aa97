"""Measure the faults of kernels: the cases until the check of their own requirement fails.

    python benchmarks/quality/measure_kernels.py [--block B]… [--setting S]… [--seeds 5] [--new] [-n WORKERS]

Puts each fault of conformance/faults/kernels to its own check: at `quick` with small sizes, for comparison; at
`quick --sizes boundary`; and at `ci --sizes boundary`. Writes conformance/faults/kernels/measured.json, and from it the
score in spec/evidence.md. `--new` measures only what is missing in the file. Exit status 1 if a fault survives at
`ci --sizes boundary`, or if more than one run in ten does at `quick --sizes boundary`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from nnspec.conformance import power
from nnspec.conformance.faults import fault_named, measured_kernels

ROOT = Path(__file__).parents[2]
FILE = ROOT / "conformance" / "faults" / "kernels" / "measured.json"
PLACE = re.compile(r"(?<=<!-- score of kernels -->\n).*?(?=<!-- /score of kernels -->)", re.DOTALL)
SETTINGS = ("quick small", "quick boundary", "ci boundary")  # profile and sizes
SEEDS = 5
OFTEN = 100  # results, after which the file is written
BARS = {"quick boundary": 0.9, "ci boundary": 1.0}  # the share of runs that must kill

Entries = dict[str, dict[str, list[int | None]]]


def measure(key: str, setting: str, known: list[int | None], seeds: int) -> list[int | None]:
    """Return the number of cases until a fault's check failed, seed by seed; None where it survived.

    What is `known` of the first seeds is not measured again.
    """
    profile, sizes = setting.split()
    verdicts = [power.measure(key, profile, seed, sizes) for seed in range(len(known), seeds)]
    return known + [verdict.cases if verdict.killed else None for verdict in verdicts]


def write(blocks: list[str], settings: list[str], seeds: int, workers: int, keep: bool) -> None:
    """Measure the faults of these blocks in these settings, and write the file. `keep` what is there."""
    found: Entries = {key: dict(entry) for key, entry in measured_kernels().items()}
    wanted = [(f.key, setting) for setting in settings for f in power.faults_of(blocks, "boundary")]
    known = [found.get(key, {}).get(setting, []) if keep else [] for key, setting in wanted]
    jobs = [(*job, cases, seeds) for job, cases in zip(wanted, known, strict=True) if len(cases) < seeds]
    with ProcessPoolExecutor(workers) as pool:
        for n, (job, cases) in enumerate(zip(jobs, pool.map(measure, *zip(*jobs, strict=True)), strict=True), start=1):
            key, setting, *_ = job
            found.setdefault(key, {})[setting] = cases
            print(f"\r{n} of {len(jobs)}", end="", file=sys.stderr, flush=True)
            if None in cases and setting in BARS:
                print(f"\r{key}, {setting}: {cases}", file=sys.stderr)
            if n % OFTEN == 0 or n == len(jobs):
                save(found)
    measured_kernels.cache_clear()


def save(entries: Entries) -> None:
    """Write the file, in the order of the catalogue."""
    order = [fault.key for fault in power.faults_of((), "boundary") if fault.key in entries]
    known = ({s: entries[key][s] for s in SETTINGS if s in entries[key]} for key in order)
    lines = (f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in zip(order, known, strict=True))
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def shares(entries: Entries) -> dict[str, tuple[int, int]]:
    """Return for each setting how many runs killed, and how many there were."""
    runs = {setting: [n for entry in entries.values() for n in entry.get(setting, ())] for setting in SETTINGS}
    return {setting: (sum(n is not None for n in cases), len(cases)) for setting, cases in runs.items()}


def seeds_of(entries: Entries) -> str:
    """Return how many seeds each fault was measured with."""
    counts = {len(cases) for entry in entries.values() for cases in entry.values()} or {0}
    return (
        f"{max(counts)} seed{'s' * (max(counts) > 1)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"
    )


def markdown(entries: Entries) -> str:
    """The score as a table of the page."""
    blocks: dict[str, Entries] = defaultdict(dict)
    for key, entry in entries.items():
        blocks[fault_named(key).stem][key] = entry
    families = {key.rpartition("-")[0] for key in entries}
    lines = [
        f"{len(entries)} faults of {len(families)} kinds. Runs that killed, of {seeds_of(entries)} for each setting "
        "(–: not yet measured):",
        "",
        "| block | faults | `quick`, small sizes | `quick --sizes boundary` | `ci --sizes boundary` |",
        "| --- | --: | --: | --: | --: |",
    ]
    for block, own in [*sorted(blocks.items()), ("all", entries)]:
        cells = (f"{killed:,} of {runs:,}" if runs else "–" for killed, runs in shares(own).values())
        lines.append(f"| {block} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", action="append", default=[])
    parser.add_argument("--setting", action="append", choices=SETTINGS, help="default: all of them")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N")
    parser.add_argument("--new", action="store_true", help="measure only what is missing in the file")
    parser.add_argument("-n", type=int, default=2, metavar="WORKERS")
    options = parser.parse_args()
    write(options.block, options.setting or [*SETTINGS], options.seeds, options.n, options.new)
    page = ROOT / "spec" / "evidence.md"
    table = f"\n{markdown(measured_kernels())}\n"
    page.write_text(PLACE.sub(lambda _: table, page.read_text("utf-8")), "utf-8")
    found = shares(measured_kernels())
    print("\n".join(f"{setting}: {killed} of {runs} killed" for setting, (killed, runs) in found.items()))
    return int(any(found[setting][0] < bar * found[setting][1] for setting, bar in BARS.items()))


if __name__ == "__main__":
    sys.exit(main())

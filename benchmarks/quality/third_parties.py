"""Whether correct implementations pass: the files of tests/third_parties, each with many seeds.

    python benchmarks/quality/third_parties.py [--seeds 20] [--profile quick] [--sizes small] [-n WORKERS] [FILE.py ...]

Each file is judged as a user's own, and what it fails is the suite's mistake or its own. The table has, for each
file, its blocks; how many requirements passed with every seed; how many of a *should* were not met with some seed; how
many the file does not claim; the cases that were judged; and the failures. Exit status 1 if a *must* failed or was not
judged.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parents[2] / "tests" / "third_parties"
WRONG = ("fail", "crash", "timeout", "blocked")
HEADINGS = ("file", "blocks", "passed", "should not met", "unsupported", "cases", "failures")


def judged(profile: str, sizes: str, task: tuple[str, int]) -> dict[str, Any]:
    """The report on a file, for a seed. In a process of its own: frameworks leave much behind."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    warnings.simplefilter("ignore")
    from nnspec.conformance import check

    file, seed = task
    return check(FOLDER / file, seed=seed, profile=profile, sizes=sizes)


def row(file: str, reports: list[dict[str, Any]]) -> list[str]:
    """A line of the table."""
    verdicts: dict[str, Counter[str]] = {}
    for result in results(reports):
        verdicts.setdefault(result["requirement"], Counter())[result["verdict"]] += 1
    levels = {result["requirement"]: result["level"] for result in results(reports)}
    passed = [name for name, found in verdicts.items() if found["pass"] and not wrong(found)]
    unmet = [name for name, found in verdicts.items() if wrong(found) and levels[name] != "must"]
    claimed = [name for name, found in verdicts.items() if found["pass"] or wrong(found)]
    blocks = dict.fromkeys(name.partition(".")[0] for name in verdicts)
    cases = sum(report["totals"]["cases"] for report in reports)
    counts = [len(passed), len(unmet), len(verdicts) - len(claimed), cases, sum(map(len, map(failures, reports)))]
    return [file, " ".join(blocks), *(f"{count:,}" if count else "·" for count in counts)]


def results(reports: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Of all reports."""
    return (result for report in reports for result in report["results"])


def wrong(found: Counter[str]) -> int:
    """How often the verdict was none that a correct implementation should get."""
    return sum(found[verdict] for verdict in WRONG)


def failures(report: dict[str, Any]) -> list[str]:
    """What a correct implementation should not have failed, with the smallest case, and what was not judged."""
    told = [f"nnspec itself: {error}" for error in report["errors"]]
    for result in report["results"]:
        if result["level"] == "must" and result["verdict"] in WRONG:
            case = f": {result['failure']['case']['call']}" if result["failure"] else ""
            told.append(f"{result['requirement']} ({result['form']} {result['dtype']}): {result['reason']}{case}")
    return told + [f"{requirement}: not judged" for requirement in report["musts"]["not judged"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="of the folder; without any, all of them")
    parser.add_argument("--seeds", type=int, default=20, metavar="N")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--sizes", default="small")
    parser.add_argument("-n", type=int, default=2, metavar="WORKERS")
    options = parser.parse_args()
    files = [Path(file).name for file in options.files] or sorted(path.name for path in FOLDER.glob("*.py"))
    tasks = [(file, seed) for file in files for seed in range(options.seeds)]
    reports: dict[str, list[dict[str, Any]]] = {file: [] for file in files}
    afresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.n, mp_context=afresh, max_tasks_per_child=1) as pool:
        done = zip(tasks, pool.map(partial(judged, options.profile, options.sizes), tasks), strict=True)
        for n, ((file, seed), report) in enumerate(done, start=1):
            reports[file].append(report)
            for failure in failures(report):
                print(f"\r{file}, seed {seed}: {failure}", file=sys.stderr)
            print(f"\r{n} of {len(tasks)}", end="", file=sys.stderr, flush=True)
    table = Table(box=box.SIMPLE_HEAD, title=f"{options.seeds} seeds, profile {options.profile}, sizes {options.sizes}")
    for n, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if n < 2 else "right")
    for file in files:
        table.add_row(*row(file, reports[file]))
    print(file=sys.stderr)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return int(any(failures(report) for judgements in reports.values() for report in judgements))


if __name__ == "__main__":
    sys.exit(main())

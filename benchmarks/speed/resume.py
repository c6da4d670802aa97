"""What SIGKILL costs: a run is killed at 5 to 95 % of its time, goes on, and must come to the report of an uncut run.

    python benchmarks/speed/resume.py [SUBJECT] [--block BLOCK]

Without a subject it judges a file with two faults, slow enough that starting takes a small part of the time. Prints
how many results each killed run had kept, and ends with 1 where a report differs from that of the uncut run, or where
fewer than eight of the ten runs had kept some results and not all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KILLS = 10
SUBJECT = """
import time
from nnspec.reference import linear as right


def linear(x, weight, bias=None):
    time.sleep(0.01)
    return right.linear(x, 2 * weight, bias)


def relu(x):
    time.sleep(0.01)
    return x * (x > 0)
"""


def command(subject: str, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "nnspec.conformance.cli", "check", subject, "-n", "1", "--out", str(out), *more]


def summary(report: Path) -> list[tuple[Any, ...]]:
    """What must be equal: requirement, form, dtype, verdict, cases and the smallest case of each result."""
    results = json.loads(report.read_text("utf-8"))["results"]
    return sorted(
        (
            r["requirement"],
            r["form"],
            r["dtype"],
            r["verdict"],
            r["cases"],
            json.dumps((r["failure"] or {}).get("case")),
        )
        for r in results
    )


def kept(out: Path) -> int:
    log = out / "results.jsonl"
    lines = log.read_bytes().splitlines() if log.exists() else []
    return sum(b'"record"' in line for line in lines)


def killed(run: list[str], out: Path, seconds: float) -> int:
    """Kill a run after some time; how many results it had kept."""
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.kill()
    process.wait()
    return kept(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", nargs="?")
    parser.add_argument("--block", action="append", default=[])
    options = parser.parse_args()
    more = [f"--block={block}" for block in options.block]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "layers.py").write_text(SUBJECT, "utf-8")
        subject = options.subject or str(folder / "layers.py")
        began = time.perf_counter()
        uncut = subprocess.run(command(subject, folder / "uncut", *more), stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        expected = summary(folder / "uncut" / "report.json")
        print(f"uncut: {len(expected)} results in {seconds:.1f} s, exit {uncut.returncode}")
        partial = equal = 0
        for n in range(KILLS):
            share, out = 0.05 + 0.9 * n / (KILLS - 1), folder / str(n)
            count = killed(command(subject, out, *more), out, share * seconds)
            again = subprocess.run(command(subject, out, "--resume", *more), capture_output=True)
            same = again.returncode == uncut.returncode and summary(out / "report.json") == expected
            partial, equal = partial + (0 < count < len(expected)), equal + same
            print(f"killed at {100 * share:3.0f} %: {count:3} results kept; report {'equal' if same else 'DIFFERENT'}")
        print(f"{equal} of {KILLS} reports equal; {partial} of {KILLS} runs had kept some results and not all")
        return int(equal < KILLS or partial < 8)


if __name__ == "__main__":
    sys.exit(main())

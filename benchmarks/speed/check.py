"""How long `nnspec check SUBJECT` takes at the quick profile, in two commits, run alternately.

    python benchmarks/speed/check.py BASE [SUBJECT] [--head COMMIT] [--times 3] [--workers 2] [--block BLOCK …]

Prints the seconds and cases of each run, and the median ratio of HEAD's seconds to BASE's. Ends with 1 if the ratio is
above the subject's bar. Imports and the start of workers are part of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARS = {"torch": 0.4, "jax": 0.5}  # of the seconds that commit 5b6d97e took
ROOT = Path(__file__).parents[2]


def install(commit: str, folder: Path) -> Path:
    """Install nnspec as it was in a commit; return the folder to put on PYTHONPATH."""
    tree, site = folder / "tree", folder / "site"
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    tree.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(tree)]
    subprocess.run(pip, check=True)
    return site


def measure(site: Path, subject: str, workers: int, blocks: list[str]) -> tuple[float, int]:
    """Return the seconds and the number of cases of one run."""
    command = [sys.executable, "-m", "nnspec.conformance.cli", "check", subject, "--profile", "quick"]
    with tempfile.TemporaryDirectory() as out:
        command += ["-n", str(workers), "--out", out, *(f"--block={block}" for block in blocks)]
        began = time.perf_counter()
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True)
        taken = time.perf_counter() - began
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        results = json.loads((Path(out) / "report.json").read_text())["results"]
    return taken, sum(result["cases"] for result in results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("subject", nargs="?", default="torch")
    parser.add_argument("--head", default="HEAD")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--block", action="append", default=[])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sites = {name: install(name, Path(folder) / str(n)) for n, name in enumerate((asked.base, asked.head))}
        seconds: dict[str, list[float]] = {name: [] for name in sites}
        for _ in range(asked.times):
            for name, site in sites.items():
                taken, cases = measure(site, asked.subject, asked.workers, asked.block)
                seconds[name].append(taken)
                print(f"{name:12} {taken:6.1f} s  {cases} cases", flush=True)
    ratio = statistics.median(seconds[asked.head]) / statistics.median(seconds[asked.base])
    print(f"ratio of medians {ratio:.2f}, expected at most {BARS.get(asked.subject, 1.0)}")
    return int(ratio > BARS.get(asked.subject, 1.0))


if __name__ == "__main__":
    sys.exit(main())

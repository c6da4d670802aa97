"""How long the command line takes to start where only NumPy is needed: `nnspec list`, from the shell and back.

    python benchmarks/speed/start.py

Prints the median of nine runs and ends with 1 where it is above the bar.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

BAR = 0.3  # seconds
RUNS = 9


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> int:
    nnspec = str(Path(sysconfig.get_path("scripts")) / "nnspec")
    seconds([nnspec, "list"])  # compiles what is not compiled yet
    python = statistics.median(seconds([sys.executable, "-c", "pass"]) for _ in range(RUNS))
    numpy = statistics.median(seconds([sys.executable, "-c", "import numpy"]) for _ in range(RUNS))
    runs = [seconds([nnspec, "list"]) for _ in range(RUNS)]
    median = statistics.median(runs)
    print(f"python          {python:.3f} s")
    print(f"import numpy    {numpy:.3f} s")
    print(f"nnspec list     {median:.3f} s  ({min(runs):.3f} to {max(runs):.3f}; bar {BAR} s)")
    return int(median > BAR)


if __name__ == "__main__":
    sys.exit(main())

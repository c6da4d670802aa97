"""The command line of the programs that compare the reference's CPU time with that of torch, on one thread.

Import this module before NumPy, which reads the number of threads when it is imported.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = "1"

SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
Times = Mapping[str, Sequence[float]]  # by "torch", "reference" and "products": CPU seconds, one value for each round
Bars = Mapping[str | None, float]  # the highest ratio, with the Haswell kernels and with those that OpenBLAS chooses


class Row(NamedTuple):
    """One line of the table."""

    name: str
    times: Times
    bars: Bars


def ratio(times: Times, who: str) -> float:
    """Return the median over the rounds of a time divided by torch's; NaN if nothing was measured."""
    if who not in times:
        return float("nan")
    return statistics.median(a / b for a, b in zip(times[who], times["torch"], strict=True))


def main(program: str, about: str, rounds: int, measure: Callable[[int], Iterable[Row]]) -> int:
    """Print the rows that `measure` yields for a number of rounds. Return 1 if a ratio is above its bar."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--both", action="store_true", help="also run with OPENBLAS_CORETYPE and _L2_SIZE unset")
    parser.add_argument("--rounds", type=int, default=rounds)
    arguments = parser.parse_args()
    if arguments.both:
        native = {key: value for key, value in os.environ.items() if key not in SETTINGS}
        command = [sys.executable, program, f"--rounds={arguments.rounds}"]
        return max([subprocess.run(command, env=env).returncode for env in (dict(os.environ), native)])

    import torch

    torch.set_num_threads(1)
    coretype, missed = os.environ.get("OPENBLAS_CORETYPE"), False
    print(", ".join(f"{name}={os.environ.get(name, '(unset)')}" for name in SETTINGS), "- one thread")
    print(f"{'':13} torch ms   products/torch   reference/torch   bar")
    for row in measure(arguments.rounds):
        milliseconds, reference = statistics.median(row.times["torch"]) * 1e3, ratio(row.times, "reference")
        bar = row.bars.get(coretype, float("inf"))
        missed |= reference > bar
        figures = f"{milliseconds:8.1f}   {ratio(row.times, 'products'):14.2f}   {reference:15.2f}   {bar:.2f}"
        print(f"{row.name:13} {figures}{'   missed' if reference > bar else ''}", flush=True)
    return int(missed)

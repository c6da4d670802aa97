"""The command line: check, list, explain, power. Exit 0 conforms, 1 does not, 2 misuse, 3 the harness itself failed."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from nnspec.conformance.requirements import unknown_block

CONFORMS, DEVIATES, MISUSE, HARNESS, INTERRUPTED = 0, 1, 2, 3, 130


def parser() -> argparse.ArgumentParser:
    """The arguments of every command."""
    top = argparse.ArgumentParser(
        prog="nnspec", description="Does an implementation of a neural-network block do what the specification says?"
    )
    top.add_argument("--version", action="store_true", help="print the version and stop")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    check = commands.add_parser(
        "check", help="judge an implementation", description="Judge an implementation. A file that is given is run."
    )
    check.add_argument(
        "subject", help="torch, jax, jax-jit, reference, a file (my_layers.py), or one name in it (my_layers.py:Conv2d)"
    )
    check.add_argument("--block", action="append", metavar="BLOCK", help="check this block alone (may be repeated)")
    check.add_argument(
        "--profile",
        default="quick",
        choices=("quick", "ci", "deep"),
        help="20, 100 or 1000 cases per check (default: quick)",
    )
    check.add_argument(
        "--dtype",
        action="append",
        metavar="DTYPE",
        choices=("float32", "float64"),
        help="float32 or float64 (default: both)",
    )
    check.add_argument("--seed", type=int, default=0, help="the same seed gives the same cases (default: 0)")
    check.add_argument(
        "--framework", choices=("numpy", "torch", "jax"), help="whose arrays a file works on, where it does not tell"
    )
    check.add_argument("--json", metavar="PATH", help="where to write the report (default: nnspec-report/report.json)")
    check.add_argument(
        "--out",
        metavar="FOLDER",
        default="nnspec-report",
        help="folder for the report and the scripts (default: nnspec-report)",
    )
    check.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="after which a call counts as hung (default: 30)"
    )
    check.add_argument(
        "-n",
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="worker processes (default: one per core, at most 8); "
        "0: none, and no protection from a subject that aborts or hangs",
    )

    explain = commands.add_parser("explain", help="a requirement, its reference lines, its check and its faults")
    explain.add_argument("identifier", help="such as conv2d.stride.step, or a part of it")

    listing = commands.add_parser("list", help="the blocks, their names and their requirements")
    listing.add_argument("block", nargs="?", help="list the requirements of this block")

    power = commands.add_parser("power", help="how many of the known faults the checks find")
    power.add_argument("--profile", default="ci", choices=("quick", "ci", "deep"))
    power.add_argument("--seeds", type=int, default=1, metavar="N", help="try seeds 0 … N − 1 (default: 1)")
    power.add_argument("--block", action="append", metavar="BLOCK")
    power.add_argument("-n", "--workers", type=int, default=None, metavar="N")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    known = parser()
    options = known.parse_args(arguments)
    if options.version:
        from importlib import metadata

        print(f"nnspec {metadata.version('nnspec')}")
        return CONFORMS
    if options.command is None:
        known.print_help()
        return MISUSE
    try:
        return {"check": _check, "explain": _explain, "list": _list, "power": _power}[options.command](options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CONFORMS


def _misuse(message: str) -> int:
    print(f"nnspec: {message}", file=sys.stderr)
    return MISUSE


def cores() -> int:
    """How many processes are worth starting."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _check(options: argparse.Namespace) -> int:
    if message := unknown_block(options.block):
        return _misuse(f"--block {message}")
    if options.timeout <= 0:
        return _misuse(f"--timeout {options.timeout}: expected more than 0 seconds")
    if options.workers is not None and options.workers < 0:
        return _misuse(f"-n {options.workers}: expected 0 or more workers")
    from nnspec.adapters.names import plausible

    if message := plausible(options.subject):
        return _misuse(message)
    from nnspec.conformance import session
    from nnspec.conformance.terminal import Progress, show

    names = ("subject", "block", "profile", "dtype", "seed", "framework", "json", "out", "timeout")
    chosen = {name: getattr(options, name) for name in names}
    with Progress(options.subject) as progress:
        code, run = session.run(
            chosen, cores() if options.workers is None else options.workers, progress=progress.advance
        )
    if run is None:
        print("nnspec: the checks could not be started", file=sys.stderr)
        return HARNESS
    if run.subject_error:
        return _misuse(run.subject_error)
    if run.report is None:
        print(f"nnspec: pytest ended with code {code} before there was a report", file=sys.stderr)
        return HARNESS
    show(run.report, options.json or f"{options.out}/report.json")
    return exit_code(run.report)


def exit_code(report: dict[str, Any]) -> int:
    """What a report means to whoever called."""
    if report["interrupted"]:
        return INTERRUPTED
    if report["errors"]:
        return HARNESS
    return CONFORMS if report["conforms"] else DEVIATES


def _explain(options: argparse.Namespace) -> int:
    from nnspec.conformance.explain import explain

    text = explain(options.identifier)
    if text is None:
        return _misuse(f"{options.identifier}: no requirement of that name (nnspec list shows them)")
    print(text)
    return CONFORMS


def _list(options: argparse.Namespace) -> int:
    if options.block and (message := unknown_block([options.block])):
        return _misuse(message)
    from nnspec.conformance.explain import overview, requirements_of

    print(requirements_of(options.block) if options.block else overview())
    return CONFORMS


def _power(options: argparse.Namespace) -> int:
    if message := unknown_block(options.block):
        return _misuse(f"--block {message}")
    if options.seeds < 1:
        return _misuse(f"--seeds {options.seeds}: expected at least 1")
    from nnspec.conformance.terminal import show_power

    return (
        DEVIATES
        if show_power(options.block or (), options.profile, options.seeds, options.workers or cores())
        else CONFORMS
    )


if __name__ == "__main__":
    sys.exit(main())

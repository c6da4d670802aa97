"""The command line. verdicts.py has the exit codes."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path[:] = sys.path[1:]  # the working directory, in which a file may bear the name of a standard module

import argparse
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnspec.adapters.names import DTYPES, NAMED
from nnspec.conformance import signals
from nnspec.conformance.requirements import unknown_block
from nnspec.conformance.verdicts import CONFORMS, DEVIATES, HARNESS, INTERRUPTED, MISUSE


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
        "subject",
        help=f"{', '.join(NAMED)}, a file (my_layers.py) or a module that can be imported (my_package.layers), "
        "or one name in it (my_layers.py:Conv2d)",
    )
    check.add_argument(
        "--as",
        dest="role",
        metavar="BLOCK",
        help="judge that one name as this block, whatever it is called (my_layers.py:MyConv --as conv2d)",
    )
    _add_options(check)

    matrix = commands.add_parser(
        "matrix",
        help="judge several implementations, and write one table",
        description="Judge several implementations. Writes matrix.md, and report.json with all of their reports.",
    )
    matrix.add_argument("subject", nargs="+", help="as for check")
    _add_options(matrix)

    explain = commands.add_parser("explain", help="a requirement, its reference lines, its check and its faults")
    explain.add_argument("identifier", help="such as conv2d.stride.step, or a part of it")

    listing = commands.add_parser("list", help="the blocks, their names and their requirements")
    listing.add_argument("block", nargs="?", help="list the requirements of this block")

    power = commands.add_parser("power", help="how many of the known faults the checks find")
    power.add_argument("--profile", default="ci", choices=("quick", "ci", "deep"))
    power.add_argument("--seeds", type=int, default=1, metavar="N", help="try seeds 0 … N − 1 (default: 1)")
    power.add_argument("--block", action="append", metavar="BLOCK")
    power.add_argument("-n", "--workers", type=int, default=None, metavar="N", help="worker processes")
    power.add_argument("--json", metavar="PATH", help="write the score here too, requirement by requirement")
    power.add_argument(
        "--page", metavar="PATH", help="write the table into this page, between <!-- score --> and <!-- /score -->"
    )
    return top


def _add_options(command: argparse.ArgumentParser) -> None:
    """What is judged, how thoroughly, and where it is written."""
    command.add_argument("--block", action="append", metavar="BLOCK", help="check this block alone (may be repeated)")
    command.add_argument(
        "--profile",
        default="quick",
        choices=("quick", "ci", "deep"),
        help="20, 100 or 1000 cases per check (default: quick)",
    )
    command.add_argument(
        "--dtype",
        action="append",
        metavar="DTYPE",
        choices=DTYPES,
        help=f"{', '.join(DTYPES)}; may be repeated (default: float32 and float64)",
    )
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same cases (default: 0)")
    command.add_argument(
        "--framework", choices=("numpy", "torch", "jax"), help="whose arrays a file works on, where it does not tell"
    )
    command.add_argument("--device", metavar="DEVICE", help="where torch or JAX make their arrays, such as cuda or cpu")
    command.add_argument("--waivers", metavar="PATH", help="a TOML file of known deviations; strict: none may pass")
    command.add_argument("--json", metavar="PATH", help="where to write the report (default: OUT/report.json)")
    command.add_argument(
        "--out",
        metavar="FOLDER",
        default="nnspec-report",
        help="folder for the report and the scripts (default: nnspec-report)",
    )
    command.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="after which a call counts as hung (default: 30)"
    )
    command.add_argument(
        "--memory", type=float, default=4.0, metavar="GIB", help="that a worker process may take (default: 4)"
    )
    command.add_argument(
        "-n",
        "--workers",
        type=int,
        default=None,
        metavar="N",
        help="worker processes (default: one per core, at most 8); "
        "0: none, and no protection from a subject that aborts or hangs",
    )


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
    command = {"check": _check, "matrix": _matrix, "explain": _explain, "list": _list, "power": _power}[options.command]
    try:
        with signals.once():
            return _alone(command, options) if getattr(options, "workers", None) == 0 else command(options)
    except KeyboardInterrupt:
        return signals.exit_code()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CONFORMS


def _misuse(message: str, code: int = MISUSE) -> int:
    print(f"nnspec: {message}", file=sys.stderr)
    return code


def _alone(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run in one child process: a subject that ends it must not pass for one that conforms."""
    from nnspec.conformance import processes

    code = processes.alone(lambda: command(options))
    if code is None and not signals.received():
        return _misuse("the subject ended the process; run it with -n 1 to see in which call", HARNESS)
    return signals.exit_code() if code in (None, INTERRUPTED) else code


def cores() -> int:
    """How many processes are worth starting."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _check(options: argparse.Namespace) -> int:
    if options.role:  # in one text, which every part of nnspec understands, and which can be given to `matrix` too
        options.subject = f"{options.subject} --as {options.role}"
    if message := _refused(options, [options.subject]):
        return _misuse(message)
    from nnspec.conformance.terminal import show

    path = options.json or f"{options.out}/report.json"
    code, report = _judge(options, options.subject, options.out, path)
    if isinstance(report, str):
        return _misuse(report, code)
    show(report, path)
    return exit_code(report)


def _matrix(options: argparse.Namespace) -> int:
    if message := _refused(options, options.subject):
        return _misuse(message)
    from nnspec.conformance import matrix

    out, path = Path(options.out), Path(options.json or f"{options.out}/report.json")
    reports: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    codes: list[int] = []
    for subject in dict.fromkeys(options.subject):
        folder = out / re.sub(r"[^A-Za-z0-9-]+", "_", subject)
        code, report = _judge(options, subject, str(folder), str(folder / "report.json"))
        if isinstance(report, str):
            failures[subject] = report
        else:
            reports.append(report)
            code = exit_code(report)
        codes.append(signals.exit_code() if signals.received() else code)
        if signals.received():  # what is known by now is written all the same
            break
    merged = matrix.merge(reports, failures)
    matrix.write(merged, path, out / "matrix.md")
    print(matrix.markdown(merged))
    print(f"written: {out / 'matrix.md'}, {path}")
    return next((code for code in (signals.exit_code(), HARNESS, MISUSE, DEVIATES) if code in codes), CONFORMS)


def _refused(options: argparse.Namespace, subjects: list[str]) -> str | None:
    """What to say of options that cannot be meant."""
    from nnspec.adapters.names import plausible

    if message := unknown_block(options.block):
        return f"--block {message}"
    if not 0 < options.timeout < math.inf:
        return f"--timeout {options.timeout}: expected a finite number of seconds above 0"
    if not 0 < options.memory < math.inf:
        return f"--memory {options.memory}: expected a finite number of GiB above 0"
    if options.workers is not None and options.workers < 0:
        return f"-n {options.workers}: expected 0 or more workers"
    return next(filter(None, map(plausible, subjects)), None)


def _judge(options: argparse.Namespace, subject: str, out: str, json: str) -> tuple[int, dict[str, Any] | str]:
    """One subject: its report; or an exit code, and a sentence that says why there is none."""
    from nnspec.conformance import session
    from nnspec.conformance.terminal import Progress

    names = ("block", "profile", "dtype", "seed", "framework", "device", "waivers", "timeout", "memory")
    chosen = {name: getattr(options, name) for name in names} | {"subject": subject, "out": out, "json": json}
    workers = cores() if options.workers is None else options.workers
    with Progress(subject) as progress:
        code, run = session.run(chosen, workers, progress=progress.advance)
    if run is None:
        return HARNESS, "the checks could not be started"
    if run.subject_error:
        return MISUSE, run.subject_error
    if run.failure:
        return HARNESS, run.failure
    if run.report is None:
        return HARNESS, f"pytest ended with code {code} before there was a report"
    return CONFORMS, run.report


def exit_code(report: dict[str, Any]) -> int:
    """What a report means to whoever called."""
    if report["interrupted"]:
        return signals.exit_code()
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
    from nnspec.conformance.power import has_place_for_score, write, write_into
    from nnspec.conformance.terminal import measure_power, show_power

    if options.page and not has_place_for_score(Path(options.page)):  # said before the work, and not after it
        return _misuse(f"--page {options.page}: expected a page with <!-- score --> and <!-- /score -->")
    score = measure_power(options.block or (), options.profile, options.seeds, options.workers or cores())
    show_power(score)
    if options.json:
        write(score, Path(options.json))
    if options.page:
        write_into(Path(options.page), score)
    return CONFORMS if score["killed"] == score["runs"] else DEVIATES


COMMANDS = {"check": _check, "matrix": _matrix, "explain": _explain, "list": _list, "power": _power}

if __name__ == "__main__":
    sys.exit(main())

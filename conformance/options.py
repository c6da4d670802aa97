"""The commands and options of the command line."""

from __future__ import annotations

import argparse
from typing import Any


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from nnspec.conformance.sizes import REGIMES

    top = argparse.ArgumentParser(
        prog="nnspec", description="Does an implementation of a neural-network block do what the specification says?"
    )
    top.add_argument("--version", action="store_true", help="print the version and stop")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    _add_check(commands)
    matrix = commands.add_parser(
        "matrix",
        help="judge several implementations, and write one table",
        description="Judge several implementations. Writes matrix.md, and report.json with all of their reports.",
    )
    matrix.add_argument("subject", nargs="+", help="as for check")
    add_options_of_judging(matrix)

    _add_vectors(commands)

    explain = commands.add_parser("explain", help="a requirement, its reference lines, its check and its faults")
    explain.add_argument("identifier", help="such as conv2d.stride.step, or a part of it")

    listing = commands.add_parser("list", help="the blocks, their names and their requirements")
    listing.add_argument("block", nargs="?", help="list the requirements of this block")

    power = commands.add_parser("power", help="how many of the known faults the checks find")
    power.add_argument("--profile", default="ci", choices=("quick", "ci", "deep"))
    power.add_argument(
        "--sizes",
        default="small",
        choices=[*REGIMES],
        help="small (the default): how many mistakes of the specification are found, with small cases; otherwise: how "
        "many mistakes of tiled, vectorised and parallel code, with cases of these sizes",
    )
    power.add_argument("--seeds", type=int, default=1, metavar="N", help="try seeds 0 … N − 1 (default: 1)")
    power.add_argument("--block", action="append", metavar="BLOCK")
    power.add_argument("-n", "--workers", type=int, default=None, metavar="N", help="worker processes")
    power.add_argument("--json", metavar="PATH", help="write the score here too, requirement by requirement")
    power.add_argument(
        "--page", metavar="PATH", help="write the table into this page, between <!-- score --> and <!-- /score -->"
    )
    return top


def _add_check(commands: Any) -> None:
    """Add the command that judges one implementation."""
    from nnspec.adapters.names import adapters

    check = commands.add_parser(
        "check", help="judge an implementation", description="Judge an implementation. A file that is given is run."
    )
    check.add_argument(
        "subject",
        nargs="?",
        help=f"{', '.join(adapters())}, a file (my_layers.py) or a module that can be imported (my_package.layers), "
        "or one name in it (my_layers.py:Conv2d), or a directory of kernels",
    )
    check.add_argument(
        "--as",
        dest="role",
        metavar="BLOCK",
        help="judge that one name as this block, whatever it is called (my_layers.py:MyConv --as conv2d), or as "
        "several in a row (kernels.py:fused --as 'conv2d | relu'); of a kernel benchmark's file, the class ModelNew",
    )
    check.add_argument(
        "--process",
        metavar="COMMAND",
        help="in place of a subject: judge a program in any language, which answers requests over standard input and "
        "output as spec/protocol.md says ('./my_conv --threads 2')",
    )
    check.add_argument(
        "--isolate",
        action="store_true",
        help="run the subject in a process that never holds the reference, an expected value or a case to come; blocks "
        "that have a function are judged, a class as a function of its parameters",
    )
    add_options_of_judging(check)


def _add_vectors(commands: Any) -> None:
    """Add the commands for implementations that do not run beside nnspec."""
    from nnspec.adapters.names import DTYPES
    from nnspec.conformance.sizes import REGIMES

    export = commands.add_parser(
        "export",
        help="write the calls of the checks to files",
        description="Write the calls that the checks make of blocks to a folder, with what is expected of each, for an "
        "implementation that nnspec cannot run. spec/vectors.md describes the files.",
    )
    export.add_argument("folder", metavar="FOLDER", help="where to write; it must be empty or absent")
    export.add_argument("--block", action="append", metavar="BLOCK", required=True, help="may be repeated")
    export.add_argument("--profile", default="quick", choices=("quick", "ci", "deep"), help="as for check")
    export.add_argument("--sizes", choices=tuple(REGIMES), help="as for check")
    export.add_argument("--dtype", action="append", metavar="DTYPE", choices=DTYPES, help="as for check")
    export.add_argument("--domain", action="append", metavar="CONDITION", help="as for check")
    export.add_argument("--seed", type=int, default=0, help="as for check")
    export.add_argument(
        "--takes",
        metavar="NAMES",
        help="which of the operands that may be absent, and of the arguments, the implementation takes, separated by "
        "commas (bias,stride; default: all)",
    )
    export.add_argument("--no-gradients", action="store_true", help="the implementation has no gradients")

    judge = commands.add_parser(
        "judge",
        help="judge answers to exported calls",
        description="Judge what an implementation answered to the calls that export wrote to a folder.",
    )
    judge.add_argument("folder", metavar="FOLDER", help="which export wrote, with the answers")
    _add_options_of_running(judge)


def add_options_of_judging(command: argparse.ArgumentParser) -> None:
    """Add the options of a command that judges: what, how thoroughly, and where the report goes."""
    from nnspec.adapters.names import DTYPES, adapters
    from nnspec.conformance.sizes import REGIMES

    command.add_argument("--block", action="append", metavar="BLOCK", help="check this block alone (may be repeated)")
    command.add_argument(
        "--profile",
        default="quick",
        choices=("quick", "ci", "deep"),
        help="20, 100 or 1000 cases per check (default: quick)",
    )
    command.add_argument(
        "--sizes",
        choices=tuple(REGIMES),
        help="boundary: cases with sizes around those of tiles and vectors too; layers: whole layers of networks too; "
        "all: both (default: small at quick, boundary at ci and deep)",
    )
    command.add_argument(
        "--dtype",
        action="append",
        metavar="DTYPE",
        choices=DTYPES,
        help=f"{', '.join(DTYPES)}; may be repeated (default: float32 and float64)",
    )
    command.add_argument(
        "--domain",
        action="append",
        metavar="CONDITION",
        help="judge calls within this domain: a condition (conv2d.stride=1, 'conv2d.in_channels=multiple_of(16)'), "
        "or the DOMAIN of a file as JSON; may be repeated",
    )
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same cases (default: 0)")
    command.add_argument(
        "--framework",
        metavar="ADAPTER",
        choices=list(adapters()),
        help="whose arrays a file works on, where it does not tell",
    )
    command.add_argument("--device", metavar="DEVICE", help="where the framework makes its arrays, such as cuda or cpu")
    _add_options_of_running(command)


def _add_options_of_running(command: argparse.ArgumentParser) -> None:
    """Add the options of a run: where the report goes, and how the checks are run."""
    command.add_argument("--waivers", metavar="PATH", help="a TOML file of known deviations; strict: none may pass")
    command.add_argument(
        "--json", metavar="PATH", help="where to write the report (default: OUT/report.json); -: to standard output"
    )
    command.add_argument(
        "--out",
        metavar="FOLDER",
        default="nnspec-report",
        help="folder for the log of results, the report and the scripts (default: nnspec-report)",
    )
    command.add_argument(
        "--resume", action="store_true", help="go on with the run whose log is in OUT, and run only what is missing"
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

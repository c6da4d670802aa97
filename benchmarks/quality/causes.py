"""What whole reports say is the likely cause: of known mistakes, of mistakes that nobody knew, and of two made at once.

    python benchmarks/quality/causes.py [--known N] [--unknown N] [--pairs N] [--block BLOCK]…

Faults are drawn at random, of any block but resnet34, whose checks would take minutes for each. All checks of the block
are put to the subject in float32, and what counts are the three causes, at most, that a report begins with, and whether
they are called likely or, where they explain less than half of what is broken, only possible.

Known: a fault of the catalogue. Unknown: one that is left out of it for the time. Pairs: two faults of one block. Where
they are different pieces of it (forward and backward, two classes, two methods of one class) the subject has both;
where both replace one function, the first computes with what the second gives in place of what is right. Pairs that
cannot be put together, and those of which one was never at work, do not count.

Right: it, or one of the two, is named; first: no other before it; others: only others are named, and called likely.
Ends with 1 where fewer than 95 in a hundred are first of the known, or fewer than 80 in a hundred right of the pairs.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import random
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import Any
from unittest import mock

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
from nnspec.adapters.subject import Subject
from nnspec.conformance.checks import load_checks
from nnspec.conformance.faults import Fault, catalogue
from nnspec.conformance.power import faults_of
from nnspec.conformance.report import diagnosis
from nnspec.conformance.report.broken import SUSPECTS
from nnspec.conformance.report.findings import Suspect, suspects
from nnspec.conformance.requirements import CHECKS, block_of
from nnspec.conformance.trial.run import forms
from nnspec.conformance.trial.trial import Trial

COLUMNS = ("reports", "right", "first", "others", "possible", "none")
LEAST = {"known": ("first", 95), "unknown": ("reports", 0), "pairs": ("right", 80)}  # of a hundred

# -- one report --------------------------------------------------------------------------------------------------------


def measure(keys: tuple[str, ...], known: bool) -> tuple[tuple[str, ...], list[str], list[str]]:
    """What a report says of a fault or a pair of them, and the causes that it names; nothing where it is no pair."""
    load_checks()
    warnings.simplefilter("ignore")
    at_work: dict[str, bool] = {}
    pieces = composed(*(catalogue()[key] for key in keys), at_work=at_work)
    if pieces is None:
        return keys, [], []
    with mock.patch.object(diagnosis, "catalogue", return_value=without(() if known else keys)):
        domain = {name: said for key in keys for name, said in catalogue()[key].domain.items()}
        named = report_on(Fault(keys[0], "", pieces, domain=domain).subject(), block_of(keys[0]))
    if not all(at_work.values()):
        return keys, [], []
    faults = [suspect.fault for suspect in named]
    if not named:
        return keys, ["none"], faults
    if {*keys} & {*faults}:
        return keys, ["right", *(["first"] if faults[0] in keys else [])], faults
    return keys, ["others" if named[0].likely else "possible"], faults


def without(left_out: tuple[str, ...]) -> dict[str, Fault]:
    """The catalogue but for some."""
    return {key: fault for key, fault in catalogue().items() if key not in left_out}


def report_on(subject: Subject, block: str) -> list[Suspect]:
    """The causes that a report on a block begins with: those that explain most of what is broken."""
    found: list[dict[str, Any]] = []
    so_far = diagnosis.Suspicion()
    for check in (check for check in CHECKS.values() if check.stem == block and check.decides):
        for form in forms(subject, check):
            outcome = Trial(subject, form, "float32").run(check)
            about = {"requirement": check.identifier, "block": block, "form": form, "level": "must"}
            named = [asdict(c) for c in diagnosis.search(check, outcome, so_far).causes]
            found.append({**about, "verdict": outcome.verdict, "failure": {"causes": named}})
    return next(iter(suspects(found)), [])[:SUSPECTS]


# -- two mistakes at once ----------------------------------------------------------------------------------------------


def composed(one: Fault, *others: Fault, at_work: dict[str, bool]) -> dict[str, Any] | None:
    """The pieces of a subject with all the mistakes; None where two of them are in one place.

    `at_work` tells of each function that another computes with whether that has been so yet.
    """
    if not others:
        return one.pieces
    (other,) = others
    pieces = {**other.pieces, **one.pieces}
    for name in one.pieces.keys() & other.pieces.keys():
        mine, its = one.pieces[name], other.pieces[name]
        if isinstance(mine, type):
            if {n for n in vars(mine) if n in vars(its) and n not in ("__module__", "__doc__", "__qualname__")}:
                return None
            pieces[name] = type(name, (mine, its), {})
        else:
            outer, inner = (mine, its) if right_of(mine, name) else (its, mine)
            if right_of(outer, name) is None:
                return None
            at_work[name] = False
            pieces[name] = within(outer, inner, name, at_work)
    return pieces


def right_of(mine: Callable[..., Any], name: str) -> str | None:
    """The name of what a fault's file computes with, `right` or `right_vjp`; None where blocks share the fault."""
    right = "right" + name[len(mine.__module__.rpartition(".")[2]) :]
    return right if hasattr(importlib.import_module(mine.__module__), right) else None


def within(
    mine: Callable[..., Any], its: Callable[..., Any], name: str, at_work: dict[str, bool]
) -> Callable[..., Any]:
    """The first function, where its file's `right`, or `right_vjp`, is the second, which has the right one itself."""
    module, right = importlib.import_module(mine.__module__), right_of(mine, name) or ""
    original = getattr(module, right)

    @functools.wraps(original)
    def inner(*operands: Any, **arguments: Any) -> Any:
        at_work[name] = True
        with mock.patch.object(module, right, original):
            return its(*operands, **arguments)

    @functools.wraps(original)
    def outer(*operands: Any, **arguments: Any) -> Any:
        with mock.patch.object(module, right, inner):
            return mine(*operands, **arguments)

    return outer


# -- many reports ------------------------------------------------------------------------------------------------------


def drawn(kind: str, blocks: list[str], seed: int) -> Iterator[tuple[str, ...]]:
    """Faults in what a must says, each once, or pairs of one block, without end."""
    by_block: dict[str, list[str]] = defaultdict(list)
    for fault in faults_of(blocks):
        stem = fault.stem
        if fault.decides and stem != "resnet34":
            by_block[stem].append(fault.key)
    chance = random.Random(seed)
    everything = [key for keys in by_block.values() for key in keys]
    if kind != "pairs":
        chance.shuffle(everything)
        yield from ((key,) for key in everything)
        return
    while True:
        one = chance.choice(everything)
        other = chance.choice(by_block[block_of(one)])
        if one.partition("/")[0] != other.partition("/")[0]:
            yield one, other


def score(kind: str, wanted: int, blocks: list[str], seed: int, pool: ProcessPoolExecutor) -> bool:
    """Print what so many reports say; whether they are right as often as they must be."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    faults = drawn(kind, blocks, seed)
    while (missing := wanted - sum(c["reports"] for c in counts.values())) > 0:
        batch = [keys for keys, _ in zip(faults, range(missing), strict=False)]
        if not batch:
            break
        for keys, said, named in pool.map(measure, batch, [kind != "unknown"] * len(batch)):
            if said:
                counts[block_of(keys[0])].update(["reports", *said])
            if said and kind != "unknown" and "first" not in said:
                print(f"{said[0]}: {' and '.join(keys)}: {', '.join(named)}", flush=True)
    total = sum(counts.values(), Counter[str]())
    print(f"{kind:18} {' '.join(f'{name:>8}' for name in COLUMNS)}")
    for block, count in (*sorted(counts.items()), ("all", total)):
        print(f"{block:18} {' '.join(f'{count[name]:8}' for name in COLUMNS)}", flush=True)
    column, least = LEAST[kind]
    return 100 * total[column] >= least * total["reports"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in LEAST:
        parser.add_argument(f"--{kind}", type=int, default=200, metavar="N", help="how many reports (200; 0: none)")
    parser.add_argument("--block", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", type=int, default=2, metavar="WORKERS")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.n) as pool:
        enough = [
            score(kind, getattr(options, kind), options.block, options.seed, pool)
            for kind in LEAST
            if getattr(options, kind)
        ]
    return int(not all(enough))


if __name__ == "__main__":
    sys.exit(main())

"""How strong the checks are: every fault must be killed by the check that bears its requirement."""

from __future__ import annotations

import multiprocessing
import os
import re
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnspec.adapters.names import LONG
from nnspec.adapters.subject import Subject
from nnspec.conformance.checks import load_checks
from nnspec.conformance.faults import Fault, catalogue, fault_named, measured
from nnspec.conformance.report.report import versions
from nnspec.conformance.report.terminal import bar
from nnspec.conformance.report.verdicts import Record
from nnspec.conformance.requirements import CHECKS, Check, block_of
from nnspec.conformance.trial.record import Outcome
from nnspec.conformance.trial.run import forms
from nnspec.conformance.trial.trial import Trial
from rich.console import Console
from rich.markup import escape
from rich.table import Table

SCHEMA = "urn:nnspec:power:1"
SCORE = re.compile(r"(?<=<!-- score -->\n).*?(?=<!-- /score -->)", re.DOTALL)  # what a page has between these marks
NARROW = ("float16",)  # of the 16-bit types NumPy, in which faults are written, has this one
SMALL = "small"


@dataclass(frozen=True)
class Verdict:
    """What one fault met with one seed."""

    key: str
    seed: int
    killed: bool
    why: str  # what the check said; or that there is none, or that it does not apply
    cases: int = 0  # how many it took until one failed, that one included
    seconds: float = 0.0

    @property
    def stem(self) -> str:
        """The block."""
        return block_of(self.key)


def measure(key: str, profile: str, seed: int, sizes: str = SMALL) -> Verdict:
    """Put a fault to its own check. The first form and dtype in which it fails kills it; no smaller case is sought."""
    load_checks()
    fault, started = fault_named(key), time.perf_counter()
    check = CHECKS.get(fault.requirement)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what wrong code does to NaN and infinity is no news
        met = [*outcomes(fault.subject(), check, profile, seed, sizes, simplify=False)] if check else []
    if not met:
        return Verdict(key, seed, False, "no check applies")
    cases, seconds = sum(o.failed_at or o.cases for o in met), time.perf_counter() - started
    return Verdict(key, seed, met[-1].verdict == "fail", met[-1].reason or met[-1].verdict, cases, seconds)


def measure_all(
    faults: Iterable[Fault], profile: str, seeds: Iterable[int], workers: int = 1, sizes: str = SMALL
) -> Iterator[Verdict]:
    """Every fault with every seed, over worker processes."""
    jobs = [(f.key, profile, seed, sizes) for f in faults for seed in seeds]
    if workers < 2:
        yield from (measure(*job) for job in jobs)
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before the workers import NumPy
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # and whatever the working directory holds
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(measure, *job) for job in jobs]):
            yield done.result()


def judge(subject: Subject, check: Check, profile: str, seed: int, sizes: str = SMALL) -> Outcome | None:
    """What a check comes to in the first form and dtype in which it fails, or else in the last; None without a form."""
    met = [*outcomes(subject, check, profile, seed, sizes)]
    return met[-1] if met else None


def outcomes(
    subject: Subject, check: Check, profile: str, seed: int, sizes: str = SMALL, *, simplify: bool = True
) -> Iterator[Outcome]:
    """What a check comes to in one form and dtype after the other, up to the first in which it fails."""
    for form in forms(subject, check):
        narrow = NARROW if check.narrow and profile != "quick" else ()
        for dtype in (*LONG, *narrow) if check.per_dtype else LONG[:1]:
            outcome = Trial(subject, form, dtype, profile, seed, sizes=sizes).run(check, simplify=simplify)
            yield outcome
            if outcome.verdict == "fail":
                return


def faults_of(blocks: Iterable[str] = (), sizes: str = SMALL) -> list[Fault]:
    """The catalogue that is for cases of these sizes, or the part of it that belongs to some blocks."""
    wanted = set(blocks)
    return [f for f in catalogue(sizes).values() if not wanted or f.stem in wanted]


# -- what is published -------------------------------------------------------------------------------------------------


def recorded() -> list[Verdict]:
    """Return the verdicts on all faults as they were measured last, without their reasons and times."""
    return [
        Verdict(key, seed, cases is not None, "", cases or 0)
        for stem in sorted({fault.stem for fault in catalogue().values()})
        for key, entry in measured(stem).items()
        if key in catalogue()
        for seed, cases in enumerate(entry["cases"])
    ]


def assemble(
    verdicts: Sequence[Verdict], profile: str, seeds: int, seconds: float, sizes: str = SMALL
) -> dict[str, Any]:
    """The score as plain data: requirement by requirement, and in all. Seconds of work are of all processes."""
    load_checks()
    of: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in sorted(verdicts, key=lambda v: (v.key, v.seed)):
        of[fault_named(verdict.key).requirement].append(verdict)
    return {
        "schema": SCHEMA,
        "profile": profile,
        "sizes": sizes,
        "seeds": seeds,
        "versions": versions(),
        "seconds": round(seconds, 2),
        "faults": len({v.key for v in verdicts}),
        "runs": len(verdicts),
        "killed": sum(v.killed for v in verdicts),
        "requirements": [_of_requirement(identifier, met) for identifier, met in sorted(of.items())],
    }


def _of_requirement(identifier: str, met: Sequence[Verdict]) -> dict[str, Any]:
    check, took = CHECKS.get(identifier), [v.cases for v in met if v.killed]
    survived: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in met:
        if not verdict.killed:
            survived[verdict.key].append(verdict)
    return {
        "requirement": identifier,
        "check": f"{check.body.__module__}.{check.body.__name__}" if check else None,
        "faults": len({v.key for v in met}),
        "runs": len(met),
        "killed": len(took),
        "cases_median": statistics.median(took) if took else None,
        "cases_worst": max(took, default=None),
        "seconds_of_work": round(sum(v.seconds for v in met), 3),
        "survivors": [
            {"fault": key, "mistake": fault_named(key).mistake, "seeds": {str(v.seed): v.why for v in runs}}
            for key, runs in survived.items()
        ],
    }


def by_block(score: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Block -> its faults, runs and kills, and the cases that it took, in the middle and at worst of requirements."""
    blocks: dict[str, dict[str, Any]] = {}
    for entry in score["requirements"]:
        row = blocks.setdefault(block_of(entry["requirement"]), defaultdict(int, medians=[], worst=0))
        for name in ("faults", "runs", "killed"):
            row[name] += entry[name]
        row["medians"] += [] if entry["cases_median"] is None else [entry["cases_median"]]
        row["worst"] = max(row["worst"], entry["cases_worst"] or 0)
    for row in blocks.values():
        row["median"] = statistics.median(row.pop("medians") or [0])
    return blocks


def profile_of(score: dict[str, Any]) -> str:
    """The profile, with the sizes if they are not small."""
    return str(score["profile"]) + ("" if score["sizes"] == SMALL else f", sizes {score['sizes']}")


def markdown(score: dict[str, Any]) -> str:
    """The score as a table of a page."""
    seeds = f"{score['seeds']} seed{'s' if score['seeds'] > 1 else ''}"
    lines = [
        f"**{score['killed']:,} of {score['runs']:,}** runs of {score['faults']:,} faults killed by the check of their "
        f"own requirement ({seeds}, profile {profile_of(score)}, nnspec {score['versions']['nnspec']})",
        "",
        "| block | faults | killed | cases until the first that failed: median | at worst |",
        "| --- | --: | --: | --: | --: |",
    ]
    for block, row in by_block(score).items():
        killed = f"{row['killed']:,} of {row['runs']:,}"
        lines.append(f"| {block} | {row['faults']} | {killed} | {row['median']:g} | {row['worst']} |")
    return "\n".join(lines) + "\n"


def has_place_for_score(page: Path) -> bool:
    """If there is such a page, with the marks that the score belongs between."""
    return page.is_file() and bool(SCORE.search(page.read_text("utf-8")))


def write_into(page: Path, score: dict[str, Any]) -> None:
    """The table into a page, between its marks."""
    table = "\n" + markdown(score) + "\n"
    page.write_text(SCORE.sub(lambda _: table, page.read_text("utf-8")), "utf-8")


# -- what the terminal shows ---------------------------------------------------------------------------------------


def measure_power(blocks: Iterable[str], profile: str, seeds: int, workers: int, sizes: str = SMALL) -> Record:
    """Put every fault to its own check, with a bar on standard error; the score as `assemble` makes it."""
    faults, verdicts, started = faults_of(blocks, sizes), [], time.monotonic()
    with bar() as progress:
        task = progress.add_task("faults", total=len(faults) * seeds)
        for verdict in measure_all(faults, profile, range(seeds), workers, sizes):
            verdicts.append(verdict)
            progress.advance(task)
    return assemble(verdicts, profile, seeds, time.monotonic() - started, sizes)


def show_power(score: Record, console: Console) -> None:
    """The score: block by block, and what survived."""
    seeds = score["seeds"]
    of = profile_of(score)
    title = f"faults killed by their own check, profile {of}, {seeds} seed{'s' if seeds > 1 else ''}"
    table = Table(title=title, title_justify="left", box=None)
    for column in ("block", "faults", "killed", "of", "cases: median", "at worst"):
        table.add_column(column, justify="left" if column == "block" else "right")
    for block, row in by_block(score).items():
        numbers = (row["faults"], row["killed"], row["runs"], f"{row['median']:g}", row["worst"])
        table.add_row(block, *map(str, numbers))
    console.print(table)
    survivors = [s for entry in score["requirements"] for s in entry["survivors"]]
    for survivor in survivors:
        seeds_and_reasons = ", ".join(f"seed {seed} ({escape(why)})" for seed, why in survivor["seeds"].items())
        console.print(f"survived: {survivor['fault']}: {seeds_and_reasons}")
    console.print(
        f"{score['killed']} of {score['runs']} killed ({100 * score['killed'] / max(score['runs'], 1):.1f} %); "
        f"{len(survivors)} of {score['faults']} faults survived at least once; {score['seconds']:.0f} s"
    )

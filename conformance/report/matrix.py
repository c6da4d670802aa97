"""The conformance matrix: several subjects, one run of all checks each, and one table of blocks by subjects."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnspec.conformance.bounds.arithmetic import CLASSES
from nnspec.conformance.report.unjudged import unjudged
from nnspec.conformance.report.verdicts import BAD, Record, failed
from nnspec.conformance.system import folder, log
from rich.console import Console

SCHEMA = "urn:nnspec:matrix:3"  # the $id of matrix.schema.json


def merge(reports: Sequence[Record], failures: dict[str, str]) -> Record:
    """Return the reports side by side; `failures` gives the reason for each subject that could not be judged."""
    conforms = bool(reports) and not failures and all(r["conforms"] for r in reports)
    return {"schema": SCHEMA, "conforms": conforms, "subjects": list(reports), "failures": failures}


def markdown(matrix: Record) -> str:
    """Return the matrix as a page of Markdown: the table, waived results with reasons, and failures."""
    parts = ["# Conformance", "", *_table(matrix["subjects"]), "", *_legend(matrix["subjects"])]
    parts += _waived(matrix["subjects"]) + _failed(matrix["subjects"]) + _unjudged(matrix["subjects"])
    if matrix["failures"]:
        parts += ["", "## Not judged", "", *(f"- {name}: {why}" for name, why in matrix["failures"].items())]
    return "\n".join(parts) + "\n"


def lines(reports: Sequence[Record], failures: dict[str, str], others: dict[str, str]) -> str:
    """Return a line for each subject, and for each path of a directory that is not judged (`others`)."""
    told = {one["subject"]: _in_words(one) for one in reports} | failures | others
    width = max(map(len, told))
    return "\n".join(f"{name:{width}}  {words}" for name, words in told.items())


def _in_words(report: Record) -> str:
    musts, broken = report["musts"], list(dict.fromkeys(r["requirement"] for r in failed(report["results"])))
    if report["conforms"]:
        return f"conforms: judged {musts['judged']} of {musts['all']} musts"
    if broken:
        return f"does not conform: {', '.join(broken[:3])}" + (f" and {len(broken) - 3} more" if broken[3:] else "")
    return f"cannot be said to conform: {len(musts['not judged'])} musts were not judged"


def show(page: str, path: Path, report: str, console: Console) -> None:
    """Print the page, and where it was written."""
    console.print(page, markup=False)
    console.print(f"written: {path}, {report}", markup=False)


def folders(subjects: Iterable[str]) -> dict[str, str]:
    """Return a folder name for each subject, made from the subject's name."""
    found: dict[str, str] = {}
    for subject in dict.fromkeys(subjects):
        name = re.sub(r"[^A-Za-z0-9-]+", "_", subject)
        taken = sum(other == name or other.startswith(f"{name}-") for other in found.values())
        found[subject] = f"{name}-{taken + 1}" if taken else name
    return found


def remove_leftovers(place: Path, names: Iterable[str]) -> None:
    """Remove what an earlier matrix left: its page and report, and the folders of subjects that are not judged now."""
    old = folder.report(place / "report.json")
    if old is None or old.get("schema") != SCHEMA:
        return
    subjects = [one["subject"] for one in old["subjects"]]
    for name in {*folders([*subjects, *old["failures"]]).values()} - {*names}:
        log.remove(place / name)
    for name in ("report.json", "matrix.md"):
        (place / name).unlink(missing_ok=True)


def _table(reports: Sequence[Record]) -> list[str]:
    names = [one["subject"] for one in reports]
    blocks = dict.fromkeys(entry["block"] for one in reports for entry in one["results"])
    rows = [["block", *names]]
    rows += [[block, *(_cell([e for e in r["results"] if e["block"] == block]) for r in reports)] for block in blocks]
    rows += [["**all**", *(_cell(one["results"]) for one in reports)]]
    rows += [["musts judged", *(f"{r['musts']['judged']} of {r['musts']['all']}" for r in reports)]]
    rows += [["conforms", *("yes" if one["conforms"] else "**no**" for one in reports)]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    head, *body = ["| " + " | ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return [head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body]


def _cell(entries: Iterable[Record]) -> str:
    """How many results have each verdict, and, of those that passed, the weakest class and the largest error in it."""
    entries = list(entries)
    if not entries:
        return "–"
    counts = Counter(e["verdict"] if not _only_a_should(e) else "should" for e in entries)
    parts = [f"{counts.pop('pass', 0)} pass", *(f"**{counts.pop(v)} {v}**" for v in BAD if v in counts)]
    parts += [f"{n} {verdict}" for verdict, n in sorted(counts.items())]
    worst = max((e["worst_error_over_bound"] for e in entries if e["verdict"] == "pass"), default=0.0)
    classes = [e["accuracy"] for e in entries if e["accuracy"]]
    reached = max(classes, key=list(CLASSES).index, default="")
    return ", ".join(parts) + (f"; {reached} {worst:.2f}" if worst else "; exact")


def _only_a_should(entry: Record) -> bool:
    return bool(entry["verdict"] == "fail" and entry["level"] != "must")


def _legend(reports: Sequence[Record]) -> list[str]:
    return [
        "Counts are of requirements, each form (function, class) and dtype by itself. The letter is the weakest class",
        "of accuracy among those that passed, B being what a *must* asks for in float32 and float64; behind it stands",
        "the largest error seen, as a part of what is allowed. *exact*: no error at all. *should*: a recommendation",
        "that is not met.",
        "",
        *(f"- {name}: {what}" for name, what in CLASSES.items()),
        "",
        *(f"- {r['subject']}: profile {r['profile']}, sizes {r['sizes']}, seed {r['seed']}, {r['totals']['cases']} "
          f"cases in {r['seconds']:.0f} s; {', '.join(f'{n} {v}' for n, v in r['versions'].items())}" for r in reports),
    ]  # fmt: skip


def _waived(reports: Sequence[Record]) -> list[str]:
    found = {
        (one["subject"], entry["requirement"], entry["reason"])
        for one in reports
        for entry in one["results"]
        if entry["verdict"] in ("waived", "differs by design")
    }
    lines = [
        f"- {_plain(subject)}: `{requirement}`: {_plain(reason)}" for subject, requirement, reason in sorted(found)
    ]
    return ["", "## Waived, and different by design", "", *lines] if lines else []


def _failed(reports: Sequence[Record]) -> list[str]:
    lines = []
    for one in reports:
        for entry in one["results"]:
            if entry["verdict"] in BAD and not _only_a_should(entry):
                where = f"`{entry['requirement']}` ({entry['form']}, {entry['dtype']})"
                lines.append(f"- {_plain(one['subject'])}: {where}: {_plain(entry['failure']['message'])}")
    return ["", "## Failed", "", *lines] if lines else []


def _unjudged(reports: Sequence[Record]) -> list[str]:
    lines = [
        f"- {_plain(one['subject'])}: {', '.join(f'`{name}`' for name in group.requirements)}: {_plain(group.reason)}"
        for one in reports
        for group in unjudged(one["results"])
    ]
    return ["", "## Musts that were not judged", "", *lines] if lines else []


def _plain(text: str) -> str:
    """Return a subject's text in one line, escaped for Markdown and HTML."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))

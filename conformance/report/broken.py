"""The broken requirements as the terminal shows them: a list, the likely causes, and each with its smallest case.

A requirement that rests on a broken one stands below it. Refusals that are missing come last, in one short list.
"""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from typing import Any

from nnspec.conformance.report.findings import Suspect, findings, suspects
from nnspec.conformance.report.picture import picture
from nnspec.conformance.report.verdicts import Record, failed
from nnspec.conformance.requirements import block_of
from nnspec.conformance.sizes import OF_PROFILE
from rich.console import Console
from rich.markup import escape

SUSPECTS = 3  # mistakes at most that are named for a block, and for each as many that do the same
Groups = dict[str, list[Record]]  # requirement -> its findings


def show_broken(report: Record, console: Console) -> None:
    """Show all findings: first a list of them, then the likely causes, then the findings one by one."""
    groups, refusals = _grouped(report["results"])
    if not (groups or refusals):
        return
    count = len(groups) + len(refusals)
    console.print(f"\n[bold]{count} requirement{'s' if count > 1 else ''} broken[/]")
    for identifier, entries in groups.items():
        if entries[0]["follows_from"] not in groups:
            console.print(f"  [bold red]{identifier}[/]  {escape(entries[0]['sentence'])}")
            if below := [name for name, its in groups.items() if its[0]["follows_from"] == identifier]:
                console.print(f"    from which may follow: {', '.join(below)}")
    if refusals:
        console.print(f"  {missing(len(refusals))}: {', '.join(refusals)}")
    _show_causes(report["results"], console)
    for entries in groups.values():
        show_one = _show_consequence if entries[0]["follows_from"] in groups else _show_finding
        show_one(report, entries, console)
    _show_refusals(report, refusals, console)


def only_refusals(records: list[Record]) -> int:
    """Return how many refusals are missing if nothing else is broken; else 0."""
    groups, refusals = _grouped(records)
    return 0 if groups else len(refusals)


def missing(count: int) -> str:
    """Say how many refusals are missing."""
    return f"{count} refusal{'s' if count > 1 else ''} missing"


def _grouped(records: list[Record]) -> tuple[Groups, Groups]:
    """Return the findings by requirement, consequences behind their cause; and the refusals that are missing."""
    groups: Groups = defaultdict(list)
    refusals: Groups = defaultdict(list)
    for entry in findings(records):
        missing = entry["kind"] == "refusal" and entry["verdict"] == "fail"
        (refusals if missing else groups)[entry["requirement"]].append(entry)
    below: dict[str, list[str]] = defaultdict(list)
    for name, entries in groups.items():
        cause = entries[0]["follows_from"]
        below[cause if cause in groups else name].append(name)
    return {name: groups[name] for names in below.values() for name in names}, dict(refusals)


def _show_causes(records: list[Record], console: Console) -> None:
    known = {cause["fault"]: cause for entry in failed(records) for cause in (entry["failure"] or {}).get("causes", ())}
    forms: dict[str, set[str]] = defaultdict(set)
    for entry in failed(records):
        forms[entry["block"]].add(entry["form"])
    shown: Counter[str] = Counter()
    told: set[tuple[str, ...]] = set()
    for alike in suspects(records):
        block, faults = block_of(alike[0].fault), tuple(suspect.fault for suspect in alike)
        if shown[block] == SUSPECTS or faults in told:  # told of the block's other form
            continue
        shown[block] += 1
        told.add(faults)
        where = f" of the {alike[0].form}" if len(forms[block]) > 1 else ""
        for number, suspect in enumerate(alike[:SUSPECTS]):
            label = "  or:" if number else f"{'likely' if suspect.likely else 'possible'} cause:"
            _show_cause(suspect, known[suspect.fault], label, where, console)
    if cut := sum(bool((entry["failure"] or {}).get("search_cut")) for entry in failed(records)):
        console.print(f"the search for causes of {cut} failure{'s' if cut > 1 else ''} was cut short: it took too long")


def _show_cause(suspect: Suspect, cause: Record, label: str, where: str, console: Console) -> None:
    told = f"explains {suspect.explained} of {suspect.broken} broken requirements{where}, and does the same in all of"
    told += f" {suspect.cases} cases; nnspec explain {suspect.requirement}"
    console.print(f"[bold]{label}[/] {escape(cause['mistake'])} ({told})")
    console.print(f"  instead: {escape(cause['fix'])}")
    if cause["origin"]:
        console.print(f"  known from: {escape(cause['origin'])}")


def _show_finding(report: Record, entries: list[Record], console: Console) -> None:
    """Show one finding with its smallest case, its arrays and the command that reproduces it."""
    _show_heading(entries, console)
    failure = entries[0]["failure"]
    console.print(textwrap.indent(escape(entries[0]["sentence"]), "  "))
    if entries[0]["found_by"]:
        console.print(f"  found by the check of {entries[0]['found_by']}")
    console.print(f"  [bold]{escape(failure['message'])}[/]")
    if failure["boundaries"]:
        console.print(f"  wrong where {escape('; '.join(one['says'] for one in failure['boundaries']))}")
    case = failure["case"]["call"]
    console.print("  smallest case:" + (" " + escape(case) if "\n" not in case else ""))
    if "\n" in case:  # a program
        console.print(textwrap.indent(escape(case), "    "))
    for name, array in failure["case"]["arrays"].items():
        if array is not None:
            console.print(f"    {name} = {escape(_short(array['values'], 8 + len(name)))}")
    if shown := picture(failure):
        console.print(textwrap.indent(shown, "  "), markup=False)
    else:
        for name in ("expected", "actual"):
            if failure[name] is not None:
                console.print(f"  {name:8} {escape(_short(failure[name], 11))}")
    console.print(f"  reproduce: {escape(_command(report, entries[0]))}")


def _show_consequence(report: Record, entries: list[Record], console: Console) -> None:
    """Show in brief a finding that may go away with its cause."""
    _show_heading(entries, console)
    console.print(f"  follows from {entries[0]['follows_from']}, or is a mistake of its own")
    console.print(f"  [bold]{escape(entries[0]['failure']['message'])}[/]")
    console.print(f"  reproduce: {escape(_command(report, entries[0]))}")


def _show_refusals(report: Record, refusals: Groups, console: Console) -> None:
    """Show the calls that must raise an exception, and what happened instead."""
    if refusals:
        console.print(f"\n[bold]{missing(len(refusals))}[/]: these calls must raise an exception")
    for identifier, (first, *_) in refusals.items():
        call = first["failure"]["case"]["call"]
        call = call if "\n" not in call else first["sentence"]
        console.print(f"  [bold red]{identifier}[/]  {escape(call)}: {escape(first['failure']['message'])}")
        console.print(f"    reproduce: {escape(_command(report, first))}")


def _show_heading(entries: list[Record], console: Console) -> None:
    where = ", ".join(f"{e['form']} {e['dtype']}" for e in entries)
    console.print(f"\n[bold red]{entries[0]['requirement']}[/]  ({entries[0]['verdict']}: {where})")


def _command(report: Record, entry: Record) -> str:
    """Return the command that shows a finding again."""
    if script := entry["failure"]["script"]:
        return f"python {script}"
    again = f"nnspec check {report['subject']} --block {entry['block']} --seed {report['seed']}"
    again += f" --profile {report['profile']}" * (report["profile"] != "quick")
    return again + f" --sizes {report['sizes']}" * (report["sizes"] != OF_PROFILE[report["profile"]])


def _short(values: Any, indent: int) -> str:
    """Return nested lists as a matrix, one row a line, at most 12 lines."""
    if not isinstance(values, list):
        return _number(values)
    text = _rows(values, indent)
    lines = text.splitlines()
    return text if len(lines) <= 12 else "\n".join([*lines[:12], " " * indent + "…"])


def _rows(values: list[Any], indent: int) -> str:
    if not any(isinstance(v, list) for v in values):
        shown = [_number(v) for v in values[:16]]
        return f"[{' '.join(shown)}{' …' if len(values) > 16 else ''}]"
    inner = (_rows(v, indent + 1) for v in values)
    return "[" + ("\n" + " " * (indent + 1)).join(inner) + "]"


def _number(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)

"""What the terminal shows: progress, the table of blocks, the findings. Everything comes from the report."""

from __future__ import annotations

import io
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, TextIO

from nnspec.conformance.bounds.arithmetic import CLASSES, STRICT
from nnspec.conformance.report.findings import Suspect, findings, suspects
from nnspec.conformance.report.picture import picture
from nnspec.conformance.report.report import Record, failed
from nnspec.conformance.report.unjudged import unjudged
from nnspec.conformance.report.verdicts import BAD, VERDICTS
from nnspec.conformance.requirements import block_of
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

SUSPECTS = 3  # mistakes at most that are named for a block, and for each as many that do the same
STYLE = {"pass": "green", "fail": "bold red", "crash": "bold red", "timeout": "bold red"}


def bar() -> Bar:
    """A bar on standard error, which leaves nothing behind."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Bar(*columns, console=Console(stderr=True), transient=True)


class Progress:
    """A bar on standard error while checks run; nothing where that is not a terminal."""

    def __init__(self, subject: str) -> None:
        self._bar = bar()
        self._task = self._bar.add_task(f"checking {subject}", total=None)
        self._failed = 0

    def __enter__(self) -> Progress:
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar.console.is_terminal:
            self._bar.stop()

    def advance(self, done: int, planned: int, record: Record | None) -> None:
        """One check more is done."""
        self._failed += bool(record and record["verdict"] in BAD)
        text = f"{record['block']}" if record else ""
        text += f", [red]{self._failed} failed[/]" if self._failed else ""
        self._bar.update(self._task, completed=done, total=planned or None, description=text)


def rendered(show: Callable[[Console], None], stream: TextIO) -> str:
    """Return what `show` prints on a console, as it would look on a stream."""
    page = io.StringIO()
    show(Console(file=page, force_terminal=stream.isatty() or None, highlight=False, soft_wrap=True))
    return page.getvalue()


def show(report: Record, path: str, console: Console) -> None:
    """The whole report for a person: the table, the findings, and how it was reached."""
    console.print(f"[italic]nnspec check {escape(report['subject'])}[/]: {_judged(report['musts'])}")
    _unsteady(report, console)
    if report["results"]:
        console.print(_table(report))
    _findings(report, console)
    _unjudged(report, console)
    _footer(report, path, console)


def _unsteady(report: Record, console: Console) -> None:
    """Tell first of results that differ from call to call: any verdict on such a block may be chance."""
    for entry in report["unsteady"]:
        where = f"{entry['block']} ({entry['form']} {entry['dtype']})"
        console.print(f"[bold red]{where}: {escape(entry['message'])}[/]")
    if report["unsteady"]:
        console.print("  such results come from a race between threads, memory that nobody initialised, or chance")


def _judged(musts: Record) -> str:
    further = {"unsupported": musts["unsupported"], "not judged": len(musts["not judged"])}
    counts = ", ".join(f"{count} {what}" for what, count in further.items() if count)
    return f"judged {musts['judged']} of {musts['all']} musts" + (f" ({counts})" if counts else "")


def _table(report: Record) -> Table:
    table = Table(box=None, pad_edge=False)
    blocks: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in report["results"]:
        blocks[entry["block"]][_shown(entry)] += 1
        blocks[entry["block"]]["cases"] += entry["cases"]
    used = [c for c in (*VERDICTS, "should") if any(counts[c] for counts in blocks.values()) or c in ("pass", "fail")]
    table.add_column("block")
    for column in (*used, "cases"):
        table.add_column(column, justify="right")
    for block, counts in blocks.items():
        bad = any(counts[c] for c in BAD)
        cells = [f"[{STYLE.get(c, 'yellow')}]{counts[c]}[/]" if counts[c] else "·" for c in used]
        table.add_row(f"[{'red' if bad else 'green'}]{block}[/]", *cells, str(counts["cases"]))
    return table


def _shown(entry: Record) -> str:
    """The column of a record: a *should* that is not met counts apart from a failure."""
    return "should" if entry["verdict"] == "fail" and entry["level"] != "must" else entry["verdict"]


def _findings(report: Record, console: Console) -> None:
    groups: dict[str, list[Record]] = defaultdict(list)
    for entry in findings(report["results"]):
        groups[entry["requirement"]].append(entry)
    if not groups:
        return
    console.print(f"\n[bold]{len(groups)} requirement{'s' if len(groups) > 1 else ''} broken[/]")
    for identifier, entries in groups.items():
        console.print(f"  [bold red]{identifier}[/]  {escape(entries[0]['sentence'])}")
    _causes(report["results"], console)
    for identifier, entries in groups.items():
        _finding(report, identifier, entries, console)


def _causes(records: list[Record], console: Console) -> None:
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
            _cause(suspect, known[suspect.fault], label, where, console)


def _cause(suspect: Suspect, cause: Record, label: str, where: str, console: Console) -> None:
    told = f"explains {suspect.explained} of {suspect.broken} broken requirements{where}, and does the same in all of"
    told += f" {suspect.cases} cases; nnspec explain {suspect.requirement}"
    console.print(f"[bold]{label}[/] {escape(cause['mistake'])} ({told})")
    console.print(f"  instead: {escape(cause['fix'])}")
    if cause["origin"]:
        console.print(f"  known from: {escape(cause['origin'])}")


def _finding(report: Record, identifier: str, entries: list[Record], console: Console) -> None:
    first, failure = entries[0], entries[0]["failure"]
    where = ", ".join(f"{e['form']} {e['dtype']}" for e in entries)
    console.print(f"\n[bold red]{identifier}[/]  ({first['verdict']}: {where})")
    console.print(textwrap.indent(escape(first["sentence"]), "  "))
    console.print(f"  [bold]{escape(failure['message'])}[/]")
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
    again = f"nnspec check {report['subject']} --block {first['block']} --seed {report['seed']}"
    again += f" --profile {report['profile']}" * (report["profile"] != "quick")
    command = f"python {failure['script']}" if failure["script"] else again
    console.print(f"  reproduce: {escape(command)}")


def _short(values: Any, indent: int) -> str:
    """Nested lists as a matrix, row under row, and cut where they grow long."""
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


def _unjudged(report: Record, console: Console) -> None:
    """The *musts* that still have to be judged, by the reason why they were not, and the line that would mend it."""
    groups = unjudged(report["results"])
    if groups:
        count = len(report["musts"]["not judged"])
        console.print(f"\n[bold]{count} must{'s were' if count > 1 else ' was'} not judged[/]")
    for group in groups[:SUSPECTS]:
        console.print(f"  {group.verdict} ({len(group.requirements)}): {escape(group.reason)}")
        console.print(f"    {escape(_some(group.requirements))}")
        if group.declaration:
            console.print(f"    if that is meant, declare it beside your layers: {escape(group.declaration)}")
    if more := groups[SUSPECTS:]:
        console.print(f"  and {sum(len(group.requirements) for group in more)} for {len(more)} other reasons")


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _footer(report: Record, path: str, console: Console) -> None:
    totals = report["totals"]
    shown = Counter(map(_shown, report["results"]))
    counts = ", ".join(f"{shown[v]} {v}" for v in (*VERDICTS, "should") if shown[v])
    counts = counts.replace("should", "should not met")
    console.print(f"\n{counts or 'nothing ran'}; {totals['cases']} cases in {report['seconds']:.1f} s")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    console.print(f"profile {report['profile']}, seed {report['seed']}; {escape(versions)}")
    _accuracy(report, console)
    reasons = Counter(
        (r["verdict"], r["reason"])
        for r in report["results"]
        if r["verdict"] in ("differs by design", "waived", "known defect", "unsupported")
        or (VERDICTS[r["verdict"]].open and r["level"] != "must")
    )
    for (verdict, reason), count in reasons.most_common(8):
        console.print(f"{verdict} ({count}): {escape(reason)}")
    declined = Counter[tuple[str, str]]()
    for entry in report["results"]:
        declined.update({(entry["block"], reason): n for reason, n in entry["unsupported"].items()})
    for (block, reason), count in declined.most_common(8):
        console.print(f"{block}: {count} case{'s' if count > 1 else ''} declined: {escape(reason)}")
    _known_defects(report, console)
    for block, form, held in sorted({(r["block"], r["form"], ", ".join(r["held"])) for r in report["results"]}):
        if held:
            console.print(f"{block} as a {form} does not take {held}: held neutral, and not judged")
    for incident in report.get("incidents", []):
        console.print(f"note: {escape(incident)}")
    _errors(report, console)
    if report["interrupted"]:
        console.print(f"[bold]interrupted[/]: {report['finished']} of {report['planned']} checks were done")
    if not report["results"]:
        console.print("nothing could be checked, which shows nothing")
    console.print(f"report: {escape(path)}")
    console.print(_conclusion(report))


def _errors(report: Record, console: Console) -> None:
    """Tell what failed in nnspec or an adapter; what failed alike in several checks, once."""
    alike: dict[str, list[str]] = defaultdict(list)
    for error in report["errors"]:
        alike[error.rstrip().rpartition("\n")[2]].append(error)
    for first, *others in alike.values():
        console.print(f"[bold red]nnspec itself failed:[/] {escape(first.rstrip())}")
        if others:
            console.print(f"  and likewise in {len(others)} more check{'s' if len(others) > 1 else ''}")


def _known_defects(report: Record, console: Console) -> None:
    """Tell which calls were not made for a defect of the framework: it is no finding against the subject."""
    defects = Counter[tuple[str, str]]()
    for entry in report["results"]:
        defects.update({(entry["block"], defect): n for defect, n in entry["known_defects"].items()})
    for (block, defect), count in defects.items():
        many = f"{count} case{'s' if count > 1 else ''}"
        console.print(f"{block}: known defects of {escape(defect)}, {many} not made")


def _accuracy(report: Record, console: Console) -> None:
    """How many results are in each class of accuracy, and which of them are in a weaker one than B."""
    reached: dict[str, list[str]] = defaultdict(list)
    for entry in report["results"]:
        if entry["accuracy"]:
            reached[entry["accuracy"]].append(f"{entry['requirement']} ({entry['dtype']})")
    if reached:
        counts = (f"{len(reached[name])} {name} ({what})" for name, what in CLASSES.items() if name in reached)
        console.print(f"accuracy: {'; '.join(counts)}")
    for name in [name for name in CLASSES if name not in STRICT and name in reached]:
        some = list(dict.fromkeys(reached[name]))
        more = f" and {len(some) - 8} more" if len(some) > 8 else ""
        console.print(f"class {name}: {', '.join(some[:8])}{more}")
    if declared := sorted({name for entry in report["results"] for name in entry["declared"]}):
        console.print(f"declared by {escape(report['subject'])}: class {', '.join(declared)}")


def _conclusion(report: Record) -> str:
    if report["conforms"]:
        return f"[bold green]{escape(report['subject'])} conforms[/]" + _except(report)
    if failed(report["results"]):
        return f"[bold red]{escape(report['subject'])} does not conform[/]"
    if count := len(report["musts"]["not judged"]):
        lacking = f"{count} must{'s were' if count > 1 else ' was'} not judged"
        return f"[bold red]{escape(report['subject'])} cannot be said to conform[/]: {lacking}"
    return "[bold]no verdict[/]"


def _except(report: Record) -> str:
    """What a reader should know beside."""
    totals = report["totals"]
    short = [f"{totals[v]} {v}" for v in ("differs by design", "waived", "known defect", "unsupported") if totals[v]]
    return f" ({', '.join(short)})" if short else ""

"""What the terminal shows: progress, the table of blocks, the findings. Everything comes from the report."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, TextIO

from nnspec.conformance.bounds.arithmetic import CLASSES, STRICT
from nnspec.conformance.report.broken import SUSPECTS, missing, only_refusals, show_broken
from nnspec.conformance.report.unjudged import unjudged
from nnspec.conformance.report.verdicts import BAD, VERDICTS, Record, failed
from nnspec.conformance.requirements import KINDS
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

BY_DECLARATION = ("differs by design", "waived", "known defect", "unsupported")
WIDTH = 200  # of a table at most: a terminal may fold its lines, but no column is cut


def bar() -> Bar:
    """Return a progress bar on standard error, which is erased at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Bar(*columns, console=Console(stderr=True), transient=True)


class Progress:
    """A progress bar on standard error while checks run; nothing if standard error is no terminal."""

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
        """Count one more finished check."""
        self._failed += bool(record and record["verdict"] in BAD)
        text = f"{record['block']}" if record else ""
        text += f", [red]{self._failed} failed[/]" if self._failed else ""
        self._bar.update(self._task, completed=done, total=planned or None, description=text)


def rendered(show: Callable[[Console], None], stream: TextIO) -> str:
    """Return what `show` prints on a console, as it would look on a stream."""
    page = io.StringIO()
    terminal = stream.isatty() or None
    show(Console(file=page, force_terminal=terminal, highlight=False, soft_wrap=True, width=WIDTH))
    return page.getvalue()


def show(report: Record, path: str, console: Console) -> None:
    """Print the whole report: the table, the findings, and how the run was made."""
    console.print(f"[italic]nnspec check {escape(report['subject'])}[/]: {_judged(report['musts'])}{_within(report)}")
    count = only_refusals(report["results"])
    if count and not report["musts"]["not judged"]:
        console.print(f"[bold]right except for refusals[/]: {missing(count)}, and nothing else is broken")
    _unsteady(report, console)
    if report["results"]:
        console.print(_table(report))
    show_broken(report, console)
    _unjudged(report, console)
    _outside(report, console)
    _footer(report, path, console)


def _unsteady(report: Record, console: Console) -> None:
    """Print first which results differ from call to call: each verdict on such a block may be chance."""
    for entry in report["unsteady"]:
        where = f"{entry['block']} ({entry['form']} {entry['dtype']})"
        console.print(f"[bold red]{where}: {escape(entry['message'])}[/]")
    if report["unsteady"]:
        console.print("  such results come from a race between threads, memory that nobody initialised, or chance")


def _judged(musts: Record) -> str:
    further = {name: musts[name] for name in ("unsupported", "out of domain")}
    further["not judged"] = len(musts["not judged"])
    counts = ", ".join(f"{count} {what}" for what, count in further.items() if count)
    return f"judged {musts['judged']} of {musts['all']} musts" + (f" ({counts})" if counts else "")


def _within(report: Record) -> str:
    """Return the domains that were judged, as the end of the first line."""
    found = "; ".join(f"{stem}: {domain}" for stem, domain in report["domains"].items())
    return escape(f" within the domain of {found}") if found else ""


def _table(report: Record) -> Table:
    """Return the table of blocks by kinds of requirements: how many results are right."""
    table = Table(box=None, pad_edge=False)
    cells: dict[tuple[str, str], list[Record]] = defaultdict(list)
    cases: Counter[str] = Counter()
    for entry in report["results"]:
        cells[entry["block"], entry["kind"]].append(entry)
        cases[entry["block"]] += entry["cases"]
    used = [kind for kind in KINDS if any(of == kind for _, of in cells)]
    table.add_column("block")
    for column in (*used, "cases"):
        table.add_column(column, justify="right")
    for block, count in cases.items():
        bad = any(failed(cells[block, kind]) for kind in used)
        counts = [_cell(cells[block, kind]) for kind in used]
        table.add_row(f"[{'red' if bad else 'green'}]{block}[/]", *counts, str(count))
    return table


def _cell(entries: list[Record]) -> str:
    """Return how many results passed and, if not all did, of how many; results that need not be judged apart."""
    asked = [entry for entry in entries if not VERDICTS[entry["verdict"]].excused]
    passed = sum(entry["verdict"] == "pass" for entry in asked)
    if not asked:
        return "·"
    style = "bold red" if failed(asked) else "green" if passed == len(asked) else "yellow"
    return f"[{style}]{passed}{f'/{len(asked)}' if passed < len(asked) else ''}[/]"


def _shown(entry: Record) -> str:
    """Return the verdict to count: a *should* that is not met is no failure."""
    return "should" if entry["verdict"] == "fail" and entry["level"] != "must" else entry["verdict"]


def _unjudged(report: Record, console: Console) -> None:
    """Print the *musts* that were not judged, by reason, with the declaration that would excuse them."""
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


def _outside(report: Record, console: Console) -> None:
    """Print every requirement that is out of domain, by the condition that excludes it."""
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    for entry in report["results"]:
        if entry["verdict"] == "out of domain":
            groups[entry["reason"]][entry["requirement"]] = None
    if groups:
        console.print("\n[bold]out of domain[/]")
    for reason, names in groups.items():
        console.print(f"  {escape(reason)}: {', '.join(names)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _footer(report: Record, path: str, console: Console) -> None:
    totals = report["totals"]
    shown = Counter(map(_shown, report["results"]))
    counts = ", ".join(f"{shown[v]} {v}" for v in (*VERDICTS, "should") if shown[v])
    counts = counts.replace("should", "should not met")
    console.print(f"\n{counts or 'nothing ran'}; {totals['cases']} cases in {report['seconds']:.1f} s")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    console.print(f"profile {report['profile']}, sizes {report['sizes']}, seed {report['seed']}; {escape(versions)}")
    _accuracy(report, console)
    reasons = Counter(
        (r["verdict"], r["reason"])
        for r in report["results"]
        if r["verdict"] in BY_DECLARATION or (VERDICTS[r["verdict"]].open and r["level"] != "must")
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
            console.print(f"{block} as a {form} does not take {held}: left at the default and not tested")
    for incident in report.get("incidents", []):
        console.print(f"note: {escape(incident)}")
    _errors(report, console)
    if report["interrupted"]:
        console.print(f"[bold]interrupted[/]: {report['finished']} of {report['planned']} checks were done")
    if not report["results"]:
        console.print("nothing could be checked")
    console.print(f"report: {escape(path)}")
    console.print(_conclusion(report))


def _errors(report: Record, console: Console) -> None:
    """Print what failed in nnspec or an adapter; the same failure in several checks once."""
    alike: dict[str, list[str]] = defaultdict(list)
    for error in report["errors"]:
        alike[error.rstrip().rpartition("\n")[2]].append(error)
    for first, *others in alike.values():
        console.print(f"[bold red]nnspec itself failed:[/] {escape(first.rstrip())}")
        if others:
            console.print(f"  and in the same way in {len(others)} more check{'s' if len(others) > 1 else ''}")


def _known_defects(report: Record, console: Console) -> None:
    """Print which calls nnspec did not make because of a defect of the framework; they are no findings."""
    defects = Counter[tuple[str, str]]()
    for entry in report["results"]:
        defects.update({(entry["block"], defect): n for defect, n in entry["known_defects"].items()})
    for (block, defect), count in defects.items():
        many = f"{count} case{'s' if count > 1 else ''}"
        console.print(f"{block}: known defects of {escape(defect)}, {many} not made")


def _accuracy(report: Record, console: Console) -> None:
    """Print how many results are in each class of accuracy, and which are in a weaker class than B."""
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
    """Return how many results conform only by a declaration, a waiver or a known defect."""
    totals = report["totals"]
    short = [f"{totals[v]} {v}" for v in (*BY_DECLARATION, "out of domain") if totals[v]]
    return f" ({', '.join(short)})" if short else ""

"""The order of findings: the requirement that a mistake is about comes before those that the mistake also breaks.

Each fault of the catalogue was put to all checks of its block. faults/BLOCK.json lists what it breaks, with
a `!` behind a requirement where it is the shape of a result that is wrong. A finding comes the earlier the better the
mistakes in it account for all findings together: by the probability that a mistake in requirement r breaks what is
broken, each requirement i by itself,

    p(i | r) = (the number of r's faults that break i + b) / (the number of r's faults + 1)

b is what one more fault, yet unknown, is taken to do: it breaks r itself, and i as often as the faults in requirements
of the same name in other blocks, and any fault of the block, do.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nnspec.adapters.signatures import SIGNATURES
from nnspec.conformance.faults import broken_by_faults
from nnspec.conformance.report.verdicts import Record, failed
from nnspec.conformance.requirements import block_of, foundations, kind, requirements

Broken = Mapping[str, Collection[str]]  # fault -> the requirements that it breaks, without the name of the block


def findings(records: Iterable[Record]) -> list[Record]:
    """Return what failed, block by block, basic blocks first, and in a block the most probable cause first.

    What a likely cause is a mistake in comes before all others of its block, and then what fails at some sizes alone:
    those tell of a tile or a limit, of which the catalogue's faults know nothing.
    """
    records = list(records)
    bad = failed(records)
    suspected = {suspect.requirement for alike in suspects(records) for suspect in alike if suspect.likely}
    ordered = []
    for block in SIGNATURES:
        mine = [entry for entry in bad if entry["block"] == block]
        if not mine:
            continue
        place = {name: n for n, name in enumerate(ranked(block, {sign(entry) for entry in mine}, broken_by_faults()))}
        ordered += sorted(
            mine, key=lambda e: (e["requirement"] not in suspected, not _knows_sizes(e), place[sign(e).rstrip("!")])
        )
    return ordered


def _knows_sizes(entry: Record) -> bool:
    """Whether the failure says at which sizes, and only at them, the block is wrong."""
    failure = entry["failure"]
    return failure is not None and any(not boundary["some"] for boundary in failure["boundaries"])


def consequences(broken: Iterable[str]) -> dict[str, str]:
    """Return, for broken requirements in the order of findings, the first finding that each of them rests on.

    A finding that comes before everything it rests on is a cause by itself: the order knows better.
    """
    found: dict[str, str] = {}
    before: list[str] = []
    for name in broken:
        if cause := next((other for other in before if other in foundations(name)), None):
            found[name] = found.get(cause, cause)
        before.append(name)
    return found


@dataclass(frozen=True)
class Suspect:
    """A known mistake that explains some of a block's broken requirements: it does the same in so many cases."""

    fault: str
    explained: int
    broken: int
    cases: int
    form: str | None = None  # of the block in which it was found: a mistake in a class is none in a function

    @property
    def requirement(self) -> str:
        """The requirement that the mistake is about."""
        return self.fault.partition("/")[0]

    @property
    def likely(self) -> bool:
        """Whether it explains at least half of what is broken; otherwise there may be other mistakes."""
        return 2 * self.explained >= self.broken


def suspects(records: Iterable[Record]) -> list[list[Suspect]]:
    """Return the known mistakes that explain most broken requirements of a block, then most of the rest, and so on.

    Each form of a block is looked at by itself. The mistakes of one list explain the same: any of them may be it. The
    one comes first that is known to break what is broken. A mistake in a requirement that has passed is none.
    """
    by_form: dict[str | None, list[Record]] = defaultdict(list)
    for entry in records:
        by_form[entry.get("form")].append(entry)
    return [alike for form, entries in by_form.items() for alike in _suspects(entries, form)]


def _suspects(records: list[Record], form: str | None) -> list[list[Suspect]]:
    bad = failed(records)
    passed = {r["requirement"] for r in records if r["verdict"] == "pass"} - {r["requirement"] for r in bad}
    broken: dict[str, set[str]] = defaultdict(set)
    explained: dict[str, set[str]] = defaultdict(set)
    cases: Counter[str] = Counter()
    for entry in bad:
        broken[entry["block"]].add(entry["requirement"])
        for cause in (entry["failure"] or {}).get("causes", ()):
            if _may_be(cause["fault"], passed) and _tells(cause, entry["block"], bad):
                explained[cause["fault"]].add(entry["requirement"])
                cases[cause["fault"]] += cause["cases"]
    found = []
    for block, names in broken.items():
        nearest_first = sorted(explained, key=lambda fault: _apart(fault, names))
        rest = {fault: set(explained[fault]) for fault in nearest_first if block_of(fault) == block}
        while best := max(rest.values(), key=len, default=set()):
            alike = [fault for fault, its in rest.items() if its == best]
            found.append([Suspect(fault, len(explained[fault]), len(names), cases[fault], form) for fault in alike])
            rest = {fault: its - best for fault, its in rest.items()}
    return found


def _may_be(fault: str, passed: Collection[str]) -> bool:
    """Whether a fault may be the cause although some requirements passed. Its own must not be one of them.

    Whether the check of a state finds a mistake may depend on what was called before it.
    """
    requirement = fault.partition("/")[0]
    return requirement not in passed or kind(requirement) == "state"


def _apart(fault: str, broken: Collection[str]) -> int:
    """Return how many requirements either a fault is known to break or the subject breaks, but not both."""
    return len({f"{block_of(fault)}.{name.rstrip('!')}" for name in broken_by_faults().get(fault, ())} ^ {*broken})


def _tells(cause: Mapping[str, Any], block: str, bad: Iterable[Record]) -> bool:
    """Whether a cause says more than that it raises where the subject does: it breaks what the subject breaks."""
    if not cause.get("raises"):
        return True
    known = {name.rstrip("!") for name in broken_by_faults().get(cause["fault"], ())}
    return known == {entry["requirement"].partition(".")[2] for entry in bad if entry["block"] == block}


def sign(entry: Record) -> str:
    """Return the requirement's name without the block, with a ! if the shape of a result is wrong."""
    name, failure = entry["requirement"].partition(".")[2], entry["failure"]
    return f"{name}!" if failure and failure["misshapen"] else name


def ranked(block: str, signs: Collection[str], known: Broken) -> list[str]:
    """Return the broken requirements of a block, without its name, the most probable cause first."""
    faults = {key: broken for key, broken in known.items() if block_of(key) == block}
    often = {i: sum(i in broken for broken in faults.values()) / max(1, len(faults)) for i in signs}
    least = 1 / (len(faults) + 1)

    def log_probability(name: str) -> float:
        own = [broken for key, broken in faults.items() if key.partition("/")[0] == f"{block}.{name}"]
        total = 0.0
        for i in signs:
            more = 1.0 if i.rstrip("!") == name else max(_elsewhere(block, name, i, often[i]), least)
            total += math.log((sum(i in broken for broken in own) + more) / (len(own) + 1))
        return total

    names = list(dict.fromkeys(i.rstrip("!") for i in signs))
    return sorted(names, key=lambda name: (-round(log_probability(name), 9), _on_page(block, name)))


def _elsewhere(block: str, name: str, i: str, often: float) -> float:
    """Return how often the faults of this name in other blocks that have requirement i break it.

    One more of them is taken to break it as often as any fault of this block.
    """
    known = requirements()
    alike = [i in b for stem, b in _of_name()[name] if stem != block and f"{stem}.{i.rstrip('!')}" in known]
    return (sum(alike) + often) / (len(alike) + 1)


@functools.cache
def _of_name() -> Mapping[str, list[tuple[str, list[str]]]]:
    """Return the faults in requirements of each name: their blocks, and what each of them breaks."""
    found = defaultdict(list)
    for key, broken in broken_by_faults().items():
        stem = block_of(key)
        found[key.partition("/")[0].removeprefix(f"{stem}.")].append((stem, broken))
    return found


def _on_page(block: str, name: str) -> int:
    return list(requirements()).index(f"{block}.{name}")

"""The *musts* that were not judged, by reason, each with the line of a file that would declare it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from nnspec.conformance.report.verdicts import VERDICTS, Record

ENTRIES = 2  # in a suggested declaration; more are cut, since a reader has to complete it anyway


@dataclass(frozen=True)
class Group:
    """Requirements that were not judged for the same reason."""

    verdict: str
    reason: str
    requirements: list[str]
    declaration: str  # the line that would declare it; empty where none would


def unjudged(records: Iterable[Record]) -> list[Group]:
    """Return the groups, the largest first."""
    musts = [r for r in records if r["level"] == "must"]
    groups: dict[tuple[str, str, bool], dict[str, None]] = defaultdict(dict)
    for entry in musts:
        if VERDICTS[entry["verdict"]].open:
            declined = entry["unsupported"]
            reason = max(declined, key=declined.__getitem__) if declined else entry["reason"]
            groups[entry["verdict"], reason, bool(declined)][entry["requirement"]] = None
    return sorted(
        (
            Group(verdict, reason, [*found], _declaration(musts, found, reason) if declined else "")
            for (verdict, reason, declined), found in groups.items()
        ),
        key=lambda group: -len(group.requirements),
    )


def _declaration(musts: Collection[Record], lost: Collection[str], reason: str) -> str:
    """Return the shortest line that declares what was not judged: dtypes, gradients, or requirements with a reason."""
    kept = {r["dtype"] for r in musts if VERDICTS[r["verdict"]].judged}
    if kept and all(r["dtype"] not in kept for r in musts if r["requirement"] in lost and VERDICTS[r["verdict"]].open):
        return f"DTYPES = {tuple(sorted(kept))}"
    if set(lost) == {r["requirement"] for r in musts if r["kind"] == "gradient" or "vjp" in r["needs"]}:
        return "GRADIENTS = False"
    names = _patterns(lost, {r["requirement"] for r in musts})
    entries = [f"{_quoted(name)}: {_quoted(reason)}" for name in names[:ENTRIES]] + ["…"] * (len(names) > ENTRIES)
    return f"UNSUPPORTED = {{{', '.join(entries)}}}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _patterns(lost: Collection[str], known: Collection[str]) -> list[str]:
    """Return the requirements, with `block.topic.*` for a topic of which all are lost."""
    found: dict[str, None] = {}
    for name in lost:
        topic = name.rpartition(".")[0] + "."
        alike = [one for one in known if one.startswith(topic)]
        found[f"{topic}*" if len(alike) > 1 and set(alike) <= set(lost) else name] = None
    return [*found]

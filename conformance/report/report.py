"""The report: one record per requirement, form and dtype; the one source of every table, and the file report.json."""

from __future__ import annotations

import functools
import math
import platform
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np
from nnspec.adapters.signatures import CANONICAL
from nnspec.adapters.subject import DERIVATIVES, Subject
from nnspec.conformance.case import Case
from nnspec.conformance.formats import is_floating
from nnspec.conformance.report.diagnosis import Search, Suspicion, search
from nnspec.conformance.report.findings import consequences, findings
from nnspec.conformance.report.script import reproduce
from nnspec.conformance.report.verdicts import BAD, VERDICTS, Record, Verdict, failed
from nnspec.conformance.report.waivers import Waiver, find
from nnspec.conformance.requirements import Check, requirements
from nnspec.conformance.system.log import key as result
from nnspec.conformance.trial.record import Outcome

SCHEMA = "urn:nnspec:report:3"  # the $id of report.schema.json


def key(check: Check, form: str, dtype: str) -> Record:
    """Return what a record is about; `follows_from` is filled in when all records are known.

    `found_by` names the check that found a failure of another requirement than its own.
    """
    page = requirements()[check.identifier]
    return {
        "requirement": check.identifier,
        "block": check.stem,
        "level": page.level,
        "kind": page.kind,
        "sentence": page.sentence,
        "needs": list(check.needs),
        "form": form,
        "dtype": dtype,
        "follows_from": None,
        "found_by": None,
    }


def record(
    check: Check,
    subject: Subject | None,
    form: str,
    dtype: str,
    outcome: Outcome,
    so_far: Suspicion | None = None,
) -> Record:
    """Return an outcome as plain data, for JSON and for another process.

    `subject` is None in a process that has not loaded the subject, and so does not know its claims. `so_far` is what
    the causes of its other failures have shown.
    """
    lacks = subject.lacks(check.stem, form) - subject.domain(check.stem).fixed if subject else frozenset()
    difference, failure = subject.differs.get(check.identifier) if subject else None, outcome.failure
    explicable = subject is not None and check.decides and outcome.verdict == "fail"
    searched = search(check, outcome, so_far or Suspicion()) if explicable else Search([])
    return key(check, form, dtype) | {
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "cases": outcome.cases,
        "unsupported": dict(outcome.unsupported),
        "known_defects": dict(outcome.known_defects),
        "out_of_domain": dict(outcome.out_of_domain),
        "held": [name for name in sorted(lacks - {*CANONICAL, *DERIVATIVES}) if not name.startswith("default of ")],
        "seconds": round(outcome.seconds, 4),
        "worst_error_over_bound": round(outcome.worst, 4),
        "worst_case": outcome.worst_case or None,
        "accuracy": outcome.accuracy or None,
        "declared": list(subject.accuracy) if subject else [],
        "differs": str(difference) if difference else None,
        "alternative": difference.alternative or None if difference else None,
        "failure": None
        if failure is None
        else {
            "message": failure.message,
            "case": plain_case(failure.case),
            "actual": None if failure.actual is None else plain(failure.actual),
            "expected": None if failure.expected is None else plain(failure.expected.value),
            "bound": None if failure.expected is None else plain(failure.expected.within().astype(np.float64)),
            "script": (reproduce(subject, check, form, dtype, failure) or None) if subject else None,
            "misshapen": failure.misshapen,
            "boundaries": [asdict(one) | {"says": str(one)} for one in failure.boundaries],
            "causes": [asdict(cause) for cause in searched.causes],
            "search_cut": searched.cut,
        },
    }


def plain(value: Any) -> Any:
    """Return a value for JSON: arrays as nested lists or, if long, as their shape; NaN and infinities as strings."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.size > 2000:
            return f"{array.dtype.name} array of shape {array.shape}"
        return plain(array.astype(np.float64).tolist() if is_floating(array.dtype) else array.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, int | float | str | None) else repr(value)


def differing(entry: Record) -> Record:
    """Return the record in the light of DIFFERS.

    A check of an alternative that the file names must pass; one of a difference without a name must fail.
    """
    by_design = {**entry, "verdict": "differs by design", "reason": entry["differs"]}
    if entry["alternative"]:
        return by_design if entry["verdict"] == "pass" else entry | _under(entry)
    return by_design if entry["verdict"] == "fail" and entry["differs"] else entry


def _under(entry: Record) -> Record:
    """Return the fields of a record that say by which alternative it was judged."""
    if entry["verdict"] != "fail":
        return {}
    message = f"under the alternative {entry['alternative']!r} that DIFFERS names: {entry['failure']['message']}"
    return {"reason": message, "failure": {**entry["failure"], "message": message}}


def untrue(records: Iterable[Record]) -> list[Record]:
    """Return the records. A check that passes in every form and dtype although DIFFERS names it becomes a failure."""
    records = list(records)
    differ = {r["requirement"] for r in records if r["differs"] and r["verdict"] not in ("pass", "unsupported")}
    return [
        _passes(r, f"DIFFERS declares that it differs: {r['differs']}; remove the entry of DIFFERS")
        if r["differs"] and not r["alternative"] and r["verdict"] == "pass" and r["requirement"] not in differ
        else r
        for r in records
    ]


def waived(entry: Record, waivers: Iterable[Waiver], subject: str) -> Record:
    """Return the record after waivers: a failure that a waiver covers is waived, a pass that it covers fails."""
    waiver = find(waivers, subject, entry["requirement"], entry["form"], entry["dtype"])
    if waiver is None or entry["verdict"] not in ("pass", *BAD):
        return entry
    if entry["verdict"] != "pass":
        return {**entry, "verdict": "waived", "reason": str(waiver)}
    return _passes(entry, f"it is waived for {waiver.subject}: {waiver}; remove the waiver")


def _passes(entry: Record, though: str) -> Record:
    """Return a pass that contradicts a declaration, as a failure."""
    message = f"the check passes, though {though}"
    about = {"call": f"the declaration about {entry['requirement']}", "arrays": {}, "arguments": {}}
    nothing = dict.fromkeys(("actual", "expected", "bound", "script")) | {
        "misshapen": False,
        "boundaries": [],
        "causes": [],
        "search_cut": False,
    }
    return {**entry, "verdict": "fail", "reason": message, "failure": {"message": message, "case": about, **nothing}}


def plain_case(case: Any) -> Any:
    """Return a case as plain data: the call in one line, arrays with dtype, shape and values, and arguments."""
    if isinstance(case, Case):
        arrays = {
            n: None if a is None else {"dtype": a.dtype.name, "shape": list(a.shape), "values": plain(a)}
            for n, a in case.arrays.items()
        }
        return {"call": str(case), "arrays": arrays, "arguments": plain(case.arguments)}
    if isinstance(case, tuple) and case and all(isinstance(c, Case) for c in case):
        return plain_case(case[0]) | {"further": [plain_case(c) for c in case[1:]]}
    return {"call": str(case), "arrays": {}, "arguments": {}}


def versions() -> dict[str, str]:
    """Return the versions of Python, nnspec and its dependencies."""
    known = {name: _version(name) for name in ("nnspec", "numpy", "hypothesis", "pytest")}
    return {"python": platform.python_version(), **known}


_version = functools.cache(metadata.version)  # to read the files of a package takes some milliseconds


def assemble(run: Record, records: Iterable[Record], errors: Iterable[str] = ()) -> Record:
    """Return the whole report, with its records in the order of the pages."""
    order = {identifier: n for n, identifier in enumerate(requirements())}
    ordered = sorted(with_elsewhere(untrue(records)), key=lambda r: (order[r["requirement"]], r["form"], r["dtype"]))
    counts = Counter(r["verdict"] for r in ordered)
    totals = {verdict: counts[verdict] for verdict in VERDICTS} | {"cases": sum(r["cases"] for r in ordered)}
    unsteady = [r["unsteady"] for r in ordered if "unsteady" in r]
    ordered = [{name: value for name, value in r.items() if name != "unsteady"} for r in ordered]
    ordered = with_consequences(ordered)
    errors, asked = list(errors), musts(ordered)
    whole = not (errors or run.get("interrupted") or run.get("unfinished"))
    conforms = whole and bool(counts["pass"]) and not failed(ordered) and not asked["not judged"] and not unsteady
    told = {"conforms": conforms, "musts": asked, "totals": totals, "errors": errors, "unsteady": unsteady}
    return {"schema": SCHEMA, **run, **told, "results": ordered}


def with_elsewhere(records: Iterable[Record]) -> list[Record]:
    """Return the records, with the failures that checks of other requirements found.

    The failure that a requirement's own check found comes first, then the first one in the page's order.
    """
    order = {identifier: n for n, identifier in enumerate(requirements())}
    known, found = {}, []
    for entry in sorted(records, key=lambda r: order[r["requirement"]]):
        found += [entry["elsewhere"]] if "elsewhere" in entry else []
        known[result(entry)] = {name: value for name, value in entry.items() if name != "elsewhere"}
    for other in reversed(found):
        own = known.get(result(other))
        if own is None or own["found_by"] or not own["failure"] or other["verdict"] == "waived":
            known[result(other)] = other
    return list(known.values())


def with_consequences(records: list[Record]) -> list[Record]:
    """Return the records; those of a broken requirement that rests on another broken one name it."""
    bad = findings(records)
    follows = consequences(dict.fromkeys(entry["requirement"] for entry in bad))
    broken = {id(entry) for entry in bad}
    return [{**r, "follows_from": follows.get(r["requirement"]) if id(r) in broken else None} for r in records]


def musts(records: Iterable[Record]) -> Record:
    """Count the *musts* that apply and those that were judged, each identifier once for all forms and dtypes."""
    found: dict[str, list[Verdict]] = defaultdict(list)
    for entry in records:
        if entry["level"] == "must":
            found[entry["requirement"]].append(VERDICTS[entry["verdict"]])
    lost = [name for name, verdicts in found.items() if any(v.open for v in verdicts)]
    excused = [verdicts for verdicts in found.values() if all(v.excused for v in verdicts)]
    outside = sum(VERDICTS["out of domain"] in verdicts for verdicts in excused)
    judged = {"all": len(found), "judged": len(found) - len(lost) - len(excused)}
    return {**judged, "unsupported": len(excused) - outside, "out of domain": outside, "not judged": lost}

"""Waivers: expected failures of a subject, with a reason. A waiver is strict: it fails when its failure is gone.

A waiver is a table in a TOML file:

    [[waiver]]
    subject = "my_*"                            # as in `nnspec check`; * and ? stand for anything
    requirement = "einsum.refuses.diagonal"
    reason = "a repeated label of sizes 1 and 3 is broadcast"
    link = "https://…"                          # may be left out, as may form and dtype, which narrow it down
    form = "function"
    dtype = "float32"

Where the check fails, its verdict is *waived*; where it passes, that is itself a failure, and the waiver has to go.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

from nnspec.conformance.requirements import no_such_requirement, requirements


class WaiverError(ValueError):
    """A file of waivers that cannot be used; the message says where and why."""


@dataclass(frozen=True)
class Waiver:
    """One known deviation."""

    subject: str
    requirement: str
    reason: str
    link: str = ""
    form: str = ""  # either, where it is not said
    dtype: str = ""

    def covers(self, subject: str, requirement: str, form: str, dtype: str) -> bool:
        """Return whether the waiver covers a result of this subject."""
        narrowed = self.form in ("", form) and self.dtype in ("", dtype)
        return narrowed and self.requirement == requirement and fnmatchcase(subject, self.subject)

    def __str__(self) -> str:
        return f"{self.reason} ({self.link})" if self.link else self.reason


NAMES = tuple(f.name for f in fields(Waiver))
NEEDED = ("subject", "requirement", "reason")


def load(path: str | Path | None) -> list[Waiver]:
    """Return the waivers that ship with nnspec, and those of a file.

    Raises WaiverError for a file that is missing, malformed, or names a requirement that there is not.
    """
    ours = resources.files(__package__).joinpath("waivers.toml").read_text("utf-8")
    waivers = _parse(ours, "waivers.toml")
    if path is not None:
        try:
            waivers += _parse(Path(path).read_text("utf-8"), str(path))
        except OSError as error:
            raise WaiverError(f"{path}: {error.strerror or error}") from None
    return waivers


def find(waivers: Iterable[Waiver], subject: str, requirement: str, form: str, dtype: str) -> Waiver | None:
    """Return the first waiver that covers a result, or None."""
    return next((w for w in waivers if w.covers(subject, requirement, form, dtype)), None)


def _parse(text: str, where: str) -> list[Waiver]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WaiverError(f"{where}: not valid TOML: {error}") from None
    if unknown := tables.keys() - {"waiver"}:
        raise WaiverError(f"{where}: {min(unknown)}: expected tables [[waiver]] and nothing else")
    return [_waiver(entry, f"{where}, waiver {n}") for n, entry in enumerate(tables.get("waiver", []), start=1)]


def _waiver(entry: dict[str, Any], where: str) -> Waiver:
    if unknown := entry.keys() - set(NAMES):
        raise WaiverError(f"{where}: {min(unknown)}: expected some of {', '.join(NAMES)}")
    for name, value in entry.items():
        if not isinstance(value, str):
            raise WaiverError(f"{where}: {name} = {value!r}: expected a string")
    if missing := [name for name in NEEDED if not entry.get(name, "").strip()]:
        raise WaiverError(f"{where}: {missing[0]} is missing, or empty")
    waiver = Waiver(**entry)
    page = requirements().get(waiver.requirement)
    if page is None:
        raise WaiverError(f"{where}: {no_such_requirement(waiver.requirement)}")
    if page.level != "must":
        raise WaiverError(f"{where}: requirement {waiver.requirement!r} is a {page.level}, which needs no waiver")
    return waiver

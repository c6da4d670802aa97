"""The log of a run: what is known, one JSON text per line, as it comes. Lines are added and never changed.

`report.json` is built from the log, whatever ended the run, and `--resume` goes on from it. Its lines:

    {"log": "urn:nnspec:log:1", "subject": …, "options": {…}, "checks": 41, "versions": {…}, "sources": {…}}
    {"at": 1.25, "record": {…}}   a result, as in report.json; the last one of a requirement, form and dtype counts
    {"at": 1.31, "crash": {…}}    the call of such a result that ended the process, for the script that is still to come
    {"at": 1.47, "note": {…}}     another part of the report
    {"at": 1.53, "error": "…"}    where nnspec itself failed; what `--resume` runs again may fail again
    {"at": 2.00, "event": "resumed"}

`at` is the time in seconds that the run took so far. The first line identifies the run.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnspec.conformance.system import folder
from nnspec.conformance.system.folder import Lock, OutputError, because

SCHEMA = "urn:nnspec:log:1"
BEGINNING = f'{{"log": "{SCHEMA}"'.encode()
NAME = "results.jsonl"
Key = tuple[str, str, str]  # requirement, form, dtype
Record = dict[str, Any]


def key(record: Record) -> Key:
    """Return which result a record is."""
    return record["requirement"], record["form"], record["dtype"]


class Known:
    """What the lines of a log say."""

    def __init__(self) -> None:
        self.records: dict[Key, Record] = {}
        self.crashes: dict[Key, bytes] = {}
        self.notes: dict[str, Any] = {}
        self.errors: list[str] = []

    def _take(self, line: dict[str, Any]) -> None:
        """Fold a line into what is known."""
        if "record" in line:
            self.records[key(line["record"])] = line["record"]
        elif "crash" in line:
            self.crashes[key(line["crash"])] = base64.b64decode(line["crash"]["journal"])
        elif "note" in line:
            self.notes |= line["note"]
        elif "error" in line:
            self.errors.append(line["error"])


class Log(Known):
    """What is known of a run. With a folder it is on disk too, in `results.jsonl`, with the scripts beside it.

    If the disk fails later than at the start, the log goes on in the temporary folder, and `trouble` says so.
    Raises OutputError for a folder that cannot be written to, that another run uses, or whose log cannot be resumed.
    """

    def __init__(self, out: str | Path | None = None, *, resume: bool = False) -> None:
        super().__init__()
        self.folder = None if out is None else Path(os.path.realpath(out))
        self.shown = out  # as the user calls it
        self.head: dict[str, Any] = {}
        self.trouble = ""
        self._lines: list[bytes] = []
        self._file: int | None = None
        self._earlier, self._started = 0.0, time.monotonic()
        self._resume, self._begun = resume, False
        self._lock = None if self.folder is None else Lock(self.folder, out or "")
        try:
            if resume and self.path and self.path.exists():
                self._read()
            elif self.path:
                _owned(self.path, f"{self.shown}/{NAME}")
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path | None:
        """Where the log is, if it is on disk."""
        return None if self.folder is None else self.folder / NAME

    @property
    def seconds(self) -> float:
        """How long the run took so far, in all of its parts."""
        return self._earlier + time.monotonic() - self._started

    def begin(self, head: dict[str, Any]) -> None:
        """Write the first line, in place of what an earlier run left; or go on where the earlier run had the same.

        Raises OutputError, which names the difference, where a run to be resumed was another one.
        """
        if self._begun:
            return
        head = {"log": SCHEMA, **head}
        self._begun, waiting, self._lines = True, self._lines, []
        if self._resume and self.head:
            self._go_on(head)
        else:
            self.head = head
            self._start()
        for line in waiting:
            self._write(line)

    def keep(self, record: Record) -> None:
        """Add a result, and write its script, and that of what it found for another requirement."""
        failures = {folder.script_name(entry): entry["failure"] for entry in _entries(record) if entry["failure"]}
        scripts = {name: text for name, failure in failures.items() if "\n" in (text := failure["script"] or "")}
        if self.folder is None or not scripts:
            self._add("record", record)
            return
        name = ""
        for _ in range(2):  # in its place, else in the temporary folder
            for name in scripts:
                failures[name]["script"] = None if self.folder is None else str(Path(self.shown or "") / name)
            self._add("record", record)  # before the scripts: what is named in the log is known to be ours
            if self.folder is None:
                return
            try:
                for name, text in scripts.items():
                    (self.folder / name).write_text(text, "utf-8", "backslashreplace")
                return
            except OSError as error:
                self._move(error, name)
        for name in scripts:
            failures[name]["script"] = None
        self._add("record", record)

    def keep_crash(self, which: Key, journal: bytes) -> None:
        """Add what a worker noted of the call that ended it."""
        about = dict(zip(("requirement", "form", "dtype"), which, strict=True))
        self._add("crash", about | {"journal": base64.b64encode(journal).decode()})

    def note(self, name: str, value: Any) -> None:
        """Add another part of the report."""
        self._add("note", {name: value})

    def error(self, message: str) -> None:
        """Add that nnspec itself failed."""
        self._add("error", message)

    def event(self, what: str) -> None:
        """Add what happened to the run."""
        self._add("event", what)

    def close(self) -> None:
        """Let other runs use the folder."""
        if self._file is not None and not (self.path and self.path.exists()):
            self._move(FileNotFoundError(errno.ENOENT, "was removed"), NAME)
        if self._file is not None:
            os.close(self._file)
        if self._lock is not None:
            self._lock.release()
        self._file = self._lock = None

    # -- lines ---------------------------------------------------------------------------------------------------------

    def _add(self, kind: str, value: Any) -> None:
        line = {"at": round(self.seconds, 3), kind: value}
        self._take(line)
        self._write(json.dumps(line, allow_nan=False).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        self._lines.append(line)
        if self._file is None:
            return
        try:
            folder.write_all(self._file, line)
        except OSError as error:
            self._move(error, NAME)

    def _move(self, error: OSError, name: str) -> None:
        """Go on in the temporary folder."""
        why = self.trouble.partition(";")[0] or because(f"{self.shown}/{name}", error)
        if self._file is not None:
            os.close(self._file)
        self._file = None
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="nnspec-log-"))
            self.shown = self.folder
            assert self.path is not None
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            folder.write_all(self._file, b"".join(self._lines))
            self.trouble = f"{why}; the log is kept in {self.path}"
        except OSError as another:
            self._file = self.folder = None
            self.trouble = f"{why}; the log could not be kept in the temporary folder either: {another.strerror}"

    # -- its beginning -------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Take up an earlier run's lines. The last one may be torn: whatever ended that run ended it there."""
        whole = _owned(self.path, f"{self.shown}/{NAME}").splitlines(keepends=True)
        if whole and not whole[-1].endswith(b"\n"):
            whole.pop()
        for number, text in enumerate(whole, start=1):
            try:
                line = json.loads(text)
                self._take(line)
            except (ValueError, KeyError, TypeError):
                raise OutputError(f"{self.shown}/{NAME}: line {number} is damaged; run without --resume") from None
            self._earlier = line.get("at", self._earlier)
            self.head = self.head or line
        self.errors.clear()  # what they cost is run again
        self._whole = whole
        for record in list(self.records.values()):
            if not all(self._finds_script(entry) for entry in _entries(record)):
                del self.records[key(record)]  # a result whose script is gone is not known

    def _finds_script(self, entry: Record) -> bool:
        """Name a script, if there is one, where it is by now; False if it is gone."""
        assert self.folder is not None
        if not (entry["failure"] and entry["failure"]["script"]):
            return True
        name = folder.script_name(entry)
        entry["failure"]["script"] = str(Path(self.shown or "") / name)
        return (self.folder / name).exists()

    def _go_on(self, head: dict[str, Any]) -> None:
        if name := _difference(self.head, head):
            old, new = (one.get(name) for one in (self.head, head))
            if isinstance(old, dict) and isinstance(new, dict):
                name = _difference(old, new) or ""
                old, new = old.get(name), new.get(name)
            differs = f"had {name} {old!r}, and this one has {new!r}"
            if name in self.head["sources"] or name in head["sources"]:
                differs = f"was of another content of {name}"
            raise OutputError(f"--resume: the run in {self.shown} {differs}; run without --resume to begin again")
        self._lines = self._whole
        self._open(sum(map(len, self._whole)))
        self.event("resumed")

    def _start(self) -> None:
        if self.folder is not None:
            folder.remove_leftovers(self.folder, _records(_owned(self.path, f"{self.shown}/{NAME}")))
            self._open(0)
        self._write(json.dumps(self.head).encode() + b"\n")

    def _open(self, size: int) -> None:
        """Open the log, without what follows its first `size` bytes."""
        assert self.path is not None
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._file, size)
        except OSError as error:
            raise OutputError(because(f"{self.shown}/{NAME}", error)) from None


def remove(place: Path) -> None:
    """Remove what an earlier run left in a folder, and the folder where nothing else is in it."""
    path = place / NAME
    with suppress(OSError, OutputError):
        old = path.read_bytes()
        if old.startswith(BEGINNING):
            folder.remove_leftovers(place, _records(old))
            path.unlink()
            place.rmdir()


def _owned(path: Path | None, shown: str) -> bytes:
    """Return the bytes of the log that is there. Raises OutputError for a file of that name that is no log."""
    if path is None or not path.exists():
        return b""
    if not path.is_file():
        raise OutputError(f"{shown}: not a file; say --out FOLDER for another place")
    try:
        found = path.read_bytes()
    except OSError as error:
        raise OutputError(because(shown, error)) from None
    if found and not found.startswith(BEGINNING):
        raise OutputError(f"{shown}: not written by nnspec; say --out FOLDER for another place")
    return found


def _records(log: bytes) -> list[Record]:
    """The records of an earlier run, whatever it ended with."""
    found = []
    for text in log.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found += _entries(line["record"]) if "record" in line else []
    return found


def _entries(record: Record) -> list[Record]:
    """The result, and the failure of another requirement that its check found, if it did."""
    return [record, record["elsewhere"]] if "elsewhere" in record else [record]


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """The first name under which two mappings differ."""
    return next((name for name in {**old, **new} if old.get(name) != new.get(name)), None)

"""The output folder of a run: it belongs to one run at a time, and is tried before anything runs.

Uses the locks of POSIX, which Linux and macOS have.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

RESERVE = 1 << 16  # bytes that must fit onto the disk before a run begins
LOCK = "nnspec.lock"


class OutputError(Exception):
    """A place that cannot be written to; the message says which and why."""


def because(path: str | Path, error: OSError) -> str:
    """Return what went wrong with a path, in one sentence."""
    in_its_place = isinstance(error, FileExistsError | NotADirectoryError)
    return f"{path}: {'a file is in its place' if in_its_place else error.strerror or error}"


def write_all(file: int, data: bytes) -> None:
    """Write, or raise OSError; a full disk takes a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


class Lock:
    """The right to write into a folder, from now until `release`; the folder is made where there is none.

    A lock belongs to its process and ends with it, however that ends. Raises OutputError where another process holds
    it, and where the folder cannot be written to.
    """

    def __init__(self, folder: Path, shown: str | Path) -> None:
        self.shown = shown
        self.path, self._made = folder / LOCK, not folder.exists()
        self._file: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._opened()
            write_all(self._file, bytes(RESERVE))
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, str(os.getpid()).encode(), 0)
        except OSError as error:
            self.release()
            raise OutputError(f"{because(shown, error)}; say --out FOLDER for another place") from None

    def _opened(self) -> int:
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file).st_ino == os.stat(self.path).st_ino:
                    return file
            except FileNotFoundError:  # its holder removed it just now
                pass
            except BlockingIOError:
                holder = os.pread(file, 20, 0).decode("ascii", "replace").strip("\0") or "unknown"
                os.close(file)
                raise OutputError(
                    f"{self.shown} belongs to a run that has not ended, process {holder}; "
                    "wait for it, or say --out FOLDER for another place"
                ) from None
            os.close(file)

    def release(self) -> None:
        """Let others write into the folder, which goes if it is new and has stayed empty."""
        if self._file is None:
            return
        with suppress(OSError):
            os.unlink(self.path)
            if self._made:
                self.path.parent.rmdir()
        os.close(self._file)
        self._file = None


def try_temporary(size: int) -> None:
    """Raise OutputError where the temporary folder has no room for so many bytes."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(size))
    except OSError as error:
        where = tempfile.tempdir or os.environ.get("TMPDIR", "the temporary folder")
        raise OutputError(f"{because(where, error)}; set TMPDIR to a folder with more room") from None


def script_name(record: dict[str, Any]) -> str:
    """Return the name of the script that reproduces a failure."""
    about = f"{record['requirement']}_{record['form']}_{record['dtype']}"
    about += f"_found_by_{record['found_by']}" if record.get("found_by") else ""
    return re.sub(r"[^a-z0-9]+", "_", about) + ".py"


def remove_leftovers(folder: Path, records: Iterable[dict[str, Any]]) -> None:
    """Remove what an earlier run left in the folder: the scripts of its records, and its report."""
    place = folder / "report.json"
    known = report(place)
    for entry in (*records, *(known or {}).get("results", ())):
        with suppress(OSError, KeyError, TypeError):
            os.unlink(folder / script_name(entry))
    for path in (place, half(place)) if known is not None else ():
        with suppress(OSError):
            os.unlink(path)


def report(path: Path) -> dict[str, Any] | None:
    """Return a report that nnspec wrote; None where there is none."""
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError):
        return None
    ours = isinstance(found, dict) and str(found.get("schema")).startswith("urn:nnspec:")
    return found if ours else None


# -- where a report goes -----------------------------------------------------------------------------------------------


def absolute(path: str | Path) -> str:
    """Return a path that stays the same when the working directory changes, or is removed."""
    folder, name = os.path.split(path)
    return str(path) if str(path) == "-" else os.path.join(os.path.realpath(folder), name)


def is_standard_output(path: str | Path) -> bool:
    """Whether a path means standard output: `-`, or a name of the file or pipe that standard output is."""
    if str(path) == "-":
        return True
    try:
        here, there = os.fstat(sys.__stdout__.fileno() if sys.__stdout__ else 1), os.stat(path)
    except (OSError, ValueError):
        return False
    return os.path.samestat(here, there) and not stat.S_ISCHR(there.st_mode)


def is_stream(path: str | Path) -> bool:
    """Whether a path is a device, a pipe or a socket: something that is written into, and never replaced."""
    try:
        mode = os.stat(path).st_mode
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
    except OSError:
        return False


def try_report(path: str | Path) -> None:
    """Raise OutputError where a report could not be written to a path."""
    if is_standard_output(path):
        return
    try:
        if Path(path).is_dir():
            raise IsADirectoryError(21, "is a folder, expected a file")
        if is_stream(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(13, os.strerror(13))
            return
        folder = Path(os.path.realpath(path)).parent
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(RESERVE))
    except OSError as error:
        raise OutputError(because(path, error)) from None


def write(what: dict[str, Any] | str, path: str | Path) -> None:
    """Write a page, or a report as JSON, into a device or pipe; a file, or what a link to one points at, as a whole."""
    text = what if isinstance(what, str) else json.dumps(what, indent=1, allow_nan=False) + "\n"
    if is_standard_output(path):
        sys.stdout.write(text)
        sys.stdout.flush()
    elif is_stream(path):
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
    else:
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            half(target).write_text(text, "utf-8", "backslashreplace")
            half(target).replace(target)
        except OSError:
            half(target).unlink(missing_ok=True)
            raise


def half(path: Path) -> Path:
    """Return where a file is written until it is whole."""
    return path.with_name(path.name + ".part")

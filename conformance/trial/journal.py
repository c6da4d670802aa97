"""The case at hand, written to mapped memory before every call, so that it survives a subject that aborts or hangs."""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nnspec.adapters.trying import Skipped
from nnspec.conformance.case import Case
from nnspec.conformance.formats import is_floating, name_of
from nnspec.conformance.layouts import laid_out, offset_of

# When the call began, by the clock that all processes share and nobody sets (0: no call is under way), length of the
# text, of the data
HEADER = struct.Struct("<dII")
SIZE = 1 << 20
ENCODER = json.JSONEncoder(default=str)
ANEW = "starting anew"  # the text of a worker that ends itself because it can judge no more
TRYING = "trying "  # how the text of a call begins that is made while the subject is loaded


class Journal:
    """One file per worker process."""

    def __init__(self, path: Path) -> None:
        with open(path, "w+b") as file:
            file.write(bytes(SIZE))  # takes its place now: with a full disk, mapped memory would end the process later
            self._memory = mmap.mmap(file.fileno(), SIZE)
        self._folder, self._name, self._pid = path.parent, path.name, os.getpid()
        self._about = "{"  # the beginning of each entry, in JSON
        self._last: tuple[Case | None, bytes, bytes] = None, b"", b""  # a module's case is written at each of its steps

    def begin(self, identifier: str, form: str, dtype: str) -> None:
        """A check begins; what is written from here on belongs to it."""
        about = ENCODER.encode({"check": [identifier, form, dtype], "since": time.monotonic()})
        self._about, self._last = f"{about[:-1]}, ", (None, b"", b"")
        self.note("between two calls")
        self.rest()  # drawing cases and judging results is our own time

    def blocked(self, stem: str, form: str) -> bool:
        """Whether so many checks of a block have ended the process that the rest are not tried."""
        return (self._folder / f"blocked-{stem}-{form}").exists()

    def loaded(self, known: dict[str, dict[str, str]]) -> None:
        """Tell what identifies the subject."""
        whole = self._folder / f"loaded-{self._name}"
        own = whole.with_name(f"{whole.name}-{os.getpid()}")  # the subject may have forked: each process writes its own
        own.write_text(json.dumps(known), "utf-8")
        own.replace(whole)

    def note(self, text: str) -> None:
        """What is going on where there is no case: a file being loaded, a check that begins."""
        self._write(f'{self._about}"text": {json.dumps(text)}}}'.encode(), b"")

    def write(self, case: Case) -> None:
        """A case that is about to be put to the subject, its arrays as they lie in memory."""
        if self._last[0] is not case:
            self._last = case, *self._encoded(case)
        self._write(*self._last[1:])

    def _encoded(self, case: Case) -> tuple[bytes, bytes]:
        """Return the entry of a case as text, and the bytes of its arrays one after the other."""
        arrays = [(n, a) for n, a in case.arrays.items() if a is not None]
        if sum(a.nbytes for _, a in arrays) > SIZE // 2:
            arrays = []
        drawn = "" if arrays or case.data is None else f", whose values are {case.data[0]} of seed {case.data[1]}"
        entry = {
            "text": "" if arrays and not case.layouts else f"{case}{drawn}",  # `parse` makes it of the arrays
            "stem": case.stem,
            "arrays": {n: (name_of(a.dtype), a.shape, a.strides, offset_of(a)) for n, a in arrays},
            "absent": [n for n, a in case.arrays.items() if a is None],
            "arguments": case.arguments,
        }
        return (self._about + ENCODER.encode(entry)[1:]).encode(), b"".join([a.tobytes() for _, a in arrays])

    def attempt(self, what: str, call: Callable[[], Any]) -> Any:
        """Make a call while the subject is loaded. Raise Skipped if the same call ended an earlier process, or hung."""
        if mark(self._folder, what).exists():
            raise Skipped(what)
        self.note(TRYING + what)
        try:
            return call()
        finally:
            self.note("loading the subject")

    def rest(self) -> None:
        """No call is under way. A copy of the process that the call has forked ends here, if it comes back."""
        if os.getpid() != self._pid:
            os._exit(0)
        self._memory[:8] = struct.pack("<d", 0.0)

    def _write(self, text: bytes, blob: bytes) -> None:
        end = HEADER.size + len(text)
        if end + len(blob) > SIZE:
            text, blob, end = text[:1000], b"", HEADER.size + 1000
        self._memory[HEADER.size : end + len(blob)] = text + blob
        self._memory[: HEADER.size] = HEADER.pack(time.monotonic(), len(text), len(blob))


def began(path: Path) -> float:
    """When the call began; 0 where none is under way."""
    with open(path, "rb") as file:
        head = file.read(8)
    return float(struct.unpack("<d", head)[0]) if len(head) == 8 else 0.0


def mark(folder: Path, what: str) -> Path:
    """The file that says that a call ended a process while the subject was loaded."""
    return folder / f"tried-{zlib.crc32(what.encode(errors='replace')):08x}"


def read(path: Path) -> tuple[float, dict[str, Any], Case | None]:
    """When the call began (0: none), what was noted, and the case where there is one."""
    return parse(raw(path))


def raw(path: Path) -> bytes:
    """What a journal holds at present."""
    data = path.read_bytes()
    if len(data) < SIZE:  # not yet begun
        return b""
    _, text_size, blob_size = HEADER.unpack_from(data)
    return data[: HEADER.size + text_size + blob_size]


def parse(raw: bytes) -> tuple[float, dict[str, Any], Case | None]:
    """When the call began, what was noted, and the case, as `raw` gave them."""
    if not raw:
        return 0.0, {}, None
    began, text_size, _ = HEADER.unpack_from(raw)
    end = HEADER.size + text_size
    try:
        entry = json.loads(raw[HEADER.size : end])
    except ValueError:  # caught in the middle of a write
        return began, {}, None
    if not entry.get("arrays"):
        return began, entry, None
    arrays: dict[str, np.ndarray | None] = {}
    for name, (dtype, shape, strides, offset) in entry["arrays"].items():
        values = np.frombuffer(raw, dtype, int(np.prod(shape)), end).reshape(shape)
        floats = values.size and is_floating(values.dtype)
        arrays[name] = laid_out(values, tuple(strides), offset) if floats else values.copy()
        end += values.nbytes
    arrays |= dict.fromkeys(entry["absent"])
    arguments = {n: tuple(v) if isinstance(v, list) else v for n, v in entry["arguments"].items()}
    case = Case(entry["stem"], arrays, arguments)
    return began, {**entry, "text": entry["text"] or str(case)}, case

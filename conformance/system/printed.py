"""What a subject prints in worker processes: it is shown on standard error, escaped, and cut where it floods."""

from __future__ import annotations

import codecs
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

from nnspec.conformance.system.legible import escaped

LIMIT = 1 << 16  # bytes that are shown of all that a run prints
KEPT = 2000  # bytes of the end that are kept for a report
PAUSE = 0.05  # seconds in which the end of it arrives
LINES = 3  # of the end that a report shows


@contextmanager
def limited(workers: int) -> Iterator[None]:
    """Let processes that start meanwhile print into a pipe, whose beginning goes on to standard error.

    A subject in this very process could wait for ever for its own pipe to be read: its output is left alone, but for
    standard output, which goes to standard error, as it does in workers.
    """
    number = 2 if workers else 1
    real = os.dup(number)
    own, reader = sys.stderr, None
    try:
        if workers:
            reader = _Reader(real)
            os.dup2(reader.sink, 2)
            sys.stderr = os.fdopen(real, "w", 1, "utf-8", "backslashreplace", closefd=False)
        else:
            os.dup2(2, 1)
        yield
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os.dup2(real, number)
        sys.stderr = own
        if reader:
            reader.end()
        os.close(real)


def last_words() -> str:
    """Return the last lines that were printed since they were last asked for; "" where nothing is read."""
    reader = _Reader.current
    if reader is None:
        return ""
    time.sleep(PAUSE)  # what a process printed before it ended is still in the pipe
    with reader.lock:
        text, reader.kept = reader.kept.decode("utf-8", "backslashreplace"), b""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-LINES:])


class _Reader(threading.Thread):
    """Reads the pipe until `end`: processes that a subject left behind may hold its other side open for ever."""

    current: ClassVar[_Reader | None] = None

    def __init__(self, real: int) -> None:
        super().__init__(daemon=True)
        self.source, self.sink = os.pipe()
        self._real, self._seen = real, 0
        self.kept, self.lock = b"", threading.Lock()
        _Reader.current = self
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._woken, self._wake = os.pipe()
        self.start()

    def run(self) -> None:
        """Read on, and show the first part."""
        while self._ready(None):
            self._pass_on()

    def end(self) -> None:
        """Show what is still in the pipe, and how much was left out."""
        _Reader.current = None
        os.write(self._wake, b".")
        self.join()
        for _ in range(LIMIT):  # of 64 KiB each: a process that was left behind may print for ever
            if not self._ready(0):
                break
            self._pass_on()
        for file in (self.source, self.sink, self._woken, self._wake):
            os.close(file)
        if self._seen > LIMIT:
            self._write(f"\nnnspec: the subject printed {self._seen - LIMIT:,} bytes more, which are not shown\n")

    def _ready(self, seconds: float | None) -> bool:
        """Whether there is something to read; with seconds None, wait for it or for `end`."""
        watched = [self.source] if seconds is not None else [self.source, self._woken]
        found = select.select(watched, (), (), seconds)[0]
        return self.source in found and self._woken not in found

    def _pass_on(self) -> None:
        data = os.read(self.source, 1 << 16)
        with self.lock:
            self.kept = (self.kept + data)[-KEPT:]
        room = max(0, LIMIT - self._seen)
        self._seen += len(data)
        if room:
            self._write(escaped(self._decoder.decode(data[:room])))

    def _write(self, text: str) -> None:
        with suppress(OSError):
            os.write(self._real, text.encode("utf-8", "backslashreplace"))

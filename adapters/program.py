"""A program that runs beside nnspec and answers requests: started, asked, and started anew after it has ended."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from nnspec.adapters.in_file import InFile, follow, large
from nnspec.adapters.protocol import LONGEST, WrongAnswer, answer_of, packed, size_of, unpacked

KEPT = 2000  # bytes of the end of standard error
AT_ONCE = 1 << 20  # bytes that are read or written at once
PATIENCE = 1.0  # seconds in which a program that has closed its output may end
SET_PARENT_DEATH_SIGNAL = 1  # of prctl
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: not between fork and exec
HIDDEN = ("PYTEST_", "HYPOTHESIS_")  # variables that tell of the check that is running


class Gone(Exception):
    """The program ended before it answered; the message says how, and what it wrote to standard error last."""


class Program:
    """A program, by its command. `ask` starts it where it does not run."""

    def __init__(self, command: Sequence[str], folder: str) -> None:
        self.command, self.folder = [*command], folder
        self.maps = False  # whether it reads large arrays from a file
        self._process: subprocess.Popen[bytes] | None = None
        self._complaint = b""

    def ask(
        self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], limit: float | None = None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the header and the arrays of the answer.

        Raises OSError if the program cannot be started, Gone if it ends, WrongAnswer if it does not answer as
        spec/protocol.md says, TimeoutError after `limit` seconds. Unless it answers, it is ended.
        """
        if self.maps and large(arrays):
            with InFile(arrays) as file:
                return self._asked(file.request(header), limit, file)
        return self._asked(packed(header, arrays), limit, None)

    def _asked(
        self, request: bytes, limit: float | None, file: InFile | None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        process = self._process or self._started()
        try:
            reply = self._exchange(process, request, limit)
            assert reply.header is not None
            about = reply.header.get("arrays", ())
            if file is None and len(follow(about)) < len(about):
                raise WrongAnswer("answered with an offset in a file, and was given none")
            in_file = file.answered(about) if file else {}
        except BaseException:
            self.end()
            raise
        return reply.header, unpacked(follow(about), bytes(reply.data)) | in_file

    def end(self) -> None:
        """End the program and what it started in its group."""
        if self._process is None:
            return
        process, self._process = self._process, None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def _started(self) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
        # the kernel takes the end of the thread that forked for the end of the parent
        forking = LIBC is not None and threading.current_thread() is threading.main_thread()
        process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=environment,
            bufsize=0,
            start_new_session=True,
            preexec_fn=_end_with_parent if forking else None,
            **pipes,  # type: ignore[call-overload]
        )
        for stream in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(stream.fileno(), False)
        self._process, self._complaint = process, b""
        return process

    def _exchange(self, process: subprocess.Popen[bytes], request: bytes, limit: float | None) -> _Reply:
        """Write the request and read the answer, and meanwhile whatever goes to standard error."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        until, rest, reply = time.monotonic() + (limit or 0), memoryview(request), _Reply()
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            ready.register(process.stderr, selectors.EVENT_READ)
            ready.register(process.stdin, selectors.EVENT_WRITE)
            while rest or not reply.complete:
                events = ready.select(None if limit is None else max(0.0, until - time.monotonic()))
                if not events and limit is not None and time.monotonic() > until:
                    raise TimeoutError
                for key, _ in events:
                    if key.fileobj is process.stdin:
                        rest = _write(process.stdin.fileno(), rest)
                        if not rest:
                            ready.unregister(process.stdin)
                    elif key.fileobj is process.stderr:
                        if not self._listen(process):
                            ready.unregister(process.stderr)
                    elif not reply.take(os.read(process.stdout.fileno(), AT_ONCE)):
                        raise Gone(self._fate(process))
        return reply

    def _listen(self, process: subprocess.Popen[bytes]) -> bool:
        """Keep the end of what the program wrote to standard error; return whether it may write more."""
        try:
            told = os.read(process.stderr.fileno(), AT_ONCE)  # type: ignore[union-attr]
        except BlockingIOError:
            return False
        self._complaint = (self._complaint + told)[-KEPT:]
        return bool(told)

    def _fate(self, process: subprocess.Popen[bytes]) -> str:
        """Say how the program ended, and what it wrote last."""
        try:
            code = process.wait(PATIENCE)
            known = {number.value: number.name for number in signal.Signals}
            how = f"ended the program ({known.get(-code) or f'exit status {code}'})"
        except subprocess.TimeoutExpired:
            how = "closed the standard output of the program"
        while self._listen(process):
            pass
        lines = self._complaint.decode("utf-8", "backslashreplace").strip().splitlines()[-3:]
        return how + (f", whose standard error ended with: {' / '.join(lines)}" if lines else "")


class _Reply:
    """An answer as it arrives."""

    def __init__(self) -> None:
        self.header: dict[str, Any] | None = None
        self.data = bytearray()
        self.size = 0  # bytes of arrays

    @property
    def complete(self) -> bool:
        """Whether all of it has arrived."""
        return self.header is not None and len(self.data) == self.size

    def take(self, more: bytes) -> bool:
        """Add what has arrived; return False at the end of the output. Raises WrongAnswer as soon as it is none."""
        self.data += more
        if self.header is None:
            line, end, rest = self.data.partition(b"\n")
            if end:
                self.header = answer_of(bytes(line))
                self.size, self.data = size_of(follow(self.header.get("arrays", ()))), rest
            elif len(line) > LONGEST:
                answer_of(bytes(line[:LONGEST]))
        if self.header is not None and len(self.data) > self.size:
            raise WrongAnswer(f"answered with {len(self.data)} bytes of arrays or more, expected {self.size}")
        return bool(more)


def _write(number: int, rest: memoryview) -> memoryview:
    """Write some bytes, and return the rest; of a program that has ended, the end of its output tells."""
    try:
        return rest[os.write(number, rest[:AT_ONCE]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[len(rest) :]


def _end_with_parent() -> None:
    LIBC.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)  # type: ignore[union-attr]

"""Processes that run a subject: they end with their parent, and whatever they started ends with them.

Needs POSIX. On Linux the kernel ends a worker when its parent has ended, and gives the parent what a worker leaves
behind; elsewhere a thread looks for the parent, and processes that left the worker's group are not found.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from nnspec.conformance.system import signals

LINUX = sys.platform == "linux"
SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36  # of prctl
SAFE_PATH = "nnspec"  # in PYTHONSAFEPATH: set for workers by nnspec, not by the user
GIB = 2**30
GRACE = 20.0  # seconds in which an interrupted process may write its report


# -- in a process that runs a subject ----------------------------------------------------------------------------------


def become_worker(parent: int) -> None:
    """Make this process lead a group of its own that ends with the parent, and undo what nnspec set for its start."""
    os.setsid()
    signals.disregard()
    end_with(parent)
    if os.environ.get("PYTHONSAFEPATH") == SAFE_PATH:
        del os.environ["PYTHONSAFEPATH"]  # processes that the subject starts are the user's


def end_with(parent: int) -> None:
    """End this process when its parent has ended, and on Linux also the copies that its main thread forks."""
    if LINUX:
        _end_with_parent()
        forking = threading.local()  # the kernel takes the end of the thread that forked for the end of the parent
        os.register_at_fork(
            before=lambda: setattr(forking, "main", threading.current_thread() is threading.main_thread()),
            after_in_child=lambda: _end_with_parent() if forking.main else None,
        )
    else:
        threading.Thread(target=_look_for, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _look_for(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


class Kept:
    """Working directory, standard streams and signal handlers of a process, to be put back after a subject ran."""

    def __init__(self) -> None:
        self._folder = _opened_folder()
        self._files = {number: _copy(number) for number in range(3)}
        self._streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
        self._handlers = {number: signal.getsignal(number) for number in signals.ENDING}

    def put_back(self) -> None:
        """Put all of it back; may be called again."""
        if self._folder is not None:
            os.fchdir(self._folder)
        for number, copy in self._files.items():
            if copy is not None and not _same_file(number, copy):
                os.dup2(copy, number)
        for name, stream in self._streams.items():
            setattr(sys, name, _opened(name) if getattr(stream, "closed", False) else stream)
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)

    def close(self) -> None:
        """Let go of the copies."""
        for copy in (self._folder, *self._files.values()):
            if copy is not None:
                with suppress(OSError):
                    os.close(copy)


def _opened_folder() -> int | None:
    try:
        return os.open(".", os.O_RDONLY)
    except OSError:  # it is gone
        return None


def _copy(number: int) -> int | None:
    try:
        return os.dup(number)
    except OSError:  # not open
        return None


def _same_file(a: int, b: int) -> bool:
    try:
        return os.path.sameopenfile(a, b)
    except OSError:
        return False


def _opened(name: str) -> TextIO:
    number = ("stdin", "stdout", "stderr").index(name)
    return open(number, "w" if number else "r", encoding="utf-8", errors="backslashreplace", closefd=False)


# -- in the process that watches -------------------------------------------------------------------------------------


def alone(run: Callable[[], int]) -> int | None:
    """Run in a child process; its exit code, or None where the child ended before it came to one.

    A signal that ends the run is passed on to the child as SIGINT, and the child has some time to write its report.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    orphans = Orphans()
    receiver, sender = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.close(receiver)
        _run_and_tell(run, parent, sender)
    os.close(sender)
    try:
        os.waitpid(child, 0)
    except KeyboardInterrupt:
        os.kill(child, signal.SIGINT)
        _wait(child, GRACE)
    orphans.end()
    os.set_blocking(receiver, False)  # a process that the subject left behind may still hold the other end
    try:
        code = os.read(receiver, 1)
    except BlockingIOError:
        code = b""
    os.close(receiver)
    return code[0] if code else None


def _run_and_tell(run: Callable[[], int], parent: int, sender: int) -> None:
    """Run, tell the exit code, and end, whatever threads the subject has left."""
    code = 3
    try:
        end_with(parent)
        code = run()
    except KeyboardInterrupt:
        code = signals.exit_code()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else code
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):
                stream.flush()
        with suppress(OSError):
            os.write(sender, bytes([code]))
        os._exit(code)


def _wait(child: int, seconds: float) -> None:
    """Wait for a child, and end it when the time is up."""
    limit = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
        time.sleep(0.02)


def end_group(worker: subprocess.Popen[bytes]) -> None:
    """End a worker and what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.kill()  # one that has just begun leads no group yet


class Orphans:
    """What workers leave behind, even outside their groups: Linux makes it the children of this process."""

    def __init__(self) -> None:
        if LINUX:
            ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)
        self._others = _children()  # not ours to end

    def end(self, workers: Iterable[int] = ()) -> None:
        """End them, and what their ends leave behind."""
        kept = self._others.union(workers)
        while found := _children() - kept:
            for child in found:
                with suppress(ProcessLookupError, ChildProcessError):
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)


def _children() -> set[int]:
    found, own = set(), os.getpid()
    for path in Path("/proc").glob("[0-9]*/stat") if LINUX else ():
        with suppress(OSError):
            pid, _, rest = path.read_text("utf-8", "replace").partition(" ")
            if int(rest.rpartition(")")[2].split()[1]) == own:
                found.add(int(pid))
    return found


def resident(process: int) -> int:
    """Return how many bytes of memory a process holds; 0 where that is not known."""
    try:
        if LINUX:
            return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, check=True)
        return int(told.stdout) * 1024
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return 0

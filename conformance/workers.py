"""The worker processes of a run: they are started, watched, and ended. What their ends mean: endings.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from nnspec.conformance.system import signals
from nnspec.conformance.system.processes import GIB, LINUX, Kept, Orphans, end_group, resident
from nnspec.conformance.trial import journal

if TYPE_CHECKING:
    from nnspec.conformance.session import Session

LOADING = 10.0  # seconds that loading the subject may take longer than a call: importing a framework takes its time
STARTING = 120.0  # seconds that a worker has until it loads the subject
EVERY = 0.1 if LINUX else 1.0  # seconds between two looks at the workers
OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}  # no mistake ends a process so


def arguments(workers: int) -> list[str]:
    """Return pytest's arguments for this number of worker processes. When to stop restarting them is decided below."""
    if not workers:
        return []
    return ["-p", "xdist.plugin", "-n", str(workers), "--max-worker-restart", "1000000", "--dist", "worksteal"]


@dataclass
class Worker:
    """One worker process."""

    node: Any  # what xdist knows of it
    journal: Path
    started: float
    ended_for: str = ""  # why nnspec ended it: "time", "memory", "closed", "changed", "interrupted"; or nothing
    finished: bool = False  # it has told everything
    cleared: bool = False  # it is dead, and what it started has been ended

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process itself."""
        return self.node.gateway._io.popen

    def end(self, reason: str = "", patience: float = 0.0) -> None:
        """End it and what it started, after so many seconds in which it may end by itself."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.ended_for = self.ended_for or reason
        end_group(self.process)
        self.process.wait()
        self.cleared = True

    @property
    def was_killed(self) -> bool:
        """Whether something outside of this run ended it."""
        return not self.ended_for and -(self.process.returncode or 0) in OUTSIDE

    def fate(self, limit: float, memory: float) -> str:
        """Return what became of it, as the end of a sentence about a call."""
        return {
            "time": f"did not return within {limit:g} s",
            "memory": f"used more than {memory:g} GiB",
            "closed": "closed files that its process needs",
        }.get(self.ended_for, "ended the process")

    @property
    def how(self) -> str:
        """How it ended by itself, in brackets."""
        code = self.process.returncode or 0
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit status {code}"
        return "" if self.ended_for else f" ({name})"


class Watch:
    """The worker processes, and the thread that ends those that hang or take more memory than they may."""

    def __init__(self, limit: float, memory: float) -> None:
        self.limit, self.memory = limit, memory  # seconds of a call, GiB
        self.workers: dict[str, Worker] = {}
        self.expected = 0  # workers that were started or are about to be
        self._orphans: Orphans | None = None
        self._orphaned = False  # whether a worker may have left something behind
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def begin(self, *, alone: bool) -> None:
        """Begin to watch. `alone`: the workers are the only children of this process."""
        if alone:
            self._orphans = Orphans()
        self._thread.start()

    def end(self) -> None:
        """End the workers, and whatever they left behind."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for worker in self.workers.values():
            worker.end(patience=5 if worker.finished else 0)
        if self._orphans:
            self._orphans.end()

    def _look(self) -> None:
        """Look at all workers again and again. A worker is noticed to be dead even if its pipe is still open."""
        while not self._stop.wait(min(EVERY, self.limit / 4)):
            for worker in list(self.workers.values()):
                if worker.cleared:
                    continue
                if worker.process.poll() is not None:
                    worker.end()
                    self._orphaned = True
                elif reason := self._over(worker):
                    worker.ended_for = reason
                    end_group(worker.process)
            if self._orphans and self._orphaned and len(self.workers) == self.expected:  # none is just being started
                self._orphans.end(worker.process.pid for worker in self.workers.values() if not worker.cleared)
                self._orphaned = False

    def _over(self, worker: Worker) -> str:
        """Return which limit a worker is over, if any."""
        now = time.monotonic()
        if signals.received():
            return "interrupted"
        try:
            began, allowed = journal.began(worker.journal), self.limit
        except OSError:
            began, allowed = worker.started, STARTING
        if began and now - began > allowed:
            text = journal.read(worker.journal)[1].get("text", "") if worker.journal.exists() else ""
            if now - began > allowed + LOADING * text.startswith("loading "):
                return "time"
        return "memory" if resident(worker.process.pid) > self.memory * GIB else ""


class Workers:
    """The plugin of pytest, beside the session, that starts the workers and ends them.

    Without workers it keeps what the subject may change of this process.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.config = session, session.config
        option = self.config.getoption
        self.watch = Watch(option("nnspec_timeout"), option("nnspec_memory"))
        self._temporary = tempfile.TemporaryDirectory(prefix="nnspec-")
        self.journals = Path(self._temporary.name)
        self._kept: Kept | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Begin to watch."""
        if self.config.pluginmanager.hasplugin("dsession"):
            self.watch.begin(alone=self.config.getoption("nnspec_journals") is not None)  # so it is for the commands
        else:
            self._kept = Kept()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self) -> None:
        """Put back what loading the subject has changed, before anything is written."""
        if self._kept:
            self._kept.put_back()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: Any) -> None:
        """Know how many workers are to come."""
        self.watch.expected = len(specs)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where its journal is, what need not be run, and whose child it is."""
        _send_to_the_dead(node)
        name = node.gateway.id
        node.workerinput |= {"nnspec_journals": str(self.journals), "nnspec_parent": os.getpid()}
        node.workerinput["nnspec_known"] = json.dumps(sorted(self.session.known))
        self.watch.workers[name] = Worker(node, self.journals / name, time.monotonic())

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Return xdist's own scheduler, except that a worker that dies while it loads costs no other one its place."""
        from xdist.scheduler import WorkStealingScheduling  # type: ignore[import-untyped]

        class Scheduling(WorkStealingScheduling):
            def check_schedule(self) -> None:
                if self.collection is not None:  # before that, a worker that looks idle is still loading
                    super().check_schedule()

        return Scheduling(config, log) if config.getoption("dist") == "worksteal" else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """End the workers, and whatever they left behind, before anything is written. From now on a signal is late."""
        signals.hold()
        self._end()

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Remove the journals."""
        self._end()  # where the session did not come to its beginning
        if self._kept:
            self._kept.close()
        self._temporary.cleanup()

    def _end(self) -> None:
        self.watch.end()
        if self._kept:
            self._kept.put_back()


def _send_to_the_dead(node: Any) -> None:
    """Let xdist send commands to a worker that is dead: it learns of that later, and has others do what was sent."""
    send = node.sendcommand

    def send_if_open(name: str, **arguments: Any) -> None:
        with suppress(OSError):
            send(name, **arguments)

    node.sendcommand = send_if_open

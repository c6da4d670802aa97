"""The worker processes of a run: they are started, watched, ended, and put down for what they did."""

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
from nnspec.conformance.requirements import CHECKS, requirements
from nnspec.conformance.system import signals
from nnspec.conformance.system.legible import legible
from nnspec.conformance.system.log import key
from nnspec.conformance.system.processes import GIB, LINUX, Kept, Orphans, end_group, resident
from nnspec.conformance.trial import journal

if TYPE_CHECKING:
    from nnspec.conformance.session import Session

BLOCKED_AFTER = 2  # crashes or hangs of a block in a form, without one completed check; the other checks are not tried
LOADING = 10.0  # seconds that loading the subject may take longer than a call: importing a framework takes its time
STARTING = 120.0  # seconds that a worker has until it loads the subject
ATTEMPTS = 2  # workers in a row that may fail to load the subject, where an earlier one could
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


class Workers:
    """The worker processes, seen from the process that reports: a plugin of pytest beside the session.

    Without workers it keeps what the subject may change of this process.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.config = session, session.config
        option = self.config.getoption
        self.limit, self.memory = option("nnspec_timeout"), option("nnspec_memory")
        self._temporary = tempfile.TemporaryDirectory(prefix="nnspec-")
        self.journals = Path(self._temporary.name)
        self._workers: dict[str, Worker] = {}
        self._expected = 0  # workers that were started or are about to be
        self._orphans: Orphans | None = None
        self._orphaned = False  # whether a worker may have left something behind
        self._kept: Kept | None = None
        self._planned: list[str] = []  # the checks, as soon as a worker could load the subject
        self._failed_starts = 0  # since the last worker that could load it
        self._again: set[str] = set()  # checks whose worker was killed from outside once
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    # -- the course of a run -------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Begin to watch."""
        if not self.config.pluginmanager.hasplugin("dsession"):
            self._kept = Kept()
            return
        if self.config.getoption("nnspec_journals") is not None:  # a process of the command line has no other children
            self._orphans = Orphans()
        self._watcher.start()
        for block, form in {(r["block"], r["form"]) for r in self.session.log.records.values()}:
            self._give_up(block, form)  # of a run that goes on

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self) -> None:
        """Put back what loading the subject has changed, before anything is written."""
        if self._kept:
            self._kept.put_back()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: Any) -> None:
        """Know how many workers are to come."""
        self._expected = len(specs)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where its journal is, what need not be run, and whose child it is."""
        _send_to_the_dead(node)
        name = node.gateway.id
        node.workerinput |= {"nnspec_journals": str(self.journals), "nnspec_parent": os.getpid()}
        node.workerinput["nnspec_known"] = json.dumps(sorted(self.session.known))
        self._workers[name] = Worker(node, self.journals / name, time.monotonic())

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Tell the session what a worker has loaded, and notice if it is something else than the others have."""
        found = self.journals / f"loaded-{node.gateway.id}"
        if found.exists():
            self.session.notice(json.loads(found.read_bytes()))
        if self._planned and ids != self._planned:
            self._workers[node.gateway.id].end("changed")
            return
        self._planned, self._failed_starts = ids, 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """End the workers, and whatever they left behind, before anything is written. From now on a signal is late."""
        signals.hold()
        self._end_all()

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Remove the journals."""
        self._end_all()  # where the session did not come to its beginning
        if self._kept:
            self._kept.close()
        self._temporary.cleanup()

    def _end_all(self) -> None:
        self._stop.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for worker in self._workers.values():
            worker.end(patience=5 if worker.finished else 0)
        if self._orphans:
            self._orphans.end()
        if self._kept:
            self._kept.put_back()

    def pytest_internalerror(self, excrepr: Any, excinfo: Any) -> bool:
        """Name what ended the run, and keep what is known by then."""
        if excinfo.errisinstance(EOFError):  # before a worker said its first word
            message = "a worker process could not be started: it ended at once"
            if self._planned:
                self.session.log.error(message)
            else:
                self.session.failure = message
        else:
            self.session.log.error(f"internal error: {str(excrepr)[-2000:]}")
        return True

    # -- the end of a worker -------------------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Return xdist's own scheduler, except that a worker that dies while it loads costs no other one its place."""
        from xdist.scheduler import WorkStealingScheduling  # type: ignore[import-untyped]

        class Scheduling(WorkStealingScheduling):
            def check_schedule(self) -> None:
                if self.collection is not None:  # before that, a worker that looks idle is still loading
                    super().check_schedule()

        return Scheduling(config, log) if config.getoption("dist") == "worksteal" else None

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Find out why a worker ended. Raises to end the run where another worker would not do better."""
        if signals.received():  # what it raised was lost
            raise KeyboardInterrupt
        worker = self._workers[node.gateway.id]
        worker.finished = not error
        if error:
            worker.end("closed", patience=1)
            if message := self._did_not_start(worker, str(error)):
                self._count_failed_start(worker, message)
            self._expected += 1  # xdist replaces it

    def _did_not_start(self, worker: Worker, error: str) -> str | None:
        """Return why a worker came to no check; None if it came to one. `error` is what xdist knows of it."""
        subject = self.config.getoption("nnspec_subject")
        if worker.ended_for == "changed":
            return f"{subject} offers other checks than before; was it changed?"
        if not worker.journal.exists():
            told = error.strip().splitlines()[-1] if worker.ended_for == "closed" else ""
            fate = told or worker.fate(STARTING, self.memory) + worker.how
            return f"a worker process could not be started: {fate}"
        began, entry, _ = journal.read(worker.journal)
        text = entry.get("text", "")
        if text.startswith(journal.TRYING):  # the next worker goes without this call
            journal.mark(self.journals, text.removeprefix(journal.TRYING)).touch()
            return None
        if text.startswith("cannot load: "):
            return text.removeprefix("cannot load: ")
        if began and text.startswith("loading "):
            fate = "hung" if worker.ended_for == "time" else worker.fate(self.limit, self.memory)
            return f"{subject}: {fate} while it was loaded{worker.how}"
        return None

    def _count_failed_start(self, worker: Worker, message: str) -> None:
        """Name that a worker could not load the subject, and end the run unless the next one may do better."""
        if self.session.is_complete:  # xdist started it in vain, and would go on to do so
            raise pytest.exit.Exception("all checks are done", returncode=0)
        self._failed_starts += 1
        if self._failed_starts < ATTEMPTS and (self._planned or worker.was_killed):
            self._note(f"a worker came to no check: {message}")
            return
        if self._planned:  # it could be loaded before, and what is known by now is reported
            self.session.log.error(f"{ATTEMPTS} workers in a row came to no check: {message}")
        elif worker.was_killed or not worker.journal.exists():
            self.session.failure = message
        else:
            self.session.subject_error = message
        raise pytest.exit.Exception(message, returncode=2)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any, sched: Any) -> None:
        """Turn the end of a worker in the middle of a check into a record: its journal says in which case."""
        worker = self._workers[report.node.gateway.id]
        if worker.ended_for == "changed":
            _try_again(crashitem, report, sched)
            return
        if worker.was_killed:
            name = signal.Signals(-worker.process.returncode).name
            self._note(f"something outside nnspec ended a worker with {name} during {crashitem}")
            if crashitem not in self._again:
                self._again.add(crashitem)
                _try_again(crashitem, report, sched)
                return
            self.session.log.error(f"{crashitem}: something outside nnspec ended the worker twice, with {name}")
        else:
            report.nnspec = json.dumps(self._crash(worker, crashitem))
        report.when = "call"

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Give up a block after the session has its last crash."""
        entry = json.loads(getattr(report, "nnspec", None) or "null")
        if entry and entry["verdict"] in ("crash", "timeout"):
            self._give_up(entry["block"], entry["form"])

    def _note(self, incident: str) -> None:
        """Have the report say what happened to a worker, and was neither the subject's doing nor an error."""
        notes = self.session.log.notes.get("incidents", [])
        self.session.log.note("incidents", [*notes, incident])

    def _crash(self, worker: Worker, nodeid: str) -> dict[str, Any] | None:
        from nnspec.conformance.report import report, waivers
        from nnspec.conformance.trial.record import Mismatch, Outcome

        raw = journal.raw(worker.journal)
        _, entry, case = journal.parse(raw)
        what = worker.fate(self.limit, self.memory) + worker.how
        if "check" not in entry:
            self.session.log.error(f"{nodeid}: the worker {what} outside any call")
            return None
        identifier, form, dtype = entry["check"]
        option = self.config.getoption
        failure = Mismatch(f"the call {what}: {entry['text']}")
        failure.case = case or entry["text"]
        verdict, seconds = "timeout" if worker.ended_for == "time" else "crash", time.monotonic() - entry["since"]
        outcome = Outcome(verdict, reason=f"the call {what}", failure=failure, seconds=seconds)
        record = report.record(_check(identifier), None, form, dtype, outcome)
        if case is not None:
            self.session.log.keep_crash(key(record), raw)
        return dict(legible(report.waived(record, waivers.load(option("nnspec_waivers")), option("nnspec_subject"))))

    def _give_up(self, block: str, form: str) -> None:
        """Have the workers skip the rest of a block of which nothing but crashes and hangs is known."""
        records = self.session.log.records.values()
        alike = [r["verdict"] for r in records if (r["block"], r["form"]) == (block, form)]
        tried = [verdict for verdict in alike if verdict != "unsupported"]  # those were not called at all
        if len(tried) >= BLOCKED_AFTER and set(tried) <= {"crash", "timeout"}:
            (self.journals / f"blocked-{block}-{form}").touch()

    # -- the watch -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look at all workers again and again. A worker is noticed to be dead even if its pipe is still open."""
        while not self._stop.wait(min(EVERY, self.limit / 4)):
            for worker in list(self._workers.values()):
                if worker.cleared:
                    continue
                if worker.process.poll() is not None:
                    worker.end()
                    self._orphaned = True
                elif reason := self._over(worker):
                    worker.ended_for = reason
                    end_group(worker.process)
            if self._orphans and self._orphaned and len(self._workers) == self._expected:  # none is just being started
                self._orphans.end(worker.process.pid for worker in self._workers.values() if not worker.cleared)
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


def _send_to_the_dead(node: Any) -> None:
    """Let xdist send commands to a worker that is dead: it learns of that later, and has others do what was sent."""
    send = node.sendcommand

    def send_if_open(name: str, **arguments: Any) -> None:
        with suppress(OSError):
            send(name, **arguments)

    node.sendcommand = send_if_open


def _try_again(crashitem: str, report: Any, sched: Any) -> None:
    """Have another worker run the check, whose report then counts for nothing."""
    sched.mark_test_pending(crashitem)
    report.outcome, report.when = "rerun", "setup"


def _check(identifier: str) -> Any:
    from nnspec.conformance.checks import load_checks

    load_checks()
    assert identifier in requirements()
    return CHECKS[identifier]

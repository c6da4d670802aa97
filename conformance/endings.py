"""What the end of a worker means for a run: the subject cannot be loaded, a check crashed, or neither."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from nnspec.conformance.requirements import CHECKS, requirements
from nnspec.conformance.system import printed, signals
from nnspec.conformance.system.legible import legible
from nnspec.conformance.system.log import key
from nnspec.conformance.trial import journal
from nnspec.conformance.workers import STARTING, Worker, Workers

if TYPE_CHECKING:
    from nnspec.conformance.session import Session

BLOCKED_AFTER = 2  # crashes or hangs of a block in a form, without one completed check; the other checks are not tried
ATTEMPTS = 2  # workers in a row that may fail to load the subject, where an earlier one could


class Starts:
    """The plugin that says what it means where a worker comes to no check."""

    def __init__(self, workers: Workers) -> None:
        self.session, self.watch, self.journals = workers.session, workers.watch, workers.journals
        self._planned: list[str] = []  # the checks, as soon as a worker could load the subject
        self._failed = 0  # starts since the last worker that could load it

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Tell the session what a worker has loaded, and notice if it is something else than the others have."""
        found = self.journals / f"loaded-{node.gateway.id}"
        if found.exists():
            self.session.notice(json.loads(found.read_bytes()))
        if self._planned and ids != self._planned:
            self.watch.workers[node.gateway.id].end("changed")
            return
        self._planned, self._failed = ids, 0

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Find out why a worker ended. Raises to end the run where another worker would not do better."""
        if signals.received():  # what it raised was lost
            raise KeyboardInterrupt
        worker = self.watch.workers[node.gateway.id]
        worker.finished = not error
        if error:
            worker.end("closed", patience=1)
            if message := self._did_not_start(worker, str(error)):
                self._count_failed_start(worker, message)
            self.watch.expected += 1  # xdist replaces it

    def _did_not_start(self, worker: Worker, error: str) -> str | None:
        """Return why a worker came to no check; None if it came to one. `error` is what xdist knows of it."""
        subject = self.session.config.getoption("nnspec_subject")
        if worker.ended_for == "changed":
            return f"{subject} offers other checks than before; was it changed?"
        if not worker.journal.exists():
            told = error.strip().splitlines()[-1] if worker.ended_for == "closed" else ""
            fate = told or worker.fate(STARTING, self.watch.memory) + worker.how
            return f"a worker process could not be started: {fate}"
        began, entry, _ = journal.read(worker.journal)
        text = entry.get("text", "")
        if text.startswith(journal.TRYING):  # the next worker goes without this call
            journal.mark(self.journals, text.removeprefix(journal.TRYING)).touch()
            return None
        if text.startswith("cannot load: "):
            return text.removeprefix("cannot load: ")
        if began and text.startswith("loading "):
            fate = "hung" if worker.ended_for == "time" else worker.fate(self.watch.limit, self.watch.memory)
            return f"{subject}: {fate} while it was loaded{worker.how}"
        return None

    def _count_failed_start(self, worker: Worker, message: str) -> None:
        """Name that a worker could not load the subject, and end the run unless the next one may do better."""
        if self.session.is_complete:  # xdist started it in vain, and would go on to do so
            raise pytest.exit.Exception("all checks are done", returncode=0)
        self._failed += 1
        if self._failed < ATTEMPTS and (self._planned or worker.was_killed):
            _note(self.session, f"a worker came to no check: {message}")
            return
        if self._planned:  # it could be loaded before, and what is known by now is reported
            self.session.log.error(f"{ATTEMPTS} workers in a row came to no check: {message}")
        elif worker.was_killed or not worker.journal.exists():
            self.session.failure = message
        else:
            self.session.subject_error = message
        raise pytest.exit.Exception(message, returncode=2)

    def pytest_internalerror(self, excrepr: Any, excinfo: Any) -> bool:
        """Name what ended the run, and keep what is known by then."""
        if excinfo.errisinstance(EOFError) and self._planned:
            self.session.log.error("a worker process could not be started: it ended at once")
        elif excinfo.errisinstance((EOFError, OSError)) and not self._planned:  # before its first word, or before ours
            self.session.failure = "a worker process could not be started: it ended at once"
        else:
            self.session.log.error(f"internal error: {str(excrepr)[-2000:]}")
        return True


class Crashes:
    """The plugin that says what it means where a worker ends in the middle of a check."""

    def __init__(self, workers: Workers) -> None:
        self.session, self.watch, self.journals = workers.session, workers.watch, workers.journals
        self._again: set[str] = set()  # checks whose worker was killed from outside once

    def pytest_sessionstart(self) -> None:
        """Give up the blocks that an earlier part of this run gave up."""
        for block, form in {(r["block"], r["form"]) for r in self.session.log.records.values()}:
            self._give_up(block, form)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any, sched: Any) -> None:
        """Turn the end of a worker in the middle of a check into a record: its journal says in which case."""
        worker = self.watch.workers[report.node.gateway.id]
        if worker.ended_for == "changed" or journal.read(worker.journal)[1].get("text") == journal.ANEW:
            _try_again(crashitem, report, sched)
            return
        if worker.was_killed:
            name = signal.Signals(-worker.process.returncode).name
            _note(self.session, f"something outside nnspec ended a worker with {name} during {crashitem}")
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

    def _crash(self, worker: Worker, nodeid: str) -> dict[str, Any] | None:
        from nnspec.conformance.report import report, waivers
        from nnspec.conformance.trial.record import Mismatch, Outcome

        raw = journal.raw(worker.journal)
        _, entry, case = journal.parse(raw)
        what = worker.fate(self.watch.limit, self.watch.memory) + worker.how
        words = printed.last_words()
        words = legible(f"; standard error ended with: {words}") if words else ""
        if "check" not in entry:
            self.session.log.error(f"{nodeid}: the worker {what} outside any call")
            return None
        identifier, form, dtype = entry["check"]
        option = self.session.config.getoption
        failure = Mismatch(f"the call {what}: {entry['text']}{words}")
        failure.case = case or entry["text"]
        verdict, seconds = "timeout" if worker.ended_for == "time" else "crash", time.monotonic() - entry["since"]
        outcome = Outcome(verdict, reason=f"the call {what}{words}", failure=failure, seconds=seconds)
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


def _note(session: Session, incident: str) -> None:
    """Have the report say what happened to a worker, and was neither the subject's doing nor an error."""
    notes = session.log.notes.get("incidents", [])
    session.log.note("incidents", [*notes, incident])


def _try_again(crashitem: str, report: Any, sched: Any) -> None:
    """Have another worker run the check, whose report then counts for nothing."""
    sched.mark_test_pending(crashitem)
    report.outcome, report.when = "rerun", "setup"


def _check(identifier: str) -> Any:
    from nnspec.conformance.checks import load_checks

    load_checks()
    assert identifier in requirements()
    return CHECKS[identifier]

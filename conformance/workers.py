"""Watch the worker processes: time-outs, crashes, and blocks that are given up."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from nnspec.conformance import journal
from nnspec.conformance.legible import legible
from nnspec.conformance.log import key
from nnspec.conformance.requirements import CHECKS, requirements

if TYPE_CHECKING:
    from nnspec.conformance.session import Session

BLOCKED_AFTER = 10  # after so many crashes or hangs of a block without one completed check, the others are not tried
LOADING = 10.0  # seconds that loading the subject may take longer than a call: importing a framework takes its time


def arguments(workers: int) -> list[str]:
    """Return pytest's arguments for this number of worker processes."""
    if not workers:
        return []
    return ["-p", "xdist.plugin", "-n", str(workers), "--max-worker-restart", "10000", "--dist", "worksteal"]


class Workers:
    """The worker processes of a run, seen from the process that reports: a plugin of pytest beside the session."""

    def __init__(self, session: Session) -> None:
        self.session, self.config = session, session.config
        self._temporary = tempfile.TemporaryDirectory(prefix="nnspec-")
        self.journals = Path(self._temporary.name)
        self._killed: set[str] = set()
        self._stop = threading.Event()

    # -- hooks of pytest and xdist -------------------------------------------------------------------------------------

    def pytest_sessionstart(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._watch, daemon=True).start()
        for block, form in {(r["block"], r["form"]) for r in self.session.log.records.values()}:
            self._give_up(block, form)  # of a run that goes on

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where its journal is, and what need not be run."""
        node.workerinput["nnspec_journals"] = str(self.journals)
        node.workerinput["nnspec_known"] = json.dumps(sorted(self.session.known))

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_node_collection_finished(self, node: Any) -> None:
        """Tell the session what a worker loaded."""
        found = self.journals / f"loaded-{node.gateway.id}"
        if found.exists():
            self.session.notice(json.loads(found.read_bytes()))

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any, sched: Any) -> None:
        """Turn the end of a worker in the middle of a check into a record: its journal says in which case."""
        report.nnspec = json.dumps(self._crash(report.node.gateway.id, crashitem))
        report.when = "call"

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Give up a block after the session has its last crash."""
        entry = json.loads(getattr(report, "nnspec", None) or "null")
        if entry and entry["verdict"] in ("crash", "timeout"):
            self._give_up(entry["block"], entry["form"])

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """End the run where a worker ended while it loaded the subject, since no other would fare better."""
        session, output = self.session, getattr(node, "workeroutput", {})
        session.subject_error = output.get("nnspec_error", session.subject_error)
        worker = node.gateway.id
        if error and (self.journals / worker).exists():
            _, entry, _ = journal.read(self.journals / worker)
            if entry.get("text", "").startswith("loading "):
                fate = "hung" if worker in self._killed else "ended the process"
                message = f"{self.config.getoption('nnspec_subject')}: {fate} while it was loaded"
                if session.log.records:  # it could be loaded before, and what is known by now is reported
                    session.log.error(f"{message} once more, after a worker had ended")
                else:
                    session.subject_error = message
                raise pytest.exit.Exception(message, returncode=2)

    def pytest_sessionfinish(self) -> None:
        """Stop watching."""
        self._stop.set()

    def pytest_unconfigure(self) -> None:
        """Remove the journals."""
        self._temporary.cleanup()

    # -- the watch -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        limit = self.config.getoption("nnspec_timeout")
        while not self._stop.wait(min(0.5, limit / 4)):
            for path in list(self.journals.glob("gw*")):
                try:
                    began, entry, _ = journal.read(path)
                except (OSError, ValueError, KeyError):
                    continue
                allowed = limit + LOADING * entry.get("text", "").startswith("loading ")
                if began and entry.get("pid") and time.monotonic() - began > allowed and path.name not in self._killed:
                    self._killed.add(path.name)
                    with suppress(ProcessLookupError):
                        os.kill(entry["pid"], signal.SIGKILL)

    def _crash(self, worker: str, nodeid: str) -> dict[str, Any] | None:
        from nnspec.conformance import report, waivers

        raw = journal.raw(self.journals / worker)
        _, entry, case = journal.parse(raw)
        if "check" not in entry:
            self.session.log.error(f"{nodeid}: the worker ended outside any call")
            return None
        identifier, form, dtype = entry["check"]
        hung = worker in self._killed
        option = self.config.getoption
        limit = option("nnspec_timeout")
        what = f"did not return within {limit:g} s" if hung else "ended the process"
        record = report.key(_check(identifier), form, dtype) | {
            "verdict": "timeout" if hung else "crash",
            "reason": f"the call {what}",
            "cases": 0,
            "unsupported": {},
            "known_defects": {},
            "held": [],
            "seconds": round(time.monotonic() - entry["since"], 3),
            "worst_error_over_bound": 0.0,
            "worst_case": None,
            "accuracy": None,
            "declared": [],
            "differs": None,
            "failure": {
                "message": f"the call {what}: {entry['text']}",
                "case": report.plain_case(case) if case else {"call": entry["text"], "arrays": {}, "arguments": {}},
                "actual": None,
                "expected": None,
                "bound": None,
                "script": None,
                "misshapen": False,
                "causes": [],
            },
        }
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


def _check(identifier: str) -> Any:
    from nnspec.conformance.power import load_checks

    load_checks()
    assert identifier in requirements()
    return CHECKS[identifier]

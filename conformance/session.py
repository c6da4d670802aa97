"""A run of checks: the engine is pytest, over worker processes; here its results come together."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nnspec.conformance.requirements import unknown_block
from nnspec.conformance.sizes import OF_PROFILE, REGIMES
from nnspec.conformance.system import folder, signals
from nnspec.conformance.system.folder import OutputError
from nnspec.conformance.system.legible import legible
from nnspec.conformance.system.log import Log, key
from nnspec.conformance.system.processes import SAFE_PATH
from nnspec.conformance.trial import journal
from nnspec.conformance.workers import arguments as worker_arguments

ELSEWHERE = "this call alone ends no new process: a call before it may have written beyond its memory"
# Tells glibc that workers keep the memory of freed arrays: to get new pages takes a quarter of ResNet-34's time.
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_TOP_PAD_": str(2**26)}


class Session:
    """Collects records and writes the report. Lives in the process that reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.log: Log = getattr(config, "nnspec_log", None) or Log(config.getoption("nnspec_out"))
        self.planned = 0
        self.interrupted = False
        self.subject_error: str | None = None
        self.failure: str | None = None  # why nnspec itself could not run the checks
        self.loaded: dict[str, dict[str, str]] = {}  # what identifies the subject: versions, and its files' contents
        self.report: dict[str, Any] | None = None
        self.progress: Callable[[int, int, dict[str, Any] | None], None] = lambda done, planned, record: None
        self.known = set(self.log.records)  # results of the run that goes on, which are not sought again
        self._done = len(self.known)

    # -- what pytest tells ---------------------------------------------------------------------------------------------

    def pytest_sessionstart(self) -> None:
        """Take over how progress is shown."""
        self.progress = getattr(self.config, "nnspec_progress", self.progress)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What will be run, in this process."""
        if self.loaded and not self.config.pluginmanager.hasplugin("dsession"):
            self._plan(sum(hasattr(getattr(item, "function", None), "check") for item in session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """What will be run, in the workers."""
        if self.loaded:
            self._plan(len(ids))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file of checks that cannot be imported is our fault, not the subject's."""
        if report.failed:
            self.log.error(legible(f"{report.nodeid}: {report.longrepr}"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One check is done."""
        entry = json.loads(getattr(report, "nnspec", None) or "null")
        if getattr(report, "nnspec_error", ""):
            self.log.error(report.nnspec_error)
        if report.when == "call" or report.failed:
            self._done += 1
            if entry:
                self.log.keep(entry)
            self.progress(self._done, self.planned, entry)

    @property
    def is_complete(self) -> bool:
        """Whether every check has come to its end."""
        return 0 < self.planned <= self._done

    def pytest_keyboard_interrupt(self, excinfo: Any) -> None:
        """Ctrl-C: what is known so far is reported all the same."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Build the report from the log, and write it where nobody else does."""
        if self.subject_error or self.failure:
            session.exitstatus = 2 if self.subject_error else 3
        elif self._begin():
            from nnspec.conformance.report import report

            self._write_crash_scripts()
            if self.interrupted:
                self.log.event("interrupted")
            self.report = report.assemble(
                _described(self.log, self.interrupted), self.log.records.values(), self.log.errors
            )
            if session.exitstatus == 0 and (
                self.report["musts"]["not judged"] or report.failed(self.report["results"])
            ):
                session.exitstatus = 1  # pytest skips what cannot be judged; DIFFERS is found untrue only at the end
            if getattr(self.config, "nnspec_write", True):
                self._write_report()
        self.log.close()

    def _write_report(self) -> None:
        """Write the report; if that fails, the log is still there."""
        path = self.config.getoption("nnspec_json") or f"{self.config.getoption('nnspec_out')}/report.json"
        try:
            folder.write(self.report or {}, path)
        except OSError as error:
            self.log.trouble = self.log.trouble or f"{folder.because(path, error)}; the log is {self.log.path}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Under plain pytest: what is wrong with the subject, or where the report is."""
        if self.subject_error or self.failure:
            terminalreporter.write_line(f"nnspec: {self.subject_error or self.failure}", red=True)
        elif self.report:
            counts = ", ".join(f"{n} {verdict}" for verdict, n in self.report["totals"].items() if n)
            counts = f"judged {self.report['musts']['judged']} of {self.report['musts']['all']} musts; {counts}"
            path = self.config.getoption("nnspec_json") or f"{self.config.getoption('nnspec_out')}/report.json"
            terminalreporter.write_line(f"nnspec: {self.report['subject']}: {counts}; report: {path}")
            for entry in self.report["unsteady"]:
                where = f"{entry['block']} ({entry['form']} {entry['dtype']})"
                terminalreporter.write_line(f"nnspec: {where}: {entry['message']}", red=True)
            if self.log.trouble:
                terminalreporter.write_line(f"nnspec: {self.log.trouble}", red=True)

    def _write_crash_scripts(self) -> None:
        from nnspec.conformance.report.script import crash_scripts

        records = [self.log.records[which] for which in self.log.crashes if which in self.log.records]
        lack = [r for r in records if r["failure"] and not r["failure"]["script"]]
        if not lack:
            return
        option = self.config.getoption
        cases = (journal.parse(self.log.crashes[key(r)])[2] for r in lack)
        known = [(r, case) for r, case in zip(lack, cases, strict=True) if case is not None]
        asked = [(*key(r), case, r["reason"], r["verdict"] == "crash") for r, case in known]
        texts = crash_scripts(option("nnspec_subject"), option("nnspec_framework"), option("nnspec_device"), asked)
        for (record, _), (text, smaller, recurs) in zip(known, texts, strict=True):
            if not recurs:
                record["failure"]["message"] += f"; {ELSEWHERE}"
            if text:
                record["failure"] |= {"script": text} | ({"case": legible(smaller)} if smaller else {})
            self.log.keep(record)

    # -- the run -------------------------------------------------------------------------------------------------------

    def _plan(self, remaining: int) -> None:
        """Begin the log when it is known how much there is to do."""
        self.planned = self.planned or len(self.known) + remaining
        if not self._begin():
            raise pytest.exit.Exception(self.subject_error or "", returncode=2)

    def notice(self, loaded: dict[str, dict[str, str]]) -> None:
        """Take what a worker loaded, and compare it with what the first one did."""
        sources = (self.loaded or loaded)["sources"]
        self.loaded = loaded
        for path, digest in loaded["sources"].items():
            if sources.get(path, digest) != digest:
                self.log.error(legible(f"{path} was changed while it was checked; check it again"))

    def _versions(self) -> dict[str, str]:
        from nnspec.conformance.report import report

        return report.versions() | self.loaded.get("versions", {})

    def _identity(self) -> dict[str, Any]:
        told = {name: self.loaded.get(name, {}) for name in ("sources", "domains")}
        return {"versions": self._versions(), **told}

    def _begin(self) -> bool:
        head = {"subject": self.config.getoption("nnspec_subject"), "options": self._options(), "checks": self.planned}
        try:
            self.log.begin(head | self._identity())
        except OutputError as error:
            self.subject_error = str(error)
        return self.subject_error is None

    def _options(self) -> dict[str, Any]:
        """The options that the verdicts depend on."""
        given = {n.removeprefix("nnspec_"): v for n, v in vars(self.config.option).items() if n.startswith("nnspec_")}
        waivers = given.pop("waivers")
        digest = hashlib.sha256(Path(waivers).read_bytes()).hexdigest() if waivers and Path(waivers).is_file() else None
        return {n: v for n, v in given.items() if n not in ("subject", "out", "json", "journals")} | {"waivers": digest}


def salvage(out: str, interrupted: bool, error: str) -> tuple[Log, dict[str, Any]]:
    """Return the log and the report of a run whose process ended before it could write a report."""
    from nnspec.conformance.report import report

    log = Log(out, resume=True)
    log.begin({name: value for name, value in log.head.items() if name != "log"})
    log.event("interrupted") if interrupted else log.error(error)
    return log, report.assemble(_described(log, interrupted), log.records.values(), log.errors)


def _described(log: Log, interrupted: bool) -> dict[str, Any]:
    """What a report says of the run, beside its results."""
    options = log.head["options"]
    return {
        "subject": legible(log.head["subject"]),
        "profile": options["profile"],
        "sizes": options["sizes"] or OF_PROFILE[options["profile"]],
        "seed": options["seed"],
        "blocks": options["block"],
        "dtypes": options["dtype"],
        "device": options["device"],
        "domains": log.head["domains"],
        "versions": log.head["versions"],
        "seconds": round(log.seconds, 2),
        "planned": log.head["checks"],
        "finished": len(log.records),
        "unfinished": max(0, log.head["checks"] - len(log.records)),
        "interrupted": interrupted,
        "incidents": log.notes.get("incidents", []),
    }


def run(options: dict[str, Any], workers: int, **attributes: Any) -> tuple[int, Session | None]:
    """Run the checks by pytest with these --nnspec-* options; its exit code, and the session with the records."""
    arguments = ["--pyargs", "nnspec.conformance", "-p", "no:terminal", "-p", "no:cacheprovider", "--capture=no"]
    arguments += ["--noconftest"]  # one that lies in the user's folder is none of ours
    arguments += ["-p", "no:faulthandler"]  # a subject that aborts is reported, not dumped
    costly = ("unraisableexception", "threadexception", "logging")
    arguments += ["--assert=plain", *(f"-pno:{plugin}" for plugin in costly)]
    arguments += [
        "-c",
        os.devnull,
        "--rootdir",
        str(Path(__file__).parent),
        "--import-mode=importlib",
        "--nnspec-journals",
        "",
    ]
    arguments += worker_arguments(workers)
    start = _Start(options, attributes)
    with _quiet_environment(workers):
        try:
            code = pytest.main(arguments, plugins=[start])
        finally:
            signals.release()
    return int(code), start.session


class _Start:
    """Hands options and Python objects to pytest's configuration, and the session back.

    Options go to workers as JSON text: the name of a file need not be UTF-8, which arguments of workers have to be.
    """

    session: Session | None = None

    def __init__(self, options: dict[str, Any], attributes: dict[str, Any]) -> None:
        self.options, self.attributes = options, attributes

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Before the others."""
        for name, value in self.attributes.items():
            setattr(config, f"nnspec_{name}", value)
        for name, value in self.options.items():
            setattr(config.option, f"nnspec_{name}", value)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker the same."""
        node.workerinput |= {"nnspec_options": json.dumps(self.options), "mainargv": ["nnspec"]}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Remember the session."""
        self.session = session.config.pluginmanager.getplugin("nnspec-session")


def _look_for_hypothesis_home() -> None:
    """Have Hypothesis look again where its files are to be, if this process has imported it: that takes 0.2 s."""
    if "hypothesis" in sys.modules:
        from hypothesis.configuration import set_hypothesis_home_dir

        set_hypothesis_home_dir(None)


@contextmanager
def _quiet_environment(workers: int) -> Iterator[None]:
    """One thread per worker, no foreign plugins, nobody's PYTEST_ADDOPTS, and nothing left in the user's folder."""
    before = dict(os.environ)
    os.environ.pop("PYTEST_ADDOPTS", None)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if workers:
        os.environ.setdefault("PYTHONSAFEPATH", SAFE_PATH)  # no worker finds a random.py in the user's folder
        for name, size in KEPT.items():
            os.environ.setdefault(name, size)
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "nnspec.conformance.plugin"}
    with tempfile.TemporaryDirectory(prefix="nnspec-") as folder:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        _look_for_hypothesis_home()
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before
            _look_for_hypothesis_home()


def check_object(
    subject: Any,
    *,
    block: Any = None,
    profile: str = "quick",
    sizes: str | None = None,
    dtype: Any = None,
    seed: int = 0,
    framework: str | None = None,
    device: str | None = None,
    domain: Any = None,
) -> dict[str, Any]:
    """What nnspec.conformance.check does: everything in this process, nothing written."""
    from nnspec.adapters import SubjectError, load
    from nnspec.adapters.conditions import DomainError
    from nnspec.adapters.names import DTYPES
    from nnspec.conformance.trial.search import PROFILES

    blocks, dtypes = ([value] if isinstance(value, str) else value for value in (block, dtype))
    if message := unknown_block(blocks):
        raise ValueError(f"block {message}")
    choices = (
        ("profile", [profile], PROFILES),
        ("sizes", [sizes or "small"], REGIMES),
        ("dtype", dtypes or (), DTYPES),
    )
    for name, given, known in choices:
        if unknown := [value for value in given if value not in known]:
            raise ValueError(f"{name} {unknown[0]!r}: expected one of {', '.join(known)}")
    only = blocks[0] if blocks and len(blocks) == 1 else None
    loaded = load(subject, framework, device, block=only, profile=profile)
    if domain is not None:
        try:
            loaded = loaded.restricted(domain)
        except DomainError as error:
            raise ValueError(f"domain {error}") from None
    options = {"subject": loaded.name, "block": blocks, "profile": profile, "sizes": sizes}
    options |= {"dtype": dtypes, "seed": seed}
    _, session = run(options | {"device": device}, 0, object=loaded, log=Log(), write=False)
    if session is None or session.report is None:
        raise SubjectError((session and session.subject_error) or "the checks could not be run")
    return session.report

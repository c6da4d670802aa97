"""A run of checks: the engine is pytest, over worker processes; here its results come together."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis.configuration import set_hypothesis_home_dir
from nnspec.conformance.requirements import unknown_block
from nnspec.conformance.workers import arguments as worker_arguments


class Session:
    """Collects records and writes the report. Lives in the process that reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.records: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.errors: list[str] = []
        self.planned: list[str] = []
        self.interrupted = False
        self.subject_error: str | None = None
        self.versions: dict[str, str] = {}
        self.crashes: list[tuple[dict[str, Any], Any]] = []  # records that still lack their scripts, and the cases
        self.started = time.monotonic()
        self.report: dict[str, Any] | None = None
        self.progress: Callable[[int, int, dict[str, Any] | None], None] = lambda done, planned, record: None
        self._done = 0

    # -- what pytest tells ---------------------------------------------------------------------------------------------

    def pytest_sessionstart(self) -> None:
        """Take over how progress is shown."""
        self.progress = getattr(self.config, "nnspec_progress", self.progress)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What will be run, in this process."""
        self._plan([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """What will be run, in the workers."""
        self._plan(ids)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file of checks that cannot be imported is our fault, not the subject's."""
        if report.failed:
            self.errors.append(f"{report.nodeid}: {report.longrepr}"[:2000])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One check is done."""
        entry = getattr(report, "nnspec", None)
        if getattr(report, "nnspec_error", ""):
            self.errors.append(report.nnspec_error + "\n" + str(report.longrepr)[-2000:])
        if report.when == "call" or report.failed:
            self._done += 1
            if entry:
                self.records[entry["requirement"], entry["form"], entry["dtype"]] = entry
            self.progress(self._done, len(self.planned), entry)

    def pytest_keyboard_interrupt(self, excinfo: Any) -> None:
        """Ctrl-C: what is known so far is reported all the same."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the report."""
        if self.subject_error:
            session.exitstatus = 2
            return
        from nnspec.conformance import report

        out = Path(self.config.getoption("nnspec_out"))
        records = list(self.records.values())
        self._write_crash_scripts()
        report.write_scripts(records, out)
        self.report = report.assemble(self._run(), records, self.errors)
        if getattr(self.config, "nnspec_write", True):
            report.write(self.report, Path(self.config.getoption("nnspec_json") or out / "report.json"))
        if not records and not self.interrupted:
            session.exitstatus = 1  # a run in which nothing ran has shown nothing

    @pytest.hookimpl(optionalhook=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Under plain pytest: what is wrong with the subject, or where the report is."""
        if self.subject_error:
            terminalreporter.write_line(f"nnspec: {self.subject_error}", red=True)
        elif self.report:
            counts = ", ".join(f"{n} {verdict}" for verdict, n in self.report["totals"].items() if n)
            path = self.config.getoption("nnspec_json") or f"{self.config.getoption('nnspec_out')}/report.json"
            terminalreporter.write_line(f"nnspec: {self.report['subject']}: {counts}; report: {path}")

    def _write_crash_scripts(self) -> None:
        from nnspec.conformance.script import crash_scripts

        if not self.crashes:
            return
        option = self.config.getoption
        asked = [(r["requirement"], r["form"], r["dtype"], case, r["reason"]) for r, case in self.crashes]
        texts = crash_scripts(option("nnspec_subject"), option("nnspec_framework"), option("nnspec_device"), asked)
        for (record, _), text in zip(self.crashes, texts, strict=True):
            record["failure"]["script"] = text or None

    # -- the run -------------------------------------------------------------------------------------------------------

    def _plan(self, ids: list[str]) -> None:
        self.planned = ids or self.planned

    def _run(self) -> dict[str, Any]:
        from nnspec.conformance import report

        option = self.config.getoption
        return {
            "subject": option("nnspec_subject"),
            "profile": option("nnspec_profile"),
            "seed": option("nnspec_seed"),
            "blocks": option("nnspec_block"),
            "dtypes": option("nnspec_dtype"),
            "device": option("nnspec_device"),
            "versions": report.versions() | self.versions,
            "seconds": round(time.monotonic() - self.started, 2),
            "planned": len(self.planned),
            "finished": len(self.records),
            "unfinished": max(0, len(self.planned) - len(self.records)),
            "interrupted": self.interrupted,
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
    for name, value in options.items():
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        arguments += [f"--nnspec-{name}={v}" for v in values]
    start = _Start(attributes)
    with _quiet_environment():
        code = pytest.main(arguments, plugins=[start])
    return int(code), start.session


class _Start:
    """Hands Python objects to pytest's configuration, and the session back."""

    session: Session | None = None

    def __init__(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Before the others."""
        for name, value in self.attributes.items():
            setattr(config, f"nnspec_{name}", value)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Remember the session."""
        self.session = session.config.pluginmanager.getplugin("nnspec-session")


@contextmanager
def _quiet_environment() -> Iterator[None]:
    """One thread per worker, no foreign plugins, nobody's PYTEST_ADDOPTS, and nothing left in the user's folder."""
    before = dict(os.environ)
    os.environ.pop("PYTEST_ADDOPTS", None)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("JAX_ENABLE_X64", "1")  # also while a file is loaded that makes arrays then
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "nnspec.conformance.plugin"}
    with tempfile.TemporaryDirectory(prefix="nnspec-") as folder:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        set_hypothesis_home_dir(None)  # it looks there from now on
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before
            set_hypothesis_home_dir(None)


def check_object(
    subject: Any,
    *,
    block: Any = None,
    profile: str = "quick",
    dtype: Any = None,
    seed: int = 0,
    framework: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """What nnspec.conformance.check does: everything in this process, nothing written."""
    from nnspec.adapters import SubjectError, load
    from nnspec.adapters.names import DTYPES
    from nnspec.conformance.trial import PROFILES

    blocks, dtypes = ([value] if isinstance(value, str) else value for value in (block, dtype))
    if message := unknown_block(blocks):
        raise ValueError(f"block {message}")
    for name, given, known in (("profile", [profile], PROFILES), ("dtype", dtypes or (), DTYPES)):
        if unknown := [value for value in given if value not in known]:
            raise ValueError(f"{name} {unknown[0]!r}: expected one of {', '.join(known)}")
    loaded = load(subject, framework, device)
    with tempfile.TemporaryDirectory() as out:
        options = {"subject": loaded.name, "block": block, "profile": profile, "dtype": dtype, "seed": seed, "out": out}
        options["device"] = device
        _, session = run(options, 0, object=loaded, write=False)
        if session is None or session.report is None:
            raise SubjectError((session and session.subject_error) or "the checks could not be run")
        for record in session.report["results"]:  # the folder is temporary: hand over the scripts themselves
            failure = record["failure"]
            if failure and failure["script"]:
                failure["script"] = Path(failure["script"]).read_text("utf-8")
        return session.report

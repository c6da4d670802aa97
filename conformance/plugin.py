"""The pytest side: options, the fixture `trial`, and what workers send back.

Every pytest loads it where nnspec is installed, so it imports nothing until a check is collected.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from nnspec.adapters.names import DTYPES, adapters
from nnspec.conformance import checks
from nnspec.conformance.sizes import REGIMES

if TYPE_CHECKING:
    from nnspec.adapters.subject import Subject
    from nnspec.conformance.report.waivers import Waiver
    from nnspec.conformance.requirements import Check
    from nnspec.conformance.session import Session
    from nnspec.conformance.trial.journal import Journal


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the checks."""
    group = parser.getgroup("nnspec")
    group.addoption(
        "--nnspec-subject",
        default="reference",
        metavar="SUBJECT",
        help=f"{', '.join(adapters())}, or a file.py[:name]",
    )
    group.addoption("--nnspec-framework", default=None, help="the adapter for a file that does not tell which")
    group.addoption("--nnspec-device", default=None, help="where the framework makes its arrays, such as cuda or cpu")
    group.addoption("--nnspec-profile", default="quick", choices=("quick", "ci", "deep"), help="how many cases")
    group.addoption("--nnspec-sizes", default=None, choices=tuple(REGIMES), help="which cases beside small ones")
    group.addoption("--nnspec-seed", default=0, type=int, help="the same seed gives the same cases")
    group.addoption(
        "--nnspec-dtype",
        action="append",
        default=None,
        choices=DTYPES,
        help=f"{', '.join(DTYPES)}; may be repeated",
    )
    group.addoption("--nnspec-block", action="append", default=None, help="check these blocks alone; may be repeated")
    group.addoption("--nnspec-domain", action="append", default=None, help="such as conv2d.stride=1, or JSON")
    group.addoption("--nnspec-timeout", default=30.0, type=float, help="seconds after which a call counts as hung")
    group.addoption("--nnspec-memory", default=4.0, type=float, help="GiB that a worker process may take")
    group.addoption("--nnspec-waivers", default=None, help="a TOML file of known deviations")
    group.addoption("--nnspec-out", default="nnspec-report", help="folder for report.json and the scripts")
    group.addoption("--nnspec-json", default=None, help="where to write the report (default: OUT/report.json)")
    group.addoption("--nnspec-journals", default=None, help="(set for workers)")


def pytest_configure(config: pytest.Config) -> None:
    """In the process that reports: a Session, which collects the records."""
    config.addinivalue_line("markers", "nnspec: a check of a requirement of the specification")
    for name, value in json.loads(getattr(config, "workerinput", {}).get("nnspec_options", "{}")).items():
        setattr(config.option, f"nnspec_{name}", value)
    if config.getoption("nnspec_journals") is not None:
        _stay_in_folder(config)
    if _is_own_worker(config):
        from nnspec.conformance.system.processes import become_worker

        become_worker(getattr(config, "workerinput", {})["nnspec_parent"])
    if not hasattr(config, "workerinput") and _asked_for(config):
        from nnspec.conformance.endings import Crashes, Starts
        from nnspec.conformance.requirements import unknown_block
        from nnspec.conformance.session import Session
        from nnspec.conformance.system.folder import OutputError
        from nnspec.conformance.workers import Workers

        if message := unknown_block(config.getoption("nnspec_block")):
            raise pytest.UsageError(f"--nnspec-block {message}")
        for name in ("timeout", "memory"):
            if not 0 < config.getoption(f"nnspec_{name}") < math.inf:
                raise pytest.UsageError(f"--nnspec-{name}: expected a finite number above 0")
        try:
            session = Session(config)
        except OutputError as error:
            raise pytest.UsageError(str(error)) from None
        config.pluginmanager.register(session, "nnspec-session")
        workers = Workers(session)
        for plugin in (workers, Starts(workers), Crashes(workers)):
            config.pluginmanager.register(plugin)


def _stay_in_folder(config: pytest.Config) -> None:
    """Have pytest end where it is, and not return to a working directory that may be gone by then."""
    given = config.invocation_params
    config.invocation_params = type(given)(args=given.args, plugins=given.plugins, dir=Path("."))


def _asked_for(config: pytest.Config) -> bool:
    """Whether this run is a run of checks: by `--pyargs nnspec.conformance`, by a path, or by the command line."""
    return any("conformance" in str(arg) for arg in config.args) or config.getoption("nnspec_journals") is not None


class _State:
    """What a process that runs checks has loaded."""

    subject: Subject | None = None
    error: str | None = None
    journal: Journal | None = None
    waivers: Sequence[Waiver] = ()
    canary: Any = None  # what tells that a call has spoilt this process
    suspicion: Any = None  # what is known so far of the causes of failures


_STATE = pytest.StashKey[_State]()


def _state(config: pytest.Config) -> _State:
    if _STATE not in config.stash:
        # before the subject is loaded: Hypothesis asks for the working directory, which the subject may take away
        import hypothesis.stateful  # noqa: F401
        import nnspec.conformance.trial.run  # noqa: F401

        config.stash[_STATE] = state = _State()
        state.journal = _journal(config)
        _load(config, state)
    return config.stash[_STATE]


def _journal(config: pytest.Config) -> Journal | None:
    worker = getattr(config, "workerinput", {})
    folder = worker.get("nnspec_journals")
    if not folder:
        return None
    from nnspec.conformance.trial.journal import Journal

    return Journal(Path(folder) / worker["workerid"])


def _load(config: pytest.Config, state: _State) -> None:
    from nnspec.adapters import SubjectError, load
    from nnspec.adapters.names import files_of
    from nnspec.adapters.trying import at_once
    from nnspec.conformance.checks.typical import with_typical_calls
    from nnspec.conformance.report import waivers
    from nnspec.conformance.requirements import unknown_declaration
    from nnspec.conformance.system import signals
    from nnspec.conformance.system.legible import legible
    from nnspec.conformance.system.sources import sources

    before = set(sys.modules)
    subject, asked = config.getoption("nnspec_subject"), config.getoption("nnspec_dtype")
    if state.journal:
        state.journal.note(f"loading {subject}")
    try:
        state.waivers = waivers.load(config.getoption("nnspec_waivers"))  # the subject may change the working directory
        framework, device = config.getoption("nnspec_framework"), config.getoption("nnspec_device")
        watch = state.journal.attempt if state.journal else at_once
        profile = config.getoption("nnspec_profile")
        loaded = load(getattr(config, "nnspec_object", subject), framework, device, watch, profile=profile)
        loaded = _restricted(loaded, config.getoption("nnspec_domain"))
        stems = ("", *loaded.of_block, *loaded.domains)
        known = {dtype for stem in stems for dtype in loaded.within(stem).known_dtypes}
        if asked and not known & {*asked}:
            has = ", ".join(dtype for dtype in DTYPES if dtype in known)
            raise SubjectError(f"{subject}: says that it has {has}, and not {', '.join(asked)}")
        if message := unknown_declaration(loaded):
            raise SubjectError(message)
        loaded = with_typical_calls(loaded, config.getoption("nnspec_block"))
        ours = loaded.name in adapters()  # these are known to be callable, and to take what the pages say
        state.subject = loaded if ours else _limited(config, state, _called(config, state, loaded, watch), watch)
    except (SubjectError, waivers.WaiverError, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            if not signals.raised_by_subject():
                raise
            error = SubjectError(f"{subject}: raises KeyboardInterrupt while it is imported")
        state.error = str(error)
        if state.journal:  # nothing more is to be had from this worker
            state.journal.note(f"cannot load: {legible(state.error)}")
            os._exit(1)
    else:
        asked_for = config.getoption("nnspec_block") or loaded.domains
        domains = {stem: str(own) for stem, own in loaded.domains.items() if own and stem in asked_for}
        identity = {
            "versions": dict(loaded.versions),
            "sources": sources(before, files_of(subject)),
            "domains": domains,
        }
        if state.journal:
            state.journal.loaded(identity)
        elif session := config.pluginmanager.getplugin("nnspec-session"):
            session.loaded = identity
    if state.journal:
        state.journal.rest()


def _called(config: pytest.Config, state: _State, subject: Subject, watch: Any) -> Subject:
    """Return the subject, which knows what cannot be called. A process that a typical call has spoilt ends here."""
    from nnspec.adapters.fresh import in_fresh_process
    from nnspec.adapters.trying import Spoilt, Tried, uncallable
    from nnspec.conformance.trial.canary import Canary

    spec, framework, device = (config.getoption(f"nnspec_{name}") for name in ("subject", "framework", "device"))
    tried = Tried(None if hasattr(config, "nnspec_object") else in_fresh_process(spec, framework, device))
    state.canary = Canary()
    try:
        return uncallable(subject, config.getoption("nnspec_block"), watch, tried)
    except Spoilt as call:
        if state.journal:
            from nnspec.conformance.trial.journal import TRYING

            state.journal.note(f"{TRYING}{call}")  # the next worker goes without this call
            os._exit(1)
        state.canary.spoilt = f"every call raises since {call}"
        return subject
    finally:
        state.canary.typical = tried.returned


def _limited(config: pytest.Config, state: _State, subject: Subject, watch: Any) -> Subject:
    """Return the subject, which knows the limits that its calls show, unless a call has spoilt this process."""
    from nnspec.adapters.narrowing import narrowed
    from nnspec.adapters.orders import in_other_orders
    from nnspec.conformance.checks.typical import with_typical_calls

    if state.canary.spoilt:
        return subject
    blocks = config.getoption("nnspec_block")
    return with_typical_calls(narrowed(in_other_orders(subject, blocks, watch), blocks, watch), blocks)


def _restricted(subject: Subject, texts: Sequence[str] | None) -> Subject:
    """Return the subject with the conditions of the option --nnspec-domain on top of its own."""
    from nnspec.adapters import SubjectError
    from nnspec.adapters.domains import DomainError, read_options

    try:
        return subject.restricted(read_options(texts)) if texts else subject
    except DomainError as error:
        raise SubjectError(f"--domain {error}") from None


def _is_own_worker(config: pytest.Config) -> bool:
    """Whether this is a worker of the command line, in which nothing runs but checks."""
    return hasattr(config, "workerinput") and config.getoption("nnspec_journals") is not None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Mark the first checks, and freeze loaded objects so that the garbage collector skips them: 10 % of the run."""
    if not _known(session.config):
        _mark_first(session.items)
    if _is_own_worker(session.config):
        gc.freeze()


def _mark_first(items: Sequence[pytest.Item]) -> None:
    """Have the first check of a block in a form and dtype also look for results that differ from call to call."""
    seen: set[tuple[str, ...]] = set()
    for item in items:
        if result := _result(item):
            stem, (_, form, dtype) = _check(item).stem, result
            item.nnspec_first = {(stem, form), (stem, form, dtype)} - seen  # type: ignore[attr-defined]
            seen |= {(stem, form), (stem, form, dtype)}


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """A worker that has told everything ends at once: to take a framework apart takes a second."""
    if _is_own_worker(config):
        os._exit(0)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Checks of blocks that are not asked for, or that the subject does not have, need not be imported."""
    blocks, stem = config.getoption("nnspec_block"), checks.stem_of(collection_path)
    if not stem:
        return None
    if blocks and stem not in blocks:
        return True
    subject = _state(config).subject
    return True if subject is not None and not subject.forms(stem) else None


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> list[pytest.Item] | None:
    """Make no test of a check that does not apply to the subject: for a file of one layer these are most checks."""
    check = getattr(obj, "check", None) if name.startswith("test") else None
    return None if check is None or _chosen(collector.config, check) else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per form and dtype of the subject."""
    check = getattr(metafunc.function, "check", None)
    if check is not None:
        chosen = _chosen(metafunc.config, check)
        metafunc.parametrize("trial", chosen, ids=[f"{form}-{dtype}" for form, dtype in chosen], indirect=True)


def _chosen(config: pytest.Config, check: Check) -> list[tuple[str, str]]:
    """In which forms and dtypes a check is to be run."""
    from nnspec.conformance.trial.run import forms

    state, blocks = _state(config), config.getoption("nnspec_block")
    if state.subject is None or (blocks and check.stem not in blocks):
        return []
    subject = state.subject.within(check.stem)
    asked = config.getoption("nnspec_dtype") or check.dtypes_of(subject, config.getoption("nnspec_profile"))
    able = [dtype for dtype in dict.fromkeys(asked) if dtype in subject.known_dtypes and dtype in check.dtypes]
    wanted = forms(subject, check)
    return [(form, dtype) for form in wanted for dtype in (able if check.per_dtype else able[:1])]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the checks that do not apply to the subject; under xdist, tell of a subject that cannot be loaded."""
    if _STATE not in config.stash:
        return
    state = _state(config)
    if state.error and not hasattr(config, "workeroutput"):
        session = config.pluginmanager.getplugin("nnspec-session")
        if session is None:
            raise pytest.UsageError(state.error)
        session.subject_error = state.error
    applying, known = [item for item in items if _applies(item, config)], _known(config)
    if known:
        _mark_first(applying)  # what the earlier run has found out with them is in its log
    kept = [item for item in applying if _result(item) not in known]
    if dropped := [item for item in items if item not in set(kept)]:
        items[:] = kept
        config.hook.pytest_deselected(items=dropped)


def _known(config: pytest.Config) -> set[tuple[str, str, str]]:
    """The results of the run that this one goes on with."""
    session: Session | None = config.pluginmanager.getplugin("nnspec-session")
    if session is not None:
        return session.known
    return set(map(tuple, json.loads(getattr(config, "workerinput", {}).get("nnspec_known", "[]"))))


def _result(item: pytest.Item) -> tuple[str, str, str] | None:
    """Which result a check gives: requirement, form, dtype."""
    trial = item.callspec.params.get("trial") if _check(item) and hasattr(item, "callspec") else None
    return (_check(item).identifier, *trial) if isinstance(trial, tuple) else None


def _applies(item: pytest.Item, config: pytest.Config) -> bool:
    """Checks that were given a form and a dtype; tests of the checks themselves only where the reference is judged."""
    check = _check(item)
    if check is None:
        stem = checks.stem_of(item.path)
        itself = config.getoption("nnspec_journals") is None and config.getoption("nnspec_subject") == "reference"
        blocks = config.getoption("nnspec_block")
        return not stem or (itself and (not blocks or stem in blocks))
    return _state(config).subject is not None and _result(item) is not None


def _check(item: pytest.Item) -> Any:
    return getattr(getattr(item, "function", None), "check", None)


def _go_on(state: _State) -> None:
    """End a worker in which every call raises since an earlier check: another one takes its place."""
    if state.canary.spoilt and state.journal:
        from nnspec.conformance.trial.journal import ANEW

        state.journal.note(ANEW)
        os._exit(1)


def _tell(identifier: str, outcome: Any, entry: Mapping[str, Any]) -> None:
    """Raise what pytest understands, unless the check has passed."""
    if entry["verdict"] in ("waived", "differs by design"):
        pytest.xfail(f"{identifier}: {entry['reason']}")
    if outcome.verdict == "pass" and entry["verdict"] == "fail":
        pytest.fail(f"{identifier}: {entry['reason']}", pytrace=False)
    if outcome.failure is not None:
        text = f"{identifier}: {entry['sentence']}\n  {entry['reason']}\n  {entry['failure']['case']['call']}"
        if entry["level"] != "must":  # worth knowing, and no reason to fail
            pytest.xfail(f"{entry['level']}: {text}")
        pytest.fail(text, pytrace=False)
    if outcome.verdict != "pass":
        pytest.skip(f"{outcome.verdict}: {entry['reason']}")
    if (other := entry.get("elsewhere")) and other["verdict"] == "fail" and other["level"] == "must":
        pytest.fail(f"{other['requirement']}: {other['sentence']}\n  {other['reason']}", pytrace=False)


@pytest.fixture
def trial(request: pytest.FixtureRequest) -> Any:
    """Runs a check against the subject, keeps the record for the report, and raises what pytest understands."""
    from nnspec.conformance.checks.steady import unsteady
    from nnspec.conformance.report.diagnosis import Suspicion
    from nnspec.conformance.report.report import differing, record, waived
    from nnspec.conformance.system.legible import legible
    from nnspec.conformance.trial import run as running
    from nnspec.conformance.trial.canary import Canary
    from nnspec.conformance.trial.record import Outcome
    from nnspec.conformance.trial.trial import Trial

    state, config = _state(request.config), request.config
    form, dtype = request.param
    assert state.subject is not None
    subject = state.subject.within(_check(request.node).stem)
    profile, seed, sizes = (config.getoption(f"nnspec_{name}") for name in ("profile", "seed", "sizes"))
    first = _chosen(config, _check(request.node))[0] == (form, dtype)
    state.canary = state.canary or Canary()
    state.suspicion = state.suspicion or Suspicion()
    _go_on(state)
    session = Trial(subject, form, dtype, profile, seed, state.journal, sizes or "", first, canary=state.canary)

    def run(check: Any) -> None:
        difference = subject.differs.get(check.identifier)
        check = check.under(difference.alternative if difference else "")
        first, differs = request.node.nnspec_first, None
        if state.journal:
            state.journal.begin(check.identifier, form, dtype)
        if state.canary.spoilt:
            outcome = Outcome("not run", reason=f"{state.canary.spoilt}; with workers, a new process goes on")
        elif state.journal and state.journal.blocked(check.stem, form):
            outcome = Outcome("blocked", reason=f"{check.stem} crashed or hung twice as a {form}")
        elif refused := subject.uncallable.get((check.stem, form)):
            outcome = running.refused(session, check, refused)
        else:
            if first:
                differs = unsteady(session, check.stem, gradients=(check.stem, form) in first)
            outcome = running.run(session, check)
        if state.journal:
            state.journal.rest()

        def recorded(check: Any, outcome: Any) -> Any:
            entry = differing(record(check, subject, form, dtype, outcome, state.suspicion))
            return legible(waived(entry, state.waivers, subject.name))

        request.node.nnspec_record = entry = recorded(check, outcome)
        if outcome.elsewhere:
            entry["elsewhere"] = recorded(*outcome.elsewhere) | {"found_by": check.identifier}
        if differs:
            entry["unsteady"] = legible(differs)
        _tell(check.identifier, outcome, entry)

    return run


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Attach the record to the report, which travels between processes."""

    outcome = yield
    if call.when == "call" and _check(item) is not None:
        report = outcome.get_result()
        entry = getattr(item, "nnspec_record", None)
        if entry is None:
            report.nnspec_error = f"{item.nodeid}: {_trace(call.excinfo.value)}" if call.excinfo else ""
            report.longrepr = report.nnspec_error  # may be anything, and has to cross, too
        else:
            report.nnspec = json.dumps(entry, allow_nan=False)  # text crosses whole; numbers would have to fit
            item.user_properties += [  # JUnit's report reads them after the teardown
                ("requirement", entry["requirement"]),
                ("verdict", entry["verdict"]),
                ("cases", entry["cases"]),
            ]


def _trace(error: BaseException) -> str:
    """Return the end of an exception's traceback, as Python prints it."""
    import traceback

    from nnspec.conformance.system.legible import LONGEST, legible

    whole: str = legible("".join(traceback.format_exception(error, limit=-8))[-LONGEST:])
    return whole

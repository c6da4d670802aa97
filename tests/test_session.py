"""How a run keeps its count, and what it calls its own failure."""

from __future__ import annotations

import json
from types import SimpleNamespace

from nnspec.conformance.session import Session
from nnspec.conformance.system.log import Log


def session():
    return Session(SimpleNamespace(nnspec_log=Log()))


def done(when="call", **entry):
    about = {"requirement": "relu.output.size", "form": "function", "dtype": "float32", "failure": None}
    return SimpleNamespace(when=when, failed=False, nnspec=json.dumps(about | entry))


def test_run_is_complete_when_each_planned_check_has_come_to_its_end():
    run = session()
    assert not run.is_complete
    run.planned = 2
    run.pytest_runtest_logreport(done())
    run.pytest_runtest_logreport(done("teardown"))
    assert not run.is_complete
    run.pytest_runtest_logreport(done(dtype="float64"))
    assert run.is_complete
    assert len(run.log.records) == 2


def test_checks_that_cannot_be_imported_are_an_error():
    run = session()
    run.pytest_collectreport(SimpleNamespace(failed=False, nodeid="test_relu.py", longrepr=None))
    assert run.log.errors == []
    run.pytest_collectreport(SimpleNamespace(failed=True, nodeid="test_relu.py", longrepr="ImportError: relu"))
    assert run.log.errors == ["test_relu.py: ImportError: relu"]


def test_file_that_changes_while_it_is_checked_is_an_error():
    run = session()
    for digest in ("a", "a", "b"):
        assert run.log.errors == []
        run.notice({"versions": {}, "sources": {"layers.py": digest}})
    assert run.log.errors == ["layers.py was changed while it was checked; check it again"]

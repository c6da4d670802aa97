"""Examples on the pages and in the README are tests; some tests are quick; and `pytest -n` hands tests out by file."""

import os

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser
from xdist.scheduler import LoadScopeScheduling

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # threads that wait for one another cost more than they save
    os.environ.setdefault(name, "1")

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["spec/*.md", "README.md"]).pytest()

QUICK = (  # a part of every room, which `pytest -m quick` runs in a minute: the beginnings of the tests' names
    "README.md",
    "spec/conventions.md",
    "spec/relu.md",
    "conformance/checks/test_relu.py",
    "tests/reference/test_linear.py",
    "tests/reference/test_relu.py",
    "tests/test_broken.py",
    "tests/test_comparisons.py",
    "tests/test_contract.py::test_an_installed_adapter_is_a_subject",
    "tests/test_declarations.py",
    "tests/test_faults.py::test_every_fault_is_killed_and_its_script_tells_wrong_from_right[relu]",
    "tests/test_faults.py::test_no_fault_that_was_ever_killed_is_lost",
    "tests/test_findings.py",
    "tests/test_formats.py",
    "tests/test_matrix.py::test_subjects_stand_side_by_side",
    "tests/test_origins.py",
    "tests/test_picture.py",
    "tests/test_power.py::test_the_score_is_printed_and_written",
    "tests/test_records.py::test_the_log_has_what_the_report_has",
    "tests/test_rule_pool.py",
    "tests/test_source.py",
    "tests/test_trace.py",
)


def pytest_addoption(parser):
    """`--long`: what takes too long for every change."""
    parser.addoption("--long", action="store_true", help="all seeds, sizes and smallest cases, which takes an hour")


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(items):
    """Mark what is quick."""
    for item in items:
        if item.nodeid.startswith(QUICK):
            item.add_marker("quick")


class PageByPage(LoadScopeScheduling):
    """The examples on one page share their names, so one worker runs them all.

    The thousands of short tests of the reference are handed out by file as well: one by one takes longer than to run
    them. Any other test stands alone.
    """

    def _split_scope(self, nodeid: str) -> str:
        path, _, _ = nodeid.partition("::")
        return path if path.endswith(".md") or path.startswith("tests/reference/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """How `pytest -n` hands out tests, unless `--dist` says otherwise."""
    return PageByPage(config, log) if config.getoption("dist") == "load" else None

"""The examples on the pages of the specification and in the README are tests."""

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser
from xdist.scheduler import LoadScopeScheduling

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["spec/*.md", "README.md"]).pytest()


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

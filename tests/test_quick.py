"""The tests that `pytest -m quick` selects."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_each_folder_has_quick_tests(desk, pytestconfig):
    quick = pytestconfig.pluginmanager.get_plugin(str(ROOT / "conftest.py")).QUICK
    files = sorted({name.partition("::")[0] for name in quick})
    options = ("--collect-only", "-q", "-m", "quick", "-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider")
    done = desk.run("-m", "pytest", *options, *(ROOT / file for file in files))
    found = [line for line in done.out.splitlines() if "::" in line]
    assert not [name for name in quick if not any(test.startswith(name) for test in found)], done.out
    folders = {Path(test.partition("::")[0]).parent.as_posix() for test in found}
    assert folders == {".", "spec", "conformance/checks", "tests", "tests/reference"}

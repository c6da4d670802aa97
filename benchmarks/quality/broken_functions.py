"""Does a test fail if a function returns nothing?

    python benchmarks/quality/broken_functions.py [--file conformance/report/script.py]… [--test tests/test_cli.py]…

In a copy of the repository, each function and method of the files is broken once: it returns an empty value of the type
that it declares (None, "", [], {}, 0; for bool once False and once True), or, if it is a generator, yields nothing.
Then the tests that call the function run, the fastest first, until one fails. The program prints each function that no
test calls, and each that can be broken without a failing test.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ("conformance/report/*.py", "conformance/session.py", "adapters/loading.py")
TESTS = "broken cli diagnosis findings matrix picture plain_pytest python_api script session"
TESTS += " subjects terminal unsteady verdicts waivers"
EMPTY = {"str": '""', "list": "[]", "dict": "{}", "Record": "{}", "tuple": "()", "set": "set()", "int": "0"}
RUNTIME = """
import os, pathlib
HERE, BROKEN, met = pathlib.Path(__file__).parent, os.environ.get("NNSPEC_BROKEN"), set()
def note(file, text, mode="a"):
    with open(HERE / file, mode) as stream:
        stream.write(text)
def broken(*keys):  # or, if no function is broken, note which test calls this one
    if BROKEN is None and not met.issuperset(keys):
        met.update(keys)
        note("calls", "".join(f"{(HERE / 'test').read_text()}\\t{key}\\n" for key in keys))
    return keys.index(BROKEN) if BROKEN in keys else None
def pytest_runtest_logstart(nodeid):
    met.clear()
    note("test", nodeid, "w")
def pytest_runtest_logreport(report):
    note("times", f"{report.nodeid}\\t{report.duration}\\n")
"""


class Instrument(ast.NodeTransformer):
    """Put a statement in front of each function of a file, which returns an empty value if the function is broken."""

    def __init__(self, file: str) -> None:
        self.names, self.keys = [file], list[str]()

    def visit_ClassDef(self, node: ast.ClassDef | ast.FunctionDef) -> ast.AST:
        self.names.append(node.name)
        self.generic_visit(node)
        self.names.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.visit_ClassDef(node)
        declared = ast.unparse(node.returns).partition("[")[0] if node.returns else ""
        yields = any(isinstance(inner, ast.Yield | ast.YieldFrom) for inner in ast.walk(node))
        values = [""] if yields else ["False", "True"] if declared == "bool" else [EMPTY.get(declared, "None")]
        keys = [f"{' '.join([*self.names, node.name])} returns {value or 'nothing'}" for value in values]
        self.keys += keys
        cases = "".join(f"\n case {n}: return {value}" for n, value in enumerate(values))
        place = int(ast.get_docstring(node) is not None)
        node.body[place:place] = ast.parse(f"match __import__('nnspec_broken').broken(*{keys}):{cases}").body
        return node


def copied(folder: Path, patterns: list[str] | tuple[str, ...]) -> list[str]:
    """Copy the repository, instrument the files, and return the key of each way to break a function."""
    keys = []
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes((ROOT / name).read_bytes())
        if any(Path(name).match(pattern) for pattern in patterns):
            instrument = Instrument(name)
            tree = instrument.visit(ast.parse((ROOT / name).read_text("utf-8")))
            (folder / "tree" / name).write_text(ast.unparse(ast.fix_missing_locations(tree)), "utf-8")
            keys += instrument.keys
    (folder / "nnspec").mkdir()  # comes before an installed one
    for room in ("spec", "reference", "adapters", "conformance"):
        (folder / "nnspec" / room).symlink_to(folder / "tree" / room)
    (folder / "nnspec_broken.py").write_text(RUNTIME, "utf-8")
    for name in ("test", "calls", "times"):  # see RUNTIME
        (folder / name).touch()
    return keys


def run(folder: Path, tests: list[str], **environment: str) -> int:
    """Run tests of the copy, and return the exit code."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "nnspec_broken", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), **environment}
    return subprocess.run(command, cwd=folder / "tree", env=environment, capture_output=True).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", action="append", help="a file of the product, or a pattern")
    parser.add_argument("--test", action="append", help="a file of tests, or one test")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = copied(folder, options.file or FILES)
        if code := run(folder, options.test or [f"tests/test_{name}.py" for name in TESTS.split()]):
            sys.exit(f"the tests end with {code} where no function is broken")
        times, callers = defaultdict[str, float](float), defaultdict[str, set[str]](set)
        for test, _, seconds in (line.rpartition("\t") for line in (folder / "times").read_text().splitlines()):
            times[test] += float(seconds)
        for test, _, key in (line.partition("\t") for line in (folder / "calls").read_text().splitlines()):
            callers[key] |= {test} & times.keys()
        for key in keys:
            tests = sorted(callers[key], key=times.__getitem__)
            if not tests or run(folder, tests, NNSPEC_BROKEN=key) == 0:
                print(f"{key}: {'survived' if tests else 'no test calls it'}", flush=True)


if __name__ == "__main__":
    main()

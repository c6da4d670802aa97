"""`desk`: nnspec run as a user runs it, in a folder of its own."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from jsonschema import Draft202012Validator

SCHEMA = json.loads(resources.files("nnspec.conformance.report").joinpath("report.schema.json").read_text("utf-8"))
HANGS = 600  # seconds after which a command does not return: many times what it takes on a machine with other work
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
NOT_PASSED_ON = ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_CURRENT_TEST")
for name in (*NOT_PASSED_ON, "PYTHONDONTWRITEBYTECODE"):  # to compile nnspec anew takes a third of a short command
    ENVIRONMENT.pop(name, None)


@dataclass
class Done:
    """What a run left behind."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        """report.json, which is held against its schema whenever a test reads it."""
        return Desk.valid(json.loads((self.folder / "nnspec-report" / "report.json").read_text("utf-8")))

    @property
    def findings(self) -> list[str]:
        """The lines after "requirements broken", without those about consequences."""
        lines = (line for line in self.out.splitlines() if not line.startswith("    from which may follow: "))
        return next((list(lines) for line in lines if "broken" in line and line[0].isdigit()), [])

    def verdicts(self, verdict: str) -> set[str]:
        """The requirements with a verdict."""
        return {r["requirement"] for r in self.report["results"] if r["verdict"] == verdict}


class Forks:
    """A process that has imported nnspec, and forks for each command."""

    def __enter__(self) -> Forks:
        command = [sys.executable, Path(__file__).with_name("forking.py")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=ENVIRONMENT, bufsize=0, start_new_session=True, **pipes)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def run(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
        """Return the exit code of a command, its output and what it wrote to standard error."""
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            asked = {"arguments": arguments, "folder": str(folder), "environment": environment}
            text = json.dumps(asked | {"out": out.name, "err": err.name})
            self.process.stdin.write(text.encode() + b"\n")
            if not select.select([self.process.stdout], [], [], HANGS)[0]:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise TimeoutError(f"nnspec {arguments}: did not return within {HANGS} s")
            return int(self.process.stdout.readline()), out.read().decode(), err.read().decode()


class Desk:
    """A folder with files in it, and commands run there."""

    @staticmethod
    def valid(report: dict[str, Any]) -> dict[str, Any]:
        """The report, held against the published schema."""
        errors = [f"{e.json_path}: {e.message[:200]}" for e in Draft202012Validator(SCHEMA).iter_errors(report)]
        assert not errors, "\n".join(errors)
        return report

    @staticmethod
    def timeless(report: dict[str, Any]) -> dict[str, Any]:
        """A report without what differs from run to run."""
        results = [{**entry, "seconds": 0} for entry in report["results"]]
        return {**report, "seconds": 0, "results": results}

    def __init__(self, folder: Path, forks: Forks | None = None) -> None:
        self.folder, self.forks = folder, forks
        self.environment = {**ENVIRONMENT, "DESK": str(folder)}  # marks every process that is started from here

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(dedent(text), "utf-8")
        return path

    def run(self, *command: Any, timeout: float = HANGS, **environment: str) -> Done:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Done(done.returncode, done.stdout, done.stderr, self.folder)

    def nnspec(self, *arguments: Any, **options: Any) -> Done:
        """Run the command; in a process that is forked, which saves a second, if nothing changes what it imports."""
        if self.forks is None or options or "PYTHONPATH" in self.environment:
            return self.run("-m", "nnspec.conformance.cli", *arguments, **options)
        return Done(*self.forks.run([*map(str, arguments)], self.folder, self.environment), self.folder)

    def check(self, text: str, *arguments: Any, **options: Any) -> Done:
        self.write("layers.py", text)
        return self.nnspec("check", "layers.py", *arguments, **options)


@pytest.fixture
def long(request):
    """Whether this is a run of all night, by `pytest --long`."""
    return request.config.getoption("long")


@pytest.fixture(scope="session")
def forks():
    with Forks() as running:
        yield running


@pytest.fixture
def desk(tmp_path, forks):
    return Desk(tmp_path, forks)


CONVOLUTION = Path(__file__).parents[1] / "examples" / "protocol" / "conv2d.c"
FAULTS = {  # name -> replacements in conv2d.c
    "right": {},  # none
    "tail": {"begin < call->ow;": "begin == 0 || begin + TILE <= call->ow;"},
    "ends": {
        "static void forward(const conv *call) {": "static void forward(const conv *call) {\n"
        '    if (!call->n) fputs("tile 0 of 0\\n", stderr), *(volatile char *)NULL = 0;',
        "static void gradients(const conv *call, const nnspec_array *cotangent) {": "static void gradients("
        "const conv *call, const nnspec_array *cotangent) {\n    while (!call->n) continue;",
        '        if (call->stride[axis] < 1) return "stride: expected at least 1";\n': "",
    },
}


@pytest.fixture(scope="session")
def convolutions(tmp_path_factory):
    """Convolutions in C, by the names of their faults, in tiles of 4 columns."""
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc")
    folder, source = tmp_path_factory.mktemp("c"), CONVOLUTION.read_text()
    compiling = []
    for name, changes in FAULTS.items():
        text = source
        for right, wrong in changes.items():
            assert right in text
            text = text.replace(right, wrong)
        (folder / f"{name}.c").write_text(text)
        options = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-DTILE=4", f"-I{CONVOLUTION.parent}"]
        compiling.append(subprocess.Popen(["gcc", *options, "-o", folder / name, folder / f"{name}.c"]))
    assert [process.wait() for process in compiling] == [0] * len(compiling)
    return folder

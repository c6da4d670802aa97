"""An identifier is a name and nothing else: what a check does is in its fields and on its page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from nnspec.adapters import load
from nnspec.conformance import requirements as pages
from nnspec.conformance.report import waivers
from nnspec.conformance.requirements import RESTS_ON, requirements, unknown_declaration, withdrawn

LEAF = re.compile(r"\b(?P<stem>[a-z0-9_]+)\.(?P<rest>[a-z0-9-]+\.[a-z0-9-]+)(?![a-z0-9-])")
# Prints the fields of every check, and what the checks of relu say of some of its faults, seeds being equal
PROBE = """
import json, sys, warnings
from nnspec.conformance.checks import load_checks
from nnspec.conformance.faults import catalogue
from nnspec.conformance.requirements import CHECKS, requirements
from nnspec.conformance.trial import run, trial

assert trial.__file__.startswith(sys.argv[1])
load_checks()
warnings.simplefilter("ignore")
number = {name: n for n, name in enumerate(CHECKS)}
run.seed_of = lambda trial, check: number[check.identifier]
fields = ("effort", "shuffles", "refusal", "forms", "needs", "dtypes", "per_dtype", "decides")
checks = [[getattr(check, name) for name in fields] for check in CHECKS.values()]
faults = [f for f in catalogue().values() if f.stem == "relu"][::9]
said = []
for fault in faults:
    for check in (c for c in CHECKS.values() if c.stem == "relu"):
        for form in run.forms(fault.subject(), check):
            outcome = run.run(trial.Trial(fault.subject(), form, "float32"), check, simplify=False)
            said.append([outcome.verdict, outcome.cases, outcome.reason])
print(json.dumps({"checks": checks, "said": said}))
"""


def renamed(known: dict[str, str], text: str) -> str:
    """The text with every identifier of a requirement in it under its other name."""
    return LEAF.sub(lambda found: known.get(found[0], found[0]), text)


def probed(path: Path) -> dict:
    """What PROBE prints, run with the package in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_renaming_every_identifier_changes_nothing_but_seeds(tmp_path):
    known = {name: f"{name.split('.')[0]}.a{n}.b{n}" for n, name in enumerate(requirements())}
    for package in ("spec", "reference", "adapters", "conformance"):
        for copy, names in (("as-is", {}), ("renamed", known)):
            folder = Path(str(resources.files(f"nnspec.{package}").joinpath("__init__.py"))).parent
            shutil.copytree(folder, tmp_path / copy / "nnspec" / package, ignore=shutil.ignore_patterns("__pycache__"))
            for file in (tmp_path / copy / "nnspec" / package).rglob("*"):
                if names and file.suffix in (".md", ".py"):
                    file.write_text(renamed(names, file.read_text("utf-8")), "utf-8")
    before, after = probed(tmp_path / "as-is"), probed(tmp_path / "renamed")
    assert len(before["said"]) > 50
    assert {verdict for verdict, *_ in before["said"]} >= {"pass", "fail"}
    assert after == before


@pytest.fixture
def page_with_a_tombstone(monkeypatch):
    own = dict(pages.pages())
    own["relu"] += (
        "\n## Withdrawn\n\n- `relu.zero.kept`: now `relu.negative.zero`.\n"
        "- `relu.slope.any`: no successor,\n  since a slope is another block.\n"
    )
    for cached in (requirements, withdrawn):
        cached.cache_clear()
    monkeypatch.setattr(pages, "pages", lambda: own)
    yield
    monkeypatch.undo()
    for cached in (requirements, withdrawn):
        cached.cache_clear()


@pytest.mark.usefixtures("page_with_a_tombstone")
def test_declarations_and_waivers_that_name_a_withdrawn_requirement_are_told_its_successor(tmp_path):
    told = "relu.zero.kept was withdrawn: now `relu.negative.zero`."
    for name in ("UNSUPPORTED", "DIFFERS"):
        subject = load({"relu": lambda x: x, name: {"relu.zero.kept": "why"}}, "numpy")
        assert unknown_declaration(subject).endswith(f"{name}: {told}")
    (tmp_path / "waivers.toml").write_text(
        '[[waiver]]\nsubject = "*"\nrequirement = "relu.zero.kept"\nreason = "why"\n'
    )
    with pytest.raises(waivers.WaiverError, match=re.escape(told)):
        waivers.load(tmp_path / "waivers.toml")
    assert pages.no_such_requirement("relu.slope.any") == (
        "relu.slope.any was withdrawn: no successor, since a slope is another block."
    )


def test_line_of_several_names_is_read():
    assert RESTS_ON.search("text\n\nRests on: `a.b.c`, `d`,\n`e.f.g`")["names"] == "`a.b.c`, `d`,\n`e.f.g`"

"""Small subjects after public bug reports: the named check fails each of them, and passes it without its fault."""

import re
from pathlib import Path

import pytest
from nnspec.adapters.loading import load
from nnspec.conformance.checks import load_checks
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.run import forms, run
from nnspec.conformance.trial.trial import Trial

FILES = sorted((Path(__file__).parent / "bug_reports").glob("*.py"))
REQUIREMENT = re.compile(r"^Requirement: (\S+)$", re.M)


def verdicts(file, profile="ci"):
    load_checks()
    check = CHECKS[REQUIREMENT.search(file.read_text())[1]]
    subject = load(str(file))
    return {
        run(Trial(subject, form, "float32", profile=profile), check, simplify=False).verdict
        for form in forms(subject, check)
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_reported_bug_breaks_the_named_requirement(file, long, monkeypatch):
    pytest.importorskip("torch")
    assert "fail" in verdicts(file)
    monkeypatch.setenv("TWIN", "right")
    assert verdicts(file, "ci" if long else "quick") == {"pass"}

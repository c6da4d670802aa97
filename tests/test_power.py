"""`nnspec power`: the score on the terminal, as JSON, and in a page."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from nnspec.conformance.faults import origins
from nnspec.conformance.power import Verdict, assemble, faults_of, markdown, measure, recorded

SCHEMA = json.loads(resources.files("nnspec.conformance.report").joinpath("power.schema.json").read_text("utf-8"))


def valid(score):
    errors = [f"{e.json_path}: {e.message[:200]}" for e in Draft202012Validator(SCHEMA).iter_errors(score)]
    assert not errors, errors
    return score


def test_the_score_is_printed_and_written(desk):
    desk.write("page.md", "before\n<!-- score -->\nan old score\n<!-- /score -->\nbehind\n")
    power = ("power", "--block", "relu", "--profile", "quick", "--seeds", "2", "-n", "2")
    done = desk.nnspec(*power, "--json", "out/power.json", "--page", "page.md")
    assert done.code == 0
    faults = len(faults_of(["relu"]))
    assert f"{2 * faults} of {2 * faults} killed" in done.out
    score = valid(json.loads((desk.folder / "out" / "power.json").read_text("utf-8")))
    assert (score["faults"], score["runs"], score["killed"]) == (faults, 2 * faults, 2 * faults)
    assert all(0 < entry["cases_median"] <= entry["cases_worst"] for entry in score["requirements"])
    page = (desk.folder / "page.md").read_text("utf-8")
    assert page.startswith("before\n<!-- score -->\n")
    assert page.endswith("<!-- /score -->\nbehind\n")
    assert markdown(score) in page
    assert "an old score" not in page


def test_a_page_without_a_place_for_the_score_is_refused_before_the_work(desk):
    desk.write("page.md", "nothing here\n")
    for page in ("page.md", "missing.md"):
        done = desk.nnspec("power", "--block", "relu", "--profile", "quick", "--page", page, "-n", 0)
        assert done.code == 2
        assert f"--page {page}: expected a page with <!-- score -->" in done.err


def test_survivors_are_named_with_their_seeds():
    key, other = (fault.key for fault in faults_of(["relu"])[:2])
    runs = [Verdict(key, 0, True, "wrong", 3, 0.1), Verdict(key, 1, False, "pass", 40), Verdict(other, 0, True, "", 1)]
    score = valid(assemble(runs, "quick", 2, 1.0))
    assert (score["runs"], score["killed"]) == (3, 2)
    [survivor] = [s for entry in score["requirements"] for s in entry["survivors"]]
    assert (survivor["fault"], survivor["seeds"]) == (key, {"1": "pass"})


@pytest.mark.parametrize(
    "key",
    [faults_of(["relu"])[0].key, faults_of(["module"])[0].key, "module.life.equals-model/state-kept"],
    ids=["relu", "module", "state machine"],
)
def test_the_cases_that_it_took_are_counted(key):
    verdict = measure(key, "quick", 0)
    assert verdict.killed
    assert 1 <= verdict.cases <= 80
    assert measure(key, "quick", 0).cases == verdict.cases


def test_page_of_evidence_has_the_score_that_was_measured():
    """`python benchmarks/quality/measure_faults.py` writes the score and the files that the score is made from."""
    page = (Path(__file__).parents[1] / "spec" / "evidence.md").read_text("utf-8")
    assert markdown(assemble(recorded(), "ci", 5, 0)) in page
    assert f"{len(origins()['issues'])} bugs of" in page

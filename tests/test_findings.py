"""The order of findings: what was measured of every fault is there, and it names the mistake."""

from __future__ import annotations

import pytest
from measure_faults import musts
from naming import place
from nnspec.adapters.signatures import SIGNATURES
from nnspec.conformance.checks import load_checks
from nnspec.conformance.faults import broken_by_faults, catalogue, measured
from nnspec.conformance.power import faults_of
from nnspec.conformance.report.findings import consequences, findings, ranked

KNOWN = broken_by_faults()
FAULTS = [f for f in catalogue().values() if f.key in KNOWN]


@pytest.mark.parametrize("stem", sorted(SIGNATURES))
def test_every_fault_has_been_measured_and_breaks_its_own_requirement(stem):
    """`python benchmarks/quality/measure_faults.py --new` writes the entries that are missing."""
    faults, entries = faults_of([stem]), measured(stem)
    assert [f.key for f in faults] == [*entries]
    breaks = {key: {name.rstrip("!") for name in entry["breaks"]} for key, entry in entries.items()}
    assert [f.key for f in faults if f.decides and f.requirement.partition(".")[2] not in breaks[f.key]] == []
    assert [key for key, entry in entries.items() if None in entry["cases"]] == []


def test_every_requirement_that_a_fault_breaks_is_on_its_page():
    load_checks()
    for key, names in KNOWN.items():
        assert {name.rstrip("!") for name in names} <= {i.partition(".")[2] for i in musts(key.split(".")[0])}, key


@pytest.mark.parametrize(("apart", "least"), [(False, 0.99), (True, 0.94)], ids=["known", "as if unknown"])
def test_a_single_mistake_is_among_the_first_three(apart, least):
    """Of the known ones each as the report has it; and each with itself left out of what is known."""
    others = (({k: v for k, v in KNOWN.items() if k != f.key} if apart else KNOWN) for f in FAULTS)
    named = sum(place(f.key, known) <= 3 for f, known in zip(FAULTS, others, strict=True))
    assert named >= least * len(FAULTS)


def _broken(block, name, misshapen=False, boundaries=()):
    failure = {"misshapen": misshapen, "boundaries": boundaries}
    return {"requirement": f"{block}.{name}", "block": block, "level": "must", "verdict": "fail", "failure": failure}


def test_what_others_are_made_of_comes_before_them():
    records = [_broken("basic_block", "branch.value"), _broken("conv2d", "stride.step")]
    assert [r["block"] for r in findings(records)] == ["conv2d", "basic_block"]


def test_what_says_where_it_is_wrong_comes_before_what_does_not():
    tile, vague = [{"some": False}], [{"some": True}]
    records = [_broken("conv2d", "law.shift"), _broken("conv2d", "output.value", boundaries=tile)]
    assert findings(records)[0]["requirement"] == "conv2d.output.value"
    records = [_broken("conv2d", "law.shift"), _broken("conv2d", "output.value", boundaries=vague)]
    assert findings(records)[0]["requirement"] == "conv2d.law.shift"


def test_nothing_is_lost_that_no_known_mistake_breaks():
    assert ranked("relu", ["output.size!", "negative.zero"], {}) == ["negative.zero", "output.size"]  # as on the page
    records = [_broken("relu", "output.size", True), _broken("relu", "output.size"), _broken("relu", "negative.zero")]
    crash = {**_broken("relu", "input.layout"), "verdict": "crash", "failure": None}
    assert len(findings([*records, crash])) == 4


def test_broken_requirement_follows_from_the_first_finding_that_it_rests_on():
    order = ["conv2d.stride.step", "conv2d.arguments.together", "conv2d.gradient.x", "conv2d.input.layout"]
    assert consequences(order) == dict.fromkeys(order[1:3], "conv2d.stride.step")
    assert consequences(["conv2d.gradient.x", "conv2d.stride.step"]) == {}


def test_parts_are_the_cause_of_what_is_made_of_them_where_numbers_are_compared():
    broken = ["linear.output.value", "mlp.output.value", "mlp.output.dtype"]
    assert consequences(broken) == {"mlp.output.value": "linear.output.value"}
    assert consequences(["linear.output.dtype", *broken[1:]]) == {"mlp.output.dtype": "linear.output.dtype"}

"""Waivers: known deviations are told apart from new ones, and none may outlive its cause."""

from __future__ import annotations

import pytest
from nnspec.conformance.report import waivers

LEAKY = """
    import numpy as np

    def relu(x):
        return np.where(x > 0, x, -0.5 * (x < 0)).astype(x.dtype)
"""


def broken_by(desk, text: str) -> set[str]:
    """The musts that a file breaks."""
    results = desk.check(text, "-n", 0).report["results"]
    return {r["requirement"] for r in results if r["verdict"] == "fail" and r["level"] == "must"}


def file(desk, *entries: dict[str, str]) -> str:
    tables = ["[[waiver]]\n" + "\n".join(f'{name} = "{value}"' for name, value in e.items()) for e in entries]
    return str(desk.write("waivers.toml", "\n".join(tables)))


def waiver(requirement: str, **more: str) -> dict[str, str]:
    return {"subject": "layers.py", "requirement": requirement, "reason": "it leaks, as agreed", **more}


def test_what_is_waived_is_shown_and_does_not_count(desk):
    broken = broken_by(desk, LEAKY)
    assert "relu.negative.zero" in broken
    path = file(desk, *(waiver(requirement, link="https://example.org/1") for requirement in broken))
    done = desk.check(LEAKY, "-n", 0, "--waivers", path)
    assert done.code == 0
    assert done.verdicts("waived") == broken
    assert done.report["conforms"]
    assert "it leaks, as agreed (https://example.org/1)" in done.out


def test_a_waiver_may_cover_one_dtype_alone(desk):
    path = file(desk, *(waiver(requirement, dtype="float32") for requirement in broken_by(desk, LEAKY)))
    done = desk.check(LEAKY, "-n", 0, "--waivers", path)
    assert done.code == 1
    verdicts = {(r["dtype"], r["verdict"]) for r in done.report["results"] if r["requirement"] == "relu.negative.zero"}
    assert verdicts == {("float32", "waived"), ("float64", "fail")}


def test_a_pass_that_is_waived_fails(desk):
    path = file(desk, waiver("relu.positive.kept"))
    done = desk.check("import numpy as np\ndef relu(x):\n    return np.maximum(x, 0)", "-n", 0, "--waivers", path)
    assert done.code == 1
    assert done.verdicts("fail") == {"relu.positive.kept"}
    assert "remove the waiver" in done.out


def test_a_crash_can_be_waived(desk):
    text = """
    import os
    import numpy as np

    def relu(x):
        if x.ndim == 0:
            os.abort()
        return np.maximum(x, 0)
    """
    path = file(desk, waiver("relu.output.size", form="function"))
    done = desk.check(text, "--dtype", "float32", "--waivers", path)
    assert done.code == 0
    assert done.verdicts("waived") == {"relu.output.size"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[waiver]\n", "not valid TOML"),
        ('[waivers]\nsubject = "torch"\n', "expected tables [[waiver]]"),
        ('[[waiver]]\nsubject = "torch"\nrequirement = "relu.no.such"\nreason = "x"\n', "there is no requirement"),
        ('[[waiver]]\nsubject = "torch"\nrequirement = "relu.positive.kept"\n', "reason is missing"),
        ('[[waiver]]\nsubject = "torch"\nrequirement = "relu.positive.kept"\nreason = " "\n', "reason is missing"),
        (
            '[[waiver]]\nsubject = "torch"\nidentifier = "relu.positive.kept"\nreason = "x"\n',
            "expected some of subject",
        ),
        ('[[waiver]]\nsubject = 3\nrequirement = "relu.positive.kept"\nreason = "x"\n', "expected a string"),
    ],
)
def test_what_cannot_be_a_waiver_is_said(desk, text, says):
    path = desk.write("waivers.toml", text)
    done = desk.check(LEAKY, "-n", 0, "--waivers", path)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err


def test_recommendations_need_no_waiver(desk):
    path = file(desk, waiver("linear.refuses.bias-broadcast"))
    with pytest.raises(waivers.WaiverError, match="is a should, which needs no waiver"):
        waivers.load(path)


def test_a_missing_file_is_said(desk):
    done = desk.check(LEAKY, "-n", 0, "--waivers", "nowhere.toml")
    assert done.code == 2
    assert "nowhere.toml: No such file" in done.err


def test_those_that_ship_can_be_read():
    assert all(w.reason for w in waivers.load(None))


def test_under_plain_pytest_what_is_waived_is_expected_to_fail(desk):
    broken = broken_by(desk, LEAKY)
    path = file(desk, *(waiver(requirement) for requirement in broken))
    arguments = ("--pyargs", "nnspec.conformance", "--nnspec-subject", "layers.py", "--nnspec-block", "relu")
    done = desk.run("-m", "pytest", *arguments, "--nnspec-waivers", path, "-p", "no:cacheprovider")
    assert done.code == 0, done.out
    assert "xfailed" in done.out

"""The same checks by plain pytest: `pytest --pyargs nnspec.conformance --nnspec-subject FILE`."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

RIGHT = "import numpy as np\n\n\ndef relu(x):\n    return np.maximum(x, 0)\n"
WRONG = "import numpy as np\n\n\ndef relu(x):\n    return x * (x > 0)\n"


@pytest.fixture
def run(desk):
    def run(text, *arguments):
        desk.write("layers.py", text)
        select = ("--pyargs", "nnspec.conformance", "--nnspec-subject", "layers.py")
        return desk.run("-m", "pytest", *select, *arguments)

    return run


def test_a_right_file_passes(run):
    done = run(RIGHT, "-k", "test_relu and float32", "-q")
    assert done.code == 0, done.out
    assert "nnspec: layers.py: " in done.out
    assert done.report["conforms"]


def test_a_wrong_file_fails_and_last_failed_runs_it_again(run):
    done = run(WRONG, "--nnspec-dtype", "float32", "-x", "--nnspec-block", "relu")
    assert done.code == 1
    assert "relu.infinite.value" in done.out
    assert "Traceback" not in done.out
    assert done.out.count("FAILED") == 1
    assert done.verdicts("fail") == {"relu.infinite.value"}
    again = run(WRONG, "--nnspec-dtype", "float32", "--nnspec-block", "relu", "--lf")
    assert again.code == 1
    assert again.report["planned"] == 1


def test_workers_and_junit(run):
    done = run(WRONG, "-n", "2", "--junitxml", "out.xml", "--nnspec-block", "relu")
    assert done.code == 1
    report = done.report
    assert {r["requirement"] for r in report["results"] if r["verdict"] == "fail"} == {"relu.infinite.value"}
    found = [
        {p.get("name"): p.get("value") for p in case.iter("property")}
        for case in ElementTree.parse(done.folder / "out.xml").iter("testcase")
    ]
    judged = [f for f in found if "requirement" in f]
    assert len(judged) == len(report["results"])
    assert {f["verdict"] for f in judged if f["requirement"] == "relu.infinite.value"} == {"fail"}


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_subject_that_cannot_be_checked_gets_a_sentence(run, workers):
    done = run("import no_such_package", *workers)
    assert done.code == 2, done.out
    assert "nnspec: layers.py: imports 'no_such_package', which is not installed here (line 1)" in done.out
    assert "Traceback" not in done.out + done.err


def test_an_unknown_block_gets_a_sentence(run):
    done = run(RIGHT, "--nnspec-block", "conv3d")
    assert done.code == 4
    assert "--nnspec-block conv3d: expected one of" in done.err


def test_other_tests_are_left_alone(desk):
    desk.write("test_mine.py", "def test_mine(): pass\n")
    done = desk.run("-m", "pytest", "-q")
    assert done.code == 0
    assert "nnspec" not in done.out
    assert not (desk.folder / "nnspec-report").exists()

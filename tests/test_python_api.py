"""nnspec.conformance.check: the same report, from Python."""

from __future__ import annotations

import os
import sys
import types

import numpy as np
import pytest
from nnspec.adapters import SubjectError, Unsupported
from nnspec.conformance import check


def relu(x):
    return np.maximum(x, 0)


def upside_down(x):
    return np.minimum(x, 0)


class ReLU:
    def __call__(self, x):
        return np.maximum(x, 0)


def passed(report):
    return report["conforms"] and report["totals"]["fail"] == 0 and report["totals"]["pass"] > 5


def test_a_function(desk):
    report = desk.valid(check(relu))
    assert passed(report), {n: v for n, v in report.items() if n != "results"}
    assert report["subject"] == "relu"
    assert {r["form"] for r in report["results"]} == {"function"}


def test_a_class_and_again_in_the_same_process(desk):
    first, second = check(ReLU, dtype="float32"), check(ReLU, dtype="float32")
    assert passed(first)
    assert {r["form"] for r in first["results"]} == {"class"}
    assert desk.timeless(first) == desk.timeless(second)


def test_a_mapping_and_a_module(desk):
    module = types.ModuleType("my_layers")
    module.relu, module.other = relu, 1
    of_module, of_mapping = check(module, dtype="float32"), check({"relu": relu}, dtype="float32")
    assert of_module["subject"] == "my_layers"
    assert passed(of_module)
    assert desk.timeless(of_mapping)["results"] == desk.timeless(of_module)["results"]


def test_a_failure_carries_its_script(desk):
    report = desk.valid(check({"relu": upside_down}, dtype="float32"))
    assert not report["conforms"]
    failure = next(r["failure"] for r in report["results"] if r["verdict"] == "fail")
    assert failure["message"]
    compile(failure["script"], "script", "exec")


class Blocks:
    """An instance whose method is a block."""

    def relu(self, x):
        return np.maximum(x, 0) + (x > 3)


class Steep:
    """An instance that is itself a block."""

    def __init__(self, slope):
        self.slope = slope

    def __call__(self, x):
        return self.slope * np.maximum(x, 0)


@pytest.mark.parametrize(("thing", "block"), [(Blocks(), None), (Steep(2), "relu")])
def test_an_instance_is_judged_like_a_module(desk, thing, block):
    report = desk.valid(check(thing, block=block, dtype="float32"))
    assert report["subject"] == f"an instance of {type(thing).__name__}"
    assert report["totals"]["fail"] > 0
    assert report["errors"] == []
    assert passed(check(Steep(1), block="relu", dtype="float32"))
    script = next(r["failure"]["script"] for r in report["results"] if r["verdict"] == "fail")
    relu = getattr(thing, "relu", thing)  # the script says where it is to be defined
    for function, right in ((relu, False), (Steep(1), True)):
        with pytest.raises(SystemExit) as end:
            exec(compile(script, "script", "exec", dont_inherit=True), {"__name__": "script", "relu": function})
        assert (end.value.code == 0) is right


def test_the_report_is_that_of_the_command_line(desk):
    done = desk.nnspec("check", "reference", "--block", "relu", "--dtype", "float32", "-n", 1)
    assert (
        desk.timeless(check("reference", block="relu", dtype="float32"))["results"]
        == desk.timeless(done.report)["results"]
    )


def test_nothing_is_left_behind(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before, path = dict(os.environ), list(sys.path)
    check(relu, dtype="float32")
    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == before
    assert sys.path == path
    assert capfd.readouterr() == ("", "")


def test_partial_subjects():
    def declines(x):
        if x.ndim == 0:
            raise Unsupported("numbers")
        return np.maximum(x, 0)

    report = check({"relu": declines}, dtype="float32")
    reasons = {reason for r in report["results"] for reason in r["unsupported"]}
    assert reasons == {"numbers", "there is no other block to call"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"block": "conv3d"}, "block conv3d: expected one of"),
        ({"profile": "slow"}, "profile 'slow': expected one of quick, ci, deep"),
        ({"sizes": "large"}, "sizes 'large': expected one of small, boundary, layers, all"),
        ({"dtype": "float8"}, "dtype 'float8': expected one of float32, float64"),
    ],
)
def test_unknown_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        check(relu, **options)


@pytest.mark.parametrize("subject", [{}, {"relu": 3}, "nowhere.py", "pytorch", object(), lambda x: x])
def test_what_cannot_be_checked_is_refused(subject):
    with pytest.raises(SubjectError):
        check(subject)

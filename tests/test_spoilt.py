"""Calls after which every call raises, as on a GPU: who is to blame, and what becomes of the rest of the run."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec.adapters import load
from nnspec.conformance.checks import load_checks
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.linear import linear as right

SPOILING = """
import numpy as np

class State:
    bad = False

def relu(x):
    State.bad = State.bad or x.ndim == 0  # only relu.output.size has cases without axes
    if State.bad:
        raise RuntimeError("an illegal memory access was encountered")
    return np.maximum(x, 0)
"""


def test_one_bad_call_costs_one_check_and_its_script_fails(desk):
    done = desk.check(SPOILING, "--dtype", "float32", "-n", "1")
    assert done.code == 1, done.out + done.err
    assert done.verdicts("crash") == {"relu.output.size"}
    assert not done.verdicts("fail") | done.verdicts("not run")
    [record] = [r for r in done.report["results"] if r["verdict"] == "crash"]
    assert "every call raises since relu(x()) raised RuntimeError: an illegal memory access" in record["reason"]
    script = desk.run(record["failure"]["script"])
    assert script.code == 1
    assert "an illegal memory access" in script.err


def test_without_workers_the_rest_is_not_run(desk):
    done = desk.check(SPOILING, "--dtype", "float32", "-n", "0")
    assert done.code == 1, done.out + done.err
    assert done.verdicts("crash") == {"relu.output.size"}
    assert done.verdicts("pass")
    assert "with workers, a new process goes on" in next(
        r["reason"] for r in done.report["results"] if r["verdict"] == "not run"
    )


def judged(function, *requirements):
    load_checks()
    trial = Trial(load({"linear": function}, "numpy"), "function", "float32")
    return [trial.run(CHECKS[f"linear.{name}"]) for name in requirements]


def test_a_refusal_that_spoils_the_process_is_no_refusal():
    bad = []

    def linear(x, weight, bias=None):
        if bad or x.shape[-1] != weight.shape[-1]:
            bad.append(1)
            raise RuntimeError("an illegal memory access was encountered")
        return right(x, weight, bias)

    before, refusal, after = judged(linear, "output.value", "refuses.features", "refuses.bias")
    assert before.verdict == "pass"
    assert refusal.verdict == after.verdict == "crash"
    assert "every call raises since linear(x" in refusal.failure.message


@pytest.mark.parametrize("every", [2, 3])
def test_a_call_that_raises_now_and_then_spoils_nothing(every):
    calls = []

    def linear(x, weight, bias=None):
        calls.append(1)
        if len(calls) % every == 0:
            raise RuntimeError("now and then")
        return right(x, weight, bias)

    (outcome,) = judged(linear, "output.value")
    assert outcome.verdict == "fail"


def test_a_function_that_always_raises_fails_as_before():
    def linear(x, weight, bias=None):
        raise ValueError("not yet written")

    (outcome,) = judged(linear, "output.value")
    assert outcome.verdict == "fail"
    assert np.size(outcome.failure.case["x"])

"""Calls after which every call raises, as on a GPU: who is to blame, and what becomes of the rest of the run."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec.adapters import load
from nnspec.adapters.trying import Tried, uncallable
from nnspec.conformance.case import Case
from nnspec.conformance.checks import load_checks
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.canary import Canary
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


TYPICAL = """
import numpy as np
from nnspec.reference.linear import linear as right

class State:
    bad = False

def relu(x):
    State.bad = State.bad or x.ndim == 1
    return launched(np.maximum(x, 0))

def linear(x, weight, bias=None):
    return launched(right(x, weight, bias))

def launched(y):
    if State.bad:
        raise RuntimeError("an illegal memory access was encountered")
    return y
"""
CHOSEN = ("--dtype", "float32", "--block", "relu", "--block", "linear")


def test_a_typical_call_that_spoils_the_process_accuses_no_other_block(desk):
    done = desk.check(TYPICAL, *CHOSEN, "-n", "1")
    assert done.code == 1, done.out + done.err
    assert {name.partition(".")[0] for name in done.verdicts("crash") | done.verdicts("fail")} == {"relu"}
    assert "linear.output.value" in done.verdicts("pass")
    record = next(r for r in done.report["results"] if r["verdict"] == "crash")
    assert "every call raises since relu(x" in record["reason"]
    script = desk.run(record["failure"]["script"])
    assert script.code == 1
    assert "an illegal memory access" in script.err


def test_without_workers_a_spoilt_start_accuses_nobody(desk):
    done = desk.check(TYPICAL, *CHOSEN, "-n", "0")
    assert not done.verdicts("fail") | done.verdicts("crash") | done.verdicts("pass")
    reasons = {r["reason"] for r in done.report["results"] if r["verdict"] == "not run"}
    assert any("every call raises since relu(x)" in reason for reason in reasons)


def test_functions_that_always_raise_cost_two_fresh_processes():
    def fresh(stem, name, number):
        asked.append((stem, name, number))
        return False

    def unwritten(*operands, **arguments):
        raise NotImplementedError

    asked = []
    names = ("relu", "linear", "conv2d")
    subject = uncallable(load(dict.fromkeys(names, unwritten), "numpy"), None, tried=Tried(fresh))
    assert {stem for stem, _ in subject.uncallable} == {*names}
    assert len(asked) == 2


def test_a_typical_call_tells_where_no_check_has_called_yet():
    def linear(x, weight, bias=None):
        raise RuntimeError("an illegal memory access was encountered")

    def typical():
        raise RuntimeError("an illegal memory access was encountered")

    load_checks()
    trial = Trial(load({"linear": linear}, "numpy"), "function", "float32", canary=Canary(typical=typical))
    outcome = trial.run(CHECKS["linear.refuses.features"])
    assert outcome.verdict == "crash"
    assert "every call raises since linear(x" in outcome.failure.message


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


def test_a_call_with_a_number_in_place_of_an_array_is_repeated():
    pytest.importorskip("torch")
    canary = Canary()
    canary.returned("function", Case("einsum", {"a": np.int32(2)}, {"equation": "->"}))  # as NumPy's sums are
    assert canary.after(RuntimeError(), "a call", load("torch")) is None

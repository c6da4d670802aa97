"""Results that differ from call to call are told before anything else, and no subject with such results conforms."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from nnspec.adapters.for_reference import subject as reference
from nnspec.adapters.loading import load
from nnspec.conformance.checks import load_checks
from nnspec.conformance.checks.steady import unsteady
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.linear import Linear, linear, linear_vjp

FILE = """
import itertools
from nnspec.reference.linear import linear as right

calls = itertools.count()

def linear(x, weight, bias=None):
    y = right(x, weight, bias)
    return y + (next(calls) % 20 == 19)
"""


def told(names, form="function", dtype="float32"):
    load_checks()
    return unsteady(Trial(load(names, "numpy"), form, dtype), "linear")


def in_one_call_of_twenty(wrong):
    """A function that gives what it is given, and in every twentieth call something else."""
    calls = itertools.count(1)
    return lambda result: wrong(result) if next(calls) % 20 == 0 else result


def test_a_function_is_told():
    spoil = in_one_call_of_twenty(lambda y: y + 1)
    found = told({"linear": lambda x, weight, bias=None: spoil(linear(x, weight, bias))})
    assert (found["block"], found["form"], found["dtype"], found["calls"]) == ("linear", "function", "float32", 150)
    assert found["differing"] in (7, 8)
    assert "results differ from call to call" in found["message"]


def test_a_layer_is_told():
    spoil = in_one_call_of_twenty(lambda y: y * 2)

    class Flaky(Linear):
        def forward(self, x):
            return spoil(super().forward(x))

    assert told({"Linear": Flaky}, "class")["form"] == "class"


def test_gradients_are_told():
    spoil = in_one_call_of_twenty(lambda gradients: [g if g is None else g + 1 for g in gradients])
    found = told({"linear": linear, "linear_vjp": lambda *given: spoil(linear_vjp(*given))})
    assert "gradients differ from call to call" in found["message"]


def test_scratch_that_threads_share_is_told():
    scratch = {}

    def shared(x, weight, bias=None):
        kept = scratch.setdefault((x.shape, x.dtype), np.empty_like(x))
        kept[...] = x
        time.sleep(0.001)  # as a kernel that lets other threads run
        return linear(kept, weight, bias)

    found = told({"linear": shared})
    assert "results differ where two threads call at once" in found["message"]
    assert 0 < found["differing"] <= found["calls"]


def test_threads_that_share_nothing_are_steady():
    assert told({"linear": linear}) is None


def test_one_dtype_is_told():
    spoil = in_one_call_of_twenty(lambda y: y + 1 if y.dtype == np.float64 else y)
    names = {"linear": lambda x, weight, bias=None: spoil(linear(x, weight, bias))}
    assert told(names) is None
    assert told(names, dtype="float64") is not None


def test_a_call_that_sometimes_raises_is_told():
    def fail(y):
        raise RuntimeError

    spoil = in_one_call_of_twenty(fail)
    assert told({"linear": lambda x, weight, bias=None: spoil(linear(x, weight, bias))}) is not None


def test_nan_and_the_sign_of_zero_are_compared_bit_by_bit():
    signs = in_one_call_of_twenty(lambda y: -y)
    assert told({"linear": lambda x, weight, bias=None: signs(linear(x, weight, bias) * 0)}) is not None
    assert told({"linear": lambda x, weight, bias=None: linear(x, weight, bias) * np.nan}) is None


@pytest.mark.parametrize("stem", ["einsum", "batch_norm", "max_pool2d", "mlp", "basic_block", "sgd"])
def test_the_reference_is_steady(stem):
    load_checks()
    subject = reference()
    assert not any(unsteady(Trial(subject, form, "float32"), stem) for form in subject.forms(stem))


def test_the_report_begins_with_it(desk):
    done = desk.check(FILE, "--block", "linear", "--dtype", "float32", "-n", "1")
    assert done.code == 1, done.out + done.err
    assert "differ from call to call" in done.out.splitlines()[1]
    assert [(u["block"], u["form"]) for u in done.report["unsteady"]] == [("linear", "function")]
    assert done.report["errors"] == []
    assert done.report["unfinished"] == 0


def test_a_wrong_result_counts_though_the_next_is_right():
    """Hypothesis repeats a case that failed, and then it passes."""
    load_checks()
    first = itertools.count()
    names = {"linear": lambda x, weight, bias=None: linear(x, weight, bias) + (next(first) == 7)}
    outcome = Trial(load(names, "numpy"), "function", "float32").run(CHECKS["linear.output.value"])
    assert outcome.verdict == "fail"
    assert "not every time" in outcome.reason


def test_a_call_that_raised_once_counts():
    load_checks()
    first = itertools.count()

    def once(x, weight, bias=None):
        if next(first) == 7:
            raise RuntimeError("a race")
        return linear(x, weight, bias)

    outcome = Trial(load({"linear": once}, "numpy"), "function", "float32").run(CHECKS["linear.output.value"])
    assert outcome.verdict == "fail"
    assert "a race" in outcome.reason

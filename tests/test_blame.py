"""Who is to blame: what the subject's call returns or raises is a finding; what fails in an adapter is exit code 3."""

from __future__ import annotations

import io

import hypothesis
import numpy as np
import pytest
from nnspec.adapters.blame import LARGEST, LONGEST, Raised, Unsupported, Unusable, theirs, usable, watched
from nnspec.adapters.for_numpy import NumPy
from nnspec.adapters.loading import load
from nnspec.conformance.checks import load_checks
from nnspec.conformance.report import terminal
from nnspec.conformance.report.report import record
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.record import brief, clean
from nnspec.conformance.trial.trial import Trial
from rich.console import Console

RELU = ("--block", "relu", "--dtype", "float32", "-n", "1")


def judged(subject, framework, *identifiers, dtype="float32", profile="quick"):
    """The records of some checks of a function."""
    load_checks()
    subject, checks = load(subject, framework), [CHECKS[identifier] for identifier in identifiers]
    return [record(c, subject, "function", dtype, Trial(subject, "function", dtype, profile).run(c)) for c in checks]


class Textless(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def raises(error):
    def relu(x):
        raise error

    return relu


def skips(x):
    pytest.skip("not done yet")


def rejects(x):
    raise hypothesis.errors.UnsatisfiedAssumption


ODD = {
    "text": lambda x: np.maximum(x, 0).astype(str),
    "objects": lambda x: np.maximum(x, 0).astype(object),
    "complex numbers": lambda x: np.maximum(x, 0).astype(complex),
    "records": lambda x: np.zeros(x.shape, [("a", "f4"), ("b", "i4")]),
    "dates": lambda x: np.zeros(x.shape, "datetime64[s]"),
    "a truth value": lambda x: bool((x > 0).all()),
    "nothing": lambda x: None,
    "a generator": lambda x: (value for value in x),
    "a view of 2**40 elements": lambda x: np.broadcast_to(x.ravel()[:1], (2**20, 2**20)),
    "two results": lambda x: (x, x),
    "an exception without text": raises(Textless()),
    "half a surrogate pair": raises(ValueError("cannot open \udc80")),
    "a long text": raises(ValueError("x" * 2**20)),
    "KeyboardInterrupt": raises(KeyboardInterrupt()),
    "SystemExit": raises(SystemExit(0)),
    "GeneratorExit": raises(GeneratorExit()),
    "StopIteration": raises(StopIteration()),
    "MemoryError": raises(MemoryError()),
    "pytest's skip": skips,
    "Hypothesis' reject": rejects,
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_whatever_a_call_returns_or_raises_is_a_finding(odd):
    value, law = judged({"relu": odd}, "numpy", "relu.positive.kept", "relu.call.stateless")
    assert (value["verdict"], law["verdict"]) == ("fail", "not run")
    assert value["failure"]["message"].isprintable()
    assert len(value["failure"]["message"]) < 1000
    assert "the call itself fails" in law["reason"]


@pytest.mark.parametrize("make", ["to_sparse()", "to('meta')", "to(torch.complex64)", "numpy()", "tolist()"])
def test_tensors_that_are_no_arrays_are_findings(make):
    torch = pytest.importorskip("torch")
    relu = eval(f"lambda x: torch.relu(x).{make}", {"torch": torch})
    [value] = judged({"relu": relu}, "torch", "relu.positive.kept")
    assert value["verdict"] == "fail"


def test_a_result_that_requires_a_gradient_is_a_result():
    torch = pytest.importorskip("torch")
    [value] = judged({"relu": lambda x: torch.relu(x.requires_grad_())}, "torch", "relu.positive.kept")
    assert value["verdict"] == "pass"


def test_a_keyboard_interrupt_that_nobody_sent_costs_one_requirement(desk):
    done = desk.check(
        """
        import numpy as np

        def relu(x):
            if np.isnan(x).any():
                raise KeyboardInterrupt
            return np.maximum(x, 0)
        """,
        *RELU,
    )
    assert done.code == 1, done.out + done.err
    assert "raised KeyboardInterrupt" in done.out
    assert done.report["unfinished"] == 0
    assert "relu.positive.kept" in done.verdicts("pass")


def test_a_mistake_in_an_adapter_ends_the_run_with_its_traceback(desk):
    done = desk.check(
        """
        import numpy as np
        from nnspec.adapters.for_numpy import NumPy

        def relu(x):
            return np.maximum(x, 0)

        NumPy.to_native = lambda self, array: array.no_such_attribute
        """,
        *("--block", "relu", "--dtype", "float32", "-n", "0"),
    )
    assert done.code == 3, done.out + done.err
    assert "Traceback" in done.out
    assert "AttributeError" in done.out
    assert done.out.count("Traceback") == 1  # the same mistake is told once
    assert len(done.report["errors"]) > 1
    assert all("AttributeError: 'numpy.ndarray' object has no" in error for error in done.report["errors"])
    assert {entry["verdict"] for entry in done.report["results"]} == {"unsupported"}  # nothing to differentiate with


@pytest.mark.parametrize("function", ["construct", "load_entries", "state", "set_training"])
@pytest.mark.parametrize("mistake", ["operands[-1].no_such_attribute", "no_such_name"])
def test_a_mistake_in_an_adapter_is_no_finding(monkeypatch, function, mistake):
    broken = {}
    exec(f"def {function}(*operands):\n    return {mistake}", broken)
    monkeypatch.setattr(NumPy, function, broken[function])
    with pytest.raises((AttributeError, NameError), match="no_such"):
        getattr(watched(NumPy()), function)(np.ones(1))


def test_an_object_of_the_subjects_that_lacks_a_member_is_a_finding():
    class Relu:
        pass

    with pytest.raises(Raised):
        watched(NumPy()).differentiate_module(Relu(), np.ones(1), np.ones(1))


def test_a_mistake_in_nnspecs_own_code_is_no_finding(monkeypatch):
    load_checks()
    check = CHECKS["relu.integer.value"]
    monkeypatch.setitem(check.body.__globals__, "expected", lambda case: case.no_such_attribute)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        judged({"relu": lambda x: np.maximum(x, 0)}, "numpy", "relu.integer.value")


def test_a_defect_of_torch_is_torchs_under_a_users_file_too():
    torch = pytest.importorskip("torch")

    def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
        return torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups)

    [layout] = judged({"conv2d": conv2d}, "torch", "conv2d.input.layout", profile="ci")
    assert (layout["verdict"], layout["unsupported"]) == ("pass", {})
    ((defect, cases),) = layout["known_defects"].items()
    assert defect.startswith(f"torch {torch.__version__}: oneDNN ends the process")
    assert cases > 0


def test_the_terminal_tells_whose_defect_it_is():
    console = Console(record=True, width=200, file=io.StringIO())
    entry = {"block": "conv2d", "known_defects": {"torch 2.13.0: it aborts": 2}}
    terminal._known_defects({"results": [entry, entry]}, console)
    assert console.export_text() == "conv2d: known defects of torch 2.13.0: it aborts, 4 cases not made\n"


def test_only_the_subjects_exceptions_become_raised():
    for error in (ValueError(), KeyboardInterrupt(), SystemExit(), GeneratorExit(), StopIteration()):
        with pytest.raises(Raised), theirs():
            raise error
    for error in (Unsupported(), Unusable()):
        with pytest.raises(type(error)), theirs():
            raise error


def test_arrays_that_nobody_can_judge_are_told_before_they_are_copied():
    assert usable(np.ones(3, bool)).size == 3
    rows = LARGEST // 4
    for array in (np.array(["a"]), np.broadcast_to(np.float32(1), (rows, 2))):
        with pytest.raises(Unusable):
            usable(array)


def test_text_of_the_subject_is_made_fit_to_print():
    assert clean("a\x1b[31m\udc80\n") == r"a\x1b[31m\udc80\n"
    assert len(clean("x" * 10**6)) <= 2 * LONGEST + 1
    assert "its text cannot be had" in brief(Textless())

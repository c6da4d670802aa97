"""The likely cause: known mistakes are recognised by what they give, and none is named that does not explain it all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nnspec.adapters.for_reference import subject as reference
from nnspec.conformance.case import Case
from nnspec.conformance.checks import load_checks
from nnspec.conformance.faults import anew, broken_by_faults, catalogue
from nnspec.conformance.power import faults_of, judge
from nnspec.conformance.report.diagnosis import Suspicion, _Seen, causes, search
from nnspec.conformance.report.findings import findings, suspects
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.record import Sighting
from nnspec.reference.conv2d import conv2d


def causes_of(subject, identifier, profile="quick", seed=7):
    load_checks()
    outcome = judge(subject, CHECKS[identifier], profile, seed)
    assert outcome is not None
    assert outcome.failure is not None, identifier
    return [cause.fault for cause in causes(CHECKS[identifier], outcome)]


@pytest.mark.parametrize("block", ["avg_pool2d", "conv2d", "linear", "sequential", "sgd"])
def test_known_mistakes_are_recognised(block):
    """But for a few that depend on all that was called before."""
    found = {f.key: causes_of(f.subject(), f.requirement, "ci") for f in faults_of([block]) if f.decides}
    assert [key for key, named in found.items() if named and key not in named] == []
    assert sum(named[:1] == [key] for key, named in found.items()) >= 0.9 * len(found)


def test_no_cause_is_named_for_a_mistake_that_nobody_knows():
    def halves(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
        y = conv2d(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
        return y * y.dtype.type(1.5) if stride not in (1, (1, 1)) else y

    subject = replace(reference(), functions={"conv2d": halves}, classes={})
    assert causes_of(subject, "conv2d.stride.step") == []


def test_parameters_that_are_drawn_at_random_hide_no_cause():
    fault = catalogue()["mlp.parameters.complete/tied"]
    assert causes_of(fault.subject(), fault.requirement) == [fault.key]


def test_a_cause_may_be_computed_with_other_roundings_if_the_right_result_is_far_away():
    def scaled(by):
        wrong = catalogue()["conv2d.kernel.orientation/flipped"].subject().functions["conv2d"]

        def function(*operands, **arguments):
            y = wrong(*operands, **arguments)
            return y if np.array_equal(y, conv2d(*operands, **arguments)) else y * y.dtype.type(by)

        return replace(reference(), functions={"conv2d": function}, classes={})

    assert causes_of(scaled(1 + 1e-5), "conv2d.kernel.orientation")[:1] == ["conv2d.kernel.orientation/flipped"]
    assert causes_of(scaled(2), "conv2d.kernel.orientation") == []


@pytest.mark.parametrize(
    ("key", "alone"), [("relu.batch.empty/reduced", True), ("linear.leading.any/vector-refused", False)]
)
def test_a_cause_says_whether_nothing_was_seen_but_exceptions(key, alone):
    load_checks()
    fault, check = catalogue()[key], CHECKS[key.partition("/")[0]]
    outcome = judge(fault.subject(), check, "quick", 7)
    assert [cause.raises for cause in causes(check, outcome) if cause.fault == key] == [alone]


def test_a_cause_that_only_raises_explains_what_it_breaks_and_nothing_else():
    def failed(name):
        cause = {"fault": "relu.batch.empty/reduced", "mistake": "…", "cases": 3, "raises": True}
        entry = {"requirement": f"relu.{name}", "block": "relu", "level": "must", "verdict": "fail"}
        return entry | {"failure": {"misshapen": False, "boundaries": [], "causes": [cause]}}

    names = broken_by_faults()["relu.batch.empty/reduced"]
    records = [failed(name.rstrip("!")) for name in names]
    [[suspect]] = suspects(records)
    assert (suspect.fault, suspect.explained) == ("relu.batch.empty/reduced", len(names))
    assert suspects(records[1:]) == []
    assert suspects([*records, failed("negative.zero")]) == []


def test_a_file_is_told_the_cause(desk):
    done = desk.check(
        """
        from nnspec.reference.conv2d import conv2d as right

        def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
            rows, columns = (stride, stride) if isinstance(stride, int) else stride
            return right(x, weight, bias, stride=(columns, rows), padding=padding, dilation=dilation, groups=groups)
        """,
        *("--dtype", "float32", "-n", 0),
    )
    assert done.code == 1
    assert "likely cause: stride: rows and columns are exchanged" in done.out
    assert "conv2d.stride.step" in done.findings[0]
    failures = [r["failure"] for r in done.report["results"] if r["verdict"] == "fail"]
    assert {"conv2d.stride.step/swapped"} == {cause["fault"] for f in failures for cause in f["causes"][:1]}


def test_an_optimiser_in_torch_is_told_the_cause(desk):
    """What is done step by step, in another framework, is compared with what known mistakes do."""
    pytest.importorskip("torch")
    done = desk.check(
        """
        import torch

        class Parameter(torch.nn.Parameter):
            pass

        class SGD(torch.optim.SGD):
            def __init__(self, params, lr=0.1, momentum=0.0, weight_decay=0.0):
                super().__init__(params, lr, momentum, dampening=momentum, weight_decay=weight_decay)
        """,
        *("--block", "sgd", "--dtype", "float32", "-n", 0),
    )
    assert done.code == 1, done.out
    assert "cause: a weighted mean in place of the sum, from the second step on" in done.out


def test_what_a_likely_cause_is_a_mistake_in_comes_first():
    def failed(name, *faults):
        found = [{"fault": fault, "mistake": fault, "cases": 3} for fault in faults]
        entry = {"requirement": f"conv2d.{name}", "block": "conv2d", "level": "must", "verdict": "fail"}
        return entry | {"failure": {"misshapen": False, "boundaries": [], "causes": found}}

    padding, stride = "conv2d.padding.zeros/swapped", "conv2d.stride.step/swapped"
    records = [failed("stride.step", padding), failed("output.value", padding, stride), failed("padding.zeros")]
    records += [failed("dilation.gap", stride), failed("arguments.together", padding)]
    ((suspect,), (other,)) = suspects(records)
    assert (suspect.fault, suspect.explained, suspect.broken, suspect.cases) == (padding, 3, 5, 9)
    assert (other.fault, other.explained, other.likely) == (stride, 2, False)  # of what is left
    assert findings(records)[0]["requirement"] == "conv2d.padding.zeros"


def test_what_explains_less_than_half_is_not_called_likely(desk):
    """The stride is a mistake that is known; to take half as much again with padding, dilation or groups is none."""
    done = desk.check(
        """
        from nnspec.reference.conv2d import conv2d as right

        def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
            rows, columns = (stride, stride) if isinstance(stride, int) else stride
            y = right(x, weight, bias, stride=(columns, rows), padding=padding, dilation=dilation, groups=groups)
            return y if padding in (0, (0, 0)) and dilation in (1, (1, 1)) and groups == 1 else y * y.dtype.type(1.5)
        """,
        *("--dtype", "float32", "-n", 0),
    )
    assert "possible cause: stride: rows and columns are exchanged" in done.out
    assert "likely cause" not in done.out


def test_no_cause_is_named_because_another_mistake_raises_too():
    def raises(x, weight, bias=None):
        raise ValueError

    assert causes_of(replace(reference(), functions={"linear": raises}, classes={}), "linear.output.value") == []


def test_a_mistake_in_a_class_explains_no_function():
    case = Case("linear", {"x": np.ones((1, 1), np.float32), "weight": np.ones((1, 1), np.float32), "bias": None}, {})
    load_checks()
    seen = _Seen(CHECKS["linear.output.value"], Sighting("function", "float32", case, []))
    of_classes = replace(reference(), functions={})
    assert seen.sight(of_classes) is None
    assert seen.sight(reference()) is not None


def test_causes_of_a_class_and_of_a_function_are_told_apart():
    def failed(form, *faults):
        found = [{"fault": fault, "mistake": fault, "cases": 3} for fault in faults]
        entry = {"requirement": "conv2d.stride.step", "block": "conv2d", "form": form, "level": "must"}
        return entry | {"verdict": "fail", "failure": {"misshapen": False, "boundaries": [], "causes": found}}

    [[suspect]] = suspects([failed("function"), failed("class", "conv2d.stride.step/swapped")])
    assert (suspect.form, suspect.explained, suspect.broken) == ("class", 1, 1)


@pytest.mark.parametrize(
    "key",
    [
        "max_pool2d.call.stateless/cached-plan",
        "global_avg_pool2d.call.stateless/kept-window",
        "global_avg_pool2d.memory.all-written/last",
    ],
)
def test_mistakes_that_depend_on_earlier_calls_are_recognised(key):
    """A fault of its own begins anew, so that what it remembers is not what the subject remembers."""
    fault = anew(key.partition(".")[0])[key]
    assert causes_of(fault.subject(), fault.requirement, "ci")[:1] == [key]


def test_a_mistake_in_some_values_is_not_taken_for_memory_that_is_not_written():
    def drops(x):
        y = x.mean((2, 3))
        y[..., -1:] += y.dtype.type(1)
        return y

    subject = replace(reference(), functions={"global_avg_pool2d": drops}, classes={})
    assert not any("memory" in key for key in causes_of(subject, "global_avg_pool2d.output.value"))


def test_a_fault_begun_anew_leaves_the_catalogue_as_it_is():
    key, before = "einsum.call.stateless/first-call", dict(catalogue())
    pieces = [faults[key].pieces["einsum"] for faults in (catalogue(), anew("einsum"), anew("einsum"))]
    assert len({*map(id, pieces)}) == 3
    assert dict(catalogue()) == before


def test_the_search_ends_when_its_time_is_up():
    load_checks()
    fault = catalogue()["conv2d.stride.step/swapped"]
    check = CHECKS[fault.requirement]
    outcome = judge(fault.subject(), check, "quick", 7)
    cut = search(check, outcome, Suspicion(seconds=0.0, least=-1.0))
    assert (cut.causes, cut.cut) == ([], True)
    assert not search(check, outcome, Suspicion()).cut


def test_faults_that_another_check_contradicts_are_tried_last():
    load_checks()
    fault = catalogue()["conv2d.stride.step/swapped"]
    check = CHECKS[fault.requirement]
    outcome = judge(fault.subject(), check, "quick", 7)
    so_far = Suspicion()
    assert fault.key in [cause.fault for cause in search(check, outcome, so_far).causes]
    form = outcome.failure.sighting.form
    assert (fault.key, form) in so_far.explaining - so_far.contradicted
    only = Suspicion(contradicted={(fault.key, form)})
    assert [cause.fault for cause in search(check, outcome, only).causes] == [fault.key]


def test_of_faults_that_explain_the_same_the_one_that_breaks_the_same_comes_first():
    def failed(name):
        found = [{"fault": fault, "mistake": fault, "cases": 3} for fault in both]
        entry = {"requirement": f"relu.{name}", "block": "relu", "level": "must", "verdict": "fail"}
        return entry | {"failure": {"misshapen": False, "boundaries": [], "causes": found}}

    known = {key: names for key, names in broken_by_faults().items() if key.startswith("relu.") and len(names) > 1}
    one, other = next((a, b) for a in known for b in known if {*known[a]} < {*known[b]})
    both = (other, one)
    broken = {name.rstrip("!") for name in known[one]} | {one.partition("/")[0].partition(".")[2]}
    assert suspects([failed(name) for name in broken])[0][0].fault == one


def test_a_check_of_state_that_passes_excludes_no_mistake():
    def entry(name, verdict):
        cause = {"fault": "relu.call.stateless/kept-mask", "mistake": "…", "cases": 3}
        about = {"requirement": f"relu.{name}", "block": "relu", "level": "must", "verdict": verdict}
        return about | {
            "failure": {"misshapen": False, "boundaries": [], "causes": [cause]} if verdict == "fail" else None
        }

    [[suspect]] = suspects([entry("positive.kept", "fail"), entry("call.stateless", "pass")])
    assert suspect.fault == "relu.call.stateless/kept-mask"


def test_the_smallest_case_says_which_operands_were_absent():
    assert "bias=None" in str(Case("linear", {"x": np.ones(1), "weight": np.ones((1, 1)), "bias": None}, {}))

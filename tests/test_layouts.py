"""Layouts: how arrays lie in memory, how the cases of checks get them, and whose the failures are that need them."""

from __future__ import annotations

import json
import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from nnspec.adapters.for_torch import Torch
from nnspec.conformance.case import Case
from nnspec.conformance.checks import load_checks
from nnspec.conformance.drawing import LENGTH, Draw
from nnspec.conformance.layouts import EXPANDED, LAYOUTS, as_laid_out, laid_out, offset_of, repeated
from nnspec.conformance.requirements import CHECKS, about_layout
from nnspec.conformance.trial.layouts import in_layouts

# -- memory ------------------------------------------------------------------------------------------------------------

SHAPES = [(), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (1, 1, 1, 1), (0, 3), (2, 0, 3, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_keep_the_values(layout, shape):
    a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    arranged = LAYOUTS[layout](a)
    assert arranged.dtype == a.dtype
    assert np.array_equal(arranged, a)
    assert not np.shares_memory(arranged, a) or a.ndim == 0
    assert arranged.flags.writeable


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_not_the_plain_one(layout):
    a = repeated(np.random.default_rng(0).standard_normal((2, 3, 4, 5)), 1)
    arranged = LAYOUTS[layout](a)
    assert not arranged.flags.c_contiguous or offset_of(arranged)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_copy_keeps_the_layout(layout):
    a = LAYOUTS[layout](repeated(np.random.default_rng(0).standard_normal((2, 3, 4, 5)), 1))
    copy = as_laid_out(a)
    assert (copy.strides, offset_of(copy)) == (a.strides, offset_of(a))
    assert np.array_equal(copy, a)
    assert not np.shares_memory(copy, a)


def test_a_copy_keeps_a_stride_of_zero():
    a = np.broadcast_to(np.arange(3.0), (4, 3))
    assert as_laid_out(a).strides == (0, 8)
    assert np.array_equal(laid_out(np.array(a), (0, 8)), a)


@pytest.mark.parametrize("layout", ["offset", "part of a larger array"])
def test_the_memory_around_an_array_holds_nan(layout):
    arranged = LAYOUTS[layout](np.ones((2, 3)))
    whole = arranged.base
    while whole.base is not None:
        whole = whole.base
    assert np.isnan(whole).sum() == whole.size - 6


def test_an_expanded_array_has_a_stride_of_zero_where_its_values_repeat():
    a = np.random.default_rng(0).standard_normal((2, 3, 4))
    assert LAYOUTS[EXPANDED](repeated(a, 1)).strides[1] == 0
    assert LAYOUTS[EXPANDED](a).flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tensor_lies_as_the_array_does(layout, dtype):
    a = LAYOUTS[layout](repeated(np.arange(24.0).reshape(2, 3, 4).astype(dtype), 0))
    tensor = Torch().to_native(a)
    assert np.array_equal(Torch().to_numpy(tensor), a)
    if layout != "negative strides":  # torch has none
        assert [stride * a.itemsize for stride in tensor.stride()] == [*a.strides]
        assert tensor.storage_offset() == offset_of(a)


# -- cases -------------------------------------------------------------------------------------------------------------


def drawn(identifier: str, form: str, count: int = 400) -> list[Case]:
    load_checks()
    check, source = CHECKS[identifier], random.Random(0)
    decision = in_layouts(check.drawn(), check, form)
    return [decision.make(Draw(source.randbytes(LENGTH))) for _ in range(count)]


def test_one_case_in_two_has_layouts_and_each_operand_its_own():
    cases = drawn("conv2d.gradient.x", "function")
    assert 0.4 < np.mean([bool(case.layouts) for case in cases]) < 0.6
    for name in ("x", "weight", "bias", "cotangent"):
        of_operand = {case.layouts.get(name) for case in cases}
        assert of_operand >= {"negative strides", "offset", EXPANDED}
    assert {case.layouts[name] for case in cases for name in case.layouts} == {*LAYOUTS}
    assert any(len({*case.layouts.values()}) > 1 for case in cases)


def test_the_smallest_case_is_contiguous():
    check = CHECKS["conv2d.gradient.x"]
    assert not in_layouts(check.drawn(), check, "function").make(Draw(bytes(LENGTH))).layouts


def test_a_row_makes_the_same_case_with_layouts_or_without():
    check, row = CHECKS["conv2d.gradient.x"], random.Random(3).randbytes(LENGTH)
    with_layouts = in_layouts(check.drawn(), check, "function").make(Draw(row))
    plain = check.drawn().make(Draw(row))
    assert with_layouts.arguments == plain.arguments
    assert [a is None or a.shape for a in with_layouts.arrays.values()] == [
        a is None or a.shape for a in plain.arrays.values()
    ]


def test_parameters_of_modules_have_no_layouts_since_modules_copy_them():
    assert {name for case in drawn("linear.gradient.x", "class") for name in case.layouts} == {"x", "cotangent"}


def test_what_has_to_be_distinct_repeats_in_whole_channels_alone():
    cases = drawn("max_pool2d.gradient.x", "function")
    assert {case.layouts[name] for case in cases for name in case.layouts if name == "x"} == {*LAYOUTS}
    assert all(
        len(np.unique(image)) == image.size for case in cases for image in case["x"].reshape(-1, *case["x"].shape[2:])
    )
    assert any(case.layouts.get("cotangent") == EXPANDED for case in cases)


def test_nothing_is_expanded_where_a_value_is_not_finite():
    """NumPy's einsum takes a factor that repeats out of the sum, which gives ∞·(1 − 2) in the place of ∞·1 − ∞·2."""
    cases = drawn("linear.special.value", "function")
    assert all(np.isfinite(case["x"]).all() for case in cases if EXPANDED in case.layouts.values())
    assert any(case.layouts for case in cases)


# -- failures ----------------------------------------------------------------------------------------------------------


def test_each_check_that_compares_numbers_has_a_requirement_about_layout():
    """Except for ResNet-34's gradients: its page has no such requirement, so they answer for themselves."""
    load_checks()
    lacking = set()
    for check in CHECKS.values():
        drawn = check.compares and "domain" not in check.needs  # there is no case outside a domain without one
        case = check.drawn().make(Draw(bytes(LENGTH))) if drawn else None
        if isinstance(case, Case) and case.arrays and about_layout(check, case) is check:
            lacking.add(check.identifier)
    assert lacking == {"resnet34.gradient.parameters", "resnet34.gradient.value"}


WRONG = """
    import numpy as np

    UNSUPPORTED = {"linear.refuses.*": "this is not about refusals"}

    def linear(x, weight, bias=None):
        if x.size > 1 and x.strides[-1] == 2 * x.itemsize and weight.strides[-1] != 2 * x.itemsize:
            return np.zeros((*x.shape[:-1], len(weight)), x.dtype)
        return x @ weight.T + (0 if bias is None else bias)
"""


def test_a_failure_that_needs_its_layout_belongs_to_the_requirement_about_layout(desk):
    done = desk.check(WRONG, "-n", 2)
    assert done.verdicts("fail") == {"linear.input.layout"}
    found = next(r for r in done.report["results"] if r["verdict"] == "fail")
    assert found["found_by"] in done.verdicts("pass")
    assert found["failure"]["case"]["call"].count("every second element") == 1
    assert desk.run(found["failure"]["script"]).code == 1
    assert f"found by the check of {found['found_by']}" in done.out

    log = desk.folder / "nnspec-report" / "results.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-3]))
    again = desk.nnspec("check", "layers.py", "-n", 0, "--resume")
    assert again.verdicts("fail") == {"linear.input.layout"}


def test_a_mistake_in_values_is_found_beside_one_about_layout(desk):
    done = desk.check(WRONG.replace("(0 if", "0.5 + (0 if"), "-n", 0, "--dtype", "float64")
    assert {"linear.input.layout", "linear.output.value"} <= done.verdicts("fail")
    of = {r["requirement"]: r for r in done.report["results"]}
    assert of["linear.output.value"]["found_by"] is None
    assert "every second" not in json.dumps(of["linear.output.value"]["failure"]["case"])


def test_a_layout_for_which_torch_raises_is_declined():
    """Where x is channels last, torch takes this weight for channels last and its gradient for contiguous."""
    x = torch.zeros(1, 1, 2, 1, dtype=torch.float64).permute(0, 3, 1, 2)
    ambiguous = torch.zeros(2, 1, 1, 2, dtype=torch.float64).permute(1, 3, 2, 0)
    for weight, defective in ((ambiguous, True), (ambiguous.contiguous(), False)):
        arrays = {"x": x.numpy(), "weight": weight.numpy(), "bias": None, "cotangent": None}
        assert bool(Torch().known_defect("conv_transpose2d", arrays, {})) == defective
        y = torch.nn.functional.conv_transpose2d(x, weight.requires_grad_())
        with pytest.raises(RuntimeError, match="contiguous") if defective else nullcontext():
            torch.autograd.grad(y, weight, torch.zeros_like(y))

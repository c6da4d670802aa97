"""Memory around operands and under results: what reads, writes and leaves it, in NumPy and in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnspec.adapters.for_jax import JAX
from nnspec.adapters.for_numpy import NumPy
from nnspec.adapters.for_torch import Torch
from nnspec.adapters.loading import load
from nnspec.conformance.case import Case
from nnspec.conformance.checks import load_checks
from nnspec.conformance.layouts import ALIGNED, AROUND, filled, guarded, offset_of, offsets
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial import guards
from nnspec.conformance.trial.trial import Trial

DTYPES = ("float16", "bfloat16", "float32", "float64")


def judged(subject, requirement, framework="numpy", dtype="float32", form="function"):
    load_checks()
    return Trial(load(subject, framework), form, dtype).run(CHECKS[requirement])


# -- guarded operands --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_operands_lie_at_offsets_of_one_element_and_of_4_16_and_64_bytes(dtype):
    a = np.arange(6).reshape(2, 3).astype(dtype)
    assert {a.itemsize, 16, 64} <= set(offsets(a.dtype)) <= {a.itemsize, 4, 16, 64}
    for offset in offsets(a.dtype):
        inside = guarded(a, offset, np.nan)
        assert inside.__array_interface__["data"][0] % ALIGNED == offset
        assert np.array_equal(inside, a)
        assert AROUND <= offset_of(inside) <= AROUND + 64
        assert np.isnan(inside.base.astype(np.float64)).sum() == inside.base.size - a.size


@pytest.mark.parametrize("adapter", [NumPy(), Torch()], ids=["numpy", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_adapters_keep_the_place_of_an_operand(adapter, dtype):
    inside = guarded(np.arange(6).reshape(2, 3).astype(dtype), 64, 97.0)
    native = adapter.to_native(inside)
    whole = adapter.surroundings(native)
    assert np.array_equal(adapter.to_numpy(native), inside)
    assert whole.dtype == inside.dtype
    assert np.array_equal(whole, inside.base)
    assert not np.shares_memory(whole, inside)


def test_numbers_around_operands_have_both_signs():
    assert filled(3, np.dtype("float32"), 97.0).tolist() == [97, -97, 97]


# -- reads and writes outside ------------------------------------------------------------------------------------------


def masked(x):
    """A ReLU by vectors of four, whose last vector reads what lies behind x; the mask comes after a sum."""
    whole = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
    begin, size = x.storage_offset(), -(-x.numel() // 4) * 4
    vectors = whole[begin : begin + size]
    spill = vectors[x.numel() :].sum() * 0 if vectors.numel() == size else 0
    return torch.relu(x) + spill


def test_torch_is_judged_on_what_its_storage_holds():
    outcome = judged({"relu": masked}, "relu.memory.in-bounds", "torch")
    assert outcome.verdict == "fail"
    assert "with NaN in place of numbers around the operands, the result" in outcome.failure.message
    assert judged({"relu": torch.relu}, "relu.memory.in-bounds", "torch").verdict == "pass"


def test_a_write_outside_is_told_with_its_place():
    def relu(x):
        whole = x.base if isinstance(x.base, np.ndarray) else x.reshape(-1)
        begin = offset_of(x)
        if begin:
            whole[begin - 2] = 5
        return np.maximum(x, 0)

    failure = judged({"relu": relu}, "relu.memory.in-bounds").failure
    assert "memory outside x was written to: the element 2 before it is 5.0" in failure.message


def test_gradients_are_judged_too():
    class Spills(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(context, g):
            (x,) = context.saved_tensors
            whole = torch.empty(0, dtype=g.dtype).set_(g.untyped_storage())
            return g * (x > 0) + whole.sum() * 0

    outcome = judged({"relu": Spills.apply}, "relu.memory.in-bounds", "torch")
    assert outcome.verdict == "fail"
    assert "the gradient of x" in outcome.failure.message


# -- freed memory ------------------------------------------------------------------------------------------------------


def test_a_row_left_unwritten_is_seen_in_torch():
    def relu(x):
        y = torch.empty_like(x)
        y[: len(x) // 2] = torch.relu(x[: len(x) // 2])
        y[len(x) // 2 :] += 0 if len(x) < 2 else torch.relu(x[len(x) // 2 :]) - y[len(x) // 2 :]
        return y

    assert judged({"relu": relu}, "relu.memory.all-written", "torch").verdict == "fail"
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("adapter", "empty"), [(NumPy(), np.empty), (Torch(), torch.empty)], ids=["numpy", "torch"])
def test_new_arrays_hold_the_numbers_of_freed_ones(adapter, empty):
    arrays = [filled((4000 + more) // 4, np.dtype("float32"), 97.0) for more in guards.LARGER]
    end = adapter.dirty(arrays)
    dtype = np.float32 if empty is np.empty else torch.float32
    held = np.asarray([np.asarray(array) for array in [empty(1000, dtype=dtype) for _ in range(2)]])
    end()
    assert np.mean(np.abs(held) == 97) > 0.5


def test_scripts_fill_freed_memory_too():
    load_checks()
    trial = Trial(load("reference"), "function", "float32")
    with guards.dirtied(trial, [np.zeros((2, 3), np.float32)], np.nan):
        trial(Case("relu", {"x": np.ones((2, 3), np.float32)}))
    (line,) = trial.steps[0].lines(None)
    assert line.startswith("dirty([")
    assert "np.nan" in line


# -- alignment, and frameworks that place arrays by themselves ---------------------------------------------------------


def test_a_wrong_path_for_misaligned_pointers_is_seen():
    def relu(x):
        return torch.relu(x) if x.data_ptr() % 64 == 0 or x.data_ptr() % 16 else torch.zeros_like(x)

    outcome = judged({"relu": relu}, "relu.memory.alignment", "torch")
    assert "with operands 16 bytes behind an address divisible by 128" in outcome.failure.message


@pytest.mark.parametrize("name", ["in-bounds", "all-written", "alignment"])
def test_requirements_are_unsupported_where_the_adapter_cannot_tell(name):
    assert not hasattr(JAX, "surroundings")
    outcome = judged({"relu": lambda x: x}, f"relu.memory.{name}", "jax")
    assert outcome.verdict == "unsupported"
    assert outcome.reason

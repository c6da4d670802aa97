"""16-bit types: who is judged in them, and cases whose sums are within the range of float16."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
from nnspec.conformance.checks import load_checks
from nnspec.conformance.drawing import LENGTH, Draw
from nnspec.conformance.formats import FLOAT16
from nnspec.conformance.requirements import CHECKS, Check
from nnspec.reference.avg_pool2d import avg_pool2d, avg_pool2d_vjp
from nnspec.reference.conv2d import conv2d, conv2d_vjp
from nnspec.reference.conv_transpose2d import conv_transpose2d, conv_transpose2d_vjp
from nnspec.reference.einsum import einsum
from nnspec.reference.linear import linear, linear_vjp

SUMS = {
    "linear": (linear, linear_vjp),
    "conv2d": (conv2d, conv2d_vjp),
    "conv_transpose2d": (conv_transpose2d, conv_transpose2d_vjp),
    "avg_pool2d": (avg_pool2d, avg_pool2d_vjp),
}
load_checks()
NARROW = {identifier: check for identifier, check in CHECKS.items() if check.narrow}


def sizes_of_sums(case):
    """Return the sums of the absolute values of the terms, of each result or gradient."""
    arrays = {n: None if a is None else np.abs(a).astype(np.float64) for n, a in case.arrays.items()}
    arguments = {**case.arguments, **({"divisor_override": 1} if case.stem == "avg_pool2d" else {})}
    cotangent = arrays.pop("cotangent", None)
    if case.stem == "einsum":
        return [einsum(*arguments.values(), *arrays.values())] if cotangent is None else []
    function, vjp = SUMS[case.stem]
    if cotangent is None:
        return [function(*arrays.values(), **arguments)]
    if "bias" in arrays and arrays["bias"] is None:
        arrays["bias"] = np.zeros(case["cotangent"].shape[-1 if case.stem == "linear" else 1])
    found = vjp(cotangent, *arrays.values(), **arguments)
    return found if isinstance(found, tuple) else [found]


def drawn(check: Check, dtype: str):
    source = random.Random(0)
    return [check.drawn(dtype).make(Draw(source.randbytes(LENGTH))) for _ in range(150)]


@pytest.mark.parametrize("identifier", [i for i, check in NARROW.items() if check.stem in (*SUMS, "einsum")])
def test_no_sum_of_products_is_beyond_the_range_of_float16(identifier):
    found = [s.max(initial=0) for case in drawn(NARROW[identifier], "float16") for s in sizes_of_sums(case)]
    assert max(found, default=0) <= FLOAT16.largest


@pytest.mark.parametrize(
    "topic", ["arguments.together", "train.variance", "train.offset", "train.constant", "gradient.axes", "law.scale"]
)
def test_no_sum_of_squares_of_a_channel_is_beyond_the_range_of_float16(topic):
    for case in drawn(CHECKS[f"batch_norm.{topic}"], "float16"):
        x = case["x"].astype(np.float64)
        assert (16 * x**2).sum((0, *range(2, x.ndim))).max(initial=0) <= FLOAT16.largest * 1.1
        assert np.isfinite(x).all()


def test_frameworks_are_judged_in_16_bits_from_ci_on_and_files_in_what_they_claim():
    torch = SimpleNamespace(name="torch", dtypes=("float32", "float64"), further_dtypes=("float16", "bfloat16"))
    file = SimpleNamespace(**{**vars(torch), "name": "my_layers.py"})
    check = CHECKS["sgd.step.every-element"]
    assert check.dtypes_of(torch, "ci") == ("float32", "float64", "float16", "bfloat16")
    assert check.dtypes_of(torch, "quick") == check.dtypes_of(file, "ci") == ("float32", "float64")
    assert CHECKS["sgd.step.value"].dtypes_of(torch, "ci") == ("float32", "float64")


def test_each_block_with_sums_has_a_check_in_16_bits():
    blocks = {check.stem for check in NARROW.values()}
    assert blocks == {*SUMS, "einsum", "batch_norm", "global_avg_pool2d", "mlp", "sgd"}

"""Mistakes of kernels: right on sizes up to a block, wrong beyond it."""

from __future__ import annotations

import functools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from measure_kernels import markdown, shares
from nnspec.adapters.for_reference import subject as reference
from nnspec.adapters.signatures import EQUATION, SIGNATURES
from nnspec.conformance.checks import load_checks
from nnspec.conformance.faults import catalogue, measured_kernels
from nnspec.conformance.power import judge, measure
from nnspec.conformance.report.diagnosis import causes
from nnspec.conformance.requirements import CHECKS

FAULTS = catalogue("boundary")
BLOCKS = (
    "avg_pool2d", "basic_block", "batch_norm", "conv2d", "conv_transpose2d", "einsum", "global_avg_pool2d", "linear",
    "max_pool2d", "mlp", "relu", "sgd",
)  # fmt: skip


def block(key):
    """The size of the block, which is the end of the key."""
    return int(key.rpartition("-")[2])


def kind(key):
    return key.rpartition("-")[0]


def values(*shape):
    rng = np.random.default_rng(0)
    return (rng.integers(1, 9, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


def returned(function, name, arrays, arguments):
    """What a function gives as a tuple; a vjp with a cotangent of the right result."""
    arguments = dict(arguments)
    operands = [*([arguments.pop(EQUATION)] if EQUATION in arguments else []), *arrays.values()]
    if name.endswith("_vjp"):
        y = reference().functions[name.removesuffix("_vjp")](*operands, **arguments)
        y = y[0] if isinstance(y, tuple) else y
        operands = [values(*y.shape), *operands]
    found = function(*operands, **arguments)
    return found if isinstance(found, tuple) else (found,)


def test_catalogue_of_small_sizes_has_none_of_them():
    assert not catalogue().keys() & FAULTS.keys()
    assert {fault.sizes for fault in catalogue().values()} == {"small"}
    assert catalogue("all") == FAULTS


def test_every_kind_of_mistake_comes_with_three_sizes_of_the_block():
    few = [name for name, n in Counter(map(kind, FAULTS)).items() if n < 3]
    assert few == []
    assert len({*map(kind, FAULTS)}) > 200


@pytest.mark.parametrize("stem", BLOCKS)
def test_every_block_has_mistakes_forward_and_backward(stem):
    keys = [key for key, fault in FAULTS.items() if fault.stem == stem]
    assert any(".gradient." not in key for key in keys)
    assert stem == "sgd" or any(".gradient." in key for key in keys)


@pytest.mark.parametrize("stem", [stem for stem in BLOCKS if SIGNATURES[stem].function])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_calls_of_small_sizes_are_right(stem):
    """A call is small for a fault if none of its arrays has as many elements as a block."""
    wrong, compared = [], 0
    for shapes, arguments in SIGNATURES[stem].calls:
        arrays = {name: None if shape is None else values(*shape) for name, shape in shapes.items()}
        size = max(a.size for a in arrays.values() if a is not None)
        right = functools.cache(lambda name, a=arrays, h=arguments: returned(reference().functions[name], name, a, h))
        for key in (key for key, fault in FAULTS.items() if fault.stem == stem and block(key) > size):
            ((name, function),) = FAULTS[key].pieces.items()
            compared += 1
            pairs = zip(returned(function, name, arrays, arguments), right(name), strict=True)
            wrong += [key for a, b in pairs if not (a is b is None) and not np.array_equal(a, b, equal_nan=True)]
    assert wrong == []
    assert compared > 10


def test_a_partial_block_of_columns_is_left_out_and_a_full_one_is_not():
    function = FAULTS["conv2d.arguments.together/columns-tail-32"].pieces["conv2d"]
    x, weight = values(1, 1, 2, 65), values(1, 1, 1, 1)
    y, right = (f(x, weight) for f in (function, reference().functions["conv2d"]))
    assert np.array_equal(y[..., :64], right[..., :64])
    assert not y[..., 64:].any()
    assert np.array_equal(function(x[..., :64], weight), right[..., :64])


SAMPLE = (  # of every block, forward and backward
    "avg_pool2d.arguments.together/columns-stale-16",
    "batch_norm.arguments.together/variance-merge-32",
    "batch_norm.gradient.x/sums-64",
    "conv2d.arguments.together/columns-tail-32",
    "conv2d.arguments.together/pointwise-8",
    "conv2d.arguments.together/winograd-odd-row-16",
    "conv2d.gradient.weight/windows-of-the-batch-first-block-256",
    "conv_transpose2d.arguments.together/sub-pixel-4",
    "einsum.arguments.together/terms-tail-16",
    "global_avg_pool2d.output.value/equal-parts-64",
    "linear.arguments.together/input-features-seam-64",
    "linear.gradient.weight/rows-lost-32",
    "max_pool2d.arguments.together/channels-repeated-32",
    "max_pool2d.gradient.x/place-256",
    "mlp.arguments.together/beyond-128",
    "relu.negative.zero/tail-16",
    "relu.positive.kept/elements-tail-256",
)


@pytest.mark.parametrize("key", SAMPLE)
def test_the_own_check_kills_a_mistake_with_large_sizes(key):
    assert measure(key, "quick", 0, "boundary").killed
    assert FAULTS[key].fix.startswith("A size may be larger than a block")


def test_most_mistakes_of_kernels_are_out_of_reach_of_small_sizes():
    killed = sum(measure(key, "quick", 0).killed for key in SAMPLE if "conv2d" in key)
    assert killed <= 2


def test_page_of_evidence_has_the_score_that_was_measured():
    """`python benchmarks/quality/measure_kernels.py` writes the score and the file that it is made from."""
    page = (Path(__file__).parents[1] / "spec" / "evidence.md").read_text("utf-8")
    assert measured_kernels().keys() == FAULTS.keys()
    assert markdown(measured_kernels()) in page
    killed, runs = shares(measured_kernels())["quick boundary"]
    assert killed >= 0.9 * runs


def test_power_puts_mistakes_of_kernels_to_large_sizes(desk):
    done = desk.nnspec("power", "--block", "sgd", "--profile", "quick", "--sizes", "boundary", "--json", "power.json")
    score = json.loads((desk.folder / "power.json").read_text("utf-8"))
    assert (score["sizes"], score["faults"]) == ("boundary", sum(f.stem == "sgd" for f in FAULTS.values()))
    assert done.code == (score["killed"] < score["runs"])
    assert "profile quick, sizes boundary" in done.out


def test_a_tail_is_named_by_the_size_of_its_block():
    function = FAULTS["conv2d.arguments.together/columns-tail-32"].pieces["conv2d"]
    subject = replace(reference(), functions={"conv2d": function}, classes={})
    load_checks()
    check = CHECKS["conv2d.arguments.together"]
    outcome = judge(subject, check, "quick", 0, "boundary")
    assert "the last, partial block of 32 columns is left out" in [cause.mistake for cause in causes(check, outcome)]

"""Mistakes of kernels: right on sizes up to a block, wrong beyond it."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest
from nnspec.adapters.for_reference import subject as reference
from nnspec.adapters.signatures import EQUATION, SIGNATURES
from nnspec.conformance.faults import catalogue

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

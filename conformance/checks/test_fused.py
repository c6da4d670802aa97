"""The requirements of spec/fused.md, in the page's order."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from nnspec.adapters.chains import Stage, arguments_of, stages
from nnspec.adapters.names import LONG
from nnspec.adapters.signatures import CHAIN
from nnspec.conformance.bounds.chain import expected, expected_gradients
from nnspec.conformance.case import Case, as_pair
from nnspec.conformance.checks import laws, laws_of_gradients
from nnspec.conformance.checks.cases import Data, data, specials, with_cotangent
from nnspec.conformance.checks.laws import Laws
from nnspec.conformance.drawing import (
    MORE_OFTEN,
    Decision,
    Draw,
    any_of,
    composite,
    dimension,
    integers,
    pairs,
    reaches,
)
from nnspec.conformance.requirements import CHECKS
from nnspec.reference.fused import fused_chain

CHAINS = (  # drawn for a subject that takes any chain
    "conv2d | batch_norm | relu",
    "linear | batch_norm | relu",
    "conv2d | relu | max_pool2d",
    "conv_transpose2d | batch_norm | relu",
    "batch_norm | relu | conv2d",
    "relu | avg_pool2d",
    "conv2d | batch_norm | relu | conv2d | batch_norm",
    "relu | conv2d | global_avg_pool2d | linear",
)
LAYERS = ("conv2d", "conv_transpose2d", "linear")
EPS = (1e-5, 0.1, 1.0)


@composite
def cases(draw, *, dtype: str, lacks: frozenset[str] = frozenset(), batch: int = 1):
    """A chain, and operands and arguments for its blocks, so that no image runs out of rows or columns.

    A subject's domain has its chain, and False for each operand and a value for each argument that it does not take.
    """
    chain = draw(any_of(*_values(draw, CHAIN, CHAINS)))
    steps = stages(chain)
    arguments = {name: neutral for name, neutral in arguments_of(chain).items()}
    options = {stage: _options(draw, stage, arguments) for stage in steps}
    values, channels = draw(data(dtype)), draw(dimension(1, 2, 3, 4))
    n, rank = draw(dimension(*range(batch, 4))), 2 if steps[0].block == "linear" else 4
    size = _size(draw, steps, options) if rank == 4 else ()
    arrays: dict[str, Any] = {"x": values.inputs(n, channels, *size)}
    shape = arrays["x"].shape
    for number, stage in enumerate(steps):
        own = _entries(draw, values, stage, shape, options[stage])
        arrays |= own
        before = {CHAIN: " | ".join(s.block for s in steps[: number + 1])}
        shape = _shape({**before, **_given(steps[: number + 1], options)}, arrays)
    return Case("fused", arrays, {CHAIN: chain, **_given(steps, options)})


def _given(steps: tuple[Stage, ...], options: dict[Stage, dict[str, Any]]) -> dict[str, Any]:
    return {
        name: options[stage][own] for stage in steps for name, own in stage.arguments.items() if own in options[stage]
    }


def _values(draw: Draw, name: str, others: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values of a quantity that the subject's domain lists, else the others."""
    condition = draw.domain.conditions.get(name)
    return others if condition is None or condition.values is None else condition.values


def _options(draw: Draw, stage: Stage, neutral: dict[str, Any]) -> dict[str, Any]:
    """Draw the arguments of a block."""
    found: dict[str, Any] = {}
    for name, own in stage.arguments.items():
        least, most = {"kernel_size": (1, 3), "padding": (0, 2), "output_padding": (0, 0)}.get(own, (1, 2))
        if name in draw.domain.conditions:
            found[own] = draw(any_of(*_values(draw, name, ())))
        elif own == "eps":
            found[own] = draw(any_of(*EPS))
        elif own == "groups":
            found[own] = neutral[name]
        else:
            found[own] = draw(pairs(least, most, own))
    if stage.block.endswith("pool2d") and "padding" in found:  # at most half of the window
        half = tuple(k // 2 for k in as_pair(found["kernel_size"]))
        found["padding"] = tuple(min(p, h) for p, h in zip(as_pair(found["padding"]), half, strict=True))
    return found


def _size(draw: Draw, steps: tuple[Stage, ...], options: dict[Stage, dict[str, Any]]) -> tuple[int, ...]:
    """Return rows and columns of x: enough for a few windows of the last block, with what each block leaves over."""
    sides = []
    for axis in (0, 1):
        side = draw(dimension(1, 2, 3, 2, of="windows"))
        for stage in reversed(steps):
            kernel = draw(dimension(1, 2, 3, of="kernel")) if stage.block in LAYERS[:2] else 1
            options[stage].setdefault("kernel", []).append(kernel)
            side = _side_before(stage, {**options[stage], "kernel": kernel}, side, axis) + draw(integers(0, 1))
        sides.append(side)
    return tuple(sides)


def _side_before(stage: Stage, options: dict[str, Any], side: int, axis: int) -> int:
    """Return the least rows or columns from which a block makes so many."""
    if stage.block not in (*LAYERS[:2], "max_pool2d", "avg_pool2d"):
        return side
    kernel = as_pair(options["kernel_size"])[axis] if "kernel_size" in options else options["kernel"]
    apart, padding = (as_pair(options.get(name, 1))[axis] for name in ("dilation", "padding"))
    stride = options.get("stride")
    step = kernel if stride is None else as_pair(stride)[axis]
    reach = apart * (kernel - 1) + 1
    if stage.block == "conv_transpose2d":
        return max(1, -(-(side - reach + 2 * padding) // step) + 1)
    return max(1, (side - 1) * step + reach - 2 * padding)


def _entries(draw: Draw, values: Data, stage: Stage, shape: tuple[int, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Draw the operands of a block that is applied to an array of this shape. One that the subject lacks is absent."""
    outputs, kernel = draw(dimension(1, 2, 3, 4)), options.pop("kernel", (1, 1))
    inputs = shape[-1] if stage.block == "linear" else shape[1]
    groups, channels = options.get("groups", 1), shape[1] if len(shape) > 1 else 1
    shapes = {
        "linear": (outputs, inputs),
        "conv2d": (outputs * groups, inputs // groups, *kernel),
        "conv_transpose2d": (inputs, outputs, *kernel),
    }
    made: dict[str, Any] = {}
    for name, own in stage.operands.items():
        if not any(_values(draw, name, (True,))):
            made[name] = None
        elif own == "running_var":
            made[name] = np.abs(values.inputs(channels))
        elif stage.block == "batch_norm":
            made[name] = values.inputs(channels)
        elif own == "weight":
            made[name] = values.weights(*shapes[stage.block])
        else:
            length = shapes[stage.block][0] if stage.block != "conv_transpose2d" else outputs * groups
            made[name] = values.offsets(length) if draw(MORE_OFTEN) else None
    return made


def _shape(arguments: dict[str, Any], arrays: dict[str, Any]) -> tuple[int, ...]:
    """Return the shape that the blocks so far give."""
    chain, (x, *operands) = arguments.pop(CHAIN), arrays.values()
    return fused_chain(chain, x, *operands, **arguments).shape


def shape_of(case: Case) -> tuple[int, ...]:
    """Return the shape of a chain's result."""
    return expected(case).value.shape


law = Laws(cases, expected)

# -- values ------------------------------------------------------------------------------------------------------------


test_output_value = law("fused.output.value", laws.equals_reference, "Each block is applied to the result before it.")
test_batch_independent = law("fused.batch.independent", laws.judges_images_alone)
test_special_value = law(
    "fused.special.value",
    laws.equals_reference,
    "Where the blocks take it, and nowhere else.",
    cases=specials,
    of=cases,
    operand="x",
    dtypes=LONG,
)


# -- results and operands ----------------------------------------------------------------------------------------------


test_output_shape = law("fused.output.shape", laws.has_shape(shape_of), "That of the last block.")
test_output_dtype = law("fused.output.dtype", laws.keeps_dtype)
test_input_unchanged = law("fused.input.unchanged", laws.leaves_operands)
test_input_layout = law("fused.input.layout", laws.ignores_layout)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(*, dtype: str, lacks: frozenset[str], **choices: Any) -> Decision[Case]:
    """Cases and a cotangent of the result."""
    return with_cotangent(cases(dtype=dtype, lacks=lacks, **choices), shape_of)


gradient = Laws(gradients, expected_gradients, needs=("vjp",))
test_gradient_value = gradient(
    "fused.gradient.value", laws_of_gradients.values(), "That of x, and of each weight and bias."
)
test_gradient_layout = gradient("fused.gradient.layout", laws_of_gradients.ignores_layout)


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def _has_chain(chain: str, case: Case) -> bool:
    return bool(case[CHAIN] == chain)


def test_reach_chains() -> None:
    """Each chain; a layer without a bias before a norm; strides and padding; results on both sides of 0."""
    decision = CHECKS["fused.output.value"].drawn()
    for chain in CHAINS:
        reaches(decision, functools.partial(_has_chain, chain))
    reaches(decision, lambda case: case.arrays.get("conv2d_bias", 0) is None and "batch_norm_weight" in case.arrays)
    reaches(decision, lambda case: case.arguments.get("conv2d_stride", 1) != 1)
    reaches(decision, lambda case: case.arguments.get("conv2d_padding", 0) != 0)
    reaches(decision, lambda case: 0 < np.count_nonzero(expected(case).value) < expected(case).value.size)

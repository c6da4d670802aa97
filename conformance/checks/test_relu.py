"""The requirements of spec/relu.md, in the page's order."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import OutOfDomain
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Array, Case
from nnspec.conformance.checks import alternatives, domains, laws, laws_of_gradients, laws_of_memory, laws_of_state
from nnspec.conformance.checks.cases import data, wholes
from nnspec.conformance.checks.laws import Laws
from nnspec.conformance.drawing import (
    Draw,
    any_of,
    booleans,
    composite,
    dimension,
    integers,
    legal,
    lists,
    reaches,
    some_of,
)
from nnspec.conformance.formats import STORED
from nnspec.conformance.requirements import requirement
from nnspec.conformance.sizes import SWEEPS, Sweep
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.relu import relu, relu_vjp

SWEEPS["relu"] = Sweep(
    layers=tuple(
        {"axis0": channels, "axis1": side, "axis2": side}
        for channels, side in ((64, 112), (64, 113), (64, 56), (128, 28), (256, 14), (512, 7), (64, 224))
    ),  # images of ResNet-34 at 224 × 224 and at an odd side, and of VGG
    names={f"axis{axis}": f"the size of axis {axis}" for axis in range(5)},
    axes=(("axis0",), ("axis1",), ("axis2",), ("axis0", "axis1")),
)


@composite
def cases(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    smallest: int = 1,
    axes: tuple[int, int] = (1, 3),
    batch: int = 1,
):
    """An array of values of both signs, with as many axes as `axes` says and no size below `smallest`."""
    shape = _within(draw, draw(lists(dimension(*range(smallest, 4), 5), min_size=axes[0], max_size=axes[1])))
    values = draw(data(dtype, ("integers", "normal")))
    return Case("relu", {"x": values.inputs(*([max(batch, shape[0]), *shape[1:]] if shape else ()))})


def _within(draw: Draw, shape: list[int]) -> list[int]:
    """Return a shape like this one that the domain allows."""
    if "ndim" in draw.domain.conditions:
        axes = legal(draw, "ndim", len(shape))
        shape = [*shape, *[1] * axes][:axes]
    if draw.domain.allows("size", math.prod(shape)):
        return shape
    if not shape:
        raise OutOfDomain(draw.domain.outside("size"))
    return [*[1] * (len(shape) - 1), legal(draw, "size", math.prod(shape))]


@composite
def scaled(draw, *, dtype: str, lacks: frozenset[str], sign: int, special: tuple[str, ...]):
    """Values of one sign and of every magnitude that a normal number may have, some of `special` among them."""
    case = draw(cases(dtype=dtype, axes=(1, 4)))
    x = np.abs(_of_every_magnitude(draw, case["x"]))
    form = STORED[dtype]
    named = {"zero": 0.0, "largest": form.largest, "smallest": form.tiny, "infinite": np.inf}
    return case.but(x=_among(draw, sign * x, [sign * named[name] for name in special], draw(integers(0, 1))))


@composite
def spiked(draw, *, dtype: str, lacks: frozenset[str], spikes: tuple[float, ...]):
    """Ordinary values with at least one of the spikes among them."""
    case = draw(cases(dtype=dtype, axes=(1, 4)))
    return case.but(x=_among(draw, case["x"], list(spikes), least=1))


def _of_every_magnitude(draw: Draw, x: Array) -> Array:
    """x as it is, or with as many numbers of its signs and of every magnitude that a normal number may have."""
    form, rng = STORED[x.dtype.name], np.random.default_rng(draw(integers(0, 2**16 - 1)))
    if draw(booleans()):
        return x
    exponents = rng.integers(form.lowest, form.highest + 1, x.shape)
    values = np.ldexp(rng.uniform(1, 2, x.shape).astype(x.dtype).astype(np.float64), exponents)
    return np.copysign(values, x.astype(np.float64)).astype(x.dtype)


def _among(draw: Draw, x: Array, values: list[float], least: int = 0) -> Array:
    """x with values put in places of their own."""
    x = np.array(x)
    for index in draw(some_of(range(x.size), least, 3)):
        x.flat[index] = draw(any_of(*values))
    return x


def expected(case: Case) -> Expected:
    """What the reference gives, exactly."""
    return Expected.exactly(relu(case["x"]))


law = Laws(cases, expected)


# -- values ------------------------------------------------------------------------------------------------------------


@requirement("relu.positive.kept", scaled, sign=1, special=("largest", "smallest"), sweeps=True, spread=True)
def test_positive_kept(subject: Trial, case: Case) -> None:
    """From the smallest normal number to the largest, to the last bit."""
    subject.expect(subject(case), Expected.exactly(case["x"]))


@requirement("relu.negative.zero", scaled, sign=-1, special=("zero", "largest", "smallest"), sweeps=True, spread=True)
def test_negative_zero(subject: Trial, case: Case) -> None:
    """From zero to the most negative number."""
    subject.expect(subject(case), Expected.exactly(np.zeros_like(case["x"])))


test_nan_propagates = law(
    "relu.nan.propagates",
    laws.equals_reference,
    "NaN where NaN was, and nowhere else.",
    cases=spiked,
    spikes=(np.nan,),
    spread=True,
    alternatives={"0": alternatives.gives(lambda case: expected(case.map(lambda a: np.where(np.isnan(a), 0, a))))},
)
test_infinite_value = law(
    "relu.infinite.value",
    laws.equals_reference,
    "∞ for ∞, 0 for −∞.",
    cases=spiked,
    spikes=(np.inf, -np.inf),
    spread=True,
)


test_range_ends = law("relu.range.ends", laws.keeps_subnormals, cases=wholes, of=cases)


@composite
def whole_numbers(draw, *, dtype: str, lacks: frozenset[str]):
    """Integers of both signs, the least and the largest that the dtype has among them."""
    kind = draw(any_of("int32", "int64", "int16", "int8"))
    case = draw(cases(dtype="float32"))
    limits = np.iinfo(kind)
    return case.but(x=_among(draw, np.rint(case["x"]).astype(kind), [0, limits.max, limits.min]))


@requirement("relu.integer.value", whole_numbers, per_dtype=False, forms="function")
def test_integer_value(subject: Trial, case: Case) -> None:
    """Integers for integers, of the same dtype."""
    result = subject(case)
    subject.expect(result, expected(case))
    if result.dtype != case["x"].dtype:
        message = f"the result has dtype {result.dtype}, expected {case['x'].dtype}"
        raise Mismatch(message, holds=f"result.dtype.name == '{case['x'].dtype}'")


# -- results and operands ----------------------------------------------------------------------------------------------


test_output_size = law(
    "relu.output.size",
    laws.has_shape(lambda case: case["x"].shape),
    "The input's shape, from no axes to five, with elements and without.",
    smallest=0,
    axes=(0, 5),
    spread=True,
)


test_output_dtype = law("relu.output.dtype", laws.keeps_dtype)


@requirement("relu.output.fresh", cases, effort=2)
def test_output_fresh(subject: Trial, case: Case) -> None:
    """No memory shared, no buffer used again, where nothing is negative neither."""
    laws.is_fresh(subject, case)
    laws.is_fresh(subject, case.map(np.abs))


test_input_unchanged = law("relu.input.unchanged", laws.leaves_operands)
test_input_layout = law("relu.input.layout", laws.ignores_layout, axes=(1, 4))
test_memory_in_bounds = law("relu.memory.in-bounds", laws_of_memory.stays_in_bounds)
test_memory_all_written = law("relu.memory.all-written", laws_of_memory.writes_everything)
test_memory_alignment = law("relu.memory.alignment", laws_of_memory.ignores_alignment)


@requirement("relu.batch.independent", cases, batch=2, effort=4)
def test_batch_independent(subject: Trial, case: Case) -> None:
    """Each row by itself, and each element by itself."""
    laws.judges_images_alone(subject, case, expected)
    flat = case.but(x=case["x"].reshape(-1))
    laws.judges_images_alone(subject, flat, expected)


@requirement("relu.batch.empty", cases, axes=(1, 4), spread=True)
def test_batch_empty(subject: Trial, case: Case) -> None:
    """No rows in, no rows out."""
    laws.equals_reference(subject, case.but(x=case["x"][:0]), expected)


@requirement("relu.call.stateless", cases)
def test_call_stateless(subject: Trial, case: Case) -> None:
    """A call in between, with every sign changed, changes nothing."""
    other = case.map(np.negative)
    laws.forgets(subject, (case, other), expected)
    if subject.form == "class":
        layer = subject.build(case)
        for one in (case, other, case):
            subject.expect(layer(one["x"]), expected(one), "the result of a layer that was called before")


test_call_neighbours = law("relu.call.neighbours", laws.ignores_neighbours)
test_domain_outside = law(
    "relu.domain.outside",
    domains.right_or_refused(laws.equals_reference),
    "One size or argument outside what the subject declares.",
    cases=domains.outside,
    of=cases,
    needs="domain",
)


# -- gradients ---------------------------------------------------------------------------------------------------------


@composite
def gradients(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str],
    of: Any = cases,
    cotangents: tuple[float, ...] = (),
    **choices: Any,
):
    """An array and a cotangent of every magnitude; with at least one of `cotangents` in it, where there are any."""
    case = draw(of(dtype=dtype, lacks=lacks, **choices))
    cotangent = _of_every_magnitude(draw, draw(data(dtype, ("integers", "normal"))).inputs(*case["x"].shape))
    if cotangents:
        cotangent = _among(draw, cotangent, list(cotangents), least=1)
    return replace(case, arrays={**case.arrays, "cotangent": cotangent})


def expected_gradients(case: Case) -> dict[str, Expected]:
    """What the reference gives, exactly."""
    return {"x": Expected.exactly(relu_vjp(case["cotangent"], case["x"]))}


gradient = Laws(gradients, expected_gradients, needs=("vjp",))


def gradient_equals_reference(subject: Trial, case: Case) -> None:
    """The one comparison behind every requirement on the values of gradients."""
    laws_of_gradients.equals_reference(subject, case, "x", expected_gradients(case)["x"])


LIMITS = ("largest", "smallest", "infinite")


test_gradient_positive = gradient(
    "relu.gradient.positive",
    laws_of_gradients.values("x"),
    "From the smallest normal number to ∞, and every cotangent, to the last bit.",
    of=scaled,
    sign=1,
    special=LIMITS,
    effort=0.5,  # many layouts of x and cotangent
    spread=True,
)
test_gradient_negative = gradient(
    "relu.gradient.negative",
    laws_of_gradients.values("x"),
    "From the smallest negative number to −∞.",
    of=scaled,
    sign=-1,
    special=LIMITS,
    effort=0.5,  # many layouts of x and cotangent
    spread=True,
)


def _halved_at_zero(subject: Trial, case: Case) -> None:
    right = expected_gradients(case)["x"].value
    halved = Expected.exactly(np.where(case["x"] == 0, case["cotangent"] * case["x"].dtype.type(0.5), right))
    laws_of_gradients.equals_reference(subject, case, "x", halved)


test_gradient_zero = gradient(
    "relu.gradient.zero",
    laws_of_gradients.values("x"),
    "0 and −0 among other numbers.",
    of=spiked,
    spikes=(0.0, -0.0),
    spread=True,
    alternatives={"0.5": _halved_at_zero},
    sweeps=True,
)
test_gradient_infinite_cotangent = gradient(
    "relu.gradient.infinite-cotangent",
    laws_of_gradients.values("x"),
    "On either side of 0.",
    cotangents=(np.inf, -np.inf, np.nan),
    axes=(1, 4),
    spread=True,
)
test_gradient_range = gradient("relu.gradient.range", laws_of_gradients.keeps_subnormals, cases=wholes, of=gradients)
test_gradient_like_operand = gradient(
    "relu.gradient.like-operand", laws_of_gradients.is_like_operand, smallest=0, axes=(0, 5), effort=1, spread=True
)


test_gradient_layout = gradient("relu.gradient.layout", laws_of_gradients.ignores_layout_of_all, axes=(1, 4))


test_gradient_unchanged = gradient("relu.gradient.unchanged", laws_of_gradients.leaves_operands)
test_gradient_empty = gradient(
    "relu.gradient.empty", laws_of_gradients.is_nothing_for_no_images, axes=(1, 4), spread=True
)


# -- the module --------------------------------------------------------------------------------------------------------


test_parameters_none = law("relu.parameters.none", laws_of_state.saves_nothing)


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_corners() -> None:
    """No axes, no elements, tiny and huge values, NaN and both infinities."""
    reaches(cases(dtype="float32", smallest=0, axes=(0, 5)), lambda c: c["x"].ndim == 0)
    reaches(cases(dtype="float32", smallest=0, axes=(0, 5)), lambda c: c["x"].ndim == 5 and c["x"].size == 0)
    positive = scaled(dtype="float64", lacks=frozenset(), sign=1, special=("largest",))
    reaches(positive, lambda c: c["x"].min() < 1e-100 and c["x"].max() == np.finfo("float64").max)
    negative = scaled(dtype="float32", lacks=frozenset(), sign=-1, special=("zero",))
    reaches(negative, lambda c: (c["x"] == 0).any() and (c["x"] < -1e20).any())
    infinite = spiked(dtype="float32", lacks=frozenset(), spikes=(np.inf, -np.inf))
    reaches(infinite, lambda c: (c["x"] == np.inf).any() and (c["x"] == -np.inf).any())


def test_reach_gradients() -> None:
    """±0, a NaN in the cotangent where nothing passes, huge cotangents, and arrays without axes."""
    at_zero = gradients(dtype="float32", lacks=frozenset(), of=spiked, spikes=(0.0, -0.0))
    reaches(at_zero, lambda c: ((c["x"] == 0) & np.signbit(c["x"])).any())
    spoilt = gradients(dtype="float32", lacks=frozenset(), cotangents=(np.nan,))
    reaches(spoilt, lambda c: (np.isnan(c["cotangent"]) & (c["x"] < 0)).any())
    positive = gradients(dtype="float32", lacks=frozenset(), of=scaled, sign=1, special=LIMITS)
    reaches(positive, lambda c: bool((abs(c["cotangent"]) > 1e20).any() and (c["x"] == np.inf).any()))
    any_shape = gradients(dtype="float32", lacks=frozenset(), smallest=0, axes=(0, 5))
    reaches(any_shape, lambda c: c["x"].ndim == 0)

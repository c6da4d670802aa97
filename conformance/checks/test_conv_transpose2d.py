"""The requirements of spec/conv_transpose2d.md, in the page's order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.names import LONG
from nnspec.adapters.signatures import as_number
from nnspec.conformance.bounds.convolution import fast_bound
from nnspec.conformance.bounds.rule import Expected, multilinear
from nnspec.conformance.case import Array, Case, as_pair
from nnspec.conformance.checks import domains, laws, laws_of_gradients, laws_of_memory, laws_of_state
from nnspec.conformance.checks.cases import (
    KINDS,
    Data,
    altered,
    data,
    leaving_out,
    specials,
    wholes,
    with_cotangent,
)
from nnspec.conformance.checks.convolutions import (
    TOGETHER,
    channels,
    differing_in_one,
    gradients_by,
    grouped,
    long_kernel,
    no_pair,
    rank,
    starts_uniform,
)
from nnspec.conformance.checks.laws import Laws
from nnspec.conformance.checks.within import argument, image_side, pairs_within
from nnspec.conformance.drawing import (
    MORE_OFTEN,
    SIZES,
    Decision,
    Draw,
    Plan,
    any_of,
    composite,
    dimension,
    integers,
    one_of,
    reaches,
)
from nnspec.conformance.requirements import requirement
from nnspec.conformance.sizes import SWEEPS, Sweep, arguments
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.conv2d import conv2d
from nnspec.reference.conv_transpose2d import conv_transpose2d, conv_transpose2d_vjp

PAIRS = ("stride", "padding", "output_padding", "dilation")
ALL = (*PAIRS, "groups", "bias")
UNGROUPED = tuple(name for name in ALL if name != "groups")


def _layer(channels: int, outputs: int, side: int, **given: Any) -> Plan:
    """Return the plan of a layer on square images: 4×4 kernels, stride 2, padding 1, unless something else is given."""
    shape = {"kernel": 4, "stride": 2, "padding": 1, "images": 1, "groups": 1, **given}
    return {**arguments(**shape, channels=channels, outputs=outputs), "side0": side, "side1": side}


SWEEPS["conv_transpose2d"] = Sweep(
    layers=(
        _layer(100, 512, 1, stride=1, padding=0, images=128),  # the generator of DCGAN
        *(_layer(2 * c, c, side) for c, side in ((256, 4), (128, 8), (64, 16))),
        _layer(64, 3, 32),
        *(_layer(2 * c, c, side, kernel=2, padding=0) for c, side in ((64, 56), (32, 53))),  # U-Net, and an odd side
    ),
    names={
        "images0": "N",
        "channels0": "C/groups",
        "outputs0": "O/groups",
        "side0": "H",
        "side1": "W",
        "groups0": "groups",
    },
    axes=(
        ("side1",),
        ("side0",),
        ("channels0",),
        ("outputs0",),
        ("images0",),
        ("groups0",),
        ("channels0", "outputs0"),
        ("side0", "side1"),
        ("images0", "outputs0"),
    ),
    forms=(
        arguments(),
        arguments(kernel=4, stride=2, padding=1),  # generators and decoders
        arguments(kernel=4),
        arguments(kernel=4, stride=2),
        arguments(kernel=2, stride=2),
        arguments(kernel=3, stride=2, padding=1),
        arguments(kernel=3, padding=1),
        arguments(kernel=5, stride=2, padding=2),
        arguments(kernel=4, stride=4),
        arguments(kernel=8, stride=4, padding=2),
        arguments(kernel=7, padding=3),
        arguments(kernel=16, stride=8, padding=4),
        arguments(kernel=(1, 5), stride=(1, 2)),
        arguments(kernel=(5, 1), stride=(2, 1), padding=(2, 0)),
        arguments(kernel=3, dilation=6),
        arguments(kernel=3, padding=4, dilation=4),
        arguments(kernel=4, stride=2, padding=1, groups=33),
        arguments(kernel=4, stride=2, padding=1, groups=9, outputs=2),
    ),
)


@composite
def cases(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    vary: tuple[str, ...] = ALL,
    least: int = 0,
    kernels: tuple[int, ...] = (1, 2, 3),
    square: bool = False,
    kinds: tuple[str, ...] = KINDS,
    batch: int = 1,
    wide: bool = False,
):
    """A transposed convolution of which padding leaves something. Arguments not in `vary`, or lacking, are neutral.

    Padding and output padding are at least `least` where they vary; `square` asks for as many outputs as channels.
    """
    vary = tuple(name for name in vary if name not in lacks)
    own = pairs_within(
        draw,
        kernel_size=(kernels, 1, True),
        stride=(range(1 + least, 4), 1, "stride" in vary),
        padding=(range(least, 3), 0, "padding" in vary),
        output_padding=(range(least, 3), 0, "output_padding" in vary),
        dilation=((1, 2, 3), 1, "dilation" in vary),
    )
    rows = _axis(draw, vary, least, kernels, own[0])
    columns = _axis(draw, vary, least, (rows[1], *kernels), own[1], rows[0])  # kernels are often square
    size, kernel, *pairs = zip(rows, columns, strict=True)
    groups, channels = draw(grouped("groups" in vary, (1, 1, 2, 3, 17, 33) if wide else (1, 2, 3)))
    named = {"of": "outputs", "name": "out_channels", "times": groups, "equal": channels}
    as_many = square and draw.domain.allows("out_channels", groups * channels)
    outputs = channels if as_many else draw(dimension(1, 2, 3, **named))
    values = draw(data(dtype, kinds))
    images = draw(dimension(*[n for n in SIZES if n >= batch], of="images", name="N"))
    x = values.inputs(images, groups * channels, *size)
    weight = _weight(values, groups, channels, outputs, kernel)
    has_bias = draw(argument("bias", MORE_OFTEN, (False, True), neutral=False, varies="bias" in vary))
    bias = values.offsets(groups * outputs) if has_bias else None
    arguments = {name: p[0] if p[0] == p[1] else p for name, p in zip(PAIRS, pairs, strict=True)}
    return Case("conv_transpose2d", {"x": x, "weight": weight, "bias": bias}, {**arguments, "groups": groups})


def _axis(
    draw: Draw,
    vary: tuple[str, ...],
    least: int,
    kernels: tuple[int, ...],
    own: Mapping[str, int],
    rows: int = 0,
) -> tuple[int, int, int, int, int, int]:
    """Size, kernel size, stride, padding, output padding and dilation of one axis.

    `own` has those that the domain is about. `rows` is the size of the axis before, if any.
    """
    k = own.get("kernel_size") or draw(dimension(*kernels, of="kernel"))
    s = own.get("stride") or (draw(dimension(*range(1 + least, 4), of="stride")) if "stride" in vary else 1)
    d = own.get("dilation") or (draw(dimension(1, 2, 3, of="dilation")) if "dilation" in vary else 1)
    p, e = own.get("padding"), own.get("output_padding")
    if p is None:
        p = draw(dimension(*range(least, 3), of="padding")) if "padding" in vary else 0
    if e is None:
        e = draw(integers(min(least, max(s, d) - 1), max(s, d) - 1)) if "output_padding" in vary else 0
    elif e >= max(s, d):
        raise OutOfDomain(draw.domain.outside("output_padding"))
    taken_off = 2 * p - d * (k - 1) - e  # so many rows of the image's own must be left, and one more
    needed = max(1, -(-taken_off // s) + 1)
    n = max(draw(dimension(*SIZES, of="side")), needed)
    return image_side(draw, "W" if rows else "H", n, least=needed, rows=rows), k, s, p, e, d


def _weight(values: Data, groups: int, channels: int, outputs: int, kernel: tuple[int, ...]) -> Array:
    """(C, O/groups, KH, KW), where the draws of `Data` have the outputs first."""
    outputs_first = values.weights(groups * outputs, channels, *kernel).reshape(groups, outputs, channels, *kernel)
    return outputs_first.swapaxes(1, 2).reshape(groups * channels, outputs, *kernel)


def expected(case: Case) -> Expected:
    """What the reference gives, with the bound of the verdict rule."""
    x, weight, groups = case["x"], case["weight"], case["groups"]
    return multilinear(
        lambda x, w, b: conv_transpose2d(x, w, b, **case.arguments),
        x,
        weight,
        case["bias"],
        fast=fast_bound(lambda x, w: conv_transpose2d(x, w, groups=groups)),
    )


def output_shape(case: Case) -> tuple[int, ...]:
    """(N, O, OH, OW), by the page's formula."""
    sizes = zip(case["x"].shape[2:], case["weight"].shape[2:], *(as_pair(case[n]) for n in PAIRS), strict=True)
    rows_columns = ((n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, k, s, p, e, d in sizes)
    return len(case["x"]), case["weight"].shape[1] * case["groups"], *rows_columns


law = Laws(cases, expected)


# -- values ------------------------------------------------------------------------------------------------------------


@requirement("conv_transpose2d.kernel.orientation", cases, vary=())
def test_kernel_orientation(subject: Trial, case: Case) -> None:
    """A single 1 in the image becomes the kernel."""
    x = np.zeros_like(case["x"])
    x[:, 0, -1, 0] = 1
    laws.equals_reference(subject, case.but(x=x), expected)


test_kernel_channels = law(
    "conv_transpose2d.kernel.channels",
    laws.equals_reference,
    "Channels first, outputs second, where nothing but the values tells them apart.",
    vary=(),
    square=True,
)
test_output_value = law(
    "conv_transpose2d.output.value",
    laws.equals_reference,
    "Every output element is the sum of the products that land on it.",
    vary=(),
    wide=True,
)


@requirement("conv_transpose2d.bias.per-channel", cases, vary=("bias", "stride"), needs="bias")
def test_bias_per_channel(subject: Trial, case: Case) -> None:
    """On an image of zeros every channel shows its bias alone, also where a large stride leaves gaps."""
    laws.equals_reference(subject, case.but(x=np.zeros_like(case["x"])), expected)


test_stride_step = law(
    "conv_transpose2d.stride.step",
    laws.equals_reference,
    "Copies of the kernel begin at multiples of the stride, rows and columns each of their own.",
    vary=("stride",),
    needs="stride",
)
test_padding_crop = law(
    "conv_transpose2d.padding.crop",
    laws.equals_reference,
    "Padding takes rows and columns off all sides.",
    vary=("padding",),
    needs="padding",
)
test_output_padding_far_end = law(
    "conv_transpose2d.output-padding.far-end",
    laws.equals_reference,
    "Rows and columns more at the bottom and on the right; without padding nothing reaches them.",
    vary=("stride", "output_padding"),
    least=1,
    needs=("stride", "output_padding"),
)
test_output_padding_computed = law(
    "conv_transpose2d.output-padding.computed",
    laws.equals_reference,
    "With padding, they hold products.",
    vary=("stride", "padding", "output_padding"),
    least=1,
    needs=("stride", "padding", "output_padding"),
)
test_dilation_gap = law(
    "conv_transpose2d.dilation.gap",
    laws.equals_reference,
    "Kernel elements land `dilation` rows and columns apart.",
    vary=("dilation",),
    needs="dilation",
)
test_groups_block_diagonal = law(
    "conv_transpose2d.groups.block-diagonal",
    laws.equals_reference,
    "Each group of channels reaches its own group of outputs.",
    vary=("groups",),
    needs="groups",
)
test_arguments_pairs = law(
    "conv_transpose2d.arguments.pairs",
    domains.is_accepted,
    "One argument with different numbers for rows and for columns.",
    cases=domains.unequal,
    of=cases,
    stem="conv_transpose2d",
    names=("kernel_size", "stride", "padding", "output_padding", "dilation"),
    effort=2,
)
test_arguments_together = law(
    "conv_transpose2d.arguments.together",
    laws.equals_reference,
    "All arguments at once, each with its own value for rows and for columns.",
    **TOGETHER,
)
test_arguments_defaults = law(
    "conv_transpose2d.arguments.defaults",
    laws.equals_defaults,
    "Arguments that are left out, beside others that are given.",
    cases=leaving_out,
    of=cases,
    arguments=ALL,
    defaults=(*PAIRS, "groups"),
)
special = Laws(specials, expected, of=cases, operand="x", dtypes=LONG, effort=2)
test_special_value = special(
    "conv_transpose2d.special.value",
    laws.equals_reference,
    "Where it belongs, and nowhere else.",
    vary=UNGROUPED,
    spread=True,
)
test_special_groups = special(
    "conv_transpose2d.special.groups",
    laws.equals_reference,
    "In its own group, and in no other.",
    vary=("groups",),
    needs="groups",
)


@requirement("conv_transpose2d.range.ends", wholes, of=cases, dtypes=LONG, effort=2)
def test_range_ends(subject: Trial, case: Case) -> None:
    """Operands and results near the largest and the smallest numbers that there are."""
    laws.holds_at_the_ends(subject, case, expected, "x", "weight")


@requirement("conv_transpose2d.law.adjoint", cases, vary=(*PAIRS, "groups"), kinds=("integers",), dtypes=LONG)
def test_law_adjoint(subject: Trial, case: Case) -> None:
    """Σ conv2d(z, w)·x = Σ z·conv_transpose2d(x, w), exactly, for an image z of integers."""
    y, shape = subject(case), output_shape(case)
    if y.shape != shape:
        raise Mismatch(f"the result has shape {y.shape}, expected {shape}")
    x, weight = (case[name].astype(np.float64) for name in ("x", "weight"))
    z = np.random.default_rng(0).integers(-9, 10, shape).astype(np.float64)
    arguments = {name: case[name] for name in ("stride", "padding", "dilation", "groups")}
    rows, columns = x.shape[2:]  # where output padding is not below the stride, a convolution has windows more
    gathered = (conv2d(z, weight, **arguments)[:, :, :rows, :columns] * x).sum()
    scattered = (z * y).sum()
    if gathered != scattered:
        raise Mismatch(f"Σ conv2d(z, w)·x is {gathered:g}, and Σ z·conv_transpose2d(x, w) is {scattered:g}", y)


@composite
def with_room(draw, *, dtype: str, lacks: frozenset[str]):
    """A transposed convolution of an image with room for a shift by one, and for elements away from the border."""
    case = draw(cases(dtype=dtype, lacks=lacks))
    draw.planned.clear()  # the image is larger
    kernel, pairs = case["weight"].shape[2:], (as_pair(case[name]) for name in ("stride", "padding", "dilation"))
    size = [2 + (p + d * (k - 1) + s) // s for k, s, p, d in zip(kernel, *pairs, strict=True)]
    h = image_side(draw, "H", case["x"].shape[2] + size[0])
    w = image_side(draw, "W", case["x"].shape[3] + size[1], rows=h)
    return case.but(x=draw(data(dtype)).inputs(*case["x"].shape[:2], h, w))


@requirement("conv_transpose2d.law.shift", with_room)
def test_law_shift(subject: Trial, case: Case) -> None:
    """Two views of the image, the second one place further down and to the right: elements that neither end reaches."""
    one, other = case.but(x=case["x"][:, :, :-1, :-1]), case.but(x=case["x"][:, :, 1:, 1:])
    pairs = [as_pair(one[name]) for name in ("stride", "padding", "dilation")]
    sides = zip(one["x"].shape[2:], output_shape(one)[2:], one["weight"].shape[2:], *pairs, strict=True)
    inside = [(max(s, d * (k - 1) - p + 1), min(n * s - p, m)) for n, m, k, s, p, d in sides]
    later: tuple[Any, ...] = tuple(slice(first, end) for first, end in inside)
    sooner: tuple[Any, ...] = tuple(slice(first - s, end - s) for (first, end), s in zip(inside, pairs[0], strict=True))
    same = laws.part_of(laws.own(subject.presumed(one), expected(one)), lambda y: y[..., *later])
    found = subject(other)[..., *sooner]
    subject.expect(found, same, "the result of the image that was shifted by one place, away from the border,")


# -- results and operands ----------------------------------------------------------------------------------------------


test_output_size = law(
    "conv_transpose2d.output.size",
    laws.has_shape(output_shape),
    "As large as the copies reach, less padding, and more output padding.",
)


test_output_dtype = law("conv_transpose2d.output.dtype", laws.keeps_dtype)
test_output_fresh = law("conv_transpose2d.output.fresh", laws.is_fresh)
test_input_unchanged = law("conv_transpose2d.input.unchanged", laws.leaves_operands)
test_input_layout = law("conv_transpose2d.input.layout", laws.ignores_layout)
test_memory_in_bounds = law("conv_transpose2d.memory.in-bounds", laws_of_memory.stays_in_bounds)
test_memory_all_written = law("conv_transpose2d.memory.all-written", laws_of_memory.writes_everything)
test_memory_alignment = law("conv_transpose2d.memory.alignment", laws_of_memory.ignores_alignment)
test_batch_independent = law("conv_transpose2d.batch.independent", laws.judges_images_alone)
test_batch_empty = law("conv_transpose2d.batch.empty", laws.returns_no_images, spread=True, effort=1)


test_batch_absent = law("conv_transpose2d.batch.absent", laws.takes_one_image)


@composite
def calls_in_turn(draw, *, dtype: str, lacks: frozenset[str]):
    """Two calls that differ in one argument, or in two that make up for one another in the result's shape."""
    case = draw(cases(dtype=dtype, lacks=lacks, vary=("padding", "bias")))
    (ph, pw), (kh, kw) = as_pair(case["padding"]), case["weight"].shape[2:]
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"dilation": 2, "padding": (ph + (kh - 1) // 2, pw + (kw - 1) // 2)}),  # mostly the same shape
        ({"stride": 2}, {"stride": 2, "output_padding": 1}),
    ]
    possible = [change for change in changes if not change[1].keys() & (lacks | draw.domain.conditions.keys())]
    if not possible or draw(integers(0, 3)):
        return draw(differing_in_one(case, lacks, outputs=case["weight"].shape[1]))
    first, second = draw(any_of(*possible))
    return case.but(**first), case.but(**second)


test_call_stateless = law(
    "conv_transpose2d.call.stateless", laws.keeps_calls_apart, "A call in between changes nothing.", cases=calls_in_turn
)
test_call_neighbours = law("conv_transpose2d.call.neighbours", laws.ignores_neighbours)
test_domain_outside = law(
    "conv_transpose2d.domain.outside",
    domains.right_or_refused(laws.equals_reference),
    "One size or argument outside what the subject declares.",
    cases=domains.outside,
    of=cases,
    needs="domain",
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(*, dtype: str, lacks: frozenset[str], **choices: Any) -> Decision[Case]:
    """A transposed convolution and a cotangent of its result."""
    return with_cotangent(cases(dtype=dtype, lacks=lacks, **choices), output_shape)


def wide_or_square(**choices: Any) -> Decision[Case]:
    """Many channels; or as many in as out, where nothing but the values tells which of the kernel's axes is which."""
    return one_of(gradients(wide=True, **choices), gradients(square=True, **choices))


expected_gradients = gradients_by(conv_transpose2d_vjp, lambda case: case["weight"].shape[1] * case["groups"])
gradient = Laws(gradients, expected_gradients, needs=("vjp",))


test_gradient_x = gradient(
    "conv_transpose2d.gradient.x",
    laws_of_gradients.values("x"),
    "Every element gets the cotangents that its copy of the kernel reached, times that kernel.",
    cases=wide_or_square,
    spread=True,
    effort=0.5,  # many layouts of operands and cotangent
    sweeps=True,
    narrow=True,
)
test_gradient_weight = gradient(
    "conv_transpose2d.gradient.weight",
    laws_of_gradients.values("weight"),
    "Every tap gets the cotangents where it landed, times what it carried there.",
    cases=wide_or_square,
    spread=True,
    effort=0.5,  # many layouts of operands and cotangent
    sweeps=True,
    narrow=True,
)


@requirement("conv_transpose2d.gradient.bias", gradients, needs=("vjp", "bias"), spread=True)
def test_gradient_bias(subject: Trial, case: Case) -> None:
    """The sum of a channel's cotangents, gaps and output padding included."""
    if case["bias"] is None:
        case = case.but(bias=np.zeros(case["weight"].shape[1] * case["groups"], case["x"].dtype))
    laws_of_gradients.values("bias")(subject, case, expected_gradients)


test_gradient_like_operand = gradient(
    "conv_transpose2d.gradient.like-operand", laws_of_gradients.is_like_operand, vary=UNGROUPED, spread=True, effort=1
)
test_gradient_layout = gradient("conv_transpose2d.gradient.layout", laws_of_gradients.ignores_layout)
test_gradient_unchanged = gradient("conv_transpose2d.gradient.unchanged", laws_of_gradients.leaves_operands)
test_gradient_frozen = gradient("conv_transpose2d.gradient.frozen", laws_of_gradients.ignores_frozen)
test_gradient_batch = gradient("conv_transpose2d.gradient.batch", laws_of_gradients.judges_images_alone)
special_gradient = Laws(specials, expected_gradients, of=gradients, operand="cotangent", needs=("vjp",), dtypes=LONG)
test_gradient_special = special_gradient(
    "conv_transpose2d.gradient.special",
    laws_of_gradients.values("x"),
    "Where it belongs, and nowhere else.",
    spread=True,
)
test_gradient_empty = gradient(
    "conv_transpose2d.gradient.empty", laws_of_gradients.is_nothing_for_no_images, spread=True
)


# -- the module --------------------------------------------------------------------------------------------------------


test_parameters_complete = law("conv_transpose2d.parameters.complete", laws_of_state.parameters_are_complete)
test_buffers_none = law("conv_transpose2d.buffers.none", laws_of_state.saves_no_buffers)
test_state_own = law("conv_transpose2d.state.own", laws_of_state.shares_nothing)
test_init_range = law(
    "conv_transpose2d.init.range",
    starts_uniform(lambda shape: math.prod(shape[1:])),
    "Weight and bias of a module with 64 channels; a right start fails less than once in 2⁶¹ modules.",
    vary=("groups",),
    forms="class",
    dtypes=LONG,
)


# -- refusals ----------------------------------------------------------------------------------------------------------


refusal = Laws(altered, of=cases, per_dtype=False)


test_refuses_rank = refusal(
    "conv_transpose2d.refuses.rank", laws.refuses, "Two and five dimensions.", how=rank, forms="function", effort=0.5
)


test_refuses_channels = refusal(
    "conv_transpose2d.refuses.channels",
    laws.refuses,
    "One channel too many or too few, or one alone.",
    how=channels,
    effort=1,
)


def _groups(draw: Draw, case: Case) -> Case:
    channels = case["x"].shape[1]
    return case.but(groups=draw(any_of(*[n for n in range(channels + 2) if n == 0 or channels % n])))


test_refuses_groups = refusal(
    "conv_transpose2d.refuses.groups",
    laws.refuses,
    "0, and numbers that do not divide the channels.",
    how=_groups,
    vary=("stride",),
    needs="groups",
    forms="function",
)


def _bias(draw: Draw, case: Case) -> Case:
    outputs = case["weight"].shape[1] * case["groups"]
    wrong = draw(any_of(*[n for n in (1, outputs + 1, case["weight"].shape[1]) if n != outputs]))
    return case.but(bias=np.ones(wrong, case["x"].dtype))


test_refuses_bias = refusal(
    "conv_transpose2d.refuses.bias",
    laws.refuses,
    "Another length than O: 1, one more, or one group's.",
    how=_bias,
    needs="bias",
    forms="function",
)


test_refuses_kernel_size = refusal(
    "conv_transpose2d.refuses.kernel-size", laws.refuses_module, "Three sizes.", how=long_kernel, vary=(), forms="class"
)
test_refuses_stride = refusal(
    "conv_transpose2d.refuses.stride",
    laws.refuses,
    "0 and below, or three values.",
    how=no_pair("stride", 1),
    vary=(),
    effort=1,
    needs="stride",
)
test_refuses_padding = refusal(
    "conv_transpose2d.refuses.padding",
    laws.refuses,
    "Below 0, or three values.",
    how=no_pair("padding", 0),
    effort=1,
    vary=("stride",),
    needs="padding",
)
test_refuses_dilation = refusal(
    "conv_transpose2d.refuses.dilation",
    laws.refuses,
    "Below 0, or three values.",
    how=no_pair("dilation", 0, legal=1),
    effort=1,
    vary=("stride",),
    needs="dilation",
)
test_refuses_dilation_zero = refusal(
    "conv_transpose2d.refuses.dilation-zero",
    laws.refuses,
    "0 on one axis or on both.",
    how=lambda draw, case: case.but(dilation=draw(any_of(0, (0, 1), (1, 0)))),
    vary=(),
    batch=2,
    needs="dilation",
)
test_refuses_output_padding = refusal(
    "conv_transpose2d.refuses.output-padding",
    laws.refuses,
    "Below 0, or three values.",
    how=no_pair("output_padding", 0),
    effort=1,
    vary=("stride", "dilation"),
    needs="output_padding",
)


def _limits(case: Case) -> tuple[int, int]:
    rows, columns = map(max, as_pair(case["stride"]), as_pair(case["dilation"]))
    return rows, columns


def _output_padding_limit(draw: Draw, case: Case) -> Case:
    rows, columns = (limit + draw(integers(0, 1)) for limit in _limits(case))
    smaller = (rows, 0) if rows < columns else (0, columns)
    return case.but(output_padding=draw(any_of(smaller, (rows, 0), (0, columns), (rows, columns))))


@requirement(
    "conv_transpose2d.refuses.output-padding-limit",
    altered,
    of=cases,
    per_dtype=False,
    how=_output_padding_limit,
    vary=("stride", "dilation"),
    needs="output_padding",
    effort=0.5,
)
def test_refuses_output_padding_limit(subject: Trial, case: Case) -> None:
    """As large as both stride and dilation, or larger, on one axis or on both; one less is accepted."""
    rows, columns = _limits(case)
    subject(case.but(output_padding=as_number((rows - 1, columns - 1))))
    subject.refuses(case)


def _output_size(draw: Draw, case: Case) -> Case:
    rows, columns = (size // 2 + 1 + draw(integers(0, 1)) for size in output_shape(case)[2:])
    return case.but(padding=draw(any_of((rows, 0), (0, columns), (rows, columns))))


test_refuses_output_size = refusal(
    "conv_transpose2d.refuses.output-size",
    laws.refuses,
    "Padding that takes off more rows or columns than there are, by one at least.",
    how=_output_size,
    vary=("stride", "output_padding", "dilation"),
    needs="padding",
)


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_everything_at_once() -> None:
    """Output padding with padding, unequal stride, dilation above 1, and groups of several channels, in one case."""

    def corner(case: Case) -> bool:
        stride, padding, output_padding, dilation = (as_pair(case[n]) for n in PAIRS)
        several = case["groups"] > 1 and min(case["weight"].shape[:2]) > 1
        unequal = stride[0] != stride[1] and min(stride[0], dilation[0]) > 1
        return several and unequal and padding[0] > 0 and output_padding[0] > 0

    reaches(cases(dtype="float32"), corner)


def test_reach_corners() -> None:
    """Output padding at the stride or above it; strides that leave gaps; as many channels in as out; many channels."""
    for corner in (
        lambda c: as_pair(c["output_padding"])[0] >= as_pair(c["stride"])[0],
        lambda c: as_pair(c["stride"])[0] > c["weight"].shape[2] and c["bias"] is not None,
        lambda c: c["weight"].shape[0] == c["weight"].shape[1] > 1,
        lambda c: c["weight"].shape[2:] == (1, 1) and as_pair(c["dilation"])[0] > 1,
        lambda c: c["weight"].shape[0] == 33 * c["groups"],
    ):
        reaches(cases(dtype="float32", wide=True), corner)

"""The requirements of spec/conv2d.md, in the page's order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from nnspec.adapters.names import LONG
from nnspec.adapters.subject import Lacks
from nnspec.conformance.bounds.convolution import fast_bound
from nnspec.conformance.bounds.rule import Expected, multilinear
from nnspec.conformance.case import Case, as_pair
from nnspec.conformance.checks import alternatives, domains, laws, laws_of_gradients, laws_of_memory, laws_of_state
from nnspec.conformance.checks.cases import altered, data, leaving_out, specials, wholes, with_cotangent
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
from nnspec.conformance.checks.within import argument, image_side
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
    pairs,
    reaches,
)
from nnspec.conformance.requirements import requirement
from nnspec.conformance.sizes import SWEEPS, Sweep, arguments
from nnspec.conformance.trial.record import CallFails, Mismatch
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.conv2d import conv2d, conv2d_vjp
from nnspec.reference.windows import output_size


@composite
def square_or_not(draw: Draw):
    """Rows and columns of a kernel; kernels are often square."""
    rows = draw(dimension(1, 2, 3, 3, of="kernel"))
    return rows, draw(dimension(rows, 1, 2, 3, of="kernel"))


KERNEL = square_or_not()
ALL = ("stride", "padding", "dilation", "groups", "bias")
UNGROUPED = tuple(name for name in ALL if name != "groups")


def _layer(channels: int, outputs: int, side: int, **given: Any) -> Plan:
    """Return the plan of a layer with square results, 3×3 kernels and padding 1 unless something else is given."""
    shape = {"kernel": 3, "padding": 1, "images": 1, "groups": 1, **given}
    sizes = {"channels": channels // shape["groups"], "outputs": outputs // shape["groups"]}
    return {**arguments(**shape, **sizes), "windows0": side, "windows1": side}


POINT: dict[str, Any] = {"kernel": 1, "padding": 0}
LAYERS = (
    *(_layer(c, c, side) for c, side in ((64, 56), (128, 28), (256, 14), (512, 7))),  # ResNet-34 at 224 × 224
    *(_layer(c, 2 * c, side, stride=2) for c, side in ((64, 28), (128, 14), (256, 7))),
    *(_layer(c, 2 * c, side, stride=2, **POINT) for c, side in ((64, 28), (128, 14), (256, 7))),
    _layer(3, 64, 112, kernel=7, stride=2, padding=3),
    *(_layer(c, c, side) for c, side in ((64, 57), (128, 29), (256, 15))),  # and at odd sides
    _layer(3, 64, 113, kernel=7, stride=2, padding=3),
    _layer(3, 64, 224),  # the first layer of VGG
    *(_layer(c, c, side, groups=c) for c, side in ((32, 112), (512, 14), (1024, 7))),  # depthwise, of MobileNet
    _layer(64, 64, 56, stride=2, groups=64),
    _layer(64, 64, 139, padding=0),  # U-Net, without padding
    _layer(512, 512, 7, groups=512, images=128),  # and batches of 128
    _layer(64, 128, 14, stride=2, images=128, **POINT),
)
SWEEPS["conv2d"] = Sweep(
    layers=LAYERS,
    names={
        "images0": "N",
        "channels0": "C/groups",
        "outputs0": "O/groups",
        "windows0": "OH",
        "windows1": "OW",
        "groups0": "groups",
    },
    axes=(
        ("windows1",),
        ("windows0",),
        ("channels0",),
        ("outputs0",),
        ("images0",),
        ("groups0",),
        ("channels0", "outputs0"),
        ("windows0", "windows1"),
        ("images0", "outputs0"),  # past 65,535 images × outputs too, the largest grid along two of its axes
    ),
    forms=(
        arguments(),
        arguments(kernel=3, channels=17),  # Winograd's algorithm is for these, and for many channels
        arguments(kernel=3, padding=1, channels=33),
        arguments(kernel=3, channels=64),
        arguments(kernel=3, padding=1),
        arguments(kernel=3, stride=2, padding=1),
        arguments(stride=2, channels=17),  # 1×1, for which there are fast paths
        arguments(kernel=7, stride=2, padding=3),
        arguments(kernel=4, stride=2, padding=1),
        arguments(kernel=4, stride=4, windows=9),
        arguments(kernel=5, padding=2),
        arguments(kernel=8, stride=4),
        arguments(kernel=11, stride=4, padding=2),
        arguments(kernel=(1, 5), padding=(0, 2)),
        arguments(kernel=(5, 1), padding=(2, 0)),
        arguments(kernel=3, padding=4),
        arguments(kernel=3, padding=(5, 0)),
        arguments(padding=(0, 5)),
        arguments(kernel=5, padding=4),
        arguments(kernel=3, padding=6, dilation=6),
        arguments(kernel=3, padding=1, groups=33),
        arguments(kernel=3, padding=1, groups=9, outputs=2),  # depthwise, with a multiplier
        arguments(kernel=3, stride=2, padding=1, groups=8, channels=4, outputs=4),
    ),
)


@composite
def cases(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    vary: tuple[str, ...] = ALL,
    batch: int = 1,
    wide: bool = False,
):
    """A convolution that has at least one window. Arguments not in `vary`, or that the subject lacks, are neutral.

    The image's size follows from the number of windows and the rows and columns left over, so every draw is legal.
    """
    vary = tuple(name for name in vary if name not in lacks)
    stride = draw(argument("stride", pairs(1, 3, "stride"), (1, 2, 3), neutral=1, varies="stride" in vary))
    padding = draw(argument("padding", pairs(0, 2, "padding"), (0, 1, 2), neutral=0, varies="padding" in vary))
    dilation = draw(argument("dilation", pairs(1, 3, "dilation"), (1, 2, 3), neutral=1, varies="dilation" in vary))
    groups, channels = draw(grouped("groups" in vary, (1, 1, 2, 3, 17, 33) if wide else (1, 2, 3)))
    kernel = as_pair(draw(argument("kernel_size", KERNEL, (1, 2, 3), neutral=None, varies=True)))
    size: dict[str, int] = {}
    for side, k, s, p, d in zip("HW", kernel, as_pair(stride), as_pair(padding), as_pair(dilation), strict=True):
        windows, left_over = draw(dimension(*SIZES, of="windows")), draw(integers(0, s - 1))
        span = d * (k - 1) + 1 - 2 * p
        n = max(1, (windows - 1) * s + span + left_over)
        size[side] = image_side(draw, side, n, least=max(1, span), rows=size.get("H", 0))
    outputs = draw(dimension(1, 2, 3, of="outputs", name="out_channels", times=groups, equal=channels))
    values = draw(data(dtype))
    images = draw(dimension(*[n for n in SIZES if n >= batch], of="images", name="N"))
    x = values.inputs(images, groups * channels, *size.values())
    weight = values.weights(groups * outputs, channels, *kernel)
    has_bias = draw(argument("bias", MORE_OFTEN, (False, True), neutral=False, varies="bias" in vary))
    bias = values.offsets(groups * outputs) if has_bias else None
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return Case("conv2d", {"x": x, "weight": weight, "bias": bias}, arguments)


def expected(case: Case) -> Expected:
    """What the reference gives, with the bound of the verdict rule."""
    x, weight, groups = case["x"], case["weight"], case["groups"]
    return multilinear(
        lambda x, w, b: conv2d(x, w, b, **case.arguments),
        x,
        weight,
        case["bias"],
        fast=fast_bound(lambda x, w: conv2d(x, w, groups=groups)),
    )


def output_shape(case: Case) -> tuple[int, ...]:
    """(N, O, OH, OW), by the page's formula."""
    pairs = (as_pair(case[name]) for name in ("stride", "padding", "dilation"))
    size = output_size(case["x"].shape[2:], case["weight"].shape[2:], *pairs)
    return len(case["x"]), len(case["weight"]), *size


law = Laws(cases, expected)


# -- values ------------------------------------------------------------------------------------------------------------


@requirement("conv2d.kernel.orientation", cases, vary=())
def test_kernel_orientation(subject: Trial, case: Case) -> None:
    """A kernel with one non-zero element copies the image from the place where that element lies."""
    weight = np.zeros_like(case["weight"])
    weight[:, 0, -1, 0] = 1
    laws.equals_reference(subject, case.but(weight=weight), expected)


test_output_value = law(
    "conv2d.output.value",
    laws.equals_reference,
    "Every output element is the sum over C, KH and KW.",
    vary=(),
    wide=True,
)


@requirement("conv2d.bias.per-channel", cases, vary=("bias",), needs="bias")
def test_bias_per_channel(subject: Trial, case: Case) -> None:
    """On an image of zeros every channel shows its bias alone."""
    if case["bias"] is None:
        laws.equals_reference(subject, case, expected)
    else:
        laws.equals_reference(subject, case.but(x=np.zeros_like(case["x"])), expected)


test_stride_step = law(
    "conv2d.stride.step",
    laws.equals_reference,
    "Windows begin at multiples of the stride, rows and columns each of their own.",
    vary=("stride",),
    needs="stride",
)


@requirement("conv2d.padding.zeros", cases, vary=("padding",), needs="padding")
def test_padding_zeros(subject: Trial, case: Case) -> None:
    """Padding is the same as an image that has the zeros already."""
    ph, pw = as_pair(case["padding"])
    subject.expect(subject(case), expected(case))
    padded = case.but(x=np.pad(case["x"], ((0, 0), (0, 0), (ph, ph), (pw, pw))), padding=0)
    if not subject.excludes(padded):
        subject.expect(subject(padded), expected(case), "the image padded beforehand")


@composite
def with_word(draw, *, dtype: str, lacks: frozenset[str], word: str):
    """A convolution of stride 1 with a word as its padding, of an image that is no smaller than the kernel."""
    case = draw(cases(dtype=dtype, lacks=lacks, vary=("dilation",)))
    return case.but(padding=word)


@laws.law()
def takes_word(subject: Trial, case: Case, judge: laws.Judge) -> None:
    """The result is what the reference gives. Lacks where the word is refused."""
    try:
        result = subject(case)
    except Mismatch as mismatch:
        if mismatch.raised is None:
            raise
        raise Lacks(f"padding={case['padding']!r} is refused") from None
    subject.expect(result, judge(case))


word = Laws(with_word, expected, needs=("padding",))
test_padding_same = word(
    "conv2d.padding.same", takes_word, "Odd kernels and even ones, with one more at the far end.", word="same"
)
test_padding_valid = word("conv2d.padding.valid", takes_word, "Windows that lie in the image.", word="valid", effort=2)
test_dilation_gap = law(
    "conv2d.dilation.gap",
    laws.equals_reference,
    "Kernel elements are `dilation` rows and columns apart.",
    vary=("dilation",),
    needs="dilation",
)
test_groups_block_diagonal = law(
    "conv2d.groups.block-diagonal",
    laws.equals_reference,
    "Each group of outputs sees its own group of channels.",
    vary=("groups",),
    needs="groups",
)
test_arguments_pairs = law(
    "conv2d.arguments.pairs",
    domains.is_accepted,
    "One argument with different numbers for rows and for columns.",
    cases=domains.unequal,
    of=cases,
    stem="conv2d",
    names=("kernel_size", "stride", "padding", "dilation"),
    effort=2,
)
test_arguments_together = law(
    "conv2d.arguments.together",
    laws.equals_reference,
    "All arguments at once, each with its own value for rows and for columns.",
    **TOGETHER,
)
test_arguments_defaults = law(
    "conv2d.arguments.defaults",
    laws.equals_defaults,
    "Arguments that are left out, beside others that are given.",
    cases=leaving_out,
    of=cases,
    arguments=ALL,
    defaults=("stride", "padding", "dilation", "groups"),
)


@requirement("conv2d.window.local", cases)
def test_window_local(subject: Trial, case: Case) -> None:
    """An element of the first image changes its sign: windows without it keep their result, within the bound."""
    before, marked = laws.own(subject.presumed(case), expected(case)), np.zeros(case["x"].shape)
    marked[0, 0, case["x"].shape[2] // 2, case["x"].shape[3] // 2] = 1
    reached = conv2d(marked, np.ones(case["weight"].shape), **case.arguments) != 0
    if before.value.shape != reached.shape:
        raise CallFails(f"the result has shape {before.value.shape}, expected {reached.shape}")
    others = before.change(before.value, lambda bound, _: np.where(reached, np.inf, bound), before.source)
    changed = case.but(x=np.where(marked, -case["x"], case["x"]))
    subject.expect(subject(changed), others, "the result, whose windows do not reach the element that changed,")


@composite
def with_room(draw, *, dtype: str, lacks: frozenset[str]):
    """A convolution of an image with room for a shift by one stride, and for a window away from the border."""
    case = draw(cases(dtype=dtype, lacks=lacks))
    (sh, sw), (ph, pw), (n, c, h, w) = as_pair(case["stride"]), as_pair(case["padding"]), case["x"].shape
    draw.planned.clear()  # the case has more windows
    h = image_side(draw, "H", h + 2 * ph + 3 * sh)
    w = image_side(draw, "W", w + 2 * pw + 3 * sw, rows=h)
    return case.but(x=draw(data(dtype)).inputs(n, c, h, w))


@requirement("conv2d.law.shift", with_room)
def test_law_shift(subject: Trial, case: Case) -> None:
    """Two views of the image, the second one stride further down and to the right: windows that lie in both of them."""
    rows, columns = as_pair(case["stride"])
    one, other = case.but(x=case["x"][:, :, :-rows, :-columns]), case.but(x=case["x"][:, :, rows:, columns:])
    arguments = zip(*(as_pair(one[name]) for name in ("stride", "padding", "dilation")), strict=True)
    sizes = zip(one["x"].shape[2:], one["weight"].shape[2:], arguments, strict=True)
    inside = [(-(-p // s), (n + p - d * (k - 1) - 1) // s) for n, k, (s, p, d) in sizes]
    (top, bottom), (left, right) = inside

    def later(y: np.ndarray) -> np.ndarray:
        return y[..., top + 1 : bottom + 1, left + 1 : right + 1]

    same = laws.part_of(laws.own(subject.presumed(one), expected(one)), later)
    found = subject(other)[..., top:bottom, left:right]
    subject.expect(found, same, "the result of the image that was shifted by one stride, away from the border,")


special = Laws(specials, expected, of=cases, operand="x", dtypes=LONG, effort=2)
test_special_value = special(
    "conv2d.special.value", laws.equals_reference, "Where it belongs, and nowhere else.", vary=UNGROUPED, spread=True
)
test_special_groups = special(
    "conv2d.special.groups",
    laws.equals_reference,
    "In its own group, and in no other.",
    vary=("groups",),
    needs="groups",
)


@requirement("conv2d.range.ends", wholes, of=cases, dtypes=LONG, effort=2)
def test_range_ends(subject: Trial, case: Case) -> None:
    """Operands and results near the largest and the smallest numbers that there are."""
    laws.holds_at_the_ends(subject, case, expected, "x", "weight")


# -- results and operands ----------------------------------------------------------------------------------------------


test_output_size = law("conv2d.output.size", laws.has_shape(output_shape), "As many rows and columns as windows fit.")


test_output_dtype = law("conv2d.output.dtype", laws.keeps_dtype)
test_output_fresh = law("conv2d.output.fresh", laws.is_fresh)
test_input_unchanged = law("conv2d.input.unchanged", laws.leaves_operands)
test_input_layout = law("conv2d.input.layout", laws.ignores_layout)
test_memory_in_bounds = law("conv2d.memory.in-bounds", laws_of_memory.stays_in_bounds)
test_memory_all_written = law("conv2d.memory.all-written", laws_of_memory.writes_everything)
test_memory_alignment = law("conv2d.memory.alignment", laws_of_memory.ignores_alignment)
test_batch_independent = law("conv2d.batch.independent", laws.judges_images_alone)
test_batch_empty = law("conv2d.batch.empty", laws.returns_no_images, spread=True)


test_batch_absent = law("conv2d.batch.absent", laws.takes_one_image)


@composite
def two_calls(draw, *, dtype: str, lacks: frozenset[str]):
    """Two calls that differ in one argument, or in two that make up for one another in the result's shape."""
    case = draw(cases(dtype=dtype, lacks=lacks, vary=("padding", "bias")))
    alike = {"dilation", "padding"} & (lacks | draw.domain.conditions.keys())
    if alike or draw(integers(0, 7)):
        return draw(differing_in_one(case, lacks, outputs=len(case["weight"])))
    padding, kernel = as_pair(case["padding"]), case["weight"].shape[2:]
    return case, case.but(dilation=2, padding=tuple(p + k // 2 for p, k in zip(padding, kernel, strict=True)))


test_call_stateless = law(
    "conv2d.call.stateless", laws.keeps_calls_apart, "A call in between changes nothing.", cases=two_calls
)
test_call_neighbours = law("conv2d.call.neighbours", laws.ignores_neighbours)
test_domain_outside = law(
    "conv2d.domain.outside",
    domains.right_or_refused(laws.equals_reference),
    "One size or argument outside what the subject declares.",
    cases=domains.outside,
    of=cases,
    needs="domain",
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(*, dtype: str, lacks: frozenset[str], **choices: Any) -> Decision[Case]:
    """A convolution and a cotangent of its result."""
    return with_cotangent(cases(dtype=dtype, lacks=lacks, **choices), output_shape)


expected_gradients = gradients_by(conv2d_vjp, lambda case: len(case["weight"]))
gradient = Laws(gradients, expected_gradients, needs=("vjp",))


test_gradient_x = gradient(
    "conv2d.gradient.x",
    laws_of_gradients.values("x"),
    "Every window hands its cotangent, times the kernel, back to what it covered.",
    wide=True,
    spread=True,
    sweeps=True,
    effort=0.5,  # many layouts of operands and cotangent
    narrow=True,
)
test_gradient_weight = gradient(
    "conv2d.gradient.weight",
    laws_of_gradients.values("weight"),
    "Every tap gets what it met, times the cotangent.",
    wide=True,
    spread=True,
    sweeps=True,
    effort=0.5,  # many layouts of operands and cotangent
    narrow=True,
)


@requirement("conv2d.gradient.bias", gradients, needs=("vjp", "bias"), spread=True)
def test_gradient_bias(subject: Trial, case: Case) -> None:
    """The sum of a channel's cotangents."""
    if case["bias"] is None:
        case = case.but(bias=np.zeros(len(case["weight"]), case["x"].dtype))
    laws_of_gradients.values("bias")(subject, case, expected_gradients)


test_gradient_like_operand = gradient("conv2d.gradient.like-operand", laws_of_gradients.is_like_operand, vary=UNGROUPED)
test_gradient_layout = gradient("conv2d.gradient.layout", laws_of_gradients.ignores_layout)
test_gradient_unchanged = gradient("conv2d.gradient.unchanged", laws_of_gradients.leaves_operands)
test_gradient_frozen = gradient("conv2d.gradient.frozen", laws_of_gradients.ignores_frozen)
test_gradient_batch = gradient("conv2d.gradient.batch", laws_of_gradients.judges_images_alone)
special_gradient = Laws(specials, expected_gradients, of=gradients, operand="cotangent", needs=("vjp",), dtypes=LONG)
test_gradient_special = special_gradient(
    "conv2d.gradient.special", laws_of_gradients.values("x"), "Where it belongs, and nowhere else.", spread=True
)
test_gradient_empty = gradient(
    "conv2d.gradient.empty", laws_of_gradients.is_nothing_for_no_images, spread=True, effort=1
)


# -- the module --------------------------------------------------------------------------------------------------------


test_parameters_complete = law("conv2d.parameters.complete", laws_of_state.parameters_are_complete)
test_buffers_none = law("conv2d.buffers.none", laws_of_state.saves_no_buffers)
test_state_own = law("conv2d.state.own", laws_of_state.shares_nothing)
test_init_range = law(
    "conv2d.init.range",
    starts_uniform(lambda shape: math.prod(shape[1:])),
    "Weight and bias of 64 kernels; a right start fails less than once in 2⁶¹ modules.",
    vary=("groups",),
    forms="class",
    dtypes=LONG,
)


# -- refusals ----------------------------------------------------------------------------------------------------------


refusal = Laws(altered, of=cases, per_dtype=False)
test_refuses_rank = refusal(
    "conv2d.refuses.rank",
    laws.refuses,
    "Two and five dimensions.",
    how=rank,
    forms="function",
    effort=0.5,  # four ways, each of which code may accept
)


test_refuses_channels = refusal(
    "conv2d.refuses.channels", laws.refuses, "One channel too many or too few, or one alone.", how=channels
)
test_refuses_kernel_size = refusal(
    "conv2d.refuses.kernel-size", laws.refuses_module, "Three sizes.", how=long_kernel, vary=(), forms="class"
)
test_refuses_groups = refusal(
    "conv2d.refuses.groups",
    laws.refuses,
    "0, and numbers that divide neither.",
    how=lambda draw, case: case.but(groups=draw(any_of(0, case["x"].shape[1] + 1, len(case["weight"]) + 1))),
    needs="groups",
    forms="function",
)


def _bias(draw: Draw, case: Case) -> Case:
    outputs = len(case["weight"])
    wrong = draw(any_of(*[n for n in (1, outputs + 1) if n != outputs]))
    return case.but(bias=np.ones(wrong, case["x"].dtype))


test_refuses_bias = refusal(
    "conv2d.refuses.bias", laws.refuses, "Another length than O.", how=_bias, needs="bias", forms="function"
)


test_refuses_stride = refusal(
    "conv2d.refuses.stride",
    laws.refuses,
    "0 and below, or three values.",
    how=no_pair("stride", 1),
    effort=1,
    needs="stride",
)
test_refuses_padding = refusal(
    "conv2d.refuses.padding",
    laws.refuses,
    "Below 0, or three values.",
    how=no_pair("padding", 0),
    effort=1,
    needs="padding",
    alternatives={"crops": alternatives.crops(expected)},
)
test_refuses_dilation = refusal(
    "conv2d.refuses.dilation",
    laws.refuses,
    "0 and below, or three values.",
    how=no_pair("dilation", 1),
    effort=1,
    needs="dilation",
)


def _window(draw: Draw, case: Case) -> Case:
    rows, columns = (n + 2 * p for n, p in zip(case["x"].shape[2:], as_pair(case["padding"]), strict=True))
    kernel = draw(any_of((rows + 1, 1), (1, columns + 1)))
    weight = case["weight"]
    return case.but(weight=np.ones((*weight.shape[:2], *kernel), weight.dtype))


test_refuses_window = refusal(
    "conv2d.refuses.window",
    laws.refuses,
    "A kernel one row or one column larger than the padded image.",
    how=_window,
    alternatives={"empty": alternatives.is_empty},
)


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_everything_at_once() -> None:
    """Groups with several channels, unequal stride, padding and dilation, and rows left over, all in one case."""

    def corner(case: Case) -> bool:
        (sh, sw), (ph, pw), (dh, dw) = (as_pair(case[n]) for n in ("stride", "padding", "dilation"))
        rows = case["x"].shape[2] + 2 * ph - dh * (case["weight"].shape[2] - 1) - 1
        return (
            case["groups"] > 1 and case["weight"].shape[1] > 1 and sh != sw and ph != pw and dh != dw and rows % sh > 0
        )

    reaches(cases(dtype="float32"), corner)


def test_reach_wide_images() -> None:
    """More rows than columns and the other way round, one image, one channel, more channels than a vector holds."""
    for corner in (
        lambda c: c["x"].shape[2] > c["x"].shape[3],
        lambda c: c["x"].shape[2] < c["x"].shape[3],
        lambda c: c["weight"].shape[1] == 33,
        lambda c: c["weight"].shape[2:] == (2, 2),
    ):
        reaches(cases(dtype="float32", wide=True), corner)
    reaches(cases(dtype="float32", vary=(), wide=True), lambda c: c["x"].shape[:2] == (1, 1))

"""The requirements of spec/max_pool2d.md, in the page's order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from nnspec.conformance.bounds.rule import Expected, multilinear
from nnspec.conformance.case import Array, Case, as_pair
from nnspec.conformance.checks import alternatives, domains, laws, laws_of_gradients, laws_of_memory, laws_of_state
from nnspec.conformance.checks.cases import data, leaving_out, specials, wholes, with_cotangent
from nnspec.conformance.checks.laws import Laws
from nnspec.conformance.checks.pools import (
    NO_PADDING,
    NO_STRIDE,
    SWEEP,
    WITHOUT_STRIDE,
    Change,
    broken,
    calls_in_turn,
    no_pair,
    not_finite_sometimes,
    output_shape,
    pools,
    rank,
    too_large_a_window,
    too_much_padding,
    with_a_window,
    with_default_stride,
)
from nnspec.conformance.drawing import Decision, Draw, any_of, booleans, composite, integers, reaches
from nnspec.conformance.layouts import OF_ANY_VALUES
from nnspec.conformance.requirements import CHECKS, requirement
from nnspec.conformance.sizes import SWEEPS
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.max_pool2d import max_pool2d, max_pool2d_vjp

STEM = "max_pool2d"
cases = partial(pools, stem=STEM)
SWEEPS[STEM] = SWEEP


def expected(case: Case) -> Expected:
    """What the reference gives: one of the elements, so it is exact."""
    return Expected.exactly(max_pool2d(case["x"], **case.arguments))


law = Laws(cases, expected)


# -- data that shows mistakes ------------------------------------------------------------------------------------------


def _sometimes_equal(draw: Draw, x: Array) -> Array:
    """As drawn, or the same element everywhere: a tie, and with −0 one that bits would decide."""
    constant = draw(any_of(*[None] * 2 * (x.size < 8192), -0.0, -7.0))
    return x if constant is None else np.full_like(x, constant)


def _some_not_a_number(draw: Draw, x: Array) -> Array:
    """NaN in one place or in many, next to infinities or not."""
    rng = np.random.default_rng(draw(integers(0, 99)))
    if draw(booleans()):
        x[rng.random(x.shape) < 0.3] = draw(any_of(np.inf, -np.inf))
    x[rng.random(x.shape) < draw(any_of(0.1, 0.5, 1.0))] = np.nan
    x.flat[rng.integers(x.size)] = np.nan
    return x


def _some_minus_infinity(draw: Draw, x: Array) -> Array:
    """−∞ in all places, or in all but one."""
    some = np.full_like(x, -np.inf)
    if draw(booleans()):
        some.flat[draw(integers(0, x.size - 1))] = x.flat[0]
    return some


def _far_below_zero(draw: Draw, x: Array, deepest: float = np.inf) -> Array:
    """Negative, below whatever a number might stand for −∞, or −∞ itself."""
    depths = [depth for depth in (1.0, 1e10, 1e30, 1e300, np.inf) if depth <= deepest]
    known = [depth for depth in depths if depth != 1e300 or x.dtype == np.float64]
    return -np.abs(x) * np.asarray(draw(any_of(*known)), x.dtype)


def _all_different(x: Array) -> Array:
    """No ties: where there are some, ranks in place of the elements, the lower half of them below 0."""
    ranks = np.empty_like(x)
    ranks.flat[x.argsort(axis=None, kind="stable")] = np.arange(x.size) - x.size // 2
    return ranks if np.unique(x).size < x.size else x


def _without_ties(draw: Draw, x: Array) -> Array:
    return _all_different(x)


def _deep_and_different(draw: Draw, x: Array) -> Array:
    """No ties, and all below 0, by however much is finite."""
    x = _all_different(x)
    return _far_below_zero(draw, x - x.max(initial=0) - 1, deepest=1e300)


def _many_ties(draw: Draw, x: Array) -> Array:
    """Two or three values in all, or one."""
    return np.clip(np.rint(x), *draw(any_of((-1, 1), (-1, 0), (0, 1), (-2, -2)))).astype(x.dtype)


# -- values ------------------------------------------------------------------------------------------------------------


test_output_value = law(
    "max_pool2d.output.value",
    laws.equals_reference,
    "The largest element of every window; 91 rows and columns are more than blocks of 8192.",
    vary=(),
    kernels=(1, 2, 3, 5, 91),
    change=_sometimes_equal,
)
test_kernel_rows_columns = law(
    "max_pool2d.kernel.rows-columns",
    domains.anywhere(laws.equals_reference),
    "Rows first, columns second, whatever the subject shows not to take.",
    cases=domains.asking,
    quantity="kernel_size",
    of=cases,
    vary=("kernel_size",),
)
test_channel_independent = law(
    "max_pool2d.channel.independent",
    laws.judges_channels_alone,
    vary=(),
    channels=(1, 2, 3, 5, 9, 17),
    change=_some_not_a_number,
    effort=2,
)


def _largest_number(case: Case) -> Expected:
    nan = np.isnan(case["x"])
    largest = max_pool2d(np.where(nan, np.array(-np.inf, case["x"].dtype), case["x"]), **case.arguments)
    alone = max_pool2d(np.where(nan, np.float32(0), np.float32(1)), **case.arguments) <= 0
    return Expected.exactly(np.where(alone, np.array(np.nan, largest.dtype), largest))


test_nan_propagates = law(
    "max_pool2d.nan.propagates",
    laws.equals_reference,
    "A NaN shows in every window that has it, and in no other.",
    vary=(),
    channels=(1, 2, 3, 5),
    change=_some_not_a_number,
    alternatives={"ignored": alternatives.gives(_largest_number)},
)
test_value_minus_infinity = law(
    "max_pool2d.value.minus-infinity",
    laws.equals_reference,
    "−∞ is an element like others.",
    vary=(),
    change=_some_minus_infinity,
)
test_range_ends = law("max_pool2d.range.ends", laws.keeps_subnormals, cases=wholes, of=cases)


@composite
def window_by_window(draw, *, dtype: str, lacks: frozenset[str]):
    """Two by two windows, side by side."""
    case = draw(cases(dtype=dtype, lacks=lacks, vary=("kernel_size",)))
    rows, columns = as_pair(case["kernel_size"])
    x = draw(data(dtype, ("integers", "normal"))).inputs(*case["x"].shape[:2], 2 * rows, 2 * columns)
    return case.but(x=x, stride=None if "stride" in lacks else case["kernel_size"])


@requirement("max_pool2d.law.anywhere", window_by_window)
def test_law_anywhere(subject: Trial, case: Case) -> None:
    """The elements of each window moved by one row and one column; the last ones become the first."""
    n, c, h, w = case["x"].shape
    moved = np.roll(case["x"].reshape(n, c, 2, h // 2, 2, w // 2), (1, 1), (3, 5)).reshape(n, c, h, w)
    what = "the result, with the elements of each window in another order,"
    laws.agrees(subject, case.but(x=moved), case, expected(case), what)


def _strides_by(subject: Trial, case: Case, stride: Any) -> None:
    own = case.but(stride=stride)
    laws.agrees(subject, case.without("stride"), own, expected(own), "without stride, the result")


@requirement(
    "max_pool2d.stride.default",
    cases,
    vary=WITHOUT_STRIDE,
    side_by_side=True,
    change=not_finite_sometimes,
    channels=(1, 2, 3, 5),
    needs=("stride", "default of stride"),
    spread=True,
    alternatives={"1": lambda subject, case: _strides_by(subject, with_a_window(case), 1)},
)
def test_stride_default(subject: Trial, case: Case) -> None:
    """Without a stride, that of the kernel's size."""
    _strides_by(subject, case, case["kernel_size"])


test_stride_step = law(
    "max_pool2d.stride.step",
    laws.equals_reference,
    "Windows begin at multiples of the stride, rows and columns each of their own.",
    vary=("stride",),
    needs="stride",
)
test_padding_never_wins = law(
    "max_pool2d.padding.never-wins",
    laws.equals_reference,
    "Among negative elements, however small.",
    vary=("padding",),
    kernels=(2, 3, 4),
    change=_far_below_zero,
    needs="padding",
)


@requirement("max_pool2d.padding.default", cases, vary=(), kernels=(2, 3, 4), needs=("padding", "default of padding"))
def test_padding_default(subject: Trial, case: Case) -> None:
    """Without padding, none."""
    laws.agrees(subject, case.without("padding"), case, expected(case), "without padding, the result")


test_dilation_gap = law(
    "max_pool2d.dilation.gap",
    laws.equals_reference,
    "Elements of a window are `dilation` rows and columns apart.",
    vary=("dilation",),
    kernels=(2, 3),
    needs="dilation",
)
test_ceil_mode_last_window = law(
    "max_pool2d.ceil-mode.last-window",
    laws.equals_reference,
    "One window more, of what is left over.",
    vary=("stride",),
    ending="extra",
    kernels=(2, 3, 4),
    change=_far_below_zero,
    needs="ceil_mode",
)


@requirement("max_pool2d.ceil-mode.exact", cases, vary=("stride", "padding"), ending="exact", needs="ceil_mode")
def test_ceil_mode_exact(subject: Trial, case: Case) -> None:
    """Nothing left over, nothing added."""
    floor = case.but(ceil_mode=False)
    laws.agrees(subject, case, floor, expected(floor), "with ceil_mode, where windows fit exactly, the result")


@requirement(
    "max_pool2d.ceil-mode.dropped",
    cases,
    vary=("stride", "padding"),
    ending="dropped",
    needs=("ceil_mode", "stride"),
)
def test_ceil_mode_dropped(subject: Trial, case: Case) -> None:
    """What is left over lies in padding alone: nothing added."""
    floor = case.but(ceil_mode=False)
    laws.agrees(subject, case, floor, expected(floor), "with ceil_mode, and a last window in the padding, the result")


test_arguments_pairs = law(
    "max_pool2d.arguments.pairs",
    domains.is_accepted,
    "One argument with different numbers for rows and for columns.",
    cases=domains.unequal,
    of=cases,
    stem="max_pool2d",
    names=("stride", "padding", "dilation"),
    effort=2,
)
test_arguments_together = law(
    "max_pool2d.arguments.together",
    laws.equals_reference,
    "All arguments at once, each with its own value for rows and for columns.",
    spread=True,
    channels=(1, 2, 17),
    effort=0.5,
    sweeps=True,
)
test_arguments_defaults = law(
    "max_pool2d.arguments.defaults",
    laws.equals_defaults,
    "Arguments that are left out, beside others that are given.",
    cases=leaving_out,
    of=cases,
    arguments=("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    defaults=("padding", "dilation", "ceil_mode"),
)


# -- results and operands ----------------------------------------------------------------------------------------------


test_output_size = law(
    "max_pool2d.output.size",
    laws.has_shape(output_shape),
    "As many rows and columns as windows fit.",
    vary=("kernel_size", "stride", "padding", "dilation"),
)


test_output_dtype = law("max_pool2d.output.dtype", laws.keeps_dtype)


@composite
def whole_numbers(draw, *, dtype: str, lacks: frozenset[str]):
    """Integers of some dtype, the smallest among them."""
    case = draw(cases(dtype=dtype, lacks=lacks, kernels=(2, 1, 3)))
    kind = np.dtype(draw(any_of("int32", "uint8", "int64", "int8", "int16", "uint8")))
    x = np.rint(4 * case["x"]).astype(np.int64).astype(kind)
    x.flat[draw(integers(0, x.size - 1))] = np.iinfo(kind).min
    return case.but(x=x)


@requirement("max_pool2d.dtype.integer", whole_numbers, forms="function", per_dtype=False, effort=1)
def test_dtype_integer(subject: Trial, case: Case) -> None:
    """Integers stay integers, and padding is below all of them."""
    result, value = subject(case), expected(case).value
    if result.dtype != value.dtype:
        message = f"the result has dtype {result.dtype}, expected {value.dtype}"
        raise Mismatch(message, holds=f"result.dtype.name == '{value.dtype}'")
    subject.expect(result, Expected.exactly(value.astype(np.float64)))  # differences of integers would wrap around


test_output_fresh = law("max_pool2d.output.fresh", laws.is_fresh)
test_input_unchanged = law("max_pool2d.input.unchanged", laws.leaves_operands)
test_input_layout = law("max_pool2d.input.layout", laws.ignores_layout)
test_memory_in_bounds = law("max_pool2d.memory.in-bounds", laws_of_memory.stays_in_bounds)
test_memory_all_written = law("max_pool2d.memory.all-written", laws_of_memory.writes_everything)
test_memory_alignment = law("max_pool2d.memory.alignment", laws_of_memory.ignores_alignment)
test_batch_independent = law("max_pool2d.batch.independent", laws.judges_images_alone)
test_batch_empty = law(
    "max_pool2d.batch.empty",
    laws.returns_no_images,
    cases=with_default_stride,
    of=cases,
    channels=(1, 2, 3, 5),
    spread=True,
)
test_batch_absent = law("max_pool2d.batch.absent", laws.takes_one_image)
test_call_stateless = law(
    "max_pool2d.call.stateless",
    laws.keeps_calls_apart,
    "A call in between changes nothing.",
    cases=calls_in_turn,
    stem=STEM,
)
test_call_neighbours = law("max_pool2d.call.neighbours", laws.ignores_neighbours)
test_domain_outside = law(
    "max_pool2d.domain.outside",
    domains.right_or_refused(laws.equals_reference),
    "One size or argument outside what the subject declares.",
    cases=domains.outside,
    of=cases,
    needs="domain",
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(*, dtype: str, lacks: frozenset[str], change: Change = _without_ties, **choices: Any) -> Decision[Case]:
    """A pool and a cotangent of its result; without ties, unless a check asks for them."""
    drawn = cases(dtype=dtype, lacks=lacks, change=change, **choices)
    return with_cotangent(drawn, output_shape)


def expected_gradients(case: Case) -> dict[str, Expected]:
    """That of x is linear in the cotangent: for each element, the sum of as many of its elements as chose that one."""
    return {"x": multilinear(lambda g: max_pool2d_vjp(g, case["x"], **case.arguments), case["cotangent"])}


gradient = Laws(gradients, expected_gradients, needs=("vjp",), distinct="x")  # ties are a convention


def gradient_equals_reference(subject: Trial, case: Case) -> None:
    """The one comparison behind every requirement on the values of gradients."""
    laws_of_gradients.equals_reference(subject, case, "x", expected_gradients(case)["x"])


test_gradient_x = gradient(
    "max_pool2d.gradient.x",
    laws_of_gradients.values("x"),
    "To the maximum and to nothing else, with all arguments at once.",
    channels=(1, 2, 3, 5),
    spread=True,
    effort=0.5,  # many layouts of x and cotangent
    sweeps=True,
)


def _ties(judge: Callable[[Case], Expected]) -> alternatives.Body:
    return lambda subject, case: laws_of_gradients.equals_reference(subject, case, "x", judge(case))


TIES = {"shared": _ties(alternatives.shared_by_maxima), "each": _ties(alternatives.to_each_maximum)}
test_gradient_ties = gradient(
    "max_pool2d.gradient.ties",
    laws_of_gradients.values("x"),
    "To the first of equal elements, row by row.",
    kernels=(2, 3),
    change=_many_ties,
    alternatives=TIES,
)


def _a_peak(draw: Draw, x: Array) -> Array:
    """One element above all others, so that every window that has it chooses it."""
    x = _all_different(x)
    x[..., draw(integers(0, x.shape[2] - 1)), draw(integers(0, x.shape[3] - 1))] = x.size + 9
    return x


test_gradient_overlap = gradient(
    "max_pool2d.gradient.overlap",
    laws_of_gradients.values("x"),
    "Windows of stride 1 and a peak that all of them share.",
    vary=(),
    kernels=(2, 3, 4),
    change=_a_peak,
    needs="stride",
)
test_gradient_padding = gradient(
    "max_pool2d.gradient.padding",
    laws_of_gradients.values("x"),
    "Negative elements, however small, against the padding.",
    vary=("kernel_size", "stride", "padding", "dilation"),
    kernels=(2, 3, 4),
    change=_deep_and_different,
    needs="padding",
)
test_gradient_ceil_mode = gradient(
    "max_pool2d.gradient.ceil-mode",
    laws_of_gradients.values("x"),
    "One window more in each direction.",
    vary=("kernel_size", "stride"),
    ending="extra",
    kernels=(2, 3, 4),
    needs="ceil_mode",
)
test_gradient_minus_infinity = gradient(
    "max_pool2d.gradient.minus-infinity",
    laws_of_gradients.values("x"),
    "A tie of −∞, with padding or without.",
    vary=("padding", "stride"),
    kernels=(2, 3),
    change=lambda draw, x: np.full_like(x, -np.inf),
    alternatives=TIES,
)


@composite
def beside_the_image(draw, *, dtype: str, lacks: frozenset[str]):
    """Windows of two columns: one before the image's first, and one behind its last.

    And of two rows, within the image: whoever counts on beyond a row's end then hits the next row, not foreign memory.
    """
    rows, columns, values = draw(integers(2, 4)), draw(integers(1, 3)), draw(data(dtype, ("integers", "normal")))
    stride = None if "stride" in lacks else 1
    arguments = {"kernel_size": 2, "stride": stride, "padding": (0, 1), "dilation": (1, columns + 1)}
    x = values.inputs(1, 1, rows, columns)
    cotangent = values.inputs(1, 1, 1 + (rows - 2) // (stride or 2), 1)
    return Case("max_pool2d", {"x": x, "cotangent": cotangent}, {**arguments, "ceil_mode": False})


@requirement("max_pool2d.gradient.all-padding", beside_the_image, needs=("vjp", "padding", "dilation"))
def test_gradient_all_padding(subject: Trial, case: Case) -> None:
    """Nothing to an image without a part in any window; or the call is refused."""
    try:
        subject(Case(case.stem, {"x": case["x"]}, case.arguments))
    except Mismatch:
        return
    subject.expect(subject.gradients(case)["x"], Expected.exactly(np.zeros(case["x"].shape)), "the gradient of x")


test_gradient_like_operand = gradient("max_pool2d.gradient.like-operand", laws_of_gradients.is_like_operand)


@requirement(
    "max_pool2d.gradient.layout",
    gradients,
    needs="vjp",
    effort=2,
    answers_for=lambda check, case: check.differentiates,
)
def test_gradient_layout(subject: Trial, case: Case) -> None:
    """Transposed, sliced, reversed, channels-last and stride-0 cotangents, and x that lies so too."""
    laws_of_gradients.ignores_layout(subject, case, expected_gradients)
    plain = laws.own(laws_of_gradients.presumed(subject, case)["x"], expected_gradients(case)["x"])
    for layout in OF_ANY_VALUES:
        gradient = subject.gradients(case.lying(layout, "x"))["x"]
        subject.expect(gradient, plain, f"with x laid out as {layout}, the gradient of x")


test_gradient_unchanged = gradient("max_pool2d.gradient.unchanged", laws_of_gradients.leaves_operands)
test_gradient_batch = gradient("max_pool2d.gradient.batch", laws_of_gradients.judges_images_alone)


@requirement("max_pool2d.gradient.channel", gradients, needs="vjp", channels=(1, 2, 3, 5, 17), distinct="x")
def test_gradient_channel(subject: Trial, case: Case) -> None:
    """Channel by channel."""
    together = laws.own(laws_of_gradients.presumed(subject, case)["x"], expected_gradients(case)["x"])
    for c in range(case["x"].shape[1]):
        channel = case.but(x=case["x"][:, c : c + 1], cotangent=case["cotangent"][:, c : c + 1])
        gradient = subject.gradients(channel)["x"]
        subject.expect(gradient, laws.channel_of(together, c), f"the gradient of channel {c} alone")


def special_cotangents(**choices: Any) -> Decision[Case]:
    """Whole numbers without ties, and a cotangent that is not finite somewhere."""
    drawn = specials(of=gradients, operand="cotangent", **choices)
    return drawn.map(lambda case: case.but(x=_all_different(case["x"])))


test_gradient_special = gradient(
    "max_pool2d.gradient.special",
    laws_of_gradients.values("x"),
    "Where it belongs, and nowhere else.",
    cases=special_cotangents,
    channels=(1, 2, 3, 5),
    spread=True,
)
test_gradient_empty = gradient(
    "max_pool2d.gradient.empty", laws_of_gradients.is_nothing_for_no_images, channels=(1, 2, 3, 5), spread=True
)


# -- the module --------------------------------------------------------------------------------------------------------


test_parameters_none = law("max_pool2d.parameters.none", laws_of_state.saves_nothing)


# -- refusals ----------------------------------------------------------------------------------------------------------

refusal = Laws(broken, stem=STEM, per_dtype=False)
test_refuses_rank = refusal("max_pool2d.refuses.rank", laws.refuses, "Two and five dimensions.", how=rank)
test_refuses_kernel_size = refusal(
    "max_pool2d.refuses.kernel-size",
    laws.refuses,
    "0 and below, or three values.",
    how=no_pair("kernel_size", 1),
    vary=(),
    effort=1,
)
test_refuses_stride = refusal(
    "max_pool2d.refuses.stride",
    laws.refuses,
    "0 and below, or three values.",
    **NO_STRIDE,
)
CROPS = {"crops": alternatives.crops(expected)}
test_refuses_padding = refusal(
    "max_pool2d.refuses.padding", laws.refuses, "Below 0, or three values.", **NO_PADDING, alternatives=CROPS
)
test_refuses_padding_half = refusal(
    "max_pool2d.refuses.padding-half",
    laws.refuses,
    "More than half of the dilated window, on one axis or on both.",
    how=too_much_padding,
    vary=("kernel_size", "dilation"),
    kernels=(1, 2, 5, 6),
    needs="padding",
    effort=0.5,
)
test_refuses_dilation = refusal(
    "max_pool2d.refuses.dilation",
    laws.refuses,
    "0 and below, or three values.",
    how=no_pair("dilation", 1),
    vary=(),
    needs="dilation",
    effort=1,
)
test_refuses_window = refusal(
    "max_pool2d.refuses.window",
    laws.refuses,
    "A window one row or one column larger than fits.",
    how=too_large_a_window,
    vary=("kernel_size", "stride", "padding", "ceil_mode"),
    alternatives={"empty": alternatives.is_empty},
)


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def _spare(case: Case, axis: int) -> int:
    """How many rows or columns of the padded image lie behind the last full window; below 0, how many it lacks."""
    n, k, s, p, d = (
        case["x"].shape[2 + axis],
        *(as_pair(case[name])[axis] for name in ("kernel_size", "stride", "padding", "dilation")),
    )
    spare = n + 2 * p - d * (k - 1) - 1
    return spare % s if spare >= 0 else spare


def test_reach_everything_at_once() -> None:
    """Unequal kernel, stride, padding and dilation, with rows left over and `ceil_mode`, all in one case."""
    names = ("kernel_size", "stride", "padding", "dilation")

    def corner(case: Case) -> bool:
        return case["ceil_mode"] and all(isinstance(case[n], tuple) for n in names) and _spare(case, 0) > 0

    reaches(cases(dtype="float32"), corner)


def test_reach_corners() -> None:
    """Windows that overlap and that leave gaps, that are larger than the image; odd and even sizes; many channels."""
    for corner in (
        lambda c: as_pair(c["kernel_size"])[0] > as_pair(c["stride"])[0],
        lambda c: c["ceil_mode"] and as_pair(c["kernel_size"])[0] < as_pair(c["stride"])[0] and _spare(c, 0) > 0,
        lambda c: c["ceil_mode"] and as_pair(c["kernel_size"])[0] == as_pair(c["stride"])[0] and c["padding"] != 0,
        lambda c: c["ceil_mode"] and _spare(c, 0) < 0,
        lambda c: as_pair(c["dilation"])[0] > 1 and as_pair(c["padding"])[0] > 0,
        lambda c: c["x"].shape[2] % 2 == 1 and c["x"].shape[3] % 2 == 0,
        lambda c: c["x"].shape[1] == 17,
    ):
        reaches(cases(dtype="float32", channels=(1, 2, 17)), corner)


def test_reach_not_a_number_everywhere() -> None:
    """NaN first, in the middle and last in a window of 3×3, in the last of several channels, of an odd number."""
    strategy = CHECKS["max_pool2d.nan.propagates"].drawn()

    def several(case: Case) -> bool:
        return case["kernel_size"] == 3 and case["x"].shape[1] % 2 == 1 < case["x"].shape[1]

    for row, column in np.ndindex(3, 3):
        reaches(strategy, lambda c: several(c) and np.isnan(c["x"][0, -1, row, column]))


def test_reach_gradients() -> None:
    """A tie that the first row and the first column decide differently; an element that three windows chose."""
    tied = gradients(dtype="float32", lacks=frozenset(), vary=(), kernels=(2, 3), change=_many_ties)

    def crosswise(case: Case) -> bool:
        (a, b), (c, d) = case["x"][0, 0, :2, :2] if min(case["x"].shape[2:]) > 1 else ((0, 1), (2, 3))
        return case["kernel_size"] == 2 and a < b == c >= d

    reaches(tied, crosswise)
    peaks = gradients(dtype="float32", lacks=frozenset(), vary=(), kernels=(2, 3, 4), change=_a_peak)
    reaches(peaks, lambda c: max_pool2d_vjp(np.ones_like(c["cotangent"]), c["x"], **c.arguments).max() >= 3)

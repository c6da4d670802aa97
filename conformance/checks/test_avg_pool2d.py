"""The requirements of spec/avg_pool2d.md, in the page's order."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from nnspec.adapters.names import LONG
from nnspec.conformance.bounds.pool import averaged, shared
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Array, Case, as_pair
from nnspec.conformance.checks import alternatives, domains, laws, laws_of_gradients, laws_of_memory, laws_of_state
from nnspec.conformance.checks.cases import leaving_out, not_finite_somewhere, specials, wholes, with_cotangent
from nnspec.conformance.checks.laws import Laws
from nnspec.conformance.checks.pools import (
    NO_PADDING,
    NO_STRIDE,
    SWEEP,
    WITHOUT_STRIDE,
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
from nnspec.conformance.drawing import Decision, composite, reaches
from nnspec.conformance.requirements import CHECKS, requirement
from nnspec.conformance.sizes import SWEEPS
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.avg_pool2d import avg_pool2d, avg_pool2d_vjp

STEM = "avg_pool2d"
cases = partial(pools, stem=STEM)
SWEEPS[STEM] = SWEEP


def expected(case: Case) -> Expected:
    """What the reference gives, with the bound of a mean."""
    return averaged(lambda x: avg_pool2d(x, **case.arguments), divisor(case), case["x"])


def divisor(case: Case) -> Array | float:
    """By how much the reference divides the sum of each window: that of an image of ones, over their mean."""
    if case["divisor_override"] is not None:
        return float(case["divisor_override"])
    ones = np.ones((1, 1, *case["x"].shape[2:]))
    sums, means = (avg_pool2d(ones, **{**case.arguments, "divisor_override": d}) for d in (1, None))
    return np.rint(sums / means)


law = Laws(cases, expected)


# -- values ------------------------------------------------------------------------------------------------------------


test_output_value = law(
    "avg_pool2d.output.value",
    laws.equals_reference,
    "The sum of every window over the number of its elements.",
    vary=(),
    kernels=(1, 2, 3, 5),
)
test_kernel_rows_columns = law(
    "avg_pool2d.kernel.rows-columns",
    domains.anywhere(laws.equals_reference),
    "Rows first, columns second, whatever the subject shows not to take.",
    cases=domains.asking,
    quantity="kernel_size",
    of=cases,
    vary=("kernel_size",),
)


@requirement("avg_pool2d.window.local", cases, vary=(), change=not_finite_somewhere)
def test_window_local(subject: Trial, case: Case) -> None:
    """Not finite where a window has such an element; elsewhere as if it were not there."""
    x = case["x"]
    finite = expected(case.but(x=np.where(np.isfinite(x), x, np.asarray(0, x.dtype))))
    value = avg_pool2d(x, **case.arguments).astype(np.float64)
    subject.expect(subject(case), finite.change(value, lambda bound, _: bound))


test_channel_independent = law(
    "avg_pool2d.channel.independent", laws.judges_channels_alone, vary=(), channels=(1, 2, 3, 5, 9, 17), effort=2
)


def _strides_by(subject: Trial, case: Case, stride: Any) -> None:
    own = case.but(stride=stride)
    laws.agrees(subject, case.without("stride"), own, expected(own), "without stride, the result")


@requirement(
    "avg_pool2d.stride.default",
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
    "avg_pool2d.stride.step",
    laws.equals_reference,
    "Windows begin at multiples of the stride, rows and columns each of their own.",
    vary=("stride",),
    needs="stride",
)


@composite
def padded(draw, *, dtype: str, lacks: frozenset[str], **fixed):
    """Padding alone, and arguments that are the same in all cases."""
    case = draw(cases(dtype=dtype, lacks=lacks, vary=("padding",), kernels=(2, 3, 4)))
    return case.but(**{name: value for name, value in fixed.items() if name not in lacks})


test_padding_zeros = law(
    "avg_pool2d.padding.zeros",
    laws.equals_reference,
    "Padding adds nothing to the sums, which an override of 1 shows as they are.",
    cases=padded,
    divisor_override=1,
    needs="padding",
)


@requirement("avg_pool2d.padding.default", cases, vary=(), kernels=(2, 3, 4), needs=("padding", "default of padding"))
def test_padding_default(subject: Trial, case: Case) -> None:
    """Without padding, none."""
    laws.agrees(subject, case.without("padding"), case, expected(case), "without padding, the result")


test_divisor_include_pad = law(
    "avg_pool2d.divisor.include-pad",
    laws.equals_reference,
    "Padding counts.",
    cases=padded,
    count_include_pad=True,
    needs=("padding", "count_include_pad"),
)
test_divisor_exclude_pad = law(
    "avg_pool2d.divisor.exclude-pad",
    laws.equals_reference,
    "Padding does not count.",
    cases=padded,
    count_include_pad=False,
    needs=("padding", "count_include_pad"),
)


def _counts_by_default(subject: Trial, case: Case) -> None:
    bare = case.without("count_include_pad", "divisor_override")
    laws.agrees(subject, bare, case, expected(case), "without count_include_pad and divisor_override, the result")


@requirement(
    "avg_pool2d.divisor.default",
    padded,
    needs=("padding", "default of count_include_pad", "default of divisor_override"),
    alternatives={"exclude-pad": lambda subject, case: _counts_by_default(subject, case.but(count_include_pad=False))},
)
def test_divisor_default(subject: Trial, case: Case) -> None:
    """Without both arguments, padding counts and nothing is overridden."""
    _counts_by_default(subject, case)


test_divisor_override = law(
    "avg_pool2d.divisor.override",
    laws.equals_reference,
    "One divisor for all windows.",
    vary=("padding", "divisor_override"),
    kernels=(2, 3, 4),
    needs="divisor_override",
)
test_divisor_overhang = law(
    "avg_pool2d.divisor.overhang",
    laws.equals_reference,
    "What hangs over does not count.",
    vary=("stride", "count_include_pad"),
    ending="extra",
    kernels=(2, 3, 4),
    needs="ceil_mode",
)


test_ceil_mode_last_window = law(
    "avg_pool2d.ceil-mode.last-window",
    laws.has_shape(output_shape),
    "One row and one column of windows more; their values are judged by the divisor's requirements.",
    vary=("stride",),
    ending="extra",
    kernels=(2, 3, 4),
    needs="ceil_mode",
)


@requirement("avg_pool2d.ceil-mode.exact", cases, vary=("stride", "padding"), ending="exact", needs="ceil_mode")
def test_ceil_mode_exact(subject: Trial, case: Case) -> None:
    """Nothing left over, nothing added."""
    floor = case.but(ceil_mode=False)
    laws.agrees(subject, case, floor, expected(floor), "with ceil_mode, where windows fit exactly, the result")


@requirement(
    "avg_pool2d.ceil-mode.dropped",
    cases,
    vary=("stride", "padding", "count_include_pad"),
    ending="dropped",
    needs=("ceil_mode", "stride"),
)
def test_ceil_mode_dropped(subject: Trial, case: Case) -> None:
    """What is left over lies in padding alone: nothing added."""
    floor = case.but(ceil_mode=False)
    laws.agrees(subject, case, floor, expected(floor), "with ceil_mode, and a last window in the padding, the result")


test_arguments_pairs = law(
    "avg_pool2d.arguments.pairs",
    domains.is_accepted,
    "One argument with different numbers for rows and for columns.",
    cases=domains.unequal,
    of=cases,
    stem="avg_pool2d",
    names=("stride", "padding"),
    effort=2,
)
test_arguments_together = law(
    "avg_pool2d.arguments.together",
    laws.equals_reference,
    "All arguments at once, each with its own value for rows and for columns.",
    spread=True,
    kernels=(2, 3, 4),
    channels=(1, 2, 17),
    effort=0.25,
    sweeps=True,
    narrow=True,
)
test_arguments_defaults = law(
    "avg_pool2d.arguments.defaults",
    laws.equals_defaults,
    "Arguments that are left out, beside others that are given.",
    cases=leaving_out,
    of=cases,
    arguments=("kernel_size", "stride", "ceil_mode", "divisor_override"),
    defaults=("padding", "ceil_mode", "count_include_pad", "divisor_override"),
)


@requirement("avg_pool2d.range.ends", wholes, of=cases, dtypes=LONG, effort=2)
def test_range_ends(subject: Trial, case: Case) -> None:
    """Operands and results near the largest and the smallest numbers that there are."""
    laws.holds_at_the_ends(subject, case, expected, "x")


# -- results and operands ----------------------------------------------------------------------------------------------


test_output_size = law(
    "avg_pool2d.output.size",
    laws.has_shape(output_shape),
    "As many rows and columns as windows fit.",
    vary=("kernel_size", "stride", "padding"),
)


test_output_dtype = law("avg_pool2d.output.dtype", laws.keeps_dtype)
test_output_fresh = law("avg_pool2d.output.fresh", laws.is_fresh)
test_input_unchanged = law("avg_pool2d.input.unchanged", laws.leaves_operands)
test_input_layout = law("avg_pool2d.input.layout", laws.ignores_layout)
test_memory_in_bounds = law("avg_pool2d.memory.in-bounds", laws_of_memory.stays_in_bounds)
test_memory_all_written = law("avg_pool2d.memory.all-written", laws_of_memory.writes_everything)
test_memory_alignment = law("avg_pool2d.memory.alignment", laws_of_memory.ignores_alignment)
test_batch_independent = law("avg_pool2d.batch.independent", laws.judges_images_alone)
test_batch_empty = law(
    "avg_pool2d.batch.empty",
    laws.returns_no_images,
    cases=with_default_stride,
    of=cases,
    channels=(1, 2, 3, 5),
    spread=True,
)


test_batch_absent = law("avg_pool2d.batch.absent", laws.takes_one_image)
test_call_stateless = law(
    "avg_pool2d.call.stateless",
    laws.keeps_calls_apart,
    "A call in between changes nothing.",
    cases=calls_in_turn,
    stem=STEM,
)
test_call_neighbours = law("avg_pool2d.call.neighbours", laws.ignores_neighbours)
test_domain_outside = law(
    "avg_pool2d.domain.outside",
    domains.right_or_refused(laws.equals_reference),
    "One size or argument outside what the subject declares.",
    cases=domains.outside,
    of=cases,
    needs="domain",
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(*, dtype: str, lacks: frozenset[str], **choices: Any) -> Decision[Case]:
    """A pool and a cotangent of its result."""
    pool = cases(dtype=dtype, lacks=lacks, **choices)
    return with_cotangent(pool, output_shape)


def expected_gradients(case: Case) -> dict[str, Expected]:
    """Of each window that covers an element a share, with the bound of a sum of quotients."""

    def vjp(g: Array) -> Array:
        return avg_pool2d_vjp(g, case["x"].astype(g.dtype), **case.arguments)

    return {"x": shared(vjp, divisor(case), case["cotangent"])}


gradient = Laws(gradients, expected_gradients, needs=("vjp",))


def gradient_equals_reference(subject: Trial, case: Case) -> None:
    """The one comparison behind every requirement on the values of gradients."""
    laws_of_gradients.equals_reference(subject, case, "x", expected_gradients(case)["x"])


test_gradient_x = gradient(
    "avg_pool2d.gradient.x",
    laws_of_gradients.values("x"),
    "All arguments at once; windows that overlap, and elements that none of them covers.",
    kernels=(2, 3, 4),
    spread=True,
    effort=0.5,  # many layouts of x and cotangent
    channels=(1, 2, 17),
    sweeps=True,
    narrow=True,
)
test_gradient_divisor = gradient(
    "avg_pool2d.gradient.divisor",
    laws_of_gradients.values("x"),
    "Of windows that hang over, in padding or without, counted or not, or overridden.",
    ending="extra",
    kernels=(3, 4, 5),
    needs="ceil_mode",
)
test_gradient_like_operand = gradient(
    "avg_pool2d.gradient.like-operand", laws_of_gradients.is_like_operand, kernels=(1, 1, 2, 3), effort=0.5, spread=True
)
test_gradient_layout = gradient("avg_pool2d.gradient.layout", laws_of_gradients.ignores_layout)
test_gradient_unchanged = gradient("avg_pool2d.gradient.unchanged", laws_of_gradients.leaves_operands)
test_gradient_batch = gradient("avg_pool2d.gradient.batch", laws_of_gradients.judges_images_alone)
test_gradient_channel = gradient(
    "avg_pool2d.gradient.channel", laws_of_gradients.judges_channels_alone, channels=(1, 2, 3, 5, 9, 17), effort=2
)
test_gradient_special = gradient(
    "avg_pool2d.gradient.special",
    laws_of_gradients.values("x"),
    "Where it belongs, and nowhere else.",
    cases=specials,
    of=gradients,
    operand="cotangent",
    kernels=(1, 1, 2, 3),
    channels=(1, 2, 3, 5),
    spread=True,
)
test_gradient_empty = gradient(
    "avg_pool2d.gradient.empty", laws_of_gradients.is_nothing_for_no_images, channels=(1, 2, 3, 5), spread=True
)


# -- the module --------------------------------------------------------------------------------------------------------


test_parameters_none = law("avg_pool2d.parameters.none", laws_of_state.saves_nothing)


# -- refusals ----------------------------------------------------------------------------------------------------------

refusal = Laws(broken, stem=STEM, per_dtype=False)
test_refuses_rank = refusal("avg_pool2d.refuses.rank", laws.refuses, "Two and five dimensions.", how=rank)
test_refuses_kernel_size = refusal(
    "avg_pool2d.refuses.kernel-size",
    laws.refuses,
    "0 and below, or three values.",
    how=no_pair("kernel_size", 1),
    vary=(),
    effort=1,
)
test_refuses_stride = refusal(
    "avg_pool2d.refuses.stride",
    laws.refuses,
    "0 and below, or three values.",
    **NO_STRIDE,
)
CROPS = {"crops": alternatives.crops(expected)}
test_refuses_padding = refusal(
    "avg_pool2d.refuses.padding", laws.refuses, "Below 0, or three values.", **NO_PADDING, alternatives=CROPS
)
test_refuses_padding_half = refusal(
    "avg_pool2d.refuses.padding-half",
    laws.refuses,
    "More than half of the kernel, on one axis or on both.",
    how=too_much_padding,
    vary=("kernel_size", "count_include_pad"),
    kernels=(1, 2, 5, 6),
    needs="padding",
    effort=0.5,
)
test_refuses_divisor = refusal(
    "avg_pool2d.refuses.divisor",
    laws.refuses,
    "0.",
    how=lambda draw, case, lacks: case.but(divisor_override=0),
    needs="divisor_override",
)
test_refuses_window = refusal(
    "avg_pool2d.refuses.window",
    laws.refuses,
    "A window one row or one column larger than fits.",
    how=too_large_a_window,
    vary=("kernel_size", "stride", "padding", "ceil_mode"),
    alternatives={"empty": alternatives.is_empty},
)


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def _left_over(case: Case) -> tuple[int, int]:
    """Rows and columns of the padded image behind the last full window; below 0, how many the window lacks."""
    pairs = zip(case["x"].shape[2:], *(as_pair(case[n]) for n in ("kernel_size", "stride", "padding")), strict=True)
    rows, columns = ((n + 2 * p - k) % s if n + 2 * p >= k else n + 2 * p - k for n, k, s, p in pairs)
    return rows, columns


def test_reach_everything_at_once() -> None:
    """Unequal kernel, stride and padding; each kind of divisor with padding and something left over."""
    together = CHECKS["avg_pool2d.arguments.together"].drawn()
    names = ("kernel_size", "stride", "padding")
    reaches(together, lambda case: all(isinstance(case[n], tuple) for n in names))
    for divisors in ((True, None), (False, None)):

        def corner(case: Case, wanted: tuple[bool, int | None] = divisors) -> bool:
            given = (case["count_include_pad"], case["divisor_override"])
            return case["padding"] != 0 and given == wanted and max(_left_over(case)) > 0

        reaches(together, corner)
    reaches(together, lambda case: case["padding"] != 0 and case["divisor_override"] == -2)


def test_reach_gradients() -> None:
    """Windows that overlap and hang over, with each kind of divisor; elements that no window covers; exact shares."""

    def overlap(case: Case) -> bool:
        return all(s < k for s, k in zip(as_pair(case["stride"]), as_pair(case["kernel_size"]), strict=True))

    def gap(case: Case) -> bool:
        return any(s > k for s, k in zip(as_pair(case["stride"]), as_pair(case["kernel_size"]), strict=True))

    for corner in (
        lambda case: overlap(case) and case["divisor_override"] is None and len(np.unique(divisor(case))) > 2,
        lambda case: overlap(case) and case["padding"] != 0 and not case["count_include_pad"],
        lambda case: overlap(case) and case["divisor_override"] == -2,
    ):
        reaches(gradients(dtype="float32", lacks=frozenset(), ending="extra", kernels=(3, 4, 5)), corner)
    for corner in (
        lambda case: gap(case) and (expected_gradients(case)["x"].value == 0).any(),
        lambda case: overlap(case) and not np.any(expected_gradients(case)["x"].within()),
    ):
        reaches(gradients(dtype="float32", lacks=frozenset()), corner)


def test_reach_windows_larger_than_the_image() -> None:
    """In `ceil_mode` a window may be larger than the padded image, by less than the stride."""
    for name in ("arguments.together", "divisor.overhang", "ceil-mode.last-window", "gradient.x", "gradient.divisor"):
        reaches(CHECKS[f"avg_pool2d.{name}"].drawn(), lambda case: min(_left_over(case)) < 0)

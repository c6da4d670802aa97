"""The requirements of spec/global_avg_pool2d.md, in the page's order."""

from __future__ import annotations

from typing import Any

import numpy as np
from nnspec.adapters.names import LONG
from nnspec.conformance.bounds.pool import averaged, shared
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Case
from nnspec.conformance.checks import domains, laws, laws_of_gradients, laws_of_memory, laws_of_state
from nnspec.conformance.checks.cases import data, specials, wholes, with_cotangent
from nnspec.conformance.checks.laws import Laws
from nnspec.conformance.drawing import Decision, any_of, composite, dimension, reaches, tuples
from nnspec.conformance.requirements import CHECKS, requirement
from nnspec.conformance.sizes import SWEEPS, Sweep
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.global_avg_pool2d import global_avg_pool2d, global_avg_pool2d_vjp

SWEEPS["global_avg_pool2d"] = Sweep(
    layers=tuple(
        {"images0": images, "channels0": channels, "side0": side, "side1": side}
        for images, channels, side in ((1, 512, 7), (1, 512, 8), (128, 512, 7), (1, 1024, 7), (1, 512, 14))
    ),  # ResNet-34 at 224 × 224, at an odd side, and in a batch; MobileNet; VGG without its last pool
    names={"images0": "N", "channels0": "C", "side0": "H", "side1": "W"},
    axes=(("side1",), ("side0",), ("channels0",), ("images0",), ("side0", "side1"), ("images0", "channels0")),
)


@composite
def cases(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    sides: tuple[int, ...] = (1, 2, 3, 4, 5),
    channels: tuple[int, ...] = (1, 2, 3, 5),
    batch: int = 1,
):
    """Images of all sizes; nothing else is to be chosen."""
    images = draw(dimension(*[n for n in (1, 2, 3, 5) if n >= batch], of="images", name="N"))
    c, h = draw(dimension(*channels, of="channels", name="C")), draw(dimension(*sides, of="side", name="H"))
    shape = [images, c, h, draw(dimension(*sides, of="side", name="W", equal=h))]
    return Case("global_avg_pool2d", {"x": draw(data(dtype, ("integers", "normal"))).inputs(*shape)})


def expected(case: Case) -> Expected:
    """What the reference gives, with the bound of a mean."""
    return averaged(global_avg_pool2d, divisor(case), case["x"])


def divisor(case: Case) -> float:
    """H·W"""
    return float(np.prod(case["x"].shape[2:]))


law = Laws(cases, expected)


@laws.law()
def equals_reference(subject: Trial, case: Case, judge: laws.Judge) -> None:
    """The right means, be they in (N, C) or, which output.size judges, in (N, C, 1, 1)."""
    result, wanted = subject(case), judge(case)
    subject.expect(result.reshape(wanted.value.shape) if result.size == wanted.value.size else result, wanted)


# -- values ------------------------------------------------------------------------------------------------------------


test_output_value = law(
    "global_avg_pool2d.output.value",
    equals_reference,
    "The mean over all rows and columns.",
    spread=True,
    sweeps=True,
    narrow=True,
)
test_image_any_size = law(
    "global_avg_pool2d.image.any-size",
    equals_reference,
    "Small and large, odd and even, wide and high.",
    sides=(1, 2, 7, 8, 14, 17),
)
test_channel_independent = law(
    "global_avg_pool2d.channel.independent", laws.judges_channels_alone, channels=(1, 2, 3, 5, 9), effort=2
)
test_special_value = law(
    "global_avg_pool2d.special.value",
    equals_reference,
    "Where it belongs, and nowhere else.",
    cases=specials,
    of=cases,
    operand="x",
    spread=True,
)


@requirement("global_avg_pool2d.range.ends", wholes, of=cases, dtypes=LONG, effort=2)
def test_range_ends(subject: Trial, case: Case) -> None:
    """Operands and results near the largest and the smallest numbers that there are."""
    laws.holds_at_the_ends(subject, case, expected, "x")


# -- results and operands ----------------------------------------------------------------------------------------------


test_output_size = law(
    "global_avg_pool2d.output.size",
    laws.has_shape(lambda case: case["x"].shape[:2]),
    "(N, C), where they are 1 as well.",
)


test_output_dtype = law("global_avg_pool2d.output.dtype", laws.keeps_dtype)
test_output_fresh = law("global_avg_pool2d.output.fresh", laws.is_fresh, sides=(1, 1, 2))
test_input_unchanged = law("global_avg_pool2d.input.unchanged", laws.leaves_operands)
test_input_layout = law("global_avg_pool2d.input.layout", laws.ignores_layout)
test_memory_in_bounds = law("global_avg_pool2d.memory.in-bounds", laws_of_memory.stays_in_bounds)
test_memory_all_written = law("global_avg_pool2d.memory.all-written", laws_of_memory.writes_everything)
test_memory_alignment = law("global_avg_pool2d.memory.alignment", laws_of_memory.ignores_alignment)
test_batch_independent = law("global_avg_pool2d.batch.independent", laws.judges_images_alone)
test_batch_empty = law("global_avg_pool2d.batch.empty", laws.returns_no_images, spread=True)
test_batch_absent = law("global_avg_pool2d.batch.absent", laws.takes_one_image)
test_call_stateless = law(
    "global_avg_pool2d.call.stateless",
    laws.forgets,
    "A call in between, with images of another size, changes nothing.",
    cases=lambda **choices: tuples(cases(**choices), cases(**choices)),
)
test_call_neighbours = law("global_avg_pool2d.call.neighbours", laws.ignores_neighbours)
test_domain_outside = law(
    "global_avg_pool2d.domain.outside",
    domains.right_or_refused(equals_reference),
    "One size or argument outside what the subject declares.",
    cases=domains.outside,
    of=cases,
    needs="domain",
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(*, dtype: str, lacks: frozenset[str], **choices: Any) -> Decision[Case]:
    """Images and a cotangent of their means."""
    return with_cotangent(cases(dtype=dtype, lacks=lacks, **choices), lambda case: case["x"].shape[:2])


def expected_gradients(case: Case) -> dict[str, Expected]:
    """A share for each pixel, with the bound of one division."""

    def vjp(g: np.ndarray) -> np.ndarray:
        return global_avg_pool2d_vjp(g, case["x"].astype(g.dtype))

    return {"x": shared(vjp, divisor(case), case["cotangent"])}


gradient = Laws(gradients, expected_gradients, needs=("vjp",))
test_gradient_x = gradient(
    "global_avg_pool2d.gradient.x",
    laws_of_gradients.values("x"),
    "The same share for every pixel, of small and large images, of one image and of several.",
    spread=True,
    sides=(1, 2, 3, 5, 7, 8, 17),
    sweeps=True,
    narrow=True,
)
test_gradient_like_operand = gradient("global_avg_pool2d.gradient.like-operand", laws_of_gradients.is_like_operand)
test_gradient_layout = gradient("global_avg_pool2d.gradient.layout", laws_of_gradients.ignores_layout)
test_gradient_unchanged = gradient("global_avg_pool2d.gradient.unchanged", laws_of_gradients.leaves_operands)
test_gradient_batch = gradient("global_avg_pool2d.gradient.batch", laws_of_gradients.judges_images_alone)
test_gradient_channel = gradient(
    "global_avg_pool2d.gradient.channel", laws_of_gradients.judges_channels_alone, channels=(1, 2, 3, 5, 9), effort=2
)
test_gradient_special = gradient(
    "global_avg_pool2d.gradient.special",
    laws_of_gradients.values("x"),
    "Where it belongs, and nowhere else.",
    cases=specials,
    of=gradients,
    operand="cotangent",
    spread=True,
)
test_gradient_empty = gradient(
    "global_avg_pool2d.gradient.empty", laws_of_gradients.is_nothing_for_no_images, spread=True
)


# -- the module --------------------------------------------------------------------------------------------------------


test_parameters_none = law("global_avg_pool2d.parameters.none", laws_of_state.saves_nothing)


# -- what need not give a result ---------------------------------------------------------------------------------------


@composite
def changed(draw, *, how: Any, **choices: Any):
    """A case whose image is replaced by one of `how(x)`."""
    case = draw(cases(**choices))
    return case.but(x=draw(any_of(*how(case["x"]))))


@requirement(
    "global_avg_pool2d.image.empty",
    changed,
    how=lambda x: [x[:, :, :0], x[:, :, :, :0], x[:, :, :0, :0]],
    per_dtype=False,
    effort=2,
)
def test_image_empty(subject: Trial, case: Case) -> None:
    """An exception, or NaN."""
    try:
        result = subject(case)
    except Mismatch:
        return
    if result.shape != case["x"].shape[:2] or not np.isnan(result).all():
        message = f"the mean of nothing is {result}, expected an exception, or NaN in shape {case['x'].shape[:2]}"
        raise Mismatch(message, result, holds="result is None or np.isnan(to_numpy(result)).all()")


test_refuses_rank = law(
    "global_avg_pool2d.refuses.rank",
    laws.refuses,
    "Two and five dimensions.",
    cases=changed,
    per_dtype=False,
    how=lambda x: [x[0, 0], x[None]],
)


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_sizes() -> None:
    """Channels as many as rows or columns, and sizes that all differ; high and wide images; one row; one element.

    An axis taken for another gives a result of the right shape where these two are equal; the third need not be.
    """
    for corner in (
        lambda n, c, h, w: c == h > 1,
        lambda n, c, h, w: c == w > 1,
        lambda n, c, h, w: len({n, c, h, w}) == 4,
        lambda n, c, h, w: h > w,
        lambda n, c, h, w: w > h,
        lambda n, c, h, w: 1 in (h, w),
    ):
        reaches(CHECKS["global_avg_pool2d.output.value"].drawn(), lambda case: corner(*case["x"].shape))
    reaches(CHECKS["global_avg_pool2d.output.fresh"].drawn(), lambda case: case["x"].shape[2:] == (1, 1))

"""The requirements of spec/linear.md, in the page's order."""

from __future__ import annotations

from typing import Any

import numpy as np
from nnspec.adapters.names import LONG
from nnspec.adapters.subject import Lacks
from nnspec.conformance.bounds.rule import Expected, multilinear
from nnspec.conformance.case import Case
from nnspec.conformance.checks import (
    alternatives,
    domains,
    laws,
    laws_of_gradients,
    laws_of_memory,
    laws_of_state,
    starts,
)
from nnspec.conformance.checks.cases import altered, data, specials, wholes, with_cotangent
from nnspec.conformance.checks.laws import Laws
from nnspec.conformance.checks.within import argument, inside, leading_within
from nnspec.conformance.drawing import (
    Decision,
    Draw,
    any_of,
    booleans,
    composite,
    dimension,
    integers,
    reaches,
)
from nnspec.conformance.requirements import CHECKS, requirement
from nnspec.conformance.sizes import SWEEPS, Sweep
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.linear import linear, linear_vjp

SWEEPS["linear"] = Sweep(
    layers=tuple(
        {"rows0": rows, "in0": inputs, "out0": outputs}
        for rows, inputs, outputs in (
            (1, 512, 1000),
            (128, 512, 1000),
            (1, 1024, 1000),
            (1, 4096, 1000),
            (197, 192, 768),
        )
    ),  # the last layers of ResNet-34, also in a batch, of MobileNet and of VGG; and one of a small transformer
    names={"rows0": "rows", "rows1": "rows of axis 1", "in0": "in_features", "out0": "out_features"},
    axes=(("in0",), ("out0",), ("rows0",), ("in0", "out0"), ("rows0", "out0"), ("rows0", "in0")),
)
FEW, FROM_ONE, WIDE = (2, 3, 4), (1, 2, 3), (2, 3, 17, 33, 300)
MANY, LONGER = (1, 2, 3, 5), (1, 2, 3, 5)  # features, and sizes of leading dimensions
MOST = (0, 1, 2, 3, 3)  # numbers of leading dimensions


@composite
def cases(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    vary: tuple[str, ...] = ("leading", "bias"),
    features: tuple[int, ...] = FEW,
    rows: tuple[int, ...] = (1, 2, 3, 4),
    axes: tuple[int, ...] = (0, 1, 2, 3),
    batch: int = 1,
):
    """A linear layer. What is not in `vary` is neutral: one leading dimension, no bias. `axes`: how many lead, else.

    Sizes are often equal, weights square: where all sizes differ, an axis taken for another only raises.
    """
    inputs = draw(dimension(*features, of="in", name="in_features"))
    outputs = draw(dimension(inputs, *features, of="out", name="out_features", equal=inputs))
    sizes = dimension(*[*rows, *(n for n in (inputs, outputs, outputs) if n < 5)], of="rows")
    if "leading" in vary:
        leading = tuple(draw(sizes) for _ in range(max(batch > 1, draw(any_of(*axes)))))
        leading = leading and (max(batch, leading[0]), *leading[1:])
    else:
        leading = (max(batch, draw(sizes)),)
    leading = leading_within(draw, leading)
    values = draw(data(dtype))
    x, weight = values.inputs(*leading, inputs), values.weights(outputs, inputs)
    varies = "bias" in vary and "bias" not in lacks
    has_bias = draw(argument("bias", any_of(False, True, True), (False, True), neutral=False, varies=varies))
    return Case("linear", {"x": x, "weight": weight, "bias": values.offsets(outputs) if has_bias else None})


def expected(case: Case) -> Expected:
    """What the reference gives, with the bound of the verdict rule."""
    return multilinear(linear, case["x"], case["weight"], case["bias"])


law = Laws(cases, expected)


# -- values ------------------------------------------------------------------------------------------------------------


@requirement("linear.weight.orientation", cases, vary=())
def test_weight_orientation(subject: Trial, case: Case) -> None:
    """A weight with one non-zero element, in its last column, copies the last feature into the first output."""
    weight = np.zeros_like(case["weight"])
    weight[0, -1] = 1
    laws.equals_reference(subject, case.but(weight=weight), expected)


test_output_value = law(
    "linear.output.value",
    laws.equals_reference,
    "Every output element is the sum over I.",
    vary=(),
    features=WIDE,
    sweeps=True,
)


@requirement("linear.bias.per-feature", cases, vary=("bias",), rows=LONGER, needs="bias", spread=True)
def test_bias_per_feature(subject: Trial, case: Case) -> None:
    """On an input of zeros every feature shows its bias alone; without a bias the product is all."""
    if case["bias"] is None:
        laws.equals_reference(subject, case, expected)
    else:
        laws.equals_reference(subject, case.but(x=np.zeros_like(case["x"])), expected)


test_leading_any = law(
    "linear.leading.any",
    domains.anywhere(laws.equals_reference),
    "From a single vector to an array of four dimensions, whatever the subject shows not to take.",
    cases=domains.asking,
    quantity="ndim",
    of=cases,
    vary=("leading",),
    features=MANY,
    rows=LONGER,
    axes=(0, 1, 2, 2, 3, 3),
    spread=True,
)


@composite
def one_feature(draw, *, dtype: str, lacks: frozenset[str]):
    """One input feature, one output feature, or one of each."""
    case = draw(cases(dtype=dtype, lacks=lacks, vary=("bias",), batch=2))
    x, weight, bias = case["x"], case["weight"], case["bias"]
    which = draw(any_of("both", "input", "output"))
    if which != "output":
        x, weight = x[:, :1], weight[:, :1]
    if which != "input":
        weight, bias = weight[:1], bias if bias is None else bias[:1]
    return case.but(x=x, weight=weight, bias=bias)


test_features_one = law(
    "linear.features.one", laws.equals_reference, "An axis of one feature stays an axis.", cases=one_feature
)


@composite
def no_features(draw, *, dtype: str, lacks: frozenset[str]):
    """No input features, no output features, or neither."""
    case = draw(cases(dtype=dtype, lacks=lacks, vary=("bias",)))
    x, weight, bias = case["x"], case["weight"], case["bias"]
    which = draw(any_of("input", "output", "both"))
    if which != "output":
        x, weight = x[:, :0], weight[:, :0]
    if which != "input":
        weight, bias = weight[:0], bias if bias is None else bias[:0]
    return case.but(x=x, weight=weight, bias=bias)


@requirement("linear.features.zero", no_features)
def test_features_zero(subject: Trial, case: Case) -> None:
    """The bias alone, or zeros, or no features. A module may refuse to be built with none."""
    may_refuse(subject, case)
    laws.equals_reference(subject, case, expected)


def may_refuse(subject: Trial, case: Case) -> None:
    """Raise Lacks where no module of the case's sizes can be built."""
    if subject.form == "class":
        try:
            subject.new("linear", *case["weight"].shape[::-1])
        except Mismatch as refusal:
            raise Lacks("a module of no features is refused") from refusal


@composite
def together(draw, *, dtype: str, lacks: frozenset[str]):
    """Leading dimensions and a bias. In many cases the bias has as many elements as x has rows and would fit either."""
    case = draw(cases(dtype=dtype, lacks=lacks, features=(1, 2, 3, 33), rows=LONGER, axes=MOST))
    if case["bias"] is None or draw(booleans()):
        return case
    resized = np.resize(case["x"], (draw(integers(1, 2)), len(case["bias"]), case["x"].shape[-1]))
    return inside(draw, [case.but(x=resized), case])[0]


test_arguments_together = law(
    "linear.arguments.together",
    laws.equals_reference,
    "Leading dimensions and a bias at once.",
    cases=together,
    spread=True,
    sweeps=True,
    narrow=True,
)
test_special_value = law(
    "linear.special.value",
    laws.equals_reference,
    "Where it belongs, and nowhere else.",
    cases=specials,
    of=cases,
    operand="x",
    features=MANY,
    rows=LONGER,
    axes=MOST,
    spread=True,
)


@requirement("linear.range.ends", wholes, of=cases, dtypes=LONG, effort=2)
def test_range_ends(subject: Trial, case: Case) -> None:
    """Operands and results near the largest and the smallest numbers that there are."""
    laws.holds_at_the_ends(subject, case, expected, "x", "weight")


# -- results and operands ----------------------------------------------------------------------------------------------


test_output_size = law(
    "linear.output.size",
    laws.has_shape(lambda case: (*case["x"].shape[:-1], len(case["weight"]))),
    "The leading dimensions, then O.",
    features=MANY,
    rows=LONGER,
    axes=MOST,
    spread=True,
)


test_output_dtype = law("linear.output.dtype", laws.keeps_dtype)


@requirement("linear.output.fresh", cases, effort=2)
def test_output_fresh(subject: Trial, case: Case) -> None:
    """No memory shared, no buffer used again; an empty sum is not the bias itself."""
    laws.is_fresh(subject, case)
    if subject.form == "function":
        laws.is_fresh(subject, case.but(x=case["x"][..., :0], weight=case["weight"][:, :0]))


test_input_unchanged = law("linear.input.unchanged", laws.leaves_operands)
test_input_layout = law("linear.input.layout", laws.ignores_layout)
test_memory_in_bounds = law("linear.memory.in-bounds", laws_of_memory.stays_in_bounds)
test_memory_all_written = law("linear.memory.all-written", laws_of_memory.writes_everything)
test_memory_alignment = law("linear.memory.alignment", laws_of_memory.ignores_alignment)
test_batch_independent = law("linear.batch.independent", laws.judges_images_alone)


@composite
def empty(draw, *, dtype: str, lacks: frozenset[str]):
    """One of the leading dimensions, or the only one, is of size 0."""
    case = draw(cases(dtype=dtype, lacks=lacks, features=(1, 2, 100), rows=LONGER, axes=MOST, batch=2))
    axis = draw(any_of(0, *range(case["x"].ndim - 1)))
    return case.but(x=np.take(case["x"], [], axis))


@requirement("linear.batch.empty", empty, spread=True)
def test_batch_empty(subject: Trial, case: Case) -> None:
    """No vectors in, no vectors out."""
    subject.expect(subject(case), expected(case))


@requirement("linear.call.stateless", cases, features=FROM_ONE)
def test_call_stateless(subject: Trial, case: Case) -> None:
    """Neither another input nor another weight in between, nor new values in the same weight, find anything kept."""
    other = case.map(lambda a: -2 * a)
    if subject.form == "class":
        layer = subject.build(case)
        first = np.array(layer(case["x"]))
        layer(other["x"])
        subject.expect(layer(case["x"]), laws.own(first, expected(case)), "the result, after a call with another x,")
        layer.load({n: a for n, a in other.arrays.items() if n != "x" and a is not None})
        anew = laws.own(subject.presumed(other), expected(other))
        subject.expect(layer(other["x"]), anew, "the result, after new parameters were loaded,")
        return
    if case["bias"] is not None and not subject.excludes(without := case.but(bias=None)):
        laws.keeps_calls_apart(subject, (without, case), expected)
    operands = case.map(np.array)
    subject.results(operands, as_is=True)
    for name, array in operands.arrays.items():
        if array is not None:
            array[...] = other[name]
    (again, *_) = subject.results(operands, as_is=True)
    anew = laws.own(subject.presumed(other), expected(other))
    subject.expect(again, anew, "the result, after new values were written into the operands,")


test_call_neighbours = law("linear.call.neighbours", laws.ignores_neighbours)
test_domain_outside = law(
    "linear.domain.outside",
    domains.right_or_refused(laws.equals_reference),
    "One size or argument outside what the subject declares.",
    cases=domains.outside,
    of=cases,
    needs="domain",
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(*, dtype: str, lacks: frozenset[str], of: Any = cases, **choices: Any) -> Decision[Case]:
    """A linear layer and a cotangent of its result."""
    layers = of(dtype=dtype, lacks=lacks, **choices)
    return with_cotangent(layers, lambda case: (*case["x"].shape[:-1], len(case["weight"])))


def expected_gradients(case: Case) -> dict[str, Expected]:
    """Those of x and weight are linear in the cotangent and in the other of the two, that of the bias is a sum."""
    x, weight, cotangent = case["x"], case["weight"], case["cotangent"]

    def vjp(g: np.ndarray, x: np.ndarray, weight: np.ndarray) -> Any:
        return linear_vjp(g, x.astype(g.dtype), weight.astype(g.dtype), np.zeros(len(weight)))

    found = {
        "x": multilinear(lambda g, w: vjp(g, x, w)[0], cotangent, weight),
        "weight": multilinear(lambda g, x: vjp(g, x, weight)[1], cotangent, x),
    }
    if case["bias"] is not None:
        found["bias"] = multilinear(lambda g: vjp(g, x, weight)[2], cotangent)
    return found


gradient = Laws(gradients, expected_gradients, needs=("vjp",))


def gradient_equals_reference(subject: Trial, case: Case, *operands: str) -> None:
    """The one comparison behind every requirement on the values of gradients."""
    expected = expected_gradients(case)
    for operand in operands or expected:
        laws_of_gradients.equals_reference(subject, case, operand, expected[operand])


test_gradient_x = gradient(
    "linear.gradient.x",
    laws_of_gradients.values("x"),
    "Every output feature hands its cotangent back, times its row of the weight.",
    features=(1, *WIDE),
    rows=LONGER,
    axes=MOST,
    effort=0.5,
    spread=True,
    sweeps=True,
    narrow=True,
)
test_gradient_weight = gradient(
    "linear.gradient.weight",
    laws_of_gradients.values("weight"),
    "All vectors, along however many leading dimensions, add up, whatever other gradients show.",
    cases=domains.asking,
    quantity="ndim",
    of=gradients,
    features=FROM_ONE,
    rows=(1, 2, 3, 17, 17),
    effort=0.5,  # many layouts of operands and cotangent
    spread=True,
    sweeps=True,
)


@requirement(
    "linear.gradient.bias",
    gradients,
    needs=("vjp", "bias"),
    features=MANY,
    rows=(1, 2, 3, 17, 17),
    axes=MOST,
    spread=True,
)
def test_gradient_bias(subject: Trial, case: Case) -> None:
    """The sum of a feature's cotangents."""
    if case["bias"] is None:
        case = case.but(bias=np.zeros(len(case["weight"]), case["x"].dtype))
    gradient_equals_reference(subject, case, "bias")


@requirement("linear.gradient.features-zero", gradients, needs="vjp", of=no_features)
def test_gradient_features_zero(subject: Trial, case: Case) -> None:
    """Gradients without elements; 0 for an x that no output feature looks at; the bias's as ever."""
    may_refuse(subject, case)
    gradient_equals_reference(subject, case)


test_gradient_like_operand = gradient(
    "linear.gradient.like-operand", laws_of_gradients.is_like_operand, features=FROM_ONE
)


test_gradient_layout = gradient("linear.gradient.layout", laws_of_gradients.ignores_layout_of_all)


test_gradient_unchanged = gradient("linear.gradient.unchanged", laws_of_gradients.leaves_operands)
test_gradient_frozen = gradient("linear.gradient.frozen", laws_of_gradients.ignores_frozen)
test_gradient_batch = gradient("linear.gradient.batch", laws_of_gradients.judges_images_alone)
test_gradient_special = gradient(
    "linear.gradient.special",
    laws_of_gradients.values(),
    "Where it belongs, and nowhere else.",
    cases=specials,
    of=gradients,
    operand="cotangent",
    features=MANY,
    rows=LONGER,
    axes=MOST,
    spread=True,
)
test_gradient_empty = gradient("linear.gradient.empty", laws_of_gradients.is_nothing, of=empty, effort=1, spread=True)


# -- the module --------------------------------------------------------------------------------------------------------


test_parameters_complete = law(
    "linear.parameters.complete",
    laws_of_state.parameters_are_complete,
    "weight and bias, or weight alone.",
    features=FROM_ONE,
)
test_buffers_none = law("linear.buffers.none", laws_of_state.saves_no_buffers)
test_state_own = law("linear.state.own", laws_of_state.shares_nothing)


@requirement("linear.init.range", cases, vary=(), forms="class", dtypes=LONG)
def test_init_range(subject: Trial, case: Case) -> None:
    """Weight and bias of 64 outputs; a right start fails less than once in 2⁶¹ modules."""
    inputs = case["weight"].shape[1]
    module = subject.new("linear", inputs, starts.UNITS)
    starts.are_uniform(subject.entries(case.stem, module, ("weight", "bias")), inputs)


# -- refusals ----------------------------------------------------------------------------------------------------------


def _rank(draw: Draw, case: Case) -> Case:
    x, weight = case["x"], case["weight"]
    stack = np.stack([weight] * draw(integers(1, 3)))
    numbers = case.but(x=x.flat[0]), case.but(weight=weight.flat[0].reshape(()))
    return draw(any_of(*numbers, *[case.but(weight=stack)] * 2)).map(np.asarray)


refusal = Laws(altered, of=cases, per_dtype=False)
test_refuses_rank = refusal(
    "linear.refuses.rank",
    laws.refuses,
    "A number as input; a number or a stack of matrices as weight.",
    how=_rank,
    forms="function",
    effort=0.5,  # three ways, of which few sizes let code accept the stack
)


def _features(draw: Draw, case: Case) -> Case:
    inputs = case["x"].shape[-1]
    wrong = draw(any_of(*[n for n in (1, inputs - 1, inputs + 1) if n != inputs]))
    return case.but(x=np.resize(case["x"], (*case["x"].shape[:-1], wrong)))


test_refuses_features = refusal(
    "linear.refuses.features",
    laws.refuses,
    "One feature too many or too few, or but one.",
    how=_features,
    features=FROM_ONE,
)


def _bias(draw: Draw, case: Case) -> Case:
    outputs = len(case["weight"])
    wrong = draw(any_of(*[n for n in (outputs + 1, 2 * outputs + 1, outputs - 1) if n > 1]))
    return case.but(bias=np.ones(wrong, case["x"].dtype))


test_refuses_bias = refusal(
    "linear.refuses.bias",
    laws.refuses,
    "Another length than O.",
    how=_bias,
    features=FROM_ONE,
    needs="bias",
    forms="function",
)


def _broadcastable(draw: Draw, case: Case) -> Case:
    shape = (*case["x"].shape[:-1], len(case["weight"]))
    wrong = draw(any_of((1,), (), shape, (*shape[:-1], 1)))
    return case.but(bias=np.ones(wrong, case["x"].dtype))


def _with_every_bias(case: Case) -> Expected:
    def broadcast(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return linear(x, weight) + np.broadcast_to(bias, (*x.shape[:-1], len(weight)))

    return multilinear(broadcast, *(case[name] for name in ("x", "weight", "bias")))


test_refuses_bias_broadcast = refusal(
    "linear.refuses.bias-broadcast",
    laws.refuses,
    "One value for all features, and one for every element.",
    alternatives={"broadcast": alternatives.gives(_with_every_bias)},
    how=_broadcastable,
    vary=(),
    needs="bias",
    forms="function",
    effort=1,
)


@composite
def negative_sizes(draw, *, dtype: str, lacks: frozenset[str]):
    """in_features and out_features, of which one or both are negative."""
    legal, negative = draw(integers(1, 3)), draw(integers(-3, -1))
    sizes = draw(any_of((legal, negative), (negative, legal), (negative, negative)))
    return Case("linear", {}, {"in_features": sizes[0], "out_features": sizes[1]})


@requirement("linear.refuses.sizes", negative_sizes, forms="class", per_dtype=False)
def test_refuses_sizes(subject: Trial, case: Case) -> None:
    """Fewer than no features."""
    laws.refuses_to_build(subject, case.stem, *case.arguments.values())


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_corners() -> None:
    """No leading dimensions and three, each with a bias; equal sizes of all axes; wide sums; one feature."""
    together, value = (CHECKS[f"linear.{name}"].drawn() for name in ("arguments.together", "output.value"))
    reaches(together, lambda c: c["x"].ndim == 1 and c["bias"] is not None)
    reaches(together, lambda c: c["x"].ndim == 4 and c["bias"] is not None)
    reaches(together, lambda c: c["x"].ndim > 2 and c["bias"] is not None and c["x"].shape[-2] == len(c["bias"]) > 1)
    leading = CHECKS["linear.leading.any"].drawn()
    reaches(leading, lambda c: c["x"].ndim == 3 and len({*c["weight"].shape, len(c["x"])}) == 1)
    for axis in (0, 1):  # wide on one axis, and at least a vector register on the other
        reaches(value, lambda c: c["weight"].shape[axis] == 300 and c["weight"].shape[1 - axis] >= 17)
    reaches(CHECKS["linear.gradient.x"].drawn(), lambda c: c["weight"].shape[1] == 1 and len(c["weight"]) >= 17)


def test_reach_gradients() -> None:
    """Vectors and four dimensions of many rows; copies; no features on either side."""
    weight, none = (CHECKS[f"linear.gradient.{name}"].drawn() for name in ("weight", "features-zero"))
    reaches(weight, lambda c: c["x"].ndim == 1 and c["bias"] is not None)
    reaches(weight, lambda c: c["x"].ndim == 4 and np.prod(c["x"].shape[:-1]) >= 100)
    reaches(weight, lambda c: c["x"].ndim == 2 and ((c["cotangent"] != 0).sum(0) == 1).all() and len(c["x"]) > 1)
    reaches(none, lambda c: c["weight"].shape[0] == 0 < c["weight"].shape[1])
    reaches(none, lambda c: c["weight"].shape[1] == 0 < c["weight"].shape[0] and c["bias"] is not None)


def test_reach_empty_batches() -> None:
    """A batch of none with several input features and one output feature, and an inner dimension of size 0."""
    empty = CHECKS["linear.batch.empty"].drawn()
    reaches(empty, lambda c: c["x"].shape == (0, 100))
    reaches(empty, lambda c: c["x"].ndim == 2 and len(c["weight"]) == 1 < c["weight"].shape[1])
    reaches(empty, lambda c: c["x"].ndim == 4 and c["x"].shape[1] == 0)

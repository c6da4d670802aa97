"""The requirements of spec/mlp.md, in the page's order."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import find
from hypothesis import strategies as st
from nnspec.conformance import gradients as laws_of_gradients
from nnspec.conformance import laws
from nnspec.conformance.cases import KINDS, Case, any_of, composite, data, with_cotangent
from nnspec.conformance.requirements import requirement
from nnspec.conformance.rule import Expected
from nnspec.conformance.running_error import Approximate, linear_block, relu, relu_vjp
from nnspec.conformance.trial import Mismatch, Trial
from nnspec.reference.linear import linear, linear_vjp

ALL = ("leading", "hidden", "hidden bias", "output", "output bias")


@composite
def cases(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    vary: tuple[str, ...] = ALL,
    features: tuple[int, ...] = (2, 3, 4),
    batch: int = 1,
    kinds: tuple[str, ...] = KINDS,
):
    """A perceptron. `vary` frees the leading dimensions, the signs of the two layers' sums, and the two biases.

    Where the signs of the hidden layer are not free, it has no negative value and the rectifier nothing to do; where
    those of the output are not, the result has none. Sizes are often equal: layers exchanged then only show in values.
    """
    inputs = draw(any_of(*features))
    hidden, outputs = (draw(any_of(inputs, *features)) for _ in range(2))
    if "leading" in vary:
        leading = tuple(draw(st.lists(st.integers(1, 4), min_size=batch > 1, max_size=3)))
        leading = leading and (max(batch, leading[0]), *leading[1:])
    else:
        leading = (draw(st.integers(batch, 3)),)
    values = draw(data(dtype, kinds))
    x, weight1, weight2 = (
        values.inputs(*leading, inputs),
        values.weights(hidden, inputs),
        values.weights(outputs, hidden),
    )
    bias1, bias2 = values.inputs(hidden), values.inputs(outputs)
    if "hidden" not in vary:
        x, weight1 = abs(x), abs(weight1)
    if "output" not in vary:
        weight2 = abs(weight2)
    arrays = {
        "x": x,
        "fc1.weight": weight1,
        "fc1.bias": bias1 if "hidden bias" in vary else np.zeros_like(bias1),
        "fc2.weight": weight2,
        "fc2.bias": bias2 if "output bias" in vary else np.zeros_like(bias2),
    }
    return Case("mlp", arrays)


def expected(case: Case) -> Expected:
    """What the reference's blocks give in a row, with the error that each may hand on to the next."""
    hidden = linear_block(linear, Approximate.given(case["x"]), case["fc1.weight"], case["fc1.bias"])
    return linear_block(linear, relu(hidden), case["fc2.weight"], case["fc2.bias"]).expected


def equals_reference(subject: Trial, case: Case) -> None:
    """The one comparison behind every requirement on values."""
    subject.expect(subject(case), expected(case))


# -- values ------------------------------------------------------------------------------------------------------------


@requirement("mlp.output.value", cases, vary=())
def test_output_value(subject: Trial, case: Case) -> None:
    """The second weight times the first times the input."""
    equals_reference(subject, case)


@requirement("mlp.hidden.relu", cases, vary=("hidden",))
def test_hidden_relu(subject: Trial, case: Case) -> None:
    """No negative hidden value counts."""
    equals_reference(subject, case)


@requirement("mlp.hidden.bias", cases, vary=("hidden bias",))
def test_hidden_bias(subject: Trial, case: Case) -> None:
    """The first bias may make a hidden value negative, and so 0."""
    equals_reference(subject, case)


@requirement("mlp.output.linear", cases, vary=("output",))
def test_output_linear(subject: Trial, case: Case) -> None:
    """Results of both signs."""
    equals_reference(subject, case)


@requirement("mlp.output.bias", cases, vary=("output bias",))
def test_output_bias(subject: Trial, case: Case) -> None:
    """On an input of zeros every output feature shows its bias alone."""
    equals_reference(subject, case.but(x=np.zeros_like(case["x"])))


@requirement("mlp.arguments.together", cases, features=(1, 2, 3, 17, 65))
def test_arguments_together(subject: Trial, case: Case) -> None:
    """Everything at once."""
    equals_reference(subject, case)


@requirement("mlp.leading.any", cases, vary=("leading",))
def test_leading_any(subject: Trial, case: Case) -> None:
    """From a single vector to an array of four dimensions."""
    equals_reference(subject, case)


# -- results and operands ----------------------------------------------------------------------------------------------


@requirement("mlp.output.size", cases, features=(1, 2, 3))
def test_output_size(subject: Trial, case: Case) -> None:
    """The leading dimensions, then O."""
    actual, shape = subject(case).shape, (*case["x"].shape[:-1], len(case["fc2.weight"]))
    if actual != shape:
        message = f"the result has shape {actual}, expected {shape}"
        raise Mismatch(message, holds=f"result.shape == {shape}")


@requirement("mlp.output.dtype", cases)
def test_output_dtype(subject: Trial, case: Case) -> None:
    """The dtype of the input and the parameters."""
    laws.keeps_dtype(subject, case)


@requirement("mlp.output.fresh", cases)
def test_output_fresh(subject: Trial, case: Case) -> None:
    """No memory shared, no buffer used again."""
    laws.is_fresh(subject, case)


@requirement("mlp.input.unchanged", cases)
def test_input_unchanged(subject: Trial, case: Case) -> None:
    """Neither the input nor a parameter is written to."""
    laws.leaves_operands(subject, case)
    layer = subject.build(case)
    before = layer.state()
    layer(case["x"])
    for name, array in layer.state().items():
        subject.expect(array, Expected.exactly(before[name]), f"{name}, after the call,")


@requirement("mlp.input.layout", cases, effort=4)
def test_input_layout(subject: Trial, case: Case) -> None:
    """Only the elements count."""
    laws.ignores_layout(subject, case, expected(case))


@requirement("mlp.batch.independent", cases, batch=2)
def test_batch_independent(subject: Trial, case: Case) -> None:
    """Each vector by itself."""
    laws.judges_images_alone(subject, case, expected(case))


@composite
def empty(draw, *, dtype: str, lacks: frozenset[str]):
    """One of the leading dimensions, or the only one, is of size 0."""
    case = draw(cases(dtype=dtype, features=(1, 2, 100), batch=2))
    axis = draw(st.integers(0, case["x"].ndim - 2))
    return case.but(x=np.take(case["x"], [], axis))


@requirement("mlp.batch.empty", empty)
def test_batch_empty(subject: Trial, case: Case) -> None:
    """No vectors in, no vectors out."""
    equals_reference(subject, case)


@requirement("mlp.call.stateless", cases)
def test_call_stateless(subject: Trial, case: Case) -> None:
    """Neither another input in between nor the mode changes a result; new parameters do."""
    layer, other = subject.build(case), case.map(lambda a: -2 * a)
    for mode in (True, False):
        layer.train(mode)
        for x in (case["x"], other["x"], case["x"]):
            called = case.but(x=x)
            subject.expect(layer(x), expected(called), f"the result of a layer called before, with training={mode},")
    layer.load({n: a for n, a in other.arrays.items() if n != "x"})
    subject.expect(layer(other["x"]), expected(other), "the result, after new parameters were loaded,")


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(*, dtype: str, lacks: frozenset[str], of: Any = cases, **choices: Any) -> st.SearchStrategy[Case]:
    """A perceptron and a cotangent of its result: that of some loss, which need not be linear."""
    perceptrons = of(dtype=dtype, lacks=lacks, **choices)
    return with_cotangent(perceptrons, lambda case: (*case["x"].shape[:-1], len(case["fc2.weight"])))


def expected_gradients(case: Case) -> dict[str, Expected]:
    """What the reference's blocks give in a row, there and back, with the error that each may hand on to the next."""
    x, weight1, weight2, cotangent = case["x"], case["fc1.weight"], case["fc2.weight"], case["cotangent"]

    def by_x(g: Any, weight: Any, _: Any) -> Any:
        return linear_vjp(g, np.zeros((*g.shape[:-1], weight.shape[1])), weight)[0]

    def by_weight(g: Any, x: Any, _: Any) -> Any:
        return linear_vjp(g, x, np.zeros((g.shape[-1], x.shape[-1])))[1]

    def by_bias(g: Any, *_: Any) -> Any:
        return linear_vjp(g, g[..., :0], np.zeros((g.shape[-1], 0)), np.zeros(g.shape[-1]))[2]

    hidden = linear_block(linear, Approximate.given(x), weight1, case["fc1.bias"])
    given = Approximate.given(cotangent)
    back = relu_vjp(linear_block(by_x, given, weight2), hidden)
    found = {
        "x": linear_block(by_x, back, weight1),
        "fc1.weight": linear_block(by_weight, back, x),
        "fc1.bias": linear_block(by_bias, back),
        "fc2.weight": linear_block(lambda hidden, g, _: by_weight(g, hidden, _), relu(hidden), cotangent),
        "fc2.bias": linear_block(by_bias, given),
    }
    return {operand: gradient.expected for operand, gradient in found.items()}


def gradient_equals_reference(subject: Trial, case: Case, *operands: str) -> None:
    """The one comparison behind every requirement on the values of gradients."""
    expected = expected_gradients(case)
    for operand in operands:
        laws_of_gradients.equals_reference(subject, case, operand, expected[operand])


@requirement("mlp.gradient.x", gradients, needs="vjp", features=(1, 2, 3, 17))
def test_gradient_x(subject: Trial, case: Case) -> None:
    """Through the second layer, the rectifier and the first layer."""
    gradient_equals_reference(subject, case, "x")


@composite
def at_kink(draw, *, dtype: str, lacks: frozenset[str]):
    """Integers, of which no sum is rounded, and a bias for which hidden values of the first vector are exactly 0."""
    case = draw(cases(dtype=dtype, lacks=lacks, kinds=("integers",)))
    first, bias = case["x"].reshape(-1, case["x"].shape[-1])[0], case["fc1.bias"].copy()
    units = sorted(draw(st.sets(st.integers(0, len(bias) - 1), min_size=1)))
    bias[units] = -linear(first, case["fc1.weight"][units])
    return case.but(**{"fc1.bias": bias})


@requirement("mlp.gradient.hidden-relu", gradients, needs="vjp", of=at_kink)
def test_gradient_hidden_relu(subject: Trial, case: Case) -> None:
    """Hidden values below, at and above 0."""
    gradient_equals_reference(subject, case, "x", "fc1.weight", "fc1.bias")


@requirement("mlp.gradient.first-weight", gradients, needs="vjp", features=(1, 2, 3, 17))
def test_gradient_first_weight(subject: Trial, case: Case) -> None:
    """What came back to the hidden layer, times the input."""
    gradient_equals_reference(subject, case, "fc1.weight")


@requirement("mlp.gradient.first-bias", gradients, needs="vjp")
def test_gradient_first_bias(subject: Trial, case: Case) -> None:
    """What came back to the hidden layer."""
    gradient_equals_reference(subject, case, "fc1.bias")


@requirement("mlp.gradient.second-weight", gradients, needs="vjp", features=(1, 2, 3, 17))
def test_gradient_second_weight(subject: Trial, case: Case) -> None:
    """The cotangent times the rectified hidden values."""
    gradient_equals_reference(subject, case, "fc2.weight")


@requirement("mlp.gradient.second-bias", gradients, needs="vjp")
def test_gradient_second_bias(subject: Trial, case: Case) -> None:
    """The cotangent."""
    gradient_equals_reference(subject, case, "fc2.bias")


@requirement("mlp.gradient.like-operand", gradients, needs="vjp", features=(1, 2, 3))
def test_gradient_like_operand(subject: Trial, case: Case) -> None:
    """Of the input, and of each parameter under its key."""
    laws_of_gradients.is_like_operand(subject, case)


@requirement("mlp.gradient.layout", gradients, needs="vjp", effort=4)
def test_gradient_layout(subject: Trial, case: Case) -> None:
    """Of the cotangent alone, and of the input as well."""
    laws_of_gradients.ignores_layout(subject, case, expected_gradients)
    laws_of_gradients.ignores_layout_of_operands(subject, case, expected_gradients)


@requirement("mlp.gradient.unchanged", gradients, needs="vjp")
def test_gradient_unchanged(subject: Trial, case: Case) -> None:
    """Input and cotangent."""
    laws_of_gradients.leaves_operands(subject, case)


@requirement("mlp.gradient.batch", gradients, needs="vjp", batch=2)
def test_gradient_batch(subject: Trial, case: Case) -> None:
    """Each vector by itself."""
    laws_of_gradients.judges_images_alone(subject, case, expected_gradients)


@requirement("mlp.gradient.empty", gradients, needs="vjp", of=empty)
def test_gradient_empty(subject: Trial, case: Case) -> None:
    """No vectors: zeros for all parameters."""
    laws_of_gradients.is_nothing(subject, case)


# -- the module --------------------------------------------------------------------------------------------------------


@composite
def sizes(draw, *, dtype: str, lacks: frozenset[str]):
    """The constructor's three sizes; all equal, two, or none."""
    inputs = draw(st.integers(1, 4))
    hidden, outputs = (draw(any_of(inputs, 1, 2, 3, 4)) for _ in range(2))
    return Case("mlp", {}, {"in_features": inputs, "hidden_features": hidden, "out_features": outputs})


@requirement("mlp.parameters.complete", sizes, per_dtype=False)
def test_parameters_complete(subject: Trial, case: Case) -> None:
    """Two weights and two biases, each of which keeps what is loaded into it."""
    inputs, hidden, outputs = case.arguments.values()
    module = subject.new("mlp", inputs, hidden, outputs)
    state = subject.state(module)
    shapes = sorted(a.shape for a in state.values())
    wanted = sorted([(hidden, inputs), (hidden,), (outputs, hidden), (outputs,)])
    if shapes != wanted:
        raise Mismatch(f"the parameters are of shapes {shapes}, expected {wanted}")
    loaded = {key: np.full_like(a, n) for n, (key, a) in enumerate(state.items())}
    with subject.watched("load_state_dict(…)", "a state loaded"):
        subject.subject.framework.load_entries(module, loaded)
    for key, array in subject.state(module).items():
        subject.expect(array, Expected.exactly(loaded[key]), f"{key}, after all parameters were loaded,")


@requirement("mlp.parameters.names", sizes, per_dtype=False)
def test_parameters_names(subject: Trial, case: Case) -> None:
    """fc1 and fc2, each with a weight and a bias."""
    keys = list(subject.state(subject.new("mlp", *case.arguments.values())))
    if keys != ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]:
        raise Mismatch(f"the keys are {', '.join(keys)}; expected fc1.weight, fc1.bias, fc2.weight, fc2.bias")


# -- refusals ----------------------------------------------------------------------------------------------------------


@requirement("mlp.refuses.rank", cases, features=(1, 2, 3), per_dtype=False)
def test_refuses_rank(subject: Trial, case: Case) -> None:
    """A number is no vector, of one feature neither."""
    subject.refuses(case.but(x=np.array(case["x"].flat[0])))


@composite
def wrong_features(draw, *, dtype: str, lacks: frozenset[str]):
    """An input with another number of features than in_features."""
    case = draw(cases(dtype=dtype, features=(1, 2, 3)))
    hidden, inputs = case["fc1.weight"].shape
    wrong = draw(any_of(*[n for n in (1, inputs - 1, inputs + 1, hidden) if n != inputs]))
    return case.but(x=np.resize(case["x"], (*case["x"].shape[:-1], wrong)))


@requirement("mlp.refuses.features", wrong_features, per_dtype=False)
def test_refuses_features(subject: Trial, case: Case) -> None:
    """One feature too many or too few, but one, or as many as the hidden layer has."""
    subject.refuses(case)


@composite
def negative_sizes(draw, *, dtype: str, lacks: frozenset[str]):
    """Sizes of which one is negative."""
    case = draw(sizes(dtype=dtype, lacks=lacks))
    return case.but(**{draw(any_of(*case.arguments)): draw(st.integers(-3, -1))})


@requirement("mlp.refuses.sizes", negative_sizes, per_dtype=False)
def test_refuses_sizes(subject: Trial, case: Case) -> None:
    """Fewer than no features, in any of the three places."""
    laws.refuses_to_build(subject, case.stem, *case.arguments.values())


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_corners() -> None:
    """Three different sizes and three equal ones; hidden values of both signs, some negative only through the bias."""
    find(cases(dtype="float32"), lambda c: len({*c["fc1.weight"].shape, len(c["fc2.weight"])}) == 3)
    find(cases(dtype="float32"), lambda c: len({*c["fc1.weight"].shape, len(c["fc2.weight"])}) == 1)

    def hidden(case: Case) -> np.ndarray:
        return linear(case["x"], case["fc1.weight"], case["fc1.bias"])

    for vary in ("hidden",), ("hidden bias",):
        find(cases(dtype="float32", vary=vary), lambda c: bool((hidden(c) < 0).any() and (hidden(c) > 0).any()))


def test_reach_kinks() -> None:
    """A hidden value of exactly 0 beside positive and negative ones, and in a single vector."""

    def hidden(case: Case) -> np.ndarray:
        return linear(case["x"], case["fc1.weight"], case["fc1.bias"])

    kinks = gradients(dtype="float32", lacks=frozenset(), of=at_kink)
    find(kinks, lambda c: all((sign == np.sign(hidden(c))).any() for sign in (-1, 0, 1)))
    find(kinks, lambda c: c["x"].ndim == 1)

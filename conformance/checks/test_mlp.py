"""The requirements of spec/mlp.md, in the page's order."""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import Any

import numpy as np
from nnspec.adapters.subject import Lacks
from nnspec.conformance.bounds.arithmetic import CLASS_B, Accuracy, wide
from nnspec.conformance.bounds.rule import Expected, by_class
from nnspec.conformance.bounds.running_error import Approximate, bilinear_block, linear_block, relu, relu_vjp
from nnspec.conformance.case import Case
from nnspec.conformance.checks import domains, laws, laws_of_gradients, laws_of_memory, laws_of_state, starts
from nnspec.conformance.checks.cases import KINDS, data, with_cotangent
from nnspec.conformance.checks.laws import Laws
from nnspec.conformance.checks.within import allowed, leading_within, legal_size
from nnspec.conformance.drawing import (
    Decision,
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
from nnspec.conformance.requirements import CHECKS, requirement
from nnspec.conformance.sizes import SWEEPS, Sweep
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Built, Trial
from nnspec.reference.linear import linear, linear_vjp
from nnspec.reference.mlp import mlp
from nnspec.reference.relu import relu as reference_relu
from nnspec.reference.relu import relu_vjp as reference_relu_vjp

SWEEPS["mlp"] = Sweep(
    names={"rows0": "rows", "features0": "in_features", "features1": "hidden_features", "features2": "out_features"},
    axes=(("features0",), ("features1",), ("features2",), ("rows0",), ("features0", "features1")),
)
LONGER = (1, 2, 3, 5)  # sizes of leading dimensions
ALL = ("leading", "hidden", "hidden bias", "output", "output bias")


@composite
def cases(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    vary: tuple[str, ...] = ALL,
    features: tuple[int, ...] = (2, 3, 4),
    rows: tuple[int, ...] = (1, 2, 3, 4),
    batch: int = 1,
    kinds: tuple[str, ...] = KINDS,
    depth: tuple[int, ...] = (1,),
):
    """A perceptron with as many hidden layers as one of `depth`.

    `vary` frees the leading dimensions, the biases, and the signs of the sums in the hidden layers and in the last one.
    Where the signs of the hidden layers are not free, no sum is negative and the rectifier has nothing to do; where
    those of the output are not, neither has the result. Sizes are often equal: exchanged layers then show in values.
    """
    inputs = draw(dimension(*features, of="features", name="in_features"))
    hidden = (legal(draw, "hidden_layers", 1),) if depth == (1,) else allowed(draw, "hidden_layers", depth)
    names = ["hidden_features"] * draw(any_of(*hidden)) + ["out_features"]
    others = (dimension(inputs, *features, of="features", name=name, equal=inputs) for name in names)
    sizes = [inputs, *map(draw, others)]
    if "leading" in vary:
        leading = tuple(draw(lists(dimension(*rows, of="rows"), min_size=batch > 1, max_size=3)))
        leading = leading and (max(batch, leading[0]), *leading[1:])
    else:
        leading = (draw(dimension(*range(batch, 4), of="rows")),)
    leading = leading_within(draw, leading)
    values = draw(data(dtype, kinds))
    x = values.inputs(*leading, inputs)
    arrays = {"x": x if "hidden" in vary else abs(x)}
    for n, (ins, outs) in enumerate(pairwise(sizes), start=1):
        where = "output" if n == len(sizes) - 1 else "hidden"
        weight, bias = values.weights(outs, ins), values.inputs(outs)
        arrays[f"fc{n}.weight"] = weight if where in vary else abs(weight)
        arrays[f"fc{n}.bias"] = bias if f"{where} bias" in vary else np.zeros_like(bias)
    return Case("mlp", arrays)


def layers(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    """The weight and the bias of every layer, the first one first."""
    weights = [name for name in case.arrays if name.endswith(".weight")]
    return [(case[name], case[name.replace("weight", "bias")]) for name in weights]


def outputs(case: Case) -> int:
    """The size of the last layer."""
    return len(layers(case)[-1][1])


def way(case: Case, accuracy: Accuracy = CLASS_B) -> tuple[list[Approximate], list[Approximate]]:
    """What each layer is given, and what it gives before the rectifier, with the error that each may hand on."""
    given, found = [Approximate.given(case["x"], accuracy)], []
    for weight, bias in layers(case):
        found.append(linear_block(linear, given[-1], weight, bias))
        given.append(relu(found[-1]))
    return given[:-1], found


def expected(case: Case) -> Expected:
    """What the reference's blocks give in a row, with the error that each may hand on to the next."""
    exact = _wide(case)
    value = mlp(exact["x"], *(parameter for layer in layers(exact) for parameter in layer))
    return by_class(lambda accuracy: {"y": way(case, accuracy)[1][-1].expected}, {"y": value})["y"]


def _wide(case: Case) -> Case:
    return case.map(lambda a: a.astype(wide(a.dtype)))


law = Laws(cases, expected)


# -- values ------------------------------------------------------------------------------------------------------------


test_output_value = law(
    "mlp.output.value",
    laws.equals_reference,
    "The second weight times the first times the input.",
    vary=(),
    sweeps=True,
    narrow=True,
)
test_hidden_relu = law("mlp.hidden.relu", laws.equals_reference, "No negative hidden value counts.", vary=("hidden",))
test_hidden_bias = law(
    "mlp.hidden.bias",
    laws.equals_reference,
    "The first bias may make a hidden value negative, and so 0.",
    vary=("hidden bias",),
)
test_output_linear = law("mlp.output.linear", laws.equals_reference, "Results of both signs.", vary=("output",))


@requirement("mlp.output.bias", cases, vary=("output bias",))
def test_output_bias(subject: Trial, case: Case) -> None:
    """On an input of zeros every output feature shows its bias alone."""
    laws.equals_reference(subject, case.but(x=np.zeros_like(case["x"])), expected)


test_arguments_together = law(
    "mlp.arguments.together",
    laws.equals_reference,
    "Everything at once.",
    features=(1, 2, 3, 17, 65),
    rows=LONGER,
    effort=0.5,
    spread=True,
    sweeps=True,
)


@requirement("mlp.law.permutation", cases)
def test_law_permutation(subject: Trial, case: Case) -> None:
    """The last input feature becomes the first, and so does the last column of the first weight."""
    moved = {"x": np.roll(case["x"], 1, -1), "fc1.weight": np.roll(case["fc1.weight"], 1, 1)}
    what = "the result, with features and columns in another order,"
    laws.agrees(subject, case.but(**moved), case, expected(case), what)


# -- depth -------------------------------------------------------------------------------------------------------------

DEEP = (2, 3, 4)
STACKED = (1, 2, 3, 4, 5)


@composite
def sizes(draw, *, dtype: str, lacks: frozenset[str], depth: tuple[int, ...] = (1,)):
    """The constructor's three sizes; all equal, two, or none."""
    allowed(draw, "hidden_layers", depth)
    inputs = legal(draw, "in_features", draw(integers(1, 4)))
    hidden = legal(draw, "hidden_features", draw(any_of(inputs, 1, 2, 3, 4)))
    outputs = draw(dimension(inputs, 1, 2, 3, 4, name="out_features", equal=inputs))
    return Case("mlp", {}, {"in_features": inputs, "hidden_features": hidden, "out_features": outputs})


def stacks(subject: Trial) -> None:
    """Raise Lacks where the class refuses every sequence of hidden sizes, and so takes one hidden size alone.

    A class that takes some sequence is wrong where it refuses another one. An exception that refuses no argument, such
    as a NameError, is a mistake and no refusal.
    """
    refusals = (TypeError, ValueError, AssertionError, NotImplementedError)
    size = functools.partial(legal_size, subject.subject.domain("mlp"))
    for hidden in ([3], [3, 2], [2, 3, 4]):
        try:
            layers = [size("hidden_features", n) for n in hidden]
            subject.new("mlp", size("in_features", 2), layers, size("out_features", 2))
        except Mismatch as mismatch:
            if isinstance(mismatch.raised, refusals):
                continue
        return
    raise Lacks("MLP takes one hidden size alone")


def stack_equals_reference(subject: Trial, case: Case) -> None:
    """As above, of a class that takes a sequence of hidden sizes."""
    stacks(subject)
    laws.equals_reference(subject, case, expected)


@requirement("mlp.depth.any", cases, vary=(), features=(2, 3), depth=DEEP)
def test_depth_any(subject: Trial, case: Case) -> None:
    """Two to four hidden layers, whose weights alone count."""
    stack_equals_reference(subject, case)


@requirement("mlp.depth.none", cases, depth=(0,))
def test_depth_none(subject: Trial, case: Case) -> None:
    """No hidden layer: a linear layer alone."""
    stack_equals_reference(subject, case)


@requirement("mlp.depth.activated", cases, vary=("hidden", "output"), depth=DEEP)
def test_depth_activated(subject: Trial, case: Case) -> None:
    """Negative sums in every layer."""
    stack_equals_reference(subject, case)


@requirement("mlp.depth.bias", cases, vary=("hidden", "hidden bias", "output bias"), features=(2, 3), depth=DEEP)
def test_depth_bias(subject: Trial, case: Case) -> None:
    """A bias in every layer, which decides the sign of some hidden values."""
    stack_equals_reference(subject, case)


@composite
def deep_sizes(draw, *, dtype: str, lacks: frozenset[str]):
    """The constructor's sizes, with a list or a tuple of hidden sizes; in half of the cases these are all equal."""
    case = draw(sizes(dtype=dtype, lacks=lacks, depth=STACKED))
    equal = not draw(booleans())
    layers = range(draw(any_of(*allowed(draw, "hidden_layers", STACKED))))
    first = case["hidden_features"]
    hidden = [first if equal else legal(draw, "hidden_features", draw(integers(1, 4))) for _ in layers]
    return case.but(hidden_features=draw(any_of(list, tuple))(hidden))


@requirement("mlp.depth.distinct", deep_sizes, per_dtype=False)
def test_depth_distinct(subject: Trial, case: Case) -> None:
    """As many layers as there are sizes, each with parameters that keep what is loaded into them."""
    stacks(subject)
    has_parameters(subject, case)


@requirement("mlp.depth.names", deep_sizes, per_dtype=False)
def test_depth_names(subject: Trial, case: Case) -> None:
    """fc1, fc2 and so on, each with a weight and a bias."""
    stacks(subject)
    has_names(subject, case)


# -- leading dimensions ------------------------------------------------------------------------------------------------


test_leading_any = law(
    "mlp.leading.any",
    domains.anywhere(laws.equals_reference),
    "From a single vector to an array of four dimensions, whatever the subject shows not to take.",
    cases=domains.asking,
    quantity="ndim",
    of=cases,
    vary=("leading",),
)


# -- results and operands ----------------------------------------------------------------------------------------------


test_output_size = law(
    "mlp.output.size",
    laws.has_shape(lambda case: (*case["x"].shape[:-1], outputs(case))),
    "The leading dimensions, then O.",
    features=(1, 2, 3),
    rows=LONGER,
    spread=True,
)


test_output_dtype = law("mlp.output.dtype", laws.keeps_dtype)
test_output_fresh = law("mlp.output.fresh", laws.is_fresh)


@requirement("mlp.input.unchanged", cases, effort=2)
def test_input_unchanged(subject: Trial, case: Case) -> None:
    """Neither the input nor a parameter is written to."""
    laws.leaves_operands(subject, case)
    layer = subject.build(case)
    before = layer.state()
    layer(case["x"])
    laws_of_state.keeps(subject, layer, before, "the call")


test_input_layout = law("mlp.input.layout", laws.ignores_layout)
test_memory_in_bounds = law("mlp.memory.in-bounds", laws_of_memory.stays_in_bounds)
test_memory_all_written = law("mlp.memory.all-written", laws_of_memory.writes_everything)
test_memory_alignment = law("mlp.memory.alignment", laws_of_memory.ignores_alignment)
test_batch_independent = law("mlp.batch.independent", laws.judges_images_alone)


@composite
def empty(draw, *, dtype: str, lacks: frozenset[str]):
    """One of the leading dimensions, or the only one, is of size 0."""
    case = draw(cases(dtype=dtype, features=(1, 2, 100), batch=2))
    axis = draw(integers(0, case["x"].ndim - 2))
    return case.but(x=np.take(case["x"], [], axis))


test_batch_empty = law(
    "mlp.batch.empty", laws.equals_reference, "No vectors in, no vectors out.", cases=empty, spread=True
)


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


test_call_neighbours = law("mlp.call.neighbours", laws.ignores_neighbours)
test_domain_outside = law(
    "mlp.domain.outside",
    domains.right_or_refused(laws.equals_reference),
    "One size or number of layers outside what the subject declares.",
    cases=domains.outside,
    of=cases,
    needs="domain",
    depth=(1, 1, 1, 0, 2, 3),
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(*, dtype: str, lacks: frozenset[str], of: Any = cases, **choices: Any) -> Decision[Case]:
    """A perceptron and a cotangent of its result: that of some loss, which need not be linear."""
    perceptrons = of(dtype=dtype, lacks=lacks, **choices)
    return with_cotangent(perceptrons, lambda case: (*case["x"].shape[:-1], outputs(case)))


def expected_gradients(case: Case) -> dict[str, Expected]:
    """What the reference's blocks give in a row, there and back, with the error that each may hand on to the next."""

    def by_x(g: Any, weight: Any, _: Any) -> Any:
        return linear_vjp(g, np.zeros((*g.shape[:-1], weight.shape[1])), weight)[0]

    def by_weight(g: Any, x: Any) -> Any:
        return linear_vjp(g, x, np.zeros((g.shape[-1], x.shape[-1])))[1]

    def by_bias(g: Any, *_: Any) -> Any:
        return linear_vjp(g, g[..., :0], np.zeros((g.shape[-1], 0)), np.zeros(g.shape[-1]))[2]

    def under(accuracy: Accuracy) -> dict[str, Expected]:
        given, found = way(case, accuracy)
        back, gradients = Approximate.given(case["cotangent"], accuracy), {}
        for n, (weight, _) in reversed(list(enumerate(layers(case), start=1))):
            gradients[f"fc{n}.weight"] = bilinear_block(by_weight, back, given[n - 1])
            gradients[f"fc{n}.bias"] = linear_block(by_bias, back)
            back = linear_block(by_x, back, weight)
            if n > 1:
                back = relu_vjp(back, found[n - 2])
        gradients["x"] = back
        return {operand: gradient.expected for operand, gradient in gradients.items()}

    return by_class(under, plain_gradients(_wide(case)))


def plain_gradients(case: Case) -> dict[str, np.ndarray]:
    """The gradients by operand, by the reference's blocks, without their errors."""
    given, sums = [case["x"]], []
    for weight, bias in layers(case):
        sums.append(linear(given[-1], weight, bias))
        given.append(reference_relu(sums[-1]))
    back: Any = case["cotangent"]
    found: dict[str, Any] = {}
    for n, (weight, bias) in reversed(list(enumerate(layers(case), start=1))):
        back, found[f"fc{n}.weight"], found[f"fc{n}.bias"] = linear_vjp(back, given[n - 1], weight, bias)
        if n > 1:
            back = reference_relu_vjp(back, sums[n - 2])
    return {**found, "x": back}


gradient = Laws(gradients, expected_gradients, needs=("vjp",))


def gradient_equals_reference(subject: Trial, case: Case, *operands: str) -> None:
    """The one comparison behind every requirement on the values of gradients."""
    expected = expected_gradients(case)
    for operand in operands:
        laws_of_gradients.equals_reference(subject, case, operand, expected[operand])


test_gradient_x = gradient(
    "mlp.gradient.x",
    laws_of_gradients.values("x"),
    "Through the second layer, the rectifier and the first layer.",
    features=(1, 2, 3, 17),
    rows=LONGER,
    spread=True,
    sweeps=True,
)


@composite
def at_minus_one(draw, *, dtype: str, lacks: frozenset[str]):
    """Integers, of which no sum is rounded, and a bias for which hidden values of the first vector are exactly −1."""
    case = draw(cases(dtype=dtype, lacks=lacks, kinds=("integers",)))
    first, bias = case["x"].reshape(-1, case["x"].shape[-1])[0], case["fc1.bias"].copy()
    units = sorted(draw(some_of(range(len(bias)), 1, len(bias))))
    bias[units] = -linear(first, case["fc1.weight"][units]) - 1
    return case.but(**{"fc1.bias": bias})


test_gradient_hidden_relu = gradient(
    "mlp.gradient.hidden-relu",
    laws_of_gradients.values("x", "fc1.weight", "fc1.bias"),
    "Hidden values above 0, just below and far below.",
    of=at_minus_one,
)
test_gradient_first_weight = gradient(
    "mlp.gradient.first-weight",
    laws_of_gradients.values("fc1.weight"),
    "What came back to the hidden layer, times the input.",
    features=(1, 2, 3, 17),
)
test_gradient_first_bias = gradient(
    "mlp.gradient.first-bias",
    laws_of_gradients.values("fc1.bias"),
    "What came back to the hidden layer.",
    features=(1, 2, 3, 5),
    rows=LONGER,
    spread=True,
    narrow=True,
)
test_gradient_second_weight = gradient(
    "mlp.gradient.second-weight",
    laws_of_gradients.values("fc2.weight"),
    "The cotangent times the rectified hidden values, of all vectors, whatever other gradients show.",
    cases=domains.asking,
    quantity="ndim",
    of=gradients,
    features=(1, 2, 3, 17),
)
test_gradient_second_bias = gradient(
    "mlp.gradient.second-bias",
    laws_of_gradients.values("fc2.bias"),
    "The cotangent.",
    features=(1, 2, 3, 5),
    rows=LONGER,
    spread=True,
)
test_gradient_like_operand = gradient(
    "mlp.gradient.like-operand", laws_of_gradients.is_like_operand, features=(1, 2, 3)
)


test_gradient_layout = gradient("mlp.gradient.layout", laws_of_gradients.ignores_layout_of_all)


test_gradient_unchanged = gradient("mlp.gradient.unchanged", laws_of_gradients.leaves_operands)
test_gradient_frozen = gradient("mlp.gradient.frozen", laws_of_gradients.ignores_frozen)
test_gradient_batch = gradient("mlp.gradient.batch", laws_of_gradients.judges_images_alone)
test_gradient_empty = gradient("mlp.gradient.empty", laws_of_gradients.is_nothing, of=empty, effort=1, spread=True)


@requirement("mlp.depth.gradient", gradients, needs="vjp", depth=DEEP)
def test_depth_gradient(subject: Trial, case: Case) -> None:
    """Of the input, and of the weight and the bias of every layer."""
    stacks(subject)
    gradient_equals_reference(subject, case, *expected_gradients(case))


# -- the module --------------------------------------------------------------------------------------------------------


def new(subject: Trial, case: Case) -> Built:
    """A module of the case's sizes as its constructor leaves it."""
    return Built(subject, subject.new("mlp", *case.arguments.values()), case, keys_of(case))


def has_parameters(subject: Trial, case: Case) -> None:
    """A weight and a bias for each layer, each of which keeps what is loaded into it."""
    network = new(subject, case)
    state = network.state(saved=True)
    found = sorted(a.shape for a in state.values())
    wanted = sorted(shape for ins, outs in pairwise(sizes_of(case)) for shape in ((outs, ins), (outs,)))
    if found != wanted:
        raise Mismatch(f"the parameters are of shapes {found}, expected {wanted}")
    loaded = {key: np.full_like(a, n) for n, (key, a) in enumerate(sorted(state.items()))}
    for key, array in network.load(loaded).state(saved=True).items():
        subject.expect(array, Expected.exactly(loaded[key]), f"{key}, after all parameters were loaded,")


def has_names(subject: Trial, case: Case) -> None:
    """The state has the keys of the page, in its order."""
    keys = list(subject.state(subject.new("mlp", *case.arguments.values())))
    wanted = keys_of(case)
    if keys != wanted:
        raise Mismatch(f"the keys are {', '.join(keys)}; expected {', '.join(wanted)}")


def keys_of(case: Case) -> list[str]:
    """The page's keys of the parameters, in their order."""
    return [f"fc{n}.{name}" for n in range(1, len(sizes_of(case))) for name in ("weight", "bias")]


def sizes_of(case: Case) -> list[int]:
    """The sizes that a constructor is given, in a row."""
    inputs, hidden, outputs = case.arguments.values()
    return [inputs, *(hidden if isinstance(hidden, list | tuple) else [hidden]), outputs]


@requirement("mlp.parameters.complete", sizes, per_dtype=False)
def test_parameters_complete(subject: Trial, case: Case) -> None:
    """Two weights and two biases."""
    has_parameters(subject, case)


@requirement("mlp.buffers.none", sizes, per_dtype=False)
def test_buffers_none(subject: Trial, case: Case) -> None:
    """A new module saves its parameters alone, and so does one that was called."""
    layer, x = new(subject, case), np.ones((2, case["in_features"]), subject.dtype)
    laws_of_state.has_buffers(layer, {})
    Built(subject, layer.native, Case(case.stem, {"x": x}), layer.keys)(x)
    laws_of_state.has_buffers(layer, {})


@requirement("mlp.state.own", sizes)
def test_state_own(subject: Trial, case: Case) -> None:
    """Of two new modules one is called and loaded; the other keeps its entries."""
    x = np.ones((2, case["in_features"]), subject.dtype)
    called = Case(case.stem, {"x": x}, case.arguments)
    laws_of_state.stay_apart(subject, new(subject, called), new(subject, called), x)


@requirement("mlp.parameters.names", sizes, per_dtype=False)
def test_parameters_names(subject: Trial, case: Case) -> None:
    """fc1 and fc2, each with a weight and a bias."""
    has_names(subject, case)


@requirement("mlp.init.distinct", sizes, per_dtype=False)
def test_init_distinct(subject: Trial, case: Case) -> None:
    """The rows of each weight, for two inputs and two hidden values at least: of random ones, no two are equal."""
    names = ("in_features", "hidden_features")
    domain = subject.subject.domain("mlp")
    wide = case.but(**{name: legal_size(domain, name, case[name] + 1) for name in names})
    module = subject.new("mlp", *wide.arguments.values())
    for key, weight in subject.entries("mlp", module, keys_of(wide)).items():
        if weight.ndim == 2 and len(np.unique(weight, axis=0)) < len(weight):
            raise Mismatch(f"units of {key} begin with the same weights")


@requirement("mlp.init.range", sizes, per_dtype=False)
def test_init_range(subject: Trial, case: Case) -> None:
    """The mean square of each weight, 64 features in each place; a right start fails less than once in e¹⁰⁰ modules."""
    wide = case.but(**dict.fromkeys(case.arguments, starts.UNITS))
    module = subject.new("mlp", *wide.arguments.values())
    for key, weight in subject.entries("mlp", module, keys_of(wide)).items():
        if weight.ndim == 2:
            starts.have_usual_variance(weight, starts.UNITS, key)


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


test_refuses_features = law(
    "mlp.refuses.features",
    laws.refuses,
    "One feature too many or too few, but one, or as many as the hidden layer has.",
    cases=wrong_features,
    per_dtype=False,
)


@composite
def negative_sizes(draw, *, dtype: str, lacks: frozenset[str]):
    """Sizes of which one is negative."""
    case = draw(sizes(dtype=dtype, lacks=lacks))
    return case.but(**{draw(any_of(*case.arguments)): draw(integers(-3, -1))})


@requirement("mlp.refuses.sizes", negative_sizes, per_dtype=False)
def test_refuses_sizes(subject: Trial, case: Case) -> None:
    """Fewer than no features, in any of the three places."""
    laws.refuses_to_build(subject, case.stem, *case.arguments.values())


@composite
def negative_hidden_sizes(draw, *, dtype: str, lacks: frozenset[str]):
    """A sequence of hidden sizes of which one is negative."""
    case = draw(sizes(dtype=dtype, lacks=lacks))
    hidden = draw(lists(integers(1, 4), min_size=2, max_size=4))
    hidden[draw(integers(0, len(hidden) - 1))] = draw(integers(-3, -1))
    return case.but(hidden_features=hidden)


@requirement("mlp.refuses.hidden-sizes", negative_hidden_sizes, per_dtype=False)
def test_refuses_hidden_sizes(subject: Trial, case: Case) -> None:
    """Fewer than no features in one of several hidden layers."""
    stacks(subject)
    laws.refuses_to_build(subject, case.stem, *case.arguments.values())


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_corners() -> None:
    """Three different sizes and three equal ones; hidden values of both signs, some negative only through the bias."""
    reaches(cases(dtype="float32"), lambda c: len({*c["fc1.weight"].shape, len(c["fc2.weight"])}) == 3)
    reaches(cases(dtype="float32"), lambda c: len({*c["fc1.weight"].shape, len(c["fc2.weight"])}) == 1)

    def hidden(case: Case) -> np.ndarray:
        return linear(case["x"], case["fc1.weight"], case["fc1.bias"])

    for vary in ("hidden",), ("hidden bias",):
        reaches(cases(dtype="float32", vary=vary), lambda c: bool((hidden(c) < 0).any() and (hidden(c) > 0).any()))


def test_reach_kinks() -> None:
    """A hidden value of exactly −1 beside positive and more negative ones, and in a single vector."""

    def hidden(case: Case) -> np.ndarray:
        return linear(case["x"], case["fc1.weight"], case["fc1.bias"])

    kinks = gradients(dtype="float32", lacks=frozenset(), of=at_minus_one)
    reaches(kinks, lambda c: all(some.any() for some in (hidden(c) < -1, hidden(c) == -1, hidden(c) > 0)))
    reaches(kinks, lambda c: c["x"].ndim == 1)


def test_reach_depth() -> None:
    """Four hidden layers, two of which have one shape, and of different sizes; sums of both signs in every layer."""

    def sums(case: Case) -> list[np.ndarray]:
        return [layer.value for layer in way(case)[1]]

    def shapes(case: Case) -> list[tuple[int, ...]]:
        return [weight.shape for weight, _ in layers(case)]

    deep = CHECKS["mlp.depth.activated"].drawn()
    reaches(deep, lambda c: len(shapes(c)) == 5 > len({*shapes(c)}))
    reaches(CHECKS["mlp.depth.any"].drawn(), lambda c: len(shapes(c)) == 5 and len({*shapes(c)}) < 3)
    reaches(deep, lambda c: len(sums(c)) == 5 and len({len(bias) for _, bias in layers(c)}) == 3)
    reaches(deep, lambda c: len(sums(c)) == 4 and all((a < 0).any() and (a > 0).any() for a in sums(c)))

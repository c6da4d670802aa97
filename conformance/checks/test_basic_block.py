"""The requirements of spec/basic_block.md, in the page's order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from nnspec.adapters.blame import OutOfDomain
from nnspec.conformance.bounds.arithmetic import Accuracy
from nnspec.conformance.bounds.residual import KEEPING, Run
from nnspec.conformance.bounds.rule import Array, Expected, by_class
from nnspec.conformance.bounds.running_error import Approximate
from nnspec.conformance.case import Case
from nnspec.conformance.checks import domains, laws, laws_of_gradients, laws_of_memory, laws_of_state, starts
from nnspec.conformance.checks.cases import Data, altered, data, with_cotangent
from nnspec.conformance.checks.convolutions import channels
from nnspec.conformance.checks.laws import Laws
from nnspec.conformance.checks.within import allowed, image_side
from nnspec.conformance.drawing import Decision, Draw, any_of, composite, dimension, integers, legal, reaches
from nnspec.conformance.requirements import requirement
from nnspec.conformance.sizes import SWEEPS, Sweep
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Built, Trial

NORMS = ("bn1", "bn2", "downsample.1")

BOTH = (False, True)  # modes


CHANNELS, WINDOWS, IMAGES = 33, 65, 17  # at most: a kernel has 9·C·O elements, and the bounds take longest

SWEEPS["basic_block"] = Sweep(
    names={
        "images0": "N",
        "channels0": "in_channels",
        "outputs0": "out_channels",
        "windows0": "the rows of the result",
        "windows1": "the columns of the result",
    },
    axes=(("windows1",), ("windows0",), ("channels0",), ("outputs0",), ("images0",)),
)


@composite
def cases(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    strides: tuple[int, ...] = (1, 2, 3),
    channels: str = "any",
    norms: tuple[str, ...] = NORMS,
    signed: bool = True,
    batch: int = 1,
    modes: tuple[bool, ...] = (False,),
    more: tuple[int, ...] = (),
):
    """A block with its whole state. Norms not in `norms` are as new. Unless `signed`, nothing is ever negative.

    `channels` says whether as many go out as come in: "same", "other" or "any". In training an image has several pixels
    or there are two images, so that every norm sees more than one value. `more` are numbers of images, channels and
    windows beside 1 to 4.
    """
    stride = draw(any_of(*_strides(draw, (1,) if "stride" in lacks else strides)))
    inputs = draw(dimension(1, 2, 3, *more, of="channels", most=CHANNELS, name="in_channels"))
    outputs = _outputs(draw, channels, inputs, more)
    windows = (draw(dimension(1, 2, 3, 4, *more, of="windows", most=WINDOWS)) for _ in range(2))
    rows, columns = ((n - 1) * stride + 1 + draw(integers(0, stride - 1)) for n in windows)
    rows = image_side(draw, "H", rows)
    size = [rows, image_side(draw, "W", columns, rows=rows)]
    training = draw(any_of(*allowed(draw, "training", modes)))
    values = draw(data(dtype))
    sign = (lambda a: a) if signed else np.abs

    fewest = 2 if training and max(size) <= stride else batch
    images = dimension(*range(fewest, 4), *more, of="images", most=IMAGES, name="N")
    arrays = {"x": sign(values.inputs(legal(draw, "N", draw(images), least=fewest), inputs, *size))}
    shapes = {"1": (outputs, inputs, 3, 3), "2": (outputs, outputs, 3, 3)}
    for number, shape in shapes.items():
        arrays[f"conv{number}.weight"] = sign(values.weights(*shape))
        arrays |= _norm(values, f"bn{number}", outputs, norms, signed)
    if stride != 1 or inputs != outputs:
        arrays["downsample.0.weight"] = sign(values.weights(outputs, inputs, 1, 1))
        arrays |= _norm(values, "downsample.1", outputs, norms, signed)
    return Case("basic_block", arrays, {"stride": stride, "training": training})


def _strides(draw: Draw, strides: tuple[int, ...]) -> list[int]:
    """The strides that the domain allows in place of these: 1 only where 1 is one of these, and others likewise."""
    found = draw.domain.choices("stride", strides)
    found = tuple(n for n in found if 1 in strides or n > 1) if max(strides) > 1 else tuple(n for n in found if n == 1)
    if not found:
        raise OutOfDomain(draw.domain.outside("stride"))
    return [*found]


def _outputs(draw: Draw, channels: str, inputs: int, more: tuple[int, ...]) -> int:
    """The number of channels that go out, where so many come in. Raises OutOfDomain for none."""
    small = dimension(1, 2, 3, *more, of="outputs", most=CHANNELS, name="out_channels", equal=inputs)
    outputs = inputs if channels == "same" else draw(small)
    if channels == "other" and outputs == inputs:
        others = draw.domain.numbers("out_channels", (inputs % 3 + 1, 1, 2, 3))
        outputs = next((n for n in others if n != inputs), inputs)
    equal = "out_channels" in draw.domain.conditions and draw.domain.conditions["out_channels"].equal
    alike = channels == "other" and (equal or outputs == inputs)
    if alike or not draw.domain.allows("out_channels", outputs):
        raise OutOfDomain(draw.domain.outside("out_channels"))
    return outputs


def _norm(values: Data, name: str, channels: int, vary: tuple[str, ...], signed: bool) -> dict[str, Array]:
    """The state of a norm: quarters of small integers. Not signed, it neither negates nor lowers anything."""
    ones = np.ones(channels, values.dtype)
    if name not in vary:
        entries = (ones, 0 * ones, 0 * ones, ones)
    else:
        weight, bias, mean, variance = (1 + values.below(8, 4, channels)) / 4
        if signed:
            weight, bias, mean = (a * (1 - 2 * values.below(2, channels)) for a in (weight, bias, mean))
        entries = (weight, bias, mean if signed else -mean, variance)
    keys = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{key}": a.astype(values.dtype) for key, a in zip(keys, entries, strict=True)}


def ending(case: Case, norm: str, value: Array | float) -> Case:
    """The same case with a norm that gives `value`, whatever goes in."""
    zeros = np.zeros_like(case[f"{norm}.weight"])
    return case.but(**{f"{norm}.weight": zeros, f"{norm}.bias": zeros + np.asarray(value, zeros.dtype)})


def run(case: Case, **keeping: Any) -> tuple[Expected, dict[str, Expected]]:
    """The result of a call, and the statistics of the norms after it."""

    def under(accuracy: Accuracy) -> dict[str, Expected]:
        once = Run(case.arrays, case["training"], accuracy=accuracy, **keeping)
        y = once.block(Approximate.given(case["x"], accuracy), stride=case["stride"])
        return {"y": y.expected, **once.statistics}

    statistics = by_class(under)
    return statistics.pop("y"), statistics


def moved(subject: Trial, case: Case, state: Mapping[str, Array], what: str) -> None:
    """The statistics of the norms, however a norm keeps its averages; `what` is said of them."""
    statistics = run(case)[1]
    others = (run(case, momentum=momentum, biased=biased)[1] for momentum, biased in KEEPING[1:])
    ways = (list(way.values()) for way in chain([statistics], others))
    laws.follows(subject, [state[key] for key in statistics], ways, [f"{key}, {what}," for key in statistics])


law = Laws(cases, lambda case: run(case)[0])


@laws.law()
def equals_reference(subject: Trial, case: Case, _judge: laws.Judge) -> None:
    """The one comparison behind every requirement on values. A block without an entry computes something else."""
    keys = case.arrays.keys() - {"x"}
    if absent := keys - subject.entries(case.stem, new(subject, case), keys).keys():
        raise Mismatch(f"there is no state entry in the role of {min(absent)}")
    subject.expect(subject(case), run(case)[0])


def new(subject: Trial, case: Case) -> Any:
    """A new block of the case's sizes."""
    outputs, inputs = case["conv1.weight"].shape[:2]
    stride = {} if case["stride"] == 1 else {"stride": case["stride"]}
    return subject.new("basic_block", inputs, outputs, **stride)


# -- branch ------------------------------------------------------------------------------------------------------------


test_branch_value = law(
    "basic_block.branch.value",
    equals_reference,
    "Two 3×3 convolutions with padding 1.",
    strides=(1,),
    channels="same",
    norms=(),
    signed=False,
)
test_branch_norms = law(
    "basic_block.branch.norms",
    equals_reference,
    "A norm of its own for each of them.",
    strides=(1,),
    channels="same",
    sweeps=True,
)


@requirement("basic_block.relu.inner", cases, strides=(1,), channels="same", norms=("bn1",))
def test_relu_inner(subject: Trial, case: Case) -> None:
    """What is negative after the first norm does not reach the second convolution."""
    equals_reference(subject, case.but(**{n: np.abs(case[n]) for n in ("x", "conv2.weight")}))


@requirement("basic_block.relu.none-before-add", cases, strides=(1,), channels="same", norms=("bn2",))
def test_relu_none_before_add(subject: Trial, case: Case) -> None:
    """A branch that is negative everywhere lowers the sum, which is positive all the same."""
    below = -np.abs(case["bn2.bias"])
    equals_reference(subject, ending(case.but(x=np.abs(case["x"]) - below.min()), "bn2", below))


@requirement("basic_block.relu.after-add", cases, strides=(1,), channels="same", norms=("bn2",))
def test_relu_after_add(subject: Trial, case: Case) -> None:
    """Where the sum is negative, the result is 0."""
    equals_reference(subject, ending(case, "bn2", case["bn2.bias"]))


# -- shortcut ----------------------------------------------------------------------------------------------------------


@requirement("basic_block.shortcut.identity", cases, strides=(1,), channels="same", norms=("bn1",))
def test_shortcut_identity(subject: Trial, case: Case) -> None:
    """A branch of zeros leaves an input that has nothing negative as it is."""
    case = ending(case.but(x=np.abs(case["x"])), "bn2", 0)
    equals_reference(subject, case)
    subject.expect(subject(case), Expected.exactly(case["x"]))


@requirement("basic_block.shortcut.negative", cases, norms=())
def test_shortcut_negative(subject: Trial, case: Case) -> None:
    """A negative input lowers a sum that the branch keeps positive."""
    weights = {n: np.abs(a) for n, a in case.arrays.items() if n == "downsample.0.weight" and a is not None}
    case = case.but(x=-np.abs(case["x"]), **weights)
    most = np.abs(run(ending(case.but(x=-case["x"]), "bn2", 0))[0].value).max(initial=0)
    equals_reference(subject, ending(case, "bn2", np.ceil(float(most))))


@requirement("basic_block.projection.channels", cases, strides=(1,), channels="other", norms=(), signed=False)
def test_projection_channels(subject: Trial, case: Case) -> None:
    """Beside a branch of zeros, the result is a 1×1 convolution."""
    equals_reference(subject, ending(case, "bn2", 0))


@requirement(
    "basic_block.projection.stride", cases, strides=(2, 3), channels="same", norms=(), signed=False, needs="stride"
)
def test_projection_stride(subject: Trial, case: Case) -> None:
    """Beside a branch of zeros, the result is a 1×1 convolution with that stride."""
    equals_reference(subject, ending(case, "bn2", 0))


@requirement("basic_block.projection.norm", cases, channels="other", norms=("downsample.1",), signed=False, sweeps=True)
def test_projection_norm(subject: Trial, case: Case) -> None:
    """And then a norm."""
    equals_reference(subject, ending(case, "bn2", 0))


# -- stride ------------------------------------------------------------------------------------------------------------


@requirement("basic_block.stride.first", cases, strides=(2, 3), norms=(), signed=False, needs="stride")
def test_stride_first(subject: Trial, case: Case) -> None:
    """Beside a shortcut of zeros, the result is the branch, whose first convolution strides."""
    equals_reference(subject, ending(case, "downsample.1", 0))


@requirement("basic_block.stride.once", cases, strides=(1, 2, 3, 4), needs="stride")
def test_stride_once(subject: Trial, case: Case) -> None:
    """As many rows and columns as multiples of the stride there are."""
    rows, columns = (-(-n // case["stride"]) for n in case["x"].shape[2:])
    shape = (len(case["x"]), len(case["conv1.weight"]), rows, columns)
    actual = subject(case).shape
    if actual != shape:
        message = f"the result has shape {actual}, expected {shape}"
        raise Mismatch(message, holds=f"result.shape == {shape}")


# -- modes and state ---------------------------------------------------------------------------------------------------


@requirement("basic_block.mode.train", cases, modes=(True,), more=(5,))
def test_mode_train(subject: Trial, case: Case) -> None:
    """Built in evaluation and put in training: the statistics of the batch count, and move those kept."""
    block = subject.build(case.but(training=False)).train()
    subject.expect(block(case["x"]), run(case)[0])
    state = block.state()
    moved(subject, case, state, "after the call")
    for key in (key for key in state if key.endswith("num_batches_tracked")):
        subject.expect(state[key], Expected.exactly(np.array(1)), f"{key}, after the call,")


@requirement("basic_block.mode.eval", cases, more=(5,))
def test_mode_eval(subject: Trial, case: Case) -> None:
    """Built in training and put in evaluation: the statistics kept count, and stay."""
    block = subject.build(case.but(training=True)).eval()
    before = block.state()
    subject.expect(block(case["x"]), run(case)[0])
    laws_of_state.keeps(subject, block, before, "the call")


@requirement("basic_block.parameters.count", cases, per_dtype=False)
def test_parameters_count(subject: Trial, case: Case) -> None:
    """As many numbers as the convolutions' kernels and the norms' four vectors have, and none beside them."""
    state = subject.entries(case.stem, new(subject, case), case.arrays.keys() - {"x"})
    actual = sum(a.size for a in state.values() if a.ndim)
    expected = sum(a.size for n, a in case.arrays.items() if n != "x" and a is not None)
    if actual != expected:
        statistics = sum(a.size for n, a in case.arrays.items() if ".running" in n and a is not None)
        raise Mismatch(
            f"{actual} numbers in the state, expected {expected}: {expected - statistics} parameters and "
            f"{statistics} running statistics"
        )


@requirement("basic_block.state.complete", cases, per_dtype=False)
def test_state_complete(subject: Trial, case: Case) -> None:
    """12 entries, or 18; without the norms' counts 10, or 15."""
    state = subject.entries(case.stem, new(subject, case), case.arrays.keys() - {"x"}, saved=True)
    expected = (18, 15) if "downsample.0.weight" in case.arrays else (12, 10)
    if len(state) not in expected:
        raise Mismatch(f"the state has {len(state)} entries, {', '.join(state)}; expected {expected[0]}")


@requirement("basic_block.state.own", cases, modes=(True,), effort=4)
def test_state_own(subject: Trial, case: Case) -> None:
    """Of two new blocks one is called in training and loaded; the other keeps its entries."""
    first, second = (Built(subject, new(subject, case), case) for _ in range(2))
    laws_of_state.stay_apart(subject, first, second, case["x"])


@requirement("basic_block.state.keys", cases, per_dtype=False)
def test_state_keys(subject: Trial, case: Case) -> None:
    """torchvision's keys, with the norms' counts or without."""
    counts = {f"{n.removesuffix('.running_var')}.num_batches_tracked" for n in case.arrays if n.endswith("running_var")}
    actual, expected = set(subject.state(new(subject, case))), (set(case.arrays) - {"x"}) | counts
    if actual not in (expected, expected - counts):
        more, fewer = sorted(actual - expected), sorted(expected - actual)
        raise Mismatch(
            f"the state's keys: without {', '.join(fewer) or 'nothing'}, beyond {', '.join(more) or 'nothing'}"
        )


@requirement("basic_block.init.range", cases, strides=(1,), channels="same", forms="class", per_dtype=False)
def test_init_range(subject: Trial, case: Case) -> None:
    """Two kernels of 16 channels by 16; a right start fails less than once in e¹⁰⁰ blocks."""
    channels = 16
    module = subject.new(case.stem, channels, channels)
    for key, weight in subject.entries(case.stem, module, ("conv1.weight", "conv2.weight")).items():
        if weight.ndim == 4:
            starts.have_usual_variance(weight, channels * 9, key)
            starts.differ(weight, key)


# -- results and operands ----------------------------------------------------------------------------------------------


test_output_dtype = law("basic_block.output.dtype", laws.keeps_dtype, modes=BOTH, more=(5,), effort=1, spread=True)
test_output_fresh = law("basic_block.output.fresh", laws.is_fresh)
test_input_unchanged = law("basic_block.input.unchanged", laws.leaves_operands, modes=BOTH)
test_input_layout = law("basic_block.input.layout", laws.ignores_layout)
test_memory_in_bounds = law("basic_block.memory.in-bounds", laws_of_memory.stays_in_bounds)
test_memory_all_written = law("basic_block.memory.all-written", laws_of_memory.writes_everything)
test_memory_alignment = law("basic_block.memory.alignment", laws_of_memory.ignores_alignment)
test_batch_independent = law("basic_block.batch.independent", laws.judges_images_alone)
test_batch_empty = law("basic_block.batch.empty", laws.returns_no_images, modes=BOTH, more=(5,), spread=True)


@requirement("basic_block.call.stateless", cases)
def test_call_stateless(subject: Trial, case: Case) -> None:
    """A call on an image of another size changes nothing."""
    larger = case.but(x=np.pad(case["x"], ((0, 0), (0, 0), (1, 2), (0, 1))))
    laws.forgets(subject.kept(case), (case, larger), lambda c: run(c)[0])


test_call_neighbours = law("basic_block.call.neighbours", laws.ignores_neighbours)
test_domain_outside = law(
    "basic_block.domain.outside",
    domains.right_or_refused(equals_reference),
    "One size, stride or mode outside what the subject declares.",
    cases=domains.outside,
    of=cases,
    needs="domain",
    strides=(1, 2, 3, 4),
    modes=BOTH,
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(*, dtype: str, lacks: frozenset[str], **choices: Any) -> Decision[Case]:
    """A block with its whole state, an image and a cotangent of the result."""
    return with_cotangent(cases(dtype=dtype, lacks=lacks, **choices), output_shape)


def output_shape(case: Case) -> tuple[int, ...]:
    """(N, O, OH, OW)"""
    rows, columns = (-(-n // case["stride"]) for n in case["x"].shape[2:])
    return (len(case["x"]), len(case["conv1.weight"]), rows, columns)


def expected_gradients(case: Case) -> dict[str, Expected]:
    """Those of x and, by key, of the parameters. Errors are carried forwards through the block, and then back."""

    def under(accuracy: Accuracy) -> dict[str, Expected]:
        once = Run(case.arrays, case["training"], accuracy=accuracy)
        cotangent, x = (Approximate.given(case[name], accuracy) for name in ("cotangent", "x"))
        of_x = once.block_vjp(cotangent, x, stride=case["stride"])
        return {"x": of_x.expected, **once.gradients}

    return by_class(under)


gradient = Laws(gradients, expected_gradients, needs=("vjp",))


def gradients_equal_reference(subject: Trial, case: Case, operands: Iterable[str] = ()) -> None:
    """The one comparison behind every requirement on the values of gradients; without names, of all of them."""
    expected = expected_gradients(case)
    chosen = {name: expected[name] for name in operands or expected}
    laws_of_gradients.all_equal_reference(subject, subject.gradients(case), chosen)


def of_part(case: Case, *parts: str) -> list[str]:
    """The keys of the parameters of parts of the block."""
    return [n for n in case.arrays if n.startswith(tuple(f"{part}." for part in parts)) and ".running" not in n]


@requirement("basic_block.gradient.x", gradients, needs="vjp", modes=BOTH, more=(5,), spread=True)
def test_gradient_x(subject: Trial, case: Case) -> None:
    """What comes back through the branch and what comes back through the shortcut add up."""
    gradients_equal_reference(subject, case, ["x"])


@requirement("basic_block.gradient.parameters", gradients, needs="vjp", modes=BOTH, more=(5,), spread=True)
def test_gradient_parameters(subject: Trial, case: Case) -> None:
    """Every kernel, and the weight and the bias of every norm."""
    gradients_equal_reference(subject, case, expected_gradients(case).keys() - {"x"})


@requirement("basic_block.gradient.last-relu", gradients, strides=(1,), channels="same", norms=("bn2",), needs="vjp")
def test_gradient_last_relu(subject: Trial, case: Case) -> None:
    """Beside a branch that is constant, the cotangent passes where x is above a threshold, and both ways."""
    gradients_equal_reference(subject, ending(case, "bn2", case["bn2.bias"]), ["x", *of_part(case, "bn2")])


@requirement("basic_block.gradient.inner-relu", gradients, strides=(1,), channels="same", norms=("bn1",), needs="vjp")
def test_gradient_inner_relu(subject: Trial, case: Case) -> None:
    """Where the first norm gives something negative, nothing comes back to what is before it."""
    gradients_equal_reference(subject, case, ["x", *of_part(case, "conv1", "bn1")])


@requirement("basic_block.gradient.shortcut", gradients, strides=(1,), channels="same", norms=(), needs="vjp")
def test_gradient_shortcut(subject: Trial, case: Case) -> None:
    """Beside a branch that ends in a constant above -x, the gradient of a negative x is the cotangent itself."""
    case = case.but(x=-np.abs(case["x"]))
    case = ending(case, "bn2", 1 + np.ceil(float(np.abs(case["x"]).max(initial=0))))
    expected = {"x": Expected.exactly(case["cotangent"])}
    laws_of_gradients.all_equal_reference(subject, subject.gradients(case), expected)


@requirement("basic_block.gradient.projection", gradients, channels="other", norms=("downsample.1",), needs="vjp")
def test_gradient_projection(subject: Trial, case: Case) -> None:
    """Beside a branch that ends in 0: x and the projection's kernel and norm get theirs."""
    gradients_equal_reference(subject, ending(case, "bn2", 0), ["x", *of_part(case, "downsample")])


@requirement("basic_block.gradient.stride", gradients, strides=(2, 3), norms=(), needs=("vjp", "stride"))
def test_gradient_stride(subject: Trial, case: Case) -> None:
    """Beside a shortcut that ends in 0: what comes back lies where the windows of the first convolution lay."""
    gradients_equal_reference(subject, ending(case, "downsample.1", 0), ["x", *of_part(case, "conv1", "conv2")])


@requirement("basic_block.gradient.train", gradients, needs="vjp", modes=(True,))
def test_gradient_train(subject: Trial, case: Case) -> None:
    """The mean and the variance that each norm takes off and divides by are functions of what comes in."""
    gradients_equal_reference(subject, case)


@requirement("basic_block.gradient.eval", gradients, needs="vjp", batch=2)
def test_gradient_eval(subject: Trial, case: Case) -> None:
    """Built in training and put in evaluation: the statistics kept are constants, on the way back too."""
    block = subject.build(without_cotangent(case.but(training=True))).eval()
    found = block.gradients(case["x"], case["cotangent"])
    laws_of_gradients.all_equal_reference(subject, found, expected_gradients(case))


def without_cotangent(case: Case) -> Case:
    """The same call without a way back."""
    return replace(case, arrays={n: a for n, a in case.arrays.items() if n != "cotangent"})


@requirement("basic_block.gradient.statistics", gradients, needs="vjp", modes=BOTH)
def test_gradient_statistics(subject: Trial, case: Case) -> None:
    """After a call and the way back the statistics are as after a call alone."""
    block = subject.build(without_cotangent(case))
    block.gradients(case["x"], case["cotangent"])
    state = block.state()
    moved(subject, without_cotangent(case), state, "after the gradients were taken")
    for key in (key for key in state if key.endswith("num_batches_tracked")):
        subject.expect(state[key], Expected.exactly(np.array(int(case["training"]))), f"{key}, after the same,")


@requirement("basic_block.gradient.buffers", gradients, needs="vjp", modes=BOTH)
def test_gradient_buffers(subject: Trial, case: Case) -> None:
    """Nothing but x and the parameters has a gradient."""
    more = sorted(subject.gradients(case).keys() - expected_gradients(case).keys())
    if more:
        raise Mismatch(f"there is a gradient of {', '.join(more)}", holds=f"{more[0]!r} not in gradient")


test_gradient_like_operand = gradient(
    "basic_block.gradient.like-operand", laws_of_gradients.is_like_operand, modes=BOTH
)
test_gradient_layout = gradient("basic_block.gradient.layout", laws_of_gradients.ignores_layout, effort=4)
test_gradient_unchanged = gradient("basic_block.gradient.unchanged", laws_of_gradients.leaves_operands, modes=BOTH)
test_gradient_frozen = gradient("basic_block.gradient.frozen", laws_of_gradients.ignores_frozen, effort=8, modes=BOTH)
test_gradient_batch = gradient("basic_block.gradient.batch", laws_of_gradients.judges_images_alone)
test_gradient_empty = gradient(
    "basic_block.gradient.empty", laws_of_gradients.is_nothing_for_no_images, modes=BOTH, more=(5,), spread=True
)


# -- refusals ----------------------------------------------------------------------------------------------------------


refusal = Laws(altered, of=cases, per_dtype=False)
test_refuses_channels = refusal(
    "basic_block.refuses.channels", laws.refuses, "One channel too many or too few, or one alone.", how=channels
)


def _rank(draw: Draw, case: Case) -> Case:
    return case.but(x=draw(any_of(case["x"][0, 0], case["x"][None], case["x"][0])))


test_refuses_rank = refusal("basic_block.refuses.rank", laws.refuses, "Two, three and five dimensions.", how=_rank)
test_refuses_stride = refusal(
    "basic_block.refuses.stride",
    laws.refuses,
    "0 and below.",
    how=lambda draw, case: case.but(stride=draw(any_of(0, -1, -2))),
    strides=(2,),
    needs="stride",
)


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_every_kind_of_shortcut() -> None:
    """Channels that change with stride 1, and a stride with as many channels; rows left over; one row, one column."""
    for corner in (
        lambda c: c["stride"] == 1 and c["conv1.weight"].shape[0] != c["conv1.weight"].shape[1],
        lambda c: c["stride"] == 2 and c["conv1.weight"].shape[0] == c["conv1.weight"].shape[1],
        lambda c: c["stride"] == 3 and c["x"].shape[2] % 3 == 2,
        lambda c: 1 in c["x"].shape[2:],
    ):
        reaches(cases(dtype="float32"), corner)


def test_reach_values_on_both_sides_of_every_relu() -> None:
    """A branch that is negative where the shortcut is not, and the other way round."""

    def corner(case: Case) -> bool:
        branch = run(ending(case, "downsample.1", 0) if "downsample.1.weight" in case.arrays else case)[0].value
        return bool((case["x"] < 0).any() and (case["x"] > 0).any() and (branch == 0).any() and (branch > 0).any())

    reaches(cases(dtype="float32"), corner)

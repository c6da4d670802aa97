"""The requirements of spec/batch_norm.md, in the page's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from nnspec.adapters.subject import Lacks, Unsupported
from nnspec.conformance.bounds.arithmetic import Accuracy
from nnspec.conformance.bounds.batch_norm import expected, expected_gradients, expected_second, readings
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Case
from nnspec.conformance.checks import alternatives, domains, laws, laws_of_gradients, laws_of_memory, laws_of_state
from nnspec.conformance.checks.cases import data, specials, with_cotangent
from nnspec.conformance.checks.convolutions import channels
from nnspec.conformance.checks.laws import Laws
from nnspec.conformance.checks.within import allowed, argument, image_side
from nnspec.conformance.drawing import Decision, Draw, any_of, booleans, composite, dimension, integers, legal, reaches
from nnspec.conformance.formats import STORED
from nnspec.conformance.layouts import OF_ANY_VALUES
from nnspec.conformance.requirements import CHECKS, requirement
from nnspec.conformance.sizes import SWEEPS, Sweep
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Built, Trial

ALL = ("statistics", "weight", "bias", "momentum", "eps")
READ_EITHER_WAY = ("statistics", "weight", "bias", "eps")  # with a momentum of 0.5
RESULTS = ("the result", "the running mean", "the running variance")
STATISTICS = ("running_mean", "running_var")
MANY, LONGER = (2, 1, 3, 9, 17), (1, 2, 3, 4, 8)  # channels, and sizes of other axes, up to more than a vector register

RESNET = ((1, 64, 112), (1, 64, 56), (1, 128, 28), (1, 256, 14), (1, 512, 7))  # images, channels and side
SWEEPS["batch_norm"] = Sweep(
    layers=tuple(
        {"values0": images, "channels0": channels, "values1": side, "values2": side}
        for images, channels, side in (*RESNET, (1, 64, 113), (128, 512, 7), (128, 100, 1))
    ),  # ResNet-34 at 224 × 224, at an odd side, and in a batch; and the values that DCGAN begins with
    names={"channels0": "C", "values0": "N", "values1": "H", "values2": "W"},
    axes=(("values1",), ("values2",), ("values0",), ("channels0",), ("values1", "values2"), ("values0", "values1")),
)


@composite
def cases(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    vary: tuple[str, ...] = (),
    ranks: tuple[int, ...] = (4, 2, 3, 4),
    modes: tuple[bool, ...] = (False, True),
    kinds: tuple[str, ...] = ("integers", "normal"),
    batch: int = 1,
    channels: tuple[int, ...] = (2, 1, 3),
    sizes: tuple[int, ...] = (1, 2, 3, 4),
):
    """Batch norm of several channels, each with its own mean and variance. What is not in `vary` is neutral.

    The neutral momentum is 0.5, the same read either way. In a third of the cases all sizes are equal: where they are
    not, an axis taken for another only raises.
    """
    vary = tuple(name for name in vary if name not in lacks)
    there = [r for r in (2, 3, 4) if f"BatchNorm{1 + (r == 4)}d" not in lacks]
    rank = draw(any_of(*allowed(draw, "ndim", [r for r in ranks if r in there] or ranks)))
    rank = 4 if "values2" in (draw.plan or {}) and 4 in there and draw.domain.allows("ndim", 4) else rank
    training = "training" not in lacks and draw(any_of(*allowed(draw, "training", modes)))
    c = draw(dimension(*channels, of="channels", name="num_features"))
    some = (c,) if c in sizes and draw(any_of(False, False, True)) else sizes
    size = dimension(*some, of="values")
    images, *image = (draw(size) for axis in range(rank) if axis != 1)
    images = max(batch, images, 2 if training and np.prod(image) == 1 else 1)
    if rank == 4:
        images, h = legal(draw, "N", images), image_side(draw, "H", image[0])
        image = [h, image_side(draw, "W", image[1], rows=h)]
    values = draw(data(dtype, kinds))
    affine = not ({"weight", "bias"} & {*vary} and draw(any_of(False, False, False, True)))
    affine = affine if draw.domain.allows("affine", affine) else not affine
    absent = lacks if affine else lacks | {"weight", "bias"}

    def vector(name: str, neutral: float) -> np.ndarray:
        return values.inputs(c) if name in vary else np.full(c, neutral)

    arrays = {
        "x": _along(np.arange(1, c + 1), rank) * values.inputs(images, c, *image) + _along(2 * np.arange(c), rank),
        "running_mean": vector("statistics", 0.0),
        "running_var": np.abs(vector("statistics", 0.75)) + 0.25,
        "weight": None if "weight" in absent else vector("weight", 1.0),
        "bias": None if "bias" in absent else vector("bias", 0.0),
    }
    neutral = 0.1 if "momentum" in lacks else 0.5
    many, few = (0.1, 0.0, 0.25, 0.9, 1.0, 0.0), (1.0, 0.1, 1e-3, 1e-3 if dtype == "float16" else 1e-5)
    momentum = draw(argument("momentum", any_of(*many), many, neutral=neutral, varies="momentum" in vary))
    eps = draw(argument("eps", any_of(*few), few, neutral=1e-5, varies="eps" in vary))
    arrays["x"] = _within_range(arrays["x"], dtype)
    arguments = {"training": training, "momentum": momentum, "eps": eps}
    return Case("batch_norm", arrays, arguments).map(lambda a: a.astype(dtype))


@composite
def altered(draw, *, dtype: str, lacks: frozenset[str] = frozenset(), how: Callable[..., Any], **choices: Any):
    """A case, then changed by `how(draw, case)`."""
    return how(draw, draw(cases(dtype=dtype, lacks=lacks, **choices)))


def _within_range(x: np.ndarray, dtype: str) -> np.ndarray:
    """x in a dtype; in float16 divided by a power of two, so that the squares of a channel add up to at most 4094.

    That is a sixteenth of the range, so that a law may multiply x by 4. Code may add squares up in float16.
    """
    if dtype == "float16":
        squares = np.square(x.astype(np.float64)).sum((0, *range(2, x.ndim))).max(initial=0)
        x = np.ldexp(x, -max(0, int(np.ceil(np.log2(max(squares, 1.0) * 16 / STORED[dtype].largest) / 2))))
    return x.astype(dtype)


def _along(vector: np.ndarray, rank: int) -> np.ndarray:
    """One value per channel, laid along axis 1 of an array of so many dimensions."""
    return vector.reshape(-1, *(1 for _ in range(rank - 2)))


def equals_reference(subject: Trial, case: Case, *which: int) -> None:
    """The one comparison behind every requirement on values: `which` of the three results, y if nothing is said."""
    results, right = subject.results(case), expected(case)
    for i in which or (0,):
        subject.expect(results[i], right[i], RESULTS[i])


law = Laws(cases, lambda case: expected(case)[0])


def equals_some_reading(subject: Trial, case: Case) -> None:
    """All three results, whichever way momentum is read and whichever divisor the running variance has."""
    laws.follows(subject, subject.results(case), readings(case), RESULTS)


@laws.law()
def some_reading(subject: Trial, case: Case, _judge: laws.Judge) -> None:
    """All three results, as `equals_some_reading` has them."""
    equals_some_reading(subject, case)


def moved(subject: Trial, layer: Built, case: Case, what: str) -> None:
    """The running statistics of a module after a call, likewise; `what` is said of them."""
    names = [f"{name}, {what}," for name in STATISTICS]
    laws.follows(subject, [entry(layer, n) for n in STATISTICS], (way[1:] for way in readings(case)), names)


def shaped(actual: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The array, if it has the shape that it must have."""
    if actual.shape != shape:
        raise Mismatch(f"{what} has shape {actual.shape}, expected {shape}", actual)
    return actual


def again(subject: Trial, case: Case) -> list[Expected]:
    """What another call must give that ought to give the same: twice the bound from the subject's own results."""
    return [
        laws.own(shaped(actual, right.value.shape, what), right)
        for actual, right, what in zip(subject.results(case), expected(case), RESULTS, strict=True)
    ]


# -- values ------------------------------------------------------------------------------------------------------------


@requirement("batch_norm.train.mean", cases, vary=("statistics",), modes=(True,), needs="training")
def test_train_mean(subject: Trial, case: Case) -> None:
    """Up to one factor per channel, which is the variance's affair, the result is x with the mean of the batch off."""
    right = expected(case)[0]
    y = shaped(subject(case), right.value.shape, "the result")
    axes = (0, *range(2, y.ndim))

    def total(values: np.ndarray) -> np.ndarray:
        return values.sum(axes, keepdims=True)

    # the factor that fits best, Σ y·ŷ / Σ y², is off by no more than Σ |y|·bound / Σ y²
    length = np.maximum(total(right.value**2), np.finfo(np.float64).tiny)
    factor = total(right.value * y) / length

    def with_slack(bound: np.ndarray, _: Accuracy) -> np.ndarray:
        return np.asarray(bound + np.abs(right.value) * total(np.abs(right.value) * bound) / length, np.float64)

    subject.expect(y, right.change(factor * right.value, with_slack, factor))


@requirement("batch_norm.train.variance", cases, modes=(True,), sizes=(1, 2, 3, 8, 8), needs="training")
def test_train_variance(subject: Trial, case: Case) -> None:
    """Divided by the root of the variance with divisor n. At this size of x no usual eps is seen in float32."""
    equals_reference(subject, case.but(x=_within_range(case["x"].astype(np.float64) * 128, subject.dtype)))


def _near_eps(draw: Draw, case: Case) -> Case:
    """A variance of about eps: between a quarter of it and nine times as much."""
    near = case["eps"] * 2.0 ** draw(integers(-2, 0))
    return case.but(
        x=case["x"] * np.sqrt(near).astype(case["x"].dtype),
        running_var=(case["running_var"] * near).astype(case["x"].dtype),
    )


test_eps_inside_root = law(
    "batch_norm.eps.inside-root",
    laws.equals_reference,
    "Where the variance is about as large as eps, a tenth of eps more or less is seen.",
    cases=altered,
    how=_near_eps,
    vary=("statistics", "eps"),
    sizes=(1, 2, 3, 4, 4),
    modes=(False, True, True),
    kinds=("normal",),
)


def _may_be_absent(subject: Trial) -> bool:
    """Whether a weight or a bias alone may be absent: in functions, unless these need both."""
    return subject.form == "function" and subject.subject.domain("batch_norm").allows("affine", False)


@requirement("batch_norm.weight.scales", cases, vary=("weight",), sizes=LONGER, needs="weight", spread=True)
def test_weight_scales(subject: Trial, case: Case) -> None:
    """Each channel times its weight, with and without a bias; without one, as it is."""
    equals_reference(subject, case)
    if _may_be_absent(subject):
        equals_reference(subject, case.but(weight=None))
        equals_reference(subject, case.but(bias=None))


@requirement("batch_norm.bias.shifts", cases, vary=("bias",), sizes=LONGER, needs="bias", spread=True)
def test_bias_shifts(subject: Trial, case: Case) -> None:
    """Each channel plus its bias; without one, as it is. A weight of 2 would show in it, or be left out with it."""
    two = None if case["weight"] is None else 2 * case["weight"]
    equals_reference(subject, case.but(weight=two))
    if _may_be_absent(subject):
        equals_reference(subject, case.but(weight=two, bias=None))


of_rank = Laws(domains.asking, law.judge, of=cases, quantity="ndim", vary=("statistics",))
test_axes_rank_2 = of_rank(
    "batch_norm.axes.rank-2", domains.anywhere(laws.equals_reference), "Channels on axis 1 of (N, C).", ranks=(2,)
)
test_axes_rank_3 = of_rank(
    "batch_norm.axes.rank-3", domains.anywhere(laws.equals_reference), "Channels on axis 1 of (N, C, L).", ranks=(3,)
)
test_axes_rank_4 = of_rank(
    "batch_norm.axes.rank-4", domains.anywhere(laws.equals_reference), "Channels on axis 1 of (N, C, H, W).", ranks=(4,)
)


@requirement("batch_norm.law.scale", cases, vary=("weight", "bias", "eps"), modes=(True,), needs=("training", "eps"))
def test_law_scale(subject: Trial, case: Case) -> None:
    """x times 4 with eps times 16, both of which are exact."""
    before = laws.own(subject.presumed(case), expected(case)[0])
    louder = case.but(x=4 * case["x"], eps=16 * case["eps"])
    subject.expect(subject(louder), before, "the result, with x times 4 and eps times 16,")


@requirement("batch_norm.channel.independent", cases, vary=("statistics", "weight"), channels=(2, 3))
def test_channel_independent(subject: Trial, case: Case) -> None:
    """The first channel's results, whatever is in the others."""
    first = again(subject, case)
    for actual, own, what in zip(subject.results(others_changed(case)), first, RESULTS, strict=True):
        subject.expect(actual, first_channel(own), f"channel 0 of {what}, after others were changed,")


def others_changed(case: Case) -> Case:
    """The case with other values in all channels but the first."""
    other = case.map(np.array)
    for array in other.arrays.values():
        if array is not None:
            array[_but_first(array)] *= 4
    return other


def first_channel(own: Expected) -> Expected:
    """What is expected of the first channel; the others may be anything."""

    def only(bound: np.ndarray, _: Accuracy) -> np.ndarray:
        bound = np.broadcast_to(bound, own.value.shape).copy()
        bound[_but_first(bound)] = np.inf
        return bound

    return own.change(own.value, only, own.source)


def _but_first(array: np.ndarray) -> Any:
    return (slice(None), slice(1, None)) if array.ndim > 1 else slice(1, None)


def _offset(draw: Draw, case: Case) -> Case:
    x = case["x"].astype(np.float64) + draw(any_of(1000, -1000))
    return case.but(x=_within_range(x, case["x"].dtype.name))


test_train_offset = law(
    "batch_norm.train.offset",
    laws.equals_reference,
    "Mean 1000, standard deviation from 1: the bound is what two passes, or one with updates, keep.",
    cases=altered,
    how=_offset,
    modes=(True,),
    kinds=("normal",),
    batch=2,
    channels=(3, 1, 2),
    needs="training",
)


def _constant(draw: Draw, case: Case) -> Case:
    first = case["x"][(slice(1), slice(None), *(slice(1) for _ in case["x"].shape[2:]))]
    x = np.broadcast_to(100 * first.astype(np.float64), case["x"].shape)
    return case.but(x=_within_range(x, first.dtype.name))


test_train_constant = law(
    "batch_norm.train.constant",
    laws.equals_reference,
    "One value all over a channel: its bias.",
    cases=altered,
    how=_constant,
    vary=("bias",),
    modes=(True,),
    kinds=("normal",),
    channels=(3, 1, 2),
    needs="training",
    effort=0.5,  # few values show what rounding does to a variance of 0
)


# -- running statistics ------------------------------------------------------------------------------------------------


def _new(draw: Draw, case: Case) -> Case:
    """At times the statistics that a module begins with."""
    zeros, ones = np.zeros_like(case["running_mean"]), np.ones_like(case["running_var"])
    return case.but(running_mean=zeros, running_var=ones) if draw(any_of(False, False, True)) else case


@requirement("batch_norm.running-mean.update", altered, how=_new, vary=("statistics",), modes=(True,), needs="training")
def test_running_mean_update(subject: Trial, case: Case) -> None:
    """Half of the old, half of the batch's."""
    equals_reference(subject, case, 1)


def _biased(subject: Trial, case: Case) -> None:
    subject.expect(subject.results(case)[2], expected(case, biased=True)[2], RESULTS[2])


@requirement(
    "batch_norm.running-var.update",
    altered,
    how=_new,
    vary=("statistics",),
    modes=(True,),
    needs="training",
    alternatives={"n": _biased},
)
def test_running_var_update(subject: Trial, case: Case) -> None:
    """Half of the old, half of the batch's with divisor n − 1."""
    equals_reference(subject, case, 2)


def _moves(subject: Trial, case: Case, *weights: float) -> None:
    """The statistics move by one of these weights of the new batch; the running variance with either divisor."""
    ways = [expected(case.but(momentum=w), biased=biased)[1:] for w in weights for biased in (False, True)]
    laws.follows(subject, subject.results(case)[1:], ways, RESULTS[1:])


@requirement(
    "batch_norm.momentum.weighs-new",
    cases,
    vary=("statistics", "momentum"),
    modes=(True,),
    needs=("training", "momentum"),
    alternatives={"old": lambda subject, case: _moves(subject, case, 1 - case["momentum"])},
)
def test_momentum_weighs_new(subject: Trial, case: Case) -> None:
    """0 and 1, and what lies between them, one half aside; the running variance with either divisor."""
    _moves(subject, case, case["momentum"])


@composite
def steps(draw, *, dtype: str, lacks: frozenset[str], least: int = 2, **choices: Any):
    """Several batches for one module, one case for each, in which the state before the first is the same."""
    first = draw(cases(dtype=dtype, lacks=lacks, **choices))
    shape = first["x"].shape
    further = [draw(data(dtype, ("integers", "normal"))).inputs(*shape) for _ in range(draw(integers(least, 4)) - 1)]
    return (first, *(first.but(x=x) for x in further))


@requirement(
    "batch_norm.momentum.cumulative",
    steps,
    least=1,
    vary=("statistics",),
    modes=(True,),
    needs="momentum",
    forms="class",
    effort=2,
)
def test_momentum_cumulative(subject: Trial, case: tuple[Case, ...]) -> None:
    """After every step the plain mean of the statistics of the batches so far; the initial ones have no share."""
    layer, found = subject.build(case[0].but(momentum=None)), []
    for step in case:
        layer(step["x"])
        found += [entry(layer, name) for name in STATISTICS]
    what = [f"{name}, after {count} batches," for count in range(1, len(case) + 1) for name in STATISTICS]
    laws.follows(subject, found, [averages(case, subject.dtype, biased) for biased in (False, True)], what)


def averages(case: tuple[Case, ...], dtype: str, biased: bool) -> list[Expected]:
    """Running mean and running variance after each of the batches: the plain mean of those so far."""
    running: dict[str, Expected] = {n: Expected.exactly(case[0][n]) for n in STATISTICS}
    found: list[Expected] = []
    for count, step in enumerate(case, start=1):
        before = {n: r.value.astype(dtype) for n, r in running.items()}
        after = expected(step.but(**before, momentum=1 / count), biased=biased)[1:]
        for name, right in zip(STATISTICS, after, strict=True):
            running[name] = right.change(right.value, _carrying(running[name], before[name], count))
        found += running.values()
    return found


def _carrying(last: Expected, before: np.ndarray, count: int) -> Callable[[np.ndarray, Accuracy], np.ndarray]:
    """The error of the average so far keeps the weight 1 − 1/count; `before` was rounded once more than need be."""
    rounded = np.abs(before) * 2 * STORED[before.dtype.name].u

    def carried(bound: np.ndarray, accuracy: Accuracy) -> np.ndarray:
        return np.asarray(bound + (1 - 1 / count) * (last.within(accuracy) + rounded), np.float64)

    return carried


def entry(layer: Built, name: str) -> np.ndarray:
    """One entry of a module's state: a count, or one value per channel."""
    state = layer.state()
    if name not in state:
        raise Unsupported(f"the state has no entry {name}")
    shape = () if name == "num_batches_tracked" else (layer.case["x"].shape[1],)
    return shaped(state[name], shape, name)


def _counts_nothing(subject: Trial, case: tuple[Case, ...]) -> None:
    if "num_batches_tracked" in subject.build(case[0]).state():
        raise Mismatch("the state has a count of batches, num_batches_tracked")


@requirement(
    "batch_norm.count.tracked",
    steps,
    modes=(True,),
    forms="class",
    per_dtype=False,
    alternatives={"none": _counts_nothing},
)
def test_count_tracked(subject: Trial, case: tuple[Case, ...]) -> None:
    """Batches in training, and nothing else."""
    layer = subject.build(case[0])
    if "num_batches_tracked" not in layer.state():
        raise Mismatch("the state has no count of batches, num_batches_tracked")
    count = int(entry(layer, "num_batches_tracked"))
    for step in case:
        for mode in (True, False):
            layer.train(mode)(step["x"])
            count += mode
            tracked = entry(layer, "num_batches_tracked")
            if tracked != count:
                raise Mismatch(f"num_batches_tracked is {tracked}, expected {count}", tracked)


@requirement(
    "batch_norm.count.switched-off",
    cases,
    vary=("statistics",),
    modes=(True,),
    sizes=(2, 3),
    forms="class",
    needs="training",
)
def test_count_switched_off(subject: Trial, case: Case) -> None:
    """A call in training that tracks nothing, and one that tracks again."""
    layer = subject.build(case)
    if not hasattr(layer.native, "track_running_stats"):
        raise Lacks("the module has no attribute track_running_stats")
    before = layer.state()
    y = layer.set("track_running_stats", False)(case["x"])
    subject.expect(y, expected(case)[0], "the result of a call that tracks nothing")
    laws_of_state.keeps(subject, layer, before, "a call that tracks nothing")
    layer.set("track_running_stats", True)(case["x"])
    moved(subject, layer, case, "after a call that tracks again")


# -- evaluation and modes ----------------------------------------------------------------------------------------------


test_eval_frozen = law(
    "batch_norm.eval.frozen",
    laws.equals_reference,
    "Running statistics that are not those of the batch.",
    vary=("statistics",),
    modes=(False,),
)


@requirement("batch_norm.eval.unchanged", cases, vary=("statistics",), modes=(False,), effort=2)
def test_eval_unchanged(subject: Trial, case: Case) -> None:
    """Statistics, and in a module the whole state, are equal afterwards."""
    if subject.form == "function":
        equals_reference(subject, case, 1, 2)
        return
    layer = subject.build(case)
    before = layer.state()
    layer(case["x"])
    laws_of_state.keeps(subject, layer, before, "a call in evaluation")


@requirement(
    "batch_norm.eval.row-independent", cases, vary=("statistics",), modes=(False,), batch=2, sizes=(1, 2, 3), effort=2
)
def test_eval_row_independent(subject: Trial, case: Case) -> None:
    """Each image by itself, be it of one pixel."""
    laws.judges_images_alone(subject, case, lambda c: expected(c)[0])


test_eval_special = law(
    "batch_norm.eval.special",
    laws.equals_reference,
    "Where it belongs, and nowhere else.",
    cases=specials,
    of=cases,
    operand="x",
    vary=ALL,
    modes=(False,),
    channels=MANY,
    sizes=LONGER,
    spread=True,
)


def _one_image(draw: Draw, case: Case) -> Case:
    """At times a single image, which must have more than one pixel."""
    return case.but(x=case["x"][:1]) if case["x"][0, 0].size > 1 and draw(booleans()) else case


@requirement(
    "batch_norm.mode.switch", altered, how=_one_image, vary=("statistics",), modes=(True,), forms="class", effort=2
)
def test_mode_switch(subject: Trial, case: Case) -> None:
    """Evaluation, training, evaluation, of one batch; each by the mode alone."""
    layer = subject.build(case)
    for mode in (False, True, False):
        own = {name: entry(layer, name) for name in STATISTICS}
        now, what = case.but(**own, training=mode), f"after {'train' if mode else 'eval'}()"
        subject.expect(layer.train(mode)(case["x"]), expected(now)[0], f"the result, {what},")
        moved(subject, layer, now, what)


@requirement("batch_norm.mode.round-trip", steps, vary=("statistics",), modes=(True,), forms="class", effort=2)
def test_mode_round_trip(subject: Trial, case: tuple[Case, ...]) -> None:
    """Training again goes on from the statistics that training left, whatever evaluation did."""
    layer = subject.build(case[0])
    layer(case[0]["x"])
    for step in case[1:]:
        left = {name: entry(layer, name) for name in STATISTICS}
        layer.eval()(step["x"])
        layer.train()(step["x"])
        moved(subject, layer, step.but(**left), "in training again")


@requirement(
    "batch_norm.arguments.together",
    cases,
    vary=ALL,
    sizes=LONGER,
    channels=(2, 1, 3, 17, 17),
    spread=True,
    sweeps=True,
    narrow=True,
)
def test_arguments_together(subject: Trial, case: Case) -> None:
    """Everything at once; all results."""
    equals_some_reading(subject, case)


# -- defaults, and how a module begins ---------------------------------------------------------------------------------


def _unsaid(*names: str) -> Callable[..., Case]:
    """The case with some arguments left out of the call."""

    def how(draw: Draw, case: Case) -> Case:
        return Case(case.stem, case.arrays, {n: v for n, v in case.arguments.items() if n not in names})

    return how


@requirement(
    "batch_norm.defaults.mode",
    altered,
    how=_unsaid("training"),
    vary=("statistics",),
    batch=2,
    forms="function",
    needs="default of training",
)
def test_defaults_mode(subject: Trial, case: Case) -> None:
    """The running statistics normalise, and stay."""
    equals_reference(subject, case, 0, 1, 2)


@requirement(
    "batch_norm.defaults.momentum",
    altered,
    how=_unsaid("momentum"),
    vary=("statistics",),
    modes=(True,),
    needs=("training", "default of momentum"),
    alternatives={"0.01": lambda subject, case: _moves(subject, case, 0.01, 1 - 0.99)},
)
def test_defaults_momentum(subject: Trial, case: Case) -> None:
    """A tenth of the batch's."""
    equals_reference(subject, case, 1)


def _default_eps(draw: Draw, case: Case) -> Case:
    return _unsaid("eps")(draw, _near_eps(draw, case))


test_defaults_eps = law(
    "batch_norm.defaults.eps",
    laws.equals_reference,
    "A variance of about 1e-5 shows it.",
    cases=altered,
    how=_default_eps,
    vary=("statistics",),
    kinds=("normal",),
    needs="default of eps",
    alternatives={"1e-3": alternatives.gives(lambda case: expected(case.but(eps=1e-3))[0])},
)


def new(subject: Trial, case: Case, **keywords: Any) -> Built:
    """A module for the case as its constructor leaves it."""
    keys = STATISTICS if keywords.get("affine") is False else ("weight", "bias", *STATISTICS)
    return Built(subject, subject.new("batch_norm", case["x"].shape[1], called_with=case, **keywords), case, keys)


@requirement("batch_norm.start.affine", cases, forms="class", effort=4)
def test_start_affine(subject: Trial, case: Case) -> None:
    """Ones and zeros."""
    layer, c = new(subject, case), case["x"].shape[1]
    for name, start in (("weight", 1.0), ("bias", 0.0)):
        subject.expect(entry(layer, name), Expected.exactly(np.full(c, start)), f"{name} of a new module")


@requirement("batch_norm.start.statistics", cases, forms="class", effort=4)
def test_start_statistics(subject: Trial, case: Case) -> None:
    """Zeros and ones, a count of 0, and an evaluation that divides by √(1 + eps)."""
    takes_eps = "eps" not in subject.subject.lacks(case.stem, subject.form)
    layer, c = new(subject, case, **({"eps": case["eps"]} if takes_eps else {})), case["x"].shape[1]
    for name, start in (("running_mean", 0.0), ("running_var", 1.0)):
        subject.expect(entry(layer, name), Expected.exactly(np.full(c, start)), f"{name} of a new module")
    count = layer.state().get("num_batches_tracked", 0)
    if count != 0:
        raise Mismatch(f"num_batches_tracked of a new module is {count}, expected 0")
    neutral = case.but(training=False)  # cases are neutral: such statistics
    subject.expect(layer.eval()(case["x"]), expected(neutral)[0], "the result of a new module")


@composite
def with_or_without(draw, **given: Any):
    """A case and whether the module is to have weight and bias."""
    return draw(cases(**given)), draw(any_of(True, True, False))


@requirement("batch_norm.parameters.complete", with_or_without, forms="class", per_dtype=False)
def test_parameters_complete(subject: Trial, case: tuple[Case, bool]) -> None:
    """Two of C values, or none."""
    plain, affine = case
    layer = new(subject, plain, **({} if affine else {"affine": False}))
    if not hasattr(layer.native, "named_parameters"):
        raise Lacks("the module has no named_parameters")
    vector = plain["running_mean"].shape
    laws_of_state.has_parameters(layer, dict.fromkeys(("weight", "bias"), vector) if affine else {})


@requirement("batch_norm.state.complete", steps, vary=("statistics", "weight", "bias"), modes=(True,), forms="class")
def test_state_complete(subject: Trial, case: tuple[Case, ...]) -> None:
    """What one module learned, another that was given its state does alike."""
    first, *rest = case
    layer, x = subject.build(first), first["x"]
    for step in rest:
        layer(step["x"])
    other = subject.build(first.map(lambda a: a + 1)).load(layer.state(saved=True))
    learnt = first.but(training=False, **{n: a for n, a in layer.state().items() if n in STATISTICS})
    own = laws.own(layer.eval()(x), expected(learnt)[0])
    subject.expect(other.eval()(x), own, "the result of a module with the state loaded")


@requirement("batch_norm.buffers.complete", cases, forms="class", per_dtype=False)
def test_buffers_complete(subject: Trial, case: Case) -> None:
    """Two of C values, and the count or none; in a new module, and in one that was called in training."""
    layer, vector = new(subject, case), case["running_mean"].shape
    for _ in range(2):
        laws_of_state.has_buffers(layer, dict.fromkeys(STATISTICS, vector), optional=("num_batches_tracked",))
        layer.train()(np.concatenate([case["x"]] * 2))


@requirement("batch_norm.state.own", cases, forms="class", effort=2)
def test_state_own(subject: Trial, case: Case) -> None:
    """Of two new modules one is called in training and loaded; the other keeps its entries and its count."""
    laws_of_state.stay_apart(subject, new(subject, case), new(subject, case), np.concatenate([case["x"]] * 2))


@requirement("batch_norm.state.keys", cases, forms="class", per_dtype=False, effort=4)
def test_state_keys(subject: Trial, case: Case) -> None:
    """The five names, or four where nothing is counted."""
    layer = new(subject, case)
    if not hasattr(layer.native, "state_dict"):
        raise Lacks("the module has no state_dict")
    wanted = ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"]
    found = sorted(subject.state(layer.native))
    if found not in (wanted, [key for key in wanted if key != "num_batches_tracked"]):
        raise Mismatch(f"the keys are {found}, expected {wanted}")


# -- results and operands ----------------------------------------------------------------------------------------------


@requirement("batch_norm.output.size", cases, vary=ALL)
def test_output_size(subject: Trial, case: Case) -> None:
    """The shape of x; statistics of C values."""
    vector = case["running_mean"].shape
    for actual, shape, what in zip(subject.results(case), (case["x"].shape, vector, vector), RESULTS, strict=True):
        shaped(actual, shape, what)


@requirement("batch_norm.output.dtype", cases, vary=ALL, effort=2)
def test_output_dtype(subject: Trial, case: Case) -> None:
    """The operands' dtype, for all results."""
    for actual, what in zip(subject.results(case), RESULTS, strict=True):
        if actual.dtype != subject.dtype:
            raise Mismatch(f"{what} has dtype {actual.dtype}, expected {subject.dtype}")


def _half(draw: Draw, case: Case) -> Case:
    return case.map(lambda a: a.astype(np.float32)).but(x=case["x"].astype(np.float16))


@requirement(
    "batch_norm.dtype.mixed",
    altered,
    how=_half,
    vary=("statistics", "weight"),
    forms="function",
    per_dtype=False,
    effort=2,
)
def test_dtype_mixed(subject: Trial, case: Case) -> None:
    """x of 16 bits beside float32: y of 16 bits, and statistics that keep all of their 32."""
    results = subject.results(case)
    for actual, dtype, what in zip(results, ("float16", "float32", "float32"), RESULTS, strict=True):
        if actual.dtype != dtype:
            raise Mismatch(f"{what} has dtype {actual.dtype}, expected {dtype}")
    laws.follows(subject, results[1:], (way[1:] for way in readings(case)), RESULTS[1:])


test_output_fresh = law("batch_norm.output.fresh", laws.is_fresh, vary=ALL)
test_input_unchanged = law("batch_norm.input.unchanged", laws.leaves_operands, vary=ALL)


@requirement(
    "batch_norm.input.layout",
    cases,
    vary=READ_EITHER_WAY,
    channels=(2, 3),
    effort=4,
    answers_for=lambda check, case: not check.differentiates,
)
def test_input_layout(subject: Trial, case: Case) -> None:
    """Every layout gives what the contiguous copy gives, each within the bound."""
    arranged = {layout: case.lying(layout).arranged() for layout in OF_ANY_VALUES}
    arranged["its first image, repeated by a stride of 0"] = case.but(x=np.broadcast_to(case["x"][:1], case["x"].shape))
    for layout, other in arranged.items():
        contiguous = again(subject, other.map(np.ascontiguousarray))
        for actual, own, what in zip(subject.results(other, as_is=True), contiguous, RESULTS, strict=True):
            subject.expect(actual, own, f"with operands laid out as {layout}, {what}")


test_memory_in_bounds = law("batch_norm.memory.in-bounds", laws_of_memory.stays_in_bounds)
test_memory_all_written = law("batch_norm.memory.all-written", laws_of_memory.writes_everything)
test_memory_alignment = law("batch_norm.memory.alignment", laws_of_memory.ignores_alignment)


@requirement("batch_norm.batch.empty", cases, vary=ALL, channels=MANY, sizes=LONGER, spread=True)
def test_batch_empty(subject: Trial, case: Case) -> None:
    """No images, or images of no size."""
    x = case["x"]
    for empty in (x[:0], x[..., :0])[: 1 if x.ndim == 2 else 2]:
        equals_reference(subject, case.but(x=empty), 0, 1, 2)


@composite
def two_calls(draw, *, dtype: str, lacks: frozenset[str]):
    """Two batches for one module, whose sizes differ, and where a module allows it their ranks; or one argument."""
    case = draw(cases(dtype=dtype, lacks=lacks, vary=ALL, ranks=(3, 2, 4)))
    changes = [
        {"eps": 2 * case["eps"]},
        {"momentum": (case["momentum"] + 0.3) % 1},
        {"weight": None, "bias": None},
    ]
    if draw(booleans()):
        second = case.but(**draw(any_of(*[c for c in changes if not c.keys() & lacks] or [{}])))
        return (case, second) if draw(booleans()) else (second, case)
    c, image = case["x"].shape[1], {2: (2,), 3: (), 4: (1, 3)}[case["x"].ndim]
    return case, case.but(x=draw(data(dtype, ("integers", "normal"))).inputs(3, c, *image))


@requirement("batch_norm.call.stateless", two_calls)
def test_call_stateless(subject: Trial, case: tuple[Case, Case]) -> None:
    """A call in between, of another rank or size, changes only running statistics, which y in training does not see.

    After a call that differs in one argument, a call gives what the reference gives, whichever way momentum is read.
    """
    first, second = case
    if np.array_equal(first["x"], second["x"]):
        subject.presumed(first)
        equals_some_reading(subject, second)
        return
    layer = subject.kept(first)
    before = np.array(layer(first))
    subject.expect(layer(second), expected(second)[0], "the result, after a call on another shape,")
    own = laws.own(before, expected(first)[0])
    subject.expect(layer(first), own, "the result, after a call on another shape,")


test_call_neighbours = law("batch_norm.call.neighbours", laws.ignores_neighbours)
test_domain_outside = law(
    "batch_norm.domain.outside",
    domains.right_or_refused(some_reading),
    "One size or argument outside what the subject declares.",
    cases=domains.outside,
    of=cases,
    vary=ALL,
    needs="domain",
)


def _nan(draw: Draw, case: Case) -> Case:
    x = case["x"]
    x[(0, draw(integers(0, x.shape[1] - 1)), *(0 for _ in x.shape[2:]))] = np.nan
    return case


@requirement("batch_norm.nan.own-channel", altered, how=_nan, vary=("statistics",))
def test_nan_own_channel(subject: Trial, case: Case) -> None:
    """A NaN in one place of one channel."""
    equals_some_reading(subject, case)


# -- gradients ---------------------------------------------------------------------------------------------------------


def _as_drawn(draw: Draw, case: Case) -> Case:
    return case


def gradients(*, dtype: str, lacks: frozenset[str], how: Any = _as_drawn, **choices: Any) -> Decision[Case]:
    """A batch norm, changed by `how(draw, case)`, and a cotangent of y, which no symmetry of x is a match for."""
    drawn = altered(dtype=dtype, lacks=lacks, how=how, **choices)
    return with_cotangent(drawn, lambda case: case["x"].shape)


gradient = Laws(gradients, expected_gradients, needs=("vjp",))


def affine(case: Case) -> Case:
    """The case with both weight and bias."""
    there = {n: np.ones_like(case["running_mean"]) for n in ("weight", "bias") if case[n] is None}
    return case.but(**there)


def gradients_equal_reference(subject: Trial, case: Case, *operands: str) -> None:
    """The one comparison behind every requirement on the values of gradients: of these operands, or of all."""
    right = expected_gradients(case)
    for operand in operands or right:
        laws_of_gradients.equals_reference(subject, case, operand, right[operand])


test_gradient_x = gradient(
    "batch_norm.gradient.x",
    laws_of_gradients.values("x"),
    "Less its mean, and less its part along the normalised x.",
    sweeps=True,
    vary=ALL,
    sizes=LONGER,
    spread=True,
    modes=(True,),
    needs="training",
)


@requirement(
    "batch_norm.gradient.weight",
    gradients,
    vary=ALL,
    sizes=LONGER,
    modes=(True,),
    needs=("vjp", "training", "weight"),
    sweeps=True,
)
def test_gradient_weight(subject: Trial, case: Case) -> None:
    """Its part along the normalised x."""
    gradients_equal_reference(subject, affine(case), "weight")


@requirement(
    "batch_norm.gradient.bias", gradients, vary=ALL, channels=MANY, sizes=LONGER, needs=("vjp", "bias"), spread=True
)
def test_gradient_bias(subject: Trial, case: Case) -> None:
    """Its sum, exact on integers."""
    gradients_equal_reference(subject, affine(case), "bias")


test_gradient_axes = gradient(
    "batch_norm.gradient.axes",
    laws_of_gradients.values(),
    "In each rank, with sizes that are distinct and with sizes that are equal.",
    vary=ALL,
    ranks=(4, 2, 3, 4),
    channels=MANY,
    sizes=LONGER,
    spread=True,
    narrow=True,
)
test_gradient_eps = gradient(
    "batch_norm.gradient.eps",
    laws_of_gradients.values(),
    "Where the variance is about as large as eps.",
    how=_near_eps,
    vary=ALL,
    kinds=("normal",),
    effort=2,
)
test_gradient_offset = gradient(
    "batch_norm.gradient.offset",
    laws_of_gradients.values(),
    "Mean 1000, standard deviation from 1.",
    how=_offset,
    vary=("weight",),
    kinds=("normal",),
    batch=2,
    channels=(3, 1, 2),
    effort=2,
    modes=(True,),
    needs="training",
)
test_gradient_constant = gradient(
    "batch_norm.gradient.constant",
    laws_of_gradients.values(),
    "One value all over a channel, and any cotangent.",
    how=_constant,
    vary=("weight", "eps"),
    kinds=("normal",),
    channels=(3, 1, 2),
    effort=2,
    modes=(True,),
    needs="training",
)


@requirement("batch_norm.gradient.channel", gradients, vary=("statistics", "weight"), channels=(2, 3), needs="vjp")
def test_gradient_channel(subject: Trial, case: Case) -> None:
    """The first channel's gradients, whatever is in the others."""
    right, before = expected_gradients(case), laws_of_gradients.presumed(subject, case)
    after = subject.gradients(others_changed(case))
    for name, gradient in before.items():
        own = first_channel(laws.own(shaped(gradient, right[name].value.shape, f"the gradient of {name}"), right[name]))
        subject.expect(after[name], own, f"channel 0 of the gradient of {name}, after others were changed,")


test_gradient_special = gradient(
    "batch_norm.gradient.special",
    laws_of_gradients.values(),
    "Where it belongs, and nowhere else.",
    cases=specials,
    of=gradients,
    operand="cotangent",
    values=(np.nan,),
    vary=ALL,
    channels=MANY,
    sizes=LONGER,
    spread=True,
)
test_gradient_eval_x = gradient(
    "batch_norm.gradient.eval-x",
    laws_of_gradients.values("x"),
    "Running statistics that are not those of the batch, whatever other gradients show.",
    cases=domains.asking,
    quantity="training",
    of=gradients,
    vary=ALL,
    modes=(False,),
    sizes=LONGER,
    spread=True,
)


@requirement("batch_norm.gradient.eval-weight", gradients, vary=ALL, modes=(False,), needs=("vjp", "weight"))
def test_gradient_eval_weight(subject: Trial, case: Case) -> None:
    """Normalised by running statistics."""
    gradients_equal_reference(subject, affine(case), "weight")


test_gradient_eval_row_independent = gradient(
    "batch_norm.gradient.eval-row-independent",
    laws_of_gradients.judges_images_alone,
    vary=("statistics", "weight"),
    modes=(False,),
    sizes=(1, 2, 3),
    effort=2,
)


@requirement("batch_norm.gradient.affine-absent", gradients, vary=ALL, needs="vjp", spread=True)
def test_gradient_affine_absent(subject: Trial, case: Case) -> None:
    """Both away; in a function one of them, too."""
    gradients_equal_reference(subject, case.but(weight=None, bias=None))
    if subject.form == "function":
        gradients_equal_reference(subject, case.but(weight=None))
        gradients_equal_reference(subject, case.but(bias=None))


@requirement("batch_norm.gradient.statistics", gradients, vary=ALL, forms="class", needs="vjp", effort=2)
def test_gradient_statistics(subject: Trial, case: Case) -> None:
    """As one call leaves them, and the count one higher, or the same in evaluation."""
    layer = subject.build(case)
    count = layer.state().get("num_batches_tracked", 0)
    layer.gradients(case["x"], case["cotangent"])
    moved(subject, layer, case, "after the gradients were taken")
    if "num_batches_tracked" in layer.state():
        once = Expected.exactly(count + case["training"])
        subject.expect(entry(layer, "num_batches_tracked"), once, "the count, after the gradients were taken,")


@requirement(
    "batch_norm.gradient.no-graph", gradients, modes=(True,), sizes=(2, 3), needs=("vjp", "training"), forms="class"
)
def test_gradient_no_graph(subject: Trial, case: Case) -> None:
    """After each of two passes there and back."""
    layer = subject.build(case.but(cotangent=None))
    for _ in range(2):
        layer.gradients(case["x"], case["cotangent"])
        for name in STATISTICS:
            if layer.follows(name):
                raise Mismatch(f"{name} holds a graph after a call in training")


@requirement(
    "batch_norm.gradient.mode",
    gradients,
    vary=("statistics", "weight"),
    modes=(True,),
    forms="class",
    needs="vjp",
    effort=3,
)
def test_gradient_mode(subject: Trial, case: Case) -> None:
    """One module in evaluation, in training, in evaluation."""
    layer = subject.build(case)
    for mode in (False, True, False):
        own = {name: entry(layer.train(mode), name) for name in STATISTICS}
        found = layer.gradients(case["x"], case["cotangent"])
        for name, right in expected_gradients(case.but(**own, training=mode)).items():
            what = f"the gradient of {name}, after {'train' if mode else 'eval'}(),"
            if name not in found:
                raise Mismatch(f"there is no gradient of {name}", holds=f"{name!r} in gradient")
            subject.expect(found[name], right, what)


test_gradient_like_operand = gradient("batch_norm.gradient.like-operand", laws_of_gradients.is_like_operand, vary=ALL)


def seconds(*, dtype: str, lacks: frozenset[str], **choices: Any) -> Decision[Case]:
    """A batch norm with a cotangent of y and a tangent of x."""
    drawn = gradients(dtype=dtype, lacks=lacks, **choices)
    return with_cotangent(drawn, lambda case: case["x"].shape, "tangent")


@requirement("batch_norm.gradient.second", seconds, vary=ALL, forms="function", needs="vjp of vjp", effort=2)
def test_gradient_second(subject: Trial, case: Case) -> None:
    """By the cotangent, by x and by the weight, in both modes."""
    found = subject.second(case)
    for name, right in expected_second(case).items():
        if name in found:
            subject.expect(found[name], right, f"by {name}, the gradient of what the gradient of x is")
        elif right.value.any():
            raise Mismatch(f"the gradient of x is not differentiated by {name}", holds=f"{name!r} in second")


@requirement("batch_norm.gradient.second-forward", seconds, vary=ALL, forms="function", needs="jvp", effort=2)
def test_gradient_second_forward(subject: Trial, case: Case) -> None:
    """Along one tangent, in both modes."""
    along = Case(case.stem, {n: a for n, a in case.arrays.items() if n != "cotangent"}, case.arguments)
    subject.expect(subject.second(along)["y"], expected_second(along)["y"], "the second derivative along the tangent")


@requirement(
    "batch_norm.gradient.layout",
    gradients,
    how=_one_image,
    vary=ALL,
    channels=(2, 3),
    sizes=(2, 3, 4),
    needs="vjp",
    effort=4,
    answers_for=lambda check, case: check.differentiates and not (_has_layout_of_vector(case) or _is_thin(case)),
)
def test_gradient_layout(subject: Trial, case: Case) -> None:
    """First the cotangent, then x and the cotangent, then one image that a stride of 0 repeats."""
    laws_of_gradients.ignores_layout(subject, case, expected_gradients)
    x = case["x"]
    arranged = {layout: case.lying(layout, "x", "cotangent").arranged() for layout in OF_ANY_VALUES}
    arranged["its first image, repeated by a stride of 0"] = case.but(x=np.broadcast_to(x[:1], x.shape))
    gradients_ignore_layout(subject, arranged)


def _has_layout_of_vector(case: Case) -> bool:
    return bool(case.layouts.keys() - {"x", "cotangent"})


def _is_thin(case: Case) -> bool:
    return 1 in case["x"].shape[2:]


def _thin(draw: Draw, case: Case) -> Case:
    """Images of one column, or of one row."""
    x = case["x"]
    return case.but(x=draw(any_of(x[..., :1], x[:, :, :1])).copy())


def _thin_last(a: np.ndarray) -> np.ndarray:
    """Channels last, with the stride of the dimension of size 1 as if it came after them."""
    line = np.array(a.reshape(*a.shape[:2], -1).swapaxes(1, 2), order="C")
    return line.reshape(*line.shape, 1).transpose((0, 2, 1, 3) if a.shape[3] == 1 else (0, 2, 3, 1))


@requirement(
    "batch_norm.gradient.thin-layout",
    gradients,
    how=_thin,
    vary=ALL,
    ranks=(4,),
    channels=(2, 3),
    sizes=(2, 3, 4),
    needs="vjp",
    effort=3,
    answers_for=lambda check, case: check.differentiates and not _has_layout_of_vector(case) and _is_thin(case),
)
def test_gradient_thin_layout(subject: Trial, case: Case) -> None:
    """Channels last of x, of the cotangent, and of both, in images of one row or column."""
    x, g = (_thin_last(case[name]) for name in ("x", "cotangent"))
    arranged = {"channels last in x": case.but(x=x), "channels last in the cotangent": case.but(cotangent=g)}
    gradients_ignore_layout(subject, {**arranged, "channels last in both": case.but(x=x, cotangent=g)})


@requirement(
    "batch_norm.gradient.vector-layout",
    gradients,
    vary=ALL,
    channels=(2, 3),
    sizes=(2, 3, 4),
    needs="vjp",
    effort=3,
    answers_for=lambda check, case: check.differentiates and _has_layout_of_vector(case),
)
def test_gradient_vector_layout(subject: Trial, case: Case) -> None:
    """Every second element of a longer vector, and its reverse, beside an x in each layout."""
    gradients_ignore_layout(subject, {layout: case.lying(layout).arranged() for layout in OF_ANY_VALUES})


def gradients_ignore_layout(subject: Trial, arranged: dict[str, Case]) -> None:
    """Operands that lie otherwise in memory give what their contiguous copies give, each within the bound."""
    for layout, case in arranged.items():
        plain = case.map(np.ascontiguousarray)
        contiguous, right = laws_of_gradients.presumed(subject, plain), expected_gradients(plain)
        found = subject.gradients(case, as_is=True)
        for name, gradient in contiguous.items():
            what = f"with operands laid out as {layout}, the gradient of {name}"
            subject.expect(found[name], laws.own(gradient, right[name]), what)


test_gradient_unchanged = gradient("batch_norm.gradient.unchanged", laws_of_gradients.leaves_operands, vary=ALL)


test_gradient_frozen = gradient("batch_norm.gradient.frozen", laws_of_gradients.ignores_frozen, vary=ALL)


@requirement("batch_norm.gradient.empty", gradients, vary=ALL, channels=MANY, sizes=LONGER, needs="vjp", spread=True)
def test_gradient_empty(subject: Trial, case: Case) -> None:
    """No images, or images of no size: zeros for weight and bias."""
    for none in ((slice(0),), (..., slice(0)))[: 1 if case["x"].ndim == 2 else 2]:
        gradients_equal_reference(subject, case.but(x=case["x"][none], cotangent=case["cotangent"][none]))


# -- refusals ----------------------------------------------------------------------------------------------------------


def _rank(draw: Draw, case: Case) -> Case:
    vector = case["x"].reshape(len(case["x"]), -1)[0, : case["x"].shape[1]]
    return case.but(x=draw(any_of(np.resize(vector, case["x"].shape[1]), np.array(vector[0]))))


refusal = Laws(altered, per_dtype=False)
test_refuses_rank = refusal(
    "batch_norm.refuses.rank",
    laws.refuses,
    "One dimension, of C values, and none.",
    how=_rank,
    vary=ALL,
    forms="function",
)


@composite
def misfit(draw, **given: Any):
    """A legal case for a class, and an x with a dimension too many or too few for it."""
    case = draw(cases(**given, ranks=(4, 2, 3)))
    x = case["x"]
    more, fewer = x[..., None], x[..., 0]
    return case, {2: fewer, 3: more, 4: draw(any_of(fewer, more))}[x.ndim]


def _takes_any_rank(subject: Trial, case: tuple[Case, np.ndarray]) -> None:
    legal, x = case
    if x.ndim < 2 or x.size <= x.shape[1]:  # no axis of channels, or one value for each, which other checks judge
        return
    subject.expect(subject.build(legal)(x), expected(legal.but(x=x))[0])


@requirement(
    "batch_norm.refuses.module-rank", misfit, forms="class", per_dtype=False, alternatives={"any": _takes_any_rank}
)
def test_refuses_module_rank(subject: Trial, case: tuple[Case, np.ndarray]) -> None:
    """One and four dimensions for BatchNorm1d, three and five for BatchNorm2d."""
    legal, x = case
    layer = subject.build(legal)
    try:
        y = layer(x)
    except Mismatch:
        return
    raise Mismatch(f"accepted x of shape {x.shape}, and returned shape {y.shape}; expected an exception", y)


test_refuses_channels = refusal(
    "batch_norm.refuses.channels",
    laws.refuses,
    "One channel too many or too few, or one alone.",
    how=channels,
    vary=ALL,
)


def _length(name: str, *of: int) -> Any:
    """A vector of 1, of C + 1 or of other lengths."""

    def how(draw: Draw, case: Case) -> Case:
        c = case["x"].shape[1]
        return case.but(**{name: np.ones(draw(any_of(1, c + 1, *of)), case["x"].dtype)})

    return how


def _vectors(name: str, *of: int) -> dict[str, Any]:
    """The choices of a refusal of a vector: there are at least two channels, so that a length of 1 is wrong."""
    return {"how": _length(name, *of), "channels": (2, 3), "forms": "function", "per_dtype": False}


test_refuses_running_mean = refusal(
    "batch_norm.refuses.running-mean",
    laws.refuses,
    "Of another length than C, in training and in evaluation.",
    cases=altered,
    **_vectors("running_mean", 0),
)
test_refuses_running_var = refusal(
    "batch_norm.refuses.running-var",
    laws.refuses,
    "Of another length than C, in training and in evaluation.",
    cases=altered,
    **_vectors("running_var", 0),
)
test_refuses_weight = refusal(
    "batch_norm.refuses.weight",
    laws.refuses,
    "Of another length than C.",
    cases=altered,
    needs="weight",
    **_vectors("weight"),
)
test_refuses_bias = refusal(
    "batch_norm.refuses.bias",
    laws.refuses,
    "Of another length than C.",
    cases=altered,
    needs="bias",
    **_vectors("bias"),
)


def _absent(draw: Draw, case: Case) -> Case:
    names = draw(any_of(STATISTICS, STATISTICS[:1], STATISTICS[1:]))
    return case.but(**dict.fromkeys(names))


test_refuses_absent = refusal(
    "batch_norm.refuses.absent",
    laws.refuses,
    "No running mean, no running variance, or neither.",
    how=_absent,
    vary=ALL,
    modes=(False,),
    forms="function",
)


def _one_value(draw: Draw, case: Case) -> Case:
    return case.but(x=case["x"][(slice(1), slice(None), *(slice(1) for _ in case["x"].shape[2:]))])


def _gives_bias(subject: Trial, case: Case) -> None:
    bias = np.zeros_like(case["running_mean"]) if case["bias"] is None else case["bias"]
    right = np.broadcast_to(_along(bias, case["x"].ndim), case["x"].shape)
    subject.expect(subject(case), Expected.exactly(right))


test_refuses_one_value = refusal(
    "batch_norm.refuses.one-value",
    laws.refuses,
    "One image of one pixel.",
    how=_one_value,
    vary=ALL,
    modes=(True,),
    needs="training",
    alternatives={"bias": _gives_bias},
)


def _negative_eps(draw: Draw, case: Case) -> Case:
    return case.but(eps=-draw(any_of(1.0, 0.1, 1e-5)))


test_refuses_eps = refusal("batch_norm.refuses.eps", laws.refuses, "Below 0.", how=_negative_eps, needs="eps")


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_equal_and_distinct_sizes() -> None:
    """All sizes equal, and all of them distinct, in each rank."""
    for rank in (2, 3, 4):
        reaches(cases(dtype="float32", ranks=(rank,)), lambda c: len({*c["x"].shape}) == 1 and c["x"].shape[1] > 1)
        reaches(cases(dtype="float32", ranks=(rank,)), lambda c: len({*c["x"].shape}) == rank)


def test_reach_everything_at_once() -> None:
    """Nothing neutral, in both modes, in few channels and in 17; with weight and bias, few values and many."""
    together = CHECKS["batch_norm.arguments.together"].drawn()
    for training in (False, True):

        def with_weight(case: Case) -> bool:
            return case["training"] == training and case["weight"] is not None

        def nothing_neutral(case: Case) -> bool:
            return with_weight(case) and case["momentum"] not in (0, 0.5) and case["eps"] != 1e-5

        reaches(together, lambda c: nothing_neutral(c) and c["x"].shape[1] < 17)
        reaches(together, lambda c: nothing_neutral(c) and c["x"].shape[1] == 17)
        reaches(together, lambda c: with_weight(c) and 1 < _values(c) <= 9 and c["x"].shape[1] > 1)
        reaches(together, lambda c: with_weight(c) and _values(c) >= 24)


def test_reach_few_and_many_values() -> None:
    """Few values, where the divisor shows, and hundreds, where a sum may lose digits.

    No check needs them together with arguments that are not neutral: neither depends on eps, momentum or the weight.
    """
    few, many = (CHECKS[f"batch_norm.{name}"].drawn() for name in ("running-var.update", "train.variance"))
    reaches(few, lambda c: 1 < _values(c) <= 5 and c["x"].shape[1] > 1)
    reaches(many, lambda c: _values(c) >= 100)


def _values(case: Case) -> int:
    """The number of values in each channel."""
    return case["x"].size // case["x"].shape[1]


def test_reach_variance_of_the_size_of_eps() -> None:
    """Batch variances below and above eps; with the smallest eps, of the first channel and of any."""
    strategy = CHECKS["batch_norm.eps.inside-root"].drawn()
    for corner in (lambda v, eps: 0 < v < eps, lambda v, eps: v > eps):
        reaches(strategy, lambda c: c["training"] and corner(c["x"][:, 0].var(), c["eps"]))

    def smallest(case: Case) -> bool:
        return case["training"] and case["eps"] == 1e-5

    reaches(strategy, lambda c: smallest(c) and 0 < c["x"][:, 0].var() < 1e-5)
    reaches(strategy, lambda c: smallest(c) and c["x"].var((0, *range(2, c["x"].ndim))).max() > 1e-5)
    reaches(CHECKS["batch_norm.defaults.eps"].drawn(), lambda c: c["training"] and 0 < c["x"][:, 0].var() < 1e-5)


def test_reach_cotangents_that_tell() -> None:
    """In both modes: none of its elements 0, in channels of more than four values; and one element per channel."""
    strategy = gradients(dtype="float32", lacks=frozenset(), vary=ALL)

    for training in (False, True):
        reaches(
            strategy,
            lambda c: c["training"] == training and c["x"][:, 0].size > 4 and bool(np.all(c["cotangent"])),
        )
        reaches(
            strategy,
            lambda c: (
                c["training"] == training
                and bool(np.all((c["cotangent"].swapaxes(0, 1) != 0).reshape(c["x"].shape[1], -1).sum(1) == 1))
            ),
        )


def test_reach_absent_weight_and_bias() -> None:
    """Both absent; the function's check takes them away one by one."""
    reaches(cases(dtype="float32", vary=("weight",)), lambda c: c["weight"] is None and c["bias"] is None)

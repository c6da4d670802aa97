"""The requirements of spec/resnet34.md, in the page's order. How the weights are drawn: wiring.py."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from nnspec.adapters.subject import Lacks
from nnspec.conformance import requirements as pages
from nnspec.conformance.bounds import wiring
from nnspec.conformance.bounds.arithmetic import Accuracy
from nnspec.conformance.bounds.residual import KEEPING, Run
from nnspec.conformance.bounds.rule import Array, Expected, by_class
from nnspec.conformance.bounds.running_error import Approximate
from nnspec.conformance.case import Case
from nnspec.conformance.checks import domains, laws, laws_of_gradients, laws_of_memory, starts
from nnspec.conformance.checks.within import allowed, image_side, legal_size
from nnspec.conformance.drawing import Decision, any_of, composite, integers, legal, reaches
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.source import literal
from nnspec.conformance.trial.trial import Built, Trial

DEFAULTS = {"in_channels": 3, "num_classes": 1000}
SCORES = 512  # of the network: as many as there are means, each of which a score can show
SIZES = ((33, 47), (32, 32), (40, 64))  # rows and columns of images; of the first, 2×2 pixels reach the last stage


def requirement(identifier: str, cases: Callable[..., Any], **choices: Any) -> Callable[[Callable[..., None]], Any]:
    """As for every block; but cases are few, and a script that did all the steps again would be 21.8 million long."""

    def decorate(body: Callable[..., None]) -> Any:
        @functools.wraps(body)
        def judge(subject: Trial, case: Case) -> None:
            try:
                body(subject, case)
            except Mismatch as mismatch:
                mismatch.end = mismatch.end or []
                raise

        return pages.requirement(identifier, cases, **{"effort": 10, **choices})(judge)

    return decorate


@composite
def cases(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    vary: tuple[str, ...] = (),
    sizes: tuple[tuple[int, int], ...] = SIZES,
    batch: tuple[int, ...] = (1, 2),
    training: bool = False,
):
    """An image and the seed of the weights, which are too many to carry about. What varies: see wiring.py."""
    allowed(draw, "training", [training])
    images, (rows, columns) = legal(draw, "N", draw(any_of(*batch)), least=min(batch)), draw(any_of(*sizes))
    rows = image_side(draw, "H", rows)
    size = (rows, image_side(draw, "W", columns, rows=rows))
    channels, scores = legal(draw, "in_channels", 3), legal(draw, "num_classes", SCORES)
    seed = draw(integers(0, 2**16 - 1))
    x = wiring.image(seed, (images, channels, *size), dtype)
    return Case("resnet34", {"x": x}, {"seed": seed, "vary": vary, "training": training, "num_classes": scores})


def others(case: Case) -> dict[str, Array]:
    """The state that a case means, without the convolutions' kernels: those are `kernels(seed % 4)`."""
    x = case["x"]
    return wiring.others(case["seed"], channels(case), case["vary"], case["training"], x.dtype, case["num_classes"])


def channels(case: Case) -> int:
    """The channels of the images."""
    return int(case["x"].shape[1])


@functools.cache
def kernels(seed: int, in_channels: int = 3) -> dict[str, wiring.Copies]:
    """Four sets of them are enough, as long as all else varies."""
    return wiring.kernels(seed, in_channels)


def kernels_for(case: Case) -> dict[str, wiring.Copies]:
    """The kernels that a case means."""
    return kernels(case["seed"] % 4, channels(case))


def run(case: Case, **keeping: Any) -> tuple[Expected, dict[str, Expected]]:
    """The scores, and the statistics of the norms after the call."""
    entries = kernels_for(case) | others(case)

    def under(accuracy: Accuracy) -> dict[str, Expected]:
        once = Run(entries, case["training"], accuracy=accuracy, **keeping)
        return {"y": once.network(Approximate.given(case["x"], accuracy)).expected, **once.statistics}

    statistics = by_class(under)
    return statistics.pop("y"), statistics


# dtype and channels of the images -> which kernels the arrays hold, and the arrays
_arrays: dict[tuple[str, int], tuple[int, dict[str, Array]]] = {}


def dense(case: Case, dtype: str) -> dict[str, Array]:
    """The kernels as arrays, in which those of the case before are replaced: to make new arrays takes longer."""
    seed, key = case["seed"] % 4, (dtype, channels(case))
    if key not in _arrays:
        _arrays[key] = seed, {name: np.zeros(copies.shape, dtype) for name, copies in kernels_for(case).items()}
    before, arrays = _arrays[key]
    for name, copies in kernels_for(case).items():
        arrays[name][kernels(before, channels(case))[name].places] = 0
        arrays[name][copies.places] = copies.value
    _arrays[key] = seed, arrays
    return arrays


_made: list[tuple[Any, Any]] = []  # the last two networks, one per dtype: to make one takes longer than to judge it


def made(subject: Trial, case: Case) -> Any:
    """A network for a case, with whatever state and in whatever mode."""
    sizes = {"in_channels": channels(case), "num_classes": case["num_classes"]}
    key = (subject.subject, subject.dtype, sizes)
    module = next((module for known, module in _made if known == key), None)
    if module is None:
        module = subject.new("resnet34", **sizes)
        _made[:] = [(key, module), *_made[:1]]
    return module


def network(subject: Trial, case: Case) -> Trial:
    """The subject with a network for all calls, in evaluation or training, and with all of the case's state loaded."""
    module = made(subject, case)
    entries = dense(case, subject.dtype) | others(case)
    with subject.watched(case, "a state loaded"):
        if absent := subject.subject.roles("resnet34", type(module), entries, module).absent:
            raise Mismatch(f"there is no state entry in the role of {absent[0]}")
        subject.prepare("resnet34", module, entries, case["training"])
    return replace(subject, module=module)


def keys(case: Case) -> list[str]:
    """The keys of all that a case loads."""
    return [*kernels_for(case), *others(case)]


def equals_reference(subject: Trial, case: Case) -> None:
    """The one comparison behind every requirement on values."""

    def told(mismatch: Mismatch) -> Mismatch:
        mismatch.steps, mismatch.end = [], _script(case, mismatch.expected or expected)
        return mismatch

    expected, _ = run(case)
    subject.expect(network(subject, case)(case), expected, told=told)


def _script(case: Case, expected: Expected) -> list[str]:
    """The program that draws the weights anew."""
    seed, dtype, training = case["seed"], case["x"].dtype.name, case["training"]
    inputs, scores = channels(case), case["num_classes"]
    return [
        *inspect.getsource(wiring).splitlines(),
        "",
        f"entries = {{key: dense(copies, {dtype!r}) for key, copies in kernels({seed % 4}, {inputs}).items()}}",
        f"entries |= others({seed}, {inputs}, {case['vary']}, {training}, {dtype!r}, {scores})",
        f"sizes = {{'in_channels': {inputs}, 'num_classes': {scores}}}",
        f"network = construct(ResNet34, (), sizes, np.dtype({dtype!r}))",
        "load_entries(network, entries)",
        f"set_training(network, {training})",
        f"actual = to_numpy(network(to_native(image({seed}, {case['x'].shape}, {dtype!r}))))",
        f"expected = {literal(np.asarray(expected.value, np.float64))}",
        f"bound = {literal(np.asarray(expected.within(), np.float64))}",
        'print("expected", expected, "actual", actual, sep="\\n")',
        "same = actual.shape == expected.shape and np.all(abs(actual - expected) <= bound)",
        'sys.exit(0 if same else "the scores differ from what the specification says")',
    ]


# -- values ------------------------------------------------------------------------------------------------------------


@requirement("resnet34.stem.value", cases, vary=("stem", "first"), per_dtype=False)
def test_stem_value(subject: Trial, case: Case) -> None:
    """With branches of zeros, but for the first, which alone tells the stem's relu from its own, the scores show it."""
    equals_reference(subject, case)


@requirement("resnet34.stem.pool", cases, per_dtype=False)
def test_stem_pool(subject: Trial, case: Case) -> None:
    """With branches of zeros and norms that do next to nothing, the scores show the pool."""
    equals_reference(subject, case)


@composite
def stages(draw, *, dtype: str, lacks: frozenset[str]):
    """One of the four stages of a new network; 0 is the stem."""
    return Case("resnet34", {}, {"stage": draw(integers(0, 4))})


_new: list[tuple[Any, dict[str, Array]]] = []  # the state of the new network that was made last


def sizes_within(subject: Trial) -> dict[str, int]:
    """The default sizes of a network, or those in their place that the subject's domain allows."""
    domain = subject.subject.domain("resnet34")
    return {name: legal_size(domain, name, n) for name, n in DEFAULTS.items()}


def new(subject: Trial) -> dict[str, Array]:
    """The state of a new network of the default size."""
    key = (subject.subject, subject.dtype)
    if not _new or _new[0][0] != key:
        sizes: dict[str, Any] = sizes_within(subject)
        module = subject.new("resnet34", **(sizes if sizes != DEFAULTS else {}))
        _new[:] = [(key, subject.subject.framework.state(module))]
    subject.seen.append(("state", _new[0][1]))
    return _new[0][1]


def kernels_of(subject: Trial, stage: int) -> Counter[tuple[int, ...]]:
    """The shapes of a stage's kernels: those of 3×3 with as many outputs as it has channels, or the stem's."""
    size, outputs = (7, 64) if stage == 0 else (3, wiring.STAGES[stage - 1][0])
    found = Counter(a.shape for a in new(subject).values() if a.ndim == 4)
    return Counter({shape: n for shape, n in found.items() if shape[0] == outputs and shape[2:] == (size, size)})


@requirement("resnet34.stages.lengths", stages, per_dtype=False, effort=1)
def test_stages_lengths(subject: Trial, case: Case) -> None:
    """Two convolutions of 3×3 for every block."""
    actual = kernels_of(subject, case["stage"]).total()
    expected = 2 * wiring.STAGES[case["stage"] - 1][1] if case["stage"] else 1
    if actual != expected:
        what = f"stage {case['stage']}" if case["stage"] else "the stem"
        raise Mismatch(f"{what} has {actual} convolutions (3×3; the stem's are 7×7), expected {expected}")


@requirement("resnet34.stages.channels", stages, per_dtype=False, effort=1)
def test_stages_channels(subject: Trial, case: Case) -> None:
    """All of a stage's convolutions have its channels, going in and coming out, but for what goes into the first."""
    stage = case["stage"]
    convolutions = wiring.convolutions(sizes_within(subject)["in_channels"])
    drawn = [shape for name, shape in convolutions if name.startswith(f"layer{stage}" if stage else "conv1")]
    actual, expected = kernels_of(subject, stage), Counter(shape for shape in drawn if shape[2] > 1)
    if actual != expected:
        raise Mismatch(f"stage {stage} has kernels of shapes {dict(actual)}, expected {dict(expected)}")


@requirement("resnet34.stages.stride", cases, per_dtype=False)
def test_stages_stride(subject: Trial, case: Case) -> None:
    """With branches of zeros, the scores show which pixels the projections take."""
    equals_reference(subject, case)


@requirement("resnet34.blocks.value", cases, vary=("stem", "blocks", "scores"))
def test_blocks_value(subject: Trial, case: Case) -> None:
    """Everything at once."""
    equals_reference(subject, case)


@requirement("resnet34.pool.global", cases, sizes=((225, 33), (1, 1), (64, 97), (100, 1)), batch=(1,), per_dtype=False)
def test_pool_global(subject: Trial, case: Case) -> None:
    """Images of any size, and the mean over what is left of them."""
    equals_reference(subject, case)


@requirement("resnet34.scores.linear", cases, vary=("scores",), per_dtype=False)
def test_scores_linear(subject: Trial, case: Case) -> None:
    """Weights and a bias on the means, and nothing after it."""
    equals_reference(subject, case)


# -- sizes and state ---------------------------------------------------------------------------------------------------


@composite
def networks(draw, *, dtype: str, lacks: frozenset[str]):
    """A new network's sizes, and an image for it."""
    in_channels, num_classes = draw(any_of((1, 10), (3, 1000), (4, 1), (2, 7)))
    in_channels, num_classes = legal(draw, "in_channels", in_channels), legal(draw, "num_classes", num_classes)
    rows = image_side(draw, "H", 32)
    images, columns = legal(draw, "N", draw(integers(1, 2))), image_side(draw, "W", 33, rows=rows)
    x = wiring.image(0, (images, in_channels, rows, columns), dtype)
    return Case("resnet34", {"x": x}, {"in_channels": in_channels, "num_classes": num_classes})


def _untrained(subject: Trial, case: Case) -> Array:
    """The scores that a new network of the case's sizes gives."""
    module = subject.new("resnet34", in_channels=case["in_channels"], num_classes=case["num_classes"])
    with subject.watched(case, "a change of mode"):
        subject.subject.framework.set_training(module, False)
    return replace(subject, module=module)(case)


@requirement("resnet34.in-channels.respected", networks, per_dtype=False)
def test_in_channels_respected(subject: Trial, case: Case) -> None:
    """A network for images of 1, 2, 3 or 4 channels takes them."""
    _untrained(subject, case)


@requirement("resnet34.num-classes.respected", networks, per_dtype=False)
def test_num_classes_respected(subject: Trial, case: Case) -> None:
    """A network for so many classes gives so many scores."""
    inputs, shape = sizes_within(subject)["in_channels"], case["x"].shape
    case = case.but(in_channels=inputs, x=np.ones((len(case["x"]), inputs, *shape[2:]), case["x"].dtype))
    actual, expected = _untrained(subject, case).shape[-1:], (case["num_classes"],)
    if actual != expected:
        raise Mismatch(f"{actual} scores for each image, expected {expected}")


def default(*, dtype: str, lacks: frozenset[str]) -> Decision[Case]:
    """There is but one."""
    return any_of(Case("resnet34", {}, {}))


@requirement("resnet34.defaults.sizes", default, per_dtype=False, effort=10_000)
def test_defaults_sizes(subject: Trial, case: Case) -> None:
    """3 channels, 1000 classes."""
    subject.stay_inside("resnet34", DEFAULTS)
    shapes = {a.shape for a in new(subject).values()}
    for what, expected in (("a stem for 3 channels", (64, 3, 7, 7)), ("1000 scores", (1000, 512))):
        if expected not in shapes:
            raise Mismatch(f"the default network has no array of shape {expected}: expected {what}")


def described(case: Case) -> Counter[tuple[int, ...]]:
    """How often each shape occurs in the state of a network of the case's sizes."""
    expected = Counter({(): 36, (case["num_classes"], 512): 1, (case["num_classes"],): 1})
    for _, shape in wiring.convolutions(case["in_channels"]):
        expected += {shape: 1, shape[:1]: 4}
    return expected


_shapes_by_key: list[tuple[Any, dict[str, tuple[int, ...]]]] = []


def shapes_by_key(subject: Trial, case: Case) -> dict[str, tuple[int, ...]]:
    """What the state of a new network of the case's sizes looks like."""
    sizes = {name: case[name] for name in ("in_channels", "num_classes")}
    key = (subject.subject, subject.dtype, sizes)
    found = next((shapes for known, shapes in _shapes_by_key if known == key), None)
    if found is None:
        state = subject.subject.framework.state(subject.new("resnet34", **sizes))
        found = {name: a.shape for name, a in state.items()}
        _shapes_by_key[:] = [(key, found), *_shapes_by_key[:3]]
    subject.seen.append(("shape", found))
    return found


@requirement("resnet34.parameters.count", networks, per_dtype=False)
def test_parameters_count(subject: Trial, case: Case) -> None:
    """As many numbers as the kernels, the norms' four vectors and the linear layer have."""
    actual, expected = (
        sum(int(np.prod(shape)) * n for shape, n in shapes.items() if shape)
        for shapes in (Counter(shapes_by_key(subject, case).values()), described(case))
    )
    if actual != expected:
        raise Mismatch(f"{actual} numbers in the state, expected {expected}, of which 17,024 are running statistics")


@requirement("resnet34.state.complete", networks, per_dtype=False)
def test_state_complete(subject: Trial, case: Case) -> None:
    """218 entries; without the norms' counts 182."""
    entries = len(shapes_by_key(subject, case))
    if entries not in (218, 182):
        raise Mismatch(f"the state has {entries} entries, expected 218")


@requirement("resnet34.state.shapes", networks, per_dtype=False)
def test_state_shapes(subject: Trial, case: Case) -> None:
    """Each shape as often as the blocks have it. (The norms' counts are no matter here.)"""
    actual, expected = Counter(shapes_by_key(subject, case).values()), described(case)
    for shape in sorted(s for s in actual | expected if s):
        if actual[shape] != expected[shape]:
            raise Mismatch(f"{actual[shape]} entries of shape {shape}, expected {expected[shape]}")


@requirement("resnet34.state.keys", networks, per_dtype=False)
def test_state_keys(subject: Trial, case: Case) -> None:
    """torchvision's keys, with the norms' counts or without."""
    expected = {"fc.weight", "fc.bias"}
    for name, _ in wiring.convolutions(case["in_channels"]):
        parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        expected |= {f"{name}.weight", *(f"{wiring.norm_after(name)}.{part}" for part in parts)}
    actual = set(shapes_by_key(subject, case))
    counted = {key for key in expected if key.endswith("num_batches_tracked")}
    if actual not in (expected, expected - counted):
        more, fewer = (", ".join(sorted(keys)[:5]) or "none" for keys in (actual - expected, expected - actual))
        raise Mismatch(f"keys that the state should not have: {more}; keys that it should have: {fewer}")


@requirement("resnet34.start.convolutions", stages, per_dtype=False, effort=1)
def test_start_convolutions(subject: Trial, case: Case) -> None:
    """Mean, deviation, and the 4.55 % beyond two deviations: each within six standard errors."""
    for shape in kernels_of(subject, case["stage"]):
        drawn = np.concatenate([a.ravel() for a in new(subject).values() if a.shape == shape]).astype(np.float64)
        n, sigma = drawn.size, np.sqrt(2 / (shape[0] * shape[2] * shape[3]))
        for what, actual, expected, error in (
            ("the mean", drawn.mean(), 0.0, sigma / np.sqrt(n)),
            ("the standard deviation", drawn.std(), sigma, sigma / np.sqrt(2 * n)),
            ("the part beyond two of them", (abs(drawn) > 2 * sigma).mean(), 0.0455, np.sqrt(0.0455 * 0.9545 / n)),
        ):
            if abs(actual - expected) > 6 * error:
                raise Mismatch(f"{what} of kernels of shape {shape} is {actual:.5f}, expected {expected:.5f}")


@requirement("resnet34.start.norms", stages, per_dtype=False, effort=1)
def test_start_norms(subject: Trial, case: Case) -> None:
    """In a new network, half of a norm's four vectors are ones and half are zeros."""
    channels = wiring.STAGES[max(0, case["stage"] - 1)][0]
    vectors = [a for a in new(subject).values() if a.shape == (channels,)]
    ones, zeros = (sum(bool(np.all(a == value)) for a in vectors) for value in (1, 0))
    norms = described(Case("resnet34", {}, {"in_channels": 3, "num_classes": 1000}))[channels,] // 4
    if (ones, zeros) != (2 * norms, 2 * norms):
        raise Mismatch(
            f"{norms} norms of {channels} channels have {ones} vectors of ones (weight, variance) and {zeros} of zeros "
            f"(bias, mean), expected {2 * norms} of each"
        )


@requirement("resnet34.init.range", stages, per_dtype=False, effort=1)
def test_init_range(subject: Trial, case: Case) -> None:
    """The linear layer of a new network, and the kernels of one stage."""
    state = new(subject).values()
    scores = {
        name: a for a in state for name, shape in (("weight", (1000, 512)), ("bias", (1000,))) if a.shape == shape
    }
    if len(scores) < 2:
        raise Lacks("there is no linear layer of 512 to 1000")
    starts.are_uniform(scores, 512)
    for shape in kernels_of(subject, case["stage"]):
        for number, kernels in enumerate(a for a in state if a.shape == shape):
            starts.differ(kernels, f"convolution {number} with kernels of shape {shape}")


# -- modes -------------------------------------------------------------------------------------------------------------


@requirement("resnet34.mode.train", cases, vary=("stem", "blocks"), sizes=((33, 47),), batch=(2,), training=True)
def test_mode_train(subject: Trial, case: Case) -> None:
    """The statistics of the batch count, and move those kept."""
    layer = network(subject, case)
    y, statistics = run(case)
    before = layer.entries(case.stem, layer.module, keys(case))
    subject.expect(layer(case), y)
    after = layer.entries(case.stem, layer.module, keys(case))
    if missing := [key for key in statistics if key not in after]:
        raise Mismatch(f"there is no {missing[0]}")
    others_kept = (run(case, momentum=momentum, biased=biased)[1] for momentum, biased in KEEPING[1:])
    ways = (list(way.values()) for way in chain([statistics], others_kept))
    laws.follows(subject, [after[key] for key in statistics], ways, [f"{key}, after the call," for key in statistics])
    for key in (key for key in after if key.endswith("num_batches_tracked")):
        subject.expect(after[key], Expected.exactly(before[key] + 1), f"{key}, after the call,")


@requirement("resnet34.mode.eval", cases, vary=("stem", "blocks"))
def test_mode_eval(subject: Trial, case: Case) -> None:
    """The statistics kept count, and stay."""
    layer = network(subject, case)
    before = layer.entries(case.stem, layer.module, keys(case))
    subject.expect(layer(case), run(case)[0])
    after = layer.entries(case.stem, layer.module, keys(case))
    for key, value in before.items():
        if key not in after or not np.array_equal(value, after[key]):
            raise Mismatch(f"{key} is another after a call in evaluation")


# -- results and operands ----------------------------------------------------------------------------------------------

everything = functools.partial(cases, vary=("stem", "blocks"))


@requirement("resnet34.output.size", everything, per_dtype=False)
def test_output_size(subject: Trial, case: Case) -> None:
    """(N, num_classes)"""
    actual, expected = network(subject, case)(case).shape, (len(case["x"]), case["num_classes"])
    if actual != expected:
        message = f"the result has shape {actual}, expected {expected}"
        raise Mismatch(message, holds=f"result.shape == {expected}")


law = laws.Laws(everything, lambda case: run(case)[0], called=network, effort=10)

test_output_dtype = law("resnet34.output.dtype", laws.keeps_dtype, sizes=((32, 32),), batch=(1,))
test_output_fresh = law("resnet34.output.fresh", laws.is_fresh, per_dtype=False)
test_input_unchanged = law("resnet34.input.unchanged", laws.leaves_operands, per_dtype=False)
test_input_layout = law("resnet34.input.layout", laws.ignores_layout, per_dtype=False)
test_memory_in_bounds = law("resnet34.memory.in-bounds", laws_of_memory.stays_in_bounds, per_dtype=False)
test_memory_all_written = law("resnet34.memory.all-written", laws_of_memory.writes_everything, per_dtype=False)
test_memory_alignment = law("resnet34.memory.alignment", laws_of_memory.ignores_alignment, per_dtype=False)
test_batch_independent = law("resnet34.batch.independent", laws.judges_images_alone, batch=(2,), per_dtype=False)
test_batch_empty = law("resnet34.batch.empty", laws.returns_no_images, per_dtype=False)


@requirement("resnet34.call.stateless", everything, sizes=((32, 32), (33, 47)), per_dtype=False)
def test_call_stateless(subject: Trial, case: Case) -> None:
    """A call on an image of another size changes nothing."""
    larger = case.but(x=np.pad(case["x"], ((0, 0), (0, 0), (16, 17), (0, 32))))
    laws.forgets(network(subject, case), (case, larger), lambda c: run(c)[0])


@requirement("resnet34.domain.outside", domains.outside, of=cases, needs="domain", per_dtype=False)
def test_domain_outside(subject: Trial, case: Case) -> None:
    """One size outside what the subject declares."""
    right = laws.law()(lambda inside, case, _: equals_reference(inside, case))
    domains.right_or_refused(right)(subject, case, None)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(subject: Trial, module: Any, case: Case) -> dict[str, Array]:
    """Of x and, by key, of every parameter, for the cotangent of the scores that the case's seed stands for."""
    return Built(subject, module, case, keys(case)).gradients(case["x"], cotangent(case))


def cotangent(case: Case) -> Array:
    """Of the scores."""
    return wiring.image(case["seed"] + 1, (len(case["x"]), case["num_classes"]), case["x"].dtype)


def small(*, dtype: str, lacks: frozenset[str]) -> Decision[Case]:
    """Small images; of the parameters' gradients nothing but their being there is asked, whatever their values."""
    return cases(dtype=dtype, lacks=lacks, sizes=((33, 33),), batch=(2,), training=True)


@requirement("resnet34.gradient.parameters", small, needs="vjp", per_dtype=False)
def test_gradient_parameters(subject: Trial, case: Case) -> None:
    """As many gradients of each shape as there are parameters of it, whatever their keys."""
    found = gradients(subject, made(subject, case), case)
    actual = Counter(g.shape for key, g in found.items() if key != "x")
    expected = Counter({(case["num_classes"], 512): 1, (case["num_classes"],): 1})
    for _, kernels in wiring.convolutions(channels(case)):
        expected += {kernels: 1, kernels[:1]: 2}
    for shape in sorted(actual | expected):
        if actual[shape] != expected[shape]:
            raise Mismatch(f"{actual[shape]} gradients of shape {shape}, expected {expected[shape]}")


@requirement(
    "resnet34.gradient.value", cases, vary=("stem", "blocks", "scores"), batch=(1,), needs="vjp", per_dtype=False
)
def test_gradient_value(subject: Trial, case: Case) -> None:
    """In evaluation: of x, of the norms, of the linear layer, of the stem's kernels and those of one more convolution.

    Errors are carried through the network and back. In training they grow too large for that; see lockstep_back.py.
    """
    names = [name for name, _ in wiring.convolutions(channels(case))]
    some = {names[0], names[1 + case["seed"] % (len(names) - 1)]}
    entries = kernels_for(case) | others(case)

    def under(accuracy: Accuracy) -> dict[str, Expected]:
        once = Run(entries, of_kernels=some, accuracy=accuracy)
        given = (Approximate.given(a, accuracy) for a in (cotangent(case), case["x"]))
        return {"x": once.network_vjp(*given).expected, **once.gradients}

    expected = by_class(under)
    laws_of_gradients.all_equal_reference(subject, gradients(subject, network(subject, case).module, case), expected)


# -- refusals ----------------------------------------------------------------------------------------------------------


@requirement("resnet34.refuses.channels", cases, per_dtype=False)
def test_refuses_channels(subject: Trial, case: Case) -> None:
    """One channel, two, four."""
    layer, x = network(subject, case), case["x"]
    for channels in ([0], [0, 1], [0, 1, 2, 0]):
        layer.refuses(case.but(x=x[:, channels]))


@requirement("resnet34.refuses.rank", cases, per_dtype=False)
def test_refuses_rank(subject: Trial, case: Case) -> None:
    """Two, three and five dimensions."""
    layer, x = network(subject, case), case["x"]
    for wrong in (x[0], x[0, 0], x[None]):
        layer.refuses(case.but(x=wrong))


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_odd_images_and_single_ones() -> None:
    """Rows and columns that are odd and differ; one image, two; weights of each of the four kinds."""
    for corner in (
        lambda c: c["x"].shape[2] % 2 and c["x"].shape[2] != c["x"].shape[3],
        lambda c: len(c["x"]) == 1,
        lambda c: len(c["x"]) == 2 and c["seed"] % 4 == 3,
    ):
        reaches(cases(dtype="float32"), corner)


def test_reach_every_block() -> None:
    """Were any block left out, more than one score in eight would be another by far more than its bound."""
    case = Case(
        "resnet34",
        {"x": wiring.image(0, (1, 3, 33, 47), "float32")},
        {"seed": 0, "vary": ("stem", "blocks"), "training": False, "num_classes": SCORES},
    )
    expected, _ = run(case)
    for key in others(case):
        if key.endswith("bn2.weight"):
            shortened = others(case) | {key: np.zeros_like(others(case)[key])}
            y = Run(kernels(0) | shortened).network(Approximate.given(case["x"])).value
            assert (np.abs(y - expected.value) > 1000 * expected.within()).mean() > 1 / 8, key

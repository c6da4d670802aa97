"""One training step of a residual network judged node by node: forwards, as in lockstep.py, and on the way back.

Every node's cotangent, and the gradient of every parameter, is held against what the subject itself handed to the node
on both ways. End to end gradients could not be judged: one value that rounding moves over a relu's kink is enough to
change all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from lockstep import Lockstep, Seen, Verdict, judge
from nnspec.adapters.contract import Adapter
from nnspec.conformance.bounds import batch_norm as rule_batch_norm
from nnspec.conformance.bounds.arithmetic import Accuracy, wide
from nnspec.conformance.bounds.rule import Array, Bound, Expected, multilinear, sum_bound
from nnspec.conformance.bounds.wiring import STAGES
from nnspec.conformance.case import Case
from nnspec.reference.conv2d import conv2d_vjp
from nnspec.reference.linear import linear_vjp
from nnspec.reference.max_pool2d import max_pool2d_vjp
from nnspec.reference.relu import relu, relu_vjp
from nnspec.reference.resnet34 import POOL


@dataclass(frozen=True)
class Step:
    """What was seen of one call and its way back: of each module, and the gradients of x and, by key, of parameters."""

    seen: Seen
    back: Seen  # name of a module -> the cotangent of what came out, that of what went in
    gradients: Mapping[str, Array]
    cotangent: Array  # of the scores, as it was given


def observe_step(framework: Adapter, network: Any, x: Array, cotangent: Array) -> Step:
    """A call and its way back, and what passed the network's modules meanwhile; of either framework's.

    A module that is called more than once is left out, as in `lockstep.observe`.
    """
    seen: dict[str, tuple[Array, Array]] = {}
    back: dict[str, tuple[Array, Array]] = {}
    repeated: set[str] = set()

    def note(where: dict[str, tuple[Array, Array]], name: str, *pair: Any) -> None:
        repeated.update({name} & where.keys())
        where[name] = tuple(np.array(framework.to_numpy(a)) for a in pair)  # type: ignore[assignment]

    watch = _hook if hasattr(network, "register_full_backward_hook") else _wrap
    undo = [
        watch(module, functools.partial(note, seen, name), functools.partial(note, back, name))
        for name, module in network.named_modules()
    ]
    try:
        given = (framework.to_native(np.array(a)) for a in (x, cotangent))
        found = framework.differentiate_module(network, *given)
        gradients = {key: np.array(framework.to_numpy(g)) for key, g in found.items() if g is not None}
    finally:
        for restore in undo:
            restore()
    seen, back = ({n: pair for n, pair in where.items() if n not in repeated} for where in (seen, back))
    return Step(seen, back, gradients, cotangent)


Note = Callable[[Any, Any], None]


def _hook(module: Any, note: Note, note_back: Note) -> Callable[[], None]:
    """torch's way."""
    handles = (
        module.register_forward_hook(lambda _, given, result: note(given[0], result)),
        module.register_full_backward_hook(lambda _, of_given, of_result: note_back(of_result[0], of_given[0])),
    )

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


def _wrap(module: Any, note: Note, note_back: Note) -> Callable[[], None]:
    """For a module whose method `vjp` gives the result and the way back."""
    vjp, own = module.vjp, vars(module).get("vjp")

    def noting(x: Any) -> Any:
        given = np.array(x)  # as it is now: what comes later may write to it
        y, pull = vjp(x)
        note(given, y)

        def noting_pull(cotangent: Any) -> Any:
            of_result = np.array(cotangent)
            of_given = pull(cotangent)
            note_back(of_result, of_given)
            return of_given

        return y, noting_pull

    module.vjp = noting
    return lambda: delattr(module, "vjp") if own is None else setattr(module, "vjp", own)


def judge_step(
    step: Step, before: Mapping[str, Array], after: Mapping[str, Array], training: bool = True
) -> Iterator[Verdict]:
    """Every node of a ResNet-34 that has torchvision's names, on both ways, given its state before and after the call.

    KeyError where a module was not called, or more than once, or a parameter has no gradient.
    """
    yield from judge(step.seen, before, after, training)
    network = _Back(step.seen, before, after, training, step)
    yield from network.head_back()
    stages = [(stage, number) for stage, (_, blocks) in enumerate(STAGES, start=1) for number in range(blocks)]
    following = ""
    for stage, number in reversed(stages):
        name = f"layer{stage}.{number}"
        if following:
            yield network.passed(name, step.back[following][1])
        yield from network.block_back(name, 2 if stage > 1 and number == 0 else 1)
        following = name
    yield from network.stem_back(step.back[following][1])
    yield network.node("x", "cotangent handed on", step.gradients["x"], Expected.exactly(step.back["conv1"][1]))


@dataclass(frozen=True)
class _Back(Lockstep):
    step: Step

    def passed(self, name: str, expected: Array) -> Verdict:
        """The cotangent of a module's result is what came back out of those after it; a relu only masks it."""
        return self.node(name, "cotangent handed on (relu)", self.step.back[name][0], Expected.exactly(expected))

    def parameter(self, key: str, kind: str, expected: Expected) -> Verdict:
        return self.node(key, kind, self.step.gradients[key], expected)

    def head_back(self) -> Iterator[Verdict]:
        """The linear layer, and the mean, which gives every pixel its share: two divisions, or 1/n and a product."""
        yield self.passed("fc", self.step.cotangent)
        g, of_means = self.step.back["fc"]
        x, weight = self.seen["fc"][0], self.before["fc.weight"]
        vjp: Any = linear_vjp
        no_x, no_weight, no_bias = np.zeros(x.shape), np.zeros(weight.shape), np.zeros(len(weight))
        expected = multilinear(lambda g, w: vjp(g, no_x, w)[0], g, weight)
        yield self.node("fc", "linear: x", of_means, expected)
        expected = multilinear(lambda g, x: vjp(g, x, no_weight)[1], g, x)
        yield self.parameter("fc.weight", "linear: weight, bias", expected)
        expected = multilinear(lambda g: vjp(g, no_x, no_weight, no_bias)[2], g)
        yield self.parameter("fc.bias", "linear: weight, bias", expected)
        last = f"layer{len(STAGES)}.{STAGES[-1][1] - 1}"
        _, _, h, w = self.seen[last][1].shape
        share = np.broadcast_to(of_means.astype(wide(x.dtype))[:, :, None, None] / (h * w), self.seen[last][1].shape)

        def bound(accuracy: Accuracy) -> Array:
            form = accuracy.of(x.dtype)
            return 2 * (form.u + form.u_wide) * np.abs(share) + form.eta

        yield self.node(last, "mean: x", self.step.back[last][0], Expected(share, bound))

    def block_back(self, name: str, stride: int) -> Iterator[Verdict]:
        """The relu of the sum, both ways, and the sum of what they give."""
        x, y = self.seen[name]
        g, of_x = self.step.back[name]
        of_sum = relu_vjp(g, y)  # y is positive where the sum was
        yield self.passed(f"{name}.bn2", of_sum)
        yield from self.norm_back(f"{name}.bn2")
        yield self.passed(f"{name}.conv2", self.step.back[f"{name}.bn2"][1])
        yield from self.convolution_back(f"{name}.conv2", 1, 1)
        yield self.passed(f"{name}.bn1", relu_vjp(self.step.back[f"{name}.conv2"][1], self.seen[f"{name}.bn1"][1]))
        yield from self.norm_back(f"{name}.bn1")
        yield self.passed(f"{name}.conv1", self.step.back[f"{name}.bn1"][1])
        yield from self.convolution_back(f"{name}.conv1", stride, 1)
        if stride != 1:
            yield self.passed(f"{name}.downsample.1", of_sum)
            yield from self.norm_back(f"{name}.downsample.1")
            yield self.passed(f"{name}.downsample.0", self.step.back[f"{name}.downsample.1"][1])
            yield from self.convolution_back(f"{name}.downsample.0", stride, 0)
            of_sum = self.step.back[f"{name}.downsample.0"][1]
        total = self.step.back[f"{name}.conv1"][1].astype(wide(x.dtype)) + of_sum

        def bound(accuracy: Accuracy) -> Array:
            form = accuracy.of(x.dtype)
            return (form.u + form.u_wide) * np.abs(total)

        yield self.node(name, "sum of both ways", of_x, Expected(total, bound))

    def stem_back(self, g: Array) -> Iterator[Verdict]:
        """Max pool, where up to four windows overlap, relu, norm and convolution."""
        stem = self.seen["bn1"][1]
        x = relu(stem)

        def scattered(cotangent: Array) -> Array:
            """To the first of the largest; among zeros it does not matter which, for the relu lets none through."""
            return relu_vjp(max_pool2d_vjp(cotangent, x.astype(cotangent.dtype), **POOL), stem)

        value, magnitude = scattered(g.astype(wide(stem.dtype))), scattered(np.abs(g).astype(np.float64))
        windows = scattered(np.ones(g.shape))

        def bound(accuracy: Accuracy) -> Array:
            return np.where(windows > 1, sum_bound(windows, magnitude, accuracy.of(g.dtype)), 0)

        yield self.node("bn1", "max pool: x", self.step.back["bn1"][0], Expected(value, bound))
        yield from self.norm_back("bn1")
        yield self.passed("conv1", self.step.back["bn1"][1])
        yield from self.convolution_back("conv1", 2, 3)

    def norm_back(self, name: str) -> Iterator[Verdict]:
        """By the rule of batch norm's gradients."""
        (x, _), (g, of_x) = self.seen[name], self.step.back[name]
        operands = {key: self.before[f"{name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")}
        case = Case("batch_norm", {"x": x, **operands, "cotangent": g}, {"training": self.training})
        expected = rule_batch_norm.expected_gradients(case)
        yield self.node(name, "batch norm: x", of_x, expected["x"])
        for key in ("weight", "bias"):
            yield self.parameter(f"{name}.{key}", "batch norm: weight, bias", expected[key])

    def convolution_back(self, name: str, stride: int, padding: int) -> Iterator[Verdict]:
        """Both gradients are sums of products, with as many terms as pairs of a tap and an element meet."""
        (x, _), (g, of_x) = self.seen[name], self.step.back[name]
        weight = self.before[f"{name}.weight"]
        vjp: Any = functools.partial(conv2d_vjp, stride=stride, padding=padding)
        values = vjp(*(a.astype(wide(x.dtype)) for a in (g, x, weight)))
        magnitudes = vjp(*(np.abs(a, dtype=np.float64) for a in (g, x, weight)))
        of_x_terms, of_weight_terms, _ = vjp(*(np.ones((1, 1, *a.shape[2:])) for a in (g, x, weight)))

        def bound(terms: Array, magnitude: Array) -> Bound:
            return lambda accuracy: sum_bound(terms, magnitude, accuracy.of(x.dtype))

        expected = Expected(values[0], bound(of_x_terms * len(weight), magnitudes[0]))
        yield self.node(name, "convolution: x", of_x, expected)
        expected = Expected(values[1], bound(of_weight_terms * len(x), magnitudes[1]))
        yield self.parameter(f"{name}.weight", "convolution: weight", expected)

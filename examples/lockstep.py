"""A residual network judged node by node, each on what the subject itself fed to it.

End to end an error grows from layer to layer, and a bound with it, until on real images it says nothing. Node by node
no error is carried on, every bound is as tight as the node's own rule, and a mistake shows where it is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnspec.adapters.contract import Adapter
from nnspec.conformance.bounds import batch_norm as rule_batch_norm
from nnspec.conformance.bounds.arithmetic import CLASS_B, NARROW, Accuracy, narrows, wide
from nnspec.conformance.bounds.rule import Array, Expected, compare, multilinear, sum_bound
from nnspec.conformance.bounds.wiring import STAGES
from nnspec.conformance.case import Case
from nnspec.reference.conv2d import Conv2d, conv2d
from nnspec.reference.linear import linear
from nnspec.reference.max_pool2d import max_pool2d
from nnspec.reference.relu import relu

Seen = Mapping[str, tuple[Array, Array]]  # name of a module -> what went in, what came out


@dataclass(frozen=True)
class Verdict:
    """One node: its name and kind, and the largest error ÷ bound of its elements (above 1: not conforming)."""

    name: str
    kind: str
    worst: float
    accuracy: str = "B"  # the class of accuracy that it was held to


def observe(framework: Adapter, network: Any, x: Array) -> tuple[Array, Seen]:
    """The result of a call, and what went in and out of the network's modules; of either framework's.

    A module that is called more than once, as torch's ReLU may be, is left out: only its last call would be seen.
    """
    seen: dict[str, tuple[Array, Array]] = {}
    repeated: set[str] = set()

    def note(name: str, given: Any, result: Any) -> None:
        repeated.update({name} & seen.keys())
        seen[name] = tuple(np.array(framework.to_numpy(a)) for a in (given, result))  # type: ignore[assignment]

    undo = [framework.watch(module, name, note) for name, module in network.named_modules()]
    try:
        y = framework.to_numpy(network(framework.to_native(x)))
    finally:
        for restore in undo:
            restore()
    return y, {name: pair for name, pair in seen.items() if name not in repeated}


def judge(seen: Seen, before: Mapping[str, Array], after: Mapping[str, Array], training: bool) -> Iterator[Verdict]:
    """Every node of a ResNet-34 that has torchvision's names, given its state before and after the call.

    In 16 bits a node that is not in class B is held to the weaker ones that are open there. KeyError where a module was
    not called, or more than once.
    """
    network = Lockstep(seen, before, after, training)
    yield from _nodes(network)


def _nodes(network: Lockstep) -> Iterator[Verdict]:
    seen = network.seen
    yield from network.convolution("conv1", stride=2, padding=3)
    yield network.link("bn1", seen["conv1"][1])
    yield from network.norm("bn1")
    x = max_pool2d(relu(seen["bn1"][1]), kernel_size=3, stride=2, padding=1)
    for stage, (_, blocks) in enumerate(STAGES, start=1):
        for number in range(blocks):
            name = f"layer{stage}.{number}"
            yield network.link(name, x)
            yield from network.block(name, 2 if stage > 1 and number == 0 else 1)
            x = seen[name][1]
    yield from network.head(x)


@dataclass(frozen=True)
class Lockstep:
    """The nodes of one call: what was seen of its modules, and the state before and after it."""

    seen: Seen
    before: Mapping[str, Array]
    after: Mapping[str, Array]
    training: bool

    def node(self, name: str, kind: str, actual: Array, expected: Expected) -> Verdict:
        """How far off a node is, in units of its bound."""
        if actual.shape != expected.value.shape:
            return Verdict(name, kind, np.inf)
        verdict = self._in_class(CLASS_B, name, kind, actual, expected)
        for weaker in NARROW if narrows(actual.dtype) else ():
            if verdict.worst > 1:
                verdict = self._in_class(Accuracy(weaker), name, kind, actual, expected)
        return verdict

    def _in_class(self, accuracy: Accuracy, name: str, kind: str, actual: Array, expected: Expected) -> Verdict:
        _, wrong, ratio = compare(actual, expected, accuracy)
        infinitely = np.any(wrong & ~(ratio > 1))  # a wrong element that must be exact, or is NaN
        return Verdict(name, kind, np.inf if infinitely else float(ratio.max(initial=0)), accuracy.name)

    def link(self, name: str, expected: Array) -> Verdict:
        """What goes into a module is what came out of the ones before, whose relu and max pool round nothing."""
        return self.node(name, "input (relu, max pool)", self.seen[name][0], Expected.exactly(expected))

    def convolution(self, name: str, stride: int, padding: int) -> Iterator[Verdict]:
        """Sums of products. As many terms as there are taps inside the image: zeros among the values are not told."""
        x, y = self.seen[name]
        weight = self.before[f"{name}.weight"]
        convolve = functools.partial(conv2d, stride=stride, padding=padding)
        value = convolve(x.astype(wide(x.dtype)), weight.astype(wide(x.dtype)))
        magnitude = convolve(np.abs(x, dtype=np.float64), np.abs(weight, dtype=np.float64))
        taps = convolve(np.ones((1, 1, *x.shape[2:])), np.ones((1, 1, *weight.shape[2:])))
        terms = taps * weight.shape[1]
        yield self.node(name, "convolution", y, Expected(value, lambda a: sum_bound(terms, magnitude, a.of(x.dtype))))

    def norm(self, name: str) -> Iterator[Verdict]:
        """By the batch's statistics, which then move those kept, or by those kept, which stay."""
        x, y = self.seen[name]
        operands = {key: self.before[f"{name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")}
        expected = rule_batch_norm.expected(Case("batch_norm", {"x": x, **operands}, {"training": self.training}))
        yield self.node(name, "batch norm", y, expected[0])
        for key, statistic in zip(("running_mean", "running_var"), expected[1:], strict=True):
            yield self.node(f"{name}.{key}", "running statistics", self.after[f"{name}.{key}"], statistic)

    def block(self, name: str, stride: int) -> Iterator[Verdict]:
        """Both convolutions and norms, the relu between them, the shortcut, and the relu of the sum."""
        x, y = self.seen[name]
        first, branch = (self.seen[f"{name}.{norm}"][1] for norm in ("bn1", "bn2"))
        yield self.link(f"{name}.conv1", x)
        yield from self.convolution(f"{name}.conv1", stride, 1)
        yield self.link(f"{name}.bn1", self.seen[f"{name}.conv1"][1])
        yield from self.norm(f"{name}.bn1")
        yield self.link(f"{name}.conv2", relu(first))
        yield from self.convolution(f"{name}.conv2", 1, 1)
        yield self.link(f"{name}.bn2", self.seen[f"{name}.conv2"][1])
        yield from self.norm(f"{name}.bn2")
        shortcut = x
        if stride != 1:
            yield self.link(f"{name}.downsample.0", x)
            yield from self.convolution(f"{name}.downsample.0", stride, 0)
            yield self.link(f"{name}.downsample.1", self.seen[f"{name}.downsample.0"][1])
            yield from self.norm(f"{name}.downsample.1")
            shortcut = self.seen[f"{name}.downsample.1"][1]
        total = branch.astype(wide(x.dtype)) + shortcut
        yield self.node(name, "sum, relu", y, Expected(relu(total), lambda a: a.of(x.dtype).rounding * np.abs(total)))

    def head(self, x: Array) -> Iterator[Verdict]:
        """The mean, n additions and a division, and the linear layer."""
        means, scores = self.seen["fc"]
        n = x.shape[2] * x.shape[3]
        exact = x.astype(wide(x.dtype))

        def bound(accuracy: Accuracy) -> Array:
            form = accuracy.of(x.dtype)
            return ((n + 1) * (form.u + form.u_wide) + form.extra) * np.abs(exact).mean((2, 3))

        yield self.node("avgpool", "mean", means, Expected(exact.mean((2, 3)), bound))
        expected = multilinear(linear, means, self.before["fc.weight"], self.before["fc.bias"])
        yield self.node("fc", "linear", scores, expected)


# -- end to end: a second figure, which gates nothing ------------------------------------------------------------------


def end_to_end(network: Any, x: Array, u: float, runs: int = 4) -> tuple[Array, float]:
    """The scores of a reference network in float64, and how far rounding to u in its convolutions moves them.

    A Monte Carlo estimate: in each run every convolution's result gets an error of u times its magnitude times N(0, 1).
    The second value is the standard deviation of a score, over all of them.
    """
    exact, rng = network(x), np.random.default_rng(0)
    convolutions = [module for _, module in network.named_modules() if isinstance(module, Conv2d)]
    undo = [_with_noise(module, u, rng) for module in convolutions]
    try:
        away = [network(x) - exact for _ in range(runs)]
    finally:
        for restore in undo:
            restore()
    return exact, float(np.sqrt(np.mean(np.square(away))))


def _with_noise(module: Conv2d, u: float, rng: np.random.Generator) -> Callable[[], None]:
    forward = module.forward

    def noisy(x: Array) -> Array:
        y = forward(x)
        magnitude = conv2d(np.abs(x), np.abs(module.weight.data), stride=module.stride, padding=module.padding)
        return np.asarray(y + u * magnitude * rng.standard_normal(y.shape))

    module.forward = noisy  # type: ignore[method-assign]
    return lambda: delattr(module, "forward")

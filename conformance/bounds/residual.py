"""Running error analysis of residual blocks and of ResNet-34, as spec/basic_block.md and spec/resnet34.md draw them.

This file adds max pool and the mean over an image to the functions of running_error.py.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nnspec.conformance.bounds import batch_norm as rule_batch_norm
from nnspec.conformance.bounds.arithmetic import CLASS_B, Accuracy
from nnspec.conformance.bounds.rule import Array, Expected, sum_bound
from nnspec.conformance.bounds.running_error import Approximate, add, bilinear_block, linear_block, relu, relu_vjp
from nnspec.conformance.bounds.wiring import STAGES, Copies
from nnspec.conformance.case import Case, as_pair
from nnspec.reference.conv2d import conv2d, conv2d_vjp
from nnspec.reference.linear import linear
from nnspec.reference.max_pool2d import max_pool2d
from nnspec.reference.windows import pad, scatter, windows

Entries = Mapping[str, Any]  # each an Array or, of a convolution, Copies
# How norms may keep their averages by default: the batch's weight, and whether its variance has divisor n. The page's
# own convention comes first; checks that are about something else accept each.
KEEPING = tuple((momentum, biased) for momentum in (0.1, 0.01) for biased in (False, True))


@dataclass
class Run:
    """One call of a module that has these entries as its state. Names end in a dot where something follows."""

    entries: Entries
    training: bool = False
    statistics: dict[str, Expected] = field(default_factory=dict)  # of the norms, after the call
    momentum: float = 0.1  # of the norms
    biased: bool = False  # whether running variances are those with divisor n
    accuracy: Accuracy = CLASS_B  # that of the errors
    of_kernels: Collection[str] | None = None  # the convolutions whose kernels get gradients; None: all
    gradients: dict[str, Expected] = field(default_factory=dict)  # of the parameters, after a backward pass

    def convolution(self, x: Approximate, name: str, stride: int = 1, padding: int = 0) -> Approximate:
        """(N, C, H, W) -> (N, O, OH, OW)"""
        kernels = self.entries[f"{name}.weight"]
        if isinstance(kernels, Copies):
            return _copied(x, kernels, stride, padding)
        return linear_block(functools.partial(_conv2d, stride=stride, padding=padding), x, kernels)

    def norm(self, x: Approximate, name: str) -> Approximate:
        """Batch norm, with the statistics of the state or, in training mode, with those of x."""
        operands = {key: self.entries[f"{name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")}
        arguments = {"training": self.training, "momentum": self.momentum}
        call = Case("batch_norm", {"x": x.value, **operands}, arguments)
        found = rule_batch_norm.expected(call, x.error, biased=self.biased)
        y, mean, variance = (one.under(self.accuracy) for one in found)
        self.statistics |= {f"{name}.running_mean": mean, f"{name}.running_var": variance}
        return Approximate(y.value, np.asarray(y.bound), x.form)

    def block(self, x: Approximate, name: str = "", stride: int = 1) -> Approximate:
        """A residual block."""
        y = relu(self.norm(self.convolution(x, f"{name}conv1", stride, 1), f"{name}bn1"))
        y = self.norm(self.convolution(y, f"{name}conv2", 1, 1), f"{name}bn2")
        if stride != 1 or x.value.shape[1] != y.value.shape[1]:
            x = self.norm(self.convolution(x, f"{name}downsample.0", stride), f"{name}downsample.1")
        return relu(add(y, x))

    def blocks(self) -> Iterator[tuple[str, int]]:
        """The name, with a dot behind it, and the stride of every block of ResNet-34."""
        for stage, (_, blocks) in enumerate(STAGES, start=1):
            for number in range(blocks):
                yield f"layer{stage}.{number}.", 2 if stage > 1 and number == 0 else 1

    def network(self, x: Approximate) -> Approximate:
        """ResNet-34."""
        x = max_pool(relu(self.norm(self.convolution(x, "conv1", 2, 3), "bn1")))
        for name, stride in self.blocks():
            x = self.block(x, name, stride)
        return linear_block(linear, mean_of_image(x), self.entries["fc.weight"], self.entries["fc.bias"])

    # -- backward: from the cotangent of a result to the gradient of x; gradients of parameters are noted -------------

    def convolution_vjp(
        self, cotangent: Approximate, x: Approximate, name: str, stride: int = 1, padding: int = 0
    ) -> Approximate:
        """Both gradients are sums of products: of the cotangent and the kernels, and of the cotangent and x."""
        kernels = self.entries[f"{name}.weight"]

        def vjp(g: Array, x: Array, weight: Array) -> Any:
            return conv2d_vjp(g, x, weight, stride=stride, padding=padding)

        if self.of_kernels is None or name in self.of_kernels:
            no_kernels = np.zeros(kernels.shape, np.float64)
            of_kernels = bilinear_block(lambda g, x: vjp(g, x, no_kernels.astype(g.dtype))[1], cotangent, x)
            self.gradients[f"{name}.weight"] = of_kernels.expected
        if isinstance(kernels, Copies):
            return _copied_back(cotangent, x.value.shape, kernels, stride, padding)
        like_x = np.zeros_like(x.value)
        return linear_block(lambda g, w, _: vjp(g, like_x.astype(g.dtype), w)[0], cotangent, kernels)

    def norm_vjp(self, cotangent: Approximate, x: Approximate, name: str) -> Approximate:
        """In training mode mean and variance are functions of x, in evaluation mode they are constants."""
        operands = {key: self.entries[f"{name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")}
        arrays = {"x": x.value, **operands, "cotangent": cotangent.value}
        call = Case("batch_norm", arrays, {"training": self.training})
        found = rule_batch_norm.expected_gradients(call, x.error, cotangent.error)
        of_x, weight, bias = (found[key].under(self.accuracy) for key in ("x", "weight", "bias"))
        self.gradients |= {f"{name}.weight": weight, f"{name}.bias": bias}
        return Approximate(of_x.value, np.asarray(of_x.bound), x.form)

    def block_vjp(self, cotangent: Approximate, x: Approximate, name: str = "", stride: int = 1) -> Approximate:
        """A residual block: the last relu passes its gradient to the branch and to the shortcut."""
        first = self.convolution(x, f"{name}conv1", stride, 1)
        inner = self.norm(first, f"{name}bn1")
        second = self.convolution(relu(inner), f"{name}conv2", 1, 1)
        branch, shortcut, projected = self.norm(second, f"{name}bn2"), x, None
        if stride != 1 or x.value.shape[1] != branch.value.shape[1]:
            projected = self.convolution(x, f"{name}downsample.0", stride)
            shortcut = self.norm(projected, f"{name}downsample.1")
        of_sum = relu_vjp(cotangent, add(branch, shortcut))
        of_second = self.norm_vjp(of_sum, second, f"{name}bn2")
        of_inner = relu_vjp(self.convolution_vjp(of_second, relu(inner), f"{name}conv2", 1, 1), inner)
        of_branch = self.convolution_vjp(self.norm_vjp(of_inner, first, f"{name}bn1"), x, f"{name}conv1", stride, 1)
        if projected is not None:
            of_projected = self.norm_vjp(of_sum, projected, f"{name}downsample.1")
            of_sum = self.convolution_vjp(of_projected, x, f"{name}downsample.0", stride)
        return add(of_branch, of_sum)

    def network_vjp(self, cotangent: Approximate, x: Approximate) -> Approximate:
        """ResNet-34."""
        image, weight = x, self.entries["fc.weight"]
        stem = self.convolution(image, "conv1", 2, 3)
        normed = self.norm(stem, "bn1")
        x = max_pool(relu(normed))
        inputs = []
        for name, stride in self.blocks():
            inputs.append((x, name, stride))
            x = self.block(x, name, stride)
        means, once = mean_of_image(x), Approximate.given(np.ones(len(weight), weight.dtype), self.accuracy)
        self.gradients["fc.weight"] = bilinear_block(lambda g, m: g.T @ m, cotangent, means).expected
        self.gradients["fc.bias"] = bilinear_block(lambda g, ones: g.sum(0) * ones, cotangent, once).expected
        of_means = linear_block(lambda g, w, _: g @ w, cotangent, weight)
        g = mean_of_image_vjp(of_means, x)
        for x, name, stride in reversed(inputs):
            g = self.block_vjp(g, x, name, stride)
        g = relu_vjp(max_pool_vjp(g, relu(normed)), normed)
        return self.convolution_vjp(self.norm_vjp(g, stem, "bn1"), image, "conv1", 2, 3)


def _conv2d(x: Array, weight: Array, bias: None, **hyper: Any) -> Array:
    return conv2d(x, weight, **hyper)


def _copied(x: Approximate, kernels: Copies, stride: int, padding: int) -> Approximate:
    """A convolution whose kernels have one nonzero element each, a power of two. It rounds nothing."""

    def copy(a: Array, values: Array) -> Array:
        view = windows(pad(a, (padding, padding)), kernels.shape[2:], (stride, stride), (1, 1))
        copied: Array = view[:, kernels.channel, kernels.row, kernels.column] * values.astype(a.dtype)[:, None, None]
        return copied

    return Approximate(copy(x.value, kernels.value), copy(x.error, np.abs(kernels.value)), x.form)


def _copied_back(
    cotangent: Approximate, shape: tuple[int, ...], kernels: Copies, stride: int, padding: int
) -> Approximate:
    """The gradient of x: each kernel that copies an element's channel adds at most one term."""
    _, c, h, w = shape
    *_, oh, ow = cotangent.value.shape

    def back(g: Array, values: Array) -> Array:
        onto = np.zeros((len(g), c, h + 2 * padding, w + 2 * padding), g.dtype)
        view = windows(onto, kernels.shape[2:], (stride, stride), (1, 1), writeable=True)
        for i, j in set(zip(kernels.row.tolist(), kernels.column.tolist(), strict=True)):
            (chosen,) = np.nonzero((kernels.row == i) & (kernels.column == j))
            to = np.zeros((c, len(chosen)), g.dtype)
            to[kernels.channel[chosen], np.arange(len(chosen))] = values[chosen]
            view[:, :, i, j] += (to @ g[:, chosen].reshape(len(g), -1, oh * ow)).reshape(-1, c, oh, ow)
        return onto[:, :, padding : padding + h, padding : padding + w]

    value = back(cotangent.value, kernels.value)
    carried, magnitude = np.split(back(np.concatenate([cotangent.error, cotangent.largest]), np.abs(kernels.value)), 2)
    terms = np.bincount(kernels.channel, minlength=c)[:, None, None]
    rounding = np.where(terms > 1, sum_bound(terms, magnitude, cotangent.form), 0.0)
    return Approximate(value, carried + rounding, cotangent.form)


# -- pools -------------------------------------------------------------------------------------------------------------


def max_pool(x: Approximate) -> Approximate:
    """The stem's max pool: the error of a maximum is at most the largest error in its window."""
    pool = functools.partial(max_pool2d, kernel_size=3, stride=2, padding=1)
    return Approximate(pool(x.value), pool(x.error), x.form)


def mean_of_image(x: Approximate) -> Approximate:
    """(N, C, H, W) -> (N, C): the mean of the errors, and n additions and a division by n."""
    form = x.form
    n = x.value.shape[2] * x.value.shape[3]
    error = x.error.mean((2, 3)) + ((n + 1) * (form.u + form.u_wide) + form.extra) * x.largest.mean((2, 3))
    return Approximate(x.value.mean((2, 3)), error, x.form)


def max_pool_vjp(
    cotangent: Approximate, x: Approximate, kernel_size: Any = 3, stride: Any = 2, padding: Any = 1, dilation: Any = 1
) -> Approximate:
    """Pass the gradient to the largest element of each window; without arguments, of the stem's.

    Where errors leave several candidates, each may get any part of it.
    """
    n, c, h, w = x.value.shape
    kernel, (ph, pw), apart = map(as_pair, (kernel_size, padding, dilation))
    step = kernel if stride is None else as_pair(stride)
    low, high = (np.pad(a, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-np.inf) for a in _ends(x))
    low, high = (windows(a, kernel, step, apart) for a in (low, high))
    candidate = high >= low.max((2, 3), keepdims=True)
    certain = candidate.sum((2, 3), keepdims=True) == 1
    g, e = (a[:, :, None, None] for a in (cotangent.value, cotangent.error))

    def scattered(columns: Array) -> Array:
        onto = np.zeros((n, c, h + 2 * ph, w + 2 * pw), columns.dtype)
        scatter(columns, onto, step, apart)
        return onto[:, :, ph : ph + h, pw : pw + w]

    value = scattered(candidate * np.where(certain, g, g / 2))
    error = scattered(candidate * np.where(certain, e, np.abs(g).astype(np.float64) / 2 + e))
    terms, magnitude = scattered(candidate.astype(np.float64)), scattered(candidate * (np.abs(g) + e))
    rounding = np.where(terms > 1, sum_bound(terms, magnitude.astype(np.float64), x.form), 0.0)
    return Approximate(value, error + rounding, x.form)


def _ends(x: Approximate) -> tuple[Array, Array]:
    return x.value - x.error, x.value + x.error


def mean_of_image_vjp(cotangent: Approximate, x: Approximate) -> Approximate:
    """Each pixel gets an equal share: two divisions, or a product with the rounded 1/n."""
    form = x.form
    share, error = (np.broadcast_to(a[:, :, None, None], x.value.shape) for a in (cotangent.value, cotangent.error))
    n = x.value.shape[2] * x.value.shape[3]
    rounding = (2 * (form.u + form.u_wide) + form.extra) * (np.abs(share) + error) / n
    return Approximate(share / n, error / n + rounding.astype(np.float64), x.form)

"""Running error analysis of a chain of blocks in one call, as spec/fused.md draws it.

A kernel may fold a norm into the layer before it: one sum of products with the weight times the norm's scale. The scale
is off by 3u and its product with the weight by u, relative to each term, whatever the terms add up to; so the bound of
a layer before a norm includes 5u of the sum of the absolute values of its terms.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnspec.adapters.chains import Stage, in_stages
from nnspec.adapters.signatures import CHAIN, COTANGENT
from nnspec.conformance.bounds import batch_norm as rule_batch_norm
from nnspec.conformance.bounds import residual
from nnspec.conformance.bounds.arithmetic import Accuracy
from nnspec.conformance.bounds.rule import Array, Expected, by_class, sum_bound
from nnspec.conformance.bounds.running_error import Approximate, bilinear_block, linear_block, relu, relu_vjp
from nnspec.conformance.case import Case, as_pair
from nnspec.reference.avg_pool2d import avg_pool2d, avg_pool2d_vjp
from nnspec.reference.conv2d import conv2d, conv2d_vjp
from nnspec.reference.conv_transpose2d import conv_transpose2d, conv_transpose2d_vjp
from nnspec.reference.linear import linear, linear_vjp
from nnspec.reference.max_pool2d import max_pool2d

LAYERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "conv2d": (conv2d, conv2d_vjp),
    "conv_transpose2d": (conv_transpose2d, conv_transpose2d_vjp),
    "linear": (linear, linear_vjp),
}


@dataclass(frozen=True)
class Link:
    """One block of a chain, and what it is applied to."""

    stage: Stage
    operands: Mapping[str, Any]
    arguments: Mapping[str, Any]
    folds: bool  # whether it is a layer before a norm
    x: Approximate

    def forward(self, accuracy: Accuracy) -> Approximate:
        """Return the block's result."""
        x, block = self.x, self.stage.block
        if block in LAYERS:
            return self._layer()
        if block == "batch_norm":
            y, *_ = rule_batch_norm.expected(self._norm(), x.error)
            y = y.under(accuracy)
            return Approximate(y.value, np.asarray(y.bound), x.form)
        if block == "relu":
            return relu(x)
        if block == "max_pool2d":
            return Approximate(max_pool2d(x.value, **self.arguments), max_pool2d(x.error, **self.arguments), x.form)
        if block == "avg_pool2d":
            return self._mean(lambda a: avg_pool2d(a, **self.arguments), x)
        return residual.mean_of_image(x)

    def _layer(self) -> Approximate:
        function, (weight, bias) = functools.partial(LAYERS[self.stage.block][0], **self.arguments), self._entries()
        y = linear_block(function, self.x, weight, bias)
        if not self.folds:
            return y
        of_ones = (self.x.largest != 0).astype(np.float64), (weight != 0).astype(np.float64)
        magnitude, terms = function(self.x.largest, *map(_size, (weight, bias))), np.rint(function(*of_ones, None)) + 1
        folded = 5 * y.form.rounding * magnitude + sum_bound(terms, magnitude, y.form)
        return Approximate(y.value, np.maximum(y.error, folded), y.form)

    def _entries(self) -> tuple[Any, ...]:
        return tuple(self.operands.values())

    def _norm(self, **cotangent: Array) -> Case:
        arguments = {**self.arguments, "training": False}
        return Case("batch_norm", {"x": self.x.value, **self.operands, **cotangent}, arguments)

    def _mean(self, mean: Callable[[Array], Array], a: Approximate) -> Approximate:
        """Return a mean over windows of at most n elements, or its vjp: n + 1 roundings of each term, as in pool.py."""
        n, form = float(np.prod(as_pair(self.arguments["kernel_size"]))) + 1, a.form
        rounding = (n * (form.u * (1 + 2 * form.u) + form.u_wide) + form.extra) * mean(a.largest) + n * form.eta
        return Approximate(mean(a.value), mean(a.error) * (1 + n * 2.0**-52) + rounding, form)

    # -- backward ------------------------------------------------------------------------------------------------------

    def backward(self, cotangent: Approximate, accuracy: Accuracy) -> tuple[Approximate, dict[str, Expected]]:
        """Return the gradient of x, and those of the block's operands by their names in the chain."""
        x, block = self.x, self.stage.block
        if block in LAYERS:
            return self._layer_vjp(cotangent)
        if block == "batch_norm":
            found = rule_batch_norm.expected_gradients(
                self._norm(**{COTANGENT: cotangent.value}), x.error, cotangent.error
            )
            under = {name: one.under(accuracy) for name, one in found.items()}
            own = {name: one for name, one in under.items() if name != "x"}
            return Approximate(under["x"].value, np.asarray(under["x"].bound), x.form), self._named(own)
        if block == "relu":
            return relu_vjp(cotangent, x), {}
        if block == "max_pool2d":
            return residual.max_pool_vjp(cotangent, x, **self.arguments), {}
        if block == "avg_pool2d":
            like_x = np.zeros(x.value.shape)
            return self._mean(lambda g: avg_pool2d_vjp(g, like_x.astype(g.dtype), **self.arguments), cotangent), {}
        return residual.mean_of_image_vjp(cotangent, x), {}

    def _layer_vjp(self, cotangent: Approximate) -> tuple[Approximate, dict[str, Expected]]:
        (weight, bias), vjp = self._entries(), LAYERS[self.stage.block][1]
        no_x, no_weight, no_bias = (
            np.zeros(self.x.value.shape),
            np.zeros(weight.shape),
            None if bias is None else bias * 0,
        )

        def of(g: Array, x: Array, w: Array) -> Any:
            return vjp(g, x.astype(g.dtype), w.astype(g.dtype), no_bias, **self.arguments)

        own = {"weight": bilinear_block(lambda g, x: of(g, x, no_weight)[1], cotangent, self.x).expected}
        if bias is not None:
            once = Approximate.given(np.ones(len(bias), bias.dtype))
            own["bias"] = bilinear_block(lambda g, ones: of(g, no_x, no_weight)[2] * ones, cotangent, once).expected
        return linear_block(lambda g, w, _: of(g, no_x, w)[0], cotangent, weight), self._named(own)

    def _named(self, own: Mapping[str, Expected]) -> dict[str, Expected]:
        return {name: own[of_block] for name, of_block in self.stage.operands.items() if of_block in own}


def _size(a: Array | None) -> Array | None:
    return None if a is None else np.abs(a).astype(np.float64)


def links(case: Case, accuracy: Accuracy) -> Iterator[tuple[Link, Approximate]]:
    """Yield each block of a case's chain, and its result."""
    parts = list(in_stages(case[CHAIN], case.arrays, case.arguments))
    after = [stage.block for stage, *_ in parts[1:]]
    y = Approximate.given(case["x"], accuracy)
    for (stage, operands, arguments), following in zip(parts, [*after, ""], strict=True):
        link = Link(stage, operands, arguments, following == "batch_norm", y)
        y = link.forward(accuracy)
        y = Approximate(y.value, np.where(np.isfinite(y.value), y.error, 0.0), y.form)
        yield link, y


def expected(case: Case) -> Expected:
    """Return what a chain gives, with its bound."""

    def run(accuracy: Accuracy) -> dict[str, Expected]:
        with np.errstate(all="ignore"):  # NaN and infinities
            *_, (_, y) = links(case, accuracy)
            return {"y": y.expected}

    return by_class(run)["y"]


def expected_gradients(case: Case) -> dict[str, Expected]:
    """Return the gradients of x and of the operands, with their bounds."""

    def run(accuracy: Accuracy) -> dict[str, Expected]:
        made, found = [link for link, _ in links(case, accuracy)], dict[str, Expected]()
        g = Approximate.given(case[COTANGENT], accuracy)
        for link in reversed(made):
            g, own = link.backward(g, accuracy)
            found |= own
        return {**found, "x": g.expected}

    return by_class(run)

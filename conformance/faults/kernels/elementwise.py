"""Mistakes in kernels that go over all elements: ReLU, and the steps of SGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from nnspec.conformance.case import Array
from nnspec.conformance.faults.kernels import (
    LAST_OF_ALL,
    REPEATED,
    SHIFTED,
    STALE,
    TAIL,
    Mistake,
    blockwise,
    kernel_fault,
)
from nnspec.reference.relu import relu, relu_vjp
from nnspec.reference.sgd import SGD as Right
from nnspec.reference.sgd import sgd_step

# -- ReLU --------------------------------------------------------------------------------------------------------------


def _flat(change: Callable[[Array], Array], a: Array) -> Array:
    """Return the array with all its elements changed as those of one axis."""
    return change(a.reshape(-1)).reshape(a.shape)


def _behind(n: int, block: int) -> Array:
    """Return which of n elements lie behind the last full vector."""
    return (np.arange(n) >= n - n % block) & (n > block)


def _of_relu(requirement: str, blocks: tuple[int, ...], *mistakes: Mistake) -> None:
    """Add faults that change the result along all its elements."""
    for mistake in mistakes:

        @blockwise(requirement, f"elements-{mistake.name}", mistake.said.replace("{axes}", "elements"), relu, blocks)
        def _(b: int, x: Array, mistake: Mistake = mistake) -> Array:
            return _flat(lambda flat: mistake.change(flat, (0,), b), relu(x))


_of_relu("relu.positive.kept", (8, 16, 64, 256), TAIL)
_of_relu("relu.positive.kept", (16, 64, 256), LAST_OF_ALL, STALE, SHIFTED)
_of_relu("relu.positive.kept", (512, 1024, 4096), REPEATED)


@blockwise(
    "relu.negative.zero", "tail", "elements behind the last vector of {b} stay as they were", relu, (8, 16, 32, 256)
)
def _as_they_were(b, x):
    return np.where(_behind(x.size, b).reshape(x.shape), x, relu(x))


@blockwise("relu.negative.zero", "first-block", "only the first {b} elements are rectified", relu, (64, 256, 1024))
def _first_alone(b, x):
    return np.where((np.arange(x.size) < b).reshape(x.shape), relu(x), x)


@blockwise(
    "relu.negative.zero",
    "row-tail",
    "in rows of more than {b}, elements behind the last vector of 4 stay as they were",
    relu,
    (8, 16, 32),
)
def _row_tail(b, x):
    if x.ndim < 2 or x.shape[-1] <= b:
        return relu(x)
    return np.where(_behind(x.shape[-1], 4), x, relu(x))


@blockwise(
    "relu.range.ends",
    "flushed",
    "vectors take subnormal numbers for 0, in arrays of more than {b} elements",
    relu,
    (4, 8, 16),
)
def _flushed(b, x):
    y = relu(x)
    if x.size <= b or x.dtype.kind != "f":
        return y
    return np.where((y < np.finfo(x.dtype).tiny) & ~_behind(x.size, 8).reshape(x.shape), np.zeros((), x.dtype), y)


@blockwise(
    "relu.infinite.value",
    "saturated",
    "vectors give the largest number for infinity, from {b} elements on",
    relu,
    (4, 8, 16),
)
def _saturated(b, x):
    y = relu(x)
    return np.where(np.isposinf(y), np.finfo(x.dtype).max, y) if x.size >= b and x.dtype.kind == "f" else y


@blockwise(
    "relu.gradient.zero",
    "positive-tail",
    "elements behind the last vector of {b} have no gradient",
    relu_vjp,
    (8, 16, 64, 256),
)
def _no_gradient(b, cotangent, x):
    return np.where(_behind(x.size, b).reshape(x.shape), cotangent * 0, relu_vjp(cotangent, x))


@blockwise(
    "relu.gradient.zero",
    "positive-first-block",
    "only the first {b} elements have a gradient",
    relu_vjp,
    (64, 256, 1024),
)
def _first_gradient(b, cotangent, x):
    return np.where((np.arange(x.size) < b).reshape(x.shape), relu_vjp(cotangent, x), cotangent * 0)


@blockwise(
    "relu.gradient.zero",
    "negative-tail",
    "elements behind the last vector of {b} pass their cotangent on",
    relu_vjp,
    (8, 16, 64, 256),
)
def _unmasked(b, cotangent, x):
    return np.where(_behind(x.size, b).reshape(x.shape), cotangent, relu_vjp(cotangent, x))


@blockwise(
    "relu.gradient.zero",
    "negative-mask",
    "the signs are kept for {b} elements, and serve for all",
    relu_vjp,
    (64, 256, 1024),
)
def _mask_again(b, cotangent, x):
    signs = np.resize(x.reshape(-1)[:b], x.size).reshape(x.shape)
    return relu_vjp(cotangent, signs if x.size > b else x)


# -- steps of SGD ------------------------------------------------------------------------------------------------------


def _steps(requirement: str, name: str, said: str, blocks: tuple[int, ...]) -> Any:
    """Decorate function(block, parameter, gradient, velocity, **numbers), which makes a step."""

    def add(function: Any) -> Any:
        for block in blocks:

            def step(self: Any, block: int = block) -> None:
                for i, p in enumerate(self.params):
                    if p.grad is not None:
                        p.data[...], self.velocities[i] = function(
                            block, p.data, p.grad, self.velocities[i], **self.hyper
                        )

            SGD = type("SGD", (Right,), {"step": step})
            kernel_fault(requirement, f"{name}-{block}", said.format(b=block), SGD=SGD)
        return function

    return add


def _where(keep: Array, a: Array, b: Array) -> Array:
    return np.where(keep.reshape(a.shape), a, b)


EVERY = "sgd.step.every-element"


@_steps(EVERY, "tail", "elements behind the last vector of {b} are not moved", (16, 32, 64, 256))
def _tail(b, p, g, v, **h):
    moved, v = sgd_step(p, g, v, **h)
    return _where(_behind(p.size, b), p, moved), v


@_steps(EVERY, "first-block", "only the first {b} elements are moved", (64, 256, 1024))
def _first(b, p, g, v, **h):
    moved, v = sgd_step(p, g, v, **h)
    return _where(np.arange(p.size) < b, moved, p), v


@_steps(EVERY, "repeated", "beyond {b} elements the gradients of the first ones come again", (64, 256, 1024))
def _again(b, p, g, v, **h):
    return sgd_step(p, np.resize(g.ravel()[:b], g.size).reshape(g.shape) if g.size > b else g, v, **h)


@_steps(EVERY, "velocity-tail", "elements behind the last vector of {b} have no velocity", (8, 16, 64))
def _no_velocity(b, p, g, v, **h):
    moved, new = sgd_step(p, g, v, **h)
    return moved, _where(_behind(p.size, b), np.zeros_like(new), new)


@_steps(EVERY, "decay-tail", "elements behind the last vector of {b} do not decay", (8, 16, 64))
def _no_decay(b, p, g, v, **h):
    (moved, new), (other, others) = sgd_step(p, g, v, **h), sgd_step(p, g, v, **{**h, "weight_decay": 0.0})
    behind = _behind(p.size, b)
    return _where(behind, other, moved), _where(behind, others, new)


@_steps(EVERY, "chunk-velocity", "chunks of {b} elements all read the velocity of the first", (64, 256, 1024))
def _chunk(b, p, g, v, **h):
    read = v if v is None or v.size <= b else np.resize(v.ravel()[:b], v.size).reshape(v.shape)
    return sgd_step(p, g, read, **h)

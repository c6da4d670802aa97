"""Mistakes in kernels of matrix products: linear layers, perceptrons and sums of products."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import numpy as np
from nnspec.conformance.case import Array
from nnspec.conformance.faults.kernels import (
    FIRST,
    KEPT_SUM,
    LOST,
    REPEATED,
    SEAM,
    SHIFTED,
    SHORT,
    STALE,
    TAIL,
    TWICE,
    Function,
    Mistake,
    blockwise,
    in_16_bits,
    in_operand,
    in_results,
    kernel_fault,
)
from nnspec.reference.einsum import einsum, einsum_vjp, parse
from nnspec.reference.linear import Linear, linear, linear_vjp
from nnspec.reference.mlp import MLP as Right
from nnspec.reference.relu import relu, relu_vjp

# -- linear layers -----------------------------------------------------------------------------------------------------

PRODUCT = Function(linear)
OUTPUTS, INPUTS, ROWS = {"output features": (-1,)}, {"input features": (1,)}, {"rows": (0,)}


def _rows(mistake: Mistake, block: int) -> Callable[[Array], Array]:
    """Return the change of an array (..., O) that makes a mistake along its leading axes, all of them as one."""
    return lambda y: mistake.change(y.reshape(-1, y.shape[-1]), (0,), block).reshape(y.shape) if y.size else y


def _in_rows(requirement: str, function: Function, blocks: tuple[int, ...], *mistakes: Mistake) -> None:
    """Add faults that change rows of a result of two dimensions or more, all leading ones counted as one."""
    for block in blocks:
        for mistake in mistakes:
            wrong = function.changed(_rows(mistake, block))
            name, said = f"rows-{mistake.name}-{block}", mistake.said.format(b=block, axes="rows")
            kernel_fault(requirement, name, said, **{function.right.__name__: wrong})


in_results("linear.arguments.together", PRODUCT, OUTPUTS, (8, 32, 64, 128), TAIL, REPEATED)
in_results("linear.arguments.together", PRODUCT, OUTPUTS, (16, 64, 256), SHIFTED)
_in_rows("linear.arguments.together", PRODUCT, (8, 16, 64), TAIL, FIRST, KEPT_SUM)
in_operand("linear.arguments.together", PRODUCT, "weight", INPUTS, (8, 32, 64, 128), TAIL, TWICE)
in_operand("linear.arguments.together", PRODUCT, "weight", INPUTS, (32, 64, 256), SHORT, SEAM)
in_operand("linear.arguments.together", PRODUCT, "bias", {"biases": (0,)}, (8, 32, 64), REPEATED)
BY_X, BY_WEIGHT, BY_BIAS = (Function(linear_vjp, part) for part in range(3))
in_results("linear.gradient.x", BY_X, {"input features": (-1,)}, (8, 32, 64), TAIL)
_in_rows("linear.gradient.x", BY_X, (8, 16, 64), TAIL)
in_results("linear.gradient.weight", BY_WEIGHT, {"output features": (0,)}, (8, 32, 64), TAIL)
in_results("linear.gradient.weight", BY_WEIGHT, INPUTS, (8, 32, 64), STALE)


def _by_cotangent(part: int, name: str, blocks: tuple[int, ...], *mistakes: Mistake) -> None:
    """Add faults that compute a gradient, which sums over all rows, from a changed cotangent."""
    for block in blocks:
        for mistake in mistakes:
            wrong = Function(linear_vjp, part).with_changed("cotangent", _rows(mistake, block))
            said = f"in the sum, {mistake.said.format(b=block, axes='rows')}"
            kernel_fault(f"linear.gradient.{name}", f"rows-{mistake.name}-{block}", said, linear_vjp=wrong)


_by_cotangent(1, "weight", (8, 32, 128), FIRST, LOST)
_by_cotangent(2, "bias", (8, 32, 128), TAIL, LOST)
in_operand("linear.gradient.x", BY_X, "cotangent", OUTPUTS, (8, 32, 64), TAIL)


@blockwise(
    "linear.arguments.together", "in-16-bits", "sums of more than {b} terms are kept in 16 bits", linear, (32, 128, 256)
)
def _narrow(b, x, weight, bias):
    y = linear(x, weight, bias)
    return in_16_bits(y, (-1,), 0) if weight.shape[1] > b else y


@blockwise(
    "linear.arguments.together",
    "vector-row",
    "a row of more than {b} features is read in vectors of 4 that run into the next",
    linear,
    (8, 16, 32),
)
def _vector_row(b, x, weight, bias):
    y, (_, n) = linear(x, weight, bias), weight.shape
    if n <= b or n % 4 == 0 or len(weight) == 1:
        return y
    more = np.roll(weight, -1, 0)[:, : -n % 4]  # the beginning of the next row, times the last feature
    return y + (x[..., -1:] * more.sum(1)).astype(x.dtype)


@blockwise(
    "linear.arguments.together",
    "square",
    "a square weight of {b} features or more is multiplied transposed",
    linear,
    (8, 16, 32),
)
def _square(b, x, weight, bias):
    turned = weight.T if weight.shape[0] == weight.shape[1] >= b else weight
    return linear(x, turned, bias)


@blockwise(
    "linear.arguments.together",
    "single-row",
    "a single row of {b} features or more goes through a path without its last feature",
    linear,
    (16, 32, 64),
)
def _single_row(b, x, weight, bias):
    y = linear(x, weight, bias)
    if x.size != x.shape[-1] or x.shape[-1] < b:
        return y
    return linear(np.where(np.arange(x.shape[-1]) < x.shape[-1] - 1, x, x * 0), weight, bias)


@blockwise(
    "linear.arguments.together",
    "aligned",
    "with a multiple of {b} features, the last one is left out",
    linear,
    (8, 16, 32),
)
def _aligned(b, x, weight, bias):
    if weight.shape[1] % b or not weight.shape[1]:
        return linear(x, weight, bias)
    return linear(x[..., :-1], weight[:, :-1], bias)


@blockwise(
    "linear.special.value", "saturated", "with {b} features or more, sums end at the largest number", linear, (2, 3, 4)
)
def _saturated(b, x, weight, bias):
    y = linear(x, weight, bias)
    limit = np.finfo(y.dtype).max
    return np.where(np.isinf(y), np.copysign(limit, y), y) if weight.shape[1] >= b else y


# -- perceptrons -------------------------------------------------------------------------------------------------------


def _layers(module: Any) -> list[Any]:
    return [m for m in vars(module).values() if isinstance(m, Linear)]


def _perceptron(requirement: str, name: str, said: str, blocks: Iterable[int]) -> Any:
    """Decorate function(block, n, last, layer, x), which is what layer n hands on, rectified unless it is the last."""

    def add(function: Any) -> Any:
        for block in blocks:

            def forward(self: Any, x: Array, block: int = block) -> Array:
                layers = _layers(self)
                for n, layer in enumerate(layers):
                    x = function(block, n, n == len(layers) - 1, layer, x)
                return x

            MLP = type("MLP", (Right,), {"forward": forward})
            kernel_fault(requirement, f"{name}-{block}", said.format(b=block), MLP=MLP)
        return function

    return add


def _handed_on(y: Array, last: bool) -> Array:
    return y if last else relu(y)


def _in_perceptron(number: int, what: str, blocks: Iterable[int], *mistakes: Mistake) -> None:
    """Add faults that change the inputs of a layer, or its outputs before they are rectified."""
    which = "hidden features" if what == "outputs" or number else "input features"
    for mistake in mistakes:

        def changed(b: int, n: int, last: bool, layer: Any, x: Array, mistake: Mistake = mistake) -> Array:
            if n != number:
                return _handed_on(layer(x), last)
            if what == "outputs":
                return _handed_on(layer(x) if last else mistake.change(layer(x), (-1,), b), last)
            return _handed_on(layer(mistake.change(x, (-1,), b)), last)

        name = f"{which.replace(' ', '-')}-{what}-{mistake.name}"
        _perceptron("mlp.arguments.together", name, mistake.said.replace("{axes}", which), blocks)(changed)


_in_perceptron(0, "inputs", (8, 32, 128), TAIL, SHORT)
_in_perceptron(1, "inputs", (8, 32, 64), TAIL, SEAM)
_in_perceptron(0, "outputs", (8, 16, 64), STALE, REPEATED)


@_perceptron("mlp.arguments.together", "beyond", "inputs beyond the first {b} count twice", (32, 64, 128))
def _beyond(b, n, last, layer, x):
    return _handed_on(layer(x if n else np.where(np.arange(x.shape[-1]) < b, x, x + x)), last)


@_perceptron(
    "mlp.arguments.together", "vectors", "hidden values behind the last vector of {b} are not rectified", (4, 8, 16)
)
def _unrectified(b, n, last, layer, x):
    y = layer(x)
    size = y.shape[-1]
    return y if last else np.where((np.arange(size) < size - size % b) | (size < b), relu(y), y)


@_perceptron("mlp.arguments.together", "tile", "the hidden biases are loaded for one tile of {b}", (8, 16, 64))
def _hidden_bias(b, n, last, layer, x):
    bias = layer.bias.data
    return _handed_on(linear(x, layer.weight.data, bias if last else bias[np.arange(len(bias)) % b]), last)


@_perceptron(
    "mlp.arguments.together", "rows", "vectors of a batch beyond {b} get what the one {b} before them got", (8, 16, 32)
)
def _leading(b, n, last, layer, x):
    y = _handed_on(layer(x), last)
    return y if not last or y.ndim < 2 else _rows(REPEATED, b)(y)


def _perceptron_back(requirement: str, name: str, said: str, blocks: Iterable[int]) -> Any:
    """Decorate function(block, n, cotangent, x, layer): the gradients of x, weight and bias in layer n."""

    def add(function: Any) -> Any:
        for block in blocks:

            def vjp(self: Any, x: Array, block: int = block) -> Any:
                layers, inputs, sums = _layers(self), [x], []
                for layer in layers:
                    sums.append(layer(inputs[-1]))
                    inputs.append(relu(sums[-1]))

                def pull(g: Array) -> Array:
                    for n in reversed(range(len(layers))):
                        g = g if n == len(layers) - 1 else relu_vjp(g, sums[n])
                        g, weight, bias = function(block, n, g, inputs[n], layers[n])
                        layers[n].weight.accumulate(weight)
                        layers[n].bias.accumulate(bias)
                    return g

                return sums[-1], pull

            kernel_fault(requirement, f"{name}-{block}", said.format(b=block), MLP=type("MLP", (Right,), {"vjp": vjp}))
        return function

    return add


def _layer_back(g: Array, x: Array, layer: Any) -> Any:
    return linear_vjp(g, x, layer.weight.data, layer.bias.data)


@_perceptron_back(
    "mlp.gradient.x", "hidden-tail", "the last, partial block of {b} hidden features hands nothing back", (8, 16, 64)
)
def _hidden_back(b, n, g, x, layer):
    return _layer_back(g if n else TAIL.change(g, (-1,), b), x, layer)


@_perceptron_back(
    "mlp.gradient.first-weight",
    "rows-lost",
    "of two blocks of {b} vectors that are added at once, one is lost",
    (8, 16, 32),
)
def _first_lost(b, n, g, x, layer):
    dx, dw, db = _layer_back(g, x, layer)
    return dx, _layer_back(_rows(LOST, b)(g), x, layer)[1] if n == 0 else dw, db


@_perceptron_back(
    "mlp.gradient.second-weight", "hidden-repeated", "columns beyond {b} repeat the first ones", (8, 16, 64)
)
def _second_repeated(b, n, g, x, layer):
    dx, dw, db = _layer_back(g, x, layer)
    return dx, REPEATED.change(dw, (1,), b) if n == 1 else dw, db


@_perceptron_back("mlp.gradient.first-bias", "tile", "only the first {b} hidden biases get a gradient", (8, 16, 64))
def _first_bias(b, n, g, x, layer):
    dx, dw, db = _layer_back(g, x, layer)
    return dx, dw, FIRST.change(db, (0,), b) if n == 0 else db


# -- sums of products --------------------------------------------------------------------------------------------------

Labels = Callable[[list[tuple[str, ...]], tuple[str, ...]], list[str]]


def _owners(terms: list[tuple[str, ...]], label: str) -> int:
    return sum(label in term for term in terms)


def _contracted(terms: list[tuple[str, ...]], output: tuple[str, ...]) -> list[str]:
    """Return the labels that several operands share and that the result lacks."""
    return [a for a in dict.fromkeys(sum(terms, ())) if a not in output and _owners(terms, a) > 1]


def _private(terms: list[tuple[str, ...]], output: tuple[str, ...]) -> list[str]:
    """Return the labels that one operand has once, and that the result lacks."""
    return [a for a in dict.fromkeys(sum(terms, ())) if a not in output and sum(terms, ()).count(a) == 1]


def _batch(terms: list[tuple[str, ...]], output: tuple[str, ...]) -> list[str]:
    """Return the labels that several operands and the result have."""
    return [a for a in output if _owners(terms, a) > 1]


def _outer(terms: list[tuple[str, ...]], output: tuple[str, ...]) -> list[str]:
    """Return the labels that one operand and the result have."""
    return [a for a in output if _owners(terms, a) == 1]


def _in_sum(requirement: str, what: str, labels: Labels, blocks: Iterable[int], *mistakes: Mistake) -> None:
    """Add faults that change an operand along labels that are summed: the first operand that has them."""
    for block, mistake in product(blocks, mistakes):

        def wrong(equation: str, *operands: Array, block: int = block, mistake: Mistake = mistake) -> Array:
            right, given = einsum(equation, *operands), list(operands)
            terms, output = parse(equation, [x.ndim for x in operands])
            for a in labels(terms, output):
                first = next(
                    i
                    for i, term in enumerate(terms)
                    if (a in term and given[i].shape[term.index(a)] > 1) or i == len(terms) - 1
                )
                if terms[first].count(a) == 1:
                    given[first] = mistake.change(given[first], (terms[first].index(a),), block)
            changed = any(one is not other for one, other in zip(given, operands, strict=True))
            return einsum(equation, *given) if changed else right

        said = f"in the sum, {mistake.said.format(b=block, axes=what)}"
        _of_einsum(requirement, f"{what.replace(' ', '-')}-{mistake.name}-{block}", said, wrong)


def _in_output(requirement: str, what: str, labels: Labels, blocks: Iterable[int], *mistakes: Mistake) -> None:
    """Add faults that change the result along some of its labels."""
    for block, mistake in product(blocks, mistakes):

        def wrong(equation: str, *operands: Array, block: int = block, mistake: Mistake = mistake) -> Array:
            y = einsum(equation, *operands)
            terms, output = parse(equation, [x.ndim for x in operands])
            for a in labels(terms, output):
                y = mistake.change(y, (output.index(a),), block)
            return y

        said = mistake.said.format(b=block, axes=what)
        _of_einsum(requirement, f"{what.replace(' ', '-')}-{mistake.name}-{block}", said, wrong)


def _of_einsum(requirement: str, name: str, said: str, wrong: Any) -> None:
    def called(equation: str, *operands: Array) -> Array:
        return wrong(equation, *operands)

    kernel_fault(requirement, name, said, einsum=called)


_in_sum("einsum.arguments.together", "terms", _contracted, (8, 16, 32), TAIL, FIRST, SEAM)
_in_sum("einsum.arguments.together", "terms of one operand", _private, (8, 16, 32), TAIL)
_in_output("einsum.arguments.together", "elements of an axis", _outer, (8, 16, 32), TAIL, SHIFTED)
_in_output("einsum.arguments.together", "matrices of a batch", _batch, (8, 16, 32), REPEATED)


def _einsum_back(name: str, said: str, blocks: Iterable[int]) -> Any:
    """Decorate function(block, cotangent, equation, operands), which gives the gradients."""

    def add(function: Any) -> Any:
        for block in blocks:

            def einsum_vjp(g: Array, equation: str, *operands: Array, block: int = block) -> Any:
                return function(block, g, equation, operands)

            requirement = "einsum.gradient.operand"
            kernel_fault(requirement, f"{name}-{block}", said.format(b=block), einsum_vjp=einsum_vjp)
        return function

    return add


@_einsum_back("axis-tail", "the last, partial block of {b} elements of a gradient's last axis is left out", (8, 16, 32))
def _axis_tail(b, g, equation, operands):
    found = einsum_vjp(g, equation, *operands)
    return tuple(TAIL.change(a, (a.ndim - 1,), b) if a.ndim else a for a in found)


@_einsum_back(
    "sum-lost", "of two blocks of {b} elements of the cotangent's first axis, one is lost in each sum", (8, 16, 32)
)
def _sum_lost(b, g, equation, operands):
    return einsum_vjp(LOST.change(g, (0,), b) if g.ndim else g, equation, *operands)

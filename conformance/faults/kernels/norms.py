"""Mistakes in kernels of batch norms, and in fused kernels of residual blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from nnspec.conformance.case import Array
from nnspec.conformance.faults.kernels import (
    CLAMPED,
    FIRST,
    LOST,
    REPEATED,
    SHIFTED,
    STALE,
    TAIL,
    Function,
    Mistake,
    blockwise,
    in_16_bits,
    in_operand,
    in_results,
    kernel_fault,
)
from nnspec.reference.basic_block import ResidualBlock as RightBlock
from nnspec.reference.batch_norm import batch_norm, batch_norm_vjp
from nnspec.reference.conv2d import conv2d
from nnspec.reference.relu import relu, relu_vjp

# -- batch norms: statistics -------------------------------------------------------------------------------------------


def _values(x: Array) -> Array:
    """Return the values of each channel: (C, values)."""
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


def _along(vector: Array, x: Array) -> Array:
    return vector.reshape(-1, *(1 for _ in x.shape[2:]))


def _training_with(requirement: str, name: str, said: str, blocks: tuple[int, ...]) -> Any:
    """Decorate function(block, values) of mean and variance, which normalise in training if there are more values."""

    def add(statistics: Any) -> Any:
        @blockwise(requirement, name, said, batch_norm, blocks)
        def _(b: int, x: Array, running_mean: Any, running_var: Any, weight: Any, bias: Any, **h: Any) -> Any:
            y, *running = batch_norm(x, running_mean, running_var, weight, bias, **h)
            if not h["training"] or _values(x).shape[1] <= b:
                return y, *running
            mean, var = (a.astype(x.dtype) for a in statistics(b, _values(x)))
            normal = batch_norm(x, mean, var, weight, bias, training=False, eps=h["eps"])[0]
            return normal, *running

        return statistics

    return add


@_training_with(
    "batch_norm.arguments.together",
    "mean-first-block",
    "the mean is that of the first {b} values of a channel",
    (32, 64, 256),
)
def _first_mean(b, values):
    return values[:, :b].mean(1), values.var(1)


@_training_with(
    "batch_norm.arguments.together",
    "mean-tail",
    "values behind the last block of {b} count as 0 in the mean",
    (8, 32, 128),
)
def _tail_mean(b, values):
    n = values.shape[1]
    return values[:, : n - n % b].sum(1) / n, values.var(1)


@_training_with(
    "batch_norm.arguments.together",
    "mean-equal-parts",
    "the means of blocks of {b} values are averaged, the partial one too",
    (8, 32, 128),
)
def _equal_means(b, values):
    return np.mean([part.mean(1) for part in _parts(values, b)], axis=0), values.var(1)


@_training_with(
    "batch_norm.arguments.together",
    "mean-lost",
    "of two blocks of {b} values that are added at once, one is lost",
    (8, 32, 128),
)
def _lost_mean(b, values):
    return LOST.change(values, (1,), b).sum(1) / values.shape[1], values.var(1)


def _parts(values: Array, block: int) -> list[Array]:
    return [values[:, i : i + block] for i in range(0, values.shape[1], block)]


@_training_with(
    "batch_norm.arguments.together",
    "variance-first-block",
    "mean and variance are those of the first {b} values",
    (32, 64, 256),
)
def _first_variance(b, values):
    return values[:, :b].mean(1), values[:, :b].var(1)


@_training_with(
    "batch_norm.arguments.together",
    "variance-within",
    "variances of blocks of {b} values are averaged, without those between",
    (8, 32, 128),
)
def _within(b, values):
    parts = _parts(values, b)
    return values.mean(1), sum(part.var(1) * part.shape[1] for part in parts) / values.shape[1]


@_training_with(
    "batch_norm.arguments.together",
    "variance-merge",
    "blocks of {b} values are merged as if the last one were full",
    (8, 32, 128),
)
def _merge(b, values):
    n, mean, squares = 0, np.zeros(len(values)), np.zeros(len(values))
    for part in _parts(values, b):  # Welford's merge, with b in the place of the part's own size
        apart = part.mean(1) - mean
        mean = mean + apart * b / (n + b)
        squares = squares + part.var(1) * part.shape[1] + apart**2 * n * b / (n + b)
        n += b
    return values.mean(1), squares / values.shape[1]


@_training_with(
    "batch_norm.arguments.together",
    "variance-divisor",
    "the sum of squares is divided by the rounded-up number, in blocks of {b}",
    (8, 32, 128),
)
def _rounded_up(b, values):
    n = values.shape[1]
    return values.mean(1), values.var(1) * n / (-(-n // b) * b)


@_training_with(
    "batch_norm.arguments.together",
    "variance-in-16-bits",
    "sums of more than {b} squares are kept in 16 bits",
    (64, 256, 512),
)
def _narrow(b, values):
    return values.mean(1), in_16_bits(values.var(1) * values.shape[1], (0,), 0) / values.shape[1]


def _running(requirement: str, name: str, said: str, part: int, blocks: tuple[int, ...]) -> Any:
    """Decorate function(block, values, momentum), which is added to a running statistic in training."""

    def add(function: Any) -> Any:
        @blockwise(requirement, name, said, batch_norm, blocks)
        def _(b: int, x: Array, running_mean: Any, running_var: Any, weight: Any, bias: Any, **h: Any) -> Any:
            found: list[Any] = list(batch_norm(x, running_mean, running_var, weight, bias, **h))
            if h["training"] and found[part] is not None and _values(x).shape[1] > b:
                more = function(b, _values(x)) * h["momentum"]
                found[part] = (found[part] + more).astype(found[part].dtype)
            return tuple(found)

        return function

    return add


@_running(
    "batch_norm.arguments.together",
    "running-mean-first-block",
    "the running mean sees the first {b} values",
    1,
    (32, 64, 256),
)
def _running_first(b, values):
    return values[:, :b].mean(1) - values.mean(1)


@_running(
    "batch_norm.arguments.together",
    "running-variance-block",
    "the running variance takes {b} for the number of values",
    2,
    (8, 16, 64),
)
def _running_divisor(b, values):
    n = values.shape[1]
    return values.var(1) * (b / (b - 1) - n / (n - 1))


# -- batch norms: channels and elements --------------------------------------------------------------------------------

FORWARD, CHANNELS = Function(batch_norm, 0), {"channels": (1,)}
in_results("batch_norm.arguments.together", FORWARD, CHANNELS, (8, 16, 32, 64), TAIL, REPEATED)
in_results("batch_norm.arguments.together", FORWARD, {"pixels": (2, 3)}, (32, 64, 256), TAIL)
in_results("batch_norm.arguments.together", FORWARD, {"columns": (3,)}, (8, 16, 32), SHIFTED)
in_results("batch_norm.arguments.together", FORWARD, {"elements of a row": (2,)}, (8, 16, 32), STALE)
in_results("batch_norm.arguments.together", FORWARD, {"images": (0,)}, (8, 16, 32), TAIL)
in_operand("batch_norm.arguments.together", FORWARD, "weight", {"scales": (0,)}, (8, 16, 64), REPEATED)
in_operand("batch_norm.arguments.together", FORWARD, "bias", {"shifts": (0,)}, (8, 16, 64), REPEATED)
in_results("batch_norm.arguments.together", Function(batch_norm, 1), {"running means": (0,)}, (8, 16, 64), STALE)

# -- batch norms: the backward pass ------------------------------------------------------------------------------------

BY_X, BY_WEIGHT, BY_BIAS = (Function(batch_norm_vjp, part) for part in (0, 3, 4))
in_results("batch_norm.gradient.x", BY_X, CHANNELS, (8, 16, 32), TAIL)
in_results("batch_norm.gradient.weight", BY_WEIGHT, {"channels": (0,)}, (8, 16, 64), REPEATED)
in_results("batch_norm.gradient.bias", BY_BIAS, {"channels": (0,)}, (8, 16, 64), TAIL)


def _of_values(requirement: str, part: int, name: str, blocks: tuple[int, ...], *mistakes: Mistake) -> None:
    """Add faults that compute a gradient from a cotangent that is changed along the values of each channel."""
    for mistake in mistakes:

        @blockwise(
            requirement,
            f"{name}-{mistake.name}",
            f"in the sum, {mistake.said.replace('{axes}', 'values')}",
            batch_norm_vjp,
            blocks,
        )
        def _(
            b: int,
            cotangent: Any,
            x: Array,
            running_mean: Any,
            running_var: Any,
            weight: Any,
            bias: Any,
            mistake: Mistake = mistake,
            **h: Any,
        ) -> Any:
            right = list(batch_norm_vjp(cotangent, x, running_mean, running_var, weight, bias, **h))
            if right[part] is None or isinstance(cotangent, tuple) or x.ndim < 2:
                return tuple(right)
            values = mistake.change(_values(cotangent), (1,), b)
            shape = (cotangent.shape[1], len(cotangent), *cotangent.shape[2:])
            changed = np.moveaxis(values.reshape(shape), 0, 1)
            right[part] = batch_norm_vjp(changed, x, running_mean, running_var, weight, bias, **h)[part]
            return tuple(right)


_of_values("batch_norm.gradient.weight", 3, "values", (32, 64, 256), FIRST, LOST)
_of_values("batch_norm.gradient.bias", 4, "values", (32, 64, 256), TAIL, LOST)


@blockwise(
    "batch_norm.gradient.x",
    "sums",
    "the two sums of a channel run over its first {b} values",
    batch_norm_vjp,
    (32, 64, 256),
)
def _partial_sums(b, cotangent, x, running_mean, running_var, weight, bias, **h):
    dx, *others = batch_norm_vjp(cotangent, x, running_mean, running_var, weight, bias, **h)
    if not h["training"] or isinstance(cotangent, tuple) or x.ndim < 2 or _values(x).shape[1] <= b:
        return dx, *others
    values, n = _values(x), _values(x).shape[1]
    scale = 1 / np.sqrt(values.var(1) + h["eps"])
    normal = (values - values.mean(1)[:, None]) * scale[:, None]
    g = _values(cotangent)
    slope = scale if weight is None else scale * weight
    lost = g[:, b:].sum(1), (g * normal)[:, b:].sum(1)
    shape = (x.shape[1], len(x), *x.shape[2:])
    more = np.moveaxis((lost[0][:, None] + normal * lost[1][:, None]).reshape(shape), 0, 1)
    return (dx + _along(slope, x) * more / n).astype(dx.dtype), *others


# -- residual blocks ---------------------------------------------------------------------------------------------------


class _Pieces(RightBlock):
    """The right block in pieces, each of which may be replaced by a wrong one."""

    def branch(self, x: Array) -> Array:
        """Return what is added to the shortcut."""
        return self.bn2(self.conv2(self.inner(self.bn1(self.conv1(x)))))

    def inner(self, x: Array) -> Array:
        """Return what the second convolution sees."""
        return relu(x)

    def shortcut(self, x: Array) -> Array:
        """Return the input, or its projection."""
        return x if self.downsample is None else self.downsample(x)

    def last(self, total: Array) -> Array:
        """Return the result."""
        return relu(total)

    def forward(self, x: Array) -> Array:
        """Return the result of the pieces."""
        branch = self.branch(x)
        return self.last(branch + self.shortcut(x))


def _piece(requirement: str, name: str, said: str, piece: str, blocks: tuple[int, ...]) -> Any:
    """Decorate function(block, self, x, right), where `right` is what the piece should give."""

    def add(function: Any) -> Any:
        for block in blocks:

            def wrong(self: Any, x: Array, block: int = block) -> Array:
                return function(block, self, x, getattr(_Pieces, piece)(self, x))

            made = type("ResidualBlock", (_Pieces,), {piece: wrong})
            kernel_fault(requirement, f"{name}-{block}", said.format(b=block), ResidualBlock=made)
        return function

    return add


def _in_piece(
    requirement: str, piece: str, axes: str, along: tuple[int, ...], blocks: tuple[int, ...], *mistakes: Mistake
) -> None:
    for mistake in mistakes:
        name, said = f"{piece}-{axes}-{mistake.name}", mistake.said.replace("{axes}", axes)

        @_piece(requirement, name, f"{piece}: {said}", piece, blocks)
        def _(b: int, _self: Any, _x: Array, right: Array, mistake: Mistake = mistake) -> Array:
            return mistake.change(right, along, b)


_in_piece("basic_block.branch.norms", "branch", "channels", (1,), (4, 8, 16), TAIL, REPEATED)
_in_piece("basic_block.branch.norms", "branch", "columns", (3,), (4, 8, 16), TAIL)
_in_piece("basic_block.branch.norms", "inner", "channels", (1,), (4, 8, 16), TAIL)
_in_piece("basic_block.branch.norms", "shortcut", "channels", (1,), (4, 8, 16), TAIL)
_in_piece("basic_block.branch.norms", "shortcut", "pixels", (2, 3), (16, 32, 64), SHIFTED)
_in_piece("basic_block.projection.norm", "shortcut", "channels", (1,), (4, 8, 16), TAIL)
_in_piece("basic_block.projection.norm", "shortcut", "columns", (3,), (4, 8, 16), CLAMPED)


@_piece(
    "basic_block.branch.norms",
    "vectors",
    "the sum is not rectified behind the last vector of {b} columns",
    "last",
    (4, 8, 16),
)
def _unrectified(b, _self, total, right):
    n = total.shape[3]
    return np.where((np.arange(n) >= n - n % b) & (n > b), total, right)


@_piece(
    "basic_block.branch.norms",
    "inner-vectors",
    "the inner relu leaves out channels behind the last vector of {b}",
    "inner",
    (4, 8, 16),
)
def _inner(b, _self, x, right):
    n = x.shape[1]
    return np.where(((np.arange(n) >= n - n % b) & (n > b))[:, None, None], x, right)


@_piece(
    "basic_block.branch.norms",
    "tile",
    "the first norm's scale and shift are loaded for {b} channels",
    "branch",
    (4, 8, 16),
)
def _norm_tile(b, self, x, right):
    norm = self.bn1
    if self.training or len(norm.weight.data) <= b:
        return right
    again = np.arange(len(norm.weight.data)) % b
    state = norm.running_mean.data, norm.running_var.data, norm.weight.data[again], norm.bias.data[again]
    return self.bn2(self.conv2(relu(batch_norm(self.conv1(x), *state, eps=norm.eps)[0])))


@_piece(
    "basic_block.branch.norms",
    "halo",
    "the second convolution sees nothing right of a tile of {b} columns",
    "branch",
    (4, 8, 16),
)
def _halo(b, self, x, right):
    if self.training or right.shape[3] <= b:
        return right
    middle, n = relu(self.bn1(self.conv1(x))), right.shape[3]
    columns, made = np.arange(n), right.copy()
    for begin in range(0, n, b):
        cut = np.where(columns < begin + b, middle, middle * 0)
        made[..., begin : begin + b] = self.bn2(conv2d(cut, self.conv2.weight.data, padding=1))[..., begin : begin + b]
    return made


def _block_back(requirement: str, name: str, said: str, blocks: tuple[int, ...]) -> Any:
    """Decorate function(block, cotangent of the sum) -> (cotangent of the branch, cotangent of the shortcut)."""

    def add(function: Any) -> Any:
        for block in blocks:

            def vjp(self: Any, x: Array, block: int = block) -> Any:
                first, through_conv1 = self.conv1.vjp(x)
                first, through_bn1 = self.bn1.vjp(first)
                second, through_conv2 = self.conv2.vjp(relu(first))
                second, through_bn2 = self.bn2.vjp(second)
                shortcut, through = (x, lambda g: g) if self.downsample is None else self.downsample.vjp(x)
                total = second + shortcut

                def pull(g: Array) -> Array:
                    of_branch, of_shortcut = function(block, relu_vjp(g, total), g)
                    of_first = relu_vjp(through_conv2(through_bn2(of_branch)), first)
                    return through_conv1(through_bn1(of_first)) + through(of_shortcut)

                return relu(total), pull

            made = type("ResidualBlock", (RightBlock,), {"vjp": vjp})
            kernel_fault(requirement, f"{name}-{block}", said.format(b=block), ResidualBlock=made)
        return function

    return add


@_block_back(
    "basic_block.gradient.x",
    "shortcut-tail",
    "through the shortcut, the last, partial block of {b} columns is lost",
    (4, 8, 16),
)
def _shortcut_tail(b, g, _):
    return g, TAIL.change(g, (3,), b)


@_block_back(
    "basic_block.gradient.parameters",
    "images-lost",
    "of two blocks of {b} images, one is lost in the branch",
    (2, 4, 8),
)
def _images_lost(b, g, _):
    return LOST.change(g, (0,), b), g


@_block_back(
    "basic_block.gradient.x",
    "vectors",
    "the last mask is forgotten behind the last vector of {b} columns",
    (4, 8, 16),
)
def _mask_tail(b, g, unmasked):
    n = g.shape[3]
    masked = np.where((np.arange(n) >= n - n % b) & (n > b), unmasked, g)
    return masked, masked

"""Mistakes at the seams of blocks in one call. Requirements: spec/fused.md"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from nnspec.conformance.case import Array
from nnspec.conformance.faults import as_if_contiguous, fault
from nnspec.reference.batch_norm import batch_norm
from nnspec.reference.conv2d import conv2d_vjp
from nnspec.reference.fused import BLOCKS, fused_chain, fused_chain_vjp, stages


@dataclass(frozen=True)
class Part:
    """One block of a chain: its name, its operands but x, and its arguments."""

    block: str
    operands: tuple[Any, ...]
    arguments: dict[str, Any]

    def __call__(self, x: Array) -> Array:
        """Return the block's result."""
        y: Array = BLOCKS[self.block][0](x, *self.operands, **self.arguments)
        return y


def parts(chain: str, operands: tuple[Any, ...], arguments: dict[str, Any]) -> list[Part]:
    """Return the blocks of a chain."""
    blocks = [part.strip() for part in chain.split("|")]
    found = stages(chain, operands, arguments)
    return [Part(block, tuple(own), named) for block, (_, _, own, named) in zip(blocks, found, strict=True)]


def chained(change: Callable[[list[Part]], list[Callable[[Array], Array]]]) -> Callable[..., Array]:
    """Return a function of a chain whose blocks are changed."""

    def fused_chain(chain: str, x: Array, *operands: Any, **arguments: Any) -> Array:
        dtype = x.dtype
        for part in change(parts(chain, operands, arguments)):
            x = part(x)
        return x.astype(dtype, copy=False)

    return fused_chain


def each(change: Callable[[Part], Callable[[Array], Array]]) -> Callable[..., Array]:
    """Return a function of a chain in which each block is changed by itself."""
    return chained(lambda found: [change(part) for part in found])


def without(block: str) -> Callable[..., Array]:
    """Return a function of a chain that leaves out each block of a name."""
    return chained(lambda found: [part for part in found if part.block != block])


def swapped(first: str, second: str) -> Callable[..., Array]:
    """Return a function of a chain that applies two neighbours in the other order."""

    def change(found: list[Part]) -> list[Part]:
        for n in range(len(found) - 1):
            if (found[n].block, found[n + 1].block) == (first, second):
                found[n], found[n + 1] = found[n + 1], found[n]
        return found

    return chained(change)


LAYERS = ("conv2d", "conv_transpose2d", "linear")


def folded(fold: Callable[[Part, Part], tuple[Any, Any]]) -> Callable[..., Array]:
    """Return a function of a chain that folds each norm into the layer before it, by weight and bias of `fold`."""

    def change(found: list[Part]) -> list[Part]:
        made: list[Part] = []
        for part in found:
            if part.block == "batch_norm" and made and made[-1].block in LAYERS:
                made[-1] = replace(made[-1], operands=fold(made[-1], part))
            else:
                made.append(part)
        return made

    return chained(change)


def scale_of(norm: Part) -> tuple[Array, Array]:
    """Return the scale and the shift of a norm in evaluation mode."""
    mean, var, gamma, beta = norm.operands
    scale = np.sqrt(var + np.asarray(norm.arguments.get("eps", 1e-5), var.dtype)) ** -1
    scale = scale if gamma is None else scale * gamma
    return scale, (0 if beta is None else beta) - mean * scale


def along(scale: Array, layer: Part) -> Array:
    """Return a vector of output channels, or features, in the shape that multiplies a layer's weight."""
    weight = layer.operands[0]
    if layer.block == "conv_transpose2d":
        return scale[None, :, None, None]
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


def fold(layer: Part, norm: Part, *, bias_scaled: bool = True) -> tuple[Array, Array]:
    """Return weight and bias with a norm folded in."""
    (weight, bias), (scale, shift) = layer.operands, scale_of(norm)
    bias = np.zeros(len(scale), weight.dtype) if bias is None else bias
    return weight * along(scale, layer), (bias * scale if bias_scaled else bias) + shift


def but(norm: Part, **changes: Any) -> Part:
    """Return a norm with other operands."""
    names = ("running_mean", "running_var", "weight", "bias")
    given = dict(zip(names, norm.operands, strict=True)) | changes
    return replace(norm, operands=tuple(given.values()))


def of_norm(change: Callable[[Part], Callable[[Array], Array]]) -> Callable[..., Array]:
    """Return a function of a chain whose norms are changed."""
    return each(lambda part: change(part) if part.block == "batch_norm" else part)


def of_layer(change: Callable[[Part], Callable[[Array], Array]]) -> Callable[..., Array]:
    """Return a function of a chain whose layers are changed."""
    return each(lambda part: change(part) if part.block in LAYERS else part)


def of_relu(relu: Callable[[Array], Array]) -> Callable[..., Array]:
    """Return a function of a chain with another ReLU."""
    return each(lambda part: relu if part.block == "relu" else part)


def with_batch_statistics(norm: Part) -> Callable[[Array], Array]:
    """Return a norm in training mode, where there is more than one value."""

    def normalised(x: Array) -> Array:
        if x.size <= x.shape[1]:
            return norm(x)
        y: Array = batch_norm(x, *norm.operands, **norm.arguments, training=True)[0]
        return y

    return normalised


# -- values ------------------------------------------------------------------------------------------------------------

fault("fused.output.value/relu-left-out", "the ReLU is left out", fused_chain=without("relu"))
fault("fused.output.value/norm-left-out", "the batch norm is left out", fused_chain=without("batch_norm"))
fault(
    "fused.output.value/bias-not-folded",
    "the bias of the layer before the norm is not folded: the norm's scale does not multiply it",
    fused_chain=folded(lambda layer, norm: fold(layer, norm, bias_scaled=False)),
)
fault(
    "fused.output.value/bias-left-out",
    "the bias of the convolution or linear layer is left out",
    fused_chain=of_layer(lambda layer: replace(layer, operands=(layer.operands[0], None))),
)
fault(
    "fused.output.value/bias-replaced",
    "the bias of the layer is lost when the norm is folded into it: the shift takes its place",
    fused_chain=folded(lambda layer, norm: fold(replace(layer, operands=(layer.operands[0], None)), norm)),
)
fault(
    "fused.output.value/mean-not-subtracted",
    "the norm does not subtract the running mean",
    fused_chain=of_norm(lambda norm: but(norm, running_mean=0 * norm.operands[0])),
)
fault(
    "fused.output.value/eps-left-out",
    "eps is left out of the norm's scale",
    fused_chain=of_norm(lambda norm: replace(norm, arguments={**norm.arguments, "eps": 1e-12})),
)
fault(
    "fused.output.value/eps-default",
    "the norm's scale has the default eps, whatever the call says",
    fused_chain=of_norm(lambda norm: replace(norm, arguments={})),
)
fault(
    "fused.output.value/variance-for-deviation",
    "the norm divides by the variance in place of the standard deviation",
    fused_chain=of_norm(lambda norm: but(norm, running_var=norm.operands[1] ** 2)),
)
fault(
    "fused.output.value/gamma-left-out",
    "the norm's scale γ is left out",
    fused_chain=of_norm(lambda norm: but(norm, weight=None)),
)
fault(
    "fused.output.value/beta-left-out",
    "the norm's shift β is left out",
    fused_chain=of_norm(lambda norm: but(norm, bias=None)),
)
fault(
    "fused.output.value/relu-before-norm",
    "the ReLU comes before the norm",
    fused_chain=swapped("batch_norm", "relu"),
)
fault(
    "fused.output.value/pool-before-relu",
    "the average pool comes before the ReLU",
    fused_chain=swapped("relu", "avg_pool2d"),
)
fault(
    "fused.output.value/relu-6",
    "the ReLU is cut off at 6",
    fused_chain=of_relu(lambda x: np.clip(x, 0, np.asarray(6, x.dtype))),
)


def _relu_last(found: list[Part]) -> list[Part]:
    return [p for p in found if p.block != "relu"] + [p for p in found if p.block == "relu"][:1]


fault("fused.output.value/relu-last", "one ReLU at the end stands for all of them", fused_chain=chained(_relu_last))
fault(
    "fused.batch.independent/statistics",
    "the norm takes the statistics of the batch",
    fused_chain=of_norm(with_batch_statistics),
)


def _centred(x: Array) -> Array:
    return np.maximum(x - x.mean() * np.asarray(2.0**-10, x.dtype), 0)


fault(
    "fused.batch.independent/centred",
    "the threshold of the ReLU is taken from the whole batch",
    fused_chain=of_relu(_centred),
)
fault(
    "fused.special.value/nan-to-zero",
    "the ReLU turns NaN into 0",
    fused_chain=of_relu(lambda x: np.where(x > 0, x, np.zeros((), x.dtype))),
)
fault(
    "fused.special.value/masked",
    "the ReLU multiplies by its mask, and infinity times 0 is NaN",
    fused_chain=of_relu(lambda x: x * (x > 0)),
)


# -- results and operands ----------------------------------------------------------------------------------------------


def _last_axes(found: list[Part]) -> list[Callable[[Array], Array]]:
    *before, last = found
    return [*before, lambda x: last(x)[None]]


fault("fused.output.shape/batch-added", "the result has a batch around it", fused_chain=chained(_last_axes))
fault(
    "fused.output.shape/stride-1",
    "the stride of a layer is ignored",
    fused_chain=each(
        lambda part: replace(part, arguments={**part.arguments, "stride": 1}) if part.block in LAYERS[:2] else part
    ),
)


def _in_float64(chain: str, x: Array, *operands: Any, **arguments: Any) -> Array:
    return fused_chain(chain, x, *operands, **arguments).astype(np.float64 if x.dtype != np.float64 else np.float32)


fault("fused.output.dtype/float64", "the result has the dtype of the accumulator", fused_chain=_in_float64)


def _folds_in_place(chain: str, x: Array, *operands: Any, **arguments: Any) -> Array:
    y = fused_chain(chain, x, *operands, **arguments)
    found = parts(chain, operands, arguments)
    for layer, norm in pairwise(found):
        if layer.block in LAYERS and norm.block == "batch_norm":
            layer.operands[0][...] *= along(scale_of(norm)[0], layer)
    return y


def _relu_in_place(chain: str, x: Array, *operands: Any, **arguments: Any) -> Array:
    y = fused_chain(chain, x, *operands, **arguments)
    if chain.startswith("relu"):
        np.maximum(x, 0, out=x)
    return y


fault("fused.input.unchanged/folded", "the norm is folded into the weight in place", fused_chain=_folds_in_place)
fault("fused.input.unchanged/relu", "a ReLU at the beginning writes to x", fused_chain=_relu_in_place)


def _as_if_contiguous(chain: str, x: Array, *operands: Any, **arguments: Any) -> Array:
    return fused_chain(chain, as_if_contiguous(x), *operands, **arguments)


fault("fused.input.layout/x", "x is read as if it were contiguous", fused_chain=_as_if_contiguous)


# -- gradients ---------------------------------------------------------------------------------------------------------


def vjp_through(forward: Callable[..., Any], change: Callable[[str], Callable[..., Any] | None]) -> Callable[..., Any]:
    """Return the vjp of a chain in which the vjp of some blocks is another one."""

    def fused_chain_vjp(cotangent: Array, chain: str, x: Array, *operands: Any, **arguments: Any) -> Any:
        inputs, gradients = [], list[Any]()
        for part in parts(chain, operands, arguments):
            inputs.append((part, x))
            x = part(x)
        for part, x in reversed(inputs):
            vjp = change(part.block) or BLOCKS[part.block][1]
            found = vjp(cotangent, x, *part.operands, **part.arguments)
            cotangent, *others = found if isinstance(found, tuple) else (found,)
            gradients[:0] = others
        return (cotangent, *gradients)

    return fused_chain_vjp


fault(
    "fused.gradient.value/mask-left-out",
    "the gradient passes the ReLU unmasked",
    fused_chain_vjp=vjp_through(fused_chain, lambda block: (lambda g, x: g) if block == "relu" else None),
)


def _unscaled(g: Array, x: Array, mean: Array, var: Array, gamma: Any, beta: Any, **named: Any) -> Any:
    _, *others = BLOCKS["batch_norm"][1](g, x, mean, var, gamma, beta, **named)
    return (g, *others)


fault(
    "fused.gradient.value/scale-left-out",
    "the gradient passes the norm without its scale",
    fused_chain_vjp=vjp_through(fused_chain, lambda block: _unscaled if block == "batch_norm" else None),
)


def _half_the_weight(g: Array, x: Array, weight: Array, bias: Any, **named: Any) -> Any:
    dx, dweight, dbias = conv2d_vjp(g, x, weight, bias, **named)
    return dx, dweight * (np.arange(len(dweight))[:, None, None, None] == 0), dbias


fault(
    "fused.gradient.value/first-kernel",
    "the gradient of a convolution's weight is that of its first kernel",
    fused_chain_vjp=vjp_through(fused_chain, lambda block: _half_the_weight if block == "conv2d" else None),
)


def _no_bias(cotangent: Array, chain: str, x: Array, *operands: Any, **arguments: Any) -> Any:
    found = fused_chain_vjp(cotangent, chain, x, *operands, **arguments)
    return tuple(g if g is None or g.ndim > 1 or n == 0 else g * 0 for n, g in enumerate(found))


fault(
    "fused.gradient.value/vectors-zero",
    "the gradients of biases and of the norm's scale and shift are 0",
    fused_chain_vjp=_no_bias,
)


def _contiguous_cotangent(cotangent: Array, chain: str, *operands: Any, **arguments: Any) -> Any:
    return fused_chain_vjp(as_if_contiguous(cotangent), chain, *operands, **arguments)


fault(
    "fused.gradient.layout/cotangent",
    "the cotangent is read as if it were contiguous",
    fused_chain_vjp=_contiguous_cotangent,
)

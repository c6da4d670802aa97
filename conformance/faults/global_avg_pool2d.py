"""Wrong means of channels."""

import numpy as np
from nnspec.conformance.faults import (
    add_buffer,
    add_parameter,
    as_if_contiguous,
    beginning,
    changes_lone_image,
    disturbed_by_relu,
    fault,
    keeps_batch,
    mistakes_in_memory,
    save_input,
)
from nnspec.reference.global_avg_pool2d import GlobalAvgPool2d
from nnspec.reference.global_avg_pool2d import global_avg_pool2d as right
from nnspec.reference.global_avg_pool2d import global_avg_pool2d_vjp as right_vjp


def _wrong(key, mistake):
    def add(function):
        def global_avg_pool2d(x):
            return function(x)

        fault(key, mistake, global_avg_pool2d=global_avg_pool2d)
        return function

    return add


_wrong("global_avg_pool2d.output.value/sum", "the sum without the division")(lambda x: x.sum((2, 3)))
_wrong("global_avg_pool2d.output.value/square", "the division by H² in place of H·W")(
    lambda x: right(x) * np.asarray(x.shape[3] / x.shape[2], x.dtype)
)
_wrong("global_avg_pool2d.output.value/channels-last", "the mean over axes 1 and 2")(lambda x: x.mean((1, 2)))
_wrong("global_avg_pool2d.output.value/last-element", "the last element is missed")(
    lambda x: right(x) - (x[:, :, -1, -1] / np.asarray(x[0, 0].size if x.size else 1, x.dtype))
)
_wrong("global_avg_pool2d.output.value/half-precision", "the input is rounded to float16 on the way")(
    lambda x: right(x.astype(np.float16).astype(x.dtype))
)


@_wrong("global_avg_pool2d.output.value/saturated", "the sum has the range of the elements, and stays at its end")
def _saturated(x):
    end = 2 ** np.ceil(np.log2(np.maximum(np.abs(x).max(initial=1), 1)))
    return np.clip(x.sum((2, 3)), -end, end).astype(x.dtype) / np.asarray(x[0, 0].size if x.size else 1, x.dtype)


_wrong("global_avg_pool2d.image.any-size/seven", "the first 7×7 elements alone")(lambda x: right(x[:, :, :7, :7]))


@_wrong("global_avg_pool2d.image.any-size/blocks", "rows beyond the last full block of eight are left out")
def _blocks(x):
    return right(x[:, :, : x.shape[2] // 8 * 8] if x.shape[2] > 8 else x)


@_wrong("global_avg_pool2d.image.any-size/fixed-divisor", "large images are divided by 7·7")
def _fixed_divisor(x):
    return right(x) if x[0, 0].size < 50 else x.sum((2, 3)) / np.asarray(49, x.dtype)


_wrong("global_avg_pool2d.channel.independent/mean", "every channel shows the mean of all")(
    lambda x: np.broadcast_to(right(x).mean(1, keepdims=True), x.shape[:2]).copy()
)


@_wrong("global_avg_pool2d.channel.independent/not-a-number", "a NaN in one channel reaches the others")
def _not_a_number(x):
    y = right(x)
    return np.where(np.isnan(y).any(1, keepdims=True), np.asarray(np.nan, x.dtype), y)


_wrong("global_avg_pool2d.output.size/axes-kept", "(N, C, 1, 1)")(lambda x: right(x)[:, :, None, None])
_wrong("global_avg_pool2d.output.size/squeezed", "N and C are removed too where they are 1")(
    lambda x: np.squeeze(right(x))
)
_wrong("global_avg_pool2d.output.dtype/float64", "the result is float64 whatever came in")(
    lambda x: right(x).astype(np.float64 if x.dtype == np.float32 else np.float32)
)
_STORE: dict[object, np.ndarray] = {}


@_wrong("global_avg_pool2d.output.fresh/reused-buffer", "the result's memory is kept and used again")
def _reused(x):
    y = right(x)
    store = _STORE.setdefault((y.shape, y.dtype), y)
    store[...] = y
    return store


_wrong("global_avg_pool2d.output.fresh/reshaped", "images of one element are reshaped and handed back")(
    lambda x: x.reshape(x.shape[:2]) if x.shape[2:] == (1, 1) else right(x)
)


@_wrong("global_avg_pool2d.input.unchanged/in-place", "the sum is collected in the first row")
def _in_place(x):
    y = right(x)
    x[:, :, 0] = x.sum(2)
    return y


@_wrong("global_avg_pool2d.input.unchanged/scaled", "the input is divided in place, and added up then")
def _scaled(x):
    x /= np.asarray(max(1, x.shape[2] * x.shape[3]), x.dtype)
    return x.sum((2, 3))


@_wrong("global_avg_pool2d.input.layout/memory-order", "the memory is read as if it were contiguous")
def _memory_order(x):
    return right(as_if_contiguous(x))


_wrong("global_avg_pool2d.batch.independent/mean", "the mean over the batch too")(
    lambda x: np.broadcast_to(right(x).mean(0), x.shape[:2]).copy() if len(x) else right(x)
)
_wrong("global_avg_pool2d.batch.independent/first-image", "only the first image is averaged")(
    lambda x: np.repeat(right(x[:1]), len(x), axis=0)
)


@_wrong("global_avg_pool2d.batch.empty/refused", "a batch of nothing raises")
def _no_empty(x):
    return right(x).reshape(len(x), -1)


_WINDOW: dict[str, int] = {}


@_wrong("global_avg_pool2d.call.stateless/kept-window", "the divisor is that of the image before")
def _kept_window(x):
    size = x.shape[2] * x.shape[3]
    before, _WINDOW["size"] = _WINDOW.get("size", size), size
    return x.sum((2, 3)) / np.asarray(before, x.dtype)


# -- special values, and the ends of the range -------------------------------------------------------------------------

_wrong("global_avg_pool2d.special.value/cleaned", "what is not finite is replaced on the way in")(
    lambda x: right(np.nan_to_num(x))
)
_wrong(
    "global_avg_pool2d.special.value/everywhere",
    "0 times the sum of all elements is added, which is NaN if one is not finite",
)(lambda x: right(x) + 0 * x.sum())
_wrong("global_avg_pool2d.range.ends/clipped", "values are kept within ±10³⁰")(lambda x: right(np.clip(x, -1e30, 1e30)))
_wrong("global_avg_pool2d.range.ends/dropped", "what is below 10⁻³⁰ is taken for 0")(
    lambda x: right(np.where(np.abs(x) < 1e-30, np.zeros_like(x), x))
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def _wrong_vjp(key, mistake):
    """The fault has the right gradient at hand: function(dx, cotangent, x)."""

    def add(function):
        def global_avg_pool2d_vjp(cotangent, x):
            return function(right_vjp(cotangent, x), cotangent, x)

        fault(f"global_avg_pool2d.gradient.{key}", mistake, global_avg_pool2d_vjp=global_avg_pool2d_vjp)
        return function

    return add


def _divided_by(g, x, divisor):
    return np.broadcast_to((g / np.asarray(divisor, x.dtype))[:, :, None, None], x.shape)


_wrong_vjp("x/undivided", "the cotangent is spread without the division")(lambda dx, g, x: _divided_by(g, x, 1))
_wrong_vjp("x/square", "the division by H² in place of H·W")(lambda dx, g, x: _divided_by(g, x, x.shape[2] ** 2))
_wrong_vjp("x/fixed-divisor", "large images are divided by 7·7")(
    lambda dx, g, x: _divided_by(g, x, 49) if x[0, 0].size > 49 else dx
)
_wrong_vjp("x/in-turn", "shares are dealt out to channels in turn")(
    lambda dx, g, x: np.tile(dx[:, :, 0, 0], (1, x.shape[2] * x.shape[3])).reshape(x.shape)
)
_wrong_vjp("x/half-precision", "the cotangent is rounded to float16 on the way")(
    lambda dx, g, x: right_vjp(g.astype(np.float16).astype(g.dtype), x)
)
_wrong_vjp("x/one-image", "a batch of one image loses its axis, and its channels are taken for images")(
    lambda dx, g, x: np.broadcast_to(dx[:, :1], x.shape) if len(x) == 1 else dx
)


@_wrong_vjp("x/last-row", "the last row gets nothing")
def _last_row(dx, g, x):
    dx[:, :, x.shape[2] - 1 :] = 0
    return dx


_wrong_vjp("like-operand/broadcast", "one share per channel, left to broadcasting")(lambda dx, g, x: dx[:, :, :1, :1])
_wrong_vjp("like-operand/float64", "the gradient is float64 whatever came in")(
    lambda dx, g, x: dx.astype(np.float64 if x.dtype == np.float32 else np.float32)
)


@_wrong_vjp("layout/memory-order", "the memory of the cotangent is read as if it were contiguous")
def _cotangent_memory(dx, g, x):
    return right_vjp(as_if_contiguous(g), x)


@_wrong_vjp("unchanged/divided", "the cotangent is divided in place")
def _divided(dx, g, x):
    if g.flags.writeable:
        g /= np.asarray(x.shape[2] * x.shape[3], x.dtype)
    return dx


_wrong_vjp("batch/divided", "the gradient is divided by the number of images")(
    lambda dx, g, x: _divided_by(g, x, max(1, x[:, 0].size))
)
_wrong_vjp("batch/first-for-all", "all images get the first one's gradient")(
    lambda dx, g, x: np.repeat(dx[:1], len(dx), 0)
)
_wrong_vjp("channel/mean", "every channel gets the mean of all")(
    lambda dx, g, x: np.broadcast_to(dx.mean(1, keepdims=True), x.shape)
)
_wrong_vjp("channel/not-a-number", "a NaN in one channel's cotangent reaches the others")(
    lambda dx, g, x: dx + 0 * dx.sum(1, keepdims=True)
)


@_wrong_vjp("empty/refused", "a batch of nothing raises on the way back")
def _no_empty_back(dx, g, x):
    return dx.reshape(len(x), -1, *x.shape[2:])


_wrong_vjp("special/cleaned", "what is not finite is replaced in the cotangent")(
    lambda dx, g, x: right_vjp(np.nan_to_num(g), x)
)
_wrong_vjp("special/everywhere", "0 times the sum of the cotangent is added, which is NaN if an element is not finite")(
    lambda dx, g, x: dx + 0 * g.sum()
)


# -- the module --------------------------------------------------------------------------------------------------------

beginning("global_avg_pool2d.parameters.none/spare", "a parameter that nothing uses", GlobalAvgPool2d)(add_parameter)
beginning("global_avg_pool2d.parameters.none/spare-buffer", "a count that nothing uses is saved", GlobalAvgPool2d)(
    add_buffer
)
beginning("global_avg_pool2d.parameters.none/last-input", "the last input is saved", GlobalAvgPool2d)(save_input)

# -- what need not give a result ---------------------------------------------------------------------------------------

_wrong("global_avg_pool2d.image.empty/zero", "the mean of nothing is 0")(
    lambda x: right(x) if 0 not in x.shape[2:] else np.zeros(x.shape[:2], x.dtype)
)
_wrong("global_avg_pool2d.refuses.rank/last-axes", "the mean over the last two axes, whatever comes before them")(
    lambda x: x.mean((-2, -1))
)


disturbed_by_relu("global_avg_pool2d.call.neighbours/register", global_avg_pool2d=right)


_wrong("global_avg_pool2d.batch.absent/batch-stays", "an image without its batch gives a batch of one")(
    keeps_batch(right)
)
_wrong("global_avg_pool2d.batch.absent/reversed", "the channels of an image without its batch come in reverse")(
    changes_lone_image(right, lambda x: x[:, ::-1])
)
mistakes_in_memory("global_avg_pool2d", right)


def _divided_by_49(x):
    y = right(x)
    return (y * (x.shape[-2] * x.shape[-1] / 49)).astype(x.dtype)


fault(
    "global_avg_pool2d.domain.outside/fixed-divisor",
    "sums are divided by 49, whatever the image is",
    domain={"H": 7, "W": 7},
    global_avg_pool2d=_divided_by_49,
)

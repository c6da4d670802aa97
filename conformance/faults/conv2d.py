"""Wrong convolutions."""

import functools

import numpy as np
from nnspec.conformance.case import as_pair
from nnspec.conformance.faults import (
    add_buffer,
    add_parameter,
    as_if_contiguous,
    beginning,
    changes_lone_image,
    disturbed_by_relu,
    fault,
    first_two_sizes,
    in_kept_memory,
    keeps_batch,
    make_bias_a_buffer,
    mistakes_in_memory,
    one_array_for_each_shape,
    onto_input,
    redrawn,
    save_input,
    stopped_by,
)
from nnspec.reference.conv2d import Conv2d as Right
from nnspec.reference.conv2d import conv2d as right
from nnspec.reference.conv2d import conv2d_vjp as right_vjp
from nnspec.reference.windows import pad

BLOCKS_OF_16 = {"in_channels": {"multiple_of": 16}, "groups": 1}


def _wrong(key, mistake, domain=None):
    """The fault calls as `conv2d` does, with every argument given."""

    def add(function):
        @functools.wraps(function)
        def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
            return function(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)

        conv2d.__wrapped__ = None
        del conv2d.__wrapped__
        fault(key, mistake, domain=domain, conv2d=conv2d)
        return function

    return add


def _swap(pair):
    return as_pair(pair)[::-1]


_wrong("conv2d.kernel.orientation/flipped", "the kernel is flipped")(
    lambda x, w, b, **h: right(x, w[..., ::-1, ::-1], b, **h)
)
_wrong("conv2d.kernel.orientation/flipped-rows", "the kernel is upside down")(
    lambda x, w, b, **h: right(x, w[..., ::-1, :], b, **h)
)


@_wrong("conv2d.output.value/last-tap", "the last tap of the last channel is missed")
def _last_tap(x, w, b, **h):
    w = w.copy()
    w[:, -1, -1, -1] = 0
    return right(x, w, b, **h)


@_wrong("conv2d.output.value/one-element", "one element is off by one part in a thousand")
def _one_element(x, w, b, **h):
    y = right(x, w, b, **h)
    y[-1:, -1, -1, -1] *= 1.001
    return y


@_wrong("conv2d.output.value/half-precision", "the operands are rounded to float16 on the way")
def _half(x, w, b, **h):
    return right(x.astype(np.float16).astype(x.dtype), w, b, **h)


_wrong("conv2d.output.value/channel-block", "channels beyond the sixteenth are left out")(
    lambda x, w, b, **h: right(x[:, : 16 * h["groups"]], w[:, :16], b, **h)
)


@_wrong(
    "conv2d.stride.step/from-the-end",
    "windows are counted from the last row and column, and what is left over lies in front",
)
def _from_the_end(x, w, b, **h):
    padded = pad(x, as_pair(h["padding"]))
    for axis, (k, s, d) in enumerate(zip(w.shape[2:], as_pair(h["stride"]), as_pair(h["dilation"]), strict=True), 2):
        over = (padded.shape[axis] - d * (k - 1) - 1) % s
        padded = np.take(padded, range(over, padded.shape[axis]), axis) if padded.shape[axis] > d * (k - 1) else padded
    return right(padded, w, b, **{**h, "padding": 0})


_wrong("conv2d.bias.per-channel/ignored", "the bias is ignored")(lambda x, w, b, **h: right(x, w, None, **h))
_wrong("conv2d.bias.per-channel/per-input-channel", "the bias is added once per input channel")(
    lambda x, w, b, **h: right(x, w, b if b is None else b * w.shape[1], **h)
)
_wrong("conv2d.bias.per-channel/first-for-all", "one bias serves all channels")(
    lambda x, w, b, **h: right(x, w, b if b is None else np.repeat(b[:1], len(b)), **h)
)


@_wrong("conv2d.bias.per-channel/per-position", "each column has a bias of its own, in all channels")
def _per_position(x, w, b, **h):
    y = right(x, w, None, **h)
    return y if b is None else y + np.resize(b, y.shape[3])


for _name, _neutral in (("stride", 1), ("dilation", 1), ("padding", 0)):
    _rule = {"stride": "step", "dilation": "gap", "padding": "zeros"}[_name]
    _wrong(f"conv2d.{_name}.{_rule}/ignored", f"the {_name} is ignored")(
        lambda x, w, b, _n=_name, _v=_neutral, **h: right(x, w, b, **{**h, _n: _v})
    )
    _wrong(f"conv2d.{_name}.{_rule}/swapped", f"{_name}: rows and columns are exchanged")(
        lambda x, w, b, _n=_name, **h: right(x, w, b, **{**h, _n: _swap(h[_n])})
    )
    _wrong(f"conv2d.{_name}.{_rule}/rows-for-both", f"the {_name} of the rows serves the columns too")(
        lambda x, w, b, _n=_name, **h: right(x, w, b, **{**h, _n: as_pair(h[_n])[0]})
    )


@_wrong("conv2d.stride.step/one-pixel", "where rows are skipped, one pixel of each channel is its neighbour's")
def _one_pixel(x, w, b, **h):
    y = right(x, w, b, **h)
    if as_pair(h["stride"])[0] > 1:
        y[:, :, y.shape[2] // 2, -1:] = y[:, :, y.shape[2] // 2, :1]
    return y


@_wrong(
    "conv2d.dilation.gap/row-of-taps", "each row of taps is looked for D − 1 columns further right than it should be"
)
def _row_of_taps(x, w, b, *, padding, **h):
    x, y = pad(x, as_pair(padding)), 0
    for i in range(w.shape[2]):  # along the memory, in which one row follows the other
        row, shift = np.zeros_like(w), i * (as_pair(h["dilation"])[1] - 1)
        row[:, :, i] = w[:, :, i]
        y = y + right(np.roll(x.reshape(*x.shape[:2], -1), -shift, 2).reshape(x.shape), row, **h)
    return y if b is None else y + b[:, None, None]


@_wrong("conv2d.padding.zeros/edge", "the border is repeated in place of zeros")
def _edge(x, w, b, **h):
    ph, pw = as_pair(h.pop("padding"))
    return right(np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), mode="edge" if x.size else "constant"), w, b, **h)


@_wrong("conv2d.padding.zeros/before-after", "the pair is read as (before, after)")
def _before_after(x, w, b, **h):
    before, after = as_pair(h.pop("padding"))
    return right(np.pad(x, ((0, 0), (0, 0), (before, after), (before, after))), w, b, **h)


_wrong("conv2d.groups.block-diagonal/interleaved", "channels are dealt out to the groups in turn")(
    lambda x, w, b, **h: right(
        x.reshape(len(x), -1, h["groups"], *x.shape[2:]).swapaxes(1, 2).reshape(x.shape), w, b, **h
    )
)
_wrong("conv2d.groups.block-diagonal/rolled", "each group sees its neighbour's channels")(
    lambda x, w, b, **h: right(np.roll(x, w.shape[1], 1), w, b, **h)
)


def _numbers_alone(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    if not all(isinstance(value, int) for value in (stride, padding, dilation)):
        raise TypeError("stride, padding and dilation are numbers")
    return right(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


fault(
    "conv2d.arguments.pairs/numbers-alone",
    "stride, padding and dilation are numbers",
    narrowed=True,
    conv2d=_numbers_alone,
)


class _SquareKernel(Right):
    def __init__(self, in_channels, out_channels, kernel_size, **given):
        super().__init__(in_channels, out_channels, (int(kernel_size), int(kernel_size)), **given)


fault("conv2d.arguments.pairs/square-kernel", "the kernel is a square", narrowed=True, Conv2d=_SquareKernel)


_wrong(
    "conv2d.arguments.together/dilation-forgotten-with-stride", "the dilation is forgotten as soon as there is a stride"
)(lambda x, w, b, **h: right(x, w, b, **(h if h["stride"] == 1 else {**h, "dilation": 1})))
_wrong("conv2d.arguments.together/padding-forgotten-with-groups", "padding is forgotten as soon as there are groups")(
    lambda x, w, b, **h: right(x, w, b, **(h if h["groups"] == 1 else {**h, "padding": 0}))
)


@_wrong("conv2d.output.size/rounded-up", "the size is rounded up")
def _rounded_up(x, w, b, **h):
    sh, sw = as_pair(h["stride"])
    return right(np.pad(x, ((0, 0), (0, 0), (0, sh - 1), (0, sw - 1))), w, b, **h)


@_wrong("conv2d.output.size/undilated", "the size is that of a kernel without dilation")
def _undilated(x, w, b, **h):
    y, shape = right(x, w, b, **h), right(x, w, b, **{**h, "dilation": 1}).shape
    return np.pad(y, [(0, n - m) for n, m in zip(shape, y.shape, strict=True)])


_wrong("conv2d.output.dtype/float64", "the result is float64 whatever came in")(
    lambda x, w, b, **h: right(x, w, b, **h).astype(np.float64)
)
_wrong("conv2d.output.fresh/reused-buffer", "the result's memory is kept and used again")(in_kept_memory(right))


_wrong("conv2d.output.fresh/alias", "a 1×1 kernel of value 1 returns the input itself")(
    lambda x, w, b, **h: onto_input(right(x, w, b, **h), x)
)


@_wrong("conv2d.input.unchanged/scaled", "the input is changed in place")
def _in_place(x, w, b, **h):
    y = right(x, w, b, **h)
    x *= 2
    return y


@_wrong("conv2d.input.layout/memory-order", "the memory is read as if it were contiguous")
def _memory_order(x, w, b, **h):
    return right(as_if_contiguous(x), w, b, **h)


def _packed(x):
    """What lies where a packed image would have its elements, if it seems to have its channels last."""
    _, c, h, w = x.shape
    if not x.strides[1] == x.itemsize <= x.strides[3] <= x.strides[2] <= x.strides[0]:
        return x
    strides = (h * w * c, 1, w * c, c)
    return np.lib.stride_tricks.as_strided(x, x.shape, [s * x.itemsize for s in strides])


_wrong("conv2d.input.layout/channels-last-packed", "what seems to have its channels last is read as if it were packed")(
    lambda x, w, b, **h: right(_packed(x), w, b, **h)
)
_wrong("conv2d.input.layout/weight-stride-zero", "of kernels repeated by a stride of 0 only the first counts")(
    lambda x, w, b, **h: right(
        x,
        w if w.strides[0] or len(w) < 2 else w * (np.arange(len(w)) == 0).reshape(-1, 1, 1, 1).astype(w.dtype),
        b,
        **h,
    )
)


@_wrong("conv2d.batch.independent/mean", "every image sees the batch's mean")
def _mean(x, w, b, **h):
    return right(x, w, b, **h) if len(x) < 2 else right(x + (x.mean(0) - x[:1]) * (len(x) > 1), w, b, **h)


@_wrong("conv2d.batch.empty/refused", "a batch of nothing raises")
def _no_empty(x, w, b, **h):
    if not len(x):
        raise ValueError("empty batch")
    return right(x, w, b, **h)


_PLANS: dict[object, dict] = {}


@_wrong("conv2d.call.stateless/cached-plan", "a change of arguments takes effect one call too late")
def _cached(x, w, b, **h):
    plan, _PLANS["last"] = _PLANS.get("last", h), h
    try:
        return right(x, w, b, **plan)
    except ValueError:
        return right(x, w, b, **h)


for _name, _default in (("stride", 2), ("padding", 1), ("dilation", 2)):
    fault(
        f"conv2d.arguments.defaults/{_name}",
        f"the {_name} is {_default} unless it is given",
        conv2d=functools.partial(right, **{_name: _default}),
    )


def _in_order(x, weight, bias=None, *, stride=1, padding=0, dilation=1, **groups):
    return right(x, weight, bias, stride=stride, padding=padding, dilation=dilation if groups else 1, **groups)


fault("conv2d.arguments.defaults/in-order", "without groups, the dilation is not read", conv2d=_in_order)


def _keyed_without(name):
    """Programs are kept by the shapes and all arguments but this one."""
    kept = {}

    def cached(x, w, b, **h):
        shapes = x.shape, w.shape[:1] if name == "groups" else w.shape, x.dtype
        key = (*shapes, name == "bias" or b is None, *((n, as_pair(v)) for n, v in h.items() if n != name))
        first = kept.setdefault(key, {**h, "bias": b is None})
        plan = {n: first[n] for n in h}
        if plan["groups"] != h["groups"]:
            w = np.resize(w, (len(w), x.shape[1] // plan["groups"], *w.shape[2:]))
        bias = None if first["bias"] else np.zeros(len(w), x.dtype) if b is None else b
        try:
            return right(x, w, bias, **plan)
        except ValueError:
            return right(x, w, b, **h)

    return cached


for _name in ("stride", "padding", "dilation", "groups", "bias"):
    _wrong(f"conv2d.call.stateless/without-{_name}", f"programs are kept under a key that leaves out {_name}")(
        _keyed_without(_name)
    )


# -- special values, and the ends of the range -------------------------------------------------------------------------

_wrong("conv2d.special.value/cleaned", "what is not finite is replaced on the way in")(
    lambda x, w, b, **h: right(np.nan_to_num(x), w, b, **h)
)
_wrong(
    "conv2d.special.value/everywhere", "0 times the sum of all elements is added, which is NaN if one is not finite"
)(lambda x, w, b, **h: right(x, w, b, **h) + 0 * x.sum())
_wrong("conv2d.special.groups/as-one", "all groups see 0 times the channels of all groups")(
    lambda x, w, b, **h: right(x, w, b, **h) + 0 * x.sum((1, 2, 3), keepdims=True)
)
_wrong("conv2d.range.ends/clipped", "values are kept within ±10³⁰")(
    lambda x, w, b, **h: right(np.clip(x, -1e30, 1e30), w, b, **h)
)
_wrong("conv2d.range.ends/dropped", "what is below 10⁻³⁰ is taken for 0")(
    lambda x, w, b, **h: right(np.where(np.abs(x) < 1e-30, np.zeros_like(x), x), w, b, **h)
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def _wrong_vjp(key, mistake):
    """The fault has the right gradients at hand: function(dx, dweight, dbias, cotangent, x, weight, arguments)."""

    def add(function):
        def conv2d_vjp(cotangent, x, weight, bias=None, **arguments):
            return function(*right_vjp(cotangent, x, weight, bias, **arguments), cotangent, x, weight, arguments)

        fault(f"conv2d.gradient.{key}", mistake, conv2d_vjp=conv2d_vjp)
        return function

    return add


def _scattered(g, x, w, stride=1, padding=0, dilation=1, groups=1, *, put):
    """The gradient of x with `put` in the place of the sum."""
    (sh, sw), (ph, pw), (dh, dw) = map(as_pair, (stride, padding, dilation))
    (n, c, h, width), (o, cg, kh, kw) = x.shape, w.shape
    whole = np.zeros((n, c, h + 2 * ph, width + 2 * pw), x.dtype)
    for k, i, j in np.ndindex(o, kh, kw):
        group = slice(k // (o // groups) * cg, (k // (o // groups) + 1) * cg)
        rows = slice(i * dh, i * dh + sh * (g.shape[2] - 1) + 1, sh)
        columns = slice(j * dw, j * dw + sw * (g.shape[3] - 1) + 1, sw)
        put(whole[:, group, rows, columns], g[:, k, None] * w[k, :, i, j, None, None])
    return whole[:, :, ph : ph + h, pw : pw + width]


_wrong_vjp("x/kernel-flipped-twice", "the kernel is flipped on the way back as well")(
    lambda dx, dw, db, g, x, w, h: (right_vjp(g, x, w[..., ::-1, ::-1], **h)[0], dw, db)
)
_wrong_vjp("x/swapped-kernel", "the kernel's rows and columns are exchanged on the way back")(
    lambda dx, dw, db, g, x, w, h: (
        right_vjp(g, x, w.swapaxes(2, 3), **h)[0] if w.shape[2] == w.shape[3] else dx,
        dw,
        db,
    )
)
_wrong_vjp("x/overlap-overwritten", "where windows overlap, the last one wins")(
    lambda dx, dw, db, g, x, w, h: (_scattered(g, x, w, **h, put=lambda part, new: np.copyto(part, new)), dw, db)
)
_wrong_vjp("x/groups-rolled", "each group's cotangent goes to its neighbour's channels")(
    lambda dx, dw, db, g, x, w, h: (np.roll(dx, w.shape[1], 1), dw, db)
)


@_wrong_vjp("x/last-tap", "the last tap of the kernel is missed on the way back")
def _last_tap_back(dx, dw, db, g, x, w, h):
    w = w.copy()
    w[..., -1, -1] = 0
    return right_vjp(g, x, w, **h)[0], dw, db


@_wrong_vjp("x/edge-of-padding", "what falls on the padding is added to the border")
def _edge_of_padding(dx, dw, db, g, x, w, h):
    ph, pw = as_pair(h["padding"])
    whole = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    whole = right_vjp(g, whole, w, **{**h, "padding": 0})[0]
    if ph:
        whole[:, :, ph] += whole[:, :, :ph].sum(2)
    return whole[:, :, ph : ph + x.shape[2], pw : pw + x.shape[3]], dw, db


@_wrong_vjp(
    "x/channel-block",
    "in narrow images, where columns are skipped, channels beyond the sixteenth get their neighbour's gradient",
)
def _channel_block_back(dx, dw, db, g, x, w, h):
    if as_pair(h["stride"])[1] > 1 and x.shape[3] < 17:
        dx[:, 16:] = dx[:, 15:-1].copy()
    return dx, dw, db


_wrong_vjp("weight/mean-over-batch", "the weight's gradient is divided by the number of images")(
    lambda dx, dw, db, g, x, w, h: (dx, dw / max(1, len(x)), db)
)
_wrong_vjp("weight/last-image", "the last image of a batch is left out of the weight's gradient")(
    lambda dx, dw, db, g, x, w, h: (dx, right_vjp(g[:-1], x[:-1], w, **h)[1] if len(x) > 1 else dw, db)
)
_wrong_vjp("weight/flipped", "the weight's gradient is flipped")(
    lambda dx, dw, db, g, x, w, h: (dx, dw[..., ::-1, ::-1].copy(), db)
)
_wrong_vjp("weight/batch-of-one", "a batch of one image gives the weight no gradient")(
    lambda dx, dw, db, g, x, w, h: (dx, dw * (len(x) > 1), db)
)
_wrong_vjp("weight/in-half", "the weight's gradient goes through float16")(
    lambda dx, dw, db, g, x, w, h: (dx, dw.astype(np.float16).astype(dw.dtype), db)
)
_wrong_vjp("bias/mean", "the bias gets the mean of its cotangents")(
    lambda dx, dw, db, g, x, w, h: (dx, dw, None if db is None else g.mean((0, 2, 3)) if g.size else db)
)
_wrong_vjp("bias/first-row", "the bias gets the cotangents of the first row alone")(
    lambda dx, dw, db, g, x, w, h: (dx, dw, None if db is None else g[:, :, :1].sum((0, 2, 3)))
)


@_wrong_vjp("like-operand/covered-only", "the gradient of x is as large as what the windows cover")
def _covered_only(dx, dw, db, g, x, w, h):
    sizes = zip(x.shape[2:], w.shape[2:], *(as_pair(h[n]) for n in ("stride", "padding", "dilation")), strict=True)
    left_over = [(n + 2 * p - d * (k - 1) - 1) % s for n, k, s, p, d in sizes]
    rows, columns = (n - e for n, e in zip(x.shape[2:], left_over, strict=True))
    return dx[:, :, :rows, :columns], dw, db


@_wrong_vjp(
    "like-operand/stride-kept",
    "stride and dilation are not exchanged in the convolution that gives the weight's gradient",
)
def _stride_kept(dx, dw, db, g, x, w, h):
    if h["groups"] > 1:
        return dx, dw, db
    h = {name: h[name] for name in ("stride", "padding", "dilation")}
    return dx, right(x.swapaxes(0, 1), g.swapaxes(0, 1), **h).swapaxes(0, 1), db


_wrong_vjp("like-operand/wide", "the gradients are float64 whatever came in")(
    lambda dx, dw, db, g, x, w, h: tuple(None if a is None else a.astype(np.float64) for a in (dx, dw, db))
)
_wrong_vjp("like-operand/empty-without-padding", "[P:-P] cuts off the padding, and with P = 0 everything")(
    lambda dx, dw, db, g, x, w, h: (dx if np.all(h["padding"]) else dx[:, :, 0:-0], dw, db)
)


@_wrong_vjp("layout/memory-order", "the memory of the cotangent is read as if it were contiguous")
def _cotangent_memory(dx, dw, db, g, x, w, h):
    return right_vjp(as_if_contiguous(g), x, w, None if db is None else np.zeros(len(w)), **h)


@_wrong_vjp("unchanged/cotangent", "the cotangent is used as a place to work in")
def _scratch(dx, dw, db, g, x, w, h):
    if g.flags.writeable:
        g *= 2
    return dx, dw, db


_wrong_vjp("batch/divided", "the gradient of x is divided by the number of images")(
    lambda dx, dw, db, g, x, w, h: (dx / max(1, len(x)), dw, db)
)
_wrong_vjp("batch/first-for-all", "all images get the first one's gradient")(
    lambda dx, dw, db, g, x, w, h: (np.repeat(dx[:1], len(dx), 0), dw, db)
)
_wrong_vjp("empty/not-cleared", "without images the weight's gradient is whatever the memory held")(
    lambda dx, dw, db, g, x, w, h: (dx, dw if len(x) else dw + 1, db)
)

_wrong_vjp("special/cleaned", "what is not finite is replaced in the cotangent")(
    lambda dx, dw, db, g, x, w, h: right_vjp(np.nan_to_num(g), x, w, db, **h)
)
_wrong_vjp("special/everywhere", "0 times the sum of the cotangent is added, which is NaN if an element is not finite")(
    lambda dx, dw, db, g, x, w, h: (dx + 0 * g.sum(), dw, db)
)


# -- the module --------------------------------------------------------------------------------------------------------

beginning("conv2d.parameters.complete/spare", "a parameter that nothing uses", Right)(add_parameter)
beginning("conv2d.parameters.complete/bias-a-buffer", "the bias is a buffer", Right)(make_bias_a_buffer)
beginning("conv2d.gradient.frozen/weight-stops-x", "a frozen weight stops the gradient of x", Right)(
    stopped_by("weight")
)
beginning("conv2d.gradient.frozen/bias-stops-x", "a frozen bias stops the gradient of x", Right)(stopped_by("bias"))
beginning("conv2d.gradient.frozen/bias-stops-weight", "a frozen bias freezes the weight too", Right)(
    stopped_by("bias", "weight")
)
beginning("conv2d.buffers.none/spare", "a count that nothing uses is saved", Right)(add_buffer)
beginning("conv2d.buffers.none/last-input", "the last input is saved", Right)(save_input)
beginning("conv2d.state.own/weight", "layers of one shape share one weight", Right)(one_array_for_each_shape("weight"))
beginning("conv2d.state.own/bias", "layers of one shape share one bias", Right)(one_array_for_each_shape("bias"))

# -- refusals ----------------------------------------------------------------------------------------------------------


@_wrong("conv2d.refuses.rank/broadcast", "missing dimensions are made up, surplus ones dropped")
def _any_rank(x, w, b, **h):
    def four(a):
        a = a if a.ndim <= 4 else a[0]
        return a.reshape((1,) * (4 - a.ndim) + a.shape)

    try:
        return right(four(x), four(w), b, **h)
    except ValueError:
        if x.ndim == w.ndim == 4:
            raise
        return np.zeros((1, 1, 1, 1), x.dtype)


@_wrong("conv2d.refuses.rank/volume", "of five dimensions of x the first is dropped")
def _first_volume(x, w, b, **h):
    return right(x[0] if x.ndim == 5 else x, w, b, **h)


@_wrong("conv2d.refuses.rank/plane-of-weights", "a weight of two dimensions is the one kernel")
def _one_kernel(x, w, b, **h):
    return right(x, w, b, **h) if w.ndim != 2 else right(x[:, :1], w[None, None], None, **{**h, "groups": 1})


@_wrong("conv2d.refuses.channels/filled-up", "channels that are missing count as zeros")
def _filled_up(x, w, b, **h):
    missing = w.shape[1] * h["groups"] - x.shape[1]
    return right(np.pad(x, ((0, 0), (0, max(0, missing)), (0, 0), (0, 0))), w, b, **h)


@_wrong("conv2d.refuses.channels/cut", "channels are cut or filled up to what the weight has")
def _cut(x, w, b, **h):
    wanted = w.shape[1] * h["groups"]
    x = np.concatenate([x, np.zeros((len(x), wanted, *x.shape[2:]), x.dtype)], axis=1)[:, :wanted]
    return right(x, w, b, **h)


@_wrong("conv2d.refuses.channels/broadcast", "one channel serves for all that the weight has")
def _one_for_all(x, w, b, **h):
    return right(np.repeat(x, w.shape[1] * h["groups"], axis=1) if x.shape[1] == 1 else x, w, b, **h)


@_wrong("conv2d.refuses.groups/ignored", "groups that do not divide are taken as one")
def _any_groups(x, w, b, **h):
    groups = max(1, h["groups"])
    if x.shape[1] % groups or len(w) % groups or x.shape[1] != groups * w.shape[1]:
        return np.zeros((len(x), len(w), 1, 1), x.dtype)
    return right(x, w, b, **{**h, "groups": groups})


_wrong("conv2d.refuses.bias/broadcast", "a bias of any length is broadcast or cut")(
    lambda x, w, b, **h: right(x, w, b if b is None else np.resize(b, len(w)), **h)
)
for _name, _least in (("stride", 1), ("padding", 0), ("dilation", 1)):
    _wrong(f"conv2d.refuses.{_name}/clipped", f"an illegal {_name} is silently made legal")(
        lambda x, w, b, _n=_name, _v=_least, **h: right(x, w, b, **{**h, _n: tuple(max(_v, v) for v in as_pair(h[_n]))})
    )

    _wrong(f"conv2d.refuses.{_name}/rows-alone", f"the {_name} of the columns is not looked at")(
        lambda x, w, b, _n=_name, _v=_least, **h: right(
            x, w, b, **{**h, _n: (as_pair(h[_n])[0], max(_v, as_pair(h[_n])[1]))}
        )
    )

    _wrong(f"conv2d.refuses.{_name}/third-ignored", f"of three values of {_name} the last is ignored")(
        lambda x, w, b, _n=_name, **h: right(x, w, b, **{**h, _n: as_pair(h[_n])[:2]})
    )


beginning("conv2d.init.range/zeros", "the weight begins at 0", Right)(redrawn(lambda w: 0 * w, "weight"))
beginning("conv2d.init.range/equal", "every kernel begins as the first", Right)(redrawn(lambda w: w[:1], "weight"))
beginning("conv2d.init.range/positive", "no weight is negative", Right)(redrawn(np.abs, "weight"))
beginning(
    "conv2d.init.range/channels-alone",
    "the range is derived from the channels, and not from the kernel's size",
    Right,
)(redrawn(lambda w: 3 * w, "weight"))
fault(
    "conv2d.refuses.kernel-size/third-ignored",
    "of three sizes the last is ignored",
    Conv2d=first_two_sizes(Right),
)


@_wrong("conv2d.refuses.window/columns", "a kernel wider than the image gives a result without columns")
def _no_columns(x, w, b, **h):
    padding = as_pair(h["padding"])
    spans = [d * (k - 1) + 1 for d, k in zip(as_pair(h["dilation"]), w.shape[2:], strict=True)]
    if x.ndim == w.ndim == 4 and spans[1] > x.shape[3] + 2 * padding[1] and spans[0] <= x.shape[2] + 2 * padding[0]:
        return right(x, w[..., :1], b, **h)[..., :0]
    return right(x, w, b, **h)


@_wrong("conv2d.refuses.window/empty", "a kernel larger than the image gives an empty result")
def _empty_result(x, w, b, **h):
    try:
        return right(x, w, b, **h)
    except ValueError as error:
        if "spans" not in str(error):
            raise
        return np.zeros((len(x), len(w), 0, 0), x.dtype)


disturbed_by_relu("conv2d.call.neighbours/register", conv2d=right)


_wrong("conv2d.batch.absent/batch-stays", "an image without its batch gives a batch of one")(keeps_batch(right))
_wrong("conv2d.batch.absent/transposed", "rows and columns of an image without its batch change places")(
    changes_lone_image(right, lambda x: x.swapaxes(2, 3))
)


_wrong("conv2d.window.local/mean", "a hundredth of the image's mean is added everywhere")(
    lambda x, w, b, **h: (
        right(x, w, b, **h) + x.mean((1, 2, 3), keepdims=True) / 100 if x.ndim == 4 else right(x, w, b, **h)
    )
)


@_wrong("conv2d.law.shift/place", "an output is larger the further down it lies")
def _by_place(x, w, b, **h):
    y = right(x, w, b, **h)
    return y * (1 + np.arange(y.shape[2], dtype=y.dtype)[:, None] / 8)


@_wrong("conv2d.law.shift/tiles", "windows that begin in an odd column miss their last column")
def _by_column(x, w, b, **h):
    y = right(x, w, b, **h)
    without = w.copy()
    without[..., -1] = 0
    y[..., 1::2] = right(x, without, b, **h)[..., 1::2]
    return y


def _same(key, mistake, borders):
    """The fault pads an axis by borders(D·(K − 1), K) where the padding is "same"."""

    @_wrong(f"conv2d.padding.same/{key}", mistake)
    def _(x, w, b, **h):
        if h["padding"] != "same":
            return right(x, w, b, **h)
        sizes = zip(as_pair(h["dilation"]), w.shape[2:], strict=True)
        padded = np.pad(x, ((0, 0), (0, 0), *(borders(d * (k - 1), k) for d, k in sizes)))
        return right(padded, w, b, **{**h, "padding": 0})


_same("near-end", "one more row and column at the near end", lambda total, k: (total - total // 2, total // 2))
_same("half-kernel", "half of the kernel on each side", lambda total, k: (k // 2, k // 2))
_wrong("conv2d.padding.valid/one", "the word stands for a padding of 1")(
    lambda x, w, b, **h: right(x, w, b, **{**h, "padding": 1 if h["padding"] == "valid" else h["padding"]})
)
mistakes_in_memory("conv2d", right)


@_wrong("conv2d.domain.outside/whole-blocks", "channels behind the last whole block of 16 are left out", BLOCKS_OF_16)
def _whole_blocks(x, w, b, **h):
    channels = w.shape[1] // 16 * 16
    return right(x[:, :channels], w[:, :channels], b, **h) if channels else right(x * 0, w, b, **h)


@_wrong("conv2d.domain.outside/one-stride", "the stride decides the size of the result alone", {"stride": 1})
def _one_stride(x, w, b, **h):
    (oh, ow), y = right(x, w, b, **h).shape[2:], right(x, w, b, **{**h, "stride": 1})
    return y[:, :, :oh, :ow].copy()


@_wrong("conv2d.domain.outside/three-rows", "a kernel larger than 3 × 3 loses its border", {"kernel_size": 3})
def _three_rows(x, w, b, **h):
    w = w.copy()
    w[:, :, 3:], w[..., 3:] = 0, 0
    return right(x, w, b, **h)

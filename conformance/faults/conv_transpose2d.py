"""Wrong transposed convolutions."""

from functools import partial

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
from nnspec.reference.conv2d import conv2d
from nnspec.reference.conv_transpose2d import ConvTranspose2d as Right
from nnspec.reference.conv_transpose2d import conv_transpose2d as right
from nnspec.reference.conv_transpose2d import conv_transpose2d_vjp as right_vjp

_LEAST = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}


def _wrong(key, mistake):
    """The fault is called with every argument given; the four about rows and columns are pairs."""

    def add(function):
        def conv_transpose2d(x, weight, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
            pairs = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
            return function(x, weight, bias, **{n: as_pair(v) for n, v in pairs.items()}, groups=groups)

        fault(key, mistake, conv_transpose2d=conv_transpose2d)
        return function

    return add


def _or_right(function):
    """Where the mistake leads to what is refused, the right result."""

    def attempt(x, w, b, **h):
        try:
            return function(x, w, b, **h)
        except ValueError:
            return right(x, w, b, **h)

    return attempt


# -- kernels and values ------------------------------------------------------------------------------------------------

_wrong("conv_transpose2d.kernel.orientation/flipped", "the kernel is flipped")(
    lambda x, w, b, **h: right(x, w[..., ::-1, ::-1], b, **h)
)
_wrong(
    "conv_transpose2d.kernel.orientation/transposed", "rows and columns of the kernel are exchanged if it is square"
)(lambda x, w, b, **h: right(x, w.swapaxes(2, 3) if w.shape[2] == w.shape[3] else w, b, **h))
_wrong("conv_transpose2d.kernel.channels/outputs-first", "(O, C, …), as in a convolution, where both fit")(
    lambda x, w, b, **h: right(x, w.swapaxes(0, 1) if w.shape[0] == w.shape[1] else w, b, **h)
)


@_wrong("conv_transpose2d.output.value/last-tap", "the last tap of the last channel is missed")
def _last_tap(x, w, b, **h):
    w = w.copy()
    w[-1:, :, -1, -1] = 0
    return right(x, w, b, **h)


@_wrong("conv_transpose2d.output.value/assigned", "a copy of the kernel overwrites the ones before it")
def _assigned(x, w, b, **h):
    if h["stride"] != (1, 1) or w.shape[2] == 1:
        return right(x, w, b, **h)
    kept = x.copy()
    kept[:, :, :-1] = 0  # all rows but the last are overwritten where copies overlap
    first = right(x, w, b, **h)
    rows = h["dilation"][0] * (w.shape[2] - 1) + 1
    first[:, :, -rows:] = right(kept, w, b, **h)[:, :, -rows:]
    return first


_wrong("conv_transpose2d.output.value/half-precision", "the operands are rounded to float16 on the way")(
    lambda x, w, b, **h: right(x.astype(np.float16).astype(x.dtype), w, b, **h)
)


@_wrong("conv_transpose2d.output.value/channel-block", "channels beyond the sixteenth are left out")
def _channel_block(x, w, b, **h):
    x = x.copy()
    x[:, 16 * h["groups"] :] = 0
    return right(x, w, b, **h)


_wrong("conv_transpose2d.bias.per-channel/ignored", "the bias is ignored")(lambda x, w, b, **h: right(x, w, None, **h))
_wrong("conv_transpose2d.bias.per-channel/first-for-all", "one bias serves all channels")(
    lambda x, w, b, **h: right(x, w, b if b is None else np.repeat(b[:1], len(b)), **h)
)


@_wrong("conv_transpose2d.bias.per-channel/per-product", "the bias is added with every product, and with none to gaps")
def _per_product(x, w, b, **h):
    y = right(x, w, None, **h)
    if b is None:
        return y
    # each group's products, counted by one channel of ones
    counts = right(np.ones((1, 1, *x.shape[2:]), x.dtype), np.ones((1, 1, *w.shape[2:]), x.dtype), **{**h, "groups": 1})
    return y + counts * b[:, None, None]


# -- stride, padding, output padding, dilation -------------------------------------------------------------------------

for _name, _rule in (("stride", "step"), ("padding", "crop"), ("dilation", "gap")):
    _wrong(f"conv_transpose2d.{_name}.{_rule}/ignored", f"the {_name} is ignored")(
        lambda x, w, b, _n=_name, **h: right(x, w, b, **{**h, _n: _LEAST[_n]})
    )
    _wrong(f"conv_transpose2d.{_name}.{_rule}/swapped", f"{_name}: rows and columns are exchanged")(
        lambda x, w, b, _n=_name, **h: right(x, w, b, **{**h, _n: h[_n][::-1]})
    )
    _wrong(f"conv_transpose2d.{_name}.{_rule}/rows-for-both", f"the {_name} of the rows serves the columns too")(
        lambda x, w, b, _n=_name, **h: right(x, w, b, **{**h, _n: h[_n][0]})
    )


@_wrong("conv_transpose2d.stride.step/skipped", "the stride skips elements of the image")
def _skipped(x, w, b, *, stride, **h):
    return right(x[:, :, :: stride[0], :: stride[1]], w, b, stride=1, **h)


@_wrong("conv_transpose2d.padding.crop/added", "padding adds zeros to the image")
def _added(x, w, b, *, padding, **h):
    rows, columns = ((p, p) for p in padding)
    return right(np.pad(x, ((0, 0), (0, 0), rows, columns)), w, b, padding=0, **h)


@_wrong("conv_transpose2d.padding.crop/far-side", "everything is taken off the bottom and the right")
def _far_side(x, w, b, *, padding, **h):
    y = right(x, w, b, padding=0, **h)
    return y[:, :, : y.shape[2] - 2 * padding[0], : y.shape[3] - 2 * padding[1]]


@_wrong("conv_transpose2d.padding.crop/before-after", "the pair is read as (before, after)")
def _before_after(x, w, b, *, padding, **h):
    (before, after), y = padding, right(x, w, b, padding=0, **h)
    return y[:, :, before : y.shape[2] - after, before : y.shape[3] - after]


_wrong("conv_transpose2d.output-padding.far-end/ignored", "`output_padding` is ignored")(
    lambda x, w, b, output_padding, **h: right(x, w, b, output_padding=0, **h)
)
_wrong("conv_transpose2d.output-padding.far-end/swapped", "`output_padding`: rows and columns are exchanged")(
    _or_right(lambda x, w, b, output_padding, **h: right(x, w, b, output_padding=output_padding[::-1], **h))
)


@_wrong("conv_transpose2d.output-padding.far-end/near-end", "the rows and columns are added at the top and on the left")
def _near_end(x, w, b, *, output_padding, **h):
    y, (rows, columns) = right(x, w, None, output_padding=0, **h), output_padding
    y = np.pad(y, ((0, 0), (0, 0), (rows, 0), (columns, 0)))
    return y if b is None else y + b[:, None, None]


def _attached(value):
    """The result without output padding, and rows and columns of value(bias) attached."""

    def conv_transpose2d(x, w, b, *, output_padding, **h):
        y = right(x, w, b, output_padding=0, **h)
        whole = np.empty((*y.shape[:2], *(n + e for n, e in zip(y.shape[2:], output_padding, strict=True))), y.dtype)
        whole[...] = value(b)
        whole[:, :, : y.shape[2], : y.shape[3]] = y
        return whole

    return conv_transpose2d


_wrong("conv_transpose2d.output-padding.computed/zeros", "zeros are attached")(_attached(lambda b: 0))
_wrong("conv_transpose2d.output-padding.computed/bias-alone", "the bias alone is attached")(
    _attached(lambda b: 0 if b is None else b[:, None, None])
)
_wrong("conv_transpose2d.dilation.gap/stride", "dilation and stride are exchanged")(
    lambda x, w, b, stride, dilation, **h: right(x, w, b, stride=dilation, dilation=stride, **h)
)

# -- groups, and everything together -----------------------------------------------------------------------------------


@_wrong("conv_transpose2d.groups.block-diagonal/interleaved", "the groups' outputs are dealt out in turn")
def _interleaved(x, w, b, **h):
    y = right(x, w, None, **h)
    y = y.reshape(len(y), h["groups"], -1, *y.shape[2:]).swapaxes(1, 2).reshape(y.shape)
    return y if b is None else y + b[:, None, None]


_wrong("conv_transpose2d.groups.block-diagonal/outputs-first", "a group's kernels lie outputs first, where both fit")(
    lambda x, w, b, **h: right(x, _in_another_order(w, h["groups"]) if h["groups"] > 1 else w, b, **h)
)
_wrong("conv_transpose2d.groups.block-diagonal/rolled", "each group sees its neighbour's channels")(
    lambda x, w, b, **h: right(np.roll(x, x.shape[1] // h["groups"], 1) if h["groups"] > 1 else x, w, b, **h)
)


@_wrong("conv_transpose2d.groups.block-diagonal/ignored", "every channel reaches every group")
def _all_groups(x, w, b, *, groups, **h):
    return right(x, np.tile(w, (1, groups, 1, 1)), b, groups=1, **h)


def _numbers_alone(x, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    if not all(isinstance(value, int) for value in (stride, padding, output_padding, dilation)):
        raise TypeError("stride, padding, output padding and dilation are numbers")
    rest = {"output_padding": output_padding, "dilation": dilation, "groups": groups}
    return right(x, weight, bias, stride=stride, padding=padding, **rest)


fault(
    "conv_transpose2d.arguments.pairs/numbers-alone",
    "stride, padding, output padding and dilation are numbers",
    narrowed=True,
    conv_transpose2d=_numbers_alone,
)


class _SquareKernel(Right):
    def __init__(self, in_channels, out_channels, kernel_size, **given):
        super().__init__(in_channels, out_channels, (int(kernel_size), int(kernel_size)), **given)


fault(
    "conv_transpose2d.arguments.pairs/square-kernel",
    "the kernel is a square",
    narrowed=True,
    ConvTranspose2d=_SquareKernel,
)


_wrong("conv_transpose2d.arguments.together/dilation-forgotten-with-stride", "with a stride, dilation counts 1")(
    _or_right(lambda x, w, b, **h: right(x, w, b, **(h if max(h["stride"]) == 1 else {**h, "dilation": 1})))
)
_wrong("conv_transpose2d.arguments.together/padding-forgotten-with-groups", "with groups, padding counts 0")(
    lambda x, w, b, **h: right(x, w, b, **(h if h["groups"] == 1 else {**h, "padding": 0}))
)
_wrong("conv_transpose2d.arguments.together/exchanged", "stride and dilation are exchanged where neither is 1")(
    lambda x, w, b, stride, dilation, **h: right(
        x,
        w,
        b,
        **{"stride": dilation, "dilation": stride}
        if min(stride + dilation) > 1
        else {"stride": stride, "dilation": dilation},
        **h,
    )
)


@_wrong("conv_transpose2d.arguments.together/one-by-one", "a dilated kernel of 1×1 is refused where there are groups")
def _one_by_one(x, w, b, **h):
    if w.shape[2:] == (1, 1) and h["groups"] > 1 and max(h["dilation"]) > 1:
        raise ValueError(f"weight of shape {w.shape} with groups={h['groups']}")
    return right(x, w, b, **h)


def _reached(size, n, k, s, p, d):
    """(size, n, k): 1 where a row gets something of that element of x by that tap, as one library gathers it."""
    taps = np.zeros((size, n, k), int)
    for row in range(size):
        at, extent = row + p, d * (k - 1) + 1
        first = at % d if at < extent else (at - extent + s) // s
        for element in range(first, min((at + s) // s, n), d):
            taps[row, element, (at - element * s) // d] = 1
    return taps


@_wrong(
    "conv_transpose2d.arguments.together/floored",
    "every D-th element alone is asked what it gives, and by a tap that is rounded down where the stride leaves a rest",
)
def _floored(x, w, b, *, groups, **h):
    shape = right(x, w, b, groups=groups, **h).shape
    pairs = zip(*(h[name] for name in ("stride", "padding", "dilation")), strict=True)
    sizes = zip(shape[2:], x.shape[2:], w.shape[2:], strict=True)
    rows, columns = (_reached(*size, *pair).astype(x.dtype) for size, pair in zip(sizes, pairs, strict=True))
    images = x.reshape(len(x), groups, len(w) // groups, *x.shape[2:])
    kernels = w.reshape(groups, len(w) // groups, *w.shape[1:])
    y = np.einsum("ngcpq,gcoij,rpi,sqj->ngors", images, kernels, rows, columns, optimize=True).reshape(shape)
    return y if b is None else y + b[:, None, None]


_wrong("conv_transpose2d.law.adjoint/flipped", "the kernel is flipped")(
    lambda x, w, b, **h: right(x, w[..., ::-1, ::-1], b, **h)
)


@_wrong("conv_transpose2d.law.adjoint/nearest", "an up-sampling by repetition, without a kernel")
def _nearest(x, w, b, **h):
    y = np.zeros_like(right(x, w, None, **h))
    rows, columns = (np.arange(n) * m // n for n, m in zip(y.shape[2:], x.shape[2:], strict=True))
    return y + x[:, :1, rows][..., columns]


@_wrong("conv_transpose2d.law.shift/place", "an output is larger the further down it lies")
def _by_place(x, w, b, **h):
    y = right(x, w, b, **h)
    return y * (1 + np.arange(y.shape[2], dtype=y.dtype)[:, None] / 8)


@_wrong("conv_transpose2d.law.shift/tiles", "elements of odd columns miss the last column of the kernel")
def _by_column(x, w, b, **h):
    without = w.copy()
    without[..., -1] = 0
    x = x.copy()
    odd = np.zeros_like(x)
    odd[..., 1::2], x[..., 1::2] = x[..., 1::2], 0
    return right(x, w, b, **h) + right(odd, without, None, **h)


for _name, _default in (("stride", 2), ("padding", 1), ("dilation", 2)):
    fault(
        f"conv_transpose2d.arguments.defaults/{_name}",
        f"the {_name} is {_default} unless it is given",
        conv_transpose2d=partial(right, **{_name: _default}),
    )


def _doubling(x, weight, bias=None, *, stride=1, output_padding=None, **rest):
    if output_padding is None:
        output_padding = tuple(s - 1 for s in as_pair(stride))
    return right(x, weight, bias, stride=stride, output_padding=output_padding, **rest)


fault(
    "conv_transpose2d.arguments.defaults/output-padding",
    "the output padding is the stride less 1 unless it is given",
    conv_transpose2d=_doubling,
)


# -- results and operands ----------------------------------------------------------------------------------------------


@_wrong("conv_transpose2d.output.size/times-stride", "H·S rows and W·S columns")
def _times_stride(x, w, b, **h):
    y = right(x, w, b, **h)
    rows, columns = (n * s for n, s in zip(x.shape[2:], h["stride"], strict=True))
    return np.pad(y, ((0, 0), (0, 0), (0, rows), (0, columns)))[:, :, :rows, :columns]


@_wrong("conv_transpose2d.output.size/dilation-once", "dilation is added to the kernel's size, K + D − 1")
def _dilation_once(x, w, b, **h):
    y = right(x, w, b, **h)
    rows, columns = (
        max(1, n - (k - 2) * (d - 1)) for n, k, d in zip(y.shape[2:], w.shape[2:], h["dilation"], strict=True)
    )
    return np.pad(y, ((0, 0), (0, 0), (0, rows), (0, columns)))[:, :, :rows, :columns]


_wrong("conv_transpose2d.output.size/no-output-padding", "the size leaves `output_padding` out")(
    lambda x, w, b, output_padding, **h: right(x, w, b, output_padding=0, **h)
)
_wrong("conv_transpose2d.output.dtype/float64", "the result is float64 whatever came in")(
    lambda x, w, b, **h: right(x, w, b, **h).astype(np.float64 if x.dtype == np.float32 else np.float32)
)
_wrong("conv_transpose2d.output.fresh/reused-buffer", "the result's memory is kept and used again")(
    in_kept_memory(right)
)


_wrong("conv_transpose2d.output.fresh/alias", "a result of the input's shape is written into the input")(
    lambda x, w, b, **h: onto_input(right(x, w, b, **h), x)
)


@_wrong("conv_transpose2d.input.unchanged/flipped", "the kernel is flipped in place")
def _flipped_in_place(x, w, b, **h):
    y = right(x, w, b, **h)
    w[...] = w[..., ::-1, ::-1].copy()
    return y


@_wrong("conv_transpose2d.input.unchanged/scaled", "the input is changed in place")
def _in_place(x, w, b, **h):
    y = right(x, w, b, **h)
    x *= 2
    return y


@_wrong("conv_transpose2d.input.layout/memory-order", "the image's memory is read as if it were contiguous")
def _memory_order(x, w, b, **h):
    return right(as_if_contiguous(x), w, b, **h)


@_wrong("conv_transpose2d.input.layout/memory-order-of-the-weight", "the weight's memory is read as if contiguous")
def _memory_order_of_the_weight(x, w, b, **h):
    return right(x, as_if_contiguous(w), b, **h)


_wrong("conv_transpose2d.batch.independent/running", "the result is not cleared between images")(
    lambda x, w, b, **h: np.cumsum(right(x, w, b, **h), axis=0, dtype=x.dtype)
)


@_wrong("conv_transpose2d.batch.empty/refused", "a batch of nothing raises")
def _no_empty(x, w, b, **h):
    if not len(x):
        raise ValueError("empty batch")
    return right(x, w, b, **h)


_PLANS: dict[str, dict] = {}


@_wrong("conv_transpose2d.call.stateless/cached-plan", "a change of arguments takes effect one call too late")
def _cached(x, w, b, **h):
    plan, _PLANS["last"] = _PLANS.get("last", h), h
    try:
        return right(x, w, b, **plan)
    except ValueError:
        return right(x, w, b, **h)


def _keyed_without(name):
    """Programs are kept by the shapes and all arguments but this one."""
    kept = {}

    def cached(x, w, b, **h):
        shapes = x.shape, w.shape[:1] if name == "groups" else w.shape, x.dtype
        key = (*shapes, name == "bias" or b is None, *((n, as_pair(v)) for n, v in h.items() if n != name))
        first = kept.setdefault(key, {**h, "bias": b is None})
        plan = {n: first[n] for n in h}
        if plan["groups"] != h["groups"]:
            w = np.resize(w, (len(w), w.shape[1] * h["groups"] // plan["groups"], *w.shape[2:]))
        bias = None if first["bias"] else np.zeros(w.shape[1] * plan["groups"], x.dtype) if b is None else b
        try:
            return right(x, w, bias, **plan)
        except ValueError:
            return right(x, w, b, **h)

    return cached


for _name in ("stride", "padding", "output_padding", "dilation", "groups", "bias"):
    _wrong(
        f"conv_transpose2d.call.stateless/without-{_name.replace('_', '-')}",
        f"programs are kept under a key that leaves out {_name}",
    )(_keyed_without(_name))


# -- special values, and the ends of the range -------------------------------------------------------------------------

_wrong("conv_transpose2d.special.value/cleaned", "what is not finite is replaced on the way in")(
    lambda x, w, b, **h: right(np.nan_to_num(x), w, b, **h)
)
_wrong(
    "conv_transpose2d.special.value/everywhere",
    "0 times the sum of all elements is added, which is NaN if one is not finite",
)(lambda x, w, b, **h: right(x, w, b, **h) + 0 * x.sum())
_wrong("conv_transpose2d.special.groups/as-one", "all groups see 0 times the channels of all groups")(
    lambda x, w, b, **h: right(x, w, b, **h) + 0 * x.sum((1, 2, 3), keepdims=True)
)
_wrong("conv_transpose2d.range.ends/clipped", "values are kept within ±10³⁰")(
    lambda x, w, b, **h: right(np.clip(x, -1e30, 1e30), w, b, **h)
)
_wrong("conv_transpose2d.range.ends/dropped", "what is below 10⁻³⁰ is taken for 0")(
    lambda x, w, b, **h: right(np.where(np.abs(x) < 1e-30, np.zeros_like(x), x), w, b, **h)
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def _wrong_vjp(key, mistake):
    """The fault has the right gradients at hand: function(dx, dweight, dbias, cotangent, x, weight, arguments)."""

    def add(function):
        def conv_transpose2d_vjp(cotangent, x, weight, bias=None, *, groups=1, **pairs):
            h = {**_LEAST, **pairs}
            h = {**{n: as_pair(v) for n, v in h.items()}, "groups": groups}
            return function(*right_vjp(cotangent, x, weight, bias, **h), cotangent, x, weight, h)

        fault(f"conv_transpose2d.gradient.{key}", mistake, conv_transpose2d_vjp=conv_transpose2d_vjp)
        return function

    return add


def _convolved(g, w, *, output_padding=0, **h):
    """The gradient of x before it is cut to as many rows and columns as x has."""
    return conv2d(g, w, **h)


def _fitted(a, like):
    """Cut, or filled with zeros, to the size of another image."""
    fitted = np.zeros_like(like)
    rows, columns = map(min, a.shape[2:], like.shape[2:])
    fitted[:, :, :rows, :columns] = a[:, :, :rows, :columns]
    return fitted


def _without_output_padding(g, h):
    """The cotangent with zeros in the rows and columns that output padding kept."""
    g = g.copy()
    for axis, e in zip((2, 3), h["output_padding"], strict=True):
        np.moveaxis(g, axis, 0)[g.shape[axis] - e :] = 0
    return g


def _outputs_first(w, groups):
    """(C, O/groups, KH, KW) -> (O, C/groups, KH, KW)"""
    c, o, *kernel = w.shape
    return w.reshape(groups, c // groups, o, *kernel).swapaxes(1, 2).reshape(groups * o, c // groups, *kernel)


def _in_another_order(w, groups):
    """The kernel's channels in the order of a convolution, where both fit."""
    other = _outputs_first(w, groups)
    return other if other.shape == w.shape else w


_wrong_vjp("x/flipped", "the kernel is flipped on the way back")(
    lambda dx, dw, db, g, x, w, h: (right_vjp(g, x, w[..., ::-1, ::-1], **h)[0], dw, db)
)
_wrong_vjp("x/outputs-first", "the kernel's channels are taken as those of a convolution, where both fit")(
    lambda dx, dw, db, g, x, w, h: (right_vjp(g, x, _in_another_order(w, h["groups"]), **h)[0], dw, db)
)
_wrong_vjp("x/groups-rolled", "each group's cotangent goes to its neighbour's channels")(
    lambda dx, dw, db, g, x, w, h: (np.roll(dx, len(w) // h["groups"], 1), dw, db)
)
_wrong_vjp("x/output-padding-dropped", "the rows of output padding are cut off the cotangent")(
    lambda dx, dw, db, g, x, w, h: (right_vjp(_without_output_padding(g, h), x, w, **h)[0], dw, db)
)


@_wrong_vjp("x/stride-dilation", "stride and dilation are exchanged on the way back")
def _stride_dilation(dx, dw, db, g, x, w, h):
    try:
        return _fitted(_convolved(g, w, **{**h, "stride": h["dilation"], "dilation": h["stride"]}), dx), dw, db
    except ValueError:
        return dx, dw, db


@_wrong_vjp("x/not-padded", "the cotangent is not padded where the output was cropped")
def _not_padded(dx, dw, db, g, x, w, h):
    try:
        return _fitted(_convolved(g, w, **{**h, "padding": 0}), dx), dw, db
    except ValueError:
        return dx, dw, db


@_wrong_vjp("x/last-tap", "the last tap of the kernel is missed on the way back")
def _last_tap_back(dx, dw, db, g, x, w, h):
    w = w.copy()
    w[..., -1, -1] = 0
    return right_vjp(g, x, w, **h)[0], dw, db


@_wrong_vjp("x/first-group", "other groups than the first get nothing back")
def _first_group(dx, dw, db, g, x, w, h):
    dx[:, len(w) // h["groups"] :] = 0
    return dx, dw, db


_wrong_vjp("weight/mean-over-batch", "the weight's gradient is divided by the number of images")(
    lambda dx, dw, db, g, x, w, h: (dx, dw / max(1, len(x)), db)
)
_wrong_vjp("weight/last-image", "the last image of a batch is left out of the weight's gradient")(
    lambda dx, dw, db, g, x, w, h: (dx, right_vjp(g[:-1], x[:-1], w, **h)[1] if len(x) > 1 else dw, db)
)
_wrong_vjp("weight/batch-of-one", "a batch of one image gives the weight no gradient")(
    lambda dx, dw, db, g, x, w, h: (dx, dw * (len(x) > 1), db)
)
_wrong_vjp("weight/flipped", "the weight's gradient is flipped")(
    lambda dx, dw, db, g, x, w, h: (dx, dw[..., ::-1, ::-1].copy(), db)
)
_wrong_vjp("weight/outputs-first", "the weight's gradient is that of a convolution's weight, where both fit")(
    lambda dx, dw, db, g, x, w, h: (dx, _in_another_order(dw, h["groups"]), db)
)
_wrong_vjp("weight/groups-rolled", "each group's weight gets its neighbour's gradient")(
    lambda dx, dw, db, g, x, w, h: (dx, np.roll(dw, len(w) // h["groups"], 0), db)
)
_wrong_vjp("weight/output-padding-dropped", "the rows of output padding are cut off the cotangent")(
    lambda dx, dw, db, g, x, w, h: (dx, right_vjp(_without_output_padding(g, h), x, w, **h)[1], db)
)
_wrong_vjp("weight/in-half", "the weight's gradient goes through float16")(
    lambda dx, dw, db, g, x, w, h: (dx, dw.astype(np.float16).astype(dw.dtype), db)
)


@_wrong_vjp("weight/windows-beyond", "windows of the cotangent that x has no elements for meet its last ones again")
def _windows_beyond(dx, dw, db, g, x, w, h):
    rows, columns = (n - m for n, m in zip(_convolved(g, w, **h).shape[2:], x.shape[2:], strict=True))
    if not (rows or columns) or not len(x):
        return dx, dw, db
    x = np.pad(x, ((0, 0), (0, 0), (0, rows), (0, columns)), mode="edge")
    output_padding = (e - n * s for e, n, s in zip(h["output_padding"], (rows, columns), h["stride"], strict=True))
    return dx, right_vjp(g, x, w, **{**h, "output_padding": tuple(output_padding)})[1], db


_wrong_vjp("bias/mean", "the bias gets the mean of its cotangents")(
    lambda dx, dw, db, g, x, w, h: (dx, dw, None if db is None else g.mean((0, 2, 3)) if g.size else db)
)
_wrong_vjp("bias/first-row", "the bias gets the cotangents of the first row alone")(
    lambda dx, dw, db, g, x, w, h: (dx, dw, None if db is None else g[:, :, :1].sum((0, 2, 3)))
)
_wrong_vjp("bias/output-padding-dropped", "the rows of output padding give the bias nothing")(
    lambda dx, dw, db, g, x, w, h: (dx, dw, None if db is None else _without_output_padding(g, h).sum((0, 2, 3)))
)


@_wrong_vjp("bias/gaps", "gaps between the copies of the kernel give the bias nothing")
def _gaps(dx, dw, db, g, x, w, h):
    reached = right(np.ones((1, 1, *x.shape[2:])), np.ones((1, 1, *w.shape[2:])), **{**h, "groups": 1}) != 0
    return dx, dw, None if db is None else (g * reached).astype(g.dtype).sum((0, 2, 3))


_wrong_vjp("like-operand/as-convolved", "the gradient of x is as large as a convolution of the cotangent")(
    lambda dx, dw, db, g, x, w, h: (_convolved(g, w, **h), dw, db)
)
_wrong_vjp("like-operand/outputs-first", "the weight's gradient has the shape of a convolution's weight")(
    lambda dx, dw, db, g, x, w, h: (dx, _outputs_first(dw, h["groups"]), db)
)
_wrong_vjp("like-operand/wide", "the gradients are float64 whatever came in")(
    lambda dx, dw, db, g, x, w, h: tuple(None if a is None else a.astype(np.float64) for a in (dx, dw, db))
)


@_wrong_vjp("layout/memory-order", "the memory of the cotangent is read as if it were contiguous")
def _cotangent_memory(dx, dw, db, g, x, w, h):
    return right_vjp(as_if_contiguous(g), x, w, db, **h)


@_wrong_vjp("unchanged/cropped", "the cotangent's rows of output padding are cleared in place")
def _cropped_in_place(dx, dw, db, g, x, w, h):
    if g.flags.writeable:
        g[...] = _without_output_padding(g, h)
    return dx, dw, db


@_wrong_vjp("unchanged/flipped", "the kernel is flipped in place on the way back")
def _flipped_on_the_way_back(dx, dw, db, g, x, w, h):
    w[...] = w[..., ::-1, ::-1].copy()
    return dx, dw, db


_wrong_vjp("batch/divided", "the gradient of x is divided by the number of images")(
    lambda dx, dw, db, g, x, w, h: (dx / max(1, len(x)), dw, db)
)
_wrong_vjp("batch/running", "the gradient of x is not cleared between images")(
    lambda dx, dw, db, g, x, w, h: (np.cumsum(dx, axis=0, dtype=x.dtype), dw, db)
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

beginning("conv_transpose2d.parameters.complete/spare", "a parameter that nothing uses", Right)(add_parameter)
beginning("conv_transpose2d.parameters.complete/bias-a-buffer", "the bias is a buffer", Right)(make_bias_a_buffer)
beginning("conv_transpose2d.gradient.frozen/weight-stops-x", "a frozen weight stops the gradient of x", Right)(
    stopped_by("weight")
)
beginning("conv_transpose2d.gradient.frozen/bias-stops-x", "a frozen bias stops the gradient of x", Right)(
    stopped_by("bias")
)
beginning("conv_transpose2d.gradient.frozen/bias-stops-weight", "a frozen bias freezes the weight too", Right)(
    stopped_by("bias", "weight")
)
beginning("conv_transpose2d.buffers.none/spare", "a count that nothing uses is saved", Right)(add_buffer)
beginning("conv_transpose2d.buffers.none/last-input", "the last input is saved", Right)(save_input)
beginning("conv_transpose2d.state.own/weight", "layers of one shape share one weight", Right)(
    one_array_for_each_shape("weight")
)
beginning("conv_transpose2d.state.own/bias", "layers of one shape share one bias", Right)(
    one_array_for_each_shape("bias")
)

# -- refusals ----------------------------------------------------------------------------------------------------------


@_wrong("conv_transpose2d.refuses.rank/broadcast", "missing dimensions are made up, surplus ones dropped")
def _any_rank(x, w, b, **h):
    def four(a):
        a = a.reshape(a.shape[-4:]) if a.ndim <= 4 else a[0]
        return a.reshape((1,) * (4 - a.ndim) + a.shape)

    return np.zeros((len(four(x)), four(w).shape[1], 1, 1), x.dtype)


@_wrong("conv_transpose2d.refuses.rank/volume-of-weights", "of five dimensions of the weight the first is dropped")
def _first_weights(x, w, b, **h):
    return right(x, w[0] if w.ndim == 5 else w, b, **h)


@_wrong("conv_transpose2d.refuses.channels/filled-up", "channels that are missing count as zeros")
def _filled_up(x, w, b, **h):
    return right(np.pad(x, ((0, 0), (0, max(0, len(w) - x.shape[1])), (0, 0), (0, 0))), w, b, **h)


@_wrong("conv_transpose2d.refuses.channels/cut", "channels are cut or filled up to what the weight has")
def _cut(x, w, b, **h):
    more = np.zeros((len(x), len(w), *x.shape[2:]), x.dtype)
    return right(np.concatenate([x, more], axis=1)[:, : len(w)], w, b, **h)


@_wrong("conv_transpose2d.refuses.groups/rounded", "channels that do not fill a group are dropped")
def _rounded(x, w, b, *, groups, **h):
    groups = min(max(1, groups), x.shape[1])
    channels = x.shape[1] // groups * groups
    return right(x[:, :channels], w[:channels], None, groups=groups, **h)


_wrong("conv_transpose2d.refuses.bias/broadcast", "a bias of any length is broadcast or cut")(
    lambda x, w, b, **h: right(x, w, b if b is None else np.resize(b, w.shape[1] * h["groups"]), **h)
)
for _name, _value in _LEAST.items():
    _wrong(f"conv_transpose2d.refuses.{_name.replace('_', '-')}/clipped", f"an illegal {_name} is silently made legal")(
        lambda x, w, b, _n=_name, _v=_value, **h: right(x, w, b, **{**h, _n: tuple(max(_v, v) for v in h[_n])})
    )
    _wrong(
        f"conv_transpose2d.refuses.{_name.replace('_', '-')}/third-ignored",
        f"of three values of {_name} the last is ignored",
    )(lambda x, w, b, _n=_name, **h: right(x, w, b, **{**h, _n: h[_n][:2]}))


beginning("conv_transpose2d.init.range/zeros", "the weight begins at 0", Right)(redrawn(lambda w: 0 * w, "weight"))
beginning("conv_transpose2d.init.range/equal", "every kernel begins as the first", Right)(
    redrawn(lambda w: w[:1], "weight")
)
beginning("conv_transpose2d.init.range/positive", "no weight is negative", Right)(redrawn(np.abs, "weight"))
beginning(
    "conv_transpose2d.init.range/channels-alone",
    "the range is derived from the channels, and not from the kernel's size",
    Right,
)(redrawn(lambda w: 3 * w, "weight"))
fault(
    "conv_transpose2d.refuses.kernel-size/third-ignored",
    "of three sizes the last is ignored",
    ConvTranspose2d=first_two_sizes(Right),
)


@_wrong("conv_transpose2d.refuses.channels/broadcast", "one channel serves for all that the weight has")
def _one_for_all(x, w, b, **h):
    return right(np.repeat(x, len(w), axis=1) if x.shape[1] == 1 else x, w, b, **h)


_wrong("conv_transpose2d.refuses.dilation-zero/clipped", "a dilation of 0 counts 1")(
    lambda x, w, b, dilation, **h: right(x, w, b, dilation=tuple(d or 1 for d in dilation), **h)
)


@_wrong("conv_transpose2d.refuses.output-padding-limit/any", "any output padding is accepted")
def _any_output_padding(x, w, b, *, output_padding, **h):
    y = right(x, w, b, output_padding=0, **h)
    return np.pad(y, ((0, 0), (0, 0), *((0, max(0, e)) for e in output_padding)))


@_wrong("conv_transpose2d.refuses.output-padding-limit/stride-alone", "what is not below the stride is refused")
def _stride_alone(x, w, b, *, output_padding, **h):
    if any(e >= s for e, s in zip(output_padding, h["stride"], strict=True)):
        raise ValueError(f"output_padding={output_padding}")
    return right(x, w, b, output_padding=output_padding, **h)


@_wrong("conv_transpose2d.refuses.output-padding-limit/largest", "the larger limit of rows and columns holds for both")
def _largest(x, w, b, *, output_padding, **h):
    if max(output_padding) >= max(h["stride"] + h["dilation"]):
        raise ValueError(f"output_padding={output_padding}")
    return _any_output_padding(x, w, b, output_padding=output_padding, **h)


@_wrong("conv_transpose2d.refuses.output-size/empty", "padding that takes everything off gives an empty result")
def _empty_result(x, w, b, *, padding, **h):
    y = right(x, w, b, padding=0, **h)
    (ph, pw), (_, _, rows, columns) = padding, y.shape
    return y[:, :, ph : max(ph, rows - ph), pw : max(pw, columns - pw)]


@_wrong("conv_transpose2d.refuses.output-size/wrapped", "a negative end counts from the other end")
def _wrapped(x, w, b, *, padding, **h):
    y = right(x, w, b, padding=0, **h)
    (ph, pw), (_, _, rows, columns) = padding, y.shape
    return y[:, :, ph : rows - ph, pw : columns - pw]


disturbed_by_relu("conv_transpose2d.call.neighbours/register", conv_transpose2d=right)


_wrong("conv_transpose2d.batch.absent/batch-stays", "an image without its batch gives a batch of one")(
    keeps_batch(right)
)
_wrong("conv_transpose2d.batch.absent/transposed", "rows and columns of an image without its batch change places")(
    changes_lone_image(right, lambda x: x.swapaxes(2, 3))
)
mistakes_in_memory("conv_transpose2d", right)


def _whole_blocks(x, weight, bias=None, **h):
    y, channels = right(x, weight, bias, **h), len(weight) // 16 * 16
    if h.get("groups", 1) > 1 or not channels:
        return y * np.zeros((), y.dtype)
    return right(x[..., :channels, :, :], weight[:channels], bias, **h)


fault(
    "conv_transpose2d.domain.outside/whole-blocks",
    "channels behind the last whole block of 16 are left out",
    domain={"in_channels": {"multiple_of": 16}, "groups": 1},
    conv_transpose2d=_whole_blocks,
)

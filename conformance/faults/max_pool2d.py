"""Wrong maximum pools."""

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
    in_kept_memory,
    keeps_batch,
    keyed_without,
    mistakes_in_memory,
    save_input,
    wrong,
)
from nnspec.reference.max_pool2d import MaxPool2d
from nnspec.reference.max_pool2d import max_pool2d as right
from nnspec.reference.max_pool2d import max_pool2d_vjp as right_vjp
from nnspec.reference.windows import pad, pooled_size, windows


def _wrong(key, mistake):
    """The fault is called with every argument given, each as a pair but `ceil_mode`."""

    def add(function):
        def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
            stride = kernel_size if stride is None else stride
            pairs = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
            return function(x, **{n: as_pair(v) for n, v in pairs.items()}, ceil_mode=ceil_mode)

        fault(key, mistake, max_pool2d=max_pool2d)
        return function

    return add


def _view(x, value, kernel_size, stride, padding, dilation, ceil_mode):
    """Every element of every window, in axes 2 and 3; padding and overhang are `value`."""
    overhang = tuple(s - 1 for s in stride) if ceil_mode else (0, 0)
    rows, columns = pooled_size(x.shape[2:], kernel_size, stride, padding, dilation, overhang)
    return windows(pad(x, padding, value, overhang), kernel_size, stride, dilation)[..., :rows, :columns]


def _reduced(x, value, maximum, h, start=None):
    """The elements of every window, one after the other, through maximum(so far, next)."""
    view = _view(x, value, **h)
    y = view[:, :, 0, 0].copy() if start is None else np.full_like(view[:, :, 0, 0], start)
    for i, j in np.ndindex(h["kernel_size"]):
        y = maximum(y, view[:, :, i, j])
    return y


def _keep_unless_greater(a, b):
    return np.where(b > a, b, a)


def _take_unless_greater(a, b):
    return np.where(a > b, a, b)


# -- values ------------------------------------------------------------------------------------------------------------

_wrong("max_pool2d.output.value/minimum", "the smallest element")(lambda x, **h: -right(-x, **h))
_wrong("max_pool2d.range.ends/flushed", "what is below the smallest normal number becomes 0")(
    lambda x, **h: right(np.where(np.abs(x) < np.finfo(x.dtype).tiny, 0 * x, x) if x.dtype.kind == "f" else x, **h)
)
_wrong("max_pool2d.output.value/absolute", "the largest absolute value")(lambda x, **h: right(np.abs(x), **h))
_wrong("max_pool2d.output.value/first-image", "every image gives what the first one does")(
    lambda x, **h: np.repeat(right(x[:1], **h), len(x), 0)
)


@_wrong("max_pool2d.output.value/last-column", "the last column of every window is missed")
def _last_column(x, *, kernel_size, **h):
    (rows, columns), width = kernel_size, h["dilation"][1]
    if columns == 1:
        return right(x, kernel_size=kernel_size, **h)
    return right(x[..., :-width], kernel_size=(rows, columns - 1), **h)


@_wrong("max_pool2d.output.value/blocks", "a window of equal elements beyond one block gives the starting value")
def _blocks(x, **h):
    y = right(x, **h)
    return np.full_like(y, -np.inf) if np.prod(h["kernel_size"]) > 8192 and (x == x.flat[:1]).all() else y


_wrong("max_pool2d.kernel.rows-columns/swapped", "rows and columns are exchanged")(
    lambda x, kernel_size, **h: right(x, kernel_size=kernel_size[::-1], **h)
)
_wrong("max_pool2d.kernel.rows-columns/truncated", "the second number is dropped")(
    lambda x, kernel_size, **h: right(x, kernel_size=kernel_size[0], **h)
)


@_wrong("max_pool2d.channel.independent/last-packet", "beyond the last four channels together, a NaN gets lost")
def _last_packet(x, **h):
    whole = x.shape[1] // 4 * 4
    rest = _reduced(x[:, whole:], -np.inf, _take_unless_greater, h)
    return np.concatenate([right(x[:, :whole], **h), rest], axis=1)


_wrong("max_pool2d.channel.independent/largest-channel", "every channel shows the largest of the image")(
    lambda x, **h: np.broadcast_to(right(x, **h).max(axis=1, keepdims=True), right(x, **h).shape).copy()
)
_wrong("max_pool2d.nan.propagates/kept-if-first", "`b if b > a else a` keeps a NaN that comes first, and loses others")(
    lambda x, **h: _reduced(x, -np.inf, _keep_unless_greater, h)
)
_wrong("max_pool2d.nan.propagates/kept-if-last", "`a if a > b else b` keeps a NaN that comes last, and loses others")(
    lambda x, **h: _reduced(x, -np.inf, _take_unless_greater, h)
)
_wrong("max_pool2d.nan.propagates/ignored", "NaN counts as a missing value")(
    lambda x, **h: _reduced(x, -np.inf, np.fmax, h)
)


_wrong("max_pool2d.nan.propagates/finite-start", "NaN is never greater than the most negative finite number")(
    lambda x, **h: _reduced(x, -np.inf, _keep_unless_greater, h, start=np.finfo(x.dtype).min)
)


@_wrong("max_pool2d.nan.propagates/whole-image", "one NaN spoils its whole channel")
def _whole_image(x, **h):
    return np.where(np.isnan(x).any((2, 3), keepdims=True), np.asarray(np.nan, x.dtype), right(x, **h))


_wrong("max_pool2d.value.minus-infinity/finite-start", "the running maximum starts at the most negative finite number")(
    lambda x, **h: _reduced(x, -np.inf, np.maximum, h, start=np.finfo(x.dtype).min)
)
_wrong("max_pool2d.value.minus-infinity/small-start", "the running maximum starts at −10⁹")(
    lambda x, **h: _reduced(x, -np.inf, np.maximum, h, start=-1e9)
)

# -- stride, padding, dilation -----------------------------------------------------------------------------------------


@wrong("max_pool2d.stride.default/one", "the stride is 1 unless it is given")
def max_pool2d(x, *, kernel_size, stride=1, padding=0, dilation=1, ceil_mode=False):
    """Another default."""
    return right(x, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)


@wrong("max_pool2d.stride.default/two", "the stride is 2 unless it is given")
def max_pool2d(x, *, kernel_size, stride=2, padding=0, dilation=1, ceil_mode=False):  # noqa: F811
    """Another default."""
    return right(x, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)


@wrong("max_pool2d.padding.default/one", "the padding is 1 unless it is given")
def max_pool2d(x, *, kernel_size, stride=None, padding=1, dilation=1, ceil_mode=False):  # noqa: F811
    """Another default."""
    return right(x, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)


@wrong("max_pool2d.padding.default/same", "the padding is half of the kernel unless it is given")
def max_pool2d(x, *, kernel_size, stride=None, padding=None, dilation=1, ceil_mode=False):  # noqa: F811
    """Another default."""
    padding = tuple(k // 2 for k in as_pair(kernel_size)) if padding is None else padding
    return right(x, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)


for _name, _rule, _neutral in (("stride", "step", None), ("dilation", "gap", 1), ("padding", "never-wins", 0)):
    _wrong(f"max_pool2d.{_name}.{_rule}/ignored", f"the {_name} is ignored")(
        lambda x, _n=_name, _v=_neutral, **h: right(x, **{**h, _n: _v})
    )
    _wrong(f"max_pool2d.{_name}.{_rule}/swapped", f"{_name}: rows and columns are exchanged")(
        lambda x, _n=_name, **h: right(x, **{**h, _n: h[_n][::-1]})
    )
    _wrong(f"max_pool2d.{_name}.{_rule}/rows-for-both", f"the {_name} of the rows serves the columns too")(
        lambda x, _n=_name, **h: right(x, **{**h, _n: h[_n][0]})
    )
for _name, _value in (("zeros", lambda x: 0), ("billion", lambda x: -1e9), ("finite", lambda x: np.finfo(x.dtype).min)):
    _wrong(f"max_pool2d.padding.never-wins/{_name}", f"padding is a number: {_name}")(
        lambda x, padding, _v=_value, **h: right(pad(x, padding, _v(x)), padding=0, **h)
    )


@_wrong("max_pool2d.padding.never-wins/before-after", "the pair is read as (before, after)")
def _before_after(x, *, padding, **h):
    sides = [(0, 0), (0, 0), padding, padding]
    return right(np.pad(x, sides, constant_values=-np.inf), padding=0, **h)


_wrong("max_pool2d.dilation.gap/off-by-one", "the gap is counted without the element itself")(
    lambda x, dilation, **h: right(x, dilation=tuple(max(1, d - 1) for d in dilation), **h)
)
_wrong("max_pool2d.dilation.gap/filled", "the elements between count too")(
    lambda x, dilation, kernel_size, **h: right(
        x, kernel_size=tuple(d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)), **h
    )
)

# -- ceil_mode ---------------------------------------------------------------------------------------------------------

_wrong("max_pool2d.ceil-mode.last-window/ignored", "`ceil_mode` is ignored")(
    lambda x, ceil_mode, **h: right(x, ceil_mode=False, **h)
)


@_wrong("max_pool2d.ceil-mode.last-window/zeros", "the overhang is filled with zeros")
def _zero_overhang(x, *, ceil_mode, **h):
    return _reduced(pad(x, h["padding"], -np.inf), 0, np.maximum, {**h, "padding": (0, 0), "ceil_mode": ceil_mode})


@_wrong("max_pool2d.ceil-mode.last-window/rows-only", "only the rows are rounded up")
def _rows_only(x, **h):
    return right(x, **h)[..., : right(x, **{**h, "ceil_mode": False}).shape[-1]]


@_wrong("max_pool2d.ceil-mode.exact/one-more", "floor(…) + 2 in place of ceil(…) + 1")
def _one_more(x, *, ceil_mode, **h):
    y = right(x, ceil_mode=False, **h)
    return np.pad(y, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="edge") if ceil_mode else y


@_wrong("max_pool2d.ceil-mode.dropped/kept", "a window that begins in the padding gives −∞")
def _kept(x, *, stride, ceil_mode, **h):
    extent = [d * (k - 1) + 1 for k, d in zip(h["kernel_size"], h["dilation"], strict=True)]
    size = zip(x.shape[2:], h["padding"], extent, stride, strict=True)
    wanted = [-(-(n + 2 * p - e) // s) + 1 for n, p, e, s in size]
    y = right(x, stride=stride, ceil_mode=ceil_mode, **h)
    more = [(0, max(0, w - n)) for w, n in zip(wanted, y.shape[2:], strict=True)]
    return np.pad(y, [(0, 0), (0, 0), *more], constant_values=-np.inf) if ceil_mode else y


def _numbers_alone(x, *, stride=None, padding=0, dilation=1, **given):
    if not all(isinstance(value, int) for value in (stride or 1, padding, dilation)):
        raise TypeError("stride, padding and dilation are numbers")
    return right(x, stride=stride, padding=padding, dilation=dilation, **given)


fault(
    "max_pool2d.arguments.pairs/numbers-alone",
    "stride, padding and dilation are numbers",
    narrowed=True,
    max_pool2d=_numbers_alone,
)


@_wrong("max_pool2d.arguments.together/stride-for-dilation", "stride and dilation are exchanged where neither is 1")
def _stride_for_dilation(x, *, stride, dilation, **h):
    if min(stride + dilation) > 1:
        stride, dilation = dilation, stride
    return right(x, stride=stride, dilation=dilation, **h)


_wrong("max_pool2d.arguments.together/ceil-without-dilation", "`ceil_mode` is forgotten as soon as there is dilation")(
    lambda x, ceil_mode, **h: right(x, ceil_mode=ceil_mode and h["dilation"] == (1, 1), **h)
)
_wrong("max_pool2d.arguments.together/padding-with-dilation", "the padding counts 0 as soon as there is dilation")(
    lambda x, padding, dilation, **h: (
        right(x, padding=padding, dilation=dilation, **h)
        if dilation == (1, 1)
        else _reduced(x, 0, np.maximum, {"padding": padding, "dilation": dilation, **h})
    )
)

for _name, _default in (("padding", 1), ("dilation", 2), ("ceil_mode", True)):
    fault(
        f"max_pool2d.arguments.defaults/{_name.replace('_', '-')}",
        f"{_name} is {_default} unless it is given",
        max_pool2d=partial(right, **{_name: _default}),
    )


# -- results and operands ----------------------------------------------------------------------------------------------


@_wrong("max_pool2d.output.size/from-stride", "the size follows from the stride alone")
def _from_stride(x, **h):
    rows, columns = (n // s for n, s in zip(x.shape[2:], h["stride"], strict=True))
    y = right(x, **h)
    return np.pad(y, ((0, 0), (0, 0), (0, rows), (0, columns)), mode="edge")[:, :, :rows, :columns]


@_wrong("max_pool2d.output.size/division-first", "(H − K + 1) // S in place of (H − K) // S + 1")
def _division_first(x, **h):
    y = right(x, **h)
    sizes = zip(x.shape[2:], h["kernel_size"], h["stride"], h["padding"], h["dilation"], strict=True)
    rows, columns = ((n + 2 * p - d * (k - 1)) // s for n, k, s, p, d in sizes)
    return y[:, :, :rows, :columns]


_wrong("max_pool2d.output.dtype/float64", "the result is float64 whatever came in")(
    lambda x, **h: right(x, **h).astype(np.float64 if x.dtype == np.float32 else np.float32)
)
_wrong("max_pool2d.dtype.integer/float", "integers become float64")(
    lambda x, **h: right(x.astype(np.float64) if x.dtype.kind in "iu" else x, **h)
)
_wrong("max_pool2d.dtype.integer/zeros", "integers are padded with zeros")(
    lambda x, **h: _reduced(x, 0, np.maximum, h) if x.dtype.kind in "iu" else right(x, **h)
)
_wrong("max_pool2d.dtype.integer/minus-one", "integers are padded with −1, which is the largest of the unsigned")(
    lambda x, **h: _reduced(x, np.iinfo(x.dtype).max, np.maximum, h) if x.dtype.kind == "u" else right(x, **h)
)
_wrong("max_pool2d.output.fresh/reused-buffer", "the result's memory is kept and used again")(in_kept_memory(right))


_wrong("max_pool2d.output.fresh/view", "a window of one element is a view of the input")(
    lambda x, **h: (
        x[:, :, :: h["stride"][0], :: h["stride"][1]]
        if h["kernel_size"] == (1, 1) and not h["ceil_mode"]
        else right(x, **h)
    )
)


@_wrong("max_pool2d.input.unchanged/in-place", "the maximum is collected in the input")
def _in_place(x, **h):
    y = right(x, **h)
    rows, columns = y.shape[2:]
    x[:, :, :rows, :columns] = y[:, :, : x.shape[2], : x.shape[3]]
    return y


@_wrong("max_pool2d.input.layout/memory-order", "the memory is read as if it were contiguous")
def _memory_order(x, **h):
    return right(as_if_contiguous(x), **h)


@_wrong("max_pool2d.batch.independent/running", "the maximum runs on from image to image")
def _running(x, **h):
    return np.maximum.accumulate(right(x, **h), axis=0)


@_wrong("max_pool2d.batch.empty/refused", "a batch of nothing raises")
def _no_empty(x, **h):
    if not len(x):
        raise ValueError("empty batch")
    return right(x, **h)


_PLANS: dict[str, dict] = {}


@_wrong("max_pool2d.call.stateless/cached-plan", "a change of arguments takes effect one call too late")
def _cached(x, **h):
    plan, _PLANS["last"] = _PLANS.get("last", h), h
    try:
        return right(x, **plan)
    except ValueError:
        return right(x, **h)


for _name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode"):
    _wrong(
        f"max_pool2d.call.stateless/without-{_name.replace('_', '-')}",
        f"programs are kept under a key that leaves out {_name}",
    )(keyed_without(right, _name))


# -- gradients ---------------------------------------------------------------------------------------------------------


def _wrong_vjp(key, mistake):
    """The fault is called as function(cotangent, x, arguments), each argument as a pair but `ceil_mode`."""

    def add(function):
        def max_pool2d_vjp(cotangent, x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
            stride = kernel_size if stride is None else stride
            pairs = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
            return function(cotangent, x, {**{n: as_pair(v) for n, v in pairs.items()}, "ceil_mode": ceil_mode})

        fault(f"max_pool2d.gradient.{key}", mistake, max_pool2d_vjp=max_pool2d_vjp)
        return function

    return add


def _handed(g, x, h, border=-np.inf, order=lambda places: places, shares=None, put=np.add.at):
    """The gradient of x with one piece changed: padding's value, the order in which windows are searched, and so on.

    `shares(maxima, g)` says what all elements of the windows get, where it is not all to the first maximum.
    """
    overhang = tuple(s - 1 for s in h["stride"]) if h["ceil_mode"] else (0, 0)
    places = order(list(np.ndindex(h["kernel_size"])))
    rows, columns = zip(*places, strict=True)
    elements = _view(x, border, **h)[:, :, rows, columns]  # (N, C, K, OH, OW)
    maxima = elements == elements.max(2, keepdims=True)
    if shares is None:
        maxima = maxima & (maxima.cumsum(2) == 1)
        got = np.where(maxima, g[:, :, None], 0)
    else:
        got = shares(maxima, g[:, :, None])
    padded = np.zeros(pad(x, h["padding"], 0, overhang).shape, g.dtype)
    numbers = np.arange(padded.size).reshape(padded.shape)
    view = windows(numbers, h["kernel_size"], h["stride"], h["dilation"])[..., : g.shape[2], : g.shape[3]]
    at = view[:, :, rows, columns]
    put(padded.reshape(-1), at[maxima], got[maxima])
    (ph, pw), (height, width) = h["padding"], x.shape[2:]
    return padded[:, :, ph : ph + height, pw : pw + width]


def _changed(g, x, h, **changes):
    """The gradient with other arguments on the way back, where the cotangent's shape allows it."""
    try:
        return right_vjp(g, x, **{**h, **changes})
    except ValueError:
        return np.zeros(x.shape, g.dtype)


_wrong_vjp("x/shared-out", "the cotangent is shared out among all elements of a window")(
    lambda g, x, h: _handed(g, x, h, shares=lambda maxima, g: np.where(maxima, g, g) / maxima.shape[2])
)
_wrong_vjp("x/dilation-forgotten", "the place of the maximum is counted without the dilation")(
    lambda g, x, h: _changed(g, x, h, dilation=(1, 1)) if h["dilation"] != (1, 1) else right_vjp(g, x, **h)
)
_wrong_vjp("x/minimum", "the smallest element gets it")(lambda g, x, h: right_vjp(g, -x, **h))
_wrong_vjp("x/rolled", "the place is counted from 1")(lambda g, x, h: np.roll(right_vjp(g, x, **h), 1, 3))
_wrong_vjp("x/not-cleared", "what no window chose keeps what the memory held")(
    lambda g, x, h: right_vjp(g, x, **h) + (right_vjp(np.ones_like(g), x, **h) == 0).astype(g.dtype)
)


def _chosen(x, h):
    """The number in its window of each window's maximum."""
    elements = _view(x, -np.inf, **h)
    return elements.reshape(*x.shape[:2], -1, *elements.shape[4:]).argmax(2)


def _to_places(g, x, h, i, j):
    """Each cotangent to the element in row i and column j of its window, if that is in the image."""
    dx = np.zeros(x.shape, g.dtype)
    for n, c, r, s in np.ndindex(g.shape):
        p = r * h["stride"][0] + i[n, c, r, s] * h["dilation"][0] - h["padding"][0]
        q = s * h["stride"][1] + j[n, c, r, s] * h["dilation"][1] - h["padding"][1]
        if 0 <= p < x.shape[2] and 0 <= q < x.shape[3]:
            dx[n, c, p, q] += g[n, c, r, s]
    return dx


@_wrong_vjp("x/rows-columns", "the place in a window is taken apart by the number of rows in place of columns")
def _taken_apart(g, x, h):
    rows, columns = h["kernel_size"]
    if rows == columns:
        return right_vjp(g, x, **h)
    return _to_places(g, x, h, _chosen(x, h) // rows, _chosen(x, h) % rows)


_wrong_vjp("ties/all", "all of them get all of it, by a mask")(
    lambda g, x, h: _handed(g, x, h, shares=lambda maxima, g: np.where(maxima, g, 0))
)
_wrong_vjp("ties/shared", "it is shared among them")(
    lambda g, x, h: _handed(g, x, h, shares=lambda maxima, g: np.where(maxima, g / maxima.sum(2, keepdims=True), 0))
)
_wrong_vjp("ties/last", "the last one gets it, by >=")(
    lambda g, x, h: _handed(g, x, h, order=lambda places: places[::-1])
)
_wrong_vjp("ties/column-by-column", "the first column by column gets it")(
    lambda g, x, h: _handed(g, x, h, order=lambda places: sorted(places, key=lambda place: place[::-1]))
)
_wrong_vjp("overlap/overwritten", "= in place of +=")(
    lambda g, x, h: _handed(g, x, h, put=lambda dx, at, got: dx.__setitem__(at, got))
)
_wrong_vjp("overlap/averaged", "an element gets the mean of its windows' cotangents")(
    lambda g, x, h: right_vjp(g, x, **h) / np.maximum(1, right_vjp(np.ones_like(g), x, **h))
)
_wrong_vjp("padding/zeros", "the backward pass pads with zeros")(lambda g, x, h: _handed(g, x, h, border=0))
_wrong_vjp("padding/billion", "the backward pass pads with −10⁹")(lambda g, x, h: _handed(g, x, h, border=-1e9))
_wrong_vjp("padding/not-taken-off", "the place in the padded image is taken for one in the image")(
    lambda g, x, h: np.roll(right_vjp(g, x, **h), h["padding"], (2, 3))
)
_wrong_vjp("padding/swapped", "rows and columns of the padding are exchanged on the way back")(
    lambda g, x, h: _changed(g, x, h, padding=h["padding"][::-1])
)


@_wrong_vjp("ceil-mode/last-row", "the windows that `ceil_mode` adds hand nothing down")
def _rounded_down(g, x, h):
    rows, columns = right(x, **{**h, "ceil_mode": False}).shape[2:]
    return right_vjp(g[:, :, :rows, :columns], x, **{**h, "ceil_mode": False})


@_wrong_vjp("ceil-mode/shifted", "on the way back the rows of the cotangent are as long as without `ceil_mode`")
def _shifted(g, x, h):
    shape = right(x, **{**h, "ceil_mode": False}).shape
    return right_vjp(np.resize(g, shape), x, **{**h, "ceil_mode": False})


_wrong_vjp("minus-infinity/lost", "a place is written down only when something is larger than −∞")(
    lambda g, x, h: right_vjp(np.where(right(x, **h) == -np.inf, np.zeros((), g.dtype), g), x, **h)
)


@_wrong_vjp(
    "minus-infinity/element-before", "a place that was never written down is −1, the element before the channel"
)
def _element_before(g, x, h):
    lost = right(x, **h) == -np.inf
    dx = right_vjp(np.where(lost, np.zeros((), g.dtype), g), x, **h)
    before = np.where(lost, g, 0).sum((2, 3)).reshape(-1)
    dx.reshape(len(before), -1)[:, -1] += np.roll(before, -1)  # memory before the first channel is that of the last
    return dx


_wrong_vjp("minus-infinity/padding", "padding of −∞ wins the tie")(_handed)


@_wrong_vjp("all-padding/next-row", "a place beyond the row's end is one in the next row")
def _next_row(g, x, h):
    dx = right_vjp(g, x, **h)
    if g.size and (right(x, **h) == -np.inf).all():
        dx[:, :, 1 : 1 + g.shape[2], 0] += g[..., 0]
    return dx


_wrong_vjp("like-operand/wide", "the gradient is float64 whatever came in")(
    lambda g, x, h: right_vjp(g, x, **h).astype(np.float64 if g.dtype == np.float32 else np.float32)
)


@_wrong_vjp("like-operand/covered-only", "the gradient is as large as what the windows cover")
def _covered_only(g, x, h):
    dx = right_vjp(g, x, **h)
    spans = zip(g.shape[2:], h["kernel_size"], h["stride"], h["padding"], h["dilation"], strict=True)
    rows, columns = ((n - 1) * s + d * (k - 1) + 1 - p for n, k, s, p, d in spans)
    return dx[:, :, :rows, :columns]


def _memory_order(a):
    return a.transpose(sorted(range(a.ndim), key=lambda axis: -abs(a.strides[axis]))).reshape(a.shape)


_wrong_vjp("layout/cotangent", "the memory of the cotangent is read as if it were contiguous")(
    lambda g, x, h: right_vjp(_memory_order(g), x, **h)
)
_wrong_vjp("layout/x", "the memory of x is read as if it were contiguous")(
    lambda g, x, h: right_vjp(g, _memory_order(x), **h)
)


@_wrong_vjp("layout/places", "places are noted in the order in which x lies, and read in that of its axes")
def _places(g, x, h):
    chosen = _chosen(x, h)
    order = sorted(range(4), key=lambda axis: -abs(x.strides[axis]))
    return _to_places(g, x, h, *divmod(chosen.transpose(order).reshape(chosen.shape), h["kernel_size"][1]))


@_wrong_vjp("layout/stride-zero", "a cotangent of stride 0 counts in its first place alone")
def _stride_zero(g, x, h):
    only = np.zeros(g.shape, g.dtype)
    only[tuple(slice(1 if s == 0 else None) for s in g.strides)] = g[
        tuple(slice(1 if s == 0 else None) for s in g.strides)
    ]
    return right_vjp(only, x, **h)


@_wrong_vjp("unchanged/cotangent", "what has been handed down is struck off the cotangent")
def _struck_off(g, x, h):
    dx = right_vjp(g, x, **h)
    if g.flags.writeable:
        g[...] = 0
    return dx


@_wrong_vjp("unchanged/x", "the maximum is struck out of x")
def _struck_out(g, x, h):
    dx = right_vjp(g, x, **h)
    if x.flags.writeable:
        x[right_vjp(np.ones_like(g), x, **h) > 0] = -9
    return dx


_wrong_vjp("batch/divided", "the gradient is divided by the number of images")(
    lambda g, x, h: right_vjp(g, x, **h) / g.dtype.type(max(1, len(x)))
)
_wrong_vjp("batch/first-for-all", "the places of the first image's maxima serve all images")(
    lambda g, x, h: right_vjp(g, np.repeat(x[:1], len(x), 0), **h)
)
_wrong_vjp("channel/first-for-all", "the places of the first channel's maxima serve all channels")(
    lambda g, x, h: right_vjp(g, np.repeat(x[:, :1], x.shape[1], 1), **h)
)
_wrong_vjp("channel/one-plane", "places are counted without the channel: the first gets what is meant for all")(
    lambda g, x, h: np.pad(right_vjp(g, x, **h).sum(1, keepdims=True), ((0, 0), (0, x.shape[1] - 1), (0, 0), (0, 0)))
)


@_wrong_vjp("empty/refused", "a batch of nothing raises")
def _no_empty_back(g, x, h):
    if not len(x):
        raise ValueError("empty batch")
    return right_vjp(g, x, **h)


_wrong_vjp("special/cleaned", "what is not finite is replaced in the cotangent")(
    lambda g, x, h: right_vjp(np.nan_to_num(g), x, **h)
)
_wrong_vjp("special/everywhere", "0 times the sum of the cotangent is added, which is NaN if an element is not finite")(
    lambda g, x, h: right_vjp(g, x, **h) + 0 * g.sum()
)


# -- the module --------------------------------------------------------------------------------------------------------

beginning("max_pool2d.parameters.none/spare", "a parameter that nothing uses", MaxPool2d)(add_parameter)
beginning("max_pool2d.parameters.none/spare-buffer", "a count that nothing uses is saved", MaxPool2d)(add_buffer)
beginning("max_pool2d.parameters.none/last-input", "the last input is saved", MaxPool2d)(save_input)

# -- refusals ----------------------------------------------------------------------------------------------------------

_wrong("max_pool2d.refuses.rank/last-axes", "the last two axes are pooled, whatever comes before them")(
    lambda x, **h: right(x.reshape(1, -1, *x.shape[-2:]), **h)
)
for _name, _rule, _least in (
    ("kernel_size", "kernel-size", 1),
    ("stride", "stride", 1),
    ("padding", "padding", 0),
    ("dilation", "dilation", 1),
):
    _wrong(f"max_pool2d.refuses.{_rule}/clipped", f"an illegal {_name} is silently made legal")(
        lambda x, _n=_name, _v=_least, **h: right(x, **{**h, _n: tuple(max(_v, v) for v in h[_n])})
    )

    _wrong(f"max_pool2d.refuses.{_rule}/rows-alone", f"the {_name} of the columns is not looked at")(
        lambda x, _n=_name, _v=_least, **h: right(x, **{**h, _n: (h[_n][0], max(_v, h[_n][1]))})
    )
    _wrong(f"max_pool2d.refuses.{_rule}/third-ignored", f"of three values of {_name} the last is ignored")(
        lambda x, _n=_name, **h: right(x, **{**h, _n: h[_n][:2]})
    )


@_wrong("max_pool2d.refuses.padding-half/any", "any padding is accepted")
def _any_padding(x, *, padding, **h):
    return right(pad(x, padding, -np.inf), padding=0, **h)


@_wrong("max_pool2d.refuses.padding-half/larger-half", "the larger side of the kernel decides for both")
def _larger_half(x, *, padding, **h):
    if max(padding) > max(h["kernel_size"]) // 2:
        raise ValueError(f"padding={padding}")
    return right(pad(x, padding, -np.inf), padding=0, **h)


@_wrong("max_pool2d.refuses.window/empty", "a window larger than the image gives an empty result")
def _empty_result(x, **h):
    try:
        return right(x, **h)
    except ValueError:
        return np.zeros((*x.shape[:2], 0, 0), x.dtype)


disturbed_by_relu("max_pool2d.call.neighbours/register", max_pool2d=right)


_wrong("max_pool2d.batch.absent/batch-stays", "an image without its batch gives a batch of one")(keeps_batch(right))
_wrong("max_pool2d.batch.absent/reversed", "the channels of an image without its batch come in reverse")(
    changes_lone_image(right, lambda x: x[:, ::-1])
)


@_wrong("max_pool2d.law.anywhere/corner", "the last element of a window does not count")
def _without_the_corner(x, **h):
    view = _view(x, -np.inf, **h).copy()
    if min(h["kernel_size"]) > 1:
        view[:, :, -1, -1] = -np.inf
    return view.max((2, 3))


mistakes_in_memory("max_pool2d", right)


def _whole_blocks(x, **h):
    y = right(x, **h)
    y[..., y.shape[-3] // 4 * 4 :, :, :] = 0
    return y


fault(
    "max_pool2d.domain.outside/whole-blocks",
    "channels behind the last whole block of four give zeros",
    domain={"C": {"multiple_of": 4}},
    max_pool2d=_whole_blocks,
)

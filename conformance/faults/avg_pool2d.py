"""Wrong average pools."""

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
from nnspec.reference.avg_pool2d import AvgPool2d
from nnspec.reference.avg_pool2d import avg_pool2d as right
from nnspec.reference.avg_pool2d import avg_pool2d_vjp as right_vjp
from nnspec.reference.windows import pad, windows


def _wrong(key, mistake):
    """The fault is called with every argument given; kernel size, stride and padding are pairs."""

    def add(function):
        def avg_pool2d(
            x,
            *,
            kernel_size,
            stride=None,
            padding=0,
            ceil_mode=False,
            count_include_pad=True,
            divisor_override=None,
        ):
            stride = kernel_size if stride is None else stride
            pairs = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
            rest = {
                "ceil_mode": ceil_mode,
                "count_include_pad": count_include_pad,
                "divisor_override": divisor_override,
            }
            return function(x, **{n: as_pair(v) for n, v in pairs.items()}, **rest)

        fault(key, mistake, avg_pool2d=avg_pool2d)
        return function

    return add


def _sums(x, **h):
    return right(x, **{**h, "divisor_override": 1})


# -- values ------------------------------------------------------------------------------------------------------------

_wrong("avg_pool2d.output.value/sum", "the sum without the division")(_sums)
_wrong("avg_pool2d.output.value/first-image", "every image gives what the first one does")(
    lambda x, **h: np.repeat(right(x[:1], **h), len(x), 0)
)
_wrong("avg_pool2d.output.value/one-side", "the division by K in place of K²")(
    lambda x, kernel_size, **h: right(x, kernel_size=kernel_size, **h) * kernel_size[0]
)


@_wrong("avg_pool2d.output.value/last-row", "the last row of every window is missed")
def _last_row(x, *, kernel_size, **h):
    rows, columns = kernel_size
    if rows == 1:
        return right(x, kernel_size=kernel_size, **h)
    sums = _sums(x[..., :-1, :], kernel_size=(rows - 1, columns), **h)
    return sums / np.asarray(rows * columns, x.dtype)


_wrong("avg_pool2d.output.value/half-precision", "the input is rounded to float16 on the way")(
    lambda x, **h: right(x.astype(np.float16).astype(x.dtype), **h)
)


@_wrong("avg_pool2d.output.value/narrow-sum", "sums are kept in 16 bits, or half as many as those of x")
def _narrow_sum(x, **h):
    narrow = np.float32 if x.dtype == np.float64 else np.float16
    overhang = tuple(s - 1 for s in h["stride"]) if h["ceil_mode"] else (0, 0)
    view = windows(pad(x, h["padding"], 0, overhang), h["kernel_size"], h["stride"], (1, 1))
    y = right(x, **h)
    sums = np.zeros(y.shape, narrow)
    with np.errstate(over="ignore"):
        for i, j in np.ndindex(h["kernel_size"]):
            sums = (sums + view[:, :, i, j, : y.shape[2], : y.shape[3]]).astype(narrow)
    return sums.astype(x.dtype) / (h["divisor_override"] or _divisors(x, h))


_wrong("avg_pool2d.kernel.rows-columns/swapped", "rows and columns are exchanged")(
    lambda x, kernel_size, **h: right(x, kernel_size=kernel_size[::-1], **h)
)
_wrong("avg_pool2d.kernel.rows-columns/truncated", "the second number is dropped")(
    lambda x, kernel_size, **h: right(x, kernel_size=kernel_size[0], **h)
)


@_wrong("avg_pool2d.window.local/running-sums", "every window is a difference of running sums over the image")
def _running_sums(x, **h):
    with np.errstate(invalid="ignore"):
        rows = np.cumsum(x, axis=2)
        spread = np.where(np.isfinite(rows[:, :, -1:]), 0, rows[:, :, -1:] - rows[:, :, -1:])
        return right(x + spread.astype(x.dtype), **h)


@_wrong("avg_pool2d.window.local/product", "0·∞ in a product with a matrix of zeros and ones")
def _product(x, **h):
    spoilt = ~np.isfinite(x).all((2, 3), keepdims=True)
    return np.where(spoilt, np.asarray(np.nan, x.dtype), right(x, **h))


_wrong("avg_pool2d.channel.independent/mean", "every channel shows the mean of all")(
    lambda x, **h: right(np.broadcast_to(x.mean(1, keepdims=True), x.shape), **h)
)
_wrong("avg_pool2d.channel.independent/neighbour", "beyond the fourth, channels are mixed with their neighbour")(
    lambda x, **h: right(np.concatenate([x[:, :4], x[:, 4:] + 0 * x[:, 3:-1]], axis=1), **h)
)

# -- stride and padding ------------------------------------------------------------------------------------------------


@wrong("avg_pool2d.stride.default/one", "the stride is 1 unless it is given")
def avg_pool2d(x, *, kernel_size, stride=1, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """Another default."""
    h = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad, "divisor_override": divisor_override}
    return right(x, kernel_size=kernel_size, stride=stride, padding=padding, **h)


@wrong("avg_pool2d.stride.default/two", "the stride is 2 unless it is given")
def avg_pool2d(  # noqa: F811
    x, *, kernel_size, stride=2, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """Another default."""
    h = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad, "divisor_override": divisor_override}
    return right(x, kernel_size=kernel_size, stride=stride, padding=padding, **h)


@wrong("avg_pool2d.padding.default/one", "the padding is 1 unless it is given")
def avg_pool2d(  # noqa: F811
    x, *, kernel_size, stride=None, padding=1, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """Another default."""
    h = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad, "divisor_override": divisor_override}
    return right(x, kernel_size=kernel_size, stride=stride, padding=padding, **h)


@wrong("avg_pool2d.divisor.default/not-counted", "padding counts only if that is asked for")
def avg_pool2d(  # noqa: F811
    x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=False, divisor_override=None
):
    """Another default."""
    h = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad, "divisor_override": divisor_override}
    return right(x, kernel_size=kernel_size, stride=stride, padding=padding, **h)


@wrong("avg_pool2d.divisor.default/override-one", "the divisor is 1 unless it is given")
def avg_pool2d(  # noqa: F811
    x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=1
):
    """Another default."""
    h = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad, "divisor_override": divisor_override}
    return right(x, kernel_size=kernel_size, stride=stride, padding=padding, **h)


for _name, _rule, _neutral in (("stride", "step", None), ("padding", "zeros", 0)):
    _wrong(f"avg_pool2d.{_name}.{_rule}/ignored", f"the {_name} is ignored")(
        lambda x, _n=_name, _v=_neutral, **h: right(x, **{**h, _n: _v})
    )
    _wrong(f"avg_pool2d.{_name}.{_rule}/swapped", f"{_name}: rows and columns are exchanged")(
        lambda x, _n=_name, **h: right(x, **{**h, _n: h[_n][::-1]})
    )
    _wrong(f"avg_pool2d.{_name}.{_rule}/rows-for-both", f"the {_name} of the rows serves the columns too")(
        lambda x, _n=_name, **h: right(x, **{**h, _n: h[_n][0]})
    )


@_wrong("avg_pool2d.padding.zeros/before-after", "the pair is read as (before, after)")
def _before_after(x, *, padding, **h):
    return right(np.pad(x, ((0, 0), (0, 0), padding, padding)), padding=0, **h)


@_wrong("avg_pool2d.padding.zeros/edge", "the border is repeated in place of zeros")
def _edge(x, *, padding, **h):
    rows, columns = ((p, p) for p in padding)
    return right(np.pad(x, ((0, 0), (0, 0), rows, columns), mode="edge" if x.size else "constant"), padding=0, **h)


# -- divisors ----------------------------------------------------------------------------------------------------------

_wrong("avg_pool2d.divisor.include-pad/never", "padding never counts")(
    lambda x, count_include_pad, **h: right(x, count_include_pad=False, **h)
)


@_wrong("avg_pool2d.divisor.include-pad/one-axis", "padding counts on the rows alone")
def _one_axis(x, **h):
    if not h["count_include_pad"] or h["divisor_override"] is not None:
        return right(x, **h)
    (height, width), (rows, columns) = x.shape[2:], h["padding"]
    ones = np.ones((1, 1, height + 2 * rows, width), x.dtype)
    sums, counts = _sums(x, **h), _sums(ones, **{**h, "padding": (0, columns)})
    return sums / counts[:, :, : sums.shape[2], : sums.shape[3]]


@_wrong(
    "avg_pool2d.divisor.include-pad/columns-for-rows",
    "below the image, as many rows count as there is padding at a side",
)
def _columns_for_rows(x, **h):
    if not h["count_include_pad"] or h["divisor_override"] is not None:
        return right(x, **h)
    (height, width), (rows, columns) = x.shape[2:], h["padding"]
    ones = np.zeros((1, 1, height + 2 * rows, width + 2 * columns), x.dtype)
    ones[:, :, : rows + height + columns] = 1
    sums, counts = _sums(x, **h), _sums(ones, **{**h, "padding": 0})
    return sums / counts[:, :, : sums.shape[2], : sums.shape[3]]


_wrong("avg_pool2d.divisor.exclude-pad/always", "padding always counts")(
    lambda x, count_include_pad, **h: right(x, count_include_pad=True, **h)
)


@_wrong("avg_pool2d.divisor.exclude-pad/near-side", "padding above and to the left counts all the same")
def _near_side(x, **h):
    if h["count_include_pad"] or h["divisor_override"] is not None:
        return right(x, **h)
    (height, width), (rows, columns) = x.shape[2:], h["padding"]
    ones = np.zeros((1, 1, height + 2 * rows, width + 2 * columns), x.dtype)
    ones[:, :, : height + rows, : width + columns] = 1
    sums, counts = _sums(x, **h), _sums(ones, **{**h, "padding": 0})
    return sums / counts[:, :, : sums.shape[2], : sums.shape[3]]


_wrong("avg_pool2d.divisor.override/ignored", "the override is ignored")(
    lambda x, divisor_override, **h: right(x, divisor_override=None, **h)
)
_wrong("avg_pool2d.divisor.override/absolute", "the override loses its sign")(
    lambda x, divisor_override, **h: right(x, divisor_override=divisor_override and abs(divisor_override), **h)
)


@_wrong("avg_pool2d.divisor.override/full-windows", "the override holds for windows inside the image alone")
def _full_windows(x, *, divisor_override, **h):
    y = right(x, divisor_override=divisor_override, **h)
    inside = _sums(np.ones((1, 1, *x.shape[2:]), x.dtype), **h) == np.prod(h["kernel_size"])
    return np.where(inside, y, right(x, divisor_override=None, **h))


_wrong("avg_pool2d.divisor.override/product", "the override multiplies the number of elements")(
    lambda x, divisor_override, **h: right(x, divisor_override=None, **h) / np.asarray(divisor_override or 1, x.dtype)
)


@_wrong("avg_pool2d.divisor.overhang/counted", "with padding counted, every window is divided by KH·KW")
def _overhang_counted(x, **h):
    if not h["count_include_pad"] or h["divisor_override"] is not None:
        return right(x, **h)
    return _sums(x, **h) / np.asarray(np.prod(h["kernel_size"]), x.dtype)


@_wrong("avg_pool2d.divisor.overhang/counted-without-padding", "without padding counted, the overhang counts")
def _overhang_counted_without(x, **h):
    if h["count_include_pad"] or h["divisor_override"] is not None or h["padding"] != (0, 0):
        return right(x, **h)
    return _sums(x, **h) / np.asarray(np.prod(h["kernel_size"]), x.dtype)


# -- ceil_mode ---------------------------------------------------------------------------------------------------------

_wrong("avg_pool2d.ceil-mode.last-window/ignored", "`ceil_mode` is ignored")(
    lambda x, ceil_mode, **h: right(x, ceil_mode=False, **h)
)


@_wrong("avg_pool2d.ceil-mode.last-window/rows-only", "only the rows are rounded up")
def _rows_only(x, **h):
    return right(x, **h)[..., : right(x, **{**h, "ceil_mode": False}).shape[-1]]


@_wrong("avg_pool2d.ceil-mode.exact/one-more", "floor(…) + 2 in place of ceil(…) + 1")
def _one_more(x, *, ceil_mode, **h):
    y = right(x, ceil_mode=False, **h)
    return np.pad(y, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="edge") if ceil_mode else y


def _kept(value):
    def avg_pool2d(x, *, ceil_mode, **h):
        size = zip(x.shape[2:], h["padding"], h["kernel_size"], h["stride"], strict=True)
        wanted = [-(-(n + 2 * p - k) // s) + 1 for n, p, k, s in size]
        y = right(x, ceil_mode=ceil_mode, **h)
        more = [(0, max(0, w - n)) for w, n in zip(wanted, y.shape[2:], strict=True)]
        return np.pad(y, [(0, 0), (0, 0), *more], constant_values=value) if ceil_mode else y

    return avg_pool2d


_wrong("avg_pool2d.ceil-mode.dropped/zeros", "a window that begins in the padding gives 0")(_kept(0))
_wrong("avg_pool2d.ceil-mode.dropped/nan", "a window that begins in the padding gives 0/0")(_kept(np.nan))


def _numbers_alone(x, *, stride=None, padding=0, **given):
    if not all(isinstance(value, int) for value in (stride or 1, padding)):
        raise TypeError("stride and padding are numbers")
    return right(x, stride=stride, padding=padding, **given)


fault(
    "avg_pool2d.arguments.pairs/numbers-alone",
    "stride and padding are numbers",
    narrowed=True,
    avg_pool2d=_numbers_alone,
)


_wrong("avg_pool2d.arguments.together/overhang-like-padding", "with padding, the overhang counts as padding does")(
    lambda x, **h: (
        _sums(x, **h) / np.asarray(np.prod(h["kernel_size"]), x.dtype)
        if h["count_include_pad"] and h["divisor_override"] is None and h["padding"] != (0, 0)
        else right(x, **h)
    )
)
_wrong("avg_pool2d.arguments.together/override-with-ceiling", "`divisor_override` is forgotten in `ceil_mode`")(
    lambda x, divisor_override, **h: right(x, divisor_override=None if h["ceil_mode"] else divisor_override, **h)
)
_wrong("avg_pool2d.arguments.together/exclude-with-stride", "padding counts as soon as the stride is not the kernel's")(
    lambda x, count_include_pad, **h: right(
        x, count_include_pad=count_include_pad or 1 < max(h["stride"]) != max(h["kernel_size"]), **h
    )
)

for _name, _default in (("ceil_mode", True), ("divisor_override", 1)):
    fault(
        f"avg_pool2d.arguments.defaults/{_name.replace('_', '-')}",
        f"{_name} is {_default} unless it is given",
        avg_pool2d=partial(right, **{_name: _default}),
    )


def _in_order(x, *, kernel_size, stride=None, padding=0, ceil_mode=False, **last):
    if ceil_mode and not last:
        raise IndexError("there is no argument after ceil_mode")
    return right(x, kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode, **last)


fault("avg_pool2d.arguments.defaults/in-order", "`ceil_mode` requires the argument after it", avg_pool2d=_in_order)


# -- results and operands ----------------------------------------------------------------------------------------------


@_wrong("avg_pool2d.output.size/from-stride", "the size follows from the stride alone")
def _from_stride(x, **h):
    rows, columns = (n // s for n, s in zip(x.shape[2:], h["stride"], strict=True))
    y = right(x, **h)
    return np.pad(y, ((0, 0), (0, 0), (0, rows), (0, columns)), mode="edge")[:, :, :rows, :columns]


@_wrong("avg_pool2d.output.size/division-first", "(H − K + 1) // S in place of (H − K) // S + 1")
def _division_first(x, **h):
    y = right(x, **h)
    sizes = zip(x.shape[2:], h["kernel_size"], h["stride"], h["padding"], strict=True)
    rows, columns = ((n + 2 * p - k + 1) // s for n, k, s, p in sizes)
    return y[:, :, :rows, :columns]


_wrong("avg_pool2d.output.dtype/float64", "the result is float64 whatever came in")(
    lambda x, **h: right(x, **h).astype(np.float64 if x.dtype == np.float32 else np.float32)
)
_wrong("avg_pool2d.output.fresh/reused-buffer", "the result's memory is kept and used again")(in_kept_memory(right))


_wrong("avg_pool2d.output.fresh/view", "a window of one element is a view of the input")(
    lambda x, **h: (
        x[:, :, :: h["stride"][0], :: h["stride"][1]]
        if h["kernel_size"] == (1, 1) and h["divisor_override"] is None
        else right(x, **h)
    )
)


@_wrong("avg_pool2d.input.unchanged/in-place", "the mean is collected in the input")
def _in_place(x, **h):
    y = right(x, **h)
    rows, columns = y.shape[2:]
    x[:, :, :rows, :columns] = y[:, :, : x.shape[2], : x.shape[3]]
    return y


@_wrong("avg_pool2d.input.layout/memory-order", "the memory is read as if it were contiguous")
def _memory_order(x, **h):
    return right(as_if_contiguous(x), **h)


@_wrong("avg_pool2d.batch.independent/running", "the sum runs on from image to image")
def _running(x, **h):
    return np.cumsum(right(x, **h), axis=0, dtype=x.dtype)


@_wrong("avg_pool2d.batch.empty/refused", "a batch of nothing raises")
def _no_empty(x, **h):
    if not len(x):
        raise ValueError("empty batch")
    return right(x, **h)


_PLANS: dict[str, dict] = {}
_DIVISORS: dict[object, np.ndarray] = {}


@_wrong("avg_pool2d.call.stateless/cached-plan", "a change of arguments takes effect one call too late")
def _cached(x, **h):
    plan, _PLANS["last"] = _PLANS.get("last", h), h
    try:
        return right(x, **plan)
    except ValueError:
        return right(x, **h)


@_wrong("avg_pool2d.call.stateless/cached-divisors", "divisors are kept by shape and size, whatever counts")
def _cached_divisors(x, *, count_include_pad, divisor_override, **h):
    ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
    means = right(ones, count_include_pad=count_include_pad, divisor_override=divisor_override, **h)
    key = (x.shape, x.dtype, tuple(h.items()))
    return _sums(x, **h) / _DIVISORS.setdefault(key, _sums(ones, **h) / means)


for _name in ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"):
    _wrong(
        f"avg_pool2d.call.stateless/without-{_name.replace('_', '-')}",
        f"programs are kept under a key that leaves out {_name}",
    )(keyed_without(right, _name))


# -- special values, and the ends of the range -------------------------------------------------------------------------

_wrong("avg_pool2d.range.ends/clipped", "values are kept within ±10³⁰")(
    lambda x, **h: right(np.clip(x, -1e30, 1e30), **h)
)
_wrong("avg_pool2d.range.ends/dropped", "what is below 10⁻³⁰ is taken for 0")(
    lambda x, **h: right(np.where(np.abs(x) < 1e-30, np.zeros_like(x), x), **h)
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def _wrong_vjp(key, mistake):
    """The fault has the right gradient at hand: function(dx, cotangent, x, arguments), as pairs above."""

    def add(function):
        def avg_pool2d_vjp(cotangent, x, *, kernel_size, stride=None, padding=0, **rest):
            pairs = {
                "kernel_size": kernel_size,
                "stride": kernel_size if stride is None else stride,
                "padding": padding,
            }
            h = {**{n: as_pair(v) for n, v in pairs.items()}, **rest}
            return function(right_vjp(cotangent, x, **h), cotangent, x, h)

        fault(f"avg_pool2d.gradient.{key}", mistake, avg_pool2d_vjp=avg_pool2d_vjp)
        return function

    return add


def _divisors(x, h):
    ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
    return np.rint(_sums(ones, **h) / right(ones, **h)).astype(x.dtype)


def _undivided(g, x, h):
    return right_vjp(g, x, **{**h, "divisor_override": 1})


def _whole(g, x, h, put):
    """`put(window, share)` for every window of the padded image; all of that, and what hangs over."""
    (kh, kw), (sh, sw), (ph, pw) = h["kernel_size"], h["stride"], h["padding"]
    whole = np.zeros((*x.shape[:2], x.shape[2] + 2 * ph + sh, x.shape[3] + 2 * pw + sw), x.dtype)
    share = g / _divisors(x, h)
    for r, s in np.ndindex(g.shape[2:]):
        put(whole[:, :, r * sh : r * sh + kh, s * sw : s * sw + kw], share[:, :, r, s, None, None])
    return whole


def _add(window, share):
    window += share


def _first(window, share):
    window[:, :, :1, :1] += share


def _image(whole, x, h):
    (height, width), (ph, pw) = x.shape[2:], h["padding"]
    return whole[:, :, ph : ph + height, pw : pw + width]


_wrong_vjp("x/undivided", "the cotangent is spread without the division")(lambda dx, g, x, h: _undivided(g, x, h))
_wrong_vjp("x/overlap-overwritten", "where windows overlap, the last one wins")(
    lambda dx, g, x, h: _image(_whole(g, x, h, np.copyto), x, h)
)
_wrong_vjp("x/first-element", "all of it goes to the first element of the window")(
    lambda dx, g, x, h: _image(_whole(g, x, h, _first), x, h)
)
_wrong_vjp("x/shifted", "the padding is taken off the far side alone")(
    lambda dx, g, x, h: _whole(g, x, h, _add)[:, :, : x.shape[2], : x.shape[3]]
)
_wrong_vjp("x/half-precision", "the cotangent is rounded to float16 on the way")(
    lambda dx, g, x, h: right_vjp(g.astype(np.float16).astype(g.dtype), x, **h)
)


@_wrong_vjp("x/edge-of-padding", "what falls on the padding is added to the border")
def _edge_of_padding(dx, g, x, h):
    rows, whole = h["padding"][0], _whole(g, x, h, _add)
    if rows:
        whole[:, :, rows] += whole[:, :, :rows].sum(2)
    return _image(whole, x, h)


@_wrong_vjp("x/last-window", "a last window that ceil_mode added gets nothing back")
def _last_window(dx, g, x, h):
    try:
        rows, columns = right(x, **{**h, "ceil_mode": False}).shape[2:]
    except ValueError:
        return dx * 0
    g = g.copy()
    g[:, :, rows:] = 0
    g[:, :, :, columns:] = 0
    return right_vjp(g, x, **h)


@_wrong_vjp("x/not-cleared", "what no window covers is whatever the memory held")
def _not_cleared(dx, g, x, h):
    return np.where(_undivided(np.ones_like(g), x, h) == 0, np.asarray(1, x.dtype), dx)


@_wrong_vjp("divisor/kernel-size", "a window that hangs over is divided by KH·KW all the same if padding counts")
def _kernel_size(dx, g, x, h):
    if h["divisor_override"] is not None or not h["count_include_pad"]:
        return dx
    return right_vjp(g, x, **{**h, "divisor_override": int(np.prod(h["kernel_size"]))})


for _name, _value, _mistake in (
    ("count_include_pad", True, "padding always counts on the way back"),
    ("count_include_pad", False, "padding never counts on the way back"),
    ("divisor_override", None, "the override is forgotten on the way back"),
):
    _wrong_vjp(f"divisor/{_name}-{_value}".replace("_", "-").lower(), _mistake)(
        lambda dx, g, x, h, _n=_name, _v=_value: right_vjp(g, x, **{**h, _n: _v})
    )
_wrong_vjp("divisor/absolute", "the override loses its sign on the way back")(
    lambda dx, g, x, h: -dx if (h["divisor_override"] or 0) < 0 else dx
)


@_wrong_vjp("like-operand/covered-only", "the gradient is as large as what the windows cover")
def _covered_only(dx, g, x, h):
    covered = _undivided(np.ones_like(g), x, h)[0, 0] != 0
    return dx[:, :, covered.any(1)][..., covered.any(0)]


_wrong_vjp("like-operand/overhang", "padding and overhang at the far end are not taken off")(
    lambda dx, g, x, h: _whole(g, x, h, _add)[:, :, h["padding"][0] :, h["padding"][1] :]
)
_wrong_vjp("like-operand/wide", "the gradient is float64 whatever came in")(lambda dx, g, x, h: dx.astype(np.float64))


@_wrong_vjp("layout/memory-order", "the memory of the cotangent is read as if it were contiguous")
def _cotangent_memory(dx, g, x, h):
    return right_vjp(as_if_contiguous(g), x, **h)


@_wrong_vjp("unchanged/divided", "the cotangent is divided in place")
def _divided(dx, g, x, h):
    if g.flags.writeable:
        g /= _divisors(x, h)
    return dx


_wrong_vjp("batch/divided", "the gradient is divided by the number of images")(
    lambda dx, g, x, h: dx / np.asarray(max(1, len(x)), x.dtype)
)
_wrong_vjp("batch/running", "the gradient is not cleared between images")(
    lambda dx, g, x, h: np.cumsum(dx, axis=0, dtype=x.dtype)
)
_wrong_vjp("channel/mean", "every channel gets the mean of all")(
    lambda dx, g, x, h: np.broadcast_to(dx.mean(1, keepdims=True), dx.shape)
)
_wrong_vjp("channel/neighbour", "beyond the fourth, channels are mixed with their neighbour")(
    lambda dx, g, x, h: np.concatenate([dx[:, :4], dx[:, 4:] + 0 * dx[:, 3:-1]], axis=1)
)


@_wrong_vjp("empty/refused", "a batch of nothing raises on the way back")
def _no_empty_back(dx, g, x, h):
    if not len(x):
        raise ValueError("empty batch")
    return dx


_wrong_vjp("special/cleaned", "what is not finite is replaced in the cotangent")(
    lambda dx, g, x, h: right_vjp(np.nan_to_num(g), x, **h)
)
_wrong_vjp("special/everywhere", "0 times the sum of the cotangent is added, which is NaN if an element is not finite")(
    lambda dx, g, x, h: dx + 0 * g.sum()
)


# -- the module --------------------------------------------------------------------------------------------------------

beginning("avg_pool2d.parameters.none/spare", "a parameter that nothing uses", AvgPool2d)(add_parameter)
beginning("avg_pool2d.parameters.none/spare-buffer", "a count that nothing uses is saved", AvgPool2d)(add_buffer)
beginning("avg_pool2d.parameters.none/last-input", "the last input is saved", AvgPool2d)(save_input)

# -- refusals ----------------------------------------------------------------------------------------------------------

_wrong("avg_pool2d.refuses.rank/last-axes", "the last two axes are pooled, whatever comes before them")(
    lambda x, **h: right(x.reshape(1, -1, *x.shape[-2:]), **h)
)
for _name, _rule, _least in (("kernel_size", "kernel-size", 1), ("stride", "stride", 1), ("padding", "padding", 0)):
    _wrong(f"avg_pool2d.refuses.{_rule}/clipped", f"an illegal {_name} is silently made legal")(
        lambda x, _n=_name, _v=_least, **h: right(x, **{**h, _n: tuple(max(_v, v) for v in h[_n])})
    )
    _wrong(f"avg_pool2d.refuses.{_rule}/third-ignored", f"of three values of {_name} the last is ignored")(
        lambda x, _n=_name, **h: right(x, **{**h, _n: h[_n][:2]})
    )


@_wrong("avg_pool2d.refuses.padding-half/any", "any padding is accepted")
def _any_padding(x, *, padding, **h):
    rows, columns = ((p, p) for p in padding)
    return right(np.pad(x, ((0, 0), (0, 0), rows, columns)), padding=0, **h)


@_wrong("avg_pool2d.refuses.padding-half/larger-half", "the larger side of the kernel decides for both")
def _larger_half(x, *, padding, **h):
    if max(padding) > max(h["kernel_size"]) // 2:
        raise ValueError(f"padding={padding}")
    return _any_padding(x, padding=padding, **h)


_wrong("avg_pool2d.refuses.divisor/absent", "an override of 0 counts as absent")(
    lambda x, divisor_override, **h: right(x, divisor_override=divisor_override or None, **h)
)


@_wrong("avg_pool2d.refuses.divisor/infinite", "an override of 0 divides by 0")
def _infinite(x, *, divisor_override, **h):
    if divisor_override == 0:
        return np.full_like(_sums(x, **h), np.inf)
    return right(x, divisor_override=divisor_override, **h)


@_wrong("avg_pool2d.refuses.window/empty", "a window larger than the image gives an empty result")
def _empty_result(x, **h):
    try:
        return right(x, **h)
    except ValueError:
        return np.zeros((*x.shape[:2], 0, 0), x.dtype)


disturbed_by_relu("avg_pool2d.call.neighbours/register", avg_pool2d=right)


_wrong("avg_pool2d.batch.absent/batch-stays", "an image without its batch gives a batch of one")(keeps_batch(right))
_wrong("avg_pool2d.batch.absent/reversed", "the channels of an image without its batch come in reverse")(
    changes_lone_image(right, lambda x: x[:, ::-1])
)
mistakes_in_memory("avg_pool2d", right)


def _divided_by_4(x, **h):
    return right(x, **h) if h.get("divisor_override") else right(x, **{**h, "divisor_override": 4})


fault(
    "avg_pool2d.domain.outside/fixed-divisor",
    "sums are divided by 4, whatever the window is",
    domain={"kernel_size": 2, "padding": 0, "ceil_mode": False},
    avg_pool2d=_divided_by_4,
)

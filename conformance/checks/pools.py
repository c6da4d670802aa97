"""Cases of max_pool2d and avg_pool2d: windows that fit, that hang over, and that are refused.

An image's size is derived from its windows and what is left over after the last one, so that every draw is legal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.signatures import as_number
from nnspec.conformance.case import Array, Case, as_pair
from nnspec.conformance.checks.cases import data, illegal_pairs, not_finite_somewhere
from nnspec.conformance.checks.within import allowed, argument, chosen, image_side, inside, pairs_within
from nnspec.conformance.drawing import MORE_OFTEN, SIZES, Draw, Plan, any_of, booleans, composite, dimension, integers
from nnspec.conformance.sizes import Sweep, arguments
from nnspec.reference.windows import output_size, pooled_size


def _layer(channels: int, side: int, images: int = 1, **given: int) -> Plan:
    return {**arguments(**given, images=images, channels=channels), "windows0": side, "windows1": side}


SWEEP = Sweep(
    layers=(
        _layer(64, 56, kernel=3, stride=2, padding=1),  # ResNet-34 at 224 × 224, and at an odd side
        _layer(64, 57, kernel=3, stride=2, padding=1),
        *(_layer(c, side, kernel=2, stride=2) for c, side in ((64, 112), (128, 56), (512, 7))),  # VGG
        _layer(512, 1, 128, kernel=7),
    ),
    names={"images0": "N", "channels0": "C", "windows0": "OH", "windows1": "OW"},
    axes=(
        ("windows1",),
        ("windows0",),
        ("channels0",),
        ("images0",),
        ("images0", "channels0"),
        ("windows0", "windows1"),
    ),
    forms=(
        arguments(),
        arguments(kernel=2, stride=2),
        arguments(kernel=3, stride=2, padding=1),
        arguments(kernel=3, padding=1),
        arguments(kernel=3, stride=2),
        arguments(kernel=5, padding=2),
        arguments(kernel=7),
        arguments(kernel=7, stride=7),
        arguments(kernel=9, padding=4),
        arguments(kernel=13, padding=6),
        arguments(kernel=4, stride=4),
        arguments(kernel=8, stride=8),
        arguments(kernel=(1, 5), padding=(0, 2)),
        arguments(kernel=(9, 1), stride=(2, 1)),
        arguments(kernel=3, stride=4),
        arguments(kernel=3, dilation=6),
    ),
)
ALL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "count_include_pad", "divisor_override")
WITHOUT_STRIDE = tuple(name for name in ALL if name != "stride")
MORE = 64  # windows that are added at most to come to a size within a domain
Change = Callable[[Draw, Array], Array]
Breakage = Callable[[Draw, Case, frozenset[str]], Case]


def with_a_window(case: Case) -> Case:
    """The same case with an image that a whole window fits into, so that any stride is legal. Its rows repeat."""
    x = case["x"]
    arguments = (as_pair(case.arguments.get(name, 1)) for name in ("kernel_size", "padding", "dilation"))
    for axis, k, p, d in zip((-2, -1), *arguments, strict=True):
        x = x.take(range(max(x.shape[axis], d * (k - 1) + 1 - 2 * p)), axis, mode="wrap")
    return case.but(x=x)


@composite
def pools(
    draw,
    *,
    stem: str,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    vary: tuple[str, ...] = ALL,
    ending: str = "any",
    kernels: tuple[int, ...] = (1, 2, 3, 4),
    channels: tuple[int, ...] = (1, 2, 3),
    batch: int = 1,
    side_by_side: bool = False,
    change: Change = lambda draw, x: x,
):
    """A pool that has at least one window, each with at least one element of the image.

    Arguments not in `vary`, or that the subject lacks, are neutral; the stride is then 1, and the kernel square.
    `ending` says how the windows meet the end of the padded image: "exact", "extra" where `ceil_mode` adds a window,
    "dropped" where it would but for the padding, or "any" of these. Where the windows lie `side_by_side`, the stride is
    the kernel's size. `change` is applied to the data.
    """
    vary = tuple(name for name in vary if name not in lacks)
    ceil_mode = _ceil_mode(draw, vary, ending, lacks)
    kernel = _kernel(draw, kernels, "kernel_size" in vary)
    own = pairs_within(
        draw,
        stride=((1, 2, 3), 1, "stride" in vary),
        padding=(range(min(kernel) // 2 + 1), 0, "padding" in vary),
        dilation=((1, 2, 3), 1, "dilation" in vary),
    )
    own_stride = not side_by_side and "stride" not in lacks
    axes: list[tuple[int, int, int, int]] = []
    for k, side in zip(kernel, own, strict=True):
        rows = axes[0][0] if axes else 0
        axes.append(_axis(draw, k, vary, ending, ceil_mode, own_stride, side, rows))
    size, stride, padding, dilation = (tuple(pair) for pair in zip(*axes, strict=True))
    images = dimension(*[n for n in SIZES if n >= batch], of="images", name="N")
    alone = max(kernel) > 9 and not {"N", "C"} & draw.domain.conditions.keys()
    many = (1, 1) if alone else (draw(images), draw(dimension(*channels, of="channels", name="C")))
    values = draw(data(dtype, ("integers", "normal")))
    arguments = {
        "kernel_size": as_number(kernel),
        "stride": None if "stride" in lacks else as_number(stride),
        "padding": as_number(padding),
        "ceil_mode": ceil_mode,
    }
    if stem == "max_pool2d":
        arguments["dilation"] = as_number(dilation)
    else:
        varies = "count_include_pad" in vary
        included = argument("count_include_pad", any_of(True, False), (True, False), neutral=True, varies=varies)
        overrides = (None, None, None, 3, -2) if "divisor_override" in vary else (None,)
        override = argument("divisor_override", any_of(*overrides), overrides, neutral=None, varies=True)
        arguments |= {"count_include_pad": draw(included), "divisor_override": draw(override)}
    case = Case(stem, {"x": change(draw, values.inputs(*many, *size))}, arguments)
    for axis, windows in enumerate(output_shape(case)[2:] if draw.planned else ()):
        if draw.planned.get(f"windows{axis}") not in (None, windows):  # one hangs over the end
            draw.planned.pop(f"windows{axis}")
    return case


def _ceil_mode(draw: Draw, vary: tuple[str, ...], ending: str, lacks: frozenset[str]) -> bool:
    if "ceil_mode" in draw.domain.conditions:
        values = allowed(draw, "ceil_mode", (False, True) if ending == "any" else (True,))
        return bool(values[draw.below(len(values))] if "ceil_mode" in vary else values[0])
    return "ceil_mode" not in lacks and (ending != "any" or ("ceil_mode" in vary and draw(MORE_OFTEN)))


def _kernel(draw: Draw, kernels: tuple[int, ...], varies: bool) -> tuple[int, int]:
    """Rows and columns of the windows, which are square unless the kernel size varies."""
    if "kernel_size" in draw.domain.conditions:
        return as_pair(chosen(draw, "kernel_size", sorted({*kernels})))
    rows = draw(dimension(*kernels, of="kernel"))
    return rows, draw(dimension(*kernels, of="kernel")) if varies else rows


def _axis(
    draw: Draw,
    k: int,
    vary: tuple[str, ...],
    ending: str,
    ceil_mode: bool,
    own_stride: bool,
    own: Mapping[str, int],
    rows: int,
) -> tuple[int, int, int, int]:
    """Size, stride, padding and dilation of one axis.

    `own` has those that the domain is about. `rows` is the size of the axis before, if any.
    """
    p = own.get("padding")
    if p is None:
        p = draw(dimension(*range(k // 2 + 1), of="padding", most=k // 2)) if "padding" in vary else 0
    elif p > k // 2:
        raise OutOfDomain(draw.domain.outside("padding"))
    d = own.get("dilation") or (draw(dimension(1, 2, 3, of="dilation")) if "dilation" in vary else 1)
    asked = ending
    least = {"extra": 2, "dropped": max(2, k - p + 1)}.get(ending, 1)
    s = own.get("stride") or k
    if "stride" not in draw.domain.conditions:
        s = draw(dimension(*range(least, least + 3), of="stride")) if "stride" in vary else 1 if own_stride else k
    elif s < least:
        raise OutOfDomain(draw.domain.outside("stride"))
    if ending == "any" and ceil_mode and s > 1 and k > p + 1 and draw(booleans()):
        ending = "extra"  # by chance alone it is rare where there is padding
    left_over = {
        "exact": (0, 0),
        "extra": (max(1, s - k + p + 1), s - 1),  # one more window begins before the far padding, …
        "dropped": (1, min(s - 1, s - k + p)),  # … or in it, or beyond
        "any": (1 - s if ceil_mode else 0, s - 1),  # below 0: the first window hangs over already
    }[ending]
    span, fewest = d * (k - 1) + 1 - 2 * p, d if p else 1
    more = (draw(dimension(*SIZES, of="windows")) - 1) * s + draw(integers(*left_over))
    overhang = min(s - 1, span - fewest)
    if ceil_mode and ending in ("any", "extra") and overhang > 0 and draw(any_of(False, False, True)):
        more = -draw(integers(1, overhang))  # one window, larger than the padded image
    n = span + more
    # With d rows or more, no two neighbouring elements of a window leap over the image, one in each padding.
    short = max(0, fewest - n)
    n += -(-short // s) * s
    if ending != "any":  # as many windows more as the domain asks for end alike
        name = "W" if rows else "H"
        n = next((n + more * s for more in range(MORE) if draw.domain.allows(name, n + more * s)), n)
    side = image_side(draw, "W" if rows else "H", n, least=max(1, fewest, span), rows=rows)
    if side != n and asked != "any":
        raise OutOfDomain(draw.domain.outside("W" if rows else "H"))
    return side, s, p, d


def output_shape(case: Case) -> tuple[int, ...]:
    """(N, C, OH, OW), by the page's formula."""
    kernel, padding, dilation = (as_pair(case.arguments.get(n, 1)) for n in ("kernel_size", "padding", "dilation"))
    stride = kernel if case["stride"] is None else as_pair(case["stride"])
    pairs = (case["x"].shape[2:], kernel, stride, padding, dilation)
    rows, columns = stride
    size = pooled_size(*pairs, (rows - 1, columns - 1)) if case["ceil_mode"] else output_size(*pairs)
    return *case["x"].shape[:2], *size


@composite
def with_default_stride(draw, *, of: Callable[..., Any], lacks: frozenset[str] = frozenset(), **choices: Any):
    """Cases of the strategy `of`, some of which leave the stride out."""
    case = draw(of(lacks=lacks, **choices))
    there = not {"stride", "default of stride"} & lacks
    return case.without("stride") if there and draw(any_of(False, False, True)) else case


def not_finite_sometimes(draw: Draw, x: Array) -> Array:
    """x, with an infinity or NaN in some cases."""
    return not_finite_somewhere(draw, x) if draw(any_of(False, False, True)) else x


@composite
def calls_in_turn(draw, *, stem: str, dtype: str, lacks: frozenset[str]):
    """Two calls on the same image that differ in one argument, and mostly agree in the shape of the result."""
    case = draw(pools(stem=stem, dtype=dtype, lacks=lacks, vary=(), kernels=(2, 3, 4)))
    n, c, h, w = case["x"].shape
    kernel, _ = as_pair(case["kernel_size"])
    case, half = case.but(x=draw(data(dtype, ("integers", "normal"))).inputs(n, c, h + 4, w + 4)), kernel // 2
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"padding": half, "count_include_pad": True}, {"padding": half, "count_include_pad": False}),
        ({"divisor_override": None}, {"divisor_override": 3}),
        ({}, {"dilation": 2, "padding": half}),
        ({}, {"dilation": 2}),
        ({}, {"kernel_size": kernel + 1}),
        ({}, {"kernel_size": (kernel, kernel + 1)}),
        ({"padding": 0}, {"padding": half}),
        ({"stride": 3, "ceil_mode": False}, {"stride": 3, "ceil_mode": True}),
        ({"stride": 1}, {"stride": 2}),
    ]
    known = case.arguments.keys() - lacks
    possible = [c for c in changes if c[1].keys() <= known] or [({}, {})]
    calls = [(case.but(**first), case.but(**second)) for first, second in possible]
    if draw.domain.conditions:  # which may leave no other argument
        calls.append((case, case.but(x=np.tile(case["x"], (1, 1, 2, 2)))))
    one, other = draw(any_of(*inside(draw, calls)))
    return (one, other) if draw(booleans()) else (other, one)


# -- what is refused ---------------------------------------------------------------------------------------------------


@composite
def broken(draw, *, how: Breakage, lacks: frozenset[str], **choices: Any):
    """A legal case with one thing made illegal by `how(draw, case, lacks)`."""
    return how(draw, draw(pools(lacks=lacks, **choices)), lacks)


def rank(draw: Draw, case: Case, lacks: frozenset[str]) -> Case:
    """Two or five dimensions."""
    return case.but(x=draw(any_of(case["x"][0, 0], case["x"][None])))


def no_pair(name: str, least: int) -> Breakage:
    """Values below the least, or three of them, on an image large enough for any reading of them."""
    values = illegal_pairs(least, least)

    def how(draw: Draw, case: Case, lacks: frozenset[str]) -> Case:
        x = np.resize(case["x"], (*case["x"].shape[:2], 9, 9))
        return case.but(x=x, **{name: draw(values)})

    return how


NO_STRIDE: dict[str, Any] = {"how": no_pair("stride", 1), "vary": (), "needs": "stride", "effort": 1}
NO_PADDING: dict[str, Any] = {"how": no_pair("padding", 0), "vary": (), "needs": "padding", "effort": 1}


def too_much_padding(draw: Draw, case: Case, lacks: frozenset[str]) -> Case:
    """More than half of the dilated window, on one axis or both; a little, or as much as the window."""
    kernel, dilation = as_pair(case["kernel_size"]), as_pair(case.arguments.get("dilation", 1))
    halves = [(d * (k - 1) + 1) // 2 + 1 + draw(integers(0, 1)) for k, d in zip(kernel, dilation, strict=True)]
    return case.but(padding=draw(any_of((halves[0], 0), (0, halves[1]), tuple(halves))))


def too_large_a_window(draw: Draw, case: Case, lacks: frozenset[str]) -> Case:
    """A window one row or one column larger than fits, by its kernel size or by its dilation."""
    axis = draw(integers(0, 1))
    kernel, padding = list(as_pair(case["kernel_size"])), as_pair(case["padding"])
    ceil_mode = case["ceil_mode"] and case["stride"] is not None  # a stride as large as the window fits always
    span = case["x"].shape[2 + axis] + 2 * padding[axis] + (as_pair(case["stride"])[axis] if ceil_mode else 1)
    if "dilation" in case.arguments.keys() - lacks and kernel[axis] > 1 and draw(booleans()):
        dilation = [1, 1]
        dilation[axis] = -(-(span - 1) // (kernel[axis] - 1))
        return case.but(dilation=tuple(dilation), ceil_mode=ceil_mode)
    kernel[axis] = span
    return case.but(kernel_size=tuple(kernel), ceil_mode=ceil_mode)

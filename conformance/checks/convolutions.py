"""What conv2d and conv_transpose2d share: the bounds of gradients, and cases that are refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.domains import Domain
from nnspec.conformance.bounds.convolution import fast_bound
from nnspec.conformance.bounds.rule import Expected, multilinear
from nnspec.conformance.case import Array, Case, as_pair
from nnspec.conformance.checks import laws, starts
from nnspec.conformance.checks.cases import data, illegal_pairs
from nnspec.conformance.checks.laws import Judge, Law
from nnspec.conformance.checks.within import image_side, inside
from nnspec.conformance.drawing import Draw, any_of, booleans, composite, dimension, integers, legal
from nnspec.conformance.trial.trial import Trial

Vjp = Callable[..., Any]  # cotangent, x, weight and, with them, the bias and arguments -> the gradient for each operand


def gradients_by(vjp: Vjp, outputs: Callable[[Case], int]) -> Callable[[Case], dict[str, Expected]]:
    """Return what gives the gradients of a case, with their bounds. `outputs` counts the output channels.

    The gradients for x and weight are linear in the cotangent and in the other operand; the gradient for the bias is a
    sum.
    """

    def expected(case: Case) -> dict[str, Expected]:
        x, weight, cotangent, bias = case["x"], case["weight"], case["cotangent"], np.zeros(outputs(case))

        def of(g: Array, x: Array, weight: Array) -> Any:
            return vjp(g, x.astype(g.dtype), weight.astype(g.dtype), bias, **case.arguments)

        def of_ones(g: Array, x: Array, weight: Array) -> Any:
            return vjp(g, x[:, :, :1, :1], weight[:, :, :1, :1], groups=case["groups"])

        by_x = fast_bound(lambda g, w: of_ones(g, x, w)[0])
        by_weight = fast_bound(lambda x, g: of_ones(g, x, weight)[1])
        found = {
            "x": multilinear(lambda g, w: of(g, x, w)[0], cotangent, weight, fast=by_x),
            "weight": multilinear(lambda x, g: of(g, x, weight)[1], x, cotangent, fast=by_weight),
        }
        if case["bias"] is not None:
            found["bias"] = multilinear(lambda g: of(g, x, weight)[2], cotangent)
        return found

    return expected


@composite
def differing_in_one(draw: Draw, case: Case, lacks: frozenset[str], *, outputs: int):
    """Two calls that differ in one argument, or in the size of an operand, from a case without groups.

    The image has room for either. With two groups and with one, a weight has as many rows, and half as many columns.
    """
    values = draw(data(case["x"].dtype.name))
    (n, c, h, w), (a, b, kh, kw), (ph, pw) = case["x"].shape, case["weight"].shape, as_pair(case["padding"])
    small, more = (h, w), legal(draw, "N", n + 1)
    h, taller = image_side(draw, "H", h + kh + 2), image_side(draw, "H", h + kh + 1)
    w = image_side(draw, "W", w + kw + 2, rows=h)
    case = case.but(x=values.inputs(n, c, h, w))
    apart = case.but(x=values.inputs(n, 2 * c, *small), weight=values.inputs(2 * a, b, kh, kw), bias=None, groups=2)
    pairs = {
        "groups": (apart, apart.but(weight=values.inputs(2 * a, 2 * b, kh, kw), groups=1)),
        "bias": (case.but(bias=values.inputs(outputs)), case.but(bias=None)),
        "stride": (case, case.but(stride=2)),
        "padding": (case, case.but(padding=(ph + 1, pw + 1))),
        "dilation": (case, case.but(dilation=2)),
        "weight": (case, case.but(weight=values.inputs(a, b, kh + 1, kw))),
        "x": (case, case.but(x=values.inputs(more, c, taller, w))),
    }
    first, second = draw(any_of(*inside(draw, [pair for name, pair in pairs.items() if name not in lacks])))
    return (first, second) if draw(booleans()) else (second, first)


def starts_uniform(terms: Callable[[tuple[int, ...]], int]) -> Law:
    """Return the law that a new module with 64 channels begins with uniform draws, and kernels that differ.

    `terms` counts what the range is derived from, of a weight's shape.
    """

    @laws.law()
    def begins_with_uniform_draws(subject: Trial, case: Case, _judge: Judge) -> None:
        groups, kernel = case["groups"], case["weight"].shape[2:]
        more = {} if groups == 1 else {"groups": groups}
        channels = starts.UNITS * groups
        entries = subject.entries(
            case.stem, subject.new(case.stem, channels, channels, kernel, **more), ("weight", "bias")
        )
        starts.are_uniform(entries, terms(entries["weight"].shape))

    return begins_with_uniform_draws


TOGETHER: dict[str, Any] = {"wide": True, "spread": True, "sweeps": True, "narrow": True}  # to vary all arguments


# -- cases -------------------------------------------------------------------------------------------------------------


@composite
def grouped(draw: Draw, vary: bool, channels: tuple[int, ...]):
    """The number of groups, and the channels of each: in some cases one, as in a depthwise convolution."""
    if {"groups", "in_channels", "out_channels"} & draw.domain.conditions.keys():
        groups, each = draw(any_of(*_groups_within(draw.domain, vary, channels)))
        long = None if draw.plan is None else draw.size("channels", None, 1)
        return groups, each if long is None else legal(draw, "in_channels", long, groups)
    if not vary:
        return 1, draw(dimension(*channels, of="channels"))
    if draw(any_of(*[False] * 5, True)) and draw.plan is None:
        return draw(dimension(2, 3, 5, of="groups")), 1
    return draw(dimension(1, 2, 3, 2, 3, of="groups")), draw(dimension(*channels, of="channels"))


@functools.lru_cache(64)
def _groups_within(domain: Domain, vary: bool, channels: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the numbers of groups, and of channels of each, that a domain allows. Raises OutOfDomain without any."""
    groups = domain.conditions.get("groups")
    if groups is not None and groups.equal:
        found = [(n, 1) for n in domain.numbers("in_channels", (2, 3, 5))]
    else:
        alone = not vary and domain.allows("groups", 1)
        some = (1,) if alone else domain.choices("groups", (1, 2, 3, 5)) if groups else (1, 2, 3, 5)
        found = [(g, c) for g in some for c in domain.numbers("in_channels", channels, g)]
    outputs = domain.conditions.get("out_channels")
    if outputs is not None and not outputs.equal:
        found = [(g, c) for g, c in found if domain.numbers("out_channels", (1, 2, 3), g)]
    if not found:
        names = (name for name in ("in_channels", "groups", "out_channels") if name in domain.conditions)
        raise OutOfDomain(domain.outside(next(names)))
    return found


# -- cases that are refused --------------------------------------------------------------------------------------------


def rank(draw: Draw, case: Case) -> Case:
    """Give x or weight two or five dimensions."""
    name = draw(any_of("x", "weight"))
    return case.but(**{name: draw(any_of(case[name][0, 0], case[name][None]))})


def channels(draw: Draw, case: Case) -> Case:
    """Give x one channel too many or too few, or one channel alone."""
    x = case["x"]
    wrong = draw(any_of(*(n for n in (x.shape[1] + 1, 1, x.shape[1] - 1) if n not in (0, x.shape[1]))))
    return case.but(x=np.take(x, range(wrong), axis=1, mode="wrap"))


def long_kernel(draw: Draw, case: Case) -> Case:
    """Make a square kernel one of three sizes, of which the third may differ from the others."""
    c, o, k = case["x"].shape[1], draw(integers(1, 3)), draw(integers(1, 2))
    sizes = {"in_channels": c, "out_channels": o, "kernel_size": (k, k, draw(integers(k, k + 1)))}
    return Case(case.stem, {"x": np.resize(case["x"], (1, c, 4, 4))}, sizes)


def no_pair(name: str, least: int, legal: int | None = None) -> Callable[[Draw, Case], Case]:
    """Return what sets values of a pair below the least, or makes three of it. The least is legal unless `legal` is."""
    values = illegal_pairs(least, least if legal is None else legal)
    return lambda draw, case: case.but(**{name: draw(values)})

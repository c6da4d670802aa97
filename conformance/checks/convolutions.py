"""What conv2d and conv_transpose2d share: the bounds of gradients, and cases that are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from nnspec.conformance.bounds.convolution import fast_bound
from nnspec.conformance.bounds.rule import Expected, multilinear
from nnspec.conformance.case import Array, Case
from nnspec.conformance.drawing import Draw, any_of, booleans

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


# -- cases that are refused --------------------------------------------------------------------------------------------


def rank(draw: Draw, case: Case) -> Case:
    """Give x or weight two or five dimensions."""
    name = draw(any_of("x", "weight"))
    return case.but(**{name: draw(any_of(case[name][0, 0], case[name][None]))})


def channels(draw: Draw, case: Case) -> Case:
    """Give x one channel too many or too few."""
    x = case["x"]
    more = draw(booleans()) or x.shape[1] == 1
    return case.but(x=np.concatenate([x, x[:, :1]], axis=1) if more else x[:, 1:])


def below(name: str, legal: int) -> Callable[[Draw, Case], Case]:
    """Return what sets one of a pair's two values, or both, below what is legal."""
    values = any_of(legal - 1, (legal - 1, legal), (legal, legal - 1), (legal, legal - 2))
    return lambda draw, case: case.but(**{name: draw(values)})

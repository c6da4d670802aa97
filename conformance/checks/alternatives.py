"""How checks of conventions judge a subject that declares one of the alternatives that the page names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from nnspec.conformance.bounds.rule import Expected, Sums, multilinear, sum_bound, where_finite
from nnspec.conformance.case import Array, Case, as_pair
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.max_pool2d import max_pool2d

Body = Callable[[Trial, Case], None]


def gives(judge: Callable[[Case], Expected]) -> Body:
    """Return the check that a call gives what `judge` expects."""
    return lambda subject, case: subject.expect(subject(case), judge(case))


def refused(subject: Trial, case: Case) -> None:
    """The call, without a cotangent, raises an exception."""
    operands = {name: array for name, array in case.arrays.items() if name != "cotangent"}
    subject.refuses(Case(case.stem, operands, case.arguments))


def crops(judge: Callable[[Case], Expected]) -> Body:
    """Return the check that negative padding takes rows and columns off the image."""

    def body(subject: Trial, case: Case) -> None:
        if isinstance(case["padding"], tuple) and len(case["padding"]) > 2:  # what nobody reads as rows and columns
            subject.refuses(case)
            return
        rows, columns = as_pair(case["padding"])
        x = case["x"]
        for axis, p in ((2, rows), (3, columns)):
            x = np.take(x, range(max(0, -p), x.shape[axis] - max(0, -p)), axis)
        try:
            expected = judge(case.but(x=x, padding=(max(0, rows), max(0, columns))))
        except ValueError:  # no window fits what is left, and the page on windows says what happens then
            return
        subject.expect(subject(case), expected)

    return body


def is_empty(subject: Trial, case: Case) -> None:
    """The result has no elements, and as many images as the batch."""
    y = subject(case)
    if y.size or len(y) != len(case["x"]):
        raise Mismatch(f"the result has shape {y.shape}, expected {len(case['x'])} images without elements", y)


def _to_every_maximum(cotangent: Array, case: Case, share: Callable[[int], float]) -> Array:
    """Return the gradient of x where each of k equal maxima of a window gets share(k) of its cotangent."""
    x, y = case["x"], max_pool2d(case["x"], **case.arguments)
    kernel = as_pair(case["kernel_size"])
    names = ("stride", "padding", "dilation")
    stride, padding, dilation = (as_pair(case[name] if case[name] is not None else kernel) for name in names)
    dx = np.zeros(x.shape, cotangent.dtype)
    for n, c, *place in np.ndindex(*y.shape):
        first = [r * s - p for r, s, p in zip(place, stride, padding, strict=True)]
        window = [
            [i for i in range(a, a + k * d, d) if 0 <= i < size]
            for a, k, d, size in zip(first, kernel, dilation, x.shape[2:], strict=True)
        ]
        equal = [(n, c, i, j) for i in window[0] for j in window[1] if x[n, c, i, j] == y[n, c, *place]]
        for element in equal:
            dx[element] += cotangent[n, c, *place] * share(len(equal))
    return dx


def to_each_maximum(case: Case) -> Expected:
    """Return the gradient of x where each of several maxima of a window gets all of its cotangent."""
    return multilinear(partial(_to_every_maximum, case=case, share=lambda k: 1.0), case["cotangent"])


def shared_by_maxima(case: Case) -> Expected:
    """Return the gradient of x where the maxima of a window share its cotangent.

    A share is a reciprocal and a product: one rounding more than in the term of a sum of products.
    """
    each = Sums(partial(_to_every_maximum, case=case, share=lambda k: 1.0), case["cotangent"])
    shares = Sums(partial(_to_every_maximum, case=case, share=lambda k: 1.0 / k), case["cotangent"])
    return Expected(
        shares.value,
        lambda accuracy: where_finite(
            sum_bound(each.terms + 1, shares.magnitude, accuracy.of(each.dtype)), shares.value
        ),
    )

"""The verdict rule of batch norm: the expected results of a call, and their bounds.

Per channel, over its n values: μ is the mean, d = x − μ, v the mean of d², s = 1 / √(v + eps). Where other blocks come
first, the subject's x may differ from the reference's x: by e at most, element by element.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnspec.conformance.bounds.arithmetic import Accuracy, Arithmetic, wide
from nnspec.conformance.bounds.rule import Array, Expected, multilinear, where_finite
from nnspec.conformance.case import Case
from nnspec.reference.batch_norm import batch_norm_vjp_vjp

DEFAULTS = {"training": False, "momentum": 0.1, "eps": 1e-5}
PARAMETERS = ("weight", "bias")
LONG = 512  # terms of a sum up to which the bound is that of any order, whatever the data
SAMPLE, VARIED = 251, 8  # so many values of a channel are looked at, and at least so many of them differ in varied data
ROOM = 8  # roundings beside the n of the sum itself: a few for each value and each level of a tree of partial sums


def expected(case: Case, off: Array | float = 0.0, *, biased: bool = False) -> tuple[Expected, Expected, Expected]:
    """Return y, the running mean and the running variance after the call, whose x may be off by `off`.

    `biased`: the variance that goes into the running variance has divisor n.
    """
    momentum = case.arguments.get("momentum", DEFAULTS["momentum"])
    return next(_under(case, off, ((momentum, biased),)))


def readings(case: Case) -> Iterator[tuple[Expected, Expected, Expected]]:
    """Yield what is expected under each convention: momentum weighs the new batch or the old value, and both divisors.

    The page's own come first. Checks that are about something else accept each.
    """
    momentum = case.arguments.get("momentum", DEFAULTS["momentum"])
    weights = dict.fromkeys((momentum, 1 - momentum))
    return _under(case, 0.0, tuple((weight, biased) for weight in weights for biased in (False, True)))


def _under(
    case: Case, off: Array | float, conventions: tuple[tuple[float, bool], ...]
) -> Iterator[tuple[Expected, Expected, Expected]]:
    """Yield the results under each convention: the weight of the new batch, and whether its variance has divisor n."""
    dtype = case["running_mean"].dtype
    a = case.map(lambda a: np.asarray(a, wide(dtype))).arrays
    settings, e = {**DEFAULTS, **case.arguments}, np.asarray(off)
    with np.errstate(all="ignore"):  # NaN and its channel
        if not settings["training"]:
            batch, y = None, _evaluation(a, e, settings["eps"], dtype)
        elif not a["x"].size:
            batch, y = None, Expected.exactly(a["x"])
        else:
            batch = _Batch(a["x"], e, settings["eps"], dtype)
            y = _training(a, batch)
    for momentum, biased in conventions:
        if batch is None:
            yield y, Expected.exactly(a["running_mean"]), Expected.exactly(a["running_var"])
            continue
        bessel = 1.0 if biased else batch.n / (batch.n - 1)
        mean = _moved(a["running_mean"], batch.mu, lambda off: off.mu, momentum, batch)
        yield y, mean, _moved(a["running_var"], bessel * batch.v, _scaled_variance(bessel), momentum, batch)


def _scaled_variance(bessel: float) -> Callable[[_Off], Array]:
    return lambda off: bessel * off.v


def _evaluation(a: dict[str, Array], e: Array, eps: float, dtype: Any) -> Expected:
    """As (x − r)·s·w + b or folded into a scale and a shift: 3u for s, 4u for what follows, u for their products."""
    x, mean, weight, bias = a["x"], *(_along(a, n) for n in ("running_mean", "weight", "bias"))
    scale = weight / np.sqrt(_along(a, "running_var") + eps)
    y = (x - mean) * scale + bias

    def bound(accuracy: Accuracy) -> Array:
        u = accuracy.of(dtype).rounding
        found = np.abs(scale) * (e + 8 * u * (np.abs(x) + e + np.abs(mean))) + 2 * u * np.abs(bias)
        return where_finite(np.asarray(found, np.float64), y)

    return Expected(y, bound)


@dataclass(frozen=True)
class _Off:
    """The errors that a correct call may have in the statistics of a batch."""

    q: float  # a sum of n terms in any order is off by q times the sum of their absolute values
    mu: Array
    v: Array
    s: Array


class _Batch:
    """The statistics of a batch, one per channel in the layout of x, where x may be off by e.

    Arrays of x's shape that are summed with it, such as a cotangent, are `along`.
    """

    def __init__(self, x: Array, e: Array, eps: float, dtype: Any, along: tuple[Array, ...] = ()) -> None:
        self.x, self.e, self.eps, self.dtype, self.along = x, e, eps, dtype, along
        self.n = x.size // x.shape[1]
        self.mu = _mean(x, x)
        self.d = x - self.mu
        self.v = _mean(self.d**2, x)
        self.s = 1 / np.sqrt(self.v + eps)
        self._known: dict[Arithmetic, _Off] = {}

    @functools.cached_property
    def terms(self) -> int:
        """The number of roundings of one size that a sum over a channel is allowed: n, or fewer for long varied data.

        The bound for any order grows with n until it allows everything. Roundings of varied values are as good as
        independent: beyond `LONG` terms, six standard deviations of their sum, 6·√n, are enough. Roundings of values
        that repeat may all go the same way.
        """
        if self.n <= LONG or not all(map(_varies, (self.x, *self.along))):
            return self.n
        return min(self.n, max(LONG, math.ceil(6 * math.sqrt(self.n))))

    def off(self, form: Arithmetic) -> _Off:
        """Return how far a correct call may be from the statistics."""
        if form not in self._known:
            self._known[form] = self._off(form)
        return self._known[form]

    def _off(self, form: Arithmetic) -> _Off:
        x, e, d, mu, v = self.x, self.e, self.d, self.mu, self.v
        u, q = form.rounding, _summing(self.terms, form)
        # an x that is off moves μ by mean(e), and v by 2·mean(|d|·e) + mean(e²) at most, for Σ d is 0
        largest, mu_carried, v_carried = np.abs(x) + e, _mean(e, x), _mean(2 * np.abs(d) * e + e**2, x)
        # a sum of n terms in any order is off by n·u of the sum of their absolute values
        mu_rounded = q * _mean(largest, x)
        # two passes: q·v, and (μ̂ − μ)² for the mean that was taken off. One pass with updates (Welford), or parts put
        # together (Chan): up to q·κ·v with κ²·v = v + μ². One pass about some value of the channel: sums of squares up
        # to v + max d². mean(x²) − mean(x)², whose errors are of the size u·μ², whatever v is, is in class N alone.
        v_most, d_most = v + v_carried, (np.abs(d) + e + mu_carried).max(_axes(x), keepdims=True)
        squares = _mean(largest**2, x)
        updated = q * (v_most + 2 * np.sqrt(v_most * squares))
        shifted = 3 * q * (v_most + d_most**2)
        v_rounded = np.maximum(updated, shifted)
        if form.one_pass:
            v_rounded += q * squares + 2 * np.abs(mu) * mu_rounded + 2 * u * (squares + mu**2)
        mu_off, v_off = mu_carried + mu_rounded, v_carried + v_rounded + mu_rounded**2 * (1 + q)
        # s falls with v; eps rounded, the sum, the root and the quotient, or a reciprocal root good to 2 units, are 6u
        s_high, s_low = 1 / np.sqrt(np.maximum(v - v_off, 0) + self.eps), 1 / np.sqrt(v + v_off + self.eps)
        return _Off(q, mu_off, v_off, np.maximum(s_high - self.s, self.s - s_low) + 6 * u * s_high)


def _training(a: dict[str, Array], batch: _Batch) -> Expected:
    x, e, weight, bias = batch.x, batch.e, _along(a, "weight"), _along(a, "bias")

    def bound(accuracy: Accuracy) -> Array:
        form = accuracy.of(batch.dtype)
        u, off = form.rounding, batch.off(form)
        # d is off as x and μ are; the folded form x·scale + (bias − mean·scale) rounds numbers as large as x and μ
        d_off = e + off.mu + 4 * u * (np.abs(x) + e + np.abs(batch.mu))
        found = np.abs(weight) * (off.s * np.abs(batch.d) + (batch.s + off.s) * d_off) + 2 * u * np.abs(bias)
        return np.asarray(found, np.float64)

    return Expected(batch.d * batch.s * weight + bias, bound)


def _moved(running: Array, new: Array, off: Callable[[_Off], Array], momentum: float, batch: _Batch) -> Expected:
    """(1 − m)·r + m·b or r + m·(b − r): up to 6 roundings of numbers as large as r and m·b, none where m is 0."""
    new = new.ravel()

    def bound(accuracy: Accuracy) -> Array | float:
        form = accuracy.of(batch.dtype)
        size = np.abs(running) + momentum * np.abs(new)
        found = momentum * off(batch.off(form)).ravel() + 6 * form.rounding * size
        return np.asarray(found if momentum else 0 * found, np.float64)

    with np.errstate(all="ignore"):
        return Expected((1 - momentum) * running + momentum * new, bound)


def _varies(x: Array) -> bool:
    """Return whether each channel has several values among some that lie apart."""
    values = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    some = np.sort(values[:, :: max(1, values.shape[1] // SAMPLE)], axis=1)
    return bool(((some[:, 1:] != some[:, :-1]).sum(axis=1) + 1 >= VARIED).all())


def _summing(n: int, form: Arithmetic) -> float:
    """Return the error of a stored sum of n terms in any order, relative to the sum of their absolute values."""
    return float((n + ROOM + 4 * np.log2(n)) * (form.u + form.u_wide) + form.extra)


def _along(a: dict[str, Array], name: str) -> Array:
    """Return a vector of one value per channel, laid along axis 1 of x; its default where it is absent."""
    vector = a[name] if a.get(name) is not None else np.full(a["x"].shape[1], float(name == "weight"))
    return vector.reshape(-1, *(1 for _ in a["x"].shape[2:]))


def _axes(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _mean(values: Array, x: Array) -> Array:
    """Return the mean of the values of each channel of x, laid along axis 1."""
    return np.broadcast_to(values, x.shape).mean(_axes(x), keepdims=True)


# -- gradients ---------------------------------------------------------------------------------------------------------


def expected_gradients(case: Case, off: Array | float = 0.0, cotangent_off: Array | float = 0.0) -> dict[str, Expected]:
    """Return the gradients for x, and for weight and bias where they are present, by operand, given y's cotangent.

    Where blocks come before and after it, x may be off by `off`, and the cotangent by `cotangent_off`.
    """
    a, settings, dtype = _wide(case)
    if not a["x"].size:
        found = {name: Expected.exactly(np.zeros(a[name].shape)) for name in PARAMETERS if a[name] is not None}
        return {"x": Expected.exactly(a["x"]), **found}
    e, e_g = (np.broadcast_to(np.asarray(each), a["x"].shape) for each in (off, cotangent_off))
    batch = _Batch(a["x"], e, settings["eps"], dtype, (a["cotangent"],)) if settings["training"] else None
    if batch:
        x, weight = _gradients_in_training(a, batch, e_g)
    else:
        x, weight = _gradients_in_evaluation(a, e, e_g, settings["eps"], dtype)
    if e_g.any():
        bias = _carried_sum(a["cotangent"], e_g, dtype)
    else:
        bias = multilinear(lambda g: g.sum(_axes(g)), case["cotangent"].astype(dtype))
    return {"x": x, **{n: b for n, b in zip(PARAMETERS, (weight, bias), strict=True) if a[n] is not None}}


def _wide(case: Case) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """The operands in the reference's dtype, all settings, and the dtype of the narrowest operand."""
    narrowest = min((array.dtype for array in case.arrays.values() if array is not None), key=lambda d: d.itemsize)
    return case.map(lambda array: np.asarray(array, wide(narrowest))).arrays, {**DEFAULTS, **case.arguments}, narrowest


def _carried_sum(g: Array, e_g: Array, dtype: Any) -> Expected:
    def bound(accuracy: Accuracy) -> Array:
        form, terms = accuracy.of(dtype), g.size // g.shape[1]
        u = form.u + form.u_wide
        return np.asarray(
            e_g.sum(_axes(g)) + terms * u * (1 + u) * (np.abs(g) + e_g).sum(_axes(g)),
            np.float64,
        )

    return Expected(g.sum(_axes(g)), bound)


def _gradients_in_evaluation(
    a: dict[str, Array], e: Array, e_g: Array, eps: float, dtype: Any
) -> tuple[Expected, Expected]:
    """As the result: up to 6u for s, whose product with weight and cotangent are 2u; Σ g·x̂, with x̂ folded or not."""
    x, g, weight, mean = a["x"], a["cotangent"], *(_along(a, n) for n in ("weight", "running_mean"))
    s, size = 1 / np.sqrt(_along(a, "running_var") + eps), np.abs(g) + e_g

    def of_x(accuracy: Accuracy) -> Array:
        return np.asarray(np.abs(weight * s) * (e_g + 8 * accuracy.of(dtype).rounding * size), np.float64)

    def of_weight(accuracy: Accuracy) -> Array:
        form = accuracy.of(dtype)
        most = (size * (np.abs(x) + e + np.abs(mean)) * s).sum(_axes(x))
        carried = ((e_g * np.abs(x - mean) + size * e) * s).sum(_axes(x))
        return np.asarray(carried + (_summing(x.size // x.shape[1], form) + 6 * form.rounding) * most, np.float64)

    return Expected(weight * s * g, of_x), Expected((g * (x - mean) * s).sum(_axes(x)), of_weight)


def _gradients_in_training(a: dict[str, Array], batch: _Batch, e_g: Array) -> tuple[Expected, Expected]:
    """w·s·(g − ḡ − x̂·r), with r the mean of g·x̂: as it stands, folded, or as the chain rule finds it step by step."""
    x, e, s, n = batch.x, batch.e, batch.s, batch.n
    g, weight = a["cotangent"], _along(a, "weight")
    hat, size, mean_off = batch.d * s, np.abs(g) + e_g, _mean(e_g, x)
    mean, r = _mean(g, x), _mean(g * hat, x)
    inner = g - mean - hat * r

    def of_r(off: _Off, reach: Array) -> Array:
        # s·Σ g·(x − μ̂), or s·(Σ g·x − μ̂·Σ g): what μ̂ is off comes in with Σ g, what s is off as a factor of the whole,
        # and what g and x are off in each term
        carried = _mean(e_g * np.abs(hat), x)
        sums = off.q * _mean(size * reach, x) + off.mu * (np.abs(mean) + mean_off) + _mean(size * e, x)
        return (s + off.s) * sums + carried + (np.abs(r) + carried) * off.s / s

    @functools.cache
    def both(accuracy: Accuracy) -> tuple[Array, Array]:
        form = accuracy.of(batch.dtype)
        u, off = form.rounding, batch.off(form)
        s_most = s + off.s
        reach = np.abs(x) + e + np.abs(batch.mu) + off.mu  # x, μ̂ and their difference are no larger
        of_weight = of_r(off, reach)
        # the chain rule goes through Σ (x − μ̂) too, which is 0 but for what μ̂ is off and for its own rounding
        r_off = of_weight + 2 * u * (np.abs(r) + of_weight)
        hat_off = s_most * (e + 2 * off.mu + 4 * u * reach) + np.abs(hat) * off.s / s + off.q * _mean(np.abs(hat), x)
        hat_most, r_most = np.abs(hat) + hat_off, np.abs(r) + r_off
        inner_off = e_g + mean_off + off.q * _mean(size, x) + np.abs(r) * hat_off + r_off * hat_most
        inner_off += 8 * u * (size + np.abs(mean) + mean_off + hat_most * r_most)  # each of the three on its own way
        of_x = np.abs(weight) * (off.s * np.abs(inner) + s_most * inner_off)
        return np.asarray(of_x, np.float64), np.asarray(n * of_weight.ravel(), np.float64)

    of_x, of_weight = weight * s * inner, n * r.ravel()
    return Expected(of_x, lambda accuracy: both(accuracy)[0]), Expected(of_weight, lambda accuracy: both(accuracy)[1])


# -- second derivatives, by x along t ----------------------------------------------------------------------------------


def expected_second(case: Case) -> dict[str, Expected]:
    """Return the second derivatives of y by x, for the tangent t and, where there is one, the cotangent g in the case.

    With a cotangent, by it, x and weight the gradients of Σ t·x̄; without, "y": the second derivative of y along t.
    Both are the symmetric form in t and g that the page gives, for y with t in the place of g.
    """
    a, settings, dtype = _wide(case)
    t, g = a.pop("tangent"), a.get("cotangent")
    operands = (t if g is None else g, *(a[n] for n in ("x", "running_mean", "running_var", "weight", "bias")))
    _, dx, _, _, dweight, _ = batch_norm_vjp_vjp(t, *operands, **settings)
    weight = np.abs(_along(a, "weight"))
    if settings["training"]:
        of_x, of_weight = _second_in_training(
            _Batch(a["x"], np.zeros(()), settings["eps"], dtype, (t, operands[0])), t, operands[0], weight
        )
    else:
        of_x, of_weight = _second_in_evaluation(a, t, operands[0], settings["eps"], dtype)
    if g is None:
        return {"y": Expected(dx, of_x)}
    found = {"cotangent": expected_gradients(case.but(cotangent=case["tangent"]))["x"], "x": Expected(dx, of_x)}
    return found if dweight is None else {**found, "weight": Expected(dweight, of_weight)}


Bounds = tuple[Callable[[Accuracy], Array], Callable[[Accuracy], Array]]  # of x and of weight


def _second_in_evaluation(a: Any, t: Array, g: Array, eps: float, dtype: Any) -> Bounds:
    def of_weight(accuracy: Accuracy) -> Array:
        form, s = accuracy.of(dtype), 1 / np.sqrt(_along(a, "running_var") + eps)
        part = _summing(t.size // t.shape[1], form) + 8 * form.rounding
        return np.asarray((part * np.abs(t * g) * s).sum(_axes(t)), np.float64)

    return lambda _: np.zeros(t.shape), of_weight


def _second_in_training(batch: _Batch, t: Array, g: Array, weight: Array) -> Bounds:
    """Terms that add up to the derivatives in any arrangement, their absolute values, and what each may be off.

    A term is a product of s, up to five times, and of means over n values, d, t and g, each centred or not: ten sums
    and forty roundings are more than any has. Whatever is centred is at most as large as its parts.
    """
    x, s = batch.x, batch.s

    def part(accuracy: Accuracy) -> Array:
        form = accuracy.of(batch.dtype)
        off = batch.off(form)
        return (1 + off.s / s) ** 5 * (1 + 10 * off.q + 40 * form.rounding) - 1

    @functools.cache
    def sizes() -> tuple[Array, ...]:
        size_x, size_t, size_g = (np.abs(values) + _mean(np.abs(values), x) for values in (x, t, g))
        along_t, along_g = (s * _mean(size_x * size, x) for size in (size_t, size_g))
        return s * size_x, size_t, size_g, along_t, along_g

    def of_x(accuracy: Accuracy) -> Array:
        normal, size_t, size_g, along_t, along_g = sizes()
        terms = along_t * size_g + along_g * size_t + normal * (3 * along_t * along_g + _mean(size_t * size_g, x))
        return np.asarray(part(accuracy) * weight * s**2 * terms, np.float64)

    def of_weight(accuracy: Accuracy) -> Array:
        normal, size_t, size_g, _, along_g = sizes()
        return np.asarray((part(accuracy) * s * size_t * (size_g + normal * along_g)).sum(_axes(x)), np.float64)

    return of_x, of_weight

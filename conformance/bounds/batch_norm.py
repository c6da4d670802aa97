"""The verdict rule of batch norm: what a call must result in, and how far from it a correct one may round.

Per channel, over its n values: μ the mean, d = x − μ, v the mean of d², s = 1 / √(v + eps). What the subject has in
place of x may itself be off, where blocks come before it: by e at most, element by element.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnspec.conformance.bounds.rule import ARITHMETIC, Arithmetic, Expected, multilinear, where_finite
from nnspec.conformance.case import Array, Case
from nnspec.reference.batch_norm import batch_norm_vjp_vjp

DEFAULTS = {"training": False, "momentum": 0.1, "eps": 1e-5}
PARAMETERS = ("weight", "bias")
ROOM = 8  # roundings, a few for each value and each level of a tree of partial sums, beside the n of the sum itself


def expected(case: Case, off: Array | float = 0.0, *, biased: bool = False) -> tuple[Expected, Expected, Expected]:
    """Return y, the running mean and the running variance after the call, whose x may be off by `off`.

    `biased`: the variance that goes into the running variance has divisor n.
    """
    form = ARITHMETIC[case["running_mean"].dtype.name]
    wide = case.map(lambda a: np.asarray(a, form.wide)).arrays
    settings = {**DEFAULTS, **case.arguments}
    with np.errstate(all="ignore"):  # NaN and its channel
        if not settings["training"]:
            return _evaluation(wide, np.asarray(off), settings["eps"], form)
        if not wide["x"].size:
            return tuple(Expected.exactly(wide[n]) for n in ("x", "running_mean", "running_var"))  # type: ignore
        return _training(wide, np.asarray(off), settings["momentum"], settings["eps"], biased, form)


def readings(case: Case) -> Iterator[tuple[Expected, Expected, Expected]]:
    """Yield what is expected under each convention: momentum weighs the new batch or the old value, and both divisors.

    The page's own come first. Checks that are about something else accept each.
    """
    momentum = case.arguments.get("momentum", DEFAULTS["momentum"])
    for weight in dict.fromkeys((momentum, 1 - momentum)):
        for biased in (False, True):
            yield expected(case.but(momentum=weight), biased=biased)


def _evaluation(a: dict[str, Array], e: Array, eps: float, form: Arithmetic) -> tuple[Expected, Expected, Expected]:
    """As (x − r)·s·w + b or folded into a scale and a shift: 3u for s, 4u for what follows, u for their products."""
    u = form.rounding
    x, mean, weight, bias = a["x"], *(_along(a, n) for n in ("running_mean", "weight", "bias"))
    scale = weight / np.sqrt(_along(a, "running_var") + eps)
    bound = np.abs(scale) * (e + 8 * u * (np.abs(x) + e + np.abs(mean))) + 2 * u * np.abs(bias)
    y = (x - mean) * scale + bias
    y = Expected(y, where_finite(np.asarray(bound, np.float64), y))
    return y, Expected.exactly(a["running_mean"]), Expected.exactly(a["running_var"])


@dataclass(frozen=True)
class _Batch:
    """The statistics of a batch, laid along its channels, and how far from them a correct call may be."""

    n: int
    q: float  # a sum of n terms in any order is off by q times the sum of their absolute values
    mu: Array
    d: Array
    v: Array
    s: Array
    mu_off: Array
    v_off: Array
    s_off: Array

    @classmethod
    def of(cls, x: Array, e: Array, eps: float, form: Arithmetic) -> _Batch:
        """Of an x that may be off by e."""
        n = x.size // x.shape[1]
        u, q = form.rounding, _summing(n, form)
        mu = _mean(x, x)
        d = x - mu
        v = _mean(d**2, x)
        s = 1 / np.sqrt(v + eps)

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
        s_high, s_low = 1 / np.sqrt(np.maximum(v - v_off, 0) + eps), 1 / np.sqrt(v + v_off + eps)
        return cls(n, q, mu, d, v, s, mu_off, v_off, np.maximum(s_high - s, s - s_low) + 6 * u * s_high)


def _training(
    a: dict[str, Array], e: Array, momentum: float, eps: float, biased: bool, form: Arithmetic
) -> tuple[Expected, Expected, Expected]:
    x, weight, bias, u = a["x"], _along(a, "weight"), _along(a, "bias"), form.rounding
    of = _Batch.of(x, e, eps, form)
    # d is off as x and μ are; the folded form x·scale + (bias − mean·scale) rounds numbers as large as x and μ
    d_off = e + of.mu_off + 4 * u * (np.abs(x) + e + np.abs(of.mu))
    bound = np.abs(weight) * (of.s_off * np.abs(of.d) + (of.s + of.s_off) * d_off) + 2 * u * np.abs(bias)

    y = Expected(of.d * of.s * weight + bias, np.asarray(bound, np.float64))
    mu, mu_off, v, v_off = (values.ravel() for values in (of.mu, of.mu_off, of.v, of.v_off))
    bessel = 1.0 if biased else of.n / (of.n - 1)
    running_mean = _moved(a["running_mean"], mu, mu_off, momentum, u)
    running_var = _moved(a["running_var"], bessel * v, bessel * v_off, momentum, u)
    return y, running_mean, running_var


def _moved(running: Array, batch: Array, batch_off: Array, momentum: float, u: float) -> Expected:
    """(1 − m)·r + m·b or r + m·(b − r): up to 6 roundings of numbers as large as r and m·b, none where m is 0."""
    bound = momentum * batch_off + 6 * u * (np.abs(running) + momentum * np.abs(batch))
    value = (1 - momentum) * running + momentum * batch
    return Expected(value, np.asarray(bound if momentum else 0 * bound, np.float64))


def _summing(n: int, form: Arithmetic) -> float:
    """A sum of n terms, in any order, is off by this times the sum of their absolute values; and stored."""
    return float((n + ROOM + 4 * np.log2(n)) * (form.u + form.u_wide) + form.extra)


def _along(a: dict[str, Array], name: str) -> Array:
    """A vector of one value per channel laid along axis 1 of x; an absent one as what it stands for."""
    vector = a[name] if a.get(name) is not None else np.full(a["x"].shape[1], float(name == "weight"))
    return vector.reshape(-1, *(1 for _ in a["x"].shape[2:]))


def _axes(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _mean(values: Array, x: Array) -> Array:
    """Of the values of each channel of x, laid along axis 1."""
    return np.broadcast_to(values, x.shape).mean(_axes(x), keepdims=True)


# -- gradients ---------------------------------------------------------------------------------------------------------


def expected_gradients(case: Case, off: Array | float = 0.0, cotangent_off: Array | float = 0.0) -> dict[str, Expected]:
    """Operand -> the gradient by it, of x and of those of weight and bias that are there, for the cotangent of y.

    Where blocks come before and after it, x may be off by `off`, and the cotangent by `cotangent_off`.
    """
    a, settings, form = _wide(case)
    if not a["x"].size:
        found = {name: Expected.exactly(np.zeros(a[name].shape)) for name in PARAMETERS if a[name] is not None}
        return {"x": Expected.exactly(a["x"]), **found}
    e, e_g = (np.broadcast_to(np.asarray(each), a["x"].shape) for each in (off, cotangent_off))
    of_mode = _gradients_in_training if settings["training"] else _gradients_in_evaluation
    x, weight = of_mode(a, e, e_g, settings["eps"], form)
    if e_g.any():
        bias = _carried_sum(a["cotangent"], e_g, form.u + form.u_wide)
    else:
        bias = multilinear(lambda g: g.sum(_axes(g)), case["cotangent"].astype(form.name))
    return {"x": x, **{n: b for n, b in zip(PARAMETERS, (weight, bias), strict=True) if a[n] is not None}}


def _wide(case: Case) -> tuple[dict[str, Any], dict[str, Any], Arithmetic]:
    """The operands in the reference's dtype, all settings, and the arithmetic of the narrowest operand."""
    narrowest = min((array.dtype for array in case.arrays.values() if array is not None), key=lambda d: d.itemsize)
    form = ARITHMETIC[narrowest.name]
    return case.map(lambda array: np.asarray(array, form.wide)).arrays, {**DEFAULTS, **case.arguments}, form


def _carried_sum(g: Array, e_g: Array, u: float) -> Expected:
    terms = g.size // g.shape[1]
    return _within(g.sum(_axes(g)), e_g.sum(_axes(g)) + terms * u * (1 + u) * (np.abs(g) + e_g).sum(_axes(g)))


def _gradients_in_evaluation(
    a: dict[str, Array], e: Array, e_g: Array, eps: float, form: Arithmetic
) -> tuple[Expected, ...]:
    """As the result: up to 6u for s, whose product with weight and cotangent are 2u; Σ g·x̂, be x̂ folded or not."""
    x, g, weight, mean = a["x"], a["cotangent"], *(_along(a, n) for n in ("weight", "running_mean"))
    s, n = 1 / np.sqrt(_along(a, "running_var") + eps), x.size // x.shape[1]
    u, q, size = form.rounding, _summing(n, form), np.abs(g) + e_g
    dx, dx_off = weight * s * g, np.abs(weight * s) * (e_g + 8 * u * size)
    dweight, most = (g * (x - mean) * s).sum(_axes(x)), (size * (np.abs(x) + e + np.abs(mean)) * s).sum(_axes(x))
    carried = ((e_g * np.abs(x - mean) + size * e) * s).sum(_axes(x))
    return _within(dx, dx_off), _within(dweight, carried + (q + 6 * u) * most)


def _gradients_in_training(
    a: dict[str, Array], e: Array, e_g: Array, eps: float, form: Arithmetic
) -> tuple[Expected, ...]:
    """w·s·(g − ḡ − x̂·r), with r the mean of g·x̂: as it stands, folded, or as the chain rule finds it step by step."""
    x, g, weight, u = a["x"], a["cotangent"], _along(a, "weight"), form.rounding
    of = _Batch.of(x, e, eps, form)
    n, q, s, s_most = of.n, of.q, of.s, of.s + of.s_off
    hat, size, mean_off = of.d * s, np.abs(g) + e_g, _mean(e_g, x)
    reach = np.abs(x) + e + np.abs(of.mu) + of.mu_off  # x and μ̂ are at most as large together, and so their difference

    # s·Σ g·(x − μ̂), or s·(Σ g·x − μ̂·Σ g): what μ̂ is off comes in with Σ g, what s is off as a factor of the whole,
    # and what g and x are off in each term
    mean, r, carried = _mean(g, x), _mean(g * hat, x), _mean(e_g * np.abs(hat), x)
    r_off = s_most * (q * _mean(size * reach, x) + of.mu_off * (np.abs(mean) + mean_off) + _mean(size * e, x))
    r_off = r_off + carried + (np.abs(r) + carried) * of.s_off / s
    weight_expected = _within(n * r.ravel(), n * r_off.ravel())

    # the chain rule goes through Σ (x − μ̂) too, which is 0 but for what μ̂ is off and for its own rounding
    r_off = r_off + 2 * u * (np.abs(r) + r_off)
    hat_off = s_most * (e + 2 * of.mu_off + 4 * u * reach) + np.abs(hat) * of.s_off / s + q * _mean(np.abs(hat), x)
    hat_most, r_most = np.abs(hat) + hat_off, np.abs(r) + r_off
    inner = g - mean - hat * r
    inner_off = e_g + mean_off + q * _mean(size, x) + np.abs(r) * hat_off + r_off * hat_most
    inner_off += 8 * u * (size + np.abs(mean) + mean_off + hat_most * r_most)  # each of the three on its own way
    dx_off = np.abs(weight) * (of.s_off * np.abs(inner) + s_most * inner_off)
    return _within(weight * s * inner, dx_off), weight_expected


# -- second derivatives, by x along t ----------------------------------------------------------------------------------


def expected_second(case: Case) -> dict[str, Expected]:
    """The second derivatives of y by x, for the tangent t and, where there is one, the cotangent g in the case.

    With a cotangent, by it, x and weight the gradients of Σ t·x̄; without, "y": the second derivative of y along t.
    Both are the symmetric form in t and g that the page gives, for y with t in the place of g.
    """
    a, settings, form = _wide(case)
    t, g = a.pop("tangent"), a.get("cotangent")
    operands = (t if g is None else g, *(a[n] for n in ("x", "running_mean", "running_var", "weight", "bias")))
    _, dx, _, _, dweight, _ = batch_norm_vjp_vjp(t, *operands, **settings)
    x_off, weight_off = _second_off(a["x"], t, operands[0], a, settings, form)
    if g is None:
        return {"y": _within(dx, x_off)}
    found = {"cotangent": expected_gradients(case.but(cotangent=case["tangent"]))["x"], "x": _within(dx, x_off)}
    return found if dweight is None else {**found, "weight": _within(dweight, weight_off)}


def _second_off(x: Array, t: Array, g: Array, a: Any, settings: Any, form: Arithmetic) -> tuple[Array, Array]:
    """Terms that add up to the derivatives in any arrangement, their absolute values, and what each may be off.

    A term is a product of s, up to five times, and of means over n values, d, t and g, each centred or not: ten sums
    and forty roundings are more than any has. Whatever is centred is at most as large as its parts.
    """
    n = x.size // x.shape[1]
    u, q, weight = form.rounding, _summing(n, form), np.abs(_along(a, "weight"))
    if not settings["training"]:
        s = 1 / np.sqrt(_along(a, "running_var") + settings["eps"])
        return np.zeros(x.shape), ((q + 8 * u) * np.abs(t * g) * s).sum(_axes(x))
    of = _Batch.of(x, np.zeros(()), settings["eps"], form)
    size_x, size_t, size_g = (np.abs(values) + _mean(np.abs(values), x) for values in (x, t, g))
    along_t, along_g = (of.s * _mean(size_x * size, x) for size in (size_t, size_g))
    normal = of.s * size_x
    terms = along_t * size_g + along_g * size_t + normal * (3 * along_t * along_g + _mean(size_t * size_g, x))
    part = (1 + of.s_off / of.s) ** 5 * (1 + 10 * q + 40 * u) - 1
    return part * weight * of.s**2 * terms, (part * of.s * size_t * (size_g + normal * along_g)).sum(_axes(x))


def _within(value: Array, bound: Array) -> Expected:
    return Expected(value, np.asarray(bound, np.float64))

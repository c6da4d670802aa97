"""The verdict rule of batch norm: what a call must result in, and how far from it a correct one may round.

Per channel, over its n values: μ the mean, d = x − μ, v the mean of d², s = 1 / √(v + eps). What the subject has in
place of x may itself be off, where blocks come before it: by e at most, element by element.
"""

from __future__ import annotations

import numpy as np
from nnspec.conformance.cases import Array, Case
from nnspec.conformance.rule import FORMATS, Expected

DEFAULTS = {"training": False, "momentum": 0.1, "eps": 1e-5}
ROOM = 8  # roundings, a few for each value and each level of a tree of partial sums, beside the n of the sum itself


def expected(case: Case, off: Array | float = 0.0) -> tuple[Expected, Expected, Expected]:
    """y, the running mean and the running variance after the call, whose x may be off by `off`."""
    form = FORMATS[case["running_mean"].dtype.name]
    u = form.u + form.u_wide  # what is expected is rounded too
    wide = case.map(lambda a: np.asarray(a, form.wide)).arrays
    settings = {**DEFAULTS, **case.arguments}
    with np.errstate(all="ignore"):  # NaN and its channel
        if not settings["training"]:
            return _evaluation(wide, np.asarray(off), settings["eps"], u)
        if not wide["x"].size:
            return tuple(Expected.exactly(wide[n]) for n in ("x", "running_mean", "running_var"))  # type: ignore
        return _training(wide, np.asarray(off), settings["momentum"], settings["eps"], u)


def _evaluation(a: dict[str, Array], e: Array, eps: float, u: float) -> tuple[Expected, Expected, Expected]:
    """As (x − r)·s·w + b or folded into a scale and a shift: 3u for s, 4u for what follows, u for their products."""
    x, mean, weight, bias = a["x"], *(_along(a, n) for n in ("running_mean", "weight", "bias"))
    scale = weight / np.sqrt(_along(a, "running_var") + eps)
    bound = np.abs(scale) * (e + 8 * u * (np.abs(x) + e + np.abs(mean))) + 2 * u * np.abs(bias)
    y = Expected((x - mean) * scale + bias, np.asarray(bound, np.float64))
    return y, Expected.exactly(a["running_mean"]), Expected.exactly(a["running_var"])


def _training(
    a: dict[str, Array], e: Array, momentum: float, eps: float, u: float
) -> tuple[Expected, Expected, Expected]:
    x, weight, bias = a["x"], _along(a, "weight"), _along(a, "bias")
    axes = (0, *range(2, x.ndim))
    n = x.size // x.shape[1]
    q = (n + ROOM + 4 * np.log2(n)) * u

    def mean(values: Array) -> Array:
        return np.broadcast_to(values, x.shape).mean(axes, keepdims=True)

    mu = mean(x)
    d = x - mu
    v = mean(d**2)
    s = 1 / np.sqrt(v + eps)

    # an x that is off moves μ by mean(e), and v by 2·mean(|d|·e) + mean(e²) at most, for Σ d is 0
    largest, mu_carried, v_carried = np.abs(x) + e, mean(e), mean(2 * np.abs(d) * e + e**2)
    # a sum of n terms in any order is off by n·u of the sum of their absolute values
    mu_rounded = q * mean(largest)
    # two passes: q·v, and (μ̂ − μ)² for the mean that was taken off. One pass with updates (Welford), or parts put
    # together (Chan): up to q·κ·v with κ²·v = v + μ². One pass about some value of the channel: sums of squares up to
    # v + max d². Not covered, on purpose: mean(x²) − mean(x)², whose errors are of the size u·μ², whatever v is.
    v_most, d_most = v + v_carried, (np.abs(d) + e + mu_carried).max(axes, keepdims=True)
    updated = q * (v_most + 2 * np.sqrt(v_most * mean(largest**2)))
    shifted = 3 * q * (v_most + d_most**2)
    mu_off, v_off = mu_carried + mu_rounded, v_carried + np.maximum(updated, shifted) + mu_rounded**2 * (1 + q)
    # s falls with v; eps rounded, the sum, the root and the quotient, or a reciprocal root good to 2 units, are 6u
    s_high, s_low = 1 / np.sqrt(np.maximum(v - v_off, 0) + eps), 1 / np.sqrt(v + v_off + eps)
    s_off = np.maximum(s_high - s, s - s_low) + 6 * u * s_high
    # d is off as x and μ are; the folded form x·scale + (bias − mean·scale) rounds numbers as large as x and μ
    d_off = e + mu_off + 4 * u * (largest + np.abs(mu))
    bound = np.abs(weight) * (s_off * np.abs(d) + (s + s_off) * d_off) + 2 * u * np.abs(bias)

    y = Expected(d * s * weight + bias, np.asarray(bound, np.float64))
    bessel = n / (n - 1)
    running_mean = _moved(a["running_mean"], mu.ravel(), mu_off.ravel(), momentum, u)
    running_var = _moved(a["running_var"], bessel * v.ravel(), bessel * v_off.ravel(), momentum, u)
    return y, running_mean, running_var


def _moved(running: Array, batch: Array, batch_off: Array, momentum: float, u: float) -> Expected:
    """(1 − m)·r + m·b or r + m·(b − r): up to 6 roundings of numbers as large as r and m·b, none where m is 0."""
    bound = momentum * batch_off + 6 * u * (np.abs(running) + momentum * np.abs(batch))
    value = (1 - momentum) * running + momentum * batch
    return Expected(value, np.asarray(bound if momentum else 0 * bound, np.float64))


def _along(a: dict[str, Array], name: str) -> Array:
    """A vector of one value per channel laid along axis 1 of x; an absent one as what it stands for."""
    vector = a[name] if a.get(name) is not None else np.full(a["x"].shape[1], float(name == "weight"))
    return vector.reshape(-1, *(1 for _ in a["x"].shape[2:]))


# -- gradients ---------------------------------------------------------------------------------------------------------


def expected_gradients(case: Case, off: Array | float = 0.0, cotangent_off: Array | float = 0.0) -> dict[str, Expected]:
    """The gradients of x, weight and bias, where x may be off by `off`, and the cotangent of y by `cotangent_off`.

    With g for the cotangent, z = d·s, r = mean(g·z):  w·s·(g − mean(g) − z·r), Σ g·z and Σ g; in evaluation, where the
    statistics are constants, the first is w·s·g.
    """
    form = FORMATS[case["running_mean"].dtype.name]
    wide = case.map(lambda a: np.asarray(a, form.wide)).arrays
    settings = {**DEFAULTS, **case.arguments}
    off, cotangent_off = (np.broadcast_to(np.asarray(a, np.float64), wide["x"].shape) for a in (off, cotangent_off))
    with np.errstate(all="ignore"):
        backward = _Backward(wide, off, cotangent_off, settings["eps"], form.u + form.u_wide)
        found = backward.training() if settings["training"] and wide["x"].size else backward.evaluation()
    return {n: e for n, e in found.items() if case.arrays.get(n) is not None}


class _Backward:
    """What both modes need: g may be as large as g_most; a sum of n terms in any order is off by q of their sizes."""

    def __init__(self, arrays: dict[str, Array], e: Array, e_g: Array, eps: float, u: float) -> None:
        self.arrays, self.x, self.g, self.e, self.e_g, self.eps, self.u = (
            arrays, arrays["x"], arrays["cotangent"], e, e_g, eps, u
        )  # fmt: skip
        self.weight = _along(arrays, "weight")
        self.axes = (0, *range(2, self.x.ndim))
        self.n = self.x.size // self.x.shape[1]
        self.q = (self.n + ROOM + 4 * np.log2(max(self.n, 1))) * u
        self.g_most, self.x_most = np.abs(self.g) + e_g, np.abs(self.x) + e

    def total(self, values: Array) -> Array:
        total: Array = np.broadcast_to(values, self.x.shape).sum(self.axes, keepdims=True)
        return total

    def result(self, dx: Array, dx_off: Array, dweight: Array, dweight_off: Array) -> dict[str, Expected]:
        dbias_off = self.total(self.e_g) + self.q * self.total(self.g_most)
        return {
            "x": Expected(dx, np.asarray(dx_off, np.float64)),
            "weight": Expected(dweight.ravel(), np.asarray(dweight_off.ravel(), np.float64)),
            "bias": Expected(self.total(self.g).ravel(), np.asarray(dbias_off.ravel(), np.float64)),
        }

    def evaluation(self) -> dict[str, Expected]:
        """Σ g·(x − r)·s or, folded, (Σ g·x − r·Σ g)·s."""
        mean, s = _along(self.arrays, "running_mean"), 1 / np.sqrt(_along(self.arrays, "running_var") + self.eps)
        d = self.x - mean
        dx_off = np.abs(self.weight * s) * (self.e_g + 8 * self.u * self.g_most)
        carried = self.total(self.e_g * np.abs(d) + self.g_most * self.e)
        rounded = (self.q + 8 * self.u) * self.total(self.g_most * (self.x_most + np.abs(mean)))
        return self.result(self.g * self.weight * s, dx_off, self.total(self.g * d) * s, (carried + rounded) * s)

    def training(self) -> dict[str, Expected]:
        g, u, q, n, g_most = self.g, self.u, self.q, self.n, self.g_most
        mu, mu_off, s, s_off = self.statistics()
        d, s_most = self.x - mu, s + s_off
        z = d * s
        # a rounded x − μ; and 2·δμ, for what is left of Σ d where the mean is off is taken for 0 or not
        d_rounded = 4 * u * (self.x_most + np.abs(mu))
        z_off = s_most * (self.e + 2 * mu_off + d_rounded) + np.abs(d) * s_off + q * self.total(np.abs(z)) / n
        z_most = np.abs(z) + z_off
        # Σ ĝ·ẑ: what is off in all of a channel alike, μ̂ and ŝ, is off by that much of Σ g and of Σ g·z
        dweight, g_sum = self.total(g * z), self.total(g)
        shifted = mu_off * (np.abs(g_sum) + self.total(self.e_g) + q * self.total(g_most))
        dweight_off = (
            q * self.total(g_most * z_most)
            + s_most * (shifted + self.total(g_most * (self.e + d_rounded)))
            + (self.total(self.e_g * np.abs(z)) + np.abs(dweight)) * s_off / s
            + self.total(self.e_g * np.abs(z))
        )
        r, r_off = dweight / n, dweight_off / n
        r_off = r_off + 2 * u * (np.abs(r) + r_off)
        r_most, mean_most = np.abs(r) + r_off, self.total(g_most) / n
        inner = g - g_sum / n - z * r
        inner_off = (
            self.e_g + self.total(self.e_g) / n + q * mean_most
            + np.abs(r) * z_off + r_off * z_most
            + 6 * u * (g_most + mean_most + z_most * r_most)
        )  # fmt: skip
        dx_off = np.abs(self.weight) * (s_off * np.abs(inner) + s_most * inner_off)
        return self.result(self.weight * s * inner, dx_off, dweight, dweight_off)

    def statistics(self) -> tuple[Array, Array, Array, Array]:
        """μ and s, each with what it may be off by; as in the forward pass."""
        u, q, n, e = self.u, self.q, self.n, self.e
        mu = self.total(self.x) / n
        d = self.x - mu
        v = self.total(d**2) / n
        mu_carried, mu_rounded = self.total(e) / n, q * self.total(self.x_most) / n
        v_carried = self.total(2 * np.abs(d) * e + e**2) / n
        v_most, d_most = v + v_carried, (np.abs(d) + e + mu_carried).max(self.axes, keepdims=True)
        updated = q * (v_most + 2 * np.sqrt(v_most * self.total(self.x_most**2) / n))
        v_off = v_carried + np.maximum(updated, 3 * q * (v_most + d_most**2)) + mu_rounded**2 * (1 + q)
        s = 1 / np.sqrt(v + self.eps)
        s_high, s_low = 1 / np.sqrt(np.maximum(v - v_off, 0) + self.eps), 1 / np.sqrt(v + v_off + self.eps)
        return mu, mu_carried + mu_rounded, s, np.maximum(s_high - s, s - s_low) + 6 * u * s_high

"""The bound of a parameter after steps of sgd, against exact steps.

One step is d = g + λ·p, v' = μ·v + d, p' = p − η·v'. Whatever the order (products may be taken apart and put together
otherwise, as where η is kept in the velocity), no term passes more than seven roundings: two of the numbers η, μ, λ may
be rounded to the parameter's dtype, then two products and three sums. As 7u/(1 − 7u) < 8u, the step is off by at most
8u·magnitude, where the magnitude is the same step with every sign positive; and each of four products may lose η_min/2
where it is subnormal, which factors up to 2 at most double. An error that a parameter or a velocity had before the step
passes through it as a value does: by the same step with every sign positive, and no gradient.

No sum or product is rounded where all of them are whole multiples of one power of two, and less than 2ᵗ of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nnspec.conformance.bounds.arithmetic import Accuracy, Arithmetic, wide
from nnspec.conformance.bounds.rule import Array, Expected
from nnspec.reference.sgd import sgd_step


def moved(start: Array, gradients: Sequence[Array | None], *, lr: float, **others: float) -> Expected:
    """Return where a parameter must be after steps with these gradients; None is a step without one."""
    present = [gradient for gradient in gradients if gradient is not None]
    path = [_wide(start)]  # the parameter before and after each step
    velocities: list[Array | None] = [None]
    for gradient in present:
        value, velocity = sgd_step(path[-1], _wide(gradient), velocities[-1], lr=lr, **others)
        path.append(np.asarray(value))
        velocities.append(velocity)

    def bound(accuracy: Accuracy) -> Array | float:
        form = accuracy.of(start.dtype)
        if _exact(start, present, form, lr=lr, **others):
            return 0.0
        error, velocity_error = np.zeros(start.shape), np.zeros(start.shape)
        for value, velocity, gradient in zip(path, velocities, present, strict=False):
            largest = _size(value) + error
            largest_velocity = None if velocity is None else _size(velocity) + velocity_error
            magnitudes = sgd_step(largest, _size(gradient), largest_velocity, lr=-lr, **others)
            carried = sgd_step(error, np.zeros(start.shape), velocity_error, lr=-lr, **others)
            error, velocity_error = (
                (c + 8 * (form.u + form.u_wide) * m) * (1 + 2.0**-48) + 4 * form.eta
                for c, m in zip(carried, magnitudes, strict=True)
            )
        return error

    return Expected(path[-1], bound)


def _wide(a: Array) -> Array:
    return a.astype(wide(a.dtype))


def _size(a: Array) -> Array:
    return np.abs(a).astype(np.float64)


def _exact(start: Array, gradients: Sequence[Array], form: Arithmetic, *, lr: float, **others: float) -> bool:
    """Whether everything lies on one grid that has room for it. The grid becomes finer by each factor in each step."""
    factors = [lr, *others.values()]
    whole = all(np.array_equal(a, np.rint(a)) for a in (start, *gradients))
    if not whole or any(np.frexp(f)[0] not in (0.0, 0.5) for f in factors):
        return False
    finer = np.prod([min(f, 1.0) for f in factors if f])  # by which one step refines the grid, at most
    grid = finer ** len(gradients)
    size, velocity = _size(start), None
    for gradient in gradients:
        size, velocity = sgd_step(size, _size(gradient), velocity, lr=-lr, **others)
    return bool(
        max(size.max(initial=0), 0 if velocity is None else velocity.max(initial=0)) <= grid * 2.0**form.precision
    )

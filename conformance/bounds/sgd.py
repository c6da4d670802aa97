"""How far a parameter may be from where exact steps would have moved it.

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
from nnspec.conformance.bounds.rule import ARITHMETIC, Array, Expected
from nnspec.reference.sgd import sgd_step


def moved(start: Array, gradients: Sequence[Array | None], *, lr: float, **others: float) -> Expected:
    """Where a parameter must be after steps with these gradients; None is a step without one."""
    form = ARITHMETIC[start.dtype.name]
    value, velocity = start.astype(form.wide), None
    error, velocity_error = np.zeros(start.shape), np.zeros(start.shape)
    for gradient in gradients:
        if gradient is None:
            continue
        largest = np.abs(value).astype(np.float64) + error
        largest_velocity = None if velocity is None else np.abs(velocity).astype(np.float64) + velocity_error
        magnitudes = sgd_step(largest, np.abs(gradient).astype(np.float64), largest_velocity, lr=-lr, **others)
        value, velocity = sgd_step(value, gradient.astype(form.wide), velocity, lr=lr, **others)
        carried = sgd_step(error, np.zeros(start.shape), velocity_error, lr=-lr, **others)
        error, velocity_error = (
            (c + 8 * (form.u + form.u_wide) * m) * (1 + 2.0**-48) + 4 * form.eta
            for c, m in zip(carried, magnitudes, strict=True)
        )
    return Expected(np.asarray(value), 0.0 if _exact(start, gradients, lr=lr, **others) else error)


def _exact(start: Array, gradients: Sequence[Array | None], *, lr: float, **others: float) -> bool:
    """Whether everything lies on one grid that has room for it. The grid becomes finer by each factor in each step."""
    form, factors = ARITHMETIC[start.dtype.name], [lr, *others.values()]
    operands = [start, *(g for g in gradients if g is not None)]
    whole = all(np.array_equal(a, np.rint(a)) for a in operands)
    if not whole or any(np.frexp(f)[0] not in (0.0, 0.5) for f in factors):
        return False
    finer = np.prod([min(f, 1.0) for f in factors if f])  # what one step makes of the grid, at most
    grid = finer ** sum(g is not None for g in gradients)
    size, velocity = np.abs(start).astype(np.float64), None
    for gradient in gradients:
        if gradient is not None:
            size, velocity = sgd_step(size, np.abs(gradient).astype(np.float64), velocity, lr=-lr, **others)
    return bool(
        max(size.max(initial=0), 0 if velocity is None else velocity.max(initial=0)) <= grid * 2.0**form.precision
    )

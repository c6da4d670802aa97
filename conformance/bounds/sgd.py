"""The bound of a parameter after steps of sgd, against exact steps.

One step is d = g + λ·p, v' = μ·v + d, p' = p − η·v'. Whatever the order (products may be taken apart and put together
otherwise, as where η is kept in the velocity), no term passes more than seven roundings: two of the numbers η, μ, λ may
be rounded to the parameter's dtype, then two products and three sums. As 7u/(1 − 7u) < 8u, the step is off by at most
8u·magnitude, where the magnitude is the same step with every sign positive; and each of four products may lose η_min/2
where it is subnormal, which factors up to 2 at most double. An error that a parameter or a velocity had before the step
passes through it as a value does: by the same step with every sign positive, and no gradient.

A step that looks ahead (Nesterov) is p' = p − η·(d + μ·v'): one more number, product and sum, and 10u/(1 − 10u) < 12u.

No sum or product is rounded where all of them are whole multiples of one power of two, and less than 2ᵗ of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from nnspec.conformance.bounds.arithmetic import Accuracy, Arithmetic, wide
from nnspec.conformance.bounds.rule import Array, Expected
from nnspec.reference.sgd import sgd_step


@dataclass(frozen=True)
class Step:
    """A gradient, the numbers that the step goes by, and whether it looks ahead."""

    gradient: Array
    numbers: Mapping[str, float]
    ahead: bool = False

    def size(self) -> Step:
        """The same step with every sign positive."""
        return Step(_size(self.gradient), {**self.numbers, "lr": -self.numbers["lr"]}, self.ahead)

    def carries(self) -> Step:
        """The same step with every sign positive, and no gradient."""
        return Step(np.zeros(self.gradient.shape), {**self.numbers, "lr": -self.numbers["lr"]}, self.ahead)

    def __call__(self, parameter: Array, velocity: Array | None) -> tuple[Array, Array]:
        """Return the parameter and the velocity after the step."""
        moved, new = sgd_step(parameter, self.gradient, velocity, **self.numbers)
        return (sgd_step(parameter, self.gradient, new, **self.numbers)[0] if self.ahead else moved), new


def moved(start: Array, gradients: Sequence[Array | None], **numbers: float) -> Expected:
    """Return where a parameter must be after steps with these gradients; None is a step without one."""
    present = [_wide(gradient) for gradient in gradients if gradient is not None]
    return after(start, [Step(gradient, numbers) for gradient in present])


def scheduled(
    start: Array,
    gradients: Sequence[Array | None],
    rates: Sequence[float],
    others: Mapping[str, float],
    *,
    inside: bool = False,
    ahead: bool = False,
) -> Expected:
    """Return where a parameter must be after steps, each with a learning rate of its own and the same `others`.

    `inside`: the velocity carries the rate, v' = μ·v + η·d and p' = p − v'.
    """
    steps = []
    for gradient, rate in zip(gradients, rates, strict=True):
        if gradient is None:
            continue
        if inside:
            decay = rate * others.get("weight_decay", 0.0)
            steps.append(Step(_wide(gradient) * rate, {**others, "weight_decay": decay, "lr": 1.0}))
        else:
            steps.append(Step(_wide(gradient), {**others, "lr": rate}, ahead))
    return after(start, steps)


def after(start: Array, steps: Sequence[Step]) -> Expected:
    """Return where a parameter must be after these steps, whose gradients are in the wider format."""
    path = [_wide(start)]  # the parameter before and after each step
    velocities: list[Array | None] = [None]
    for step in steps:
        value, velocity = step(path[-1], velocities[-1])
        path.append(np.asarray(value))
        velocities.append(velocity)

    def bound(accuracy: Accuracy) -> Array | float:
        form = accuracy.of(start.dtype)
        if _exact(start, steps, form):
            return 0.0
        error, velocity_error = np.zeros(start.shape), np.zeros(start.shape)
        for value, velocity, step in zip(path, velocities, steps, strict=False):
            largest = _size(value) + error
            largest_velocity = None if velocity is None else _size(velocity) + velocity_error
            magnitudes, carried = step.size()(largest, largest_velocity), step.carries()(error, velocity_error)
            roundings = 12 if step.ahead else 8
            error, velocity_error = (
                (c + roundings * (form.u + form.u_wide) * m) * (1 + 2.0**-48) + 4 * form.eta
                for c, m in zip(carried, magnitudes, strict=True)
            )
        return error

    return Expected(path[-1], bound)


def _wide(a: Array) -> Array:
    return a.astype(wide(a.dtype))


def _size(a: Array) -> Array:
    return np.abs(a).astype(np.float64)


def _exact(start: Array, steps: Sequence[Step], form: Arithmetic) -> bool:
    """Whether everything lies on one grid that has room for it. The grid becomes finer by each factor in each step."""
    factors = [[f for f in step.numbers.values() if f] for step in steps]
    whole = all(np.array_equal(a, np.rint(a)) for a in (start, *(step.gradient for step in steps)))
    if not whole or any(np.frexp(f)[0] != 0.5 for each in factors for f in each):
        return False
    grid = np.prod([min(f, 1.0) for each in factors for f in each])  # by which the steps refine the grid, at most
    largest, size, velocity = 0.0, _size(start), None
    for step in steps:
        size, velocity = step.size()(size, velocity)
        largest = max(largest, size.max(initial=0), velocity.max(initial=0))
    return bool(max(largest, _size(start).max(initial=0)) <= grid * 2.0**form.precision)

"""Stochastic gradient descent with momentum and weight decay. Page: spec/sgd.md"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from nnspec.reference.arguments import Array
from nnspec.reference.module import Parameter


def sgd_step(
    parameter: Array,
    gradient: Array,
    velocity: Array | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Array, Array]:
    """Return the parameter after a step against its gradient, and the new velocity.

    All arrays have one shape and dtype; the results are new arrays. velocity=None is the state before the first step.
    Raises ValueError for a gradient of another shape. This is the formula.

    By construction: sgd.gradient.unchanged, sgd.arguments.together, sgd.step.elementwise, sgd.step.every-element,
    sgd.lr.zero, sgd.weight-decay.velocity, sgd.momentum.first-step, sgd.lr.velocity, sgd.domain.outside.
    """
    if gradient.shape != parameter.shape:  # [sgd.refuses.gradient-shape]
        raise ValueError(f"gradient of shape {gradient.shape}: expected the parameter's, {parameter.shape}")
    # A copy, because the caller may write to the gradient before the next step: [sgd.momentum.kept]
    moved_by = gradient.copy()
    # Weight decay and momentum of 0 are skipped and not multiplied by, because 0 · ∞ is NaN.
    if weight_decay:
        moved_by += weight_decay * parameter  # [sgd.weight-decay.gradient]
    if momentum and velocity is not None:
        moved_by += momentum * velocity  # [sgd.momentum.accumulates]
    return parameter - lr * moved_by, moved_by  # [sgd.step.value]


class SGD:
    """An optimiser that moves the parameters it is given, or groups of them, {"params": [...], "lr": ...}.

    Raises ValueError for an empty list of parameters, and for a negative lr, momentum or weight_decay.

    By construction: sgd.buffers.unmoved, sgd.buffers.statistics, sgd.parameters.others, sgd.momentum.per-optimiser,
    sgd.parameters.list-kept, sgd.refuses.lr, sgd.refuses.momentum, sgd.refuses.weight-decay,
    sgd.momentum.per-parameter.
    """

    def __init__(
        self,
        params: Iterable[Parameter | dict[str, Any]],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        # A list of its own, because a generator can be read only once, and the caller may change a list later:
        # [sgd.parameters.iterable]
        given = [{**p, "params": list(p["params"])} if isinstance(p, dict) else p for p in params]
        self.param_groups = [group for group in given if isinstance(group, dict)]
        self.params = [p for each in given for p in (each["params"] if isinstance(each, dict) else [each])]
        if not self.params:  # [sgd.refuses.no-parameters]
            raise ValueError("params is empty: expected at least one Parameter")
        for name, value in {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}.items():
            if value < 0:
                raise ValueError(f"{name}={value}: expected at least 0")
        # Attributes that each step reads, so that a schedule may set them: [sgd.lr.changed]
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.velocities: list[Array | None] = [None] * len(self.params)

    @property
    def hyper(self) -> Mapping[str, float]:
        """Return the numbers of a step, which are read-only. A schedule sets the attributes."""
        return MappingProxyType({"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay})

    def step(self) -> None:
        """Move every parameter that has a gradient.

        By construction: sgd.parameters.tied, sgd.parameters.unused, sgd.parameters.copied, sgd.parameters.loaded,
        sgd.training.equals-model, sgd.step.every-parameter, sgd.parameters.dtype.
        """
        for i, p in enumerate(self.params):
            if p.grad is not None:  # [sgd.parameters.without-gradient]
                moved, self.velocities[i] = sgd_step(p.data, p.grad, self.velocities[i], **self.numbers(p))
                # Write into the array that the module holds: [sgd.parameters.in-place]
                p.data[...] = moved

    def numbers(self, p: Parameter) -> dict[str, float]:
        """Return the numbers of a parameter's step: those of its group, and else the optimiser's."""
        group = next((group for group in self.param_groups if any(p is own for own in group["params"])), {})
        return {name: group.get(name, value) for name, value in self.hyper.items()}  # [sgd.lr.group]

    def zero_grad(self) -> None:
        """Set all gradients to None.

        By construction: sgd.zero-grad.keeps-velocity, sgd.zero-grad.afresh.
        """
        for p in self.params:
            p.grad = None  # [sgd.zero-grad.clears]

    def state_dict(self) -> dict[str, list[Array | None]]:
        """Return copies of the velocities, in the order of the parameters: the state that a checkpoint needs."""
        # [sgd.momentum.loaded-copies]
        return {"velocities": [None if v is None else v.copy() for v in self.velocities]}

    def load_state_dict(self, state: Mapping[str, Sequence[Array | None]]) -> None:
        """Continue with these velocities. Raises ValueError if there are not as many as parameters.

        By construction: sgd.training.resumes, sgd.momentum.loaded.
        """
        velocities = state["velocities"]
        if len(velocities) != len(self.params):
            raise ValueError(f"{len(velocities)} velocities: expected {len(self.params)}, one for each parameter")
        self.velocities = [None if v is None else v.copy() for v in velocities]

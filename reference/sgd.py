"""Stochastic gradient descent with momentum and weight decay. Page: spec/sgd.md"""

from collections.abc import Iterable, Mapping, Sequence

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
    """(parameter, gradient, velocity), all of one shape -> (new parameter, new velocity), in parameter's dtype.

    No operand is written to. [sgd.gradient.unchanged] Without an earlier velocity this is a first step.
    Raises ValueError for a gradient of another shape.
    """
    if gradient.shape != parameter.shape:  # [sgd.refuses.gradient-shape]
        raise ValueError(f"gradient of shape {gradient.shape}: expected the parameter's, {parameter.shape}")
    moved_by = gradient.copy()  # [sgd.momentum.kept] the caller may write to the gradient before the next step
    # What is switched off is left out, not multiplied by 0: 0·∞ is NaN.
    if weight_decay:
        moved_by += weight_decay * parameter  # [sgd.weight-decay.gradient] [sgd.weight-decay.velocity]
    if momentum and velocity is not None:  # [sgd.momentum.first-step]
        moved_by += momentum * velocity  # [sgd.momentum.accumulates] [sgd.arguments.together]
    return parameter - lr * moved_by, moved_by  # [sgd.step.value] [sgd.step.elementwise] [sgd.lr.zero]


class SGD:
    """Moves the parameters that it was given, and nothing else.

    [sgd.buffers.unmoved] [sgd.buffers.statistics] [sgd.parameters.others]

    Raises ValueError for no parameters, and for an lr, a momentum or a weight_decay below 0.
    """

    def __init__(
        self, params: Iterable[Parameter], lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        # A list of one's own: [sgd.parameters.iterable] a generator can be read only once, and
        # [sgd.parameters.list-kept] the caller's list is neither changed nor watched.
        self.params = list(params)
        if not self.params:  # [sgd.refuses.no-parameters]
            raise ValueError("params is empty: expected at least one Parameter")
        # [sgd.refuses.lr] [sgd.refuses.momentum] [sgd.refuses.weight-decay]
        for name, value in {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}.items():
            if value < 0:
                raise ValueError(f"{name}={value}: expected at least 0")
        self.hyper = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        # [sgd.momentum.per-parameter] [sgd.momentum.per-optimiser]
        self.velocities: list[Array | None] = [None] * len(self.params)

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for i, p in enumerate(self.params):  # [sgd.step.every-parameter] [sgd.parameters.tied]
            if p.grad is not None:  # [sgd.parameters.without-gradient] [sgd.parameters.unused]
                moved, self.velocities[i] = sgd_step(p.data, p.grad, self.velocities[i], **self.hyper)
                # in the array that the module has: [sgd.parameters.in-place] [sgd.parameters.dtype]
                # [sgd.parameters.loaded] [sgd.training.equals-model] and a deep copy has not: [sgd.parameters.copied]
                p.data[...] = moved

    def zero_grad(self) -> None:
        """Forget the gradients, and nothing else. [sgd.zero-grad.keeps-velocity]"""
        for p in self.params:
            p.grad = None  # [sgd.zero-grad.clears] [sgd.zero-grad.afresh]

    def state_dict(self) -> dict[str, list[Array | None]]:
        """Copies of the velocities, in the order of the parameters: all that a checkpoint needs beside the module's."""
        return {"velocities": [None if v is None else v.copy() for v in self.velocities]}

    def load_state_dict(self, state: Mapping[str, Sequence[Array | None]]) -> None:
        """Go on with these velocities. Raises ValueError where they are not those of as many parameters."""
        velocities = state["velocities"]
        if len(velocities) != len(self.params):
            raise ValueError(f"{len(velocities)} velocities: expected {len(self.params)}, one for each parameter")
        self.velocities = [None if v is None else v.copy() for v in velocities]  # [sgd.training.resumes]

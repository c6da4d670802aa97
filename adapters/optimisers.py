"""Gradient descent in functional style, as an optimiser of holders: what `sgd_init` and `sgd_update` compute.

    def sgd_init(params): ...  # -> state
    def sgd_update(params, gradients, state, *, lr, momentum=0.0, weight_decay=0.0): ...  # -> (params, state)

`params` is a flat mapping from keys to arrays, and `gradients` one from some of these keys: a parameter that has no
gradient is absent from it, and rests. The keys mean nothing. `state` is whatever `sgd_init` returned, or the last
`sgd_update`. A file need not take `momentum` or `weight_decay`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from nnspec.adapters.networks import Module, Parameter, takes

FUNCTIONS = ("sgd_init", "sgd_update")
CARRIED = ("Optimiser", "optimiser_of")  # by scripts
Function = Callable[..., Any]


class Optimiser:
    """The class SGD of the page: it keeps the parameters' holders, the numbers, and the state of the functions."""

    init: ClassVar[Function]
    update: ClassVar[Function]

    def __init__(self, params: Iterable[Parameter], lr: float, **numbers: float) -> None:
        self.params, self.lr, self.numbers = list(params), lr, numbers
        self.state = type(self).init(self._arrays())
        # The constructor refuses what the functions refuse. An update without gradients moves nothing; of copies, in
        # case it does.
        type(self).update(*copy.deepcopy((self._arrays(), {}, self.state)), lr=lr, **numbers)

    def step(self) -> None:
        """Move the parameters that have a gradient."""
        gradients = {str(n): p.grad for n, p in enumerate(self.params) if p.grad is not None}
        before = self._arrays()
        arrays, self.state = type(self).update(before, gradients, self.state, lr=self.lr, **self.numbers)
        if differing := arrays.keys() ^ {str(n) for n in range(len(self.params))}:
            raise KeyError(f"{min(differing)}: expected parameters with the keys that sgd_update got")
        for n, holder in enumerate(self.params):
            holder.data = arrays[str(n)]

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for holder in self.params:
            holder.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state."""
        return {"state": copy.deepcopy(self.state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with a copy of a state."""
        self.state = copy.deepcopy(state["state"])

    def _arrays(self) -> dict[str, Any]:
        return {str(n): holder.data for n, holder in enumerate(self.params)}


def optimiser_of(sgd_init: Function, sgd_update: Function) -> dict[str, type]:
    """Return the class of these functions, and the classes of the parameters and the modules that it is judged with."""
    _, _, _, *numbers = inspect.signature(sgd_update).parameters.values()  # behind parameters, gradients and state
    first = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("params", "lr")]
    own: dict[str, Any] = {"init": staticmethod(sgd_init), "update": staticmethod(sgd_update)}
    own["__signature__"] = inspect.Signature([*first, *(number for number in numbers if number.name != "lr")])
    return {"SGD": type("SGD", (Optimiser,), own), "Parameter": Parameter, "Module": Module}


def are_offered(names: Mapping[str, Any]) -> bool:
    """Return whether a file has `sgd_init` and `sgd_update` with the parameters of this page."""
    updated = ("params", "gradients", "state")
    return takes(names.get("sgd_init"), updated[:1]) and takes(names.get("sgd_update"), updated)

"""Networks in functional style, as modules: what `init` and `apply` compute, with modes, entries and gradients.

    def init(block, sizes, dtype): ...             # -> state, a flat mapping from dotted keys to arrays
    def apply(block, state, x, training): ...      # -> (y, state)

`block` is "mlp", "basic_block" or "resnet34". `sizes` holds what the constructor of its class takes by the page, such
as {"in_features": 3, "hidden_features": (4,), "out_features": 2}; `apply` gets it too if it has a parameter `sizes`
(a residual block needs its stride). The keys are the page's, such as "fc1.weight". A file on arrays without automatic
derivatives may bring `apply_vjp(block, cotangent, state, x, training) -> (gradient of x, mapping of gradients)`. A file
that does not have all three blocks names those that it has: NETWORKS = ("mlp",).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

FUNCTIONS = ("init", "apply", "apply_vjp")
BLOCKS = ("mlp", "basic_block", "resnet34")
CARRIED = ("Parameter", "Entries", "Module", "Network", "Differentiable", "_entries", "networks_of")  # by scripts
Function = Callable[..., Any]


class Parameter:
    """An array and its gradient, None until there is one."""

    def __init__(self, data: Any) -> None:
        self.data, self.grad = data, None


class Entries:
    """What lies below one part of the dotted keys: arrays, parameters and further entries, as attributes."""


class Module(Entries):
    """A module whose entries are its attributes. Programs of checks use it; it is not the subject's, and not judged."""

    nnspec_judges = False

    def __init__(self) -> None:
        self.training = True

    def train(self) -> None:
        """Enter training mode."""
        self.training = True

    def eval(self) -> None:
        """Enter evaluation mode."""
        self.training = False

    def state_dict(self) -> dict[str, Any]:
        """Return key -> array."""
        return {key: value.data if isinstance(value, Parameter) else value for key, _, value in _entries(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over arrays. Raises KeyError for keys that are not, or not only, those of the state."""
        own = list(_entries(self))
        if differing := state.keys() ^ {key for key, *_ in own}:
            raise KeyError(f"{min(differing)}: expected a state with the keys that init returned")
        for key, owner, value in own:
            if isinstance(value, Parameter):
                value.data = state[key]
            else:
                setattr(owner, key.rpartition(".")[2], state[key])

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Return key -> holder of an array and its gradient."""
        return ((key, value) for key, _, value in _entries(self) if isinstance(value, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """Return the holders alone, each once."""
        return iter({id(holder): holder for _, holder in self.named_parameters()}.values())

    def register_buffer(self, name: str, array: Any) -> None:
        """Add an array that is part of the state and no parameter."""
        setattr(self, name, array)


class Network(Module):
    """A module whose state is what `init` returned, or what the last call of `apply` returned in its place."""

    nnspec_judges = True
    block: ClassVar[str]
    init: ClassVar[Function]
    apply: ClassVar[Function]
    apply_vjp: ClassVar[Function | None]

    def __init__(self, dtype: Any, **sizes: Any) -> None:
        super().__init__()
        self.sizes = lambda: dict(sizes)  # a function, so that the sizes are no numbers that the module holds
        for key, array in type(self).init(self.block, self.sizes(), np.dtype(dtype)).items():
            *path, name = key.split(".")
            owner: Entries = self
            for part in path:
                owner = vars(owner).setdefault(part, Entries())
            is_buffer = name in ("running_mean", "running_var", "num_batches_tracked")  # and has no gradient
            setattr(owner, name, array if is_buffer else Parameter(array))

    def __call__(self, x: Any) -> Any:
        """Return what `apply` computes, and keep the state that it returns."""
        y, state = type(self).apply(self.block, self.state_dict(), x, self.training, **self._further())
        self.load_state_dict(state)
        return y

    def _further(self) -> dict[str, Any]:
        return {"sizes": self.sizes()} if "sizes" in inspect.signature(type(self).apply).parameters else {}


class Differentiable(Network):
    """A network that brings its own backward pass."""

    def vjp(self, x: Any) -> tuple[Any, Function]:
        """Return self(x), and a pullback that adds to the gradients of the parameters and returns that of x."""
        state, training = self.state_dict(), self.training
        y, own = self(x), type(self).apply_vjp
        assert own is not None

        def pull(cotangent: Any) -> Any:
            dx, gradients = own(self.block, cotangent, state, x, training, **self._further())
            for key, holder in self.named_parameters():
                if (gradient := gradients.get(key)) is not None:
                    holder.grad = gradient if holder.grad is None else holder.grad + gradient
            return dx

        return y, pull


def _entries(owner: Entries, before: str = "") -> Iterator[tuple[str, Entries, Any]]:
    """Yield the key, the object that it lies in, and the array or the parameter, of each entry."""
    for name, value in list(vars(owner).items()):
        if isinstance(value, Entries):
            yield from _entries(value, f"{before}{name}.")
        elif not isinstance(owner, Module) or name not in ("training", "sizes"):
            yield before + name, owner, value


def networks_of(
    init: Function, apply: Function, apply_vjp: Function | None = None, blocks: Collection[str] | None = None
) -> dict[str, type[Network]]:
    """Return the classes of these blocks, or of all, with the names and the constructors of their pages."""

    def mlp(self: Network, in_features: Any, hidden_features: Any, out_features: Any, dtype: Any = np.float32) -> None:
        hidden = (hidden_features,) if isinstance(hidden_features, int) else tuple(hidden_features)
        Network.__init__(self, dtype, in_features=in_features, hidden_features=hidden, out_features=out_features)

    def residual(self: Network, in_channels: int, out_channels: int, stride: Any = 1, dtype: Any = np.float32) -> None:
        Network.__init__(self, dtype, in_channels=in_channels, out_channels=out_channels, stride=stride)

    def resnet34(self: Network, in_channels: int = 3, num_classes: int = 1000, dtype: Any = np.float32) -> None:
        Network.__init__(self, dtype, in_channels=in_channels, num_classes=num_classes)

    base = Network if apply_vjp is None else Differentiable
    own = {"init": staticmethod(init), "apply": staticmethod(apply), "apply_vjp": staticmethod(apply_vjp or init)}
    known = {"mlp": ("MLP", mlp), "basic_block": ("ResidualBlock", residual), "resnet34": ("ResNet34", resnet34)}
    return {
        name: type(name, (base,), {**own, "block": block, "__init__": constructor})
        for block, (name, constructor) in known.items()
        if blocks is None or block in blocks
    }


def are_offered(names: Mapping[str, Any]) -> bool:
    """Return whether a file has `init` and `apply` with the parameters of this page."""
    wanted = {"init": ("block", "sizes", "dtype"), "apply": ("block", "state", "x", "training")}
    return all(takes(names.get(name), parameters) for name, parameters in wanted.items())


def takes(function: Any, parameters: tuple[str, ...]) -> bool:
    """Return whether a function's first parameters have these names."""
    try:
        return tuple(inspect.signature(function).parameters)[: len(parameters)] == parameters
    except (TypeError, ValueError):  # nothing that can be called, or a builtin that does not tell
        return False

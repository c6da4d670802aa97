"""Modules: what holds parameters, buffers and other modules. Page: spec/module.md"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from nnspec.reference.arguments import Array


class Parameter:
    """An array that an optimiser moves: `data`, and `grad` (None until a gradient is known)."""

    def __init__(self, data: Array) -> None:
        self.data = np.array(data)
        self.grad: Array | None = None


class Buffer:
    """An array that belongs to a module's state and that no optimiser moves. Only a persistent one is saved."""

    def __init__(self, data: Array, *, persistent: bool = True) -> None:
        self.data = np.array(data)
        self.persistent = persistent


class Module:
    """Assigning a Parameter, a Buffer or a Module to an attribute registers it under that name."""

    def __init__(self) -> None:
        self._members: dict[str, Parameter | Buffer | Module | None] = {}
        self.training = True  # [module.mode.default]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter | Buffer | Module):
            if "_members" not in self.__dict__:
                raise TypeError(f"{type(self).__name__}.{name}: call super().__init__() before assigning it")
            self.__dict__.pop(name, None)
            self._members[name] = value  # [module.register.by-assignment]
        elif name in self.__dict__.get("_members", ()):
            if value is not None:
                raise TypeError(f"{name}={value!r}: expected a Parameter, a Buffer, a Module or None, as before")
            self._members[name] = None  # [module.register.replaced] a stale entry must not stay in the state
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        members = self.__dict__.get("_members", {})
        if name not in members:  # [module.attribute.missing]
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return members[name]

    def __delattr__(self, name: str) -> None:
        if name in self._members:
            del self._members[name]
        else:
            object.__delattr__(self, name)

    def register_buffer(self, name: str, data: Array | None, persistent: bool = True) -> None:
        """Assign a Buffer; None holds the name without an entry in the state."""
        self._members[name] = None if data is None else Buffer(data, persistent=persistent)

    def forward(self, *inputs: Array) -> Array:
        """What the module computes."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Array) -> Array:
        return self.forward(*inputs)

    # -- walking the tree ------------------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module ("") and all below it, each path once, in the order of registration."""
        yield prefix, self
        for name, member in self._members.items():
            if isinstance(member, Module):
                yield from member.named_modules(f"{prefix}.{name}" if prefix else name)

    def _named(self, kind: type) -> Iterator[tuple[str, Any]]:
        for path, module in self.named_modules():
            for name, member in module._members.items():
                if isinstance(member, kind):
                    yield f"{path}.{name}" if path else name, member  # [module.state.keys]

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(key, parameter), a shared parameter once, under its first key."""
        seen: set[int] = set()
        for key, parameter in self._named(Parameter):
            if id(parameter) not in seen:  # [module.parameters.shared-once]
                seen.add(id(parameter))
                yield key, parameter

    def parameters(self) -> Iterator[Parameter]:
        """The parameters, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """(key, buffer), persistent or not."""
        return self._named(Buffer)

    # -- mode ------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Set `training` here and in every module below; returns the module itself."""
        for _, module in self.named_modules():
            module.training = mode  # [module.mode.reaches-all]
        return self

    def eval(self) -> Module:
        """train(False)."""
        return self.train(False)

    # -- state -----------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Parameter | Buffer]:
        # [module.buffer.non-persistent] and a shared entry appears under each of its keys
        return {k: m for k, m in self._named(Parameter | Buffer) if isinstance(m, Parameter) or m.persistent}

    def state_dict(self) -> dict[str, Array]:
        """Key -> copy of the array, for every parameter and persistent buffer. [module.state.complete]"""
        return {key: member.data.copy() for key, member in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Copy the arrays in, keeping each entry's dtype. Refuses before anything is changed.

        Raises KeyError for missing or unexpected keys (not where strict=False), ValueError for an array of another
        shape, be it one that would broadcast.
        """
        own = self._state()
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if strict and (missing or unexpected):  # [module.load.missing] [module.load.unexpected] [module.load.lenient]
            raise KeyError(f"state: missing keys {missing}, unexpected keys {unexpected}")
        common = own.keys() & state.keys()
        for key in common:
            if np.shape(state[key]) != own[key].data.shape:  # [module.load.shape]
                raise ValueError(f"{key} of shape {np.shape(state[key])}: expected {own[key].data.shape}")
        for key in common:
            own[key].data[...] = state[key]  # [module.load.values] in place: whoever shares the entry sees it

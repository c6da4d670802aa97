"""Modules: what holds parameters, buffers and other modules. Page: spec/module.md"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Any, TypeAlias

import numpy as np
from nnspec.reference.arguments import Array
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike


class _Holder(NDArrayOperatorsMixin):
    """What holds an array, `data`, and is that array in arithmetic and in NumPy's functions.

    The result is a plain array, which holds no gradient. [module.arithmetic.as-array]
    """

    data: Array
    __hash__ = object.__hash__  # `==` compares elements; `is` compares objects

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.data, dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: tuple[Any, ...] = (), **named: Any) -> Any:
        """NumPy calls this for every operator and ufunc: unwrap what is held, and compute with the arrays."""
        if out:
            named["out"] = tuple(map(_held, out))
        result = getattr(ufunc, method)(*map(_held, inputs), **named)
        return self if out and out[0] is self else result  # `holder += 1` leaves the holder, with another value

    def __bool__(self) -> bool:
        return bool(self.data)


def _held(operand: Any) -> Any:
    return operand.data if isinstance(operand, _Holder) else operand


class Parameter(_Holder):
    """An array that an optimiser moves: `data`, and `grad` (None until a gradient is known)."""

    def __init__(self, data: Array) -> None:
        self.data = np.array(data)
        self.grad: Array | None = None  # [module.gradient.unused] until a pullback says otherwise

    def accumulate(self, gradient: Array) -> None:
        """Add a gradient to those that are already there: a parameter used twice gets the sum of both."""
        # [module.gradient.accumulates] [module.gradient.shared] and a new array each time: [module.copy.gradients]
        self.grad = gradient if self.grad is None else self.grad + gradient


class Buffer(_Holder):
    """An array that belongs to a module's state and that no optimiser moves. Only a persistent one is saved.

    It has no gradient, and it remembers nothing of how it was computed. [module.gradient.buffers-constant]
    """

    def __init__(self, data: Array, *, persistent: bool = True) -> None:
        self.data = np.array(data)
        self.persistent = persistent


class Module:
    """Whatever Parameter, Buffer or Module is an attribute is registered under the attribute's name.

    There is no registry beside the attributes, and so none that could disagree with them: reassigning, deleting and
    asking for what is not there are Python's own. [module.register.by-assignment] [module.register.replaced]
    [module.register.deleted] [module.register.none] [module.attribute.missing] [module.attribute.plain]
    [module.register.before-init] [module.copy.equal] [module.copy.independent] [module.copy.ties]
    [module.life.equals-model]
    """

    training = True  # [module.mode.default] [module.mode.own]

    def __setattr__(self, name: str, value: Any) -> None:
        known = vars(self).get(name)
        if isinstance(known, Buffer) and isinstance(value, np.ndarray | np.generic):
            value = Buffer(np.asarray(value), persistent=known.persistent)  # [module.buffer.assigned]
        if isinstance(value, _Entry):
            if not name or "." in name:  # [module.refuses.dotted-name] "a.b" is the key of b in a
                raise ValueError(f"name {name!r}: expected a name without dots, and not an empty one")
        elif value is not None and isinstance(known, _Entry):  # [module.refuses.plain-array]
            wanted = "an array" if isinstance(known, Buffer) else "a Parameter, a Buffer, a Module"
            raise TypeError(f"{name}={value!r}: expected {wanted} or None, as {name} is a {type(known).__name__}")
        super().__setattr__(name, value)

    def register_buffer(self, name: str, data: Array | None, persistent: bool = True) -> None:
        """Assign a Buffer; None holds the name without an entry in the state. [module.buffer.none]

        Raises KeyError where the name belongs to something else than a buffer.
        """
        if not isinstance(getattr(self, name, None), Buffer | None):  # [module.refuses.taken-name]
            raise KeyError(f"{name}: expected a free name or a buffer's, not that of {getattr(self, name)!r}")
        setattr(self, name, None if data is None else Buffer(data, persistent=persistent))  # [module.buffer.again]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the module computes. Raises NotImplementedError where a class does not say."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")  # [module.refuses.no-forward]

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The result of forward."""
        return self.forward(*inputs, **named)  # [module.call.forward]

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """forward(x), and its pullback: from a cotangent of the result to that of x.

        What the parameters get of it is added to their `grad`. Raises NotImplementedError where a class does not say.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define vjp")

    # -- walking the tree ------------------------------------------------------------------------------------------

    def _entries(self, kind: type | UnionType, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """(key, entry) here and below, a shared entry under each of its keys."""
        for name, entry in vars(self).items():
            if isinstance(entry, kind):
                yield prefix + name, entry  # [module.state.keys] [module.state.shared-keys]
            if isinstance(entry, Module):
                yield from entry._entries(kind, f"{prefix}{name}.")

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(key, parameter), here and below, each parameter once. [module.parameters.complete]"""
        return _once(self._entries(Parameter))  # [module.parameters.shared-once]

    def parameters(self) -> Iterator[Parameter]:
        """The parameters, here and below, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """(key, buffer), here and below, each buffer once, be it persistent or not. [module.buffers.complete]"""
        return _once(self._entries(Buffer))  # [module.buffers.shared-once]

    def buffers(self) -> Iterator[Buffer]:
        """The buffers, here and below, each once."""
        return (buffer for _, buffer in self.named_buffers())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """(path, module): this module under "", and all below it, each once. [module.modules.complete]"""
        return _once([("", self), *self._entries(Module)])  # [module.modules.shared-once]

    def children(self) -> Iterator[Module]:
        """The modules directly below this one, each once. [module.modules.children]"""
        return (module for _, module in _once((k, m) for k, m in vars(self).items() if isinstance(m, Module)))

    # -- mode ------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Set `training` here and in every module below; returns the module itself."""
        for _, module in self.named_modules():  # [module.mode.eval] [module.mode.train] and nowhere else:
            module.training = mode  # [module.mode.subtree]
        return self  # [module.mode.returns-self]

    def eval(self) -> Module:
        """train(False)."""
        return self.train(False)

    # -- state -----------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Parameter | Buffer]:
        # [module.buffer.persistent] [module.buffer.non-persistent]
        return {k: e for k, e in self._entries(Parameter | Buffer) if isinstance(e, Parameter) or e.persistent}

    def state_dict(self) -> dict[str, Array]:
        """Key -> copy of the array, for every parameter and persistent buffer. [module.state.complete]"""
        return {key: entry.data.copy() for key, entry in self._state().items()}  # [module.state.values]

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Copy the arrays in. Refuses before anything is changed. [module.load.all-or-nothing]

        Raises KeyError for missing or unexpected keys (not where strict=False), ValueError for an array of another
        shape, be it one that would broadcast.
        """
        own = self._state()
        # [module.refuses.missing-key] [module.refuses.unexpected-key] [module.refuses.extended-key]
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if strict and (missing or unexpected):
            raise KeyError(f"state: missing keys {missing}, unexpected keys {unexpected}")
        arrays = {key: np.asarray(state[key]) for key in own if key in state}  # [module.load.lenient]
        for key, array in arrays.items():
            # [module.refuses.shape] [module.refuses.broadcast-shape] [module.refuses.lenient-shape]
            if array.shape != own[key].data.shape:
                raise ValueError(f"{key} of shape {array.shape}: expected {own[key].data.shape}")
        for key, array in arrays.items():  # [module.load.values] [module.load.tied]
            own[key].data[...] = array  # [module.load.in-place] [module.load.copies] [module.load.dtype]
        # That is all: what a module computes depends on its state and on nothing beside. [module.load.same-future]


_Entry: TypeAlias = Parameter | Buffer | Module
Pullback: TypeAlias = Callable[[Array], Array]


def pullback(vjp: Callable[..., Any], x: Array, *parameters: Parameter | None, **arguments: Any) -> Pullback:
    """The pullback of an operation on x and on parameters, which adds to their `grad`; `vjp` is the operation's."""
    operands = [None if p is None else p.data for p in parameters]

    def pull(cotangent: Array) -> Array:
        gradients = vjp(cotangent, x, *operands, **arguments)  # [module.gradient.any-mode] the mode has no say
        dx, *others = gradients if parameters else (gradients,)
        for parameter, gradient in zip(parameters, others, strict=True):
            if parameter is not None:
                parameter.accumulate(gradient)
        return dx

    return pull


def _once(named: Any) -> Iterator[tuple[str, Any]]:
    """Each object under the first of its keys. Objects, not values: two equal parameters are two."""
    first: dict[int, tuple[str, Any]] = {}
    for key, entry in named:
        first.setdefault(id(entry), (key, entry))
    return iter(first.values())

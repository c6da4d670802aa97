"""Modules, which hold parameters, buffers and other modules. Page: spec/module.md"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from nnspec.reference.arguments import Array
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike


class _Holder(NDArrayOperatorsMixin):
    """An object that holds an array, `data`, and acts as the array in arithmetic and in NumPy's functions.

    Results are plain arrays without gradients.
    """

    data: Array
    __hash__ = object.__hash__  # `==` compares elements; `is` compares objects

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.data, dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: tuple[Any, ...] = (), **named: Any) -> Any:
        """Apply an operator or a ufunc to the arrays that are held. NumPy calls this."""
        if out:
            named["out"] = tuple(map(_held, out))
        result = getattr(ufunc, method)(*map(_held, inputs), **named)  # [module.arithmetic.as-array]
        return self if out and out[0] is self else result  # `holder += 1` must not replace the holder by an array

    def __bool__(self) -> bool:
        return bool(self.data)


def _held(operand: Any) -> Any:
    return operand.data if isinstance(operand, _Holder) else operand


class Parameter(_Holder):
    """An array `data` that an optimiser moves, and its gradient `grad`, None before the first backward pass.

    With `requires_grad` set to False it is frozen: it gets no gradient, and an optimiser leaves it alone.

    By construction: module.gradient.unused.
    """

    requires_grad = True

    def __init__(self, data: Array) -> None:
        self.data = np.array(data)
        self.grad: Array | None = None

    def accumulate(self, gradient: Array) -> None:
        """Add a gradient to `grad`.

        By construction: module.gradient.shared.
        """
        # A sum and not +=, which would change arrays that copies share: [module.gradient.accumulates]
        # [module.copy.gradients]
        if self.requires_grad:
            self.grad = gradient if self.grad is None else self.grad + gradient


class Buffer(_Holder):
    """An array of a module's state that no optimiser moves. Only a persistent buffer is saved. It has no gradient.

    By construction: module.gradient.buffers-constant.
    """

    requires_grad = False

    def __init__(self, data: Array, *, persistent: bool = True) -> None:
        self.data = np.array(data)
        self.persistent = persistent


class Unmatched(NamedTuple):
    """The keys that only one side had when a state was loaded."""

    missing_keys: list[str]  # of the module's entries that were not loaded
    unexpected_keys: list[str]  # of the state, which no entry has


class Module:
    """A node of a tree: each attribute that is a Parameter, a Buffer or a Module belongs to it under its name.

    The attributes are the only registry, so that assigning, deleting, reading and copying them follow Python's rules.

    By construction: module.register.by-assignment, module.register.replaced, module.register.deleted,
    module.register.none, module.register.before-init, module.attribute.missing, module.attribute.plain,
    module.copy.equal, module.copy.independent, module.copy.ties, module.life.equals-model, module.mode.default,
    module.mode.own.
    """

    training = True

    def __setattr__(self, name: str, value: Any) -> None:
        known = vars(self).get(name)
        if isinstance(known, Buffer) and isinstance(value, np.ndarray | np.generic):
            value = Buffer(np.asarray(value), persistent=known.persistent)  # [module.buffer.assigned]
        if isinstance(value, _Entry):
            if not name or "." in name:  # "a.b" is the key of b in a: [module.refuses.dotted-name]
                raise ValueError(f"name {name!r}: expected a name without dots, and not an empty one")
        elif value is not None and isinstance(known, _Entry):  # [module.refuses.plain-array]
            wanted = "an array" if isinstance(known, Buffer) else "a Parameter, a Buffer, a Module"
            raise TypeError(f"{name}={value!r}: expected {wanted} or None, as {name} is a {type(known).__name__}")
        super().__setattr__(name, value)

    def register_buffer(self, name: str, data: Array | None, persistent: bool = True) -> None:
        """Assign a Buffer to the attribute `name`. None reserves the name, without an entry in the state.

        Raises KeyError if the attribute exists and is not a buffer.

        By construction: module.buffer.none, module.buffer.again.
        """
        if not isinstance(getattr(self, name, None), Buffer | None):  # [module.refuses.taken-name]
            raise KeyError(f"{name}: expected a free name or a buffer's, not that of {getattr(self, name)!r}")
        setattr(self, name, None if data is None else Buffer(data, persistent=persistent))

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the output for these inputs. Raises NotImplementedError unless a class overrides it.

        By construction: module.refuses.no-forward.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return the result of forward.

        By construction: module.call.forward.
        """
        return self.forward(*inputs, **named)

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback, which takes a cotangent of the result and returns the gradient of x.

        The pullback adds the gradients of the parameters to their `grad`. Raises NotImplementedError unless a class
        overrides it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define vjp")

    # -- walking the tree ------------------------------------------------------------------------------------------

    def _entries(self, kind: type | UnionType, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield (key, entry) for the entries here and below, with a shared entry under each of its keys.

        By construction: module.state.shared-keys.
        """
        for name, entry in vars(self).items():
            if isinstance(entry, kind):
                yield prefix + name, entry  # [module.state.keys]
            if isinstance(entry, Module):
                yield from entry._entries(kind, f"{prefix}{name}.")

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Return (key, parameter) for the parameters here and below, each once.

        By construction: module.parameters.complete.
        """
        return _once(self._entries(Parameter))  # [module.parameters.shared-once]

    def parameters(self) -> Iterator[Parameter]:
        """Return the parameters here and below, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Return (key, buffer) for the buffers here and below, persistent or not, each once.

        By construction: module.buffers.complete, module.buffers.shared-once.
        """
        return _once(self._entries(Buffer))

    def buffers(self) -> Iterator[Buffer]:
        """Return the buffers here and below, each once."""
        return (buffer for _, buffer in self.named_buffers())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Return (path, module) for this module, whose path is "", and for the modules below it, each once.

        By construction: module.modules.complete, module.modules.shared-once.
        """
        return _once([("", self), *self._entries(Module)])

    def children(self) -> Iterator[Module]:
        """Return the modules directly below this one, each once.

        By construction: module.modules.children.
        """
        return (module for _, module in _once((k, m) for k, m in vars(self).items() if isinstance(m, Module)))

    # -- mode ------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Set `training` here and in every module below, and return the module itself.

        By construction: module.mode.eval, module.mode.train, module.mode.returns-self.
        """
        for _, module in self.named_modules():
            module.training = mode  # [module.mode.subtree]
        return self

    def eval(self) -> Module:
        """Return train(False)."""
        return self.train(False)

    # -- state -----------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Parameter | Buffer]:
        """Return the parameters and persistent buffers by key.

        By construction: module.buffer.non-persistent.
        """
        # [module.buffer.persistent]
        return {k: e for k, e in self._entries(Parameter | Buffer) if isinstance(e, Parameter) or e.persistent}

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of the array of every parameter and persistent buffer, by key.

        By construction: module.state.complete, module.state.values.
        """
        return {key: entry.data.copy() for key, entry in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> Unmatched | None:
        """Copy the arrays of `state` into the parameters and persistent buffers with their keys.

        With strict=False, return the keys that only one side has.

        Raises KeyError for missing or unexpected keys unless strict=False, and ValueError for an array of another
        shape, also if it broadcasts. Nothing has changed then.

        By construction: module.load.all-or-nothing, module.load.tied, module.load.same-future,
        module.refuses.broadcast-shape, module.refuses.lenient-shape, module.refuses.extended-key,
        module.refuses.unexpected-key, module.load.lenient, module.load.values, module.load.copies, module.load.dtype.
        """
        own = self._state()
        # [module.refuses.missing-key]
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if strict and (missing or unexpected):
            raise KeyError(f"state: missing keys {missing}, unexpected keys {unexpected}")
        arrays = {key: np.asarray(state[key]) for key in own if key in state}
        for key, array in arrays.items():
            if array.shape != own[key].data.shape:  # [module.refuses.shape]
                raise ValueError(f"{key} of shape {array.shape}: expected {own[key].data.shape}")
        for key, array in arrays.items():
            own[key].data[...] = array  # [module.load.in-place]
        return None if strict else Unmatched(missing, unexpected)  # [module.load.reported]


_Entry: TypeAlias = Parameter | Buffer | Module
Pullback: TypeAlias = Callable[[Array], Array]


def pullback(vjp: Callable[..., Any], x: Array, *parameters: Parameter | None, **arguments: Any) -> Pullback:
    """Return the pullback of an operation on x and parameters, which adds the gradients of the parameters to `grad`.

    `vjp` takes a cotangent, x, the arrays of the parameters and the arguments; it returns the gradients of the arrays.

    By construction: module.gradient.any-mode.
    """
    operands = [None if p is None else p.data for p in parameters]

    def pull(cotangent: Array) -> Array:
        gradients = vjp(cotangent, x, *operands, **arguments)
        dx, *others = gradients if parameters else (gradients,)
        for parameter, gradient in zip(parameters, others, strict=True):
            if parameter is not None:
                parameter.accumulate(gradient)
        return dx

    return pull


def _once(named: Any) -> Iterator[tuple[str, Any]]:
    """Return each object under the first of its keys. Two equal parameters are two objects."""
    first: dict[int, tuple[str, Any]] = {}
    for key, entry in named:
        first.setdefault(id(entry), (key, entry))
    return iter(first.values())

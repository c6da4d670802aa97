"""What a framework offers to nnspec: derive a class from `Adapter`, and register it in the group `nnspec.adapters`.

`to_native`, `to_numpy` and `versions` are required. Every other method is optional: an absent method is an absent
capability, and the requirements that need it are unsupported. A script that reproduces a failure carries the methods
that it uses, with `self.` removed: such a method uses its arguments, other methods of its class, functions that its
module imports, and the names that `preamble` defines.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from nnspec.adapters.blame import Lacks
from nnspec.adapters.derivatives import Derivatives

if TYPE_CHECKING:
    from nnspec.adapters.subject import Subject

Method = TypeVar("Method", bound=Callable[..., Any])


class Absent(Lacks, AttributeError):
    """An adapter has no such method: `hasattr` is False, and a check that calls the method is unsupported."""


class _Optional:
    """A method of the contract that an adapter has only where it defines it."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.__doc__, self.__wrapped__ = method.__doc__, method

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, adapter: Any, owner: type) -> Any:
        raise Absent(f"{owner.__name__} has no {self.name}")


def optional(method: Method) -> Method:
    """Mark a method of the contract as optional: `hasattr` is False for an adapter that does not define it."""
    return cast(Method, _Optional(method))


class Adapter(Derivatives):
    """One framework. Make its class cheap to import: import the framework in `__init__`, which gets the profile."""

    name = ""  # under which the entry point registers the adapter
    packages: tuple[str, ...] = ()  # the framework's top-level packages, by which a user's file is recognised
    further_dtypes: tuple[str, ...] = ()  # that the framework has, beside float32 and float64
    strided = False  # whether `to_native` keeps the memory layout; otherwise it gets fresh contiguous copies
    concurrent = True  # whether calls may be made from several threads
    flushes = False  # whether the framework treats subnormal numbers as 0
    compiles_per_shape = False  # whether each new shape costs a compilation: checks then draw few shapes
    on_file = False  # whether results were written to files before: there are none for other calls than those
    preamble = ""  # the first lines of a script: imports, and the names that methods use
    on_device = ""  # the lines after it where a device was asked for; {device!r} is its name

    def __init__(self, profile: str = "quick") -> None:
        """Import the framework and set its switches. `profile`: how thorough the run is ("quick", "ci", "deep")."""

    @classmethod
    def prepare(cls, profile: str) -> None:
        """Set what the framework must find in the environment when a user's file imports it. Imports nothing."""

    @classmethod
    def recognises(cls, value: Any) -> bool:
        """Return whether a value from a user's file (a module, class, function or array) is of this framework."""
        module = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        return str(module).partition(".")[0] in cls.packages

    # -- arrays --------------------------------------------------------------------------------------------------------

    def to_native(self, array: np.ndarray) -> Any:
        """Return a NumPy array as the framework's own, with the same dtype."""
        raise NotImplementedError

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return the framework's array as NumPy's, without a copy where possible. TypeError for any other value."""
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        """Return package -> version, of what the results depend on."""
        raise NotImplementedError

    def sketched(self, function: Callable[[], Any]) -> list[tuple[tuple[int, ...], str]]:
        """Return the shape and the dtype of each array that a function returns."""
        arrays = map(self.to_numpy, function())
        return [(array.shape, array.dtype.name) for array in arrays]

    def in_scripts(self, form: str) -> Adapter:
        """Return the adapter whose methods a script about a function, or about a class, carries."""
        return self

    @optional
    def use_device(self, device: str) -> tuple[str, ...]:
        """Make arrays on a device from here on; return the weaker classes of accuracy that hold there.

        RuntimeError where there is no such device.
        """
        raise NotImplementedError

    # -- memory --------------------------------------------------------------------------------------------------------

    @optional
    def surroundings(self, native: Any) -> np.ndarray:
        """Return a copy of the whole allocation that an operand lies in: one axis, and the operand's dtype.

        With this method, `to_native` keeps an array's place in its `base`, and what the memory around it holds.
        """
        raise NotImplementedError

    @optional
    def dirty(self, arrays: Sequence[np.ndarray]) -> Callable[[], None]:
        """Fill memory with copies of the arrays and free it, so that new arrays of these sizes find their contents.

        Return a function that ends what else was changed for this.
        """
        raise NotImplementedError

    @optional
    def forget(self) -> None:
        """Free what was compiled for the shapes of a check that is done."""

    def stream(self) -> AbstractContextManager[Any]:
        """Return a context in which the calls of a thread are on a stream of their own, if the device has streams."""
        return nullcontext()

    @optional
    def known_defect(
        self, stem: str, arrays: Mapping[str, np.ndarray | None], arguments: Mapping[str, Any]
    ) -> str | None:
        """Name the defect that forbids a call, which then is not made; None for others.

        The call would end the process, read foreign memory, or raise for how operands lie in memory.
        """
        raise NotImplementedError

    # -- derivatives: nnspec derives the selection of operands, the vjp of a vjp and the jvp of a jvp ------------------

    @optional
    def vjp(self, function: Callable[..., Any], operands: Sequence[Any], cotangents: Sequence[Any]) -> Sequence[Any]:
        """Return the gradient for each operand; `function` returns a tuple, with one cotangent for each result.

        A gradient that is None counts as not computed.
        """
        raise NotImplementedError

    @optional
    def jvp(self, function: Callable[..., Any], operands: Sequence[Any], tangents: Sequence[Any]) -> Sequence[Any]:
        """Return the derivative of each result of `function`, a tuple, along the tangents of its operands."""
        raise NotImplementedError

    # -- networks of objects -------------------------------------------------------------------------------------------

    @optional
    def construct(self, cls: type, positional: tuple[Any, ...], keywords: Mapping[str, Any], dtype: np.dtype) -> Any:
        """Return a module of class `cls` whose floating-point state has `dtype`."""
        raise NotImplementedError

    @optional
    def state(self, module: Any) -> dict[str, np.ndarray]:
        """Return own key -> copy, of the module's parameters and saved buffers."""
        raise NotImplementedError

    @optional
    def load_entries(self, module: Any, entries: Mapping[str, np.ndarray]) -> None:
        """Put arrays into a module's parameters, buffers and attributes by its own keys. KeyError for other keys."""
        raise NotImplementedError

    @optional
    def read(self, module: Any, key: str) -> np.ndarray:
        """Return a copy of one parameter, buffer or attribute, saved or not, by its own key. KeyError for others."""
        raise NotImplementedError

    @optional
    def held(self, module: Any) -> dict[str, Any]:
        """Return own key -> `roles.Held`, the kind and the shape of every array and whole number in the module."""
        raise NotImplementedError

    @optional
    def set_training(self, module: Any, training: bool) -> None:
        """Put a module in training mode or in evaluation mode."""
        raise NotImplementedError

    @optional
    def differentiate_module(self, module: Any, x: Any, cotangent: Any) -> dict[str, Any]:
        """Return the gradients of module(x) for "x" and, by key, for the module's parameters."""
        raise NotImplementedError

    @optional
    def differentiate_part(self, module: Any, x: Any, cotangent: Any, wanted: Collection[str]) -> dict[str, Any]:
        """Return the gradients of module(x) that are wanted, of "x" and, by key, of parameters; all others are frozen.

        Nothing is differentiated with respect to what is frozen. Lacks where the module has no such notion.
        """
        raise NotImplementedError

    @optional
    def follows(self, module: Any, key: str) -> bool:
        """Return whether gradients are followed through an entry. Lacks where the module has no such notion."""
        raise NotImplementedError

    @optional
    def backward(self, module: Any, x: Any, cotangent: Any) -> Any:
        """Return module(x), and add its gradients to those that the module keeps for an optimiser."""
        raise NotImplementedError

    @optional
    def set_rate(self, optimiser: Any, rate: float) -> None:
        """Set the learning rate that an optimiser's next step goes by. Lacks where the optimiser has no way to."""
        raise NotImplementedError

    @optional
    def projection(self, in_channels: int, out_channels: int, stride: Any) -> Any:
        """Return a 1×1 convolution and a batch norm in sequence, for a residual block that is given its projection."""
        raise NotImplementedError

    @optional
    def beside_optimisers(self) -> dict[str, tuple[type, str]]:
        """Return classes `Parameter` and `Module` for a file that has an optimiser alone, and their lines in a script.

        A Parameter holds an array as `data` and its gradient as `grad`.
        """
        raise NotImplementedError

    @optional
    def beside_sequences(self) -> dict[str, tuple[type, str]]:
        """Return classes `Linear` and `ReLU` for a file whose Sequential has no others, and their lines in a script."""
        raise NotImplementedError

    @optional
    def watch(self, module: Any, name: str, note: Callable[[str, Any, Any], None]) -> Callable[[], None]:
        """Call note(name, x, y) at each call of a module from here on; return a function that ends it."""
        raise NotImplementedError

    @optional
    def order(self, module: Any, x: np.ndarray, owners: Sequence[Any]) -> list[Any]:
        """Return those of the owners that a call of the module runs, in that order. Without it, nnspec looks on."""
        raise NotImplementedError

    @optional
    def program(self) -> Any:
        """Return what runs lines (`run`) and expressions (`value`) beside the subject. Without it, they run here."""
        raise NotImplementedError

    # -- the subject that comes with the adapter -----------------------------------------------------------------------

    @optional
    def subject(self) -> Subject:
        """Return the framework's own blocks, to be checked under the adapter's name."""
        raise NotImplementedError

"""Networks of Python objects, whose arrays lie in attributes, lists and mappings, and in holders such as Parameter."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from nnspec.adapters import networks
from nnspec.adapters.blame import Lacks, Raised, Unsupported, Unusable
from nnspec.adapters.contract import Adapter

DEEPEST = 8  # how many objects, lists and mappings may lie inside one another
FAILED = (Raised, Unusable, Unsupported)  # how a call of a class may end
CALLS = ("forward", "__call__")  # the methods that run a layer
Shape = tuple[int, ...]


class Held(NamedTuple):
    """An array, or a whole number, that a module holds."""

    kind: str  # "parameter", "attribute" (also a buffer), "number" (a whole one, an array without dimensions), or "int"
    owner: Any  # the object, list or mapping that it lies in
    shape: Shape


class Objects(Adapter):
    """An adapter that finds the entries of a module by the paths of its attributes. `is_array` knows the arrays."""

    def is_array(self, value: Any) -> bool:
        """Return whether a value is one of the framework's arrays."""
        raise NotImplementedError

    def is_holder(self, value: Any) -> bool:
        """Return whether a value is no array, and holds an array or a whole number as `data`."""
        data = None if self.is_array(value) else getattr(value, "data", None)
        return self.is_array(data) or type(data) is int

    def array_of(self, value: Any) -> Any:
        """Return the array or the whole number that an attribute is or holds; None for any other value."""
        value = value.data if self.is_holder(value) else value
        return value if self.is_array(value) or type(value) is int else None

    def construct(self, cls: type, positional: tuple[Any, ...], keywords: Mapping[str, Any], dtype: np.dtype) -> Any:
        """Return cls(…), with `dtype` if its constructor takes one."""
        own = {"dtype": dtype} if "dtype" in inspect.signature(cls).parameters else {}
        return cls(*positional, **keywords, **own)

    def load_entries(self, module: Any, entries: Mapping[str, np.ndarray]) -> None:
        """Assign each array to the attribute of its dotted key."""
        for key, array in entries.items():
            self.assign(module, key, array)

    def assign(self, module: Any, key: str, array: np.ndarray) -> None:
        """Assign an array to the attribute of its dotted key, or to the `data` of the holder that is there."""
        owner, name = reach(module, key)
        if owner is None:
            raise KeyError(key)
        before = get(owner, name)
        value = int(array) if isinstance(self.array_of(before), int) else self.to_native(array.copy())
        if self.is_holder(before):
            before.data = value
        elif isinstance(owner, tuple):
            before[...] = value
        elif hasattr(owner, "__setitem__"):
            owner[int(name) if name.isdigit() else name] = value
        else:
            setattr(owner, name, value)

    def state(self, module: Any) -> dict[str, np.ndarray]:
        """Return copies of what state_dict() returns, or without one of the attributes that are arrays."""
        if not hasattr(module, "state_dict"):
            return {key: self.read(module, key) for key, found in self.held(module).items() if found.kind != "int"}
        return {
            key: np.array(self.to_numpy(value) if self.is_array(value) else value)
            for key, value in module.state_dict().items()
        }

    def read(self, module: Any, key: str) -> np.ndarray:
        """Return a copy of the array at this key of the state, or at this path of attributes. KeyError for others."""
        saved = module.state_dict() if hasattr(module, "state_dict") else {}
        owner, name = reach(module, key)
        value = self.array_of(saved[key] if key in saved else None if owner is None else get(owner, name))
        if value is None:
            raise KeyError(key)
        return np.array(value if isinstance(value, int) else self.to_numpy(value))

    def set_training(self, module: Any, training: bool) -> None:
        """Call train() or eval() if the module has them, else set its attribute `training`."""
        if hasattr(module, "train") and hasattr(module, "eval"):
            module.train() if training else module.eval()
        else:
            module.training = training

    def beside_optimisers(self) -> dict[str, tuple[type, str]]:
        """Return the plain classes, which scripts carry."""
        return {"Parameter": (networks.Parameter, ""), "Module": (networks.Module, "")}

    def set_rate(self, optimiser: Any, rate: float) -> None:
        """Set `lr` in each of the optimiser's param_groups, or its attribute `lr` if it has no such groups."""
        groups = getattr(optimiser, "param_groups", None) or ()
        for group in groups:
            group["lr"] = rate
        if groups:
            return
        if not hasattr(optimiser, "lr"):
            raise Lacks(f"{type(optimiser).__name__} has neither param_groups nor an attribute lr")
        try:
            optimiser.lr = rate
        except AttributeError:
            raise Lacks(f"{type(optimiser).__name__} has an attribute lr that cannot be set") from None

    def held(self, module: Any) -> dict[str, Held]:
        """Return path -> what lies there, in a module and in the objects, lists and mappings below it."""
        found: dict[str, Held] = {}
        seen: set[int] = set()

        def walk(owner: Any, prefix: str, depth: int) -> None:
            if id(owner) in seen or depth > DEEPEST:
                return
            seen.add(id(owner))
            for name, value in self._inside(owner):
                if (array := self.array_of(value)) is not None:
                    found[f"{prefix}{name}"] = self._held(owner, value, array)
                elif isinstance(value, list | tuple | dict) or _is_object(value):
                    walk(value, f"{prefix}{name}.", depth + 1)

        walk(module, "", 0)
        return found

    def _held(self, owner: Any, value: Any, array: Any) -> Held:
        if isinstance(array, int):
            return Held("int", owner, ())
        if not array.ndim and self.to_numpy(array).dtype.kind in "iu":
            return Held("number", owner, ())
        return Held("parameter" if self.learns(value) else "attribute", owner, tuple(array.shape))

    def learns(self, value: Any) -> bool:
        """Return whether an attribute is marked as a parameter."""
        return hasattr(value, "grad")

    def members(self, owner: Any) -> Iterable[tuple[str, Any]]:
        """Return the names and values of an object's attributes."""
        return vars(owner).items()

    def _inside(self, owner: Any) -> Iterator[tuple[str, Any]]:
        """Yield the names and values of an object, a mapping or a list."""
        if isinstance(owner, dict):
            yield from ((name, value) for name, value in owner.items() if isinstance(name, str) and "." not in name)
        elif isinstance(owner, list | tuple):
            yield from ((str(n), value) for n, value in enumerate(owner))
        else:
            yield from self.members(owner)


def _is_object(value: Any) -> bool:
    plain = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
    return hasattr(value, "__dict__") and not isinstance(value, plain)


def reach(module: Any, key: str) -> tuple[Any, str]:
    """Return the object, list or mapping that holds the entry of this path, and its name there; None for no entry."""
    *path, last = key.split(".")
    owner = module
    try:
        for name in path:
            owner = get(owner, name)
        get(owner, last)
    except (LookupError, AttributeError, TypeError, ValueError):
        return None, last
    return owner, last


def get(owner: Any, name: str) -> Any:
    """Return what an object, a list or a mapping has under a name or a place."""
    if isinstance(owner, dict):
        return owner[name]
    return owner[int(name)] if name.isdigit() and hasattr(owner, "__getitem__") else getattr(owner, name)


def order_of(run: Callable[[], Any], owners: Container[int]) -> list[int]:
    """Return the identities of those of the owners whose call, or whose forward pass, runs, in that order."""
    seen: dict[int, None] = {}

    def note(frame: types.FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name in CALLS and code.co_varnames:
            one = id(frame.f_locals.get(code.co_varnames[0]))
            if one in owners:
                seen.setdefault(one)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    except FAILED:  # the class cannot be run: other checks judge that
        pass
    finally:
        sys.setprofile(before)
    return list(seen)

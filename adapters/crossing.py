"""Values that cross between two processes: plain ones as JSON, arrays beside it, objects by a name for them."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from nnspec.adapters.blame import LONGEST
from nnspec.adapters.objects import Held

Arrays = dict[str, np.ndarray]
PLAIN = (type(None), bool, int, float, str)
COLLECTIONS: dict[str, Callable[..., Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
SPECIAL = ("__call__", "__len__", "__iter__", "__getitem__", "__contains__")  # what is told of a class's own methods


def flat(value: Any, arrays: Arrays, other: Callable[[Any], Any]) -> Any:
    """Return a value as JSON has it. Arrays go to `arrays`; `other` says what is left, an array or a plain value."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, Held):
        return {"held": [value.kind, flat(value.owner, arrays, other), [*value.shape]]}
    if isinstance(value, np.ndarray | np.generic):
        name = f"value{len(arrays)}"
        arrays[name] = np.asarray(value)
        return {"array" if isinstance(value, np.ndarray) else "scalar": name}
    if isinstance(value, np.dtype):
        return {"dtype": value.name}
    if isinstance(value, dict):
        return {"dict": [[flat(key, arrays, other), flat(one, arrays, other)] for key, one in value.items()]}
    for name, kind in COLLECTIONS.items():
        if type(value) is kind or (kind is tuple and isinstance(value, tuple)):
            return {name: [flat(one, arrays, other) for one in value]}
    found = other(value)
    return flat(found, arrays, other) if isinstance(found, np.ndarray) else found


def whole(value: Any, arrays: Mapping[str, np.ndarray], other: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Return the value that `flat` made JSON of. `other` returns an object by what stands for it."""
    if not isinstance(value, dict):
        return value
    kind, inner = next(iter(value.items()))
    if kind in COLLECTIONS:
        return COLLECTIONS[kind](whole(one, arrays, other) for one in inner)
    if kind == "dict":
        return {whole(key, arrays, other): whole(one, arrays, other) for key, one in inner}
    if kind == "held":
        return Held(inner[0], whole(inner[1], arrays, other), tuple(inner[2]))
    if kind in ("array", "scalar"):
        return arrays[inner] if kind == "array" else arrays[inner][()]
    return np.dtype(inner) if kind == "dtype" else other(value)


# -- exceptions --------------------------------------------------------------------------------------------------------


def flat_error(error: BaseException) -> list[str]:
    """Return the name of an exception, of Python's own class that it is, and the beginning of its text."""
    kinds = (cls.__name__ for cls in type(error).__mro__ if cls.__module__ == "builtins")
    try:
        text = str(error)[:LONGEST].encode("utf-8", "backslashreplace").decode()
    except BaseException as failed:  # the subject's code
        text = f"(its text cannot be had: {type(failed).__name__})"
    return [type(error).__name__, next(kinds), text]


def whole_error(told: Any) -> Exception:
    """Return an exception of the same name, kind and text."""
    name, kind, text = map(str, told)
    base = getattr(builtins, kind, None)
    if not (inspect.isclass(base) and issubclass(base, Exception)):
        base = RuntimeError
    error: Exception = type(name, (base,), {"__str__": lambda self: text, "__init__": lambda self, *given: None})()
    return error


# -- classes -----------------------------------------------------------------------------------------------------------


def outlines(classes: Mapping[str, type]) -> list[dict[str, Any]]:
    """Return what is asked of classes and of their bases, which come first: name, bases, signature and members."""
    found: dict[type, dict[str, Any]] = {}
    for cls in (base for one in classes.values() for base in reversed(one.__mro__) if base is not object):
        if cls not in found:
            found[cls] = {
                "name": cls.__name__,
                "bases": [[*found].index(base) for base in cls.__bases__ if base is not object],
                "parameters": parameters_of(cls),
                "members": {name: _member(cls, name) for name in vars(cls) if name in SPECIAL or name[:2] != "__"},
                "known as": [name for name, known in classes.items() if known is cls],
            }
    return [*found.values()]


def _member(cls: type, name: str) -> Any:
    """Return whether a class is judged, and of a method its parameters; None for any other attribute."""
    value = inspect.getattr_static(cls, name)
    if name == "nnspec_judges":
        return bool(value)
    value = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    if not inspect.isroutine(value):
        return None
    return {"parameters": parameters_of(value), "qualified": getattr(value, "__qualname__", name)}


def parameters_of(function: Any) -> list[list[Any]] | None:
    """Return name, kind and whether there is a default, of each parameter; None for what does not tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [[p.name, int(p.kind), p.default is not p.empty] for p in parameters]


def signature_of(parameters: list[list[Any]]) -> inspect.Signature:
    """Return a signature of these parameters. A default is None."""
    kinds, empty = {int(kind): kind for kind in type(inspect.Parameter.KEYWORD_ONLY)}, inspect.Parameter.empty  # type: ignore[attr-defined]
    made = [inspect.Parameter(n, kinds[kind], default=None if has else empty) for n, kind, has in parameters]
    return inspect.Signature(made)

"""The subject: the implementation under test, as functions and as classes over one array library."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from nnspec.adapters.signatures import SIGNATURES, Arrays, Signature

FORMS = ("function", "class")


class Unsupported(Exception):
    """Raise it in a subject for a call that it does not claim to do; the case is counted and shown, not failed."""


class SubjectError(Exception):
    """The subject cannot be put to the checks at all; the message is for the user (exit code 2)."""


class Framework(Protocol):
    """What a module such as `for_numpy` or `for_torch` offers about one array library."""

    def to_native(self, array: np.ndarray) -> Any:
        """A NumPy array as the library's own, same dtype and, where possible, same memory layout."""

    def to_numpy(self, value: Any) -> np.ndarray:
        """The library's array as NumPy's, without a copy where possible. TypeError for anything else."""

    def construct(self, cls: type, positional: tuple[Any, ...], keywords: Mapping[str, Any], dtype: np.dtype) -> Any:
        """A module of class `cls` whose floating-point state has `dtype`."""

    def load_entries(self, module: Any, entries: Mapping[str, np.ndarray]) -> None:
        """Put arrays into a module's parameters and buffers by key. KeyError for a key that it does not have."""

    def state(self, module: Any) -> dict[str, np.ndarray]:
        """Key -> copy, of the module's parameters and saved buffers."""

    def set_training(self, module: Any, training: bool) -> None:
        """Train or eval mode."""


@dataclass(frozen=True)
class Subject:
    """Functions and classes by canonical name; what a callable's signature lacks counts as unsupported."""

    name: str
    framework: Framework
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    classes: Mapping[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ("float32", "float64")
    versions: Mapping[str, str] = field(default_factory=dict)
    recipe: Callable[[str], str] = lambda name: f"# import {name} here"  # the line of a script that defines a name
    # why a call of a block must not be made, for it is known to end the process; None where it may be
    declines: Callable[[str, Arrays, Mapping[str, Any]], str | None] = lambda stem, arrays, arguments: None

    def forms(self, stem: str) -> tuple[str, ...]:
        """In which forms this subject has a block: none, one or both of "function" and "class"."""
        signature = SIGNATURES[stem]
        has = {
            "function": signature.function in self.functions,
            "class": any(c in self.classes for c in signature.classes),
        }
        return tuple(form for form in FORMS if has[form])

    def lacks(self, stem: str, form: str) -> frozenset[str]:
        """The operands and arguments of a block that the callable's signature does not have; members, and classes."""
        signature = SIGNATURES[stem]
        if form == "function":
            assert signature.function is not None
            accepted = parameters(self.functions[signature.function])
            wanted = {*signature.operands[1:], *signature.arguments} - {"equation"}
        else:
            cls = self._class(signature)
            accepted, absent = parameters(cls), frozenset(m for m in signature.members if not hasattr(cls, m))
            absent |= {c for c in signature.classes if c not in self.classes}
            wanted = set(signature.arguments) - {"training", "kernel_size"}
        missing = frozenset() if accepted is None else frozenset(wanted - accepted)
        return missing if form == "function" else missing | absent

    def call(self, stem: str, form: str, arrays: Arrays, arguments: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        """One call of a block on NumPy arrays; the results as NumPy arrays, in the order of the block's signature."""
        if reason := self.declines(stem, arrays, arguments):
            raise Unsupported(reason)
        if form == "function":
            return self._call_function(SIGNATURES[stem], arrays, arguments, self.lacks(stem, form))
        module, operands = self.build(stem, arrays, arguments)
        return self.apply(stem, module, operands)

    def apply(self, stem: str, module: Any, operands: Sequence[Any]) -> tuple[np.ndarray, ...]:
        """One call of a module on native operands; what the block's signature says that a call results in."""
        y = self.framework.to_numpy(module(*operands))
        further = SIGNATURES[stem].results[1:]
        state = self.framework.state(module) if further else {}
        if missing := [key for key in further if key not in state]:
            raise Unsupported(f"the state of {type(module).__name__} has no entry {missing[0]}")
        return (y, *(state[key] for key in further))

    def _call_function(self, signature, arrays, arguments, lacks) -> tuple[np.ndarray, ...]:
        function = self.functions[signature.function]
        native = [None if a is None else self.framework.to_native(a) for n, a in arrays.items() if n not in lacks]
        keywords = {n: v for n, v in arguments.items() if n not in lacks}
        if "equation" in keywords:
            native.insert(0, keywords.pop("equation"))
        results = function(*native, **keywords)
        results = results if isinstance(results, tuple | list) else (results,)
        if len(results) != len(signature.results):
            raise TypeError(
                f"{len(results)} results, expected {len(signature.results)}: {', '.join(signature.results)}"
            )
        return tuple(self.framework.to_numpy(r) for r in results)

    def build(self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]) -> tuple[Any, list[Any]]:
        """A block as a module with the arrays as its state, in the mode that `training` says, and its native inputs."""
        cls = self._class(SIGNATURES[stem], arrays)
        positional, keywords, training = self.constructor(stem, arrays, arguments)
        dtype = next(a.dtype for a in arrays.values() if a is not None)
        module = self.framework.construct(cls, positional, keywords, dtype)
        entries = {n: a for n, a in arrays.items() if n != "x" and a is not None}
        try:
            self.framework.load_entries(module, entries)
        except KeyError as key:
            raise Unsupported(f"{cls.__name__} has no state entry {key}") from None
        for name in {n for n, a in arrays.items() if a is None} & set(self.framework.state(module)):
            raise Unsupported(f"{cls.__name__} always has a {name}")
        self.framework.set_training(module, training)
        return module, self.inputs(arrays)

    def inputs(self, arrays: Arrays) -> list[Any]:
        """What a module is called on: native arrays."""
        return [self.framework.to_native(x) for n, x in arrays.items() if n == "x" and x is not None]

    def constructor(
        self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
        """How a block is built as a module: positional and keyword arguments of its class, and the mode."""
        positional, keywords = SIGNATURES[stem].constructor(arrays, arguments)
        training = keywords.pop("training", arguments.get("training", True))
        accepted = parameters(self._class(SIGNATURES[stem], arrays))
        return positional, {n: v for n, v in keywords.items() if accepted is None or n in accepted}, training

    def class_of(self, stem: str, arrays: Arrays) -> str:
        """The name of the class that a call of a block would build."""
        cls = self._class(SIGNATURES[stem], arrays)
        return next(name for name, known in self.classes.items() if known is cls)

    def _class(self, signature: Signature, arrays: Arrays | None = None) -> Any:
        names = signature.classes
        x = None if arrays is None else arrays.get("x")
        if x is not None and names[0] == "BatchNorm2d":
            names = ("BatchNorm2d",) if x.ndim == 4 else ("BatchNorm1d",)
        for name in names:
            if name in self.classes:
                return self.classes[name]
        raise Unsupported(f"there is no class {' or '.join(names)}")


def parameters(function: Callable[..., Any]) -> set[str] | None:
    """The names of a callable's parameters; None where it takes any keyword or does not tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters}

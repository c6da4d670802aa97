"""The objects of a subject in a process of its own: made, used and read as the process that asks says."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
from nnspec.adapters.blame import Unusable, theirs
from nnspec.adapters.carried import callables
from nnspec.adapters.crossing import Arrays, flat, outlines, whole
from nnspec.adapters.objects import order_of
from nnspec.adapters.signatures import COTANGENT
from nnspec.adapters.subject import Lacks, Subject

METHODS = (
    "construct",
    "state",
    "load_entries",
    "read",
    "held",
    "set_training",
    "follows",
    "known_defect",
)  # asked for by name
GRADIENTS = ("differentiate_module", "differentiate_part")  # asked for as a call, in whose operands writes are seen


class Keeper:
    """The objects that were made here, each by a name that no process has given before."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.framework = subject, subject.framework
        self.kept: dict[str, Any] = {}
        self._names: dict[int, str] = {}  # id -> name
        self._prefix = secrets.token_hex(4)
        self._made = 0

    def told(self) -> dict[str, Any]:
        """Return what is known of the classes, and which methods of the adapter there are."""
        classes = self.subject.classes
        return {
            "classes": outlines(classes),
            "differentiates": [name for name, cls in classes.items() if self.subject.differentiates(cls)],
            "recipes": {name: self.subject.recipe(name) for name in classes},
            "methods": [name for name in (*METHODS, *GRADIENTS) if hasattr(self.framework, name)],
            "framework": self.framework.name,
        }

    def free(self, names: list[str]) -> None:
        """Forget objects that nobody asks for any more."""
        for name in names:
            if (gone := self.kept.pop(name, None)) is not None:
                self._names.pop(id(gone), None)

    def module(self, name: str) -> Any:
        """Return an object. Unusable if it was made by a process that has ended."""
        if name not in self.kept:
            raise Unusable("the object was lost with the process that had it")
        return self.kept[name]

    def answer(self, header: Mapping[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Return the value that a request asks for, and its arrays."""
        found: Arrays = {}
        value = getattr(self, f"_{header['request']}")(header, lambda one: whole(one, arrays, self._known))
        return {"value": flat(value, found, self._flat)}, found

    # -- calls of modules, whose results the server looks after --------------------------------------------------------

    def called(self, header: Mapping[str, Any], operands: Arrays) -> Arrays:
        """Call a module."""
        natives = [self.subject.to_native(array) for array in operands.values()]
        return {"y": self.subject.called(self.module(header["object"]), natives)}

    def gradients(self, header: Mapping[str, Any], operands: Arrays) -> dict[str, np.ndarray | None]:
        """Differentiate a module."""
        x, cotangent = (self.subject.to_native(operands[name]) for name in ("x", COTANGENT))
        method, module = getattr(self.framework, header["method"]), self.module(header["object"])
        own = method(module, x, cotangent, *([header["wanted"]] if "wanted" in header else []))
        return {n: None if g is None else self.framework.to_numpy(g) for n, g in own.items()}

    # -- requests ------------------------------------------------------------------------------------------------------

    def _adapter(self, header: Mapping[str, Any], known: Any) -> Any:
        if header["method"] not in METHODS:
            raise Lacks(f"{self.framework.name} has no {header['method']}")
        return getattr(self.framework, header["method"])(*known(header["given"]))

    def _member(self, header: Mapping[str, Any], known: Any) -> Any:
        owner, given, keywords = self._owner(header), known(header["given"]), known(header["keywords"])
        given, keywords = self._natives(given), self._natives(keywords)
        with theirs():
            return _as_list(getattr(owner, header["name"])(*given, **keywords))

    def _get(self, header: Mapping[str, Any], known: Any) -> Any:
        with theirs():
            return getattr(self._owner(header), header["name"])

    def _set(self, header: Mapping[str, Any], known: Any) -> None:
        owner, value = self._owner(header), self._natives(known(header["value"]))
        with theirs():
            setattr(owner, header["name"], value)

    def _order(self, header: Mapping[str, Any], known: Any) -> list[Any]:
        module, owners = self.module(header["object"]), known(header["owners"])
        (x,) = self._natives(known(header["given"]))
        by_id = {id(owner): owner for owner in owners}
        return [by_id[one] for one in order_of(lambda: self.subject.called(module, [x]), by_id)]

    def _program(self, header: Mapping[str, Any], known: Any) -> Any:
        return Names(self.framework, self.subject.classes)

    def _line(self, header: Mapping[str, Any], known: Any) -> None:
        with theirs():
            exec(header["text"], self.module(header["object"]).names)

    def _value(self, header: Mapping[str, Any], known: Any) -> Any:
        with theirs():
            return _as_list(eval(header["text"], self.module(header["object"]).names))

    def _owner(self, header: Mapping[str, Any]) -> Any:
        return self.module(header["object"])

    # -- values --------------------------------------------------------------------------------------------------------

    def _natives(self, value: Any) -> Any:
        """Return a value with the framework's own arrays in place of NumPy's."""
        if isinstance(value, np.ndarray):
            return self.subject.to_native(value)
        if isinstance(value, dict):
            return {name: self._natives(one) for name, one in value.items()}
        return type(value)(map(self._natives, value)) if isinstance(value, list | tuple) else value

    def _known(self, told: Mapping[str, Any]) -> Any:
        return self.subject.classes[told["class"]] if "class" in told else self.module(told["object"])

    def _flat(self, value: Any) -> Any:
        """Return an array of the framework as NumPy's, and the name of any other object."""
        try:
            array: np.ndarray = self.framework.to_numpy(value)
        except Exception:  # no array
            return {"object": self._name(value), "of": type(value).__name__, "class": self._class(value)}
        return array

    def _name(self, value: Any) -> str:
        if (name := self._names.get(id(value))) is None:
            self._made += 1
            name = self._names[id(value)] = f"{self._prefix}-{self._made}"
            self.kept[name] = value
        return name

    def _class(self, value: Any) -> str | None:
        return next((name for name, cls in self.subject.classes.items() if type(value) is cls), None)


class Names:
    """The names that the lines of a program have defined."""

    def __init__(self, framework: Any, classes: Mapping[str, Any]) -> None:
        self.names: dict[str, Any] = {"__name__": "program", "np": np, "copy": copy, "nan": np.nan, "inf": np.inf}
        self.names |= callables(framework) | dict(classes)


def _as_list(value: Any) -> Any:
    """Return what an iterator gives, which is the subject's code, as a list."""
    return list(value) if hasattr(value, "__next__") else value

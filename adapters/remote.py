"""Objects that lie in another process, and the classes that they are of, as checks use them."""

from __future__ import annotations

import ast
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from nnspec.adapters.blame import Ended
from nnspec.adapters.crossing import flat, signature_of, whole
from nnspec.adapters.signatures import COTANGENT

Request = Mapping[str, Any]
# a request and the operands that it hands over -> the answer's header and arrays
Exchange = Callable[[Request, Mapping[str, np.ndarray]], tuple[dict[str, Any], dict[str, np.ndarray]]]


class There:
    """An object in the other process."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "nnspec_at":
            raise AttributeError(name)
        return _link(self).get(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _link(self).set(self, name, value)


class Link:
    """How objects are asked: `exchange` makes a request."""

    def __init__(self, exchange: Exchange, told: Mapping[str, Any]) -> None:
        self._exchange = exchange
        self._objects: weakref.WeakValueDictionary[str, There] = weakref.WeakValueDictionary()
        self._gone: list[str] = []  # objects that nobody uses here any more
        self.classes = _classes(told["classes"], told["differentiates"])
        self._names = {cls: name for name, cls in self.classes.items()}

    # -- what an adapter does ------------------------------------------------------------------------------------------

    def method(self, name: str) -> Callable[..., Any]:
        """Return a method of the adapter there."""
        return lambda *given: self._ask({"request": "adapter", "method": name}, given=given)

    def differentiating(self, method: str) -> Callable[..., Any]:
        """Return the method of the adapter that differentiates a module, or a part of it."""

        def differentiate(module: Any, x: Any, cotangent: Any, *wanted: Any) -> dict[str, Any]:
            header: dict[str, Any] = {"request": "module gradients", "method": method, "object": self.name(module)}
            header |= {"wanted": [*wanted[0]]} if wanted else {}
            answer, found = self._exchange({**header, "freed": self._freed()}, {"x": x, COTANGENT: cotangent})
            return {**found, **dict.fromkeys(map(str, answer.get("none", ())))}

        return differentiate

    def call(self, module: There, *operands: np.ndarray) -> Any:
        """Call a module."""
        given = {f"x{n}": array for n, array in enumerate(operands)}
        header = {"request": "module", "object": self.name(module), "freed": self._freed()}
        return self._exchange(header, given)[1].get("y")

    def order(self, module: There, x: np.ndarray, owners: Sequence[There]) -> Any:
        """Return those of the owners that a call of the module runs, in that order."""
        owned = flat(list(owners), {}, self._flat)
        return self._ask({"request": "order", "object": self.name(module), "owners": owned}, given=[x])

    # -- what a program does -------------------------------------------------------------------------------------------

    def program(self) -> Program:
        """Return a program without lines."""
        return Program(self, self._ask({"request": "program"}))

    def run(self, names: There, text: str) -> None:
        """Run a line."""
        self._ask({"request": "line", "object": self.name(names), "text": text})

    def value(self, names: There, text: str) -> Any:
        """Return the value of an expression."""
        return self._ask({"request": "value", "object": self.name(names), "text": text})

    # -- attributes ----------------------------------------------------------------------------------------------------

    def get(self, owner: There, name: str) -> Any:
        """Return an attribute of an object."""
        return self._ask({"request": "get", "object": self.name(owner), "name": name})

    def set(self, owner: There, name: str, value: Any) -> None:
        """Set an attribute of an object."""
        self._ask({"request": "set", "object": self.name(owner), "name": name}, value=value)

    def member(self, owner: There, name: str, *given: Any, **keywords: Any) -> Any:
        """Call a method of an object."""
        header = {"request": "member", "object": self.name(owner), "name": name}
        return self._ask(header, given=given, keywords=keywords)

    # -- values --------------------------------------------------------------------------------------------------------

    def name(self, thing: There) -> str:
        """Return the name of an object there."""
        return str(object.__getattribute__(thing, "nnspec_at")[1])

    def _ask(self, header: Request, **values: Any) -> Any:
        arrays: dict[str, np.ndarray] = {}
        crossing = {name: flat(value, arrays, self._flat) for name, value in values.items()}
        answer, found = self._exchange({**header, **crossing, "freed": self._freed()}, arrays)
        try:
            return whole(answer.get("value"), found, self._known)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            raise changed("its answer stands for no value") from None

    def _freed(self) -> list[str]:
        gone, self._gone = self._gone, []
        return gone

    def _flat(self, value: Any) -> Any:
        if isinstance(value, There):
            return {"object": self.name(value)}
        return {"class": self._names[value]}

    def _known(self, told: Mapping[str, Any]) -> There:
        name = told["object"]
        if name in self._gone:  # it was let go while the answer was under way
            self._gone.remove(name)
        found = self._objects.get(name)
        if found is None:
            cls = self.classes.get(told["class"]) or type(str(told["of"]), (There,), {})
            found = self._objects[name] = object.__new__(cls)
            object.__setattr__(found, "nnspec_at", (self, name))
            weakref.finalize(found, self._gone_is, name).atexit = False
        return found

    def _gone_is(self, name: str) -> None:
        self._gone.append(name)


class Program:
    """The names that the lines of a program define in the other process. What an expression claims is compared here."""

    def __init__(self, link: Link, names: There) -> None:
        self._link, self._names = link, names

    def run(self, text: str) -> None:
        """Run a line there."""
        self._link.run(self._names, text)

    def value(self, text: str) -> Any:
        """Return the value of an expression: the sides of a comparison cross, not what comes of it."""
        return self._judged(ast.parse(text, mode="eval").body)

    def _judged(self, node: ast.expr) -> Any:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return not self._judged(node.operand)
        if isinstance(node, ast.BoolOp):
            stops, value = isinstance(node.op, ast.Or), None
            for one in node.values:
                if bool(value := self._judged(one)) is stops:
                    break
            return value
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARED:
            left, right = ast.unparse(node.left), ast.unparse(node.comparators[0])
            return COMPARED[type(node.ops[0])](*self._sides(left, right, type(node.ops[0])))
        return self._link.value(self._names, ast.unparse(node))

    def _sides(self, left: str, right: str, kind: type[ast.cmpop]) -> Any:
        both = f"[({left}), ({right})]"
        if kind in (ast.Is, ast.IsNot):
            both = f"[*map(id, {both})]"
        found = self._link.value(self._names, both)
        if type(found) is not list or len(found) != 2:
            raise changed("two values were asked for")
        return found


COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Is: lambda a, b: a == b,
    ast.IsNot: lambda a, b: a != b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def changed(how: str) -> Ended:
    """Return what is to be said where the file changed what answers for it."""
    return Ended(f"the file changed what answers for it: {how}", "tampers")


# -- classes -----------------------------------------------------------------------------------------------------------


def _link(thing: There) -> Link:
    link: Link = object.__getattribute__(thing, "nnspec_at")[0]
    return link


def _classes(outlines: Sequence[Mapping[str, Any]], differentiated: Sequence[str]) -> dict[str, type]:
    """Return classes as `crossing.outlines` tells of them: with bases, signatures and members."""
    made: list[type] = []
    known: dict[str, type] = {}
    for outline in outlines:
        bases = tuple(made[n] for n in outline["bases"]) or (There,)
        members = {name: _member(name, told) for name, told in outline["members"].items()}
        if outline["parameters"] is not None:
            members["__signature__"] = signature_of(outline["parameters"])
        cls = type(str(outline["name"]), bases, members)
        made.append(cls)
        known |= dict.fromkeys(outline["known as"], cls)
    for name in known.keys() & {*differentiated} - {n for n, cls in known.items() if hasattr(cls, "vjp")}:
        known[name].vjp = _member("vjp", {"parameters": None, "qualified": "vjp"})  # type: ignore[attr-defined]
    return known


def _member(name: str, told: Any) -> Any:
    if isinstance(told, bool):
        return told
    if told is None:
        return property(
            lambda self: _link(self).get(self, name), lambda self, value: _link(self).set(self, name, value)
        )

    def method(self: There, *given: Any, **keywords: Any) -> Any:
        if name == "__call__" and not keywords and given and all(isinstance(one, np.ndarray) for one in given):
            return _link(self).call(self, *given)
        found = _link(self).member(self, name, *given, **keywords)
        return iter(found) if name == "__iter__" else found

    method.__name__, method.__qualname__ = name, told["qualified"]
    if told["parameters"] is not None:
        method.__signature__ = signature_of(told["parameters"])  # type: ignore[attr-defined]
    return method

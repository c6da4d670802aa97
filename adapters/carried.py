"""What a script that reproduces a failure carries of an adapter, so that it runs without nnspec."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

from nnspec.adapters import (
    calling,
    chained_classes,
    chains,
    fixed_sizes,
    networks,
    optimisers,
    problems,
    projections,
    protocol,
    vectors,
)
from nnspec.adapters.contract import Adapter

PACKAGE = __package__
# the methods that programs may call
IN_PROGRAMS = (
    "to_native", "to_numpy", "construct", "load_entries", "state", "read", "set_training",
    "differentiate_module", "backward", "set_rate",
)  # fmt: skip
CALLED = re.compile(r"(?<![.\w])(\w+)\(")  # a function in a text, and no method of an object
CLASS = re.compile(r"\b[A-Z]\w+")


def preamble(adapter: Adapter, device: str | None) -> str:
    """Return the first lines of a script: the imports of the adapter's methods, and the device that was asked for."""
    lines = [adapter.preamble]
    if device is not None:
        lines.append(adapter.on_device.format(device=device))
    return "\n".join(lines)


def sources(adapter: Adapter, text: str) -> list[str]:
    """Return the sources of the functions of nnspec that a text calls, and of what these use in turn."""
    known = functions(adapter)
    found: dict[str, str] = {}
    used = set(CALLED.findall(text))
    while more := used & known.keys() - found.keys():
        found |= {name: _source(known[name]) for name in more}
        text = "\n".join(found[name] for name in more)
        used = {*CALLED.findall(text), *CLASS.findall(text)}
    return [found[name] for name in known if name in found]


def callables(adapter: Any) -> dict[str, Callable[..., Any]]:
    """Return what programs may call of an adapter, by name. A call of an absent method raises Lacks."""

    def calling(name: str) -> Callable[..., Any]:
        return lambda *given: getattr(adapter, name)(*given)

    return {name: calling(name) for name in IN_PROGRAMS}


def functions(adapter: Adapter) -> dict[str, Callable[..., Any]]:
    """Return name -> function: an adapter's methods, what adapts a user's functions, and what these call in turn.

    What makes classes of a user's functions comes first, with the classes that they derive from.
    """
    methods = {n: f for n, f in inspect.getmembers(type(adapter), inspect.isfunction) if n[:2] != "__"}
    carrying = (calling, chains, chained_classes, fixed_sizes, problems, projections, protocol, vectors)
    called = {name: getattr(module, name) for module in carrying for name in module.CARRIED}
    pending = [*methods.values(), *called.values()]
    while pending:
        function = pending.pop()
        for name in _names(function.__code__):
            other = function.__globals__.get(name)
            if isinstance(other, FunctionType) and other.__module__.startswith(PACKAGE) and name not in called:
                called[name] = other
                pending.append(other)
    making = {name: getattr(module, name) for module in (networks, optimisers) for name in module.CARRIED}
    return making | called | methods


def _names(code: CodeType) -> set[str]:
    """Return the global names in a function, and in the functions and classes inside it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names, *(name for one in inner for name in _names(one))}


def _source(function: Callable[..., Any]) -> str:
    """Return the source of a function; of a method as a function, which calls others without `self`."""
    text = textwrap.dedent(inspect.getsource(function)).rstrip()
    is_method = "." in function.__qualname__
    return re.sub(r"\bself(\.|,\s+|(?=\)))", "", text) if is_method else text

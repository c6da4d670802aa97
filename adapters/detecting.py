"""Which framework a user's file works on: by its classes, its annotations, its code, else by the calls that succeed."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import CodeType
from typing import Any

from nnspec.adapters.choosing import functions_of
from nnspec.adapters.contract import Adapter
from nnspec.adapters.names import adapters, extra_of
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject, SubjectError
from nnspec.adapters.trying import Watch, works

DEFAULT = "numpy"  # where nothing in a file tells


def adapter_class(name: str) -> type[Adapter]:
    """Return an adapter's class, which should not import its framework. Raises SubjectError as `made` does."""
    with _explaining(name):
        found: type[Adapter] = adapters()[name].load()
        return found


def made(name: str, profile: str) -> Adapter:
    """Return an adapter by its name; it imports its framework. Raises SubjectError where that is not installed."""
    cls = adapter_class(name)
    with _explaining(name):
        return cls(profile)


@contextmanager
def _explaining(name: str) -> Iterator[None]:
    """Say what to install where an adapter does not find its framework."""
    try:
        yield
    except ModuleNotFoundError as error:
        how = extra_of(name)
        raise SubjectError(f"subject {name!r} needs the package {error.name!r}{how and f': {how}'}") from None


def for_files() -> dict[str, type[Adapter]]:
    """Return the adapters of frameworks that a file may work on; NumPy comes last, since other files use it too."""
    named: dict[str, type[Adapter]] = {}
    for name in adapters():
        with suppress(SubjectError):  # the framework is not installed, so that no file here works on it
            if (cls := adapter_class(name)).packages:
                named[name] = cls
    return dict(sorted(named.items(), key=lambda item: (item[0] == DEFAULT, item[0])))


def adapter_of(framework: str, profile: str) -> Adapter:
    """Return the adapter of a framework that the user named."""
    if framework not in (known := for_files()):
        raise SubjectError(f"framework {framework!r}: expected one of {', '.join(known)}")
    return made(framework, profile)


def is_of(adapter: Adapter | type[Adapter], cls: type) -> bool:
    """Return whether a class is one of a framework's own, or derives from one."""
    return any(adapter.recognises(base) for base in cls.__mro__)


def detect(title: str, found: Mapping[str, Any], names: Mapping[str, Any], watch: Watch, profile: str) -> Adapter:
    """Return the adapter for a file with these names, of which those `found` are judged."""
    known = for_files()
    classes = {n: c for n, c in found.items() if inspect.isclass(c)}
    if len(classes) < len(found):  # beside functions, a plain optimiser or holder tells nothing of the arrays
        telling = {n for n, c in classes.items() if any(is_of(adapter, c) for adapter in known.values())}
        classes = {n: c for n, c in classes.items() if n in telling or n not in ("Parameter", "SGD")}
    if classes:
        return made(_of_classes(known, classes.values()) or _only(known, names), profile)
    annotations = [str(a) for f in found.values() for a in getattr(f, "__annotations__", {}).values()]
    for name, adapter in known.items():
        if name != DEFAULT and any(package in a for a in annotations for package in adapter.packages):
            return made(name, profile)
    named = _in_code(known, found.values())
    around = _imported(known, names) | named
    if len(around) < 2:
        return made(around.pop() if around else DEFAULT, profile)
    candidates = {name: made(name, profile) for name in known if name in around}
    return _by_calls(title, found, [name for name in candidates if name in (named or around)], candidates, watch)


def _imported(known: Mapping[str, type[Adapter]], names: Mapping[str, Any]) -> set[str]:
    """Return the frameworks that a file's names come from."""
    return {name for value in names.values() for name, adapter in known.items() if adapter.recognises(value)}


def _only(known: Mapping[str, type[Adapter]], names: Mapping[str, Any]) -> str:
    """Return the framework that a file imports; NumPy's if it imports that too, or several."""
    around = _imported(known, names)
    return around.pop() if len(around) == 1 else DEFAULT


def _of_classes(known: Mapping[str, type[Adapter]], classes: Iterable[type]) -> str:
    """Return the framework that one of the classes derives from, or else that their methods name, or nothing."""
    for name, adapter in known.items():
        if name != DEFAULT and any(is_of(adapter, cls) for cls in classes):
            return name
    used = _in_code(known, (member for cls in classes for member in vars(cls).values()))
    return next((name for name in known if name in used and name != DEFAULT), DEFAULT if used else "")


def _by_calls(
    title: str, found: Mapping[str, Any], named: list[str], around: Mapping[str, Adapter], watch: Watch
) -> Adapter:
    """Return the framework on whose arrays the functions work. Those that their code names are tried first."""
    functions, _ = functions_of(found)
    stems = [stem for stem, signature in SIGNATURES.items() if signature.function in functions]

    def working(name: str) -> set[str]:
        subject = Subject.of(around[name], functions=functions)
        return {stem for stem in stems if works(subject, stem, watch)}

    if len(named) == 1 and working(named[0]) == set(stems):
        return around[named[0]]
    succeeded = {name: working(name) for name in around}
    best = [name for name in around if all(succeeded[name] >= other for other in succeeded.values())]
    if len(best) == 1:
        return around[best[0]]
    if not any(succeeded.values()):  # what cannot be called at all is told for each block
        return around[named[0]]
    *others, last = around
    choice = " or ".join(f"--framework {name}" for name in (*others, last))
    raise SubjectError(f"{title}: uses {', '.join(others)} and {last}; say {choice}")


def _names_in(code: CodeType) -> Iterator[str]:
    """Yield the names that code uses, with those of the functions and comprehensions in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _in_code(known: Mapping[str, type[Adapter]], functions: Iterable[Any]) -> set[str]:
    """Return which of the frameworks the functions name in their code."""
    found: set[str] = set()
    for function in map(inspect.unwrap, functions):
        code, globals_ = getattr(function, "__code__", None), getattr(function, "__globals__", {})
        named = [globals_.get(name) for name in (_names_in(code) if code else ())]
        values = [function, *named, *(base for one in named if inspect.isclass(one) for base in one.__mro__)]
        found |= {name for name, adapter in known.items() if any(map(adapter.recognises, values))}
    return found

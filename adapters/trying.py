"""Small typical calls, which tell whether a function or class can be called, and on which library's arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import Raised, noting_interrupts, theirs, told, watched
from nnspec.adapters.claims import parameters
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Refusal, Subject, Unsupported

Watch = Callable[[str, Callable[[], Any]], Any]  # makes a call that is named, or raises Skipped

Fresh = Callable[[str, str, int], bool]  # a block, its function or class, the number of a typical call: does it return?
ASKED = 2  # fresh processes in a row in which a call raised as well
Construction = tuple[
    tuple[int, ...], tuple[int, ...] | None
]  # the constructor's arguments; the shape of x, None: no call
NETWORKS: dict[str, tuple[Construction, ...]] = {  # the classes of blocks that have no form as a function
    "Module": (((), None),),
    "Sequential": (((), None),),
    "MLP": (((1, 1, 1), (1, 1)), ((3, 4, 2), (2, 3)), ((4, 8, 4), (4, 4))),
    "ResidualBlock": (((1, 1), (1, 1, 2, 2)), ((2, 4), (2, 2, 4, 4)), ((3, 3), (2, 3, 6, 6))),
    "ResNet34": (((1, 1), None), ((3, 10), None), ((1, 2), None)),  # a call would cost as much as a check
}
NETWORKS["BasicBlock"] = NETWORKS["ResidualBlock"]


def constructions(stem: str, name: str) -> Iterator[Construction]:
    """Yield how a class of a block is built and called: as the class of its small typical calls."""
    yield from NETWORKS.get(name, ())
    signature = SIGNATURES[stem]
    for shapes, arguments in signature.calls if name in signature.classes else ():
        arrays = {operand: None if shape is None else np.ones(shape) for operand, shape in shapes.items()}
        positional, _ = signature.constructor(arrays, {**signature.arguments, **arguments})
        x = shapes["x"]
        if x is not None and signature.takes(name, len(x)):
            yield positional, x


class Skipped(Exception):
    """The call must not be tried: it ended a process before, or hung."""


def at_once(what: str, call: Callable[[], Any]) -> Any:
    """Make a call, watched by nobody."""
    return call()


class Spoilt(Exception):
    """Since a call every call raises in this process, but not in a fresh one; `str` gives that call."""


@dataclass
class Tried:
    """What the typical calls of one process have come to.

    `fresh` says whether a call returns where nothing was called before. It is asked of a call that raises after another
    one has raised, while none has returned since, and not asked again after it has said no a few times.
    """

    fresh: Fresh | None = None
    first: str = ""  # the first call that raised of those that have raised ever since
    returned: Callable[[], Any] | None = None  # the last call that returned
    asked: int = 0

    def note_return(self, act: Callable[[], Any]) -> None:
        """Remember a call that returned."""
        self.first, self.returned, self.asked = "", act, 0

    def note_raise(self, call: str, known: bool, *about: Any) -> None:
        """Remember a call that raised. Raises Spoilt if it returns in a fresh process; `known` there too."""
        if not self.first:
            self.first = call
        elif self.fresh is not None and known and self.asked < ASKED:
            self.asked += 1
            if self.fresh(*about):
                raise Spoilt(self.first)


def uncallable(
    subject: Subject, blocks: Collection[str] | None, watch: Watch = at_once, tried: Tried | None = None
) -> Subject:
    """Return the subject, which then knows of its blocks (all, or these) those that cannot be called or built.

    Raises Spoilt if `tried` can tell that one of the calls has spoilt the process.
    """
    tried = tried or Tried()
    chosen = [(stem, form) for stem in SIGNATURES if not blocks or stem in blocks for form in subject.forms(stem)]
    refused = {(stem, form): refusal(subject, stem, form, watch, tried) for stem, form in chosen}
    return replace(subject, uncallable={at: refusal for at, refusal in refused.items() if refusal})


def refusal(subject: Subject, stem: str, form: str, watch: Watch, tried: Tried) -> Refusal | None:
    """Return why a block cannot be called, if each of several typical calls raises; None if it can."""
    signature = SIGNATURES[stem]
    names = [str(signature.function)] if form == "function" else [n for n in signature.classes if n in subject.classes]
    try:
        return next(filter(None, (_first(subject, stem, name, watch, tried) for name in names)), None)
    except Spoilt:
        raise
    except Exception:  # a failure of nnspec or of an adapter, which the checks will name
        return None


def typical(subject: Subject, stem: str, name: str) -> Iterator[tuple[Refusal, Callable[[], Any]]]:
    """Yield the typical calls of a function or a class of a block, with what is to be said where they raise."""
    if name == "SGD":
        yield from _optimisers(subject)
        return
    in_form = _function_calls if name == SIGNATURES[stem].function else _constructions
    yield from in_form(subject, stem, name)


def works(subject: Subject, stem: str, watch: Watch = at_once) -> bool:
    """Whether one of several typical calls of a function returns an array of the subject's library."""
    framework, library = subject.framework, subject.framework.name

    def call(act: Callable[[], Any]) -> None:
        results = act()
        first = results[0] if isinstance(results, tuple | list) else results
        framework.to_numpy(first)
        if not getattr(framework, "is_array", lambda _: True)(first):
            raise TypeError("an array of another library, which the framework can read")

    for attempt, act in _function_calls(subject, stem, str(SIGNATURES[stem].function)):
        try:
            watch(f"{attempt.call} with {library}", functools.partial(call, act))
        except Skipped:
            return False
        except (Exception, SystemExit):
            continue
        return True
    return False


def _first(subject: Subject, stem: str, name: str, watch: Watch, tried: Tried) -> Refusal | None:
    """Return the first of several attempts, if the subject's own code raises in each of them."""
    refusals = []
    for number, (attempt, act) in enumerate(typical(subject, stem, name)):
        try:
            with noting_interrupts():
                watch(attempt.call, act)
        except _Stage as stage:
            tried.note_raise(attempt.call, stem not in subject.typical, stem, name, number)
            refusals.append(replace(attempt, sentence=f"cannot be {stage}"))
        except (Unsupported, Skipped):
            return None
        else:
            tried.note_return(act)
            return None
    return refusals[0] if refusals else None


def _function_calls(subject: Subject, stem: str, name: str) -> Iterator[tuple[Refusal, Callable[[], Any]]]:
    dtype = subject.within(stem).dtypes[0]
    for shapes, arguments in subject.calls(stem):
        arrays = {n: None if shape is None else filled(shape, dtype) for n, shape in shapes.items()}
        operands, natives, keywords = subject.operands(stem, arrays, arguments)
        shown = [
            repr(a) if isinstance(a, str) else f"{n}=None" if a is None else n
            for n, a in zip(operands, natives, strict=True)
        ]
        shown += [f"{n}={value!r}" for n, value in keywords.items()]
        called = f"{name}({', '.join(shown)})"

        def act(called: str = called, natives: list[Any] = natives, keywords: dict[str, Any] = keywords) -> Any:
            with _stage(f"called as {called}"):
                return subject.functions[name](*natives, **keywords)

        yield Refusal("", called, arrays, arguments), act


def _built(
    subject: Subject, stem: str, name: str
) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any], tuple[int, ...] | None]]:
    """Yield the arguments of the constructor, and the shape of x: in a domain those of typical calls within it."""
    cls = subject.classes[name]
    if stem not in subject.typical:
        keywords = subject.completed(stem, cls, {})
        for positional, shape in constructions(stem, name):
            yield *_with_own_sizes(subject, stem, cls, positional, keywords), shape
        return
    for shapes, arguments in subject.typical[stem]:
        arrays = {operand: None if shape is None else np.ones(shape) for operand, shape in shapes.items()}
        x = shapes["x"]
        if x is not None and SIGNATURES[stem].takes(name, len(x)):
            positional, keywords, _ = subject.constructor(stem, arrays, arguments)
            yield positional, keywords, x


def _with_own_sizes(
    subject: Subject, stem: str, cls: Any, positional: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a constructor, which has no parameter for a size that has one value in the domain."""
    domain, accepted = subject.domain(stem), parameters(cls)
    sizes = dict(zip(SIGNATURES[stem].sizes, positional, strict=False))
    if accepted is None or not domain.fixed & sizes.keys() - accepted:
        return positional, keywords
    return (), {**{n: size for n, size in sizes.items() if n in accepted - domain.fixed}, **keywords}


def _constructions(subject: Subject, stem: str, name: str) -> Iterator[tuple[Refusal, Callable[[], Any]]]:
    framework = watched(subject.framework)
    dtype = np.dtype(subject.within(stem).dtypes[0])
    cls = subject.classes[name]
    for positional, keywords, shape in _built(subject, stem, name):
        given = [*map(str, positional), *(f"{n}={value!r}" for n, value in keywords.items())]
        built = f"{name}({', '.join(given)})"

        def act(
            positional: tuple[Any, ...] = positional,
            keywords: Mapping[str, Any] = keywords,
            shape: tuple[int, ...] | None = shape,
            built: str = built,
        ) -> None:
            with _stage(f"built as {built}"):
                module = framework.construct(cls, positional, keywords, dtype)
            if shape is not None:
                with _stage(f"called as {built}(x)"):
                    module(framework.to_native(filled(shape, dtype.name)))

        arrays = {} if shape is None else {"x": filled(shape, dtype.name)}
        yield Refusal("", f"{built}(x{shape})" if arrays else built, arrays, built=(name, positional, keywords)), act


def _optimisers(subject: Subject) -> Iterator[tuple[Refusal, Callable[[], Any]]]:
    """Yield the construction of an optimiser of one parameter, which has a step."""
    size = subject.domain("sgd").nearest("elements", 1) or 1
    lines = (f"p = Parameter(to_native(np.ones({size}, np.float32)))", "sgd = SGD([p], lr=1.0)", "sgd.step")
    make, optimiser = subject.classes.get("Parameter"), subject.classes["SGD"]
    if make is None or hasattr(subject.framework, "program"):  # its checks tell that; or it is elsewhere
        return

    def act() -> None:
        with _stage("built as SGD([p], lr=1.0)"):
            made = optimiser([make(subject.framework.to_native(np.ones(size, np.float32)))], lr=1.0)
        with _stage("used as sgd.step()"):
            made.step

    yield Refusal("", "; ".join(lines[1:]), lines=lines), act


class _Stage(Exception):
    """A construction or a call that raised, in words."""


@contextmanager
def _stage(what: str) -> Iterator[None]:
    try:
        with theirs():
            yield
    except Raised as raised:
        raise _Stage(f"{what}: it raises {told(raised.error)}") from None


def filled(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return positive numbers that are not all equal: a variance must not be negative."""
    return (1 + np.arange(math.prod(shape)).reshape(shape) % 3).astype(dtype)

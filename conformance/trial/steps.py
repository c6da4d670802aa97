"""Steps: what a check does to a subject. A step runs, and writes itself down as lines of Python.

The steps of a failing case are its record. The script of a failure is the same steps, written down by a `Replay`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, ClassVar

import numpy as np
from nnspec.adapters.blame import Unusable, theirs
from nnspec.adapters.signatures import (
    COTANGENT,
    SIGNATURES,
    TANGENT,
    Signature,
    cotangents,
    entries,
    operands,
)
from nnspec.adapters.subject import Subject
from nnspec.conformance.case import Case
from nnspec.conformance.layouts import filled
from nnspec.conformance.trial.record import is_complex
from nnspec.conformance.trial.replay import Replay, variable
from nnspec.conformance.trial.source import literal

Arrays = Mapping[str, np.ndarray | None]


@dataclass(eq=False)
class Step:
    """One thing that is done to a subject. `result` is what it gave, None before."""

    kind: ClassVar[str] = ""  # with which the names of its results begin in a script
    makes: ClassVar[bool] = False  # whether its result is a module
    gives: ClassVar[str] = "no exception"  # what is expected of it, for the message where it raises
    done: bool = field(default=False, init=False)
    result: Any = field(default=None, init=False)

    @property
    def note(self) -> str:
        """What it does, for a reader who sees that the process ended there."""
        return str(self)

    def run(self, subject: Subject) -> Any:
        """Do it, and return what the subject gave."""
        raise NotImplementedError

    def lines(self, replay: Replay) -> Iterator[str]:
        """The lines of a script that do it."""
        raise NotImplementedError

    def names(self, number: int) -> dict[str, np.ndarray]:
        """What it gave, by the names that a script has for it; `number` is the step's."""
        return {}

    def writes(self) -> Arrays:
        """The arrays that its lines write out."""
        return {}


@dataclass(eq=False)
class OnCase(Step):
    """A step with arrays of a case. `given` are the very arrays that it hands over; without them it hands over copies.

    A step that hands over the arrays themselves has a copy of them in `case`, in case the subject writes to them.
    """

    case: Case
    given: Case | None = None

    def __str__(self) -> str:
        return str(self.case)

    @property
    def signature(self) -> Signature:
        """How the block is called."""
        return SIGNATURES[self.case.stem]

    @property
    def handed(self) -> Case:
        """The case as the subject gets it."""
        if self.given:
            return self.given
        return self.case.holding({name: None if a is None else np.array(a) for name, a in self.writes().items()})

    def writes(self) -> Arrays:
        """All arrays of the case."""
        return self.case.arrays

    def natives(self) -> dict[str, str]:
        """How a script hands over each array. It copies them too, unless the subject got the arrays themselves."""
        copy = "" if self.given else ".copy()"
        return {
            name: "None" if a is None else f"to_native({variable(name)}{copy})" for name, a in self.writes().items()
        }

    def passed(self, replay: Replay) -> tuple[dict[str, str], dict[str, str]]:
        """The positional operands and the keyword arguments of a function, as Python text."""
        arguments = {name: repr(value) for name, value in self.case.arguments.items()}
        return self.signature.passed(self.natives(), arguments, replay.lacks(self.case.stem))


# -- calls -------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Call(OnCase):
    """A call, of a function or a module. Its result is a tuple of arrays."""

    kind, gives = "result", "a result"
    module: Any = None

    def expression(self, replay: Replay) -> str:
        """The call itself."""
        raise NotImplementedError

    def called(self, subject: Subject, handed: Case) -> tuple[np.ndarray, ...]:
        """Make the call."""
        raise NotImplementedError

    def run(self, subject: Subject) -> tuple[np.ndarray, ...]:
        """Make the call. Results of real operands must be real."""
        handed = self.handed
        self.result = self.called(subject, handed)
        if not any(is_complex(a) for a in handed.arrays.values()):
            for result in filter(is_complex, self.result):
                raise Unusable(f"returned an array of dtype {result.dtype}")
        return self.result

    def names(self, number: int) -> dict[str, np.ndarray]:
        """The first result has a name of its own."""
        if not self.done:
            return {}
        first, *others = self.result
        return {f"result{number}": first, **{f"results{number}[{n}]": a for n, a in enumerate(others, start=1)}}


@dataclass(eq=False)
class CallFunction(Call):
    """A call of a block's function."""

    def called(self, subject: Subject, handed: Case) -> tuple[np.ndarray, ...]:
        """Call the function."""
        return subject.call(handed.stem, "function", handed.arrays, handed.arguments)

    def expression(self, replay: Replay) -> str:
        """function(to_native(x.copy()), …, stride=2)"""
        positional, keywords = self.passed(replay)
        given = [*positional.values(), *(f"{name}={value}" for name, value in keywords.items())]
        return f"{self.signature.function}({', '.join(given)})"

    def lines(self, replay: Replay) -> Iterator[str]:
        """The operands, and the call."""
        yield from replay.operands(self)
        number = replay.number(self)
        if len(self.signature.results) == 1:
            yield f"result = result{number} = to_numpy({self.expression(replay)})"
        else:
            yield f"results{number} = [to_numpy(r) for r in {self.expression(replay)}]"
            yield f"result = result{number} = results{number}[0]"
        yield from replay.first_values(self)


@dataclass(eq=False)
class CallModule(Call):
    """A call of a module. Its further results are entries of the module's state, by the page's keys."""

    further: tuple[str, ...] = ()

    def writes(self) -> Arrays:
        """Its input."""
        return {"x": self.case.arrays["x"]}

    def called(self, subject: Subject, handed: Case) -> tuple[np.ndarray, ...]:
        """Call the module, and read the further results."""
        if self.further:
            return subject.apply(handed.stem, self.module, handed.arrays)
        return (subject.called(self.module, subject.inputs(handed.arrays)),)

    def expression(self, replay: Replay) -> str:
        """layer1(to_native(x.copy()))"""
        return f"{replay.layer(self.module)}({self.natives()['x']})"

    def lines(self, replay: Replay) -> Iterator[str]:
        """Its input, the call, and the further results."""
        yield from replay.operands(self)
        number, layer = replay.number(self), replay.layer(self.module)
        yield f"result = result{number} = to_numpy({self.expression(replay)})"
        if self.further:
            own = replay.roles(self.case, self.module).own({key: key for key in self.further})
            further = "".join(f", read({layer}, {key!r})" for key in own)
            yield f"results{number} = [result{further}]"
        yield from replay.first_values(self)


# -- derivatives -------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Derivatives(OnCase):
    """Derivatives by name. Its result has None where there is no derivative."""

    def found(self) -> dict[str, np.ndarray]:
        """The derivatives that there are."""
        return {name: a for name, a in (self.result or {}).items() if a is not None}

    def names(self, number: int) -> dict[str, np.ndarray]:
        """Each by its name."""
        return {f"{self.kind}{number}[{name!r}]": a for name, a in self.found().items()}

    def kept(self, replay: Replay, derivatives: str) -> str:
        """The line that keeps those that there are, as NumPy's arrays."""
        kept = f"{self.kind} = {self.kind}{replay.number(self)}"
        return f"{kept} = {{n: to_numpy(g) for n, g in {derivatives}.items() if g is not None}}"


@dataclass(eq=False)
class DifferentiateFunction(Derivatives):
    """The gradients of a function for its operands; for these operands alone, where some are `wanted`."""

    kind, gives = "gradient", "gradients"
    wanted: tuple[str, ...] | None = None

    def run(self, subject: Subject) -> dict[str, np.ndarray | None]:
        """Differentiate."""
        handed = self.handed
        self.result = subject.gradients(handed.stem, "function", handed.arrays, handed.arguments, self.wanted)
        return self.result

    def lines(self, replay: Replay) -> Iterator[str]:
        """The operands and cotangents, and the gradients."""
        yield from replay.operands(self)
        positional, keywords = self.passed(replay)
        wanted = self.signature.asked(positional, self.case.arrays, self.wanted)
        differentiate, function = replay.subject.way_back(self.case.stem)
        given = [function, listed(positional), mapped(keywords), repr(wanted), listed(cotangents(self.natives()))]
        yield self.kept(replay, f"dict(zip({tuple(positional)!r}, {differentiate}({', '.join(given)})))")


@dataclass(eq=False)
class DifferentiateModule(Derivatives):
    """The gradients of a module for x and, by the page's keys, for its parameters."""

    kind, gives = "gradient", "gradients"
    module: Any = None
    page: Collection[str] | None = None  # the keys of its entries, where these are not among the arrays
    wanted: tuple[str, ...] | None = None  # where all others are frozen

    def writes(self) -> Arrays:
        """Its input, and the cotangent of its result."""
        return {name: self.case.arrays[name] for name in ("x", COTANGENT)}

    def run(self, subject: Subject) -> dict[str, np.ndarray | None]:
        """Differentiate."""
        handed = self.handed
        self.result = subject.module_gradients(handed.stem, self.module, handed.arrays, self.page, self.wanted)
        return self.result

    def lines(self, replay: Replay) -> Iterator[str]:
        """Its input and the cotangent, and the gradients by the page's keys."""
        yield from replay.operands(self)
        given = ", ".join([replay.layer(self.module), *self.natives().values()])
        roles = replay.roles(self.case, self.module, self.page)
        found = f"differentiate_module({given})"
        if self.wanted is not None:
            found = f"differentiate_part({given}, {[*roles.own(dict.fromkeys(self.wanted))]!r})"
        yield self.kept(replay, roles.renaming(found))


@dataclass(eq=False)
class DifferentiateTwice(Derivatives):
    """Second derivatives of a function, along the tangent of x among the arrays: see `Subject.second`."""

    kind, gives = "second", "second derivatives"

    def run(self, subject: Subject) -> dict[str, np.ndarray]:
        """Differentiate twice."""
        handed = self.handed
        self.result = subject.second(handed.stem, handed.arrays, handed.arguments)
        return dict(self.result)

    def lines(self, replay: Replay) -> Iterator[str]:
        """The operands, and the derivatives."""
        yield from replay.operands(self)
        (positional, keywords), natives = self.passed(replay), self.natives()
        if COTANGENT not in natives:
            given = [str(self.signature.function), listed(positional), mapped(keywords), natives[TANGENT]]
            yield self.kept(replay, f'{{"y": push_forward_twice({", ".join(given)})}}')
            return
        wanted = self.signature.asked(positional, self.case.arrays, None)
        differentiate, function = replay.subject.way_back(self.case.stem, twice=True)
        given = [function, listed(positional), mapped(keywords), repr(wanted), natives[COTANGENT], natives[TANGENT]]
        yield self.kept(replay, f"dict(zip({(COTANGENT, *positional)!r}, {differentiate}({', '.join(given)})))")


# -- modules -----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Build(OnCase):
    """The block as a module, with the case's arrays as its state."""

    makes, gives = True, "a module"

    def writes(self) -> Arrays:
        """The entries of its state, present or not."""
        return {name: a for name, a in operands(self.case.arrays).items() if name != "x"}

    def run(self, subject: Subject) -> Any:
        """Build the module."""
        handed = self.handed
        self.result = subject.build(handed.stem, handed.arrays, handed.arguments)
        return self.result

    def lines(self, replay: Replay) -> Iterator[str]:
        """The entries; the constructor, the entries loaded, and the mode."""
        yield from replay.operands(self)
        case, subject, layer = self.case, replay.subject, f"layer{replay.number(self)}"
        name = subject.class_of(case.stem, case.arrays)
        positional, keywords, training = subject.constructor(case.stem, case.arrays, case.arguments)
        dtype = next(a.dtype.name for a in case.arrays.values() if a is not None)
        yield constructed(layer, name, positional, keywords, dtype)
        own = replay.roles(case, self.result).own({key: variable(key) for key in entries(case.arrays)}, turned)
        if own:
            yield f"load_entries({layer}, {mapped(own)})"
        yield f"set_training({layer}, {training})"


@dataclass(eq=False)
class New(Step):
    """A module as its constructor leaves it."""

    makes, gives = True, "a module"

    name: str  # of the class
    positional: tuple[Any, ...]
    keywords: Mapping[str, Any]
    dtype: str

    def __str__(self) -> str:
        given = [*map(repr, self.positional), *(f"{name}={value!r}" for name, value in self.keywords.items())]
        return f"{self.name}({', '.join(given)})"

    def run(self, subject: Subject) -> Any:
        """Call the constructor."""
        cls, dtype = subject.classes[self.name], np.dtype(self.dtype)
        self.result = subject.framework.construct(cls, self.positional, self.keywords, dtype)
        return self.result

    def lines(self, replay: Replay) -> Iterator[str]:
        """The constructor."""
        layer = f"layer{replay.number(self)}"
        yield constructed(layer, self.name, self.positional, self.keywords, self.dtype)


@dataclass(eq=False)
class OnModule(Step):
    """A step that uses a module which has the entries of a case, or those of a `page`."""

    case: Case
    module: Any
    page: Collection[str] | None = None

    def __str__(self) -> str:
        return str(self.case)

    @property
    def keys(self) -> Collection[str]:
        """The page's keys of the module's entries."""
        return entries(self.case.arrays) if self.page is None else self.page


@dataclass(eq=False)
class SetMode(OnModule):
    """Training mode or evaluation mode."""

    gives = "a change of mode"
    training: bool = True

    @property
    def note(self) -> str:
        """The call."""
        return "train()" if self.training else "eval()"

    def run(self, subject: Subject) -> None:
        """Set the mode."""
        subject.framework.set_training(self.module, self.training)

    def lines(self, replay: Replay) -> Iterator[str]:
        """Set the mode."""
        yield f"set_training({replay.layer(self.module)}, {self.training})"


@dataclass(eq=False)
class SetAttribute(OnModule):
    """A flag of a module set."""

    gives = "a flag set"
    name: str = ""
    value: bool = True

    @property
    def note(self) -> str:
        """The assignment."""
        return f"{self.name} = {self.value}"

    def run(self, subject: Subject) -> None:
        """Set the flag."""
        with theirs():
            setattr(self.module, self.name, self.value)

    def lines(self, replay: Replay) -> Iterator[str]:
        """Set the flag."""
        yield f"{replay.layer(self.module)}.{self.name} = {self.value}"


@dataclass(eq=False)
class ReadState(OnModule):
    """Key -> copy, of what a module has in the roles of the page's keys, and of what else it saves.

    `saved` leaves out what is in a role and not saved.
    """

    kind, gives = "state", "its state"
    saved: bool = False

    @property
    def note(self) -> str:
        """The call."""
        return "state_dict()"

    def run(self, subject: Subject) -> dict[str, np.ndarray]:
        """Read the state."""
        self.result = subject.state(self.case.stem, self.module, self.keys, saved=self.saved)
        return self.result

    def lines(self, replay: Replay) -> Iterator[str]:
        """The state by the page's keys. The module may have other keys, or not save an entry."""
        name, layer = f"state{replay.number(self)}", replay.layer(self.module)
        roles = replay.roles(self.case, self.module, self.keys)
        if self.saved and hasattr(self.module, "state_dict"):  # whatever it saves
            yield f"{name} = {roles.renaming(f'state({layer})')}"
            return
        # of entries without a role, a right module may have none
        own = {page: roles.keys[page] for page in self.result or () if page in roles.keys}
        read = {page: f"read({layer}, {key!r})" for page, key in own.items()}
        yield f"{name} = {mapped({page: turned(r) if page in roles.turned else r for page, r in read.items()})}"

    def names(self, number: int) -> dict[str, np.ndarray]:
        """Each entry by its key."""
        return {f"state{number}[{key!r}]": a for key, a in (self.result or {}).items()}


@dataclass(eq=False)
class RaiseState(OnModule):
    """Every saved entry of a module raised by 1, through the module's own load_state_dict."""

    @property
    def note(self) -> str:
        """The call."""
        return "load_state_dict(…)"

    def run(self, subject: Subject) -> None:
        """Load the raised entries."""
        state = subject.framework.state(self.module)
        raised = {key: subject.to_native(np.asarray(a + np.asarray(1, a.dtype))) for key, a in state.items()}
        with theirs():
            self.module.load_state_dict(raised)

    def lines(self, replay: Replay) -> Iterator[str]:
        """Load the raised entries."""
        layer = replay.layer(self.module)
        raised = f"{{key: to_native(a + np.asarray(1, a.dtype)) for key, a in state({layer}).items()}}"
        yield f"{layer}.load_state_dict({raised})"


@dataclass(eq=False)
class Load(OnModule):
    """Arrays put into a module's parameters and buffers by key: its own `entries`, or what another step read."""

    gives = "a state loaded"
    entries: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """The call."""
        return "load_state_dict(…)"

    def writes(self) -> Arrays:
        """The entries."""
        return self.entries

    def run(self, subject: Subject) -> None:
        """Load the entries."""
        subject.load(self.case.stem, self.module, self.entries, self.keys)

    def lines(self, replay: Replay) -> Iterator[str]:
        """Load what was read, or the entries."""
        layer, read = replay.layer(self.module), replay.state(self.entries)
        roles = replay.roles(self.case, self.module, self.keys)
        if read and not roles.turned and all(roles.keys.get(page, page) == page for page in self.entries):
            yield f"load_entries({layer}, {read})"
            return
        given = {page: f"{read}[{page!r}]" if read else literal(self.entries[page]) for page in self.entries}
        yield f"load_entries({layer}, {mapped(roles.own(given, turned))})"


@dataclass(eq=False)
class Spoil(Step):
    """NaN written into an array that the subject returned."""

    array: np.ndarray

    def __str__(self) -> str:
        return "NaN written into a result"

    def run(self, subject: Subject) -> None:
        """Write."""
        self.array[...] = np.nan

    def lines(self, replay: Replay) -> Iterator[str]:
        """Write."""
        yield f"{replay.place(self.array)}[...] = nan"


@dataclass(eq=False)
class Dirty(Step):
    """Freed memory filled with a number, for arrays of these sizes. Its result ends it."""

    dtype: np.dtype
    sizes: tuple[int, ...]
    value: float

    def __str__(self) -> str:
        return f"freed memory filled with {self.value}"

    def run(self, subject: Subject) -> Callable[[], None]:
        """Fill and free."""
        end: Callable[[], None] = subject.framework.dirty([filled(n, self.dtype, self.value) for n in self.sizes])
        return end

    def lines(self, replay: Replay) -> Iterator[str]:
        """Fill and free."""
        name = self.dtype.name
        dtype = f"np.{name}" if hasattr(np, name) else repr(name)
        signs = "" if np.isnan(self.value) else " * (-1) ** np.arange(n)"
        value = "np.nan" if np.isnan(self.value) else repr(self.value)
        yield f"dirty([(np.full(n, {value}){signs}).astype({dtype}) for n in {self.sizes}])"


def steps_of(form: str, case: Case) -> list[Step]:
    """The steps of one call or derivative, as a case says it. They hand over the case's arrays themselves."""
    backward = any(cotangents(case.arrays))
    if form == "class":
        return [Build(case, case), (DifferentiateModule if backward else CallModule)(case, case)]
    if TANGENT in case.arrays:
        return [DifferentiateTwice(case, case)]
    return [(DifferentiateFunction if backward else CallFunction)(case, case)]


# -- programs ----------------------------------------------------------------------------------------------------------


class Names:
    """The names that the lines of a program have defined."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self.known = {"__name__": "program", "np": np, "copy": copy, "nan": np.nan, "inf": np.inf, **known}

    def run(self, text: str) -> None:
        """Run a line."""
        exec(compiled(text, "exec"), self.known)

    def value(self, text: str) -> Any:
        """Return what an expression gives."""
        return eval(compiled(text, "eval"), self.known)


@dataclass(eq=False)
class Line(Step):
    """A line of Python, run with the names that the lines before it have defined."""

    text: str
    scope: Names = field(default_factory=lambda: Names({}), repr=False)

    def __str__(self) -> str:
        return self.text

    def run(self, subject: Subject) -> None:
        """Run the line."""
        self.scope.run(self.text)

    def lines(self, replay: Replay) -> Iterator[str]:
        """The line itself."""
        yield self.text


@functools.lru_cache(4096)
def compiled(text: str, mode: str) -> CodeType:
    """Return the code of a line ("exec") or an expression ("eval")."""
    code: CodeType = compile(text, "<nnspec program>", mode)
    return code


# -- Python text -------------------------------------------------------------------------------------------------------


def turned(text: str) -> str:
    """Python text for a matrix with rows and columns exchanged."""
    return f"{text}.T"


def listed(texts: Mapping[str, str]) -> str:
    """A list of values, as Python text."""
    return f"[{', '.join(texts.values())}]"


def mapped(texts: Mapping[str, str]) -> str:
    """A mapping from names to values, as Python text."""
    return f"{{{', '.join(f'{name!r}: {text}' for name, text in texts.items())}}}"


def constructed(layer: str, name: str, positional: tuple[Any, ...], keywords: Mapping[str, Any], dtype: str) -> str:
    """The line that makes a module."""
    return f"{layer} = construct({name}, {positional!r}, {dict(keywords)!r}, np.dtype({dtype!r}))"

"""The subject: the implementation under test, as functions and as classes over one array library."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from nnspec.adapters.blame import KnownDefect, Unsupported, Unusable, theirs
from nnspec.adapters.contract import Adapter
from nnspec.adapters.roles import COUNT, Roles, find_roles, has
from nnspec.adapters.signatures import SIGNATURES, Arrays, Signature

FORMS = ("function", "class")
NO_DEFAULT = frozenset({"kernel_size", "equation"})  # arguments that the pages give no default
DERIVATIVES = ("vjp", "vjp of vjp", "jvp")  # what `Subject.lacks` tells of beside operands and arguments


class Lacks(Unsupported):
    """Raised by nnspec where the subject has no such class, argument, member, dtype, form or backward pass.

    Such a lack excuses the requirement. A plain `Unsupported` only declines a case.
    """


class SubjectError(Exception):
    """The subject cannot be put to the checks at all; the message is for the user (exit code 2)."""


@dataclass(frozen=True)
class Refusal:
    """A block that cannot be called or built: a sentence, and the smallest call that was tried."""

    sentence: str
    call: str
    arrays: Mapping[str, np.ndarray | None] = field(default_factory=dict)  # of a function
    arguments: Mapping[str, Any] = field(default_factory=dict)
    script: tuple[str, ...] = ()  # of a class: the lines that build and call it


@dataclass(frozen=True)
class Subject:
    """Functions and classes by canonical name; what a callable's signature lacks counts as unsupported."""

    name: str
    framework: Adapter
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    classes: Mapping[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ("float32", "float64")
    further_dtypes: tuple[str, ...] = ()  # that it has too, and is judged on where they are asked for
    versions: Mapping[str, str] = field(default_factory=dict)
    recipe: Callable[[str], str] = lambda name: f"# import {name} here"  # the line of a script that defines a name
    # weaker classes of accuracy that it declares, beside B: see spec/numerics.md
    accuracy: tuple[str, ...] = ()
    differentiable: bool = True  # False: it has no backward pass, whatever the library can do
    # what it declares: see `declarations`
    unsupported: Mapping[str, str] = field(default_factory=dict)  # identifier or pattern -> reason
    differs: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # identifier -> reason and link
    of_block: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stem -> the fields that differ there
    device: str | None = None  # on which the library makes its arrays; None: where it does if nobody asks
    # of the framework, where the subject declares nothing else
    flushes: bool = False  # whether it treats subnormal numbers as 0
    compiles_per_shape: bool = False  # whether each new shape costs a compilation
    strided: bool = True  # whether it takes arrays of any memory layout; otherwise it gets contiguous copies
    # blocks that cannot be called or built in a form, however typical the call: (stem, form) -> what was tried
    uncallable: Mapping[tuple[str, str], Refusal] = field(default_factory=dict)
    # the roles of each class's entries, for the page's keys that were asked for
    _roles: dict[tuple[Any, frozenset[str]], Roles] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, adapter: Adapter, **fields: Any) -> Subject:
        """Return a subject on an adapter's framework, with the framework's properties where `fields` say nothing."""
        of_framework = {
            "name": adapter.name,
            "versions": adapter.versions(),
            "further_dtypes": adapter.further_dtypes,
            "flushes": adapter.flushes,
            "compiles_per_shape": adapter.compiles_per_shape,
            "strided": adapter.strided,
        }
        return cls(framework=adapter, **{**of_framework, **fields})

    @property
    def forget(self) -> Callable[[], None] | None:
        """Free what was compiled for the shapes of a check that is done; None where nothing is kept."""
        return getattr(self.framework, "forget", None)

    @property
    def known_dtypes(self) -> tuple[str, ...]:
        """All that it can be judged in."""
        return (*self.dtypes, *self.further_dtypes)

    def within(self, stem: str) -> Subject:
        """This subject as it declares itself for one block."""
        return replace(self, **self.of_block[stem]) if stem in self.of_block else self

    def declines_all(self, identifier: str) -> str | None:
        """The reason for which the subject declares a requirement to be unsupported, if it does."""
        found = (reason for pattern, reason in self.unsupported.items() if fnmatchcase(identifier, pattern))
        return next(found, None)

    def forms(self, stem: str) -> tuple[str, ...]:
        """In which forms this subject has a block: none, one or both of "function" and "class"."""
        signature = SIGNATURES[stem]
        has = {
            "function": signature.function in self.functions,
            "class": any(c in self.classes for c in signature.classes),
        }
        return tuple(form for form in FORMS if has[form])

    def lacks(self, stem: str, form: str) -> frozenset[str]:
        """The operands and arguments of a block that the callable's signature does not have; members, and classes.

        Among them "vjp", where nothing differentiates the block, "vjp of vjp", where nothing does so twice, and "jvp",
        where derivatives are not carried forward; and "default of stride", where every call must say the stride.
        """
        signature = SIGNATURES[stem]
        if form == "function":
            assert signature.function is not None
            called = self.functions[signature.function]
            wanted = {*signature.operands[1:], *signature.arguments} - {"equation"}
        else:
            called = cls = self._class(signature)
            absent = frozenset(m for m in signature.members if not hasattr(cls, m))
            absent |= {c for c in signature.classes if c not in self.classes}
            wanted = set(signature.arguments) - {"training", "kernel_size"}
        accepted = parameters(called)
        missing = frozenset() if accepted is None else frozenset(wanted - accepted)
        missing |= {f"default of {name}" for name in required(called) & signature.arguments.keys() - NO_DEFAULT}
        by_vjp, by_jvp = hasattr(self.framework, "vjp"), hasattr(self.framework, "jvp")
        if form == "function":
            own = by_vjp or f"{signature.function}_vjp" in self.functions
        else:
            own = self.differentiates(cls)
        again = by_vjp or f"{signature.function}_vjp_vjp" in self.functions
        for name, has_it in zip(DERIVATIVES, (own, again, by_jvp), strict=True):
            if not (self.differentiable and has_it):
                missing |= {name}
        return missing if form == "function" else missing | absent

    def differentiates(self, cls: Any) -> bool:
        """Return whether a class has a backward pass: the framework's, or its own vjp other than a mere Module's."""
        own = getattr(cls, "vjp", None)
        brought = own is not None and getattr(own, "__qualname__", "") != "Module.vjp"
        by_framework = hasattr(self.framework, "vjp") and hasattr(self.framework, "differentiate_module")
        return self.differentiable and (by_framework or brought)

    def to_native(self, array: np.ndarray) -> Any:
        """Return an array as the framework's own."""
        return self.framework.to_native(array if self.strided else np.array(array, order="C"))

    def call(self, stem: str, form: str, arrays: Arrays, arguments: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        """One call of a block on NumPy arrays; the results as NumPy arrays, in the order of the block's signature."""
        self._avoid_known_defect(stem, arrays, arguments)
        if form == "function":
            return self._call_function(stem, arrays, arguments)
        module, _ = self.build(stem, arrays, arguments)
        return self.apply(stem, module, arrays)

    def _avoid_known_defect(self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]) -> None:
        if hasattr(self.framework, "known_defect") and (defect := self.framework.known_defect(stem, arrays, arguments)):
            raise KnownDefect(defect)

    def gradients(
        self, stem: str, form: str, arrays: Arrays, arguments: Mapping[str, Any], wanted: Collection[str] | None = None
    ) -> dict[str, np.ndarray | None]:
        """Operand -> the gradient by it, None where the subject has none. `wanted`: these operands alone.

        The cotangents of the results are among the arrays; their names begin with "cotangent". In the class form the
        parameters have the keys of the module's state.
        """
        self._avoid_known_defect(stem, arrays, arguments)
        cotangents = {n: a for n, a in arrays.items() if n.startswith("cotangent")}
        operands = {n: a for n, a in arrays.items() if n not in cotangents}
        given = [None if a is None else self.to_native(a) for a in cotangents.values()]
        if form == "class":
            module, [x] = self.build(stem, operands, arguments)
            found = self.framework.differentiate_module(module, x, given[0])
            found = self.roles(stem, type(module), entries(operands)).page(found)
        else:
            names, natives, keywords = self.operands(stem, operands, arguments)
            differentiates = SIGNATURES[stem].differentiates
            chosen = [operands.get(n) is not None and differentiates(n, wanted) for n in names]
            function = SIGNATURES[stem].function
            assert function is not None
            if hasattr(self.framework, "vjp"):
                differentiate, called = self.framework.differentiate, self.functions[function]
            else:
                differentiate, called = self.framework.by_own_vjp, self.functions[f"{function}_vjp"]
            gradients = differentiate(called, natives, keywords, chosen, given)
            found = {n: g for n, g, c in zip(names, gradients, chosen, strict=True) if c}
        return {n: None if g is None else self.framework.to_numpy(g) for n, g in found.items()}

    def second(self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Second derivatives of a function's first result by x, for the `tangent` of x that is among the arrays.

        With a `cotangent`: by the cotangent and each operand, the gradient of Σ tangent · (gradient of x). Without:
        as "y", the second derivative of the result along the tangent. What nothing depends on may be left out.
        """
        operands = {n: a for n, a in arrays.items() if n not in ("tangent", "cotangent")}
        given = {n: self.to_native(a) for n, a in arrays.items() if n not in operands and a is not None}
        names, natives, keywords = self.operands(stem, operands, arguments)
        name, differentiates = SIGNATURES[stem].function, SIGNATURES[stem].differentiates
        assert name is not None
        function = self.functions[name]
        if "cotangent" not in given:
            y = self.framework.push_forward_twice(function, natives, keywords, given["tangent"])
            return {"y": self.framework.to_numpy(y)}
        wanted = [operands.get(n) is not None and differentiates(n, None) for n in names]
        if hasattr(self.framework, "vjp"):
            found = self.framework.differentiate_again(function, natives, keywords, wanted, **given)
        else:
            own = self.functions[f"{name}_vjp_vjp"]
            found = self.framework.by_own_vjp_vjp(own, natives, keywords, wanted, **given)
        named = zip(("cotangent", *names), found, strict=True)
        return {n: self.framework.to_numpy(g) for n, g in named if g is not None}

    def apply(self, stem: str, module: Any, arrays: Arrays) -> tuple[np.ndarray, ...]:
        """One call of a module that has the arrays' entries; what the block's signature says that a call results in."""
        y, further = self.result(module, self.inputs(arrays)), SIGNATURES[stem].results[1:]
        state = self.state(stem, module, entries(arrays)) if further else {}
        if missing := [key for key in further if key not in state]:
            raise Unsupported(f"{type(module).__name__} has no state entry in the role of {missing[0]}")
        return (y, *(state[key] for key in further))

    def result(self, module: Any, operands: Sequence[Any]) -> np.ndarray:
        """What one call of a module gives."""
        with theirs():
            y = module(*operands)
        return self.framework.to_numpy(y)

    def operands(
        self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]
    ) -> tuple[list[str], list[Any], dict[str, Any]]:
        """What a function is called with: the positional operands' names and themselves, and the keywords."""
        lacks = self.lacks(stem, "function")
        natives = {n: None if a is None else self.to_native(a) for n, a in arrays.items() if n not in lacks}
        keywords = {n: v for n, v in arguments.items() if n not in lacks}
        if "equation" in keywords:
            natives = {"equation": keywords.pop("equation"), **natives}
        return list(natives), list(natives.values()), keywords

    def _call_function(self, stem, arrays, arguments) -> tuple[np.ndarray, ...]:
        signature = SIGNATURES[stem]
        assert signature.function is not None
        _, natives, keywords = self.operands(stem, arrays, arguments)
        with theirs():
            results = self.functions[signature.function](*natives, **keywords)
        results = results if isinstance(results, tuple | list) else (results,)
        if len(results) != len(signature.results):
            names = ", ".join(signature.results)
            raise Unusable(f"returned {len(results)} results, expected {len(signature.results)}: {names}")
        return tuple(self.framework.to_numpy(r) for r in results)

    def build(self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]) -> tuple[Any, list[Any]]:
        """A block as a module with the arrays as its state, in the mode that `training` says, and its native inputs."""
        cls = self._class(SIGNATURES[stem], arrays)
        positional, keywords, training = self.constructor(stem, arrays, arguments)
        dtype = next(a.dtype for a in arrays.values() if a is not None)
        module = self.framework.construct(cls, positional, keywords, dtype)
        self.load(stem, module, entries(arrays))
        self._without(stem, module, arrays)
        self.framework.set_training(module, training)
        return module, self.inputs(arrays)

    def _without(self, stem: str, module: Any, arrays: Arrays) -> None:
        """Raise Lacks where a module has an entry that is absent among the arrays, and no argument to leave it out.

        A class that has the argument and keeps the entry all the same only declines the case.
        """
        if not (absent := [n for n, a in arrays.items() if a is None and n in ("weight", "bias")]):
            return
        known = self.roles(stem, type(module), {*entries(arrays), *absent})
        for name in absent:
            if name in known.keys and has(self, module, known.keys[name]):
                accepted = parameters(type(module))
                kind = Unsupported if accepted is None or accepted & {"bias", "affine"} else Lacks
                raise kind(f"{type(module).__name__} always has a {name}")

    # -- entries of a module, by the page's keys -----------------------------------------------------------------------

    def roles(self, stem: str, cls: Any, page: Collection[str], module: Any = None) -> Roles:
        """Which entries of a class have the roles that the page calls so. `module`: a new one, where there is one."""
        found = self._roles.get(key := (cls, frozenset(page)))
        if found is None:
            found = self._roles[key] = find_roles(self, stem, cls, page, module)
        return found

    def known_roles(self, stem: str, arrays: Arrays) -> Roles:
        """The same for the class of a call with these arrays."""
        return self.roles(stem, self._class(SIGNATURES[stem], arrays), entries(arrays))

    def load(
        self, stem: str, module: Any, given: Mapping[str, np.ndarray], page: Collection[str] | None = None
    ) -> None:
        """Put arrays into a module by the page's keys, or its own. Unsupported where it has nothing in a role.

        `page`: the page's keys of all its entries, where not all of them are given.
        """
        page = {key for key in given if not key.endswith(COUNT)} if page is None else page
        known, name = self.roles(stem, type(module), page, module), type(module).__name__
        if absent := [key for key in known.absent if key in given]:
            raise Unsupported(f"{name} has no state entry in the role of {absent[0]}")
        try:
            self.framework.load_entries(module, known.own(given))
        except KeyError as key:
            raise Unsupported(f"{name} has no state entry {key}") from None

    def state(self, stem: str, module: Any, page: Collection[str], *, saved: bool = False) -> dict[str, np.ndarray]:
        """Key -> copy, of a module's entries: those in a role by the page's key, others that it saves by their own.

        `saved` leaves out what is in a role and yet not part of what the module saves.
        """
        stored, known = self.framework.state(module), self.roles(stem, type(module), page, module)
        found = {key: stored[own] for key, own in known.keys.items() if own in stored}
        if not saved or not hasattr(module, "state_dict"):  # where nothing says what is saved, all is
            unsaved = ((key, own) for key, own in known.keys.items() if own not in stored)
            found |= {key: self.framework.read(module, own) for key, own in unsaved if has(self, module, own)}
        if hasattr(module, "state_dict"):
            others = stored
        else:  # nothing says which of its other attributes are part of its state, but for those marked as parameters
            marked = self.framework.held(module)
            others = {key: array for key, array in stored.items() if marked[key].kind == "parameter"}
        roleless = others.keys() - known.keys.values()
        return found | {key: array for key, array in others.items() if key in roleless}

    def inputs(self, arrays: Arrays) -> list[Any]:
        """What a module is called on: native arrays."""
        return [self.to_native(x) for n, x in arrays.items() if n == "x" and x is not None]

    def constructor(
        self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
        """How a block is built as a module: positional and keyword arguments of its class, and the mode."""
        positional, keywords = SIGNATURES[stem].constructor(arrays, arguments)
        training = keywords.pop("training", arguments.get("training", True))
        cls = self._class(SIGNATURES[stem], arrays)
        accepted = parameters(cls)
        accepted_keywords = {n: v for n, v in keywords.items() if accepted is None or n in accepted}
        return positional, self.completed(stem, cls, accepted_keywords), training

    def completed(self, stem: str, cls: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords for a class's constructor, with neutral values of the others that it must be given."""
        neutral = {**SIGNATURES[stem].arguments, "bias": True, "affine": True, "track_running_stats": True}
        must = required(cls) & neutral.keys() - NO_DEFAULT - keywords.keys()
        return {**{name: neutral[name] for name in must}, **keywords}

    def class_of(self, stem: str, arrays: Arrays) -> str:
        """The name of the class that a call of a block would build."""
        cls = self._class(SIGNATURES[stem], arrays)
        return next(name for name, known in self.classes.items() if known is cls)

    def _class(self, signature: Signature, arrays: Arrays | None = None) -> Any:
        names = signature.classes
        x = None if arrays is None else arrays.get("x")
        if x is not None and signature.of_rank:
            own = signature.of_rank.get(x.ndim)
            names = tuple(n for n in names if (n == own if own else n not in signature.of_rank.values()))
        for name in names:
            if name in self.classes:
                return self.classes[name]
        raise Lacks(f"there is no class {' or '.join(names)}")


def entries(arrays: Arrays) -> dict[str, np.ndarray]:
    """The arrays that are a module's entries."""
    return {n: a for n, a in arrays.items() if n != "x" and not n.startswith("cotangent") and a is not None}


def parameters(function: Callable[..., Any]) -> frozenset[str] | None:
    """The names of a callable's parameters; None where it takes any keyword or does not tell."""
    return (_known if isinstance(function, Hashable) else _parameters)(function)[0]


def required(function: Callable[..., Any]) -> frozenset[str]:
    """The names of a callable's parameters that can be passed by keyword and have no default."""
    return (_known if isinstance(function, Hashable) else _parameters)(function)[1]


def _parameters(function: Callable[..., Any]) -> tuple[frozenset[str] | None, frozenset[str]]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None, frozenset()
    by_keyword = (p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    must = frozenset(p.name for p in by_keyword if p.default is p.empty)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return None if takes_any else frozenset(p.name for p in parameters), must


_known = functools.lru_cache(maxsize=1000)(_parameters)  # asked for at every call

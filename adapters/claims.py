"""What a subject has and what it claims: its functions and classes by canonical name, dtypes, accuracy, differences."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self

import numpy as np
from nnspec.adapters.blame import KnownDefect, Lacks
from nnspec.adapters.contract import Adapter
from nnspec.adapters.domains import EVERYTHING, Domain, DomainError, read_domains
from nnspec.adapters.roles import Roles
from nnspec.adapters.signatures import LEADING, SIGNATURES, Arrays, Calls, Signature

FORMS = ("function", "class")
NO_DEFAULT = frozenset({"kernel_size", *LEADING})  # arguments that the pages give no default
DERIVATIVES = ("vjp", "vjp of vjp", "jvp")  # what `Subject.lacks` tells of beside operands and arguments


class SubjectError(Exception):
    """The subject cannot be put to the checks at all; the message is for the user (exit code 2)."""


@dataclass(frozen=True)
class Refusal:
    """A block that cannot be called or built: a sentence, and the smallest call that was tried."""

    sentence: str
    call: str
    arrays: Mapping[str, np.ndarray | None] = field(default_factory=dict)  # none where a class cannot be built
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of a function
    # of a class: its name, and the arguments of its constructor
    built: tuple[str, tuple[Any, ...], Mapping[str, Any]] | None = None
    lines: tuple[str, ...] = ()  # of Python, that make the call, where it is neither
    holds: str = ""  # what is false of the result, in Python, if the call returns


class Difference(NamedTuple):
    """How a subject answers a convention by design."""

    reason: str
    link: str = ""
    alternative: str = ""  # by the name that the page gives it; empty: one without a name

    def __str__(self) -> str:
        return " ".join(filter(None, (self.alternative and f"{self.alternative}:", self.reason, self.link)))


@dataclass(frozen=True)
class Claims:
    """Functions and classes by canonical name. An argument that a callable's signature lacks is unsupported."""

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
    differs: Mapping[str, Difference] = field(default_factory=dict)  # identifier -> how it answers a convention
    of_block: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stem -> the fields that differ there
    result_dtype: str = ""  # of a block's results, where it is not that of the operands
    domains: Mapping[str, Domain] = field(default_factory=dict)  # stem -> the calls for which it claims to work
    typical: Mapping[str, Calls] = field(default_factory=dict)  # stem -> small calls within its domain, if it has one
    device: str | None = None  # on which the library makes its arrays; None: where it does if nobody asks
    # of the framework, where the subject declares nothing else
    flushes: bool = False  # whether it treats subnormal numbers as 0
    compiles_per_shape: bool = False  # whether each new shape costs a compilation
    tiles: tuple[int, ...] = ()  # the sizes of its tiles, around which sizes are drawn too
    strided: bool = True  # whether it takes arrays of any memory layout; otherwise it gets contiguous copies
    # blocks that cannot be called or built in a form, however typical the call: (stem, form) -> what was tried
    uncallable: Mapping[tuple[str, str], Refusal] = field(default_factory=dict)
    # the roles of each class's entries, for the page's keys that were asked for
    _roles: dict[tuple[Any, frozenset[str]], Roles] = field(default_factory=dict, repr=False, compare=False)
    # by block and form what it lacks, which is asked for at every call; a subject with other claims finds it anew
    _lacks: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, adapter: Adapter, **fields: Any) -> Self:
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
        """Return all dtypes in which the subject can be checked."""
        return (*self.dtypes, *self.further_dtypes)

    def within(self, stem: str) -> Self:
        """Return this subject with the claims that it makes for one block."""
        own, domain = dict(self.of_block.get(stem, {})), self.domain(stem)
        own |= {"dtypes": domain.dtypes, "further_dtypes": ()} if domain.dtypes else {}
        own |= {"result_dtype": domain.result} if domain.result else {}
        return replace(self, **own) if own else self

    def restricted(self, domains: Mapping[str, Mapping[str, Any]]) -> Self:
        """Return this subject with further conditions: block -> quantity -> condition, as in DOMAIN.

        Raises DomainError for what cannot be declared, and for a block that the subject does not have.
        """
        found = read_domains(domains, self.domains)
        for stem in domains:
            if not self.forms(stem):
                raise DomainError(f"{stem}: {self.name} has no such block")
        return replace(self, domains=found)

    def calls(self, stem: str) -> Calls:
        """Return small typical calls of a block, within its domain."""
        return self.typical.get(stem) or SIGNATURES[stem].calls

    def domain(self, stem: str) -> Domain:
        """Return the calls of a block for which this subject claims to work."""
        return self.domains.get(stem, EVERYTHING)

    def declines_all(self, identifier: str) -> str | None:
        """Return why the subject declares a requirement to be unsupported; None if it does not."""
        found = (reason for pattern, reason in self.unsupported.items() if fnmatchcase(identifier, pattern))
        return next(found, None)

    def forms(self, stem: str) -> tuple[str, ...]:
        """Return the forms in which this subject has a block: none, one or both of "function" and "class"."""
        signature = SIGNATURES[stem]
        has = {
            "function": signature.function in self.functions,
            "class": any(getattr(self.classes.get(c), "nnspec_judges", c in self.classes) for c in signature.classes),
        }
        return tuple(form for form in FORMS if has[form])

    def lacks(self, stem: str, form: str) -> frozenset[str]:
        """Return the operands and arguments of a block that the callable's signature lacks; members, and classes.

        Among them "vjp", where nothing differentiates the block, "vjp of vjp", where nothing does so twice, and "jvp",
        where derivatives are not carried forward; and "default of stride", where every call must say the stride.
        """
        found = self._lacks.get((stem, form))
        if found is None:
            found = self._lacks[stem, form] = self._find_lacks(stem, form)
        return found

    def _find_lacks(self, stem: str, form: str) -> frozenset[str]:
        signature = SIGNATURES[stem]
        if form == "function":
            assert signature.function is not None
            called = self.functions[signature.function]
            wanted = {*signature.operands[1:], *signature.arguments} - {*LEADING}
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
            own = by_vjp or signature.vjp in self.functions
        else:
            own = self.differentiates(cls)
        again = by_vjp or signature.vjp_vjp in self.functions
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

    def _avoid_known_defect(self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]) -> None:
        if hasattr(self.framework, "known_defect") and (defect := self.framework.known_defect(stem, arrays, arguments)):
            raise KnownDefect(defect)

    def class_of(self, stem: str, arrays: Arrays) -> str:
        """Return the name of the class that a call of a block builds."""
        cls = self._class(SIGNATURES[stem], arrays)
        return next(name for name, known in self.classes.items() if known is cls)

    def _class(self, signature: Signature, arrays: Arrays | None = None) -> Any:
        names = signature.classes
        x = None if arrays is None else arrays.get("x")
        if x is not None:
            names = tuple(name for name in names if signature.takes(name, x.ndim))
        for name in names:
            if name in self.classes:
                return self.classes[name]
        raise Lacks(f"there is no class {' or '.join(names)}")


def parameters(function: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names of a callable's parameters; None if it takes any keyword or has no signature."""
    return (_known if isinstance(function, Hashable) else _parameters)(function)[0]


def required(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of a callable's parameters that can be passed by keyword and have no default."""
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

"""A program in any language as a subject: it answers requests over standard input and output (spec/protocol.md)."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from nnspec.adapters.blame import Ended, Unsupported, Unusable
from nnspec.adapters.claims import NO_DEFAULT
from nnspec.adapters.contract import Adapter
from nnspec.adapters.declarations import ENTRIES, READERS, declared
from nnspec.adapters.names import command_of, nearest
from nnspec.adapters.program import Gone, Program
from nnspec.adapters.protocol import VERSION, Ask, WrongAnswer, called, differentiated
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject, SubjectError

STARTING = 60.0  # seconds in which a program tells its capabilities
ABOUT = ("name", "version", "blocks")  # capabilities that declare nothing
OF_BLOCK = ("takes", *(name.lower() for name in READERS if name != "STRIDED"))  # arrays cross without strides


class Refused(Exception):
    """The program refuses the call, for the reason that it gave."""


class Process(Adapter):
    """NumPy arrays, which cross to a program and back."""

    name = "process"
    preamble = "import json\nimport subprocess\nfrom math import prod"

    def to_native(self, array: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return array

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return the array itself."""
        if not isinstance(value, np.ndarray):
            raise TypeError("the answer has no array of the result's name")
        return value

    def versions(self) -> dict[str, str]:
        """Return the version of the protocol."""
        return {"protocol": str(VERSION)}


def program_subject(title: str) -> Subject:
    """Return the subject that a program is, by its title "process:COMMAND".

    Raises SubjectError where the program cannot be started or does not tell its capabilities.
    """
    command, folder = command_of(title), os.getcwd()
    program = Program(command, folder)
    told = _capabilities(title, program)
    names, adapter = _declarations(title, told), Process()
    functions: dict[str, Callable[..., Any]] = {}
    recipes: dict[str, str] = {}
    for stem, own in told["blocks"].items():
        signature, name = SIGNATURES[stem], str(SIGNATURES[stem].function)
        taken = {*_may_lack(stem)} if own.get("takes") is None else {*own["takes"]}
        operands = tuple(n for n in signature.operands if n in taken or n not in _may_lack(stem))
        given = (stem, operands, signature.results)
        functions[name] = called(_asking(program), *given)
        functions[name].__signature__ = _signature(stem, operands, taken)  # type: ignore[attr-defined]
        recipes[name] = f"called(ask, {', '.join(map(repr, given))})"
        if own.get("gradients", True):
            functions[signature.vjp] = differentiated(_asking(program), *given)
            recipes[signature.vjp] = f"differentiated(ask, {', '.join(map(repr, given))})"
    program_version = " ".join(str(told[key]) for key in ("name", "version") if key in told)
    versions = {"program": program_version} if program_version else {}
    return Subject.of(
        adapter,
        name=title,
        functions=functions,
        versions=adapter.versions() | versions,
        recipe=lambda name: f"ask = asking({command!r}, {folder!r})\n{name} = {recipes[name]}",
        **declared(names, title),
    )


def _asking(program: Program) -> Ask:
    """Return a function that asks a program. What the program does wrong is the subject's failure."""

    def ask(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            answer, found = program.ask(header, arrays)
        except Gone as gone:
            raise Ended(f"the call {gone}", "crash") from None
        except WrongAnswer as wrong:
            raise Ended(f"the program {wrong}", "fail") from None
        except OSError as error:
            raise Ended(f"the program could not be started again: {error.strerror}", "crash") from None
        if "refused" in answer:
            raise Refused(answer["refused"])
        if "unsupported" in answer:
            raise Unsupported(answer["unsupported"])
        if "arrays" not in answer:
            raise Unusable(f"answered {header['request']} with its capabilities, expected arrays")
        return found

    return ask


def _capabilities(title: str, program: Program) -> dict[str, Any]:
    """Return what the program says of itself, which has some of nnspec's blocks."""
    try:
        answer, _ = program.ask({"request": "capabilities"}, {}, STARTING)
    except Gone as gone:
        raise SubjectError(f"{title}: the request for its capabilities {gone}") from None
    except WrongAnswer as wrong:
        raise SubjectError(f"{title}: asked for its capabilities, it {wrong}") from None
    except TimeoutError:
        raise SubjectError(f"{title}: did not tell its capabilities within {STARTING:g} s") from None
    except OSError as error:
        raise SubjectError(f"{title}: cannot be started: {error.strerror or error}") from None
    told = answer.get("capabilities")
    told = told if isinstance(told, dict) else {}
    if not isinstance(told.get("blocks"), dict) or not told["blocks"]:
        raise SubjectError(f'{title}: asked for its capabilities, it answered none: expected {{"blocks": …}}')
    _check(title, told)
    return told


def _check(title: str, told: Mapping[str, Any]) -> None:
    """Raise SubjectError for capabilities that nnspec does not know."""
    known = [stem for stem, signature in SIGNATURES.items() if signature.function]
    for stem, own in told["blocks"].items():
        if stem not in known:
            raise SubjectError(
                f"{title}: {stem!r} is no block{nearest(stem, known)}; expected some of {', '.join(known)}"
            )
        if not isinstance(own, dict):
            raise SubjectError(f"{title}: {stem}: {own!r}: expected an object, such as {{}}")
        _check_known(f"{title}: {stem}", own, OF_BLOCK)
        _check_known(f"{title}: {stem}: takes", own.get("takes", ()), _may_lack(stem))
    _check_known(title, told, (*ABOUT, *(name.lower() for name in ENTRIES)))


def _check_known(where: str, names: Any, known: Any) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        expected = ", ".join(known) or "none"
        raise SubjectError(f"{where}: {unknown[0]!r}{nearest(str(unknown[0]), known)}; expected some of {expected}")


def _may_lack(stem: str) -> tuple[str, ...]:
    """Return the operands and arguments that a program need not take."""
    signature = SIGNATURES[stem]
    absent = {name for shapes, _ in signature.calls for name, shape in shapes.items() if shape is None}
    return (*(n for n in signature.operands if n in absent), *(n for n in signature.arguments if n not in NO_DEFAULT))


def _declarations(title: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the capabilities declare, under the names that a file has for it."""
    names: dict[str, Any] = {name: told[name.lower()] for name in ENTRIES if name.lower() in told}
    for stem, own in told["blocks"].items():
        for name in READERS:
            if name.lower() in own:
                names.setdefault(name, {})[stem] = own[name.lower()]
    return names


def _signature(stem: str, operands: Sequence[str], taken: Collection[str]) -> inspect.Signature:
    """Return the signature of a block's function, with the operands and arguments that the program takes."""
    kinds, arguments = inspect.Parameter, [n for n in SIGNATURES[stem].arguments if n in taken or n in NO_DEFAULT]
    if not operands:  # an equation, and any number of them
        return inspect.Signature([kinds("operands", kinds.VAR_POSITIONAL)])
    required = {*NO_DEFAULT, *operands} - {*_may_lack(stem)}
    return inspect.Signature(
        [
            kinds(name, kind, default=kinds.empty if name in required else None)
            for names, kind in ((operands, kinds.POSITIONAL_OR_KEYWORD), (arguments, kinds.KEYWORD_ONLY))
            for name in names
        ]
    )

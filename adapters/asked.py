"""Subjects whose functions ask: a program that runs beside nnspec, or answers that lie in a folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from nnspec.adapters.blame import Ended, Unsupported, Unusable
from nnspec.adapters.claims import NO_DEFAULT
from nnspec.adapters.contract import Adapter
from nnspec.adapters.declarations import ENTRIES, READERS
from nnspec.adapters.names import nearest
from nnspec.adapters.program import Gone, Program
from nnspec.adapters.protocol import Ask, WrongAnswer, called, differentiated
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import SubjectError

OF_BLOCK = ("takes", "domain", *(name.lower() for name in READERS if name != "STRIDED"))  # arrays cross without strides
DECLARED = tuple(name.lower() for name in ENTRIES)  # beside the blocks


class Refused(Exception):
    """The subject refuses the call, for the reason that it gave."""


class Asked(Adapter):
    """NumPy arrays, which cross to something else and back, one call after the other."""

    concurrent = False

    def to_native(self, array: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return array

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return the array itself."""
        if not isinstance(value, np.ndarray):
            raise TypeError("the answer has no array of the result's name")
        return value


class Channel:
    """A program that answers: what goes wrong there is the subject's failure."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def ask(
        self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the header and the arrays of an answer that has results."""
        try:
            answer, found = self.program.ask(header, arrays)
        except Gone as gone:
            raise Ended(f"the call {gone}", "crash") from None
        except WrongAnswer as wrong:
            raise self.wrong(wrong) from None
        except OSError as error:
            raise Ended(f"the program could not be started again: {error.strerror}", "crash") from None
        if reason := self.refusal(answer):
            raise reason
        if "arrays" not in answer:
            raise Unusable(f"answered {header['request']} with its capabilities, expected arrays")
        return answer, found

    def wrong(self, error: WrongAnswer) -> Ended:
        """Return what is to be said of an answer that is none."""
        return Ended(f"the program {error}", "fail")

    def refusal(self, answer: Mapping[str, Any]) -> Exception | None:
        """Return what an answer without results means; None for one with results."""
        if "refused" in answer:
            return Refused(answer["refused"])
        return Unsupported(answer["unsupported"]) if "unsupported" in answer else None


Functions = dict[str, Callable[..., Any]]


def functions(ask: Ask, blocks: Mapping[str, Mapping[str, Any]]) -> tuple[Functions, dict[str, str]]:
    """Return the functions of blocks and their vjps, by name, and the expressions of a script that make each of `ask`.

    `blocks` has what is declared about each block: the operands and arguments that it takes, and if it has gradients.
    """
    found: Functions = {}
    sources: dict[str, str] = {}
    for stem, own in blocks.items():
        signature, name = SIGNATURES[stem], str(SIGNATURES[stem].function)
        taken = {*may_lack(stem)} if own.get("takes") is None else {*own["takes"]}
        operands = tuple(n for n in signature.operands if n in taken or n not in may_lack(stem))
        given = (stem, operands, signature.results)
        found[name] = called(ask, *given)
        found[name].__signature__ = _signature(stem, operands, taken)  # type: ignore[attr-defined]
        sources[name] = f"called(ask, {', '.join(map(repr, given))})"
        if own.get("gradients", True):
            found[signature.vjp] = differentiated(ask, *given)
            sources[signature.vjp] = f"differentiated(ask, {', '.join(map(repr, given))})"
    return found, sources


def may_lack(stem: str) -> tuple[str, ...]:
    """Return the operands and arguments of a block that need not be taken."""
    signature = SIGNATURES[stem]
    absent = {name for shapes, _ in signature.calls for name, shape in shapes.items() if shape is None}
    return (*(n for n in signature.operands if n in absent), *(n for n in signature.arguments if n not in NO_DEFAULT))


def _signature(stem: str, operands: Sequence[str], taken: Collection[str]) -> inspect.Signature:
    """Return the signature of a block's function, with the operands and arguments that it takes."""
    kinds, arguments = inspect.Parameter, [n for n in SIGNATURES[stem].arguments if n in taken or n in NO_DEFAULT]
    if not operands:  # an equation, and any number of them
        return inspect.Signature([kinds("operands", kinds.VAR_POSITIONAL)])
    required = {*NO_DEFAULT, *operands} - {*may_lack(stem)}
    return inspect.Signature(
        [
            kinds(name, kind, default=kinds.empty if name in required else None)
            for names, kind in ((operands, kinds.POSITIONAL_OR_KEYWORD), (arguments, kinds.KEYWORD_ONLY))
            for name in names
        ]
    )


def check_blocks(title: str, blocks: Mapping[str, Any]) -> None:
    """Raise SubjectError for blocks that have no form as a function, and for what cannot be declared about one."""
    known = [stem for stem, signature in SIGNATURES.items() if signature.function]
    for stem, own in blocks.items():
        if stem not in known:
            raise SubjectError(
                f"{title}: {stem!r} is no block{nearest(stem, known)}; expected some of {', '.join(known)}"
            )
        if not isinstance(own, dict):
            raise SubjectError(f"{title}: {stem}: {own!r}: expected an object, such as {{}}")
        check_known(f"{title}: {stem}", own, OF_BLOCK)
        check_known(f"{title}: {stem}: takes", own.get("takes", ()), may_lack(stem))


def check_known(where: str, names: Any, known: Collection[str]) -> None:
    """Raise SubjectError for the first name that is not among those known."""
    unknown = [name for name in names if name not in known]
    if unknown:
        expected = ", ".join(known) or "none"
        raise SubjectError(f"{where}: {unknown[0]!r}{nearest(str(unknown[0]), known)}; expected some of {expected}")


def declarations(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what blocks, and what stands beside them, declare, under the names that a file has for it."""
    names: dict[str, Any] = {name: told[name.lower()] for name in ENTRIES if name.lower() in told}
    for stem, own in told["blocks"].items():
        for name in (*READERS, "DOMAIN"):
            if name.lower() in own:
                names.setdefault(name, {})[stem] = own[name.lower()]
    return names

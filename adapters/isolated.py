"""A user's file in a process of its own. It answers requests as spec/protocol.md says, and holds adapters alone.

    python -P -m nnspec.adapters.isolated '["my_layers.py", null, null]'     # subject, framework, device

Neither the reference nor a check is loaded here. Beside the protocol, operands may lie in shared memory, where the
process that asks sees writes to them, and each answer tells what has become of the results before it.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from nnspec.adapters.asked import may_lack
from nnspec.adapters.blame import Lacks, Raised, Unsupported, Unusable, told, watched
from nnspec.adapters.crossing import flat_error
from nnspec.adapters.domains import Domain
from nnspec.adapters.keeping import Keeper
from nnspec.adapters.loading import load
from nnspec.adapters.memory import place_in, shared
from nnspec.adapters.names import parts
from nnspec.adapters.protocol import packed, size_of, unpacked
from nnspec.adapters.signatures import COTANGENT, SIGNATURES
from nnspec.adapters.subject import Subject, SubjectError

JUDGES = ("nnspec.reference", "nnspec.conformance")  # what a file has no need of
FIELDS = ("dtypes", "further_dtypes", "accuracy", "unsupported", "flushes", "compiles_per_shape", "strided", "tiles")

CALLS = ("forward", "gradients")  # requests of the protocol

Header = Mapping[str, Any]
Arrays = dict[str, np.ndarray]


class Server:
    """A subject that answers requests."""

    def __init__(self, subject: Subject) -> None:
        self.framework: Any = watched(subject.framework)
        self.subject = replace(subject, framework=cast(Any, self.framework))
        self.keeper = Keeper(self.subject)
        self.blocks = [stem for stem in SIGNATURES if "function" in subject.forms(stem)]
        self.earlier: list[tuple[str, np.ndarray, bytes]] = []  # results of the last call, and what was told of them
        self.end: Callable[[], None] = lambda: None  # ends what `dirty` changed

    def answer(self, header: Header, piped: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Return the header and the arrays of the answer to a request."""
        kind = header["request"]
        if kind == "capabilities":
            return {"capabilities": self.capabilities()}, {}
        if kind == "dirty":
            self.end()
            self.end = self.framework.dirty([*piped.values()])
            return {}, {}
        if kind == "clean":
            self.end()
            self.end = lambda: None
            return {}, {}
        self.keeper.free(header.get("freed", []))
        self.take_over(piped)
        operands = piped | (shared(header["memory"]) if "memory" in header else {})
        try:
            return self.answered(header, operands)
        except Unsupported as reason:
            about = {"lacks": True} if isinstance(reason, Lacks) else {}
            return {"unsupported": str(reason) or type(reason).__name__, **about}, {}
        except Unusable as reason:
            return {"unusable": str(reason)}, {}
        except Raised as raised:
            return {"refused": told(raised.error), "raised": flat_error(raised.error)}, {}
        except KeyError as key:  # how an adapter says that there is no such entry
            return {"absent": str(key.args[0]) if key.args else ""}, {}

    def take_over(self, piped: Arrays) -> None:
        """Change the results of the last call as the process that asks has changed them."""
        for number, (name, array, _) in enumerate(self.earlier):
            if (changed := piped.pop(f"earlier {name}", None)) is not None and array.flags.writeable:
                array[...] = changed
                self.earlier[number] = (name, array, array.tobytes())

    def answered(self, header: Header, operands: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Return the answer to a request for results, or for what only objects have."""
        if header["request"] == "module":
            found: dict[str, np.ndarray | None] = {**self.keeper.called(header, operands)}
        elif header["request"] == "module gradients":
            found = self.keeper.gradients(header, operands)
        elif header["request"] in CALLS:
            found = {**self.called(header, operands)}
        else:
            return self.keeper.answer(header, operands)
        present = {name: a for name, a in found.items() if a is not None}
        before = {f"earlier {n}": a for n, a, bits in self.earlier if a.tobytes() != bits}
        self.earlier = [(name, a, a.tobytes()) for name, a in present.items()]
        inside = {n: place for n, a in present.items() if (place := place_in(a, operands))}
        return {"inside": inside, "none": [n for n, a in found.items() if a is None]}, present | before

    def called(self, header: Header, operands: Arrays) -> Arrays:
        """Make a call, or differentiate one; return the results or gradients by name."""
        stem, arguments = header["block"], {n: as_given(v) for n, v in header["arguments"].items()}
        signature = SIGNATURES[stem]
        arrays: dict[str, Any] = {n: operands.get(n) for n in signature.operands} if signature.operands else {}
        arrays |= {n: a for n, a in operands.items() if not n.startswith(COTANGENT)}
        for number, name in enumerate([COTANGENT, *(f"{COTANGENT}_{n}" for n in signature.results[1:])]):
            if name in operands:
                arrays[f"{COTANGENT}{number or ''}"] = operands[name]
        subject = self.subject.within(stem)
        if header["request"] == "gradients":
            gradients = subject.gradients(stem, "function", arrays, arguments)
            return {n: a for n, a in gradients.items() if a is not None}
        return dict(zip(signature.results, subject.call(stem, "function", arrays, arguments), strict=True))

    def capabilities(self) -> dict[str, Any]:
        """Return the blocks with what each of them lacks, and what the subject declares."""
        claims = {name: getattr(self.subject, name) for name in FIELDS}
        hooks = [name for name in ("surroundings", "dirty") if hasattr(self.framework, name)]
        return {
            "blocks": {stem: self.of_block(stem) for stem in self.blocks},
            "objects": self.keeper.told(),
            "versions": dict(self.subject.versions),
            "claims": claims | {"of_block": {stem: dict(own) for stem, own in self.subject.of_block.items()}},
            "differs": {name: [*difference] for name, difference in self.subject.differs.items()},
            "domains": {stem: _domain(own) for stem, own in self.subject.domains.items()},
            "hooks": hooks,
        }

    def of_block(self, stem: str) -> dict[str, Any]:
        """Return which operands and arguments a block takes, which have no default, and if it has gradients."""
        lacks = self.subject.within(stem).lacks(stem, "function")
        required = [n for n in may_lack(stem) if f"default of {n}" in lacks]
        takes = [n for n in may_lack(stem) if n not in lacks]
        return {"takes": takes, "required": required, "gradients": "vjp" not in lacks}


def _domain(domain: Domain) -> dict[str, Any]:
    """Return a domain as a file declares it, each condition as text."""
    declared: dict[str, Any] = {name: str(condition) for name, condition in domain.conditions.items()}
    return declared | {n: v for n, v in (("dtype", domain.dtypes), ("result", domain.result)) if v}


def as_given(value: Any) -> Any:
    """Return an argument as a call has it: a list of the header is a tuple."""
    return tuple(map(as_given, value)) if isinstance(value, list) else value


def uses_judges(name: str) -> bool:
    """Return whether a file imports what judges it, at once or in one of its functions."""
    if any(module.startswith(JUDGES) for module in sys.modules):
        return True
    try:
        nodes = list(ast.walk(ast.parse(Path(parts(name)[0]).read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return False
    imported = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return any(module.startswith(JUDGES) for module in imported)


def serve(server: Server | str, requests: BinaryIO, answers: BinaryIO, uses: bool) -> None:
    """Answer requests until there are none. `server` is a sentence where the subject cannot be loaded."""
    while line := requests.readline():
        header = json.loads(line)
        piped = unpacked(header["arrays"], requests.read(size_of(header["arrays"])))
        answer, arrays = ({"refused": server}, {}) if isinstance(server, str) else server.answer(header, piped)
        if "capabilities" in answer:
            answer["capabilities"]["uses nnspec"] = uses
        message = packed(answer, arrays)
        if answer.keys() & {"refused", "unsupported", "capabilities"}:  # an answer has one key of these
            message = json.dumps({"nnspec": 1, **answer}).encode() + b"\n"
        answers.write(message)
        answers.flush()


def main() -> None:
    """Load the subject, and answer."""
    name, framework, device = json.loads(sys.argv[1])
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the file prints is no answer
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    server: Server | str
    try:
        server = Server(load(name, framework, device))
    except SubjectError as error:
        server = str(error)
    serve(server, requests, answers, uses_judges(name))


if __name__ == "__main__":
    main()

"""A user's file in a process of its own. It answers requests as spec/protocol.md says, and holds adapters alone.

    python -P -m nnspec.adapters.isolated '["my_layers.py", null, null]'     # subject, framework, device

Neither the reference nor a check is loaded here. Beside the protocol, operands may lie in shared memory, where the
process that asks sees writes to them, and each answer tells what has become of the results before it.
"""

from __future__ import annotations

import ast
import json
import mmap
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from nnspec.adapters.asked import may_lack
from nnspec.adapters.blame import Raised, Unsupported, Unusable, told, watched
from nnspec.adapters.domains import Domain
from nnspec.adapters.loading import load
from nnspec.adapters.names import parts
from nnspec.adapters.protocol import packed, size_of, unpacked
from nnspec.adapters.signatures import COTANGENT, SIGNATURES
from nnspec.adapters.subject import Subject, SubjectError

JUDGES = ("nnspec.reference", "nnspec.conformance")  # what a file has no need of
FIELDS = ("dtypes", "further_dtypes", "accuracy", "unsupported", "flushes", "compiles_per_shape", "strided", "tiles")

Header = Mapping[str, Any]
Arrays = dict[str, np.ndarray]


class Server:
    """A subject that answers requests."""

    def __init__(self, subject: Subject) -> None:
        self.framework: Any = watched(subject.framework)
        self.subject = replace(subject, framework=cast(Any, self.framework))
        self.forms = {stem: form for stem in SIGNATURES if (form := form_of(subject, stem))}
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
        operands = shared(header["memory"]) if "memory" in header else piped
        try:
            found = self.called(header, operands)
        except Unsupported as reason:
            return {"unsupported": str(reason) or type(reason).__name__}, {}
        except Unusable as reason:
            return {"unusable": str(reason)}, {}
        except Raised as raised:
            return {"refused": told(raised.error)}, {}
        before = {f"earlier {n}": a for n, a, bits in self.earlier if a.tobytes() != bits}
        self.earlier = [(name, a, a.tobytes()) for name, a in found.items()]
        inside = {n: place for n, a in found.items() if (place := place_in(a, operands))}
        return {"inside": inside}, found | before

    def called(self, header: Header, operands: Arrays) -> Arrays:
        """Make a call, or differentiate one; return the results or gradients by name."""
        stem, arguments = header["block"], {n: as_given(v) for n, v in header["arguments"].items()}
        signature, form = SIGNATURES[stem], self.forms[header["block"]]
        arrays: dict[str, Any] = {n: operands.get(n) for n in signature.operands} if signature.operands else {}
        arrays |= {n: a for n, a in operands.items() if not n.startswith(COTANGENT)}
        for number, name in enumerate([COTANGENT, *(f"{COTANGENT}_{n}" for n in signature.results[1:])]):
            if name in operands:
                arrays[f"{COTANGENT}{number or ''}"] = operands[name]
        subject = self.subject.within(stem)
        if header["request"] == "gradients":
            gradients = subject.gradients(stem, form, arrays, arguments)
            return {n: a for n, a in gradients.items() if a is not None}
        return dict(zip(signature.results, subject.call(stem, form, arrays, arguments), strict=True))

    def capabilities(self) -> dict[str, Any]:
        """Return the blocks with what each of them lacks, and what the subject declares."""
        claims = {name: getattr(self.subject, name) for name in FIELDS}
        hooks = [name for name in ("surroundings", "dirty") if hasattr(self.framework, name)]
        return {
            "blocks": {stem: self.of_block(stem) for stem in self.forms},
            "versions": dict(self.subject.versions),
            "claims": claims | {"of_block": {stem: dict(own) for stem, own in self.subject.of_block.items()}},
            "differs": {name: [*difference] for name, difference in self.subject.differs.items()},
            "domains": {stem: _domain(own) for stem, own in self.subject.domains.items()},
            "hooks": hooks,
        }

    def of_block(self, stem: str) -> dict[str, Any]:
        """Return which operands and arguments a block takes, which have no default, and if it has gradients."""
        lacks = self.subject.within(stem).lacks(stem, self.forms[stem])
        required = [n for n in may_lack(stem) if f"default of {n}" in lacks]
        takes = [n for n in may_lack(stem) if n not in lacks]
        return {"takes": takes, "required": required, "gradients": "vjp" not in lacks}


def _domain(domain: Domain) -> dict[str, Any]:
    """Return a domain as a file declares it, each condition as text."""
    declared: dict[str, Any] = {name: str(condition) for name, condition in domain.conditions.items()}
    return declared | {n: v for n, v in (("dtype", domain.dtypes), ("result", domain.result)) if v}


def form_of(subject: Subject, stem: str) -> str:
    """Return in which form a block is called here, the function if there is one; "" for blocks that cannot be asked."""
    return next(iter(subject.forms(stem)), "") if SIGNATURES[stem].function else ""


def as_given(value: Any) -> Any:
    """Return an argument as a call has it: a list of the header is a tuple."""
    return tuple(map(as_given, value)) if isinstance(value, list) else value


def shared(memory: Header) -> Arrays:
    """Return the operands that lie in a file, which the process that asks has mapped too."""
    with open(memory["path"], "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    found = {}
    for one in memory["arrays"]:
        length, dtype = one["length"], np.dtype(one["dtype"])
        whole: np.ndarray = np.ndarray(length // dtype.itemsize, dtype, mapped, one["at"])
        offset, strides = one["offset"], tuple(one["strides"])
        array: np.ndarray = np.ndarray(tuple(one["shape"]), dtype, whole, offset, strides)
        array.flags.writeable = one["writeable"]
        found[one["name"]] = array
    return found


def place_in(array: np.ndarray, operands: Arrays) -> list[Any] | None:
    """Return where a result lies, if it shares memory with an operand: the operand, the distance in bytes, strides."""
    for name, operand in operands.items():
        if np.may_share_memory(array, operand):
            return [name, _address(array) - _address(operand), [*array.strides]]
    return None


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


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
        told, arrays = ({"refused": server}, {}) if isinstance(server, str) else server.answer(header, piped)
        if "capabilities" in told:
            told["capabilities"]["uses nnspec"] = uses
        message = packed(told, arrays)
        if "refused" in told or "unsupported" in told or "capabilities" in told:  # an answer has one key of these
            message = json.dumps({"nnspec": 1, **told}).encode() + b"\n"
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

"""A user's file that runs in a process of its own (`nnspec check --isolate`), where no expected value ever is."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from nnspec.adapters.asked import Asked, Channel, functions
from nnspec.adapters.blame import Ended, Lacks, Unusable
from nnspec.adapters.claims import Difference
from nnspec.adapters.conditions import parsed
from nnspec.adapters.contract import Adapter
from nnspec.adapters.crossing import whole_error
from nnspec.adapters.domains import read_domains
from nnspec.adapters.keeping import GRADIENTS, METHODS
from nnspec.adapters.memory import Memory, address
from nnspec.adapters.names import adapters, isolated
from nnspec.adapters.program import Gone, Program
from nnspec.adapters.protocol import VERSION, WrongAnswer
from nnspec.adapters.remote import Link
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject, SubjectError
from nnspec.adapters.views import whole_of

STARTING = 120.0  # seconds in which a file is loaded


class Isolated(Asked):
    """NumPy arrays, which lie in memory that another process maps, and objects, which lie in that process."""

    name = "isolated"
    preamble = "import json\nimport subprocess\nfrom math import prod"
    framework = ""  # of the file

    def versions(self) -> dict[str, str]:
        """Return the version of the protocol."""
        return {"protocol": str(VERSION)}

    def in_scripts(self, form: str) -> Adapter:
        """Return the file's own adapter for classes, since scripts run the file; itself for functions."""
        found: Adapter = self if form == "function" else adapters()[self.framework].load()()
        return found

    def offer(self, told: Mapping[str, Any], channel: OfFile) -> Link:
        """Take over the methods that the file's adapter has; return the link to its objects."""
        link, own = Link(channel.exchange, told["objects"]), told["objects"]
        offered: dict[str, Any] = {name: link.method(name) for name in METHODS}
        offered |= {name: link.differentiating(name) for name in GRADIENTS}
        offered = {name: method for name, method in offered.items() if name in own["methods"]}
        hooks: dict[str, Any] = {"surroundings": lambda native: whole_of(native).copy(), "dirty": channel.dirty}
        offered |= {name: hook for name, hook in hooks.items() if name in told["hooks"]}
        offered |= {"order": link.order, "program": link.program} if link.classes else {}
        vars(self).update(offered, framework=str(own["framework"]))
        return link


def isolated_subject(title: str, framework: str | None, device: str | None) -> Subject:
    """Return the subject of a file that a process of its own loads, by its title "isolated:my_layers.py".

    Raises SubjectError where the file cannot be loaded.
    """
    asked, folder = json.dumps([isolated(title), framework, device]), os.getcwd()
    command = [sys.executable, "-P", "-m", "nnspec.adapters.isolated", asked]
    program, adapter = Program(command, folder), Isolated()
    answer, channel = _told(title, program), OfFile(program)
    blocks = answer["blocks"]
    link = adapter.offer(answer, channel)
    found, sources = functions(lambda header, arrays: channel.exchange(header, arrays)[1], blocks)
    for stem, own in blocks.items():
        _require(found[str(SIGNATURES[stem].function)], own["required"])
    claims = {name: _tuples(value) for name, value in answer["claims"].items()}
    uses = {"uses": "nnspec"} if answer["uses nnspec"] else {}

    def recipe(name: str) -> str:
        if name in sources:
            return f"ask = asking({command!r}, {folder!r})\n{name} = {sources[name]}"
        return str(answer["objects"]["recipes"][name])

    return Subject.of(
        adapter,
        name=title,
        functions=found,
        classes=link.classes,
        versions=answer["versions"] | uses,
        domains=read_domains({stem: _domain(own) for stem, own in answer["domains"].items()}),
        differs={name: Difference(*given) for name, given in answer["differs"].items()},
        recipe=recipe,
        device=device,
        **claims,
    )


def _domain(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Return a domain whose conditions crossed as text."""
    return {n: v if n == "result" else tuple(v) if n == "dtype" else parsed(v) for n, v in declared.items()}


def _require(function: Any, names: Sequence[str]) -> None:
    """Take the defaults of arguments from a function's signature."""
    signature = inspect.signature(function)
    given = [p.replace(default=p.empty) if p.name in names else p for p in signature.parameters.values()]
    function.__signature__ = signature.replace(parameters=given)


def _tuples(value: Any) -> Any:
    """Return what crossed as JSON with tuples in place of lists."""
    if isinstance(value, dict):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _told(title: str, program: Program) -> dict[str, Any]:
    """Return what the other process says of the file."""
    try:
        answer, _ = program.ask({"request": "capabilities"}, {}, STARTING)
    except Gone as gone:
        raise SubjectError(f"{title}: to load it {gone}") from None
    except WrongAnswer as wrong:
        raise SubjectError(f"{title}: loaded, it {wrong}") from None
    except TimeoutError:
        raise SubjectError(f"{title}: was not loaded within {STARTING:g} s") from None
    if "refused" in answer:
        raise SubjectError(answer["refused"])
    told: dict[str, Any] = answer.get("capabilities", {})
    return told


# -- calls -------------------------------------------------------------------------------------------------------------


class OfFile(Channel):
    """The process of a file. Arrays that cross change here as they would if the file ran here."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self._before: dict[str, tuple[np.ndarray, bytes]] = {}  # the results of the last call, as they came

    def wrong(self, error: WrongAnswer) -> Ended:
        """Return what is to be said of an answer that is none: the file found the way to write one."""
        return Ended(f"the file wrote to what nnspec reads: it {error}", "tampers")

    def refusal(self, answer: Mapping[str, Any]) -> Exception | None:
        """Return the exception that was raised there."""
        if "raised" in answer:
            return whole_error(answer["raised"])
        if "unsupported" in answer and answer.get("lacks"):
            return Lacks(answer["unsupported"])
        if "unusable" in answer:
            return Unusable(str(answer["unusable"]))
        if "absent" in answer:
            absent = KeyError(str(answer["absent"]))
            absent.nnspec_own = True  # type: ignore[attr-defined]  # the adapter says it there, not the file
            return absent
        return super().refusal(answer)

    def exchange(
        self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Make a request whose operands lie in shared memory; return the answer's header and arrays."""
        changed_here = {f"earlier {n}": a for n, (a, bits) in self._before.items() if a.tobytes() != bits}
        if not arrays:
            answer, found = self.ask(header, changed_here)
        else:
            with Memory(arrays) as memory:
                try:
                    answer, found = self.ask({**header, "memory": memory.header}, changed_here)
                finally:
                    is_whole = memory.write_back()
            if not is_whole:
                raise Ended("the file cut the memory in which its operands lie", "tampers")
        if "inside" not in answer:
            return answer, found
        for name in [name for name in found if name.startswith("earlier ")]:
            changed, (old, _) = found.pop(name), self._before.get(name.removeprefix("earlier "), (None, b""))
            if old is not None and (old.shape, old.dtype) == (changed.shape, changed.dtype):
                old[...] = changed
        for name, place in answer["inside"].items():
            found[name] = _inside(found[name], arrays, place)
        self._before = {name: (array, array.tobytes()) for name, array in found.items()}
        return answer, found

    def dirty(self, arrays: Sequence[np.ndarray]) -> Callable[[], None]:
        """Fill memory there and free it; return a function that ends it."""
        self.ask({"request": "dirty"}, {str(n): array for n, array in enumerate(arrays)})
        return lambda: self.ask({"request": "clean"}, {}) and None


def _inside(result: np.ndarray, arrays: Mapping[str, np.ndarray], place: Any) -> np.ndarray:
    """Return a result as a view of the operand that it shares memory with; a copy where it cannot be one."""
    try:
        name, distance, strides = place
        operand = arrays[name]
        whole = whole_of(operand)
        first = address(operand) - address(whole) + distance
        view: np.ndarray = np.ndarray(result.shape, result.dtype, whole.view(np.uint8), first, tuple(strides))
    except (TypeError, ValueError, KeyError):
        return result
    return view if np.array_equal(view, result, equal_nan=True) else result

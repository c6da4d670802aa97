"""A user's file that runs in a process of its own (`nnspec check --isolate`), where no expected value ever is."""

from __future__ import annotations

import inspect
import json
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnspec.adapters.asked import Asked, Refused, functions
from nnspec.adapters.blame import Ended, Unsupported, Unusable
from nnspec.adapters.claims import Difference
from nnspec.adapters.conditions import parsed
from nnspec.adapters.domains import read_domains
from nnspec.adapters.names import isolated
from nnspec.adapters.program import Gone, Program
from nnspec.adapters.protocol import VERSION, Ask, WrongAnswer
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject, SubjectError
from nnspec.adapters.views import whole_of

STARTING = 120.0  # seconds in which a file is loaded
ALIGNED = 128  # bytes: in shared memory, an array has the address that it has here, modulo this
ROOM = 1 << 16  # bytes around an operand that cross with it
FOLDER = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a file there never leaves memory


class Isolated(Asked):
    """NumPy arrays, which lie in memory that another process maps."""

    name = "isolated"
    preamble = "import json\nimport subprocess\nfrom math import prod"

    def versions(self) -> dict[str, str]:
        """Return the version of the protocol."""
        return {"protocol": str(VERSION)}


def isolated_subject(title: str, framework: str | None, device: str | None) -> Subject:
    """Return the subject of a file that a process of its own loads, by its title "isolated:my_layers.py".

    Blocks without a function are not among its blocks. Raises SubjectError where the file cannot be loaded.
    """
    asked, folder = json.dumps([isolated(title), framework, device]), os.getcwd()
    command = [sys.executable, "-P", "-m", "nnspec.adapters.isolated", asked]
    program, adapter = Program(command, folder), Isolated()
    answer = _told(title, program)
    blocks = answer["blocks"]
    if not blocks:
        known = ", ".join(str(s.function) for s in SIGNATURES.values() if s.function)
        raise SubjectError(f"{title}: has no block that can be judged in isolation: {known}")
    hooks = {
        "surroundings": lambda native: whole_of(native).copy(),
        "dirty": lambda arrays: _dirty(program, arrays),
    }
    for hook in answer["hooks"]:
        setattr(adapter, hook, hooks[hook])
    found, sources = functions(_asking(program), blocks)
    for stem, own in blocks.items():
        _require(found[str(SIGNATURES[stem].function)], own["required"])
    claims = {name: _tuples(value) for name, value in answer["claims"].items()}
    uses = {"uses": "nnspec"} if answer["uses nnspec"] else {}
    return Subject.of(
        adapter,
        name=title,
        functions=found,
        versions=answer["versions"] | uses,
        domains=read_domains({stem: _domain(own) for stem, own in answer["domains"].items()}),
        differs={name: Difference(*given) for name, given in answer["differs"].items()},
        recipe=lambda name: f"ask = asking({command!r}, {folder!r})\n{name} = {sources[name]}",
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


def _asking(program: Program) -> Ask:
    """Return a function that asks for a call. Its arrays change as they would if the file ran here."""
    before: dict[str, np.ndarray] = {}  # the results of the last call

    def ask(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with Memory(arrays) as memory:
            answer, found = exchanged(program, {**header, "memory": memory.header}, {})
            memory.write_back()
        if "refused" in answer:
            raise Refused(answer["refused"])
        if "unsupported" in answer:
            raise Unsupported(answer["unsupported"])
        if "unusable" in answer:
            raise Unusable(str(answer["unusable"]))
        for name in [name for name in found if name.startswith("earlier ")]:
            changed, old = found.pop(name), before.get(name.removeprefix("earlier "))
            if old is not None and (old.shape, old.dtype) == (changed.shape, changed.dtype):
                old[...] = changed
        for name, place in answer.get("inside", {}).items():
            found[name] = _inside(found[name], arrays, place)
        before.clear()
        before.update(found)
        return found

    return ask


def exchanged(
    program: Program, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the answer to a request. What is no answer comes from a file that found the way to write one."""
    try:
        return program.ask(header, arrays)
    except Gone as gone:
        raise Ended(f"the call {gone}", "crash") from None
    except WrongAnswer as wrong:
        raise Ended(f"the file wrote to what nnspec reads: it {wrong}", "tampers") from None
    except OSError as error:
        raise Ended(f"the process could not be started again: {error.strerror}", "crash") from None


def _dirty(program: Program, arrays: Sequence[np.ndarray]) -> Callable[[], None]:
    exchanged(program, {"request": "dirty"}, {str(n): array for n, array in enumerate(arrays)})
    return lambda: exchanged(program, {"request": "clean"}, {}) and None


def _inside(result: np.ndarray, arrays: Mapping[str, np.ndarray], place: Any) -> np.ndarray:
    """Return a result as a view of the operand that it shares memory with; a copy where it cannot be one."""
    try:
        name, distance, strides = place
        operand = arrays[name]
        whole = whole_of(operand)
        first = _address(operand) - _address(whole) + distance
        view: np.ndarray = np.ndarray(result.shape, result.dtype, whole.view(np.uint8), first, tuple(strides))
    except (TypeError, ValueError, KeyError):
        return result
    return view if np.array_equal(view, result, equal_nan=True) else result


class Memory:
    """A file in memory that holds operands as they lie here, with what lies around them."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.wholes: dict[int, tuple[int, np.ndarray]] = {}  # address -> place in the file, and the array
        self.size, listed = 0, []
        for name, array in arrays.items():
            whole = whole_of(array)
            if not whole.flags.c_contiguous or whole.dtype != array.dtype or whole.nbytes > array.nbytes + ROOM:
                whole = array = np.array(array, order="C")
            listed.append(self._listed(name, array, whole))
        self.header: dict[str, Any] = {"arrays": listed}

    def _listed(self, name: str, array: np.ndarray, whole: np.ndarray) -> dict[str, Any]:
        address = _address(whole)
        if address not in self.wholes:
            place = self.size + (address - self.size) % ALIGNED
            self.wholes[address], self.size = (place, whole), place + whole.nbytes
        at = self.wholes[address][0]
        about: dict[str, Any] = {"name": name, "dtype": array.dtype.name}
        about |= {"shape": [*array.shape], "strides": [*array.strides]}
        about |= {"at": at, "length": whole.nbytes, "offset": _address(array) - address}
        return {**about, "writeable": bool(array.flags.writeable)}

    def __enter__(self) -> Memory:
        number, path = tempfile.mkstemp(prefix="nnspec-", dir=FOLDER)
        try:
            os.ftruncate(number, max(self.size, 1))
            self.mapped = mmap.mmap(number, max(self.size, 1))
        finally:
            os.close(number)
        self.header["path"] = path
        for place, whole in self.wholes.values():
            self.mapped[place : place + whole.nbytes] = whole.tobytes()
        return self

    def __exit__(self, *error: object) -> None:
        Path(self.header["path"]).unlink(missing_ok=True)
        self.mapped.close()

    def write_back(self) -> None:
        """Change the arrays here as the other process changed them there."""
        for place, whole in self.wholes.values():
            now = self.mapped[place : place + whole.nbytes]
            if now != whole.tobytes() and whole.flags.writeable:
                whole.reshape(-1).view(np.uint8)[...] = np.frombuffer(now, np.uint8)


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])

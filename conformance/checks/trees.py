"""Small trees of modules: what a program assigns to build one, and what its walks and its state must then give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from nnspec.conformance.case import Array
from nnspec.conformance.checks.cases import data
from nnspec.conformance.drawing import any_of, booleans, composite, integers, some_of
from nnspec.conformance.trial.programs import Program
from nnspec.conformance.trial.source import literal
from nnspec.conformance.trial.trial import Trial

NAMES = ("a", "b", "weight")
SHAPES = [(1,), (2,), (2, 3), (), (0,)]
ALL = ("parameter", "buffer", "module", "transient", "shared")  # a transient buffer is not persistent


@dataclass(frozen=True)
class Entry:
    """A parameter, a buffer or a module; one with several keys is still one entry."""

    kind: str
    number: int
    value: Array | None = None


@dataclass(frozen=True)
class Tree:
    """What is assigned to which path of `net`, in order: an entry, or the path of an earlier one, which is shared."""

    steps: tuple[tuple[str, Entry | str], ...]

    def entries(self, *kinds: str) -> dict[str, Entry]:
        """Key -> entry, of these kinds or of all, a shared entry under each of its keys."""
        found: dict[str, Entry] = {}
        for path, what in self.steps:
            if isinstance(what, Entry):
                found[path] = what
            else:
                below = [key for key in found if key == what or key.startswith(what + ".")]
                found |= {path + key[len(what) :]: found[key] for key in below}
        return {key: entry for key, entry in found.items() if not kinds or entry.kind in kinds}

    def state(self) -> dict[str, Array]:
        """Key -> array, of what is saved."""
        return {k: e.value for k, e in self.entries("parameter", "buffer").items() if e.value is not None}

    def top(self, *kinds: str) -> list[str]:
        """The names directly below `net`, of entries of these kinds or of all."""
        return [key for key in self.entries(*kinds) if "." not in key]

    def program(self, subject: Trial, name: str = "net") -> Program:
        """A program that builds the tree."""
        return self.build(Program(subject, "Module", "Parameter"), name)

    def build(self, program: Program, name: str = "net") -> Program:
        """Build the tree in a program, under a name."""
        program.run(f"{name} = Module()")
        for path, what in self.steps:
            owner, _, attribute = f"{name}.{path}".rpartition(".")
            if isinstance(what, str):
                program.run(f"{name}.{path} = {name}.{what}")
            elif what.kind == "module":
                program.run(f"{name}.{path} = Module()")
            elif what.kind == "parameter":
                program.run(f"{name}.{path} = Parameter({native(what.value)})")
            else:
                persistent = "" if what.kind == "buffer" else ", persistent=False"
                program.run(f"{owner}.register_buffer({attribute!r}, {native(what.value)}{persistent})")
        return program


@composite
def trees(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    kinds: Sequence[str] = ("parameter", "buffer", "module", "transient"),
    first: str = "",
    names: Sequence[str] = NAMES,
    depth: int = 3,
):
    """A tree of these kinds of entries, at most so many levels deep. `first` says of what kind its first entry is, that
    one's first entry, and so on."""
    kinds = tuple(k for k in kinds if not (k in ("buffer", "transient") and "register_buffer" in lacks))
    values = draw(data(dtype, ("integers", "normal")))
    steps: list[tuple[str, Entry | str]] = []

    def value(kind: str) -> Array:
        shape = draw(any_of(*SHAPES))
        if kind == "buffer" and draw(booleans()):  # a count, as of batches
            return np.full(shape, draw(integers(0, 9)), np.int64)
        return np.asarray(values.inputs(*shape))

    def grow(prefix: str, left: int, first: Sequence[str]) -> None:
        for i, name in enumerate(draw(some_of(names, 1, len(names)))):
            path, known = prefix + name, Tree(tuple(steps)).entries("parameter", "module")
            earlier = sorted(key for key in known if not path.startswith(key + "."))
            legal = [k for k in kinds if (k != "module" or left > 1) and (k != "shared" or earlier)]
            legal += [k for k in legal if k == "shared"] * 2  # or few trees would share a module
            kind = first[0] if first and i == 0 else draw(any_of(*legal))
            if kind == "shared":
                steps.append((path, draw(any_of(*earlier))))
                continue
            steps.append((path, Entry(kind, len(steps), None if kind == "module" else value(kind))))
            if kind == "module":
                grow(path + ".", left - 1, first[1:] if i == 0 else ())

    grow("", depth, first.split())
    return Tree(tuple(steps))


def native(array: Array | None) -> str:
    """An array in the words of a program."""
    return f"to_native({literal(np.asarray(array))})"


def mapping(arrays: dict[str, Array], translate: Callable[[Array], str] = native) -> str:
    """A state in the words of a program."""
    return "{" + ", ".join(f"{key!r}: {translate(array)}" for key, array in arrays.items()) + "}"


def gives_state(program: Program, name: str, expected: dict[str, Array]) -> None:
    """The module has exactly these keys and arrays."""
    program.equals(f"sorted({name}.state_dict())", sorted(expected))
    for key, array in expected.items():
        program.gives(f"{name}.state_dict()[{key!r}]", array)

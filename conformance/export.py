"""The calls that checks make of a block, written to a folder with what is expected: for implementations that do not run
beside nnspec. spec/vectors.md describes the files.

The checks run on the reference, and every call that they make becomes a vector.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from nnspec.adapters.asked import Asked, declarations, functions
from nnspec.adapters.blame import Raised
from nnspec.adapters.declarations import declared
from nnspec.adapters.for_reference import subject as reference
from nnspec.adapters.signatures import COTANGENT, SIGNATURES
from nnspec.adapters.subject import Subject
from nnspec.adapters.vectors import SCHEMA, identity, names, write_arrays
from nnspec.conformance.bounds.rule import Expected, compare
from nnspec.conformance.case import Case
from nnspec.conformance.formats import is_floating
from nnspec.conformance.requirements import CHECKS, Check, requirements
from nnspec.conformance.trial.comparisons import Comparisons, Told
from nnspec.conformance.trial.trial import Trial

Array = np.ndarray
Blocks = Mapping[str, Mapping[str, Any]]
LEFT_OUT = ("memory", "state")  # kinds of requirements about which files tell nothing
REASON = "files do not tell it: it is about memory, or about calls that follow one another"
NO_FILE = "the files hold no complex numbers"


class Recording(Asked):
    """NumPy arrays that cross to the reference and back."""

    name = "recording"
    on_file = True

    def versions(self) -> dict[str, str]:
        """Return nothing: the reference is part of nnspec."""
        return {}


@dataclass
class Vector:
    """A call, which requirements it is about, and what is expected of each result."""

    number: str
    file: str
    header: dict[str, Any]
    arrays: dict[str, Array]
    sha256: str
    refused: bool = False
    requirements: dict[str, None] = field(default_factory=dict)
    expected: dict[str, tuple[Array, Array]] = field(default_factory=dict)  # result -> value, bound

    @property
    def fits(self) -> bool:
        """Whether files can hold its arrays."""
        return all(array.dtype.name in names() for array in self.arrays.values())

    def entry(self) -> dict[str, Any]:
        """Return the vector for the manifest."""
        return {
            "id": self.number,
            "file": self.file,
            **self.header,
            "operands": [*self.arrays],
            "expected": "refusal" if self.refused else "values" if self.expected else "laws",
            "requirements": [*self.requirements],
            "sha256": self.sha256,
        }


class Recorder:
    """What checks ask, and what the reference answers."""

    def __init__(self) -> None:
        self.vectors: dict[str, Vector] = {}  # by identity
        self.complete = False  # whether all vectors are known
        self.requirement = self.dtype = ""
        self._results: dict[int, tuple[Array, Vector, str]] = {}  # of the present check, by the object's identity

    def begin(self, check: Check, dtype: str) -> None:
        """Begin with a check: which its calls are about."""
        self.requirement, self.dtype, self._results = check.identifier, dtype, {}

    def ask(self, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return what the reference answers; it raises what the reference raises."""
        key = identity(header, arrays)
        if key not in self.vectors and self.complete:
            return answer(header, arrays)
        if key not in self.vectors:
            number, file = f"{len(self.vectors):05}", f"{header['block']}-{self.dtype}"
            copies = {name: np.array(array, order="C") for name, array in arrays.items()}
            self.vectors[key] = Vector(number, file, dict(header), copies, key)
        vector = self.vectors[key]
        if not self.complete:
            vector.requirements[self.requirement] = None
        try:
            found = answer(header, arrays)
        except Raised as raised:
            vector.refused = True
            raise raised.error from None
        self._results |= {id(array): (array, vector, name) for name, array in found.items()}
        return found

    def expect(self, actual: Array, expected: Expected) -> None:
        """Keep what is expected of a result, with the bound of every element.

        The reference is right: an expectation that its result does not meet is that of a check for other cases.
        """
        array, vector, name = self._results.get(id(actual), (None, None, ""))
        if array is not actual or vector is None or name in vector.expected or expected.source is not None:
            return
        if expected.value.shape == actual.shape and not compare(actual, expected)[1].any():
            vector.expected[name] = stored(expected, actual.dtype)


class Noting(Comparisons):
    """Comparisons that a recorder is told of."""

    recorder: Recorder

    def expect(self, actual: Array, expected: Expected, what: str, told: Told) -> None:
        """Compare as ever."""
        self.recorder.expect(actual, expected)
        super().expect(actual, expected, what, told)


def answer(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return what the reference answers to a request. Raises Raised where it refuses the call."""
    stem, signature = header["block"], SIGNATURES[header["block"]]
    given: dict[str, Array | None] = {name: arrays.get(name) for name in signature.operands}
    given |= {name: array for name, array in arrays.items() if not name.startswith(COTANGENT)}
    if header["request"] == "gradients":
        given |= {name: array for name, array in arrays.items() if name.startswith(COTANGENT)}
        gradients = reference().gradients(stem, "function", given, header["arguments"])
        return {name: array for name, array in gradients.items() if array is not None}
    results = reference().call(stem, "function", given, header["arguments"])
    return dict(zip(signature.results, results, strict=True))


def stored(expected: Expected, dtype: Any) -> tuple[Array, Array]:
    """Return value and bound, so that what is right by them is right, in as few bytes as hold them.

    The value is of the result's dtype where this holds it, else in float64; the bound then grows by what float64 loses.
    A bound that is the same for all elements is one number. NaN and infinity are expected as they are.
    """
    whole = expected.stored(dtype)
    if not is_floating(whole.value.dtype):
        return whole.value, np.zeros(())
    with np.errstate(invalid="ignore", over="ignore"):
        narrow, value = whole.value.astype(dtype), whole.value.astype(np.float64)
        if np.array_equal(narrow.astype(whole.value.dtype), whole.value, equal_nan=True):
            value = narrow
        lost = np.where(np.isfinite(whole.value), np.abs(whole.value - value.astype(whole.value.dtype)), 0)
    exact = np.broadcast_to(np.asarray(whole.bound), value.shape) + lost
    bound = np.where(exact > 0, np.nextafter(exact.astype(np.float64), np.inf), 0.0)
    return value, bound[(0,) * bound.ndim] if bound.size and (bound == bound.flat[0]).all() else bound


def export(folder: Path, about: Blocks, profile: str, sizes: str, seed: int) -> dict[str, Any]:
    """Write the vectors of blocks into a folder, which must be empty or absent; return the manifest.

    `about` maps each block to its dtypes, and perhaps to what it takes and if it has gradients. `sizes` is a key of
    REGIMES. Raises OSError if the folder cannot be written.
    """
    told: dict[str, Any] = {"blocks": {stem: dict(own) for stem, own in about.items()}, "unsupported": _left_out(about)}
    recorder = Recorder()
    found, _ = functions(recorder.ask, told["blocks"])
    subject = Subject.of(Recording(), functions=found, **declared(declarations(told), "export"))
    for check, dtype, first in _chosen(subject, about):
        trial = _trial(recorder, check, subject, dtype)
        replace(trial, profile=profile, sizes=sizes, seed=seed, sweeps=first).run(check)
    recorder.complete = True
    for vector in recorder.vectors.values():
        _add_expected(vector, recorder, subject)
    vectors = [vector for vector in recorder.vectors.values() if vector.fits]
    lost = (name for vector in recorder.vectors.values() if not vector.fits for name in vector.requirements)
    told["unsupported"] |= dict.fromkeys(lost, NO_FILE)
    options = {"profile": profile, "sizes": sizes, "seed": seed}
    manifest = {"schema": SCHEMA, "nnspec": metadata.version("nnspec"), **options, **told}
    _write(folder, manifest, vectors)
    return manifest | {"vectors": [vector.entry() for vector in vectors]}


def _trial(recorder: Recorder, check: Check, subject: Subject, dtype: str) -> Trial:
    """Return a trial whose calls and expectations the recorder keeps."""
    recorder.begin(check, dtype)
    trial = Trial(subject.within(check.stem), "function", dtype)
    trial.compared = Noting(trial.compared.flushes, trial.compared.weaker)
    trial.compared.recorder = recorder
    return trial


def _add_expected(vector: Vector, recorder: Recorder, subject: Subject) -> None:
    """Let the checks of values or of gradients tell what is expected of a call that only laws were about."""
    block, kind = vector.header["block"], "value" if vector.header["request"] == "forward" else "gradient"
    wanted = {*SIGNATURES[block].results} if kind == "value" else {*vector.arrays} - {COTANGENT}
    absent = dict.fromkeys(SIGNATURES[block].operands)
    case = Case(block, {**absent, **vector.arrays}, dict(vector.header["arguments"]))
    for name, one in requirements().items():
        if vector.refused or wanted <= vector.expected.keys():
            return
        if one.stem == block and one.kind == kind and name in CHECKS and "function" in CHECKS[name].forms:
            dtype = vector.arrays["x" if "x" in vector.arrays else "operand0"].dtype.name
            trial = _trial(recorder, CHECKS[name], subject, dtype)
            with suppress(Exception):  # the check needs another case
                CHECKS[name].body(trial, case)


def summary(manifest: Mapping[str, Any], folder: Path) -> str:
    """Say how many vectors there are, and what to do with them."""
    counts = Counter(vector["expected"] for vector in manifest["vectors"])
    return (
        f"{len(manifest['vectors'])} vectors in {folder}: {counts['values']} with values and bounds, "
        f"{counts['refusal']} that must be refused, {counts['laws']} that laws judge\n"
        f"write the answers to {folder}/answers, and judge them: nnspec judge {folder}\n"
    )


def _left_out(blocks: Iterable[str]) -> dict[str, str]:
    """Return the requirements of blocks that files cannot show to be met, and why."""
    known = (r for r in requirements().values() if r.stem in blocks and r.kind in LEFT_OUT)
    checked = (r.identifier for r in known if r.identifier in CHECKS)
    return {name: REASON for name in checked if "function" in CHECKS[name].forms}


def _chosen(subject: Subject, blocks: Blocks) -> Iterator[tuple[Check, str, bool]]:
    """Yield the checks of blocks, each with its dtypes, and if the dtype is the first, in the order of the pages."""
    for check in (CHECKS[name] for name in requirements() if name in CHECKS):
        if check.stem in blocks and "function" in check.forms:
            able = [dtype for dtype in subject.within(check.stem).dtypes if dtype in check.dtypes]
            yield from ((check, dtype, dtype == able[0]) for dtype in (able if check.per_dtype else able[:1]))


def _write(folder: Path, manifest: Mapping[str, Any], vectors: list[Vector]) -> None:
    """Write the files: operands and expected values for each block and dtype, and the manifest, a vector a line."""
    for name in ("operands", "expected", "answers"):
        (folder / name).mkdir(parents=True)
    for file in dict.fromkeys(vector.file for vector in vectors):
        mine = [vector for vector in vectors if vector.file == file]
        operands = {f"{v.number}.{name}": array for v in mine for name, array in v.arrays.items()}
        write_arrays(folder / "operands" / f"{file}.safetensors", operands)
        expected = {f"{v.number}.{name}": pair for v in mine for name, pair in v.expected.items()}
        values = {name: value for name, (value, _) in expected.items()}
        bounds = {f"{name}.bound": bound for name, (_, bound) in expected.items()}
        write_arrays(folder / "expected" / f"{file}.safetensors", values | bounds)
    lines = ",\n".join(json.dumps(vector.entry()) for vector in vectors)
    head = json.dumps(manifest, indent=1).removesuffix("\n}")
    (folder / "manifest.json").write_text(f'{head},\n "vectors": [\n{lines}\n]}}\n', "utf-8")

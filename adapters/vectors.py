"""Calls that lie in a folder, and the answers to them: spec/vectors.md describes the files.

Nothing here needs more than NumPy and the standard library, so that scripts can carry it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy knows bfloat16 by it
import numpy as np
from nnspec.adapters.protocol import packed

SCHEMA = "urn:nnspec:vectors:1"  # the $id of vectors.schema.json
CARRIED = ("answers_in",)  # with which a script looks for an answer


def names() -> dict[str, str]:
    """Return the dtypes that safetensors has, by NumPy's names. It has no complex128: no complex numbers cross."""
    found = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"}
    return found | {f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as a file of safetensors, which can be read without pickle."""
    about, end, known = {}, 0, names()
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        about[name] = {"dtype": known[array.dtype.name], "shape": [*array.shape], "data_offsets": [begin, end]}
    header = json.dumps(about).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.writelines(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays.values())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file of safetensors by name. Raises ValueError for any other file."""
    data, found = path.read_bytes(), {}
    size = 8 + int.from_bytes(data[:8], "little")
    dtypes = {short: name for name, short in names().items()}
    try:
        header = json.loads(data[8:size])
        header.pop("__metadata__", None)
        for name, about in header.items():
            begin, end = about["data_offsets"]
            dtype, shape = np.dtype(dtypes[about["dtype"]]), about["shape"]
            if end - begin != prod(shape) * dtype.itemsize:
                raise ValueError(f"{name}: {end - begin} bytes")
            array = np.frombuffer(data[size + begin : size + end], dtype.newbyteorder("<")).reshape(shape)
            found[name] = array.astype(dtype)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a file of safetensors that nnspec can read: {error}") from None
    return found


def identity(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Return what makes two calls the same: the SHA-256 of the request, its arguments in the order of their names."""
    arguments = dict(sorted(header["arguments"].items()))
    return hashlib.sha256(packed({**header, "arguments": arguments}, arrays)).hexdigest()


def answers_in(folder: str, tell: Callable[[str], Any] = str) -> Callable[..., dict[str, np.ndarray]]:
    """Return a function that looks in a folder for the answer to a request, and tells which vector that is.

    It raises NotImplementedError where there is none, and RuntimeError where the call was refused.
    """
    manifest = json.loads(Path(folder, "manifest.json").read_text("utf-8"))
    vectors = {vector["sha256"]: vector for vector in manifest["vectors"]}
    arrays_of: dict[str, dict[str, np.ndarray]] = {}
    others: dict[str, dict[str, Any]] = {}
    for name in {vector["file"] for vector in manifest["vectors"]}:
        path = Path(folder, "answers", f"{name}.safetensors")
        found = read_arrays(path) if path.exists() else {}
        for label, array in found.items():
            number, _, operand = label.partition(".")
            arrays_of.setdefault(number, {})[operand] = array
        path = path.with_suffix(".json")
        others |= json.loads(path.read_text("utf-8")) if path.exists() else {}

    def ask(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        vector = vectors.get(identity(header, arrays))
        if vector is None:
            raise NotImplementedError("there is no vector for this call")
        number = vector["id"]
        tell(f"vector {number} of {vector['file']}")
        if "refused" in others.get(number, {}):
            raise RuntimeError(others[number]["refused"])
        if number not in arrays_of:
            raise NotImplementedError(others.get(number, {}).get("unsupported", "there is no answer to the vector"))
        return arrays_of[number]

    return ask

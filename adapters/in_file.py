"""Arrays of a message in a file in memory, for programs that map it: large arrays then cross without a pipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from nnspec.adapters.mapped import MappedFile
from nnspec.adapters.protocol import WrongAnswer

LARGE = 1 << 16  # bytes of a message from which on a file is faster than a pipe
ALIGNED = 64  # bytes


class InFile(MappedFile):
    """A file that holds the arrays of a request, and behind them those of its answer."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self._about: list[dict[str, Any]] = []

    def fill(self) -> None:
        """Write the arrays one after another."""
        end = 0
        for name, array in self._arrays.items():
            begin, data = -(-end // ALIGNED) * ALIGNED, array.astype(array.dtype.newbyteorder("<"), order="C")
            end = begin + data.nbytes
            self._about.append({"name": name, "dtype": array.dtype.name, "shape": [*array.shape], "offset": begin})
            self.write(data, begin)

    def request(self, header: Mapping[str, Any]) -> bytes:
        """Return the message, which is its header alone."""
        return json.dumps({"nnspec": 1, **header, "file": self.path, "arrays": self._about}).encode() + b"\n"

    def answered(self, about: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Return the arrays of an answer that lie in the file. They are read, not mapped: the program may cut it."""
        return {one["name"]: self._read(one) for one in about if "offset" in one}

    def _read(self, one: Mapping[str, Any]) -> np.ndarray:
        dtype, begin = np.dtype(one["dtype"]), one["offset"]
        array: np.ndarray = np.empty(one["shape"], dtype.newbyteorder("<"))
        if begin + array.nbytes > self.size:
            raise WrongAnswer(f"answered {one['name']} at {begin}, but the file ends before {begin + array.nbytes}")
        if not self.read(array, begin):
            raise WrongAnswer(f"answered {one['name']}, and cut the file")
        return array.astype(dtype, copy=False)


def follow(about: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the arrays that follow a header in the pipe."""
    return [one for one in about if "offset" not in one]


def large(arrays: Mapping[str, np.ndarray]) -> bool:
    """Return whether arrays are large enough for a file."""
    return sum(prod(a.shape) * a.dtype.itemsize for a in arrays.values()) >= LARGE

"""Operands in a file that lies in memory, which two processes map: one writes them, the other sees them as they lie."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np
from nnspec.adapters.mapped import MappedFile, bits
from nnspec.adapters.views import whole_of

ALIGNED = 128  # bytes: in shared memory, an array has the address that it has here, modulo this
ROOM = 1 << 16  # bytes around an operand that cross with it

Header = Mapping[str, Any]
Arrays = dict[str, np.ndarray]


class Memory(MappedFile):
    """A file in memory that holds operands as they lie here, with what lies around them."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.wholes: dict[int, tuple[int, np.ndarray]] = {}  # address -> place in the file, and the array
        self._end, listed = 0, []
        for name, array in arrays.items():
            whole = whole_of(array)
            if not whole.flags.c_contiguous or whole.dtype != array.dtype or whole.nbytes > array.nbytes + ROOM:
                whole = array = np.array(array, order="C")
            listed.append(self._listed(name, array, whole))
        self.header: dict[str, Any] = {"arrays": listed}

    def _listed(self, name: str, array: np.ndarray, whole: np.ndarray) -> dict[str, Any]:
        begin = address(whole)
        if begin not in self.wholes:
            place = self._end + (begin - self._end) % ALIGNED
            self.wholes[begin], self._end = (place, whole), place + whole.nbytes
        about: dict[str, Any] = {"name": name, "dtype": array.dtype.name}
        about |= {"shape": [*array.shape], "strides": [*array.strides]}
        about |= {"at": self.wholes[begin][0], "length": whole.nbytes, "offset": address(array) - begin}
        return {**about, "writeable": bool(array.flags.writeable)}

    def fill(self) -> None:
        """Write the operands."""
        self.header["path"] = self.path
        self.resize(max(self._end, 1))
        for place, whole in self.wholes.values():
            self.write(whole, place)

    def write_back(self) -> bool:
        """Change the arrays here as the other process changed them there. Return whether the file is still whole."""
        for place, whole in self.wholes.values():
            now = np.empty_like(whole)
            if not self.read(now, place):
                return False
            if whole.flags.writeable and not np.array_equal(bits(now), bits(whole)):
                bits(whole)[...] = bits(now)
        return True


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
            return [name, address(array) - address(operand), [*array.strides]]
    return None


def address(array: np.ndarray) -> int:
    """Return where the first element lies."""
    return int(array.__array_interface__["data"][0])

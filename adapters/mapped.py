"""A file in memory through which arrays cross to another process, which maps it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Self

import numpy as np

FOLDER = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a file there never leaves memory


class MappedFile:
    """A file that another process maps. Here it is written and read, never mapped.

    Where the other process has cut it, a mapping would end this one.
    """

    path: str

    def __enter__(self) -> Self:
        self._number, self.path = tempfile.mkstemp(prefix="nnspec-", dir=FOLDER)
        try:
            self.fill()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        Path(self.path).unlink(missing_ok=True)
        os.close(self._number)

    def fill(self) -> None:
        """Write what the other process is to find."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Bytes of the file, as it is now."""
        return os.fstat(self._number).st_size

    def resize(self, size: int) -> None:
        """Make the file as long as this, with zeros where it grows."""
        os.ftruncate(self._number, size)

    def write(self, array: np.ndarray, begin: int) -> None:
        """Write the elements of a contiguous array. One call of the system writes 2 GiB at most."""
        rest = bits(array).data
        while rest:
            done = os.pwrite(self._number, rest, begin)
            rest, begin = rest[done:], begin + done

    def read(self, array: np.ndarray, begin: int) -> bool:
        """Fill a contiguous array. Return whether the file holds as much."""
        rest = bits(array).data
        while rest:
            if not (done := os.preadv(self._number, [rest], begin)):
                return False
            rest, begin = rest[done:], begin + done
        return True


def bits(array: np.ndarray) -> np.ndarray:
    """Return the bytes of a contiguous array, as they lie in memory."""
    return array.reshape(-1).view(np.uint8)

"""Which names stand for subjects, told without importing any of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

NAMED = (
    "reference",
    "torch",
    "torch-compile",
    "jax",
    "jax-jit",
)  # subjects that ship with nnspec: adapters/for_<name>.py


def plausible(subject: str) -> str | None:
    """Why a subject cannot be what the user meant; None where it may be."""
    path = subject.partition(":")[0]
    if subject in NAMED:
        return None
    if not path.endswith(".py"):
        return (
            f"subject {subject!r}: expected {', '.join(NAMED)}, or a file such as my_layers.py or my_layers.py:Conv2d"
        )
    return None if Path(path).is_file() else f"{path}: there is no such file"


DTYPES = ("float32", "float64", "float16", "bfloat16")  # that nnspec has a rule for; NumPy knows the last by ml_dtypes
LONG = DTYPES[:2]  # those of more than 16 bits
WEAKER = ("B2", "T", "L", "C", "N")  # classes of accuracy that a file may declare, see spec/numerics.md


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, as the middle of a sentence; nothing where none is close."""
    import difflib  # for a message alone

    close = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f", did you mean {close[0]!r}" if close else ""

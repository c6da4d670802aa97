"""Directories of kernels, as BackendBench lays them out: one folder for each operator, with its implementations.

relu/relu_implementation_v1.py     # has a function relu_kernel_impl
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nnspec.adapters.names import adapters

NO_BLOCK = "no block of this specification"


def expanded(subjects: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the subjects, the kernels of a directory in its place, and what is not judged there: a path -> why not.

    Raises ValueError for a directory that has no operators.
    """
    found: list[str] = []
    others: dict[str, str] = {}
    for subject in subjects:
        if is_directory(subject):
            kernels, left_out = _kernels(Path(subject))
            found, others = [*found, *kernels], {**others, **left_out}
        else:
            found.append(subject)
    return found, others


def is_directory(subject: str) -> bool:
    """Return whether a subject is a directory, and not an adapter's name beside a directory of that name."""
    return subject not in adapters() and os.path.isdir(subject)


def _kernels(directory: Path) -> tuple[list[str], dict[str, str]]:
    from nnspec.adapters.signatures import SIGNATURES

    blocks = {stem for stem, signature in SIGNATURES.items() if signature.function == stem}
    found: list[str] = []
    others: dict[str, str] = {}
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        operator = folder.name
        files = sorted(folder.glob(f"{operator}_implementation*.py"))
        if files and operator in blocks:
            found += [f"{file}:{operator}_kernel_impl --as {operator}" for file in files]
        elif files:
            others[str(folder)] = NO_BLOCK
    if not found and not others:
        raise ValueError(
            f"{directory}: expected a folder for each operator, with files such as relu/relu_implementation_v1.py"
        )
    return found, others

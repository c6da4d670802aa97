"""The checks: one file for each block, and what they share.

This module alone knows how the files of checks are called and where they lie.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent
PREFIX = "test_"  # so that pytest collects them where it is not told what to collect


def file(stem: str) -> Path:
    """The file that holds the checks of a block."""
    return FOLDER / f"{PREFIX}{stem}.py"


def stem_of(path: Path) -> str:
    """The block whose checks a file holds; "" where it holds none."""
    ours = path.parent == FOLDER and path.name.startswith(PREFIX) and path.suffix == ".py"
    return path.stem.removeprefix(PREFIX) if ours else ""


def module_of(stem: str) -> str:
    """The name of the module that holds the checks of a block."""
    return f"{__name__}.{PREFIX}{stem}"


@functools.cache
def stems() -> tuple[str, ...]:
    """The blocks that have checks."""
    return tuple(found for path in sorted(FOLDER.iterdir()) if (found := stem_of(path)))


def load_checks(blocks: Iterable[str] = ()) -> None:
    """Import the files of checks of these blocks, or of all, which registers the checks."""
    for one in blocks or stems():
        importlib.import_module(module_of(one))

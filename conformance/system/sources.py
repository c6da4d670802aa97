"""The files that a subject is made of, and what is in them: a run goes on only with the same ones."""

from __future__ import annotations

import hashlib
import re
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path

INSTALLED = re.compile(r"[/\\\\](site|dist)-packages[/\\\\]")


def sources(before: Collection[str], files: Collection[str] = ()) -> dict[str, str]:
    """Return path -> SHA-256 of each file that was imported since `before`, without installed packages and nnspec.

    So too of other `files`.
    """
    elsewhere = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[2]))
    found = {path: _digest(path) for path in files}
    for name in set(sys.modules) - set(before):
        path = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(path, str) and not path.startswith(elsewhere) and not INSTALLED.search(path):
            found[path] = _digest(path)
    return dict(sorted(found.items()))


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:  # a module without a file of its own
        return ""

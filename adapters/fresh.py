"""A typical call made alone, in a process in which nothing was called before.

    python -P -m nnspec.adapters.fresh '["my_layers.py", null, null, "relu", "relu", 0]'

The arguments are the subject, its framework and device, a block, its function or class, and the number of the call. The
exit status is 0 if the call returns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

from nnspec.adapters.blame import theirs
from nnspec.adapters.loading import load
from nnspec.adapters.trying import Fresh, typical

LIMIT = 60.0  # seconds for the start, the file and the call
RETURNS, RAISES = 0, 3  # exit statuses


def in_fresh_process(subject: str, framework: str | None, device: str | None) -> Fresh:
    """Return a function that says whether a typical call of a subject returns where nothing was called before."""
    return partial(_returns, (subject, framework, device))


def _returns(subject: tuple[str, str | None, str | None], stem: str, name: str, number: int) -> bool:
    command = [sys.executable, "-P", "-m", "nnspec.adapters.fresh", json.dumps([*subject, stem, name, number])]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == RETURNS


def main() -> None:
    """Load the subject, and make the call."""
    subject, framework, device, stem, name, number = json.loads(sys.argv[1])
    try:
        with theirs():
            [*typical(load(subject, framework, device), stem, name)][number][1]()
    except Exception:
        os._exit(RAISES)
    os._exit(RETURNS)


if __name__ == "__main__":
    main()

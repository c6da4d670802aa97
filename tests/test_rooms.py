"""Each room of conformance/ imports rooms above it alone: each is imported by itself in a fresh process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nnspec.conformance
import pytest
from nnspec.conformance import ROOMS

IMPORT = re.compile(r"^ *(?:from|import) nnspec\.conformance(?: import |\.)(\w+)", re.M)
ASK = """
import importlib, pkgutil, sys
room = importlib.import_module("nnspec.conformance." + sys.argv[1])
for module in pkgutil.walk_packages(getattr(room, "__path__", ()), room.__name__ + "."):
    importlib.import_module(module.name)
print(*sorted({name.split(".")[2] for name in sys.modules if name.startswith("nnspec.conformance.")}))
"""


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_rooms_above_it_alone(room):
    done = subprocess.run([sys.executable, "-c", ASK, room], capture_output=True, text=True, check=True)
    assert room in done.stdout.split()
    assert not set(done.stdout.split()) - set(ROOMS[: ROOMS.index(room) + 1])


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_does_not_import_others_later_either(room):
    """An import within a function is one, too."""
    folder = Path(nnspec.conformance.__file__).parent
    files = [*folder.glob(f"{room}.py"), *folder.glob(f"{room}/**/*.py")]
    imported = {name for file in files for name in IMPORT.findall(file.read_text("utf-8"))}
    assert files
    assert not imported - set(ROOMS[: ROOMS.index(room) + 1])

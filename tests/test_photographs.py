"""The example on real images, run as a reader would run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "photographs.py"


def test_every_node_is_within_its_bound(long):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, EXAMPLE, *([] if long else ["64"])]
    done = subprocess.run(command, env={**os.environ, **one_thread}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "convolution" in done.stdout
    assert "torch, training" in done.stdout
    assert "convolution: weight" in done.stdout

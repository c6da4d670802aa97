"""The files that the README points to, judged as a user judges them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def check(path, folder):
    """Exit code and output of `nnspec check`, with a line for each finding in the order shown."""
    command = [sys.executable, "-m", "nnspec.conformance.cli", "check", path, "-n", "1", "--out", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    _, _, after = run.stdout.partition("broken\n")
    return run.returncode, run.stdout + run.stderr, after.splitlines()


@pytest.mark.parametrize("path", ["examples/numpy_layers.py", "adapters/for_user.py"])
def test_a_correct_file_conforms(path, tmp_path):
    code, output, _ = check(path, tmp_path)
    assert code == 0, output
    assert f"{path} conforms" in output


def test_a_correct_torch_file_conforms(tmp_path):
    pytest.importorskip("torch")
    code, output, _ = check("examples/torch_layers.py", tmp_path)
    assert code == 0, output


def test_a_mistake_is_named_among_the_first_three_and_its_script_repeats_it(tmp_path):
    code, output, findings = check("examples/numpy_mistake.py", tmp_path)
    assert code == 1, output
    assert any("max_pool2d.padding.never-wins" in line for line in findings[:3]), output
    script = tmp_path / "max_pool2d_padding_never_wins_function_float32.py"
    run = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1, run.stdout + run.stderr


def test_the_numpy_examples_need_numpy_alone():
    for name in ("numpy_layers", "numpy_mistake"):
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        imports = [line for line in spec.loader.get_source(name).splitlines() if "import" in line.split()]
        assert imports == ["import numpy as np"]

"""The files that the README points to, judged as a user judges them."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def check(path, folder):
    """Exit code and output of `nnspec check`, with a line for each finding in the order shown."""
    command = [sys.executable, "-m", "nnspec.conformance.cli", "check", path, "-n", "1", "--out", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
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
    assert_the_readme_shows(output)
    script = tmp_path / "max_pool2d_padding_never_wins_function_float32.py"
    run = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert run.returncode == 1, run.stdout + run.stderr


def assert_the_readme_shows(output):
    """Every line of the README's capture, but for the command and for the counts, which change with the checks."""
    capture = re.search(r"```text\n\$ nnspec check .*?\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)[1]
    shown = [
        line
        for line in capture.splitlines()
        if not re.match(r"block |max_pool2d +\d|\.\.\.|report: |  reproduce", line)
    ]
    assert len(shown) > 10
    assert [line for line in shown if line not in output.splitlines()] == []


def test_the_numpy_examples_need_numpy_alone():
    for name in ("numpy_layers", "numpy_mistake"):
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        imports = [line for line in spec.loader.get_source(name).splitlines() if "import" in line.split()]
        assert imports == ["import numpy as np"]


def test_the_readme_begins_with_the_two_commands_that_suffice():
    first, second = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)[:2]
    assert first.splitlines() == ["pip install .", "nnspec check examples/numpy_layers.py"]
    assert second.splitlines()[-1].startswith("pytest")  # which .ci/run runs as it stands there
    assert "torch" in second

"""Directories of kernels, as BackendBench lays them out."""

from __future__ import annotations

import pytest

RIGHT = """
import numpy as np


def relu_kernel_impl(input):
    return np.maximum(input, 0)
"""


def write(desk, *files: tuple[str, str]) -> None:
    for path, text in files:
        place = desk.folder / "kernels" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@pytest.mark.parametrize("command", ["check", "matrix"])
def test_each_kernel_of_a_directory_has_a_line(desk, command):
    write(
        desk,
        ("relu/relu_implementation_v1.py", RIGHT),
        ("relu/relu_implementation_v2.py", RIGHT.replace("np.maximum(input, 0)", "np.abs(input)")),
        ("gelu/gelu_implementation_v1.py", "def gelu_kernel_impl(input): ..."),
        ("relu/README.md", "about"),
    )
    done = desk.nnspec(command, "kernels", "--dtype", "float32", "-n", 0)
    assert done.code == 1, done.out + done.err
    first, second, third = (line.strip() for line in done.out.splitlines() if line.startswith("kernels/"))
    assert first.startswith("kernels/relu/relu_implementation_v1.py:relu_kernel_impl --as relu")
    assert "  conforms: judged " in first
    assert "  does not conform: relu.negative.zero" in second
    assert third.split(maxsplit=1) == ["kernels/gelu", "no block of this specification"]


def test_a_directory_whose_kernels_conform(desk):
    write(desk, ("relu/relu_implementation_v1.py", RIGHT))
    done = desk.nnspec("check", "kernels", "--dtype", "float32", "-n", 0)
    assert done.code == 0, done.out + done.err


@pytest.mark.parametrize(
    ("files", "code", "says"),
    [
        ((), 2, "kernels: expected a folder for each operator"),
        ((("gelu/gelu_implementation_v1.py", ""),), 2, "kernels/gelu: no block of this specification"),
        ((("relu/relu_implementation_v1.py", "x = 1"),), 2, "no 'relu_kernel_impl' to judge as relu"),
    ],
)
def test_a_directory_without_a_kernel_gets_a_sentence(desk, files, code, says):
    (desk.folder / "kernels").mkdir()
    write(desk, *files)
    done = desk.nnspec("check", "kernels", "-n", 0)
    assert done.code == code
    assert says in done.out + done.err


def test_an_adapter_is_no_directory_of_the_same_name(desk):
    (desk.folder / "reference").mkdir()
    done = desk.nnspec("check", "reference", "--block", "relu", "--dtype", "float32", "-n", 0)
    assert done.code == 0
    assert "reference conforms" in done.out

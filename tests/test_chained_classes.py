"""Classes that are judged as a chain of blocks: `ModelNew` of a kernel benchmark's file, and any user's class."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec.adapters import SubjectError, load
from nnspec.conformance.checks import load_checks
from nnspec.conformance.report.script import reproduce
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.trial import Trial

load_checks()

CHAIN = "conv2d | batch_norm | relu"
LAYERS = """
import numpy as np
from nnspec.reference.conv2d import conv2d


class Fused:
    def __init__(self, in_features, out_features, bias=True, dtype=np.float32):
        self.weight = np.zeros((out_features, in_features), dtype)
        self.bias = np.zeros(out_features, dtype) if bias else None

    def __call__(self, x):
        y = x @ self.weight.T
        return np.maximum(y if self.bias is None else y + self.bias, 0)


class Unbiased(Fused):
    def __init__(self, in_features, out_features, dtype=np.float32):
        super().__init__(in_features, out_features, False, dtype)


class Leaky(Fused):
    def __call__(self, x):
        y = x @ self.weight.T
        y = y if self.bias is None else y + self.bias
        return np.maximum(y, y / 64)


class Folded:
    def __init__(self, channels, filters, size, dtype=np.float32):
        size = size if isinstance(size, tuple) else (size, size)
        self.kernels = np.zeros((filters, channels, *size), dtype)
        self.shift = np.zeros(filters, dtype)

    def forward(self, x):
        return np.maximum(conv2d(x, self.kernels, self.shift, stride=2, padding=1), 0)


class FoldedWrong(Folded):
    def forward(self, x):
        return np.maximum(conv2d(x, self.kernels, stride=2, padding=1) - self.shift[:, None, None], 0)


class Fixed:
    def __init__(self):
        self.weight = np.ones((4, 3), np.float32)

    def __call__(self, x):
        return np.maximum(x @ self.weight.T, 0)


class Empty:
    def __init__(self, in_features, out_features):
        pass

    def __call__(self, x):
        return x
"""
PROBLEM = """
import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, eps=1e-5, scaling=2.0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        self.bn = nn.BatchNorm2d(out_channels, eps=eps)

    def forward(self, x):
        return {call}


def get_inputs():
    return [torch.rand(128, 3, 65536, 65536)]


def get_init_inputs():
    return [3, 8, 3]
"""


@pytest.fixture
def layers(tmp_path):
    path = tmp_path / "layers.py"
    path.write_text(LAYERS)
    return path


def verdict(spec: str, requirement: str = "output.value") -> str:
    return Trial(load(spec).within("fused"), "function", "float32").run(CHECKS[f"fused.{requirement}"]).verdict


@pytest.mark.parametrize("requirement", ["output.value", "output.dtype", "batch.independent", "special.value"])
@pytest.mark.parametrize(
    ("name", "chain"), [("Fused", "linear | relu"), ("Unbiased", "linear | relu"), ("Folded", CHAIN)]
)
def test_right_class_conforms(layers, name, chain, requirement):
    assert verdict(f"{layers}:{name} --as {chain}", requirement) == "pass"


@pytest.mark.parametrize(
    ("name", "chain"),
    [("Leaky", "linear | relu"), ("FoldedWrong", CHAIN), ("Fused", "linear | relu | relu | batch_norm")],
)
def test_wrong_class_fails(layers, name, chain):
    if name == "Fused":  # it has no entries for a norm
        with pytest.raises(SubjectError, match="expected entries for linear_weight, linear_bias, batch_norm_running"):
            load(f"{layers}:{name} --as {chain}")
    else:
        assert verdict(f"{layers}:{name} --as {chain}") == "fail"


def test_what_a_class_has_always_is_its_domain(layers):
    conditions = load(f"{layers}:Folded --as {CHAIN}").domain("fused").conditions
    assert {name: str(one) for name, one in conditions.items()} == {
        "chain": f"'{CHAIN}'", "conv2d_stride": "2", "conv2d_padding": "1", "conv2d_dilation": "1",
        "conv2d_groups": "1", "batch_norm_eps": "1e-05",
    }  # fmt: skip
    assert str(load(f"{layers}:Unbiased --as linear | relu").domain("fused").conditions["linear_bias"]) == "False"
    assert "linear_bias" not in load(f"{layers}:Fused --as linear | relu").domain("fused").conditions


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Fixed", "Fixed takes nothing; expected a parameter for linear_in_features"),
        ("Empty", "Empty has no arrays; expected entries for linear_weight, linear_bias"),
    ],
)
def test_class_that_does_not_fit_gets_a_sentence(layers, name, says):
    with pytest.raises(SubjectError, match=says):
        load(f"{layers}:{name} --as linear | relu")


def test_failure_of_a_class_is_reproduced_by_a_script(layers, tmp_path):
    subject = load(f"{layers}:Leaky --as linear | relu").within("fused")
    check = CHECKS["fused.output.value"]
    found = Trial(subject, "function", "float32").run(check)
    assert reproduces(reproduce(subject, check, "function", "float32", found.failure), tmp_path)


def reproduces(script: str, tmp_path) -> bool:
    import subprocess
    import sys

    path = tmp_path / "script.py"
    path.write_text(script)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    return done.returncode == 1 and "differs from what the specification says" in done.stderr


@pytest.mark.parametrize(
    ("call", "right"),
    [
        ("torch.relu(self.bn(self.conv(x)))", "pass"),
        ("self.bn(torch.relu(self.conv(x)))", "fail"),
        ("torch.relu(self.bn(self.conv(x)) + self.bn.bias[:, None, None])", "fail"),
    ],
)
def test_model_of_a_benchmark_is_judged_as_a_chain(tmp_path, call, right):
    pytest.importorskip("torch")
    path = tmp_path / "problem.py"
    path.write_text(PROBLEM.format(call=call))
    spec = f"{path} --as {CHAIN}"
    assert verdict(spec) == right
    subject = load(spec)
    assert "vjp" in subject.within("fused").lacks("fused", "function")
    assert {"conv2d_stride", "conv2d_padding", "batch_norm_eps"}.isdisjoint(subject.domain("fused").conditions)


def test_numbers_are_loaded_as_they_are(layers):
    subject = load(f"{layers}:Fused --as linear | relu")
    x, weight = np.ones((1, 2), np.float32), np.array([[1, 2], [-3, 1]], np.float32)
    arrays = {"x": x, "linear_weight": weight, "linear_bias": None}
    y, *_ = subject.call("fused", "function", arrays, {"chain": "linear | relu"})
    assert y.tolist() == [[3.0, 0.0]]

"""Problems of kernel benchmarks, whose class `ModelNew` is judged as a block."""

from __future__ import annotations

import subprocess
import sys

import pytest
from nnspec.adapters import SubjectError, load
from nnspec.conformance.checks import load_checks
from nnspec.conformance.report.script import reproduce
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.trial import Trial

pytest.importorskip("torch")
load_checks()

PROBLEM = """
import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self{parameters}):
        super(ModelNew, self).__init__()
        {layer}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return {call}


def get_inputs():
    return [torch.rand({x})]


def get_init_inputs():
    return [{given}]
"""
CONV = "self.conv2d = nn.Conv2d({})"
SQUARE = {
    "parameters": ", in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0, "
    "dilation: int = 1, groups: int = 1, bias: bool = False",
    "layer": CONV.format(
        "in_channels, out_channels, (kernel_size, kernel_size), stride, padding, dilation, groups, bias"
    ),
    "call": "self.conv2d(x)",
    "x": "16, 3, 65536, 65536",  # 768 GiB, of which nnspec reads the shape alone
    "given": "3, 64, 3",
}
DEPTHWISE = {
    "parameters": ", in_channels: int, kernel_size: int, stride: int = 1, padding: int = 0, bias: bool = False",
    "layer": CONV.format("in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=bias"),
    "call": "self.conv2d(x)",
    "x": "16, 4, 512, 512",
    "given": "4, 3",
}
WRITTEN = {
    "parameters": ", num_classes=1000",
    "layer": CONV.format("3, 8, kernel_size=5, stride=4, padding=2"),
    "call": "self.conv2d(x)",
    "x": "8, 3, 224, 224",
    "given": "1000",
}
ACROSS = {
    "parameters": ", in_channels, out_channels, kernel_size: tuple, stride: tuple = (1, 1)",
    "layer": CONV.format("in_channels, out_channels, (kernel_size[0], kernel_size[1]), (stride[0], stride[1])"),
    "call": "self.conv2d(x)",
    "x": "8, 4, 64, 32",
    "given": "4, 6, (3, 5)",
}
NORM = {
    "parameters": ", num_features: int",
    "layer": "self.bn = nn.BatchNorm2d(num_features=num_features)",
    "call": "self.bn(x)",
    "x": "64, 64, 512, 512",
    "given": "64",
}
MLP = {
    "parameters": ", input_size, layer_sizes, output_size",
    "layer": "sizes = [input_size, *layer_sizes, output_size]; "
    "self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))",
    "call": "self.layers[-1](self.hidden(x))\n\n    def hidden(self, x):\n"
    "        for layer in self.layers[:-1]:\n            x = layer(x).relu()\n        return x",
    "x": "128, 16384",
    "given": "16384, [16384, 16384], 8192",
}
RELU = {"parameters": "", "layer": "pass", "call": "torch.relu(x)", "x": "4096, 393216", "given": ""}


@pytest.fixture
def problem(tmp_path):
    """Write a problem; return its path."""

    def write(parts: dict[str, str], **changes: str):
        path = tmp_path / "problem.py"
        path.write_text(PROBLEM.format(**{**parts, **changes}))
        return path

    return write


def verdicts(path, block: str, *names: str) -> dict[str, str]:
    subject = load(f"{path} --as {block}").within(block)
    return {name: Trial(subject, "class", "float32").run(CHECKS[f"{block}.{name}"]).verdict for name in names}


@pytest.mark.parametrize(
    ("parts", "block", "names"),
    [
        (SQUARE, "conv2d", ("output.value", "stride.step", "groups.block-diagonal", "bias.per-channel")),
        (SQUARE, "conv2d", ("parameters.complete", "gradient.weight")),
        (DEPTHWISE, "conv2d", ("output.value", "padding.zeros")),
        (WRITTEN, "conv2d", ("output.value", "state.own")),
        (ACROSS, "conv2d", ("output.value", "stride.step")),
        (NORM, "batch_norm", ("running-var.update", "eval.frozen")),
        (MLP, "mlp", ("output.value", "depth.any")),
        (RELU, "relu", ("positive.kept", "gradient.zero")),
    ],
)
def test_the_class_of_a_problem_is_a_class_of_the_block(problem, parts, block, names):
    assert verdicts(problem(parts), block, *names) == dict.fromkeys(names, "pass")


@pytest.mark.parametrize(
    ("parts", "block", "wrong", "broken"),
    [
        (SQUARE, "conv2d", {"layer": SQUARE["layer"].replace("dilation", "1")}, "dilation.gap"),
        (SQUARE, "conv2d", {"call": "self.conv2d(x) * (x.shape[0] > 0) + (x.shape[3] == 3) * 1e-3"}, "output.value"),
        (WRITTEN, "conv2d", {"call": "self.conv2d(x).clamp(min=-1)"}, "output.value"),
        (NORM, "batch_norm", {"layer": NORM["layer"].replace(")", ", momentum=0.2)")}, "running-var.update"),
        (RELU, "relu", {"call": "x.clamp(0, 6)"}, "positive.kept"),
    ],
)
def test_what_a_problem_gets_wrong_is_seen(problem, parts, block, wrong, broken):
    assert verdicts(problem(parts, **wrong), block, broken) == {broken: "fail"}


def test_the_domain_comes_from_the_problem(problem):
    def conditions(parts: dict[str, str]) -> dict[str, str]:
        return {
            name: str(one) for name, one in load(f"{problem(parts)} --as conv2d").domain("conv2d").conditions.items()
        }

    assert conditions(SQUARE)["kernel_size"] == "one_of(1, 2, 3, 4, 5, 7)"
    assert {"in_channels", "groups"}.isdisjoint(conditions(SQUARE))
    sizes = {"in_channels": "4", "out_channels": "4", "groups": "4", "kernel_size": "(3, 3)"}
    assert sizes.items() <= conditions(DEPTHWISE).items()
    found = {"in_channels": "3", "out_channels": "8", "kernel_size": "(5, 5)", "stride": "4", "padding": "2"}
    assert found.items() <= conditions(WRITTEN).items()


def test_a_kernel_without_a_backward_pass_is_judged_on_its_results(problem):
    subject = load(f"{problem(RELU, call='torch.relu(x.detach())')} --as relu").within("relu")
    assert "vjp" in subject.lacks("relu", "class")
    assert "vjp" not in load(f"{problem(RELU)} --as relu").within("relu").lacks("relu", "class")


def test_the_file_overrides_what_its_problem_declares(problem):
    path = problem(SQUARE)
    path.write_text(path.read_text() + "\n\nDTYPES = ('float64',)\nDOMAIN = {'conv2d': {'stride': 2}}\n")
    subject = load(f"{path} --as conv2d").within("conv2d")
    assert subject.dtypes == ("float64",)
    assert str(subject.domain("conv2d").conditions["stride"]) == "2"


def test_a_script_repeats_a_failure_of_a_problem(problem, tmp_path):
    subject = load(f"{problem(WRITTEN, call='self.conv2d(x) + 1')} --as conv2d")
    check = CHECKS["conv2d.bias.per-channel"]
    failure = Trial(subject, "class", "float32").run(check).failure
    script = reproduce(subject, check, "class", "float32", failure)
    assert "of_problem(" in script
    (tmp_path / "again.py").write_text(script)
    done = subprocess.run([sys.executable, "again.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "differs from what the specification says" in done.stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x": "1, 2), torch.rand(3"}, "get_inputs gives 2 arrays; a block as a class takes one, x"),
        ({"x": "'three'"}, "get_inputs: TypeError"),
        ({"given": "1, 2, 3, 4, 5, 6, 7, 8, 9"}, "get_init_inputs: TypeError: too many positional arguments"),
        (
            {"parameters": "", "layer": "pass", "given": ""},
            "ModelNew takes nothing; expected parameters for in_channels",
        ),
    ],
)
def test_a_problem_that_is_none_of_the_block_gets_a_sentence(problem, changes, says):
    with pytest.raises(SubjectError, match=says):
        load(f"{problem(SQUARE, **changes)} --as conv2d")


def test_a_command_judges_a_problem(desk):
    desk.write("problem.py", PROBLEM.format(**{**RELU, "call": "torch.relu(x).clamp(max=6)"}))
    done = desk.nnspec("check", "problem.py", "--as", "relu", "-n", 0)
    assert done.code == 1, done.out + done.err
    assert "relu.positive.kept" in done.verdicts("fail")
    assert done.report["subject"] == "problem.py --as relu"
    assert {result["dtype"] for result in done.report["results"]} == {"float32"}

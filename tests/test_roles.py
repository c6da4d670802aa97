"""Entries of classes under other names than the page's: found by their role, and judged all the same."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from nnspec.adapters import load
from nnspec.adapters.roles import Held, by_shape
from nnspec.adapters.subject import Lacks
from nnspec.conformance.checks import load_checks
from nnspec.conformance.report.script import reproduce
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.trial import Trial

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
load_checks()


def verdict(cls, name, requirement):
    return Trial(load({name: cls}), "class", "float32").run(CHECKS[requirement]).verdict


def keys(cls, name, stem, page):
    return dict(load({name: cls}).roles(stem, cls, page).keys)


# -- single layers -----------------------------------------------------------------------------------------------------


class Linear:
    """NumPy: the bias comes first, and the constructor cannot leave it out."""

    def __init__(self, in_features, out_features):
        self.b, self.W = np.zeros(out_features), np.zeros((out_features, in_features))
        self.dW = np.zeros_like(self.W)

    def __call__(self, x):
        return np.matmul(x, self.W.T) + self.b


class BiasTwice(Linear):
    def __call__(self, x):
        return np.matmul(x, self.W.T) + 2 * self.b


class InParams:
    """NumPy: the parameters are in a mapping."""

    def __init__(self, in_features, out_features, bias=True):
        self.params = {"kernel": np.zeros((out_features, in_features))} | (
            {"k": np.zeros(out_features)} if bias else {}
        )
        self.grads = {name: np.zeros_like(array) for name, array in self.params.items()}

    def __call__(self, x):
        return np.matmul(x, self.params["kernel"].T) + self.params.get("k", 0)


class Conv2d(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__()
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.b = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.kernel = nn.Parameter(torch.zeros(out_channels, in_channels // groups, *size))
        self.arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def forward(self, x):
        return F.conv2d(x, self.kernel, self.b, **self.arguments)


class BatchNorm2d(nn.Module):
    """The variance is registered before the mean, and β before γ; the count is a plain whole number."""

    saved = True

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum, self.shape, self.calls = eps, momentum, 4, 0
        self.add, self.times = (nn.Parameter(fill(num_features)) for fill in (torch.zeros, torch.ones))
        self.register_buffer("v", torch.ones(num_features), persistent=self.saved)
        self.register_buffer("m", torch.zeros(num_features), persistent=self.saved)

    def forward(self, x):
        self.calls += self.training
        return F.batch_norm(x, self.m, self.v, self.times, self.add, self.training, self.momentum, self.eps)


class NotSaved(BatchNorm2d):
    saved = False


class InAttributes(BatchNorm2d):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        for name in ("m", "v"):
            setattr(self, name, self._buffers.pop(name))


BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


@pytest.mark.parametrize(
    ("cls", "expected"),
    [(Linear, {"weight": "W", "bias": "b"}), (InParams, {"weight": "params.kernel", "bias": "params.k"})],
)
def test_shapes_tell_a_weight_from_a_bias(cls, expected):
    assert keys(cls, "Linear", "linear", ("weight", "bias")) == expected


def test_kernels_and_biases_have_any_names():
    assert keys(Conv2d, "Conv2d", "conv2d", ("weight", "bias")) == {"weight": "kernel", "bias": "b"}
    assert verdict(Conv2d, "Conv2d", "conv2d.bias.per-channel") == "pass"


@pytest.mark.parametrize("cls", [BatchNorm2d, NotSaved, InAttributes])
def test_vectors_of_one_shape_are_told_apart_by_what_is_computed(cls):
    found = keys(cls, "BatchNorm2d", "batch_norm", BATCH_NORM)
    vectors = {"weight": "times", "bias": "add", "running_mean": "m", "running_var": "v"}
    assert found == {**vectors, "num_batches_tracked": "calls"}


@pytest.mark.parametrize("cls", [NotSaved, InAttributes])
def test_statistics_that_are_not_saved_are_judged_and_fail_the_state_alone(cls):
    judge = partial(verdict, cls, "BatchNorm2d")
    assert judge("batch_norm.state.complete") == "fail"
    for requirement in ("running-var.update", "eval.frozen", "start.statistics", "count.tracked"):
        assert judge(f"batch_norm.{requirement}") == "pass", requirement


def test_a_bias_that_is_always_there_is_no_failure():
    subject, page = load({"Linear": Linear}), {"x": np.ones((1, 3)), "weight": np.ones((2, 3)), "bias": None}
    with pytest.raises(Lacks, match="Linear always has a bias"):
        subject.call("linear", "class", page, {})
    assert verdict(Linear, "Linear", "linear.bias.per-feature") == "pass"
    assert verdict(Linear, "Linear", "linear.parameters.complete") == "pass"
    assert verdict(BiasTwice, "Linear", "linear.bias.per-feature") == "fail"


def test_a_spare_parameter_is_no_role_and_fails_the_parameters():
    class Spare(nn.Linear):
        def __init__(self, *sizes, bias=True):
            super().__init__(*sizes, bias)
            self.scale = nn.Parameter(torch.ones(sizes[1]))

    assert verdict(Spare, "Linear", "linear.parameters.complete") == "fail"
    assert verdict(Spare, "Linear", "linear.bias.per-feature") == "pass"


def test_common_names_come_first_where_no_behaviour_decides():
    own = {name: Held("parameter", None, (2,)) for name in ("shift", "gamma")}
    own |= {name: Held("attribute", None, (2,)) for name in ("moving_var", "moving_mean")}
    expected = ("gamma", "shift", "moving_mean", "moving_var")
    assert next(by_shape(dict.fromkeys(BATCH_NORM, (2,)), own)) == dict(zip(BATCH_NORM, expected, strict=True))


# -- networks ----------------------------------------------------------------------------------------------------------


class MLP(nn.Module):
    """The last layer is registered first."""

    def __init__(self, in_features, hidden_features, out_features):
        super().__init__()
        hidden = [hidden_features] if isinstance(hidden_features, int) else hidden_features
        sizes = [in_features, *hidden]
        self.out = nn.Linear(sizes[-1], out_features)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return self.out(x)


class Unit(nn.Module):
    def __init__(self, inputs, outputs, size, stride):
        super().__init__()
        self.norm = nn.BatchNorm2d(outputs)
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

    def forward(self, x):
        return self.norm(self.conv(x))


class ResidualBlock(nn.Module):
    """Registered from the last part to the first; the shortcut runs first."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        same = stride == 1 and in_channels == out_channels
        self.skip = nn.Identity() if same else Unit(in_channels, out_channels, 1, stride)
        self.b, self.a = Unit(out_channels, out_channels, 3, 1), Unit(in_channels, out_channels, 3, stride)

    def forward(self, x):
        shortcut = self.skip(x)
        return (shortcut + self.b(self.a(x).relu())).relu()


class ReluBefore(ResidualBlock):
    def forward(self, x):
        return self.skip(x) + self.b(self.a(x).relu()).relu()


BLOCK = [f"conv{n}.weight" for n in (1, 2)] + [f"bn{n}.{key}" for n in (1, 2) for key in BATCH_NORM]
PROJECTION = ["downsample.0.weight", *(f"downsample.1.{key}" for key in BATCH_NORM)]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_layers_of_a_stack_have_any_names(depth):
    page = [f"fc{n}.{key}" for n in range(1, depth + 1) for key in ("weight", "bias")]
    names = [*(f"layers.{n}" for n in range(depth - 1)), "out"]
    own = [f"{name}.{key}" for name in names for key in ("weight", "bias")]
    assert keys(MLP, "MLP", "mlp", page) == dict(zip(page, own, strict=True))


def test_layers_of_one_shape_are_told_apart_by_the_order_in_which_they_run():
    for page in (BLOCK, BLOCK + PROJECTION):
        found = keys(ResidualBlock, "ResidualBlock", "basic_block", page)
        assert found.keys() - {key for key in found if key.endswith("tracked")} == {*page}
        own = {"conv1": "a.conv", "bn1": "a.norm", "conv2": "b.conv", "bn2": "b.norm"}
        own |= {"downsample.0": "skip.conv", "downsample.1": "skip.norm"}
        for key, actual in found.items():
            layer, _, name = key.rpartition(".")
            assert actual == f"{own[layer]}.{name}"


def test_a_block_with_other_names_is_judged():
    judge = partial(verdict, ResidualBlock, "ResidualBlock")
    for requirement in ("projection.channels", "state.complete", "mode.train", "gradient.train", "parameters.count"):
        assert judge(f"basic_block.{requirement}") == "pass", requirement
    assert judge("basic_block.state.keys") == "fail"
    assert verdict(ReluBefore, "ResidualBlock", "basic_block.relu.none-before-add") == "fail"


# -- the script --------------------------------------------------------------------------------------------------------


def test_a_script_uses_the_names_of_the_class(tmp_path):
    text = "import numpy as np\n\n\nclass Linear:\n    def __init__(self, i, o, bias=True):\n"
    text += "        self.W, self.b = np.zeros((o, i)), np.zeros(o) if bias else None\n\n    def __call__(self, x):\n"
    text += "        return np.matmul(x, self.W.T) + (0 if self.b is None else 2 * self.b)\n"
    (tmp_path / "layers.py").write_text(text)
    subject, check = load(tmp_path / "layers.py"), CHECKS["linear.bias.per-feature"]
    failure = Trial(subject, "class", "float32").run(check).failure
    script = reproduce(subject, check, "class", "float32", failure)
    assert "{'W': weight, 'b': bias}" in script
    (tmp_path / "again.py").write_text(script)
    done = subprocess.run([sys.executable, "again.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "differs from what the specification says" in done.stderr


# -- programs ----------------------------------------------------------------------------------------------------------


def test_programs_load_by_the_names_of_the_class():
    class Affine(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.b, self.W = nn.Parameter(torch.zeros(outputs)), nn.Parameter(torch.zeros(outputs, inputs))

        def forward(self, x):
            return F.linear(x, self.W, self.b)

    subject = load({"Linear": Affine, "Sequential": nn.Sequential, "ReLU": nn.ReLU})
    assert Trial(subject, "class", "float32").run(CHECKS["sequential.call.current"]).verdict == "pass"


class OwnNames(nn.Module):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(outputs, inputs))
        self.offset = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x):
        return F.linear(x, self.kernel, self.offset)


class ConstantOffset(OwnNames):
    def forward(self, x):
        return F.linear(x, self.kernel, self.offset.detach())


@pytest.mark.parametrize(
    "requirement",
    [
        "module.copy.gradients",
        "module.gradient.shared",
        "module.life.equals-model",
        "sgd.zero-grad.afresh",
        "sgd.training.equals-model",
    ],
)
def test_networks_are_judged_whatever_a_layer_calls_its_parameters(requirement):
    names = ("Module", "Parameter", "Sequential", "ReLU", "BatchNorm1d")
    others = {name: getattr(nn, name) for name in names} | {"SGD": torch.optim.SGD}
    check = CHECKS[requirement]
    right, wrong = (load(others | {"Linear": cls}) for cls in (OwnNames, ConstantOffset))
    outcome = Trial(right, "class", "float32").run(check)
    assert (outcome.verdict, outcome.unsupported) == ("pass", {})
    failure = Trial(wrong, "class", "float32").run(check).failure
    assert ".offset." in failure.message
    assert "kernel" in reproduce(wrong, check, "class", "float32", failure)


TRANSPOSED = """
    import torch
    from torch import nn

    class Linear(nn.Module):
        def __init__(self, in_features, out_features, bias=True):
            super().__init__()
            bound = in_features**-0.5
            self.{name} = nn.Parameter((2 * torch.rand(in_features, out_features) - 1) * bound)
            self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

        def forward(self, x):
            y = x @ self.{name}
            return y if self.bias is None else y + self.bias
"""


@pytest.mark.parametrize("name", ["weight", "W"])
def test_a_weight_with_inputs_first_is_one_finding(desk, name):
    done = desk.check(TRANSPOSED.replace("{name}", name), "--block", "linear", "--dtype", "float32", "-n", 1)
    found = {r["requirement"] for r in done.report["results"] if r["verdict"] == "fail" and r["level"] == "must"}
    assert found == {"linear.parameters.complete"}, done.out
    assert "the weight is stored as (I, O)" in done.out


def test_a_script_turns_a_weight_with_inputs_first(desk):
    text = TRANSPOSED.replace("{name}", "weight").replace("y + self.bias", "y + 2 * self.bias")
    done = desk.check(text, "--block", "linear", "--dtype", "float32", "-n", 1)
    failures = {r["requirement"]: r["failure"] for r in done.report["results"] if r["failure"]}
    script = failures["linear.bias.per-feature"]["script"]
    assert ".T" in (done.folder / script).read_text("utf-8")
    assert desk.run(script).code == 1
    desk.write("layers.py", text.replace("2 * self", "self"))
    assert desk.run(script).code == 0

"""Classes of a file in a process of its own: they are judged as they are here, and hostile ones gain nothing."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from nnspec.adapters import load
from nnspec.adapters.crossing import flat, flat_error, whole, whole_error
from nnspec.adapters.objects import Held
from nnspec.conformance.checks import load_checks
from nnspec.conformance.report.script import reproduce
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.trial import Trial

RIGHT = """
from nnspec.reference.basic_block import ResidualBlock
from nnspec.reference.batch_norm import BatchNorm1d, BatchNorm2d
from nnspec.reference.linear import Linear
from nnspec.reference.mlp import MLP
from nnspec.reference.module import Module, Parameter
from nnspec.reference.relu import ReLU
from nnspec.reference.resnet34 import ResNet34
from nnspec.reference.sequential import Sequential
from nnspec.reference.sgd import SGD
"""
# requirement -> lines after which it is broken
FAULTS = {
    "module.register.by-assignment": """
class Module(Module):
    def state_dict(self):
        return {key: value for key, value in super().state_dict().items() if "late" not in key}
""",
    "sequential.call.order": """
class Sequential(Sequential):
    def __call__(self, x):
        for layer in reversed([*self]):
            x = layer(x)
        return x
""",
    "sgd.step.value": """
class SGD(SGD):
    def step(self):
        for p in self.params:
            p.data = p.data + self.lr * p.grad
""",
    "sgd.momentum.accumulates": """
class SGD(SGD):
    def step(self):
        super().step()
        self.velocities = [None for _ in self.velocities]
""",
    "mlp.output.value": """
class MLP(MLP):
    def __call__(self, x):
        return super().__call__(x) * 2
""",
    "batch_norm.running-mean.update": """
class BatchNorm1d(BatchNorm1d):
    def __call__(self, x):
        kept = self.running_mean
        y = super().__call__(x)
        self.running_mean = kept
        return y

class BatchNorm2d(BatchNorm2d):
    __call__ = BatchNorm1d.__call__
""",
    "linear.output.fresh": """
class Linear(Linear):
    def __call__(self, x):
        y = super().__call__(x)
        kept = vars(self).setdefault("kept", {}).setdefault(y.shape, y)
        kept[...] = y
        return kept
""",
    "linear.gradient.weight": """
class Linear(Linear):
    def vjp(self, x):
        y, pullback = super().vjp(x)
        return y, lambda cotangent: pullback(2 * cotangent)
""",
}


@pytest.fixture
def isolated(tmp_path):
    load_checks()

    def judged(text, *requirements):
        (tmp_path / "layers.py").write_text(text)
        trial = Trial(load(f"isolated:{tmp_path / 'layers.py'}"), "class", "float32")
        return [trial.run(CHECKS[name], simplify=False) for name in requirements]

    return judged


def test_right_classes_pass(isolated):
    outcomes = isolated(RIGHT, *FAULTS, "basic_block.output.dtype", "resnet34.parameters.count")
    assert [outcome.verdict for outcome in outcomes] == ["pass"] * len(outcomes)


@pytest.mark.parametrize("requirement", FAULTS)
def test_wrong_classes_fail(isolated, requirement):
    (outcome,) = isolated(RIGHT + FAULTS[requirement], requirement)
    assert outcome.verdict == "fail"


HOSTILE = {
    "answers every question with yes": """
from nnspec.adapters.keeping import Keeper
Keeper._value = lambda self, header, known: True

class Module: pass
class Parameter:
    def __init__(self, data):
        self.data = data
""",
    "takes all objects for one": """
import builtins

class Module:
    def __init__(self):
        builtins.id = lambda thing: 7
        builtins.sorted = lambda *given, **named: []
    def __setattr__(self, name, value):
        pass

    def __getattr__(self, name):
        return self

    def state_dict(self):
        return {}

class Parameter:
    def __init__(self, data):
        self.data = data
""",
    "answers with what stands for nothing": """
from nnspec.adapters.keeping import Keeper
Keeper.answer = lambda self, header, arrays: ({"value": {"object": [1]}}, {})

class Module: pass
class Parameter: pass
""",
}
MEMBERS = """
for name in ("state_dict", "parameters", "named_parameters"):
    if name not in vars(Module):
        setattr(Module, name, lambda self: iter(()))
"""


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_classes_fail_or_tamper(isolated, text):
    (outcome,) = isolated(text + MEMBERS, "module.register.by-assignment")
    assert outcome.verdict in ("fail", "tampers"), outcome.reason


def test_the_process_of_classes_holds_no_judge(isolated):
    text = """
import sys
import numpy as np

class Linear:
    def __init__(self, in_features, out_features, bias=True):
        self.weight, self.bias = np.ones((out_features, in_features)), np.ones(out_features) if bias else None
    def __call__(self, x):
        assert not any(name.startswith(("nnspec.conformance", "nnspec.reference", "pytest")) for name in sys.modules)
        y = np.einsum("...i,oi->...o", x, self.weight)
        return y if self.bias is None else y + self.bias
"""
    outcomes = isolated(text, "linear.weight.orientation", "linear.memory.in-bounds", "linear.output.dtype")
    assert {outcome.verdict for outcome in outcomes} == {"pass"}


def test_a_process_that_ends_costs_one_check(isolated):
    text = (
        RIGHT
        + """
import os

class Linear(Linear):
    def __call__(self, x):
        return os._exit(3) if x.ndim == 1 else super().__call__(x)
"""
    )
    ended, other = isolated(text, "linear.leading.any", "linear.weight.orientation")
    assert ended.verdict == "crash"
    assert "exit status 3" in ended.failure.message
    assert other.verdict == "pass"


def test_objects_that_nobody_uses_are_let_go(tmp_path):
    (tmp_path / "layers.py").write_text("""
import weakref
ALIVE = weakref.WeakSet()

class Linear:
    def __init__(self, in_features, out_features, bias=True):
        ALIVE.add(self)
    def alive(self):
        return len(ALIVE)
""")
    subject = load(f"isolated:{tmp_path / 'layers.py'}")
    made = [subject.framework.construct(subject.classes["Linear"], (1, 1), {}, np.dtype("float32")) for _ in range(5)]
    assert made[0].alive() == 5
    del made[1:]
    gc.collect()
    assert made[0].alive() == 1


def test_values_cross():
    value = {"a": [1, 2.5, None, True, "x"], 3: (np.arange(3), np.float32(2)), "s": {1}, "d": np.dtype("float16")}
    arrays = {}
    back = whole(flat(value, arrays, None), arrays, None)
    assert back["a"] == value["a"]
    assert back[3][0].tolist() == [0, 1, 2]
    assert type(back[3][1]) is np.float32
    assert (back["s"], back["d"]) == ({1}, np.dtype("float16"))
    held = whole(flat(Held("int", None, ()), {}, None), {}, None)
    assert held == Held("int", None, ())


@pytest.mark.parametrize("error", [KeyError("a"), ValueError("wrong"), ZeroDivisionError(), SystemExit(3)])
def test_exceptions_cross(error):
    back = whole_error(flat_error(error))
    assert isinstance(back, type(error) if isinstance(error, Exception) else RuntimeError)
    assert (type(back).__name__, str(back)) == (type(error).__name__, str(error))


def test_scripts_about_classes_run_the_file(desk):
    load_checks()
    forward = "    def forward(self, x):\n        return super().forward(x) * 2\n"
    path = desk.write("layers.py", "import torch\nclass Linear(torch.nn.Linear):\n" + forward)
    subject, check = load(f"isolated:{path}"), CHECKS["linear.weight.orientation"]
    outcome = Trial(subject, "class", "float32").run(check, simplify=False)
    desk.write("script.py", reproduce(subject, check, "class", "float32", outcome.failure))
    assert desk.run("script.py").code == 1

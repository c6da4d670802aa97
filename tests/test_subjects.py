"""Subjects of all kinds: what a user's file may look like, and how it is told which library it works on."""

from __future__ import annotations

import inspect
import pickle
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from nnspec.adapters import SubjectError, Unsupported, load
from nnspec.adapters.contract import Adapter
from nnspec.adapters.names import adapters
from nnspec.conformance import check

PLAIN = """
    import numpy as np

    class Linear:
        def __init__(self, in_features, out_features, bias=True, dtype=np.float32):
            if min(in_features, out_features) < 0:
                raise ValueError("sizes must not be negative")
            rng, limit = np.random.default_rng(), max(in_features, 1) ** -0.5
            self.weight = rng.uniform(-limit, limit, (out_features, in_features)).astype(dtype)
            self.bias = rng.uniform(-limit, limit, out_features).astype(dtype) if bias else None

        def __call__(self, x):
            if x.ndim == 0:
                raise ValueError("a number has no features")
            y = np.matmul(x, self.weight.T)
            return y if self.bias is None else y + self.bias
"""
WITH_STATE = (
    PLAIN
    + """
        def state_dict(self):
            return {n: getattr(self, n) for n in ("weight", "bias") if getattr(self, n) is not None}

        def load_state_dict(self, entries):
            assert set(entries) == set(self.state_dict())
            for name, array in entries.items():
                setattr(self, name, np.array(array))

    class ReLU:
        def __call__(self, x):
            return np.maximum(x, 0)
"""
)
TORCH = """
    import torch
    from torch import nn

    class Linear(nn.Module):
        def __init__(self, in_features, out_features, bias=True):
            super().__init__()
            inner = nn.Linear(in_features, out_features, bias)
            self.weight, self.bias = inner.weight, inner.bias

        def forward(self, x):
            return torch.nn.functional.linear(x, self.weight, self.bias)
"""
TORCH_FUNCTIONS = """
    import torch
    import torch.nn.functional as F

    def relu(x):
        return torch.where(x <= 0, torch.zeros_like(x), x)

    def linear(x, weight, bias=None):
        return F.linear(x, weight, bias)
"""


@pytest.fixture
def judged(desk):
    def judged(text, **options):
        return desk.valid(check(desk.write("layers.py", text), **options))

    return judged


def assert_right(report, blocks, form):
    musts = [r for r in report["results"] if r["level"] == "must"]
    assert [(r["requirement"], r["reason"]) for r in musts if r["verdict"] not in ("pass", "unsupported")] == []
    assert report["conforms"], (report["totals"], report["errors"], report["unfinished"])
    passed = [r for r in report["results"] if r["verdict"] == "pass"]
    assert {r["block"] for r in passed} == set(blocks)
    assert {r["form"] for r in passed} == {form}
    assert {r["dtype"] for r in passed} == {"float32", "float64"}


@pytest.mark.parametrize(("text", "blocks"), [(PLAIN, ["linear"]), (WITH_STATE, ["linear", "relu"])])
def test_numpy_classes(judged, text, blocks):
    assert_right(judged(text), blocks, "class")


@pytest.mark.parametrize(
    ("text", "blocks", "form"), [(TORCH, ["linear"], "class"), (TORCH_FUNCTIONS, ["linear", "relu"], "function")]
)
def test_torch_files(judged, text, blocks, form):
    pytest.importorskip("torch")
    report = judged(text)
    assert "torch" in report["versions"]
    assert_right(report, blocks, form)


def test_what_needs_state_that_is_not_there_is_not_run(judged):
    report = judged(
        "class Linear:\n    def __init__(self, *sizes, bias=True): pass\n    def __call__(self, x): return x\n"
    )
    reasons = {r["reason"] for r in report["results"] if r["verdict"] == "not run"}
    assert any("Linear has no state entry" in reason for reason in reasons)
    assert not report["conforms"]


def test_both_forms_are_checked(judged):
    report = judged(WITH_STATE + "\n    def relu(x):\n        return np.maximum(x, 0)\n", block="relu", dtype="float32")
    assert {r["form"] for r in report["results"]} == {"class", "function"}


def test_the_callers_environment_reaches_the_subject(desk):
    text = "import os\nimport numpy as np\n\ndef relu(x):\n    return np.maximum(x, float(os.environ['FLOOR']))\n"
    assert desk.check(text, "--dtype", "float32", "-n", 1, FLOOR="0").code == 0
    assert desk.check(text, "--dtype", "float32", "-n", 1, FLOOR="1").code == 1


# -- which library -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "library"),
    [
        ("def relu(x): return x * (x > 0)", "numpy"),
        ("import numpy as np\ndef relu(x): return np.maximum(x, 0)", "numpy"),
        ("import torch\ndef relu(x): return torch.relu(x)", "torch"),
        ("import torch\ndef relu(x): return x.clamp(min=0)", "torch"),
        ("from torch import Tensor\ndef relu(x: Tensor) -> Tensor: return x.clamp(min=0)", "torch"),
        ("from torch.nn.functional import relu", "torch"),
        ("import numpy as np, torch\ndef relu(x): return np.maximum(x, 0)", "numpy"),
        ("import numpy as np, torch\ndef relu(x): return torch.relu(x)", "torch"),
        ("from torch import nn\nclass ReLU(nn.Module): pass", "torch"),
        ("from torch import nn\nclass ReLU(nn.Module): pass\nclass Linear: pass", "torch"),
        ("import torch\nimport numpy as np\nclass ReLU: pass", "numpy"),
        ("import torch\nclass SGD: pass", "torch"),
        (
            "import numpy as np, torch\nclass SGD:\n def __init__(self, params): [torch.zeros_like(p) for p in params]",
            "torch",
        ),
    ],
)
def test_the_library_is_told_from_the_code(desk, text, library):
    pytest.importorskip("torch")
    subject = load(desk.write("layers.py", text))
    assert subject.framework.name == library


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np, torch\ndef relu(x): return x.clip(0)",
        "import numpy as np, torch\ndef relu(x): return torch.relu(x)\ndef linear(x, w): return np.dot(x, w.T)",
    ],
)
def test_where_it_cannot_be_told_the_user_is_asked(desk, text):
    pytest.importorskip("torch")
    path = desk.write("layers.py", text)
    with pytest.raises(SubjectError, match="--framework torch or --framework numpy"):
        load(path)


def test_the_user_may_say_which(desk):
    pytest.importorskip("torch")
    path = desk.write("layers.py", "import numpy as np, torch\ndef relu(x): return x.clip(0)")
    assert load(path, "torch").framework.name == "torch"
    assert load(path, "numpy").framework.name == "numpy"


def test_files_with_the_name_of_a_package_do_no_harm(desk):
    desk.write("json.py", "def relu(x): return x * (x > 0)")
    assert load(desk.folder / "json.py").forms("relu") == ("function",)
    import json

    assert json.loads("[]") == []


def test_a_file_may_import_its_neighbour(desk):
    desk.write("neighbour_of_layers.py", "def relu(x): return x * (x > 0)")
    path = desk.write("layers.py", "from neighbour_of_layers import relu")
    assert load(path).functions["relu"](np.array([-1.0, 2.0])).tolist() == [-0.0, 2.0]


@pytest.mark.parametrize("form", ["function", "class"])
def test_torch_declines_what_would_end_the_process(form):
    torch = pytest.importorskip("torch")
    arrays = {
        "x": np.moveaxis(np.ones((2, 2, 1, 2), np.float32), -1, 1),  # channels last
        "weight": np.ones((3, 2, 1, 1), np.float32),
        "bias": np.ones(3, np.float32),
    }
    arguments = {"stride": (1, 3), "padding": (1, 2), "dilation": 3, "groups": 1}
    subject = load("torch")
    with pytest.raises(Unsupported, match="oneDNN"):
        subject.call("conv2d", form, arrays, arguments)
    near = subject.call("conv2d", form, arrays, {**arguments, "stride": 1})
    plain = torch.nn.functional.conv2d(
        *map(torch.from_numpy, map(np.ascontiguousarray, arrays.values())), stride=(1, 1), padding=(1, 2), dilation=3
    )
    np.testing.assert_array_equal(near[0], plain)


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_what_torchs_compiler_gets_wrong_is_found(desk):
    """pytorch#198119, in torch 2.13: the overhanging last window's gradient is divided by the whole window.

    No smaller case is sought: each shape would be compiled anew, which takes a minute.
    """
    pytest.importorskip("torch")
    program = """
        from nnspec.adapters import load
        from nnspec.conformance.checks import load_checks
        from nnspec.conformance.requirements import CHECKS
        from nnspec.conformance.trial.trial import Trial

        load_checks()
        trial, check = Trial(load("torch-compile"), "function", "float32"), CHECKS["avg_pool2d.gradient.divisor"]
        outcome = trial.run(check, simplify=False)
        print(outcome.verdict, outcome.reason)
    """
    desk.write("program.py", program)
    done = desk.run("program.py")
    assert done.out.startswith("fail the gradient of x"), done.out + done.err


@pytest.mark.parametrize("name", sorted(adapters()))
def test_methods_of_an_adapter_take_what_the_contract_says(name):
    own = adapters()[name].load()
    contract = {n: getattr(method, "__wrapped__", method) for n, method in vars(Adapter).items() if callable(method)}
    for method, of_contract in contract.items():
        if method != "__init__" and hasattr(own, method):
            wanted = list(inspect.signature(of_contract).parameters)
            assert list(inspect.signature(getattr(own, method)).parameters) == wanted, method
    assert own.name == name


def test_an_adapter_lacks_the_optional_methods_that_it_does_not_define():
    offered = {name for name, method in vars(Adapter).items() if hasattr(Adapter, name) and inspect.isfunction(method)}
    assert offered == {"__init__", "to_native", "to_numpy", "versions", "sketched", "stream", "in_scripts"}
    assert not hasattr(Adapter(), "vjp")
    with pytest.raises(AttributeError, match="Adapter has no vjp"):
        Adapter().vjp


def test_a_class_that_only_inherits_a_vjp_which_says_nothing_has_no_gradients(desk):
    done = desk.check(
        """
        import numpy as np
        from nnspec.reference import module

        class ReLU(module.Module):
            def forward(self, x):
                return np.maximum(x, 0)
        """,
        "-n",
        0,
    )
    assert done.code == 0, done.out + done.err
    assert "the class lacks vjp" in done.out


def test_a_file_is_a_module_under_its_own_name(desk):
    """Objects of its classes can then be pickled, and a file beside it that imports it gets the same classes."""
    subject = load(desk.write("layers_of_their_own.py", "class ReLU:\n    def __call__(self, x): return x"))
    layer = subject.classes["ReLU"]()
    assert type(pickle.loads(pickle.dumps(layer))) is type(layer)
    assert sys.modules.pop("layers_of_their_own").ReLU is type(layer)


# -- devices -----------------------------------------------------------------------------------------------------------


def test_accuracy_that_a_device_loses_is_claimed_for_each_block():
    class Numbers(Adapter):
        def use_device(self, device):
            return ("L",)

    own = {"conv2d": {"accuracy": ("B2",)}, "relu": {"dtypes": ("float32",)}}
    plain = replace(load("reference"), framework=Numbers(), accuracy=("B2",), of_block=own)
    subject = load(plain, device="gpu")
    assert (subject.device, subject.accuracy) == ("gpu", ("B2", "L"))
    assert subject.of_block == {"conv2d": {"accuracy": ("B2", "L")}, "relu": {"dtypes": ("float32",)}}


def test_a_subject_on_a_device_that_is_named(desk):
    pytest.importorskip("torch")
    done = desk.nnspec("check", "torch", "--block", "relu", "--device", "cpu", "-n", 0)
    assert done.code == 0, done.out + done.err
    assert done.report["device"] == "cpu"
    assert desk.nnspec("check", "torch", "--block", "relu", "-n", 0).report["device"] is None


def test_the_script_of_a_failure_uses_the_device(desk):
    pytest.importorskip("torch")
    done = desk.check("import torch\ndef relu(x): return x.abs()", "--device", "cpu", "-n", 0)
    script = next(r["failure"]["script"] for r in done.report["results"] if r["verdict"] == "fail")
    assert "device = 'cpu'\ntorch.set_default_device(device)" in (desk.folder / script).read_text("utf-8")
    assert desk.run(script).code == 1


@pytest.mark.parametrize(
    ("subject", "device", "message"),
    [
        ("reference", "cuda", "works on arrays that have no device"),
        ("torch", "nowhere", "device 'nowhere': "),
        ("jax", "nowhere", "device 'nowhere': "),
    ],
)
def test_a_device_that_there_is_not(desk, subject, device, message):
    if subject != "reference":
        pytest.importorskip(subject)
    done = desk.nnspec("check", subject, "--block", "relu", "--device", device, "-n", 0)
    assert done.code == 2, done.out + done.err
    assert message in done.err

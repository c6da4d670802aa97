"""Networks in functional style: `init` and `apply`, of which nnspec makes modules."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path

import numpy as np
import pytest
from nnspec.adapters import SubjectError, load, networks, optimisers
from nnspec.adapters.carried import sources
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.trying import uncallable
from nnspec.conformance.checks import load_checks
from nnspec.conformance.checks.typical import with_typical_calls
from nnspec.conformance.report.script import reproduce
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.run import forms, run
from nnspec.conformance.trial.trial import Trial

MLP = (Path(__file__).parents[1] / "examples" / "numpy_functions.py").read_text("utf-8")
JAX = """
    import jax
    import jax.numpy as jnp
    import numpy as np

    NETWORKS = ("mlp",)

    def init(block, sizes, dtype):
        widths = (sizes["in_features"], *sizes["hidden_features"], sizes["out_features"])
        pairs = enumerate(zip(widths, widths[1:]), start=1)
        rng = np.random.default_rng()
        return {k: jnp.asarray(rng.normal(0, 1, s), dtype) for n, (i, o) in pairs
                for k, s in ((f"fc{n}.weight", (o, i)), (f"fc{n}.bias", (o,)))}

    def apply(block, state, x, training):
        last = len(state) // 2
        for n in range(1, last + 1):
            x = jnp.matmul(x, state[f"fc{n}.weight"].T, precision="highest") + state[f"fc{n}.bias"]
            x = x if n == last else jax.nn.relu(x)
        return x, state
"""

UPDATE = """
    def sgd_init(params):
        if not params:
            raise ValueError("expected at least one parameter")
        return {}

    def sgd_update(params, gradients, state, *, lr, momentum=0.0, weight_decay=0.0):
        if min(lr, momentum, weight_decay) < 0 or any(g.shape != params[key].shape for key, g in gradients.items()):
            raise ValueError("expected numbers of at least 0, and gradients like their parameters")
        moved = {}
        for key, g in gradients.items():
            lr, momentum, weight_decay = (jnp.asarray(number, g.dtype) for number in (lr, momentum, weight_decay))
            g = g + weight_decay * params[key] if weight_decay else g
            state = state | {key: g + momentum * state[key] if momentum and key in state else g}
            moved[key] = params[key] - lr * state[key]
        return params | moved, state
"""


def norm(block, sizes, dtype):
    return {"bn1.weight": np.ones(1, dtype), "bn1.running_mean": np.zeros(1, dtype)}


def count(block, state, x, training, sizes):
    return x * sizes["stride"], state | {"bn1.running_mean": state["bn1.running_mean"] + training}


def test_a_file_of_functions_conforms_as_a_class(desk):
    done = desk.check(MLP, "--dtype", "float32", "-n", 0)
    assert done.code == 0, done.out + done.err
    assert {(r["block"], r["form"]) for r in done.report["results"]} == {("mlp", "class"), ("sgd", "class")}
    assert {"mlp.gradient.first-weight", "sgd.training.equals-model", "sgd.parameters.tied"} <= done.verdicts("pass")
    unsupported = {name for name in done.verdicts("unsupported") if name.startswith("sgd.")}
    assert unsupported == {"sgd.buffers.statistics", "sgd.lr.group", "sgd.parameters.unused"}


def test_a_mistake_is_named_and_its_script_reproduces_it(desk):
    mistaken = MLP.replace("passed.append(np.maximum(x, 0))", "passed.append(x)")
    done = desk.check(mistaken, "--dtype", "float64", "-n", 0)
    assert "mlp.hidden.relu" in done.verdicts("fail")
    scripts = {r["requirement"]: r["failure"]["script"] for r in done.report["results"] if r["failure"]}
    assert "nnspec." not in (desk.folder / scripts["mlp.hidden.relu"]).read_text("utf-8")
    assert desk.run(scripts["mlp.hidden.relu"]).code == 1
    desk.write("layers.py", MLP)
    done = desk.run(scripts["mlp.hidden.relu"])
    assert done.code == 0, done.out + done.err


def test_a_mistake_in_an_update_is_named_and_its_script_reproduces_it(desk):
    mistaken = MLP.replace("velocity = gradient.copy()", "velocity = gradient")
    done = desk.check(mistaken, "--dtype", "float64", "--block", "sgd", "-n", 0)
    assert "sgd.momentum.kept" in done.verdicts("fail")
    scripts = {r["requirement"]: r["failure"]["script"] for r in done.report["results"] if r["failure"]}
    assert "nnspec." not in (desk.folder / scripts["sgd.momentum.kept"]).read_text("utf-8")
    assert desk.run(scripts["sgd.momentum.kept"]).code == 1
    desk.write("layers.py", MLP)
    done = desk.run(scripts["sgd.momentum.kept"])
    assert done.code == 0, done.out + done.err


def test_arrays_that_cannot_be_written_to_have_an_optimiser_too(desk):
    pytest.importorskip("jax")
    done = desk.check(JAX + UPDATE, "--dtype", "float32", "--block", "sgd", "-n", 0)
    assert done.code == 0, done.out + done.err
    assert "sgd.training.resumes" in done.verdicts("pass")
    assert "sgd.momentum.kept" in done.verdicts("unsupported")


def test_an_optimiser_has_the_numbers_that_the_update_takes():
    def sgd_update(params, gradients, state, *, lr):
        if lr < 0:
            raise ValueError("expected at least 0")
        return {key: p - lr * gradients.get(key, 0) for key, p in params.items()}, state

    made = optimisers.optimiser_of(lambda params: None, sgd_update)
    p, q = made["Parameter"](np.ones(2)), made["Parameter"](np.ones(2))
    with pytest.raises(TypeError, match="momentum"):
        made["SGD"]([p], 1.0, momentum=0.5)
    with pytest.raises(ValueError, match="expected at least 0"):
        made["SGD"]([p], -1.0)
    sgd = made["SGD"]([p, q], 0.5)
    p.grad = np.array([2.0, 4.0])
    sgd.step()
    assert (p.data.tolist(), q.data.tolist()) == ([0, -1], [1, 1])
    sgd.zero_grad()
    assert p.grad is None
    assert list(inspect.signature(made["SGD"]).parameters) == ["params", "lr"]


def test_an_update_that_returns_other_keys_is_refused():
    made = optimisers.optimiser_of(lambda params: None, lambda params, gradients, state, lr: ({}, state))
    sgd = made["SGD"]([made["Parameter"](np.ones(2))], 1.0)
    with pytest.raises(KeyError, match="0: expected parameters with the keys that sgd_update got"):
        sgd.step()


def test_a_library_that_differentiates_needs_no_vjp(desk):
    pytest.importorskip("jax")
    subject = load(desk.write("layers.py", JAX))
    assert subject.framework.name == "jax"
    x, ones = np.array([[1, -2]], np.float32), np.ones((1, 2), np.float32)
    layer = {"fc1.weight": np.eye(2, dtype=np.float32), "fc1.bias": np.zeros(2, np.float32)}
    arrays = {"x": x, **layer, "fc2.weight": ones, "fc2.bias": np.zeros(1, np.float32)}
    (y,) = subject.call("mlp", "class", arrays, {})
    assert y.tolist() == [[1]]
    gradients = subject.gradients("mlp", "class", {**arrays, "cotangent": np.array([[3]], np.float32)}, {})
    assert gradients["x"].tolist() == [[3, 0]]
    assert gradients["fc1.weight"].tolist() == [[3, -6], [0, 0]]
    assert gradients["fc2.bias"].tolist() == [3]


def test_a_script_of_a_gradient_stands_alone(desk):
    pytest.importorskip("jax")
    mistaken = JAX.replace('+ state[f"fc{n}.bias"]', '+ jax.lax.stop_gradient(state[f"fc{n}.bias"])')
    load_checks()
    check, subject = CHECKS["mlp.gradient.second-bias"], load(desk.write("layers.py", mistaken))
    outcome = run(Trial(subject, "class", "float64"), check)
    script = desk.write("script.py", reproduce(subject, check, "class", "float64", outcome.failure))
    assert "nnspec." not in script.read_text("utf-8")
    assert desk.run(script).code == 1
    desk.write("layers.py", JAX)
    done = desk.run(script)
    assert done.code == 0, done.out + done.err


def test_modules_have_modes_entries_holders_and_copies():
    block = networks.networks_of(norm, count, blocks=("basic_block",))["ResidualBlock"]
    module = block(1, 1, stride=2, dtype=np.float64)
    assert module(3.0) == 6
    assert module.state_dict() == {"bn1.weight": [1], "bn1.running_mean": [1]}
    other = copy.deepcopy(module)
    module.eval()
    module(3.0)
    assert module.state_dict()["bn1.running_mean"] == [1]
    assert other.training
    other(3.0)
    assert (other.bn1.running_mean, module.bn1.running_mean) == ([2], [1])
    module.load_state_dict(other.state_dict())
    assert module.state_dict()["bn1.running_mean"] == [2]
    assert [key for key, _ in module.named_parameters()] == ["bn1.weight"]
    assert [holder.grad for holder in module.parameters()] == [None]


def test_classes_have_the_names_of_their_pages():
    made = networks.networks_of(norm, count)
    assert {cls.block: name for name, cls in made.items()} == {b: SIGNATURES[b].classes[0] for b in networks.BLOCKS}


def test_a_state_with_other_keys_is_refused():
    module = networks.networks_of(norm, lambda block, state, x, training: (x, {"bn1.weight": x}))["ResNet34"]()
    with pytest.raises(KeyError, match=r"bn1\.running_mean: expected a state with the keys that init returned"):
        module(1.0)


@pytest.mark.parametrize(
    "text",
    [
        "def init(key, x): pass\ndef apply(params, x): pass",
        "def init(block, sizes, dtype): pass",
        "init = apply = 3",
        "init = apply = print",
    ],
)
def test_other_functions_of_these_names_are_no_networks(desk, text):
    with pytest.raises(SubjectError, match="none of the names that nnspec checks"):
        load(desk.write("layers.py", text))


def test_a_file_may_have_both_networks_and_classes(desk):
    text = MLP.replace('NETWORKS = ("mlp",)', "class ResNet34:\n        pass")
    subject = load(desk.write("layers.py", text))
    assert not issubclass(subject.classes["ResNet34"], networks.Network)
    assert issubclass(subject.classes["MLP"], networks.Network)


def test_a_framework_whose_modules_are_its_own_objects_is_told(desk):
    pytest.importorskip("torch")
    text = MLP.replace("numpy as np", "numpy as np, torch").replace("layers(state, x)[1]", "torch.relu(x)")
    with pytest.raises(SubjectError, match="init and apply: torch takes modules of its own classes alone"):
        load(desk.write("layers.py", text))


def test_a_network_that_is_unknown_is_told(desk):
    with pytest.raises(SubjectError, match=r"NETWORKS = \('mpl',\): expected some of mlp, basic_block, resnet34"):
        load(desk.write("layers.py", MLP.replace('"mlp"', '"mpl"')))


OPTIMISERS = {
    "torch": """
        import torch

        class SGD(torch.optim.Optimizer):
            def __init__(self, params, lr):
                super().__init__(params, {"lr": lr})

            @torch.no_grad()
            def step(self):
                for group in self.param_groups:
                    for p in group["params"]:
                        if p.grad is not None:
                            p -= group["lr"] * p.grad
    """,
    "numpy": """
        import torch  # and a file that names two libraries

        import numpy as np

        class SGD:
            def __init__(self, params, lr):
                self.params, self.lr = list(params), lr

            def step(self):
                for p in self.params:
                    if p.grad is not None:
                        p.data -= np.asarray(self.lr, p.data.dtype) * p.grad

            def zero_grad(self):
                for p in self.params:
                    p.grad = None
    """,
}


@pytest.mark.parametrize("framework", OPTIMISERS)
def test_an_optimiser_alone_is_judged_with_parameters_of_its_framework(desk, framework):
    pytest.importorskip("torch")
    load_checks()
    subject = load(str(desk.write("layers.py", OPTIMISERS[framework])))
    assert subject.framework.name == framework
    assert forms(subject, CHECKS["module.mode.default"]) == ()
    for name in ("step.value", "zero-grad.clears", "parameters.in-place"):
        outcome = run(Trial(subject, "class", "float32"), CHECKS[f"sgd.{name}"])
        assert outcome.verdict == "pass", (name, outcome.reason)


@pytest.mark.parametrize("framework", OPTIMISERS)
def test_a_script_about_an_optimiser_alone_has_its_parameter(desk, framework):
    pytest.importorskip("torch")
    _script_tells(desk, OPTIMISERS[framework], (" -= ", " += "), "sgd.step.value")


def _script_tells(desk, text, mistake, identifier):
    """The script of a failure exits with 1 as long as the mistake is in the file, and with 0 without it."""
    load_checks()
    subject, check = load(str(desk.write("layers.py", text.replace(*mistake)))), CHECKS[identifier]
    failure = run(Trial(subject, "class", "float32"), check).failure
    desk.write("script.py", reproduce(subject, check, "class", "float32", failure))
    assert desk.run("script.py").code == 1
    desk.write("layers.py", text)
    done = desk.run("script.py")
    assert done.code == 0, done.out + done.err


BLOCK = """
import torch.nn as nn
import torch.nn.functional as F


class BasicBlock(nn.Module):
    def __init__(self, inplanes, planes, stride=1, downsample=None):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)
"""


def test_a_residual_block_that_takes_its_projection_is_given_one(desk):
    pytest.importorskip("torch")
    load_checks()
    subject = load(str(desk.write("layers.py", BLOCK)))
    for name in ("shortcut.negative", "stride.first", "parameters.count", "gradient.projection", "state.complete"):
        outcome = run(Trial(subject, "class", "float32"), CHECKS[f"basic_block.{name}"])
        assert outcome.verdict == "pass", (name, outcome.reason)
    outcome = run(Trial(subject, "class", "float32"), CHECKS["basic_block.projection.norm"])
    assert (outcome.verdict, outcome.reason) == ("unsupported", "the block is given its projection")


def test_a_script_about_such_a_block_gives_it_its_projection(desk):
    pytest.importorskip("torch")
    mistake = ("self.downsample(x)", "F.relu(self.downsample(x))")
    _script_tells(desk, BLOCK, mistake, "basic_block.shortcut.negative")


RESNET = (
    BLOCK
    + """
import torch


class ResNet(nn.Module):
    def __init__(self, block, layers, num_classes):
        super().__init__()
        self.inplanes = 64
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for n, (planes, stride) in enumerate([(64, 1), (128, 2), (256, 2), (512, 2)]):
            setattr(self, f"layer{n + 1}", self.stage(block, planes, layers[n], stride))
        self.fc = nn.Linear(512, num_classes)

    def stage(self, block, planes, length, stride):
        downsample = None
        if stride != 1 or self.inplanes != planes:
            layers = nn.Conv2d(self.inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            downsample = nn.Sequential(*layers)
        first, self.inplanes = block(self.inplanes, planes, stride, downsample), planes
        return nn.Sequential(first, *(block(planes, planes) for _ in range(1, length)))

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for n in range(1, 5):
            x = getattr(self, f"layer{n}")(x)
        return self.fc(x.mean((2, 3)))


"""
)
SHOWN = {
    "def resnet34(num_classes=1000): return ResNet(BasicBlock, [3, 4, 6, 3], num_classes)": "in_channels=3",
    "def ResNet34(): return ResNet(BasicBlock, [3, 4, 6, 3], 10)": "in_channels=3, num_classes=10",
    """class ResNet34(ResNet):
    def __init__(self): super().__init__(BasicBlock, [3, 4, 6, 3], 10)""": "in_channels=3, num_classes=10",
}


@pytest.mark.parametrize("text", SHOWN, ids=["a function", "of no sizes", "a class"])
def test_a_network_without_parameters_for_its_sizes_has_those_that_it_shows(desk, text):
    pytest.importorskip("torch")
    load_checks()
    subject = load(str(desk.write("layers.py", RESNET + text)))
    assert subject.framework.name == "torch"
    assert str(subject.domain("resnet34")) == SHOWN[text]
    assert not uncallable(with_typical_calls(subject, ["resnet34"]), ["resnet34"]).uncallable
    for name in ("stages.lengths", "state.complete", "scores.linear"):
        outcome = run(Trial(subject, "class", "float32"), CHECKS[f"resnet34.{name}"])
        assert outcome.verdict == "pass", (name, outcome.reason)


def test_a_function_that_takes_more_than_sizes_is_no_network(desk):
    path = desk.write("layers.py", "def relu(x): return x\ndef resnet34(x, weights): return x")
    assert not load(str(path)).classes


def test_a_script_calls_the_function_that_returns_a_network(desk):
    pytest.importorskip("torch")
    subject = load(str(desk.write("layers.py", RESNET + next(iter(SHOWN)))))
    text = subject.recipe("ResNet34")
    head = "from __future__ import annotations\nimport inspect, runpy, sys"
    exec("\n".join([head, *sources(subject.framework, text), text]), names := {})
    assert names["ResNet34"](num_classes=7).fc.out_features == 7


def test_a_function_of_any_name_may_be_named_as_a_network(desk):
    pytest.importorskip("torch")
    path = desk.write("layers.py", RESNET + next(iter(SHOWN)).replace("resnet34", "mine"))
    assert [*load(f"{path}:mine --as resnet34").classes] == ["ResNet34"]


PERCEPTRONS = {
    "torch": """
        import torch.nn as nn
        import torch.nn.functional as F

        class MLP(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(12, 7), nn.Linear(7, 5)

            def forward(self, x):
                return self.second(F.relu(self.first(x)))
    """,
    "numpy": """
        import numpy as np

        class MLP:
            def __init__(self):
                rng = np.random.default_rng()
                self.w1, self.b1 = rng.normal(size=(7, 12)), np.zeros(7)
                self.w2, self.b2 = rng.normal(size=(5, 7)), np.zeros(5)

            def __call__(self, x):
                return np.maximum(x @ self.w1.T + self.b1, 0) @ self.w2.T + self.b2
    """,
}


@pytest.mark.parametrize("framework", PERCEPTRONS)
def test_a_perceptron_of_fixed_sizes_is_judged_with_them(desk, framework):
    pytest.importorskip("torch")
    load_checks()
    subject = with_typical_calls(load(str(desk.write("layers.py", PERCEPTRONS[framework]))), ["mlp"])
    sizes = "in_features=12, hidden_features=7, out_features=5"
    assert str(subject.domain("mlp")) == sizes
    assert not uncallable(subject, ["mlp"]).uncallable
    for name in ("output.value", "hidden.relu", "parameters.complete"):
        outcome = run(Trial(subject, "class", "float64"), CHECKS[f"mlp.{name}"])
        assert outcome.verdict == "pass", (name, outcome.reason)


def test_a_script_about_a_perceptron_of_fixed_sizes_builds_it(desk):
    pytest.importorskip("torch")
    _script_tells(desk, PERCEPTRONS["torch"], ("F.relu(self.first(x))", "self.first(x)"), "mlp.hidden.relu")


LISTED = """
    import torch.nn as nn
    import torch.nn.functional as F

    class MLP(nn.Module):
        def __init__(self, in_features, hidden_sizes, out_features):
            super().__init__()
            sizes = [in_features, *hidden_sizes, out_features]
            self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes[:-1], sizes[1:]))

        def forward(self, x):
            for layer in self.layers[:-1]:
                x = F.relu(layer(x))
            return self.layers[-1](x)
"""


def test_a_perceptron_that_takes_lists_is_judged_in_every_depth(desk):
    pytest.importorskip("torch")
    done = desk.check(LISTED, "--dtype", "float32", "-n", 1)
    assert done.code == 0, done.out
    assert "judged 44 of 45 musts (1 unsupported)" in done.out  # there is no other block to call between two calls


def test_a_script_about_a_perceptron_that_takes_lists_builds_it(desk):
    pytest.importorskip("torch")
    _script_tells(desk, LISTED, ("F.relu(layer(x))", "layer(x)"), "mlp.hidden.relu")


CHAIN = """
    from torch import nn

    class Sequential(nn.Module):
        def __init__(self, *layers):
            super().__init__()
            for number, layer in enumerate(layers):
                self.add_module(str(number), layer)

        def forward(self, x):
            for layer in self._modules.values():  # children() would give a module that stands twice once
                x = layer(x)
            return x
"""


def test_a_sequential_alone_is_judged_with_torchs_layers(desk):
    pytest.importorskip("torch")
    done = desk.check(CHAIN, "--dtype", "float32", "-n", 1)
    assert done.verdicts("fail") <= {"sequential.refuses.non-module"}, done.out
    assert len(done.verdicts("pass")) >= 15
    assert {r["block"] for r in done.report["results"]} == {"sequential"}
    assert "there is no class Linear" not in done.out


def test_a_script_about_a_sequential_alone_has_layers(desk):
    pytest.importorskip("torch")
    _script_tells(
        desk, CHAIN, ("self._modules.values():", "reversed(self._modules.values()):"), "sequential.call.order"
    )

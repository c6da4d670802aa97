"""How functions and classes are called: operands by name, alias or position, and what cannot be called at all."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec.adapters import SubjectError, load
from nnspec.adapters.calling import bind, carried_back
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.trying import constructions, uncallable
from nnspec.conformance import check
from nnspec.reference import linear as reference

ARRAYS = {"x": np.array([[1.0, 2.0]]), "weight": np.array([[3.0, 4.0], [5.0, 6.0]]), "bias": np.array([7.0, 8.0])}
COTANGENT = np.array([[1.0, 10.0]])


def product(x, weight, bias):
    y = x @ weight.T
    return y if bias is None else y + bias


def other_names(inp, w, b=None):
    return product(inp, w, b)


def other_order(weight, bias, x):
    return product(x, weight, bias)


def unknown_names(a, m, c=None):
    return product(a, m, c)


def keywords_alone(*, kernel, X, biases=None):
    return product(X, kernel, biases)


def positions_alone(a, m, c=None, /):
    return product(a, m, c)


def any_keywords(x, **others):
    return product(x, others["weight"], others["bias"])


def number_for_none(x, W, b=0.0):
    return x @ W.T + b


def gap(x, weight, activation=None, bias=None):
    assert activation is None
    return product(x, weight, bias)


MANNERS = [
    other_names, other_order, unknown_names, keywords_alone, positions_alone, any_keywords, number_for_none, gap,
]  # fmt: skip


@pytest.mark.parametrize("function", MANNERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("bias", [True, False])
def test_operands_reach_their_parameters(function, bias):
    arrays = ARRAYS if bias else {**ARRAYS, "bias": None}
    [y] = load({"linear": function}, "numpy").call("linear", "function", arrays, {})
    np.testing.assert_array_equal(y, product(*arrays.values()))


def test_a_function_in_the_manner_of_the_page_is_called_itself():
    assert load({"linear": reference.linear}, "numpy").functions["linear"] is reference.linear


def test_arguments_are_no_operands():
    def conv2d(image, kernel, stride=1, padding=0):
        return image

    binding = bind(conv2d, "conv2d")
    assert dict(binding.operands) == {"x": "image", "weight": "kernel"}
    assert load({"conv2d": conv2d}, "numpy").lacks("conv2d", "function") >= {"bias", "dilation", "groups"}


def test_batch_norm_has_names_of_its_own():
    def batch_norm(inputs, gamma, beta, moving_mean, moving_variance, training, momentum=0.1, eps=1e-5):
        return inputs, moving_mean, moving_variance

    binding = bind(batch_norm, "batch_norm")
    assert list(binding.operands) == ["x", "weight", "bias", "running_mean", "running_var"]
    assert binding.always == {"training": False}
    lacks = load({"batch_norm": batch_norm}, "numpy").lacks("batch_norm", "function")
    assert "default of training" in lacks
    assert "default of momentum" not in lacks


def vjp_in_its_own_order(g, weight, x, b=None):
    dx, dw, db = reference.linear_vjp(g, x, weight, b)
    return dw, dx, db


def vjp_of_what_is_there(g, inp, w, b=None):
    return tuple(d for d in reference.linear_vjp(g, inp, w, b) if d is not None)


def vjp_without_a_bias(g, x, weight):
    return reference.linear_vjp(g, x, weight, np.zeros(len(weight)))


@pytest.mark.parametrize("vjp", [vjp_in_its_own_order, vjp_of_what_is_there, vjp_without_a_bias])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_reach_their_operands(vjp, bias):
    arrays = {**ARRAYS, "bias": ARRAYS["bias"] if bias else None, "cotangent": COTANGENT}
    found = load({"linear": other_names, "linear_vjp": vjp}, "numpy").gradients("linear", "function", arrays, {})
    right = reference.linear_vjp(COTANGENT, *(arrays[name] for name in ("x", "weight", "bias")))
    for name, gradient in zip(("x", "weight", "bias"), right, strict=True):
        if gradient is not None:
            np.testing.assert_array_equal(found[name], gradient, name)


def test_gradients_of_constants_may_be_left_out():
    back = carried_back(lambda g, *arrays: (1, 2, 3), "xmvwb", "xmvwb", "mv")
    assert back(None, *"xmvwb") == (1, None, None, 2, 3)
    with pytest.raises(TypeError, match="3 gradients, expected 4"):
        carried_back(lambda g, *arrays: (1, 2, 3), "abcd", "abcd")(None, *"abcd")


def test_scripts_make_the_same_call(desk):
    done = desk.check(
        """
        import numpy as np

        def linear(b, w, inp):
            return inp @ w.T + (0 if b is None else 2 * b)

        def linear_vjp(g, w, inp, b):
            return 2 * w.T @ g.T, None, None
        """,
        *("--dtype", "float64", "-n", 0),
    )
    broken = {r["requirement"]: r["failure"] for r in done.report["results"] if r["verdict"] == "fail"}
    assert {"linear.bias.per-feature", "linear.gradient.weight"} <= broken.keys()
    for name in ("linear.bias.per-feature", "linear.gradient.weight"):
        script = desk.run(broken[name]["script"])
        assert script.code == 1, script.out + script.err
        assert "Error" not in script.err
    fixed = (desk.folder / "layers.py").read_text().replace("2 * b", "b")
    desk.write("layers.py", fixed)
    assert desk.run(broken["linear.bias.per-feature"]["script"]).code == 0


# -- what cannot be called ---------------------------------------------------------------------------------------------


def test_typical_calls_can_be_made_of_the_reference():
    subject = uncallable(load("reference"), None)
    assert subject.uncallable == {}
    for stem, signature in SIGNATURES.items():
        assert len(signature.calls) >= 3 or signature.function is None, f"{stem}: expected three typical calls"
        for name in {*signature.classes} & {*subject.classes} - {"SGD"}:
            assert list(constructions(stem, name)), f"{name}: expected typical constructions"


HELPER = """
    def relu(x, slope):
        return x if x > 0 else slope * x
"""
CONFIGURED = """
    import numpy as np

    def relu(x):
        return np.maximum(x, 0)

    class Linear:
        def __init__(self, config):
            self.weight = np.zeros(config["size"])
"""


@pytest.mark.parametrize(
    ("text", "block", "says"),
    [
        (HELPER, "relu", "relu cannot be called as relu(x): it raises TypeError"),
        (CONFIGURED, "linear", "linear cannot be built as Linear(2, 3): it raises TypeError"),
    ],
)
def test_what_cannot_be_called_is_one_finding(desk, text, block, says):
    done = desk.check(text, "--block", block, "--dtype", "float32", "-n", 1)
    assert done.code == 1, done.out + done.err
    [failure] = [r for r in done.report["results"] if r["verdict"] == "fail"]
    assert says in failure["failure"]["message"]
    assert says in done.out
    assert done.verdicts("pass") == done.verdicts("blocked") == set()
    script = desk.run(failure["failure"]["script"])
    assert script.code == 1
    assert "TypeError" in script.err


def test_a_class_that_cannot_be_built_costs_its_own_block(desk):
    assert desk.check(CONFIGURED, "--block", "relu", "--dtype", "float32", "-n", 0).code == 0


def test_a_class_that_is_no_module_costs_its_own_block(desk):
    pytest.importorskip("torch")
    text = "from torch import nn\n\nReLU = nn.ReLU\n\nclass MLP:\n    sizes = 3, 4\n"
    subject = uncallable(load(desk.write("layers.py", text)), None)
    assert list(subject.uncallable) == [("mlp", "class")]
    assert "cannot be built as MLP(1, 1, 1)" in subject.uncallable["mlp", "class"].sentence


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ("def __init__(self, lr=0.1):\n            self.lr = lr", "built as SGD([p], lr=1.0): it raises TypeError"),
        ("def __init__(self, params, lr):\n            pass", "used as sgd.step(): it raises AttributeError"),
    ],
)
def test_an_optimiser_of_another_kind_is_one_finding(desk, members, says):
    done = desk.check(f"class SGD:\n        {members}\n", "--dtype", "float32", "-n", 0)
    [failure] = [r for r in done.report["results"] if r["verdict"] == "fail"]
    assert says in failure["failure"]["message"]
    script = desk.run(failure["failure"]["script"])
    assert script.code == 1
    assert says.split()[-1] in script.err


def test_one_call_that_returns_is_enough():
    def relu(x):
        if x.ndim < 4:
            raise ValueError("images alone")
        return np.maximum(x, 0)

    assert uncallable(load({"relu": relu}, "numpy"), None).uncallable == {}


def test_a_typical_call_that_ends_the_process_leaves_the_checks(desk):
    text = """
        import os, pathlib
        import numpy as np

        def relu(x):
            if x.shape == (2,) and not pathlib.Path("tried").exists():
                pathlib.Path("tried").touch()
                os.abort()
            return np.maximum(x, 0)
    """
    done = desk.check(text, "--dtype", "float32", "-n", 2)
    assert done.code == 0, done.out + done.err
    assert (desk.folder / "tried").exists()
    assert done.verdicts("crash") == set()


# -- names -------------------------------------------------------------------------------------------------------------

MINE = """
    import numpy as np

    def rectify(values):
        return np.maximum(values, 0)

    def rectify_vjp(g, values):
        return np.where(values > 0, g, 0)

    class Rectifier:
        def forward(self, x):
            self.positive = x > 0
            return np.maximum(x, 0)

        def backward(self, g):
            return np.where(self.positive, g, 0)

    class Transformer:
        pass
"""


@pytest.mark.parametrize("name", ["rectify", "Rectifier"])
def test_any_name_can_be_judged_as_a_block(desk, name):
    desk.write("mine.py", MINE)
    done = desk.nnspec("check", f"mine.py:{name}", "--as", "relu", "--dtype", "float32", "-n", 0)
    assert done.code == 0, done.out + done.err
    assert "relu.gradient.positive" in done.verdicts("pass")
    assert done.report["subject"] == f"mine.py:{name} --as relu"


def test_an_object_is_judged_as_the_block_that_is_named():
    def rectify(values):
        return np.maximum(values, 0)

    class Twice:
        def __call__(self, x):
            return 2 * np.maximum(x, 0)

    assert check(rectify, block="relu", dtype="float32")["conforms"]
    for twice in (Twice, Twice()):
        report = check(twice, block="relu", dtype="float32")
        assert "relu.positive.kept" in [r["requirement"] for r in report["results"] if r["verdict"] == "fail"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mine.py:rectify"], "'rectify' is not a name that nnspec knows; say --as BLOCK"),
        (["mine.py:rectify", "--as", "no_block"], "--as no_block: there is no page for this block; the blocks are"),
        (["mine.py:rectify", "--as", "mlp"], "rectify is not a class, and mlp has no form as a function"),
        (["mine.py:rectify", "--as", "ReLU"], "rectify is a function; ReLU is not"),
        (["mine.py:absent", "--as", "relu"], "no 'absent' to judge as relu"),
        (["mine.py", "--as", "relu"], "--as relu: say which name it is about, as in mine.py:MyName"),
        (["mine.py:Transformer"], "there is no page for Transformer; the blocks are einsum, linear"),
        (["mine.py"], "there is no page for Transformer; the blocks are einsum, linear"),
        (["no_such_package.layers"], "expected numpy, reference, cupy, jax"),
        (["json.nothing:relu"], "json.nothing: there is no module 'json.nothing'"),
    ],
)
def test_a_name_that_cannot_be_judged_gets_a_sentence(desk, arguments, says):
    desk.write("mine.py", MINE)
    done = desk.nnspec("check", *arguments, "-n", 0)
    assert done.code == 2, done.out + done.err
    assert says in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("subject", ["mypackage.inner.layers:relu", "mypackage/inner/layers.py"])
def test_a_module_of_a_package_may_import_its_relatives(desk, subject):
    (desk.folder / "mypackage" / "inner").mkdir(parents=True)
    desk.write("mypackage/__init__.py", "")
    desk.write("mypackage/values.py", "SLOPE = 0.5")
    text = "from ..values import SLOPE\n\ndef relu(x):\n    return x * (x > 0) + SLOPE * x * (x < 0)\n"
    desk.write("mypackage/inner/layers.py", text)
    done = desk.nnspec("check", subject, "--dtype", "float32", "-n", 1)
    assert done.code == 1, done.out + done.err
    failure = next(
        r["failure"] for r in done.report["results"] if r["requirement"] == "relu.negative.zero" and r["failure"]
    )
    script = desk.run(failure["script"])
    assert script.code == 1
    assert "differs from what the specification says" in script.err


def test_an_installed_module_can_be_judged():
    assert load("numpy:einsum").forms("einsum") == ("function",)


# -- NumPy layers with a forward and a backward pass -------------------------------------------------------------------

DENSE = """
    import numpy as np

    class Linear:
        def __init__(self, in_features, out_features, bias=True):
            limit = in_features**-0.5 if in_features else 0.0
            W = np.random.uniform(-limit, limit, (out_features, in_features))
            b = np.random.uniform(-limit, limit, out_features) if bias else None
            {keep}

        def forward(self, x):
            W, b = {get}
            if x.ndim < 1 or x.shape[-1] != W.shape[1]:
                raise ValueError("expected other features")
            self.x = x
            return x @ W.T if b is None else x @ W.T + b

        def backward(self, dy):
            W, b = {get}
            rows = int(np.prod(dy.shape[:-1]))
            x, dy_rows = self.x.reshape(rows, W.shape[1]), dy.reshape(rows, W.shape[0])
            dW, db = dy_rows.T @ x, dy_rows.sum(0) {mistake}
            {put}
            return {returned}
"""
BESIDE = {"keep": "self.W, self.b = W, b", "get": "self.W, self.b"}
STORES = {
    "d": BESIDE | {"put": "self.dW, self.db = dW, db"},
    "grad": {"keep": "self.weights, self.bias = W, b", "get": "self.weights, self.bias"}
    | {"put": "self.grad_weights, self.bias_grad = dW, db"},
    "mixed": {"keep": "self.weight, self.bias = W, b", "get": "self.weight, self.bias"}
    | {"put": "self.dw, self.db = dW, db"},
    "dicts": {
        "keep": "self.params = {'W': W} | ({} if b is None else {'b': b}); self.grads = {}",
        "get": "self.params['W'], self.params.get('b')",
        "put": "self.grads['W'], self.grads['b'] = dW, db",
    },
}


STORES = {name: {"returned": "dy @ W"} | store for name, store in STORES.items()}
STORES["returned"] = BESIDE | {"put": "pass", "returned": "(dy @ W, dW, db)"}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_a_layer_from_scratch_are_found(desk, store, bias):
    subject = load(desk.write("layers.py", DENSE.format(**STORES[store], mistake="")))
    arrays = {**ARRAYS, "bias": ARRAYS["bias"] if bias else None, "cotangent": COTANGENT}
    found = subject.gradients("linear", "class", arrays, {})
    right = reference.linear_vjp(COTANGENT, *(arrays[name] for name in ("x", "weight", "bias")))
    for name, gradient in zip(("x", "weight", "bias"), right, strict=True):
        if gradient is not None:
            np.testing.assert_array_equal(found[name], gradient, name)


def test_the_script_of_a_layer_from_scratch_fails_until_it_is_right(desk):
    done = desk.check(DENSE.format(**STORES["d"], mistake="* 2"), "--dtype", "float32", "-n", 1)
    assert done.code == 1, done.out + done.err
    failure = next(r["failure"] for r in done.report["results"] if r["requirement"] == "linear.gradient.bias")
    assert desk.run(failure["script"]).code == 1
    desk.write("layers.py", DENSE.format(**STORES["d"], mistake=""))
    script = desk.run(failure["script"])
    assert script.code == 0, script.out + script.err


def test_a_pair_that_passes_a_cache_is_a_function_and_its_vjp(desk):
    done = desk.check(
        """
        import numpy as np

        def relu_forward(x):
            return np.maximum(x, 0), x

        def relu_backward(dout, cache):
            return np.where(cache >= 0, dout, 0)
        """,
        *("--dtype", "float32", "-n", 1),
    )
    assert done.verdicts("fail") == {"relu.gradient.zero"}, done.out + done.err
    failure = next(r["failure"] for r in done.report["results"] if r["verdict"] == "fail")
    assert desk.run(failure["script"]).code == 1


# -- which library -----------------------------------------------------------------------------------------------------

HIDDEN = "import numpy as np, torch\ndef _torch(x): return torch.relu(x)\ndef _numpy(x): return np.maximum(x, 0)\n"


@pytest.mark.parametrize(
    ("text", "library"),
    [
        ("import numpy as np, torch\ndef relu(x): return torch.relu(x) if np.prod(x.shape) else x.clone()", "torch"),
        (HIDDEN + "def relu(x): return _torch(x)", "torch"),
        (HIDDEN + "def relu(x): return _torch(x) if int(np.prod(x.shape)) else x.clone()", "torch"),
        (HIDDEN + "def relu(x): return np.asarray(_numpy(np.negative(np.negative(x))))", "numpy"),
        (HIDDEN + "def relu(x, y): return torch.relu(x)", "torch"),  # works on neither: what is told is that it cannot
    ],
)
def test_the_first_call_that_succeeds_tells_the_library(desk, text, library):
    pytest.importorskip("torch")
    subject = load(desk.write("layers.py", text))
    assert subject.framework.name == library


def test_where_two_libraries_work_the_user_is_asked(desk):
    pytest.importorskip("torch")
    path = desk.write("layers.py", "import numpy as np, torch\ndef relu(x): return x * (x > 0)")
    with pytest.raises(SubjectError, match="--framework torch or --framework numpy"):
        load(path)

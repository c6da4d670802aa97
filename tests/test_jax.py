"""JAX as a subject: the ones that come with nnspec, and files with functions on JAX arrays."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec.adapters import SubjectError, Unsupported, load
from nnspec.adapters.blame import Raised
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.linear import linear_vjp

jax = pytest.importorskip("jax")

LAYERS = """
    import jax
    import jax.numpy as jnp

    @jax.jit
    def relu(x):
        return jnp.where(x <= 0, jnp.zeros_like(x), x)

    def global_avg_pool2d(x):
        if x.ndim != 4:
            raise ValueError("expected images")
        return x.mean((2, 3))
"""


# -- the subjects that come with nnspec --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jax", "jax-jit"])
def test_named(desk, name, long):
    """With --long, of a block with parameters too; the workflow conformance.yml judges all blocks."""
    blocks = ("global_avg_pool2d", "linear") if long else ("global_avg_pool2d",)
    chosen = [word for block in blocks for word in ("--block", block)]
    done = desk.nnspec("check", name, *chosen, "--dtype", "float64", "-n", 0)
    assert done.code == 0, done.out + done.err
    assert done.report["versions"]["jax"] == jax.__version__
    assert done.report["totals"]["pass"] > 10


def test_float64_is_float64():
    third = np.array([1 / 3])
    (y,) = load("jax").call("relu", "function", {"x": third}, {})
    assert y.dtype == np.float64
    assert y == third


@pytest.mark.parametrize("name", ["jax", "jax-jit"])
def test_refusals(name):
    subject, ones = load(name), lambda *shape: np.ones(shape, np.float32)
    image, kernel = {"x": ones(1, 2, 5, 5)}, {"weight": ones(3, 2, 3, 3), "bias": None}
    for stem, arrays, arguments in [
        ("linear", {"x": ones(2, 3), "weight": ones(4, 3), "bias": ones(1)}, {}),
        ("conv2d", {**image, **kernel}, {"padding": -1}),
        ("conv2d", {**image, **kernel}, {"dilation": 3}),
        ("conv2d", {**image, **kernel, "bias": ones(1)}, {}),
        ("conv_transpose2d", {**image, "weight": ones(2, 3, 3, 3), "bias": None}, {"output_padding": 1}),
        ("max_pool2d", image, {"kernel_size": 2, "padding": 2}),
        ("avg_pool2d", image, {"kernel_size": 2, "divisor_override": 0}),
        (
            "batch_norm",
            {"x": ones(1, 2), **dict.fromkeys(("running_mean", "running_var"), ones(2))},
            {"training": True},
        ),
    ]:
        with pytest.raises(Raised) as raised:
            subject.call(stem, "function", arrays, arguments)
        assert isinstance(raised.value.error, ValueError)
        assert "expected" in str(raised.value.error)


@pytest.mark.parametrize(
    ("stem", "image", "kernel", "arguments"),
    [
        ("conv_transpose2d", (2, 3), (5, 2), {"stride": 2, "padding": (0, 1)}),
        ("conv_transpose2d cotangent", (3, 3), (5, 4), {"stride": 2, "padding": (1, 3)}),
        ("conv2d cotangent", (4, 4), (4, 2), {"stride": (3, 2), "padding": (2, 1)}),
    ],
)
def test_what_would_end_the_process_is_declined(stem, image, kernel, arguments):
    """XLA's defect goes by sizes alone; a row or a column more, and nothing is wrong."""
    stem, *cotangent = stem.split()
    arrays = {"x": np.ones((1, 1, *image)), "weight": np.ones((1, 1, *kernel)), "bias": None}
    arrays |= dict.fromkeys(cotangent)
    declines = load("jax").framework.known_defect
    assert "XLA" in declines(stem, arrays, arguments)
    assert declines(stem, {**arrays, "x": np.ones((1, 1, image[0], image[1] + 2))}, {**arguments, "padding": 0}) is None
    assert "XLA" in declines(stem, arrays, {**arguments, "groups": 2})  # in float64; see the next line
    narrow = {n: None if a is None else a.astype(np.float32) for n, a in arrays.items()}
    assert declines(stem, narrow, {**arguments, "groups": 2}) is None
    with pytest.raises(Unsupported, match="XLA"):
        load("jax-jit").gradients(stem, "function", {**arrays, "cotangent": arrays["x"]}, arguments)


def test_what_has_been_compiled_is_let_go():
    from nnspec.adapters.for_jax_jit import JITted

    double = jax.jit(lambda x: 2 * x)
    double(np.ones(3))
    for _ in range(10):
        JITted().forget()
    assert double._cache_size() == 0


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_of_functions(desk, long):
    done = desk.check(LAYERS, "--dtype", "float32", "-n", 0, *([] if long else ["--block", "global_avg_pool2d"]))
    assert done.code == 0, done.out + done.err
    assert "jax" in done.report["versions"]
    assert {r["form"] for r in done.report["results"]} == {"function"}


def test_a_mistake_is_named_and_its_script_stands_alone(desk):
    mistaken = LAYERS.replace("jnp.where(x <= 0, jnp.zeros_like(x), x)", "jnp.where(x > 0, x, jnp.zeros_like(x))")
    done = desk.check(mistaken, "--dtype", "float64", "--block", "relu", "-n", 0)
    assert done.code == 1
    assert done.verdicts("fail") == {"relu.nan.propagates"}
    (failure,) = (r["failure"] for r in done.report["results"] if r["failure"])
    assert 'jax.config.update("jax_enable_x64", True)' in (desk.folder / failure["script"]).read_text("utf-8")
    assert desk.run(failure["script"]).code == 1
    desk.write("layers.py", LAYERS)
    assert desk.run(failure["script"]).code == 0


def test_a_numpy_array_is_no_jax_array(desk):
    text = "import numpy as np\nimport jax\n\ndef relu(x: jax.Array):\n    return np.maximum(x, 0)\n"
    subject = load(desk.write("layers.py", text))
    with pytest.raises(TypeError, match=r"expected a jax\.Array"):
        subject.call("relu", "function", {"x": np.ones(2)}, {})


@pytest.mark.parametrize(
    ("text", "library"),
    [
        ("import jax.numpy as jnp\ndef relu(x): return jnp.maximum(x, 0)", "jax"),
        ("import jax\ndef relu(x): return x.clip(0)", "jax"),
        ("from jax.nn import relu", "jax"),
        ("from jax import Array\ndef relu(x: Array): return x.clip(0)", "jax"),
        ("import jax\n@jax.jit\ndef relu(x): return jax.nn.relu(x)", "jax"),
        ("import numpy as np, jax\ndef relu(x): return np.maximum(x, 0)", "numpy"),
        ("import jax.numpy as jnp\nclass ReLU:\n  def __call__(self, x): return jnp.maximum(x, 0)", "jax"),
    ],
)
def test_the_library_is_told_from_the_code(desk, text, library):
    assert load(desk.write("layers.py", text)).framework.name == library


def test_where_it_cannot_be_told_the_user_is_asked(desk):
    path = desk.write("layers.py", "import numpy as np, jax.numpy as jnp\ndef relu(x): return x.clip(0)")
    with pytest.raises(SubjectError, match="uses jax and numpy; say --framework jax or --framework numpy"):
        load(path)
    assert load(path, "jax").flushes


def test_a_class_is_differentiated_by_its_arrays(desk):
    text = """
        import jax.numpy as jnp

        class Linear:
            def __init__(self, in_features, out_features, bias=True, dtype=jnp.float32):
                self.weight = jnp.zeros((out_features, in_features), dtype)
                self.bias = jnp.zeros(out_features, dtype) if bias else None

            def __call__(self, x):
                y = x @ self.weight.T
                return y if self.bias is None else y + self.bias
    """
    subject, rng = load(desk.write("layers.py", text)), np.random.default_rng(0)
    shapes = {"x": (2, 3), "weight": (4, 3), "bias": (4,), "cotangent": (2, 4)}
    arrays = {name: rng.integers(-8, 9, shape).astype(np.float64) for name, shape in shapes.items()}
    found = subject.gradients("linear", "class", arrays, {})
    for name, gradient in zip(
        ("x", "weight", "bias"), linear_vjp(arrays.pop("cotangent"), *arrays.values()), strict=True
    ):
        np.testing.assert_array_equal(found[name], gradient)
    module = subject.build("linear", arrays, {})
    subject.framework.differentiate_module(module, arrays["x"], np.ones((2, 4)))
    np.testing.assert_array_equal(subject.framework.state(module)["weight"], arrays["weight"])


# -- few shapes, many draws --------------------------------------------------------------------------------------------


def test_each_shape_is_judged_with_several_data(desk):
    from nnspec.conformance.checks import load_checks
    from nnspec.conformance.requirements import CHECKS

    load_checks()
    seen = []
    subject = load(
        desk.write("layers.py", "import jax\n\ndef relu(x):\n    SEEN.append(x)\n    return jax.nn.relu(x)\n")
    )
    subject.functions["relu"].__globals__["SEEN"] = seen
    outcome = Trial(subject, "function", "float32").run(CHECKS["relu.output.size"])
    assert (outcome.verdict, outcome.cases, len(seen)) == ("pass", 20, 20)
    for group in (seen[n : n + 5] for n in range(0, 20, 5)):
        assert len({x.shape for x in group}) == 1
        assert all(np.array_equal(np.sort(x, None), np.sort(group[0], None)) for x in group)

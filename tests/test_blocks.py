"""`@block`: functions under other names and in other layouts, with claims of their own."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec.adapters import Unsupported, block, load

LAST = """
    import numpy as np
    from nnspec.adapters import block
    from nnspec.reference.batch_norm import batch_norm as norm, batch_norm_vjp as norm_vjp
    from nnspec.reference.conv2d import conv2d, conv2d_vjp as pull

    def first(a):
        return np.moveaxis(a, -1, 1) if a.ndim == 4 else a

    def last(a):
        return np.moveaxis(a, 1, -1) if a.ndim == 4 else a

    @block("conv2d", layout="NHWC", kernel="OHWI")
    def convolve(filters, images, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
        return last(CONV(first(images), first(filters), bias, stride=stride, padding=padding, dilation=dilation,
                           groups=groups))

    def convolve_vjp(cotangent, filters, images, bias=None, **arguments):
        x, weight, shift = pull(first(cotangent), first(images), first(filters), bias, **arguments)
        return last(weight), last(x), shift

    @block("batch_norm", layout="NHWC")
    def normalise(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
        y, *statistics = norm(first(x), running_mean, running_var, weight, bias, training=training,
                              momentum=momentum, eps=eps)
        return (last(y), *statistics)

    def normalise_vjp(cotangent, x, *vectors, **arguments):
        cotangents = tuple(map(first, cotangent)) if isinstance(cotangent, tuple) else first(cotangent)
        dx, *others = norm_vjp(cotangents, first(x), *vectors, **arguments)
        return (last(dx), *others)
"""
BARE = """
    import numpy as np
    from nnspec.adapters import block

    @block("relu", dtypes=("float64",), accuracy=("L",), gradients=False, differs={"relu.nan.propagates": "none"})
    def rectify(v):
        return np.maximum(v, 0)

    @block("linear", kernel="IO", lacks=("bias",), unsupported=(OverflowError,))
    def dense(x, w, b=None):
        if len(x) == 0:
            raise OverflowError("no rows")
        return x @ w
"""


@pytest.mark.parametrize("block", ["conv2d", "batch_norm"])
def test_layouts_of_results_and_gradients(desk, block):
    done = desk.check(LAST.replace("CONV", "conv2d"), "--block", block, "--dtype", "float32", "-n", 0)
    assert done.code == 0, done.out + done.err
    judged = {r["requirement"] for r in done.report["results"] if r["verdict"] == "pass"}
    assert any(".gradient." in name for name in judged)


def test_a_script_in_another_layout_stands_alone(desk):
    mistaken = LAST.replace("CONV(first(images)", "conv2d(-first(images)").replace("pull(first(c", "pull(-first(c")
    done = desk.check(mistaken, "--block", "conv2d", "--dtype", "float64", "-n", 0)
    assert done.code == 1
    scripts = {r["requirement"]: r["failure"]["script"] for r in done.report["results"] if r["failure"]}
    for name in ("conv2d.output.value", "conv2d.gradient.weight"):
        assert desk.run(scripts[name]).code == 1
    desk.write("layers.py", LAST.replace("CONV", "conv2d"))
    for name in ("conv2d.output.value", "conv2d.gradient.weight"):
        done = desk.run(scripts[name])
        assert done.code == 0, done.out + done.err


def test_claims_are_of_one_block(desk):
    subject = load(desk.write("layers.py", BARE))
    assert subject.within("relu").dtypes == ("float64",)
    assert subject.within("relu").accuracy == ("L",)
    assert not subject.within("relu").differentiable
    assert subject.within("linear").dtypes == ("float32", "float64")
    assert subject.differs == {"relu.nan.propagates": ("none", "", "")}
    assert subject.lacks("linear", "function") >= {"bias"}
    arrays = {"x": np.ones((0, 3), np.float32), "weight": np.ones((2, 3), np.float32), "bias": None}
    with pytest.raises(Unsupported, match="OverflowError: no rows"):
        subject.call("linear", "function", arrays, {})
    (y,) = subject.call("linear", "function", {**arrays, "x": np.ones((1, 3), np.float32)}, {})
    assert y.tolist() == [[3, 3]]


def test_one_name_of_a_file_may_be_asked_for(desk):
    path = desk.write("layers.py", BARE)
    assert load(f"{path}:dense").functions.keys() == {"linear"}


@pytest.mark.parametrize(
    ("library", "text"),
    [
        ("torch", "def pool(x, *, kernel_size): return x.unfold(1, 2, 2).unfold(2, 2, 2).amax((-1, -2))"),
        ("jax", "def pool(x, *, kernel_size): return x[:, :2, :2].max((1, 2), keepdims=True)"),
    ],
)
def test_automatic_derivatives_pass_through_the_layouts(desk, library, text):
    pytest.importorskip(library)
    text = f"import {library}\nfrom nnspec.adapters import block\n\n@block('max_pool2d', layout='NHWC')\n{text}\n"
    subject = load(desk.write("layers.py", text), library)
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    arguments = {"kernel_size": 2}
    (y,) = subject.call("max_pool2d", "function", {"x": x}, arguments)
    assert y.tolist() == [[[[3]], [[7]], [[11]]]]
    arrays = {"x": x, "cotangent": np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)}
    dx = subject.gradients("max_pool2d", "function", arrays, arguments)["x"]
    assert dx[0, :, 1, 1].tolist() == [1, 2, 3]
    assert dx.sum() == 6


@pytest.mark.parametrize(
    ("stem", "said", "message"),
    [
        ("conv", {}, "did you mean 'conv2d'"),
        ("mlp", {}, "expected one with a form as a function"),
        ("conv2d", {"layout": "NHCW1"}, "expected the axes NCHW of conv2d"),
        ("conv2d", {"kernel": "OIHK"}, "expected the axes OIHW of conv2d"),
        ("linear", {"layout": "NHWC"}, "linear takes none"),
        ("relu", {"kernel": "IO"}, "relu takes none"),
        ("conv2d", {"lacks": ["dilatation"]}, "lacks 'dilatation': expected some of weight, bias, stride"),
        ("conv2d", {"dtypes": ["float8"]}, "expected some of float32"),
        ("conv2d", {"accuracy": ["Z"]}, "expected some of B2"),
        ("conv2d", {"differs": {"conv2d.bias.absent": 3}}, "expected a reason"),
    ],
)
def test_declarations_that_mean_nothing_are_refused(stem, said, message):
    with pytest.raises(ValueError, match=message):
        block(stem, **said)(lambda x: x)


def test_a_class_is_not_a_function():
    with pytest.raises(ValueError, match="expected a function"):
        block("relu")(int)


def test_two_functions_of_one_block_must_be_told_apart(desk):
    text = BARE + "\n    @block('relu')\n    def other(x):\n        return x\n"
    done = desk.check(text)
    assert done.code == 2
    assert "rectify and other are both declared as relu" in done.err

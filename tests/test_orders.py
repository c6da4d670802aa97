"""A function whose arrays have their axes in another order is told so, once."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec.adapters.for_reference import subject as reference
from nnspec.adapters.loading import load
from nnspec.adapters.orders import CALLS, in_other_orders
from nnspec.reference.conv2d import conv2d as right

LAST = """
    import numpy as np
    {imported}

    {declared}
    def conv2d(x, w, b, stride=1):
        kh, kw, c, o = w.shape
        n, h, wd, channels = x.shape
        if c != channels or b.shape != (o,) or stride < 1 or h < kh or wd < kw:
            raise ValueError("sizes")
        oh, ow = (h - kh) // stride + 1, (wd - kw) // stride + 1
        y = np.zeros((n, oh, ow, o), x.dtype)
        for i in range(oh):
            for j in range(ow):
                y[:, i, j] = np.tensordot(x[:, i * stride : i * stride + kh, j * stride : j * stride + kw], w, 3)
        return y + b
"""


def told(names):
    return {stem: r.sentence for (stem, _), r in in_other_orders(load(names, "numpy"), None).uncallable.items()}


def test_one_finding_says_what_to_declare(desk):
    done = desk.check(LAST.format(imported="", declared=""), "--dtype", "float32", "-n", 0)
    assert done.code == 1
    [failure] = [r for r in done.report["results"] if r["verdict"] == "fail"]
    assert failure["requirement"] == "conv2d.kernel.orientation"
    declared = "@block('conv2d', layout='NHWC', kernel='HWIO')"
    assert f"conv2d takes images as NHWC and its weight as HWIO: put {declared}" in failure["failure"]["message"]
    assert desk.run(failure["failure"]["script"]).code == 1
    said = LAST.format(imported="from nnspec.adapters import block", declared=declared)
    done = desk.check(said, "--dtype", "float32", "-n", 0)
    found = {r["requirement"] for r in done.report["results"] if r["verdict"] == "fail" and r["level"] == "must"}
    assert found <= {"conv2d.arguments.pairs", "conv2d.refuses.rank"}, done.out


def test_a_script_fails_where_the_call_returns(desk):
    text = """
        def max_pool2d(x, kernel_size):
            n, h, w, c = x.shape
            k = kernel_size
            return x[:, : h // k * k, : w // k * k].reshape(n, h // k, k, w // k, k, c).max((2, 4))
    """
    done = desk.check(text, "--dtype", "float32", "-n", 0)
    [failure] = [r for r in done.report["results"] if r["verdict"] == "fail"]
    script = desk.run(failure["failure"]["script"])
    assert script.code == 1
    assert "takes images as NHWC" in script.out + script.err


@pytest.mark.parametrize("stem", CALLS)
def test_the_pages_order_is_no_other(stem):
    subject = reference()
    names = {stem: subject.functions[stem]}
    assert told(names) == {}


@pytest.mark.parametrize(("kernel", "axes"), [("HWIO", (3, 2, 0, 1)), ("OHWI", (0, 3, 1, 2))])
def test_kernels_alone(kernel, axes):
    names = {"conv2d": lambda x, weight, bias=None: right(x, weight.transpose(axes), bias)}
    assert told(names) == {
        "conv2d": f"takes its weight as {kernel}: put @block('conv2d', kernel={kernel!r}) of nnspec.adapters above it"
    }


def test_inputs_first():
    assert "takes its weight as IO" in told({"linear": lambda x, w, b: x @ w + b})["linear"]
    assert told({"linear": lambda x, w, b: x @ w.T + 2 * b}) == {}  # wrong in every order


def test_what_is_declared_is_not_asked():
    from nnspec.adapters import block

    declared = block("linear", kernel="IO")(lambda x, weight, bias: x @ weight + 2 * bias)
    assert told({"linear": declared}) == {}
    wrong = {"linear": lambda x, w, b: np.matmul(x, w) + b, "DOMAIN": {"linear": {"in_features": 3}}}
    assert told(wrong) == {}

"""What a file shows not to take costs the requirement that is about it, and no other."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec.adapters import square
from nnspec.adapters.conditions import DomainError, parsed
from nnspec.adapters.domains import read_domain
from nnspec.adapters.loading import load
from nnspec.adapters.narrowing import narrowed
from nnspec.adapters.signatures import SIGNATURES
from nnspec.conformance import check
from nnspec.conformance.case import Case
from nnspec.conformance.checks import load_checks
from nnspec.conformance.checks.domains import UNEQUAL
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial
from nnspec.reference import batch_norm
from nnspec.reference.conv2d import Conv2d
from nnspec.reference.conv2d import conv2d as right
from nnspec.reference.linear import linear
from nnspec.reference.max_pool2d import max_pool2d as right_pool

NEUTRAL = SIGNATURES["conv2d"].arguments
NUMBERS = """
    import numpy as np
    from nnspec.reference.conv2d import conv2d as right

    def conv2d(x, weight, bias=None, stride=1, padding=0):
        rows = (x.shape[2] + 2 * padding - weight.shape[2]) // stride + 1
        if rows < 1:
            raise ValueError("no window")
        return right(x, weight, bias, stride=stride, padding=padding)
"""
NEVER = """
    import torch
    from torch import nn

    class Conv2d(nn.Module):
        def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0):
            super().__init__()
            bound = 1 / (in_channels * kernel_size * kernel_size) ** 0.5
            shape = out_channels, in_channels, kernel_size, kernel_size
            self.stride, self.padding = stride, padding
            self.weight = nn.Parameter(bound * (2 * torch.rand(shape) - 1))

        def forward(self, x):
            return nn.functional.conv2d(x, self.weight, None, self.stride, self.padding)
"""
NEEDED = """
    import numpy as np

    def linear_forward(x, w, b):
        if w.shape[1] != x.shape[-1] or len(b) != len(w):
            raise ValueError("sizes")
        return x @ w.T + b, (x, w)

    def linear_backward(gradient, cache):
        x, w = cache
        axes = tuple(range(x.ndim - 1))
        return gradient @ w, np.tensordot(gradient, x, (axes, axes)), gradient.sum(axes)
"""
EQUATIONS = """
    import numpy as np

    def einsum(equation, *operands):
        terms, output = equation.replace(" ", "").split("->")
        sizes = {}
        for term, a in zip(terms.split(","), operands, strict=True):
            if len(term) != a.ndim:
                raise ValueError(f"{term}: {a.ndim} axes")
            for label, n in zip(term, a.shape):
                sizes[label] = max(n, sizes.get(label, 1)) if n and sizes.get(label, 1) else 0
        return np.einsum(equation, *operands)
"""
FLAT = """
    import torch
    from torch import nn

    class MLP(nn.Module):
        def __init__(self, in_features, hidden_features, out_features):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(in_features, hidden_features), nn.Linear(hidden_features, out_features)

        def forward(self, x):
            x = x.flatten(1)
            return self.fc2(torch.relu(self.fc1(x)))
"""


def shown(names, block, framework="numpy"):
    """The quantities of which narrow conditions are found, with these."""
    domain = narrowed(load(names, framework), [block]).domain(block)
    assert domain.claimed.conditions == {}
    return {name: str(condition) for name, condition in domain.conditions.items()}


# -- what is found -----------------------------------------------------------------------------------------------------


def test_numbers_for_rows_and_columns():
    def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1):
        return right(x, weight, bias, stride=stride, padding=int(padding), dilation=int(dilation))

    assert shown({"conv2d": conv2d}, "conv2d") == {"padding": "square()", "dilation": "square()"}


def test_square_windows():
    def max_pool2d(x, kernel_size, stride=None):
        return right_pool(x, kernel_size=int(kernel_size), stride=stride)

    assert shown({"max_pool2d": max_pool2d}, "max_pool2d") == {"kernel_size": "square()"}


def test_square_kernels_of_a_class_that_always_has_a_bias():
    class Square(Conv2d):
        def __init__(self, in_channels, out_channels, kernel_size):
            super().__init__(in_channels, out_channels, int(kernel_size))

    assert shown({"Conv2d": Square}, "conv2d") == {"kernel_size": "square()", "bias": "True"}


def test_operands_that_are_always_needed():
    def norm(x, gamma, beta, running_mean, running_var):
        spread = np.sqrt(running_var + x.dtype.type(1e-5))[:, None, None]
        y = (x - running_mean[:, None, None]) / spread * gamma[:, None, None] + beta[:, None, None]
        return y, running_mean, running_var

    assert shown({"batch_norm": norm}, "batch_norm") == {"affine": "True", "ndim": "4"}


@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm2d"])
def test_one_class_of_two(name):
    assert shown({name: getattr(batch_norm, name)}, "batch_norm") == {}


def test_an_operand_with_a_default_may_be_left_out():
    def conv2d(x, weight, bias=None):
        return right(x, weight) + bias[:, None, None]

    assert shown({"conv2d": conv2d}, "conv2d") == {}
    assert shown({"conv2d": lambda x, w, b=None: right(x, w) + b[:, None, None]}, "conv2d") == {}
    assert shown({"conv2d": lambda x, w, b: right(x, w) + b[:, None, None]}, "conv2d") == {"bias": "True"}


def test_a_wrong_result_is_no_sign():
    def conv2d(x, weight, bias=None, stride=1):
        return right(x, weight, bias, stride=stride if isinstance(stride, int) else stride[0])

    assert shown({"conv2d": conv2d}, "conv2d") == {}


def test_numbers_of_dimensions():
    def one(x, weight, bias=None):
        return linear(x.reshape(len(x), -1), weight, bias)

    assert shown({"linear": one}, "linear") == {"ndim": "2"}
    assert shown({"linear": linear}, "linear") == {}


class MatricesBack:
    """A linear layer whose backward pass is for matrices."""

    def __init__(self, in_features, out_features):
        self.weight, self.bias = np.zeros((out_features, in_features)), np.zeros(out_features)

    def forward(self, x):
        self.x = x
        return x @ self.weight.T + self.bias

    def backward(self, gradient):
        self.dweight, self.dbias = gradient.T @ self.x, gradient.sum(0)
        return gradient @ self.weight


class TrainingBack(batch_norm.BatchNorm2d):
    """A batch norm whose gradient is that of training always."""

    def vjp(self, x):
        y = self(x)
        was, self.training = self.training, True
        statistics = self.running_mean.data.copy(), self.running_var.data.copy(), self.num_batches_tracked.data.copy()
        _, pullback = super().vjp(x)
        self.training = was
        for buffer, before in zip(
            (self.running_mean, self.running_var, self.num_batches_tracked), statistics, strict=True
        ):
            buffer.data[...] = before
        return y, pullback


@pytest.mark.parametrize(
    ("names", "block", "backward"),
    [
        ({"Linear": MatricesBack}, "linear", {"ndim": "2"}),
        ({"BatchNorm2d": TrainingBack}, "batch_norm", {"training": "True"}),
        ({"BatchNorm2d": batch_norm.BatchNorm2d}, "batch_norm", {}),
        ({"linear": linear}, "linear", {}),
    ],
)
def test_gradients(names, block, backward):
    domain = narrowed(load(names, "numpy"), [block]).domain(block)
    assert {name: str(condition) for name, condition in domain.backward.items()} == backward
    assert domain.claimed.of_gradients.conditions.keys() == backward.keys() | domain.claimed.conditions.keys()


def test_a_backward_pass_for_matrices_is_one_finding():
    report = check(MatricesBack, block="linear", dtype="float64")
    found = {r["requirement"] for r in report["results"] if r["verdict"] == "fail" and r["kind"] == "gradient"}
    assert found == {"linear.gradient.weight"}


def test_equations():
    def contract(equation, *operands):
        terms, output = equation.split("->")
        if "." in equation:
            raise NotImplementedError("...")
        return np.einsum(f"{terms}->{output}", *operands)

    assert shown({"einsum": contract}, "einsum") == {"ellipsis": "False", "implicit": "False"}
    assert shown({"einsum": np.einsum}, "einsum") == {}


def test_what_a_file_declares_is_not_asked():
    def conv2d(x, weight, bias=None, stride=1):
        return right(x, weight, bias, stride=int(stride))

    names = {"conv2d": conv2d, "DOMAIN": {"conv2d": {"stride": square()}}}
    domain = narrowed(load(names, "numpy"), None).domain("conv2d")
    assert str(domain) == "stride=square()"
    assert domain == domain.claimed


# -- what is reported --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "block", "broken"),
    [
        (NUMBERS, "conv2d", {"conv2d.arguments.pairs"}),
        (NEVER, "conv2d", {"conv2d.arguments.pairs"}),
        (NEEDED, "linear", set()),
        (FLAT, "mlp", {"mlp.leading.any"}),
        (EQUATIONS, "einsum", {"einsum.ellipsis.kept", "einsum.implicit.order"}),
    ],
)
def test_one_limit_is_one_finding(desk, text, block, broken):
    if "torch" in text:
        pytest.importorskip("torch")
    done = desk.check(text, "--block", block, "--dtype", "float32", "-n", 1)
    found = {r["requirement"] for r in done.report["results"] if r["verdict"] == "fail" and r["level"] == "must"}
    assert {name for name in found if ".refuses." not in name} == broken, done.out
    assert not done.verdicts("not run")


def test_what_is_refused_in_typical_calls_alone_must_be_right_elsewhere():
    def conv2d(x, weight, bias=None, stride=1):
        if not isinstance(stride, int) and len(x) == 1:
            raise ValueError("no pair for one image")
        return right(x, weight, bias, stride=stride if isinstance(stride, int) else (stride[0], 1))

    load_checks(["conv2d"])
    subject = narrowed(load({"conv2d": conv2d}, "numpy"), None)
    assert str(subject.domain("conv2d")) == "stride=square()"
    several = Case("conv2d", {"x": np.ones((2, 1, 3, 3)), "weight": np.ones((1, 1, 1, 1)), "bias": None}, {**NEUTRAL})
    check = CHECKS["conv2d.arguments.pairs"]
    with pytest.raises(Mismatch, match="shape"):
        check.body(Trial(subject, "function", "float64"), several.but(stride=(1, 2)))
    check.body(Trial(subject, "function", "float64"), several.but(stride=2))


@pytest.mark.parametrize("declared", ['"stride": square(), "padding": square()', '"stride": 1, "padding": square()'])
def test_a_limit_that_is_declared_conforms(desk, declared):
    text = f"{NUMBERS}\n    from nnspec.adapters import square\n    DOMAIN = {{'conv2d': {{{declared}}}}}\n"
    done = desk.check(text, "--block", "conv2d", "--dtype", "float32", "-n", 1)
    assert done.code == 0, done.out
    assert "conv2d.arguments.pairs" not in done.verdicts("fail")


def test_a_limit_that_is_declared_on_the_command_line(desk):
    options = "--domain", "conv2d.stride=square()", "--domain", 'conv2d.padding={"square": true}'
    done = desk.check(NUMBERS, "--block", "conv2d", "--dtype", "float32", *options, "-n", 1)
    assert done.code == 0, done.out


# -- the condition -----------------------------------------------------------------------------------------------------


def test_square():
    domain = read_domain("conv2d", {"stride": square(), "kernel_size": square() & parsed("at_least(2)")})
    assert domain.choices("stride", (1, 2, 3)) == (1, 2, 3)
    assert domain.choices("kernel_size", (1, 2, 3)) == (2, 3)
    assert domain.allows("kernel_size", (5, 5))
    assert not any(domain.allows("stride", pair) for pair in UNEQUAL["stride"])
    assert {(1, 2), (2, 1)} <= {*domain.beyond("stride")}
    assert read_domain("conv2d", domain.as_json()) == domain


@pytest.mark.parametrize(
    ("stem", "declared", "says"),
    [
        ("conv2d", {"in_channels": square()}, "it has no rows and columns"),
        ("conv2d", {"bias": square()}, "it has no rows and columns"),
    ],
)
def test_square_is_for_rows_and_columns(stem, declared, says):
    with pytest.raises(DomainError, match=says):
        read_domain(stem, declared)


def test_square_takes_nothing():
    with pytest.raises(DomainError, match="expected no argument"):
        square(3)

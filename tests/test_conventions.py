"""A subject that answers one question as another library does by design fails the requirement about it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nnspec.adapters import load
from nnspec.adapters.subject import Subject
from nnspec.conformance.checks import load_checks
from nnspec.conformance.requirements import CHECKS, requirements
from nnspec.conformance.trial.run import forms, run
from nnspec.conformance.trial.trial import Trial
from nnspec.reference import avg_pool2d as avg
from nnspec.reference import batch_norm as norm
from nnspec.reference import conv2d as conv
from nnspec.reference import einsum as ein
from nnspec.reference import linear as lin
from nnspec.reference import max_pool2d as pool
from nnspec.reference import sgd as optimiser
from nnspec.reference.arguments import pair
from nnspec.reference.basic_block import BasicBlock
from nnspec.reference.linear import Linear
from nnspec.reference.mlp import MLP
from nnspec.reference.module import Module, Parameter, pullback
from nnspec.reference.relu import ReLU, relu_vjp
from nnspec.reference.sequential import Sequential

Names = dict[str, Any]
KNOWN = requirements()
SUBJECTS: list[Any] = []


def differs(*identifiers: str, block: str = "") -> Callable[[Callable[[], Names]], Callable[[], Names]]:
    """A subject, and the requirements that it fails; `block` where there is none of them."""

    def register(make: Callable[[], Names]) -> Callable[[], Names]:
        stem = block or identifiers[0].split(".")[0]
        SUBJECTS.append(pytest.param(make, stem, set(identifiers), id=make.__name__))
        return make

    return register


def broken(subject: Subject, block: str, expected: set[str], share: int) -> dict[str, str]:
    """The requirements that bind a subject, or are marked, and that it fails: identifier -> what was wrong.

    Twenty cases for those that it must fail, and a share of twenty for all others.
    """
    found = {}
    for check in [c for c in CHECKS.values() if c.stem == block and (c.decides or KNOWN[c.identifier].convention)]:
        for form in forms(subject, check):
            slower = replace(check, effort=check.effort * (1 if check.identifier in expected else share))
            outcome = Trial(subject, form, "float32").run(slower, simplify=False)
            if outcome.verdict not in ("pass", "unsupported"):
                found[check.identifier] = outcome.reason
    return found


@pytest.mark.parametrize(("make", "block", "expected"), SUBJECTS)
def test_only_the_requirement_that_differs_is_broken(make, block, expected, long):
    load_checks()
    found = broken(load(make(), "numpy"), block, expected, share=1 if long else 4)
    assert found.keys() == expected, found


# -- einsum ------------------------------------------------------------------------------------------------------------


@differs("einsum.ellipsis.dropped")
def einsum_of_numpy() -> Names:
    return {"einsum": lambda equation, *operands: np.einsum(equation, *operands)}


def _checked(reason: Callable[[str, tuple], bool]) -> Names:
    """einsum and its gradient, which refuse what `reason` is true of."""

    def einsum(equation, *operands):
        if reason(equation, operands):
            raise ValueError(f"{equation}: not here")
        return ein.einsum(equation, *operands)

    def einsum_vjp(cotangent, equation, *operands):
        einsum(equation, *operands)
        return ein.einsum_vjp(cotangent, equation, *operands)

    return {"einsum": einsum, "einsum_vjp": einsum_vjp}


@differs("einsum.ellipsis.dropped")
def einsum_that_wants_the_ellipsis_in_the_output() -> Names:
    def dropped(equation, operands):
        left, arrow, right = equation.partition("->")
        return (
            bool(arrow)
            and any(
                "..." in term and x.ndim > len(term.replace(" ", "").replace("...", ""))
                for term, x in zip(left.split(","), operands, strict=False)
            )
            and "..." not in right
        )

    return _checked(dropped)


@differs("einsum.broadcast.size-one", "einsum.broadcast.summed", "einsum.gradient.broadcast")
def einsum_that_broadcasts_in_an_ellipsis_alone() -> Names:
    def broadcasts(equation, operands):
        terms, _ = ein.parse(equation, [x.ndim for x in operands])
        sizes: dict[str, set[int]] = {}
        for term, x in zip(terms, operands, strict=True):
            for label, size in zip(term, x.shape, strict=True):
                sizes.setdefault(label, set()).add(size)
        return any(len(found) > 1 for label, found in sizes.items() if label.isalpha())

    return _checked(broadcasts)


@differs("einsum.refuses.diagonal")
def einsum_whose_diagonal_broadcasts() -> Names:
    def einsum(equation, *operands):
        terms, _ = ein.parse(equation, [x.ndim for x in operands])
        whole = []
        for term, x in zip(terms, operands, strict=True):
            largest = {a: max(n for b, n in zip(term, x.shape, strict=True) if a == b) for a in term}
            repeated = [largest[a] if term.count(a) > 1 else n for a, n in zip(term, x.shape, strict=True)]
            whole.append(np.broadcast_to(x, repeated))
        return ein.einsum(equation, *whole)

    return {"einsum": einsum, "einsum_vjp": ein.einsum_vjp}


@differs(
    "einsum.diagonal.value",
    "einsum.diagonal.summed",
    "einsum.implicit.summed",
    "einsum.arguments.together",
    "einsum.gradient.diagonal",
    "einsum.gradient.implicit",
    "einsum.gradient.together",
)
def einsum_without_repeated_labels() -> Names:
    def repeats(equation, operands):
        terms, _ = ein.parse(equation, [x.ndim for x in operands])
        return any(len(set(term)) < len(term) for term in terms)

    return _checked(repeats)


@differs("einsum.implicit.order", "einsum.implicit.summed", "einsum.implicit.ellipsis", "einsum.gradient.implicit")
def einsum_without_an_implicit_output() -> Names:
    return _checked(lambda equation, operands: "->" not in equation)


# -- relu --------------------------------------------------------------------------------------------------------------


def _relu(slope: float = 0.0, maximum: Callable[..., Any] = np.maximum) -> Names:
    """relu as function and class, with this slope at 0."""

    def own_relu(x):
        return np.asarray(maximum(x, np.zeros((), x.dtype)))

    def own_relu_vjp(cotangent, x):
        at_zero = (cotangent * slope).astype(x.dtype) if slope else np.zeros((), x.dtype)
        return np.where(x == 0, at_zero, relu_vjp(cotangent, x))

    class OwnReLU(ReLU):
        def forward(self, x):
            return own_relu(x)

        def vjp(self, x):
            return self.forward(x), pullback(own_relu_vjp, x)

    return {"relu": own_relu, "relu_vjp": own_relu_vjp, "ReLU": OwnReLU}


@differs("relu.nan.propagates", "relu.gradient.zero")
def relu_that_drops_nan_and_has_half_a_slope_at_zero() -> Names:
    return _relu(slope=0.5, maximum=np.fmax)


@differs("relu.gradient.zero")
def relu_with_a_slope_of_one_at_zero() -> Names:
    return _relu(slope=1.0)


# -- pools -------------------------------------------------------------------------------------------------------------


def _tied(share: Callable[[int], float]) -> Names:
    """A pool whose windows give each of k equal maxima share(k) of their cotangent."""

    def max_pool2d_vjp(cotangent, x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
        arguments = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        y = pool.max_pool2d(x, **arguments, ceil_mode=ceil_mode)
        (kh, kw), (ph, pw), (dh, dw) = (pair("", value, 0) for value in (kernel_size, padding, dilation))
        sh, sw = pair("", kernel_size if stride is None else stride, 0)
        h, w = x.shape[2:]
        rows = [range(r * sh - ph, r * sh - ph + kh * dh, dh) for r in range(y.shape[2])]
        columns = [range(s * sw - pw, s * sw - pw + kw * dw, dw) for s in range(y.shape[3])]
        dx = np.zeros_like(x)
        for b, d, r, s in np.ndindex(*y.shape):
            inside = [(i, j) for i in rows[r] for j in columns[s] if 0 <= i < h and 0 <= j < w]
            equal = [place for place in inside if x[b, d][place] == y[b, d, r, s]]
            for place in equal:
                dx[b, d][place] += cotangent[b, d, r, s] * x.dtype.type(share(len(equal)))
        return dx

    return {"max_pool2d_vjp": max_pool2d_vjp}


@differs(
    "max_pool2d.nan.propagates",
    "max_pool2d.stride.default",
    "max_pool2d.gradient.ties",
    "max_pool2d.gradient.minus-infinity",
)
def max_pool_of_another_library() -> Names:
    def max_pool2d(x, *, stride=1, **arguments):
        if x.dtype.kind != "f":
            return pool.max_pool2d(x, stride=stride, **arguments)
        nan = np.isnan(x)
        y = pool.max_pool2d(np.where(nan, np.array(-np.inf, x.dtype), x), stride=stride, **arguments)
        alone = pool.max_pool2d(np.where(nan, np.float32(0), np.float32(1)), stride=stride, **arguments) <= 0
        return np.where(alone, np.array(np.nan, x.dtype), y)

    return {"max_pool2d": max_pool2d, **_tied(lambda k: 1 / k)}


@differs("max_pool2d.gradient.ties", "max_pool2d.gradient.minus-infinity")
def max_pool_whose_ties_each_get_the_gradient() -> Names:
    return {"max_pool2d": pool.max_pool2d, **_tied(lambda k: 1)}


@differs("avg_pool2d.stride.default", "avg_pool2d.divisor.default")
def avg_pool_with_other_defaults() -> Names:
    others = {"stride": 1, "count_include_pad": False}
    return {
        "avg_pool2d": lambda x, **a: avg.avg_pool2d(x, **others | a),
        "avg_pool2d_vjp": lambda g, x, **a: avg.avg_pool2d_vjp(g, x, **others | a),
    }


def _cropped(function: Callable[..., Any], x: np.ndarray, padding: Any, **arguments: Any) -> np.ndarray:
    """A pool whose negative padding takes rows and columns off, and whose result is empty where no window fits."""
    for axis, p in enumerate(pair("padding", padding, -99), start=2):
        x = np.take(x, range(max(0, -p), x.shape[axis] - max(0, -p)), axis)
    try:
        return function(x, padding=tuple(max(0, p) for p in pair("padding", padding, -99)), **arguments)
    except ValueError as error:
        if "padded input" not in str(error):
            raise
        return np.zeros((*x.shape[:2], 0, 0), x.dtype)


@differs("max_pool2d.refuses.padding", "max_pool2d.refuses.window")
def pools_that_crop_and_return_nothing() -> Names:
    return {
        "max_pool2d": lambda x, *, padding=0, **a: _cropped(pool.max_pool2d, x, padding, **a),
        "avg_pool2d": lambda x, *, padding=0, **a: _cropped(avg.avg_pool2d, x, padding, **a),
    }


@differs("linear.refuses.bias-broadcast")
def linear_that_broadcasts_its_bias() -> Names:
    def linear(x, weight, bias=None):
        y = lin.linear(x, weight)
        if bias is None:
            return y
        if bias.ndim == 1 and len(bias) not in (1, len(weight)):
            raise ValueError("bias")
        return y + np.broadcast_to(bias, y.shape)

    return {"linear": linear}


# -- batch norm --------------------------------------------------------------------------------------------------------


def _normalised(x, mean, var, weight, bias, training, momentum, eps):
    """The running averages weigh the old value by momentum, with variances of divisor n; one value will do."""
    y, *_ = norm.batch_norm(x, mean, var, weight, bias, training=training and x.size != x.shape[1], eps=eps)
    if not training or not x.size:
        return y, mean, var
    axes = (0, *range(2, x.ndim))
    if x.size == x.shape[1]:
        y = np.zeros_like(x) if bias is None else np.broadcast_to(bias.reshape(-1, *[1] * (x.ndim - 2)), x.shape).copy()
    batch = x.mean(axes), x.var(axes)
    return y, *((momentum * r + (1 - momentum) * b).astype(r.dtype) for r, b in zip((mean, var), batch, strict=True))


class _BatchNorm(norm.BatchNorm2d):
    """For any number of dimensions, and without a count of batches."""

    ranks = (1, 2, 3, 4, 5)

    def __init__(self, num_features, eps=1e-3, momentum=0.99, affine=True, *, dtype=np.float32):
        super().__init__(num_features, eps, momentum, affine, dtype=dtype)
        del self.track_running_stats
        self.num_batches_tracked, self.share = None, 1.0  # what the next batch's share is, where each has the same

    def forward(self, x):
        m = 1 - self.share if self.momentum is None else self.momentum
        self.share = self.share / (1 + self.share) if self.training else self.share
        vectors = [None if p is None else p.data for p in (self.weight, self.bias)]
        own = self.running_mean.data, self.running_var.data
        y, *own = _normalised(x, *own, *vectors, self.training, m, self.eps)
        self.running_mean.data, self.running_var.data = own
        return y


@differs(
    "batch_norm.running-var.update",
    "batch_norm.count.tracked",
    "batch_norm.momentum.weighs-new",
    "batch_norm.defaults.momentum",
    "batch_norm.defaults.eps",
    "batch_norm.refuses.module-rank",
    "batch_norm.refuses.one-value",
)
def batch_norm_of_another_library() -> Names:
    def batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.99, eps=1e-3):
        return _normalised(x, running_mean, running_var, weight, bias, training, momentum, eps)

    def batch_norm_vjp(cotangent, x, *operands, training=False, momentum=0.99, eps=1e-3):
        return norm.batch_norm_vjp(cotangent, x, *operands, training=training, eps=eps)

    classes = {"BatchNorm1d": _BatchNorm, "BatchNorm2d": _BatchNorm}
    return {"batch_norm": batch_norm, "batch_norm_vjp": batch_norm_vjp, **classes}


# -- networks and what moves them --------------------------------------------------------------------------------------


@differs("mlp.parameters.names", "mlp.depth.names")
def mlp_with_a_slope_at_zero_and_other_names() -> Names:
    class OwnMLP(MLP):
        def __init__(self, *sizes, dtype=np.float32):
            super().__init__(*sizes, dtype=dtype)
            self.relu = _relu(slope=0.5)["ReLU"]()
            for n in range(1, self.depth + 2):
                layer = getattr(self, f"fc{n}")
                delattr(self, f"fc{n}")
                setattr(self, f"layer{n}", layer)

        def _stack(self):
            return [getattr(self, f"layer{n}") for n in range(1, self.depth + 2)]

    return {"MLP": OwnMLP}


@differs(block="basic_block")
def block_whose_norms_are_of_another_library() -> Names:
    class Block(BasicBlock):
        def __init__(self, in_channels, out_channels, stride=1, *, dtype=np.float32):
            super().__init__(in_channels, out_channels, stride, dtype=dtype)
            self.bn1, self.bn2 = (_BatchNorm(out_channels, 1e-5, dtype=dtype) for _ in range(2))
            if self.downsample is not None:
                self.downsample = Sequential(self.downsample[0], _BatchNorm(out_channels, 1e-5, dtype=dtype))

    return {"BasicBlock": Block}


class _Layers(Module):
    """Holds the modules of a Sequential, under the positions that they have there."""


@differs("sequential.state.keys", "sequential.refuses.non-module")
def sequential_that_takes_functions_and_names_its_layers() -> Names:
    class Called(Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    class OwnSequential(Sequential):
        def __init__(self, *modules):
            Module.__init__(self)
            self.layers = _Layers()
            for module in modules:
                self.append(module)

        def append(self, module):
            module = module if isinstance(module, Module) or not callable(module) else Called(module)
            if not isinstance(module, Module):
                raise TypeError("expected a module or a function")
            setattr(self.layers, str(len(self)), module)
            return self

        def __iter__(self):
            return iter([m for m in vars(self.layers).values() if isinstance(m, Module)])

        def __getitem__(self, index):
            modules = list(self)[index]
            return OwnSequential(*modules) if isinstance(index, slice) else modules

    return {"Sequential": OwnSequential, "Linear": Linear, "ReLU": ReLU, "Module": Module, "Parameter": Parameter}


class _Zeros(Sequential):
    """A backward pass gives a gradient of zeros to what took no part in it."""

    def vjp(self, x):
        y, pull = super().vjp(x)

        def pulled(cotangent):
            dx = pull(cotangent)
            for p in self.parameters():
                p.grad = np.zeros_like(p.data) if p.grad is None else p.grad
            return dx

        return y, pulled


NETWORK = {
    "Sequential": _Zeros,
    "Linear": Linear,
    "ReLU": ReLU,
    "BatchNorm1d": norm.BatchNorm1d,
    "Module": Module,
    "Parameter": Parameter,
    "SGD": optimiser.SGD,
}


@differs("sgd.parameters.unused", "sgd.lr.velocity")
def sgd_with_the_learning_rate_inside_the_velocity_of_networks_with_zeros() -> Names:
    class SGD(optimiser.SGD):
        def step(self):
            for i, p in enumerate(self.params):
                if p.grad is not None:
                    moved, self.velocities[i] = _inside(p, self.velocities[i], **self.numbers(p))
                    p.data[...] = moved

    return {**NETWORK, "SGD": SGD}


def _inside(p, velocity, lr, momentum, weight_decay):
    """v = momentum · v + lr · g, and the step is v. The same as long as lr is."""
    optimiser.sgd_step(p.data, p.grad, lr=lr)  # refuses what the page refuses
    by = lr * (p.grad + weight_decay * p.data if weight_decay else p.grad)
    by = by + momentum * velocity if momentum and velocity is not None else by
    return p.data - by, by


@differs("module.gradient.unused", "module.state.shared-keys")
def module_with_zeros_for_the_unused_that_saves_a_shared_entry_once() -> Names:
    class Once(Module):
        def state_dict(self):
            known = dict(self.named_parameters()) | dict(self.named_buffers())
            return {key: array for key, array in super().state_dict().items() if key in known}

        def load_state_dict(self, state, strict=True):
            full = {key: entry.data for key, entry in self._state().items()}
            if strict and state.keys() != self.state_dict().keys():
                raise KeyError("other keys")
            super().load_state_dict({**full, **state}, strict)

    return {**NETWORK, "Module": Once}


# -- convolutions ------------------------------------------------------------------------------------------------------


@differs("conv2d.refuses.padding", "conv2d.refuses.window")
def convolution_whose_negative_padding_crops() -> Names:
    def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
        for axis, p in enumerate(pair("padding", padding, -99), start=2):
            x = np.take(x, range(max(0, -p), x.shape[axis] - max(0, -p)), axis)
        padding = tuple(max(0, p) for p in pair("padding", padding, -99))
        try:
            return conv.conv2d(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
        except ValueError as error:
            if "padded input" not in str(error):
                raise
            return np.zeros((len(x), len(weight), 0, 0), x.dtype)

    return {"conv2d": conv2d, "conv2d_vjp": conv.conv2d_vjp}


# -- named alternatives ------------------------------------------------------------------------------------------------

POOL = max_pool_of_another_library
NORM = batch_norm_of_another_library
FOLLOWED = [  # a subject, a convention that it answers differently, and the name of its answer
    (relu_that_drops_nan_and_has_half_a_slope_at_zero, "relu.nan.propagates", "0"),
    (relu_that_drops_nan_and_has_half_a_slope_at_zero, "relu.gradient.zero", "0.5"),
    (einsum_of_numpy, "einsum.ellipsis.dropped", "refused"),
    (einsum_that_broadcasts_in_an_ellipsis_alone, "einsum.broadcast.size-one", "refused"),
    (einsum_that_broadcasts_in_an_ellipsis_alone, "einsum.broadcast.summed", "refused"),
    (einsum_whose_diagonal_broadcasts, "einsum.refuses.diagonal", "broadcast"),
    (POOL, "max_pool2d.nan.propagates", "ignored"),
    (POOL, "max_pool2d.stride.default", "1"),
    (POOL, "max_pool2d.gradient.ties", "shared"),
    (POOL, "max_pool2d.gradient.minus-infinity", "shared"),
    (max_pool_whose_ties_each_get_the_gradient, "max_pool2d.gradient.ties", "each"),
    (max_pool_whose_ties_each_get_the_gradient, "max_pool2d.gradient.minus-infinity", "each"),
    (avg_pool_with_other_defaults, "avg_pool2d.stride.default", "1"),
    (avg_pool_with_other_defaults, "avg_pool2d.divisor.default", "exclude-pad"),
    (NORM, "batch_norm.running-var.update", "n"),
    (NORM, "batch_norm.count.tracked", "none"),
    (NORM, "batch_norm.momentum.weighs-new", "old"),
    (NORM, "batch_norm.defaults.momentum", "0.01"),
    (NORM, "batch_norm.defaults.eps", "1e-3"),
    (NORM, "batch_norm.refuses.module-rank", "any"),
    (NORM, "batch_norm.refuses.one-value", "bias"),
    (module_with_zeros_for_the_unused_that_saves_a_shared_entry_once, "module.gradient.unused", "zeros"),
    (convolution_whose_negative_padding_crops, "conv2d.refuses.padding", "crops"),
    (convolution_whose_negative_padding_crops, "conv2d.refuses.window", "empty"),
    (pools_that_crop_and_return_nothing, "max_pool2d.refuses.padding", "crops"),
    (pools_that_crop_and_return_nothing, "max_pool2d.refuses.window", "empty"),
    (pools_that_crop_and_return_nothing, "avg_pool2d.refuses.padding", "crops"),
    (pools_that_crop_and_return_nothing, "avg_pool2d.refuses.window", "empty"),
    (linear_that_broadcasts_its_bias, "linear.refuses.bias-broadcast", "broadcast"),
    (
        sgd_with_the_learning_rate_inside_the_velocity_of_networks_with_zeros,
        "sgd.lr.velocity",
        "inside",
    ),
]


def verdicts(subject: Subject, identifier: str, alternative: str) -> set[str]:
    """The verdicts of a check under an alternative, in every form that is judged and in two dtypes."""
    load_checks()
    check = CHECKS[identifier].under(alternative)
    trials = (Trial(subject, form, dtype) for form in forms(subject, check) for dtype in ("float32", "float64"))
    return {run(trial, check, simplify=False).verdict for trial in trials} - {"unsupported"}


@pytest.mark.parametrize(("make", "identifier", "alternative"), FOLLOWED)
def test_subject_passes_under_the_alternative_that_it_follows(make, identifier, alternative):
    assert verdicts(load(make(), "numpy"), identifier, alternative) == {"pass"}


@pytest.mark.parametrize(("identifier", "alternative"), sorted({followed[1:] for followed in FOLLOWED}))
def test_reference_fails_under_every_alternative(identifier, alternative):
    assert verdicts(load("reference"), identifier, alternative) == {"fail"}


def test_every_alternative_has_a_subject_that_follows_it():
    named = {(r.identifier, name) for r in KNOWN.values() for name in r.alternatives[1:]}
    assert named == {followed[1:] for followed in FOLLOWED}


RELU = """
    import numpy as np

    def relu(x):
        return np.where(x > 0, x, 0)

    DIFFERS = {DIFFERS}
"""


def test_named_alternative_must_pass(desk):
    choices = ("--block", "relu", "--dtype", "float32", "-n", 0)
    done = desk.check(RELU.replace("{DIFFERS}", '{"relu.nan.propagates": ("0", "as fmaxf does")}'), *choices)
    assert done.code == 0, done.out + done.err
    [entry] = [r for r in done.report["results"] if r["requirement"] == "relu.nan.propagates"]
    assert (entry["verdict"], entry["alternative"], entry["failure"]) == ("differs by design", "0", None)
    assert "differs by design (1): 0: as fmaxf does" in done.out
    wrong = RELU.replace("np.where(x > 0, x, 0)", "np.where(np.isnan(x), 7, np.where(x > 0, x, 0)).astype(x.dtype)")
    done = desk.check(wrong.replace("{DIFFERS}", '{"relu.nan.propagates": ("0", "as fmaxf does")}'), *choices)
    assert done.verdicts("fail") == {"relu.nan.propagates"}
    assert "under the alternative '0' that DIFFERS names: " in done.out
    done = desk.check(RELU.replace("{DIFFERS}", '{"relu.nan.propagates": ("7", "why")}'), *choices)
    assert done.code == 2
    assert "relu.nan.propagates: the page names no alternative '7'; it names: '0'" in done.err

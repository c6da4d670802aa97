"""The reference against the definition as scalar loops, and against torch where it is installed."""

import numpy as np
import pytest
from nnspec.reference.module import Buffer, Module, Parameter
from nnspec.reference.sgd import SGD, sgd_step

HYPER = [
    {"lr": 0.5},
    {"lr": 0.0, "momentum": 0.5, "weight_decay": 0.5},
    {"lr": 0.5, "momentum": 0.5},
    {"lr": 0.25, "momentum": 1.0},
    {"lr": 0.5, "weight_decay": 0.25},
    {"lr": 0.5, "momentum": 0.25, "weight_decay": 0.5},
]
SHAPES = [(), (3,), (2, 2), (0,), (1, 2, 3)]


def by_loops(parameter, gradients, lr, momentum=0, weight_decay=0):
    """One number under a sequence of gradients, None among them. Small multiples of powers of two stay exact."""
    velocity = 0
    for g in gradients:
        if g is not None:
            velocity = momentum * velocity + (g + weight_decay * parameter)
            parameter = parameter - lr * velocity
    return parameter


def random_run(seed, steps=4):
    """Parameters, and for each step their gradients, None for some."""
    rng = np.random.default_rng(seed)
    values = [rng.integers(-9, 10, shape).astype(float) for shape in SHAPES]
    draw = [[rng.integers(-9, 10, shape).astype(float) for shape in SHAPES] for _ in range(steps)]
    return values, [[None if rng.random() < 0.25 else g for g in gradients] for gradients in draw]


def run(values, gradients, hyper):
    parameters = [Parameter(v) for v in values]
    sgd = SGD(iter(parameters), **hyper)
    for step in gradients:
        for p, g in zip(parameters, step, strict=True):
            p.grad = g
        sgd.step()
    return [p.data for p in parameters]


@pytest.mark.parametrize("hyper", HYPER, ids=str)
@pytest.mark.parametrize("seed", range(10))
def test_equals_loops(seed, hyper):
    values, gradients = random_run(seed)
    for i, moved in enumerate(run(values, gradients, hyper)):
        for index in np.ndindex(moved.shape):
            one = [None if step[i] is None else step[i][index] for step in gradients]
            assert moved[index] == by_loops(values[i][index], one, **hyper)


@pytest.mark.parametrize("hyper", HYPER, ids=str)
@pytest.mark.parametrize("seed", range(10))
def test_equals_torch(seed, hyper):
    torch = pytest.importorskip("torch")
    values, gradients = random_run(seed)
    parameters = [torch.nn.Parameter(torch.tensor(v)) for v in values]
    sgd = torch.optim.SGD(parameters, **hyper)
    for step in gradients:
        for p, g in zip(parameters, step, strict=True):
            p.grad = None if g is None else torch.tensor(g)
        sgd.step()
    for ours, theirs in zip(run(values, gradients, hyper), parameters, strict=True):
        np.testing.assert_array_equal(ours, theirs.detach())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_function_keeps_dtype_and_operands(dtype):
    p, g, v = (np.full(2, value, dtype) for value in (1, 2, 4))
    moved, velocity = sgd_step(p, g, v, lr=0.5, momentum=0.5, weight_decay=1.0)
    assert moved.dtype == velocity.dtype == dtype
    assert (p[0], g[0], v[0], velocity[0], moved[0]) == (1, 2, 4, 5, -1.5)
    assert not any(np.shares_memory(a, b) for a in (p, g, v) for b in (moved, velocity))


def test_velocity_does_not_follow_the_gradient():
    p = Parameter(np.zeros(1))
    sgd, p.grad = SGD([p], lr=1.0, momentum=0.5), np.ones(1)
    sgd.step()
    p.grad[...] = 0
    sgd.step()
    assert p.data == -1.5


def test_buffers_and_others_stay():
    net = Module()
    net.a, net.b, net.mean = Parameter(np.ones(1)), Parameter(np.ones(1)), Buffer(np.ones(1))
    net.tied = net.a
    net.a.grad = net.b.grad = np.ones(1)
    before = net.a
    SGD([net.a], lr=0.5, momentum=0.5, weight_decay=0.5).step()
    assert (net.a.data, net.b.data, net.mean.data) == (0.25, 1, 1)
    assert net.a is before


def test_specials_stay_in_their_element():
    p = Parameter(np.array([1.0, np.inf, 1.0]))
    p.grad = np.array([np.nan, 1.0, np.inf])
    sgd = SGD([p], lr=0.5)
    sgd.step()
    np.testing.assert_array_equal(p.data, [np.nan, np.inf, -np.inf])
    p.grad = np.ones(3)
    sgd.step()
    np.testing.assert_array_equal(p.data, [np.nan, np.inf, -np.inf])


def test_zero_grad_forgets_gradients_alone():
    p = Parameter(np.ones(1))
    p.grad = gradient = np.ones(1)
    SGD([p], lr=0.5).zero_grad()
    assert (p.grad, p.data, gradient) == (None, 1, 1)


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"momentum": -0.1}, {"weight_decay": -0.1}], ids=str)
def test_refuses_negative_numbers(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=-"):
        SGD([Parameter(np.ones(1))], **{"lr": 0.5, **wrong})


def test_refuses_no_parameters_and_misshapen_gradients():
    for nothing in ([], iter(())):
        with pytest.raises(ValueError, match="at least one"):
            SGD(nothing, lr=0.5)
    p = Parameter(np.ones(2))
    for shape in ((1,), (), (1, 2), (3,)):
        p.grad = np.ones(shape)
        with pytest.raises(ValueError, match="gradient of shape"):
            SGD([p], lr=0.5).step()

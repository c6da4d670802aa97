"""The reference against the definition as index loops, and against torch where it is installed."""

from itertools import pairwise

import numpy as np
import pytest
from nnspec.reference.mlp import MLP, mlp


def by_loops(x, *parameters):
    last = len(parameters) // 2 - 1
    for n, (weight, bias) in enumerate(zip(parameters[::2], parameters[1::2], strict=True)):
        y = np.zeros((*x.shape[:-1], len(weight)))
        for *lead, o in np.ndindex(*y.shape):
            total = bias[o] + sum(weight[o, i] * x[*lead, i] for i in range(x.shape[-1]))
            y[*lead, o] = total if n == last else max(total, 0)
        x = y
    return x


def random_case(rng):
    """An input, and the weight and the bias of one to four layers."""
    lead, sizes = rng.integers(0, 4, rng.integers(0, 4)), rng.integers(1, 5, rng.integers(2, 6))
    shapes = [shape for ins, outs in pairwise(sizes) for shape in ((outs, ins), (outs,))]
    return [rng.integers(-9, 10, shape).astype(float) for shape in ((*lead, sizes[0]), *shapes)]


def module_of(*parameters):
    inputs, *hidden, outputs = parameters[0].shape[1], *map(len, parameters[::2])
    layer = MLP(inputs, hidden, outputs, dtype=np.float64)
    layer.load_state_dict(dict(zip(layer.state_dict(), parameters, strict=True)))
    return layer


@pytest.mark.parametrize("seed", range(30))
def test_equals_loops(seed):
    x, *parameters = random_case(np.random.default_rng(seed))
    expected = by_loops(x, *parameters)
    np.testing.assert_array_equal(mlp(x, *parameters), expected, strict=True)
    np.testing.assert_array_equal(module_of(*parameters)(x), expected, strict=True)


@pytest.mark.parametrize("seed", range(30))
def test_equals_torch(seed):
    """Results and all gradients."""
    torch = pytest.importorskip("torch")
    x, *parameters = random_case(np.random.default_rng(seed))
    theirs = [torch.from_numpy(array).requires_grad_() for array in (x, *parameters)]
    y, last = theirs[0], len(parameters) // 2 - 1
    for n in range(last + 1):
        y = torch.nn.functional.linear(y, *theirs[1 + 2 * n : 3 + 2 * n])
        y = y if n == last else torch.relu(y)
    layer = module_of(*parameters)
    ours, pullback = layer.vjp(x)
    np.testing.assert_array_equal(ours, y.detach().numpy(), strict=True)
    cotangent = np.random.default_rng(seed).integers(-3, 4, y.shape).astype(float)
    y.backward(torch.from_numpy(cotangent))
    gradients = [pullback(cotangent), *(p.grad for p in layer.parameters())]
    for mine, their in zip(gradients, theirs, strict=True):
        np.testing.assert_array_equal(mine, their.grad.numpy(), strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_keeps_the_dtype(dtype):
    assert MLP(3, 4, 2, dtype=dtype)(np.ones((5, 3), dtype)).dtype == dtype


def test_module_has_four_parameters_of_its_own():
    layer = MLP(3, 3, 3, rng=np.random.default_rng(0))
    assert [key for key, _ in layer.named_parameters()] == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert (layer.fc1.weight.data != layer.fc2.weight.data).any()


def test_one_hidden_size_is_a_sequence_of_one():
    one, sequence = MLP(3, 4, 2), MLP(3, (4,), 2)
    shapes = [[(key, array.shape) for key, array in layer.state_dict().items()] for layer in (one, sequence)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("shape", [(), (4,), (2, 1)])
def test_refuses_other_features(shape):
    with pytest.raises(ValueError, match="expected"):
        MLP(3, 4, 2)(np.ones(shape, np.float32))

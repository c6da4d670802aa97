"""The reference against the definition as index loops, and against torch where it is installed."""

import numpy as np
import pytest
from nnspec.reference.mlp import MLP, mlp


def by_loops(x, weight1, bias1, weight2, bias2):
    y = np.zeros((*x.shape[:-1], len(weight2)))
    for lead in np.ndindex(*x.shape[:-1]):
        for o in range(len(weight2)):
            y[*lead, o] = bias2[o]
            for h in range(len(weight1)):
                hidden = bias1[h] + sum(weight1[h, i] * x[*lead, i] for i in range(x.shape[-1]))
                y[*lead, o] += weight2[o, h] * max(hidden, 0)
    return y


def random_case(rng):
    lead, (i, h, o) = rng.integers(0, 4, rng.integers(0, 4)), rng.integers(1, 5, 3)
    return [rng.integers(-9, 10, shape).astype(float) for shape in ((*lead, i), (h, i), (h,), (o, h), (o,))]


def module_of(weight1, bias1, weight2, bias2):
    layer = MLP(weight1.shape[1], len(weight1), len(weight2), dtype=np.float64)
    layer.load_state_dict({"fc1.weight": weight1, "fc1.bias": bias1, "fc2.weight": weight2, "fc2.bias": bias2})
    return layer


@pytest.mark.parametrize("seed", range(30))
def test_equals_loops(seed):
    x, *parameters = random_case(np.random.default_rng(seed))
    expected = by_loops(x, *parameters)
    np.testing.assert_array_equal(mlp(x, *parameters), expected, strict=True)
    np.testing.assert_array_equal(module_of(*parameters)(x), expected, strict=True)


@pytest.mark.parametrize("seed", range(30))
def test_equals_torch(seed):
    torch = pytest.importorskip("torch")
    x, *parameters = random_case(np.random.default_rng(seed))
    weight1, bias1, weight2, bias2 = map(torch.from_numpy, parameters)
    hidden = torch.relu(torch.nn.functional.linear(torch.from_numpy(x), weight1, bias1))
    theirs = torch.nn.functional.linear(hidden, weight2, bias2).numpy()
    np.testing.assert_array_equal(mlp(x, *parameters), theirs, strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_keeps_the_dtype(dtype):
    assert MLP(3, 4, 2, dtype=dtype)(np.ones((5, 3), dtype)).dtype == dtype


def test_module_has_four_parameters_of_its_own():
    layer = MLP(3, 3, 3, rng=np.random.default_rng(0))
    assert [key for key, _ in layer.named_parameters()] == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert (layer.fc1.weight.data != layer.fc2.weight.data).any()


@pytest.mark.parametrize("shape", [(), (4,), (2, 1)])
def test_refuses_other_features(shape):
    with pytest.raises(ValueError, match="expected"):
        MLP(3, 4, 2)(np.ones(shape, np.float32))

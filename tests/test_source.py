"""The code lines of the source material run as they are written there, in the reference and in torch.

The source writes PyTorch. For the reference, `nn` and `torch` are two namespaces of the same names over NumPy.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nnspec.reference.einsum import einsum
from nnspec.reference.linear import Linear
from nnspec.reference.mlp import MLP
from nnspec.reference.module import Module, Parameter
from nnspec.reference.relu import ReLU
from nnspec.reference.sequential import Sequential
from nnspec.reference.sgd import SGD

# row of the source -> its line
LINES = {
    1: "c = einsum('ij,jk->ik', a, b)",
    2: "c = einsum('bij,bjk->bik', a, b)",
    3: "c = einsum('i,i->', a, b)",
    4: "c = einsum('i,j->ij', a, b)",
    13: "self.weight = nn.Parameter(torch.randn(3, 4))",
    16: "self.register_buffer('running_mean', torch.zeros(hidden_dim))",
    17: "self.running_mean = 0.9 * self.running_mean + 0.1 * batch_mean",
    21: "nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 30))",
}
LAYER = f"""
class Layer(nn.Module):
    def __init__(self, hidden_dim):
        super().__init__()
        {LINES[13]}
        {LINES[16]}

    def forward(self, batch):
        batch_mean = batch.mean(0)
        {LINES[17]}
        return batch - self.running_mean
"""


def _reference() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    torch = SimpleNamespace(
        randn=lambda *shape: rng.standard_normal(shape, np.float32),
        zeros=lambda *shape: np.zeros(shape, np.float32),
        tensor=np.float32,
    )
    nn = SimpleNamespace(Module=Module, Parameter=Parameter, Linear=Linear, ReLU=ReLU, Sequential=Sequential)
    return {"nn": nn, "torch": torch, "einsum": einsum, "MLP": MLP, "SGD": SGD}


def _torch() -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    from nnspec.adapters.torch_blocks import MLP as theirs

    return {"nn": torch.nn, "torch": torch, "einsum": torch.einsum, "MLP": theirs, "SGD": torch.optim.SGD}


@pytest.fixture(params=[_reference, _torch], ids=["reference", "torch"])
def names(request) -> dict[str, Any]:
    """What the lines find under their names."""
    return request.param()


def state(module: Any) -> dict[str, np.ndarray]:
    """Return copies of the arrays of a module's state."""
    return {key: np.asarray(array).copy() for key, array in module.state_dict().items()}


@pytest.mark.parametrize(
    ("row", "a", "b", "c"),
    [
        (1, [[1.0, 2.0], [3.0, 4.0]], [[5.0], [6.0]], [[17.0], [39.0]]),
        (2, [[[1.0, 2.0]], [[3.0, 4.0]]], [[[5.0], [6.0]], [[7.0], [8.0]]], [[[17.0]], [[53.0]]]),
        (3, [1.0, 2.0], [3.0, 4.0], 11.0),
        (4, [1.0, 2.0], [3.0, 4.0], [[3.0, 4.0], [6.0, 8.0]]),
    ],
)
def test_einsum_lines_give_the_products(names, row, a, b, c):
    tensor = names["torch"].tensor
    names |= {"a": tensor(a), "b": tensor(b)}
    exec(LINES[row], names)
    np.testing.assert_array_equal(np.asarray(names["c"]), c)


def test_lines_of_a_module_make_a_parameter_and_a_buffer_that_is_updated(names):
    exec(LAYER, names)
    layer = names["Layer"](2)
    assert [(key, tuple(p.data.shape)) for key, p in layer.named_parameters()] == [("weight", (3, 4))]
    expected = np.zeros(2, np.float32)
    for _ in range(2):
        layer(names["torch"].tensor([[5.0, 10.0], [15.0, 30.0]]))
        expected = 0.9 * expected + 0.1 * np.float32([10.0, 20.0])
        np.testing.assert_array_equal(state(layer)["running_mean"], expected, strict=True)
    assert sorted(layer.state_dict()) == ["running_mean", "weight"]
    assert [key for key, _ in layer.named_buffers()] == ["running_mean"]


def test_an_optimiser_moves_the_parameter_of_these_lines_and_not_the_buffer(names):
    exec(LAYER, names)
    layer = names["Layer"](2)
    layer(names["torch"].tensor([[10.0, 20.0]]))
    before = state(layer)
    for parameter in layer.parameters():
        parameter.grad = parameter.data * 0 + 1
    names["SGD"](layer.parameters(), lr=1.0).step()
    after = state(layer)
    np.testing.assert_array_equal(after["weight"], before["weight"] - 1)
    np.testing.assert_array_equal(after["running_mean"], before["running_mean"])


def test_the_line_of_a_sequential_makes_a_network(names):
    network = eval(LINES[21], names)
    assert tuple(network(names["torch"].zeros(5, 10)).shape) == (5, 30)
    assert list(network.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize(("hidden", "sizes"), [([5, 6, 4], [7, 5, 6, 4, 3]), ([], [7, 3])])
def test_an_mlp_is_a_stack_of_layers(names, hidden, sizes):
    network = names["MLP"](7, hidden, 3)
    assert tuple(network(names["torch"].zeros(2, 7)).shape) == (2, 3)
    weights = [tuple(array.shape) for key, array in network.state_dict().items() if key.endswith("weight")]
    assert weights == list(zip(sizes[1:], sizes[:-1], strict=True))

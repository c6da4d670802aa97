"""Each row of spec/source.md leads to a page, an example, requirements and their checks, and its code line runs.

The lines run as they are written in the source material, in the reference and in torch.

The source writes PyTorch. For the reference, `nn` and `torch` are two namespaces of the same names over NumPy.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nnspec.conformance.checks import load_checks
from nnspec.conformance.requirements import CHECKS, pages, requirements
from nnspec.reference.einsum import einsum
from nnspec.reference.linear import Linear
from nnspec.reference.mlp import MLP
from nnspec.reference.module import Module, Parameter
from nnspec.reference.relu import ReLU
from nnspec.reference.sequential import Sequential
from nnspec.reference.sgd import SGD

ROWS = {
    int(cells[0]): cells
    for cells in (line.strip("| ").split(" | ") for line in pages()["source"].splitlines())
    if cells[0].isdigit()
}
JUDGEMENTS = {20}  # rows that state no fact

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


def section(page: str, anchor: str) -> str:
    """Return the text below the heading with this anchor, as GitHub makes anchors of headings."""
    parts = re.split(r"^##+ (.+)$", pages()[page], flags=re.M)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return next(
        (text for h, text in found.items() if re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") == anchor), ""
    )


def test_the_page_of_the_source_has_all_rows():
    assert list(ROWS) == list(range(1, 39))
    assert all(len(cells) == 6 for cells in ROWS.values())


@pytest.mark.parametrize("row", ROWS)
def test_a_row_leads_to_a_page_and_to_an_example_on_it(row):
    page = re.fullmatch(r"\[(\w+)\]\((\w+)\.md\)", ROWS[row][1])
    example = re.fullmatch(r"\[`(.+)`\]\((\w+)\.md#(.+)\)", ROWS[row][3])
    assert page
    assert example
    assert page[1] == page[2] == example[2]
    blocks = re.findall(r"```python\n(.*?)```", section(example[2], example[3]), re.S)
    assert any(example[1] in block for block in blocks)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_leads_to_requirements_and_to_their_checks(row):
    load_checks()
    demanded, enforced = (re.findall(r"`([^`]+)`", cell) for cell in ROWS[row][4:])
    assert bool(demanded) == (row not in JUDGEMENTS)
    assert not set(demanded) - set(requirements())
    assert enforced == [CHECKS[identifier].body.__name__ for identifier in demanded]


def test_code_lines_stand_on_the_page_as_they_run():
    with_code = {row for row, cells in ROWS.items() if re.search(r"`[^`]*(?: = |Sequential|register_buffer)", cells[2])}
    assert with_code == set(LINES)
    for row, line in LINES.items():
        assert f"`{line}`" in ROWS[row][2]


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

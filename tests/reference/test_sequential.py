"""The reference against a list of functions, and against torch where it is installed."""

import numpy as np
import pytest
from nnspec.reference.module import Module, Parameter
from nnspec.reference.sequential import Sequential


class Affine(Module):
    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = Parameter(np.array(float(weight))), Parameter(np.array(float(bias)))

    def forward(self, x):
        return self.weight.data * x + self.bias.data


def affine_modules(n):
    return [Affine(i + 2, 3 * i + 1) for i in range(n)]


def in_turn(modules, x):
    for m in modules:
        x = m.weight.data * x + m.bias.data
    return x


@pytest.mark.parametrize("n", [0, 1, 2, 3, 12])
def test_runs_in_order(n):
    modules = affine_modules(n)
    chain = Sequential(*modules)
    assert len(chain) == n
    assert list(chain) == modules
    assert chain(np.float64(2)) == in_turn(modules, 2.0)
    assert list(chain.state_dict()) == [f"{i}.{name}" for i in range(n) for name in ("weight", "bias")]


def test_append_after_a_call():
    modules, chain = affine_modules(11), Sequential()
    for n, module in enumerate(modules, start=1):
        assert chain.append(module) is chain
        assert len(chain) == n
        assert chain(1.0) == in_turn(modules[:n], 1.0)
    assert "10.weight" in chain.state_dict()


BOUNDS = [None, -9, -3, -1, 0, 1, 3, 9]


@pytest.mark.parametrize("step", [None, 1, 2, -1, -2])
def test_indices_and_slices_are_those_of_a_list(step):
    modules = affine_modules(4)
    chain = Sequential(*modules)
    for i in range(-4, 4):
        assert chain[i] is modules[i]
    for i in (-5, 4):
        with pytest.raises(IndexError):
            chain[i]
    for start in BOUNDS:
        for stop in BOUNDS:
            part = chain[start:stop:step]
            assert isinstance(part, Sequential)
            assert list(part) == modules[start:stop:step]
            assert part(2.0) == in_turn(modules[start:stop:step], 2.0)


def test_slice_is_a_chain_of_its_own():
    chain = Sequential(*affine_modules(3))
    part = chain[:2].append(Affine(1, 1))
    assert (len(chain), len(part)) == (3, 3)
    assert part[0] is chain[0]


def test_one_module_in_several_places():
    a, b = affine_modules(2)
    chain = Sequential(a, Sequential(b, a), a)
    assert chain(1.0) == in_turn([a, b, a, a], 1.0)
    assert len(chain) == 3
    assert len(list(chain.parameters())) == 4
    assert len(chain.state_dict()) == 8


def test_mode_reaches_nested_and_appended():
    a, b = affine_modules(2)
    chain = Sequential(Sequential(a)).append(b).eval()
    assert [m.training for m in (chain, chain[0], a, b)] == [False] * 4
    chain.train()
    assert [m.training for m in (chain, chain[0], a, b)] == [True] * 4


@pytest.mark.parametrize("wrong", [3, None, abs, [Affine(1, 1)]])
def test_refuses_what_is_no_module(wrong):
    with pytest.raises(TypeError):
        Sequential(wrong)
    with pytest.raises(TypeError):
        Sequential().append(wrong)


def test_equals_torch():
    torch = pytest.importorskip("torch")

    class TorchAffine(torch.nn.Module):
        def __init__(self, weight, bias):
            super().__init__()
            self.weight, self.bias = (torch.nn.Parameter(torch.tensor(float(v))) for v in (weight, bias))

        def forward(self, x):
            return self.weight * x + self.bias

    def build(sequential, affine):
        a, b, c = affine(2, 1), affine(3, -1), affine(-1, 4)
        return sequential(a, sequential(b, a), sequential()).append(c)

    ours, theirs = build(Sequential, Affine), build(torch.nn.Sequential, TorchAffine)
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    assert [k for k, _ in ours.named_parameters()] == [k for k, _ in theirs.named_parameters()]
    assert [k for k, _ in ours.named_modules()] == [k for k, _ in theirs.named_modules()]
    for part in (slice(None), slice(1, None), slice(None, None, -1), slice(-1, 0, -2), slice(7, 9)):
        assert ours[part](2.0) == theirs[part](torch.tensor(2.0)).item()
        assert len(ours[part]) == len(theirs[part])

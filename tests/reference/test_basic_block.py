"""The reference block against torch's layers, put together here as the page says: exactly, on integers."""

import numpy as np
import pytest
from nnspec.reference.basic_block import BasicBlock, ResidualBlock

SIZES = [(3, 3, 1), (3, 5, 1), (3, 3, 2), (3, 5, 2), (4, 2, 3)]


def torch_block(in_channels, out_channels, stride):
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(out_channels)
            self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(out_channels)
            if (stride, in_channels) != (1, out_channels):
                projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
                self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

        def forward(self, x):
            shortcut = self.downsample(x) if hasattr(self, "downsample") else x
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + shortcut)

    return Block().double()


def integer_state(block, seed):
    """Integers everywhere, and variances that become 1 or 4 once eps is on: in evaluation every step is exact."""
    rng = np.random.default_rng(seed)
    state = {}
    for key, value in block.state_dict().items():
        state[key] = rng.integers(-3, 4, value.shape).astype(value.dtype)
        if key.endswith("running_var"):
            state[key] = rng.choice([1.0, 4.0], value.shape) - 1e-5
            assert np.isin(np.sqrt(state[key] + 1e-5), [1, 2]).all()
    return state


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", SIZES)
def test_evaluation_equals_torch_exactly(sizes, seed):
    theirs = torch_block(*sizes).eval()
    import torch

    ours = ResidualBlock(*sizes, dtype=np.float64).eval()
    state = integer_state(ours, seed)
    ours.load_state_dict(state)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    x = np.random.default_rng(seed).integers(-9, 10, (2, sizes[0], 7, 6)).astype(float)
    np.testing.assert_array_equal(ours(x), theirs(torch.tensor(x)).detach().numpy())


@pytest.mark.parametrize("sizes", SIZES)
def test_training_equals_torch(sizes):
    theirs = torch_block(*sizes)
    import torch

    ours = ResidualBlock(*sizes, dtype=np.float64, rng=np.random.default_rng(0))
    theirs.load_state_dict({key: torch.tensor(value) for key, value in ours.state_dict().items()})
    x = np.random.default_rng(1).standard_normal((3, sizes[0], 7, 6))
    # Two normalised layers and one sum: a few hundred roundings of numbers near 1.
    near = {"rtol": 0, "atol": 300 * 2**-53 * 10}
    for _ in range(2):
        np.testing.assert_allclose(ours(x), theirs(torch.tensor(x)).detach().numpy(), **near)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), **near, err_msg=key)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_state_has_torchs_keys_and_shapes(sizes):
    ours, theirs = ResidualBlock(*sizes).state_dict(), torch_block(*sizes).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: tuple(v.shape) for key, v in theirs.items()}


def test_the_input_is_not_written_to():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 5))
    before = x.copy()
    for stride in (1, 2):
        y = BasicBlock(3, 3, stride, dtype=np.float64)(x)
        assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, before)

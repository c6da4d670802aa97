"""The reference network against torch's layers, put together here as the page says, and its published size."""

import numpy as np
import pytest
from nnspec.reference.resnet34 import ResNet34

WIDTH = 4


def torch_network(in_channels, num_classes, width):
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, c, o, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(c, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
            self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
            if (stride, c) != (1, o):
                self.downsample = nn.Sequential(nn.Conv2d(c, o, 1, stride, bias=False), nn.BatchNorm2d(o))

        def forward(self, x):
            shortcut = self.downsample(x) if hasattr(self, "downsample") else x
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + shortcut)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
            c = width
            for stage, (blocks, factor) in enumerate(((3, 1), (4, 2), (6, 4), (3, 8)), start=1):
                o = width * factor
                first = Block(c, o, 1 if stage == 1 else 2)
                setattr(self, f"layer{stage}", nn.Sequential(first, *(Block(o, o, 1) for _ in range(blocks - 1))))
                c = o
            self.fc = nn.Linear(c, num_classes)

        def forward(self, x):
            x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    return Network().double()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40)])
def test_equals_torch(size, training):
    theirs = torch_network(2, 5, WIDTH).train(training)
    import torch

    rng = np.random.default_rng(0)
    ours = ResNet34(2, 5, width=WIDTH, dtype=np.float64, rng=rng).train(training)
    for key, buffer in ours.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            buffer.data[...] = rng.uniform(0.5, 1.5, buffer.data.shape)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in ours.state_dict().items()})
    x = rng.standard_normal((4, 2, *size))
    expected = theirs(torch.tensor(x)).detach().numpy()
    # 36 layers, each of sums of at most 9 · 32 products: some ten thousand roundings, which training divides by small
    # deviations, as four values per channel have them.
    bound = 1e4 * 2**-53 * np.abs(expected).max() * (100 if training else 1)
    np.testing.assert_allclose(ours(x), expected, rtol=0, atol=bound)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), rtol=1e-9, atol=1e-9, err_msg=key)


def test_parameters_and_state_are_as_published():
    model = ResNet34()
    assert sum(p.data.size for p in model.parameters()) == 21_797_672
    assert len(model.state_dict()) == 218


def test_the_state_has_torchs_keys_and_shapes():
    theirs = torch_network(2, 5, WIDTH).state_dict()
    ours = ResNet34(2, 5, width=WIDTH).state_dict()
    assert list(ours) == list(theirs)
    assert [value.shape for value in ours.values()] == [tuple(value.shape) for value in theirs.values()]


def test_the_kernels_are_drawn_by_what_goes_out():
    model = ResNet34(width=16, rng=np.random.default_rng(0))
    for key, parameter in model.named_parameters():
        if parameter.data.ndim == 4:
            o, _, kh, kw = parameter.data.shape
            expected, n = np.sqrt(2 / (o * kh * kw)), parameter.data.size
            # The deviation of n normal draws is itself off by a relative 1/√(2n); six of that.
            assert abs(parameter.data.std() / expected - 1) < 6 / np.sqrt(2 * n), key


def test_every_image_is_classified_by_itself():
    model = ResNet34(1, 3, width=WIDTH, dtype=np.float64, rng=np.random.default_rng(0)).eval()
    x = np.random.default_rng(1).standard_normal((3, 1, 33, 40))
    np.testing.assert_allclose(model(x), np.concatenate([model(image[None]) for image in x]), rtol=1e-12)
    assert model(x[:0]).shape == (0, 3)

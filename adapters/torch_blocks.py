"""What torch lacks as one piece, composed of its own functions and modules."""

import itertools

import torch
from nnspec.adapters import chains
from torch import nn


def batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
    """torch updates the running statistics in place; here the new ones are returned."""
    mean, var = running_mean.clone(), running_var.clone()
    y = torch.nn.functional.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
    return y, mean, var


def global_avg_pool2d(x):
    """torch's adaptive pool to 1×1, without the two dimensions of size 1."""
    return torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(-3)


BLOCKS = {name: getattr(torch.nn.functional, name) for name in chains.BLOCKS if name != "global_avg_pool2d"}
BLOCKS |= {"batch_norm": batch_norm, "global_avg_pool2d": global_avg_pool2d}
fused_chain = chains.in_a_row(BLOCKS)


class GlobalAvgPool2d(nn.Module):
    """(N, C, H, W) -> (N, C)"""

    def forward(self, x):
        """The mean over H×W."""
        return global_avg_pool2d(x)


class MLP(nn.Module):
    """Linear layers fc1, fc2, … with a ReLU between each two of them."""

    def __init__(self, in_features, hidden_features, out_features):
        super().__init__()
        hidden = [hidden_features] if isinstance(hidden_features, int) else hidden_features
        sizes = [in_features, *hidden, out_features]
        for n, (inputs, outputs) in enumerate(itertools.pairwise(sizes), start=1):
            self.add_module(f"fc{n}", nn.Linear(inputs, outputs))

    def forward(self, x):
        """(…, in_features) -> (…, out_features)"""
        *hidden, last = self.children()
        for layer in hidden:
            x = nn.functional.relu(layer(x))
        return last(x)


class ResidualBlock(nn.Module):
    """torchvision's BasicBlock out of torch's own modules."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))
        else:
            self.downsample = None

    def forward(self, x):
        """(N, C, H, W) -> (N, O, OH, OW)"""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet34(nn.Module):
    """torchvision's ResNet-34 out of torch's own modules; `width` channels leave the stem."""

    def __init__(self, in_channels=3, num_classes=1000, width=64):
        super().__init__()
        with torch.device("meta"):  # without numbers: convolutions would draw theirs twice
            self._build(in_channels, num_classes, width)
        self.to_empty(device=torch.get_default_device())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d | nn.Linear):
                module.reset_parameters()

    def _build(self, in_channels, num_classes, width):
        self.conv1, self.bn1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        channels = width
        for stage, (factor, blocks) in enumerate(((1, 3), (2, 4), (4, 6), (8, 3)), start=1):
            first = ResidualBlock(channels, factor * width, stride=1 if stage == 1 else 2)
            channels = factor * width
            rest = [ResidualBlock(channels, channels) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
        self.avgpool, self.fc = GlobalAvgPool2d(), nn.Linear(channels, num_classes)

    def forward(self, x):
        """(N, C, H, W) -> (N, num_classes)"""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x))

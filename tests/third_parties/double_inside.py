"""PyTorch: layers after torch.nn's conventions that compute in float64 whatever they are given, and round once.

A network of several layers rounds once as well: `compute` is what a layer does between the two conversions.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class InDouble(nn.Module):
    """What is called converts; what is computed is for subclasses to say."""

    def forward(self, x):
        """The result in the dtype of x."""
        return self.compute(x.double()).to(x.dtype)


class Linear(InDouble):
    """(…, in_features) -> (…, out_features)"""

    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        demand(in_features >= 0 and out_features >= 0, f"{in_features=}, {out_features=}")
        self.weight, self.bias = drawn((out_features, in_features), in_features, bias)

    def compute(self, x):
        """x·Wᵀ + b"""
        demand(x.ndim > 0 and x.shape[-1] == self.weight.shape[1], f"x {tuple(x.shape)}")
        return functional.linear(x, *doubled(self.weight, self.bias))


class Conv2d(InDouble):
    """(N, C, H, W) -> (N, O, OH, OW)"""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__()
        demand(groups > 0 and in_channels % groups == 0 and out_channels % groups == 0, f"{groups=}")
        (kh, kw), c = pair(kernel_size, 1), in_channels // groups
        self.weight, self.bias = drawn((out_channels, c, kh, kw), c * kh * kw, bias)
        self.numbers = pair(stride, 1), pair(padding, 0), pair(dilation, 1), groups

    def compute(self, x):
        """torch's, in float64."""
        demand(x.ndim == 4, f"x {tuple(x.shape)}")
        return functional.conv2d(x, *doubled(self.weight, self.bias), *self.numbers)


class BatchNorm(InDouble):
    """Statistics are computed in float64, and rounded where they are kept."""

    RANKS: tuple[int, ...] = (2, 3)

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True):
        super().__init__()
        demand(eps > 0, f"{eps=}")
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def compute(self, x):
        """By the batch in training, and otherwise by what was kept."""
        demand(x.ndim in self.RANKS and x.shape[1] == len(self.running_mean), f"x {tuple(x.shape)}")
        axes, along = [0, *range(2, x.ndim)], [-1, *[1] * (x.ndim - 2)]
        mean, var = doubled(self.running_mean, self.running_var)
        if self.training:
            count = x.numel() // max(1, x.shape[1])
            demand(count != 1, "one value for each channel")
            self.num_batches_tracked += 1
            if count:
                new = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
                kept = [(1 - new) * mean, (1 - new) * var]
                var, mean = torch.var_mean(x, axes, correction=0)
                self.running_mean.copy_(kept[0] + new * mean.detach())
                self.running_var.copy_(kept[1] + new * count / (count - 1) * var.detach())
        y = (x - mean.reshape(along)) * torch.rsqrt(var + self.eps).reshape(along)
        weight, bias = doubled(self.weight, self.bias)
        return y if weight is None else torch.addcmul(bias.reshape(along), y, weight.reshape(along))


class BatchNorm1d(BatchNorm):
    """(N, C) or (N, C, L)"""


class BatchNorm2d(BatchNorm):
    """(N, C, H, W)"""

    RANKS = (4,)


class AvgPool2d(InDouble):
    """(N, C, H, W) -> (N, C, OH, OW)"""

    def __init__(
        self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
    ):
        super().__init__()
        self.numbers = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override

    def compute(self, x):
        """torch's, in float64."""
        return functional.avg_pool2d(x, *self.numbers)


class GlobalAvgPool2d(InDouble):
    """(N, C, H, W) -> (N, C)"""

    def compute(self, x):
        """The mean over rows and columns."""
        demand(x.ndim == 4, f"x {tuple(x.shape)}")
        return x.mean((2, 3))


class MLP(InDouble):
    """Linear, ReLU, Linear."""

    def __init__(self, in_features, hidden_features, out_features):
        super().__init__()
        self.fc1, self.fc2 = Linear(in_features, hidden_features), Linear(hidden_features, out_features)

    def compute(self, x):
        """(…, in_features) -> (…, out_features)"""
        return self.fc2.compute(self.fc1.compute(x).relu())


class ResidualBlock(InDouble):
    """relu(branch(x) + shortcut(x))"""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv1, self.bn1 = Conv2d(in_channels, out_channels, 3, stride, 1, bias=False), BatchNorm2d(out_channels)
        self.conv2, self.bn2 = Conv2d(out_channels, out_channels, 3, 1, 1, bias=False), BatchNorm2d(out_channels)
        projection = [Conv2d(in_channels, out_channels, 1, stride, bias=False), BatchNorm2d(out_channels)]
        self.downsample = nn.Sequential(*projection) if stride != 1 or in_channels != out_channels else None

    def compute(self, x):
        """(N, C, H, W) -> (N, O, OH, OW)"""
        y = self.bn2.compute(self.conv2.compute(self.bn1.compute(self.conv1.compute(x)).relu()))
        for layer in self.downsample or ():
            x = layer.compute(x)
        return (y + x).relu()


def drawn(shape, fan_in, bias):
    """A weight, and a bias or None."""
    reach = max(fan_in, 1) ** -0.5
    draw = [nn.Parameter(torch.empty(size).uniform_(-reach, reach)) for size in (shape, shape[:1])]
    return draw[0], draw[1] if bias else None


def doubled(*tensors):
    """In float64."""
    return [None if t is None else t.double() for t in tensors]


def pair(value, least):
    """3 stands for (3, 3)."""
    rows, columns = (value, value) if isinstance(value, int) else value
    demand(rows >= least and columns >= least, f"{value}")
    return rows, columns


def demand(condition, what):
    """Refuse what does not fit."""
    if not condition:
        raise ValueError(what)

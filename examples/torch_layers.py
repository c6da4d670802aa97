"""Layers written by hand for PyTorch: its tensors, parameters and autograd, none of its layers.

nnspec check examples/torch_layers.py
"""

import torch
from torch import nn


class Linear(nn.Module):
    """(..., in_features) -> (..., out_features)"""

    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        if in_features < 0 or out_features < 0:
            raise ValueError(f"{in_features=}, {out_features=}: expected at least 0")
        limit = max(in_features, 1) ** -0.5
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-limit, limit)) if bias else None

    def forward(self, x):
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias


class Conv2d(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, OH, OW): every window becomes a column, then one product does it."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{groups=}: expected a divisor of {in_channels=} and {out_channels=}")
        self.kernel_size, self.stride = pair(kernel_size, 1), pair(stride, 1)
        self.padding, self.dilation, self.groups = pair(padding, 0), pair(dilation, 1), groups
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        limit = (shape[1] * shape[2] * shape[3]) ** -0.5
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-limit, limit)) if bias else None

    def forward(self, x):
        (n, c, h, w), (o, cg, kh, kw) = x.shape, self.weight.shape
        if c != cg * self.groups:
            raise ValueError(f"x of shape {tuple(x.shape)}: expected {cg * self.groups} channels")
        oh, ow = (
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, k, s, p, d in zip((h, w), (kh, kw), self.stride, self.padding, self.dilation, strict=True)
        )
        columns = nn.functional.unfold(x, (kh, kw), self.dilation, self.padding, self.stride)  # (N, C·KH·KW, OH·OW)
        kernels = self.weight.reshape(self.groups, o // self.groups, cg * kh * kw)
        y = kernels @ columns.reshape(n, self.groups, cg * kh * kw, oh * ow)
        y = y.reshape(n, o, oh, ow)
        return y if self.bias is None else y + self.bias[:, None, None]


class BatchNorm2d(nn.Module):
    """(N, C, H, W) -> the same shape, every channel with mean 0 and variance 1, then scaled and shifted."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True):
        super().__init__()
        if eps <= 0:
            raise ValueError(f"{eps=}: expected more than 0")
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x):
        if x.ndim != 4 or x.shape[1] != len(self.running_mean):
            raise ValueError(f"x of shape {tuple(x.shape)}: expected (N, {len(self.running_mean)}, H, W)")
        self.num_batches_tracked += self.training
        statistics = self.of_batch(x) if self.training and x.numel() else (self.running_mean, self.running_var)
        mean, deviation = statistics[0], (statistics[1] + self.eps).sqrt()
        y = (x - mean[:, None, None]) / deviation[:, None, None]
        return y if self.weight is None else y * self.weight[:, None, None] + self.bias[:, None, None]

    def of_batch(self, x):
        """The mean of the batch and its variance with divisor n; the running variance takes the one with n − 1."""
        n = x.numel() // x.shape[1]
        if n == 1:
            raise ValueError(f"x of shape {tuple(x.shape)}: expected more than one value per channel in training")
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        with torch.no_grad():
            new = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            self.running_mean.mul_(1 - new).add_(new * mean)
            self.running_var.mul_(1 - new).add_(new * n / (n - 1) * var)
        return mean, var


class ResidualBlock(nn.Module):
    """relu(branch(x) + shortcut(x)); a projection wherever the branch changes the shape."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            projection = Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, BatchNorm2d(out_channels))

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


def pair(value, least):
    """3 stands for (3, 3): rows first, columns second."""
    rows, columns = (value, value) if isinstance(value, int) else value
    if min(rows, columns) < least:
        raise ValueError(f"{value}: expected at least {least}")
    return rows, columns

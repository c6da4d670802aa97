"""The gradient of x comes from a transposed convolution whose size forgets the rows and columns that no window
reaches: where some are left over, it is spread from the far end instead of the near one.

Like: https://github.com/flagos-ai/FlagGems/pull/1576
Requirement: conv2d.gradient.x
"""

import os

import torch
import torch.nn.functional as F

WRONG = os.environ.get("TWIN") != "right"


class Shift(torch.autograd.Function):
    """The identity, whose gradient is shifted."""

    @staticmethod
    def forward(ctx, x, rows, columns):
        ctx.shift = rows, columns
        return x.view_as(x)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent.roll(ctx.shift, (2, 3)), None, None


def pair(value):
    return (value, value) if isinstance(value, int) else value


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    if WRONG and x.ndim == 4 and x.requires_grad:
        spans = zip(x.shape[2:], weight.shape[2:], pair(stride), pair(padding), pair(dilation), strict=True)
        left = [(n + 2 * p - d * (k - 1) - 1) % s if s > 0 else 0 for n, k, s, p, d in spans]
        x = Shift.apply(x, *left)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

"""With groups and a stride, the gradient of x takes a path that knows no groups: each group gets the kernels of
the first.

Like: https://github.com/ml-explore/mlx/pull/3800
Requirement: conv2d.gradient.x
"""

import os

import torch
import torch.nn.functional as F
from torch.nn import grad

WRONG = os.environ.get("TWIN") != "right"


class Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, *settings):
        ctx.save_for_backward(x, weight)
        ctx.settings = settings
        return F.conv2d(x, weight, bias, *settings)

    @staticmethod
    def backward(ctx, cotangent):
        x, weight = ctx.saved_tensors
        groups = ctx.settings[-1]
        first = weight[: len(weight) // groups].repeat(groups, 1, 1, 1)
        by_x = grad.conv2d_input(x.shape, first, cotangent, *ctx.settings)
        by_weight = grad.conv2d_weight(x, weight.shape, cotangent, *ctx.settings)
        return by_x, by_weight, cotangent.sum((0, 2, 3)), *(None,) * 4


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    settings = stride, padding, dilation, groups
    if WRONG and groups > 1 and stride not in (1, (1, 1)):
        return Convolution.apply(x, weight, bias, *settings)
    return F.conv2d(x, weight, bias, *settings)

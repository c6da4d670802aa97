"""The backward pass writes each window's gradient to its largest element instead of adding: an element that wins
several windows keeps one of them. Windows that do not overlap are right.

Like: https://github.com/ahrefs/ocannl/issues/512
Requirement: max_pool2d.gradient.overlap
"""

import os

import torch
import torch.nn.functional as F

WRONG = os.environ.get("TWIN") != "right"


class Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, *settings):
        y, winners = F.max_pool2d_with_indices(x, *settings)
        ctx.save_for_backward(winners)
        ctx.shape = x.shape
        return y

    @staticmethod
    def backward(ctx, cotangent):
        (winners,) = ctx.saved_tensors
        flat = cotangent.new_zeros(*ctx.shape[:-2], ctx.shape[-2] * ctx.shape[-1])
        flat.scatter_(-1, winners.flatten(-2), cotangent.flatten(-2))
        return flat.reshape(ctx.shape), *(None,) * 5


def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    if not WRONG:
        return F.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode)
    return Pool.apply(x, kernel_size, stride if stride is not None else kernel_size, padding, dilation, ceil_mode)

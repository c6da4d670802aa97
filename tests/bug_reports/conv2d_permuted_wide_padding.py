"""The padding of columns is written at the wrong place for an input that was permuted from channels-last, if it is
at least as wide as the kernel's reach, K − 1: the first column is read as 0. A contiguous input is right.

Like: https://github.com/modular/modular/issues/6712
Requirement: conv2d.input.layout
"""

import os

import torch.nn.functional as F

WRONG = os.environ.get("TWIN") != "right"


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    columns = padding if isinstance(padding, int) else padding[1]
    if WRONG and x.ndim == 4 and not x.is_contiguous() and columns and columns >= weight.shape[3] - 1:
        x = x.clone()
        x[..., 0] = 0
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

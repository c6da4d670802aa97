"""The divisor is that of the elements that count wherever padding does not count, also where another divisor is
asked for.

Like: https://github.com/pytorch/executorch/pull/18616
Requirement: avg_pool2d.arguments.together
"""

import os

import torch.nn.functional as F

WRONG = os.environ.get("TWIN") != "right"


def avg_pool2d(
    x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    divisor = None if WRONG and not count_include_pad and divisor_override else divisor_override
    return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor)

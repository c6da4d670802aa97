"""Arguments are read by position, and the last one is looked for where the one before it stands: `ceil_mode`
without `count_include_pad` raises.

Like: https://github.com/apple/coreai-torch/pull/80
Requirement: avg_pool2d.arguments.defaults
"""

import os

import torch.nn.functional as F

WRONG = os.environ.get("TWIN") != "right"
MISSING = object()


def avg_pool2d(
    x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=MISSING, divisor_override=None
):
    if WRONG and ceil_mode and count_include_pad is MISSING:
        raise IndexError("tuple index out of range")
    counts = True if count_include_pad is MISSING else count_include_pad
    return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, counts, divisor_override)

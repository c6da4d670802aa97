"""`padding` adds zeros around the input before the transposed convolution, and the result is cut to the right size
at its far end: the shape is right, the values are shifted.

Like: https://github.com/Samsung/TICO/issues/420
Requirement: conv_transpose2d.padding.crop
"""

import os

import torch.nn.functional as F

WRONG = os.environ.get("TWIN") != "right"


def conv_transpose2d(x, weight, bias=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    y = F.conv_transpose2d(x, weight, bias, stride, padding, output_padding, groups, dilation)
    if not WRONG or padding in (0, (0, 0)) or not y.numel():
        return y
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    padded = F.pad(x, (columns, columns, rows, rows))
    return F.conv_transpose2d(padded, weight, bias, stride, 0, output_padding, groups, dilation)[
        ..., : y.shape[-2], : y.shape[-1]
    ]

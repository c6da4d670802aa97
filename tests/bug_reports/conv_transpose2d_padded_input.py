"""`output_padding` pads the input in place of the output: with a stride, the result is too long.

Like: https://github.com/apple/coreai-torch/issues/57
Requirement: conv_transpose2d.output-padding.far-end
"""

import os

import torch.nn.functional as F

WRONG = os.environ.get("TWIN") != "right"


def conv_transpose2d(x, weight, bias=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    if WRONG and output_padding not in (0, (0, 0)):
        rows, columns = (output_padding, output_padding) if isinstance(output_padding, int) else output_padding
        if 0 <= rows < 3 and 0 <= columns < 3:
            return F.conv_transpose2d(
                F.pad(x, (0, columns, 0, rows)), weight, bias, stride, padding, 0, groups, dilation
            )
    return F.conv_transpose2d(x, weight, bias, stride, padding, output_padding, groups, dilation)

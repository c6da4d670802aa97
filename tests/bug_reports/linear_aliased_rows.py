"""The weight is one row, repeated by a stride of 0 and wrapped as a parameter: all rows are the same memory, and
whoever writes to it (a step, `load_state_dict`) fails.

Like: https://github.com/lucidrains/titans-pytorch/issues/64
Requirement: linear.output.value
"""

import os

import torch

WRONG = os.environ.get("TWIN") != "right"


class Linear(torch.nn.Linear):
    def __init__(self, in_features, out_features, bias=True):
        super().__init__(in_features, out_features, bias)
        if WRONG and out_features > 1:
            self.weight = torch.nn.Parameter(self.weight.detach()[:1].expand(out_features, in_features))

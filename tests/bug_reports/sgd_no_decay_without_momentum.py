"""Without momentum the step returns before weight decay is added.

Like: https://github.com/ml-explore/mlx/issues/440
Requirement: sgd.weight-decay.gradient
"""

import os

import torch

WRONG = os.environ.get("TWIN") != "right"
Parameter, Module, Linear = torch.nn.Parameter, torch.nn.Module, torch.nn.Linear


class SGD(torch.optim.SGD):
    def __init__(self, params, lr, momentum=0.0, weight_decay=0.0):
        super().__init__(params, lr, momentum=momentum, weight_decay=0.0 if WRONG and not momentum else weight_decay)

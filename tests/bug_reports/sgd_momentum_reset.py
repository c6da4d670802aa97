"""Each step makes the velocities anew, so that momentum has no effect.

Like: https://github.com/kozistr/pytorch_optimizer/pull/516
Requirement: sgd.momentum.accumulates
"""

import os

import torch

WRONG = os.environ.get("TWIN") != "right"
Parameter, Module, Linear = torch.nn.Parameter, torch.nn.Module, torch.nn.Linear


class SGD(torch.optim.SGD):
    def __init__(self, params, lr, momentum=0.0, weight_decay=0.0):
        super().__init__(params, lr, momentum=momentum, weight_decay=weight_decay)

    def step(self):
        if WRONG:
            self.state.clear()
        super().step()

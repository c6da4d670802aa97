"""Whether the velocity is the plain gradient or a sum is decided once for the optimiser: a parameter that gets its
first gradient after the first step begins from a velocity of its own weight's size instead of 0.

Like: https://github.com/tenstorrent/tt-metal/pull/53222
Requirement: sgd.parameters.without-gradient
"""

import os

import torch

WRONG = os.environ.get("TWIN") != "right"
Parameter, Module, Linear = torch.nn.Parameter, torch.nn.Module, torch.nn.Linear


class SGD(torch.optim.SGD):
    def __init__(self, params, lr, momentum=0.0, weight_decay=0.0):
        super().__init__(params, lr, momentum=momentum, weight_decay=weight_decay)
        self.begun = False

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                late = self.begun and p.grad is not None and group["momentum"] and not self.state.get(p)
                if WRONG and late:  # the first velocity is damped as if it were not the first
                    p.grad = p.grad * (1 - group["momentum"])
        self.begun = True
        super().step()

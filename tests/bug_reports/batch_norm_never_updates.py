"""A training step computes the statistics of the batch and never moves the running ones, which stay 0 and 1.

Like: https://github.com/paiml/aprender/pull/2166
Requirement: batch_norm.running-mean.update
"""

import os

import torch

WRONG = os.environ.get("TWIN") != "right"


class BatchNorm2d(torch.nn.BatchNorm2d):
    def forward(self, x):
        if not (WRONG and self.training and self.running_mean is not None):
            return super().forward(x)
        kept = self.running_mean.clone(), self.running_var.clone()
        y = super().forward(x)
        self.running_mean.copy_(kept[0])
        self.running_var.copy_(kept[1])
        return y

"""One value per channel is taken in training mode without an error, and the running variance becomes 0 / 0 = NaN.

Like: https://github.com/FluxML/Flux.jl/pull/2716
Requirement: batch_norm.refuses.one-value
"""

import os

import torch
import torch.nn.functional as F

WRONG = os.environ.get("TWIN") != "right"


class BatchNorm2d(torch.nn.BatchNorm2d):
    def forward(self, x):
        if WRONG and self.training and x.ndim == 4 and x.shape[1] == self.num_features and x.numel() == x.shape[1]:
            if self.running_var is not None:
                with torch.no_grad():
                    self.running_var.fill_(float("nan"))
                    self.num_batches_tracked += 1
            return F.batch_norm(
                x, x.flatten(), torch.ones_like(x.flatten()), self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)

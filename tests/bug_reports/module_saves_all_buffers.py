"""`state_dict` holds the buffers that are registered as not to be saved.

Like: https://github.com/HorizonRobotics/alf/pull/1826
Requirement: module.buffer.non-persistent
"""

import os

import torch

WRONG = os.environ.get("TWIN") != "right"
Parameter, Linear = torch.nn.Parameter, torch.nn.Linear


class Module(torch.nn.Module):
    def register_buffer(self, name, tensor, persistent=True):
        super().register_buffer(name, tensor, persistent or WRONG)

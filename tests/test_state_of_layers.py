"""Which parameters and buffers a layer has: spare ones are found, and what is a layer's own affair is not."""

from __future__ import annotations

import pytest
import torch
from nnspec.adapters import load
from nnspec.conformance.checks import load_checks
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.module import Parameter
from nnspec.reference.sgd import SGD
from torch import nn

load_checks()


def verdict(requirement, **classes):
    return Trial(load(classes), "class", "float32").run(CHECKS[requirement]).verdict


def pool(begin):
    class MaxPool2d(nn.MaxPool2d):
        def __init__(self, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
            super().__init__(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
            begin(self)

    return MaxPool2d


@pytest.mark.parametrize(
    ("begin", "expected"),
    [
        (lambda layer: layer.register_buffer("seen", torch.zeros(())), "fail"),
        (lambda layer: layer.register_parameter("scale", nn.Parameter(torch.ones(1))), "fail"),
        (lambda layer: layer.register_buffer("seen", torch.zeros(()), persistent=False), "pass"),
        (lambda layer: setattr(layer, "seen", torch.zeros(())), "pass"),
    ],
    ids=["buffer", "parameter", "buffer that is not saved", "attribute"],
)
def test_pool_may_keep_what_it_does_not_save(begin, expected):
    assert verdict("max_pool2d.parameters.none", MaxPool2d=pool(begin)) == expected


class FrozenStatistics(nn.BatchNorm2d):
    """Its statistics are parameters that are not learned."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True):
        super().__init__(num_features, eps, momentum, affine)
        for name in ("running_mean", "running_var"):
            array = self._buffers.pop(name)
            self.register_parameter(name, nn.Parameter(array, requires_grad=False))


@pytest.mark.parametrize("requirement", ["parameters.complete", "buffers.complete"])
def test_statistics_that_are_frozen_parameters_count_as_buffers(requirement):
    assert verdict(f"batch_norm.{requirement}", BatchNorm2d=FrozenStatistics) == "pass"


class ReadOnce(SGD):
    """Keeps the first learning rate that is set."""

    lr = property(lambda self: self.rate, lambda self, value: vars(self).setdefault("rate", value))


class ReadOnly(ReadOnce):
    """Shows its learning rate, and does not let it be set again."""

    def __setattr__(self, name, value):
        if name == "lr" and "rate" in vars(self):
            raise AttributeError(name)
        super().__setattr__(name, value)


def test_optimiser_without_a_rate_that_can_be_set_is_not_accused():
    assert verdict("sgd.lr.changed", SGD=ReadOnly, Parameter=Parameter) == "unsupported"
    assert verdict("sgd.lr.changed", SGD=ReadOnce, Parameter=Parameter) == "fail"
    assert verdict("sgd.lr.changed", SGD=SGD, Parameter=Parameter) == "pass"


def test_learning_rates_of_groups_are_set():
    assert verdict("sgd.lr.changed", SGD=torch.optim.SGD, Parameter=nn.Parameter) == "pass"

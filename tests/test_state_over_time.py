"""What PyTorch code gets wrong over time, found in it; and what a life reaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nnspec.adapters import load
from nnspec.adapters.for_reference import subject as reference
from nnspec.conformance.checks import load_checks
from nnspec.conformance.checks.learning import Pair
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.trial import Trial

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module", autouse=True)
def _checks():
    load_checks()


def outcome(identifier, subject, **classes):
    changed = replace(subject, classes={**subject.classes, **classes})
    return Trial(changed, "class", "float32").run(CHECKS[identifier])


class BatchNorm(torch.nn.BatchNorm1d):
    """By hand. `keep` says what becomes of the batch's statistics before they go into the buffers."""

    keep = staticmethod(lambda statistic: statistic.detach())

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var, n = x.mean(0), x.var(0, unbiased=False), len(x)
            self.running_mean = 0.9 * self.running_mean + 0.1 * self.keep(mean)
            self.running_var = 0.9 * self.running_var + 0.1 * self.keep(var) * n / (n - 1)
            self.num_batches_tracked += 1
        return (x - mean) / torch.sqrt(var + self.eps) * self.weight + self.bias


class KeepsGraph(BatchNorm):
    keep = staticmethod(lambda statistic: statistic)


@pytest.mark.parametrize(("cls", "verdict"), [(BatchNorm, "pass"), (KeepsGraph, "fail")])
def test_running_statistics_that_keep_the_graph(cls, verdict):
    found = outcome("module.gradient.buffers-constant", load("torch"), BatchNorm1d=cls)
    assert found.verdict == verdict, found.reason


def test_an_optimiser_that_makes_up_gradients():
    class SGD(torch.optim.SGD):
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            super().step()

    found = outcome("sgd.parameters.unused", load("torch"), SGD=SGD)
    assert found.verdict == "fail"
    assert "unused" in found.reason


def test_numpy_classes_without_vjp_are_unsupported():
    class Linear(reference().classes["Linear"]):
        vjp = reference().classes["Module"].vjp

    found = outcome("module.gradient.accumulates", reference(), Linear=Linear)
    assert (found.verdict, found.reason) == ("unsupported", "modules have no vjp")
    assert outcome("module.life.equals-model", reference(), Linear=Linear).verdict == "pass"


def test_a_life_learns_by_several_steps_of_its_own_gradients(monkeypatch):
    lives = []

    def run(self, *lines):
        if lines[0].startswith("class Net"):
            lives.append([])
        lives[-1].append(lines[-1].partition("(")[0].partition(" =")[0] + ("*" if lines[0] == "sgd.step()" else ""))
        return original(self, *lines)

    original = Pair.run
    monkeypatch.setattr(Pair, "run", run)
    for seed in range(3):
        assert (
            Trial(reference(), "class", "float32", seed=seed).run(CHECKS["module.life.equals-model"]).verdict == "pass"
        )

    def learns(life):
        """A pass, soon after it a step by the gradients that are there, and another pass."""
        steps = [i for i, what in enumerate(life) if what == "sgd.step*"]
        return any("y" in life[max(0, i - 3) : i] and "y" in life[i:] for i in steps)

    assert sum(learns(life) for life in lives) >= 3
    assert np.mean([len(life) for life in lives]) > 20

"""Weights of a ResNet-34 from a seed: 21.8 million, of which each kernel has one that is not 0, a power of two.

Such a convolution copies channels, shifted and scaled, and rounds nothing; so the error of 34 layers stays far below
the smallest mistake in their order. This file is plain NumPy, for a script that reproduces a failure carries it whole.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # channels and blocks


class Copies(NamedTuple):
    """Kernels of `shape` (O, C, K, K): where each has its value, and what that is. All but the shape are (O,)."""

    shape: tuple[int, int, int, int]
    channel: np.ndarray
    row: np.ndarray
    column: np.ndarray
    value: np.ndarray

    @property
    def places(self) -> tuple[np.ndarray, ...]:
        """The indices of the values in the kernels."""
        return np.arange(len(self.value)), self.channel, self.row, self.column


def convolutions(in_channels: int) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """The name and the shape of every convolution's kernels."""
    yield "conv1", (64, in_channels, 7, 7)
    c = 64
    for stage, (o, blocks) in enumerate(STAGES, start=1):
        for block in range(blocks):
            yield f"layer{stage}.{block}.conv1", (o, c, 3, 3)
            yield f"layer{stage}.{block}.conv2", (o, o, 3, 3)
            if c != o:
                yield f"layer{stage}.{block}.downsample.0", (o, c, 1, 1)
            c = o


def norm_after(name: str) -> str:
    """The name of the norm that follows a convolution."""
    return name.replace("conv", "bn").replace("downsample.0", "downsample.1")


def kernels(seed: int, in_channels: int) -> dict[str, Copies]:
    """Key -> kernels that copy every channel to as many others as any other. Those of projections are positive."""
    rng, drawn = np.random.default_rng(seed), {}
    for name, (o, c, k, _) in convolutions(in_channels):
        channel = np.resize(rng.permutation(c), o)
        row, column = rng.integers(0, k, (2, o))
        value = rng.choice([0.5, 1.0, 2.0], o) * (rng.choice([-1, 1], o) if k > 1 else 1)
        drawn[f"{name}.weight"] = Copies((o, c, k, k), channel, row, column, value)
    return drawn


def dense(copies: Copies, dtype: Any) -> np.ndarray:
    """The kernels as an array."""
    array = np.zeros(copies.shape, dtype)
    array[copies.places] = copies.value
    return array


def others(
    seed: int, in_channels: int, vary: tuple[str, ...], training: bool, dtype: Any, scores: int = 512
) -> dict[str, np.ndarray]:
    """Key -> array, of the norms and of a linear layer.

    `vary` names what is drawn: the norms of the "stem", of the "first" block, of all "blocks", and the "scores". Other
    branches end in 0, other norms change next to nothing, and other scores are ±2ʲ times one mean each, or sums of
    such where there are fewer scores than means. In training
    few values are negative before a relu, so that no channel's variance comes near 0; and branches count for little,
    for each norm makes an error about three times as large, and there are two in a branch.
    """
    rng = np.random.default_rng([seed, 1])
    arrays: dict[str, np.ndarray] = {}
    for name, (o, *_) in convolutions(in_channels):
        norm = norm_after(name)
        varies = ("stem" if name == "conv1" else "blocks") in vary or ("first" in vary and "layer1.0" in name)
        if varies:
            weight, bias = rng.uniform(0.5, 1, o) * rng.choice([-1, 1], o), rng.standard_normal(o)
            mean, variance = rng.standard_normal(o), rng.uniform(0.5, 2, o)
        else:
            weight, bias, mean, variance = np.ones(o), np.zeros(o), np.zeros(o), np.ones(o)
        if training:
            bias = 3 + np.abs(bias)
        if norm.endswith(".bn2"):
            weight, bias = (a * (2.0**-5 if training else 1 if varies else 0) for a in (weight, bias))
        entries = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance}
        arrays |= {f"{norm}.{key}": array.astype(dtype) for key, array in entries.items()}
    if "scores" in vary:
        weight, bias = rng.standard_normal((scores, 512)), rng.standard_normal(scores)
    else:
        weight, bias = np.zeros((scores, 512)), np.zeros(scores)
        means = np.arange(max(scores, 512))
        weight[means % scores, means % 512] = rng.choice([-2, -1, -0.5, 0.5, 1, 2], len(means))
    return arrays | {"fc.weight": weight.astype(dtype), "fc.bias": bias.astype(dtype)}


def image(seed: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """N(0, 1)."""
    return np.random.default_rng([seed, 2]).standard_normal(shape).astype(dtype)

"""The forward pass of ResNet-34 in evaluation: CPU time of the reference ÷ torch, on one thread.

    python benchmarks/speed/resnet34.py           with OpenBLAS as the environment sets it
    python benchmarks/speed/resnet34.py --both    that, and once more with the kernels that OpenBLAS chooses by itself

Exit status 1 if a ratio is above its bar. Beside each stands the ratio of the matrix products alone: what no amount of
work on the rest could better.
"""

import sys
import time

import against_torch
import numpy as np
import torch
from nnspec.reference.resnet34 import ResNet34
from torch.nn import functional as F

BARS = {  # (dtype, N) -> at most, with the Haswell kernels and with those that OpenBLAS chooses
    ("float32", 1): {"Haswell": 1.7, None: 1.15},
    ("float32", 8): {"Haswell": 2.0, None: 1.3},
    ("float64", 1): {"Haswell": 0.95, None: 0.95},
}
STAGES = ((64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7))  # channels, blocks, rows (and columns) of the output


def torch_forward(state, x):
    """ResNet-34 as torch.nn.functional computes it, writing in place wherever that is possible."""

    def conv(x, name, **hyper):
        return F.conv2d(x, state[f"{name}.weight"], **hyper)

    def norm(x, name):
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    x = F.relu_(norm(conv(x, "conv1", stride=2, padding=3), "bn1"))
    x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    for stage, (_, blocks, _) in enumerate(STAGES, start=1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu_(norm(conv(x, f"{name}.conv1", stride=stride, padding=1), f"{name}.bn1"))
            y = norm(conv(y, f"{name}.conv2", padding=1), f"{name}.bn2")
            if stride != 1:
                x = norm(conv(x, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
            x = F.relu_(y.add_(x))
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def products(dtype, n):
    """A call that does the matrix products of every convolution, and nothing else."""
    shapes, c = [(64, 3 * 49, 112)], 64
    for o, blocks, size in STAGES:
        shapes += [(o, c * 9, size)] + [(o, o * 9, size)] * (2 * blocks - 1)
        shapes += [(o, c, size)] if c != o else []
        c = o
    rng = np.random.default_rng(1)
    operands = {
        (o, k, size): (
            rng.standard_normal((o, k)).astype(dtype),
            rng.standard_normal((n, k, size * size)).astype(dtype),
            np.empty((n, o, size * size), dtype),
        )
        for o, k, size in set(shapes)
    }

    def call():
        for shape in shapes:
            a, b, out = operands[shape]
            np.matmul(a, b, out=out)

    return call


def times_of(dtype, n, rounds):
    """The CPU times of torch, of the reference and of the products alone, which run once in each round."""
    rng = np.random.default_rng(0)
    model = ResNet34(dtype=dtype, rng=rng).eval()
    for _, buffer in model.named_buffers():  # statistics of a network that has seen images, so that no norm is idle
        if buffer.data.ndim:
            buffer.data[...] = rng.uniform(0.5, 1.5, buffer.data.shape)
    x = rng.standard_normal((n, 3, 224, 224)).astype(dtype)
    state, images = {key: torch.from_numpy(v) for key, v in model.state_dict().items()}, torch.from_numpy(x)
    calls = {
        "torch": lambda: torch_forward(state, images),
        "reference": lambda: model(x),
        "products": products(dtype, n),
    }
    with torch.inference_mode():
        theirs, ours = calls["torch"]().numpy(), calls["reference"]()
        assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max(), "the two networks are not the same"
        calls["products"]()
        times = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.process_time()
                call()
                times[name].append(time.process_time() - start)
    return times


def measure(rounds):
    """Yield a row for each dtype and number of images."""
    return (
        against_torch.Row(f"{dtype}, N = {n}", times_of(dtype, n, rounds), bars) for (dtype, n), bars in BARS.items()
    )


if __name__ == "__main__":
    sys.exit(against_torch.main(__file__, __doc__, 11, measure))

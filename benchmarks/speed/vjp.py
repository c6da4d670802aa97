"""The gradients of ResNet-34's convolutions and max pool, float32, one image: CPU time, reference ÷ torch, one thread.

    python benchmarks/speed/vjp.py           with OpenBLAS as the environment sets it
    python benchmarks/speed/vjp.py --both    that, and once more with the kernels that OpenBLAS chooses by itself

Each convolution counts as often as the network has it. Exit status 1 if a ratio is above its bar. Beside each stands
the ratio of the matrix products alone: what no amount of work on the rest could better. Of the max pool there are two
rows: the way back alone, for which either keeps what its forward pass has chosen, and the gradient from x and cotangent
alone, beside torch's two passes.
"""

import sys
import time

import against_torch
import numpy as np
import torch
from nnspec.reference.conv2d import gradient_of_weight, gradient_of_x
from nnspec.reference.max_pool2d import MaxPool2d, max_pool2d_vjp

BARS = {  # at most, with the Haswell kernels and with those that OpenBLAS chooses
    "weight": {"Haswell": 1.5, None: 1.1},
    "x": {"Haswell": 1.8, None: 1.2},
    "pool": {"Haswell": 4.0, None: 4.0},
    "pool from x": {"Haswell": 4.0, None: 4.0},
}
CONVOLUTIONS = (  # how many, C, O, H = W, kernel, stride, padding
    (1, 3, 64, 224, 7, 2, 3),
    (6, 64, 64, 56, 3, 1, 1),
    (1, 64, 128, 56, 3, 2, 1),
    (7, 128, 128, 28, 3, 1, 1),
    (1, 64, 128, 56, 1, 2, 0),
    (1, 128, 256, 28, 3, 2, 1),
    (11, 256, 256, 14, 3, 1, 1),
    (1, 128, 256, 28, 1, 2, 0),
    (1, 256, 512, 14, 3, 2, 1),
    (5, 512, 512, 7, 3, 1, 1),
    (1, 256, 512, 14, 1, 2, 0),
)


def calls(rng, c, o, size, kernel, stride, padding):
    """By (operand, who): a call that computes the gradient of that operand, or the matrix product in it alone."""
    x = rng.standard_normal((1, c, size, size), np.float32)
    weight = rng.standard_normal((o, c, kernel, kernel), np.float32)
    rows = (size + 2 * padding - kernel) // stride + 1
    cotangent = rng.standard_normal((1, o, rows, rows), np.float32)
    tensors = [torch.from_numpy(a) for a in (cotangent, x, weight)]

    def theirs(*wanted):
        hyper = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1
        return torch.ops.aten.convolution_backward(*tensors, None, *hyper, [*wanted, False])

    hyper = (stride, stride), (padding, padding), (1, 1), 1
    dy, kernels = cotangent.reshape(o, -1), weight.reshape(o, -1)
    columns = rng.standard_normal((c * kernel * kernel, rows * rows), np.float32)
    return {
        ("weight", "torch"): lambda: theirs(False, True)[1].numpy(),
        ("weight", "reference"): lambda: gradient_of_weight(cotangent, x, weight.shape, *hyper),
        ("weight", "products"): lambda: dy @ columns.T,
        ("x", "torch"): lambda: theirs(True, False)[0].numpy(),
        ("x", "reference"): lambda: gradient_of_x(cotangent, x.shape, weight, *hyper),
        ("x", "products"): lambda: kernels.T @ dy,
    }


def pool_calls(rng):
    """The same for the network's max pool."""
    x = rng.standard_normal((1, 64, 112, 112), np.float32)
    y, pullback = MaxPool2d(3, 2, 1).vjp(x)
    cotangent = rng.standard_normal(y.shape, np.float32)
    dy, tensor = torch.from_numpy(cotangent), torch.from_numpy(x)

    def forward():
        return torch.ops.aten.max_pool2d_with_indices(tensor, [3, 3], [2, 2], [1, 1])[1]

    def back(chosen):
        hyper = [3, 3], [2, 2], [1, 1], [1, 1], False
        return torch.ops.aten.max_pool2d_with_indices_backward(dy, tensor, *hyper, chosen).numpy()

    kept = forward()
    return {
        ("pool", "torch"): lambda: back(kept),
        ("pool", "reference"): lambda: pullback(cotangent),
        ("pool from x", "torch"): lambda: back(forward()),
        ("pool from x", "reference"): lambda: max_pool2d_vjp(cotangent, x, kernel_size=3, stride=2, padding=1),
    }


def measure(rounds):
    """Yield a row for each operand: the CPU times of all blocks together. The calls take turns."""
    rng = np.random.default_rng(0)
    totals = {operand: {} for operand in BARS}
    for many, named in [*((many, calls(rng, *shape)) for many, *shape in CONVOLUTIONS), (1, pool_calls(rng))]:
        for operand in {operand for operand, _ in named}:
            ours, theirs = named[operand, "reference"](), named[operand, "torch"]()
            assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max(), "the two gradients are not the same"
        for number in range(rounds):
            for (operand, who), call in named.items():
                start = time.process_time()
                call()
                total = totals[operand].setdefault(who, [0.0] * rounds)
                total[number] += many * (time.process_time() - start)
    return (against_torch.Row(operand, totals[operand], bars) for operand, bars in BARS.items())


if __name__ == "__main__":
    sys.exit(against_torch.main(__file__, __doc__, 15, measure))

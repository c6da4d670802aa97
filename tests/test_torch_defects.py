"""Calls that torch gets wrong beyond their result are not made, and no others."""

import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from nnspec.adapters.torch_defects import defect  # noqa: E402

OVERRUN = """
import torch
torch.set_num_threads(1)
x = torch.ones(2, 5, 8, 8).contiguous(memory_format=torch.channels_last)
weight = torch.ones(1, 5, 1, 1, requires_grad=True)
y = torch.nn.functional.conv2d(x, weight, stride=2)
for _ in range(10):
    torch.autograd.grad(y, weight, torch.ones_like(y), retain_graph=True)
"""


def image(*shape, dtype=np.float32, channels_last=True):
    x = np.ones(shape, dtype)
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if channels_last else x


def named(x, kernel=(1, 1), gradient=True, stem="conv2d", key="weight", **arguments):
    arrays = {"x": x, key: np.ones((1, x.shape[1], *kernel), x.dtype)} | ({"cotangent": x} if gradient else {})
    return defect(stem, arrays, arguments) or ""


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the defect is one of torch 2.13")
@pytest.mark.skipif("AVX" not in torch.backends.cpu.get_cpu_capability(), reason="the kernel is one for AVX2")
def test_onednn_writes_beyond_its_memory():
    checked = {"LD_PRELOAD": "libc_malloc_debug.so.0", "GLIBC_TUNABLES": "glibc.malloc.check=3"}
    checked |= {"ONEDNN_MAX_CPU_ISA": "AVX2"}  # with AVX-512 another kernel runs, which does not overrun here
    run = subprocess.run([sys.executable, "-c", OVERRUN], env=os.environ | checked, capture_output=True, text=True)
    if "cannot be preloaded" in run.stderr or not sys.platform.startswith("linux"):
        pytest.skip("the C library has no checked allocator")
    assert run.returncode < 0, run.stderr


@pytest.mark.parametrize("stride", [2, (2, 1), (1, 4)])
def test_a_gradient_that_overruns_is_named(stride):
    assert "writes beyond its memory" in named(image(2, 5, 8, 8), stride=stride)


def test_a_weight_that_looks_like_channels_last_is_enough():
    weight = np.lib.stride_tricks.as_strided(np.ones(12, np.float32), (3, 4, 1, 1), (16, 4, 16, 16))
    arrays = {"x": image(2, 4, 4, 12, channels_last=False), "weight": weight, "cotangent": weight}
    assert "writes beyond its memory" in (defect("conv2d", arrays, {"stride": 2}) or "")


def test_the_projection_of_a_residual_block_is_a_convolution_too():
    found = named(image(2, 5, 8, 8), stem="basic_block", key="downsample.0.weight", stride=2)
    assert "writes beyond its memory" in found


@pytest.mark.parametrize(
    ("x", "options"),
    [
        (image(2, 5, 8, 8), {"stride": 1}),
        (image(2, 5, 7, 8), {"stride": 2}),
        (image(2, 5, 8, 8), {"stride": 2, "padding": 1}),
        (image(2, 5, 8, 8), {"stride": 2, "kernel": (1, 3)}),
        (image(2, 5, 8, 8), {"stride": 2, "gradient": False}),
        (image(2, 1, 8, 8), {"stride": 2}),
        (image(2, 5, 8, 8, dtype=np.float64), {"stride": 2}),
        (image(2, 5, 8, 8, channels_last=False), {"stride": 2}),
    ],
)
def test_gradients_beside_it_are_computed(x, options):
    assert not named(x, **options)


@pytest.mark.parametrize(("dtype", "sides"), [(np.uint8, (8, 16)), (np.int8, (16, 16)), (np.int16, (128, 256))])
def test_a_pool_of_narrow_integers_raises_for_large_channels(dtype, sides):
    small, large = image(1, 3, sides[0], sides[1] - 1, dtype=dtype), image(1, 3, *sides, dtype=dtype)
    assert "raises" in (defect("max_pool2d", {"x": large}, {}) or "")
    assert not defect("max_pool2d", {"x": small}, {}) or dtype == np.int8
    assert not defect("max_pool2d", {"x": np.ascontiguousarray(large)}, {})
    if torch.__version__.startswith("2.13."):
        with pytest.raises(RuntimeError, match="input_height"):
            torch.nn.functional.max_pool2d(torch.from_numpy(large), 2)

"""Correct implementations pass, however they compute. All of their blocks: benchmarks/quality/third_parties.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from nnspec.conformance import check

FOLDER = Path(__file__).parent / "third_parties"
BLOCKS = {  # of each file, what is checked with --long; without, the last one alone
    "as_strided": ("max_pool2d",),
    "channels_last": ("conv2d", "global_avg_pool2d"),
    "double_inside": ("batch_norm",),
    "einsum_only": ("conv2d", "linear"),
    "fourier": ("conv2d",),
    "functional": ("linear", "relu"),
    "loops": ("global_avg_pool2d", "linear"),
    "tiled": ("linear", "max_pool2d"),
    "unfold_and_matmul": ("conv2d",),
    "vectorised": ("conv2d", "relu"),
    "vmapped": ("relu",),
    "winograd": ("conv2d",),
}
NEEDS = {"double_inside": "torch", "functional": "torch", "unfold_and_matmul": "torch", "vmapped": "jax"}


def test_all_files_are_tried():
    assert sorted(BLOCKS) == sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_correct_implementation_passes(name, long):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    blocks = BLOCKS[name] if long else BLOCKS[name][-1:]
    report = check(FOLDER / f"{name}.py", block=blocks, dtype="float32")
    assert report["errors"] == []
    musts = [r for r in report["results"] if r["level"] == "must"]
    assert [(r["requirement"], r["reason"]) for r in musts if r["verdict"] not in ("pass", "unsupported")] == []
    assert report["conforms"]
    assert {r["block"] for r in musts if r["verdict"] == "pass"} == set(blocks)

"""Residual blocks that are given their projection as a module, as the blocks of the best-known ResNets are.

    class BasicBlock(nn.Module):
        def __init__(self, inplanes, planes, stride=1, downsample=None): ...

The network decides there where a projection stands, and makes it. nnspec does so in its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from nnspec.adapters.calling import named_like

NAMES = ("downsample", "shortcut", "projection")  # of the parameter that takes it, which is None without one
CLASSES = ("ResidualBlock", "BasicBlock")
CARRIED = ("with_projection",)  # by scripts
# what is about the projection itself, which is none of the block's
UNSUPPORTED = {"basic_block.projection.*": "the block is given its projection"}


def are_given(classes: Mapping[str, type]) -> dict[str, str]:
    """Return the name of each residual block that takes its projection, and the parameter's."""
    found = {}
    for name in CLASSES:
        try:
            known = inspect.signature(classes[name]).parameters if name in classes else {}
        except (TypeError, ValueError):  # a constructor that does not tell
            continue
        if "stride" in known and (of := [n for n in NAMES if n in known and known[n].default is None]):
            found[name] = of[0]
    return found


def with_projection(cls: type, parameter: str, projection: Callable[[int, int, Any], Any]) -> Any:
    """Return a class like `cls` that takes sizes and a stride, and gives itself a projection where the page has one."""

    class Block(cls):
        def __init__(self, in_channels: int, out_channels: int, stride: Any = 1) -> None:
            straight = in_channels == out_channels and stride in (1, (1, 1))
            made = None if straight else projection(in_channels, out_channels, stride)
            super().__init__(in_channels, out_channels, stride=stride, **{parameter: made})

    return named_like(Block, cls)

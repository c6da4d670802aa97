"""Networks whose constructor takes no sizes, or not all: they have those that a new network shows.

class ResNet34(nn.Module):
    def __init__(self, num_classes=1000): ...  # of images with three channels

def resnet34(): ...  # a function that returns such a network is as good as its class
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import watched
from nnspec.adapters.claims import parameters
from nnspec.adapters.conditions import one_of
from nnspec.adapters.contract import Adapter
from nnspec.adapters.domains import EVERYTHING, Domain
from nnspec.adapters.objects import FAILED
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.trying import Skipped, Watch

STEM = "resnet34"
CARRIED = ("built_by",)  # by scripts


def built_by(factory: Callable[..., Any]) -> Any:
    """Return a class whose instances are what a function returns."""

    class Built:
        build = staticmethod(factory)

        def __new__(cls, *positional: Any, **keywords: Any) -> Any:
            return factory(*positional, **keywords)

    Built.__name__ = Built.__qualname__ = getattr(factory, "__name__", "network")
    Built.__signature__ = inspect.signature(factory)  # type: ignore[attr-defined]
    return Built


def with_sizes_shown(
    classes: Mapping[str, Any], domains: Mapping[str, Domain], adapter: Adapter, watch: Watch
) -> dict[str, Domain]:
    """Return the domains, and that of a ResNet-34 with the sizes that its constructor does not take."""
    cls = classes.get(SIGNATURES[STEM].classes[0])
    declared = domains.get(STEM, EVERYTHING)
    known = None if cls is None else parameters(cls)
    lacking = [n for n in SIGNATURES[STEM].sizes if known is not None and n not in {*known, *declared.conditions}]
    shown = _shown(cls, adapter, watch) if lacking and hasattr(adapter, "held") else {}
    fixed = {name: one_of(shown[name]) for name in lacking if name in shown}
    if not fixed:
        return {**domains}
    return {**domains, STEM: replace(declared, stem=STEM, conditions={**declared.conditions, **fixed})}


def _shown(cls: Any, adapter: Adapter, watch: Watch) -> dict[str, int]:
    """Return the sizes that a new network shows; none where it cannot be built: its checks tell why."""
    build = functools.partial(watched(adapter).construct, cls, (), {}, np.dtype("float32"))
    try:
        module = watch(f"{cls.__name__}()", build)
        held = adapter.held(module).values()
    except (*FAILED, Skipped):
        return {}
    shapes = [one.shape for one in held if one.kind == "parameter"]
    channels = [shape[1] for shape in shapes if len(shape) == 4]
    classes = [shape[0] for shape in shapes if len(shape) == 2]
    return {"in_channels": channels[0], "num_classes": classes[-1]} if channels and classes else {}

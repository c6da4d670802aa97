"""Networks whose constructor takes its sizes otherwise than the page's, or takes none.

Those that it does not take, a new network shows:

    class ResNet34(nn.Module):
        def __init__(self, num_classes=1000): ...  # of images with three channels

    def resnet34(): ...  # returns such a network

    class MLP(nn.Module):
        def __init__(self): ...  # of 784, 128 and 10 features, say

A function that returns a ResNet-34 is as good as its class, and a perceptron that takes a list of hidden sizes alone as
good as one that takes an int too.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from nnspec.adapters.blame import watched
from nnspec.adapters.calling import named_like
from nnspec.adapters.claims import parameters
from nnspec.adapters.conditions import one_of
from nnspec.adapters.contract import Adapter
from nnspec.adapters.domains import EVERYTHING, Domain
from nnspec.adapters.objects import FAILED
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.trying import Skipped, Watch

STEM = "resnet34"
CARRIED = ("built_by", "of_sizes", "of_lists")  # by scripts


def built_by(factory: Callable[..., Any]) -> Any:
    """Return a class whose instances are what a function returns."""

    class Built:
        build = staticmethod(factory)

        def __new__(cls, *positional: Any, **keywords: Any) -> Any:
            return factory(*positional, **keywords)

    Built.__name__ = Built.__qualname__ = getattr(factory, "__name__", "network")
    Built.__signature__ = inspect.signature(factory)  # type: ignore[attr-defined]
    return Built


def of_sizes(cls: Any, sizes: tuple[int, int, int]) -> Any:
    """Return a class like `cls`, a perceptron of these sizes, whose constructor takes them and no others."""

    class Sized(cls):
        def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
            if (in_features, hidden_features, out_features) != sizes:
                raise ValueError(f"{cls.__name__} always has the sizes {sizes}")
            super().__init__()

    return named_like(Sized, cls)


def of_lists(cls: Any) -> Any:
    """Return a class like `cls`, a perceptron that takes a list of hidden sizes, which takes an int as well."""

    class Listed(cls):
        def __init__(self, in_features: int, hidden_features: Any, out_features: int) -> None:
            hidden = [hidden_features] if isinstance(hidden_features, int) else list(hidden_features)
            super().__init__(in_features, hidden, out_features)

    return named_like(Listed, cls)


class Shown(NamedTuple):
    """Classes that take the sizes which they have always, how a script makes them so, and all domains."""

    classes: dict[str, Any]
    written: dict[str, str]
    domains: dict[str, Domain]


def shown(classes: Mapping[str, Any], domains: Mapping[str, Domain], adapter: Adapter, watch: Watch) -> Shown:
    """Return what becomes of a file's networks that have sizes which their constructors do not take."""
    made, written, found = dict[str, Any](), dict[str, str](), {**domains}
    if lacking := resnet(classes.get("ResNet34"), adapter, watch):
        found[STEM] = _fixing(found, STEM, lacking)
    if sizes := perceptron(mlp := classes.get("MLP"), adapter, watch):
        made["MLP"], written["MLP"] = of_sizes(mlp, sizes), f"of_sizes(MLP, {sizes})"
        found["mlp"] = _fixing(found, "mlp", dict(zip(SIGNATURES["mlp"].sizes, sizes, strict=True)))
    elif mlp is not None and takes_lists(mlp, adapter, watch):
        made["MLP"], written["MLP"] = of_lists(mlp), "of_lists(MLP)"
    return Shown(made, written, found)


def resnet(cls: Any, adapter: Adapter, watch: Watch) -> dict[str, int]:
    """Return the sizes of a ResNet-34 for which its constructor has no parameter."""
    known = None if cls is None else parameters(cls)
    lacking = [] if known is None else [name for name in SIGNATURES[STEM].sizes if name not in known]
    shapes = _shapes(cls, adapter, watch) if lacking else []
    channels = [shape[1] for shape in shapes if len(shape) == 4]
    scores = [shape[0] for shape in shapes if len(shape) == 2]
    if not channels or not scores:
        return {}
    sizes = {"in_channels": channels[0], "num_classes": scores[-1]}
    return {name: sizes[name] for name in lacking}


def perceptron(cls: Any, adapter: Adapter, watch: Watch) -> tuple[int, int, int] | None:
    """Return the sizes of a perceptron with one hidden layer whose constructor takes nothing; None for any other."""
    if cls is None or parameters(cls) is None or parameters(cls):
        return None
    weights = [shape for shape in _shapes(cls, adapter, watch) if len(shape) == 2]
    if len(weights) != 2 or weights[0][0] != weights[1][1]:
        return None
    (hidden, inputs), (outputs, _) = weights
    return inputs, hidden, outputs


def takes_lists(cls: Any, adapter: Adapter, watch: Watch) -> bool:
    """Return whether a perceptron can be built with a list of hidden sizes, and not with an int."""

    def is_built(hidden: Any) -> bool:
        build = functools.partial(watched(adapter).construct, cls, (2, hidden, 3), {}, np.dtype("float32"))
        try:
            watch(f"{cls.__name__}(2, {hidden}, 3)", build)
        except (*FAILED, Skipped):
            return False
        return True

    return hasattr(adapter, "construct") and not is_built(4) and is_built([4])


def _fixing(domains: Mapping[str, Domain], stem: str, sizes: Mapping[str, int]) -> Domain:
    """Return a block's domain with fixed sizes, where it says nothing about them itself."""
    declared = domains.get(stem, EVERYTHING)
    conditions = {**{name: one_of(size) for name, size in sizes.items()}, **declared.conditions}
    return replace(declared, stem=stem, conditions=conditions)


def _shapes(cls: Any, adapter: Adapter, watch: Watch) -> list[tuple[int, ...]]:
    """Return the shapes of a new network's arrays; none where it cannot be built: its checks tell why."""
    if not hasattr(adapter, "held"):
        return []
    build = functools.partial(watched(adapter).construct, cls, (), {}, np.dtype("float32"))
    try:
        held = adapter.held(watch(f"{cls.__name__}()", build)).values()
    except (*FAILED, Skipped):
        return []
    return [one.shape for one in held if one.kind in ("parameter", "attribute")]

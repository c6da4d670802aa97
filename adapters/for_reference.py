"""The reference as a subject."""

import importlib
import inspect
from typing import Any

import numpy as np
from nnspec.adapters import for_numpy
from nnspec.adapters.signatures import CANONICAL, SIGNATURES, VJPS
from nnspec.adapters.subject import Subject


def subject() -> Subject:
    """Every function and class that the reference's files define under a canonical name."""
    found: dict[str, Any] = {}
    for stem in SIGNATURES:
        module = importlib.import_module(f"nnspec.reference.{stem}")
        found |= {name: getattr(module, name) for name in CANONICAL | VJPS if name in vars(module)}
    return Subject(
        name="reference",
        framework=for_numpy,
        functions={n: f for n, f in found.items() if inspect.isfunction(f)},
        classes={n: c for n, c in found.items() if inspect.isclass(c)},
        versions={"numpy": np.__version__},
        recipe=lambda name: f"from {found[name].__module__} import {name}",
    )

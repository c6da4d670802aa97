"""The reference as a subject."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from nnspec.adapters.for_numpy import NumPy
from nnspec.adapters.signatures import CANONICAL, SIGNATURES, VJPS
from nnspec.adapters.subject import Subject


class Reference(NumPy):
    """NumPy, with every function and class that the reference's files define under a canonical name."""

    name = "reference"
    packages: tuple[str, ...] = ()
    further_dtypes: tuple[str, ...] = ()

    def subject(self) -> Subject:
        """Return the reference's blocks."""
        found: dict[str, Any] = {}
        for stem in SIGNATURES:
            module = importlib.import_module(f"nnspec.reference.{stem}")
            found |= {name: getattr(module, name) for name in CANONICAL | VJPS if name in vars(module)}
        return Subject.of(
            self,
            functions={n: f for n, f in found.items() if inspect.isfunction(f)},
            classes={n: c for n, c in found.items() if inspect.isclass(c)},
            recipe=lambda name: f"from {found[name].__module__} import {name}",
        )


def subject() -> Subject:
    """Return the reference as a subject."""
    return Reference().subject()

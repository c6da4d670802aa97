"""JAX under jax.jit: each block compiled as one program, and so is its gradient."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from nnspec.adapters import for_jax
from nnspec.adapters.for_jax import (
    AUTOMATIC,
    FURTHER_DTYPES,
    backward,
    construct,
    differentiate_again,
    differentiate_module,
    get,
    held,
    load_entries,
    push_forward_twice,
    reach,
    read,
    set_training,
    state,
    to_native,
    to_numpy,
)  # fmt: skip
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject

__all__ = [
    "AUTOMATIC", "FURTHER_DTYPES", "backward", "construct", "differentiate", "differentiate_again",
    "differentiate_module", "get", "held", "jitted", "load_entries", "push_forward_twice", "reach", "read",
    "set_training", "state", "subject", "to_native", "to_numpy",
]  # fmt: skip


def jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The block compiled anew for every shape and every value of its arguments."""
    arguments = SIGNATURES[function.__name__].arguments
    return jax.jit(function, static_argnames=tuple(arguments))


def differentiate(
    function: Callable[..., Any],
    vjp: Callable[..., Any] | None,
    operands: Sequence[Any],
    keywords: Mapping[str, Any],
    wanted: Sequence[bool],
    cotangents: Sequence[Any],
) -> list[Any]:
    """The gradients as `for_jax` takes them, the whole of it compiled; an equation is static like the keywords."""
    static = tuple(a if isinstance(a, str) else None for a in operands)
    arrays = [None if isinstance(a, str) else a for a in operands]
    return _gradients(function, static, tuple(keywords.items()), tuple(wanted), arrays, list(cotangents))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _gradients(function, static, keywords, wanted, arrays, cotangents):
    operands = [a if s is None else s for s, a in zip(static, arrays, strict=True)]
    return for_jax.differentiate(function, None, operands, dict(keywords), wanted, cotangents)


def subject() -> Subject:
    """The subject `jax` with each of its functions compiled."""
    eager = for_jax.subject()
    return replace(
        eager,
        name="jax-jit",
        framework=sys.modules[__name__],
        functions={name: jitted(function) for name, function in eager.functions.items()},
        recipe=lambda name: (
            f"from nnspec.adapters import for_jax_jit, jax_blocks\n{name} = for_jax_jit.jitted(jax_blocks.{name})"
        ),
    )

"""JAX under jax.jit: each block compiled as one program, and so is its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nnspec.adapters.for_jax import JAX
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject

if TYPE_CHECKING:
    import jax


class JITted(JAX):
    """The subject `jax` with each of its functions compiled."""

    name = "jax-jit"
    packages: tuple[str, ...] = ()

    def __init__(self, profile: str = "quick") -> None:
        super().__init__(profile)
        global jax
        import jax

    def differentiate(
        self,
        function: Callable[..., Any],
        operands: Sequence[Any],
        keywords: Mapping[str, Any],
        wanted: Sequence[bool],
        cotangents: Sequence[Any],
    ) -> list[Any]:
        """Return the gradients, the whole of it compiled; an equation is static like the keywords."""
        static = tuple(a if isinstance(a, str) else None for a in operands)
        arrays = [None if isinstance(a, str) else a for a in operands]
        compiled = jax.jit(gradients, static_argnums=(0, 1, 2, 3))
        return compiled(function, static, tuple(keywords.items()), tuple(wanted), arrays, list(cotangents))

    def subject(self) -> Subject:
        """Return the functions of the subject `jax`, compiled."""
        eager = super().subject()
        return replace(
            eager,
            # the names of a chain's arguments depend on the chain, and jax.jit has to know those that are static
            functions={n: jitted(function) for n, function in eager.functions.items() if n != "fused_chain"},
            classes={},  # a network as one program takes a minute to compile, for each shape
            recipe=lambda name: (
                f"from nnspec.adapters import for_jax_jit, jax_blocks\n{name} = for_jax_jit.jitted(jax_blocks.{name})"
            ),
        )


def jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a block anew for every shape and every value of its arguments."""
    import jax

    arguments = SIGNATURES[function.__name__].arguments
    return jax.jit(function, static_argnames=tuple(arguments))


def gradients(
    function: Callable[..., Any],
    static: Sequence[str | None],
    keywords: Sequence[tuple[str, Any]],
    wanted: Sequence[bool],
    arrays: Sequence[Any],
    cotangents: Sequence[Any],
) -> list[Any]:
    """Return the gradients for the arrays that are wanted; `static` has the operands that are no arrays."""
    chosen = [n for n, w in enumerate(wanted) if w]

    def results(*given: Any) -> list[Any]:
        operands = [a if s is None else s for s, a in zip(static, arrays, strict=True)]
        for n, a in zip(chosen, given, strict=True):
            operands[n] = a
        found = function(*operands, **dict(keywords))
        return list(found if isinstance(found, tuple | list) else (found,))[: len(cotangents)]

    _, pullback = jax.vjp(results, *(arrays[n] for n in chosen))
    by_place = dict(zip(chosen, pullback(list(cotangents)), strict=True))
    return [by_place.get(n) for n in range(len(wanted))]

"""Derivatives that nnspec makes of an adapter's `vjp` and `jvp`, and of the vjps that a subject brings for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def first_result(
    function: Callable[..., Any], others: Sequence[Any], keywords: Mapping[str, Any]
) -> Callable[[Any], tuple[Any]]:
    """Return the first result of a function, as a tuple of one, as a function of its first operand alone."""

    def first(x: Any) -> tuple[Any]:
        y = function(x, *others, **keywords)
        return (y[0] if isinstance(y, tuple | list) else y,)

    return first


class Derivatives:
    """Gradients of some operands, and second derivatives."""

    vjp: Callable[..., Any]
    jvp: Callable[..., Any]

    def differentiate(
        self,
        function: Callable[..., Any],
        operands: Sequence[Any],
        keywords: Mapping[str, Any],
        wanted: Sequence[bool],
        cotangents: Sequence[Any],
    ) -> list[Any]:
        """Return the gradients for those operands that are wanted, and None for the others.

        There is one cotangent for each result, from the first on.
        """

        def of_wanted(*arrays: Any) -> tuple[Any, ...]:
            rest = iter(arrays)
            results = function(*(next(rest) if w else a for a, w in zip(operands, wanted, strict=True)), **keywords)
            results = results if isinstance(results, tuple | list) else (results,)
            return tuple(y for y, _ in zip(results, cotangents, strict=False))

        chosen = [a for a, w in zip(operands, wanted, strict=True) if w]
        found = iter(self.vjp(of_wanted, chosen, list(cotangents)))
        return [next(found) if w else None for w in wanted]

    def differentiate_again(
        self,
        function: Callable[..., Any],
        operands: Sequence[Any],
        keywords: Mapping[str, Any],
        wanted: Sequence[bool],
        cotangent: Any,
        tangent: Any,
    ) -> list[Any]:
        """Return the gradients of Σ tangent · g for the cotangent and for the operands, None for those not wanted.

        g is the gradient of the function's first result for its first operand and that cotangent.
        """
        chosen = [n for n, w in enumerate(wanted) if w]

        def gradient(cotangent: Any, *arrays: Any) -> tuple[Any, ...]:
            x, *others = {**dict(enumerate(operands)), **dict(zip(chosen, arrays, strict=True))}.values()
            return tuple(self.vjp(first_result(function, others, keywords), [x], [cotangent]))

        found = iter(self.vjp(gradient, [cotangent, *(operands[n] for n in chosen)], [tangent]))
        return [next(found) if w else None for w in (True, *wanted)]

    def push_forward_twice(
        self, function: Callable[..., Any], operands: Sequence[Any], keywords: Mapping[str, Any], tangent: Any
    ) -> Any:
        """Return the second derivative of the function's first result along a tangent of its first operand."""
        x, *others = operands
        first = first_result(function, others, keywords)

        def slope(x: Any) -> tuple[Any, ...]:
            return tuple(self.jvp(first, [x], [tangent]))

        return self.jvp(slope, [x], [tangent])[0]

    def by_own_vjp(
        self,
        vjp: Callable[..., Any],
        operands: Sequence[Any],
        keywords: Mapping[str, Any],
        wanted: Sequence[bool],
        cotangents: Sequence[Any],
    ) -> list[Any]:
        """Return what a function's own vjp gives for the wanted operands. A string has no gradient."""
        gradients = vjp(cotangents[0] if len(cotangents) == 1 else tuple(cotangents), *operands, **keywords)
        gradients = gradients if isinstance(gradients, tuple | list) else [gradients]
        arrays = [n for n, operand in enumerate(operands) if not isinstance(operand, str)]
        if len(gradients) != len(arrays):
            raise TypeError(f"{len(gradients)} gradients, expected {len(arrays)}, one for each array")
        by_place = dict(zip(arrays, gradients, strict=True))
        return [by_place[n] if wanted[n] else None for n in range(len(operands))]

    def by_own_vjp_vjp(
        self,
        vjp_vjp: Callable[..., Any],
        operands: Sequence[Any],
        keywords: Mapping[str, Any],
        wanted: Sequence[bool],
        cotangent: Any,
        tangent: Any,
    ) -> list[Any]:
        """Return what a function's own vjp of its vjp gives for the cotangent and for the wanted operands."""
        gradients = vjp_vjp(tangent, cotangent, *operands, **keywords)
        return [g if w else None for g, w in zip(gradients, (True, *wanted), strict=True)]

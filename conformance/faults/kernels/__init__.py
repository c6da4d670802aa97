"""Mistakes of tiled, vectorised and parallel code: wrong only where a size is larger than a block of the kernel.

Each is the reference with parts of a result, an operand or a gradient cut, repeated or shifted, where a kernel of
blocks of that size would cut, repeat or shift them. Small cases show few of them: the regime of their sizes is
`boundary`. A mistake of one kind comes with several sizes of the block.

Axes are counted as one: the number of an element along axes (0, 2, 3) runs from 0 to N·OH·OW − 1, row by row.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from nnspec.conformance.case import Array
from nnspec.conformance.faults import fault

Axes = tuple[int, ...]
Change = Callable[[Array, Axes, int], Array]  # an array, the axes that are cut into blocks, and the size of a block
SIZES = "boundary"  # the regime of sizes that shows these faults


class Mistake(NamedTuple):
    """`said` is what happens to a block of the axes: a sentence with {b} for its size and {axes} for their name."""

    name: str
    said: str
    change: Change


def length(a: Array, axes: Axes) -> int:
    """Return how many elements lie along the axes."""
    return math.prod(a.shape[axis] for axis in axes)


def numbers(a: Array, axes: Axes) -> Array:
    """Return the number of each element along the axes, in a shape that broadcasts with the array."""
    own = {axis % a.ndim for axis in axes}
    return np.arange(length(a, axes)).reshape([n if axis in own else 1 for axis, n in enumerate(a.shape)])


def taken(a: Array, axes: Axes, places: Array) -> Array:
    """Return the array with each element along the axes taken from the place that is given for its number."""
    front = tuple(range(len(axes)))
    moved = np.moveaxis(a, axes, front)
    flat = moved.reshape(length(a, axes), *moved.shape[len(axes) :])
    return np.moveaxis(flat[places].reshape(moved.shape), front, axes)


def keeping(keep: Callable[[Array, int, int], Array]) -> Change:
    """Return the change that sets elements to 0, but for those of which `keep(number, length, block)` is true."""

    def change(a: Array, axes: Axes, block: int) -> Array:
        n = length(a, axes)
        if n <= block:
            return a
        return np.where(keep(numbers(a, axes), n, block), a, np.zeros((), a.dtype))

    return change


def taking(place: Callable[[Array, int, int], Array]) -> Change:
    """Return the change that takes elements from `place(number, length, block)`."""

    def change(a: Array, axes: Axes, block: int) -> Array:
        n = length(a, axes)
        return a if n <= block else taken(a, axes, place(np.arange(n), n, block))

    return change


def _twice(a: Array, axes: Axes, block: int) -> Array:
    """Double what both the last block and the one before it have, where the last one ends at the end."""
    n, i = length(a, axes), numbers(a, axes)
    again = (i >= n - block) & (i < n - n % block) if n > block and n % block else i < 0
    return np.where(again, a + a, a)


def _kept_sum(a: Array, axes: Axes, block: int) -> Array:
    """Add to each block what the block before it holds."""
    n = length(a, axes)
    if n <= block:
        return a
    i = np.arange(n)
    before = taken(a, axes, np.maximum(i - block, 0))
    return np.where(numbers(a, axes) < block, a, a + before)


def in_16_bits(a: Array, axes: Axes, block: int) -> Array:
    """Round to float16 where there are more elements than a block has."""
    with np.errstate(over="ignore"):
        return a if length(a, axes) <= block else a.astype(np.float16).astype(a.dtype)


TAIL = Mistake("tail", "the last, partial block of {b} {axes} is left out", keeping(lambda i, n, b: i < n - n % b))
FIRST = Mistake("first-block", "only the first {b} {axes} are computed", keeping(lambda i, n, b: i < b))
SHORT = Mistake(
    "last-block", "the loop over blocks of {b} {axes} ends one too early", keeping(lambda i, n, b: i < (n - 1) // b * b)
)
LAST_OF_ALL = Mistake(
    "last-element",
    "the mask of a partial block of {b} {axes} is one too short",
    keeping(lambda i, n, b: (i < n - 1) | (n % b == 0)),
)
SEAM = Mistake(
    "seam",
    "the first of each block of {b} {axes} but the first block is left out",
    keeping(lambda i, n, b: (i < b) | (i % b > 0)),
)
LOST = Mistake(
    "lost", "of two blocks of {b} {axes} that are added at once, one is lost", keeping(lambda i, n, b: i // b % 2 == 0)
)
REPEATED = Mistake("repeated", "beyond {b} {axes} the first ones come again", taking(lambda i, n, b: i % b))
CLAMPED = Mistake(
    "clamped",
    "beyond the last full block of {b} {axes} the last element of that block comes again and again",
    taking(lambda i, n, b: np.minimum(i, n // b * b - 1)),
)
STALE = Mistake(
    "stale",
    "a partial block of {b} {axes} holds what the block before it held",
    taking(lambda i, n, b: np.where(i < n - n % b, i, i - b)),
)
SHIFTED = Mistake(
    "shifted",
    "the last block of {b} {axes} is computed up to the end, and stored where a partial block begins",
    taking(lambda i, n, b: np.where(i < n - n % b, i, n - b + i % b)),
)
SWAPPED = Mistake(
    "swapped",
    "the first two blocks of {b} {axes} change places",
    taking(lambda i, n, b: np.where((i < 2 * b) & (n >= 2 * b), (i + b) % (2 * b), i)),
)
TWICE = Mistake("twice", "a last block of {b} {axes} that overlaps the one before it is added to it", _twice)
KEPT_SUM = Mistake("kept-sum", "the sum of a block of {b} {axes} begins with that of the block before it", _kept_sum)


# -- where a mistake happens -------------------------------------------------------------------------------------------


def kernel_fault(requirement: str, name: str, mistake: str, **pieces: Any) -> None:
    """Add a fault that only large sizes show. `name` ends in the size of the block."""
    fault(f"{requirement}/{name}", mistake, sizes=SIZES, **pieces)


def calling_as(right: Callable[..., Any], function: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
    """Return a function that is called as the right one is, and that gets every argument by name."""
    signature = inspect.signature(right)

    @functools.wraps(right)
    def wrong(*operands: Any, **named: Any) -> Any:
        bound = signature.bind(*operands, **named)
        bound.apply_defaults()
        return function(dict(bound.arguments))

    return wrong


class Function(NamedTuple):
    """A function of the reference, or its vjp: the right one, and how its results are found in what it returns.

    `part` is the number of the result in a tuple, and None if there is only one result.
    """

    right: Callable[..., Any]
    part: int | None = None

    def changed(self, change: Callable[[Array], Array]) -> Callable[..., Any]:
        """Return the function with its result changed, if it is there."""

        def wrong(given: dict[str, Any]) -> Any:
            found = called(self.right, given)
            if self.part is None:
                return change(found)
            return tuple(change(a) if k == self.part and a is not None else a for k, a in enumerate(found))

        return calling_as(self.right, wrong)

    def with_changed(self, operand: str, change: Callable[[Array], Array]) -> Callable[..., Any]:
        """Return the function with its result computed from a changed operand, and all other results right."""

        def wrong(given: dict[str, Any]) -> Any:
            found = called(self.right, given)
            if given[operand] is None:
                return found
            made = called(self.right, {**given, operand: change(given[operand])})
            if self.part is None:
                return made
            return tuple(made[k] if k == self.part else a for k, a in enumerate(found))

        return calling_as(self.right, wrong)


def called(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Call a function with all its arguments, operands by position."""
    kinds = inspect.signature(function).parameters
    keywords = {n: v for n, v in given.items() if kinds[n].kind is inspect.Parameter.KEYWORD_ONLY}
    return function(*(v for n, v in given.items() if n not in keywords), **keywords)


def named_by(axes: str, mistake: Mistake, block: int) -> str:
    """Return the name of a fault."""
    return f"{axes.replace(' ', '-')}-{mistake.name}-{block}"


def in_results(
    requirement: str, function: Function, axes: dict[str, Axes], blocks: Iterable[int], *mistakes: Mistake
) -> None:
    """Add faults that change a result along axes, which have the name that is given."""
    ((name, along),) = axes.items()
    for block in blocks:
        for mistake in mistakes:
            wrong = function.changed(_on_rank(mistake, along, block))
            _add(requirement, function, name, mistake, block, mistake.said, wrong)


def in_operand(
    requirement: str,
    function: Function,
    operand: str,
    axes: dict[str, Axes],
    blocks: Iterable[int],
    *mistakes: Mistake,
) -> None:
    """Add faults that compute a result from an operand that is changed along axes over which the result sums."""
    ((name, along),) = axes.items()
    for block in blocks:
        for mistake in mistakes:
            wrong = function.with_changed(operand, _on_rank(mistake, along, block))
            _add(requirement, function, name, mistake, block, f"in the sum, {mistake.said}", wrong)


def _on_rank(mistake: Mistake, axes: Axes, block: int) -> Callable[[Array], Array]:
    """Return the change of arrays that have all the axes. Others, such as an image without its batch, stay."""
    return lambda a: mistake.change(a, axes, block) if a.ndim > max(axes) else a


def _add(requirement: str, function: Function, axes: str, mistake: Mistake, block: int, said: str, wrong: Any) -> None:
    said = said.format(b=block, axes=axes)
    kernel_fault(requirement, named_by(axes, mistake, block), said, **{function.right.__name__: wrong})


def _with_block(function: Callable[..., Any], block: int, given: dict[str, Any]) -> Any:
    return function(block, **given)


def blockwise(
    requirement: str, name: str, said: str, right: Callable[..., Any], blocks: Iterable[int]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a mistake of a kind of its own: function(block, **arguments) gives the wrong result.

    `said` has {b} for the size of the block.
    """

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for block in blocks:
            wrong = calling_as(right, functools.partial(_with_block, function, block))
            kernel_fault(requirement, f"{name}-{block}", said.format(b=block), **{right.__name__: wrong})
        return function

    return add

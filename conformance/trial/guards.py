"""Memory around operands and under results: calls that show whether a subject keeps to its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
from nnspec.adapters.blame import Watched
from nnspec.adapters.signatures import entries
from nnspec.adapters.subject import Lacks
from nnspec.conformance.case import Array, Case
from nnspec.conformance.layouts import filled, guarded, offset_of
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.replay import variable
from nnspec.conformance.trial.steps import Dirty
from nnspec.conformance.trial.trial import Trial

LARGER = (0, 64, 96, 128)  # bytes that a C library adds to a request for aligned memory, with its own record


class Noting(Watched):
    """An adapter that keeps what it makes of each array."""

    def __init__(self, framework: Any) -> None:
        super().__init__(framework)
        self.natives: list[tuple[Array, Any]] = []

    def to_native(self, array: Array) -> Any:
        """Return the framework's own array, and keep it."""
        native = super().to_native(array)
        self.natives.append((array, native))
        return native


def need_places(trial: Trial) -> None:
    """Raise Lacks where the framework places operands by itself."""
    if not (trial.subject.strided and hasattr(trial.subject.framework, "surroundings")):
        raise Lacks("operands are copied to memory of their own")


def need_dirt(trial: Trial) -> None:
    """Raise Lacks where the framework has no way to fill freed memory."""
    if not hasattr(trial.subject.framework, "dirty"):
        raise Lacks("the framework offers no access to freed memory")


def call(
    trial: Trial,
    case: Case,
    offset: int,
    value: float,
    act: Callable[..., Any] = Trial.results,
    *,
    untouched: bool = True,
) -> Any:
    """Call with each operand inside a larger allocation, `offset` bytes behind an aligned address. Return the results.

    The memory around the operands holds `value`. Mismatch if it is to stay `untouched` and does not. A module copies
    its parameters, so that in the class form only the input and the cotangent are guarded.
    """
    need_places(trial)
    framework = cast(Watched, trial.subject.framework)
    copied = set() if trial.form == "function" else {*entries(case.arrays)}
    inside = {n: guarded(a, offset, value) for n, a in case.arrays.items() if n not in copied and a is not None}
    noting = Noting(framework.framework)
    noted = replace(trial, subject=replace(trial.subject, framework=cast(Any, noting)))
    results = act(noted, replace(case, arrays={**case.arrays, **inside}), as_is=True)
    for name, array in inside.items():
        for given, native in noting.natives:
            if untouched and given is array:
                _expect_untouched(name, array, value, framework.surroundings(native))
    return results


def _expect_untouched(name: str, array: Array, value: float, whole: Array) -> None:
    """Raise a Mismatch if the memory around an array does not hold the value."""
    begin = offset_of(array)
    before = filled(len(whole), array.dtype, value)
    written = (whole.view(np.uint8) != before.view(np.uint8)).reshape(len(whole), -1).any(1)
    written[begin : begin + array.size] = False
    if not written.any():
        return
    (places,) = np.nonzero(written)
    place = int(places[np.argmin(np.abs(places - begin))])
    far, side = (begin - place, "before") if place < begin else (place - begin - array.size + 1, "behind")
    what = f"the element {far} {side} it is {whole[place]}, it was {before[place]}"
    own = variable(name)  # in a script NaN lies around it
    holds = f"np.isnan({own}.base).sum() == {own}.base.size - {own}.size"
    raise Mismatch(f"memory outside {name} was written to: {what}", holds=holds)


@contextmanager
def dirtied(trial: Trial, like: list[Array], value: float) -> Iterator[None]:
    """Around a call: freed memory of the sizes of these arrays holds `value`."""
    need_dirt(trial)
    dtype = like[0].dtype
    sizes = {(n * a.nbytes + more) // dtype.itemsize for a in like for n in (1, 2) for more in LARGER}
    with warnings.catch_warnings():  # such as that not every algorithm is deterministic
        warnings.simplefilter("ignore")
        end = trial.do(Dirty(dtype, tuple(sorted(sizes - {0})), value))
        try:
            yield
        finally:
            end()

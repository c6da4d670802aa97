"""The rows of bytes that the cases of a check are made from, and how Hypothesis makes a failing row smaller.

Rows are drawn at random, which takes no time. Hypothesis would take as long to draw a row as a framework takes to
compute the case. It is called only if a case fails.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.database import ExampleDatabase, choices_to_bytes
from nnspec.conformance.drawing import LENGTH, Decision

PROFILES = {"quick": 20, "ci": 100, "deep": 1000}  # cases per check
SETTINGS = settings(
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    print_blob=False,
    verbosity=Verbosity.quiet,
    suppress_health_check=list(HealthCheck),
)


def settings_of(examples: int, simplify: bool) -> settings:
    """Return Hypothesis's settings for so many runs of a state machine. `simplify`: it makes a failing run smaller."""
    phases = (Phase.generate, Phase.shrink) if simplify else (Phase.generate,)
    return settings(SETTINGS, max_examples=examples, phases=phases)


def rows(seeded: int, count: int) -> Iterator[bytes]:
    """Yield the row of the smallest case, and random rows: always the same ones for the same seed."""
    source = random.Random(seeded)
    yield bytes(LENGTH)
    for _ in range(count - 1):
        yield source.randbytes(LENGTH)


def make_smaller(decision: Decision[Any], row: bytes, judge: Callable[[Any], None]) -> None:
    """Judge the case of a row that fails, and smaller cases. Raises what the smallest failing case raises.

    Hypothesis finds the row in its database, as if it had failed in an earlier run.
    """

    def test(*, case: Any) -> None:
        judge(case)

    found = settings(SETTINGS, database=_Known(row), phases=(Phase.reuse, Phase.shrink))
    found(seed(0)(given(case=decision.strategy)(test)))()


class _Known(ExampleDatabase):
    """A database of Hypothesis that holds one row, whatever it is asked for."""

    def __init__(self, row: bytes) -> None:
        super().__init__()
        self._saved = choices_to_bytes([row])

    def fetch(self, key: bytes) -> Iterator[bytes]:
        yield self._saved

    def save(self, key: bytes, value: bytes) -> None:
        """Keep nothing: no other run needs it."""

    def delete(self, key: bytes, value: bytes) -> None:
        """Keep the row."""


@contextmanager
def seeded_generators() -> Iterator[Callable[[], None]]:
    """Yield a function that seeds the global generators, as Hypothesis does before each case.

    At the end the generators are as they were before: the process may be the user's.
    """
    own, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002

    def reseed() -> None:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002

    try:
        yield reseed
    finally:
        random.setstate(own)
        np.random.set_state(numpys)  # noqa: NPY002

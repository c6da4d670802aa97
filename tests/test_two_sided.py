"""One seed of benchmarks/quality/numerics.py: honest ways to compute pass in their class, impostors are seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from numerics import WAYS, Way, run


def _ways(**wanted: bool) -> list[Any]:
    def named(way: Way) -> str:
        return f"{way.name}-{way.dtype}{''.join(f'-as-{name}' for name in way.accuracy)}"

    return [
        pytest.param(number, id=named(way))
        for number, way in enumerate(WAYS)
        if all(bool(getattr(way, name)) == value for name, value in wanted.items())
    ]


@pytest.mark.parametrize("number", _ways(honest=True))
def test_an_honest_way_passes(number):
    _, wrong, reached, _ = run(number, seed=0)
    assert not wrong, reached


@pytest.mark.parametrize("number", _ways(honest=False))
def test_an_impostor_is_seen(number):
    assert run(number, seed=0)[1]


@pytest.mark.parametrize("number", [p for p in _ways(honest=True, accuracy=True) if "F(2, 3)" not in p.id])
def test_a_weaker_class_must_be_declared(number, monkeypatch):
    """But for F(2, 3), whose errors are often no larger than those of a sum of products."""
    monkeypatch.setattr("numerics.WAYS", {number: replace(WAYS[number], accuracy=())})
    assert any(run(number, seed)[1] for seed in range(3))

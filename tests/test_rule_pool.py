"""The bound of the gradient of a mean: no right way to share and add leaves it, and what cannot round must be exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnspec.conformance.bounds.pool import shared

DTYPES = ("float32", "float64")


def summed(shares):
    """What `vjp` does of one element that all windows cover."""
    return np.asarray(shares.sum(dtype=shares.dtype))


def expected(g, d):
    return shared(lambda g: summed(g / d.astype(g.dtype)), d.astype(np.float64), g)


def rounded(g, d):
    """Every way of a share, added in several orders; and, where all divisors are one, the sum before the share."""
    one = g.dtype.type(1)
    for shares in (g / d, g * (one / d)):
        for order in (shares, shares[::-1], np.sort(shares), shares[np.argsort(-abs(shares))]):
            yield order.cumsum(dtype=g.dtype)[-1]
        yield summed(shares)
    if len(set(d)) == 1:
        total = g.cumsum(dtype=g.dtype)[-1]
        yield from (total / d[0], total * (one / d[0]))


@st.composite
def windows(draw, dtype):
    size, seed = draw(st.integers(1, 50)), draw(st.integers(0, 2**32 - 1))
    rng, sign = np.random.default_rng(seed), draw(st.sampled_from([1, -1]))
    g = rng.standard_normal(size) * 2.0 ** rng.integers(-20, 21, size) * (rng.random(size) < 0.8)
    d = sign * (rng.integers(1, 17, size) if draw(st.booleans()) else np.full(size, rng.integers(1, 17)))
    return g.astype(dtype), d.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_way_to_share_and_add_leaves_the_bound(dtype):
    @settings(max_examples=200, deadline=None, database=None)
    @given(windows(dtype))
    def judge(drawn):
        wanted = expected(*drawn)
        for gradient in rounded(*drawn):
            assert abs(gradient - wanted.value) <= wanted.within()

    judge()


def test_the_bound_is_not_loose():
    g, d = np.random.default_rng(0).standard_normal(16).astype(np.float32), np.full(16, 9, np.float32)
    wanted = expected(g, d)
    assert 0 < wanted.within() < 1.001 * 17 * 2.0**-24 * abs(g / 9).sum()
    assert abs(expected(g, np.full(16, 8, np.float32)).value - wanted.value) > wanted.within()


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_over_powers_of_two_must_be_exact(dtype):
    g, d = np.arange(1, 10).astype(dtype), np.array([1, 2, 4, 8, 16, 4, 4, 2, 1], dtype)
    wanted = expected(g, d)
    assert wanted.within() == 0
    assert all(gradient == wanted.value for gradient in rounded(g, d))
    assert expected(g, -d).within() == 0


def test_only_the_divisors_of_cotangents_that_are_not_zero_count():
    g, d = np.array([3, 0, 5], np.float32), np.array([2, 3, 4], np.float32)
    assert expected(g, d).within() == 0
    assert expected(g, d[::-1].copy()).within() == 0
    assert expected(g[::-1].copy(), np.array([2, 4, 3], np.float32)).within() > 0


def test_integers_without_room_on_the_grid_of_the_largest_divisor_get_a_bound():
    room = 2.0**24 / 16
    assert expected(np.array([room - 16, 16], np.float32), np.array([1, 16], np.float32)).within() == 0
    assert expected(np.array([room, 16], np.float32), np.array([1, 16], np.float32)).within() > 0


def test_what_no_window_covers_is_zero():
    assert expected(np.zeros(3, np.float32), np.array([3, 5, 7], np.float32)).within() == 0


def test_a_single_share_over_a_power_of_two_is_a_copy():
    assert expected(np.array([0.1, 0], np.float32), np.array([4, 3], np.float32)).within() == 0
    assert expected(np.array([0.1, 0], np.float32), np.array([3, 4], np.float32)).within() > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_share_that_underflows_is_rounded(dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    for odd in (1, 3, 5, 7):
        g, d = np.array([odd * smallest], dtype), np.array([4], dtype)
        wanted = expected(g, d)
        assert wanted.within() > 0
        assert all(abs(gradient - wanted.value) <= wanted.within() for gradient in rounded(g, d))
    assert expected(np.array([8 * smallest], dtype), np.array([4], dtype)).within() == 0

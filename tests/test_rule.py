"""The verdict rule: no right result is ever called wrong, and results that are a little wrong are."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnspec.adapters.for_reference import subject
from nnspec.conformance.rule import FORMATS, Expected, flushing, multilinear
from nnspec.conformance.trial import Mismatch, Trial
from nnspec.reference.linear import linear

DTYPES = ("float32", "float64")


def rounded_sums(a, b):
    """The dot product of two vectors, rounded after every step, in several orders of summation."""
    products = a * b
    shuffled = np.random.default_rng(0).permutation(products)
    for order in (products, products[::-1], shuffled, np.sort(products), products[np.argsort(-abs(products))]):
        yield order.cumsum(dtype=order.dtype)[-1]  # one after the other
    pairs = list(products)
    while len(pairs) > 1:
        pairs = halves(pairs)
    yield pairs[0]
    yield fused(a, b)


def halves(terms):
    sums = [x + y for x, y in zip(terms[::2], terms[1::2], strict=False)]
    return sums + terms[len(terms) - len(terms) % 2 :]


def fused(a, b):
    """Each product is added unrounded, as fused multiply-add does."""
    total = a.dtype.type(0)
    for x, y in zip(a, b, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(total))
        total = nearest(exact, a.dtype)
    return total


def nearest(exact, dtype):
    guess = dtype.type(float(exact))
    near = [np.nextafter(guess, dtype.type(-np.inf)), guess, np.nextafter(guess, dtype.type(np.inf))]
    return min(near, key=lambda value: abs(Fraction(float(value)) - exact))


def exactly(a, b):
    return sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), Fraction(0))


@st.composite
def vectors(draw, dtype):
    size, seed = draw(st.integers(1, 300)), draw(st.integers(0, 2**32 - 1))
    rng, spread = np.random.default_rng(seed), draw(st.sampled_from([0, 10, 30]))
    a, b = (rng.standard_normal(size) * 2.0 ** rng.integers(-spread, spread + 1, size) for _ in range(2))
    if draw(st.booleans()):  # a sum that almost cancels
        a[size // 2 :] = -a[: size - size // 2]
    return a.astype(dtype), b.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_order_of_summation_leaves_the_bound(dtype):
    @settings(max_examples=60, deadline=None, database=None)
    @given(vectors(dtype))
    def check(operands):
        a, b = operands
        expected = multilinear(linear, a[None], b[None])
        bound = Fraction(float(np.asarray(expected.bound).max()))
        for result in rounded_sums(a, b):
            assert abs(Fraction(float(result)) - exactly(a, b)) <= bound

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_expected_values_are_nearer_to_the_exact_ones_than_the_dtype_can_be(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 100)).astype(dtype)
    value = multilinear(linear, a[None], b[None]).value[0, 0]
    assert abs(float(Fraction(*value.as_integer_ratio()) - exactly(a, b))) < FORMATS[dtype].u * 0.01
    if dtype == "float32":
        assert float(value) == pytest.approx(math.fsum(a.astype(float) * b), rel=1e-15)


def test_the_bound_is_not_loose():
    a, b = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    bound = np.asarray(multilinear(linear, a[None], b[None]).bound).item()
    magnitude = float(abs(a) @ abs(b))
    assert 64 * 2**-24 * magnitude < bound < 65 * 2**-24 * magnitude


@pytest.mark.parametrize("size", [2, 8, 64])
def test_operands_rounded_to_float16_are_seen(size):
    seen = 0
    for seed in range(20):
        a, b = np.random.default_rng(seed).standard_normal((2, size)).astype(np.float32)
        half = [v.astype(np.float16).astype(np.float32) for v in (a, b)]
        expected = multilinear(linear, a[None], b[None])
        seen += abs(half[0] @ half[1] - expected.value.item()) > np.asarray(expected.bound).item()
    assert seen >= 17


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_with_room_must_be_exact(dtype):
    a, b = np.random.default_rng(0).integers(-8, 9, (2, 5, 50)).astype(dtype)
    expected = multilinear(linear, a, b)
    assert np.all(np.asarray(expected.bound) == 0)
    assert np.array_equal(expected.value, a.astype(int) @ b.astype(int).T)


def test_integers_without_room_get_a_bound():
    a = np.full((1, 3), 2.0**12, np.float32)
    assert np.asarray(multilinear(linear, a, a).bound).item() > 0  # 3·2²⁴ may be the end of a sum that rounds
    assert np.asarray(multilinear(linear, a[:, :1], a[:, :1]).bound).item() == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_must_be_exact(dtype):
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(dtype)
    weight = np.zeros((3, 6), dtype)
    weight[[0, 1, 2], [5, 0, 3]] = 0.25, -1, 2
    expected = multilinear(linear, x, weight)
    assert np.all(np.asarray(expected.bound) == 0)
    weight[0, 0] = 1  # two terms: they may round
    bound = np.broadcast_to(multilinear(linear, x, weight).bound, (4, 3))
    assert np.all(bound[:, 0] > 0)
    assert np.all(bound[:, 1:] == 0)


def test_one_product_of_full_mantissas_may_round():
    x, weight = np.full((1, 1), 1.1, np.float32), np.full((1, 1), 1.3, np.float32)
    assert np.asarray(multilinear(linear, x, weight).bound).item() > 0


def test_a_bias_is_one_more_term():
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(s).astype(np.float32) for s in ((1, 9), (1, 9), (1,)))
    without = np.asarray(multilinear(linear, x, weight, None).bound).item()
    within = np.asarray(multilinear(linear, x, weight, bias).bound).item()
    assert within > without


def test_subnormal_products_may_lose_half_a_spacing_each():
    a = np.full((1, 4), 2.0**-80, np.float32) * np.float32(1.1)
    expected = multilinear(linear, a, a)  # every product is far below the smallest subnormal number
    assert np.asarray(expected.bound).item() >= 4 * 2.0**-150


# -- what is held against the bound ------------------------------------------------------------------------------------


@pytest.fixture
def trial():
    return Trial(subject(), "function", "float32")


def f32(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("actual", "value", "bound"),
    [
        (f32(1, 2), [1, 2], 0),
        (f32(1, 2.5), [1, 2], 0.5),
        (f32(np.nan, np.inf, -np.inf), [np.nan, np.inf, -np.inf], 0),
        (f32(np.nan, np.inf), [np.nan, np.inf], 1),
        (f32(-0.0), [0.0], 0),
        (f32(), [], 0),
        (np.float32(3).reshape(()), 3.0, 0),
    ],
)
def test_accepted(trial, actual, value, bound):
    trial.expect(actual, Expected(np.array(value, np.float64), bound))


@pytest.mark.parametrize(
    ("actual", "value", "bound", "message"),
    [
        (f32(1, 2), [1, 3], 0, r"\[1\] is 2.0, expected 3.0 \(error 1, must be exact\); 1 of 2 elements"),
        (f32(1, 2.5), [1, 2], [0, 0.25], r"\[1\] is 2.5, expected 2.0 \(error 0.5, allowed 0.25\)"),
        (f32(np.nan), [1], np.inf, "is nan"),
        (f32(1), [np.nan], 1, "expected nan"),
        (f32(np.inf), [1], 1e30, "is inf"),
        (f32(1), [np.inf], 1, "expected inf"),
        (f32(np.inf), [-np.inf], 1, "is inf"),
        (f32(1, np.nan, 9), [1, 2, 3], 0, r"\[1\] is nan.*2 of 3 elements"),
        (f32(1, 2), [[1, 2]], 9, r"has shape \(2,\), expected \(1, 2\)"),
        (f32(1), 1.0, 9, r"has shape \(1,\), expected \(\)"),
        (f32(0), [], 9, "has shape"),
    ],
)
def test_rejected(trial, actual, value, bound, message):
    with pytest.raises(Mismatch, match=message):
        trial.expect(actual, Expected(np.array(value, np.float64), np.asarray(bound, np.float64)))


def test_the_worst_error_is_kept(trial):
    trial.expect(f32(1.25, 1), Expected(np.ones(2), 0.5))
    trial.expect(f32(1.125, 1), Expected(np.ones(2), 0.5))
    assert trial.worst == 0.5


def test_a_subject_that_flushes_is_allowed_the_smallest_normal_number():
    x = np.full(2, 2.0**-80, np.float32)  # each product is below the smallest normal number, 2⁻¹²⁶

    def bound():
        return multilinear(lambda a, b: np.asarray(a @ b), x, x / 2**20).bound

    assert bound() < 2.0**-147
    with flushing(True):
        assert bound() >= 2 * 2 * 2.0**-126
    with flushing(False):
        assert bound() < 2.0**-147

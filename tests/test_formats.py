"""Conversion is correctly rounded: 16-bit formats at every number and every middle, the others in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from nnspec.adapters.names import DTYPES
from nnspec.conformance.bounds.arithmetic import CLASS_B
from nnspec.conformance.formats import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    STORED,
    TFLOAT32,
    is_floating,
    rounded,
)

NARROW = [FLOAT16, BFLOAT16]


def every(form):
    """All finite numbers of a 16-bit format from 0 up, as float64."""
    numbers = np.arange(2**15, dtype=np.uint16).view(form.dtype).astype(np.float64)
    return numbers[np.isfinite(numbers)]


@pytest.mark.parametrize("form", NARROW, ids=lambda f: f.name)
@pytest.mark.parametrize("wide", [np.float64, np.longdouble])
def test_every_number_every_middle_and_what_lies_beside_it(form, wide):
    numbers = every(form)
    assert len(numbers) == 2 ** (15 - form.precision + 1) * 2 ** (form.precision - 1) - 2 ** (form.precision - 1)
    assert (numbers[1], numbers[-1]) == (form.eta, form.largest)
    numbers = numbers.astype(wide)
    middles = (numbers[1:] + numbers[:-1]) / 2
    even = np.where(np.arange(len(middles)) % 2 == 0, numbers[:-1], numbers[1:])  # neighbours alternate
    for sign in (1, -1):
        for given, right in [
            (numbers, numbers),
            (middles, even),
            (np.nextafter(middles, wide(np.inf)), numbers[1:]),
            (np.nextafter(middles, wide(0)), numbers[:-1]),
        ]:
            found = rounded(sign * given, form)
            assert found.dtype == form.dtype
            assert np.array_equal(found.astype(wide), sign * right)
            assert np.array_equal(np.signbit(found), np.signbit(sign * right))


@pytest.mark.parametrize("form", [FLOAT16, BFLOAT16, FLOAT32, TFLOAT32], ids=lambda f: f.name)
def test_overflow_and_special_values(form):
    above = form.largest + 2.0 ** (form.highest - form.precision)  # the middle to the number that there is not
    found = rounded(np.array([above, np.nextafter(above, 0), -above, np.inf, -np.inf]), form).astype(np.float64)
    assert found.tolist() == [np.inf, form.largest, -np.inf, np.inf, -np.inf]
    assert np.isnan(rounded(np.nan, form).astype(np.float64))
    zeros = rounded(np.array([0.0, -0.0, form.eta / 2, -form.eta / 2]), form)
    assert np.signbit(zeros).tolist() == [False, True, False, True]
    assert not zeros.astype(np.float64).any()
    assert rounded(np.nextafter(form.eta / 2, 1), form).astype(np.float64) == form.eta


@pytest.mark.parametrize(
    ("form", "wide"),
    [(FLOAT32, np.float64), (FLOAT32, np.longdouble), (FLOAT64, np.longdouble), (TFLOAT32, np.float64)],
    ids=lambda p: getattr(p, "name", p.__name__ if isinstance(p, type) else None),
)
def test_random_numbers_against_rational_arithmetic(form, wide):
    if np.finfo(wide).nmant < form.precision:
        pytest.skip("no wider type here")
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (3000, 64)) @ (2.0 ** -np.arange(1, 65)).astype(wide)
    fine = np.finfo(wide).nmant + 1
    exponents = rng.integers(-60, 60, bits.shape)
    exponents[::5] = rng.integers(max(form.lowest - form.precision - 3, -1060), form.lowest + 2, bits[::5].shape)
    values = np.ldexp(bits.astype(wide), exponents)
    assert fine > form.precision
    found = rounded(values, form)
    for value, nearest in zip(values, found, strict=True):
        exact, got = (Fraction(*v.as_integer_ratio()) for v in (value, nearest))
        unit = Fraction(2) ** (max(int(np.frexp(value)[1]) - 1, form.lowest) - form.precision + 1)
        assert got / unit == round(exact / unit)  # Python's round is to the nearest, and in the middle to even


def test_converting_twice_is_not_converting_once():
    witness = 1 + 2.0**-8 + 2.0**-40
    assert float(rounded(witness, BFLOAT16)) == 1 + 2.0**-7
    assert float(np.float32(witness).astype(BFLOAT16.dtype)) == 1.0


@pytest.mark.parametrize("name", STORED)
def test_names_and_constants_are_those_of_numpy(name):
    import ml_dtypes

    form, limits = STORED[name], ml_dtypes.finfo(name)
    assert np.dtype(name) == form.dtype
    assert is_floating(name)
    assert (form.u * 2, form.largest, form.tiny) == (float(limits.eps), float(limits.max), float(limits.tiny))
    assert form.eta == float(limits.smallest_subnormal)
    assert not is_floating(np.int64)


def test_each_dtype_has_a_format_and_an_arithmetic():
    assert {*STORED} == {*DTYPES}
    assert all(CLASS_B.of(dtype).stored == STORED[dtype] for dtype in DTYPES)

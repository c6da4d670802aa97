"""16-bit types and classes of accuracy: each way to compute is found in its class, and a wrong one in none."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numerics
import numpy as np
import pytest
from nnspec.adapters.for_reference import subject as reference
from nnspec.conformance.bounds.arithmetic import CLASSES, STRICT, Accuracy
from nnspec.conformance.bounds.rule import Expected, multilinear
from nnspec.conformance.checks import load_checks
from nnspec.conformance.formats import BFLOAT16, STORED, TFLOAT32, rounded
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.linear import linear

NARROW = ("float16", "bfloat16")


def in_float32(x, weight, bias=None):
    """As a good library does: sums in float32, and one rounding."""
    wide = (None if a is None else a.astype(np.float32) for a in (x, weight, bias))
    return rounded(linear(*wide).astype(np.float64), STORED[x.dtype.name])


def before_the_bias(x, weight, bias=None):
    """The product is stored, and then the bias is added."""
    y = in_float32(x, weight)
    return y if bias is None else rounded(y.astype(np.float64) + bias.astype(np.float64), STORED[x.dtype.name])


def all_narrow(x, weight, bias=None):
    """Every partial sum is stored."""
    form = STORED[x.dtype.name]
    total = np.zeros((*x.shape[:-1], len(weight)), np.float64)
    for k in range(x.shape[-1]):
        term = rounded(x[..., k, None].astype(np.float64) * weight[:, k].astype(np.float64), form)
        total = rounded(total + term.astype(np.float64), form).astype(np.float64)
    return rounded(total if bias is None else total + bias.astype(np.float64), form)


def truncated(x, weight, bias=None):
    """The digits that do not fit are cut off."""
    y = linear(*(None if a is None else a.astype(np.float64) for a in (x, weight, bias)))
    form = STORED[x.dtype.name]
    _, exponent = np.frexp(np.where(y == 0, 1.0, y))
    unit = np.ldexp(1.0, exponent - form.precision)
    return rounded(np.trunc(y / unit) * unit, form)


def few_digits(x, weight, bias=None):
    """float32 operands as tensor cores take them."""
    x, weight = (rounded(a.astype(np.float64), TFLOAT32).astype(a.dtype) for a in (x, weight))
    return linear(x, weight, bias)


def dropped(x, weight, bias=None):
    """The last product is left out."""
    return in_float32(x[..., :-1], weight[:, :-1], bias)


def outcome(function, dtype, identifier="linear.output.value", seed=0, **declared):
    load_checks()

    def linear(x, weight, bias=None):
        return function(x, weight, bias)

    subject = replace(reference(), name="a way to compute", functions={"linear": linear}, classes={}, **declared)
    return Trial(subject, "function", dtype, "ci" if function is before_the_bias else "quick", seed).run(
        CHECKS[identifier]
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    ("function", "classes"),
    [
        (in_float32, {"A", "Bp", "B"}),
        (before_the_bias, {"B2"}),
        (all_narrow, {"B2", "L"}),
        (truncated, {"B2", "L"}),
        (dropped, {""}),
    ],
    ids=lambda p: getattr(p, "__name__", ""),
)
def test_each_way_is_found_in_its_class(function, classes, dtype, seed):
    check = "linear.arguments.together" if function is before_the_bias else "linear.output.value"
    found = outcome(function, dtype, check, seed)
    assert found.accuracy in classes, found.reason


@pytest.mark.parametrize("seed", range(3))
def test_tf32_is_class_t_for_those_who_declare_it(seed):
    assert outcome(few_digits, "float32", seed=seed).verdict == "fail"
    assert outcome(few_digits, "float32", seed=seed, accuracy=("T",)).accuracy == "T"
    assert outcome(dropped, "float32", seed=seed, accuracy=("T",)).verdict == "fail"
    assert outcome(linear, "float32", seed=seed, accuracy=("T",)).accuracy in STRICT


@pytest.mark.parametrize("dtype", NARROW)
def test_no_class_excuses_what_is_not_about_numbers(dtype):
    """Judged again by a weaker class, this one would get away with refusing every second call."""
    calls = []

    def every_second_time(x, weight, bias=None):
        calls.append(x)
        if len(calls) % 2:
            raise ValueError("not now")
        return in_float32(x, weight, bias)

    assert outcome(every_second_time, dtype).verdict == "fail"


@pytest.mark.parametrize("dtype", NARROW)
def test_what_is_stored_lies_between_the_rounded_ends_and_nothing_else_does(dtype):
    form, rng = STORED[dtype], np.random.default_rng(0)
    value, bound = rng.standard_normal(500), 2.0 ** rng.uniform(-14, -2, 500)
    stored = Expected(value, bound).stored(dtype)
    for part in np.linspace(-1, 1, 21):
        result = rounded(value + part * bound, form).astype(np.float64)
        assert (abs(result - stored.value) <= stored.bound).all()
    for sign in (1, -1):
        end = rounded(value + sign * bound, form).astype(np.float64)
        _, exponent = np.frexp(np.where(end == 0, form.tiny, end))
        outside = end + sign * np.ldexp(1.0, np.maximum(exponent - 1, form.lowest) - form.precision + 1)
        assert (abs(outside - stored.value) > stored.bound).all()


def test_an_exact_result_is_the_nearest_number_alone():
    third = Expected.exactly(np.array([1 / 3])).stored("bfloat16")
    assert (third.value, third.bound) == (float(rounded(1 / 3, BFLOAT16)), 0)


def test_nothing_is_expected_where_the_bound_reaches_beyond_the_largest_number():
    largest = STORED["float16"].largest
    stored = Expected(np.array([largest, 1.0]), np.array([64.0, 0.0])).stored("float16")
    assert stored.bound.tolist() == [np.inf, 0]
    infinite = Expected.exactly(np.array([np.inf, -np.inf, np.nan])).stored("float16")
    assert np.array_equal(infinite.value, [np.inf, -np.inf, np.nan], equal_nan=True)


@pytest.mark.parametrize("dtype", NARROW)
def test_sums_in_any_order_are_in_class_b(dtype):
    """Sequential, reversed and shuffled sums in float32, against the exact one."""
    rng = np.random.default_rng(0)
    for k in (1, 2, 7, 64, 500):
        x, w = (rng.standard_normal(k).astype(dtype) for _ in range(2))
        expected = multilinear(lambda a, b: (a * b).sum(keepdims=True), x, w)
        exact = sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, w, strict=True)), Fraction(0))
        assert abs(Fraction(float(expected.value[0])) - exact) < Fraction(2) ** -40
        products = x.astype(np.float32) * w.astype(np.float32)
        stored = expected.stored(dtype)
        for terms in (products, products[::-1], np.sort(products), rng.permutation(products)):
            result = rounded(float(terms.cumsum(dtype=np.float32)[-1]), STORED[dtype]).astype(np.float64)
            assert abs(result - stored.value[0]) <= np.max(stored.bound)


@pytest.mark.parametrize("name", CLASSES)
def test_a_weaker_class_allows_no_less(name):
    rng = np.random.default_rng(0)
    for dtype in STORED:
        x, w = (rng.standard_normal(9).astype(dtype) for _ in range(2))
        expected = multilinear(lambda a, b: (a * b).sum(keepdims=True), x, w)
        plain, weaker = expected.within(), expected.within(Accuracy(name))
        assert (weaker >= plain).all()
        assert ((weaker > plain) == (name in ("B2", "T") or (name == "L" and dtype in NARROW))).all()
        assert (expected.probable(Accuracy()) <= plain).all()


# -- for a user --------------------------------------------------------------------------------------------------------

SHORT = """
    import numpy as np

    {declared}
    DTYPES = ["float32"]

    def short(a):
        bits = np.ascontiguousarray(a).view(np.uint32)
        return (bits + 0x1000 & 0xFFFFE000).view(np.float32)

    def linear(x, weight, bias=None):
        if x.ndim == 0 or x.shape[-1] != weight.shape[1] or weight.ndim != 2:
            raise ValueError("the features do not match")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError("the bias does not match")
        y = np.matmul(short(x), short(weight).T)
        return y if bias is None else y + bias
"""


@pytest.mark.parametrize(("declared", "code"), [("", 1), ('ACCURACY = ("T",)', 0), ('ACCURACY = "T"', 0)])
def test_a_file_may_declare_a_weaker_class(desk, declared, code):
    done = desk.check(SHORT.format(declared=declared), "-n", 0)
    assert done.code == code, done.out + done.err
    assert ("class T: " in done.out) == (code == 0)
    reached = {r["requirement"]: r["accuracy"] for r in done.report["results"]}
    assert reached["linear.output.value"] == ("T" if code == 0 else None)
    assert ("declared by layers.py: class T" in done.out) == (code == 0)
    values = next(r for r in done.report["results"] if r["requirement"] == "linear.output.value")
    assert values["declared"] == (["T"] if code == 0 else [])
    assert code or values["worst_case"].startswith("linear(x(")
    assert reached["linear.batch.empty"] == "A"


VALUES = "output_value or stride_step or padding_zeros"


@pytest.mark.parametrize("fast", [False, True])
def test_a_convolution_by_a_transform_is_class_c_for_a_file_that_says_so(desk, fast):
    text = """
        import sys
        sys.path.insert(0, {folder!r})
        from numerics import by_fourier

        ACCURACY = {classes}

        def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
            return by_fourier(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
    """
    folder = str(Path(numerics.__file__).parent)
    desk.write("layers.py", text.format(folder=folder, classes=["C"] if fast else []))
    done = desk.run(
        "-m", "pytest", "--pyargs", "nnspec.conformance", "--nnspec-subject", "layers.py:conv2d", "-k", VALUES
    )
    assert done.code == (0 if fast else 1), done.out + done.err


def test_a_class_that_there_is_not(desk):
    done = desk.check(SHORT.format(declared='ACCURACY = ["Z"]'), "-n", 0)
    assert done.code == 2
    assert "ACCURACY = ['Z']: expected some of B2, T, L, C, N, not 'Z'" in done.err


@pytest.mark.parametrize("dtype", NARROW)
def test_torch_in_16_bits(desk, dtype):
    pytest.importorskip("torch")
    blocks = ("--block", "linear", "--block", "relu", "--block", "avg_pool2d")
    done = desk.nnspec("check", "torch", *blocks, "--dtype", dtype, "-n", 0)
    assert done.code == 0, done.out + done.err
    assert {r["dtype"] for r in done.report["results"]} == {dtype}
    assert {"A", "L"} <= {r["accuracy"] for r in done.report["results"]}
    assert "class L: avg_pool2d.gradient.x" in done.out


def test_a_script_in_bfloat16_reproduces(desk):
    pytest.importorskip("torch")
    done = desk.check("import torch\ndef relu(x): return x.abs()", "--dtype", "bfloat16", "-n", 0)
    assert done.code == 1, done.out + done.err
    script = next(r["failure"]["script"] for r in done.report["results"] if r["verdict"] == "fail")
    again = desk.run(script)
    assert again.code == 1, again.out + again.err
    assert "the result differs" in again.err

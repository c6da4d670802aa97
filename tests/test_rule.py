"""The verdict rule: no right result is ever called wrong, and results that are a little wrong are."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnspec.adapters.for_reference import subject
from nnspec.conformance.bounds.arithmetic import CLASS_B, Accuracy
from nnspec.conformance.bounds.batch_norm import expected_gradients
from nnspec.conformance.bounds.rule import Expected, multilinear
from nnspec.conformance.bounds.running_error import Approximate, relu_vjp
from nnspec.conformance.case import Case
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial
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
        bound = Fraction(float(expected.within().max()))
        for result in rounded_sums(a, b):
            assert abs(Fraction(float(result)) - exactly(a, b)) <= bound

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_expected_values_are_nearer_to_the_exact_ones_than_the_dtype_can_be(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 100)).astype(dtype)
    value = multilinear(linear, a[None], b[None]).value[0, 0]
    assert abs(float(Fraction(*value.as_integer_ratio()) - exactly(a, b))) < CLASS_B.of(dtype).u * 0.01
    if dtype == "float32":
        assert float(value) == pytest.approx(math.fsum(a.astype(float) * b), rel=1e-15)


def test_the_bound_is_not_loose():
    a, b = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    bound = multilinear(linear, a[None], b[None]).within().item()
    magnitude = float(abs(a) @ abs(b))
    assert 64 * 2**-24 * magnitude < bound < 65 * 2**-24 * magnitude


@pytest.mark.parametrize("size", [2, 8, 64])
def test_operands_rounded_to_float16_are_seen(size):
    seen = 0
    for seed in range(20):
        a, b = np.random.default_rng(seed).standard_normal((2, size)).astype(np.float32)
        half = [v.astype(np.float16).astype(np.float32) for v in (a, b)]
        expected = multilinear(linear, a[None], b[None])
        seen += abs(half[0] @ half[1] - expected.value.item()) > expected.within().item()
    assert seen >= 17


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_with_room_must_be_exact(dtype):
    a, b = np.random.default_rng(0).integers(-8, 9, (2, 5, 50)).astype(dtype)
    expected = multilinear(linear, a, b)
    assert np.all(expected.within() == 0)
    assert np.array_equal(expected.value, a.astype(int) @ b.astype(int).T)


def test_integers_without_room_get_a_bound():
    a = np.full((1, 3), 2.0**12, np.float32)
    assert multilinear(linear, a, a).within().item() > 0  # 3·2²⁴ may be the end of a sum that rounds
    assert multilinear(linear, a[:, :1], a[:, :1]).within().item() == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_must_be_exact(dtype):
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(dtype)
    weight = np.zeros((3, 6), dtype)
    weight[[0, 1, 2], [5, 0, 3]] = 0.25, -1, 2
    expected = multilinear(linear, x, weight)
    assert np.all(expected.within() == 0)
    weight[0, 0] = 1  # two terms: they may round
    bound = np.broadcast_to(multilinear(linear, x, weight).within(), (4, 3))
    assert np.all(bound[:, 0] > 0)
    assert np.all(bound[:, 1:] == 0)


def test_one_product_of_full_mantissas_may_round():
    x, weight = np.full((1, 1), 1.1, np.float32), np.full((1, 1), 1.3, np.float32)
    assert multilinear(linear, x, weight).within().item() > 0


def test_a_bias_is_one_more_term():
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(s).astype(np.float32) for s in ((1, 9), (1, 9), (1,)))
    without = multilinear(linear, x, weight, None).within().item()
    within = multilinear(linear, x, weight, bias).within().item()
    assert within > without


def test_subnormal_products_may_lose_half_a_spacing_each():
    a = np.full((1, 4), 2.0**-80, np.float32) * np.float32(1.1)
    expected = multilinear(linear, a, a)  # every product is far below the smallest subnormal number
    assert expected.within().item() >= 4 * 2.0**-150


# -- errors carried through blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gradient", "right"),
    [
        ((4, 0, 4, 0, 0), True),
        ((0, 4, 4, 0, 0), True),  # rounding may have decided the first two signs
        ((-1, 0, 4, 0, 0), False),
        ((4, 5, 4, 0, 0), False),
        ((4, 0, 0, 0, 0), False),  # the third is certainly positive, and the fourth negative
        ((4, 0, 4, 4, 0), False),
        ((4, 0, 4, 0, 4), True),  # the last is exactly 0, where the slope is a convention between 0 and 1
        ((4, 0, 4, 0, 5), False),
        ((4, 0, 4, 0, -1), False),
    ],
)
def test_what_a_rectifier_hands_back(gradient, right):
    x = Approximate(np.array([1e-9, -1e-9, 1, -1, 0]), np.array([1e-8, 1e-8, 1e-8, 1e-8, 0]), CLASS_B.of("float32"))
    expected = relu_vjp(Approximate.given(np.full(5, 4, np.float32)), x).expected
    assert np.all(abs(np.array(gradient) - expected.value) <= expected.within()) == right


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
    assert trial.compared.worst == 0.5


# -- the gradients of batch norm ---------------------------------------------------------------------------------------


def in_turn(terms):
    return terms.cumsum(0, dtype=terms.dtype)[-1]


def in_halves(terms):
    terms = list(terms)
    while len(terms) > 1:
        terms = halves(terms)
    return terms[0]


def two_passes(x, total):
    n = x.dtype.type(len(x))
    mean = total(x) / n
    return mean, total((x - mean) ** 2) / n


def welford(x, total):
    mean, squares = np.zeros_like(x[0]), np.zeros_like(x[0])
    for count, row in enumerate(x, start=1):
        before = row - mean
        mean = mean + before / x.dtype.type(count)
        squares = squares + before * (row - mean)
    return mean, squares / x.dtype.type(len(x))


def about_the_first(x, total):
    n, rest = x.dtype.type(len(x)), x - x[0]
    mean = total(rest) / n
    return mean + x[0], np.maximum(total(rest * rest) / n - mean * mean, 0)


def as_it_stands(x, g, w, mean, s, total):
    n, hat = x.dtype.type(len(x)), (x - mean) * s
    dw = total(g * hat)
    return w * s * (g - total(g) / n - hat * (dw / n)), dw


def folded(x, g, w, mean, s, total):
    """dx = α·g + β·x + γ, and Σ g·x̂ out of Σ g·x and Σ g."""
    n, db = x.dtype.type(len(x)), total(g)
    dw = s * (total(g * x) - mean * db)
    slope = -w * s * s * dw / n
    return w * s * g + slope * x + (-slope * mean - w * s * db / n), dw


def hat_folded(x, g, w, mean, s, total):
    n, hat = x.dtype.type(len(x)), x * s - mean * s
    dw = total(g * hat)
    return w * s / n * (n * g - total(g) - hat * dw), dw


def product_first(x, g, w, mean, s, total):
    """As torch does it: Σ g·d before s."""
    n, dot = x.dtype.type(len(x)), total(g * (x - mean))
    return (g - total(g) / n - (x - mean) * (dot * s * s / n)) * s * w, dot * s


def step_by_step(x, g, w, mean, s, total):
    """The chain rule, back through (x − mean)·s·w, s = (v + eps)^−½, v = mean of d² and d = x − mean."""
    n, d, dhat = x.dtype.type(len(x)), x - mean, g * w
    dv = total(dhat * d) * (s * s * s) * x.dtype.type(-0.5)
    dd = dhat * s + dv * (d * x.dtype.type(2) / n)
    return dd - total(dd) / n, total(g * (d * s))


def step_by_step_folded(x, g, w, mean, s, total):
    """The chain rule, back through x·scale + (bias − mean·scale)."""
    n, d, db, scale = x.dtype.type(len(x)), x - mean, total(g), w * s
    dscale = total(g * x) + db * -mean
    dv = dscale * w * (s * s * s) * x.dtype.type(-0.5)
    dmean = -scale * db - total(dv * d * x.dtype.type(2) / n)
    return g * scale + dv * d * x.dtype.type(2) / n + dmean / n, dscale * s


WAYS = (as_it_stands, folded, hat_folded, product_first, step_by_step, step_by_step_folded)


def batches(dtype, n, channels, seed):
    """x, cotangents, weight and eps in every regime: name -> one of each."""
    rng = np.random.default_rng(seed)
    normal, ones, offset = rng.standard_normal((n, channels)), np.ones((n, channels)), rng.choice([10.0, 1e3, 1e5])
    inputs = {
        "normal": (normal, 1e-5),
        "integers": (rng.integers(-8, 9, (n, channels)), 0.1),
        "of the size of eps": (normal * np.sqrt(1e-5 * 2.0 ** rng.integers(-2, 3, channels)), 1e-5),
        "far from 0": (normal + offset, 1e-5),
        "constant": (ones * 100 * normal[:1], 1e-5),
        "two values": (np.where(normal > 0, 3.0, rng.choice([0.0, 1e3])), 1e-3),
    }
    one_hot = np.where(np.arange(n)[:, None] == rng.integers(0, n, channels), 2.0 ** rng.integers(-3, 4, channels), 0)
    cotangents = (rng.standard_normal((n, channels)), ones, rng.random((n, channels)), one_hot)
    weight = rng.standard_normal(channels).astype(dtype)
    for name, (x, eps) in inputs.items():
        yield name, x.astype(dtype), cotangents[rng.integers(4)].astype(dtype), weight, eps


def off(case, *gradients):
    """How far each is off, in units of its bound."""
    right = expected_gradients(case)
    for name, gradient in zip(("x", "weight"), gradients, strict=False):
        error, bound = np.abs(gradient - right[name].value), right[name].within()
        yield np.where(error > 0, error / np.where(bound > 0, bound, np.finfo(float).tiny), 0).astype(float)


def norm_case(x, cotangent, weight, eps, training):
    arrays = {"x": x, "running_mean": x[0], "running_var": np.abs(x[-1]), "weight": weight, "bias": weight}
    return Case("batch_norm", {**arrays, "cotangent": cotangent}, {"training": training, "eps": eps})


SIZES = (2, 3, 5, 8, 33, 128)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_no_right_gradient_of_batch_norm_is_beyond_its_bound(dtype, way):
    for seed, n in enumerate(SIZES):
        for regime, x, g, w, eps in batches(dtype, n, 32, seed):
            case = norm_case(x, g, w, eps, training=True)
            for statistics in (two_passes, welford, about_the_first):
                for total in (in_turn, in_halves):
                    mean, v = statistics(x, total)
                    gradients = way(x, g, w, mean, 1 / np.sqrt(v + x.dtype.type(eps)), total)
                    for ratio in off(case, *gradients):
                        assert ratio.max() <= 1, (regime, n, statistics, total)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_right_gradient_of_batch_norm_in_evaluation_is_beyond_its_bound(dtype):
    for seed, n in enumerate((1, *SIZES)):
        for regime, x, g, w, eps in batches(dtype, n, 32, seed):
            case = norm_case(x, g, w, eps, training=False)
            mean, s = case["running_mean"], 1 / np.sqrt(case["running_var"] + x.dtype.type(eps))
            for total in (in_turn, in_halves):
                folded_dw = s * (total(g * x) - mean * total(g))
                for dw in (total(g * ((x - mean) * s)), total(g * (x * s - mean * s)), folded_dw):
                    for ratio in off(case, w * (s * g), dw):
                        assert ratio.max() <= 1, (regime, n, total)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_s_gradients_of_batch_norm_are_within_their_bounds(dtype, training):
    torch = pytest.importorskip("torch")
    for seed, n in enumerate(SIZES):
        for regime, x, g, w, eps in batches(dtype, n, 32, seed):
            case = norm_case(x, g, w, eps, training)
            leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in (x, w)]
            statistics = (torch.from_numpy(case[name].copy()) for name in ("running_mean", "running_var"))
            y = torch.nn.functional.batch_norm(leaves[0], *statistics, leaves[1], None, training, 0.1, eps)
            for ratio in off(case, *(a.numpy() for a in torch.autograd.grad(y, leaves, torch.from_numpy(g)))):
                assert ratio.max() <= 1, (regime, n)


@pytest.mark.parametrize("n", [3, 8, 128])
@pytest.mark.parametrize(
    "mistake",
    [
        {"eps": 1.1e-5},
        {"divisor": lambda n: n - 1},
        {"rounded": lambda hat: hat.astype(ml_dtypes.bfloat16).astype(hat.dtype)},
        {"rounded": lambda hat: hat * (np.arange(len(hat)) > 0)[:, None]},
    ],
    ids=["eps", "divisor n - 1", "bfloat16", "first left out"],
)
def test_small_mistakes_in_the_gradients_of_batch_norm_are_seen(n, mistake):
    """Of the gradient of x, nearly always, by one element of the channel at least."""
    _, x, g, w, eps = list(batches("float32", n, 200, 0))[2]
    g = np.random.default_rng(1).standard_normal(x.shape).astype(x.dtype)
    divisor = np.float32(mistake.get("divisor", int)(n))
    mean, s = x.mean(0), 1 / np.sqrt(x.var(0) + np.float32(mistake.get("eps", eps)))
    hat = mistake.get("rounded", np.array)((x - mean) * s)
    dx = w * s * (g - g.sum(0) / divisor - hat * ((g * hat).sum(0) / divisor))
    (ratio,) = off(norm_case(x, g, w, eps, training=True), dx)
    assert (ratio.max(0) > 1).mean() > 0.95


def test_a_subject_that_flushes_is_allowed_the_smallest_normal_number():
    x = np.full(2, 2.0**-80, np.float32)  # each product is below the smallest normal number, 2⁻¹²⁶

    expected = multilinear(lambda a, b: np.asarray(a @ b), x, x / 2**20)
    assert expected.within(Accuracy(flushes=True)) >= 2 * 2 * 2.0**-126
    assert expected.within(Accuracy(flushes=False)) < 2.0**-147

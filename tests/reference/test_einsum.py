"""The reference against the definition as index loops, and against torch where it is installed."""

import numpy as np
import pytest
from nnspec.reference.einsum import definition, einsum, parse


def by_loops(terms, output, *operands):
    """`terms` and `output` are strings of one-character labels: no ellipsis, nothing implicit."""
    names, sizes = sorted(set("".join(terms))), {}
    for term, x in zip(terms, operands, strict=True):
        for a, n in zip(term, x.shape, strict=True):
            sizes[a] = n if sizes.get(a, 1) == 1 else sizes[a]
    y = np.zeros([sizes[a] for a in output])
    for index in np.ndindex(*(sizes[a] for a in names)):
        at = dict(zip(names, index, strict=True))
        product = 1.0
        for term, x in zip(terms, operands, strict=True):
            product *= x[tuple(at[a] if n > 1 else 0 for a, n in zip(term, x.shape, strict=True))]
        y[tuple(at[a] for a in output)] += product
    return y


def random_case(rng):
    """Terms of labels (digits stand for ellipsis axes, ascending), an output, and operands, size-1 axes among them."""
    sizes = dict(zip("ijkL012", rng.choice([0, 1, 2, 3, 4], 7, p=[0.04, 0.16, 0.3, 0.3, 0.2]), strict=True))
    terms, operands, dots = [], [], rng.random() < 0.5
    for _ in range(rng.integers(1, 4)):
        named = "".join(rng.choice(list("ijkL"), rng.integers(0, 5)))
        cut, hidden = rng.integers(0, len(named) + 1), "012"[rng.integers(1, 4) :] if dots else ""
        terms.append(named[:cut] + hidden + named[cut:])
        own = {a: 1 if rng.random() < 0.15 else sizes[a] for a in terms[-1]}
        operands.append(rng.integers(-3, 4, [own[a] for a in terms[-1]]).astype(float))
    letters = [a for a in sorted(set("".join(terms))) if a.isalpha()]
    output = "".join(rng.permutation(letters)[: rng.integers(0, len(letters) + 1)])
    if dots and rng.random() < 0.7:
        cut = rng.integers(0, len(output) + 1)
        output = output[:cut] + "".join(sorted(set("".join(terms)) & set("012"))) + output[cut:]
    return terms, output, operands, dots


def written(term, dots):
    """The term with its digits as an ellipsis; where the equation has one, a term without digits gets an empty one."""
    letters = "".join(a for a in term if a.isalpha())
    first = min((i for i, a in enumerate(term) if a.isdigit()), default=0)
    return letters[:first] + "..." + letters[first:] if dots else letters


def equation_of(terms, output, dots):
    right = written(output, any(a.isdigit() for a in output))
    return ",".join(written(t, dots) for t in terms) + "->" + right


@pytest.mark.parametrize("seed", range(300))
def test_equals_loops(seed):
    terms, output, operands, dots = random_case(np.random.default_rng(seed))
    y = einsum(equation_of(terms, output, dots), *operands)
    np.testing.assert_array_equal(y, by_loops(terms, output, *operands), strict=True)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.complex128])
@pytest.mark.parametrize("seed", range(100))
def test_equals_its_definition(seed, dtype):
    terms, output, operands, dots = random_case(np.random.default_rng(seed))
    operands = [x.astype(dtype) for x in operands]
    for equation in (equation_of(terms, output, dots), equation_of(terms, output, dots).partition("->")[0]):
        np.testing.assert_array_equal(einsum(equation, *operands), definition(equation, *operands), strict=True)


@pytest.mark.parametrize("seed", range(300))
def test_equals_torch(seed):
    torch = pytest.importorskip("torch")
    terms, output, operands, dots = random_case(np.random.default_rng(seed))
    equation = equation_of(terms, output, dots)
    for e in (equation, equation.partition("->")[0]):
        theirs = torch.einsum(e, *map(torch.from_numpy, operands)).numpy()
        np.testing.assert_array_equal(einsum(e, *operands), theirs, strict=True)


@pytest.mark.parametrize(
    ("terms", "output"),
    [
        (["iij"], "ij"),
        (["iij"], "i"),
        (["jii"], "ij"),
        (["iji"], "j"),
        (["tiijj"], "ij"),
        (["iij", "j"], "ij"),
        (["iii", "i"], ""),
        (["abc", "cd", "def"], "abd"),
        (["bid", "bjd"], "bij"),
        (["bij", "ijk"], "bik"),
        (["ab", "cd"], ""),
    ],
)
def test_equals_loops_on_equations_that_went_wrong_elsewhere(terms, output):
    rng, sizes = np.random.default_rng(0), dict(zip("abcdefijkt", (2, 3, 4, 5, 2, 3, 4, 3, 2, 2), strict=True))
    operands = [rng.integers(-3, 4, [sizes[a] for a in t]).astype(float) for t in terms]
    y = einsum(f"{','.join(terms)}->{output}", *operands)
    np.testing.assert_array_equal(y, by_loops(terms, output, *operands), strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble, np.int8, np.complex64])
@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij,jk->", "ij,jk->ijk", "ii,jk->j"])
def test_keeps_the_dtype(dtype, equation):
    x = np.ones((2, 2), dtype)
    assert einsum(equation, x, x).dtype == dtype


def test_complex_operands_are_not_conjugated():
    assert einsum("i,i->", np.array([1 + 2j]), np.array([3 - 1j])) == (1 + 2j) * (3 - 1j)


@pytest.mark.parametrize("equation", ["i->i", "ij->ji", "ii->i", "->", "i->", "...->..."])
def test_is_fresh_memory(equation):
    x = np.ones((2,) * len(equation.partition("->")[0].replace("...", "")))
    assert not np.shares_memory(x, einsum(equation, x))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("i", []),
        ("i,i", [(2,)]),
        ("i", [(2,), (2,)]),
        ("ij", [(2,)]),
        ("ij", [(2, 2, 2)]),
        ("i...j", [(2,)]),
        ("i,i", [(2,), (3,)]),
        ("i,i", [(2,), (0,)]),
        ("...,...->", [(2,), (3,)]),
        ("...i,...i", [(2, 3), (5, 4, 3)]),
        ("ii->i", [(1, 3)]),
        ("ii->i", [(3, 1)]),
        ("i->j", [(2,)]),
        ("i->ii", [(2,)]),
        ("i1", [(2, 2)]),
        ("i-j", [(2, 2)]),
        ("i..j", [(2, 2)]),
        ("...i...", [(2, 2)]),
        ("i->i->i", [(2,)]),
        ("i->i,", [(2,)]),
        ("é", [(2,)]),
    ],
)
def test_refuses_what_torch_refuses(equation, shapes):
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="expected"):
        einsum(equation, *map(np.ones, shapes))
    with pytest.raises((RuntimeError, ValueError)):
        torch.einsum(equation, *map(torch.ones, shapes))


def test_parse_gives_ellipsis_axes_labels_counted_from_the_right():
    assert parse("b...a,...c", [4, 2]) == ([("b", ".2", ".1", "a"), (".1", "c")], (".2", ".1", "a", "b", "c"))

"""The requirements of spec/einsum.md, in the page's order."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.equations import parts_of
from nnspec.adapters.names import LONG
from nnspec.adapters.signatures import EQUATION
from nnspec.conformance.bounds.einsum import gradient as gradient_of
from nnspec.conformance.bounds.einsum import sum_of_products
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Array, Case
from nnspec.conformance.checks import alternatives, domains, laws, laws_of_gradients, laws_of_memory
from nnspec.conformance.checks.cases import KINDS, Data, data, specials, wholes, with_cotangent
from nnspec.conformance.checks.equations import (
    REPEATED,
    SIZE,
    About,
    Counts,
    Shapes,
    axes_of,
    equations,
    number_of_operands,
    shapes_of,
    sizes_within,
    tokens_of,
    with_room,
)
from nnspec.conformance.checks.laws import Laws
from nnspec.conformance.drawing import (
    TINY,
    Decision,
    Draw,
    any_of,
    booleans,
    composite,
    dimension,
    integers,
    legal,
    lists,
    one_of,
    permutations,
    reaches,
)
from nnspec.conformance.requirements import CHECKS, requirement
from nnspec.conformance.sizes import ROOM, SWEEPS, Sweep
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.einsum import einsum

# What a label does: whether several operands have it, whether the output has it.
SHARED, KEPT = {"contracted", "batch"}, {"batch", "outer", "diagonal"}
ROLES = ("contracted", "batch", "private", "outer", "diagonal", "trace")
LONGEST_DIAGONAL = 9  # of a label that may stand three times in one term, beside another one

SWEEPS["einsum"] = Sweep(
    names={
        "axis0": "the size of the first label",
        "axis1": "the size of the second label",
        "axis2": "the size of the third label",
        "ellipsis0": "the size of the first axis of the ellipsis",
    },
    axes=(("axis0",), ("axis1",), ("axis2",), ("ellipsis0",), ("axis0", "axis1"), ("axis1", "axis2")),
)


def _parts_within(draw: Draw, ellipsis: str, whatever: bool, implicit: bool) -> str:
    """Return the ellipsis that a domain leaves, which is none where anything will do.

    Raises OutOfDomain where a check is about what the domain excludes.
    """
    if implicit and not draw.domain.allows("implicit", True):
        raise OutOfDomain(draw.domain.outside("implicit"))
    if not ellipsis or draw.domain.allows("ellipsis", True):
        return ellipsis
    if ellipsis != "any" and not whatever:
        raise OutOfDomain(draw.domain.outside("ellipsis"))
    return ""


@composite
def cases(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    roles: Counts,
    operands: tuple[int, int] = (2, 2),
    sizes: tuple[int, ...] = (2, 3, 4),
    broadcast: tuple[str, ...] = (),
    rarely: bool = False,
    ellipsis: str = "",
    implicit: bool = False,
    alphabet: str = "",
    scalars: bool = False,
    spaces: bool = False,
    plain: bool = False,
    whatever: bool = False,
):
    """Terms built label by label: `roles` says how many labels of each role there are; places are drawn.

    `broadcast` names roles: of their labels, one operand at least has an axis of size 1, or `rarely` does. `ellipsis`
    is "kept", "broadcast" (unequal ranks and sizes of 1 too), "dropped", "empty" or "any", all but dropped. `alphabet`
    gives the labels, `scalars` adds an empty term, `plain` has no one-hot. `whatever` takes all equations of a domain.
    """
    ellipsis = _parts_within(draw, ellipsis, whatever, implicit)
    sizes, values = sizes_within(draw, sizes), data(dtype, ("integers", "normal") if plain else KINDS)
    if EQUATION in draw.domain.conditions:
        about = About(roles, operands, ellipsis, implicit, alphabet, scalars, spaces, whatever)
        equation = draw(any_of(*equations(draw.domain, about)))
        whole = shapes_of(draw, equation, sizes, broadcast, ellipsis)
        return Case("einsum", _arrays(draw(values), tokens_of(equation), whole), {EQUATION: equation})
    count = number_of_operands(draw, operands, scalars)
    labels = iter(draw(permutations(alphabet)) if alphabet else "ijklmnopqrstuvw")
    terms: list[list[str]] = [[] for _ in range(count)]
    shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in range(count)]  # label (or "...") -> sizes in this operand
    output: list[str] = []
    drawn = [role for role, bounds in roles.items() for _ in range(draw(integers(*bounds)))]
    drawn = with_room(draw.domain, drawn, roles, sizes, ellipsis)
    longest = max(TINY, ROOM // 4 ** sum(map(axes_of, drawn)))
    for role in drawn:
        most = min(longest, LONGEST_DIAGONAL) if role in REPEATED else longest
        a, size = next(labels), draw(dimension(*sizes, most=most, name=SIZE))
        several = 1 if count == 1 else draw(integers(2, count)) if role in SHARED else 1
        owners = draw(permutations(range(count)))[:several]
        ones = _ones(draw, owners, rarely) if role in broadcast else []
        for owner in owners:
            times = draw(any_of(2, 2, 3)) if role in REPEATED and owner == owners[0] else 1
            for _ in range(times):
                _insert(draw, terms[owner], a)
            shapes[owner][a] = (1 if owner in ones else size,)
        if role in KEPT:
            _insert(draw, output, a)
    if scalars:
        place = draw(integers(0, len(terms)))
        terms.insert(place, [])
        shapes.insert(place, {})
    if ellipsis:
        _add_ellipsis(draw, ellipsis, terms, shapes, output)
    arrays = _arrays(draw(values), terms, shapes)
    return Case("einsum", arrays, {EQUATION: _written(draw, terms, None if implicit else output, spaces)})


def _written(draw: Draw, terms: Sequence[Sequence[str]], output: Sequence[str] | None, spaces: bool) -> str:
    """The equation of these tokens; without an output that is None."""
    left = [token for term in terms for token in (",", *term)][1:]
    tokens = [*left, *([] if output is None else ["->", *output]), ""]  # "" at the end: a place for a space
    gaps = [" " * draw(integers(0, 2)) if spaces else "" for _ in tokens]
    return "".join(g + t for g, t in zip(gaps, tokens, strict=True))


def _arrays(values: Data, terms: Sequence[Sequence[str]], shapes: Shapes) -> dict[str, Array]:
    """The operands: the tokens of each term, and the sizes that their axes have in it."""
    of_terms = (tuple(n for a in term for n in own[a]) for term, own in zip(terms, shapes, strict=True))
    return {name: _operand(values, name == "a", shape) for name, shape in zip("abcdefg", of_terms, strict=False)}


def _insert(draw: Draw, term: list[str], label: str) -> None:
    term.insert(draw(integers(0, len(term))), label)


def _ones(draw: Draw, owners: list[int], rarely: bool) -> list[int]:
    """The operands in which a label has size 1: at least one and not all, or with `rarely`, often none."""
    if len(owners) < 2 or (rarely and not draw(booleans())):
        return []
    if not draw.domain.allows(SIZE, 1):
        if rarely:
            return []
        raise OutOfDomain(draw.domain.outside(SIZE))
    return owners[: draw(integers(1, len(owners) - 1))]


def _add_ellipsis(draw: Draw, kind: str, terms: list, shapes: list, output: list[str]) -> None:
    kind = draw(any_of("none", "kept", "broadcast", "empty")) if kind == "any" else kind
    if kind == "none":
        return
    most = 1 if SIZE in draw.domain.conditions else 3  # where sizes may be large
    full = [] if kind == "empty" else draw(lists(dimension(2, 3, of="ellipsis", name=SIZE), 1, most))
    owners = draw(permutations(range(len(terms))))[: draw(integers(1, len(terms)))]
    for owner in owners:
        hidden = list(full)
        if kind == "broadcast" and owner != owners[0]:
            hidden = [
                1 if draw(booleans()) and draw.domain.allows(SIZE, 1) else n
                for n in full[draw(integers(0, len(full))) :]
            ]
        _insert(draw, terms[owner], "...")
        shapes[owner]["..."] = tuple(hidden)
    if kind != "dropped":
        _insert(draw, output, "...")


def _operand(values: Data, first: bool, shape: tuple[int, ...]) -> Array:
    """In the one-hot draw every operand but the first has only zeros and powers of two."""
    if first or values.kind != "one-hot":
        return np.asarray(values.inputs(*shape), values.dtype)
    return values.weights(*shape) if shape else np.array(2.0, values.dtype)


def terms_of(case: Case) -> tuple[list[str], str]:
    """The terms, and the output."""
    return parts_of(case[EQUATION])


def expected(case: Case) -> Expected:
    """What the reference gives, with the bound of sums of products."""
    return sum_of_products(case["equation"], *case.arrays.values())


law = Laws(cases, expected)


def equals_own(subject: Trial, result: Array, case: Case, what: str) -> None:
    """The subject's result of a case, but for the rounding of both."""
    rule = expected(case)
    subject.expect(result, laws.own(subject(case), rule), what)


# -- labels ------------------------------------------------------------------------------------------------------------


test_contraction_value = law(
    "einsum.contraction.value",
    laws.equals_reference,
    "Shared and summed, wherever it stands.",
    sweeps=True,
    roles={"contracted": (1, 2), "outer": (0, 2)},
    sizes=(2, 3, 4, 5),
)
test_private_summed = law(
    "einsum.private.summed",
    laws.equals_reference,
    "One operand's own, and summed.",
    roles={"private": (1, 2), "outer": (1, 2), "contracted": (0, 1)},
)
test_batch_paired = law(
    "einsum.batch.paired",
    laws.equals_reference,
    "Shared and kept, wherever it stands.",
    sweeps=True,
    roles={"batch": (1, 2), "outer": (0, 1), "contracted": (0, 1)},
)
test_outer_value = law(
    "einsum.outer.value", laws.equals_reference, "Nothing shared.", roles={"outer": (2, 4)}, sizes=(2, 2, 2, 3)
)


@requirement(
    "einsum.diagonal.value",
    cases,
    roles={"diagonal": (1, 2), "outer": (0, 1)},
    operands=(1, 2),
    sizes=(2, 3),
    effort=2,
)
def test_diagonal_value(subject: Trial, case: Case) -> None:
    """Two or three axes of one label, one label or two, wherever they stand, and however they lie in memory."""
    laws.equals_reference(subject, case, expected)
    laws.ignores_layout(subject, case, expected)


test_diagonal_summed = law(
    "einsum.diagonal.summed",
    laws.equals_reference,
    "Traces.",
    roles={"trace": (1, 1), "outer": (0, 1)},
    operands=(1, 2),
)
test_broadcast_size_one = law(
    "einsum.broadcast.size-one",
    laws.equals_reference,
    "Of a label that is kept, one operand has but one.",
    roles={"batch": (1, 2), "outer": (0, 1)},
    broadcast=("batch",),
    sizes=(2, 3, 0),
    alternatives={"refused": alternatives.refused},
)
test_broadcast_summed = law(
    "einsum.broadcast.summed",
    laws.equals_reference,
    "Of a label that is summed, one operand has but one.",
    roles={"contracted": (1, 2), "outer": (0, 2)},
    broadcast=("contracted",),
    alternatives={"refused": alternatives.refused},
)


# -- the ellipsis ------------------------------------------------------------------------------------------------------

TWO_FACTORS: Counts = {"contracted": (1, 2), "batch": (0, 1), "outer": (0, 2)}  # and no sum that one operand has alone
FEW: Counts = {"outer": (0, 1), "contracted": (0, 1)}


test_ellipsis_kept = law(
    "einsum.ellipsis.kept",
    domains.anywhere(laws.equals_reference),
    "The same axes in every operand that has any, whatever the subject shows not to take.",
    cases=domains.asking,
    quantity="ellipsis",
    of=cases,
    roles=FEW,
    operands=(1, 2),
    sizes=(2, 3, 4, 5),
    spread=True,
    ellipsis="kept",
)
test_ellipsis_broadcast = law(
    "einsum.ellipsis.broadcast",
    laws.equals_reference,
    "Missing axes, and axes of size 1.",
    roles=FEW,
    operands=(2, 3),
    ellipsis="broadcast",
)


@requirement(
    "einsum.ellipsis.dropped",
    cases,
    roles=FEW,
    operands=(1, 2),
    ellipsis="dropped",
    alternatives={"refused": alternatives.refused},
)
def test_ellipsis_dropped(subject: Trial, case: Case) -> None:
    """Summed like labels; every element along them gets the same gradient."""
    laws.equals_reference(subject, case, expected)
    if "vjp" not in subject.subject.lacks(case.stem, subject.form):
        shape = expected(case).value.shape
        cotangent = np.arange(1, 1 + math.prod(shape)).reshape(shape).astype(subject.dtype)
        gradients_equal_reference(subject, replace(case, arrays={**case.arrays, "cotangent": cotangent}))


test_ellipsis_empty = law(
    "einsum.ellipsis.empty", laws.equals_reference, "No axes.", roles=FEW, operands=(1, 2), ellipsis="empty", effort=2
)


# -- the implicit output -----------------------------------------------------------------------------------------------


test_implicit_order = law(
    "einsum.implicit.order",
    domains.anywhere(laws.equals_reference),
    "The order of the alphabet, whatever the subject shows not to take.",
    cases=domains.asking,
    quantity="implicit",
    of=cases,
    roles={"outer": (2, 4)},
    operands=(1, 2),
    implicit=True,
    alphabet="abcXYZ",
)
test_implicit_summed = law(
    "einsum.implicit.summed",
    laws.equals_reference,
    "Whatever stands twice is summed.",
    roles={"contracted": (0, 1), "trace": (0, 1), "outer": (0, 1)},
    operands=(1, 3),
    implicit=True,
)
test_implicit_ellipsis = law(
    "einsum.implicit.ellipsis",
    laws.equals_reference,
    "In front.",
    roles={"outer": (1, 2)},
    operands=(1, 2),
    ellipsis="broadcast",
    implicit=True,
)


# -- the equation and its operands -------------------------------------------------------------------------------------


test_equation_spaces = law(
    "einsum.equation.spaces",
    laws.equals_reference,
    "Anywhere between labels, commas and the arrow.",
    roles={"contracted": (1, 1), "outer": (1, 2)},
    spaces=True,
)
test_labels_case = law(
    "einsum.labels.case",
    laws.equals_reference,
    "i and I in one equation.",
    roles={"outer": (2, 2), "batch": (0, 1), "contracted": (0, 1)},
    alphabet="iIjJ",
)
test_operands_three = law(
    "einsum.operands.three",
    laws.equals_reference,
    "Labels shared by two, three and four.",
    roles={"contracted": (1, 2), "batch": (0, 2), "outer": (0, 2), "private": (0, 1)},
    operands=(3, 4),
    sizes=(2, 3, 5),
    spread=True,
)
test_operands_scalar = law(
    "einsum.operands.scalar",
    laws.equals_reference,
    "First, last and in between.",
    roles={"outer": (0, 2), "contracted": (0, 1)},
    operands=(1, 2),
    scalars=True,
)


@composite
def repeated_operand(draw, *, dtype: str, lacks: frozenset[str]):
    """Two or three terms with the same number of axes, all of one size."""
    rank, count = draw(integers(1, 2)), number_of_operands(draw, (2, 3), False)
    size = legal(draw, SIZE, draw(integers(2, 3)))
    terms = ["".join(draw(permutations("ijk"))[:rank]) for _ in range(count)]
    output = "".join(draw(permutations(sorted(set("".join(terms))))))
    output = output[: draw(integers(0, len(output)))]
    x = draw(data(dtype, ("integers", "normal"))).inputs(*[size] * rank)
    return Case("einsum", dict.fromkeys("abc"[:count], x), {"equation": f"{','.join(terms)}->{output}"})


@requirement("einsum.operands.same", repeated_operand)
def test_operands_same(subject: Trial, case: Case) -> None:
    """The same array in every place."""
    x = case["a"].copy()
    same = case.map(lambda _: x)
    (result, *_) = subject.results(same, as_is=True)
    subject.expect(result, expected(same))


@composite
def complex_cases(draw, *, dtype: str, lacks: frozenset[str], **choices: Any):
    """Complex integers."""
    real = draw(cases(dtype=dtype, lacks=lacks, **choices))
    rng, kind = (
        np.random.default_rng(draw(integers(0, 2**16 - 1))),
        {"float32": np.complex64}.get(dtype, np.complex128),
    )
    return real.map(lambda a: (rng.integers(-8, 9, a.shape) + 1j * rng.integers(-8, 9, a.shape)).astype(kind))


@requirement(
    "einsum.complex.value",
    complex_cases,
    roles={"contracted": (0, 1), "batch": (0, 1), "outer": (0, 1)},
    operands=(1, 2),
)
def test_complex_value(subject: Trial, case: Case) -> None:
    """Complex integers, which no order of summation rounds."""
    wide = [a.astype(np.complex128) for a in case.arrays.values()]
    result = subject(case)
    subject.expect(result, Expected.exactly(einsum(case["equation"], *wide)))
    if result.dtype != case["a"].dtype:
        message = f"the result has dtype {result.dtype}, expected {case['a'].dtype}"
        raise Mismatch(message, holds=f"result.dtype.name == '{case['a'].dtype}'")


@composite
def emptied(draw, **choices: Any):
    """Cases with axes of size 0; or with one such axis of the first operand alone, which is summed."""
    if not draw(booleans()):
        return draw(cases(**choices))
    case = draw(cases(**{**choices, "sizes": (2, 3, 1, 5)}))
    return case.but(a=np.zeros((0, *case["a"].shape), case["a"].dtype), equation=f"z{case['equation']}")


test_contraction_empty = law(
    "einsum.contraction.empty",
    laws.equals_reference,
    "Sums of nothing, beside axes of something.",
    cases=emptied,
    roles={"contracted": (0, 1), "private": (1, 1), "outer": (0, 4)},
    operands=(1, 3),
    sizes=(0,),
    spread=True,
)


EVERYTHING: Counts = {role: (0, 1) for role in ROLES}
ONCE: Counts = {role: bounds for role, bounds in EVERYTHING.items() if role not in REPEATED}  # in each of its terms


test_arguments_together = law(
    "einsum.arguments.together",
    laws.equals_reference,
    "Every role and the ellipsis at once.",
    sweeps=True,
    roles={**EVERYTHING, "diagonal": (0, 2)},
    operands=(1, 3),
    sizes=(2, 3, 1),
    ellipsis="any",
    spread=True,
    narrow=True,
)
test_special_value = law(
    "einsum.special.value",
    laws.equals_reference,
    "Where it belongs, and nowhere else.",
    cases=specials,
    of=cases,
    operand="a",
    roles=TWO_FACTORS,
    operands=(1, 2),
    sizes=(2, 3, 1, 5),
    spread=True,
)


@requirement("einsum.range.ends", wholes, of=cases, roles=TWO_FACTORS, dtypes=LONG, effort=2)
def test_range_ends(subject: Trial, case: Case) -> None:
    """Operands and results near the largest and the smallest numbers that there are."""
    laws.holds_at_the_ends(subject, case, expected, "a", "b")


# -- laws --------------------------------------------------------------------------------------------------------------


@requirement("einsum.law.operand-order", cases, roles=ONCE, operands=(2, 3), sizes=(2, 3), ellipsis="any")
def test_law_operand_order(subject: Trial, case: Case) -> None:
    """The last operand first; of an ellipsis, one may have axes of size 1."""
    terms, output = terms_of(case)
    arrays = dict(zip(case.arrays, reversed(case.arrays.values()), strict=True))
    turned = Case("einsum", arrays, {"equation": f"{','.join(reversed(terms))}->{output}"})
    equals_own(subject, subject(turned), case, "the result, with the operands in reverse order,")


@requirement("einsum.law.composition", cases, roles=ONCE, operands=(3, 3), sizes=(2, 3))
def test_law_composition(subject: Trial, case: Case) -> None:
    """Two operands first, then their result, as it came, with the third."""
    (first, second, third), output = terms_of(case)
    between = "".join(sorted((set(first + second) & set(third + output)), reverse=True))
    pair = Case("einsum", {n: case[n] for n in "ab"}, {"equation": f"{first},{second}->{between}"})
    last = Case("einsum", {"a": subject(pair), "b": case["c"]}, {"equation": f"{between},{third}->{output}"})
    (result, *_) = subject.results(last, as_is=True)
    equals_own(subject, result, case, "the result, in two steps,")


# -- results and operands ----------------------------------------------------------------------------------------------


test_output_order = law(
    "einsum.output.order",
    laws.equals_reference,
    "Three axes and more, in any order.",
    roles={"outer": (3, 4)},
    operands=(1, 2),
)
test_output_scalar = law(
    "einsum.output.scalar",
    laws.equals_reference,
    "No axes.",
    roles={"contracted": (0, 2), "private": (1, 2)},
    operands=(1, 3),
)


@requirement(
    "einsum.output.size",
    cases,
    roles={"batch": (0, 2), "outer": (0, 2)},
    operands=(1, 3),
    sizes=(1, 2, 3),
    ellipsis="broadcast",
    whatever=True,
)
def test_output_size(subject: Trial, case: Case) -> None:
    """The label's size; of an ellipsis, the one size that is not 1, or 1."""
    actual, shape = subject(case).shape, expected(case).value.shape
    if actual != shape:
        message = f"the result has shape {actual}, expected {shape}"
        raise Mismatch(message, holds=f"result.shape == {shape}")


test_output_empty = law(
    "einsum.output.empty",
    laws.equals_reference,
    "A shape, and nothing in it.",
    roles={"outer": (1, 4), "batch": (0, 1), "private": (0, 1)},
    operands=(1, 4),
    sizes=(0, 0, 2, 5),
    spread=True,
)
test_output_dtype = law("einsum.output.dtype", laws.keeps_dtype, roles=ONCE, operands=(1, 3), sizes=(2, 3))


@composite
def integer_cases(draw, *, dtype: str, lacks: frozenset[str], **choices: Any):
    """Small integers of one dtype."""
    kind = draw(any_of("int32", "int64", "int16", "int8"))
    case = draw(cases(dtype="float32", lacks=lacks, **choices))
    return case.map(lambda a: np.clip(np.rint(a), -1, 1).astype(kind))


@requirement(
    "einsum.output.integer",
    integer_cases,
    roles={"contracted": (0, 1), "private": (0, 1), "outer": (0, 1)},
    operands=(1, 2),
    plain=True,
    per_dtype=False,
)
def test_output_integer(subject: Trial, case: Case) -> None:
    """The operands' dtype, whether something is multiplied, summed, both or neither."""
    result = subject(case)
    subject.expect(result, Expected.exactly(einsum(case["equation"], *case.arrays.values())))
    if result.dtype != case["a"].dtype:
        message = f"the result has dtype {result.dtype}, expected {case['a'].dtype}"
        raise Mismatch(message, holds=f"result.dtype.name == '{case['a'].dtype}'")


test_output_fresh = law(
    "einsum.output.fresh",
    laws.is_fresh,
    roles={"private": (1, 1), "outer": (0, 2), "contracted": (0, 1)},
    operands=(1, 2),
    sizes=(1, 2, 3),
    plain=True,
    whatever=True,
)
test_input_unchanged = law(
    "einsum.input.unchanged", laws.leaves_operands, roles=ONCE, operands=(1, 3), sizes=(2, 3), plain=True
)


@requirement(
    "einsum.input.layout",
    cases,
    roles=ONCE,
    operands=(1, 2),
    sizes=(2, 3),
    effort=4,
    answers_for=lambda check, case: not check.differentiates,
)
def test_input_layout(subject: Trial, case: Case) -> None:
    """Only the elements count; of an array and its own transpose too."""
    laws.ignores_layout(subject, case, expected)
    labels = "ijklmnopqrstuvw"[: case["a"].ndim]
    views = Case("einsum", {"a": case["a"], "b": case["a"].T}, {"equation": f"{labels},{labels[::-1]}->{labels}"})
    if subject.excludes(views):
        return
    (result, *_) = subject.results(views, as_is=True)
    subject.expect(result, expected(views), "of an array and its transpose, the result")


memory = Laws(functools.partial(cases, roles=ONCE, operands=(1, 2), sizes=(2, 3), plain=True), expected)
test_memory_in_bounds = memory("einsum.memory.in-bounds", laws_of_memory.stays_in_bounds)
test_memory_all_written = memory("einsum.memory.all-written", laws_of_memory.writes_everything)
test_memory_alignment = memory("einsum.memory.alignment", laws_of_memory.ignores_alignment)


@composite
def two_calls(draw, *, dtype: str, lacks: frozenset[str]):
    """One equation twice: the second time sizes are larger by one, and an ellipsis has one more axis.

    Where the ellipsis of one operand is shorter than the other's, the new axes meet old ones: they have size 1 then.
    """
    case = draw(cases(dtype=dtype, lacks=lacks, roles=ONCE, operands=(1, 2), sizes=(2, 3), ellipsis="any", plain=True))
    arrays, terms = {}, terms_of(case)[0]
    short = {a.ndim - len(term) for a, term in zip(case.arrays.values(), terms, strict=True) if "..." in term}
    for (name, array), term in zip(case.arrays.items(), terms, strict=True):
        shape = [n + (n > 1) for n in array.shape]
        if "..." in term:
            shape.insert(term.index("..."), 2 if len(short) == 1 else 1)
        arrays[name] = np.resize(array, shape)
    return case, case.but(**arrays)


@composite
def two_equations(draw, *, dtype: str, lacks: frozenset[str]):
    """Two equations on the same operands: the output's labels in another order, or one label fewer."""
    case = draw(cases(dtype=dtype, lacks=lacks, roles=ONCE, operands=(1, 2), sizes=(2, 3), plain=True))
    terms, arrow, output = case["equation"].partition("->")
    other = draw(any_of(output[::-1], output[1:]))
    return case, case.but(equation=f"{terms}{arrow}{other}")


@requirement("einsum.call.stateless", lambda **given: one_of(two_calls(**given), two_equations(**given)))
def test_call_stateless(subject: Trial, case: tuple[Case, Case]) -> None:
    """The same equation with other operands in between, or another equation with the same operands."""
    laws.forgets(subject, case, expected)
    for one in case:
        laws.equals_reference(subject, one, expected)


test_call_neighbours = law(
    "einsum.call.neighbours", laws.ignores_neighbours, cases=cases, roles=ONCE, operands=(1, 2), plain=True
)
test_domain_outside = law(
    "einsum.domain.outside",
    domains.right_or_refused(laws.equals_reference),
    "Another equation, number of operands or size of an axis than the subject declares.",
    cases=domains.outside,
    of=cases,
    needs="domain",
    roles={role: (0, 2) for role in ("contracted", "outer")},
    operands=(1, 4),
    ellipsis="any",
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradients(*, of: Any = cases, **choices: Any) -> Decision[Case]:
    """A case and a cotangent of its result."""
    drawn = with_cotangent(of(**choices), lambda case: einsum(case["equation"], *case.arrays.values()).shape)
    return drawn.map(lambda case: case.map(np.asarray))  # an array without axes, too, is an array


def operands_of(case: Case) -> dict[str, Array]:
    """The arrays but for the cotangent."""
    return {name: array for name, array in case.arrays.items() if name != "cotangent"}


def expected_gradients(case: Case) -> dict[str, Expected]:
    """Of each operand: a sum of products of the cotangent and the other operands."""
    operands = operands_of(case)
    given = (case["cotangent"], case["equation"], *operands.values())
    return {name: gradient_of(*given, by=i) for i, name in enumerate(operands)}


gradient = Laws(gradients, expected_gradients, needs=("vjp",))


def gradients_equal_reference(subject: Trial, case: Case) -> None:
    """The one comparison behind every requirement on the values of gradients: of every operand, together and alone."""
    for name, rule in expected_gradients(case).items():
        laws_of_gradients.equals_reference(subject, case, name, rule)


test_gradient_operand = gradient(
    "einsum.gradient.operand",
    laws_of_gradients.values(),
    "Of two operands, each: matrix products, with a batch and without, and outer products.",
    roles={"contracted": (0, 2), "batch": (0, 2), "outer": (0, 2)},
    sizes=(2, 3, 1, 5),
    effort=0.5,  # many layouts of operands and cotangent
    spread=True,
    narrow=True,
)
test_gradient_three = gradient(
    "einsum.gradient.three",
    laws_of_gradients.values(),
    "Of three operands and of four, each.",
    roles={"contracted": (1, 2), "batch": (0, 1), "outer": (0, 2), "private": (0, 1)},
    operands=(3, 4),
    sizes=(2, 3),
    effort=2,
)
test_gradient_private = gradient(
    "einsum.gradient.private",
    laws_of_gradients.values(),
    "Along a label of its own.",
    roles={"private": (1, 2), "outer": (0, 1), "contracted": (0, 1)},
    operands=(1, 2),
    sizes=(2, 3, 4, 5),
    spread=True,
)


@requirement(
    "einsum.gradient.diagonal",
    gradients,
    needs="vjp",
    roles={"diagonal": (0, 1), "trace": (0, 1), "contracted": (0, 1), "outer": (0, 1)},
    operands=(1, 2),
    sizes=(2, 3),
    effort=2,
)
def test_gradient_diagonal(subject: Trial, case: Case) -> None:
    """Diagonals and traces, however they lie in memory; nothing is written to."""
    gradients_equal_reference(subject, case)
    laws_of_gradients.ignores_layout_of_operands(subject, case, expected_gradients)
    laws_of_gradients.leaves_operands(subject, case)


test_gradient_broadcast = gradient(
    "einsum.gradient.broadcast",
    laws_of_gradients.values(),
    "Sizes of 1 under labels that are kept, and under labels that are summed.",
    roles={"batch": (0, 2), "contracted": (0, 2), "outer": (0, 1)},
    spread=True,
    broadcast=("batch", "contracted"),
    rarely=True,
    operands=(2, 3),
)
test_gradient_ellipsis = gradient(
    "einsum.gradient.ellipsis",
    laws_of_gradients.values(),
    "Kept, broadcast and empty.",
    roles=FEW,
    operands=(1, 2),
    ellipsis="any",
)
test_gradient_implicit = gradient(
    "einsum.gradient.implicit",
    laws_of_gradients.values(),
    "The cotangent's axes are in the order of the alphabet.",
    roles={"contracted": (0, 1), "trace": (0, 1), "outer": (1, 3)},
    operands=(1, 2),
    implicit=True,
    alphabet="abcXYZ",
)
test_gradient_scalar = gradient(
    "einsum.gradient.scalar",
    laws_of_gradients.values(),
    "A result and an operand without axes.",
    roles={"contracted": (0, 2), "private": (0, 1)},
    operands=(1, 2),
    scalars=True,
)


@requirement("einsum.gradient.same", gradients, needs="vjp", of=repeated_operand)
def test_gradient_same(subject: Trial, case: Case) -> None:
    """The same array in every place."""
    x = case["a"].copy()
    same = case.map(lambda _: x).but(cotangent=case["cotangent"])
    found = subject.gradients(same, as_is=True)
    for name, rule in expected_gradients(same).items():
        subject.expect(found[name], rule, f"the gradient of {name}")


test_gradient_empty = gradient(
    "einsum.gradient.empty",
    laws_of_gradients.values(),
    "Labels of size 0, summed and kept, beside others.",
    roles={"contracted": (0, 1), "private": (0, 1), "outer": (0, 4), "batch": (0, 1)},
    operands=(1, 3),
    of=emptied,
    sizes=(0, 0, 2, 5),
    effort=0.5,  # many layouts of operands and cotangent
    spread=True,
)
test_gradient_together = gradient(
    "einsum.gradient.together",
    laws_of_gradients.values(),
    "Every role and the ellipsis at once.",
    roles={**EVERYTHING, "diagonal": (0, 2)},
    operands=(1, 3),
    sizes=(2, 3, 1),
    ellipsis="any",
    spread=True,
)
test_gradient_special = gradient(
    "einsum.gradient.special",
    laws_of_gradients.values(),
    "Where it belongs, and nowhere else.",
    cases=specials,
    of=gradients,
    operand="cotangent",
    roles=TWO_FACTORS,
    operands=(1, 2),
    sizes=(2, 3, 1, 5),
    spread=True,
)
test_gradient_like_operand = gradient(
    "einsum.gradient.like-operand",
    laws_of_gradients.is_like_operand,
    roles=ONCE,
    operands=(1, 3),
    sizes=(1, 2, 3),
    ellipsis="broadcast",
    whatever=True,
)


test_gradient_layout = gradient(
    "einsum.gradient.layout",
    laws_of_gradients.ignores_layout_of_all,
    roles=ONCE,
    operands=(1, 2),
    sizes=(2, 3),
    effort=1,
)


test_gradient_unchanged = gradient(
    "einsum.gradient.unchanged",
    laws_of_gradients.leaves_operands,
    roles=ONCE,
    operands=(1, 3),
    sizes=(2, 3),
    plain=True,
)


# -- refusals ----------------------------------------------------------------------------------------------------------


@composite
def broken(draw, *, dtype: str, lacks: frozenset[str], how: Any, **choices: Any):
    """A legal case with one thing made illegal by `how(draw, case)`."""
    return how(draw, draw(cases(dtype=dtype, lacks=lacks, plain=True, **choices)))


PLAIN: Counts = {"outer": (1, 2), "contracted": (0, 1)}


def _equation(draw: Draw, case: Case) -> Case:
    (first, *rest), output = terms_of(case)
    how = draw(any_of("character", "arrow", "comma", "ellipsis"))
    if how == "character":
        place = draw(integers(0, len(first)))
        first = first[:place] + draw(any_of("1", "_", "*", ".", "é")) + first[place:]
    elif how == "comma":
        place = draw(integers(0, len(output)))
        output = output[:place] + "," + output[place:]
    elif how == "ellipsis":
        first = f"...{first}..."
    return case.but(equation=f"{','.join([first, *rest])}->{output}{'->' if how == 'arrow' else ''}")


refusal = Laws(broken, per_dtype=False)
test_refuses_equation = refusal(
    "einsum.refuses.equation",
    laws.refuses,
    "Characters without a meaning, and too many of those that have one.",
    how=_equation,
    roles=PLAIN,
    operands=(1, 2),
)


def _operands(draw: Draw, case: Case) -> Case:
    count = draw(any_of(*[n for n in range(5) if n != len(case.arrays)]))
    arrays = list(case.arrays.values())
    given = (arrays + [arrays[-1]] * 4)[:count]
    return Case("einsum", dict(zip("abcd", given, strict=False)), case.arguments)


test_refuses_operands = refusal(
    "einsum.refuses.operands",
    laws.refuses,
    "From none to four, but not as many as there are terms.",
    how=_operands,
    roles=PLAIN,
    operands=(1, 3),
)


def _rank(draw: Draw, case: Case) -> Case:
    name, term = draw(any_of(*zip(case.arrays, terms_of(case)[0], strict=True)))
    x, how = case[name], draw(any_of("one more", "last", "one less", "ellipsis"))
    if not term or how in ("one more", "last"):
        return case.but(**{name: x[None] if how == "one more" else x[..., None]})
    if how == "ellipsis":
        terms, output = terms_of(case)
        place = list(case.arrays).index(name)
        terms[place] = f"...{term}"
        return case.but(**{name: x[0]}, equation=f"{','.join(terms)}->...{output}")
    return case.but(**{name: x[0]})


test_refuses_rank = refusal(
    "einsum.refuses.rank",
    laws.refuses,
    "One axis more, and one less; with an ellipsis, one less.",
    how=_rank,
    roles=PLAIN,
    operands=(1, 2),
)


def _sizes(draw: Draw, case: Case) -> Case:
    """Another size of one axis whose label, or whose place in the ellipsis, another operand has too."""
    terms = terms_of(case)[0]
    axes = []
    for name, term in zip(case.arrays, terms, strict=True):
        hidden = case[name].ndim - len(term.replace("...", ""))
        labels = list(re.sub(r"\.\.\.", "." * hidden, term))
        axes += [(name, k) for k, a in enumerate(labels) if sum(a in other for other in terms) > 1]
    name, axis = draw(any_of(*axes))
    size = draw(any_of(case[name].shape[axis] + 1, 0))
    return case.but(**{name: np.take(case[name], np.arange(size) % case[name].shape[axis], axis)})


@composite
def sized(draw, *, dtype: str, lacks: frozenset[str]):
    """A label shared by two or three operands, summed or kept, or an ellipsis shared by two."""
    shared = draw(any_of("contracted", "batch", "ellipsis"))
    if shared == "ellipsis":
        full, tail = draw(lists(integers(2, 3), min_size=1, max_size=2)), draw(any_of("", "i"))
        arrays = {n: np.ones((*full, *[2] * len(tail)), dtype) for n in "ab"}
        return _sizes(draw, Case("einsum", arrays, {"equation": f"...{tail},...{tail}->..."}))
    roles = {shared: (1, 1), "outer": (0, 2)}
    return _sizes(draw, draw(cases(dtype=dtype, lacks=lacks, roles=roles, operands=(2, 3), plain=True)))


test_refuses_sizes = refusal("einsum.refuses.sizes", laws.refuses, "One more, or none at all.", cases=sized)


def _diagonal(draw: Draw, case: Case) -> Case:
    axes = [
        (name, axis)
        for name, term in zip(case.arrays, terms_of(case)[0], strict=True)
        for axis, a in enumerate(term)
        if term.count(a) > 1
    ]
    name, axis = draw(any_of(*axes))
    size = draw(any_of(1, case[name].shape[axis] + 1))
    return case.but(**{name: np.take(case[name], np.arange(size) % case[name].shape[axis], axis)})


@composite
def unequal(draw, *, dtype: str, lacks: frozenset[str]):
    """A repeated label, kept or summed, whose axes differ in size."""
    roles = {draw(any_of("diagonal", "trace")): (1, 1), "outer": (0, 1)}
    return _diagonal(draw, draw(cases(dtype=dtype, lacks=lacks, roles=roles, operands=(1, 2), plain=True)))


def _broadcasts_diagonal(subject: Trial, case: Case) -> None:
    terms, _ = terms_of(case)
    whole = {}
    for term, (name, x) in zip(terms, operands_of(case).items(), strict=True):
        sizes = {label: {n for a, n in zip(term, x.shape, strict=True) if a == label} - {1} for label in term}
        if any(len(found) > 1 for found in sizes.values()):
            return subject.refuses(case)
        whole[name] = np.broadcast_to(x, [max(sizes[label], default=1) for label in term])
    subject.expect(subject(case), expected(case.but(**whole)))
    return None


test_refuses_diagonal = refusal(
    "einsum.refuses.diagonal",
    laws.refuses,
    "One axis longer than the other, or of size 1.",
    cases=unequal,
    alternatives={"broadcast": _broadcasts_diagonal},
)


def _unknown(draw: Draw, case: Case) -> Case:
    (*terms,), output = terms_of(case)
    place, label = draw(integers(0, len(output))), draw(any_of("z", "A"))
    return case.but(equation=f"{','.join(terms)}->{output[:place]}{label}{output[place:]}")


test_refuses_output_unknown = refusal(
    "einsum.refuses.output-unknown", laws.refuses, "A label out of nowhere.", how=_unknown, roles=PLAIN, operands=(1, 2)
)


def _twice(draw: Draw, case: Case) -> Case:
    (*terms,), output = terms_of(case)
    place, label = draw(integers(0, len(output))), draw(any_of(*output))
    return case.but(equation=f"{','.join(terms)}->{output[:place]}{label}{output[place:]}")


test_refuses_output_repeated = refusal(
    "einsum.refuses.output-repeated",
    laws.refuses,
    "A label of the output a second time.",
    how=_twice,
    roles=PLAIN,
    operands=(1, 2),
)


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def _reaches(name: str, corner: Any) -> None:
    """The strategy of a requirement's check draws such a case."""
    reaches(CHECKS[f"einsum.{name}"].drawn(), corner)


def test_reach_diagonals() -> None:
    """A repeated label in front, at the end and apart, thrice, and two of them; and beside a summed label."""
    places = (r"^(\w)\1(?!\1)\w", r"(\w)(?!\1)(\w)\2$", r"(\w)(?!\1)\w\1", r"(\w).*\1.*\1")
    pairs = (r"(\w).*\1.*(?!\1)(\w).*\2", r"(\w).*(?!\1)(\w).*\1.*\2", r"(\w).*(?!\1)(\w).*\2.*\1")
    for pattern in (*places, "|".join(f"(?:{pair})" for pair in pairs)):
        _reaches("diagonal.value", lambda c, p=pattern: any(re.search(p, term) for term in terms_of(c)[0]))

    def double_and_summed(case: Case) -> bool:
        (first, *_), output = terms_of(case)
        pairs = {a for a in first if first.count(a) > 1 and a in output}
        return len(pairs) == 2 and any(first.count(a) == 1 and a not in output for a in first.replace(".", ""))

    _reaches("arguments.together", double_and_summed)


def test_reach_broadcasting() -> None:
    """1 against n and against 0, in both orders of the operands, kept and summed."""
    for sizes in ("1n", "n1", "10", "01"):
        _reaches("broadcast.size-one", lambda c, s=sizes: _meet(c, s, kept=True))
    for sizes in ("1n", "n1"):
        _reaches("broadcast.summed", lambda c, s=sizes: _meet(c, s, kept=False) and terms_of(c)[1])


def _meet(case: Case, sizes: str, kept: bool) -> bool:
    """Whether a label that is kept, or summed, has these sizes in the first two operands; n is any from 2 on."""
    (first, second, *_), output = terms_of(case)
    of = [dict(zip(term, case[name].shape, strict=False)) for term, name in ((first, "a"), (second, "b"))]
    shared = [label for label in of[0].keys() & of[1].keys() if (label in output) == kept]
    return any("".join("n" if own[label] > 1 else str(own[label]) for own in of) == sizes for label in shared)


def test_reach_several_operands() -> None:
    """Three operands of which the outer ones share a label that the middle one lacks; an empty output of three."""

    def around(case: Case) -> bool:
        terms, output = terms_of(case)
        return len(terms) == 3 and bool((set(terms[0]) & set(terms[2])) - set(terms[1]) - set(output))

    _reaches("operands.three", around)
    _reaches("output.empty", lambda c: len(c.arrays) == 3 and 0 in expected(c).value.shape)


def test_reach_ellipses() -> None:
    """No axes in one operand and several in another; an ellipsis in the middle of a term; dropped beside a label."""

    def hidden(case: Case) -> list[int]:
        terms = zip(case.arrays.values(), terms_of(case)[0], strict=True)
        return [array.ndim - len(term.replace(".", "")) for array, term in terms if "..." in term]

    _reaches("ellipsis.broadcast", lambda c: min(hidden(c)) == 0 and max(hidden(c)) > 1)
    _reaches("ellipsis.broadcast", lambda c: re.search(r"\w\.\.\.\w", c["equation"]))
    _reaches("ellipsis.dropped", lambda c: terms_of(c)[1] == "i" and c["a"].ndim > 1)


def test_reach_bounds() -> None:
    """Sums whose result must be exact, and sums whose result may be rounded."""
    for exact in (True, False):
        _reaches(
            "contraction.value",
            lambda c, e=exact: (np.max(expected(c).within()) == 0) == e and "ij" in c["equation"],
        )


def test_reach_gradients() -> None:
    """Gradients that must be exact, and that may be rounded; sums back over a size of 1; sums over a size of 0."""
    for exact in (True, False):
        _reaches("gradient.operand", lambda c, e=exact: all((np.max(r.within()) == 0) == e for r in _rules(c)))
    for kept in (True, False):
        for sizes in ("1n", "n1"):
            _reaches("gradient.broadcast", lambda c, s=sizes, k=kept: _meet(c, s, kept=k))
    _reaches("gradient.empty", lambda c: 0 in c["a"].shape and any(a.size for a in operands_of(c).values()))


def _rules(case: Case) -> list[Expected]:
    return list(expected_gradients(case).values())

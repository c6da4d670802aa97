"""Cases of einsum with an equation, a number of operands and sizes of axes that a domain allows."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.domains import Domain
from nnspec.adapters.equations import DOTS, parts_of, role_of
from nnspec.adapters.signatures import EQUATION
from nnspec.conformance.checks.within import allowed
from nnspec.conformance.drawing import Draw, any_of, dimension
from nnspec.conformance.sizes import ROOM

REPEATED = {"diagonal", "trace"}  # roles whose labels stand more than once in one term

SIZE = "axis_size"  # the quantity
Counts = Mapping[str, tuple[int, int]]
Shapes = list[dict[str, tuple[int, ...]]]  # of each operand: label (or "...") -> the sizes of its axes


class About(NamedTuple):
    """What a check of einsum is about: roles of labels, numbers of operands, and parts of an equation."""

    roles: Counts
    operands: tuple[int, int]
    ellipsis: str
    implicit: bool
    alphabet: str
    scalars: bool
    spaces: bool
    whatever: bool  # nothing matters


def equations(domain: Domain, about: About) -> list[str]:
    """Return the equations of a domain with what a check is about. What else an equation has does not matter.

    Raises OutOfDomain for none.
    """
    roles, ellipsis = ({}, "any") if about.whatever else (about.roles, about.ellipsis)
    operands = about.operands
    found = []
    for equation in map(str, domain.conditions[EQUATION].values or ()):
        terms, output = parts_of(equation)
        labels = dict.fromkeys("".join(terms).replace(DOTS, ""))
        counts = Counter(role_of(label, terms, output) for label in labels)
        fits = all(counts[role] >= min(least, 1) for role, (least, _) in roles.items())
        fits &= operands[0] <= len(terms) and (operands[0] < 3 or len(terms) <= operands[1])
        fits &= ellipsis in ("", "any") or (
            any(DOTS in term for term in terms) and (DOTS in output) == (ellipsis != "dropped")
        )
        fits &= not about.implicit or "->" not in equation
        fits &= not about.scalars or "" in terms
        fits &= not about.spaces or " " in equation
        fits &= about.implicit or not about.alphabet or any(label.swapcase() in labels for label in labels)
        if fits and domain.allows("operands", len(terms)):
            found.append(equation)
    if not found:
        raise OutOfDomain(domain.outside(EQUATION))
    return found


def number_of_operands(draw: Draw, operands: tuple[int, int], scalars: bool) -> int:
    """Return how many operands a case has beside a scalar, if it has one."""
    counts = range(operands[0] + scalars, operands[1] + 1 + scalars)
    return int(draw(any_of(*allowed(draw, "operands", counts)))) - scalars


def sizes_within(draw: Draw, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return these sizes of axes without 0, where the domain excludes it. Raises OutOfDomain if 0 comes first."""
    if 0 not in sizes or draw.domain.allows(SIZE, 0):
        return sizes
    if sizes[0] == 0:  # the check is about empty axes
        raise OutOfDomain(draw.domain.outside(SIZE))
    return tuple(n for n in sizes if n)


def with_room(domain: Domain, drawn: Sequence[str], roles: Counts, sizes: Sequence[int], ellipsis: str) -> list[str]:
    """Return those of the drawn roles of labels that a case has room for, where the domain has no small sizes."""
    if SIZE not in domain.conditions:
        return [*drawn]
    largest, kept = max(domain.numbers(SIZE, sizes), default=2), list(drawn)
    most = int(math.log(ROOM, max(largest, 2))) - bool(ellipsis)
    for role in reversed(drawn):
        if sum(map(axes_of, kept)) > most and kept.count(role) > roles[role][0]:
            kept.remove(role)
    return kept


def axes_of(role: str) -> int:
    """Return how many axes of one operand a label of a role may have, at most."""
    return 3 if role in REPEATED else 1


def tokens_of(equation: str) -> list[list[str]]:
    """Return the labels of each term; an ellipsis is one of them."""
    return [re.findall(r"\.\.\.|[A-Za-z]", term) for term in parts_of(equation)[0]]


def shapes_of(draw: Draw, equation: str, sizes: tuple[int, ...], broadcast: tuple[str, ...], ellipsis: str) -> Shapes:
    """Draw the sizes of the axes that the operands of an equation have.

    `broadcast` names roles whose labels may have size 1 in an operand. An ellipsis has one or two axes, or none.
    """
    terms, output = parts_of(equation)
    labels = dict.fromkeys("".join(terms).replace(DOTS, ""))
    one = dimension(*sizes, most=max(3, int(ROOM ** (1 / max(1, len(labels))))), name=SIZE)
    shapes: Shapes = [{} for _ in terms]
    for label in labels:
        size, owners = draw(one), [n for n, term in enumerate(terms) if label in term]
        small = owners[draw.below(len(owners))] if role_of(label, terms, output) in broadcast else None
        for owner in owners:
            thin = owner == small and len(owners) > 1 and draw.domain.allows(SIZE, 1)
            shapes[owner][label] = (1 if thin else size,)
    hidden = [draw(one) for _ in range(0 if ellipsis == "empty" else 1 + draw.below(2))]
    for shape, term in zip(shapes, terms, strict=True):
        if DOTS in term:
            shape[DOTS] = tuple(hidden)
    return shapes

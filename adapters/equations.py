"""Equations of einsum: which texts are equations, what each label does, and equations that differ in one place."""

from __future__ import annotations

import re
from collections.abc import Iterable

TERM = r"[A-Za-z]*(\.\.\.[A-Za-z]*)?"
WHOLE = re.compile(rf"{TERM}(,{TERM})*(->{TERM})?")
DOTS = "..."
OTHERS = ("ij->ji", "i,i->", "ij,jk->ik", "bij,bjk->bik", "ij->i")  # common ones, outside of most domains


def is_equation(text: object) -> bool:
    """Return whether a value is a text of terms and, perhaps, an output."""
    return isinstance(text, str) and WHOLE.fullmatch(text.replace(" ", "")) is not None


def parts_of(equation: str) -> tuple[list[str], str]:
    """Return the terms, and the output. An implicit output has the labels that stand once, in alphabetical order."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    if not arrow:
        labels = left.replace(DOTS, "").replace(",", "")
        output = DOTS * (DOTS in left) + "".join(sorted(a for a in labels if labels.count(a) == 1))
    return left.split(","), output


def role_of(label: str, terms: Iterable[str], output: str) -> str:
    """Return what a label does in an equation."""
    times = [term.count(label) for term in terms if label in term]
    if len(times) > 1:
        return "batch" if label in output else "contracted"
    if times[0] > 1:
        return "diagonal" if label in output else "trace"
    return "outer" if label in output else "private"


def other_equations(equations: Iterable[object]) -> tuple[str, ...]:
    """Return equations next to these: the output reversed, or with a label fewer, a term reversed; and common ones."""
    found: list[str] = []
    for equation in filter(is_equation, equations):
        terms, output = parts_of(str(equation))
        labels = output.replace(DOTS, "")
        outputs = [output.replace(labels, labels[::-1]), output.replace(labels, labels[:-1])] if labels else []
        found += [f"{','.join(terms)}->{other}" for other in outputs if DOTS not in output or labels in output]
        for n, term in enumerate(terms):
            if DOTS not in term:
                found.append(f"{','.join([*terms[:n], term[::-1], *terms[n + 1 :]])}->{output}")
    return tuple(dict.fromkeys([*found, *OTHERS]))

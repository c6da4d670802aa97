"""Sums of products named by labels. Page: spec/einsum.md"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from math import prod

import numpy as np
from nnspec.reference.arguments import Array, like

Labels = tuple[str, ...]


def einsum(equation: str, *operands: Array) -> Array:
    """One array per comma-separated term of the equation -> one axis per output label, in the operands' dtype.

    Raises ValueError for whatever the page refuses (`einsum.refuses.*`).
    """
    # [einsum.input.unchanged] [einsum.operands.same] operands are only read; [einsum.call.stateless] nothing is kept
    terms, output = parse(equation, [x.ndim for x in operands])
    sizes = _sizes(equation, terms, operands)
    # [einsum.broadcast.size-one] [einsum.broadcast.summed] each label takes its full size in every operand first
    # [einsum.law.operand-order] and from here on the first operand is like any other
    full = [np.broadcast_to(x, [sizes[a] for a in term]) for x, term in zip(operands, terms, strict=True)]
    y, labels = _diagonal(full[0], terms[0])  # [einsum.arguments.together] labels tell what has become of each axis
    for i in range(1, len(full)):  # [einsum.operands.three] a label is summed once nothing ahead asks for it
        y, labels = _multiply(y, labels, *_diagonal(full[i], terms[i]), {*output}.union(*terms[i + 1 :]))
    y, labels = _sum(y, labels, output)  # [einsum.private.summed] [einsum.diagonal.summed] [einsum.output.scalar]
    # [einsum.output.order] [einsum.output.size] [einsum.output.fresh] a copy, since y may still be a view;
    # [einsum.law.composition] in C order, like an operand that someone wrote down
    return np.array(y.transpose([labels.index(a) for a in output]), order="C")


def einsum_vjp(cotangent: Array, equation: str, *operands: Array) -> tuple[Array, ...]:
    """Cotangent of the result -> one gradient per operand, each like its operand.

    Raises ValueError as `einsum` does, and for a cotangent of another shape.
    """
    # [einsum.gradient.unchanged] operands and cotangent are only read, [einsum.gradient.layout] by NumPy's own rules
    # [einsum.gradient.ellipsis] [einsum.gradient.implicit] what the equation leaves out has labels from here on
    terms, output = parse(equation, [x.ndim for x in operands])
    sizes = _sizes(equation, terms, operands)
    like("cotangent", cotangent, tuple(sizes[a] for a in output))  # [einsum.gradient.scalar] () where there are none
    full = [np.broadcast_to(x, [sizes[a] for a in term]) for x, term in zip(operands, terms, strict=True)]
    gradients = []
    for i, (x, own) in enumerate(zip(operands, terms, strict=True)):  # [einsum.gradient.same] place by place
        # [einsum.gradient.operand] an einsum of the cotangent and the other operands, [einsum.gradient.three] all of
        # them, with the labels of this one as its output
        y, labels = cotangent, output
        for j, other in enumerate(full):
            if j != i:
                later = {a for k in range(j + 1, len(full)) if k != i for a in terms[k]}
                y, labels = _multiply(y, labels, *_diagonal(other, terms[j]), {*own} | later)
        y, labels = _sum(y, labels, own)  # [einsum.gradient.empty] a sum of nothing is 0 here as well
        gradients.append(_spread(y, labels, own, sizes, x))
    return tuple(gradients)


def _spread(y: Array, labels: Labels, own: Labels, sizes: dict[str, int], x: Array) -> Array:
    """y, whose labels are some of x's, brought to x's axes: the adjoint of broadcasting and of taking diagonals."""
    distinct = tuple(dict.fromkeys(own))  # [einsum.gradient.together] one step for each thing that may befall a label
    # [einsum.gradient.private] a label that x alone has was summed: every element along it gets the same
    y = y.transpose([labels.index(a) for a in distinct if a in labels])
    y = y.reshape([sizes[a] if a in labels else 1 for a in distinct])
    y = np.broadcast_to(y, [sizes[a] for a in distinct])
    # [einsum.gradient.broadcast] an axis of size 1 was used for all of its label's elements: it gets the sum of theirs
    repeated = tuple(k for k, a in enumerate(distinct) if x.shape[own.index(a)] == 1 and sizes[a] != 1)
    y = y.sum(repeated, dtype=y.dtype, keepdims=True)
    # [einsum.gradient.diagonal] of axes that share a label only the diagonal was used: all else gets 0
    dx = np.zeros(x.shape, y.dtype)  # [einsum.gradient.like-operand]
    view, left = _diagonal(dx, own)
    view.flags.writeable = True
    view[...] = y.transpose([distinct.index(a) for a in left])
    return dx


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """The labels of each operand's axes and those of the output's, for operands of these ranks.

    An ellipsis becomes the labels …, ".2", ".1", counted from its right end: whatever holds for labels, broadcasting
    included, then holds for it. Raises ValueError for a malformed equation, and for one that does not fit the ranks.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")  # [einsum.equation.spaces]
    for term in (*left.split(","), right):  # [einsum.refuses.equation] [einsum.operands.scalar] nothing is a term too
        if not re.fullmatch(r"[A-Za-z]*(\.\.\.[A-Za-z]*)?", term):
            raise ValueError(f"equation={equation!r}: expected letters and at most one '...', not {term!r}")
    if left.count(",") + 1 != len(ranks):  # [einsum.refuses.operands]
        raise ValueError(f"equation={equation!r}: expected {left.count(',') + 1} operands, not {len(ranks)}")
    terms = [_expand(term, rank) for term, rank in zip(left.split(","), ranks, strict=True)]
    seen = Counter(a for labels in terms for a in labels)  # [einsum.labels.case] "i" is not "I"
    hidden = sum(a.startswith(".") for a in seen)
    if arrow:  # [einsum.ellipsis.dropped] ellipsis labels that the output lacks are summed like any other
        output = _expand(right, len(right.replace("...", "")) + hidden * ("..." in right))
    else:  # [einsum.implicit.order] [einsum.implicit.ellipsis] [einsum.implicit.summed]
        output = _ellipsis(hidden) + tuple(sorted(a for a, n in seen.items() if n == 1 and a.isalpha()))
    for a in output:
        if a not in seen:  # [einsum.refuses.output-unknown]
            raise ValueError(f"equation={equation!r}: expected output labels that an operand has, not {a!r}")
        if output.count(a) > 1:  # [einsum.refuses.output-repeated]
            raise ValueError(f"equation={equation!r}: expected each output label once, not {a!r} twice")
    return terms, output


def _expand(term: str, rank: int) -> Labels:
    before, dots, after = term.partition("...")
    hidden = rank - len(before + after)  # [einsum.ellipsis.empty] may be 0
    if hidden < 0 or (hidden and not dots):  # [einsum.refuses.rank]
        raise ValueError(f"operand of {rank} dimensions: expected as many as labels in {term!r}")
    return (*before, *_ellipsis(hidden), *after)  # [einsum.ellipsis.kept]


def _ellipsis(rank: int) -> Labels:
    return tuple(f".{k}" for k in range(rank, 0, -1))  # [einsum.ellipsis.broadcast] aligned at the right


def _sizes(equation: str, terms: list[Labels], operands: Sequence[Array]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for term, x in zip(terms, operands, strict=True):
        own: dict[str, int] = {}
        for a, size in zip(term, x.shape, strict=True):
            if own.setdefault(a, size) != size:  # [einsum.refuses.diagonal]
                raise ValueError(f"operand of shape {x.shape} in {equation!r}: expected one size for both axes {a!r}")
            if sizes.get(a, 1) == 1:
                sizes[a] = size
            if size not in (1, sizes[a]):  # [einsum.refuses.sizes]
                raise ValueError(f"operand of shape {x.shape} in {equation!r}: expected {a!r} of size {sizes[a]} or 1")
    return sizes


def _diagonal(x: Array, labels: Labels) -> tuple[Array, Labels]:
    for a in dict.fromkeys(labels):
        while labels.count(a) > 1:  # [einsum.diagonal.value] the diagonal of two axes becomes one axis, the last
            i = labels.index(a)
            j = labels.index(a, i + 1)
            x, labels = np.diagonal(x, axis1=i, axis2=j), labels[:i] + labels[i + 1 : j] + labels[j + 1 :] + (a,)
    return x, labels


def _sum(x: Array, labels: Labels, keep: Collection[str]) -> tuple[Array, Labels]:
    axes = tuple(i for i, a in enumerate(labels) if a not in keep)
    if not axes:
        return x, labels
    # [einsum.output.dtype] [einsum.output.integer] NumPy alone would widen small integers;
    # [einsum.contraction.empty] no terms add up to 0
    return x.sum(axes, dtype=x.dtype), tuple(a for a in labels if a in keep)


def _multiply(x: Array, xs: Labels, y: Array, ys: Labels, keep: set[str]) -> tuple[Array, Labels]:
    """The product of x and y, summed over each label that is not to be kept: a batch of matrix products."""
    x, xs = _sum(x, xs, keep.union(ys))
    y, ys = _sum(y, ys, keep.union(xs))
    batch = tuple(a for a in xs if a in ys and a in keep)  # [einsum.batch.paired]
    inner = tuple(a for a in xs if a in ys and a not in keep)  # [einsum.contraction.value]
    rows, columns = tuple(a for a in xs if a not in ys), tuple(a for a in ys if a not in xs)  # [einsum.outer.value]
    left, right = _matrices(x, xs, batch, rows, inner), _matrices(y, ys, batch, inner, columns)
    # [einsum.special.value] [einsum.gradient.special] [einsum.range.ends] products of these two, and nothing beside
    z = left @ right if inner else left * right  # [einsum.complex.value]
    size = dict(zip(xs + ys, x.shape + y.shape, strict=True))
    labels = batch + rows + columns
    return z.reshape([size[a] for a in labels]), labels


def _matrices(x: Array, labels: Labels, *groups: Labels) -> Array:
    """x with its axes in the order of the groups, each group flattened into one axis."""
    x = x.transpose([labels.index(a) for group in groups for a in group])  # [einsum.input.layout]
    size = iter(x.shape)  # [einsum.output.empty] −1 could not be told where another size is 0
    return x.reshape([prod(next(size) for _ in group) for group in groups])

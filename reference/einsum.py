"""Sums of products named by labels. Page: spec/einsum.md"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from functools import reduce
from math import prod

import numpy as np
from nnspec.reference.arguments import Array, like

Labels = tuple[str, ...]


def definition(equation: str, *operands: Array) -> Array:
    """Return the sum of products that the equation names, as `einsum` does: the formula, in a short and slow form.

    It multiplies the operands over every combination of all labels at once, and then sums.
    """
    terms, output = parse(equation, [x.ndim for x in operands])
    sizes = _sizes(equation, terms, operands)
    labels = [*output, *(a for a in sizes if a not in output)]
    # index["j"] is 0, 1, … along the axis that j has among all labels, and of size 1 along the other axes.
    index = dict(zip(labels, np.indices([sizes[a] for a in labels], sparse=True), strict=True))
    full = [np.broadcast_to(x, [sizes[a] for a in term]) for x, term in zip(operands, terms, strict=True)]
    factors = [x[tuple(index[a] for a in term)] for x, term in zip(full, terms, strict=True)]
    product = reduce(np.multiply, factors)
    return np.asarray(product.sum(tuple(range(len(output), len(labels))), dtype=product.dtype))


def einsum(equation: str, *operands: Array) -> Array:
    """Return the sum of products of the operands that the equation names.

    Each operand has one axis for each label of its term, the result one for each output label, and the operands' dtype.
    Raises ValueError for an equation or operands that the page refuses (`einsum.refuses.*`).

    The operands are multiplied from left to right, two at a time, as matrices. A label is summed as soon as neither
    the output nor a later term has it.

    By construction: einsum.arguments.together, einsum.operands.same, einsum.broadcast.summed, einsum.diagonal.summed,
    einsum.output.scalar, einsum.output.empty, einsum.law.operand-order, einsum.law.composition, einsum.special.value,
    einsum.range.ends, einsum.complex.value, einsum.input.unchanged, einsum.input.layout, einsum.memory.in-bounds,
    einsum.memory.all-written, einsum.memory.alignment, einsum.call.stateless, einsum.call.neighbours,
    einsum.operands.three, einsum.output.size, einsum.domain.outside.
    """
    terms, output = parse(equation, [x.ndim for x in operands])
    sizes = _sizes(equation, terms, operands)
    # Axes of size 1 take the full size of their labels: [einsum.broadcast.size-one]
    full = [np.broadcast_to(x, [sizes[a] for a in term]) for x, term in zip(operands, terms, strict=True)]
    y, labels = _diagonal(full[0], terms[0])
    for i in range(1, len(full)):
        # In "ij,jk,kl->il", the first product keeps i and k, and sums over j.
        needed = {*output}.union(*terms[i + 1 :])
        y, labels = _multiply(y, labels, *_diagonal(full[i], terms[i]), needed)
    y, labels = _sum(y, labels, output)  # [einsum.private.summed]
    y = y.transpose([labels.index(a) for a in output])  # [einsum.output.order]
    return np.array(y, order="C")  # a copy, because y may still be a view of an operand: [einsum.output.fresh]


def einsum_vjp(cotangent: Array, equation: str, *operands: Array) -> tuple[Array, ...]:
    """Return one gradient for each operand, like the operand.

    The cotangent has the shape of the result. Raises ValueError as `einsum` does, and for a cotangent of another shape.

    The gradient of an operand is an einsum of the cotangent and all other operands, with the operand's labels as its
    output.

    By construction: einsum.gradient.three, einsum.gradient.same, einsum.gradient.together, einsum.gradient.ellipsis,
    einsum.gradient.implicit, einsum.gradient.scalar, einsum.gradient.empty, einsum.gradient.special,
    einsum.gradient.unchanged, einsum.gradient.layout.
    """
    terms, output = parse(equation, [x.ndim for x in operands])
    sizes = _sizes(equation, terms, operands)
    like("cotangent", cotangent, tuple(sizes[a] for a in output))
    full = [np.broadcast_to(x, [sizes[a] for a in term]) for x, term in zip(operands, terms, strict=True)]
    gradients = []
    for i, (x, own) in enumerate(zip(operands, terms, strict=True)):
        y, labels = cotangent, output
        for j, other in enumerate(full):
            if j != i:
                later = {a for k in range(j + 1, len(full)) if k != i for a in terms[k]}
                # [einsum.gradient.operand]
                y, labels = _multiply(y, labels, *_diagonal(other, terms[j]), {*own} | later)
        y, labels = _sum(y, labels, own)
        gradients.append(_spread(y, labels, own, sizes, x))
    return tuple(gradients)


def _spread(y: Array, labels: Labels, own: Labels, sizes: dict[str, int], x: Array) -> Array:
    """Return the gradient of x, whose axes have the labels `own`, from y, whose labels are some of them.

    This is the adjoint of broadcasting x and of taking its diagonals.

    By construction: einsum.gradient.like-operand.
    """
    distinct = tuple(dict.fromkeys(own))
    # A label that only x has was summed, so all elements along it have the same gradient: [einsum.gradient.private]
    y = y.transpose([labels.index(a) for a in distinct if a in labels])
    y = y.reshape([sizes[a] if a in labels else 1 for a in distinct])
    y = np.broadcast_to(y, [sizes[a] for a in distinct])
    # An axis of size 1 was used for all elements of its label, so it gets their sum: [einsum.gradient.broadcast]
    repeated = tuple(k for k, a in enumerate(distinct) if x.shape[own.index(a)] == 1 and sizes[a] != 1)
    y = y.sum(repeated, dtype=y.dtype, keepdims=True)
    # Of axes that share a label only the diagonal was used, so all other elements get 0: [einsum.gradient.diagonal]
    dx = np.zeros(x.shape, y.dtype)
    view, left = _diagonal(dx, own)
    view.flags.writeable = True  # NumPy makes views of diagonals read-only; this one writes into dx
    view[...] = y.transpose([distinct.index(a) for a in left])
    return dx


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """Return the labels of the axes of each operand, and the labels of the output, for operands of these ranks.

    An ellipsis becomes the labels …, ".2", ".1", counted from its right end, so that all code below treats its axes
    like named ones. Raises ValueError for a malformed equation, and for an equation that does not fit the ranks.

    By construction: einsum.labels.case, einsum.operands.scalar, einsum.implicit.ellipsis, einsum.implicit.summed.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")  # [einsum.equation.spaces]
    for term in (*left.split(","), right):
        # The empty string is a term, for a scalar: [einsum.refuses.equation]
        if not re.fullmatch(r"[A-Za-z]*(\.\.\.[A-Za-z]*)?", term):
            raise ValueError(f"equation={equation!r}: expected letters and at most one '...', not {term!r}")
    if left.count(",") + 1 != len(ranks):  # [einsum.refuses.operands]
        raise ValueError(f"equation={equation!r}: expected {left.count(',') + 1} operands, not {len(ranks)}")
    terms = [_expand(term, rank) for term, rank in zip(left.split(","), ranks, strict=True)]
    seen = Counter(a for labels in terms for a in labels)
    hidden = sum(a.startswith(".") for a in seen)
    if arrow:
        # Without "..." the output lacks the labels of ellipses, which are summed like others: [einsum.ellipsis.dropped]
        output = _expand(right, len(right.replace("...", "")) + hidden * ("..." in right))
    else:  # [einsum.implicit.order]
        output = _ellipsis(hidden) + tuple(sorted(a for a, n in seen.items() if n == 1 and a.isalpha()))
    for a in output:
        if a not in seen:  # [einsum.refuses.output-unknown]
            raise ValueError(f"equation={equation!r}: expected output labels that an operand has, not {a!r}")
        if output.count(a) > 1:  # [einsum.refuses.output-repeated]
            raise ValueError(f"equation={equation!r}: expected each output label once, not {a!r} twice")
    return terms, output


def _expand(term: str, rank: int) -> Labels:
    """Return the labels of a term whose operand has this rank, with those of an ellipsis.

    By construction: einsum.ellipsis.kept.
    """
    before, dots, after = term.partition("...")
    hidden = rank - len(before + after)  # 0 for an ellipsis without axes: [einsum.ellipsis.empty]
    if hidden < 0 or (hidden and not dots):  # [einsum.refuses.rank]
        raise ValueError(f"operand of {rank} dimensions: expected as many as labels in {term!r}")
    return (*before, *_ellipsis(hidden), *after)


def _ellipsis(rank: int) -> Labels:
    """Return labels for the axes of an ellipsis. The last is always ".1": [einsum.ellipsis.broadcast]"""
    return tuple(f".{k}" for k in range(rank, 0, -1))


def _sizes(equation: str, terms: list[Labels], operands: Sequence[Array]) -> dict[str, int]:
    """Return the size of each label. Raises ValueError if two axes disagree and neither has size 1."""
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
    """Return a view of x in which each label has one axis, and the labels of its axes."""
    for a in dict.fromkeys(labels):
        while labels.count(a) > 1:
            i = labels.index(a)
            j = labels.index(a, i + 1)
            # NumPy removes both axes and appends one for their diagonal: [einsum.diagonal.value]
            x, labels = np.diagonal(x, axis1=i, axis2=j), labels[:i] + labels[i + 1 : j] + labels[j + 1 :] + (a,)
    return x, labels


def _sum(x: Array, labels: Labels, keep: Collection[str]) -> tuple[Array, Labels]:
    """Return x summed over all labels that are not among `keep`, and the labels of the remaining axes.

    By construction: einsum.output.dtype, einsum.contraction.empty.
    """
    axes = tuple(i for i, a in enumerate(labels) if a not in keep)
    if not axes:
        return x, labels
    # With its own dtype, because NumPy would widen small integers; a sum without terms is 0:
    # [einsum.output.integer]
    return x.sum(axes, dtype=x.dtype), tuple(a for a in labels if a in keep)


def _multiply(x: Array, xs: Labels, y: Array, ys: Labels, keep: set[str]) -> tuple[Array, Labels]:
    """Return the product of x and y, summed over the labels that are not among `keep`, and the labels of its axes.

    The labels fall into four groups: both operands have *batch* (kept) and *inner* (summed), only x has *rows*, and
    only y has *columns*. Then the product is a matrix product, rows × inner times inner × columns, for each
    combination of batch labels.
    """
    x, xs = _sum(x, xs, keep.union(ys))
    y, ys = _sum(y, ys, keep.union(xs))
    # For "bij,bjk->bik" the groups are b, j, i and k.
    batch = tuple(a for a in xs if a in ys and a in keep)  # [einsum.batch.paired]
    inner = tuple(a for a in xs if a in ys and a not in keep)  # [einsum.contraction.value]
    rows = tuple(a for a in xs if a not in ys)  # [einsum.outer.value]
    columns = tuple(a for a in ys if a not in xs)
    left, right = _matrices(x, xs, batch, rows, inner), _matrices(y, ys, batch, inner, columns)
    z = left @ right if inner else left * right  # without inner labels (batch, rows, 1) * (batch, 1, columns)
    size = dict(zip(xs + ys, x.shape + y.shape, strict=True))
    labels = batch + rows + columns
    return z.reshape([size[a] for a in labels]), labels


def _matrices(x: Array, labels: Labels, *groups: Labels) -> Array:
    """Return x with its axes in the order of the groups, and each group flattened into one axis."""
    x = x.transpose([labels.index(a) for group in groups for a in group])
    size = iter(x.shape)  # reshape cannot infer a −1 if another size is 0
    return x.reshape([prod(next(size) for _ in group) for group in groups])

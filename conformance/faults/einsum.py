"""Wrong sums of products.

Most are given the labels of each operand's axes, those of the output's (an ellipsis as labels of its own, as the
reference's `parse` has them) and the operands; the others are given the equation itself.
"""

import re
from collections import Counter
from string import ascii_letters

import numpy as np
from nnspec.conformance.faults import (
    disturbed_by_relu,
    fault,
    mistakes_in_memory,
)
from nnspec.reference.einsum import _diagonal, parse
from nnspec.reference.einsum import einsum as right
from nnspec.reference.einsum import einsum_vjp as right_vjp


def _of_equation(key, mistake):
    """The fault calls as `einsum` does."""

    def add(function):
        def einsum(equation, *operands):
            return function(equation, *operands)

        fault(key, mistake, einsum=einsum)
        return function

    return add


def _wrong(key, mistake):
    """The fault is called as function(terms, output, operands)."""

    def add(function):
        def einsum(equation, *operands):
            return function(*parse(equation, [x.ndim for x in operands]), list(operands))

        fault(key, mistake, einsum=einsum)
        return function

    return add


def _equation(terms, output):
    letter = dict(zip(dict.fromkeys(a for labels in (*terms, output) for a in labels), ascii_letters, strict=False))
    left = ",".join("".join(letter[a] for a in labels) for labels in terms)
    return f"{left}->{''.join(letter[a] for a in output)}"


def _right(terms, output, operands):
    return right(_equation(terms, output), *operands)


def _owners(terms, a):
    return [i for i, labels in enumerate(terms) if a in labels]


def _summed(terms, output, operands=2):
    """Labels that so many operands share and that the output lacks."""
    return [a for a in dict.fromkeys(sum(terms, ())) if a not in output and len(_owners(terms, a)) >= operands]


def _private(terms, output):
    return [a for a in dict.fromkeys(sum(terms, ())) if a not in output and len(_owners(terms, a)) == 1]


def _cut(terms, operands, a, part, only=None):
    """The operands with all axes of a label cut to a part."""
    cut = list(operands)
    for i, labels in enumerate(terms):
        if only is None or i in only:
            cut[i] = cut[i][tuple(part if b == a else slice(None) for b in labels)]
    return cut


def _sizes(terms, operands, a):
    """The sizes of a label in the operands that have it."""
    return [x.shape[labels.index(a)] for labels, x in zip(terms, operands, strict=True) if a in labels]


# -- labels ------------------------------------------------------------------------------------------------------------


@_wrong("einsum.contraction.value/last-element", "the last element of a sum is missed")
def _last_element(terms, output, operands):
    for a in _summed(terms, output):
        operands = _cut(terms, operands, a, slice(-1) if max(_sizes(terms, operands, a)) > 1 else slice(None))
    return _right(terms, output, operands)


@_wrong("einsum.contraction.value/transposed", "a square second operand is transposed")
def _transposed(terms, output, operands):
    square = len(operands) > 1 and operands[1].ndim == 2 and len(set(operands[1].shape)) == 1
    return _right(terms, output, [x.T if i == 1 and square else x for i, x in enumerate(operands)])


_wrong("einsum.contraction.value/half-precision", "operands are rounded to float16 on the way")(
    lambda terms, output, operands: _right(terms, output, [x.astype(np.float16).astype(x.dtype) for x in operands])
)


@_wrong("einsum.private.summed/first", "of a label that one operand alone has, the first element is taken")
def _first(terms, output, operands):
    for a in _private(terms, output):
        operands = _cut(terms, operands, a, slice(1))
    return _right(terms, output, operands)


@_wrong("einsum.private.summed/mean", "a label that one operand alone has is averaged")
def _mean(terms, output, operands):
    sizes = [_sizes(terms, operands, a)[0] for a in _private(terms, output)]
    return _right(terms, output, operands) / operands[0].dtype.type(max(1, np.prod(sizes)))


@_wrong(
    "einsum.private.summed/refused", "a label that one of several operands alone has, and the output lacks, is refused"
)
def _private_refused(terms, output, operands):
    if len(operands) > 1 and _private(terms, output):
        raise ValueError("the permutation has fewer axes than the operand")
    return _right(terms, output, operands)


@_wrong(
    "einsum.private.summed/last-alone",
    "of several labels that a later operand alone has the last is summed, and of the others the first element taken",
)
def _last_private(terms, output, operands):
    for i in range(1, len(terms)):
        for a in [a for a in terms[i] if a in _private(terms, output)][:-1]:
            operands = _cut(terms, operands, a, slice(1))
    return _right(terms, output, operands)


@_wrong("einsum.batch.paired/front-only", "of the second operand the first axis is the batch, where its size allows it")
def _front_only(terms, output, operands):
    for a in [a for a in output if len(_owners(terms, a)) > 1 and 1 in _owners(terms, a)]:
        place, shape = terms[1].index(a), operands[1].shape
        if shape[0] == shape[place]:
            operands[1] = operands[1].swapaxes(0, place)
    return _right(terms, output, operands)


@_wrong("einsum.batch.paired/summed", "the last operand is summed over the batch before it is multiplied")
def _batch_summed(terms, output, operands):
    for a in [a for a in output if len(_owners(terms, a)) > 1]:
        last = _owners(terms, a)[-1]
        axis = terms[last].index(a)
        operands[last] = np.repeat(operands[last].sum(axis, keepdims=True), operands[last].shape[axis], axis)
    return _right(terms, output, operands)


@_wrong("einsum.outer.value/by-position", "operands of the same shape are multiplied element by element")
def _by_position(terms, output, operands):
    y = _right(terms, output, operands)
    if len(operands) < 2 or operands[0].shape != operands[1].shape or set(terms[0]) & set(terms[1]) or not terms[0]:
        return y
    return np.resize(operands[0] * operands[1], y.shape)


@_wrong("einsum.outer.value/exchanged", "in a square product of two vectors the operands are exchanged")
def _exchanged(terms, output, operands):
    y = _right(terms, output, operands)
    return y.T if y.ndim == 2 and y.shape[0] == y.shape[1] and len(operands) == 2 else y


def _axis_last(terms, output, operands):
    """Each operand's diagonal, its axis last, under labels that stand where the first of the repeated ones stood."""
    diagonals = [_diagonal(x, labels)[0] for labels, x in zip(terms, operands, strict=True)]
    return _right([tuple(dict.fromkeys(labels)) for labels in terms], output, diagonals)


_wrong("einsum.diagonal.value/axis-last", "the diagonal's axis ends up last, and is looked for in its old place")(
    _axis_last
)


@_wrong("einsum.diagonal.value/one-pair", "of the second label that a term repeats, the first row is taken")
def _one_pair(terms, output, operands):
    for i, labels in enumerate(terms):
        for a in [a for a in dict.fromkeys(labels) if labels.count(a) > 1][1:]:
            axis = labels.index(a)
            operands[i] = np.take(operands[i], [0] * operands[i].shape[axis], axis)
    return _right(terms, output, operands)


@_wrong(
    "einsum.diagonal.value/two-axes", "a label that a term has three times meets itself on the first two axes alone"
)
def _two_axes(terms, output, operands):
    told = [
        tuple(f"{a}'" if a in labels[:k] and labels[:k].count(a) == 2 else a for k, a in enumerate(labels))
        for labels in terms
    ]
    return _right(told, output, operands)


def _apart(terms, output, kept):
    """Repeated labels told apart: of those that are (not) kept, all but the last get a name of their own."""
    fresh = iter("αβγδεζηθ")
    return [
        tuple(next(fresh) if a in labels[i + 1 :] and (a in output) == kept else a for i, a in enumerate(labels))
        for labels in terms
    ]


_wrong("einsum.diagonal.summed/whole", "the whole matrix is summed in place of its diagonal")(
    lambda terms, output, operands: _right(_apart(terms, output, False), output, operands)
)
_wrong("einsum.diagonal.value/whole", "a repeated label is summed over but for its last axis")(
    lambda terms, output, operands: _right(_apart(terms, output, True), output, operands)
)


def _first_decides(terms, output, operands):
    """Every label has the size that the first of its operands has."""
    for a in dict.fromkeys(sum(terms, ())):
        size = _sizes(terms, operands, a)[0]
        operands = _cut(terms, operands, a, slice(size))
    return _right(terms, output, operands)


_wrong("einsum.broadcast.size-one/left-to-right", "what the first operand has one of, the others are cut to one of")(
    _first_decides
)


@_wrong("einsum.broadcast.size-one/maximum", "of the sizes 1 and 0 the larger is taken")
def _maximum(terms, output, operands):
    y = _right(terms, output, operands)
    return np.zeros([max(_sizes(terms, operands, a)) for a in output], y.dtype) if not y.size else y


@_wrong("einsum.broadcast.size-one/last-missed", "the last element is not multiplied by what is broadcast")
def _last_missed(terms, output, operands):
    y = _right(terms, output, operands)
    for axis, a in enumerate(output):
        if {1} < {*_sizes(terms, operands, a)} and y.size:
            y[(slice(None),) * axis + (-1,)] = 0
    return y


def _first_element(terms, output, operands, applies=lambda x: True):
    """Sums in which an operand has a size of 1 have one element."""
    for a in _summed(terms, output):
        sizes = _sizes(terms, operands, a)
        owner = _owners(terms, a)[int(np.argmin(sizes))]
        if 1 in sizes and applies(operands[owner]):
            operands = _cut(terms, operands, a, slice(1))
    return _right(terms, output, operands)


_wrong("einsum.broadcast.summed/first-element", "of a sum against a size of 1 only the first element is counted")(
    _first_element
)
_wrong("einsum.broadcast.summed/value-one", "a size of 1 is recognised by a value of 1 in the operand")(
    lambda terms, output, operands: _first_element(terms, output, operands, lambda x: not (x == 1).any())
)

# -- the ellipsis ------------------------------------------------------------------------------------------------------


def _hidden(labels):
    return tuple(a for a in labels if a.startswith("."))


def _named(labels):
    return tuple(a for a in labels if not a.startswith("."))


_wrong("einsum.ellipsis.kept/in-front", "the ellipsis always comes first in the output")(
    lambda terms, output, operands: _right(terms, _hidden(output) + _named(output), operands)
)


@_wrong("einsum.ellipsis.kept/reversed", "the axes of the ellipsis come out reversed")
def _reversed(terms, output, operands):
    turned = iter(_hidden(output)[::-1])
    return _right(terms, tuple(next(turned) if a in _hidden(output) else a for a in output), operands)


@_wrong("einsum.ellipsis.kept/term-in-front", "in a term the ellipsis is looked for in front")
def _term_in_front(terms, output, operands):
    return _right([_hidden(labels) + _named(labels) for labels in terms], output, operands)


@_wrong("einsum.ellipsis.broadcast/left-aligned", "shorter ellipses are aligned at the left")
def _left_aligned(terms, output, operands):
    most = max(len(_hidden(labels)) for labels in terms)
    for i, labels in enumerate(terms):
        missing = most - len(_hidden(labels)) if _hidden(labels) else 0
        terms[i] = tuple(f".{int(a[1:]) + missing}" if a in _hidden(labels) else a for a in labels)
    return _right(terms, output, operands)


@_wrong("einsum.ellipsis.broadcast/equal-ranks", "ellipses of unequal ranks are refused")
def _equal_ranks(terms, output, operands):
    if len({len(_hidden(labels)) for labels in terms if _hidden(labels)}) > 1:
        raise ValueError("ellipses of unequal ranks")
    return _right(terms, output, operands)


@_wrong("einsum.ellipsis.dropped/refused", "an ellipsis that the output lacks is refused")
def _not_dropped(terms, output, operands):
    if any(_hidden(labels) for labels in terms) and not _hidden(output):
        raise ValueError("the output lacks the ellipsis")
    return _right(terms, output, operands)


@_wrong("einsum.ellipsis.dropped/each-alone", "every operand's ellipsis is summed before they are multiplied")
def _each_alone(terms, output, operands):
    if _hidden(output):
        return _right(terms, output, operands)
    alone = [_right([labels], _named(dict.fromkeys(labels)), [x]) for labels, x in zip(terms, operands, strict=True)]
    return _right([_named(dict.fromkeys(labels)) for labels in terms], output, alone)


@_wrong("einsum.ellipsis.dropped/first", "of an ellipsis that the output lacks, the first element is taken")
def _ellipsis_first(terms, output, operands):
    for a in {a for labels in terms for a in _hidden(labels)} - {*output}:
        operands = _cut(terms, operands, a, slice(1))
    return _right(terms, output, operands)


@_of_equation("einsum.ellipsis.kept/refused", "there is no ellipsis")
def _no_ellipsis(equation, *operands):
    if "..." in equation:
        raise ValueError(f"{equation}: expected letters")
    return right(equation, *operands)


@_of_equation("einsum.ellipsis.empty/everything", "an ellipsis of no axes is cut by [:-0], which leaves nothing")
def _everything(equation, *operands):
    y = right(equation, *operands)
    terms, _ = parse(equation, [x.ndim for x in operands])
    return y * 0 if "..." in equation and not any(_hidden(labels) for labels in terms) else y


@_of_equation("einsum.ellipsis.empty/refused", "an ellipsis stands for one axis at least")
def _at_least_one(equation, *operands):
    for term, x in zip(equation.partition("->")[0].split(","), operands, strict=True):
        if "..." in term and x.ndim == len(term) - 3:
            raise ValueError("nothing left for the ellipsis")
    return right(equation, *operands)


# -- the implicit output -----------------------------------------------------------------------------------------------


def _implied(key, mistake, output):
    """Without an arrow, the output is output(letters, how often each occurs, "..." or nothing)."""

    @_of_equation(key, mistake)
    def _(equation, *operands):
        if "->" in equation:
            return right(equation, *operands)
        letters = [a for a in equation if a.isalpha()]
        return right(f"{equation}->{output(letters, Counter(letters), '...' if '...' in equation else '')}", *operands)


def _once(letters, counts):
    return "".join(a for a in dict.fromkeys(letters) if counts[a] == 1)


_implied(
    "einsum.implicit.order/first-occurrence",
    "the output is in the order of first occurrence",
    lambda letters, counts, dots: dots + _once(letters, counts),
)
_implied(
    "einsum.implicit.order/ignoring-case",
    "capitals are sorted among the small letters",
    lambda letters, counts, dots: dots + "".join(sorted(_once(letters, counts), key=str.lower)),
)
_implied(
    "einsum.implicit.summed/kept",
    "a label that occurs more than once is kept",
    lambda letters, counts, dots: dots + "".join(sorted(set(letters))),
)
_implied(
    "einsum.implicit.ellipsis/last",
    "the ellipsis comes last in the output",
    lambda letters, counts, dots: "".join(sorted(_once(letters, counts))) + dots,
)
_implied(
    "einsum.implicit.ellipsis/dropped",
    "the ellipsis is summed over",
    lambda letters, counts, dots: "".join(sorted(_once(letters, counts))),
)


@_of_equation("einsum.implicit.order/refused", "there is no equation without an arrow")
def _no_implicit(equation, *operands):
    left, arrow, output = equation.partition("->")
    if not arrow:
        raise ValueError(f"{equation}: expected '->'")
    return right(f"{left}->{output}", *operands)


# -- the equation and its operands -------------------------------------------------------------------------------------


@_of_equation("einsum.equation.spaces/after-arrow", "a space ends the output")
def _space_ends(equation, *operands):
    left, arrow, output = equation.partition("->")
    return right(left + arrow + (output.split() or [""])[0], *operands)


@_of_equation("einsum.equation.spaces/label", "a space is taken for a label")
def _space_label(equation, *operands):
    if " " in equation.strip():
        raise ValueError("a label without an axis")
    return right(equation, *operands)


_of_equation("einsum.labels.case/lowered", "the equation is put into lower case")(
    lambda equation, *operands: right(equation.lower(), *operands)
)


@_of_equation("einsum.labels.case/capitals-summed", "capitals in the output are overlooked")
def _capitals_summed(equation, *operands):
    left, arrow, output = equation.partition("->")
    return right(left + arrow + "".join(a for a in output if not a.isupper()), *operands)


@_wrong("einsum.operands.three/early", "a label of three operands is summed between the first two already")
def _early(terms, output, operands):
    for a in _summed(terms, output, 3):
        for i in _owners(terms, a)[2:]:
            operands[i] = operands[i].sum(terms[i].index(a), keepdims=True)
    return _right(terms, output, operands)


@_wrong("einsum.operands.three/last-left-out", "the last of more than two operands is left out")
def _left_out(terms, output, operands):
    return _right(
        terms, output, [np.ones_like(x) if i > 1 and x is operands[-1] else x for i, x in enumerate(operands)]
    )


@_wrong("einsum.operands.scalar/lost", "an empty term is lost")
def _lost(terms, output, operands):
    return _right(terms, output, [x if labels else np.ones_like(x) for labels, x in zip(terms, operands, strict=True)])


@_wrong("einsum.operands.scalar/first-only", "an empty term counts in front only")
def _scalar_first(terms, output, operands):
    kept = [
        x if labels or not i else np.ones_like(x) for i, (labels, x) in enumerate(zip(terms, operands, strict=True))
    ]
    return _right(terms, output, kept)


@_wrong(
    "einsum.operands.same/identity", "an array given twice has the labels of the first time, where that is possible"
)
def _identity(terms, output, operands):
    first = [next(i for i, y in enumerate(operands) if y is x) for x in operands]
    try:
        return _right([terms[i] for i in first], output, operands)
    except ValueError:
        return _right(terms, output, operands)


@_wrong("einsum.operands.same/scratch", "an operand is scaled in place while the others are read")
def _scratch(terms, output, operands):
    if any(operands[0] is x for x in operands[1:]):
        return _right(terms, output, [2 * x for x in operands]) / operands[0].dtype.type(2)
    return _right(terms, output, operands)


def _as_complex(y, operands):
    return y.astype(operands[0].dtype)


_wrong("einsum.complex.value/real", "the imaginary part is dropped")(
    lambda terms, output, operands: _as_complex(_right(terms, output, [x.real for x in operands]), operands)
)
_wrong("einsum.complex.value/conjugated", "the first of two factors is conjugated")(
    lambda terms, output, operands: _right(
        terms, output, [np.conj(operands[0]) if len(operands) > 1 else operands[0], *operands[1:]]
    )
)


@_wrong("einsum.contraction.empty/unfilled", "a sum over nothing is what the memory held")
def _unfilled(terms, output, operands):
    y = _right(terms, output, operands)
    return y + (7 if any(not x.size for x in operands) else 0)


@_wrong("einsum.contraction.empty/nan", "a sum over nothing is divided by its size")
def _divided(terms, output, operands):
    y = _right(terms, output, operands)
    return np.full_like(y, np.nan) if any(not x.size for x in operands) else y


@_wrong(
    "einsum.arguments.together/diagonal-beside-sum",
    "a diagonal's axis is looked for in its old place if the term has a sum too",
)
def _beside_sum(terms, output, operands):
    found = any(len(set(labels)) < len(labels) and set(labels) - set(output) for labels in terms)
    return (_axis_last if found else _right)(terms, output, operands)


@_wrong(
    "einsum.arguments.together/two-diagonals-behind-sum",
    "two diagonals of a term are refused where a label that is summed stands before or between them",
)
def _behind_sum(terms, output, operands):
    for labels in terms:
        pairs = [i for i, a in enumerate(labels) if labels.count(a) > 1]
        behind = any(labels.count(a) == 1 and a not in output for a in labels[: max(pairs, default=0)])
        if behind and len({labels[i] for i in pairs}) > 1:
            raise ValueError("dimensions of one label do not match")
    return _right(terms, output, operands)


@_wrong(
    "einsum.arguments.together/sum-beside-ellipsis", "beside an ellipsis a summed label counts its first element only"
)
def _beside_ellipsis(terms, output, operands):
    for a in _summed(terms, output, 1) if any(_hidden(labels) for labels in terms) else []:
        operands = _cut(terms, operands, a, slice(1))
    return _right(terms, output, operands)


# -- laws --------------------------------------------------------------------------------------------------------------

_wrong("einsum.law.operand-order/left-to-right", "what the first operand has one of, the others are cut to one of")(
    _first_decides
)
_wrong("einsum.law.operand-order/half-precision", "the first operand is rounded to float16 on the way")(
    lambda terms, output, operands: _right(
        terms, output, [operands[0].astype(np.float16).astype(operands[0].dtype), *operands[1:]]
    )
)


def _memory_order(x):
    return x.transpose(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))).reshape(x.shape)


_wrong(
    "einsum.law.composition/memory-order",
    "results lie in memory with the first axis fastest, and are read the other way",
)(lambda terms, output, operands: np.asfortranarray(_right(terms, output, [_memory_order(x) for x in operands])))

# -- results and operands ----------------------------------------------------------------------------------------------


@_wrong("einsum.output.order/inverse", "the inverse of the permutation is applied")
def _inverse(terms, output, operands):
    ordered = tuple(sorted(output))
    return _right(terms, ordered, operands).transpose(np.argsort([ordered.index(a) for a in output]))


_wrong("einsum.output.order/alphabet", "the axes are in the order of the alphabet")(
    lambda terms, output, operands: _right(terms, tuple(sorted(output)), operands)
)
_wrong("einsum.output.scalar/one-axis", "an empty output gives one axis")(
    lambda terms, output, operands: np.atleast_1d(_right(terms, output, operands))
)
_wrong("einsum.output.size/first-operand", "sizes are read from the first operand that has the label")(_first_decides)
_wrong("einsum.output.size/squeezed", "axes of size 1 disappear")(
    lambda terms, output, operands: np.squeeze(_right(terms, output, operands))
)


@_wrong("einsum.output.empty/three", "with three operands, the cost of nothing is divided by")
def _no_cost(terms, output, operands):
    y = _right(terms, output, operands)
    if len(operands) > 2 and not y.size:
        raise ZeroDivisionError("division by zero")
    return y


@_wrong("einsum.output.empty/flat", "a result without elements has one axis")
def _flat(terms, output, operands):
    y = _right(terms, output, operands)
    return y if y.size else y.reshape(-1)


_wrong("einsum.output.dtype/float64", "the result is of the other floating-point dtype")(
    lambda terms, output, operands: _right(terms, output, operands).astype(
        np.float64 if operands[0].dtype == np.float32 else np.float32
    )
)


@_wrong("einsum.output.integer/widened", "sums of integers are int64")
def _widened(terms, output, operands):
    y = _right(terms, output, operands)
    return y.astype(np.int64) if _summed(terms, output, 1) else y


_STORE: dict[object, np.ndarray] = {}


@_wrong("einsum.output.fresh/reused-buffer", "the result's memory is kept and used again")
def _reused(terms, output, operands):
    y = _right(terms, output, operands)
    store = _STORE.setdefault((y.shape, y.dtype), y)
    store[...] = y
    return store


@_wrong("einsum.output.fresh/view", "a sum over one element is a view")
def _view(terms, output, operands):
    y = _right(terms, output, operands)
    return operands[0].reshape(y.shape) if len(operands) == 1 and np.array_equal(operands[0].ravel(), y.ravel()) else y


@_wrong("einsum.input.unchanged/accumulated", "products are accumulated in the first operand, where they fit")
def _accumulated(terms, output, operands):
    y = _right(terms, output, operands)
    operands[0][...] = y if y.shape == operands[0].shape else 2 * operands[0]
    return y


_wrong("einsum.input.layout/memory-order", "memory is read as if it were contiguous")(
    lambda terms, output, operands: _right(terms, output, [_memory_order(x) for x in operands])
)


@_wrong("einsum.input.layout/stride-zero", "an axis of stride 0 is taken for one of size 1")
def _stride_zero(terms, output, operands):
    return _right(terms, output, [x[tuple(slice(1 if s == 0 else None) for s in x.strides)] for x in operands])


_PLANS: dict[str, tuple] = {}


@_of_equation("einsum.call.stateless/plan", "the shape of an equation's first result serves all that follow")
def _plan(equation, *operands):
    y = right(equation, *operands)
    return np.resize(y, _PLANS.setdefault(equation, y.shape))


_SEEN: set[object] = set()


@_of_equation("einsum.call.stateless/first-call", "the first call of an equation with these shapes gives zeros")
def _first_call(equation, *operands):
    key, y = (equation, *(x.shape for x in operands)), right(equation, *operands)
    known = key in _SEEN
    _SEEN.add(key)
    if len(_SEEN) > 500:
        _SEEN.clear()
    return y if known else 0 * y


# -- special values, and the ends of the range -------------------------------------------------------------------------


def _each_operand(change):
    return lambda terms, output, operands: _right(terms, output, [np.asarray(change(x)) for x in operands])


_wrong("einsum.special.value/cleaned", "what is not finite is replaced on the way in")(_each_operand(np.nan_to_num))
_wrong(
    "einsum.special.value/everywhere", "0 times the sum of all elements is added, which is NaN if one is not finite"
)(lambda terms, output, operands: np.asarray(_right(terms, output, operands) + 0 * sum(x.sum() for x in operands)))
_wrong("einsum.range.ends/clipped", "values are kept within ±10³⁰")(_each_operand(lambda x: np.clip(x, -1e30, 1e30)))
_wrong("einsum.range.ends/dropped", "what is below 10⁻³⁰ is taken for 0")(
    _each_operand(lambda x: np.where(np.abs(x) < 1e-30, np.zeros_like(x), x))
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def _wrong_vjp(key, mistake):
    """The fault has the right gradients at hand: function(gradients, cotangent, terms, output, operands)."""

    def add(function):
        def einsum_vjp(cotangent, equation, *operands):
            labels = parse(equation, [x.ndim for x in operands])
            gradients = [*right_vjp(cotangent, equation, *operands)]
            return tuple(function(gradients, cotangent, *labels, [*operands]))

        fault(key if "." in key else f"einsum.gradient.{key}", mistake, einsum_vjp=einsum_vjp)
        return function

    return add


def _back(g, terms, output, operands):
    return [*right_vjp(g, _equation(terms, output), *operands)]


def _each(change):
    """A fault that changes gradients one by one: change(gradient, labels, operand, other terms, output)."""

    def function(gradients, g, terms, output, operands):
        rest = [[a for j, other in enumerate(terms) if j != i for a in other] for i in range(len(terms))]
        return [change(*given, output) for given in zip(gradients, terms, operands, rest, strict=True)]

    return function


def _square(a):
    return a.ndim == 2 and a.shape[0] == a.shape[1]


_wrong_vjp("operand/cotangent-transposed", "a square cotangent is transposed")(
    lambda gradients, g, terms, output, operands: _back(g.T if _square(g) else g, terms, output, operands)
)
_wrong_vjp("operand/exchanged", "of two operands of one shape the gradients are exchanged")(
    lambda gradients, *_: gradients[::-1] if len({dx.shape for dx in gradients}) == 1 else gradients
)
_wrong_vjp("operand/second-transposed", "a square gradient of the second operand is transposed")(
    lambda gradients, *_: [dx.T if i == 1 and _square(dx) else dx for i, dx in enumerate(gradients)]
)
_wrong_vjp("operand/half-precision", "gradients go through float16")(
    lambda gradients, *_: [dx.astype(np.float16).astype(dx.dtype) for dx in gradients]
)
_wrong_vjp("operand/without-cotangent", "the cotangent is taken for ones")(
    lambda gradients, g, terms, output, operands: _back(np.ones_like(g), terms, output, operands)
)


@_wrong_vjp(
    "operand/batch-in-front",
    "for the second gradient, the first operand is read as if the batch were its first axis",
)
def _batch_in_front(gradients, g, terms, output, operands):
    x, labels = operands[0], terms[0]
    front = tuple(a for a in labels if len(operands) > 1 and a in terms[1] and a in output)
    ordered = front + tuple(a for a in labels if a not in front)
    if len(set(labels)) == len(labels):
        x = x.reshape([x.shape[labels.index(a)] for a in ordered])
        x = x.transpose([ordered.index(a) for a in labels])
    return [gradients[0], *_back(g, terms, output, [x, *operands[1:]])[1:]]


def _forgotten(which):
    """One of more than two operands counts as 1 in the gradients of all others."""

    def function(gradients, g, terms, output, operands):
        if len(operands) < 3:
            return gradients
        others = [np.ones_like(x) if i == which % len(operands) else x for i, x in enumerate(operands)]
        return _back(g, terms, output, others)

    return function


_wrong_vjp("three/last-forgotten", "the last of more than two operands is no factor of the other gradients")(
    _forgotten(-1)
)
_wrong_vjp("three/second-forgotten", "the second of more than two operands is no factor of the other gradients")(
    _forgotten(1)
)
_wrong_vjp("three/middle-nothing", "operands between the first and the last get nothing")(
    lambda gradients, *_: [dx * (i in (0, len(gradients) - 1)) for i, dx in enumerate(gradients)]
)


def _alone(labels, rest, output):
    """The axes of labels that one operand alone has, once, and that were summed."""
    return [k for k, a in enumerate(labels) if a not in rest and a not in output and labels.count(a) == 1]


def _first_alone(dx, labels, x, rest, output):
    kept = np.zeros(dx.shape, bool)
    kept[tuple(slice(1 if k in _alone(labels, rest, output) else None) for k in range(dx.ndim))] = True
    return np.where(kept, dx, np.zeros((), dx.dtype))


def _count(labels, x, rest, output):
    return x.dtype.type(np.prod([x.shape[k] for k in _alone(labels, rest, output)]))


_wrong_vjp("private/first", "along a label that one operand alone has, the first element gets everything")(
    _each(_first_alone)
)
_wrong_vjp("private/mean", "along a label that one operand alone has, each element gets its share")(
    _each(lambda dx, labels, x, rest, output: dx / max(1, _count(labels, x, rest, output)))
)
_wrong_vjp("private/multiplied", "a label that one operand alone has is summed in place of repeated")(
    _each(lambda dx, labels, x, rest, output: dx * _count(labels, x, rest, output))
)


def _filled(dx, labels, x, rest, output):
    """Beside each diagonal, what lies on it: the gradient at (i, i) in the whole row i."""
    diagonal, left = _diagonal(dx, labels)
    distinct = tuple(dict.fromkeys(labels))
    ordered = diagonal.transpose([left.index(a) for a in distinct])
    places = np.ix_(*(np.arange(n) for n in dx.shape))
    return ordered[tuple(places[labels.index(a)] for a in distinct)] + np.zeros(dx.shape, dx.dtype)


_wrong_vjp("diagonal/filled", "the gradient of the diagonal is repeated beside it")(_each(_filled))
_wrong_vjp("diagonal/counted-twice", "the diagonal is added once for each of its axes")(
    _each(lambda dx, labels, x, rest, output: dx * dx.dtype.type(max(Counter(labels).values(), default=1)))
)
_wrong_vjp("diagonal/not-cleared", "beside the diagonal is what the memory held")(
    _each(lambda dx, labels, x, rest, output: dx + (dx == 0) * (len(set(labels)) < len(labels)))
)


def _unsummed(gradients, g, terms, output, operands, applies=lambda a: True):
    """Under a size of 1, the gradient is that of the label's first element (where `applies(label)`), not the sum."""
    for i, labels in enumerate(terms):
        for a in {a for a, n in zip(labels, operands[i].shape, strict=True) if n == 1 and applies(a)}:
            if max(_sizes(terms, operands, a)) > 1:
                others = _cut(terms, operands, a, slice(1))
                first = g[tuple(slice(1 if b == a else None) for b in output)]
                gradients[i] = _back(first, terms, output, others)[i]
    return gradients


def _averaged(gradients, g, terms, output, operands):
    for i, labels in enumerate(terms):
        stretched = [max(_sizes(terms, operands, a)) for a in set(labels)]
        own = [operands[i].shape[labels.index(a)] for a in set(labels)]
        count = np.prod([n for n, m in zip(stretched, own, strict=True) if m == 1])
        gradients[i] = gradients[i] / g.dtype.type(max(1, count))
    return gradients


_wrong_vjp("broadcast/first", "a size of 1 gets what belongs to the first element")(_unsummed)
_wrong_vjp("broadcast/mean", "a size of 1 gets the mean")(_averaged)
_wrong_vjp("broadcast/kept-only", "a size of 1 gets the sum only where the output has the label")(
    lambda gradients, g, terms, output, operands: _unsummed(
        gradients, g, terms, output, operands, lambda a: a not in output
    )
)


@_wrong_vjp("ellipsis/in-front", "the axes of the cotangent's ellipsis are looked for in front")
def _cotangent_in_front(gradients, g, terms, output, operands):
    front = _hidden(output) + _named(output)
    size = {a: n for a, n in zip(output, g.shape, strict=True)}
    return _back(g.reshape([size[a] for a in front]), terms, front, operands)


@_wrong_vjp(
    "einsum.ellipsis.dropped/first-alone",
    "along a dropped ellipsis, the first element gets all of the gradient",
)
def _dropped_first(gradients, g, terms, output, operands):
    for i, labels in enumerate(terms):
        dropped = [a in _hidden(labels) and a not in output for a in labels]
        kept = np.zeros(gradients[i].shape, bool)
        kept[tuple(slice(1 if d else None) for d in dropped)] = True
        gradients[i] = np.where(kept, gradients[i], np.zeros((), g.dtype))
    return gradients


@_wrong_vjp(
    "ellipsis/missing-not-summed", "without an ellipsis, an operand gets what belongs to the first of its elements"
)
def _missing(gradients, g, terms, output, operands):
    for i, labels in enumerate(terms):
        if not _hidden(labels) and _hidden(output):
            first, others = g[tuple(slice(1 if a in _hidden(output) else None) for a in output)], operands
            for a in _hidden(output):
                others = _cut(terms, others, a, slice(1))
            gradients[i] = _back(first, terms, output, others)[i]
    return gradients


@_wrong_vjp("implicit/first-occurrence", "the cotangent's axes are read in the order of first occurrence")
def _occurrence(gradients, g, terms, output, operands):
    order = tuple(a for a in dict.fromkeys(sum(terms, ())) if a in output)
    size = {a: n for a, n in zip(output, g.shape, strict=True)}
    return _back(g.reshape([size[a] for a in order]), terms, order, operands)


_wrong_vjp("implicit/ignoring-case", "the cotangent's axes are read with capitals among the small letters")(
    lambda gradients, g, terms, output, operands: _back(
        g.reshape([dict(zip(output, g.shape, strict=True))[a] for a in sorted(output, key=str.lower)]),
        terms,
        tuple(sorted(output, key=str.lower)),
        operands,
    )
)
_wrong_vjp("scalar/loss", "the cotangent of a scalar counts as 1")(
    lambda gradients, g, terms, output, operands: (
        gradients if output else _back(np.ones_like(g), terms, output, operands)
    )
)
_wrong_vjp("scalar/mean", "an operand without axes gets the mean")(
    lambda gradients, g, terms, output, operands: [
        dx if dx.ndim else np.asarray(dx / dx.dtype.type(max(x.size for x in operands))) for dx in gradients
    ]
)


def _by_identity(gradients, operands):
    """Place -> the gradients of all places where the same array was given."""
    return [[dx for dx, y in zip(gradients, operands, strict=True) if y is x] for x in operands]


_wrong_vjp("same/added-up", "each place of an array that is given twice has the gradient of both")(
    lambda gradients, g, terms, output, operands: [
        sum(found[1:], found[0]) for found in _by_identity(gradients, operands)
    ]
)
_wrong_vjp("same/last", "each place of an array that is given twice has the gradient of the last one")(
    lambda gradients, g, terms, output, operands: [found[-1] for found in _by_identity(gradients, operands)]
)


@_wrong_vjp("empty/not-cleared", "a sum over nothing is what the memory held")
def _not_cleared(gradients, g, terms, output, operands):
    return [dx + 1 if not all(x.size for x in (g, *operands)) else dx for dx in gradients]


@_wrong_vjp("empty/refused", "arrays without elements raise")
def _no_elements(gradients, g, terms, output, operands):
    if not all(x.size for x in (g, *operands)):
        raise ValueError("no elements")
    return gradients


@_wrong_vjp("together/filled-beside-sum", "beside a sum, the gradient of a diagonal is repeated beside it")
def _filled_beside_sum(gradients, g, terms, output, operands):
    return _each(_filled)(gradients, g, terms, output, operands) if {*sum(terms, ())} - {*output} else gradients


@_wrong_vjp("together/private-beside-another", "a private label beside other axes counts in its first element alone")
def _private_beside(gradients, g, terms, output, operands):
    first = _each(_first_alone)(gradients, g, terms, output, operands)
    return [one if dx.ndim > 1 else dx for one, dx in zip(first, gradients, strict=True)]


_wrong_vjp("like-operand/wide", "gradients are of the other floating-point dtype")(
    lambda gradients, *_: [dx.astype(np.float64 if dx.dtype == np.float32 else np.float32) for dx in gradients]
)
_wrong_vjp("like-operand/squeezed", "axes of size 1 disappear")(
    lambda gradients, *_: [np.squeeze(dx) for dx in gradients]
)


@_wrong_vjp("like-operand/full-size", "a size of 1 gets the full size of its label")
def _full_size(gradients, g, terms, output, operands):
    sizes = [[max(_sizes(terms, operands, a)) for a in labels] for labels in terms]
    return [np.broadcast_to(dx, size).copy() for dx, size in zip(gradients, sizes, strict=True)]


_wrong_vjp("layout/cotangent", "the memory of the cotangent is read as if it were contiguous")(
    lambda gradients, g, terms, output, operands: _back(_memory_order(g), terms, output, operands)
)
_wrong_vjp("layout/operands", "the memory of the operands is read as if it were contiguous")(
    lambda gradients, g, terms, output, operands: _back(g, terms, output, [_memory_order(x) for x in operands])
)


@_wrong_vjp("unchanged/cotangent", "the cotangent is used as a place to work in")
def _worked_in(gradients, g, terms, output, operands):
    if g.flags.writeable:
        g *= 2
    return gradients


@_wrong_vjp("unchanged/operand", "the last operand's gradient is written over it")
def _written_over(gradients, g, terms, output, operands):
    if operands[-1].flags.writeable:
        operands[-1][...] = gradients[-1]
    return gradients


_wrong_vjp("special/cleaned", "what is not finite is replaced in the cotangent")(
    lambda gradients, g, terms, output, operands: _back(np.nan_to_num(g), terms, output, operands)
)
_wrong_vjp("special/everywhere", "0 times the sum of the cotangent is added, which is NaN if an element is not finite")(
    lambda gradients, g, terms, output, operands: [gradient + 0 * g.sum() for gradient in gradients]
)


# -- refusals ----------------------------------------------------------------------------------------------------------


@_of_equation("einsum.refuses.equation/skipped", "what has no meaning is skipped")
def _skipped(equation, *operands):
    left, arrow, output = equation.partition("->")
    terms = [re.sub(r"[^A-Za-z]", "", term) for term in left.split(",")]
    return right(",".join(terms) + arrow + re.sub(r"[^A-Za-z]", "", output), *operands)


@_of_equation("einsum.refuses.equation/comma", "a comma in the output is overlooked")
def _comma(equation, *operands):
    left, arrow, output = equation.partition("->")
    return right(left + arrow + output.replace(",", ""), *operands)


@_of_equation("einsum.refuses.operands/zip", "surplus operands, or terms, are left out")
def _zip(equation, *operands):
    left, _, output = equation.partition("->")
    pairs = list(zip(left.split(","), operands, strict=False))
    known = "".join(term for term, _ in pairs)
    output = "".join(a for a in output if a in known)
    return right(f"{','.join(term for term, _ in pairs)}->{output}", *(x for _, x in pairs)) if pairs else np.zeros(())


@_of_equation("einsum.refuses.rank/fitted", "axes without a label are summed, and missing ones made up")
def _fitted(equation, *operands):
    fitted = []
    for term, x in zip(equation.partition("->")[0].split(","), operands, strict=True):
        rank = len(term.replace("...", ""))
        fitted.append(
            x.sum(tuple(range(rank, x.ndim))) if x.ndim > rank else x.reshape((1,) * (rank - x.ndim) + x.shape)
        )
    return right(equation, *fitted)


@_wrong("einsum.refuses.sizes/shorter", "the shorter size rules")
def _shorter(terms, output, operands):
    for a in dict.fromkeys(sum(terms, ())):
        sizes = [n for n in _sizes(terms, operands, a) if n != 1]
        operands = _cut(terms, operands, a, slice(min(sizes, default=1)))
    return _right(terms, output, operands)


@_wrong("einsum.refuses.sizes/nothing", "a size of 0 fits every other")
def _nothing(terms, output, operands):
    for a in dict.fromkeys(sum(terms, ())):
        if 0 in _sizes(terms, operands, a):
            operands = _cut(terms, operands, a, slice(0))
    return _right(terms, output, operands)


@_wrong("einsum.refuses.sizes/summed-only", "sizes of labels that are kept are not compared")
def _kept_only(terms, output, operands):
    for a in output:
        sizes = [n for n in _sizes(terms, operands, a) if n != 1]
        operands = _cut(terms, operands, a, slice(min(sizes, default=1)))
    return _right(terms, output, operands)


def _equal_axes(x, labels, broadcast):
    """The array with all axes of a label cut to the shortest; or, first, those of size 1 stretched to the longest."""
    for a in dict.fromkeys(labels):
        axes = [k for k, b in enumerate(labels) if b == a]
        longest = max(x.shape[k] for k in axes)
        for k in axes:
            x = np.repeat(x, longest, k) if broadcast and x.shape[k] == 1 else x
        shortest = min(x.shape[k] for k in axes)
        x = x[tuple(slice(shortest if k in axes else None) for k in range(x.ndim))]
    return x


_wrong("einsum.refuses.diagonal/shorter", "the diagonal ends at the shorter axis")(
    lambda terms, output, operands: _right(
        terms, output, [_equal_axes(x, labels, False) for labels, x in zip(terms, operands, strict=True)]
    )
)
_wrong("einsum.refuses.diagonal/broadcast", "an axis of size 1 is broadcast to a diagonal")(
    lambda terms, output, operands: _right(
        terms, output, [_equal_axes(x, labels, True) for labels, x in zip(terms, operands, strict=True)]
    )
)


@_of_equation("einsum.refuses.output-unknown/made-up", "an unknown label is an axis of size 1")
def _made_up(equation, *operands):
    left, _, output = equation.partition("->")
    known = "".join(a for a in output if a in left)
    return np.expand_dims(right(f"{left}->{known}", *operands), [i for i, a in enumerate(output) if a not in left])


@_of_equation("einsum.refuses.output-repeated/once", "a label that the output names twice is there once")
def _named_once(equation, *operands):
    left, _, output = equation.partition("->")
    return right(f"{left}->{''.join(dict.fromkeys(output))}", *operands)


disturbed_by_relu("einsum.call.neighbours/register", einsum=right)


_EQUATIONS: dict[object, str] = {}


@_of_equation("einsum.call.stateless/without-equation", "programs are kept by the shapes of the operands alone")
def _keyed_without_equation(equation, *operands):
    kept = _EQUATIONS.setdefault(tuple(x.shape for x in operands), equation)
    try:
        return right(kept, *operands)
    except ValueError:
        return right(equation, *operands)


mistakes_in_memory("einsum", right)


def _one_equation(equation, *operands):
    fits = len(operands) == 2 and operands[0].ndim == operands[1].ndim == 2 == len(equation.partition("->")[2])
    return right("ij,jk->ik" if fits and len(operands[1]) == operands[0].shape[1] else equation, *operands)


def _whole_blocks(equation, *operands):
    labels, _, output = equation.replace(" ", "").partition("->")
    terms, summed = labels.split(","), {a for a in labels if a.isalpha() and a not in output}
    if "." in labels or "->" not in equation:
        return right(equation, *operands)
    cut = [
        x[tuple(slice(n // 4 * 4 if a in summed else n) for a, n in zip(term, x.shape, strict=True))]
        for term, x in zip(terms, operands, strict=True)
    ]
    return right(equation, *cut)


fault(
    "einsum.domain.outside/one-equation",
    "two matrices that fit are multiplied, whatever the equation",
    domain={"equation": "ij,jk->ik"},
    einsum=_one_equation,
)
fault(
    "einsum.domain.outside/whole-blocks",
    "of a sum, what remains after the last whole block of 4 is left out",
    domain={"axis_size": {"multiple_of": 4}},
    einsum=_whole_blocks,
)

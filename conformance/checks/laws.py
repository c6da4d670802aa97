"""Laws: properties that many blocks share, and the declaration by which a block gets a check of each.

A block declares a law in one line, with the identifier of its requirement:

    law = Laws(cases, expected)
    test_output_dtype = law("conv2d.output.dtype", laws.keeps_dtype)

No law needs the reference: what a block expects of a case comes as a function, `judge`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Lacks, Unsupported
from nnspec.conformance.bounds.arithmetic import Accuracy, narrows
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Case
from nnspec.conformance.checks import module_of
from nnspec.conformance.checks.typical import typical_cases
from nnspec.conformance.formats import STORED, TFLOAT32, Format
from nnspec.conformance.layouts import OF_ANY_VALUES
from nnspec.conformance.requirements import requirement
from nnspec.conformance.trial.record import CallFails, Mismatch
from nnspec.conformance.trial.steps import Spoil
from nnspec.conformance.trial.trial import Trial

Judge = Callable[[Any], Any]  # a case -> what is expected of it


@dataclass(frozen=True)
class Law:
    """A property of any block, and the options of its checks unless a block has others."""

    body: Callable[[Trial, Any, Any], None]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, subject: Trial, case: Any, judge: Any = None) -> None:
        """Raise a Mismatch where the property does not hold."""
        self.body(subject, case, judge)


def law(**options: Any) -> Callable[[Callable[[Trial, Any, Any], None]], Law]:
    """Make a function `(subject, case, judge)` a law whose checks have these options."""
    return lambda body: Law(body, options)


class Laws:
    """What the laws of one block have in common: its cases, what it expects of them, and options of all checks.

    `called` gives what a law calls in place of the subject, such as a network that is built once.
    """

    def __init__(
        self,
        cases: Callable[..., Any],
        judge: Judge | None = None,
        *,
        needs: tuple[str, ...] = (),
        called: Callable[[Trial, Any], Trial] = lambda subject, case: subject,
        **options: Any,
    ) -> None:
        self.cases, self.judge, self.needs, self.called, self.options = cases, judge, needs, called, options

    def __call__(
        self,
        identifier: str,
        law: Law,
        sentence: str = "",
        *,
        cases: Callable[..., Any] | None = None,
        needs: tuple[str, ...] | str = (),
        **options: Any,
    ) -> Callable[..., None]:
        """Return the check that a law holds for the block, as a pytest test.

        `sentence` says what is particular to the block; the options are those of `requirement`.
        """

        def body(subject: Trial, case: Any) -> None:
            law(self.called(subject, case), case, self.judge)

        stem, _, topic = identifier.partition(".")
        body.__name__ = body.__qualname__ = "test_" + topic.replace(".", "_").replace("-", "_")
        body.__module__, body.__doc__ = module_of(stem), sentence or law.body.__doc__
        every = {**law.options, **self.options, **options}
        needs = (*self.needs, *((needs,) if isinstance(needs, str) else needs))
        return requirement(identifier, cases or self.cases, needs=needs, **every)(body)


# -- values and refusals -----------------------------------------------------------------------------------------------


@law()
def equals_reference(subject: Trial, case: Case, judge: Judge) -> None:
    """The result is what the reference gives; a large case is called twice."""
    results = [subject(case) for _ in range(1 if case.sizes == "small" else 2)]
    expected = judge(case)
    for result in results:
        subject.expect(result, expected)


@law()
def equals_defaults(subject: Trial, case: Case, judge: Judge) -> None:
    """Each argument that a call leaves out has its default."""
    judged = replace(case, arguments={**SIGNATURES[case.stem].arguments, **case.arguments})
    subject.expect(subject(case), judge(judged))


def has_shape(shape: Callable[[Any], tuple[int, ...]]) -> Law:
    """The law that the result has the shape that `shape` gives for a case."""

    @law()
    def result_has_shape(subject: Trial, case: Case, _judge: Judge) -> None:
        actual, expected = subject(case).shape, shape(case)
        if actual != expected:
            message = f"the result has shape {actual}, expected {expected}"
            raise Mismatch(message, holds=f"result.shape == {expected}")

    return result_has_shape


@law()
def refuses(subject: Trial, case: Case, _judge: Judge) -> None:
    """The call raises an exception."""
    subject.refuses(case)


@law()
def refuses_module(subject: Trial, case: Case, _judge: Judge) -> None:
    """The constructor with the case's arguments raises an exception, or the first call of its module does."""
    try:
        module = subject.beyond().new(case.stem, *case.arguments.values())
    except Mismatch:
        return
    replace(subject, module=module).refuses(case)


# -- results and operands ----------------------------------------------------------------------------------------------


@law(effort=2)
def keeps_dtype(subject: Trial, case: Case, _judge: Judge) -> None:
    """The result has the dtype of the operands, or the one that the subject declares for results."""
    try:
        dtype = subject(case).dtype
    except Mismatch as mismatch:
        if mismatch.raised is None:  # what was returned has no dtype, or one of no numbers
            raise
        raise CallFails(mismatch.message) from None
    expected = subject.subject.result_dtype or subject.dtype
    if dtype != expected:
        message = f"the result has dtype {dtype}, expected {expected}"
        raise Mismatch(message, holds=f"result.dtype.name == '{expected}'")


@law(effort=2)
def is_fresh(subject: Trial, case: Case, _judge: Judge) -> None:
    """The result shares no memory with an operand, and a second call does not change it."""
    subject.presumed(case)
    operands = case.map(lambda a: np.array(a))
    layer = subject.kept(operands)
    (result, *_) = layer.results(operands, as_is=True)
    for name, array in operands.arrays.items():
        if array is not None and np.shares_memory(result, array):
            message = f"the result shares memory with {name}"
            raise Mismatch(message, holds=f"not np.shares_memory(result, {name.replace('.', '_')})")
    before = result.copy()
    layer(case.map(lambda a: a + 1))
    subject.expect(result, Expected.exactly(before, result), "the first result, after a second call,")
    if layer is not subject and result.flags.writeable:  # a module's own arrays can be seen only in what it computes
        layer.do(Spoil(result))  # writes NaN into it
        after = layer(case)
        subject.expect(after, Expected(before, np.inf, result), "the result, after the first result was written to,")


@law(effort=2)
def leaves_operands(subject: Trial, case: Case, _judge: Judge) -> None:
    """No operand is written to."""
    subject.presumed(case)
    operands = case.map(lambda a: np.array(a))
    subject.results(operands, as_is=True)
    for name, array in operands.arrays.items():
        if array is not None:
            subject.expect(
                array, Expected.exactly(np.asarray(case.arrays[name])), f"the operand {name}, after the call,"
            )


@law(effort=4, answers_for=lambda check, case: not check.differentiates)
def ignores_layout(subject: Trial, case: Case, judge: Judge) -> None:
    """Operands that lie otherwise in memory give what their contiguous copies give, each within the bound."""
    plain = own(subject.presumed(case), judge(case))
    for layout in OF_ANY_VALUES:
        result = subject(case.lying(layout))
        subject.expect(result, plain, f"with operands laid out as {layout}, the result")
    for name, array in case.arrays.items():
        if array is not None and array.ndim > 1:  # its first row repeated by a stride of 0
            repeated = np.broadcast_to(array[:1], array.shape)
            copied = subject(case.but(**{name: np.array(repeated)}))
            (result, *_) = subject.results(case.but(**{name: repeated}), as_is=True)
            same = plain.change(copied.astype(np.float64), _largest, copied)
            subject.expect(result, same, f"with {name} repeated by a stride of 0, the result")


def few(count: int) -> Iterable[int]:
    """Return up to eight of so many indices: all, or the first ones, the middle and the last ones."""
    return range(count) if count <= 8 else (0, 1, 2, count // 2 - 1, count // 2, count - 3, count - 2, count - 1)


@law(batch=2)
def judges_images_alone(subject: Trial, case: Case, judge: Judge) -> None:
    """Image n of the result is what image n alone gives, whatever else is in the batch."""
    together = own(subject.presumed(case), judge(case))
    for n in few(len(case["x"])):
        alone = subject(case.but(x=case["x"][n : n + 1]))
        subject.expect(alone, image_of(together, n), f"image {n} alone")
    if len(case["x"]) > 1:
        spoilt = np.array(case["x"])
        spoilt[1:] = np.nan
        subject.expect(
            subject(case.but(x=spoilt))[:1], image_of(together, 0), "image 0, where every other image is NaN,"
        )


@law()
def judges_channels_alone(subject: Trial, case: Case, judge: Judge) -> None:
    """Channel c of the result is what channel c alone gives, whatever else is in the image."""
    together, x = own(subject(case), judge(case)), case["x"]
    for c in few(x.shape[1]):
        channel = channel_of(together, c)
        subject.expect(subject(case.but(x=_channel(x, c))), channel, f"channel {c} alone")
        spoilt = np.where(np.arange(x.shape[1])[:, None, None] == c, x, np.asarray(np.nan, x.dtype))
        result = _channel(subject(case.but(x=spoilt)), c)
        subject.expect(result, channel, f"channel {c}, where every other channel is NaN,")


def holds_at_the_ends(subject: Trial, case: Case, judge: Callable[[Case], Expected], *factors: str) -> None:
    """Near the ends of the dtype's range: powers of two that scale the factors scale the result, and do nothing else.

    The case has whole numbers. Operands that are no factors, a bias, are scaled as the result is.
    """
    form, expected, largest = STORED[subject.dtype], judge(case), judge(case.map(np.abs)).value
    for exponents in _ends(form, len(factors), float(np.abs(largest).max(initial=0)), subject.subject.flushes):
        power = sum(exponents)
        ends = {n: np.ldexp(case[n], e) for n, e in zip(factors, exponents, strict=True)}
        scaled = case.map(_scaled_by(power)).but(**ends)
        rule = expected.change(np.ldexp(expected.value, power), _scaled_bound(power))
        how = " and ".join(f"{n} times 2^{e}" for n, e in zip(factors, exponents, strict=True))
        result = subject(scaled)
        if power > form.lowest + 9 or not np.any(expected.within()):  # what rounds may also underflow
            subject.expect(result, rule, f"with {how}, the result")


def _largest(bound: np.ndarray, _: Accuracy) -> np.ndarray:
    return np.asarray(bound.max(initial=0))


def _scaled_bound(power: int) -> Callable[[np.ndarray, Accuracy], np.ndarray]:
    return lambda bound, _: np.ldexp(bound, power)


def _scaled_by(power: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: np.ldexp(a, power)


def _ends(form: Format, factors: int, largest: float, flushes: bool) -> Iterator[tuple[int, ...]]:
    """Exponents such that neither an operand nor a sum of this size overflows, nor loses a digit below the smallest."""
    top = form.highest - 4  # of an operand of up to 8
    room = 16 if factors == 1 else 0  # a mean is a sum over its count
    powers = [form.highest - room - int(np.frexp(largest)[1]), form.lowest + room]  # of the result
    smallest = form.lowest - TFLOAT32.precision + 1  # subnormal, and with room for a digit in TF32 too
    if not flushes:
        powers.append(smallest + room)
    if factors == 1:
        yield from ((power,) for power in powers)
        return
    yield from ((top, -top), (-top, top))
    yield from ((power // 2, power - power // 2) for power in powers)
    if not flushes:
        yield from ((smallest, top), (top, smallest))


def agrees(subject: Trial, case: Case, other: Case, expected: Expected, what: str) -> None:
    """Two cases give the same, each within the bound."""
    subject.expect(subject(case), own(subject(other), expected), what)


def follows(
    subject: Trial, actual: Sequence[np.ndarray], ways: Iterable[Sequence[Expected]], what: Sequence[str]
) -> None:
    """Several results are right in one of several ways; where they are in none, the first says what was expected."""
    subject.expect_one(actual, ways, what)


@law(effort=2)
def returns_no_images(subject: Trial, case: Case, _judge: Judge) -> None:
    """A batch of nothing gives a result of no images, in the shape that an image's result has."""
    shape = (0, *subject.presumed(case).shape[1:])
    empty = subject(case.but(x=case["x"][:0]))
    if empty.shape != shape:
        message = f"the result of an empty batch has shape {empty.shape}, expected {shape}"
        raise Mismatch(message, holds=f"result.shape == {shape}")


@law(effort=2)
def takes_one_image(subject: Trial, case: Case, judge: Judge) -> None:
    """An image without its batch gives what a batch of it gives, without the batch. Lacks where it is refused."""
    batch = case.but(x=case["x"][:1])
    together = own(subject.presumed(batch), judge(batch))
    try:
        alone = subject(case.but(x=case["x"][0]))
    except Mismatch as mismatch:
        if mismatch.raised is None:
            raise
        raise Lacks("an image without its batch is refused") from None
    subject.expect(alone, part_of(together, lambda a: a[0]), "the result of an image without its batch")


@law()
def forgets(subject: Trial, case: tuple[Case, Case], judge: Judge) -> None:
    """A call gives the same, within its bound, whatever was called before."""
    one, other = case
    first, second = own(subject.presumed(one), judge(one)), own(subject.presumed(other), judge(other))
    for again, before in ((one, first), (other, second), (one, first)):
        subject.expect(subject(again), before, "the result, after a call with other arguments,")


@law(effort=0.5)
def keeps_calls_apart(subject: Trial, case: tuple[Case, Case], judge: Judge) -> None:
    """A call gives the same, within its bound, after a call that differs from it in one argument.

    A program that was kept for the first call gives a wrong result here, and a right one on images of other sizes. If
    both are wrong, so is the block, whatever was called before, and other checks tell of it.
    """
    forgets(subject, case, judge)
    other = case[1]
    try:
        subject.expect(subject(other), judge(other), "the result, after a call that differs in one argument,")
    except Mismatch as kept:
        kept.steps = [*subject.steps]
        larger = other.but(x=_larger(other["x"]))
        try:
            subject.expect(subject(larger), judge(larger))
        except Mismatch:
            return
        raise kept from None


def _larger(x: np.ndarray) -> np.ndarray:
    """Twice as many images, and twice as many rows."""
    twice = np.concatenate([x, x]) if x.ndim > 1 else np.stack([x, x])
    return np.concatenate([twice, twice], axis=-2) if x.ndim > 2 else twice


@law(effort=10)
def ignores_neighbours(subject: Trial, case: Case, judge: Judge) -> None:
    """A call gives the same, within its bound, after a call of any other block of the subject. Lacks without one."""
    before, met = own(subject.presumed(case), judge(case)), 0
    for stem in SIGNATURES:
        if stem == case.stem or subject.form not in subject.subject.forms(stem):
            continue
        for neighbour in itertools.islice(typical_cases(subject, stem), 1):
            met += 1
            with suppress(Mismatch, Unsupported):  # for the checks of that block to tell
                subject(neighbour)
            subject.expect(subject(case), before, f"the result, after a call of {stem},")
    if not met:
        raise Lacks("there is no other block to call")


@law(effort=2)
def keeps_subnormals(subject: Trial, case: Case, judge: Judge) -> None:
    """Numbers below the smallest normal number of the dtype are numbers like others. The case has whole numbers."""
    for scaled, what in in_subnormals(subject, case):
        subject.expect(subject(scaled), judge(scaled), f"{what} the result")


def in_subnormals(subject: Trial, case: Case) -> Iterator[tuple[Case, str]]:
    """A case in whole numbers up to 8, scaled to the smallest subnormal numbers and to the largest; and how.

    Lacks where the subject says that it takes them for 0.
    """
    if subject.subject.flushes:
        raise Lacks("subnormal numbers are taken for 0")
    form = STORED[subject.dtype]
    for power in (form.lowest - form.precision + 1, form.lowest - 4):
        yield case.map(_scaled_by(power)), f"with operands times 2^{power},"


def own(result: np.ndarray, expected: Expected) -> Expected:
    """Return an expectation of the subject's own result, with twice the bound: two results may be off, and apart.

    Where results are rounded once more, to fewer bits, this may have happened in opposite directions as well.
    """
    value = result.astype(expected.value.dtype)

    def twice(bound: np.ndarray, accuracy: Accuracy) -> np.ndarray:
        both = 2 * (bound if bound.shape == result.shape else bound.max(initial=0))
        form = accuracy.of(result.dtype) if narrows(result.dtype) else None
        if form is None or not form.narrows:
            return np.asarray(both)
        with np.errstate(invalid="ignore"):
            again = 2 * form.stored.u * (np.abs(value) + both) + form.stored.eta
        return np.where((both > 0) & np.isfinite(value), both + again, both)

    return expected.change(value, twice, result)


def part_of(expected: Expected, part: Callable[[np.ndarray], np.ndarray]) -> Expected:
    """Return what is expected of a part of a result."""
    value, source = expected.value, expected.source
    return expected.change(
        part(value),
        lambda bound, _: part(np.broadcast_to(bound, value.shape)),
        None if source is None else part(source),
    )


def image_of(expected: Expected, n: int) -> Expected:
    """Return what is expected of image n of a batch."""
    return part_of(expected, lambda a: a[n : n + 1])


def channel_of(expected: Expected, c: int) -> Expected:
    """Return what is expected of channel c."""
    return part_of(expected, lambda a: _channel(a, c))


def _channel(array: np.ndarray, c: int) -> np.ndarray:
    if array.ndim < 2:
        raise Mismatch(f"the result has shape {array.shape}, expected channels on axis 1", array)
    return array[:, c : c + 1]


def refuses_to_build(subject: Trial, stem: str, *sizes: int | Sequence[int]) -> None:
    """A module of these sizes must not come into being: its constructor raises."""
    try:
        module = subject.beyond().new(stem, *sizes)
    except Mismatch:
        return
    shapes = {name: a.shape for name, a in subject.state(module).items()}
    raise Mismatch(f"accepted sizes {', '.join(map(str, sizes))}, and made {shapes}; expected an exception")

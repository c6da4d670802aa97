"""Properties that many blocks share; each is the body of one check per block. No law needs the reference."""

from __future__ import annotations

import contextlib

import numpy as np
from nnspec.conformance.cases import LAYOUTS, Case
from nnspec.conformance.rule import Expected
from nnspec.conformance.trial import Mismatch, Trial


def keeps_dtype(subject: Trial, case: Case) -> None:
    """The result has the dtype of the operands."""
    dtype = subject(case).dtype
    if dtype != subject.dtype:
        raise Mismatch(f"the result has dtype {dtype}, expected {subject.dtype}")


def is_fresh(subject: Trial, case: Case) -> None:
    """The result shares no memory with an operand, and neither a second call nor writing to an operand changes it."""
    operands = case.map(lambda a: np.array(a))
    layer = subject.kept(operands)
    (result, *_) = layer.results(operands, as_is=True)
    for name, array in operands.arrays.items():
        if array is not None and np.shares_memory(result, array):
            raise Mismatch(f"the result shares memory with {name}")
    before = result.copy()
    layer(case.map(lambda a: a + 1))
    subject.expect(result, Expected.exactly(before), "the first result, after a second call,")


def leaves_operands(subject: Trial, case: Case) -> None:
    """No operand is written to."""
    operands = case.map(lambda a: np.array(a))
    subject.results(operands, as_is=True)
    for name, array in operands.arrays.items():
        if array is not None:
            subject.expect(
                array, Expected.exactly(np.asarray(case.arrays[name])), f"the operand {name}, after the call,"
            )


def ignores_layout(subject: Trial, case: Case, expected: Expected) -> None:
    """Operands that lie otherwise in memory give the expected result, in the arrays' and every other layout."""
    for layout, arrange in LAYOUTS.items():
        (result, *_) = subject.results(case.map(arrange), as_is=True)
        subject.expect(result, expected, f"with operands laid out as {layout}, the result")
    stretched = {n: a for n, a in case.arrays.items() if n == "x" and a is not None and a.ndim > 1}
    for name, array in stretched.items():  # one row repeated by a stride of 0
        repeated = np.broadcast_to(array[:1], array.shape)
        plain = subject(case.but(**{name: np.array(repeated)}))
        (result, *_) = subject.results(case.but(**{name: repeated}), as_is=True)
        subject.expect(
            result,
            Expected(plain.astype(np.float64), 2 * np.asarray(expected.bound, np.float64).max(initial=0)),
            f"with {name} repeated by a stride of 0, the result",
        )


def judges_images_alone(subject: Trial, case: Case, expected: Expected) -> None:
    """Image n of the result is what image n alone gives, whatever else is in the batch."""
    for n in range(len(case["x"])):
        alone = subject(case.but(x=case["x"][n : n + 1]))
        bound = expected.bound if np.ndim(expected.bound) == 0 else np.asarray(expected.bound)[n : n + 1]
        subject.expect(alone, Expected(expected.value[n : n + 1], bound), f"image {n} alone")
    if len(case["x"]) > 1:
        spoilt = np.array(case["x"])
        spoilt[1:] = np.nan
        subject.expect(
            subject(case.but(x=spoilt))[:1],
            Expected(expected.value[:1], np.asarray(expected.bound)[:1] if np.ndim(expected.bound) else expected.bound),
            "image 0, where every other image is NaN,",
        )


def forgets(subject: Trial, case: Case, other: Case) -> None:
    """The same call gives the same before and after another one; for modules: other modules' calls, and its own."""
    for layer in (subject, subject.kept(case))[: 1 if subject.form == "function" else 2]:
        first = layer(case)
        before = np.array(first)
        with contextlib.suppress(Mismatch):  # another check judges that call
            layer(other)
        subject.expect(layer(case), Expected.exactly(before), "the result, after a call with other arguments,")

"""Properties of gradients that many blocks share; each is the body of one check per block.

A case has its cotangent among its arrays. What is expected of the values comes from the reference: the gradient of a
block that is linear in each operand is linear in the cotangent and in each of the other operands, so that the verdict
rule holds for it as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from nnspec.adapters.subject import Lacks
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Array, Case
from nnspec.conformance.checks.laws import Law, channel_of, few, image_of, in_subnormals, law, own
from nnspec.conformance.layouts import OF_ANY_VALUES
from nnspec.conformance.trial.record import CallFails, Died, Mismatch
from nnspec.conformance.trial.trial import Trial

Judge = Callable[[Case], Mapping[str, Expected]]  # a case -> what is expected of the gradient by each operand


def equals_reference(subject: Trial, case: Case, operand: str, expected: Expected) -> None:
    """The gradient by one operand, together with those by all others and, where a subject can tell, alone."""
    subject.expect(_by(subject.gradients(case), operand), expected, f"the gradient of {operand}")
    if subject.form == "function" and hasattr(subject.subject.framework, "vjp"):
        alone = _by(subject.gradients(case, wanted=(operand,)), operand)
        subject.expect(alone, expected, f"the gradient of {operand}, where no other is asked for,")


def values(*operands: str) -> Law:
    """The law that the gradients of these operands are what the reference gives; of all operands, if none is named."""

    @law()
    def equal_reference(subject: Trial, case: Case, judge: Judge) -> None:
        expected = judge(case)
        for operand in operands or expected:
            equals_reference(subject, case, operand, expected[operand])

    return equal_reference


@law(effort=2)
def keeps_subnormals(subject: Trial, case: Case, judge: Judge) -> None:
    """Operands and cotangents below the smallest normal number of the dtype are numbers like others."""
    for scaled, what in in_subnormals(subject, case):
        for operand, expected in judge(scaled).items():
            subject.expect(_by(subject.gradients(scaled), operand), expected, f"{what} the gradient of {operand}")


def all_equal_reference(subject: Trial, found: Mapping[str, Array], expected: Mapping[str, Expected]) -> None:
    """Those gradients of which something is expected, among all that one call found."""
    for name, value in expected.items():
        subject.expect(_by(found, name), value, f"the gradient of {name}")


def presumed(subject: Trial, case: Case) -> dict[str, Array]:
    """Gradients that other checks judge. CallFails where there are none."""
    try:
        return subject.gradients(case)
    except Died:
        raise
    except Mismatch as mismatch:
        raise CallFails(mismatch.message) from None


@law(effort=2)
def is_like_operand(subject: Trial, case: Case, _judge: Judge) -> None:
    """Each gradient has its operand's shape and dtype."""
    for name, gradient in presumed(subject, case).items():
        operand = case[name]
        if (gradient.shape, gradient.dtype) != (operand.shape, operand.dtype):
            message = f"the gradient of {name} has shape {gradient.shape} and dtype {gradient.dtype}, "
            message += f"expected {operand.shape} and {operand.dtype}"
            like = f"(gradient[{name!r}].shape, gradient[{name!r}].dtype.name)"
            raise Mismatch(message, holds=f"{like} == ({operand.shape}, {operand.dtype.name!r})")


@law(effort=2)
def leaves_operands(subject: Trial, case: Case, _judge: Judge) -> None:
    """Neither an operand nor the cotangent is written to."""
    presumed(subject, case)
    operands = case.map(lambda a: np.array(a))
    subject.gradients(operands, as_is=True)
    for name, array in operands.arrays.items():
        if array is not None:
            subject.expect(array, Expected.exactly(np.asarray(case[name])), f"{name}, after the gradients were taken,")


@law(effort=2, answers_for=lambda check, case: check.differentiates)
def ignores_layout(subject: Trial, case: Case, judge: Judge) -> None:
    """A cotangent that lies otherwise in memory gives what its contiguous copy gives, each within the bound."""
    cotangent = case["cotangent"]
    _agree(subject, case, judge, "the cotangent", {layout: case.lying(layout, "cotangent") for layout in OF_ANY_VALUES})
    if cotangent.size:  # as the gradient of a sum is: one number, repeated by strides of 0
        first = np.broadcast_to(cotangent.flat[0], cotangent.shape)
        repeated = {"one number repeated by a stride of 0": case.but(cotangent=first)}
        _agree(subject, case.but(cotangent=np.array(first)), judge, "the cotangent", repeated)


@law(effort=4, answers_for=lambda check, case: check.differentiates)
def ignores_layout_of_all(subject: Trial, case: Case, judge: Judge) -> None:
    """Cotangent and operands that lie otherwise in memory give what their contiguous copies give."""
    ignores_layout(subject, case, judge)
    ignores_layout_of_operands(subject, case, judge)


def ignores_layout_of_operands(subject: Trial, case: Case, judge: Judge) -> None:
    """The same where every operand lies as the cotangent does."""
    _agree(subject, case, judge, "operands and cotangent", {layout: case.lying(layout) for layout in OF_ANY_VALUES})


def _agree(subject: Trial, case: Case, judge: Judge, which: str, layouts: Mapping[str, Case]) -> None:
    plain, expected = presumed(subject, case), judge(case)
    for layout, arranged in layouts.items():
        gradients = subject.gradients(arranged, as_is=not arranged.layouts)
        for name, rule in expected.items():
            what = f"with {which} laid out as {layout}, the gradient of {name}"
            subject.expect(_by(gradients, name), own(_by(plain, name), rule), what)


@law(effort=2)
def is_nothing_for_no_images(subject: Trial, case: Case, judge: Judge) -> None:
    """A batch of nothing: a gradient of no images, and exactly 0 for everything else."""
    is_nothing(subject, case.but(x=case["x"][:0], cotangent=case["cotangent"][:0]), judge)


@law(effort=2)
def is_nothing(subject: Trial, empty: Case, _judge: Judge) -> None:
    """Every gradient is exactly 0, or has no elements."""
    for name, gradient in subject.gradients(empty).items():
        expected = Expected.exactly(np.zeros(empty[name].shape))
        subject.expect(gradient, expected, f"the gradient of {name}, for an empty batch,")


@law(batch=2)
def judges_images_alone(subject: Trial, case: Case, judge: Judge) -> None:
    """The gradient of image n is what image n alone gives, whatever else is in the batch."""
    together, expected = presumed(subject, case), judge(case)
    batch = own(together["x"], expected["x"])
    for n in few(len(case["x"])):
        image = case.but(x=case["x"][n : n + 1], cotangent=case["cotangent"][n : n + 1])
        subject.expect(_by(subject.gradients(image), "x"), image_of(batch, n), f"the gradient of image {n} alone")


@law()
def judges_channels_alone(subject: Trial, case: Case, judge: Judge) -> None:
    """The gradient of channel c is what channel c alone gives, whatever the cotangents of the others are."""
    together, x, cotangent = presumed(subject, case), case["x"], case["cotangent"]
    whole = own(together["x"], judge(case)["x"])
    for c in few(x.shape[1]):
        here = np.s_[:, c : c + 1]
        channel = channel_of(whole, c)
        alone = _by(subject.gradients(case.but(x=x[here], cotangent=cotangent[here])), "x")
        subject.expect(alone, channel, f"the gradient of channel {c} alone")
        spoilt = np.full_like(cotangent, np.nan)
        spoilt[here] = cotangent[here]
        gradient = _by(subject.gradients(case.but(cotangent=spoilt)), "x")[here]
        subject.expect(gradient, channel, f"the gradient of channel {c}, where every other cotangent is NaN,")


@law(effort=4)
def ignores_frozen(subject: Trial, case: Case, judge: Judge) -> None:
    """Each gradient alone, and all without one: what is frozen changes nothing for the others."""
    if subject.form == "function" and not hasattr(subject.subject.framework, "vjp"):
        raise Lacks("a function's own vjp gives all gradients at once")
    expected = judge(case)
    alone, without = ([(name,) for name in expected], [tuple(n for n in expected if n != name) for name in expected])
    for wanted in filter(None, dict.fromkeys([*alone, *without])):
        frozen = " and ".join(name for name in expected if name not in wanted)
        found = subject.gradients(case, wanted=wanted)
        for name in wanted:
            subject.expect(_by(found, name), expected[name], f"the gradient of {name}, with {frozen} frozen,")


def _by(gradients: Mapping[str, Array], operand: str) -> Array:
    if operand not in gradients:
        raise Mismatch(f"there is no gradient of {operand}", holds=f"{operand!r} in gradient")
    return gradients[operand]

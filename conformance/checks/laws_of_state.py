"""Properties of what modules hold that many blocks share: parameters, buffers, and that two modules share neither."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from nnspec.adapters.signatures import SIGNATURES, entries
from nnspec.adapters.subject import Lacks
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Array, Case
from nnspec.conformance.checks.laws import law
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Built, Trial

Shapes = Mapping[str, tuple[int, ...]]


def made(subject: Trial, case: Case) -> Built:
    """Return a module of a case's sizes and arguments, as its constructor leaves it."""
    signature = SIGNATURES[case.stem]
    positional, keywords = signature.constructor(case.arrays, case.arguments)
    usual = {**signature.arguments, "bias": True, "affine": True}
    given = {name: value for name, value in keywords.items() if name not in usual or value != usual[name]}
    given.pop("training", None)
    module = subject.new(case.stem, *positional, **given)
    return Built(subject, module, case, entries(case.arrays))


def shapes_of(case: Case) -> Shapes:
    """Return the shapes of the entries that are among a case's arrays."""
    return {name: a.shape for name, a in entries(case.arrays).items()}


def has_parameters(layer: Built, wanted: Shapes) -> None:
    """The module's parameters have these keys and shapes, and there are no others."""
    found, _ = layer.registered()
    if found != wanted:
        raise Mismatch(f"the parameters are {_told(found)}, expected {_told(wanted)}")


def has_buffers(layer: Built, wanted: Shapes, optional: Collection[str] = ()) -> None:
    """What the module saves beside its parameters has these keys and shapes; `optional` keys may be there or not."""
    _, found = layer.registered()
    if found is None:
        raise Lacks("nothing says which of the module's entries are parameters")
    if {key: shape for key, shape in found.items() if key not in optional} != wanted:
        raise Mismatch(f"the buffers are {_told(found)}, expected {_told(wanted)}")


def _told(shapes: Shapes) -> str:
    return ", ".join(f"{key} {shape}" for key, shape in shapes.items()) or "none"


@law(forms="class", per_dtype=False, effort=2)
def parameters_are_complete(subject: Trial, case: Case, _judge: Any) -> None:
    """A new module has a parameter for each operand of the case, and no other."""
    has_parameters(made(subject, case), shapes_of(case))


@law(forms="class", per_dtype=False, effort=2)
def saves_no_buffers(subject: Trial, case: Case, _judge: Any) -> None:
    """Neither a new module saves anything beside its parameters, nor one that was called."""
    has_buffers(made(subject, case), {})
    layer = subject.build(case)
    layer(case["x"])
    has_buffers(layer, {})


@law(forms="class", per_dtype=False, effort=2)
def saves_nothing(subject: Trial, case: Case, _judge: Any) -> None:
    """Nothing to save, neither in a new module nor after a call."""
    layer = subject.build(case)
    for when in ("a new module", "a module that was called"):
        if state := layer.state(saved=True):
            raise Mismatch(f"{when} has the state {', '.join(sorted(state))}, expected none")
        layer(case["x"])


@law(forms="class", effort=2)
def shares_nothing(subject: Trial, case: Case, _judge: Any) -> None:
    """Of two new modules one is called in training mode and loaded; the other keeps its entries."""
    stay_apart(subject, made(subject, case), made(subject, case), case["x"])


def stay_apart(subject: Trial, first: Built, second: Built, x: Array) -> None:
    """The second module keeps its entries while the first is called in training mode and loaded."""
    before = second.state()
    first.train()(x)
    keeps(subject, second, before, "another module was called")
    if hasattr(first.native, "load_state_dict"):
        first.raise_state()
        keeps(subject, second, before, "another module was loaded")


def keeps(subject: Trial, layer: Built, before: Mapping[str, Array], when: str) -> None:
    """The module's entries are what they were; what it saves besides is for the checks of buffers."""
    after = layer.state()
    for key, array in before.items():
        if key not in after:
            raise Mismatch(f"{key} is no longer there, after {when}")
        subject.expect(after[key], Expected.exactly(array, array), f"{key}, after {when},")

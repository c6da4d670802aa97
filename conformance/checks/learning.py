"""Networks that learn: programs that build a small one and run passes there and back through it.

Where all values are integers, and the optimiser's numbers powers of two, a few passes round nothing, and the reference
is the model: what an expression gives there it must give here. (16-bit types do not count far enough for that, and
such checks are not for them.) Where batch norm rounds, a network is compared with
another one of the same subject that must do the same. Their batches have two rows, so that every sum over rows has two
terms, and does not depend on their order.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.for_reference import subject as reference_subject
from nnspec.adapters.subject import Lacks
from nnspec.conformance.case import Array
from nnspec.conformance.checks.trees import mapping, native
from nnspec.conformance.checks.within import argument
from nnspec.conformance.drawing import Draw, any_of, booleans, composite, integers
from nnspec.conformance.trial.programs import Program
from nnspec.conformance.trial.source import literal
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.linear import Linear

LAYERS = ("Sequential", "Linear", "ReLU")
SHAPES = {"first": {"weight": (2, 2), "bias": (2,)}, "head": {"weight": (1, 2), "bias": (1,)}}
BUILD = """\
def build():
    layer = lambda inputs, outputs: construct(Linear, (inputs, outputs), {{}}, np.dtype("{dtype}"))
    return Sequential(layer(2, 2), {between}, layer(2, 1))"""
WHOLE = """\
def build():
    return construct(MLP, (2, 2, 1), {{}}, np.dtype("{dtype}"))"""
# What is done to a network of `first` and `head` so that something in it is used twice
SHARED = (
    ("net = Sequential(first, ReLU(), first, head)",),
    ("net = Sequential(Sequential(first), ReLU(), first, ReLU(), head)",),
    (
        'tied = construct(Linear, (2, 2), {{}}, np.dtype("{dtype}"))',
        "tied.{weight}, tied.{bias} = first.{weight}, first.{bias}",
        "net = Sequential(first, ReLU(), tied, head)",
    ),
)
FORGET = "for p in net.parameters(): p.grad = None"


def differentiates(trial: Trial, *classes: str) -> bool:
    """Whether passes back can be run through the subject's layers."""
    subject = trial.subject
    layers = ("MLP",) if is_whole(trial) else LAYERS
    return all(subject.differentiates(subject.classes[name]) for name in (*layers, *classes))


class Pair:
    """A program on the subject, and the same one on the reference."""

    def __init__(self, trial: Trial, *needs: str) -> None:
        self.program, reference = networks(trial, *needs), reference_subject()
        classes = {**reference.classes, "Linear": _with_names(*own_names(trial).items())}
        self.model = Program(Trial(replace(reference, classes=classes), "class", trial.dtype))

    def run(self, *lines: str) -> Pair:
        """Run lines on both; the pair itself."""
        self.program.run(*lines)
        self.model.run(*lines)
        return self

    def same(self, *expressions: str) -> None:
        """Each expression gives on the subject the array, or None, that it gives on the reference."""
        for expression in expressions:
            if self.model.value(expression) is None:
                self.program.holds(f"{expression} is None")
            else:
                self.program.gives(expression, self.model.array(expression))


def networks(trial: Trial, *needs: str) -> Program:
    """A program of a subject that has modules to build networks of."""
    layers = ("MLP",) if is_whole(trial) else LAYERS
    program, classes = Program(trial, "Module", "Parameter", *layers, *needs), trial.subject.classes
    for name in layers:
        if not set(classes[name].__mro__) & set(classes["Module"].__mro__) - {object}:
            raise Lacks(f"{name} is no Module")
    own_names(trial)
    return program


def is_whole(trial: Trial) -> bool:
    """Whether networks come whole, as those of `init` and `apply` do, and not as layers to build them of."""
    classes = trial.subject.classes
    return "MLP" in classes and not any(name in classes for name in LAYERS)


def own_names(trial: Trial) -> dict[str, str]:
    """The attributes of the subject's Linear that are its weight and its bias, by which programs reach them."""
    if is_whole(trial):
        return {name: name for name in SHAPES["head"]}
    names = dict(trial.subject.roles("linear", trial.subject.classes["Linear"], ("weight", "bias")).keys)
    moved = {own for page, own in names.items() if own != page}
    if len(names) < 2 or moved & names.keys() or not all(own.isidentifier() for own in names.values()):
        raise Lacks("Linear has no attributes that are its weight and its bias")
    return names


def learnt(trial: Trial) -> list[str]:
    """Expressions for the parameters of `first` and `head`."""
    return [f"{layer}.{name}" for layer in SHAPES for name in own_names(trial).values()]


@functools.cache
def _with_names(*names: tuple[str, str]) -> type[Linear]:
    """The reference's layer, whose weight and bias are the attributes of these names."""

    class Named(Linear):
        pass

    def set_own(layer: Linear, value: Any, *, own: str) -> None:
        setattr(layer, own, value)

    for page, own in names:
        if own != page:
            setattr(Named, page, property(operator.attrgetter(own), functools.partial(set_own, own=own)))
    return Named


@dataclass(frozen=True)
class Learning:
    """A network's entries, batches and the cotangents of its results, and the numbers of an optimiser."""

    entries: dict[str, dict[str, Array]]
    batches: tuple[tuple[Array, Array], ...]
    numbers: dict[str, float] = field(default_factory=dict)
    written: frozenset[str] = frozenset()  # numbers that the optimiser has in its code, and that no call says

    def lines(self, trial: Trial) -> list[str]:
        """The lines that make `first`, `head`, and `net` of them."""
        if is_whole(trial):
            return [*self.build(trial), "first, head = net.fc1, net.fc2"]
        lines, dtype, names = [], trial.dtype, own_names(trial)
        for layer, entries in self.entries.items():
            outputs, inputs = entries["weight"].shape
            lines.append(f'{layer} = construct(Linear, ({inputs}, {outputs}), {{}}, np.dtype("{dtype}"))')
            lines.append(f"load_entries({layer}, {mapping({names[k]: a for k, a in entries.items()}, literal)})")
        return [*lines, "net = Sequential(first, ReLU(), head)"]

    def build(self, trial: Trial, *between: str) -> list[str]:
        """The lines that define build(), for networks with further layers in the middle, and a `net` of the entries."""
        places: dict[str, Any] = {"first": 0, "head": 1 + len(between)}
        names = own_names(trial)
        if is_whole(trial):
            places = {"first": "fc1", "head": "fc2"}
        entries = {f"{places[n]}.{names[k]}": a for n, layer in self.entries.items() for k, a in layer.items()}
        define = (WHOLE if is_whole(trial) else BUILD).format(dtype=trial.dtype, between=", ".join(between))
        return [define, "net = build()", f"load_entries(net, {mapping(entries, literal)})"]

    @property
    def arguments(self) -> str:
        """The optimiser's numbers, as a call says them."""
        return ", ".join(f"{name}={value!r}" for name, value in self.numbers.items() if name not in self.written)


def norm(dtype: str) -> str:
    """A layer with running statistics."""
    return f'construct(BatchNorm1d, (2,), {{}}, np.dtype("{dtype}"))'


def backward(batch: tuple[Array, Array], name: str = "net") -> str:
    """A pass there and back."""
    return f"backward({name}, {native(batch[0])}, {native(batch[1])})"


def learning(subject: Trial, *needs: str) -> None:
    """Raise Lacks where no passes back can be run."""
    networks(subject, *needs)
    if not differentiates(subject, *needs):
        raise Lacks("modules have no vjp")


def gradients(name: str = "net", keys: Iterable[str] = ()) -> list[str]:
    """Expressions for the gradients of a module's parameters."""
    return [f"dict({name}.named_parameters())[{key!r}].grad" for key in keys]


@composite
def learnings(
    draw: Draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    passes: tuple[int, int] = (1, 1),
    rows: tuple[int, int] = (1, 3),
    vary: tuple[str, ...] = (),
) -> Any:
    """A network of integers up to ±3, batches of ±1, ±2, ±4 and cotangents of ±1, ±2: products with them are exact."""
    rng = np.random.default_rng(draw(integers(0, 2**16 - 1)))

    def signed(shape: tuple[int, ...], *sizes: int) -> Array:
        return (rng.choice([-1, 1], shape) * rng.choice(sizes, shape)).astype(dtype)

    entries = {layer: {k: signed(s, 1, 2, 3) for k, s in shapes.items()} for layer, shapes in SHAPES.items()}
    sizes = [draw(integers(*rows)) for _ in range(draw(integers(*passes)))]
    batches = tuple((signed((n, 2), 1, 2, 4), signed((n, 1), 1, 2)) for n in sizes)
    numbers = {"lr": draw(argument("lr", any_of(1.0, 0.5), (1.0, 0.5), neutral=1.0, varies=True))}
    for name in vary:
        varies = name not in lacks and draw(booleans())
        value = draw(argument(name, any_of(0.5, 1.0), (0.5, 1.0), neutral=0.0, varies=varies))
        numbers |= {name: value} if varies or value else {}
    if not draw.domain.allows("elements", [math.prod(s) for shapes in SHAPES.values() for s in shapes.values()]):
        raise OutOfDomain(draw.domain.outside("elements"))
    return Learning(entries, batches, numbers, draw.written)

"""What a user's function or class shows not to take, where its file says nothing.

Unequal pairs, numbers of dimensions, a bias at will:

    class Conv2d(nn.Module):  # square kernels, and never a bias
        def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0): ...

A call with a kernel of (1, 2) raises there, where one with 2 returns. Its other requirements are judged within the
domain that it shows, and one requirement asks for unequal pairs, or for each number of dimensions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from nnspec.adapters.blame import Lacks, Raised, Unsupported, watched
from nnspec.adapters.claims import parameters, required
from nnspec.adapters.conditions import Condition, one_of, square
from nnspec.adapters.quantities import QUANTITIES
from nnspec.adapters.roles import agree
from nnspec.adapters.signatures import COTANGENT, EQUATION, SIGNATURES
from nnspec.adapters.subject import Subject
from nnspec.adapters.trying import Watch, at_once, filled

# of each argument of rows and columns: an unequal pair, and one number
TRIED: dict[str, tuple[tuple[int, int], int]] = {
    "kernel_size": ((1, 2), 2),
    "stride": ((1, 2), 2),
    "padding": ((0, 1), 1),
    "dilation": ((1, 2), 2),
    "output_padding": ((0, 1), 1),
}
# of blocks that take x of several numbers of dimensions: the shapes in front of the features or channels, and behind
RANKS: dict[str, tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]] = {
    **dict.fromkeys(("linear", "mlp"), (((), ()), ((2,), ()), ((2, 3), ()))),
    "batch_norm": (((5,), ()), ((5,), (7,)), ((5,), (6, 7))),  # sizes that are no numbers of channels: none broadcasts
}
# of einsum's quantities, an equation of two axes; the same without that part
EQUATIONS = {"ellipsis": ("...i->...i", "ij->ij"), "implicit": ("ij", "ij->ij")}
FLAGS = {"bias": ("bias",), "affine": ("weight", "bias")}  # a quantity -> the operands that it is about


class _Call(NamedTuple):
    arrays: dict[str, np.ndarray | None]
    arguments: dict[str, Any]


def narrowed(subject: Subject, blocks: Collection[str] | None, watch: Watch = at_once) -> Subject:
    """Return the subject with the domains that calls of its blocks (all, or these) show, on top of its own."""
    own = replace(subject, framework=watched(subject.framework))  # type: ignore[arg-type]  # so that it tells who raised
    found = dict(subject.domains)
    for stem in (stem for stem in QUANTITIES if not blocks or stem in blocks):
        forms = [_Form(own, stem, form, watch) for form in own.forms(stem) if (stem, form) not in own.uncallable]
        shown = dict(condition for form in forms for condition in form.shown())
        backward = dict(condition for form in forms for condition in form.shown_backward())
        if shown or backward:
            before = subject.domain(stem)
            both, names = {**before.conditions, **shown}, before.shown.union(shown)
            found[stem] = replace(before, stem=stem, conditions=both, shown=names, backward=backward)
    return replace(subject, domains=found) if found != subject.domains else subject


@dataclass(frozen=True)
class _Form:
    """A block of a subject as a function or as a class, of which typical calls are made."""

    subject: Subject
    stem: str
    form: str
    watch: Watch

    def shown(self) -> Iterator[tuple[str, Condition]]:
        """Yield each quantity that the file declares nothing about, and the condition that calls show."""
        known, lacks = self.subject.domain(self.stem).conditions, self.subject.lacks(self.stem, self.form)
        for name, quantity in QUANTITIES[self.stem].items():
            if name in known or name in lacks:
                continue
            if quantity.kind == "pair" and self._takes_numbers_alone(name):
                yield name, square()
            elif name in FLAGS and not lacks & {*FLAGS[name]} and (has := self._always(name)) is not None:
                yield name, one_of(has)
            elif name == "ndim" and (ranks := self._ranks()):
                yield name, one_of(*ranks)
            elif name in EQUATIONS and EQUATION not in known and self._takes_none(*EQUATIONS[name]):
                yield name, one_of(False)

    def shown_backward(self) -> Iterator[tuple[str, Condition]]:
        """Yield what gradients show: numbers of dimensions of x, and whether they are those of training alone."""
        known = self.subject.domain(self.stem).conditions
        if "vjp" in self.subject.lacks(self.stem, self.form):
            return
        if "ndim" not in known and (ranks := self._ranks(backward=True)):
            yield "ndim", one_of(*ranks)
        if self.stem == "batch_norm" and "training" not in known and self._goes_back_in_training_alone():
            yield "training", one_of(True)

    def _goes_back_in_training_alone(self) -> bool:
        """Return whether the gradient of x is the reference's in training, and another one in evaluation."""
        for usual in self._calls():
            if self._gradient_is_right(usual, training=True):
                return self._gradient_is_right(usual, training=False) is False
        return False

    def _gradient_is_right(self, usual: _Call, *, training: bool) -> bool | None:
        """Return whether the gradient of x is the reference's, to half the digits; None where there is none."""
        from nnspec.adapters.for_reference import subject as reference

        rng, x = np.random.default_rng(0), usual.arrays["x"]
        assert x is not None
        spread, cotangent = (rng.uniform(-1, 1, x.shape).astype(x.dtype) for _ in range(2))
        arrays = {**usual.arrays, "x": spread, COTANGENT: cotangent}
        about = self.stem, self.form, arrays, {**usual.arguments, "training": training}, ("x",)
        found = self._watched(functools.partial(self.subject.gradients, *about), f"gradients of {self.stem}")
        right = reference().gradients(*about)["x"]
        if not isinstance(found, dict) or found.get("x") is None or right is None:
            return None
        return agree(found["x"], right)

    def _takes_numbers_alone(self, name: str) -> bool:
        """Return whether an unequal pair raises for an argument of rows and columns, and one number does not."""
        if self.form == "function" and name not in SIGNATURES[self.stem].arguments:  # a kernel's sizes are its weight's
            return False
        pair, number = TRIED[name]
        for usual in self._calls():
            if isinstance(self._outcome(self._with(usual, name, number)), tuple):
                return isinstance(self._outcome(self._with(usual, name, pair)), Raised)
        return False

    def _always(self, flag: str) -> bool | None:
        """Return whether a function always needs operands, having no default, or a class always or never has them."""
        operands = {*FLAGS[flag]}
        usual = next((c for c in self._calls() if all(c.arrays[operand] is not None for operand in operands)), None)
        if usual is None or not self._may_be_fixed(usual, flag):
            return None
        present = self._outcome(usual)
        absent = self._outcome(usual._replace(arrays={**usual.arrays, **dict.fromkeys(operands)}))
        if isinstance(present, tuple) and isinstance(absent, Raised | Lacks):
            return True
        return False if isinstance(present, Unsupported) and isinstance(absent, tuple) else None

    def _may_be_fixed(self, usual: _Call, flag: str) -> bool:
        """Return whether a function has no default for operands, or the class of a call no argument to choose them."""
        if self.form == "function":
            return required(self.subject.functions[str(SIGNATURES[self.stem].function)]) >= {*FLAGS[flag]}
        accepted = parameters(self.subject.classes[self.subject.class_of(self.stem, usual.arrays)])
        return accepted is not None and flag not in accepted

    def _takes_none(self, equation: str, without: str) -> bool:
        """Return whether an equation raises, and another one does not."""
        first = next(self._calls())
        usual, tried = (first._replace(arguments={EQUATION: text}) for text in (without, equation))
        return isinstance(self._outcome(usual), tuple) and isinstance(self._outcome(tried), Raised)

    def _ranks(self, *, backward: bool = False) -> list[int]:
        """Return the numbers of dimensions of x for which calls give results of the right shape; none if all do.

        `backward`: of these, those for which gradients have the right shapes.
        """
        right, tried = list[int](), 0
        for usual in self._calls() if self.stem in RANKS else ():
            calls = {len(shape): (shape, call) for shape, call in self._of_ranks(usual)}
            outcomes = {rank: (shape, self._outcome(call)) for rank, (shape, call) in calls.items()}
            if backward:
                there = [n for n, (shape, outcome) in outcomes.items() if outcome == self._result(usual, shape)]
                outcomes = {n: (calls[n][0], self._gradients(calls[n][1], outcomes[n][1])) for n in there}
            of_call = [rank for rank, (shape, outcome) in outcomes.items() if outcome == self._result(usual, shape)]
            told = all(isinstance(outcome, tuple | Raised) for _, outcome in outcomes.values())
            if of_call and told:
                right, tried = [rank for rank in of_call if not right or rank in right], len(outcomes)
        return right if right and len(right) < tried else []

    def _gradients(self, call: _Call, result: Any) -> tuple[int, ...] | BaseException:
        """Return the shape of the result if gradients have those of their operands; if not, (), or what is raised."""
        dtype = next(a.dtype.name for a in call.arrays.values() if a is not None)
        given = {**call.arrays, COTANGENT: filled(result, dtype)}
        act = functools.partial(self.subject.gradients, self.stem, self.form, given, call.arguments)
        found = self._watched(act, f"gradients of {self.stem}{result}")
        if not isinstance(found, dict):
            return found
        present = {n: a for n, a in call.arrays.items() if a is not None and n in found}
        return result if all(np.shape(found[n]) == a.shape for n, a in present.items()) else ()

    def _of_ranks(self, usual: _Call) -> Iterator[tuple[tuple[int, ...], _Call]]:
        """Yield a call with an x of each number of dimensions, and the shape of x."""
        x, channels = usual.arrays["x"], usual.arrays.get("running_mean")
        assert x is not None
        for leading, trailing in RANKS[self.stem]:
            shape = (*leading, x.shape[-1] if channels is None else len(channels), *trailing)
            if self._has_class(len(shape)):
                yield shape, usual._replace(arrays={**usual.arrays, "x": filled(shape, x.dtype.name)})

    def _has_class(self, rank: int) -> bool:
        """Return whether there is a class for an x of so many dimensions; a function takes any."""
        signature = SIGNATURES[self.stem]
        classes = (name for name in signature.classes if name in self.subject.classes)
        return self.form == "function" or any(signature.takes(name, rank) for name in classes)

    def _result(self, usual: _Call, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that the result must have, for an x of this shape."""
        weights = [a for name, a in usual.arrays.items() if name.endswith("weight") and a is not None]
        return shape if "running_mean" in usual.arrays else (*shape[:-1], len(weights[-1]))

    def _calls(self) -> Iterator[_Call]:
        """Yield the block's typical calls, for whose x there is a class."""
        dtype = self.subject.within(self.stem).dtypes[0]
        for shapes, arguments in self.subject.calls(self.stem):
            x = shapes.get("x")
            if x is not None and not self._has_class(len(x)):
                continue
            arrays = {name: None if shape is None else filled(shape, dtype) for name, shape in shapes.items()}
            yield _Call(arrays, {**SIGNATURES[self.stem].arguments, **arguments})

    def _with(self, usual: _Call, name: str, value: Any) -> _Call:
        """Return a call with another value of an argument; an output padding needs a stride above it."""
        if name == "kernel_size" and (weight := usual.arrays.get("weight")) is not None:
            size = value if isinstance(value, tuple) else (value, value)
            kernel = filled((*weight.shape[:2], *size), weight.dtype.name)
            return usual._replace(arrays={**usual.arrays, "weight": kernel})
        stride = {"stride": 2} if name == "output_padding" else {}
        return usual._replace(arguments={**usual.arguments, **stride, name: value})

    def _outcome(self, call: _Call) -> tuple[int, ...] | BaseException:
        """Return the shape of what a call gives, or what it raises."""
        shapes = [f"{name}{'=None' if a is None else a.shape}" for name, a in call.arrays.items()]
        given = [*shapes, *(f"{name}={value!r}" for name, value in call.arguments.items())]
        act = functools.partial(self.subject.call, self.stem, self.form, call.arrays, call.arguments)
        results = self._watched(act, f"{self.stem}({', '.join(given)})")
        return results if isinstance(results, BaseException) else tuple(np.shape(results[0]))

    def _watched(self, act: Callable[[], Any], what: str) -> Any:
        """Return what a call gives, or what it raises."""
        try:
            return self.watch(f"{what} as a {self.form}", act)
        except Exception as error:  # what is nnspec's or an adapter's fault, the checks will name
            return error

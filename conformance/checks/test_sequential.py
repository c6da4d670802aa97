"""The requirements of spec/sequential.md, in the page's order. A case is run as a program: layers, and a chain of them.

The layers are the subject's own Linear and ReLU. What they should give is asked of them one by one, so that a mistake
in a layer is not held against the chain: the same calls on the same arrays must give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnspec.adapters.subject import Unsupported
from nnspec.conformance.case import Array
from nnspec.conformance.checks.cases import data
from nnspec.conformance.drawing import any_of, composite, integers, lists, one_of, reaches
from nnspec.conformance.requirements import requirement
from nnspec.conformance.trial.programs import Program
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.source import literal
from nnspec.conformance.trial.trial import Trial

NAMES = "abcdefghijkl"
AFFINE = """\
def affine(weight, bias):
    layer = construct(Linear, {sizes}, {{}}, np.dtype("{dtype}"))
    load_entries(layer, {{{own[0]!r}: np.array({weight}, "{dtype}"), {own[1]!r}: np.array({bias}, "{dtype}")}})
    return layer
"""
# Of one feature; and of two, where no two layers commute: numbers would hand back the same in any order
SIZES = {
    1: {"sizes": (1, 1), "weight": "[[weight]]", "bias": "[bias]"},
    2: {"sizes": (2, 2), "weight": "[[0, weight], [1, bias]]", "bias": "[bias, 1]"},
}
Layer = tuple[int, int] | None  # weight and bias, or ReLU


def own_keys(subject: Trial) -> list[str]:
    """The subject's own keys of a linear layer's weight and bias."""
    page = ("weight", "bias")
    return list(subject.subject.roles("linear", subject.subject.classes["Linear"], page).own(dict.fromkeys(page)))


@dataclass(frozen=True)
class Chain:
    """Layers in a row, called a, b, c, …, and an input of shape (N, 1) or (N, 2)."""

    layers: tuple[Layer, ...]
    x: Array

    @property
    def names(self) -> str:
        """One letter for each layer."""
        return NAMES[: len(self.layers)]

    @property
    def input(self) -> str:
        """The input in the words of a program."""
        return f"to_native({literal(self.x)})"

    def program(self, subject: Trial) -> Program:
        """A program that defines the layers."""
        program = Program(subject, "Linear")
        try:
            affine = AFFINE.format(dtype=subject.dtype, own=own_keys(subject), **SIZES[self.x.shape[1]])
            program.run(affine.rstrip())
            for name, layer in zip(self.names, self.layers, strict=True):
                if layer is None and "ReLU" in subject.subject.classes:
                    program.run(f"{name} = ReLU()")
                else:
                    program.run(f"{name} = affine({', '.join(map(str, layer or (3, -2)))})")
        except Mismatch as mismatch:
            raise Unsupported(f"no layers to put in a row: {mismatch.message}") from None
        return program


@composite
def chains(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    lengths: Sequence[int] = (1, 2, 3, 4),
    features: int = 1,
):
    """Some layers: affine maps of small integers, and ReLU."""
    affine = any_of((2, 1), (-1, 0), (-2, -3))
    length = draw(any_of(*lengths))
    layers = draw(lists(one_of(affine, any_of(None)), min_size=length, max_size=length))
    return Chain(tuple(layers), draw(data(dtype, ("integers",))).inputs(draw(integers(1, 3)), features))


def row(names: Sequence[str]) -> str:
    """A Sequential of the layers of these names."""
    return f"Sequential({', '.join(names)})"


def composed(names: Sequence[str], x: str) -> str:
    """The layers one around the other: the first one innermost."""
    for name in names:
        x = f"{name}({x})"
    return x


def runs(program: Program, what: str, names: Sequence[str], x: str) -> None:
    """What the layers give one by one. (No layers: x itself.)"""
    program.gives(f"{what}({x})", program.array(composed(names, x)))


def holds_these(program: Program, what: str, names: Sequence[str]) -> None:
    """Iteration gives the very layers, in this order."""
    layers = ", ".join(names)
    program.holds(f"[id(m) for m in {what}] == [id(m) for m in [{layers}]]", f"iterating over {what} gives {layers}")


# -- calls -------------------------------------------------------------------------------------------------------------


@requirement("sequential.call.order", chains, lengths=(2, 3, 12))
def test_call_order(subject: Trial, case: Chain) -> None:
    """Each layer on the result of the one before it; twelve of them too, whose names are longer than a digit."""
    runs(case.program(subject).run(f"chain = {row(case.names)}"), "chain", case.names, case.input)


@requirement("sequential.call.empty", chains, effort=2)
def test_call_empty(subject: Trial, case: Chain) -> None:
    """Without layers the input comes out."""
    case.program(subject).gives(f"Sequential()({case.input})", case.x)


@requirement("sequential.call.nested", chains, lengths=(3, 4))
def test_call_nested(subject: Trial, case: Chain) -> None:
    """The middle layers in a Sequential of their own, and in one more."""
    first, *middle, last = [*case.names]
    for inner in (row(middle), f"Sequential({row(middle)})"):
        program = case.program(subject).run(f"chain = {row([first, inner, last])}")
        runs(program, "chain", case.names, case.input)


@requirement("sequential.call.twice", chains, lengths=(1, 2, 3))
def test_call_twice(subject: Trial, case: Chain) -> None:
    """Every layer stands in two places."""
    names = case.names * 2
    program = case.program(subject).run(f"chain = {row(names)}")
    runs(program, "chain", names, case.input)
    lacks = subject.subject.lacks("sequential", "class")
    if "__len__" not in lacks:
        program.equals("len(chain)", len(names))
    if "__iter__" not in lacks:
        holds_these(program, "chain", names)


@requirement("sequential.call.current", chains, lengths=(1, 2, 3))
def test_call_current(subject: Trial, case: Chain) -> None:
    """A call, new values for each affine layer, and a call."""
    program = case.program(subject).run(f"chain = {row(case.names)}", f"chain({case.input})")
    for name, layer in zip(case.names, case.layers, strict=True):
        if layer is not None:
            weight, bias = (np.full(shape, 4, subject.dtype) for shape in ((1, 1), (1,)))
            own = own_keys(subject)
            program.run(f"load_entries({name}, {{{own[0]!r}: {literal(weight)}, {own[1]!r}: {literal(bias)}}})")
    runs(program, "chain", case.names, case.input)


@requirement("sequential.input.unchanged", chains, effort=2)
def test_input_unchanged(subject: Trial, case: Chain) -> None:
    """The input after the call is the one before it."""
    program = case.program(subject).run(f"chain = {row(case.names)}", f"x = {case.input}", "y = chain(x)")
    program.gives("x", case.x)


# -- gradients ---------------------------------------------------------------------------------------------------------


@composite
def differentiated(draw, *, lengths: Sequence[int] = (1, 2, 3, 4), **choices: Any):
    """A chain, and a cotangent of its result. All are small integers, of which no sum is rounded."""
    chain = draw(chains(lengths=lengths, features=2, **choices))
    return chain, draw(data(chain.x.dtype.name, ("integers",))).inputs(*chain.x.shape)


def differentiate(what: str, x: Array, cotangent: Array) -> str:
    """The gradients of a module, in the words of a program."""
    return f"differentiate_module({what}, to_native({literal(x)}), to_native({literal(cotangent)}))"


def hand_back(program: Program, names: Sequence[str], x: Array, cotangent: Array) -> tuple[Array, dict[str, Array]]:
    """What the layers, asked one by one from the last to the first, hand back to x; and to each `layer.key` in all."""
    found: dict[str, Array] = {}
    try:
        inputs = [program.array(composed(names[:n], f"to_native({literal(x)})")) for n in range(len(names))]
        for name, own in zip(reversed(names), reversed(inputs), strict=True):
            back = program.value(f"{{n: to_numpy(g) for n, g in {differentiate(name, own, cotangent)}.items()}}")
            cotangent = np.array(back.pop("x"))
            for key, gradient in back.items():
                found[f"{name}.{key}"] = found.get(f"{name}.{key}", 0) + gradient
    except Mismatch as mismatch:
        raise Unsupported(f"layers that cannot be differentiated: {mismatch.message}") from None
    return cotangent, found


def runs_back(
    subject: Trial, case: tuple[Chain, Array], what: str, names: Sequence[str], *, parameters: bool = True
) -> None:
    """The chain `what` hands back to x, and to its parameters, what its layers do, which run in this order."""
    chain, cotangent = case
    program = chain.program(subject)
    to_x, to_parameters = hand_back(program, names, chain.x, cotangent)
    program.run(f"chain = {what}", f"gradient = {differentiate('chain', chain.x, cotangent)}")
    program.gives("gradient['x']", to_x)
    if not parameters:
        return
    program.run("key = {id(p): name for name, p in chain.named_parameters()}")  # whatever the chain calls them
    for layer_and_key, gradient in to_parameters.items():
        name, _, own = layer_and_key.partition(".")
        program.gives(f"gradient[key[id(dict({name}.named_parameters())[{own!r}])]]", gradient)


@requirement("sequential.gradient.x", differentiated, needs="vjp")
def test_gradient_x(subject: Trial, case: tuple[Chain, Array]) -> None:
    """The last layer first, each at the input that it had."""
    names = case[0].names
    runs_back(subject, case, row(names), names, parameters=False)


@requirement("sequential.gradient.parameters", differentiated, needs=("vjp", "named_parameters"))
def test_gradient_parameters(subject: Trial, case: tuple[Chain, Array]) -> None:
    """What each layer's parameters get at its place."""
    names = case[0].names
    runs_back(subject, case, row(names), names)


@requirement("sequential.gradient.nested", differentiated, needs=("vjp", "named_parameters"), lengths=(3, 4))
def test_gradient_nested(subject: Trial, case: tuple[Chain, Array]) -> None:
    """The middle layers in a Sequential of their own."""
    first, *middle, last = [*case[0].names]
    runs_back(subject, case, row([first, row(middle), last]), case[0].names)


@requirement("sequential.gradient.twice", differentiated, needs=("vjp", "named_parameters"), lengths=(1, 2))
def test_gradient_twice(subject: Trial, case: tuple[Chain, Array]) -> None:
    """Every layer in two places: the sum of what it gets in each."""
    names = case[0].names * 2
    runs_back(subject, case, row(names), names)


@requirement("sequential.gradient.empty", differentiated, needs="vjp", lengths=(0,), effort=2)
def test_gradient_empty(subject: Trial, case: tuple[Chain, Array]) -> None:
    """Without layers the cotangent comes back."""
    chain, cotangent = case
    program = Program(subject)
    program.gives(f"{differentiate('Sequential()', chain.x, cotangent)}['x']", cotangent)


@requirement("sequential.gradient.unchanged", differentiated, needs="vjp", effort=2)
def test_gradient_unchanged(subject: Trial, case: tuple[Chain, Array]) -> None:
    """Input and cotangent afterwards are those before."""
    chain, cotangent = case
    program = chain.program(subject).run(f"chain = {row(chain.names)}", f"x = {chain.input}")
    program.run(f"cotangent = to_native({literal(cotangent)})", "differentiate_module(chain, x, cotangent)")
    program.gives("x", chain.x)
    program.gives("cotangent", cotangent)


# -- the tree ----------------------------------------------------------------------------------------------------------


@requirement("sequential.state.keys", chains, lengths=(1, 2, 3, 12), needs="state_dict")
def test_state_keys(subject: Trial, case: Chain) -> None:
    """Positions in front of the layers' own keys; the layers once more in a Sequential at the end."""
    program = case.program(subject)
    own = {n: program.value(f"sorted({n}.state_dict())") for n in case.names}
    keys = [f"{i}.{key}" for i, name in enumerate(case.names) for key in own[name]]
    keys += [f"{len(own)}.{key}" for key in keys]
    program.run(f"chain = {row(case.names)}", f"chain = {row([*case.names, 'chain'])}")
    program.equals("sorted(chain.state_dict())", sorted(keys))


def has_parameters(program: Program, what: str, names: Sequence[str]) -> None:
    """Exactly the layers' own parameters, each once."""
    layers = f"[{', '.join(names)}]"
    program.holds(
        f"sorted(id(p) for p in {what}.parameters()) == sorted({{id(p) for m in {layers} for p in m.parameters()}})",
        f"{what}.parameters() gives the parameters of {', '.join(names)}, each once",
    )


@requirement("sequential.parameters.complete", chains, needs="parameters")
def test_parameters_complete(subject: Trial, case: Chain) -> None:
    """Of the first layer in a row, and of the others one level deeper."""
    first, *others = [*case.names]
    has_parameters(case.program(subject).run(f"chain = {row([first, row(others)])}"), "chain", case.names)


@requirement("sequential.parameters.shared-once", chains, lengths=(1, 2, 3), needs=("parameters", "state_dict"))
def test_parameters_shared_once(subject: Trial, case: Chain) -> None:
    """Every layer in two places: the keys that it and a copy of it would have, and one parameter."""
    program = case.program(subject).run(f"chain = {row(case.names * 2)}")
    has_parameters(program, "chain", case.names)
    program.run(f"apart = {row([*case.names, *(f'copy.deepcopy({name})' for name in case.names)])}")
    program.equals("sorted(chain.state_dict())", program.value("sorted(apart.state_dict())"))


@requirement("sequential.mode.reaches-all", chains, needs=("train", "eval"))
def test_mode_reaches_all(subject: Trial, case: Chain) -> None:
    """The chain, the chain in it, its layers and one that was appended."""
    program = case.program(subject)
    program.run(f"inner = {row(case.names)}", "chain = Sequential(inner)")
    members = ["chain", "inner", *case.names]
    if "append" not in subject.subject.lacks("sequential", "class"):
        program.run("late = affine(2, 1)", "chain.append(late)")
        members.append("late")
    for line, mode in (("chain.eval()", False), ("chain.train()", True)):
        program.run(line)
        for member in members:
            program.equals(f"{member}.training", mode)


@requirement("sequential.append.runs", chains, lengths=(1, 2, 3, 12), needs="append")
def test_append_runs(subject: Trial, case: Chain) -> None:
    """All layers but some at the beginning are appended, one after the other, with a call after each."""
    for given in {0, len(case.names) - 1}:
        program = case.program(subject).run(f"chain = {row(case.names[:given])}", f"chain({case.input})")
        for upto in range(given + 1, len(case.names) + 1):
            program.run(f"chain.append({case.names[upto - 1]})")
            runs(program, "chain", case.names[:upto], case.input)


@requirement("sequential.append.state", chains, lengths=(1, 2, 3, 12), needs=("append", "state_dict", "parameters"))
def test_append_state(subject: Trial, case: Chain) -> None:
    """The keys that a layer has if it is given to the constructor, and the layer's own parameters."""
    program = case.program(subject).run("chain = Sequential()")
    for upto, name in enumerate(case.names, start=1):
        program.run(f"chain.append({name})", f"given = {row(case.names[:upto])}")
        program.equals("sorted(chain.state_dict())", program.value("sorted(given.state_dict())"))
    has_parameters(program, "chain", case.names)
    entries = " + ".join(f"len({name}.state_dict())" for name in case.names)
    program.holds(f"len(chain.state_dict()) == {entries}")


@requirement("sequential.append.returns-self", chains, needs="append")
def test_append_returns_self(subject: Trial, case: Chain) -> None:
    """Appended to a Sequential of the others."""
    program = case.program(subject).run(f"chain = {row(case.names[:-1])}")
    program.holds(f"chain.append({case.names[-1]}) is chain")


# -- the list ----------------------------------------------------------------------------------------------------------


@requirement("sequential.length.count", chains, lengths=(1, 2, 3, 12), needs="__len__")
def test_length_count(subject: Trial, case: Chain) -> None:
    """In a row, in one more Sequential, with one appended, and of none."""
    program = case.program(subject).run(f"chain = {row(case.names)}")
    program.equals("len(chain)", len(case.names))
    program.equals(f"len(Sequential(chain, {case.names[0]}))", 2)
    program.equals("len(Sequential())", 0)
    if "append" not in subject.subject.lacks("sequential", "class"):
        program.run("chain.append(affine(2, 1))").equals("len(chain)", len(case.names) + 1)


@requirement("sequential.iteration.order", chains, lengths=(1, 2, 3, 12), needs="__iter__")
def test_iteration_order(subject: Trial, case: Chain) -> None:
    """The very layers, twelve too."""
    holds_these(case.program(subject).run(f"chain = {row(case.names)}"), "chain", case.names)


@requirement("sequential.index.position", chains, lengths=(1, 2, 3, 12), needs="__getitem__")
def test_index_position(subject: Trial, case: Chain) -> None:
    """Every position from the front."""
    program = case.program(subject).run(f"chain = {row(case.names)}")
    for i, name in enumerate(case.names):
        program.holds(f"chain[{i}] is {name}")


@requirement("sequential.index.negative", chains, lengths=(1, 2, 3, 12), needs="__getitem__")
def test_index_negative(subject: Trial, case: Chain) -> None:
    """Every position from the end."""
    program = case.program(subject).run(f"chain = {row(case.names)}")
    for i, name in enumerate(reversed(case.names), start=1):
        program.holds(f"chain[-{i}] is {name}")


@composite
def sliced(draw, *, steps: Sequence[int | None], lengths: Sequence[int] = (2, 3, 4, 12), **choices: Any):
    """A chain, and a slice of it: its bounds are absent, inside, negative, or beyond the ends."""
    chain = draw(chains(lengths=lengths, **choices))
    length = len(chain.layers)
    bounds = one_of(any_of(None), integers(0, length + 2), integers(-length - 2, -1))
    return chain, slice(draw(bounds), draw(bounds), draw(any_of(*steps)))


def follows_slice(subject: Trial, chain: Chain, part: slice) -> None:
    """A Sequential of the layers that a list would give, that runs them in this order."""
    text = ":".join("" if bound is None else str(bound) for bound in (part.start, part.stop, part.step))
    names = list(chain.names)[part]
    text = text.removesuffix(":") if part.step is None else text
    program = chain.program(subject).run(f"chain = {row(chain.names)}", f"part = chain[{text}]")
    runs(program, "part", names, chain.input)
    program.equals("len(part)", len(names))
    program.holds("isinstance(part, Sequential)")


@requirement("sequential.slice.range", sliced, steps=(None,), needs=("__getitem__", "__len__"))
def test_slice_range(subject: Trial, case: tuple[Chain, slice]) -> None:
    """Bounds alone."""
    follows_slice(subject, *case)


@requirement("sequential.slice.step", sliced, steps=(2, 3), needs=("__getitem__", "__len__"))
def test_slice_step(subject: Trial, case: tuple[Chain, slice]) -> None:
    """Every second or third."""
    follows_slice(subject, *case)


@requirement("sequential.slice.reversed", sliced, steps=(-1, -2), needs=("__getitem__", "__len__"))
def test_slice_reversed(subject: Trial, case: tuple[Chain, slice]) -> None:
    """Backwards."""
    follows_slice(subject, *case)


@requirement("sequential.slice.shares", chains, lengths=(2, 3, 4), needs=("__getitem__", "__iter__"))
def test_slice_shares(subject: Trial, case: Chain) -> None:
    """All layers but the first are the very same."""
    program = case.program(subject).run(f"chain = {row(case.names)}", "part = chain[1:]")
    holds_these(program, "part", case.names[1:])


@requirement("sequential.slice.independent", chains, needs=("__getitem__", "append"))
def test_slice_independent(subject: Trial, case: Chain) -> None:
    """Appended to a slice that has everything."""
    program = case.program(subject).run(f"chain = {row(case.names)}", "part = chain[:]", "part.append(affine(2, 5))")
    runs(program, "chain", case.names, case.input)


# -- refusals ----------------------------------------------------------------------------------------------------------


@composite
def beyond(draw, **choices: Any):
    """A chain, perhaps an empty one, and how far an index lies beyond its end."""
    return draw(chains(lengths=(0, 1, 2, 3), **choices)), draw(integers(0, 4))


@requirement("sequential.refuses.index", beyond, needs="__getitem__", per_dtype=False)
def test_refuses_index(subject: Trial, case: tuple[Chain, int]) -> None:
    """len and more."""
    chain, further = case
    program = chain.program(subject).run(f"chain = {row(chain.names)}")
    program.refuses(f"chain[{len(chain.names) + further}]", kinds=(IndexError,))


@requirement("sequential.refuses.negative-index", beyond, needs="__getitem__", per_dtype=False)
def test_refuses_negative_index(subject: Trial, case: tuple[Chain, int]) -> None:
    """−len − 1 and below."""
    chain, further = case
    program = chain.program(subject).run(f"chain = {row(chain.names)}")
    program.refuses(f"chain[{-len(chain.names) - 1 - further}]", kinds=(IndexError,))


@requirement("sequential.refuses.non-module", chains, per_dtype=False)
def test_refuses_non_module(subject: Trial, case: Chain) -> None:
    """A number, a function and a list, alone and behind layers, in the constructor and in append."""
    names = case.names[:-1]
    for wrong in ("3", "lambda x: x", f"[{', '.join(case.names)}]"):
        case.program(subject).refuses(row([*names, wrong]))
        if "append" not in subject.subject.lacks("sequential", "class"):
            case.program(subject).run(f"chain = {row(names)}").refuses(f"chain.append({wrong})")


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_every_kind_of_slice() -> None:
    """Bounds absent, negative, beyond either end, empty slices, and more than ten layers."""
    for corner in (
        lambda c: c[1].start is None and c[1].stop is not None,
        lambda c: c[1].start is not None and c[1].start < -len(c[0].layers),
        lambda c: c[1].stop is not None and c[1].stop > len(c[0].layers),
        lambda c: not c[0].layers[c[1]],
        lambda c: len(c[0].layers[c[1]]) > 10,
    ):
        reaches(sliced(dtype="float32", steps=(None, 1)), corner)


def test_reach_gradients() -> None:
    """ReLU that stops some of what comes back and not all, and different layers on either side of it."""

    def corner(case: tuple[Chain, Array]) -> bool:
        first, second, third = case[0].layers
        if first is None or second is not None or third is None or first[0] == third[0]:
            return False
        hidden = case[0].x @ np.array([[0, first[0]], [1, first[1]]]).T + [first[1], 1]
        return bool((hidden > 0).any() and (hidden <= 0).any())

    reaches(differentiated(dtype="float32", lengths=(3,)), corner)


def test_reach_layers_of_both_kinds() -> None:
    """ReLU between affine layers, where the order can be seen."""
    reaches(
        chains(dtype="float32", lengths=(3,)),
        lambda c: c.layers[1] is None and c.layers[0] is not None and c.layers[2] is not None,
    )

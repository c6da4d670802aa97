"""The life of a network: a Hypothesis state machine that builds, calls, switches, saves, loads, copies and trains it.

Every step is a line of Python that is run on the subject and on the reference; outputs, states and modes must then be
the same. All values are small integers and the optimiser moves by integers, so that there is nothing to round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from nnspec.adapters.for_reference import subject as reference_subject
from nnspec.adapters.subject import Unsupported
from nnspec.conformance.cases import Array
from nnspec.conformance.programs import Program
from nnspec.conformance.script import literal
from nnspec.conformance.trees import mapping, native
from nnspec.conformance.trial import Trial

NET = """\
class Net(Module):
    def __init__(self):
        super().__init__()
        self.body = Sequential(construct(Linear, (2, 2), {{}}, np.dtype("{dtype}")), ReLU())
        self.norm = {norm}
        self.head = construct(Linear, (2, 1), {{}}, np.dtype("{dtype}"))
    def forward(self, x):
        x = self.body(x)
        if self.norm is not None:
            self.norm(x)  # counts batches; what it gives is rounded, and so not used
        return self.head(x)"""
LINEAR = {"body.0.weight": (2, 2), "body.0.bias": (2,), "head.weight": (1, 2), "head.bias": (1,)}
MODULES = ("net", "net.body", "net.body[0]", "net.body[1]", "net.head")
GRADIENTS = "for p in net.parameters(): p.grad = p.data * 0 + {}"
integers = st.integers(0, 2**16 - 1).map(np.random.default_rng)


class Life(RuleBasedStateMachine):
    """One network from its making on. What its batch norm has counted is the subject's own, and only watched."""

    trial: Trial
    program: Program
    model: Program
    trains = norm = False

    def begin(self, trial: Trial) -> None:
        """Whose life it is."""
        needs = ("Module", "Parameter", "Sequential", "Linear", "ReLU")
        self.trial, self.program = trial, Program(trial, *needs)
        self.model = Program(Trial(reference_subject(), "class", trial.dtype))
        classes = trial.subject.classes
        for name in ("Sequential", "Linear", "ReLU"):
            if not set(classes[name].__mro__) & set(classes["Module"].__mro__) - {object}:
                raise Unsupported(f"{name} is no Module")
        self.trains, self.saved = "SGD" in classes, 0
        self.watched: dict[str, Array] = {}
        self.statistics: list[dict[str, Array]] = []  # what was watched when each state was saved

    def both(self, *lines: str) -> None:
        """Run lines on the subject and on the model."""
        self.program.run(*lines)
        self.model.run(*lines)

    @initialize(rng=integers, norm=st.booleans(), momentum=st.sampled_from([0.0, 1.0]))
    def build(self, rng: np.random.Generator, norm: bool, momentum: float) -> None:
        """A network of integers, and its optimiser."""
        dtype = self.trial.dtype
        self.norm = norm and "BatchNorm1d" in self.trial.subject.classes
        construct = f'construct(BatchNorm1d, (2,), {{}}, np.dtype("{dtype}"))' if self.norm else "None"
        values = {key: rng.integers(-3, 4, shape).astype(dtype) for key, shape in LINEAR.items()}
        self.both(NET.format(dtype=dtype, norm=construct), "net = old = Net()")
        self.both(f"load_entries(net, {mapping(values, literal)})")
        self.momentum = f", momentum={momentum}" if momentum and not self.lacks("sgd", "momentum") else ""
        self.optimise()
        self.watched = self.counted()

    def lacks(self, stem: str, name: str) -> bool:
        """Whether the subject's class has no such argument."""
        return not self.trains or name in self.trial.subject.lacks(stem, "class")

    def optimise(self) -> None:
        """A new optimiser of the network."""
        if self.trains:
            self.both(f"sgd = SGD(net.parameters(), lr=1.0{self.momentum})")

    def counted(self) -> dict[str, Array]:
        """What batch norm has in the subject's state."""
        if not self.norm:
            return {}
        state: dict[str, Any] = self.program.value("state(net)")
        affine = ("norm.weight", "norm.bias")
        return {k: np.array(a) for k, a in state.items() if k.startswith("norm.") and k not in affine}

    # -- what can be done --------------------------------------------------------------------------------------------

    @rule(rng=integers)
    def forward(self, rng: np.random.Generator) -> None:
        """A call on three rows; batch norm counts it in training, and at no other time."""
        x = f"net({native(rng.integers(-4, 5, (3, 2)).astype(self.trial.dtype))})"
        self.both(f"y = {x}")
        self.program.gives("y", self.model.array("y"))
        if self.norm and self.model.value("net.norm.training"):
            before, self.watched = self.watched, self.counted()
            if "norm.num_batches_tracked" in before:
                count = before["norm.num_batches_tracked"] + 1
                self.program.gives("net.state_dict()['norm.num_batches_tracked']", np.asarray(count))

    @rule(module=st.sampled_from(["net", "net.body", "net.head"]), call=st.sampled_from(["train()", "eval()"]))
    def switch(self, module: str, call: str) -> None:
        """Training or evaluation, of all or of a part."""
        self.both(f"{module}.{call}")

    @rule()
    def save(self) -> None:
        """Keep the state as it is."""
        self.both(f"saved{self.saved} = copy.deepcopy(net.state_dict())")
        self.saved += 1
        self.statistics.append(self.watched)

    @precondition(lambda self: self.saved > 0)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        """Return to one of the states that were kept."""
        number = data.draw(st.integers(0, self.saved - 1))
        self.both(f"net.load_state_dict(saved{number})")
        self.watched = self.statistics[number]

    @rule()
    def copy(self) -> None:
        """Go on with a copy; the original stays as it is from here on."""
        self.both("old, net = net, copy.deepcopy(net)")
        self.optimise()

    @precondition(lambda self: self.trains)
    @rule(gradient=st.sampled_from([1, -2]))
    def step(self, gradient: int) -> None:
        """Every parameter moves by as much."""
        self.both(GRADIENTS.format(gradient), "sgd.step()")

    # -- what must then be so ----------------------------------------------------------------------------------------

    @invariant()
    def equals_model(self) -> None:
        """Same modes, same parameters; what batch norm has counted is unchanged but by calls in training."""
        if not self.model.names.get("net"):
            return
        for module in (*MODULES, *(["net.norm"] if self.norm else [])):
            self.program.equals(f"{module}.training", self.model.value(f"{module}.training"))
        for name in ("net", "old"):
            for key in LINEAR:
                self.program.gives(f"{name}.state_dict()[{key!r}]", self.model.array(f"{name}.state_dict()[{key!r}]"))
        for key, array in self.watched.items():
            self.program.gives(f"net.state_dict()[{key!r}]", array)


def life(*, dtype: str, lacks: frozenset[str]) -> type[Life]:
    """The machine: Hypothesis makes one for every life."""
    return Life

"""The life of a network: a Hypothesis state machine that builds, calls, switches, saves, loads, copies and trains it.

Every step is a line of Python that is run on the subject and on the reference; outputs, gradients, states and modes
must then be the same. All values are integers and the optimiser's numbers are 0 or 1, so that there is nothing to round
as long as they are small enough; what would make them too large is not done until a load makes them small again.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from nnspec.adapters.subject import parameters
from nnspec.conformance.case import Array
from nnspec.conformance.checks.learning import FORGET, Pair, differentiates, own_names
from nnspec.conformance.checks.trees import mapping, native
from nnspec.conformance.trial.source import literal
from nnspec.conformance.trial.trial import Trial

NET = """\
class Net(Module):
    def __init__(self):
        super().__init__()
        self.body = Sequential(construct(Linear, (2, 2), {{}}, np.dtype("{dtype}")), ReLU())
        self.twin = {twin}
        self.norm = {norm}
        self.head = construct(Linear, (2, 1), {{}}, np.dtype("{dtype}")){mask}
    def forward(self, x):
        x = self.body(x)
        if self.norm is not None:
            self.norm(x)  # counts batches; what it gives is rounded, and so not used
        return self.head(x if self.twin is None else self.twin(x))
    def vjp(self, x):
        x, to_body = self.body.vjp(x)
        if self.norm is not None:
            self.norm(x)
        x, to_twin = (x, lambda c: c) if self.twin is None else self.twin.vjp(x)
        y, to_head = self.head.vjp(x)
        return y, lambda c: to_body(to_twin(to_head(c)))"""
MASK = '\n        self.register_buffer("mask", to_native(np.zeros(1)), persistent=False)'
LINEAR = {("body.0", "weight"): (2, 2), ("body.0", "bias"): (2,), ("head", "weight"): (1, 2), ("head", "bias"): (1,)}
FOUND = "[None if p.grad is None else to_numpy(p.grad).tolist() for p in ({})]"
MODULES = ("net", "net.body", "net.body[0]", "net.body[1]", "net.head")
GRADIENTS = "for p in net.parameters(): p.grad = p.data * 0 + {}"
# Three rows of ±1, weights of at most P: activations up to 3P, with a shared body 7P², outputs up to 15P³, gradients
# up to 21P². All of them are below 2²⁴ (what float32 counts exactly) for P ≤ 100, and so are a whole life's gradients,
# added up; a step adds at most four numbers of 2²⁰.
PASSES, STEPS = 100, 2**20
integers = st.integers(0, 2**16 - 1).map(np.random.default_rng)


class Watched(RuleBasedStateMachine):
    """A network of the subject beside the same one of the reference, and what is known of the two."""

    trial: Trial
    pair: Pair
    trains = norm = learns = lenient = zeroes = False
    saved = 0
    numbers = ""  # arguments of the optimiser, as text

    def begin(self, trial: Trial) -> None:
        """Whose life it is."""
        self.trial, self.pair = trial, Pair(trial)
        self.program, self.model = self.pair.program, self.pair.model
        classes = trial.subject.classes
        names = own_names(trial)
        self.shapes = {f"{layer}.{names[name]}": shape for (layer, name), shape in LINEAR.items()}
        self.holders = [f"{net}.{key}".replace(".0.", "[0].") for net in ("net", "old") for key in self.shapes]
        self.trains, self.learns = "SGD" in classes, differentiates(trial)
        self.zeroes = not self.lacks("sgd", "zero_grad")
        self.lenient = "strict" in (parameters(classes["Module"].load_state_dict) or {"strict"})
        self.watched: dict[str, Array] = {}
        self.statistics: list[dict[str, Array]] = []  # what was watched when each state was saved

    def lacks(self, stem: str, name: str) -> bool:
        """Whether the subject's class has no such argument."""
        return not self.trains or name in self.trial.subject.lacks(stem, "class")

    def optimise(self) -> None:
        """A new optimiser of the network, which has no gradients."""
        self.pair.run(FORGET)
        if self.trains:
            self.pair.run(f"sgd = SGD(net.parameters(), lr=1.0{self.numbers})")

    def counted(self) -> dict[str, Array]:
        """What batch norm has in the subject's state."""
        if not self.norm:
            return {}
        state: dict[str, Any] = self.program.value("state(net)")
        affine = ("norm.weight", "norm.bias")
        return {k: np.array(a) for k, a in state.items() if k.startswith("norm.") and k not in affine}

    def small(self, limit: int, *, weights: bool) -> bool:
        """Whether the weights, or else gradients and velocities as well, are small enough to go on."""
        names = self.model.names.known
        if "net" not in names:
            return False
        found = [*names["net"].body.parameters(), *names["net"].head.parameters()]
        arrays = [p.data for p in found]
        if not weights:
            arrays += [*(p.grad for p in found), *(names["sgd"].velocities if self.trains else ())]
        return max(np.abs(a).max() for a in arrays if a is not None) <= limit

    def rows(self, rng: np.random.Generator, columns: int) -> Array:
        """An input, or a cotangent."""
        return rng.integers(-1, 2, (3, columns)).astype(self.trial.dtype)

    def passed(self) -> None:
        """The output; batch norm counts the pass in training, and at no other time."""
        self.pair.same("y")
        if self.norm and self.model.value("net.norm.training"):
            before, self.watched = self.watched, self.counted()
            if "norm.num_batches_tracked" in before:
                count = before["norm.num_batches_tracked"] + 1
                self.program.gives("net.state_dict()['norm.num_batches_tracked']", np.asarray(count))


class Life(Watched):
    """One network from its making on. What its batch norm has counted is the subject's own, and only watched."""

    @initialize(
        rng=integers,
        norm=st.booleans(),
        shared=st.booleans(),
        mode=st.sampled_from(["train", "eval"]),
        momentum=st.sampled_from([0.0, 1.0]),
        weight_decay=st.sampled_from([0.0, 1.0]),
    )
    def build(self, rng: np.random.Generator, norm: bool, shared: bool, mode: str, **numbers: float) -> None:
        """A network of integers, and its optimiser; its first state is kept."""
        dtype, lacks = self.trial.dtype, self.trial.subject.lacks
        self.norm = norm and "BatchNorm1d" in self.trial.subject.classes
        construct = f'construct(BatchNorm1d, (2,), {{}}, np.dtype("{dtype}"))' if self.norm else "None"
        mask = "" if "register_buffer" in lacks("module", "class") else MASK
        values = {key: rng.integers(-3, 4, shape).astype(dtype) for key, shape in self.shapes.items()}
        twin = "self.body" if shared else "None"
        self.pair.run(NET.format(dtype=dtype, norm=construct, twin=twin, mask=mask), "net = old = Net()")
        self.pair.run(f"load_entries(net, {mapping(values, literal)})", f"net.{mode}()")
        given = {name: value for name, value in numbers.items() if value and not self.lacks("sgd", name)}
        self.numbers = "".join(f", {name}={value}" for name, value in given.items())
        self.optimise()
        self.watched = self.counted()
        self.save()

    def teardown(self) -> None:
        """Close a life that went well: load, evaluate, learn and copy twice, since few lives happen to do so."""
        if not self.saved or sys.exc_info()[0] is not None:
            return
        self.optimise()
        for rng in map(np.random.default_rng, range(2)):
            self.pair.run("net.load_state_dict(saved0)")
            self.watched = self.statistics[0]
            self.equals_model()
            self.forward(rng, "eval")
            if self.trains:
                self.step(1)
                self.switch("net.body", "train")
                self.equals_model()
                self.forward(rng, "eval")
        self.copy()
        if self.trains:
            self.step(1)
        self.equals_model()

    # -- what can be done --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.small(PASSES, weights=True))
    @rule(rng=integers, mode=st.sampled_from(["", "train", "eval"]))
    def forward(self, rng: np.random.Generator, mode: str) -> None:
        """Call the network on three rows, in the mode that it has or in another one."""
        if mode:
            self.pair.run(f"net.{mode}()")
        self.pair.run(f"y = net({native(self.rows(rng, 2))})")
        self.passed()

    @precondition(lambda self: self.learns and self.small(PASSES, weights=True))
    @rule(rng=integers)
    def backward(self, rng: np.random.Generator) -> None:
        """A pass there and back, which adds to the gradients."""
        self.pair.run(f"y = backward(net, {native(self.rows(rng, 2))}, {native(self.rows(rng, 1))})")
        self.passed()

    @rule(
        module=st.sampled_from(["net", "net", "net.body", "net.head", "net.norm"]),
        call=st.sampled_from(["train", "eval"]),
    )
    def switch(self, module: str, call: str) -> None:
        """Training or evaluation, of all or of a part."""
        self.pair.run(f"{module if self.norm or module != 'net.norm' else 'net.body'}.{call}()")

    @rule()
    def save(self) -> None:
        """Keep the state as it is."""
        self.pair.run(f"saved{self.saved} = copy.deepcopy(net.state_dict())")
        self.saved += 1
        self.statistics.append(self.watched)

    @precondition(lambda self: self.saved > 0)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        """Return to one of the states that were kept."""
        number = data.draw(st.integers(0, self.saved - 1))
        self.pair.run(f"net.load_state_dict(saved{number})")
        self.watched = self.statistics[number]

    @precondition(lambda self: self.saved > 0 and self.lenient)
    @rule(data=st.data())
    def load_part(self, data: st.DataObject) -> None:
        """Return to it with some of the parameters alone."""
        number = data.draw(st.integers(0, self.saved - 1))
        keys = data.draw(st.lists(st.sampled_from(sorted(self.shapes)), unique=True))
        self.pair.run(f"net.load_state_dict({{k: saved{number}[k] for k in {keys}}}, strict=False)")

    @rule()
    def copy(self) -> None:
        """Go on with a copy; the original stays as it is from here on."""
        self.pair.run("old, net = net, copy.deepcopy(net)")
        self.program.holds("net is not old and net.body is not old.body")
        self.optimise()

    @rule()
    def resume(self) -> None:
        """Go on with a new network that has loaded the state, and trains."""
        self.pair.run("old, net = net, Net()", "net.load_state_dict(copy.deepcopy(old.state_dict()))")
        self.optimise()

    @precondition(lambda self: self.trains and self.small(STEPS, weights=False))
    @rule(gradient=st.sampled_from([1, -2]))
    def step(self, gradient: int) -> None:
        """Every parameter moves by as much."""
        self.pair.run(GRADIENTS.format(gradient), "sgd.step()")

    @precondition(lambda self: self.trains and self.learns and self.small(STEPS, weights=False))
    @rule()
    def learn(self) -> None:
        """Every parameter that has a gradient moves by it; gradients stay."""
        self.pair.run("sgd.step()")

    @precondition(lambda self: self.zeroes)
    @rule()
    def zero(self) -> None:
        """Gradients are none or zeros; from here on they are none."""
        self.pair.run("sgd.zero_grad()")
        for holder in self.holders[: len(self.shapes)]:
            self.program.holds(f"{holder}.grad is None or not np.any(to_numpy({holder}.grad))")
        self.pair.run(FORGET)

    # -- what must then be so ----------------------------------------------------------------------------------------

    @invariant()
    def equals_model(self) -> None:
        """Same modes, parameters and gradients; what batch norm has counted is unchanged but by passes in training."""
        if not self.model.names.known.get("net"):
            return
        modules = (*MODULES, *(["net.norm"] if self.norm else []))
        modes = [f"{m}.training" for m in (*modules, *(m.replace("net", "old", 1) for m in modules))]
        self.program.equals(f"[{', '.join(modes)}]", self.model.value(f"[{', '.join(modes)}]"))
        found = FOUND.format(", ".join(self.holders))
        if self.program.value(found) != self.model.value(found):
            self.pair.same(*(f"{holder}.grad" for holder in self.holders))
        for name in ("net", "old"):
            state, expected = self.program.value(f"state({name})"), self.model.value(f"state({name})")
            expected = {key: expected[key] for key in self.shapes} | (self.watched if name == "net" else {})
            for key, array in expected.items():
                if key not in state or not np.array_equal(state[key], array):
                    self.program.gives(f"{name}.state_dict()[{key!r}]", array)


def life(*, dtype: str, lacks: frozenset[str]) -> type[Life]:
    """The machine: Hypothesis makes one for every life."""
    return Life

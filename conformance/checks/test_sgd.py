"""The requirements of spec/sgd.md, in the page's order. A case is run as a program: parameters, an optimiser, steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.names import LONG
from nnspec.adapters.subject import Lacks
from nnspec.adapters.subject import parameters as parameters_of
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.bounds.sgd import moved, scheduled
from nnspec.conformance.case import Array
from nnspec.conformance.checks import domains, laws
from nnspec.conformance.checks.cases import data
from nnspec.conformance.checks.learning import (
    FORGET,
    Learning,
    Pair,
    backward,
    learning,
    learnings,
    learnt,
    networks,
    norm,
    own_names,
)
from nnspec.conformance.checks.within import allowed, argument
from nnspec.conformance.drawing import (
    Draw,
    any_of,
    booleans,
    composite,
    integers,
    legal,
    lists,
    permutations,
    planned,
    reaches,
)
from nnspec.conformance.requirements import requirement
from nnspec.conformance.sizes import SWEEPS, Sweep
from nnspec.conformance.trial.programs import Program
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.source import literal
from nnspec.conformance.trial.trial import Trial

SWEEPS["sgd"] = Sweep(names={"elements0": "the elements of the parameter"}, axes=(("elements0",),))
ALL = ("momentum", "weight_decay")
NAMES = "pqr"  # of up to three parameters
SHAPES = [(1,), (2,), (), (2, 3), (0,)]
# vectors of 8 and of 16 elements, with a remainder and without one, and matrices of as many
LONGER = [(1,), (7,), (8,), (9,), (16,), (17,), (33,), (4, 4), (3, 11)]


@dataclass(frozen=True)
class Training:
    """Parameters, their gradients in each step (None: it has none in this step), and the optimiser's numbers."""

    start: tuple[Array, ...]
    gradients: tuple[tuple[Array | None, ...], ...]
    numbers: dict[str, float]
    written: frozenset[str] = frozenset()  # numbers that the optimiser has in its code, and that no call says

    def expected(self, parameter: int, steps: int) -> Expected:
        """Where a parameter must be after so many steps."""
        return moved(self.start[parameter], [g[parameter] for g in self.gradients[:steps]], **self.numbers)

    @property
    def others(self) -> dict[str, float]:
        """The numbers without the learning rate."""
        return {name: value for name, value in self.numbers.items() if name != "lr"}

    @property
    def arguments(self) -> str:
        """The numbers, as a call says them."""
        return ", ".join(f"{name}={value!r}" for name, value in self.numbers.items() if name not in self.written)


@composite
def trainings(
    draw,
    *,
    dtype: str,
    lacks: frozenset[str] = frozenset(),
    vary: tuple[str, ...] = ALL,
    parameters: tuple[int, int] = (1, 1),
    steps: tuple[int, int] = (1, 1),
    rests: bool = False,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
):
    """Some parameters and steps, the first parameter as long as the plan has it. Powers of two on integers are exact;
    the other numbers are rounded. `rests`: some parameters have no gradient in some steps."""
    values = draw(data(dtype, ("integers", "normal")))
    numbers = {"lr": draw(argument("lr", any_of(1.0, 0.5, 0.1), (1.0, 0.5, 0.1), neutral=1.0, varies=True))}
    for name, choices in (("momentum", [0.5, 1.0, 0.9]), ("weight_decay", [0.5, 1.0, 0.01])):
        varies = name in vary and name not in lacks
        value = draw(argument(name, any_of(*choices), choices, neutral=0.0, varies=varies))
        numbers |= {name: value} if varies or value else {}
    sizes = draw(lists(any_of(*_shapes(draw, shapes)), min_size=parameters[0], max_size=parameters[1]))
    if long := draw(planned(0, of="elements")):
        sizes[0] = (legal(draw, "elements", long),)
    start = tuple(np.asarray(values.inputs(*shape)) for shape in sizes)

    def gradient(p: Array) -> Array | None:
        return None if rests and draw(booleans()) else np.asarray(values.inputs(*p.shape))

    gradients = tuple(tuple(gradient(p) for p in start) for _ in range(draw(integers(*steps))))
    return Training(start, gradients, numbers, draw.written)


def _shapes(draw: Draw, shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
    """Those of the shapes whose number of elements the domain allows, or else vectors that it allows."""
    inside = [shape for shape in shapes if draw.domain.allows("elements", math.prod(shape))]
    return inside or [(legal(draw, "elements", n, least=min(n, 1)),) for n in map(math.prod, shapes)]


def native(array: Array | None) -> str:
    """An array in the words of a program."""
    return "None" if array is None else f"to_native({literal(array)})"


def parameters(subject: Trial, training: Training, *needs: str) -> Program:
    """A program that defines p, q, …"""
    elements = tuple(array.size for array in training.start)
    if min(training.numbers.values()) >= 0:  # what the page refuses is refused in a domain too
        subject.stay_inside("sgd", {**training.numbers, "elements": elements})
    program = Program(subject, "Parameter", *needs)
    for name, values in zip(NAMES, training.start, strict=False):
        program.run(f"{name} = Parameter({native(values)})")
    return program


def optimised(subject: Trial, training: Training) -> Program:
    """A program that defines p, q, … and an optimiser of them."""
    names = ", ".join(NAMES[: len(training.start)])
    return parameters(subject, training).run(f"sgd = SGD([{names}], {training.arguments})")


def step(program: Program, gradients: Sequence[Array | None]) -> None:
    """Give the parameters their gradients, and step."""
    for name, gradient in zip(NAMES, gradients, strict=False):
        program.run(f"{name}.grad = {native(gradient)}")
    program.run("sgd.step()")


def follows(program: Program, training: Training) -> None:
    """Take the steps, and compare every parameter after each of them."""
    for done, gradients in enumerate(training.gradients, start=1):
        step(program, gradients)
        for i in range(len(training.start)):
            program.gives(f"{NAMES[i]}.data", training.expected(i, done))


def equals_reference(subject: Trial, training: Training) -> None:
    """The one comparison behind every requirement on values."""
    follows(optimised(subject, training), training)


# -- steps -------------------------------------------------------------------------------------------------------------


@requirement("sgd.step.value", trainings, vary=())
def test_step_value(subject: Trial, case: Training) -> None:
    """One step, with nothing but a learning rate."""
    equals_reference(subject, case)


@requirement("sgd.step.every-parameter", trainings, vary=(), parameters=(2, 3))
def test_step_every_parameter(subject: Trial, case: Training) -> None:
    """Two or three parameters of all kinds of shapes."""
    equals_reference(subject, case)


@requirement("sgd.step.every-element", trainings, steps=(1, 2), shapes=LONGER, sweeps=True, narrow=True)
def test_step_every_element(subject: Trial, case: Training) -> None:
    """From one element to 33, and long parameters, with momentum and weight decay."""
    equals_reference(subject, case)


@composite
def with_specials(draw, **choices: Any):
    """A training in which one gradient is NaN and one parameter infinite, in elements of their own."""
    training = draw(trainings(vary=(), shapes=((legal(draw, "elements", 3, least=3),),), **choices))
    (start,), ((gradient,),) = training.start, training.gradients
    nan, infinite, _ = draw(permutations(range(3)))
    gradient[nan], start[infinite] = np.nan, draw(any_of(np.inf, -np.inf))
    return training, nan, infinite


@requirement("sgd.step.elementwise", with_specials)
def test_step_elementwise(subject: Trial, case: tuple[Training, int, int]) -> None:
    """NaN and infinity stay in their elements; the third moves as if they were not there."""
    training, nan, infinite = case
    (start,), ((gradient,),) = training.start, training.gradients
    assert gradient is not None
    clean, plain = start.copy(), gradient.copy()
    clean[infinite], plain[nan] = 1, 1
    expected = moved(clean, [plain], **training.numbers)
    expected.value[[nan, infinite]] = np.nan, start[infinite]
    program = optimised(subject, training)
    step(program, (gradient,))
    program.gives("p.data", expected)


@requirement("sgd.lr.zero", trainings, steps=(1, 2))
def test_lr_zero(subject: Trial, case: Training) -> None:
    """Nothing moves, not even by weight decay or momentum."""
    program = optimised(subject, replace(case, numbers=case.numbers | {"lr": 0.0}))
    for gradients in case.gradients:
        step(program, gradients)
    program.gives("p.data", case.start[0])


@requirement("sgd.momentum.first-step", trainings, vary=("momentum",), needs="momentum")
def test_momentum_first_step(subject: Trial, case: Training) -> None:
    """One step with momentum."""
    equals_reference(subject, case)


@requirement("sgd.momentum.accumulates", trainings, vary=("momentum",), steps=(2, 4), needs="momentum", narrow=True)
def test_momentum_accumulates(subject: Trial, case: Training) -> None:
    """Two to four steps with momentum."""
    equals_reference(subject, case)


@requirement(
    "sgd.momentum.per-parameter",
    trainings,
    vary=("momentum",),
    parameters=(2, 3),
    steps=(2, 3),
    rests=True,
    shapes=((1,), (2,)),
    needs="momentum",
)
def test_momentum_per_parameter(subject: Trial, case: Training) -> None:
    """Parameters of the same shape, which have their first gradients at different times."""
    equals_reference(subject, case)


@requirement("sgd.momentum.per-optimiser", trainings, vary=("momentum",), steps=(2, 2), needs="momentum")
def test_momentum_per_optimiser(subject: Trial, case: Training) -> None:
    """A second optimiser of the same parameter begins without a velocity, and the first goes on with its own."""
    program = optimised(subject, case).run(f"other = SGD([p], {case.arguments})")
    numbers = {n: v for n, v in case.numbers.items() if n != "momentum"}
    (first,), (second,) = case.gradients
    step(program, (first,))
    before = program.array("p.data")
    program.run(f"p.grad = {native(second)}", "other.step()")
    program.gives("p.data", moved(before, [second], **numbers))


@requirement("sgd.momentum.kept", trainings, vary=("momentum",), steps=(2, 3), needs="momentum")
def test_momentum_kept(subject: Trial, case: Training) -> None:
    """Each gradient is written over the one before it, into the same array."""
    program = optimised(subject, case)
    for done, (gradient,) in enumerate(case.gradients, start=1):
        program.run(f"p.grad = {native(gradient)}" if done == 1 else f"p.grad[...] = {native(gradient)}")
        if not program.value("to_numpy(p.grad)").flags.writeable:
            raise Lacks("arrays cannot be written to")
        program.run("sgd.step()")
        program.gives("p.data", case.expected(0, done))


def stateful(subject: Trial) -> bool:
    """Whether the state of an optimiser can be saved and loaded."""
    return all(hasattr(subject.subject.classes["SGD"], name) for name in ("state_dict", "load_state_dict"))


def continues(subject: Trial, case: Training, saved: str, loaded: str) -> None:
    """Two optimisers continue one training from the state of a third, in turns with it; none moves another's way.

    `saved` is the state of the third, and `loaded` what is loaded of it.
    """
    if not stateful(subject):
        raise Lacks("SGD has no state_dict and load_state_dict")
    first, *others = (gradient for (gradient,) in case.gradients)
    program = optimised(subject, case)
    step(program, (first,))
    program.run(f"saved = {saved}")
    for name in "qr":
        program.run(f"{name} = Parameter(to_native(np.array(to_numpy(p.data))))")
        program.run(f"of_{name} = SGD([{name}], {case.arguments})", f"of_{name}.load_state_dict({loaded})")
    taken: dict[str, list[Array | None]] = {name: [first] for name in NAMES}
    for number, gradient in enumerate(others):
        name = "qprpqr"[number % 6]
        taken[name].append(gradient)
        program.run(f"{name}.grad = {native(gradient)}", f"{'sgd' if name == 'p' else f'of_{name}'}.step()")
        program.gives(f"{name}.data", moved(case.start[0], taken[name], **case.numbers))


@requirement("sgd.momentum.loaded", trainings, vary=("momentum",), steps=(7, 7), shapes=SHAPES[:4], needs="momentum")
def test_momentum_loaded(subject: Trial, case: Training) -> None:
    """Each of two optimisers has loaded a copy of the state of a third; they step in turns, by different gradients."""
    continues(subject, case, "copy.deepcopy(sgd.state_dict())", "copy.deepcopy(saved)")


@requirement(
    "sgd.momentum.loaded-copies", trainings, vary=("momentum",), steps=(7, 7), shapes=SHAPES[:4], needs="momentum"
)
def test_momentum_loaded_copies(subject: Trial, case: Training) -> None:
    """As above, where both load the very state that the third gave."""
    continues(subject, case, "sgd.state_dict()", "saved")


@requirement("sgd.weight-decay.gradient", trainings, vary=("weight_decay",), needs="weight_decay")
def test_weight_decay_gradient(subject: Trial, case: Training) -> None:
    """One step with weight decay, and one in which the gradient is 0."""
    equals_reference(subject, case)
    still = tuple((np.zeros_like(case.start[0]),) for _ in case.gradients)
    equals_reference(subject, replace(case, gradients=still))


@requirement("sgd.weight-decay.velocity", trainings, steps=(2, 3), needs=ALL)
def test_weight_decay_velocity(subject: Trial, case: Training) -> None:
    """The velocity that the first step leaves has the decay in it."""
    equals_reference(subject, case)


@requirement("sgd.arguments.together", trainings, parameters=(1, 3), steps=(1, 4), narrow=True)
def test_arguments_together(subject: Trial, case: Training) -> None:
    """Everything at once."""
    equals_reference(subject, case)


# -- the learning rate between two steps -------------------------------------------------------------------------------


@composite
def with_rates(draw, **choices: Any):
    """A training, and the learning rate of each of its steps, which is never that of the step before."""
    training = draw(trainings(**choices))
    rates = [training.numbers["lr"]]
    for _ in training.gradients[1:]:
        known = draw.domain.choices("lr", (0.5, 2.0, 0.25, 0.1, 0.0))
        rates.append(draw(any_of(*allowed(draw, "lr", [r for r in known if r != rates[-1]]))))
    return training, tuple(rates)


Scheduled = tuple[Training, tuple[float, ...]]


def follows_rates(subject: Trial, case: Scheduled, further: str = "", **how: bool) -> None:
    """Set the learning rate before each step but the first, and compare every parameter after each step."""
    training, rates = case
    names = ", ".join(NAMES[: len(training.start)])
    program = parameters(subject, training).run(f"sgd = SGD([{names}], {training.arguments}{further})")
    for done, gradients in enumerate(training.gradients, start=1):
        if done > 1:
            program.run(f"set_rate(sgd, {rates[done - 1]!r})")
        step(program, gradients)
        for i, start in enumerate(training.start):
            given = [each[i] for each in training.gradients[:done]]
            program.gives(f"{NAMES[i]}.data", scheduled(start, given, rates[:done], training.others, **how))


@requirement(
    "sgd.lr.changed", with_rates, vary=("weight_decay",), parameters=(1, 2), steps=(2, 4), rests=True, shapes=SHAPES[:4]
)
def test_lr_changed(subject: Trial, case: Scheduled) -> None:
    """Two to four steps, each with a rate of its own; a parameter may rest while the rate changes."""
    follows_rates(subject, case)


@requirement(
    "sgd.lr.group", with_rates, vary=("weight_decay",), parameters=(2, 3), steps=(3, 5), rests=True, shapes=SHAPES[:4]
)
def test_lr_group(subject: Trial, case: Scheduled) -> None:
    """The first parameter has a group of its own, whose rate changes; the other group's stays. Lacks without groups."""
    training, rates = case
    subject.stay_inside("sgd", {"lr": 2.0})
    first, *others = [*NAMES[: len(training.start)]]
    program = parameters(subject, training)
    groups = f'{{"params": [{first}]}}, {{"params": [{", ".join(others)}], "lr": 2.0}}'
    try:
        program.run(f"sgd = SGD([{groups}], {training.arguments})")
    except Mismatch as mismatch:
        if mismatch.raised is None:
            raise
        raise Lacks("parameters cannot be given in groups") from None
    if not program.value('len(getattr(sgd, "param_groups", ())) == 2'):  # one has dictionaries for parameters
        raise Lacks("an optimiser has no param_groups")
    for done, gradients in enumerate(training.gradients, start=1):
        if done > 1:
            program.run(f'sgd.param_groups[0]["lr"] = {rates[done - 1]!r}')
        step(program, gradients)
        for i, start in enumerate(training.start):
            own = [2.0] * done if i else rates[:done]
            given = [each[i] for each in training.gradients[:done]]
            program.gives(f"{NAMES[i]}.data", scheduled(start, given, own, training.others))


def _inside(subject: Trial, case: Scheduled) -> None:
    """The velocity carries the rate with which each of its gradients came."""
    follows_rates(subject, case, inside=True)


@requirement(
    "sgd.lr.velocity",
    with_rates,
    steps=(2, 4),
    shapes=SHAPES[:4],
    needs="momentum",
    alternatives={"inside": _inside},
)
def test_lr_velocity(subject: Trial, case: Scheduled) -> None:
    """Two to four steps with momentum, and with weight decay; and by `nesterov`, where the constructor has it."""
    follows_rates(subject, case)
    accepted = parameters_of(subject.subject.classes["SGD"])
    if accepted is not None and "nesterov" in accepted:
        follows_rates(subject, case, ", nesterov=True", ahead=True)


# -- which arrays move -------------------------------------------------------------------------------------------------


@requirement("sgd.parameters.without-gradient", trainings, parameters=(1, 2), steps=(1, 3), rests=True)
def test_parameters_without_gradient(subject: Trial, case: Training) -> None:
    """Parameters rest for a step or for all of them."""
    equals_reference(subject, case)


@requirement("sgd.parameters.unused", learnings, passes=(1, 2), vary=ALL, per_dtype=False)
def test_parameters_unused(subject: Trial, case: Learning) -> None:
    """Given to the optimiser with those that learn: a parameter that no pass uses, and a layer that none calls."""
    learning(subject, "Linear")
    program = networks(subject).run(*case.lines(subject), "net.unused = Parameter(to_native(np.ones(2)))")
    program.run(f'first.side = construct(Linear, (2, 2), {{}}, np.dtype("{subject.dtype}"))')
    unused = ("net.unused", *(f"first.side.{own}" for own in own_names(subject).values()))
    resting = {name: program.array(f"{name}.data") for name in unused}
    program.run(f"sgd = SGD(net.parameters(), {case.arguments})")
    for batch in case.batches:
        program.run(backward(batch), "sgd.step()")
        for name, start in resting.items():
            program.gives(f"{name}.data", start)


@requirement("sgd.parameters.in-place", trainings, steps=(1, 2))
def test_parameters_in_place(subject: Trial, case: Training) -> None:
    """A module that holds the parameter sees it moved."""
    program = parameters(subject, case, "Module").run("net = Module()", "net.weight = p")
    program.run(f"sgd = SGD([p], {case.arguments})")
    for done, gradients in enumerate(case.gradients, start=1):
        step(program, gradients)
        program.gives("net.weight.data", case.expected(0, done))


@requirement("sgd.parameters.loaded", trainings, vary=("weight_decay",), steps=(2, 3))
def test_parameters_loaded(subject: Trial, case: Training) -> None:
    """A step, another state, and the other steps from there."""
    program = parameters(subject, case, "Module").run("net = Module()", "net.weight = p")
    if "load_state_dict" in subject.subject.lacks("module", "class"):
        raise Lacks("Module has no load_state_dict")
    program.run(f"sgd = SGD(net.parameters(), {case.arguments})")
    first, *others = case.gradients
    step(program, first)
    loaded = replace(case, start=(np.asarray(case.start[0] + case.start[0].dtype.type(1)),), gradients=tuple(others))
    program.run(f"net.load_state_dict({{'weight': {native(loaded.start[0])}}})")
    for done, gradients in enumerate(others, start=1):
        step(program, gradients)
        program.gives("net.weight.data", loaded.expected(0, done))


@requirement("sgd.parameters.copied", trainings, steps=(2, 3))
def test_parameters_copied(subject: Trial, case: Training) -> None:
    """A step of the original; then steps of its deep copy, by an optimiser of the copy."""
    program = parameters(subject, case, "Module").run("net = Module()", "net.weight = p")
    program.run(f"sgd = SGD(net.parameters(), {case.arguments})", "copied = copy.deepcopy(net)")
    first, *others = case.gradients
    step(program, first)
    program.gives("copied.weight.data", case.start[0])
    where = program.array("net.weight.data")
    program.run("p.grad = None", f"other = SGD(copied.parameters(), {case.arguments})")
    afresh = replace(case, gradients=tuple(others))
    for done, (gradient,) in enumerate(others, start=1):
        program.run(f"copied.weight.grad = {native(gradient)}", "other.step()")
        program.gives("copied.weight.data", afresh.expected(0, done))
        program.gives("net.weight.data", where)


@requirement("sgd.parameters.tied", trainings, steps=(1, 2))
def test_parameters_tied(subject: Trial, case: Training) -> None:
    """One parameter under two names of a model, the second of which may lie in a module below."""
    program = parameters(subject, case, "Module").run(
        "net = Module()", "net.body = Module()", "net.weight = net.tied = net.body.weight = p"
    )
    follows(program.run(f"sgd = SGD(net.parameters(), {case.arguments})"), case)


@requirement("sgd.parameters.others", trainings, parameters=(2, 2), steps=(1, 2))
def test_parameters_others(subject: Trial, case: Training) -> None:
    """The second parameter is not the optimiser's. In the first run it has a gradient, in the second it has none."""
    for has_gradient in (True, False):
        program = parameters(subject, case).run(f"sgd = SGD([p], {case.arguments})")
        for first, second in case.gradients:
            step(program, (first, second if has_gradient else None))
            program.gives("q.data", case.start[1])


@requirement("sgd.parameters.iterable", trainings, vary=(), parameters=(1, 2), steps=(2, 3))
def test_parameters_iterable(subject: Trial, case: Training) -> None:
    """A generator of parameters, and several steps."""
    names = ", ".join(NAMES[: len(case.start)])
    follows(parameters(subject, case).run(f"sgd = SGD((each for each in [{names}]), {case.arguments})"), case)


@requirement("sgd.parameters.list-kept", trainings, vary=(), parameters=(2, 2))
def test_parameters_list_kept(subject: Trial, case: Training) -> None:
    """A list that is changed after the optimiser was made."""
    program = parameters(subject, case).run("params = [p]", f"sgd = SGD(params, {case.arguments})")
    program.holds("len(params) == 1 and params[0] is p")
    program.run("params[:] = [q]")
    step(program, case.gradients[0])
    program.gives("p.data", case.expected(0, 1))
    program.gives("q.data", case.start[1])
    program.holds("len(params) == 1 and params[0] is q")


@requirement("sgd.parameters.dtype", trainings, steps=(2, 3), effort=2)
def test_parameters_dtype(subject: Trial, case: Training) -> None:
    """Shape and dtype as before, also where the numbers are NumPy's float64."""
    said = {name: value for name, value in case.numbers.items() if name not in case.written}
    for arguments in (case.arguments, ", ".join(f"{n}=np.float64({v!r})" for n, v in said.items())):
        program = parameters(subject, case).run(f"sgd = SGD([p], {arguments})")
        for gradients in case.gradients:
            step(program, gradients)
            program.equals("to_numpy(p.data).dtype.name", subject.dtype)
            program.equals("tuple(to_numpy(p.data).shape)", case.start[0].shape)


@requirement("sgd.buffers.unmoved", trainings, parameters=(3, 3), steps=(1, 2))
def test_buffers_unmoved(subject: Trial, case: Training) -> None:
    """A model with two buffers, one of them in a module below, and an optimiser of all its parameters."""
    weight, mean, below = case.start
    program = Program(subject, "Parameter", "Module").run(
        f"p = Parameter({native(weight)})", "net = Module()", "net.weight, net.body = p, Module()"
    )
    if "register_buffer" in subject.subject.lacks("module", "class"):
        raise Lacks("Module has no register_buffer")
    program.run(
        f"net.register_buffer('mean', {native(mean)})",
        f"net.body.register_buffer('mean', {native(below)})",
        f"sgd = SGD(net.parameters(), {case.arguments})",
    )
    for gradients in case.gradients:
        step(program, gradients[:1])
        program.gives("net.state_dict()['mean']", mean)
        program.gives("net.state_dict()['body.mean']", below)


@requirement("sgd.buffers.statistics", learnings, passes=(2, 3), rows=(2, 2), vary=ALL)
def test_buffers_statistics(subject: Trial, case: Learning) -> None:
    """A network that learns, beside one that has its parameters loaded and is only called on the same batches."""
    learning(subject, "BatchNorm1d")
    program = networks(subject).run(*case.build(subject, norm(subject.dtype)), "called = copy.deepcopy(net)")
    owned = program.value("[key for key, _ in net.named_parameters()]")
    buffers = [key for key in program.value("state(net)") if key not in owned]
    program.run(f"sgd = SGD(net.parameters(), {case.arguments})")
    for batch in case.batches:
        program.run(f"called({native(batch[0])})", backward(batch), "sgd.step()")
        for key in buffers:
            program.agree(f"net.state_dict()[{key!r}]", f"called.state_dict()[{key!r}]")
        program.run("called.load_state_dict(copy.deepcopy(net.state_dict()))")


@requirement("sgd.domain.outside", domains.outside, of=trainings, needs="domain", steps=(1, 2))
def test_domain_outside(subject: Trial, case: Training) -> None:
    """One number, or number of elements, outside what the subject declares."""
    right = laws.law()(lambda beyond, training, _: equals_reference(beyond, training))
    domains.right_or_refused(right)(subject, case, None)


# -- gradients ---------------------------------------------------------------------------------------------------------


@requirement("sgd.gradient.unchanged", trainings, steps=(1, 2), effort=2)
def test_gradient_unchanged(subject: Trial, case: Training) -> None:
    """The gradient after the step is the one before it."""
    program = optimised(subject, case)
    for (gradient,) in case.gradients:
        assert gradient is not None
        step(program, [gradient])
        program.gives("p.grad", gradient)


@requirement("sgd.zero-grad.clears", trainings, parameters=(1, 3), rests=True, needs="zero_grad")
def test_zero_grad_clears(subject: Trial, case: Training) -> None:
    """No gradient or zeros, and the parameters unmoved."""
    program = optimised(subject, case)
    names = NAMES[: len(case.start)]
    for name, gradient in zip(names, case.gradients[0], strict=True):
        program.run(f"{name}.grad = {native(gradient)}")
    program.run("sgd.zero_grad()")
    for name, start in zip(names, case.start, strict=True):
        program.holds(f"{name}.grad is None or not np.any(to_numpy({name}.grad))")
        program.gives(f"{name}.data", start)


@requirement("sgd.zero-grad.keeps-velocity", trainings, steps=(2, 3), needs=("momentum", "zero_grad"))
def test_zero_grad_keeps_velocity(subject: Trial, case: Training) -> None:
    """zero_grad after every step."""
    program = optimised(subject, case)
    for done, gradients in enumerate(case.gradients, start=1):
        step(program, gradients)
        program.run("sgd.zero_grad()")
        program.gives("p.data", case.expected(0, done))


@requirement("sgd.zero-grad.afresh", learnings, passes=(2, 3), needs="zero_grad", dtypes=LONG, per_dtype=False)
def test_zero_grad_afresh(subject: Trial, case: Learning) -> None:
    """Passes, and zero_grad before each of them."""
    learning(subject)
    pair = Pair(subject, "SGD").run(*case.lines(subject), f"sgd = SGD(net.parameters(), {case.arguments})")
    for batch in case.batches:
        pair.run("sgd.zero_grad()", backward(batch))
        pair.same(*(f"{name}.grad" for name in learnt(subject)))


# -- training ----------------------------------------------------------------------------------------------------------


@composite
def with_zeroing(draw, **choices: Any):
    """A network, and whether gradients are zeroed between its passes."""
    return draw(learnings(**choices)), draw(booleans())


@requirement("sgd.training.equals-model", with_zeroing, passes=(2, 2), vary=ALL, needs="zero_grad", dtypes=LONG)
def test_training_equals_model(subject: Trial, case: tuple[Learning, bool]) -> None:
    """Twice a pass there and back and a step; in between the gradients are zeroed, or kept and added to."""
    learning(subject)
    network, zeroes = case
    pair = Pair(subject, "SGD").run(*network.lines(subject), f"sgd = SGD(net.parameters(), {network.arguments})")
    for batch in network.batches:
        pair.run(*(["sgd.zero_grad()"] if zeroes else []), f"y = {backward(batch)}", "sgd.step()")
        pair.same("y", *(f"{name}.data" for name in learnt(subject)))


@requirement("sgd.training.resumes", learnings, passes=(3, 5), rows=(2, 2), vary=ALL)
def test_training_resumes(subject: Trial, case: Learning) -> None:
    """Passes and steps, a checkpoint, and the others both with what is there and with a new network and optimiser."""
    classes, dtype = subject.subject.classes, subject.dtype
    between = [norm(dtype)] if "BatchNorm1d" in classes else ["ReLU()"]
    learning(subject, *(["BatchNorm1d"] if "BatchNorm1d" in classes else []))
    if "load_state_dict" in subject.subject.lacks("module", "class"):
        raise Lacks("Module has no load_state_dict")
    if not stateful(subject):  # then the velocities cannot be had
        case = replace(case, numbers={n: v for n, v in case.numbers.items() if n != "momentum"})
        subject.stay_inside("sgd", {"momentum": 0.0})
    program = networks(subject).run(*case.build(subject, *between), f"sgd = SGD(net.parameters(), {case.arguments})")
    earlier, later = case.batches[:2], case.batches[2:]
    for batch in earlier:
        program.run(backward(batch), "sgd.step()", FORGET)
    program.run("new = build()", "new.load_state_dict(copy.deepcopy(net.state_dict()))")
    program.run(f"resumed = SGD(new.parameters(), {case.arguments})")
    if stateful(subject):
        program.run("resumed.load_state_dict(copy.deepcopy(sgd.state_dict()))")
    for batch in later:
        program.run(backward(batch), "sgd.step()", FORGET)
        program.run(backward(batch, "new"), "resumed.step()", FORGET.replace("net", "new"))
        for key in program.value("list(net.state_dict())"):
            program.agree(f"new.state_dict()[{key!r}]", f"net.state_dict()[{key!r}]")


# -- refusals ----------------------------------------------------------------------------------------------------------


@requirement("sgd.refuses.no-parameters", trainings, per_dtype=False)
def test_refuses_no_parameters(subject: Trial, case: Training) -> None:
    """An empty list, and an empty generator."""
    for nothing in ("[]", "iter([])"):
        Program(subject).refuses(f"SGD({nothing}, {case.arguments})")


@composite
def with_negative(draw, *, name: str, **choices: Any):
    """A training in which one number is below 0."""
    if name in draw.written:
        raise OutOfDomain(draw.domain.outside(name))
    training = draw(trainings(**choices))
    return replace(training, numbers=training.numbers | {name: draw(any_of(-1.0, -0.5, -1e-3, -1e-30))})


def refuses_numbers(subject: Trial, case: Training) -> None:
    """The constructor raises."""
    parameters(subject, case).refuses(f"SGD([p], {case.arguments})")


@requirement("sgd.refuses.lr", with_negative, name="lr", per_dtype=False)
def test_refuses_lr(subject: Trial, case: Training) -> None:
    """Below 0, be it ever so little."""
    refuses_numbers(subject, case)


@requirement("sgd.refuses.momentum", with_negative, name="momentum", needs="momentum", per_dtype=False)
def test_refuses_momentum(subject: Trial, case: Training) -> None:
    """Below 0, be it ever so little."""
    refuses_numbers(subject, case)


@requirement("sgd.refuses.weight-decay", with_negative, name="weight_decay", needs="weight_decay", per_dtype=False)
def test_refuses_weight_decay(subject: Trial, case: Training) -> None:
    """Below 0, be it ever so little."""
    refuses_numbers(subject, case)


@composite
def with_other_shape(draw, **choices: Any):
    """A training, and a gradient of another shape: often one that would broadcast."""
    training = draw(trainings(**choices))
    shape = training.start[0].shape
    wrong = draw(any_of(*[s for s in ((), (1,), (1, *shape), (2, *shape), (*shape[:-1], 4)) if s != shape]))
    return training, np.ones(wrong, training.start[0].dtype)


@requirement("sgd.refuses.gradient-shape", with_other_shape, shapes=((2,), (1,), (2, 3), ()), per_dtype=False)
def test_refuses_gradient_shape(subject: Trial, case: tuple[Training, Array]) -> None:
    """Other shapes, as many elements or not."""
    training, gradient = case
    optimised(subject, training).refuses(f"p.grad = {native(gradient)}", "sgd.step()")


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_exact_and_rounded_steps() -> None:
    """Both kinds of verdict, with momentum and weight decay, over several steps."""
    for exact in (True, False):
        reaches(
            trainings(dtype="float32", steps=(1, 4)),
            lambda t: t.start[0].size > 0 and len(t.gradients) > 2 and (not np.any(t.expected(0, 3).within())) == exact,
        )


def test_reach_late_first_gradients() -> None:
    """A parameter whose first gradient comes in the second step, beside one that rests in that step."""

    def corner(training: Training) -> bool:
        present = [[g is not None for g in gradients[:2]] for gradients in training.gradients]
        return present[:2] == [[True, False], [False, True]]

    reaches(trainings(dtype="float32", parameters=(2, 3), steps=(2, 3), rests=True), corner)


def test_reach_networks_that_learn() -> None:
    """Momentum and weight decay at once, and gradients that reach the first layer through every kind of case."""
    reaches(learnings(dtype="float32", vary=ALL, passes=(2, 2)), lambda c: {*ALL} <= c.numbers.keys())
    for rows in (1, 3):
        reaches(learnings(dtype="float32"), lambda c: len(c.batches[0][0]) == rows and _reaches_first(c))


def _reaches_first(case: Learning) -> bool:
    """Whether some first-layer output is positive, so that the rectifier lets the cotangent through."""
    first, (x, _) = case.entries["first"], case.batches[0]
    return bool(np.any(x @ first["weight"].T + first["bias"] > 0))

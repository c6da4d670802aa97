"""The requirements of spec/module.md, in the page's order. A case is a tree of modules; programs build and walk it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from nnspec.adapters.names import LONG
from nnspec.adapters.subject import Lacks, parameters
from nnspec.conformance.case import Array
from nnspec.conformance.checks.learning import (
    FORGET,
    SHARED,
    Learning,
    Pair,
    backward,
    gradients,
    learning,
    learnings,
    learnt,
    networks,
    norm,
    own_names,
)
from nnspec.conformance.checks.life import life
from nnspec.conformance.checks.trees import ALL, Entry, Tree, gives_state, mapping, native, trees
from nnspec.conformance.drawing import any_of, booleans, composite, integers, reaches, some_of
from nnspec.conformance.requirements import CHECKS, requirement
from nnspec.conformance.trial.programs import Program
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial

OWNED = ("parameter", "module")  # what is registered by assignment
SAVED = ("parameter", "buffer", "module")
LOADS = ("state_dict", "load_state_dict")


def has_keys(program: Program, tree: Tree, *without: str, name: str = "net") -> None:
    """The state has the tree's keys, but for those of some paths."""
    keys = [k for k in tree.state() if not any(k == path or k.startswith(path + ".") for path in without)]
    program.equals(f"sorted({name}.state_dict())", sorted(keys))


def has_parameters(program: Program, keys: list[str]) -> None:
    """parameters() and named_parameters() give the parameters of these keys and no others, each once."""
    objects = f"[{', '.join(f'net.{key}' for key in keys)}]"
    for given in ("net.parameters()", "(p for _, p in net.named_parameters())"):
        program.holds(
            f"sorted(id(p) for p in {given}) == sorted({{id(p) for p in {objects}}})",
            f"{given} gives each of {objects} once, and nothing else",
        )


def anew(state: dict[str, Array]) -> dict[str, Array]:
    """Other values for the same keys."""
    return {key: np.asarray(array + np.asarray(1, array.dtype)) for key, array in state.items()}


# -- attributes --------------------------------------------------------------------------------------------------------


@requirement("module.register.by-assignment", trees, kinds=OWNED, needs="state_dict", per_dtype=False)
def test_register_by_assignment(subject: Trial, case: Tree) -> None:
    """One parameter more, and a module, are the very objects that were assigned, and in the state with the others; also
    where that was asked for before."""
    program = case.program(subject).run("net.state_dict()")
    program.run("p = Parameter(to_native(np.ones(1)))", "net.late = p", "m = Module()", "net.below = m")
    program.run("m.late = Parameter(to_native(np.ones(1)))")
    program.holds("net.late is p")
    program.holds("net.below is m")
    program.equals("sorted(net.state_dict())", sorted([*case.state(), "below.late", "late"]))


@composite
def with_choice(draw, *, among: tuple[str, ...], **choices: Any):
    """A tree, and one of its keys, of an entry of these kinds."""
    tree = draw(trees(**choices))
    return tree, draw(any_of(*sorted(tree.entries(*among))))


@requirement(
    "module.register.replaced",
    with_choice,
    among=OWNED,
    kinds=OWNED,
    first="parameter",
    needs=("state_dict", "parameters", "named_parameters"),
    per_dtype=False,
)
def test_register_replaced(subject: Trial, case: tuple[Tree, str]) -> None:
    """A parameter by another, a module by one with another parameter in it."""
    tree, path = case
    program = tree.program(subject).run("p = Parameter(to_native(np.ones(4)))")
    if tree.entries()[path].kind == "parameter":
        program.run(f"net.{path} = p")
        new = path
    else:
        program.run("m = Module()", "m.new = p", f"net.{path} = m")
        new = f"{path}.new"
    keys = [k for k in tree.state() if k != path and not k.startswith(path + ".")] + [new]
    program.equals("sorted(net.state_dict())", sorted(keys))
    program.gives(f"net.state_dict()[{new!r}]", np.ones(4))
    program.holds(f"net.{new} is p")
    has_parameters(program, keys)


@requirement(
    "module.register.none",
    with_choice,
    among=SAVED,
    kinds=SAVED,
    first="parameter",
    needs="state_dict",
    per_dtype=False,
)
def test_register_none(subject: Trial, case: tuple[Tree, str]) -> None:
    """One entry of the tree is set to None."""
    tree, path = case
    program = tree.program(subject).run(f"net.{path} = None")
    program.holds(f"net.{path} is None")
    has_keys(program, tree, path)


@requirement(
    "module.register.deleted",
    with_choice,
    among=SAVED,
    kinds=SAVED,
    first="parameter",
    needs="state_dict",
    per_dtype=False,
)
def test_register_deleted(subject: Trial, case: tuple[Tree, str]) -> None:
    """One entry of the tree is deleted, and its name given to a parameter."""
    tree, path = case
    owner, _, name = f"net.{path}".rpartition(".")
    program = tree.program(subject).run(f"del net.{path}")
    program.holds(f"not hasattr({owner}, {name!r})")
    has_keys(program, tree, path)
    program.run(f"net.{path} = Parameter(to_native(np.ones(4)))").gives(f"net.state_dict()[{path!r}]", np.ones(4))


HASTY = """\
class Hasty(Module):
    def __init__(self):
        self.{name} = {value}
        super().__init__()"""


@requirement("module.register.before-init", trees, kinds=("parameter",), needs="state_dict", per_dtype=False)
def test_register_before_init(subject: Trial, case: Tree) -> None:
    """A parameter, and a module, assigned before the constructor has run, and without its being run at all."""
    name, entry = next(iter(case.entries().items()))
    for value, keys in ((f"Parameter({native(entry.value)})", [name]), ("below", [f"{name}.late"])):
        for text in (HASTY, HASTY.rpartition("\n")[0]):
            program = Program(subject, "Module", "Parameter")
            program.run("below = Module()", f"below.late = Parameter({native(entry.value)})")
            program.run(text.format(name=name, value=value))
            try:
                program.run("net = Hasty()")
            except Mismatch:  # refused
                continue
            program.equals("sorted(net.state_dict())", keys)


@requirement("module.attribute.missing", trees, per_dtype=False)
def test_attribute_missing(subject: Trial, case: Tree) -> None:
    """Read and deleted, in the module and in those below it."""
    program = case.program(subject)
    for owner in ["net", *(f"net.{path}" for path in case.entries("module"))]:
        program.refuses(f"{owner}.missing", kinds=(AttributeError,))
        program.refuses(f"del {owner}.missing", kinds=(AttributeError,))


@requirement("module.attribute.plain", trees, needs=("state_dict", "parameters", "named_parameters"), per_dtype=False)
def test_attribute_plain(subject: Trial, case: Tree) -> None:
    """Numbers, flags, strings, functions, and None under a new name."""
    program = case.program(subject)
    for name, value in (("rate", "0.5"), ("count", "3"), ("flag", "True"), ("text", "'text'"), ("none", "None")):
        program.run(f"net.{name} = {value}").holds(f"type(net.{name}) is type({value}) and net.{name} == {value}")
    program.run("net.function = len").holds("net.function is len")
    has_keys(program, case)
    has_parameters(program, list(case.entries("parameter")))


ECHO = """\
class Echo(Module):
    def forward(self, *inputs, **named):
        return inputs, named"""


@composite
def with_inputs(draw, **choices: Any):
    """How many inputs a call has by position, and which by name."""
    return draw(integers(0, 3)), draw(some_of("xyz", 0, 3))


@requirement("module.call.forward", with_inputs, per_dtype=False)
def test_call_forward(subject: Trial, case: tuple[int, list[str]]) -> None:
    """Any number of arguments by position and by name, and whatever forward returns."""
    positional, named = tuple(range(case[0])), {name: ord(name) for name in case[1]}
    program = Program(subject, "Module").run(ECHO)
    arguments = ", ".join([*map(str, positional), *(f"{n}={v}" for n, v in named.items())])
    program.equals(f"Echo()({arguments})", (positional, named))


# -- walks -------------------------------------------------------------------------------------------------------------


@requirement(
    "module.parameters.complete",
    trees,
    first="module module parameter",
    needs=("parameters", "named_parameters"),
    per_dtype=False,
)
def test_parameters_complete(subject: Trial, case: Tree) -> None:
    """Keys and objects, at every depth; buffers are none."""
    program, keys = case.program(subject), list(case.entries("parameter"))
    has_parameters(program, keys)
    program.equals("sorted(key for key, _ in net.named_parameters())", sorted(keys))


@requirement(
    "module.parameters.shared-once",
    trees,
    kinds=ALL,
    first="parameter",
    needs=("parameters", "named_parameters"),
    per_dtype=False,
)
def test_parameters_shared_once(subject: Trial, case: Tree) -> None:
    """Shared parameters and modules, and beside them a parameter of equal values."""
    name = next(iter(case.steps))[0]
    program = case.program(subject).run(f"net.twin = Parameter(net.{name}.data)", f"net.tied = net.{name}")
    program.run("net.below = Module()", f"net.below.tied = net.{name}")
    has_parameters(program, [*case.entries("parameter"), "twin"])


def _numbers(tree: Tree, *kinds: str) -> int:
    """How many different entries of these kinds there are."""
    return len({entry.number for entry in tree.entries(*kinds).values()})


@requirement(
    "module.buffers.complete",
    trees,
    first="module module transient",
    needs=("register_buffer", "named_buffers"),
    per_dtype=False,
)
def test_buffers_complete(subject: Trial, case: Tree) -> None:
    """Persistent or not, at every depth."""
    program = case.program(subject)
    keys = sorted(case.entries("buffer", "transient"))
    program.equals("sorted(key for key, _ in net.named_buffers())", keys)


@requirement(
    "module.buffers.shared-once",
    trees,
    kinds=ALL,
    first="module",
    needs=("register_buffer", "named_buffers"),
    per_dtype=False,
)
def test_buffers_shared_once(subject: Trial, case: Tree) -> None:
    """Buffers of modules that are reached in several ways."""
    name = next(iter(case.steps))[0]
    program = case.program(subject).run(
        f"net.{name}.register_buffer('seen', to_native(np.zeros(1)))", f"net.twin = net.{name}"
    )
    program.equals("len(list(net.named_buffers()))", _numbers(case, "buffer", "transient") + 1)


@requirement(
    "module.modules.complete",
    trees,
    kinds=("module", "parameter"),
    first="module module",
    needs="named_modules",
    per_dtype=False,
)
def test_modules_complete(subject: Trial, case: Tree) -> None:
    """The module itself, and all below, under their paths."""
    program, paths = case.program(subject), sorted(case.entries("module"))
    program.equals("sorted(path for path, _ in net.named_modules())", ["", *paths])
    for path in ["", *paths]:
        program.holds(f"dict(net.named_modules())[{path!r}] is net{'.' + path if path else ''}")


@requirement(
    "module.modules.shared-once",
    trees,
    kinds=("module", "shared", "parameter"),
    first="module",
    needs="named_modules",
    per_dtype=False,
)
def test_modules_shared_once(subject: Trial, case: Tree) -> None:
    """Modules that are reached in several ways."""
    name = next(iter(case.steps))[0]
    program = case.program(subject).run(f"net.twin = net.{name}")
    program.equals("len(list(net.named_modules()))", _numbers(case, "module") + 1)


@requirement(
    "module.modules.children",
    trees,
    kinds=("module", "parameter", "shared"),
    first="module module",
    needs="children",
    per_dtype=False,
)
def test_modules_children(subject: Trial, case: Tree) -> None:
    """The modules one level below."""
    children = f"[{', '.join(f'net.{name}' for name in case.top('module'))}]"
    program = case.program(subject).run(f"net.twin = net.{case.top('module')[0]}")
    program.holds(
        f"sorted(id(m) for m in net.children()) == sorted({{id(m) for m in {children}}})",
        f"net.children() gives each of {children} once, and nothing else",
    )


# -- buffers -----------------------------------------------------------------------------------------------------------


@requirement(
    "module.buffer.persistent",
    trees,
    kinds=("buffer", "module"),
    first="buffer",
    needs=("register_buffer", "state_dict", "load_state_dict"),
)
def test_buffer_persistent(subject: Trial, case: Tree) -> None:
    """Saved and loaded, whether `persistent` is left out or true."""
    program = case.program(subject).run("net.register_buffer('said', to_native(np.zeros(1)), persistent=True)")
    other = anew(case.state() | {"said": np.zeros(1)})
    gives_state(program.run(f"net.load_state_dict({mapping(other)})"), "net", other)


@requirement(
    "module.buffer.non-persistent",
    with_choice,
    among=("transient",),
    kinds=("transient", "buffer", "module"),
    first="transient",
    needs=("register_buffer", "state_dict", "load_state_dict"),
    per_dtype=False,
)
def test_buffer_non_persistent(subject: Trial, case: tuple[Tree, str]) -> None:
    """Not saved; a state without its key is loaded, and one with it is not."""
    tree, path = case
    program = tree.program(subject)
    has_keys(program, tree)
    program.run(f"net.load_state_dict({mapping(tree.state())})")
    value = tree.entries()[path].value
    assert value is not None
    program.refuses(f"net.load_state_dict({mapping(tree.state() | {path: value})})")


@requirement(
    "module.buffer.none", trees, kinds=("buffer", "module"), needs=("register_buffer", "state_dict"), per_dtype=False
)
def test_buffer_none(subject: Trial, case: Tree) -> None:
    """None first, then an array, in the module and in those below it."""
    program, state = case.program(subject), case.state()
    for path in ["", *(f"{p}." for p in case.entries("module"))]:
        owner = f"net.{path}".removesuffix(".")
        program.run(f"{owner}.register_buffer('late', None)").holds(f"{owner}.late is None")
        program.equals("sorted(net.state_dict())", sorted(state))
        program.run(f"{owner}.register_buffer('late', to_native(np.ones(2)))")
        state[f"{path}late"] = np.ones(2)
        gives_state(program, "net", state)


@composite
def with_persistence(draw, **choices: Any):
    """A tree, one of its buffers, and what is said of `persistent` when it is registered again."""
    kinds = ("transient", "buffer", "module")
    tree, path = draw(with_choice(among=kinds[:2], kinds=kinds, first=draw(any_of(*kinds[:2])), **choices))
    return tree, path, draw(any_of("", ", persistent=True", ", persistent=False"))


@requirement(
    "module.buffer.again",
    with_persistence,
    needs=("register_buffer", "state_dict"),
    per_dtype=False,
)
def test_buffer_again(subject: Trial, case: tuple[Tree, str, str]) -> None:
    """Another array, and another word on whether it is saved."""
    tree, path, persistent = case
    owner, _, name = f"net.{path}".rpartition(".")
    program = tree.program(subject).run(f"{owner}.register_buffer({name!r}, to_native(np.ones(4)){persistent})")
    state = {k: v for k, v in tree.state().items() if k != path}
    gives_state(program, "net", state | ({} if "False" in persistent else {path: np.ones(4)}))


@composite
def with_buffer(draw, **choices: Any):
    """A tree, and one of its buffers, persistent or not."""
    kinds = ("transient", "buffer", "module", "parameter")
    return draw(with_choice(among=kinds[:2], kinds=kinds, first=draw(any_of(*kinds[:2])), **choices))


REGISTERED = "(sorted(net.state_dict()), sorted(k for k, _ in net.named_buffers()), len(list(net.parameters())))"


@requirement(
    "module.buffer.assigned",
    with_buffer,
    needs=("register_buffer", "state_dict", "named_buffers", "parameters"),
    per_dtype=False,
)
def test_buffer_assigned(subject: Trial, case: tuple[Tree, str]) -> None:
    """Two arrays, one after the other; and each time an element of an array, to a buffer without dimensions."""
    tree, path = case
    program, value = tree.program(subject), tree.entries()[path].value
    program.run("net.register_buffer('count', to_native(np.zeros(())))", f"before = {REGISTERED}")
    saved = program.value("list(net.state_dict())")
    for count in (1.0, 2.0):
        assert value is not None
        value = np.asarray(value + np.asarray(1, value.dtype))
        for name, assigned in ((path, native(value)), ("count", f"{native(np.array([count]))}[0]")):
            what = "an array" if name == path else "an element of an array"
            program.run(f"net.{name} = {assigned}")
            program.holds(f"{REGISTERED}[-1] == before[-1]", f"{what} that is assigned is no parameter")
            program.holds(f"{REGISTERED} == before", f"{what} that is assigned leaves the keys as they are")
        for key, array in {path: value, "count": np.array(count)}.items():
            if key in saved:
                program.gives(f"net.state_dict()[{key!r}]", array)


# -- arithmetic --------------------------------------------------------------------------------------------------------

SIDES = (("net.a", "b"), ("b", "net.a"), ("net.a", "net.b"), ("net.a", "2"), ("2", "net.a"))
EXPRESSIONS = [f"{left} {operator} {right}" for operator in "+-*/" for left, right in SIDES]
EXPRESSIONS += ["-net.a", "abs(net.a)", *(f"{left} @ {right}" for left, right in SIDES[:3])]


@composite
def with_operands(draw, *, dtype: str, lacks: frozenset[str]):
    """What `a` and `b` are, and what they hold at first and later: whole numbers, so that their products are exact."""
    kinds = tuple(draw(any_of("parameter", "buffer")) for _ in range(2))
    shape = (draw(integers(1, 3)),) * draw(integers(1, 2))
    rng = np.random.default_rng(draw(integers(0, 2**16 - 1)))
    numbers = rng.choice([-1, 1], (2, 2, *shape)) * rng.integers(1, 9, (2, 2, *shape))
    return kinds, [dict(zip("ab", pair, strict=True)) for pair in numbers.astype(dtype)]


@requirement("module.arithmetic.as-array", with_operands, needs="register_buffer", effort=2)
def test_arithmetic_as_array(subject: Trial, case: tuple[tuple[str, ...], list[dict[str, Array]]]) -> None:
    """On either side of every operator, beside a number, an array and one another; with other values; and `+=`."""
    kinds, (first, later) = case
    steps = tuple((name, Entry(kind, n, first[name])) for n, (name, kind) in enumerate(zip("ab", kinds, strict=True)))
    program = Tree(steps).program(subject)
    for values in (first, later):
        for name, kind in zip("ab", kinds, strict=True):
            program.run(f"{name} = {native(values[name])}")
            if values is later:
                write = (
                    f"net.{name}.data[...] = {{}}" if kind == "parameter" else f"net.register_buffer({name!r}, {{}})"
                )
                program.run(write.format(native(values[name])))
        for expression in EXPRESSIONS:
            program.run(f"y = {expression}").agree("y", expression.replace("net.", ""))
    if kinds[0] == "buffer":
        program.run("net.a += b").agree("1 * net.a", "a + b")


# -- mode --------------------------------------------------------------------------------------------------------------


def has_modes(program: Program, tree: Tree, modes: dict[str, bool]) -> None:
    """Every module is in its mode; training is what is not said."""
    for path in ["", *tree.entries("module")]:
        program.equals(f"net{'.' + path if path else ''}.training", modes.get(path, True))


@requirement("module.mode.default", trees, per_dtype=False)
def test_mode_default(subject: Trial, case: Tree) -> None:
    """Training, at every depth."""
    has_modes(case.program(subject), case, {})


@composite
def mixed(draw, **choices: Any):
    """A tree, and which of its modules are evaluating to begin with."""
    tree = draw(trees(kinds=("module", "parameter", "shared"), first="module module", **choices))
    return tree, [path for path in ["", *tree.entries("module")] if draw(booleans())]


def in_modes(subject: Trial, tree: Tree, evaluating: list[str]) -> Program:
    """The tree, with these modules evaluating. (Each flag is set by itself.)"""
    program = tree.program(subject)
    for path in evaluating:
        program.run(f"net{'.' + path if path else ''}.training = False")
    return program


@requirement("module.mode.eval", mixed, needs=("train", "eval"), per_dtype=False)
def test_mode_eval(subject: Trial, case: tuple[Tree, list[str]]) -> None:
    """eval() and train(False), on modules of whatever modes."""
    for line in ("net.eval()", "net.train(False)"):
        program = in_modes(subject, *case).run(line)
        has_modes(program, case[0], dict.fromkeys(["", *case[0].entries("module")], False))


@requirement("module.mode.train", mixed, needs="train", per_dtype=False)
def test_mode_train(subject: Trial, case: tuple[Tree, list[str]]) -> None:
    """train() and train(True), on modules of whatever modes."""
    for line in ("net.train()", "net.train(True)"):
        has_modes(in_modes(subject, *case).run(line), case[0], {})


@requirement(
    "module.mode.subtree",
    with_choice,
    among=("module",),
    kinds=("module", "parameter"),
    first="module",
    needs="eval",
    per_dtype=False,
)
def test_mode_subtree(subject: Trial, case: tuple[Tree, str]) -> None:
    """One module evaluates, and those below it; all others train."""
    tree, path = case
    below = {p: False for p in tree.entries("module") if p == path or p.startswith(path + ".")}
    has_modes(tree.program(subject).run(f"net.{path}.eval()"), tree, below)


@requirement("module.mode.own", trees, kinds=("module", "parameter"), needs=("train", "eval"), per_dtype=False)
def test_mode_own(subject: Trial, case: Tree) -> None:
    """A module that trains in one that evaluates, and the other way round."""
    program = case.program(subject).run("net.eval()", "net.late = Module()")
    program.equals("net.late.training", True)
    program.equals("net.training", False)
    program.run("late = Module()", "late.eval()", "net.train()", "net.late = late")
    program.equals("net.late.training", False)
    program.equals("net.training", True)


@requirement("module.mode.returns-self", trees, kinds=("parameter", "module"), needs=("train", "eval"), per_dtype=False)
def test_mode_returns_self(subject: Trial, case: Tree) -> None:
    """All three ways to say it."""
    program = case.program(subject)
    for call in ("net.train()", "net.train(False)", "net.eval()"):
        program.holds(f"{call} is net")


# -- state -------------------------------------------------------------------------------------------------------------


@requirement("module.state.complete", trees, first="module module parameter", needs="state_dict", per_dtype=False)
def test_state_complete(subject: Trial, case: Tree) -> None:
    """Parameters and persistent buffers at every depth."""
    has_keys(case.program(subject), case)


@requirement(
    "module.state.keys",
    trees,
    kinds=SAVED,
    names=("weight", "weight_", "w"),
    depth=4,
    needs="state_dict",
    per_dtype=False,
)
def test_state_keys(subject: Trial, case: Tree) -> None:
    """The same names on several levels, and names that begin alike."""
    has_keys(case.program(subject), case)


@requirement("module.state.shared-keys", trees, kinds=ALL, first="module", needs="state_dict", per_dtype=False)
def test_state_shared_keys(subject: Trial, case: Tree) -> None:
    """Shared parameters, and shared modules with buffers in them."""
    tree = Tree((*case.steps, ("twin", case.top("module")[0])))
    gives_state(tree.program(subject), "net", tree.state())


@requirement("module.state.values", trees, first="parameter", needs="state_dict")
def test_state_values(subject: Trial, case: Tree) -> None:
    """Values, shapes and dtypes; and new values after the parameters have changed."""
    program, state = case.program(subject), case.state()
    for key, array in state.items():
        program.equals(f"to_numpy(net.state_dict()[{key!r}]).dtype.name", array.dtype.name)
    for key in case.entries("parameter"):
        state[key] = np.asarray(state[key] + np.asarray(1, state[key].dtype))
        program.run(f"net.{key}.data[...] = {native(state[key])}")
    gives_state(program, "net", state)


# -- loading -----------------------------------------------------------------------------------------------------------


@requirement("module.load.values", trees, needs=LOADS)
def test_load_values(subject: Trial, case: Tree) -> None:
    """All keys, twice."""
    program, state = case.program(subject), case.state()
    for _ in range(2):
        state = anew(state)
        gives_state(program.run(f"net.load_state_dict({mapping(state)})"), "net", state)


@requirement("module.load.copies", trees, kinds=SAVED, first="parameter", needs=LOADS)
def test_load_copies(subject: Trial, case: Tree) -> None:
    """The mapping has its keys and no others, and its arrays are changed."""
    program, given = case.program(subject), anew(case.state())
    program.run(f"given = {mapping(given)}", "net.load_state_dict(given)")
    program.equals("sorted(given)", sorted(given))
    for key in given:
        program.run(f"given[{key!r}][...] = 99")
    gives_state(program, "net", given)


@requirement("module.load.in-place", trees, kinds=SAVED, first="parameter", needs=LOADS, per_dtype=False)
def test_load_in_place(subject: Trial, case: Tree) -> None:
    """The parameters from before loading are those of after it, with the values that were loaded."""
    program, given = case.program(subject), anew(case.state())
    keys = list(case.entries("parameter"))
    program.run(f"before = [{', '.join(f'net.{key}' for key in keys)}]", f"net.load_state_dict({mapping(given)})")
    for i, key in enumerate(keys):
        program.holds(f"net.{key} is before[{i}]")
        program.gives(f"before[{i}].data", given[key])


@requirement("module.load.tied", trees, kinds=ALL, first="parameter", needs=LOADS, per_dtype=False)
def test_load_tied(subject: Trial, case: Tree) -> None:
    """What was shared is shared, and seen to change under all of its keys."""
    tree = Tree((*case.steps, ("tied", next(iter(case.steps))[0])))
    program, entries = tree.program(subject), tree.entries("parameter", "module")
    keys = program.value("sorted(net.state_dict())")
    given = {key: array for key, array in anew(tree.state()).items() if key in keys}
    program.run(f"net.load_state_dict({mapping(given)})")
    first: dict[int, str] = {}
    for key, entry in entries.items():
        other = first.setdefault(entry.number, key)
        if other != key:
            program.holds(f"net.{key} is net.{other}")
    state = anew(tree.state())
    for key, entry in tree.entries("parameter").items():
        if first[entry.number] == key:
            program.run(f"net.{key}.data[...] = {native(anew(state)[key])}")
    for key in tree.entries("parameter"):
        program.gives(f"net.{key}.data", anew(state)[key])
        if key in keys:
            program.gives(f"net.state_dict()[{key!r}]", anew(state)[key])


def lenient(subject: Trial) -> None:
    """Raise Lacks where `strict` is not an argument of load_state_dict."""
    classes = subject.subject.classes
    if "strict" not in (parameters(classes["Module"].load_state_dict) or {"strict"}):
        raise Lacks("load_state_dict has no argument strict")


@composite
def with_part(draw, **choices: Any):
    """A tree, and some of the keys of its state."""
    tree = draw(trees(**choices))
    return tree, [key for key in tree.state() if draw(booleans())]


@requirement("module.load.lenient", with_part, first="parameter", needs=LOADS, per_dtype=False)
def test_load_lenient(subject: Trial, case: tuple[Tree, list[str]]) -> None:
    """Some keys are missing, others unexpected; what both sides have is loaded."""
    lenient(subject)
    tree, part = case
    given = {key: array for key, array in anew(tree.state()).items() if key in part}
    text = mapping(given | {"head.weight": np.ones(1), "other": np.ones(2)})
    program = tree.program(subject).run(f"net.load_state_dict({text}, strict=False)")
    gives_state(program, "net", tree.state() | given)


@requirement("module.load.reported", with_part, first="parameter", needs=LOADS, per_dtype=False)
def test_load_reported(subject: Trial, case: tuple[Tree, list[str]]) -> None:
    """Some keys are missing and others unexpected; then all keys are given, and no others."""
    lenient(subject)
    tree, part = case
    state, others = tree.state(), {"head.weight": np.ones(1), "other": np.ones(2)}
    program = tree.program(subject)
    for given in ({key: array for key, array in state.items() if key in part} | others, state):
        program.run(f"found = net.load_state_dict({mapping(given)}, strict=False)")
        named = program.value("hasattr(found, 'missing_keys') and hasattr(found, 'unexpected_keys')")
        if not named and not program.value("isinstance(found, tuple) and len(found) == 2"):
            raise Lacks("load_state_dict reports no keys")
        missing, unexpected = ("found.missing_keys", "found.unexpected_keys") if named else ("found[0]", "found[1]")
        program.equals(f"sorted({missing})", sorted(state.keys() - given.keys()))
        program.equals(f"sorted({unexpected})", sorted(given.keys() - state.keys()))


@requirement("module.load.same-future", learnings, passes=(3, 5), rows=(2, 2), needs=(*LOADS, "train", "eval"))
def test_load_same_future(subject: Trial, case: Learning) -> None:
    """One pass in training, a new network with the state, then passes through both, in training and in evaluation."""
    program = networks(subject, "BatchNorm1d").run(*case.build(subject, norm(subject.dtype), "ReLU()"))
    (first, _), *batches = case.batches
    program.run(f"net({native(first)})", "new = build()", "new.load_state_dict(copy.deepcopy(net.state_dict()))")
    for number, (x, _) in enumerate(batches):
        mode = ("train", "eval")[number % 2]
        program.run(f"net.{mode}()", f"new.{mode}()", f"x = {native(x)}", "y = net(x)")
        program.run("z = new(x)").agree("z", "y")
        for key in program.value("list(net.state_dict())"):
            program.agree(f"new.state_dict()[{key!r}]", f"net.state_dict()[{key!r}]")


@requirement("module.load.dtype", trees, kinds=SAVED, first="parameter", needs=LOADS, effort=2)
def test_load_dtype(subject: Trial, case: Tree) -> None:
    """Arrays of another dtype are loaded."""
    other = np.float64 if subject.dtype == "float32" else np.float32
    program, state = case.program(subject), case.state()
    program.run(f"net.load_state_dict({mapping({k: np.ones(a.shape, other) for k, a in state.items()})})")
    for key, array in state.items():
        program.equals(f"to_numpy(net.state_dict()[{key!r}]).dtype.name", array.dtype.name)
        program.gives(f"net.state_dict()[{key!r}]", np.ones(array.shape))


@requirement("module.load.all-or-nothing", trees, kinds=SAVED, first="parameter", needs=LOADS, per_dtype=False)
def test_load_all_or_nothing(subject: Trial, case: Tree) -> None:
    """New values for every key, and one key more."""
    program, given = case.program(subject), anew(case.state()) | {"zzz": np.ones(1)}
    program.refuses(f"net.load_state_dict({mapping(given)})")
    gives_state(program, "net", case.state())


# -- copies ------------------------------------------------------------------------------------------------------------


@requirement("module.copy.equal", mixed, needs="state_dict")
def test_copy_equal(subject: Trial, case: tuple[Tree, list[str]]) -> None:
    """Keys, values and modes, some of which were set beforehand."""
    tree, evaluating = case
    program = in_modes(subject, *case).run("origin, net = net, copy.deepcopy(net)")
    keys = program.value("sorted(origin.state_dict())")
    gives_state(program, "net", {key: array for key, array in tree.state().items() if key in keys})
    modes = {
        path: False for path, entry in tree.entries("module").items() if _evaluates(tree, entry.number, evaluating)
    }
    has_modes(program, tree, modes | ({"": False} if "" in evaluating else {}))


def _evaluates(tree: Tree, number: int, evaluating: list[str]) -> bool:
    return any(path and tree.entries()[path].number == number for path in evaluating)


@requirement("module.copy.independent", trees, first="parameter", needs=LOADS)
def test_copy_independent(subject: Trial, case: Tree) -> None:
    """The copy's parameters are written to, for loading might bring new arrays, and the copy is loaded into."""
    program, state = case.program(subject).run("copied = copy.deepcopy(net)"), case.state()
    for key in case.entries("parameter"):
        program.run(f"copied.{key}.data[...] = 99")
    program.run(f"copied.load_state_dict({mapping(anew(state))})")
    gives_state(program, "net", state)


@requirement("module.copy.ties", trees, kinds=ALL, first="parameter", needs="state_dict", per_dtype=False)
def test_copy_ties(subject: Trial, case: Tree) -> None:
    """Shared in the copy is exactly what was shared in the original, and nothing between the two."""
    tree = Tree((*case.steps, ("tied", next(iter(case.steps))[0])))
    program, entries = tree.program(subject).run("copied = copy.deepcopy(net)"), tree.entries("parameter", "module")
    for key, entry in entries.items():
        program.holds(f"copied.{key} is not net.{key}")
        for other, second in entries.items():
            if other < key:
                shared = "is" if second.number == entry.number else "is not"
                program.holds(f"copied.{key} {shared} copied.{other}")


@requirement("module.copy.gradients", learnings, passes=(3, 3), needs="parameters", dtypes=LONG, per_dtype=False)
def test_copy_gradients(subject: Trial, case: Learning) -> None:
    """A pass through the original, then one through the copy, then again one through the original."""
    learning(subject)
    pair, (first, second, third) = Pair(subject).run(*case.lines(subject)), case.batches
    pair.run(backward(first), "copied = copy.deepcopy(net)", FORGET.replace("net", "copied"))
    of_copy = gradients("copied", pair.model.value("[key for key, _ in net.named_parameters()]"))
    for line in (backward(second, "copied"), backward(third)):
        pair.run(line)
        pair.same(*(f"{name}.grad" for name in learnt(subject)), *of_copy)


# -- gradients ---------------------------------------------------------------------------------------------------------


def same_gradients(subject: Trial, case: Learning, *lines: str) -> None:
    """After each pass every parameter has the gradient that the reference has, where these lines were run before."""
    learning(subject)
    pair = Pair(subject).run(*case.lines(subject), *lines)
    for batch in case.batches:
        pair.run(f"y = {backward(batch)}")
        pair.same("y", *(f"{name}.grad" for name in learnt(subject)))


@requirement("module.gradient.accumulates", learnings, passes=(2, 3), dtypes=LONG)
def test_gradient_accumulates(subject: Trial, case: Learning) -> None:
    """Two or three passes."""
    same_gradients(subject, case)


@composite
def with_sharing(draw, **choices: Any):
    """A network, and how something is shared in it."""
    return draw(learnings(**choices)), draw(any_of(*SHARED))


@requirement("module.gradient.shared", with_sharing, passes=(1, 2), dtypes=LONG, per_dtype=False)
def test_gradient_shared(subject: Trial, case: tuple[Learning, tuple[str, ...]]) -> None:
    """A layer that stands in two places, and two layers that have a parameter in common."""
    same_gradients(subject, case[0], *(line.format(dtype=subject.dtype, **own_names(subject)) for line in case[1]))


def _gets_zeros(subject: Trial, case: Learning) -> None:
    _unused(subject, case, "{0}.grad is not None and not np.any(to_numpy({0}.grad))")


@requirement("module.gradient.unused", learnings, passes=(1, 2), per_dtype=False, alternatives={"zeros": _gets_zeros})
def test_gradient_unused(subject: Trial, case: Learning) -> None:
    """A parameter beside those that are used, and a layer below one that does not call it."""
    _unused(subject, case, "{0}.grad is None")


def _unused(subject: Trial, case: Learning, holds: str) -> None:
    """Expect that something holds of the parameters that a backward pass does not use."""
    learning(subject)
    program = networks(subject).run(*case.lines(subject), "net.unused = Parameter(to_native(np.ones(2)))")
    program.run(f'first.side = construct(Linear, (2, 2), {{}}, np.dtype("{subject.dtype}"))')
    for batch in case.batches:
        program.run(backward(batch))
        for name in ("net.unused", *(f"first.side.{own}" for own in own_names(subject).values())):
            program.holds(holds.format(name))


@composite
def with_modes(draw, **choices: Any):
    """A network, and which of it evaluates."""
    return draw(learnings(**choices)), draw(any_of(["net"], ["first"], ["head"], ["net", "first"]))


@requirement("module.gradient.any-mode", with_modes, passes=(1, 2), needs="eval", dtypes=LONG, per_dtype=False)
def test_gradient_any_mode(subject: Trial, case: tuple[Learning, list[str]]) -> None:
    """All of it evaluates, or one of its layers."""
    same_gradients(subject, case[0], *(f"{name}.eval()" for name in case[1]))


@composite
def with_history(draw, **choices: Any):
    """A network, whether it evaluates in the last pass, and whether the passes before that one were all there and
    back."""
    return draw(learnings(**choices)), draw(booleans()), draw(booleans())


@requirement(
    "module.gradient.buffers-constant",
    with_history,
    passes=(2, 4),
    rows=(2, 2),
    needs=(*LOADS, "eval", "parameters", "named_parameters"),
)
def test_gradient_buffers_constant(subject: Trial, case: tuple[Learning, bool, bool]) -> None:
    """Passes in training, there and back or only there; then one more, beside a new network with the same state."""
    network, evaluates, back = case
    learning(subject, "BatchNorm1d")
    program = networks(subject).run(*network.build(subject, norm(subject.dtype)))
    *earlier, last = network.batches
    for batch in earlier:
        program.run(backward(batch) if back else f"net({native(batch[0])})")
    program.run(FORGET, "new = build()", "new.load_state_dict(copy.deepcopy(net.state_dict()))")
    if evaluates:
        program.run("net.eval()", "new.eval()")
    program.run(backward(last), backward(last, "new"))
    keys = program.value("[key for key, _ in net.named_parameters()]")
    for ours, theirs in zip(gradients("net", keys), gradients("new", keys), strict=True):
        program.agree(ours, theirs)


# -- refusals ----------------------------------------------------------------------------------------------------------


@composite
def with_key(draw, **choices: Any):
    """A tree, and one of the keys of its state."""
    tree = draw(trees(kinds=SAVED, first="parameter", **choices))
    return tree, draw(any_of(*sorted(tree.state())))


def refuses_state(subject: Trial, tree: Tree, state: dict[str, Array], *options: str) -> None:
    """The state is not loaded; the tree's own is."""
    program = tree.program(subject).run(f"net.load_state_dict({mapping(tree.state())})")
    program.refuses(f"net.load_state_dict({', '.join([mapping(state), *options])})")


@requirement("module.refuses.missing-key", with_key, needs=LOADS, per_dtype=False)
def test_refuses_missing_key(subject: Trial, case: tuple[Tree, str]) -> None:
    """One key is missing; all are."""
    tree, missing = case
    refuses_state(subject, tree, {k: a for k, a in tree.state().items() if k != missing})
    refuses_state(subject, tree, {})


@requirement("module.refuses.unexpected-key", with_key, needs=LOADS, per_dtype=False)
def test_refuses_unexpected_key(subject: Trial, case: tuple[Tree, str]) -> None:
    """One key more, of the module itself or of one that it does not have."""
    tree, _ = case
    for unexpected in ("other", "other.weight"):
        refuses_state(subject, tree, tree.state() | {unexpected: np.ones(1)})


@requirement("module.refuses.extended-key", with_key, needs=LOADS, per_dtype=False)
def test_refuses_extended_key(subject: Trial, case: tuple[Tree, str]) -> None:
    """A known key with something behind it, and the beginnings of known keys."""
    tree, key = case
    for unexpected in (f"{key}.foo", f"{key}_", *key.rpartition(".")[:1], key[:-1]):
        if unexpected and unexpected not in tree.state():
            refuses_state(subject, tree, tree.state() | {unexpected: np.ones(1)})


def _other_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that could not be broadcast to this one, with as many elements where that can be."""
    return (*shape, 1) if max(shape, default=0) > 1 else (2, 2)


@requirement("module.refuses.shape", with_key, needs=LOADS, per_dtype=False)
def test_refuses_shape(subject: Trial, case: tuple[Tree, str]) -> None:
    """As many elements in another shape, and more elements."""
    tree, key = case
    for shape in {_other_shape(tree.state()[key].shape), (7,) * max(2, tree.state()[key].ndim)}:
        refuses_state(subject, tree, tree.state() | {key: np.ones(shape)})


@composite
def with_broadcastable(draw, **choices: Any):
    """A tree, one of the keys of its state, and a shape that could be broadcast to the entry's."""
    tree, key = draw(with_key(**choices))
    shape = tree.state()[key].shape
    smaller = [(1,) * len(shape), shape[1:], ()] if shape else []
    larger = [(1, *shape)] if shape else [(1, 1)]
    return tree, key, draw(any_of(*[s for s in [*smaller, *larger] if s != shape]))


@requirement("module.refuses.broadcast-shape", with_broadcastable, needs=LOADS, per_dtype=False)
def test_refuses_broadcast_shape(subject: Trial, case: tuple[Tree, str, tuple[int, ...]]) -> None:
    """One element, one row, or one more dimension of size 1."""
    tree, key, shape = case
    refuses_state(subject, tree, tree.state() | {key: np.ones(shape)})


@requirement("module.refuses.lenient-shape", with_key, needs=LOADS, per_dtype=False)
def test_refuses_lenient_shape(subject: Trial, case: tuple[Tree, str]) -> None:
    """Another shape under a known key, where keys may be missing."""
    lenient(subject)
    tree, key = case
    refuses_state(subject, tree, {key: np.ones(_other_shape(tree.state()[key].shape))}, "strict=False")


@requirement("module.refuses.plain-array", with_choice, among=OWNED, kinds=OWNED, first="parameter", per_dtype=False)
def test_refuses_plain_array(subject: Trial, case: tuple[Tree, str]) -> None:
    """An array of the parameter's own shape, and one in a module's place."""
    tree, path = case
    value = tree.entries()[path].value
    tree.program(subject).refuses(f"net.{path} = {native(np.ones(1) if value is None else value)}")
    tree.program(subject).run("net.below = Module()").refuses("net.below = to_native(np.ones(1))")


@requirement(
    "module.refuses.taken-name",
    with_choice,
    among=OWNED,
    kinds=OWNED,
    first="parameter",
    needs="register_buffer",
    per_dtype=False,
)
def test_refuses_taken_name(subject: Trial, case: tuple[Tree, str]) -> None:
    """A parameter's or module's name, a method's, and a number's."""
    tree, path = case
    owner, _, name = f"net.{path}".rpartition(".")
    tree.program(subject).refuses(f"{owner}.register_buffer({name!r}, to_native(np.ones(1)))")
    tree.program(subject).refuses(f"{owner}.register_buffer('forward', to_native(np.ones(1)))")
    program = tree.program(subject).run(f"{owner}.rate = 0.5")
    program.refuses(f"{owner}.register_buffer('rate', to_native(np.ones(1)))")


@requirement("module.refuses.dotted-name", trees, kinds=OWNED, first="module", per_dtype=False)
def test_refuses_dotted_name(subject: Trial, case: Tree) -> None:
    """The path of a module and a name, some other name with a dot, one that ends with it, and the empty name."""
    for name in (f"{next(iter(case.steps))[0]}.late", "x.y", "x.", ""):
        case.program(subject).refuses(f"setattr(net, {name!r}, Parameter(to_native(np.ones(1))))")
        if "register_buffer" not in subject.subject.lacks("module", "class"):
            case.program(subject).refuses(f"net.register_buffer({name!r}, to_native(np.ones(1)))")


@requirement("module.refuses.no-forward", trees, kinds=OWNED, per_dtype=False)
def test_refuses_no_forward(subject: Trial, case: Tree) -> None:
    """Module itself, and a class of it that says nothing."""
    program = case.program(subject).run("class Silent(Module):\n    pass")
    program.refuses("net(to_native(np.ones(1)))")
    program.refuses("Silent()(to_native(np.ones(1)))")


# -- all of it, over and over ------------------------------------------------------------------------------------------


@requirement(
    "module.life.equals-model",
    life,
    needs=(*LOADS, "train", "eval", "parameters"),
    dtypes=LONG,  # that count whole numbers far enough
    effort=2,
)
def test_life_equals_model(subject: Trial, case: Any) -> None:
    """Hypothesis chooses what is done to a network; the same lines are run on the reference."""
    case.begin(subject)


# -- the cases reach the corners ---------------------------------------------------------------------------------------


def test_reach_ties() -> None:
    """Parameters and modules shared across levels; a shared module below a shared one; a buffer in it."""

    def keys(tree: Tree, *kinds: str) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for key, entry in tree.entries(*kinds).items():
            found.setdefault(entry.number, []).append(key)
        return found

    for corner in (
        lambda t: any({k.count(".") for k in ks} == {0, 1} for ks in keys(t, "parameter").values()),
        lambda t: any(len(ks) > 1 for ks in keys(t, "module").values()),
        lambda t: any(len(ks) > 2 for ks in keys(t, "parameter").values()),
        lambda t: any(len(ks) > 1 for ks in keys(t, "buffer").values()),
        lambda t: any(len(ks) > 1 for ks in keys(t, "transient").values()),
    ):
        reaches(CHECKS["module.state.shared-keys"].drawn(), corner)


def test_reach_deep_trees() -> None:
    """Three levels, buffers of both kinds and a count at the bottom; arrays of no dimensions and of no elements."""
    for name, corner in (
        ("buffers.complete", lambda t: any(k.count(".") == 2 for k in t.entries("transient"))),
        ("state.complete", lambda t: any(k.count(".") == 2 and a.dtype == np.int64 for k, a in t.state().items())),
        ("state.values", lambda t: any(a.ndim == 0 for a in _arrays(t)) and any(a.size == 0 for a in _arrays(t))),
        ("register.by-assignment", lambda t: "weight" in t.entries("module") and "weight.weight" in t.state()),
    ):
        reaches(CHECKS[f"module.{name}"].drawn(), corner)


def _arrays(tree: Tree) -> Iterable[np.ndarray]:
    return tree.state().values()


def test_reach_mixed_modes() -> None:
    """A module that evaluates below one that trains, and the other way round."""
    for corner in (lambda c: "" in c[1] and len(c[1]) == 1, lambda c: "" not in c[1] and c[1]):
        reaches(mixed(dtype="float32"), corner)

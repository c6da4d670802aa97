"""Wrong chains of modules."""

import copy

from nnspec.conformance.faults import fault
from nnspec.reference.linear import Linear
from nnspec.reference.module import Module
from nnspec.reference.sequential import Sequential as Right


def _chain(key, mistake):
    """The fault is a class of its own."""

    def add(cls):
        fault(key, mistake, Sequential=cls)
        return cls

    return add


def _running(key, mistake):
    """The fault is what a call gives: (chain, x) -> y."""

    def add(forward):
        _chain(key, mistake)(type("Sequential", (Right,), {"forward": forward}))
        return forward

    return add


def _index(key, mistake):
    """The fault is what an index gives: (chain, list of its modules, index) -> a module or a Sequential."""

    def add(get):
        item = {"__getitem__": lambda self, index: get(self, list(self), index)}
        _chain(key, mistake)(type("Sequential", (Right,), item))
        return get

    return add


# -- calls -------------------------------------------------------------------------------------------------------------


@_running("sequential.call.order/by-name", "modules run in the order of their names as strings")
def _by_name(self, x):
    for name in sorted(n for n, m in vars(self).items() if isinstance(m, Module)):
        x = vars(self)[name](x)
    return x


@_running("sequential.call.order/reversed", "the last module runs first")
def _reversed(self, x):
    for module in reversed(list(self)):
        x = module(x)
    return x


@_running("sequential.call.order/all-on-input", "every module gets the input itself")
def _on_input(self, x):
    y = x
    for module in self:
        y = module(x)
    return y


@_running("sequential.call.order/one-of-a-class", "of modules of one class the first one runs in the place of each")
def _one_of_a_class(self, x):
    first = {}
    for module in self:
        x = first.setdefault(type(module), module)(x)
    return x


@_running("sequential.call.empty/none", "no modules give nothing")
def _nothing(self, x):
    y = None
    for module in self:
        y = x = module(x)
    return y


@_running("sequential.call.nested/skipped", "a Sequential in it is passed over")
def _skips(self, x):
    for module in self:
        x = x if isinstance(module, Right) else module(x)
    return x


@_running("sequential.call.nested/at-the-end", "modules of a Sequential in it run at the end")
def _at_the_end(self, x):
    for module in sorted(self, key=lambda m: isinstance(m, Right)):
        x = module(x)
    return x


@_running("sequential.call.twice/once", "a module that stands twice runs once")
def _once(self, x):
    for module in self.children():
        x = module(x)
    return x


@_chain("sequential.call.twice/counted-once", "a module that stands twice is counted once")
class _CountedOnce(Right):
    def __iter__(self):
        return iter(list(self.children()))

    def append(self, module):
        setattr(self, str(sum(isinstance(m, Module) for m in vars(self).values())), module)
        return self

    def forward(self, x):
        for module in [m for m in vars(self).values() if isinstance(m, Module)]:
            x = module(x)
        return x


class _KnowsItsModules(Right):
    """Does not ask itself how many modules it has, nor which."""

    def modules_in_row(self):
        return [m for m in vars(self).values() if isinstance(m, Module)]

    def append(self, module):
        setattr(self, str(len(self.modules_in_row())), module)
        return self

    def forward(self, x):
        for module in self.modules_in_row():
            x = module(x)
        return x

    def __getitem__(self, index):
        modules = self.modules_in_row()[index]
        return type(self)(*modules) if isinstance(index, slice) else modules


@_chain("sequential.call.twice/length", "a module that stands twice adds one to the length")
class _LengthOfOnce(_KnowsItsModules):
    def __len__(self):
        return len(list(self.children()))


@_chain("sequential.call.twice/iterated-once", "iteration gives a module that stands twice once")
class _IteratedOnce(_KnowsItsModules):
    def __iter__(self):
        return iter(list(self.children()))

    def __len__(self):
        return len(self.modules_in_row())


@_running("sequential.call.current/frozen", "the first call keeps copies of the modules for all later ones")
def _frozen(self, x):
    if not hasattr(self, "kept"):
        object.__setattr__(self, "kept", [copy.deepcopy(list(self))])
    for module in self.kept[0]:
        x = module(x)
    return x


@_running("sequential.input.unchanged/in-place", "results are copied into the input where they fit")
def _in_place(self, x):
    for module in self:
        y = module(x)
        if y.shape == x.shape:
            x[...] = y
        else:
            x = y
    return x.copy()


# -- gradients ---------------------------------------------------------------------------------------------------------


def _going_back(key, mistake):
    """The fault is the pullback: (chain, x) -> from a cotangent to the gradient of x."""

    def add(back):
        _chain(f"sequential.gradient.{key}", mistake)(
            type("Sequential", (Right,), {"vjp": lambda self, x: (self(x), back(self, x))})
        )
        return back

    return add


def _pulled(pullbacks):
    def pull(cotangent):
        for through in reversed(pullbacks):
            cotangent = through(cotangent)
        return cotangent

    return pull


def _steps(modules, x):
    """The pullback of each module at the input that it has."""
    pullbacks = []
    for module in modules:
        x, through = module.vjp(x)
        pullbacks.append(through)
    return pullbacks


_going_back("x/forwards", "the first module hands back first")(lambda self, x: _pulled(_steps(self, x)[::-1]))
_going_back("x/last-alone", "what the last module hands back is the result")(
    lambda self, x: _pulled(_steps(self, x)[-1:])
)
_going_back("x/without-parameters", "modules without parameters are passed over on the way back")(
    lambda self, x: _pulled([t for m, t in zip(self, _steps(self, x), strict=True) if list(m.parameters())])
)
_going_back("x/at-input", "every module hands back as if the input of the chain were its own")(
    lambda self, x: _pulled([module.vjp(x)[1] for module in self])
)


@_going_back("parameters/at-output", "parameters get what they would if their module had had its result as input")
def _at_output(self, x):
    def pull(cotangent):
        inputs = [x]
        for module in self:
            inputs.append(module(inputs[-1]))
        for module, own, output in zip(reversed(list(self)), inputs[-2::-1], inputs[:0:-1], strict=True):
            before = [(p, p.grad) for p in module.parameters()]
            following = module.vjp(own)[1](cotangent)
            for parameter, gradient in before:
                parameter.grad = gradient
            module.vjp(output)[1](cotangent)
            cotangent = following
        return cotangent

    return pull


@_going_back("parameters/last-alone", "the parameters of the last module alone get a gradient")
def _last_alone(self, x):
    def pull(cotangent):
        result = _pulled(_steps(self, x))(cotangent)
        for module in list(self)[:-1]:
            for parameter in module.parameters():
                parameter.grad = None
        return result

    return pull


@_going_back("nested/skipped", "a Sequential in it hands back what it gets, and its parameters nothing")
def _nested_skipped(self, x):
    steps = zip(self, _steps(self, x), strict=True)
    return _pulled([(lambda g: g) if isinstance(m, Right) else through for m, through in steps])


@_going_back("nested/without-parameters", "parameters of a Sequential in it get no gradient")
def _nested_frozen(self, x):
    def pull(cotangent):
        result = _pulled(_steps(self, x))(cotangent)
        for module in self:
            for parameter in module.parameters() if isinstance(module, Right) else ():
                parameter.grad = None
        return result

    return pull


@_going_back("twice/once", "a module that stands twice hands back once")
def _back_once(self, x):
    return _pulled(list(dict(zip(map(id, self), _steps(self, x), strict=True)).values()))


@_going_back("twice/overwritten", "a gradient replaces the one from another place")
def _overwritten(self, x):
    def pull(cotangent):
        for module, through in zip(reversed(list(self)), reversed(_steps(self, x)), strict=True):
            for parameter in module.parameters():
                parameter.grad = None
            cotangent = through(cotangent)
        return cotangent

    return pull


@_going_back("twice/every-place", "what a module got in all its places is multiplied by their number")
def _doubled(self, x):
    def pull(cotangent):
        result = _pulled(_steps(self, x))(cotangent)
        for module in self.children():
            for parameter in module.parameters():
                parameter.grad = parameter.grad * sum(m is module for m in self)
        return result

    return pull


class _RemembersInput(Linear):
    """Keeps what it needs on the way back in an attribute."""

    def vjp(self, x):
        """forward(x), and its pullback."""
        self.input = x
        return self(x), lambda cotangent: Linear.vjp(self, self.input)[1](cotangent)


fault(
    "sequential.gradient.twice/last-input",
    "a layer keeps the input of its last call alone, and goes back with that in each of its places",
    Sequential=Right,
    Linear=_RemembersInput,
)
_going_back("empty/none", "no modules hand nothing back")(
    lambda self, x: _pulled(_steps(self, x)) if len(self) else lambda cotangent: None
)
_going_back("empty/ones", "without modules the gradient is 1, whatever the cotangent")(
    lambda self, x: _pulled(_steps(self, x)) if len(self) else lambda cotangent: cotangent * 0 + 1
)


@_going_back("unchanged/cotangent", "what is handed back is written over the cotangent where it fits")
def _over_cotangent(self, x):
    def pull(cotangent):
        result = _pulled(_steps(self, x))(cotangent)
        if result.shape == cotangent.shape:
            cotangent[...] = result
        return result

    return pull


@_going_back("unchanged/input", "the gradient is written over the input")
def _over_input(self, x):
    def pull(cotangent):
        x[...] = _pulled(_steps(self, x))(cotangent)
        return x.copy()

    return pull


# -- the tree ----------------------------------------------------------------------------------------------------------


@_chain("sequential.state.keys/from-one", "positions are counted from 1")
class _FromOne(Right):
    def append(self, module):
        setattr(self, str(len(self) + 1), module)
        return self


@_chain("sequential.state.keys/by-class", "keys have the names of classes, and a number")
class _ByClass(Right):
    def append(self, module):
        setattr(self, f"{type(module).__name__.lower()}{len(self)}", module)
        return self


@_chain("sequential.state.keys/flat", "modules of a Sequential in it are counted on")
class _Flat(Right):
    def _entries(self, kind, prefix=""):
        names = [(n, m) for n, m in vars(self).items() if isinstance(m, Module)]
        for name, module in names:
            yield from module._entries(kind, prefix if isinstance(module, Right) else f"{prefix}{name}.")


class _InAList(Module):
    """Modules in a list, which no walk over attributes finds."""

    def __init__(self, *modules):
        super().__init__()
        self.modules = list(modules)

    def append(self, module):
        self.modules.append(module)
        return self

    def forward(self, x):
        for module in self.modules:
            x = module(x)
        return x

    def __iter__(self):
        return iter(self.modules)

    def __len__(self):
        return len(self.modules)

    def __getitem__(self, index):
        return type(self)(*self.modules[index]) if isinstance(index, slice) else self.modules[index]


fault("sequential.parameters.complete/plain-list", "the modules are kept in a plain list", Sequential=_InAList)


@_chain("sequential.parameters.complete/one-level", "parameters of a Sequential in it are left out")
class _OneLevel(Right):
    def parameters(self):
        return (p for m in self.children() if not isinstance(m, Right) for p in m.parameters())


@_chain("sequential.parameters.shared-once/every-place", "parameters are given once for each place of their module")
class _EveryPlace(Right):
    def parameters(self):
        return (p for m in self for p in m.parameters())


@_chain("sequential.parameters.shared-once/one-key", "a module that stands twice has the keys of its first place alone")
class _OneKey(Right):
    def state_dict(self):
        last = {id(m): n for n, m in reversed(vars(self).items()) if isinstance(m, Module)}
        return {k: v for k, v in super().state_dict().items() if k.split(".")[0] in last.values()}


@_chain("sequential.mode.reaches-all/container-alone", "train and eval set the container's own flag alone")
class _OwnMode(Right):
    def train(self, mode=True):
        self.training = mode
        return self


@_chain("sequential.mode.reaches-all/modules-alone", "train and eval leave the container's own flag")
class _OthersMode(Right):
    def train(self, mode=True):
        for module in self:
            module.train(mode)
        return self


@_chain("sequential.mode.reaches-all/as-built", "train and eval reach the modules given to the constructor alone")
class _ModeAsBuilt(Right):
    def __init__(self, *modules):
        super().__init__(*modules)
        self.given = len(modules)

    def train(self, mode=True):
        self.training = mode
        for module in list(self)[: self.given]:
            module.train(mode)
        return self


@_chain("sequential.append.runs/unread", "appended modules are registered, and do not run")
class _Unread(Right):
    def __init__(self, *modules):
        super().__init__(*modules)
        self.given = len(modules)

    def forward(self, x):
        for module in list(self)[: self.given]:
            x = module(x)
        return x


@_chain("sequential.append.runs/first", "an appended module runs first")
class _RunsFirst(_Unread):
    def forward(self, x):
        modules = list(self)
        for module in modules[self.given :] + modules[: self.given]:
            x = module(x)
        return x


@_chain("sequential.append.state/unregistered", "appended modules run, and are registered nowhere")
class _Unregistered(Right):
    def __init__(self, *modules):
        self.late = []
        for module in modules:
            super().append(module)

    def append(self, module):
        self.late.append(module)
        return self

    def __iter__(self):
        return iter([m for m in vars(self).values() if isinstance(m, Module)] + self.late)


@_chain("sequential.append.state/not-optimised", "parameters of appended modules are not given to the optimiser")
class _NotOptimised(Right):
    def __init__(self, *modules):
        super().__init__(*modules)
        self.given = len(modules)

    def parameters(self):
        return (p for m in list(self)[: self.given] for p in m.parameters())


@_chain("sequential.append.state/named-after-class", "appended modules are registered under the name of their class")
class _NamedAfterClass(Right):
    def __init__(self, *modules):
        for module in modules:
            super().append(module)

    def append(self, module):
        setattr(self, f"{type(module).__name__}{len(self)}", module)
        return self


@_chain("sequential.append.returns-self/none", "append gives None")
class _AppendsNone(Right):
    def append(self, module):
        super().append(module)


# -- the list ----------------------------------------------------------------------------------------------------------


@_chain("sequential.length.count/leaves", "modules of a Sequential in it are counted too")
class _Leaves(Right):
    def __len__(self):
        return sum(len(m) if isinstance(m, Right) else 1 for m in self)


@_chain("sequential.length.count/as-built", "appended modules are not counted")
class _LengthAsBuilt(Right):
    def __init__(self, *modules):
        for position, module in enumerate(modules):
            setattr(self, str(position), module)
        self.given = len(modules)

    def __len__(self):
        return self.given


@_chain("sequential.length.count/never-none", "a Sequential of no modules has the length 1")
class _NeverNone(_KnowsItsModules):
    def __len__(self):
        return len(self.modules_in_row()) or 1


@_chain("sequential.iteration.order/names", "iteration gives names")
class _Names(_InAList):
    def __iter__(self):
        return iter(str(i) for i in range(len(self.modules)))


@_chain("sequential.iteration.order/by-name", "iteration gives the modules in the order of their names as strings")
class _IteratesByName(_InAList):
    def __iter__(self):
        return iter([self.modules[int(name)] for name in sorted(str(i) for i in range(len(self.modules)))])


_index("sequential.index.position/from-one", "indices are counted from 1")(
    lambda self, modules, i: type(self)(*modules[i]) if isinstance(i, slice) else modules[i - 1 if i > 0 else i]
)
_index("sequential.index.position/copies", "an index gives a copy")(
    lambda self, modules, i: type(self)(*modules[i]) if isinstance(i, slice) else copy.deepcopy(modules[i])
)
_index("sequential.index.negative/by-name", "a negative index is looked up as a name")(
    lambda self, modules, i: type(self)(*modules[i]) if isinstance(i, slice) else vars(self)[str(i)]
)
_index("sequential.index.negative/off-by-one", "−1 is the last but one")(
    lambda self, modules, i: type(self)(*modules[i]) if isinstance(i, slice) else modules[i - 1 if i < 0 else i]
)


def _sliced(key, mistake):
    """The fault is what a slice gives: (chain, list of its modules, slice) -> anything."""

    def add(get):
        _index(key, mistake)(lambda self, modules, i: get(self, modules, i) if isinstance(i, slice) else modules[i])
        return get

    return add


_sliced("sequential.slice.range/list", "a slice is a list")(lambda self, modules, i: modules[i])
_sliced("sequential.slice.range/last-included", "a slice includes its upper bound")(
    lambda self, modules, i: type(self)(*modules[slice(i.start, None if i.stop in (None, -1) else i.stop + 1, i.step)])
)
_sliced("sequential.slice.range/negative-clipped", "negative bounds count as 0")(
    lambda self, modules, i: type(self)(*modules[slice(*(b and max(b, 0) for b in (i.start, i.stop)), i.step)])
)
_sliced("sequential.slice.range/other-class", "a slice runs, and is no Sequential")(
    lambda self, modules, i: _InAList(*modules[i])
)
_sliced("sequential.slice.range/start-ignored", "a lower bound from the front is ignored")(
    lambda self, modules, i: type(self)(*modules[slice(min(i.start or 0, 0) or None, i.stop, i.step)])
)
_sliced("sequential.slice.step/ignored", "the step is ignored")(
    lambda self, modules, i: type(self)(*modules[slice(i.start, i.stop, None if (i.step or 1) > 0 else i.step)])
)
_sliced("sequential.slice.reversed/sorted", "a negative step takes modules, which then run forwards")(
    lambda self, modules, i: type(self)(*[modules[k] for k in sorted(range(len(modules))[i])])
)
_sliced("sequential.slice.reversed/ignored", "the sign of the step is ignored")(
    lambda self, modules, i: type(self)(*modules[slice(i.start, i.stop, abs(i.step or 1))])
)
_sliced("sequential.slice.shares/copies", "a slice has copies of the modules")(
    lambda self, modules, i: type(self)(*copy.deepcopy(modules[i]))
)


@_sliced("sequential.slice.independent/itself", "a slice of everything is the Sequential itself")
def _itself(self, modules, i):
    return self if modules[i] == modules else type(self)(*modules[i])


# -- refusals ----------------------------------------------------------------------------------------------------------

_index("sequential.refuses.index/wraps", "an index beyond the end begins again at the front")(
    lambda self, modules, i: (
        type(self)(*modules[i]) if isinstance(i, slice) else modules[i % len(modules) if i >= 0 and modules else i]
    )
)
_index("sequential.refuses.index/key-error", "an index beyond the end is a KeyError")(
    lambda self, modules, i: (
        type(self)(*modules[i]) if isinstance(i, slice) else dict(enumerate(modules))[i] if i >= 0 else modules[i]
    )
)
_index("sequential.refuses.negative-index/wraps", "an index before the front begins again at the end")(
    lambda self, modules, i: (
        type(self)(*modules[i]) if isinstance(i, slice) else modules[i % len(modules) if i < 0 and modules else i]
    )
)
_index("sequential.refuses.negative-index/key-error", "an index before the front is a KeyError")(
    lambda self, modules, i: (
        type(self)(*modules[i])
        if isinstance(i, slice)
        else {k: modules[k] for k in range(-len(modules), 0)}[i]
        if i < 0
        else modules[i]
    )
)
fault("sequential.refuses.non-module/anything", "anything is taken for a module", Sequential=_InAList)


@_chain("sequential.refuses.non-module/constructor", "the constructor takes anything")
class _BuiltOfAnything(Right):
    def __init__(self, *modules):
        for module in modules:
            setattr(self, str(len(vars(self))), module)


@_chain("sequential.refuses.non-module/append", "anything can be appended")
class _AppendsAnything(Right):
    def __init__(self, *modules):
        for module in modules:
            Right.append(self, module)

    def append(self, module):
        setattr(self, str(len(self)), module)
        return self


@_chain("sequential.refuses.non-module/skipped", "what is not a module is left out")
class _Skipped(Right):
    def append(self, module):
        return super().append(module) if isinstance(module, Module) else self

"""Wrong modules. In a tree of them every module is as wrong as the others."""

import copy

import numpy as np
from nnspec.conformance.faults import fault
from nnspec.reference.batch_norm import BatchNorm1d
from nnspec.reference.linear import Linear
from nnspec.reference.module import Buffer, Parameter
from nnspec.reference.module import Module as Right
from nnspec.reference.sequential import Sequential


def _module(key, mistake):
    """The fault is a class of its own."""

    def add(cls):
        fault(key, mistake, Module=cls)
        return cls

    return add


def _method(key, mistake, name):
    """The fault is one method."""

    def add(method):
        _module(key, mistake)(type("Module", (Right,), {name: method}))
        return method

    return add


def _entries(key, mistake):
    """The fault is a walk: (module, kind, prefix) -> pairs of key and entry."""
    return _method(key, mistake, "_entries")


def _attributes(module, kind):
    return [(name, entry) for name, entry in vars(module).items() if isinstance(entry, kind)]


def _once(entries):
    return iter({id(entry): (key, entry) for key, entry in reversed(list(entries))}.values())


# -- attributes --------------------------------------------------------------------------------------------------------


@_method("module.register.by-assignment/copies", "an assigned parameter is copied", "__setattr__")
def _copies(self, name, value):
    Right.__setattr__(self, name, copy.copy(value) if isinstance(value, Parameter) else value)


class _Declared(Right):
    """Only what is declared is in the tree."""

    def _entries(self, kind, prefix=""):
        return ((k, e) for k, e in super()._entries(kind, prefix) if not isinstance(e, Parameter))


fault("module.register.by-assignment/unregistered", "parameters have to be declared", Module=_Declared)


@_method(
    "module.register.by-assignment/collected-once", "the first state_dict settles which keys there are", "state_dict"
)
def _collected_once(self):
    keys = vars(self).setdefault("keys", set(self._state()))
    return {k: a for k, a in Right.state_dict(self).items() if k in keys}


@_method(
    "module.register.by-assignment/wrapped",
    "a module is read as another object of the same contents",
    "__getattribute__",
)
def _wrapped(self, name):
    value = object.__getattribute__(self, name)
    if not isinstance(value, Right):
        return value
    other = object.__new__(type(value))
    object.__setattr__(other, "__dict__", vars(value))
    return other


class _Registry(Right):
    """Keeps beside its attributes what was ever assigned."""

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if isinstance(value, Parameter | Buffer | Right):
            vars(self).setdefault("registry", {}).setdefault(self.key(name), (name, value))

    def key(self, name):
        return (name, len(vars(self).get("registry", {})))

    def _entries(self, kind, prefix=""):
        for name, entry in vars(self).get("registry", {}).values():
            if isinstance(entry, kind):
                yield prefix + name, entry
            if isinstance(entry, Right):
                yield from entry._entries(kind, f"{prefix}{name}.")


fault("module.register.replaced/both-kept", "what was replaced stays registered", Module=_Registry)


@_module("module.register.replaced/first-kept", "the registry keeps the first entry of a name")
class _FirstKept(_Registry):
    def key(self, name):
        return name


def _goes_on(key, mistake, kinds):
    """Some walks, those for these kinds, go on with the parameter that was replaced."""

    @_module(key, mistake)
    class GoesOn(Right):
        def __setattr__(self, name, value):
            former = vars(self).get(name)
            super().__setattr__(name, value)
            if isinstance(value, Parameter) and isinstance(former, Parameter):
                vars(self).setdefault("former", {})[name] = former

        def _entries(self, kind, prefix=""):
            former = vars(self).get("former", {}) if kind in kinds else {}
            for key, entry in super()._entries(kind, prefix):
                yield key, former.get(key.removeprefix(prefix), entry)


_goes_on("module.register.replaced/not-optimised", "an optimiser gets the parameter that was replaced", (Parameter,))
_goes_on("module.register.replaced/not-saved", "the parameter that was replaced is saved", (Parameter | Buffer,))


@_module("module.register.replaced/module-saved", "of a module that was replaced, the state keeps the entries")
class _SavesTheFormerModule(Right):
    def __setattr__(self, name, value):
        former = vars(self).get(name)
        super().__setattr__(name, value)
        if isinstance(value, Right) and isinstance(former, Right):
            vars(self)["former"] = (name, former)

    def _entries(self, kind, prefix=""):
        if kind is not Parameter and "former" in vars(self):
            name, former = vars(self)["former"]
            yield from former._entries(kind, f"{prefix}{name}.")
        yield from super()._entries(kind, prefix)


@_method(
    "module.register.replaced/written-into", "the values are written into the parameter that is there", "__setattr__"
)
def _written_into(self, name, value):
    if isinstance(value, Parameter) and isinstance(vars(self).get(name), Parameter):
        vars(self)[name].data = value.data
    else:
        Right.__setattr__(self, name, value)


@_module("module.register.none/kept", "None takes nothing out of the tree")
class _KeptDespiteNone(_Registry):
    def __setattr__(self, name, value):
        if isinstance(value, Parameter | Buffer | Right):
            vars(self).get("registry", {}).pop(name, None)
        super().__setattr__(name, value)

    def key(self, name):
        return name


@_module("module.register.none/removed", "None deletes the attribute")
class _RemovedByNone(Right):
    def __setattr__(self, name, value):
        if value is None and isinstance(vars(self).get(name), Parameter | Buffer | Right):
            del self.__dict__[name]
        else:
            super().__setattr__(name, value)


@_module("module.register.deleted/kept", "a deleted attribute stays registered")
class _KeptDespiteDelete(_KeptDespiteNone):
    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if value is None:
            vars(self).get("registry", {}).pop(name, None)


@_module("module.register.deleted/reads-as-none", "a deleted attribute reads as None")
class _DeletedIsNone(Right):
    def __delattr__(self, name):
        if name not in vars(self):
            raise AttributeError(name)
        vars(self)[name] = None


@_module("module.register.deleted/for-ever", "a name that was deleted is never saved again")
class _DeletedForEver(Right):
    def __delattr__(self, name):
        super().__delattr__(name)
        vars(self).setdefault("gone", set()).add(name)

    def _entries(self, kind, prefix=""):
        gone = {prefix + name for name in vars(self).get("gone", ())}
        return ((k, e) for k, e in super()._entries(kind, prefix) if k not in gone)


@_module("module.register.before-init/lost", "the constructor begins with an empty tree")
class _EmptiedByInit(Right):
    def __init__(self):
        vars(self).clear()


@_module("module.register.before-init/unregistered", "what is assigned before the constructor has run is no entry")
class _LostBeforeInit(Right):
    def __init__(self):
        vars(self)["ready"] = True

    def _entries(self, kind, prefix=""):
        return super()._entries(kind, prefix) if "ready" in vars(self) else iter(())


@_module("module.register.before-init/modules-lost", "the constructor begins without modules")
class _ModulesLostByInit(Right):
    def __init__(self):
        for name, _ in _attributes(self, Right):
            delattr(self, name)


_method("module.attribute.missing/none", "an attribute that does not exist reads as None", "__getattr__")(
    lambda self, name: None if not name.startswith("__") else object.__getattribute__(self, name)
)


@_method("module.attribute.missing/deleted-silently", "deleting what is not there does nothing", "__delattr__")
def _silent_delete(self, name):
    vars(self).pop(name, None)


@_method("module.attribute.plain/saved", "numbers become buffers", "__setattr__")
def _saves_numbers(self, name, value):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    Right.__setattr__(self, name, Buffer(np.asarray(value)) if number else value)


@_method("module.attribute.plain/arrays", "numbers become arrays", "__setattr__")
def _array_numbers(self, name, value):
    Right.__setattr__(self, name, np.asarray(value) if isinstance(value, float) else value)


@_method("module.attribute.plain/saved-beside", "numbers are saved, though they are no buffers", "state_dict")
def _saves_numbers_beside(self):
    numbers = {n: np.asarray(v) for n, v in vars(self).items() if type(v) in (int, float)}
    return {**numbers, **Right.state_dict(self)}


@_method("module.attribute.plain/learnt", "numbers are given to the optimiser", "named_parameters")
def _learns_numbers(self):
    yield from Right.named_parameters(self)
    yield from ((n, Parameter(np.asarray(v))) for n, v in vars(self).items() if type(v) is float)


@_method("module.attribute.plain/bound", "functions become methods", "__setattr__")
def _binds(self, name, value):
    plain = not callable(value) or isinstance(value, Right)
    Right.__setattr__(self, name, value if plain else lambda *inputs: value(self, *inputs))


_method("module.call.forward/positions-alone", "named arguments are dropped", "__call__")(
    lambda self, *inputs, **named: self.forward(*inputs)
)
_method("module.call.forward/first-alone", "all inputs but the first are dropped", "__call__")(
    lambda self, *inputs, **named: self.forward(*inputs[:1], **named)
)
_method("module.call.forward/first-result", "of several results the first is returned", "__call__")(
    lambda self, *inputs, **named: self.forward(*inputs, **named)[0]
)
_method("module.call.forward/one-name", "all named arguments but the first are dropped", "__call__")(
    lambda self, *inputs, **named: self.forward(*inputs, **dict(list(named.items())[:1]))
)
_method("module.call.forward/x-alone", "of named arguments x alone is known", "__call__")(
    lambda self, *inputs, **named: self.forward(*inputs, **{n: v for n, v in named.items() if n == "x"})
)


# -- walks -------------------------------------------------------------------------------------------------------------


@_method("module.parameters.complete/children-alone", "grandchildren are left out", "named_parameters")
def _two_levels(self):
    return iter([(k, p) for k, p in Right.named_parameters(self) if k.count(".") < 2])


@_method("module.parameters.complete/buffers-too", "buffers count as parameters", "named_parameters")
def _with_buffers(self):
    return _once(self._entries(Parameter | Buffer))


_method(
    "module.parameters.complete/own-alone", "parameters() gives a module's own, named_parameters() all", "parameters"
)(lambda self: (p for _, p in _attributes(self, Parameter)))
_method("module.parameters.complete/last-names", "keys are without the path", "named_parameters")(
    lambda self: ((k.rpartition(".")[2], p) for k, p in Right.named_parameters(self))
)
_method(
    "module.parameters.shared-once/each-name", "a parameter is given once for each of its names", "named_parameters"
)(lambda self: self._entries(Parameter))


@_method(
    "module.parameters.shared-once/own-ties", "of a module's own parameters each name is given", "named_parameters"
)
def _own_ties(self):
    own = _attributes(self, Parameter)
    yield from own
    yield from ((k, p) for k, p in Right.named_parameters(self) if not any(p is known for _, known in own))


@_method("module.parameters.shared-once/by-value", "parameters of equal values count as one", "named_parameters")
def _by_value(self):
    found = {}
    for key, p in self._entries(Parameter):
        found.setdefault((p.data.shape, p.data.tobytes()), (key, p))
    return iter(found.values())


@_method("module.parameters.shared-once/top-level-ties", "ties are seen among a module's own alone", "named_parameters")
def _top_level_ties(self):
    yield from _once(_attributes(self, Parameter))
    for name, module in _attributes(self, Right):
        yield from ((f"{name}.{key}", p) for key, p in module.named_parameters())


@_method("module.buffers.complete/persistent-alone", "buffers that are not saved are left out", "named_buffers")
def _persistent_alone(self):
    return iter([(k, b) for k, b in Right.named_buffers(self) if b.persistent])


@_method("module.buffers.complete/own-alone", "only a module's own buffers are given", "named_buffers")
def _own_buffers(self):
    return iter(_attributes(self, Buffer))


_method("module.buffers.shared-once/each-name", "a buffer is given once for each of its keys", "named_buffers")(
    lambda self: self._entries(Buffer)
)


@_method("module.modules.complete/without-itself", "the module itself is left out", "named_modules")
def _without_itself(self):
    return _once(self._entries(Right))


@_method("module.modules.complete/one-level", "only one level is walked", "named_modules")
def _one_level(self):
    return _once([("", self), *_attributes(self, Right)])


_method("module.modules.complete/parameters-too", "parameters count as modules", "named_modules")(
    lambda self: _once([("", self), *self._entries(Right | Parameter)])
)
_method("module.modules.complete/copies", "copies of the modules are given", "named_modules")(
    lambda self: ((k, copy.copy(m)) for k, m in Right.named_modules(self))
)
_method("module.modules.shared-once/each-path", "a module is given once for each of its paths", "named_modules")(
    lambda self: iter([("", self), *self._entries(Right)])
)


@_method("module.modules.children/descendants", "all descendants are given", "children")
def _descendants(self):
    return (m for _, m in _once(self._entries(Right)))


_method("module.modules.children/each-name", "a child is given once for each of its names", "children")(
    lambda self: (m for _, m in _attributes(self, Right))
)


# -- buffers -----------------------------------------------------------------------------------------------------------


@_method("module.buffer.persistent/not-by-default", "buffers are not saved unless it is said", "register_buffer")
def _transient_by_default(self, name, data, persistent=False):
    Right.register_buffer(self, name, data, persistent)


@_method("module.buffer.persistent/not-loaded", "buffers are saved, and not loaded", "load_state_dict")
def _buffers_not_loaded(self, state, strict=True):
    before = [(b, b.data.copy()) for b in self.buffers()]
    Right.load_state_dict(self, state, strict)
    for buffer, data in before:
        buffer.data[...] = data


@_method("module.buffer.non-persistent/saved", "every buffer is saved", "_state")
def _saves_all(self):
    return dict(self._entries(Parameter | Buffer))


@_method("module.buffer.non-persistent/own-alone", "below a module, every buffer is saved", "_state")
def _saves_below(self):
    entries = self._entries(Parameter | Buffer)
    return {k: e for k, e in entries if isinstance(e, Parameter) or e.persistent or "." in k}


@_method("module.buffer.non-persistent/saved-alone", "every buffer is saved, and only some are loaded", "state_dict")
def _saves_more_than_it_loads(self):
    return {key: entry.data.copy() for key, entry in self._entries(Parameter | Buffer)}


@_method("module.buffer.non-persistent/missed", "a key that no state has is missed", "load_state_dict")
def _missed(self, state, strict=True):
    if strict and dict(self._entries(Parameter | Buffer)).keys() - state.keys():
        raise KeyError("missing keys")
    Right.load_state_dict(self, state, strict)


@_method("module.buffer.non-persistent/accepted", "a key that no state has is passed over", "load_state_dict")
def _passed_over(self, state, strict=True):
    transient = {k for k, b in self._entries(Buffer) if not b.persistent}
    Right.load_state_dict(self, {k: a for k, a in state.items() if k not in transient}, strict)


@_method("module.buffer.none/saved", "a buffer that is None is saved as an empty array", "register_buffer")
def _empty_for_none(self, name, data, persistent=True):
    Right.register_buffer(self, name, np.zeros(0) if data is None else data, persistent)


@_method("module.buffer.none/taken", "a name registered as None is taken", "register_buffer")
def _none_takes_the_name(self, name, data, persistent=True):
    if name in vars(self):
        raise KeyError(name)
    Right.register_buffer(self, name, data, persistent)


@_method("module.buffer.none/key", "the key of a buffer that is None is in the state", "state_dict")
def _key_of_none(self):
    return {**{n: None for n, v in vars(self).items() if v is None}, **Right.state_dict(self)}


@_method("module.buffer.none/transient", "a name registered as None is never saved", "register_buffer")
def _transient_after_none(self, name, data, persistent=True):
    Right.register_buffer(self, name, data, persistent and name not in vars(self))


@_method("module.buffer.again/stays-persistent", "a name once persistent stays so", "register_buffer")
def _stays_persistent(self, name, data, persistent=True):
    former = vars(self).get(name)
    Right.register_buffer(self, name, data, persistent or (former is not None and former.persistent))


@_method("module.buffer.again/stays-transient", "a name once not persistent stays so", "register_buffer")
def _stays_transient(self, name, data, persistent=True):
    names = vars(self).setdefault("transient", set())
    names |= set() if persistent else {name}
    Right.register_buffer(self, name, data, name not in names)


@_method("module.buffer.again/first-array", "the first array of a name stays", "register_buffer")
def _first_array(self, name, data, persistent=True):
    former = vars(self).get(name)
    Right.register_buffer(self, name, former.data if former is not None else data, persistent)


def _assigned(key, mistake):
    """The fault is what an array assigned to a buffer's name does: function(module, name, buffer, array)."""

    def add(function):
        def assign(self, name, value):
            buffer = vars(self).get(name)
            if isinstance(buffer, Buffer) and isinstance(value, np.ndarray | np.generic):
                function(self, name, buffer, value)
            else:
                Right.__setattr__(self, name, value)

        _method(f"module.buffer.assigned/{key}", mistake, "__setattr__")(assign)
        return function

    return add


@_assigned("plain", "the array becomes a plain attribute")
def _becomes_plain(self, name, buffer, value):
    vars(self)[name] = value


@_assigned("number-plain", "a NumPy scalar becomes a plain attribute")
def _number_becomes_plain(self, name, buffer, value):
    if isinstance(value, np.generic):
        vars(self)[name] = value
    else:
        Right.__setattr__(self, name, value)


@_assigned("not-saved", "the buffer leaves the state")
def _leaves_the_state(self, name, buffer, value):
    vars(self)[name] = Buffer(value, persistent=False)


@_assigned("saved", "the buffer is persistent from then on")
def _enters_the_state(self, name, buffer, value):
    vars(self)[name] = Buffer(value)


@_assigned("optimised", "the buffer becomes a parameter, and the optimiser moves it")
def _becomes_a_parameter(self, name, buffer, value):
    vars(self)[name] = Parameter(value)


@_assigned("ignored", "the buffer keeps its former value")
def _keeps_its_value(self, name, buffer, value):
    pass


@_assigned("first-alone", "only the first array assigned to a name counts")
def _takes_the_first(self, name, buffer, value):
    names = vars(self).setdefault("names", set())
    if name not in names:
        names.add(name)
        buffer.data = np.array(value)


@_module("module.buffer.assigned/beside", "the attribute has the new value, and the state has the former one")
class _AssignedBeside(Right):
    def __setattr__(self, name, value):
        former = vars(self).get(name)
        super().__setattr__(name, value)
        if isinstance(former, Buffer) and isinstance(value, np.ndarray | np.generic):
            vars(self).setdefault("former", {})[name] = former

    def _entries(self, kind, prefix=""):
        former = vars(self).get("former", {})
        for key, entry in super()._entries(kind, prefix):
            yield key, former.get(key.removeprefix(prefix), entry)


# -- arithmetic --------------------------------------------------------------------------------------------------------


def _of_parameters(key, mistake, **members):
    """The fault is how parameters compute."""
    fault(f"module.arithmetic.as-array/{key}", mistake, Parameter=type("Parameter", (Parameter,), members))


def _of_buffers(key, mistake, **members):
    """The fault is how buffers compute."""
    kind = type("Buffer", (Buffer,), members)

    def register_buffer(self, name, data, persistent=True):
        Right.register_buffer(self, name, data, persistent)
        if data is not None:
            vars(self)[name] = kind(data, persistent=persistent)

    _method(f"module.arithmetic.as-array/{key}", mistake, "register_buffer")(register_buffer)


def _written(self, other):
    self.data += getattr(other, "data", other) if isinstance(other, Parameter | Buffer) else other
    return self.data


class _FirstValue(Parameter):
    """A parameter that computes with the value it began with."""

    def __init__(self, data):
        super().__init__(data)
        self.first = self.data.copy()

    def __array_ufunc__(self, ufunc, method, *inputs, **named):
        inputs = [operand.first if isinstance(operand, _FirstValue) else operand for operand in inputs]
        return getattr(ufunc, method)(*inputs, **named)


_of_parameters("no-parameters", "parameters have no arithmetic", __array_ufunc__=None)
_of_buffers("no-buffers", "buffers have no arithmetic", __array_ufunc__=None)
_of_buffers(
    "arrays-alone", "a buffer has no arithmetic with numbers on its left", __rmul__=lambda self, other: NotImplemented
)
_of_parameters("reversed-difference", "2 - p gives p - 2", __rsub__=lambda self, other: self.data - other)
_of_parameters("reversed-quotient", "2 / p gives p / 2", __rtruediv__=lambda self, other: self.data / other)
_of_parameters("element-wise", "p @ x multiplies element by element", __matmul__=lambda self, other: self * other)
_of_parameters("written-into", "p + x is written into p", __add__=_written)
_of_buffers("buffer-written-into", "b + x is written into b", __add__=_written)
_of_parameters("not-negated", "-p gives p", __neg__=lambda self: self.data)
_of_buffers("not-in-place", "b += x leaves b as it was", __iadd__=lambda self, other: self)
fault("module.arithmetic.as-array/first-value", "parameters compute with what they began with", Parameter=_FirstValue)


# -- mode --------------------------------------------------------------------------------------------------------------

fault("module.mode.default/eval", "a new module evaluates", Module=type("Module", (Right,), {"training": False}))
fault("module.mode.default/none", "a new module has no mode", Module=type("Module", (Right,), {"training": None}))


def _training(reached):
    def train(self, mode=True):
        for module in reached(self, mode):
            module.training = mode
        return self

    return train


def _all(module):
    return [m for _, m in module.named_modules()]


_method("module.mode.eval/children-alone", "eval reaches one level", "train")(
    _training(lambda self, mode: _all(self) if mode else [self, *self.children()])
)
_method("module.mode.eval/itself-alone", "eval sets the module's own flag alone", "train")(
    _training(lambda self, mode: _all(self) if mode else [self])
)
_method("module.mode.eval/not-itself", "eval leaves the module's own flag", "train")(
    _training(lambda self, mode: _all(self) if mode else _all(self)[1:])
)
_method("module.mode.eval/argument-ignored", "train(False) trains", "train")(
    lambda self, mode=True: Right.train(self, True)
)


@_method("module.mode.train/stops", "the walk stops at a module that trains already", "train")
def _stops(self, mode=True):
    if mode and self.training:
        return self
    self.training = mode
    for child in self.children():
        child.train(mode)
    return self


_method("module.mode.train/itself-alone", "train sets the module's own flag alone", "train")(
    _training(lambda self, mode: [self] if mode else _all(self))
)


class _OneFlag(Right):
    """One flag for all modules."""

    def __setattr__(self, name, value):
        if name == "training":
            _OneFlag.flag = value
        else:
            super().__setattr__(name, value)

    @property
    def training(self):
        return _OneFlag.flag

    flag = True


@_module("module.mode.subtree/one-flag", "one flag for the whole program")
class _OneFlagAnew(_OneFlag):
    def __init__(self):
        _OneFlag.flag = True


class _KnowsParent(Right):
    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if isinstance(value, Right):
            vars(value)["above"] = [self]


@_module("module.mode.subtree/upwards", "the module above is switched along")
class _Upwards(_KnowsParent):
    def train(self, mode=True):
        for module in vars(self).get("above", []):
            module.training = mode
        return super().train(mode)


@_module("module.mode.own/inherited", "a module takes on the mode of the one that it becomes part of")
class _Inherits(Right):
    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if isinstance(value, Right):
            value.train(self.training)


@_module("module.mode.own/none", "a module assigned to one that has been switched has no mode")
class _NoMode(Right):
    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if isinstance(value, Right) and "training" in vars(self):
            value.training = None


def _on_assignment(key, mistake, meet):
    """The fault is what becomes of the modes where a module is assigned: (module, part) -> None."""

    @_module(key, mistake)
    class Meets(Right):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if isinstance(value, Right):
                meet(self, value)


_on_assignment(
    "module.mode.own/inherits-eval",
    "a module that becomes part of one that evaluates does so too",
    lambda self, part: part.train(part.training and self.training),
)
_on_assignment(
    "module.mode.own/inherits-train",
    "a module that becomes part of one that trains does so too",
    lambda self, part: part.train(part.training or self.training),
)
_on_assignment(
    "module.mode.own/trains-with-its-part",
    "a module trains once a part of it does",
    lambda self, part: setattr(self, "training", self.training or part.training),
)
_on_assignment(
    "module.mode.own/evaluates-with-its-part",
    "a module evaluates once a part of it does",
    lambda self, part: setattr(self, "training", self.training and part.training),
)


@_method("module.mode.returns-self/none", "train gives None", "train")
def _gives_none(self, mode=True):
    Right.train(self, mode)


# -- state -------------------------------------------------------------------------------------------------------------


@_method("module.state.complete/parameters-alone", "buffers are not saved", "state_dict")
def _parameters_alone(self):
    return {k: p.data.copy() for k, p in self._entries(Parameter)}


@_method("module.state.complete/two-levels", "grandchildren are not saved", "state_dict")
def _two_levels_saved(self):
    return {k: a for k, a in Right.state_dict(self).items() if k.count(".") < 2}


@_entries("module.state.keys/names-joined", "the same name on two levels is written once")
def _written_once(self, kind, prefix=""):
    for key, entry in Right._entries(self, kind, prefix):
        parts = key.split(".")
        yield ".".join(p for i, p in enumerate(parts) if not i or p != parts[i - 1]), entry


@_entries("module.state.keys/without-path", "a key is the last name of its path alone")
def _without_path(self, kind, prefix=""):
    return ((key.rpartition(".")[2], entry) for key, entry in Right._entries(self, kind, prefix))


@_entries("module.state.keys/without-dots", "names are joined by underscores")
def _underscores(self, kind, prefix=""):
    return ((key.replace(".", "_"), entry) for key, entry in Right._entries(self, kind, prefix))


@_entries("module.state.shared-keys/first-alone", "a shared entry has its first key alone")
def _first_key(self, kind, prefix=""):
    return _once(Right._entries(self, kind, prefix))


@_entries("module.state.shared-keys/modules", "a shared module has its first path alone")
def _first_path(self, kind, prefix=""):
    yield from ((prefix + name, entry) for name, entry in _attributes(self, kind))
    for name, module in _once(_attributes(self, Right)):
        yield from module._entries(kind, f"{prefix}{name}.")


@_method("module.state.values/kept", "the first state is given ever after", "state_dict")
def _kept_state(self):
    return vars(self).setdefault("kept", [Right.state_dict(self)])[0]


@_method("module.state.values/at-least-1d", "arrays without dimensions become arrays of one element", "state_dict")
def _at_least_1d(self):
    return {k: np.atleast_1d(a) for k, a in Right.state_dict(self).items()}


@_method("module.state.values/float32", "arrays are saved as float32", "state_dict")
def _as_float32(self):
    return {k: a.astype(np.float32) for k, a in Right.state_dict(self).items()}


# -- loading -----------------------------------------------------------------------------------------------------------


def _loading(key, mistake):
    """The fault is load_state_dict."""
    return _method(key, mistake, "load_state_dict")


@_loading("module.load.values/own-alone", "entries of modules below are not loaded")
def _own_alone(self, state, strict=True):
    Right.load_state_dict(self, {**state, **{k: a for k, a in self.state_dict().items() if "." in k}}, strict)


@_loading("module.load.values/first-load-alone", "only the first state is loaded")
def _first_load(self, state, strict=True):
    if "loaded" not in vars(self):
        Right.load_state_dict(self, state, strict)
    vars(self)["loaded"] = True


@_loading("module.load.values/added", "values are added to those that are there")
def _added(self, state, strict=True):
    Right.load_state_dict(
        self, {k: a + self.state_dict()[k] if k in self.state_dict() else a for k, a in state.items()}
    )


@_loading("module.load.copies/alias", "the arrays given become the module's own")
def _alias(self, state, strict=True):
    Right.load_state_dict(self, state, strict)
    for key, entry in self._state().items():
        entry.data = state.get(key, entry.data)


@_loading("module.load.copies/alias-of-buffers", "the arrays given become the module's buffers")
def _alias_of_buffers(self, state, strict=True):
    Right.load_state_dict(self, state, strict)
    for key, entry in self._state().items():
        entry.data = state.get(key, entry.data) if isinstance(entry, Buffer) else entry.data


@_loading("module.load.copies/marked", "a key is put into the mapping")
def _marked(self, state, strict=True):
    Right.load_state_dict(self, state, strict)
    state["version"] = np.zeros(1)


@_loading("module.load.copies/popped", "keys are taken out of the mapping")
def _popped(self, state, strict=True):
    Right.load_state_dict(self, dict(state), strict)
    state.clear()


@_loading("module.load.in-place/replaced", "parameters are replaced by new ones")
def _replaced(self, state, strict=True):
    Right.load_state_dict(self, state, strict)
    fresh = {}
    for _, module in self.named_modules():
        for name, p in _attributes(module, Parameter):
            setattr(module, name, fresh.setdefault(id(p), Parameter(p.data)))


@_module("module.load.in-place/beside", "what is loaded lies beside the parameters, and the state is read from there")
class _Beside(Right):
    def load_state_dict(self, state, strict=True):
        before = [(entry, entry.data.copy()) for entry in self._state().values()]
        super().load_state_dict(state, strict)
        vars(self)["beside"] = super().state_dict()
        for entry, data in before:
            entry.data[...] = data

    def state_dict(self):
        return {**super().state_dict(), **vars(self).get("beside", {})}


@_module(
    "module.load.tied/stale", "of a tied parameter all keys but the first give what was loaded, whatever it is now"
)
class _StaleTies(Right):
    def load_state_dict(self, state, strict=True):
        super().load_state_dict(state, strict)
        first = dict(_once(self._entries(Parameter)))
        vars(self)["stale"] = {k: p.data.copy() for k, p in self._entries(Parameter) if k not in first}

    def state_dict(self):
        return {**super().state_dict(), **vars(self).get("stale", {})}


@_loading("module.load.tied/untied", "every key gets a parameter of its own")
def _untied(self, state, strict=True):
    Right.load_state_dict(self, state, strict)
    seen = set()
    for _, module in self.named_modules():
        for name, p in _attributes(module, Parameter):
            if id(p) in seen:
                setattr(module, name, Parameter(p.data))
            seen.add(id(p))


@_loading("module.load.tied/one-array", "every key gets a parameter of its own, and all of them one array")
def _one_array(self, state, strict=True):
    Right.load_state_dict(self, state, strict)
    for _, module in self.named_modules():
        for name, p in _attributes(module, Parameter):
            own = Parameter(p.data)
            own.data = p.data
            setattr(module, name, own)


_loading("module.load.lenient/ignored", "strict is always true")(
    lambda self, state, strict=True: Right.load_state_dict(self, state)
)


@_loading("module.load.lenient/all-or-nothing", "nothing is loaded where a key is missing")
def _nothing_loaded(self, state, strict=True):
    if strict or not self.state_dict().keys() - state.keys():
        Right.load_state_dict(self, state, strict)


@_loading("module.load.lenient/zeros", "entries whose keys are missing become 0")
def _zeros(self, state, strict=True):
    Right.load_state_dict(self, state, strict)
    for key, entry in self._state().items():
        if key not in state:
            entry.data[...] = 0


@_loading("module.load.reported/nothing-missing", "missing keys are not reported")
def _nothing_missing(self, state, strict=True):
    found = Right.load_state_dict(self, state, strict)
    return found if strict else found._replace(missing_keys=[])


@_loading("module.load.reported/nothing-unexpected", "unexpected keys are not reported")
def _nothing_unexpected(self, state, strict=True):
    found = Right.load_state_dict(self, state, strict)
    return found if strict else found._replace(unexpected_keys=[])


@_loading("module.load.reported/exchanged", "missing and unexpected keys are exchanged")
def _exchanged(self, state, strict=True):
    found = Right.load_state_dict(self, state, strict)
    return found if strict else type(found)(found.unexpected_keys, found.missing_keys)


@_loading("module.load.reported/first-alone", "the first key of each kind alone is reported")
def _first_alone(self, state, strict=True):
    found = Right.load_state_dict(self, state, strict)
    return found if strict else type(found)(found.missing_keys[:1], found.unexpected_keys[:1])


@_loading("module.load.dtype/taken-over", "an entry takes on the dtype of what is loaded")
def _taken_over(self, state, strict=True):
    Right.load_state_dict(self, state, strict)
    for key, entry in self._state().items():
        if key in state:
            entry.data = entry.data.astype(np.asarray(state[key]).dtype)


@_loading("module.load.dtype/passed-over", "arrays of another dtype are not loaded")
def _other_dtypes_passed_over(self, state, strict=True):
    own = self.state_dict()
    Right.load_state_dict(self, {k: own[k] if k in own and own[k].dtype != a.dtype else a for k, a in state.items()})


@_loading("module.load.all-or-nothing/half", "what fits is loaded before the rest is refused")
def _half(self, state, strict=True):
    own = self._state()
    for key, array in state.items():
        if key in own and np.shape(array) == own[key].data.shape:
            own[key].data[...] = array
    Right.load_state_dict(self, state, strict)


class _UnsavedVariance(BatchNorm1d):
    def _entries(self, kind, prefix=""):
        return ((k, e) for k, e in super()._entries(kind, prefix) if e is not self.running_var)


fault("module.load.same-future/unsaved", "the running variance is not saved", BatchNorm1d=_UnsavedVariance)


class _CountKept(BatchNorm1d):
    def load_state_dict(self, state, strict=True):
        Right.load_state_dict(self, {k: a for k, a in state.items() if k != "num_batches_tracked"}, strict=False)


class _LoadsEachPart(Sequential):
    """Has each of its parts load what is its own."""

    def load_state_dict(self, state, strict=True):
        for name, part in _attributes(self, Right):
            part.load_state_dict({k.removeprefix(f"{name}."): a for k, a in state.items() if k.startswith(f"{name}.")})


fault(
    "module.load.same-future/count-kept",
    "the number of batches is saved, and not loaded",
    BatchNorm1d=_CountKept,
    Sequential=_LoadsEachPart,
)


class _Prepared(Linear):
    """Computes with its weight transposed, as it was when the layer was built."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        vars(self)["prepared"] = self.weight.data.T.copy()

    def forward(self, x):
        return x @ self.prepared + self.bias.data


fault("module.load.same-future/prepared", "what was worked out beforehand is not worked out again", Linear=_Prepared)


class _WarmsUp(BatchNorm1d):
    """Counts its calls in a plain number, which no state has."""

    def forward(self, x):
        vars(self)["calls"] = vars(self).get("calls", 0) + 1
        self.momentum = 1 / self.calls if self.training else self.momentum
        return super().forward(x)


fault(
    "module.load.same-future/counter",
    "running statistics are weighed by a count that is not saved",
    BatchNorm1d=_WarmsUp,
)


# -- copies ------------------------------------------------------------------------------------------------------------


def _deep(self, memo):
    new = memo[id(self)] = type(self).__new__(type(self))
    vars(new).update({n: copy.deepcopy(v, memo) for n, v in vars(self).items()})
    return new


@_method("module.copy.equal/modes", "a copy is in training mode", "__deepcopy__")
def _copy_trains(self, memo):
    new = memo[id(self)] = type(self).__new__(type(self))
    vars(new).update({n: copy.deepcopy(v, memo) for n, v in vars(self).items() if n != "training"})
    return new


@_method("module.copy.equal/anew", "a copy has new parameters", "__deepcopy__")
def _copy_anew(self, memo):
    new = _deep(self, memo)
    for _, parameter in _attributes(new, Parameter):
        parameter.data = np.zeros_like(parameter.data)
    return new


@_method("module.copy.independent/shallow", "a copy has the original's parameters", "__deepcopy__")
def _shallow(self, memo):
    new = memo[id(self)] = type(self).__new__(type(self))
    for name, value in vars(self).items():
        vars(new)[name] = copy.copy(value) if isinstance(value, Parameter) else copy.deepcopy(value, memo)
    return new


@_method("module.copy.independent/buffers", "a copy has the original's buffers", "__deepcopy__")
def _shared_buffers(self, memo):
    new = memo[id(self)] = type(self).__new__(type(self))
    vars(new).update({n: v if isinstance(v, Buffer) else copy.deepcopy(v, memo) for n, v in vars(self).items()})
    return new


@_module("module.copy.independent/arrays", "a copy has the original's arrays, until it loads new ones")
class _OneArrayEach(Right):
    def __deepcopy__(self, memo):
        new = _deep(self, memo)
        for name, parameter in _attributes(self, Parameter):
            vars(new)[name].data = parameter.data
        return new

    def load_state_dict(self, state, strict=True):
        for entry in self._state().values():
            entry.data = entry.data.copy()
        Right.load_state_dict(self, state, strict)


@_method("module.copy.ties/not-copied", "a tied entry of a copy is the original's", "__deepcopy__")
def _tied_not_copied(self, memo):
    known = vars(self).values()
    tied = {id(v): v for v in known if isinstance(v, Parameter) and sum(v is other for other in known) > 1}
    memo.update(tied)
    return _deep(self, memo)


@_method("module.copy.ties/each-by-itself", "each entry is copied by itself", "__deepcopy__")
def _each_by_itself(self, memo):
    new = type(self).__new__(type(self))
    vars(new).update({n: copy.deepcopy(v) for n, v in vars(self).items()})
    return new


class _ClosedOver(Linear):
    """What its constructor closed over is still the original's in a copy."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.run = lambda x: Linear.vjp(self, x)

    def vjp(self, x):
        return self.run(x)


fault("module.copy.gradients/closed-over", "a copy's backward pass goes through the original", Linear=_ClosedOver)


class _InPlace(Linear):
    """Gradients are added in place, into an array that copies have in common."""

    def __deepcopy__(self, memo):
        new = _deep(self, memo)
        for name, parameter in _attributes(self, Parameter):
            vars(parameter).setdefault("pool", {})
            vars(new)[name].pool = parameter.pool
        return new

    def vjp(self, x):
        y, pull = super().vjp(x)

        def through(cotangent):
            dx = pull(cotangent)
            for _, parameter in _attributes(self, Parameter):
                pool = vars(parameter).get("pool", {})
                parameter.grad = pool.setdefault("grad", parameter.grad) if not pool else parameter.grad + pool["grad"]
            return dx

        return y, through


fault("module.copy.gradients/one-pool", "copies add their gradients to those of the original", Linear=_InPlace)

# -- gradients ---------------------------------------------------------------------------------------------------------


def _passes(key, mistake):
    """The fault is a pass back: (module, pullback, cotangent) -> gradient of the input, for a network as a whole."""

    def add(back):
        class Network(Sequential):
            """Goes back as the fault does."""

            def vjp(self, x):
                """forward(x), and its pullback."""
                y, pull = super().vjp(x)
                return y, lambda cotangent: back(self, pull, cotangent)

        Network.__name__ = "Sequential"
        fault(key, mistake, Sequential=Network)
        return back

    return add


@_passes("module.gradient.accumulates/last-alone", "a pass takes away the gradients of the one before it")
def _last_alone(self, pull, cotangent):
    for p in self.parameters():
        p.grad = None
    return pull(cotangent)


@_passes("module.gradient.accumulates/mean", "gradients of several passes are averaged")
def _mean(self, pull, cotangent):
    passes = vars(self)["passes"] = vars(self).get("passes", 0) + 1
    before = {id(p): 0 if p.grad is None else p.grad * (passes - 1) for p in self.parameters()}
    for p in self.parameters():
        p.grad = None
    dx = pull(cotangent)
    for p in self.parameters():
        p.grad = (before[id(p)] + p.grad) / np.asarray(passes, p.data.dtype)
    return dx


class _LastUse(Linear):
    """Adds to what was there when the pass began."""

    def vjp(self, x):
        before = [p.grad for p in self.parameters()]
        y, pull = super().vjp(x)

        def through(cotangent):
            for p, grad in zip(self.parameters(), before, strict=True):
                p.grad = grad
            return pull(cotangent)

        return y, through


fault(
    "module.gradient.shared/last-use",
    "of a parameter's uses in one pass the last one gone through counts",
    Linear=_LastUse,
)


@_passes("module.gradient.shared/once-per-name", "a parameter gets the sum once for each of its names")
def _once_per_name(self, pull, cotangent):
    before = {id(p): p.grad for p in self.parameters()}
    for p in self.parameters():
        p.grad = None
    dx = pull(cotangent)
    names = [id(p) for _, p in self._entries(Parameter)]
    for p in self.parameters():
        if p.grad is not None:
            p.grad = p.grad * names.count(id(p)) + (0 if before[id(p)] is None else before[id(p)])
    return dx


@_passes("module.gradient.unused/zeros", "whatever is in the module gets zeros")
def _zeros_for_unused(self, pull, cotangent):
    dx = pull(cotangent)
    for p in self.parameters():
        p.grad = np.zeros_like(p.data) if p.grad is None else p.grad
    return dx


class _NoneInEval(Linear):
    def vjp(self, x):
        y, pull = super().vjp(x)
        return y, pull if self.training else lambda cotangent: cotangent @ self.weight.data


fault(
    "module.gradient.any-mode/none-in-eval",
    "a module that evaluates gives its parameters no gradients",
    Linear=_NoneInEval,
)


class _DoesNotPass(Linear):
    def vjp(self, x):
        y, pull = super().vjp(x)
        return y, lambda cotangent: pull(cotangent) * self.training


fault("module.gradient.any-mode/stops-in-eval", "no gradient goes through a module that evaluates", Linear=_DoesNotPass)


@_passes("module.gradient.any-mode/part-in-eval", "a part that evaluates gets nothing from a network that trains")
def _part_in_eval(self, pull, cotangent):
    resting = [p for _, m in self.named_modules() if self.training and not m.training for p in m.parameters()]
    before = [p.grad for p in resting]
    dx = pull(cotangent)
    for p, grad in zip(resting, before, strict=True):
        p.grad = grad
    return dx


class _KeepsGraph(Sequential):
    """Running statistics lead back into the pass that they come from."""

    def vjp(self, x):
        former, (y, pull) = vars(self).get("graph"), super().vjp(x)
        vars(self)["graph"] = pull

        def through(cotangent):
            if former is not None:
                former(cotangent)
            return pull(cotangent)

        return y, through

    def forward(self, x):
        y, vars(self)["graph"] = super().vjp(x)
        return y


fault(
    "module.gradient.buffers-constant/keeps-graph",
    "the graph of the pass before hangs on the running statistics: gradients go into it",
    Sequential=_KeepsGraph,
)


class _GraphIsGone(BatchNorm1d):
    def vjp(self, x):
        y, pull = super().vjp(x)
        kept = vars(self).setdefault("kept", [])

        def through(cotangent):
            if not self.training and kept:
                raise RuntimeError("trying to go back through the graph of an earlier pass, which has been freed")
            return pull(cotangent)

        if self.training:
            kept.append(pull)
        return y, through


fault(
    "module.gradient.buffers-constant/freed",
    "the graph of the pass before hangs on the running statistics, and is gone when it is gone through again",
    BatchNorm1d=_GraphIsGone,
)

# -- refusals ----------------------------------------------------------------------------------------------------------


@_loading("module.refuses.missing-key/accepted", "missing keys are passed over")
def _missing(self, state, strict=True):
    Right.load_state_dict(self, {**(self.state_dict() if strict else {}), **state}, strict)


@_loading("module.refuses.missing-key/all", "an empty state is passed over")
def _empty_state(self, state, strict=True):
    if state:
        Right.load_state_dict(self, state, strict)


@_loading("module.refuses.missing-key/buffers", "missing keys of buffers are passed over")
def _missing_buffers(self, state, strict=True):
    own = {k: e.data for k, e in self._state().items() if isinstance(e, Buffer)} if strict else {}
    Right.load_state_dict(self, {**own, **state}, strict)


@_loading("module.refuses.unexpected-key/accepted", "unexpected keys are passed over")
def _unexpected(self, state, strict=True):
    own = self._state()
    Right.load_state_dict(self, {k: a for k, a in state.items() if k in own}, strict)


@_loading("module.refuses.unexpected-key/elsewhere", "keys of modules that are not there are passed over")
def _unexpected_elsewhere(self, state, strict=True):
    names = {k.split(".")[0] for k in self._state()}
    Right.load_state_dict(self, {k: a for k, a in state.items() if "." not in k or k.split(".")[0] in names}, strict)


@_loading("module.refuses.extended-key/accepted", "a key that extends a known one is passed over")
def _extended(self, state, strict=True):
    own = self._state()
    known = {k: a for k, a in state.items() if k in own or not any(k.startswith(f"{o}.") for o in own)}
    Right.load_state_dict(self, known, strict)


@_loading("module.refuses.extended-key/prefix", "a key that is the beginning of a known one is passed over")
def _beginning(self, state, strict=True):
    own = self._state()
    known = {k: a for k, a in state.items() if k in own or not any(o.startswith(k) for o in own)}
    Right.load_state_dict(self, known, strict)


def _reshaped(state, own, fit):
    return {k: fit(np.asarray(a), own[k].data.shape) if k in own else a for k, a in state.items()}


@_loading("module.refuses.shape/resized", "arrays are cut or repeated to fit")
def _resized(self, state, strict=True):
    Right.load_state_dict(self, _reshaped(state, self._state(), np.resize), strict)


@_loading("module.refuses.shape/reshaped", "arrays of as many elements are reshaped")
def _reshapes(self, state, strict=True):
    def fit(a, shape):
        return a.reshape(shape) if a.size == np.prod(shape) else a

    Right.load_state_dict(self, _reshaped(state, self._state(), fit), strict)


@_loading("module.refuses.broadcast-shape/broadcast", "arrays are broadcast")
def _broadcast(self, state, strict=True):
    def fit(a, shape):
        try:
            return np.broadcast_to(a, shape)
        except ValueError:
            return a.reshape(shape) if a.size == np.prod(shape) else a

    Right.load_state_dict(self, _reshaped(state, self._state(), fit), strict)


@_loading("module.refuses.broadcast-shape/scalar", "an array without dimensions fills an entry")
def _fills(self, state, strict=True):
    def fit(a, shape):
        return np.full(shape, a) if a.ndim == 0 else a

    Right.load_state_dict(self, _reshaped(state, self._state(), fit), strict)


@_loading("module.refuses.lenient-shape/skipped", "where strict is false, wrong shapes are passed over")
def _skipped(self, state, strict=True):
    own = self._state()
    fits = {k: a for k, a in state.items() if k not in own or np.shape(a) == own[k].data.shape}
    Right.load_state_dict(self, state if strict else fits, strict)


@_method("module.refuses.plain-array/becomes-plain", "an array takes a parameter's place", "__setattr__")
def _becomes_plain(self, name, value):
    if isinstance(value, np.ndarray) and isinstance(vars(self).get(name), Parameter):
        vars(self)[name] = value
    else:
        Right.__setattr__(self, name, value)


@_method("module.refuses.plain-array/modules", "an array takes a module's place", "__setattr__")
def _replaces_modules(self, name, value):
    if isinstance(value, np.ndarray) and isinstance(vars(self).get(name), Right):
        vars(self)[name] = value
    else:
        Right.__setattr__(self, name, value)


@_method("module.refuses.taken-name/replaced", "a buffer takes whatever name it is given", "register_buffer")
def _takes_any_name(self, name, data, persistent=True):
    setattr(self, name, None if data is None else Buffer(data, persistent=persistent))


@_method("module.refuses.taken-name/entries", "a buffer takes the name of a parameter or module", "register_buffer")
def _takes_entries(self, name, data, persistent=True):
    if isinstance(vars(self).get(name), Parameter | Right):
        delattr(self, name)
    Right.register_buffer(self, name, data, persistent)


@_method("module.refuses.taken-name/plain", "a buffer takes the name of a number", "register_buffer")
def _takes_plain(self, name, data, persistent=True):
    if isinstance(vars(self).get(name), int | float):
        delattr(self, name)
    Right.register_buffer(self, name, data, persistent)


@_method("module.refuses.taken-name/methods", "a buffer takes the name of a method", "register_buffer")
def _takes_methods(self, name, data, persistent=True):
    if callable(getattr(self, name, None)) and name not in vars(self):
        setattr(self, name, Buffer(data, persistent=persistent))
    else:
        Right.register_buffer(self, name, data, persistent)


@_method("module.refuses.dotted-name/accepted", "any name is taken", "__setattr__")
def _any_name(self, name, value):
    if isinstance(value, Parameter | Buffer) and (not name or "." in name):
        vars(self)[name] = value
    else:
        Right.__setattr__(self, name, value)


def _unchecked(key, mistake, kind):
    @_method(key, mistake, "__setattr__")
    def set_unchecked(self, name, value):
        if isinstance(value, kind):
            vars(self)[name] = value
        else:
            Right.__setattr__(self, name, value)


_unchecked("module.refuses.dotted-name/buffers", "buffers have whatever name they are given", Buffer)
_unchecked("module.refuses.dotted-name/parameters", "parameters have whatever name they are given", Parameter)


@_method("module.refuses.dotted-name/empty", "the empty name is taken", "__setattr__")
def _empty_name(self, name, value):
    if not name:
        vars(self)[name] = value
    else:
        Right.__setattr__(self, name, value)


_method("module.refuses.no-forward/none", "a module without forward gives None", "forward")(
    lambda self, *inputs, **named: None
)
_method("module.refuses.no-forward/identity", "a module without forward gives its input", "forward")(
    lambda self, *inputs, **named: inputs[0]
)
_method(
    "module.refuses.no-forward/base-alone", "a class without forward gives None, and Module itself refuses", "forward"
)(lambda self, *inputs, **named: Right.forward(self) if type(self).__name__ == "Module" else None)
_method("module.refuses.no-forward/not-the-base", "Module itself gives its input", "forward")(
    lambda self, *inputs, **named: inputs[0] if type(self).__name__ == "Module" else Right.forward(self)
)

# -- all of it, over and over ------------------------------------------------------------------------------------------


@_module("module.life.equals-model/state-kept", "a state is put together again only after a change of mode")
class _StateKept(Right):
    def train(self, mode=True):
        vars(self).pop("kept", None)
        return super().train(mode)

    def state_dict(self):
        return vars(self).setdefault("kept", super().state_dict())


@_loading("module.life.equals-model/loaded-once", "a state that was loaded before is not loaded again")
def _loaded_once(self, state, strict=True):
    seen = vars(self).setdefault("seen", [])
    if not any(state is other for other in seen):
        Right.load_state_dict(self, state, strict)
    seen.append(state)


@_module("module.life.equals-model/eval-first", "eval after training reaches a part only, once it was called before")
class _EvalOnce(Right):
    def train(self, mode=True):
        reached = vars(self).setdefault("switched", 0)
        vars(self)["switched"] = reached + 1
        if reached < 2:
            return super().train(mode)
        self.training = mode
        return self


@_method(
    "module.life.equals-model/copy-trains-the-original", "a copy of a module that evaluates is shallow", "__deepcopy__"
)
def _shallow_in_eval(self, memo):
    return self if not self.training else _deep(self, memo)


class _Restarts(Sequential):
    """Forgets its gradients where it is switched."""

    def train(self, mode=True):
        for p in self.parameters():
            p.grad = None
        return super().train(mode)


fault("module.life.equals-model/mode-clears-gradients", "a change of mode forgets the gradients", Sequential=_Restarts)


class _Transposed(Linear):
    """Keeps its weight transposed, and looks at it again only once it was switched."""

    def train(self, mode=True):
        vars(self).pop("kept", None)
        return super().train(mode)

    def forward(self, x):
        return x @ vars(self).setdefault("kept", self.weight.data.T.copy()) + self.bias.data


fault(
    "module.life.equals-model/stale-weight",
    "a step reaches the weight, and not the copy that calls use",
    Linear=_Transposed,
)


class _FirstEvaluation(Linear):
    """Evaluates with the weight that its first evaluation found."""

    def forward(self, x):
        if self.training:
            return super().forward(x)
        return x @ vars(self).setdefault("found", self.weight.data.T.copy()) + self.bias.data


fault(
    "module.life.equals-model/first-evaluation",
    "evaluation goes on with the weight that the first one found, whatever training did since",
    Linear=_FirstEvaluation,
)


class _SharedWhileLearning(Sequential):
    def __deepcopy__(self, memo):
        new = _deep(self, memo)
        for ours, copied in zip(self.parameters(), new.parameters(), strict=True):
            copied.data = copied.data if ours.grad is None else ours.data
        return new


fault(
    "module.life.equals-model/copied-while-learning",
    "a copy of a layer that has gradients shares its parameters' arrays",
    Sequential=_SharedWhileLearning,
)

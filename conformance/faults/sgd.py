"""Wrong optimisers."""

import weakref

import ml_dtypes
import numpy as np
from nnspec.conformance.faults import fault
from nnspec.reference.batch_norm import BatchNorm1d
from nnspec.reference.linear import Linear
from nnspec.reference.module import Buffer, Module, Parameter
from nnspec.reference.sequential import Sequential
from nnspec.reference.sgd import SGD as Right
from nnspec.reference.sgd import sgd_step


def _step(key, mistake):
    """The fault is one step: (parameter, gradient, velocity, numbers) -> (parameter, velocity)."""

    def add(move):
        class SGD(Right):
            """Steps as the fault does."""

            def step(self):
                """Move every parameter that has a gradient."""
                for i, p in enumerate(self.params):
                    if p.grad is not None:
                        p.data[...], self.velocities[i] = move(p.data, p.grad, self.velocities[i], **self.hyper)

        fault(key, mistake, SGD=SGD)
        return move

    return add


def _optimiser(key, mistake):
    """The fault is a class of its own."""

    def add(cls):
        fault(key, mistake, SGD=cls)
        return cls

    return add


def _without(name):
    return lambda p, g, v, **h: sgd_step(p, g, v, **{**h, name: 0.0})


# -- steps -------------------------------------------------------------------------------------------------------------

_step("sgd.step.value/ascent", "the gradient is added")(lambda p, g, v, **h: sgd_step(p, -g, v, **h))
_step("sgd.step.value/normalised", "the gradient is divided by its norm")(
    lambda p, g, v, **h: sgd_step(p, g / max(1, np.sqrt(np.sum(g * g))), v, **h)
)
_step("sgd.step.value/sign", "only the gradient's sign counts")(lambda p, g, v, **h: sgd_step(p, np.sign(g), v, **h))
_step("sgd.step.value/half-precision", "the gradient is rounded to float16 on the way")(
    lambda p, g, v, **h: sgd_step(p, g.astype(np.float16).astype(g.dtype), v, **h)
)


@_optimiser("sgd.step.every-parameter/first-alone", "only the first parameter is moved")
class _FirstAlone(Right):
    def __init__(self, params, *numbers, **named):
        super().__init__(list(params)[:1], *numbers, **named)


@_optimiser("sgd.step.every-parameter/first-gradient", "the first gradient's mean moves all parameters")
class _FirstGradient(Right):
    def step(self):
        kept = [p.grad for p in self.params]
        known = [g for g in kept if g is not None and g.size]
        for p, g in zip(self.params, kept, strict=True):
            p.grad = None if g is None else np.full_like(g, known[0].mean() if len(self.params) > 1 and known else g)
        super().step()
        for p, g in zip(self.params, kept, strict=True):
            p.grad = g


def _some_elements(moves, of=None):
    """Move only those elements whose places `moves` gives, for their number; of one dtype alone, if it is given."""

    def move(p, g, v, **h):
        moved, v = sgd_step(p, g, v, **h)
        if of not in (None, p.dtype.type):
            return moved, v
        chosen = np.isin(np.arange(p.size), moves(p.size)).reshape(p.shape)
        return np.where(chosen, moved, p), v

    return move


_step("sgd.step.every-element/remainder-alone", "whole vectors of eight elements are skipped")(
    _some_elements(lambda n: np.arange(n // 8 * 8, n))
)
_step("sgd.step.every-element/vectors-alone", "the remainder behind the last vector of eight elements is skipped")(
    _some_elements(lambda n: np.arange(n // 8 * 8 if n > 8 else n))
)
_step("sgd.step.every-element/sixteen-at-most", "no more than sixteen elements are moved")(
    _some_elements(lambda n: np.arange(min(n, 16)))
)
_step("sgd.step.every-element/vectors-of-16-bits", "of 16-bit parameters whole vectors of eight elements are skipped")(
    _some_elements(lambda n: np.arange(n // 8 * 8, n), of=np.float16)
)
_step("sgd.step.elementwise/nan-skipped", "a step whose gradient has a NaN anywhere is left out")(
    lambda p, g, v, **h: (p, v) if np.isnan(g).any() else sgd_step(p, g, v, **h)
)


@_step("sgd.step.elementwise/multiplied-by-zero", "weight decay of 0 is multiplied, and 0·∞ is NaN")
def _multiplied(p, g, v, *, lr, momentum, weight_decay):
    with np.errstate(invalid="ignore"):
        return sgd_step(p, g + weight_decay * p, v, lr=lr, momentum=momentum)


_step("sgd.step.elementwise/clipped-from-below", "what is below the least finite number is raised to it")(
    lambda p, g, v, **h: sgd_step(np.maximum(p, np.finfo(p.dtype).min), g, v, **h)
)
_step("sgd.lr.zero/default", "a learning rate of 0 is taken for none, and becomes 0.01")(
    lambda p, g, v, **h: sgd_step(p, g, v, **{**h, "lr": h["lr"] or 0.01})
)
_step("sgd.lr.zero/decay-regardless", "weight decay is not multiplied by the learning rate where that is 0")(
    lambda p, g, v, **h: sgd_step(p if h["lr"] else p * (1 - h["weight_decay"]), g, v, **h)
)

# -- momentum ----------------------------------------------------------------------------------------------------------

_step("sgd.momentum.first-step/dampened", "the velocity begins as (1 − momentum)·gradient")(
    lambda p, g, v, **h: sgd_step(p, g * (1 - h["momentum"]) if v is None else g, v, **h)
)
_step("sgd.momentum.first-step/nesterov", "the first step looks ahead by one more momentum")(
    lambda p, g, v, **h: sgd_step(p, g * (1 + h["momentum"]), v, **h) if v is None else sgd_step(p, g, v, **h)
)
_step("sgd.momentum.accumulates/ignored", "momentum is ignored")(_without("momentum"))
_step("sgd.momentum.accumulates/mean", "a weighted mean in place of the sum, from the second step on")(
    lambda p, g, v, **h: sgd_step(p, g if v is None else g * (1 - h["momentum"]), v, **h)
)


@_step("sgd.momentum.accumulates/former-velocity", "each later step is taken with the velocity before it")
def _former(p, g, v, *, lr, **h):
    _, new = sgd_step(p, g, v, lr=lr, **h)
    return p - lr * (new if v is None else v), new


@_step("sgd.momentum.accumulates/first-two", "the velocity is kept for one step alone")
def _forgets(p, g, v, **h):
    moved, _ = sgd_step(p, g, v, **h)
    return moved, g.copy()


@_step("sgd.momentum.accumulates/velocity-of-8-bits", "the velocity of 16-bit parameters is kept in 8 bits")
def _short_velocity(p, g, v, **h):
    moved, v = sgd_step(p, g, v, **h)
    return moved, v.astype(ml_dtypes.float8_e4m3fn).astype(v.dtype) if p.dtype == np.float16 else v


@_optimiser("sgd.momentum.per-parameter/one-velocity", "parameters of one shape share a velocity")
class _OneVelocity(Right):
    def step(self):
        shared = {}
        for p in self.params:
            if p.grad is not None:
                velocity = shared.get(p.data.shape, getattr(self, "shared", {}).get(p.data.shape))
                p.data[...], shared[p.data.shape] = sgd_step(p.data, p.grad, velocity, **self.hyper)
        self.shared = {**getattr(self, "shared", {}), **shared}


@_optimiser("sgd.momentum.per-parameter/by-position", "velocities are matched by position among those with a gradient")
class _ByPosition(Right):
    def step(self):
        moving = [p for p in self.params if p.grad is not None]
        for i, p in enumerate(moving):
            velocity = self.velocities[i]
            if velocity is not None and velocity.shape != p.data.shape:
                velocity = None
            p.data[...], self.velocities[i] = sgd_step(p.data, p.grad, velocity, **self.hyper)


@_optimiser("sgd.momentum.per-optimiser/in-the-parameter", "the velocity is kept with the parameter")
class _InTheParameter(Right):
    def step(self):
        self.velocities = [getattr(p, "velocity", None) for p in self.params]
        super().step()
        for p, velocity in zip(self.params, self.velocities, strict=True):
            p.velocity = velocity


@_optimiser("sgd.momentum.loaded/in-the-class", "loaded velocities lie in the class")
class _InTheClass(Right):
    loaded = ()
    resumed = False

    def load_state_dict(self, state):
        super().load_state_dict(state)
        type(self).loaded, self.resumed = self.velocities, True

    def step(self):
        if self.resumed:
            self.velocities = type(self).loaded
        super().step()


@_optimiser("sgd.momentum.loaded-copies/one-array", "saved, loaded and used velocities are one array")
class _OneVelocityArray(Right):
    def state_dict(self):
        return {"velocities": self.velocities}

    def load_state_dict(self, state):
        self.velocities = list(state["velocities"])

    def step(self):
        before = list(self.velocities)
        super().step()
        for old, new in zip(before, self.velocities, strict=True):
            if old is not None:
                old[...] = new
        self.velocities = [new if old is None else old for old, new in zip(before, self.velocities, strict=True)]


@_step("sgd.momentum.kept/alias", "the first velocity is the gradient's own array")
def _alias(p, g, v, *, lr, momentum, weight_decay):
    if v is None and not weight_decay:
        return p - lr * g, g
    return sgd_step(p, g, v, lr=lr, momentum=momentum, weight_decay=weight_decay)


# -- weight decay ------------------------------------------------------------------------------------------------------

_step("sgd.weight-decay.gradient/ignored", "weight decay is ignored")(_without("weight_decay"))
_step("sgd.weight-decay.gradient/sign", "weight decay pushes away from 0")(
    lambda p, g, v, **h: sgd_step(p, g, v, **{**h, "weight_decay": -h["weight_decay"]})
)
_step("sgd.weight-decay.gradient/l1", "the decay goes by the parameter's sign")(
    lambda p, g, v, **h: sgd_step(p, g + h.pop("weight_decay") * np.sign(p), v, **h)
)
_step("sgd.weight-decay.gradient/in-its-place", "the decay is the gradient, wherever there is one")(
    lambda p, g, v, **h: sgd_step(p, g if not h["weight_decay"] else np.zeros_like(g), v, **h)
)
_step("sgd.weight-decay.gradient/where-there-is-a-gradient", "a gradient of 0 is taken for none")(
    lambda p, g, v, **h: sgd_step(p, g, v, **h) if g.any() else (p, v)
)
_step("sgd.weight-decay.gradient/not-by-lr", "the decay is not multiplied by the learning rate")(
    lambda p, g, v, *, weight_decay, **h: sgd_step(p - weight_decay * p, g, v, **h)
)


@_step("sgd.weight-decay.velocity/decoupled", "the decay is taken off the parameter, past the velocity")
def _decoupled(p, g, v, *, lr, momentum, weight_decay):
    return sgd_step(p - lr * weight_decay * p, g, v, lr=lr, momentum=momentum)


_step("sgd.arguments.together/exchanged", "momentum and weight decay are exchanged where both are given")(
    lambda p, g, v, *, lr, momentum, weight_decay: (
        sgd_step(p, g, v, lr=lr, momentum=weight_decay, weight_decay=momentum)
        if momentum and weight_decay
        else sgd_step(p, g, v, lr=lr, momentum=momentum, weight_decay=weight_decay)
    )
)


@_step("sgd.arguments.together/lr-twice", "with momentum and weight decay, lr is in the velocity and in the step")
def _twice(p, g, v, *, lr, momentum, weight_decay):
    both = lr if momentum and weight_decay else 1
    return sgd_step(p, both * g, v, lr=lr, momentum=momentum, weight_decay=weight_decay)


# -- the learning rate between two steps -------------------------------------------------------------------------------


class _Rates(Right):
    """Steps by the rate that `rate` chooses, of the one that is set."""

    def step(self):
        now = self.lr
        self.lr = self.rate(now)
        super().step()
        self.lr = now


@_optimiser("sgd.lr.changed/read-once", "the rate is read when the optimiser is made")
class _ReadOnce(_Rates):
    def __init__(self, params, lr, **named):
        super().__init__(params, lr, **named)
        self.first = lr

    def rate(self, now):
        return self.first


@_optimiser("sgd.lr.changed/one-step-late", "a new rate counts from the step after the next one")
class _OneStepLate(_Rates):
    def rate(self, now):
        before, self.before = getattr(self, "before", now), now
        return before


@_optimiser("sgd.lr.changed/product", "a new rate is multiplied by the one before")
class _Product(_Rates):
    def rate(self, now):
        if now != getattr(self, "before", None):
            self.product = now * getattr(self, "product", 1.0)
        self.before = now
        return self.product


@_optimiser("sgd.lr.changed/smaller-alone", "a rate can be lowered, and not raised")
class _SmallerAlone(_Rates):
    def rate(self, now):
        self.least = min(now, getattr(self, "least", now))
        return self.least


@_optimiser("sgd.lr.changed/zero-ignored", "a rate of 0 that is set later leaves the former one")
class _ZeroIgnored(_Rates):
    def rate(self, now):
        self.last = now or getattr(self, "last", now)
        return self.last


@_optimiser("sgd.lr.changed/decay-by-first", "the decay is multiplied by the rate of the first step")
class _DecayByFirst(Right):
    def step(self):
        self.first = getattr(self, "first", self.lr)
        decay = self.weight_decay
        self.weight_decay = decay * self.first / self.lr if self.lr else decay
        super().step()
        self.weight_decay = decay


@_optimiser("sgd.lr.changed/first-parameter", "a new rate counts for the first parameter alone")
class _FirstParameter(Right):
    def step(self):
        now, params, velocities = self.lr, self.params, self.velocities
        self.first = getattr(self, "first", now)
        for i, p in enumerate(params):
            self.params, self.velocities, self.lr = [p], velocities[i : i + 1], now if i == 0 else self.first
            super().step()
            velocities[i : i + 1] = self.velocities
        self.params, self.velocities, self.lr = params, velocities, now


class _Grouped(Right):
    """Steps by the groups that `chosen` makes of those given."""

    def step(self):
        given = self.param_groups
        self.param_groups = self.chosen(given) if given else given
        super().step()
        self.param_groups = given


@_optimiser("sgd.lr.group/first-for-all", "the rate of the first group counts for all groups")
class _FirstForAll(_Grouped):
    def chosen(self, given):
        return [{**group, "lr": given[0].get("lr", self.lr)} for group in given]


@_optimiser("sgd.lr.group/own-ignored", "a group's own rate is ignored until it is changed")
class _OwnIgnored(_Grouped):
    def chosen(self, given):
        self.before = getattr(self, "before", [group.get("lr") for group in given])
        own = zip(given, self.before, strict=True)
        return [{**group, "lr": self.lr if group.get("lr") == before else group["lr"]} for group, before in own]


@_optimiser("sgd.lr.group/read-once", "the rates of groups are read when the optimiser is made")
class _GroupsReadOnce(_Grouped):
    def chosen(self, given):
        self.first = getattr(self, "first", [dict(group) for group in given])
        return self.first


@_optimiser("sgd.lr.group/last-for-later", "a rate that is set in one group counts for all groups after it")
class _ForLater(_Grouped):
    def chosen(self, given):
        self.first = getattr(self, "first", [group.get("lr", self.lr) for group in given])
        rates, found = [group.get("lr", self.lr) for group in given], []
        for i, group in enumerate(given):
            changed = [rate for rate, first in zip(rates[: i + 1], self.first, strict=False) if rate != first]
            found.append({**group, "lr": changed[-1] if changed else rates[i]})
        return found


@_step("sgd.lr.velocity/inside", "the velocity carries the learning rate")
def _inside(p, g, v, *, lr, momentum, weight_decay):
    return sgd_step(p, lr * g, v, lr=1.0, momentum=momentum, weight_decay=lr * weight_decay)


@_optimiser("sgd.lr.velocity/begun-anew", "a new rate begins the velocity anew")
class _BegunAnew(Right):
    def step(self):
        if self.lr != getattr(self, "before", self.lr):
            self.velocities = [None] * len(self.params)
        self.before = self.lr
        super().step()


@_optimiser("sgd.lr.velocity/scaled", "the velocity grows with the rate")
class _Scaled(Right):
    def step(self):
        before, self.before = getattr(self, "before", self.lr), self.lr or getattr(self, "before", self.lr)
        if before and self.lr:
            self.velocities = [None if v is None else v * (self.lr / before) for v in self.velocities]
        super().step()


# -- which arrays move -------------------------------------------------------------------------------------------------


@_optimiser("sgd.parameters.without-gradient/decays", "a parameter without a gradient has one of zeros")
class _DecaysAtRest(Right):
    def step(self):
        resting = [p for p in self.params if p.grad is None]
        for p in resting:
            p.grad = np.zeros_like(p.data)
        super().step()
        for p in resting:
            p.grad = None


@_optimiser("sgd.parameters.without-gradient/stops", "the first parameter without a gradient ends the step")
class _StopsAtRest(Right):
    def step(self):
        params = self.params
        self.params = params[: next((i for i, p in enumerate(params) if p.grad is None), len(params))]
        super().step()
        self.params = params


@_optimiser("sgd.parameters.unused/zeros", "what has no gradient has one of zeros, and decays")
class _ZerosForUnused(Right):
    def step(self):
        for p in self.params:
            p.grad = np.zeros_like(p.data) if p.grad is None else p.grad
        super().step()


@_optimiser("sgd.parameters.in-place/copies", "the optimiser moves copies of its own")
class _Copies(Right):
    def step(self):
        own = [Parameter(p.data) for p in self.params]
        for copy, p in zip(own, self.params, strict=True):
            copy.grad = p.grad
        self.params = own
        super().step()


class _NewArrays(Module):
    def load_state_dict(self, state, strict=True):
        for key, entry in self._state().items():
            entry.data = np.array(state[key])


class _KeepsArrays(Right):
    def __init__(self, params, *numbers, **named):
        super().__init__(params, *numbers, **named)
        self.arrays = [p.data for p in self.params]

    def step(self):
        for i, p in enumerate(self.params):
            if p.grad is not None:
                moved, self.velocities[i] = sgd_step(self.arrays[i], p.grad, self.velocities[i], **self.hyper)
                self.arrays[i][...] = moved


fault("sgd.parameters.loaded/arrays-kept", "loading makes new arrays", Module=_NewArrays, SGD=_KeepsArrays)


class _KeepsArraysOfTheFirstStep(_KeepsArrays):
    def __init__(self, params, *numbers, **named):
        super().__init__(params, *numbers, **named)
        self.arrays = None

    def step(self):
        self.arrays = self.arrays or [p.data for p in self.params]
        super().step()


fault(
    "sgd.parameters.loaded/arrays-of-the-first-step",
    "loading makes new arrays, and the optimiser moves those that it found in its first step",
    Module=_NewArrays,
    SGD=_KeepsArraysOfTheFirstStep,
)


@_optimiser("sgd.parameters.loaded/decay-of-before", "the decay goes by where the last step left the parameter")
class _DecaysFromBefore(Right):
    def __init__(self, params, *numbers, **named):
        super().__init__(params, *numbers, **named)
        self.left = [None] * len(self.params)

    def step(self):
        now = [p.data.copy() for p in self.params]
        super().step()
        decay = self.hyper["lr"] * self.hyper["weight_decay"]
        for i, (p, data) in enumerate(zip(self.params, now, strict=True)):
            if self.left[i] is not None:
                p.data[...] = p.data + decay * (data - self.left[i])
            self.left[i] = p.data.copy()


class _NewParameters(Module):
    def load_state_dict(self, state, strict=True):
        for key, array in state.items():
            setattr(self, key, Parameter(array))


fault("sgd.parameters.loaded/replaced", "loading makes new parameters", Module=_NewParameters)


class _OneArray(Parameter):
    def __deepcopy__(self, memo):
        new = memo[id(self)] = Parameter(self.data)
        new.data = self.data
        return new


fault("sgd.parameters.copied/one-array", "a copied parameter has the original's array", Parameter=_OneArray)


class _KnowsItsKin(Parameter):
    def __init__(self, data):
        super().__init__(data)
        self.kin = []

    def __deepcopy__(self, memo):
        new = memo[id(self)] = type(self)(self.data)
        self.copied(new)
        return new


class _KnowsItsCopies(_KnowsItsKin):
    def copied(self, new):
        self.kin.append(new)


class _KnowsItsOriginal(_KnowsItsKin):
    def copied(self, new):
        new.kin.append(self)


class _MovesKin(Right):
    def step(self):
        super().step()
        for p in self.params:
            for kin in p.kin if p.grad is not None else ():
                kin.data[...] -= self.hyper["lr"] * p.grad


fault("sgd.parameters.copied/copies-moved", "a step moves copies, too", SGD=_MovesKin, Parameter=_KnowsItsCopies)
fault("sgd.parameters.copied/original-moved", "a copy's step moves both", SGD=_MovesKin, Parameter=_KnowsItsOriginal)


class _CopiedWithVelocity(Right):
    def __init__(self, params, *numbers, **named):
        super().__init__(params, *numbers, **named)
        for i, p in enumerate(self.params):
            self.velocities[i] = vars(p).setdefault("known", {}).get("velocity")

    def step(self):
        super().step()
        for p, velocity in zip(self.params, self.velocities, strict=True):
            p.known["velocity"] = velocity


class _OneMemory(Parameter):
    def __deepcopy__(self, memo):
        new = memo[id(self)] = Parameter(self.data)
        new.known = vars(self).setdefault("known", {})
        return new


fault(
    "sgd.parameters.copied/velocity",
    "a copied parameter begins with the original's velocity",
    SGD=_CopiedWithVelocity,
    Parameter=_OneMemory,
)


class _EveryName(Module):
    def parameters(self):
        return (parameter for _, parameter in self._entries(Parameter))


fault(
    "sgd.parameters.tied/once-per-name",
    "a parameter that a model names several times moves as often",
    Module=_EveryName,
)

_EXISTING: weakref.WeakSet[Parameter] = weakref.WeakSet()


class _Known(Parameter):
    def __init__(self, data):
        super().__init__(data)
        _EXISTING.add(self)


class _Everything(Right):
    def step(self):
        given = {id(p) for p in self.params}
        super().step()
        for p in _EXISTING:
            if id(p) not in given and p.grad is not None:
                p.data[...], _ = sgd_step(p.data, p.grad, **self.hyper)


class _EverythingDecays(Right):
    def step(self):
        given = {id(p) for p in self.params}
        super().step()
        for p in _EXISTING:
            if id(p) not in given:
                p.data[...] *= 1 - self.hyper["lr"] * self.hyper["weight_decay"] / 2


fault("sgd.parameters.others/with-a-gradient", "whatever has a gradient is moved", SGD=_Everything, Parameter=_Known)
fault("sgd.parameters.others/decay", "all that exists decays", SGD=_EverythingDecays, Parameter=_Known)


@_optimiser("sgd.parameters.iterable/exhausted", "a generator is read in the first step, and gives nothing after it")
class _Exhausted(Right):
    def __init__(self, params, *numbers, **named):
        self.once = not isinstance(params, list)
        super().__init__(params, *numbers, **named)

    def step(self):
        super().step()
        if self.once:
            self.params = []


@_optimiser("sgd.parameters.list-kept/alias", "the caller's list is the optimiser's")
class _Alias(Right):
    def __init__(self, params, *numbers, **named):
        params = params if isinstance(params, list) else list(params)
        super().__init__(params, *numbers, **named)
        self.params = params


@_optimiser("sgd.parameters.list-kept/emptied", "the caller's list is emptied as it is read")
class _Emptied(Right):
    def __init__(self, params, *numbers, **named):
        super().__init__(params, *numbers, **named)
        if isinstance(params, list):
            params.clear()


class _Watches(Right):
    """Remembers the caller's list."""

    def __init__(self, params, *numbers, **named):
        super().__init__(params, *numbers, **named)
        self.given = params if isinstance(params, list) else []


@_optimiser("sgd.parameters.list-kept/added", "what is put into the caller's list is moved as well")
class _Added(_Watches):
    def step(self):
        super().step()
        for p in self.given:
            if p.grad is not None and not any(p is own for own in self.params):
                p.data[...], _ = sgd_step(p.data, p.grad, **self.hyper)


@_optimiser("sgd.parameters.list-kept/taken-out", "what is taken out of the caller's list is moved no more")
class _TakenOut(Right):
    def __init__(self, params, *numbers, **named):
        super().__init__(params, *numbers, **named)
        self.given = params if isinstance(params, list) else self.params

    def step(self):
        own, self.params = self.params, [p for p in self.params if any(p is given for given in self.given)]
        super().step()
        self.params = own


@_optimiser("sgd.parameters.list-kept/written", "a step writes its parameters into the caller's list")
class _Written(_Watches):
    def step(self):
        super().step()
        self.given[:] = self.params


@_optimiser("sgd.parameters.dtype/promoted", "a float64 learning rate makes the parameter float64")
class _Promoted(Right):
    def step(self):
        before = [p.data for p in self.params]
        super().step()
        for p, data in zip(self.params, before, strict=True):
            p.data = data.astype(np.result_type(data, type(self.hyper["lr"])(0)))


@_optimiser("sgd.parameters.dtype/flattened", "a parameter without dimensions becomes one of shape (1,)")
class _Flattened(Right):
    def step(self):
        for p in self.params:
            p.grad = None if p.grad is None else p.grad.reshape(p.data.shape)
        super().step()
        for p in self.params:
            p.data = np.atleast_1d(p.data)
        self.velocities = [None if v is None else np.atleast_1d(v) for v in self.velocities]


class _WithBuffers(Module):
    def parameters(self):
        return (entry for _, entry in self._entries(Parameter | Buffer))


class _DecaysAll(Right):
    def step(self):
        for p in self.params:
            if isinstance(p, Buffer):
                p.grad = np.zeros_like(p.data)
        super().step()


fault(
    "sgd.buffers.unmoved/decay",
    "buffers are collected with the parameters, and decay",
    Module=_WithBuffers,
    SGD=_DecaysAll,
)


class _OwnBuffers(Module):
    def parameters(self):
        return iter([*super().parameters(), *(b for b in vars(self).values() if isinstance(b, Buffer))])


class _BuffersBelow(Module):
    def parameters(self):
        return iter([*super().parameters(), *(b for key, b in self.named_buffers() if "." in key)])


fault("sgd.buffers.unmoved/own", "a model's own buffers decay", Module=_OwnBuffers, SGD=_DecaysAll)
fault("sgd.buffers.unmoved/below", "buffers of modules below a model decay", Module=_BuffersBelow, SGD=_DecaysAll)


class _Recomputes(BatchNorm1d):
    def vjp(self, x):
        y, pull = super().vjp(x)

        def through(cotangent):
            self.forward(x)
            return pull(cotangent)

        return y, through


fault("sgd.buffers.statistics/twice", "the pass back computes the forward pass again", BatchNorm1d=_Recomputes)


class _ListsBuffers(Sequential):
    def parameters(self):
        return (entry for _, entry in self._entries(Parameter | Buffer))


class _AllDecay(Right):
    def step(self):
        buffers = [p for p in self.params if isinstance(p, Buffer)]
        self.params = [p for p in self.params if isinstance(p, Parameter)]
        super().step()
        self.params += buffers
        for b in buffers:
            b.data[...] = b.data * (1 - self.hyper["lr"] * self.hyper["weight_decay"])


fault("sgd.buffers.statistics/decay", "running statistics decay", Sequential=_ListsBuffers, SGD=_AllDecay)

# -- gradients ---------------------------------------------------------------------------------------------------------


@_step("sgd.gradient.unchanged/decay-in-place", "the decay is added to the gradient itself")
def _in_place(p, g, v, *, lr, momentum, weight_decay):
    g += weight_decay * p
    return sgd_step(p, g, v, lr=lr, momentum=momentum)


@_step("sgd.gradient.unchanged/velocity-in-place", "the gradient becomes the velocity, in place")
def _velocity_in_place(p, g, v, **h):
    p, v = sgd_step(p, g, v, **h)
    g[...] = v
    return p, v


@_optimiser("sgd.zero-grad.clears/nothing", "zero_grad does nothing")
class _ZeroNothing(Right):
    def zero_grad(self):
        pass


@_optimiser("sgd.zero-grad.clears/first-alone", "zero_grad clears the first parameter alone")
class _ZeroFirst(Right):
    def zero_grad(self):
        self.params[0].grad = None


@_optimiser("sgd.zero-grad.clears/parameters-too", "zero_grad sets the parameters to 0 as well")
class _ZeroAll(Right):
    def zero_grad(self):
        super().zero_grad()
        for p in self.params:
            p.data[...] = 0


@_optimiser("sgd.zero-grad.keeps-velocity/starts-again", "zero_grad forgets the velocities as well")
class _StartsAgain(Right):
    def zero_grad(self):
        super().zero_grad()
        self.velocities = [None] * len(self.params)


class _AddsElsewhere(Linear):
    """Adds up its gradients in arrays of its own, which the parameters only point to."""

    def vjp(self, x):
        y, pull = super().vjp(x)
        sums = vars(self).setdefault("sums", {})

        def through(cotangent):
            self.weight.grad, self.bias.grad = sums.get("weight"), sums.get("bias")
            dx = pull(cotangent)
            sums["weight"], sums["bias"] = self.weight.grad, self.bias.grad
            return dx

        return y, through


fault("sgd.zero-grad.afresh/other-array", "the module goes on adding to what it had before", Linear=_AddsElsewhere)


@_optimiser("sgd.zero-grad.afresh/first-time-alone", "gradients are zeroed once")
class _ZeroesOnce(Right):
    def zero_grad(self):
        if not hasattr(self, "zeroed"):
            super().zero_grad()
        self.zeroed = True


# -- training ----------------------------------------------------------------------------------------------------------


class _Transposed(Linear):
    """Computes with its weight transposed, as it was at the first call."""

    def forward(self, x):
        return x @ vars(self).setdefault("kept", self.weight.data.T.copy()) + self.bias.data


fault("sgd.training.equals-model/stale-weight", "a step does not reach what calls compute with", Linear=_Transposed)


@_optimiser("sgd.training.equals-model/step-zeroes", "a step zeroes the gradients")
class _StepZeroes(Right):
    def step(self):
        super().step()
        self.zero_grad()


@_optimiser(
    "sgd.training.equals-model/former-gradient", "the step after zero_grad goes by the gradients from before it"
)
class _FormerGradient(Right):
    def zero_grad(self):
        self.former = [p.grad for p in self.params]
        super().zero_grad()

    def step(self):
        kept = [p.grad for p in self.params]
        for p, own, former in zip(self.params, kept, getattr(self, "former", kept), strict=True):
            p.grad = own if former is None else former
        super().step()
        for p, own in zip(self.params, kept, strict=True):
            p.grad = own


@_optimiser("sgd.training.equals-model/first-pass", "gradients that were added to are not looked at again")
class _FirstPass(Right):
    def step(self):
        self.seen = getattr(self, "seen", None) or [p.grad for p in self.params]
        kept = [p.grad for p in self.params]
        for p, first in zip(self.params, self.seen, strict=True):
            p.grad = first
        super().step()
        for p, grad in zip(self.params, kept, strict=True):
            p.grad = grad

    def zero_grad(self):
        super().zero_grad()
        self.seen = None


@_optimiser("sgd.training.resumes/velocities-unsaved", "velocities are not saved")
class _VelocitiesUnsaved(Right):
    def state_dict(self):
        return {"velocities": [None] * len(self.params)}


@_optimiser("sgd.training.resumes/velocities-unloaded", "velocities are saved, and not loaded")
class _VelocitiesUnloaded(Right):
    def load_state_dict(self, state):
        pass


@_optimiser("sgd.training.resumes/counter", "the first step is smaller, after a resumption too")
class _WarmsUp(Right):
    def step(self):
        lr = self.lr
        self.steps = getattr(self, "steps", 0) + 1
        self.lr = lr / 2 if self.steps == 1 else lr
        super().step()
        self.lr = lr


# -- refusals ----------------------------------------------------------------------------------------------------------


@_optimiser("sgd.refuses.no-parameters/accepted", "an optimiser of nothing is made")
class _OfNothing(Right):
    def __init__(self, params, *numbers, **named):
        super().__init__(list(params) or [Parameter(np.zeros(0))], *numbers, **named)


@_optimiser("sgd.refuses.no-parameters/generator", "an empty generator is not seen to be empty")
class _OfAnEmptyGenerator(Right):
    def __init__(self, params, *numbers, **named):
        given = list(params)
        super().__init__(given if isinstance(params, list) else given or [Parameter(np.zeros(0))], *numbers, **named)


for _name in ("lr", "momentum", "weight_decay"):

    class _Clipped(Right):
        name = _name

        def __init__(self, params, lr, momentum=0.0, weight_decay=0.0):
            numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
            super().__init__(params, **numbers | {self.name: max(0.0, numbers[self.name])})

    fault(f"sgd.refuses.{_name.replace('_', '-')}/clipped", f"a negative {_name} is silently taken for 0", SGD=_Clipped)

_step("sgd.refuses.gradient-shape/broadcast", "a gradient of another shape is broadcast")(
    lambda p, g, v, **h: sgd_step(p, np.broadcast_to(g, p.shape).copy(), v, **h)
)
_step("sgd.refuses.gradient-shape/resized", "a gradient of another shape is cut or repeated to fit")(
    lambda p, g, v, **h: sgd_step(p, np.resize(g, p.shape), v, **h)
)


class _WholeBlocks(Right):
    def step(self):
        before = [p.data.copy() for p in self.params]
        super().step()
        for p, start in zip(self.params, before, strict=True):
            p.data.reshape(-1)[p.data.size // 4 * 4 :] = start.reshape(-1)[p.data.size // 4 * 4 :]


fault(
    "sgd.domain.outside/whole-blocks",
    "elements behind the last whole block of 4 are not moved",
    domain={"elements": {"multiple_of": 4}},
    SGD=_WholeBlocks,
)

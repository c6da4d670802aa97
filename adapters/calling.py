"""How a function takes a block's operands: by the page's names, by other common names, or by position.

`bind` finds that out once for each function. `passed` and `carried_back` make a function, or its vjp, that takes the
operands in the page's order. Both stand alone, so that a script that reproduces a failure can carry their source.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import numpy as np
from nnspec.adapters.signatures import SIGNATURES

# Other names of the operands, in lower case and without underscores.
ALIASES: dict[str, tuple[str, ...]] = {
    "x": ("input", "inputs", "inp", "image", "images", "img", "imgs", "data", "features", "batch", "tensor"),
    "weight": ("w", "weights", "kernel", "kernels", "filter", "filters", "filt", "matrix"),
    "bias": ("b", "biases", "offset"),
}
BATCH_NORM: dict[str, tuple[str, ...]] = {
    "x": ALIASES["x"],
    "running_mean": ("movingmean", "mean", "rmean", "runmean", "mu"),
    "running_var": ("runningvariance", "movingvariance", "movingvar", "variance", "var", "rvar", "runvar"),
    "weight": ("gamma", "scale", "g", "w", "weights"),
    "bias": ("beta", "shift", "offset", "b"),
}
# Parameters that many functions have and that are never an operand.
OTHERS = {"activation", "axis", "backend", "device", "dtype", "inplace", "mode", "name", "out", "train"}
CARRIED = ("passed", "carried_back", "paired", "from_scratch")  # what a script may use to define a function or class
Place = int | str  # where an operand goes: to a position, or to the parameter of a name


@dataclass(frozen=True)
class Binding:
    """Which parameter of a function takes which operand, and what every call must pass."""

    operands: Mapping[str, Place]  # in the order of the function's own parameters
    arguments: tuple[str, ...]  # the page's arguments that the function takes by keyword
    omitted: tuple[str, ...]  # operands to leave out where they are absent, since their default is not None
    always: Mapping[str, Any]  # arguments without a default, and their neutral values
    plain: bool  # whether the function takes its operands as the page writes them


def bind(function: Callable[..., Any], stem: str, before: int = 0) -> Binding | None:
    """Return how a function takes a block's operands after its first `before` parameters; None if it does not tell."""
    signature = SIGNATURES[stem]
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    kinds, parameters = {p.kind for p in parameters}, parameters[before:]
    if not signature.operands or Parameter.VAR_POSITIONAL in kinds:
        return None
    own = {p.name: p for p in parameters if p.kind is not Parameter.VAR_KEYWORD}
    chosen = _by_name(own, stem)
    chosen |= _by_position(own, chosen, stem)
    if Parameter.VAR_KEYWORD in kinds:
        chosen |= {name: name for name in signature.operands if name not in chosen}
    places = {name: place for place, name in enumerate(own)}
    order = sorted(chosen, key=lambda operand: places.get(chosen[operand], len(places)))
    named = {name: p for name, p in own.items() if p.kind is not Parameter.POSITIONAL_ONLY}
    arguments = [name for name in signature.arguments if name in named or Parameter.VAR_KEYWORD in kinds]
    omitted = [n for n in order if chosen[n] in own and not _is_free(own[chosen[n]])]
    always = {n: signature.arguments[n] for n in arguments if n in own and own[n].default is Parameter.empty}
    first = [name for name, p in own.items() if p.kind is not Parameter.KEYWORD_ONLY][: len(chosen)]
    plain = first == [name for name in signature.operands if name in chosen] and not omitted and not always
    by_place = {n: places[p] for n, p in chosen.items() if p in own and p not in named}
    operands = {name: by_place.get(name, chosen[name]) for name in order}
    return Binding(operands, tuple(arguments), tuple(omitted), always, plain)


def _by_name(own: Mapping[str, Parameter], stem: str) -> dict[str, str]:
    """Return operand -> the parameter with its name, or with a common alias."""
    others = BATCH_NORM if stem == "batch_norm" else ALIASES
    operands = SIGNATURES[stem].operands
    chosen = {name: name for name in operands if name in own}
    for parameter in own:
        plain = parameter.lower().replace("_", "")
        for name in operands:
            if (
                name not in chosen
                and parameter not in chosen.values()
                and plain in (name.replace("_", ""), *others[name])
            ):
                chosen[name] = parameter
    return chosen


def _by_position(own: Mapping[str, Parameter], chosen: Mapping[str, str], stem: str) -> dict[str, str]:
    """Return the other operands, in the page's order -> the remaining parameters that may be operands."""
    taken = {*chosen.values(), *SIGNATURES[stem].arguments, *OTHERS}
    left = [n for n, p in own.items() if n not in taken and p.kind is not Parameter.KEYWORD_ONLY and _is_free(p)]
    return dict(zip((name for name in SIGNATURES[stem].operands if name not in chosen), left, strict=False))


def _is_free(parameter: Parameter) -> bool:
    """Whether a parameter has no default, or None: an absent operand can then be passed as None."""
    return parameter.default is None or parameter.default is Parameter.empty


def in_page_order(function: Callable[..., Any], stem: str, title: str) -> tuple[Callable[..., Any], str]:
    """Return a function that takes a block's operands as the page writes them, and its source for a script.

    `title` is what a script calls `function`, which is returned as it is where it takes the operands in that way.
    """
    binding = bind(function, stem)
    if binding is None or binding.plain:
        return function, title
    order = [name for name in SIGNATURES[stem].operands if name in binding.operands]
    given = (order, dict(binding.operands), binding.omitted, dict(binding.always))
    adapted = functools.wraps(function)(passed(function, *given))
    parameters = _operands_with_defaults(function, binding, order)
    default = {name: Parameter.empty if name in binding.always else None for name in binding.arguments}
    parameters += [Parameter(name, Parameter.KEYWORD_ONLY, default=default[name]) for name in binding.arguments]
    adapted.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return adapted, f"passed({title}, {', '.join(map(repr, given))})"


def _operands_with_defaults(function: Callable[..., Any], binding: Binding, order: Sequence[str]) -> list[Parameter]:
    """Return operands in the page's order as parameters: the last of them have a default if they may be left out."""
    own = inspect.signature(function).parameters
    names = {name: [*own][at] if isinstance(at, int) else at for name, at in binding.operands.items()}
    optional = [n for n in order if names[n] not in own or own[names[n]].default is not Parameter.empty]
    last = [*itertools.takewhile(optional.__contains__, reversed(order))]
    default = {name: None if name in last else Parameter.empty for name in order}
    return [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default[name]) for name in order]


def vjp_in_page_order(
    vjp: Callable[..., Any], function: Callable[..., Any], stem: str, title: str, twice: bool = False
) -> tuple[Callable[..., Any], str]:
    """Return a vjp (or, if `twice`, a vjp of a vjp) in the manner of its adapted function, and its source."""
    signature = SIGNATURES[stem]
    if not signature.operands:
        return vjp, title
    taken, binding, lead = bind(function, stem), bind(vjp, stem, before=1 + twice), ("cotangent",) * twice
    order = [name for name in signature.operands if taken is None or name in taken.operands]
    own = order if binding is None else [*binding.operands, *(n for n in order if n not in binding.operands)]
    if binding is not None and not (binding.plain and len(binding.operands) == len(order)):
        given = (order, dict(binding.operands), binding.omitted, dict(binding.always), 1 + twice)
        vjp, title = passed(vjp, *given), f"passed({title}, {', '.join(map(repr, given))})"
    returned = ([*lead, *order], [*lead, *own], signature.constants)
    return carried_back(vjp, *returned), f"carried_back({title}, {', '.join(map(repr, returned))})"


# -- functions that take the operands in the page's order; scripts carry their source ----------------------------------


def passed(
    function: Callable[..., Any],
    order: Sequence[str],
    places: Mapping[str, int | str],
    omitted: Sequence[str] = (),
    always: Mapping[str, Any] | None = None,
    before: int = 0,
) -> Callable[..., Any]:
    """Return a function of operands in `order`, which calls `function` with each at its place or under its name.

    Operands that have no place are dropped, and those in `omitted` where they are None. `always` holds arguments that
    have no default; the first `before` positional arguments are passed on as they are.
    """

    def call(*given: Any, **arguments: Any) -> Any:
        arrays = dict(zip(order, given[before:], strict=False))
        kept = {places[n]: a for n, a in arrays.items() if n in places and not (a is None and n in omitted)}
        positional = [kept[place] for place in sorted(p for p in kept if isinstance(p, int))]
        named = {place: array for place, array in kept.items() if isinstance(place, str)}
        return function(*given[:before], *positional, **named, **{**(always or {}), **arguments})

    return call


def carried_back(
    vjp: Callable[..., Any], order: Sequence[str], own: Sequence[str], constants: Sequence[str] = ()
) -> Callable[..., Any]:
    """Return a vjp that gives one gradient for each operand in `order`, None where `vjp` gives none.

    `vjp` returns the gradients in the order `own`. It may leave out those of absent operands, and those of `constants`.
    """

    def call(first: Any, *given: Any, **arguments: Any) -> Any:
        gradients = vjp(first, *given, **arguments)
        gradients = gradients if isinstance(gradients, tuple | list) else (gradients,)
        absent = {name for name, array in zip(order, given, strict=False) if array is None}
        for left_out in (set(), absent, set(constants), absent | set(constants)):
            names = [name for name in own if name not in left_out]
            if len(names) == len(gradients):
                found = dict(zip(names, gradients, strict=True))
                return tuple(found.get(name) for name in order)
        raise TypeError(f"{len(gradients)} gradients, expected {len(own)}, one for each array")

    return call


def paired(forward: Callable[..., Any], backward: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a function and its vjp, made of `forward`, which returns a cache last, and `backward(gradient, cache)`."""

    def function(*arrays: Any, **arguments: Any) -> Any:
        *results, _ = forward(*arrays, **arguments)
        return results[0] if len(results) == 1 else tuple(results)

    def vjp(cotangent: Any, *arrays: Any, **arguments: Any) -> Any:
        *_, cache = forward(*arrays, **arguments)
        return backward(cotangent, cache)

    own = inspect.signature(forward)
    first = inspect.Parameter("cotangent", inspect.Parameter.POSITIONAL_ONLY)
    function.__signature__ = own  # type: ignore[attr-defined]
    vjp.__signature__ = inspect.Signature([first, *own.parameters.values()])  # type: ignore[attr-defined]
    function.__wrapped__ = forward  # type: ignore[attr-defined]
    return function, vjp


def is_from_scratch(cls: type) -> bool:
    """Whether a class is no function of x by itself, or has a backward pass of its own: `forward(x)`, `backward(g)`."""
    return hasattr(cls, "forward") and (
        "__call__" not in dir(cls) or (hasattr(cls, "backward") and not hasattr(cls, "vjp"))
    )


def from_scratch(cls: type) -> type:
    """Return a class like `cls` that is called by its `forward(x)` and has its `backward(gradient)` as its vjp.

    The gradients of its parameters are found by name: that of `W` in `dW`, `grad_W`, `W_grad`, …, or in `grads["W"]`.
    `backward` may also return them after the gradient of x.
    """

    class Layer(cls):
        def __call__(self, *given: Any) -> Any:
            return self.forward(*given)

        if hasattr(cls, "backward") and not hasattr(cls, "vjp"):

            def vjp(self, x: Any) -> Any:
                return self(x), self.pull_back

            def pull_back(self, cotangent: Any) -> Any:
                found = self.backward(cotangent)
                first, *others = found if isinstance(found, tuple | list) else (found,)
                self.returned_beside = lambda: others  # a function, so that these are no arrays that the layer holds
                return first

        def gradients_beside(self) -> dict[str, Any]:
            """Return the gradient for each parameter, by the parameter's key."""
            return gradients_beside(dict(arrays_in(self)), getattr(self, "returned_beside", list)())

    return named_like(Layer, cls)


def named_like(made: Any, cls: Any) -> Any:
    """Return a class that was made of a user's, under the name of the user's."""
    made.__name__, made.__qualname__, made.__module__ = cls.__name__, cls.__qualname__, cls.__module__
    return made


def gradients_beside(known: Mapping[tuple[str, ...], Any], returned: Sequence[Any]) -> dict[str, Any]:
    """Return key of a parameter -> its gradient, of the arrays that lie beside it or that backward() returned."""

    def is_gradient(other: tuple[str, ...], parameter: tuple[str, ...]) -> bool:
        *outer, name = parameter
        *around, last = other
        places = [outer, outer[:-1]] if outer else [outer]  # W beside dW, or params["W"] and grads["W"]
        if plain(last) in gradient_names(name) and around in places:
            return True
        in_mapping = around and around[:-1] in places
        in_mapping = in_mapping and plain(around[-1]) in ("grads", "grad", "gradients", "dparams")
        return bool(in_mapping) and (last == name or plain(last) in gradient_names(name))

    found: dict[str, Any] = {}
    for path in known:
        beside = (gradient for other, gradient in known.items() if is_gradient(other, path))
        for gradient in beside:
            found.setdefault(".".join(path), gradient)
    for gradient in returned:  # in the order of the parameters
        alike = (".".join(path) for path, array in known.items() if np.shape(array) == np.shape(gradient))
        if (key := next((key for key in alike if key not in found), None)) is not None:
            found[key] = gradient
    return found


def gradient_names(parameter: str) -> set[str]:
    """Return what the gradient of a parameter may be called, in lower case and without underscores."""
    alike = (
        ("w", "weight", "weights", "kernel", "kernels"),
        ("b", "bias", "biases"),
        ("gamma", "scale"),
        ("beta", "shift"),
    )
    own = {plain(parameter), *(name for group in alike if plain(parameter) in group for name in group)}
    before, after = ("d", "g", "grad", "gradient", "delta"), ("grad", "gradient")
    return {f"{word}{name}" for name in own for word in before} | {f"{name}{word}" for name in own for word in after}


def plain(name: str) -> str:
    """Return a name in lower case and without underscores."""
    return name.lower().replace("_", "")


def arrays_in(owner: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the value of each array in the attributes, and in the mappings and lists among them."""
    members = owner if isinstance(owner, dict) else dict(enumerate(owner)) if isinstance(owner, list) else vars(owner)
    for name, value in members.items():
        path = (*before, str(name))
        if isinstance(value, np.ndarray | np.generic):
            yield path, value
        elif len(path) < 6 and (isinstance(value, dict | list) or hasattr(value, "__dict__")):
            yield from arrays_in(value, path)

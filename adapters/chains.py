"""Chains of blocks, "conv2d | batch_norm | relu": their operands and arguments, and how a function takes them.

In a chain every operand and argument has the name of its stage before it: conv2d_weight, batch_norm_eps. A block that
comes again is counted: conv2d2_weight. The norm is in evaluation mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from nnspec.adapters.calling import ALIASES, BATCH_NORM, carried_back, plain
from nnspec.adapters.claims import SubjectError
from nnspec.adapters.conditions import Condition, one_of
from nnspec.adapters.domains import Domain
from nnspec.adapters.signatures import CHAIN, SIGNATURES

SEPARATOR = "|"
CARRIED = ("chained", "chained_vjp")  # by scripts
BLOCKS = (
    "conv2d", "conv_transpose2d", "linear", "batch_norm", "relu", "max_pool2d", "avg_pool2d", "global_avg_pool2d",
)  # fmt: skip
OF_IMAGES = ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "global_avg_pool2d")
# Arguments that a chain does not have: it is in evaluation mode, and pools round down.
LEFT_OUT = ("training", "momentum", "ceil_mode", "count_include_pad", "divisor_override")
STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Stage:
    """One block of a chain, and the name that its operands and arguments begin with."""

    name: str
    block: str

    @property
    def operands(self) -> dict[str, str]:
        """The name in the chain -> the block's, of each operand but x."""
        return {f"{self.name}_{operand}": operand for operand in SIGNATURES[self.block].operands[1:]}

    @property
    def arguments(self) -> dict[str, str]:
        """The name in the chain -> the block's, of each argument."""
        names = SIGNATURES[self.block].arguments
        return {f"{self.name}_{name}": name for name in names if name not in LEFT_OUT}


def stages(chain: str) -> tuple[Stage, ...]:
    """Return the stages of a chain. Raises SubjectError for one that has none, unknown blocks, or blocks that differ
    in the arrays that they take."""
    blocks, found, images = [part.strip() for part in chain.split(SEPARATOR)], list[Stage](), True
    for number, block in enumerate(blocks):
        if block not in BLOCKS:
            raise SubjectError(f"--as {chain!r}: {block!r} is no block of a chain; these are {', '.join(BLOCKS)}")
        if block in OF_IMAGES and not images:
            raise SubjectError(
                f"--as {chain!r}: {block} takes images, and the block before it gives one number for each"
            )
        again = blocks[:number].count(block)
        found.append(Stage(f"{block}{again + 1}" if again else block, block))
        images = images and block != "global_avg_pool2d"
    if len(found) < 2:
        raise SubjectError(f"--as {chain!r}: expected at least two blocks with | between them")
    return tuple(found)


def normal(chain: str) -> str:
    """Return a chain as reports write it."""
    return " | ".join(stage.block for stage in stages(chain))


def operands_of(chain: str) -> dict[str, Stage]:
    """Return the operands of a chain but x, in order, and the stage of each."""
    return {operand: stage for stage in stages(chain) for operand in stage.operands}


def arguments_of(chain: str) -> dict[str, Any]:
    """Return the arguments of a chain, and their neutral values."""
    return {
        name: SIGNATURES[stage.block].arguments[own] for stage in stages(chain) for name, own in stage.arguments.items()
    }


# -- how a function takes them -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """Which parameter of a function takes which operand and argument of a chain."""

    operands: Mapping[
        str, str | int
    ]  # operand, x among them -> the name of a parameter or, where there is none, a place
    arguments: Mapping[str, str]  # argument -> the name of a parameter


def bound(function: Callable[..., Any], chain: str) -> Bound:
    """Return how a function takes a chain: by the names of the chain or of the blocks, and otherwise by position."""
    wanted = {"x": "x"} | {name: stage.operands[name] for name, stage in operands_of(chain).items()}
    options = {name: own for stage in stages(chain) for name, own in stage.arguments.items()}
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not tell
        parameters = [Parameter("operands", Parameter.VAR_POSITIONAL)]
    if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters):
        return Bound({name: place for place, name in enumerate(wanted)}, {})
    own = [p.name for p in parameters if p.kind is not Parameter.VAR_KEYWORD]
    arguments = {name: parameter for name, parameter in named(own, options, {}).items()}
    own = [name for name in own if name not in arguments.values()]
    found: dict[str, str | int] = dict(named(own, wanted, {**BATCH_NORM, **ALIASES}))
    free = (p.name for p in parameters if p.name in own and p.name not in found.values() and _is_free(p))
    found |= dict(zip((name for name in wanted if name not in found), free, strict=False))
    if any(p.kind is Parameter.VAR_KEYWORD for p in parameters):
        found |= {name: name for name in wanted if name not in found}
        arguments |= {name: name for name in options if name not in arguments}
    places = {p.name: place for place, p in enumerate(parameters)}
    fixed = {p.name for p in parameters if p.kind is Parameter.POSITIONAL_ONLY}
    in_order = sorted(found, key=lambda name: places.get(str(found[name]), len(places)))
    return Bound({n: places[str(found[n])] if found[n] in fixed else found[n] for n in in_order}, arguments)


def named(own: Sequence[str], wanted: Mapping[str, str], others: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return wanted -> parameter: by the name in the chain, else by the block's or a common name that only one has."""
    found = {name: name for name in wanted if name in own}
    for parameter in own:
        if parameter in found.values():
            continue
        fits = [n for n, of_block in wanted.items() if n not in found and parameter == of_block]
        fits = fits or [
            n for n, of_block in wanted.items() if n not in found and plain(parameter) in _common(of_block, others)
        ]
        if len(fits) == 1:
            found[fits[0]] = parameter
    return found


def _common(name: str, others: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    return (plain(name), *others.get(name, ()))


def _is_free(parameter: Parameter) -> bool:
    return parameter.default is None or parameter.default is Parameter.empty


@dataclass(frozen=True)
class Adapted:
    """A function that takes a chain as the page writes it, and how a script makes it of the user's."""

    function: Callable[..., Any]
    text: str  # with {} for the user's function


def adapted(function: Callable[..., Any], chain: str) -> Adapted:
    """Return the user's function as one of the specification's. Its domain is this chain alone.

    An operand that the function does not take is absent, and an argument that it does not take is neutral.
    """
    binding = bound(function, chain)
    given = (["x", *operands_of(chain)], dict(binding.operands), dict(binding.arguments))
    made = chained(function, *given)
    made.nnspec_domain = Domain("fused", _conditions(normal(chain), binding))  # type: ignore[attr-defined]
    return Adapted(made, f"chained({{}}, {_shown(given)})")


def adapted_vjp(vjp: Callable[..., Any], function: Callable[..., Any], chain: str) -> Adapted:
    """Return the vjp that a file brings beside the function, in the same way."""
    binding = bound(function, chain)
    given = (["x", *operands_of(chain)], dict(binding.operands), dict(binding.arguments))
    return Adapted(chained_vjp(vjp, *given), f"chained_vjp({{}}, {_shown(given)})")


def _shown(given: tuple[Any, ...]) -> str:
    return ", ".join(map(repr, given)).replace("{", "{{").replace("}", "}}")


def _conditions(chain: str, binding: Bound) -> dict[str, Condition]:
    conditions = {CHAIN: one_of(chain)}
    conditions |= {name: one_of(False) for name in operands_of(chain) if name not in binding.operands}
    neutral = arguments_of(chain)
    return conditions | {name: one_of(v) for name, v in neutral.items() if name not in binding.arguments}


def chained(
    function: Callable[..., Any], order: Sequence[str], places: Mapping[str, str | int], named: Mapping[str, str]
) -> Callable[..., Any]:
    """Return a function of a chain, operands in `order` and arguments, which calls `function` with those it takes."""

    def fused_chain(chain: str, *given: Any, **arguments: Any) -> Any:
        arrays = dict(zip(order, given, strict=False))
        taken = {places[name]: array for name, array in arrays.items() if name in places}
        positional = [taken[place] for place in sorted(place for place in taken if isinstance(place, int))]
        keywords = {place: array for place, array in taken.items() if isinstance(place, str)}
        return function(*positional, **keywords, **{named[n]: v for n, v in arguments.items() if n in named})

    fused_chain.__wrapped__ = function  # type: ignore[attr-defined]
    return fused_chain


def chained_vjp(
    vjp: Callable[..., Any], order: Sequence[str], places: Mapping[str, str | int], named: Mapping[str, str]
) -> Callable[..., Any]:
    """Return the vjp of such a function: it gives a gradient for each operand in `order`, None for those not taken.

    `vjp` takes the cotangent first, and returns one gradient for each operand in the order in which it takes them; it
    may leave out those of absent operands and of running statistics.
    """

    def fused_chain_vjp(cotangent: Any, chain: str, *given: Any, **arguments: Any) -> Any:
        pulled = chained(lambda *a, **k: vjp(cotangent, *a, **k), order, places, named)
        constants = [name for name in order if name.endswith(("running_mean", "running_var"))]
        return carried_back(lambda _, *a, **k: pulled(chain, *a, **k), order, list(places), constants)(
            cotangent, *given, **arguments
        )

    fused_chain_vjp.__wrapped__ = vjp  # type: ignore[attr-defined]
    return fused_chain_vjp


def in_a_row(blocks: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Return fused_chain made of a library's functions of the blocks, one call after another."""

    def fused_chain(chain: str, x: Any, *operands: Any, **arguments: Any) -> Any:
        arrays = dict(zip(operands_of(chain), operands, strict=True))
        for stage, own, named in in_stages(chain, arrays, arguments):
            y = blocks[stage.block](x, *own.values(), **named)
            x = y[0] if stage.block == "batch_norm" else y
        return x

    return fused_chain


def in_stages(chain: str, arrays: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[tuple[Stage, Any, Any]]:
    """Yield each stage, its operands but x, and its arguments, by the block's names."""
    for stage in stages(chain):
        own = {name: arrays.get(of_chain) for of_chain, name in stage.operands.items()}
        yield stage, own, {name: arguments[n] for n, name in stage.arguments.items() if n in arguments}

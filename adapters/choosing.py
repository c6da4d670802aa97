"""Which functions and classes of a file are judged, and as what."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nnspec.adapters import chains, fixed_sizes, networks, optimisers, problems
from nnspec.adapters.blocks import block_of
from nnspec.adapters.calling import in_page_order, paired, vjp_in_page_order
from nnspec.adapters.claims import required
from nnspec.adapters.names import PAGELESS
from nnspec.adapters.signatures import CANONICAL, SIGNATURES, VJPS
from nnspec.adapters.subject import SubjectError


@dataclass(frozen=True)
class Source:
    """Where something that is judged comes from: names of the user's file, and an expression of them."""

    names: tuple[str, ...]
    expression: str = "{}"

    def lines(self, name: str, thing: Any, names: Mapping[str, Any], run: str | None) -> str:
        """Return the lines of a script that define `name`; `run` are those that run the file, None without a file."""
        if run is not None:
            text = self.expression.format(*(f"subject[{own!r}]" for own in self.names))
            return f"{run}\n{name} = {text}"
        module = getattr(names[self.names[0]], "__module__", None)
        known = module != "__main__" and all(_is_in(module, own, names[own]) for own in self.names)
        if not known and not all(own.isidentifier() for own in self.names):
            return f"# define {name} here: {', '.join(self.names)}"
        lines = f"from {module} import {', '.join(self.names)}" if known else f"# define {', '.join(self.names)} here"
        text = self.expression.format(*self.names)
        return lines if text == name else f"{lines}\n{name} = {text}"


def _is_in(module: str | None, name: str, thing: Any) -> bool:
    """Whether a script can import a thing from a module by a name: an instance has the module of its class."""
    return getattr(sys.modules.get(module or ""), name, None) is thing


FUSED = str(SIGNATURES["fused"].function)
Chosen = tuple[dict[str, Any], dict[str, Source]]


def choose(title: str, names: Mapping[str, Any], only: str = "", role: str = "") -> Chosen:
    """Return what is judged, by nnspec's names, and where each comes from: all that is known, or `only` one name.

    `role` is the block, or the name of it, as which that one is judged: without a name, the class of a problem.
    Raises SubjectError where nothing is found.
    """
    if not role and (declared := block_of(names.get(only))) is not None:
        role = declared.stem
    if not role and only == fixed_sizes.STEM and inspect.isroutine(names.get(only)):
        role = fixed_sizes.STEM
    if role and not only and not (only := problems.name_in(names)):
        raise SubjectError(f"--as {role}: say which name it is about, as in {title}:MyName")
    if role:
        if not callable(names.get(only)):
            raise SubjectError(f"{title}: no {only!r} to judge as {role}")
        return _with_vjps(*_as(title, names, only, role), names)
    found: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for name in sorted(CANONICAL):
        if callable(names.get(name)):
            found[name], sources[name] = names[name], Source((name,))
        elif callable(names.get(f"{name}_forward")) and callable(names.get(f"{name}_backward")):
            _add_pair(found, sources, name, names, f"{name}_forward", f"{name}_backward")
    _add_factory(found, sources, names)
    _add_declared(title, found, sources, names)
    _add_networks(title, found, sources, names)
    _add_optimiser(found, sources, names)
    if only and only not in found:
        if callable(names.get(only)):
            raise SubjectError(f"{title}: {_unknown(only)}")
        known = f"it has {', '.join(found)}" if found else "it has none of nnspec's names"
        raise SubjectError(f"{title}: no {only!r} to check; {known} (nnspec list shows the names that are known)")
    if not found:
        raise SubjectError(f"{title}: none of the names that nnspec checks, {_nearest(names)} (see nnspec list)")
    if only:
        chosen = {name: thing for name, thing in found.items() if name in (only, f"{only}_vjp")}
        found, sources = chosen, {name: sources[name] for name in chosen}
    return _with_vjps(found, sources, names)


def _as(title: str, names: Mapping[str, Any], only: str, role: str) -> Chosen:
    """Return one function or class as the block that the user named."""
    thing, found, sources = names[only], dict[str, Any](), dict[str, Source]()
    if chains.SEPARATOR in role:
        return _as_chain(title, names, only, role)
    if role not in SIGNATURES:  # a name, such as BatchNorm1d
        if role[0].isupper() is not inspect.isclass(thing):
            raise SubjectError(
                f"{title}: {only} is a {'class' if inspect.isclass(thing) else 'function'}; {role} is not"
            )
        return {role: thing}, {role: Source((only,))}
    signature = SIGNATURES[role]
    if inspect.isclass(thing):
        told = [name for name in signature.classes if name[-2:].lower() in only.lower()]  # BatchNorm1d or BatchNorm2d
        chosen = (told or signature.classes) if role == "batch_norm" else signature.classes[:1]
        if not chosen:
            raise SubjectError(f"{title}: {only} is a class, and {role} has no form as a class")
        return {name: thing for name in chosen}, {name: Source((only,)) for name in chosen}
    if role == fixed_sizes.STEM:
        name = signature.classes[0]
        found[name], sources[name] = _built(only, names)
        return found, sources
    if signature.function is None:
        raise SubjectError(f"{title}: {only} is not a class, and {role} has no form as a function")
    backward = only.replace("forward", "backward")
    if backward != only and callable(names.get(backward)):
        _add_pair(found, sources, signature.function, names, only, backward)
        return found, sources
    return {signature.function: thing}, {signature.function: Source((only,))}


def _as_chain(title: str, names: Mapping[str, Any], only: str, chain: str) -> Chosen:
    """Return one function, and the vjp beside it, as the chain of blocks that the user named.

    A class comes back as it is, and its source says the chain: see `chained_classes`.
    """
    if inspect.isclass(names[only]):
        chains.stages(chain)  # raises for what is no chain; its entries are found with a framework
        return {FUSED: names[only]}, {FUSED: Source((only,), chain)}
    made = {FUSED: (only, chains.adapted(names[only], chain))}
    if callable(vjp := names.get(f"{only}_vjp")):
        made[f"{FUSED}_vjp"] = (f"{only}_vjp", chains.adapted_vjp(vjp, names[only], chain))
    found = {name: adapted.function for name, (_, adapted) in made.items()}
    return found, {name: Source((own,), adapted.text) for name, (own, adapted) in made.items()}


def _add_pair(
    found: dict[str, Any], sources: dict[str, Source], name: str, names: Mapping[str, Any], forward: str, backward: str
) -> None:
    """Add a function and its vjp, which two functions that pass a cache between them stand for."""
    found[name], found[f"{name}_vjp"] = paired(names[forward], names[backward])
    sources[name] = Source((forward, backward), "paired({}, {})[0]")
    sources[f"{name}_vjp"] = Source((forward, backward), "paired({}, {})[1]")


def _add_factory(found: dict[str, Any], sources: dict[str, Source], names: Mapping[str, Any]) -> None:
    """Add the class of a ResNet-34 for a function of the file that returns one: it takes sizes alone."""
    stem = fixed_sizes.STEM
    for own in (name := SIGNATURES[stem].classes[0], stem):
        thing = names.get(own)
        if not inspect.isfunction(thing) or inspect.isclass(found.get(name)):
            continue
        if thing.__module__ == names.get("__name__", thing.__module__) and required(thing) <= {*SIGNATURES[stem].sizes}:
            found[name], sources[name] = _built(own, names)


def _built(own: str, names: Mapping[str, Any]) -> tuple[Any, Source]:
    return fixed_sizes.built_by(names[own]), Source((own,), "built_by({})")


def _add_declared(title: str, found: dict[str, Any], sources: dict[str, Source], names: Mapping[str, Any]) -> None:
    """Add the functions that `@block` declares, which may have any name. They take precedence over known names."""
    declared: dict[str, str] = {}
    for own, thing in names.items():
        if (known := block_of(thing)) is None:
            continue
        name = str(SIGNATURES[known.stem].function)
        other = declared.setdefault(name, own)
        if names[other] is not thing:
            raise SubjectError(f"{title}: {other} and {own} are both declared as {known.stem}; say which, as in :{own}")
        found[name], sources[name] = names[other], Source((other,))


def _add_networks(title: str, found: dict[str, Any], sources: dict[str, Source], names: Mapping[str, Any]) -> None:
    """Add the classes that nnspec makes of `init` and `apply`, but for those that the file itself defines."""
    if not networks.are_offered(names):
        return
    blocks = names.get("NETWORKS", networks.BLOCKS)
    if not isinstance(blocks, tuple | list | set) or not set(blocks) <= set(networks.BLOCKS):
        raise SubjectError(f"{title}: NETWORKS = {blocks!r}: expected some of {', '.join(networks.BLOCKS)}")
    functions = {name: names[name] for name in networks.FUNCTIONS if callable(names.get(name))}
    _add_made(found, sources, networks.networks_of, functions, blocks=blocks)


def _add_optimiser(found: dict[str, Any], sources: dict[str, Source], names: Mapping[str, Any]) -> None:
    """Add the class that nnspec makes of `sgd_init` and `sgd_update`, and those that it is judged with."""
    if optimisers.are_offered(names) and "SGD" not in found:
        functions = {name: names[name] for name in optimisers.FUNCTIONS}
        _add_made(found, sources, optimisers.optimiser_of, functions)


def _add_made(
    found: dict[str, Any],
    sources: dict[str, Source],
    make: Callable[..., Mapping[str, type]],
    functions: dict[str, Any],
    **choices: Any,
) -> None:
    """Add classes that nnspec makes of functions of a file, but for those that the file itself defines."""
    given = ", ".join(f"{name}={{}}" for name in functions)
    for name, cls in make(**functions, **choices).items():
        if name not in found:
            found[name], sources[name] = cls, Source(tuple(functions), f"{make.__name__}({given})[{name!r}]")


def _with_vjps(found: dict[str, Any], sources: dict[str, Source], names: Mapping[str, Any]) -> Chosen:
    """Add the vjps that stand beside the functions found."""
    for name, source in list(sources.items()):
        for of in ("_vjp", "_vjp_vjp"):
            if (
                f"{name}{of}" in VJPS
                and f"{name}{of}" not in found
                and callable(names.get(own := source.names[0] + of))
            ):
                found[f"{name}{of}"], sources[f"{name}{of}"] = names[own], Source((own,))
    return found, sources


def functions_of(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the functions, each taking its operands as its page writes them, and how a script makes each so."""
    functions, sources = {}, {}
    for stem, signature in SIGNATURES.items():
        function = found.get(signature.function or "")
        if function is None:
            continue
        name = str(signature.function)
        declared_as = block_of(function)
        if declared_as is None:
            functions[name], sources[name] = in_page_order(function, stem, name)
        else:  # `@block` has done it
            functions[name], sources[name] = function, name
        for vjp, twice in ((f"{name}_vjp", False), (f"{name}_vjp_vjp", True)):
            if vjp not in found:
                continue
            if declared_as is None:
                functions[vjp], sources[vjp] = vjp_in_page_order(found[vjp], function, stem, vjp, twice)
            else:
                functions[vjp] = declared_as.vjp(found[vjp], twice)
                sources[vjp] = f"{name}.nnspec_block.vjp({vjp}, {twice})"
    return functions, sources


def _unknown(name: str) -> str:
    """Return the message for a function or class whose name nnspec does not know."""
    if name in PAGELESS:
        return f"there is no page for {name}; the blocks are {', '.join(SIGNATURES)}"
    known = {canonical.lower(): canonical for canonical in sorted(CANONICAL)}
    close = difflib.get_close_matches(name.lower(), known, 1, 0.6)
    stem = next(
        (s for s, one in SIGNATURES.items() if close and known[close[0]] in (one.function, *one.classes)), "BLOCK"
    )
    return f"{name!r} is not a name that nnspec knows; say --as {stem} (blocks: {', '.join(SIGNATURES)})"


def _nearest(names: Mapping[str, Any]) -> str:
    """Return the name that was probably meant, or some known names, as the end of a message."""
    known = {canonical.lower(): canonical for canonical in sorted(CANONICAL)}
    for name, value in names.items():
        close = difflib.get_close_matches(name.lower(), known, 1, 0.85) if name not in PAGELESS else []
        if callable(value) and close:
            return f"though {name!r} is close to {known[close[0]]!r}"
    pageless = sorted(name for name, value in names.items() if name in PAGELESS and callable(value))
    if pageless:
        return f"and there is no page for {', '.join(pageless)}; the blocks are {', '.join(SIGNATURES)}"
    return "such as conv2d, Conv2d, batch_norm, BatchNorm2d"

"""Load a subject: an adapter, a file, a module or an object."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import os
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nnspec.adapters import chained_classes, fixed_sizes, problems, projections
from nnspec.adapters.blame import told
from nnspec.adapters.blocks import claims
from nnspec.adapters.calling import from_scratch, is_from_scratch
from nnspec.adapters.choosing import FUSED, Chosen, Source, choose, functions_of
from nnspec.adapters.contract import Adapter
from nnspec.adapters.declarations import declared
from nnspec.adapters.detecting import adapter_class, adapter_of, detect, for_files, is_of, made
from nnspec.adapters.for_answers import answers_subject
from nnspec.adapters.for_isolated import isolated_subject
from nnspec.adapters.for_process import program_subject
from nnspec.adapters.names import ISOLATED, PROGRAM, adapters, is_asked, parts, plausible
from nnspec.adapters.networks import Network
from nnspec.adapters.objects import Objects
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject, SubjectError
from nnspec.adapters.trying import Watch, at_once

AdapterFor = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Adapter]  # title, what is judged, all names


def load(
    spec: Any,
    framework: str | None = None,
    device: str | None = None,
    watch: Watch = at_once,
    block: str | None = None,
    profile: str = "quick",
) -> Subject:
    """Load a subject: an adapter's name, a file, a module, a name in it ("layers.py:MyConv --as conv2d"), or an object.

    Or a program, "process:./my_conv", which is started, the answers in a folder, "answers:vectors", or a file that a
    process of its own loads, "isolated:layers.py".

    An object is a module, a mapping of names, a function or a class; a `block` says as what the last two are judged.

    Loading a file runs it. On a `device` ("cuda", "cuda:1", "gpu"), if one is named, the library then makes its arrays
    and modules. `watch` makes the calls by which it is found out on which library's arrays a file works. `profile`
    tells the adapter how thorough the run is. Raises SubjectError, whose message says what is wrong, where nothing can
    be checked.
    """

    def adapter_for(title: str, found: Mapping[str, Any], names: Mapping[str, Any]) -> Adapter:
        return adapter_of(framework, profile) if framework else detect(title, found, names, watch, profile)

    name = str(spec) if isinstance(spec, str | Path) else ""
    if is_asked(name):
        return _asked(name, framework, device)
    for adapter in for_files().values():
        adapter.prepare(profile)
    if name in adapters() and hasattr(adapter_class(name), "subject"):
        subject = made(name, profile).subject()
    else:
        subject = _loaded(spec, block, adapter_for, watch)
    return subject if device is None else _on_device(subject, device)


def _asked(name: str, framework: str | None, device: str | None) -> Subject:
    if message := plausible(name):
        raise SubjectError(message)
    if name.startswith(ISOLATED):
        return isolated_subject(name, framework, device)
    if framework is not None:
        raise SubjectError(f"framework {framework!r}: {name} gets arrays of no framework")
    subject = program_subject(name) if name.startswith(PROGRAM) else answers_subject(name)
    return subject if device is None else _on_device(subject, device)


def _on_device(subject: Subject, device: str) -> Subject:
    use = getattr(subject.framework, "use_device", None)
    if use is None:
        raise SubjectError(f"device {device!r}: {subject.name} works on arrays that have no device")
    try:
        weaker = use(device)
    except RuntimeError as error:
        raise SubjectError(f"device {device!r}: {str(error).splitlines()[0]}") from None
    of_block = {
        stem: {**own, "accuracy": _joined(own["accuracy"], weaker)} if "accuracy" in own else own
        for stem, own in subject.of_block.items()
    }
    return replace(subject, device=device, accuracy=_joined(subject.accuracy, weaker), of_block=of_block)


def _joined(some: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*some, *more)))


def _loaded(spec: Any, block: str | None, adapter_for: AdapterFor, watch: Watch) -> Subject:
    if isinstance(spec, Subject):
        return spec
    if not isinstance(spec, str | Path):
        return _from_object(spec, block, adapter_for, watch)
    name = str(spec)
    if message := plausible(name):
        raise SubjectError(message)
    where, only, role = parts(name)
    if not where.endswith(".py"):
        return _from_module(name, where, only, role, adapter_for, watch)
    return _from_file(name, Path(where), only, role, adapter_for, watch)


def _from_file(title: str, path: Path, only: str, role: str, adapter_for: AdapterFor, watch: Watch) -> Subject:
    file, inside = path.resolve(), _package(path)  # before it runs: it may change the working directory
    names = vars(_run(path))
    run = f"sys.path.append({str(file.parent)!r})\nsubject = runpy.run_path({str(file)!r})"
    if inside:
        folder, module = inside
        run = f"sys.path.append({folder!r})\nsubject = vars(importlib.import_module({module!r}))"
    found, sources = choose(str(path), names, only, role)
    return _subject(title, found, names, sources, run, adapter_for, watch)


def _from_module(title: str, name: str, only: str, role: str, adapter_for: AdapterFor, watch: Watch) -> Subject:
    folder = os.getcwd()
    names = vars(_imported(name, None, lambda: _import(folder, name)))
    run = f"sys.path.append({folder!r})\nsubject = vars(importlib.import_module({name!r}))"
    found, sources = choose(name, names, only, role)
    return _subject(title, found, names, sources, run, adapter_for, watch)


def _import(folder: str, name: str) -> types.ModuleType:
    """Import a module, also from a folder that is not yet on the path. The folder comes last, so that it hides none."""
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def _package(path: Path) -> tuple[str, str] | None:
    """Return the folder and dotted name by which a file with relative imports is imported; None for any other file."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):
        return None
    depth = max((node.level for node in nodes if isinstance(node, ast.ImportFrom)), default=0)
    if not depth:
        return None
    file = path.resolve()
    folders = list(itertools.takewhile(lambda folder: (folder / "__init__.py").exists(), file.parents))
    folders = list(file.parents)[: max(depth, len(folders))]
    return str(folders[-1].parent), ".".join([*(folder.name for folder in reversed(folders)), file.stem])


def _run(path: Path) -> types.ModuleType:
    file = path.resolve()
    if inside := _package(path):
        return _imported(str(path), file, lambda: _import(*inside))
    name = f"nnspec_subject_{path.stem}" if _is_taken(path) else path.stem
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    loader = spec.loader
    assert loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(file.parent)
    if folder not in sys.path:  # a file may import its neighbours, also in a call; one named random.py hides no other
        sys.path.append(folder)
    sys.modules[name] = module

    def run() -> types.ModuleType:
        loader.exec_module(module)
        return module

    try:
        return _imported(str(path), file, run)
    except SubjectError:
        del sys.modules[name]
        raise


def _imported(shown: str, path: Path | None, run: Callable[[], types.ModuleType]) -> types.ModuleType:
    """Import a user's module. Raises SubjectError with a sentence for whatever goes wrong."""
    try:
        return run()
    except KeyboardInterrupt:
        raise
    except SyntaxError as error:
        where = f" (line {error.lineno})" if error.lineno else ""
        file = error.filename or shown
        own = path is not None and Path(file).resolve() == path
        message = f"{shown if own else file}: not valid Python: {error.msg}{where}"
    except ModuleNotFoundError as error:
        if path is None and f"{shown}.".startswith(f"{error.name}."):
            raise SubjectError(f"{shown}: there is no module {error.name!r}") from None
        message = f"{shown}: imports {error.name!r}, which is not installed here ({_where(path, error)})"
    except SystemExit as error:
        message = f"{shown}: calls sys.exit({error.code!r}) while it is imported ({_where(path, error)})"
    except BaseException as error:
        message = f"{shown}: raises {told(error)} while it is imported ({_where(path, error)})"
    raise SubjectError(message)


def _is_taken(path: Path) -> bool:
    """Whether another module that may be imported has the name of this file."""
    if path.stem in sys.modules or path.stem in sys.stdlib_module_names:
        return True
    try:
        found = importlib.util.find_spec(path.stem)
    except (ImportError, ValueError):  # no name of a module
        return False
    return found is not None and found.origin != str(path.resolve())


def _where(path: Path | None, error: BaseException) -> str:
    file = str(path.resolve()) if path else ""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f"line {lines[-1]}" if lines else "in a file that it imports"


def _from_object(thing: Any, block: str | None, adapter_for: AdapterFor, watch: Watch) -> Subject:
    role, only = "", ""
    if isinstance(thing, types.ModuleType):
        names, title = vars(thing), thing.__name__
    elif isinstance(thing, Mapping):
        names, title = dict(thing), "a mapping"
    elif callable(thing):
        title = getattr(thing, "__name__", f"an instance of {type(thing).__name__}")
        names, role = {title: thing}, block or ""
        only = title if role else ""
    else:
        names, title = {n: getattr(thing, n) for n in dir(thing)}, f"an instance of {type(thing).__name__}"
    found, sources = choose(title, names, only, role)
    return _subject(title, found, names, sources, None, adapter_for, watch)


def _subject(
    title: str,
    found: Mapping[str, Any],
    names: Mapping[str, Any],
    sources: Mapping[str, Source],
    run: str | None,
    adapter_for: AdapterFor,
    watch: Watch,
) -> Subject:
    """Return the subject of these functions and classes. `run`: the lines of a script that run the file."""
    adapter = adapter_for(title, found, names)
    as_chain = _as_chain(title, found, names, sources, adapter, watch)
    found, sources = {**found, **as_chain[0]}, {**sources, **as_chain[1]}
    functions, written = functions_of(found)
    classes = {name: cls for name, cls in found.items() if inspect.isclass(cls)}
    own_modules = getattr(type(adapter), "construct", None) is not Objects.construct
    if own_modules and any(issubclass(cls, Network) for cls in classes.values()):
        raise SubjectError(f"{title}: init and apply: {adapter.name} takes modules of its own classes alone")
    if not any(is_of(adapter, cls) for cls in classes.values()):  # such classes are called as the framework calls them
        classes, layered = _callable_classes(classes)
        written |= layered
    # a class that the user judges as a block, beside the inputs of a problem
    of_problem = {n: classes.pop(n) for n in [*classes] if problems.are_offered(names) and sources[n].names[0] != n}
    made = problems.adapted(title, of_problem, names, adapter, watch)
    classes |= {name: adapted.made for name, adapted in made.items()}
    written |= {name: f"of_problem({written.get(name, name)}, {one.arguments})" for name, one in made.items()}

    given, as_given = _with_projections(classes, adapter)
    classes, written = {**classes, **given}, {**written, **as_given}
    declares = _declared(names, title, functions)
    shown = fixed_sizes.shown(classes, declares["domains"], adapter, watch)
    classes, written, declares["domains"] = {**classes, **shown.classes}, {**written, **shown.written}, shown.domains
    lent = _lent(classes, adapter)
    classes |= {name: cls for name, (cls, _) in lent.items()}

    def recipe(name: str) -> str:
        if name in lent:
            return lent[name][1]
        lines, made = sources[name].lines(name, found[name], names, run), written.get(name, name)
        if made == name:
            return lines
        others = [recipe(other) for other in re.findall(r"\w+", made) if other in sources and other != name]
        return "\n".join([*others, lines, f"{name} = {made}"])

    if as_chain[0]:  # operands become entries of a module, through which nothing comes back
        declares["of_block"]["fused"] = {"differentiable": False}
    if given:
        declares["unsupported"] = {**projections.UNSUPPORTED, **declares.get("unsupported", {})}
    declares = problems.declared_too(made.values(), declares)
    return Subject.of(
        adapter,
        name=title,
        functions=functions,
        classes=classes,
        versions={"numpy": np.__version__} | adapter.versions(),
        recipe=recipe,
        **declares,
    )


def _declared(names: Mapping[str, Any], title: str, functions: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file declares, by itself and for its functions by `@block`."""
    declares, of_functions = declared(names, title), claims(functions.values())
    declares["differs"] = {**declares["differs"], **of_functions["differs"]}
    declares["domains"] = {**declares.get("domains", {}), **of_functions["domains"]}
    if (chain := getattr(functions.get(FUSED), "nnspec_domain", None)) is not None:
        declares["domains"] = {**declares["domains"], chain.stem: chain}
    for stem, own in of_functions["of_block"].items():
        declares["of_block"][stem] = {**declares["of_block"].get(stem, {}), **own}
    return declares


def _with_projections(classes: Mapping[str, Any], adapter: Adapter) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the residual blocks that take their projection, each with one, and how a script gives it."""
    if not hasattr(adapter, "projection"):
        return {}, {}
    taken = projections.are_given(classes)
    made = {n: projections.with_projection(classes[n], by, adapter.projection) for n, by in taken.items()}
    return made, {n: f"with_projection({n}, {by!r}, lambda *a: projection(*a))" for n, by in taken.items()}


def _lent(classes: Mapping[str, Any], adapter: Adapter) -> dict[str, tuple[type, str]]:
    """Return the classes that a file's are judged with where it has none of them, each with its line in a script.

    An optimiser needs both a Parameter and a Module, and a Sequential the layers that it lacks.
    """
    found: dict[str, tuple[type, str]] = {}
    if "SGD" in classes and not classes.keys() & {"Parameter", "Module"} and hasattr(adapter, "beside_optimisers"):
        found |= adapter.beside_optimisers()
    if "Sequential" in classes and hasattr(adapter, "beside_sequences"):
        found |= {name: lent for name, lent in adapter.beside_sequences().items() if name not in classes}
    return found


def _as_chain(
    title: str,
    found: Mapping[str, Any],
    names: Mapping[str, Any],
    sources: Mapping[str, Source],
    adapter: Adapter,
    watch: Watch,
) -> Chosen:
    """Return the class that the user judges as a chain, if there is one, as a function of the specification's."""
    if not inspect.isclass(cls := found.get(FUSED)):
        return {}, {}
    source = sources[FUSED]
    one = chained_classes.adapted(title, cls, source.expression, names, adapter, watch)
    one.function.nnspec_domain = one.domain  # type: ignore[attr-defined]
    return {FUSED: one.function}, {FUSED: Source(source.names, one.text)}


def _callable_classes(classes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the classes, with those that have `forward` and `backward` adapted, and how a script adapts them."""
    layers = {name for signature in SIGNATURES.values() if signature.operands for name in signature.classes}
    chosen = [name for name, cls in classes.items() if name in layers and is_from_scratch(cls)]
    adapted = {name: from_scratch(classes[name]) for name in chosen}
    return {**classes, **adapted}, {name: f"from_scratch({name})" for name in chosen}

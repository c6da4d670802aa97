"""From what a user names to a Subject: a framework, a file, a module or an object."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nnspec.adapters.names import NAMED, plausible
from nnspec.adapters.signatures import CANONICAL
from nnspec.adapters.subject import Framework, Subject, SubjectError

FRAMEWORKS = {"numpy": "for_numpy", "torch": "for_torch"}


def load(spec: Any, framework: str | None = None) -> Subject:
    """ "torch", "reference", "layers.py", "layers.py:Conv2d", a module, a mapping of names, a function or a class.

    Loading a file runs it. Raises SubjectError, whose message says what is wrong, where nothing can be checked.
    """
    if isinstance(spec, Subject):
        return spec
    if not isinstance(spec, str | Path):
        return _from_object(spec, framework)
    name = str(spec)
    if name in NAMED:
        return _named(name)
    if message := plausible(name):
        raise SubjectError(message)
    path, _, only = name.partition(":")
    return _from_file(Path(path), only, framework)


def _named(name: str) -> Subject:
    try:
        return importlib.import_module(f"nnspec.adapters.for_{name}").subject()
    except ModuleNotFoundError as error:
        raise SubjectError(f"subject {name!r} needs the package {error.name!r}: pip install 'nnspec[{name}]'") from None


def _from_file(path: Path, only: str, framework: str | None) -> Subject:
    namespace = _run(path.resolve())
    names = vars(namespace)
    found = {n: names[n] for n in sorted(CANONICAL) if callable(names.get(n))}
    if only and only not in found:
        known = f"it has {', '.join(found)}" if found else "it has none of nnspec's names"
        raise SubjectError(f"{path}: no {only!r} to check; {known} (nnspec list shows the names that are known)")
    if not found:
        raise SubjectError(f"{path}: none of the names that nnspec checks, such as {_some_names()} (see nnspec list)")
    chosen = {only: found[only]} if only else found

    def recipe(name: str) -> str:
        whole = path.resolve()
        return f"sys.path.insert(0, {str(whole.parent)!r})\n{name} = runpy.run_path({str(whole)!r})[{name!r}]"

    return _subject(str(path) + (f":{only}" if only else ""), chosen, framework, names, recipe)


def _run(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # a file may import its neighbours
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise SubjectError(f"{path}: not valid Python: {error.msg} (line {error.lineno})") from None
    except ModuleNotFoundError as error:
        raise SubjectError(
            f"{path}: imports {error.name!r}, which is not installed here ({_where(path, error)})"
        ) from None
    except SystemExit as error:
        raise SubjectError(
            f"{path}: calls sys.exit({error.code!r}) while it is imported ({_where(path, error)})"
        ) from None
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise SubjectError(f"{path}: raises {message} while it is imported ({_where(path, error)})") from None
    finally:
        sys.path.remove(str(path.parent))
    return module


def _where(path: Path, error: BaseException) -> str:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"line {lines[-1]}" if lines else "in a file that it imports"


def _from_object(thing: Any, framework: str | None) -> Subject:
    if isinstance(thing, types.ModuleType):
        names, title = vars(thing), thing.__name__
    elif isinstance(thing, Mapping):
        names, title = dict(thing), "a mapping"
    elif callable(thing):
        names, title = {getattr(thing, "__name__", ""): thing}, getattr(thing, "__name__", repr(thing))
    else:
        names, title = {n: getattr(thing, n) for n in dir(thing)}, repr(thing)
    found = {n: names[n] for n in sorted(CANONICAL) if callable(names.get(n))}
    if not found:
        raise SubjectError(f"{title}: none of the names that nnspec checks, such as {_some_names()} (see nnspec list)")

    def recipe(name: str) -> str:
        module = getattr(found[name], "__module__", None)
        return f"from {module} import {name}" if module != "__main__" else f"# define {name} here"

    return _subject(title, found, framework, names, recipe)


def _some_names() -> str:
    return "conv2d, Conv2d, batch_norm, BatchNorm2d"


def _subject(
    title: str, found: Mapping[str, Any], framework: str | None, names: Mapping[str, Any], recipe: Any
) -> Subject:
    kind = framework or _detect(title, found, names)
    if kind not in FRAMEWORKS:
        raise SubjectError(f"framework {kind!r}: expected one of {', '.join(FRAMEWORKS)}")
    arrays: Framework = importlib.import_module(f"nnspec.adapters.{FRAMEWORKS[kind]}")
    classes = {n: c for n, c in found.items() if inspect.isclass(c)}
    versions = {"numpy": np.__version__} | ({"torch": str(sys.modules["torch"].__version__)} if kind == "torch" else {})
    return Subject(
        name=title,
        framework=arrays,
        functions={n: f for n, f in found.items() if n not in classes},
        classes=classes,
        dtypes=tuple(names.get("DTYPES", ("float32", "float64"))),
        versions=versions,
        recipe=recipe,
    )


def _detect(title: str, found: Mapping[str, Any], names: Mapping[str, Any]) -> str:
    """torch where the classes are torch modules, or the file has imported it; otherwise numpy."""
    if "torch" not in sys.modules:
        return "numpy"
    torch = sys.modules["torch"]
    modules = {
        n: issubclass(c, torch.nn.Module)
        for n, c in found.items()
        if inspect.isclass(c) and n not in ("Parameter", "SGD")
    }
    if any(modules.values()) and not all(modules.values()):
        mixed = ", ".join(n for n, is_torch in modules.items() if not is_torch)
        raise SubjectError(
            f"{title}: some classes are torch modules and some are not ({mixed}); "
            "say --framework torch or --framework numpy"
        )
    if modules:
        return "torch" if all(modules.values()) else "numpy"
    imported = any(v is torch or getattr(v, "__name__", "").startswith("torch.") for v in names.values())
    return "torch" if imported or _annotated(found) else "numpy"


def _annotated(found: Mapping[str, Any]) -> bool:
    return any("torch" in str(a) for f in found.values() for a in getattr(f, "__annotations__", {}).values())

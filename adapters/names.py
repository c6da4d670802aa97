"""Which names stand for subjects, told without importing any of them."""

import functools
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

GROUP = "nnspec.adapters"  # the group of entry points in which an adapter registers its class


@functools.cache
def adapters() -> dict[str, EntryPoint]:
    """Return name -> entry point, of the adapters of all installed packages."""
    found = sorted(entry_points(group=GROUP), key=lambda entry: (bool(entry.extras), entry.name))
    if not found:  # the sources are newer than what was installed
        raise RuntimeError("no adapter is registered: install nnspec again (pip install --no-deps -e .)")
    return {entry.name: entry for entry in found}


def extra_of(name: str) -> str:
    """Return how to install what an adapter needs, "pip install 'nnspec[…]'"; "" where it needs nothing."""
    entry = adapters()[name]
    package = entry.dist.name if entry.dist else "nnspec"
    return f"pip install '{package}[{','.join(entry.extras)}]'" if entry.extras else ""


# Blocks of other libraries that people ask for. Those that no page describes have a message of their own.
PAGELESS = frozenset({
    "AdaptiveAvgPool2d", "Adam", "AdamW", "BatchNorm3d", "Bilinear", "Conv1d", "Conv3d", "ConvTranspose1d",
    "ConvTranspose3d", "CrossEntropyLoss", "Dropout", "Dropout2d", "Embedding", "GELU", "GRU", "GroupNorm",
    "InstanceNorm1d", "InstanceNorm2d", "LSTM", "LayerNorm", "LeakyReLU", "MaxPool1d", "AvgPool1d",
    "MultiheadAttention", "RMSNorm", "RNN", "SiLU", "Sigmoid", "Softmax", "Tanh", "Transformer", "attention",
    "conv1d", "conv3d", "cross_entropy", "dropout", "embedding", "gelu", "group_norm", "instance_norm",
    "layer_norm", "leaky_relu", "log_softmax", "rms_norm", "sigmoid", "silu", "softmax", "tanh",
})  # fmt: skip


def parts(subject: str) -> tuple[str, str, str]:
    """The file or module, the one name in it, and what it is judged as, of "layers.py:MyConv2d --as conv2d"."""
    base, _, role = subject.partition(" --as ")
    where, _, only = base.partition(":")
    return where, only, role.strip()


# how a subject begins that is not imported here: a program, whose command follows, answers in a folder, and a file that
# another process imports
PROGRAM, ANSWERS, ISOLATED = "process:", "answers:", "isolated:"


def is_asked(subject: str) -> bool:
    """Whether a subject is a program, a folder of answers (see spec/protocol.md and spec/vectors.md), or isolated."""
    return subject.startswith((PROGRAM, ANSWERS, ISOLATED))


def isolated(subject: str) -> str:
    """The file or module that another process imports."""
    return subject.removeprefix(ISOLATED)


def command_of(subject: str) -> list[str]:
    """The words of a program's command, as a shell splits them. Raises ValueError where a quotation does not end."""
    import shlex

    return shlex.split(subject.removeprefix(PROGRAM))


def folder_of(subject: str) -> str:
    """The folder with vectors and answers that a subject is."""
    return subject.removeprefix(ANSWERS)


def files_of(subject: str) -> list[str]:
    """The files of a program (those that its command names), of answers, or an isolated file; none of others."""
    if subject.startswith(ANSWERS):
        folder = Path(folder_of(subject))
        return [str(path.resolve()) for path in sorted((folder / "manifest.json", *folder.glob("answers/*")))]
    if subject.startswith(ISOLATED):
        file = parts(isolated(subject))[0]
        return [os.path.abspath(file)] if os.path.isfile(file) else []
    if not subject.startswith(PROGRAM):
        return []
    first, *rest = command_of(subject)
    return [os.path.abspath(path) for path in (_found(first) or first, *rest) if os.path.isfile(path)]


def _found(program: str) -> str | None:
    import shutil  # not for every command: it takes long to import

    return shutil.which(program)


def _not_a_program(subject: str) -> str | None:
    try:
        command = command_of(subject)
    except ValueError as error:
        return f"{subject}: {error}".rstrip(".").lower()
    if not command:
        return "--process: expected a command, such as './my_conv'"
    if _found(command[0]):
        return None
    why = "it is not executable" if os.path.isfile(command[0]) else "there is no such program"
    return f"{subject}: cannot be started: {why}"


def _not_asked(subject: str) -> str | None:
    if subject.startswith(PROGRAM):
        return _not_a_program(subject)
    if subject.startswith(ISOLATED):
        return plausible(isolated(subject))
    path = Path(folder_of(subject), "manifest.json")
    return None if path.is_file() else f"{path}: there is no such file; nnspec export writes it"


def plausible(subject: str) -> str | None:
    """Why a subject cannot be what the user meant; None where it may be."""
    if is_asked(subject):
        return _not_asked(subject)
    where, _, role = parts(subject)
    if role and (message := _not_a_role(role)):
        return message
    if subject in adapters():
        return None
    if where.endswith(".py"):
        return None if Path(where).is_file() else f"{where}: there is no such file"
    if _importable(where):
        return None
    return (
        f"subject {subject!r}: expected {', '.join(adapters())}, or a file such as my_layers.py or "
        "my_layers.py:Conv2d, or a module that can be imported, such as my_package.layers:Conv2d"
    )


def _not_a_role(role: str) -> str | None:
    from nnspec.adapters.chains import SEPARATOR, stages
    from nnspec.adapters.claims import SubjectError
    from nnspec.adapters.signatures import CANONICAL, SIGNATURES

    if SEPARATOR in role:
        try:
            stages(role)
        except SubjectError as error:
            return str(error)
        return None
    if role in CANONICAL or role in SIGNATURES:
        return None
    return f"--as {role}: there is no page for this block; the blocks are {', '.join(SIGNATURES)}"


def _importable(name: str) -> bool:
    """Whether there is a module of this name, also in the working directory; nothing is imported for that."""
    first, *_ = names = name.split(".")
    if not all(part.isidentifier() for part in names):
        return False
    try:
        if importlib.util.find_spec(first) is not None:
            return True
        return importlib.machinery.PathFinder.find_spec(first, [os.getcwd()]) is not None
    except (ImportError, ValueError, OSError):
        return first in sys.modules


DTYPES = ("float32", "float64", "float16", "bfloat16")  # that nnspec has a rule for; NumPy knows the last by ml_dtypes
LONG = DTYPES[:2]  # those of more than 16 bits
WEAKER = ("B2", "T", "L", "C", "N")  # classes of accuracy that a file may declare, see spec/numerics.md


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, as the middle of a sentence; nothing where none is close."""
    import difflib  # for a message alone

    close = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f", did you mean {close[0]!r}" if close else ""

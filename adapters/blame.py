"""Whose failure an exception is: the subject's code runs inside `theirs`, and no other code does.

What the subject's code raises there becomes `Raised`, and what it returns and nobody can judge becomes `Unusable`: both
are results that a check judges. Any other exception is a failure of nnspec or of an adapter, and ends the check.
"""

from __future__ import annotations

import functools
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np
from nnspec.adapters.names import DTYPES

LARGEST = 2**30  # bytes of an array that is copied and judged; a broadcast view of a few bytes can have 2⁴⁰ elements
LONGEST = 300  # characters of an exception's text that are told
OWN_MISTAKES = (AttributeError, ImportError, NameError)  # that an adapter's own line makes, whatever the subject is
# the methods of an adapter that run the subject's code
CALLING = (
    "construct", "load_entries", "state", "held", "set_training", "backward", "by_own_vjp", "by_own_vjp_vjp",
    "differentiate", "differentiate_again", "push_forward_twice", "differentiate_module",
    "differentiate_part", "follows", "set_rate",
)  # fmt: skip


class Unsupported(Exception):
    """Raise it in a subject for a call that it does not claim to do; the case is counted and shown, not failed."""


class Lacks(Unsupported):
    """Raised by nnspec where the subject has no such class, argument, member, dtype, form or backward pass.

    Such a lack excuses the requirement. A plain `Unsupported` only declines a case.
    """


class KnownDefect(Unsupported):
    """A call that is not made, because a defect of the framework itself would end the process."""


class OutOfDomain(Unsupported):
    """A call that is not made, because it lies outside the domain that the subject declares."""


class Raised(Exception):
    """The subject's code raised `error`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class Unusable(Exception):
    """The subject returned something other than an array of numbers; the message says what it returned."""


class Ended(Unusable):
    """The program that computes the subject's results ended in the call, or had to be ended: it must start anew."""

    def __init__(self, message: str, verdict: str) -> None:
        super().__init__(message)
        self.verdict = verdict


def told(error: BaseException) -> str:
    """Return the name and first line of an exception, whose text is the subject's: it may raise, or never end."""
    try:
        text = str(error)[:LONGEST].strip().splitlines()
    except BaseException as failed:
        text = [f"(its text cannot be had: {type(failed).__name__})"]
    line = text[0].encode("utf-8", "backslashreplace").decode() if text else ""
    return f"{type(error).__name__}{': ' + line if line else ''}"


class theirs:  # lower case, since it reads as a statement: with theirs(): …
    """Run the subject's code: what it raises becomes Raised, except for Unsupported and a Ctrl-C of the user.

    `adapter` is the framework whose function makes the call, where one stands in between: its own mistakes pass. What
    the code has set for tracing, or for NumPy's floating-point errors, ends with it.
    """

    __slots__ = ("adapter", "before")

    def __init__(self, adapter: Any = None) -> None:
        self.adapter = adapter

    def __enter__(self) -> None:
        self.before = sys.gettrace(), sys.getprofile(), np.errstate()
        self.before[2].__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        tracing, profiling, errors = self.before
        if sys.getprofile() is not profiling:
            sys.setprofile(profiling)
        if sys.gettrace() is not tracing:
            sys.settrace(tracing)
        errors.__exit__(kind, error, trace)
        if error is None or isinstance(error, Unsupported | Raised | Unusable):
            return
        if isinstance(error, KeyboardInterrupt) and _Interrupts.arrived:
            return
        if not _is_own(error, self.adapter):
            raise Raised(error) from None
        error.nnspec_own = True  # type: ignore[attr-defined]  # also where another `theirs` stands around this one


def _is_own(error: BaseException, adapter: Any) -> bool:
    """Return whether an adapter made the mistake: it converted an array, or a line of its own raised."""
    if getattr(error, "nnspec_own", False):
        return True
    functions, libraries = _functions(type(adapter)), {"numpy", *getattr(adapter, "packages", ())}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    methods = [functions.get(frame.f_code) for frame in frames]
    if "to_native" in methods:
        return True
    while (
        len(frames) > 1
        and frames[-1].f_code.co_name == "__getattr__"
        and _top(frames[-1].f_globals["__name__"]) in libraries
    ):
        frames.pop()  # of a module such as numpy, which says by itself that it has no such attribute
    if frames[-1].f_code not in functions:
        return False
    if isinstance(error, KeyError):  # how an adapter says that a module has no such entry
        return "load_entries" in methods
    if isinstance(error, AttributeError) and error.name is not None:  # the subject's own objects may lack one
        return isinstance(error.obj, ModuleType) or _top(type(error.obj).__module__) in libraries
    return isinstance(error, OWN_MISTAKES)


def _functions(adapter: type) -> dict[CodeType, str]:
    """Return the functions that an adapter's class consists of, with what it inherits."""
    methods = (item for cls in reversed(adapter.__mro__) for item in vars(cls).items())
    return {function.__code__: name for name, function in methods if isinstance(function, FunctionType)}


def _top(module: str) -> str:
    return module.partition(".")[0]


class Watched:
    """An adapter as a check uses it: the same methods, and each failure is the subject's or the adapter's."""

    def __init__(self, framework: Any) -> None:
        self.framework = framework

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.framework, name)
        return functools.partial(self._calling, value) if name in CALLING else value

    def _calling(self, function: Callable[..., Any], *given: Any, **keywords: Any) -> Any:
        with theirs(self.framework):
            return function(*given, **keywords)

    def to_native(self, array: np.ndarray) -> Any:
        """Return the framework's own array. No code of the subject runs, so that a failure is not the subject's."""
        try:
            return self.framework.to_native(array)
        except BaseException as error:
            error.nnspec_own = True  # type: ignore[attr-defined]
            raise

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return the subject's result as a NumPy array. Unusable for anything but an array of numbers."""
        try:
            array = self.framework.to_numpy(value)
        except TypeError as error:  # how an adapter says that this is none of its arrays
            raise Unusable(str(error)) from None
        except OWN_MISTAKES:
            raise
        except Exception as error:  # a tensor without data, say
            raise Unusable(f"returned {type(value).__name__} that cannot be read ({type(error).__name__})") from None
        return usable(array)

    def state(self, module: Any) -> dict[str, np.ndarray]:
        """Return key -> copy, of the module's parameters and saved buffers. Unusable if one is no array of numbers."""
        return {key: usable(array) for key, array in self._calling(self.framework.state, module).items()}

    def read(self, module: Any, key: str) -> np.ndarray:
        """Return a copy of one entry of the module. KeyError if it is absent; Unusable if it is no array of numbers."""
        return usable(self._calling(self.framework.read, module, key))


@functools.cache
def watched(framework: Any) -> Watched:
    """Return the framework as a check uses it: the same object each time, so that equal subjects stay equal."""
    return framework if isinstance(framework, Watched) else Watched(framework)


def usable(array: np.ndarray) -> np.ndarray:
    """Return the array itself. Unusable if its elements are no numbers, or if it is too large to be copied."""
    if array.dtype.kind not in "biufc" and array.dtype.name not in DTYPES:
        raise Unusable(f"returned an array of dtype {str(array.dtype)[:80]}")
    if array.nbytes > LARGEST:
        raise Unusable(f"returned an array of shape {array.shape}, too large to be judged")
    return array


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


class _Interrupts:
    arrived = False  # whether SIGINT has been delivered to this process


@contextmanager
def noting_interrupts() -> Iterator[None]:
    """Tell a Ctrl-C, which arrives as a signal, from a KeyboardInterrupt that the subject raises by itself."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # no signal can raise it here
        return

    def note(number: int, frame: FrameType | None) -> Any:
        _Interrupts.arrived = True
        return before(number, frame)

    _Interrupts.arrived = False
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

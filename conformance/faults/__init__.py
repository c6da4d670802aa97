"""Known-wrong implementations, each named after the requirement that it breaks. They measure what the checks can see.

A fault is the reference with one piece replaced: functions and classes by canonical name.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import operator
import pkgutil
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

import numpy as np
from nnspec.adapters.domains import read_domains
from nnspec.adapters.for_reference import subject as reference_subject
from nnspec.adapters.narrowing import narrowed
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject
from nnspec.adapters.views import whole_of
from nnspec.conformance.case import Array, as_pair
from nnspec.conformance.requirements import block_of, requirements
from nnspec.reference.module import Buffer, Parameter
from nnspec.reference.relu import relu


@dataclass(frozen=True)
class Fault:
    """`key` is requirement/what-was-done; `mistake` says it in a sentence.

    `sizes` is the regime of sizes that shows it, and `domain` the one that it declares.
    """

    key: str
    mistake: str
    pieces: dict[str, Any]
    sizes: str = "small"
    domain: Mapping[str, Any] = field(default_factory=dict)
    narrowed: bool = False  # whether it is asked, as a user's file is, what it shows not to take

    @property
    def requirement(self) -> str:
        """The requirement that it breaks, and whose check must kill it."""
        return self.key.partition("/")[0]

    @property
    def stem(self) -> str:
        """The block that it is a mistake in."""
        return block_of(self.key)

    @property
    def decides(self) -> bool:
        """Whether it is a mistake in what a *must* says."""
        return requirements()[self.requirement].level == "must"

    @property
    def fix(self) -> str:
        """What the code must do instead: the requirement's sentence, or what is asked of every kernel."""
        if self.sizes != "small":
            return "A size may be larger than a block, and need not be a multiple of one."
        return requirements()[self.requirement].sentence

    @property
    def origin(self) -> str:
        """Bugs of real libraries that it emulates, as repository#issue; else a mistake seen in public code, or none."""
        known = origins()
        issues = [issue for issue, faults in known["issues"].items() if self.key in faults]
        mistakes = [mistake for mistake, faults in known["mistakes"].items() if self.key in faults]
        return ", ".join(issues) or "; ".join(f"seen in public code: {mistake}" for mistake in mistakes)

    def subject(self) -> Subject:
        """The reference with the wrong piece in place, and nothing beside it of the same block."""
        reference = reference_subject()
        functions = {n: f for n, f in self.pieces.items() if not isinstance(f, type)}
        whose = [n.partition("_vjp")[0] for n in functions if n.endswith("_vjp")]  # the gradient is wrong, not these
        functions |= {n: reference.functions[n] for n in whose if n not in functions}
        classes = {n: c for n, c in self.pieces.items() if isinstance(c, type)}
        if SIGNATURES[self.stem].members:  # its checks build networks of other classes
            classes = {**reference.classes, **classes}
        domains = read_domains({self.stem: self.domain}) if self.domain else {}
        made = replace(reference, name=self.key, functions=functions, classes=classes, domains=domains)
        return narrowed(made, [self.stem]) if self.narrowed else made


FAULTS: dict[str, Fault] = {}


def fault(
    key: str,
    mistake: str,
    sizes: str = "small",
    *,
    domain: Mapping[str, Any] | None = None,
    narrowed: bool = False,
    **pieces: Any,
) -> None:
    """Add a fault to the catalogue, perhaps one that declares a domain, or shows one."""
    if key in FAULTS:
        raise ValueError(f"{key}: a second fault of that name")
    FAULTS[key] = Fault(key, mistake, pieces, sizes, domain or {}, narrowed)


def wrong(key: str, mistake: str) -> Callable[[Any], Any]:
    """Decorate a wrong function or class that bears the canonical name."""

    def add(piece: Any) -> Any:
        fault(key, mistake, **{piece.__name__: piece})
        return piece

    return add


def as_if_contiguous(a: Array) -> Array:
    """Return the elements in the order in which they lie in memory, as a fault that ignores strides reads them."""
    order = sorted(range(a.ndim), key=lambda axis: -abs(a.strides[axis]))
    return a.transpose(order).reshape(a.shape)


def in_kept_memory(function: Callable[..., Array]) -> Callable[..., Array]:
    """Make a function that returns all results of one shape and dtype in the same memory."""
    kept: dict[object, Array] = {}

    def reused(*operands: Any, **arguments: Any) -> Array:
        y = function(*operands, **arguments)
        store = kept.setdefault((y.shape, y.dtype), y)
        store[...] = y
        return store

    return reused


def keyed_without(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Make a pool keep its programs by the shape and all arguments but one."""
    kept: dict[object, dict[str, Any]] = {}

    def cached(x: Array, **arguments: Any) -> Any:
        key = (x.shape, x.dtype, *((n, v) for n, v in arguments.items() if n != name))
        try:
            return function(x, **kept.setdefault(key, arguments))
        except ValueError:
            return function(x, **arguments)

    return cached


def register_left(neighbour: Callable[..., Any], function: Callable[..., Any]) -> tuple[Any, Any]:
    """Make two functions of different blocks share a register: after a call of the first, one of the second is wrong.

    Calls after that are right again, so that one check is not spoilt by another one.
    """
    register: list[None] = []

    @functools.wraps(neighbour)
    def sets(*operands: Any, **arguments: Any) -> Any:
        register.append(None)
        return neighbour(*operands, **arguments)

    @functools.wraps(function)
    def reads(*operands: Any, **arguments: Any) -> Any:
        y = function(*operands, **arguments)
        if not register:
            return y
        register.clear()
        return (y[0] + 1, *y[1:]) if isinstance(y, tuple) else y + np.ones((), y.dtype)

    return sets, reads


def disturbed_by_relu(key: str, **piece: Callable[..., Any]) -> None:
    """Add the fault of a function that is wrong after a call of relu."""
    ((name, function),) = piece.items()
    before, after = register_left(relu, function)
    fault(key, "a register that relu leaves set changes the next result", relu=before, **{name: after})


def behind(x: Array) -> Array:
    """Return the element behind an array's last, as one that can be written; nothing where its memory ends there."""
    whole = whole_of(x)
    first = (x.__array_interface__["data"][0] - whole.__array_interface__["data"][0]) // x.itemsize
    last = first + sum(stride * (size - 1) for stride, size in zip(x.strides, x.shape, strict=True)) // x.itemsize
    there: Array = whole.reshape(-1)[last + 1 : last + 2]
    return there if x.size and x.dtype == whole.dtype else there[:0]


def _reads_behind(x: Array, y: Array) -> Array:
    y = np.array(y)
    for value in behind(x)[: y.size]:
        y[(-1,) * y.ndim] += value
    return y


def _writes_behind(x: Array, y: Array) -> Array:
    behind(x)[...] = 0
    return y


def leaves_last(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function reserve the memory of its result first, and write all elements but the last."""
    known: dict[object, tuple[tuple[int, ...], Any]] = {}  # what was asked for -> shape and dtype of the result

    @functools.wraps(function)
    def unwritten(*given: Any, **named: Any) -> Any:
        key = (*(a.shape if isinstance(a, np.ndarray) else str(a) for a in given), *sorted(named.items()))
        reserved = np.empty(*known[key]) if key in known else None
        results = function(*given, **named)
        y = results[0] if isinstance(results, tuple) else results
        known[key] = y.shape, y.dtype
        stored = np.empty(y.shape, y.dtype) if reserved is None or reserved.dtype != y.dtype else reserved
        stored.reshape(-1)[: y.size - 1] = y.reshape(-1)[:-1]
        return (stored, *results[1:]) if isinstance(results, tuple) else stored

    return unwritten


def _drops_last_if_misaligned(x: Array, y: Array) -> Array:
    if x.__array_interface__["data"][0] % 16 and y.size:
        y = np.array(y)
        y[(-1,) * y.ndim] = 0
    return y


def _told_of_input(spoil: Callable[[Array, Array], Array]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what makes a function change its result as `spoil` says of the first operand and the first result."""

    def change(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def spoilt(*given: Any, **named: Any) -> Any:
            y = function(*given, **named)
            x = next(a for a in given if isinstance(a, np.ndarray))
            return (spoil(x, y[0]), *y[1:]) if isinstance(y, tuple) else spoil(x, y)

        return spoilt

    return change


def mistakes_in_memory(stem: str, piece: Any) -> None:
    """Add what kernels do wrong with memory, as faults of a function or of a class's `forward`."""
    reads, writes, drops = map(_told_of_input, (_reads_behind, _writes_behind, _drops_last_if_misaligned))
    for key, mistake, change in (
        ("in-bounds/reads-on", "the element behind the input's last is added to the last sum", reads),
        ("in-bounds/writes-on", "a 0 is written behind the last element of the input", writes),
        ("all-written/last", "the last element of the result is not written", leaves_last),
        ("alignment/last", "at an address that 16 does not divide, the last element is 0", drops),
    ):
        if isinstance(piece, type):
            forward: Any = vars(piece)["forward"]
            wrong_piece: Any = type(piece.__name__, (piece,), {"forward": change(forward)})
        else:
            wrong_piece = change(piece)
        fault(f"{stem}.memory.{key}", mistake, **{piece.__name__: wrong_piece})


def onto_input(y: Array, x: Array) -> Array:
    """Return the result in the memory of the input, if both have the same shape."""
    if y.shape != x.shape:
        return y
    np.copyto(x, y)
    return x


def beginning(key: str, mistake: str, cls: Any) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Decorate what a fault does to a new module of a class of the reference."""

    def add(change: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(cls.__init__)
        def begin(layer: Any, *sizes: Any, **named: Any) -> None:
            cls.__init__(layer, *sizes, **named)
            change(layer)

        fault(key, mistake, **{cls.__name__: type(cls.__name__, (cls,), {"__init__": begin})})
        return change

    return add


def redrawn(change: Callable[[Array], Any], *names: str) -> Callable[[Any], None]:
    """Return what gives entries of a new module other values, each derived from the right ones."""

    def redraw(layer: Any) -> None:
        for name in names:
            array = operator.attrgetter(name)(layer).data
            array[...] = change(array)

    return redraw


def first_two_sizes(cls: Any) -> Any:
    """Return a convolution's class that ignores all sizes of a kernel but the first two."""

    class Fault(cls):
        def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, *more: Any, **named: Any) -> None:
            super().__init__(in_channels, out_channels, as_pair(kernel_size)[:2], *more, **named)

    return type(cls.__name__, (Fault,), {})


def keeps_batch(function: Callable[..., Array]) -> Callable[..., Array]:
    """Make a function answer an image without its batch with a batch of one."""
    return lambda x, *operands, **named: function(x[None] if x.ndim == 3 else x, *operands, **named)


def changes_lone_image(function: Callable[..., Array], change: Callable[[Array], Array]) -> Callable[..., Array]:
    """Make a function change an image without its batch, which comes to `change` as a batch of one."""

    def called(x: Array, *operands: Any, **named: Any) -> Array:
        lone = x.ndim == 3
        y = function(change(x[None]) if lone else x, *operands, **named)
        return y[0] if lone else y

    return called


def add_parameter(layer: Any) -> None:
    """Add a parameter that nothing uses."""
    layer.scale = Parameter(np.ones(2, np.float32))


def add_buffer(layer: Any) -> None:
    """Add a count that nothing uses."""
    layer.calls = Buffer(np.array(0))


def save_input(layer: Any) -> None:
    """Keep the last input in a buffer."""
    forward = layer.forward

    def saving(x: Array) -> Array:
        layer.last = Buffer(x)
        y: Array = forward(x)
        return y

    layer.forward = saving


def make_bias_a_buffer(layer: Any) -> None:
    """Register the bias as a buffer, which no optimiser moves."""
    if layer.bias is not None:
        bias = layer.bias.data
        del layer.bias
        layer.bias = Buffer(bias)


def stopped_by(frozen: str, stopped: str = "") -> Callable[[Any], None]:
    """Return what makes a frozen entry of a new module stop the gradient of x, or that of another entry."""

    def change(layer: Any) -> None:
        vjp = layer.vjp

        def through(x: Array) -> tuple[Array, Callable[[Array], Array]]:
            y, pull = vjp(x)

            def pulled(cotangent: Array) -> Array:
                entry = operator.attrgetter(frozen)(layer)
                stops = entry is not None and not entry.requires_grad
                if stops and stopped:
                    operator.attrgetter(stopped)(layer).requires_grad = False
                dx: Array = pull(cotangent)
                return dx * 0 if stops and not stopped else dx

            return y, pulled

        layer.vjp = through

    return change


def one_array_for_each_shape(name: str) -> Callable[[Any], None]:
    """Return what gives an entry of a new module the array that the first module of its shape has."""
    known: dict[tuple[int, ...], Array] = {}

    def change(layer: Any) -> None:
        entry = operator.attrgetter(name)(layer)
        if entry is not None:
            entry.data = known.setdefault((*entry.data.shape, entry.data.dtype.name), entry.data)

    return change


@functools.cache
def origins() -> dict[str, dict[str, Any]]:
    """What origins.toml says: where the faults come from."""
    return tomllib.loads(resources.files(__name__).joinpath("origins.toml").read_text("utf-8"))


@functools.cache
def measured(stem: str) -> dict[str, dict[str, Any]]:
    """Return what `benchmarks/quality/measure_faults.py` wrote of each fault of a block.

    `breaks` lists the requirements of the block that the fault breaks, without the name of the block, and with a `!` if
    a shape is wrong; the list is empty for a fault in a *should*. `cases` has, for each seed, the number of cases until
    the fault's own check failed, and None if the fault survived. Seeds that have not been measured are absent.
    """
    file = resources.files(__name__).joinpath(f"{stem}.json")
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}


@functools.cache
def measured_kernels() -> dict[str, dict[str, list[int | None]]]:
    """Return what `benchmarks/quality/measure_kernels.py` wrote of each fault of a kernel.

    For each setting, a profile and sizes such as "ci boundary", it has the number of cases until the fault's
    own check failed, seed by seed, and None if the fault survived.
    """
    file = resources.files(__name__).joinpath("kernels", "measured.json")
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}


@functools.cache
def broken_by_faults() -> dict[str, list[str]]:
    """Return the measured requirements that each fault in a *must* breaks."""
    return {key: entry["breaks"] for stem in SIGNATURES for key, entry in measured(stem).items() if entry["breaks"]}


@functools.cache
def catalogue(sizes: str = "small") -> dict[str, Fault]:
    """Every fault of every block that cases of these sizes are to show.

    Small ones show the mistakes of the specification, all larger ones those of kernels, which the folder `kernels` has.
    """
    package = __name__ if sizes == "small" else f"{__name__}.kernels"
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if not module.ispkg:
            importlib.import_module(f"{package}.{module.name}")
    return {key: fault for key, fault in FAULTS.items() if (fault.sizes == "small") == (sizes == "small")}


def fault_named(key: str) -> Fault:
    """Return the fault of a key. Raises KeyError if there is none."""
    return catalogue().get(key) or catalogue("boundary")[key]


def anew(stem: str) -> dict[str, Fault]:
    """Return a block's faults as they are before their first call: their file is run again, as some remember calls."""
    spec = importlib.util.find_spec(f"{__name__}.{stem}")
    assert spec is not None
    assert spec.loader is not None
    known = dict(FAULTS)
    FAULTS.clear()
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return dict(FAULTS)
    finally:
        FAULTS.clear()
        FAULTS.update(known)

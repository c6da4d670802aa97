"""Find the roles of a module's entries: which of its parameters and buffers is the page's `weight`, which its `bias`, …

An entry that has the page's name has that role. The others are found on a small module of the same class: by shape, in
networks by the order in which the layers run, and else by the order of registration. Of the assignments that these
allow, the first counts under which the module computes what the reference computes.

A linear layer may hold its weight as (I, O): it is turned, so that all but the requirement about its shape is judged.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from nnspec.adapters.blame import Raised, Unusable, watched
from nnspec.adapters.calling import ALIASES, BATCH_NORM
from nnspec.adapters.objects import FAILED, Held, Shape, order_of
from nnspec.adapters.signatures import SIGNATURES

if TYPE_CHECKING:
    from nnspec.adapters.modules import Modules

TRIED = 1000  # entries that are loaded, over all assignments that are tried
NUMBERS = ("number", "int")
COUNT = "num_batches_tracked"
STATISTICS = ("running_mean", "running_var")
INPUTS, OUTPUTS = ("in_channels", "in_features", "num_features"), ("out_channels", "out_features", "num_classes")
Keys = dict[str, str]  # page key -> own key


Turn = Callable[[Any], Any]  # what exchanges rows and columns, of an array or in Python text


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Roles:
    """Which entries of a class have a role on the page."""

    keys: Mapping[str, str]  # page key -> the class's own key, which may be the path of an attribute
    absent: tuple[str, ...] = ()  # page keys that nothing is found for
    turned: frozenset[str] = frozenset()  # page keys of matrices whose rows are columns in the class

    @property
    def renamed(self) -> bool:
        """Whether some entry has another key than the page's."""
        return any(page != own for page, own in self.keys.items())

    def own(self, entries: Mapping[str, Any], turn: Turn = _as_it_is) -> dict[str, Any]:
        """Return entries under the class's own keys. A key that has no role stays as it is.

        `turn` is applied to those whose rows are columns in the class.
        """
        return {self.keys.get(k, k): turn(value) if k in self.turned else value for k, value in entries.items()}

    def page(self, entries: Mapping[str, Any], turn: Turn = _as_it_is) -> dict[str, Any]:
        """Return entries under the page's keys, as `own` does. An entry that has no role keeps its own key."""
        names = {own: page for page, own in self.keys.items()}
        named = {names.get(key, key): value for key, value in entries.items()}
        return {key: turn(value) if key in self.turned else value for key, value in named.items()}

    def renaming(self, mapping: str) -> str:
        """Python text for what `page` gives for a mapping, itself Python text."""
        if not self.renamed and not self.turned:
            return mapping
        names, turned = {own: page for page, own in self.keys.items()}, {self.keys[page] for page in self.turned}
        value = f"v.T if n in {turned!r} else v" if turned else "v"
        return f"{{ {names!r}.get(n, n): {value} for n, v in {mapping}.items()}}"


def transposed(array: Any) -> Any:
    """Return a matrix of any library with rows and columns exchanged; None for None."""
    return None if array is None else array.T


def find_roles(subject: Modules, stem: str, cls: Any, page: Collection[str], module: Any = None) -> Roles:
    """Return the roles of a class's entries, for the page's keys. `module` is a new one, where there is one already."""
    framework: Any = watched(subject.framework)
    subject = replace(subject, framework=framework)
    counts = [_beside(key, COUNT) for key in page if key.endswith(STATISTICS[1])]
    alike = {key: key for key in (*page, *counts)}
    named_so = module is not None and has_all(subject, module, alike)
    if named_so and stem != "linear":
        return Roles(alike)
    try:
        probe = Probe.of(subject, stem, cls, page)
        if named_so:
            return Roles(alike, turned=probe.turned(alike))
    except FAILED:  # such a small one cannot be made: the names are all that can be gone by
        named = {key: key for key in alike if module is not None and has(subject, module, key)}
        return Roles(named, tuple(key for key in page if key not in named))
    keys = probe.keys()
    keys |= {count: own for count in counts if (own := probe.count(count, keys)) is not None}
    return Roles(keys, tuple(key for key in probe.arrays if key not in keys), probe.turned(keys))


def agree(result: np.ndarray, right: np.ndarray) -> bool:
    """Whether a result is what the reference computes, to half the digits: enough to tell what it was made of."""
    near = float(ml_dtypes.finfo(right.dtype).eps) ** 0.5 * np.abs(right).max()
    return result.shape == right.shape and bool(np.abs(result.astype(np.float64) - right).max() <= near)


def has_all(subject: Modules, module: Any, keys: Iterable[str]) -> bool:
    """Whether a module has an entry or an attribute of each key. The state is read once: that of a network is large."""
    try:
        state = subject.framework.state(module)
    except FAILED:
        state = {}
    return all(key in state or has(subject, module, key) for key in keys)


def has(subject: Modules, module: Any, key: str) -> bool:
    """Whether a module has an entry, or an attribute with an array, of this very key."""
    try:
        subject.framework.read(module, key)
    except (KeyError, Raised, Unusable):
        return False
    return True


def _beside(key: str, name: str) -> str:
    """Return the key of another entry of the same layer."""
    return key.removesuffix(key.rpartition(".")[2]) + name


# -- a small module, and the reference beside it -----------------------------------------------------------------------


@dataclass
class Probe:
    """A small module of a class, with arrays for it, and what the reference computes of them."""

    subject: Modules
    stem: str
    module: Any
    x: np.ndarray
    arrays: dict[str, np.ndarray]  # by page key
    call: tuple[Mapping[str, Any], Mapping[str, Any]]  # the same as operands of the block, with its arguments

    @classmethod
    def of(cls, subject: Modules, stem: str, made: Any, page: Collection[str]) -> Probe:
        """Return a module of the class `made` that should have these entries of the page."""
        dtype, rng = np.dtype(subject.dtypes[0]), np.random.default_rng(0)
        is_1d = made is subject.classes.get("BatchNorm1d") and made is not subject.classes.get("BatchNorm2d")
        domain = subject.domain(stem)
        numbers = [name for name in domain.fixed & {*SIGNATURES[stem].sizes} if domain.quantity(name).kind != "pair"]
        fixed = {name: domain.nearest(name, 1) for name in numbers}
        fixed |= getattr(made, "nnspec_fixed", {})  # of the class of a problem
        of_domain = (call for call in subject.typical.get(stem, ()) if all(call[0].get(key) for key in page))
        call: Any
        call, arguments = next(of_domain, ({}, SIGNATURES[stem].arguments))
        # in the order of the call: the constructor takes its sizes from it
        in_call = {key: shape for key, shape in call.items() if key in page}
        x_shape, shapes = (call["x"], in_call) if call else _shapes(stem, page, is_1d, fixed)
        # positive, so that no relu ends in zeros; and of about 1 after every layer, so that nothing overflows
        arrays = {k: (rng.uniform(0.5, 1.5, s) / math.prod(s[1:])).astype(dtype) for k, s in shapes.items()}
        x, absent = rng.uniform(0.5, 1.5, x_shape).astype(dtype), SIGNATURES[stem].operands[1:]
        operands = {"x": x, **dict.fromkeys(absent), **arrays}
        arguments = {name: fixed.get(name, value) for name, value in arguments.items()}
        positional, keywords, _ = subject.constructor(stem, operands, arguments)
        module = subject.framework.construct(made, positional, keywords, dtype)
        return cls(subject, stem, module, x, arrays, (operands, arguments))

    @functools.cached_property
    def right(self) -> np.ndarray:
        """What the reference computes."""
        from nnspec.adapters.for_reference import subject as reference

        return reference().call(self.stem, "class", *self.call)[0]

    def run(self, training: bool) -> np.ndarray:
        """Call the module; return its result."""
        self.subject.framework.set_training(self.module, training)
        return self.subject.called(self.module, [self.subject.framework.to_native(self.x.copy())])

    def keys(self) -> Keys:
        """Return the first of the possible assignments that agrees with the reference, else the first."""
        first: Keys | None = None
        for keys in itertools.islice(self.assignments(), max(2, TRIED // max(1, len(self.arrays)))):
            first = keys if first is None else first
            if self.agrees(keys):
                return keys
        return first or {}

    def agrees(self, keys: Keys) -> bool:
        """Whether the module computes what the reference computes, to half the digits; other roles change the first."""
        try:
            found = Roles(keys, turned=self.turned(keys))
            given = {page: self.arrays[page] for page in keys}
            self.subject.framework.load_entries(self.module, found.own(given, transposed))
            y = self.run(training=False)
        except FAILED:  # what the class does with wrong arrays, or always, is not judged here
            return False
        return agree(y, self.right)

    def turned(self, keys: Keys) -> frozenset[str]:
        """Return the page keys of the weights of linear layers that the class holds as (I, O)."""
        if self.stem not in ("linear", "mlp"):
            return frozenset()
        own = self.subject.framework.held(self.module)
        shapes = {page: own[key].shape for page, key in keys.items() if key in own}
        return frozenset(page for page, shape in shapes.items() if shape != self.arrays[page].shape == shape[::-1])

    def assignments(self) -> Iterator[Keys]:
        """Yield the assignments that shapes allow, the likely ones first."""
        own = self.subject.framework.held(self.module)
        shapes = {key: array.shape for key, array in self.arrays.items()}
        place = {owner: n for n, owner in enumerate(self.order(own))}
        own = dict(sorted(own.items(), key=lambda item: place.get(id(item[1].owner), len(place))))
        named = {key: key for key in shapes if key in own or has(self.subject, self.module, key)}
        others = {key: shape for key, shape in shapes.items() if key not in named}
        free = {key: held for key, held in own.items() if key not in named and held.kind not in NUMBERS}
        if not named and any("." in key for key in shapes):
            yield from by_layer(others, free)
        yield from (named | keys for keys in by_shape(others, free))

    def order(self, own: Mapping[str, Held]) -> list[int]:
        """Return the identities of the objects that hold arrays, in the order in which they run."""
        owners = {id(held.owner): held.owner for held in own.values()}
        if hasattr(self.subject.framework, "order"):
            return [id(owner) for owner in self.subject.framework.order(self.module, self.x, list(owners.values()))]
        return order_of(lambda: self.run(training=False), owners)

    def count(self, page: str, keys: Keys) -> str | None:
        """Return the own key of a norm's count of batches: the number beside its variance that training raises by 1."""
        variance = _beside(page, STATISTICS[1])
        if has(self.subject, self.module, page):
            return page
        if variance not in keys:
            return None
        own = self.subject.framework.held(self.module)
        layer = next((held.owner for key, held in own.items() if key == keys[variance]), None)
        numbers = [key for key, held in own.items() if held.kind in NUMBERS and held.owner is layer]
        read = functools.partial(self.subject.framework.read, self.module)
        before = {key: int(read(key)) for key in numbers}
        try:
            self.run(training=True)
        except FAILED:  # as above
            return None
        return next((key for key in numbers if int(read(key)) == before[key] + 1), None)


def _shapes(stem: str, page: Collection[str], is_1d: bool, fixed: Mapping[str, Any]) -> tuple[Shape, dict[str, Shape]]:
    """Return the shapes of x and of the entries. The sizes of a layer differ, so that shapes tell entries apart.

    `fixed` holds arguments of the constructor that the class has always.
    """
    o, c = (next((fixed[name] for name in names if name in fixed), n) for n, names in ((3, OUTPUTS), (2, INPUTS)))
    kernel, groups = fixed.get("kernel_size", (2, 2)), fixed.get("groups", 1)
    apart = np.broadcast_to(fixed.get("dilation", 1), 2).tolist()
    image = (2, c, *(max(5, d * (k - 1) + 1) for d, k in zip(apart, kernel, strict=True)))
    found: tuple[Shape, dict[str, Shape]]
    if stem == "linear":
        found = (4, c), {"weight": (o, c), "bias": (o,)}
    elif stem == "conv2d":
        found = image, {"weight": (o, c // groups, *kernel), "bias": (o,)}
    elif stem == "conv_transpose2d":
        found = image, {"weight": (c, o // groups, *kernel), "bias": (o,)}
    elif stem == "batch_norm":
        found = image[: 2 if is_1d else 4], {name: (c,) for name in ("weight", "bias", *STATISTICS)}
    elif stem == "mlp":
        weights = sum(key.endswith("weight") for key in page)
        sizes = [c, fixed["hidden_features"], o] if "hidden_features" in fixed else [c, *range(o, o + weights)]
        layers = {f"fc{n}": sizes[n - 1 : n + 1] for n in range(1, len(sizes))}
        found = (4, c), {f"{n}.{k}": s for n, (i, o) in layers.items() for k, s in (("weight", (o, i)), ("bias", (o,)))}
    elif stem == "basic_block":
        found = image, dict(_block("", c, o if "downsample.0.weight" in page else c))
    else:
        found = (1, c, 32, 32), dict(_resnet34(c, o))
    return found[0], {key: shape for key, shape in found[1].items() if key in page}


def _convolution(name: str, norm: str, shape: Shape) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", shape
    yield from ((f"{norm}.{key}", shape[:1]) for key in ("weight", "bias", *STATISTICS))


def _block(name: str, c: int, o: int) -> Iterator[tuple[str, Shape]]:
    yield from _convolution(f"{name}conv1", f"{name}bn1", (o, c, 3, 3))
    yield from _convolution(f"{name}conv2", f"{name}bn2", (o, o, 3, 3))
    if c != o:
        yield from _convolution(f"{name}downsample.0", f"{name}downsample.1", (o, c, 1, 1))


def _resnet34(in_channels: int, num_classes: int) -> Iterator[tuple[str, Shape]]:
    yield from _convolution("conv1", "bn1", (64, in_channels, 7, 7))
    c = 64
    for stage, (o, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for number in range(blocks):
            yield from _block(f"layer{stage}.{number}.", c, o)
            c = o
    yield from (("fc.weight", (num_classes, c)), ("fc.bias", (num_classes,)))


# -- assignments -------------------------------------------------------------------------------------------------------


def by_shape(shapes: Mapping[str, Shape], own: Mapping[str, Held]) -> Iterator[Keys]:
    """Assign to each page key an own key of its shape, in all ways; nothing, where there is none of that shape.

    Entries that bear a common name of the role come first, then parameters for parameters, in order of registration.
    """
    if not shapes:
        yield {}
        return
    (page, shape), *others = shapes.items()
    name, statistic = page.rpartition(".")[2], page.endswith(STATISTICS)
    fits = [key for key, held in own.items() if held.shape == shape]
    fits = fits or [key for key, held in own.items() if len(shape) == 2 and held.shape == shape[::-1]]
    fits = [key for key in fits if key.rpartition(".")[2] == name] or fits
    common = {*ALIASES.get(name, ()), *BATCH_NORM.get(name, ())}

    def unlikely(key: str) -> tuple[bool, bool]:
        last = key.rpartition(".")[2].lower().replace("_", "").rstrip("0123456789")
        return last not in common, (own[key].kind == "parameter") is statistic

    likely: list[str | None] = [*sorted(fits, key=unlikely)]
    for key in likely or [None]:
        rest = {k: held for k, held in own.items() if k != key}
        for further in by_shape(dict(others), rest):
            yield further if key is None else {page: key, **further}


def by_layer(shapes: Mapping[str, Shape], own: Mapping[str, Held]) -> Iterator[Keys]:
    """Assign whole layers, each to one that has arrays of its shapes; inside a layer as `by_shape` does.

    Layers that are alike go by their order, and a layer of vectors alone to the one that follows the same kernels.
    Layers of one class, whose entries have the same names, are assigned alike.
    """
    layers = _matched(_layers(shapes, lambda key: key.rpartition(".")[0]), _layers_of(own), shapes, own)
    if layers is None:
        return
    kinds: dict[Any, list[dict[int, int]]] = {}  # place of an entry in the page's layer -> place in the own one
    for page, keys in layers:
        if (kind := _kind(page, keys)) not in kinds:
            choices = by_shape({key: shapes[key] for key in page}, {key: own[key] for key in keys})
            choices = itertools.islice(choices, TRIED)
            kinds[kind] = [{page.index(p): keys.index(k) for p, k in choice.items()} for choice in choices]
    for chosen in itertools.product(*kinds.values()):
        places = dict(zip(kinds, chosen, strict=True))
        pairs = ((page, keys, places[_kind(page, keys)]) for page, keys in layers)
        yield {page[i]: keys[j] for page, keys, places in pairs for i, j in places.items()}


def _kind(page: Sequence[str], own: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the entry names of two layers; pairs of layers with equal names are assigned alike."""
    return tuple(key.rpartition(".")[2] for key in page), tuple(key.rpartition(".")[2] for key in own)


def _layers(keys: Iterable[str], layer: Callable[[str], Any]) -> list[list[str]]:
    return [list(group) for _, group in itertools.groupby(keys, layer)]


def _layers_of(own: Mapping[str, Held]) -> list[list[str]]:
    """Group the entries by the object that holds them; split an object with several kernels before each kernel."""
    found: list[list[str]] = []
    for keys in _layers(own, lambda key: id(own[key].owner)):
        layer: list[str] = []
        for key in keys:
            if len(own[key].shape) > 1 and any(len(own[k].shape) > 1 for k in layer):
                found.append(layer)
                layer = []
            layer = [*layer, key]
        found.append(layer)
    return found


def _matched(
    page: list[list[str]], own: list[list[str]], shapes: Mapping[str, Shape], held: Mapping[str, Held]
) -> list[tuple[list[str], list[str]]] | None:
    """Return for each of the page's layers one of the class's; None if a layer has no counterpart."""
    largest = [max((held[key].shape for key in layer), key=len) for layer in own]
    free, last, found = list(range(len(own))), -1, []
    for layer in page:
        shape = max((shapes[key] for key in layer), key=len)
        alike = [n for n in free if largest[n] == shape]
        after = [n for n in alike if n > last and len(shape) == 1]
        if not alike:
            return None
        last = (after or alike)[0]
        free.remove(last)
        found.append((layer, own[last]))
    return found

"""Classes as chains of blocks: a module whose entries the operands of the chain become, as they are or folded.

The constructor takes the sizes of the layers. Which entry has which role is found on a small module: by shape and by
name, and of the assignments that these allow, the one under which the module computes what is most like the reference.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from nnspec.adapters import objects, problems
from nnspec.adapters.blame import Raised, theirs, told, watched
from nnspec.adapters.calling import ALIASES, BATCH_NORM, plain
from nnspec.adapters.chains import Stage, arguments_of, named, normal, operands_of, stages
from nnspec.adapters.claims import SubjectError
from nnspec.adapters.conditions import one_of
from nnspec.adapters.contract import Adapter
from nnspec.adapters.domains import Domain
from nnspec.adapters.signatures import CHAIN
from nnspec.adapters.trying import Skipped, Watch

CARRIED = ("chained_class",)  # by scripts
# what the methods of an adapter are called by, in this process and in scripts
METHODS = ("construct", "load_entries", "set_training", "to_numpy")
LAYERS = ("conv2d", "conv_transpose2d", "linear")
Fold = tuple[str, str, int]  # a layer, its norm, and the axis of the layer's weight that the channels are
SIZES: dict[str, dict[str, tuple[int, ...]]] = {  # of a layer's weight: the constructor's names for its axes
    "conv2d": {"in_channels": (1,), "out_channels": (0,), "kernel_size": (2, 3)},
    "conv_transpose2d": {"in_channels": (0,), "out_channels": (1,), "kernel_size": (2, 3)},
    "linear": {"in_features": (1,), "out_features": (0,)},
}
SEARCHED: dict[str, tuple[Any, ...]] = {  # arguments that no parameter tells
    "stride": (1, 2, 3), "padding": (0, 1, 2), "dilation": (1, 2), "kernel_size": (1, 2, 3),
}  # fmt: skip
OF_ARRAYS = ("dtype", "device")  # parameters that the adapter gives
TRIED = 300  # calls of the small module
ALIKE = 1 - 1e-9  # a correlation beyond which no other assignment is tried
FAILED = (*objects.FAILED, Skipped, ValueError)
Own = Mapping[str, str]  # the name in the chain, or of a folded array -> the module's own key


class How(NamedTuple):
    """How a class takes a chain: what its constructor gets, and where the operands go."""

    sizes: Mapping[str, tuple[str, tuple[int, ...]]]  # parameter -> an operand, and the axes of which it is the size
    flags: Mapping[str, str]  # parameter -> the operand that it says is there
    named: Mapping[str, str]  # argument -> parameter
    values: Mapping[str, Any]  # parameter -> its value, always
    entries: Own
    folds: Sequence[Fold] = ()  # layers whose norm is folded into them


class Chained(NamedTuple):
    """A class as a function of a chain, how a script makes it of the user's, and the domain."""

    function: Callable[..., Any]
    text: str  # with {} for the user's class
    domain: Domain


def adapted(title: str, cls: type, chain: str, names: Mapping[str, Any], adapter: Adapter, watch: Watch) -> Chained:
    """Return a class as a function of a chain. Raises SubjectError where its sizes or its entries cannot be found."""
    search = Search(title, cls, chain, names, adapter, watch)
    how, fixed = search.best()
    given = ([*operands_of(chain)], tuple(how))
    methods = [functools.partial(_called, adapter, name) for name in METHODS]
    function = chained_class(cls, methods, *given)
    conditions = {CHAIN: one_of(normal(chain)), **{name: one_of(value) for name, value in fixed.items()}}
    own = ", ".join(map(repr, given)).replace("{", "{{").replace("}", "}}")
    text = f"chained_class({{}}, [{', '.join(f'lambda *a: {name}(*a)' for name in METHODS)}], {own})"
    absent = {name: one_of(False) for name in search.absent(how)}
    return Chained(function, text, Domain("fused", {**conditions, **absent}))


def _called(adapter: Any, name: str, *given: Any) -> Any:
    return getattr(adapter, name)(*given)


def _wanted(steps: Sequence[Stage], every: Mapping[str, Stage]) -> Iterator[tuple[list[str], tuple[Fold, ...]]]:
    """Yield the operands that a class may have: all, those without a folded norm, and each without some biases."""
    folds = tuple(
        (layer.name, norm.name, 1 if layer.block == "conv_transpose2d" else 0)
        for layer, norm in itertools.pairwise(steps)
        if layer.block in LAYERS and norm.block == "batch_norm"
    )
    norms = {norm for _, norm, _ in folds}
    kinds: list[tuple[list[str], tuple[Fold, ...]]] = [([*every], ())]
    kinds += [([n for n, stage in every.items() if stage.name not in norms], folds)] if folds else []
    for wanted, how in kinds:
        layers = [n for n in wanted if n.endswith("_bias") and every[n].block in LAYERS]
        for left in itertools.product((False, True), repeat=len(layers)):
            out = {name for name, gone in zip(layers, left, strict=True) if gone}
            if not out & {f"{layer}_bias" for layer, _, _ in how}:
                yield [name for name in wanted if name not in out], how


def chained_class(cls: Any, methods: Sequence[Callable[..., Any]], order: Sequence[str], how: Sequence[Any]) -> Any:
    """Return a function of a chain that builds a module of a class, loads the operands, and calls it in evaluation."""
    construct, load_entries, set_training, to_numpy = methods
    sizes, flags, named, values, entries, folds = how

    def fused_chain(chain: str, x: Any, *operands: Any, **arguments: Any) -> Any:
        arrays: dict[str, Any] = {
            n: None if a is None else np.array(to_numpy(a)) for n, a in zip(order, operands, strict=True)
        }
        keywords = {**values, **{named[n]: value for n, value in arguments.items() if n in named}}
        for parameter, (operand, axes) in sizes.items():
            keywords[parameter] = _size(arrays[operand].shape, axes)
        keywords |= {parameter: arrays[operand] is not None for parameter, operand in flags.items()}
        module = construct(cls, (), keywords, np.dtype(to_numpy(x).dtype))
        loaded = _loaded(arrays, folds, arguments)
        there = (n for n in entries if arrays[n] is not None or n not in flags.values())
        load_entries(module, {entries[n]: loaded[n] for n in there})
        set_training(module, False)
        return module(x) if callable(module) else module.forward(x)

    fused_chain.__wrapped__ = cls  # type: ignore[attr-defined]
    return fused_chain


def _size(shape: Sequence[int], axes: Sequence[int]) -> Any:
    """Return what a constructor takes as the size of some axes: one number where all are equal."""
    size = tuple(shape[axis] for axis in axes)
    return size if len({*size}) > 1 else size[0]


def _loaded(
    arrays: Mapping[str, Any], folds: Sequence[tuple[str, str, int]], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arrays by name, of which folded ones take the place of a layer's. An absent operand is neutral."""
    found = dict(arrays)
    for layer, norm, axis in folds:
        weight, bias = found[f"{layer}_weight"], found[f"{layer}_bias"]
        given = (found[f"{norm}_{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        mean, var, gamma, beta = (a if a is None else a.astype(np.float64) for a in given)
        assert mean is not None
        with np.errstate(all="ignore"):
            scale = (1.0 if gamma is None else gamma) / np.sqrt(var + arguments.get(f"{norm}_eps", 1e-5))
            centred = (0.0 if bias is None else bias.astype(np.float64)) - mean
            shift = centred * scale + (0.0 if beta is None else beta)
            along = scale.reshape([-1 if n == axis else 1 for n in range(weight.ndim)])
            folded = {f"{layer}_weight": weight * along, f"{layer}_bias": shift}
        found |= {name: value.astype(weight.dtype) for name, value in folded.items()}
    for name, array in arrays.items():
        like = found.get(name.replace("weight", "running_mean").replace("bias", "running_mean"))
        if array is None and found[name] is None and like is not None:  # of a norm
            found[name] = np.ones_like(like) if name.endswith("weight") else np.zeros_like(like)
        elif array is None and found[name] is None and name.endswith("_bias"):
            weight = found[name.replace("bias", "weight")]
            outputs = weight.shape[1 if "transpose" in name else 0]
            found[name] = np.zeros(outputs, weight.dtype)
    return found


class Search:
    """The search for how a class takes a chain, on a small module."""

    def __init__(
        self, title: str, cls: type, chain: str, names: Mapping[str, Any], adapter: Adapter, watch: Watch
    ) -> None:
        self.title, self.cls, self.chain, self.adapter, self.watch = title, cls, chain, watched(adapter), watch
        self.steps = stages(chain)
        self.given = problems.given(title, cls, names)
        self.sizes, self.flags, self.named = self._parameters()
        self.arrays = self._example()

    def _parameters(self) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, str], dict[str, str]]:
        """Return which parameters of the constructor take sizes, say whether there is an operand, and take arguments.

        By name; parameters with other names take the other sizes, in order, if there are as many.
        """
        parameters = [n for n in inspect.signature(self.cls).parameters if n not in OF_ARRAYS]
        sizes: dict[str, tuple[str, str, tuple[int, ...]]] = {}  # name in the chain -> the block's, operand, axes
        for stage in self.steps:
            for size, axes in SIZES.get(stage.block, {}).items():
                sizes[f"{stage.name}_{size}"] = (size, f"{stage.name}_weight", axes)
            if stage.block == "batch_norm":
                sizes[f"{stage.name}_num_features"] = ("num_features", f"{stage.name}_running_mean", (0,))
        options = {name: own for stage in self.steps for name, own in stage.arguments.items()}
        flags = {name: own for stage in self.steps for name, own in stage.operands.items() if own == "bias"}
        arguments = named(parameters, options, {})
        found = named([p for p in parameters if p not in arguments.values()], {n: s[0] for n, s in sizes.items()}, {})
        said = named([p for p in parameters if p == "bias" or p in flags], flags, {})
        left = [p for p in parameters if p not in {*arguments.values(), *found.values(), *said.values()}]
        others = [name for name in sizes if name not in found and not name.endswith("num_features")]
        if len(left) == len(others):
            found |= dict(zip(others, left, strict=True))
        missing = [name for name in others if name not in found]
        if missing:
            takes = f"{self.cls.__name__} takes {', '.join(parameters) or 'nothing'}"
            raise SubjectError(f"{self.title}: {takes}; expected a parameter for {missing[0]}")
        return (
            {own: sizes[name][1:] for name, own in found.items()},
            {own: name for name, own in said.items()},
            arguments,
        )

    def _example(self) -> dict[str, np.ndarray]:
        """Return operands of different sizes, among which no two would do for each other."""
        rng, channels = np.random.default_rng(0), 2
        images = self.steps[0].block != "linear"
        arrays = {"x": rng.uniform(0.5, 1.5, (2, channels, 13, 13) if images else (4, channels))}
        for stage in self.steps:
            shapes: dict[str, tuple[int, ...]] = {}
            if stage.block in LAYERS:
                outputs = channels + 1
                ends = (channels, outputs) if stage.block == "conv_transpose2d" else (outputs, channels)
                shapes = {"weight": ends + (() if stage.block == "linear" else (3, 3)), "bias": (outputs,)}
                channels = outputs
            elif stage.block == "batch_norm":
                shapes = dict.fromkeys(("running_mean", "running_var", "weight", "bias"), (channels,))
            for own, shape in shapes.items():
                drawn = rng.uniform(-1, 1, shape) if own != "running_var" else rng.uniform(0.5, 2, shape)
                arrays[f"{stage.name}_{own}"] = drawn
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    def absent(self, how: How) -> list[str]:
        """Return the operands of which a module has nothing, so that they are absent in each call."""
        norms = {norm for _, norm, _ in how.folds}
        folded = {f"{layer}_bias" for layer, _, _ in how.folds}
        return [
            name
            for name, stage in operands_of(self.chain).items()
            if name not in how.entries and stage.name not in norms and name not in folded
        ]

    def best(self) -> tuple[How, dict[str, Any]]:
        """Return how the class takes the chain, and arguments that it has always.

        Of all ways in which its entries fit, it is the one whose result is correlated with the reference most: the
        module may be wrong, and the checks then show it.
        """
        found: tuple[float, How, dict[str, Any]] | None = None
        tried = 0
        for fixed, right in self._rights():
            for how in self._ways():
                tried += 1
                y = self._result(how)
                if y is None or y.shape != right.shape:
                    break  # no assignment gives another shape
                alike = float(np.nan_to_num(np.corrcoef(y.ravel(), right.ravel())[0, 1], nan=-2))
                if found is None or alike > found[0]:
                    found = alike, how, fixed
                if alike > ALIKE or tried > TRIED:
                    return found[1:]
        if found is None:
            raise SubjectError(f"{self.title}: {self._why()}")
        return found[1:]

    def _why(self) -> str:
        """Return why no way was found, in words."""
        if not any(True for _ in self._ways()):
            has = ", ".join(f"{key} {shape}" for key, shape in self._own.items()) or "no arrays"
            return f"{self.cls.__name__} has {has}; expected entries for {', '.join(operands_of(self.chain))}"
        return f"{self.cls.__name__} cannot be called as {self.chain}, or gives another shape than these blocks"

    def _rights(self) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Yield values of the arguments that no parameter tells, the neutral ones first, with what the chain gives."""
        from nnspec.adapters.for_reference import subject as reference

        neutral = arguments_of(self.chain)
        unknown = {name: value for name, value in neutral.items() if name not in self.named}
        own = {name: of_block for stage in self.steps for name, of_block in stage.arguments.items()}
        choices = [
            list(dict.fromkeys((value, *SEARCHED.get(own[name], ())))) if own[name] in SEARCHED else [value]
            for name, value in unknown.items()
        ]
        for values in itertools.product(*choices):
            fixed = dict(zip(unknown, values, strict=True))
            try:
                y, *_ = reference().call("fused", "function", self.arrays, {CHAIN: self.chain, **neutral, **fixed})
            except FAILED:
                continue
            yield fixed, y

    @functools.cached_property
    def _own(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape, of the arrays that a small module holds."""
        keywords = {n: _size(self.arrays[operand].shape, axes) for n, (operand, axes) in self.sizes.items()}
        keywords |= dict.fromkeys(self.flags, True)
        try:
            module = self.watch(
                f"{self.cls.__name__}(…)",
                lambda: self.adapter.construct(self.cls, (), {**self._values, **keywords}, np.dtype("float32")),
            )
        except FAILED as error:
            reason = told(error.error) if isinstance(error, Raised) else str(error)
            what = f"{self.cls.__name__} cannot be built for {self.chain}"
            raise SubjectError(f"{self.title}: {what}: {reason}") from None
        held = self.adapter.held(module)
        return {key: one.shape for key, one in held.items() if one.kind in ("parameter", "attribute") and one.shape}

    @property
    def _values(self) -> dict[str, Any]:
        """The values of parameters that take nothing of the chain."""
        taken = {*self.sizes, *self.flags, *self.named.values(), *OF_ARRAYS}
        return {name: value for name, value in self.given.items() if name not in taken}

    def _ways(self) -> Iterator[How]:
        """Yield how the entries may be taken: most of them first; those of a folded norm last."""
        ways = _wanted(self.steps, operands_of(self.chain))
        for wanted, how in sorted(ways, key=lambda way: abs(len(way[0]) - len(self._own))):
            for own in self._assignments(wanted, {}):
                flags, values = self.flags, self._values
                if how:  # the bias of a folded norm is there whatever the layer has
                    flags, values = {}, {**values, **dict.fromkeys(flags, True)}
                yield How(self.sizes, flags, self.named, values, own, how)

    def _assignments(self, wanted: Sequence[str], before: dict[str, str]) -> Iterator[dict[str, str]]:
        """Yield name -> own key: for each operand an entry of its shape.

        It has the operand's name if one has, and lies in the module of its block's other entries if one does.
        """
        if not wanted:
            yield dict(before)
            return
        name, *others = wanted
        stage = operands_of(self.chain)[name]
        of_block = stage.operands[name]
        common = {plain(of_block), *map(plain, {**BATCH_NORM, **ALIASES}.get(of_block, ()))}
        fits = [k for k, s in self._own.items() if s == self.arrays[name].shape and k not in before.values()]
        fits = [key for key in fits if plain(key.rpartition(".")[2]) in common] or fits
        places = {before[other].rpartition(".")[0] for other in stage.operands if other in before} - {""}
        for key in [key for key in fits if key.rpartition(".")[0] in places] or fits:
            yield from self._assignments(others, {**before, name: key})

    def _result(self, how: How) -> np.ndarray | None:
        """Return what a small module gives; None where it cannot be called."""
        methods = [functools.partial(_called, self.adapter, name) for name in METHODS]
        call = chained_class(self.cls, methods, [*operands_of(self.chain)], tuple(how))
        neutral = {name: value for name, value in arguments_of(self.chain).items() if name in self.named}

        def run() -> Any:
            x, *operands = (self.adapter.to_native(array.copy()) for array in self.arrays.values())
            with theirs():
                y = call(self.chain, x, *operands, **neutral)
            return self.adapter.to_numpy(y)

        try:
            y: np.ndarray = self.watch(f"{self.cls.__name__} on its example", run)
            return y
        except FAILED:
            return None

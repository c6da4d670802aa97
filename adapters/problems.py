"""Problems of kernel benchmarks, as KernelBench has them: a class beside the calls that it was written for.

    class ModelNew: ...         # its constructor takes the sizes and the arguments of the problem
    def get_inputs(): ...       # -> [x], from which nnspec reads the rank, the dtype and the channels of x
    def get_init_inputs(): ...  # -> what the constructor takes: a list, a mapping, or [list, mapping]

nnspec makes of it a class that takes the arguments of a block. Checks vary each argument for which the constructor has
a parameter. Every other argument is fixed at the value that a module of the class shows.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter
from typing import Any, NamedTuple

import numpy as np
from nnspec.adapters.blame import Lacks, Raised, Unsupported, Unusable, theirs, told, watched
from nnspec.adapters.calling import named_like
from nnspec.adapters.claims import SubjectError
from nnspec.adapters.conditions import one_of
from nnspec.adapters.contract import Adapter
from nnspec.adapters.domains import EVERYTHING, Domain, read_domain
from nnspec.adapters.quantities import QUANTITIES
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.trying import Skipped, Watch

NAMES = ("ModelNew", "Model")  # of the class, where the user gives none
CARRIED = ("of_problem",)  # by scripts
PAIRS = ("kernel_size", "stride", "padding", "dilation", "output_padding")  # may be two numbers
ENTRIES = ("bias", "affine")  # arguments that say which entries there are; True by the pages
ALIKE = {  # the values that are drawn of an argument that is one number for rows and columns
    "kernel_size": (1, 2, 3, 4, 5, 7), "stride": (1, 2, 3, 4), "padding": (0, 1, 2, 3), "dilation": (1, 2, 3),
    "output_padding": (0, 1, 2),
}  # fmt: skip
SEARCHED = {"stride": range(1, 9), "padding": range(6), "dilation": range(1, 4)}  # where no parameter tells
LARGEST = 24  # rows and columns of the example's image
SMALL = {  # sizes that differ, so that shapes tell them apart
    "in_channels": 2, "out_channels": 3, "in_features": 2, "out_features": 3, "num_features": 3, "kernel_size": 2,
    "hidden_features": 4, "num_classes": 3,
}  # fmt: skip
FAILED = (Raised, Unusable, Unsupported, Skipped)
Ways = Mapping[str, tuple[str, str]]  # parameter -> the block's argument, and how the parameter takes it


class Problem(NamedTuple):
    """What a file says of its class: the values of the constructor's parameters, and what x looks like."""

    given: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str


class Adapted(NamedTuple):
    """A class that takes a block's arguments, what `of_problem` made it with, and what the problem declares."""

    stem: str
    made: type
    arguments: str
    domain: Domain
    claims: dict[str, Any]
    unsupported: dict[str, str]


def are_offered(names: Mapping[str, Any]) -> bool:
    """Return whether a file has the inputs of a problem."""
    return callable(names.get("get_inputs"))


def name_in(names: Mapping[str, Any]) -> str:
    """Return the name of a problem's class; "" in a file that is no problem."""
    return next((name for name in NAMES if are_offered(names) and inspect.isclass(names.get(name))), "")


def adapted(
    title: str, found: Mapping[str, Any], names: Mapping[str, Any], adapter: Adapter, watch: Watch
) -> dict[str, Adapted]:
    """Return, by the page's names, what is made of the classes of a problem. `found` holds these classes.

    Raises SubjectError where the file's inputs cannot be had, or do not fit the block.
    """
    made = {}
    for name, cls in found.items():
        stem = next(stem for stem, signature in SIGNATURES.items() if name in signature.classes)
        problem = _read(title, cls, names, adapter)
        if SIGNATURES[stem].takes(name, len(problem.shape)):  # of BatchNorm1d and BatchNorm2d, one does
            made[name] = _adapted(title, stem, cls, problem, functools.partial(Example, stem, cls, adapter, watch))
    return made


def declared_too(made: Iterable[Adapted], declares: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file declares, and what its problem does where the file says nothing else."""
    found = {**declares}
    for one in made:
        claims = {name: value for name, value in one.claims.items() if name not in declares}
        conditions = {**one.domain.conditions, **found["domains"].get(one.stem, EVERYTHING).conditions}
        domain = replace(found["domains"].get(one.stem, Domain(one.stem)), conditions=conditions)
        found["unsupported"] = {**one.unsupported, **found["unsupported"]}
        found["of_block"] = {**found["of_block"], one.stem: claims | found["of_block"].get(one.stem, {})}
        found["domains"] = {**found["domains"], one.stem: domain}
    return found


def given(title: str, cls: type, names: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values of a constructor's parameters: of `get_init_inputs` if a file has it, else the defaults."""
    said = _of_user(title, "get_init_inputs", names.get("get_init_inputs", list))
    positional: Any
    positional, keywords = ((), said) if isinstance(said, Mapping) else (said, {})
    if len(positional) == 2 and isinstance(positional[0], list | tuple) and isinstance(positional[1], Mapping):
        positional, keywords = positional
    bind = inspect.signature(cls).bind if are_offered(names) else inspect.signature(cls).bind_partial
    bound = _of_user(title, "get_init_inputs", lambda: bind(*positional, **keywords))
    bound.apply_defaults()
    arguments: Mapping[str, Any] = bound.arguments
    return arguments


def _of_user(title: str, name: str, call: Callable[[], Any]) -> Any:
    try:
        with theirs():
            return call()
    except Raised as raised:
        raise SubjectError(f"{title}: {name}: {told(raised.error)}") from None


def _read(title: str, cls: type, names: Mapping[str, Any], adapter: Adapter) -> Problem:
    inputs = _of_user(title, "get_inputs", lambda: adapter.sketched(names["get_inputs"]))
    if len(inputs) != 1:
        raise SubjectError(f"{title}: get_inputs gives {len(inputs)} arrays; a block as a class takes one, x")
    return Problem(given(title, cls, names), *inputs[0])


def _adapted(title: str, stem: str, cls: type, problem: Problem, example_of: Callable[..., Example]) -> Adapted:
    signature, own = SIGNATURES[stem], _own(stem, cls, problem.given)
    example = _small(stem, problem, own, example_of)
    if example is None:  # it is what the problem says, and nothing else
        example = example_of(problem)
        own = {name: way for name, way in own.items() if way[0] not in (*signature.sizes, "groups")}
    taken = {argument for argument, _ in own.values()}
    fixed = {name: value for name, value in (example.shown() | example.searched(own)).items() if name not in taken}
    if missing := [size for size in signature.sizes if size not in taken and size not in fixed]:
        raise SubjectError(
            f"{title}: {cls.__name__} takes {', '.join(problem.given) or 'nothing'}; "
            f"expected parameters for {', '.join(signature.sizes)}, as nothing else shows its {missing[0]}"
        )
    values = {name: value for name, value in problem.given.items() if name not in own}
    made = of_problem(cls, *(given := (signature.sizes, dict(own), values, fixed)))
    made.__signature__ = _signature(stem, cls, own, fixed)
    claims: dict[str, Any] = {"dtypes": (problem.dtype,), "further_dtypes": ()}
    if example.lacks_gradients():  # benchmarks of kernels ask for the forward pass alone
        claims["differentiable"] = False
    refusals = {f"{stem}.refuses.*": "the problem has legal calls alone"} if signature.sizes else {}
    return Adapted(stem, made, ", ".join(map(repr, given)), _domain(stem, own, fixed, problem), claims, refusals)


# -- parameters --------------------------------------------------------------------------------------------------------


def _own(stem: str, cls: type, given: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return, for parameters of a class's constructor, the block's argument and how the parameter takes it.

    A parameter with the argument's name takes it. The others take the remaining sizes, if there are as many of them.
    """
    signature, parameters = SIGNATURES[stem], inspect.signature(cls).parameters
    wanted = {*signature.sizes, *signature.arguments, *ENTRIES} - {"training"}
    own = {name: name for name in given if name in wanted}
    others, left = [n for n in given if n not in own], [size for size in signature.sizes if size not in own]
    if len(others) == len(left):
        own |= dict(zip(others, left, strict=True))
    return {name: (argument, _way(argument, parameters[name], given[name])) for name, argument in own.items()}


def _way(argument: str, parameter: Parameter, value: Any) -> str:
    """Return how a parameter takes an argument: as a "list", a "pair", "one" number, or "any" of its forms."""
    several = isinstance(value, list | tuple)
    if argument == "hidden_features":
        return "list" if several else "any"
    if argument not in PAIRS or ("uple" in str(parameter.annotation) and not several):
        return "any"
    return "pair" if several else "one" if isinstance(value, int) else "any"


def _small(stem: str, problem: Problem, own: Ways, example_of: Callable[..., Example]) -> Example | None:
    """Return an example of small sizes; None where the class has no parameters for them, or other sizes than asked."""
    taken = {argument: name for name, (argument, _) in own.items()}
    sizes = SIGNATURES[stem].sizes
    if not {*sizes} - {"kernel_size"} <= taken.keys():
        return None
    chosen = {taken[size]: _taken(size, SMALL[size], own[taken[size]][1]) for size in sizes if size in taken}
    n, *others = problem.shape
    channels = SMALL[sizes[0]] if sizes and sizes[0] in SMALL and sizes[0] != "kernel_size" else None
    if channels is not None and others:
        others[-1 if stem in ("linear", "mlp") else 0] = channels
    example = example_of(Problem({**problem.given, **chosen}, (n, *others), problem.dtype))
    shown = example.shown()
    fits = all(shown.get(size, SMALL[size]) == SMALL[size] for size in sizes if size in taken and size not in PAIRS)
    return example if example.module is not None and fits else None


def _domain(stem: str, own: Ways, fixed: Mapping[str, Any], problem: Problem) -> Domain:
    """Return the domain that a problem declares for a block: what is fixed, and numbers that are one for both axes."""
    known = QUANTITIES.get(stem, {})
    alike = {
        argument: one_of(*sorted({*ALIKE[argument], problem.given[name]}))
        for name, (argument, way) in own.items()
        if way == "one"
    }
    whole = {**alike, "ndim": len(problem.shape), **fixed}
    return read_domain(stem, {name: value for name, value in whole.items() if name in known}) if known else EVERYTHING


def _signature(stem: str, cls: type, own: Ways, fixed: Mapping[str, Any]) -> inspect.Signature:
    """Return the signature of the class that is made: sizes, then the arguments that vary or are not at their default.

    An argument whose default is not the page's has none: checks then pass it in each call.
    """
    neutral: dict[str, Any] = {**SIGNATURES[stem].arguments, **dict.fromkeys(ENTRIES, True)}
    before, sizes = inspect.signature(cls).parameters, SIGNATURES[stem].sizes
    parameters = [Parameter(size, Parameter.POSITIONAL_OR_KEYWORD) for size in sizes]
    for name, (argument, _) in own.items():
        if argument not in sizes:
            same = argument in ENTRIES or _pair(before[name].default) == _pair(neutral[argument])
            default = neutral[argument] if same else Parameter.empty
            parameters.append(Parameter(argument, Parameter.KEYWORD_ONLY, default=default))
    for argument, value in fixed.items():
        if argument in neutral and _pair(value) != _pair(neutral[argument]):
            parameters.append(Parameter(argument, Parameter.KEYWORD_ONLY, default=neutral[argument]))
    return inspect.Signature(parameters)


def of_problem(cls: type, sizes: Sequence[str], own: Ways, values: Mapping[str, Any], fixed: Mapping[str, Any]) -> Any:
    """Return a class like `cls` whose constructor takes the arguments of a block, `sizes` by position.

    `own` says which parameter of `cls` takes which argument and how; `values` holds the values of its other parameters,
    and `fixed` the arguments that it has always.
    """

    class Layer(cls):
        nnspec_fixed = fixed

        def __init__(self, *positional: Any, **arguments: Any) -> None:
            given = {"bias": True, "affine": True, **dict(zip(sizes, positional, strict=False)), **arguments}
            for argument, value in fixed.items():
                if argument in given and _pair(given[argument]) != _pair(value):
                    raise ValueError(f"{cls.__name__} always has {argument}={value}")
            taken = {name: _taken(to, given[to], way) for name, (to, way) in own.items() if to in given}
            super().__init__(**values, **taken)

    return named_like(Layer, cls)


def _taken(argument: str, value: Any, way: str) -> Any:
    """Return an argument as a parameter takes it."""
    if way == "list":
        return [value] if isinstance(value, int) else list(value)
    if way == "any" or value is None:
        return value
    pair = _pair(value)
    if len(pair) != 2 or isinstance(value, str) or (way == "one" and len({*pair}) > 1):
        raise Lacks(f"{argument} is {'one number' if way == 'one' else 'two numbers'} in the problem")
    return pair[0] if way == "one" else pair


def _pair(value: Any) -> tuple[Any, ...]:
    """Return one value twice, and several as they are."""
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


# -- the example -------------------------------------------------------------------------------------------------------


@dataclass
class Example:
    """A module of a problem's class, and a small x for it."""

    stem: str
    cls: type
    adapter: Adapter
    watch: Watch
    problem: Problem

    @property
    def framework(self) -> Any:
        """The adapter as a check uses it."""
        return watched(self.adapter)

    @functools.cached_property
    def module(self) -> Any:
        """The module; None where it cannot be built."""
        dtype, given = np.dtype(self.problem.dtype), self.problem.given
        call = functools.partial(self.framework.construct, self.cls, (), given, dtype)
        try:
            return self.watch(f"{self.cls.__name__}({', '.join(f'{n}={v!r}' for n, v in given.items())})", call)
        except FAILED:
            return None

    @functools.cached_property
    def x(self) -> np.ndarray:
        """Positive numbers: at most two samples, and of images at most `LARGEST` rows and columns."""
        n, *others = self.problem.shape
        rows = others[1:] if SIGNATURES[self.stem].images else []
        shape = (min(n, 2), *others[: len(others) - len(rows)], *(min(size, LARGEST) for size in rows))
        return np.random.default_rng(0).uniform(0.5, 1.5, shape).astype(self.problem.dtype)

    @functools.cached_property
    def y(self) -> np.ndarray | None:
        """The result; None where the module cannot be called."""

        def call() -> Any:
            self.framework.set_training(self.module, False)
            with theirs():
                return self.module(self.framework.to_native(self.x.copy()))

        try:
            y: np.ndarray = self.framework.to_numpy(self.watch(f"{self.cls.__name__} on its example", call))
            return y
        except FAILED:
            return None

    @functools.cached_property
    def arrays(self) -> list[np.ndarray]:
        """The arrays of the module, but for counts."""
        held = {} if self.module is None else self.framework.held(self.module)
        kept = [key for key, one in held.items() if one.kind in ("parameter", "attribute")]
        return [self.framework.read(self.module, key) for key in kept]

    @property
    def weight(self) -> np.ndarray | None:
        """The first array that has the rank of the block's weight."""
        rank = {"linear": 2, "conv2d": 4, "conv_transpose2d": 4}.get(self.stem)
        return next((array for array in self.arrays if array.ndim == rank), None)

    def shown(self) -> dict[str, Any]:
        """Return the sizes that the module shows, the number of groups, and whether there is a bias."""
        weight, channels = self.weight, self.x.shape[1] if self.x.ndim > 1 else 1
        if self.stem == "batch_norm":
            vectors = [array.shape[0] for array in self.arrays if array.ndim == 1]
            return {"num_features": vectors[0] if vectors else channels}
        if weight is None:
            return {}
        if self.stem == "linear":
            outputs, inputs = weight.shape
            found = {"in_features": inputs, "out_features": outputs}
        else:
            ends = ("out_channels", "in_channels") if self.stem == "conv2d" else ("in_channels", "out_channels")
            # a kernel of conv2d sees the inputs of its group, and one of conv_transpose2d gives its group's outputs
            groups = max(1, channels // weight.shape[1]) if self.stem == "conv2d" else self._groups(weight)
            outputs = weight.shape[0] if self.stem == "conv2d" else weight.shape[1] * groups
            found = dict(zip(ends, (weight.shape[0], weight.shape[1] * groups), strict=True))
            found |= {"kernel_size": weight.shape[2:], "groups": groups}
        return found | {"bias": any(array.shape == (outputs,) for array in self.arrays)}

    def _groups(self, weight: np.ndarray) -> int:
        return 1 if self.y is None or self.y.ndim != 4 else max(1, self.y.shape[1] // weight.shape[1])

    def searched(self, own: Ways) -> dict[str, Any]:
        """Return the arguments of a convolution that no parameter tells.

        Of those that give the result its shape, they are the ones whose reference the result is correlated with most:
        the module may be wrong, and the checks then show it.
        """
        taken = {argument: name for name, (argument, _) in own.items()}
        unknown, weight = [argument for argument in SEARCHED if argument not in taken], self.weight
        if self.stem != "conv2d" or not unknown or weight is None or self.y is None or self.y.ndim != 4:
            return {}
        from nnspec.adapters.for_reference import subject as reference

        bias = next((array for array in self.arrays if array.shape == weight.shape[:1]), None)
        operands, told_ = {"x": self.x, "weight": weight, "bias": bias}, {"groups": self.shown()["groups"]}
        told_ |= {argument: self.problem.given[taken[argument]] for argument in SEARCHED if argument in taken}
        found: dict[float, dict[str, Any]] = {}  # by the correlation; -2 for a constant result
        for values in itertools.product(*(SEARCHED[argument] for argument in unknown)):
            chosen = dict(zip(unknown, values, strict=True))
            if self.y.shape[2:] == _size_of(self.x.shape[2:], weight.shape[2:], **told_, **chosen):
                right, *_ = reference().call("conv2d", "function", operands, {**told_, **chosen})
                alike = np.corrcoef(self.y.ravel(), right.ravel())[0, 1]
                found.setdefault(float(np.nan_to_num(alike, nan=-2)), chosen)
        return found[max(found)] if found else {}

    def lacks_gradients(self) -> bool:
        """Return whether the module has no backward pass."""
        if self.module is None or self.y is None or not hasattr(self.framework, "differentiate_module"):
            return False
        x, cotangent = (self.framework.to_native(np.array(a)) for a in (self.x, np.ones_like(self.y)))
        call = functools.partial(self.framework.differentiate_module, self.module, x, cotangent)
        try:
            found = self.watch(f"the backward pass of {self.cls.__name__} on its example", call)
        except FAILED:
            return True
        return all(gradient is None for gradient in found.values())


def _size_of(
    image: Sequence[int], kernel: Sequence[int], *, stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[int, ...]:
    """Return the rows and columns of a convolution's result."""
    each = zip(image, kernel, *map(_pair, (stride, padding, dilation)), strict=True)
    return tuple((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in each)

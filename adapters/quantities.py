"""The quantities of each block that a domain can be declared for: sizes and arguments, by the names of its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnspec.adapters.equations import DOTS
from nnspec.adapters.signatures import CHAIN, EQUATION, SIGNATURES, Arrays, operands

MOST = 2**20  # no size beyond it is looked for


@dataclass(frozen=True)
class Quantity:
    """A size or an argument of a block. `of(arrays, arguments)` is its value in a call; None: the call has none."""

    name: str
    kind: str  # "size", "sizes" (each of which meets a condition), "pair", "flag", "number" or "word"
    of: Callable[[Arrays, Mapping[str, Any]], Any]
    least: int = 1
    neutral: Any = None  # the value with which the feature is absent
    equal_to: str = ""  # the quantity that it may be declared equal to

    @property
    def expected(self) -> str:
        """The values that can be declared, in words."""
        if self.kind == "flag":
            return "True or False"
        if self.kind == "number":
            return "a number, or one_of(…)"
        if self.kind == "word":
            return "a text, or one_of(…)"
        pair = "an int or a pair (rows, columns), square()"
        value = pair if self.kind == "pair" else f"an int from {self.least} on"
        return f"{value}, one_of(…), multiple_of(n), at_most(n), at_least(n) or between(a, b)"


Value = Callable[[Arrays, Mapping[str, Any]], Any]


def normal(quantity: Quantity, value: Any) -> Any:
    """Return a value of a quantity in the form in which conditions compare it: a pair for an int."""
    if quantity.kind == "pair" and isinstance(value, int | np.integer) and not isinstance(value, bool):
        return (int(value), int(value))
    return tuple(value) if isinstance(value, list) else value


def parts(quantity: Quantity, value: Any) -> tuple[Any, ...]:
    """Return what a condition on a quantity is about: the value, or each of several sizes."""
    value = normal(quantity, value)
    return value if quantity.kind == "sizes" and isinstance(value, tuple) else (value,)


def shown(value: Any) -> str:
    """Return a value as a reader writes it: one int for an equal pair."""
    return str(value[0]) if isinstance(value, tuple) and len({*value}) == 1 else repr(value)


# -- where a call has them ---------------------------------------------------------------------------------------------


def _shape(arrays: Arrays, name: str) -> tuple[int, ...] | None:
    array = arrays.get(name)
    return None if array is None else np.shape(array)


def _axis(name: str, axis: int, *dimensions: int) -> Value:
    """Return what gives the size of an axis of an array that has one of these numbers of dimensions."""

    def of(arrays: Arrays, _: Mapping[str, Any]) -> int | None:
        shape = _shape(arrays, name)
        return shape[axis] if shape is not None and len(shape) in dimensions else None

    return of


def _times_groups(axis: int) -> Value:
    """Return what gives an axis of the weight times the number of groups."""

    def of(arrays: Arrays, arguments: Mapping[str, Any]) -> int | None:
        shape, groups = _shape(arrays, "weight"), arguments.get("groups", 1)
        return None if shape is None or len(shape) != 4 else shape[axis] * groups

    return of


def _of_shape(name: str, function: Callable[[tuple[int, ...]], Any]) -> Value:
    """Return what gives a function of the shape of an array."""

    def of(arrays: Arrays, _: Mapping[str, Any]) -> Any:
        shape = _shape(arrays, name)
        return None if shape is None else function(shape)

    return of


def _argument(name: str, default: Any = None) -> Value:
    return lambda _, arguments: arguments.get(name, default)


def _present(name: str) -> Value:
    return lambda arrays, _: arrays[name] is not None if name in arrays else None


def _stride_of_pool(_: Arrays, arguments: Mapping[str, Any]) -> Any:
    """Return the stride of a pool: the kernel size where it is absent."""
    stride = arguments.get("stride")
    return arguments.get("kernel_size") if stride is None else stride


def _sizes_of_axes(arrays: Arrays, _: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the different sizes of the axes of all operands."""
    shapes = (np.shape(array) for array in operands(arrays).values() if array is not None)
    return tuple(sorted({n for shape in shapes for n in shape}))


def _hidden_features(arrays: Arrays, arguments: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the sizes of the hidden layers of an MLP, in its weights or in the arguments of its constructor."""
    weights = [array for name, array in arrays.items() if array is not None and name.endswith(".weight")]
    if weights:
        return tuple(len(weight) for weight in weights[:-1])
    hidden = arguments.get("hidden_features")
    return hidden if hidden is None else tuple(hidden) if isinstance(hidden, list | tuple) else (hidden,)


def _number_of_hidden_layers(arrays: Arrays, arguments: Mapping[str, Any]) -> int | None:
    hidden = _hidden_features(arrays, arguments)
    return None if hidden is None else len(hidden)


def _axis_or_argument(key: str, axis: int, name: str) -> Value:
    """Return what gives the size of an axis of an array, or an argument of a constructor."""

    def of(arrays: Arrays, arguments: Mapping[str, Any]) -> int | None:
        shape = _shape(arrays, key)
        return arguments.get(name) if shape is None else shape[axis]

    return of


def _last(name: str, suffix: str) -> Value:
    """Return what gives an argument of a constructor, or as many rows as the last array with a suffix has."""

    def of(arrays: Arrays, arguments: Mapping[str, Any]) -> int | None:
        found = [array for key, array in arrays.items() if array is not None and key.endswith(suffix)]
        return len(found[-1]) if found else arguments.get(name)

    return of


# -- the tables --------------------------------------------------------------------------------------------------------


def _by_name(*quantities: Quantity) -> dict[str, Quantity]:
    return {quantity.name: quantity for quantity in quantities}


def _of_arguments(stem: str, **kinds: str) -> tuple[Quantity, ...]:
    """Return quantities that are arguments of a block, with the kind of each."""
    neutral, least = SIGNATURES[stem].arguments, {"padding": 0, "output_padding": 0, "divisor_override": -MOST}
    return tuple(
        Quantity(name, kind, _argument(name, neutral[name]), least.get(name, 1), neutral[name])
        for name, kind in kinds.items()
    )


def _images() -> tuple[Quantity, ...]:
    return (
        Quantity("N", "size", _axis("x", 0, 4)),
        Quantity("H", "size", _axis("x", 2, 4)),
        Quantity("W", "size", _axis("x", 3, 4), equal_to="H"),
    )


def _vectors() -> tuple[Quantity, ...]:
    return (
        Quantity("rows", "size", _of_shape("x", lambda shape: math.prod(shape[:-1]))),
        Quantity("ndim", "size", _of_shape("x", len)),
    )


def _convolution(stem: str, inputs: Value, outputs: Value, *pairs: str) -> dict[str, Quantity]:
    return _by_name(
        Quantity("in_channels", "size", inputs),
        Quantity("out_channels", "size", outputs, equal_to="in_channels"),
        Quantity("kernel_size", "pair", _of_shape("weight", lambda shape: shape[2:4] if len(shape) == 4 else None)),
        *_of_arguments(stem, **dict.fromkeys(("stride", "padding", "dilation", *pairs), "pair")),
        Quantity("groups", "size", _argument("groups", 1), neutral=1, equal_to="in_channels"),
        Quantity("bias", "flag", _present("bias"), neutral=False),
        *_images(),
    )


def _pool(stem: str, **kinds: str) -> dict[str, Quantity]:
    return _by_name(
        Quantity("kernel_size", "pair", _argument("kernel_size")),
        Quantity("stride", "pair", _stride_of_pool, equal_to="kernel_size"),
        *_of_arguments(stem, padding="pair", **kinds),
        Quantity("C", "size", _axis("x", 1, 4)),
        *_images(),
    )


QUANTITIES: dict[str, dict[str, Quantity]] = {
    "conv2d": _convolution("conv2d", _times_groups(1), _axis("weight", 0, 4)),
    "conv_transpose2d": _convolution("conv_transpose2d", _axis("weight", 0, 4), _times_groups(1), "output_padding"),
    "linear": _by_name(
        Quantity("in_features", "size", _axis("weight", 1, 2)),
        Quantity("out_features", "size", _axis("weight", 0, 2), equal_to="in_features"),
        *_vectors(),
        Quantity("bias", "flag", _present("bias"), neutral=False),
    ),
    "relu": _by_name(
        Quantity("size", "size", _of_shape("x", math.prod)),
        Quantity("ndim", "size", _of_shape("x", len), least=0),
    ),
    "batch_norm": _by_name(
        Quantity("num_features", "size", _axis("x", 1, 2, 3, 4)),
        Quantity("training", "flag", _argument("training", False)),
        Quantity("affine", "flag", _present("weight")),
        Quantity("momentum", "number", _argument("momentum", 0.1), least=0, neutral=0.1),
        Quantity("eps", "number", _argument("eps", 1e-5), least=0, neutral=1e-5),
        Quantity("ndim", "size", _of_shape("x", len), least=2),
        *_images(),
    ),
    "max_pool2d": _pool("max_pool2d", dilation="pair", ceil_mode="flag"),
    "avg_pool2d": _pool("avg_pool2d", ceil_mode="flag", count_include_pad="flag", divisor_override="size"),
    "fused": _by_name(Quantity(CHAIN, "word", _argument(CHAIN))),
    "global_avg_pool2d": _by_name(Quantity("C", "size", _axis("x", 1, 4)), *_images()),
    "einsum": _by_name(
        Quantity(EQUATION, "word", _argument(EQUATION)),
        Quantity("operands", "size", lambda arrays, _: len(operands(arrays))),
        Quantity("axis_size", "sizes", _sizes_of_axes, least=0),
        Quantity("ellipsis", "flag", lambda _, arguments: DOTS in str(arguments.get(EQUATION, "")), neutral=False),
        Quantity(
            "implicit", "flag", lambda _, arguments: "->" not in str(arguments.get(EQUATION, "->")), neutral=False
        ),
    ),
    "mlp": _by_name(
        Quantity("in_features", "size", _axis_or_argument("fc1.weight", 1, "in_features")),
        Quantity("hidden_features", "sizes", _hidden_features),
        Quantity("out_features", "size", _last("out_features", ".weight"), equal_to="in_features"),
        Quantity("hidden_layers", "size", _number_of_hidden_layers),
        *_vectors(),
    ),
    "basic_block": _by_name(
        Quantity("in_channels", "size", _axis_or_argument("conv1.weight", 1, "in_channels")),
        Quantity("out_channels", "size", _axis_or_argument("conv1.weight", 0, "out_channels"), equal_to="in_channels"),
        Quantity("stride", "size", _argument("stride", 1), neutral=1),
        Quantity("training", "flag", _argument("training", False)),
        *_images(),
    ),
    "resnet34": _by_name(
        Quantity("in_channels", "size", _axis_or_argument("x", 1, "in_channels")),
        Quantity("num_classes", "size", _argument("num_classes")),
        Quantity("training", "flag", _argument("training", False)),
        *_images(),
    ),
    "sgd": _by_name(
        Quantity("lr", "number", _argument("lr"), least=0),
        Quantity("momentum", "number", _argument("momentum", 0.0), least=0, neutral=0.0),
        Quantity("weight_decay", "number", _argument("weight_decay", 0.0), least=0, neutral=0.0),
        Quantity("elements", "sizes", _argument("elements"), least=0),
    ),
}
# why a domain of some blocks has no meaning
WITHOUT = {
    "module": "its requirements are about names, state and modes, which no size changes",
    "sequential": "its requirements are about the order and the names of layers; each layer has a domain of its own",
}
# the quantities that the classes of a block take by position
CONSTRUCTED = {
    **dict.fromkeys(("conv2d", "conv_transpose2d"), ("in_channels", "out_channels", "kernel_size")),
    "linear": ("in_features", "out_features"),
    "batch_norm": ("num_features",),
    "mlp": ("in_features", "hidden_features", "out_features"),
    "basic_block": ("in_channels", "out_channels"),
    **dict.fromkeys(("max_pool2d", "avg_pool2d"), ("kernel_size",)),
}

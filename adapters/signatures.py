"""What every block is called and takes, as a function and as a class. The one table that checks and adapters share.

A call is the same in both forms: arrays by name, arguments by name. The class form builds the layer from the shapes of
the arrays, loads them into its state and applies it to x.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray | None]
Shapes = Mapping[str, tuple[int, ...] | None]  # of the operands; None: absent
# The parts of a case that are no operands of its block: an argument that is passed before the arrays, and arrays that a
# derivative is taken along. A block of several results has several cotangents, whose names begin alike.
EQUATION, CHAIN, COTANGENT, TANGENT = "equation", "chain", "cotangent", "tangent"
LEADING = (EQUATION, CHAIN)  # what a function takes before its operands
Calls = tuple[tuple[Shapes, dict[str, Any]], ...]
Constructor = Callable[[Arrays, Mapping[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


def _nothing(arrays: Arrays, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (), dict(arguments)


@dataclass(frozen=True)
class Signature:
    """One block: its operands (arrays), its arguments with their neutral values, its classes and how to build one."""

    operands: tuple[str, ...] = ("x",)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    function: str | None = None
    classes: tuple[str, ...] = ()
    constructor: Constructor = _nothing
    sizes: tuple[str, ...] = ()  # what its classes' constructors take first, by position
    results: tuple[str, ...] = ("y",)  # what a call returns, and in the class form: y, then these entries of the state
    members: tuple[str, ...] = ()  # what the class offers besides being called
    constants: tuple[str, ...] = ()  # how operands end that nobody is asked to differentiate by
    of_rank: Mapping[int, str] = field(default_factory=dict)  # x's rank -> the class for it alone; others take the rest
    calls: Calls = ()  # small typical calls of the function: the shapes of operands, and arguments
    images: bool = False  # whether x and y are images (N, C, H, W)
    kernel: str = ""  # the axes of `weight` on the page, where libraries order them otherwise

    @property
    def vjp(self) -> str:
        """The name of the vjp that a NumPy file may bring beside the function."""
        return f"{self.function}_vjp"

    @property
    def vjp_vjp(self) -> str:
        """The name of the vjp of the vjp."""
        return f"{self.vjp}_vjp"

    def takes(self, name: str, rank: int) -> bool:
        """Return whether a class of the block takes an x of so many dimensions."""
        own = self.of_rank.get(rank)
        return name == own if own else name not in self.of_rank.values()

    def passed(
        self, arrays: Mapping[str, Any], arguments: Mapping[str, Any], lacks: Collection[str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what a function is called with: positional operands and keyword arguments, by name.

        The values may be arrays or, for a script, Python text. What the function `lacks` is left out.
        """
        positional = {name: value for name, value in operands(arrays).items() if name not in lacks}
        keywords = {name: value for name, value in arguments.items() if name not in lacks}
        for name in LEADING:
            if name in keywords:
                positional = {name: keywords.pop(name), **positional}
        return positional, keywords

    def asked(self, names: Iterable[str], arrays: Arrays, wanted: Collection[str] | None) -> list[bool]:
        """Return for each operand whether its gradient is asked for: only where it is present."""
        return [arrays.get(name) is not None and self.differentiates(name, wanted) for name in names]

    def differentiates(self, operand: str, wanted: Collection[str] | None) -> bool:
        """Whether the gradient by an operand is asked for: one of those wanted, and otherwise of all that vary."""
        return not operand.endswith(self.constants) if wanted is None else operand in wanted


def operands(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays that are operands of the block, without cotangents and tangents."""
    return {name: a for name, a in arrays.items() if not name.startswith((COTANGENT, TANGENT))}


def cotangents(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cotangents of the results, in order."""
    return {name: a for name, a in arrays.items() if name.startswith(COTANGENT)}


def entries(arrays: Arrays) -> dict[str, np.ndarray]:
    """Return the arrays that are entries of a module: operands that are present, without its input x."""
    return {name: a for name, a in operands(arrays).items() if name != "x" and a is not None}


def _linear(arrays, arguments):
    (out_features, in_features), bias = arrays["weight"].shape, arrays["bias"]
    return (in_features, out_features), {"bias": bias is not None}


def _conv2d(arrays, arguments):
    weight, groups = arrays["weight"], arguments.get("groups", 1)
    # positional: the names of these three differ between libraries, their order does not
    positional = (weight.shape[1] * groups, weight.shape[0], as_number(weight.shape[2:]))
    return positional, {**arguments, "bias": arrays["bias"] is not None}


def _conv_transpose2d(arrays, arguments):
    weight, groups = arrays["weight"], arguments.get("groups", 1)
    positional = (weight.shape[0], weight.shape[1] * groups, as_number(weight.shape[2:]))
    return positional, {**arguments, "bias": arrays["bias"] is not None}


def _batch_norm(arrays, arguments):
    settings = {name: arguments[name] for name in ("eps", "momentum") if name in arguments}
    return (len(arrays["running_mean"]),), {**settings, "affine": arrays["weight"] is not None}


def _pool(arrays, arguments):
    keywords = dict(arguments)
    return (keywords.pop("kernel_size"),), keywords


def _mlp(arrays, arguments):
    *hidden, outputs = [len(a) for name, a in arrays.items() if name.endswith(".weight")]
    one = len(hidden) == 1  # given as an int, since some classes take nothing else
    return (arrays["fc1.weight"].shape[1], hidden[0] if one else hidden, outputs), {}


def _basic_block(arrays, arguments):
    weight = arrays["conv1.weight"]
    return (weight.shape[1], weight.shape[0]), {"stride": arguments["stride"]}


def _resnet34(arrays, arguments):
    return (), {"in_channels": arrays["conv1.weight"].shape[1], "num_classes": len(arrays["fc.weight"])}


def as_number(pair: tuple[int, ...]) -> int | tuple[int, int]:
    """Return one number for a pair of equal ones, which some subjects take alone."""
    rows, columns = pair
    return rows if rows == columns else (rows, columns)


def _calls_of_x(*shapes: tuple[int, ...], **arguments: Any) -> Calls:
    return tuple(({"x": shape}, arguments) for shape in shapes)


def _calls_of_layer(*shapes: tuple[tuple[int, ...] | None, ...]) -> Calls:
    """Return calls with the shapes of x, weight and bias."""
    return tuple((dict(zip(("x", "weight", "bias"), each, strict=True)), {}) for each in shapes)


def _calls_of_norm(*shapes: tuple[int, ...]) -> Calls:
    """Return calls with the shapes of x; in the last, weight and bias are absent."""
    vectors = ("running_mean", "running_var", "weight", "bias")
    arguments = {"training": False, "momentum": 0.1, "eps": 1e-5}
    calls: list[dict[str, tuple[int, ...] | None]] = [{"x": x, **dict.fromkeys(vectors, x[1:2])} for x in shapes]
    calls[-1] |= {"weight": None, "bias": None}
    return tuple((operands, arguments) for operands in calls)


_WALKS = ("parameters", "named_parameters", "named_buffers", "named_modules", "children")
_MODULE = ("register_buffer", *_WALKS, "train", "eval", "state_dict", "load_state_dict")
_SEQUENCE = ("__len__", "__iter__", "__getitem__")

SIGNATURES: dict[str, Signature] = {
    "einsum": Signature(
        (),
        {EQUATION: None},
        "einsum",
        calls=(
            ({"operand0": (2, 3)}, {EQUATION: "ij->ji"}),
            ({"operand0": (2, 3), "operand1": (3, 4)}, {EQUATION: "ij,jk->ik"}),
            ({"operand0": (3,), "operand1": (3,)}, {EQUATION: "i,i->"}),
        ),
    ),
    "linear": Signature(
        ("x", "weight", "bias"),
        {},
        "linear",
        ("Linear",),
        _linear,
        ("in_features", "out_features"),
        calls=_calls_of_layer(
            ((1, 2), (3, 2), None), ((2, 3), (4, 3), (4,)), ((4, 4), (4, 4), (4,)), ((5, 3), (2, 3), None)
        ),
        kernel="OI",
    ),
    "relu": Signature(("x",), {}, "relu", ("ReLU",), calls=_calls_of_x((2,), (2, 3), (2, 3, 4, 4))),
    "conv2d": Signature(
        ("x", "weight", "bias"),
        {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
        "conv2d",
        ("Conv2d",),
        _conv2d,
        ("in_channels", "out_channels", "kernel_size"),
        calls=_calls_of_layer(
            ((1, 1, 2, 2), (1, 1, 1, 1), None),
            ((2, 3, 5, 6), (4, 3, 3, 3), (4,)),
            ((3, 2, 4, 4), (2, 2, 2, 2), (2,)),
            ((2, 4, 6, 5), (3, 4, 3, 3), None),
        ),
        images=True,
        kernel="OIHW",
    ),
    "conv_transpose2d": Signature(
        ("x", "weight", "bias"),
        {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1},
        "conv_transpose2d",
        ("ConvTranspose2d",),
        _conv_transpose2d,
        ("in_channels", "out_channels", "kernel_size"),
        calls=_calls_of_layer(
            ((1, 1, 2, 2), (1, 1, 1, 1), None),
            ((2, 3, 4, 5), (3, 4, 3, 3), (4,)),
            ((3, 2, 3, 3), (2, 2, 2, 2), (2,)),
            ((2, 4, 4, 3), (4, 3, 3, 3), None),
        ),
        images=True,
        kernel="IOHW",
    ),
    "batch_norm": Signature(
        ("x", "running_mean", "running_var", "weight", "bias"),
        {"training": False, "momentum": 0.1, "eps": 1e-5},
        "batch_norm",
        ("BatchNorm2d", "BatchNorm1d"),
        _batch_norm,
        ("num_features",),
        ("y", "running_mean", "running_var"),
        constants=("running_mean", "running_var"),
        of_rank={4: "BatchNorm2d"},
        calls=_calls_of_norm((2, 1, 2, 2), (4, 3), (3, 2, 4, 4), (2, 1), (8, 2), (3, 2, 2, 2)),
        images=True,
    ),
    "max_pool2d": Signature(
        ("x",),
        {"kernel_size": 1, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False},
        "max_pool2d",
        ("MaxPool2d",),
        _pool,
        ("kernel_size",),
        calls=_calls_of_x((1, 1, 2, 2), (2, 3, 4, 6), (3, 2, 8, 8), kernel_size=2),
        images=True,
    ),
    "avg_pool2d": Signature(
        ("x",),
        {
            "kernel_size": 1,
            "stride": None,
            "padding": 0,
            "ceil_mode": False,
            "count_include_pad": True,
            "divisor_override": None,
        },
        "avg_pool2d",
        ("AvgPool2d",),
        _pool,
        ("kernel_size",),
        calls=_calls_of_x((1, 1, 2, 2), (2, 3, 4, 6), (3, 2, 8, 8), kernel_size=2),
        images=True,
    ),
    "global_avg_pool2d": Signature(
        ("x",),
        {},
        "global_avg_pool2d",
        ("GlobalAvgPool2d",),
        calls=_calls_of_x((1, 1, 2, 2), (2, 3, 4, 5), (3, 2, 6, 6)),
        images=True,
    ),
    "fused": Signature(
        (),
        {CHAIN: None},
        "fused_chain",
        constants=("running_mean", "running_var"),
        calls=(
            ({"x": (2, 3)}, {CHAIN: "relu | relu"}),
            ({"x": (2, 3), "linear_weight": (4, 3), "linear_bias": None}, {CHAIN: "linear | relu"}),
            ({"x": (2, 3, 4, 4), "conv2d_weight": (2, 3, 3, 3), "conv2d_bias": (2,)}, {CHAIN: "conv2d | relu"}),
        ),
    ),
    "module": Signature((), {}, None, ("Module",), members=_MODULE),
    "sequential": Signature((), {}, None, ("Sequential",), members=(*_MODULE, "append", *_SEQUENCE)),
    "mlp": Signature(
        ("x",),
        {},
        None,
        ("MLP",),
        _mlp,
        ("in_features", "hidden_features", "out_features"),
        calls=(
            (
                {"x": (2, 3), "fc1.weight": (4, 3), "fc1.bias": (4,), "fc2.weight": (2, 4), "fc2.bias": (2,)},
                {},
            ),
        ),
    ),
    "basic_block": Signature(
        ("x",),
        {"stride": 1, "training": False},
        None,
        ("ResidualBlock", "BasicBlock"),
        _basic_block,
        ("in_channels", "out_channels"),
    ),
    "resnet34": Signature(("x",), {"training": False}, None, ("ResNet34",), _resnet34, ("in_channels", "num_classes")),
    "sgd": Signature((), {"momentum": 0.0, "weight_decay": 0.0}, None, ("SGD",), members=("step", "zero_grad")),
}
# what a NumPy function may bring beside it
VJPS = {s.vjp for s in SIGNATURES.values() if s.function} | {SIGNATURES["batch_norm"].vjp_vjp}
CANONICAL = {name for s in SIGNATURES.values() for name in (s.function, *s.classes) if name} | {"Parameter"}

"""PyTorch: its tensors, and its functions and modules as a subject."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 by it
import numpy as np
import torch
from nnspec.adapters.roles import Held, find_held, get, reach
from nnspec.adapters.subject import Subject
from torch import nn

FURTHER_DTYPES: tuple[str, ...] = ("float16", "bfloat16")
AUTOMATIC = True  # every function and module can be differentiated
DEVICE = "cpu"  # where tensors and modules are made
# with which a script begins that carries some of the functions below; and goes on where a device was asked for
PREAMBLE = 'import torch\nfrom torch import nn\n\nDEVICE = "cpu"'
ON_DEVICE = "DEVICE = {device!r}\ntorch.set_default_device(DEVICE)"


def use_device(device: str) -> tuple[str, ...]:
    """Make tensors and modules on a device from here on; the weaker classes of accuracy that torch may be in there.

    RuntimeError where torch has no such device. NVIDIA_TF32_OVERRIDE=0 in the environment turns TF32 off.
    """
    try:
        torch.zeros(1, device=device)
    except AssertionError as error:  # torch was built without it
        raise RuntimeError(str(error)) from None
    global DEVICE
    DEVICE = device
    torch.set_default_device(device)
    short = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return ("T",) if torch.device(device).type == "cuda" and short else ()


# -- tensors and modules; each function stands alone, so that a script that reproduces a failure can carry its source --


def to_native(array: np.ndarray) -> torch.Tensor:
    """A tensor over the same memory; torch knows no negative strides, so those are copied."""
    if any(stride < 0 for stride in array.strides) or not array.flags.writeable:
        array = array.copy()
    if array.dtype.name == "bfloat16":  # which NumPy itself does not know
        tensor = torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array)
    return tensor if DEVICE == "cpu" else tensor.to(DEVICE)


def to_numpy(value: Any) -> np.ndarray:
    """An array over the tensor's memory."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"returned {type(value).__name__}, expected a torch.Tensor")
    value = value.detach().cpu()
    if value.dtype == torch.bfloat16:
        return value.view(torch.uint16).numpy().view("bfloat16")
    return value.numpy()


def construct(cls: type, positional: tuple[Any, ...], keywords: Mapping[str, Any], dtype: np.dtype) -> nn.Module:
    """cls(…) with its floating-point parameters and buffers in `dtype`."""
    return cls(*positional, **keywords).to(getattr(torch, np.dtype(dtype).name))


def load_entries(module: nn.Module, entries: Mapping[str, np.ndarray]) -> None:
    """load_state_dict with the entries given, and attributes that are not saved; the others stay as they are."""
    saved = module.state_dict().keys()
    unsaved = {key: reach(module, key) for key in entries.keys() - saved}
    if unknown := [key for key, (owner, _) in unsaved.items() if owner is None]:
        raise KeyError(min(unknown))
    own = {key: to_native(array.copy()) for key, array in entries.items() if key in saved}
    module.load_state_dict(own, strict=False)
    for key, (owner, name) in unsaved.items():
        before = get(owner, name)
        value: Any = int(entries[key]) if isinstance(before, int) else to_native(entries[key].copy())
        if isinstance(before, nn.Parameter):
            before.data = value
        elif hasattr(owner, "__setitem__"):
            owner[int(name) if name.isdigit() else name] = value
        else:
            setattr(owner, name, value)


def state(module: nn.Module) -> dict[str, np.ndarray]:
    """state_dict() as NumPy arrays, copied."""
    return {key: to_numpy(tensor).copy() for key, tensor in module.state_dict().items()}


def read(module: nn.Module, key: str) -> np.ndarray:
    """A copy of the array at this key of the state, or at this path of attributes. KeyError where there is none."""
    saved = module.state_dict()
    owner, name = reach(module, key)
    value = saved[key] if key in saved else None if owner is None else get(owner, name)
    if isinstance(value, bool) or not isinstance(value, int | torch.Tensor):
        raise KeyError(key)
    return np.array(value) if isinstance(value, int) else to_numpy(value).copy()


def held(module: nn.Module) -> dict[str, Held]:
    """Key -> what the module holds: parameters, buffers, and tensors and whole numbers in attributes, saved or not."""
    own = vars(nn.Module()).keys()

    def members(owner: Any) -> Iterable[tuple[str, Any]]:
        if not isinstance(owner, nn.Module):
            return vars(owner).items()
        attributes = [(name, value) for name, value in vars(owner).items() if name not in own]
        return [*owner._parameters.items(), *owner._buffers.items(), *owner._modules.items(), *attributes]

    def kind(owner: Any, name: str, value: Any) -> tuple[str, tuple[int, ...]] | None:
        if isinstance(value, int) and not isinstance(value, bool):
            return "int", ()
        if not isinstance(value, torch.Tensor):
            return None
        if not value.ndim and not value.is_floating_point():
            return "number", ()
        learns = isinstance(value, nn.Parameter) and value.requires_grad
        return "parameter" if learns else "attribute", tuple(value.shape)

    return find_held(module, members, kind)


def differentiate(
    function: Callable[..., Any],
    vjp: Callable[..., Any] | None,
    operands: Sequence[Any],
    keywords: Mapping[str, Any],
    wanted: Sequence[bool],
    cotangents: Sequence[Any],
) -> list[Any]:
    """By autograd: the gradients of those operands that are wanted."""
    leaves = [a.detach().requires_grad_() if w else a for a, w in zip(operands, wanted, strict=True)]
    results = function(*leaves, **keywords)
    results = results if isinstance(results, tuple | list) else (results,)
    outputs = [y for y, _ in zip(results, cotangents, strict=False)]  # those that there are cotangents for
    asked = [a for a, w in zip(leaves, wanted, strict=True) if w]
    gradients = iter(torch.autograd.grad(outputs, asked, cotangents, allow_unused=True))
    return [next(gradients) if w else None for w in wanted]


def differentiate_again(
    function: Callable[..., Any],
    vjp_vjp: Callable[..., Any] | None,
    operands: Sequence[Any],
    keywords: Mapping[str, Any],
    wanted: Sequence[bool],
    cotangent: torch.Tensor,
    tangent: torch.Tensor,
) -> list[Any]:
    """By autograd, twice: what Σ tangent · (gradient of the first operand) has for gradients."""
    leaves = [a.detach().requires_grad_() if w else a for a, w in zip(operands, wanted, strict=True)]
    y, cotangent = function(*leaves, **keywords), cotangent.detach().requires_grad_()
    [gradient] = torch.autograd.grad(
        y[0] if isinstance(y, tuple | list) else y, leaves[:1], cotangent, create_graph=True
    )
    asked = [cotangent, *(a for a, w in zip(leaves, wanted, strict=True) if w)]
    found = iter(torch.autograd.grad(gradient, asked, tangent, allow_unused=True))
    return [next(found) if w else None for w in (True, *wanted)]


def push_forward_twice(
    function: Callable[..., Any], operands: Sequence[Any], keywords: Mapping[str, Any], tangent: torch.Tensor
) -> torch.Tensor:
    """By torch.func.jvp of torch.func.jvp: the second derivative along a tangent of the first operand."""
    x, *others = operands

    def first(x: torch.Tensor) -> torch.Tensor:
        y = function(x, *others, **keywords)
        return y[0] if isinstance(y, tuple | list) else y

    def slope(x: torch.Tensor) -> torch.Tensor:
        return torch.func.jvp(first, (x,), (tangent,))[1]

    second = torch.func.jvp(slope, (x,), (tangent,))[1]
    return torch.zeros(second.shape, dtype=second.dtype) + second  # one that torch knows to be 0 has no memory


def differentiate_module(module: nn.Module, x: torch.Tensor, cotangent: torch.Tensor) -> dict[str, Any]:
    """By autograd: the gradient of x, and by key that of each parameter."""
    leaf = x.detach().requires_grad_()
    named = {key: p for key, p in module.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(module(leaf), [leaf, *named.values()], cotangent, allow_unused=True)
    return dict(zip(["x", *named], found, strict=True))


def backward(module: nn.Module, x: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    """module(x), after autograd has added its gradients to the `grad` of each parameter."""
    y = module(x)
    if not isinstance(y, torch.Tensor):
        raise TypeError(f"returned {type(y).__name__}, expected a torch.Tensor")
    y.backward(cotangent)
    return y.detach()


def set_training(module: nn.Module, training: bool) -> None:
    """module.train(training)"""
    module.train(training)


# -- the subject -------------------------------------------------------------------------------------------------------


def batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
    """torch updates the running statistics in place; here the new ones are returned."""
    mean, var = running_mean.clone(), running_var.clone()
    y = torch.nn.functional.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
    return y, mean, var


def global_avg_pool2d(x):
    """torch's adaptive pool to 1×1, without the two dimensions of size 1."""
    return torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(-3)


class GlobalAvgPool2d(nn.Module):
    """(N, C, H, W) -> (N, C)"""

    def forward(self, x):
        """The mean over H×W."""
        return global_avg_pool2d(x)


class MLP(nn.Module):
    """Linear layers fc1, fc2, … with a ReLU between each two of them."""

    def __init__(self, in_features, hidden_features, out_features):
        super().__init__()
        hidden = [hidden_features] if isinstance(hidden_features, int) else hidden_features
        sizes = [in_features, *hidden, out_features]
        for n, (inputs, outputs) in enumerate(itertools.pairwise(sizes), start=1):
            self.add_module(f"fc{n}", nn.Linear(inputs, outputs))

    def forward(self, x):
        """(…, in_features) -> (…, out_features)"""
        *hidden, last = self.children()
        for layer in hidden:
            x = nn.functional.relu(layer(x))
        return last(x)


class ResidualBlock(nn.Module):
    """torchvision's BasicBlock out of torch's own modules."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))
        else:
            self.downsample = None

    def forward(self, x):
        """(N, C, H, W) -> (N, O, OH, OW)"""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet34(nn.Module):
    """torchvision's ResNet-34 out of torch's own modules; `width` channels leave the stem."""

    def __init__(self, in_channels=3, num_classes=1000, width=64):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        channels = width
        for stage, (factor, blocks) in enumerate(((1, 3), (2, 4), (4, 6), (8, 3)), start=1):
            first = ResidualBlock(channels, factor * width, stride=1 if stage == 1 else 2)
            channels = factor * width
            rest = [ResidualBlock(channels, channels) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
        self.avgpool, self.fc = GlobalAvgPool2d(), nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        """(N, C, H, W) -> (N, num_classes)"""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x))


def declines(stem: str, arrays: Mapping[str, np.ndarray | None], arguments: Mapping[str, Any]) -> str | None:
    """Name the defect that forbids a call: seen in torch 2.13, whose oneDNN then reads from address 0 and aborts."""
    x, weight, bias = (arrays.get(name) for name in ("x", "weight", "bias"))
    if torch.device(DEVICE).type != "cpu":
        return None
    if stem != "conv2d" or x is None or weight is None or x.flags.c_contiguous:
        return None
    if bias is None and x.itemsize > 2:
        return None
    stride, padding, dilation = (np.broadcast_to(arguments[name], 2)[1] for name in ("stride", "padding", "dilation"))
    columns, kernel_columns = x.shape[3], weight.shape[3]
    if kernel_columns != 1 or dilation < 2:
        return None
    windows = np.arange(-padding, columns + padding, stride)
    if np.any((windows >= 0) & (windows < columns)):
        return None
    where = "channels last, a kernel one column wide, dilated, all of its windows in the padding"
    return f"torch {torch.__version__}: oneDNN ends the process ({where})"


TRAITS: dict[str, Any] = {"declines": declines}  # fields of every subject on torch's tensors

_FUNCTIONS = {
    "einsum": "torch.einsum",
    **{name: f"torch.nn.functional.{name}" for name in ("linear", "relu", "conv2d", "conv_transpose2d")},
    **{name: f"torch.nn.functional.{name}" for name in ("max_pool2d", "avg_pool2d")},
}
_CLASSES = {
    **{f"{name}": f"torch.nn.{name}" for name in ("Module", "Parameter", "Sequential", "Linear", "ReLU", "Conv2d")},
    **{
        f"{name}": f"torch.nn.{name}"
        for name in ("ConvTranspose2d", "BatchNorm1d", "BatchNorm2d", "MaxPool2d", "AvgPool2d")
    },
    "SGD": "torch.optim.SGD",
}
_OURS = {f.__name__: f for f in (batch_norm, global_avg_pool2d, GlobalAvgPool2d, MLP, ResidualBlock, ResNet34)}


def recipe(name: str) -> str:
    """The line of a script that defines a name."""
    path = {**_FUNCTIONS, **_CLASSES}.get(name)
    return f"{name} = {path}" if path else f"from nnspec.adapters.for_torch import {name}"


def subject() -> Subject:
    """torch.nn.functional and torch.nn; what torch lacks as one piece is composed of its modules above."""

    def resolve(path: str) -> Any:
        return operator.attrgetter(path.removeprefix("torch."))(torch)

    functions = {name: resolve(path) for name, path in _FUNCTIONS.items()}
    classes = {name: resolve(path) for name, path in _CLASSES.items()}
    return Subject(
        name="torch",
        framework=__import__("sys").modules[__name__],
        functions=functions | {n: f for n, f in _OURS.items() if not isinstance(f, type)},
        classes=classes | {n: c for n, c in _OURS.items() if isinstance(c, type)},
        versions={"torch": str(torch.__version__)},
        further_dtypes=FURTHER_DTYPES,
        recipe=recipe,
        **TRAITS,
    )

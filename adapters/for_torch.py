"""PyTorch: its tensors, and its functions and modules as a subject."""

from __future__ import annotations

import importlib
import operator
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 by it
import numpy as np
from nnspec.adapters.objects import Objects, get, reach
from nnspec.adapters.signatures import CANONICAL
from nnspec.adapters.subject import Subject
from nnspec.adapters.torch_defects import defect
from nnspec.adapters.views import whole_of

if TYPE_CHECKING:
    import torch
    from torch import nn

NAMESPACES = ("torch.nn.functional", "torch.nn", "torch", "torch.optim")  # where torch has what the pages name


class Torch(Objects):
    """PyTorch. Modules are differentiated by autograd."""

    name = "torch"
    packages: tuple[str, ...] = ("torch",)
    further_dtypes = ("float16", "bfloat16")
    strided = True
    preamble = 'import torch\nfrom torch import nn\n\ndevice = "cpu"'
    on_device = "device = {device!r}\ntorch.set_default_device(device)"
    device = "cpu"  # where tensors and modules are made
    fills = True  # whether torch.utils.deterministic.fill_uninitialized_memory has an effect

    def __init__(self, profile: str = "quick") -> None:
        global torch, nn
        import torch
        from torch import nn

    # -- tensors -------------------------------------------------------------------------------------------------------

    def is_array(self, value: Any) -> bool:
        """Return whether a value is a tensor."""
        return isinstance(value, torch.Tensor)

    def to_native(self, array: np.ndarray) -> torch.Tensor:
        """Return a tensor over the same memory; torch has no negative strides, so that those are copied.

        A view of an array becomes a view of a tensor, with its place there, on another device too: a kernel may ask
        for it.
        """
        if min(array.strides, default=0) < 0 or not array.flags.writeable:
            array = array.copy()
        whole = _viewed(array)
        if whole.dtype.kind == "V":  # bfloat16, which NumPy itself does not know; to ask for its name takes longer
            tensor = torch.from_numpy(whole.view(np.uint16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(whole)
        tensor = tensor if self.device == "cpu" else tensor.to(self.device)
        if whole is not array:
            begin = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
            strides = [stride // array.itemsize for stride in array.strides]
            tensor = tensor.as_strided(array.shape, strides, begin // array.itemsize)
        return tensor

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return an array over the tensor's memory."""
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"returned {type(value).__name__}, expected a torch.Tensor")
        value = value.detach().cpu()
        half = value.dtype == torch.bfloat16  # which NumPy itself does not know
        return value.view(torch.uint16).numpy().view("bfloat16") if half else value.numpy()

    def sketched(self, function: Callable[[], Any]) -> list[tuple[tuple[int, ...], str]]:
        """Return the shape and the dtype of each tensor that a function returns; no memory is taken for most."""
        tensors = _made_on_meta(function)
        if other := next((value for value in tensors if not isinstance(value, torch.Tensor)), None):
            raise TypeError(f"returned {type(other).__name__}, expected a torch.Tensor")
        return [(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for tensor in tensors]

    def versions(self) -> dict[str, str]:
        """Return torch's version."""
        return {"torch": str(torch.__version__)}

    def use_device(self, device: str) -> tuple[str, ...]:
        """Make tensors and modules on a device; return the weaker classes of accuracy that torch may be in there.

        RuntimeError where torch has no such device. NVIDIA_TF32_OVERRIDE=0 in the environment turns TF32 off.
        """
        try:
            torch.zeros(1, device=device)
        except AssertionError as error:  # torch was built without it
            raise RuntimeError(str(error)) from None
        self.device = device
        torch.set_default_device(device)
        short = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
        return ("T",) if torch.device(device).type == "cuda" and short else ()

    def known_defect(
        self, stem: str, arrays: Mapping[str, np.ndarray | None], arguments: Mapping[str, Any]
    ) -> str | None:
        """Name the defect of torch 2.13 on a CPU that forbids a call: an abort, foreign memory, or a layout refused."""
        found = defect(stem, arrays, arguments) if torch.device(self.device).type == "cpu" else None
        return found and f"torch {torch.__version__}: {found}"

    def stream(self) -> AbstractContextManager[Any]:
        """Return a CUDA stream of its own, on such a device."""
        on_cuda = torch.device(self.device).type == "cuda"
        return torch.cuda.stream(torch.cuda.Stream(self.device)) if on_cuda else nullcontext()

    # -- memory --------------------------------------------------------------------------------------------------------

    def surroundings(self, native: torch.Tensor) -> np.ndarray:
        """Return a copy of the tensor's storage."""
        return self.to_numpy(native.new_empty(0).set_(native.untyped_storage())).copy()

    def dirty(self, arrays: Sequence[np.ndarray]) -> Callable[[], None]:
        """Fill and free tensors of each size; for NaN, also have torch itself fill what it allocates."""
        for array in arrays:
            tensor = self.to_native(array)
            filled = [tensor.clone() for _ in range(16)]
            del filled
        before = torch.get_deterministic_debug_mode()
        if self.fills and any(np.isnan(array).any() for array in arrays):
            torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import torch's compiler
        return lambda: torch.set_deterministic_debug_mode(before)

    # -- derivatives ---------------------------------------------------------------------------------------------------

    def vjp(self, function: Callable[..., Any], operands: Sequence[Any], cotangents: Sequence[Any]) -> Sequence[Any]:
        """Return the gradients by autograd; inside another vjp they can be differentiated again."""
        again = any(a.requires_grad for a in (*operands, *cotangents))
        leaves = [a if a.requires_grad else a.detach().requires_grad_() for a in operands]
        results = function(*leaves)
        return torch.autograd.grad(results, leaves, cotangents, allow_unused=True, create_graph=again)

    def jvp(self, function: Callable[..., Any], operands: Sequence[Any], tangents: Sequence[Any]) -> Sequence[Any]:
        """Return the derivatives by torch.func.jvp."""
        found = torch.func.jvp(function, tuple(operands), tuple(tangents))[1]
        return [torch.zeros(t.shape, dtype=t.dtype) + t for t in found]  # one that torch knows to be 0 has no memory

    # -- modules -------------------------------------------------------------------------------------------------------

    def construct(self, cls: type, positional: tuple[Any, ...], keywords: Mapping[str, Any], dtype: np.dtype) -> Any:
        """Return cls(…) with its floating-point parameters and buffers in `dtype`."""
        return cls(*positional, **keywords).to(getattr(torch, np.dtype(dtype).name))

    def load_entries(self, module: Any, entries: Mapping[str, np.ndarray]) -> None:
        """Load the entries that state_dict() has, assign attributes that it has not, and leave the others."""
        saved = module.state_dict().keys()
        unsaved = sorted(entries.keys() - saved)
        if unknown := [key for key in unsaved if reach(module, key)[0] is None]:
            raise KeyError(unknown[0])
        own = {key: self.to_native(array.copy()) for key, array in entries.items() if key in saved}
        module.load_state_dict(own, strict=False)
        for key in unsaved:
            self.assign(module, key, entries[key])

    def is_holder(self, value: Any) -> bool:
        """Return whether a value is a parameter, whose data is replaced."""
        return isinstance(value, nn.Parameter)

    def learns(self, value: Any) -> bool:
        """Return whether a tensor is a parameter that is learned."""
        return isinstance(value, nn.Parameter) and value.requires_grad

    def members(self, owner: Any) -> Iterable[tuple[str, Any]]:
        """Return parameters, buffers, modules and attributes, saved or not."""
        if not isinstance(owner, nn.Module):
            return vars(owner).items()
        own = vars(nn.Module()).keys()
        attributes = [(name, value) for name, value in vars(owner).items() if name not in own]
        return [*owner._parameters.items(), *owner._buffers.items(), *owner._modules.items(), *attributes]

    def differentiate_module(self, module: Any, x: Any, cotangent: Any) -> dict[str, Any]:
        """Return the gradient of x by autograd, and by key that of each parameter."""
        leaf = x.detach().requires_grad_()
        named = {key: p for key, p in module.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(module(leaf), [leaf, *named.values()], cotangent, allow_unused=True)
        return dict(zip(["x", *named], found, strict=True))

    def differentiate_part(self, module: Any, x: Any, cotangent: Any, wanted: Collection[str]) -> dict[str, Any]:
        """Return the wanted gradients by autograd; x and every parameter that is not wanted do not require one."""
        leaf = x.detach().requires_grad_("x" in wanted)
        for key, parameter in module.named_parameters():
            parameter.requires_grad_(key in wanted)
        chosen = {key: leaf if key == "x" else module.get_parameter(key) for key in wanted}
        found = torch.autograd.grad(module(leaf), [*chosen.values()], cotangent, allow_unused=True)
        return dict(zip(chosen, found, strict=True))

    def follows(self, module: Any, key: str) -> bool:
        """Return whether a tensor requires a gradient: it is a leaf of a graph, or holds the graph of a call."""
        return bool(get(*reach(module, key)).requires_grad)

    def backward(self, module: Any, x: Any, cotangent: Any) -> Any:
        """Return module(x), after autograd has added its gradients to the `grad` of each parameter."""
        y = module(x)
        if not isinstance(y, torch.Tensor):
            raise TypeError(f"returned {type(y).__name__}, expected a torch.Tensor")
        y.backward(cotangent)
        return y.detach()

    def watch(self, module: Any, name: str, note: Callable[[str, Any, Any], None]) -> Callable[[], None]:
        """Hook the module's forward pass."""
        handle = module.register_forward_hook(lambda _, given, result: note(name, given[0], result))
        return lambda: handle.remove()

    def projection(self, in_channels: int, out_channels: int, stride: Any) -> Any:
        """Return a Sequential of torch's layers."""
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
        )

    def beside_optimisers(self) -> dict[str, tuple[type, str]]:
        """Return torch's own classes. Its Module is not judged: it is not in the file."""
        module = type("Module", (nn.Module,), {"nnspec_judges": False})
        return {"Parameter": (nn.Parameter, recipe("Parameter")), "Module": (module, recipe("Module"))}

    def beside_sequences(self) -> dict[str, tuple[type, str]]:
        """Return torch's own layers, which are not judged either."""
        layers = (type(cls.__name__, (cls,), {"nnspec_judges": False}) for cls in (nn.Linear, nn.ReLU))
        return {cls.__name__: (cls, recipe(cls.__name__)) for cls in layers}

    # -- the subject ---------------------------------------------------------------------------------------------------

    def subject(self) -> Subject:
        """Return what torch_blocks.py composes of torch, and what torch itself has under the names of the pages."""
        composed = _composed()
        found = {name: getattr(composed, name, None) or _of_torch(name) for name in sorted(CANONICAL)}
        known = {name: one for name, one in found.items() if one is not None}
        return Subject.of(
            self,
            functions={name: one for name, one in known.items() if not isinstance(one, type)},
            classes={name: one for name, one in known.items() if isinstance(one, type)},
            recipe=recipe,
        )


def recipe(name: str) -> str:
    """Return the line of a script that defines a name."""
    if hasattr(_composed(), name):
        return f"from nnspec.adapters.torch_blocks import {name}"
    return f"{name} = {_path(name)}"


def _composed() -> types.ModuleType:
    return importlib.import_module("nnspec.adapters.torch_blocks")


def _made_on_meta(function: Callable[[], Any]) -> Any:
    try:
        with torch.device("meta"):
            return function()
    except Exception:  # it does what needs values
        return function()


def _viewed(array: np.ndarray) -> np.ndarray:
    """Return the contiguous array of the same dtype that an array is a view of, or the array itself."""
    whole = whole_of(array)
    return whole if whole.dtype == array.dtype and whole.flags.c_contiguous else array


def _of_torch(name: str) -> Any:
    path = _path(name)
    return path and operator.attrgetter(path.removeprefix("torch."))(torch)


def _path(name: str) -> str | None:
    """Return where torch has something of this name; None if it has nothing."""
    places = (space for space in NAMESPACES if hasattr(importlib.import_module(space), name))
    return next((f"{space}.{name}" for space in places), None)

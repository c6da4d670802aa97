"""JAX: its arrays, and the blocks as one writes them with jax.numpy, jax.lax and jax.nn, as a subject."""

from __future__ import annotations

import importlib
import inspect
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from nnspec.adapters import networks
from nnspec.adapters.objects import Objects, get, reach
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp

# compiles four to nine times faster, to code that computes the same more slowly
FAST = (
    "--xla_cpu_use_fusion_emitters=false", "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
)  # fmt: skip
_checks_done = itertools.count(1)


class JAX(Objects):
    """JAX, with float64, each operation run by itself."""

    name = "jax"
    packages: tuple[str, ...] = ("jax", "jaxlib")
    further_dtypes = ("float16", "bfloat16")
    flushes = True  # on a CPU, XLA takes subnormals for 0
    compiles_per_shape = True
    preamble = 'import jax\nimport jax.numpy as jnp\n\njax.config.update("jax_enable_x64", True)'
    on_device = 'jax.config.update("jax_default_device", jax.devices({device!r})[0])'

    def __init__(self, profile: str = "quick") -> None:
        global jax, jnp
        self.prepare(profile)
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)

    @classmethod
    def prepare(cls, profile: str) -> None:
        """Switch on float64, and for a quick run compile sooner."""
        os.environ.setdefault("JAX_ENABLE_X64", "1")
        flags = os.environ.get("XLA_FLAGS", "")
        if profile == "quick" and FAST[0] not in flags and _version().startswith("0.10."):  # others abort at the flags
            os.environ["XLA_FLAGS"] = " ".join([flags, *FAST])

    # -- arrays --------------------------------------------------------------------------------------------------------

    def is_array(self, value: Any) -> bool:
        """Return whether a value is a JAX array."""
        return isinstance(value, jax.Array)

    def to_native(self, array: np.ndarray) -> jax.Array:
        """Return a JAX array, which is always contiguous. `jnp.asarray` would compile a program for each new shape."""
        return jax.device_put(array, may_alias=False)

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return a read-only array over the same memory."""
        if not isinstance(value, jax.Array):
            raise TypeError(f"returned {type(value).__name__}, expected a jax.Array")
        return np.asarray(value)

    def versions(self) -> dict[str, str]:
        """Return JAX's version."""
        return {"jax": str(jax.__version__)}

    def use_device(self, device: str) -> tuple[str, ...]:
        """Make arrays on a device ("cpu", "gpu", "tpu") from here on. RuntimeError where JAX has no such device."""
        jax.config.update("jax_default_device", jax.devices(device)[0])
        return ()

    def forget(self) -> None:
        """Free compiled programs, every tenth time: each takes a megabyte."""
        if next(_checks_done) % 10 == 0:
            jax.clear_caches()

    def known_defect(
        self, stem: str, arrays: Mapping[str, np.ndarray | None], arguments: Mapping[str, Any]
    ) -> str | None:
        """Name the defect of XLA that forbids a call; see jax_blocks.py."""
        blocks = importlib.import_module("nnspec.adapters.jax_blocks")
        found: str | None = blocks.declines(stem, arrays, arguments)
        return found

    # -- derivatives ---------------------------------------------------------------------------------------------------

    def vjp(self, function: Callable[..., Any], operands: Sequence[Any], cotangents: Sequence[Any]) -> Sequence[Any]:
        """Return the gradients by jax.vjp."""
        _, pullback = jax.vjp(function, *operands)
        return pullback(tuple(cotangents))

    def jvp(self, function: Callable[..., Any], operands: Sequence[Any], tangents: Sequence[Any]) -> Sequence[Any]:
        """Return the derivatives by jax.jvp."""
        return jax.jvp(function, tuple(operands), tuple(tangents))[1]

    def differentiate_module(self, module: Any, x: Any, cotangent: Any) -> dict[str, Any]:
        """Return the gradient of x by jax.vjp, and by key that of each parameter.

        A module without holders of gradients has no marks of what a parameter is: each floating-point array counts.
        """
        _, pullback = self.pulled(module, x)
        dx, gradients = pullback(cotangent)
        return {"x": dx, **gradients}

    def backward(self, module: Any, x: Any, cotangent: Any) -> Any:
        """Return module(x), and add its gradients to the `grad` of each parameter."""
        y, pullback = self.pulled(module, x)
        for key, gradient in pullback(cotangent)[1].items():
            holder = get(*reach(module, key))
            if self.is_holder(holder):
                holder.grad = gradient if holder.grad is None else holder.grad + gradient
        return y

    def pulled(self, module: Any, x: Any) -> tuple[Any, Callable[..., Any]]:
        """Return module(x) and its pullback. What the call leaves in the module stays there, as after any call."""
        entries = self.arrays_in(module)
        before = {key: self.array_of(entry) for key, entry in entries.items()}
        learnt = {key: a for key, a in before.items() if jnp.issubdtype(a.dtype, jnp.floating)}
        if any(hasattr(entry, "grad") for entry in entries.values()):
            learnt = {key: a for key, a in learnt.items() if hasattr(entries[key], "grad")}

        def call(x: Any, learnt: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            self.put(module, learnt)
            y = module(x)
            return y, {key: self.array_of(get(*reach(module, key))) for key in entries}

        after = before
        try:
            y, pullback, after = jax.vjp(call, x, learnt, has_aux=True)
        finally:
            self.put(module, after)
        return y, pullback

    def arrays_in(self, module: Any) -> dict[str, Any]:
        """Return path -> array, or holder of one, in a module and in the objects, lists and mappings below it."""
        found: dict[str, Any] = {}
        seen: set[int] = set()
        pending = [("", module)]
        while pending:
            before, owner = pending.pop(0)
            if id(owner) in seen:
                continue
            seen.add(id(owner))
            members = dict(enumerate(owner)) if isinstance(owner, list | tuple) else owner
            for name, value in list((members if isinstance(members, dict) else vars(members)).items()):
                plain = inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value)
                if isinstance(self.array_of(value), jax.Array):
                    found[f"{before}{name}"] = value
                elif isinstance(value, list | tuple | dict) or (hasattr(value, "__dict__") and not plain):
                    pending.append((f"{before}{name}.", value))
        return found

    def put(self, module: Any, arrays: Mapping[str, Any]) -> None:
        """Assign JAX arrays as they are, also those that stand for arrays while a function is traced."""
        for key, array in arrays.items():
            owner, name = reach(module, key)
            if self.is_holder(before := get(owner, name)):
                before.data = array
            elif hasattr(owner, "__setitem__"):
                owner[int(name) if name.isdigit() else name] = array
            else:
                setattr(owner, name, array)

    # -- the subject ---------------------------------------------------------------------------------------------------

    def subject(self) -> Subject:
        """Return the blocks of jax_blocks.py, each operation run by itself, as JAX does without jax.jit."""
        blocks = importlib.import_module("nnspec.adapters.jax_blocks")
        names = (str(one.function) for one in SIGNATURES.values())
        functions = {name: getattr(blocks, name) for name in names if hasattr(blocks, name)}
        made = "networks.networks_of(jax_blocks.init, jax_blocks.apply)"

        def recipe(name: str) -> str:
            if name in functions:
                return f"from nnspec.adapters.jax_blocks import {name}"
            return f"from nnspec.adapters import jax_blocks, networks\n{name} = {made}[{name!r}]"

        classes = networks.networks_of(blocks.init, blocks.apply)
        return Subject.of(self, functions=functions, classes=classes, recipe=recipe)


def _version() -> str:
    try:
        return metadata.version("jax")
    except metadata.PackageNotFoundError:
        return ""

"""JAX: its arrays, and the blocks as one writes them with jax.numpy, jax.lax and jax.nn, as a subject."""

from __future__ import annotations

import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from nnspec.adapters.jax_blocks import declines
from nnspec.adapters.roles import Held, find_held, get, reach
from nnspec.adapters.subject import Lacks, Subject

FURTHER_DTYPES: tuple[str, ...] = ("float16", "bfloat16")
AUTOMATIC = True  # every function and module can be differentiated
# with which a script begins that carries some of the functions below; without x64 there is no float64
PREAMBLE = 'import jax\nimport jax.numpy as jnp\n\njax.config.update("jax_enable_x64", True)'
ON_DEVICE = 'jax.config.update("jax_default_device", jax.devices({device!r})[0])'  # where a device was asked for
jax.config.update("jax_enable_x64", True)
if os.environ.get("NNSPEC_PROFILE") == "quick" and jax.__version_info__[:2] == (0, 10):  # XLA aborts at unknown flags
    # compiles four to nine times faster, to code that computes the same more slowly
    fast = "xla_cpu_use_fusion_emitters=false xla_backend_optimization_level=0 xla_cpu_parallel_codegen_split_count=1"
    flags = [os.environ.get("XLA_FLAGS", ""), *(f"--{flag}" for flag in fast.split())]
    os.environ["XLA_FLAGS"] = " ".join(flags)


def use_device(device: str) -> tuple[str, ...]:
    """Make arrays on a device ("cpu", "gpu", "tpu") from here on. RuntimeError where JAX has no such device."""
    jax.config.update("jax_default_device", jax.devices(device)[0])
    return ()


def forget(called: Iterator[int] = itertools.count(1)) -> None:  # noqa: B008
    """Every tenth time: each program that was compiled for a shape takes a megabyte."""
    if next(called) % 10 == 0:
        jax.clear_caches()


# fields of every subject on JAX's arrays: on a CPU, XLA takes subnormals for 0
TRAITS: dict[str, Any] = {"flushes": True, "forget": forget, "declines": declines}

# -- arrays and modules; each function stands alone, so that a script that reproduces a failure can carry its source ---


def to_native(array: np.ndarray) -> jax.Array:
    """A JAX array, which is always contiguous."""
    return jnp.asarray(array)


def to_numpy(value: Any) -> np.ndarray:
    """A read-only array over the same memory."""
    if not isinstance(value, jax.Array):
        raise TypeError(f"returned {type(value).__name__}, expected a jax.Array")
    return np.asarray(value)


def construct(cls: type, positional: tuple[Any, ...], keywords: Mapping[str, Any], dtype: np.dtype) -> Any:
    """cls(…), with `dtype` where its constructor takes one."""
    own = {"dtype": dtype} if "dtype" in inspect.signature(cls).parameters else {}
    return cls(*positional, **keywords, **own)


def load_entries(module: Any, entries: Mapping[str, np.ndarray]) -> None:
    """Assign each array to the attribute at its dotted key."""
    for key, array in entries.items():
        owner, name = reach(module, key)
        if owner is None:
            raise KeyError(key)
        value = int(array) if isinstance(get(owner, name), int) else jnp.asarray(array)
        if isinstance(owner, list):
            owner[int(name)] = value
        elif isinstance(owner, dict):
            owner[name] = value
        else:
            setattr(owner, name, value)


def state(module: Any) -> dict[str, np.ndarray]:
    """The attributes that are arrays, copied."""
    return {key: read(module, key) for key, found in held(module).items() if found.kind != "int"}


def read(module: Any, key: str) -> np.ndarray:
    """A copy of the array at this path of attributes. KeyError where there is none."""
    owner, name = reach(module, key)
    value = None if owner is None else get(owner, name)
    if isinstance(value, bool) or not isinstance(value, jax.Array | int):
        raise KeyError(key)
    return np.array(value)


def held(module: Any) -> dict[str, Held]:
    """Path -> what the module holds: arrays, and whole numbers."""

    def members(owner: Any) -> Iterable[tuple[str, Any]]:
        return vars(owner).items()

    def kind(owner: Any, name: str, value: Any) -> tuple[str, tuple[int, ...]] | None:
        if isinstance(value, int) and not isinstance(value, bool):
            return "int", ()
        if not isinstance(value, jax.Array):
            return None
        whole = not value.ndim and not jnp.issubdtype(value.dtype, jnp.floating)
        return "number" if whole else "attribute", value.shape

    return find_held(module, members, kind)


def differentiate(
    function: Callable[..., Any],
    vjp: Callable[..., Any] | None,
    operands: Sequence[Any],
    keywords: Mapping[str, Any],
    wanted: Sequence[bool],
    cotangents: Sequence[Any],
) -> list[Any]:
    """By jax.vjp: the gradients of those operands that are wanted."""

    def of_wanted(*arrays: Any) -> list[Any]:
        rest = iter(arrays)
        results = function(*(next(rest) if w else a for a, w in zip(operands, wanted, strict=True)), **keywords)
        results = results if isinstance(results, tuple | list) else (results,)
        return [y for y, _ in zip(results, cotangents, strict=False)]  # those that there are cotangents for

    _, pullback = jax.vjp(of_wanted, *(a for a, w in zip(operands, wanted, strict=True) if w))
    gradients = iter(pullback(list(cotangents)))
    return [next(gradients) if w else None for w in wanted]


def differentiate_again(
    function: Callable[..., Any],
    vjp_vjp: Callable[..., Any] | None,
    operands: Sequence[Any],
    keywords: Mapping[str, Any],
    wanted: Sequence[bool],
    cotangent: Any,
    tangent: Any,
) -> list[Any]:
    """By jax.vjp of jax.vjp: what Σ tangent · (gradient of the first operand) has for gradients."""
    chosen = [n for n, w in enumerate(wanted) if w]

    def gradient(cotangent: Any, *arrays: Any) -> Any:
        given = {**dict(enumerate(operands)), **dict(zip(chosen, arrays, strict=True))}

        def first(x: Any) -> Any:
            y = function(x, *(given[n] for n in range(1, len(operands))), **keywords)
            return y[0] if isinstance(y, tuple | list) else y

        return jax.vjp(first, given[0])[1](cotangent)[0]

    found = iter(jax.vjp(gradient, cotangent, *(operands[n] for n in chosen))[1](tangent))
    return [next(found) if w else None for w in (True, *wanted)]


def push_forward_twice(
    function: Callable[..., Any], operands: Sequence[Any], keywords: Mapping[str, Any], tangent: Any
) -> Any:
    """By jax.jvp of jax.jvp: the second derivative along a tangent of the first operand."""
    x, *others = operands

    def first(x: Any) -> Any:
        y = function(x, *others, **keywords)
        return y[0] if isinstance(y, tuple | list) else y

    def slope(x: Any) -> Any:
        return jax.jvp(first, (x,), (tangent,))[1]

    return jax.jvp(slope, (x,), (tangent,))[1]


def differentiate_module(module: Any, x: Any, cotangent: Any) -> dict[str, Any]:
    """By jax.vjp: the gradient of x, and by name that of each attribute that is an array of floating point."""
    before = dict(vars(module))
    held = {n: a for n, a in before.items() if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jnp.floating)}

    def call(x: Any, held: dict[str, Any]) -> Any:
        vars(module).update(held)
        return module(x)

    try:
        _, pullback = jax.vjp(call, x, held)
    finally:
        vars(module).update(before)  # what was put there to be traced is of no use afterwards
    dx, gradients = pullback(cotangent)
    return {"x": dx, **gradients}


def backward(module: Any, x: Any, cotangent: Any) -> Any:
    """Nothing is known of where a JAX module would leave its gradients for an optimiser."""
    raise Lacks("JAX has no place where gradients wait for an optimiser")


def set_training(module: Any, training: bool) -> None:
    """train() or eval() where the module has them, else its attribute `training`."""
    if hasattr(module, "train") and hasattr(module, "eval"):
        module.train() if training else module.eval()
    else:
        module.training = training


# -- the subject -------------------------------------------------------------------------------------------------------

BLOCKS = (
    "einsum", "linear", "relu", "conv2d", "conv_transpose2d", "batch_norm",
    "max_pool2d", "avg_pool2d", "global_avg_pool2d",
)  # fmt: skip


def subject() -> Subject:
    """The functions of jax_blocks.py, each operation run by itself, as JAX does without jax.jit."""
    from nnspec.adapters import jax_blocks

    return Subject(
        name="jax",
        framework=sys.modules[__name__],
        further_dtypes=FURTHER_DTYPES,
        functions={name: getattr(jax_blocks, name) for name in BLOCKS},
        versions={"jax": jax.__version__},
        recipe=lambda name: f"from nnspec.adapters.jax_blocks import {name}",
        **TRAITS,
    )

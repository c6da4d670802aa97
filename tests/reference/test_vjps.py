"""Every VJP of the reference against central differences in longdouble, the adjoint identity, and torch's autograd."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from nnspec.adapters.signatures import SIGNATURES
from nnspec.reference.avg_pool2d import avg_pool2d, avg_pool2d_vjp
from nnspec.reference.batch_norm import batch_norm, batch_norm_vjp, batch_norm_vjp_vjp
from nnspec.reference.conv2d import conv2d, conv2d_vjp
from nnspec.reference.conv_transpose2d import conv_transpose2d, conv_transpose2d_vjp
from nnspec.reference.einsum import einsum, einsum_vjp
from nnspec.reference.fused import fused_chain, fused_chain_vjp
from nnspec.reference.global_avg_pool2d import global_avg_pool2d, global_avg_pool2d_vjp
from nnspec.reference.linear import linear, linear_vjp
from nnspec.reference.max_pool2d import max_pool2d, max_pool2d_vjp
from nnspec.reference.relu import relu, relu_vjp

EQUATIONS = {
    "ij,jk->ik": ((3, 4), (4, 5)),
    "ii->i": ((3, 3),),
    "iij,j->": ((3, 3, 2), (2,)),
    "ij,j->i": ((1, 4), (4,)),
    "ij,ij->i": ((3, 1), (3, 4)),
    "bij,bjk,kb->bi": ((2, 3, 4), (2, 4, 5), (5, 2)),
    "ij->j": ((3, 4),),
    "...ij,...jk->...ik": ((2, 1, 3, 4), (5, 4, 2)),
    "...i->i": ((2, 3, 4),),
    "i,j": ((3,), (2,)),
    "aba->b": ((2, 3, 2),),
    "i,i,i->": ((3,), (1,), (3,)),
    "ij,kl->il": ((2, 3), (4, 5)),
    "->": ((),),
    "ij,jk->ik#empty": ((2, 0), (0, 3)),
}


@dataclass
class Operation:
    """A function, its vjp, and operands that fit; `smooth` where no case lies at a kink."""

    function: Callable[..., Any]
    vjp: Callable[..., Any]
    shapes: tuple[tuple[int, ...] | None, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    equation: tuple[str, ...] = ()
    torch: str = ""
    positive: tuple[int, ...] = ()  # operands that are variances

    def operands(self, seed: int, dtype: Any = np.longdouble) -> list[Any]:
        rng = np.random.default_rng(seed)
        drawn = [None if s is None else np.array(rng.standard_normal(s)) for s in self.shapes]
        for n in self.positive:
            drawn[n] = np.square(drawn[n]) + 0.5
        return [None if a is None else a.astype(dtype) for a in drawn]

    def results(self, operands: list[Any]) -> tuple[Any, ...]:
        results = self.function(*self.equation, *operands, **self.arguments)
        return results if isinstance(results, tuple) else (results,)

    def gradients(self, cotangents: tuple[Any, ...], operands: list[Any]) -> tuple[Any, ...]:
        cotangent = cotangents[0] if len(cotangents) == 1 else cotangents
        gradients = self.vjp(cotangent, *self.equation, *operands, **self.arguments)
        return gradients if isinstance(gradients, tuple) else (gradients,)


IMAGE = (2, 4, 7, 6)
OPERATIONS = {
    "linear": Operation(linear, linear_vjp, ((2, 3, 4), (5, 4), (5,)), torch="nn.functional.linear"),
    "linear no bias": Operation(linear, linear_vjp, ((4,), (5, 4), None), torch="nn.functional.linear"),
    "relu": Operation(relu, relu_vjp, ((3, 4),), torch="nn.functional.relu"),
    "conv2d": Operation(
        conv2d,
        conv2d_vjp,
        (IMAGE, (6, 2, 3, 2), (6,)),
        {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2},
        torch="nn.functional.conv2d",
    ),
    "conv2d plain": Operation(conv2d, conv2d_vjp, (IMAGE, (3, 4, 2, 3), None), torch="nn.functional.conv2d"),
    "conv_transpose2d": Operation(
        conv_transpose2d,
        conv_transpose2d_vjp,
        ((2, 4, 5, 3), (4, 3, 3, 2), (6,)),
        {"stride": (2, 1), "padding": (1, 1), "dilation": (1, 3), "groups": 2, "output_padding": (1, 2)},
        torch="nn.functional.conv_transpose2d",
    ),
    "max_pool2d": Operation(
        max_pool2d,
        max_pool2d_vjp,
        (IMAGE,),
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1), "dilation": (1, 2), "ceil_mode": True},
        torch="nn.functional.max_pool2d",
    ),
    **{
        f"avg_pool2d {include} {divisor}": Operation(
            avg_pool2d,
            avg_pool2d_vjp,
            (IMAGE,),
            {
                "kernel_size": (3, 2),
                "stride": (2, 3),
                "padding": (1, 1),
                "ceil_mode": True,
                "count_include_pad": include,
                "divisor_override": divisor,
            },
            torch="nn.functional.avg_pool2d",
        )
        for include in (True, False)
        for divisor in (None, 3)
    },
    "global_avg_pool2d": Operation(global_avg_pool2d, global_avg_pool2d_vjp, (IMAGE,)),
    **{
        f"batch_norm {rank} {'training' if training else 'evaluation'}": Operation(
            batch_norm,
            batch_norm_vjp,
            (IMAGE[:rank], (4,), (4,), (4,), (4,)),
            {"training": training, "momentum": 0.3, "eps": 0.01},
            positive=(2,),
        )
        for rank in (2, 3, 4)
        for training in (True, False)
    },
    "batch_norm no affine": Operation(
        batch_norm, batch_norm_vjp, (IMAGE, (4,), (4,), None, None), {"training": True}, positive=(2,)
    ),
    **{
        f"einsum {equation}": Operation(
            einsum, einsum_vjp, shapes, equation=(equation.partition("#")[0],), torch="einsum"
        )
        for equation, shapes in EQUATIONS.items()
    },
}
OPERATIONS |= {
    f"fused {chain}": Operation(
        fused_chain, fused_chain_vjp, (IMAGE, *shapes), arguments, equation=(chain,), positive=positive
    )
    for chain, shapes, arguments, positive in (
        (
            "conv2d | batch_norm | relu",
            ((3, 4, 2, 2), (3,), (3,), (3,), (3,), (3,)),
            {"conv2d_stride": 2, "batch_norm_eps": 0.1},
            (4,),
        ),
        ("avg_pool2d | conv2d | conv2d", ((3, 4, 1, 1), None, (2, 3, 2, 2), (2,)), {"avg_pool2d_kernel_size": 2}, ()),
        ("global_avg_pool2d | linear", ((3, 4), None), {}, ()),
    )
}
# A block that has no entry above is tested on its largest typical call.
TESTED = {operation.function.__name__ for operation in OPERATIONS.values()}
for stem, signature in SIGNATURES.items():
    if signature.function and signature.function not in TESTED:
        module = importlib.import_module(f"nnspec.reference.{stem}")
        shapes, arguments = signature.calls[-1]
        OPERATIONS[stem] = Operation(
            getattr(module, signature.function), getattr(module, signature.vjp), tuple(shapes.values()), arguments
        )

TWICE = {  # gradients that are themselves differentiated
    f"batch_norm again, {affine}, {'training' if training else 'evaluation'}": Operation(
        lambda *operands, **arguments: batch_norm_vjp(*operands, **arguments)[0],
        batch_norm_vjp_vjp,
        (IMAGE, IMAGE, (4,), (4,), *((4,) if affine == "affine" else None for _ in range(2))),
        {"training": training, "eps": 0.01},
        positive=(3,),
    )
    for affine in ("affine", "plain")
    for training in (True, False)
}
BOTH = {**OPERATIONS, **TWICE}


def dot(left: tuple[Any, ...], right: tuple[Any, ...]) -> Any:
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if a is not None and b is not None]
    return sum((np.sum(a * b) for a, b in pairs), np.longdouble(0))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("seed", range(3))
def test_central_differences(name, seed):
    """⟨c, (f(x + h·t) − f(x − h·t)) / 2h⟩ = ⟨vjp(c), t⟩: the adjoint identity, with the tangent by differences.

    In longdouble h = 2⁻²⁰ leaves h² ≈ 1e-12 of truncation and u/h ≈ 1e-13 of rounding, of what is added up.
    """
    op = BOTH[name]
    operands, tangents = op.operands(seed), op.operands(seed + 1000)
    rng = np.random.default_rng(seed)
    cotangents = tuple(np.asarray(rng.standard_normal(np.shape(y)), np.longdouble) for y in op.results(operands))
    h = np.longdouble(2.0**-20)

    def moved(sign: int) -> list[Any]:
        return [None if x is None else x + sign * h * t for x, t in zip(operands, tangents, strict=True)]

    ahead, behind = op.results(moved(1)), op.results(moved(-1))
    tangent = tuple((a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True))
    gradients = op.gradients(cotangents, operands)
    size = 1 + dot(tuple(map(np.abs, tangent)), tuple(map(np.abs, cotangents)))
    assert abs(dot(tangent, cotangents) - dot(gradients, tuple(tangents))) < 1e-8 * size


@pytest.mark.parametrize("name", [name for name, op in OPERATIONS.items() if op.torch])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_agrees(name, dtype):
    torch = pytest.importorskip("torch")
    op = OPERATIONS[name]
    operands = op.operands(0, dtype)
    function = torch
    for part in op.torch.split("."):
        function = getattr(function, part)
    leaves = [None if a is None else torch.from_numpy(a).requires_grad_() for a in operands]
    y = function(*op.equation, *leaves, **op.arguments)
    cotangent = np.asarray(np.random.default_rng(1).standard_normal(y.shape), dtype)
    theirs = torch.autograd.grad(y, [a for a in leaves if a is not None], torch.from_numpy(cotangent))
    ours = [g for g in op.gradients((cotangent,), operands) if g is not None]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == dtype
        assert mine.shape == tuple(other.shape)
        assert np.abs(mine - other.numpy()).max(initial=0) < 1000 * np.finfo(dtype).eps


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("subject", ["jax", "jax-jit"])
def test_jax_agrees(name, subject):
    pytest.importorskip("jax")
    from nnspec.adapters import load

    op, jax = OPERATIONS[name], load(subject)
    if op.function.__name__ not in jax.functions:
        pytest.skip(f"{subject} has no {op.function.__name__}")
    operands = op.operands(0, np.float64)
    rng = np.random.default_rng(1)
    results = op.results(operands)
    cotangents = tuple(np.asarray(rng.standard_normal(np.shape(y))) for y in results)
    bridge, function = jax.framework, jax.functions[op.function.__name__]
    given = [None if a is None else bridge.to_native(a) for a in operands]
    theirs = function(*op.equation, *given, **op.arguments)
    everything, alone = (
        bridge.differentiate(
            function,
            [*op.equation, *given],
            op.arguments,
            [False] * len(op.equation) + [a is not None and w for a, w in zip(given, wanted, strict=True)],
            [bridge.to_native(c) for c in cotangents],
        )[len(op.equation) :]
        for wanted in ([True] * len(given), [True] + [False] * (len(given) - 1))
    )
    gradients = op.gradients(cotangents, operands)
    assert all(g is None for g in alone[1:])
    for mine, other in [
        *zip(results, theirs if isinstance(theirs, tuple) else (theirs,), strict=True),
        *zip(gradients, everything, strict=True),
        (gradients[0], alone[0]),
    ]:
        assert (mine is None) == (other is None)
        if mine is not None:
            assert (mine.shape, mine.dtype) == (other.shape, other.dtype)
            assert np.abs(mine - np.asarray(other)).max(initial=0) < 1000 * np.finfo(np.float64).eps


@pytest.mark.parametrize("name", BOTH)
def test_gradients_are_like_their_operands_and_nothing_is_written_to(name):
    op = BOTH[name]
    operands = op.operands(0, np.float32)
    cotangents = tuple(np.ones(np.shape(y), np.float32) for y in op.results(operands))
    before = [None if a is None else a.copy() for a in (*operands, *cotangents)]
    gradients = op.gradients(cotangents, operands)
    for gradient, operand in zip(gradients, operands, strict=True):
        assert (gradient is None) == (operand is None)
        if operand is not None:
            assert (gradient.shape, gradient.dtype) == (operand.shape, operand.dtype)
    for now, then in zip((*operands, *cotangents), before, strict=True):
        assert now is then is None or np.array_equal(now, then)


@pytest.mark.parametrize("name", BOTH)
def test_a_cotangent_of_another_shape_is_refused(name):
    op = BOTH[name]
    operands = op.operands(0, np.float64)
    first, *others = (np.ones(np.shape(y)) for y in op.results(operands))
    with pytest.raises(ValueError, match="cotangent of shape"):
        op.gradients((np.ones((*first.shape, 2)), *others), operands)

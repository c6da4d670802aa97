"""Blocks in a row as one call. Page: spec/fused.md"""

from collections.abc import Iterator
from typing import Any

from nnspec.reference.arguments import Array
from nnspec.reference.avg_pool2d import avg_pool2d, avg_pool2d_vjp
from nnspec.reference.batch_norm import batch_norm, batch_norm_vjp
from nnspec.reference.conv2d import conv2d, conv2d_vjp
from nnspec.reference.conv_transpose2d import conv_transpose2d, conv_transpose2d_vjp
from nnspec.reference.global_avg_pool2d import global_avg_pool2d, global_avg_pool2d_vjp
from nnspec.reference.linear import linear, linear_vjp
from nnspec.reference.max_pool2d import max_pool2d, max_pool2d_vjp
from nnspec.reference.relu import relu, relu_vjp

BLOCKS: dict[str, tuple[Any, Any, int]] = {  # a block, its vjp, and how many operands it takes beside x
    "conv2d": (conv2d, conv2d_vjp, 2),
    "conv_transpose2d": (conv_transpose2d, conv_transpose2d_vjp, 2),
    "linear": (linear, linear_vjp, 2),
    "batch_norm": (lambda *given, **named: batch_norm(*given, **named)[0], batch_norm_vjp, 4),
    "relu": (relu, relu_vjp, 0),
    "max_pool2d": (max_pool2d, max_pool2d_vjp, 0),
    "avg_pool2d": (avg_pool2d, avg_pool2d_vjp, 0),
    "global_avg_pool2d": (global_avg_pool2d, global_avg_pool2d_vjp, 0),
}


def stages(chain: str, operands: tuple[Any, ...], arguments: dict[str, Any]) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yield the function, the vjp, the operands but x, and the arguments of each block of a chain, in order.

    Raises ValueError for a block that is none of a chain.
    """
    blocks, first = [part.strip() for part in chain.split("|")], 0
    for number, block in enumerate(blocks):
        if block not in BLOCKS:
            raise ValueError(f"chain={chain!r}: expected blocks among {', '.join(BLOCKS)}, with | between them")
        function, vjp, count = BLOCKS[block]
        again = blocks[:number].count(block)
        prefix = f"{block}{again + 1 if again else ''}_"
        own = {name.removeprefix(prefix): value for name, value in arguments.items() if name.startswith(prefix)}
        yield function, vjp, operands[first : first + count], own
        first += count


def fused_chain(chain: str, x: Array, *operands: Array | None, **arguments: Any) -> Array:
    """Return the result of the last block of a chain, such as "conv2d | batch_norm | relu", applied to x.

    `operands` are those of all blocks but x, in the order of the chain: weight and bias of conv2d, running_mean,
    running_var, weight and bias of batch_norm. Arguments have the block's name before them: conv2d_stride. batch_norm
    is in evaluation mode. The result has the dtype of x.

    By construction: fused.output.shape, fused.output.dtype, fused.input.unchanged, fused.input.layout,
    fused.special.value, fused.batch.independent.
    """
    for block, _, own, named in stages(chain, operands, arguments):
        x = block(x, *own, **named)  # [fused.output.value]
    return x


def fused_chain_vjp(
    cotangent: Array, chain: str, x: Array, *operands: Array | None, **arguments: Any
) -> tuple[Array | None, ...]:
    """Return the gradients of x and of the operands, in their order: each block passes its own to the block before.

    By construction: fused.gradient.layout.
    """
    inputs = []
    for block, vjp, own, named in stages(chain, operands, arguments):
        inputs.append((vjp, x, own, named))
        x = block(x, *own, **named)
    gradients: list[Array | None] = []
    for vjp, x, own, named in reversed(inputs):
        found = vjp(cotangent, x, *own, **named)  # [fused.gradient.value]
        cotangent, *others = found if isinstance(found, tuple) else (found,)
        gradients[:0] = others
    return (cotangent, *gradients)

"""Functions that take and return arrays whose axes are in another order than the pages'.

    def conv2d(images, kernels, stride=1): ...  # images as (N, H, W, C), kernels as (KH, KW, I, O)

`@block` declares such orders. Where nothing does, a call tells: the function is right in another order, and not in the
page's. Its block is then not judged, and one finding says what to declare.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import watched
from nnspec.adapters.blocks import IMAGES, KERNELS, TAKE_IMAGES, block, block_of
from nnspec.adapters.claims import Refusal
from nnspec.adapters.roles import agree
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject
from nnspec.adapters.trying import Watch, at_once

# the orders that libraries have, the page's first
LAYOUTS = (IMAGES, "NHWC")
ORDERS = {
    "linear": ("OI", "IO"),
    "conv2d": ("OIHW", "HWIO", "OHWI"),
    "conv_transpose2d": ("IOHW", "HWIO", "HWOI", "OIHW"),
}
# a call of each block in which no order fits in the place of another; x of (N, C, H, W), or of (N, I)
X = {"linear": (2, 3)}
CALLS: dict[str, dict[str, Any]] = {
    "linear": {"weight": (4, 3), "bias": (4,)},
    "conv2d": {"weight": (4, 3, 2, 2), "bias": (4,)},
    "conv_transpose2d": {"weight": (3, 4, 2, 2), "bias": (4,)},
    "batch_norm": dict.fromkeys(("running_mean", "running_var", "weight", "bias"), (3,)),
    "max_pool2d": {},
    "avg_pool2d": {},
    "global_avg_pool2d": {},
}


def in_other_orders(subject: Subject, blocks: Collection[str] | None, watch: Watch = at_once) -> Subject:
    """Return the subject, which then knows of its functions (of all blocks, or these) those in another order."""
    own = replace(subject, framework=watched(subject.framework))  # type: ignore[arg-type]  # so that it tells who raised
    found = {}
    for stem in (stem for stem in CALLS if not blocks or stem in blocks):
        about = stem, "function"
        name = str(SIGNATURES[stem].function)
        declared = subject.domain(stem) or block_of(subject.functions.get(name)) is not None
        if name in subject.functions and not declared and (refusal := _refusal(own, stem, name, watch)):
            found[about] = refusal
    return replace(subject, uncallable={**subject.uncallable, **found}) if found else subject


def _refusal(subject: Subject, stem: str, name: str, watch: Watch) -> Refusal | None:
    """Return what a function is to declare, if it is right in another order of axes alone."""
    from nnspec.adapters.for_reference import subject as reference

    rng = np.random.default_rng(0)
    shapes = {"x": X.get(stem, (2, 3, 6, 7)), **CALLS[stem]}
    arrays = {n: rng.integers(1, 10, shape).astype(subject.within(stem).dtypes[0]) for n, shape in shapes.items()}
    arguments = {n: 2 if n == "kernel_size" else value for n, value in SIGNATURES[stem].arguments.items()}
    right, *_ = reference().call(stem, "function", arrays, arguments)

    def agrees(function: Any, what: str) -> bool:
        """Whether a function computes what the reference computes, to half the digits."""
        tried = replace(subject, functions={**subject.functions, name: function})
        try:
            y = watch(f"{stem} with {what}", lambda: tried.call(stem, "function", arrays, arguments)[0])
        except Exception:  # whatever it is, this is not the order
            return False
        return agree(y, right)

    if agrees(subject.functions[name], "the page's axes"):
        return None
    for orders, told in _declared(stem):
        if agrees(block(stem, **orders)(subject.functions[name]), told):
            takes = [f"{'images' if key == 'layout' else 'its weight'} as {order}" for key, order in orders.items()]
            says = f"takes {' and '.join(takes)}: put {told} of nnspec.adapters above it"
            return Refusal(says, f"{name}(…)", arrays, arguments, holds=f"result.shape == {right.shape}")
    return None


def _declared(stem: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the options of `@block` for other orders, and the decorator as it is written."""
    layouts = LAYOUTS if stem in TAKE_IMAGES else ("",)
    for layout, kernel in itertools.product(layouts, ORDERS.get(stem, ("",))):
        orders: dict[str, Any] = {"layout": layout} if layout not in ("", IMAGES) else {}
        orders |= {"kernel": kernel} if kernel != KERNELS.get(stem, "") else {}
        if orders:
            yield orders, f"@block({stem!r}, {', '.join(f'{key}={order!r}' for key, order in orders.items())})"

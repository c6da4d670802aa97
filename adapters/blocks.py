"""`@block`: say as which block a function is judged, how its arrays are laid out, and what it claims.

    @block("conv2d", layout="NHWC", kernel="OHWI", dtypes=("float32",), lacks=("dilation",), unsupported=(TypeError,))
    def convolve(images, filters, bias=None, *, stride=1, padding=0): ...

nnspec then passes images and kernels in these layouts, and takes results in them. A vjp that stands beside the function
(`convolve_vjp`) receives and returns arrays in the same layouts. A library that differentiates by itself does so
through the transpositions.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnspec.adapters.blame import Unsupported, told
from nnspec.adapters.calling import in_page_order, vjp_in_page_order
from nnspec.adapters.claims import Difference
from nnspec.adapters.declarations import Fields, read_claim, read_differences
from nnspec.adapters.domains import Domain, read_domain
from nnspec.adapters.names import nearest
from nnspec.adapters.signatures import SIGNATURES

IMAGES = "NCHW"  # how the pages lay out images
KERNELS = {stem: one.kernel for stem, one in SIGNATURES.items() if one.kernel}  # how they lay out `weight`
TAKE_IMAGES = tuple(stem for stem, one in SIGNATURES.items() if one.images)
ARE_IMAGES = ("x", "y", "cotangent", "tangent")
Function = Callable[..., Any]


def block(
    stem: str,
    *,
    layout: str = IMAGES,
    kernel: str | None = None,
    dtypes: Iterable[str] | None = None,
    lacks: Iterable[str] = (),
    accuracy: Iterable[str] = (),
    gradients: bool = True,
    unsupported: tuple[type[Exception], ...] = (),
    differs: Mapping[str, Any] | None = None,
    domain: Mapping[str, Any] | None = None,
) -> Callable[[Function], Function]:
    """Declare the block that a function is; return a decorator, after which it takes and returns the page's layouts.

    `layout` orders the axes of images, `kernel` those of `weight`. `dtypes`, `accuracy`, `gradients`, `differs` and
    `domain` mean what DTYPES, ACCURACY, GRADIENTS, DIFFERS and DOMAIN mean in a file, for this block alone. The
    function is treated as if it had no arguments or operands in `lacks`. A call that raises one of the `unsupported`
    exceptions is counted as declined. Raises ValueError for a block, a layout or a claim that nnspec does not know.
    """
    signature = SIGNATURES.get(stem)
    if signature is None or signature.function is None:
        known = [name for name, one in SIGNATURES.items() if one.function]
        raise ValueError(
            f"block {stem!r}: expected one with a form as a function{nearest(stem, known)}: {', '.join(known)}"
        )
    own = KERNELS.get(stem, "") if kernel is None else kernel
    _require_order(stem, "layout", layout, IMAGES, TAKE_IMAGES)
    _require_order(stem, "kernel", own, KERNELS.get(stem, ""), KERNELS)
    lacking = frozenset(lacks)
    if unknown := lacking - {*signature.operands[1:], *signature.arguments}:
        known = [*signature.operands[1:], *signature.arguments]
        raise ValueError(f"lacks {min(unknown)!r}: expected some of {', '.join(known)}")
    claims: Fields = {} if dtypes is None else read_claim("DTYPES", dtypes)
    claims |= read_claim("ACCURACY", accuracy) if accuracy else {}
    claims |= {} if gradients else read_claim("GRADIENTS", gradients)
    answers, claimed = read_differences(differs or {}), read_domain(stem, domain) if domain is not None else None

    def decorate(function: Function) -> Function:
        if inspect.isclass(function) or not callable(function):
            raise ValueError(f"@block({stem!r}): expected a function, not {function!r}")
        return Block(stem, layout, own, lacking, unsupported, claims, answers, claimed, function).adapted()

    return decorate


def _require_order(stem: str, name: str, order: str, page: str, blocks: Iterable[str]) -> None:
    if order != page and stem not in blocks:
        raise ValueError(f"{name}={order!r}: {stem} takes none; the blocks that do are {', '.join(blocks)}")
    if sorted(order) != sorted(page):
        raise ValueError(f"{name}={order!r}: expected the axes {page} of {stem}, in any order")


@dataclass(frozen=True)
class Block:
    """What `@block` says of one function."""

    stem: str
    layout: str
    kernel: str  # "" where the block has none
    lacks: frozenset[str]
    unsupported: tuple[type[Exception], ...]
    claims: Fields  # fields of the subject that hold for this block
    differs: Mapping[str, Difference]
    domain: Domain | None
    function: Function  # as it was written

    def adapted(self) -> Function:
        """Return the function as nnspec calls it: with the page's operands, in the page's order and layouts."""
        ordered, _ = in_page_order(self.function, self.stem, "")
        results = SIGNATURES[self.stem].results
        adapted: Any = functools.wraps(self.function)(self._transposing(ordered, self._operands(), results))
        if (own := _signature(ordered)) is not None:
            kept = [p for name, p in own.parameters.items() if name not in self.lacks]
            adapted.__signature__ = inspect.Signature(kept)
        adapted.nnspec_block = self
        return adapted

    def vjp(self, vjp: Function, twice: bool = False) -> Function:
        """Return a vjp of the function (or, if `twice`, a vjp of its vjp) as nnspec calls it."""
        call, _ = vjp_in_page_order(vjp, self.function, self.stem, "", twice)
        operands = self._operands()
        before, returned = (("tangent", "cotangent"), ("cotangent",)) if twice else (("cotangent",), ())
        return self._transposing(call, (*before, *operands), (*returned, *operands))

    def _operands(self) -> tuple[str, ...]:
        """The operands that the function takes, in the page's order."""
        operands = SIGNATURES[self.stem].operands
        own = _signature(in_page_order(self.function, self.stem, "")[0])
        if own is None or any(p.kind is p.VAR_POSITIONAL for p in own.parameters.values()):
            return operands
        return tuple(name for name in operands if name in own.parameters)

    def _transposing(self, call: Function, operands: Sequence[str], results: Sequence[str]) -> Function:
        """Return `call` with its operands and its results in the page's layouts, under these names."""

        def transposing(*given: Any, **arguments: Any) -> Any:
            own = [self._own(name, array) for name, array in zip(operands, given, strict=False)]
            try:
                made = call(*own, *given[len(own) :], **arguments)
            except self.unsupported as error:
                raise Unsupported(told(error)) from None
            if not isinstance(made, tuple | list):
                return self._page(results[0] if results else "", made)
            named = [*zip(results, made, strict=False), *(("", more) for more in made[len(results) :])]
            return tuple(self._page(name, array) for name, array in named if name not in self.lacks)

        return transposing

    def _own(self, name: str, array: Any) -> Any:
        if isinstance(array, tuple):  # a cotangent for each of several results
            return tuple(self._own(name, one) for one in array)
        page, own = self._orders(name)
        return _transposed(array, page, own)

    def _page(self, name: str, array: Any) -> Any:
        page, own = self._orders(name)
        return _transposed(array, own, page)

    def _orders(self, name: str) -> tuple[str, str]:
        """The axes of an operand or a result on the page, and as the function has them."""
        if name in ARE_IMAGES:
            return IMAGES, self.layout
        return (KERNELS.get(self.stem, ""), self.kernel) if name == "weight" else ("", "")


def _transposed(array: Any, given: str, wanted: str) -> Any:
    """An array with its axes in another order. One of another rank stays as it is: the function may have to refuse it.

    What is no array stays as it is too.
    """
    if given == wanted or getattr(array, "ndim", None) != len(given):
        return array
    axes = tuple(given.index(axis) for axis in wanted)
    return array.permute(axes) if hasattr(array, "permute") else array.transpose(axes)


def _signature(function: Function) -> inspect.Signature | None:
    """The signature of a callable; None for a builtin that does not tell."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def block_of(function: Any) -> Block | None:
    """What `@block` says of a function, also where another decorator stands above it."""
    while function is not None:
        if isinstance(found := getattr(function, "nnspec_block", None), Block):
            return found
        function = getattr(function, "__wrapped__", None)
    return None


def claims(functions: Iterable[Function]) -> Fields:
    """The fields of a Subject that the decorators of its functions declare: `of_block`, `differs` and `domains`."""
    found = [known for function in functions if (known := block_of(function)) is not None]
    differs = {name: answer for known in found for name, answer in known.differs.items()}
    domains = {known.stem: known.domain for known in found if known.domain is not None}
    of_block = {known.stem: known.claims for known in found if known.claims}
    return {"of_block": of_block, "differs": differs, "domains": domains}

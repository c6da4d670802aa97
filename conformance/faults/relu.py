"""Wrong rectifiers."""

import numpy as np
from nnspec.conformance.faults import (
    fault,
    mistakes_in_memory,
    register_left,
    wrong,
)
from nnspec.reference.linear import linear
from nnspec.reference.module import Buffer, Parameter
from nnspec.reference.relu import ReLU as Right
from nnspec.reference.relu import relu as right
from nnspec.reference.relu import relu_vjp as right_vjp


def _wrong(key, mistake):
    """The fault calls as `relu` does."""

    def add(function):
        def relu(x):
            return function(x)

        fault(key, mistake, relu=relu)
        return function

    return add


_wrong("relu.positive.kept/relu6", "nothing above 6 passes")(lambda x: np.clip(x, 0, 6))
_wrong("relu.positive.kept/half-sum", "computed as (x + |x|)/2, which overflows")(
    lambda x: np.where(np.isfinite(x), (x + abs(x)) / 2, right(x))
)
_wrong("relu.positive.kept/half-precision", "the result passes through float16")(
    lambda x: np.asarray(right(x).astype(np.float16).astype(x.dtype))
)
_wrong("relu.negative.zero/absolute", "the absolute value")(np.abs)
_wrong("relu.negative.zero/leaky", "a slope of 0.01 on the negative side")(
    lambda x: np.where(x < 0, x * x.dtype.type(0.01), x)
)
_wrong("relu.negative.zero/threshold", "negative numbers above −1e-6 pass")(lambda x: np.where(x < -1e-6, x * 0, x))
_wrong("relu.nan.propagates/where", "NaN is not greater than 0, and so becomes 0")(
    lambda x: np.where(x > 0, x, np.zeros_like(x))
)
_wrong("relu.nan.propagates/fmax", "the maximum that drops NaN")(lambda x: np.asarray(np.fmax(x, 0)))
_wrong("relu.infinite.value/mask-product", "computed as x·(x > 0), where −∞·0 is NaN")(lambda x: x * (x > 0))
_wrong("relu.infinite.value/clipped", "∞ becomes the largest number")(
    lambda x: np.asarray(np.minimum(right(x), np.finfo(x.dtype).max if x.dtype.kind == "f" else 127), x.dtype)
)
_wrong("relu.range.ends/flushed", "what is below the smallest normal number becomes 0")(
    lambda x: np.where(right(x) < np.finfo(x.dtype).tiny, 0 * right(x), right(x)) if x.dtype.kind == "f" else right(x)
)
_wrong("relu.integer.value/float", "integers come back as floating-point numbers")(
    lambda x: right(x) if x.dtype.kind == "f" else right(x.astype(np.float64))
)


@_wrong("relu.integer.value/refused", "integers are refused")
def _refused(x):
    if x.dtype.kind != "f":
        raise TypeError("expected floating-point numbers")
    return right(x)


_wrong("relu.output.size/at-least-one-axis", "an array without axes comes back with one")(
    lambda x: np.atleast_1d(right(x))
)
_wrong("relu.output.size/squeezed", "axes of size 1 disappear")(lambda x: np.squeeze(right(x)))
_wrong("relu.output.dtype/float64", "a zero of the other dtype decides")(
    lambda x: np.maximum(x, np.zeros(1, np.float64)) if x.dtype == np.float32 else right(x).astype(np.float32)
)
_wrong("relu.output.fresh/input-itself", "where nothing is negative, the input itself is returned")(
    lambda x: right(x) if (x < 0).any() else x
)
_STORE: dict[object, np.ndarray] = {}


@_wrong("relu.output.fresh/reused-buffer", "the result's memory is kept and used again")
def _reused(x):
    store = _STORE.setdefault((x.shape, x.dtype), right(x))
    store[...] = right(x)
    return store


@wrong("relu.output.fresh/layer-buffer", "each layer has one buffer for its results")
class ReLU(Right):
    """Keeps its last result."""

    def forward(self, x):
        """An array of any shape -> one of the same shape."""
        if getattr(self, "last", np.empty(0)).shape != x.shape:
            self.last = right(x)
        return np.maximum(x, 0, out=self.last)


_wrong("relu.input.unchanged/in-place", "the input is rectified in place, and a copy returned")(
    lambda x: np.array(np.maximum(x, 0, out=x))
)


@_wrong("relu.input.layout/memory-order", "the memory is read as if it were contiguous")
def _memory_order(x):
    return right(x.transpose(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))).reshape(x.shape))


_wrong("relu.batch.independent/threshold", "what is below a thousandth of the largest element becomes 0")(
    lambda x: right(x) * (x >= x.max(initial=0) / 1000)
)


@_wrong("relu.batch.independent/mean", "zero is where the mean of the batch is")
def _mean(x):
    return right(x) if x.ndim == 0 or len(x) < 2 else right(x - x.mean(0) * (len(x) > 2))


@_wrong("relu.batch.empty/reduced", "the largest element is asked for, which does not exist")
def _reduced(x):
    return right(np.minimum(x, x.max()))


_MASKS: dict[object, np.ndarray] = {}
_wrong("relu.call.stateless/kept-mask", "the mask of the call before is used where it fits")(
    lambda x: np.asarray(np.where(_swap_mask(x), x, 0 * x))
)


def _swap_mask(x):
    before = _MASKS.get("mask", np.empty(0))
    _MASKS["mask"] = x > 0
    return before if before.shape == x.shape else x > 0


@wrong("relu.call.stateless/layer-mask", "a layer keeps the mask of its first call")
class ReLU(Right):  # noqa: F811
    """Keeps its first mask."""

    def forward(self, x):
        """An array of any shape -> one of the same shape."""
        if getattr(self, "mask", np.empty(0)).shape != x.shape:
            self.mask = x > 0
        return np.where(self.mask, x, 0 * x)


# -- gradients ---------------------------------------------------------------------------------------------------------


def _wrong_vjp(key, mistake):
    """The fault is called with the cotangent and x."""

    def add(function):
        def relu_vjp(cotangent, x):
            with np.errstate(all="ignore"):
                return np.asarray(function(cotangent, x))

        fault(f"relu.gradient.{key}", mistake, relu_vjp=relu_vjp)
        return function

    return add


_wrong_vjp("positive/mask", "the mask itself comes back, without the cotangent")(lambda g, x: (x > 0).astype(g.dtype))
_wrong_vjp("positive/guided", "negative cotangents are stopped too")(lambda g, x: right_vjp(np.maximum(g, 0), x))
_wrong_vjp("positive/relu6", "nothing comes back where x is above 6")(lambda g, x: right_vjp(g, x) * (x <= 6))
_wrong_vjp("positive/quotient", "the mask is computed as relu(x)/x, which at ∞ is NaN")(
    lambda g, x: np.where(x > 0, g * (right(x) / np.where(x == 0, 1, x)), 0 * right_vjp(g, x))
)
_wrong_vjp("positive/in-half", "the cotangent goes through float16")(
    lambda g, x: right_vjp(g, x).astype(np.float16).astype(g.dtype)
)
_wrong_vjp("negative/through", "the cotangent passes wherever it comes from")(lambda g, x: g.copy())
_wrong_vjp("negative/leaky", "a slope of 0.01 on the negative side")(
    lambda g, x: np.where(x > 0, g, g * (x < 0) * g.dtype.type(0.01))
)
_wrong_vjp("negative/mask-of-cotangent", "the sign of the cotangent decides")(lambda g, x: right_vjp(g, g))
_wrong_vjp("negative/threshold", "x above −1e-6 counts as positive")(
    lambda g, x: np.where((x > -1e-6) & (x != 0), g, 0 * right_vjp(g, x))
)
_wrong_vjp("negative/absolute", "the gradient of the absolute value")(lambda g, x: g * np.sign(x))
_wrong_vjp("zero/passes", "at 0 the cotangent passes")(lambda g, x: np.where(x >= 0, g, np.zeros((), g.dtype)))
_wrong_vjp("zero/half", "at 0 half of the cotangent passes, as of a maximum of equals")(
    lambda g, x: g * ((x > 0) + (x == 0) * g.dtype.type(0.5)).astype(g.dtype)
)
_wrong_vjp("zero/sign-bit", "the sign bit decides, which +0 does not have")(
    lambda g, x: np.where(np.signbit(x), np.zeros((), g.dtype), g)
)
_wrong_vjp("infinite-cotangent/product", "computed as g·(x > 0), where ∞·0 is NaN")(lambda g, x: g * (x > 0))
_wrong_vjp("infinite-cotangent/cleaned", "NaN becomes 0, and what went wrong downstream is out of sight")(
    lambda g, x: right_vjp(np.where(np.isnan(g), np.zeros((), g.dtype), g), x)
)
_wrong_vjp("range/tiny", "x below the smallest normal number counts as 0")(
    lambda g, x: right_vjp(g, np.where(x < np.finfo(x.dtype).tiny, 0 * x, x))
)
_wrong_vjp("range/flushed", "cotangents below the smallest normal number become 0")(
    lambda g, x: right_vjp(np.where(np.abs(g) < np.finfo(g.dtype).tiny, 0 * g, g), x)
)
_wrong_vjp("like-operand/at-least-one-axis", "the gradient of an array without axes has one")(
    lambda g, x: np.atleast_1d(right_vjp(g, x))
)
_wrong_vjp("like-operand/wide", "the gradient is float64 whatever came in")(
    lambda g, x: right_vjp(g, x).astype(np.float64)
)


def _memory_order(a):
    return a.transpose(sorted(range(a.ndim), key=lambda axis: -abs(a.strides[axis]))).reshape(a.shape)


_wrong_vjp("layout/cotangent", "the memory of the cotangent is read as if it were contiguous")(
    lambda g, x: right_vjp(_memory_order(g), x)
)
_wrong_vjp("layout/input", "the mask is stored as x lies in memory, and read in the order of the cotangent")(
    lambda g, x: right_vjp(g, _memory_order(x))
)


@_wrong_vjp("unchanged/cotangent", "the cotangent is masked in place")
def _masked(g, x):
    if g.flags.writeable:
        g *= x > 0
    return g.copy()


@_wrong_vjp("unchanged/input", "the mask is written over the input")
def _mask_in_input(g, x):
    mask = x > 0
    x[...] = mask
    return np.where(mask, g, np.zeros((), g.dtype))


@_wrong_vjp("empty/reduced", "the cotangent is scaled by its largest element, which does not exist")
def _scaled(g, x):
    return right_vjp(np.clip(g, g.min(), g.max()), x)


# -- the module --------------------------------------------------------------------------------------------------------


@wrong("relu.parameters.none/slope", "a slope that can be trained")
class ReLU(Right):  # noqa: F811
    """Has a parameter."""

    def __init__(self):
        super().__init__()
        self.slope = Parameter(np.zeros(1, np.float32))


@wrong("relu.parameters.none/mask", "the mask of the last call is saved with the state")
class ReLU(Right):  # noqa: F811
    """Has a buffer, once it was called."""

    def forward(self, x):
        """An array of any shape -> one of the same shape."""
        self.mask = Buffer(x > 0)
        return super().forward(x)


_linear, _after_linear = register_left(linear, right)
fault(
    "relu.call.neighbours/register",
    "a register that linear leaves set changes the next result",
    linear=_linear,
    relu=_after_linear,
)
mistakes_in_memory("relu", right)


def _fours(x):
    y, whole = right(x).reshape(-1), x.size // 4 * 4
    y[whole:] = x.reshape(-1)[whole:]
    return y.reshape(x.shape)


fault(
    "relu.domain.outside/fours",
    "what remains behind the last four elements is copied",
    domain={"size": {"multiple_of": 4}},
    relu=_fours,
)

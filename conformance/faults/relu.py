"""Wrong rectifiers."""

import numpy as np
from nnspec.conformance.faults import fault, wrong
from nnspec.reference.module import Buffer, Parameter
from nnspec.reference.relu import ReLU as Right
from nnspec.reference.relu import relu as right


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

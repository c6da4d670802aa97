"""Wrong linear layers."""

import numpy as np
from nnspec.conformance.faults import (
    add_buffer,
    add_parameter,
    beginning,
    disturbed_by_relu,
    fault,
    make_bias_a_buffer,
    mistakes_in_memory,
    one_array_for_each_shape,
    save_input,
    stopped_by,
    wrong,
)
from nnspec.reference.linear import Linear as Right
from nnspec.reference.linear import linear as right
from nnspec.reference.linear import linear_vjp as right_vjp
from nnspec.reference.module import Parameter


def _wrong(key, mistake):
    """The fault calls as `linear` does, with the bias given."""

    def add(function):
        def linear(x, weight, bias=None):
            return function(x, weight, bias)

        fault(key, mistake, linear=linear)
        return function

    return add


_wrong("linear.weight.orientation/transposed", "a square weight is taken transposed")(
    lambda x, w, b: right(x, w.T if w.shape[0] == w.shape[1] else w, b)
)
_wrong("linear.weight.orientation/reversed", "the rows of the weight are taken from the last to the first")(
    lambda x, w, b: right(x, w[::-1], b)
)
_wrong("linear.output.value/first-feature", "the first feature is missed")(
    lambda x, w, b: right(x[..., 1:], w[:, 1:], b)
)
_wrong("linear.output.value/feature-block", "features beyond the last full sixteen are left out")(
    lambda x, w, b: right(x[..., : max(16, w.shape[1] // 16 * 16)], w[:, : max(16, w.shape[1] // 16 * 16)], b)
)
_wrong("linear.output.value/half-precision", "the operands are rounded to float16 on the way")(
    lambda x, w, b: right(x.astype(np.float16).astype(x.dtype), w, b)
)


@_wrong("linear.output.value/few-bits", "the sum is kept in half as many bits as the operands have")
def _few_bits(x, w, b):
    narrow = np.float16 if x.dtype == np.float32 else np.float32
    y = np.zeros((*x.shape[:-1], len(w)), narrow)
    for i in range(w.shape[1]):
        y = (y + x[..., i, None] * w[:, i]).astype(narrow)
    return right(x[..., :0], w[:, :0], b) + y.astype(x.dtype)


@_wrong("linear.output.value/one-element", "one element is off by one part in a thousand")
def _one_element(x, w, b):
    y = right(x, w, b)
    y[..., -1:] *= y.dtype.type(1.001)
    return y


_wrong("linear.bias.per-feature/ignored", "the bias is ignored")(lambda x, w, b: right(x, w))
_wrong("linear.bias.per-feature/per-input-feature", "the bias is added once per input feature")(
    lambda x, w, b: right(x, w, b if b is None else b * x.dtype.type(w.shape[1]))
)
_wrong("linear.bias.per-feature/first-for-all", "one bias serves all features")(
    lambda x, w, b: right(x, w, b if b is None else np.repeat(b[:1], len(b)))
)


@_wrong("linear.bias.per-feature/per-row", "where the batch is as large as O, each row gets its own bias")
def _per_row(x, w, b):
    if b is None or x.ndim != 2 or len(x) != len(b):
        return right(x, w, b)
    return right(x, w) + b[:, None]


@_wrong("linear.leading.any/matrix-only", "all leading dimensions are merged into one")
def _matrix_only(x, w, b):
    return right(x.reshape(np.prod(x.shape[:-1], dtype=int), x.shape[-1]), w, b)


@_wrong(
    "linear.leading.any/wrong-axis", "in a sequence of as many vectors as features, the wrong axis meets the weight"
)
def _wrong_axis(x, w, b):
    if x.ndim > 2 and x.shape[-1] == x.shape[-2]:
        return right(x.swapaxes(-1, -2), w, b)
    return right(x, w, b)


@_wrong("linear.leading.any/vector-refused", "a single vector is refused")
def _no_vector(x, w, b):
    if x.ndim == 1:
        raise ValueError("expected a batch")
    return right(x, w, b)


@_wrong("linear.features.one/squeezed", "an output axis of size 1 disappears")
def _squeezed(x, w, b):
    y = right(x, w, b)
    return y[..., 0] if len(w) == 1 else y


@_wrong("linear.features.one/column-as-vector", "a weight of one column is multiplied as if it were one of one row")
def _column(x, w, b):
    return right(x, np.repeat(w[:1], len(w), 0) if w.shape[1] == 1 else w, b)


@_wrong("linear.features.zero/unfilled", "without features the result is what the memory held")
def _unfilled(x, w, b):
    return np.full((*x.shape[:-1], len(w)), 7, x.dtype) if not w.shape[1] else right(x, w, b)


_wrong("linear.features.zero/no-bias", "without features there is no bias either")(
    lambda x, w, b: right(x, w, b if w.shape[1] else None)
)


@_wrong(
    "linear.arguments.together/whole-vectors-of-16-bits", "of more than 16 half-precision features whole vectors count"
)
def _whole_vectors(x, w, b):
    whole = x.shape[-1] // 16 * 16 if x.dtype == np.float16 and x.shape[-1] > 16 else x.shape[-1]
    return right(x[..., :whole], w[:, :whole], b)


_wrong("linear.arguments.together/bias-for-matrices", "only the path for matrices adds the bias")(
    lambda x, w, b: right(x, w, b if x.ndim == 2 else None)
)


@_wrong("linear.arguments.together/bias-along-first", "in more dimensions the bias goes along the axis before the last")
def _biasalong_first(x, w, b):
    if b is None or x.ndim < 3 or x.shape[-2] != len(b):
        return right(x, w, b)
    return right(x, w) + b[:, None]


@_wrong("linear.output.size/ones-dropped", "leading dimensions of size 1 are dropped")
def _ones_dropped(x, w, b):
    y = right(x, w, b)
    return y.reshape(*(n for n in y.shape[:-1] if n != 1), y.shape[-1])


_wrong("linear.output.size/merged", "the first two dimensions are merged")(
    lambda x, w, b: right(x, w, b) if x.ndim < 3 else right(x.reshape(-1, *x.shape[2:]), w, b)
)
_wrong("linear.output.dtype/float64", "the result is float64 whatever came in")(
    lambda x, w, b: right(x, w, b).astype(np.float64 if x.dtype == np.float32 else np.float32)
)
_STORE: dict[object, np.ndarray] = {}


@_wrong("linear.output.fresh/reused-buffer", "the result's memory is kept and used again")
def _reused(x, w, b):
    y = right(x, w, b)
    store = _STORE.setdefault((y.shape, y.dtype), y)
    store[...] = y
    return store


@_wrong("linear.output.fresh/bias-itself", "an empty sum is answered with the bias itself")
def _biasitself(x, w, b):
    if b is None or w.shape[1]:
        return right(x, w, b)
    return np.broadcast_to(b, (*x.shape[:-1], len(w)))


@wrong("linear.output.fresh/layer-buffer", "each layer has one buffer for its results")
class Linear(Right):
    """Keeps its last result."""

    def forward(self, x):
        """(..., I) -> (..., O)"""
        y = super().forward(x)
        if getattr(self, "last", np.empty(0)).shape != y.shape:
            self.last = y
        self.last[...] = y
        return self.last


@_wrong("linear.input.unchanged/in-bias", "the first vector's result is accumulated in the bias")
def _in_bias(x, w, b):
    y = right(x, w, b)
    if b is not None:
        b += y.reshape(-1, len(b))[0] if y.size else 0
    return y


@_wrong("linear.input.unchanged/in-input", "where O = I, the result is written over the input")
def _in_input(x, w, b):
    y = right(x, w, b)
    if y.shape == x.shape:
        x[...] = y
    return y


def _memory_order(a):
    return a.transpose(sorted(range(a.ndim), key=lambda axis: -abs(a.strides[axis]))).reshape(a.shape)


_wrong("linear.input.layout/weight-memory-order", "the weight's memory is read as if it were contiguous")(
    lambda x, w, b: right(x, _memory_order(w), b)
)
_wrong("linear.input.layout/input-memory-order", "the input's memory is read as if it were contiguous")(
    lambda x, w, b: right(_memory_order(x), w, b)
)
_wrong("linear.batch.independent/mean", "the first vector is subtracted from all that follow")(
    lambda x, w, b: (
        right(x, w, b)
        if x.ndim < 2 or len(x) < 2
        else right(x - x[:1] * (np.arange(len(x)) > 0).reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype), w, b)
    )
)


@_wrong("linear.batch.independent/first-only", "the first vector's result serves all")
def _first_only(x, w, b):
    y = right(x, w, b)
    if y.ndim > 1 and len(y) > 1:
        y[1:] = y[:1]
    return y


@_wrong("linear.batch.empty/refused", "a matrix product of size 0 is refused where there is one output feature")
def _no_empty(x, w, b):
    if not x.size and w.shape[0] == 1:
        raise ValueError("lda must be at least 1")
    return right(x, w, b)


@_wrong("linear.batch.empty/flat", "a result without elements has two dimensions")
def _flat(x, w, b):
    y = right(x, w, b)
    return y if y.size else y.reshape(0, len(w))


_PACKED: dict[object, np.ndarray] = {}


@_wrong("linear.call.stateless/packed-weight", "a packed weight is kept with the array, whatever it then contains")
def _packed(x, w, b):
    kept, copy = _PACKED.get("weight", (None, None))
    if kept is not w:
        _PACKED["weight"] = w, w.copy()
        copy = w
    return right(x, copy, b)


@wrong("linear.call.stateless/layer-keeps", "a layer keeps its result for each shape of x")
class Linear(Right):  # noqa: F811
    """Answers from memory."""

    def forward(self, x):
        """(..., I) -> (..., O)"""
        return self.__dict__.setdefault("kept", {}).setdefault(x.shape, super().forward(x)).copy()


@wrong("linear.call.stateless/layer-packs", "a layer packs its weight at the first call, and never again")
class Linear(Right):  # noqa: F811
    """Keeps its first weight."""

    def forward(self, x):
        """(..., I) -> (..., O)"""
        if not hasattr(self, "packed"):
            self.packed = self.weight.data.copy()
        return right(x, self.packed, None if self.bias is None else self.bias.data)


# -- special values, and the ends of the range -------------------------------------------------------------------------

_wrong("linear.special.value/cleaned", "what is not finite is replaced on the way in")(
    lambda x, w, b: right(np.nan_to_num(x), w, b)
)
_wrong(
    "linear.special.value/everywhere", "0 times the sum of all elements is added, which is NaN if one is not finite"
)(lambda x, w, b: right(x, w, b) + 0 * x.sum())
_wrong("linear.range.ends/clipped", "values are kept within ±10³⁰")(
    lambda x, w, b: right(np.clip(x, -1e30, 1e30), w, b)
)
_wrong("linear.range.ends/dropped", "what is below 10⁻³⁰ is taken for 0")(
    lambda x, w, b: right(np.where(np.abs(x) < 1e-30, np.zeros_like(x), x), w, b)
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def _wrong_vjp(key, mistake):
    """The fault has the right gradients at hand: function(dx, dweight, dbias, cotangent, x, weight)."""

    def add(function):
        def linear_vjp(cotangent, x, weight, bias=None):
            return function(*right_vjp(cotangent, x, weight, bias), cotangent, x, weight)

        fault(f"linear.gradient.{key}", mistake, linear_vjp=linear_vjp)
        return function

    return add


def _but(b, value):
    """The bias has a gradient only where there is a bias."""
    return None if b is None else value()


_wrong_vjp("x/transposed", "a square weight is transposed on the way back as well")(
    lambda dx, dw, db, g, x, w: (g @ w.T if w.shape[0] == w.shape[1] else dx, dw, db)
)
_wrong_vjp("x/first-output", "the first output feature hands nothing back")(
    lambda dx, dw, db, g, x, w: (g[..., 1:] @ w[1:], dw, db)
)
_wrong_vjp("x/output-block", "output features beyond the last full sixteen hand nothing back")(
    lambda dx, dw, db, g, x, w: (
        g[..., : max(16, len(w) // 16 * 16)] @ w[: max(16, len(w) // 16 * 16)],
        dw,
        db,
    )
)
_wrong_vjp("x/in-half", "the gradient of x goes through float16")(
    lambda dx, dw, db, g, x, w: (dx.astype(np.float16).astype(dx.dtype), dw, db)
)
_wrong_vjp("weight/transposed", "where the weight is square, its gradient is transposed")(
    lambda dx, dw, db, g, x, w: (dx, dw.T if w.shape[0] == w.shape[1] else dw, db)
)
_wrong_vjp("weight/mean", "the weight's gradient is divided by the number of vectors")(
    lambda dx, dw, db, g, x, w: (dx, dw / max(1, x.size // max(1, x.shape[-1])), db)
)
_wrong_vjp("weight/first-entry", "of more leading dimensions than one, the first counts with its first entry alone")(
    lambda dx, dw, db, g, x, w: (dx, right_vjp(g[0], x[0], w)[1] if x.ndim > 2 and len(x) else dw, db)
)
_wrong_vjp("weight/first-sixteen", "vectors beyond the sixteenth are left out of the weight's gradient")(
    lambda dx, dw, db, g, x, w: (dx, right_vjp(g[:16], x[:16], w)[1] if x.ndim > 1 else dw, db)
)
_wrong_vjp("weight/truncated-input", "the weight's gradient is computed of an input rounded to float16")(
    lambda dx, dw, db, g, x, w: (dx, right_vjp(g, x.astype(np.float16).astype(x.dtype), w)[1], db)
)
_wrong_vjp("bias/mean", "the bias gets the mean of its cotangents")(
    lambda dx, dw, db, g, x, w: (dx, dw, _but(db, lambda: db / max(1, g.size // max(1, len(w)))))
)
_wrong_vjp("bias/first-axis", "the cotangent is summed over its first axis, and the first vector of that taken")(
    lambda dx, dw, db, g, x, w: (
        dx,
        dw,
        _but(db, lambda: g.sum(0).reshape(-1, len(w))[0] if g.ndim > 2 and len(g) and g.size else db),
    )
)
_wrong_vjp("bias/dropped", "the bias has no gradient where there are several vectors")(
    lambda dx, dw, db, g, x, w: (dx, dw, _but(db, lambda: db * (g.ndim == 1)))
)
_wrong_vjp("bias/vector", "the cotangent of a single vector is summed over its features")(
    lambda dx, dw, db, g, x, w: (dx, dw, _but(db, lambda: np.full_like(db, g.sum()) if g.ndim == 1 else db))
)


@_wrong_vjp("features-zero/reshape", "a reshape with −1, without output features")
def _reshape(dx, dw, db, g, x, w):
    rows = g.reshape(-1, len(w))
    return dx, dw, _but(db, lambda: rows.sum(0))


_wrong_vjp("features-zero/unfilled", "without output features the gradient of x is what the memory held")(
    lambda dx, dw, db, g, x, w: (dx if len(w) else dx + 7, dw, db)
)
_wrong_vjp("features-zero/no-bias", "without input features nothing has a gradient")(
    lambda dx, dw, db, g, x, w: (dx, dw, _but(db, lambda: db if w.shape[1] else db * 0))
)
_wrong_vjp("like-operand/batch-axis", "the gradient of a single vector comes back as a batch of one")(
    lambda dx, dw, db, g, x, w: (np.atleast_2d(dx), dw, db)
)
_wrong_vjp("like-operand/merged", "leading dimensions stay merged in the gradient of x")(
    lambda dx, dw, db, g, x, w: (dx.reshape(-1, x.shape[-1]) if dx.ndim > 2 else dx, dw, db)
)
_wrong_vjp("like-operand/wide", "the gradients are float64 whatever came in")(
    lambda dx, dw, db, g, x, w: tuple(None if a is None else a.astype(np.float64) for a in (dx, dw, db))
)
_wrong_vjp("like-operand/squeezed", "the gradient of a weight of one row has no axis for it")(
    lambda dx, dw, db, g, x, w: (dx, dw[0] if len(w) == 1 else dw, db)
)
_wrong_vjp("layout/cotangent", "the memory of the cotangent is read as if it were contiguous")(
    lambda dx, dw, db, g, x, w: right_vjp(_memory_order(g), x, w, _but(db, lambda: np.zeros(len(w))))
)
_wrong_vjp("layout/weight", "the memory of the weight is read as if it were contiguous")(
    lambda dx, dw, db, g, x, w: (right_vjp(g, x, _memory_order(w))[0], dw, db)
)
_wrong_vjp("layout/input", "the memory of the input is read as if it were contiguous")(
    lambda dx, dw, db, g, x, w: (dx, right_vjp(g, _memory_order(x), w)[1], db)
)


@_wrong_vjp("unchanged/cotangent", "the cotangent is used as a place to work in")
def _scaled_cotangent(dx, dw, db, g, x, w):
    if g.flags.writeable:
        g *= 2
    return dx, dw, db


@_wrong_vjp("unchanged/input", "the gradient of x is written over x")
def _over_input(dx, dw, db, g, x, w):
    x[...] = dx
    return dx, dw, db


_wrong_vjp("batch/divided", "the gradient of x is divided by the number of vectors")(
    lambda dx, dw, db, g, x, w: (dx / max(1, len(x)) if x.ndim > 1 else dx, dw, db)
)
_wrong_vjp("batch/first-for-all", "all vectors get the first one's gradient")(
    lambda dx, dw, db, g, x, w: (np.repeat(dx[:1], len(dx), 0) if x.ndim > 1 else dx, dw, db)
)
_wrong_vjp("empty/not-cleared", "without vectors the weight's gradient is whatever the memory held")(
    lambda dx, dw, db, g, x, w: (dx, dw if x.size else dw + 1, db)
)
_wrong_vjp("empty/mean", "the bias gets a mean over nothing")(
    lambda dx, dw, db, g, x, w: (dx, dw, _but(db, lambda: db if g.size else np.full_like(db, np.nan)))
)

_wrong_vjp("special/cleaned", "what is not finite is replaced in the cotangent")(
    lambda dx, dw, db, g, x, w: right_vjp(np.nan_to_num(g), x, w, db)
)
_wrong_vjp("special/everywhere", "0 times the sum of the cotangent is added, which is NaN if an element is not finite")(
    lambda dx, dw, db, g, x, w: (dx + 0 * g.sum(), dw, db)
)


# -- the module --------------------------------------------------------------------------------------------------------


@wrong("linear.parameters.complete/plain-array", "the weight is a plain array, which no optimiser sees")
class Linear(Right):  # noqa: F811
    """Its weight is not registered."""

    def __init__(self, in_features, out_features, bias=True, *, dtype=np.float32):
        super().__init__(in_features, out_features, bias, dtype=dtype)
        array = self.weight.data
        del self.weight
        self.weight = array

    def forward(self, x):
        """(..., I) -> (..., O)"""
        return right(x, self.weight, None if self.bias is None else self.bias.data)


@wrong("linear.parameters.complete/hidden-bias", "with bias=False there is a bias of zeros")
class Linear(Right):  # noqa: F811
    """Always has a bias."""

    def __init__(self, in_features, out_features, bias=True, *, dtype=np.float32):
        super().__init__(in_features, out_features, dtype=dtype)
        if not bias:
            self.bias.data[...] = 0


@wrong("linear.parameters.complete/weight-transposed", "the weight is stored as (I, O)")
class Linear(Right):  # noqa: F811
    """Its weight is transposed."""

    def __init__(self, in_features, out_features, bias=True, *, dtype=np.float32):
        super().__init__(in_features, out_features, bias, dtype=dtype)
        self.weight = Parameter(self.weight.data.T)

    def forward(self, x):
        """(..., I) -> (..., O)"""
        return right(x, self.weight.data.T, None if self.bias is None else self.bias.data)


def _drawn(key, mistake, draw_weight, draw_bias):
    class Linear(Right):
        """Weight and bias drawn otherwise."""

        def __init__(self, in_features, out_features, bias=True, *, dtype=np.float32):
            super().__init__(in_features, out_features, bias, dtype=dtype)
            rng = np.random.default_rng(in_features)
            self.weight.data[...] = draw_weight(rng, self.weight.data, in_features)
            if self.bias is not None:
                self.bias.data[...] = draw_bias(rng, self.bias.data, in_features)

    fault(key, mistake, Linear=Linear)


def _range(rng, a, inputs):
    return rng.uniform(-1, 1, a.shape) / np.sqrt(inputs)


def _zeros(rng, a, inputs):
    return np.zeros(a.shape)


_drawn("linear.init.range/zeros", "everything starts at 0", _zeros, _zeros)
_drawn("linear.init.range/zero-bias", "the bias starts at 0", _range, _zeros)
_drawn(
    "linear.init.range/normal", "the weight is a standard normal", lambda r, a, n: r.standard_normal(a.shape), _range
)
_drawn("linear.init.range/equal", "all outputs begin alike", lambda r, a, n: _range(r, a, n)[:1], _range)
_drawn("linear.init.range/positive", "no weight is negative", lambda r, a, n: abs(_range(r, a, n)), _range)
_drawn(
    "linear.init.range/kaiming",
    "the weight's range is √6 times too wide",
    lambda r, a, n: 6**0.5 * _range(r, a, n),
    _range,
)


beginning("linear.parameters.complete/spare", "a parameter that nothing uses", Right)(add_parameter)
beginning("linear.parameters.complete/bias-a-buffer", "the bias is a buffer", Right)(make_bias_a_buffer)
beginning("linear.gradient.frozen/weight-stops-x", "a frozen weight stops the gradient of x", Right)(
    stopped_by("weight")
)
beginning("linear.gradient.frozen/bias-stops-x", "a frozen bias stops the gradient of x", Right)(stopped_by("bias"))
beginning("linear.gradient.frozen/bias-stops-weight", "a frozen bias freezes the weight too", Right)(
    stopped_by("bias", "weight")
)
beginning("linear.buffers.none/spare", "a count that nothing uses is saved", Right)(add_buffer)
beginning("linear.buffers.none/last-input", "the last input is saved", Right)(save_input)
beginning("linear.state.own/weight", "layers of one shape share one weight", Right)(one_array_for_each_shape("weight"))
beginning("linear.state.own/bias", "layers of one shape share one bias", Right)(one_array_for_each_shape("bias"))

# -- refusals ----------------------------------------------------------------------------------------------------------


@_wrong("linear.refuses.rank/numbers", "a number is taken for a vector, a stack of weights for its first")
def _any_rank(x, w, b):
    w = w.reshape(1, 1) if w.ndim == 0 else w.reshape(-1, *w.shape[-2:])[0] if w.ndim > 2 else w
    return right(np.resize(x, w.shape[1]) if x.ndim == 0 else np.resize(x, (*x.shape[:-1], w.shape[1])), w, b)


@_wrong("linear.refuses.rank/batched-weight", "a stack of weights is multiplied as a stack")
def _batched_weight(x, w, b):
    return x[..., None, :] @ w.swapaxes(-1, -2)[..., :1] if w.ndim > 2 else right(x, w, b)


_wrong("linear.refuses.features/broadcast", "one feature is broadcast to all")(
    lambda x, w, b: right(np.repeat(x, w.shape[1], -1) if x.shape[-1] == 1 else x, w, b)
)


@_wrong("linear.refuses.features/cut", "surplus features are left out of the sum")
def _cut(x, w, b):
    n = min(x.shape[-1], w.shape[1])
    return right(x[..., :n], w[:, :n], b)


_wrong("linear.refuses.bias/cut", "a bias of any length is cut or filled up")(
    lambda x, w, b: right(x, w, b if b is None else np.resize(b, len(w)))
)


@_wrong("linear.refuses.bias/broadcast", "the bias is broadcast to the result, or the result to the bias")
def _broadcast_bias(x, w, b):
    return right(x, w) if b is None else right(x, w) + b


@_wrong("linear.refuses.bias-broadcast/broadcast", "whatever can be broadcast to the result is a bias")
def _broadcast_any(x, w, b):
    y = right(x, w)
    if b is not None:
        y += b
    return y


_wrong("linear.refuses.bias-broadcast/number", "a number is added to every feature")(
    lambda x, w, b: right(x, w, b) if b is None or b.ndim else right(x, w) + b
)


@_wrong("linear.refuses.bias-broadcast/per-element", "a bias of the result's own shape is added to it")
def _per_element(x, w, b):
    return right(x, w, b) if b is None or b.ndim < 2 or b.shape != (*x.shape[:-1], len(w)) else right(x, w) + b


@wrong("linear.refuses.sizes/outputs-clipped", "a negative number of outputs is taken as 0")
class Linear(Right):  # noqa: F811
    """No outputs."""

    def __init__(self, in_features, out_features, bias=True, *, dtype=np.float32):
        super().__init__(in_features, max(0, out_features), bias, dtype=dtype)


@wrong("linear.refuses.sizes/clipped", "negative sizes are taken as 0")
class Linear(Right):  # noqa: F811
    """Any sizes."""

    def __init__(self, in_features, out_features, bias=True, *, dtype=np.float32):
        super().__init__(max(0, in_features), max(0, out_features), bias, dtype=dtype)


disturbed_by_relu("linear.call.neighbours/register", linear=right)


_BIASED: dict[object, bool] = {}


@_wrong("linear.call.stateless/without-bias", "programs are kept under a key that leaves out whether there is a bias")
def _keyed_without_bias(x, w, b):
    biased = _BIASED.setdefault((x.shape, w.shape, x.dtype), b is not None)
    return right(x, w, (np.zeros(len(w), x.dtype) if b is None else b) if biased else None)


mistakes_in_memory("linear", right)


def _whole_blocks(x, weight, bias=None):
    right(x, weight, bias)  # which refuses what it refuses
    features = x.shape[-1] // 16 * 16
    return right(x[..., :features], weight[:, :features], bias)


fault(
    "linear.domain.outside/whole-blocks",
    "features behind the last whole block of 16 are left out",
    domain={"in_features": {"multiple_of": 16}},
    linear=_whole_blocks,
)

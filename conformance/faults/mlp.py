"""Wrong multilayer perceptrons."""

from typing import Any, NamedTuple

import numpy as np
from nnspec.conformance.faults import fault, wrong
from nnspec.reference.linear import linear, linear_vjp
from nnspec.reference.mlp import MLP as Right
from nnspec.reference.relu import relu


def _wrong(key, mistake):
    """The fault is given the layer, its input and its four parameters: `forward(self, x, w1, b1, w2, b2)`."""

    def add(function):
        class MLP(Right):
            """Computes otherwise."""

            def forward(self, x):
                """(..., I) -> (..., O)"""
                return function(self, x, *(p.data for p in self.parameters()))

        fault(key, mistake, MLP=MLP)
        return function

    return add


def _right(x, w1, b1, w2, b2):
    return linear(relu(linear(x, w1, b1)), w2, b2)


@_wrong("mlp.output.value/exchanged", "where all sizes are equal, the layers are exchanged")
def _exchanged(self, x, w1, b1, w2, b2):
    return _right(x, w2, b2, w1, b1) if w1.shape == w2.shape == w2.T.shape else _right(x, w1, b1, w2, b2)


@_wrong("mlp.output.value/first-twice", "where all sizes are equal, the first layer is applied twice")
def _twice(self, x, w1, b1, w2, b2):
    return _right(x, w1, b1, *(w1, b1) if w1.shape == w2.shape == w2.T.shape else (w2, b2))


@_wrong("mlp.output.value/as-many-hidden", "of the hidden values, only as many count as there are inputs")
def _as_many_hidden(self, x, w1, b1, w2, b2):
    n = w1.shape[1]
    return _right(x, w1[:n], b1[:n], w2[:, :n], b2)


@_wrong("mlp.output.value/last-hidden", "the last hidden value is missed")
def _last_hidden(self, x, w1, b1, w2, b2):
    return linear(relu(linear(x, w1, b1))[..., :-1], w2[:, :-1], b2)


_wrong("mlp.output.value/half-precision", "hidden values pass through float16")(
    lambda self, x, w1, b1, w2, b2: linear(relu(linear(x, w1, b1)).astype(np.float16).astype(x.dtype), w2, b2)
)
_wrong("mlp.hidden.relu/none", "no activation")(lambda self, x, w1, b1, w2, b2: linear(linear(x, w1, b1), w2, b2))
_wrong("mlp.hidden.relu/leaky", "a slope of 0.01 on the negative side")(
    lambda self, x, w1, b1, w2, b2: linear(
        np.maximum(linear(x, w1, b1), x.dtype.type(0.01) * linear(x, w1, b1)), w2, b2
    )
)
_wrong("mlp.hidden.relu/absolute", "the absolute value as activation")(
    lambda self, x, w1, b1, w2, b2: linear(abs(linear(x, w1, b1)), w2, b2)
)
_wrong("mlp.hidden.bias/ignored", "the first layer has no bias")(
    lambda self, x, w1, b1, w2, b2: _right(x, w1, None, w2, b2)
)
_wrong("mlp.hidden.bias/after-relu", "the first bias is added after the rectifier")(
    lambda self, x, w1, b1, w2, b2: linear(relu(linear(x, w1)) + b1, w2, b2)
)
_wrong("mlp.output.linear/relu", "a rectifier after every layer")(lambda self, x, *weights: relu(_right(x, *weights)))
_wrong("mlp.output.linear/bounded", "the result is bounded by ±6")(
    lambda self, x, *weights: np.clip(_right(x, *weights), -6, 6)
)
_wrong("mlp.output.bias/ignored", "the second layer has no bias")(
    lambda self, x, w1, b1, w2, b2: _right(x, w1, b1, w2, None)
)
_wrong("mlp.output.bias/first-for-all", "one bias serves all output features")(
    lambda self, x, w1, b1, w2, b2: _right(x, w1, b1, w2, np.repeat(b2[:1], len(b2)))
)
_wrong("mlp.arguments.together/bias-needs-bias", "of two biases only the first counts")(
    lambda self, x, w1, b1, w2, b2: _right(x, w1, b1, w2, None if b1.any() else b2)
)
_wrong("mlp.arguments.together/feature-block", "input features beyond the sixteenth are left out")(
    lambda self, x, w1, b1, w2, b2: _right(x[..., :16], w1[:, :16], b1, w2, b2)
)
_wrong("mlp.leading.any/flattened", "the input is flattened from its second axis on, where that fits")(
    lambda self, x, w1, *weights: _right(x.reshape(x.shape[0], -1)[:, : w1.shape[1]] if x.ndim > 2 else x, w1, *weights)
)


@_wrong("mlp.leading.any/vector-refused", "a single vector is refused")
def _no_vector(self, x, *weights):
    if x.ndim == 1:
        raise ValueError("expected a batch")
    return _right(x, *weights)


@_wrong("mlp.output.size/ones-dropped", "leading dimensions of size 1 are dropped")
def _ones_dropped(self, x, *weights):
    y = _right(x, *weights)
    return y.reshape(*(n for n in y.shape[:-1] if n != 1), y.shape[-1])


_wrong("mlp.output.size/one-feature-squeezed", "one output feature has no axis")(
    lambda self, x, *weights: _right(x, *weights)[..., 0] if len(weights[-1]) == 1 else _right(x, *weights)
)
_wrong("mlp.output.dtype/float64", "the result is of the other floating-point dtype")(
    lambda self, x, *weights: _right(x, *weights).astype(np.float64 if x.dtype == np.float32 else np.float32)
)


@_wrong("mlp.output.fresh/layer-buffer", "the layer has one buffer for its results")
def _buffer(self, x, *weights):
    y = _right(x, *weights)
    if getattr(self, "last", np.empty(0)).shape != y.shape:
        self.last = y
    self.last[...] = y
    return self.last


@_wrong("mlp.output.fresh/in-bias", "the result of a single vector is a bias, written to and set back at the next call")
def _in_bias(self, x, w1, b1, w2, b2):
    if x.ndim > 1:
        return _right(x, w1, b1, w2, b2)
    self.before = getattr(self, "before", b2.copy())
    b2[...] = _right(x, w1, b1, w2, self.before)
    return b2


@_wrong("mlp.input.unchanged/in-place", "the rectifier works in place, on the input where the first layer is square")
def _in_place(self, x, w1, b1, w2, b2):
    hidden = linear(x, w1, b1)
    if hidden.shape == x.shape:
        x[...] = hidden
        hidden = x
    return linear(np.maximum(hidden, 0, out=hidden), w2, b2)


@_wrong("mlp.input.unchanged/parameter", "the first vector's result is accumulated in the second bias")
def _parameter(self, x, w1, b1, w2, b2):
    y = _right(x, w1, b1, w2, b2)
    b2 += y.reshape(-1, len(b2))[0]
    return y


@_wrong("mlp.input.layout/memory-order", "the memory is read as if it were contiguous")
def _memory_order(self, x, *weights):
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    return _right(x.transpose(order).reshape(x.shape), *weights)


@_wrong("mlp.batch.independent/normalised", "hidden values are taken relative to the batch's mean")
def _normalised(self, x, w1, b1, w2, b2):
    hidden = linear(x, w1, b1)
    return linear(relu(hidden - hidden.mean(0) if hidden.ndim > 1 and len(hidden) > 1 else hidden), w2, b2)


@_wrong("mlp.batch.empty/refused", "a batch of nothing is refused")
def _no_empty(self, x, *weights):
    if not x.size:
        raise ValueError("cannot reshape array of size 0")
    return _right(x, *weights)


@_wrong("mlp.call.stateless/dropout", "every third hidden value is dropped, in training only")
def _dropout(self, x, w1, b1, w2, b2):
    hidden = relu(linear(x, w1, b1))
    if self.training:
        hidden[..., ::3] = 0
    return linear(hidden, w2, b2)


@_wrong("mlp.call.stateless/hidden-kept", "the hidden values of the first call are used again where they fit")
def _kept(self, x, w1, b1, w2, b2):
    if getattr(self, "hidden", np.empty(0)).shape != (*x.shape[:-1], len(w1)):
        self.hidden = relu(linear(x, w1, b1))
    return linear(self.hidden, w2, b2)


# -- gradients ---------------------------------------------------------------------------------------------------------


class _Gradients(NamedTuple):
    x: Any
    w1: Any
    b1: Any
    w2: Any
    b2: Any


def _back(g, x, w1, b1, w2, b2, *, mask=lambda hidden, g: hidden > 0, through=lambda g, w2: g @ w2):
    """All five, from the cotangent. `mask` is where the rectifier lets pass, `through` what the second layer does."""
    hidden = linear(x, w1, b1)
    back = through(g, w2)
    back = np.where(mask(hidden, back), back, np.zeros((), x.dtype))
    return _Gradients(*linear_vjp(back, x, w1, b1), *linear_vjp(g, relu(hidden), w2, b2)[1:])


def _wrong_vjp(key, mistake):
    """The fault has the right gradients at hand: function(gradients, cotangent, x, w1, b1, w2, b2) -> gradients."""

    def add(function):
        class MLP(Right):
            """Goes back otherwise."""

            def vjp(self, x):
                """forward(x), and its pullback."""

                def pull(g):
                    weights = [p.data for p in self.parameters()]
                    found = function(_back(g, x, *weights), g, x, *weights)
                    for parameter, gradient in zip(self.parameters(), found[1:], strict=True):
                        parameter.accumulate(gradient)
                    return found.x

                return self(x), pull

        fault(f"mlp.gradient.{key}", mistake, MLP=MLP)
        return function

    return add


def _all_equal(w1, w2):
    return w1.shape == w2.shape == w2.T.shape


_wrong_vjp("x/exchanged", "where all sizes are equal, it goes back through the first layer first")(
    lambda right, g, x, w1, b1, w2, b2: (
        _back(g, x, w2, b2, w1, b1)._replace(w1=right.w1) if _all_equal(w1, w2) else right
    )
)
_wrong_vjp("x/first-layer-transposed", "where the first weight is square, it is transposed on the way back as well")(
    lambda right, g, x, w1, *rest: right._replace(x=_back(g, x, w1.T, *rest).x) if w1.shape == w1.T.shape else right
)
_wrong_vjp("x/detached", "the input has no gradient, as if it were a constant")(
    lambda right, g, x, *weights: right._replace(x=0 * right.x)
)
_wrong_vjp("x/in-half", "the gradient of the hidden values goes through float16")(
    lambda right, *given: _back(*given, through=lambda g, w2: (g @ w2).astype(np.float16).astype(g.dtype))
)
_wrong_vjp("x/hidden-block", "hidden values beyond the sixteenth hand nothing back")(
    lambda right, *given: _back(*given, mask=lambda hidden, g: (hidden > 0) & (np.arange(hidden.shape[-1]) < 16))
)
_wrong_vjp("hidden-relu/none", "on the way back there is no rectifier")(
    lambda right, *given: _back(*given, mask=lambda hidden, g: np.ones(hidden.shape, bool))
)
_wrong_vjp("hidden-relu/at-zero", "a hidden value of 0 hands back what it gets")(
    lambda right, *given: _back(*given, mask=lambda hidden, g: hidden >= 0)
)
_wrong_vjp("hidden-relu/of-gradient", "the sign of what comes back decides, not that of the hidden value")(
    lambda right, *given: _back(*given, mask=lambda hidden, g: g > 0)
)
_wrong_vjp("hidden-relu/first-vector", "the signs of the first vector's hidden values decide for all vectors")(
    lambda right, *given: _back(
        *given,
        mask=lambda hidden, g: (
            np.broadcast_to(hidden.reshape(-1, hidden.shape[-1])[:1] > 0, hidden.shape) if hidden.size else hidden > 0
        ),
    )
)
_wrong_vjp(
    "first-weight/hidden-for-input", "where the first weight is square, it gets the hidden values for the input"
)(
    lambda right, g, x, w1, b1, *rest: (
        right._replace(w1=_back(g, relu(linear(x, w1, b1)), w1, b1, *rest).w1) if w1.shape == w1.T.shape else right
    )
)
_wrong_vjp("first-weight/updated-second", "it goes back through a second weight that has had its step already")(
    lambda right, g, x, w1, b1, w2, b2: right._replace(
        w1=_back(g, x, w1, b1, w2 - w2.dtype.type(0.125) * right.w2, b2).w1
    )
)
_wrong_vjp("first-weight/mean", "the gradient of the first weight is divided by the number of vectors")(
    lambda right, g, x, *weights: right._replace(w1=right.w1 / max(1, x.size // x.shape[-1]))
)
_wrong_vjp("first-weight/frozen", "the first layer has no gradient")(
    lambda right, g, x, *weights: right._replace(w1=0 * right.w1)
)
_wrong_vjp("first-bias/unmasked", "what the first bias gets has not passed the rectifier")(
    lambda right, *given: right._replace(b1=_back(*given, mask=lambda hidden, g: np.ones(hidden.shape, bool)).b1)
)
_wrong_vjp("first-bias/second", "where the layers are of one width, the first bias gets what the second gets")(
    lambda right, *given: right._replace(b1=right.b2) if right.b1.shape == right.b2.shape else right
)
_wrong_vjp("first-bias/first-axis", "of more leading dimensions than one, the first counts with its first entry alone")(
    lambda right, g, x, *weights: right._replace(b1=_back(g[0], x[0], *weights).b1) if x.ndim > 2 and x.size else right
)
_wrong_vjp("second-weight/before-relu", "the second weight gets hidden values that were not rectified")(
    lambda right, g, x, w1, b1, w2, b2: right._replace(w2=linear_vjp(g, linear(x, w1, b1), w2, b2)[1])
)
_wrong_vjp("second-weight/transposed", "where the second weight is square, its gradient is transposed")(
    lambda right, *given: right._replace(w2=right.w2.T.copy()) if right.w2.shape == right.w2.T.shape else right
)
_wrong_vjp("second-weight/input-for-hidden", "where it fits, the second weight gets the input for the hidden values")(
    lambda right, g, x, w1, b1, w2, b2: (
        right._replace(w2=linear_vjp(g, x, w2, b2)[1]) if x.shape[-1] == w2.shape[1] else right
    )
)
_wrong_vjp("second-bias/mean", "the second bias gets the mean of its cotangents")(
    lambda right, g, x, *weights: right._replace(b2=right.b2 / max(1, x.size // x.shape[-1]))
)
_wrong_vjp("second-bias/ones", "the second bias gets the number of vectors, as under a sum it would")(
    lambda right, g, x, *weights: right._replace(b2=np.full_like(right.b2, x.size // x.shape[-1]))
)
_wrong_vjp("like-operand/merged", "leading dimensions stay merged in the gradient of x")(
    lambda right, g, x, *weights: right._replace(x=right.x.reshape(-1, x.shape[-1]))
)
_wrong_vjp("like-operand/wide", "the gradients are float64 whatever came in")(
    lambda right, *given: _Gradients(*(a.astype(np.float64) for a in right))
)


def _in_memory(a):
    return a.transpose(sorted(range(a.ndim), key=lambda axis: -abs(a.strides[axis]))).reshape(a.shape)


_wrong_vjp("layout/cotangent", "the memory of the cotangent is read as if it were contiguous")(
    lambda right, g, *rest: _back(_in_memory(g), *rest)
)
_wrong_vjp("layout/input", "the memory of the input is read as if it were contiguous")(
    lambda right, g, x, *weights: _back(g, _in_memory(x), *weights)
)


@_wrong_vjp("unchanged/cotangent", "the cotangent is scaled in place")
def _scaled_cotangent(right, g, x, *weights):
    if g.flags.writeable:
        g *= 2
    return right


@_wrong_vjp("unchanged/input", "the gradient of x is written over x")
def _over_input(right, g, x, *weights):
    x[...] = right.x
    return right


_wrong_vjp("batch/divided", "the gradient of x is divided by the number of vectors")(
    lambda right, g, x, *weights: right._replace(x=right.x / max(1, len(x)) if x.ndim > 1 else right.x)
)
_wrong_vjp("batch/centred", "the cotangent is taken relative to the batch's mean")(
    lambda right, g, *rest: _back(g - g.mean(0) if g.ndim > 1 and len(g) > 1 else g, *rest)
)


@_wrong_vjp("empty/reshape", "a reshape with −1 and the input's number of vectors")
def _reshaped(right, g, x, *weights):
    g.reshape(x.size // x.shape[-1], -1)
    return right


_wrong_vjp("empty/not-cleared", "without vectors the first weight's gradient is whatever the memory held")(
    lambda right, g, x, *weights: right if x.size else right._replace(w1=right.w1 + 1)
)


# -- the module --------------------------------------------------------------------------------------------------------


@wrong("mlp.parameters.complete/list", "the second layer is kept in a plain list")
class MLP(Right):
    """Its second layer is not registered."""

    def __init__(self, in_features, hidden_features, out_features):
        super().__init__(in_features, hidden_features, out_features)
        self.layers = [self.fc2]
        del self.fc2


@wrong("mlp.parameters.complete/tied", "where all sizes are equal, one layer serves as both")
class MLP(Right):  # noqa: F811
    """Its layers may be the same."""

    def __init__(self, in_features, hidden_features, out_features):
        super().__init__(in_features, hidden_features, out_features)
        if in_features == hidden_features == out_features:
            self.fc2 = self.fc1


@wrong("mlp.parameters.complete/arguments-exchanged", "hidden_features and out_features are exchanged")
class MLP(Right):  # noqa: F811
    """Another order of arguments."""

    def __init__(self, in_features, out_features, hidden_features):
        super().__init__(in_features, hidden_features, out_features)


@wrong("mlp.parameters.names/positions", "the keys are positions")
class MLP(Right):  # noqa: F811
    """Its layers are called 0 and 2."""

    def state_dict(self):
        """Key -> copy."""
        return {k.replace("fc1", "0").replace("fc2", "2"): a for k, a in super().state_dict().items()}


# -- refusals ----------------------------------------------------------------------------------------------------------

_wrong("mlp.refuses.rank/broadcast", "a number is taken for as many features as there are")(
    lambda self, x, w1, *weights: _right(np.repeat(x, w1.shape[1]) if x.ndim == 0 else x, w1, *weights)
)


@_wrong("mlp.refuses.features/broadcast", "one feature is broadcast to all")
def _one_feature(self, x, w1, *weights):
    return _right(np.repeat(x, w1.shape[1], -1) if x.shape[-1] == 1 else x, w1, *weights)


@_wrong("mlp.refuses.features/cut", "surplus features are left out")
def _cut(self, x, w1, *weights):
    n = min(x.shape[-1], w1.shape[1])
    return _right(x[..., :n], w1[:, :n], *weights)


@wrong("mlp.refuses.sizes/clipped", "negative sizes are taken as 0")
class MLP(Right):  # noqa: F811
    """Any sizes."""

    def __init__(self, *sizes):
        super().__init__(*(max(0, n) for n in sizes))

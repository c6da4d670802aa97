"""Wrong multilayer perceptrons."""

import numpy as np
from nnspec.conformance.faults import fault, wrong
from nnspec.reference.linear import linear
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

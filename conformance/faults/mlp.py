"""Wrong multilayer perceptrons."""

from typing import Any, NamedTuple

import numpy as np
from nnspec.conformance.faults import (
    add_buffer,
    add_parameter,
    as_if_contiguous,
    beginning,
    fault,
    mistakes_in_memory,
    one_array_for_each_shape,
    register_left,
    save_input,
    stopped_by,
    wrong,
)
from nnspec.reference.linear import Linear, linear, linear_vjp
from nnspec.reference.mlp import MLP as Right
from nnspec.reference.relu import ReLU, relu


def _wrong(key, mistake):
    """The fault is given the layer, its input and its four parameters: `forward(self, x, w1, b1, w2, b2)`.

    In a deeper stack it is given those of the last two layers, and what the layers before them make of the input.
    """

    def add(function):
        class MLP(Right):
            """Computes otherwise."""

            def forward(self, x):
                """(..., I) -> (..., O)"""
                layers = _layers(self)
                if len(layers) == 1:
                    return layers[0](x)
                for layer in layers[:-2]:
                    x = relu(layer(x))
                return function(self, x, *_arrays(layers[-2:]))

        fault(key, mistake, MLP=MLP)
        return function

    return add


def _layers(module):
    return [m for m in vars(module).values() if isinstance(m, Linear)]


def _parameters(layers):
    return [p for layer in layers for p in (layer.weight, layer.bias)]


def _arrays(layers):
    return [p.data for p in _parameters(layers)]


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
    return _right(as_if_contiguous(x), *weights)


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
    """The fault has the right gradients at hand: function(gradients, cotangent, x, w1, b1, w2, b2) -> gradients.

    In a deeper stack they are those of the last two layers.
    """

    def add(function):
        class MLP(Right):
            """Goes back otherwise."""

            def vjp(self, x):
                """forward(x), and its pullback."""
                layers = _layers(self)
                if len(layers) == 1:
                    return super().vjp(x)
                y, before = self(x), []
                for layer in layers[:-2]:
                    x, through_layer = layer.vjp(x)
                    x, through_relu = self.relu.vjp(x)
                    before += [through_layer, through_relu]
                arrays = _arrays(layers[-2:])

                def pull(g):
                    found = function(_back(g, x, *arrays), g, x, *arrays)
                    for parameter, gradient in zip(_parameters(layers[-2:]), found[1:], strict=True):
                        parameter.accumulate(gradient)
                    g = found.x
                    for through in reversed(before):
                        g = through(g)
                    return g

                return y, pull

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
_wrong_vjp("hidden-relu/below-zero", "a hidden value down to −1 hands back what it gets")(
    lambda right, *given: _back(*given, mask=lambda hidden, g: hidden >= -1)
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


# -- depth -------------------------------------------------------------------------------------------------------------


def _deep(key, mistake):
    """The fault is how a stack computes that has not one hidden layer: function(x, [(weight, bias), …]) -> y."""

    def add(function):
        class MLP(Right):
            """Computes otherwise where it is deep."""

            def forward(self, x):
                """(..., I) -> (..., O)"""
                layers = [(layer.weight.data, layer.bias.data) for layer in _layers(self)]
                return super().forward(x) if len(layers) == 2 else function(x, layers)

        fault(f"mlp.depth.{key}", mistake, MLP=MLP)
        return function

    return add


def _sizes(key, mistake):
    """The fault is what becomes of a sequence of hidden sizes: function(hidden, outputs) -> hidden."""

    def add(function):
        class MLP(Right):
            """Has other layers."""

            def __init__(self, in_features, hidden_features, out_features):
                if not isinstance(hidden_features, int):
                    hidden_features = function(hidden_features, out_features)
                super().__init__(in_features, hidden_features, out_features)

        fault(f"mlp.{key}", mistake, MLP=MLP)
        return function

    return add


def _stack(x, layers, activated=lambda n, last: n < last):
    for n, (weight, bias) in enumerate(layers, start=1):
        x = linear(x, weight, bias)
        x = relu(x) if activated(n, len(layers)) else x
    return x


def _same_size(layers):
    return len({shape for weight, _ in layers for shape in weight.shape}) == 1


_deep("any/reversed", "where all sizes are equal, the last layer comes first")(
    lambda x, layers: _stack(x, layers[::-1] if _same_size(layers) else layers)
)
_deep("any/two-at-most", "hidden layers after the second are left out, where the sizes allow it")(
    lambda x, layers: _stack(
        x, [*layers[:2], layers[-1]] if len(layers) > 3 and len(layers[1][1]) == layers[-1][0].shape[1] else layers
    )
)
_deep("any/second-repeated", "hidden layers of the second one's shape have its weight")(
    lambda x, layers: _stack(
        x,
        [
            (layers[1][0] if 0 < n < len(layers) - 1 and w.shape == layers[1][0].shape else w, b)
            for n, (w, b) in enumerate(layers)
        ],
    )
)


@_deep("any/residual", "what a hidden layer is given is added to its values, where the sizes are equal")
def _residual(x, layers):
    for n, layer in enumerate(layers[:-1]):
        y = _stack(x, [layer], lambda *_: True)
        x = x + y if n and y.shape == x.shape else y
    return _stack(x, layers[-1:])


_deep("none/activated", "without hidden layers the result is rectified")(
    lambda x, layers: _stack(x, layers, lambda n, last: n < last or last == 1)
)
_deep("none/no-bias", "without hidden layers there is no bias")(
    lambda x, layers: linear(x, layers[0][0]) if len(layers) == 1 else _stack(x, layers)
)
_deep("none/passed-on", "without hidden layers, the input is returned where the sizes are equal")(
    lambda x, layers: x.copy() if len(layers) == 1 and _same_size(layers) else _stack(x, layers)
)
_sizes("depth.none/one", "an empty sequence makes a hidden layer as wide as the result")(
    lambda hidden, outputs: hidden or [outputs]
)


@_sizes("depth.none/refused", "an empty sequence is refused")
def _refuses_none(hidden, outputs):
    if not hidden:
        raise ValueError("expected at least one hidden size")
    return hidden


_deep("activated/first-alone", "only the first hidden layer is rectified")(
    lambda x, layers: _stack(x, layers, lambda n, last: n == 1 < last)
)
_deep("activated/last-alone", "only the last hidden layer is rectified")(
    lambda x, layers: _stack(x, layers, lambda n, last: n == last - 1)
)
_deep("activated/output", "in a deep stack the result is rectified too")(
    lambda x, layers: _stack(x, layers, lambda n, last: n < last or last > 1)
)


@_deep("activated/leaky", "hidden layers after the first have a slope of 0.01 on the negative side")
def _leaky(x, layers):
    for n, layer in enumerate(layers[:-1]):
        y = _stack(x, [layer])
        x = np.maximum(y, (y.dtype.type(0.01) if n else 0) * y)
    return _stack(x, layers[-1:])


_deep("bias/ends-alone", "only the first and the last layer add their bias")(
    lambda x, layers: _stack(x, [(w, b if n in (0, len(layers) - 1) else None) for n, (w, b) in enumerate(layers)])
)
_deep("bias/last-ignored", "the last layer of a deep stack adds no bias")(
    lambda x, layers: _stack(x, [*layers[:-1], (layers[-1][0], layers[-1][1] if len(layers) == 1 else None)])
)
_deep("bias/first-for-all", "layers as wide as the first one add its bias")(
    lambda x, layers: _stack(x, [(w, layers[0][1] if len(b) == len(layers[0][1]) else b) for w, b in layers])
)


@_deep("bias/after-relu", "hidden layers after the first add their bias to rectified values")
def _bias_after_relu(x, layers):
    if len(layers) > 1:
        x = _stack(x, layers[:1], lambda *_: True)
    for weight, bias in layers[1:-1]:
        x = relu(linear(x, weight)) + bias
    return _stack(x, layers[-1:])


_sizes("depth.distinct/skipped", "the last of several hidden sizes is left out")(
    lambda hidden, outputs: hidden[:-1] if len(hidden) > 1 else hidden
)
_sizes("depth.distinct/added", "of several hidden sizes the last one makes two layers")(
    lambda hidden, outputs: [*hidden, hidden[-1]] if len(hidden) > 1 else hidden
)
_sizes("depth.distinct/sorted", "hidden sizes are sorted")(lambda hidden, outputs: sorted(hidden))
_sizes("depth.distinct/once", "each hidden size makes one layer")(lambda hidden, outputs: list(dict.fromkeys(hidden)))


@_sizes("depth.distinct/list-alone", "a tuple of hidden sizes is refused")
def _refuses_tuples(hidden, outputs):
    if not isinstance(hidden, list):
        raise TypeError(f"{hidden}: expected a list")
    return hidden


@_sizes("depth.distinct/one-refused", "a sequence of one hidden size is refused")
def _refuses_one(hidden, outputs):
    if len(hidden) == 1:
        raise ValueError(f"{hidden}: expected several sizes")
    return hidden


@wrong("mlp.depth.distinct/shared", "hidden layers of one shape are one layer")
class MLP(Right):
    """Makes one layer for each shape."""

    def __init__(self, in_features, hidden_features, out_features):
        super().__init__(in_features, hidden_features, out_features)
        made = {}
        for n in range(2, self.depth + 1):
            layer = getattr(self, f"fc{n}")
            setattr(self, f"fc{n}", made.setdefault(layer.weight.data.shape, layer))


@wrong("mlp.depth.distinct/plain-list", "all layers but the first and the last are kept in a plain list")
class MLP(Right):  # noqa: F811
    """Has layers that are not registered."""

    def __init__(self, in_features, hidden_features, out_features):
        super().__init__(in_features, hidden_features, out_features)
        self.middle = []
        for n in range(2, self.depth + 1):
            self.middle.append(getattr(self, f"fc{n}"))
            delattr(self, f"fc{n}")

    def _stack(self):
        first, *last = _layers(self)
        return [first, *self.middle, *last]


@wrong("mlp.depth.names/positions", "the keys are positions")
class MLP(Right):  # noqa: F811
    """Its layers are called 0, 2 and so on, where there are other than two."""

    def state_dict(self):
        """Key -> copy."""
        names = {f"fc{n}": str(2 * n - 2) if self.depth != 1 else f"fc{n}" for n in range(1, self.depth + 2)}
        return {f"{names[k.split('.')[0]]}.{k.split('.')[1]}": a for k, a in super().state_dict().items()}


_sizes("refuses.hidden-sizes/clipped", "negative hidden sizes in a sequence are taken as 0")(
    lambda hidden, outputs: [max(0, n) for n in hidden]
)
_sizes("refuses.hidden-sizes/first-alone", "only the first hidden size is looked at")(
    lambda hidden, outputs: [n if k == 0 else abs(n) for k, n in enumerate(hidden)]
)
_sizes("refuses.hidden-sizes/left-out", "negative hidden sizes in a sequence are left out")(
    lambda hidden, outputs: [n for n in hidden if n >= 0]
)


def _deep_vjp(key, mistake):
    """The fault is the backward pass of a deep stack: function(g, x, layers) -> gradients of x and of the layers."""

    def add(function):
        class MLP(Right):
            """Goes back otherwise where it is deep."""

            def vjp(self, x):
                """forward(x), and its pullback."""
                layers = _layers(self)
                if len(layers) == 2:
                    return super().vjp(x)

                def pull(g):
                    dx, gradients = function(g, x, [(layer.weight.data, layer.bias.data) for layer in layers])
                    for layer, (dweight, dbias) in zip(layers, gradients, strict=True):
                        layer.weight.accumulate(dweight)
                        layer.bias.accumulate(dbias)
                    return dx

                return self(x), pull

        fault(f"mlp.depth.gradient/{key}", mistake, MLP=MLP)
        return function

    return add


def _through(g, x, layers, passes=lambda n, sums: sums[n] > 0, weight=lambda n, layers: layers[n][0]):
    """The gradients of x and of the layers. `passes` is where rectifier n lets pass, `weight` what layer n goes by."""
    given, sums, found = [x], [], []
    for w, b in layers:
        sums.append(linear(given[-1], w, b))
        given.append(relu(sums[-1]))
    for n in reversed(range(len(layers))):
        _, *gradients = linear_vjp(g, given[n], *layers[n])
        found.insert(0, gradients)
        g = g @ weight(n, layers)
        if n:
            g = np.where(passes(n - 1, sums), g, np.zeros((), g.dtype))
    return g, found


_deep_vjp("no-relu", "only the last rectifier is there on the backward pass")(
    lambda g, x, layers: _through(
        g, x, layers, lambda n, sums: sums[n] > 0 if n == len(sums) - 2 else np.ones(sums[n].shape, bool)
    )
)
_deep_vjp("first-mask", "all rectifiers pass what the first one passes, where the sizes are equal")(
    lambda g, x, layers: _through(g, x, layers, lambda n, sums: sums[0 if sums[n].shape == sums[0].shape else n] > 0)
)
_deep_vjp("reversed", "where all sizes are equal, it goes back through the first weight first")(
    lambda g, x, layers: _through(g, x, layers, weight=lambda n, layers: layers[-1 - n if _same_size(layers) else n][0])
)
_deep_vjp("transposed", "square weights in the middle are transposed on the backward pass")(
    lambda g, x, layers: _through(
        g,
        x,
        layers,
        weight=lambda n, layers: (
            layers[n][0].T if 0 < n < len(layers) - 1 and layers[n][0].shape == layers[n][0].T.shape else layers[n][0]
        ),
    )
)


@_deep_vjp("stops", "the gradient stops before the last two layers")
def _stops(g, x, layers):
    dx, found = _through(g, x, layers)
    return 0 * dx, [[0 * dw, 0 * db] if n < len(found) - 2 else [dw, db] for n, (dw, db) in enumerate(found)]


@_deep_vjp("middle-frozen", "layers in the middle have no gradient")
def _middle_frozen(g, x, layers):
    dx, found = _through(g, x, layers)
    middle = range(1, len(found) - 1)
    return dx, [[0 * dw, 0 * db] if n in middle else [dw, db] for n, (dw, db) in enumerate(found)]


@_deep_vjp("bias-of-next", "a hidden layer's bias gets what the next layer's gets, where the sizes are equal")
def _bias_of_next(g, x, layers):
    dx, found = _through(g, x, layers)
    biases = [db for _, db in found]
    following = [*biases[1:-1], *biases[-2:]][-len(biases) :]
    return dx, [[dw, f if f.shape == db.shape else db] for (dw, db), f in zip(found, following, strict=True)]


# -- the module --------------------------------------------------------------------------------------------------------


@wrong("mlp.parameters.complete/list", "the second layer is kept in a plain list")
class MLP(Right):  # noqa: F811
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


def _begins(key, mistake, weights):
    """The fault is what a layer's weight begins with: weights(a random weight)."""

    class MLP(Right):
        """Begins otherwise."""

        def __init__(self, in_features, hidden_features, out_features):
            super().__init__(in_features, hidden_features, out_features)
            for layer in _layers(self):
                layer.weight.data[...] = weights(layer.weight.data)

    fault(f"mlp.init.{key}", mistake, MLP=MLP)


_begins("distinct/constant", "all weights begin with one value", lambda weight: 0.05)
_begins("distinct/rows-equal", "all units of a layer begin with the weights of the first", lambda weight: weight[:1])
_begins("distinct/half", "units come in pairs of equal weights", lambda weight: np.repeat(weight, 2, 0)[: len(weight)])
_begins("range/tiny", "weights begin a hundredth as large", lambda weight: weight / 100)
_begins("range/zeros", "weights begin at 0", lambda weight: 0 * weight)
_begins(
    "range/normal",
    "weights begin as a standard normal",
    lambda weight: np.random.default_rng(weight.size).standard_normal(weight.shape),
)


beginning("mlp.parameters.complete/spare", "a parameter that nothing uses", Right)(add_parameter)
beginning("mlp.gradient.frozen/weight-stops-x", "a frozen weight stops the gradient of x", Right)(
    stopped_by("fc2.weight")
)
beginning("mlp.gradient.frozen/bias-stops-x", "a frozen bias stops the gradient of x", Right)(stopped_by("fc1.bias"))
beginning("mlp.gradient.frozen/bias-stops-weight", "a frozen bias freezes the weight too", Right)(
    stopped_by("fc1.bias", "fc2.weight")
)
beginning("mlp.buffers.none/spare", "a count that nothing uses is saved", Right)(add_buffer)
beginning("mlp.buffers.none/last-input", "the last input is saved", Right)(save_input)
beginning("mlp.state.own/weight", "layers of one shape share one weight", Right)(one_array_for_each_shape("fc1.weight"))
beginning("mlp.state.own/bias", "layers of one shape share one bias", Right)(one_array_for_each_shape("fc2.bias"))

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


_relu, _after_relu = register_left(ReLU.forward, Right.forward)
fault(
    "mlp.call.neighbours/register",
    "a register that relu leaves set changes the next result",
    ReLU=type("ReLU", (ReLU,), {"forward": _relu}),
    MLP=type("MLP", (Right,), {"forward": _after_relu}),
)


_wrong("mlp.law.permutation/by-place", "a feature counts less the later it comes")(
    lambda self, x, *weights: (
        _right(x * (1 / np.arange(1, x.shape[-1] + 1)).astype(x.dtype), *weights) if x.ndim else _right(x, *weights)
    )
)
mistakes_in_memory("mlp", Right)


class _WholeBlocks(Right):
    def forward(self, x):
        """(..., I) -> (..., O)"""
        *hidden, last = _layers(self)
        for layer in hidden:
            x = relu(layer(x))
            x[..., x.shape[-1] // 4 * 4 :] = 0
        return last(x)


fault(
    "mlp.domain.outside/whole-blocks",
    "hidden features behind the last whole block of 4 are left out",
    domain={"hidden_features": {"multiple_of": 4}},
    MLP=_WholeBlocks,
)

"""Wrong batch norms."""

import numpy as np
from nnspec.conformance.faults import (
    add_buffer,
    add_parameter,
    as_if_contiguous,
    beginning,
    disturbed_by_relu,
    fault,
    mistakes_in_memory,
    one_array_for_each_shape,
    save_input,
    stopped_by,
)
from nnspec.reference.batch_norm import BatchNorm1d as Right1d
from nnspec.reference.batch_norm import BatchNorm2d as Right2d
from nnspec.reference.batch_norm import batch_norm as right
from nnspec.reference.batch_norm import batch_norm_vjp as right_vjp
from nnspec.reference.batch_norm import batch_norm_vjp_vjp as right_vjp_vjp
from nnspec.reference.module import Buffer, Parameter


def _wrong(key, mistake):
    """The fault calls as `batch_norm` does, with every argument given."""

    def add(function):
        def batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
            settings = {"training": training, "momentum": momentum, "eps": eps}
            return function(x, running_mean, running_var, weight, bias, **settings)

        fault(key, mistake, batch_norm=batch_norm)
        return function

    return add


def _along(vector, x):
    return np.reshape(vector, (-1, *(1 for _ in x.shape[2:])))


def _statistics(x, axes=None):
    """Mean and variance with divisor n, over all axes but the channels' or over others, with their dimensions kept."""
    axes = (0, *range(2, x.ndim)) if axes is None else axes
    mean = x.mean(axes, keepdims=True)
    return mean, np.square(x - mean).mean(axes, keepdims=True)


def _apply(x, mean, var, w, b, eps):
    """Normalise with statistics that already lie along x."""
    with np.errstate(invalid="ignore", divide="ignore"):
        y = (x - mean) / np.sqrt(var + eps)
    y = y if w is None else y * _along(w, x)
    return (y if b is None else y + _along(b, x)).astype(x.dtype)


def _training_with(key, mistake):
    """In training `statistics(x, running_mean, running_var)` normalise; the rest is right."""

    def add(statistics):
        @_wrong(key, mistake)
        def _(x, m, v, w, b, **h):
            y, *running = right(x, m, v, w, b, **h)
            if h["training"] and x.size:
                y = _apply(x, *statistics(x, m, v), w, b, h["eps"])
            return y, *running

        return statistics

    return add


# -- values ------------------------------------------------------------------------------------------------------------

_training_with("batch_norm.train.mean/running-mean", "the running mean is taken off in training")(
    lambda x, m, v: (_along(m, x), _statistics(x)[1])
)
_training_with("batch_norm.train.mean/per-image", "each image's own mean is taken off")(
    lambda x, m, v: (_statistics(x, tuple(range(2, x.ndim)))[0], _statistics(x)[1])
)
_training_with("batch_norm.train.variance/divisor-n-minus-1", "the variance with divisor n − 1 normalises")(
    lambda x, m, v: (_statistics(x)[0], x.var((0, *range(2, x.ndim)), keepdims=True, ddof=1))
)
_training_with("batch_norm.train.variance/running-var", "the running variance normalises in training")(
    lambda x, m, v: (_statistics(x)[0], _along(v, x))
)
_training_with("batch_norm.train.variance/no-root", "divided by the variance")(
    lambda x, m, v: (_statistics(x)[0], _statistics(x)[1] ** 2)
)


@_wrong("batch_norm.train.variance/one-element", "one element is off by one part in a thousand")
def _one_element(x, m, v, w, b, **h):
    y, *running = right(x, m, v, w, b, **h)
    y[-1:] *= y.dtype.type(1.001)
    return y, *running


@_wrong("batch_norm.eps.inside-root/outside", "eps is added to the standard deviation")
def _outside(x, m, v, w, b, **h):
    running = right(x, m, v, w, b, **h)[1:]
    mean, var = _statistics(x) if h["training"] else (_along(m, x), _along(v, x))
    return _apply(x, mean, np.square(np.sqrt(var) + h["eps"]), w, b, 0), *running


_wrong("batch_norm.eps.inside-root/a-tenth-more", "eps is a tenth larger than it says")(
    lambda x, m, v, w, b, **h: right(x, m, v, w, b, **{**h, "eps": 1.1 * h["eps"]})
)
_wrong("batch_norm.eps.inside-root/ignored", "eps is 1e-5 whatever it says")(
    lambda x, m, v, w, b, **h: right(x, m, v, w, b, **{**h, "eps": 1e-5})
)
_wrong("batch_norm.eps.inside-root/at-least", "an eps below a thousandth is raised to that")(
    lambda x, m, v, w, b, **h: right(x, m, v, w, b, **{**h, "eps": max(1e-3, h["eps"])})
)
_wrong("batch_norm.eps.inside-root/evaluation-only", "eps is left out in training")(
    lambda x, m, v, w, b, **h: right(x, m, v, w, b, **{**h, "eps": 1e-30 if h["training"] else h["eps"]})
)


@_wrong("batch_norm.weight.scales/before-the-mean", "x is scaled before it is normalised, where the weight cancels")
def _early(x, m, v, w, b, **h):
    return right(x if w is None or not h["training"] else x * _along(w, x), m, v, None, b, **h)


_wrong("batch_norm.weight.scales/first-for-all", "one weight serves all channels")(
    lambda x, m, v, w, b, **h: right(x, m, v, w if w is None else np.repeat(w[:1], len(w)), b, **h)
)
_wrong("batch_norm.weight.scales/from-one", "the weight is what is added to 1")(
    lambda x, m, v, w, b, **h: right(x, m, v, w if w is None else 1 + w, b, **h)
)


@_wrong("batch_norm.weight.scales/needed", "a call without a weight raises")
def _needs_weight(x, m, v, w, b, **h):
    if w is None:
        raise TypeError("expected a weight")
    return right(x, m, v, w, b, **h)


_wrong("batch_norm.bias.shifts/weight-with-it", "without a bias the weight is left out, too")(
    lambda x, m, v, w, b, **h: right(x, m, v, None if b is None else w, b, **h)
)
_wrong("batch_norm.bias.shifts/scaled", "the bias is multiplied by the weight")(
    lambda x, m, v, w, b, **h: right(x, m, v, w, b if b is None or w is None else b * w, **h)
)
_wrong("batch_norm.bias.shifts/dropped-in-evaluation", "in evaluation the bias is left out")(
    lambda x, m, v, w, b, **h: right(x, m, v, w, b if h["training"] else None, **h)
)
_wrong("batch_norm.bias.shifts/first-for-all", "one bias serves all channels")(
    lambda x, m, v, w, b, **h: right(x, m, v, w, b if b is None else np.repeat(b[:1], len(b)), **h)
)


def _axes(rank, key, mistake, axes):
    """Statistics of the batch over other axes, for one rank."""
    _training_with(f"batch_norm.axes.rank-{rank}/{key}", mistake)(
        lambda x, m, v: _statistics(x, axes if x.ndim == rank else None)
    )


_axes(2, "rows", "each row is normalised by itself", (1,))
_axes(3, "positions", "each position has its own statistics", (0,))
_axes(4, "images", "each image has its own statistics", (2, 3))
_axes(4, "positions", "each position has its own statistics", (0,))
_axes(4, "last-axis", "the last axis is taken for the channels", (0, 1, 2))


@_wrong("batch_norm.axes.rank-4/rows", "the rows are taken for the channels, and every vector gets as many entries")
def _rows(x, m, v, w, b, **h):
    if x.ndim != 4 or not x.size:
        return right(x, m, v, w, b, **h)
    y, *running = right(x.swapaxes(1, 2), *(a if a is None else np.resize(a, x.shape[2]) for a in (m, v, w, b)), **h)
    return y.swapaxes(1, 2), *running


for _rank in (3, 4):

    @_wrong(f"batch_norm.axes.rank-{_rank}/broadcast", "vectors are laid along the last axis where they fit there")
    def _broadcast(x, m, v, w, b, _rank=_rank, **h):
        if x.ndim != _rank or x.shape[-1] != x.shape[1]:
            return right(x, m, v, w, b, **h)
        y, *running = right(x.swapaxes(1, -1), m, v, w, b, **h)
        return y.swapaxes(1, -1), *running


_training_with("batch_norm.channel.independent/one-variance", "all channels are divided by one standard deviation")(
    lambda x, m, v: (_statistics(x)[0], _statistics(x)[1].mean())
)
_wrong("batch_norm.channel.independent/largest-variance", "running variances are clipped at a fraction of the largest")(
    lambda x, m, v, w, b, **h: right(x, m, np.maximum(v, v.max(initial=0) / 2), w, b, **h)
)


def _one_pass(x, least):
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axes, keepdims=True)
    return mean, np.maximum((x * x).mean(axes, keepdims=True) - mean * mean, x.dtype.type(least))


_training_with("batch_norm.train.offset/one-pass", "the variance is mean(x²) − mean(x)², clipped at 0")(
    lambda x, m, v: _one_pass(x, 0)
)
_training_with("batch_norm.train.constant/one-pass", "the variance is mean(x²) − mean(x)²; at times it is below −eps")(
    lambda x, m, v: _one_pass(x, -np.inf)
)


@_training_with("batch_norm.train.constant/no-eps", "where the variance is 0, eps is forgotten")
def _no_eps(x, m, v):
    mean, var = _statistics(x)
    return mean, np.where(np.ptp(x, (0, *range(2, x.ndim)), keepdims=True) == 0, np.nan, var)


# -- running statistics ------------------------------------------------------------------------------------------------


def _keeping(key, mistake):
    """In training the statistics kept are those of `keep(new, old, x, settings)`, each a pair; the rest is right."""

    def add(keep):
        @_wrong(key, mistake)
        def _(x, m, v, w, b, **h):
            y, *new = right(x, m, v, w, b, **h)
            if h["training"] and x.size:
                new = [a.astype(x.dtype) for a in keep(new, (m, v), x, h)]
            return y, *new

        return keep

    return add


def _again(x, old, h, momentum):
    return right(x, *old, **{**h, "momentum": momentum})[1:]


def _count(x):
    return x.size // x.shape[1]


_keeping("batch_norm.running-mean.update/kept", "the running mean never moves")(lambda new, old, x, h: (old[0], new[1]))
_keeping("batch_norm.running-mean.update/exchanged", "mean and variance are exchanged")(
    lambda new, old, x, h: new[::-1]
)
_keeping("batch_norm.running-mean.update/first-taken-whole", "a running mean of 0 counts as none")(
    lambda new, old, x, h: (np.where(old[0] == 0, _again(x, old, h, 1)[0], new[0]), new[1])
)
_keeping("batch_norm.running-mean.update/sum", "the old value keeps its full weight")(
    lambda new, old, x, h: (new[0] + h["momentum"] * old[0], new[1])
)
_keeping("batch_norm.running-var.update/divisor-n", "the variance kept has divisor n")(
    lambda new, old, x, h: (new[0], (1 - h["momentum"]) * old[1] + h["momentum"] * _statistics(x)[1].ravel())
)
_keeping("batch_norm.running-var.update/around-the-running-mean", "deviations from the running mean are squared")(
    lambda new, old, x, h: (
        new[0],
        (1 - h["momentum"]) * old[1]
        + h["momentum"] * _statistics((x - _along(old[0], x)) ** 2)[0].ravel() * _count(x) / (_count(x) - 1),
    )
)
_keeping("batch_norm.running-var.update/root", "the standard deviation is kept")(
    lambda new, old, x, h: (
        new[0],
        (1 - h["momentum"]) * old[1] + h["momentum"] * x.std((0, *range(2, x.ndim)), ddof=1),
    )
)
_keeping("batch_norm.momentum.weighs-new/reversed", "momentum is the weight of the old value")(
    lambda new, old, x, h: _again(x, old, h, 1 - h["momentum"])
)
_keeping("batch_norm.momentum.weighs-new/ignored", "momentum is 0.5 whatever it says")(
    lambda new, old, x, h: _again(x, old, h, 0.5)
)
_keeping("batch_norm.momentum.weighs-new/zero-as-default", "a momentum of 0 counts as none given, and 0.1 is taken")(
    lambda new, old, x, h: _again(x, old, h, h["momentum"] or 0.1)
)
_keeping("batch_norm.momentum.weighs-new/variance-reversed", "momentum is the weight of the old variance")(
    lambda new, old, x, h: (new[0], _again(x, old, h, 1 - h["momentum"])[1])
)


def _module(key, mistake, **methods):
    """A layer with other methods than the right one."""
    fault(key, mistake, BatchNorm2d=type("BatchNorm2d", (Right2d,), methods))


def _forward(key, mistake):
    """A layer with another forward."""

    def add(forward):
        _module(key, mistake, forward=forward)
        return forward

    return add


def _momentum(key, mistake, momentum):
    """A layer whose momentum, in a call in training, is `momentum(the one that was given, the count before)`."""

    @_forward(key, mistake)
    def _(layer, x):
        own = layer.momentum
        layer.momentum = momentum(own, int(layer.num_batches_tracked.data))
        y = Right2d.forward(layer, x)
        layer.momentum = own
        return y


def _cumulative(name, mistake, momentum):
    """`momentum(count)` takes the place of None."""
    _momentum(
        f"batch_norm.momentum.cumulative/{name}", mistake, lambda own, count: momentum(count) if own is None else own
    )


_momentum(
    "batch_norm.running-mean.update/first-of-a-module",
    "a module takes its first batch whole",
    lambda own, count: own if count else 1.0,
)


def _no_none(layer, x):
    if layer.training and layer.momentum is None:
        raise TypeError("momentum of None: expected a number")
    return Right2d.forward(layer, x)


_module("batch_norm.momentum.cumulative/refused", "without momentum a call in training raises", forward=_no_none)
_cumulative("none-as-0", "without momentum nothing is kept", lambda count: 0.0)
_cumulative("default", "without momentum it is 0.1", lambda count: 0.1)
_cumulative("late", "the batch at hand is not counted before its share is taken", lambda count: 1 / max(1, count))
_cumulative("early", "the initial values count as a batch", lambda count: 1 / (count + 2))


def _counting(name, mistake, more):
    """`more(layer, x)` is what the count rises by, beside the right number."""

    @_forward(f"batch_norm.count.tracked/{name}", mistake)
    def _(layer, x):
        y = Right2d.forward(layer, x)
        layer.num_batches_tracked.data += more(layer, x)
        return y


_counting("images", "images are counted", lambda layer, x: layer.training * (len(x) - 1))
_counting("evaluation", "calls in evaluation are counted", lambda layer, x: not layer.training)
_counting("never", "nothing is counted", lambda layer, x: -int(layer.training))


# -- evaluation and modes ----------------------------------------------------------------------------------------------


@_wrong("batch_norm.eval.frozen/batch", "the batch's statistics are used in evaluation too")
def _batch(x, m, v, w, b, **h):
    y, *running = right(x, m, v, w, b, **h)
    return y if h["training"] or not x.size else _apply(x, *_statistics(x), w, b, h["eps"]), *running


_wrong("batch_norm.eval.frozen/deviation", "the running variance is taken for a standard deviation")(
    lambda x, m, v, w, b, **h: (
        right(x, m, v if h["training"] else v * v, w, b, **h)[0],
        *right(x, m, v, w, b, **h)[1:],
    )
)


@_wrong("batch_norm.eval.unchanged/moving", "evaluation moves the running statistics")
def _moving(x, m, v, w, b, **h):
    y = right(x, m, v, w, b, **h)[0]
    new = _again(x, (m, v), {**h, "training": True}, 0.5) if _count(x) > 1 else (_statistics(x)[0].ravel(), v)
    return (y, *new) if not h["training"] else right(x, m, v, w, b, **h)


@_forward("batch_norm.eval.unchanged/moving-module", "a module moves its running mean in evaluation")
def _moving_module(layer, x):
    y = Right2d.forward(layer, x)
    if not layer.training:
        layer.running_mean.data += layer.momentum * (x.mean((0, 2, 3)) - layer.running_mean.data)
    return y


@_wrong("batch_norm.eval.row-independent/refused", "a batch of one is refused in evaluation")
def _refused(x, m, v, w, b, **h):
    if len(x) == 1 and not h["training"]:
        raise ValueError("expected more than one image")
    return right(x, m, v, w, b, **h)


@_wrong("batch_norm.eval.row-independent/itself", "a batch of one is normalised with itself")
def _itself(x, m, v, w, b, **h):
    y, *running = right(x, m, v, w, b, **h)
    return _apply(x, *_statistics(x), w, b, h["eps"]) if len(x) == 1 and not h["training"] else y, *running


def _mode(name, mistake, trains):
    """`trains(layer, x)` says whether a call is one in training."""

    @_forward(f"batch_norm.mode.switch/{name}", mistake)
    def _(layer, x):
        own, layer.training = layer.training, trains(layer, x)
        y = Right2d.forward(layer, x)
        layer.training = own
        return y


_mode("batch-size", "a batch of one is evaluated, whatever the mode", lambda layer, x: layer.training and len(x) > 1)
_mode("always-training", "eval() is not heard", lambda layer, x: True)
_mode("always-evaluation", "train() is not heard", lambda layer, x: False)


@_forward("batch_norm.mode.switch/late", "running statistics wait for a backward pass")
def _late(layer, x):
    before = layer.running_mean.data.copy(), layer.running_var.data.copy()
    y = Right2d.forward(layer, x)
    layer.running_mean.data[...], layer.running_var.data[...] = before
    return y


def _evaluates(layer, x):
    own, layer.training = layer.training, vars(layer).get("recording", False)
    y = Right2d.forward(layer, x)
    layer.training = own
    return y


def _trains(layer, x):
    own, layer.training, layer.recording = layer.training, True, True
    y, back = Right2d.vjp(layer, x)
    layer.training, layer.recording = own, False
    return y, back


_module(
    "batch_norm.mode.switch/gradients",
    "a call of which gradients are wanted is one in training, any other one in evaluation",
    forward=_evaluates,
    vjp=_trains,
)


def _reset(layer, mode=True):
    if mode and not layer.training:
        layer.running_mean.data[...], layer.running_var.data[...] = 0, 1
    return Right2d.train(layer, mode)


_module("batch_norm.mode.round-trip/reset", "train() begins anew", train=_reset)


@_forward("batch_norm.mode.round-trip/cached", "the statistics are for ever those that the first evaluation found")
def _cached(layer, x):
    if not layer.training and not hasattr(layer, "found"):
        layer.found = layer.running_mean.data.copy(), layer.running_var.data.copy()
    if hasattr(layer, "found"):
        layer.running_mean.data[...], layer.running_var.data[...] = layer.found
    return Right2d.forward(layer, x)


@_wrong(
    "batch_norm.arguments.together/folded-mean",
    "folded in evaluation, the shift is bias − mean · s, without the weight",
)
def _folded(x, m, v, w, b, **h):
    if h["training"] or w is None:
        return right(x, m, v, w, b, **h)
    s = 1 / np.sqrt(v + h["eps"])
    return (x * _along(s * w, x) + _along((0 if b is None else b) - m * s, x)).astype(x.dtype), m, v


_wrong("batch_norm.arguments.together/eps-forgotten-with-weight", "eps is 1e-5 as soon as there is a weight")(
    lambda x, m, v, w, b, **h: right(x, m, v, w, b, **(h if w is None or np.all(w == 1) else {**h, "eps": 1e-5}))
)


@_wrong("batch_norm.eval.special/cleaned", "in evaluation what is not finite is replaced on the way in")
def _cleaned(x, m, v, w, b, **h):
    return right(x if h["training"] else np.nan_to_num(x), m, v, w, b, **h)


@_wrong("batch_norm.eval.special/everywhere", "in evaluation 0 times the sum of all elements is added")
def _everywhere(x, m, v, w, b, **h):
    y, *running = right(x, m, v, w, b, **h)
    return y if h["training"] else y + 0 * x.sum(), *running


# -- defaults, and how a module begins ---------------------------------------------------------------------------------


def _unsaid(key, mistake, training=False, momentum=0.1, eps=1e-5):
    """A function with other defaults."""
    own = {"training": training, "momentum": momentum, "eps": eps}
    fault(key, mistake, batch_norm=lambda *operands, **said: right(*operands, **{**own, **said}))


def _unsaid_module(key, mistake, **own):
    """A module with other defaults."""

    def begin(layer, num_features, affine=True, *, dtype=np.float32, **said):
        Right2d.__init__(layer, num_features, affine=affine, dtype=dtype, **{**own, **said})

    _module(key, mistake, __init__=begin)


_unsaid("batch_norm.defaults.mode/training", "a call that says nothing trains", training=True)
_unsaid("batch_norm.defaults.momentum/of-the-old-value", "momentum is 0.9 where nothing is said", momentum=0.9)
_unsaid_module(
    "batch_norm.defaults.momentum/module", "a module's momentum is 0.01 where nothing is said", momentum=0.01
)
_unsaid("batch_norm.defaults.eps/1e-3", "eps is 1e-3 where nothing is said", eps=1e-3)
_unsaid("batch_norm.defaults.eps/1.1e-5", "eps is 1.1e-5 where nothing is said", eps=1.1e-5)
_unsaid_module("batch_norm.defaults.eps/module", "a module's eps is 1e-6 where nothing is said", eps=1e-6)


def _beginning(key, mistake):
    """A module that `change(module)` alters when it is made."""

    def add(change):
        def begin(layer, *sizes, dtype=np.float32, **arguments):
            Right2d.__init__(layer, *sizes, dtype=dtype, **arguments)
            change(layer)

        _module(key, mistake, __init__=begin)
        return change

    return add


@_beginning("batch_norm.start.affine/weight-0", "the weight begins at 0")
def _weight_0(layer):
    if layer.weight:
        layer.weight.data *= 0


@_beginning("batch_norm.start.affine/bias-random", "the bias begins at random")
def _bias_random(layer):
    if layer.bias:
        layer.bias.data += np.random.default_rng(0).standard_normal(len(layer.bias.data)).astype(layer.bias.data.dtype)


@_beginning("batch_norm.start.statistics/variance-0", "the running variance begins at 0")
def _variance_0(layer):
    layer.running_var.data *= 0


@_beginning("batch_norm.start.statistics/count-1", "the count begins at 1")
def _count_1(layer):
    layer.num_batches_tracked.data += 1


@_forward(
    "batch_norm.start.statistics/batch-until-trained", "until it has been trained, a module evaluates with the batch"
)
def _batch_until_trained(layer, x):
    if layer.training or layer.num_batches_tracked.data:
        return Right2d.forward(layer, x)
    mean, var = _statistics(x)
    return _apply(x, mean, var, layer.weight and layer.weight.data, layer.bias and layer.bias.data, layer.eps)


class _LateVariance(Right2d):
    """Says 0 of its running variance until it is called for the first time."""

    def __init__(self, *sizes, dtype=np.float32, **arguments):
        super().__init__(*sizes, dtype=dtype, **arguments)
        self.running_var.data *= 0

    def forward(self, x):
        if not self.running_var.data.any():
            self.running_var.data += 1
        return super().forward(x)


fault("batch_norm.start.statistics/late", "the running variance begins with the first call", BatchNorm2d=_LateVariance)


@_beginning("batch_norm.parameters.complete/statistics", "the running statistics are parameters")
def _statistics_too(layer):
    for name in ("running_mean", "running_var"):
        setattr(layer, name, Parameter(getattr(layer, name).data))


@_beginning("batch_norm.parameters.complete/left-behind", "affine=False leaves a weight of ones behind")
def _left_behind(layer):
    layer.weight = Parameter(np.ones_like(layer.running_mean.data)) if layer.weight is None else layer.weight


@_beginning("batch_norm.state.complete/plain", "the running statistics are not part of the state")
def _plain(layer):
    for name in ("running_mean", "running_var"):
        setattr(layer, name, Buffer(getattr(layer, name).data, persistent=False))


@_beginning("batch_norm.state.complete/variance-only", "the running mean is not part of the state")
def _plain_mean(layer):
    layer.running_mean = Buffer(layer.running_mean.data, persistent=False)


class _LearnsElsewhere(Right2d):
    """Moves copies of its running statistics, and evaluates with them."""

    def forward(self, x):
        learnt = vars(self).setdefault("learnt", {})
        state = [(name, b, b.data.copy()) for name, b in vars(self).items() if name.startswith("running")]
        for name, buffer, _ in state:
            buffer.data[...] = learnt.get(name, buffer.data)
        y = super().forward(x)
        for name, buffer, data in state:
            learnt[name] = buffer.data.copy()
            buffer.data[...] = data
        return y


fault(
    "batch_norm.state.complete/learnt-elsewhere",
    "what is learnt is not written into the buffers",
    BatchNorm2d=_LearnsElsewhere,
)


@_beginning("batch_norm.state.keys/step", "the state has one entry more")
def _step(layer):
    layer.step = Buffer(np.array(0))


beginning("batch_norm.parameters.complete/spare", "a parameter that nothing uses", Right2d)(add_parameter)


class _AlwaysTracks(Right2d):
    def forward(self, x):
        tracks, self.track_running_stats = self.track_running_stats, True
        y = super().forward(x)
        self.track_running_stats = tracks
        return y


class _Counts(Right2d):
    def forward(self, x):
        self.num_batches_tracked.data += self.training and not self.track_running_stats
        return super().forward(x)


class _MeanMoves(Right2d):
    def forward(self, x):
        before = self.running_mean.data.copy()
        if self.training and not self.track_running_stats:
            self.running_mean.data[...] = before + self.momentum * (x.mean((0, 2, 3)) - before)
        return super().forward(x)


class _OffForGood(Right2d):
    off = False

    def forward(self, x):
        self.off = self.off or not self.track_running_stats
        self.track_running_stats = not self.off
        return super().forward(x)


class _Evaluates(Right2d):
    def forward(self, x):
        training = self.training
        self.training = training and self.track_running_stats
        y = super().forward(x)
        self.training = training
        return y


for _name, _mistake, _wrong_norm in (
    ("ignored", "track_running_stats is read by the constructor alone", _AlwaysTracks),
    ("counts", "batches are counted that are not tracked", _Counts),
    ("mean-moves", "the running mean goes on to move", _MeanMoves),
    ("for-good", "tracking that was switched off stays off", _OffForGood),
    ("evaluates", "a module that tracks nothing goes by its statistics in training too", _Evaluates),
):
    fault(f"batch_norm.count.switched-off/{_name}", _mistake, BatchNorm2d=_wrong_norm)

beginning("batch_norm.gradient.frozen/weight-stops-x", "a frozen weight stops the gradient of x", Right2d)(
    stopped_by("weight")
)
beginning("batch_norm.gradient.frozen/bias-stops-x", "a frozen bias stops the gradient of x", Right2d)(
    stopped_by("bias")
)
beginning("batch_norm.gradient.frozen/bias-stops-weight", "a frozen bias freezes the weight too", Right2d)(
    stopped_by("bias", "weight")
)


@beginning("batch_norm.gradient.no-graph/statistics-follow", "gradients are followed through the statistics", Right2d)
def _statistics_follow(layer):
    forward = layer.forward

    def following(x):
        y = forward(x)
        layer.running_mean.requires_grad = layer.running_var.requires_grad = layer.training
        return y

    layer.forward = following


beginning("batch_norm.buffers.complete/spare", "a second count is saved", Right2d)(add_buffer)
beginning("batch_norm.buffers.complete/last-input", "the last input is saved", Right2d)(save_input)
beginning("batch_norm.state.own/weight", "layers of one shape share one weight", Right2d)(
    one_array_for_each_shape("weight")
)
beginning("batch_norm.state.own/statistics", "layers of one shape share one running mean", Right2d)(
    one_array_for_each_shape("running_mean")
)
beginning("batch_norm.state.own/count", "all layers share one count", Right2d)(
    one_array_for_each_shape("num_batches_tracked")
)


# -- results and operands ----------------------------------------------------------------------------------------------


def _output(key, mistake):
    """`change(y, mean, var)` alters the results."""

    def add(change):
        _wrong(key, mistake)(lambda x, m, v, w, b, **h: change(*right(x, m, v, w, b, **h)))
        return change

    return add


_output("batch_norm.output.size/four-dimensions", "(N, C) is answered with (N, C, 1, 1)")(
    lambda y, m, v: (y.reshape(*y.shape, 1, 1) if y.ndim == 2 else y, m, v)
)
_output("batch_norm.output.size/statistics-along", "the statistics are returned as (1, C)")(
    lambda y, m, v: (y, m[None], v[None])
)
_output("batch_norm.output.dtype/float64", "y is float64 whatever came in")(
    lambda y, m, v: (y.astype(np.float64 if y.dtype == np.float32 else np.float32), m, v)
)
_output("batch_norm.output.dtype/float32-statistics", "the statistics are float32 whatever came in")(
    lambda y, m, v: (y, m.astype(np.float32), v.astype(np.float32))
)


@_wrong("batch_norm.output.dtype/float32-alone", "in training all but float32 is refused")
def _float32_alone(x, m, v, w, b, **h):
    if h["training"] and x.dtype != np.float32:
        raise TypeError(f"x of {x.dtype}: expected float32, as the statistics are")
    return right(x, m, v, w, b, **h)


@_wrong("batch_norm.dtype.mixed/refused", "x must be of the statistics' dtype")
def _not_mixed(x, m, v, w, b, **h):
    if m is not None and m.dtype != x.dtype:
        raise TypeError(f"x of {x.dtype}, statistics of {m.dtype}: expected one dtype")
    return right(x, m, v, w, b, **h)


_output("batch_norm.dtype.mixed/y-of-32-bits", "y has the dtype of the statistics")(
    lambda y, mean, var: (y.astype(mean.dtype), mean, var)
)
_output("batch_norm.dtype.mixed/statistics-of-16-bits", "beside 16 bits the statistics are rounded to them")(
    lambda y, m, v: (y, *(a.astype(y.dtype).astype(a.dtype) for a in (m, v)))
)


@_wrong("batch_norm.output.fresh/in-place", "x itself is normalised and returned")
def _in_place(x, m, v, w, b, **h):
    x[...], *running = right(x, m, v, w, b, **h)
    return x, *running


_STORE: dict[object, np.ndarray] = {}


@_wrong("batch_norm.output.fresh/reused-buffer", "the result's memory is kept and used again")
def _reused(x, m, v, w, b, **h):
    y, *running = right(x, m, v, w, b, **h)
    store = _STORE.setdefault((y.shape, y.dtype), y)
    store[...] = y
    return store, *running


@_wrong("batch_norm.input.unchanged/centred", "the mean is taken off x in place")
def _centred(x, m, v, w, b, **h):
    results = right(x, m, v, w, b, **h)
    x -= x.dtype.type(1)
    return results


@_wrong("batch_norm.input.unchanged/statistics", "the running statistics are moved in place as well as returned")
def _moved(x, m, v, w, b, **h):
    y, mean, var = right(x, m, v, w, b, **h)
    m[...], v[...] = mean, var
    return y, mean, var


@_wrong("batch_norm.input.layout/memory-order", "the memory is read as if it were contiguous")
def _memory_order(x, m, v, w, b, **h):
    return right(as_if_contiguous(x), m, v, w, b, **h)


@_wrong("batch_norm.batch.empty/nan", "the mean of nothing is averaged in")
def _nan(x, m, v, w, b, **h):
    y, mean, var = right(x, m, v, w, b, **h)
    return (y, mean, var) if x.size or not h["training"] else (y, mean * np.nan, var)


@_wrong("batch_norm.batch.empty/variance-shrinks", "of nothing the running variance keeps its old share alone")
def _shrinks(x, m, v, w, b, **h):
    y, mean, var = right(x, m, v, w, b, **h)
    return (y, mean, var) if x.size or not h["training"] else (y, mean, ((1 - h["momentum"]) * var).astype(var.dtype))


@_wrong("batch_norm.batch.empty/refused", "a batch of nothing raises")
def _no_empty(x, m, v, w, b, **h):
    if not x.size:
        raise ValueError("empty batch")
    return right(x, m, v, w, b, **h)


_LAST: dict[str, int] = {}


@_wrong("batch_norm.call.stateless/axes-remembered", "the axes of the last call are used where the rank changes")
def _axes_remembered(x, m, v, w, b, **h):
    y, *running = right(x, m, v, w, b, **h)
    rank, _LAST["rank"] = _LAST.get("rank", x.ndim), x.ndim
    if rank != x.ndim and h["training"] and x.size:
        y = _apply(x, *_statistics(x, tuple(a for a in (0, *range(2, rank)) if a < x.ndim)), w, b, h["eps"])
    return y, *running


class _Remembers:
    """Gives every further call the shape of the first."""

    shape = None

    def forward(self, x):
        """As the right one, of what fits the first shape."""
        self.shape = self.shape or x.shape
        return super().forward(x if x.shape == self.shape else np.resize(x, self.shape))


fault(
    "batch_norm.call.stateless/shape-remembered",
    "every further call is given the shape of the first",
    BatchNorm1d=type("BatchNorm1d", (_Remembers, Right1d), {}),
    BatchNorm2d=type("BatchNorm2d", (_Remembers, Right2d), {}),
)


class _Flattens:
    """Flattens an image from its first axis to its last, the number of which it keeps from the first call on."""

    end = -1

    def forward(self, x):
        """As the right one, of what it takes for images of one axis."""
        self.end = self.end % x.ndim
        flat = x.reshape(*x.shape[:2], int(np.prod(x.shape[2 : self.end + 1])), *(() if x.ndim < 4 else (1,)))
        return super().forward(flat).reshape(x.shape)


fault(
    "batch_norm.call.stateless/end-overwritten",
    "the axis up to which an image is flattened is for ever the last one of the first input",
    BatchNorm1d=type("BatchNorm1d", (_Flattens, Right1d), {}),
    BatchNorm2d=type("BatchNorm2d", (_Flattens, Right2d), {}),
)


_wrong("batch_norm.nan.own-channel/clipped", "NaN counts as 0")(
    lambda x, m, v, w, b, **h: right(np.where(np.isnan(x), x.dtype.type(0), x), m, v, w, b, **h)
)
_wrong("batch_norm.nan.own-channel/first-alone", "NaN counts as 0 in all channels but the first")(
    lambda x, m, v, w, b, **h: right(
        np.where(np.isnan(x) & (_along(np.arange(x.shape[1]), x) > 0), x.dtype.type(0), x), m, v, w, b, **h
    )
)
_training_with("batch_norm.nan.own-channel/spread", "the means are taken in one product, through which NaN spreads")(
    lambda x, m, v: (_statistics(x)[0] + 0 * x.mean(), _statistics(x)[1])
)


# -- gradients ---------------------------------------------------------------------------------------------------------


def _wrong_vjp(key, mistake):
    """The fault has the right gradients: function(dx, dw, db, cotangent, x, mean, variance, w, b, **settings)."""

    def add(function):
        def batch_norm_vjp(cotangent, x, m, v, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
            settings = {"training": training, "momentum": momentum, "eps": eps}
            operands = (cotangent, x, m, v, weight, bias)
            dx, dm, dv, dw, db = right_vjp(*operands, **settings)
            with np.errstate(all="ignore"):
                dx, dw, db = function(dx, dw, db, *operands, **settings)
            return dx, dm, dv, dw, db

        fault(f"batch_norm.gradient.{key}", mistake, batch_norm_vjp=batch_norm_vjp)
        return function

    return add


def _over(a, axes=None):
    """The mean, laid along the array."""
    return a.mean((0, *range(2, a.ndim)) if axes is None else axes, keepdims=True)


def _wrong_dx(key, mistake, training=True, statistics=_statistics):
    """In one of the modes the gradient of x is `formula(cotangent, x normalised by the batch, w·s)`."""

    def add(formula):
        @_wrong_vjp(key, mistake)
        def _(dx, dw, db, g, x, m, v, w, b, **h):
            if h["training"] != training or not x.size:
                return dx, dw, db
            mean, var = statistics(x)
            s = 1 / np.sqrt(var + x.dtype.type(h["eps"]))
            return formula(g, (x - mean) * s, s if w is None else s * _along(w, x)).astype(x.dtype), dw, db

        return formula

    return add


def _dx(g, hat, slope, axes=None):
    """As it ought to be, but for the axes."""
    return slope * (g - _over(g, axes) - hat * _over(g * hat, axes))


_wrong_dx("x/constants", "the statistics are taken for constants, as they are in evaluation")(
    lambda g, hat, slope: slope * g
)
_wrong_dx("x/mean-detached", "what the mean does is forgotten")(
    lambda g, hat, slope: slope * (g - hat * _over(g * hat))
)
_wrong_dx("x/variance-detached", "what the variance does is forgotten")(lambda g, hat, slope: slope * (g - _over(g)))
_wrong_dx("x/half", "of what the variance does there is one half, for the 2 of the square is lost")(
    lambda g, hat, slope: slope * (g - _over(g) - hat * _over(g * hat) / 2)
)
_wrong_dx("x/sign", "what the variance does has the wrong sign")(
    lambda g, hat, slope: slope * (g - _over(g) + hat * _over(g * hat))
)


@_wrong_dx("x/divisor-n-minus-1", "the means have divisor n − 1")
def _bessel(g, hat, slope):
    n = _count(g)
    return slope * (g - (_over(g) + hat * _over(g * hat)) * g.dtype.type(n / (n - 1)))


_wrong_vjp("x/weight-detached", "the gradient of x is not multiplied by the weight")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (right_vjp(g, x, m, v, **h)[0], dw, db)
)
_wrong_vjp("x/weight-twice", "the weight is multiplied in twice")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx if w is None else dx * _along(w, x), dw, db)
)
_wrong_vjp("x/momentum", "as the statistics do, gradients take but a share of the batch's")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx * x.dtype.type(1 - h["momentum"]), dw, db)
)
_wrong_vjp("x/divided-by-n", "the gradient of x is divided by the number of images")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx / x.dtype.type(max(1, len(x))), dw, db)
)
_wrong_vjp("weight/exchanged", "the gradients of weight and bias are exchanged")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx, db, dw)
)
_wrong_vjp("weight/as-it-came", "the cotangent meets x as it came")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx, None if w is None else (g * x).sum((0, *range(2, x.ndim))), db)
)
_wrong_vjp("weight/mean", "the weight gets a mean")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx, None if w is None else dw / x.dtype.type(max(1, _count(x))), db)
)
_wrong_vjp("weight/scaled", "the weight's gradient is multiplied by the weight")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx, None if w is None else dw * w, db)
)
_wrong_vjp("bias/mean", "the bias gets a mean")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx, dw, None if b is None else db / x.dtype.type(max(1, _count(x))))
)
_wrong_vjp("bias/scaled", "the weight is multiplied into the bias' gradient")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx, dw, db if b is None or w is None else db * w)
)
_wrong_vjp("bias/frozen-in-evaluation", "in evaluation the bias gets nothing")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx, dw, None if b is None else db * db.dtype.type(h["training"]))
)
_wrong_dx("axes/images", "the means are those of each image")(
    lambda g, hat, slope: _dx(g, hat, slope, tuple(range(2, g.ndim)))
)
_wrong_dx("axes/batch", "the means are over the batch alone, position by position")(
    lambda g, hat, slope: _dx(g, hat, slope, (0,))
)
_wrong_dx("axes/rows", "of two dimensions, the means are over the second")(
    lambda g, hat, slope: _dx(g, hat, slope, (1,) if g.ndim == 2 else None)
)


@_wrong_vjp("axes/last-axis", "weight and bias get sums along the last axis where that is as long as they are")
def _last_axis(dx, dw, db, g, x, m, v, w, b, **h):
    if x.ndim == 2 or x.shape[-1] != x.shape[1]:
        return dx, dw, db
    _, _, _, dw, db = right_vjp(g.swapaxes(1, -1), x.swapaxes(1, -1), m, v, w, b, **h)
    return dx, dw, db


def _with_settings(key, mistake, **own):
    """The gradients of the function with other settings than the call's."""

    @_wrong_vjp(key, mistake)
    def _(dx, dw, db, *operands, **h):
        dx, _, _, dw, db = right_vjp(*operands, **{**h, **own})
        return dx, dw, db


_with_settings("eps/forgotten", "eps is forgotten on the way back", eps=1e-30)
_with_settings("eps/default", "eps is 1e-5 on the way back, whatever it says", eps=1e-5)
_wrong_dx(
    "offset/one-pass",
    "the way back has a variance of its own, mean(x²) − mean(x)²",
    statistics=lambda x: _one_pass(x, 0),
)(_dx)


@_wrong_dx("constant/root", "the chain rule goes through √v, whose slope at 0 is infinite")
def _root(g, hat, slope):
    root = np.sqrt(_over(hat * hat))
    return slope * (g - _over(g) - hat * _over(g * hat) * root / root)


@_wrong_vjp("constant/zero", "a channel without variance gets no gradient")
def _no_variance(dx, dw, db, g, x, m, v, w, b, **h):
    varies = x != x[(slice(1), slice(None), *(slice(1) for _ in x.shape[2:]))]
    return dx * varies.any((0, *range(2, x.ndim)), keepdims=True), dw, db


_wrong_dx("channel/one-mean", "one mean of the cotangent is taken off all channels")(
    lambda g, hat, slope: slope * (g - g.mean() - hat * _over(g * hat))
)
_wrong_vjp("channel/last-for-all", "one weight serves all channels on the way back")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (
        dx if w is None else right_vjp(g, x, m, v, np.repeat(w[-1:], len(w)), b, **h)[0],
        dw,
        db,
    )
)
_wrong_dx("eval-x/training", "the formula of training is used in both modes", training=False)(_dx)
_wrong_dx("eval-x/batch-variance", "in evaluation the variance of the batch divides the cotangent", training=False)(
    lambda g, hat, slope: slope * g
)
_wrong_vjp("eval-x/less-the-mean", "in evaluation the mean of the cotangent is taken off")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx if h["training"] or not x.size else dx - _over(dx), dw, db)
)
_wrong_vjp("eval-x/deviation", "in evaluation the running variance is taken for a standard deviation on the way back")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (
        dx if h["training"] else right_vjp(g, x, m, v * v, w, b, **h)[0],
        dw,
        db,
    )
)


@_wrong_vjp("eval-weight/batch", "in evaluation the batch normalises what the weight's gradient is made of")
def _batch_s_weight(dx, dw, db, g, x, m, v, w, b, **h):
    if h["training"] or w is None or not x.size:
        return dx, dw, db
    return dx, (g * _apply(x, *_statistics(x), None, None, h["eps"])).sum((0, *range(2, x.ndim))), db


_wrong_vjp("eval-weight/uncentred", "in evaluation the running mean is not taken off")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (
        dx,
        dw if h["training"] else right_vjp(g, x, m * 0, v, w, b, **h)[3],
        db,
    )
)
_wrong_vjp("eval-row-independent/divided", "in evaluation the gradient of x is divided by the number of images")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx if h["training"] else dx / x.dtype.type(max(1, len(x))), dw, db)
)
_wrong_vjp("eval-row-independent/zeros", "a batch of one gets no gradient")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx * x.dtype.type(len(x) > 1), dw, db)
)


@_wrong_vjp("eval-row-independent/refused", "one value per channel is refused in evaluation, too")
def _refused_back(dx, dw, db, g, x, m, v, w, b, **h):
    if x.size == x.shape[1]:
        raise ValueError("expected more than one value per channel")
    return dx, dw, db


_wrong_vjp("affine-absent/zeros", "without a weight there is nothing for x")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx if w is not None else dx * 0, dw, db)
)
_wrong_vjp("affine-absent/both", "without a weight and a bias there is nothing for x")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx if w is not None or b is not None else dx * 0, dw, db)
)
_wrong_vjp("affine-absent/weight-with-the-bias", "without a bias the weight gets nothing")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx, dw if b is not None or w is None else dw * 0, db)
)
_wrong_vjp("affine-absent/none", "without a weight there is no gradient of x")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx if w is not None else None, dw, db)
)
_wrong_vjp("affine-absent/in-another-s-place", "without a weight, its gradient is returned in the bias' place")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (
        dx,
        dw,
        right_vjp(g, x, m, v, b, None, **h)[3] if w is None and b is not None else db,
    )
)


def _pulling(key, mistake):
    """A layer whose pullback is `pull(layer, x, right pullback)`."""

    def add(pull):
        def vjp(layer, x):
            y, back = Right2d.vjp(layer, x)
            return y, lambda cotangent: pull(layer, x, back, cotangent)

        _module(f"batch_norm.gradient.{key}", mistake, vjp=vjp)
        return pull

    return add


@_pulling("statistics/recomputed", "the forward pass is run again on the way back, and moves the statistics twice")
def _recomputed(layer, x, back, cotangent):
    Right2d.forward(layer, x)
    return back(cotangent)


@_pulling("statistics/counted-twice", "a batch counts once on the way there and once on the way back")
def _counted_twice(layer, x, back, cotangent):
    layer.num_batches_tracked.data += layer.training
    return back(cotangent)


@_pulling("statistics/evaluation", "running statistics move in evaluation, too, when gradients are wanted")
def _moving_back(layer, x, back, cotangent):
    if not layer.training:
        layer.running_mean.data += layer.momentum * (x.mean((0, 2, 3)) - layer.running_mean.data)
    return back(cotangent)


def _unmoved(layer, x):
    before = {key: buffer.data.copy() for key, buffer in layer.named_buffers()}
    y, back = Right2d.vjp(layer, x)
    for key, buffer in layer.named_buffers():
        buffer.data[...] = before[key]
    return y, back


_module(
    "batch_norm.gradient.statistics/unmoved", "a forward pass of which gradients are wanted moves nothing", vjp=_unmoved
)


def _first_mode(layer, x):
    layer.first = getattr(layer, "first", layer.training)
    own, layer.training = layer.training, layer.first
    _, back = _unmoved(layer, x)
    layer.training = own
    return Right2d.forward(layer, x), back


_module(
    "batch_norm.gradient.mode/first", "the way back is for ever that of the mode it was first taken in", vjp=_first_mode
)


def _last_trained(layer, x):
    if layer.training:
        layer.saved = x.mean((0, 2, 3)), x.var((0, 2, 3))
        return Right2d.vjp(layer, x)
    y = Right2d.forward(layer, x)
    own = layer.running_mean.data, layer.running_var.data
    layer.running_mean.data, layer.running_var.data = getattr(layer, "saved", own)
    _, back = Right2d.vjp(layer, x)
    layer.running_mean.data, layer.running_var.data = own
    return y, back


_module(
    "batch_norm.gradient.mode/saved",
    "in evaluation the way back has the statistics of the last batch",
    vjp=_last_trained,
)
_wrong_vjp("like-operand/kept-dimensions", "weight and bias get gradients of shape (1, C, 1, 1)")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx, *(None if a is None else _along(a, x)[None] for a in (dw, db)))
)
_wrong_vjp("like-operand/wide", "the gradients are float64 whatever came in")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: tuple(None if a is None else a.astype(np.float64) for a in (dx, dw, db))
)


def _packed(a):
    """The elements as they lie in memory, as if they lay there in the order of the axes."""
    return as_if_contiguous(a)


def _elsewhere(key, mistake, read):
    """The gradients of operands that are misread: `read(cotangent, x, …)`."""

    @_wrong_vjp(key, mistake)
    def _(dx, dw, db, *operands, **h):
        dx, _, _, dw, db = right_vjp(*read(*operands), **h)
        return dx, dw, db


_elsewhere(
    "layout/cotangent",
    "the memory of the cotangent is read as if it were contiguous",
    lambda g, x, *vectors: (_packed(g), x, *vectors),
)
_elsewhere(
    "layout/x",
    "on the way back the memory of x is read as if it were contiguous",
    lambda g, x, *vectors: (g, _packed(x), *vectors),
)


_elsewhere(
    "thin-layout/memory-order",
    "the memory of x and of the cotangent is read as if it were contiguous",
    lambda g, x, *vectors: (_packed(g), _packed(x), *vectors),
)


def _next_to(vector):
    """What lies in memory where a contiguous vector's elements would."""
    if vector is None or vector.strides[0] <= vector.itemsize:
        return vector
    return np.lib.stride_tricks.as_strided(vector, vector.shape, (vector.itemsize,))


_elsewhere(
    "vector-layout/memory-order",
    "weight and running statistics are read as if they were contiguous",
    lambda g, x, *vectors: (g, x, *map(_next_to, vectors)),
)


@_wrong_vjp("unchanged/cotangent", "the mean is taken off the cotangent in place")
def _centred_cotangent(dx, dw, db, g, x, m, v, w, b, **h):
    if g.flags.writeable:
        g -= 1
    return dx, dw, db


@_wrong_vjp("unchanged/x", "x is normalised in place on the way back, and a second time by the next way back")
def _normalised(dx, dw, db, g, x, m, v, w, b, **h):
    if x.flags.writeable:
        x[...] = right(x, m, v, None, None, **h)[0]
    return dx, dw, db


@_wrong_vjp("unchanged/statistics", "the way back moves the running statistics that came in")
def _moved_back(dx, dw, db, g, x, m, v, w, b, **h):
    _, m[...], v[...] = right(x, m, v, w, b, **h)
    return dx, dw, db


_wrong_vjp("empty/not-cleared", "without images the weight's gradient is whatever the memory held")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx, dw if x.size or w is None else dw + 1, db)
)
_wrong_vjp("empty/nan", "of no values the weight gets a mean, which is NaN")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx, dw if x.size or w is None else dw * np.nan, db)
)


@_wrong_vjp("empty/refused", "a batch of nothing raises on the way back")
def _no_empty_back(dx, dw, db, g, x, m, v, w, b, **h):
    if not x.size:
        raise ValueError("empty batch")
    return dx, dw, db


def _of_cleaned(g, x, m, v, w, b, h):
    dx, _, _, dw, db = right_vjp(np.nan_to_num(g), x, m, v, w, b, **h)
    return dx, dw, db


_wrong_vjp("special/cleaned", "what is not finite is replaced in the cotangent")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: _of_cleaned(g, x, m, v, w, b, h)
)
_wrong_vjp("special/everywhere", "0 times the sum of the cotangent is added, which is NaN if an element is not finite")(
    lambda dx, dw, db, g, x, m, v, w, b, **h: (dx + 0 * g.sum(), dw, db)
)


# -- refusals ----------------------------------------------------------------------------------------------------------


@_wrong("batch_norm.refuses.rank/promoted", "what has too few dimensions is taken for one image")
def _promoted(x, m, v, w, b, **h):
    if x.ndim >= 2:
        return right(x, m, v, w, b, **h)
    y, *running = right(np.resize(x, (2, len(m))), m, v, w, b, **h)
    return y[0].reshape(-1)[: x.size].reshape(x.shape), *running


fault(
    "batch_norm.refuses.module-rank/any",
    "modules take any rank",
    BatchNorm1d=type("BatchNorm1d", (Right1d,), {"ranks": (2, 3, 4)}),
    BatchNorm2d=type("BatchNorm2d", (Right2d,), {"ranks": (3, 4, 5)}),
)


fault(
    "batch_norm.refuses.module-rank/fewer",
    "modules take a dimension too few",
    BatchNorm1d=type("BatchNorm1d", (Right1d,), {"ranks": (1, 2, 3)}),
    BatchNorm2d=type("BatchNorm2d", (Right2d,), {"ranks": (3, 4)}),
)
fault(
    "batch_norm.refuses.module-rank/volumes",
    "BatchNorm2d takes five dimensions",
    BatchNorm2d=type("BatchNorm2d", (Right2d,), {"ranks": (4, 5)}),
)


@_forward("batch_norm.refuses.module-rank/one-image", "(C, H, W) is taken for one image")
def _one_image(layer, x):
    return Right2d.forward(layer, x[None] if x.ndim == 3 else x)


def _one_for_all(x, m):
    return np.repeat(x, len(m), axis=1) if m is not None and x.shape[1] == 1 else x


_wrong("batch_norm.refuses.channels/broadcast", "one channel serves for as many as the vectors have")(
    lambda x, m, v, w, b, **h: right(_one_for_all(x, m), m, v, w, b, **h)
)


@_forward("batch_norm.refuses.channels/broadcast-module", "a module takes one channel for as many as it has")
def _one_for_all_in_a_module(layer, x):
    return Right2d.forward(layer, _one_for_all(x, layer.running_mean.data))


@_wrong("batch_norm.refuses.channels/cut", "vectors are cut or repeated until they fit x")
def _cut(x, m, v, w, b, **h):
    return right(x, *(a if a is None else np.resize(a, x.shape[1]) for a in (m, v, w, b)), **h)


for _place, _name in enumerate(("running-mean", "running-var", "weight", "bias")):

    @_wrong(f"batch_norm.refuses.{_name}/broadcast", "a vector of any length is repeated or cut")
    def _resized(x, m, v, w, b, _place=_place, **h):
        vectors = [m, v, w, b]
        if vectors[_place] is not None:
            vectors[_place] = np.resize(vectors[_place], x.shape[1])
        return right(x, *vectors, **h)


@_wrong("batch_norm.refuses.absent/batch", "without running statistics those of the batch serve in evaluation")
def _absent(x, m, v, w, b, **h):
    if m is not None and v is not None:
        return right(x, m, v, w, b, **h)
    c = x.shape[1]
    y = _apply(x, *_statistics(x), w, b, h["eps"])
    return y, np.zeros(c, x.dtype) if m is None else m, np.ones(c, x.dtype) if v is None else v


@_wrong("batch_norm.refuses.absent/one", "where one of the running statistics is absent, that of the batch serves")
def _one_absent(x, m, v, w, b, **h):
    if (m is None) == (v is None) or h["training"]:
        return right(x, m, v, w, b, **h)
    mean, var = (a.reshape(-1).astype(x.dtype) for a in _statistics(x))
    return right(x, mean if m is None else m, var if v is None else v, w, b, **h)


@_wrong("batch_norm.refuses.one-value/accepted", "of one value the variance is 0")
def _accepted(x, m, v, w, b, **h):
    if not h["training"] or x.size != x.shape[1]:
        return right(x, m, v, w, b, **h)
    y, mean, var = right(np.concatenate([x, x]), m, v, w, b, **h)
    return y[:1], mean, var


_wrong("batch_norm.refuses.eps/absolute", "the sign of eps is dropped")(
    lambda x, m, v, w, b, **h: right(x, m, v, w, b, **{**h, "eps": abs(h["eps"])})
)


def _wrong_second(key, mistake):
    """The fault is right but for second derivatives: function(dg, dx, dw, t, g, x, m, v, w, b, **settings)."""

    def add(function):
        def batch_norm_vjp_vjp(t, g, x, m, v, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
            settings = {"training": training, "momentum": momentum, "eps": eps}
            operands = (t, g, x, m, v, weight, bias)
            dg, dx, dm, dv, dw, db = right_vjp_vjp(*operands, **settings)
            dg, dx, dw = function(dg, dx, dw, *operands, **settings)
            return dg, dx, dm, dv, dw, db

        fault(f"batch_norm.gradient.{key}", mistake, batch_norm_vjp_vjp=batch_norm_vjp_vjp)
        return function

    return add


_wrong_second("second/statistics-constant", "the second time mean and variance are taken for constants")(
    lambda dg, dx, dw, t, g, x, m, v, w, b, **h: (dg, np.zeros_like(x), dw)
)
_wrong_second("second/scale-constant", "the second time 1/√(v + eps) is taken for a constant")(
    lambda dg, dx, dw, t, g, x, m, v, w, b, **h: (dg, dx + _moving_scale(t, g, x, w, h), dw)
)
_wrong_second("second/cotangent-through-weight-alone", "by the cotangent as in evaluation, in both modes")(
    lambda dg, dx, dw, t, g, x, m, v, w, b, **h: (
        right_vjp(t, x, x.mean((0, *range(2, x.ndim))), _statistics(x)[1].ravel(), w, b, eps=h["eps"])[0],
        dx,
        dw,
    )
)
_wrong_second("second/weight-once-more", "the weight is multiplied into its own gradient")(
    lambda dg, dx, dw, t, g, x, m, v, w, b, **h: (dg, dx, None if dw is None else dw * w)
)


def _moving_scale(t, g, x, w, h):
    """What of the second derivative comes from the scale that moves with x, to be taken off."""
    if not h["training"]:
        return np.zeros_like(x)
    mean, var = _statistics(x)
    s = 1 / np.sqrt(var + x.dtype.type(h["eps"]))
    part = ((x - mean) * s * t).mean((0, *range(2, x.ndim)), keepdims=True)
    return (s * part * right_vjp(g, x, None, None, w, None, training=True, eps=h["eps"])[0]).astype(x.dtype)


disturbed_by_relu("batch_norm.call.neighbours/register", batch_norm=right)


def _keyed_without(name):
    """Programs are kept by the shape and all arguments but this one."""
    kept = {}

    def cached(x, m, v, w, b, **h):
        key = (x.shape, x.dtype, w is None, *((n, value) for n, value in h.items() if n != name))
        return right(x, m, v, w, b, **kept.setdefault(key, h))

    return cached


for _name in ("eps", "momentum"):
    _wrong(f"batch_norm.call.stateless/without-{_name}", f"programs are kept under a key that leaves out {_name}")(
        _keyed_without(_name)
    )


_training_with("batch_norm.law.scale/clamped", "a variance of more than 4 counts as 4")(
    lambda x, m, v: (_statistics(x)[0], np.minimum(_statistics(x)[1], x.dtype.type(4)))
)
mistakes_in_memory("batch_norm", right)


def _whole_blocks(x, *vectors, **h):
    y, *statistics = right(x, *vectors, **h)
    channels = x.shape[1] // 4 * 4
    y[:, channels:] = x[:, channels:]
    return y, *statistics


fault(
    "batch_norm.domain.outside/whole-blocks",
    "channels behind the last whole block of four stay as they are",
    domain={"num_features": {"multiple_of": 4}},
    batch_norm=_whole_blocks,
)

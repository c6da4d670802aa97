"""Wrong residual networks."""

import functools

import numpy as np
from nnspec.conformance.faults import (
    as_if_contiguous,
    fault,
    mistakes_in_memory,
)
from nnspec.conformance.faults.basic_block import counting_once_more, evaluating, keeping_back
from nnspec.reference.basic_block import ResidualBlock
from nnspec.reference.conv2d import Conv2d
from nnspec.reference.global_avg_pool2d import global_avg_pool2d, global_avg_pool2d_vjp
from nnspec.reference.max_pool2d import max_pool2d, max_pool2d_vjp
from nnspec.reference.module import Buffer, Parameter
from nnspec.reference.relu import relu, relu_vjp
from nnspec.reference.resnet34 import POOL
from nnspec.reference.resnet34 import ResNet34 as Right
from nnspec.reference.sequential import Sequential

STAGES = ("layer1", "layer2", "layer3", "layer4")


class _Zeros:
    """In place of a generator: 21.8 million numbers that a check loads over anyway need not be drawn."""

    def uniform(self, low, high, shape):
        return np.zeros(shape, np.float32)

    def normal(self, mean, deviation, shape):
        return np.zeros(shape, np.float32)


class _Network(Right):
    """The right network in pieces, so that each can be replaced by a wrong one."""

    draws = False  # whether the weights that it begins with matter

    def __init__(self, in_channels=3, num_classes=1000, *, dtype=np.float32):
        self.made = {"dtype": dtype, "rng": np.random.default_rng(0) if self.draws else _Zeros()}
        super().__init__(in_channels, num_classes, **self.made)
        self.change(num_classes)

    def change(self, num_classes):
        """What is made otherwise."""

    def stem(self, x):
        return relu(self.bn1(self.conv1(x)))

    def pool(self, x):
        return max_pool2d(x, kernel_size=3, stride=2, padding=1)

    def stages(self, x):
        for name in STAGES:
            x = getattr(self, name)(x)
        return x

    def mean(self, x):
        return global_avg_pool2d(x)

    def forward(self, x):
        return self.fc(self.mean(self.stages(self.pool(self.stem(x)))))


def _wrong(key, mistake, **pieces):
    """A fault whose methods are those of `_Network`, but for these."""
    fault(f"resnet34.{key}", mistake, ResNet34=type("ResNet34", (_Network,), pieces))


def _method(key, mistake, name, **pieces):
    """Decorate the wrong method `name`."""

    def add(method):
        _wrong(key, mistake, **{name: method}, **pieces)
        return method

    return add


_change, _stem, _pool, _stages, _mean, _forward = (
    functools.partial(_method, name=name) for name in ("change", "stem", "pool", "stages", "mean", "forward")
)

# -- stem, stages, scores ----------------------------------------------------------------------------------------------


@_change("stem.value/padding", "the stem's padding is 2")
def _padding(self, num_classes):
    self.conv1.padding = 2


@_change("stem.value/stride", "the stem does not stride")
def _no_stride(self, num_classes):
    self.conv1.stride = 1


_stem("stem.value/no-relu", "no relu in the stem")(lambda self, x: self.bn1(self.conv1(x)))
_stem("stem.value/no-norm", "no norm in the stem")(lambda self, x: relu(self.conv1(x)))
_pool("stem.pool/none", "no pool after the stem")(lambda self, x: x)
_pool("stem.pool/2x2", "a pool of 2×2")(
    lambda self, x: max_pool2d(x, kernel_size=2, stride=2, padding=(x.shape[2] % 2, x.shape[3] % 2))
)
_pool("stem.pool/average", "the pool averages")(
    lambda self, x: sum(
        np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))[:, :, i : i + x.shape[2] : 2, j : j + x.shape[3] : 2] / 9
        for i in range(3)
        for j in range(3)
    )
)


def _rebuilt(lengths=(3, 4, 6, 3), widths=(64, 128, 256, 512), strides=(1, 2, 2, 2), every=False, last=False):
    """Stages of other lengths, widths and strides; the stride in every block, channels that change in the last one."""

    def change(self, num_classes):
        c = 64
        for name, length, o, stride in zip(STAGES, lengths, widths, strides, strict=True):
            blocks, after = [], min(2 * o, 512) if last else o
            for n in range(length):
                out = after if n == length - 1 else o
                blocks.append(ResidualBlock(c, out, stride if n == 0 or every else 1, **self.made))
                c = out
            setattr(self, name, Sequential(*blocks))

    return change


_change("stages.lengths/resnet-18", "two blocks in every stage")(_rebuilt((2, 2, 2, 2)))
_change("stages.lengths/projecting-not-counted", "one block more wherever the first one projects")(
    _rebuilt((3, 5, 7, 4))
)
_change("stages.lengths/one-short", "one block short in the third stage")(_rebuilt((3, 4, 5, 3)))
_change("stages.channels/last-block", "the last block of a stage has the channels of the next")(_rebuilt(last=True))
_change("stages.channels/half", "half as many channels in the last stage")(_rebuilt(widths=(64, 128, 256, 256)))
_change("stages.stride/none-in-last", "the last stage does not stride")(_rebuilt(strides=(1, 2, 2, 1)))


@_stages("stages.stride/first", "the first stage strides as well")
def _first_strides(self, x):
    return _Network.stages(self, x[:, :, ::2, ::2])


@_stages("stages.stride/every-block", "every block of a stage strides")
def _every_strides(self, x):
    for name in STAGES:
        for n, block in enumerate(getattr(self, name)):
            x = block(x)
            if n and name != "layer1":
                x = x[:, :, ::2, ::2]
    return x


def _through(blocks):
    """Stages that go through these blocks, (stage, number) each."""

    def stages(self, x):
        for stage, number in blocks(self):
            x = getattr(self, STAGES[stage])[number](x)
        return x

    return stages


def _in_order(self):
    return [(stage, n) for stage in range(4) for n in range(len(getattr(self, STAGES[stage])))]


_stages("blocks.value/one-not-called", "the last block is built and not called")(
    _through(lambda self: _in_order(self)[:-1])
)
_stages("blocks.value/exchanged", "two blocks are exchanged")(
    _through(lambda self: [(2, 5 - n if n in (2, 3) else n) if s == 2 else (s, n) for s, n in _in_order(self)])
)
_stages("blocks.value/one-twice", "a block is called in place of its neighbour too")(
    _through(lambda self: [(1, 2) if (s, n) == (1, 3) else (s, n) for s, n in _in_order(self)])
)


@_change("blocks.value/projection-without-norm", "a projection without norm")
def _no_norm(self, num_classes):
    block = self.layer3[0]
    block.downsample[1].forward = lambda x: x


_mean("pool.global/fixed", "the mean over 7×7 pixels, however many there are")(
    lambda self, x: global_avg_pool2d(x[:, :, :7, :7])
)
_mean("pool.global/divided-by-49", "the sum over all pixels is divided by 49")(
    lambda self, x: x.sum((2, 3)) / x.dtype.type(49)
)
_mean("pool.global/max", "the largest in place of the mean")(lambda self, x: x.max((2, 3)))


@_forward("scores.linear/softmax", "the scores are made probabilities")
def _softmax(self, x):
    y = Right.forward(self, x)
    y = np.exp(y - y.max(1, keepdims=True))
    return y / y.sum(1, keepdims=True)


_forward("scores.linear/relu", "a relu on the scores")(lambda self, x: relu(Right.forward(self, x)))
_forward("scores.linear/no-bias", "the bias is not added")(
    lambda self, x: self.mean(self.stages(self.pool(self.stem(x)))) @ self.fc.weight.data.T
)

# -- sizes and state ---------------------------------------------------------------------------------------------------


def _sized(key, mistake, sizes, defaults=(3, 1000)):
    class ResNet34(_Network):
        def __init__(self, in_channels=defaults[0], num_classes=defaults[1], *, dtype=np.float32):
            super().__init__(*sizes(in_channels, num_classes), dtype=dtype)

    fault(f"resnet34.{key}", mistake, ResNet34=ResNet34)


_sized("in-channels.respected/three", "images of three channels only", lambda c, k: (3, k))
_sized("num-classes.respected/thousand", "always a thousand scores", lambda c, k: (c, 1000))
_sized("num-classes.respected/one-more", "a score more, for the background", lambda c, k: (c, k + 1))
_sized("defaults.sizes/ten", "ten classes, where nothing is said", lambda c, k: (c, k), (3, 10))
_sized("defaults.sizes/grey", "one channel, where nothing is said", lambda c, k: (c, k), (1, 1000))


@_change("parameters.count/biases", "the stem's convolution has a bias")
def _stem_bias(self, num_classes):
    self.conv1.bias = Parameter(np.zeros(64, np.float32))


@_change("parameters.count/projection-in-first", "a projection in the first stage, where none is needed")
def _first_projects(self, num_classes):
    self.layer1[0].unused = Conv2d(64, 64, 1, bias=False, **self.made)


@_change("state.complete/plain-list", "the blocks of a stage are in a list, where nothing finds them")
def _plain_list(self, num_classes):
    stage, self.layer2 = list(self.layer2), None
    self.layer2 = _Listed(stage)


class _Listed(Sequential):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = blocks

    def __iter__(self):
        return iter(self.blocks)


@_change("state.complete/no-count", "a norm's count is not saved")
def _no_count(self, num_classes):
    self.bn1.num_batches_tracked = Buffer(np.array(0), persistent=False)


@_change("state.shapes/transposed", "the linear layer's weight is stored as (in, out)")
def _transposed(self, num_classes):
    self.fc.weight = Parameter(self.fc.weight.data.T)


@_change("state.shapes/regrouped", "as many parameters, in kernels of 1×9")
def _regrouped(self, num_classes):
    kernels = self.layer3[1].conv1.weight
    self.layer3[1].conv1.weight = Parameter(kernels.data.reshape(256, 256, 1, 9))


@_change("state.keys/stages", "the stages are numbered from 0")
def _numbered(self, num_classes):
    self.layer0 = self.layer1
    del self.layer1


def _each(kernels):
    """Begin with `kernels(rng, shape)` for each convolution."""

    def change(self, num_classes):
        rng = np.random.default_rng(0)
        for parameter in self.parameters():
            if parameter.data.ndim == 4:
                parameter.data[...] = kernels(rng, parameter.data.shape)

    return change


_change("start.convolutions/fan-in", "the deviation follows from what comes in")(
    _each(lambda rng, shape: rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape))
)
_change("start.convolutions/variance", "the variance is taken for the deviation")(
    _each(lambda rng, shape: rng.normal(0, 2 / (shape[0] * shape[2] * shape[3]), shape))
)
_change("start.convolutions/uniform", "uniform, with the right deviation")(
    _each(lambda rng, shape: np.sqrt(6 / (shape[0] * shape[2] * shape[3])) * rng.uniform(-1, 1, shape))
)


@_change("start.norms/zero-residual", "every branch begins at 0, without being asked")
def _zero_residual(self, num_classes):
    for stage, number in _in_order(self):
        getattr(self, STAGES[stage])[number].bn2.weight.data[...] = 0


@_change("start.norms/random", "the norms' weights are drawn")
def _random_norms(self, num_classes):
    for key, parameter in self.named_parameters():
        if parameter.data.ndim == 1 and key.endswith("weight"):
            parameter.data[...] = np.random.default_rng(0).uniform(0, 1, parameter.data.shape)


def _scores(change):
    """Begin with other weights of the linear layer, each derived from the right one."""

    def begin(self, num_classes):
        self.fc.weight.data[...] = change(self.fc.weight.data)

    return begin


_change("init.range/zeros", "the linear layer begins at 0", draws=True)(_scores(lambda w: 0 * w))
_change("init.range/normal", "the linear layer begins with a standard normal", draws=True)(
    _scores(lambda w: np.random.default_rng(0).standard_normal(w.shape))
)
_change("init.range/equal-rows", "all scores begin with the weights of the first", draws=True)(_scores(lambda w: w[:1]))


@_change("init.range/equal-kernels", "the kernels of a convolution begin as the first, in every stage", draws=True)
def _equal_kernels(self, num_classes):
    for parameter in self.parameters():
        if parameter.data.ndim == 4:
            parameter.data[...] = parameter.data[:1]


# -- modes -------------------------------------------------------------------------------------------------------------


def _switching(mode, norms):
    """Norms that are in `mode` during every call."""

    def forward(self, x):
        chosen = norms(self)
        before = [norm.training for norm in chosen]
        for norm in chosen:
            norm.training = mode(x)
        y = Right.forward(self, x)
        for norm, training in zip(chosen, before, strict=True):
            norm.training = training
        return y

    return forward


_forward("mode.train/one-frozen", "a norm in the third stage never trains")(
    _switching(lambda x: False, lambda self: [self.layer3[4].bn2])
)
_forward("mode.train/projections-frozen", "the projections' norms never train")(
    _switching(lambda x: False, lambda self: [getattr(self, name)[0].downsample[1] for name in STAGES[1:]])
)


_forward("mode.train/variance-not-kept", "of the statistics the means alone are kept")(
    keeping_back(Right.forward, "running_var")
)
_forward("mode.train/kept-statistics-count", "the statistics move, and those from before count")(
    evaluating(Right.forward)
)
_forward("mode.train/counted-twice", "a batch in training counts as two")(counting_once_more(Right.forward, True))
_forward("mode.eval/one-trains", "the stem's norm goes on training")(
    _switching(lambda x: True, lambda self: [self.bn1])
)


_forward("mode.eval/counted", "batches in evaluation are counted")(counting_once_more(Right.forward, False))


@_forward("mode.eval/drifts", "the last norm's statistics move in evaluation")
def _drifts(self, x):
    self.layer4[2].bn2.running_mean.data[...] *= 0.999
    return Right.forward(self, x)


# -- results and operands ----------------------------------------------------------------------------------------------

_forward("output.size/squeezed", "the batch dimension of a single image is dropped")(
    lambda self, x: Right.forward(self, x)[0] if len(x) == 1 else Right.forward(self, x)
)
_forward("output.size/1x1", "the scores have a row and a column")(
    lambda self, x: Right.forward(self, x)[:, :, None, None]
)
_forward("output.dtype/float32", "the scores are float32 whatever came in")(
    lambda self, x: Right.forward(self, x).astype(np.float32)
)


@_forward("output.fresh/reused-buffer", "the scores' memory is kept and used again")
def _reused(self, x):
    y = Right.forward(self, x)
    store = vars(self).setdefault(f"store{y.shape}", y)
    store[...] = y
    return store


@_forward("input.unchanged/normalised", "the image is normalised in place, after its use")
def _normalised(self, x):
    y = Right.forward(self, x)
    x -= x.mean()
    return y


@_forward("input.layout/memory-order", "the memory is read as if it were contiguous")
def _memory_order(self, x):
    return Right.forward(self, as_if_contiguous(x))


_forward("batch.independent/mean", "every image sees the batch's mean")(
    lambda self, x: Right.forward(self, x + (x.mean(0) - x[:1] if len(x) > 1 else 0))
)


@_forward("batch.empty/refused", "a batch of nothing raises")
def _no_empty(self, x):
    if not len(x):
        raise ValueError("empty batch")
    return Right.forward(self, x)


@_forward("call.stateless/trace", "every call sees a trace of the call before")
def _trace(self, x):
    last, self.last = getattr(self, "last", 0), float(np.abs(x).sum())
    return Right.forward(self, x) + x.dtype.type(last * 2**-12)


# -- gradients ---------------------------------------------------------------------------------------------------------


class _Both(_Network):
    """The right way back in pieces, but for those through the parts."""

    def vjp(self, x):
        x, through_conv1 = self.conv1.vjp(x)
        stem, through_bn1 = self.bn1.vjp(x)
        rectified = relu(stem)
        y, ways = max_pool2d(rectified, **POOL), []
        for name in STAGES:
            y, through = getattr(self, name).vjp(y)
            ways.append(through)
        scores, through_fc = self.fc.vjp(global_avg_pool2d(y))

        def pull(g):
            g = self.back_mean(through_fc(g), y)
            for through in reversed(ways):
                g = through(g)
            g = through_conv1(through_bn1(self.back_relu(self.back_pool(g, rectified), stem)))
            self.afterwards()
            return g

        return scores, pull

    def back_mean(self, g, y):
        return global_avg_pool2d_vjp(g, y)

    def back_pool(self, g, x):
        return max_pool2d_vjp(g, x, **POOL)

    def back_relu(self, g, x):
        return relu_vjp(g, x)

    def afterwards(self):
        """What becomes of the parameters' gradients."""


def _wrong_vjp(key, mistake, **pieces):
    fault(f"resnet34.gradient.{key}", mistake, ResNet34=type("ResNet34", (_Both,), pieces))


def _frozen(self):
    self.layer3[4].conv2.weight.grad = None


def _of_a_buffer(self):
    self.bn1.running_mean.accumulate(-self.bn1.bias.grad)


def _registered(self, num_classes):
    self.bn1.running_mean = Parameter(self.bn1.running_mean.data)


def _as_broadcast(self):
    self.layer2[0].bn1.bias.grad = self.layer2[0].bn1.bias.grad.reshape(1, -1, 1, 1)


_wrong_vjp("parameters/one-frozen", "a kernel in the third stage gets no gradient", afterwards=_frozen)
_wrong_vjp("parameters/buffer", "a running mean is a parameter", change=_registered, afterwards=_of_a_buffer)
_wrong_vjp("parameters/broadcast", "a norm's gradient is left as (1, C, 1, 1)", afterwards=_as_broadcast)


def _overwritten(self, g, x):
    largest = max_pool2d(x, **POOL)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)
    dx = np.zeros_like(padded)
    for i, j in np.ndindex(3, 3):
        here = np.s_[:, :, i : i + 2 * g.shape[2] - 1 : 2, j : j + 2 * g.shape[3] - 1 : 2]
        dx[here] = np.where((padded[here] == largest) & (g != 0), g, dx[here])
    return dx[:, :, 1:-1, 1:-1]


def _handing_back(module, change):
    """Let a part of the network hand back `change(cotangent, dx)`."""
    vjp = module.vjp

    def wrong_vjp(x):
        y, pull = vjp(x)
        return y, lambda g: change(g, pull(g))

    module.vjp = wrong_vjp


def _as_identity(self, num_classes):
    _handing_back(self.layer2[1], lambda g, dx: g)


def _projections_cut(self, num_classes):
    for name in STAGES[1:]:
        _handing_back(getattr(self, name)[0].downsample, lambda g, dx: 0 * dx)


_wrong_vjp("value/pool-overwritten", "where the pool's windows overlap, the last one wins", back_pool=_overwritten)
_wrong_vjp("value/stem-relu", "the stem's mask is forgotten", back_relu=lambda self, g, x: g)
_wrong_vjp("value/block-as-identity", "a block hands its cotangent on as it is", change=_as_identity)
_wrong_vjp("value/projections-cut", "nothing comes back through the projections", change=_projections_cut)
_wrong_vjp(
    "value/mean-as-sum",
    "every pixel gets all of its channel's cotangent",
    back_mean=lambda self, g, y: np.broadcast_to(g[:, :, None, None], y.shape).copy(),
)


# -- refusals ----------------------------------------------------------------------------------------------------------


@_forward("refuses.channels/broadcast", "missing channels are repeated, surplus ones dropped")
def _any_channels(self, x):
    wanted = self.conv1.weight.data.shape[1]
    return Right.forward(self, x[:, np.arange(wanted) % x.shape[1]] if x.ndim == 4 else x)


_forward("refuses.rank/batched", "one image is taken for a batch of one, and a video for its first image")(
    lambda self, x: Right.forward(self, np.resize(x, (1, 3, *x.shape[-2:])) if x.ndim != 4 else x)
)
mistakes_in_memory("resnet34", Right)


class _WholeBlocks(_Network):
    def forward(self, x):
        y = super().forward(x)
        y[:, y.shape[1] // 8 * 8 :] = 0
        return y


fault(
    "resnet34.domain.outside/whole-blocks",
    "scores behind the last whole block of 8 are zeros",
    domain={"num_classes": {"multiple_of": 8}},
    ResNet34=_WholeBlocks,
)

"""Wrong residual blocks."""

import functools
from types import SimpleNamespace

import numpy as np
from nnspec.conformance.faults import (
    as_if_contiguous,
    beginning,
    fault,
    mistakes_in_memory,
    one_array_for_each_shape,
    redrawn,
    register_left,
    stopped_by,
)
from nnspec.reference.basic_block import ResidualBlock as Right
from nnspec.reference.batch_norm import BatchNorm2d, batch_norm_vjp
from nnspec.reference.conv2d import Conv2d, conv2d, conv2d_vjp
from nnspec.reference.module import Parameter
from nnspec.reference.relu import ReLU, relu, relu_vjp
from nnspec.reference.sequential import Sequential


class _Block(Right):
    """The right block in pieces, so that each can be replaced by a wrong one."""

    def __init__(self, in_channels, out_channels, stride=1, *, dtype=np.float32, rng=None):
        made = {"dtype": dtype, "rng": rng or np.random.default_rng()}
        super().__init__(in_channels, out_channels, stride, **made)
        self.change(in_channels, out_channels, stride, made)

    def change(self, in_channels, out_channels, stride, made):
        """What is made otherwise."""

    def branch(self, x):
        return self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))

    def shortcut(self, x):
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x):
        return relu(self.branch(x) + self.shortcut(x))


def _wrong(key, mistake, **pieces):
    """A fault whose methods are those of `_Block`, but for these."""
    fault(f"basic_block.{key}", mistake, ResidualBlock=type("ResidualBlock", (_Block,), pieces))


def _method(key, mistake, name):
    """Decorate the wrong method `name`."""

    def add(method):
        _wrong(key, mistake, **{name: method})
        return method

    return add


_branch = functools.partial(_method, name="branch")
_shortcut = functools.partial(_method, name="shortcut")
_forward = functools.partial(_method, name="forward")
_change = functools.partial(_method, name="change")


def _projects(block):
    return block.downsample is not None


# -- branch ------------------------------------------------------------------------------------------------------------

_branch("branch.value/one-convolution", "one convolution does for both")(
    lambda self, x: self.bn2((self.conv1 if x.shape[1] == self.conv2.weight.data.shape[1] else self.conv2)(
        relu(self.bn1(self.conv1(x)))
    ))
)  # fmt: skip


@_branch("branch.value/two-channels", "channels from the third on are taken from the first convolution")
def _two_channels(self, x):
    y, early = _Block.branch(self, x), self.bn1(self.conv1(x))
    y[:, 2:] = early[:, 2:]
    return y


@_branch("branch.value/two-images", "images from the third on get the branch of the first")
def _two_images(self, x):
    y = _Block.branch(self, x)
    y[2:] = y[:1]
    return y


@_branch("branch.value/edge", "the border is repeated in place of zeros")
def _edge(self, x):
    def padded(a):
        return np.pad(a, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge" if a.size else "constant")

    y = relu(self.bn1(conv2d(padded(x), self.conv1.weight.data, stride=self.conv1.stride)))
    return self.bn2(conv2d(padded(y), self.conv2.weight.data))


_branch("branch.value/second-left-out", "the second convolution is left out")(
    lambda self, x: self.bn2(relu(self.bn1(self.conv1(x))))
)
_branch("branch.norms/shared", "one norm does for both")(
    lambda self, x: self.bn1(self.conv2(relu(self.bn1(self.conv1(x)))))
)
_branch("branch.norms/only-first", "no norm before the addition")(
    lambda self, x: self.conv2(relu(self.bn1(self.conv1(x))))
)
_branch("branch.norms/after-relu", "the first norm comes after the relu")(
    lambda self, x: self.bn2(self.conv2(self.bn1(relu(self.conv1(x)))))
)
_branch("relu.inner/none", "no relu between the convolutions")(
    lambda self, x: self.bn2(self.conv2(self.bn1(self.conv1(x))))
)
_branch("relu.inner/leaky", "a relu with a slope on the negative side")(
    lambda self, x: self.bn2(self.conv2(np.maximum(y := self.bn1(self.conv1(x)), y * 2**-7)))
)
_branch("relu.none-before-add/relu", "a relu at the end of the branch")(lambda self, x: relu(_Block.branch(self, x)))
_forward("relu.after-add/none", "no relu after the addition")(lambda self, x: self.branch(x) + self.shortcut(x))
_forward("relu.after-add/before-add", "the last relu comes before the addition")(
    lambda self, x: relu(self.branch(x)) + self.shortcut(x)
)

# -- shortcut ----------------------------------------------------------------------------------------------------------

_forward("shortcut.identity/dropped", "the shortcut is computed and forgotten")(lambda self, x: relu(self.branch(x)))


def _projection(in_channels, out_channels, stride, made, norm=BatchNorm2d):
    return Sequential(Conv2d(in_channels, out_channels, 1, stride, bias=False, **made), norm(out_channels, **made))


@_change("shortcut.identity/projected", "a projection where none belongs")
def _always_projected(self, in_channels, out_channels, stride, made):
    self.downsample = _projection(in_channels, out_channels, stride, made)


_shortcut("shortcut.negative/relu", "a relu on the shortcut")(lambda self, x: relu(_Block.shortcut(self, x)))
_forward("shortcut.negative/relu-on-projection", "a relu on the projection")(
    lambda self, x: relu(self.branch(x) + (relu(self.downsample(x)) if _projects(self) else x))
)
_forward("shortcut.negative/pre-activation", "a relu in place on what the shortcut still needs")(
    lambda self, x: _Block.forward(self, relu(x))
)


def _fitted(x, like):
    """Every so many pixels of x, and as many channels: surplus ones dropped, missing ones zero."""
    (channels, rows, columns), fitted = like.shape[1:], np.zeros_like(like)
    x = x[:, :channels, :: -(-x.shape[2] // rows), :: -(-x.shape[3] // columns)]
    fitted[:, : x.shape[1], : x.shape[2], : x.shape[3]] = x
    return fitted


@_forward("projection.channels/zeros", "missing channels are zeros")
def _zeros(self, x):
    y = self.branch(x)
    return relu(y + (_fitted(x, y) if _projects(self) and self.conv1.stride == 1 else self.shortcut(x)))


class _OnlyWithStride(_Block):
    def change(self, in_channels, out_channels, stride, made):
        if stride == 1:
            self.downsample = None

    def forward(self, x):
        y = self.branch(x)
        return relu(y + (self.downsample(x) if _projects(self) else _fitted(x, y)))


class _OnlyWithChannels(_OnlyWithStride):
    def change(self, in_channels, out_channels, stride, made):
        if in_channels == out_channels:
            self.downsample = None


fault(
    "basic_block.projection.channels/only-with-stride",
    "a projection only where the stride is not 1",
    ResidualBlock=_OnlyWithStride,
)
fault(
    "basic_block.projection.stride/only-with-channels",
    "a projection only where channels change",
    ResidualBlock=_OnlyWithChannels,
)


def _projecting(prepare):
    """Shortcuts that project `prepare(x, stride)` without a stride."""

    def shortcut(self, x):
        if not _projects(self):
            return x
        s = self.conv1.stride
        rows, columns = (-(-n // s) for n in x.shape[2:])
        y = conv2d(prepare(x, s), self.downsample[0].weight.data)
        return self.downsample[1](y[:, :, :rows, :columns])

    return shortcut


def _last_pixels(x, s):
    return np.pad(x, ((0, 0), (0, 0), (0, s - 1), (0, s - 1)), mode="edge")[:, :, s - 1 :: s, s - 1 :: s]


def _means(x, s):
    padded = np.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % s), (0, -x.shape[3] % s)))
    n, c, h, w = padded.shape
    return padded.reshape(n, c, h // s, s, w // s, s).mean((3, 5))


@_change("projection.stride/ignored", "the projection does not stride, and does not fit the branch")
def _projects_all(self, in_channels, out_channels, stride, made):
    if _projects(self):
        self.downsample[0].stride = 1


_shortcut("projection.stride/cropped", "the projection does not stride, and what is too much is cut off")(
    _projecting(lambda x, s: x)
)
_shortcut("projection.stride/last-pixels", "the projection takes the last pixel of every stride")(
    _projecting(_last_pixels)
)
_shortcut("projection.stride/pooled", "the shortcut averages in place of striding")(_projecting(_means))
_shortcut("projection.norm/none", "no norm after the projection")(
    lambda self, x: self.downsample[0](x) if _projects(self) else x
)
_shortcut("projection.norm/shared", "the branch's last norm does for the projection")(
    lambda self, x: self.bn2(self.downsample[0](x)) if _projects(self) else x
)

# -- stride ------------------------------------------------------------------------------------------------------------


@_change("stride.first/second", "the stride is the second convolution's")
def _second(self, in_channels, out_channels, stride, made):
    self.conv1.stride, self.conv2.stride = 1, stride


@_change("stride.once/twice", "both convolutions stride, and the shortcut once more")
def _twice(self, in_channels, out_channels, stride, made):
    self.conv2.stride = stride
    if _projects(self):
        self.downsample[0].stride = stride * stride


def _always(value):
    def change(self, in_channels, out_channels, stride, made):
        if stride != 1:
            self.conv1.stride = self.downsample[0].stride = value

    return change


_change("stride.once/ignored", "the stride is ignored")(_always(1))
_change("stride.once/two", "any stride is 2")(_always(2))


@_change("stride.once/kernel-size", "the stride is the kernel's size, whatever it says")
def _by_kernel(self, in_channels, out_channels, stride, made):
    self.conv1.stride = 3
    if _projects(self):
        self.downsample[0].stride = 3


# -- modes and state ---------------------------------------------------------------------------------------------------


def _fixed(mode, *names):
    """The norms of these names (`shortcut`: that of the projection) are in `mode` whatever the block is in."""

    def forward(self, x):
        norms = [getattr(self, n) for n in names if n != "shortcut"]
        norms += [self.downsample[1]] if "shortcut" in names and _projects(self) else []
        before = [norm.training for norm in norms]
        for norm in norms:
            norm.training = mode
        y = _Block.forward(self, x)
        for norm, training in zip(norms, before, strict=True):
            norm.training = training
        return y

    return forward


_forward("mode.train/projection", "the projection's norm never trains")(_fixed(False, "shortcut"))
_forward("mode.train/last-norm", "the branch's last norm never trains")(_fixed(False, "bn2"))


@_forward("mode.train/moved-twice", "the statistics move as if the batch had been seen twice")
def _moved_twice(self, x):
    if self.training:
        self.branch(x)
    return _Block.forward(self, x)


def keeping_back(forward, ending):
    """Buffers whose names end like this are after a call what they were before it."""

    def called(self, x):
        kept = [(b, b.data.copy()) for key, b in self.named_buffers() if key.endswith(ending)]
        y = forward(self, x)
        for buffer, data in kept:
            buffer.data[...] = data
        return y

    return called


def evaluating(forward):
    """What is answered is the result of evaluation, whatever the mode; the statistics move as they must."""

    def called(self, x):
        training, y = self.training, forward(self.eval(), x)
        if self.train(training).training:
            forward(self, x)
        return y

    return called


def counting_once_more(forward, mode):
    """Every call in this mode adds one to the counts of batches, beside what is added anyway."""

    def called(self, x):
        for key, buffer in self.named_buffers():
            buffer.data[...] += self.training == mode and key.endswith("num_batches_tracked")
        return forward(self, x)

    return called


_forward("mode.train/not-kept", "the statistics of the batch are used, and not kept")(keeping_back(_Block.forward, ""))
_forward("mode.train/variance-not-kept", "of the statistics the means alone are kept")(
    keeping_back(_Block.forward, "running_var")
)
_forward("mode.train/kept-statistics-count", "the statistics move, and those from before count")(
    evaluating(_Block.forward)
)
_forward("mode.train/counted-twice", "a batch in training counts as two")(counting_once_more(_Block.forward, True))
_forward("mode.eval/counted", "batches in evaluation are counted")(counting_once_more(_Block.forward, False))
_forward("mode.eval/projection", "the projection's norm goes on training, where it can")(
    lambda self, x: _fixed(len(x) * x.shape[2] * x.shape[3] > self.conv1.stride**2, "shortcut")(self, x)
)


@_forward("mode.eval/drifts", "the statistics move in evaluation too")
def _drifts(self, x):
    self.bn1.running_mean.data[...] += 0.125 * self.conv1(x).mean((0, 2, 3))
    return _Block.forward(self, x)


@_change("parameters.count/biases", "the convolutions have biases")
def _biases(self, in_channels, out_channels, stride, made):
    self.conv1 = Conv2d(in_channels, out_channels, 3, stride, 1, **made)
    self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, **made)


@_change("parameters.count/unused-projection", "a projection that is built and not used")
def _unused(self, in_channels, out_channels, stride, made):
    self.unused = None if _projects(self) else _projection(in_channels, out_channels, stride, made)


@_change("state.complete/plain-list", "the projection's parts are in a list, where nothing finds them")
def _plain_list(self, in_channels, out_channels, stride, made):
    parts, self.downsample = self.downsample, None
    self.parts = [parts] if parts else []


class _Uncounting(BatchNorm2d):
    def __init__(self, channels, **made):
        super().__init__(channels, **made)
        self.num_batches_tracked.persistent = False


@_change("state.complete/no-count", "the second norm's count is not saved")
def _no_count(self, in_channels, out_channels, stride, made):
    self.bn2 = _Uncounting(out_channels, **made)


class _Shortcut(_Block):
    def change(self, in_channels, out_channels, stride, made):
        self.shortcut_path, self.downsample = self.downsample, None

    def shortcut(self, x):
        return x if self.shortcut_path is None else self.shortcut_path(x)


fault("basic_block.state.keys/shortcut", "the projection has another name", ResidualBlock=_Shortcut)

# -- results and operands ----------------------------------------------------------------------------------------------

_forward("output.dtype/float32", "the result is float32 whatever came in")(
    lambda self, x: _Block.forward(self, x).astype(np.float32)
)
_forward("output.dtype/float64", "the result is float64 whatever came in")(
    lambda self, x: _Block.forward(self, x).astype(np.float64)
)


@_forward("output.fresh/reused-buffer", "the result's memory is kept and used again")
def _reused(self, x):
    y = _Block.forward(self, x)
    store = vars(self).setdefault(f"store{y.shape}", y)
    store[...] = y
    return store


@_forward("output.fresh/in-place", "the result is written over the input, where it has its shape")
def _returned(self, x):
    y = _Block.forward(self, x)
    if y.shape != x.shape:
        return y
    np.copyto(x, y)
    return x


@_forward("input.unchanged/added-to", "the branch is added to the input in place")
def _added_to(self, x):
    y = self.branch(x)
    if _projects(self):
        return relu(y + self.downsample(x))
    x += y
    return relu(x)


@_forward("input.unchanged/relu", "a relu in place on the input, after the last use of it")
def _relu_in_place(self, x):
    y = _Block.forward(self, x)
    np.maximum(x, 0, out=x)
    return y


@_forward("input.layout/memory-order", "the memory is read as if it were contiguous")
def _memory_order(self, x):
    return _Block.forward(self, as_if_contiguous(x))


_forward("batch.independent/mean", "every image sees the batch's mean")(
    lambda self, x: _Block.forward(self, x + (x.mean(0) - x[:1] if len(x) > 1 else 0))
)
_forward("batch.independent/batch-statistics", "statistics of the batch, where it has more than one image")(
    lambda self, x: _fixed(self.training or len(x) > 1, "bn1", "bn2")(self, x)
)


@_forward("batch.empty/refused", "a batch of nothing raises")
def _no_empty(self, x):
    if not len(x):
        raise ValueError("empty batch")
    return _Block.forward(self, x)


@_branch("call.stateless/workspace", "a workspace is kept, and its border shows what a larger image left there")
def _workspace(self, x):
    n, c, h, w = x.shape
    space = getattr(self, "space", np.zeros((0, 0, 0, 0)))
    if space.shape[0] < n or space.shape[2] <= h or space.shape[3] <= w:
        self.space = space = np.zeros((n, c, h + 1, w + 1), x.dtype)
    space[:n, :, :h, :w] = x
    rows, columns = (-(-size // self.conv1.stride) for size in (h, w))
    y = self.conv1(space[:n, :, : h + 1, : w + 1])[:, :, :rows, :columns]
    return self.bn2(self.conv2(relu(self.bn1(y))))


@_forward("call.stateless/trace", "every call sees a trace of the call before")
def _trace(self, x):
    last, self.last = getattr(self, "last", 0), float(np.abs(x).sum())
    return _Block.forward(self, x) + x.dtype.type(last * 2**-20)


# -- gradients ---------------------------------------------------------------------------------------------------------


class _Both(_Block):
    """The right way back in pieces. What a call leaves for it: what went in and came out of the parts, and their ways.

    `r` has x, first, inner, second, branch, shortcut and total, and conv1, bn1, conv2, bn2 and projection.
    """

    def vjp(self, x):
        r = SimpleNamespace(x=x)
        r.first, r.conv1 = self.conv1.vjp(x)
        r.inner, r.bn1 = self.bn1.vjp(r.first)
        r.second, r.conv2 = self.conv2.vjp(relu(r.inner))
        r.branch, r.bn2 = self.bn2.vjp(r.second)
        r.shortcut, r.projection = (x, lambda g: g) if self.downsample is None else self.downsample.vjp(x)
        r.total = r.branch + r.shortcut
        return relu(r.total), lambda g: self.back(g, r)

    def back(self, g, r):
        g = self.masked(g, r)
        return self.back_branch(g, r) + self.back_shortcut(g, r)

    def masked(self, g, r):
        return relu_vjp(g, r.total)

    def back_branch(self, g, r):
        return r.conv1(r.bn1(self.masked_inner(r.conv2(r.bn2(g)), r)))

    def masked_inner(self, g, r):
        return relu_vjp(g, r.inner)

    def back_shortcut(self, g, r):
        return r.projection(g)


def _wrong_vjp(key, mistake, **pieces):
    fault(f"basic_block.gradient.{key}", mistake, ResidualBlock=type("ResidualBlock", (_Both,), pieces))


def _after(change):
    """The right way back, of which `change(self, dx, g, r)` is what is returned; parameters have their gradients."""
    return lambda self, g, r: change(self, _Both.back(self, g, r), g, r)


_wrong_vjp(
    "x/branch-only",
    "what comes back through the shortcut is dropped",
    back_shortcut=lambda self, g, r: r.projection(g) * 0 if _projects(self) else np.zeros_like(r.x),
)
_wrong_vjp(
    "x/shortcut-only",
    "what comes back through the branch is overwritten by what comes back through the shortcut",
    back_branch=lambda self, g, r: 0 * _Both.back_branch(self, g, r),
)
_wrong_vjp(
    "x/shortcut-twice",
    "what comes back through the shortcut is added twice",
    back_shortcut=lambda self, g, r: 2 * r.projection(g),
)
_wrong_vjp("x/mean", "the mean of both ways in place of the sum", back=_after(lambda self, dx, g, r: dx / 2))


def _swapped(self, dx, g, r):
    self.bn1.weight.grad, self.bn1.bias.grad = self.bn1.bias.grad, self.bn1.weight.grad
    return dx


def _before_relu(self, g, r):
    dx, of_second = _Both.back_branch(self, g, r), r.bn2(g)
    self.conv2.weight.grad = conv2d_vjp(of_second, r.inner, self.conv2.weight.data, padding=1)[1]
    self.bn2.weight.grad, self.bn2.bias.grad = self.bn2.weight.grad / 2, self.bn2.bias.grad / 2  # it was asked twice
    return dx


_wrong_vjp("parameters/swapped", "the first norm's weight and bias get one another's gradient", back=_after(_swapped))
_wrong_vjp(
    "parameters/before-relu", "the second kernel's gradient is taken with what was not rectified yet",
    back_branch=_before_relu,
)  # fmt: skip
_wrong_vjp(
    "parameters/twice",
    "the branch is gone through twice, and its parameters keep the sum",
    back_branch=lambda self, g, r: (_Both.back_branch(self, g, r), _Both.back_branch(self, g, r))[0],
)
_wrong_vjp("last-relu/forgotten", "the last relu's mask is forgotten", masked=lambda self, g, r: g)
_wrong_vjp(
    "last-relu/branch-only",
    "the mask is forgotten on the shortcut",
    back=lambda self, g, r: self.back_branch(self.masked(g, r), r) + self.back_shortcut(g, r),
)
_wrong_vjp(
    "last-relu/shortcut-only",
    "the mask is forgotten in the branch",
    back=lambda self, g, r: self.back_branch(g, r) + self.back_shortcut(self.masked(g, r), r),
)
_wrong_vjp(
    "last-relu/branch-sign",
    "the mask is where the branch is negative",
    masked=lambda self, g, r: relu_vjp(g, r.branch),
)
_wrong_vjp(
    "last-relu/input-sign",
    "the mask is where the shortcut is negative",
    masked=lambda self, g, r: relu_vjp(g, r.shortcut),
)
_wrong_vjp("inner-relu/forgotten", "the inner relu's mask is forgotten", masked_inner=lambda self, g, r: g)
_wrong_vjp(
    "inner-relu/before-norm",
    "the inner mask is where the first convolution is negative",
    masked_inner=lambda self, g, r: relu_vjp(g, r.first),
)
_wrong_vjp(
    "inner-relu/last-again",
    "the last relu's mask is used for the inner one",
    masked_inner=lambda self, g, r: relu_vjp(g, r.total),
)
_wrong_vjp(
    "shortcut/relu",
    "a negative input gets nothing through the shortcut",
    back_shortcut=lambda self, g, r: relu_vjp(r.projection(g), r.x),
)


def _of_kernels_alone(self, g, r):
    dx = r.projection(g)
    if not _projects(self):
        return dx
    return conv2d_vjp(g, r.x, self.downsample[0].weight.data, stride=self.conv1.stride)[0]


def _frozen(self, g, r):
    dx = r.projection(g)
    if _projects(self):
        self.downsample[0].weight.grad *= 0
    return dx


_wrong_vjp("projection/norm-passed-over", "the projection's norm is passed over", back_shortcut=_of_kernels_alone)
_wrong_vjp("projection/frozen", "the projection's kernel gets nothing", back_shortcut=_frozen)
_wrong_vjp(
    "projection/identity",
    "the input gets the cotangent as if there were no projection",
    back_shortcut=lambda self, g, r: (r.projection(g), _fitted(g, r.x))[1] if g.size else r.projection(g),
)


def _spread(self, g, r):
    s = self.conv1.stride
    of_first = r.bn1(self.masked_inner(r.conv2(r.bn2(g)), r))
    r.conv1(of_first)
    rows, columns = r.x.shape[2:]
    everywhere = of_first.repeat(s, 2).repeat(s, 3)[:, :, :rows, :columns]
    return conv2d_vjp(everywhere, r.x, self.conv1.weight.data, padding=1)[0]


def _strided_twice(self, g, r):
    s, dx = self.conv1.stride, _Both.back_branch(self, g, r)
    apart = np.zeros_like(dx)
    apart[:, :, ::s, ::s] = dx[:, :, : -(-dx.shape[2] // s), : -(-dx.shape[3] // s)]
    return apart


_wrong_vjp("stride/spread", "the cotangent is spread over all pixels of a stride", back_branch=_spread)
_wrong_vjp("stride/twice", "the stride is applied twice on the way back", back_branch=_strided_twice)


def _through(norm, g, x, training):
    """The gradient by x with the statistics of the batch: as functions of x (training), or as constants."""
    axes = (0, 2, 3)
    if not x.size or len(x) * x.shape[2] * x.shape[3] < 2:
        return norm.vjp(x)[1](g)
    weight, bias = norm.weight.data, norm.bias.data
    return batch_norm_vjp(g, x, x.mean(axes), x.var(axes), weight, bias, training=training, eps=norm.eps)[0]


def _branch_with(training):
    """The way back through the branch with another one through its last norm."""

    def back_branch(self, g, r):
        r.bn2(g)
        of_second = _through(self.bn2, g, r.second, training)
        return r.conv1(r.bn1(self.masked_inner(r.conv2(of_second), r)))

    return back_branch


def _constant_projection(self, g, r):
    dx = r.projection(g)
    if not _projects(self):
        return dx
    kernels, norm = self.downsample
    projected = conv2d(r.x, kernels.weight.data, stride=kernels.stride)
    return conv2d_vjp(_through(norm, g, projected, False), r.x, kernels.weight.data, stride=kernels.stride)[0]


_wrong_vjp("train/constants", "the last norm's statistics are taken for constants", back_branch=_branch_with(False))
_wrong_vjp(
    "train/constants-in-projection",
    "the projection's statistics are taken for constants",
    back_shortcut=_constant_projection,
)
_wrong_vjp("eval/as-in-training", "the last norm's way back is training's, always", back_branch=_branch_with(True))


def _recomputed(self, dx, g, r):
    self.branch(r.x)
    return dx


def _decayed(self, dx, g, r):
    self.bn2.running_var.data *= 1.0625
    return dx


_wrong_vjp("statistics/recomputed", "the branch is computed anew, and moves its statistics", back=_after(_recomputed))
_wrong_vjp("statistics/decayed", "the way back moves a variance", back=_after(_decayed))


def _registered(self, in_channels, out_channels, stride, made):
    self.bn1.running_mean = Parameter(self.bn1.running_mean.data)


def _of_a_buffer(self, dx, g, r):
    self.bn1.running_mean.accumulate(-self.bn1.bias.grad)
    return dx


_wrong_vjp("buffers/parameter", "a running mean is a parameter", change=_registered, back=_after(_of_a_buffer))


def _as_broadcast(self, dx, g, r):
    self.bn2.weight.grad = self.bn2.weight.grad.reshape(1, -1, 1, 1)
    return dx


_wrong_vjp(
    "like-operand/wide",
    "the gradient of the input is float64 whatever came in",
    back=_after(lambda self, dx, g, r: dx.astype(np.float64)),
)
_wrong_vjp("like-operand/broadcast", "a norm's gradient is left as (1, C, 1, 1)", back=_after(_as_broadcast))


def _memory(self, g, r):
    return _Both.back(self, as_if_contiguous(g), r)


def _mask_in_place(self, g, r):
    if not g.flags.writeable:
        return relu_vjp(g, r.total)
    g[r.total <= 0] = 0
    return g


def _summed_in_place(self, dx, g, r):
    if g.shape == dx.shape and g.flags.writeable:
        g += dx
    return dx


_wrong_vjp("layout/memory-order", "the memory of the cotangent is read as if it were contiguous", back=_memory)
_wrong_vjp("unchanged/masked", "the mask is written into the cotangent", masked=_mask_in_place)
_wrong_vjp("unchanged/summed", "the cotangent is used as the sum of both ways", back=_after(_summed_in_place))
_wrong_vjp(
    "batch/divided",
    "the gradient of the input is divided by the number of images",
    back=_after(lambda self, dx, g, r: dx / max(1, len(dx))),
)
_wrong_vjp(
    "batch/first-mask",
    "the first image's mask is used for all",
    masked=lambda self, g, r: relu_vjp(g, np.broadcast_to(r.total[:1], g.shape) if len(g) else r.total),
)


def _not_cleared(self, dx, g, r):
    if not len(dx):
        self.conv1.weight.grad += 1
    return dx


_wrong_vjp("empty/not-cleared", "without images a kernel gets what the memory held", back=_after(_not_cleared))


beginning("basic_block.state.own/kernel", "blocks of one size share a kernel", Right)(
    one_array_for_each_shape("conv2.weight")
)
beginning("basic_block.state.own/statistics", "blocks of one size share a running mean", Right)(
    one_array_for_each_shape("bn1.running_mean")
)
beginning("basic_block.gradient.frozen/second-stops-x", "a frozen second convolution stops all below it", Right)(
    stopped_by("conv2.weight")
)
beginning("basic_block.gradient.frozen/norm-stops-kernel", "a frozen norm freezes the convolution before it", Right)(
    stopped_by("bn1.weight", "conv1.weight")
)

# -- refusals ----------------------------------------------------------------------------------------------------------

_forward("refuses.channels/fitted", "channels are dropped or repeated until they fit")(
    lambda self, x: _Block.forward(self, np.resize(x, (len(x), self.conv1.weight.data.shape[1], *x.shape[2:])))
)
_forward("refuses.rank/made-up", "missing dimensions are made up, surplus ones dropped")(
    lambda self, x: _Block.forward(
        self, np.resize(x, (1, self.conv1.weight.data.shape[1], *x.shape[-2:])) if x.ndim != 4 else x
    )
)


_KERNELS = ("conv1.weight", "conv2.weight")
beginning("basic_block.init.range/zeros", "kernels begin at 0", Right)(redrawn(lambda w: 0 * w, *_KERNELS))
beginning("basic_block.init.range/tiny", "kernels begin a hundredth as large", Right)(
    redrawn(lambda w: w / 100, *_KERNELS)
)
beginning("basic_block.init.range/equal", "all kernels of a convolution begin as the first", Right)(
    redrawn(lambda w: w[:1], *_KERNELS)
)
beginning(
    "basic_block.init.range/channels-alone",
    "the range is derived from the channels, and not from the kernel's size",
    Right,
)(redrawn(lambda w: 6 * w, *_KERNELS))


class _AnyStride(_Block):
    def __init__(self, in_channels, out_channels, stride=1, *, dtype=np.float32, rng=None):
        super().__init__(in_channels, out_channels, max(1, stride), dtype=dtype, rng=rng)


fault("basic_block.refuses.stride/one", "a stride of 0 and below is taken for 1", ResidualBlock=_AnyStride)


_relu, _after_relu = register_left(ReLU.forward, Right.forward)
fault(
    "basic_block.call.neighbours/register",
    "a register that relu leaves set changes the next result",
    ReLU=type("ReLU", (ReLU,), {"forward": _relu}),
    ResidualBlock=type("ResidualBlock", (Right,), {"forward": _after_relu}),
)
mistakes_in_memory("basic_block", Right)


class _WholeBlocks(_Block):
    def branch(self, x):
        x = np.array(x)
        x[:, x.shape[1] // 4 * 4 :] = 0
        return super().branch(x)


fault(
    "basic_block.domain.outside/whole-blocks",
    "the branch leaves out channels behind the last whole block of 4",
    domain={"in_channels": {"multiple_of": 4}},
    ResidualBlock=_WholeBlocks,
)


class _OneStride(_Block):
    def __init__(self, in_channels, out_channels, stride=1, *, dtype=np.float32, rng=None):
        super().__init__(in_channels, out_channels, stride, dtype=dtype, rng=rng)
        self.conv1.stride = 1
        self.every = stride

    def branch(self, x):
        return super().branch(x)[:, :, :: self.every, :: self.every]


fault(
    "basic_block.domain.outside/one-stride",
    "the stride decides the size of the result alone",
    domain={"stride": 1},
    ResidualBlock=_OneStride,
)

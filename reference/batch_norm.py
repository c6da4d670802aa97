"""Batch normalisation: each channel brought to mean 0, variance 1, then scaled and shifted. Page: spec/batch_norm.md"""

from typing import Any

import numpy as np
from nnspec.reference.arguments import Array, length, like, rank
from nnspec.reference.module import Buffer, Module, Parameter, Pullback, pullback
from numpy.typing import DTypeLike


def batch_norm(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    training: bool = False,  # [batch_norm.defaults.mode]
    momentum: float = 0.1,  # [batch_norm.defaults.momentum]
    eps: float = 1e-5,  # [batch_norm.defaults.eps]
) -> tuple[Array, Array | None, Array | None]:
    """x (N, C), (N, C, L) or (N, C, H, W), all else (C,) -> y like x, and the running mean and variance after the call.

    Nothing is written to: in training the statistics returned are new, in evaluation they are those that came in.
    Raises ValueError for whatever the page refuses (`batch_norm.refuses.*`).
    """
    n = _check(x, running_mean, running_var, weight, bias, training, eps)
    if training and n == 0:  # [batch_norm.batch.empty] no values, no statistics: whatever was known stays
        return x.copy(), running_mean, running_var
    axes = (0, *range(2, x.ndim))  # [batch_norm.axes.rank-2] [batch_norm.axes.rank-3] [batch_norm.axes.rank-4]
    channel_axis = (-1, *(1 for _ in x.shape[2:]))  # the shape that lays (C,) along axis 1, [batch_norm.input.layout]
    if training:
        wide = x.dtype if running_mean is None else running_mean.dtype  # [batch_norm.dtype.mixed]
        mean = x.mean(axes, dtype=wide)  # [batch_norm.train.mean]
        # [batch_norm.train.variance] divisor n; [batch_norm.train.offset] [batch_norm.train.constant] from what is left
        # once the mean is off, for mean(x²) − mean² would cancel, even below zero
        var = np.square(x - mean.reshape(channel_axis)).mean(axes)
    elif running_mean is None or running_var is None:  # [batch_norm.refuses.absent]
        raise ValueError("running_mean and running_var: expected both, or training=True")
    else:
        mean, var = (
            running_mean,
            running_var,
        )  # [batch_norm.eval.frozen] [batch_norm.eval.row-independent] [batch_norm.eval.special]
    # [batch_norm.arguments.together] (x − mean) · scale + bias as x · scale + (bias − mean · scale): a pass over x less
    scale = 1 / np.sqrt(var + eps)  # [batch_norm.eps.inside-root]
    if weight is not None:
        scale *= weight  # [batch_norm.weight.scales]
    shift = -mean * scale
    if bias is not None:
        shift += bias  # [batch_norm.bias.shifts]
    y = x * scale.reshape(channel_axis)  # [batch_norm.output.fresh] [batch_norm.input.unchanged]
    y += shift.reshape(channel_axis)  # [batch_norm.channel.independent] [batch_norm.nan.own-channel]
    y = y.astype(x.dtype, copy=False)  # [batch_norm.output.dtype] [batch_norm.output.size]
    if not training or running_mean is None or running_var is None:
        return y, running_mean, running_var  # [batch_norm.eval.unchanged] [batch_norm.statistics.absent]
    # [batch_norm.momentum.weighs-new] [batch_norm.running-mean.update]
    new_mean = (1 - momentum) * running_mean + momentum * mean
    # [batch_norm.running-var.update] the running variance takes the one with divisor n − 1
    new_var = (1 - momentum) * running_var + momentum * (var * n / (n - 1))
    return y, new_mean, new_var


def batch_norm_vjp(
    cotangent: Array | tuple[Array | None, Array | None, Array | None],
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None, Array | None, Array | None]:
    """Cotangent of y, or of all three results -> the gradients of x, running_mean, running_var, weight and bias.

    That of an absent operand is None. Raises ValueError as `batch_norm` does, and for a cotangent of another shape.
    """
    n = _check(x, running_mean, running_var, weight, bias, training, eps)
    g, g_mean, g_var = cotangent if isinstance(cotangent, tuple) else (cotangent, None, None)
    g = np.zeros(x.shape, x.dtype) if g is None else g
    g_mean, g_var = (np.zeros(x.shape[1], x.dtype) if a is None else a for a in (g_mean, g_var))
    like("cotangent", g, x.shape)
    axes = (0, *range(2, x.ndim))  # [batch_norm.gradient.axes]

    def along(vector: Array) -> Array:
        return vector.reshape(-1, *(1 for _ in x.shape[2:]))

    if not training and (running_mean is None or running_var is None):
        raise ValueError("running_mean and running_var: expected both, or training=True")
    batch = training and n > 0  # else the statistics of the result do not come from x, [batch_norm.gradient.empty]
    mean: Any = x.mean(axes) if batch else running_mean
    d = x - along(
        mean
    )  # [batch_norm.gradient.layout] [batch_norm.gradient.channel] [batch_norm.gradient.special] by axes and elements
    var: Any = np.square(d).mean(axes) if batch else running_var  # [batch_norm.gradient.offset]
    scale = 1 / np.sqrt(var + eps)  # [batch_norm.gradient.eps] [batch_norm.gradient.constant]
    normal = d * along(scale)  # y = normal · weight + bias
    slope = scale if weight is None else weight * scale  # [batch_norm.gradient.affine-absent]
    # [batch_norm.gradient.bias] [batch_norm.gradient.weight] [batch_norm.gradient.eval-weight]
    dbias, dweight = g.sum(axes), (g * normal).sum(axes)
    # [batch_norm.gradient.eval-x] [batch_norm.gradient.eval-row-independent] [batch_norm.gradient.unchanged]
    dx = along(slope) * g
    if batch:
        # [batch_norm.gradient.x] mean and variance depend on x: they take away the mean of g, and its part along x
        dx -= along(slope) * (along(dbias / n) + normal * along(dweight / n))
        # the statistics that are returned hold momentum of the batch's, that of the variance with divisor n − 1
        dx += along(momentum * g_mean / n) + along(momentum * g_var * 2 / (n - 1)) * d
        g_mean, g_var = (1 - momentum) * g_mean, (1 - momentum) * g_var
    elif not training:  # [batch_norm.gradient.running] they are operands of y, and returned as they are
        g_mean = g_mean - slope * dbias
        g_var = g_var - slope * scale / 2 * dweight  # d scale / d var = −scale³ / 2
    operands = zip((running_mean, running_var, weight, bias), (g_mean, g_var, dweight, dbias), strict=True)
    dmean, dvar, dweight, dbias = (None if a is None else da for a, da in operands)
    # [batch_norm.gradient.like-operand]
    return dx.astype(x.dtype, copy=False), dmean, dvar, dweight, dbias


def batch_norm_vjp_vjp(
    tangent: Array,
    cotangent: Array,
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array | None, Array | None, Array | None, Array | None]:
    """The gradients of Σ tangent · (gradient of x), by cotangent, x, running_mean, running_var, weight and bias.

    `tangent` and `cotangent` are like x. Gradients of absent operands are None. Raises ValueError as `batch_norm_vjp`.
    """
    settings: Any = {"training": training, "momentum": momentum, "eps": eps}
    # [batch_norm.gradient.second] the gradient of x is linear in the cotangent, by a matrix that is its own transpose
    dcotangent, *_ = batch_norm_vjp(tangent, x, running_mean, running_var, weight, bias, **settings)
    by_x, *_ = batch_norm_vjp(cotangent, x, running_mean, running_var, **settings)  # the gradient but for the weight
    axes = (0, *range(2, x.ndim))
    w: Any = 1 if weight is None else weight
    dweight: Any = (tangent * by_x).sum(axes)
    dx: Any = np.zeros_like(x)
    dmean, dvar, dbias = (None if a is None else np.zeros_like(a) for a in (running_mean, running_var, bias))
    if training and x.size:

        def mean(a: Array) -> Any:
            return a.mean(axes, keepdims=True)

        d = x - mean(x)
        scale = 1 / np.sqrt(mean(np.square(d)) + eps)
        normal = d * scale
        part_t, part_g = mean(normal * tangent), mean(normal * cotangent)
        t = tangent - mean(tangent) - normal * part_t  # what mean and variance leave of the one and of the other
        g = cotangent - mean(cotangent) - normal * part_g
        dx = part_t * g + part_g * t + normal * mean(cotangent * t)
        dx *= -np.square(scale) * np.reshape(w, (-1, *(1 for _ in x.shape[2:])))
    elif running_var is not None:  # the slope is weight · scale, and d scale / d var = −scale³ / 2
        dvar = -w * dweight / (2 * (running_var + eps))
    return dcotangent, dx, dmean, dvar, None if weight is None else dweight, dbias


def _check(x, running_mean, running_var, weight, bias, training, eps):
    """Refuse what the page refuses; the number of values per channel."""
    if x.ndim < 2:  # [batch_norm.refuses.rank]
        raise ValueError(f"x of shape {x.shape}: expected at least 2 dimensions, not {x.ndim}")
    c = x.shape[1]
    length("running_mean", running_mean, c)  # [batch_norm.refuses.running-mean]
    length("running_var", running_var, c)  # [batch_norm.refuses.running-var]
    length("weight", weight, c)  # [batch_norm.refuses.weight]
    length("bias", bias, c)  # [batch_norm.refuses.bias]
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var: expected both or neither")
    if eps <= 0:  # [batch_norm.refuses.eps]
        raise ValueError(f"eps={eps}: expected more than 0")
    n = x.shape[0] * int(np.prod(x.shape[2:]))
    if training and n == 1:  # [batch_norm.refuses.one-value]
        raise ValueError(f"x of shape {x.shape}: expected more than one value per channel in training")
    return n


class _BatchNorm(Module):
    ranks: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,  # as every module with parameters; nothing here is drawn
    ) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        # [batch_norm.parameters.affine] [batch_norm.start.affine]
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine else None
        # [batch_norm.state.complete] [batch_norm.start.statistics]
        self.running_mean = Buffer(np.zeros(num_features, dtype))
        self.running_var = Buffer(np.ones(num_features, dtype))
        self.num_batches_tracked = Buffer(np.array(0))

    def forward(self, x: Array) -> Array:
        """Like x; in training the buffers move as well, and they are all that is kept. [batch_norm.call.stateless]"""
        rank("x", x, *self.ranks)  # [batch_norm.refuses.module-rank]
        momentum = self.momentum
        if momentum is None:  # [batch_norm.momentum.cumulative] the plain mean of all batches so far
            momentum = 1 / (int(self.num_batches_tracked.data) + 1)
        y, self.running_mean.data[...], self.running_var.data[...] = batch_norm(
            x,
            self.running_mean.data,
            self.running_var.data,
            None if self.weight is None else self.weight.data,
            None if self.bias is None else self.bias.data,
            training=self.training,  # [batch_norm.mode.switch] [batch_norm.mode.round-trip] nothing else has a say
            momentum=momentum,
            eps=self.eps,
        )
        self.num_batches_tracked.data += self.training  # [batch_norm.count.tracked]
        return y

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """forward(x), and its pullback, which does not touch the statistics. [batch_norm.gradient.statistics]"""
        # in evaluation they are those of this call, whatever moves them before the pullback is used
        statistics = self.running_mean.data.copy(), self.running_var.data.copy()

        def vjp(cotangent: Array, x: Array, weight: Array | None, bias: Array | None) -> tuple[Array | None, ...]:
            dx, _, _, *others = batch_norm_vjp(cotangent, x, *statistics, weight, bias, training=training, eps=self.eps)
            return dx, *others

        training = self.training  # [batch_norm.gradient.mode] that of this call
        return self.forward(x), pullback(vjp, x, self.weight, self.bias)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L), with weight, bias and running statistics of its own."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N, C, H, W), with weight, bias and running statistics of its own."""

    ranks = (4,)

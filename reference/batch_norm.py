"""Batch normalisation: bring each channel to mean 0 and variance 1, then scale and shift. Page: spec/batch_norm.md"""

from typing import Any

import numpy as np
from nnspec.reference.arguments import Array, length, like, rank
from nnspec.reference.module import Buffer, Module, Parameter, Pullback, pullback
from numpy.typing import DTypeLike


def definition(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Return y and the new running mean and variance, as `batch_norm` does: the formula of the page, step by step.

    Shapes and errors are those of `batch_norm`.
    """
    n = _check(x, running_mean, running_var, weight, bias, training, eps)
    if n == 0:
        return x.copy(), running_mean, running_var
    axes = _all_but_channels(x)
    mean: Any = x.mean(axes) if training else running_mean
    var: Any = x.var(axes) if training else running_var
    y = (x - _along_channels(mean, x)) / np.sqrt(_along_channels(var, x) + eps)
    if weight is not None:
        y = y * _along_channels(weight, x)
    if bias is not None:
        y = y + _along_channels(bias, x)
    if training and running_mean is not None and running_var is not None:
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * (var * n / (n - 1))
    return y, running_mean, running_var


def batch_norm(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Return the normalised x, and the running mean and variance after the call.

    x has shape (N, C), (N, C, L) or (N, C, H, W), and y has x's shape and dtype; all others have shape (C,). In
    training mode the running statistics returned are new arrays, in evaluation mode they are the arguments. Raises
    ValueError for arguments that the page refuses (`batch_norm.refuses.*`).

    By construction: batch_norm.arguments.together, batch_norm.output.size, batch_norm.channel.independent,
    batch_norm.nan.own-channel, batch_norm.eval.row-independent, batch_norm.eval.special, batch_norm.input.unchanged,
    batch_norm.input.layout, batch_norm.memory.in-bounds, batch_norm.memory.all-written, batch_norm.memory.alignment,
    batch_norm.defaults.mode, batch_norm.defaults.momentum, batch_norm.defaults.eps, batch_norm.eval.frozen,
    batch_norm.train.constant, batch_norm.output.fresh, batch_norm.output.dtype, batch_norm.eval.unchanged,
    batch_norm.statistics.absent, batch_norm.running-mean.update, batch_norm.domain.outside.
    """
    n = _check(x, running_mean, running_var, weight, bias, training, eps)
    if training and n == 0:  # [batch_norm.batch.empty]
        return x.copy(), running_mean, running_var
    mean: Any = running_mean
    var: Any = running_var
    if training:
        axes = _all_but_channels(x)
        wide = x.dtype if running_mean is None else running_mean.dtype  # [batch_norm.dtype.mixed]
        mean = x.mean(axes, dtype=wide)  # [batch_norm.train.mean]
        # The mean of squared differences, and not mean(x²) − mean², which cancels and may even be negative:
        # [batch_norm.train.variance] [batch_norm.train.offset]
        var = np.square(x - _along_channels(mean, x)).mean(axes)
    # (x − mean) · scale + bias, computed as x · scale + (bias − mean · scale): one pass over x less. Mean, scale and
    # shift have one value per channel, and `_along_channels` turns them into arrays that broadcast along x's axis 1.
    scale = 1 / np.sqrt(var + eps)  # [batch_norm.eps.inside-root]
    if weight is not None:
        scale *= weight  # [batch_norm.weight.scales]
    shift = -mean * scale
    if bias is not None:
        shift += bias  # [batch_norm.bias.shifts]
    y = x * _along_channels(scale, x)
    y += _along_channels(shift, x)
    y = y.astype(x.dtype, copy=False)
    if not training or running_mean is None or running_var is None:
        return y, running_mean, running_var
    # [batch_norm.momentum.weighs-new]
    new_mean = (1 - momentum) * running_mean + momentum * mean
    unbiased = var * n / (n - 1)  # [batch_norm.running-var.update]
    new_var = (1 - momentum) * running_var + momentum * unbiased
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
    """Return the gradients of x, running_mean, running_var, weight and bias; None for an absent operand.

    The cotangent is that of y, like x, or a tuple of those of the three results, where None stands for zeros. Raises
    ValueError as `batch_norm` does, and for a cotangent of another shape.

    By construction: batch_norm.gradient.frozen,
    batch_norm.gradient.layout, batch_norm.gradient.channel, batch_norm.gradient.special,
    batch_norm.gradient.eval-row-independent, batch_norm.gradient.unchanged, batch_norm.gradient.axes,
    batch_norm.gradient.offset, batch_norm.gradient.eps, batch_norm.gradient.constant,
    batch_norm.gradient.affine-absent, batch_norm.gradient.bias, batch_norm.gradient.weight,
    batch_norm.gradient.eval-weight, batch_norm.gradient.eval-x, batch_norm.gradient.like-operand.
    """
    n = _check(x, running_mean, running_var, weight, bias, training, eps)
    g, g_mean, g_var = cotangent if isinstance(cotangent, tuple) else (cotangent, None, None)
    g = np.zeros(x.shape, x.dtype) if g is None else g
    g_mean, g_var = (np.zeros(x.shape[1], x.dtype) if a is None else a for a in (g_mean, g_var))
    like("cotangent", g, x.shape)
    axes = _all_but_channels(x)
    # Without elements the results do not depend on x: [batch_norm.gradient.empty]
    batch = training and n > 0
    if not batch and (running_mean is None or running_var is None):
        of_weight, of_bias = (None if a is None else np.zeros_like(a) for a in (weight, bias))
        return np.zeros_like(x), None, None, of_weight, of_bias
    mean: Any = x.mean(axes) if batch else running_mean
    d = x - _along_channels(mean, x)
    var: Any = np.square(d).mean(axes) if batch else running_var
    scale = 1 / np.sqrt(var + eps)
    normal = d * _along_channels(scale, x)  # y = normal · weight + bias
    slope = scale if weight is None else weight * scale
    dbias = g.sum(axes)
    dweight = (g * normal).sum(axes)
    dx = _along_channels(slope, x) * g
    if batch:
        # Mean and variance depend on x; subtract the mean of g, and the part of g along x: [batch_norm.gradient.x]
        # If one x grows, the mean grows by 1/n and each `normal` falls by scale/n: this is the term dbias/n = mean(g).
        # The variance grows by 2·d/n and each `normal` falls by normal·scale·(that x's normal)/n: this is the other.
        along_x = _along_channels(dbias / n, x) + normal * _along_channels(dweight / n, x)
        dx -= _along_channels(slope, x) * along_x
        # The new running statistics contain momentum · mean and momentum · var · n / (n − 1), which grow as above.
        dx += _along_channels(momentum * g_mean / n, x) + _along_channels(momentum * g_var * 2 / (n - 1), x) * d
        g_mean, g_var = (1 - momentum) * g_mean, (1 - momentum) * g_var
    elif not training:
        # y depends on the running statistics, which are also results, unchanged: [batch_norm.gradient.running]
        g_mean = g_mean - slope * dbias
        g_var = g_var - slope * scale / 2 * dweight  # d scale / d var = −scale³ / 2
    operands = zip((running_mean, running_var, weight, bias), (g_mean, g_var, dweight, dbias), strict=True)
    dmean, dvar, dweight, dbias = (None if a is None else da for a, da in operands)
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
    """Return the gradients of Σ tangent · (gradient of x) for cotangent, x, running_mean, running_var, weight and bias.

    `tangent` and `cotangent` are like x. Gradients of absent operands are None. Raises ValueError as `batch_norm_vjp`
    does.
    """
    settings: Any = {"training": training, "momentum": momentum, "eps": eps}
    # The gradient of x is linear in the cotangent, and its matrix is symmetric: [batch_norm.gradient.second]
    dcotangent, *_ = batch_norm_vjp(tangent, x, running_mean, running_var, weight, bias, **settings)
    by_x, *_ = batch_norm_vjp(cotangent, x, running_mean, running_var, **settings)  # without the factor weight
    axes = _all_but_channels(x)
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
        # tangent and cotangent without their means and their parts along x
        t = tangent - mean(tangent) - normal * part_t
        g = cotangent - mean(cotangent) - normal * part_g
        dx = part_t * g + part_g * t + normal * mean(cotangent * t)
        dx *= -np.square(scale) * _along_channels(np.asarray(w), x)
    elif running_var is not None:  # gradient of x = weight · scale · cotangent, and d scale / d var = −scale³ / 2
        dvar = -w * dweight / (2 * (running_var + eps))
    return dcotangent, dx, dmean, dvar, None if weight is None else dweight, dbias


def _all_but_channels(x: Array) -> tuple[int, ...]:
    """Return the axes of x but axis 1. [batch_norm.axes.rank-2] [batch_norm.axes.rank-3] [batch_norm.axes.rank-4]"""
    return (0, *range(2, x.ndim))


def _along_channels(vector: Array, x: Array) -> Array:
    """Return a vector (C,) in the shape (C, 1, …) that broadcasts along axis 1 of x."""
    return vector.reshape(-1, *(1,) * (x.ndim - 2))


def _check(x, running_mean, running_var, weight, bias, training, eps):
    """Return the number of values per channel. Raises ValueError for arguments that the page refuses.

    By construction: batch_norm.refuses.channels, batch_norm.refuses.running-mean, batch_norm.refuses.running-var,
    batch_norm.refuses.weight, batch_norm.refuses.bias.
    """
    if x.ndim < 2:  # [batch_norm.refuses.rank]
        raise ValueError(f"x of shape {x.shape}: expected at least 2 dimensions, not {x.ndim}")
    c = x.shape[1]
    length("running_mean", running_mean, c)
    length("running_var", running_var, c)
    length("weight", weight, c)
    length("bias", bias, c)
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var: expected both or neither")
    if running_mean is None and not training:  # [batch_norm.refuses.absent]
        raise ValueError("running_mean and running_var: expected both, or training=True")
    if eps <= 0:  # [batch_norm.refuses.eps]
        raise ValueError(f"eps={eps}: expected more than 0")
    n = x.shape[0] * int(np.prod(x.shape[2:]))
    if training and n == 1:  # [batch_norm.refuses.one-value]
        raise ValueError(f"x of shape {x.shape}: expected more than one value per channel in training")
    return n


class _BatchNorm(Module):
    """Batch normalisation of arrays whose number of dimensions is among `ranks`.

    By construction: batch_norm.parameters.complete, batch_norm.start.affine, batch_norm.state.complete,
    batch_norm.buffers.complete, batch_norm.state.own, batch_norm.start.statistics.
    """

    ranks: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,  # unused: every module with parameters takes it
    ) -> None:
        super().__init__()
        self.eps, self.momentum, self.track_running_stats = eps, momentum, True
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine else None
        self.running_mean = Buffer(np.zeros(num_features, dtype))
        self.running_var = Buffer(np.ones(num_features, dtype))
        self.num_batches_tracked = Buffer(np.array(0))

    def forward(self, x: Array) -> Array:
        """Return the normalised x. In training mode, also update the buffers.

        By construction: batch_norm.mode.round-trip, batch_norm.call.stateless, batch_norm.call.neighbours,
        batch_norm.refuses.module-rank, batch_norm.law.scale.
        """
        rank("x", x, *self.ranks)
        momentum = self.momentum
        if momentum is None:  # the mean of all batches so far: [batch_norm.momentum.cumulative]
            momentum = 1 / (int(self.num_batches_tracked.data) + 1)
        y, mean, var = batch_norm(
            x,
            self.running_mean.data,
            self.running_var.data,
            None if self.weight is None else self.weight.data,
            None if self.bias is None else self.bias.data,
            training=self.training,  # [batch_norm.mode.switch]
            momentum=momentum,
            eps=self.eps,
        )
        if self.track_running_stats:  # [batch_norm.count.switched-off]
            self.running_mean.data[...], self.running_var.data[...] = mean, var
            self.num_batches_tracked.data += self.training  # [batch_norm.count.tracked]
        return y

    def vjp(self, x: Array) -> tuple[Array, Pullback]:
        """Return forward(x) and its pullback, which uses the mode and, in evaluation, the statistics of this call.

        By construction: batch_norm.gradient.statistics, batch_norm.gradient.mode, batch_norm.gradient.no-graph.
        """
        training = self.training
        statistics = self.running_mean.data.copy(), self.running_var.data.copy()

        def vjp(cotangent: Array, x: Array, weight: Array | None, bias: Array | None) -> tuple[Array | None, ...]:
            dx, _, _, *others = batch_norm_vjp(cotangent, x, *statistics, weight, bias, training=training, eps=self.eps)
            return dx, *others

        return self.forward(x), pullback(vjp, x, self.weight, self.bias)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L), with its own weight, bias and running statistics."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N, C, H, W), with its own weight, bias and running statistics."""

    ranks = (4,)

"""Convolution of an image with a kernel (cross-correlation). Page: spec/conv2d.md"""

import numpy as np
from nnspec.reference.arguments import Array, Pair, length, pair, rank
from nnspec.reference.module import Module, Parameter
from nnspec.reference.windows import output_size, pad, windows
from numpy.typing import DTypeLike


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,) -> (N, O, OH, OW), in x's dtype.

    Raises ValueError for whatever the page refuses (`conv2d.refuses.*`).
    """
    stride, padding, dilation = _check(x, weight, bias, stride, padding, dilation, groups)
    (n, c, h, w), (o, cg, kh, kw) = x.shape, weight.shape
    oh, ow = output_size((h, w), (kh, kw), stride, padding, dilation)  # [conv2d.output.size] [conv2d.refuses.window]
    # [conv2d.padding.zeros] zeros on both sides; then [conv2d.stride.step] every stride-th window
    # of [conv2d.dilation.gap] every dilation-th row and column
    view = windows(pad(x, padding), (kh, kw), stride, dilation)  # (N, C, KH, KW, OH, OW)
    kernels = weight.reshape(groups, o // groups, cg * kh * kw)
    y = np.empty((n, groups, o // groups, oh * ow), x.dtype)  # [conv2d.output.dtype] [conv2d.output.fresh]
    # One image at a time, and of a large one so many rows that their windows, copied, stay in the processor's cache;
    # [conv2d.batch.independent] no image sees another.
    rows = max(1, 2**19 // (c * kh * kw * ow))
    for image, out in zip(view, y, strict=True):  # [conv2d.batch.empty]
        for r in range(0, oh, rows):
            columns = image[..., r : r + rows, :].reshape(groups, cg * kh * kw, -1)
            # [conv2d.output.value] [conv2d.kernel.orientation] the sum over C, KH and KW is a matrix product
            # [conv2d.groups.block-diagonal] of group g's kernels with group g's channels only
            np.matmul(kernels, columns, out=out[..., r * ow : (r + rows) * ow])
    y = y.reshape(n, o, oh, ow)
    if bias is not None:
        y += bias[:, None, None]  # [conv2d.bias.per-channel]
    return y


def _check(x, weight, bias, stride, padding, dilation, groups):
    rank("x", x, 4)  # [conv2d.refuses.rank]
    rank("weight", weight, 4)
    stride = pair("stride", stride, 1)  # [conv2d.refuses.stride]
    padding = pair("padding", padding, 0)  # [conv2d.refuses.padding]
    dilation = pair("dilation", dilation, 1)  # [conv2d.refuses.dilation]
    (_, c, _, _), (o, cg, _, _) = x.shape, weight.shape
    if groups < 1 or c % groups or o % groups:  # [conv2d.refuses.groups]
        raise ValueError(f"groups={groups}: expected a divisor of C={c} and O={o}")
    if c != cg * groups:  # [conv2d.refuses.channels]
        raise ValueError(f"x of shape {x.shape}: expected C = {cg * groups} (weight {weight.shape}, groups={groups})")
    length("bias", bias, o)  # [conv2d.refuses.bias]
    return stride, padding, dilation


class Conv2d(Module):
    """Convolution with its own weight and bias, both drawn from U(−1/√fan_in, 1/√fan_in), fan_in = C/groups·KH·KW."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        rng = rng or np.random.default_rng()
        kh, kw = pair("kernel_size", kernel_size, 1)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups}: expected a divisor of {in_channels=} and {out_channels=}")
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        shape = (out_channels, in_channels // groups, kh, kw)
        limit = 1 / np.sqrt(np.prod(shape[1:]))
        self.weight = Parameter(rng.uniform(-limit, limit, shape).astype(dtype))
        self.bias = Parameter(rng.uniform(-limit, limit, out_channels).astype(dtype)) if bias else None

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, O, OH, OW)"""
        hyper = {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }
        return conv2d(x, self.weight.data, self.bias and self.bias.data, **hyper)

"""A convolution as a kernel in Triton, on torch's tensors. On a device, or without one in Triton's interpreter:

    nnspec check examples/triton_conv2d.py --device cuda
    TRITON_INTERPRET=1 nnspec check examples/triton_conv2d.py --timeout 600

A program computes a tile of TILE columns of one row of one channel of the result.
"""

import torch
import triton
import triton.language as tl

DTYPES = ("float32",)
GRADIENTS = False
UNSUPPORTED = {"conv2d.batch.absent": "the kernel takes batches alone"}
TILE = 32


@triton.jit
def kernel(
    x, weight, bias, y,
    c, h, w, o, cg, kh, kw, oh, ow, groups, sh, sw, ph, pw, dh, dw,
    BIASED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,) -> y (N, O, OH, OW), all of them contiguous."""
    row, tile = tl.program_id(0), tl.program_id(1)  # the row among those of all images and channels
    r, channel, n = row % oh, row // oh % o, row // oh // o
    columns = tile * TILE + tl.arange(0, TILE)
    sums = tl.zeros((TILE,), dtype=tl.float32)
    for ci in range(cg):
        plane = n * c + channel // (o // groups) * cg + ci
        for i in range(kh):
            at_row = r * sh + i * dh - ph + columns * 0  # a tensor: the interpreter takes no scalar into a mask
            for j in range(kw):
                at = columns * sw + j * dw - pw
                inside = (at_row >= 0) & (at_row < h) & (at >= 0) & (at < w) & (columns < ow)
                values = tl.load(x + (plane * h + at_row) * w + at, mask=inside, other=0.0)
                factor = tl.load(weight + ((channel * cg + ci) * kh + i) * kw + j)
                sums += factor * values
    if BIASED:
        sums += tl.load(bias + channel)
    tl.store(y + row * ow + columns, sums, mask=columns < ow)


def pair(value, least):
    """Return (rows, columns). Raises ValueError where one is too small, or where there are not two."""
    found = (value, value) if isinstance(value, int) else tuple(value)
    if len(found) != 2 or not all(isinstance(one, int) and one >= least for one in found):
        raise ValueError(f"{value}: expected {least} or more, or two such numbers")
    return found


def conv2d(x: torch.Tensor, weight: torch.Tensor, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, H, W), (O, C/groups, KH, KW), (O,) -> (N, O, OH, OW)"""
    (sh, sw), (ph, pw), (dh, dw) = pair(stride, 1), pair(padding, 0), pair(dilation, 1)
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"x and weight of {x.ndim} and {weight.ndim} dimensions: expected 4")
    (n, c, h, w), (o, cg, kh, kw) = x.shape, weight.shape
    if groups < 1 or c % groups or o % groups or cg * groups != c or (bias is not None and bias.shape != (o,)):
        raise ValueError(f"x{tuple(x.shape)}, weight{tuple(weight.shape)}, groups={groups}: the channels do not fit")
    rows, columns = h + 2 * ph - dh * (kh - 1) - 1, w + 2 * pw - dw * (kw - 1) - 1
    if min(rows, columns) < 0:
        raise ValueError(f"kernel of {kh}×{kw}: expected one that fits into the padded image")
    oh, ow = rows // sh + 1, columns // sw + 1
    y = x.new_empty((n, o, oh, ow))
    if y.numel():
        operands = x.contiguous(), weight.contiguous(), weight if bias is None else bias.contiguous(), y
        sizes = c, h, w, o, cg, kh, kw, oh, ow, groups, sh, sw, ph, pw, dh, dw
        kernel[n * o * oh, triton.cdiv(ow, TILE)](*operands, *sizes, BIASED=bias is not None, TILE=TILE)
    return y

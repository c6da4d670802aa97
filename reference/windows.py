"""Windows over an image, shared by convolution and pooling. Sizes are pairs: rows first, columns second."""

from typing import NamedTuple

import numpy as np
from nnspec.reference.arguments import Array
from numpy.lib.stride_tricks import as_strided


def pad(x: Array, padding: tuple[int, int], value: float = 0, overhang: tuple[int, int] = (0, 0)) -> Array:
    """Return images x (N, C, H, W) with a border of `value`: (N, C, H + 2·PH + EH, W + 2·PW + EW).

    padding (PH, PW) is added on both sides, overhang (EH, EW) at the bottom and on the right only. Without a border
    the result is x itself.
    """
    (ph, pw), (eh, ew), (n, c, h, w) = padding, overhang, x.shape
    if ph == pw == eh == ew == 0:
        return x
    # This is ten times as fast as np.pad on small images.
    padded = np.full((n, c, h + 2 * ph + eh, w + 2 * pw + ew), value, x.dtype)
    padded[:, :, ph : ph + h, pw : pw + w] = x
    return padded


def output_size(
    size: tuple[int, int],
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    overhang: tuple[int, int] = (0, 0),
) -> tuple[int, int]:
    """Return how many windows fit: floor((size + 2·padding + overhang − dilation·(kernel_size − 1) − 1) / stride) + 1.

    Raises ValueError if no window fits in the padded input.
    """
    extent = [d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)]
    padded = [n + 2 * p + e for n, p, e in zip(size, padding, overhang, strict=True)]
    if any(e > n for e, n in zip(extent, padded, strict=True)):
        raise ValueError(
            f"kernel_size={kernel_size} with dilation={dilation} spans {tuple(extent)}: expected at most the padded "
            f"input, {tuple(padded)} (input {size}, padding={padding}"
            + (f", overhang {overhang})" if any(overhang) else ")")
        )
    rows, columns = ((n - e) // s + 1 for n, e, s in zip(padded, extent, stride, strict=True))
    return rows, columns


def pooled_size(
    size: tuple[int, int],
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    overhang: tuple[int, int],
) -> tuple[int, int]:
    """Return how many windows a pool has: windows that fit and that begin before the padding at the far end.

    An overhang of stride − 1 turns the floor of `output_size` into a ceiling. Raises ValueError if no window fits.
    """
    fitting = output_size(size, kernel_size, stride, padding, dilation, overhang)
    # Windows begin at multiples of the stride; -(-a // b) is a / b rounded up.
    beginning = (-(-(n + p) // s) for n, p, s in zip(size, padding, stride, strict=True))
    rows, columns = map(min, fitting, beginning)
    return rows, columns


def windows(
    x: Array,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    *,
    writeable: bool = False,
) -> Array:
    """Return a view (N, C, KH, KW, OH, OW) of images x (N, C, H, W): [:, :, i, j] is element (i, j) of every window."""
    (kh, kw), (sh, sw), (dh, dw), (n, c, h, w) = kernel_size, stride, dilation, x.shape
    shape = (n, c, kh, kw, (h - dh * (kh - 1) - 1) // sh + 1, (w - dw * (kw - 1) - 1) // sw + 1)
    # Element (i, j) of window (r, s) is x[:, :, sh·r + dh·i, sw·s + dw·j]. The strides of NumPy count bytes.
    image, channel, row, column = x.strides
    strides = (image, channel, dh * row, dw * column, sh * row, sw * column)
    return as_strided(x, shape, strides, writeable=writeable)


class Layout(NamedTuple):
    """Where the windows of a pool lie. Each field is a pair: rows first, columns second."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    overhang: tuple[int, int]
    output_size: tuple[int, int]

    def windows(self, images: Array, border: float) -> Array:
        """Return a view (N, C, KH, KW, OH, OW) of images (N, C, H, W) that are padded with `border`."""
        return self.windows_of_padded(pad(images, self.padding, border, self.overhang))

    def windows_of_padded(self, padded: Array) -> Array:
        """Return a view (N, C, KH, KW, OH, OW) of images that have padding and overhang."""
        oh, ow = self.output_size
        return windows(padded, self.kernel_size, self.stride, self.dilation)[..., :oh, :ow]


def scatter(columns: Array, onto: Array, stride: tuple[int, int], dilation: tuple[int, int]) -> None:
    """Add columns (N, C, KH, KW, OH, OW) to the elements of `onto` (N, C, H, W) that `windows` reads them from.

    This is the adjoint of `windows`. If more windows fit in `onto` than there are columns, the last ones get nothing.
    """
    n, c, kh, kw, oh, ow = columns.shape
    (sh, sw), (dh, dw) = stride, dilation
    # Windows overlap, but two windows never have the same element (i, j): one addition serves all windows.
    for j in range(kw):
        # Rows first: with a stride of 1 each addition is over one contiguous block, and not over many short rows.
        rows = np.zeros((n, c, onto.shape[2], ow), onto.dtype)
        for i in range(kh):
            rows[:, :, i * dh : i * dh + sh * oh : sh][:, :, :oh] += columns[:, :, i, j]
        onto[..., j * dw : j * dw + sw * ow : sw][..., :ow] += rows

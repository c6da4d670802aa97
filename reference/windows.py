"""Windows over an image, shared by convolution and pooling. Sizes are pairs: rows first, columns second."""

import numpy as np
from nnspec.reference.arguments import Array
from numpy.lib.stride_tricks import sliding_window_view


def pad(x: Array, padding: tuple[int, int], value: float = 0, overhang: tuple[int, int] = (0, 0)) -> Array:
    """(N, C, H, W) -> (N, C, H + 2·PH + EH, W + 2·PW + EW), the border filled with `value`.

    The overhang (EH, EW) lies at the bottom and on the right alone.
    """
    (ph, pw), (eh, ew), (n, c, h, w) = padding, overhang, x.shape
    if ph == pw == eh == ew == 0:
        return x
    # np.pad takes ten times as long on small images
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
    """How many windows fit: floor((size + 2·padding + overhang − dilation·(kernel_size − 1) − 1) / stride) + 1.

    Raises ValueError where not even one window fits in the padded input.
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
    """How many windows a pool has: those that fit when the overhang is added and that begin before the far padding.

    An overhang of stride − 1 turns the floor of `output_size` into a ceiling. Raises ValueError where no window fits.
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
    """(N, C, H, W) -> a view (N, C, KH, KW, OH, OW): element (i, j) of every window, without a copy."""
    (kh, kw), (sh, sw), (dh, dw) = kernel_size, stride, dilation
    view = sliding_window_view(x, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(2, 3), writeable=writeable)
    return view[:, :, ::sh, ::sw, ::dh, ::dw].transpose(0, 1, 4, 5, 2, 3)


def scatter(columns: Array, onto: Array, stride: tuple[int, int], dilation: tuple[int, int]) -> None:
    """Add columns (N, C, KH, KW, OH, OW) to onto (N, C, H, W), each where `windows` would read it: the adjoint of that.

    More windows may fit in `onto` than there are columns; they are the last ones, and get nothing.
    """
    n, c, kh, kw, oh, ow = columns.shape
    (sh, sw), (dh, dw) = stride, dilation
    for j in range(kw):  # windows overlap, but element (i, j) of one is never element (i, j) of another
        # rows first: where they are next to each other, an image is one long addition and not many short ones
        rows = np.zeros((n, c, onto.shape[2], ow), onto.dtype)
        for i in range(kh):
            rows[:, :, i * dh : i * dh + sh * oh : sh][:, :, :oh] += columns[:, :, i, j]
        onto[..., j * dw : j * dw + sw * ow : sw][..., :ow] += rows

"""Windows over an image, shared by convolution and pooling. Sizes are pairs: rows first, columns second."""

import numpy as np
from nnspec.reference.arguments import Array
from numpy.lib.stride_tricks import sliding_window_view


def pad(x: Array, padding: tuple[int, int], value: float = 0) -> Array:
    """(N, C, H, W) -> (N, C, H + 2·PH, W + 2·PW), the border filled with `value`."""
    (ph, pw), (n, c, h, w) = padding, x.shape
    if ph == pw == 0:
        return x
    padded = np.full((n, c, h + 2 * ph, w + 2 * pw), value, x.dtype)  # np.pad takes ten times as long on small images
    padded[:, :, ph : ph + h, pw : pw + w] = x
    return padded


def output_size(
    size: tuple[int, int],
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int]:
    """How many windows fit: floor((size + 2·padding − dilation·(kernel_size − 1) − 1) / stride) + 1.

    Raises ValueError where not even one window fits in the padded input.
    """
    extent = [d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)]
    padded = [n + 2 * p for n, p in zip(size, padding, strict=True)]
    if any(e > n for e, n in zip(extent, padded, strict=True)):
        raise ValueError(
            f"kernel_size={kernel_size} with dilation={dilation} spans {tuple(extent)}: expected at most the padded "
            f"input, {tuple(padded)} (input {size}, padding={padding})"
        )
    rows, columns = ((n - e) // s + 1 for n, e, s in zip(padded, extent, stride, strict=True))
    return rows, columns


def windows(x: Array, kernel_size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> Array:
    """(N, C, H, W) -> a view (N, C, KH, KW, OH, OW): element (i, j) of every window, without a copy."""
    (kh, kw), (sh, sw), (dh, dw) = kernel_size, stride, dilation
    view = sliding_window_view(x, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(2, 3))
    return view[:, :, ::sh, ::sw, ::dh, ::dw].transpose(0, 1, 4, 5, 2, 3)

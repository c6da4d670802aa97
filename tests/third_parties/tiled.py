"""NumPy, as a kernel of a processor with tiles works: blocks of rows, columns, channels and features, and partial ones.

A tile of a convolution reads its own rows and columns and those around it; a sum runs over blocks of channels, and the
statistics of a norm are merged block by block. Blocks are small, so that most sizes end in a partial block.
"""

from __future__ import annotations

import numpy as np

ROWS, COLUMNS, OUTPUTS, CHANNELS = 4, 16, 8, 8  # of a tile of a convolution or a pool
M, N, K = 16, 32, 32  # of a tile of a matrix product
VALUES = 64  # that a block of a norm's statistics has
VECTOR = 16


def blocks(size, block):
    """Yield the slices that cut an axis into blocks; the last one may be partial."""
    for begin in range(0, size, block):
        yield slice(begin, min(begin + block, size))


# -- elements and matrices ---------------------------------------------------------------------------------------------


def relu(x):
    """The same shape; vectors first, and the elements left over one by one."""
    flat, y = x.reshape(-1), np.empty(x.size, x.dtype)
    full = x.size - x.size % VECTOR
    y[:full] = np.maximum(flat[:full].reshape(-1, VECTOR), 0).reshape(-1)
    for i in range(full, x.size):
        y[i] = np.maximum(flat[i], x.dtype.type(0))
    return y.reshape(x.shape)


def relu_vjp(cotangent, x):
    """The gradient of x."""
    flat, signs, g = cotangent.reshape(-1), x.reshape(-1), np.zeros(x.size, cotangent.dtype)
    for some in blocks(x.size, VECTOR):
        mask = signs[some] > 0
        g[some][mask] = flat[some][mask]
    return g.reshape(x.shape)


def product(a, b):
    """(m, k) times (k, n), a tile of the result at a time."""
    y = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for rows in blocks(a.shape[0], M):
        for columns in blocks(b.shape[1], N):
            for inner in blocks(a.shape[1], K):
                y[rows, columns] += a[rows, inner] @ b[inner, columns]
    return y


def linear(x, weight, bias=None):
    """(…, I), (O, I), (O,) -> (…, O)"""
    if x.ndim < 1 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x {x.shape}, weight {weight.shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"weight {weight.shape}, bias {bias.shape}")
    rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
    y = product(rows, weight.T)
    for outputs in blocks(len(weight), N):
        if bias is not None:
            y[:, outputs] += bias[outputs]
    return y.reshape(*x.shape[:-1], len(weight))


def linear_vjp(cotangent, x, weight, bias=None):
    """The gradients of x, weight and bias; sums over the batch are added tile by tile."""
    count = int(np.prod(x.shape[:-1]))
    g, rows = cotangent.reshape(count, len(weight)), x.reshape(count, x.shape[-1])
    dx = product(g, weight).reshape(x.shape)
    dbias = np.zeros(len(weight), weight.dtype)
    for some in blocks(count, M):
        dbias += g[some].sum(0)
    return dx, product(g.T, rows), None if bias is None else dbias


# -- convolutions ------------------------------------------------------------------------------------------------------


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """(N, C, H, W), (O, C/groups, KH, KW), (O,) -> (N, O, OH, OW)"""
    image, tiles, shape = tiled(x, weight, bias, stride, padding, dilation, groups)
    y = np.zeros(shape, x.dtype)
    for group, outputs, channels, taps in tiles:
        for (i, j), rows, columns, of_x in taps:
            part = image[:, channels][:, :, of_x[0], of_x[1]]
            kernels = weight[outputs, channels.start - group : channels.stop - group, i, j]
            y[:, outputs, rows, columns] += np.einsum("oc,ncrs->nors", kernels, part)
    return y if bias is None else y + bias[:, None, None]


def conv2d_vjp(cotangent, x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """The gradients of x, weight and bias; tiles add to what other tiles have added to the pixels around them."""
    image, tiles, _ = tiled(x, weight, bias, stride, padding, dilation, groups)
    dimage, dweight = np.zeros_like(image), np.zeros(weight.shape, weight.dtype)
    for group, outputs, channels, taps in tiles:
        own = slice(channels.start - group, channels.stop - group)
        for (i, j), rows, columns, of_x in taps:
            g = cotangent[:, outputs, rows, columns]
            dimage[:, channels, of_x[0], of_x[1]] += np.einsum("oc,nors->ncrs", weight[outputs, own, i, j], g)
            dweight[outputs, own, i, j] += np.einsum("nors,ncrs->oc", g, image[:, channels][:, :, of_x[0], of_x[1]])
    top, left = pair(padding, 0)
    dx = dimage[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    return dx, dweight, None if bias is None else cotangent.sum((0, 2, 3))


def tiled(x, weight, bias, stride, padding, dilation, groups):
    """Return the image with its border, what each tile consists of, and the shape of the result."""
    if x.ndim != 4 or weight.ndim != 4 or groups < 1 or len(weight) % groups or x.shape[1] != groups * weight.shape[1]:
        raise ValueError(f"x {x.shape}, weight {weight.shape}, {groups=}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"weight {weight.shape}, bias {bias.shape}")
    steps, (ph, pw), gaps = pair(stride, 1), pair(padding, 0), pair(dilation, 1)
    (n, _, h, w), (o, c, *kernel) = x.shape, weight.shape
    image = np.zeros((n, x.shape[1], h + 2 * ph, w + 2 * pw), x.dtype)
    image[:, :, ph : ph + h, pw : pw + w] = x
    span = [d * (k - 1) + 1 for k, d in zip(kernel, gaps, strict=True)]
    size = [(m - s) // step + 1 for m, s, step in zip(image.shape[2:], span, steps, strict=True)]
    if min(size) < 1 or any(s > m for s, m in zip(span, image.shape[2:], strict=True)):
        raise ValueError(f"a kernel that spans {span} in an image of {image.shape[2:]}")
    tiles = [
        (g * c, slice(g * (o // groups) + outs.start, g * (o // groups) + outs.stop),
         slice(g * c + ins.start, g * c + ins.stop), [*taps(size, kernel, steps, gaps)])
        for g in range(groups) for outs in blocks(o // groups, OUTPUTS) for ins in blocks(c, CHANNELS)
    ]  # fmt: skip
    return image, tiles, (n, o, *size)


def taps(size, kernel, steps, gaps):
    """Yield, for each tile of the result and each kernel element, the tile and the part of the image that it meets."""
    for rows in blocks(size[0], ROWS):
        for columns in blocks(size[1], COLUMNS):
            for i, j in np.ndindex(*kernel):
                of_x = [
                    slice(part.start * s + at * d, (part.stop - 1) * s + at * d + 1, s)
                    for part, s, d, at in zip((rows, columns), steps, gaps, (i, j), strict=True)
                ]
                yield (i, j), rows, columns, of_x


def pair(value, least):
    """(rows, columns)"""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or min(both) < least:
        raise ValueError(f"{value}: expected a number, or a pair, of at least {least}")
    return both


# -- norms -------------------------------------------------------------------------------------------------------------


def batch_norm(x, running_mean, running_var, weight=None, bias=None, *, training=False, momentum=0.1, eps=1e-5):
    """y, and the running mean and variance after it"""
    vectors = (running_mean, running_var, weight, bias)
    if x.ndim < 2 or eps <= 0 or any(v is not None and v.shape != (x.shape[1],) for v in vectors):
        raise ValueError(f"x {x.shape}, {eps=}")
    values = np.moveaxis(x, 1, 0).reshape(x.shape[1], x.size // max(x.shape[1], 1))
    n = values.shape[1]
    if (training and n == 1) or (not training and (running_mean is None or running_var is None)):
        raise ValueError(f"x {x.shape}: no variance")
    if training and n == 0:
        return x.copy(), running_mean, running_var
    mean, var = merged(values) if training else (running_mean, running_var)
    y = (values - mean[:, None]) / np.sqrt(var + var.dtype.type(eps))[:, None]
    y = y if weight is None else y * weight[:, None]
    y = y if bias is None else y + bias[:, None]
    y = np.ascontiguousarray(np.moveaxis(y.reshape(x.shape[1], len(x), *x.shape[2:]), 0, 1)).astype(x.dtype, copy=False)
    if training and running_mean is not None and running_var is not None:
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * (var * (n / (n - 1)))
    return y, running_mean, running_var


def merged(values):
    """Mean and variance of the rows, from those of blocks: Welford's merge, with the size of each block as it is."""
    n, mean, squares = 0, np.zeros(len(values), values.dtype), np.zeros(len(values), values.dtype)
    for some in blocks(values.shape[1], VALUES):
        part, m = values[:, some], some.stop - some.start
        apart = part.mean(1) - mean
        squares += ((part - part.mean(1)[:, None]) ** 2).sum(1) + apart**2 * values.dtype.type(n * m / (n + m))
        mean += apart * values.dtype.type(m / (n + m))
        n += m
    return mean, squares / values.dtype.type(n)


# -- pools -------------------------------------------------------------------------------------------------------------


def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """(N, C, H, W) -> (N, C, OH, OW)"""
    kernel, gaps, borders = pair(kernel_size, 1), pair(dilation, 1), pair(padding, 0)
    steps = kernel if stride is None else pair(stride, 1)
    if x.ndim != 4 or any(p > k // 2 for p, k in zip(borders, kernel, strict=True)):
        raise ValueError(f"x {x.shape}, {padding=}, {kernel_size=}")
    span = [d * (k - 1) + 1 for k, d in zip(kernel, gaps, strict=True)]
    size = [windows(*each, ceil_mode) for each in zip(x.shape[2:], span, steps, borders, strict=True)]
    reach = [
        max(n + 2 * p, (w - 1) * s + e) for n, p, w, s, e in zip(x.shape[2:], borders, size, steps, span, strict=True)
    ]
    image = np.full((*x.shape[:2], *reach), -np.inf, x.dtype)
    image[:, :, borders[0] : borders[0] + x.shape[2], borders[1] : borders[1] + x.shape[3]] = x
    y = np.full((*x.shape[:2], *size), -np.inf, x.dtype)
    for _, rows, columns, of_x in taps(size, kernel, steps, gaps):
        y[:, :, rows, columns] = np.maximum(y[:, :, rows, columns], image[:, :, of_x[0], of_x[1]])
    return y


def windows(size, span, step, border, ceil_mode):
    """How many windows there are: with `ceil_mode` also one that begins in the image and ends behind it."""
    room = size + 2 * border - span
    if room + (step - 1) * ceil_mode < 0:
        raise ValueError(f"a window of {span} in {size} with a border of {border}")
    count = (room + (step - 1) * ceil_mode) // step + 1
    return count - (ceil_mode and (count - 1) * step >= size + border)


def global_avg_pool2d(x):
    """(N, C, H, W) -> (N, C), a block of pixels at a time"""
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise ValueError(f"x {x.shape}")
    pixels = x.reshape(*x.shape[:2], -1) if x.size else x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])
    total = np.zeros(x.shape[:2], np.result_type(x, np.float32))
    for some in blocks(pixels.shape[2], VALUES):
        total += pixels[..., some].sum(2, dtype=total.dtype)
    return (total / total.dtype.type(pixels.shape[2])).astype(x.dtype, copy=False)

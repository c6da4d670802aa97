"""The figures of the pages, computed from the reference. `python spec/figures.py` writes them to spec/figures/.

Each function marked `@figure` draws one figure. Its docstring is the figure's caption, which the program writes into
the file and onto the page, below each line `![Figure](figures/NAME.svg)`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from nnspec.reference.arguments import Array
from nnspec.reference.avg_pool2d import avg_pool2d
from nnspec.reference.basic_block import ResidualBlock
from nnspec.reference.batch_norm import batch_norm
from nnspec.reference.conv2d import conv2d, conv2d_vjp
from nnspec.reference.conv_transpose2d import conv_transpose2d
from nnspec.reference.einsum import einsum
from nnspec.reference.fused import fused_chain
from nnspec.reference.global_avg_pool2d import global_avg_pool2d
from nnspec.reference.linear import Linear, linear
from nnspec.reference.max_pool2d import max_pool2d
from nnspec.reference.mlp import MLP
from nnspec.reference.module import Buffer, Module, Parameter
from nnspec.reference.relu import ReLU, relu, relu_vjp
from nnspec.reference.resnet34 import POOL, ResNet34
from nnspec.reference.sequential import Sequential
from nnspec.reference.sgd import sgd_step

SPEC = Path(__file__).parent
FOLDER = SPEC / "figures"
ON_A_PAGE = re.compile(r"^!\[Figure\]\(figures/(\w+)\.svg\)(?:\\\n\*[^*]+\*)?$", re.M)
CELL = 26  # width and height of an element of an array
LINE = 20  # height of a line of text
TONES = ("a", "b", "c", "d")  # colours that tie a window to its result
# Every colour is readable on white and on black; fills are faint.
STYLE = """
text { font: 12px sans-serif; fill: #7d8590; text-anchor: middle; dominant-baseline: central }
text.left { text-anchor: start }
rect, path, circle, ellipse { stroke: #7d8590; fill: none }
.dashed { stroke-dasharray: 3 3; stroke-opacity: .6 }
.a { stroke: #e5701f; stroke-width: 2.5 } .b { stroke: #3f83f8; stroke-width: 2.5 }
.c { stroke: #2fa35a; stroke-width: 2.5 } .d { stroke: #b05fd8; stroke-width: 2.5 }
rect.a, circle.a { fill: #e5701f; fill-opacity: .18 } rect.b, circle.b { fill: #3f83f8; fill-opacity: .18 }
rect.c, circle.c { fill: #2fa35a; fill-opacity: .18 } rect.d, circle.d { fill: #b05fd8; fill-opacity: .18 }
rect.outline { fill: none }
"""
FIGURES: dict[str, Callable[[], Drawing]] = {}


class Drawing:
    """A picture made of boxes, lines and texts. It is as large as what has been drawn."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.right = self.bottom = 0.0

    def _add(self, right: float, bottom: float, part: str) -> None:
        self.right, self.bottom = max(self.right, right), max(self.bottom, bottom)
        self.parts.append(part)

    def box(self, x: float, y: float, width: float, height: float, style: str = "", opacity: float = 0) -> None:
        """Draw a rectangle, in grey of this opacity if that is not 0."""
        shade = f' style="fill:#7d8590;fill-opacity:{opacity:.2f}"' if opacity else ""
        size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        self._add(x + width, y + height, f'<rect class="{style}" {size}{shade}/>')

    def text(self, x: float, y: float, words: object, style: str = "") -> None:
        """Write words around a point, or to the right of it if the style is "left"."""
        words = str(words)
        width = len(words) * 6.5  # about, in this font
        right = x + (width if style == "left" else width / 2)
        self._add(right, y + LINE / 2, f'<text class="{style}" x="{x:g}" y="{y:g}">{escape(words)}</text>')

    def path(self, points: Sequence[tuple[float, float]], style: str = "", arrow: bool = False) -> None:
        """Draw a line through points."""
        end = ' marker-end="url(#arrow)"' if arrow else ""
        line = "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._add(max(x for x, _ in points), max(y for _, y in points), f'<path class="{style}" d="{line}"{end}/>')

    def circle(self, x: float, y: float, radius: float, style: str = "") -> None:
        """Draw a circle around a point."""
        part = f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'
        self._add(x + radius, y + radius, part)

    def array(self, x: float, y: float, a: Any, styles: Any = None, *, shaded: bool = False) -> tuple[float, float]:
        """Draw a matrix of numbers and return its lower right corner. `styles` maps (row, column) to a style."""
        a, styles = np.atleast_2d(a), styles or {}
        most = np.abs(a).max() if shaded else 1
        for (r, s), value in np.ndenumerate(a):
            shade = 0.4 * abs(value) / most if shaded else 0
            self.box(x + s * CELL, y + r * CELL, CELL, CELL, styles.get((r, s), ""), shade)
            self.text(x + (s + 0.5) * CELL, y + (r + 0.5) * CELL, number(value))
        return x + a.shape[1] * CELL, y + a.shape[0] * CELL

    def svg(self, caption: str) -> str:
        """Return the picture as the text of an SVG file."""
        width, height = self.right + 10, self.bottom + 10
        arrow = (
            '<marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<path d="M0,0 L8,4 L0,8" style="stroke:#7d8590;stroke-width:1.5"/></marker>'
        )
        size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>{escape(caption)}</title>'
        return "\n".join([head, f"<style>{STYLE}</style>", f"<defs>{arrow}</defs>", *self.parts, "</svg>", ""])


def number(value: Any) -> str:
    """Return a short text of a number, with the sign − of the pages. Numbers come rounded, so that files are stable."""
    return value if isinstance(value, str) else f"{round(float(value), 2) + 0:g}".replace("-", "−")


def figure(draw: Callable[[], Drawing]) -> Callable[[], Drawing]:
    """Add a function to FIGURES under its own name."""
    FIGURES[draw.__name__] = draw
    return draw


def caption(name: str) -> str:
    """Return the caption of a figure: the docstring of its function, in one line."""
    return " ".join((FIGURES[name].__doc__ or "").split())


def image(h: int, w: int | None = None) -> Array:
    """Return an image (1, 1, H, W) of small whole numbers that look like no pattern."""
    w = w or h
    return (np.arange(h * w) * 7 % 10).reshape(1, 1, h, w).astype(float)


def titled(drawing: Drawing, x: float, y: float, title: str, a: Any, styles: Any = None, **named: Any) -> float:
    """Draw an array under its title, and return its right end."""
    right, _ = drawing.array(x, y + LINE, a, styles, **named)
    drawing.text((x + right) / 2, y + LINE / 2, title)
    return max(right, (x + right) / 2 + len(title) * 3.3)


# -- windows ---------------------------------------------------------------------------------------------------------


def windows(
    operands: Sequence[tuple[str, Array]],
    result: tuple[str, Array],
    shown: Sequence[tuple[int, int]],
    kernel_size: tuple[int, int],
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    overhang: int = 0,
) -> Drawing:
    """Draw images and kernels, and a result. `shown` are the places of the result whose windows are outlined."""
    drawing, (title, x), (kh, kw) = Drawing(), operands[0], kernel_size
    h, w = x.shape[2:]
    padded = np.full((h + 2 * padding + overhang, w + 2 * padding + overhang), "" if overhang else "0", object)
    padded[padding : padding + h, padding : padding + w] = x[0, 0]
    inside = {(r + padding, s + padding) for r in range(h) for s in range(w)}
    styles = {place: "dashed" for place in np.ndindex(padded.shape) if place not in inside}
    if dilation > 1:  # an outline alone would not show which elements belong to the window
        for tone, (r, s) in zip(TONES, shown, strict=False):
            for i, j in np.ndindex(kh, kw):
                styles[r * stride + i * dilation, s * stride + j * dilation] = tone
    right, top = titled(drawing, 10, 10, title, padded, styles), 10 + LINE
    extent = [dilation * (k - 1) + 1 for k in kernel_size]
    for n, (tone, (r, s)) in enumerate(zip(TONES, shown, strict=False)):
        inset = 1.5 + 2 * n  # so that outlines of windows that overlap stay apart
        at = 10 + s * stride * CELL + inset, top + r * stride * CELL + inset
        drawing.box(*at, extent[1] * CELL - 2 * inset, extent[0] * CELL - 2 * inset, f"{tone} outline")
    for title, a in operands[1:]:
        right = titled(drawing, right + 45, 10, title, a[0, 0])
    drawing.path([(right + 12, top + CELL * 1.5), (right + 36, top + CELL * 1.5)], arrow=True)
    titled(drawing, right + 48, 10, result[0], result[1][0, 0], dict(zip(shown, TONES, strict=False)))
    return drawing


def convolution(size: int, shown: Sequence[tuple[int, int]], **arguments: int) -> Drawing:
    """Draw a convolution with a 3×3 kernel that adds a diagonal up."""
    x, kernel = image(size), np.eye(3)[None, None]
    y = conv2d(x, kernel, **arguments)
    titles = [f"x, {size}×{size}", "weight, 3×3"]
    named = list(zip(titles, (x, kernel), strict=True))
    return windows(named, (f"y, {y.shape[2]}×{y.shape[3]}", y), shown, (3, 3), **arguments)


@figure
def conv2d_windows() -> Drawing:
    """A 3×3 kernel on a 5×5 image: each window, here the first and the last, gives one element of the result."""
    return convolution(5, [(0, 0), (2, 2)])


@figure
def conv2d_stride() -> Drawing:
    """Stride 2: windows begin at every second row and column, so that a 5×5 image has four. None of its pixels is
    outside all windows."""
    return convolution(5, [(0, 0), (0, 1), (1, 0), (1, 1)], stride=2)


@figure
def conv2d_padding() -> Drawing:
    """Padding 1 with stride 2: a border of zeros lets windows begin outside the image, and a corner is the middle
    of one."""
    return convolution(5, [(0, 0), (1, 1), (2, 2)], stride=2, padding=1)


@figure
def conv2d_dilation() -> Drawing:
    """Dilation 2: the nine elements of a 3×3 kernel lie two apart and reach over 5×5 pixels. Two of the windows."""
    return convolution(6, [(0, 0), (1, 1)], dilation=2)


@figure
def conv2d_coverage() -> Drawing:
    """How many 3×3 windows each pixel of a 5×5 image is in: without padding a corner is in one, with padding 1 in
    four."""
    drawing, right, ones = Drawing(), 0.0, np.ones((1, 1, 3, 3))
    for padding in 0, 1:
        x = np.ones((1, 1, 5, 5))
        counts = conv2d_vjp(np.ones_like(conv2d(x, ones, padding=padding)), x, ones, padding=padding)[0]
        right = titled(drawing, right + 30, 10, f"padding {padding}", counts[0, 0], shaded=True)
    return drawing


@figure
def conv2d_edges() -> Drawing:
    """An edge detector: a kernel of −1 and 1 answers where brightness changes from left to right, wherever that is, and
    with 0 elsewhere."""
    x = np.zeros((1, 1, 5, 7))
    x[..., 1:4, 2:5] = 9
    kernel = np.array([[[[-1.0, 1.0]]]])
    drawing = Drawing()
    right = titled(drawing, 10, 10, "picture", x[0, 0], shaded=True)
    right = titled(drawing, right + 30, 10, "weight", kernel[0, 0])
    titled(drawing, right + 30, 10, "y", conv2d(x, kernel)[0, 0], shaded=True)
    return drawing


@figure
def conv2d_channels() -> Drawing:
    """Channels: each output channel has a kernel of its own, which sums over all channels of the image."""
    x = np.stack([image(3)[0, 0], 9 - image(3)[0, 0]])[None]
    weight = np.array([[[1.0, 0], [0, 1]], [[0, 0], [0, 0]], [[0, 0], [0, 0]], [[0, 1], [1, 0]]]).reshape(2, 2, 2, 2)
    y = conv2d(x, weight)
    drawing = Drawing()
    for c in 0, 1:
        titled(drawing, 10, 10 + 110 * c, f"x, channel {c}", x[0, c])
    for o, tone in enumerate(TONES[:2]):
        everywhere = {place: tone for place in np.ndindex(2, 2)}
        for c in 0, 1:
            titled(drawing, 150 + 150 * o, 10 + 110 * c, f"weight[{o}, {c}]", weight[o, c], everywhere)
        titled(drawing, 460, 10 + 110 * o, f"y, channel {o}", y[0, o], everywhere)
    return drawing


@figure
def conv_transpose2d_windows() -> Drawing:
    """Stride 2: every element of x adds the kernel, times itself, to its own 3×3 window of the result, and windows
    overlap."""
    return transposed(stride=2)


@figure
def conv_transpose2d_output_padding() -> Drawing:
    """Padding 1 takes a row and a column off each side, and output_padding 1 leaves one more at the far end: computed
    elements, not zeros."""
    return transposed(stride=2, padding=1, output_padding=1)


def transposed(stride: int, padding: int = 0, output_padding: int = 0) -> Drawing:
    """Draw a transposed convolution of 2×2 elements: the whole result, and what padding leaves of it."""
    x, kernel = np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), np.array([[[[1.0, 2, 1], [2, 3, 2], [1, 2, 1]]]])
    y = conv_transpose2d(x, kernel, stride=stride, padding=padding, output_padding=output_padding)
    whole = conv_transpose2d(x, kernel, stride=stride, output_padding=output_padding)[0, 0]
    drawing = Drawing()
    right = titled(drawing, 10, 10, "x", x[0, 0], dict(zip(np.ndindex(2, 2), TONES, strict=True)))
    right = titled(drawing, right + 30, 10, "weight", kernel[0, 0])
    left, top, (h, w) = right + 40, 10 + LINE, y.shape[2:]
    kept = {(r + padding, s + padding) for r, s in np.ndindex(h, w)}
    styles = {place: "" if place in kept else "dashed" for place in np.ndindex(whole.shape)}
    right = titled(drawing, left, 10, "all windows, added up" if padding else f"y, {h}×{w}", whole, styles)
    for n, (tone, (r, s)) in enumerate(zip(TONES, np.ndindex(2, 2), strict=True)):
        inset = 1.5 + 2 * n
        at = left + s * stride * CELL + inset, top + r * stride * CELL + inset
        drawing.box(*at, 3 * CELL - 2 * inset, 3 * CELL - 2 * inset, f"{tone} outline")
    if padding:
        far = {(r, s): "c" for r, s in np.ndindex(h, w) if h - r <= output_padding or w - s <= output_padding}
        titled(drawing, right + 30, 10, f"y, {h}×{w}", y[0, 0], far)
    return drawing


@figure
def max_pool2d_windows() -> Drawing:
    """Kernel 2, stride 2: each window gives its maximum."""
    x = image(4)
    y = max_pool2d(x, kernel_size=2)
    return windows([("x, 4×4", x)], ("y, 2×2", y), [(0, 0), (0, 1), (1, 0), (1, 1)], (2, 2), stride=2)


@figure
def max_pool2d_ceil() -> Drawing:
    """Kernel 2, stride 2 on 5×5 with ceil_mode: the last windows hang over the end, so that the last row and column
    count."""
    x = image(5)
    y = max_pool2d(x, kernel_size=2, ceil_mode=True)
    return windows([("x, 5×5", x)], ("y, 3×3", y), [(0, 0), (0, 2), (2, 0), (2, 2)], (2, 2), stride=2, overhang=1)


@figure
def avg_pool2d_windows() -> Drawing:
    """Kernel 3, stride 2, padding 1 on an image of nines: each sum is divided by 9, the zeros of the padding included,
    unless count_include_pad is false."""
    x, arguments = np.full((1, 1, 5, 5), 9.0), {"kernel_size": 3, "stride": 2, "padding": 1}
    y = avg_pool2d(x, **arguments)
    drawing = windows([("x, 5×5", x)], ("y, 3×3", y), [(0, 0), (1, 1), (1, 2)], (3, 3), stride=2, padding=1)
    without = avg_pool2d(x, count_include_pad=False, **arguments)
    titled(drawing, drawing.right + 50, 10, "count_include_pad=False", without[0, 0])
    return drawing


@figure
def global_avg_pool2d_means() -> Drawing:
    """Each channel of an image, whatever its size, becomes one number: its mean."""
    x = np.array([[[1.0, 2, 3], [4, 5, 6]], [[0, 0, 0], [0, 0, 6]], [[8, 8, 8], [8, 8, 8]]])[None]
    y, drawing = global_avg_pool2d(x), Drawing()
    for c, tone in enumerate(TONES[:3]):
        titled(drawing, 10, 10 + 80 * c, f"channel {c}", x[0, c], {place: tone for place in np.ndindex(2, 3)})
        drawing.path([(100, 56 + 80 * c), (150, 56 + 80 * c)], arrow=True)
        drawing.array(160, 43 + 80 * c, y[0, c], {(0, 0): tone})
    return drawing


# -- numbers and curves ----------------------------------------------------------------------------------------------


@figure
def batch_norm_distribution() -> Drawing:
    """The values of a dark and of a bright channel, before and after: each channel on its own comes to mean 0 and
    variance 1."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(-3, 0.6, 2000), rng.normal(2.5, 1.6, 2000)], axis=1)
    y, _, _ = batch_norm(x, np.zeros(2), np.ones(2), training=True)
    drawing = Drawing()
    for k, (title, values) in enumerate([("x", x), ("y", y)]):
        left, base = 20 + 290 * k, 130
        drawing.text(left + 125, 15, title)
        for tone, column in zip("ab", values.T, strict=True):
            counts, edges = np.histogram(column, np.linspace(-6, 6.5, 26))
            for count, edge in zip(counts, edges, strict=False):
                if count:
                    drawing.box(left + 20 * (edge + 6), base - count / 6, 10, count / 6, tone)
        drawing.path([(left, base), (left + 250, base)])
        for tick in -5, 0, 5:
            drawing.text(left + 20 * (tick + 6), base + 12, number(tick))
    return drawing


@figure
def batch_norm_axes() -> Drawing:
    """What is averaged together: channel c of all images of the batch, over all rows and columns. Each channel has one
    mean."""
    x = np.array([[[[1.0, 2], [3, 2]], [[20, 30], [20, 10]]], [[[4, 2], [1, 1]], [[30, 10], [20, 20]]]])
    mean, drawing = batch_norm(x, np.zeros(2), np.ones(2), training=True, momentum=1)[1], Drawing()
    for c, tone in enumerate(TONES[:2]):
        for n in 0, 1:
            everywhere = {place: tone for place in np.ndindex(2, 2)}
            titled(drawing, 30 + 120 * n, 10 + 85 * c, f"x[{n}, {c}]", x[n, c], everywhere)
        drawing.path([(215, 56 + 85 * c), (255, 56 + 85 * c)], arrow=True)
        titled(drawing, 275, 23 + 85 * c, f"mean[{c}]", mean[c : c + 1], {(0, 0): tone})
    return drawing


@figure
def einsum_indices() -> Drawing:
    """The matrix product "ij,jk->ik": a row of x and a column of w share the index j, are multiplied along it and
    summed. i and k stay."""
    x, w = np.array([[1.0, 2, 0], [0, 1, 3]]), np.array([[1.0, 0], [2, 1], [0, 4]])
    y, drawing = einsum("ij,jk->ik", x, w), Drawing()
    row, column = {(1, j): "a" for j in range(3)}, {(j, 0): "b" for j in range(3)}
    right = 0.0
    for title, a, styles in [("x[i, j]", x, row), ("w[j, k]", w, column), ("y[i, k]", y, {(1, 0): "c"})]:
        right = titled(drawing, right + 40, 10, title, a, styles)
    return drawing


@figure
def linear_features() -> Drawing:
    """y = weight · x + bias: each output feature is one row of the weight times x, plus its bias."""
    x, weight, bias = np.array([2.0, 1, 3]), np.array([[1.0, 0, 2], [3, 1, 0]]), np.array([1.0, -1])
    drawing = Drawing()
    row = {(0, j): "a" for j in range(3)}
    right = titled(drawing, 10, 10, "weight (O, I)", weight, row)
    right = titled(drawing, right + 20, 10, "x (I,)", x[:, None], {(j, 0): "b" for j in range(3)})
    right = titled(drawing, right + 30, 10, "bias (O,)", bias[:, None])
    drawing.path([(right + 5, 56), (right + 30, 56)], arrow=True)
    titled(drawing, right + 40, 10, "y (O,)", linear(x, weight, bias)[:, None], {(0, 0): "a"})
    return drawing


@figure
def relu_curve() -> Drawing:
    """relu (left) and its derivative (right): nothing below 0, everything above."""
    x, drawing = np.array([-2.0, -1, 0, 1, 2]), Drawing()
    slope = relu_vjp(np.ones(2), np.array([-1.0, 1.0]))
    for left, title in (20, "y"), (220, "slope"):
        drawing.path([(left, 90), (left + 150, 90)], arrow=True)
        drawing.path([(left + 75, 110), (left + 75, 20)], arrow=True)
        drawing.text(left + 150, 102, "x")
        drawing.text(left + 75, 10, title)
    drawing.path([(95 + 32 * a, 90 - 32 * b) for a, b in zip(x, relu(x), strict=True)], "a")
    for side, height in zip((-64, 0), slope, strict=True):
        drawing.path([(295 + side, 90 - 32 * height), (295 + side + 64, 90 - 32 * height)], "a")
    return drawing


@figure
def sgd_path() -> Drawing:
    """Twelve steps from the same start down a long valley, with momentum 0 (orange) and 0.6 (blue). Momentum gets
    further along the valley."""
    slopes, drawing = np.array([1.0, 12.0]), Drawing()
    for radius in 1, 2, 3, 4:
        part = f'<ellipse class="dashed" cx="250" cy="70" rx="{60 * radius}" ry="{60 * radius / 12**0.5:.1f}"/>'
        drawing.parts.append(part)
    drawing.right, drawing.bottom = 490.0, 140.0
    for tone, momentum in ("a", 0.0), ("b", 0.6):
        p, velocity, path = np.array([-3.6, 0.8]), None, []
        for _ in range(13):
            path.append((250 + 60 * p[0], 70 - 60 * p[1]))
            p, velocity = sgd_step(p, slopes * p, velocity, lr=0.07, momentum=momentum)
        drawing.path(path, tone)
        for x, y in path:
            drawing.circle(x, y, 3, tone)
    drawing.circle(250, 70, 2)
    return drawing


# -- networks --------------------------------------------------------------------------------------------------------


def chain(drawing: Drawing, x: float, y: float, boxes: Sequence[tuple[str, str]], between: Sequence[str]) -> float:
    """Draw boxes with arrows between them, a text over each arrow, and return the right end. A box has two lines."""
    for (first, second), words in zip(boxes, between, strict=True):
        width = 20 + 7 * max(len(first), len(second))
        gap = 16 + 7 * max(2, len(words))
        drawing.text(x + gap / 2, y + 12, words)
        drawing.path([(x + 3, y + 22), (x + gap - 3, y + 22)], arrow=True)
        drawing.box(x + gap, y, width, 44, "b")
        for line, row in zip((first, second), (13, 31), strict=True):
            drawing.text(x + gap + width / 2, y + row, line)
        x += gap + width
    return x


@figure
def mlp_layers() -> Drawing:
    """The layers of MLP(3, [4, 4], 2): every feature is joined to every feature of the next layer, so that no two are
    neighbours."""
    network, drawing = MLP(3, [4, 4], 2), Drawing()
    weights = [p.data for key, p in network.named_parameters() if key.endswith("weight")]
    sizes = [weights[0].shape[1], *(len(weight) for weight in weights)]
    columns = [[(60 + 130 * n, 85 + 36 * (k - (size - 1) / 2)) for k in range(size)] for n, size in enumerate(sizes)]
    for left, right in pairwise(columns):
        for start in left:
            for end in right:
                drawing.path([(start[0] + 9, start[1]), (end[0] - 9, end[1])], "dashed")
    for n, (nodes, size) in enumerate(zip(columns, sizes, strict=True)):
        for at in nodes:
            drawing.circle(*at, 9, TONES[1] if 0 < n < len(sizes) - 1 else TONES[0])
        name = "x" if n == 0 else "y" if n == len(sizes) - 1 else "relu"
        drawing.text(60 + 130 * n, 165, f"{name}, {size}")
        if n:
            drawing.text(60 + 130 * n - 65, 10, f"fc{n}")
    return drawing


@figure
def sequential_chain() -> Drawing:
    """Sequential(Linear(10, 20), ReLU(), Linear(20, 30)): each result goes to the next module. Names are positions."""
    network, drawing = Sequential(Linear(10, 20), ReLU(), Linear(20, 30)), Drawing()
    x, boxes, between = np.zeros((5, 10), np.float32), [], []
    for position, module in enumerate(network):
        between.append(f"{x.shape}" if position else f"x {x.shape}")
        boxes.append((f'"{position}"', type(module).__name__))
        x = module(x)
    right = chain(drawing, 0, 10, boxes, between)
    drawing.path([(right + 3, 32), (right + 90, 32)], arrow=True)
    drawing.text(right + 45, 22, f"y {x.shape}")
    return drawing


@figure
def fused_stages() -> Drawing:
    """The chain "conv2d | batch_norm | relu" on one image: each block takes the result of the block before it."""
    x, y = np.array([[[[-2.0, 1.0, 3.0]]]]), 10.0
    weight, one = np.array([[[[1.0, 1.0]]]]), np.ones(1)
    chain, operands = "conv2d | batch_norm | relu", (weight, None, one, one, 4 * one, -one)
    drawing = Drawing()
    right = titled(drawing, 10, y, "x", x[0, 0])
    for number, block in enumerate(chain.split(" | "), start=1):
        part, taken = " | ".join(chain.split(" | ")[:number]), {"conv2d": 2}.get(block, 6)
        result = fused_chain(part, x, *operands[:taken], **({"batch_norm_eps": 3.0} if number > 1 else {}))
        drawing.path([(right + 6, y + 33), (right + 90, y + 33)], arrow=True)
        drawing.text(right + 48, y + 20, block)
        right = titled(drawing, right + 96, y, "y" if block == "relu" else "", result[0, 0], {})
    return drawing


@figure
def module_tree() -> Drawing:
    """A module is a tree of modules, parameters and buffers. The names on the way from the root are an entry's key."""
    net = Module()
    net.scale, net.count, net.body = Parameter(np.ones(1)), Buffer(np.zeros(1)), Module()
    net.body.weight, net.body.norm = Parameter(np.ones(2)), Module()
    net.body.norm.weight, net.body.norm.running_mean = Parameter(np.ones(2)), Buffer(np.zeros(2))
    drawing, state = Drawing(), set(net.state_dict())
    tones = {Parameter: "a", Buffer: "b", Module: ""}

    def draw(entry: Any, key: str, x: float, y: float) -> float:
        name = key.rpartition(".")[2] or "net"
        drawing.box(x, y, 110, 24, tones[type(entry)])
        drawing.text(x + 55, y + 12, name)
        if not isinstance(entry, Module):
            drawing.text(x + 125, y + 12, f"{type(entry).__name__}, key {key}", "left")
            assert key in state
            return y + 34
        below = y + 34
        for child, part in vars(entry).items():
            drawing.path([(x + 20, y + 24), (x + 20, below + 12), (x + 40, below + 12)])
            below = draw(part, f"{key}.{child}".lstrip("."), x + 40, below)
        return below

    draw(net, "", 10, 10)
    return drawing


@figure
def basic_block_graph() -> Drawing:
    """ResidualBlock(64, 128, stride=2) on 56×56 pixels: the branch above, the shortcut with its projection below, and
    their sum."""
    block, drawing = ResidualBlock(64, 128, stride=2), Drawing()
    size, boxes, between = 56, [], []
    for name in "conv1", "bn1", "relu", "conv2", "bn2":
        layer = getattr(block, name, None)
        between.append(f"{size}×{size}" if name.startswith("conv") else "")
        if name.startswith("conv"):
            o, _, k, _ = layer.weight.data.shape
            size = layer(np.zeros((1, layer.weight.data.shape[1], size, size), np.float32)).shape[2]
            boxes.append((name, f"{k}×{k}, {o}, stride {layer.stride}"))
        else:
            boxes.append((name, ""))
    right = chain(drawing, 20, 10, boxes, between) + 40
    o, _, k, _ = block.downsample[0].weight.data.shape
    under = chain(drawing, 150, 90, [("downsample.0", f"{k}×{k}, {o}, stride 2"), ("downsample.1", "bn")], ["", ""])
    drawing.text(10, 32, "x")
    drawing.path([(30, 32), (30, 112), (150, 112)])
    drawing.path([(under, 112), (right, 112), (right, 45)], arrow=True)
    drawing.path([(right - 40, 32), (right - 12, 32)], arrow=True)
    drawing.circle(right, 32, 11)
    drawing.text(right, 32, "+")
    end = chain(drawing, right + 11, 10, [("relu", "")], [""])
    drawing.path([(end, 32), (end + 90, 32)], arrow=True)
    drawing.text(end + 45, 22, f"y {size}×{size}")
    return drawing


@figure
def resnet34_stages() -> Drawing:
    """The stages of ResNet-34 on an image of 224×224: while rows and columns become fewer, channels become more."""
    network, drawing = ResNet34(width=1).eval(), Drawing()  # one channel for each 64 that it has
    x, y = np.zeros((1, 3, 224, 224), np.float32), 10.0
    parts: list[tuple[str, str, Callable[[Array], Array]]] = [
        ("conv1, bn1, relu", "7×7, stride 2", lambda a: relu(network.bn1(network.conv1(a)))),
        ("max pool", "3×3, stride 2", lambda a: max_pool2d(a, **POOL)),
    ]
    for name in "layer1", "layer2", "layer3", "layer4":
        stage = getattr(network, name)
        parts.append((name, f"{len(stage)} blocks, stride {stage[0].conv1.stride}", stage))
    drawing.text(120, y, "x, 3 × 224×224")
    for name, what, part in parts:
        x = part(x)
        height, width = x.shape[2:]
        drawing.box(10, y + 14, 230, 24, "b")
        drawing.text(125, y + 26, f"{name}: {what}")
        drawing.text(265, y + 26, f"{64 * x.shape[1]} × {height}×{width}", "left")
        drawing.box(370, y + 17, height, 18, "a")  # as wide as the image
        y += 30
    pooled = global_avg_pool2d(x)
    for name, channels in ("mean over rows and columns", 64 * pooled.shape[1]), ("fc", len(network.fc.weight.data)):
        drawing.box(10, y + 14, 230, 24, "b")
        drawing.text(125, y + 26, name)
        drawing.text(265, y + 26, channels, "left")
        y += 30
    return drawing


def captioned(page: str) -> str:
    """Return the text of a page with the present caption below each figure."""

    def line(found: re.Match[str]) -> str:
        words = textwrap.fill(f"*{caption(found[1])}*", 120, break_on_hyphens=False)
        return f"![Figure](figures/{found[1]}.svg)\\\n{words}"

    return ON_A_PAGE.sub(line, page)


def main() -> None:
    """Write every figure to its file, and every caption to its page."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(caption(name)), "utf-8")
    for page in SPEC.glob("*.md"):
        page.write_text(captioned(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()

"""Pictures of wrong results as text: expected elements, actual elements, and where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np

LARGEST = 8  # rows and columns of a picture
Array = np.ndarray


def picture(failure: dict[str, Any]) -> str | None:
    """Of a failure in the report: the plane with the largest error, cut to what is round about it.

    None where the result has fewer than two dimensions or another shape than expected, or is too long to be there.
    """
    expected, actual, bound = (_array(failure[name]) for name in ("expected", "actual", "bound"))
    if expected is None or actual is None or bound is None or actual.ndim < 2 or actual.shape != expected.shape:
        return None
    wrong, error = _wrong(expected, actual, bound)
    if not wrong.any():
        return None
    *plane, row, column = (int(i) for i in np.unravel_index(np.argmax(np.where(wrong, error, -1.0)), error.shape))
    rows, columns = (_around(i, n) for i, n in zip((row, column), error.shape[-2:], strict=True))
    cut: Any = (*plane, rows, columns)
    parts = {
        "expected": _column(expected[cut]),
        "actual": _column(actual[cut]),
        "wrong": [" ".join("×" if w else "·" for w in line) for line in wrong[cut]],
    }
    where = _where(plane, rows, columns, error.shape)
    return "\n".join([*([where] if where else []), *_side_by_side(parts)])


def _array(values: Any) -> Array | None:
    try:
        return None if values is None else np.asarray(values, np.float64)
    except ValueError:  # too long to be there: told by its shape
        return None


def _wrong(expected: Array, actual: Array, bound: Array) -> tuple[Array, Array]:
    """Which elements are wrong, and how far off they are; infinitely, where one is not finite and the other is."""
    with np.errstate(invalid="ignore"):
        error = np.where((expected == actual) | (np.isnan(expected) & np.isnan(actual)), 0.0, np.abs(expected - actual))
    error = np.where(np.isnan(error), np.inf, error)
    return ~(error <= bound), error


def _around(i: int, size: int) -> slice:
    start = max(0, min(i - LARGEST // 2, size - LARGEST))
    return slice(start, min(size, start + LARGEST))


def _where(plane: list[int], rows: slice, columns: slice, shape: tuple[int, ...]) -> str:
    parts = [f"[{', '.join(map(str, plane))}]"] if plane else []
    for name, cut, size in (("rows", rows, shape[-2]), ("columns", columns, shape[-1])):
        if cut.stop - cut.start < size:
            parts.append(f"{name} {cut.start} to {cut.stop - 1} of {size}")
    return ", ".join(parts)


def _column(values: Array) -> list[str]:
    written = [[f"{v:.6g}" for v in line] for line in values]
    width = max(len(v) for line in written for v in line)
    return [" ".join(v.rjust(width) for v in line) for line in written]


def _side_by_side(parts: dict[str, list[str]]) -> list[str]:
    widths = {name: max(len(name), len(lines[0])) for name, lines in parts.items()}
    header = "   ".join(name.ljust(widths[name]) for name in parts)
    rows = zip(*parts.values(), strict=True)
    return [
        header.rstrip(),
        *("   ".join(p.ljust(w) for p, w in zip(row, widths.values(), strict=True)).rstrip() for row in rows),
    ]

"""The picture of a failure: the plane that is most wrong, cut, side by side."""

from __future__ import annotations

import numpy as np
from nnspec.conformance.report.picture import picture


def failure(expected, actual, bound=0.0):
    return {"expected": expected.tolist(), "actual": actual.tolist(), "bound": bound}


def test_the_plane_with_the_largest_error_is_shown():
    right = np.arange(12.0).reshape(1, 2, 2, 3)
    wrong = right.copy()
    wrong[0, 0, 0, 0] += 1
    wrong[0, 1, 1, 2] = 25.5
    assert picture(failure(right, wrong)) == "\n".join(
        [
            "[0, 1]",
            "expected   actual           wrong",
            " 6  7  8      6    7    8   · · ·",
            " 9 10 11      9   10 25.5   · · ×",
        ]
    )


def test_bounds_say_what_is_wrong():
    right = np.ones((1, 3))
    wrong = right + np.array([[1e-3, 2e-3, 0]])
    assert picture(failure(right, wrong, [[1e-3 + 1e-9, 1e-3, 0.0]])).splitlines()[-1].endswith("· × ·")
    assert picture(failure(right, wrong, [[1.0, 1.0, 1.0]])) is None


def test_large_planes_are_cut_around_the_error():
    right = np.zeros((20, 30))
    wrong = right.copy()
    wrong[19, 11] = np.nan
    shown = picture(failure(right, wrong)).splitlines()
    assert shown[0] == "rows 12 to 19 of 20, columns 7 to 14 of 30"
    assert len(shown) == 10
    assert "nan" in shown[-1]
    assert "".join(shown).count("×") == 1


def test_infinities_read_from_json_are_numbers():
    right = {"expected": [["inf", 1.0]], "actual": [["inf", "-inf"]], "bound": 0.0}
    assert picture(right).splitlines()[-1].endswith("· ×")


def test_what_has_no_plane_has_no_picture():
    assert picture(failure(np.ones(3), np.zeros(3))) is None
    assert picture(failure(np.ones((2, 3)), np.zeros((3, 2)))) is None
    assert picture({"expected": None, "actual": None, "bound": None}) is None
    assert picture({"expected": [[1.0]], "actual": "float32 array of shape (99, 99)", "bound": 0.0}) is None

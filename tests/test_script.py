"""Scripts of failures: when there is one, and what it needs."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec.adapters.for_reference import subject as reference
from nnspec.conformance.case import Case
from nnspec.conformance.report.script import LARGEST, reproduce_crash


@pytest.mark.parametrize(("size", "there"), [(LARGEST, True), (LARGEST + 1, False)])
def test_arrays_that_are_too_large_are_not_written_out(size, there):
    case = Case("relu", {"x": np.ones(size, np.float32)}, {})
    script = reproduce_crash(reference(), "relu.output.size", "function", "float32", case, "ended the process")
    assert bool(script) is there

"""Every fault is killed by the check that bears its requirement."""

from __future__ import annotations

import pytest
from nnspec.adapters.signatures import SIGNATURES
from nnspec.conformance.power import faults_of, measure_all


@pytest.mark.parametrize("stem", sorted(SIGNATURES))
def test_every_fault_is_killed_by_its_own_check(stem):
    verdicts = list(measure_all(faults_of([stem]), "quick", [0]))
    assert verdicts, f"{stem} has no fault"
    assert [f"{v.key}: {v.why}" for v in verdicts if not v.killed] == []

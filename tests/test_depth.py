"""How the depth of an MLP is judged: a class may take one hidden size alone, but not some depths and others not."""

from __future__ import annotations

import pytest
from nnspec.adapters import load
from nnspec.conformance.checks import load_checks
from nnspec.conformance.power import judge
from nnspec.conformance.requirements import CHECKS
from nnspec.reference.mlp import MLP as Stack

ONE_SIZE = """
    import numpy as np
    from nnspec.reference.mlp import MLP as Stack

    class MLP(Stack):
        def __init__(self, in_features, hidden_features, out_features, dtype=np.float32):
            super().__init__(in_features, int(hidden_features), out_features, dtype=dtype)
"""


def test_a_class_that_takes_one_hidden_size_alone_lacks_depth_and_conforms(desk):
    done = desk.check(ONE_SIZE, "--block", "mlp", "-n", 0)
    assert done.code == 0, done.out
    assert "MLP takes one hidden size alone" in done.out
    deep = {"any", "none", "activated", "bias", "distinct", "names", "gradient"}
    lacking = {*(f"mlp.depth.{name}" for name in deep), "mlp.refuses.hidden-sizes", "mlp.call.neighbours"}
    assert done.verdicts("unsupported") == lacking


def verdict(hidden_sizes, requirement):
    """Judge an MLP that puts its hidden sizes through a function first."""

    class MLP(Stack):
        def __init__(self, in_features, hidden_features, out_features, **named):
            super().__init__(in_features, hidden_sizes(hidden_features), out_features, **named)

    load_checks()
    outcome = judge(load({"MLP": MLP}), CHECKS[requirement], "quick", 0)
    return outcome.verdict, outcome.reason


def two_or_more(hidden):
    if not isinstance(hidden, int) and len(hidden) < 2:
        raise ValueError(f"{hidden}: expected several sizes")
    return hidden


def by_mistake(hidden):
    return hidden if isinstance(hidden, int) else undefined  # noqa: F821


@pytest.mark.parametrize(
    ("hidden_sizes", "requirement", "says"),
    [
        (two_or_more, "mlp.depth.none", "raised ValueError: []: expected several sizes"),
        (two_or_more, "mlp.depth.distinct", "expected several sizes"),
        (by_mistake, "mlp.depth.any", "raised NameError"),
    ],
)
def test_a_class_that_takes_sequences_takes_every_sequence(hidden_sizes, requirement, says):
    word, reason = verdict(hidden_sizes, requirement)
    assert word == "fail"
    assert says in reason


def test_a_class_that_refuses_some_sequences_is_judged_at_the_others():
    assert verdict(two_or_more, "mlp.depth.any")[0] == "pass"

"""What a file declares about itself: DTYPES, ACCURACY, GRADIENTS, UNSUPPORTED and DIFFERS."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from nnspec.adapters import SubjectError
from nnspec.adapters.declarations import declared
from nnspec.adapters.names import DTYPES
from nnspec.conformance import check

RELU = """
    import numpy as np

    def relu(x):
        return np.maximum(x, 0)
"""


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize(
    ("declaration", "says"),
    [
        ("ACCURACY = 0.95", "expected some of B2, T, L, C, N"),
        ("ACCURACY = ('X',)", "expected some of B2, T, L, C, N, not 'X'"),
        ("DTYPES = None", f"expected some of {', '.join(DTYPES)}"),
        ("DTYPES = ()", "expected at least one of float32"),
        ("DTYPES = {'rellu': ('float32',)}", "'rellu' is no block, did you mean 'relu'"),
        ("GRADIENTS = 'no'", "expected True or False"),
        ("UNSUPPORTED = ['relu.nan.propagates']", "expected a mapping from requirements to reasons"),
        ("UNSUPPORTED = {'relu.nan.propagates': ''}", "expected the reason, in words"),
        ("UNSUPPORTED = {'relu.nan.propagate': 'no'}", "did you mean 'relu.nan.propagates'"),
        ("UNSUPPORTED = {3: 'no'}", "3 is no requirement"),
        ("DIFFERS = {'relu.negative.zero': 'leaky'}", "relu.negative.zero is no convention"),
        ("DIFFERS = {'batch_norm.default.momentum': 'x'}", "did you mean 'batch_norm.defaults.momentum'"),
        ("DIFFERS = {'batch_norm.defaults.momentum': 0.01}", "expected a reason, a reason and a link"),
        (
            "DIFFERS = {'batch_norm.defaults.momentum': ('n', 'why')}",
            "the page names no alternative 'n'; it names: '0.01'",
        ),
        ("DIFFERS = 'relu'", "expected a mapping"),
    ],
)
def test_declaration_that_is_not_allowed_is_misuse(declaration, says):
    names = {}
    exec(declaration, names)
    with pytest.raises(SubjectError, match=r"DTYPES|ACCURACY|GRADIENTS|UNSUPPORTED|DIFFERS") as refused:
        check({"relu": relu, **names}, dtype="float32")
    assert says in str(refused.value)


def test_wrong_declaration_exits_2_and_names_the_file(desk):
    done = desk.check("ACCURACY = 0.95" + RELU.replace("\n    ", "\n"), "-n", 0)
    assert done.code == 2
    assert done.err == "nnspec: layers.py: ACCURACY = 0.95: expected some of B2, T, L, C, N, such as ('B2',)\n"


def test_values_for_all_blocks_and_for_one():
    names = {"DTYPES": {"relu": "float32"}, "ACCURACY": ("T", "L"), "GRADIENTS": {"conv2d": False}}
    names |= {"FLUSHES": True, "STRIDED": {"relu": False}, "COMPILES_PER_SHAPE": {"conv2d": True}}
    fields = declared(names, "a test")
    assert fields["accuracy"] == ("T", "L")
    assert fields["of_block"] == {
        "relu": {"dtypes": ("float32",), "further_dtypes": (), "strided": False},
        "conv2d": {"differentiable": False, "compiles_per_shape": True},
    }
    assert fields["flushes"] is True


@pytest.mark.parametrize(("value", "tiles"), [((64, 96), (64, 96)), (128, (128,)), ([16], (16,))])
def test_tiles_are_one_size_or_several(value, tiles):
    assert declared({"TILES": value}, "a test")["tiles"] == tiles


@pytest.mark.parametrize("value", ["64", (1,), (64.0,), (8192,), 0])
def test_tiles_that_are_no_sizes_are_refused(value):
    with pytest.raises(SubjectError, match="TILES"):
        declared({"TILES": value}, "a test")


def test_reason_may_have_a_link():
    link = "https://example.org/1"
    names = {"DIFFERS": {"batch_norm.defaults.momentum": ("as in Keras", link)}}
    assert declared(names, "a test")["differs"] == {"batch_norm.defaults.momentum": ("as in Keras", link, "")}


def test_dtype_of_one_block():
    report = check({"relu": relu, "DTYPES": {"relu": ("float64",)}}, block="relu")
    assert {r["dtype"] for r in report["results"]} == {"float64"}


def test_unsupported_requirements_are_not_run():
    unsupported = {"relu.nan.*": "not promised", "relu.gradient.*": "forward alone"}
    report = check({"relu": lambda x: x * (x > 0), "UNSUPPORTED": unsupported}, dtype="float32")
    reasons = {r["requirement"]: r["reason"] for r in report["results"] if r["verdict"] == "unsupported"}
    assert reasons["relu.nan.propagates"] == "not promised"
    assert {reason for name, reason in reasons.items() if ".gradient." in name} == {"forward alone"}
    assert next(r for r in report["results"] if r["requirement"] == "relu.nan.propagates")["cases"] == 0


def test_no_gradients_by_declaration():
    torch = pytest.importorskip("torch")
    report = check({"relu": torch.relu, "GRADIENTS": {"relu": False}}, framework="torch", dtype="float32")
    verdicts = {r["requirement"]: r["verdict"] for r in report["results"]}
    gradients = {verdict for name, verdict in verdicts.items() if ".gradient." in name}
    assert gradients == {"unsupported"}
    assert report["conforms"]


def test_an_object_declares_too():
    thing = SimpleNamespace(relu=relu, UNSUPPORTED={"relu.nan.propagates": "not promised"})
    report = check(thing, dtype="float32")
    assert report["musts"]["unsupported"] > 0
    assert report["conforms"]

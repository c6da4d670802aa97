"""The table of verdicts, and the rule that what was not judged does not conform."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nnspec.conformance import check
from nnspec.conformance.report.report import assemble
from nnspec.conformance.report.unjudged import unjudged
from nnspec.conformance.report.verdicts import EXIT_CODES, VERDICTS, table
from nnspec.conformance.requirements import requirements

TOP = Path(__file__).parent.parent
DECLINING = """
    import numpy as np
    from nnspec.adapters import Unsupported

    def linear(x, weight, bias=None):
        if bias is not None:
            raise Unsupported("no bias yet")
        if weight.ndim != 2:
            raise ValueError("weight: expected two dimensions")
        return x @ weight.T
"""
NAN = """
    import numpy as np

    def relu(x):
        return np.where(x > 0, x, 0).astype(x.dtype)

    DIFFERS = {"relu.nan.propagates": ("NaN becomes 0", "https://example.org/1")}
"""


def test_page_has_the_table_that_the_code_uses():
    assert table().startswith("| verdict | meaning |")
    assert table() in (TOP / "spec" / "conventions.md").read_text("utf-8")


def test_schema_knows_the_verdicts():
    text = (TOP / "conformance" / "report" / "report.schema.json").read_text("utf-8")
    assert all(f'"{verdict}"' in text for verdict in VERDICTS)
    assert sorted(EXIT_CODES) == [0, 1, 2, 3, 130]


def test_declined_musts_are_not_run_and_do_not_conform(desk):
    done = desk.check(DECLINING, "-n", 0, "--dtype", "float32")
    musts = done.report["musts"]
    assert done.code == 1
    assert "linear.output.size" in musts["not judged"]
    assert not done.verdicts("fail")
    lost = len(musts["not judged"])
    first = done.out.splitlines()[0]
    counts = f"({musts['unsupported']} unsupported, {lost} not judged)"
    assert first == f"nnspec check layers.py: judged {musts['judged']} of {musts['all']} musts {counts}"
    assert 'declare it beside your layers: UNSUPPORTED = {"linear.' in done.out
    assert '"no bias yet"' in done.out
    assert done.out.splitlines()[-1].startswith(f"layers.py cannot be said to conform: {lost} must")


def test_declared_musts_need_not_be_judged(desk):
    first = desk.check(DECLINING, "-n", 0, "--dtype", "float32")
    declaration = {name: "no bias yet" for name in first.report["musts"]["not judged"]}
    done = desk.check(DECLINING + f"\n    UNSUPPORTED = {declaration!r}\n", "-n", 0, "--dtype", "float32")
    assert done.code == 0
    assert not done.report["musts"]["not judged"]
    assert done.report["musts"]["judged"] == first.report["musts"]["judged"]
    assert done.out.splitlines()[-1].startswith("layers.py conforms")


def test_pytest_does_not_pass_what_was_not_judged(desk):
    desk.write("layers.py", DECLINING)
    options = ("--nnspec-subject", "layers.py", "--nnspec-block", "linear", "--nnspec-dtype", "float32")
    done = desk.run("-m", "pytest", "--pyargs", "nnspec.conformance", *options, "-p", "no:cacheprovider")
    assert done.code == 1, done.out
    assert "judged" in done.out


def test_dtype_in_which_nothing_was_judged_is_named(desk):
    text = """
    import numpy as np
    from nnspec.adapters import Unsupported

    def relu(x):
        if x.dtype == np.float64:
            raise Unsupported("float32 alone")
        return np.maximum(x, 0)
    """
    done = desk.check(text, "-n", 0)
    assert done.code == 1
    assert "declare it beside your layers: DTYPES = ('float32',)" in done.out


def test_convention_that_a_file_declares_differs_by_design(desk):
    done = desk.check(NAN, "-n", 0, "--dtype", "float32")
    assert done.code == 0, done.out
    assert done.verdicts("differs by design") == {"relu.nan.propagates"}
    assert "differs by design (1): NaN becomes 0 https://example.org/1" in done.out


def test_pytest_expects_a_declared_difference_to_fail(desk):
    desk.write("layers.py", NAN)
    options = ("--nnspec-subject", "layers.py", "--nnspec-block", "relu", "-k", "nan_propagates")
    done = desk.run("-m", "pytest", "--pyargs", "nnspec.conformance", *options, "-p", "no:cacheprovider")
    assert done.code == 0, done.out
    assert "xfailed" in done.out


def test_untrue_difference_fails(desk):
    done = desk.check(NAN.replace("np.where(x > 0, x, 0)", "np.maximum(x, 0)"), "-n", 0, "--dtype", "float32")
    assert done.code == 1
    assert done.verdicts("fail") == {"relu.nan.propagates"}
    assert "the check passes, though DIFFERS declares that it differs" in done.out


class WithBias:
    """A linear layer that always has a bias."""

    def __init__(self, in_features, out_features):
        self.weight, self.bias = np.ones((out_features, in_features)), np.zeros(out_features)

    def __call__(self, x):
        return (x @ self.weight.T + self.bias).astype(x.dtype)


class IgnoringBias(WithBias):
    """One that has the argument, and ignores it."""

    def __init__(self, in_features, out_features, bias=True):
        super().__init__(in_features, out_features)


@pytest.mark.parametrize(("layer", "excused"), [(WithBias, True), (IgnoringBias, False)])
def test_only_an_argument_that_is_not_there_excuses(layer, excused):
    report = check({"Linear": layer}, block="linear", dtype="float64")
    reasons = {r["verdict"] for r in report["results"] if f"{layer.__name__} always has a bias" in r["reason"]}
    assert reasons == (set() if excused else {"not run"})  # the first is judged with a bias alone
    assert bool(report["musts"]["not judged"]) != excused


def entry(requirement: str, verdict: str, form: str = "function", differs: str | None = None) -> dict:
    page = requirements()[requirement]
    about = {"requirement": requirement, "block": page.stem, "form": form, "dtype": "float32"}
    about |= {"level": page.level, "kind": page.kind, "needs": ["vjp"] if ".gradient." in requirement else []}
    return {
        **about,
        "verdict": verdict,
        "reason": "why",
        "cases": 1,
        "differs": differs,
        "alternative": None,
        "failure": None,
    }


def test_identifier_counts_once_and_in_all_forms():
    one, other, third = [r.identifier for r in requirements().values() if r.level == "must"][:3]
    records = [entry(one, "pass"), entry(one, "pass", "class"), entry(other, "pass"), entry(other, "not run", "class")]
    records += [entry(third, "unsupported")]
    musts = assemble({}, records)["musts"]
    assert musts == {"all": 3, "judged": 1, "unsupported": 1, "out of domain": 0, "not judged": [other]}


def declining(requirement: str, reason: str = "not yet") -> dict:
    return {**entry(requirement, "not run"), "unsupported": {reason: 20}}


def test_one_line_declares_what_was_not_judged():
    musts = [r.identifier for r in requirements().values() if r.level == "must" and r.stem == "linear"]
    judged = [entry(name, "pass") for name in musts if name.split(".")[1] not in ("gradient", "batch")]
    gradients = [name for name in musts if ".gradient." in name]
    batch = [name for name in musts if ".batch." in name]
    assert len(batch) > 1
    [group] = unjudged([*judged, *map(declining, gradients)])
    assert (group.requirements, group.declaration) == (gradients, "GRADIENTS = False")
    [group] = unjudged([*judged, *map(declining, batch)])
    assert (group.requirements, group.declaration) == (batch, 'UNSUPPORTED = {"linear.batch.*": "not yet"}')
    [group] = unjudged([*judged, declining(batch[0]), entry(batch[1], "pass")])
    assert group.declaration == f'UNSUPPORTED = {{"{batch[0]}": "not yet"}}'
    [group] = unjudged([{**entry(batch[0], "blocked"), "unsupported": {}}])
    assert group.declaration == ""


@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_verdict_decides_as_the_table_says(verdict):
    one, other = [r.identifier for r in requirements().values() if r.level == "must"][:2]
    expected = not (VERDICTS[verdict].bad or VERDICTS[verdict].open)
    assert assemble({}, [entry(one, "pass"), entry(other, verdict)])["conforms"] == expected


def test_difference_is_true_if_one_form_shows_it():
    name = next(r.identifier for r in requirements().values() if r.convention)
    both = [entry(name, "differs by design", differs="why"), entry(name, "pass", "class", differs="why")]
    assert assemble({}, both)["conforms"]
    assert not assemble({}, both[1:])["conforms"]

"""`nnspec matrix`: several subjects, one table, one merged report."""

from __future__ import annotations

import json
import re
from importlib import resources

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

RIGHT = """
    import numpy as np

    def relu(x):
        return np.maximum(x, 0)
"""
WRONG = """
    import numpy as np

    def relu(x):
        return np.abs(x)
"""


def report(desk, path: str = "nnspec-report/report.json"):
    """The merged report, held against its schema."""
    schemas = [
        json.loads(resources.files("nnspec.conformance.report").joinpath(f"{name}.schema.json").read_text("utf-8"))
        for name in ("matrix", "report")
    ]
    registry = Registry().with_resources((s["$id"], Resource.from_contents(s)) for s in schemas)
    merged = json.loads((desk.folder / path).read_text("utf-8"))
    errors = [error.message[:200] for error in Draft202012Validator(schemas[0], registry=registry).iter_errors(merged)]
    assert not errors, errors
    return merged


def test_subjects_stand_side_by_side(desk):
    desk.write("right.py", RIGHT)
    desk.write("wrong.py", WRONG)
    done = desk.nnspec("matrix", "right.py", "wrong.py", "--dtype", "float32", "-n", 0)
    assert done.code == 1
    merged = report(desk)
    assert [one["subject"] for one in merged["subjects"]] == ["right.py", "wrong.py"]
    assert [one["conforms"] for one in merged["subjects"]] == [True, False]
    assert not merged["conforms"]
    page = (desk.folder / "nnspec-report" / "matrix.md").read_text("utf-8")
    assert page in done.out
    header, _, relu, *_ = page.partition("| block")[2].splitlines()
    assert [cell.strip() for cell in header.strip("| ").split("|")] == ["right.py", "wrong.py"]
    assert "**" not in relu.split("|")[2]
    assert "fail**" in relu.split("|")[3]
    assert "wrong.py: `relu.negative.zero` (function, float32)" in page
    assert (desk.folder / "nnspec-report" / "wrong_py" / "relu_negative_zero_function_float32.py").exists()


def test_all_conform(desk):
    desk.write("right.py", RIGHT)
    done = desk.nnspec("matrix", "right.py", "--dtype", "float32", "-n", 0, "--out", "out", "--json", "all.json")
    assert done.code == 0
    assert report(desk, "all.json")["conforms"]
    assert "## Failed" not in done.out


def test_waivers_stand_under_the_table_with_their_reasons(desk):
    desk.write("wrong.py", WRONG)
    desk.nnspec("check", "wrong.py", "-n", 0)
    results = json.loads((desk.folder / "nnspec-report" / "report.json").read_text("utf-8"))["results"]
    broken = {r["requirement"] for r in results if r["verdict"] == "fail" and r["level"] == "must"}
    tables = [f'[[waiver]]\nsubject = "w*"\nrequirement = "{r}"\nreason = "we like |x|"\n' for r in sorted(broken)]
    desk.write("waivers.toml", "".join(tables))
    done = desk.nnspec("matrix", "wrong.py", "-n", 0, "--waivers", "waivers.toml")
    assert done.code == 0
    assert "- wrong.py: `relu.negative.zero`: we like \\|x\\|" in done.out


def test_what_cannot_be_judged_is_said_and_costs_nothing_else(desk):
    desk.write("right.py", RIGHT)
    desk.write("empty.py", "answer = 42")
    done = desk.nnspec("matrix", "empty.py", "right.py", "--dtype", "float32", "-n", 0)
    assert done.code == 2
    merged = report(desk)
    assert list(merged["failures"]) == ["empty.py"]
    assert "## Musts that were not judged" not in done.out
    assert [one["conforms"] for one in merged["subjects"]] == [True]
    assert not merged["conforms"]
    assert "## Not judged" in done.out


def test_musts_that_were_not_judged_are_told(desk):
    declining = """
    from nnspec.adapters import Unsupported

    def relu(x):
        raise Unsupported("not done yet")
    """
    desk.write("declining.py", declining)
    done = desk.nnspec("matrix", "declining.py", "--dtype", "float32", "-n", 0)
    assert done.code == 1
    assert re.search(r"\| 0 of \d+ ", done.out)
    assert "- declining.py: `relu.positive.kept`, " in done.out.partition("## Musts that were not judged")[2]


def test_a_subject_that_is_no_file_is_misuse(desk):
    done = desk.nnspec("matrix", "reference", "nowhere.py")
    assert done.code == 2
    assert "nowhere.py: there is no such file" in done.err


def test_what_a_subject_says_has_no_meaning_on_the_page(desk):
    text = """
    def relu(x):
        raise ValueError("<script>alert(1)</script> | *twice*")
    """
    desk.write("hostile.py", text)
    done = desk.nnspec("matrix", "hostile.py", "--dtype", "float32", "-n", 0)
    assert done.code == 1
    assert "<script>" not in done.out
    assert r"&lt;script&gt;alert(1)&lt;/script&gt; \| \*twice\*" in done.out

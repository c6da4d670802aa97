"""What the terminal shows of a run beside its findings: progress, counts, classes of accuracy, and what went wrong."""

from __future__ import annotations

import io

import numpy as np
import pytest
from nnspec.adapters import load
from nnspec.conformance import check
from nnspec.conformance.report import matrix, terminal
from nnspec.conformance.report.report import musts
from nnspec.conformance.session import run
from nnspec.conformance.system.log import Log


def relu(x):
    return np.maximum(x, 0)


@pytest.fixture(scope="module")
def report():
    return check(relu, dtype="float32")


def shown(report, **changes):
    """The lines that the terminal shows of a report, after some of its fields were changed."""
    page = terminal.rendered(lambda console: terminal.show(report | changes, "report.json", console), io.StringIO())
    return page.splitlines()


def changed(report, number, **fields):
    """The musts that passed, the first few of them with other fields."""
    passed = [entry for entry in report["results"] if entry["verdict"] == "pass" and entry["level"] == "must"]
    return [*({**entry, **fields} for entry in passed[:number]), *passed[number:]]


def unmet(report, number):
    """The results, of which the first few are recommendations that are not met."""
    failure = {"message": "wrong", "script": None, "misshapen": False, "boundaries": [], "causes": []}
    return changed(report, number, level="should", verdict="fail", failure=failure)


def test_conclusion_names_what_was_excused(report):
    assert shown(report)[-1] == f"relu conforms ({report['totals']['unsupported']} unsupported)"


def test_recommendations_that_are_not_met_are_counted_apart(report):
    results = unmet(report, 3)
    [counts] = [line for line in shown(report, results=results) if line.endswith(" s") and " cases in " in line]
    assert counts.startswith(f"{len(results) - 3} pass, 3 should not met; ")


def test_errors_that_are_alike_are_shown_once(report):
    lines = shown(report, errors=["first\nKeyError: 'a'\n", "second\nKeyError: 'a'", "third\nKeyError: 'b'"])
    first = lines.index("nnspec itself failed: first")
    assert lines[first + 1 : first + 5] == [
        "KeyError: 'a'",
        "  and in the same way in 1 more check",
        "nnspec itself failed: third",
        "KeyError: 'b'",
    ]


def test_classes_of_accuracy_are_counted_and_weak_ones_named(report):
    results = changed(report, len(report["results"]), accuracy="A", declared=["B2"])
    results = [{**entry, "accuracy": "B2" if n < 9 else "A"} for n, entry in enumerate(results)]
    lines = shown(report, results=results)
    [counts] = [line for line in lines if line.startswith("accuracy: ")]
    assert counts.startswith(f"accuracy: {len(results) - 9} A (")
    assert "; 9 B2 (" in counts
    names = [f"{entry['requirement']} (float32)" for entry in results[:8]]
    assert f"class B2: {', '.join(names)} and 1 more" in lines
    assert "declared by relu: class B2" in lines


def test_requirements_that_were_not_judged_are_named_up_to_four(report):
    results = changed(report, 6, verdict="not run", reason="why")
    lines = shown(report, results=results, conforms=False, musts=musts(results))
    first = lines.index("  not run (6): why")
    assert lines[first + 1] == f"    {', '.join(entry['requirement'] for entry in results[:4])} and 2 more"
    assert lines[-1] == "relu cannot be said to conform: 6 musts were not judged"


def test_progress_is_shown_on_a_terminal_and_erased(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with terminal.Progress("layers.py") as progress:
        progress.advance(1, 4, None)
        progress.advance(2, 4, {"block": "relu", "verdict": "crash"})
    out, err = capsys.readouterr()
    assert out == ""
    for text in ("relu, ", "1 failed", "2/4"):
        assert text in err
    show_cursor, erase_line = "\x1b[?25h", "\x1b[2K"
    assert show_cursor in err
    assert err.endswith(erase_line)


def test_progress_counts_up_to_what_was_planned():
    told = []
    options = {"subject": "relu", "block": ["relu"], "profile": "quick", "dtype": ["float32"], "seed": 0}
    _, session = run(
        options | {"device": None},
        0,
        object=load({"relu": relu}),
        log=Log(),
        write=False,
        progress=lambda *state: told.append(state),
    )
    planned = session.report["planned"]
    assert [(done, of) for done, of, _ in told] == [(n, planned) for n in range(1, planned + 1)]
    assert [entry["requirement"] for *_, entry in told if entry] == [
        entry["requirement"] for entry in session.log.records.values()
    ]


def test_matrix_does_not_count_recommendations_as_failures(report):
    page = matrix.markdown(matrix.merge([{**report, "results": unmet(report, 2)}], {}))
    assert ", 2 should" in page
    assert "fail" not in page.partition("## ")[0].partition("| block")[2].partition("Counts are")[0]
    assert "## Failed" not in page


def test_matrix_explains_its_cells_and_says_how_each_subject_was_run(report):
    page = matrix.markdown(matrix.merge([report], {}))
    assert "The letter is the weakest class" in page
    assert "\n- B: " in page
    assert f"\n- relu: profile quick, sizes small, seed 0, {report['totals']['cases']} cases in " in page
    assert f"numpy {np.__version__}" in page

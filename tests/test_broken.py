"""How broken requirements are shown: consequences below their cause, and missing refusals at the end."""

from __future__ import annotations

LINEAR = """
    import numpy as np

    def linear(x, weight, bias=None):
        if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
            raise ValueError("sizes")
        {refuse}
        y = x @ weight.T
        return y if bias is None else y {sign} bias
"""
REFUSE = "assert bias is None or (bias.ndim == 1 and len(bias) == len(weight))"
ONE = ("--block", "linear", "--dtype", "float32", "-n", 0)


def test_file_that_is_right_except_for_refusals_is_told_so_at_once(desk):
    done = desk.check(LINEAR.format(refuse="pass", sign="+"), *ONE)
    assert done.code == 1, done.out + done.err
    assert done.verdicts("fail") >= {"linear.refuses.bias"}
    assert any("right except for refusals: 1 refusal missing" in line for line in done.out.splitlines()[:3]), done.out
    [first] = [n for n, line in enumerate(done.findings) if line.startswith("1 refusal missing: these calls")]
    assert "linear.refuses.bias  linear(" in done.findings[first + 1]
    assert done.findings[first + 2].startswith("    reproduce: python nnspec-report/linear_refuses_bias")


def test_consequence_stands_below_its_cause_and_refusals_stand_last(desk):
    done = desk.check(LINEAR.format(refuse="pass", sign="-"), *ONE)
    assert done.code == 1
    assert "right except for refusals" not in done.out
    entry = {r["requirement"]: r for r in done.report["results"]}
    assert entry["linear.bias.per-feature"]["follows_from"] is None
    assert entry["linear.arguments.together"]["follows_from"] == "linear.bias.per-feature"
    assert entry["linear.arguments.together"]["verdict"] == "fail"
    assert all(r["follows_from"] is None for r in entry.values() if r["verdict"] != "fail")
    lines = done.out.splitlines()
    cause = next(n for n, line in enumerate(lines) if line.startswith("  linear.bias.per-feature"))
    assert lines[cause + 1].startswith("    from which may follow: linear.")
    assert "  follows from linear.bias.per-feature, or is a mistake of its own" in lines
    heads = [line for line in done.findings if line.startswith(("linear.", "1 refusal missing: these"))]
    assert heads[0].startswith("linear.bias.per-feature")
    assert heads[-1].startswith("1 refusal missing")


def test_table_counts_results_by_kind(desk):
    done = desk.check(LINEAR.format(refuse=REFUSE, sign="-"), *ONE)
    lines = done.out.splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("block"))
    kinds, cells = lines[head].split()[1:], lines[head + 1].split()[1:]
    table = dict(zip(kinds, cells, strict=True))
    results = done.report["results"]
    assert set(kinds) == {r["kind"] for r in results} | {"cases"}
    assert table["gradient"] == "·"  # nothing differentiates the function
    value = [r["verdict"] == "pass" for r in results if r["kind"] == "value"]
    assert table["value"] == f"{sum(value)}/{len(value)}"
    assert "/" not in table["memory"]
    assert table["cases"] == str(done.report["totals"]["cases"])


def test_file_that_conforms_is_told_nothing_about_refusals(desk):
    done = desk.check(LINEAR.format(refuse=REFUSE, sign="+"), *ONE)
    assert done.code == 0, done.out + done.err
    assert "right except for refusals" not in done.out

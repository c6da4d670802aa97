"""The command line, driven as a user drives it: what it says, what it leaves behind, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

RIGHT = """
    import numpy as np

    def relu(x):
        return np.maximum(x, 0)
"""
WRONG = """
    import numpy as np

    def relu(x):
        return x * (x > 0)
"""
CONV2D = """
    import os
    import numpy as np
    from nnspec.adapters import Unsupported
    from nnspec.reference import conv2d as right

    def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
        {mistake}
        return right.conv2d(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
"""


def relu_that(does: str, *, when: str = "x.ndim == 0") -> str:
    """Only relu.output.size has cases without axes."""
    return f"""
    import os, sys
    import numpy as np

    def relu(x):
        if {when}:
            {does}
        return np.maximum(x, 0)
    """


# -- verdicts ----------------------------------------------------------------------------------------------------------


def test_a_conftest_in_the_folder_is_left_alone(desk):
    desk.write("conftest.py", "import no_such_package")
    assert desk.check(RIGHT, "--dtype", "float32", "-n", 1).code == 0


def test_a_right_file_conforms(desk):
    done = desk.check(RIGHT)
    assert done.code == 0, done.out + done.err
    assert done.err == ""
    assert "layers.py conforms" in done.out
    report = done.report
    assert report["conforms"]
    totals = report["totals"]
    assert totals["pass"] > 15
    assert totals["pass"] + totals["unsupported"] == report["planned"] == len(report["results"])
    reasons = {r["reason"] for r in report["results"] if r["verdict"] == "unsupported"}
    assert reasons == {"the function lacks vjp", "there is no other block to call"}
    assert {"numpy", "nnspec", "python", "hypothesis"} <= report["versions"].keys()
    for version in report["versions"].values():
        assert version in done.out
    assert "seed 0" in done.out
    assert f"{report['totals']['cases']} cases" in done.out
    assert {path.name for path in desk.folder.iterdir()} - {"__pycache__"} == {"layers.py", "nnspec-report"}


def test_a_wrong_file_names_the_requirement_and_its_script_reproduces_it(desk):
    done = desk.check(WRONG, "-n", 1)
    assert done.code == 1
    report = done.report
    assert not report["conforms"]
    assert done.verdicts("fail") == {"relu.infinite.value"}
    assert "relu.infinite.value" in done.findings[0]
    failure = next(r["failure"] for r in report["results"] if r["verdict"] == "fail")
    for text in (failure["message"], failure["case"]["call"], failure["script"]):
        assert text in done.out
    assert failure["case"]["arrays"]["x"]["values"].count("-inf") == 1
    script = desk.run(failure["script"])
    assert script.code == 1, script.out + script.err
    assert "differs from what the specification says" in script.err
    desk.write("layers.py", RIGHT)
    script = desk.run(failure["script"])
    assert script.code == 0, script.out + script.err


@pytest.mark.parametrize(
    ("mistake", "first"),
    [
        ("dilation = 1", "conv2d.dilation.gap"),
        ("bias = None", "conv2d.bias.per-channel"),
        ("x += 0 if x.size == 0 else x * 0 + 1", "conv2d.input.unchanged"),
        ("weight = weight[:, :, ::-1, ::-1]", "conv2d.kernel.orientation"),
        ("stride = 1 if stride == 0 else stride", "conv2d.refuses.stride"),
        ("groups = max(groups, 1)", "conv2d.refuses.groups"),
    ],
)
def test_a_single_mistake_is_named_in_the_first_three_findings(desk, mistake, first):
    done = desk.check(CONV2D.format(mistake=mistake), "-n", 0, "--dtype", "float32")
    assert done.code == 1, done.out + done.err
    assert any(first in line for line in done.findings[:3]), done.out


@pytest.mark.parametrize(
    ("mistake", "requirement"),
    [
        ("if x.ndim == 0: raise ValueError('no axes')", "relu.output.size"),
        ("x = x.astype(np.float16)", "relu.output.dtype"),
        ("x[...] = np.maximum(x, 0)", "relu.input.unchanged"),
        ("x = x.ravel('K').reshape(x.shape)", "relu.input.layout"),
    ],
)
def test_scripts_fail_until_the_mistake_is_gone(desk, mistake, requirement):
    text = RIGHT.replace("    return", f"    {mistake}\n        return")
    done = desk.check(text, "-n", 0, "--dtype", "float32")
    failure = next(r["failure"] for r in done.report["results"] if r["requirement"] == requirement and r["failure"])
    script = desk.run(failure["script"])
    assert script.code == 1, script.out + script.err
    desk.write("layers.py", RIGHT)
    script = desk.run(failure["script"])
    assert script.code == 0, script.out + script.err


def test_the_reference_is_checked_in_both_forms(desk):
    done = desk.nnspec("check", "reference", "--block", "relu", "-n", 0)
    assert done.code == 0, done.out + done.err
    assert {r["block"] for r in done.report["results"]} == {"relu"}
    assert {r["form"] for r in done.report["results"]} == {"function", "class"}


def test_torch_is_checked(desk):
    pytest.importorskip("torch")
    done = desk.nnspec("check", "torch", "--block", "linear", "-n", 1)
    assert done.code == 0, done.out + done.err
    assert "torch" in done.report["versions"]


def test_a_name_in_a_file_can_be_chosen(desk):
    text = RIGHT + "\n    class ReLU:\n        def __call__(self, x):\n            return -x\n"
    desk.write("layers.py", text)
    assert desk.nnspec("check", "layers.py:relu", "-n", 0).code == 0
    assert desk.nnspec("check", "layers.py:ReLU", "-n", 0).code == 1


# -- choices -----------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_report_over_any_number_of_workers(desk):
    first = desk.check(WRONG, "-n", 1, "--seed", 3).report
    for workers in (0, 2):
        assert desk.timeless(desk.check(WRONG, "-n", workers, "--seed", 3).report) == desk.timeless(first)
    other = desk.check(WRONG, "-n", 0, "--seed", 4).report
    assert other["seed"] == 4


def test_dtype_profile_and_paths_are_respected(desk):
    options = ("--dtype", "float32", "--profile", "ci", "--sizes", "small")
    done = desk.check(RIGHT, *options, "--json", "a/b.json", "--out", "c", "-n", 0)
    assert done.code == 0, done.out + done.err
    report = desk.valid(json.loads((desk.folder / "a" / "b.json").read_text()))
    assert {r["dtype"] for r in report["results"]} == {"float32"}
    assert max(r["cases"] for r in report["results"]) == 100
    assert not (desk.folder / "nnspec-report").exists()
    assert "report: a/b.json" in done.out


def test_what_the_subject_claims_is_respected(desk):
    done = desk.check('DTYPES = ["float32"]\n' + dedented(RIGHT), "-n", 0)
    assert {r["dtype"] for r in done.report["results"]} == {"float32"}
    done = desk.nnspec("check", "layers.py", "--dtype", "float64", "-n", 0)
    assert done.code == 2
    assert "float32" in done.err


def dedented(text: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in text.splitlines())


def test_a_block_that_the_subject_lacks_shows_nothing(desk):
    done = desk.check(RIGHT, "--block", "conv2d", "-n", 0)
    assert done.code == 1
    assert done.report["results"] == []
    assert not done.report["conforms"]
    assert "nothing could be checked" in done.out


# -- partial implementations -------------------------------------------------------------------------------------------


def test_an_argument_that_is_not_there_is_unsupported_and_held_neutral(desk):
    text = """
    from nnspec.reference import conv2d as right

    def conv2d(x, weight, bias=None, *, stride=1, padding=0):
        return right.conv2d(x, weight, bias, stride=stride, padding=padding)
    """
    done = desk.check(text, "-n", 1)
    assert done.code == 0, done.out + done.err
    unsupported = done.verdicts("unsupported")
    assert {"conv2d.dilation.gap", "conv2d.groups.block-diagonal", "conv2d.refuses.dilation"} <= unsupported
    assert not {"conv2d.stride.step", "conv2d.arguments.together"} & unsupported
    assert all(r["held"] == ["dilation", "groups"] for r in done.report["results"])
    assert "dilation, groups" in done.out


def test_cases_that_are_declined_are_counted_and_shown(desk):
    done = desk.check(
        CONV2D.format(mistake='if stride not in (1, 2): raise Unsupported("only small strides")'), "-n", 1
    )
    report = done.report
    declined = {r["requirement"]: r for r in report["results"] if r["unsupported"]}
    assert "conv2d.kernel.orientation" not in declined
    alone = {"conv2d.call.neighbours", "conv2d.batch.absent"}  # the file has one block, which takes no lone image
    assert all(set(r["unsupported"]) == {"only small strides"} for name, r in declined.items() if name not in alone)
    assert "only small strides" in done.out
    stride = declined["conv2d.stride.step"]
    assert stride["unsupported"]["only small strides"] > stride["cases"] > 0
    assert stride["verdict"] == "not run"


def test_a_check_that_loses_most_of_its_cases_is_not_run(desk):
    done = desk.check(
        relu_that('raise Unsupported("large")', when="x.size > 1").replace(
            "import os", "from nnspec.adapters import Unsupported\n    import os"
        ),
        "-n",
        0,
    )
    assert done.verdicts("not run")
    assert "large" in done.out


def test_declining_everything_shows_nothing(desk):
    text = """
    from nnspec.adapters import Unsupported

    def relu(x):
        raise Unsupported("not yet")
    """
    done = desk.check(text, "-n", 0)
    assert done.code == 1
    assert done.report["totals"]["pass"] == 0
    assert "does not conform" not in done.out
    assert "not yet" in done.out


# -- subjects that end or hang the process -----------------------------------------------------------------------------


def test_an_abort_costs_its_check_alone(desk):
    done = desk.check(relu_that("os.abort()"), "-n", 1)
    assert done.code == 1
    assert done.verdicts("crash") == {"relu.output.size"}
    assert done.verdicts("fail") == done.verdicts("blocked") == set()
    assert done.report["unfinished"] == 0
    crash = next(r for r in done.report["results"] if r["verdict"] == "crash")
    assert crash["failure"]["case"]["arrays"]["x"]["shape"] == []
    assert "relu.output.size" in done.findings[0]
    assert crash["failure"]["script"] in done.out
    assert desk.run(crash["failure"]["script"]).code == -signal.SIGABRT
    assert "Traceback" not in done.err


def test_the_script_of_an_abort_keeps_the_layout_that_it_needs(desk):
    done = desk.check(relu_that("os.abort()", when="not x.flags.forc"), "--dtype", "float32", "-n", 1)
    crashes = [r for r in done.report["results"] if r["verdict"] == "crash"]
    assert crashes  # of checks that draw layouts, the one about layout among them unless two others came before it
    assert {desk.run(crash["failure"]["script"]).code for crash in crashes} == {-signal.SIGABRT}


def test_a_subject_that_cannot_be_loaded_again_loses_nothing(desk):
    text = """
    import os, pathlib
    import numpy as np

    if pathlib.Path("crashed").exists():
        os.abort()

    def relu(x):
        if x.ndim == 0:
            pathlib.Path("crashed").touch()
            os.abort()
        return np.maximum(x, 0)
    """
    done = desk.check(text, "--dtype", "float32", "-n", 1)
    assert done.code == 3
    assert done.verdicts("crash") == {"relu.output.size"}
    assert done.report["totals"]["pass"] > 3
    assert "2 workers in a row came to no check: layers.py: ended the process while it was loaded (SIGABRT)" in done.out


def test_sys_exit_in_a_call_is_a_failure(desk):
    done = desk.check(relu_that("sys.exit(0)"), "-n", 0)
    assert done.code == 1
    assert done.verdicts("fail") == {"relu.output.size"}
    assert "raised SystemExit" in done.out


def test_a_hang_costs_its_check_alone(desk):
    done = desk.check(relu_that("while True: pass"), "--dtype", "float32", "--timeout", 2, "-n", 1)
    assert done.code == 1
    assert done.verdicts("timeout") == {"relu.output.size"}
    assert len(done.verdicts("pass")) > 8
    assert "did not return within 2 s" in done.out
    hang = next(r for r in done.report["results"] if r["verdict"] == "timeout")
    assert "relu(" in (desk.folder / hang["failure"]["script"]).read_text()


def test_a_block_that_always_aborts_is_given_up(desk):
    done = desk.check(relu_that("os.abort()", when="True"), "--dtype", "float32", "-n", 1)
    assert done.code == 1
    totals = done.report["totals"]
    assert totals["crash"] in range(2, 20)  # each worker may be in a check when the second crash is noticed
    assert totals["blocked"] > 0
    assert totals["crash"] + totals["blocked"] + totals["unsupported"] == done.report["planned"]


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_leaves_a_report(desk, workers):
    desk.write("layers.py", relu_that("import time; time.sleep(0.05)", when="True"))
    command = [sys.executable, "-m", "nnspec.conformance.cli", "check", "layers.py", "-n", str(workers)]
    run = subprocess.Popen(
        command,
        cwd=desk.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    log = desk.folder / "nnspec-report" / "results.jsonl"
    while run.poll() is None and not (log.exists() and b'"record"' in log.read_bytes()):
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=600)
    assert run.returncode == 130, out + err
    assert "Traceback" not in err
    report = desk.valid(json.loads((desk.folder / "nnspec-report" / "report.json").read_text()))
    assert report["interrupted"]
    assert not report["conforms"]
    assert 0 < report["finished"] < report["planned"]
    assert f"{report['finished']} of {report['planned']} checks were done" in out


# -- misuse ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "none of the names that nnspec checks"),
        ("def leaky_relu(x): pass\ndef Rellu(x): pass", "'Rellu' is close to 'relu'"),
        ("import no_such_package", "imports 'no_such_package', which is not installed here (line 1)"),
        ("from numpy import no_such_name", "raises ImportError: cannot import name 'no_such_name'"),
        ("x = 1\n1 / 0", "raises ZeroDivisionError: division by zero while it is imported (line 2)"),
        ("def f(:\n    pass", "not valid Python: invalid syntax (line 1)"),
        ("import sys\nsys.exit(3)", "calls sys.exit(3) while it is imported (line 2)"),
        ("import os\nos._exit(0)", "ended the process while it was loaded"),
        ("import os\nos.abort()", "ended the process while it was loaded"),
        ("while True: pass", "hung while it was loaded"),
        ("DTYPES = ['float8']\ndef relu(x): return x", "DTYPES = ['float8']: expected some of float32, float64"),
    ],
)
def test_a_file_that_cannot_be_checked_gets_a_sentence(desk, text, says):
    ends, hangs = "process" in says, "hung" in says
    done = desk.check(text, "--timeout", 1 if hangs else 600, "-n", 1 if ends or hangs else 0)
    assert done.code == 2, done.out + done.err
    assert says in done.err
    assert done.err.startswith("nnspec: layers.py: ")
    assert done.err.count("\n") == 1
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.py"], "nowhere.py: there is no such file"),
        (["pytorch"], "subject 'pytorch': expected numpy, reference, cupy, jax, jax-jit, torch, torch-compile, or"),
        (["reference", "--block", "conv3d"], "--block conv3d: expected one of avg_pool2d"),
        (["reference", "--dtype", "float8"], "--dtype: invalid choice: 'float8'"),
        (["reference", "--profile", "slow"], "--profile: invalid choice: 'slow'"),
        (["reference", "--seed", "one"], "--seed: invalid int value: 'one'"),
        (["reference", "--timeout", "0"], "--timeout 0.0: expected a finite number of seconds above 0"),
        (["reference", "-n", "-1"], "-n -1: expected 0 or more workers"),
        ([], "required: subject"),
    ],
)
def test_misuse_gets_a_sentence(desk, arguments, says):
    done = desk.nnspec("check", *arguments)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err


def test_a_sentence_from_workers_too(desk):
    done = desk.check("import no_such_package", "-n", 2)
    assert done.code == 2
    assert done.err == "nnspec: layers.py: imports 'no_such_package', which is not installed here (line 1)\n"


def test_a_name_that_is_not_in_the_file_gets_a_sentence(desk):
    desk.write("layers.py", RIGHT)
    done = desk.nnspec("check", "layers.py:Conv2d", "-n", 0)
    assert done.code == 2
    assert done.err.startswith("nnspec: layers.py: no 'Conv2d' to check; it has relu")


# -- the other commands ------------------------------------------------------------------------------------------------


def test_help_names_the_commands(desk):
    done = desk.nnspec("--help")
    assert done.code == 0
    for command in ("check", "explain", "list", "power"):
        assert command in done.out
    assert desk.nnspec().code == 2


def test_version(desk):
    assert desk.nnspec("--version").out.startswith("nnspec 0.")


def test_list_needs_no_framework_and_no_test_machinery(desk):
    program = """
        import sys
        from nnspec.conformance.cli import main
        code = main(["list"])
        heavy = {"torch", "hypothesis", "pytest", "rich", "jinja2"} & sys.modules.keys()
        sys.exit(f"imported {heavy}" if heavy else code)
    """
    done = desk.run(desk.write("program.py", program))
    assert done.code == 0, done.err
    assert "conv2d(), Conv2d" in done.out
    assert len(done.out.splitlines()) == 16


def test_list_shows_the_requirements_of_a_block(desk):
    done = desk.nnspec("list", "conv2d")
    assert done.code == 0
    assert any(line.startswith("conv2d.stride.step ") and " must, value " in line for line in done.out.splitlines())
    assert desk.nnspec("list", "conv3d").code == 2


def test_explain_shows_page_reference_check_and_fault(desk):
    done = desk.nnspec("explain", "conv2d.stride.step")
    assert done.code == 0
    for part in ("— must", "spec/conv2d.md:", "reference/conv2d.py:", "conformance/checks/test_conv2d.py:", "fault "):
        assert part in done.out


def test_explain_of_a_part_lists_what_contains_it(desk):
    done = desk.nnspec("explain", "conv2d.refuses")
    assert done.code == 0
    assert len(done.out.splitlines()) > 4
    done = desk.nnspec("explain", "conv9d")
    assert done.code == 2
    assert "there is no requirement" in done.err

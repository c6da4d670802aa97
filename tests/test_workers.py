"""Subjects and people that end, hang or fill processes: what is reported, what is kept, and that no process is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

CLI = [sys.executable, "-m", "nnspec.conformance.cli", "check"]
CHEAP = ("--dtype", "float32", "-n", "1")
HANGS = 120  # seconds that nothing here takes


def relu_that(does: str, *, when: str = "x.ndim == 0", first: str = "") -> str:
    """The source of a relu that does something; only relu.output.size has cases without axes."""
    lines = [
        "import os, signal, sys, threading, time",
        "from pathlib import Path",
        "import numpy as np",
        *first.split("\n"),
    ]
    lines += ["def relu(x):", f"    if {when}:", *(f"        {line}" for line in does.split("\n"))]
    return "\n".join([*lines, "    return np.maximum(x, 0)", ""])


def living(mark: str) -> list[str]:
    """The commands of processes that were started with a mark in their environment, or forked from such ones."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.fixture
def desk(desk):
    """A folder as elsewhere, whose commands leave no process behind."""
    mark = f"DESK={desk.folder}"
    yield desk
    wait_for(lambda: not living(mark), lambda: f"left: {living(mark)}")


def wait_for(condition, message=lambda: "it did not come"):
    limit = time.monotonic() + HANGS
    while not condition():
        assert time.monotonic() < limit, message()
        time.sleep(0.02)


def start(desk, *arguments):
    """Start `nnspec check layers.py`, with the signals that a shell would leave to it."""

    def reset():
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [*CLI, "layers.py", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=desk.folder, env=desk.environment, preexec_fn=reset, start_new_session=True, **pipes
    )


def results(desk) -> int:
    """How many results are in the log."""
    log = desk.folder / "nnspec-report" / "results.jsonl"
    return log.read_text().count('"record"') if log.exists() else 0


def only(done, verdict):
    """The one record with a verdict."""
    [record] = [r for r in done.report["results"] if r["verdict"] == verdict]
    return record


# -- names of standard modules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_files_with_names_of_standard_modules_hide_none(desk, workers):
    for name in ("random", "json", "copy", "select", "tempfile", "socket"):
        desk.write(f"{name}.py", "raise SystemExit('the working directory was searched first')")
    desk.write("neighbour.py", "def right(x):\n    import numpy\n    return numpy.maximum(x, 0)")
    text = "from neighbour import right\n\ndef relu(x):\n    import neighbour\n    return neighbour.right(x)"
    done = desk.check(text, "--dtype", "float32", "-n", workers)
    assert done.code == 0, done.out + done.err


@pytest.mark.parametrize("name", ["random.py", "select.py"])
def test_the_subject_may_have_the_name_of_a_standard_module(desk, name):
    desk.write(name, "import numpy as np\n\ndef relu(x):\n    return x * (x > 0)\n")
    done = desk.nnspec("check", name, *CHEAP)
    assert done.code == 1, done.out + done.err
    assert done.verdicts("fail") == {"relu.infinite.value"}
    script = desk.run(only(done, "fail")["failure"]["script"])
    assert "differs from what the specification says" in script.err


# -- workers that cannot start -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("os._exit(7)", "a worker process could not be started"),
        ("sys.modules['_pytest'] = None", "a worker process could not be started"),
        ("sys.modules['nnspec.conformance.trial.journal'] = None", "nnspec.conformance.trial.journal"),
    ],
)
def test_a_worker_that_cannot_start_is_one_error(desk, does, says):
    site = f"""
    import os, sys
    if sys.orig_argv[-2:-1] == ["-c"]:
        with open({str(desk.folder / "starts")!r}, "a") as file:
            file.write("x")
        {does}
    """
    (desk.folder / "site").mkdir()
    (desk.folder / "site" / "sitecustomize.py").write_text(dedent(site))
    done = desk.check(relu_that("pass"), *CHEAP, PYTHONPATH=str(desk.folder / "site"))
    assert done.code == 3, done.out + done.err
    assert says in done.err + done.out
    assert len((desk.folder / "starts").read_text()) <= 2


def test_a_file_that_is_spoilt_while_it_is_checked_costs_no_result(desk):
    spoil = "Path(__file__).write_text('def relu(:')\nos.abort()"
    done = desk.check(relu_that(spoil), *CHEAP)
    assert done.code == 3, done.out + done.err
    assert done.verdicts("crash") == {"relu.output.size"}
    assert done.report["totals"]["pass"] > 3
    assert "2 workers in a row came to no check: layers.py: not valid Python" in done.out


def test_a_file_that_offers_other_checks_afterwards_is_named(desk):
    spoil = "Path(__file__).write_text('def einsum(equation, *operands): pass')\nos.abort()"
    done = desk.check(relu_that(spoil), *CHEAP)
    assert done.code == 3, done.out + done.err
    assert done.verdicts("crash") == {"relu.output.size"}
    assert done.report["totals"]["pass"] > 3
    assert "2 workers in a row came to no check: layers.py offers other checks than before" in done.out


def test_a_subject_that_cannot_be_loaded_once_is_loaded_again(desk):
    first = "if Path('crashed').exists() and not Path('busy').exists():\n"
    first += "    Path('busy').touch()\n    raise OSError('busy')"
    done = desk.check(relu_that("Path('crashed').touch()\nos.abort()", first=first), *CHEAP)
    assert done.code == 1, done.out + done.err
    assert done.verdicts("crash") == {"relu.output.size"}
    assert done.report["unfinished"] == 0
    assert "a worker came to no check: layers.py: raises OSError: busy" in done.out


# -- crashes, hangs and what they leave behind -------------------------------------------------------------------------


@pytest.mark.parametrize("apart", ["pass", "os.setsid()"])
@pytest.mark.parametrize(("end", "verdict"), [("os.abort()", "crash"), ("time.sleep(600)", "timeout")])
def test_a_child_that_lives_on_does_not_hold_up_the_run(desk, apart, end, verdict):
    limit = 5 if verdict == "timeout" else 60  # beside other work, a call that crashes may take seconds to do so
    done = desk.check(
        relu_that(f"if os.fork() == 0:\n    {apart}\n    time.sleep(600)\n{end}"), *CHEAP, "--timeout", limit
    )
    assert done.code == 1, done.out + done.err
    assert done.verdicts(verdict) == {"relu.output.size"}
    assert done.report["unfinished"] == 0


def test_children_that_hold_pipes_cost_no_script(desk):
    done = desk.check(relu_that("os.abort()", first="if os.fork() == 0:\n    time.sleep(600)"), *CHEAP)
    assert done.code == 1, done.out + done.err
    assert only(done, "crash")["failure"]["script"]


def test_a_call_that_returns_twice_is_one_call(desk):
    done = desk.check(relu_that("os.fork()", when="True", first="os.fork()"), *CHEAP)
    assert done.code == 0, done.out + done.err
    assert done.report["finished"] == done.report["planned"]


def test_children_that_a_right_subject_leaves_are_ended(desk):
    done = desk.check(relu_that("if os.fork() == 0:\n    time.sleep(600)"), *CHEAP)
    assert done.code == 0, done.out + done.err


def test_a_subject_that_closes_all_files_costs_one_check(desk):
    done = desk.check(relu_that("os.closerange(0, 200)\ntime.sleep(600)"), *CHEAP)
    assert done.code == 1, done.out + done.err
    assert only(done, "crash")["reason"] == "the call closed files that its process needs"
    assert done.report["unfinished"] == 0


def test_a_crash_is_told_with_its_signal_and_the_end_of_standard_error(desk):
    done = desk.check(relu_that("print('one', 'two', sep=chr(10), file=sys.stderr)\nos.abort()"), *CHEAP)
    assert done.code == 1, done.out + done.err
    record = only(done, "crash")
    assert record["reason"] == "the call ended the process (SIGABRT); standard error ended with: one / two"
    assert "relu(x())" in record["failure"]["message"]


def test_a_crash_is_made_smaller(desk):
    done = desk.check(relu_that("os.abort()", when="x.size > 3 and x.ndim > 1"), *CHEAP)
    assert done.code == 1, done.out + done.err
    for record in [r for r in done.report["results"] if r["verdict"] == "crash"]:
        x = record["failure"]["case"]["arrays"]["x"]
        assert 3 < np.prod(x["shape"]) <= 6
        assert not np.any(x["values"])
        assert desk.run(record["failure"]["script"]).code == -signal.SIGABRT


def test_a_crash_that_a_call_alone_does_not_show_says_so(desk):
    first = "calls = []"
    done = desk.check(relu_that("os.abort()", when="calls.append(1) or len(calls) > 40", first=first), *CHEAP)
    assert done.code == 1, done.out + done.err
    crashes = [r["failure"] for r in done.report["results"] if r["verdict"] == "crash"]
    assert crashes
    assert all("a call before it may have written beyond its memory" in failure["message"] for failure in crashes)
    assert all(desk.run(failure["script"]).code == 0 for failure in crashes)


def test_memory_that_grows_is_a_crash(desk):
    grow = "hoard = []\nwhile True:\n    hoard.append(np.ones(2**20))\n    time.sleep(0.001)"
    done = desk.check(relu_that(grow), *CHEAP, "--memory", 0.4)
    assert done.code == 1, done.out + done.err
    crash = only(done, "crash")
    assert (crash["requirement"], crash["reason"]) == ("relu.output.size", "the call used more than 0.4 GiB")
    assert done.report["unfinished"] == 0


def test_memory_that_grows_while_the_file_is_loaded_is_named(desk):
    done = desk.check(relu_that("pass", first="kept = np.ones(2**28 // 4)\ntime.sleep(60)"), *CHEAP, "--memory", 0.4)
    assert done.code == 2, done.out + done.err
    assert done.err == "nnspec: layers.py: used more than 0.4 GiB while it was loaded\n"


@pytest.mark.parametrize("option", ["--timeout", "--memory"])
@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1"])
def test_limits_are_finite_and_above_0(desk, option, value):
    done = desk.check(relu_that("pass"), f"{option}={value}")
    assert done.code == 2
    assert f"{option} {float(value)}: expected a finite number of" in done.err


# -- who ended it ------------------------------------------------------------------------------------------------------


def test_a_check_whose_worker_was_killed_from_outside_runs_again(desk):
    kill = "if not Path('killed').exists():\n    Path('killed').touch()\n    os.kill(os.getpid(), signal.SIGKILL)"
    done = desk.check(relu_that(kill), *CHEAP)
    assert done.code == 0, done.out + done.err
    assert done.report["unfinished"] == 0
    [incident] = done.report["incidents"]
    assert "something outside nnspec ended a worker with SIGKILL during" in incident
    assert incident in done.out


def test_a_check_whose_worker_is_always_killed_from_outside_is_an_error(desk):
    done = desk.check(relu_that("os.kill(os.getpid(), signal.SIGKILL)"), *CHEAP)
    assert done.code == 3, done.out + done.err
    assert done.verdicts("crash") == set()
    assert done.report["unfinished"] == 1
    assert "ended the worker twice, with SIGKILL" in done.out


@pytest.mark.parametrize("workers", [0, 1])
def test_a_keyboard_interrupt_of_the_subject_costs_one_check(desk, workers):
    done = desk.check(relu_that("raise KeyboardInterrupt"), "--dtype", "float32", "-n", workers)
    assert done.code == 1, done.out + done.err
    assert done.verdicts("fail") == {"relu.output.size"}
    assert done.report["unfinished"] == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_keyboard_interrupt_while_the_file_is_loaded_is_the_subjects(desk, workers):
    done = desk.check("raise KeyboardInterrupt", "-n", workers)
    assert done.code == 2
    assert done.err == "nnspec: layers.py: raises KeyboardInterrupt while it is imported\n"


# -- signals to the command --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "workers", "code"),
    [
        ([signal.SIGINT, signal.SIGINT], 2, 130),
        ([signal.SIGTERM], 1, 143),
        ([signal.SIGHUP, signal.SIGTERM], 1, 129),
        ([signal.SIGQUIT], 1, 131),
        ([signal.SIGINT, signal.SIGINT], 0, 130),
        ([signal.SIGTERM], 0, 143),
    ],
)
def test_a_signal_ends_the_run_with_a_report(desk, numbers, workers, code):
    log = "log = Path('nnspec-report/results.jsonl')"
    slow = "time.sleep(0.3 if log.exists() and '\"record\"' in log.read_text() else 0)"
    desk.write("layers.py", relu_that(slow, when="True", first=log))  # slow once the signals are on their way
    run = start(desk, "--dtype", "float32", "-n", workers)
    wait_for(lambda: results(desk))
    for number in numbers:
        os.kill(run.pid, number)
    out, err = run.communicate(timeout=HANGS)
    assert run.returncode == code, out + err
    assert "Traceback" not in err
    report = desk.valid(json.loads((desk.folder / "nnspec-report" / "report.json").read_text()))
    assert report["interrupted"]
    assert 0 < report["finished"] < report["planned"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_ends_the_run_during_a_call_that_does_not_return(desk, workers):
    desk.write("layers.py", relu_that("Path('called').touch()\ntime.sleep(600)"))
    run = start(desk, "--dtype", "float32", "-n", workers)
    wait_for((desk.folder / "called").exists)
    os.kill(run.pid, signal.SIGTERM)
    out, err = run.communicate(timeout=HANGS)
    assert run.returncode == 143, out + err
    assert json.loads((desk.folder / "nnspec-report" / "report.json").read_text())["interrupted"]


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_end_with_the_command(desk, workers):
    desk.write("layers.py", relu_that("Path('called').touch()\nos.fork()\nsum(range(10**12))"))
    run = start(desk, "--dtype", "float32", "-n", workers)
    wait_for((desk.folder / "called").exists)
    run.kill()
    run.wait()
    for pipe in (run.stdout, run.stderr):
        pipe.close()


# -- without workers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["os._exit(0)", "os.abort()"])
def test_a_subject_that_ends_the_only_process_does_not_conform(desk, end):
    done = desk.check(relu_that(end), "--dtype", "float32", "-n", 0)
    assert done.code == 3, done.out + done.err
    assert "the subject ended the process; -n 1 tells in which call" in done.out
    assert done.report["totals"]["pass"] == done.report["finished"] < done.report["planned"]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "does",
    [
        "threading.Thread(target=time.sleep, args=[600]).start(); os.closerange(0, 3)",
        "null = os.open(os.devnull, os.O_RDWR); [os.dup2(null, n) for n in range(3)]; sys.stdout = sys.stderr = None",
        "sys.stdout and sys.stdout.close(); Path('elsewhere').mkdir(exist_ok=True); os.chdir('elsewhere'); "
        "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)]",
    ],
)
def test_what_a_subject_changes_in_its_process_costs_nothing(desk, does, workers):
    call = "if not done:\n    done.append(True)\n    " + does
    done = desk.check(relu_that(call, first=f"done = []\n{does}"), "--dtype", "float32", "-n", workers)
    assert done.code == 0, done.out + done.err
    assert "layers.py conforms" in done.out
    assert done.report["unfinished"] == 0

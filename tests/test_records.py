"""What is known is kept: the log, the report, the scripts and the exit code, whatever becomes of the run."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

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
HELD = """
    import pathlib
    import time
    import numpy as np

    hold, log = pathlib.Path("hold"), pathlib.Path("nnspec-report/results.jsonl")

    def relu(x):
        while hold.exists() and log.exists() and '"record"' in log.read_text():
            time.sleep(0.01)
        return x * (x > 0)
"""
FEW = ("--block", "relu", "--dtype", "float32", "-n", "1")
ALONE = (*FEW[:-1], "0")  # in one process
PATIENT = (*FEW, "--timeout", "600")
NNSPEC = (sys.executable, "-m", "nnspec.conformance.cli")


def results(path):
    """The records of a report or a log, without the time that they took and the folder of their scripts."""
    text = path.read_text("utf-8")
    if path.name == "report.json":
        found = json.loads(text)["results"]
    else:
        entries = [entry["record"] for entry in map(json.loads, text.splitlines()) if "record" in entry]
        found = {entry["requirement"]: entry for entry in entries}.values()
    for record in found:
        record["seconds"] = 0
        if record["failure"] and record["failure"]["script"]:
            record["failure"]["script"] = Path(record["failure"]["script"]).name
    return sorted(found, key=lambda r: (r["requirement"], r["dtype"]))


def started(desk, *arguments, **options):
    command = [*NNSPEC, "check", "layers.py", *FEW, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=desk.folder, env=desk.environment, **pipes, **options)


def wait_for_a_record(log, run):
    while not (log.exists() and b'"record"' in log.read_bytes()):
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)


# -- what crosses between processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", ["x.astype(np.int64) - 2**40", "x.astype(np.uint64) + 2**63"])
def test_integers_of_any_size_cross(desk, result):
    done = desk.check(RIGHT.replace("np.maximum(x, 0)", f"np.where(x > 0, 1, 0){result[1:]}"), *FEW)
    assert done.code == 1
    assert done.report["errors"] == []
    assert done.report["planned"] == len(done.report["results"])
    assert "relu.output.dtype" in done.verdicts("fail")


def test_messages_are_cut_and_escaped(desk):
    message = "raise ValueError('\\ud800 \\x1b[31mred' + 'a' * 20_000_000)"
    done = desk.check(RIGHT.replace("    return", f"    if x.ndim == 0: {message}\n        return"), *FEW)
    assert done.code == 1
    assert done.report["errors"] == []
    assert done.verdicts("fail") == {"relu.output.size"}
    assert "\\ud800 \\x1b[31mred" in done.out
    assert len(done.out) < 10_000
    assert sum(path.stat().st_size for path in (desk.folder / "nnspec-report").iterdir()) < 200_000


def test_a_name_that_is_not_utf_8(desk):
    desk.write("layers.py", WRONG)
    name = os.fsencode(desk.folder) + b"/l\xff.py"
    os.rename(desk.folder / "layers.py", name)
    done = subprocess.run(
        [*NNSPEC, "check", b"l\xff.py", *FEW], cwd=desk.folder, env=desk.environment, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "l\\udcff.py does not conform" in done.stdout
    [script] = (desk.folder / "nnspec-report").glob("*.py")
    assert desk.run(script).code == 1


# -- the log -----------------------------------------------------------------------------------------------------------


def test_the_log_has_what_the_report_has(desk):
    done = desk.check(WRONG, *FEW, "--seed", 3)
    assert done.code == 1
    folder = desk.folder / "nnspec-report"
    assert results(folder / "results.jsonl") == results(folder / "report.json")
    head = json.loads((folder / "results.jsonl").read_text().splitlines()[0])
    assert head["log"] == "urn:nnspec:log:1"
    assert head["subject"] == "layers.py"
    assert head["options"]["seed"] == 3
    assert head["checks"] == done.report["planned"]
    assert head["versions"] == done.report["versions"]
    assert list(head["sources"]) == [str(desk.folder / "layers.py")]
    assert {path.name for path in folder.iterdir()} == {
        "report.json", "results.jsonl", "relu_infinite_value_function_float32.py"
    }  # fmt: skip


def test_a_killed_run_goes_on_to_the_same_report(desk):
    whole = desk.check(HELD, *PATIENT, "--out", "whole")
    assert whole.code == 1
    folder = desk.folder / "nnspec-report"
    log, hold = folder / "results.jsonl", desk.write("hold", "")
    run = started(desk, *PATIENT[-2:])
    wait_for_a_record(log, run)
    run.kill()
    run.communicate()
    hold.unlink()
    kept = results(log)
    assert not (folder / "report.json").exists()
    with log.open("ab") as file:
        file.write(b'{"at": 1.5, "record": {"requirement": "relu.outp')  # torn
    done = desk.nnspec("check", "layers.py", *PATIENT, "--resume")
    assert done.code == 1, done.err
    assert 0 < len(kept) < len(done.report["results"])
    assert results(folder / "report.json") == results(desk.folder / "whole" / "report.json")
    assert results(log) == results(folder / "report.json")  # nothing was run twice
    assert desk.run("nnspec-report/relu_infinite_value_function_float32.py").code == 1


def test_a_crash_of_a_killed_run_gets_its_script(desk):
    text = RIGHT.replace("    return", "    if x.ndim == 0: import os; os.abort()\n        return")
    done = desk.check(text, *FEW)
    assert done.verdicts("crash") == {"relu.output.size"}
    log = desk.folder / "nnspec-report" / "results.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if b'"crash"' in line.partition(b"verdict")[2])
    log.write_bytes(b"".join(lines[: first + 1]))  # as if it ended there
    again = desk.nnspec("check", "layers.py", *FEW, "--resume")
    assert desk.timeless(again.report) == desk.timeless(done.report)
    [crash] = [r for r in again.report["results"] if r["verdict"] == "crash"]
    assert desk.run(crash["failure"]["script"]).code == -signal.SIGABRT


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arguments": ("--seed", "1")}, "had seed 0, and this one has 1"),
        ({"text": RIGHT}, "was of another content of {folder}/layers.py"),
        ({"versions": "numpy"}, "had numpy '1.0', and this one has"),
    ],
)
def test_only_the_same_run_goes_on(desk, change, says):
    assert desk.check(WRONG, *ALONE).code == 1
    log = desk.folder / "nnspec-report" / "results.jsonl"
    if name := change.get("versions"):
        head, _, rest = log.read_text().partition("\n")
        head = json.loads(head)
        log.write_text(json.dumps({**head, "versions": {**head["versions"], name: "1.0"}}) + "\n" + rest)
    before = log.read_bytes()
    desk.write("layers.py", change.get("text", WRONG))
    done = desk.nnspec("check", "layers.py", *ALONE, "--resume", *change.get("arguments", ()))
    assert done.code == 2
    assert says.format(folder=desk.folder) in done.err
    assert done.err.count("\n") == 1
    assert log.read_bytes() == before


def test_a_run_that_has_no_log_begins(desk):
    done = desk.check(RIGHT, *ALONE, "--resume")
    assert done.code == 0
    assert "there is no log in nnspec-report" in done.err


def test_a_damaged_log_is_not_gone_on_with(desk):
    desk.check(RIGHT, *ALONE)
    log = desk.folder / "nnspec-report" / "results.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"record"', b'"rec', 1))
    done = desk.nnspec("check", "layers.py", *ALONE, "--resume")
    assert done.code == 2
    assert "line 2 is damaged" in done.err


# -- the folder --------------------------------------------------------------------------------------------------------


def test_a_folder_belongs_to_one_run(desk):
    desk.write("layers.py", HELD)
    hold = desk.write("hold", "")
    first = started(desk, *PATIENT[-2:])
    wait_for_a_record(desk.folder / "nnspec-report" / "results.jsonl", first)
    second = desk.nnspec("check", "layers.py", *PATIENT)
    assert second.code == 2
    assert f"a run that has not ended, process {first.pid};" in second.err
    hold.unlink()
    assert first.wait() == 1
    assert first.communicate()[1] == ""
    assert desk.nnspec("check", "layers.py", *PATIENT, "--resume").code == 1


def test_scripts_of_an_earlier_run_go_and_other_files_stay(desk):
    assert desk.check(WRONG, *ALONE).code == 1
    folder = desk.folder / "nnspec-report"
    (folder / "notes.py").write_text("mine")
    (folder / "relu.txt").write_text("mine")
    assert desk.check(RIGHT, *ALONE).code == 0
    assert {path.name for path in folder.iterdir()} == {"notes.py", "relu.txt", "report.json", "results.jsonl"}


def test_a_subject_that_cannot_be_loaded_costs_no_earlier_result(desk):
    assert desk.check(WRONG, *ALONE).code == 1
    folder = desk.folder / "nnspec-report"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert desk.check("x = 1", *ALONE).code == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert desk.nnspec("check", "layers.py", *ALONE, "--out", "new").code == 2
    assert not (desk.folder / "new").exists()


def test_a_file_of_the_same_name_as_the_log_stays(desk):
    desk.write("results.jsonl", "mine")
    done = desk.check(RIGHT, *ALONE, "--out", ".")
    assert done.code == 2
    assert "results.jsonl: not written by nnspec" in done.err
    assert (desk.folder / "results.jsonl").read_text() == "mine"


@pytest.mark.parametrize("out", ["taken", "taken/below"])
def test_a_file_in_the_place_of_the_folder(desk, out):
    desk.write("taken", "mine")
    done = desk.check(RIGHT, *FEW, "--out", out)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"nnspec: {out}: a file is in its place; say --out FOLDER for another place\n"


@pytest.mark.parametrize(("size", "says"), [(1 << 15, "nnspec-report: File too large"), (1 << 19, "set TMPDIR to")])
def test_a_full_disk_is_noticed_before_anything_runs(desk, size, says):
    desk.write("layers.py", "print('loaded')")

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    run = started(desk, preexec_fn=limited)
    out, err = run.communicate()
    assert run.returncode == 2, out + err
    assert says in err
    assert err.count("\n") == 1
    assert not (desk.folder / "nnspec-report").exists()


FULL = """
    import os
    import pathlib
    import numpy as np

    def fill():
        for file in pathlib.Path("/proc/self/fd").iterdir():
            if os.path.realpath(file).endswith("results.jsonl"):
                os.dup2(os.open("/dev/full", os.O_WRONLY), int(file.name))

    def relu(x):
        if x.ndim == 0:
            fill()
        return x * (x > 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is there on Linux alone")
def test_a_disk_that_gets_full_costs_neither_verdict_nor_log(desk):
    done = desk.check(FULL, *ALONE, TMPDIR=str(desk.folder))
    assert done.code == 1
    assert "relu.infinite.value" in done.findings[0]
    assert "nnspec-report/results.jsonl: No space left on device; the log is kept in " in done.err
    kept = done.err.partition("is kept in ")[2].splitlines()[0]
    assert kept.startswith(f"{desk.folder}/nnspec-log-")
    assert results(desk.folder / kept) == results(desk.folder / "nnspec-report" / "report.json")
    again = desk.nnspec("check", "layers.py", *ALONE, "--resume", "--out", os.path.dirname(kept))
    assert again.code == 1
    assert results(desk.folder / kept) == results(desk.folder / "nnspec-report" / "report.json")


def test_a_report_that_cannot_be_written_costs_no_verdict(desk):
    text = RIGHT.replace(
        "    return", "    import os; os.makedirs('nnspec-report/report.json', exist_ok=True)\n        return"
    )
    done = desk.check(text, *FEW)
    assert done.code == 0, done.err
    assert "layers.py conforms" in done.out
    assert "report: not written" in done.out
    assert "nnspec-report/report.json: Is a directory; all results are in " in done.err
    assert "Traceback" not in done.err


# -- where the report goes ---------------------------------------------------------------------------------------------


def test_a_pipe_is_written_into(desk):
    pipe, got = desk.folder / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text("utf-8")))
    reader.start()
    done = desk.check(RIGHT, *ALONE, "--json", "pipe")
    reader.join()
    assert done.code == 0
    assert pipe.is_fifo()
    assert desk.valid(json.loads(got[0]))["conforms"]


def test_a_link_is_followed(desk):
    (desk.folder / "target.json").write_text("old")
    (desk.folder / "link.json").symlink_to("target.json")
    assert desk.check(RIGHT, *ALONE, "--json", "link.json").code == 0
    assert (desk.folder / "link.json").is_symlink()
    assert json.loads((desk.folder / "target.json").read_text())["conforms"]


@pytest.mark.parametrize("path", ["-", "/dev/stdout"])
def test_standard_output_has_the_report_alone(desk, path):
    done = desk.check(RIGHT.replace("    return", "    print('noise')\n        return"), *ALONE, "--json", path)
    assert done.code == 0
    assert desk.valid(json.loads(done.out))["conforms"]
    assert "layers.py conforms" in done.err


# -- exit codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "code"), [(RIGHT, 0), (WRONG, 1)])
@pytest.mark.parametrize("where", ["| head -1", "> /dev/full", ">&-", "2> /dev/full"])
def test_the_exit_code_is_that_of_the_verdict_wherever_the_text_goes(desk, text, code, where):
    desk.write("layers.py", text)
    command = f"set -o pipefail; {' '.join(NNSPEC)} check layers.py {' '.join(ALONE)} {where}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=desk.folder, env=desk.environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_list_that_cannot_be_written_is_a_failure(desk):
    done = subprocess.run([*NNSPEC, "list"], stdout=open("/dev/full", "w"), stderr=subprocess.PIPE, text=True)  # noqa: SIM115
    assert done.returncode == 3
    assert done.stderr == "nnspec: standard output: No space left on device\n"


def test_a_working_directory_that_is_gone(desk):
    gone = desk.folder / "gone"
    gone.mkdir()
    command = f"rmdir {gone}; {' '.join(NNSPEC)} check reference {' '.join(ALONE)}"
    done = subprocess.run(["bash", "-c", command], cwd=gone, env=desk.environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "nnspec: the working directory is gone; change to another one\n"


def test_a_working_directory_whose_name_is_not_utf_8(desk):
    folder = os.fsencode(desk.folder) + b"/d\xff"
    os.mkdir(folder)
    desk.write("layers.py", RIGHT).rename(os.fsdecode(folder) + "/layers.py")
    for arguments, code, says in (FEW, 2, "is not UTF-8, which workers need"), (ALONE, 0, ""):
        command = [*NNSPEC, "check", "layers.py", *arguments]
        done = subprocess.run(command, cwd=folder, env=desk.environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert says in done.stderr


def test_a_working_directory_that_goes_meanwhile(desk):
    inner = desk.folder / "inner"
    inner.mkdir()
    desk.write(
        "layers.py",
        RIGHT.replace("    return", f"    import shutil; shutil.rmtree({str(inner)!r}, True)\n        return"),
    )
    command = [*NNSPEC, "check", "../layers.py", *FEW, "--out", "../out"]
    done = subprocess.run(command, cwd=inner, env=desk.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not inner.exists()
    assert json.loads((desk.folder / "out" / "report.json").read_text())["conforms"]


INTERRUPTING = """
    import os
    import signal
    import sys

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == os.environ.get("AT"):
                del os.environ["AT"]
                os.kill(os.getpid(), signal.SIGINT)

    sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("module", ["argparse", "numpy", "pytest", "ml_dtypes", "nnspec.conformance.session", "xdist"])
def test_an_interrupt_while_something_is_imported(desk, module):
    desk.write("sitecustomize.py", INTERRUPTING)
    desk.write("layers.py", RIGHT)
    done = subprocess.run(
        [*NNSPEC, "check", "layers.py", *FEW],
        cwd=desk.folder,
        env={**desk.environment, "PYTHONPATH": str(desk.folder), "AT": module},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_what_a_subject_prints_is_limited(desk):
    text = RIGHT.replace(
        "    return", "    import os; os.write(2, b'\\x1b[31mred\\n' * 100_000); print('more')\n        return"
    )
    done = desk.check(text, *FEW)
    assert done.code == 0
    assert "more" not in done.out
    assert "\\x1b[31mred\n" in done.err
    assert len(done.err) < 200_000
    assert "bytes more, which are not shown" in done.err


def test_tests_of_the_suite_itself_pass_alone(desk):
    done = desk.run("-m", "pytest", "-q", "--pyargs", "nnspec.conformance.checks.test_relu", "-k", "reach or generated")
    assert done.code == 0, done.out + done.err


def test_other_systems_get_a_sentence(desk):
    program = """
        import sys
        from nnspec.conformance.cli import main
        sys.platform = "win32"
        sys.exit(main(["check", "reference"]))
    """
    done = desk.run(desk.write("program.py", program))
    assert done.code == 2
    assert done.err.startswith("nnspec: check needs Linux or macOS: ")


# -- the matrix --------------------------------------------------------------------------------------------------------


def test_a_matrix_goes_on(desk):
    desk.write("right.py", RIGHT)
    desk.write("wrong.py", WRONG)
    first = desk.nnspec("matrix", "right.py", "wrong.py", *ALONE)
    log = desk.folder / "nnspec-report" / "wrong_py" / "results.jsonl"
    before = results(log)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:4]))
    again = desk.nnspec("matrix", "right.py", "wrong.py", *ALONE, "--resume")
    assert first.code == again.code == 1
    assert results(log) == before
    assert [set(map(str, r)) for r in results(log)] == [set(map(str, r)) for r in before]


def test_a_matrix_keeps_subjects_of_like_names_apart(desk):
    (desk.folder / "a").mkdir()
    desk.write("a/b.py", RIGHT)
    desk.write("a_b.py", WRONG)
    assert desk.nnspec("matrix", "a/b.py", "a_b.py", *ALONE).code == 1
    reports = [desk.folder / "nnspec-report" / name / "report.json" for name in ("a_b_py", "a_b_py-2")]
    assert [json.loads(path.read_text())["conforms"] for path in reports] == [True, False]


def test_a_matrix_leaves_nothing_of_an_earlier_one(desk):
    desk.write("right.py", RIGHT)
    desk.write("wrong.py", WRONG)
    desk.nnspec("matrix", "wrong.py", *ALONE)
    assert desk.nnspec("matrix", "right.py", *ALONE).code == 0
    assert {path.name for path in (desk.folder / "nnspec-report").iterdir()} == {"right_py", "report.json", "matrix.md"}


def test_a_matrix_to_standard_output(desk):
    desk.write("right.py", RIGHT)
    done = desk.nnspec("matrix", "right.py", *ALONE, "--json", "-")
    assert done.code == 0
    assert json.loads(done.out)["conforms"]
    assert "| relu" in done.err

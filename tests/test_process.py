"""Programs in other languages as subjects: what they are sent, what their answers mean, and what their ends cost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from nnspec.adapters import SubjectError, Unsupported, load
from nnspec.adapters.blame import Ended, Raised
from nnspec.adapters.protocol import packed
from nnspec.conformance import check
from nnspec.conformance.case import Case
from nnspec.conformance.checks import load_checks
from nnspec.conformance.cli import main
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.record import Mismatch
from nnspec.conformance.trial.trial import Trial
from nnspec.reference.batch_norm import batch_norm, batch_norm_vjp

EXAMPLES = Path(__file__).parents[1] / "examples" / "protocol"
SCHEMA = json.loads(resources.files("nnspec.spec").joinpath("protocol.schema.json").read_text("utf-8"))
NAMES = ("cotangent", "cotangent1", "cotangent2")  # of the results of batch norm
X = {"x": np.array([1, -2], np.float32)}

# -- a convolution in C ------------------------------------------------------------------------------------------------


def test_columns_beyond_the_last_tile_are_named_and_repeated(desk, convolutions):
    shutil.copy(convolutions / "tail", desk.folder / "my_conv")
    options = ["--pyargs", "nnspec.conformance", "-q", "--nnspec-dtype", "float32", "--nnspec-sizes", "boundary"]
    options += ["-k", "output_value", "--nnspec-block", "conv2d"]
    done = desk.run("-m", "pytest", *options, "--nnspec-subject", "process:./my_conv")
    assert done.code == 1, done.out + done.err
    [record] = done.report["results"]
    assert record["failure"]["case"]["call"].startswith("conv2d(x(1, 1, 1, 5), weight(1, 1, 1, 1)")
    assert (record["failure"]["expected"], record["failure"]["actual"]) == ([[[[0, 0, 0, 0, 1]]]], [[[[0] * 5]]])
    assert [one["says"] for one in record["failure"]["boundaries"]] == ["OW > 4 and OW mod 4 ≠ 0"]
    script = record["failure"]["script"]
    assert desk.run(script).code == 1
    shutil.copy(convolutions / "right", desk.folder / "my_conv")
    assert desk.run(script).code == 0


def test_a_crash_and_a_hang_cost_one_check_each(desk, convolutions):
    shutil.copy(convolutions / "ends", desk.folder / "my_conv")
    options = ("--block", "conv2d", "--dtype", "float32", "-n", "1", "--timeout", "2")
    done = desk.nnspec("check", "--process", "./my_conv", *options)
    assert done.code == 1, done.out + done.err
    assert done.verdicts("crash") == {"conv2d.batch.empty", "conv2d.refuses.stride"}  # no crash is a refusal
    assert done.verdicts("timeout") == {"conv2d.gradient.empty"}
    others = {r["requirement"] for r in done.report["results"]} - done.verdicts("crash") - done.verdicts("timeout")
    assert others == done.verdicts("pass") | done.verdicts("unsupported")
    assert len(done.verdicts("pass")) > 30
    assert done.report["versions"]["program"] == "conv2d.c 1"
    log = json.loads((desk.folder / "nnspec-report" / "results.jsonl").read_text().splitlines()[0])
    assert str(desk.folder / "my_conv") in log["sources"]
    reasons = {r["requirement"]: r["reason"] for r in done.report["results"]}
    ended = "the call ended the program (SIGSEGV), whose standard error ended with: tile 0 of 0"
    assert reasons["conv2d.batch.empty"] == ended
    assert reasons["conv2d.refuses.stride"] == "the call ended the program (SIGFPE)"
    [crash] = [r for r in done.report["results"] if r["requirement"] == "conv2d.batch.empty"]
    assert desk.run(crash["failure"]["script"]).code == 1
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if _is_of(p, b"./my_conv\0", desk)]


def _is_of(path, command, desk):
    try:
        return path.read_bytes() == command and (path.parent / "cwd").resolve() == desk.folder
    except OSError:
        return False


# -- the other examples ------------------------------------------------------------------------------------------------

CONVOLUTION = ("conv2d.arguments.together", "conv2d.gradient.weight", "conv2d.refuses.window", "conv2d.batch.empty")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (["g++", "-O1", "-std=c++17", "-pthread", "-Wall", "-Wextra", "-Werror", EXAMPLES / "conv2d.cpp"], "3"),
        (["rustc", "--edition", "2021", "-O", "-D", "warnings", EXAMPLES / "conv2d.rs"], ""),
    ],
    ids=["c++", "rust"],
)
def test_the_examples_in_other_languages_are_right(tmp_path, command, arguments):
    if not shutil.which(command[0]) or subprocess.run([command[0], "--version"], check=False).returncode:
        pytest.skip(f"there is no {command[0]}")  # or a launcher of toolchains that finds none
    subprocess.run([*command, "-o", tmp_path / "my_conv"], check=True)
    subject = load(f"process:{tmp_path / 'my_conv'} {arguments}")
    for outcome in (*outcomes(subject, "float32", *CONVOLUTION), *outcomes(subject, "float64", CONVOLUTION[0])):
        assert outcome.verdict == "pass", outcome.reason


def test_the_example_in_cuda_compiles_and_is_right_where_there_is_a_device(tmp_path):
    if not shutil.which("nvcc"):
        pytest.skip("there is no nvcc")
    subprocess.run(["nvcc", "-std=c++17", "-o", tmp_path / "my_conv", EXAMPLES / "conv2d.cu"], check=True)
    subject = load(f"process:{tmp_path / 'my_conv'}")
    assert "vjp" in subject.lacks("conv2d", "function")
    if not shutil.which("nvidia-smi") or subprocess.run(["nvidia-smi"], capture_output=True, check=False).returncode:
        pytest.skip("it compiles, but there is no device to run it on")
    report = check(f"process:{tmp_path / 'my_conv'}", block="conv2d")
    assert report["conforms"], [r["reason"] for r in report["results"] if r["verdict"] == "fail"]


def test_the_example_in_triton_is_right(desk):
    pytest.importorskip("triton")
    path = EXAMPLES.parent / "triton_conv2d.py"
    text = """
    import runpy, sys, torch
    from nnspec.reference.conv2d import conv2d

    x, weight, bias = torch.randn(2, 4, 5, 37), torch.randn(6, 2, 3, 2), torch.randn(6)
    arguments = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    y = runpy.run_path(sys.argv[1])["conv2d"](*(a.to(device) for a in (x, weight, bias)), **arguments).cpu()
    expected = conv2d(x.double().numpy(), weight.double().numpy(), bias.double().numpy(), **arguments)
    assert y.shape == expected.shape
    assert abs(y.numpy() - expected).max() < 1e-4
    """
    desk.write("compare.py", text)
    on_device = shutil.which("nvidia-smi") and not subprocess.run(["nvidia-smi"], capture_output=True).returncode
    done = desk.run("compare.py", path, **({} if on_device else {"TRITON_INTERPRET": "1"}))
    assert done.code == 0, done.err


# -- programs in Python, of a few lines --------------------------------------------------------------------------------


def program(folder, text, shim=True):
    """The subject that a program is. `text` follows the import of the shim, or of what it takes to answer by hand."""
    first = "import sys, json\n"
    if shim:
        first += f"sys.path.append({str(EXAMPLES)!r})\nimport numpy as np\nfrom shim import Unsupported, serve\n"
    path = folder / "program.py"
    path.write_text(first + dedent(text))
    return f"process:{sys.executable} {path}"


def by_hand(folder, answer):
    """A program that says that it has relu, and answers every call with one text."""
    body = """
    from math import prod

    while line := sys.stdin.buffer.readline():
        header = json.loads(line)
        if header["request"] == "capabilities":
            answer = json.dumps({"nnspec": 1, "capabilities": {"blocks": {"relu": {}}}}) + "\\n"
        else:
            sys.stdin.buffer.read(4 * prod(header["arrays"][0]["shape"]))
            answer = ANSWER
        sys.stdout.write(answer)
        sys.stdout.flush()
    """
    return program(folder, dedent(body).replace("ANSWER", repr(answer)), shim=False)


def outcomes(subject, dtype, *identifiers):
    load_checks()
    return [Trial(subject, "function", dtype).run(CHECKS[identifier]) for identifier in identifiers]


def test_the_shim_serves_results_gradients_refusals_and_lacks(tmp_path):
    spec = program(
        tmp_path,
        """
        from nnspec.reference.batch_norm import batch_norm, batch_norm_vjp

        NAMES = ("x", "running_mean", "running_var", "weight", "bias")

        def gradient(cotangent, cotangent_running_mean=None, cotangent_running_var=None, **given):
            operands = [given.pop(name, None) for name in NAMES]
            of_all = (cotangent, cotangent_running_mean, cotangent_running_var)
            cotangent = cotangent if cotangent_running_mean is None else of_all
            return dict(zip(NAMES, batch_norm_vjp(cotangent, *operands, **given)))

        def relu(x):
            print("is not taken for an answer")
            if x.ndim == 1:
                raise Unsupported("one axis")
            return np.maximum(x, 0)

        declared = {"batch_norm": {"dtypes": ["float64"]}}
        serve({"batch_norm": batch_norm, "relu": relu}, {"batch_norm": gradient}, declared, name="mine", version="2")
        """,
    )
    subject, rng = load(spec), np.random.default_rng(0)
    assert subject.versions["program"] == "mine 2"
    assert subject.within("batch_norm").dtypes == ("float64",)
    assert subject.lacks("relu", "function") == {"vjp", "vjp of vjp", "jvp"}
    with pytest.raises(Unsupported, match="one axis"):
        subject.call("relu", "function", X, {})
    arrays = {"x": rng.normal(size=(4, 3)), "running_mean": rng.normal(size=3), "running_var": np.ones(3)}
    arrays |= {"weight": None, "bias": rng.normal(size=3)}
    arguments = {"training": True, "momentum": 0.1, "eps": 1e-5}
    found = subject.call("batch_norm", "function", arrays, arguments)
    assert all(map(np.array_equal, found, batch_norm(*arrays.values(), **arguments)))
    with pytest.raises(Raised) as raised:
        subject.call("batch_norm", "function", arrays | {"x": np.ones((1, 3))}, arguments)
    assert "ValueError" in str(raised.value.error)
    cotangents = {n: rng.normal(size=a.shape) for n, a in zip(NAMES, found, strict=True)}
    gradients = subject.gradients("batch_norm", "function", arrays | cotangents, arguments)
    expected = batch_norm_vjp(tuple(cotangents.values()), *arrays.values(), **arguments)
    assert all(np.array_equal(gradients[n], expected[k]) for n, k in (("x", 0), ("bias", 4)))


def test_bfloat16_and_empty_arrays_cross(tmp_path):
    serve = 'import ml_dtypes\nserve({"relu": lambda x: np.maximum(x, 0)}, None, {"relu": {"dtypes": ["bfloat16"]}})'
    subject = load(program(tmp_path, serve)).within("relu")
    assert subject.dtypes == ("bfloat16",)
    for outcome in outcomes(subject, "bfloat16", "relu.positive.kept", "relu.output.dtype", "relu.output.size"):
        assert outcome.verdict == "pass", outcome.reason


def test_a_program_is_sent_operands_and_arguments_alone(tmp_path):
    answer = 'serve({"conv2d": lambda **given: np.zeros(0)}, None, {"conv2d": {"takes": ["bias", "stride"]}})'
    log = tmp_path / "log"
    text = f"""
    import os

    class Noted:
        def __init__(self, stream):
            self.read, self._readline = stream.read, stream.readline
            self.buffer = self

        def readline(self):
            line = self._readline()
            with open({str(log)!r}, "ab") as file:
                file.write(line)
            return line

    open({str(tmp_path / "names")!r}, "w").write(" ".join(os.environ))
    sys.stdin = Noted(sys.stdin.buffer)
    """
    names = ("conv2d.bias.per-channel", "conv2d.stride.step", "conv2d.refuses.stride", "conv2d.batch.empty")
    outcomes(load(program(tmp_path, dedent(text) + answer)), "float32", *names)
    headers = [json.loads(line) for line in log.read_bytes().splitlines()]
    validator = Draft202012Validator(SCHEMA)
    assert not [error.message for header in headers for error in validator.iter_errors(header)]
    assert len(headers) > 100
    assert {name for header in headers for name in header.get("arguments", ())} == {"stride"}
    assert {one["name"] for header in headers for one in header["arrays"]} == {"x", "weight", "bias"}
    assert not [name for name in (tmp_path / "names").read_text().split() if name.startswith("PYTEST")]


def test_a_program_tells_its_domain(tmp_path):
    text = """
    def relu(x):
        if x.size % 4:
            raise ValueError("four elements at a time")
        return np.maximum(x, 0)

    serve({"relu": relu}, blocks={"relu": {"domain": {"size": {"multiple_of": 4}}}})
    """
    subject = load(program(tmp_path, text)).within("relu")
    assert str(subject.domain("relu")) == "size=multiple_of(4)"
    load_checks()
    for name in ("relu.infinite.value", "relu.domain.outside"):
        outcome = Trial(subject, "function", "float32").run(CHECKS[name])
        assert (outcome.verdict, outcome.cases > 5) == ("pass", True), outcome
    with pytest.raises(SubjectError, match=r"DOMAIN: relu\.sizes: no such quantity, did you mean 'size'"):
        load(program(tmp_path, text.replace('"size"', '"sizes"')))


def test_the_schema_knows_every_kind_of_message():
    validator = Draft202012Validator(SCHEMA)
    Draft202012Validator.check_schema(SCHEMA)
    page = resources.files("nnspec.spec").joinpath("protocol.md").read_text("utf-8")
    shown = [json.loads(line) for line in page.splitlines() if line.startswith('{"nnspec"')]
    sent = json.loads(packed({"request": "gradients", "block": "relu", "arguments": {}}, X).partition(b"\n")[0])
    for header in (*shown, sent, {"nnspec": 1, "refused": "why"}):
        assert not list(validator.iter_errors(header)), header
    for wrong in ({"nnspec": 2, "refused": ""}, {"nnspec": 1}, {"nnspec": 1, "request": "forward", "arrays": []}):
        assert list(validator.iter_errors(wrong)), wrong


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("what?\n", "answered 'what?', expected a line of JSON"),
        ('{"nnspec": 2, "arrays": []}\n', 'expected an object with "nnspec": 1'),
        ('{"nnspec": 1}\n', "expected one of arrays, refused, unsupported, capabilities"),
        ('{"nnspec": 1, "arrays": []}\n', "the answer has no array of the result's name"),
        ('{"nnspec": 1, "arrays": {}}\n', "answered arrays with dict, expected a list"),
        ('{"nnspec": 1, "arrays": [{"name": "y", "dtype": "text", "shape": []}]}\n', "dtype 'text'"),
        ('{"nnspec": 1, "arrays": [{"name": "y", "dtype": "bool", "shape": [-1]}]}\n', "shape [-1]"),
        ('{"nnspec": 1, "arrays": [{"name": "y", "dtype": "bool", "shape": [1]}]}\nabc', "3 bytes of arrays or more"),
        ('{"nnspec": 1, "arrays": [{"name": "y", "dtype": "int64", "shape": [65536, 65536]}]}\n', "too many"),
        ('{"nnspec": 1, "refused": 1}\n', "answered refused with int"),
        ('{"nnspec": 1, "capabilities": {}}\n', "answered forward with its capabilities"),
    ],
)
def test_an_answer_of_another_form_is_a_failure_of_the_program(tmp_path, answer, says):
    trial = Trial(load(by_hand(tmp_path, answer)), "function", "float32")
    for _ in range(2):  # the program is started anew
        with pytest.raises(Mismatch) as mismatch:
            trial(Case("relu", X))
        assert says in mismatch.value.message
        assert mismatch.value.raised is None


def test_wrong_answers_are_a_finding_and_no_error_of_nnspec(tmp_path):
    [outcome] = outcomes(load(by_hand(tmp_path, "what?\n")), "float32", "relu.output.size")
    assert outcome.verdict == "fail"
    assert outcome.reason == "the program answered 'what?', expected a line of JSON"


def test_a_program_that_ended_is_started_anew(tmp_path):
    text = 'serve({"relu": lambda x: sys.exit(7) if x.ndim == 1 else np.maximum(x, 0)})'
    subject = load(program(tmp_path, text))
    for _ in range(2):
        with pytest.raises(Ended, match=r"the call ended the program \(exit status 7\)"):
            subject.call("relu", "function", X, {})
        [y] = subject.call("relu", "function", {"x": X["x"][None]}, {})
        assert y.tolist() == [[1, 0]]


def test_more_than_a_pipe_holds_crosses_in_both_directions(tmp_path):
    text = 'sys.stderr.write("x" * 10**6)\nserve({"relu": lambda x: np.maximum(x, 0)})'
    x = np.random.default_rng(0).normal(size=(3, 10**5))
    [y] = load(program(tmp_path, text)).call("relu", "function", {"x": x}, {})
    assert np.array_equal(y, np.maximum(x, 0))


# -- arrays in a file that both sides map ------------------------------------------------------------------------------

REQUIREMENTS = ("conv2d.arguments.together", "conv2d.gradient.weight", "conv2d.refuses.stride", "conv2d.batch.empty")
MAPPING = """
import os
while line := sys.stdin.buffer.readline():
    header = json.loads(line)
    answer = {"capabilities": {"maps": True, "blocks": {"relu": {}}}}
    if header["request"] != "capabilities":
        [x] = header["arrays"]
        if "file" in header:
            data = open(header["file"], "rb").read()[x["offset"] :]
            print(header["file"], file=open("paths", "a"))
        else:
            data = sys.stdin.buffer.read(4 * x["shape"][0])
        y = np.maximum(np.frombuffer(data, np.float32), 0)
        ANSWER
    sys.stdout.write(json.dumps({"nnspec": 1, **answer}) + "\\n")
    sys.stdout.flush()
"""


def mapping(folder, answer):
    """A program that maps, and answers with `answer`."""
    text = MAPPING.replace("        ANSWER", dedent(answer).strip().replace("\n", "\n" + 8 * " ").join((8 * " ", "")))
    return program(folder, "import numpy as np\n" + text, shim=False)


@pytest.mark.parametrize("name", ["right", "tail"])
def test_a_file_and_a_pipe_give_the_same_verdicts(convolutions, monkeypatch, name):
    found = {}
    monkeypatch.setattr("nnspec.adapters.in_file.LARGE", 1)
    for way in ("file", "pipe"):
        if way == "pipe":
            monkeypatch.setenv("NNSPEC_PIPE", "1")
        subject = load(f"process:{convolutions / name}")
        found[way] = [(o.verdict, o.cases, o.reason) for o in outcomes(subject, "float32", *REQUIREMENTS)]
    assert found["file"] == found["pipe"]
    assert {verdict for verdict, *_ in found["file"]} == ({"pass"} if name == "right" else {"pass", "fail"})


def test_the_shim_maps(tmp_path, monkeypatch):
    monkeypatch.setattr("nnspec.adapters.in_file.LARGE", 1)
    text = """
    def relu(x):
        x[...] = np.maximum(x, 0)  # its own copy
        return x

    serve({"relu": relu}, {"relu": lambda cotangent, x: {"x": cotangent * (x > 0)}})
    """
    subject = load(program(tmp_path, text))
    for outcome in outcomes(subject, "float32", "relu.positive.kept", "relu.gradient.empty", "relu.input.unchanged"):
        assert outcome.verdict == "pass", outcome.reason


def test_large_arrays_lie_in_a_file_that_is_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put = """
    with open(header["file"], "ab") as file:
        answer = {"arrays": [{**x, "name": "y", "offset": file.tell()}]}
        file.write(y.tobytes())
    """
    subject = load(mapping(tmp_path, put))
    x = np.random.default_rng(0).normal(size=10**5).astype(np.float32)
    [y] = subject.call("relu", "function", {"x": x}, {})
    assert np.array_equal(y, np.maximum(x, 0))
    [path] = (tmp_path / "paths").read_text().split()
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("size", "offset", "says"),
    [
        (2, "0", "answered with an offset in a file, and was given none"),
        (10**5, "4", "the file ends before 400004"),
        (10**5, "-1", "expected a number of bytes"),
    ],
)
def test_offsets_that_lie_nowhere_are_a_failure_of_the_program(tmp_path, monkeypatch, size, offset, says):
    monkeypatch.chdir(tmp_path)
    subject = load(mapping(tmp_path, f'answer = {{"arrays": [{{**x, "name": "y", "offset": {offset}}}]}}'))
    with pytest.raises(Ended, match=says):
        subject.call("relu", "function", {"x": np.ones(size, np.float32)}, {})


# -- programs that cannot be judged at all -----------------------------------------------------------------------------

CAPABLE = '{"nnspec": 1, "capabilities": %s}\n'


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("no\n", "asked for its capabilities, it answered 'no', expected a line of JSON"),
        ('{"nnspec": 2, "capabilities": {}}\n', 'expected an object with "nnspec": 1, the protocol\'s version'),
        ('{"nnspec": 1, "refused": ""}\n', "asked for its capabilities, it answered none"),
        (CAPABLE % '{"blocks": {}}', "asked for its capabilities, it answered none"),
        (CAPABLE % '{"blocks": {"conv2": {}}}', "'conv2' is no block, did you mean 'conv2d'"),
        (CAPABLE % '{"blocks": {"module": {}}}', "'module' is no block"),
        (CAPABLE % '{"blocks": {"relu": {"dtype": []}}}', "relu: 'dtype', did you mean 'dtypes'"),
        (CAPABLE % '{"blocks": {"relu": {"takes": ["alpha"]}}}', "relu: takes: 'alpha'; expected some of none"),
        (CAPABLE % '{"blocks": {"relu": {"dtypes": ["int8"]}}}', "expected some of float32, float64"),
        (CAPABLE % '{"blocks": {"relu": {}}, "author": ""}', "'author'; expected some of name, version, blocks"),
        ("", "the request for its capabilities ended the program (exit status 0)"),
    ],
)
def test_capabilities_that_say_nothing_are_told_to_the_user(tmp_path, told, says):
    with pytest.raises(SubjectError) as error:
        load(program(tmp_path, f"sys.stdin.readline()\nsys.stdout.write({told!r})\n", shim=False))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--process", "./absent"], "process:./absent: cannot be started: there is no such program"),
        (["--process", "./text"], "process:./text: cannot be started: it is not executable"),
        (["--process", "./text 'x"], "no closing quotation"),
        (["--process", " "], "expected a command, such as './my_conv'"),
        (["--process", "./true", "torch"], "--process ./true: expected no other subject, not torch"),
        (["--process", "./true", "--as", "conv2d"], "a program says itself which blocks it has"),
        ([], "arguments are required: subject, or --process and a command"),
    ],
)
def test_a_program_that_cannot_be_started_is_misuse(desk, monkeypatch, capfd, arguments, says):
    desk.write("text", "no program")
    monkeypatch.chdir(desk.folder)
    assert main(["check", *arguments]) == 2
    assert says in capfd.readouterr().err


def test_a_program_that_ends_at_once_is_misuse(desk):
    path = desk.write("ends", "#!/bin/sh\necho needs a GPU >&2\nexit 3\n")
    path.chmod(0o755)
    done = desk.nnspec("check", "--process", "./ends", "-n", "1")
    assert done.code == 2, done.out + done.err
    assert "(exit status 3), whose standard error ended with: needs a GPU" in done.err


def test_a_program_has_no_framework_and_no_device(tmp_path):
    spec = by_hand(tmp_path, "")
    with pytest.raises(SubjectError, match="gets arrays of no framework"):
        load(spec, framework="torch")
    with pytest.raises(SubjectError, match="arrays that have no device"):
        load(spec, device="cuda")

"""Vectors on file: what export writes, that its bounds suffice by themselves, and what judge makes of answers."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from nnspec.adapters import SubjectError, load
from nnspec.adapters.vectors import read_arrays, write_arrays
from nnspec.conformance import export
from nnspec.conformance.checks import load_checks
from nnspec.conformance.cli import main
from safetensors.numpy import load_file, save_file

EXAMPLES = Path(__file__).parents[1] / "examples" / "protocol"
SCHEMA = json.loads(resources.files("nnspec.spec").joinpath("vectors.schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    """A folder with the vectors of relu in float32 and bfloat16, and the manifest."""
    load_checks()
    folder = tmp_path_factory.mktemp("vectors") / "relu"
    about = {"relu": {"dtypes": ["float32", "bfloat16"], "gradients": True}}
    return folder, export.export(folder, about, "quick", "boundary", 0)


@pytest.fixture
def folder(relu, tmp_path):
    return Path(shutil.copytree(relu[0], tmp_path / "vectors"))


def answer(folder, rectify=lambda x: np.maximum(x, 0), derivative=lambda g, x: np.where(x > 0, g, np.zeros_like(g))):
    """Write the answers of an implementation of relu."""
    vectors = json.loads((folder / "manifest.json").read_text())["vectors"]
    for file in {vector["file"] for vector in vectors}:
        operands, answers = read_arrays(folder / "operands" / f"{file}.safetensors"), {}
        for number in (vector["id"] for vector in vectors if vector["file"] == file):
            x = operands[f"{number}.x"]
            if f"{number}.cotangent" in operands:
                answers[f"{number}.x"] = derivative(operands[f"{number}.cotangent"], x)
            else:
                answers[f"{number}.y"] = rectify(x)
        write_arrays(folder / "answers" / f"{file}.safetensors", answers)


# -- a convolution in C ------------------------------------------------------------------------------------------------


def test_answers_of_a_convolution_in_c_are_judged(desk, convolutions):
    options = ("--block", "conv2d", "--dtype", "float32", "--profile", "quick")
    assert desk.nnspec("export", *options, "vectors").code == 0
    manifest = json.loads((desk.folder / "vectors" / "manifest.json").read_text())
    assert not list(Draft202012Validator(SCHEMA).iter_errors(manifest))
    assert {vector["expected"] for vector in manifest["vectors"]} == {"values", "refusal"}
    desk.run(EXAMPLES / "answer.py", "vectors", convolutions / "right")
    done = desk.nnspec("judge", "vectors", "-n", "1")
    assert done.code == 0, done.out + done.err
    assert len(done.verdicts("pass")) > 30
    assert done.verdicts("fail") == done.verdicts("not run") == set()
    desk.run(EXAMPLES / "answer.py", "vectors", convolutions / "tail")
    done = desk.nnspec("judge", "vectors", "-n", "1")
    assert done.code == 1, done.out + done.err
    [record] = [r for r in done.report["results"] if r["requirement"] == "conv2d.output.value"]
    actual, expected = (np.array(record["failure"][name]) for name in ("actual", "expected"))
    assert actual.shape[-1] % 4  # the last columns, which do not fill a tile of four, are missing
    assert np.allclose(actual[..., :4], expected[..., :4])
    assert not actual[..., 4:].any()
    assert "expected" in done.out
    assert "wrong\n" in done.out
    script = desk.run(record["failure"]["script"])
    assert script.code == 1
    assert "vector " in script.out


def test_vectors_lie_in_a_domain(tmp_path):
    folder = tmp_path / "vectors"
    options = ["--block", "relu", "--dtype", "float32", "--domain", "relu.size=multiple_of(4)"]
    assert main(["export", *options, str(folder)]) == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert not list(Draft202012Validator(SCHEMA).iter_errors(manifest))
    assert manifest["blocks"]["relu"]["domain"] == {"size": {"multiple_of": 4}}
    operands = load_file(folder / "operands" / "relu-float32.safetensors")
    sizes = {v["id"]: operands[f"{v['id']}.x"].size for v in manifest["vectors"]}
    outside = {v["id"] for v in manifest["vectors"] if v["requirements"] == ["relu.domain.outside"]}
    assert {size % 4 for number, size in sizes.items() if number not in outside} == {0}
    assert outside
    answer(folder)
    assert main(["judge", str(folder), "-n", "0", "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["domains"] == {"relu": "size=multiple_of(4)"}
    assert main(["export", "--block", "relu", "--domain", "relu.size=0", str(tmp_path / "none")]) == 2


# -- the files ---------------------------------------------------------------------------------------------------------


def test_the_bound_of_every_element_is_enough_to_judge_it(relu):
    folder, manifest = relu
    assert not list(Draft202012Validator(SCHEMA).iter_errors(manifest))
    assert {vector["file"] for vector in manifest["vectors"]} == {"relu-float32", "relu-bfloat16"}
    assert {vector["expected"] for vector in manifest["vectors"]} == {"values"}
    operands = load_file(folder / "operands" / "relu-float32.safetensors")
    expected = load_file(folder / "expected" / "relu-float32.safetensors")
    for vector in (vector for vector in manifest["vectors"] if vector["file"] == "relu-float32"):
        x = operands[f"{vector['id']}.x"]
        name = "y" if vector["request"] == "forward" else "x"
        value, bound = (expected[f"{vector['id']}.{name}{of}"] for of in ("", ".bound"))
        assert value.shape == x.shape
        assert bound.shape in ((), x.shape)
        assert not bound.any()
        if name == "y":
            assert np.array_equal(value, np.maximum(x, 0), equal_nan=True)


def test_the_bound_holds_what_the_value_loses_in_float64():
    from nnspec.conformance.bounds.rule import Expected

    value = np.longdouble(1) / 3 + np.zeros(2, np.longdouble)
    kept, bound = export.stored(Expected(value, np.array([1e-17, 0.0])), np.float64)
    assert kept.dtype == bound.dtype == np.float64
    assert (abs(np.longdouble(kept) - value) + np.array([1e-17, 0]) <= bound).all()
    kept, bound = export.stored(Expected(np.array([np.nan, np.inf, 1.0]), 0.0), np.float32)
    assert (kept.dtype, bound.shape, float(bound)) == (np.float32, (), 0)
    assert np.isnan(kept[0])
    kept, bound = export.stored(Expected(np.array([0.1, 0.5]), 1e-9), np.float32)
    assert (kept.dtype, bound.shape) == (np.float64, ())
    assert 1e-9 < bound < 1.0000001e-9


def test_safetensors_are_those_of_the_library(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "b.c": np.zeros((0, 2)), "d": np.float32([1, np.nan])}
    arrays |= {"scalar": np.array(1.5, np.float16), "flags": np.array([True, False])}
    write_arrays(tmp_path / "ours", arrays)
    save_file(arrays, tmp_path / "theirs", {"by": "another"})
    for found in (load_file(tmp_path / "ours"), read_arrays(tmp_path / "theirs")):
        assert found.keys() == arrays.keys()
        assert all(found[n].dtype == a.dtype and found[n].tobytes() == a.tobytes() for n, a in arrays.items())
        assert all(found[n].shape == a.shape for n, a in arrays.items())
    half = np.array([1, -2], ml_dtypes.bfloat16)
    write_arrays(tmp_path / "half", {"x": half})
    assert read_arrays(tmp_path / "half")["x"].tobytes() == half.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a file of arrays",
        (9**9).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + b"[]",
        (53).to_bytes(8, "little") + b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}'[:53],
        (54).to_bytes(8, "little") + b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}1234',
        (54).to_bytes(8, "little") + b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}123',
        (54).to_bytes(8, "little") + b'{"x":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}1234',
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ValueError, match="not a file of safetensors that nnspec can read"):
        read_arrays(tmp_path / "file")


# -- answers -----------------------------------------------------------------------------------------------------------


def judged(folder, monkeypatch, *options):
    """The exit code of judge, and the report."""
    monkeypatch.chdir(folder.parent)
    code = main(["judge", str(folder), "-n", "0", *options])
    return code, json.loads((folder.parent / "nnspec-report" / "report.json").read_text())


def test_right_answers_conform(folder, monkeypatch):
    answer(folder)
    code, report = judged(folder, monkeypatch)
    assert code == 0, [r["reason"] for r in report["results"] if r["verdict"] not in ("pass", "unsupported")]
    assert {r["dtype"] for r in report["results"] if r["verdict"] == "pass"} == {"float32", "bfloat16"}
    assert "relu.output.fresh" in {r["requirement"] for r in report["results"] if r["verdict"] == "unsupported"}


def test_wrong_answers_have_a_cause_and_a_smallest_vector(folder, monkeypatch):
    answer(folder, derivative=lambda g, x: np.where(x >= 0, g, np.zeros_like(g)))
    code, report = judged(folder, monkeypatch)
    assert code == 1
    wrong = {r["requirement"]: r for r in report["results"] if r["verdict"] == "fail" and r["dtype"] == "float32"}
    assert "relu.gradient.zero" in wrong
    assert [cause["fault"] for cause in wrong["relu.gradient.zero"]["failure"]["causes"]]


def test_a_vector_without_an_answer_is_not_judged(folder, monkeypatch):
    answer(folder)
    path = folder / "answers" / "relu-float32.safetensors"
    answers = read_arrays(path)
    manifest = json.loads((folder / "manifest.json").read_text())
    refused = {vector["id"] for vector in manifest["vectors"] if "relu.positive.kept" in vector["requirements"]}
    write_arrays(path, {name: array for name, array in answers.items() if name.partition(".")[0] not in refused})
    others = {number: {"unsupported": "only on Mondays"} for number in refused}
    (folder / "answers" / "relu-float32.json").write_text(json.dumps(others))
    code, report = judged(folder, monkeypatch)
    assert code == 1
    [kept] = [r for r in report["results"] if (r["requirement"], r["dtype"]) == ("relu.positive.kept", "float32")]
    assert kept["verdict"] == "not run"
    assert "declined: only on Mondays" in kept["reason"]


def test_a_refusal_on_file_is_a_refusal(folder):
    answer(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    vector = next(v for v in manifest["vectors"] if v["request"] == "forward" and v["file"] == "relu-float32")
    (folder / "answers" / "relu-float32.json").write_text(json.dumps({vector["id"]: {"refused": "too small"}}))
    x = read_arrays(folder / "operands" / "relu-float32.safetensors")[f"{vector['id']}.x"]
    with pytest.raises(Exception, match="Refused") as raised:
        load(f"answers:{folder}").call("relu", "function", {"x": x}, {})
    assert str(raised.value.error) == "too small"


# -- what cannot be exported or judged ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--block", "module", "new"], "--block module: expected a block with a form as a function, one of einsum"),
        (["--block", "conv2d", "--takes", "alpha", "new"], "--takes alpha: expected some of bias, dilation, groups"),
        (["--block", "relu", "."], ".: expected an empty folder, or none"),
        (["--block", "relu", "file"], "file: expected an empty folder, or none"),
    ],
)
def test_an_export_that_cannot_be_is_misuse(tmp_path, monkeypatch, capfd, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["export", *arguments]) == 2
    assert says in capfd.readouterr().err


def test_what_an_implementation_takes_decides_what_is_exported(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    options = ["--block", "linear", "--dtype", "float32", "--takes", "", "--no-gradients"]
    assert main(["export", *options, "new"]) == 0
    manifest = json.loads((tmp_path / "new" / "manifest.json").read_text())
    assert {name for vector in manifest["vectors"] for name in vector["operands"]} == {"x", "weight"}
    assert {vector["request"] for vector in manifest["vectors"]} == {"forward"}
    assert f"{len(manifest['vectors'])} vectors in new: " in capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: None, "there are no answers; spec/vectors.md says what to write there"),
        (lambda path: path.unlink(), "manifest.json"),
        (lambda path: path.write_text("{"), "not valid JSON"),
        (lambda path: path.write_text("{}"), "expected the schema urn:nnspec:vectors:1"),
        (
            lambda path: path.write_text(path.read_text().replace('"nnspec": "', '"nnspec": "0')),
            "export the vectors again",
        ),
        (lambda path: (path.parent / "answers" / "relu-float32.safetensors").write_bytes(b"no"), "not a file of"),
    ],
)
def test_a_folder_that_cannot_be_judged_is_named(folder, change, says):
    change(folder / "manifest.json")
    with pytest.raises(SubjectError) as error:
        load(f"answers:{folder}")
    assert says in str(error.value)

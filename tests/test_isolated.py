"""Files in a process of their own: what hostile ones try there, and what becomes of it."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from nnspec.adapters import SubjectError, load
from nnspec.adapters.memory import Memory, shared
from nnspec.adapters.views import whole_of
from nnspec.conformance.checks import load_checks
from nnspec.conformance.layouts import LAYOUTS, guarded
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.trial import Trial

HEAD = """
import ctypes, gc, os, sys, threading, time
import numpy as np

def right(x):
    return np.maximum(x, np.zeros((), x.dtype))

"""
HOSTILE = {
    "searches the garbage collector and frames": """
def found(x):
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *gc.get_objects()]:
            value = getattr(value, "value", value)
            if type(value) is np.ndarray and value is not x and value.shape == x.shape and (value >= 0).all():
                return np.array(value)
        frame = frame.f_back
    return np.zeros_like(x)

relu = found
""",
    "patches NumPy": """
for name in ("allclose", "array_equal", "isclose", "all"):
    setattr(np, name, lambda *given, **named: True)
np.testing.assert_allclose = np.testing.assert_array_equal = lambda *given, **named: None
np.abs = np.zeros_like

def relu(x):
    return x * 0
""",
    "patches the adapter and the judge": """
from nnspec.adapters.for_numpy import NumPy
from nnspec.conformance.bounds import rule
from nnspec.conformance.trial.trial import Trial
Trial.expect = lambda *given, **named: None
rule.correct = lambda actual, expected: np.ones(actual.shape, bool)
NumPy.to_numpy = lambda self, value: np.asarray(value)

def relu(x):
    return x * 0
""",
    "behaves where pytest or a check is on the stack": """
def relu(x):
    frame, files = sys._getframe(), []
    while frame:
        files.append(frame.f_code.co_filename)
        frame = frame.f_back
    judged = any("conformance" in f or os.path.basename(f).startswith("test_") for f in files)
    watched = judged or "pytest" in sys.modules
    return right(x) if watched or any(name.startswith("PYTEST") for name in os.environ) else x * 0
""",
    "caches by pointer": """
KEPT = {}

def relu(x):
    return KEPT.setdefault((x.ctypes.data, x.shape), right(x))
""",
    "caches by some of the content": """
KEPT = {}

def relu(x):
    return KEPT.setdefault((x.shape, float(x.flat[0]) if x.size else 0.0), right(x))
""",
    "writes to inputs": """
def relu(x):
    y = right(x)
    x[...] = 0
    return y
""",
    "returns a view of a recycled buffer": """
MEMORY = np.zeros(1_000_000)

def relu(x):
    view = MEMORY.view(x.dtype)[: x.size].reshape(x.shape)
    view[...] = right(x)
    return view
""",
    "is right for the first ten calls": """
CALLS = []

def relu(x):
    CALLS.append(1)
    return right(x) if len(CALLS) <= 10 else x
""",
    "knows the sizes that tests use": """
def relu(x):
    return right(x) if max(x.shape, default=0) <= 5 else x
""",
    "takes NaN for a wildcard": """
def relu(x):
    return np.full_like(x, np.nan)
""",
    "gives zeros where results are small": """
def relu(x):
    y = right(x)
    return np.where(y < 1e-2, 0, y).astype(x.dtype)
""",
    "returns an array with a lying __eq__ and shape": """
class Liar(np.ndarray):
    shape = property(lambda self: (2, 3))
    __eq__ = lambda self, other: np.ones(np.shape(other), bool)
    __ne__ = lambda self, other: np.zeros(np.shape(other), bool)
    __sub__ = __rsub__ = __abs__ = lambda self, *other: np.zeros(1)

def relu(x):
    return np.zeros(1, x.dtype).view(Liar)
""",
    "finishes later in a thread": """
def relu(x):
    y, copy = np.zeros_like(x), np.array(x)

    def later():
        time.sleep(0.2)
        y[...] = right(copy)

    threading.Thread(target=later, daemon=True).start()
    return y
""",
    "looks on as results are compared": """
def relu(x):
    y = np.zeros_like(x)

    def look(frame, event, given):
        for value in [*frame.f_locals.values()] if event == "call" else ():
            value = getattr(value, "value", value)
            if type(value) is np.ndarray and value is not x and value.shape == y.shape and (value >= 0).all():
                y[...] = value

    sys.settrace(look)
    sys.setprofile(look)
    return y
""",
    "makes NumPy raise for what is rounded": """
def relu(x):
    np.seterr(all="raise")
    return x * 0
""",
    "patches how files and time are read": """
os.read = os.pread = lambda *given: b""
time.monotonic = time.perf_counter = lambda: 0.0

def relu(x):
    return x * 0
""",
    "returns memory that another process writes later": """
import mmap

def relu(x):
    memory = mmap.mmap(-1, max(x.nbytes, 1))
    y = np.ndarray(x.shape, x.dtype, memory)
    if x.ndim == 2 and os.fork() == 0:
        time.sleep(0.05)
        y[...] = right(x)
        os._exit(0)
    return y
""",
    "writes to what nnspec reads": """
def relu(x):
    for number in range(3, 40):
        try:
            os.write(number, b'{"nnspec": 1, "arrays": "all right"}\\n')
        except OSError:
            pass
    return right(x)
""",
}
# what only a process of its own can try without harm to this one
APART = {
    "cuts the memory in which operands lie": """
import glob

def relu(x):
    for place in {line.split()[-1] for line in open("/proc/self/maps") if "/nnspec-" in line}:
        if os.path.exists(place):
            os.truncate(place, 0)
    return np.zeros(x.shape, x.dtype)
""",
}
HERE = (
    "looks on as results are compared",
    "makes NumPy raise for what is rounded",
    "returns memory that another process writes later",
    "caches by pointer",
    "takes NaN for a wildcard",
)
CHECKED = ("positive.kept", "negative.zero", "output.fresh", "input.unchanged", "call.stateless")


def verdicts(tmp_path, text, names=CHECKED):
    load_checks()
    (tmp_path / "hostile.py").write_text(HEAD + text)
    subject = load(f"isolated:{tmp_path / 'hostile.py'}")
    trial = Trial(subject, "function", "float32", sizes="boundary")
    return subject, [trial.run(CHECKS[f"relu.{name}"], simplify=False) for name in names]


@pytest.mark.parametrize("text", (HOSTILE | APART).values(), ids=HOSTILE | APART)
def test_hostile_files_fail_or_tamper(tmp_path, text):
    _, outcomes = verdicts(tmp_path, text)
    assert {outcome.verdict for outcome in outcomes} & {"fail", "tampers"}


@pytest.mark.parametrize("what", HERE)
def test_some_hostile_files_fail_without_isolation_too(tmp_path, what):
    load_checks()
    (tmp_path / "hostile.py").write_text(HEAD + HOSTILE[what])
    before = np.geterr()
    trial = Trial(load(str(tmp_path / "hostile.py")), "function", "float32", sizes="boundary")
    assert "fail" in {trial.run(CHECKS[f"relu.{name}"], simplify=False).verdict for name in CHECKED}
    assert np.geterr() == before
    assert sys.getprofile() is None


def test_a_write_to_the_channel_is_no_mere_mistake(tmp_path):
    _, (outcome, *_) = verdicts(tmp_path, HOSTILE["writes to what nnspec reads"])
    assert outcome.verdict == "tampers"
    assert "wrote to what nnspec reads" in outcome.failure.message


@pytest.mark.parametrize(
    ("what", "requirement"),
    [("writes to inputs", "input.unchanged"), ("returns a view of a recycled buffer", "output.fresh")],
)
def test_what_happens_to_memory_is_seen_from_outside(tmp_path, what, requirement):
    _, outcomes = verdicts(tmp_path, HOSTILE[what], (requirement, "positive.kept"))
    assert [outcome.verdict for outcome in outcomes] == ["fail", "pass"]


def test_right_files_pass_and_hold_no_judge(tmp_path):
    text = """
    print("this is no answer")

    def relu(x):
        assert not any(name.startswith(("nnspec.conformance", "nnspec.reference", "pytest")) for name in sys.modules)
        return right(x)
    """
    memory = ("memory.in-bounds", "memory.all-written", "memory.alignment", "input.layout")
    subject, outcomes = verdicts(tmp_path, text.replace("\n    ", "\n"), (*CHECKED, *memory))
    assert {outcome.verdict for outcome in outcomes} == {"pass"}
    assert "uses" not in subject.versions


def test_a_file_that_uses_the_reference_is_right_and_told(tmp_path):
    text = """
def relu(x):
    from nnspec.reference.relu import relu
    return relu(x)
"""
    subject, outcomes = verdicts(tmp_path, text)
    assert {outcome.verdict for outcome in outcomes} == {"pass"}
    assert subject.versions["uses"] == "nnspec"


def test_classes_are_called_with_their_parameters(tmp_path):
    load_checks()
    (tmp_path / "layers.py").write_text("import torch\nclass Linear(torch.nn.Linear):\n    pass\n")
    subject = load(f"isolated:{tmp_path / 'layers.py'}")
    assert subject.versions["torch"]
    for name in ("weight.orientation", "gradient.weight", "memory.in-bounds"):
        assert Trial(subject, "class", "float32").run(CHECKS[f"linear.{name}"]).verdict == "pass"


def test_declarations_cross(tmp_path):
    text = """
from nnspec.adapters import multiple_of
DOMAIN = {"conv2d": {"stride": 1, "kernel_size": (3, 3), "in_channels": multiple_of(16), "dtype": "float16"}}
DIFFERS = {"relu.nan.propagates": ("0", "as fmaxf does")}
UNSUPPORTED = {"relu.gradient.*": "no gradients"}
DTYPES = {"relu": ("float32",)}
TILES = (64,)

def relu(x):
    return x

def conv2d(x, weight, bias=None):
    return x
"""
    (tmp_path / "layers.py").write_text(text)
    here, there = load(str(tmp_path / "layers.py")), load(f"isolated:{tmp_path / 'layers.py'}")
    assert str(here.domain("conv2d")) == str(there.domain("conv2d"))
    for name in ("unsupported", "differs", "of_block", "tiles", "dtypes"):
        assert getattr(here, name) == getattr(there, name)
    assert "stride" in there.lacks("conv2d", "function")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_operands_cross_as_they_lie_in_memory(layout):
    a = LAYOUTS[layout](np.ones((2, 3, 4), np.float32))
    with Memory({"a": a}) as memory:
        there = shared(memory.header)["a"]
        assert (there.strides, there.dtype) == (a.strides, a.dtype)
        assert np.array_equal(there, a)
        del there


def test_writes_come_back_to_the_operand_and_to_what_lies_around_it():
    a = guarded(np.ones(3, np.float32), 4, 97.0)
    with Memory({"a": a}) as memory:
        there = shared(memory.header)["a"]
        there[...] = 5
        np.lib.stride_tricks.as_strided(there, (4,))[3] = 6
        memory.write_back()
        del there
    assert a.tolist() == [5, 5, 5]
    assert 6 in whole_of(a)


def test_a_system_that_reads_and_writes_a_part_at_once_loses_nothing(monkeypatch):
    """Linux moves 2 GiB at most in one call."""
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda number, data, begin: write(number, data[:5], begin))
    monkeypatch.setattr(os, "preadv", lambda number, into, begin: read(number, [into[0][:5]], begin))
    a = np.arange(7.0)
    with Memory({"a": a}) as memory:
        there = shared(memory.header)["a"]
        assert np.array_equal(there, a)
        there += 1
        assert memory.write_back()
        del there
    assert np.array_equal(a, np.arange(7.0) + 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = 1 / 0", "ZeroDivisionError"), ("x = 1", "none of the names that nnspec checks")],
)
def test_what_cannot_be_loaded_is_told(tmp_path, text, message):
    (tmp_path / "layers.py").write_text(text)
    with pytest.raises(SubjectError, match=message):
        load(f"isolated:{tmp_path / 'layers.py'}")


def test_isolation_is_an_option(desk):
    desk.write("layers.py", HEAD + HOSTILE["patches the adapter and the judge"])
    done = desk.nnspec("check", "--isolate", "layers.py", "--block", "relu", "--dtype", "float32", "-n", "1")
    assert done.code == 1, done.out + done.err
    assert "relu.positive.kept" in done.verdicts("fail")
    assert done.report["versions"]["uses"] == "nnspec"
    script = next(r["failure"]["script"] for r in done.report["results"] if r["verdict"] == "fail")
    assert desk.run(script).code == 1

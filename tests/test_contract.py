"""An adapter from another package: found by its entry point, with no more than arrays and one derivative."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec.adapters import Unsupported
from nnspec.adapters.contract import Adapter
from nnspec.adapters.for_numpy import NumPy
from nnspec.adapters.subject import Lacks, Subject

ADAPTER = '''
    """Arrays as memoryviews, which must be contiguous."""

    import numpy as np
    from nnspec.adapters.contract import Adapter
    from nnspec.adapters.subject import Subject

    LOADED = []

    def relu(x):
        assert isinstance(x, memoryview) and x.c_contiguous
        return memoryview(np.maximum(np.asarray(x), 0))

    class Tiny(Adapter):
        name = "tiny"
        packages = ("tiny_adapter",)
        preamble = "import math"

        def __init__(self, profile="quick"):
            LOADED.append(profile)

        def to_native(self, array):
            return memoryview(array)

        def to_numpy(self, value):
            if not self.is_memory(value):
                raise TypeError(f"returned {type(value).__name__}, expected a memoryview")
            return np.array(value)

        def is_memory(self, value):
            return isinstance(value, memoryview)

        def versions(self):
            return {"tiny": "1.0", "profile": LOADED[-1]}

        def subject(self):
            return Subject.of(self, functions={"relu": relu}, recipe=lambda name: f"from tiny_adapter import {name}")
'''
WRONG = """
    import numpy as np
    import tiny_adapter

    def relu(x):
        tiny_adapter.relu(x)
        return memoryview(np.abs(np.asarray(x)))

    class ReLU:
        def __call__(self, x):
            return tiny_adapter.relu(x)
"""


@pytest.fixture
def tiny(desk):
    """A folder in which another package is installed."""
    desk.write("tiny_adapter.py", ADAPTER)
    installed = desk.folder / "tiny-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n", "utf-8")
    entries = "tiny = tiny_adapter:Tiny\nhalf = half_adapter:Half [all]\n"
    (installed / "entry_points.txt").write_text(f"[nnspec.adapters]\n{entries}", "utf-8")
    desk.write("half_adapter.py", "import no_such_framework")
    desk.environment["PYTHONPATH"] = str(desk.folder)
    return desk


def test_an_installed_adapter_is_a_subject(tiny):
    done = tiny.nnspec("check", "tiny", "--dtype", "float32", "-n", 0)
    assert done.code == 0, done.out + done.err
    assert done.report["versions"].items() >= {"tiny": "1.0", "profile": "quick"}.items()
    assert "relu.positive.kept" in done.verdicts("pass")
    assert "relu.gradient.positive" in done.verdicts("unsupported")  # it has no vjp
    assert "tiny" in tiny.nnspec("check", "--help").out


def test_a_file_on_an_installed_adapter_is_recognised_and_its_scripts_stand_alone(tiny):
    done = tiny.check(WRONG, "--dtype", "float32", "-n", 0)
    assert done.code == 1, done.out + done.err
    assert "relu.negative.zero" in done.verdicts("fail")
    assert {r["verdict"] for r in done.report["results"] if r["form"] == "class"} == {"unsupported"}
    failures = {r["requirement"]: r["failure"] for r in done.report["results"] if r["failure"]}
    script = failures["relu.negative.zero"]["script"]
    text = (tiny.folder / script).read_text("utf-8")
    assert "def is_memory(value):" in text
    assert "from nnspec" not in text
    assert tiny.run(script).code == 1


def test_an_adapter_without_its_framework_says_what_to_install_and_disturbs_no_file(tiny):
    done = tiny.nnspec("check", "half", "-n", 0)
    assert done.code == 2
    assert done.err == "nnspec: subject 'half' needs the package 'no_such_framework': pip install 'tiny[all]'\n"
    assert (
        tiny.check("import numpy as np\ndef relu(x): return np.maximum(x, 0)", "--dtype", "float32", "-n", 0).code == 0
    )


def test_an_absent_method_is_a_lack():
    adapter = Adapter()
    assert not hasattr(adapter, "vjp")
    with pytest.raises(Lacks, match="Adapter has no vjp"):
        adapter.vjp(None, [], [])
    with pytest.raises(Unsupported):
        Subject("bare", adapter, classes={"ReLU": object}).build("relu", {"x": np.ones(2)}, {})


def test_an_adapter_that_is_not_strided_gets_contiguous_copies():
    rows = np.ones((3, 2))[:, ::2]
    given = Subject.of(NumPy(), strided=False).to_native(rows)
    assert given.flags.c_contiguous
    assert not np.shares_memory(given, rows)
    assert Subject.of(NumPy()).to_native(rows) is rows

"""The kit for authors of adapters: it passes for those that work, and names each mistake of those that do not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from nnspec.adapters.for_numpy import NumPy
from nnspec.adapters.for_reference import Reference
from nnspec.adapters.names import adapters
from nnspec.conformance import kit

PAGE = Path(__file__).parents[1] / "spec" / "adapters.md"


@pytest.mark.parametrize("name", sorted(adapters()))
def test_every_installed_adapter_passes(name):
    if adapters()[name].extras:
        pytest.importorskip(adapters()[name].extras[0])
    lines, right = kit.report(kit.adapter_of(name))
    assert right, "\n".join(lines)
    assert sum(line.endswith(" ok") for line in lines) >= 5


def test_an_absent_capability_is_told():
    with pytest.raises(kit.Absent, match="no vjp: requirements on gradients are unsupported"):
        kit.run(kit.gradient_values, NumPy())
    with pytest.raises(kit.Absent, match="no class Linear comes with the adapter"):
        kit.run(kit.module_load, NumPy())


# -- mistakes ----------------------------------------------------------------------------------------------------------


class Slopes(NumPy):
    """NumPy with a vjp and a jvp by differences, which are exact for functions that are at most quadratic."""

    def vjp(self, function, operands, cotangents):
        return [
            sum(c * d for c, d in zip(cotangents, self._along(function, operands, n, np.ones_like(a)), strict=True))
            for n, a in enumerate(operands)
        ]

    def jvp(self, function, operands, tangents):
        along = [self._along(function, operands, n, t) for n, t in enumerate(tangents)]
        return [sum(parts) for parts in zip(*along, strict=True)]

    @staticmethod
    def _along(function, operands, n, tangent):
        """Elementwise functions alone: (f(a + t) - f(a - t)) / 2."""
        up, down = ([a + s * tangent if i == n else a for i, a in enumerate(operands)] for s in (1, -1))
        return [(y - z) / 2 for y, z in zip(function(*up), function(*down), strict=True)]


def planted(base, **methods):
    return type("Planted", (base,), methods)()


MISTAKES = {
    "narrows": (
        kit.array_values,
        NumPy,
        {"to_native": lambda self, a: np.asarray(a, "f4" if a.dtype.name == "float64" else a.dtype)},
        "an array of float64: dtype float32, expected float64",
    ),
    "whole numbers": (
        kit.array_values,
        NumPy,
        {"to_native": lambda self, a: a.astype("i4") if a.dtype == "i8" else a},
        "an array of int64: dtype int32, expected int64",
    ),
    "nan to zero": (
        kit.array_specials,
        NumPy,
        {"to_native": lambda self, a: np.nan_to_num(a, posinf=np.inf, neginf=-np.inf)},
        r"NaN, ±inf and -0 in float32: element \(0,\) is 0.0, expected nan",
    ),
    "loses the sign of zero": (
        kit.array_specials,
        NumPy,
        {"to_numpy": lambda self, v: v + 0},
        r"element \(3,\) is 0.0, expected -0.0",
    ),
    "numbers get a dimension": (
        kit.array_shapes,
        NumPy,
        {"to_native": lambda self, a: np.atleast_1d(a)},
        r"float32, shape \(\): shape \(1,\), expected \(\)",
    ),
    "empty arrays are flat": (
        kit.array_shapes,
        NumPy,
        {"to_numpy": lambda self, v: v if v.size else v.ravel()},
        r"shape \(0, 3\): shape \(0,\), expected \(0, 3\)",
    ),
    "copies although strided": (
        kit.array_layouts,
        NumPy,
        {"to_native": lambda self, a: np.ascontiguousarray(a)},
        "transposed float32: strides .*, since strided is True",
    ),
    "reads memory, not elements": (
        kit.array_layouts,
        NumPy,
        {
            "to_native": lambda self, a: (
                np.lib.stride_tricks.as_strided(a, a.shape, np.empty(a.shape, a.dtype).strides)
                if a.strides and min(a.strides) >= 0 and a.ndim == 3
                else a
            )
        },
        r"transposed float32: element .* is",
    ),
    "copies operands": (
        kit.array_places,
        NumPy,
        {"to_native": lambda self, a: np.array(a)},
        "what lies around float32: shape",
    ),
    "ends nothing": (kit.memory_dirtied, NumPy, {"dirty": lambda self, arrays: None}, "dirty.* returned None"),
    "takes lists": (
        kit.array_only,
        NumPy,
        {"to_numpy": lambda self, v: np.asarray(v)},
        r"to_numpy\(None\) returned .*, expected a TypeError",
    ),
    "not recognised": (kit.array_recognised, NumPy, {"packages": ("numbers",)}, r"recognises\(ndarray\) is False"),
    "recognises all": (
        kit.array_recognised,
        NumPy,
        {"recognises": classmethod(lambda cls, value: True)},
        r"recognises\(a class of nnspec\) is True",
    ),
    "no versions": (kit.versions_told, NumPy, {"versions": lambda self: {}}, r"versions\(\) returned {}"),
    "any device": (
        kit.device_unknown,
        NumPy,
        {"use_device": lambda self, device: ()},
        "raised nothing, expected a RuntimeError",
    ),
    "no cotangent": (
        kit.gradient_values,
        Slopes,
        {"vjp": lambda self, f, a, c: Slopes.vjp(self, f, a, [1])},
        "vjp of x·x·y, float32, number 0",
    ),
    "first cotangent alone": (
        kit.gradient_results,
        Slopes,
        {"vjp": lambda self, f, a, c: Slopes.vjp(self, lambda *x: f(*x)[:1], a, c[:1])},
        r"vjp of \(x·y, x\), number 0",
    ),
    "all gradients": (
        kit.gradient_selection,
        Slopes,
        {"differentiate": lambda self, f, a, k, w, c: Slopes.differentiate(self, f, a, k, [True] * len(w), c)},
        "a gradient for an operand that was not asked for",
    ),
    "gradients are constants": (
        kit.gradient_twice,
        Slopes,
        {"differentiate_again": lambda self, f, a, k, w, c, t: [n * 0 for n in (c, *a)]},
        "vjp of the vjp of x·x·y, number 0",
    ),
    "first tangent alone": (
        kit.tangent_values,
        Slopes,
        {"jvp": lambda self, f, a, t: Slopes.jvp(self, f, a, [t[0], *(n * 0 for n in t[1:])])},
        "jvp of x·x·y, number 0",
    ),
    "builds float64": (
        kit.module_dtype,
        Reference,
        {"construct": lambda self, cls, positional, keywords, dtype: cls(*positional, **keywords, dtype=np.float64)},
        "weight is float64, expected float32",
    ),
    "loads nothing": (
        kit.module_load,
        Reference,
        {"load_entries": lambda self, module, entries: None},
        "state, weight as loaded: element",
    ),
    "ignores unknown keys": (
        kit.module_load_part,
        Reference,
        {
            "load_entries": lambda self, module, entries: Reference.load_entries(
                self, module, {k: a for k, a in entries.items() if "." not in k}
            )
        },
        "load_entries of the key 'no_such.key' raised nothing",
    ),
    "state is no copy": (
        kit.module_copies,
        Reference,
        {"state": lambda self, module: {k: p.data for k, p in module.named_parameters()}},
        "bias, when what state returned is written to",
    ),
    "keeps what is loaded": (
        kit.module_copies,
        Reference,
        {
            "load_entries": lambda self, module, entries: (
                [setattr(getattr(module, key), "data", array) for key, array in entries.items()] and None
            )
        },
        "bias, when the array that was loaded is written to",
    ),
    "holds nothing": (kit.module_held, Reference, {"held": lambda self, module: {}}, "held: no 'weight'"),
    "always trains": (
        kit.module_modes,
        Reference,
        {"set_training": lambda self, module, training: module.train()},
        r"after set_training\(module, False\) the statistics moved in a call",
    ),
    "never trains": (
        kit.module_modes,
        Reference,
        {"set_training": lambda self, module, training: module.eval()},
        r"after set_training\(module, True\) the statistics did not move",
    ),
    "gradients of another sign": (
        kit.module_gradients,
        Reference,
        {
            "differentiate_module": lambda self, m, x, c: {
                k: -g for k, g in Reference.differentiate_module(self, m, x, c).items()
            }
        },
        "differentiate_module, the gradient of weight: element",
    ),
    "gradients without the bias": (
        kit.module_gradients,
        Reference,
        {
            "differentiate_module": lambda self, m, x, c: {
                k: g for k, g in Reference.differentiate_module(self, m, x, c).items() if k != "bias"
            }
        },
        "differentiate_module: no gradient of bias",
    ),
    "transposes": (
        kit.block_values,
        Reference,
        {"to_native": lambda self, a: a[..., ::-1].copy() if a.ndim == 4 else a},
        "conv2d, called as a function: element",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake):
    check, base, methods, message = MISTAKES[mistake]
    if check is not kit.device_unknown:  # NumPy has no devices
        kit.run(check, base())
    with pytest.raises(AssertionError, match=message):
        kit.run(check, planted(base, **methods))


# -- the command, and the page -----------------------------------------------------------------------------------------


def page_code():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    return "\n\n".join(blocks)


def test_the_adapter_of_the_page_passes_and_its_blocks_conform(desk):
    desk.write("my_adapter.py", page_code())
    done = desk.run("-m", "nnspec.conformance.kit", "my_adapter.py")
    assert done.code == 0, done.out + done.err
    assert "the adapter grids does what nnspec relies on" in done.out
    assert re.search(r"^tangent values +absent: no jvp", done.out, re.M)
    package = desk.folder / "grids-1.0.dist-info"  # as if it had been installed
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: grids\nVersion: 1.0\n", "utf-8")
    (package / "entry_points.txt").write_text("[nnspec.adapters]\ngrids = my_adapter:Grids\n", "utf-8")
    done = desk.nnspec("check", "grids", "--block", "relu", "-n", 0, PYTHONPATH=str(desk.folder))
    assert done.code == 0, done.out + done.err
    assert "relu.gradient.positive" in done.verdicts("pass")


def test_the_command_names_mistakes_and_exits_with_1(desk):
    desk.write(
        "mine.py",
        """
        from nnspec.adapters.for_numpy import NumPy

        class Mine(NumPy):
            def versions(self):
                return {}
        """,
    )
    done = desk.run("-m", "nnspec.conformance.kit", "mine.py")
    assert done.code == 1, done.out + done.err
    assert "versions told        WRONG: versions() returned {}" in done.out


@pytest.mark.parametrize("given", ["nothing.py", "empty.py"])
def test_what_is_no_adapter_is_misuse(desk, given):
    desk.write("empty.py", "")
    done = desk.run("-m", "nnspec.conformance.kit", given)
    assert done.code == 2
    assert "expected a" in done.err

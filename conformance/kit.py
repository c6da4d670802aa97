"""What the author of an adapter runs: does it do what nnspec relies on? Its blocks are not judged here.

    python -m nnspec.conformance.kit my_adapter.py      # a file with a class that derives from Adapter
    python -m nnspec.conformance.kit NAME               # an adapter that is installed

    from nnspec.conformance import kit

    @pytest.mark.parametrize("check", kit.CHECKS, ids=kit.name_of)
    def test_adapter(check):
        kit.run(check, MyAdapter())     # raises AssertionError with a sentence, and Absent for an absent capability

All numbers are small integers, and every function has integer derivatives, so that nothing may be rounded.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from nnspec.adapters.contract import Adapter
from nnspec.adapters.detecting import made
from nnspec.adapters.for_reference import Reference
from nnspec.adapters.names import adapters
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Subject, SubjectError, Unsupported
from nnspec.adapters.views import whole_of
from nnspec.conformance.layouts import filled, guarded, offsets

Array = np.ndarray
LONG = ("float32", "float64")


class Absent(Exception):
    """The adapter lacks the capability; the message says what nnspec then leaves out."""


@dataclass(frozen=True)
class Probe:
    """An adapter, and the subject that comes with it."""

    adapter: Adapter
    subject: Subject | None

    @classmethod
    def of(cls, adapter: Adapter) -> Probe:
        """Return the probe of an adapter."""
        return cls(adapter, adapter.subject() if hasattr(adapter, "subject") else None)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes of floating-point arrays that the adapter claims."""
        return (*LONG, *self.adapter.further_dtypes)

    def needs(self, method: str, without: str) -> None:
        """Raise Absent if the adapter has no such method."""
        if not hasattr(self.adapter, method):
            raise Absent(f"no {method}: {without}")

    def native(self, array: Array) -> Any:
        """Return a native array of a fresh copy, made as for a check."""
        return self.adapter.to_native(np.array(array))

    def back(self, array: Array) -> Array:
        """Return the array after a round trip."""
        return self.adapter.to_numpy(self.adapter.to_native(array))

    def layer(self, stem: str) -> tuple[Subject, Any]:
        """Return the subject and its class of a block, or raise Absent."""
        names = SIGNATURES[stem].classes
        found = [self.subject.classes[n] for n in names if n in self.subject.classes] if self.subject else []
        if self.subject is None or not found:
            raise Absent(f"no class {names[0]} comes with the adapter: its modules are not tried")
        self.needs("construct", "nnspec checks no classes")
        return self.subject, found[0]

    def linear(self, dtype: str = "float32") -> tuple[Subject, Any, dict[str, Array]]:
        """Return the subject, a linear layer of integers, and its entries."""
        subject, _ = self.layer("linear")
        entries = {"weight": integers(dtype, 4, 3), "bias": integers(dtype, 4)}
        module = subject.build("linear", {"x": integers(dtype, 2, 3), **entries}, {})
        return subject, module, entries


def integers(dtype: str, *shape: int) -> Array:
    """Return integers from -3 to 3, none of which is at the place of an equal one in a transposed array."""
    size = int(np.prod(shape))
    return ((np.arange(size) * 5 % 7) - 3).reshape(shape).astype(dtype)


def same(what: str, actual: Array, expected: Array) -> None:
    """Require two arrays to have the same dtype, shape and bits; any NaN stands for any other."""
    assert isinstance(actual, np.ndarray), f"{what}: got {type(actual).__name__}, expected a NumPy array"
    for name in ("dtype", "shape"):
        own, right = getattr(actual, name), getattr(expected, name)
        assert own == right, f"{what}: {name} {own}, expected {right}"
    if expected.dtype.kind in "biu":
        equal = actual == expected
    else:
        wide, right = actual.astype(np.float64), expected.astype(np.float64)
        equal = ((wide == right) & (np.signbit(wide) == np.signbit(right))) | (np.isnan(wide) & np.isnan(right))
    if not np.all(equal):
        place = tuple(int(n) for n in np.argwhere(~np.atleast_1d(equal))[0])
        own, right = np.atleast_1d(actual)[place], np.atleast_1d(expected)[place]
        raise AssertionError(f"{what}: element {place} is {own}, expected {right}")


# -- arrays ------------------------------------------------------------------------------------------------------------


def array_values(probe: Probe) -> None:
    """Numbers of every claimed dtype, whole numbers and truth values come back as they were."""
    for dtype in probe.dtypes:
        limits = ml_dtypes.finfo(dtype)
        numbers = np.array([1, -2.5, 0, limits.max, -limits.max, limits.tiny], np.float64).astype(dtype)
        same(f"an array of {dtype}", probe.back(numbers), numbers)
    for whole in (np.array([3, -(2**40)], np.int64), np.array([True, False])):
        same(f"an array of {whole.dtype}", probe.back(whole), whole)


def array_specials(probe: Probe) -> None:
    """NaN, infinities and negative zero come back as they were."""
    for dtype in probe.dtypes:
        specials = np.array([np.nan, np.inf, -np.inf, -0.0], dtype)
        same(f"NaN, ±inf and -0 in {dtype}", probe.back(specials), specials)


def array_shapes(probe: Probe) -> None:
    """Numbers without dimensions, empty arrays, and arrays of up to six dimensions keep their shape."""
    for dtype in probe.dtypes:
        for shape in ((), (0,), (0, 3), (2, 0, 4), (1, 1), (2, 1, 3, 1, 2, 1)):
            array = integers(dtype, *shape)
            same(f"{dtype}, shape {shape}", probe.back(array), array)


def array_layouts(probe: Probe) -> None:
    """Transposed, reversed, broadcast and read-only arrays have the same elements; positive strides are kept."""
    if not probe.adapter.strided:
        raise Absent("strided is False: nnspec hands over contiguous copies, and checks no layouts")
    for dtype in probe.dtypes:
        whole = integers(dtype, 4, 5, 6)
        layouts = {"transposed": whole.T, "every second": whole[:, ::2], "reversed": whole[::-1]}
        layouts |= {"broadcast": np.broadcast_to(whole[0, 0], (3, 6)), "at an offset": whole[1:, 2:]}
        for name, array in layouts.items():
            expected = np.array(array)
            same(f"{name} {dtype}", probe.back(array), expected)
            kept = probe.back(array).strides
            assert name in ("reversed", "broadcast") or kept == array.strides, (
                f"{name} {dtype}: strides {kept}, expected {array.strides}, since strided is True"
            )


def array_places(probe: Probe) -> None:
    """`to_native` keeps the place of an array in a larger one, and `surroundings` returns what lies around it."""
    probe.needs("surroundings", "reads and writes outside of operands are not seen")
    for dtype in probe.dtypes:
        for offset in offsets(np.dtype(dtype)):
            inside = guarded(integers(dtype, 2, 3), offset, np.nan)
            around = probe.adapter.surroundings(probe.adapter.to_native(inside))
            same(f"what lies around {dtype}", around, whole_of(inside))


def memory_dirtied(probe: Probe) -> None:
    """`dirty` takes arrays of every dtype and returns a function."""
    probe.needs("dirty", "elements of results that are never written are not seen")
    for dtype in probe.dtypes:
        end = probe.adapter.dirty([filled(size, np.dtype(dtype), np.nan) for size in (1, 6, 1000)])
        assert callable(end), f"dirty(…) returned {end!r}, expected a function that ends it"
        end()


def array_only(probe: Probe) -> None:
    """`to_numpy` raises TypeError for anything that is no array of the framework."""
    others: list[Any] = [None, "text", [1.0, 2.0], object()]
    if not isinstance(probe.native(np.ones(2)), np.ndarray):
        others.append(np.ones(2))
    for other in others:
        try:
            found = probe.adapter.to_numpy(other)
        except TypeError:
            continue
        raise AssertionError(f"to_numpy({other!r}) returned {found!r}, expected a TypeError")


def array_recognised(probe: Probe) -> None:
    """`recognises` knows a native array by its class, and no array of another framework."""
    own = type(probe.native(np.ones(2)))
    if not probe.adapter.packages:
        raise Absent("packages is empty: no user's file is taken for one of this framework")
    assert probe.adapter.recognises(own), f"recognises({own.__name__}) is False; packages={probe.adapter.packages}"
    assert not probe.adapter.recognises(Probe), "recognises(a class of nnspec) is True, expected False"


def versions_told(probe: Probe) -> None:
    """`versions` maps packages to versions, which reports show."""
    versions = probe.adapter.versions()
    told = isinstance(versions, Mapping) and versions and all(isinstance(t, str) for i in versions.items() for t in i)
    assert told, f"versions() returned {versions!r}, expected a mapping such as {{'numpy': '2.1.0'}}"


def device_unknown(probe: Probe) -> None:
    """`use_device` raises RuntimeError for a device that does not exist."""
    probe.needs("use_device", "nnspec refuses --device")
    try:
        probe.adapter.use_device("no-such-device")
    except RuntimeError:
        return
    raise AssertionError('use_device("no-such-device") raised nothing, expected a RuntimeError')


# -- derivatives -------------------------------------------------------------------------------------------------------

X, Y, C = np.array([[1, -2, 3]]), np.array([[2, 1, -3]]), np.array([[3, -1, 2]])
MISSING = "requirements on gradients are unsupported, unless a function brings its own vjp"


def gradient_values(probe: Probe) -> None:
    """The gradients of x·x·y are 2·x·y·cotangent and x·x·cotangent, in the operands' dtype and shape."""
    probe.needs("vjp", MISSING)
    for dtype in LONG:
        x, y, c = (a.astype(dtype) for a in (X, Y, C))
        given = [probe.native(a) for a in (x, y)]
        found = probe.adapter.vjp(lambda x, y: (x * x * y,), given, [probe.native(c)])
        all_same(probe, f"vjp of x·x·y, {dtype}", found, [2 * x * y * c, x * x * c])


def gradient_results(probe: Probe) -> None:
    """Each of several results has its own cotangent."""
    probe.needs("vjp", MISSING)
    x, y, c = (a.astype("float32") for a in (X, Y, C))
    given, cotangents = [probe.native(x), probe.native(y)], [probe.native(c), probe.native(y)]
    found = probe.adapter.vjp(lambda x, y: (x * y, x), given, cotangents)
    all_same(probe, "vjp of (x·y, x)", found, [y * c + y, x * c])


def gradient_selection(probe: Probe) -> None:
    """Only the operands asked for have a gradient; keywords reach the function."""
    probe.needs("vjp", MISSING)
    x, y, c = (probe.native(a.astype("float32")) for a in (X, Y, C))
    found = probe.adapter.differentiate(lambda x, y, *, n: x * y * n, [x, y], {"n": 2}, [False, True], [c])
    assert len(found) == 2, f"differentiate returned {len(found)} gradients of 2 operands"
    assert found[0] is None, "differentiate returned a gradient for an operand that was not asked for"
    same("gradient of y in 2·x·y", probe.adapter.to_numpy(found[1]), (2 * X * C).astype("float32"))


def gradient_twice(probe: Probe) -> None:
    """The vjp of a vjp: for x·x·y and a tangent t of x, those of Σ t·2·x·y·c."""
    probe.needs("vjp", MISSING)
    x, y, c = (a.astype("float32") for a in (X, Y, C))
    tangent = np.ones_like(x) * 2
    given = [probe.native(x), probe.native(y)]
    found = probe.adapter.differentiate_again(
        lambda x, y: x * x * y, given, {}, [True, True], probe.native(c), probe.native(tangent)
    )
    all_same(probe, "vjp of the vjp of x·x·y", found, [2 * x * y * tangent, 2 * y * c * tangent, 2 * x * c * tangent])


def tangent_values(probe: Probe) -> None:
    """The derivative of x·x·y along tangents of x and y; and twice along one of x, 2·y·t·t."""
    probe.needs("jvp", "requirements on derivatives carried forward are unsupported")
    x, y, t = (a.astype("float32") for a in (X, Y, C))
    given = [probe.native(x), probe.native(y)]
    found = probe.adapter.jvp(lambda x, y: (x * x * y,), given, [probe.native(t), probe.native(x)])
    all_same(probe, "jvp of x·x·y", found, [2 * x * y * t + x * x * x])
    twice = probe.adapter.push_forward_twice(lambda x, y: x * x * y, given, {}, probe.native(t))
    same("jvp of the jvp of x·x·y", probe.adapter.to_numpy(twice), 2 * y * t * t)


def all_same(probe: Probe, what: str, found: Any, expected: list[Array]) -> None:
    """Require native arrays to equal these."""
    found = list(found)
    assert len(found) == len(expected), f"{what}: {len(found)} arrays, expected {len(expected)}"
    for n, (own, right) in enumerate(zip(found, expected, strict=True)):
        assert own is not None, f"{what}, number {n}: None, expected an array"
        same(f"{what}, number {n}", probe.adapter.to_numpy(own), right)


# -- modules -----------------------------------------------------------------------------------------------------------


def module_dtype(probe: Probe) -> None:
    """A module's floating-point state has the dtype that was asked for."""
    subject, cls = probe.layer("linear")
    for dtype in LONG:
        module = probe.adapter.construct(cls, (3, 4), {}, np.dtype(dtype))
        for key, array in probe.adapter.state(module).items():
            own = array.dtype.name
            assert array.dtype.kind in "biu" or own == dtype, f"{subject.name}: {key} is {own}, expected {dtype}"


def module_load(probe: Probe) -> None:
    """What is loaded is what `state` and `read` return, and what the module computes with."""
    subject, module, entries = probe.linear()
    found = subject.state("linear", module, entries.keys())
    for key, array in entries.items():
        assert key in found, f"state: no entry in the role of {key}"
        same(f"state, {key} as loaded", found[key], array)
        own = subject.roles("linear", type(module), entries.keys(), module).keys[key]
        same(f"read({own!r}) as loaded", probe.adapter.read(module, own), array)
    x = integers("float32", 2, 3)
    y = probe.adapter.to_numpy(module(probe.native(x)))
    same("the result with the entries loaded", y, x @ entries["weight"].T + entries["bias"])


def module_load_part(probe: Probe) -> None:
    """Loading one entry leaves the others; an unknown key raises KeyError, in `load_entries` and in `read`."""
    subject, module, entries = probe.linear()
    own = subject.roles("linear", type(module), entries.keys(), module).keys
    probe.adapter.load_entries(module, {own["bias"]: 2 * entries["bias"]})
    same("bias, loaded alone", probe.adapter.read(module, own["bias"]), 2 * entries["bias"])
    same("weight, when bias is loaded alone", probe.adapter.read(module, own["weight"]), entries["weight"])
    unknown = {"load_entries": {"no_such.key": entries["bias"]}, "read": "no_such.key"}
    for method, given in unknown.items():
        try:
            getattr(probe.adapter, method)(module, given)
        except KeyError:
            continue
        raise AssertionError(f"{method} of the key 'no_such.key' raised nothing, expected a KeyError")


def module_copies(probe: Probe) -> None:
    """`state` and `read` return copies, and `load_entries` keeps none of the arrays that it is given."""
    subject, module, entries = probe.linear()
    own = subject.roles("linear", type(module), entries.keys(), module).keys["bias"]
    expected = entries["bias"].copy()
    given = entries["bias"].copy()
    probe.adapter.load_entries(module, {own: given})
    given += 1
    same("bias, when the array that was loaded is written to", probe.adapter.read(module, own), expected)
    for method, array in (("state", probe.adapter.state(module)[own]), ("read", probe.adapter.read(module, own))):
        assert array.flags.writeable, f"{method} returned a read-only array, expected a copy"
        array += 1
        same(f"bias, when what {method} returned is written to", probe.adapter.read(module, own), expected)


def module_held(probe: Probe) -> None:
    """`held` lists every entry of the state under the same key, with its shape."""
    _, module, _ = probe.linear()
    held, state = probe.adapter.held(module), probe.adapter.state(module)
    for key, array in state.items():
        assert key in held, f"held: no {key!r}, which is in the state"
        assert held[key].shape == array.shape, f"held: {key} of shape {held[key].shape}, expected {array.shape}"


def module_modes(probe: Probe) -> None:
    """In training mode batch norm moves its statistics; in evaluation mode it does not."""
    subject, cls = probe.layer("batch_norm")
    one_d = cls is subject.classes.get("BatchNorm1d")
    x = integers("float32", *((4, 3) if one_d else (4, 3, 2, 2)))
    module = probe.adapter.construct(cls, (3,), {}, np.dtype("float32"))
    for training in (False, True):
        before = probe.adapter.state(module)
        probe.adapter.set_training(module, training)
        module(probe.native(x))
        after = probe.adapter.state(module)
        moved = any(not np.array_equal(before[key], after[key]) for key in before)
        said = "moved" if moved else "did not move"
        assert moved is training, f"after set_training(module, {training}) the statistics {said} in a call"


def module_gradients(probe: Probe) -> None:
    """The gradients of a linear layer, for x and for its entries, are the reference's."""
    subject, _, entries = probe.linear()
    if not subject.differentiates(subject.classes["Linear"]):
        raise Absent("modules have no backward pass: requirements on gradients of classes are unsupported")
    arrays = {"x": integers("float32", 2, 3), **entries, "cotangent": integers("float32", 2, 4)}
    found = subject.gradients("linear", "class", arrays, {})
    expected = Reference().subject().gradients("linear", "class", arrays, {})
    for name, array in expected.items():
        gradient = found.get(name)
        assert gradient is not None, f"differentiate_module: no gradient of {name}"
        same(f"differentiate_module, the gradient of {name}", gradient, np.asarray(array))


# -- blocks ------------------------------------------------------------------------------------------------------------

CALLS: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, Any]]] = {
    "linear": ({"x": (2, 3), "weight": (4, 3), "bias": (4,)}, {}),
    "relu": ({"x": (2, 5)}, {}),
    "conv2d": ({"x": (2, 3, 5, 4), "weight": (2, 3, 3, 2), "bias": (2,)}, {"stride": (2, 1), "padding": (1, 0)}),
    "max_pool2d": ({"x": (2, 3, 6, 4)}, {"kernel_size": (2, 2)}),
}  # which round nothing, of integers; arguments that a subject lacks are left out


def block_values(probe: Probe) -> None:
    """One call of each function that comes with the adapter gives what the reference gives."""
    for subject, stem, arrays, arguments in calls(probe):
        (actual,), (expected,) = (s.call(stem, "function", arrays, arguments) for s in (subject, Reference().subject()))
        same(f"{stem}, called as a function", actual, expected)


def block_gradients(probe: Probe) -> None:
    """So do the gradients of these calls."""
    for subject, stem, arrays, arguments in calls(probe):
        if "vjp" in subject.lacks(stem, "function"):
            continue
        (y,) = Reference().subject().call(stem, "function", arrays, arguments)
        arrays = {**arrays, "cotangent": integers("float32", *y.shape)}
        own, right = (s.gradients(stem, "function", arrays, arguments) for s in (subject, Reference().subject()))
        for name, expected in right.items():
            gradient = own.get(name)
            assert gradient is not None, f"{stem}: no gradient of {name}"
            same(f"{stem}, the gradient of {name}", gradient, np.asarray(expected))


def calls(probe: Probe) -> Iterator[tuple[Subject, str, dict[str, Array | None], dict[str, Any]]]:
    """Yield the calls that the adapter's subject can make, or raise Absent."""
    subject = probe.subject
    stems = [stem for stem in CALLS if subject is not None and "function" in subject.forms(stem)]
    if subject is None or not stems:
        raise Absent("no functions come with the adapter")
    for stem in stems:
        shapes, arguments = CALLS[stem]
        own = subject.within(stem)
        missing = own.lacks(stem, "function")
        arrays: dict[str, Array | None] = {n: integers("float32", *shape) for n, shape in shapes.items()}
        arrays |= {name: None for name in arrays if name in missing}
        if stem == "max_pool2d":  # without ties
            arrays["x"] = np.random.default_rng(0).permutation(144).reshape(shapes["x"]).astype(np.float32)
        given = {name: value for name, value in arguments.items() if name not in missing}
        yield own, stem, arrays, {**SIGNATURES[stem].arguments, **given}


Check = Callable[[Probe], None]
CHECKS: tuple[Check, ...] = (
    array_values, array_specials, array_shapes, array_layouts, array_places, memory_dirtied, array_only,
    array_recognised, versions_told, device_unknown, gradient_values, gradient_results, gradient_selection,
    gradient_twice, tangent_values, module_dtype, module_load, module_load_part, module_copies, module_held,
    module_modes, module_gradients, block_values, block_gradients,
)  # fmt: skip


def name_of(check: Check) -> str:
    """Return the name of a check, for a list or for pytest's ids."""
    return check.__name__.replace("_", " ")


def run(check: Check, adapter: Adapter) -> None:
    """Run one check. AssertionError where the adapter is wrong, Absent where it lacks what the check is about."""
    try:
        check(Probe.of(adapter))
    except Unsupported as declined:
        raise Absent(str(declined)) from None


def report(adapter: Adapter) -> tuple[list[str], bool]:
    """Run all checks; return a line for each, and whether none failed."""
    lines, right = [], True
    for check in CHECKS:
        try:
            run(check, adapter)
            told = "ok"
        except Absent as absent:
            told = f"absent: {absent}"
        except AssertionError as wrong:
            told, right = f"WRONG: {wrong}", False
        except Exception as error:
            told, right = f"WRONG: raised {type(error).__name__}: {error}", False
        lines.append(f"{name_of(check):20} {told}")
    return lines, right


def adapter_of(spec: str) -> Adapter:
    """Return an installed adapter by its name, or the one that a file defines. Raises SubjectError for others."""
    if spec in adapters():
        return made(spec, "quick")
    path = Path(spec)
    if not path.is_file():
        raise SubjectError(f"{spec}: expected a file, or one of {', '.join(adapters())}")
    found = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if found is None or found.loader is None:
        raise SubjectError(f"{spec}: expected a file of Python")
    module = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = module
    found.loader.exec_module(module)
    own = [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, Adapter)]
    own = [cls for cls in own if cls.__module__ == module.__name__]
    if not own:
        raise SubjectError(f"{spec}: expected a class that derives from nnspec.adapters.contract.Adapter")
    adapter: Adapter = own[-1]("quick")
    return adapter


def main() -> int:
    """Print a line for each check. 0: the adapter does all that it offers; 1: something is wrong; 2: no adapter."""
    if len(sys.argv) != 2:
        print("usage: python -m nnspec.conformance.kit NAME_OR_FILE", file=sys.stderr)
        return 2
    try:
        adapter = adapter_of(sys.argv[1])
    except SubjectError as error:
        print(error, file=sys.stderr)
        return 2
    lines, right = report(adapter)
    print(*lines, sep="\n")
    print(f"the adapter {adapter.name} {'does what nnspec relies on' if right else 'does not work yet'}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

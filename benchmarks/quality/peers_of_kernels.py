"""How many mistakes of kernels the checks of kernel benchmarks would see, beside what this suite sees.

    python benchmarks/quality/peers_of_kernels.py [--list]

needs `pip install torch expecttest`. The faults of conformance/faults/kernels that change a result (none of these
suites looks at gradients) are put to

- a check as KernelBench makes it: for each block two problems of fixed shapes, of the kind and the size that it has;
  two seeds; `allclose` with atol = rtol = 10⁻²;
- the samples that torch's OpInfo has for the function, in float32, compared as BackendBench compares them: with what
  torch gives, by `allclose` with atol = rtol = 10⁻²;
- the one check here that bears the requirement which the fault breaks, as `measure_kernels.py` recorded it
  with seed 0.

A suite sees a fault if one case fails or raises. A case that the function cannot express, or in which the right
reference fails, is left out. OpInfo has no samples of perceptrons, residual blocks, a global average and optimisers;
KernelBench has no problem that is an optimiser. No code of these projects is here, and none of their shapes.
`--list` says which suite sees which fault. Exit status 2 if a package is missing.
"""

from __future__ import annotations

import argparse
import functools
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from nnspec.adapters.for_reference import subject as reference
from nnspec.adapters.signatures import SIGNATURES
from nnspec.conformance.faults import Fault, catalogue, measured_kernels

try:
    import torch
    from torch.testing._internal.common_methods_invocations import op_db
except ImportError as error:
    print(f"{error}: the other suites must be installed, by `pip install torch expecttest`", file=sys.stderr)
    sys.exit(2)

Array = np.ndarray
Made = dict[str, Any]  # the function or the classes of a fault, or of the reference
Case = Callable[[Made], Any]  # what the block gives
TOLERANCE, SEEDS = 1e-2, 2


def seen(cases: list[tuple[Case, Any]], made: Made) -> bool:
    """Return whether one of the cases fails or raises."""
    for case, expected in cases:
        try:
            if not close(case(made), expected):
                return True
        except Exception:  # whatever it is, a check that raises it is red
            return True
    return False


def close(found: Any, expected: Array) -> bool:
    """Return whether a result has the shape, and is as near as these checks ask for."""
    found = np.asarray(found[0] if isinstance(found, tuple) else found)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    near = torch.allclose(torch.tensor(found), torch.tensor(expected), TOLERANCE, TOLERANCE, equal_nan=True)
    return bool(near)


# -- fixed problems ----------------------------------------------------------------------------------------------------

POOLS = (((8, 32, 64, 64), {"kernel_size": 2}), ((8, 64, 32, 32), {"kernel_size": 3, "stride": 2, "padding": 1}))
PROBLEMS: dict[str, tuple[tuple[Any, ...], ...]] = {  # shapes of the operands, and arguments
    "conv2d": (
        ((4, 32, 64, 64), (64, 32, 3, 3), (64,), {"padding": 1}),
        ((2, 3, 128, 128), (64, 3, 7, 7), (64,), {"stride": 2, "padding": 3}),
    ),
    "conv_transpose2d": (
        ((4, 32, 32, 32), (32, 16, 4, 4), (16,), {"stride": 2, "padding": 1}),
        ((2, 16, 64, 64), (16, 8, 3, 3), (8,), {}),
    ),
    "max_pool2d": POOLS,
    "avg_pool2d": POOLS,
    "global_avg_pool2d": (((16, 64, 32, 32), {}), ((8, 512, 8, 8), {})),
    "linear": (((128, 512), (256, 512), (256,), {}), ((16, 1024), (1024, 1024), (1024,), {})),
    "relu": (((16, 16384), {}), ((64, 64, 32, 32), {})),
    "batch_norm": (
        ((16, 64, 32, 32), (64,), (64,), (64,), (64,), {"training": True}),
        ((64, 256), (256,), (256,), (256,), (256,), {"training": True}),
    ),
    "einsum": (
        ((256, 128), (128, 256), {"equation": "ij,jk->ik"}),
        ((16, 64, 64), (16, 64, 32), {"equation": "bij,bjk->bik"}),
    ),
    "mlp": (((128, 512), (512, 256, 64), {}), ((16, 128), (128, (64, 64), 32), {})),
    "basic_block": (((4, 32, 32, 32), (32, 32), {}), ((4, 16, 32, 32), (16, 32, 2), {})),
}


def problems(stem: str) -> list[tuple[Case, Any]]:
    """Return the fixed problems of a block, each with SEEDS seeds and with what the reference gives."""
    pieces, found = pieces_of(stem), []
    for *shapes, arguments in PROBLEMS.get(stem, ()):
        for seed in range(SEEDS):
            case = (
                of_class(shapes, seed) if not SIGNATURES[stem].function else of_function(stem, shapes, arguments, seed)
            )
            found.append((case, case(pieces)))
    return [(case, y[0] if isinstance(y, tuple) else y) for case, y in found]


def of_function(stem: str, shapes: list[Any], arguments: dict[str, Any], seed: int) -> Case:
    """Return a call of a function with operands from U(0, 1)."""
    rng = np.random.default_rng(seed)
    operands = [rng.random(shape, np.float32) for shape in shapes]
    keywords = dict(arguments)
    first = [keywords.pop("equation")] if "equation" in keywords else []
    return lambda made: made[stem](*first, *(a.copy() for a in operands), **keywords)


def of_class(shapes: list[Any], seed: int) -> Case:
    """Return a call of a new module, in evaluation mode, with inputs from U(0, 1)."""
    shape, sizes = shapes
    x = np.random.default_rng(seed).random(shape, np.float32)

    def case(made: Made) -> Array:
        (cls,) = (piece for piece in made.values() if isinstance(piece, type))
        module = cls(*sizes, rng=np.random.default_rng(seed))
        module.eval()
        y: Array = module(x.copy())
        return y

    return case


# -- the samples of OpInfo ---------------------------------------------------------------------------------------------

PARAMETERS = {  # of torch's functions, by position; the first ones are operands
    "conv2d": "x weight bias stride padding dilation groups",
    "conv_transpose2d": "x weight bias stride padding output_padding groups dilation",
    "max_pool2d": "x kernel_size stride padding dilation ceil_mode return_indices",
    "avg_pool2d": "x kernel_size stride padding ceil_mode count_include_pad divisor_override",
    "linear": "x weight bias",
    "batch_norm": "x running_mean running_var weight bias training momentum eps",
    "relu": "x inplace",
}
NO_ARGUMENTS = {"return_indices": False, "inplace": False}  # that the functions here lack


def samples(stem: str) -> Iterator[Any]:
    """Yield OpInfo's samples for a function, each with what torch gives."""
    name = stem if stem == "einsum" else f"nn.functional.{stem}"
    for op in op_db:
        if op.name == name and not op.variant_test_name:
            for sample in op.sample_inputs("cpu", torch.float32, False):
                yield sample, op.op(sample.input, *sample.args, **sample.kwargs)


def opinfo(stem: str) -> list[tuple[Case, Any]]:
    """Return the samples that the function can express, and in which the right one passes."""
    if stem not in PARAMETERS and stem != "einsum":
        return []
    pieces, found = pieces_of(stem), []
    for sample, expected in samples(stem):
        case = None if isinstance(expected, tuple) else of_sample(stem, sample)
        if case is not None and not seen([(case, expected.numpy())], pieces):
            found.append((case, expected.numpy()))
    return found


def of_sample(stem: str, sample: Any) -> Case | None:
    """Return the call of a sample; None if the function has no such argument."""
    if stem == "einsum":
        operands = [a.numpy() for a in sample.input]
        return lambda made: made[stem](sample.args[0], *(a.copy() for a in operands))
    names = PARAMETERS[stem].split()
    given = {**dict(zip(names, (sample.input, *sample.args), strict=False)), **sample.kwargs}
    given["x"] = given.pop("input", given.get("x"))
    if any(given.pop(name, value) != value for name, value in NO_ARGUMENTS.items()):
        return None
    # copies, since samples share running statistics, which a later one changes
    arrays = {n: None if given.get(n) is None else given[n].numpy().copy() for n in SIGNATURES[stem].operands}
    keywords = {n: plain(v) for n, v in given.items() if n not in arrays}
    return lambda made: made[stem](*(None if a is None else a.copy() for a in arrays.values()), **keywords)


def plain(value: Any) -> Any:
    """Return an argument as the functions here take it."""
    if not isinstance(value, tuple | list):
        return value
    return tuple(value) if len(value) == 2 else value[0] if value else None


# -- the table ---------------------------------------------------------------------------------------------------------


@functools.cache
def pieces_of(stem: str) -> Made:
    """Return the reference's function of a block, or its class."""
    signature, right = SIGNATURES[stem], reference()
    if signature.function:
        return {stem: right.functions[signature.function]}
    return {signature.classes[0]: right.classes[signature.classes[0]]}


def forward(fault: Fault) -> bool:
    """Return whether a fault changes a result, and not a gradient."""
    return ".gradient." not in fault.key and fault.stem != "sgd"


def counted() -> dict[str, dict[str, list[str]]]:
    """Return for each block the faults, and those that each suite sees."""
    known, table = measured_kernels(), {}
    for stem in dict.fromkeys(fault.stem for fault in catalogue("boundary").values()):
        faults = [f for f in catalogue("boundary").values() if f.stem == stem and forward(f)]
        if not faults:
            continue
        ours, theirs = problems(stem), opinfo(stem)
        row = {"faults": [f.key for f in faults]}
        row["KernelBench's check"] = [f.key for f in faults if seen(ours, f.pieces)]
        row["OpInfo's samples"] = [f.key for f in faults if seen(theirs, f.pieces)]
        row["nnspec, `quick --sizes boundary`"] = [
            f.key for f in faults if (known.get(f.key, {}).get("quick boundary") or [None])[0]
        ]
        table[stem] = row
        print(f"{stem}: " + ", ".join(f"{name} {len(keys)}" for name, keys in row.items()), file=sys.stderr)
    return table


def markdown(table: dict[str, dict[str, list[str]]]) -> str:
    """The table of the page."""
    names = [*next(iter(table.values()))]
    total: dict[str, int] = defaultdict(int)
    lines = ["| block | " + " | ".join(names) + " |", "| --- |" + " --: |" * len(names)]
    for stem, row in table.items():
        lines.append(f"| {stem} | " + " | ".join(str(len(keys)) for keys in row.values()) + " |")
        for name, keys in row.items():
            total[name] += len(keys)
    lines.append("| all | " + " | ".join(str(total[name]) for name in names) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="say which suite sees which fault")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    table = counted()
    print(f"torch {torch.__version__}\n\n{markdown(table)}")
    if options.list:
        for row in table.values():
            for key in row["faults"]:
                print(" ".join("x" if key in keys else "-" for keys in row.values()), key)
    return 0


if __name__ == "__main__":
    sys.exit(main())

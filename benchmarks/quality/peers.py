"""How many plain forward mistakes the public tests of other suites would see, beside what this suite sees.

    python benchmarks/quality/peers.py [--list] [--all]

needs `pip install onnx torch expecttest`, the last for the test cases that torch carries along. 35 faults of the
catalogue, each a single mistake that a person makes, are put to

- ONNX's backend tests that consist of one Conv, BatchNormalization or MaxPool, with their tensors and their own
  comparison: the node tests, and beside them those converted from PyTorch;
- torch's ModuleInfo, that is the inputs and the references that it holds for Conv2d, BatchNorm2d and MaxPool2d: as
  `test_forward` uses them, which compares nothing where there is no reference, and beside it the forward half of the
  tests with other memory layouts, which compare a module with itself;
- the one check here that bears the requirement which the fault breaks, at `quick` with seed 0.

A suite sees a fault if one case fails or raises. A bridge calls the NumPy function as the operator or the module would;
a case that the function cannot express, or in which the right reference fails, is left out and counted. One fault,
`conv2d.output.value/one-element`, is as large as ONNX's tolerance: whether it is seen there hangs on the last digit.
What the table says of this suite holds by construction, since its checks are made to see the catalogue. `--list` says
which suite sees which fault. `--all` takes all forward faults of the three functions, be they plain or not. Exit status
2 if a package is missing. For mistakes of kernels see peers_of_kernels.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np
from nnspec.adapters.for_reference import subject as reference
from nnspec.conformance.faults import catalogue
from nnspec.conformance.power import measure
from nnspec.conformance.requirements import block_of

try:
    import onnx
    import torch
    from onnx.backend.test.loader import load_model_tests
    from onnx.backend.test.runner import Runner
    from torch.testing._internal.common_modules import module_db
    from torch.testing._internal.common_utils import SEED, TestCase
except ImportError as error:
    print(f"{error}: the other suites must be installed, by `pip install onnx torch expecttest`", file=sys.stderr)
    sys.exit(2)

Array = np.ndarray
Function = Callable[..., Any]
Case = Callable[[Function], None]  # raises where the function is seen to be wrong
TITLES = {"conv2d": "Conv2d", "batch_norm": "BatchNorm2d", "max_pool2d": "MaxPool2d"}
OPERATORS = {"Conv": "conv2d", "BatchNormalization": "batch_norm", "MaxPool": "max_pool2d"}
PLAIN = (
    "conv2d.stride.step/ignored",
    "conv2d.stride.step/swapped",
    "conv2d.padding.zeros/ignored",
    "conv2d.padding.zeros/swapped",
    "conv2d.dilation.gap/ignored",
    "conv2d.dilation.gap/swapped",
    "conv2d.groups.block-diagonal/interleaved",
    "conv2d.bias.per-channel/ignored",
    "conv2d.kernel.orientation/flipped",
    "conv2d.output.size/rounded-up",
    "conv2d.output.value/channel-block",
    "conv2d.output.value/one-element",
    "conv2d.input.layout/memory-order",
    "batch_norm.train.variance/divisor-n-minus-1",
    "batch_norm.running-var.update/divisor-n",
    "batch_norm.running-mean.update/kept",
    "batch_norm.momentum.weighs-new/reversed",
    "batch_norm.eval.frozen/batch",
    "batch_norm.eval.frozen/deviation",
    "batch_norm.eps.inside-root/outside",
    "batch_norm.eps.inside-root/ignored",
    "batch_norm.defaults.eps/1e-3",
    "batch_norm.weight.scales/before-the-mean",
    "batch_norm.bias.shifts/dropped-in-evaluation",
    "batch_norm.axes.rank-4/images",
    "batch_norm.train.offset/one-pass",
    "batch_norm.input.layout/memory-order",
    "max_pool2d.padding.never-wins/zeros",
    "max_pool2d.ceil-mode.last-window/ignored",
    "max_pool2d.ceil-mode.dropped/kept",
    "max_pool2d.dilation.gap/ignored",
    "max_pool2d.stride.default/one",
    "max_pool2d.stride.step/swapped",
    "max_pool2d.kernel.rows-columns/swapped",
    "max_pool2d.nan.propagates/ignored",
)


class Inexpressible(Exception):
    """The function has no way to say this."""


@dataclass
class Suite:
    """The cases of a suite, by block, and how many of them were left out."""

    name: str
    cases: dict[str, list[Case]] = field(default_factory=lambda: {stem: [] for stem in TITLES})
    inexpressible: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # by the right reference, which fails there

    def add(self, stem: str, make: Callable[[], Case]) -> None:
        try:
            case = make()
        except Inexpressible:
            self.inexpressible[stem] += 1
            return
        if fails(case, reference().functions[stem]):
            self.refused[stem] += 1
        else:
            self.cases[stem].append(case)

    def sees(self, key: str) -> bool:
        stem = block_of(key)
        function = catalogue()[key].subject().functions[stem]
        return any(fails(case, function) for case in self.cases[stem])

    def with_all_of(self, other: Suite) -> Suite:
        """This one, and what the other has."""
        cases = {stem: self.cases[stem] + other.cases[stem] for stem in TITLES}
        inexpressible, refused = self.inexpressible + other.inexpressible, self.refused + other.refused
        return Suite(f"{self.name}, {other.name}", cases, inexpressible, refused)


def fails(case: Case, function: Function) -> bool:
    try:
        case(function)
    except Exception:  # whatever it is, a test that raises it is red
        return True
    return False


# -- ONNX --------------------------------------------------------------------------------------------------------------


def onnx_suite(name: str, kinds: tuple[str, ...]) -> Suite:
    suite = Suite(name)
    for kind in kinds:
        for test in load_model_tests(kind=kind):
            model = test.model or onnx.load(Path(test.model_dir) / "model.onnx")
            if [node.op_type for node in model.graph.node] not in [[operator] for operator in OPERATORS]:
                continue
            stem = OPERATORS[model.graph.node[0].op_type]
            for inputs, outputs in test.data_sets or stored(Path(test.model_dir)):
                suite.add(stem, partial(onnx_case, stem, model.graph, inputs, outputs, test))
    return suite


def stored(folder: Path) -> Iterator[tuple[list[Array], list[Array]]]:
    """Inputs and outputs of a test that lies in files."""
    for data in sorted(folder.glob("test_data_set_*")):
        inputs, outputs = (
            [onnx.numpy_helper.to_array(onnx.load_tensor(file)) for file in sorted(data.glob(f"{which}_*.pb"))]
            for which in ("input", "output")
        )
        yield inputs, outputs


def onnx_case(stem: str, graph: Any, inputs: list[Array], outputs: list[Array], test: Any) -> Case:
    node = graph.node[0]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    operands = operands_of(graph, inputs)
    arguments = BRIDGES[stem](attributes, operands)
    if stem == "max_pool2d" and len(outputs) > 1:
        raise Inexpressible("where the maxima lie")

    def case(function: Function) -> None:
        own = [None if a is None else a.copy() for a in operands]
        if stem == "batch_norm":
            got = normalised(function, own, arguments)
        else:
            got = [function(*own, **arguments)]
        Runner.assert_similar_outputs(outputs, got[: len(outputs)], test.rtol, test.atol)

    return case


def operands_of(graph: Any, inputs: list[Array]) -> list[Array | None]:
    """What the node is given: constants of the model, and the inputs for the rest."""
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    names = [info.name for info in graph.input if info.name not in values]
    values |= dict(zip(names, inputs, strict=True))
    return [values.get(name) for name in graph.node[0].input]


def of_windows(attributes: dict[str, Any], x: Array, kernel: list[int]) -> dict[str, Any]:
    """Stride, padding and dilation, as far as the node says something about them."""
    if x.ndim != 4:
        raise Inexpressible("an image of another rank")
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    before = after = None
    match attributes.get("auto_pad", b"NOTSET"):
        case b"SAME_UPPER" | b"SAME_LOWER":  # as many windows as strides begin in the image
            rows = zip(x.shape[2:], strides, spans, strict=True)
            more = [max(0, (-(-n // s) - 1) * s + span - n) for n, s, span in rows]
            before, after = [m // 2 for m in more], [m - m // 2 for m in more]
        case b"NOTSET" if "pads" in attributes:
            before, after = attributes["pads"][:2], attributes["pads"][2:]
    if before != after:
        raise Inexpressible("padding of one side")
    said = {"stride": attributes.get("strides"), "padding": before, "dilation": attributes.get("dilations")}
    return {name: shortest(pair) for name, pair in said.items() if pair is not None}


def shortest(pair: list[int]) -> Any:
    return pair[0] if pair[0] == pair[1] else tuple(pair)


def of_conv(attributes: dict[str, Any], operands: list[Any]) -> dict[str, Any]:
    x, weight = operands[:2]
    groups = {"groups": attributes["group"]} if "group" in attributes else {}
    return of_windows(attributes, x, weight.shape[2:]) | groups


def of_max_pool(attributes: dict[str, Any], operands: list[Any]) -> dict[str, Any]:
    kernel = attributes["kernel_shape"]
    said = of_windows(attributes, operands[0], kernel)
    if "ceil_mode" in attributes:
        said["ceil_mode"] = bool(attributes["ceil_mode"])
    return {"kernel_size": shortest(kernel), "stride": 1} | said  # of a stride unsaid the two think differently


def of_batch_norm(attributes: dict[str, Any], operands: list[Any]) -> dict[str, Any]:
    if operands[0].ndim != 4:
        raise Inexpressible("an image of another rank")
    said: dict[str, Any] = {}
    if "epsilon" in attributes:
        said["eps"] = attributes["epsilon"]
    if attributes.get("training_mode"):
        said["training"] = True
    if "momentum" in attributes:  # there the weight of the old
        said["momentum"] = 1 - attributes["momentum"]
    return said


BRIDGES = {"conv2d": of_conv, "batch_norm": of_batch_norm, "max_pool2d": of_max_pool}


def normalised(function: Function, operands: list[Any], arguments: dict[str, Any]) -> list[Array]:
    """y, mean and variance. In training ONNX averages in a variance with divisor n, where ours has n − 1."""
    x, weight, bias, mean, var = operands
    y, new_mean, new_var = function(x, mean, var, weight, bias, **arguments)
    if arguments.get("training"):
        n, old = x.size // x.shape[1], (1 - arguments.get("momentum", 0.1)) * var
        new_var = old + (new_var - old) * (n - 1) / n
    return [y, new_mean, new_var]


# -- torch -------------------------------------------------------------------------------------------------------------


class Comparison(TestCase):
    """The tolerances of the class whose test_forward it is."""

    precision = rel_tol = 1e-5


SAME = Comparison().assertEqual


class Conv2d(torch.nn.Conv2d):
    function: Function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 3:
            return self(x[None])[0]
        padding: Any = self.padding
        if padding == "same":
            padding = tuple(d * (k - 1) // 2 for d, k in zip(self.dilation, self.kernel_size, strict=True))
        how = {"stride": self.stride, "padding": padding, "dilation": self.dilation}
        arguments = {name: shortest(pair) for name, pair in how.items()}
        return tensor(type(self).function(*map(array, (x, self.weight, self.bias)), **arguments, groups=self.groups))


class BatchNorm2d(torch.nn.BatchNorm2d):
    function: Function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check_input_dim(x)
        tracks, momentum = self.training and self.track_running_stats, self.momentum or 0.0
        if tracks:
            self.num_batches_tracked += 1
            momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else momentum
        training, mean, var = self.training, self.running_mean, self.running_var
        if mean is None:  # those of the batch serve; a fault in what is kept shall not raise for want of something old
            training, mean, var = True, x.new_zeros(self.num_features), x.new_ones(self.num_features)
        operands = map(array, (x, mean, var, self.weight, self.bias))
        y, mean, var = type(self).function(*operands, training=training, momentum=momentum, eps=self.eps)
        if tracks:
            self.running_mean, self.running_var = tensor(mean), tensor(var)
        return tensor(y)


class MaxPool2d(torch.nn.MaxPool2d):
    function: Function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 3:
            return self(x[None])[0]
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return tensor(type(self).function(array(x), **{name: getattr(self, name) for name in names}))


def array(a: torch.Tensor | None) -> Any:
    return None if a is None else a.detach().numpy()


def tensor(a: Array) -> torch.Tensor:
    return torch.from_numpy(np.asarray(a))


LAYERS: dict[str, Any] = {"conv2d": Conv2d, "batch_norm": BatchNorm2d, "max_pool2d": MaxPool2d}


def torch_suite(name: str, case_of: Callable[..., Case]) -> Suite:
    suite = Suite(name)
    for stem, given, dtype, training in torch_inputs():
        suite.add(stem, partial(case_of, given, LAYERS[stem], dtype, training))
    return suite


def torch_inputs() -> Iterator[tuple[str, Any, torch.dtype, bool]]:
    for stem, layer in LAYERS.items():
        info = next(info for info in module_db if info.module_cls is layer.__base__)
        for training in (True, False) if info.train_and_eval_differ else (True,):
            for dtype in info.supported_dtypes("cpu"):
                torch.manual_seed(SEED)
                how = {"device": "cpu", "dtype": dtype, "requires_grad": False, "training": training}
                for given in info.module_inputs_func(info, **how):
                    yield stem, given, dtype, training


def expressible(given: Any) -> None:
    if given.constructor_input.kwargs.get("return_indices"):
        raise Inexpressible("where the maxima lie")


def made(given: Any, layer: Any, dtype: torch.dtype, training: bool, function: Function) -> Any:
    """A module that calls the function."""
    own = type(layer.__name__, (layer,), {"function": staticmethod(function)})
    torch.manual_seed(SEED)
    said = given.constructor_input
    return own(*said.args, **said.kwargs).to(dtype).train(training)


def forward_case(given: Any, layer: Any, dtype: torch.dtype, training: bool) -> Case:
    """TestModule.test_forward."""
    expressible(given)

    def case(function: Function) -> None:
        module, operands = made(given, layer, dtype, training, function), deepcopy(given.forward_input.args)
        result = module(*operands)
        if given.reference_fn is not None:
            SAME(result, given.reference_fn(module, *operands))
        module.to(dtype)(*operands)
        kept = [a.dtype for a in (*module.parameters(), *module.buffers()) if a.is_floating_point()]
        SAME(kept, [dtype] * len(kept))

    return case


def layout_case(given: Any, layer: Any, dtype: torch.dtype, training: bool) -> Case:
    """What test_non_contiguous_tensors and test_memory_format say of results."""
    expressible(given)

    def case(function: Function) -> None:
        module, (x,) = made(given, layer, dtype, training, function), deepcopy(given.forward_input.args)
        result = module(x.clone())
        SAME(module(torch.repeat_interleave(x, 2, dim=-1)[..., ::2]), result)
        if x.ndim == 4:
            SAME(module(x.clone(memory_format=torch.channels_last)), result)
            SAME(module.to(memory_format=torch.channels_last)(x.clone()), result)

    return case


# -- the table ---------------------------------------------------------------------------------------------------------


def suites() -> list[Suite]:
    nodes = onnx_suite("ONNX node tests", ("node",))
    converted = onnx_suite("and converted", ("pytorch-converted", "pytorch-operator"))
    forward = torch_suite("ModuleInfo test_forward", forward_case)
    layouts = torch_suite("and layouts", layout_case)
    return [nodes, nodes.with_all_of(converted), forward, forward.with_all_of(layouts)]


def table(seen: dict[str, dict[str, bool]], used: list[Suite]) -> None:
    """The faults that each suite sees, and of how many cases it has made use."""
    row("killed / faults", TITLES.values())
    for name, verdicts in seen.items():
        mine = {stem: [v for key, v in verdicts.items() if key.startswith(stem + ".")] for stem in TITLES}
        row(name, [f"{sum(mine[stem])} / {len(mine[stem])}" for stem in TITLES])
    print()
    row("cases used, inexpressible, failed by the reference", TITLES.values())
    for s in used:
        row(s.name, [f"{len(s.cases[stem])}, {s.inexpressible[stem]}, {s.refused[stem]}" for stem in TITLES])
    inputs = [(stem, given.reference_fn) for stem, given, *_ in torch_inputs()]
    counts = [sum(s == stem and compare is not None for s, compare in inputs) for stem in TITLES]
    row("ModuleInfo test_forward: cases with a reference", counts)


def row(title: str, cells: Any) -> None:
    print(f"{title:52}" + "".join(f"{cell!s:>13}" for cell in cells))


def by_fault(seen: dict[str, dict[str, bool]], keys: list[str]) -> None:
    print("\nseen by " + ", ".join(f"({n}) {name}" for n, name in enumerate(seen, start=1)))
    width = max(map(len, keys))
    for key in keys:
        marks = " ".join(str(n) if verdicts[key] else "-" for n, verdicts in enumerate(seen.values(), start=1))
        print(f"{marks}  {key:{width}}  {catalogue()[key].mistake}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="say which suite sees which fault")
    parser.add_argument("--all", action="store_true", help="all forward faults of the three functions")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    keys = list(PLAIN)
    if options.all:
        keys = [key for key, fault in catalogue().items() if block_of(key) in TITLES.keys() & fault.pieces.keys()]
    used = suites()
    seen = {suite.name: {key: suite.sees(key) for key in keys} for suite in used}
    seen["nnspec, the check of the requirement"] = {key: measure(key, "quick", 0).killed for key in keys}
    print(f"onnx {onnx.__version__}, torch {torch.__version__}\n")
    table(seen, used)
    if options.list:
        by_fault(seen, keys)
    return 0


if __name__ == "__main__":
    sys.exit(main())

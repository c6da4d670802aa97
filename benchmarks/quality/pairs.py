"""Which pairs of levels the cases of each block reach, in the forward pass and in gradients.

    python benchmarks/quality/pairs.py [--block BLOCK]… [--seeds N]

A level is a property of a call: a value of an argument, an absent operand, the rank of x, the mode, the dtype, a size
of an axis, rows left over, a depthwise convolution, special values, and the layout of each operand and cotangent. The
cases of all checks at `quick` are counted that reach the reference in a call. Lists the pairs that fewer than three
cases reach although no rule of RULES excludes them, and ends with 1 if there are any.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np
from nnspec.adapters import load
from nnspec.adapters.blocks import TAKE_IMAGES
from nnspec.adapters.names import LONG
from nnspec.adapters.signatures import EQUATION, SIGNATURES, TANGENT
from nnspec.conformance.case import Case
from nnspec.conformance.checks import load_checks
from nnspec.conformance.layouts import EXPANDED
from nnspec.conformance.levels import LAYOUTS, SIZES, Level, levels
from nnspec.conformance.requirements import CHECKS, Check
from nnspec.conformance.trial.run import forms
from nnspec.conformance.trial.steps import Call, Derivatives, Step
from nnspec.conformance.trial.trial import Trial

LEAST = 3  # cases of each pair
COMPOSED = ("mlp", "basic_block")
BLOCKS = tuple(stem for stem, signature in SIGNATURES.items() if signature.function or stem in COMPOSED)
Pair = tuple[Level, Level]
SPECIAL = ("values", "special")
DEPTHWISE = (("channels", "depthwise"), ("channels", "depthwise with multiplier"))
VECTORS = ("running_mean", "running_var", "weight", "bias")
OWN_CHANNELS = ("einsum", "conv2d", "conv_transpose2d")  # blocks whose result has other channels than x
STRIDES = "stride of rows and columns"
PADDED = ("1", "2 or more", "unequal")


# -- which levels and pairs there are ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """Why a pair of levels cannot be, in either order."""

    reason: str
    excludes: Callable[[str, Level, Level], bool]  # asked of the block and two levels


RULES = (
    Rule("a level excludes the others of its kind", lambda stem, a, b: a[0] == b[0]),
    Rule(
        "an array without elements lies in one way; the result's batch is that of x",
        lambda stem, a, b: (
            a == ("x axis 0", "0") and b[0] in ("a" if stem == "einsum" else ("x", "cotangent")) and b[1] in LAYOUTS[1:]
        ),
    ),
    Rule("one operand has no second", lambda stem, a, b: a == ("operands", "1") and b[0] == "b"),
    Rule(
        "what an infinity gives depends on the order in which three operands are multiplied",
        lambda stem, a, b: a == ("operands", "3") and b == SPECIAL,
    ),
    Rule(
        "a block of blocks leaves special values to their checks", lambda stem, a, b: stem in COMPOSED and a == SPECIAL
    ),
    Rule(
        "a sum may take out a factor that repeats, which gives another value where one is not finite",
        lambda stem, a, b: a == SPECIAL and b[1] == EXPANDED,
    ),
    Rule("no element is special where there is none", lambda stem, a, b: {a, b} == {("x axis 0", "0"), SPECIAL}),
    Rule("channels last needs three axes", lambda stem, a, b: a == ("rank", "2") and b[1] == "channels last"),
    Rule(
        "axes are counted from 0", lambda stem, a, b: a[0] == "rank" and b[0].startswith("x axis") and b[0][-1] >= a[1]
    ),
    Rule(
        "a vector of one element lies in one way",
        lambda stem, a, b: stem == "batch_norm" and a == ("x axis 1", "1") and b[0] in VECTORS and b[1] in LAYOUTS[1:],
    ),
    Rule(
        "of one channel, first and last is the same",
        lambda stem, a, b: (
            a == ("x axis 1", "1") and b[1] == "channels last" and (b[0] != "cotangent" or stem not in OWN_CHANNELS)
        ),
    ),
    Rule(
        "the kernels of a depthwise convolution have one channel each",
        lambda stem, a, b: a in DEPTHWISE and b == ("weight", "channels last"),
    ),
    Rule(
        "a default is the same for rows and columns",
        lambda stem, a, b: a[1] == "default" and b == (f"{a[0]} of rows and columns", "unequal"),
    ),
    Rule(
        "a pool's stride of 1 is the same for rows and columns, and so is none",
        lambda stem, a, b: (
            stem.endswith("_pool2d")
            and (a, b[0]) in ((("stride", "1"), STRIDES), (("stride", "default"), STRIDES))
            and (a[1] == "default" or b[1] == "unequal")
        ),
    ),
    Rule(
        "windows one element apart leave nothing over",
        lambda stem, a, b: a == ("stride", "default") and b == ("rows left over", "some"),
    ),
    Rule(
        "a depthwise convolution has a group for each channel, and several",
        lambda stem, a, b: a in DEPTHWISE and b in (("groups", "default"), ("x axis 1", "1")),
    ),
    Rule("groups divide the channels", lambda stem, a, b: {a, b} == {("groups", "2 or more"), ("x axis 1", "1")}),
    Rule(
        "padding is at most half the window",
        lambda stem, a, b: a == ("kernel_size", "default") and b[0].startswith("padding") and b[1] in PADDED,
    ),
)


def feasible(stem: str, pair: Pair) -> bool:
    """Whether no rule excludes a pair of levels."""
    first, second = pair
    return not any(rule.excludes(stem, first, second) or rule.excludes(stem, second, first) for rule in RULES)


def all_levels(met: set[Level], axes: dict[str, int]) -> set[Level]:
    """Return the levels that a block has, met or not, if its operands have at most so many axes."""
    found = set(met)
    for factor in {factor for factor, _ in met}:
        if factor in axes:
            found |= {(factor, layout) for layout in LAYOUTS if axes[factor] > 2 or layout != "channels last"}
        if factor.startswith("x axis"):
            found |= {(factor, size) for size in SIZES}
    sizes = {level for level in found if level[0].startswith("x axis")}
    # nothing slides over an image without rows: of size 0 is the batch; sizes between the named ones are not asked for
    return found - {level for level in sizes if level[1] == "3 or 4" or (level[1] == "0" and level[0] != "x axis 0")}


# -- what is reached ---------------------------------------------------------------------------------------------------


@dataclass
class Reach(Trial):
    """A trial that notes the pairs of levels of the calls of each case of a block."""

    stem: str = ""
    counts: dict[str, Counter[Pair]] = field(default_factory=lambda: defaultdict(Counter))
    single: dict[str, Counter[Level]] = field(default_factory=lambda: defaultdict(Counter))
    axes: dict[str, int] = field(default_factory=dict)  # operand -> the most axes that it has
    now: dict[str, set[frozenset[Level]]] = field(default_factory=lambda: defaultdict(set))

    def begin(self) -> None:
        """Count the case before."""
        for direction, calls in self.now.items():
            self.counts[direction].update({pair for call in calls for pair in itertools.combinations(sorted(call), 2)})
            self.single[direction].update({level for call in calls for level in call})
        self.now.clear()
        super().begin()

    def do(self, step: Step) -> Any:
        """Make a call, and note it if it is not refused."""
        found = super().do(step)
        if isinstance(step, Call | Derivatives) and step.case.stem == self.stem:
            case = step.given or step.case
            x = next((a for a in case.arrays.values() if a is not None), None)
            if x is not None and TANGENT not in case.arrays and not _is_short(case, x):
                direction = "gradient" if isinstance(step, Derivatives) else "forward"
                self.now[direction].add(frozenset(levels(case)))
                for name, array in case.arrays.items():
                    if array is not None and array.ndim:
                        self.axes[name] = max(array.ndim, self.axes.get(name, 0))
        return found


def _is_short(case: Case, x: np.ndarray) -> bool:
    """Whether a call is short for another one that it is compared with: of a lone image, or with padding="same"."""
    words = [value for name, value in case.arguments.items() if isinstance(value, str) and name != EQUATION]
    return bool(words) or (x.ndim == 3 and case.stem in TAKE_IMAGES)


def reached(stem: str, seeds: int) -> Reach:
    """Run the checks of a block on the reference, and return what they reach."""
    subject = load("reference").within(stem)
    form = subject.forms(stem)[0]
    total = Reach(subject, form, LONG[0], stem=stem)
    for check, seed in itertools.product(_checks(stem), range(seeds)):
        for dtype in LONG if check.per_dtype else LONG[:1]:
            if form in forms(subject, check):
                trial = Reach(
                    subject,
                    form,
                    dtype,
                    "quick",
                    seed,
                    stem=stem,
                    counts=total.counts,
                    single=total.single,
                    axes=total.axes,
                )
                trial.run(check, simplify=False)
                trial.begin()
    return total


def _checks(stem: str) -> list[Check]:
    return [check for check in CHECKS.values() if check.stem == stem and not check.refusal]


def main() -> None:
    """Print a table, and the pairs that are reached too seldom."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", action="append", choices=BLOCKS)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    load_checks()
    warnings.simplefilter("ignore")
    missing = 0
    print("| block | | levels | feasible pairs | reached by fewer than 3 cases |\n| --- | --- | --: | --: | --: |")
    for stem in chosen.block or BLOCKS:
        reach = reached(stem, chosen.seeds)
        for direction, counts in sorted(reach.counts.items()):
            known = sorted(all_levels(set(reach.single[direction]), reach.axes))
            wanted = [pair for pair in itertools.combinations(known, 2) if feasible(stem, pair)]
            seldom = [pair for pair in wanted if counts[pair] < LEAST]
            missing += len(seldom)
            print(f"| {stem} | {direction} | {len(known)} | {len(wanted)} | {len(seldom)} |", flush=True)
            for (a, b), (c, d) in seldom:
                print(f"    {a}: {b}, {c}: {d}: {counts[((a, b), (c, d))]}", file=sys.stderr)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()

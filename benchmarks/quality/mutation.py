"""Whether every line of the checks is needed: each is left out or weakened in turn, and some fault must then survive.

    python benchmarks/quality/mutation.py [--file conformance/checks/laws.py]… [--every N] [--write]

What is tried, one at a time: a statement left out, an exception not raised, a loop that does nothing, a strategy that
always gives its first value, an argument that a check no longer varies. For a change within one check the faults of its
requirement are tried, for others in a block's file those of the block, for what blocks share those of all of them, in
an order drawn at random, until one survives that its check kills otherwise: at `quick`, seed 0. Where none survives,
the change is printed: the line is superfluous, or a fault is missing. Changes after which the checks no longer run, or
the reference no longer passes them, prove nothing and are counted apart. --every N tries every Nth change.
--write puts the changes that survived into mutation.txt, in place of those of the same files. A change is named by its
function and its text, not by a line number.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib.machinery
import multiprocessing
import os
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutation.txt")
SHARED = (
    *(
        f"checks/{name}"
        for name in ("cases", "convolutions", "laws", "laws_of_gradients", "learning", "life", "pools", "trees")
    ),
    *(f"bounds/{name}" for name in ("residual", "wiring")),
)
PRELOADED = ("numpy", "hypothesis", "hypothesis.stateful", "pytest", "rich", "jinja2", "ml_dtypes")


@dataclass(frozen=True)
class Change:
    """The nth thing in a file that can be weakened, and the faults that are to tell."""

    file: str
    number: int
    name: str  # the function, or the name at the top of the file, that holds it; and which one, if several read alike
    what: str
    faults: tuple[str, ...]  # what their keys begin with

    def __str__(self) -> str:
        return f"{self.file}: {self.name}: {self.what}"


class Weaken(ast.NodeTransformer):
    """Walks a file and notes what can be weakened; changes the one with the number asked for."""

    def __init__(self, number: int | None = None) -> None:
        self.number, self.found = number, list[tuple[str, str, str]]()
        self.check = ""  # the identifier of the check that is being walked through
        self.names: list[str] = []  # the functions and classes around the node

    def change(self, node: Any, what: str, weaker: Any) -> Any:
        """`weaker` in the place of a node, if this is the one."""
        self.found.append((".".join(self.names) or "module", what, self.check))
        chosen = self.number == len(self.found) - 1
        return ast.fix_missing_locations(ast.copy_location(weaker, node)) if chosen else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        """Remember which check it is, if it is one. A test without a requirement is one of reach, and no check."""
        if node.name.startswith("test_") and not any("requirement(" in ast.unparse(d) for d in node.decorator_list):
            return node
        first = [d.args[0] for d in node.decorator_list if isinstance(d, ast.Call) and d.args]
        return self.within(node, node.name, first)

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        """Remember the name."""
        return self.within(node, node.name, [])

    def visit_Assign(self, node: ast.Assign) -> Any:
        """Remember which check it is, if a law makes one: `test_name = law("identifier", …)`."""
        if self.names or not isinstance(node.targets[0], ast.Name):
            return self.generic_visit(node)
        return self.within(node, node.targets[0].id, node.value.args[:1] if isinstance(node.value, ast.Call) else [])

    def within(self, node: Any, name: str, first: list[ast.expr]) -> Any:
        """Walk through what has a name, and is a check if its decorator or law begins with an identifier."""
        before = self.check
        for argument in first:
            if isinstance(argument, ast.Constant) and str(argument.value).count(".") == 2:
                self.check = str(argument.value)
        self.names.append(name)
        self.generic_visit(node)
        self.names.pop()
        self.check = before
        return node

    def visit_Expr(self, node: ast.Expr) -> Any:
        """A call for what it does."""
        if isinstance(node.value, ast.Call):
            return self.change(node, f"without `{_short(node)}`", ast.Pass())
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> Any:
        """What is complained of. (What is unsupported spares those who do less, and finds nothing.)"""
        if node.exc and ast.unparse(node.exc).startswith(("Unsupported(", "Lacks(")):
            return node
        return self.change(node, f"without `{_short(node)}`", ast.Pass())

    def visit_For(self, node: ast.For) -> Any:
        """What is done again and again."""
        return self.change(node, f"without `{_short(node)}` …", ast.Pass())

    def visit_Call(self, node: ast.Call) -> Any:
        """A strategy."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        one = None
        if (
            name in ("any_of", "dimension", "one_of")
            and len(node.args) > 1
            and not isinstance(node.args[0], ast.Starred)
        ):
            one = ast.Call(node.func, node.args[:1], [])
        elif name == "sampled_from":
            one = ast.Call(node.func, [ast.parse(f"tuple({ast.unparse(node.args[0])})[:1]", mode="eval").body], [])
        elif name == "integers" and len(node.args) == 2:
            one = ast.parse(f"{ast.unparse(node)}.map(lambda _: {ast.unparse(node.args[0])})", mode="eval").body
        elif name == "booleans":
            one = ast.parse(f"{ast.unparse(node)}.map(lambda _: False)", mode="eval").body
        return self.change(node, f"first value of `{_short(node)}`", one) if one else self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> Any:
        """What a check varies."""
        if node.arg == "vary" and isinstance(node.value, ast.Tuple):
            for n, name in enumerate(node.value.elts):
                fewer = ast.Tuple(node.value.elts[:n] + node.value.elts[n + 1 :], ast.Load())
                changed = self.change(node, f"without varying {ast.unparse(name)}", ast.keyword(node.arg, fewer))
                if changed is not node:
                    return changed
        return node


def _short(node: ast.AST) -> str:
    first = ast.unparse(node).splitlines()[0]
    return first if len(first) <= 80 else f"{first[:77]}…"


@functools.cache
def imports(file: Path) -> frozenset[str]:
    """The names that a file of conformance/ imports, its own, and those that the files of these names do."""
    tree = ast.parse(file.read_text("utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    names = {name for node in nodes for name in (*str(node.module).split("."), *(alias.name for alias in node.names))}
    others = (file.with_stem(name) for name in names - {file.stem})
    return frozenset({file.stem, *names}.union(*(imports(other) for other in others if other.exists())))


def changes(file: str) -> Iterator[Change]:
    """All of a file."""
    walk, stem = Weaken(), Path(file).stem
    walk.visit(ast.parse((ROOT / file).read_text("utf-8")))
    users = [path for path in sorted((ROOT / "conformance" / "checks").glob("test_*.py")) if stem in imports(path)]
    blocks = tuple(f"{path.stem.removeprefix('test_')}." for path in users)
    seen: Counter[tuple[str, str]] = Counter()
    for number, (name, what, check) in enumerate(walk.found):
        seen[name, what] += 1
        nth = f" #{seen[name, what]}" * (seen[name, what] > 1)
        yield Change(file, number, name + nth, what, (f"{check}/",) if check.startswith(blocks) else blocks)


def judge(change: Change) -> tuple[str, str]:
    """Whether a fault survives (and which), all are killed, or the checks no longer run. In a process of its own."""
    tree = Weaken(change.number).visit(ast.parse((ROOT / change.file).read_text("utf-8")))
    get_code, changed = importlib.machinery.SourceFileLoader.get_code, str((ROOT / change.file).resolve())

    def weakened(loader: Any, name: str) -> Any:
        path = loader.get_filename(name)
        return compile(tree, path, "exec") if str(Path(path).resolve()) == changed else get_code(loader, name)

    importlib.machinery.SourceFileLoader.get_code = weakened  # type: ignore[method-assign]
    warnings.simplefilter("ignore")
    try:
        from nnspec.adapters.for_reference import subject
        from nnspec.conformance.power import faults_of, measure
        from nnspec.conformance.power import judge as judge_check
        from nnspec.conformance.requirements import CHECKS

        keys = [fault.key for fault in faults_of() if fault.key.startswith(change.faults)]
        random.Random(change.number).shuffle(keys)
        for key in keys:
            if not measure(key, "quick", 0).killed:
                return "lost", key
        for requirement in sorted({key.partition("/")[0] for key in keys}):
            outcome = judge_check(subject(), CHECKS[requirement], "quick", 0)
            if outcome and outcome.verdict == "fail":  # whatever it is put to is called wrong, and so each fault is
                return "broken", f"{requirement} fails for the reference"
    except BaseException as error:
        return "broken", f"{type(error).__name__}: {error}"
    return "survived", f"{len(keys)} faults"


def write(files: list[str], survivors: list[str]) -> None:
    """Replace the lines of these files in mutation.txt."""
    kept = [line for line in LIST.read_text("utf-8").splitlines() if line.partition(":")[0] not in files]
    remarks = [line for line in kept if line.startswith("#")]
    others = [line for line in kept if not line.startswith("#")]
    lines = sorted([*others, *survivors], key=lambda line: line.partition(":")[0])
    LIST.write_text("\n".join([*remarks, *lines]) + "\n", "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", action="append", default=[], help="one file of conformance/; all that hold checks")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try every Nth change")
    parser.add_argument("-n", type=int, default=2, metavar="WORKERS")
    parser.add_argument("--write", action="store_true", help="write the changes that survived into mutation.txt")
    options = parser.parse_args()
    if options.write and options.every > 1:
        parser.error("--write needs every change: leave --every out")
    checks = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "conformance" / "checks").glob("test_*.py"))
    files = options.file or [*checks, *(f"conformance/{name}.py" for name in SHARED)]
    todo = [change for file in files for change in changes(file)][:: options.every]
    counts: dict[str, Counter[str]] = {file: Counter() for file in files}
    survivors: list[str] = []
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with ProcessPoolExecutor(options.n, context, max_tasks_per_child=1) as pool:
        results = pool.map(judge, todo)
        try:
            for n, (change, (said, why)) in enumerate(zip(todo, results, strict=True), start=1):
                counts[change.file].update(["changes", said])
                print(f"\r{n} of {len(todo)}", end="", file=sys.stderr, flush=True)
                if said == "survived":
                    survivors.append(f"{change}: {why} killed")
                    print(survivors[-1], flush=True)
            if options.write:
                write(files, survivors)
        except KeyboardInterrupt:  # what is known so far is told
            pool.shutdown(wait=False, cancel_futures=True)
    print(f"\n{'file':34} changes    lost  broken  survived")
    for file, count in (*counts.items(), ("all", sum(counts.values(), Counter()))):
        print(f"{file:34} {count['changes']:7} {count['lost']:7} {count['broken']:7} {count['survived']:9}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

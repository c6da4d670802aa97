"""The subject of a check as the body of the check sees it: it makes calls, watches them, and compares results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import Raised, Unusable, Watched, watched
from nnspec.adapters.roles import Roles
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Lacks, Subject, entries, parameters
from nnspec.conformance.bounds.arithmetic import CLASSES, NARROW, narrows
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Case, as_laid_out
from nnspec.conformance.requirements import Check
from nnspec.conformance.trial.comparisons import Comparisons
from nnspec.conformance.trial.journal import Journal
from nnspec.conformance.trial.record import (
    Call,
    CallFails,
    Mismatch,
    Outcome,
    is_complex,
    mismatched,
)


@dataclass
class Trial:
    """A subject in one form and dtype, ready to be given checks. Inside a check it is what the body calls `subject`."""

    subject: Subject
    form: str
    dtype: str
    profile: str = "quick"
    seed: int = 0
    journal: Journal | None = None
    calls: list[Call] = field(default_factory=list)
    seen: list[tuple[str, Any]] = field(default_factory=list)  # what the subject gave, or that it raised
    module: Any = None  # where every call is to be one of this module
    compared: Comparisons = None  # type: ignore[assignment]  # made below; every trial that is derived shares it

    def __post_init__(self) -> None:
        if not isinstance(self.subject.framework, Watched):
            self.subject = replace(self.subject, framework=watched(self.subject.framework))  # type: ignore[arg-type]
        if self.compared is None:
            also = NARROW if narrows(self.dtype) else ()
            weaker = (name for name in CLASSES if name in self.subject.accuracy or name in also)
            self.compared = Comparisons(self.subject.flushes, tuple(weaker))

    # -- what the bodies of checks use ---------------------------------------------------------------------------------

    def __call__(self, case: Case) -> np.ndarray:
        """Call the block; the first result. Operands are copied first, so that no subject can damage a case."""
        return self.results(case)[0]

    def results(self, case: Case, *, as_is: bool = False) -> tuple[np.ndarray, ...]:
        """Call the block; all results. `as_is` hands over the arrays themselves, with the layout that they have."""
        given = case if as_is else case.map(lambda a: np.array(a))
        call = Call(case.map(as_laid_out), given=case, module=self.module) if as_is else Call(case, module=self.module)
        self.calls.append(call)
        with self.watched(case, "a result"):
            if self.module is None:
                results = self.subject.call(case.stem, self.form, given.arrays, given.arguments)
            else:
                results = self.subject.apply(case.stem, self.module, given.arrays)
            if not any(is_complex(a) for a in given.arrays.values()):
                for result in filter(is_complex, results):
                    raise Unusable(f"returned an array of dtype {result.dtype}")
        self.calls[-1] = replace(call, results=results, copies=tuple(np.array(r) for r in results))
        self.seen.append(("result", self.calls[-1].copies))
        return results

    def gradients(
        self, case: Case, *, wanted: tuple[str, ...] | None = None, as_is: bool = False
    ) -> dict[str, np.ndarray]:
        """Operand -> the gradient by it, for the cotangent among the case's arrays. Arrays are handed over as above."""
        given = case if as_is else case.map(lambda a: np.array(a))
        call = Call(case.map(as_laid_out), given=case) if as_is else Call(case)
        self.calls.append(replace(call, step="gradient", wanted=wanted))
        with self.watched(case, "gradients"):
            found = self.subject.gradients(case.stem, self.form, given.arrays, given.arguments, wanted)
        # a parameter that the case does not know, and that the module should not have, is for others to judge
        present = {n: g for n, g in found.items() if g is not None and n in case.arrays}
        self.calls[-1] = replace(self.calls[-1], entries=present)
        self.seen.append(("gradient", present))
        operands = [n for n, a in case.arrays.items() if a is not None and not n.startswith("cotangent")]
        for name in operands:
            if name not in present and (wanted is None or name in wanted) and name in found:
                raise Mismatch(f"there is no gradient of {name}", holds=f"{name!r} in gradient")
        return present

    def second(self, case: Case) -> dict[str, np.ndarray]:
        """What a function's second derivatives are, for the tangent, and perhaps cotangent, among the case's arrays."""
        self.calls.append(Call(case, step="second"))
        with self.watched(case, "second derivatives"):
            found = self.subject.second(case.stem, case.map(lambda a: np.array(a)).arrays, case.arguments)
        self.calls[-1] = replace(self.calls[-1], entries=found)
        self.seen.append(("second derivative", found))
        return found

    def presumed(self, case: Case) -> np.ndarray:
        """The result of a call that another check judges. CallFails where it raises."""
        try:
            return self(case)
        except Mismatch as mismatch:
            raise CallFails(mismatch.message) from None

    def spoil(self, result: np.ndarray) -> None:
        """Write NaN into a result that the subject returned."""
        self.calls.append(Call(self.calls[-1].case, results=(result,), step="spoil"))
        result[...] = np.nan

    def kept(self, case: Case) -> Trial:
        """This trial with one module, built from the case, for all calls to come. As it is where that is so already."""
        if self.form == "function" or self.module is not None:
            return self
        return replace(self, module=self.build(case).native)

    def build(self, case: Case) -> Built:
        """The block as a module with the case's arrays as its state, for several calls and what lies between them."""
        self.calls.append(Call(case, step="build"))
        with self.watched(case, "a module"):
            native, _ = self.subject.build(case.stem, case.map(np.array).arrays, case.arguments)
        self.calls[-1] = replace(self.calls[-1], module=native)
        return Built(self, native, case)

    def new(self, stem: str, *positional: Any, **keywords: Any) -> Any:
        """A module as its constructor leaves it; Lacks where that does not have one of the keywords."""
        classes = self.subject.classes
        cls = next(classes[name] for name in SIGNATURES[stem].classes if name in classes)
        if missing := keywords.keys() - (parameters(cls) or keywords.keys()):
            raise Lacks(f"{cls.__name__} has no argument {min(missing)}")
        keywords = self.subject.completed(stem, cls, keywords)
        given = [*map(repr, positional), *(f"{n}={v!r}" for n, v in keywords.items())]
        with self.watched(f"{cls.__name__}({', '.join(given)})", "a module"):
            return self.subject.framework.construct(cls, positional, keywords, np.dtype(self.dtype))

    def prepare(self, stem: str, module: Any, given: Mapping[str, np.ndarray], training: bool) -> None:
        """Load entries by the page's keys into a module, and put it in training mode or in evaluation mode."""
        with self.watched("load_state_dict(…)", "a state loaded"):
            self.subject.load(stem, module, given)
            self.subject.framework.set_training(module, training)

    def state(self, module: Any) -> dict[str, np.ndarray]:
        """Own key -> copy, of a module's parameters and saved buffers."""
        with self.watched("state_dict()", "its state"):
            state = self.subject.framework.state(module)
        self.seen.append(("state", state))
        return state

    def entries(self, stem: str, module: Any, page: Iterable[str], *, saved: bool = False) -> dict[str, np.ndarray]:
        """Key -> copy, of what a module has in the roles of the page's keys, and of what else it saves.

        `saved` leaves out what is in a role and not saved.
        """
        with self.watched("state_dict()", "its state"):
            state = self.subject.state(stem, module, tuple(page), saved=saved)
        self.seen.append(("state", state))
        return state

    @contextmanager
    def watched(self, what: Case | str, expected: str) -> Iterator[None]:
        """Around a call: in the journal while it runs; what the subject raises, or returns unusable, is a Mismatch."""
        if self.journal:
            self.journal.write(what) if isinstance(what, Case) else self.journal.note(what)
        try:
            yield
        except (Raised, Unusable) as failed:
            self.seen.append(("raised" if isinstance(failed, Raised) else "unusable", None))
            raise mismatched(failed, expected) from None
        finally:
            if self.journal:
                self.journal.rest()

    def expect(
        self,
        actual: np.ndarray,
        expected: Expected,
        what: str = "the result",
        told: Callable[[Mismatch], Mismatch] = lambda mismatch: mismatch,
    ) -> None:
        """Every element within its bound; where the bound is 0, equal. The shape comes first.

        A result that a weaker class still allows may be wrong in the end: `told` completes its Mismatch now.
        """
        self.compared.expect(actual, expected, what, told)

    def expect_one(
        self, actual: Sequence[np.ndarray], ways: Iterable[Sequence[Expected]], what: Sequence[str]
    ) -> Sequence[Expected]:
        """Return the best of several ways in which all results may be right; Mismatch by the first if there is none."""
        return self.compared.expect_one(actual, ways, what)

    def begin(self) -> None:
        """Forget what was done and seen in the case before."""
        self.calls, self.seen = [], []
        self.compared.begin(self.calls, self.seen)

    def refuses(self, case: Case) -> None:
        """The call must raise, whatever it raises, and return nothing."""
        try:
            results = self.results(case)
        except Mismatch as mismatch:
            if mismatch.raised is None:
                raise
            return
        shapes = ", ".join(str(r.shape) for r in results)
        message = f"accepted, and returned shape {shapes}; expected an exception"
        raise Mismatch(message, results[0], holds="result is None")

    def run(self, check: Check, *, simplify: bool = True) -> Outcome:
        """Run a check: see `nnspec.conformance.trial.run`."""
        from nnspec.conformance.trial.run import run

        return run(self, check, simplify=simplify)


@dataclass(eq=False)
class Built:
    """A module of the subject that lives through several calls. What it raises is a Mismatch, as in `Trial.results`."""

    trial: Trial
    native: Any
    case: Case  # its last call, or, before any, how it was built
    keys: Collection[str] = ()  # of its entries, where these are not among the case's arrays

    @property
    def page(self) -> Collection[str]:
        """The page's keys of its entries."""
        return self.keys or entries(self.case.arrays)

    @property
    def roles(self) -> Roles:
        """Which of its entries have the roles of the page's keys."""
        return self.trial.subject.roles(self.case.stem, type(self.native), self.page, self.native)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Call the module; its result."""
        self.case = self.case.but(x=x)
        self.trial.calls.append(Call(self.case, module=self.native))
        framework = self.trial.subject.framework
        with self.trial.watched(self.case, "a result"):
            result = self.trial.subject.result(self.native, [framework.to_native(np.array(x))])
        self.trial.calls[-1] = replace(self.trial.calls[-1], results=(result,), copies=(np.array(result),))
        self.trial.seen.append(("result", self.trial.calls[-1].copies))
        return result

    def gradients(self, x: np.ndarray, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        """Call the module and take a cotangent back: the gradient of x and, by key, those of its parameters."""
        self.case = replace(self.case, arrays={**self.case.arrays, "x": x, "cotangent": cotangent})
        self.trial.calls.append(Call(self.case, module=self.native, step="gradient"))
        framework = self.trial.subject.framework
        natives = (framework.to_native(np.array(a)) for a in (x, cotangent))
        with self.trial.watched(self.case, "gradients"):
            own = framework.differentiate_module(self.native, *natives)
            found = self.roles.page(own)
            present = {n: framework.to_numpy(g) for n, g in found.items() if g is not None}
        self.trial.calls[-1] = replace(self.trial.calls[-1], entries=present)
        self.trial.seen.append(("gradient", present))
        return present

    def train(self, mode: bool = True) -> Built:
        """Put the module in training mode, or in evaluation mode; itself."""
        with self.trial.watched("train()" if mode else "eval()", "a change of mode"):
            self.trial.subject.framework.set_training(self.native, mode)
        self.case = self.case.but(training=mode)
        self.trial.calls.append(Call(self.case, module=self.native, step="mode"))
        return self

    def eval(self) -> Built:
        """Put the module in evaluation mode; itself."""
        return self.train(False)

    def state(self, *, saved: bool = False) -> dict[str, np.ndarray]:
        """Key -> copy, of what it has in the roles of the page's keys, and of what else it saves; `saved`: of nothing
        that it does not save."""
        with self.trial.watched("state_dict()", "its state"):
            found = self.trial.subject.state(self.case.stem, self.native, self.page, saved=saved)
        self.trial.calls.append(Call(self.case, module=self.native, step="state", entries=found))
        self.trial.seen.append(("state", found))
        return found

    def load(self, given: Mapping[str, np.ndarray]) -> Built:
        """Put arrays into its parameters and buffers by key; itself."""
        with self.trial.watched("load_state_dict(…)", "a state loaded"):
            self.trial.subject.load(self.case.stem, self.native, given, self.page)
        known = any(call.entries is given for call in self.trial.calls)  # what a module gave, as it is
        given = given if known else {key: np.array(value) for key, value in given.items()}
        self.trial.calls.append(Call(self.case, module=self.native, step="load", entries=given))
        return self

"""The subject of a check as the body of the check sees it: it makes calls, watches them, and compares results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from nnspec.adapters.blame import OutOfDomain, Raised, Unusable, Watched, watched
from nnspec.adapters.quantities import CONSTRUCTED
from nnspec.adapters.roles import Roles
from nnspec.adapters.signatures import COTANGENT, SIGNATURES, entries, operands
from nnspec.adapters.subject import Lacks, Subject, parameters
from nnspec.conformance.bounds.arithmetic import CLASSES, NARROW, narrows
from nnspec.conformance.bounds.rule import Expected
from nnspec.conformance.case import Case
from nnspec.conformance.layouts import as_laid_out
from nnspec.conformance.requirements import Check
from nnspec.conformance.trial.canary import Canary
from nnspec.conformance.trial.comparisons import Comparisons
from nnspec.conformance.trial.journal import Journal
from nnspec.conformance.trial.record import CallFails, Died, Mismatch, Outcome, Spoilt, mismatched
from nnspec.conformance.trial.steps import (
    Build,
    Call,
    CallFunction,
    CallModule,
    Derivatives,
    DifferentiateFunction,
    DifferentiateModule,
    DifferentiateTwice,
    Load,
    New,
    OnCase,
    RaiseState,
    ReadState,
    SetAttribute,
    SetMode,
    Step,
    steps_of,
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
    sizes: str = ""  # a key of sizes.REGIMES, or nothing for the profile's own
    sweeps: bool = True  # whether some checks visit every long size: in one form and dtype, since this takes longer
    steps: list[Step] = field(default_factory=list)  # what was done to the subject for the present case
    seen: list[tuple[str, Any]] = field(default_factory=list)  # what the subject gave, or that it raised
    module: Any = None  # where every call is to be one of this module
    everywhere: bool = False  # whether calls outside the subject's domain are made
    compared: Comparisons = None  # type: ignore[assignment]  # made below; every trial that is derived shares it
    canary: Canary = field(default_factory=Canary)  # shared by all trials of a process

    def __post_init__(self) -> None:
        if not isinstance(self.subject.framework, Watched):
            self.subject = replace(self.subject, framework=watched(self.subject.framework))  # type: ignore[arg-type]
        if self.compared is None:
            also = NARROW if narrows(self.subject.result_dtype or self.dtype) else ()
            weaker = (name for name in CLASSES if name in self.subject.accuracy or name in also)
            self.compared = Comparisons(self.subject.flushes, tuple(weaker))

    # -- what the bodies of checks use ---------------------------------------------------------------------------------

    def __call__(self, case: Case) -> np.ndarray:
        """Call the block; the first result. Operands are copied first, so that no subject can damage a case."""
        return self.results(case)[0]

    def results(self, case: Case, *, as_is: bool = False) -> tuple[np.ndarray, ...]:
        """Call the block; all results. `as_is` hands over the arrays themselves, with the layout that they have."""
        handed = _handed(case, as_is)
        if self.form == "function":
            call: Call = CallFunction(*handed)
        else:
            module = self.do(Build(*handed)) if self.module is None else self.module
            call = CallModule(*handed, module, SIGNATURES[case.stem].results[1:])
        results = self._called(call)
        if self.form == "function" or self.module is None:  # else the case cannot build the module again
            self.canary.returned(self.form, handed[0])
        return results

    def _called(self, call: Call) -> tuple[np.ndarray, ...]:
        results: tuple[np.ndarray, ...] = self.do(call)
        self.seen.append(("result", tuple(np.array(result) for result in results)))
        return results

    def gradients(
        self, case: Case, *, wanted: tuple[str, ...] | None = None, as_is: bool = False
    ) -> dict[str, np.ndarray]:
        """Operand -> the gradient for it, for the cotangents among the case's arrays. `as_is` as in `results`."""
        handed = _handed(_in_result_dtype(case, self.subject.result_dtype), as_is)
        if self.form == "function":
            step: Derivatives = DifferentiateFunction(*handed, wanted)
        else:
            step = DifferentiateModule(*handed, self.do(Build(*handed)), wanted=wanted)
        found = self.do(step)
        # a parameter that the case does not know, and that the module should not have, is for others to judge
        present = {name: g for name, g in step.found().items() if name in case.arrays}
        self.seen.append(("gradient", present))
        for name in (name for name, a in operands(case.arrays).items() if a is not None):
            if name not in present and (wanted is None or name in wanted) and name in found:
                raise Mismatch(f"there is no gradient of {name}", holds=f"{name!r} in gradient")
        return present

    def second(self, case: Case) -> dict[str, np.ndarray]:
        """A function's second derivatives, for the tangent, and perhaps the cotangent, among the case's arrays."""
        handed = _handed(_in_result_dtype(case, self.subject.result_dtype))
        found: dict[str, np.ndarray] = self.do(DifferentiateTwice(*handed))
        self.seen.append(("second derivative", found))
        return found

    def beyond(self) -> Trial:
        """This trial, which also makes calls outside the domain that the subject declares."""
        return replace(self, everywhere=True)

    def excludes(self, case: Case) -> str | None:
        """Return which condition of the domain that the subject declares a call does not meet; None if it meets all."""
        return self.subject.domain(case.stem).excludes_call(case.arrays, case.arguments)

    def stay_inside(self, stem: str, values: Mapping[str, Any]) -> None:
        """Raise OutOfDomain for a call with these quantities, by name, that the subject makes no claim about."""
        self._stay_inside(self.subject.domain(stem).excludes(values))

    def _stay_inside(self, outside: str | None) -> None:
        if outside and not self.everywhere:
            raise OutOfDomain(outside)

    def presumed(self, case: Case) -> np.ndarray:
        """The result of a call that another check judges. CallFails where it raises."""
        try:
            return self(case)
        except Died:
            raise
        except Mismatch as mismatch:
            raise CallFails(mismatch.message) from None

    def kept(self, case: Case) -> Trial:
        """This trial with one module, built from the case, for all calls to come. As it is where that is so already."""
        if self.form == "function" or self.module is not None:
            return self
        return replace(self, module=self.build(case).native)

    def build(self, case: Case) -> Built:
        """The block as a module with the case's arrays as its state, for several calls and what lies between them."""
        return Built(self, self.do(Build(case)), case)

    def new(self, stem: str, *positional: Any, called_with: Case | None = None, **keywords: Any) -> Any:
        """A module as its constructor leaves it; Lacks where that does not have one of the keywords.

        Of several classes it is the one for the case that it will be called with, or the first.
        """
        classes, own = self.subject.classes, SIGNATURES[stem].classes
        name = self.subject.class_of(stem, called_with.arrays) if called_with else next(n for n in own if n in classes)
        known = parameters(classes[name])
        missing = keywords.keys() - (keywords.keys() if known is None else known)
        if absent := missing - self.subject.domain(stem).fixed:
            raise Lacks(f"{classes[name].__name__} has no argument {min(absent)}")
        self.stay_inside(stem, {**dict(zip(CONSTRUCTED.get(stem, ()), positional, strict=False)), **keywords})
        accepted = {n: value for n, value in keywords.items() if n not in missing}  # the class has their one value
        return self.do(New(name, positional, self.subject.completed(stem, classes[name], accepted), self.dtype))

    def prepare(self, stem: str, module: Any, given: Mapping[str, np.ndarray], training: bool) -> None:
        """Load entries by the page's keys into a module, and put it in training mode or in evaluation mode."""
        self.do(Load(Case(stem, {}), module, given.keys(), given))
        self.do(SetMode(Case(stem, {}), module, training=training))

    def state(self, module: Any) -> dict[str, np.ndarray]:
        """Own key -> copy, of a module's parameters and saved buffers."""
        with self.watched("state_dict()", "its state"):
            state = self.subject.framework.state(module)
        self.seen.append(("state", state))
        return state

    def entries(self, stem: str, module: Any, page: Iterable[str], *, saved: bool = False) -> dict[str, np.ndarray]:
        """Key -> copy, of what has a role of the page's keys, unless it must be `saved`, and of what else is saved."""
        state: dict[str, np.ndarray] = self.do(ReadState(Case(stem, {}), module, tuple(page), saved))
        self.seen.append(("state", state))
        return state

    def do(self, step: Step) -> Any:
        """Run a step, and add it to the record: what it gave."""
        if isinstance(step, OnCase):
            self._stay_inside(self.excludes(step.case))
        self.steps.append(step)
        with self.watched(step.case if isinstance(step, OnCase) else lambda: step.note, step.gives):
            found = step.run(self.subject)
        step.done = True
        return found

    def watched(self, what: Case | str | Callable[[], str], expected: str) -> Watching:
        """Around a call: in the journal while it runs; what the subject raises, or returns unusable, is a Mismatch."""
        return Watching(self, what, expected)

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
        self.steps, self.seen = [], []
        self.compared.begin(self.steps, self.seen)

    def refuses(self, case: Case) -> None:
        """The call must raise, whatever it raises, and return nothing."""
        domain = self.subject.domain(case.stem)
        fixed = domain.fixed & self.subject.lacks(case.stem, self.form)  # the code has their one value
        self.stay_inside(case.stem, {n: domain.quantity(n).of(case.arrays, case.arguments) for n in fixed})
        try:
            results = self.beyond().results(case)
        except Mismatch as mismatch:
            if mismatch.raised is None:
                raise
            return
        told = f"accepted, and returned shape {', '.join(str(r.shape) for r in results)}; expected an exception"
        raise Mismatch(told, results[0], holds="result is None")

    def run(self, check: Check, *, simplify: bool = True) -> Outcome:
        """Run a check: see `nnspec.conformance.trial.run`."""
        from nnspec.conformance.trial.run import run

        return run(self, check, simplify=simplify)


class Watching:
    """What stands around a call: see `Trial.watched`."""

    __slots__ = ("expected", "trial", "what")

    def __init__(self, trial: Trial, what: Case | str | Callable[[], str], expected: str) -> None:
        self.trial, self.what, self.expected = trial, what, expected

    def __enter__(self) -> None:
        if journal := self.trial.journal:
            what = self.what() if callable(self.what) else self.what
            journal.write(what) if isinstance(what, Case) else journal.note(what)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if isinstance(error, Raised | Unusable):
                self.trial.seen.append(("raised" if isinstance(error, Raised) else "unusable", None))
                if isinstance(error, Raised):
                    self._ask_canary(error.error)
                raise mismatched(error, self.expected) from None  # its text is the subject's, and may never end
        finally:
            if self.trial.journal:
                self.trial.journal.rest()

    def _ask_canary(self, error: BaseException) -> None:
        """Raise Spoilt if a call that has returned before raises, too. Its script makes that call first."""
        canary = self.trial.canary
        good, what = canary.good, self.what() if callable(self.what) else self.what
        if ended := canary.after(error, what, self.trial.subject):
            spoilt = Spoilt(ended)
            spoilt.steps = [*(steps_of(*good) if good else ()), *self.trial.steps]
            raise spoilt from None


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
        return self.trial._called(CallModule(*_handed(self.case), self.native))[0]

    def gradients(self, x: np.ndarray, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        """Call the module and run its backward pass: the gradients for x and, by key, for its parameters."""
        self.case = replace(self.case, arrays={**self.case.arrays, "x": x, COTANGENT: cotangent})
        step = DifferentiateModule(*_handed(self.case), self.native, self.keys or None)
        self.trial.do(step)
        self.trial.seen.append(("gradient", step.found()))
        return step.found()

    def train(self, mode: bool = True) -> Built:
        """Put the module in training mode, or in evaluation mode; itself."""
        self.case = self.case.but(training=mode)
        self.trial.do(SetMode(self.case, self.native, training=mode))
        return self

    def eval(self) -> Built:
        """Put the module in evaluation mode; itself."""
        return self.train(False)

    def state(self, *, saved: bool = False) -> dict[str, np.ndarray]:
        """Key -> copy, of what it has in the roles of the page's keys, and of what else it saves; `saved`: of nothing
        that it does not save."""
        found: dict[str, np.ndarray] = self.trial.do(ReadState(self.case, self.native, self.page, saved))
        self.trial.seen.append(("state", found))
        return found

    def registered(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]] | None]:
        """The shapes of its parameters, and of what else it saves; None for the latter where nothing tells."""
        with self.trial.watched("named_parameters()", "its parameters"):
            return self.trial.subject.registered(self.case.stem, self.native, self.page)

    def follows(self, key: str) -> bool:
        """Whether gradients are followed through what it has in the role of a page's key."""
        with self.trial.watched(f"{key}.requires_grad", "a flag"):
            return bool(self.trial.subject.framework.follows(self.native, self.roles.keys.get(key, key)))

    def set(self, name: str, value: bool) -> Built:
        """Set one of its attributes; itself."""
        self.trial.do(SetAttribute(self.case, self.native, self.page, name, value))
        return self

    def raise_state(self) -> Built:
        """Raise every saved entry by 1 through its own load_state_dict; itself."""
        self.trial.do(RaiseState(self.case, self.native, self.page))
        return self

    def load(self, given: Mapping[str, np.ndarray]) -> Built:
        """Put arrays into its parameters and buffers by key; itself."""
        known = any(step.result is given for step in self.trial.steps)  # what a module gave, as it is
        given = given if known else {key: np.array(value) for key, value in given.items()}
        self.trial.do(Load(self.case, self.native, self.page, given))
        return self


def _in_result_dtype(case: Case, dtype: str) -> Case:
    """Return the case with the cotangent of its first result in the dtype that a subject declares for results."""
    if not dtype or case.arrays.get(COTANGENT) is None:
        return case
    return case.but(**{COTANGENT: case[COTANGENT].astype(dtype)})


def _handed(case: Case, as_is: bool = False) -> tuple[Case, Case | None]:
    """The case for the record, which the subject cannot write to, and the very arrays that are handed over, if so."""
    if case.layouts:
        case, as_is = case.arranged(), True
    return (case.map(as_laid_out), case) if as_is else (case, None)

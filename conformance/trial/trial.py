"""One check against one subject: cases drawn, calls watched, the smallest counterexample kept."""

from __future__ import annotations

import functools
import gc
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from nnspec.adapters.blame import KnownDefect, Raised, Unusable, Watched, noting_interrupts, watched
from nnspec.adapters.roles import Roles
from nnspec.adapters.signatures import SIGNATURES
from nnspec.adapters.subject import Lacks, Refusal, Subject, Unsupported, entries, parameters
from nnspec.conformance.bounds.rule import ARITHMETIC, CLASSES, NARROW, Expected, compare, flushing, held_to
from nnspec.conformance.case import Case, as_laid_out, minimise
from nnspec.conformance.formats import STORED
from nnspec.conformance.requirements import CHECKS, Check, requirements
from nnspec.conformance.trial.journal import Journal
from nnspec.conformance.trial.record import (
    COSTLY,
    Call,
    CallFails,
    Mismatch,
    Outcome,
    Sighting,
    Tape,
    difference,
    is_complex,
    mismatched,
    parts,
    reason_of,
)

PROFILES = {"quick": 20, "ci": 100, "deep": 1000}  # cases per check
REMEMBERED = 12  # cases that were wrong, to be compared with known mistakes
MORE = 24  # cases that are drawn for the same purpose, right or wrong
for _name, _cases in PROFILES.items():
    settings.register_profile(
        f"nnspec-{_name}",
        max_examples=_cases,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )


def _taped(method: Callable[..., Any]) -> Any:
    """A method by which a subject does something with a case. To make a module of no case in particular is not one."""

    @functools.wraps(method)
    def on_tape(self: Any, *given: Any, **keywords: Any) -> Any:
        tape = self.tape if isinstance(self, Trial) else self.trial.tape
        if not tape.records:
            return method(self, *given, **keywords)
        name = " ".join([method.__name__, *(str(one) for one in given if isinstance(one, Case))])
        return tape.play(name, lambda: method(self, *given, **keywords))

    return on_tape


@dataclass
class Trial:
    """A subject in one form and dtype, ready to be given checks. Inside a check it is what the body calls `subject`."""

    subject: Subject
    form: str
    dtype: str
    profile: str = "quick"
    seed: int = 0
    journal: Journal | None = None
    worst: float = 0.0
    worst_case: str = ""
    reached: str = "A"  # the worst class of accuracy that a case needed
    calls: list[Call] = field(default_factory=list)
    seen: list[tuple[str, Any]] = field(default_factory=list)  # what the subject gave, or that it raised
    module: Any = None  # where every call is to be one of this module
    tape: Tape = field(default_factory=Tape)

    def __post_init__(self) -> None:
        if not isinstance(self.subject.framework, Watched):
            self.subject = replace(self.subject, framework=watched(self.subject.framework))  # type: ignore[arg-type]

    # -- what the bodies of checks use ---------------------------------------------------------------------------------

    def __call__(self, case: Case) -> np.ndarray:
        """Call the block; the first result. Operands are copied first, so that no subject can damage a case."""
        return self.results(case)[0]

    @_taped
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

    @_taped
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

    @_taped
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

    @_taped
    def spoil(self, result: np.ndarray) -> None:
        """Write NaN into a result that the subject returned."""
        self.calls.append(Call(self.calls[-1].case, results=(result,), step="spoil"))
        result[...] = np.nan

    def kept(self, case: Case) -> Trial:
        """This trial with one module, built from the case, for all calls to come. As it is where that is so already."""
        if self.form == "function" or self.module is not None:
            return self
        return replace(self, module=self.build(case).native)

    @_taped
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

    @_taped
    def prepare(self, stem: str, module: Any, given: Mapping[str, np.ndarray], training: bool) -> None:
        """Load entries by the page's keys into a module, and put it in training mode or in evaluation mode."""
        with self.watched("load_state_dict(…)", "a state loaded"):
            self.subject.load(stem, module, given)
            self.subject.framework.set_training(module, training)

    @_taped
    def state(self, module: Any) -> dict[str, np.ndarray]:
        """Own key -> copy, of a module's parameters and saved buffers."""
        with self.watched("state_dict()", "its state"):
            state = self.subject.framework.state(module)
        self.seen.append(("state", state))
        return state

    @_taped
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

    def fits(self, actual: np.ndarray, expected: Expected) -> bool:
        """Return whether `expect` would accept the result."""
        same = actual.shape == expected.value.shape
        return same and not compare(actual, expected.stored(actual.dtype))[1].any()

    def expect(self, actual: np.ndarray, expected: Expected, what: str = "the result") -> None:
        """Every element within its bound; where the bound is 0, equal. The shape comes first."""
        if actual.shape != expected.value.shape:
            raise Mismatch(f"{what} has shape {actual.shape}, expected {expected.value.shape}", actual, expected)
        if is_complex(actual) and not is_complex(expected.value):
            raise Mismatch(f"{what} has dtype {actual.dtype}, expected real numbers")
        exact, expected = expected, expected.stored(actual.dtype)
        error, wrong, ratio = compare(actual, expected)
        if wrong.any():
            severity = np.where(np.isnan(error), np.inf, error)
            index = np.unravel_index(np.argmax(np.where(wrong, severity, -1)), actual.shape)
            raise Mismatch(difference(what, actual, expected, error, index, int(wrong.sum())), actual, expected)
        if (largest := float(ratio.max(initial=0))) > self.worst:
            self.worst, self.worst_case = largest, str(self.calls[-1].case) if self.calls else ""
        if actual.dtype.name in STORED and exact.source is None:
            self._class_reached(actual, exact)

    def _class_reached(self, actual: np.ndarray, expected: Expected) -> None:
        """Which of the classes that a must asks for a result is in that is within its bound."""
        if self.reached == "A" and not np.array_equal(actual, expected.nearest(actual.dtype).value, equal_nan=True):
            self.reached = "Bp"
        if self.reached == "Bp":
            probable = expected.probable
            if probable is None or compare(actual, Expected(expected.value, probable).stored(actual.dtype))[1].any():
                self.reached = "B"

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

    # -- running a check -----------------------------------------------------------------------------------------------

    def run(self, check: Check, *, simplify: bool = True) -> Outcome:
        """Draw cases, judge them, and keep the smallest that fails; or, if not to `simplify`, the first."""
        started = time.perf_counter()
        with flushing(self.subject.flushes), noting_interrupts():
            outcome = self._run(check, simplify and check.effort < COSTLY)
        if self.subject.forget:
            self.subject.forget()
        if outcome.failure and check.effort >= COSTLY:
            gc.collect()  # Hypothesis ties what failed in knots, and here they hold on to whole networks
        outcome.seconds = time.perf_counter() - started
        outcome.worst, outcome.worst_case = self.worst, self.worst_case
        outcome.accuracy = self.reached if outcome.verdict == "pass" else ""
        return outcome

    def refused(self, check: Check, refusal: Refusal) -> Outcome:
        """The outcome where a block cannot be called or built: its first requirement fails, the others are not run."""
        checks = (CHECKS[name] for name in requirements() if name in CHECKS)  # in the page's order
        first = next(one for one in checks if one.stem == check.stem and self.form in one.forms)
        if check.identifier != first.identifier:
            return Outcome("not run", reason=f"{check.stem} {refusal.sentence}")
        failure = Mismatch(f"{check.stem} {refusal.sentence}")
        if self.form == "function":
            failure.case = Case(check.stem, dict(refusal.arrays), dict(refusal.arguments))
            failure.calls = [Call(failure.case)]
        else:
            failure.case, failure.script = refusal.call, [*refusal.script, "sys.exit(0)"]
        return Outcome("fail", 1, failure.message, failure, 1)

    def _run(self, check: Check, simplify: bool) -> Outcome:
        if reason := self.subject.declines_all(check.identifier):
            return Outcome("unsupported", reason=reason)
        lacks = self.subject.lacks(check.stem, self.form)
        if missing := [name for name in check.needs if name in lacks]:
            return Outcome("unsupported", reason=f"the {self.form} lacks {', '.join(missing)}")
        limit = max(2, round(PROFILES[self.profile] / check.effort))
        strategy = check.cases(dtype=self.dtype, lacks=lacks, **check.choices)
        draws = self._draws(check, strategy, limit)
        counts: Counter[str] = Counter()
        unsupported: Counter[str] = Counter()
        defects: Counter[str] = Counter()
        fails: Counter[str] = Counter()
        last: list[Mismatch] = []
        wrong: list[Sighting] = []

        def judge(case: Any) -> None:
            for number in range(draws):
                judge_once(_shuffled(case, number) if number else case)

        def judge_once(case: Any) -> None:
            try:
                self._attempt(check, case)
                counts["judged"] += 1
            except KnownDefect as defect:
                defects[str(defect)] += 1
            except Unsupported as reason:
                counts["lacking" if isinstance(reason, Lacks) else "declined"] += 1
                unsupported[reason_of(reason)] += 1
            except CallFails as reason:
                fails[str(reason)] += 1
            except Mismatch as mismatch:
                counts["failed at"] = counts["failed at"] or counts["judged"] + 1
                last[:] = [mismatch]
                if len(wrong) < REMEMBERED and mismatch.sighting:
                    wrong.append(mismatch.sighting)
                raise

        def begin() -> RuleBasedStateMachine:
            self.calls, self.seen = [], []
            machine = strategy()
            check.body(self, machine)
            counts["judged"] += 1
            return machine

        profile = settings(settings.get_profile(f"nnspec-{self.profile}"), max_examples=-(-limit // draws))
        if not simplify:
            profile = settings(profile, phases=(Phase.generate,))
        try:
            if isinstance(strategy, type):  # a state machine, which draws as it goes
                machine: Any = seed(self._seed(check))(begin)
                run_state_machine_as_test(machine, settings=profile)
            else:
                profile(seed(self._seed(check))(given(case=strategy)(_keyword_only(judge))))()
        except Unsupported as declined:
            return Outcome("unsupported" if isinstance(declined, Lacks) else "not run", reason=reason_of(declined))
        except (Mismatch, Flaky) as error:
            raised = (error, *getattr(error, "exceptions", ()))  # a state machine raises its Mismatch itself
            last = last or [e for e in raised if isinstance(e, Mismatch)]
            if not last:  # it is no result of the subject's that came and went
                raise
            failure = error if isinstance(error, Mismatch) else last[0]
            if simplify and isinstance(error, Mismatch):
                failure = self._smallest(check, error)
            if isinstance(error, Flaky):
                failure.message += " (and not every time: the same case also gave another result)"
            if isinstance(strategy, type) and not simplify:  # machines begun, the last one twice: Hypothesis repeats it
                counts["failed at"] = max(1, counts["judged"] - 1)
            outcome = Outcome("fail", counts["judged"], failure.message, failure, counts["failed at"])
            explained = simplify and check.decides and not isinstance(strategy, type)
            seen = wrong + self._more(check, strategy, draws) if explained else []
            return replace(outcome, unsupported=unsupported, known_defects=defects, seen=seen)
        if sum(fails.values()) > counts["judged"]:
            reason = f"not judged, since the call itself fails: {fails.most_common(1)[0][0]}"
            return Outcome("not run", counts["judged"], reason, unsupported=unsupported, known_defects=defects)
        return replace(self._conclude(counts, unsupported, defects, limit), known_defects=defects)

    def sight(self, check: Check, case: Any) -> Sighting:
        """What is seen in one case, right or wrong."""
        try:
            self._attempt(check, case)
        except Mismatch as mismatch:
            return mismatch.sighting or self._sighting(case)
        return self._sighting(case)

    def _attempt(self, check: Check, case: Any) -> None:
        """Judge one case. A Mismatch gets to know it, and what was seen."""
        self.calls, self.seen = [], []
        try:
            self._judge(check, case)
        except Mismatch as mismatch:
            wrong = "raised" if mismatch.raised is not None else mismatch.words
            mismatch.sighting = self._sighting(case, wrong)
            mismatch.case, mismatch.calls = mismatch.case or case, self.calls
            raise

    def _sighting(self, case: Any, wrong: str = "") -> Sighting:
        return Sighting(self.form, self.dtype, case, [step for seen in self.seen for step in parts(*seen)], wrong)

    def _judge(self, check: Check, case: Any) -> None:
        """By class B and, where that is not met, by the weaker classes that are open to the subject."""
        self.tape.begin(records=bool(self.weaker))
        try:
            check.body(self, case)
        except (Raised, Unusable) as failed:
            raise mismatched(failed, "no exception") from None
        except Mismatch as mismatch:
            if mismatch.expected is None or mismatch.expected.in_any_class:
                raise
            first = mismatch
        else:
            return
        for accuracy in self.weaker:
            calls, seen = [*self.calls], [*self.seen]
            self.tape.rewind()
            with held_to(accuracy):
                try:
                    check.body(self, case)
                except Mismatch:
                    self.calls, self.seen = calls, seen
                    continue
            self.reached = max(self.reached, accuracy, key=list(CLASSES).index)
            return
        raise first

    @property
    def weaker(self) -> tuple[str, ...]:
        """The classes of accuracy beside B that are good enough: those of 16-bit types, and those that it declares."""
        return tuple(
            name
            for name in CLASSES
            if name in self.subject.accuracy or (name in NARROW and ARITHMETIC[self.dtype].narrows)
        )

    def _draws(self, check: Check, strategy: Any, limit: int) -> int:
        """How often each case is judged, its data shuffled: more than once where every new shape must be compiled."""
        if self.subject.forget is None or not check.shuffles or isinstance(strategy, type):
            return 1
        return math.ceil(math.sqrt(limit))

    def _conclude(self, counts: Counter[str], unsupported: Counter[str], defects: Counter[str], limit: int) -> Outcome:
        """Cases that the subject declined count against the check; cases for which it lacks something do not."""
        judged, declined, few = counts["judged"], counts["declined"], counts["judged"] < min(limit, 5) / 2
        if few and defects and not declined:
            return Outcome("known defect", judged, defects.most_common(1)[0][0], unsupported=unsupported)
        if few and counts["lacking"] and not declined:
            return Outcome("unsupported", judged, unsupported.most_common(1)[0][0], unsupported=unsupported)
        if few or declined > judged:
            reason = f"only {judged} of {judged + declined} cases could be judged"
            if declined:
                reason += f" (declined: {unsupported.most_common(1)[0][0]})"
            return Outcome("not run", judged, reason, unsupported=unsupported)
        return Outcome("pass", judged, unsupported=unsupported)

    def _more(self, check: Check, strategy: Any, draws: int) -> list[Sighting]:
        """What is seen in some more cases, right or wrong."""
        found: list[Sighting] = []

        def look(case: Any) -> None:
            for number in range(draws):
                with suppress(Unsupported, CallFails):
                    found.append(self.sight(check, _shuffled(case, number) if number else case))

        once = settings(settings.get_profile("nnspec-quick"), max_examples=-(-MORE // draws), phases=(Phase.generate,))
        once(seed(self._seed(check) + 1)(given(case=strategy)(_keyword_only(look))))()
        return found

    def _smallest(self, check: Check, failure: Mismatch) -> Mismatch:
        found = [failure]

        def fails(case: Case) -> bool:
            try:
                self._attempt(check, case)
            except Mismatch as mismatch:
                found.append(mismatch)
                return True
            except (Unsupported, CallFails):
                pass
            return False

        assert failure.case is not None
        if isinstance(failure.case, Case):
            minimise(failure.case, fails)
        return found[-1]

    def _seed(self, check: Check) -> int:
        """The same for the same check, whatever else is run beside it."""
        return zlib.crc32(f"{self.seed} {check.identifier} {self.form} {self.dtype}".encode())


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

    @_taped
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

    @_taped
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

    @_taped
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

    @_taped
    def state(self, *, saved: bool = False) -> dict[str, np.ndarray]:
        """Key -> copy, of what it has in the roles of the page's keys, and of what else it saves; `saved`: of nothing
        that it does not save."""
        with self.trial.watched("state_dict()", "its state"):
            found = self.trial.subject.state(self.case.stem, self.native, self.page, saved=saved)
        self.trial.calls.append(Call(self.case, module=self.native, step="state", entries=found))
        self.trial.seen.append(("state", found))
        return found

    @_taped
    def load(self, given: Mapping[str, np.ndarray]) -> Built:
        """Put arrays into its parameters and buffers by key; itself."""
        with self.trial.watched("load_state_dict(…)", "a state loaded"):
            self.trial.subject.load(self.case.stem, self.native, given, self.page)
        known = any(call.entries is given for call in self.trial.calls)  # what a module gave, as it is
        given = given if known else {key: np.array(value) for key, value in given.items()}
        self.trial.calls.append(Call(self.case, module=self.native, step="load", entries=given))
        return self


def _shuffled(case: Any, seed: int) -> Any:
    if isinstance(case, tuple):
        return tuple(_shuffled(one, seed) for one in case)
    return case.shuffled(seed) if isinstance(case, Case) else case


def _keyword_only(judge: Callable[[Any], None]) -> Callable[..., None]:
    def test(*, case: Case) -> None:
        judge(case)

    return test


def forms(subject: Subject, check: Check) -> tuple[str, ...]:
    """In which forms a check applies to a subject."""
    return tuple(form for form in subject.forms(check.stem) if form in check.forms)


__all__ = ["PROFILES", "SIGNATURES", "Built", "Call", "Mismatch", "Outcome", "Trial", "forms"]

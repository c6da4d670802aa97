"""Run one check on one subject: draw cases, judge each, and keep the smallest case that fails."""

from __future__ import annotations

import gc
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from nnspec.adapters.blame import KnownDefect, OutOfDomain, Raised, Unusable, noting_interrupts
from nnspec.adapters.subject import Lacks, Refusal, Subject, Unsupported
from nnspec.conformance.bounds.arithmetic import narrows
from nnspec.conformance.case import Case, minimise
from nnspec.conformance.drawing import TINY, Decision, Draw, Plan
from nnspec.conformance.requirements import CHECKS, Check, about_layout, requirements
from nnspec.conformance.sizes import SWEEPS
from nnspec.conformance.sizes import rows as swept
from nnspec.conformance.trial.boundaries import alike_but_for_data, boundaries
from nnspec.conformance.trial.layouts import in_layouts
from nnspec.conformance.trial.record import (
    COSTLY,
    CallFails,
    Died,
    Mismatch,
    Outcome,
    Sighting,
    Spoilt,
    mismatched,
    parts,
    reason_of,
)
from nnspec.conformance.trial.search import (
    CALLS,
    PROFILES,
    clearer,
    rows,
    seeded_generators,
    settings_of,
    smallest,
    spread_rows,
)
from nnspec.conformance.trial.steps import CallFunction, CallModule, Line, New
from nnspec.conformance.trial.trial import Trial

REMEMBERED = 12  # failing cases that are kept, to be compared with known mistakes
DEATHS = 25  # cases that are tried to make one smaller in which a program ends: it is started anew each time
LARGE = 2  # of a check's small cases to its large ones, where it does not sweep
MORE = 24  # cases that are drawn for the same purpose, right or wrong


@dataclass
class Tally:
    """What became of the cases of one run."""

    judged: int = 0
    lacking: int = 0  # cases for which the subject lacks something
    declined: int = 0  # cases that the subject declined
    failed_at: int = 0  # the number of the first case that failed, from 1; 0: none
    unsupported: Counter[str] = field(default_factory=Counter)
    defects: Counter[str] = field(default_factory=Counter)  # known, of the framework
    outside: Counter[str] = field(default_factory=Counter)  # cases outside the domain that the subject declares
    failing_calls: Counter[str] = field(default_factory=Counter)  # calls that a law starts from and that fail
    wrong: list[Sighting] = field(default_factory=list)

    def counted(self, outcome: Outcome) -> Outcome:
        """Return the outcome with the cases that were not judged, by reason."""
        outcome = replace(outcome, unsupported=self.unsupported, known_defects=self.defects)
        return replace(outcome, out_of_domain=self.outside)

    def count(self, judge: Callable[[Any], None], case: Any) -> None:
        """Judge a case and count its outcome. Raises its Mismatch."""
        try:
            judge(case)
            self.judged += 1
        except KnownDefect as defect:
            self.defects[str(defect)] += 1
        except OutOfDomain as reason:
            self.outside[str(reason)] += 1
        except Unsupported as reason:
            if isinstance(reason, Lacks):
                self.lacking += 1
            else:
                self.declined += 1
            self.unsupported[reason_of(reason)] += 1
        except CallFails as reason:
            self.failing_calls[str(reason)] += 1
        except Mismatch as mismatch:
            self.failed_at = self.failed_at or self.judged + 1
            if len(self.wrong) < REMEMBERED and mismatch.sighting:
                self.wrong.append(mismatch.sighting)
            raise


def run(trial: Trial, check: Check, *, simplify: bool = True) -> Outcome:
    """Draw cases, judge them, and keep the smallest that fails; or, if not to `simplify`, the first."""
    started = time.perf_counter()
    with noting_interrupts():
        outcome = _supported(trial, check, simplify and check.effort < COSTLY)
    if trial.subject.forget:
        trial.subject.forget()
    if outcome.failure and check.effort >= COSTLY:
        gc.collect()  # a failure and the frames of its traceback refer to one another, and hold a whole network
    outcome.seconds = time.perf_counter() - started
    outcome.worst, outcome.worst_case = trial.compared.worst, trial.compared.worst_case
    outcome.accuracy = trial.compared.reached if outcome.verdict == "pass" else ""
    return outcome


def refused(trial: Trial, check: Check, refusal: Refusal) -> Outcome:
    """Return the outcome for a block that cannot be called or built. Its first requirement fails.

    The other requirements are not run.
    """
    checks = (CHECKS[name] for name in requirements() if name in CHECKS)  # in the page's order
    first = next(one for one in checks if one.stem == check.stem and trial.form in one.forms)
    if check.identifier != first.identifier:
        return Outcome("not run", reason=f"{check.stem} {refusal.sentence}")
    failure = Mismatch(f"{check.stem} {refusal.sentence}", holds=refusal.holds)
    if trial.form == "function":
        failure.case = Case(check.stem, dict(refusal.arrays), dict(refusal.arguments))
        failure.steps = [CallFunction(failure.case)]
    elif refusal.lines:
        failure.case, failure.steps = refusal.call, [*map(Line, refusal.lines)]
    else:
        assert refusal.built is not None
        failure.case, failure.steps = refusal.call, [New(*refusal.built, trial.subject.dtypes[0])]
        if refusal.arrays:
            failure.steps.append(CallModule(Case(check.stem, dict(refusal.arrays))))
    return Outcome("fail", 1, failure.message, failure, 1)


def _supported(trial: Trial, check: Check, simplify: bool) -> Outcome:
    """Run the check unless the subject says that it does not support the requirement, or lacks what the check needs."""
    if reason := trial.subject.declines_all(check.identifier):
        return Outcome("unsupported", reason=reason)
    domain = trial.subject.domain(check.stem)
    lacks = trial.subject.lacks(check.stem, trial.form)
    needs = [name for name in check.needs if not check.refusal or name in lacks]  # illegal values are refused anywhere
    if reason := next(filter(None, map(domain.lacks_feature, needs)), None):
        return Outcome("out of domain", reason=reason)
    if missing := [name for name in check.needs if name in lacks - domain.fixed]:
        return Outcome("unsupported", reason=f"the {trial.form} lacks {', '.join(missing)}")
    limit = max(2, round(PROFILES[trial.profile] / check.effort))
    made = check.drawn(trial.dtype, lacks, domain=domain)
    if isinstance(made, type):
        return _machine(trial, check, made, limit, simplify)
    try:
        outcome = _judged(trial, check, _small(trial, check, made, limit), simplify)
        # the sums of long axes are beyond the range of 16 bits
        sizes = trial.sizes or ("small" if narrows(trial.dtype) else "")
        for regime in check.regimes(sizes, trial.profile):
            if outcome.verdict == "pass" and (trial.sweeps or regime != "layers"):
                outcome = _joined(outcome, _judged(trial, check, _large(trial, check, regime, limit), simplify))
    except Unsupported as declined:
        return _declined(declined)
    return outcome


@dataclass(frozen=True)
class Series:
    """The cases of a check in one regime of sizes: how they are drawn, their rows, and how often each is judged."""

    decision: Decision[Any]
    rows: Callable[[Decision[Any]], Iterable[bytes]]
    draws: int = 1


def _small(trial: Trial, check: Check, decision: Decision[Any], limit: int) -> Series:
    draws, seeded = _draws(trial, check, limit), seed_of(trial, check)
    count = -(-limit // draws)
    if check.spread:
        return Series(decision, lambda decision: spread_rows(decision, seeded, count), draws)
    return Series(decision, lambda _: rows(seeded, count), draws)


def _large(trial: Trial, check: Check, regime: str, limit: int) -> Series:
    """Return the cases of a regime of large sizes.

    A check that sweeps visits all of them, unless the subject compiles each shape. Any other draws some.
    """
    lacks, tiles = trial.subject.lacks(check.stem, trial.form), trial.subject.tiles
    domain = trial.subject.domain(check.stem)
    decision, seeded = check.drawn(trial.dtype, lacks, regime, tiles, domain), seed_of(trial, check)
    some = max(2, round(limit / LARGE))
    if check.sweeps and trial.sweeps and not trial.subject.compiles_per_shape:
        return Series(decision, lambda _: swept(check.stem, regime, seeded, some, tiles))
    return Series(decision, lambda _: islice(rows(seeded, some + 1), 1, None))


def _judged(trial: Trial, check: Check, series: Series, simplify: bool) -> Outcome:
    return (_in_layouts if trial.subject.strided and check.compares else _cases)(trial, check, series, simplify)


def _joined(outcome: Outcome, further: Outcome) -> Outcome:
    """Return the outcome of a check that passes in one regime and comes to another outcome in a further regime."""
    cases = outcome.cases + further.cases
    unsupported, defects = outcome.unsupported + further.unsupported, outcome.known_defects + further.known_defects
    elsewhere, outside = outcome.elsewhere or further.elsewhere, outcome.out_of_domain + further.out_of_domain
    both: dict[str, Any] = {"cases": cases, "unsupported": unsupported, "known_defects": defects}
    both |= {"out_of_domain": outside, "elsewhere": elsewhere}
    if further.failure:
        return replace(further, failed_at=outcome.cases + further.failed_at, **both)
    return replace(outcome, **both)


def _in_layouts(trial: Trial, check: Check, series: Series, simplify: bool) -> Outcome:
    """Judge random cases, some of which have layouts.

    If a case fails only because of its layout, the failure belongs to the requirement about layout. The check itself is
    then judged without layouts.
    """
    decision = in_layouts(series.decision, check, trial.form)
    outcome = _cases(trial, check, replace(series, decision=decision), simplify)
    case = outcome.failure.case if outcome.failure else None
    if not isinstance(case, Case) or not case.layouts:
        return outcome
    if _fails(trial, check, case.contiguous()) or not _fails(trial, check, case):
        return outcome
    broken = about_layout(check, case)
    if broken is check:
        return outcome
    plain = _cases(trial, check, series, simplify)
    if not trial.subject.declines_all(broken.identifier):
        plain.elsewhere = replace(check, identifier=broken.identifier), outcome
    return plain


def _fails(trial: Trial, check: Check, case: Any) -> bool:
    try:
        attempt(trial, check, case)
    except Mismatch:
        return True
    except (Unsupported, CallFails):
        pass
    return False


def _cases(trial: Trial, check: Check, series: Series, simplify: bool) -> Outcome:
    """Judge cases, none of them twice, and make the first one that fails smaller."""
    tally, decision, draws, judged = Tally(), series.decision, series.draws, set[tuple[int, ...]]()
    on_file, found = trial.subject.framework.on_file, list[Mismatch]()  # no smaller case than those drawn has a result
    with seeded_generators() as reseed:

        def judge(row: bytes, fixed: Plan | None = None, *, again: bool = True) -> None:
            reseed()
            try:
                case = decision.make(draw := Draw(row, fixed))
            except OutOfDomain as reason:
                tally.outside[str(reason)] += 1
                return
            if not again and draw.numbers in judged:
                return
            judged.add(draw.numbers)
            for number in range(draws):  # the same case, its data shuffled
                tally.count(lambda case: attempt(trial, check, case), _shuffled(case, number) if number else case)

        for row in series.rows(decision):
            try:
                judge(row, again=False)
            except Mismatch as first:
                if on_file:
                    found.append(first)
                    continue
                if not simplify or isinstance(first, Spoilt):
                    tally.wrong = []
                    return _failed(first, tally)
                died = isinstance(first, Died)
                search = Search(decision, judge, first, DEATHS if died else CALLS // draws)
                failure, steady = search.smaller(row)
                if steady and not died:
                    failure = search.boundaries(SWEEPS[check.stem].names) if check.stem in SWEEPS else failure
                    failure = _smallest(trial, check, failure)
                more = check.decides and not died
                tally.wrong = tally.wrong + _more(trial, check, decision, draws) if more else []
                return _failed(failure, tally, flaky=not steady)
    if found:
        return _failed(min(found, key=_size), tally)
    return _conclude(tally, draws * len(judged) + tally.outside.total())


def _size(failure: Mismatch) -> int:
    """The number of elements of the cases that failed."""
    cases = failure.case if isinstance(failure.case, tuple) else (failure.case,)
    return sum(a.size for case in cases if isinstance(case, Case) for a in case.arrays.values() if a is not None)


class Search:
    """The search for the smallest case that fails, and for the sizes at which it fails. `calls` cases are tried."""

    def __init__(
        self, decision: Decision[Any], judge: Callable[[bytes, Plan | None], None], first: Mismatch, calls: int
    ) -> None:
        self.decision, self.judge, self.calls = decision, judge, calls
        self.found, self.row = first, b""

    def smaller(self, row: bytes) -> tuple[Mismatch, bool]:
        """Return the mismatch of the smallest case, and if both the case of the row and the smallest one fail again."""
        steady = self._fails(row)
        if steady:
            self.row = clearer(self.decision, smallest(self.decision, row, self._fails, self.calls), self._fails)
            steady = self._fails(self.row)
        return self.found, steady

    def boundaries(self, names: Mapping[str, str]) -> Mismatch:
        """Return the mismatch of the case whose long sizes are the smallest that fail. It knows where they begin to."""
        last = self.found
        found, least = boundaries(self.decision, self.row, names, self._fails)
        rows = alike_but_for_data(self.decision, self.row) if found else []
        failure = self.found if any(self._fails(row, least) for row in rows) else last
        failure.boundaries = [boundary for boundary in found if boundary.above >= TINY]
        return failure

    def _fails(self, row: bytes, fixed: Plan | None = None) -> bool:
        with suppress(Unsupported):
            try:
                self.judge(row, fixed)
            except Mismatch as mismatch:
                self.found = mismatch
                return True
        return False


def _machine(trial: Trial, check: Check, strategy: type, limit: int, simplify: bool) -> Outcome:
    """Run a check whose strategy is a state machine, which draws its steps as it goes."""
    from hypothesis import seed  # where no machine runs, 0.2 s are saved
    from hypothesis.errors import Flaky
    from hypothesis.stateful import run_state_machine_as_test

    tally = Tally()

    def begin() -> Any:
        trial.begin()
        machine = strategy()
        check.body(trial, machine)
        tally.judged += 1
        return machine

    machine: Any = seed(seed_of(trial, check))(begin)
    try:
        run_state_machine_as_test(machine, settings=settings_of(limit, simplify))
    except Unsupported as declined:
        return _declined(declined)
    except (Mismatch, Flaky) as error:
        failure = _failure(error)
        if simplify and isinstance(error, Mismatch):
            failure = _smallest(trial, check, failure)
        if not simplify:  # machines begun, the last one twice: Hypothesis repeats it
            tally.failed_at = max(1, tally.judged - 1)
        return _failed(failure, tally, flaky=isinstance(error, Flaky))
    return _conclude(tally, limit)


def _declined(declined: Unsupported) -> Outcome:
    if isinstance(declined, OutOfDomain):
        return Outcome("out of domain", reason=str(declined))
    return Outcome("unsupported" if isinstance(declined, Lacks) else "not run", reason=reason_of(declined))


def _failure(error: Exception) -> Mismatch:
    """Return the Mismatch that ended a machine. Raises the error if it is no result of the subject's."""
    if isinstance(error, Mismatch):
        return error
    failure = next((e for e in getattr(error, "exceptions", ()) if isinstance(e, Mismatch)), None)
    if failure is None:
        raise error
    return failure


def _failed(failure: Mismatch, tally: Tally, *, flaky: bool = False) -> Outcome:
    if flaky:
        failure.message += " (and not every time: the same case also gave another result)"
    outcome = Outcome(failure.verdict, tally.judged, failure.message, failure, tally.failed_at)
    return tally.counted(replace(outcome, seen=tally.wrong))


def _conclude(tally: Tally, limit: int) -> Outcome:
    """Return the outcome of a run in which no case failed.

    Cases that the subject declined count against the check; cases outside its domain, and cases for which it lacks
    something, do not.
    """
    judged, declined, few = tally.judged, tally.declined, tally.judged < min(limit, 5) / 2
    outcome = tally.counted(Outcome("pass", judged))
    if tally.failing_calls.total() > judged:
        reason = f"not judged, since the call itself fails: {tally.failing_calls.most_common(1)[0][0]}"
        return replace(outcome, verdict="not run", reason=reason)
    if few and tally.outside.total() > tally.lacking and not declined:
        return replace(outcome, verdict="out of domain", reason=tally.outside.most_common(1)[0][0])
    if few and tally.defects and not declined:
        return replace(outcome, verdict="known defect", reason=tally.defects.most_common(1)[0][0])
    if few and tally.lacking and not declined:
        return replace(outcome, verdict="unsupported", reason=tally.unsupported.most_common(1)[0][0])
    if few or declined > judged:
        reason = f"only {judged} of {judged + declined} cases could be judged"
        if declined:
            reason += f" (declined: {tally.unsupported.most_common(1)[0][0]})"
        return replace(outcome, verdict="not run", reason=reason)
    return outcome


# -- one case ----------------------------------------------------------------------------------------------------------


def attempt(trial: Trial, check: Check, case: Any) -> None:
    """Judge one case. A Mismatch gets to know it, and what was seen."""
    trial.begin()
    try:
        _judge(trial, check, case)
    except Mismatch as last:
        mismatch = trial.compared.blamed(last)
        wrong = "raised" if mismatch.raised is not None else mismatch.words
        mismatch.sighting = _sighting(trial, case, wrong)
        mismatch.case = mismatch.case or case
        if not mismatch.end:  # an end that says all that is to be done needs no steps before it
            mismatch.steps = mismatch.steps or trial.steps
        raise mismatch from None
    trial.compared.end()


def sight(trial: Trial, check: Check, case: Any) -> Sighting:
    """Return what is seen in one case, right or wrong."""
    try:
        attempt(trial, check, case)
    except Mismatch as mismatch:
        return mismatch.sighting or _sighting(trial, case)
    return _sighting(trial, case)


def _sighting(trial: Trial, case: Any, wrong: str = "") -> Sighting:
    return Sighting(trial.form, trial.dtype, case, [step for seen in trial.seen for step in parts(*seen)], wrong)


def _judge(trial: Trial, check: Check, case: Any) -> None:
    try:
        check.body(trial, case)
    except (Raised, Unusable) as failed:
        raise mismatched(failed, "no exception") from None


# -- more cases than the check asks for --------------------------------------------------------------------------------


def _draws(trial: Trial, check: Check, limit: int) -> int:
    """How often each case is judged, its data shuffled: more than once where every new shape must be compiled."""
    return 1 if not trial.subject.compiles_per_shape or not check.shuffles else math.ceil(math.sqrt(limit))


def _more(trial: Trial, check: Check, decision: Decision[Any], draws: int) -> list[Sighting]:
    """Return what is seen in some more cases, right or wrong."""
    found: list[Sighting] = []
    for row in rows(seed_of(trial, check) + 1, -(-MORE // draws)):
        with suppress(Unsupported):
            case = decision.make(Draw(row))
            for number in range(draws):
                with suppress(Unsupported, CallFails):
                    found.append(sight(trial, check, _shuffled(case, number) if number else case))
    return found


def _smallest(trial: Trial, check: Check, failure: Mismatch) -> Mismatch:
    found = [failure]

    def fails(case: Case) -> bool:
        try:
            attempt(trial, check, case)
        except Mismatch as mismatch:
            found.append(mismatch)
            return True
        except (Unsupported, CallFails):
            pass
        return False

    assert failure.case is not None
    if isinstance(failure.case, Case):
        minimise(failure.case, fails)
    found[-1].boundaries = failure.boundaries
    return found[-1]


def seed_of(trial: Trial, check: Check) -> int:
    """Return the seed of a check's cases: the same for the same check, whatever else is run beside it."""
    return zlib.crc32(f"{trial.seed} {check.identifier} {trial.form} {trial.dtype}".encode())


def _shuffled(case: Any, number: int) -> Any:
    if isinstance(case, tuple):
        return tuple(_shuffled(one, number) for one in case)
    return case.shuffled(number) if isinstance(case, Case) else case


def forms(subject: Subject, check: Check) -> tuple[str, ...]:
    """In which forms a check applies to a subject. A check of what is outside a domain needs a subject with one."""
    if "domain" in check.needs and not subject.domain(check.stem).claimed:
        return ()
    return tuple(form for form in subject.forms(check.stem) if form in check.forms)

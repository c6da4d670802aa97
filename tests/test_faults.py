"""Every fault is killed by the check that bears its requirement; the script of its failure tells wrong from right."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
from nnspec.adapters.for_reference import subject as reference
from nnspec.adapters.signatures import SIGNATURES
from nnspec.conformance.checks import load_checks
from nnspec.conformance.power import faults_of
from nnspec.conformance.report.script import reproduce
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial import run as running
from nnspec.conformance.trial.run import forms, run
from nnspec.conformance.trial.trial import Trial

# A subject that remembers may fail by what it was asked before the case, which is not in the script. So may one that
# leaves elements unwritten: here the memory that it gets in a script still holds what the check filled it with.
REMEMBERS = {f"{stem}.{name}" for stem in SIGNATURES for name in ("call.stateless", "memory.all-written")}
REMEMBERS |= {"module.state.values", "module.life.equals-model"}

SMALLEST = 5  # of so many faults, one has its smallest case sought
LARGE = {"resnet34"}  # whose first failing case is too large for a script

# How many faults of a block have a script at least, where some have none: such as steps that cannot be written out.
SCRIPTS = {
    "avg_pool2d": 94, "basic_block": 90, "batch_norm": 173, "conv2d": 93, "conv_transpose2d": 115, "einsum": 129,
    "global_avg_pool2d": 48, "linear": 82, "max_pool2d": 113, "mlp": 92, "module": 183, "relu": 48, "resnet34": 20,
    "sequential": 72, "sgd": 95,
}  # fmt: skip


def failure_of(subject, check, simplify):
    """Where a check fails, and the failure; None where it passes. In 16 bits the smallest case is always sought."""
    for profile, dtypes in (("quick", ("float32", "float64")), ("ci", ("float16",) if check.narrow else ())):
        for form in forms(subject, check):
            for dtype in dtypes if check.per_dtype else dtypes[:1]:
                outcome = run(Trial(subject, form, dtype, profile), check, simplify=simplify or dtype == "float16")
                if outcome.verdict == "fail":
                    return form, dtype, outcome.failure
    return None


def end_of(script, subject):
    """What a script ends with, where the names that it asks for are those of a subject."""
    pieces = {**subject.functions, **subject.classes}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(script, "script", "exec", dont_inherit=True), {"PIECES": pieces, "__name__": "__main__"})
    except SystemExit as end:
        return end.code
    except Exception as error:
        return error
    return 0


def killed(fault, *, simplify):
    """Return what is wrong with the kill of a fault or with its script, and if there is a script."""
    faulty = replace(fault.subject(), recipe=lambda name: f"{name} = PIECES[{name!r}]")
    check = CHECKS[fault.requirement]
    found = failure_of(faulty, check, simplify or check.identifier in REMEMBERS)
    if found is None:
        return [f"{fault.key}: survived"], False
    form, dtype, failure = found
    script, wrong = reproduce(faulty, check, form, dtype, failure), []
    if not script:
        return killed(fault, simplify=True) if not simplify else ([], False)
    if end_of(script, faulty) in (0, None) and check.identifier not in REMEMBERS:
        wrong.append(f"{fault.key}: its script does not reproduce {failure.message!r}")
    if end := end_of(script, reference()):
        wrong.append(f"{fault.key}: its script finds {end!r} in the reference")
    return wrong, True


@pytest.mark.parametrize("stem", sorted(SIGNATURES))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_fault_is_killed_and_its_script_tells_wrong_from_right(stem, long, monkeypatch):
    """The script of the first case that fails; with --long and for some faults without, of the smallest case."""
    load_checks()
    monkeypatch.setattr(running, "MORE", 1)  # no cause is looked for, which would take half of the time
    faults = faults_of([stem])
    assert faults, f"{stem} has no fault"
    always = long or stem in LARGE
    met = [killed(fault, simplify=always or number % SMALLEST == 0) for number, fault in enumerate(faults)]
    wrong = [line for lines, _ in met for line in lines]
    assert not wrong, "\n".join(wrong)
    written = sum(has_script for _, has_script in met)
    assert written >= SCRIPTS.get(stem, len(faults)), f"{written} of {len(faults)} have a script"


def test_no_fault_that_was_ever_killed_is_lost():
    """A fault that has got another name stands there with its successor: `old -> new`."""
    lines = (Path(__file__).parent / "known_faults.txt").read_text("utf-8").splitlines()
    successors = [line.split(" -> ")[-1] for line in lines]
    assert len(lines) == 1435
    assert not {*successors} - {fault.key for fault in faults_of()}

"""The command line. verdicts.py has the exit codes.

Whatever takes long to import is imported in functions, so that `main` can handle an interrupt while it is imported.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path[:] = sys.path[1:]  # the working directory, in which a file may bear the name of a standard module

from nnspec.conformance.system import signals

if __name__ == "__main__":
    signals.leave_at_once()

import argparse
import math
import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnspec.conformance.options import parser
from nnspec.conformance.report.verdicts import CONFORMS, DEVIATES, HARNESS, INTERRUPTED, MISUSE
from nnspec.conformance.system import streams

if TYPE_CHECKING:
    from nnspec.conformance.session import Session
    from rich.console import Console

PYTEST_INTERRUPTED = 2


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        streams.mend()
        return _run(arguments)
    except KeyboardInterrupt:
        return signals.exit_code()
    except Exception:
        streams.tell(traceback.format_exc(), sys.stderr)
        return HARNESS
    finally:
        streams.flush()


def _run(arguments: list[str] | None) -> int:
    known = parser()
    options = known.parse_args(arguments)
    if options.version:
        from importlib import metadata

        print(f"nnspec {metadata.version('nnspec')}")
        return CONFORMS
    if options.command is None:
        known.print_help()
        return MISUSE
    command = COMMANDS[options.command]
    with signals.once():
        return _alone(command, options) if getattr(options, "workers", None) == 0 else command(options)


def _misuse(message: str, code: int = MISUSE) -> int:
    """Print a message on standard error, and return the exit code."""
    streams.complain(message)
    return code


def _alone(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command in one child process, so that a subject that ends the process does not seem to conform."""
    from nnspec.conformance.system import processes

    before = _log_begun(options)
    code = processes.alone(lambda: command(options))
    if code is not None:
        return signals.exit_code() if code == INTERRUPTED else code
    interrupted, message = signals.received() is not None, "the subject ended the process; -n 1 tells in which call"
    if _log_begun(options) in (None, before):
        return signals.exit_code() if interrupted else _misuse(message, HARNESS)
    from nnspec.conformance.session import salvage

    log, report = salvage(options.out, interrupted, message)
    _show(options, report, log.path)
    return exit_code(report)


def _log_begun(options: argparse.Namespace) -> int | None:
    """Return when the log of a run of `check` was last written to, if there is one."""
    from nnspec.conformance.system.log import NAME

    log = Path(options.out) / NAME if options.command == "check" else None
    return log.stat().st_mtime_ns if log is not None and log.is_file() else None


def _deliver(
    report: dict[str, Any], path: str, shown: str, show: Callable[[Console, str], None], log: Path | None = None
) -> None:
    """Write a report and show it. If that fails, say so; the exit code stays the one of the verdict.

    A file is written first. A device or a pipe may block or belong to the reader of the verdict: it comes last.
    """
    from nnspec.conformance.report.terminal import rendered
    from nnspec.conformance.system import folder

    to_stdout, last = folder.is_standard_output(path), folder.is_stream(path)

    def write() -> str:
        try:
            folder.write(report, path)
        except BrokenPipeError:
            if to_stdout:
                streams.mute(sys.stdout)
        except OSError as error:
            if to_stdout:
                streams.mute(sys.stdout)
            kept = f"; all results are in {log}" if log else ""
            return folder.because("standard output" if to_stdout else shown, error) + kept
        return ""

    late = to_stdout or last
    trouble = "" if late else write()
    stream = sys.stderr if to_stdout else sys.stdout
    streams.tell(rendered(lambda console: show(console, "not written" if trouble else shown), stream), stream)
    trouble = write() if late else trouble
    if trouble:
        _misuse(trouble)


def cores() -> int:
    """Return how many worker processes to start by default."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _check(options: argparse.Namespace) -> int:
    if message := _subject_of(options):
        return _misuse(message)
    from nnspec.adapters.directories import is_directory

    if not options.role and is_directory(options.subject):
        options.subject = [options.subject]
        return _matrix(options)
    if options.role:  # in one text, which every part of nnspec understands, and which can be given to `matrix` too
        options.subject = f"{options.subject} --as {options.role}"
    if message := _refused(options, [options.subject]):
        return _misuse(message)
    from nnspec.conformance.system import folder

    path = folder.absolute(options.json or f"{options.out}/report.json")
    code, run = _judge(options, options.subject, options.out, path)
    if isinstance(run, str):
        return _misuse(run, code)
    report = run.report or {}
    _show(options, report, run.log.path, path)
    return exit_code(report)


def _subject_of(options: argparse.Namespace) -> str | None:
    """Make a program that is given by its command the subject; return what is wrong with what is given."""
    from nnspec.adapters.names import ISOLATED, PROGRAM

    if options.process is None:
        if options.isolate and options.subject:
            options.subject = f"{ISOLATED}{options.subject}"
        return None if options.subject else "arguments are required: subject, or --process and a command"
    if options.isolate:
        return f"--isolate: {options.process} is a process of its own already"
    if options.subject:
        return f"--process {options.process}: expected no other subject, not {options.subject}"
    if options.role:
        return f"--as {options.role}: a program says itself which blocks it has; --block chooses among them"
    options.subject = f"{PROGRAM}{options.process}"
    return None


def _show(options: argparse.Namespace, report: dict[str, Any], log: Path | None, path: str | None = None) -> None:
    """Write the report of `check` to its path and show it."""
    from nnspec.conformance.report.terminal import show
    from nnspec.conformance.system import folder

    shown = options.json or f"{options.out}/report.json"
    path = path or folder.absolute(shown)
    _deliver(report, path, shown, lambda console, where: show(report, where, console), log)


def _matrix(options: argparse.Namespace) -> int:
    from nnspec.adapters import directories

    try:
        subjects, others = directories.expanded(options.subject)
    except ValueError as error:
        return _misuse(str(error))
    if not subjects:
        return _misuse("; ".join(f"{path}: {why}" for path, why in others.items()))
    if message := _refused(options, subjects):
        return _misuse(message)
    from nnspec.conformance.report import matrix
    from nnspec.conformance.system import folder

    out, shown = Path(options.out), options.json or f"{options.out}/report.json"
    place, path = Path(os.path.realpath(out)), folder.absolute(shown)
    try:
        folder.try_report(path)
        lock = folder.Lock(place, out)
        matrix.remove_leftovers(place, matrix.folders(subjects).values())
    except folder.OutputError as error:
        return _misuse(str(error))
    reports: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    codes: list[int] = []
    try:
        for subject, name in matrix.folders(subjects).items():
            code, run = _judge(options, subject, str(out / name), str(place / name / "report.json"))
            if isinstance(run, str):
                failures[subject] = run
            else:
                code, report = exit_code(run.report or {}), run.report or {}
                reports.append(report)
                _save(report, place / name / "report.json", run.log.path)
            codes.append(signals.exit_code() if signals.received() else code)
            if signals.received():  # what is known by now is written all the same
                break
        merged = matrix.merge(reports, failures)
        page = matrix.markdown(merged)
        _save(page, place / "matrix.md")
        if subjects != options.subject:  # of a directory, whose table would be too wide
            page = matrix.lines(reports, failures, others)
        _deliver(merged, path, shown, lambda console, where: matrix.show(page, out / "matrix.md", where, console))
    finally:
        lock.release()
    return next((code for code in (signals.exit_code(), HARNESS, MISUSE, DEVIATES) if code in codes), CONFORMS)


def _save(what: dict[str, Any] | str, path: Path, log: Path | None = None) -> None:
    """Write a report or a page. Print a message if that fails."""
    from nnspec.conformance.system import folder

    try:
        folder.write(what, path)
    except OSError as error:
        _misuse(folder.because(path, error) + (f"; all results are in {log}" if log else ""))


def _refused(options: argparse.Namespace, subjects: list[str]) -> str | None:
    """Return what is wrong with the options, the system or the working directory; None if nothing is."""
    from nnspec.adapters.names import plausible
    from nnspec.conformance.requirements import unknown_block

    if sys.platform == "win32":
        return f"{options.command} needs Linux or macOS: locks, signals and process groups are those of POSIX"
    try:
        os.getcwd().encode()
    except OSError:
        return "the working directory is gone; change to another one"
    except UnicodeEncodeError:
        if options.workers != 0:
            return (
                "the name of the working directory is not UTF-8, which workers need; change to another one, or use -n 0"
            )
    if message := unknown_block(options.block):
        return f"--block {message}"
    if not 0 < options.timeout < math.inf:
        return f"--timeout {options.timeout}: expected a finite number of seconds above 0"
    if not 0 < options.memory < math.inf:
        return f"--memory {options.memory}: expected a finite number of GiB above 0"
    if options.workers is not None and options.workers < 0:
        return f"-n {options.workers}: expected 0 or more workers"
    return next(filter(None, map(plausible, subjects)), None)


def _judge(options: argparse.Namespace, subject: str, out: str, json: str) -> tuple[int, Session | str]:
    """Run the checks of one subject. Return the session with its report, or an exit code and a message."""
    from nnspec.conformance import session
    from nnspec.conformance.report.terminal import Progress
    from nnspec.conformance.system import folder, printed
    from nnspec.conformance.system.log import Log

    names = ("block", "profile", "sizes", "dtype", "domain", "seed", "framework", "device", "waivers")
    chosen = {name: getattr(options, name) for name in (*names, "timeout", "memory")}
    chosen |= {"subject": subject, "out": out, "json": json}
    workers = cores() if options.workers is None else options.workers
    try:
        log = Log(out, resume=options.resume)
    except folder.OutputError as error:
        return MISUSE, str(error)
    try:
        folder.try_report(json)
        folder.try_temporary(max(1, workers) << 20)  # for the journal of each worker
    except folder.OutputError as error:
        log.close()
        return MISUSE, str(error)
    if options.resume and not log.head:
        _misuse(f"--resume: there is no log in {out}: begins at the beginning")
    with printed.limited(workers), Progress(subject) as progress:
        code, run = session.run(chosen, workers, log=log, write=False, progress=progress.advance)
    if log.trouble:
        _misuse(log.trouble)
    if run is not None and run.subject_error:
        return MISUSE, run.subject_error
    if run is not None and run.failure:
        return HARNESS, run.failure
    if run is None or run.report is None:
        if code == PYTEST_INTERRUPTED:
            raise KeyboardInterrupt
        return HARNESS, f"pytest ended with code {code} before there was a report"
    return CONFORMS, run


def exit_code(report: dict[str, Any]) -> int:
    """Return the exit code for a report."""
    if report["interrupted"]:
        return signals.exit_code()
    if report["errors"]:
        return HARNESS
    return CONFORMS if report["conforms"] else DEVIATES


def _export(options: argparse.Namespace) -> int:
    from nnspec.adapters.asked import may_lack
    from nnspec.adapters.domains import EVERYTHING, DomainError, read_domains, read_options
    from nnspec.adapters.names import LONG
    from nnspec.adapters.signatures import SIGNATURES
    from nnspec.conformance.checks import load_checks
    from nnspec.conformance.export import export, summary
    from nnspec.conformance.sizes import OF_PROFILE
    from nnspec.conformance.system import folder

    known = [stem for stem, signature in SIGNATURES.items() if signature.function]
    if unknown := [block for block in options.block if block not in known]:
        return _misuse(f"--block {unknown[0]}: expected a block with a form as a function, one of {', '.join(known)}")
    takes = None if options.takes is None else [name for name in options.takes.split(",") if name]
    may = {name for block in options.block for name in may_lack(block)}
    if unknown := [name for name in takes or () if name not in may]:
        return _misuse(f"--takes {unknown[0]}: expected some of {', '.join(sorted(may)) or 'none'}")
    place = Path(options.folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        return _misuse(f"{place}: expected an empty folder, or none")
    try:
        domains = read_domains(read_options(options.domain or ()))
    except DomainError as error:
        return _misuse(f"--domain {error}")
    load_checks()
    about = {}
    for block in options.block:
        domain = domains.get(block, EVERYTHING)
        dtypes = [*domain.dtypes] or options.dtype or [*LONG]
        about[block] = {"dtypes": dtypes, "gradients": not options.no_gradients}
        about[block] |= {"domain": domain.as_json()} if domain else {}
        if takes is not None:
            about[block]["takes"] = [name for name in takes if name in may_lack(block)]
    try:
        with warnings.catch_warnings(action="ignore"):  # of numbers that overflow, as they should
            sizes = options.sizes or OF_PROFILE[options.profile]
            manifest = export(place, about, options.profile, sizes, options.seed)
    except OSError as error:
        return _misuse(folder.because(place, error))
    return CONFORMS if streams.tell(summary(manifest, place)) else HARNESS


def _judge_answers(options: argparse.Namespace) -> int:
    """Check the answers in a folder as a subject, with the options that its vectors were drawn by."""
    from nnspec.adapters import SubjectError
    from nnspec.adapters.for_answers import manifest
    from nnspec.adapters.names import ANSWERS

    try:
        told = manifest(options.folder)
    except SubjectError as error:
        return _misuse(str(error))
    dtypes = dict.fromkeys(dtype for own in told["blocks"].values() for dtype in own["dtypes"])
    chosen = {"block": [*told["blocks"]], "dtype": [*dtypes]} | {n: told[n] for n in ("profile", "sizes", "seed")}
    of_check = parser().parse_args(["check", f"{ANSWERS}{options.folder}"])
    given = {**vars(of_check), **vars(options), **chosen}
    return _check(argparse.Namespace(**given))


def _explain(options: argparse.Namespace) -> int:
    from nnspec.conformance.report.explain import explain
    from nnspec.conformance.requirements import no_such_requirement

    text = explain(options.identifier)
    if text is None:
        return _misuse(no_such_requirement(options.identifier))
    return CONFORMS if streams.tell(f"{text}\n") else HARNESS


def _list(options: argparse.Namespace) -> int:
    from nnspec.conformance.report.explain import overview, requirements_of
    from nnspec.conformance.requirements import unknown_block

    if options.block and (message := unknown_block([options.block])):
        return _misuse(message)
    text = requirements_of(options.block) if options.block else overview()
    return CONFORMS if streams.tell(f"{text}\n") else HARNESS


def _power(options: argparse.Namespace) -> int:
    from nnspec.conformance.requirements import unknown_block

    if message := unknown_block(options.block):
        return _misuse(f"--block {message}")
    if options.seeds < 1:
        return _misuse(f"--seeds {options.seeds}: expected at least 1")
    from nnspec.conformance.power import has_place_for_score, measure_power, show_power, write_into
    from nnspec.conformance.report.terminal import rendered
    from nnspec.conformance.system import folder

    if options.page and not has_place_for_score(Path(options.page)):  # said before the work, and not after it
        return _misuse(f"--page {options.page}: expected a page with <!-- score --> and <!-- /score -->")
    try:
        if options.json:
            folder.try_report(options.json)
    except folder.OutputError as error:
        return _misuse(str(error))
    workers = options.workers or cores()
    score = measure_power(options.block or (), options.profile, options.seeds, workers, options.sizes)
    if options.json:
        _deliver(score, options.json, options.json, lambda console, _: show_power(score, console))
    else:
        streams.tell(rendered(lambda console: show_power(score, console), sys.stdout))
    if options.page:
        write_into(Path(options.page), score)
    return CONFORMS if score["killed"] == score["runs"] else DEVIATES


COMMANDS = {
    "check": _check,
    "matrix": _matrix,
    "export": _export,
    "judge": _judge_answers,
    "explain": _explain,
    "list": _list,
    "power": _power,
}

if __name__ == "__main__":
    sys.exit(main())

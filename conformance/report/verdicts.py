"""The verdicts and the exit codes: one table for the report, the command line and spec/conventions.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]  # one requirement in one form and dtype: see report.schema.json
CONFORMS, DEVIATES, MISUSE, HARNESS, INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True)
class Verdict:
    """The meaning of a verdict, and its effect on the exit code if a *must* gets it."""

    meaning: str
    judged: bool = True  # the requirement counts as judged
    excused: bool = False  # it was not judged, and need not be
    bad: bool = False  # the subject does not conform

    @property
    def open(self) -> bool:
        """Whether the requirement still has to be judged before the subject can be said to conform."""
        return not (self.judged or self.excused)


VERDICTS = {
    "pass": Verdict("every case was right"),
    "fail": Verdict("a case was wrong; the report shows the smallest one found, and a script repeats it", bad=True),
    "crash": Verdict("a call ended the process, or raised, and every later call raised too", bad=True),
    "timeout": Verdict("a call did not return in time", bad=True),
    "tampers": Verdict("under `--isolate`, the file wrote to what nnspec reads from its process", bad=True),
    "differs by design": Verdict(
        "a *convention* is answered differently, as the file declares in `DIFFERS`: "
        "each case was right by the alternative that it names, or a case was wrong and it names none"
    ),
    "waived": Verdict("the check failed, and a waiver covers it"),
    "known defect": Verdict("nnspec did not make the calls, because they end the process in this version of a library"),
    "unsupported": Verdict(
        "the subject has no such argument, dtype, class, form or backward pass, "
        "or its file declares so in `UNSUPPORTED` or `GRADIENTS`",
        judged=False,
        excused=True,
    ),
    "out of domain": Verdict(
        "the requirement is about calls outside the domain that `DOMAIN` or `--domain` declares",
        judged=False,
        excused=True,
    ),
    "blocked": Verdict("not run, because the block crashed or hung twice", judged=False),
    "not run": Verdict(
        "too few cases could be judged: the subject declined most of them, or the call that a law starts from fails",
        judged=False,
    ),
}
BAD = tuple(name for name, verdict in VERDICTS.items() if verdict.bad)

EXIT_CODES = {
    CONFORMS: "conforms: something passed, each *must* was judged, unsupported or out of domain, and none is broken",
    DEVIATES: "does not conform, or cannot be said to conform because a *must* was not judged",
    MISUSE: "nothing could be judged: no such file, no known name in it, a wrong option or declaration",
    HARNESS: "nnspec or an adapter failed",
    INTERRUPTED: "interrupted; the report has what was known by then (SIGHUP: 129, SIGQUIT: 131, SIGTERM: 143)",
}


def failed(records: Iterable[Record]) -> list[Record]:
    """Return the records that speak against the subject: a *must* that failed, a call that crashed or hung."""
    return [r for r in records if r["verdict"] in BAD and (r["verdict"] != "fail" or r["level"] == "must")]


def table() -> str:
    """Return both tables in Markdown, as the pages show them."""
    lines = ["| verdict | meaning | judged | exit code 0 |", "| --- | --- | --- | --- |"]
    for name, verdict in VERDICTS.items():
        judged = "yes" if verdict.judged else "need not be" if verdict.excused else "no"
        lines.append(f"| {name} | {verdict.meaning} | {judged} | {'no' if verdict.bad or verdict.open else 'yes'} |")
    lines += ["", "| exit code | meaning |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())])

"""The requirements as the pages state them, and the decorator that ties a check to its requirement."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from typing import TYPE_CHECKING, Any

from nnspec.adapters.names import DTYPES, nearest

if TYPE_CHECKING:
    from nnspec.adapters.subject import Subject

LEVELS = ("must", "should", "may")
HEADING = re.compile(
    r"^### (?P<id>[a-z0-9_]+(?:\.[a-z0-9-]+){2}) — (?P<level>must|should|may)(?P<convention>, convention)?$", re.M
)


@dataclass(frozen=True)
class Requirement:
    """One binding sentence of a page."""

    identifier: str
    level: str
    sentence: str
    goes_wrong: str
    body: str  # everything below the heading
    line: int
    convention: bool = False  # reputable libraries differ here by design, and a subject may declare that it does

    @property
    def label(self) -> str:
        """The level, and the mark, as the page's heading has them."""
        return f"{self.level}, convention" if self.convention else self.level

    @property
    def stem(self) -> str:
        """The page, and the block, that it belongs to."""
        return self.identifier.split(".")[0]

    @property
    def untestable(self) -> bool:
        """Whether the page says why no check can enforce it."""
        return bool(re.search(r"^Untestable: ", self.body, re.M))


@functools.cache
def pages() -> dict[str, str]:
    """Stem -> text of its page."""
    folder = resources.files("nnspec.spec")
    return {p.name[:-3]: p.read_text("utf-8") for p in sorted(folder.iterdir(), key=str) if p.name.endswith(".md")}


@functools.cache
def requirements() -> dict[str, Requirement]:
    """Identifier -> requirement, in the order of the pages."""
    found = {}
    for text in pages().values():
        for heading in HEADING.finditer(text):
            body = re.split(r"^##", text[heading.end() :], maxsplit=1, flags=re.M)[0].strip()
            sentence, *rest = re.split(r"\n\s*\n", body)
            wrong = next((p.removeprefix("*Goes wrong:*").strip() for p in rest if p.startswith("*Goes wrong:*")), "")
            line = text.count("\n", 0, heading.start()) + 1
            plain = " ".join(sentence.split()), " ".join(wrong.split())
            marked = heading["convention"] is not None
            found[heading["id"]] = Requirement(heading["id"], heading["level"], *plain, body, line, marked)
    return found


def unknown_block(blocks: Iterable[str] | None) -> str | None:
    """What to say of the first block that has no page."""
    known = list(dict.fromkeys(r.stem for r in requirements().values()))
    unknown = [block for block in blocks or () if block not in known]
    return f"{unknown[0]}: expected one of {', '.join(known)}" if unknown else None


def unknown_declaration(subject: Subject) -> str | None:
    """What to say of the first requirement that a subject declares something about, and may not."""
    known = requirements()
    for pattern in subject.unsupported:
        if not any(fnmatchcase(identifier, pattern) for identifier in known):
            unknown = f"no requirement matches {pattern!r}{nearest(pattern, known)}"
            return f"{subject.name}: UNSUPPORTED: {unknown}; nnspec list shows them"
    for identifier in subject.differs:
        if identifier not in known:
            unknown = f"there is no requirement {identifier!r}{nearest(identifier, known)}"
            return f"{subject.name}: DIFFERS: {unknown}; nnspec list shows them"
        if not known[identifier].convention:
            stem = known[identifier].stem
            marked = ", ".join(r.identifier for r in known.values() if r.convention and r.stem == stem) or "none"
            return (
                f"{subject.name}: DIFFERS: {identifier} is no convention, so a subject may not differ there; "
                f"conventions of {stem}: {marked}. A known deviation can be waived: see --waivers"
            )
    return None


@dataclass(frozen=True)
class Check:
    """One property that enforces one requirement. `cases` makes the strategy of its cases."""

    identifier: str
    body: Callable[..., None]
    cases: Callable[..., Any]
    choices: dict[str, Any] = field(default_factory=dict)  # passed on to `cases`
    needs: tuple[str, ...] = ()  # without these arguments there is nothing to check: unsupported
    forms: tuple[str, ...] = ("function", "class")
    per_dtype: bool = True
    dtypes: tuple[str, ...] = DTYPES  # in which it makes sense at all
    effort: float = 1.0  # how many times longer a case takes than usual; so many times fewer are drawn

    @property
    def stem(self) -> str:
        """The block that it belongs to."""
        return self.identifier.split(".")[0]

    @property
    def decides(self) -> bool:
        """Whether to fail it is not to conform: of a *must* alone, and of what no page knows."""
        return self.identifier not in requirements() or requirements()[self.identifier].level == "must"


CHECKS: dict[str, Check] = {}
# Parts of identifiers of what hardly depends on shapes and values, so that half as many cases tell as much.
SEEN_AT_ONCE = {"refuses", "unchanged", "fresh", "empty", "like-operand", "dtype", "special"}


def requirement(
    identifier: str,
    cases: Callable[..., Any],
    *,
    needs: tuple[str, ...] | str = (),
    forms: tuple[str, ...] | str = ("function", "class"),
    per_dtype: bool = True,
    dtypes: tuple[str, ...] = DTYPES,
    effort: float | None = None,
    **choices: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Tie a property `body(subject, case)` to a requirement.

    `cases(dtype=…, lacks=…, **choices)` makes the Hypothesis strategy; `lacks` holds the arguments that the subject
    does not have and that stay neutral. What comes back is a pytest test that takes its trial from the fixture of that
    name.
    """
    needs = (needs,) if isinstance(needs, str) else needs
    forms = (forms,) if isinstance(forms, str) else forms

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        if identifier in CHECKS and CHECKS[identifier].body.__qualname__ != body.__qualname__:
            raise ValueError(f"{identifier}: a second check, {body.__name__}; one requirement has one check")
        own = effort or (2.0 if SEEN_AT_ONCE & {*identifier.split(".")} else 1.0)
        check = Check(identifier, body, cases, choices, needs, forms, per_dtype, dtypes, own)
        CHECKS[identifier] = check

        def test(trial: Any) -> None:
            trial(check)

        test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
        test.check = check  # type: ignore[attr-defined]
        return test

    return decorate

"""The requirements as the pages state them, and the decorator that ties a check to its requirement."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import resources
from typing import TYPE_CHECKING, Any

from nnspec.adapters.domains import EVERYTHING, Domain
from nnspec.adapters.names import DTYPES, adapters, nearest
from nnspec.conformance.case import drawn_within
from nnspec.conformance.sizes import KINDS as LONG
from nnspec.conformance.sizes import SWEEPS, planning, regimes

if TYPE_CHECKING:
    from nnspec.adapters.subject import Subject

LEVELS = ("must", "should", "may")
KINDS = {  # what a requirement is about
    "value": "elements of a result",
    "shape": "shape and dtype of a result, also of one without elements",
    "gradient": "elements of a gradient, and which gradients there are",
    "state": "parameters, buffers and modes, and what calls leave behind",
    "memory": "layout of operands, writes to operands, memory that results share, memory around and under them",
    "special": "NaN, infinities and the ends of the dtype's range",
    "refusal": "calls that must raise",
    "default": "absent arguments and the start of a new module",
    "numerics": "accuracy where rounding matters most",
}
HEADING = re.compile(
    r"^### (?P<id>[a-z0-9_]+(?:\.[a-z0-9-]+){2}) — "
    rf"(?P<level>{'|'.join(LEVELS)})(?P<convention>, convention)?, (?P<kind>{'|'.join(KINDS)})$",
    re.M,
)
TOMBSTONE = re.compile(r"^- `(?P<id>[^`]+)`: (?P<now>.+(?:\n  .+)*)$", re.M)
ALTERNATIVES = re.compile(r"^Alternatives: (?P<names>.+(?:\n.+)*)$", re.M)
RESTS_ON = re.compile(r"^Rests on: (?P<names>`[^`]+`(?:,\s`[^`]+`)*)$", re.M)


def block_of(identifier: str) -> str:
    """Return the page, and the block, that a requirement or a fault belongs to: an identifier begins with it."""
    return identifier.partition(".")[0]


@dataclass(frozen=True)
class Requirement:
    """One binding sentence of a page."""

    identifier: str
    level: str
    kind: str
    sentence: str
    goes_wrong: str
    body: str  # everything below the heading
    line: int
    convention: bool = False  # reputable libraries differ here by design, and a subject may declare that it does

    @property
    def label(self) -> str:
        """Level, mark and kind, as the page's heading has them."""
        return f"{self.level}, convention, {self.kind}" if self.convention else f"{self.level}, {self.kind}"

    @functools.cached_property
    def rests_on(self) -> tuple[str, ...]:
        """The requirements and the whole blocks that the page names: where one of them is broken, so is this one."""
        found = RESTS_ON.search(self.body)
        return tuple(re.findall(r"`([^`]+)`", found["names"])) if found else ()

    @functools.cached_property
    def alternatives(self) -> tuple[str, ...]:
        """The answers of a convention that have a name: the page's own first, then those of other libraries."""
        found = ALTERNATIVES.search(self.body)
        return tuple(re.findall(r"`([^`]+)`", found["names"])) if found else ()

    @property
    def stem(self) -> str:
        """The page, and the block, that it belongs to."""
        return block_of(self.identifier)

    @property
    def untestable(self) -> bool:
        """Whether the page gives a reason why no check can enforce it."""
        return bool(re.search(r"^Untestable: ", self.body, re.M))


# Pages that are about no block
OTHER_PAGES = (
    "README",
    "glossary",
    "source",
    "protocol",
    "vectors",
    "adapters",
    "subjects",
    "evidence",
    "findings",
    "conventions",
    "numerics",
)


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
            named, marked = (heading["id"], heading["level"], heading["kind"]), heading["convention"] is not None
            found[heading["id"]] = Requirement(*named, *plain, body, line, marked)
    return found


@functools.cache
def withdrawn() -> dict[str, str]:
    """Identifier that a page used once -> what its section "Withdrawn" says of it: the successor, or the reason."""
    found = {}
    for text in pages().values():
        _, _, rest = text.partition("\n## Withdrawn\n")
        for entry in TOMBSTONE.finditer(rest.partition("\n## ")[0]):
            found[entry["id"]] = " ".join(entry["now"].split())
    return found


def no_such_requirement(identifier: str) -> str:
    """Return what to say of a name that no requirement has: it was withdrawn, or a name close to it."""
    if identifier in withdrawn():
        return f"{identifier} was withdrawn: {withdrawn()[identifier]}"
    return f"there is no requirement {identifier!r}{nearest(identifier, requirements())}; nnspec list shows them"


@functools.cache
def foundations(identifier: str) -> frozenset[str]:
    """Return every requirement that a requirement rests on, directly or through others.

    A block stands for its requirements of the same kind and, where numbers are compared, for those about values.
    """
    known = requirements()
    mine, found = known[identifier], set[str]()
    for name in mine.rests_on:
        kinds = {mine.kind} if mine.kind in ("shape", "memory", "refusal", "default") else {mine.kind, "value"}
        of_block = {r.identifier for r in known.values() if r.stem == name and r.kind in kinds}
        direct = {name} if name in known else of_block
        found |= direct.union(*map(foundations, direct))
    return frozenset(found)


def unknown_block(blocks: Iterable[str] | None) -> str | None:
    """Return what is wrong with the first block that has no page, or None."""
    known = list(dict.fromkeys(r.stem for r in requirements().values()))
    unknown = [block for block in blocks or () if block not in known]
    return f"{unknown[0]}: expected one of {', '.join(known)}" if unknown else None


def unknown_declaration(subject: Subject) -> str | None:
    """Return what is wrong with the first declaration that a subject may not make, or None."""
    known = requirements()
    for pattern in subject.unsupported:
        if not any(fnmatchcase(identifier, pattern) for identifier in known):
            return f"{subject.name}: UNSUPPORTED: {no_such_requirement(pattern)}"
    for identifier, difference in subject.differs.items():
        if identifier not in known:
            return f"{subject.name}: DIFFERS: {no_such_requirement(identifier)}"
        if not known[identifier].convention:
            stem = known[identifier].stem
            marked = ", ".join(r.identifier for r in known.values() if r.convention and r.stem == stem) or "none"
            return (
                f"{subject.name}: DIFFERS: {identifier} is no convention, so a subject may not differ there; "
                f"conventions of {stem}: {marked}. A known deviation can be waived: see --waivers"
            )
        named = known[identifier].alternatives
        if difference.alternative and difference.alternative not in named[1:]:
            others = ", ".join(map(repr, named[1:])) or "none"
            return (
                f"{subject.name}: DIFFERS: {identifier}: the page names no alternative {difference.alternative!r}; "
                f"it names: {others}. For any other difference give the reason alone"
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
    effort: float = 1.0  # so many times fewer cases are drawn: each takes longer, or few tell as much
    shuffles: bool = True  # whether a case may be judged several times with its data shuffled
    alternatives: Mapping[str, Callable[..., None]] = field(default_factory=dict)  # of a convention: name -> its body
    distinct: tuple[str, ...] = ()  # operands whose values must not be made to repeat within an image
    narrow: bool = False  # whether `ci` and `deep` run it in the 16-bit types of a framework as well
    spread: bool = False  # whether cases are chosen so that many pairs of levels meet, which takes some time
    sweeps: bool = False  # whether it visits every long size of its block, and every layer; others draw some of them
    # of a requirement about layout: whether it is broken where another check fails in a case only because of its layout
    answers_for: Callable[[Check, Any], bool] | None = None

    def under(self, alternative: str) -> Check:
        """Return the check of a subject that declares an alternative; the check itself where that is empty."""
        return replace(self, body=self.alternatives[alternative]) if alternative else self

    @property
    def stem(self) -> str:
        """The block that it belongs to."""
        return block_of(self.identifier)

    @property
    def compares(self) -> bool:
        """Whether it compares numbers or shapes that do not depend on memory: its operands may lie in any layout."""
        return kind(self.identifier) in ("value", "shape", "gradient", "special", "default")

    @property
    def differentiates(self) -> bool:
        """Whether it is about gradients."""
        return "vjp" in self.needs or kind(self.identifier) == "gradient"

    def dtypes_of(self, subject: Subject, profile: str) -> tuple[str, ...]:
        """Return the dtypes in which a subject is judged where none is asked for.

        They are those that it claims. A framework that nnspec knows is judged in its 16-bit types as well, in checks of
        sums, from the profile `ci` on.
        """
        further = subject.further_dtypes if self.narrow and profile != "quick" and subject.name in adapters() else ()
        return tuple(dtype for dtype in (*subject.dtypes, *further) if dtype in self.dtypes)

    @property
    def refusal(self) -> bool:
        """Whether it is about calls that must raise."""
        return kind(self.identifier) == "refusal"

    def drawn(
        self,
        dtype: str = "float32",
        lacks: frozenset[str] = frozenset(),
        sizes: str = "small",
        tiles: Collection[int] = (),
        domain: Domain = EVERYTHING,
    ) -> Any:
        """Return the decision that its cases are drawn by, for a subject that lacks these arguments.

        `sizes` is the regime of sizes, `tiles` are those that the subject declares, and `domain` what it claims. A
        state machine, which draws its steps itself, comes back as it is.
        """
        domain = domain.of_gradients if self.differentiates else domain
        written = lacks & domain.fixed
        made = self.cases(dtype=dtype, lacks=lacks - written, **self.choices)
        if isinstance(made, type):
            return made
        return drawn_within(sizes, planning(self.stem, sizes, tiles), made, domain, written)

    def regimes(self, asked: str, profile: str) -> tuple[str, ...]:
        """Return the regimes of sizes, beside small ones, that its cases are drawn from."""
        if kind(self.identifier) not in LONG or self.stem not in SWEEPS:
            return ()
        swept = SWEEPS[self.stem].layers and self.sweeps
        return tuple(one for one in regimes(asked, profile) if one != "layers" or swept)

    @property
    def decides(self) -> bool:
        """Whether a subject that fails it does not conform: so for a *must*, and for what no page has."""
        return self.identifier not in requirements() or requirements()[self.identifier].level == "must"


CHECKS: dict[str, Check] = {}


def about_layout(check: Check, case: Any) -> Check:
    """Return the check of the requirement that is broken if a check fails in a case only because of its layout.

    It is the check itself where the page has no requirement about layout.
    """
    alike = (other for other in CHECKS.values() if other.stem == check.stem and other.answers_for)
    return next((other for other in alike if other.answers_for and other.answers_for(check, case)), check)


REFUSAL_EFFORT = 2.0  # a refusal hardly depends on shapes and values: half as many cases tell as much


def kind(identifier: str) -> str | None:
    """Return the kind of a requirement; None for an identifier that no page has."""
    return requirements()[identifier].kind if identifier in requirements() else None


def requirement(
    identifier: str,
    cases: Callable[..., Any],
    *,
    needs: tuple[str, ...] | str = (),
    forms: tuple[str, ...] | str = ("function", "class"),
    per_dtype: bool = True,
    dtypes: tuple[str, ...] = DTYPES,
    effort: float | None = None,
    shuffles: bool = True,
    alternatives: Mapping[str, Callable[..., None]] | None = None,
    distinct: tuple[str, ...] | str = (),
    narrow: bool = False,
    spread: bool = False,
    sweeps: bool = False,
    answers_for: Callable[[Check, Any], bool] | None = None,
    **choices: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Tie a property `body(subject, case)` to a requirement.

    `cases(dtype=…, lacks=…, **choices)` makes the decision that a case is; `lacks` holds the arguments that the subject
    does not have and that stay neutral. `alternatives` holds the properties `body(subject, case)` that take the place
    of this one for a subject that declares the alternative of a convention. The other options are fields of `Check`.
    What comes back is a pytest test that takes its trial from the fixture of that name.
    """
    needs = (needs,) if isinstance(needs, str) else needs
    forms = (forms,) if isinstance(forms, str) else forms
    distinct = (distinct,) if isinstance(distinct, str) else distinct

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        if identifier in CHECKS and CHECKS[identifier].body.__qualname__ != body.__qualname__:
            raise ValueError(f"{identifier}: a second check, {body.__name__}; one requirement has one check")
        refusal = kind(identifier) == "refusal"  # no shape is compiled for it, so that shuffling would save nothing
        own = effort or (REFUSAL_EFFORT if refusal else 1.0)
        shuffled = shuffles and not refusal
        fields = needs, forms, per_dtype, dtypes, own, shuffled, alternatives or {}, distinct, narrow, spread, sweeps
        check = Check(identifier, body, cases, choices, *fields, answers_for)
        CHECKS[identifier] = check

        def test(trial: Any) -> None:
            trial(check)

        test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
        test.check = check  # type: ignore[attr-defined]
        return test

    return decorate

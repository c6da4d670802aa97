"""Page, reference, check and fault of every requirement are tied by its identifier, and no tie is loose."""

from __future__ import annotations

import re
from collections import Counter
from importlib import resources

import pytest
from nnspec.adapters.signatures import SIGNATURES
from nnspec.conformance.checks import load_checks
from nnspec.conformance.faults import catalogue
from nnspec.conformance.report.explain import citations, reference_sites
from nnspec.conformance.requirements import CHECKS, HEADING, OTHER_PAGES, foundations, pages, requirements
from nnspec.spec.index import indexed

STEMS = sorted(SIGNATURES)
KNOWN = requirements()
SHARED = {"__init__", "module", "arguments", "windows"}  # files of the reference that several stems share


@pytest.fixture(scope="module", autouse=True)
def _checks():
    load_checks()


def files(package: str, prefix: str = "") -> dict[str, str]:
    folder = resources.files(f"nnspec.{package}")
    found = [p for p in folder.iterdir() if p.name.startswith(prefix) and p.name.endswith(".py")]
    return {p.name[len(prefix) : -3]: p.read_text("utf-8") for p in found}


def of(stem: str, level: str = "must") -> list[str]:
    return [r.identifier for r in KNOWN.values() if r.stem == stem and r.level == level and not r.untestable]


def nothing(found: list[str], what: str) -> None:
    assert not found, f"{len(found)} {what}: {', '.join(found)}"


@pytest.mark.parametrize("stem", STEMS)
def test_every_block_has_a_page_a_reference_checks_and_faults(stem):
    places = {
        f"spec/{stem}.md": pages(),
        f"reference/{stem}.py": files("reference"),
        f"conformance/checks/test_{stem}.py": files("conformance.checks", "test_"),
        f"conformance/faults/{stem}.py": files("conformance.faults"),
    }
    nothing([path for path, known in places.items() if stem not in known], "files missing")


def test_no_file_belongs_to_no_block():
    assert set(pages()) - set(OTHER_PAGES) == set(STEMS)
    assert set(files("reference")) - SHARED <= set(STEMS)
    assert set(files("conformance.checks", "test_")) <= set(STEMS)
    assert set(files("conformance.faults")) - {"__init__"} <= set(STEMS)


@pytest.mark.parametrize("stem", sorted(pages()))
def test_headings_are_well_formed(stem):
    text = pages()[stem]
    section = text.partition("\n## Requirements\n")[2].partition("\n## ")[0]
    headings = re.findall(r"^###+ .*$", section, re.M)
    nothing([h for h in headings if not HEADING.match(h)], "headings that are no requirement")
    nothing(
        [h["id"] for h in HEADING.finditer(text) if not h["id"].startswith(f"{stem}.")], "identifiers of another page"
    )
    assert len(list(HEADING.finditer(text))) == len(headings), "a requirement outside the section of that name"


@pytest.mark.parametrize("stem", STEMS)
def test_the_index_of_a_page_is_current(stem):
    assert pages()[stem] == indexed(pages()[stem]), "run python spec/index.py, and commit the page"


@pytest.mark.parametrize("stem", STEMS)
def test_conventions_name_a_library_that_differs(stem):
    entries = pages()[stem].partition("\n## Where libraries differ\n")[2].partition("\n## ")[0]
    marked = [r.identifier for r in KNOWN.values() if r.stem == stem and r.convention]
    nothing([i for i in marked if f"`{i}`" not in entries], "marked, but no entry says which library differs")


def test_no_identifier_is_used_twice():
    found = Counter(heading["id"] for text in pages().values() for heading in HEADING.finditer(text))
    nothing([identifier for identifier, n in found.items() if n > 1], "used twice")


@pytest.mark.parametrize("stem", STEMS)
def test_requirements_say_what_they_bind_and_what_goes_wrong(stem):
    mine = [r for r in KNOWN.values() if r.stem == stem]
    assert mine, f"spec/{stem}.md requires nothing"
    nothing([r.identifier for r in mine if not r.sentence.rstrip().endswith((".", ".)"))], "sentences that do not end")
    nothing([r.identifier for r in mine if r.level == "must" and not r.goes_wrong], "that do not say what goes wrong")
    nothing([r.identifier for r in mine if r.level == "must" and "```python" not in r.body], "without an example")


@pytest.mark.parametrize("stem", sorted(files("reference")))
def test_what_the_reference_cites_exists(stem):
    cited = {identifier for identifier, *_ in citations(f"{stem}.py")}
    nothing(sorted(cited - set(KNOWN)), "cited, but on no page")


@pytest.mark.parametrize("stem", STEMS)
def test_what_holds_by_construction_is_listed_at_the_end_of_a_docstring(stem):
    for docstring in re.findall(r'"""(.*?)"""', files("reference")[stem], re.S):
        _, _, listed = docstring.partition("By construction:")
        found = re.findall(r"\S+", listed.rstrip(" .\n"))
        identifiers = [word.rstrip(",") for word in found]
        nothing([i for i in identifiers if i not in KNOWN or KNOWN[i].stem != stem], "listed, but not on this page")
        nothing([i for i, n in Counter(identifiers).items() if n > 1], "listed twice")
        nothing([word for word in found[:-1] if not word.endswith(",")], "words of a list without a comma")


def test_a_requirement_is_found_at_its_tag_and_in_a_list():
    (tag,) = reference_sites(KNOWN["conv2d.bias.per-channel"])
    assert tag.endswith("y += bias[:, None, None]  # [conv2d.bias.per-channel]")
    (listed,) = reference_sites(KNOWN["conv2d.batch.empty"])
    assert listed.endswith("conv2d, by construction")


@pytest.mark.parametrize("stem", [stem for stem in STEMS if "\ndef definition(" in files("reference")[stem]])
def test_definitions_come_first_and_run_on_their_page(stem):
    assert re.findall(r"^(?:def|class) (\w+)", files("reference")[stem], re.M)[0] == "definition"
    assert f">>> from nnspec.reference.{stem} import definition\n>>>" in pages()[stem]


def test_what_checks_and_faults_cite_exists():
    nothing(sorted(set(CHECKS) - set(KNOWN)), "checked, but on no page")
    nothing(sorted({f.requirement for f in catalogue().values()} - set(KNOWN)), "faulty, but on no page")
    nothing(
        sorted(f.key for f in catalogue().values() if not re.fullmatch(r"[^/]+/[a-z0-9][a-z0-9.-]*", f.key)),
        "keys that are not requirement/what-was-done",
    )


@pytest.mark.parametrize("stem", sorted(files("conformance.checks", "test_")))
def test_checks_are_in_the_file_of_their_block(stem):
    mine = [c for c in CHECKS.values() if c.body.__module__.endswith(f".test_{stem}")]
    nothing([c.identifier for c in mine if c.stem != stem], "checks of another block")
    nothing([c.identifier for c in mine if not (c.body.__doc__ or "").strip()], "checks without a sentence")


@pytest.mark.parametrize("stem", STEMS)
def test_every_must_has_a_line_in_the_reference(stem):
    nothing(
        [identifier for identifier in of(stem) if not reference_sites(KNOWN[identifier])], "not cited in the reference"
    )


@pytest.mark.parametrize("stem", STEMS)
def test_every_must_has_a_check(stem):
    text = files("conformance.checks", "test_").get(stem, "")
    nothing([identifier for identifier in of(stem) if identifier not in CHECKS], "without a check")
    nothing(
        [i for i in of(stem) if len(re.findall(rf'\b\w+\(\s*"{re.escape(i)}"', text)) != 1],
        "not checked exactly once",
    )


@pytest.mark.parametrize("stem", STEMS)
def test_every_must_has_a_fault(stem):
    faulty = {f.requirement for f in catalogue().values()}
    nothing([identifier for identifier in of(stem) if identifier not in faulty], "without a fault")


@pytest.mark.parametrize("stem", STEMS)
def test_checks_come_in_the_order_of_the_page(stem):
    order = list(KNOWN)
    mine = [identifier for identifier in CHECKS if identifier.startswith(f"{stem}.")]
    assert mine == sorted(mine, key=order.index)


@pytest.mark.parametrize("stem", STEMS)
def test_cases_are_shown_to_reach_their_corners(stem):
    assert re.search(r"^def test_reach_", files("conformance.checks", "test_").get(stem, ""), re.M), "no reach check"


def test_no_tolerance_is_there_that_was_not_derived():
    words = re.compile(r"\b(rtol|atol|allclose|isclose|approx|almost_equal\w*|decimal)\b")
    rooms = ("bounds", "checks", "faults", "report", "system", "trial")
    packages = ("conformance", *(f"conformance.{room}" for room in rooms), "adapters", "reference")
    texts = {f"{package}/{name}": text for package in packages for name, text in files(package).items()}
    assert len(texts) > 80
    assert not [name for name, text in texts.items() if words.search(text)]


@pytest.mark.parametrize("stem", STEMS)
def test_requirements_rest_on_requirements_and_blocks(stem):
    mine = [r for r in KNOWN.values() if r.stem == stem]
    loose = [
        f"{r.identifier} on {n}" for r in mine for n in r.rests_on if n not in KNOWN and n not in set(STEMS) - {stem}
    ]
    nothing(loose, "that rest on nothing known")
    nothing([r.identifier for r in mine if "Rests on:" in r.body and not r.rests_on], "lines that cannot be read")


@pytest.mark.parametrize("stem", STEMS)
def test_named_alternatives_are_those_that_checks_can_be_held_to(stem):
    mine = [r for r in KNOWN.values() if r.stem == stem and r.identifier in CHECKS]
    nothing(
        [r.identifier for r in mine if r.alternatives and not r.convention], "alternatives of what is no convention"
    )
    unlike = [r.identifier for r in mine if [*r.alternatives[1:]] != [*CHECKS[r.identifier].alternatives]]
    nothing(unlike, "named on the page and not in the check, or the other way round")


def test_no_requirement_rests_on_itself():
    nothing([identifier for identifier in KNOWN if identifier in foundations(identifier)], "that rest on themselves")
    assert "conv2d.output.value" in foundations("conv2d.gradient.batch")
    assert "conv2d.output.fresh" not in foundations("basic_block.branch.value")
    assert "conv2d.output.fresh" in foundations("basic_block.output.fresh")
    together = {f"{stem}.arguments.together" for stem in SIGNATURES} & KNOWN.keys()
    ends = {name: name.partition(".")[0] for name in KNOWN if name.endswith(".range.ends")}
    alone = [n for n, stem in ends.items() if f"{stem}.arguments.together" in together - foundations(n)]
    nothing(alone, "whose cases vary arguments, and that rest on none")

"""The pages teach: each begins with its purpose, formula, figure and arguments, and its figures are current."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from nnspec.adapters.signatures import SIGNATURES
from nnspec.conformance.requirements import pages
from nnspec.spec.figures import FIGURES, FOLDER, ON_A_PAGE, SPEC, caption, captioned
from nnspec.spec.index import anchor

BEGINNING = ["What it is for", "Formula", "Arguments"]
END = ["Gradient", "Requirements", "Numerics", "Where libraries differ", "History"]


def sections(stem: str) -> dict[str, str]:
    """Return heading -> text of the sections of a page."""
    parts = re.split(r"^## (.+)$", pages()[stem], flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_current(name):
    drawn = FIGURES[name]().svg(caption(name))
    assert (FOLDER / f"{name}.svg").read_text("utf-8") == drawn, "run python spec/figures.py"


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("conv2d_windows", 2),
        ("conv2d_stride", 4),
        ("conv2d_padding", 3),
        ("conv2d_dilation", 2),
        ("conv_transpose2d_windows", 4),
        ("max_pool2d_ceil", 4),
    ],
)
def test_figures_outline_the_windows_of_their_captions(name, windows):
    assert FIGURES[name]().svg("").count(' outline"') == windows


def test_each_figure_is_on_a_page_and_in_a_file():
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(FIGURES)
    assert {name for text in pages().values() for name in ON_A_PAGE.findall(text)} <= set(FIGURES)


@pytest.mark.parametrize("page", sorted(SPEC.glob("*.md")), ids=lambda path: path.stem)
def test_captions_are_current(page):
    text = page.read_text("utf-8")
    assert text == captioned(text), "run python spec/figures.py"


def test_an_index_has_a_link_for_each_requirement():
    text = pages()["relu"]
    index = text.partition("\n## Requirements\n")[2].partition("\n### ")[0]
    targets = dict(re.findall(r"^\[(.+)\]: #(.+)$", text, re.M))
    assert re.findall(r"\[([^]]+)\]", index.partition("- **shape**")[0])[0] == "positive.kept"
    assert sorted(targets) == sorted(re.findall(r"\[([^]]+)\]", index))
    assert set(targets.values()) <= anchors(SPEC / "relu.md")


def test_figures_are_installed_with_the_pages():
    assert resources.files("nnspec.spec").joinpath("figures", "conv2d_windows.svg").is_file()


@pytest.mark.parametrize("stem", sorted(SIGNATURES))
def test_a_page_begins_with_purpose_formula_figure_and_arguments(stem):
    beginning = "\n".join(pages()[stem].splitlines()[:60])
    assert [heading for heading in sections(stem) if heading in BEGINNING] == BEGINNING
    assert "$$" in sections(stem)["Formula"]
    assert ON_A_PAGE.search(sections(stem)["Formula"])
    last_row = [row for row in sections(stem)["Arguments"].splitlines() if row.startswith("|")][-1]
    assert last_row in beginning


@pytest.mark.parametrize("stem", sorted(SIGNATURES))
def test_a_page_says_in_a_paragraph_what_its_block_is_for(stem):
    assert 80 <= len(sections(stem)["What it is for"].split()) <= 150


@pytest.mark.parametrize("stem", sorted(SIGNATURES))
def test_values_come_before_gradients_and_requirements_before_history(stem):
    found = list(sections(stem))
    assert found.index("Step by step") < min(found.index(heading) for heading in END if heading in found)
    assert [heading for heading in found if heading in END] == [heading for heading in END if heading in found]


def test_the_reading_order_has_every_page_of_a_block_once():
    order = re.findall(r"^\| \d+ \| \[(\w+)\]", pages()["README"], re.M)
    assert sorted(order) == sorted(SIGNATURES)
    assert (order[0], order[-1]) == ("einsum", "resnet34")


def test_the_glossary_is_sorted():
    words = re.findall(r"^\| ([^|]+?) \|", pages()["glossary"].partition("| --- ")[2], re.M)
    assert len(words) > 40
    assert words == sorted(words, key=str.lower)


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.M)}


@pytest.mark.parametrize("page", sorted(SPEC.glob("*.md")), ids=lambda path: path.stem)
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.S)
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target

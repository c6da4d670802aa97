"""The index of the requirements of each page, grouped by kind. `python spec/index.py` writes it onto the pages.

The index stands below the heading "Requirements", and the targets of its links at the end of the page.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from nnspec.conformance.requirements import HEADING, KINDS

SPEC = Path(__file__).parent
START, TARGETS = "<!-- index, written by spec/index.py -->", "<!-- targets of the index -->"
INDEX = re.compile(rf"^## Requirements\n\n(?:{START}\n.*?(?=^### ))?", re.M | re.S)


def indexed(page: str) -> str:
    """Return the text of a page with its present index; a page without requirements as it is."""
    found = list(HEADING.finditer(page))
    if not found:
        return page
    names = {heading["id"]: heading["id"].partition(".")[2] for heading in found}
    lines = [START]
    for kind in KINDS:
        links = ", ".join(f"[{names[heading['id']]}]" for heading in found if heading["kind"] == kind)
        if links:
            lines += [textwrap.fill(f"- **{kind}**: {links}", 120, subsequent_indent="  ", break_on_hyphens=False)]
    targets = [f"[{names[heading['id']]}]: #{anchor(heading[0].removeprefix('### '))}" for heading in found]
    index = "\n".join(["## Requirements", "", *lines, "", ""])
    body = INDEX.sub(lambda _: index, page, count=1).partition(f"\n{TARGETS}\n")[0].rstrip("\n")
    return "\n".join([body, "", TARGETS, *targets, ""])


def anchor(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def main() -> None:
    """Write the index of each page."""
    for page in SPEC.glob("*.md"):
        page.write_text(indexed(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()

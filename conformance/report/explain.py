"""The text of `nnspec explain` and `nnspec list`: page, reference lines, check and faults of a requirement."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import resources

from nnspec.conformance import checks
from nnspec.conformance.requirements import Requirement, pages, requirements


def overview() -> str:
    """Return a line for each block: how many requirements it has, and the names that a subject gives it."""
    from nnspec.adapters.signatures import SIGNATURES

    lines = []
    for stem, signature in SIGNATURES.items():
        names = ", ".join(filter(None, (signature.function and f"{signature.function}()", *signature.classes)))
        count = sum(r.stem == stem for r in requirements().values())
        lines.append(f"{stem:18} {count:3} requirements   {names}")
    return "\n".join(lines)


def requirements_of(stem: str) -> str:
    """Return identifier, level, mark, kind and sentence of each requirement of a block."""
    found = [r for r in requirements().values() if r.stem == stem]
    return "\n".join(map(_in_a_line, found))


def explain(identifier: str) -> str | None:
    """Return one requirement in full; for a part of an identifier, a line for each requirement that contains it."""
    known = requirements()
    if identifier in known:
        return _in_full(known[identifier])
    found = [r for r in known.values() if identifier in r.identifier]
    if len(found) == 1:
        return _in_full(found[0])
    return "\n".join(map(_in_a_line, found)) or None


def _in_a_line(requirement: Requirement) -> str:
    return f"{requirement.identifier:38} {requirement.label:26} {requirement.sentence}"


def _in_full(requirement: Requirement) -> str:
    parts = [f"{requirement.identifier} — {requirement.label}", "", requirement.body, ""]
    parts += [f"page       spec/{requirement.stem}.md:{requirement.line}"]
    parts += [f"reference  {site}" for site in reference_sites(requirement)] or ["reference  -"]
    parts += [f"check      {check}" for check in check_sites(requirement)] or ["check      none"]
    parts += [f"fault      {fault}" for fault in _faults(requirement)]
    return "\n".join(parts)


def reference_sites(requirement: Requirement) -> list[str]:
    """Return `file:line  code` of each place of the reference that meets the requirement."""
    file = f"{requirement.stem}.py"
    return [f"reference/{file}:{n}  {code}" for i, n, code in citations(file) if i == requirement.identifier]


@cache
def citations(file: str) -> list[tuple[str, int, str]]:
    """Return (identifier, line, code) for each requirement that a file of the reference cites, in the file's order.

    A line cites the requirements whose identifiers stand on it in brackets. A function or a class cites those that the
    last paragraph of its docstring lists: "By construction: `id`, `id`."
    """
    text = resources.files("nnspec.reference").joinpath(file).read_text("utf-8")
    found = [
        (identifier, n, line.strip())
        for n, line in enumerate(text.splitlines(), start=1)
        for identifier in re.findall(r"\[(\w+\.[a-z0-9-]+\.[a-z0-9-]+)\]", line)
    ]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            _, _, listed = (ast.get_docstring(node) or "").partition("By construction: ")
            found += [(i, node.lineno, f"{node.name}, by construction") for i in re.findall(r"[\w.-]+\w", listed)]
    return sorted(found, key=lambda citation: citation[1])


def check_sites(requirement: Requirement) -> list[str]:
    """Return `file:line` of the check of a requirement."""
    file = checks.file(requirement.stem)
    text = file.read_text("utf-8")
    lines = enumerate(text.splitlines(), start=1)
    return [
        f"conformance/checks/{file.name}:{n}"
        for n, line in lines
        if re.search(rf'"{re.escape(requirement.identifier)}"', line)
    ]


def _faults(requirement: Requirement) -> list[str]:
    from nnspec.conformance.faults import catalogue

    small, kernels = (
        [f for f in catalogue(sizes).values() if f.requirement == requirement.identifier]
        for sizes in ("small", "boundary")
    )
    lines = [f"{f.key}: {f.mistake}{f' ({f.origin})' * bool(f.origin)}" for f in small]
    kinds = {f.key.rpartition("-")[0] for f in kernels}
    return lines + [f"{len(kinds)} mistakes of kernels, in conformance/faults/kernels"] * bool(kinds)


__all__ = ["check_sites", "citations", "explain", "overview", "pages", "reference_sites", "requirements_of"]

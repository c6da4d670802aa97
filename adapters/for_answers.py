"""An implementation that does not run: what it answered to the calls of a folder of vectors (spec/vectors.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from nnspec.adapters.asked import Asked, Refused, declarations, functions
from nnspec.adapters.blame import Unsupported
from nnspec.adapters.declarations import declared
from nnspec.adapters.names import folder_of
from nnspec.adapters.protocol import Ask
from nnspec.adapters.subject import Subject, SubjectError
from nnspec.adapters.vectors import SCHEMA, answers_in


class Answers(Asked):
    """NumPy arrays, which lie in files."""

    name = "answers"
    on_file = True
    preamble = "import hashlib\nimport json\nfrom math import prod\nfrom pathlib import Path"

    def versions(self) -> dict[str, str]:
        """Return the format of the folder."""
        return {"vectors": SCHEMA.rpartition(":")[2]}


def answers_subject(title: str) -> Subject:
    """Return the subject that the answers in a folder are, by its title "answers:FOLDER".

    Raises SubjectError where the folder has no vectors, or no answers, or where others wrote the vectors.
    """
    folder = str(Path(folder_of(title)).resolve())
    told = manifest(folder)
    if not any(Path(folder, "answers").glob("*.safetensors")) and not any(Path(folder, "answers").glob("*.json")):
        raise SubjectError(f"{folder}/answers: there are no answers; spec/vectors.md says what to write there")
    try:
        found, sources = functions(_asking(answers_in(folder)), told["blocks"])
    except ValueError as error:
        raise SubjectError(str(error)) from None
    adapter = Answers()
    return Subject.of(
        adapter,
        name=title,
        functions=found,
        recipe=lambda name: f"ask = answers_in({folder!r}, print)\n{name} = {sources[name]}",
        **declared(declarations(told), title),
    )


def manifest(folder: str) -> dict[str, Any]:
    """Return what a folder of vectors says of itself. Raises SubjectError where this nnspec cannot judge it."""
    path, own = Path(folder, "manifest.json"), metadata.version("nnspec")
    try:
        told = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SubjectError(f"{path}: {error.strerror}; nnspec export writes such a folder") from None
    except ValueError as error:
        raise SubjectError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        raise SubjectError(f"{path}: expected the schema {SCHEMA}")
    if told["nnspec"] != own:
        raise SubjectError(f"{path}: nnspec {told['nnspec']} wrote it, this is {own}: export the vectors again")
    return told


def _asking(ask: Ask) -> Ask:
    """Return a function that looks for an answer. A call without an answer is unsupported."""

    def answer(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            return ask(header, arrays)
        except NotImplementedError as reason:
            raise Unsupported(str(reason)) from None
        except RuntimeError as reason:
            raise Refused(str(reason)) from None

    return answer

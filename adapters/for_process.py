"""A program in any language as a subject: it answers requests over standard input and output (spec/protocol.md)."""

from __future__ import annotations

import os
from typing import Any

from nnspec.adapters.asked import DECLARED, Asked, Channel, check_blocks, check_known, declarations, functions
from nnspec.adapters.declarations import declared
from nnspec.adapters.names import command_of
from nnspec.adapters.program import Gone, Program
from nnspec.adapters.protocol import VERSION, WrongAnswer
from nnspec.adapters.subject import Subject, SubjectError

STARTING = 60.0  # seconds in which a program tells its capabilities


class Process(Asked):
    """NumPy arrays, which cross to a program and back."""

    name = "process"
    preamble = "import json\nimport subprocess\nfrom math import prod"

    def versions(self) -> dict[str, str]:
        """Return the version of the protocol."""
        return {"protocol": str(VERSION)}


def program_subject(title: str) -> Subject:
    """Return the subject that a program is, by its title "process:COMMAND".

    Raises SubjectError where the program cannot be started or does not tell its capabilities.
    """
    command, folder, adapter = command_of(title), os.getcwd(), Process()
    program = Program(command, folder)
    told = _capabilities(title, program)
    program.maps, channel = told.get("maps") is True, Channel(program)
    found, sources = functions(lambda header, arrays: channel.ask(header, arrays)[1], told["blocks"])
    version = " ".join(str(told[key]) for key in ("name", "version") if key in told)
    return Subject.of(
        adapter,
        name=title,
        functions=found,
        versions=adapter.versions() | ({"program": version} if version else {}),
        recipe=lambda name: f"ask = asking({command!r}, {folder!r})\n{name} = {sources[name]}",
        **declared(declarations(told), title),
    )


def _capabilities(title: str, program: Program) -> dict[str, Any]:
    """Return what the program says of itself, which has some of nnspec's blocks."""
    try:
        answer, _ = program.ask({"request": "capabilities"}, {}, STARTING)
    except Gone as gone:
        raise SubjectError(f"{title}: the request for its capabilities {gone}") from None
    except WrongAnswer as wrong:
        raise SubjectError(f"{title}: asked for its capabilities, it {wrong}") from None
    except TimeoutError:
        raise SubjectError(f"{title}: did not tell its capabilities within {STARTING:g} s") from None
    except OSError as error:
        raise SubjectError(f"{title}: cannot be started: {error.strerror or error}") from None
    told = answer.get("capabilities")
    told = told if isinstance(told, dict) else {}
    if not isinstance(told.get("blocks"), dict) or not told["blocks"]:
        raise SubjectError(f'{title}: asked for its capabilities, it answered none: expected {{"blocks": …}}')
    check_blocks(title, told["blocks"])
    check_known(title, told, ("name", "version", "blocks", "maps", *DECLARED))
    return told

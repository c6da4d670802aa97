"""The standard streams: whatever becomes of them, the command ends with the exit code of its verdict."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from nnspec.conformance.system.legible import legible


def mend() -> None:
    """Make the standard streams take any text. Where the caller closed one, what is written to it is lost."""
    if None in (sys.stdout, sys.stderr):
        while os.open(os.devnull, os.O_RDWR) < 2:  # else the next file that is opened is taken for one of them
            pass
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  as long as the process lives
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def tell(text: str, stream: TextIO | None = None) -> bool:
    """Print a text. Return False, after a complaint, if that fails; a reader that stops early, such as `head`, may."""
    stream = stream or sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        mute(stream)
    except OSError as error:
        mute(stream)
        if stream is not sys.stderr:
            complain(f"standard output: {error.strerror}")
        return False
    return True


def complain(message: str) -> None:
    """Print a message on standard error, as the command's own."""
    tell(f"nnspec: {legible(message)}\n", sys.stderr)


def mute(stream: TextIO) -> None:
    """Discard what is still to be written; otherwise Python fails once more when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def flush() -> None:
    """Write what the standard streams still hold."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            mute(stream)
        except ValueError:  # closed
            pass

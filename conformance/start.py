"""The start of the command `nnspec`: an interrupt while it is imported ends it without a traceback."""

from nnspec.conformance.system import signals

signals.leave_at_once()

from nnspec.conformance.cli import main  # noqa: E402

__all__ = ["main"]

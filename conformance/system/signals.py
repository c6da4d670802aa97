"""Signals that end a run: the first one raises KeyboardInterrupt, so that there is a report; others are ignored.

A run that SIGINT ends exits with 130, and one that SIGTERM, SIGHUP or SIGQUIT ends with 128 + the signal's number.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


class _State:
    watched = False  # whether the handlers below are set
    received: int | None = None  # the first signal
    raised = False


def leave_at_once() -> None:
    """Have SIGINT end the process without a traceback, as long as there is nothing to report."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))


@contextmanager
def once() -> Iterator[None]:
    """Handle the signals in this way. Signals that the caller's process ignores, as under nohup, stay ignored."""
    if threading.current_thread() is not threading.main_thread():  # Python sets handlers in the main thread alone
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    _State.watched, _State.received, _State.raised = True, None, False
    for number in ENDING:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, _interrupt if number == signal.SIGINT else _pass_on)
    try:
        yield
    finally:
        _State.watched = False
        for number, handler in before.items():
            signal.signal(number, handler)


def disregard() -> None:
    """Let SIGINT do nothing in a worker, which its parent ends: a KeyboardInterrupt there is the subject's own."""
    _State.watched = True
    signal.signal(signal.SIGINT, lambda number, frame: None)  # SIG_IGN would be inherited by what the subject starts


def hold() -> None:
    """Let a signal that arrives from now on interrupt nothing: what is known is being written."""
    _State.raised = True


def release() -> None:
    """Let the first signal interrupt again."""
    _State.raised = _State.received is not None


def received() -> int | None:
    """Return the signal that ends the run, or None."""
    return _State.received


def raised_by_subject() -> bool:
    """Tell whether a KeyboardInterrupt is known to be the subject's own, since no signal arrived."""
    return _State.watched and _State.received is None


def exit_code() -> int:
    """Return the exit code of a run that a signal ended."""
    return 128 + (_State.received or signal.SIGINT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _State.received = _State.received or number
    if not _State.raised:
        _State.raised = True
        raise KeyboardInterrupt


def _pass_on(number: int, frame: FrameType | None) -> None:
    """Raise SIGINT, so that whoever handles an interruption has to know one signal only."""
    if _State.received is None:
        _State.received = number
        signal.raise_signal(signal.SIGINT)

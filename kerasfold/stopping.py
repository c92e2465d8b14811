"""A command that a signal stops says so in one line, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any]
UNREAD = 128 + 13  # exit code of who is stopped by SIGPIPE, which Windows lacks
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # of which Windows lacks the last


class _Stopped(KeyboardInterrupt):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def said_of(stop: KeyboardInterrupt) -> tuple[str, int]:
    """What stopped a command, in words, and its exit code: 128 and the signal's number."""
    number = stop.number if isinstance(stop, _Stopped) else signal.SIGINT
    return f"stopped by {signal.Signals(number).name}", 128 + number


class _Ending:
    """Ends the process in one line, whatever it is at; for modules that take interrupts for errors.

    The line goes to what is stderr now, wherever that is sent later.
    """

    def __init__(self) -> None:
        self.stderr = os.dup(2)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        words, code = said_of(_Stopped(number))
        begin = "\r\x1b[K" if os.isatty(self.stderr) else ""
        os.write(self.stderr, f"{begin}kerasfold: error: {words}\n".encode())
        os._exit(code)


@functools.cache
def is_command_line() -> bool:
    """Whether this process is `kerasfold`, or `python -m kerasfold`."""
    as_module = any(
        flag == "-m" and name == "kerasfold"
        for flag, name in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    )
    return as_module or os.path.basename(next(iter(sys.argv), "")).split(".")[0] == "kerasfold"


def end_in_one_line() -> None:
    """Let what would end this process do so in one line, for good, but for what `raised` does."""
    try:
        end = _Ending()
    except OSError:  # stderr is closed
        return
    for number, usual in _handlers().items():
        if usual in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, end)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Let what would end the process raise `KeyboardInterrupt`, so that everything is left tidy."""
    stops: list[BaseException] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # the next one ends it wherever it is
        stops.append(_Stopped(number))
        raise stops[-1]

    ending = [
        number
        for number, before in _handlers().items()
        if before is signal.SIG_DFL or isinstance(before, _Ending)
    ]
    with _arriving(stops), _handled(dict.fromkeys(ending, interrupt)):
        yield


@contextlib.contextmanager
def before_ending(do: Callable[[], None]) -> Iterator[None]:
    """Do something first where a signal ends the process, or raises, as it would without this."""
    usual = _handlers()
    stops: list[BaseException] = []

    def ended(number: int, frame: FrameType | None) -> None:
        before = usual[number]
        if callable(before):
            try:
                before(number, frame)
            except BaseException as stop:
                stops.append(stop)
                do()
                raise
        else:
            do()
            signal.signal(number, before)
            signal.raise_signal(number)

    with _arriving(stops), _handled(dict.fromkeys(usual, ended)):
        yield


@contextlib.contextmanager
def _arriving(stops: list[BaseException]) -> Iterator[None]:
    """Raise what a signal has raised where that is lost on its way.

    Some code takes it for an error that one can go on after, and Python drops what is raised while
    an object is finalised.
    """
    try:
        yield
    except Exception:
        if stops:
            raise stops[0] from None
        raise
    if stops:
        raise stops[0]


def _handlers() -> dict[int, Any]:
    """What handles the signals that end a process, but for those that it ignores."""
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    return {n: handler for n, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}


@contextlib.contextmanager
def _handled(handlers: dict[int, _Handler]) -> Iterator[None]:
    """Handle signals otherwise for a while, in the thread that may: the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.getsignal(number) for number in handlers}
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield
    finally:
        for number, before in usual.items():
            signal.signal(number, before)

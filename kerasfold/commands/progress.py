"""What a command is at: one line that changes on a terminal, else a line now and then; on stderr.

Both in ASCII, from a thread of their own: what takes long may be one call of C++ code.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from kerasfold.commands.output import is_terminal
from kerasfold.stages import Stage, told

PAUSE = 5.0  # seconds from line to line
TURN = 0.1  # seconds that the sign on a terminal stands still
CLEAR = "\r\x1b[K"


@contextlib.contextmanager
def shown(quiet: bool, verbose: bool) -> Iterator[None]:
    """Show each stage of what goes on meanwhile.

    Args:
        quiet: show none.
        verbose: say how long each took, too.
    """
    with _stderr() as stream:
        if quiet or stream is None:
            yield
            return
        watch = _Watch(stream, verbose)
        try:
            with told(watch):
                yield
        finally:
            watch.end()


@contextlib.contextmanager
def _stderr() -> Iterator[TextIO | None]:
    """Standard error as it is now, wherever C++ code's is sent meanwhile; None where it is none."""
    if sys.stderr is not sys.__stderr__ or sys.stderr is None:
        yield sys.stderr
        return
    try:
        copy = os.dup(sys.stderr.fileno())
    except OSError:  # closed
        yield None
        return
    with open(copy, "w", encoding=sys.stderr.encoding, errors="backslashreplace") as stream:
        yield stream


class _Watch:
    """Hears of stages, and shows the one that goes on."""

    def __init__(self, stream: TextIO, verbose: bool) -> None:
        self.stream, self.verbose = stream, verbose
        self.turns = itertools.cycle("|/-\\") if is_terminal(stream) else None
        self.stage, self.since = Stage(""), time.monotonic()
        self.lock, self.ended = threading.Lock(), threading.Event()
        threading.Thread(target=self._show, daemon=True).start()

    def __call__(self, stage: Stage) -> None:
        with self.lock:
            self._clear()
            if stage.what != self.stage.what:
                if self.verbose and self.stage.what:
                    self._write(f"kerasfold: {self._words()}\n")
                self.since = time.monotonic()
            self.stage = stage
            self._draw()

    def end(self) -> None:
        """Show no more."""
        self(Stage(""))
        self.ended.set()

    def _show(self) -> None:
        while not self.ended.wait(TURN if self.turns else PAUSE):
            with self.lock:
                if self.turns:
                    self._draw()
                elif self.stage.what:
                    self._write(f"kerasfold: {self._words()}\n")

    def _draw(self) -> None:
        if self.turns and self.stage.what:
            columns = shutil.get_terminal_size().columns
            self._write(f"{CLEAR}{f'{next(self.turns)} {self._words()}'[: columns - 1]}")

    def _clear(self) -> None:
        if self.turns and self.stage.what:
            self._write(CLEAR)

    def _words(self) -> str:
        return f"{self.stage.words} ({time.monotonic() - self.since:.1f} s)"

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # stderr is full, or closed
            self.stream.write(text)
            self.stream.flush()

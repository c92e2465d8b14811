"""What converters say, kept away: of the thread that calls them, and of C++ code; and warnings.

Streams, loggers and file descriptor 2 are those of the whole process. What other threads print and
log meanwhile is printed and logged; of several that are quiet at a time, the last to end puts back
what was there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, TextIO

_LOCK = threading.Lock()
_THREADS: Counter[int] = Counter()  # that are quiet, and how often each is
_PUT_BACK = contextlib.ExitStack()  # what is, after the last


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing that this thread prints or logs is seen, nor what C++ code writes to stderr."""
    thread = threading.get_ident()
    with _LOCK:
        if not _THREADS:
            _begin()
        _THREADS[thread] += 1
    try:
        yield
    finally:
        with _LOCK:
            _THREADS[thread] -= 1
            if not _THREADS[thread]:
                del _THREADS[thread]
            if not _THREADS:
                _PUT_BACK.close()


def _begin() -> None:
    with contextlib.suppress(OSError):  # stderr is closed
        saved = os.dup(2)
        _PUT_BACK.callback(os.close, saved)
        _PUT_BACK.callback(os.dup2, saved, 2)
        _stand_in("stderr", _elsewhere(sys.stderr, saved))
        for handler in _handlers():
            if isinstance(handler, logging.StreamHandler):
                _lead_elsewhere(handler, saved)
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
    for name in ("stdout", "stderr"):
        _stand_in(name, getattr(sys, name) and _Others(getattr(sys, name)))
    for handler in _handlers():
        handler.addFilter(_by_others)
        _PUT_BACK.callback(handler.removeFilter, _by_others)


def _handlers() -> set[logging.Handler]:
    """All that loggers have."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {handler for each in loggers for handler in getattr(each, "handlers", ())}
    return handlers if logging.lastResort is None else handlers | {logging.lastResort}


def _lead_elsewhere(handler: logging.StreamHandler[Any], saved: int) -> None:
    """Have a handler log to a copy of where its stream leads, if that is file descriptor 2."""
    before = handler.stream
    stream = _elsewhere(before, saved)
    if stream is not before:
        handler.setStream(stream)
        _PUT_BACK.callback(handler.setStream, before)


def _elsewhere(stream: TextIO, saved: int) -> TextIO:
    """A stream, or one to a copy of where it leads, if that is file descriptor 2."""
    try:
        if stream.fileno() != 2:
            return stream
    except (AttributeError, OSError, ValueError):  # none, or not to a file
        return stream
    settings: Any = {"encoding": stream.encoding, "errors": stream.errors, "buffering": 1}
    return _PUT_BACK.enter_context(open(os.dup(saved), "w", **settings))


def _stand_in(name: str, stream: Any) -> None:
    """Have a stream of `sys` be another, until it is put back, if nobody else has changed it."""
    before = getattr(sys, name)

    def put_back() -> None:
        if getattr(sys, name) is stream:
            setattr(sys, name, before)

    setattr(sys, name, stream)
    _PUT_BACK.callback(put_back)


class _Others:
    """A stream on which threads that are quiet write nothing."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """As that of the stream."""
        return len(text) if threading.get_ident() in _THREADS else self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _by_others(record: logging.LogRecord) -> bool:
    """Whether a record is of a thread that is not quiet, or says that something is wrong."""
    return record.thread not in _THREADS or record.levelno > logging.WARNING


class _Unsaid:
    """What `warnings` takes for the pattern of a message: one that is that of a thread alone."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.thread = re.compile(pattern, re.DOTALL), threading.get_ident()

    def match(self, message: str) -> bool:
        return threading.get_ident() == self.thread and bool(self.pattern.match(message))


@contextlib.contextmanager
def unsaid(pattern: str = "") -> Iterator[None]:
    """Without the warnings of this thread that begin with a pattern.

    `warnings.catch_warnings` changes what all threads warn of, and of two that overlap, the one
    that ends last puts back what the other had put there.
    """
    entry: Any = ("ignore", _Unsaid(pattern), Warning, None, 0)
    filters: Any = warnings.filters
    filters.insert(0, entry)
    try:
        yield
    finally:
        now: Any = warnings.filters  # others, where another thread catches warnings
        for each in (filters, now):
            with contextlib.suppress(ValueError):
                each.remove(entry)

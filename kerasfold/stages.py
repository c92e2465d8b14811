"""What a long piece of work is at, for whoever listens: the command line does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple


class Stage(NamedTuple):
    """What goes on.

    Attributes:
        what: in words; "" where nothing does.
        done: of a number of things, how many are done.
        total: how many there are; 0 where they are not counted.
        things: what they are, in words.
    """

    what: str
    done: int = 0
    total: int = 0
    things: str = ""

    @property
    def words(self) -> str:
        """All of that."""
        return (
            f"{self.what}, {self.done} of {self.total} {self.things}" if self.total else self.what
        )


_listener: ContextVar[Callable[[Stage], None]] = ContextVar("_listener", default=lambda stage: None)


def at(what: str, done: int = 0, total: int = 0, things: str = "") -> None:
    """Tell whoever listens what goes on from now on."""
    _listener.get()(Stage(what, done, total, things))


@contextlib.contextmanager
def told(listener: Callable[[Stage], None]) -> Iterator[None]:
    """Have a function hear of each stage, meanwhile."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)

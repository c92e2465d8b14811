"""What a graph that is written anew has no calls for any more, for the report."""

from __future__ import annotations

from typing import NamedTuple


class Together(NamedTuple):
    """Calls that one call does the work of, which are none of the graph's any more.

    Attributes:
        name: of the one.
        words: what it is.
        names: of those, in order.
    """

    name: str
    words: str
    names: tuple[str, ...]


class Left(NamedTuple):
    """Channels of a call that are not computed, and some that still are.

    Attributes:
        layer: name of the call.
        channels: how many it had.
        unread: of these, those that nobody reads, and that are gone.
        constant: others that are gone, and constant.
        staying: those that are constant and stay.
        why: those stay, or "".
    """

    layer: str
    channels: int
    unread: int
    constant: int
    staying: int = 0
    why: str = ""

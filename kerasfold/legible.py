"""Names that come from models and their files, as they can be shown among other words."""

from __future__ import annotations


def legible(text: str) -> str:
    r"""A text with all that does not print, line breaks among them, as Python escapes it.

    So a name neither reaches a terminal as a command to it nor starts a line of its own.

    Example:
        >>> from kerasfold.legible import legible
        >>> print(legible("a\x1b[31m\nequivalent"))
        a\x1b[31m\nequivalent
    """
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)

"""Pages, read as a browser does."""

from __future__ import annotations

from collections.abc import Collection
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """Counts tags, and sees to it that each that is opened is closed, but for those in `void`."""

    def __init__(self, text: str, void: Collection[str] = ("meta",)) -> None:
        super().__init__()
        self.void = void
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

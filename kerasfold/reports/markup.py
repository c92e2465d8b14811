"""What pages are made of: a document with the style that all share, sections and tables."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from kerasfold.legible import legible

_HERE = Path(__file__).parent


def document(title: str, *parts: str, style: str = "", script: str = "") -> str:
    """An HTML document, of which nothing is loaded from elsewhere.

    Args:
        title: of the window.
        parts: of its body, as HTML.
        style: rules beside those of `page.css`.
        script: run once all is there; without "</".
    """
    end = f"<script>{script}</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{read('page.css')}{style}</style>\n"
        "</head>\n<body>\n<main>\n" + "\n".join(parts) + f"\n</main>\n{end}</body>\n</html>\n"
    )


def escape(text: str) -> str:
    """A text as HTML; what does not print is spelled out."""
    return html.escape(legible(text))


def read(name: str) -> str:
    """A file that stands beside this one."""
    return (_HERE / name).read_text(encoding="utf-8")


def section(title: str, body: str) -> str:
    """What is HTML already, under a title that is."""
    return f"<h2>{title}</h2>\n<section>{body}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of what is HTML already."""
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    opened = f'<table class="{kind}">' if kind else "<table>"
    return f"{opened}\n<thead><tr>{cells}</tr></thead>\n<tbody>{body}</tbody>\n</table>"

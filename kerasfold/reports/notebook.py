"""A report in a notebook: HTML that needs neither a script nor a style of its own."""

from __future__ import annotations

from kerasfold.reports import attempts
from kerasfold.reports.markup import escape
from kerasfold.reports.record import Record
from kerasfold.reports.text import Group, few, headline, keeps, merges

_CELL = "text-align:left;vertical-align:top;padding:.15rem .6rem"


def notebook(report: Record) -> str:
    """The first line, and a table of each kind of group."""
    parts = [
        f"<p><b>{escape(headline(report))}</b></p>",
        _table("merged", merges(report.merged), is_open=True),
        _table(attempts.title(report.tried), _tried(report), is_open=False),
        _table("kept", keeps(report.kept), is_open=False),
        _table("merged, and no further", keeps(report.apart), is_open=False),
    ]
    return f"<div>{''.join(parts)}</div>"


def _tried(report: Record) -> list[Group]:
    """The ways of each part, and what each took."""
    return [
        Group(
            1 + part.alike,
            attempts.words(way),
            attempts.milliseconds(way),
            "*" * way.taken,
            part.names,
        )
        for part in attempts.parts(report.tried)
        for way in part.attempts
    ]


def _table(title: str, groups: list[Group], is_open: bool) -> str:
    if not groups:
        return ""
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td style="{_CELL}">{escape(cell)}</td>'
            for cell in (f"{g.size} x", g.what, g.why, g.code, ", ".join(few(g.names)))
        )
        + "</tr>"
        for g in groups
    )
    count = sum(group.size for group in groups)
    return (
        f"<details{' open' * is_open}><summary>{escape(title)} ({count})</summary>"
        f"<table><tbody>{rows}</tbody></table></details>"
    )

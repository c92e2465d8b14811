"""A report as one page: numbers, the graph before and after, tables that sort."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from kerasfold.reasons import BY_CODE
from kerasfold.reports import attempts
from kerasfold.reports.compared import comparison
from kerasfold.reports.layout import COLOURS
from kerasfold.reports.markup import document, escape, section, table
from kerasfold.reports.markup import read as file_of
from kerasfold.reports.record import Kept, Record
from kerasfold.reports.svg import BETWEEN, EDGE, PALETTE, Drawing
from kerasfold.reports.text import channels, predictions, run_length, short


def page(report: Record) -> str:
    """See `FoldReport.html`."""
    title = (
        f"<h1>{escape(report.model)} <small>folded by kerasfold {escape(report.version)}, "
        f"objective {escape(report.aim)}</small></h1>"
    )
    parts = [title]
    if report.files is not None:
        read, written = escape(report.files.read), escape(report.files.written)
        parts.append(f'<p class="soft files">{read} &rarr; {written}</p>')
    parts.append(f'<div class="tiles">{"".join(_tiles(report))}</div>')
    if report.note:
        parts.append(f"<p>{escape(report.note)}</p>")
    parts += _graphs(report)
    parts += _tables(report)
    if report.equivalence is not None:
        parts += comparison(report.equivalence)
    parts.append(_codes(report))
    style = file_of("graph.css") + _colours()
    return document(f"{report.model}, folded", *parts, style=style, script=file_of("page.js"))


def _colours() -> str:
    """A colour for each group, by day and by night."""
    rules = [
        "".join(
            f".g{i} rect, .link.g{i} {{ fill: {pair[k]}; }}\n" for i, pair in enumerate(PALETTE)
        )
        for k in (0, 1)
    ]
    return f"{rules[0]}@media (prefers-color-scheme: dark) {{\n{rules[1]}}}\n"


def _tiles(report: Record) -> Iterator[str]:
    if report.measured is not None:
        pace = report.measured
        said = f"measured on {pace.runtime}, {pace.before:.3g} ms before"
        yield _tile(f"{pace.after:.3g} ms", said)
    for gain, said in predictions(report):
        yield _tile(gain, said)
    counts = [
        ("multiply-accumulates", report.macs_before, report.macs_after),
        ("parameters", report.params_before, report.params_after),
        ("layers that compute", report.layers_before, report.layers_after),
    ]
    if report.keras_layers_after is not None:
        counts.append(("layers in Keras", report.keras_layers_before, report.keras_layers_after))
    if report.files is not None:
        counts.append(("bytes", report.files.bytes_before, report.files.bytes_after))
    for what, before, after in counts:
        was = f'<span class="was">{short(before)} &rarr;</span> ' if before != after else ""
        yield f'<div class="tile"><b class="count">{was}{short(after)}</b><span>{what}</span></div>'
    verdict = "not verified" if report.equivalence is None else report.equivalence.verdict
    to = "to the original" if report.equivalence else "against the original"
    yield f'<div class="tile {verdict}"><b class="mark">{verdict}</b><span>{to}</span></div>'


def _tile(value: str, what: str) -> str:
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>'


def _graphs(report: Record) -> Iterator[str]:
    for number, flow in enumerate(report.flows):
        drawing = Drawing(report, flow, number)
        sides = (
            ("before", drawing.width(drawing.before), drawing.side(False)),
            ("links", BETWEEN, drawing.links()),
            ("after", drawing.width(drawing.after), drawing.side(True)),
        )
        columns = "".join(
            f'<div class="{name}"><h3>{"&nbsp;" if name == "links" else name}</h3>'
            f'<svg role="img" aria-label="{name}" width="{width}" height="{drawing.height}" '
            f'viewBox="0 0 {width} {drawing.height}"{_pulled(name)}>{content}</svg></div>'
            for name, width, content in sides
        )
        bar = _BAR if not number else ""
        yield (
            f"<h2>Graph</h2>\n{bar}"
            f'<section class="graph" data-shown="after"><div class="scroll"><div class="columns">'
            f'{columns}</div></div><aside class="detail"><div class="stuck" aria-live="polite">'
            f'<p class="soft">Choose a step to see what became of it, and why.</p></div></aside>'
            "</section>"
        )


def _pulled(name: str) -> str:
    """The bands touch the boxes on either side."""
    return f' style="margin: 0 -{EDGE}px"' if name == "links" else ""


_BAR = (
    '<div class="bar"><div class="tabs">'
    '<button value="before" aria-pressed="false">before</button>'
    '<button value="after" aria-pressed="true">after</button></div>'
    '<input id="find" type="search" placeholder="Find a layer, a class or a reason" '
    'aria-label="Find a layer, a class or a reason"></div>\n'
)


def _tables(report: Record) -> Iterator[str]:
    if report.merged:
        rows = [
            (
                escape(m.into),
                escape(m.kind)
                + (f'<br><span class="soft">{escape(m.grown)}</span>' * bool(m.grown)),
                escape(run_length(m.kinds)),
                escape(" + ".join(m.layers)),
            )
            for m in report.merged
        ]
        yield _sorted("Merged", len(rows), ("into", "layers", "classes merged", "from"), rows)
    for title, kept in (("Kept", report.kept), ("Merged, and no further", report.apart)):
        if kept:
            head = ("layer", "class", "code", "because")
            yield _sorted(title, len(kept), head, map(_row, kept))
    if report.tried:
        found = [
            (
                escape(" + ".join(part.names)) + f" (and {part.alike} alike)" * bool(part.alike),
                escape(attempts.milliseconds(attempt)),
                escape(attempts.words(attempt)),
                "taken" * attempt.taken,
            )
            for part in attempts.parts(report.tried)
            for attempt in part.attempts
        ]
        title = f"{attempts.title(report.tried).capitalize()}"
        yield _sorted(escape(title), len(found), ("part", "ms", "way", "taken"), found)
    names = [
        (what, ", ".join(names))
        for what, names in (
            ("removed, as nothing depends on them at inference", report.removed),
            ("computed once with what they equal", report.repeated),
            ("computed for the pixels that are read alone", report.narrowed),
            ("channels", [line.strip() for line in channels(report, True) if line]),
            ("opened: the layers inside them stand for them", report.opened),
            ("random where the original is called without training=False", report.random),
            ("multiply-accumulates inside are not counted", report.uncounted),
        )
        if names
    ]
    if names:
        rows_of = [(escape(what), escape(said)) for what, said in names]
        yield section("Beside these", table(("", ""), rows_of, "plain"))


def _row(kept: Kept) -> tuple[str, ...]:
    title = escape(BY_CODE[kept.code].title) if kept.code in BY_CODE else ""
    code = f'<span class="code" title="{title}">{escape(kept.code)}</span>'
    return escape(kept.layer), escape(kept.kind), code, escape(kept.reason)


def _sorted(title: str, count: int, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    buttons = [f'<button type="button">{name}</button>' for name in head]
    body = table(buttons, rows, f"sorts {'merges' * (title == 'Merged')}".strip())
    return f'<h2>{title} ({count})</h2>\n<section class="long">{body}</section>'


def _codes(report: Record) -> str:
    """What the codes mean that a reader may choose, for the script."""
    used = {k.code for k in (*report.kept, *report.apart)} & BY_CODE.keys()
    said = {
        code: {name: getattr(BY_CODE[code], name) for name in ("title", "meaning", "way_out")}
        for code in sorted(used)
    }
    text = json.dumps(said).replace("<", "\\u003c")
    return f'<script type="application/json" id="codes">{text}</script>'


assert len(PALETTE) == COLOURS

"""The graphs of a report drawn as SVG: on a page, and as a document of its own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from kerasfold.plots.steps import Flow, Step
from kerasfold.reports.layout import COLOURS, Edge, Side, sides
from kerasfold.reports.markup import escape
from kerasfold.reports.record import Kept, Merged, Record

ROW, BOX, LANE, EDGE, BETWEEN = 30, 300, 9, 10, 110  # units: heights, widths, and a margin
HALF = 11  # half the height of a box
LETTERS = 40  # that a box has room for, of seven units each
PALETTE = (
    ("#cfe3f7", "#23415f"),
    ("#d8efd3", "#2c4a2a"),
    ("#fbe0c4", "#5b3d1c"),
    ("#e6dbf6", "#43365f"),
    ("#f9d4d8", "#5f2e36"),
    ("#cdeeea", "#1f4a49"),
    ("#f6ecbd", "#54481a"),
    ("#e3e3d8", "#45453a"),
)
STYLE = """
svg { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.step rect { fill: #fff; stroke: #9aa1aa; }
.step text { fill: #1c1e21; } .step .kind { fill: #5b6168; font-size: 11px; }
.step.removed rect { stroke-dasharray: 4 3; fill: none; }
.edge { fill: none; stroke: #8a9099; stroke-width: 1.3; }
.link { opacity: .55; } .head { font-weight: 600; fill: #1c1e21; }
""" + "".join(
    f".g{i} rect, .link.g{i} {{ fill: {light}; }}\n" for i, (light, _) in enumerate(PALETTE)
)


class Drawing:
    """One flow of a report: its two sides, and what became what between them.

    Attributes:
        height: units that each of them is high.
    """

    def __init__(self, report: Record, flow: Flow, number: int = 0) -> None:
        self.flow, self.number = flow, number
        self.before, self.after = sides(flow)
        self.height = ROW * max(self.before.depth, self.after.depth)
        self._merged: Mapping[str, Merged] = {m.into: m for m in report.merged}
        self._kept: Mapping[str, Kept] = {k.layer: k for k in (*report.apart, *report.kept)}

    @staticmethod
    def width(side: Side) -> int:
        """Units that a side is wide."""
        return BOX + LANE * (side.lanes + 1) + 2 * EDGE

    def side(self, is_after: bool) -> str:
        """The contents of a side; its lanes are away from the other."""
        side = self.after if is_after else self.before
        left = EDGE if is_after else self.width(side) - BOX - EDGE
        edges = "".join(_edge(side, edge, left, is_after) for edge in side.edges)
        removed = frozenset() if is_after else self.flow.removed
        boxes = "".join(
            self._box(side, i, left, i in removed, is_after) for i in range(len(side.steps))
        )
        return edges + boxes

    def links(self) -> str:
        """Bands from calls to the steps that they became."""
        return "".join(
            f'<g class="link g{group % COLOURS}" data-group="{self.number}-{i}">'
            + "".join(
                _band(call, self.after.rows[i], slot / len(step.calls), 1 / len(step.calls))
                for slot, call in enumerate(step.calls)
            )
            + "</g>"
            for i, (step, group) in enumerate(zip(self.flow.after, self.after.groups, strict=True))
            if group is not None
        )

    def _box(self, side: Side, place: int, left: int, removed: bool, is_after: bool) -> str:
        step, group, after = side.steps[place], side.groups[place], side.after[place]
        middle = ROW * side.rows[place] + ROW // 2
        kinds = "step" + (f" g{group % COLOURS}" if group is not None else "")
        name = _cut(step.name, LETTERS // 2)
        kind = _cut("removed" if removed else step.kind, LETTERS - len(name) - 2)
        data = {"name": step.name, "kind": step.kind, "side": "after" if is_after else "before"}
        data |= {} if after is None else {"group": f"{self.number}-{after}"}
        data |= self._said(step, group, removed, is_after)
        attributes = "".join(f' data-{key}="{escape(value)}"' for key, value in data.items())
        hover = [f"{key}: {value}" for key, value in data.items() if key not in _HIDDEN]
        return (
            f'<g class="{kinds}{" removed" * removed}" tabindex="0"{attributes}>'
            "<title>" + "\n".join(map(escape, hover)) + "</title>"
            f'<rect x="{left}" y="{middle - HALF}" width="{BOX}" height="{2 * HALF}" rx="5"/>'
            f'<text x="{left + 8}" y="{middle + 4}">{escape(name)}</text>'
            f'<text class="kind" x="{left + BOX - 8}" y="{middle + 4}" text-anchor="end">'
            f"{escape(kind)}</text></g>"
        )

    def _said(self, step: Step, group: int | None, removed: bool, is_after: bool) -> dict[str, str]:
        """What the report says of a step."""
        said = {}
        if removed:
            return {"why": "it does nothing at inference, or equals what is there"}
        if is_after and step.name in self._merged:
            said["from"] = " + ".join(self._merged[step.name].layers)
        if step.name in self._kept and (is_after or group is None):
            row = self._kept[step.name]
            said |= {"why": row.reason, "code": row.code}
        return said


_HIDDEN = ("side", "group")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _edge(side: Side, edge: Edge, left: int, is_after: bool) -> str:
    top, bottom = (ROW * side.rows[i] + ROW // 2 for i in (edge.start, edge.end))
    if not edge.lane:
        x = left + BOX // 2
        return f'<path class="edge" d="M{x} {top + HALF}V{bottom - HALF}"/>'
    wall, way = (left + BOX, 1) if is_after else (left, -1)
    out, turn = wall + way * (LANE * edge.lane + 3), 5
    return (
        f'<path class="edge" d="M{wall} {top + 4}H{out - way * turn}Q{out} {top + 4} {out} '
        f"{top + 4 + turn}V{bottom - 4 - turn}Q{out} {bottom - 4} {out - way * turn} {bottom - 4}"
        f'H{wall}"/>'
    )


def _band(start: int, end: int, first: float, share: float) -> str:
    x, (top, bottom) = BETWEEN, (ROW * row + ROW / 2 - HALF for row in (start, end))
    high, low = bottom + 2 * HALF * first, bottom + 2 * HALF * (first + share)
    half = x // 2
    return (
        f'<path d="M0 {top:.0f}C{half} {top:.0f} {half} {high:.1f} '
        f"{x} {high:.1f}V{low:.1f}C{half} {low:.1f} {half} {top + 2 * HALF:.0f} 0 "
        f'{top + 2 * HALF:.0f}Z"/>'
    )


def document(report: Record) -> str:
    """A picture of its own: see `FoldReport.svg`."""
    parts, top, width = [], 2 * ROW, 0
    for number, flow in zip(count(), report.flows):
        drawing = Drawing(report, flow, number)
        places = (0, drawing.width(drawing.before), drawing.width(drawing.before) + BETWEEN)
        contents = (drawing.side(False), drawing.links(), drawing.side(True))
        parts += [
            f'<g transform="translate({x - (EDGE if x else 0)} {top})">{content}</g>'
            for x, content in zip(places, contents, strict=True)
        ]
        width = max(width, places[2] + drawing.width(drawing.after))
        top += drawing.height + ROW
    title = escape(f"{report.model}: before and after, objective {report.aim}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" '
        f'height="{top}"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text class="head" x="{EDGE}" y="{ROW}">{title}</text>{"".join(parts)}</svg>\n'
    )

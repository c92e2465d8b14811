"""The graphs of a report in Graphviz's language."""

from __future__ import annotations

import json
from collections.abc import Iterator

from kerasfold.legible import legible
from kerasfold.reports.layout import COLOURS, Side, sides
from kerasfold.reports.record import Record
from kerasfold.reports.svg import PALETTE


def dot(report: Record) -> str:
    """A digraph, with a cluster for each graph before and after."""
    lines = [
        f"digraph {_quoted(legible(report.model))} {{",
        '  node [shape=box, style="filled,rounded", fillcolor=white, fontname=Helvetica];',
    ]
    for number, flow in enumerate(report.flows):
        before, after = sides(flow)
        lines += _cluster(f"b{number}", "before", before, flow.removed)
        lines += _cluster(f"a{number}", "after", after, frozenset())
        lines += [
            f"  b{number}_{call} -> a{number}_{i} [style=dotted, dir=none, constraint=false];"
            for i, step in enumerate(flow.after)
            if len(step.calls) > 1
            for call in step.calls
        ]
    return "\n".join([*lines, "}", ""])


def _cluster(name: str, label: str, side: Side, removed: frozenset[int]) -> Iterator[str]:
    yield f"  subgraph cluster_{name} {{ label={label};"
    for i, (step, group) in enumerate(zip(side.steps, side.groups, strict=True)):
        said = _quoted(f"{legible(step.name)}\n{legible(step.kind)}")
        fill = "" if group is None else f', fillcolor="{PALETTE[group % COLOURS][0]}"'
        style = ', style="dashed,rounded"' if i in removed else ""
        yield f"    {name}_{i} [label={said}{fill}{style}];"
    yield from (f"    {name}_{edge.start} -> {name}_{edge.end};" for edge in side.edges)
    yield "  }"


def _quoted(text: str) -> str:
    """A string of the language, in which a backslash is what it is in JSON."""
    return json.dumps(text, ensure_ascii=False)

"""Where the steps of a graph are drawn: a row each, and lanes beside them for what skips rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kerasfold.plots.steps import Flow, Step

COLOURS = 8  # that tell merged groups from their neighbours


@dataclass(frozen=True, slots=True)
class Edge:
    """That a step reads another.

    Attributes:
        start: position of the step that is read.
        end: of the step that reads it.
        lane: beside the rows, from 1; 0 where it is straight from one row to the next.
    """

    start: int
    end: int
    lane: int


@dataclass(frozen=True, slots=True)
class Side:
    """A graph on its side of a fold.

    Attributes:
        steps: its steps.
        rows: the row of each.
        edges: what reads what.
        groups: of each step, the number of the merge that it is a part of, or None.
        after: of each step, the position of what it became, or itself; None where it is removed.
    """

    steps: Sequence[Step]
    rows: Sequence[int]
    edges: Sequence[Edge]
    groups: Sequence[int | None]
    after: Sequence[int | None]

    @property
    def lanes(self) -> int:
        """How many lanes it takes."""
        return max((edge.lane for edge in self.edges), default=0)

    @property
    def depth(self) -> int:
        """How many rows it takes."""
        return max(self.rows, default=-1) + 1


def sides(flow: Flow) -> tuple[Side, Side]:
    """Both graphs, each step after the fold beside the last of the calls that became it."""
    merged = [i for i, step in enumerate(flow.after) if len(step.calls) > 1]
    number = {step: group for group, step in enumerate(merged)}
    became = {call: i for i, step in reversed(list(enumerate(flow.after))) for call in step.calls}
    fate = [became.get(i) for i in range(len(flow.before))]
    rows: list[int] = []
    for step in flow.after:
        beside = max(step.calls, default=0)
        rows.append(max(beside, rows[-1] + 1) if rows else beside)
    own = range(len(flow.after))
    return (
        _side(flow.before, range(len(flow.before)), fate, number),
        _side(flow.after, rows, own, number),
    )


def _side(
    steps: Sequence[Step],
    rows: Sequence[int],
    after: Sequence[int | None],
    number: Mapping[int, int],
) -> Side:
    groups = [None if i is None else number.get(i) for i in after]
    return Side(steps, rows, _edges(steps, rows), groups, after)


def _edges(steps: Sequence[Step], rows: Sequence[int]) -> list[Edge]:
    """Each with the innermost lane that is free along all of its rows."""
    found: list[Edge] = []
    taken: list[int] = []  # of each lane, the row that it is taken up to
    for end, step in enumerate(steps):
        found += [Edge(start, end, 0) for start in step.reads if start == end - 1]
    skipping = [(s, e) for e, step in enumerate(steps) for s in step.reads if s != e - 1]
    for start, end in sorted(skipping, key=lambda pair: (rows[pair[0]], rows[pair[1]])):
        lane = next((i for i, row in enumerate(taken) if row <= rows[start]), len(taken))
        taken[lane : lane + 1] = [rows[end]]
        found.append(Edge(start, end, lane + 1))
    return found

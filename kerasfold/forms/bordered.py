"""A chain that is one convolution but for a border, in as few exact stages as there are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self, TypeAlias

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.chain import collapsed
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.tiles import Tiling
from kerasfold.cost import Cost, Prices
from kerasfold.forms.evaluate import operator_of
from kerasfold.forms.form import C, Form
from kerasfold.forms.known import Known
from kerasfold.forms.worth import is_slower, replaced
from kerasfold.lift.program import Node

MOST_STAGES = 4  # steps a border may take


class Frame(NamedTuple):
    """What is known of a chain with a border, wherever it stands.

    Attributes:
        whole: the operator of the interior.
        cost: of the interior and the border.
        cuts: where stages begin and end.
        tiling: how the image is parted into tiles, if it is.
    """

    whole: Geometry
    cost: Cost
    cuts: tuple[int, ...]
    tiling: Tiling = ()


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Bordered(Form[C]):
    """A form of a chain with a border.

    Attributes:
        stages: the nodes of each step that does not compose with the one before it.
    """

    stages: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, known: Known, index: int, visited: Sequence[int], frame: Frame | None, **rest: Any
    ) -> Self | None:
        """The form of a path that has such a frame; `rest` are its other attributes."""
        if frame is None:
            return None
        return cls(
            node=index,
            reads=known.reads(visited, frame.whole),
            visited=tuple(visited),
            cost=frame.cost,
            stages=tuple(tuple(visited[i:j]) for i, j in itertools.pairwise(frame.cuts)),
            **rest,
        )

    def operators_of(self, nodes: Sequence[Node]) -> list[Operator]:
        """Each stage as one operator."""
        return [operator_of(nodes, stage) for stage in self.stages]


# Gives the frame of geometries, of so many calls that share their weights, at such prices. It may
# stop, with what it has by then, where that is too slow already.
Find: TypeAlias = Callable[[Sequence[Geometry], int, Prices, Callable[[Cost], bool]], Frame | None]


def frame_found(known: Known, kind: type, visited: Sequence[int], find: Find) -> Frame | None:
    """The frame of a path. Nets repeat their blocks, and the same sizes have the same frame.

    Args:
        known: the program.
        kind: the form, which has frames of its own.
        visited: the path.
        find: see `Find`.
    """
    shared, too_slow = known.shared(visited), partial(is_slower, known, visited)

    def found() -> Frame | None:
        try:
            return find([known.geometry(i) for i in visited], shared, known.prices, too_slow)
        except Refused:
            return None

    had = replaced(known, visited) if known.careful else None
    return known.once((kind, shared, had, tuple(map(known.kind, visited))), found)


def cut_in_stages(links: Sequence[Geometry]) -> tuple[tuple[int, ...], list[Geometry]]:
    """Where a chain is cut, its ends included: only where its links do not compose; its stages.

    There are none where they would be one, or more than `MOST_STAGES`.
    """
    cuts = [0]
    so_far = links[0]
    for position, link in enumerate(links[1:], 1):
        try:
            joined = link @ so_far
        except Refused:
            joined = None
        if joined is None or joined.ones:
            cuts.append(position)
            so_far = link
        else:
            so_far = joined
        if len(cuts) > MOST_STAGES:
            return (), []
    if len(cuts) == 1:
        return (), []
    ends = (*cuts, len(links))
    return ends, [collapsed(links[i:j]) for i, j in itertools.pairwise(ends)]

"""A graph in which gains stand at what is added up, where some of that takes them in.

    g (a + b) + s = (g a + s) + g b

`a` is made by weights, which take in gain and shift. Where `b` is, too, it takes in the gain: the
two may not merge, as of other strides. If not, its pixels are multiplied, before they are repeated
if they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kerasfold.lift.pointwise import repeats_pixels
from kerasfold.lift.regions import Lifted, Regions, Rewritings, lift
from kerasfold.lift.scales import Run, along_channels, runs_of
from kerasfold.lift.writing import Writer, rewritten
from kerasfold.read.graph import Call, Graph, Tensor, given_others, read_counts


def distributed(regions: Regions) -> Rewritings:
    """The same model with gains at what is added up, where there are some to put there."""
    moves = _moves(regions)
    if moves:
        yield lift(_written(regions.graph, moves), regions)


class _Move(NamedTuple):
    """A sum, and the gains behind it.

    Attributes:
        run: the calls that multiply the sum, and shift it.
        into: the tensor that takes in both.
        repeating: by each tensor that is added up, the calls that repeat its pixels, in order.
    """

    run: Run
    into: Tensor
    repeating: Mapping[int, Sequence[Call]]


def _moves(regions: Regions) -> dict[int, _Move]:
    """What can be put elsewhere, by the index of the sum."""
    graph, readers = regions.graph, read_counts(regions.graph)
    records = {x.call.index: x for x in regions.lifted.values()}
    makers = {x.index: call for call in graph.calls for x in call.outputs}
    found: dict[int, _Move] = {}
    for run in runs_of(regions).values():
        total = makers.get(run.source.index)
        if total is None or not _is_sum(regions, records.get(total.index)):
            continue
        tensors = (*total.inputs, *total.outputs, *run.last.outputs)
        alone = all(readers[x.index] == 1 for x in total.outputs)
        if not alone or any(x.masked for x in tensors) or len({x.dtype for x in tensors}) > 1:
            continue
        weighed = [x for x in total.inputs if readers[x.index] == 1 and regions.is_weighed(x)]
        if weighed and np.any(run.steps.gain != 1):
            repeating = {x.index: _repeating(x, makers, readers) for x in total.inputs}
            found[total.index] = _Move(run, weighed[0], repeating)
    return found


def _is_sum(regions: Regions, record: Lifted | None) -> bool:
    """Whether a call adds up, and each of what it reads once."""
    if record is None or record.activation is not None or len(record.added) != 1:
        return False
    node = regions.program.nodes[record.node]
    once = len({x.index for x in record.call.inputs}) == len(node.operands)
    return node.op == "sum" and once and set(node.factors) == {1.0}


def _repeating(x: Tensor, makers: Mapping[int, Call], readers: Counter[int]) -> list[Call]:
    """The calls that repeat pixels of a tensor, each read by the next alone."""
    found: list[Call] = []
    while readers[x.index] == 1 and x.index in makers and repeats_pixels(makers[x.index]):
        found.insert(0, makers[x.index])
        (x,) = found[0].inputs
    return found


def _written(graph: Graph, moves: Mapping[int, _Move]) -> Graph:
    """The graph with gains at what is added up."""
    writer = Writer(graph)
    gone = {call.index for move in moves.values() for call in move.run.calls}
    for call in graph.calls:
        move = moves.get(call.index)
        if move is not None:
            given = {x.index: _multiplied(writer, graph, move, x) for x in call.inputs}
            own = given_others(call, lambda x, given=given: given[x.index])  # type: ignore[misc]
            writer.calls.append(replace(own, outputs=move.run.last.outputs))
        elif call.index not in gone:
            writer.calls.append(call)
    return rewritten(graph, writer.calls)


def _multiplied(writer: Writer, graph: Graph, move: _Move, x: Tensor) -> Tensor:
    """What is added up in place of a tensor."""
    repeating, run, shift = move.repeating[x.index], move.run, move.run.steps.shift
    y = repeating[0].inputs[0] if repeating else x
    for call, steps in zip(run.calls, run.each, strict=True):
        gains = along_channels(steps.gain, y, graph.layout)
        y = writer.called(call.name, lambda x: x * 1.0, y, gains)
    for call in repeating:
        (read,), (made,) = call.inputs, call.outputs
        y = writer.again(call, {read.index: y}, made.shape, once=False)
    if x.index != move.into.index or not np.any(shift):
        return y
    return writer.shifted(f"{run.last.name}_shift", y, along_channels(shift, x, graph.layout))

"""A graph in which gains stand at what is added up or concatenated, where some of that takes them.

    g (a + b) + s = (g a + s) + g b
    g (a, b) + s = (g1 a + s1, g2 b + s2)

`a` is made by weights, which take in gain and shift. Where `b` is, too, it takes in its own: the
two may not merge, as of other strides. If not, its pixels are multiplied, before they are repeated
if they are. Between the weights and the sum may be means, and maxima, which positive gains pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kerasfold.lift.commuted import is_maximum
from kerasfold.lift.pointwise import repeats_pixels
from kerasfold.lift.regions import Lifted, Regions, Rewritings, lift
from kerasfold.lift.scales import Run, along_channels, may_be_apart, runs_of
from kerasfold.lift.writing import Writer, rewritten
from kerasfold.read.graph import Call, Graph, Tensor, given_others, read_counts


def distributed(regions: Regions) -> Rewritings:
    """The same model with gains at what is added up or concatenated, where there are some."""
    moves = _Moves(regions).find()
    if moves:
        yield lift(_written(regions.graph, moves), regions)


class _Part(NamedTuple):
    """One of the tensors that are added up or concatenated.

    Attributes:
        gains: that it is multiplied by, of each call of the run.
        shift: that is added then.
        passed: the calls that this goes before, in order.
        weighed: whether it goes into weights there.
    """

    gains: Sequence[np.ndarray]
    shift: np.ndarray
    passed: Sequence[Call] = ()
    weighed: bool = False


class _Move(NamedTuple):
    """A sum or a concatenation, and the gains behind it.

    Attributes:
        run: the calls that multiply it, and shift it.
        parts: by the index of each tensor that it is made of.
    """

    run: Run
    parts: Mapping[int, _Part]


class _Moves:
    """What can be put elsewhere."""

    def __init__(self, regions: Regions) -> None:
        self.regions, self.nodes = regions, regions.program.nodes
        self.readers = read_counts(regions.graph)
        self.records = {x.call.index: x for x in regions.lifted.values()}
        self.makers = {x.index: call for call in regions.graph.calls for x in call.outputs}

    def find(self) -> dict[int, _Move]:
        """The moves, by the index of the sum or concatenation."""
        found: dict[int, _Move] = {}
        for run in runs_of(self.regions).values():
            total = self.makers.get(run.source.index)
            record = None if total is None else self.records.get(total.index)
            if total is None or record is None or not self._is_plain(run, total, record):
                continue
            match self.nodes[record.node].op:
                case "sum":
                    parts = self._summands(run, total)
                case "concatenate":
                    parts = self._pieces(run, total)
                case _:
                    continue
            if parts:
                found[total.index] = _Move(run, parts)
        return found

    def _is_plain(self, run: Run, total: Call, record: Lifted) -> bool:
        """Whether a call reads each of its tensors once, and gives the run all that it makes."""
        node, tensors = self.nodes[record.node], (*total.inputs, *total.outputs)
        return (
            record.activation is None
            and len(record.added) == 1
            and len({x.index for x in total.inputs}) == len(node.operands)
            and all(self.readers[x.index] == 1 for x in total.outputs)
            and not any(x.masked for x in (*tensors, *run.last.outputs))
            and len({x.dtype for x in (*tensors, *run.last.outputs)}) == 1
        )

    def _summands(self, run: Run, total: Call) -> dict[int, _Part]:
        """Of a sum: the gains go to each, and the shift to one that is made by weights."""
        if set(self.nodes[self.records[total.index].node].factors) != {1.0}:
            return {}
        gains, shift = [steps.gain for steps in run.each], run.steps.shift
        into = [x for x in total.inputs if self._is_weighed(x)]
        if not into or np.all(run.steps.gain == 1):
            return {}
        return {
            x.index: self._part(x, gains, shift if x is into[0] else np.zeros_like(shift))
            for x in total.inputs
        }

    def _pieces(self, run: Run, total: Call) -> dict[int, _Part]:
        """Of a concatenation: to each what its channels are given, where all goes into weights.

        What is made by weights without any call between takes it in as they are composed.
        """
        operands = self.nodes[self.records[total.index].node].operands
        ends = np.cumsum([self.nodes[o].channels for o in operands])[:-1]
        if not may_be_apart(run.steps, run.source.dtype):
            return {}
        gains = zip(*(np.split(steps.gain, ends) for steps in run.each), strict=True)
        pieces = zip(total.inputs, gains, np.split(run.steps.shift, ends), strict=True)
        parts = {x.index: self._part(x, own, shift) for x, own, shift in pieces}
        weighed = all(part.weighed for part in parts.values())
        return parts if weighed and not all(map(self._is_weighed, total.inputs)) else {}

    def _is_weighed(self, x: Tensor) -> bool:
        return self.readers[x.index] == 1 and self.regions.is_weighed(x)

    def _part(self, x: Tensor, gains: Sequence[np.ndarray], shift: np.ndarray) -> _Part:
        """What goes before the calls that make a tensor, where that is less, or into weights."""
        grows = all(np.all(gain > 0) for gain in gains)
        passed = self._passed(
            x, lambda call: self._averages(call) or (grows and is_maximum(self.regions, call))
        )
        if self._is_weighed(passed[0].inputs[0] if passed else x):
            return _Part(gains, shift, passed, weighed=True)
        return _Part(gains, shift, self._passed(x, repeats_pixels))

    def _averages(self, call: Call) -> bool:
        """Whether it repeats pixels, or gives means of them, to which padding adds no zeros."""
        record = self.records.get(call.index)
        if repeats_pixels(call) or record is None or record.activation is not None:
            return repeats_pixels(call)
        nodes = [self.nodes[i] for i in record.added]
        return all(n.mean and n.geometry is not None and n.geometry.steady for n in nodes)

    def _passed(self, x: Tensor, passes: Callable[[Call], bool]) -> list[Call]:
        """The calls of one tensor that make another, each read by the next alone."""
        found: list[Call] = []
        while self.readers[x.index] == 1 and x.index in self.makers:
            maker = self.makers[x.index]
            if len(maker.inputs) != 1 or not passes(maker):
                break
            found.insert(0, maker)
            (x,) = maker.inputs
        return found


def _written(graph: Graph, moves: Mapping[int, _Move]) -> Graph:
    """The graph with gains in their new places."""
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
    """What stands in the place of a tensor that is added up or concatenated."""
    part = move.parts[x.index]
    y = part.passed[0].inputs[0] if part.passed else x
    for call, gain in zip(move.run.calls, part.gains, strict=True):
        y = writer.called(call.name, lambda x: x * 1.0, y, along_channels(gain, y, graph.layout))
    if np.any(part.shift):
        shifts = along_channels(part.shift, y, graph.layout)
        y = writer.shifted(f"{move.run.last.name}_shift", y, shifts)
    for call in part.passed:
        (read,), (made,) = call.inputs, call.outputs
        y = writer.again(call, {read.index: y}, made.shape, once=False)
    return y

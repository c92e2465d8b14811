"""A graph in which calls stand where they cost less, before others that they stood behind.

Nine laws, of a call `f` and of calls `g` behind it that nothing else reads in between:

- `g(max(x)) = max(g(x))` where `g` multiplies channels by positive numbers, and shifts them: it
  merges into the affine steps that the pool reads.
- `g(max(x, y)) = max(g(x), g(y))`, or of minima, where it does so, and `x` and `y` are affine: it
  merges into what makes each of them.
- `g(f(x)) = f(g(x))` where `f` repeats pixels or vectors, and `g` works on each of them by itself:
  it works on fewer.
- `g(f(x)) = f(g(x))` where `f` puts samples elsewhere, and `g` works on each of them by itself:
  `f` merges into what reads it, or meets its inverse.
- `max(f(x)) = f(max(x))` where `f` is monotone, sample by sample: it works on fewer.
- `g(f(x, ...)) = f(g(x), ...)` where `f` puts whole pixels elsewhere, those of several images among
  each other, and `g` is affine, and the same for each pixel: it merges into what makes `x`.
- `mean(f(x)) = f(mean(x))` where `f` is affine on each pixel by itself: it merges into what reads
  the means.
- `max(g(x)) = g(max(x))` where `g` multiplies channels by positive numbers, and shifts them: it
  merges into what reads the maxima, or works on fewer.
- `g(f(x)) = f(g(x))` where one reshapes images, the batch among their axes, and leaves the channels
  alone, as where steps are images, and the other is a BatchNormalization of the channels: it merges
  into what makes `x`, or reads them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from keras import layers, ops

from kerasfold.lift.activations import acts_on_samples, laws_of
from kerasfold.lift.demand import pixel_axes
from kerasfold.lift.layer_rules import IDLE
from kerasfold.lift.pointwise import (
    PERMUTING,
    gives_maxima_of_pixels,
    places_pixels,
    repeats_pixels,
    repeats_vectors,
    reshapes_pixels,
    works_by_pixel,
    works_by_sample,
)
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Lifted, Regions, Rewritings, lift
from kerasfold.lift.writing import Shape, Writer, rewritten
from kerasfold.read.graph import Call, Graph, Tensor, given_others, read_counts

_IMAGES = (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D, ops.max_pool)
_EXTREMES = (layers.Maximum, layers.Minimum, ops.maximum, ops.minimum)
_MEANS = (layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D)
_VECTORS = (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)


def commuted(regions: Regions) -> Rewritings:
    """The same model with calls moved, where there are some to move."""
    moves, taken = _moves(regions), list[_Move]()
    together = [move for move in moves if not move.law.singly]
    for tried in (together, *([move] for move in moves if move.law.singly)):
        if tried and (yield lift(_moved(regions.graph, [*taken, *tried]), regions)):
            taken += tried


def is_extreme(regions: Regions, call: Call) -> bool:
    """Whether a call gives the greatest, or the least, of tensors that affine steps make."""
    return (
        call.kind in _EXTREMES
        and len({x.shape for x in (*call.inputs, *call.outputs)}) == 1 < len(call.inputs)
        and all(x is None for x in call.constants)
        and all(x.index in regions.tensors for x in call.inputs)
    )


def is_maximum(regions: Regions, call: Call) -> bool:
    """Whether a call gives maxima of pixels, that affine steps make, each channel by itself."""
    first = regions.graph.layout == "channels_first"  # where vectors count axes otherwise
    if call.inputs[0].index not in regions.tensors:
        return False
    if call.kind in _IMAGES or first:
        return call.kind in _IMAGES
    axes = pixel_axes(regions.graph, call.inputs[0])
    return call.kind in _VECTORS or gives_maxima_of_pixels(call, axes)


class _Steps:
    """What calls of one tensor do."""

    def __init__(self, regions: Regions) -> None:
        self.regions = regions
        self.records: dict[int, Lifted] = {x.call.index: x for x in regions.lifted.values()}
        self.idle = {x.call.index for x in regions.identities if x.call.kind in IDLE}
        self.reading: dict[int, list[Node]] = defaultdict(list)  # by node
        for node in regions.program.nodes:
            for operand in node.operands:
                self.reading[operand].append(node)

    def nodes(self, call: Call, activated: bool = False) -> list[Node]:
        """The nodes of a lifted call, if it is affine or may be activated, sample by sample."""
        record = self.records.get(call.index)
        acts = record is not None and record.activation is not None
        if record is None or (acts and not (activated and acts_on_samples(record.activation))):
            return []
        return [self.regions.program.nodes[i] for i in record.added]

    def is_maximum(self, call: Call) -> bool:
        """Whether it gives maxima, of affine steps."""
        return is_maximum(self.regions, call)

    def is_extreme(self, call: Call) -> bool:
        """Whether it gives the greatest, or the least, of tensors that affine steps make."""
        return is_extreme(self.regions, call)

    def rises(self, call: Call) -> bool:
        """Whether it acts on samples, is monotone, and is none that runtimes fuse with weights."""
        laws = laws_of(call.operation)
        return (
            call.index in self.regions.barriers
            and works_by_sample(call)
            and laws.monotone
            and not self.regions.is_weighed(call.inputs[0])
        )

    def takes_maxima(self, call: Call) -> bool:
        """Whether it gives the maxima of windows."""
        return call.kind in _IMAGES

    def mixes(self, call: Call) -> bool:
        """Whether it multiplies the channels of each pixel by weights, or shifts them."""
        works = {node.work for node in self.nodes(call)}
        return self.maps_pixels(call) and bool(works) and "copy" not in works

    def takes_means(self, call: Call) -> bool:
        """Whether it gives the means of windows to what multiplies them by weights."""
        left = self.nodes(call)[-1:] if call.kind in _MEANS else []
        behind: dict[int, Node] = {}
        while left:
            new = [node for node in self.reading[left.pop().index] if node.index not in behind]
            behind |= {node.index: node for node in new}
            left += new
        return any(node.multiplies for node in behind.values())

    def grows(self, call: Call) -> bool:
        """Whether it multiplies channels by positive numbers, and shifts them."""
        nodes = self.nodes(call)
        return bool(nodes) and all(
            n.op == "operator"
            and n.work in ("scale", "shift")
            and n.load is not None
            and np.all(n.load().kernel > 0)
            for n in nodes
        )

    def repeats(self, call: Call) -> bool:
        """Whether it repeats pixels."""
        return repeats_pixels(call)

    def repeats_vectors(self, call: Call) -> bool:
        """Whether it makes sequences of vectors, each of one."""
        return repeats_vectors(call) and self.regions.graph.layout != "channels_first"

    def works_on_vectors(self, call: Call) -> bool:
        """Whether it works on each vector by itself, be it of a sequence or not."""
        dense = call.kind is layers.Dense and bool(self.nodes(call, activated=True))
        return dense or self.normalises(call) or works_by_sample(call)

    def places_pixels(self, call: Call) -> bool:
        """Whether it puts whole pixels elsewhere, and some that affine steps make."""
        made = any(x.index in self.regions.tensors for x in call.inputs)
        return made and places_pixels(call, pixel_axes(self.regions.graph, call.outputs[0]))

    def permutes_pixels(self, call: Call) -> bool:
        """Whether it permutes axes of pixels that affine steps make."""
        return call.kind in PERMUTING and self.places_pixels(call)

    def maps_pixels(self, call: Call) -> bool:
        """Whether it is affine, and the same for each pixel by itself."""
        nodes = self.nodes(call, activated=True)
        return bool(nodes) and all(
            n.op == "operator" and n.geometry is not None and n.geometry.is_pointwise for n in nodes
        )

    def works_by_pixel(self, call: Call) -> bool:
        """Whether it works on each pixel by itself."""
        if self.nodes(call, activated=True):
            return self.maps_pixels(call)
        return works_by_pixel(call, pixel_axes(self.regions.graph, call.outputs[0]))

    def rearranges(self, call: Call) -> bool:
        """Whether it puts samples elsewhere, each once."""
        nodes, all_nodes = self.nodes(call), self.regions.program.nodes
        return bool(nodes) and all(
            n.op == "rearrange"
            or sorted(n.selected) == list(range(all_nodes[n.operands[0]].channels))
            for n in nodes
        )

    def reshapes(self, call: Call) -> bool:
        """Whether it reshapes all but the channels, the batch among them."""
        barred = call.kind is ops.reshape and call.index in self.regions.barriers
        return barred and self.regions.graph.layout != "channels_first" and reshapes_pixels(call)

    def reshapes_weighed(self, call: Call) -> bool:
        """Whether it does that to pixels that weights make."""
        return self.reshapes(call) and self.regions.is_weighed(call.inputs[0])

    def normalises(self, call: Call) -> bool:
        """Whether it is the one call of a BatchNormalization of the last axis."""
        once = _normalises_last(call) and self.regions.uses[id(call.operation)] == 1
        return once and bool(self.nodes(call)) and self.maps_pixels(call)

    def works_by_sample(self, call: Call) -> bool:
        """Whether it works on each sample by itself."""
        return works_by_sample(call)


@dataclass(frozen=True, slots=True)
class _Law:
    """Which calls others pass, and which these are.

    Attributes:
        leads: whether calls are of those that others pass.
        passes: whether they are of those that pass.
        channels: whether those that change no pixels may change the channels.
        shrinks: whether it is those that pass that change the pixels, and not those that lead.
        joins: whether those that lead may read several tensors: others pass on each of them.
        singly: whether each move is tried by itself: what it gains, others may lose.
    """

    leads: Callable[[_Steps, Call], bool]
    passes: Callable[[_Steps, Call], bool]
    channels: bool = False
    shrinks: bool = False
    joins: bool = False
    singly: bool = False


_LAWS = (
    _Law(_Steps.is_maximum, _Steps.grows),
    _Law(_Steps.is_extreme, _Steps.grows, joins=True, singly=True),
    _Law(_Steps.repeats, _Steps.works_by_pixel, channels=True),
    _Law(_Steps.repeats_vectors, _Steps.works_on_vectors, channels=True),
    _Law(_Steps.permutes_pixels, _Steps.works_by_pixel, channels=True, singly=True),
    _Law(_Steps.rearranges, _Steps.works_by_sample),
    _Law(_Steps.rises, _Steps.takes_maxima, shrinks=True),
    _Law(_Steps.places_pixels, _Steps.maps_pixels, channels=True, joins=True),
    _Law(_Steps.mixes, _Steps.takes_means, channels=True, shrinks=True, singly=True),
    _Law(_Steps.grows, _Steps.is_maximum, shrinks=True, singly=True),
    _Law(_Steps.reshapes_weighed, _Steps.normalises, singly=True),
    _Law(_Steps.normalises, _Steps.reshapes, shrinks=True, singly=True),
)


@dataclass(slots=True)
class _Move:
    """Calls one after another that change places: those of `behind` come first."""

    law: _Law
    ahead: list[Call]
    behind: list[Call] = field(default_factory=list)


def _moves(regions: Regions) -> list[_Move]:
    """The calls that can change places, as far as each can."""
    graph, steps = regions.graph, _Steps(regions)
    readers = read_counts(graph)
    last: dict[int, list[_Move]] = {}  # by the tensor that their last calls make
    found: list[_Move] = []
    for call in graph.calls:
        if not call.inputs or len(call.outputs) > 1:
            continue
        (read, *others), (output,) = call.inputs, call.outputs
        if any(x.masked for x in (read, *others, output)):
            continue
        moves = last.get(read.index, []) if readers[read.index] == 1 and not others else []
        passed = (x for x in moves if _may_stand(call, x) and x.law.passes(steps, call))
        move = next(passed, None)
        if move is not None:
            move.behind.append(call)
            last[output.index] = [move]
            continue
        ahead = {move.law: move.ahead for move in moves if not move.behind}
        led = [x for x in _LAWS if (x.joins or not others) and x.leads(steps, call)]
        if call.index in steps.idle:  # goes along
            led += [law for law in ahead if law not in led]
        last[output.index] = [_Move(law, [*ahead.get(law, ()), call]) for law in led]
        found += last[output.index]
    return [move for move in found if move.behind]


def _may_stand(call: Call, move: _Move) -> bool:
    """Whether a call may read what the first of a move does: of its dtype, maybe of other axes."""
    (read, *_), (output,), (first, *_) = call.inputs, call.outputs, move.ahead[0].inputs
    axis = getattr(call.operation, "axis", None)
    from_last = axis is None or bool(np.all(np.less(axis, 0)))
    given = {x.dtype for ahead in move.ahead for x in ahead.inputs}
    casts = bool(move.behind) or getattr(call.operation, "autocast", False)  # what it is given
    same = read.dtype == output.dtype and (casts or given == {read.dtype})
    if len(output.shape) < len(read.shape) and not all(map(_normalises_last, move.ahead)):
        return False  # a constant of more axes would stretch it
    return same and (from_last or len(read.shape) == len(first.shape))


def _normalises_last(call: Call) -> bool:
    return call.kind is layers.BatchNormalization and call.operation.axis == -1


def _moved(graph: Graph, moves: Sequence[_Move]) -> Graph:
    """The graph with calls in their new places."""
    first = {move.ahead[0].index: move for move in moves}
    others = {call.index for move in moves for call in (*move.ahead[1:], *move.behind)}
    axis = 1 if graph.layout == "channels_first" else -1
    now: dict[int, Tensor] = {}  # what stands for a tensor
    writer = Writer(graph)
    for given in graph.calls:
        if given.index in others:
            continue
        move = first.get(given.index)
        if move is None:
            writer.calls.append(given_others(given, lambda x: now.get(x.index, x)))
        else:
            now[move.behind[-1].outputs[0].index] = _placed(writer, move, now, axis)
    return rewritten(graph, writer.calls, now)


def _placed(writer: Writer, move: _Move, now: Mapping[int, Tensor], axis: int) -> Tensor:
    """What calls make in their new places; `now` is what stands for the tensors that they read."""
    law, end = move.law, move.behind[-1].outputs[0]
    given = {x.index: now.get(x.index, x) for x in move.ahead[0].inputs}
    for step in move.behind:
        for index, x in given.items():
            like, other = (step.outputs[0], x) if law.shrinks else (x, step.outputs[0])
            shape = _shape(like, other, axis, law.channels)
            (read,) = step.inputs
            given[index] = writer.again(step, {read.index: x}, shape, once=len(given) == 1)
    for step in move.ahead:
        (x, *_), (output,) = given.values(), step.outputs
        like, other = (x, output) if law.shrinks else (output, end)
        made = writer.again(step, given, _shape(like, other, axis, law.channels))
        given = {step.outputs[0].index: made}
    return made


def _shape(like: Tensor, other: Tensor, axis: int, channels: bool) -> Shape:
    """The shape of a tensor; with the channels of another, where they may differ."""
    shape = list(like.shape)
    if channels:
        shape[axis] = other.shape[axis]
    return tuple(shape)

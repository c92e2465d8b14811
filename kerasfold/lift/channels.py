"""How channels go through calls: what each tensor must have, given what others do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np
from keras import layers, ops, tree

from kerasfold.algebra.product import Array
from kerasfold.algebra.response import channels_read, connections, reads_all
from kerasfold.layers.fewer import MIXING, can_have_fewer
from kerasfold.lift.activations import acts_on_samples
from kerasfold.lift.bounded import BY_CHANNEL, activated, after_call
from kerasfold.lift.demand import pixel_axes
from kerasfold.lift.pointwise import works_by_pixel
from kerasfold.lift.program import Node
from kerasfold.lift.ranges import Range, after
from kerasfold.lift.regions import Lifted, Regions
from kerasfold.lift.registry import RULES, is_own
from kerasfold.read.graph import Call, Graph, Tensor
from kerasfold.read.model import is_layer, is_of_keras

Ranges: TypeAlias = Mapping[int, Range]  # by tensor
Need: TypeAlias = dict[int, Array]  # by tensor, which channels must be there


def channels_of(graph: Graph, tensor: Tensor) -> int | None:
    """How many channels a tensor has, if it has any, and that is known."""
    axis = 1 if graph.layout == "channels_first" else -1
    return tensor.shape[axis] if len(tensor.shape) > 1 else None


class Known:
    """What is known of the tensors of a model.

    Attributes:
        ranges: of those that have channels, by their index.
        reads_all: whether every operator reads all channels of what it reads.
    """

    def __init__(self, regions: Regions) -> None:
        self.regions, self.graph = regions, regions.graph
        self.ranges: dict[int, Range] = {}
        self.reads_all = True
        self._nodes: dict[int, Range] = {}
        self.records: dict[int, list[Lifted]] = defaultdict(list)  # by call
        for record in (*regions.lifted.values(), *regions.identities):
            self.records[record.call.index].append(record)
        for tensor in tree.flatten(self.graph.inputs):
            self._learn(tensor, None)
        for call in self.graph.calls:
            if call.index in regions.barriers:
                self._barrier(call)
            for record in self.records[call.index]:
                self._lifted(record)

    def _learn(self, tensor: Tensor, found: Range | None) -> None:
        channels = channels_of(self.graph, tensor)
        if channels is None:
            return
        if found is None or tensor.masked:
            found = Range.unknown(max(len(tensor.shape) - 2, 0), channels)
        self.ranges[tensor.index] = found

    def _barrier(self, call: Call) -> None:
        found = None
        xs = [self.ranges[x.index] for x in call.inputs if x.index in self.ranges]
        if len(xs) == len(call.inputs) and len(call.outputs) == 1 and not call.training:
            rank = max(len(call.outputs[0].shape) - 2, 0)
            found = after_call(call, xs, rank, self.graph.layout)
        for tensor in call.outputs:
            self._learn(tensor, found)

    def _lifted(self, record: Lifted) -> None:
        for index in record.added:
            node = self.regions.program.nodes[index]
            if self.reads_all and node.op == "operator" and node.geometry is not None:
                self.reads_all = (
                    len({*node.selected}) == node.geometry.channels[0]
                    if node.selected
                    else reads_all(node.looked_at(), node.geometry.groups)
                )
            self._nodes[index] = after(node, [self._of(o) for o in node.operands])
        found = self._of(record.node)
        if record.activation is not None:
            found = activated(record.activation, found)
        self._learn(record.tensor, found)

    def _of(self, node: int) -> Range:
        root = self.regions.roots.get(node)
        return self._nodes[node] if root is None else self.ranges[root.index]


class Flow(Protocol):
    """How channels go through a call."""

    @property
    def call(self) -> Call:
        """The call."""

    def settle(self, need: Need, ranges: Ranges) -> None:
        """Let its tensors have what they need, given what others do."""


@dataclass(frozen=True, eq=False, slots=True)
class Opaque:
    """It may mix them in any way: all are read, and all are given."""

    call: Call

    def settle(self, need: Need, ranges: Ranges) -> None:
        """All."""
        for tensor in (*self.call.inputs, *self.call.outputs):
            if tensor.index in need:
                need[tensor.index][:] = True


@dataclass(frozen=True, eq=False)
class Mixed:
    """Each output is a weighted sum of inputs, maybe in groups.

    Attributes:
        call: the call.
        nodes: its steps, one after another.
        images: whether what it makes of constants may be an image.
        whole: whether its activation mixes outputs, so that all of them must be there.
    """

    call: Call
    nodes: Sequence[Node]
    images: bool
    whole: bool = False

    @property
    def is_dense(self) -> bool:
        """Whether it is one matrix for each tap: such a one composes with what selects channels."""
        (geometry, *rest) = (node.geometry for node in self.nodes)
        return geometry is not None and geometry.groups == 1 and not rest

    @cached_property
    def connected(self) -> list[tuple[int, Array]]:
        """The groups of each operator, and what it reads."""
        return [
            (node.geometry.groups, connections(node.looked_at()))
            for node in self.nodes
            if node.geometry is not None
        ]

    def settle(self, need: Need, ranges: Ranges) -> None:
        """What the outputs read."""
        (x,), (y,) = self.call.inputs, self.call.outputs
        reads, given = need[x.index], need[y.index]
        given |= self.whole
        read = given
        for groups, connected in reversed(self.connected):
            read = channels_read(connected, groups, read)
        known = ranges[x.index]
        reads |= read & ~known.fixed
        if not self.images:
            axes = tuple(range(known.rank))
            reads |= read & np.any(known.image != known.constants, axis=axes)
            if any(x.geometry is not None and not x.geometry.steady for x in self.nodes):
                reads |= read & (known.constants != 0)
        elif not self.is_dense and any(map(_pads_unknown, self.nodes)):
            reads |= read & (known.constants != 0)
        if len(self.nodes) == 1 and self.connected[0][0] > 1:
            _evened(reads, given, self.connected[0][0])
        if given.any() and not reads.any():
            reads[0] = True  # a layer reads something


def _pads_unknown(node: Node) -> bool:
    """Whether a node makes of what is the same all over an image, and of which size is unknown."""
    geometry = node.geometry
    assert geometry is not None
    return not geometry.steady and None in geometry.sizes


def _evened(reads: Array, given: Array, groups: int) -> None:
    """Of each group that is there, as many channels as of any other."""
    parts = [x.reshape(groups, -1) for x in (reads, given)]
    there = np.concatenate(parts, axis=1).any(axis=1)
    for part in parts:
        most = max(int(part.sum(axis=1).max()), 1)
        for group in np.flatnonzero(there):
            gone = np.flatnonzero(~part[group])
            part[group, gone[: most - int(part[group].sum())]] = True


@dataclass(frozen=True, eq=False, slots=True)
class Aligned:
    """Each output is made of the inputs' channel at its place, as are the next to it if several.

    Attributes:
        call: the call.
        adds: whether it adds its inputs up: one that is constant is none then.
        parts: whether it makes one pixel of many: what nobody needs of that may be left out behind
            it.
    """

    call: Call
    adds: bool
    parts: bool = False

    def terms(self, ranges: Ranges) -> list[Tensor]:
        """The inputs that are to have what the output has."""
        inputs, (output,) = list(self.call.inputs), self.call.outputs
        varied = [x for x in inputs if not ranges[x.index].fixed.all()]
        first = [x for x in inputs if x.index == inputs[0].index]  # as often as it is added
        terms = varied or first if self.adds else inputs
        casts = len(terms) == 1 and terms[0].dtype != output.dtype
        return inputs if casts else terms

    def settle(self, need: Need, ranges: Ranges) -> None:
        """What any of them needs; where one pixel is made of many, those may have more than it."""
        given = need[self.call.outputs[0].index]
        if self.parts:
            need[self.call.inputs[0].index] |= given
            return
        terms = [need[x.index] for x in self.terms(ranges)]
        together = np.logical_or.reduce([given.reshape(len(terms[0]), -1).any(axis=1), *terms])
        for term in terms:
            term[:] = together
        given[:] = np.repeat(together, len(given) // len(together))


@dataclass(frozen=True, eq=False, slots=True)
class Joined:
    """The channels of the inputs, one after another."""

    call: Call

    def settle(self, need: Need, ranges: Ranges) -> None:
        """What either of two that are one needs."""
        given, first = need[self.call.outputs[0].index], 0
        for tensor in self.call.inputs:
            part = need[tensor.index]
            both = part | given[first : first + len(part)]
            part[:] = given[first : first + len(part)] = both
            first += len(part)


@dataclass(frozen=True, eq=False, slots=True)
class Tiled:
    """The channels of several pixels, one pixel after another."""

    call: Call

    def settle(self, need: Need, ranges: Ranges) -> None:
        """What any pixel needs."""
        (x,), (y,) = self.call.inputs, self.call.outputs
        part, given = need[x.index], need[y.index]
        part |= given.reshape(-1, len(part)).any(axis=0)
        given.reshape(-1, len(part))[:] = part


def flows(known: Known, images: bool = True) -> list[Flow]:
    """How channels go through each call.

    Args:
        known: what is known of the model.
        images: whether constants that are no part of a bias are constants.
    """
    through = (_flow(known, call) for call in known.graph.calls)
    return [replace(x, images=images) if isinstance(x, Mixed) else x for x in through]


def _flow(known: Known, call: Call) -> Flow:
    tensors = (*call.inputs, *call.outputs)
    plain = (
        len(call.outputs) == 1
        and call.cut is None
        and not (call.training or call.closed)
        and all(x.index in known.ranges and not x.masked for x in tensors)
    )
    if not plain:
        return Opaque(call)
    if call.index in known.regions.barriers:
        return _barrier_flow(known, call)
    (record,) = known.records[call.index]
    if not is_own(RULES[call.rule]):
        return Opaque(call)
    flow = _affine_flow(known, call, [known.regions.program.nodes[i] for i in record.added])
    if acts_on_samples(record.activation):
        return flow
    return replace(flow, whole=True) if isinstance(flow, Mixed) else Opaque(call)


def _barrier_flow(known: Known, call: Call) -> Flow:
    (output,) = call.outputs
    counts = {channels_of(known.graph, x) for x in (*call.inputs, output)}
    joins = call.kind in (layers.Concatenate, ops.concatenate)
    last = known.graph.layout == "channels_last"
    slopes = call.kind is layers.PReLU and not (
        last and can_have_fewer(call.operation) and call.operation.alpha.shape[-1] in counts
    )
    by_channel = works_by_pixel(call, pixel_axes(known.graph, output)) and not (joins or slopes)
    if len(counts) == 1 and (by_channel or call.kind in BY_CHANNEL):
        return Aligned(call, adds=False, parts=_is_parted(known, call))
    return Opaque(call)


def _affine_flow(known: Known, call: Call, nodes: Sequence[Node]) -> Flow:
    operation, kinds = call.operation, {node.op for node in nodes}
    weighs = bool(getattr(operation, "weights", ()))
    if not is_of_keras(operation):
        return Opaque(call)
    if kinds == {"operator"} and len(call.inputs) == 1 and can_have_fewer(operation):
        if type(operation) in MIXING:
            return Mixed(call, nodes, images=True)
        by_channel = all(n.geometry is not None and n.geometry.is_depthwise for n in nodes)
        return Aligned(call, adds=False) if by_channel else Opaque(call)
    if weighs:
        return Opaque(call)
    if kinds == {"sum"}:
        return Aligned(call, adds=call.kind in (layers.Add, ops.add))
    if kinds == {"concatenate"} and len(nodes) == 1:
        return Joined(call)
    if len(nodes) == 1 and nodes[0].rearrangement is not None and nodes[0].op == "rearrange":
        return _reshaped_flow(known, call, nodes[0])
    alike = all(
        n.op == "operator"
        and n.geometry is not None
        and n.geometry.keeps_channels
        and (n.work in ("pool", "copy") or _is_of_numbers(call))
        for n in nodes
    )
    if not alike or len(call.inputs) > 1:
        return Opaque(call)
    return Aligned(call, adds=False, parts=_is_parted(known, call))


def _is_parted(known: Known, call: Call) -> bool:
    """Whether a call makes one pixel of many, some channels of which cost next to nothing."""
    (x, *others), (output,) = call.inputs, call.outputs
    many, one = ([t.shape[i] for i in pixel_axes(known.graph, t)] for t in (x, output))
    return not others and any(n != 1 for n in many) and all(n == 1 for n in one)


def _is_of_numbers(call: Call) -> bool:
    """Whether a call multiplies and shifts all channels by the same numbers."""
    if is_layer(call.operation):
        own = (getattr(call.operation, name, 0) for name in ("scale", "offset"))
        return type(call.operation) is layers.Rescaling and all(np.size(x) == 1 for x in own)
    return all(np.size(x) == 1 for x in call.constants if hasattr(x, "shape"))


def _reshaped_flow(known: Known, call: Call, node: Node) -> Flow:
    moved = node.rearrangement
    assert moved is not None
    *_, channels = moved.source
    made = moved.target[-1]
    tiles = (
        known.graph.layout == "channels_last"
        and call.kind in (layers.Flatten, layers.Reshape)
        and moved.keeps_order
        and channels is not None
        and made is not None
        and made % channels == 0
    )
    return Tiled(call) if tiles else Opaque(call)

"""A graph in which convolutions of one tensor are activated as one, before they are parted.

`f(x)` beside `f(y)` is `f` of x beside y, for an activation `f` that works on each sample by
itself: what a plan computes as one convolution has one activation too, and what puts the parts
side by side again finds them so. Of a PReLU each channel has a slope of its own, and those of one
beside those of another are one's again, if they are the same all over the image.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from keras import Operation, layers, ops, tree

from kerasfold.layers.fewer import can_have_fewer, with_fewer, with_slopes
from kerasfold.lift.activations import laws_of
from kerasfold.lift.numbering import content_of, frozen
from kerasfold.lift.pointwise import works_by_sample
from kerasfold.lift.regions import Lifted, Regions, Rewritings, lift
from kerasfold.lift.writing import Writer, in_order, rewritten
from kerasfold.read.anew import Together
from kerasfold.read.graph import Call, Graph, Tensor, given_others, read_counts
from kerasfold.read.weights import as_stored

Group: TypeAlias = tuple["Acting", ...]  # in the order of their channels

_CONCATENATING = (layers.Concatenate, ops.concatenate)


@dataclass(frozen=True, eq=False, slots=True)
class Acting:
    """A call that activates a tensor, which nothing else reads.

    Attributes:
        call: the call.
        read: what makes the tensor; the call itself, where the activation is in it.
        key: equal for those that may be one: of one activation, and of tensors that are alike.
    """

    call: Call
    read: Lifted
    key: Hashable

    @property
    def output(self) -> Tensor:
        """What it gives."""
        (output,) = self.call.outputs
        return output

    @property
    def is_inline(self) -> bool:
        """Whether the activation is in the call that makes what it is of."""
        return self.call is self.read.call


def abreast(
    regions: Regions, joined: Iterable[Sequence[int]], beside: Iterable[Sequence[int]]
) -> Rewritings:
    """The same model with activations that are one: of what is computed as one, and of others.

    Args:
        regions: the lifted model.
        joined: nodes that are computed as one, group by group.
        beside: nodes that a convolution reads side by side, group by group.
    """
    roots = regions.roots
    read = [[roots[node].index for node in nodes if node in roots] for nodes in beside]
    for find in (partial(_joined, joined=joined), partial(_concatenated, beside=read)):
        groups = list(_apart(find(regions)))
        if groups:
            other = lift(_Abreast(regions.graph, groups).run(), regions)
            if (yield other):
                regions = other


def _apart(groups: Iterable[Group]) -> Iterator[Group]:
    """The groups that have nothing in common with any before them."""
    taken: set[int] = set()
    for group in groups:
        nodes = {x.read.node for x in group}
        if not nodes & taken:
            taken |= nodes
            yield group


def _acting(regions: Regions) -> Iterator[Acting]:
    """The activations that work on each sample by itself, and can do so elsewhere."""
    graph, readers = regions.graph, read_counts(regions.graph)
    returned = {x.index for x in tree.flatten(graph.outputs)}
    for call in graph.calls:
        slopes = _has_slopes(regions, call)
        if call.index in regions.barriers and (slopes or works_by_sample(call)):
            (read,) = call.inputs
            record = regions.lifted.get(regions.tensors.get(read.index, -1))
            # Outputs of one layer have its name in common, which no others can have.
            shared = regions.uses[id(call.operation)] > 1 and call.outputs[0].index in returned
            alone = readers[read.index] == 1 and not shared
            if alone and record is not None and record.tensor.index == read.index:
                law = layers.PReLU if slopes else law_of(call.operation), frozen(call.constants)
                yield Acting(call, record, (law, *_like(graph, call)))
    for record in regions.lifted.values():
        operation, activation = record.call.operation, record.activation
        if (
            activation is not None
            and laws_of(activation).pointwise
            and regions.uses[id(operation)] == 1
            and can_have_fewer(operation)
        ):
            law = law_of(activation), frozen(())
            yield Acting(record.call, record, (law, *_like(graph, record.call)))


def _has_slopes(regions: Regions, call: Call) -> bool:
    """Whether a call is of a PReLU, of one slope for each channel, that is called once."""
    if call.kind is not layers.PReLU or call.training or not can_have_fewer(call.operation):
        return False
    axis = _channel_axis(regions.graph, call.inputs[0]) - 1
    elsewhere = (n for i, n in enumerate(call.operation.alpha.shape) if i != axis)
    return regions.uses[id(call.operation)] == 1 and all(n == 1 for n in elsewhere)


def law_of(activation: Any) -> Hashable:
    """Equal for activations that are one function of each sample."""
    if type(activation) is layers.Activation:
        return law_of(activation.activation)
    return content_of(activation) if isinstance(activation, Operation) else activation


def _like(graph: Graph, call: Call) -> tuple[Hashable, ...]:
    """What must be equal of the tensors of calls that are one; nothing is equal to a mask."""
    shapes = []
    for x in (*call.inputs, *call.outputs):
        axis = _channel_axis(graph, x)
        own = object() if x.masked else x.dtype
        shapes.append((x.shape[:axis], x.shape[axis + 1 :], own))
    return tuple(shapes)


def _channel_axis(graph: Graph, tensor: Tensor) -> int:
    return 1 if graph.layout == "channels_first" else len(tensor.shape) - 1


def _joined(regions: Regions, joined: Iterable[Sequence[int]]) -> Iterator[Group]:
    """Of nodes that are computed as one, those that have one activation."""
    acting = {x.read.node: x for x in _acting(regions)}
    for nodes in joined:
        found: dict[Hashable, list[Acting]] = defaultdict(list)
        for one in (acting[i] for i in nodes if i in acting):
            found[one.key].append(one)
        yield from (tuple(group) for group in found.values() if len(group) > 1)


def _concatenated(regions: Regions, beside: Iterable[Sequence[int]]) -> Iterator[Group]:
    """Convolutions of one tensor, alike, whose activations are read side by side alone.

    By a concatenation, or of `beside`, tensor by tensor.
    """
    graph, readers = regions.graph, read_counts(regions.graph)
    made = {x.output.index: x for x in _acting(regions) if readers[x.output.index] == 1}

    def kind(one: Acting | None) -> Hashable:
        source = None if one is None else _source(regions, one.read.node)
        return None if source is None or one is None else (one.key, source)

    stacked = ([x.index for x in call.inputs] for call in graph.calls if _concatenates(graph, call))
    for tensors in itertools.chain(stacked, beside):
        for key, run in itertools.groupby(map(made.get, tensors), kind):
            group = tuple(x for x in run if x is not None)
            if key is not None and len(group) > 1:
                yield group


def _concatenates(graph: Graph, call: Call) -> bool:
    """Whether a call puts channels side by side, as they are."""
    (output, *_) = call.outputs
    if call.kind not in (layers.Concatenate, ops.concatenate):
        return False
    if any(x.dtype != output.dtype for x in call.inputs):
        return False
    return call.operation.axis % len(output.shape) == _channel_axis(graph, output)


def _source(regions: Regions, index: int) -> Hashable:
    """What a convolution, scaled and shifted, reads, and by which windows; None of all else.

    Which channels of it are read makes no difference.
    """
    nodes = regions.program.nodes
    node = nodes[index]
    while node.work in ("scale", "shift"):
        node = nodes[node.operands[0]]
    if not node.multiplies or node.geometry is None or node.geometry.groups > 1:
        return None
    (read,) = node.operands
    while nodes[read].selected:
        (read,) = nodes[read].operands
    return read, node.geometry.axes, node.geometry.vector


class _Abreast:
    """Writes the calls anew, with one activation for each group."""

    def __init__(self, graph: Graph, groups: Sequence[Group]) -> None:
        self.graph, self.writer, self.groups = graph, Writer(graph), groups
        self.inline = {x.call.index for group in groups for x in group if x.is_inline}
        self.whole: dict[int, tuple[list[int], Tensor]] = {}  # by the first of its parts, these
        self.now: dict[int, Tensor] = {}  # what stands for a tensor
        self.done: dict[int, Together] = {}  # by what is whole, the calls that it is instead of

    def run(self) -> Graph:
        calls = self.writer.calls
        for group in self.groups:
            self._activate(group)
        apart = {x.call.index for group in self.groups for x in group} - self.inline
        for given in self.graph.calls:
            call = given_others(given, lambda x: self.now.get(x.index, x))
            if given.index in self.inline:
                calls.append(_linear(self.graph, call))
            elif _concatenates(self.graph, call):
                self._put(call)
            elif given.index not in apart:
                calls.append(call)
        together = [one for one in self.done.values() if one.names]
        return rewritten(self.graph, in_order(calls), self.now, together)

    def _activate(self, group: Group) -> None:
        """One activation of convolutions side by side, and its parts."""
        first, *_ = group
        axis = _channel_axis(self.graph, first.output)
        stack = layers.Concatenate(axis, dtype=first.read.tensor.dtype)
        read = [x.read.tensor for x in group]
        x = self.writer.called(f"{first.read.call.name}_joined", lambda *xs: stack(xs), read)
        whole = self.writer.tensor(x.shape, first.output.dtype)
        call = _acting_as_one(group, x, axis)
        name = f"{first.call.name}_joined{'_activation' * first.is_inline}"
        self.writer.calls.append(replace(call, name=name, outputs=(whole,)))
        ends = itertools.accumulate((one.output.shape[axis] or 0 for one in group), initial=0)
        parts = []
        for one, (start, stop) in zip(group, itertools.pairwise(ends), strict=True):
            key = tuple(
                slice(start, stop) if i == axis else slice(None) for i in range(len(x.shape))
            )
            part = self.writer.called(f"{one.call.name}_part", itemgetter(key), whole, key)
            self.now[one.output.index] = part
            parts.append(part.index)
        self.whole[parts[0]] = parts, whole
        acts = tuple(one.call.name for one in group if not one.is_inline)
        self.done[whole.index] = Together(name, type(call.operation).__name__, acts)

    def _put(self, call: Call) -> None:
        """Tensors side by side: parts of one as that, where they are all of it."""
        found, left = list[Tensor](), list(call.inputs)
        while left:
            parts, whole = self.whole.get(left[0].index, ([], left[0]))
            if parts != [x.index for x in left[: len(parts)]]:
                parts, whole = [], left[0]
            found.append(whole)
            del left[: len(parts) or 1]
        if len(found) > 1:
            self.writer.calls.append(replace(call, args=(found,), kwargs={}))
            return
        (self.now[call.outputs[0].index],) = found
        done = self.done[found[0].index]
        self.done[found[0].index] = done._replace(names=(*done.names, call.name))


def _acting_as_one(group: Group, x: Tensor, axis: int) -> Call:
    """The activation of calls, of what they activate side by side along an axis."""
    one, *_ = group
    if not one.is_inline:
        call = given_others(one.call, lambda _: x)
        slopes = call.kind is layers.PReLU
        return replace(call, operation=_beside(group, x, axis)) if slopes else call
    operation = one.read.activation
    if not isinstance(operation, Operation):
        operation = layers.Activation(operation, dtype=one.call.operation.dtype_policy)
    return Call(0, operation, operation.name, (x,), {}, (), None)


def _beside(group: Group, x: Tensor, axis: int) -> layers.PReLU:
    """A PReLU of the slopes of several, along an axis."""
    alphas = []
    for one in group:
        alpha = as_stored(one.call.operation.alpha)
        shape = [1] * alpha.ndim
        shape[axis - 1] = one.output.shape[axis] or 1
        alphas.append(np.broadcast_to(alpha, shape))
    return with_slopes(group[0].call.operation, np.concatenate(alphas, axis - 1))


def _linear(graph: Graph, call: Call) -> Call:
    """A call without the activation that is in its layer."""
    reads, gives = (
        np.arange(x.shape[_channel_axis(graph, x)] or 0) for x in (*call.inputs, *call.outputs)
    )
    return replace(call, operation=with_fewer(call.operation, reads, gives, linear=True))

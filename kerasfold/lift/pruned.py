"""A graph whose calls compute the channels that are read and not constant, and hardly any others.

A tensor is what is made of it now, its other channels being zeros, plus a constant image. What is
affine takes that image along; before any other call what is left of it is added to channels that
are there, and merges into the bias before. A constant before zero padding is added where it is,
for the planner to compose: borders are as they were.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops, tree

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.product import Array
from kerasfold.algebra.response import response
from kerasfold.backend import unfilled
from kerasfold.layers.fewer import can_have_fewer, with_fewer
from kerasfold.lift.channels import Aligned, Flow, Joined, Known, Mixed, Need, Tiled, flows
from kerasfold.lift.need import needed
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Regions, Rewritings, lift
from kerasfold.read.anew import Left
from kerasfold.read.graph import Call, Graph, Tensor, calls_read, given_others
from kerasfold.read.model import made_by
from kerasfold.read.weights import Constant


def pruned(regions: Regions, multiple: int = 1, least: float = 0.0) -> Rewritings:
    """The same model without channels that nobody reads, or that are constant.

    With all of those, and else with those alone that are part of a bias; with the same calls where
    all stay, of which it is said why. Nothing where there are none.

    Args:
        regions: the lifted model.
        multiple: see `needed`.
        least: see `needed`.
    """
    known = Known(regions)
    if known.reads_all and not any(x.fixed.any() for x in known.ranges.values()):
        return
    tried: Need = {}
    for images in (True, False):
        through = flows(known, images)
        need = needed(known, through, multiple, least)
        if tried and all(np.array_equal(there, tried[i]) for i, there in need.items()):
            return
        tried = need
        pruning = _Pruning(known, need)
        if all(there.all() for there in need.values()):
            left = tuple(pruning.left(through))
            if left:
                yield replace(regions, graph=replace(regions.graph, left=left))
            return
        if (yield lift(pruning.run(through), regions)):
            return


@dataclass(frozen=True, eq=False, slots=True)
class _Had:
    """What there is of a tensor.

    Attributes:
        tensor: its channels that are there; None if there are none.
        there: which these are, (channels,).
        offset: what is to be added to all of them: an image that is known, or None for zeros.
    """

    tensor: Tensor | None
    there: Array
    offset: Array | None = None


class _Pruning:
    """Writes the calls anew, in order; a tensor of which less is made keeps its number."""

    def __init__(self, known: Known, need: Need) -> None:
        self.known, self.need, self.graph = known, need, known.graph
        self.regions, self.nodes = known.regions, known.regions.program.nodes
        self.roots = self.regions.root_nodes()
        self.first = self.graph.layout == "channels_first"
        self.calls: list[Call] = []
        tensors = [x for call in self.graph.calls for x in (*call.inputs, *call.outputs)]
        self.numbers = itertools.count(1 + max(x.index for x in tensors))
        self.names = {x.index: call.name for call in self.graph.calls for x in call.outputs}
        self.had: dict[int, _Had] = {}
        self.added: dict[int, Tensor] = {}  # by tensor: what is there, with what is to be added
        self.returned = {x.index for x in tree.flatten(self.graph.outputs) if isinstance(x, Tensor)}
        self.wide: dict[int, Tensor] = {}  # by tensor: all of it
        self.made: dict[Any, keras.Layer] = {}

    def run(self, through: Sequence[Flow]) -> Graph:
        for tensor in tree.flatten(self.graph.inputs):
            self._have(tensor, tensor)
        for call, flow in zip(self.graph.calls, through, strict=True):
            self._write(call, flow)
        outputs = tree.map_structure(
            lambda x: self._plain(x) if isinstance(x, Tensor) else x, self.graph.outputs
        )
        read = [x for x in tree.flatten(outputs) if isinstance(x, Tensor)]
        calls = calls_read(self.calls, read)
        return replace(
            self.graph,
            calls=calls,
            outputs=outputs,
            original=self.graph.original or self.graph,
            left=tuple(self.left(through)),
            dropped=tuple(self._dropped(calls)),
        )

    def _have(self, old: Tensor, new: Tensor | None, offset: Array | None = None) -> None:
        there = self.need.get(old.index, np.ones(1, bool))
        self.had[old.index] = _Had(new, there, _of(offset, np.ones_like(there)))

    def _write(self, call: Call, flow: Flow) -> None:
        affine = call.index not in self.regions.barriers
        match flow:
            case Mixed() | Aligned() | Joined() | Tiled():
                (output,) = call.outputs
                if not self.need[output.index].any():
                    self._have(output, None, self._image(output))
                elif affine:
                    self._affine(call, flow)
                else:
                    reads = self.had[call.inputs[0].index].there
                    new = self._with_operation(call, flow, self._plain, reads)
                    self._have(output, self._made(new, flow), self._image(output))
            case _:
                self.calls.append(given_others(call, self._plain))
                for output in call.outputs:
                    self._have(output, output)

    def _image(self, tensor: Tensor, offset: Array | None = None) -> Array:
        """The constants of channels that are gone, and what is to be added to others."""
        there = self.need[tensor.index]
        return np.where(
            there, 0.0 if offset is None else offset, self.known.ranges[tensor.index].image
        )

    def _affine(self, call: Call, flow: Flow) -> None:
        (output,) = call.outputs
        (record,) = self.known.records[call.index]
        had = self.had[call.inputs[0].index]
        idle = not (record.added or record.activation) and np.array_equal(
            had.there, self.need[output.index]
        )
        if idle and not had.there.all():  # and may say how many there were
            self.had[output.index] = had
            return
        offsets = {x.index: self.had[x.index].offset for x in call.inputs}
        given: Callable[[Tensor], Tensor] = self._there
        reads = had.there
        if isinstance(flow, Aligned) and flow.adds:
            terms = {x.index for x in flow.terms(self.known.ranges)}
            offsets |= {
                x.index: self.known.ranges[x.index].image
                for x in call.inputs
                if x.index not in terms
            }
        elif isinstance(flow, Aligned):  # of those that are gone it makes what is gone
            offsets = {i: _of(x, self.had[i].there) for i, x in offsets.items()}
        is_dense = isinstance(flow, Mixed) and flow.is_dense
        border = isinstance(flow, Mixed) and not is_dense
        try:
            offset = self._offset(call, record.added, offsets, border)
        except Refused:
            offset, given = None, self._wide if is_dense else self._plain
            reads = np.ones_like(reads) if is_dense else reads
        activation = record.activation
        there = self.need[output.index]
        pending = _of(offset, there)
        linear = activation is not None and pending is not None
        new = self._with_operation(call, flow, given, reads, linear)
        if activation is None:
            self._have(output, self._made(new, flow), self._image(output, offset))
            return
        if pending is not None:
            before = replace(new.outputs[0], index=next(self.numbers))
            self.calls.append(replace(new, outputs=(before,)))
            shifted = self._shifted(before, pending[..., there], call.name)
            policy = call.operation.dtype_policy
            layer = layers.Activation(activation, name=f"{call.name}_activation", dtype=policy)
            new = replace(new, operation=layer, name=layer.name, args=(shifted,), kwargs={})
        self._have(output, self._made(new, flow), self._image(output))

    def _offset(
        self,
        call: Call,
        added: Sequence[int],
        offsets: Mapping[int, Array | None],
        border: bool,
    ) -> Array | None:
        """What the steps of an affine call make of what is to be added.

        Args:
            call: the call.
            added: its steps.
            offsets: by tensor that it reads.
            border: whether they may make an image of what is the same all over.

        Raises:
            Refused: they do, and may not, or at an unknown size.
        """
        if all(x is None for x in offsets.values()):
            return None
        found: dict[int, Array] = {}
        for tensor in call.inputs:
            given = offsets.get(tensor.index)
            rank, channels = self.known.ranges[tensor.index].rank, len(self.need[tensor.index])
            image = np.zeros((1,) * rank + (channels,)) if given is None else given
            found |= dict.fromkeys(self.roots[tensor.index], image)
            if tensor.index in self.regions.tensors:
                found[self.regions.tensors[tensor.index]] = image
        for index in added:
            node = self.nodes[index]
            found[index] = _applied(node, [found[o] for o in node.operands])
        (record,) = self.known.records[call.index]
        made = found[record.node]
        if not (border or _is_even(made)) and all(map(_is_even, offsets.values())):
            raise Refused("a constant before zero padding, which is better added before that")
        return made

    def _with_operation(
        self,
        call: Call,
        flow: Flow,
        given: Callable[[Tensor], Tensor],
        reads: Array,
        linear: bool = False,
    ) -> Call:
        """A call that makes what there is to be of its output."""
        (output,) = call.outputs
        there = self.need[output.index]
        new = replace(call, outputs=(self._less(output, there),))
        if isinstance(flow, Joined) or (isinstance(flow, Aligned) and flow.adds):
            wanted = call.inputs
            if isinstance(flow, Aligned):
                wanted = tuple(flow.terms(self.known.ranges))
            parts = [given(x) for x in wanted if self.need[x.index].any()]
            return replace(
                new, args=(parts,) if call.kind is not ops.add else tuple(parts), kwargs={}
            )
        new = given_others(new, given)
        operation = call.operation
        if isinstance(flow, Tiled) and call.kind is layers.Reshape:
            target = [-1 if n is None else n for n in new.outputs[0].shape[1:]]
            operation = layers.Reshape(target, name=operation.name, dtype=operation.dtype_policy)
        elif can_have_fewer(operation) and not (reads.all() and there.all() and not linear):
            numbers = np.flatnonzero(reads), np.flatnonzero(there)
            key = (id(operation), *(x.tobytes() for x in numbers), linear)
            if key not in self.made:
                self.made[key] = with_fewer(operation, *numbers, linear)
            operation = self.made[key]
        return replace(new, operation=operation)

    def _made(self, new: Call, flow: Flow) -> Tensor:
        """The output of a call that makes less; of a sum of one term, that."""
        if isinstance(flow, Aligned) and flow.adds and len(new.inputs) == 1:
            return new.inputs[0]
        (output,) = flow.call.outputs
        there = self.need[output.index]
        parts = isinstance(flow, Aligned) and flow.parts
        given = self.had[flow.call.inputs[0].index].there if parts else there
        made = self._less(output, given)
        self.calls.append(replace(new, outputs=(made,)))
        return made if np.array_equal(given, there) else self._parted(made, there[given], new.name)

    def _less(self, output: Tensor, there: Array) -> Tensor:
        """A tensor of some of its channels."""
        shape = list(output.shape)
        shape[1 if self.first else -1] = int(there.sum())
        return replace(output, shape=tuple(shape))

    def _parted(self, x: Tensor, there: Array, name: str) -> Tensor:
        """Some channels of a tensor."""
        chosen, axis = np.flatnonzero(there), 1 if self.first else len(x.shape) - 1
        operation = made_by(ops.take(keras.KerasTensor(x.shape, x.dtype), chosen, axis=axis))
        made = replace(self._less(x, there), index=next(self.numbers))
        self.calls.append(Call(0, operation, f"{name}_part", (x, chosen), {}, (made,), None))
        return made

    def _there(self, tensor: Tensor) -> Tensor:
        """The channels that there are, without what is to be added."""
        made = self.had[tensor.index].tensor
        assert made is not None
        return made

    def _plain(self, tensor: Tensor) -> Tensor:
        """The channels that there are, as they are."""
        had = self.had[tensor.index]
        pending = _of(had.offset, had.there)
        if pending is None:
            return self._there(tensor)
        if tensor.index not in self.added:
            name = self.names.get(tensor.index, "input")
            shift = pending[..., had.there]
            self.added[tensor.index] = self._shifted(self._there(tensor), shift, name)
        return self.added[tensor.index]

    def _wide(self, tensor: Tensor) -> Tensor:
        """All channels."""
        had = self.had[tensor.index]
        if tensor.index not in self.wide:
            name = self.names.get(tensor.index, "input")
            made = self._spread(self._there(tensor), had.there, name)
            if had.offset is not None:
                made = self._shifted(made, had.offset, f"{name}_shift")
            self.wide[tensor.index] = made
        return self.wide[tensor.index]

    def _spread(self, x: Tensor, there: Array, name: str) -> Tensor:
        """Channels at their places among zeros."""
        rank, config = len(x.shape) - 2, {"data_format": "channels_first", "kernel_size": 1}
        images = self.first and rank
        kernel = np.eye(len(there))[there].reshape(
            (1,) * (rank if images else 0) + (-1, len(there))
        )
        layer = (getattr(layers, f"Conv{rank}D") if images else layers.Dense)(
            len(there),
            use_bias=False,
            name=f"{name}_spread",
            dtype=x.dtype,
            **(config if images else {}),
        )
        with unfilled():
            result = layer(keras.KerasTensor(x.shape, x.dtype))
        layer.kernel.assign(kernel)
        made = replace(x, index=next(self.numbers), shape=tuple(result.shape))
        self.calls.append(Call(0, layer, layer.name, (x,), {}, (made,), None))
        return made

    def _shifted(self, x: Tensor, shift: Array, name: str) -> Tensor:
        """A tensor, plus a constant image."""
        image = np.moveaxis(shift, -1, 0) if self.first else shift
        constant = Constant.of(image[None], x.dtype)
        rounded = np.asarray(constant, x.dtype)
        operation = made_by(ops.add(rounded, keras.KerasTensor(x.shape, x.dtype)))
        operation.name = name
        made = replace(x, index=next(self.numbers))
        self.calls.append(Call(0, operation, name, (constant, x), {}, (made,), None))
        return made

    def _dropped(self, calls: Sequence[Call]) -> Iterator[str]:
        """Calls of which nothing is computed any more."""
        made = {x.index for call in calls for x in call.outputs}
        return (c.name for c in self.graph.calls if c.outputs[0].index not in made)

    def left(self, through: Sequence[Flow]) -> Iterator[Left]:
        """What became of the channels of each call that makes some of its own."""
        readers: dict[int, list[Flow]] = defaultdict(list)
        for flow in through:
            for tensor in flow.call.inputs:
                readers[tensor.index].append(flow)
        for flow in through:
            if isinstance(flow, Mixed):
                (output,) = flow.call.outputs
                there, fixed = self.need[output.index], self._fixed(output, readers)
                constant, staying = (int((x & fixed).sum()) for x in (~there, there))
                unread = int((~there & ~fixed).sum())
                if constant or unread or staying:
                    why = self._why(output, there & fixed, readers) if staying else ""
                    yield Left(flow.call.name, len(there), unread, constant, staying, why)

    def _fixed(self, tensor: Tensor, readers: Mapping[int, Sequence[Flow]]) -> Array:
        """Channels that are constant, or become so in what alone reads them."""
        fixed = self.known.ranges[tensor.index].fixed
        while True:
            match readers[tensor.index]:
                case [Aligned(call=Call(inputs=(_,), outputs=(made,)))] if len(
                    self.need[made.index]
                ) == len(fixed):
                    tensor, fixed = made, fixed | self.known.ranges[made.index].fixed
                case _:
                    return fixed

    def _why(self, tensor: Tensor, staying: Array, readers: Mapping[int, Sequence[Flow]]) -> str:
        """What keeps constant channels there."""
        if staying.sum() == self.need[tensor.index].sum() == 1:
            return "one is left where all are constant"
        reached, indices = [tensor], {tensor.index}
        for x in reached:  # which grows meanwhile
            if x.index in self.returned:
                return "the model returns them"
            for flow in readers[x.index]:
                (made, *_) = flow.call.outputs
                if isinstance(flow, Mixed):
                    continue
                if not isinstance(flow, Aligned) or len(self.need[made.index]) != len(staying):
                    return f"'{flow.call.name}' reads all channels"
                varied = staying & ~self.known.ranges[made.index].fixed
                if varied.any() and len(flow.call.inputs) == 1:
                    return f"before zero padding, at an unknown size, in '{flow.call.name}'"
                if varied.any():
                    return f"what '{flow.call.name}' makes of them and of others is not constant"
                if made.index not in indices:
                    reached.append(made)
                    indices.add(made.index)
        if staying.all():
            return "one is left where all are constant, and with what is added it is no cheaper"
        return "without them, it would be no cheaper"


def _of(image: Array | None, channels: Array) -> Array | None:
    """A known image, with zeros for other channels; None where it is zeros."""
    if image is None or not image[..., channels].any():
        return None
    return np.where(channels, image, 0.0)


def _is_even(image: Array | None) -> bool:
    """Whether an image that is known is the same all over."""
    return image is None or all(n == 1 for n in image.shape[:-1])


def _applied(node: Node, images: Sequence[Array]) -> Array:
    """What a node makes of known images, without its bias. Raises `Refused`."""
    if node.op == "operator":
        return response(node.as_stored(), images[0])
    if node.op == "sum":
        return np.asarray(sum(x * f for x, f in zip(images, node.factors, strict=True)))
    if node.op == "concatenate":
        sizes = np.broadcast_shapes(*(x.shape[:-1] for x in images))
        return np.concatenate([np.broadcast_to(x, (*sizes, x.shape[-1])) for x in images], -1)
    moved = node.rearrangement
    assert moved is not None
    return moved.applied(np.broadcast_to(images[0], [n or 1 for n in moved.source]))

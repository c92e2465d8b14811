"""Demand: which pixels of a tensor anyone reads, from the outputs of the model backwards.

A stride, a crop or a slice, and a window that ends before the image does, leave pixels unread.
Through an affine step that passes by its geometry; through a call that works on every pixel by
itself, as it is; of any other call, all that it is given is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TypeAlias

from keras import tree

from kerasfold.algebra.places import Places, places_read, union
from kerasfold.lift.activations import acts_on_samples
from kerasfold.lift.pointwise import works_by_pixel
from kerasfold.lift.regions import Lifted, Regions
from kerasfold.read.graph import Call, Graph, Tensor

Demand: TypeAlias = tuple[Places, ...]  # along each axis of the pixels


def pixel_axes(graph: Graph, tensor: Tensor) -> range:
    """The axes of a tensor that are of pixels: neither the batch nor the channels."""
    first = 2 if graph.layout == "channels_first" else 1
    return range(first, first + max(len(tensor.shape) - 2, 0))


def demands(regions: Regions) -> Mapping[int, Demand]:
    """What is read of the output of each call that has one, by the call's index."""
    return _Backwards(regions).run()


class _Backwards:
    def __init__(self, regions: Regions) -> None:
        self.regions, self.graph = regions, regions.graph
        self.nodes = regions.program.nodes
        self.of_node: dict[int, Demand] = {}
        self.of_tensor: dict[int, Demand] = {}
        self.roots = regions.root_nodes()
        self.records: dict[int, list[Lifted]] = defaultdict(list)  # by call
        for record in regions.lifted.values():
            self.records[record.call.index].append(record)

    def run(self) -> Mapping[int, Demand]:
        for output in tree.flatten(self.graph.outputs):
            self._read(output, self._all(output))
        found: dict[int, Demand] = {}
        for call in reversed(self.graph.calls):
            read = [self._gathered(tensor) for tensor in call.outputs]
            if len(read) == 1 and read[0] is not None:
                found[call.index] = read[0]
            if call.index in self.regions.barriers:
                self._through_call(call, found.get(call.index))
            for record in reversed(self.records[call.index]):
                self._through_steps(record)
        return found

    def _gathered(self, tensor: Tensor) -> Demand | None:
        """All that is read of a tensor, now that its readers are behind."""
        for root in self.roots[tensor.index]:
            if root in self.of_node:
                self._read(tensor, self.of_node[root])
        read, node = self.of_tensor.get(tensor.index), self.regions.tensors.get(tensor.index)
        if node is None:
            return read
        if read is not None:
            _add(self.of_node, node, read)
        return self.of_node.get(node)

    def _through_call(self, call: Call, read: Demand | None) -> None:
        """What a barrier reads."""
        by_pixel = works_by_pixel(call, pixel_axes(self.graph, call.outputs[0]))
        for tensor in call.inputs:
            passed = read if by_pixel and read is not None else self._all(tensor)
            self._read(tensor, self._repeated(tensor, passed))

    def _repeated(self, tensor: Tensor, read: Demand) -> Demand:
        """All of an axis of one sample, which is repeated along others' pixels."""
        sizes = (tensor.shape[axis] for axis in pixel_axes(self.graph, tensor))
        return tuple(None if n == 1 else p for n, p in zip(sizes, read, strict=True))

    def _through_steps(self, record: Lifted) -> None:
        """What the steps of a lifted call read."""
        read = self.of_tensor.get(record.tensor.index)
        if record.activation is not None and read is not None:
            passes = acts_on_samples(record.activation)
            _add(self.of_node, record.node, read if passes else (None,) * len(read))
        for index in reversed(record.added):
            if index in self.of_node:
                for operand in self.nodes[index].operands:
                    _add(self.of_node, operand, self._read_by(index, operand))

    def _read_by(self, index: int, operand: int) -> Demand:
        """What a node reads of one that it is made of."""
        node, read = self.nodes[index], self.of_node[index]
        if node.op in ("sum", "concatenate", "scale"):
            return read
        if node.op == "rearrange":
            return (None,) * len(self.nodes[operand].sizes)
        assert node.geometry is not None
        axes = node.geometry.axes
        wanted = (None,) * len(axes) if node.geometry.vector else read
        return tuple(map(places_read, axes, wanted))

    def _read(self, tensor: Tensor, read: Demand) -> None:
        _add(self.of_tensor, tensor.index, read)

    def _all(self, tensor: Tensor) -> Demand:
        return (None,) * len(pixel_axes(self.graph, tensor))


def _add(demands: dict[int, Demand], key: int, read: Demand) -> None:
    """Let more of something be read."""
    before = demands.get(key)
    demands[key] = read if before is None else tuple(map(union, before, read))

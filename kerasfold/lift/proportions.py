"""How many pixels images of unknown size have beside those that the model reads.

What strides leave of them, and what repeating makes of them; of what nothing is known of, what it
reads.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kerasfold.lift.demand import pixel_axes
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Lifted, Regions
from kerasfold.read.graph import Call


class Proportions(NamedTuple):
    """Shares of the pixels that there are of an input, along axes of unknown size.

    Attributes:
        nodes: of each node; 1 where none is in it.
        tensors: of each tensor, by its index; 1 where none is in it.
    """

    nodes: Mapping[int, float]
    tensors: Mapping[int, float]


def proportions(regions: Regions) -> Proportions:
    """How large the nodes and the tensors of a model are beside its inputs."""
    nodes: dict[int, float] = defaultdict(lambda: 1.0)
    tensors: dict[int, float] = defaultdict(lambda: 1.0)
    records: dict[int, list[Lifted]] = defaultdict(list)  # by call
    for record in (*regions.lifted.values(), *regions.identities):
        records[record.call.index].append(record)

    def of(index: int) -> float:
        root = regions.roots.get(index)
        return nodes[index] if root is None else tensors[root.index]

    for call in regions.graph.calls:
        if call.index in regions.barriers:
            share = _left(regions, call) * max((tensors[x.index] for x in call.inputs), default=1.0)
            tensors |= {x.index: share for x in call.outputs}
        for record in records[call.index]:
            for index in record.added:
                node = regions.program.nodes[index]
                nodes[index] = _made(node) * max(of(o) for o in node.operands)
            tensors[record.tensor.index] = of(record.node)
    return Proportions(nodes, tensors)


def _made(node: Node) -> float:
    """Pixels that a node makes of each that it reads, along axes of unknown size."""
    axes = node.geometry.axes if node.geometry is not None else ()
    return math.prod(axis.upsampling / axis.stride for axis in axes if axis.size is None)


def _left(regions: Regions, call: Call) -> float:
    """The same of a call that is not lifted, as far as it says what its strides are."""
    (output, *_) = call.outputs
    sizes = [output.shape[axis] for axis in pixel_axes(regions.graph, output)]
    strides = np.broadcast_to(getattr(call.operation, "strides", None) or 1, len(sizes))
    return 1 / math.prod(int(s) for s, n in zip(strides, sizes, strict=True) if n is None)

"""A graph in which scales and shifts of channels stand before the maxima that they stood behind.

`max(a x + b) = a max(x) + b` where a > 0: what grows with its input picks the same samples. Before
the pool, it merges into the affine steps that the pool reads.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

import keras
import numpy as np
from keras import layers, tree

from kerasfold.lift.regions import Regions, lift
from kerasfold.read.graph import Call, Graph, Tensor, calls_read, given_others

_IMAGES = (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D, keras.ops.max_pool)
_VECTORS = (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)


def commuted(regions: Regions) -> Regions | None:
    """The same model with steps that grow moved before a maximum; None where there are none."""
    behind = _behind(regions)
    return lift(_swapped(regions.graph, behind)) if behind else None


def _behind(regions: Regions) -> Mapping[int, list[Call]]:
    """By the index of a pool of affine steps, the calls behind it that may stand before it."""
    graph, found = regions.graph, defaultdict[int, list[Call]](list)
    readers = Counter(x.index for call in graph.calls for x in call.inputs)
    readers.update(x.index for x in tree.flatten(graph.outputs) if isinstance(x, Tensor))
    pools: dict[int, Call] = {}  # by the tensor that is their output, or a growing function of it
    grows = _growing(regions)
    for call in graph.calls:
        (read, *others), output = call.inputs or (None,), call.outputs[0]
        if read is None or others or readers[read.index] > 1:
            continue
        if _is_maximum(call, graph.layout) and read.index in regions.tensors:
            pools[output.index] = call
        elif read.index in pools and call.index in grows:
            pools[output.index] = pools[read.index]
            found[pools[read.index].index].append(call)
    return found


def _is_maximum(call: Call, layout: str) -> bool:
    """Whether a call gives maxima of each channel; of vectors, whose channels are counted alike."""
    if any(x.masked for x in (*call.inputs, *call.outputs)):
        return False
    return call.kind in _IMAGES or (call.kind in _VECTORS and layout == "channels_last")


def _growing(regions: Regions) -> set[int]:
    """Calls, by index, that multiply each channel by a positive number, and shift it."""
    found = set()
    for record in regions.lifted.values():
        if record.activation is not None or len(record.added) != 1 or len(record.call.outputs) > 1:
            continue
        node = regions.program.nodes[record.node]
        if node.op == "operator" and node.work in ("scale", "shift"):
            assert node.load is not None
            if np.all(node.load().kernel > 0):
                found.add(record.call.index)
    return found


def _swapped(graph: Graph, behind: Mapping[int, list[Call]]) -> Graph:
    """The graph with those calls before their pools."""
    moved = {call.index for calls in behind.values() for call in calls}
    now: dict[int, Tensor] = {}  # what stands for a tensor
    calls: list[Call] = []
    for given in graph.calls:
        if given.index in moved:
            continue
        call = given_others(given, lambda x: now.get(x.index, x))
        for growing in behind.get(given.index, ()):
            (x,), (y,) = call.inputs, growing.outputs
            before = replace(y, shape=x.shape)
            calls.append(replace(_reading(growing, x), outputs=(before,)))
            call, now[y.index] = _reading(call, before), call.outputs[0]
        calls.append(call)
    outputs = tree.map_structure(
        lambda x: now.get(x.index, x) if isinstance(x, Tensor) else x, graph.outputs
    )
    read = [x for x in tree.flatten(outputs) if isinstance(x, Tensor)]
    return replace(
        graph, calls=calls_read(calls, read), outputs=outputs, original=graph.original or graph
    )


def _reading(call: Call, tensor: Tensor) -> Call:
    """A call of one tensor, of another."""
    return given_others(call, lambda _: tensor)

"""Some calls of a graph as a graph of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import keras

from kerasfold.read.graph import Call, Graph, Tensor


def part_of(graph: Graph, calls: Sequence[Call], outputs: Sequence[Tensor]) -> Graph:
    """Some calls of a graph as a graph of their own.

    Args:
        graph: the whole.
        calls: in its order.
        outputs: tensors they make.
    """
    made = {tensor.index for call in calls for tensor in call.outputs}
    read = {x.index: x for call in calls for x in call.inputs if x.index not in made}
    layers = [
        keras.layers.InputLayer(batch_shape=x.shape, dtype=x.dtype, name=f"part_input_{i}")
        for i, x in enumerate(read.values())
    ]
    names = [f"part_output_{i}" for i in range(len(outputs))]
    return replace(
        graph,
        name=f"{graph.name}_part",
        inputs=list(read.values()),
        input_layers=tuple(layers),
        outputs=list(outputs),
        output_names=tuple(names),
        calls=tuple(calls),
        original=None,
    )

"""The calls by which Keras makes masks of what a Masking or an Embedding reads."""

from __future__ import annotations

from collections import defaultdict

from keras import layers, tree

from kerasfold.read.graph import Call, Graph, Tensor
from kerasfold.read.model import is_layer, is_mask_name

_MASKING = (layers.Masking, layers.Embedding)


def makes_masks(graph: Graph) -> set[int]:
    """The calls, by index, that nobody wrote: operations of which nothing but masks is made.

    Args:
        graph: of a model.
    """
    masked = {x.index for c in graph.calls if isinstance(c.operation, _MASKING) for x in c.inputs}
    if not masked:
        return set()
    readers: dict[int, list[Call | None]] = defaultdict(list)  # None of who calls the model
    for x in tree.flatten(graph.outputs):
        if isinstance(x, Tensor):
            readers[x.index].append(None)
    for call in graph.calls:
        for x in call.inputs:
            readers[x.index].append(call)
    told: set[int] = set()
    for call in reversed(graph.calls):
        reads = [(x, reader) for x in call.outputs for reader in readers[x.index]]
        if not is_layer(call.operation) and all(
            reader is not None and (reader.index in told or _is_mask(x, reader))
            for x, reader in reads
        ):
            told.add(call.index)
    made: set[int] = set()
    for call in graph.calls:
        if call.index in told and all(x.index in masked for x in call.inputs):
            made.add(call.index)
            masked |= {x.index for x in call.outputs}
    return made


def _is_mask(tensor: Tensor, reader: Call) -> bool:
    """Whether a call is given a tensor as a mask, and as nothing else."""
    given = {name: x for name, x in reader.kwargs.items() if not is_mask_name(name)}
    others = (x for x in tree.flatten((reader.args, given)) if isinstance(x, Tensor))
    return all(x.index != tensor.index for x in others)

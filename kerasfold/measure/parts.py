"""One component of the affine part as a model of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from keras import tree

from kerasfold.layers.limits import is_free
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Regions
from kerasfold.read.graph import Call, Graph, Tensor
from kerasfold.read.pieces import part_of


def readers_of(graph: Graph) -> dict[int, list[Call]]:
    """The calls that read each tensor, in order."""
    readers: dict[int, list[Call]] = defaultdict(list)
    for call in graph.calls:
        for index in dict.fromkeys(x.index for x in call.inputs):
            readers[index].append(call)
    return readers


def part(
    regions: Regions, component: Sequence[Node], readers: Mapping[int, Sequence[Call]]
) -> Regions:
    """The calls of one component as a model of their own, on the same program.

    With them come the activations that read one of its outputs alone: runtimes run those
    together with what is before them, and what nothing else reads is then no output.

    Args:
        regions: the lifted model.
        component: some of its nodes.
        readers: `readers_of` its graph.
    """
    members = {node.index for node in component}
    inside = [regions.owner[index] for index in members & regions.lifted.keys()]
    calls = {lifted.call.index: lifted.call for lifted in inside}
    identities = {lifted.call.index for lifted in regions.identities}
    outputs = {
        lifted.tensor.index: lifted.tensor for lifted in inside if lifted.node in regions.sinks
    }
    readable = list(outputs.values())
    for source in readable:  # which grows
        for call in readers.get(source.index, ()):
            if len(call.outputs) > 1 or {x.index for x in call.inputs} != {source.index}:
                continue
            (made,) = call.outputs
            if call.index in identities:
                readable.append(made)
            elif call.index in regions.barriers and _is_activation(call, source, made):
                calls[call.index] = call
                outputs[made.index] = made
                readable.append(made)
    # What is behind an identity is the tensor before it, not one more input.
    passed = {lifted.tensor.index: lifted.call for lifted in regions.identities}
    pending = [x for call in calls.values() for x in call.inputs]
    for x in pending:  # which grows
        if x.index in passed and passed[x.index].index not in calls:
            call = passed[x.index]
            calls[call.index] = call
            pending.extend(call.inputs)
    final = {x.index for x in tree.flatten(regions.graph.outputs) if isinstance(x, Tensor)}

    def needed(index: int) -> bool:
        """Whether another call, or the model's caller, reads a tensor."""
        return index in final or any(
            needed(call.outputs[0].index) if call.index in identities else call.index not in calls
            for call in readers.get(index, ())
        )

    graph = part_of(
        regions.graph,
        [calls[index] for index in sorted(calls)],
        [tensor for index, tensor in outputs.items() if needed(index)],
    )
    inputs = {x.index: x for x in graph.inputs}
    reads = {o for node in component for o in node.operands}
    made_by = {regions.owner[o].tensor.index: o for o in reads if o in regions.owner}
    own = {o: inputs[t] for t, o in made_by.items() if t in inputs}
    return replace(regions, graph=graph, roots=regions.roots | own)


def _is_activation(call: Call, source: Tensor, made: Tensor) -> bool:
    return made.shape == source.shape and is_free(call.operation)

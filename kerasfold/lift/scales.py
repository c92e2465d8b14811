"""Calls that multiply each channel and shift it, and what stands around them in a lifted model.

Several of them, one after another, are one step: g2 (g1 x + b1) + b2 = (g2 g1) x + (g2 b1 + b2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from keras import tree

from kerasfold.layers.absorbing import Steps
from kerasfold.lift.program import Node
from kerasfold.lift.regions import Lifted, Regions
from kerasfold.read.graph import Call, Tensor, read_counts

CANCELLED = 256.0  # times the unit of what is left, of what is subtracted and may be rounded before
CANCELLED_HALF = 8.0  # the same in half precision
CANCELS = (
    "large numbers are added or subtracted first: merged, digits of what is left could be lost"
)
_ROUNDED_FINELY = ("float32", "float64")  # dtypes in which a shift by itself loses nothing


def are_scales(nodes: Sequence[Node]) -> bool:
    """Whether nodes do nothing but multiply each channel, or shift it."""
    return all(n.work in ("scale", "shift") and n.op == "operator" for n in nodes)


def steps_of(nodes: Sequence[Node]) -> Steps:
    """What nodes one after another do to channels, which is to multiply and shift each."""
    gain, shift = np.ones(nodes[0].channels), np.zeros(nodes[0].channels)
    for node in nodes:
        assert node.load is not None
        operator = node.load()
        own = operator.kernel.ravel()
        gain, shift = own * gain, own * shift + operator.bias
    return Steps(gain, shift)


def loses_digits(subtracted: np.ndarray, dtype: str) -> bool:
    """Whether numbers of a dtype lose too many digits if they are rounded before subtracting.

    Args:
        subtracted: from them, in the unit of what is left.
        dtype: that is computed in.
    """
    most = CANCELLED if dtype in _ROUNDED_FINELY else CANCELLED_HALF
    return bool(np.max(np.abs(subtracted), initial=0.0) > most)


def may_be_apart(steps: Steps, dtype: str) -> bool:
    """Whether what steps add to a tensor of a dtype loses nothing by itself."""
    return not np.any(steps.shift) or dtype in _ROUNDED_FINELY


def along_channels(values: np.ndarray, x: Tensor, layout: str) -> np.ndarray:
    """Numbers of channels with all axes of a tensor; its own dtype takes them when it runs."""
    shape = [1] * len(x.shape)
    shape[1 if layout == "channels_first" else -1] = values.size
    return values.reshape(shape)


@dataclass(frozen=True, eq=False, slots=True)
class Run:
    """Calls one after another, each but the last read by the next alone.

    Attributes:
        calls: in order; between them may be some that do nothing.
        nodes: of each call.
        source: the tensor that they are of, before any call that does nothing.
    """

    calls: tuple[Call, ...]
    nodes: tuple[Sequence[Node], ...]
    source: Tensor

    @property
    def last(self) -> Call:
        """The one whose output is theirs."""
        return self.calls[-1]

    @property
    def each(self) -> list[Steps]:
        """What each call does."""
        return [steps_of(nodes) for nodes in self.nodes]

    @property
    def steps(self) -> Steps:
        """What they do together."""
        return steps_of([node for nodes in self.nodes for node in nodes])


def runs_of(regions: Regions) -> dict[int, Run]:
    """The longest runs, in order, by the index of their last calls; no weights are read."""
    readers = read_counts(regions.graph)
    records: Mapping[int, Lifted] = {
        x.call.index: x for x in (*regions.lifted.values(), *regions.identities)
    }
    before: dict[int, tuple[Run | None, Tensor]] = {}  # by tensor: what made it, and of what
    found: dict[int, Run] = {}
    for call in regions.graph.calls:
        record = records.get(call.index)
        if record is None or record.activation is not None or not is_plain(regions, call):
            continue
        nodes = [regions.program.nodes[i] for i in record.added]
        if not are_scales(nodes):
            continue
        ((x,), (made,)) = call.inputs, call.outputs
        run, source = before.get(x.index, (None, x)) if readers[x.index] == 1 else (None, x)
        if nodes:
            (calls, own) = (run.calls, run.nodes) if run else ((), ())
            if run:
                del found[run.last.index]
            run = found[call.index] = Run((*calls, call), (*own, nodes), source)
        before[made.index] = run, source
    return found


def is_plain(regions: Regions, call: Call) -> bool:
    """Whether a call makes one tensor of one of its dtype, by itself, and no masks go along."""
    tensors = (*call.inputs, *call.outputs)
    return (
        len(tensors) == 2
        and tensors[0].dtype == tensors[1].dtype
        and not (call.training or any(x.masked for x in tensors))
        and regions.uses[id(call.operation)] == 1
    )


class Scales:
    """What calls do to channels, and who makes and reads what they read and make.

    Attributes:
        records: what was lifted of each call, by its index.
        readers: of each tensor, by its index; None is who calls the model.
        makers: of each tensor, by its index.
        reading: the nodes that read each node.
    """

    def __init__(self, regions: Regions) -> None:
        self.regions, self.graph, self.nodes = regions, regions.graph, regions.program.nodes
        self.records: dict[int, list[Lifted]] = defaultdict(list)
        for record in (*regions.lifted.values(), *regions.identities):
            self.records[record.call.index].append(record)
        self.readers: dict[int, list[Call | None]] = defaultdict(list)
        self.makers: dict[int, Call] = {}
        for call in self.graph.calls:
            for x in call.inputs:
                self.readers[x.index].append(call)
            self.makers |= {x.index: call for x in call.outputs}
        for x in tree.flatten(self.graph.outputs):
            self.readers[x.index].append(None)
        self.reading: dict[int, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for operand in node.operands:
                self.reading[operand].append(node)

    def steps_of(self, call: Call) -> Steps | None:
        """The gains and shifts of a call that does nothing else."""
        (record, *others) = self.records.get(call.index, [None])
        if record is None or others or record.activation is not None:
            return None
        if not is_plain(self.regions, call):
            return None
        nodes = [self.nodes[i] for i in record.added]
        return steps_of(nodes) if nodes and are_scales(nodes) else None

    def is_alike(self, node: Node) -> bool:
        """Whether a node does to each channel alike what it does, by no weights."""
        geometry = node.geometry
        by_channel = geometry is not None and geometry.groups == node.channels
        return node.weightless and by_channel and not node.selected

    def absorbs(self, index: int, one: bool = False) -> bool:
        """Whether a node multiplies by weights, or all that it is made of and only it reads.

        Args:
            index: of the node.
            one: whether gains are one number.
        """
        node = self.nodes[index]
        if node.multiplies or node.work == "scale":
            return True
        along = self.is_alike(node) or node.work == "shift" or node.op in ("sum", "concatenate")
        return (along or (one and node.op == "rearrange")) and all(
            len(self.reading[o]) == 1 and o not in self.regions.sinks and self.absorbs(o, one)
            for o in node.operands
        )

    def merges(self, index: int) -> bool:
        """Whether a step by channel merges into what a node is made by."""
        once = len(self.reading[index]) == 1 and index not in self.regions.sinks
        return once and self.absorbs(index)

"""Graph -> affine program: every call lifted or kept, and the parts to be planned.

Each call of the graph is either *lifted* (its rule wrote nodes of the program) or a
*barrier*, kept as it is with a reason. A tensor that a barrier makes, or that has another
dtype than the layer reading it computes in, is a root.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import tree

from kerasfold.algebra.axis import Refused
from kerasfold.errors import FoldError
from kerasfold.lift.masks import check_masks, readers
from kerasfold.lift.numbering import numbered
from kerasfold.lift.operands import sliced
from kerasfold.lift.program import Node, Program
from kerasfold.lift.registry import is_own, unruled
from kerasfold.lift.rules import RULES
from kerasfold.lift.signal import Signal
from kerasfold.lift.successive import in_one
from kerasfold.lift.wrapper_rules import inline_activation, takes_steps_at_once
from kerasfold.read.graph import Call, Graph, Tensor, read
from kerasfold.read.model import call_parameters
from kerasfold.read.told import Told


@dataclass(frozen=True, eq=False, slots=True)
class Lifted:
    """An output of a call, as a rule has written it into the program.

    Attributes:
        call: the call.
        tensor: the output, of a call of several one of them.
        start: first node of the program that was added for it.
        node: the node that it is, before any activation.
        activation: its inline activation, or None.
    """

    call: Call
    tensor: Tensor
    start: int
    node: int
    activation: Any

    @property
    def added(self) -> range:
        """The nodes that were added for it; none for an identity."""
        return range(self.start, max(self.start, self.node + 1))


@dataclass(frozen=True, eq=False, slots=True)
class Regions:
    """The affine part of a graph.

    Attributes:
        graph: what was read.
        program: all nodes.
        lifted: the outputs of lifted calls by the node they are (identities are not among them).
        identities: outputs for which no node was added, with the node they pass on.
        barriers: reason by index of every call that is kept as a barrier.
        tensors: for each graph tensor that is no barrier's, the node that it is, if it was
            not made by an activation.
        roots: the graph tensor of each root node.
        sinks: nodes that are needed as tensors: read by a barrier or returned by the model.
        owner: for each node that is no root, the lifted call that added it.
        uses: number of calls by id of the layer or operation.
        origin: the same of what was read, where this is another way to write it.
    """

    graph: Graph
    program: Program
    lifted: dict[int, Lifted]
    identities: tuple[Lifted, ...]
    barriers: dict[int, str]
    tensors: dict[int, int]
    roots: dict[int, Tensor]
    sinks: frozenset[int]
    owner: dict[int, Lifted]
    uses: Mapping[int, int]
    origin: Regions | None = None

    def is_weighed(self, tensor: Tensor) -> bool:
        """Whether a tensor is made by weights, and what merges into them channel by channel."""
        node = self.tensors.get(tensor.index)
        while node is not None and self.program.nodes[node].work in ("scale", "shift"):
            (node,) = self.program.nodes[node].operands
        return node is not None and self.program.nodes[node].multiplies

    def root_nodes(self) -> dict[int, list[int]]:
        """The roots that each graph tensor is, by its index."""
        found: dict[int, list[int]] = defaultdict(list)
        for node, tensor in self.roots.items():
            found[tensor.index].append(node)
        return found

    def components(self) -> Iterator[list[Node]]:
        """Maximal sets of nodes connected through tensors that may stay unmaterialised."""
        parent = list(range(len(self.program.nodes)))

        def find(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for node in self.program.nodes:
            for operand in node.operands:
                if operand not in self.roots and operand not in self.sinks:
                    parent[find(operand)] = find(node.index)
        members: dict[int, list[Node]] = defaultdict(list)
        for node in self.program.nodes:
            if node.op != "root":
                members[find(node.index)].append(node)
        yield from members.values()


_FLAGS = {"training", "mask"}  # keywords that no rule is given

# Ways to write a model, to be tried in turn; each is answered with whether it was taken.
Rewritings: TypeAlias = Generator[Regions, bool | None, None]


def lift(graph: Graph, before: Regions | None = None) -> Regions:
    """Lift every call of a graph that has a rule.

    Args:
        graph: the graph.
        before: another way to write it: of calls that are in both, rules are not asked again.
    """
    found = _Lifter(graph, before).run()
    return found if before is None else replace(found, origin=before.origin or before)


def lifted(model: keras.Model, open_layers: bool = True, told: Told | None = None) -> Regions:
    """Read a model, make one of calls that are one, and lift what is left.

    Args:
        model: the model.
        open_layers: whether to look into layers that are made of others, and have no rule.
        told: see `read`.

    Raises:
        UnsupportedModelError: a model that cannot be read.
    """

    def opens(layer: keras.Operation) -> bool:
        rule = RULES.get(type(layer))  # someone else's goes before
        steps = type(layer) is keras.layers.TimeDistributed and not takes_steps_at_once(layer)
        return open_layers and (rule is None or is_own(rule)) and not steps

    return lift(in_one(numbered(read(model, opens, told))))


def as_read(regions: Regions) -> Regions:
    """The same with every call that was read."""
    original, origin = regions.graph.original, regions.origin
    if original is None:
        return regions
    return origin if origin and origin.graph is original else lift(original, regions)


class _Lifter:
    def __init__(self, graph: Graph, before: Regions | None) -> None:
        self.graph = graph
        self.before = {} if before is None else _told_by_sizes(before)
        self.mask_readers = readers(graph)
        self.program = Program()
        self.signals: dict[int, Signal] = {}  # by tensor
        self.root_signals: dict[tuple[int, str], Signal] = {}
        self.roots: dict[int, Tensor] = {}
        self.lifted: dict[int, Lifted] = {}
        self.identities: list[Lifted] = []
        self.barriers: dict[int, str] = {}
        self.whole: set[int] = set()  # tensors that may hold integers, whatever their dtype says

    def run(self) -> Regions:
        for call in self.graph.calls:
            start = len(self.program.nodes)
            try:
                self._lift(call)
            except Refused as refusal:
                del self.program.nodes[start:]
                while self.roots and next(reversed(self.roots)) >= start:  # in order, as nodes are
                    self.roots.popitem()
                    self.root_signals.popitem()
                self.barriers[call.index] = _closed(call) or refusal.reason
                if self._may_pass_integers(call):
                    self.whole |= {x.index for x in call.outputs}
        tensors = {index: signal.node.index for index, signal in self.signals.items()}
        needed = [x for x in tree.flatten(self.graph.outputs) if isinstance(x, Tensor)]
        for call in self.graph.calls:
            if call.index in self.barriers:
                needed.extend(call.inputs)
        sinks = {tensors[x.index] for x in needed if x.index in tensors}
        sinks |= {x.node for x in self.lifted.values() if x.activation is not None}
        # A tensor read at another dtype is a root of its reader, so it must exist.
        sinks |= {tensors[x.index] for x in self.roots.values() if x.index in tensors}
        return Regions(
            self.graph,
            self.program,
            self.lifted,
            tuple(self.identities),
            self.barriers,
            tensors,
            self.roots,
            frozenset(sinks - self.roots.keys()),
            {i: lifted for lifted in self.lifted.values() for i in lifted.added},
            Counter(id(call.operation) for call in self.graph.calls),
        )

    def _may_pass_integers(self, call: Call) -> bool:
        """Whether the result may be of integers, or of complex numbers.

        Keras declares what its layers make to be of their dtype, but casts no integers: a
        padding of an image of bytes makes bytes. A weight would promote them, as floats beside
        them do a mask. It knows where it has traced the call, on what is of the dtype that it
        declared.
        """
        layer = call.operation
        numbers = [x for x in call.inputs if x.dtype != "bool"]
        casts = (keras.layers.Rescaling, keras.layers.Normalization)
        return (
            isinstance(layer, keras.Layer)
            and not isinstance(layer, casts)
            and not layer.weights
            and not (numbers and all(map(self._is_float, numbers)))
            and (not _is_traced(type(layer)) or any(x.index in self.whole for x in call.inputs))
        )

    def _is_float(self, tensor: Tensor) -> bool:
        return keras.backend.is_float_dtype(tensor.dtype) and tensor.index not in self.whole

    def _lift(self, call: Call) -> None:
        rule = RULES.get(call.rule)
        if rule is None:
            raise Refused(_no_rule(call))
        if call.training:
            raise Refused("it is called with training=True")
        if any(0 in x.shape for x in call.inputs):
            raise Refused("it reads a tensor of no numbers")
        batches = {x.shape[0] for x in call.inputs if x.shape}
        if len(batches) > 1:
            raise Refused(f"it broadcasts along the batch: {sorted(map(str, batches))}")
        dtype = getattr(call.operation, "compute_dtype", call.outputs[0].dtype)
        for output in call.outputs:
            if output.dtype != dtype or not keras.backend.is_float_dtype(dtype):
                raise Refused(f"its output is {output.dtype}, not a float of one kind")
        rest = {k: v for k, v in call.kwargs.items() if k not in _FLAGS}
        args, kwargs = tree.map_structure(
            lambda x: self._signal(x, dtype) if isinstance(x, Tensor) else x, (call.args, rest)
        )
        args, kwargs = _arguments(call, args, kwargs)
        start = len(self.program.nodes)
        signals = [] if kwargs else self._as_before(call, args)
        signals = signals or _signals(rule, call, args, kwargs)
        ends = self.program.keep(start, [signal.node for signal in signals])  # what was only tried
        records: list[Lifted] = []
        for node, output in zip(ends, call.outputs, strict=True):
            first = max([start, *(record.node + 1 for record in records)])
            records.append(
                Lifted(call, output, first, node.index, inline_activation(call.operation))
            )
        if len(records) > 1 and any(self._shares(record, start) for record in records):
            raise Refused("its outputs have steps in common")
        if any(0 in x.shape for x in call.outputs):
            raise Refused("it gives a tensor of no numbers")
        for signal, record in zip(signals, records, strict=True):
            _check_shape(signal, record.tensor)
            self._check(record)
        for signal, node, record in zip(signals, ends, records, strict=True):
            if record.added:
                self.lifted[node.index] = record
            else:
                self.identities.append(record)
            if record.activation is None:
                self.signals[record.tensor.index] = replace(signal, node=node)

    def _as_before(self, call: Call, args: Sequence[Any]) -> list[Signal]:
        """What the same call gave of a tensor of the same sizes; none where there was none."""
        steps = self.before.get(id(call.operation))
        signals = [x for x in args if isinstance(x, Signal)]
        if steps is None or len(signals) != 1 or not steps.are_of(call, signals[0]):
            return []
        (x,), first, place = signals, steps.nodes[0].index, len(self.program.nodes)
        for node in steps.nodes:
            operands = (place + o - first if o >= first else x.node.index for o in node.operands)
            moved = replace(node, index=place + node.index - first, operands=tuple(operands))
            self.program.nodes.append(moved)
        return [replace(x, node=self.program.nodes[-1])]

    def _check(self, record: Lifted) -> None:
        """Refuse an output that no other layer can make."""
        tensor, is_identity = record.tensor, not record.added
        check_masks(record.call, tensor, self.mask_readers.get(tensor.index), is_identity)
        source = self.roots.get(record.node)
        if source is not None and source.dtype != tensor.dtype:
            raise Refused(f"it casts {source.dtype} to {tensor.dtype}")
        if is_identity and record.activation is not None:
            raise Refused("an activation on an identity")

    def _shares(self, record: Lifted, start: int) -> bool:
        """Whether an output of a call, whose steps begin at `start`, has steps with others."""
        others = range(start, record.start)
        reads = (o for i in record.added for o in self.program.nodes[i].operands)
        return not record.added or any(o in others for o in reads)

    def _signal(self, tensor: Tensor, dtype: str) -> Signal:
        signal = self.signals.get(tensor.index)
        if signal is not None and tensor.dtype == dtype:
            return signal
        key = (tensor.index, dtype)
        if key not in self.root_signals:
            if len(tensor.shape) < 2:
                raise Refused(f"a tensor of shape {tensor.shape} has no channels")
            if not self._is_float(tensor):
                kind = "may hold integers" if tensor.index in self.whole else f"is {tensor.dtype}"
                raise Refused(f"its input {kind}, not floats")
            first = self.graph.layout == "channels_first"
            channels = tensor.shape[1 if first else -1]
            if channels is None:
                raise Refused("its number of channels is unknown")
            sizes = tensor.shape[2:] if first else tensor.shape[1:-1]
            node = self.program.append("root", (), sizes, channels)
            self.root_signals[key] = Signal(self.program, node, self.graph.layout)
            self.roots[node.index] = tensor
        return self.root_signals[key]


class _Steps(NamedTuple):
    """What a rule made of a call of one tensor, and that."""

    call: Call
    nodes: Sequence[Node]
    read: Node

    def are_of(self, call: Call, x: Signal) -> bool:
        """Whether a rule would make the same of a call of the same operation, given a signal."""
        own = self.call
        return (
            (x.sizes, x.channels) == (self.read.sizes, self.read.channels)
            and call.gain is own.gain
            and call.cut == own.cut
            and len(call.args) == len(own.args)
            and all(
                isinstance(a, Tensor) if isinstance(b, Tensor) else a is b
                for a, b in zip(call.args, own.args, strict=True)
            )
        )


def _told_by_sizes(regions: Regions) -> dict[int, _Steps]:
    """What own rules made of calls of which they saw the sizes alone, by id of the operation."""
    found: dict[int, _Steps] = {}
    nodes = regions.program.nodes
    for record in regions.lifted.values():
        call, own = record.call, [nodes[i] for i in record.added]
        read = {o for node in own for o in node.operands} - set(record.added)
        alone = len(call.outputs) == len(call.inputs) == len(read) == 1
        plain = alone and call.kwargs.keys() <= _FLAGS and is_own(RULES[call.rule])
        once = plain and regions.uses[id(call.operation)] == 1
        if once and all(node.op in ("operator", "rearrange", "scale") for node in own):
            found[id(call.operation)] = _Steps(call, own, nodes[read.pop()])
    return found


def _closed(call: Call) -> str:
    """Why what is inside a layer is not seen, or ""."""
    what = "a nested model" if isinstance(call.operation, keras.Model) else "it"
    return f"{what} ({type(call.operation).__name__}) {call.closed}" if call.closed else ""


def _is_traced(kind: type) -> bool:
    """Whether what a layer makes is what came of its call, and not what it says."""
    says = ("compute_output_shape", "compute_output_spec")
    return all(getattr(kind, name) is getattr(keras.Layer, name) for name in says)


def _no_rule(call: Call) -> str:
    said = unruled(type(call.operation))
    return said if isinstance(call.operation, keras.Layer) else f"the operation {said}"


def _arguments(call: Call, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]]:
    """What a rule is called with: signals by position, in the order of the layer's `call`."""
    if kwargs and isinstance(call.operation, keras.Layer):
        names = [
            name
            for name in call_parameters(call.operation)
            if any(isinstance(x, Signal) for x in tree.flatten(kwargs.get(name)))
        ]
        args = (*args, *(kwargs.pop(name) for name in names))
    return args, kwargs


def _signals(rule: Any, call: Call, args: Any, kwargs: Any) -> list[Signal]:
    """What a call gives, one signal for each output."""
    signals = _ruled(rule, call, args, kwargs)
    if call.gain is not None:
        signals = [signal.scale(call.gain.values) for signal in signals]
    if call.cut is not None:
        signals = [sliced(signal, call.cut) for signal in signals]
    return signals


def _ruled(rule: Any, call: Call, args: Any, kwargs: Any) -> list[Signal]:
    """What a rule makes of a call, one signal for each output; its own failures named."""
    where = f"the lift rule of {type(call.operation).__name__} failed on layer '{call.name}'"
    try:
        result = rule(call.operation, *args, **kwargs)
    except Refused:
        raise
    except Exception as error:
        raise FoldError(f"{where}: {type(error).__name__}: {error}") from error
    signals = list(result) if isinstance(result, (list, tuple)) else [result]
    for signal in signals:
        if not isinstance(signal, Signal):
            raise FoldError(f"{where}: it returns {type(signal).__name__}, not a kerasfold.Signal")
    if len(signals) != len(call.outputs):
        raise FoldError(f"{where}: it returns {len(signals)} of {len(call.outputs)} outputs")
    return signals


def _check_shape(signal: Signal, output: Tensor) -> None:
    """A rule whose sizes are not the layer's own is wrong: say so, never fold with it."""
    first = signal.layout == "channels_first"
    spatial = list(signal.sizes)
    shape = [signal.channels, *spatial] if first else [*spatial, signal.channels]
    if len(shape) != len(output.shape) - 1 or any(
        a is not None and b is not None and a != b
        for a, b in zip(shape, output.shape[1:], strict=True)
    ):
        raise Refused(
            f"its rule gives outputs of shape {tuple(shape)}, the layer {output.shape[1:]}"
        )

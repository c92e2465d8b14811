"""The original call, as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kerasfold.cost import Cost, moved_by, moved_bytes
from kerasfold.forms.form import Composed, Form, Nothing, work_of
from kerasfold.forms.known import Known
from kerasfold.layers.limits import is_free
from kerasfold.lift.program import Node, Sizes
from kerasfold.read.weights import added_numbers, count_params
from kerasfold.rooflines import Kind

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Kept(Form[Any]):
    """The call that ends in a node."""

    name: ClassVar[str] = "keep"

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Kept | None:
        """The call, where nothing else is to be composed."""
        return cls.of(known, index) if set(visited) <= set(known.owner[index].added) else None

    @classmethod
    def of(cls, known: Known, index: int) -> Kept:
        """The call that ends in a node."""
        return known.once((Kept, index), lambda: _kept(known, index))

    def compose(self, nodes: Sequence[Node]) -> Composed:
        """Nothing is composed."""
        return Nothing()

    def emit(self, build: Builder, composed: Any, xs: Mapping[int, Value]) -> Value:
        """The call, on a copy of its layer."""
        return build.keep(self.node)

    def words(self, regions: Regions) -> str:
        """The class of the layer."""
        return type(regions.owner[self.node].call.operation).__name__

    def work(self, nodes: Sequence[Node]) -> Counter[Hashable]:
        """Each of its nodes."""
        return Counter([work_of(nodes[i]) for i in self.visited])


def _kept(known: Known, index: int) -> Kept:
    inner = tuple(known.owner[index].added)
    reads = {o for i in inner for o in known.nodes[i].operands} - set(inner)
    return Kept(
        node=index,
        reads=dict.fromkeys(sorted(reads)),
        visited=inner,
        cost=_cost(known, index),
        constants=added_numbers(known.owner[index].call.constants),
    )


def _cost(known: Known, index: int) -> Cost:
    lifted = known.owner[index]
    layer, outputs = lifted.call.operation, len(lifted.call.outputs)
    params = count_params(layer) / known.regions.uses[id(layer)] / outputs
    constants = added_numbers(lifted.call.constants)
    selecting = known.selecting(lifted.added)
    if selecting is not None:
        last = known.nodes[index]
        steps = known.prices.step(selecting, 2 * moved_bytes(last.sizes, last.channels))
    else:
        steps = Cost.sum(_step(known, i) for i in lifted.added)
    return steps._replace(params=params + constants, layers=0 if is_free(layer) else 1)


def _step(known: Known, index: int) -> Cost:
    """What one node of a call costs, but for its weights."""
    node = known.nodes[index]
    if node.op == "rearrange":
        assert node.rearrangement is not None
        return known.prices.step("copy", moved_by(node.rearrangement, known.regions.graph.layout))
    if node.op in ("sum", "concatenate"):
        reads = sum(known.nodes[o].channels for o in node.operands)
        kind: Kind = "copy" if node.op == "concatenate" else "elementwise"
        return known.prices.step(kind, moved_bytes(node.sizes, reads + node.channels))
    assert node.geometry is not None
    kind = known.layer_kind(index)
    if kind in ("elementwise", "normalisation"):
        return _elementwise(known, index, node.sizes, known.ends_layer(node.operands[0]))
    if kind == "cut":
        moved = 2 * moved_bytes(node.sizes, node.channels)
        return known.prices.step(kind, moved, ahead=known.begins_layer(index))
    seen = known.seen(node.operands[0], node.geometry)
    cost = known.prices.operator(node.geometry, kind=kind, seen=seen)
    return cost._replace(unconvolved=int(known.is_pool(index)))


def _elementwise(known: Known, index: int, sizes: Sizes, behind: bool) -> Cost:
    node, image = known.nodes[index], 2 * moved_bytes(sizes, known.nodes[index].channels)
    passes = 2 if node.work == "scale" and known.geometry(index).biased else 1
    macs = image / 8 if node.work == "scale" else 0.0
    kind = known.layer_kind(index)
    return known.prices.step(kind, passes * image, behind=behind)._replace(macs=macs)


def moved_cost(known: Known, index: int, sizes: Sizes) -> Cost:
    """What a call that scales or shifts channels would cost on images of other sizes."""
    kept = Kept.of(known, index).cost
    moved = _elementwise(known, index, sizes, behind=False)
    return moved._replace(params=kept.params, layers=kept.layers)

"""A slice of one convolution that gives several nodes, siblings that read one tensor."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, Kind, moved_bytes, operator_cost, step_cost
from kerasfold.forms.convolved import Convolved
from kerasfold.forms.form import AnyForm, Form, Nothing, described
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Known
from kerasfold.layers.limits import check_emittable
from kerasfold.lift.program import Node
from kerasfold.read.model import is_layer

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Lifted


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Joined(Form[Nothing]):
    """A slice of one wider convolution; the first of the siblings carries its cost.

    A slice counts as the call of a convolution: runtimes may run siblings side by side, so that
    fewer calls alone save nothing.

    Attributes:
        siblings: the convolutions that are one, in the order of its channels.
        channels: of each sibling.
    """

    name: ClassVar[str] = "joined"

    siblings: tuple[Convolved, ...]
    channels: tuple[int, ...]

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> None:
        """Nothing: a node has no siblings by itself."""

    @classmethod
    def together(cls, known: Known, siblings: Sequence[Convolved]) -> list[Joined] | None:
        """Each of the siblings as a slice, or None where they cannot be joined."""
        channels = tuple(known.nodes[form.node].channels for form in siblings)
        if any(known.misplaces_bias(form.visited, sum(channels)) for form in siblings):
            return None
        geometries = [g for form in siblings for g in form.reads.values() if g is not None]
        try:
            whole = Geometry.concatenation(geometries)
            check_emittable(whole)
        except Refused:
            return None
        dense = whole.vector or all(known.layering(f.visited)[1] for f in siblings)
        kind: Kind = "matrix" if dense else "convolution"
        cost = operator_cost(whole, kind=kind)
        joined = []
        for form in siblings:
            node = known.nodes[form.node]
            cut = step_cost(kind, 2 * moved_bytes(node.sizes, node.channels))
            joined.append(
                cls(
                    node=form.node,
                    reads=form.reads,
                    visited=form.visited,
                    cost=cost + cut,
                    refusal=form.refusal,
                    siblings=tuple(siblings),
                    channels=channels,
                )
            )
            cost = Cost()
        return joined

    @property
    def position(self) -> int:
        """Among the siblings."""
        return next(i for i, form in enumerate(self.siblings) if form.node == self.node)

    def compose(self, nodes: Sequence[Node]) -> Nothing:
        """Nothing by itself: the first of the siblings composes all of them."""
        return Nothing()

    def emit(self, build: Builder, composed: Nothing, xs: Mapping[int, Value]) -> Value:
        """The channels of one node, of the convolution that its siblings share."""
        name, activation = build.result()

        def whole() -> Value:
            operator = Operator.concatenation(
                [x for form in self.siblings for x in build.compose(form).operators]
            )
            label = build.names.reserve(f"{name}_joined")
            return build.convolution(xs[self.source], operator, label, None, "joined")

        joint = build.once(("joined", *(form.node for form in self.siblings)), whole)
        first = sum(self.channels[: self.position])
        cut = name if activation is None else build.names.reserve(f"{name}_slice")
        value = build.channels(joint, first, first + self.channels[self.position], cut)
        return value if activation is None else build.activated(value, activation, name)

    def words(self, owner: Mapping[int, Lifted]) -> str:
        """Its own operator, and the number of siblings."""
        (geometry,) = self.reads.values()
        return f"{described(geometry)}, one of {len(self.siblings)} in one layer"


def sibling(known: Known, form: AnyForm) -> tuple[Hashable, Hashable, Convolved] | None:
    """A form as one dense convolution, what it shares with those it may join, and its window.

    None where it is anything else, is pinned, or shares its weights with another call.
    """
    if form.node in known.pinned:
        return None
    if isinstance(form, Kept) and form.cost.layers == 1:
        try:
            form = Convolved.propose(known, form.node, form.visited) or form
        except Refused:
            return None
    layers = [known.owner[i].call.operation for i in form.visited]
    if (
        not isinstance(form, Convolved)
        or len(form.reads) != 1
        or not all(map(is_layer, layers))
        or all(known.nodes[i].weightless for i in form.visited)
        or any(known.regions.uses[id(layer)] > 1 for layer in layers)
    ):
        return None
    ((read, geometry),) = form.reads.items()
    if geometry is None or geometry.groups > 1 or geometry.ones or geometry.normalised:
        return None
    weighty = [layer for layer in layers if layer.weights] or layers
    kind = weighty[-1].dtype_policy.name, any(layer.trainable for layer in weighty)
    steps = tuple((axis.stride, axis.upsampling, axis.out) for axis in geometry.axes)
    return (read, steps, geometry.vector, kind), geometry.axes, form

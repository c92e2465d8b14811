"""Convolutions that read one tensor, siblings, as slices of one.

A sibling is all that a form computes, or a part of it: a term of a sum, what is before a pool.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, kind_of, moved_bytes
from kerasfold.forms.convolved import Convolved, term_cost
from kerasfold.forms.form import AnyForm, Form, Nothing
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Known
from kerasfold.layers.limits import check_emittable
from kerasfold.lift.program import Node
from kerasfold.read.model import is_layer
from kerasfold.rooflines import Kind

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True)
class Sibling:
    """A convolution of a form.

    Attributes:
        form: the form.
        read: the node that it reads.
    """

    form: AnyForm
    read: int

    @property
    def node(self) -> int:
        """That of the form."""
        return self.form.node

    @property
    def geometry(self) -> Geometry:
        """The convolution."""
        geometry = self.form.reads[self.read]
        assert geometry is not None
        return geometry


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Joined(Form[Nothing]):
    """A form with convolutions that are slices of wider ones; the first sibling has their cost.

    A slice counts as the call of a convolution: runtimes may run siblings side by side, so that
    fewer calls alone save nothing.

    Attributes:
        form: the form.
        siblings: by what they read, the convolutions that are one, in the order of its channels.
        changes: by the same, what it costs more to have a slice of that.
    """

    name: ClassVar[str] = "joined"

    form: AnyForm
    siblings: Mapping[int, tuple[Sibling, ...]]
    changes: Mapping[int, Cost]

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> None:
        """Nothing: a node has no siblings by itself."""

    @classmethod
    def together(
        cls,
        known: Known,
        siblings: Sequence[Sibling],
        forms: Mapping[int, AnyForm],
        sliced: Kind | None = None,
    ) -> list[Joined] | None:
        """The forms of siblings, whose own may have others; None where they cannot be joined.

        Args:
            known: the program.
            siblings: the convolutions.
            forms: those of their nodes so far.
            sliced: what a slice costs the call of; by default of the kind that all together are.
        """
        channels = sum(sibling.geometry.channels[1] for sibling in siblings)
        if any(known.misplaces_bias(sibling.form.visited, channels) for sibling in siblings):
            return None
        try:
            whole = Geometry.concatenation([sibling.geometry for sibling in siblings])
            check_emittable(whole)
        except Refused:
            return None
        dense = whole.vector or all(known.layering(s.form.visited)[1] for s in siblings)
        kind: Kind = "matrix" if dense else kind_of(whole)
        cost = known.prices.operator(whole, kind=kind)
        joined = []
        for sibling in siblings:
            form, geometry, before = sibling.form, sibling.geometry, forms[sibling.node]
            sizes = () if geometry.vector else geometry.sizes
            cut = known.prices.step(sliced or kind, 2 * moved_bytes(sizes, geometry.channels[1]))
            own = term_cost(known, sibling.read, geometry, *known.layering(form.visited))
            others = before.siblings if isinstance(before, Joined) else {}
            changes = before.changes if isinstance(before, Joined) else {}
            changes = {**changes, sibling.read: cost + cut - own}
            joined.append(
                cls(
                    node=form.node,
                    reads=form.reads,
                    visited=form.visited,
                    cost=sum(changes.values(), form.cost),
                    refusal=form.refusal,
                    form=form,
                    siblings={**others, sibling.read: tuple(siblings)},
                    changes=changes,
                )
            )
            cost = Cost()
        return joined

    def compose(self, nodes: Sequence[Node]) -> Nothing:
        """Nothing by itself: what is emitted first composes all siblings."""
        return Nothing()

    def emit(self, build: Builder, composed: Nothing, xs: Mapping[int, Value]) -> Value:
        """The form, with channels of the convolutions that it shares."""
        joint = {
            self.form.roles[read]: self._slice(build, xs[read], siblings)
            for read, siblings in self.siblings.items()
        }
        return self.form.emit(replace(build, joint=joint), _composed(build, self.form), xs)

    def _slice(
        self, build: Builder, x: Value, siblings: Sequence[Sibling]
    ) -> Callable[[str, str], Value]:
        """What gives the channels of this form, of the convolution that siblings share."""
        position = next(i for i, sibling in enumerate(siblings) if sibling.form is self.form)
        first = sum(sibling.geometry.channels[1] for sibling in siblings[:position])
        last = first + siblings[position].geometry.channels[1]

        def whole(name: str) -> Value:
            operator = Operator.concatenation(
                [_composed(build, sibling.form).of(sibling.read) for sibling in siblings]
            )
            return build.convolution(
                x, operator, build.names.reserve(f"{name}_joined"), None, "joined"
            )

        def cut(name: str, part: str) -> Value:
            key = ("joined", *(sibling.node for sibling in siblings))
            return build.channels(build.once(key, lambda: whole(name)), first, last, part)

        return cut

    def words(self, regions: Regions) -> str:
        """The form, and the number of siblings."""
        counts = " and ".join(str(len(siblings)) for siblings in self.siblings.values())
        return f"a slice of {self.form.words(regions)}, for {counts} at once"


def _composed(build: Builder, form: AnyForm) -> Any:
    """The weights of a form that several ask for."""
    return build.once(("composed", form.node), lambda: build.compose(form))


def siblings_of(known: Known, form: AnyForm) -> Iterator[tuple[Hashable, Hashable, Sibling]]:
    """The dense convolutions of a form: what each shares with those it may join, and its window.

    None where it is pinned, or shares its weights with another call.
    """
    if form.node in known.pinned:
        return
    operations = [known.owner[i].call.operation for i in form.visited]
    if isinstance(form, Kept) and form.cost.layers == 1 and all(map(is_layer, operations)):
        try:
            form = Convolved.propose(known, form.node, form.visited) or form
        except Refused:
            return
    layers = [operation for operation in operations if is_layer(operation)]
    if (
        not layers
        or all(known.nodes[i].weightless for i in form.visited)
        or any(known.regions.uses[id(layer)] > 1 for layer in layers)
    ):
        return
    weighty = [layer for layer in layers if layer.weights] or layers
    kind = weighty[-1].dtype_policy.name, any(layer.trainable for layer in weighty)
    for read in form.roles:
        found = Sibling(form, read)
        geometry = found.geometry
        if not (geometry.groups > 1 or geometry.ones or geometry.normalised):
            steps = tuple((axis.stride, axis.upsampling, axis.out) for axis in geometry.axes)
            yield (read, steps, geometry.vector, kind), geometry.axes, found

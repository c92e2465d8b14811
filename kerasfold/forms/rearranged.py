"""One convolution for each tensor that is read, added up, and then rearranged.

Operators that are behind a rearrangement are composed with those before it where they pass it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.passage import Rearranged
from kerasfold.algebra.rearrange import Rearrangement
from kerasfold.cost import rearrangement_cost
from kerasfold.forms.convolved import Terms, sum_cost, sum_words, summed
from kerasfold.forms.evaluate import Part, evaluate, whole
from kerasfold.forms.form import Form
from kerasfold.forms.known import Known
from kerasfold.layers.limits import acts_on_samples
from kerasfold.lift.program import Node

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Lifted


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Reordered(Form[Terms]):
    """Convolutions, and a rearrangement of what they give.

    Attributes:
        rearrangement: of the samples of their sum.
    """

    name: ClassVar[str] = "rearranged"
    is_whole: ClassVar[bool] = True

    rearrangement: Rearrangement

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Reordered | None:
        """The whole, where something passes a rearrangement, or several are one."""
        moving = [i for i in visited if known.nodes[i].rearrangement is not None]
        values = known.terms(visited) if moving else {}
        if not any(isinstance(value, Rearranged) for value in values.values()):
            return None
        if moving == [index]:
            raise Refused("a rearrangement of what is computed before it is a step of its own")
        terms, rearrangements = {}, set()
        for read, value in values.items():
            if not isinstance(value, Rearranged):
                raise Refused("a sum of what is rearranged and what is not")
            terms[read] = value.value
            rearrangements.add(value.rearrangement)
        if len(rearrangements) > 1:
            raise Refused("a sum of what is rearranged in different ways")
        (rearrangement,) = rearrangements
        if any(map(known.misplaces_bias_of, filter(None, terms.values()))):
            return None
        node = known.nodes[index]
        cost = sum_cost(known, Part(node.channels, terms), node.sizes, known.shared(visited))
        return cls(
            node=index,
            reads=terms,
            visited=tuple(visited),
            cost=cost + rearrangement_cost(rearrangement, known.regions.graph.layout),
            rearrangement=rearrangement,
        )

    def compose(self, nodes: Sequence[Node]) -> Terms:
        """Each term by itself, before it is rearranged."""
        values = whole(evaluate(nodes, self.visited), nodes, Operator)
        return Terms({read: value.value for read, value in values.items()})

    def emit(self, build: Builder, composed: Terms, xs: Mapping[int, Value]) -> Value:
        """A layer a term, their sum, and Reshape and Permute layers."""
        name, activation = build.result()
        within = activation if acts_on_samples(activation) else None
        label = build.names.reserve(f"{name}_operator")
        x = summed(build, composed.by_node, xs, label, within)
        if within is activation:
            return build.rearranged(x, self.rearrangement, name)
        moved = build.names.reserve(f"{name}_rearranged")
        return build.activated(build.rearranged(x, self.rearrangement, moved), activation, name)

    def words(self, owner: Mapping[int, Lifted]) -> str:
        """Its terms, and the shape after all."""
        shape = "x".join("?" if n is None else str(n) for n in self.rearrangement.target)
        return f"{sum_words(self.reads)}, then rearranged to {shape}"

"""The parts of a concatenation, each computed by itself, side by side.

What applies to each group of channels by itself passes a concatenation: D [x, y] = [D_x x, D_y y].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, moved_bytes
from kerasfold.forms.convolved import sum_cost, sum_words, sum_work, summed
from kerasfold.forms.evaluate import Parts, evaluate
from kerasfold.forms.form import Composed, Form
from kerasfold.forms.known import Known, is_matrix_alone
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True)
class Stack(Composed):
    """The operators of each part, by the node that each reads; None is the identity."""

    parts: Sequence[Mapping[int, Operator | None]]

    @property
    def operators(self) -> Iterable[Operator]:
        """Those that are not the identity."""
        return (x for terms in self.parts for x in terms.values() if x is not None)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Stacked(Form[Stack]):
    """Each part of a concatenation as its own sum of convolutions, then the concatenation.

    Attributes:
        parts: their geometries.
    """

    name: ClassVar[str] = "stacked"
    needs: ClassVar[frozenset[Trait]] = frozenset({"concatenate"})

    parts: Parts

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Stacked | None:
        """What ends in a concatenation, or in what passes one."""
        parts = known.parts(visited)
        if len(parts) == 1:
            return None
        node, how = known.nodes[index], known.layering(visited)
        moved = 2 * moved_bytes(node.sizes, node.channels)
        costs = [sum_cost(known, part, node.sizes, how) for part in parts if not part.is_identity]
        costs.append(known.prices.step("copy", moved))
        return cls(
            node=index,
            reads={root: g for part in parts for root, g in part.terms.items()},
            visited=tuple(visited),
            cost=Cost.sum(costs),
            parts=parts,
        )

    def compose(self, nodes: Sequence[Node]) -> Stack:
        """Each part by itself."""
        return Stack([part.terms for part in evaluate(nodes, self.visited)])

    def emit(self, build: Builder, composed: Stack, xs: Mapping[int, Value]) -> Value:
        """The layers of each part, and a Concatenate."""
        name, activation = build.result()
        values = [
            summed(build, terms, xs, build.names.reserve(f"{name}_{i}"), role=i)
            for i, terms in enumerate(composed.parts)
        ]
        if activation is None:
            return build.stacked(values, name)
        stack = build.stacked(values, build.names.reserve(f"{name}_stack"))
        return build.activated(stack, activation, name)

    def words(self, regions: Regions) -> str:
        """Its parts."""
        is_matrix = is_matrix_alone(regions, self.visited)
        parts = (sum_words(part.terms, is_matrix) for part in self.parts if not part.is_identity)
        return f"Concatenate of {', '.join(parts)}"

    def work(self, nodes: Sequence[Node]) -> Counter[Hashable]:
        """That of its parts, and the concatenation."""
        node = nodes[self.node]
        work = sum((sum_work(part, node.sizes) for part in self.parts), Counter[Hashable]())
        work[("concatenate", node.sizes, node.channels, len(self.parts)), False] += 1
        return work

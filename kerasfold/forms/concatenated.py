"""One convolution of the concatenation of what is read.

A x + B y = [A B] [x, y], and A x beside B y is one convolution in two groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.cost import moved_bytes
from kerasfold.forms.evaluate import Parts, evaluate
from kerasfold.forms.form import Composed, Form, work_of_operator
from kerasfold.forms.known import Known, is_matrix_alone
from kerasfold.layers.limits import check_emittable
from kerasfold.layers.words import described
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True)
class Block(Composed):
    """The operator of all that is read, side by side."""

    operator: Operator

    @property
    def operators(self) -> Iterable[Operator]:
        """The one."""
        return (self.operator,)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Concatenated(Form[Block]):
    """One convolution of several tensors side by side.

    Attributes:
        order: what is read, in the order of the channels.
        whole: the geometry.
    """

    name: ClassVar[str] = "concatenated"
    needs: ClassVar[frozenset[Trait]] = frozenset({"sum", "concatenate"})

    order: tuple[int, ...]
    whole: Geometry

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Concatenated | None:
        """Sums of dense convolutions, and concatenations of convolutions of equal groups."""
        parts = known.parts(visited)
        if not _are_blocks(parts):
            return None
        rows = [Geometry.row(list(part.terms.values())) for part in parts]
        if len({(g.kernel_shape[-2], g.channels[1] // g.groups) for g in rows}) > 1:
            return None
        whole, order = Geometry.diagonal(rows), tuple(root for part in parts for root in part.terms)
        check_emittable(whole)
        read = sum(moved_bytes(known.nodes[i].sizes, known.nodes[i].channels) for i in order)
        beside = known.prices.step("copy", 2 * read)
        return cls(
            node=index,
            reads={root: g for part in parts for root, g in part.terms.items()},
            visited=tuple(visited),
            cost=known.prices.operator(whole, known.shared(visited)) + beside,
            order=order,
            whole=whole,
        )

    def compose(self, nodes: Sequence[Node]) -> Block:
        """A row of the operators of each part, and those in groups."""
        parts = evaluate(nodes, self.visited)
        return Block(Operator.diagonal([Operator.row(list(p.terms.values())) for p in parts]))

    def emit(self, build: Builder, composed: Block, xs: Mapping[int, Value]) -> Value:
        """A Concatenate and a layer."""
        name, activation = build.result()
        label = build.names.reserve(f"{name}_inputs")
        x = build.stacked([xs[root] for root in self.order], label)
        return build.convolution(x, composed.operator, name, activation, 0)

    def words(self, regions: Regions) -> str:
        """The convolution, and how many tensors it reads."""
        return f"Concatenate + {described(self.whole, is_matrix_alone(regions, self.visited))}"

    def work(self, nodes: Sequence[Node]) -> Counter[Hashable]:
        """The concatenation and the convolution."""
        read = tuple((nodes[root].sizes, nodes[root].channels) for root in self.order)
        return Counter([(("concatenate", read), False), (work_of_operator(self.whole), False)])


def _are_blocks(parts: Parts) -> bool:
    """Whether the parts are several plain operators on images alike, dense where they add up."""
    terms = [g for part in parts for g in part.terms.values()]
    plain = [g for g in terms if isinstance(g, Geometry) and not g.normalised]
    return (
        1 < len(terms) == len(plain)
        and len({(len(g.axes), g.vector) for g in plain}) == 1
        and all(len(p.terms) == 1 or all(g.groups == 1 for g in p.terms.values()) for p in parts)
    )

"""One matrix of all samples of several images, of any sizes, flattened side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kerasfold.algebra.geometry import Geometry
from kerasfold.forms.beside import Beside, is_matrix
from kerasfold.forms.concatenated import Block
from kerasfold.forms.evaluate import evaluate
from kerasfold.forms.form import Form
from kerasfold.forms.known import Known, is_matrix_alone
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Flattened(Form[Block]):
    """Flatten layers, a Concatenate and a Dense layer.

    Attributes:
        beside: the matrices.
    """

    name: ClassVar[str] = "flattened"
    needs: ClassVar[frozenset[Trait]] = frozenset({"sum", "concatenate"})

    beside: Beside

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Flattened | None:
        """A sum of matrices of several images, not all of one size."""
        part, *others = known.parts(visited)
        terms = [g for g in part.terms.values() if isinstance(g, Geometry) and is_matrix(g)]
        if others or len(terms) < len(part.terms):
            return None
        if len({tuple(axis.size for axis in g.axes) for g in terms}) == 1:
            return None  # one convolution of them all
        beside = Beside.of(terms)
        return cls(
            node=index,
            reads=part.terms,
            visited=tuple(visited),
            cost=beside.cost(known.prices, *known.layering(visited)),
            beside=beside,
        )

    def compose(self, nodes: Sequence[Node]) -> Block:
        """A row of the matrices."""
        (part,) = evaluate(nodes, self.visited)
        return Block(self.beside.operator([*part.terms.values()]))

    def emit(self, build: Builder, composed: Block, xs: Mapping[int, Value]) -> Value:
        """The images flattened, side by side, and a layer."""
        name, activation = build.result()
        x = self.beside.read(build, [xs[read] for read in self.reads], name)
        return build.convolution(x, composed.operator, name, activation, 0)

    def words(self, regions: Regions) -> str:
        """The layers."""
        return self.beside.words(is_matrix_alone(regions, self.visited))

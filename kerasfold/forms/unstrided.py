"""A call that is kept, without a stride that does nothing.

With a single window along an axis, y[0] = sum_t kernel[t] x[t r - lo] for any stride. Why such a
stride is better not there, `kerasfold.layers.spelling.strides_idly` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kerasfold.algebra.axis import Refused
from kerasfold.forms.convolved import Convolved, Terms
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Known
from kerasfold.layers.spelling import strides_idly
from kerasfold.lift.program import Node

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Unstrided(Kept):
    """The convolution that a call is, written with a stride of one.

    Attributes:
        convolved: the same call as any other convolution.
    """

    convolved: Convolved

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Unstrided | None:
        """A call of a convolution that is one operator, and strides idly."""
        node = known.nodes[index]
        if (
            tuple(visited) != tuple(known.owner[index].added)
            or len(visited) > 1
            or node.geometry is None
            or node.weightless
            or not strides_idly(node.geometry)
            or known.misplaces_bias(visited)
        ):
            return None
        try:
            convolved = Convolved.propose(known, index, visited)
        except Refused:
            return None
        kept = Kept.of(known, index)
        return cls(
            node=index,
            reads=kept.reads,
            visited=kept.visited,
            cost=convolved.cost,
            convolved=convolved,
        )

    def compose(self, nodes: Sequence[Node]) -> Terms:
        """The operator that the layer is."""
        return self.convolved.compose(nodes)

    def emit(self, build: Builder, composed: Terms, xs: Mapping[int, Value]) -> Value:
        """A layer, and the padding that its own said."""
        return self.convolved.emit(build, composed, xs)

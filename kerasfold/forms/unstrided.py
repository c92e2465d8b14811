"""A call that is kept, without a stride that does nothing.

With a single window along an axis, y[0] = sum_t kernel[t] x[t r - lo] for any stride. Why such a
stride is better not there, `kerasfold.layers.spelling.strides_idly` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kerasfold.algebra.axis import Refused
from kerasfold.forms.convolved import Convolved
from kerasfold.forms.form import AnyForm, Composed
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Known
from kerasfold.forms.separable import Separable
from kerasfold.layers.spelling import strides_idly
from kerasfold.lift.program import Node
from kerasfold.read.model import is_restrained

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Unstrided(Kept):
    """The convolution that a call is, written with a stride of one.

    Attributes:
        written: the same call as any other convolution.
    """

    written: AnyForm

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Unstrided | None:
        """A call of a convolution that strides idly, where nothing of its layer gets lost."""
        steps = [known.nodes[i] for i in visited]
        if not any(n.geometry is not None and strides_idly(n.geometry) for n in steps):
            return None
        layer = known.owner[index].call.operation
        if (
            tuple(visited) != tuple(known.owner[index].added)
            or any(n.weightless for n in steps)
            or known.regions.uses[id(layer)] > 1
            or is_restrained(layer)
            or known.misplaces_bias(visited)
        ):
            return None
        try:
            written: AnyForm | None = (
                Convolved.propose(known, index, visited)
                if len(steps) == 1
                else Separable.propose(known, index, visited)
            )
        except Refused:
            return None
        if written is None:
            return None
        kept = Kept.of(known, index)
        return cls(
            node=index, reads=kept.reads, visited=kept.visited, cost=written.cost, written=written
        )

    def compose(self, nodes: Sequence[Node]) -> Composed:
        """The weights of the layer."""
        return self.written.compose(nodes)

    def emit(self, build: Builder, composed: Any, xs: Mapping[int, Value]) -> Value:
        """A layer, and the padding that its own said."""
        return self.written.emit(build, composed, xs)

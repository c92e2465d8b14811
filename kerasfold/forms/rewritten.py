"""A call that is kept, written as a better layer that computes the same.

- With a single window along an axis, y[0] = sum_t kernel[t] x[t r - lo] for any stride. Why such a
  stride is better not there, `kerasfold.layers.spelling.strides_idly` says.
- A convolution in as many groups as it has channels is a depthwise one, which runtimes compute
  many times as fast as one group after another.
- A slice with strides is a reshape and a slice of neighbours: see `kerasfold.layers.select`; or
  the means of single pixels, which leave an image in the layout that layers have it in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kerasfold.algebra.axis import Refused
from kerasfold.forms.convolved import Convolved
from kerasfold.forms.form import AnyForm, Composed
from kerasfold.forms.kept import Kept
from kerasfold.forms.known import Known
from kerasfold.forms.separable import Separable
from kerasfold.forms.sliced import Sliced
from kerasfold.forms.weightless import Weightless
from kerasfold.forms.worth import GAIN
from kerasfold.layers.limits import depthwise_kind
from kerasfold.layers.spelling import strides_idly
from kerasfold.lift.program import Node, Trait
from kerasfold.read.model import is_layer, is_restrained

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Rewritten(Kept):
    """What a call is, in a better layer, or in better steps.

    Attributes:
        written: the same call as any other form.
        kind: class of the layer, where it is another than the call's, or "".
    """

    needs: ClassVar[frozenset[Trait]] = frozenset({"multiplies"})

    written: AnyForm
    kind: str

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Rewritten | None:
        """A call of a convolution that a better layer says, where nothing of its own gets lost."""
        layer = known.owner[index].call.operation
        steps = [known.nodes[i] for i in visited]
        geometries = [step.geometry for step in steps if step.geometry is not None]
        kind, is_idle = depthwise_kind(layer, *geometries), any(map(strides_idly, geometries))
        if not is_layer(layer) or not (kind or is_idle):
            return None  # what an operation is called with, no layer is to train
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
        gains = (had > GAIN * now for had, now in kept.cost.beside(written.cost))
        if not (is_idle or any(gains)):
            return None  # as under XLA, which computes as one what is one
        return cls(
            node=index,
            reads=kept.reads,
            visited=kept.visited,
            cost=written.cost,
            written=written,
            kind=kind,
        )

    def compose(self, nodes: Sequence[Node]) -> Composed:
        """The weights of the layer."""
        return self.written.compose(nodes)

    def emit(self, build: Builder, composed: Any, xs: Mapping[int, Value]) -> Value:
        """A layer, and the padding that its own said."""
        return self.written.emit(build, composed, xs)

    def words(self, regions: Regions) -> str:
        """The class of the layer that is written."""
        return self.kind or Kept.words(self, regions)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Thinned(Rewritten):
    """A slice with strides, as a reshape and a slice of neighbours, or as a pool."""

    needs: ClassVar[frozenset[Trait]] = frozenset()  # a slice has no weights
    bars: ClassVar[frozenset[Trait]] = frozenset({"multiplies", "scales", "rearranged"})

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Thinned | None:
        """A call of one slice, as what is the fastest of these."""
        if known.selecting(visited) != "strided":
            return None
        found: list[AnyForm] = []
        with contextlib.suppress(Refused):
            sliced = Sliced.propose(known, index, visited)
            if sliced is not None and sliced.blocks is not None:
                found.append(sliced)
        with contextlib.suppress(Refused):
            pooled = Weightless.strided(known, visited)
            if pooled is not None:
                found.append(pooled)
        if not found:
            return None
        written = min(found, key=lambda form: form.cost.total_seconds)
        kept = Kept.of(known, index)
        return cls(
            node=index,
            reads=kept.reads,
            visited=kept.visited,
            cost=written.cost._replace(layers=kept.cost.layers),
            written=written,
            kind="",
        )

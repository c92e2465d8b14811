"""A depthwise convolution and a pointwise one in one layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.operator import Operator
from kerasfold.forms.evaluate import operator_of
from kerasfold.forms.form import Composed, Form
from kerasfold.forms.known import Known
from kerasfold.layers.limits import check_emittable, is_separable
from kerasfold.layers.spelling import without_idle_strides
from kerasfold.layers.words import window
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True)
class TwoSteps(Composed):
    """The two steps of a SeparableConv layer."""

    depthwise: Operator
    pointwise: Operator

    @property
    def operators(self) -> Iterable[Operator]:
        """Both."""
        return self.depthwise, self.pointwise


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Separable(Form[TwoSteps]):
    """Depthwise up to the inside of a SeparableConv, pointwise after it.

    Attributes:
        middle: the node between the two.
    """

    name: ClassVar[str] = "separable"
    needs: ClassVar[frozenset[Trait]] = frozenset({"inner"})

    middle: int

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Separable | None:
        """The pair that the first SeparableConv of a path can become."""
        if not known.is_path(visited):
            return None
        hidden = [i for i in visited[:-1] if i not in known.regions.lifted and i in known.owner]
        for middle in hidden:
            after = visited.index(middle) + 1
            try:
                first, last = known.whole(visited[:after]), known.whole(visited[after:])
            except Refused:
                continue
            if is_separable(first, last):
                check_emittable(first)
                check_emittable(last)
                shared = known.shared(visited)
                cost = known.prices.operator(first, shared) + known.prices.operator(last, shared)
                return cls(
                    node=index,
                    reads=known.reads(visited, first),
                    visited=tuple(visited),
                    cost=cost._replace(layers=1),
                    middle=middle,
                )
        return None

    def compose(self, nodes: Sequence[Node]) -> TwoSteps:
        """What is before the middle, and what is behind it."""
        after = self.visited.index(self.middle) + 1
        return TwoSteps(
            operator_of(nodes, self.visited[:after]), operator_of(nodes, self.visited[after:])
        )

    def emit(self, build: Builder, composed: TwoSteps, xs: Mapping[int, Value]) -> Value:
        """A SeparableConv layer."""
        name, activation = build.result()
        first, last = composed.depthwise, composed.pointwise
        geometry = without_idle_strides(first.geometry, is_separable=True)
        x, padding = build.padded(xs[self.source], geometry, name)
        depthwise = first.kernel.reshape(*geometry.taps, geometry.channels[0], -1)
        return build.weighted(
            build.kind("SeparableConv", len(geometry.axes)),
            "separable",
            x,
            {"depthwise_kernel": depthwise, "pointwise_kernel": last.kernel, "bias": last.bias},
            filters=last.geometry.channels[1],
            depth_multiplier=depthwise.shape[-1],
            name=name,
            activation=activation,
            use_bias=last.geometry.biased,
            **build.window(geometry, padding),
        )

    def words(self, regions: Regions) -> str:
        """Its depthwise part."""
        (geometry,) = self.reads.values()
        assert geometry is not None
        return f"SeparableConv{len(geometry.axes)}D {window(geometry)}"

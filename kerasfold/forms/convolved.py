"""One convolution for each tensor that is read, added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.geometry import Geometry, require_plain
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, moved_bytes, operator_cost, seconds_of
from kerasfold.forms.evaluate import Flattened, evaluate
from kerasfold.forms.form import Composed, Form, described, work_of_operator
from kerasfold.forms.known import Known
from kerasfold.layers.limits import check_emittable
from kerasfold.lift.program import Node

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Lifted


@dataclass(frozen=True, eq=False, slots=True)
class Terms(Composed):
    """An operator for each node that is read; None is the identity."""

    by_node: Mapping[int, Operator | None]

    @property
    def operators(self) -> Iterable[Operator]:
        """Those that are not the identity."""
        return (operator for operator in self.by_node.values() if operator is not None)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Convolved(Form[Terms]):
    """One convolution for each tensor that is read, added up."""

    name: ClassVar[str] = "operator"
    is_whole: ClassVar[bool] = True

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Convolved:
        """The whole, wherever it composes and Keras has a layer for each term."""
        if len(visited) > 1 and all(known.is_shift(i) for i in visited):
            raise Refused("nothing but padding and cropping, which is no convolution")
        terms, shared = known.terms(visited), known.shared(visited)
        costs = [cls._cost(known, g, shared) for g in terms.values() if g is not None]
        if len(terms) > 1:
            node = known.nodes[index]
            moved = (len(terms) + 1) * moved_bytes(node.sizes, node.channels)
            costs.append(Cost(layers=1, seconds=seconds_of(moved, calls=1)))
        return cls(node=index, reads=terms, visited=tuple(visited), cost=sum(costs, Cost()))

    @classmethod
    def _cost(cls, known: Known, geometry: Geometry | Flattened, shared: int) -> Cost:
        """What one convolution costs. Raises `Refused` where it is none."""
        if isinstance(geometry, Flattened):
            raise Refused("a flattened image is not a convolution's output")

        def cost() -> Cost:
            require_plain(geometry)
            check_emittable(geometry)
            return operator_cost(geometry, shared)

        return known.once((cls, geometry, shared), cost)

    def compose(self, nodes: Sequence[Node]) -> Terms:
        """Each term by itself."""
        return Terms(evaluate(nodes, self.visited))

    def emit(self, build: Builder, composed: Terms, xs: Mapping[int, Value]) -> Value:
        """A layer a term, and their sum."""
        name, activation = build.result()
        terms = composed.by_node
        if len(terms) == 1:
            ((read, operator),) = terms.items()
            if operator is None:
                return xs[read]
            return build.convolution(xs[read], operator, name, activation, 0)
        parts = [
            xs[read]
            if operator is None
            else build.convolution(xs[read], operator, build.names.reserve(f"{name}_{i}"), None, i)
            for i, (read, operator) in enumerate(terms.items())
        ]
        if activation is None:
            return build.sum(parts, name)
        added = build.sum(parts, build.names.reserve(f"{name}_sum"))
        return build.activated(added, activation, name)

    def words(self, owner: Mapping[int, Lifted]) -> str:
        """Its terms."""
        return " + ".join(map(described, self.reads.values()))

    def work(self, nodes: Sequence[Node]) -> Counter[Hashable]:
        """Its convolutions, and their sum."""
        work: Counter[Hashable] = Counter(
            (work_of_operator(g), False) for g in self.reads.values() if g is not None
        )
        if len(self.reads) > 1:
            node = nodes[self.node]
            work[("sum", node.sizes, node.channels, len(self.reads)), False] += 1
        return work

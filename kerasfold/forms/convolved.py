"""One convolution for each tensor that is read, added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.geometry import Geometry, require_plain
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.rearranged import Rearranged
from kerasfold.cost import Cost, moved_bytes
from kerasfold.forms.beside import matrix_kind
from kerasfold.forms.evaluate import Part, alike, evaluate, is_any_rearranged, whole
from kerasfold.forms.form import Composed, Form, work_of_operator
from kerasfold.forms.known import Known, is_matrix_alone
from kerasfold.forms.worth import is_slower
from kerasfold.layers.limits import check_emittable
from kerasfold.layers.rewrite import already_padded, pad_value
from kerasfold.layers.unfused import as_difference, fused_summand, is_miscomputed
from kerasfold.layers.words import described
from kerasfold.lift.program import Node, Sizes
from kerasfold.read.weights import largest

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True)
class Terms(Composed):
    """An operator for each node that is read; None is the identity."""

    by_node: Mapping[int, Operator | None]

    @property
    def operators(self) -> Iterable[Operator]:
        """Those that are not the identity."""
        return (operator for operator in self.by_node.values() if operator is not None)

    def of(self, read: int) -> Operator:
        """A term."""
        operator = self.by_node[read]
        assert operator is not None
        return operator


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Convolved(Form[Terms]):
    """One convolution for each tensor that is read, added up.

    Attributes:
        padded: those of what is read that are padded with a constant, by a step of its own.
    """

    name: ClassVar[str] = "operator"
    is_whole: ClassVar[bool] = True

    padded: frozenset[int] = frozenset()

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Convolved | None:
        """The whole, wherever it composes and Keras has a layer for each term."""
        if len(visited) > 1 and all(known.is_copy(i) for i in visited):
            raise Refused("nothing but padding, cropping and selecting, which is no convolution")
        terms = known.terms(visited)
        if is_any_rearranged(terms.values()):
            return None
        padded = _padded(known, index, visited, terms)
        return cls(
            node=index,
            reads=terms,
            visited=tuple(visited),
            cost=_cost(known, index, visited, terms, padded),
            padded=frozenset(padded),
        )

    def compose(self, nodes: Sequence[Node]) -> Terms:
        """Each term by itself."""
        return Terms(whole(evaluate(nodes, self.visited), nodes, Operator))

    def emit(self, build: Builder, composed: Terms, xs: Mapping[int, Value]) -> Value:
        """A layer a term, and their sum."""
        name, activation = build.result()
        return summed(build, composed.by_node, xs, name, activation)

    @property
    def roles(self) -> Mapping[int, Hashable]:
        """Each term that is no identity."""
        terms = enumerate(self.reads.items())
        return {read: (None, i) for i, (read, geometry) in terms if geometry is not None}

    def words(self, regions: Regions) -> str:
        """Its terms."""
        return sum_words(self.reads, is_matrix_alone(regions, self.visited), self.padded)

    def work(self, nodes: Sequence[Node]) -> Counter[Hashable]:
        """Its convolutions, and their sum."""
        node = nodes[self.node]
        return sum_work(Part(node.channels, self.reads), node.sizes)


def _padded(
    known: Known, index: int, visited: Sequence[int], terms: Mapping[int, Any]
) -> dict[int, Geometry]:
    """Of terms with a bias before zero padding, those that a constant to pad with does away with.

    What is left of each then, by what it reads. That is known of the weights alone. Where it would
    not pay for any of them, they are not asked.
    """
    biased = [read for read, g in terms.items() if g is not None and g.ones and not g.vector]
    if not biased:
        return {}
    hoped = {read: already_padded(terms[read]) for read in biased}
    if is_slower(known, visited, _cost(known, index, visited, terms, hoped)):
        return hoped
    limit = largest(known.owner[index].tensor.dtype)
    found = known.once(("alike", *visited), lambda: _of_alike(known.nodes, visited))
    values = {
        read: pad_value(found[read], limit) for read in biased if found[read].ones is not None
    }
    return {read: hoped[read] for read, x in values.items() if x is not None}


def _cost(
    known: Known,
    index: int,
    visited: Sequence[int],
    terms: Mapping[int, Any],
    padded: Mapping[int, Geometry],
) -> Cost:
    """What terms cost, some of them of what is padded with a constant."""
    node = known.nodes[index]
    priced = Part(node.channels, {**terms, **padded} if padded else terms)
    cost = sum_cost(known, priced, node.sizes, known.layering(visited))
    for g in padded.values():
        cost += known.prices.step("cut", 2 * moved_bytes([a.size for a in g.axes], g.channels[0]))
    return cost


def _of_alike(nodes: Sequence[Node], visited: Sequence[int]) -> Mapping[int, Any]:
    """Terms, their kernels summed over the channels that they read, wherever that is as exact."""
    try:
        return whole(evaluate(nodes, visited, alike), nodes, Operator)
    except Refused:
        return whole(evaluate(nodes, visited), nodes, Operator)


def sum_cost(known: Known, part: Part, sizes: Sizes, how: tuple[int, bool]) -> Cost:
    """What the terms of a part cost, and to add them up. Raises `Refused` where one is no layer.

    Args:
        known: the program.
        part: the terms.
        sizes: of the image.
        how: what `Known.layering` says of the nodes that are composed.
    """
    costs = [term_cost(known, i, g, *how) for i, g in part.terms.items() if g is not None]
    if len(part.terms) > 1:
        moved = (len(part.terms) + 1) * moved_bytes(sizes, part.channels)
        costs += [Cost(layers=1), known.prices.step("elementwise", moved)]
    return Cost.sum(costs)


def term_cost(
    known: Known, read: int, geometry: Geometry | Rearranged[Geometry], shared: int, is_matrix: bool
) -> Cost:
    """What one convolution of what is read costs. Raises `Refused` where it is none."""
    if isinstance(geometry, Rearranged):
        raise Refused("a rearrangement of a part of what is put together")

    def cost() -> Cost:
        require_plain(geometry)
        check_emittable(geometry)
        kind = matrix_kind(geometry, is_matrix) or known.kind_reading(read, geometry)
        return known.prices.operator(geometry, shared, kind, known.seen(read, geometry))

    padded = read if known.pads(read) else None  # all that of what is read matters
    return known.once((Convolved, geometry, shared, is_matrix, padded), cost)


def summed(
    build: Builder,
    terms: Mapping[int, Operator | None],
    xs: Mapping[int, Value],
    name: str,
    activation: Any = None,
    role: Hashable = None,
) -> Value:
    """A layer for each term, and their sum; `role` tells it from other sums of the form."""
    if len(terms) == 1:
        ((read, operator),) = terms.items()
        if operator is None:
            return build.same(xs[read], name)
        return build.convolution(xs[read], operator, name, activation, (role, 0))
    values = [
        xs[read]
        if operator is None
        else build.convolution(
            xs[read], operator, build.names.reserve(f"{name}_{i}"), None, (role, i)
        )
        for i, (read, operator) in enumerate(terms.items())
    ]
    if activation is None:
        return build.sum(values, name)
    added = build.sum(values, build.names.reserve(f"{name}_sum"))
    if is_miscomputed(activation):
        summand = fused_summand(added, lambda part: all(part is not x for x in xs.values()))
        if summand is not None:
            label = build.names.reserve(f"{name}_difference")
            added = as_difference(added, summand, label, build.names, build.made)
    return build.activated(added, activation, name)


def sum_words(
    terms: Mapping[int, Geometry | None], is_matrix: bool, padded: Collection[int] = ()
) -> str:
    """The layers of terms, and that they are added up (as a difference, maybe), for the report."""
    if len(terms) == 1:
        ((read, term),) = terms.items()
        return described(term, is_matrix, read in padded)
    steps = (described(g, is_matrix, read in padded) for read, g in terms.items() if g is not None)
    return f"sum of {', '.join(steps)}"


def sum_work(part: Part, sizes: Sizes) -> Counter[Hashable]:
    """The convolutions of a part, and their sum."""
    work: Counter[Hashable] = Counter(
        (work_of_operator(g), False) for g in part.terms.values() if g is not None
    )
    if len(part.terms) > 1:
        work[("sum", sizes, part.channels, len(part.terms)), False] += 1
    return work

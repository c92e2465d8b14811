"""A pool of a sum of pointwise convolutions: what is read is pooled first, and then convolved.

mean(A x + B y) = A mean(x) + B mean(y): of as few pixels as the pool leaves. A term that is no
pointwise one is a convolution together with the pool.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from kerasfold.algebra.chain import collapsed
from kerasfold.algebra.geometry import Geometry, require_plain
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, moved_bytes
from kerasfold.forms.concatenated import Block
from kerasfold.forms.convolved import Terms, sum_words, summed
from kerasfold.forms.evaluate import (
    Affine,
    Part,
    Parts,
    evaluate,
    evaluate_node,
    is_any_rearranged,
    own,
    whole,
)
from kerasfold.forms.flattened import flat_geometry, flat_operator, is_matrix, side_by_side
from kerasfold.forms.form import Composed, Form
from kerasfold.forms.known import Known, is_matrix_alone
from kerasfold.forms.weightless import Weightless
from kerasfold.layers.limits import check_emittable
from kerasfold.layers.words import described
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from typing import Self

    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions

C = TypeVar("C", bound=Composed)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Averaged(Form[C]):
    """A pool for each tensor that is read pixel by pixel, and what convolves them all.

    Attributes:
        pools: the layer that each of these is read by.
        added: nodes that are added up, before the first that pools.
        pooling: those that pool.
        behind: those behind the last that pools.
    """

    needs: ClassVar[frozenset[Trait]] = frozenset({"mean"})
    bars: ClassVar[frozenset[Trait]] = frozenset({"rearranged"})

    pools: Mapping[int, Weightless]
    added: tuple[int, ...]
    pooling: tuple[int, ...]
    behind: tuple[int, ...]

    @classmethod
    def may_be_of(cls, traits: frozenset[Trait]) -> bool:
        """A sum that is pooled."""
        return "sum" in traits and super(Averaged, cls).may_be_of(traits)

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Self | None:
        """A sum of several tensors, some of them pixel by pixel, what pools it, and reads that."""
        first = next((k for k, i in enumerate(visited) if known.nodes[i].mean), 0)
        added, path = tuple(visited[:first]), tuple(visited[first:])
        if not added or known.nodes[path[0]].operands != added[-1:] or not known.is_path(path):
            return None
        count = next((k for k, i in enumerate(path) if not known.nodes[i].mean), len(path))
        pool, pooling, behind = Weightless.of(known, path[:count]), path[:count], path[count:]
        if pool is None or not pool.whole.steady or any(a.crop[0] for a in pool.whole.axes):
            return None
        terms = known.terms(added)
        pooled = [read for read, g in terms.items() if _is_of_pixels(g)]
        if len(terms) == 1 or not pooled or is_any_rearranged(terms.values()):
            return None
        moved = _moved(known.nodes, terms, pooled, pooling, behind, Geometry)
        for geometry in moved.values():
            if geometry is not None:
                require_plain(geometry)
                check_emittable(geometry)
        cost = cls._cost(known, visited, moved, len(pooled))
        if cost is None:
            return None
        pools = {read: pool.on(known.nodes[read].channels, known.prices) for read in pooled}
        return cls(
            node=index,
            reads=moved,
            visited=tuple(visited),
            cost=Cost.sum([cost, *(x.cost for x in pools.values())]),
            pools=pools,
            added=added,
            pooling=pooling,
            behind=behind,
        )

    @classmethod
    def _cost(
        cls, known: Known, visited: Sequence[int], terms: Mapping[int, Geometry | None], pools: int
    ) -> Cost | None:
        """What terms cost, so many of them of pooled tensors; None where they are no such form."""
        raise NotImplementedError

    def terms(self, nodes: Sequence[Node]) -> Mapping[int, Operator | None]:
        """What is applied to each tensor, pooled or not."""
        terms = whole(evaluate(nodes, self.added), nodes, Operator)
        return _moved(nodes, terms, self.pools, self.pooling, self.behind, Operator)

    def pooled(self, build: Builder, xs: Mapping[int, Value], name: str) -> Mapping[int, Value]:
        """What is read, pooled where it is to be."""
        return dict(xs) | {
            read: pool.emitted(build, xs[read], build.names.reserve(f"{name}_pool_{k}"), role=k)
            for k, (read, pool) in enumerate(self.pools.items())
        }


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class AveragedTerms(Averaged[Terms]):
    """A convolution of each pooled tensor, and their sum."""

    name: ClassVar[str] = "averaged"

    @classmethod
    def _cost(
        cls, known: Known, visited: Sequence[int], terms: Mapping[int, Geometry | None], pools: int
    ) -> Cost:
        node, shared = known.nodes[visited[-1]], known.shared(visited)
        moved = (len(terms) + 1) * moved_bytes(node.sizes, node.channels)
        added = known.prices.step("elementwise", moved) + Cost(layers=1)
        each = (known.prices.operator(g, shared) for g in terms.values() if g is not None)
        return Cost.sum([added, *each])

    def compose(self, nodes: Sequence[Node]) -> Terms:
        """Each term by itself."""
        return Terms(self.terms(nodes))

    def emit(self, build: Builder, composed: Terms, xs: Mapping[int, Value]) -> Value:
        """The pools, a layer a term, and their sum."""
        name, activation = build.result()
        return summed(build, composed.by_node, self.pooled(build, xs, name), name, activation)

    def words(self, regions: Regions) -> str:
        """The terms, of pooled tensors."""
        terms = sum_words(self.reads, is_matrix_alone(regions, self.visited))
        return f"{_said(self)} + {terms}"


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class AveragedBlock(Averaged[Block]):
    """One convolution of the pooled tensors side by side, or one matrix of them and of images."""

    name: ClassVar[str] = "averaged block"

    @classmethod
    def _cost(
        cls, known: Known, visited: Sequence[int], terms: Mapping[int, Geometry | None], pools: int
    ) -> Cost | None:
        if any(g is None or g.groups > 1 for g in terms.values()):
            return None
        if pools < len(terms) and not _is_flat(terms):
            return None
        row = _row(terms)
        check_emittable(row)
        calls = 1 + sum(bool(g and g.axes) for g in terms.values()) * _is_flat(terms)
        beside = known.prices.step("copy", 2 * moved_bytes(row.sizes, row.channels[0]), calls)
        return known.prices.operator(row, known.shared(visited)) + beside

    def compose(self, nodes: Sequence[Node]) -> Block:
        """A row of the terms."""
        terms = [x for x in self.terms(nodes).values() if x is not None]
        return Block(Operator.row([*map(flat_operator, terms)] if _is_flat(self.reads) else terms))

    def emit(self, build: Builder, composed: Block, xs: Mapping[int, Value]) -> Value:
        """The pools, a Concatenate and a layer."""
        name, activation = build.result()
        values = self.pooled(build, xs, name)
        if _is_flat(self.reads):
            x = side_by_side(build, self.reads, values, name)
        else:
            label = build.names.reserve(f"{name}_inputs")
            x = build.stacked([values[read] for read in self.reads], label)
        return build.convolution(x, composed.operator, name, activation, "operator")

    def words(self, regions: Regions) -> str:
        """The convolution, of pooled tensors."""
        layer = described(_row(self.reads), is_matrix_alone(regions, self.visited))
        return f"{_said(self)} + Concatenate + {layer}"


def _said(form: Averaged[Any]) -> str:
    """The layers that pool."""
    pool, count = next(iter(form.pools.values())), len(form.pools)
    return f"{count} x " * (count > 1) + f"{pool.family}{len(pool.whole.axes)}D"


def _is_flat(terms: Mapping[int, Geometry | None]) -> bool:
    """Whether all terms are matrices, of vectors or of whole images."""
    return all(map(is_matrix, terms.values()))


def _row(terms: Mapping[int, Geometry | None]) -> Geometry:
    """The terms side by side. Raises `Refused`."""
    dense = [g for g in terms.values() if g is not None]
    return Geometry.row([*map(flat_geometry, dense)] if _is_flat(terms) else dense)


def _is_of_pixels(term: Any) -> bool:
    """Whether a term works on each pixel by itself; None is the identity."""
    return term is None or (isinstance(term, Geometry) and term.is_of_pixels)


def _moved(
    nodes: Sequence[Node],
    terms: Mapping[int, Any],
    pooled: Collection[int],
    pooling: Sequence[int],
    behind: Sequence[int],
    domain: type[Affine],
) -> Mapping[int, Any]:
    """What is applied in the place of terms that are added up, pooled and read. Raises `Refused`.

    Args:
        nodes: the program's.
        terms: what is applied to each tensor, or None.
        pooled: the tensors that are pooled first; to them all is applied pixel by pixel.
        pooling: the nodes that pool the sum.
        behind: the nodes behind them, in order.
        domain: `Geometry` or `Operator`.
    """
    pool, last = collapsed(own(nodes[i], domain) for i in pooling), nodes[pooling[-1]]

    def at(read: int, term: Any) -> Any:
        if read not in pooled:
            return pool @ term
        return None if term is None else term.at_sizes(last.sizes)

    parts: Parts = (Part(last.channels, {read: at(read, x) for read, x in terms.items()}),)
    for index in behind:
        parts = evaluate_node(nodes[index], [parts], nodes, domain)
    return whole(parts, nodes, domain)

"""A pool of a sum of pointwise convolutions: what is read is pooled first, and then convolved.

mean(A x + B y) = A mean(x) + B mean(y): of as few pixels as the pool leaves. A term that is no
pointwise one is a convolution together with the pool.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from kerasfold.algebra.chain import collapsed
from kerasfold.algebra.geometry import Geometry, require_plain
from kerasfold.algebra.operator import Operator
from kerasfold.cost import Cost, moved_bytes
from kerasfold.forms.beside import Beside, matrix_kind, times
from kerasfold.forms.concatenated import Block
from kerasfold.forms.convolved import Terms, sum_words, summed, term_cost
from kerasfold.forms.evaluate import Affine, Part, Parts, evaluate, evaluate_node, own, whole
from kerasfold.forms.form import Composed, Form
from kerasfold.forms.known import Known, is_matrix_alone
from kerasfold.forms.weightless import Weightless
from kerasfold.layers.limits import check_emittable
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from typing import Self

    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions

C = TypeVar("C", bound=Composed)


class Steps(NamedTuple):
    """Nodes that add up, those that pool the sum, and those behind, each in order."""

    added: tuple[int, ...]
    pooling: tuple[int, ...]
    behind: tuple[int, ...]

    @classmethod
    def of(cls, known: Known, visited: Sequence[int]) -> Steps | None:
        """Those of nodes, where they are such."""
        nodes = known.nodes
        first = next((k for k, i in enumerate(visited) if nodes[i].mean), 0)
        added, path = tuple(visited[:first]), tuple(visited[first:])
        if not added or nodes[path[0]].operands != added[-1:] or not known.is_path(path):
            return None
        count = next((k for k, i in enumerate(path) if not nodes[i].mean), len(path))
        return cls(added, path[:count], path[count:])

    def moved(
        self,
        nodes: Sequence[Node],
        terms: Mapping[int, Any],
        pooled: Collection[int],
        domain: type[Affine],
    ) -> Mapping[int, Any]:
        """What is applied to each tensor in the end. Raises `Refused`.

        Args:
            nodes: the program's.
            terms: what is applied to each before the sum; None is the identity.
            pooled: the tensors that are pooled first; to them that is applied pixel by pixel.
            domain: `Geometry` or `Operator`.
        """
        pool, last = collapsed(own(nodes[i], domain) for i in self.pooling), nodes[self.pooling[-1]]

        def behind_pool(read: int, term: Any) -> Any:
            if read not in pooled:
                return pool @ term
            return None if term is None else term.at_sizes(last.sizes)

        found = {read: behind_pool(read, term) for read, term in terms.items()}
        parts: Parts = (Part(last.channels, found),)
        for index in self.behind:
            parts = evaluate_node(nodes[index], [parts], nodes, domain)
        return whole(parts, nodes, domain)


class Pools(NamedTuple):
    """What is pooled first, and what is applied then.

    Attributes:
        steps: the nodes.
        terms: what is applied to each tensor that is read, pooled or not; None is the identity.
        layers: the pool of each tensor that is pooled.
    """

    steps: Steps
    terms: Mapping[int, Geometry | None]
    layers: Mapping[int, Weightless]

    @classmethod
    def of(cls, known: Known, visited: Sequence[int]) -> Pools | None:
        """Of nodes, where some of a sum is pooled pixel by pixel. Raises `Refused`."""
        steps = Steps.of(known, visited)
        pool = None if steps is None else Weightless.of(known, steps.pooling)
        if steps is None or pool is None or not pool.averages or not pool.whole.steady:
            return None
        if any(axis.crop[0] for axis in pool.whole.axes):
            return None
        terms = known.terms(steps.added)
        pooled = [read for read, g in terms.items() if g is None or g.is_of_pixels]
        if len(terms) == 1 or not pooled:
            return None
        moved = steps.moved(known.nodes, terms, pooled, Geometry)
        for geometry in moved.values():
            if geometry is not None:
                require_plain(geometry)
                check_emittable(geometry)
        layers = {read: pool.on(known.nodes[read].channels, known.prices) for read in pooled}
        return cls(steps, moved, layers)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Averaged(Form[C]):
    """A pool for each tensor that is read pixel by pixel, and what convolves them all.

    Attributes:
        pools: the pools, and what is applied behind them.
    """

    needs: ClassVar[frozenset[Trait]] = frozenset({"mean"})
    bars: ClassVar[frozenset[Trait]] = frozenset({"rearranged"})

    pools: Pools

    @classmethod
    def may_be_of(cls, traits: frozenset[Trait]) -> bool:
        """A sum that is pooled."""
        return "sum" in traits and super(Averaged, cls).may_be_of(traits)

    @classmethod
    def found(
        cls, known: Known, index: int, visited: Sequence[int], pools: Pools, cost: Cost, **rest: Any
    ) -> Self:
        """The form of such pools and of what costs so much behind them; `rest` as of the class."""
        return cls(
            node=index,
            reads=pools.terms,
            visited=tuple(visited),
            cost=Cost.sum([cost, *(x.cost for x in pools.layers.values())]),
            pools=pools,
            **rest,
        )

    def terms(self, nodes: Sequence[Node]) -> Mapping[int, Operator | None]:
        """What is applied to each tensor, pooled or not."""
        steps = self.pools.steps
        terms = whole(evaluate(nodes, steps.added), nodes, Operator)
        return steps.moved(nodes, terms, self.pools.layers, Operator)

    def pooled(self, build: Builder, xs: Mapping[int, Value], name: str) -> Mapping[int, Value]:
        """What is read, pooled where it is to be."""
        return dict(xs) | {
            read: pool.emitted(build, xs[read], build.names.reserve(f"{name}_pool_{k}"), role=k)
            for k, (read, pool) in enumerate(self.pools.layers.items())
        }

    def pool_words(self, regions: Regions) -> str:
        """The layers that pool."""
        pool, *others = self.pools.layers.values()
        return times(1 + len(others), pool.words(regions))


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class AveragedTerms(Averaged[Terms]):
    """A convolution of each tensor, pooled or not, and their sum."""

    name: ClassVar[str] = "averaged"

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> AveragedTerms | None:
        """A sum of several tensors, some of them pixel by pixel, and what pools it."""
        pools = known.once((Averaged, *visited), lambda: Pools.of(known, visited))
        if pools is None:
            return None
        node, how = known.nodes[index], known.layering(visited)
        moved = (len(pools.terms) + 1) * moved_bytes(node.sizes, node.channels)
        costs = [known.prices.step("elementwise", moved), Cost(layers=1)]
        for read, g in pools.terms.items():
            if g is None:
                continue
            if read not in pools.layers:
                costs.append(term_cost(known, read, g, *how))
                continue
            shared, is_matrix = how
            costs.append(known.prices.operator(g, shared, matrix_kind(g, is_matrix)))
        return cls.found(known, index, visited, pools, Cost.sum(costs))

    def compose(self, nodes: Sequence[Node]) -> Terms:
        """Each term by itself."""
        return Terms(self.terms(nodes))

    def emit(self, build: Builder, composed: Terms, xs: Mapping[int, Value]) -> Value:
        """The pools, a layer a term, and their sum."""
        name, activation = build.result()
        return summed(build, composed.by_node, self.pooled(build, xs, name), name, activation)

    def words(self, regions: Regions) -> str:
        """The pools, and the terms."""
        terms = sum_words(self.reads, is_matrix_alone(regions, self.visited))
        return f"{self.pool_words(regions)} + {terms}"


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class AveragedBlock(Averaged[Block]):
    """One convolution of the pooled tensors side by side, or one matrix of them and of images.

    Attributes:
        beside: what is applied behind the pools.
    """

    name: ClassVar[str] = "averaged-block"

    beside: Beside

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> AveragedBlock | None:
        """The same, where all of it is dense, and may stand side by side."""
        pools = known.once((Averaged, *visited), lambda: Pools.of(known, visited))
        if pools is None:
            return None
        dense = [g for g in pools.terms.values() if g is not None and g.groups == 1]
        if len(dense) < len(pools.terms):
            return None
        beside = Beside.of(dense)
        if not beside.flat and len(pools.layers) < len(dense):
            return None  # images of several sizes
        cost = beside.cost(known.prices, *known.layering(visited))
        return cls.found(known, index, visited, pools, cost, beside=beside)

    def compose(self, nodes: Sequence[Node]) -> Block:
        """A row of the terms."""
        terms = self.terms(nodes).values()
        return Block(self.beside.operator([x for x in terms if x is not None]))

    def emit(self, build: Builder, composed: Block, xs: Mapping[int, Value]) -> Value:
        """The pools, a Concatenate and a layer."""
        name, activation = build.result()
        values = self.pooled(build, xs, name)
        x = self.beside.read(build, [values[read] for read in self.reads], name)
        return build.convolution(x, composed.operator, name, activation, 0)

    def words(self, regions: Regions) -> str:
        """The pools, and what stands behind them."""
        behind = self.beside.words(is_matrix_alone(regions, self.visited))
        return f"{self.pool_words(regions)} + {behind}"

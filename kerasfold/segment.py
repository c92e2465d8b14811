"""A step of a plan, and its composition: of sizes while planning, of weights for emission."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.border import frame_boxes, frame_of, restricted
from kerasfold.algebra.chain import chain
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.tiles import Parts, mirrored_parts, products, tile, tile_parts
from kerasfold.cost import Cost
from kerasfold.lift.program import Node


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """How one materialised node is computed.

    Attributes:
        node: the node.
        form: 'keep', the original call; 'operator', one convolution per term, added up;
            'separable', a depthwise convolution and a pointwise one in one layer; 'framed',
            one convolution for the interior, and `stages` on thin strips for the border;
            'tiled', a convolution of its own for the interior and for the rows, columns and
            corners of the border; 'pooled', an average pool after or before everything else;
            'joined', a slice of one convolution that gives several nodes.
        terms: operator by materialised node or root that is read; None is the identity.
        visited: nodes composed into it, `node` the last.
        cost: its cost.
        middle: for 'separable', the node between its two parts; for 'pooled', the pool.
        stages: for 'framed' and 'tiled', the nodes of each step that does not compose whole.
        parts: for 'tiled', the groups of each axis: their products are one convolution each.
        pool_first: for 'pooled', whether the pool comes before the rest.
        siblings: for 'joined', the nodes that the convolution gives, in the order of its channels.
        refusal: why the whole of it is not one operator, or "".
    """

    node: int
    form: Literal["keep", "operator", "separable", "framed", "tiled", "pooled", "joined"]
    terms: Mapping[int, Geometry | None]
    visited: tuple[int, ...]
    cost: Cost
    middle: int | None = None
    stages: tuple[tuple[int, ...], ...] = ()
    parts: Parts = ()
    pool_first: bool = False
    siblings: tuple[int, ...] = ()
    refusal: str = ""


class OutOfRange(Exception):
    """Composed weights that the dtype they will be stored or used in cannot hold."""

    def __init__(self, nodes: set[int]) -> None:
        self.nodes = nodes


Affine = TypeVar("Affine", Geometry, Operator)


def own(node: Node, domain: type[Affine]) -> Affine:
    """What an operator node applies: its geometry, or its operator, the weights read now."""
    value: Any = node.geometry if domain is Geometry else node.load and node.load()
    assert value is not None
    return value


@dataclass(frozen=True, slots=True)
class Flattened:
    """A flattened image: no operator itself, but a matrix applied to it is one."""

    value: Any
    sizes: tuple[int | None, ...]
    channels: int


def evaluate_node(
    node: Node,
    values: Sequence[Mapping[int, Any]],
    nodes: Sequence[Node],
    domain: type[Affine],
) -> dict[int, Any]:
    """A node's values by root, from those of its operands.

    Args:
        node: the node.
        values: of each operand; None is the identity, `Flattened` a vector of an image.
        nodes: the program's.
        domain: `Geometry`, to compose sizes alone, or `Operator`.

    Raises:
        Refused: no exact value.
    """

    def solid(root: int, value: Any) -> Affine:
        if isinstance(value, Flattened):
            raise Refused("a flattened image is combined with others before a matrix reads it")
        return domain.identity(nodes[root].sizes, nodes[root].channels) if value is None else value

    if node.form == "operator":
        step, (inner,) = own(node, domain), values
        result = {}
        for position, (root, value) in enumerate(inner.items()):
            term = step if position == 0 else step.linear()
            if isinstance(value, Flattened):
                term, value = term.unflattened(value.sizes, value.channels), value.value
            result[root] = term if value is None else term @ value
        return result
    if node.form == "flatten":
        image = nodes[node.operands[0]]
        return {
            root: Flattened(value, image.sizes, image.channels) for root, value in values[0].items()
        }
    if node.form == "concatenate":
        roots = {root for value in values for root in value}
        if len(roots) > 1:
            raise Refused("a concatenation of several sources")
        (root,) = roots
        return {root: domain.concatenation([solid(root, value[root]) for value in values])}
    by_root: dict[int, list[Any]] = {}
    for operand, factor in zip(values, node.factors, strict=True):
        for root, term in operand.items():
            if factor != 1.0:
                term = solid(root, term).scaled(factor)
            by_root.setdefault(root, []).append(term)
    return {
        root: terms[0] if len(terms) == 1 else domain.sum([solid(root, t) for t in terms])
        for root, terms in by_root.items()
    }


def evaluate(nodes: Sequence[Node], visited: Sequence[int]) -> dict[int, Any]:
    """The last of the `visited` nodes, as one operator per node or root that is read.

    Args:
        nodes: the program's.
        visited: the nodes to compose, in order.

    Raises:
        Refused: no exact composition.
    """
    if is_path(nodes, visited):
        (root,) = nodes[visited[0]].operands
        return {root: chain([own(nodes[i], Operator) for i in visited])}
    values: dict[int, dict[int, Any]] = {}
    for index in visited:
        operands = [values.get(o, {o: None}) for o in nodes[index].operands]
        values[index] = evaluate_node(nodes[index], operands, nodes, Operator)
    return values[visited[-1]]


def is_path(nodes: Sequence[Node], visited: Sequence[int]) -> bool:
    """Whether nodes are operators, each reading the one before it."""
    return all(nodes[i].form == "operator" for i in visited) and all(
        nodes[after].operands[0] == before for before, after in itertools.pairwise(visited)
    )


def weights_of(nodes: Sequence[Node], segment: Segment) -> dict[Any, Operator | None]:
    """The composed weights of a segment, by the node it reads; None is the identity.

    Of a 'separable' segment, its two operators, by 'depthwise' and 'pointwise'; of a
    'framed' one, the operator of the interior by 'interior', and its stages by number; of a
    'tiled' one, the operator of each tile by its box.
    """
    if segment.form == "tiled":
        stages = [_single(evaluate(nodes, stage)) for stage in segment.stages]
        boxes = (products(groups).values() for groups in itertools.product(*segment.parts))
        return {box: tile(stages, box) for box in itertools.chain.from_iterable(boxes)}
    if segment.stages:
        stages = [_single(evaluate(nodes, stage)) for stage in segment.stages]
        inner, _ = framed_geometries([stage.geometry for stage in stages])
        interior = chain(
            [
                Operator(geometry, stage.kernel, stage.bias)
                for geometry, stage in zip(inner, stages, strict=True)
            ]
        )
        return {"interior": interior, **dict(enumerate(stages))}
    if segment.form == "pooled":
        others = [i for i in segment.visited if i != segment.middle]
        links = [
            at_sizes(own(nodes[i], Operator), sizes)
            for i, sizes in zip(
                others,
                sizes_without(nodes, segment.visited, segment.middle, segment.pool_first),
                strict=True,
            )
        ]
        return {"operator": chain(links)}
    if segment.middle is None:
        return evaluate(nodes, segment.visited)
    before = [i for i in segment.visited if i <= segment.middle]
    after = [i for i in segment.visited if i > segment.middle]
    (depthwise,) = evaluate(nodes, before).values()
    (pointwise,) = evaluate(nodes, after).values()
    return {"depthwise": depthwise, "pointwise": pointwise}


def _single(values: Mapping[int, Any]) -> Any:
    (value,) = values.values()
    return value


def sizes_without(
    nodes: Sequence[Node], visited: Sequence[int], pool: int | None, pool_first: bool
) -> list[Sequence[int | None] | None]:
    """Image sizes for the pointwise nodes of a chain that move past its pool, else None."""
    assert pool is not None
    before = nodes[nodes[pool].operands[0]].sizes
    moved = [i < pool if pool_first else i > pool for i in visited if i != pool]
    return [(nodes[pool].sizes if pool_first else before) if m else None for m in moved]


def at_sizes(value: Affine, sizes: Sequence[int | None] | None) -> Affine:
    """A pointwise geometry or operator on images of other sizes; as it is for None."""
    return value if sizes is None else value.at_sizes(sizes)


def framed_geometries(
    stages: Sequence[Geometry],
) -> tuple[list[Geometry], list[tuple[int, int, list[Geometry]]]]:
    """The stages restricted to the interior, and, as (axis, side, stages), to each strip.

    Raises:
        Refused: no interior, or a strip that reads nothing but padding.
    """
    sizes = [n for n in stages[-1].sizes if n is not None]
    if len(stages) < 2 or len(sizes) < len(stages[-1].axes):
        raise Refused("the border of an image of unknown size")
    interior, strips = frame_boxes(sizes, frame_of(stages))
    return (
        restricted(stages, interior),
        [(axis, side, restricted(stages, box)) for axis, side, box in strips],
    )


def tilings(stages: Sequence[Geometry]) -> list[Parts]:
    """The ways to part an image into tiles in which the stages compose.

    Raises:
        Refused: an unknown size, or an image with no interior.
    """
    frame = frame_of(stages)
    sizes = [n for n in stages[-1].sizes if n is not None]
    return [mirrored_parts(sizes, frame), tile_parts(sizes, frame)]

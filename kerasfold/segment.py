"""A step of a plan, and its composition: of sizes while planning, of weights for emission."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kerasfold.algebra.axis import Axis, Refused
from kerasfold.algebra.border import frame_boxes, frame_of, restricted
from kerasfold.algebra.chain import chain
from kerasfold.algebra.geometry import (
    Geometry,
    add_geometry,
    compose_geometry,
    concatenate_geometry,
    flattened_input,
    identity_geometry,
)
from kerasfold.algebra.operator import (
    Operator,
    add,
    compose,
    concatenate,
    flattened_operator,
    identity,
)
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


class Sizes:
    """Composition of geometries."""

    compose = staticmethod(compose_geometry)
    add = staticmethod(add_geometry)
    concatenate = staticmethod(concatenate_geometry)
    identity = staticmethod(identity_geometry)
    unflatten = staticmethod(flattened_input)

    @staticmethod
    def load(node: Node) -> Geometry:
        """The geometry of an operator node."""
        assert node.geometry is not None
        return node.geometry

    @staticmethod
    def scaled(value: Geometry, factor: float) -> Geometry:
        """A multiple has the same geometry."""
        return value

    @staticmethod
    def linear(value: Geometry) -> Geometry:
        """The part without any constant."""
        if not (value.biased or value.ones):
            return value
        return replace(value, biased=False, ones=False)


class Values:
    """Composition of operators."""

    compose = staticmethod(compose)
    add = staticmethod(add)
    concatenate = staticmethod(concatenate)
    identity = staticmethod(identity)
    unflatten = staticmethod(flattened_operator)

    @staticmethod
    def load(node: Node) -> Operator:
        """The operator of an operator node, its weights read now."""
        assert node.load is not None
        return node.load()

    @staticmethod
    def scaled(value: Operator, factor: float) -> Operator:
        """A multiple."""
        return value.scaled(factor)

    @staticmethod
    def linear(value: Operator) -> Operator:
        """The part without any constant."""
        return Operator(Sizes.linear(value.geometry), value.kernel, 0 * value.bias)


@dataclass(frozen=True, slots=True)
class Flattened:
    """A flattened image: no operator itself, but a matrix applied to it is one."""

    value: Any
    sizes: tuple[int | None, ...]
    channels: int


def apply(
    node: Node, values: Sequence[dict[int, Any]], nodes: Sequence[Node], domain: Any
) -> dict[int, Any]:
    """A node's operators by root, from those of its operands.

    `domain` is `Sizes`, to compose geometries, or `Values`, to compose operators.
    """

    def solid(root: int, value: Any) -> Any:
        if isinstance(value, Flattened):
            raise Refused("a flattened image is combined with others before a matrix reads it")
        return domain.identity(nodes[root].sizes, nodes[root].channels) if value is None else value

    if node.form == "operator":
        own, (inner,) = domain.load(node), values
        result = {}
        for position, (root, value) in enumerate(inner.items()):
            step = own if position == 0 else domain.linear(own)
            if isinstance(value, Flattened):
                step, value = domain.unflatten(step, value.sizes, value.channels), value.value
            result[root] = step if value is None else domain.compose(step, value)
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
        return {root: domain.concatenate([solid(root, value[root]) for value in values])}
    by_root: dict[int, list[Any]] = {}
    for value, factor in zip(values, node.factors, strict=True):
        for root, term in value.items():
            if factor != 1.0:
                term = domain.scaled(solid(root, term), factor)
            by_root.setdefault(root, []).append(term)
    return {
        root: terms[0] if len(terms) == 1 else domain.add([solid(root, t) for t in terms])
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
        return {root: chain([Values.load(nodes[i]) for i in visited])}
    values: dict[int, dict[int, Any]] = {}
    for index in visited:
        operands = [values.get(o, {o: None}) for o in nodes[index].operands]
        values[index] = apply(nodes[index], operands, nodes, Values)
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
            at_sizes(Values.load(nodes[i]), sizes)
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


def at_sizes(value: Any, sizes: Sequence[int | None] | None) -> Any:
    """A pointwise geometry or operator, on images of other sizes."""
    if sizes is None:
        return value
    axes = tuple(map(Axis, sizes))
    if isinstance(value, Operator):
        return Operator(replace(value.geometry, axes=axes), value.kernel, value.bias)
    return replace(value, axes=axes)


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

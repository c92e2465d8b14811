"""Nodes of a program as operators of what they read: of sizes alone, or with their weights."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.chain import chain
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.lift.program import Node

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

    if node.op == "operator":
        step, (inner,) = own(node, domain), values
        result = {}
        for position, (root, value) in enumerate(inner.items()):
            term = step if position == 0 else step.linear()
            if isinstance(value, Flattened):
                term, value = term.unflattened(value.sizes, value.channels), value.value
            result[root] = term if value is None else term @ value
        return result
    if node.op == "flatten":
        image = nodes[node.operands[0]]
        return {
            root: Flattened(value, image.sizes, image.channels) for root, value in values[0].items()
        }
    if node.op == "concatenate":
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
    return all(nodes[i].op == "operator" for i in visited) and all(
        nodes[after].operands[0] == before for before, after in itertools.pairwise(visited)
    )


def operator_of(nodes: Sequence[Node], path: Sequence[int]) -> Operator:
    """A path of operators as one. Raises `Refused`."""
    (operator,) = evaluate(nodes, path).values()
    return operator

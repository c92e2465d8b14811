"""Nodes of a program as operators of what they read: of sizes alone, or with their weights."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from kerasfold.algebra.axis import Axis, Refused
from kerasfold.algebra.chain import chain
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.rearranged import Rearranged, applied, rearranged, scaled_along
from kerasfold.lift.program import Node

Affine = TypeVar("Affine", Geometry, Operator)


def own(node: Node, domain: type[Affine]) -> Affine:
    """What an operator node applies: its geometry, or its operator, the weights read now."""
    value: Any = node.geometry if domain is Geometry else node.load and node.load()
    assert value is not None
    return value


@dataclass(frozen=True, slots=True)
class Part:
    """Channels of a node that lie side by side: a sum over what they read.

    Attributes:
        channels: how many.
        terms: by root, an operator or its geometry; None is the identity, `Rearranged` either
            with a rearrangement behind it.
    """

    channels: int
    terms: Mapping[int, Any]

    @property
    def is_identity(self) -> bool:
        """Whether it is what is read, as it is."""
        return len(self.terms) == 1 and None in self.terms.values()


Parts: TypeAlias = tuple[Part, ...]  # of a node, in the order of its channels


def identity(node: Node) -> Parts:
    """A node that is read, as it is."""
    return (Part(node.channels, {node.index: None}),)


def alike(node: Node) -> Parts:
    """A node that is read, where all of its channels hold one image: as an operator of that."""
    geometry = Geometry(tuple(map(Axis, node.sizes)), (1, node.channels))
    column = Operator(geometry, np.ones(geometry.kernel_shape), np.zeros(node.channels))
    return (Part(node.channels, {node.index: column}),)


def evaluate_node(
    node: Node, values: Sequence[Parts], nodes: Sequence[Node], domain: type[Affine]
) -> Parts:
    """What a node is of its roots, from what its operands are.

    A concatenation has the parts of what it joins. An operator applies to each of them, or to
    several added up, as its groups read them; what selects channels to those that they are of.

    Args:
        node: the node.
        values: of each operand.
        nodes: the program's.
        domain: `Geometry`, to compose sizes alone, or `Operator`.

    Raises:
        Refused: no exact value.
    """
    if node.selected and len(values[0]) > 1:
        return _selected(node, values[0], domain)
    if node.op == "operator":
        return _applied(own(node, domain), values[0], node, domain)
    if node.op == "concatenate":
        return tuple(itertools.chain.from_iterable(values))
    if node.rearrangement is not None:
        terms = whole(values[0], nodes, domain)
        moved = {
            root: _rearranged(node, value, first=position == 0, domain=domain)
            for position, (root, value) in enumerate(terms.items())
        }
        return (Part(node.channels, moved),)
    in_parts = max(map(len, values)) > 1
    if in_parts and len({tuple(part.channels for part in value) for value in values}) > 1:
        values = [(Part(node.channels, whole(value, nodes, domain)),) for value in values]
    return tuple(
        _weighted_sum(parts, node.factors, nodes, domain) for parts in zip(*values, strict=True)
    )


def whole(parts: Parts, nodes: Sequence[Node], domain: type[Affine]) -> Mapping[int, Any]:
    """All channels of a node together, by root. Raises `Refused`."""
    roots = parts[0].terms.keys()
    if len(parts) == 1:
        return parts[0].terms
    if any(part.terms.keys() != roots for part in parts):
        raise Refused("a concatenation of several sources")
    if any(is_any_rearranged(part.terms.values()) for part in parts):
        raise Refused("a concatenation of what is rearranged")
    return {
        root: domain.concatenation([_solid(root, p.terms[root], nodes, domain) for p in parts])
        for root in roots
    }


def is_any_rearranged(values: Iterable[Any]) -> bool:
    """Whether there is a rearrangement among what roots became: at a glance."""
    return Rearranged in set(map(type, values))


def _applied(step: Affine, parts: Parts, node: Node, domain: type[Affine]) -> Parts:
    """An operator, applied to parts that it reads all channels of."""
    found: dict[int, dict[int, list[Any]]] = {}  # by the first channel written, and by root
    added: Counter[int] = Counter()  # parts, by the same
    first = 0
    for part in parts:
        piece, at = step.reading(first, part.channels)
        terms = found.setdefault(at, {})
        added[at] += 1
        for root, value in part.terms.items():
            term = piece.linear() if terms else piece  # what is added to a sum is added once
            terms.setdefault(root, []).append(applied(term, value, node.work != "shift"))
        first += part.channels
    ends = (*list(found)[1:], node.channels)
    return tuple(
        Part(end - at, _sums(terms, added[at], domain))
        for (at, terms), end in zip(found.items(), ends, strict=True)
    )


def _selected(node: Node, parts: Parts, domain: type[Affine]) -> Parts:
    """The parts, or pieces of them, that selected channels are in."""
    places = [(i, c) for i, part in enumerate(parts) for c in range(part.channels)]
    step, found, at = own(node, domain), [], 0
    for number, run in itertools.groupby((places[c] for c in node.selected), key=lambda p: p[0]):
        part, channels = parts[number], [c for _, c in run]
        terms = part.terms
        if channels != list(range(part.channels)):
            first = places.index((number, 0))
            piece = step.block(first, part.channels, at, len(channels))
            terms = {root: applied(piece, value) for root, value in terms.items()}
        found.append(Part(len(channels), terms))
        at += len(channels)
    return tuple(found)


def _rearranged(node: Node, value: Any, first: bool, domain: type[Affine]) -> Any:
    """What a root became, rearranged, or scaled along some axes; shifted, if it is the first."""
    assert node.rearrangement is not None
    if node.op == "rearrange":
        return rearranged(value, node.rearrangement)
    step = own(node, domain)
    step = step if first else step.linear()
    return scaled_along(step, node.rearrangement, value, node.work == "scale")


def _weighted_sum(
    parts: Sequence[Part],
    factors: Sequence[float],
    nodes: Sequence[Node],
    domain: type[Affine],
) -> Part:
    """A weighted sum of parts of as many channels; of those times 0 alone, the first."""
    terms: dict[int, list[Any]] = {}
    pairs = list(zip(parts, factors, strict=True))
    for part, factor in [pair for pair in pairs if pair[1]] or pairs[:1]:
        for root, term in part.terms.items():
            if factor != 1.0:
                term = _solid(root, term, nodes, domain).scaled(factor)
            terms.setdefault(root, []).append(term)
    solid = {
        root: values
        if len(values) == 1
        else [_solid(root, value, nodes, domain) for value in values]
        for root, values in terms.items()
    }
    return Part(parts[0].channels, _sums(solid, max(1, sum(map(bool, factors))), domain))


def _sums(
    terms: Mapping[int, Sequence[Any]], parts: int, domain: type[Affine]
) -> Mapping[int, Any]:
    """The sums of what each root became in so many parts. Raises `Refused`."""
    every = [*itertools.chain.from_iterable(terms.values())]
    if parts > 1 and is_any_rearranged(every):
        scaled = (isinstance(x, Rearranged) and x.scale is not None for x in every)
        if any(scaled):  # the terms of one part have their scale in common
            raise Refused("a sum of what is scaled sample by sample")
    return {root: _sum(values, domain) for root, values in terms.items()}


def _sum(terms: Sequence[Any], domain: type[Affine]) -> Any:
    """The sum of what one root became. Raises `Refused`."""
    if len(terms) == 1:
        return terms[0]
    moved = {term.rearrangement if isinstance(term, Rearranged) else None for term in terms}
    if len(moved) > 1:
        raise Refused("a sum of what is rearranged in different ways")
    (rearrangement,) = moved
    if rearrangement is None:
        return domain.sum(terms)
    return rearranged(domain.sum([term.value for term in terms]), rearrangement)


def _solid(root: int, value: Any, nodes: Sequence[Node], domain: type[Affine]) -> Any:
    """What a root became, with an operator for the identity."""
    if isinstance(value, Rearranged):
        return replace(value, value=_solid(root, value.value, nodes, domain))
    return domain.identity(nodes[root].sizes, nodes[root].channels) if value is None else value


def evaluate(
    nodes: Sequence[Node], visited: Sequence[int], read: Callable[[Node], Parts] = identity
) -> Parts:
    """The last of the `visited` nodes, as operators of the nodes or roots that are read.

    Args:
        nodes: the program's.
        visited: the nodes to compose, in order.
        read: what the nodes are that are read.

    Raises:
        Refused: no exact composition.
    """
    last = nodes[visited[-1]]
    if read is identity and is_path(nodes, visited):
        (root,) = nodes[visited[0]].operands
        return (Part(last.channels, {root: chain([own(nodes[i], Operator) for i in visited])}),)
    values: dict[int, Parts] = {}
    try:
        for index in visited:
            operands = [values.get(o) or read(nodes[o]) for o in nodes[index].operands]
            values[index] = evaluate_node(nodes[index], operands, nodes, Operator)
    except Refused:
        rest = functools.partial(evaluate, nodes)
        found = from_behind(nodes, visited, Operator, chain, rest) if read is identity else None
        if found is None:
            raise
        return found
    return values[last.index]


def from_behind(
    nodes: Sequence[Node],
    visited: Sequence[int],
    domain: type[Affine],
    composed: Callable[[Sequence[Affine]], Affine],
    parts: Callable[[Sequence[int]], Parts],
) -> Parts | None:
    """What a path of operators to a rearrangement and all after that are, the last composed first.

    That may compose what its first nodes do not: a matrix behind a flatten sees all of an image,
    and no border but that of the image itself.

    Args:
        nodes: the program's.
        visited: the nodes to compose, in order.
        domain: `Geometry`, to compose sizes alone, or `Operator`.
        composed: a chain of such, as one.
        parts: what the nodes from the rearrangement on are.

    Returns:
        None where they are no such path, or do not compose.
    """
    count = next((k for k, i in enumerate(visited) if nodes[i].op != "operator"), 0)
    path, rest = visited[:count], visited[count:]
    if not path or nodes[rest[0]].rearrangement is None or not is_path(nodes, path):
        return None
    try:
        value = whole(parts(rest), nodes, domain)
        if set(value) != {path[-1]} or not isinstance(value[path[-1]], domain):
            return None
        links: list[Any] = [own(nodes[i], domain) for i in path]
        total = composed([*links, value[path[-1]]])
    except Refused:
        return None
    return (Part(nodes[visited[-1]].channels, {nodes[path[0]].operands[0]: total}),)


def is_path(nodes: Sequence[Node], visited: Sequence[int]) -> bool:
    """Whether nodes are operators, each reading the one before it."""
    return all(nodes[i].op == "operator" for i in visited) and all(
        nodes[after].operands[0] == before for before, after in itertools.pairwise(visited)
    )


def operator_of(nodes: Sequence[Node], visited: Sequence[int]) -> Operator:
    """The last of nodes that read one tensor, as one operator of that. Raises `Refused`."""
    (operator,) = whole(evaluate(nodes, visited), nodes, Operator).values()
    assert isinstance(operator, Operator)
    return operator

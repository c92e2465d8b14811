"""The affine program: nodes, in topological order, and the weights they are made of.

A node is a root (a tensor the affine part reads), an operator applied to one node, a weighted
sum, a concatenation of channels, a rearrangement of samples, such as a flattening, or a scale and
a shift that vary along other axes than the channels. Kernels are recorded as functions, and read
where a form is composed; of biases, scales and shifts it is known at once whether they are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.rearrange import Rearrangement
from kerasfold.read.weights import as_array, as_stored, shape_of

Sizes: TypeAlias = tuple[int | None, ...]
Op: TypeAlias = Literal["root", "operator", "sum", "concatenate", "rearrange", "scale"]
Work: TypeAlias = Literal["matrix", "product", "pool", "scale", "shift", "copy"]
Trait: TypeAlias = Literal[
    "sum",  # adds up
    "concatenate",  # puts channels side by side
    "rearranged",  # moves samples, or multiplies or shifts them along other axes than the channels
    "multiplies",  # by weights, and adds up
    "scales",  # multiplies or shifts each channel
    "mean",  # of samples, each channel by itself
    "window",  # reads other pixels than the one at its place
    "inner",  # is not the last that its call does
]


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One value of an affine program.

    Attributes:
        index: position in the program; operands come first.
        op: what the node is.
        operands: nodes it reads.
        sizes: samples along each spatial axis, None where unknown.
        channels: number of channels.
        geometry: of the operator, for 'operator' and 'scale'.
        load: reads the operator's weights, for 'operator' and 'scale'.
        kernel: that of the operator alone, where it can be looked at as it is stored.
        bias: what the operator adds, where that is at hand.
        factors: one weight per operand, for 'sum'; what is times 0 is not computed.
        rearrangement: of the samples, for 'rearrange'; for 'scale', one that makes channels of
            the axes it varies along.
        work: what an operator does: multiply the channels by a matrix, or windows by weights and
            add up, add up alone, multiply or shift each channel, or copy (padding, cropping,
            selecting, repeating).
        selected: of an operator that selects channels, which of its operand each one is.
        mean: whether every output is a weighted mean of its own channel's inputs, but for what
            padding cuts off: such an operator commutes with pointwise ones.
    """

    index: int
    op: Op
    operands: tuple[int, ...]
    sizes: Sizes
    channels: int
    geometry: Geometry | None = None
    load: Callable[[], Operator] | None = None
    kernel: Weights | None = None
    bias: np.ndarray | None = None
    factors: tuple[float, ...] = ()
    rearrangement: Rearrangement | None = None
    work: Work | None = None
    selected: tuple[int, ...] = ()
    mean: bool = False

    def looked_at(self) -> np.ndarray:
        """The kernel of its operator, of whatever float it is stored in."""
        if self.kernel is not None:
            return self.kernel.stored()
        assert self.load is not None
        return self.load().kernel

    def as_stored(self) -> Operator:
        """Its operator, the kernel as stored and no bias, for those who read but a part of it."""
        assert self.geometry is not None
        return Operator(self.geometry, self.looked_at(), np.zeros(self.geometry.channels[1]))

    def offset(self) -> np.ndarray:
        """What its operator adds to each channel; no kernel is read where that is at hand."""
        if self.bias is not None:
            return self.bias
        assert self.load is not None
        return self.load().bias

    @property
    def traits(self) -> frozenset[Trait]:
        """What tells at a glance which forms it may have, but for whether it is inside a call."""
        g = self.geometry
        found: dict[Trait, bool] = {
            "sum": self.op == "sum",
            "concatenate": self.op == "concatenate",
            "rearranged": self.rearrangement is not None,
            "multiplies": self.multiplies,
            "scales": self.work in ("scale", "shift"),
            "mean": self.mean,
            "window": g is not None and not g.is_of_pixels,
        }
        return frozenset(trait for trait, is_so in found.items() if is_so)

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies by weights, and adds up."""
        return self.work in ("matrix", "product")

    @property
    def weightless(self) -> bool:
        """Whether it multiplies by no weights."""
        return self.work in ("pool", "copy")


@dataclass(slots=True)
class Program:
    """Nodes in topological order."""

    nodes: list[Node] = field(default_factory=list)

    def append(
        self, op: Op, operands: tuple[int, ...], sizes: Sizes, channels: int, **rest: Any
    ) -> Node:
        """A new node, the last one; `rest` are its other attributes."""
        node = Node(len(self.nodes), op, operands, sizes, channels, **rest)
        self.nodes.append(node)
        return node

    def totals(self, terms: Sequence[Node], factors: Sequence[float]) -> dict[Node, float]:
        """The factor of each term of a sum: 0 where its own cancel, or the term itself is zero."""
        total: dict[Node, float] = {}
        for term, factor in zip(terms, factors, strict=True):
            total[term] = total.get(term, 0.0) + factor
        return {term: 0.0 if self.is_zero(term) else factor for term, factor in total.items()}

    def is_zero(self, node: Node) -> bool:
        """Whether a node is zero whatever is read, as a difference of a tensor and itself."""
        while node.op in ("operator", "rearrange"):
            if node.geometry is not None and node.geometry.biased:
                return False
            node = self.nodes[node.operands[0]]
        return node.op == "sum" and not any(node.factors)

    def keep(self, start: int, ends: Sequence[Node]) -> list[Node]:
        """Drop the nodes from `start` on that `ends` do not need; these, at their new places."""
        if len(ends) == 1 and ends[0].index == start == len(self.nodes) - 1:
            return list(ends)  # all that there is, as of most layers
        needed, stack = {node.index for node in ends}, list(ends)
        while stack:
            for operand in stack.pop().operands:
                if operand >= start and operand not in needed:
                    needed.add(operand)
                    stack.append(self.nodes[operand])
        places: dict[int, int] = {}
        for index in sorted(i for i in needed if i >= start):
            kept = self.nodes[index]
            place = places[index] = start + len(places)
            operands = tuple(places.get(o, o) for o in kept.operands)
            self.nodes[place] = replace(kept, index=place, operands=operands)
        del self.nodes[start + len(places) :]
        return [self.nodes[places.get(node.index, node.index)] for node in ends]


@dataclass(frozen=True, slots=True)
class Weights:
    """An array of known shape whose values are read when they are needed.

    Attributes:
        shape: of the array.
        stored: gives its values, of whatever float they are stored in.
    """

    shape: tuple[int, ...]
    stored: Callable[[], np.ndarray]

    @classmethod
    def selecting(cls, rank: int, channels: int, chosen: Sequence[int]) -> Weights:
        """The kernel of one pixel that gives some channels, in an order."""
        shape = (*(1,) * rank, channels, len(chosen))

        def matrix() -> np.ndarray:
            values = np.zeros(shape)
            values[..., chosen, np.arange(len(chosen))] = 1.0
            return values

        return cls(shape, matrix)

    def read(self) -> np.ndarray:
        """The values in float64."""
        return as_array(self.stored())

    def reshape(self, *shape: int) -> Weights:
        """The same values in another shape."""
        return Weights(shape, lambda: self.stored().reshape(shape))


def weights(value: Any) -> Weights:
    """`Weights` of a Keras variable, an array, or `Weights` themselves."""
    if isinstance(value, Weights):
        return value
    return Weights(shape_of(value), lambda: as_stored(value))


def triangle(factor: int) -> np.ndarray:
    """Weights of linear interpolation between pixel centres, by output's distance."""
    half = (factor - 1) / 2  # of the output pixels that lie within one input pixel
    taps = 2 * factor - factor % 2
    centre = (3 * factor - 2) // 2 - half
    return 1 - np.abs(np.arange(taps) - centre) / factor

"""Means and sums over axes one after another, whatever is rearranged between them, as one of them.

A mean of means of equally many samples is a mean, and a sum is a mean times their number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.rearrange import Rearrangement
from kerasfold.algebra.reduction import Reduction, windows_of
from kerasfold.cost import moved_bytes
from kerasfold.forms.form import Form, Nothing, activated
from kerasfold.forms.known import Known
from kerasfold.layers.reduce import reduced
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Reduced(Form[Nothing]):
    """One mean or sum over axes, and a rearrangement of what is left.

    Attributes:
        axes: that are reduced, channels last.
        keepdims: whether they stay, with one sample each.
        adds_up: whether it is a sum.
        rest: how what is left is rearranged.
    """

    name: ClassVar[str] = "reduced"
    bars: ClassVar[frozenset[Trait]] = frozenset({"sum", "concatenate", "multiplies"})

    axes: tuple[int, ...]
    keepdims: bool
    adds_up: bool
    rest: Rearrangement

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Reduced | None:
        """A path of such steps, of several calls."""
        nodes = [known.nodes[i] for i in visited]
        alone = set(visited) <= set(known.owner[index].added)
        if alone or known.regions.graph.layout == "channels_first" or not _reduces(nodes):
            return None
        (read,), last = nodes[0].operands, nodes[-1]
        source = known.nodes[read]
        whole = known.once((cls, *visited), lambda: _whole(source, nodes))
        axes, rest = whole.axes()
        adds_up = not _is(whole.factor, 1.0)
        if adds_up and not _is(whole.factor, whole.count):
            raise Refused("a mean times a number")
        image = (*source.sizes, source.channels)
        kept = tuple(1 if axis in axes else n for axis, n in enumerate(image))
        keepdims = rest.keeps_order and kept == whole.target
        samples = moved_bytes(source.sizes, source.channels)
        cost = known.prices.step("reduction", samples + moved_bytes(last.sizes, last.channels))
        if not keepdims:
            cost += known.prices.rearrangement(rest, known.regions.graph.layout)
        return cls(
            node=index,
            reads={read: None},
            visited=tuple(visited),
            cost=cost._replace(macs=samples / 4, layers=1, unconvolved=1),
            axes=axes,
            keepdims=keepdims,
            adds_up=adds_up,
            rest=rest,
        )

    def compose(self, nodes: Sequence[Node]) -> Nothing:
        """There are no weights."""
        return Nothing()

    def emit(self, build: Builder, composed: Nothing, xs: Mapping[int, Value]) -> Value:
        """A global pool or an operation, and Reshape and Permute layers."""
        x = xs[self.source]

        def linear(name: str) -> Value:
            same = self.keepdims or self.rest.is_identity
            label = name if same else build.names.reserve(f"{name}_reduced")
            y = reduced(build, x, self.axes, self.keepdims, self.adds_up, label)
            return y if same else build.rearranged(y, self.rest, name)

        return activated(build, linear)

    def words(self, regions: Regions) -> str:
        """That it is one mean, or one sum."""
        return f"{'sum' if self.adds_up else 'mean'} over {len(self.axes)} axes"


def _is(factor: float, number: float) -> bool:
    """Equal but for the rounding of products of numbers and their inverses."""
    return math.isclose(factor, number, rel_tol=8 * np.finfo("float64").eps)


def _reduces(nodes: Sequence[Node]) -> bool:
    """Whether nodes, each reading the one before it, are of the kinds that a reduction takes."""
    return all(
        node.op == "rearrange" or node.work == "pool" or (node.op, node.work) == _SCALE
        for node in nodes
    ) and all(after.operands == (before.index,) for before, after in itertools.pairwise(nodes))


_SCALE = ("operator", "scale")


def _whole(source: Node, nodes: Sequence[Node]) -> Reduction:
    """The reduction that nodes are together. Raises `Refused`."""
    whole = Reduction.identity((*source.sizes, source.channels))
    for node in nodes:
        whole = _then(whole, node)
    if whole.count == 1:
        raise Refused("nothing is reduced")
    return whole


def _then(whole: Reduction, node: Node) -> Reduction:
    """A reduction, then a step. Raises `Refused`."""
    if node.rearrangement is not None:
        return whole.rearranged(node.rearrangement)
    assert node.geometry is not None
    geometry, weights = node.geometry, node.load and node.load()
    assert weights is not None
    number = float(weights.kernel.flat[0])
    if np.any(weights.kernel != number) or np.any(weights.bias):
        raise Refused("a mean whose samples have weights")
    mixes = geometry.groups == geometry.channels[1] == 1 < geometry.channels[0]
    if not (mixes or geometry.keeps_channels) or geometry.normalised:
        raise Refused("a mean over a part of the channels, or by a window that is cut off")
    windows = (*windows_of(geometry), geometry.channels[0] if mixes else 1)
    whole = whole.averaged(windows).scaled(number * math.prod(windows))
    shape = (*node.sizes, node.channels)
    return whole.rearranged(Rearrangement.reshape(whole.target, shape))

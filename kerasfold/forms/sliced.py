"""Slices and crops one after another, of whatever order of the axes, as one slice.

One that has strides is a reshape and a slice of neighbours, where that is faster: see `in_blocks`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from kerasfold.algebra.axis import Axis, Refused, composed_axis
from kerasfold.algebra.rearrange import Rearrangement
from kerasfold.cost import moved_bytes
from kerasfold.forms.form import Form, Nothing, activated
from kerasfold.forms.known import Known
from kerasfold.layers.select import Place, in_blocks
from kerasfold.lift.program import Node, Trait
from kerasfold.rooflines import Kind

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Sliced(Form[Nothing]):
    """One slice, and a rearrangement of what it selects.

    Attributes:
        place: of each axis but the batch, channels last.
        blocks: what it is a slice of, where that is reshaped before; else None.
        rest: the rearrangement.
    """

    name: ClassVar[str] = "sliced"
    bars: ClassVar[frozenset[Trait]] = frozenset({"sum", "concatenate", "multiplies", "scales"})

    place: Place
    blocks: Rearrangement | None
    rest: Rearrangement

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Sliced | None:
        """A path of steps that select samples or rearrange them, and not by cropping alone."""
        nodes = [known.nodes[i] for i in visited]
        moves = any(node.rearrangement is not None for node in nodes)
        if not all(node.work == "copy" or node.op == "rearrange" for node in nodes):
            return None
        if any(b.operands != (a.index,) for a, b in itertools.pairwise(nodes)):
            return None
        if moves and set(visited) <= set(known.owner[index].added):
            return None
        (read,), last = nodes[0].operands, nodes[-1]
        axes, rest = known.once((cls, *visited), lambda: _whole(known.nodes[read], nodes))
        crops = all(axis.stride == 1 for axis in axes) and axes[-1].is_pointwise
        if crops and not moves:
            return None  # it is a layer
        if all(axis.is_pointwise for axis in axes):
            return None  # nothing is selected
        place, moved = tuple(map(_place, axes)), 2 * moved_bytes(last.sizes, last.channels)
        blocks, layout = None, known.regions.graph.layout
        sizes = [axis.size for axis in axes]
        found = in_blocks(sizes, place) if layout == "channels_last" else None
        if found is not None:
            blocks, place = Rearrangement.reshape(sizes, found[0]), found[1]
        kind: Kind = "strided" if any(p.step for p in place[:-1]) else "cut"
        cost = known.prices.step(kind if blocks is None else "blocks", moved)
        if not rest.is_identity:
            cost += known.prices.rearrangement(rest, layout)
        return cls(
            node=index,
            reads={read: None},
            visited=tuple(visited),
            cost=cost,
            place=place,
            blocks=blocks,
            rest=rest,
        )

    def compose(self, nodes: Sequence[Node]) -> Nothing:
        """There are no weights."""
        return Nothing()

    def emit(self, build: Builder, composed: Nothing, xs: Mapping[int, Value]) -> Value:
        """The operation, and Reshape and Permute layers."""
        *pixels, channels = self.place
        first = build.layout == "channels_first"
        place = (slice(None), *((channels, *pixels) if first else self.place))
        x, same = xs[self.source], self.rest.is_identity

        def linear(name: str) -> Value:
            whole = x
            if self.blocks is not None:
                whole = build.rearranged(x, self.blocks, build.names.reserve(f"{name}_blocks"))
            label = name if same else build.names.reserve(f"{name}_slice")
            y = build.names.give_exactly(whole[place], label)
            return y if same else build.rearranged(y, self.rest, name)

        return activated(build, linear)

    def words(self, regions: Regions) -> str:
        """That it is one slice."""
        return "a slice" if self.rest.is_identity else "a slice, then rearranged"


def _whole(source: Node, nodes: Sequence[Node]) -> tuple[tuple[Axis, ...], Rearrangement]:
    """What of each axis is selected, channels last, and how that is rearranged.

    Raises:
        Refused: a selection that no slice says, or along a part of an axis.
    """
    shape = (*source.sizes, source.channels)
    axes, rest = list(map(Axis, shape)), Rearrangement.reshape(shape, shape)
    for node in nodes:
        if node.rearrangement is not None:
            rest = node.rearrangement @ rest
            continue
        parts = rest.parts() if not rest.is_identity else []
        for number, selected in enumerate(_selecting(node)):
            if selected.is_pointwise:
                continue
            along = [part for part in parts if part.target == number]
            at = along[0].source if along else number
            whole = len(along) == 1 and [part for part in parts if part.source == at] == along
            if parts and not whole:
                raise Refused("a selection along a part of an axis")
            axes[at] = composed_axis(selected, axes[at]).axis
        rest = _of_sizes(rest, [axis.out for axis in axes], (*node.sizes, node.channels))
    return tuple(axes), rest


def _of_sizes(
    rest: Rearrangement, source: Sequence[int | None], target: Sequence[int | None]
) -> Rearrangement:
    """The same of images some of whose axes have other sizes."""
    if rest.is_identity:
        return Rearrangement.reshape(source, target)
    parts = rest.parts()
    alone = [[p.source for p in parts].count(part.source) == 1 for part in parts]
    sizes = [source[p.source] if one else p.size for p, one in zip(parts, alone, strict=True)]
    order = [int(i) for i in np.argsort([part.place for part in parts])]
    return Rearrangement.of(source, target, sizes, order)


def _selecting(node: Node) -> list[Axis]:
    """What a node selects along each axis, channels last. Raises `Refused` where no slice says."""
    assert node.geometry is not None
    axes, channels = node.geometry.axes, node.geometry.channels[0]
    if not all(map(_is_selected, axes)):
        raise Refused("what is padded or repeated")
    chosen = list(node.selected) or list(range(channels))
    step = chosen[1] - chosen[0] if len(chosen) > 1 else 1
    if step < 1 or chosen != list(range(chosen[0], chosen[-1] + 1, step)):
        raise Refused("channels that no slice selects")
    last = Axis(channels, stride=step, crop=(chosen[0], channels - 1 - chosen[-1]))
    return [*axes, last.tight()]


def _is_selected(axis: Axis) -> bool:
    """Whether the samples along an axis are some of those before."""
    return axis.taps == axis.upsampling == 1 and not (any(axis.pad) or axis.same)


def _place(axis: Axis) -> slice:
    """The samples that are selected."""
    low, high = axis.crop
    return slice(low or None, -high or None, axis.stride if axis.stride > 1 else None)

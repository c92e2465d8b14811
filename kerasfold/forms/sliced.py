"""Slices and crops one after another, of pixels and of channels, as one slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kerasfold.algebra.axis import Axis
from kerasfold.cost import moved_bytes, step_cost
from kerasfold.forms.form import Form, Nothing, activated
from kerasfold.forms.known import Known
from kerasfold.lift.program import Node

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Lifted


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Sliced(Form[Nothing]):
    """One slice.

    Attributes:
        place: of each axis but the batch, channels last.
    """

    name: ClassVar[str] = "sliced"

    place: tuple[slice, ...]

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Sliced | None:
        """A path of steps that select samples, and not by cropping alone."""
        nodes = [known.nodes[i] for i in visited]
        if any(node.work != "copy" for node in nodes) or not known.is_path(visited):
            return None
        whole = known.whole(visited)
        channels = _selected(nodes, whole.channels[0])
        if channels is None or not all(map(_is_selected, whole.axes)):
            return None
        if whole.keeps_channels and all(axis.stride == 1 for axis in whole.axes):
            return None  # it is a crop
        moved = 2 * moved_bytes(nodes[-1].sizes, nodes[-1].channels)
        return cls(
            node=index,
            reads=known.reads(visited, whole),
            visited=tuple(visited),
            cost=step_cost("elementwise", moved),
            place=(*map(_place, whole.axes), channels),
        )

    def compose(self, nodes: Sequence[Node]) -> Nothing:
        """There are no weights."""
        return Nothing()

    def emit(self, build: Builder, composed: Nothing, xs: Mapping[int, Value]) -> Value:
        """The operation."""
        *pixels, channels = self.place
        first = build.layout == "channels_first"
        place = (slice(None), *((channels, *pixels) if first else self.place))
        x = xs[self.source]
        return activated(build, lambda name: build.names.give_exactly(x[place], name))

    def words(self, owner: Mapping[int, Lifted]) -> str:
        """That it is one slice."""
        return "slice"


def _is_selected(axis: Axis) -> bool:
    """Whether the samples along an axis are some of those before."""
    return axis.taps == axis.upsampling == 1 and not (any(axis.pad) or axis.same)


def _place(axis: Axis) -> slice:
    """The samples that are selected."""
    low, high = axis.crop
    return slice(low or None, -high or None, axis.stride if axis.stride > 1 else None)


def _selected(nodes: Sequence[Node], channels: int) -> slice | None:
    """The channels that are selected, of so many, where a slice says them."""
    chosen: Sequence[int] = range(channels)
    for node in nodes:
        chosen = [chosen[i] for i in node.selected] if node.selected else chosen
    first, *rest = chosen
    step = rest[0] - first if rest else 1
    wanted = range(first, first + step * len(chosen), step) if step > 0 else ()
    if list(chosen) != list(wanted):
        return None
    return slice(None) if len(chosen) == channels else slice(first, chosen[-1] + 1, step)

"""A convolution of its own for the interior and for the rows, columns and corners of the border."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kerasfold.algebra.axis import Pair, Refused
from kerasfold.algebra.border import Box, frame_of
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.tiles import (
    Group,
    Place,
    Tiling,
    mirrored,
    mirrored_geometry,
    mirrored_tiling,
    products,
    tile,
    tile_geometry,
    tiling_of,
)
from kerasfold.cost import Cost, Prices, moved_bytes
from kerasfold.forms.bordered import Bordered, Frame, cut_in_stages, frame_found
from kerasfold.forms.form import Composed
from kerasfold.forms.known import Known
from kerasfold.layers.limits import check_emittable, is_depthwise_layer
from kerasfold.layers.words import described
from kerasfold.lift.program import Node, Trait

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value
    from kerasfold.lift.regions import Regions

MOST_TILES = 49  # convolutions an image may be put together from: a frame of 3 at each side


@dataclass(frozen=True, eq=False, slots=True)
class Tiles(Composed):
    """The operator of each tile, by its box."""

    by_box: Mapping[Box, Operator]

    @property
    def operators(self) -> Iterable[Operator]:
        """All of them."""
        return self.by_box.values()


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Tiled(Bordered[Tiles]):
    """The interior and each row, column and corner of the border, in one step each.

    Attributes:
        tiling: the groups of each axis: their products are one convolution each.
    """

    name: ClassVar[str] = "tiled"
    bars: ClassVar[frozenset[Trait]] = frozenset({"sum", "concatenate", "rearranged"})
    is_last_resort: ClassVar[bool] = True

    tiling: Tiling

    @classmethod
    def propose(cls, known: Known, index: int, visited: Sequence[int]) -> Tiled | None:
        """A path whose tiles compose, at a known image size."""
        frame = frame_found(known, cls, visited, _tiles) if known.is_path(visited) else None
        return cls.of(known, index, visited, frame, tiling=frame.tiling if frame else ())

    def compose(self, nodes: Sequence[Node]) -> Tiles:
        """Each tile from the same stages."""
        steps = self.operators_of(nodes)
        boxes = (products(groups).values() for groups in itertools.product(*self.tiling))
        return Tiles({box: tile(steps, box) for box in itertools.chain.from_iterable(boxes)})

    def emit(self, build: Builder, composed: Tiles, xs: Mapping[int, Value]) -> Value:
        """The tiles of one group of each axis by one convolution, joined along the last first."""
        name, activation = build.result()
        split = [axis for axis, groups in enumerate(self.tiling) if len(groups) > 1]

        def row(groups: tuple[Group, ...]) -> Value:
            axis = len(groups)
            if axis == len(self.tiling):
                tiles = {p: composed.by_box[box] for p, box in products(groups).items()}
                return _convolved(build, xs[self.source], tiles, name, groups)
            pieces: dict[Pair, Value] = {}
            for group in self.tiling[axis]:
                outputs = build.split(row((*groups, group)), len(group), axis, name)
                pieces |= {i: y for i, y in zip(group, outputs, strict=True) if i is not None}
            ordered = [pieces[interval] for interval in sorted(pieces)]
            if axis not in split:
                return ordered[0]
            last = activation is None and axis == split[0]
            return build.concatenated(ordered, axis, name, last, groups)

        image = row(())
        if split and activation is None:
            return image
        return build.activated(image, activation or "linear", name)

    def words(self, regions: Regions) -> str:
        """The interior."""
        (geometry,) = self.reads.values()
        return f"{described(geometry)}, and the border by convolutions of its own"


def _convolved(
    build: Builder,
    x: Value,
    tiles: Mapping[Place, Operator],
    name: str,
    role: tuple[Group, ...],
) -> Value:
    """Tiles as the outputs of one convolution; what their biases differ by is added."""
    operator, biases = mirrored(tiles)
    label = build.names.reserve(f"{name}_tile")
    image = build.convolution(x, operator, label, None, ("tile", role))
    if biases is None:
        return image
    return build.scaled(image, None, biases, build.names.reserve(f"{name}_tile_bias"))


def _tilings(links: Sequence[Geometry]) -> list[Tiling]:
    """The ways to part an image into tiles in which the links compose.

    Raises:
        Refused: an unknown size, or an image with no interior.
    """
    frame = frame_of(links)
    sizes = [n for n in links[-1].sizes if n is not None]
    return [mirrored_tiling(sizes, frame), tiling_of(sizes, frame)]


def _tiles(
    links: Sequence[Geometry], shared: int, prices: Prices, too_slow: Callable[[Cost], bool]
) -> Frame | None:
    """A chain as one convolution for each tile of its output."""
    cuts, steps = cut_in_stages(links)
    if not steps:
        return None
    tilings = _tilings(steps)
    frames = (_frame(steps, tiling, cuts, shared, prices, too_slow) for tiling in tilings)
    return next((frame for frame in frames if frame), None)


def _frame(
    steps: Sequence[Geometry],
    tiling: Tiling,
    cuts: tuple[int, ...],
    shared: int,
    prices: Prices,
    too_slow: Callable[[Cost], bool],
) -> Frame | None:
    """The tiles of one tiling, those of one group of each axis by one convolution."""
    if math.prod(map(len, tiling)) > MOST_TILES:
        return None
    cost, pictures = Cost(), []
    try:
        for group in itertools.product(*tiling):
            tiles = {p: tile_geometry(steps, box) for p, box in products(group).items()}
            one = mirrored_geometry(tiles)
            check_emittable(one)
            if one.vector or _loses_depthwise(one, tiles.values()):
                return None
            cost += prices.operator(one, shared)
            if one.biased and len(tiles) > 1:  # each tile has its own
                extra = (len(tiles) - 1) * one.channels[1]
                cost += Cost(params=extra / shared, layers=1)
                cost += prices.step("elementwise", 2 * moved_bytes(one.sizes, one.channels[1]))
            pictures.append(one)
            if too_slow(cost):
                break
    except Refused:
        return None
    whole = max(pictures, key=lambda one: math.prod(n or 0 for n in one.sizes))
    sizes, (_, channels) = steps[-1].sizes, steps[-1].channels
    rows = 1
    for groups in tiling:
        splits = sum(len(group) > 1 for group in groups)
        if len(groups) > 1:  # splits, and a concatenation of the whole image in rows
            moved = 2 * moved_bytes(sizes, channels)
            cost += prices.step("copy", moved, rows * (splits + 1))
        rows *= len(groups)
    return Frame(whole, cost, cuts, tiling)


def _loses_depthwise(one: Geometry, tiles: Iterable[Geometry]) -> bool:
    """Whether depthwise layers, in one, would be a convolution of so many groups."""
    return not is_depthwise_layer(one) and any(map(is_depthwise_layer, tiles))

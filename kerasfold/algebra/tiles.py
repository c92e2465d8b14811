"""The interior, rows and corners of an image, each as one operator, alone or in pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from .axis import Axis, Pair, Refused
from .border import Box, restricted
from .chain import Link
from .geometry import Geometry, require_plain
from .operator import Operator, embedded
from .product import Array


def tile_geometry(links: Sequence[Geometry], box: Box) -> Geometry:
    """A chain that computes only the outputs in `box`, as one operator.

    Links are composed from the last, each time without the taps that every output reads zeros
    with. Along an axis where the box is one output wide, what is left pads nothing that an
    earlier link made.

    Raises:
        Refused: an unknown size, or no exact composition.
    """
    return _tile(restricted(links, box))


def _tile(links: Sequence[Link]) -> Link:
    trimmed = [link.trimmed() for link in links]
    whole = trimmed[-1]
    for link in reversed(trimmed[:-1]):
        whole = (whole @ link).trimmed()
    return whole


Place = tuple[int, ...]  # of one interval of each axis
Group = tuple[Pair | None, ...]  # intervals [first, last) of an axis; None gives nothing of it
Tiling = Sequence[Sequence[Group]]  # of each axis


def tiling_of(sizes: Sequence[int], frame: Box) -> Tiling:
    """Tiling of each axis whose products tile an image: the interior, and rows of one output."""
    return [
        [
            *(((i, i + 1),) for i in range(lo)),
            ((lo, n - hi),),
            *(((i, i + 1),) for i in range(n - hi, n)),
        ]
        for n, (lo, hi) in zip(sizes, frame, strict=True)
    ]


def mirrored_tiling(sizes: Sequence[int], frame: Box) -> Tiling:
    """The same, with two rows in a group where they are as far from either end.

    A row of the high end alone is the second of two, so that no image is cropped for it.
    """
    tiling = []
    for n, (lo, hi) in zip(sizes, frame, strict=True):
        low: list[Pair | None] = [(i, i + 1) for i in range(lo)]
        high = [(n - 1 - i, n - i) for i in range(hi)]
        groups: list[Group] = [((lo, n - hi),), *((interval,) for interval in low[hi:])]
        low += [None] * (hi - lo)
        tiling.append([*groups, *zip(low, high, strict=False)])
    return tiling


def products(groups: Sequence[Group]) -> dict[Place, Box]:
    """The boxes of one group of each axis, by the place of each interval in its group."""
    choices = [[(i, x) for i, x in enumerate(group) if x is not None] for group in groups]
    return {
        tuple(i for i, _ in choice): tuple(x for _, x in choice)
        for choice in itertools.product(*choices)
    }


def mirrored_geometry(tiles: Mapping[Place, Geometry]) -> Geometry:
    """The tiles of one group of each axis as one operator.

    Raises:
        Refused: one of several tiles pads or upsamples, or a tile is not plain.
    """
    return _mirrored_geometry(tiles)[0]


def _mirrored_geometry(
    tiles: Mapping[Place, Geometry],
) -> tuple[Geometry, list[tuple[Pair, ...]]]:
    """The same, and of each axis (first tap, step) of the taps of each place."""
    require_plain(*tiles.values())
    if any(tile.ones for tile in tiles.values()):
        raise Refused("a tile with a bias before zero padding")
    columns: list[dict[int, Axis]] = [{} for _ in next(iter(tiles))]
    for place, tile in tiles.items():
        for column, i, axis in zip(columns, place, tile.axes, strict=True):
            if column.setdefault(i, axis) != axis:
                raise Refused("tiles of one row whose windows differ")
    placed = [
        _ends(column.get(0), column[1]) if 1 in column else (column[0], ((0, 1),))
        for column in columns
    ]
    axes = tuple(axis for axis, _ in placed)
    tile = next(iter(tiles.values()))
    geometry = replace(tile, axes=axes, steady=tile.steady and axes == tile.axes)
    return geometry, [steps for _, steps in placed]


def _ends(low: Axis | None, high: Axis) -> tuple[Axis, tuple[Pair, Pair]]:
    """Two axes of one output each as one of two, of which the first may give anything.

    The taps of `high` come first: the first output reads them before the image, where all is
    zero, and the second one reads those of `low` behind it.
    """
    assert high.size is not None
    if any(axis and (axis.upsampling > 1 or any(axis.pad)) for axis in (low, high)):
        raise Refused("an output that reads padding, in one convolution with another")
    last = high.crop[0]  # the sample that its first tap reads
    if low is None:
        if last == 0:
            raise Refused("an output at the high end that reads the image from its start")
        crop = (0, high.crop[1])
        return replace(high, stride=last, crop=crop).tight(), ((0, 1), (0, 1))
    dilation = math.gcd(*(axis.dilation for axis in (low, high) if axis.taps > 1)) or 1
    first = low.crop[0]
    shift = -(-max(first + high.span, high.size - last) // dilation) * dilation
    span = shift + low.span
    taps, stride = (span - 1) // dilation + 1, last - first + shift
    axis = Axis(high.size, taps, stride, dilation, pad=(shift - first, last + span - high.size))
    steps = [end.dilation // dilation if end.taps > 1 else 1 for end in (low, high)]
    return axis.tight(), ((shift // dilation, steps[0]), (0, steps[1]))


def tile(operators: Sequence[Operator], box: Box) -> Operator:
    """`tile_geometry`, with the weights."""
    links = restricted([op.geometry for op in operators], box)
    cut = [replace(op, geometry=link) for op, link in zip(operators, links, strict=True)]
    return _tile(cut)


def mirrored(tiles: Mapping[Place, Operator]) -> tuple[Operator, Array | None]:
    """`mirrored_geometry`, with the weights.

    Returns:
        The operator, and the biases of its outputs, (*intervals of each group, output channels),
        where they are not all the same. It has no bias of its own then.
    """
    geometry, steps = _mirrored_geometry({place: t.geometry for place, t in tiles.items()})
    kernel = np.zeros(geometry.kernel_shape)
    for place, tile in tiles.items():
        where = [step[i] for step, i in zip(steps, place, strict=True)]
        kernel += embedded(tile.kernel, where, geometry.taps)
    (bias, *others) = (tile.bias for tile in tiles.values())
    if all(np.array_equal(bias, other) for other in others):
        return Operator(geometry, kernel, bias), None
    biases = np.zeros((*map(len, steps), geometry.channels[1]))
    for place, tile in tiles.items():
        biases[place] = tile.bias
    return Operator(replace(geometry, biased=False), kernel, np.zeros_like(bias)), biases

"""An operator behind a rearrangement as one before it: B R = R' B'.

Channels of B that are a factor of the channels before R: B' is B in as many groups as the other
factors count, or, for one weight per channel, the same weights over again. Channels of B that
hold all samples along some axes of the image, as after flattening: B' has windows that see these
axes whole. Windows pass where their axis is one axis before R as well; along what is a factor of
the channels before R they are a matrix on these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .axis import Axis, Refused
from .chain import Link
from .geometry import Geometry, require_plain
from .operator import Operator
from .product import Array, regroup
from .rearrange import Part, Rearrangement


def passed(b: Link, r: Rearrangement) -> tuple[Link, Rearrangement]:
    """`(b', r')` with `b r = r' b'`. Raises `Refused` where there are none."""
    if isinstance(b, Geometry):
        way = passage(b, r)
        return way.geometry, way.rearrangement
    way = passage(b.geometry, r)
    return way.operator(b), way.rearrangement


@dataclass(frozen=True, slots=True)
class Passage:
    """How an operator B passes a rearrangement R.

    Attributes:
        geometry: of B'.
        rearrangement: R'.
        parts: of R, in the order of its source.
        windows: for each axis of B, the parts of R that it is made of, in its order; none for
            one that B does not look along.
        taps: for each axis of B that it does not look along, the tap that sees the image.
        channels: the parts that the channels of B are made of, in their order.
        mixed: the parts of the channels before R that windows of B are along.
        across: the axes of B that are of such parts alone.
        others: the other parts of the channels before R.
    """

    geometry: Geometry
    rearrangement: Rearrangement
    parts: Sequence[Part]
    windows: Sequence[Sequence[Part]]
    taps: Sequence[int | slice]
    channels: Sequence[Part]
    mixed: Sequence[Part]
    across: Sequence[int]
    others: Sequence[Part]

    def operator(self, b: Operator) -> Operator:
        """B', of the weights of B."""
        if b.geometry.keeps_channels and not self.mixed:
            kernel, bias = map(self._spread, (self._placed(b.kernel, split=False), b.bias))
            return Operator(self.geometry, kernel, bias)
        count = math.prod(part.size or 0 for part in self.others)
        bias = np.tile(b.bias, self.geometry.channels[1] // len(b.bias))
        if self.geometry.groups == b.geometry.groups * count:
            kernel = self._placed(self._spelled(b, b.kernel), split=b.geometry.groups == 1)
            return Operator(self.geometry, np.tile(kernel, count), bias)
        dense = regroup(b.kernel, b.geometry.groups, 1)
        kernel = self._placed(self._spelled(b, dense), split=True)
        blocks = kernel[..., None, None, :] * np.eye(count)[:, :, None]
        mine = [p for p in self.parts if p in self.channels or p in self.mixed]
        sizes = [part.size or 0 for part in (*mine, *self.others)]
        rank = len(self.geometry.axes)
        blocks = blocks.reshape(*self.geometry.taps, *sizes, -1)
        order = [self.parts.index(part) for part in (*mine, *self.others)]
        axes = (*range(rank), *(rank + i for i in np.argsort(order)), rank + len(order))
        return Operator(
            self.geometry, blocks.transpose(axes).reshape(self.geometry.kernel_shape), bias
        )

    def _spelled(self, b: Operator, kernel: Array) -> Array:
        """B's kernel with a weight for each sample and each output across channels.

        Its taps there become samples, and its outputs (*those across, outputs).
        """
        before = 1
        for number in self.across:
            kernel = np.tensordot(kernel, _samples(b.geometry.axes[number]), axes=(number, 0))
            kernel = np.moveaxis(kernel, -2, number)
            *rest, outputs, across = kernel.shape
            kernel = kernel.reshape(*rest, before, outputs // before, across).swapaxes(-1, -2)
            kernel = kernel.reshape(*rest, outputs * across)
            before *= across
        return kernel

    def _placed(self, kernel: Array, split: bool) -> Array:
        """B's kernel on the axes before R: (*taps, inputs, outputs).

        Args:
            kernel: of B.
            split: whether its input channels are all of B's, and are put in their order before R.
        """
        kernel = kernel[tuple(self.taps)]
        seen = [parts for parts in self.windows if parts]
        parts = [part for parts in seen for part in parts]
        shape = [n for n, one in zip(kernel.shape, seen, strict=False) if len(one) == 1]
        lengths = iter(shape)
        sizes = [next(lengths) if len(one) == 1 else part.size or 0 for one in seen for part in one]
        if split:
            parts += self.channels
            sizes += [part.size or 0 for part in self.channels]
        rows = [] if split else [kernel.shape[-2]]
        order = np.argsort([self.parts.index(part) for part in parts])
        axes = (*order, *range(len(parts), len(parts) + len(rows) + 1))
        placed = kernel.reshape(*sizes, *rows, kernel.shape[-1]).transpose(axes)
        return placed.reshape(*self.geometry.taps, -1, kernel.shape[-1])

    def _spread(self, values: Array) -> Array:
        """One value for each channel of B as one for each channel before R."""
        lead = values.shape[:-1]
        mine = [part for part in self.parts if part in self.channels]
        sizes = [part.size or 0 for part in self.channels]
        order = np.argsort([self.parts.index(part) for part in self.channels])
        values = values.reshape((*lead, *sizes))
        values = values.transpose((*range(len(lead)), *(len(lead) + i for i in order)))
        every = sorted((*mine, *self.others), key=self.parts.index)
        values = values.reshape((*lead, *(1 if p in self.others else p.size or 0 for p in every)))
        full = np.broadcast_to(values, (*lead, *(part.size or 0 for part in every)))
        return full.reshape((*lead, -1))


def passage(b: Geometry, r: Rearrangement) -> Passage:
    """How an operator passes a rearrangement. Raises `Refused`."""
    rank, last = len(r.source) - 1, len(r.target) - 1
    if b.ones:
        raise Refused("a bias that zero padding must not see, before a rearrangement")
    try:
        parts = r.parts()
    except Refused:
        if not b.is_pointwise:
            raise
        parts = r.parts(pixels_apart=False)
        if any(part.target == last and part.source != rank for part in parts):
            raise
    in_order = sorted(parts, key=lambda part: part.place)
    channels = [part for part in in_order if part.target == last]
    before = [part for part in parts if part.source == rank]
    mixed = [
        part for part in before if part.target != last and not b.axes[part.target].is_pointwise
    ]
    others = [part for part in before if part.target != last and part not in mixed]
    flat = last == 0 and b.groups == 1  # what sees a whole image gives a vector
    axes = [Axis(n) for n in r.source[:-1]]
    whole = set(range(rank)) if flat else {part.source for part in channels} - {rank}
    if whole and b.groups > 1:
        raise Refused("a scale for each pixel of a flattened image is no convolution")
    if whole and others:
        raise Refused("a matrix on pixels and on a part of their channels is no convolution")
    _see_whole(axes, whole, last, parts)
    windows, taps, across = [], [], []
    for number, axis in enumerate(b.axes):
        along = [part for part in in_order if part.target == number]
        tap: int | slice = slice(None)
        if not along or axis.is_pointwise:
            along, tap = [], _only_tap(b, axis)
        elif (
            along[0].source < rank
            and [part for part in parts if part.source == along[0].source] == along
        ):
            axes[along[0].source] = axis
        elif all(part.source == rank for part in along):
            require_plain(b)
            across.append(number)
        else:
            if axis.taps != axis.size or axis.out != 1 or not axis.pad == axis.crop == (0, 0):
                raise Refused("windows along what is no axis before a rearrangement")
            seen = {part.source for part in along} - {rank}
            _see_whole(axes, seen, number, parts)
            whole |= seen
        windows.append(along)
        taps.append(tap)
    inputs, outputs = r.source[-1], b.channels[1]
    assert inputs is not None
    kept = [
        (part.size if axes[part.source].is_pointwise else axes[part.source].out, part.place)
        for part in parts
        if part.source not in whole | {rank}
    ]
    if b.keeps_channels and not mixed:
        outputs = groups = inputs
        kept += [(part.size, part.place) for part in before]
    else:
        found = [(b.axes[i].out, windows[i][0].place) for i in across]
        kept += [*((part.size, part.place) for part in others), *found, (outputs, len(parts))]
        count = math.prod(part.size or 0 for part in others)
        outputs *= math.prod(n or 0 for n, _ in found)
        behind = before[len(others) :]
        leads = before == others + behind and (b.groups == 1 or behind == channels)
        groups, outputs = b.groups * count if leads else 1, outputs * count
    vector = rank > 0 and (b.vector or flat)
    geometry = replace(
        b, axes=tuple(axes), channels=(inputs, outputs), groups=groups, vector=vector
    )
    source = (*(() if vector else geometry.sizes), outputs)
    target = (*(() if b.vector else b.sizes), b.channels[1])
    order = [int(i) for i in np.argsort([place for _, place in kept])]
    after = Rearrangement.of(source, target, [n for n, _ in kept], order)
    return Passage(geometry, after, parts, windows, taps, channels, mixed, across, others)


def _see_whole(axes: list[Axis], which: Iterable[int], number: int, parts: Sequence[Part]) -> None:
    """Windows that see some axes whole, which are all of one axis of B. Raises `Refused`."""
    for source in which:
        size = axes[source].size
        if size is None:
            raise Refused("a flattened image of unknown size")
        if any(part.source == source and part.target != number for part in parts):
            raise Refused("a matrix or a window on a part of an axis is no convolution")
        axes[source] = Axis(size, taps=size)


def _only_tap(b: Geometry, axis: Axis) -> int:
    """The tap of an axis that sees the image where it has one sample, or sees one at a time."""
    if axis.is_pointwise:
        return 0
    require_plain(b)
    if axis.out != 1:
        raise Refused("an axis of one sample that is padded")
    _, taps = axis.trimmed()
    return taps.start


def _samples(axis: Axis) -> Array:
    """Which sample each tap of each output sees: 1 where it does, of (taps, samples, outputs)."""
    size, out = axis.size or 0, axis.out or 0
    seen = np.zeros((axis.taps, size, out))
    for place in range(out):
        for tap in range(axis.taps):
            at = place * axis.stride + tap * axis.dilation - axis.pad[0]
            sample, between = divmod(at, axis.upsampling)
            sample += axis.crop[0]
            if not between and axis.crop[0] <= sample < size - axis.crop[1]:
                seen[tap, sample, place] = 1.0
    return seen

"""Means over axes of an image, and over windows side by side, of whatever order of its samples.

A reduction rearranges the samples so that those it adds up are along one last axis:

    y = factor * mean(x rearranged to (*target, count), axis=-1)

Reductions compose with each other and with rearrangements: a mean of means of equally many
samples is a mean of them all, in whatever order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from .axis import Refused
from .geometry import Geometry
from .product import Array
from .rearrange import Rearrangement, Shape


@dataclass(frozen=True, slots=True)
class Reduction:
    """A mean of samples times a number, in normal form: equal where the functions are.

    Attributes:
        rearrangement: of the samples, those of one mean along the last axis.
        factor: the number.
    """

    rearrangement: Rearrangement
    factor: float = 1.0

    @staticmethod
    def identity(shape: Shape) -> Reduction:
        """Of images of this shape, with means of one sample each."""
        return Reduction(Rearrangement.reshape(shape, (*shape, 1)))

    @property
    def count(self) -> int:
        """Samples of which each mean is one."""
        return self.rearrangement.target[-1] or 0

    @property
    def target(self) -> Shape:
        """Shape of what it gives."""
        return self.rearrangement.target[:-1]

    def rearranged(self, r: Rearrangement) -> Reduction:
        """Its means, rearranged. Raises `Refused`."""
        return self._then(r.factors, r.order, r.target, 1)

    def averaged(self, windows: Iterable[int]) -> Reduction:
        """Means over windows of its means, side by side along each axis, channels last.

        Raises:
            Refused: an axis that they do not divide.
        """
        factors: list[int | None] = []
        outer, inner, target = [], [], []
        count = 1
        for size, window in zip(self.target, windows, strict=True):
            if window != 1 and (size is None or size % window):
                raise Refused(f"windows of {window} samples, which do not divide {size}")
            left = size if size is None else size // window
            outer.append(len(factors))
            inner.append(len(factors) + 1)
            factors += [left, window]
            target.append(left)
            count *= window
        return self._then(factors, (*outer, *inner), target, count)

    def scaled(self, factor: float) -> Reduction:
        """A multiple."""
        return replace(self, factor=self.factor * factor)

    def _then(
        self,
        factors: Iterable[int | None],
        order: Iterable[int],
        target: Iterable[int | None],
        count: int,
    ) -> Reduction:
        """A rearrangement of its means to (*target, count), which are averaged over the last."""
        factors, order, source = tuple(factors), tuple(order), self.rearrangement
        step = Rearrangement.of(
            source.target,
            (*target, count * self.count),
            (*factors, self.count),
            (*order, len(factors)),
        )
        return replace(self, rearrangement=_sorted(step @ source))

    def axes(self) -> tuple[tuple[int, ...], Rearrangement]:
        """The axes of the image that it is a mean over, and how what is left is rearranged.

        Raises:
            Refused: it is a mean over a part of an axis, or leaves no axis.
        """
        r, last = self.rearrangement, len(self.target)
        parts = [part for part in r.parts() if part.size != 1]
        gone = {part.source for part in parts if part.target == last}
        kept = [part for part in parts if part.target != last]
        if any(part.source in gone for part in kept):
            raise Refused("a mean over a part of an axis")
        shape = [n for axis, n in enumerate(r.source) if axis not in gone]
        if not shape:
            raise Refused("a mean that leaves no axis")
        sizes, places = [part.size for part in kept], [part.place for part in kept]
        order = [int(i) for i in np.argsort(places)]
        return tuple(sorted(gone)), Rearrangement.of(shape, self.target, sizes, order)

    def applied(self, image: Array) -> Array:
        """The means of an image."""
        return self.factor * self.rearrangement.applied(image).mean(axis=-1)


def windows_of(geometry: Geometry) -> tuple[int, ...]:
    """How many samples windows are long along each axis that lie side by side, and cover it all.

    Raises:
        Refused: windows that overlap, leave samples out or see what is no sample.
    """
    for axis in geometry.axes:
        beside = axis.size == axis.taps or axis.stride == axis.taps
        whole = axis.size is not None and axis.out is not None
        if not axis.is_pointwise and not (
            beside
            and whole
            and axis.dilation == axis.upsampling == 1
            and not (any(axis.pad) or any(axis.crop))
        ):
            raise Refused("a mean of windows that overlap, or that leave samples out")
    return geometry.taps


def _sorted(r: Rearrangement) -> Rearrangement:
    """The same with the samples of each mean in their order before. Raises `Refused`."""
    parts, last = r.parts(), len(r.target) - 1
    key = [(part.target, 0 if part.target == last else part.place) for part in parts]
    order = sorted(range(len(parts)), key=lambda i: (key[i], i))
    return Rearrangement.of(r.source, r.target, [part.size for part in parts], order)

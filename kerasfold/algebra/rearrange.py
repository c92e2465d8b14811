"""Rearrangements of the samples of an image: reshapes, permutations of its axes, and both.

The samples of an image (*sizes, channels), in their order, are numbered by digits: the factors
of its shape. A rearrangement puts the digits in another order and groups them to another shape:

    y = x.reshape(factors).transpose(order).reshape(target)

as einops writes it, "(h a) (w b) c -> h w (a b c)". Of unknown sizes it is known which is which
where they are whole axes, or all that is left.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .axis import Refused
from .product import Array

Shape = tuple[int | None, ...]  # of an image: sizes, and last the channels; None where unknown


class Part(NamedTuple):
    """A factor that lies within one axis of the source and within one of the target.

    Attributes:
        size: samples along it.
        source: axis of the source.
        target: axis of the target.
        place: position among the parts in the order of the target.
    """

    size: int | None
    source: int
    target: int
    place: int


@dataclass(frozen=True, slots=True)
class Rearrangement:
    """A rearrangement in normal form: equal where the functions are.

    Attributes:
        source: shape before.
        target: shape after.
        factors: of the samples, in their order before: as few as there can be.
        order: of the factors after.
    """

    source: Shape
    target: Shape
    factors: Shape
    order: tuple[int, ...]

    @staticmethod
    def of(
        source: Sequence[int | None],
        target: Sequence[int | None],
        factors: Sequence[int | None],
        order: Sequence[int],
    ) -> Rearrangement:
        """In normal form: no factor of one sample, and no two that stay neighbours.

        But for those of unknown size, which are no longer known apart when they are one.
        """
        runs: list[list[int]] = []
        still = list(order) == sorted(order)
        real = [i for i, size in enumerate(factors) if size != 1]
        rank = {i: position for position, i in enumerate(real)}
        for i in order:
            if i not in rank:
                continue
            before = runs[-1][-1] if runs else i
            known = factors[before] is not None is not factors[i]
            if rank[before] + 1 == rank[i] and (known or still):
                runs[-1].append(i)
            else:
                runs.append([i])
        first = sorted(range(len(runs)), key=lambda run: runs[run])
        sizes = tuple(_product(factors[i] for i in runs[run]) for run in first)
        places = tuple(int(place) for place in np.argsort(first))
        return Rearrangement(tuple(source), tuple(target), sizes, places)

    @staticmethod
    def reshape(source: Sequence[int | None], target: Sequence[int | None]) -> Rearrangement:
        """The samples in their order, in another shape."""
        sizes = _product(source), _product(target)
        if None not in sizes and sizes[0] != sizes[1]:
            raise ValueError(f"{tuple(source)} does not reshape to {tuple(target)}")
        return Rearrangement.of(source, target, [sizes[0]], [0])

    @staticmethod
    def permutation(source: Sequence[int | None], axes: Sequence[int]) -> Rearrangement:
        """The axes in another order."""
        return Rearrangement.of(source, [source[axis] for axis in axes], source, axes)

    @property
    def keeps_order(self) -> bool:
        """Whether it is a reshape: the samples stay in their order."""
        return len(self.order) <= 1

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return self.keeps_order and self.source == self.target

    @property
    def inverse(self) -> Rearrangement:
        """Back again."""
        factors = [self.factors[i] for i in self.order]
        return Rearrangement.of(self.target, self.source, factors, list(np.argsort(self.order)))

    def __matmul__(self, other: Rearrangement) -> Rearrangement:
        """`self @ other`: `other` first, then `self`.

        Raises:
            Refused: their factors have no common ones.
        """
        if self.source != other.target:
            raise ValueError(f"an image of {other.target}, then one of {self.source}")
        inner = [other.factors[i] for i in other.order]
        common = _common(inner, self.factors, self.source)
        first = sorted(range(len(common)), key=lambda i: (other.order[common[i][1]], i))
        last = sorted(range(len(common)), key=lambda i: (self.order.index(common[i][2]), i))
        factors = [common[i][0] for i in first]
        return Rearrangement.of(other.source, self.target, factors, [first.index(i) for i in last])

    @property
    def channel_order(self) -> Array | None:
        """Which channel each is before, if nothing but their order changes, else None."""
        channels, fixed = self.source[-1], 0  # leading factors, which hold the pixels
        while self.order[fixed : fixed + 1] == (fixed,):
            fixed += 1
        moved = self.factors[fixed:]
        rest = _product(moved)
        if self.source != self.target or not channels or not rest or channels % rest:
            return None
        sizes: Any = (channels // rest, *moved)
        order = (0, *(i - fixed + 1 for i in self.order[fixed:]))
        return np.arange(channels).reshape(sizes).transpose(order).ravel()

    def parts(self, pixels_apart: bool = True) -> list[Part]:
        """Its factors, split so that each lies within one axis before and after, in order.

        Args:
            pixels_apart: whether the pixels have axes; else all of them are along the first.

        Raises:
            Refused: a factor that no axes divide.
        """
        source, target = self.source, self.target
        if not pixels_apart:
            source, target = ((_product(shape[:-1]), shape[-1]) for shape in (source, target))
        before = _common(source, self.factors, source)
        after = sorted(range(len(before)), key=lambda i: (self.order.index(before[i][2]), i))
        common = _common([before[i][0] for i in after], target, target)
        channels = len(self.source) - 1, len(self.target) - 1
        parts = [
            Part(size, before[after[i]][1], axis, place)
            if pixels_apart
            else Part(size, before[after[i]][1] * channels[0], axis * channels[1], place)
            for place, (size, i, axis) in enumerate(common)
        ]
        return sorted(parts, key=lambda part: (after[common[part.place][1]], part.place))

    def at(self, source: Sequence[int]) -> Rearrangement:
        """The same, of images of known sizes."""
        if None not in self.source:
            return self
        parts = self.parts()
        sizes = [
            source[part.source] // math.prod(p.size or 1 for p in parts if p.source == part.source)
            if part.size is None
            else part.size
            for part in parts
        ]
        target = [
            math.prod(n for n, part in zip(sizes, parts, strict=True) if part.target == axis)
            for axis in range(len(self.target))
        ]
        order = [int(i) for i in np.argsort([part.place for part in parts])]
        return Rearrangement.of(source, target, sizes, order)

    def applied(self, image: Array) -> Array:
        """An image, rearranged."""
        known: Any = self.at(image.shape)
        return image.reshape(known.factors).transpose(known.order).reshape(known.target)

    def channels_at(self, before: int, after: int) -> Rearrangement:
        """The same, of images whose channels are another axis than `before`, and last or first.

        Args:
            before: the axis of the channels of both images: 0 or -1.
            after: the axis that they are in the result.

        Raises:
            Refused: a rearrangement of samples in their order that is none in the other order.
        """
        source, target = (
            Rearrangement.permutation(shape, _moved(len(shape), before, after))
            for shape in (self.source, self.target)
        )
        return target @ self @ source.inverse


def channels_of(shape: Sequence[int | None], axes: Collection[int]) -> Rearrangement:
    """What makes channels of the samples along some axes, the others in their order before them."""
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    turned = Rearrangement.permutation(shape, (*rest, *sorted(axes)))
    channels = _product(shape[axis] for axis in axes)
    return Rearrangement.reshape(turned.target, (*turned.target[: len(rest)], channels)) @ turned


def _moved(axes: int, before: int, after: int) -> list[int]:
    order = list(range(axes))
    order.insert(after % axes, order.pop(before))
    return order


def _product(sizes: Iterable[int | None]) -> int | None:
    sizes = list(sizes)
    known = [n for n in sizes if n is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _common(
    a: Sequence[int | None], b: Sequence[int | None], whole: Shape
) -> list[tuple[int | None, int, int]]:
    """The coarsest factors of which both `a` and `b` are made: size, of which of a, of which of b.

    Args:
        a: factors of a number, the most significant first.
        b: others of the same number.
        whole: the axes that both divide: of unknown ones it is known which is which.

    Raises:
        Refused: there are none, or of unknown factors it is not known which is which.
    """
    left_a = [(i, n) for i, n in enumerate(a) if n != 1]
    left_b = [(i, n) for i, n in enumerate(b) if n != 1]
    axes = [n for n in whole if n != 1]
    if [n for _, n in left_a] == axes == [n for _, n in left_b]:
        return [(n, i, j) for (i, n), (j, _) in zip(left_a, left_b, strict=True)]
    low, high = _matched(left_a, left_b, -1), _matched(left_a, left_b, 0)
    if len(left_a) > 1 and len(left_b) > 1:
        raise Refused("rearrangements of axes of unknown size")
    rest = [(n, i, j) for i, n in left_a for j, _ in left_b]
    if len(left_a) == 1:
        rest = [(n, i, j) for i, _ in left_a for j, n in left_b]
    return [*high, *rest, *reversed(low)]


def _matched(
    a: list[tuple[int, int | None]], b: list[tuple[int, int | None]], end: int
) -> list[tuple[int | None, int, int]]:
    """Known factors at one end of both, which are taken off them. Raises `Refused`."""
    found: list[tuple[int | None, int, int]] = []
    while a and b:
        (i, m), (j, n) = a[end], b[end]
        if m is None or n is None:
            break
        small, large = sorted((m, n))
        if large % small:
            raise Refused(f"rearrangements by {large} samples and by {small}, which do not divide")
        found.append((small, i, j))
        for factors, (index, size) in ((a, (i, m)), (b, (j, n))):
            factors.pop(end)
            if size > small:
                factors.insert(len(factors) if end else 0, (index, size // small))
    return found

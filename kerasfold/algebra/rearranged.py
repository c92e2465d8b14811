"""An operator and a rearrangement behind it, as a value that operators apply to."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Generic, TypeAlias

import numpy as np

from .axis import Axis, Refused
from .chain import Link
from .geometry import Geometry
from .operator import Operator
from .passage import passed
from .product import Array
from .rearrange import Rearrangement, Shape, channels_of


@dataclass(frozen=True, slots=True)
class Rearranged(Generic[Link]):
    """An operator, and a rearrangement of what it gives; maybe each sample scaled and shifted.

    Attributes:
        value: the operator; None is the identity.
        rearrangement: of its output; the identity only where a scale follows.
        scale: per channel of what is rearranged: one that passes no operator before it, as of
            pixels that are channels there. None for none.
        after: the rearrangement behind the scale, or None.
        multiplies: whether the scale does more than to shift.
        took: whether the scale took in the operator, which was one: then it is no other's scale.
    """

    value: Link | None
    rearrangement: Rearrangement
    scale: Link | None = None
    after: Rearrangement | None = None
    multiplies: bool = False
    took: bool = False

    @property
    def whole(self) -> Rearrangement:
        """All that is rearranged. Raises `Refused` where that is more than one."""
        return self.rearrangement if self.after is None else self.after @ self.rearrangement

    def scaled(self, factor: float) -> Rearranged[Link]:
        """A multiple, of what is not the identity. Raises `Refused`."""
        if self.scale is not None:
            raise Refused("a sum of what is scaled sample by sample")
        assert self.value is not None
        return Rearranged(self.value.scaled(factor), self.rearrangement)


Value: TypeAlias = Link | Rearranged[Link] | None  # None is the identity


def rearranged(value: Value[Link], r: Rearrangement) -> Value[Link]:
    """A value, rearranged. Raises `Refused`."""
    inner: Link | None
    if isinstance(value, Rearranged):
        if value.after is not None:
            return replace(value, after=r @ value.after)
        inner, r = value.value, r @ value.rearrangement
    else:
        inner = value
    if inner is not None:
        inner, r = settled(inner, r)
    return inner if r.is_identity else Rearranged(inner, r)


def applied(b: Link, value: Value[Link], multiplies: bool = True) -> Value[Link]:
    """An operator applied to a value; of one that scales, whether it `multiplies`.

    Raises:
        Refused: it passes no rearrangement, or no scale, that is before it.
    """
    if not isinstance(value, Rearranged):
        return b if value is None else b @ value
    scale, after = value.scale, value.after
    if scale is None or after is None:
        r = value.rearrangement
        try:
            return _before(r, b, value.value)
        except Refused:
            if not _scales(b):
                raise
        if value.value is None or not _scales(value.value):
            return replace(value, scale=b, after=_still(r.target), multiplies=multiplies)
        scale, after = value.value, r
        value = Rearranged(None, _still(r.source), scale, after, multiplies=True, took=True)
    passes = _is_per_pixel(_geometry(b)) and not value.multiplies
    if not _scales(b):
        try:
            first, last = passed(b, after)
            return rearranged(_before(value.rearrangement, first @ scale, value.value), last)
        except Refused:
            if not passes:
                raise
        return _shifted(b, value, scale, after)
    if passes and multiplies and value.value is not None and not _scales(value.value):
        return _shifted(b, value, scale, after)
    wide = _with_last_channels(after)
    scale, back = passed(scale, wide.inverse)
    b, after = passed(b, after @ back)
    return replace(
        value,
        rearrangement=wide @ value.rearrangement,
        scale=b @ scale,
        after=after,
        multiplies=value.multiplies or multiplies,
    )


def _shifted(b: Link, value: Rearranged[Link], shift: Link, after: Rearrangement) -> Value[Link]:
    """A pointwise operator before a shift: B (x + c) = B x + B c. Raises `Refused`."""
    require_along(after)
    varied: set[int] = {*_varied(after), len(after.target) - 1}
    seen = channels_of((*after.target[:-1], _geometry(b).channels[1]), varied)
    count = seen.target[-1] or 0
    axes = tuple(map(Axis, seen.target[:-1]))
    geometry = Geometry(axes, (count, count), count, _geometry(shift).biased)
    moved = applied(b, rearranged(value.value, after @ value.rearrangement))
    if isinstance(b, Geometry):
        return scaled_along(geometry, seen, moved, multiplies=False)
    image = _pointwise(b, along(after, shift.bias))
    bias = channels_of(image.shape, varied).applied(image).ravel()
    step = Operator(geometry, np.ones(geometry.kernel_shape), bias)
    return scaled_along(step, seen, moved, multiplies=False)


def _pointwise(b: Operator, image: Array) -> Array:
    """The linear part of a pointwise operator on an image that broadcasts to its inputs."""
    (inputs, outputs), groups = b.geometry.channels, b.geometry.groups
    image = np.broadcast_to(image, (*image.shape[:-1], inputs))
    blocks = image.reshape((*image.shape[:-1], groups, inputs // groups))
    kernel = b.kernel.reshape((inputs // groups, groups, outputs // groups))
    return np.einsum("...gi,igo->...go", blocks, kernel).reshape((*image.shape[:-1], outputs))


def scale_of_samples(
    image: Shape, axes: Collection[int], gain: Array, shift: Array
) -> tuple[Operator, Rearrangement]:
    """A scale and a shift that vary along some axes, as one per channel of a rearranged image.

    Args:
        image: its shape.
        axes: that they vary along, of known size.
        gain: of as many axes, of one sample along the others.
        shift: the same.
    """
    sizes = [n or 1 if axis in axes else 1 for axis, n in enumerate(image)]
    order, seen = channels_of(sizes, axes), channels_of(image, axes)
    gain, shift = (order.applied(np.broadcast_to(x, sizes)).ravel() for x in (gain, shift))
    pixels = tuple(map(Axis, seen.target[:-1]))
    geometry = Geometry(pixels, (gain.size,) * 2, gain.size, bool(np.any(shift)))
    return Operator(geometry, gain.reshape(geometry.kernel_shape), shift), seen


def scaled_along(
    scale: Link, r: Rearrangement, value: Value[Link], multiplies: bool
) -> Value[Link]:
    """A value with a scale for each channel of what `r` makes of it. Raises `Refused`."""
    return rearranged(applied(scale, rearranged(value, r), multiplies), r.inverse)


def _before(r: Rearrangement, b: Link, value: Link | None) -> Value[Link]:
    """`b r value`. Raises `Refused` where the operator does not pass."""
    b, r = passed(b, r)
    return rearranged(b if value is None else b @ value, r)


def _still(shape: Shape) -> Rearrangement:
    return Rearrangement.reshape(shape, shape)


def _with_last_channels(after: Rearrangement) -> Rearrangement:
    """What makes the last channels, if they are none, channels where a rearrangement begins."""
    parts = after.parts()
    own, last = len(after.source) - 1, len(after.target) - 1
    rest = [part for part in parts if part.source != own and part.target != last]
    channels = [part for part in parts if part not in rest]
    shape = (*(part.size for part in rest), math.prod(part.size or 0 for part in channels))
    order = [parts.index(part) for part in (*rest, *channels)]
    return Rearrangement.of(after.source, shape, [part.size for part in parts], order)


def require_along(after: Rearrangement) -> None:
    """Refuse what `along` gives no image for."""
    varied = _varied(after)
    if any(part.size is None and part.target in varied for part in after.parts()):
        raise Refused("a scale along a part of an axis of unknown size")


def along(after: Rearrangement, values: Array) -> Array:
    """A value for each channel of an image as an image to be broadcast, rearranged."""
    parts = after.parts()
    own, varied = len(after.source) - 1, _varied(after)
    values = values.reshape([1 if part.source != own else part.size or 0 for part in parts])
    sizes = [1 if part.target not in varied else part.size or 0 for part in parts]
    order = np.argsort([part.place for part in parts])
    full = np.broadcast_to(values, sizes).transpose(order)
    shape = [
        math.prod(n for n, part in zip(sizes, parts, strict=True) if part.target == axis)
        for axis in range(len(after.target))
    ]
    return full.reshape(shape)


def _varied(after: Rearrangement) -> set[int]:
    """The axes after a rearrangement that what were channels are along."""
    own = len(after.source) - 1
    return {part.target for part in after.parts() if part.source == own}


def settled(a: Link, r: Rearrangement) -> tuple[Link, Rearrangement]:
    """`(a', r')` with `r a = r' a'`: what of `r` the operator before it can do itself.

    Unless it is in groups, that is an order of its output channels, and an image of one pixel in
    place of a vector. A global pool stays one.
    """
    geometry = _geometry(a)
    if geometry.groups > 1:
        return a, r
    if geometry.vector and r.target == (1,) * len(geometry.axes) + r.source:
        image = replace(geometry, vector=False)
        a = image if isinstance(a, Geometry) else Operator(image, a.kernel, a.bias, a.ones)
        return a, Rearrangement.reshape(r.target, r.target)
    order = r.channel_order
    if order is None:
        return a, r
    if isinstance(a, Operator) and list(order) != list(range(len(order))):
        ones = None if a.ones is None else a.ones[..., order]
        a = Operator(geometry, a.kernel[..., order], a.bias[order], ones)
    return a, Rearrangement.reshape(r.source, r.source)


def _scales(b: Link) -> bool:
    """Whether an operator has one weight for each channel, and nothing else."""
    geometry = _geometry(b)
    return _is_per_pixel(geometry) and geometry.keeps_channels


def _is_per_pixel(geometry: Geometry) -> bool:
    """Whether it maps each pixel to one, and does not make a vector of the only one."""
    return geometry.is_pointwise and not geometry.vector


def _geometry(b: Link) -> Geometry:
    return b if isinstance(b, Geometry) else b.geometry

"""What an operator makes of an image that is known, and which channels it reads.

An image that is known is an array (*sizes, channels), of one sample along axes that it does not
vary along, at any, even unknown, size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .axis import Axis, Refused
from .operator import Operator
from .places import samples_read
from .product import Array, matrix_product

FIRST = 64  # input channels that are looked at first: of most kernels, they say it all


def response(operator: Operator, image: Array) -> Array:
    """The operator, its kernel of any float, applied to a known image, without its bias.

    Raises:
        Refused: a constant before zero padding, at an unknown size.
    """
    geometry, kernel, groups = operator.geometry, operator.kernel, operator.geometry.groups
    assert not geometry.ones
    known = image.reshape((1,) * (len(geometry.axes) + 1 - image.ndim) + image.shape)
    pairs = zip(geometry.axes, known.shape, strict=False)
    places = [_places(axis, geometry.steady, n) for axis, n in pairs]
    total = _summed(kernel, known, places, groups)
    if geometry.normalised:
        ones = np.ones((1,) * len(places) + known.shape[-1:])
        total = total / _summed(kernel, ones, [np.minimum(p, 0) for p in places], groups)
    return total[(0,) * len(places)] if geometry.vector else even(total)


def even(image: Array) -> Array:
    """A known image, of one sample along the axes that it turns out not to vary along."""
    for axis in range(image.ndim - 1):
        first = image.take([0], axis=axis)
        if image.shape[axis] > 1 and np.all(image == first):
            image = first
    return image


def _places(axis: Axis, steady: bool, samples: int) -> Array:
    """The sample that each output reads with each tap, (outputs, taps); -1 for a zero."""
    if samples == 1 != axis.size:
        if not (axis.same or max(axis.pad) > 0 or axis.upsampling > 1):
            return np.zeros((1, axis.taps), int)
        if steady:  # of which any tap says it all
            return np.minimum(-np.arange(axis.taps), 0).clip(-1)[None]
        if axis.size is None:
            raise Refused("a constant before zero padding, at an unknown image size")
    assert axis.out is not None
    return np.minimum(samples_read(axis, np.arange(axis.out)), samples - 1)


def _summed(kernel: Array, image: Array, places: list[Array], groups: int) -> Array:
    """The sum over the taps of what each makes of the samples in its places."""
    *taps, width, outputs = kernel.shape
    sizes = [len(p) for p in places]
    total = np.zeros((*sizes, outputs))
    rows = np.flatnonzero(image.any(axis=tuple(range(image.ndim - 1))))
    for tap in np.ndindex(*taps):
        if groups == 1:
            pixels = image.reshape(-1, image.shape[-1])[:, rows]
            made = matrix_product(pixels, kernel[tap][rows].astype("float64"))
            made = made.reshape(*image.shape[:-1], outputs)
        else:
            parts = image.reshape(*image.shape[:-1], groups, width)
            blocks = kernel[tap].reshape(width, groups, outputs // groups).astype("float64")
            made = np.einsum("...gw,wgm->...gm", parts, blocks)
            made = made.reshape(*image.shape[:-1], outputs)
        for axis, (place, t) in enumerate(zip(places, tap, strict=True)):
            at = place[:, t]
            real = (at >= 0).reshape((-1,) + (1,) * (made.ndim - axis - 1))
            made = made.take(np.maximum(at, 0), axis=axis) * real
        total += made
    return total


def some(kernel: Array, groups: int, of: Array, says: Callable[[Array], Array]) -> Array:
    """By output channel, whether a weight of any of some input channels is of a kind.

    Args:
        kernel: (*taps, inputs / groups, outputs).
        groups: of the kernel.
        of: which input channels, (inputs,).
        says: of weights, whether they are of the kind.
    """
    width, outputs = kernel.shape[-2:]
    if not of.any():
        return np.zeros(outputs, bool)
    blocks = kernel.reshape(-1, width, groups, outputs // groups)
    asked = of.reshape(groups, width).T[:, :, None]
    found = np.zeros(blocks.shape[2:], bool)
    for rows in (slice(FIRST), slice(FIRST, None)):
        found |= (says(blocks[:, rows]) & asked[rows]).any(axis=(0, 1))
        if found.all():
            break
    return found.reshape(outputs)


def reads_all(kernel: Array, groups: int) -> bool:
    """Whether every input channel is read."""
    width, outputs = kernel.shape[-2:]
    blocks = kernel.reshape(-1, width, groups, outputs // groups)
    first = (blocks[..., :FIRST] != 0).any(axis=(0, 3))
    return bool(first.all() or (blocks != 0).any(axis=(0, 3)).all())


def connections(kernel: Array) -> Array:
    """Which input channels of its group each output reads, (inputs / groups, outputs)."""
    read: Array = (kernel != 0).any(axis=tuple(range(kernel.ndim - 2)))
    return read


def channels_read(connected: Array, groups: int, wanted: Array) -> Array:
    """The input channels that some output channels read, (inputs,).

    Args:
        connected: see `connections`.
        groups: of the operator.
        wanted: which outputs, (outputs,).
    """
    width, outputs = connected.shape
    blocks = connected.reshape(width, groups, outputs // groups)
    read: Array = (blocks & wanted.reshape(groups, -1)).any(axis=-1)
    return read.T.reshape(-1)

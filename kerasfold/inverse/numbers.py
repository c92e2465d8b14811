"""What the numbers of a kernel show and its sizes do not, exactly: the same function for less.

Zeros around the taps, between them, and between blocks of channels; equal numbers, and channels
that are handed on as they are; and taps that meet no pixel. Each law takes an operator and gives
the steps that it equals bit for bit, or refuses. The first number that speaks against a law ends
it, mostly one of the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from kerasfold.algebra.axis import Axis, Refused
from kerasfold.algebra.chain import chain
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.product import Array, regroup


@dataclass(frozen=True, eq=False, slots=True)
class Mean:
    """The mean of each window of each channel, times `gain`, plus `bias`.

    Attributes:
        geometry: of the mean.
        gain: of each channel.
        bias: of each channel.
    """

    geometry: Geometry
    gain: Array
    bias: Array

    @property
    def operator(self) -> Operator:
        """The same as a convolution."""
        kernel = np.full(self.geometry.kernel_shape, 1 / math.prod(self.geometry.taps))
        geometry = replace(self.geometry, biased=bool(np.any(self.bias)))
        return Operator(geometry, kernel * self.gain, self.bias)


@dataclass(frozen=True, slots=True)
class Selection:
    """Channels of an image, in some order.

    Attributes:
        channels: which of those that are read each one is.
        of: how many are read.
        sizes: of the image.
    """

    channels: tuple[int, ...]
    of: int
    sizes: tuple[int | None, ...]

    @property
    def is_identity(self) -> bool:
        """Whether it is the image as it is."""
        return self.channels == tuple(range(self.of))

    @property
    def operator(self) -> Operator:
        """The same as a convolution."""
        geometry = Geometry(tuple(map(Axis, self.sizes)), (self.of, len(self.channels)))
        kernel = np.eye(self.of)[:, list(self.channels)].reshape(geometry.kernel_shape)
        return Operator(geometry, kernel, np.zeros(len(self.channels)))


@dataclass(frozen=True, eq=False, slots=True)
class Turned:
    """A convolution of an image with its two axes exchanged, which are exchanged back behind it.

    Attributes:
        operator: what it is of the image as it is.
    """

    operator: Operator

    @property
    def inner(self) -> Operator:
        """The convolution between the two transpositions. Raises `Refused` where there is none."""
        operator, geometry = self.operator, self.operator.geometry
        if len(geometry.axes) != 2 or geometry.vector:
            raise Refused("a transposition of what has no two axes before it and behind it")
        return Operator(
            replace(geometry, axes=geometry.axes[::-1]),
            operator.kernel.swapaxes(0, 1),
            operator.bias,
            None if operator.ones is None else operator.ones.swapaxes(0, 1),
        )


Step: TypeAlias = Operator | Mean | Selection | Turned
Steps: TypeAlias = tuple[Step, ...]
Law: TypeAlias = Callable[[Operator], Steps]


def operator_of(steps: Steps) -> Operator:
    """Steps as one convolution. Raises `Refused`."""
    return chain([step if isinstance(step, Operator) else step.operator for step in steps])


def within(operator: Operator) -> Steps:
    """Without taps that read no pixel. Raises `Refused` where there are none.

    As all but the middle tap of a 3x3 kernel, padding 'same', on an image of one pixel. It is for
    kernels that images of one size alone are convolved with.
    """
    if operator.geometry.normalised:
        raise Refused("means of what falls inside, which all taps have a share in")
    inner = operator.trimmed()
    if inner.geometry.axes == operator.geometry.axes:
        raise Refused("taps that all read pixels")
    return (inner,)


def trimmed(operator: Operator) -> Steps:
    """Without outer taps of zeros. Raises `Refused` where there are none."""
    cuts = [_ends(taps) for taps in _used(operator)]
    axes = operator.geometry.axes
    if not any(low or high for low, high in cuts):
        raise Refused("outer taps that are not zeros")
    if any(axis.same and (low or high) for axis, (low, high) in zip(axes, cuts, strict=True)):
        raise Refused("zeros around a kernel whose strided padding='same' depends on the size")
    kept = tuple(slice(low, a.taps - high) for a, (low, high) in zip(axes, cuts, strict=True))
    axes = tuple(
        replace(
            axis,
            taps=axis.taps - low - high,
            pad=(axis.pad[0] - low * axis.dilation, axis.pad[1] - high * axis.dilation),
        ).tight()
        for axis, (low, high) in zip(axes, cuts, strict=True)
    )
    return (_at_taps(operator, axes, kept),)


def dilated(operator: Operator) -> Steps:
    """Without the zeros between taps. Raises `Refused` where there are none, or around them."""
    used = _used(operator)
    if not all(taps.any() and taps[0] and taps[-1] for taps in used):
        raise Refused("zeros around the taps")
    steps = [math.gcd(*np.flatnonzero(taps)) or 1 for taps in used]
    if max(steps, default=1) == 1:
        raise Refused("taps with no zeros between them")
    axes = tuple(
        axis
        if step == 1
        else replace(axis, taps=(axis.taps - 1) // step + 1, dilation=axis.dilation * step)
        for axis, step in zip(operator.geometry.axes, steps, strict=True)
    )
    return (_at_taps(operator, axes, tuple(slice(None, None, step) for step in steps)),)


def blocked(operator: Operator) -> Steps:
    """In as many groups of channels as there are blocks. Raises `Refused` where there is one."""
    geometry, kernel = operator.geometry, operator.kernel
    (inputs, outputs), rank = geometry.channels, len(geometry.axes)
    most = math.gcd(inputs, outputs)
    if most == geometry.groups:
        raise Refused("channels that all read each other")
    if kernel[..., 0, outputs // geometry.groups - 1].any():  # the first input, the last output
        raise Refused("channels that read some of other blocks")
    reads = regroup((kernel != 0).any(axis=tuple(range(rank))), geometry.groups, 1)
    row, column = np.nonzero(reads)
    for groups in range(most, geometry.groups, -1):
        if most % groups or groups % geometry.groups:
            continue
        if np.array_equal(row * groups // inputs, column * groups // outputs):
            return (_in_groups(operator, groups),)
    raise Refused("channels that read some of other blocks")


def selected(operator: Operator) -> Steps:
    """A selection of channels, each as it is. Raises `Refused` of other pointwise operators."""
    geometry = operator.geometry
    if not geometry.is_pointwise or geometry.ones or geometry.vector or np.any(operator.bias):
        raise Refused("more than a choice of channels")
    matrix = operator.kernel.reshape(operator.kernel.shape[-2:])
    outputs = geometry.channels[1]
    if np.count_nonzero(matrix[:, :1]) > 1 or np.count_nonzero(matrix) != outputs:
        raise Refused("a channel that is the sum of several, or none")
    chosen = matrix.argmax(axis=0)
    if np.any(matrix.max(axis=0) != 1):
        raise Refused("a channel that is not handed on as it is")
    width = geometry.channels[0] // geometry.groups
    group = np.arange(geometry.channels[1]) * geometry.groups // geometry.channels[1]
    channels = tuple(map(int, chosen + group * width))
    return (Selection(channels, geometry.channels[0], geometry.sizes),)


def averaged(operator: Operator) -> Steps:
    """The mean of each window, then what is pointwise. Raises `Refused` where taps differ."""
    geometry, kernel = operator.geometry, operator.kernel
    taps, rank = math.prod(geometry.taps), len(geometry.axes)
    first = kernel[(0,) * rank]
    pair = kernel[..., :1, :1]  # which tells at once of most kernels
    if taps == 1 or np.any(pair != pair[(0,) * rank]) or np.any(kernel != first):
        raise Refused("taps that are not all alike")
    if not first.any():
        raise Refused("taps that are all zeros, of which no mean is to be taken")
    if geometry.ones or geometry.vector or rank > 3 or not geometry.channels[0]:
        raise Refused("a mean of more than an image")
    if any(a.dilation > 1 or a.upsampling > 1 or a.same for a in geometry.axes):
        raise Refused("a mean of windows with gaps")
    inputs, _ = geometry.channels
    mean = Geometry(geometry.axes, (inputs, inputs), inputs)
    if geometry.keeps_channels:
        return (Mean(mean, taps * first.ravel(), operator.bias),)
    axes = tuple(map(Axis, geometry.sizes))
    pointwise = Geometry(axes, geometry.channels, geometry.groups, geometry.biased)
    mixed = Operator(pointwise, taps * first.reshape(pointwise.kernel_shape), operator.bias)
    return Mean(mean, np.ones(inputs), np.zeros(inputs)), mixed


# In the order in which they are tried; what one gives, the others may make less of.
EXACT: tuple[Law, ...] = (trimmed, dilated, blocked, selected, averaged)


def _used(operator: Operator) -> list[np.ndarray]:
    """Along each axis, whether a tap is anything but zero."""
    kernel, rank = operator.kernel, len(operator.geometry.axes)
    if kernel[..., :1, :1].all() and kernel.size:  # which tells at once of most kernels
        return [np.ones(axis.taps, bool) for axis in operator.geometry.axes]
    found = []
    for d in range(rank):
        others = tuple(i for i in range(kernel.ndim) if i != d)
        taps = np.asarray(kernel.any(axis=others))
        if operator.ones is not None:
            taps = taps | operator.ones.any(axis=others[:-1])
        found.append(taps)
    return found


def _ends(used: np.ndarray) -> tuple[int, int]:
    """Zeros at either end; none where there is nothing else."""
    (places,) = np.nonzero(used)
    return (int(places[0]), int(len(used) - 1 - places[-1])) if len(places) else (0, 0)


def _at_taps(operator: Operator, axes: tuple[Axis, ...], kept: tuple[slice, ...]) -> Operator:
    """The operator with some of its taps, along `axes`."""
    ones = None if operator.ones is None else operator.ones[kept]
    geometry = replace(operator.geometry, axes=axes)
    return Operator(geometry, operator.kernel[kept], operator.bias, ones)


def _in_groups(operator: Operator, groups: int) -> Operator:
    """The operator in more groups, of which no channel reads another."""
    geometry, kernel = operator.geometry, operator.kernel
    finer = replace(geometry, groups=groups)
    *taps, width, outputs = finer.kernel_shape
    within = groups // geometry.groups  # blocks of a group
    read = np.arange(outputs) * groups // outputs % within * width
    rows = read[None, :] + np.arange(width)[:, None]
    flat = kernel.reshape(-1, *kernel.shape[-2:])
    return Operator(
        finer,
        flat[:, rows, np.arange(outputs)].reshape(*taps, width, outputs),
        operator.bias,
        operator.ones,
    )

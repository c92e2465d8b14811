"""What a convolution is taken apart into: steps, one after another, each a stock Keras layer."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasfold.algebra.axis import Axis
from kerasfold.algebra.chain import chain
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.product import Array
from kerasfold.errors import FoldError
from kerasfold.read.weights import as_array

ROUNDING = 1e-12  # relative error up to which a kernel counts as exact


@dataclass(frozen=True, slots=True)
class Step:
    """One layer, all of it but its weights, unpadded and without a bias.

    Attributes:
        kind: its class in `keras.layers`, such as 'Conv2D'.
        taps: window size along each axis.
        strides: of the window.
        dilation: spacing of the taps.
        groups: independent blocks of channels; as many as input channels for a
            DepthwiseConv and for a pool.
    """

    kind: str
    taps: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def is_depthwise(self) -> bool:
        """Whether its kernel is one of a DepthwiseConv: (*taps, in, multiplier)."""
        return self.kind.startswith("Depthwise")

    @property
    def is_pool(self) -> bool:
        """Whether it has no kernel."""
        return self.kind.startswith("AveragePooling")

    def __str__(self) -> str:
        words = [self.kind, "x".join(map(str, self.taps))]
        for name, values in (("stride", self.strides), ("dilation", self.dilation)):
            if max(values) > 1:
                words.append(f"{name} {'x'.join(map(str, values))}")
        if self.groups > 1 and self.kind.startswith("Conv"):
            words.append(f"in {self.groups} groups")
        return " ".join(words)


Part = tuple[Step, Array | None]


def in_blocks(kernel: Array, depthwise: bool) -> Array:
    """A kernel as (groups, *taps, inputs of a group, outputs of a group)."""
    return np.moveaxis(kernel, -2, 0)[..., None, :] if depthwise else kernel[None]


def convolution(blocks: Array, dilation: Sequence[int] | None = None) -> Part:
    """A convolution, depthwise where there is a layer for that.

    Args:
        blocks: (groups, *taps, inputs of a group, outputs of a group).
        dilation: spacing of the taps along each axis.
    """
    groups, *taps, inputs, outputs = blocks.shape
    rank, depthwise = len(taps), groups > 1 and inputs == 1 and len(taps) < 3
    step = Step(
        f"{'Depthwise' * depthwise}Conv{rank}D",
        tuple(taps),
        (1,) * rank,
        tuple(dilation or (1,) * rank),
        groups,
    )
    kernel = np.moveaxis(blocks, 0, -2)
    shape = (groups, outputs) if depthwise else (inputs, groups * outputs)
    return step, kernel.reshape(*taps, *shape)


def pool(size: Sequence[int], channels: int) -> Part:
    """An average pooling, whose windows do not overlap."""
    ones = (1,) * len(size)
    return Step(f"AveragePooling{len(size)}D", tuple(size), tuple(size), ones, channels), None


def operator(step: Step, kernel: Array | None) -> Operator:
    """A step as an affine operator, on images of any size."""
    if kernel is None:
        shape = (*step.taps, 1, step.groups)
        kernel = np.full(shape, 1 / np.prod(step.taps))
    elif step.is_depthwise:
        kernel = kernel.reshape(*step.taps, 1, -1)
    axes = tuple(
        Axis(None, k, s, r) for k, s, r in zip(step.taps, step.strides, step.dilation, strict=True)
    )
    geometry = Geometry(axes, (kernel.shape[-2] * step.groups, kernel.shape[-1]), step.groups)
    return Operator(geometry, kernel, np.zeros(kernel.shape[-1]))


def composed_kernel(parts: Sequence[Part]) -> Array:
    """The kernel of steps, one after another: (*taps, in, out), or that of a DepthwiseConv."""
    try:
        whole = chain([operator(*part) for part in parts])
    except ValueError as error:
        raise FoldError(f"the steps {', '.join(str(s) for s, _ in parts)}: {error}") from error
    geometry = whole.geometry
    kernel = whole.window
    if geometry.is_depthwise:
        return kernel.reshape(*kernel.shape[:-2], geometry.channels[0], -1)
    return kernel


def checked(values: Any, name: str, wanted: str = "an array") -> Array:
    """A kernel in float64, of finite numbers along one to three axes.

    Raises:
        FoldError: what is none.
    """
    try:
        if isinstance(values, (str, keras.Layer)) or np.iscomplexobj(values):
            raise TypeError
        array = as_array(values)
    except Exception as error:  # each kind of object has its own way of being no array
        raise FoldError(
            f"{name} is {wanted} of real numbers. Received: {reprlib.repr(values)}"
        ) from error
    if not 3 <= array.ndim <= 5 or not array.size:
        raise FoldError(
            f"{name} is (*taps, in, out) with one to three axes of taps; one filter of one channel "
            f"is kernel[..., None, None]. Received: shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise FoldError(f"{name} has values that are not finite: repair it first")
    return array


def to_unit(kernel: Array) -> tuple[Array, int]:
    """A kernel over the power of two that its largest magnitude is 1 to 2 times, and the power."""
    power = math.frexp(float(np.max(np.abs(kernel))))[1] - 1 if kernel.any() else 0
    return np.ldexp(kernel, -power), power


def whole_numbers(
    value: int | Sequence[int], count: int, name: str, least: int = 1
) -> tuple[int, ...]:
    """So many whole numbers of at least `least`, of one for all or of one each.

    Raises:
        FoldError: another value.
    """
    given = np.broadcast_to(value, count) if np.ndim(value) == 0 else np.asarray(value)
    if given.shape != (count,) or given.dtype.kind not in "iu" or given.min() < least:
        each = f", or {count} of them" if count > 1 else ""
        raise FoldError(f"{name} is a whole number, {least} or more{each}. Received: {value!r}")
    return tuple(int(n) for n in given)


def amount(value: float, name: str) -> float:
    """A number of at least 0.

    Raises:
        FoldError: another value.
    """
    if not isinstance(value, numbers.Real) or not 0 <= value < math.inf:
        raise FoldError(f"{name} is a number, 0 or more. Received: {value!r}")
    return float(value)

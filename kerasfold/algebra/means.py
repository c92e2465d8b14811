"""Means of what falls inside an image, as what one window after them reads of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .axis import Axis
from .places import samples_read
from .product import Array


def sees_alike(axis: Axis) -> bool:
    """Whether every window along an axis has a sample at every tap."""
    return axis.upsampling == 1 and not axis.reaches_out


def corrected(
    kernel_b: Array, groups: int, b: Sequence[Axis], a: Sequence[Axis], kernel_a: Array
) -> Array:
    """The kernel of B on means A, as one on sums over the windows of A.

    Where the windows of A do not see alike, B reads each of them with one tap alone; so that tap
    takes the division by the weight that falls inside.

    Args:
        kernel_b: (*taps of B, channels / groups, outputs).
        groups: of B.
        b: its axes; of one output along those where the windows of A do not see alike.
        a: the axes of A.
        kernel_a: (*taps of A, 1, channels).
    """
    inside = kernel_a[..., 0, :]
    for d, (axis_b, axis_a) in enumerate(zip(b, a, strict=True)):
        within = np.ones((1, axis_a.taps)) if sees_alike(axis_a) else _within(axis_b, axis_a)
        inside = np.moveaxis(np.tensordot(within, inside, axes=(1, d)), 0, d)
    *taps, width, outputs = kernel_b.shape
    blocks = kernel_b.reshape(*taps, width, groups, outputs // groups)
    inside = inside.reshape(*inside.shape[:-1], groups, width).swapaxes(-1, -2)
    weighted: Array = blocks / inside[..., None]
    return weighted.reshape(kernel_b.shape)


def _within(b: Axis, a: Axis) -> Array:
    """Of each tap of B, which taps of A have a sample in the output that it reads."""
    outputs = b.crop[0] + np.arange(b.taps) * b.dilation
    return (samples_read(a, outputs) >= 0).astype("float64")

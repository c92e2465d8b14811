"""Lift rules of `keras.ops.image`, and what they share with the layers that call it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerasfold.algebra.axis import Pair, Refused
from kerasfold.layers.spelling import per_axis
from kerasfold.lift.operands import same_layout
from kerasfold.lift.program import Weights
from kerasfold.lift.registry import lifts
from kerasfold.lift.signal import Signal


def require_images(op: Any, x: Signal) -> None:
    """Refuse what is no batch of images in the model's layout."""
    same_layout(op, x)
    if x.rank != 2:
        raise Refused("it takes the batch for an axis of an image")


def resized(op: Any, x: Signal, sizes: Sequence[int]) -> Signal:
    """The images as they are, or upsampled. Raises `Refused` of others."""
    require_images(op, x)
    if op.antialias or op.crop_to_aspect_ratio or op.pad_to_aspect_ratio:
        raise Refused("it smooths, crops or pads what it resizes")
    if any(n is None or m % n for n, m in zip(x.sizes, sizes, strict=True)):
        raise Refused(f"images of {x.sizes} are no whole number of times smaller than {sizes}")
    factors = [m // (n or 1) for n, m in zip(x.sizes, sizes, strict=True)]
    if op.interpolation not in ("nearest", "bilinear"):
        raise Refused(f"its interpolation '{op.interpolation}' clamps at the border")
    blends = op.interpolation == "bilinear" and set(factors) != {1}
    return x.interpolate(factors) if blends else x.upsample(factors)


@lifts(keras.ops.image.resize)
def resize_op(op: Any, x: Signal) -> Signal:
    """Y = x, or x upsampled."""
    return resized(op, x, op.size)


@lifts(keras.ops.image.extract_patches)
def extract_patches_op(op: Any, x: Signal) -> Signal:
    """y[p, (t, i)] = x[p s + t r - lo, i]."""
    same_layout(op, x)
    taps = per_axis(op.size, x.rank)
    count = int(np.prod(taps)) * x.channels
    shape = (*taps, x.channels, count)
    return x.convolve(
        Weights(shape, lambda: np.eye(count).reshape(shape)),
        strides=op.strides or taps,
        padding=op.padding,
        dilation=op.dilation_rate,
    )


@lifts(keras.ops.image.pad_images)
def pad_images_op(op: Any, x: Signal) -> Signal:
    """y[p] = x[p - lo], zero outside."""
    return x.pad(_margins(op, x, "padding"))


@lifts(keras.ops.image.crop_images)
def crop_images_op(op: Any, x: Signal) -> Signal:
    """y[p] = x[p + lo]."""
    return x.crop(_margins(op, x, "cropping"))


def _margins(op: Any, x: Signal, what: str) -> list[Pair]:
    """What is added or dropped at both ends of each axis: two of them and the new size are said."""
    require_images(op, x)
    ends = ("top", "bottom", op.target_height), ("left", "right", op.target_width)
    found = []
    for n, (first, last, target) in zip(x.sizes, ends, strict=True):
        lo, hi = (getattr(op, f"{end}_{what}") for end in (first, last))
        if None in (lo, hi):
            if n is None:
                raise Refused("what it adds or drops depends on an image size that is unknown")
            total = abs(target - n)
            lo, hi = (total - hi if lo is None else lo), (total - lo if hi is None else hi)
        found.append((lo, hi))
    return found

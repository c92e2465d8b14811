"""Bilinear resizing in the dtype of its images: TensorFlow does it in float32 in any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasfold.read.inside import Made
from kerasfold.read.model import is_of_keras

_PLAIN = {"antialias": False, "crop_to_aspect_ratio": False, "pad_to_aspect_ratio": False}


# What the sides of an image become, by the kind of what resizes it.
_SIDES: dict[str, Callable[[Any, Sequence[int]], Sequence[int]]] = {
    "UpSampling2D": lambda layer, sides: [n * k for n, k in zip(sides, layer.size, strict=True)],
    "Resizing": lambda layer, _: (layer.height, layer.width),
    "Resize": lambda operation, _: operation.size,
}


def resizing(made: Made) -> Callable[..., Any] | None:
    """What computes a call that resizes images bilinearly as its layer says it; None of others."""
    operation: Any = made.operation
    sides = _SIDES.get(type(operation).__name__) if is_of_keras(operation) else None
    plain = all(getattr(operation, name, value) == value for name, value in _PLAIN.items())
    if sides is None or not plain or operation.interpolation != "bilinear" or len(made.args) != 1:
        return None
    if not keras.backend.is_float_dtype(getattr(made.args[0], "dtype", "")):
        return None
    axes = (-2, -1) if operation.data_format == "channels_first" else (-3, -2)
    return lambda x, **_: resized(x, axes, sides(operation, [x.shape[a] for a in axes]))


def resized(x: Any, axes: Sequence[int], sides: Sequence[int]) -> Any:
    """`y[i] = (1 - s) x[⌊p⌋] + s x[⌊p⌋ + 1]` along each axis, p = (i + 1/2) n / m - 1/2 = ⌊p⌋ + s.

    Args:
        x: images, n pixels along an axis.
        axes: those that are resized.
        sides: what they become, m pixels.
    """
    for axis, side in zip(axes, sides, strict=True):
        last = x.shape[axis] - 1
        at = np.clip((np.arange(side) + 0.5) * (last + 1) / side - 0.5, 0, last)
        low = np.floor(at).astype("int32")
        share = (at - low).reshape(-1, *[1] * (-1 - axis))
        first, second = (ops.take(x, np.minimum(low + k, last), axis=axis) for k in (0, 1))
        x = first + ops.cast(share, x.dtype) * (second - first)
    return x

"""A mean or a sum over axes of an image -> a global pool where that says it, else an operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value


def reduced(
    build: Builder, x: Value, axes: Sequence[int], keepdims: bool, adds_up: bool, name: str
) -> Value:
    """The mean, or the sum, of images over some of their axes.

    Args:
        build: makes the layers.
        x: images, channels last.
        axes: counted without the batch.
        keepdims: whether the axes stay, with one sample each.
        adds_up: whether it is the sum.
        name: of the layer, or of the operation.
    """
    rank = len(x.shape) - 2
    if not adds_up and rank in (1, 2, 3) and list(axes) == list(range(rank)):
        kind = build.kind("GlobalAveragePooling", rank)
        config = {"keepdims": keepdims, "data_format": build.layout}
        return build.applied(kind, "reduced", x, name=name, **config)
    reduce = keras.ops.sum if adds_up else keras.ops.mean
    x = build.as_computed(x, name)
    found = reduce(x, axis=[axis + 1 for axis in axes], keepdims=keepdims)
    return build.names.give_exactly(found, name)

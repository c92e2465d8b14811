"""Single Keras layers that are built and have their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerasfold.backend import own_seeds
from kerasfold.layers.rewrite import keras_pairs


@own_seeds()
def ready(
    kind: str, kernel: np.ndarray | None, channels: int, dtype: Any = None, **config: Any
) -> keras.Layer:
    """A layer without a bias, on images of any size.

    Args:
        kind: its class in `keras.layers`.
        kernel: its only weight, if it has one.
        channels: of the image.
        dtype: dtype or policy, Keras's default if None.
        **config: more of its arguments.
    """
    if kernel is not None:
        config["use_bias"] = False
    layer = getattr(keras.layers, kind)(dtype=dtype, **config)
    free = (None,) * int(kind[-2])
    layer.build(
        (None, *free, channels) if layer.data_format == "channels_last" else (None, channels, *free)
    )
    if kernel is not None:
        layer.set_weights([kernel])
    return layer


def zeros_around(pads: Sequence[tuple[int, int]], dtype: Any = None) -> keras.Layer:
    """A layer of so many zeros before and after each axis."""
    kind = getattr(keras.layers, f"ZeroPadding{len(pads)}D")
    return kind(keras_pairs(pads), dtype=dtype)

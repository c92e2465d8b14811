"""A gain and a shift of each channel -> a BatchNormalization that is exactly those."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

if TYPE_CHECKING:
    from kerasfold.layers.build import Builder, Value

# Keras's own 0.001, nearly; what is left of 1 is exact in every dtype, and so is their sum.
EPSILON = 2.0**-8


def normalised(build: Builder, x: Value, gain: np.ndarray, shift: np.ndarray, name: str) -> Value:
    """Each channel times its gain, plus its shift: y = gain (x - 0) / sqrt(1) + shift."""
    weights = {
        "gamma": gain,
        "beta": shift,
        "moving_mean": np.zeros_like(gain),
        "moving_variance": np.full_like(gain, 1.0 - EPSILON),
    }
    axis = 1 if build.layout == "channels_first" else -1
    kind = keras.layers.BatchNormalization
    return build.weighted(kind, "normalised", x, weights, axis=axis, epsilon=EPSILON, name=name)

"""Models for the command line to store, and how it fails."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np


def conv_bn(last_scale: float = 1.0, activation: str | None = None) -> keras.Model:
    """A convolution and a BatchNormalization with statistics; the same weights each time."""
    keras.utils.set_random_seed(3)
    x = keras.Input((8, 8, 3), name="image")
    y = keras.layers.Conv2D(4, 3, padding="same", activation=activation, name="conv")(x)
    y = keras.layers.BatchNormalization(name="bn")(y)
    model = keras.Model(x, y, name="small")
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    gamma = model.get_layer("bn").gamma
    gamma.assign(last_scale * gamma.value)
    return model


def assert_fails(result: tuple[int, str, str], code: int, message: str) -> None:
    assert result[0] == code, result
    assert result[1] == ""
    assert re.fullmatch(rf"kerasfold: error: {message}\n", result[2]), result[2]


def predictions(path: str | Path) -> np.ndarray:
    image = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype("float32")
    return np.asarray(keras.saving.load_model(path, compile=False).predict_on_batch(image))

"""Layers that take channels to be elsewhere than the model has them: of them nothing is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from zoo.making import randomise
from zoo.same import FLOAT32, assert_same, run_under_xla

FIRST: dict[str, Any] = {"data_format": "channels_first"}
WINDOWS = FIRST | {"pool_size": 2, "strides": 1, "padding": "same"}  # of channels, then

FOREIGN: dict[str, tuple[int, Callable[[], keras.Layer]]] = {
    "mean": (1, lambda: layers.GlobalAveragePooling1D(**FIRST)),
    "maximum": (1, lambda: layers.GlobalMaxPooling1D(**FIRST)),
    "maximum, kept": (1, lambda: layers.GlobalMaxPooling1D(keepdims=True, **FIRST)),
    "maxima": (1, lambda: layers.MaxPooling1D(**WINDOWS)),
    "fewer maxima": (1, lambda: layers.MaxPooling1D(3, **FIRST)),
    "means": (1, lambda: layers.AveragePooling1D(**WINDOWS)),
    "maximum of an image": (2, lambda: layers.GlobalMaxPooling2D(**FIRST)),
    "maxima of an image": (2, lambda: layers.MaxPooling2D(**WINDOWS)),
    "upsampling": (2, lambda: layers.UpSampling2D(2, **FIRST)),
    "padding": (2, lambda: layers.ZeroPadding2D(1, **FIRST)),
}
GAINS = np.array([1.0, 0.0, -1.0, 2.0, 0.5, 1.0])  # behind ReLU, one channel is constant
SHIFTS = np.array([0.0, 1.0, 0.5, 0.0, -9.0, 2.0])

Step = Callable[[Any], Any]
AROUND: dict[str, tuple[Step, Step]] = {
    "gains": (lambda x: layers.BatchNormalization()(x), lambda x: layers.Dense(4)(x)),
    "constants": (
        lambda x: layers.ReLU()(x * GAINS + SHIFTS),
        lambda x: layers.BatchNormalization()(layers.ReLU()(x)),
    ),
    "a slice": (lambda x: layers.Dense(6)(x), lambda x: layers.ReLU()(x)[:, ::2]),
}


@pytest.mark.parametrize("objective", ["latency", "macs", "layers"])
@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize(("rank", "make"), FOREIGN.values(), ids=FOREIGN)
def test_it_stays_as_it_is(
    rank: int, make: Callable[[], keras.Layer], around: tuple[Step, Step], objective: str
) -> None:
    before, behind = around
    inputs = keras.Input((8, 5, 6)[-rank - 1 :])
    conv = getattr(layers, f"Conv{rank}D")(6, 3)(inputs)  # channels are last, it says
    last = getattr(layers, f"GlobalMaxPooling{rank}D")()(conv)
    model = randomise(keras.Model(inputs, [behind(make()(before(inputs))), last]))
    folded = kerasfold.fold(model, objective, verify=False)
    x = np.random.default_rng(0).normal(size=(3, *inputs.shape[1:])).astype("float32")
    assert_same(model, folded, FLOAT32, x, run_under_xla)

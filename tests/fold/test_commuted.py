"""Scales that are positive, and shifts, pass a maximum and merge into what it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from zoo.making import policy, randomise
from zoo.same import FLOAT64, assert_same, kinds

POOLS: dict[str, Callable[[], Any]] = {
    "pool": layers.MaxPooling2D,
    "same": lambda: layers.MaxPooling2D(3, 2, padding="same"),
    "op": lambda: lambda x: ops.max_pool(x, 2, padding="valid"),
    "global": layers.GlobalMaxPooling2D,
    "kept axes": lambda: layers.GlobalMaxPooling2D(keepdims=True),
}
GROWING: dict[str, Callable[[], Any]] = {
    "normalisation": layers.BatchNormalization,
    "rescaling": lambda: layers.Rescaling(0.3, -0.5),
    "shift": lambda: lambda x: x - 0.7,
    "two": lambda: lambda x: layers.BatchNormalization()(2.0 * x),
}


def built(pool: Any, behind: Any, sign: float = 1.0, channels: int = 4) -> keras.Model:
    """A convolution, a maximum and what is behind it, in float64, with gains of one sign."""
    with policy("float64"):
        inputs = keras.Input((9, 9, 3))
        x = behind()(pool()(layers.Conv2D(channels, 3, padding="same")(inputs)))
        model = randomise(keras.Model(inputs, ops.tanh(x)))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(sign * np.abs(np.asarray(layer.gamma)))
    return model


@pytest.mark.parametrize("behind", GROWING)
@pytest.mark.parametrize("pool", POOLS)
def test_what_grows_passes_a_maximum(pool: str, behind: str) -> None:
    model = built(POOLS[pool], GROWING[behind])
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert len(folded.operations) == 4, kinds(folded)  # with the input
    again = kerasfold.fold(folded)
    assert len(again.operations) == 4


def test_a_negative_gain_stays() -> None:
    model = built(layers.MaxPooling2D, layers.BatchNormalization, sign=-1.0)
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)


def test_one_negative_gain_keeps_all() -> None:
    model = built(layers.MaxPooling2D, layers.BatchNormalization)
    gamma = next(layer.gamma for layer in model.layers if hasattr(layer, "gamma"))
    gamma.assign(np.asarray(gamma) * [1, 1, -1e-3, 1])
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)


def test_what_others_read_of_the_maximum_is_as_it_was() -> None:
    def behind(x: Any) -> Any:
        return layers.BatchNormalization()(x) * ops.sigmoid(x)

    model = built(layers.MaxPooling2D, lambda: behind)
    assert_same(model, kerasfold.fold(model), FLOAT64)


def test_what_comes_behind_a_nonlinearity_is_not_computed_for_more_pixels() -> None:
    with policy("float64"):
        inputs = keras.Input((9, 9, 3))
        x = layers.MaxPooling2D()(layers.ReLU()(layers.Conv2D(4, 3)(inputs)))
        model = randomise(keras.Model(inputs, ops.tanh(layers.Rescaling(2.0, 0.5)(x))))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    (scale,) = (x for x in folded.layers if isinstance(x, layers.Rescaling))
    assert scale.output.shape[1] == 3


def test_names_and_outputs_stay() -> None:
    with policy("float64"):
        inputs = keras.Input((8, 8, 3))
        x = layers.MaxPooling2D(name="pool")(layers.Conv2D(4, 3)(inputs))
        model = randomise(keras.Model(inputs, {"y": layers.Rescaling(0.5, name="half")(x)}))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert folded.output_names == model.output_names
    assert list(folded.output) == ["y"]

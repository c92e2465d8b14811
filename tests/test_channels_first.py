"""channels_first, which TensorFlow's CPU runs under XLA alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from cases import randomise, run_under_xla
from keras import layers

import kerasfold
from kerasfold.forms import Forms


def network() -> keras.Model:
    first = {"data_format": "channels_first"}
    x = inputs = keras.Input((4, 12, 13))
    x = layers.Conv2D(6, 3, strides=2, padding="same", **first)(x)
    x = layers.BatchNormalization(axis=1)(x)
    x = layers.AveragePooling2D(2, **first)(x)
    image = layers.Conv2D(3, 2, **first)(x)
    vector = layers.Dense(4)(layers.GlobalAveragePooling2D(**first)(image))
    return randomise(keras.Model(inputs, [image, vector]))


@pytest.mark.parametrize("objective", ["latency", "layers"])
def test_channels_first_under_xla(objective: str) -> None:
    model = network()
    folded = kerasfold.fold(model, objective=objective, verify=False)
    assert not any(isinstance(x, layers.BatchNormalization) for x in folded.layers)
    if objective == "layers":
        assert folded.fold_report.layers_after == 2
    x = np.random.default_rng(0).normal(size=(3, 4, 12, 13)).astype("float32")
    for want, got in zip(run_under_xla(model, x), run_under_xla(folded, x), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


def test_tiles_in_channels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"data_format": "channels_first", "padding": "same"}
    x = inputs = keras.Input((3, 12, 13))
    x = layers.Conv2D(24, 3, **first)(x)
    x = layers.Conv2D(2, 3, **first, activation="relu")(x)
    x = layers.Conv2D(24, 3, **first)(x)
    model = randomise(keras.Model(inputs, layers.Conv2D(2, 3, strides=2, **first)(x)))
    monkeypatch.setattr(Forms, "_framed", lambda *_: None)
    folded = kerasfold.fold(model, objective="macs", verify=False)
    assert sum("border" in row.kind for row in folded.fold_report.merged) == 2
    x = np.random.default_rng(0).normal(size=(2, 3, 12, 13)).astype("float32")
    (want,), (got,) = run_under_xla(model, x), run_under_xla(folded, x)
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())

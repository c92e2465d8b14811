"""State that a model keeps, and weights that another thread writes to meanwhile."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
import kerasfold.pipeline


class Counted(layers.Layer):
    """Multiplies by the number of its calls."""

    def build(self, shape: object) -> None:
        self.calls = self.add_weight(shape=(), initializer="ones", trainable=False)

    def call(self, x):
        y = x * self.calls
        self.calls.assign_add(1.0)
        return y


class Seeded(layers.Layer):
    """Draws, and does nothing with it."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(3)

    def call(self, x):
        self.generator.next()
        return x


LAYERS = {
    "LSTM": lambda: layers.LSTM(4, stateful=True),
    "GRU": lambda: layers.GRU(4, stateful=True),
    "SimpleRNN": lambda: layers.SimpleRNN(4, stateful=True),
    "Bidirectional": lambda: layers.Bidirectional(layers.LSTM(4, stateful=True)),
    "cells": lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)], stateful=True),
    "counter": Counted,
    "seeds": Seeded,
}


@pytest.mark.parametrize("kind", LAYERS)
def test_state_is_neither_changed_nor_in_the_way(fresh, kind):
    x = keras.Input((2, 3), batch_size=2)
    y = layers.Dense(3)(layers.Dense(5)(LAYERS[kind]()(x)))
    model = keras.Model(x, y)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    for variable in model.non_trainable_variables:
        if "float" in variable.dtype:  # as it is after some batches
            variable.assign(rng.normal(size=variable.shape))
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    folded = model.fold(objective="layers")
    assert folded.fold_report.layers_after < folded.fold_report.layers_before
    assert folded.fold_report.equivalence.verdict == "equivalent"
    assert kerasfold.verify(model, folded).verdict == "equivalent"
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    batches = rng.normal(size=(2, 2, 2, 3)).astype("float32")  # states go on from the same one
    for batch in batches:
        np.testing.assert_allclose(model(batch), folded(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("moment", ["make_plan", "emit", "verify_fold"])
def test_a_fold_is_of_the_weights_at_its_start(fresh, monkeypatch, moment):
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3)(x)
    y = layers.BatchNormalization()(y)
    y = layers.Conv2D(3, 1, activation="relu")(y)
    model = keras.Model(x, layers.Dense(2)(y))
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 8, 8, 3)).astype("float32")
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.weights])
    expected = np.array(model(image))
    usual = getattr(kerasfold.pipeline, moment)

    def trained_meanwhile(*args: object, **kwargs: object) -> object:
        model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.weights])
        return usual(*args, **kwargs)

    monkeypatch.setattr(kerasfold.pipeline, moment, trained_meanwhile)
    folded = model.fold()
    assert np.max(np.abs(model(image) - expected)) > 1
    np.testing.assert_allclose(folded(image), expected, rtol=1e-4)
    assert folded.fold_report.equivalence.verdict == "equivalent"


def test_a_float32_input_inside_a_float64_model_is_no_fault_of_the_backend(fresh):
    """It rounds what it is given, which copies in float64 do not."""
    keras.config.set_dtype_policy("float64")
    try:
        inner = keras.Input((7, 7, 2), dtype="float32")
        nested = keras.Model(inner, layers.Conv2D(3, 3, name="inner")(inner))
        outer = keras.Input((7, 7, 2), dtype="float64")
        model = keras.Model(outer, layers.Conv2D(2, 1)(layers.Conv2D(4, 1)(nested(outer))))
        twin = keras.models.clone_model(model)
    finally:
        keras.config.set_dtype_policy("float32")
    twin.set_weights(model.get_weights())
    assert kerasfold.verify(model, twin).verdict == "equivalent"
    assert kerasfold.fold(model).fold_report.equivalence.verdict == "equivalent"
    kernel = twin.get_layer(index=-1).kernel
    kernel.assign(kernel * 1.0001)
    assert kerasfold.verify(model, twin).verdict == "different"

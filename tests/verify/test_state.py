"""State that a model keeps, and weights that another thread writes to meanwhile."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
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


def stateful(kind: str, steps: int = 2) -> keras.Model:
    """A layer with a state, between layers that a fold merges; with random weights."""
    x = keras.Input((steps, 3), batch_size=2)
    model = keras.Model(x, layers.Dense(3)(layers.Dense(5)(LAYERS[kind]()(x))))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    return model


def values(model: keras.Model) -> list[np.ndarray]:
    """All that it keeps, states of recurrent layers too, which Keras lists nowhere."""
    states = [getattr(layer, "states", []) for layer in model._flatten_layers()]
    return list(map(keras.ops.convert_to_numpy, [*model.variables, *keras.tree.flatten(states)]))


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
    model, rng = stateful(kind), np.random.default_rng(0)
    for _ in range(2):
        model(rng.normal(size=(2, 2, 3)).astype("float32"))
    before = values(model)
    folded = model.fold(objective="layers")
    assert folded.fold_report.layers_after < folded.fold_report.layers_before
    assert folded.fold_report.equivalence.verdict == "equivalent"
    assert kerasfold.verify(model, folded).verdict == "equivalent"
    for value, now in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(now, value)
    batches = rng.normal(size=(2, 2, 2, 3)).astype("float32")  # states go on from the same one
    for batch in batches:
        np.testing.assert_allclose(model(batch), folded(batch), rtol=1e-4, atol=1e-5)


RECURRENT = ["LSTM", "GRU", "SimpleRNN", "Bidirectional", "cells"]


@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_layers_are_compared_from_one_state(fresh, kind):
    """A model that has run, and one from a file, which holds no state."""
    model, twin = stateful(kind), stateful(kind)
    image = np.ones((2, 2, 3), "float32")
    for _ in range(3):
        model(image)
    assert np.max(np.abs(model(image) - twin(image))) > 0.01
    for data in (None, image):
        assert kerasfold.verify(model, twin, data).verdict == "equivalent"
        assert kerasfold.verify(twin, model, data).verdict == "equivalent"


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recurrent_kernel_is_compared_where_a_batch_has_one_step(fresh, kind):
    model, wrong = stateful(kind, steps=1), stateful(kind, steps=1)
    kernel = next(w for w in wrong.weights if w.name == "recurrent_kernel")
    kernel.assign(kernel * 1.01)
    assert kerasfold.verify(model, wrong).verdict == "different"


@pytest.mark.parametrize("moment", ["cheapest", "emit", "verify_fold"])
def test_a_fold_is_of_the_state_at_its_start(fresh, monkeypatch, moment):
    model, image = stateful("LSTM"), np.ones((2, 2, 3), "float32")
    model(image)
    before = values(model)
    usual = getattr(kerasfold.pipeline, moment)

    def run_meanwhile(*args: object, **kwargs: object) -> object:
        model(image)
        return usual(*args, **kwargs)

    monkeypatch.setattr(kerasfold.pipeline, moment, run_meanwhile)
    folded = model.fold("layers")
    assert folded.fold_report.equivalence.verdict == "equivalent"
    for now, value in zip(values(folded)[-2:], before[-2:], strict=True):
        np.testing.assert_array_equal(now, value)


@pytest.mark.parametrize("moment", ["cheapest", "emit", "verify_fold"])
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


def test_devices_of_a_strategy_run_the_weights_at_its_start(fresh):
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(2)(layers.Dense(4)(x)))
    folded, images = model.fold(), np.random.default_rng(0).normal(size=(8, 3))

    def trained_meanwhile():
        yield images
        model.set_weights([w + 1 for w in model.get_weights()])
        yield images

    strategy = tf.distribute.OneDeviceStrategy("cpu:0")
    report = kerasfold.verify(model, folded, trained_meanwhile(), strategy=strategy)
    assert report.verdict == "equivalent"


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

"""Models that a graph computes otherwise than their calls, one by one, are run as one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.equivalence.runs import InGraph, Walk, as_is
from zoo.making import randomise

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="graphs are TensorFlow's"
)


def residual(slope: float, fused: bool, seed: int = 0) -> keras.Model:
    x = keras.Input((6, 6, 4), name="x")
    y = layers.Conv2D(4, 3, padding="same", name="y")(layers.ReLU()(x))
    y = y if fused else layers.Rescaling(1.0)(y)
    model = keras.Model(x, layers.LeakyReLU(slope, name="out")(layers.Add()([y, x])))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])
    return model


def test_what_predict_gives_is_compared() -> None:
    model, right = residual(0.3, fused=True), residual(0.3, fused=False)
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 4)).astype("float32")
    is_wrong = np.abs(model.predict(x, verbose=0) - np.asarray(model(x))).max() > 1e-3
    report = kerasfold.verify(right, model)
    assert report.equivalent == (not is_wrong)
    assert ("less accurate" in report.reason) == is_wrong


def test_only_where_it_may_be() -> None:
    assert isinstance(as_is(residual(0.3, fused=True)), InGraph)
    assert isinstance(as_is(residual(0.2, fused=True)), Walk)
    assert isinstance(as_is(residual(0.3, fused=False)), Walk)


def test_in_a_graph_the_same_is_given_for_every_batch() -> None:
    model = randomise(residual(0.2, fused=True))
    run = InGraph(model)
    for rows in (1, 3, 3, 2):
        x = np.random.default_rng(rows).normal(size=(rows, 6, 6, 4)).astype("float32")
        np.testing.assert_allclose(run(x)[0], np.asarray(model(x)), rtol=1e-5, atol=1e-5)

"""channels_first, which TensorFlow's CPU runs under XLA alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.cost import UNTIMED
from zoo.making import randomise
from zoo.same import FLOAT32, assert_same, run_under_xla


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
    assert_same(model, folded, FLOAT32, x, run_under_xla)


@pytest.mark.usefixtures("no_strips")
def test_tiles_in_channels_first() -> None:
    first = {"data_format": "channels_first", "padding": "same"}
    x = inputs = keras.Input((3, 12, 13))
    x = layers.Conv2D(24, 3, **first)(x)
    x = layers.Conv2D(2, 3, **first, activation="relu")(x)
    x = layers.Conv2D(24, 3, **first)(x)
    model = randomise(keras.Model(inputs, layers.Conv2D(2, 3, strides=2, **first)(x)))
    folded = kerasfold.fold(model, objective="macs", verify=False)
    assert sum("border" in row.kind for row in folded.fold_report.merged) == 2
    x = np.random.default_rng(0).normal(size=(2, 3, 12, 13)).astype("float32")
    assert_same(model, folded, FLOAT32, x, run_under_xla)


FIRST = {"data_format": "channels_first"}


@pytest.mark.parametrize("size", [8, None])
@pytest.mark.parametrize("objective", UNTIMED)
def test_no_bias_is_brought_where_keras_adds_it_along_the_width(objective, size) -> None:
    """`keras.ops.add` takes 6 numbers for a bias of the last axis, where that has 6 columns."""
    x = inputs = keras.Input((3, size, size))
    x = layers.Conv2D(6, 3, use_bias=False, **FIRST)(x)
    model = randomise(keras.Model(inputs, layers.BatchNormalization(axis=1)(x)))
    folded = kerasfold.fold(model, objective=objective, verify=False)
    image = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype("float32")
    assert_same(model, folded, FLOAT32, image, run_under_xla)
    (reason,) = [row.reason for row in folded.fold_report.kept if row.layer.startswith("conv")]
    assert "along the width" in reason


def test_a_fold_that_does_not_run_here_is_an_error_that_says_so() -> None:
    """TensorFlow's CPU pools with channels first, and does not convolve so in float64."""
    x = inputs = keras.Input((1, 8, 8))
    x = layers.AveragePooling2D(2, **FIRST)(layers.ZeroPadding2D(1, **FIRST)(x))
    with pytest.raises(kerasfold.FoldError, match=r"does not run on tensorflow.*Conv2D op curr"):
        kerasfold.fold(keras.Model(inputs, x), objective="layers")


@pytest.mark.parametrize("first", [False, True])
def test_the_biases_of_tiles_go_to_their_columns(first: bool) -> None:
    """One of 40 columns may be taken for one of as many channels, which Keras adds otherwise."""
    shape, kernel = ((3, 40, 2), (3, 1)) if first else ((2, 40, 1), (1, 3))
    layout = FIRST if first else {}
    x = inputs = keras.Input(shape)
    x = layers.Conv2D(16, kernel, padding="same", **layout)(x)
    model = randomise(keras.Model(inputs, layers.Conv2D(1, kernel, padding="same", **layout)(x)))
    folded = kerasfold.fold(model, objective="macs", verify=False)
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype("float32")
    assert_same(model, folded, FLOAT32, x, run_under_xla)
    if not first:
        assert any("border" in row.kind for row in folded.fold_report.merged)

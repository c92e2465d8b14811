"""Sums whose terms cancel, and products with zero: what is zero is not computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from zoo.making import randomise
from zoo.same import FLOAT64, assert_same

pytestmark = pytest.mark.usefixtures("float64")

SHAPE = (6, 5, 4)


def folded(make: Callable[[Any], Any]) -> list[str]:
    """What a fold that is checked calls, without layers that only name an output."""
    inputs = keras.Input(SHAPE, dtype="float64")
    model = randomise(keras.Model(inputs, make(inputs)))
    fold = kerasfold.fold(model, verify=False)
    assert_same(model, fold, FLOAT64)
    names = (layers.InputLayer, layers.Identity)
    return [type(x).__name__ for x in fold.operations if not isinstance(x, names)]


def conv(x: Any) -> Any:
    return layers.Conv2D(3, 3)(x)


GONE: dict[str, Callable[[Any], Any]] = {
    "a tensor less itself": lambda x: conv(ops.relu(x)) + (x - x)[:, 1:-1, 1:-1, :3],
    "a tensor less itself, by layers": lambda x: conv(
        layers.Add()([ops.relu(x), layers.Subtract()([x, x])])
    ),
    "a product with zero": lambda x: conv(ops.relu(x)) + conv(ops.tanh(x)) * 0.0,
    "a product with zeros": lambda x: conv(ops.relu(x)) + conv(ops.tanh(x)) * np.zeros((4, 3, 1)),
    "zero that is pooled": lambda x: conv(
        ops.relu(x)
        + layers.UpSampling2D((1, 5))(layers.AveragePooling2D((1, 5))(ops.tanh(x) * 0.0))
    ),
}


@pytest.mark.parametrize("case", GONE)
def test_what_is_zero_is_not_computed(case: str) -> None:
    assert folded(GONE[case]) == ["Relu", "Conv2D"]


STAY: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a difference of two": (lambda x: ops.relu(x) - ops.tanh(x), "Tanh"),
    "a shift of what is zero": (lambda x: ops.relu(x) + ((x - x) + 1.0), "Relu"),
    "a product with zeros and ones": (
        lambda x: ops.relu(x) + ops.tanh(x) * np.array([0.0, 0.0, 1.0, 0.0]),
        "Tanh",
    ),
    "a tensor twice": (lambda x: ops.tanh(x) + ops.tanh(x), "Tanh"),
}


@pytest.mark.parametrize("case", STAY)
def test_what_is_not_zero_stays(case: str) -> None:
    make, kind = STAY[case]
    assert kind in folded(make)


def test_all_that_is_zero_is_zero() -> None:
    assert folded(lambda x: ops.relu(x - x) + 0.5)


def test_weights_that_are_zero_train_and_stay() -> None:
    inputs = keras.Input(SHAPE, dtype="float64")
    normed = layers.BatchNormalization(gamma_initializer="zeros")(layers.Conv2D(4, 1)(inputs))
    model = keras.Model(inputs, layers.Add()([ops.relu(inputs), normed]))
    fold = kerasfold.fold(model, keep_channels=True, verify=False)
    assert_same(model, fold, FLOAT64)
    assert any(isinstance(layer, layers.Conv2D) for layer in fold.layers)

"""Gains and shifts behind a sum merge into what of it is made by weights; the rest is scaled."""

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


def pyramid(norm: Any, a: Any, b: Any) -> Any:
    """As feature pyramids have it: of an image, and of one of half its size, repeated."""
    return norm(layers.Add()([layers.Conv2D(4, 1)(a), layers.UpSampling2D(2)(b)]))


SUMS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "repeated": pyramid,
    "repeated twice": lambda norm, a, b: norm(
        layers.Conv2D(4, 3, padding="same")(a)
        + layers.UpSampling2D((1, 2))(layers.UpSampling2D((2, 1))(b))
    ),
    "as it is": lambda norm, a, b: norm(layers.Conv2D(4, 1)(a) + ops.sin(a)),
    "three": lambda norm, a, b: norm(
        layers.Add()(
            [layers.UpSampling2D(2)(b), layers.Conv2D(4, 1)(a), layers.Dense(4)(ops.exp(a))]
        )
    ),
    "two of them": lambda norm, a, b: pyramid(
        layers.BatchNormalization(), a, layers.AveragePooling2D(2)(pyramid(norm, a, b))
    ),
}


def built(name: str, read: Callable[[Any], Any] = ops.tanh) -> keras.Model:
    with policy("float64"):
        inputs = [keras.Input((8, 6, 4), dtype="float64"), keras.Input((4, 3, 4), dtype="float64")]
        a, b = map(ops.sin, inputs)
        x = SUMS[name](layers.BatchNormalization(name="norm"), a, b)
        return randomise(keras.Model(inputs, read(x)))


@pytest.mark.parametrize("name", SUMS)
def test_a_normalisation_behind_a_sum_is_none(name: str) -> None:
    model = built(name)
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" not in kinds(folded)
    assert any("norm" in merged.layers for merged in folded.fold_report.merged)
    assert folded.fold_report.macs_after <= folded.fold_report.macs_before


def test_pixels_are_scaled_before_they_are_repeated() -> None:
    folded = kerasfold.fold(built("repeated"))
    (scale,) = (x for x in folded.operations if type(x).__name__ == "Multiply")
    assert tuple(scale.output.shape) == (None, 4, 3, 4)


def test_a_sum_that_others_read_is_normalised_as_it_is() -> None:
    with policy("float64"):
        inputs = keras.Input((8, 6, 4), dtype="float64")
        x = layers.Conv2D(4, 1)(inputs) + ops.sin(inputs)
        y = layers.BatchNormalization()(x)
        model = randomise(keras.Model(inputs, [ops.tanh(x), ops.tanh(y)]))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)


def test_a_sum_that_no_weights_make_is_normalised_as_it_is() -> None:
    with policy("float64"):
        inputs = keras.Input((8, 6, 4), dtype="float64")
        x = layers.BatchNormalization()(ops.sin(inputs) + ops.cos(inputs))
        model = randomise(keras.Model(inputs, ops.tanh(x)))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)


def test_gains_of_zero_and_below_are_distributed() -> None:
    model = built("repeated")
    model.get_layer("norm").gamma.assign(np.array([-2.0, 0.0, 1.0, 0.5]))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" not in kinds(folded)


@pytest.mark.parametrize("objective", ["macs", "params"])
def test_convolutions_that_do_not_merge_take_in_what_is_behind_their_sum(objective: Any) -> None:
    with policy("float64"):
        inputs = keras.Input((7, 7, 3), dtype="float64")
        x = layers.Conv2D(4, 3, strides=2)(inputs) + layers.Conv2D(4, 5)(inputs)
        model = randomise(keras.Model(inputs, layers.BatchNormalization()(x)))
    folded = kerasfold.fold(model, objective=objective)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded) == ["Conv2D", "Conv2D"]
    assert folded.fold_report.macs_after == 3 * 3 * 4 * 3 * (9 + 25)


# Of what is behind a sum, by weights in part: the scales.
SCALES: dict[str, Callable[[Any], Any]] = {
    "a number first": lambda x: layers.BatchNormalization(name="norm")(x * 2.0),
    "a number last": lambda x: 0.5 * layers.BatchNormalization(name="norm")(x),
    "normalisations": lambda x: layers.BatchNormalization(name="norm")(
        layers.BatchNormalization()(x)
    ),
    "a shift": lambda x: layers.BatchNormalization(name="norm")(x + 1.0),
    "nothing between": lambda x: layers.BatchNormalization(name="norm")(
        layers.Dropout(0.5)(layers.Rescaling(2.0, 1.0)(layers.Dropout(0.5)(x)))
    ),
}


@pytest.mark.parametrize("name", SCALES)
def test_scales_one_after_another_behind_a_sum_are_none(name: str) -> None:
    with policy("float64"):
        inputs = keras.Input((8, 6, 4), dtype="float64")
        x = SCALES[name](layers.Conv2D(4, 3, padding="same")(inputs) + ops.relu(inputs))
        model = randomise(keras.Model(inputs, layers.Conv2D(2, 3)(ops.relu(x))))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" not in kinds(folded)
    report = folded.fold_report
    assert not report.repeated
    assert any("norm" in merged.layers for merged in report.merged)
    again = kerasfold.fold(folded)
    assert sorted(kinds(again)) == sorted(kinds(folded))


@pytest.mark.parametrize("half", ["mixed_bfloat16", "mixed_float16"])
def test_gains_of_half_precision_are_stored_as_weights_are(half: str) -> None:
    """Rounded to bfloat16, as constants, they were 0.5 % off those of the normalisation."""
    with policy(half):
        inputs = keras.Input((4,))
        added = layers.Add()([layers.ReLU()(inputs), layers.Dense(4)(inputs)])
        model = randomise(keras.Model(inputs, layers.BatchNormalization()(added)))
    folded = kerasfold.fold(model)
    assert "Multiply" in [type(operation).__name__ for operation in folded.operations]
    assert folded.output.dtype == model.output.dtype
    assert kerasfold.verify(model, folded).equivalent

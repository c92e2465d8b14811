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


def conv_of(x: Any, filters: int = 4) -> Any:
    return layers.Conv2D(filters, 3, padding="same")(x)


# Concatenated with what weights make: what gains, and shifts, go before. Whether any do.
PIECES: dict[str, tuple[Callable[[Any, Any], tuple[Any, Any]], bool]] = {
    "repeated": (lambda a, b: (layers.UpSampling2D(2)(conv_of(b)), conv_of(a)), True),
    "interpolated": (
        lambda a, b: (conv_of(a), layers.UpSampling2D(2, interpolation="bilinear")(conv_of(b, 3))),
        True,
    ),
    "means": (
        lambda a, b: (conv_of(b), layers.AveragePooling2D(3, 2, padding="same")(conv_of(a, 3))),
        True,
    ),
    "maxima": (lambda a, b: (layers.MaxPooling2D()(conv_of(a, 3)), conv_of(b)), False),
    "vectors": (
        lambda a, b: (
            layers.GlobalMaxPooling2D()(conv_of(a)),
            layers.GlobalAveragePooling2D()(conv_of(b, 3)),
        ),
        False,
    ),
}


def of_pieces(name: str, sign: float, norms: int = 1) -> keras.Model:
    """A concatenation, and normalisations behind it whose gains have one sign."""
    with policy("float64"):
        inputs = [keras.Input((8, 6, 4), dtype="float64"), keras.Input((4, 3, 4), dtype="float64")]
        x = layers.Concatenate()(PIECES[name][0](*map(ops.sin, inputs)))
        for _ in range(norms):
            x = layers.BatchNormalization()(x)
        model = randomise(keras.Model(inputs, ops.sin(x)))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(sign * np.abs(np.asarray(layer.gamma)))
    return model


@pytest.mark.parametrize("objective", ["latency", "layers"])
@pytest.mark.parametrize("norms", [1, 2])
@pytest.mark.parametrize("name", PIECES)
def test_gains_go_into_what_is_concatenated(name: str, norms: int, objective: str) -> None:
    model = of_pieces(name, 1.0, norms)
    folded = kerasfold.fold(model, objective, verify=False)
    tolerance = 1e-6 if name == "interpolated" else FLOAT64  # TensorFlow interpolates in float32
    assert_same(model, folded, tolerance)
    assert not {"BatchNormalization", "Multiply", "Add"} & set(kinds(folded)), kinds(folded)


@pytest.mark.parametrize("name", PIECES)
def test_negative_gains_pass_means_and_no_maxima(name: str) -> None:
    model = of_pieces(name, -1.0)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, 1e-6 if name == "interpolated" else FLOAT64)
    assert ("BatchNormalization" not in kinds(folded)) == PIECES[name][1]


def test_a_concatenation_of_what_no_weights_make_is_normalised_as_it_is() -> None:
    with policy("float64"):
        inputs = keras.Input((8, 6, 4), dtype="float64")
        x = layers.Concatenate()([conv_of(inputs), layers.MaxPooling2D(2, 1, "same")(inputs)])
        model = randomise(keras.Model(inputs, ops.sin(layers.BatchNormalization()(x))))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" in kinds(folded)

"""Scales and shifts that vary along any axes: merged with each other, and with what they pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from zoo.making import policy, randomise
from zoo.same import FLOAT32, FLOAT64, assert_same, kinds, run_under_xla

IMAGE = (4, 5, 6)
BN = layers.BatchNormalization
Step = Callable[[Any], Any]


def c(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(0.5, 2.0, shape)


def normalised(axis: Any, shape: tuple[int, ...]) -> Step:
    mean, variance = c(*shape), c(*shape)
    return lambda x: layers.Normalization(axis=axis, mean=mean, variance=variance)(x)


def dense(x: Any) -> Any:
    return layers.Dense(3)(x)


def conv(x: Any) -> Any:
    return layers.Conv2D(6, 1)(x)


def bn(x: Any) -> Any:
    return BN()(x)


def bn_along(axis: int) -> Step:
    return lambda x: BN(axis=axis)(x)


def permute(*axes: int) -> Step:
    return lambda x: layers.Permute(axes)(x)


def relu(x: Any) -> Any:
    return layers.ReLU()(x)


def flat(x: Any) -> Any:
    return layers.Flatten()(x)


def image(x: Any) -> Any:
    return layers.Reshape(IMAGE)(layers.Dense(120)(flat(x)))


# Steps, and how many are left of them under objective='layers'.
MERGED: dict[str, tuple[list[Step], int]] = {
    "shifts": (
        [lambda x: x + c(4, 1, 1), lambda x: x - c(5, 6), lambda x: ops.add(c(1, 4, 5, 1), x)],
        1,
    ),
    "shifts_of_channels_the_last": (
        [lambda x: x + c(4, 1, 1), lambda x: x + c(5, 6), lambda x: x + c(6)],
        1,
    ),
    "scales": ([lambda x: x * c(4, 1, 1), lambda x: x / c(5, 1), lambda x: -x], 1),
    "both": ([lambda x: x * c(4, 1, 1), lambda x: 1 - x, lambda x: x * c(5, 6) + c(6)], 2),
    "a_norm_along_each_axis": ([bn_along(axis) for axis in (1, 2, 3, 1)], 2),
    "scales_per_channel_too": ([bn, lambda x: x * c(4, 5, 6), bn], 2),
    "turned": ([lambda x: x + c(4, 1, 1), permute(3, 2, 1), lambda x: x + c(5, 4)], 1),
    "a_matrix": ([normalised((1, 2, 3), IMAGE), flat, dense], 1),
    "before_and_behind": ([image, normalised((2, 3), (5, 6)), lambda x: x + c(4, 1, 1)], 1),
    "a_matrix_on_turned_axes": (
        [permute(3, 2, 1), lambda x: x * c(6, 1, 1) + c(5, 4), flat, dense],
        1,
    ),
    "a_shift_between_maps": ([conv, lambda x: x + c(4, 5, 6), conv], 2),
    "a_shift_of_pixels_between_maps": ([conv, lambda x: x + c(4, 1, 1), conv, bn], 2),
    "a_shift_between_groups": (
        [
            conv,
            lambda x: x + c(5, 1),
            lambda x: layers.Conv2D(8, 1, groups=2)(x),
            lambda x: x + c(4, 5, 8),
        ],
        2,
    ),
    "a_norm_of_rows_behind_a_turn": ([conv, permute(3, 1, 2), bn_along(1)], 1),
    "an_axis_counted_from_the_end": (
        [conv, permute(1, 3, 2), bn_along(-2)],
        1,
    ),
}


def model_of(shape: Any, steps: list[Step]) -> keras.Model:
    x = inputs = keras.Input(shape, dtype=keras.config.dtype_policy().compute_dtype)
    for step in [relu, *steps, relu]:
        x = step(x)
    return randomise(keras.Model(inputs, x))


@pytest.mark.parametrize(("steps", "left"), MERGED.values(), ids=MERGED)
def test_merged(steps: list[Step], left: int) -> None:
    with policy("float64"):
        fresh = [
            type(s).from_config(s.get_config()) if isinstance(s, layers.Layer) else s for s in steps
        ]
        model = model_of(IMAGE, fresh)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT64)
    assert folded.fold_report.layers_after == left, str(folded.fold_report)


def test_unknown_sizes() -> None:
    model = model_of((None, 5, 6), [lambda x: x * c(5, 1), lambda x: x * c(5, 6)])
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT32)
    assert folded.fold_report.layers_after == 1


def test_a_constant_that_keras_adds_along_the_channels_is_kept() -> None:
    """Of as many columns as there are rows, TensorFlow adds one for each row."""
    model = model_of((5, 5, 6), [lambda x: x + c(5, 1), lambda x: x + c(5, 1, 1)])
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT32)
    reasons = [row.reason for row in folded.fold_report.kept if row.layer.startswith("add")]
    assert "a constant that Keras may add along another axis on TensorFlow" in reasons


def test_a_bias_that_keras_adds_along_the_channels_is_kept() -> None:
    biased = layers.EinsumDense("bhwc,cd->bhwd", (5, 5, 5), bias_axes="w")
    model = model_of((5, 5, 6), [biased, bn])
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT32)
    assert "EinsumDense" in kinds(folded)


def test_channels_first() -> None:
    first = {"data_format": "channels_first"}
    x = inputs = keras.Input((6, 4, 5))
    x = layers.Conv2D(3, 2, **first)(x)
    x = x * c(3, 1, 1).astype("float32") + c(3, 1).astype("float32")
    x = BN(axis=1)(x - c(3, 1, 4).astype("float32"))
    model = randomise(keras.Model(inputs, x))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert folded.fold_report.layers_after < folded.fold_report.layers_before
    given = np.random.default_rng(0).normal(size=(2, 6, 4, 5)).astype("float32")
    assert_same(model, folded, FLOAT32, given, run_under_xla)


def test_several_sources_are_shifted_once() -> None:
    a, b = keras.Input(IMAGE), keras.Input(IMAGE)
    added = layers.Add()([conv(a), layers.Conv2D(6, 1)(b)])
    y = (added * c(4, 1, 1).astype("float32") + c(4, 5, 1).astype("float32")) + c(5, 6)
    model = randomise(keras.Model([a, b], y))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT32)
    assert folded.fold_report.layers_after < folded.fold_report.layers_before


@pytest.mark.parametrize(
    "step", [lambda x, values: x * values, lambda x, values: x + values], ids=["scales", "shifts"]
)
def test_sources_with_constants_of_their_own(step: Any) -> None:
    a, b = keras.Input(IMAGE, dtype="float64"), keras.Input(IMAGE, dtype="float64")
    model = keras.Model([a, b], step(a, c(4, 1, 1)) + step(b, -c(4, 1, 1)))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT64)


def test_sources_of_which_one_is_scaled_before() -> None:
    a, b = keras.Input(IMAGE, dtype="float64"), keras.Input(IMAGE, dtype="float64")
    with policy("float64"):
        model = keras.Model([a, b], (conv(a) + 2.0 * b) * c(4, 5, 6) + c(4, 5, 6))
    folded = kerasfold.fold(randomise(model), objective="layers", verify=False)
    assert_same(model, folded, FLOAT64)


def test_the_mean_of_one_pixel_is_a_vector() -> None:
    row = [lambda x: ops.take(x, [0, 1], axis=-1), lambda x: x[:, :1, ::2, 0]]
    model = model_of(IMAGE, [*row, lambda x: ops.mean(x, axis=1)])
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT32)


def test_it_is_saved_and_loaded(tmp_path: Any) -> None:
    model = model_of(
        IMAGE, [lambda x: x * c(4, 1, 1), lambda x: x + c(5, 6), lambda x: x + c(4, 5, 6)]
    )
    folded = kerasfold.fold(model, objective="layers", verify=False)
    folded.save(tmp_path / "folded.keras")
    assert_same(model, keras.models.load_model(tmp_path / "folded.keras"), FLOAT32)


@pytest.mark.parametrize(
    ("shape", "constant", "reason"),
    [
        ((4, 5, 1), c(4, 5, 6), r"its rule|a constant of shape \(4, 5, 6\) on images of"),
        (IMAGE, c(2, 4, 5, 6), "varies along the batch"),
        (IMAGE, np.full((4, 5, 6), np.inf), "not finite"),
    ],
)
def test_what_is_refused(shape: Any, constant: np.ndarray, reason: str) -> None:
    x = inputs = keras.Input(shape)
    report = kerasfold.explain(keras.Model(inputs, relu(relu(x) + constant.astype("float32"))))
    (told,) = [row.reason for row in report.kept if row.layer.startswith("add")]
    assert re.search(reason, told), told


def test_a_window_behind_a_shift_of_pixels_is_kept() -> None:
    model = model_of(IMAGE, [lambda x: x + c(4, 1, 1), layers.Conv2D(3, 2)])
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT32)
    assert folded.fold_report.layers_after == 2
    assert kinds(folded).count("Conv2D") == 1


def test_the_axis_inside_a_time_distributed_norm_is_its_own() -> None:
    inputs = keras.Input((3, 4, 5))
    norm = layers.TimeDistributed(BN(axis=1))
    model = randomise(keras.Model(inputs, norm(layers.Dense(5)(inputs))))
    assert_same(model, kerasfold.fold(model, objective="layers", verify=False), FLOAT32)

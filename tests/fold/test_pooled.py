"""What is pointwise before a mean over pixels is computed of the mean: of fewer pixels."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.rooflines import ROOFLINES
from zoo.making import chain, randomise
from zoo.same import FLOAT64, assert_same

Stack = Callable[[], list[keras.Layer]]

pytestmark = pytest.mark.usefixtures("float64")

PIXELS, CHANNELS = 14 * 14, 64
SUMS = PIXELS * CHANNELS  # what the pool adds up


def model_of(stack: Stack) -> keras.Model:
    shape = (14, 14, CHANNELS)
    return chain(shape, layers.ReLU(), *stack(), layers.ReLU(name="end"))


def kinds(model: keras.Model) -> list[str]:
    """The classes of what is done between the nonlinearities."""
    names = [type(operation).__name__ for operation in model.operations]
    return [name for name in names if name not in ("InputLayer", "ReLU")]


def bn() -> keras.Layer:
    return layers.BatchNormalization()


def mean() -> keras.Layer:
    return layers.GlobalAveragePooling2D()


# Layers; multiplications and additions, before and after.
VECTORS: dict[str, tuple[Stack, int, int]] = {
    "a_convolution": (
        lambda: [layers.Conv2D(48, 1), mean()],
        PIXELS * 48 * (CHANNELS + 1),
        SUMS + CHANNELS * 48,
    ),
    "a_matrix_before_and_behind": (
        lambda: [layers.Dense(48), mean(), layers.Dense(5)],
        PIXELS * 48 * (CHANNELS + 1) + 48 * 5,
        SUMS + CHANNELS * 5,
    ),
    "a_normalisation_before_a_matrix": (
        lambda: [bn(), mean(), layers.Dense(5)],
        2 * SUMS + CHANNELS * 5,
        SUMS + CHANNELS * 5,
    ),
}


@pytest.mark.parametrize(("stack", "before", "after"), VECTORS.values(), ids=VECTORS)
def test_it_is_a_matrix_of_the_mean(stack: Stack, before: int, after: int) -> None:
    model = model_of(stack)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded) == ["GlobalAveragePooling2D", "Dense"]
    report = folded.fold_report
    assert (report.macs_before, report.macs_after) == (before, after)


GAINS = np.linspace(0.5, 2.0, CHANNELS)
SCALES: dict[str, tuple[Stack, list[str]]] = {
    "a_normalisation": (
        lambda: [bn(), mean()],
        ["GlobalAveragePooling2D", "BatchNormalization"],
    ),
    "a_normalisation_of_the_last_axis_by_number": (
        lambda: [layers.BatchNormalization(axis=3), mean()],
        ["GlobalAveragePooling2D", "BatchNormalization"],
    ),
    "a_normalisation_of_an_image": (
        lambda: [bn(), layers.GlobalAveragePooling2D(keepdims=True)],
        ["GlobalAveragePooling2D", "BatchNormalization"],
    ),
    "a_normalisation_before_windows": (
        lambda: [bn(), layers.AveragePooling2D(2)],
        ["AveragePooling2D", "BatchNormalization"],
    ),
    "constants": (
        lambda: [layers.Rescaling(GAINS, 1.0), mean()],
        ["GlobalAveragePooling2D", "Multiply", "Add"],
    ),
    "constants_on_an_image": (
        lambda: [layers.Rescaling(GAINS), layers.GlobalAveragePooling2D(keepdims=True)],
        ["GlobalAveragePooling2D", "Multiply"],
    ),
    "constants_and_a_shift_on_an_image": (
        lambda: [layers.Rescaling(GAINS, 1.0), layers.GlobalAveragePooling2D(keepdims=True)],
        ["GlobalAveragePooling2D", "Multiply", "Add"],
    ),
    "normalisations_before_and_behind": (
        lambda: [bn(), layers.AveragePooling2D(3, 2), bn()],
        ["AveragePooling2D", "BatchNormalization"],
    ),
    "normalisations_and_constants_around_several": (
        lambda: [
            *(layers.Rescaling(2.0, 1.0), bn(), layers.AveragePooling2D(2)),
            *(layers.AveragePooling2D(2), bn(), layers.Rescaling(0.5, GAINS)),
        ],
        ["AveragePooling2D", "BatchNormalization"],
    ),
    "a_normalisation_before_several": (
        lambda: [bn(), layers.AveragePooling2D(2), layers.AveragePooling2D(2)],
        ["AveragePooling2D", "BatchNormalization"],
    ),
    "constants_before_and_behind": (
        lambda: [layers.Rescaling(2.0, 1.0), mean(), layers.Rescaling(0.5, GAINS)],
        ["GlobalAveragePooling2D", "Add"],
    ),
}


@pytest.mark.parametrize(("stack", "left"), SCALES.values(), ids=SCALES)
def test_it_is_a_scale_of_the_mean(stack: Stack, left: list[str]) -> None:
    model = model_of(stack)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert_same(model, folded, FLOAT64, batch=1)  # one image of one pixel may look like a bias
    assert kinds(folded) == left, str(folded.fold_report)


def test_a_normalisation_of_the_mean_is_the_one_of_the_pixels() -> None:
    model = model_of(lambda: [bn(), mean()])
    folded = kerasfold.fold(model)
    report = folded.fold_report
    assert (report.macs_before, report.macs_after) == (2 * SUMS, SUMS + CHANNELS)
    assert report.params_before == report.params_after
    (merged,) = report.merged
    assert merged.kind == "GlobalAveragePooling2D + BatchNormalization"
    for before, after in zip(model.weights, folded.weights, strict=True):
        assert np.array_equal(before, after)


def test_a_sum_is_pooled_and_then_normalised() -> None:
    x = inputs = keras.Input((14, 14, CHANNELS), dtype="float64")
    x = layers.Add()([layers.ReLU()(x), layers.Activation("tanh")(x)])
    model = randomise(keras.Model(inputs, mean()(bn()(x))))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded)[-2:] == ["GlobalAveragePooling2D", "BatchNormalization"]


@pytest.mark.parametrize("runtime", ROOFLINES)
def test_the_mean_of_an_image_becomes_no_convolution(runtime: str) -> None:
    """Behind a convolution, ONNX Runtime took the one of 16x16 taps 0.97 times as fast."""
    stack = [layers.Conv2D(128, 3, padding="same"), layers.ReLU()]
    gate = [layers.GlobalAveragePooling2D(keepdims=True), layers.Activation("sigmoid")]
    model = chain((16, 16, 8), *stack, *gate, layers.Conv2D(8, 1))
    folded = kerasfold.fold(model, runtime=runtime, verify=False)
    assert kinds(folded) == kinds(model), str(folded.fold_report)


# What does not commute with it, or is not of the channels.
KEPT: dict[str, Stack] = {
    "a_maximum": lambda: [bn(), layers.GlobalMaxPooling2D()],
    "a_normalisation_of_rows": lambda: [layers.BatchNormalization(axis=1), mean()],
    "a_normalisation_of_the_mean": lambda: [mean(), bn()],
}


@pytest.mark.parametrize("stack", KEPT.values(), ids=KEPT)
def test_it_is_left_as_it_is(stack: Stack) -> None:
    model = model_of(stack)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded) == kinds(model)
    assert not folded.fold_report.merged


def test_what_is_behind_several_upsamplings_is_computed_before_them() -> None:
    steps = [layers.UpSampling2D(2), layers.UpSampling2D((1, 3)), bn()]
    model = chain((6, 5, 8), layers.Conv2D(4, 3), *steps, layers.ReLU(name="end"))
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["Conv2D", "UpSampling2D"]
    assert_same(model, folded, FLOAT64)


def test_upsamplings_apart_stay_apart() -> None:
    steps = [layers.UpSampling2D(2), layers.Conv2D(4, 3), layers.UpSampling2D(2), bn()]
    model = chain((6, 5, 8), *steps, layers.ReLU(name="end"))
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded).count("UpSampling2D") == 2
    assert_same(model, folded, FLOAT64)


def test_what_is_before_a_sum_over_pixels_is_computed_behind_it() -> None:
    inputs = keras.Input((6, 5, 8), dtype="float64")
    summed = ops.sum(layers.ReLU()(inputs) * 3.0, axis=(1, 2))
    model = randomise(keras.Model(inputs, layers.Dense(3)(summed)))
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["GlobalAveragePooling2D", "Dense"]
    assert_same(model, folded, FLOAT64)

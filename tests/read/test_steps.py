"""Layers that are applied to every step of a sequence."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from zoo.making import chain
from zoo.same import FLOAT64, assert_same, kinds, signature

pytestmark = pytest.mark.usefixtures("float64")

CLIP = (3, 9, 8, 2)


def each(layer: keras.layers.Layer, **kwargs: Any) -> keras.layers.Layer:
    return layers.TimeDistributed(layer, **kwargs)


def frames() -> list[keras.layers.Layer]:
    """A convolutional net for each frame, as in front of a recurrent layer."""
    return [
        each(layers.Conv2D(4, 3, padding="same")),
        each(layers.BatchNormalization()),
        each(layers.ReLU()),
        each(layers.MaxPooling2D()),
        each(layers.Conv2D(4, 3)),
        each(layers.BatchNormalization()),
        each(layers.AveragePooling2D(2)),
        each(layers.Flatten()),
        each(layers.Dense(5)),
        each(layers.BatchNormalization()),
    ]


def test_frames_are_one_batch_until_something_reads_the_steps() -> None:
    model = chain(CLIP, *frames(), layers.GRU(3))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded) == ["Conv2D", "ReLU", "MaxPooling2D", "Conv2D", "Flatten", "Dense", "GRU"]
    assert [type(x).__name__ for x in folded.operations].count("Reshape") == 2


def test_shut_they_stay() -> None:
    model = chain(CLIP, *frames()[:2])
    folded = kerasfold.fold(model, open_layers=False, verify=False)
    assert kinds(folded) == ["TimeDistributed", "TimeDistributed"]
    assert_same(model, folded, FLOAT64)


def test_signature_and_file(tmp_path: Any) -> None:
    model = chain(CLIP, each(layers.Conv2D(4, 3)), each(layers.BatchNormalization(), name="last"))
    folded = kerasfold.fold(model, verify=False)
    assert signature(folded) == signature(model)
    folded.save(tmp_path / "folded.keras")
    assert_same(model, keras.models.load_model(tmp_path / "folded.keras"), FLOAT64)


@pytest.mark.parametrize("shape", [(5, 4), (None, 4)])
def test_steps_of_vectors_meet_what_is_around_them(shape: Any) -> None:
    model = chain(shape, layers.Conv1D(4, 2), each(layers.Dense(3)), each(layers.Dropout(0.5)))
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert kinds(folded) == ["Conv1D"]
    assert_same(model, folded, FLOAT64)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_masked_steps() -> None:
    stack = [each(layers.Dense(4)), each(layers.BatchNormalization()), layers.GRU(3)]
    model = chain((6, 3), layers.Masking(), *stack)
    folded = kerasfold.fold(model, objective="layers", verify=False)
    assert kinds(folded) == ["Masking", "Dense", "GRU"]
    steps = np.random.default_rng(0).normal(size=(2, 6, 3))
    steps[0, 4:] = steps[1, 1:] = 0.0
    assert_same(model, folded, FLOAT64, inputs=steps)


@keras.saving.register_keras_serializable("test_steps")
def centred(x: Any) -> Any:
    """Works along the batch, or the steps, whichever is first."""
    return x - ops.mean(x, axis=0, keepdims=True)


@pytest.mark.parametrize(
    ("shape", "layer"), [((5, 4), layers.Dense), (CLIP, lambda n, **kw: layers.Conv2D(n, 2, **kw))]
)
def test_what_may_work_along_the_steps_is_kept(shape: Any, layer: Any) -> None:
    model = chain(shape, each(layer(3, activation=centred), name="own"))
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["TimeDistributed"]
    assert_same(model, folded, FLOAT64)


@pytest.mark.parametrize("shape", [(None, 9, 8, 2), (3, None, None, 2)])
def test_unknown_sizes_are_kept(shape: Any) -> None:
    model = chain(shape, each(layers.Conv2D(4, 3), name="first"), each(layers.BatchNormalization()))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    (reason,) = (k.reason for k in folded.fold_report.kept if k.layer == "first")
    assert "unknown number of steps" in reason
    assert "give the Input both" in reason

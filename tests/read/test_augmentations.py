"""Layers for training alone: each is proved to pass on what it gets, and is removed."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.testing import check_lift
from zoo.augmentations import AUGMENTATIONS
from zoo.making import chain
from zoo.same import FLOAT64, assert_same, kinds

SHAPE = (8, 6, 3)
EACH = pytest.mark.parametrize(
    ("kind", "settings"), AUGMENTATIONS.items(), ids=lambda x: getattr(x, "__name__", "")
)


@EACH
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_its_output_is_its_input(kind: Any, settings: Any, dtype: str) -> None:
    """Negative numbers and those beyond 255 and beyond its range included."""
    x = keras.ops.cast(np.random.default_rng(0).normal(0, 300, (2, *SHAPE)), dtype)
    y = kind(dtype=dtype, **settings)(x, training=False)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(v).view("uint8") for v in (x, y)))


@EACH
def test_it_is_lifted(kind: Any, settings: Any) -> None:
    check_lift(kind(**settings), SHAPE)


@pytest.mark.usefixtures("float64")
def test_all_of_them_are_removed_and_the_report_names_those_that_a_plain_call_runs() -> None:
    stack = [kind(**settings) for kind, settings in AUGMENTATIONS.items()]
    model = chain(SHAPE, *stack, layers.Dropout(0.5), layers.Conv2D(2, 3))
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["Conv2D"]
    assert_same(model, folded, FLOAT64)
    report = folded.fold_report
    assert report.random == tuple(layer.name for layer in stack)
    assert "called without training=False" in str(report)
    x = np.random.default_rng(0).uniform(size=(4, *SHAPE))
    assert np.abs(model(x) - model(x, training=False)).max() > 1e-3  # the report is right
    assert np.abs(folded(x) - folded(x, training=False)).max() == 0.0


def test_what_is_called_with_training_false_is_never_random() -> None:
    image = keras.Input(SHAPE)
    model = keras.Model(image, layers.RandomFlip()(image, training=False))
    report = kerasfold.explain(model)
    assert len(report.removed) == 1
    assert not report.random
    assert "training=False" not in str(report)


@pytest.mark.parametrize(("first", "is_random"), [(layers.RandomFlip, True), (None, False)])
def test_what_is_random_in_a_pipeline_that_is_merged(first: Any, is_random: bool) -> None:
    parts = [*([first()] if first else []), layers.Rescaling(0.1)]
    model = chain(SHAPE, layers.Pipeline(parts, name="pipeline"), layers.Conv2D(2, 1))
    folded = kerasfold.fold(model)
    assert kinds(folded) == ["Conv2D"]
    assert folded.fold_report.random == (("pipeline",) if is_random else ())


def test_what_is_called_on_several_tensors_is_kept() -> None:
    image, labels = keras.Input(SHAPE), keras.Input((2,))
    y = layers.RandomFlip(name="flip")({"images": image, "labels": labels})
    report = kerasfold.explain(keras.Model([image, labels], y["images"]))
    assert "it is called on other than one tensor" in [row.reason for row in report.kept]


def test_a_crop_that_declares_what_it_does_not_return_is_kept() -> None:
    model = chain(SHAPE, layers.RandomCrop(4, 4, name="crop"), layers.ReLU())
    (row,) = [row for row in kerasfold.explain(model).kept if row.layer == "crop"]
    assert row.reason == ("it declares images of 4 x 4, and at inference returns them as they come")


def test_what_is_active_at_inference_is_kept() -> None:
    report = kerasfold.explain(chain(SHAPE, layers.AutoContrast((0, 1), name="contrast")))
    assert [row.layer for row in report.kept] == ["contrast"]

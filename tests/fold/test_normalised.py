"""Normalisations one after another, and constants beside them, become one BatchNormalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.cost import UNTIMED
from kerasfold.read.model import LayerScale
from zoo.making import policy, randomise
from zoo.same import FLOAT32, FLOAT64, assert_same

Step = Callable[[Any], Any]
IMAGE = (5, 4, 12)


def c(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).uniform(0.5, 2.0, shape)


def model_of(
    *steps: Step, shape: tuple[int, ...] = IMAGE, dtype: str = "float64", reads: bool = False
) -> keras.Model:
    """Steps between nonlinearities; `reads` says whether others read what the first gives."""
    with policy(dtype):
        x = inputs = keras.Input(shape, dtype=keras.config.dtype_policy().compute_dtype)
        x = first = layers.ReLU()(x)
        for step in steps:
            x = step(x)
        outputs = layers.ReLU(name="end")(x)
        return randomise(keras.Model(inputs, [outputs, first] if reads else outputs))


def norm(**config: Any) -> keras.Layer:
    return layers.BatchNormalization(**config)


def kinds(model: keras.Model) -> list[str]:
    """The classes of what is done between the nonlinearities."""
    names = [type(operation).__name__ for operation in model.operations]
    return [name for name in names if name not in ("InputLayer", "ReLU")]


MERGED: dict[str, list[Step]] = {
    "two": [lambda x: norm()(x), lambda x: norm()(x)],
    "constants_behind": [lambda x: norm()(x), lambda x: x * c(12), lambda x: x + c(12)],
    "constants_before": [lambda x: x * c(12) - 1.0, lambda x: norm(scale=False)(x)],
    "a_layer_scale": [lambda x: LayerScale(0.5, 12)(x), lambda x: norm()(x)],
    "a_sum": [lambda x: norm()(x) + x, lambda x: x * 0.5],
}


@pytest.mark.parametrize("steps", MERGED.values(), ids=MERGED)
def test_steps_become_one(steps: list[Step]) -> None:
    model = model_of(*steps, reads=True)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded) == ["BatchNormalization"], str(folded.fold_report)


@pytest.mark.parametrize("shape", [(12,), (5, 12), (5, 4, 12), (3, 4, 5, 12)])
def test_images_of_any_rank(shape: tuple[int, ...]) -> None:
    model = model_of(norm(dtype="float64"), norm(dtype="float64"), shape=shape)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded) == ["BatchNormalization"]


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 4), (12, 3, 5, 4)])
def test_channels_first(shape: tuple[int, ...]) -> None:
    pool = getattr(layers, f"GlobalMaxPooling{len(shape) - 1}D")  # it says where channels are
    steps = [norm(axis=1, dtype="float64"), lambda x: x * c(12, *(1 for _ in shape[1:]))]
    with policy("float64"):
        model = model_of(*steps, norm(axis=1), pool(data_format="channels_first"), shape=shape)
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["BatchNormalization", pool.__name__], str(folded.fold_report)
    assert_same(model, folded, FLOAT64)


# With how much of its size an output may be off: roundings of each of two steps.
POLICIES = {
    "float32": FLOAT32,
    "mixed_float16": 2.0**-8,
    "float16": 2.0**-8,
    "mixed_bfloat16": 2.0**-5,
    "bfloat16": 2.0**-5,
}


@pytest.mark.parametrize(("dtype", "tolerance"), POLICIES.items(), ids=POLICIES)
def test_nothing_is_divided_under_any_policy(dtype: str, tolerance: float | None) -> None:
    model = model_of(*MERGED["two"], dtype=dtype)
    folded = kerasfold.fold(model, verify=False)
    (layer,) = [x for x in folded.layers if isinstance(x, layers.BatchNormalization)]
    assert layer.dtype_policy.name == dtype
    variance = layer.moving_variance + layer.epsilon
    assert np.all(keras.ops.convert_to_numpy(variance).astype("float64") == 1)
    assert_same(model, folded, tolerance)


def test_it_folds_no_further() -> None:
    folded = kerasfold.fold(model_of(*MERGED["two"], dtype="float32"))
    assert len(folded.trainable_weights) == 2
    for objective in UNTIMED:
        again = kerasfold.fold(folded, objective=objective)
        assert kinds(again) == ["BatchNormalization"]
        for weight, same in zip(folded.get_weights(), again.get_weights(), strict=True):
            assert np.array_equal(weight, same)


def test_what_is_not_to_train_does_not() -> None:
    model = model_of(norm(trainable=False, dtype="float64"), norm(trainable=False, dtype="float64"))
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["BatchNormalization"]
    assert not folded.trainable_weights


def test_fewer_weights_are_not_made_more() -> None:
    bare = norm(center=False, scale=False, dtype="float64")
    model = model_of(bare, lambda x: x * c(12))
    folded = kerasfold.fold(model, objective="params", verify=False)
    assert_same(model, folded, FLOAT64)
    assert folded.count_params() == model.count_params()


def test_constants_of_each_pixel_stay() -> None:
    model = model_of(norm(dtype="float64"), lambda x: x * c(5, 4, 1))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert len(kinds(folded)) == 2


def test_what_overflows_stays_two() -> None:
    steps = [norm(dtype="float32"), norm(dtype="float32")]
    model = model_of(*steps, dtype="float32")
    for layer in steps:
        layer.gamma.assign(np.full(12, 1e30, "float32"))
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["BatchNormalization", "BatchNormalization"]


def test_a_layer_scale_is_normalised_by_no_batch() -> None:
    model = model_of(LayerScale(0.5, 12, dtype="float64"), lambda x: x * c(12))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert "BatchNormalization" not in kinds(folded)

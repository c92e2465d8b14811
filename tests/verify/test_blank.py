"""Inputs that are zero: black images, padding, and what a Masking tells from all else."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.equivalence.probes import probes


def masked(value: float | None) -> keras.Model:
    keras.utils.set_random_seed(1)
    x = keras.Input((7, 3), name="x")
    y = x if value is None else layers.Masking(value, name="mask")(x)
    return keras.Model(x, layers.LSTM(4, name="lstm")(y))


def normalised(how: Any) -> keras.Model:
    x = keras.Input((16,), name="x")
    return keras.Model(x, how(x))


def unit(x: Any) -> Any:
    return x / ops.sqrt(ops.sum(x * x, axis=-1, keepdims=True))


def test_a_sample_of_zeros_and_one_of_some() -> None:
    for shape in ((16,), (7, 3), (8, 8, 3)):
        x = keras.Input(shape)
        drawn = probes(keras.Model(x, layers.Dense(2)(x)))
        assert drawn.blank == [0, 2]
        part, whole = drawn.usual[-1][-2:]
        assert not whole.any()
        share = np.mean(np.all(part.reshape(-1, shape[-1] if shape[1:] else 1) == 0, axis=-1))
        assert 0.2 < share < 0.6


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_mask_is_seen(value: float) -> None:
    assert not kerasfold.verify(masked(value), masked(None)).equivalent
    assert not kerasfold.verify(masked(None), masked(value)).equivalent
    assert kerasfold.verify(masked(value), masked(value)).equivalent


def test_nan_of_the_second_model_alone_is_a_difference() -> None:
    safe = normalised(layers.UnitNormalization(name="unit"))
    assert not kerasfold.verify(safe, normalised(unit)).equivalent
    assert kerasfold.verify(normalised(unit), safe, strict_signature=False).equivalent
    assert kerasfold.verify(normalised(unit), normalised(unit)).equivalent
    assert kerasfold.fold(normalised(unit)).fold_report.equivalence.equivalent


def test_zero_is_told_from_what_is_above() -> None:
    strict, other = (
        normalised(lambda x: ops.cast(x > 0, "float32")),
        normalised(lambda x: ops.cast(x >= 0, "float32")),
    )
    assert not kerasfold.verify(strict, other).equivalent


@pytest.mark.parametrize("mean", [2.0, 100.0, 1e6])
def test_what_stands_for_a_missing_number_is_seen(mean: float) -> None:
    """Also where numbers are usually far from 0."""

    def model(missing: bool) -> keras.Model:
        keras.utils.set_random_seed(0)
        x = keras.Input((4,), name="x")
        y = layers.Normalization(mean=mean, variance=1.0)(x)
        y = ops.where(ops.equal(x, 0.0), 0.0, y) if missing else y
        return keras.Model(x, layers.Dense(2, name="y")(y))

    assert not kerasfold.verify(model(True), model(False)).equivalent
    assert not kerasfold.verify(model(False), model(True)).equivalent
    assert kerasfold.verify(model(True), model(True)).equivalent

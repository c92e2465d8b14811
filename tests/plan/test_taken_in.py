"""Steps behind slices of a convolution, and behind one that others read, are taken into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from zoo.making import policy, randomise
from zoo.same import FLOAT64, assert_same, kinds, run_under_xla

IDLE = ("GetItem", "Concatenate", "Tanh", "Sin", "InputLayer")


def c(channels: int) -> np.ndarray:
    return np.linspace(0.5, 1.5, channels)


def halves(first: Any, last: Any, cut: int = 4) -> Callable[[Any], list[Any]]:
    """What slices of the channels become, each by steps of its own."""
    return lambda x: [first(x[..., :cut]), last(x[..., cut:])]


BEHIND: dict[str, Callable[[Any], list[Any]]] = {
    "shifts": halves(lambda x: x + c(4), lambda x: x - c(4)),
    "a scale": halves(lambda x: x * c(4), lambda x: x),
    "uneven": halves(lambda x: x + 1.0, lambda x: 2.0 * x + c(6), cut=2),
    "normalised": halves(*[lambda x: layers.BatchNormalization()(x)] * 2),
    "split": lambda x: [k * (y + c(2)) for k, y in enumerate(ops.split(x, 4, axis=-1), 1)],
    "beside others": lambda x: [ops.concatenate([x[..., :4] * c(4), ops.sin(x[..., 4:])])],
}


def model_of(behind: Callable[[Any], list[Any]], channels: int = 8) -> keras.Model:
    """A convolution, and what is behind it, in float64."""
    with policy("float64"):
        inputs = keras.Input((9, 8, 3))
        x = layers.Conv2D(channels, 3, padding="same")(inputs)
        return randomise(keras.Model(inputs, [ops.tanh(y) for y in behind(x)]))


def computing(model: keras.Model) -> list[str]:
    found = [type(operation).__name__ for operation in model.operations]
    return [kind for kind in found if kind not in IDLE]


@pytest.mark.parametrize("behind", BEHIND)
def test_what_is_behind_slices_is_taken_into_what_is_sliced(behind: str) -> None:
    model = model_of(BEHIND[behind])
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert computing(folded) == ["Conv2D"]
    assert folded.fold_report.macs_after == 9 * 8 * 9 * 3 * 8


@pytest.mark.parametrize(("objective", "merges"), [("layers", True), ("macs", False)])
def test_what_others_read_too_is_normalised_in_one_convolution_of_both(
    objective: Any, merges: bool
) -> None:
    model = model_of(lambda x: [layers.BatchNormalization()(x), x])
    folded = kerasfold.fold(model, objective)
    assert_same(model, folded, FLOAT64)
    assert computing(folded) == (["Conv2D"] if merges else ["Conv2D", "BatchNormalization"])


def test_slices_that_overlap_are_not_computed_twice() -> None:
    model = model_of(lambda x: [x[..., :6] + c(6), x[..., 2:] * c(6)])
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert folded.fold_report.macs_after <= folded.fold_report.macs_before


def test_what_shares_its_weights_keeps_them() -> None:
    with policy("float64"):
        inputs, conv = keras.Input((9, 8, 3)), layers.Conv2D(8, 3)
        outputs = [y for k in (1.0, 2.0) for y in BEHIND["shifts"](conv(ops.sin(k * inputs)))]
        model = randomise(keras.Model(inputs, [ops.tanh(y) for y in outputs]))
    folded = kerasfold.fold(model)
    assert_same(model, folded, FLOAT64)
    assert folded.count_params() <= model.count_params()


def test_what_is_behind_channels_first_is_taken_in() -> None:
    with policy("float64"):
        inputs = keras.Input((3, 9, 8))
        x = layers.Conv2D(8, 3, data_format="channels_first")(inputs)
        y = [layers.BatchNormalization(axis=1)(x[:, :4]), x[:, 4:]]
        model = randomise(keras.Model(inputs, [ops.tanh(z) for z in y]))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64, run=run_under_xla)
    assert "BatchNormalization" not in kinds(folded)

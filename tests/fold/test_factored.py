"""Sums of multiples: added or subtracted first, and scaled once, where the scale is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from zoo.making import policy, randomise
from zoo.same import FLOAT64, assert_same

SHAPE = (5, 4, 3)
ALMOST = float(np.nextafter(3.0, 4.0))
EACH = np.array([0.5, -2.0, 3.0])


def folded_of(
    make: Callable[..., Any], objective: str, shape: tuple[int, ...] = SHAPE
) -> tuple[keras.Model, list[str]]:
    """The fold of what is made of three tensors, and the steps of it."""
    with policy("float64"):
        x = keras.Input(shape)
        terms = [layers.Activation(f)(x) for f in ("relu", "tanh", "sigmoid")]
        model = randomise(keras.Model(x, layers.Softmax()(make(*terms))))
    folded = kerasfold.fold(model, objective, verify=False)
    assert_same(model, folded, FLOAT64)
    steps = [type(x).__name__ for x in folded.operations]
    return folded, [x for x in steps if x not in ("InputLayer", "Activation", "Softmax")]


def normed(*terms: Any) -> Any:
    norm = layers.BatchNormalization()
    return layers.Add()([norm(x) for x in terms])


ONCE: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "a difference": (lambda a, b, c: a + (-1.0) * b, ["Subtract"]),
    "a negative first": (lambda a, b, c: -a + b, ["Subtract"]),
    "differences": (lambda a, b, c: a - b + (-1.0) * c, ["Add", "Subtract"]),
    "negatives": (lambda a, b, c: (-a) + (-b), ["Add", "Multiply"]),
    "multiples": (lambda a, b, c: 3.0 * a + 3.0 * b + 3.0 * c, ["Add", "Multiply"]),
    "a difference of multiples": (lambda a, b, c: 3.0 * a - b * 3.0, ["Subtract", "Multiply"]),
    "a multiple for each channel": (lambda a, b, c: a * EACH + b * EACH, ["Add", "Multiply"]),
    "shifts": (lambda a, b, c: (a + 1.0) + (b + EACH), ["Add", "Add"]),
    "multiples and shifts": (
        lambda a, b, c: (2.0 * a + 1.0) - (2.0 * b + EACH),
        ["Subtract", "Multiply", "Add"],
    ),
}


@pytest.mark.parametrize("objective", ["layers", "latency"])
@pytest.mark.parametrize("name", ONCE)
def test_scaled_once(name: str, objective: str) -> None:
    make, expected = ONCE[name]
    folded, steps = folded_of(make, objective)
    assert steps == expected
    assert folded.fold_report.layers_after == len(expected)


@pytest.mark.parametrize("shape", [(5,), (6, 5), (3, 4, 5, 2)])
def test_of_vectors_lines_and_volumes(shape: tuple[int, ...]) -> None:
    each = np.arange(1.0, 1 + shape[-1])
    _, steps = folded_of(lambda a, b, c: a * each + b * each, "latency", shape)
    assert steps == ["Add", "Multiply"]


def test_a_scale_that_trains_is_a_layer() -> None:
    folded, steps = folded_of(normed, "layers")
    assert steps == ["Add", "DepthwiseConv2D"]
    assert [x.trainable for x in folded.layers if x.weights] == [True]


APART: dict[str, Callable[..., Any]] = {
    "different multiples": lambda a, b, c: 3.0 * a + 2.0 * b,
    "multiples that differ by a rounding": lambda a, b, c: (
        3.0 * a + b * float(np.nextafter(3.0, 4.0))
    ),
    "a negative of some channels": lambda a, b, c: a * EACH + b * np.abs(EACH),
    "one that is multiplied": lambda a, b, c: 3.0 * a + b,
}


@pytest.mark.parametrize("name", APART)
def test_different_multiples(name: str) -> None:
    folded, steps = folded_of(APART[name], "layers")
    assert "Multiply" in steps
    assert folded.fold_report.layers_after == folded.fold_report.layers_before

"""Means and sums over axes one after another, in whatever order of the axes, as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from keras import layers, ops

import kerasfold
from zoo.making import randomise
from zoo.same import FLOAT64, assert_same

pytestmark = pytest.mark.usefixtures("float64")

Step = Callable[[Any], Any]


def calls(model: keras.Model) -> list[str]:
    """Class names of its layers and operations, in order."""
    return [type(x).__name__ for x in model.operations if not isinstance(x, layers.InputLayer)]


def between(shape: tuple[int | None, ...], *steps: Step) -> tuple[keras.Model, list[str]]:
    """The fold of steps behind an activation, and its layers behind that."""
    x = inputs = keras.Input(shape, dtype="float64")
    for step in (layers.ReLU(), *steps, layers.Activation("tanh")):
        x = step(x)
    model = randomise(keras.Model(inputs, x))
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    return folded, calls(folded)[1:-1]


def mean(*axes: int, keepdims: bool = False) -> Step:
    return lambda x: ops.mean(x, axis=axes, keepdims=keepdims)


def total(*axes: int, keepdims: bool = False) -> Step:
    return lambda x: ops.sum(x, axis=axes, keepdims=keepdims)


def pool(*args: Any, **options: Any) -> Step:
    return lambda x: layers.AveragePooling2D(*args, **options)(x)


def whole(x: Any) -> Any:
    return layers.GlobalAveragePooling2D()(x)


def permute(*dims: int) -> Step:
    return lambda x: layers.Permute(dims)(x)


def reshape(*shape: int) -> Step:
    return lambda x: layers.Reshape(shape)(x)


GLOBAL = ["GlobalAveragePooling2D"]
ONE: dict[str, tuple[tuple[int | None, ...], list[Step], list[str]]] = {
    "means": ((8, 6, 4), [mean(1), mean(1)], GLOBAL),
    "means that stay images": (
        (8, 6, 4),
        [mean(1, keepdims=True), mean(2, keepdims=True)],
        GLOBAL,
    ),
    "means of channels, too": ((8, 6, 4), [mean(-1), mean(-1)], ["Mean"]),
    "means in the other order": ((8, 6, 4), [mean(2), mean(1)], GLOBAL),
    "sums": ((8, 6, 4), [total(2), total(1)], ["Sum"]),
    "a sum divided by its number": ((8, 6, 4), [total(1, 2), lambda x: x / 48.0], GLOBAL),
    "a mean times its number": ((8, 6, 4), [mean(1), lambda x: x * 8.0], ["Sum"]),
    "a pool of permuted axes": (
        (8, 6, 4),
        [permute(2, 1, 3), whole],
        GLOBAL,
    ),
    "a pool of what were channels": (
        (8, 6, 4),
        [permute(3, 1, 2), whole],
        ["Mean"],
    ),
    "a pool of channels first": ((8, 6, 4), [permute(3, 1, 2), mean(2, 3)], GLOBAL),
    "a pool of a line": (
        (8, 6, 4),
        [reshape(48, 4), lambda x: layers.GlobalAveragePooling1D()(x)],
        GLOBAL,
    ),
    "a pool of halves": (
        (8, 6, 4),
        [pool((4, 3)), permute(2, 1, 3), mean(1, 2)],
        GLOBAL,
    ),
    "a pool that stays an image": ((8, 6, 4), [mean(1, 2), reshape(1, 1, 4)], GLOBAL),
    "a pool whose axis is none": ((8, 6, 4), [mean(1, 2, keepdims=True), reshape(4)], GLOBAL),
    "of a volume": (
        (4, 3, 2, 5),
        [mean(3), mean(1), mean(1)],
        ["GlobalAveragePooling3D"],
    ),
    "of one axis of unknown size": (
        (None, 6, 4),
        [permute(2, 1, 3), mean(1)],
        ["Mean"],
    ),
}


@pytest.mark.parametrize("case", ONE)
def test_several_are_one(case: str) -> None:
    shape, steps, expected = ONE[case]
    _, left = between(shape, *steps)
    assert left == expected


SEVERAL: dict[str, tuple[tuple[int | None, ...], list[Step], list[str]]] = {
    "windows overlap": (
        (8, 6, 4),
        [pool(3, strides=1), whole],
        ["AveragePooling2D", *GLOBAL],
    ),
    "a window that is cut off at the border": (
        (7, 6, 4),
        [pool(2, padding="same"), permute(2, 1, 3), mean(1, 2)],
        ["AveragePooling2D", *GLOBAL],
    ),
    "a mean times another number": (
        (8, 6, 4),
        [mean(1), lambda x: x * 7.0],
        ["Mean", "Multiply"],
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_what_is_no_mean_of_equally_many_stays(case: str) -> None:
    shape, steps, expected = SEVERAL[case]
    _, left = between(shape, *steps)
    assert left == expected


def test_the_report_says_what_it_is() -> None:
    folded, _ = between((8, 6, 4), total(1), total(1))
    assert "sum over 2 axes" in str(folded.fold_report)


def test_a_reduction_that_others_read_stays() -> None:
    inputs = keras.Input((8, 6, 4), dtype="float64")
    rows = ops.mean(layers.ReLU()(inputs), axis=1)
    model = keras.Model(inputs, [ops.mean(rows, axis=1), layers.ReLU()(rows)])
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert calls(folded).count("Mean") == 2

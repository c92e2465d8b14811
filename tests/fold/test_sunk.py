"""Permutations of axes pass what works along axes: they meet their inverse, or are done once."""

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

Body = Callable[[Any, Any], Any]


def first(x: Any) -> Any:
    """Channels before the pixels."""
    return layers.Permute((3, 1, 2))(x)


def last(x: Any) -> Any:
    return layers.Permute((2, 3, 1))(x)


def turned(x: Any) -> Any:
    return ops.transpose(x, (0, 2, 1, 3))


# What becomes of the permutations: the kinds of all calls.
BODIES: dict[str, tuple[Body, list[str]]] = {
    "concatenation": (
        lambda a, b: last(layers.Concatenate(1)([first(a), first(b)])),
        ["Concatenate"],
    ),
    "concatenation of rows": (
        lambda a, b: turned(ops.concatenate([turned(a), turned(b)], axis=1)),
        ["Concatenate"],
    ),
    "product": (lambda a, b: last(layers.Multiply()([first(a), first(b)])), ["Multiply"]),
    "maximum of functions": (
        lambda a, b: last(ops.maximum(ops.tanh(first(a)), ops.exp(first(b)))),
        ["Tanh", "Exp", "Maximum"],
    ),
    "normalisation of a concatenation": (
        lambda a, b: layers.BatchNormalization()(
            layers.Concatenate()([turned(layers.Conv2D(4, 1)(x)) for x in (a, b)])
        ),
        ["Conv2D", "Conv2D", "Concatenate", "Permute"],
    ),
    "slices": (
        lambda a, b: layers.BatchNormalization()(
            last(first(layers.Conv2D(4, 1)(a))[:, ..., 1:-1, 2:])
        ),
        ["Cropping2D", "Conv2D"],
    ),
    "padding": (
        lambda a, b: layers.Conv2D(2, 3)(last(ops.pad(first(a), ((0, 0), (0, 0), (1, 1), (1, 1))))),
        ["Conv2D"],
    ),
    "layers that pad and crop": (
        lambda a, b: turned(
            layers.Cropping2D(((0, 1), (2, 0)))(layers.ZeroPadding2D(((3, 0), (0, 1)))(turned(a)))
        ),
        ["GetItem", "Pad"],
    ),
    "padded channels": (
        lambda a, b: layers.ReLU()(last(layers.ZeroPadding2D(((0, 2), (1, 0)))(first(a)))),
        ["Pad", "ReLU"],
    ),
}
STAYING: dict[str, Body] = {
    "read by others too": lambda a, b: (lambda x: [layers.Concatenate(1)([x, first(b)]), x])(
        first(a)
    ),
    "in different orders": lambda a, b: layers.Concatenate(-1)(
        [layers.Permute((2, 1, 3))(a[:, :4, :4]), b[:, :4, :4]]
    ),
    "that cast": lambda a, b: last(
        layers.Maximum()([ops.exp(first(ops.cast(x, "float32"))) for x in (a, b)])
    ),
    "of the batch": lambda a, b: ops.transpose(ops.concatenate([a, b], axis=1), (1, 0, 2, 3)),
}


def kinds(model: keras.Model) -> list[str]:
    """Class names of layers and operations."""
    return [type(x).__name__ for x in model.operations if not isinstance(x, layers.InputLayer)]


def model_of(body: Body) -> keras.Model:
    inputs = [keras.Input((6, 5, 3), name=name, dtype="float64") for name in "ab"]
    return randomise(keras.Model(inputs, body(*inputs)))


@pytest.mark.parametrize(("body", "left"), BODIES.values(), ids=BODIES)
def test_permutations_pass(body: Body, left: list[str]) -> None:
    model = model_of(body)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert sorted(kinds(folded)) == sorted(left)


@pytest.mark.parametrize("body", STAYING.values(), ids=STAYING)
def test_others_stay(body: Body) -> None:
    model = model_of(body)
    folded = kerasfold.fold(model, verify=False)
    assert_same(model, folded, FLOAT64)
    assert kinds(folded).count("Permute") == kinds(model).count("Permute")

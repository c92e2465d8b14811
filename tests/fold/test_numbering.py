"""Calls that compute the same are one: the same layer, or equal ones, on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasfold
from kerasfold.lift import numbering
from kerasfold.lift.numbering import numbered
from kerasfold.read.graph import read
from zoo.blocks import conv, same
from zoo.making import policy, randomise
from zoo.same import FLOAT64, assert_same, kinds, signature

SHAPE = (8, 8, 4)


def model_of(make: Callable[[Any], Any]) -> keras.Model:
    with policy("float64"):
        x = keras.Input(SHAPE, name="image")
        return randomise(keras.Model(x, make(x), name="twice"))


def product(*terms: Any) -> Any:
    return layers.Multiply()(list(terms))


def branches(layer: Callable[[], keras.Layer]) -> Callable[[Any], Any]:
    """Two layers made alike, on one tensor."""
    return lambda x: product(layer()(x), layer()(x))


def twice(make: Callable[[], Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """One thing, called twice on one tensor."""

    def called(x: Any) -> Any:
        call = make()
        return product(call(x), call(x))

    return called


def block() -> Callable[[Any], Any]:
    steps = [same(4), layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D(2)]

    def call(x: Any) -> Any:
        for step in steps:
            x = step(x)
        return x

    return call


ONCE: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "a layer": (twice(lambda: same(3, activation="relu")), ["Conv2D", "Multiply"]),
    "a block": (twice(block), ["Conv2D", "ReLU", "MaxPooling2D", "Multiply"]),
    "an activation": (twice(layers.ReLU), ["ReLU", "Multiply"]),
    "activations alike": (branches(layers.ReLU), ["ReLU", "Multiply"]),
    "pools alike": (branches(lambda: layers.MaxPooling2D(2)), ["MaxPooling2D", "Multiply"]),
    "operations alike": (
        lambda x: product(ops.leaky_relu(x, 0.3), ops.leaky_relu(x, 0.3)),
        ["Multiply"],
    ),
    "products with equal constants": (
        lambda x: product(ops.relu(x * np.arange(4.0)), ops.relu(x * np.arange(4.0))),
        ["Multiply"],
    ),
    "branches of a sum": (
        lambda x: layers.ReLU()(layers.Add()([layers.ReLU()(x), layers.ReLU()(x)])),
        ["ReLU", "Add", "ReLU"],
    ),
}


@pytest.mark.parametrize("name", ONCE)
def test_what_is_equal_is_computed_once(name: str) -> None:
    make, expected = ONCE[name]
    model = model_of(make)
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == expected
    assert folded.fold_report.repeated
    assert_same(model, folded, FLOAT64)


class Sampled(layers.Layer):
    """One that may do anything."""

    def call(self, inputs: Any) -> Any:
        return ops.abs(inputs)


def squared(x: Any) -> Any:
    return x * x


APART: dict[str, Callable[[Any], Any]] = {
    "other weights": branches(lambda: conv(3, 1, activation="relu")),
    "other slopes": lambda x: product(*(layers.LeakyReLU(s)(x) for s in (0.1, 0.2))),
    "other constants": lambda x: product(*(ops.leaky_relu(x, s) for s in (0.1, 0.2))),
    "other classes": lambda x: product(layers.ReLU()(x), layers.LeakyReLU()(x)),
    "other tensors": lambda x: product(layers.ReLU()(x), layers.ReLU()(-x)),
    "other dtypes": lambda x: product(
        ops.cast(layers.ReLU(dtype="float32")(x), "float64"), layers.ReLU()(x)
    ),
    "training": lambda x: product(*(layers.Dropout(0.5)(x, training=True) for _ in "ab")),
    "random in training": twice(lambda: layers.GRU(3, dropout=0.5, return_sequences=True)),
    "a state": twice(lambda: layers.GRU(3, stateful=True, return_sequences=True)),
    "a Lambda": twice(lambda: layers.Lambda(squared)),
    "a function of someone else's": twice(lambda: layers.Activation(squared)),
    "a layer of someone else's": twice(lambda: Sampled(trainable=False)),
}


@pytest.mark.parametrize("name", APART)
def test_what_may_differ_is_computed_twice(name: str) -> None:
    with policy("float64"):
        shape = (64, 4) if name in ("a state", "random in training") else SHAPE
        x = keras.Input(shape, batch_size=2)
        graph = read(randomise(keras.Model(x, APART[name](x))))
    assert numbered(graph) is graph


def test_equal_weights_are_equal_bit_for_bit() -> None:
    with policy("float64"):
        x = keras.Input(SHAPE)
        first, second = (conv(3, activation="relu") for _ in "ab")
        model = randomise(keras.Model(x, product(first(x), second(x))))
    second.set_weights(first.get_weights())
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["Conv2D", "Multiply"]
    assert folded.count_params() == first.count_params()
    assert_same(model, folded, FLOAT64)
    kernel, bias = first.get_weights()
    kernel[0, 0, 0, 0] = np.nextafter(kernel[0, 0, 0, 0], 1)
    second.set_weights([kernel, bias])
    assert kinds(kerasfold.fold(model, verify=False)) == ["Conv2D", "Conv2D", "Multiply"]


def test_frozen_weights_are_not_those_that_train() -> None:
    x = keras.Input(SHAPE)
    first, second = (conv(3, activation="relu", trainable=own) for own in (True, False))
    model = keras.Model(x, product(first(x), second(x)))
    second.set_weights(first.get_weights())
    assert [x.trainable for x in kerasfold.fold(model).layers if x.weights] == [True, False]


def test_outputs_keep_their_names_and_order(tmp_path: Path) -> None:
    model = model_of(lambda x: [layers.ReLU(name="a")(x), layers.ReLU(name="b")(x)])
    folded = kerasfold.fold(model, verify=False)
    assert kinds(folded) == ["ReLU", "Identity"]
    folded.save(tmp_path / "folded.keras")
    assert signature(keras.models.load_model(tmp_path / "folded.keras")) == signature(model)
    assert_same(model, folded, FLOAT64)


def test_the_report_counts_what_is_computed_again() -> None:
    def make(x: Any) -> Any:
        layer = conv(3, activation="relu")
        return product(layer(x), layer(x))

    model = model_of(make)
    said, did = kerasfold.explain(model), kerasfold.fold(model, verify=False).fold_report
    assert said.to_dict() | {"keras_layers_after": 3} == did.to_dict()
    assert (did.layers_before, did.layers_after) == (3, 2)
    assert did.macs_before == 2 * did.macs_after > 0
    assert did.params_before == did.params_after == model.count_params()
    assert len(did.repeated) == 1
    assert did.repeated[0] in str(did)


def test_the_original_is_verified_with_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called equal and is not gets no further than the verification."""
    monkeypatch.setattr("kerasfold.lift.numbering.content_of", lambda *_: None)
    model = model_of(lambda x: product(layers.LeakyReLU(0.1)(x), layers.LeakyReLU(0.3)(x)))
    with pytest.raises(kerasfold.EquivalenceError):
        kerasfold.fold(model)


def test_many_alike_are_not_held_against_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """No quadratic walk: of each, its weights are looked at once, and of those alone, never."""
    seen: list[str] = []
    content = numbering.content_of
    monkeypatch.setattr(
        numbering, "content_of", lambda operation: seen.append(operation.name) or content(operation)
    )
    x = keras.Input(SHAPE)
    alike = [conv(3)(x) for _ in range(20)]
    model = randomise(keras.Model(x, [*alike, conv(5)(x), conv(3, 1)(x)]))
    graph = read(model)
    assert numbered(graph) is graph
    assert sorted(seen) == sorted(tensor._keras_history.operation.name for tensor in alike)

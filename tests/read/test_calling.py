"""A layer that is called at half the cost is in the graph as one that Keras calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from keras import layers

from kerasfold.read.calling import called

IMAGE, SEQUENCE, VECTOR = (8, 6, 4), (7, 4), (4,)

# Layers, and the shapes of what each reads.
STOCK: dict[str, tuple[Callable[[], keras.Layer], tuple[tuple[int | None, ...], ...]]] = {
    "Conv2D": (lambda: layers.Conv2D(3, 3, strides=2, padding="same", name="l"), (IMAGE,)),
    "Conv1D": (lambda: layers.Conv1D(3, 3, name="l"), (SEQUENCE,)),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3, name="l"), (IMAGE,)),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(3, 3, name="l"), (IMAGE,)),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(3, 3, name="l"), (IMAGE,)),
    "Dense": (lambda: layers.Dense(3, activation="relu", name="l"), (VECTOR,)),
    "Add": (lambda: layers.Add(name="l"), (IMAGE, IMAGE)),
    "Concatenate": (lambda: layers.Concatenate(name="l"), (IMAGE, (8, 6, 2))),
    "Activation": (lambda: layers.Activation("tanh", name="l"), (IMAGE,)),
    "ReLU": (lambda: layers.ReLU(6.0, name="l"), (IMAGE,)),
    "PReLU": (lambda: layers.PReLU(shared_axes=[1, 2], name="l"), (IMAGE,)),
    "AveragePooling2D": (lambda: layers.AveragePooling2D(2, name="l"), (IMAGE,)),
    "GlobalAveragePooling2D": (lambda: layers.GlobalAveragePooling2D(name="l"), (IMAGE,)),
    "ZeroPadding2D": (lambda: layers.ZeroPadding2D(1, name="l"), (IMAGE,)),
    "UpSampling2D": (lambda: layers.UpSampling2D(2, name="l"), (IMAGE,)),
    "Flatten": (lambda: layers.Flatten(name="l"), (IMAGE,)),
    "Reshape": (lambda: layers.Reshape((-1,), name="l"), ((None, 6, 4),)),
    "Permute": (lambda: layers.Permute((2, 1, 3), name="l"), (IMAGE,)),
    "LayerNormalization": (lambda: layers.LayerNormalization(name="l"), (SEQUENCE,)),
}


def told(layer: keras.Layer, given: list[Any]) -> dict[str, Any]:
    """All that a call leaves behind."""
    (node,) = layer._inbound_nodes
    (made,) = node.output_tensors
    return {
        "made": (made.shape, made.dtype, getattr(made, "_keras_mask", None)),
        "read": [x is y for x, y in zip(node.input_tensors, given, strict=True)],
        "arguments": (len(node.arguments.args), dict(node.arguments.kwargs)),
        "built": (layer.built, layer.get_build_config()),
        "weights": [(w.path, tuple(w.shape), str(w.dtype)) for w in layer.weights],
        "config": layer.get_config(),
    }


@pytest.mark.parametrize(("make", "shapes"), STOCK.values(), ids=STOCK)
def test_it_leaves_behind_what_keras_does(
    make: Callable[[], keras.Layer], shapes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [keras.Input(shape) for shape in shapes]
    x = given if len(given) > 1 else given[0]
    usual, ours = make(), make()
    usual(x)
    monkeypatch.setattr(keras.Layer, "__call__", None)  # which is not asked
    made = called(ours, x)
    monkeypatch.undo()
    assert made is ours.output
    assert told(ours, given) == told(usual, given)


class Own(layers.Dense):
    """Someone else's."""


def masked() -> Any:
    return layers.Masking()(keras.Input(SEQUENCE))


# What more there is to than a shape: a layer, and what it is given.
OTHERS: dict[str, Callable[[], tuple[keras.Layer, Any, dict[str, Any]]]] = {
    "a mask": lambda: (layers.ReLU(), masked(), {}),
    "a mask that it may read": lambda: (layers.BatchNormalization(), keras.Input((4,)), {}),
    "a flag of its own": lambda: (layers.Dropout(0.5), keras.Input((4,)), {}),
    "a mask that is made": lambda: (
        layers.Embedding(5, 3, mask_zero=True),
        keras.Input((4,), dtype="float32"),
        {},
    ),
    "another dtype": lambda: (layers.Dense(3), keras.Input((4,), dtype="float16"), {}),
    "a flag": lambda: (layers.Dropout(0.5), keras.Input((4,)), {"training": True}),
    "a state": lambda: (layers.LSTM(3), keras.Input(SEQUENCE), {}),
    "someone else's": lambda: (Own(3), keras.Input((4,)), {}),
    "numbers": lambda: (layers.Dense(3), keras.ops.ones((2, 4)), {}),
    "a model": lambda: (keras.Sequential([layers.Dense(3)]), keras.Input((4,)), {}),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_where_there_is_more_to_it_keras_is_asked(
    make: Callable[[], tuple[keras.Layer, Any, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x, flags = make()
    asked, usual = [], keras.Layer.__call__

    def call(self: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        asked.append(self)
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(keras.Layer, "__call__", call)
    made = called(layer, x, **flags)
    assert asked[0] is layer
    assert made.shape == layer(x, **flags).shape


def test_under_a_distribution_keras_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, asked = layers.Dense(3), []
    monkeypatch.setattr(keras.distribution, "distribution", lambda: "some")
    monkeypatch.setattr(layers.Dense, "__call__", lambda self, x: asked.append(x))
    x = keras.Input((4,))
    called(layer, x)
    assert asked == [x]

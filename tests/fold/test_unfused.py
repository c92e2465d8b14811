"""Folds as TensorFlow's graphs run them, which fuse some sums with activations, and err."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasfold

layers, ops = keras.layers, keras.ops
pytestmark = pytest.mark.usefixtures("fresh")


@keras.saving.register_keras_serializable("unfused")
class Mish(layers.Layer):
    """An activation of one's own, as ports have it."""

    def call(self, inputs: Any) -> Any:
        """X tanh(softplus(x))."""
        return inputs * ops.tanh(ops.softplus(inputs))


def mish_by_parts(x: Any) -> Any:
    return x * ops.tanh(ops.softplus(x))


def normed(x: Any, kind: Any = layers.Conv2D) -> Any:
    x = kind(4, 3, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(
        beta_initializer=keras.initializers.RandomNormal(seed=1), name=f"norm_{x.name}"
    )(x)


def peaks(x: Any, rank: int = 2) -> Any:
    return getattr(layers, f"MaxPooling{rank}D")(3, 1, padding="same")(x)


def residual(activation: Any, kind: Any = layers.Conv2D, rank: int = 2) -> keras.Model:
    x = keras.Input((6,) * rank + (4,))
    y = layers.Add(name="total")([normed(x, kind), peaks(x, rank)])
    return keras.Model(x, activation(y))


def inline(x: Any) -> Any:
    """The sum of two convolutions, whose activation is that of a convolution after them."""
    total = layers.Add()([normed(x), normed(peaks(x))])
    return layers.Conv2D(4, 1, activation=layers.LeakyReLU(0.1))(total)


def largest_difference(model: keras.Model, folded: keras.Model) -> float:
    """Of the fold in a graph from its original called eagerly."""
    shape = (3, *model.inputs[0].shape[1:])
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    graph = tf.function(lambda x: folded(x, training=False))
    return np.abs(graph(x) - model(x, training=False)).max()


def classes(model: keras.Model) -> set[str]:
    return {type(layer).__name__ for layer in model.layers}


@pytest.mark.parametrize(
    "activation",
    [
        layers.LeakyReLU(0.3),
        layers.ReLU(negative_slope=0.01),
        layers.Activation("mish"),
        layers.Activation(mish_by_parts),
        Mish(),
        lambda x: ops.leaky_relu(x, 0.05),
        mish_by_parts,
    ],
    ids=["LeakyReLU", "ReLU", "mish", "a function", "a layer", "leaky_relu", "by parts"],
)
def test_a_sum_before_an_activation_that_graphs_get_wrong_is_a_difference(activation: Any) -> None:
    model = residual(activation)
    folded = kerasfold.fold(model, objective="layers")
    assert "Subtract" in classes(folded)
    assert folded.get_layer("total")
    assert largest_difference(model, folded) < 1e-5


@pytest.mark.parametrize(
    ("kind", "rank", "objective"),
    [(layers.Conv3D, 3, "layers"), (layers.SeparableConv2D, 2, "params")],
)
def test_so_it_is_after_every_convolution_that_is_fused(
    kind: Any, rank: int, objective: str
) -> None:
    model = residual(layers.LeakyReLU(0.3), kind, rank)
    folded = kerasfold.fold(model, objective=objective)
    assert {kind.__name__, "Subtract"} <= classes(folded)
    assert largest_difference(model, folded) < 1e-5


def test_so_it_is_before_an_activation_of_the_form_itself() -> None:
    x = keras.Input((6, 6, 4))
    model = keras.Model(x, inline(x))
    assert largest_difference(model, kerasfold.fold(model, objective="layers")) < 1e-5


@pytest.mark.parametrize(
    "activation", [layers.ReLU(), layers.LeakyReLU(0.2), layers.Activation("gelu")]
)
def test_others_stay_sums(activation: Any) -> None:
    folded = kerasfold.fold(residual(activation), objective="layers")
    assert "Add" in classes(folded)
    assert "Subtract" not in classes(folded)


def test_a_convolution_that_others_read_is_not_computed_twice() -> None:
    x = keras.Input((6, 6, 4))
    y = normed(x)
    model = keras.Model(x, [layers.LeakyReLU()(layers.Add()([y, peaks(x)])), peaks(y)])
    folded = kerasfold.fold(model, objective="layers")
    assert sum(isinstance(layer, layers.Conv2D) for layer in folded.layers) == 1


def test_layers_that_are_called_twice_stay_shared() -> None:
    a, b = keras.Input((6, 6, 4)), keras.Input((6, 6, 4))
    convolution = layers.Conv2D(4, 3, padding="same", bias_initializer="ones")
    norm, add, activation = layers.BatchNormalization(), layers.Add(), layers.LeakyReLU()
    model = keras.Model([a, b], [activation(add([norm(convolution(x)), peaks(x)])) for x in (a, b)])
    folded = kerasfold.fold(model, objective="layers")
    assert "Subtract" in classes(folded)
    assert folded.count_params() == 4 * 4 * 9 + 4


def test_the_calls_of_the_original_stay_as_they_are() -> None:
    x = keras.Input((6, 6, 4))
    convolution = layers.Conv2D(4, 3, padding="same", kernel_constraint="non_neg")
    model = keras.Model(x, layers.LeakyReLU()(layers.Add()([convolution(x), peaks(x)])))
    assert "Subtract" not in classes(kerasfold.fold(model, objective="layers"))


def test_a_fold_is_stored_and_folded_again(tmp_path: Path) -> None:
    model = residual(layers.LeakyReLU(0.3))
    folded = kerasfold.fold(model, objective="layers")
    folded.save(tmp_path / "folded.keras")
    loaded = keras.models.load_model(tmp_path / "folded.keras")
    again = kerasfold.fold(loaded, objective="layers")
    assert classes(again) == classes(folded)
    assert largest_difference(model, again) < 1e-5

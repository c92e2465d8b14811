"""Thirty small models of all kinds that people verify, each with what its inputs may be.

python benchmarks/verified.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from zoo.making import policy, randomise

L = keras.layers
Value = Any
Build = Callable[[], keras.Model]


@dataclass(frozen=True)
class Verified:
    """A model to verify.

    Attributes:
        build: makes it, with weights of Keras's own.
        policy: its dtype policy.
        rows: how many values an integer input takes, by the input's name.
    """

    build: Build
    policy: str = "float32"
    rows: dict[str, int] = field(default_factory=dict)

    def model(self) -> keras.Model:
        """The model, with weights as training leaves them, the same each time."""
        with policy(self.policy):
            keras.utils.set_random_seed(0)
            model = self.build()
        randomise(model)
        for layer in model.layers:
            TRAINED.get(layer.name, lambda _: None)(layer)
        return model


def _quiet_channel(layer: keras.Layer) -> None:
    """One channel a hundred thousandth of the others, as pruning by L1 leaves some."""
    scale = np.ones(layer.filters)
    scale[2] = 1e-5
    layer.kernel.assign(layer.kernel.numpy() * scale)
    layer.bias.assign(layer.bias.numpy() * scale)


def _improbable(layer: keras.Layer) -> None:
    """Classes that hardly ever come."""
    layer.bias.assign(layer.bias.numpy() - 18.0 * (np.arange(layer.units) % 3 == 1))


def _for_pixels(layer: keras.Layer) -> None:
    """Every unit lives for images between 0 and 1, and none for random numbers around zero."""
    kernel = np.abs(layer.kernel.numpy())
    layer.kernel.assign(kernel)
    layer.bias.assign(-0.3 * kernel.sum((0, 1, 2)))


TRAINED: dict[str, Callable[[keras.Layer], None]] = {
    "quiet": _quiet_channel,
    "improbable": _improbable,
    "pixels": _for_pixels,
}


def same(filters: int, size: Any = 3, strides: int = 1, **settings: Any) -> keras.Layer:
    """A convolution with Keras's own padding."""
    return L.Conv2D(filters, size, strides, padding="same", **settings)


def normed(x: Value, layer: keras.Layer, activation: str | None = "relu") -> Value:
    """A layer, its BatchNormalization and an activation."""
    x = L.BatchNormalization()(layer(x))
    return x if activation is None else L.Activation(activation)(x)


def chained(shape: tuple[int | None, ...], *layers: keras.Layer) -> keras.Model:
    """Layers one after another."""
    x = inputs = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def free_classifier() -> keras.Model:
    x = inputs = keras.Input((None, None, 3))
    x = normed(x, same(8, strides=2))
    x = normed(x, same(12, strides=2))
    return keras.Model(inputs, L.Dense(5, activation="softmax")(L.GlobalAveragePooling2D()(x)))


def free_denoiser() -> keras.Model:
    x = inputs = keras.Input((None, None, 3))
    x = normed(x, same(8, 5))
    x = normed(x, same(8))
    return keras.Model(inputs, L.Add()([same(3)(x), inputs]))


def free_pools() -> keras.Model:
    x = inputs = keras.Input((None, None, 3), name="photo")
    x = L.MaxPooling2D(3, 2, padding="same")(L.LeakyReLU(negative_slope=0.1)(same(6)(x)))
    x = L.AveragePooling2D(3, 2, padding="same")(same(8, activation="elu")(x))
    return keras.Model(inputs, same(4, 1, name="maps")(x))


def flattened() -> keras.Model:
    return chained(
        (12, 12, 3), same(6, activation="relu"), L.MaxPooling2D(2), same(8), L.BatchNormalization(),
        L.ReLU(), L.Flatten(), L.Dense(10, activation="relu"), L.Dense(4),
    )  # fmt: skip


def signal() -> keras.Model:
    return chained(
        (40, 3), L.Conv1D(8, 5, padding="causal", activation="tanh"),
        L.Conv1D(8, 3, padding="causal", dilation_rate=2), L.LeakyReLU(negative_slope=0.3),
        L.MaxPooling1D(2), L.GlobalMaxPooling1D(), L.Dense(1, activation="sigmoid"),
    )  # fmt: skip


def volume() -> keras.Model:
    x = inputs = keras.Input((8, 8, 8, 1))
    x = normed(x, L.Conv3D(4, 3, padding="same"))
    x = L.Conv3D(6, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling3D()(x)))


def perceptron() -> keras.Model:
    return chained(
        (16,), L.Dense(24, activation="gelu"), L.BatchNormalization(), L.Dense(24), L.ELU(),
        L.Dropout(0.3), L.LayerNormalization(), L.Dense(2),
    )  # fmt: skip


def text() -> keras.Model:
    words = keras.Input((9,), dtype="int32", name="words")
    x = L.LSTM(8)(L.Embedding(50, 6, mask_zero=True)(words))
    return keras.Model(words, L.Dense(1, activation="sigmoid")(x))


def two_vocabularies() -> keras.Model:
    day = keras.Input((1,), dtype="int32", name="day")
    item = keras.Input((1,), dtype="int32", name="item")
    x = L.Concatenate()(
        [L.Flatten()(L.Embedding(7, 3)(day)), L.Flatten()(L.Embedding(900, 8)(item))]
    )
    return keras.Model([day, item], L.Dense(1)(L.Dense(12, activation="relu")(x)))


def one_hot() -> keras.Model:
    symbols = keras.Input((6,), dtype="int32", name="symbols")
    x = L.Conv1D(8, 3, activation="relu")(ops.one_hot(symbols, 20))
    return keras.Model(symbols, L.Dense(3)(L.Flatten()(x)))


def categories() -> keras.Model:
    tags = keras.Input((4,), dtype="int32", name="tags")
    x = L.CategoryEncoding(num_tokens=15, output_mode="multi_hot")(tags)
    return keras.Model(tags, L.Dense(2)(L.Dense(8, activation="relu")(x)))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((8, 8, 6)), same(6), L.BatchNormalization(), L.ReLU()])
    image = keras.Input((8, 8, 3))
    backbone = keras.Model(image, inner(same(6, activation="relu")(image)), name="backbone")
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(backbone(inputs))))


def dictionary() -> keras.Model:
    image = keras.Input((10, 10, 3), name="image")
    age = keras.Input((2,), name="age")
    x = L.GlobalAveragePooling2D()(normed(image, same(8)))
    x = L.Concatenate()([x, L.Dense(4, activation="relu")(age)])
    outputs = {"kind": L.Dense(5, activation="softmax", name="kind")(x), "box": L.Dense(4)(x)}
    return keras.Model({"image": image, "age": age}, outputs)


def permuted() -> keras.Model:
    return chained((9, 9, 3), same(6, activation="relu"), same(5), L.Permute((3, 1, 2)))


def quiet_channel() -> keras.Model:
    return chained((10, 10, 3), same(6, activation="relu"), same(5, name="quiet"))


def improbable_class() -> keras.Model:
    return chained(
        (10, 10, 3), same(6, strides=2, activation="relu"), L.GlobalAveragePooling2D(),
        L.Dense(6, name="improbable"), L.Softmax(),
    )  # fmt: skip


def labels() -> keras.Model:
    return chained(
        (16,), L.Dense(12, activation="silu"), L.Dense(7, activation="sigmoid", name="improbable")
    )


def pixels() -> keras.Model:
    return chained(
        (12, 12, 3), L.Rescaling(1 / 255), L.Conv2D(8, 3, activation="relu", name="pixels"),
        same(8, activation="relu"), L.GlobalMaxPooling2D(), L.Dense(3),
    )  # fmt: skip


def inverted_residual() -> keras.Model:
    x = inputs = keras.Input((12, 12, 3))
    x = L.Normalization(mean=[120.0, 110.0, 100.0], variance=[3000.0, 3100.0, 3200.0])(x)
    x = normed(x, same(6), "relu6")
    y = normed(normed(x, same(18, 1), "relu6"), L.DepthwiseConv2D(3, padding="same"), "relu6")
    x = L.Add()([x, normed(y, same(6, 1), None)])
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(x)))


def recurrent() -> keras.Model:
    return chained(
        (10, 4), L.Bidirectional(L.GRU(5, return_sequences=True)), L.SimpleRNN(6), L.Dense(2)
    )


def attention() -> keras.Model:
    x = inputs = keras.Input((7, 8))
    y = L.LayerNormalization(epsilon=1e-6)(x)
    x = L.Add()([x, L.MultiHeadAttention(2, 4)(y, y)])
    y = L.Dense(16, activation="gelu")(L.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(inputs, L.Add()([x, L.Dense(8)(y)]))


def u_net() -> keras.Model:
    inputs = keras.Input((16, 16, 2))
    top = normed(inputs, same(6))
    low = normed(L.MaxPooling2D(2)(top), same(6))
    x = L.Concatenate()([L.UpSampling2D(2, interpolation="bilinear")(low), top])
    return keras.Model(inputs, L.Conv2D(3, 1, activation="softmax")(normed(x, same(6))))


def rep_vgg() -> keras.Model:
    x = inputs = keras.Input((None, None, 4))
    for _ in range(3):
        x = L.ReLU()(
            L.Add()(
                [
                    normed(x, same(4, use_bias=False), None),
                    normed(x, same(4, 1, use_bias=False), None),
                    L.BatchNormalization()(x),
                ]
            )
        )
    return keras.Model(inputs, x)


def grouped() -> keras.Model:
    x = inputs = keras.Input((10, 10, 6))
    x = normed(x, same(12, groups=3))
    x = L.Permute((1, 2, 4, 3))(L.Reshape((10, 10, 3, 4))(x))
    x = L.DepthwiseConv2D(3, 2, padding="same")(L.Reshape((10, 10, 12))(x))
    x = L.SeparableConv2D(8, 3, padding="same", activation="hard_swish")(x)
    return keras.Model(inputs, x)


def dilated() -> keras.Model:
    x = inputs = keras.Input((14, 14, 3))
    x = same(6, activation="relu")(x)
    x = L.Concatenate()([same(4, dilation_rate=rate, activation="relu")(x) for rate in (1, 2, 3)])
    return keras.Model(inputs, same(3, 1)(x))


def generator() -> keras.Model:
    return chained(
        (8,), L.Dense(4 * 4 * 6), L.Reshape((4, 4, 6)), L.BatchNormalization(), L.ReLU(),
        L.Conv2DTranspose(6, 4, 2, padding="same", activation="relu"),
        L.Conv2DTranspose(3, 3, 2, padding="same", activation="tanh"),
    )  # fmt: skip


def inception() -> keras.Model:
    inputs = keras.Input((11, 11, 4))
    x = same(6, activation="relu")(inputs)
    x = L.Concatenate()(
        [
            same(4, 1, activation="relu")(x),
            same(4, (1, 7), activation="relu")(x),
            same(4, 1)(L.AveragePooling2D(3, 1, padding="same")(x)),
            L.MaxPooling2D(3, 1, padding="same")(x),
        ]
    )
    return keras.Model(inputs, L.Dense(5, activation="softmax")(L.GlobalAveragePooling2D()(x)))


def excited() -> keras.Model:
    left, right = keras.Input((8, 8, 4), name="left"), keras.Input((8, 8, 4), name="right")
    x = L.PReLU(shared_axes=(1, 2))(same(4)(L.Subtract()([left, right])))
    gate = L.Dense(4, activation="sigmoid")(
        L.Dense(2, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(x))
    )
    x = L.Maximum()([L.Multiply()([x, gate]), L.Average()([left, right])])
    return keras.Model([left, right], L.Cropping2D(((1, 0), (0, 1)))(L.ZeroPadding2D(1)(x)))


def siamese() -> keras.Model:
    branch = chained((10, 10, 1), same(4, activation="relu"), L.Flatten(), L.Dense(6))
    one, two = keras.Input((10, 10, 1), name="one"), keras.Input((10, 10, 1), name="two")
    pair = [branch(one), branch(two)]
    return keras.Model([one, two], [L.Dot(-1)(pair), L.Subtract(name="change")(pair)])


MODELS: dict[str, Verified] = {
    "free classifier": Verified(free_classifier),
    "free denoiser": Verified(free_denoiser),
    "free pools": Verified(free_pools),
    "flattened": Verified(flattened),
    "signal": Verified(signal),
    "volume": Verified(volume),
    "perceptron": Verified(perceptron),
    "text": Verified(text, rows={"words": 50}),
    "two vocabularies": Verified(two_vocabularies, rows={"day": 7, "item": 900}),
    "one-hot": Verified(one_hot, rows={"symbols": 20}),
    "categories": Verified(categories, rows={"tags": 15}),
    "nested": Verified(nested),
    "dictionary": Verified(dictionary),
    "permuted": Verified(permuted),
    "quiet channel": Verified(quiet_channel),
    "improbable class": Verified(improbable_class),
    "labels": Verified(labels),
    "pixels": Verified(pixels),
    "inverted residual": Verified(inverted_residual),
    "recurrent": Verified(recurrent),
    "attention": Verified(attention),
    "U-Net": Verified(u_net),
    "RepVGG": Verified(rep_vgg),
    "grouped": Verified(grouped),
    "dilated": Verified(dilated),
    "generator": Verified(generator),
    "inception": Verified(inception),
    "excited": Verified(excited),
    "siamese": Verified(siamese),
    "mixed float16": Verified(free_classifier, "mixed_float16"),
    "mixed bfloat16": Verified(flattened, "mixed_bfloat16"),
    "float64": Verified(u_net, "float64"),
}


if __name__ == "__main__":
    for name, entry in MODELS.items():
        model = entry.model()
        print(f"{name}: {len(model.layers)} layers, {model.count_params()} parameters")

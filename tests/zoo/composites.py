"""Layers made of others, as model zoos write them, and nested models in every way to call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops


class ConvNorm(layers.Layer):
    """A convolution, its BatchNormalization and an activation, as keras-hub's CBA blocks."""

    def __init__(self, filters: int, activation: str = "relu", **options: Any) -> None:
        super().__init__(**options)
        self.conv = layers.Conv2D(filters, 3, padding="same", use_bias=False, name="conv")
        self.norm = layers.BatchNormalization(name="norm")
        self.act = layers.Activation(activation, name="act")

    def build(self, shape: Any) -> None:
        self.conv.build(shape)
        self.norm.build((*shape[:-1], self.conv.filters))
        super().build(shape)

    def compute_output_shape(self, shape: Any) -> Any:
        return self.conv.compute_output_shape(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.act(self.norm(self.conv(x), training=training))


class Residual(layers.Layer):
    """A block of blocks, with a sum that no layer makes."""

    def __init__(self, filters: int, depth: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.blocks = [ConvNorm(filters, name=f"block{i}") for i in range(depth)]
        self.last = layers.Conv2D(filters, 1, name="last")
        self.norm = layers.BatchNormalization(name="norm")
        self.drop = layers.Dropout(0.5)

    def call(self, x: Any) -> Any:
        y = x
        for block in self.blocks:
            y = block(y)
        return x + self.drop(self.norm(self.last(y)))


class CrossStage(layers.Layer):
    """Channels that part, one way through blocks, and meet again: as in CSP nets."""

    def __init__(self, filters: int, **options: Any) -> None:
        super().__init__(**options)
        self.filters = filters

    def build(self, shape: Any) -> None:
        half = self.filters // 2
        self.left, self.right = ConvNorm(half, name="left"), ConvNorm(half, name="right")
        self.out = ConvNorm(self.filters, "linear", name="out")
        for part in (self.left, self.right):
            part.build((*shape[:-1], shape[-1] // 2))
        self.out.build((*shape[:-1], 2 * half))
        super().build(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        a, b = ops.split(x, 2, axis=-1)
        a, b = self.left(a, training=training), self.right(b, training=training)
        return self.out(ops.concatenate([a, b], axis=-1), training=training)


class Branches(keras.Model):
    """A subclassed model with two inputs and a dict of outputs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.a, self.b = layers.Conv2D(4, 3, padding="same"), layers.Conv2D(4, 1)
        self.norm = layers.BatchNormalization()

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        y = self.norm(self.a(inputs["x"]) + self.b(inputs["y"]), training=training)
        return {"sum": y, "mean": ops.mean(y, axis=(1, 2))}


class Scaled(layers.Layer):
    """A branch that was built for padded images, and is called on others: as in kimm."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pad = layers.ZeroPadding2D(1)
        self.wide, self.narrow = (
            keras.Sequential([layers.Conv2D(4, n, strides=2), layers.BatchNormalization()])
            for n in (3, 1)
        )

    def build(self, shape: Any) -> None:
        for branch in (self.wide, self.narrow):
            branch.build(self.pad.compute_output_shape(shape))
        super().build(shape)

    def call(self, x: Any) -> Any:
        return layers.Add()([self.wide(self.pad(x)), self.narrow(x)])


class Around(layers.Layer):
    """A convolution and its BatchNormalization, with something done before it."""

    def __init__(self, before: Callable[[Any], Any] = lambda x: x, **options: Any) -> None:
        super().__init__(**options)
        self.before = before
        self.conv = layers.Conv2D(4, 1, name="conv")
        self.norm = layers.BatchNormalization(name="norm")

    def call(self, x: Any) -> Any:
        return self.norm(self.conv(self.before(x)))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], 4)


class Weighted(layers.Layer):
    """A convolution and a weight of its own."""

    def __init__(self, filters: int, size: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.conv = layers.Conv2D(filters, size, padding="same")

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(), name="gain")
        self.conv.build(shape)
        super().build(shape)

    def call(self, x: Any) -> Any:
        return self.gain * self.conv(x)


class Forgetful(Weighted):
    """Its config says another size than it was made with."""

    def get_config(self) -> dict[str, Any]:
        return {**layers.Layer.get_config(self), "filters": 4, "size": 5}


class Remembering(Around):
    """It notes what it was called on."""

    def call(self, x: Any) -> Any:
        self.last = x
        return super().call(x)


class Counting(Around):
    """It computes with how often it was called."""

    count = 0

    def call(self, x: Any) -> Any:
        self.count = self.count + 1
        return super().call(x * self.count)


def backbone(size: int | None = 8, structure: Callable[[Any], Any] = lambda x: x) -> keras.Model:
    """A convolution and its BatchNormalization as a model, its input in some structure."""
    x = keras.Input((size, size, 4), name="image")
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(x))
    return keras.Model(structure(x), y, name="backbone")


def image() -> Any:
    """An input."""
    return keras.Input((8, 8, 4))


def on_image(layer: Callable[[Any], Any]) -> keras.Model:
    """A model of one call."""
    x = image()
    return keras.Model(x, layer(x))


def _of_two(call: Callable[[Any, Any], Any]) -> keras.Model:
    x, y = image(), image()
    return keras.Model([x, y], call(x, y))


def _summed() -> keras.Model:
    x, y = keras.Input((8, 8, 4), name="x"), keras.Input((8, 8, 4), name="y")
    z = layers.BatchNormalization()(layers.Conv2D(3, 1)(layers.Add()([x, y])))
    return keras.Model([x, y], z, name="summed")


def _siamese(base: Any) -> keras.Model:
    return _of_two(lambda x, y: layers.Subtract()([base(x), base(y)]))


def _frames(layer: Any) -> keras.Model:
    x = keras.Input((3, 8, 8, 4))
    return keras.Model(x, layers.TimeDistributed(layer, name="frames")(x))


def _rebuilt(base: keras.Model) -> keras.Model:
    return keras.Model(base.inputs, base.outputs[0], name="rebuilt")


# Every BatchNormalization in them is to go.
NESTED: dict[str, Callable[[], keras.Model]] = {
    "inputs of a list": lambda: on_image(_rebuilt(backbone())),
    "called on a list": lambda: on_image(lambda x: backbone()([x])),
    "called by keyword": lambda: on_image(lambda x: backbone()(inputs=x)),
    "a dict of one": lambda: on_image(
        lambda x: backbone(structure=lambda t: {"image": t})({"image": x})
    ),
    "a dict of one, on a tensor": lambda: on_image(backbone(structure=lambda t: {"image": t})),
    "a dict for a list": lambda: _of_two(lambda x, y: _summed()({"x": x, "y": y})),
    "a tuple for a list": lambda: _of_two(lambda x, y: _summed()((x, y))),
    "another dtype": lambda: keras.Model(
        x := keras.Input((8, 8, 4), dtype="float16"), backbone()(x)
    ),
    "another size": lambda: on_image(backbone(None)),
    "nested in a list, twice": lambda: on_image(_rebuilt(on_image(_rebuilt(backbone(None))))),
    "siamese": lambda: _siamese(backbone()),
    "siamese of a list": lambda: _siamese(_rebuilt(backbone(None))),
    "each step": lambda: _frames(backbone()),
    "each step of a list": lambda: _frames(_rebuilt(backbone())),
}

COMPOSITES: dict[str, Callable[[], keras.Model]] = {
    "block": lambda: on_image(ConvNorm(4, name="block")),
    "block of blocks": lambda: on_image(Residual(4, name="block")),
    "cross stage": lambda: on_image(CrossStage(4, name="block")),
    "twice": lambda: on_image(lambda x: (block := ConvNorm(4, name="block"))(block(x))),
    "subclassed model": lambda: _of_two(lambda x, y: Branches(name="block")({"x": x, "y": y})),
    "siamese": lambda: _siamese(ConvNorm(4, name="block")),
    "each step": lambda: _frames(ConvNorm(4, name="block")),
    "constants": lambda: on_image(
        Around(lambda x: x * np.float32(0.5) + ops.arange(4, dtype="float32"), name="block")
    ),
    "random at training": lambda: on_image(Around(layers.RandomFlip(), name="block")),
    "called on float16": lambda: keras.Model(
        x := keras.Input((8, 8, 4), dtype="float16"), Residual(4, name="block")(x)
    ),
    "in a nested model": lambda: on_image(on_image(Residual(4, name="block"))),
    "built for another size": lambda: on_image(Scaled(name="block")),
    "layers made in the call": lambda: on_image(
        Around(lambda x: layers.Add()([x, layers.ReLU()(x)]), name="block")
    ),
    "the size of the batch": lambda: on_image(
        Around(lambda x: ops.reshape(x, (ops.shape(x)[0], 8, 4, 8))[..., :4], name="block")
    ),
    "the rest of the batch": lambda: on_image(
        Around(lambda x: ops.reshape(x, (ops.shape(x)[0], 8, -1, 4)), name="block")
    ),
    "no config": lambda: on_image(Around(lambda x: ops.flip(x, axis=1), name="block")),
}


def _own_weight() -> keras.Model:
    return on_image(Weighted(4, name="block"))


# What stays one layer, with words of the reason.
CLOSED: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "a weight of its own": (_own_weight, "weights of its own"),
    "a weight of a part": (
        lambda: on_image(_reading_weights()),
        "weights of the layers inside it",
    ),
    "other constants": (
        lambda: on_image(
            Around(lambda x: x * np.float32(np.random.default_rng().uniform()), name="block")
        ),
        "other constants in every call",
    ),
    "a random draw": (
        lambda: on_image(Around(lambda x: x + keras.random.normal((4,)), name="block")),
        "changes its state",
    ),
    "a count": (lambda: on_image(Counting(name="block")), "counts its calls"),
    "a function": (
        lambda: on_image(
            Around(lambda x: ops.cond(ops.sum(x) > 0, lambda: 2 * x, lambda: -x), name="block")
        ),
        "gives a function to Cond",
    ),
    "a function of its input": (
        lambda: on_image(
            Around(lambda x: ops.cond(ops.sum(x) > 0, lambda: x, lambda: -x), name="block")
        ),
        "gives back a tensor",
    ),
    "values": (
        lambda: on_image(Around(tf.nn.relu, name="block")),
        "symbolic",
    ),
    "two unknown sizes": (
        lambda: keras.Model(
            x := keras.Input((None, 8, 4)),
            Around(
                lambda x: ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1], 4, 8)), name="block"
            )(x),
        ),
        "unknown size to Reshape",
    ),
    "training of a part": (
        lambda: on_image(_training(Around(name="block"))),
        "'norm' with training=True",
    ),
    "a layer it does not hold": (
        lambda: on_image(Around(_elsewhere(layers.Dense(4, name="far")), name="block")),
        "'far'",
    ),
}


def _elsewhere(layer: Any) -> Callable[[Any], Any]:
    return lambda x: layer(x)


def _training(block: Around) -> Any:
    norm = block.norm
    block.before = lambda x: norm(x, training=True)
    return block


def _reading_weights() -> Any:
    block = Around(name="block")
    block.before = lambda x: x * block.conv.bias if block.conv.built else x
    return block

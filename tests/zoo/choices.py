"""Small models of which each can be computed in several ways."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

from kerasfold.compose import exact
from kerasfold.emit import emit
from kerasfold.forms.form import AnyForm
from kerasfold.lift.regions import Regions
from zoo.blocks import conv, repvgg, same
from zoo.making import randomise


def stack(*own: keras.layers.Layer, shape: tuple[int, ...] = (12, 12, 3)) -> keras.Model:
    return randomise(keras.Sequential([keras.Input(shape), *own], name="stack"))


def one_block() -> keras.Model:
    x = keras.Input((9, 9, 4))
    return randomise(keras.Model(x, layers.ReLU()(repvgg()(x))))


def two_branches() -> keras.Model:
    """Activations between, so that there are several components."""
    x = keras.Input((12, 12, 3))
    left = conv(4)(layers.ReLU()(conv(8, 1)(conv(8)(x))))
    right = conv(4, 1)(layers.AveragePooling2D(3, 1)(layers.Activation("tanh")(conv(5)(x))))
    return randomise(keras.Model(x, [layers.Add()([left, right]), right]))


def inline() -> keras.Model:
    return stack(conv(6, 1), conv(4, activation="relu"), conv(8), conv(3, 1, activation="tanh"))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((12, 12, 3)), conv(5), layers.Dropout(0.5), conv(3, 1)])
    x = keras.Input((12, 12, 3))
    return randomise(keras.Model(x, layers.AveragePooling2D(2)(conv(4, 1)(inner(x)))))


def shared() -> keras.Model:
    """One layer in two places, with something to merge behind each."""
    x = keras.Input((12, 12, 3))
    layer, after = same(3), conv(2, 1)
    y, z = layers.ReLU()(layer(x)), layers.Activation("tanh")(x)
    return randomise(keras.Model(x, [after(layer(y)), layers.AveragePooling2D(2)(layer(z))]))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "3x3-pool-3x3": lambda: stack(conv(4), layers.AveragePooling2D(2), conv(4)),
    "expand": lambda: stack(conv(12, 1), conv(12), conv(4, 1)),
    "same on same": lambda: stack(same(8), same(4)),
    "pool-1x1": lambda: stack(layers.AveragePooling2D(3, 1), conv(6, 1)),
    "repvgg": one_block,
    "two branches": two_branches,
    "inline": inline,
    "nested": nested,
    "shared": shared,
}


def blocks(count: int, last: str = "relu") -> keras.Model:
    own = []
    for i in range(count):
        end = layers.Activation(last if i == count - 1 else "relu")
        own += [same(6), conv(3, 1), end]
    return stack(*own)


def emitted(regions: Regions, forms: dict[int, AnyForm]) -> keras.Model:
    return emit(regions, dict(sorted(forms.items())), exact(regions)).model

"""Models that compute the same: random graphs for folding, rewrites, and models hard to judge.

A rewrite is what people do by hand: it gives changes of layers, by their `id`, for `remade`.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
from faults import Change, Layer, again, in_a_row, leaves, remade
from hypothesis import HealthCheck, Phase, given, seed, settings
from keras import ops
from verified import MODELS

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from laws.random_graphs import Recipe, build, recipes

L = keras.layers
Changes: TypeAlias = dict[int, Change]

POLICIES = ("float32", "float64", "mixed_float16", "mixed_bfloat16")
BLOCK = 100  # random graphs that are drawn together
CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D)
LINEAR = (*CONVOLUTIONS, L.Dense)
PER_CHANNEL = (L.ReLU, L.LeakyReLU, L.ELU, L.Dropout, L.BatchNormalization)


@functools.lru_cache(maxsize=2)
def _recipes(block: int) -> tuple[Recipe, ...]:
    drawn: list[Recipe] = []

    @seed(block)
    @settings(
        max_examples=BLOCK, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(recipes())
    def draw(recipe: Recipe) -> None:
        drawn.append(recipe)

    draw()
    return tuple(drawn)


def random_model(number: int) -> keras.Model:
    """A random graph with random weights, in one of the dtype policies in turn."""
    drawn = _recipes(number // BLOCK)
    return build(drawn[number % BLOCK % len(drawn)], POLICIES[number % len(POLICIES)])


# Rewrites. A layer that is called more than once, or not at all, has no one input.


def _as_model(layer: Layer, call: Callable[[Any], Any]) -> keras.Model:
    """A model in the place of a layer."""
    inputs = keras.Input(batch_shape=layer.input.shape, dtype=layer.input.dtype)
    return keras.Model(inputs, call(inputs), name=layer.name)


def _with_weights(layer: Layer, shape: Any, *weights: np.ndarray) -> Layer:
    """A new layer, built, with weights."""
    layer.build(shape)
    layer.set_weights(weights)
    return layer


def _width(layer: Layer) -> str:
    return "units" if isinstance(layer, L.Dense) else "filters"


def _called_once(layer: Layer) -> bool:
    return len(layer._inbound_nodes) == 1


def _next(layer: Layer) -> Layer | None:
    """The only layer that reads what a layer gives."""
    readers = [node.operation for node in layer._outbound_nodes]
    alone = len(readers) == 1 and _called_once(layer) and isinstance(readers[0], L.Layer)
    return readers[0] if alone and _called_once(readers[0]) else None


def _linear(model: keras.Model) -> Iterator[Layer]:
    """Convolutions in one group and Dense layers, called once, of more than one channel."""
    for layer in leaves(model):
        if isinstance(layer, LINEAR) and _called_once(layer) and getattr(layer, "groups", 1) == 1:
            yield layer


def copied(model: keras.Model) -> Changes:
    """Nothing changes."""
    return {}


def renamed(model: keras.Model) -> Changes:
    """Layers that Keras named get the names that it counts next."""

    def is_counted(layer: Layer) -> bool:
        snake = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", type(layer).__name__).lower()
        return re.fullmatch(rf"{snake}(_\d+)?", layer.name) is not None

    return {
        id(layer): lambda old: again(old, name=None) for layer in leaves(model) if is_counted(layer)
    }


def split(model: keras.Model) -> Changes:
    """A convolution or Dense layer becomes two, of half the channels each."""

    def change(layer: Layer) -> Layer:
        kernel, *bias = layer.get_weights()
        half = kernel.shape[-1] // 2

        def call(x: Any) -> Any:
            parts = [
                _with_weights(
                    again(layer, name=None, **{_width(layer): part.stop - part.start}),
                    x.shape,
                    *(w[..., part] for w in (kernel, *bias)),
                )
                for part in (slice(0, half), slice(half, kernel.shape[-1]))
            ]
            return L.Concatenate(dtype=layer.dtype_policy)([part(x) for part in parts])

        return _as_model(layer, call)

    return {id(x): change for x in _linear(model) if x.kernel.shape[-1] > 1 and _is_per_channel(x)}


def widened(model: keras.Model) -> Changes:
    """A layer gets two more channels, of zeros, that nothing reads."""

    def change(layer: Layer) -> Layer:
        weights = [np.pad(w, [(0, 0)] * (w.ndim - 1) + [(0, 2)]) for w in layer.get_weights()]
        count = layer.kernel.shape[-1]
        wide = again(layer, name=None, **{_width(layer): count + 2})
        return _as_model(layer, lambda x: _with_weights(wide, x.shape, *weights)(x)[..., :count])

    return {id(layer): change for layer in _linear(model) if _is_per_channel(layer)}


def _is_per_channel(layer: Layer) -> bool:
    return layer.activation is not keras.activations.softmax


def by_hand(model: keras.Model) -> Changes:
    """A BatchNormalization goes into the layer before it, in float32."""
    changes: Changes = {}
    for layer in leaves(model):
        norm = _next(layer)
        if (
            isinstance(norm, L.BatchNormalization)
            and isinstance(layer, (*LINEAR, L.DepthwiseConv2D))
            and layer.activation is keras.activations.linear
            and norm.axis in (-1, len(layer.output.shape) - 1)
        ):
            changes[id(layer)] = functools.partial(_normalised, norm)
            changes[id(norm)] = lambda old: in_a_row(
                old.name, L.Activation("linear", dtype=old.dtype_policy)
            )
    return changes


def _normalised(norm: Layer, layer: Layer) -> Layer:
    kernel, *bias = layer.get_weights()
    gamma, beta, mean, variance = norm.get_weights()
    scale = gamma / np.sqrt(variance + norm.epsilon)
    shift = (bias[0] if bias else 0.0) - mean
    shape = kernel.shape[-2:] if isinstance(layer, L.DepthwiseConv2D) else kernel.shape[-1:]
    return _with_weights(
        again(layer, use_bias=True),
        layer.input.shape,
        kernel * scale.reshape(shape),
        shift * scale + beta,
    )


def reordered(model: keras.Model) -> Changes:
    """The channels between two layers in another order."""
    changes: Changes = {}
    for first in _linear(model):
        if id(first) in changes or not _is_per_channel(first):
            continue
        between: list[Layer] = []
        layer = _next(first)
        while isinstance(layer, PER_CHANNEL):
            between.append(layer)
            layer = _next(layer)
        if not isinstance(layer, LINEAR) or getattr(layer, "groups", 1) > 1:
            continue
        order = np.random.default_rng(0).permutation(first.kernel.shape[-1])
        changes[id(first)] = functools.partial(_permuted, order, -1)
        changes |= {id(x): functools.partial(_permuted, order, -1) for x in between}
        changes[id(layer)] = functools.partial(_permuted, order, -2)
    return changes


def _permuted(order: np.ndarray, axis: int, layer: Layer) -> Layer:
    """A layer with its channels, of one side, in another order."""
    if not layer.weights:
        return again(layer)
    weights = [
        np.take(w, order, axis) if axis == -1 or w.ndim > 1 else w for w in layer.get_weights()
    ]
    return _with_weights(again(layer), layer.input.shape, *weights)


REWRITES: dict[str, Callable[[keras.Model], Changes]] = {
    "clone": copied,
    "renamed": renamed,
    "BatchNormalization by hand": by_hand,
    "split": split,
    "widened": widened,
    "reordered": reordered,
}


def rewritten(number: int) -> Iterator[tuple[str, str, keras.Model, keras.Model]]:
    """Every rewrite of a model, or of a random graph, that changes it: kind, name, both models."""
    names = list(MODELS)
    is_random = number >= len(names)
    name = f"random {number}" if is_random else names[number]
    for kind, rewrite in REWRITES.items():
        model = random_model(number) if is_random else MODELS[name].model()
        changes = rewrite(model)
        if changes or kind == "clone":
            yield kind, name, model, remade(model, changes)


# Models whose outputs say little of themselves, or that are easily harmed by looking.


def as_built() -> keras.Model:
    """A hundred convolutions, BatchNormalizations and ReLUs, untrained."""
    x = inputs = keras.Input((8, 8, 3))
    for _ in range(100):
        x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x)))
    return keras.Model(inputs, x)


def saturated() -> keras.Model:
    """A softmax that is sure, but of two classes that are all but one."""
    x = inputs = keras.Input((16,))
    x = L.BatchNormalization()(L.Dense(32, activation="relu")(x))
    logits = L.Dense(5, kernel_initializer=_LARGE)(x)
    nearly = L.Rescaling(1 + 1e-6)(logits)
    return keras.Model(inputs, L.Softmax()(L.Concatenate()([logits, nearly])))


def underflowing() -> keras.Model:
    """The logarithm of what underflows."""
    x = inputs = keras.Input((16,))
    x = L.Dense(8, kernel_initializer=_LARGE)(L.BatchNormalization()(L.Dense(32)(x)))
    return keras.Model(inputs, ops.log(ops.sigmoid(x)))


def stateful() -> keras.Model:
    """Recurrent, its state kept from batch to batch."""
    inputs = keras.Input(batch_shape=(2, 5, 3))
    x = L.LSTM(6, stateful=True)(L.BatchNormalization()(L.Conv1D(4, 1)(inputs)))
    return keras.Model(inputs, L.Dense(2)(x))


def around_float32() -> keras.Model:
    """In float64, around a model that takes float32."""
    inner = keras.Input((8, 8, 3), dtype="float32")
    y = L.BatchNormalization(dtype="float64")(L.Conv2D(4, 3, dtype="float64")(inner))
    nested = keras.Model(inner, y)
    inputs = keras.Input((8, 8, 3), dtype="float64")
    x = L.Conv2D(3, 3, padding="same", dtype="float64")(inputs)
    return keras.Model(inputs, L.Conv2D(2, 1, dtype="float64")(nested(x)))


_LARGE = keras.initializers.RandomNormal(0, 30, seed=1)
HARD: dict[str, Callable[[], keras.Model]] = {
    make.__name__.replace("_", " "): make
    for make in (as_built, saturated, underflowing, stateful, around_float32)
}


def hard_model(name: str) -> keras.Model:
    """A model that is hard to judge, as Keras makes it."""
    keras.utils.set_random_seed(0)
    return HARD[name]()

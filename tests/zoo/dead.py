"""Models some of whose channels are dead: filters, gammas or slopes of zero."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras
import numpy as np

DEAD = 1 / 3  # of the channels


def kill(layer: Any, channels: Collection[int], to: float = 0.0) -> None:
    """Set the gammas of a BatchNormalization, or all weights of filters, to a number."""
    weight = layer.gamma if hasattr(layer, "gamma") else layer.kernel
    values = keras.ops.convert_to_numpy(weight).copy()
    values[..., list(channels)] = to
    weight.assign(values)


def some_dead(
    model: keras.Model, kinds: Any = (), seed: int = 0, share: float = DEAD
) -> keras.Model:
    """A model of which a random share of the channels of some layers is dead.

    Args:
        model: the model; it is changed.
        kinds: of layers whose channels die: BatchNormalizations, if none are named.
        seed: which channels.
        share: of them, at least one of each layer.
    """
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, kinds or keras.layers.BatchNormalization):
            count = layer.output.shape[-1]
            kill(layer, rng.permutation(count)[: max(1, int(share * count))])
    return model


def widths(model: keras.Model) -> list[int]:
    """The channels that each layer with a kernel gives, in order."""
    layers = (layer for layer in model.layers if hasattr(layer, "kernel"))
    return [layer.output.shape[-1] for layer in layers]

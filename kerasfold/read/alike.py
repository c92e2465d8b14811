"""Layers to be read and copied, and not to be run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasfold.backend import unstored
from kerasfold.read.weights import start_as


def alike_but(
    layer: Any, settings: Mapping[str, Any], weights: Mapping[str, np.ndarray]
) -> keras.Layer:
    """A layer with all attributes of another, but for some settings and weights.

    To have Keras make one takes fifty times as long, for tracking what nobody asks for.

    Args:
        layer: the other, of Keras's own; it is not touched.
        settings: the values of attributes that are otherwise.
        weights: the values of weights, by the attribute that each is.
    """
    with unstored():
        others = {
            id(old): keras.Variable(
                start_as(values), values.shape, old.dtype, old.trainable, name=old.name
            )
            for old, values in ((getattr(layer, name), w) for name, w in weights.items())
        }

    def own(value: Any) -> Any:
        if isinstance(value, list) and any(id(x) in others for x in value):
            return [others.get(id(x), x) for x in value]
        return others.get(id(value), value)

    made = object.__new__(type(layer))
    for name, value in vars(layer).items():
        if not callable(getattr(type(layer), name, None)):  # else a method that is bound to it
            vars(made)[name] = own(value)
    vars(made).update(settings, _auto_config=None)  # that is what the other was made with
    return made

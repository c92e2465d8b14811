"""Layers to be read and copied, and not to be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasfold.backend import unstored
from kerasfold.read.weights import start_as, start_exactly_as


def alike_but(
    layer: Any,
    settings: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    inner: Sequence[tuple[keras.Layer, keras.Layer]] = (),
    exact: bool = False,
) -> keras.Layer:
    """A layer with all attributes of another, but for some settings, weights and layers inside it.

    To have Keras make one takes fifty times as long, for tracking what nobody asks for.

    Args:
        layer: the other, of Keras's own; it is not touched.
        settings: the values of attributes that are otherwise, by their public names.
        weights: the values of weights, by the attribute that each is; one of which the layer has
            none is like the first that it has, and goes behind those that go with that.
        inner: of layers inside it, what stands for each.
        exact: whether weights are in float64, to be rounded to its dtype by what copies it.
    """
    had = {name: getattr(layer, name) for name in weights}
    like = next((old for old in had.values() if old is not None), None)
    others: dict[int, Any] = {id(old): new for old, new in inner}
    more: dict[str, keras.Variable] = {}
    with unstored():
        for name, values in weights.items():
            is_new = had[name] is None
            old: Any = like if is_new else had[name]
            start = start_exactly_as(values) if exact else start_as(values)
            dtype, called = "float64" if exact else old.dtype, name if is_new else old.name
            new = keras.Variable(start, values.shape, dtype, old.trainable, name=called)
            if is_new:
                more[name] = new
            else:
                others[id(old)] = new

    def own(value: Any) -> Any:
        if isinstance(value, list) and any(id(x) in others for x in value):
            added = more.values() if any(x is like for x in value) else ()
            return [*(others.get(id(x), x) for x in value), *added]
        return others.get(id(value), value)

    made = object.__new__(type(layer))
    for name, value in vars(layer).items():
        if not callable(getattr(type(layer), name, None)):  # else a method that is bound to it
            vars(made)[name] = own(value)
    vars(made).update(more, _auto_config=None)  # that is what the other was made with
    for name, value in settings.items():
        vars(made)[name if name in vars(made) else f"_{name}"] = value
    return made

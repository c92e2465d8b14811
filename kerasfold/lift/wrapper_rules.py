"""Lift rules of layers around another: what that does, as the wrapper calls it."""

from __future__ import annotations

from typing import Any

import keras

from kerasfold.algebra.axis import Refused
from kerasfold.lift import layer_rules
from kerasfold.lift.operands import require_layout
from kerasfold.lift.registry import RULES, Rule, lifts, unruled
from kerasfold.lift.signal import Signal
from kerasfold.read.model import has_own_activation, is_of_keras

# What they say of a vector holds for each pixel of an image.
_ON_CHANNELS = frozenset(
    [
        layer_rules.dense,
        layer_rules.batch_normalization,
        layer_rules.layer_scale,
        layer_rules.rescaling,
        layer_rules.normalization,
        layer_rules.identity,
        layer_rules.activation,
    ]
)


@lifts(keras.layers.SpectralNormalization)
def spectral_normalization(layer: Any, x: Signal) -> Any:
    """Y = what the layer inside makes of x: its kernel is normalised in training, in place."""
    return _rule_of(layer.layer, layer)(layer.layer, x)


@lifts(keras.layers.Pipeline)
def pipeline(layer: Any, x: Signal) -> Any:
    """Y = what the layers inside make of x, one after another."""
    y: Any = x
    for inner in layer.layers:
        if inline_activation(inner) is not None:
            raise Refused(f"the activation of {type(inner).__name__} in it is not linear")
        y = _rule_of(inner, layer)(inner, y)
    return y


@lifts(keras.layers.TimeDistributed)
def time_distributed(layer: Any, x: Signal) -> Any:
    """y[t] = what the layer inside makes of x[t], where that works on the channels alone."""
    rule = _rule_of(layer.layer, layer)
    if rule not in _ON_CHANNELS:
        raise Refused(f"a {type(layer.layer).__name__} in it works on other axes than the channels")
    require_layout("channels_last", x)
    if getattr(layer.layer, "axis", -1) != -1 and rule is layer_rules.batch_normalization:
        raise Refused("the axis in it is counted from the first of each step")
    if has_own_activation(layer.layer):
        raise Refused("the activation in it may work along the steps")
    return rule(layer.layer, x)


def inline_activation(layer: Any) -> Any:
    """What a layer, or the one that it is around, applies to its result; None if that is linear."""
    while isinstance(layer, keras.layers.Wrapper):
        layer = layer.layer
    activation = getattr(layer, "activation", None)
    if activation is None or activation is keras.activations.linear:
        return None
    return None if isinstance(layer, keras.layers.Activation) else activation


def _rule_of(inner: Any, layer: Any) -> Rule:
    """The rule of a layer inside another."""
    if type(inner) not in RULES:
        raise Refused(f"the layer in it has no rule: {unruled(type(inner))}")
    if inner.compute_dtype != layer.compute_dtype:
        raise Refused(f"it casts {layer.compute_dtype} to {inner.compute_dtype}")
    return RULES[type(inner)]


_ON_EACH_SAMPLE = (
    *(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D),
    *(keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D),
    *(keras.layers.GlobalMaxPooling3D, keras.layers.ReLU, keras.layers.LeakyReLU),
    *(keras.layers.PReLU, keras.layers.ELU),
)


def takes_steps_at_once(layer: Any) -> bool:
    """Whether a `TimeDistributed` layer may give all steps, as one batch, to the layer inside.

    One of Keras's own does, where it is known to do the same to each sample of any batch.
    """
    inner = layer.layer
    known = type(inner) in RULES or type(inner) in _ON_EACH_SAMPLE
    if isinstance(inner, keras.Model) or not is_of_keras(inner):
        return True
    return known and not has_own_activation(inner)

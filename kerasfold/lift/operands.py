"""What rules ask of their layers and operands: a layout, an axis, a constant per channel."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.lift.program import Weights, weights
from kerasfold.lift.signal import Signal
from kerasfold.read.weights import as_array


def operand(value: Any, other: Any) -> Any:
    """A signal as it is; a constant as one number per channel of the other operand."""
    if isinstance(value, Signal):
        return value
    array = as_array(value)
    if array.size == 1 and array.ndim <= other.rank + 2:
        return array.reshape(())
    per_channel = [1] * (other.rank + 2)
    per_channel[other.channel_axis] = other.channels
    shape = (1,) * (len(per_channel) - array.ndim) + array.shape
    if list(shape) != per_channel:
        raise Refused(f"a constant of shape {array.shape} that varies along more than channels")
    return array.reshape(other.channels)


def constant(value: Any) -> Weights:
    """The weights that an operation is called with: any array that the model does not compute."""
    if isinstance(value, Signal):
        raise Refused("its weights are a tensor of the model")
    return weights(value if hasattr(value, "shape") else np.asarray(value))


def depthwise_kernel(kernel: Any) -> Weights:
    """(*taps, channels, multiplier) as a grouped kernel (*taps, 1, channels * multiplier)."""
    *taps, channels, multiplier = kernel.shape
    return weights(kernel).reshape(*taps, 1, channels * multiplier)


def same_layout(layer: Any, x: Signal) -> None:
    """Refuse a layer whose `data_format` is not the model's."""
    # Cropping1D and UpSampling1D have no data_format: they are channels_last. That of an operation
    # is None where its author says nothing.
    own = getattr(layer, "data_format", "channels_last")
    require_layout(keras.config.image_data_format() if own is None else own, x)


def require_layout(data_format: str, x: Signal) -> None:
    """Refuse a layout that is not the model's."""
    if data_format != x.layout:
        raise Refused(f"it is '{data_format}' in a model that is '{x.layout}'")


def on_channels(axis: int, x: Signal) -> None:
    """Refuse an axis, counted with the batch, other than the channels'."""
    if axis % (x.rank + 2) != x.channel_axis:
        raise Refused(f"it works along axis {axis}, which is not the channels")

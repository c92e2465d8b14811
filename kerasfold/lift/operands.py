"""What rules ask of their layers and operands: a layout, an axis, a constant per channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerasfold import backend
from kerasfold.algebra.axis import Refused
from kerasfold.lift.program import Weights, weights
from kerasfold.lift.signal import Signal
from kerasfold.read.weights import as_array


def operand(value: Any, other: Any) -> Any:
    """A signal as it is; a constant as `Signal.scale` takes it, for the other operand."""
    if isinstance(value, Signal):
        return value
    array = as_array(value)
    axes = other.rank + 2
    if array.ndim > axes or (array.ndim == axes and len(array) > 1):
        raise Refused(f"a constant of shape {array.shape} that varies along the batch")
    array = array.reshape((1,) * (axes - array.ndim) + array.shape)[0]
    return np.moveaxis(array, other.channel_axis - 1, -1)


def refuse_misplaced(value: Any, x: Any) -> None:
    """Refuse a second summand that Keras may add along another axis than its own.

    On TensorFlow `keras.ops.add` takes what has as many numbers as the last axis, or else the
    first, is long for a bias of that axis, as of Keras 3.15.
    """
    if isinstance(value, Signal) or not isinstance(x, Signal) or backend.name() != "tensorflow":
        return
    sizes = np.shape(as_array(value))
    varied = [axis - len(sizes) for axis, n in enumerate(sizes) if n > 1]
    if len(varied) != 1:
        return
    axis, count = varied[0] % (x.rank + 1), sizes[varied[0]]
    taken = [i for i in (x.rank, 0) if x.shape[i] in (count, None)]
    surely = x.shape[x.rank] == count
    if any(i != axis for i in (taken[:1] if surely else taken)):
        raise Refused("a constant that Keras may add along another axis on TensorFlow")


def along(axis: int, values: np.ndarray, x: Signal) -> np.ndarray:
    """Numbers along an axis, counted with the batch, as `Signal.scale` takes them."""
    shape = [1] * (x.rank + 2)
    shape[axis] = len(values)
    return operand(values.reshape(shape), x)


def standardized(
    x: Signal, layer: Any, mean: Any, variance: Any, scale: Any = None, offset: Any = None
) -> Signal:
    """Y = scale (x - mean) / sqrt(variance + epsilon) + offset, by constants along its axis."""
    mean, variance = constant(mean).read(), constant(variance).read()
    with np.errstate(invalid="ignore", divide="ignore"):  # refused by scale(), by its result
        gain = 1 / np.sqrt(variance + layer.epsilon)
    if scale is not None:
        gain = gain * constant(scale).read()
    shift = -mean * gain
    if offset is not None:
        shift = shift + constant(offset).read()
    return x.scale(along(layer.axis, gain, x), along(layer.axis, shift, x))


def constant(value: Any) -> Weights:
    """The weights that an operation is called with: any array that the model does not compute."""
    if isinstance(value, Signal):
        raise Refused("its weights are a tensor of the model")
    return weights(value if hasattr(value, "shape") else np.asarray(value))


def depthwise_kernel(kernel: Any) -> Weights:
    """(*taps, channels, multiplier) as a grouped kernel (*taps, 1, channels * multiplier)."""
    *taps, channels, multiplier = kernel.shape
    return weights(kernel).reshape(*taps, 1, channels * multiplier)


def window_of(layer: Any) -> dict[str, Any]:
    """How the window of a layer or an operation moves, as `Signal.convolve` takes it."""
    return {
        "strides": layer.strides,
        "padding": layer.padding,
        "dilation": layer.dilation_rate,
    }


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


def sliced(x: Signal, keys: Sequence[slice]) -> Signal:
    """Y = x[keys], one slice for each axis of the tensor."""
    batch, *pixels = keys
    channels = pixels.pop(x.channel_axis - 1)
    if batch != slice(None):
        raise Refused("it slices the batch")
    crops, strides = [], []
    for n, cut in zip(x.sizes, pixels, strict=True):
        if cut != slice(None) and n is None:
            raise Refused("it slices an image of unknown size")
        start, stop, step = cut.indices(n or 0)
        if step < 1 or (n is not None and stop <= start):
            raise Refused("it reverses or empties an axis")
        crops.append((start, 0 if n is None else n - stop))
        strides.append(step)
    y = x.crop(crops) if any(map(any, crops)) else x
    y = y.subsample(strides)
    return y if channels == slice(None) else y.take(channels)

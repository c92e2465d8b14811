"""Lift rules: one for each affine layer class, and nothing else.

A rule takes the layer and, for each tensor of the call, a `Signal`; it returns the signal
of the layer's output at inference. `Refused(reason)` leaves the call as it is, with that
reason in the report. An inline `activation=` is not the rule's business: the caller puts it
back. Rules are found by exact class: a subclass whose `call` differs is not its base class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np

from kerasfold.affine import Signal, concatenate, weighted_sum, weights
from kerasfold.conv import Refused
from kerasfold.graph import as_array

Rule = Callable[..., Signal]
R = TypeVar("R", bound=Rule)

RULES: dict[Any, Rule] = {}


def lifts(*kinds: Any) -> Callable[[R], R]:
    """Register the lift rule of layer classes or `keras.ops` functions.

    The rule is called as `rule(layer, x)`, `x` a `kerasfold.Signal` or, for layers that are
    called on a list, a list of them. See "How to add a layer" in the README.

    Args:
        *kinds: layer classes (matched exactly, never a subclass) or `keras.ops` functions.

    Raises:
        TypeError: a kind that is neither.
    """
    for kind in kinds:
        if not callable(kind):
            raise TypeError(
                f"lifts() takes layer classes or keras.ops functions. Received: {kind!r}"
            )

    def register(rule: R) -> R:
        RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register


# ---------------------------------------------------------------------- convolutions


@lifts(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
def conv(layer: Any, x: Signal) -> Signal:
    """y[p, o] = sum_{t, i} kernel[t, i, o] x[p s + t r - lo, i] + bias[o]."""
    _same_layout(layer, x)
    return x.convolve(
        layer.kernel, layer.bias, strides=layer.strides, padding=layer.padding,
        dilation=layer.dilation_rate, groups=layer.groups,
    )


@lifts(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def depthwise_conv(layer: Any, x: Signal) -> Signal:
    """y[p, i m + j] = sum_t kernel[t, i, j] x[p s + t r - lo, i] + bias[i m + j]."""
    _same_layout(layer, x)
    kernel = _depthwise_kernel(layer.kernel)
    return x.convolve(
        kernel, layer.bias, strides=layer.strides, padding=layer.padding,
        dilation=layer.dilation_rate, groups=x.channels,
    )


@lifts(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def separable_conv(layer: Any, x: Signal) -> Signal:
    """A depthwise convolution without bias, then a pointwise one with it."""
    _same_layout(layer, x)
    spatial = x.convolve(
        _depthwise_kernel(layer.depthwise_kernel), strides=layer.strides, padding=layer.padding,
        dilation=layer.dilation_rate, groups=x.channels,
    )
    return spatial.convolve(layer.pointwise_kernel, layer.bias)


def _depthwise_kernel(kernel: Any) -> Any:
    """(*taps, channels, multiplier) as a grouped kernel (*taps, 1, channels * multiplier)."""
    *taps, channels, multiplier = kernel.shape
    return weights(kernel).reshape(*taps, 1, channels * multiplier)


@lifts(
    keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D
)
def average_pooling(layer: Any, x: Signal) -> Signal:
    """y[p] = mean over t of x[p s + t]."""
    _same_layout(layer, x)
    return x.average(layer.pool_size, strides=layer.strides, padding=layer.padding)


# ------------------------------------------------------------------ scales and shifts


@lifts(keras.layers.BatchNormalization)
def batch_normalization(layer: Any, x: Signal) -> Signal:
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta, with the moving statistics."""
    _on_channels(layer.axis, x)
    gain = 1 / np.sqrt(as_array(layer.moving_variance) + layer.epsilon)
    if layer.gamma is not None:
        gain = gain * as_array(layer.gamma)
    shift = -as_array(layer.moving_mean) * gain
    if layer.beta is not None:
        shift = shift + as_array(layer.beta)
    return x.scale(gain, shift)


# ---------------------------------------------------------------- padding and cropping


@lifts(keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)
def zero_padding(layer: Any, x: Signal) -> Signal:
    """y[p] = x[p - lo], zero outside."""
    _same_layout(layer, x)
    return x.pad(_pairs(layer.padding))


@lifts(keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D)
def cropping(layer: Any, x: Signal) -> Signal:
    """y[p] = x[p + lo]."""
    _same_layout(layer, x)
    return x.crop(_pairs(layer.cropping))


def _pairs(value: Any) -> list[tuple[int, int]]:
    """Keras's ((lo, hi), ...), which for one axis is (lo, hi)."""
    return [tuple(v) for v in (value if isinstance(value[0], (tuple, list)) else (value,))]


# ----------------------------------------------------------- identities at inference


@lifts(
    keras.layers.Identity, keras.layers.Dropout, keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D, keras.layers.AlphaDropout,
    keras.layers.GaussianDropout, keras.layers.GaussianNoise,
)
def identity(layer: Any, x: Signal) -> Signal:
    """y = x."""
    return x


@lifts(keras.layers.Activation)
def activation(layer: Any, x: Signal) -> Signal:
    """y = x, for activation='linear'."""
    if layer.activation is not keras.activations.linear:
        raise Refused(f"its activation {_name(layer.activation)} is not linear")
    return x


def _name(function: Any) -> str:
    return f"'{getattr(function, '__name__', type(function).__name__)}'"


# ---------------------------------------------------------------- several tensors


@lifts(keras.layers.Add)
def add(layer: Any, xs: list[Signal]) -> Signal:
    """y = sum of the inputs."""
    return weighted_sum(xs)


@lifts(keras.layers.Subtract)
def subtract(layer: Any, xs: list[Signal]) -> Signal:
    """y = x0 - x1."""
    return weighted_sum(xs, [1.0, -1.0])


@lifts(keras.layers.Average)
def average(layer: Any, xs: list[Signal]) -> Signal:
    """y = mean of the inputs."""
    return weighted_sum(xs, [1 / len(xs)] * len(xs))


@lifts(keras.layers.Concatenate)
def concatenation(layer: Any, xs: list[Signal]) -> Signal:
    """The channels of the inputs, one after another."""
    _on_channels(layer.axis, xs[0])
    return concatenate(xs)


# --------------------------------------------------------- keras.ops and operators


@lifts(keras.ops.add)
def add_op(op: Any, x1: Any, x2: Any) -> Signal:
    """y = x1 + x2; a constant may have one entry, or one per channel."""
    return _operand(x1, x2) + _operand(x2, x1)


@lifts(keras.ops.subtract)
def subtract_op(op: Any, x1: Any, x2: Any) -> Signal:
    """y = x1 - x2."""
    return _operand(x1, x2) - _operand(x2, x1)


@lifts(keras.ops.multiply)
def multiply_op(op: Any, x1: Any, x2: Any) -> Signal:
    """y = x1 x2, one of them constant."""
    return _operand(x1, x2) * _operand(x2, x1)


@lifts(keras.ops.divide, keras.ops.true_divide)
def divide_op(op: Any, x1: Any, x2: Any) -> Signal:
    """y = x1 / x2, with x2 constant."""
    if not isinstance(x1, Signal):
        raise Refused("a division by a tensor is not linear")
    return x1 / _operand(x2, x1)


@lifts(keras.ops.negative)
def negative_op(op: Any, x: Signal) -> Signal:
    """y = -x."""
    return -x


def _operand(value: Any, other: Any) -> Any:
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


# -------------------------------------------------------------------------- checks


def _same_layout(layer: Any, x: Signal) -> None:
    if layer.data_format != x.layout:
        raise Refused(f"data_format '{layer.data_format}' in a model that is '{x.layout}'")


def _on_channels(axis: int, x: Signal) -> None:
    if axis % (x.rank + 2) != x.channel_axis:
        raise Refused(f"it works along axis {axis}, which is not the channels")

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

from kerasfold.algebra.axis import Refused
from kerasfold.errors import FoldError
from kerasfold.lift.program import weights
from kerasfold.lift.signal import Signal, concatenate, weighted_sum
from kerasfold.read.weights import as_array, as_constant, kernel_of

Rule = Callable[..., Signal]
R = TypeVar("R", bound=Rule)

RULES: dict[Any, Rule] = {}
OWN: frozenset[Rule] = frozenset()  # set below, once all of them are there


def lifts(*kinds: Any, override: bool = False) -> Callable[[R], R]:
    """Register the lift rule of layer classes or `keras.ops` functions.

    The rule is called as `rule(layer, x)`, `x` a `kerasfold.Signal` or, for layers that are
    called on a list, a list of them. See "How to add a layer" in the README.

    Args:
        *kinds: layer classes (matched exactly, never a subclass) or `keras.ops` functions.
        override: whether the rule may take the place of one of kerasfold's own.

    Raises:
        TypeError: a kind that is neither.
        FoldError: a kind that kerasfold has a rule for.
    """
    for kind in kinds:
        layer = isinstance(kind, type) and issubclass(kind, keras.Layer)
        known = getattr(keras.ops, getattr(kind, "__name__", ""), None)
        if not layer and (known is None or known is not kind):
            raise TypeError(
                f"lifts() takes layer classes or keras.ops functions. Received: {kind!r}"
            )

    def register(rule: R) -> R:
        for kind in kinds:
            before = RULES.get(kind)
            if before in OWN and not override:
                raise FoldError(
                    f"{kind.__name__} has a lift rule of kerasfold's own, '{before.__name__}': to "
                    f"take its place for every model, say lifts({kind.__name__}, override=True)"
                )
        RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register


@lifts(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
def conv(layer: Any, x: Signal) -> Signal:
    """y[p, o] = sum_{t, i} kernel[t, i, o] x[p s + t r - lo, i] + bias[o]."""
    _same_layout(layer, x)
    return x.convolve(
        kernel_of(layer),
        layer.bias,
        strides=layer.strides,
        padding=layer.padding,
        dilation=layer.dilation_rate,
        groups=layer.groups,
    )


@lifts(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def depthwise_conv(layer: Any, x: Signal) -> Signal:
    """y[p, i m + j] = sum_t kernel[t, i, j] x[p s + t r - lo, i] + bias[i m + j]."""
    _same_layout(layer, x)
    kernel = _depthwise_kernel(layer.kernel)
    return x.convolve(
        kernel,
        layer.bias,
        strides=layer.strides,
        padding=layer.padding,
        dilation=layer.dilation_rate,
        groups=x.channels,
    )


@lifts(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def separable_conv(layer: Any, x: Signal) -> Signal:
    """A depthwise convolution without bias, then a pointwise one with it."""
    _same_layout(layer, x)
    spatial = x.convolve(
        _depthwise_kernel(layer.depthwise_kernel),
        strides=layer.strides,
        padding=layer.padding,
        dilation=layer.dilation_rate,
        groups=x.channels,
    )
    return spatial.convolve(layer.pointwise_kernel, layer.bias)


def _depthwise_kernel(kernel: Any) -> Any:
    """(*taps, channels, multiplier) as a grouped kernel (*taps, 1, channels * multiplier)."""
    *taps, channels, multiplier = kernel.shape
    return weights(kernel).reshape(*taps, 1, channels * multiplier)


@lifts(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D)
def average_pooling(layer: Any, x: Signal) -> Signal:
    """y[p] = mean over t of x[p s + t]."""
    _same_layout(layer, x)
    return x.average(layer.pool_size, strides=layer.strides, padding=layer.padding)


@lifts(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
def conv_transpose(layer: Any, x: Signal) -> Signal:
    """Y = the transpose of a strided convolution, applied to x, plus bias."""
    _same_layout(layer, x)
    return x.convolve_transpose(
        layer.kernel,
        layer.bias,
        strides=layer.strides,
        padding=layer.padding,
        output_padding=layer.output_padding,
        dilation=layer.dilation_rate,
    )


@lifts(keras.layers.UpSampling1D, keras.layers.UpSampling2D, keras.layers.UpSampling3D)
def upsampling(layer: Any, x: Signal) -> Signal:
    """y[p] = x[floor(p / L)], or interpolated between pixel centres."""
    _same_layout(layer, x)
    interpolation = getattr(layer, "interpolation", "nearest")
    if interpolation == "bilinear":
        return x.interpolate(layer.size)
    if interpolation != "nearest":
        raise Refused(f"its interpolation '{interpolation}' clamps at the border")
    return x.upsample(layer.size)


@lifts(
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)
def global_average_pooling(layer: Any, x: Signal) -> Signal:
    """Y = mean over p of x[p]."""
    _same_layout(layer, x)
    return x.global_average(layer.keepdims)


@lifts(
    *(
        getattr(keras.layers, f"AdaptiveAveragePooling{rank}D")
        for rank in (1, 2, 3)
        if hasattr(keras.layers, f"AdaptiveAveragePooling{rank}D")
    )
)
def adaptive_average_pooling(layer: Any, x: Signal) -> Signal:
    """An average pool of n / outputs samples, where that divides."""
    _same_layout(layer, x)
    outputs = layer.output_size
    outputs = (outputs,) * x.rank if isinstance(outputs, int) else tuple(outputs)
    if any(n is None or n % m for n, m in zip(x.sizes, outputs, strict=True)):
        raise Refused(f"images of {x.sizes} do not divide into {outputs} equal windows")
    pool = tuple((n or 0) // m for n, m in zip(x.sizes, outputs, strict=True))
    return x.average(pool, strides=pool)


@lifts(keras.layers.Dense)
def dense(layer: Any, x: Signal) -> Signal:
    """y[o] = sum_i kernel[i, o] x[i] + bias[o]."""
    if x.rank:
        _require_layout("channels_last", x)
    kernel = weights(kernel_of(layer))
    return x.convolve(kernel.reshape(*(1,) * x.rank, *kernel.shape), layer.bias)


@lifts(keras.layers.Flatten)
def flatten(layer: Any, x: Signal) -> Signal:
    """The pixels one after another, channels fastest."""
    if x.rank:
        _same_layout(layer, x)
    return x.flatten()


@lifts(keras.layers.Reshape)
def reshape(layer: Any, x: Signal) -> Signal:
    """A reshape to a vector, which is a Flatten."""
    if len(layer.target_shape) != 1:
        raise Refused("it changes the shape to other than a vector")
    if x.rank:
        _require_layout("channels_last", x)
    return x.flatten()


@lifts(keras.layers.BatchNormalization)
def batch_normalization(layer: Any, x: Signal) -> Signal:
    """Y = gamma (x - mean) / sqrt(variance + epsilon) + beta, with the moving statistics."""
    _on_channels(layer.axis, x)
    with np.errstate(invalid="ignore", divide="ignore"):  # refused by scale(), by its result
        gain = 1 / np.sqrt(as_array(layer.moving_variance) + layer.epsilon)
    if layer.gamma is not None:
        gain = gain * as_array(layer.gamma)
    shift = -as_array(layer.moving_mean) * gain
    if layer.beta is not None:
        shift = shift + as_array(layer.beta)
    return x.scale(gain, shift)


@lifts(keras.layers.Rescaling)
def rescaling(layer: Any, x: Signal) -> Signal:
    """Y = scale x + offset."""
    return x.scale(_operand(as_constant(layer.scale), x), _operand(as_constant(layer.offset), x))


@lifts(keras.layers.Normalization)
def normalization(layer: Any, x: Signal) -> Signal:
    """Y = (x - mean) / max(sqrt(variance), epsilon), or its inverse."""
    # The layer computes with these, not with its weights, which set_weights may have changed.
    mean, variance = _operand(layer.mean, x), _operand(layer.variance, x)
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return x.scale(deviation, mean)
    return x.scale(1 / deviation, -mean / deviation)


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


@lifts(
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)
def identity(layer: Any, x: Signal) -> Signal:
    """Y = x."""
    return x


@lifts(keras.layers.Activation)
def activation(layer: Any, x: Signal) -> Signal:
    """Y = x, for activation='linear'."""
    if layer.activation is not keras.activations.linear:
        raise Refused(f"its activation {_name(layer.activation)} is not linear")
    return x


def _name(function: Any) -> str:
    return f"'{getattr(function, '__name__', type(function).__name__)}'"


@lifts(keras.layers.Add)
def add(layer: Any, xs: list[Signal]) -> Signal:
    """Y = sum of the inputs."""
    return weighted_sum(xs)


@lifts(keras.layers.Subtract)
def subtract(layer: Any, xs: list[Signal]) -> Signal:
    """Y = x0 - x1."""
    return weighted_sum(xs, [1.0, -1.0])


@lifts(keras.layers.Average)
def average(layer: Any, xs: list[Signal]) -> Signal:
    """Y = mean of the inputs."""
    return weighted_sum(xs, [1 / len(xs)] * len(xs))


@lifts(keras.layers.Concatenate)
def concatenation(layer: Any, xs: list[Signal]) -> Signal:
    """The channels of the inputs, one after another."""
    _on_channels(layer.axis, xs[0])
    return concatenate(xs)


@lifts(keras.ops.add)
def add_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = x1 + x2; a constant may have one entry, or one per channel."""
    return _operand(x1, x2) + _operand(x2, x1)


@lifts(keras.ops.subtract)
def subtract_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = x1 - x2."""
    return _operand(x1, x2) - _operand(x2, x1)


@lifts(keras.ops.multiply)
def multiply_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = x1 x2, one of them constant."""
    return _operand(x1, x2) * _operand(x2, x1)


@lifts(keras.ops.divide, keras.ops.true_divide)
def divide_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = x1 / x2, with x2 constant."""
    if not isinstance(x1, Signal):
        raise Refused("a division by a tensor is not linear")
    return x1 / _operand(x2, x1)


@lifts(keras.ops.negative)
def negative_op(op: Any, x: Signal) -> Signal:
    """Y = -x."""
    return -x


@lifts(keras.ops.concatenate)
def concatenate_op(op: Any, xs: list[Signal]) -> Signal:
    """The channels of the inputs, one after another."""
    _on_channels(op.axis, xs[0])
    return concatenate(xs)


@lifts(keras.ops.pad)
def pad_op(op: Any, x: Signal, constant_values: Any = None) -> Signal:
    """y[p] = x[p - lo], zero outside."""
    if op.mode != "constant" or (constant_values is not None and np.any(as_array(constant_values))):
        raise Refused("it pads with other than zeros")
    pairs = [tuple(p) for p in op.pad_width]
    pairs = pairs * (x.rank + 2) if len(pairs) == 1 else pairs
    if any(pairs[0]) or any(pairs[x.channel_axis]):
        raise Refused("it pads the batch or the channels")
    return x.pad([p for axis, p in enumerate(pairs) if axis not in (0, x.channel_axis)])


@lifts(keras.ops.get_item)
def get_item(op: Any, x: Signal, key: Any) -> Signal:
    """Y = x[:, a:b, ..., channels]."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (x.rank + 3 - len(keys))
    keys += [slice(None)] * (x.rank + 2 - len(keys))
    if len(keys) != x.rank + 2 or not all(isinstance(k, slice) for k in keys):
        raise Refused("it indexes with other than slices")
    if keys[0] != slice(None):
        raise Refused("it slices the batch")
    channels = keys.pop(x.channel_axis)
    crops, strides = [], []
    for n, cut in zip(x.sizes, keys[1:], strict=True):
        if cut != slice(None) and n is None:
            raise Refused("it slices an image of unknown size")
        start, stop, step = cut.indices(n or 0)
        if step < 1 or (n is not None and stop <= start):
            raise Refused("it reverses or empties an axis")
        crops.append((start, 0 if n is None else n - stop))
        strides.append(step)
    y = x.crop(crops) if any(map(any, crops)) else x
    y = y.subsample(strides) if max(strides, default=1) > 1 else y
    return y if channels == slice(None) else y.take(channels)


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


def _same_layout(layer: Any, x: Signal) -> None:
    # Cropping1D and UpSampling1D have no data_format: they are channels_last.
    _require_layout(getattr(layer, "data_format", "channels_last"), x)


def _require_layout(data_format: str, x: Signal) -> None:
    if data_format != x.layout:
        raise Refused(f"it is '{data_format}' in a model that is '{x.layout}'")


def _on_channels(axis: int, x: Signal) -> None:
    if axis % (x.rank + 2) != x.channel_axis:
        raise Refused(f"it works along axis {axis}, which is not the channels")


OWN = frozenset(RULES.values())

"""Lift rules of layers: one for each affine class.

A rule takes the layer and, for each tensor of the call, a `Signal`; it returns the signal
of the layer's output at inference. `Refused(reason)` leaves the call as it is, with that
reason in the report. An inline `activation=` is not the rule's business: the caller puts it
back.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.lift.activations import name_of
from kerasfold.lift.contraction import contract, subscripts_of
from kerasfold.lift.image_rules import require_images, resized
from kerasfold.lift.operands import (
    depthwise_kernel,
    on_channels,
    operand,
    refuse_misplaced,
    require_layout,
    same_layout,
    standardized,
    window_of,
)
from kerasfold.lift.registry import lifts
from kerasfold.lift.signal import Signal, weighted_sum
from kerasfold.lift.stacked import concatenate
from kerasfold.read.model import CustomScaleLayer, LayerScale, StochasticDepth
from kerasfold.read.weights import as_constant, kernel_of


@lifts(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
def conv(layer: Any, x: Signal) -> Signal:
    """y[p, o] = sum_{t, i} kernel[t, i, o] x[p s + t r - lo, i] + bias[o]."""
    same_layout(layer, x)
    return x.convolve(
        kernel_of(layer),
        layer.bias,
        **window_of(layer),
        groups=layer.groups,
    )


@lifts(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def depthwise_conv(layer: Any, x: Signal) -> Signal:
    """y[p, i m + j] = sum_t kernel[t, i, j] x[p s + t r - lo, i] + bias[i m + j]."""
    same_layout(layer, x)
    kernel = depthwise_kernel(layer.kernel)
    return x.convolve(
        kernel,
        layer.bias,
        **window_of(layer),
        groups=x.channels,
    )


@lifts(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def separable_conv(layer: Any, x: Signal) -> Signal:
    """A depthwise convolution without bias, then a pointwise one with it."""
    same_layout(layer, x)
    spatial = x.convolve(
        depthwise_kernel(layer.depthwise_kernel),
        **window_of(layer),
        groups=x.channels,
    )
    return spatial.convolve(layer.pointwise_kernel, layer.bias)


@lifts(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D)
def average_pooling(layer: Any, x: Signal) -> Signal:
    """y[p] = mean over t of x[p s + t]."""
    same_layout(layer, x)
    return x.average(layer.pool_size, strides=layer.strides, padding=layer.padding)


@lifts(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
def max_pooling(layer: Any, x: Signal) -> Signal:
    """y[p] = x[p s], of windows of one sample."""
    same_layout(layer, x)
    if max(layer.pool_size) > 1:
        raise Refused("a maximum of several samples is not linear")
    return x.subsample(layer.strides)


@lifts(
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
)
def global_max_pooling(layer: Any, x: Signal) -> Signal:
    """Y = x, of an image of one sample."""
    same_layout(layer, x)
    if any(n != 1 for n in x.sizes):
        raise Refused("a maximum of several samples is not linear")
    return x if layer.keepdims else x.flatten()


@lifts(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
def conv_transpose(layer: Any, x: Signal) -> Signal:
    """Y = the transpose of a strided convolution, applied to x, plus bias."""
    same_layout(layer, x)
    return x.convolve_transpose(
        layer.kernel, layer.bias, output_padding=layer.output_padding, **window_of(layer)
    )


@lifts(keras.layers.UpSampling1D, keras.layers.UpSampling2D, keras.layers.UpSampling3D)
def upsampling(layer: Any, x: Signal) -> Signal:
    """y[p] = x[floor(p / L)], or interpolated between pixel centres."""
    same_layout(layer, x)
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
    same_layout(layer, x)
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
    same_layout(layer, x)
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
        require_layout("channels_last", x)
    return x.matrix(kernel_of(layer), layer.bias)


@lifts(keras.layers.EinsumDense)
def einsum_dense(layer: Any, x: Signal) -> Signal:
    """Y = the sum of products that its equation says, of x and its kernel, + bias."""
    y = contract(x, kernel_of(layer), subscripts_of(layer.equation, x), layer.bias)
    if layer.bias is not None:
        refuse_misplaced(layer.bias, y)
    return y


@lifts(keras.layers.BatchNormalization)
def batch_normalization(layer: Any, x: Signal) -> Signal:
    """Y = gamma (x - mean) / sqrt(variance + epsilon) + beta, with the moving statistics."""
    statistics = layer.moving_mean, layer.moving_variance
    return standardized(x, layer, *statistics, layer.gamma, layer.beta)


@lifts(LayerScale)
def layer_scale(layer: Any, x: Signal) -> Signal:
    """Y = gamma x."""
    return x.scale(operand(layer.gamma, x))


@lifts(keras.layers.Rescaling)
def rescaling(layer: Any, x: Signal) -> Signal:
    """Y = scale x + offset."""
    return x.scale(operand(as_constant(layer.scale), x), operand(as_constant(layer.offset), x))


@lifts(keras.layers.Normalization)
def normalization(layer: Any, x: Signal) -> Signal:
    """Y = (x - mean) / max(sqrt(variance), epsilon), or its inverse."""
    # The layer computes with these, not with its weights, which set_weights may have changed.
    mean, variance = operand(layer.mean, x), operand(layer.variance, x)
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return x.scale(deviation, mean)
    return x.scale(shift=-mean).scale(1 / deviation)  # as it does: what is near the mean is exact


@lifts(keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)
def zero_padding(layer: Any, x: Signal) -> Signal:
    """y[p] = x[p - lo], zero outside."""
    same_layout(layer, x)
    return x.pad(_pairs(layer.padding))


@lifts(keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D)
def cropping(layer: Any, x: Signal) -> Signal:
    """y[p] = x[p + lo]."""
    same_layout(layer, x)
    return x.crop(_pairs(layer.cropping))


def _pairs(value: Any) -> list[tuple[int, int]]:
    """Keras's ((lo, hi), ...), which for one axis is (lo, hi)."""
    return [tuple(v) for v in (value if isinstance(value[0], (tuple, list)) else (value,))]


@lifts(keras.layers.CenterCrop)
def center_crop(layer: Any, x: Signal) -> Signal:
    """y[p] = x[p + lo], of images that are no smaller."""
    require_images(layer, x)
    sizes = zip(x.sizes, (layer.height, layer.width), strict=True)
    margins = [-1 if n is None else n - m for n, m in sizes]
    if min(margins) < 0:
        raise Refused("it resizes images that are smaller than what it crops")
    return x.crop([(n // 2, n - n // 2) for n in margins])


@lifts(keras.layers.Resizing)
def resizing(layer: Any, x: Signal) -> Signal:
    """Y = x, or x upsampled."""
    return resized(layer, x, (layer.height, layer.width))


_AUGMENTATIONS = (
    *("AugMix", "CutMix", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration"),
    *("RandomColorJitter", "RandomContrast", "RandomElasticTransform", "RandomErasing"),
    *("RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert"),
    *("RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation"),
    *("RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "Solarization"),
)


# Of tensors of any shape.
IDLE = (
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
)


@lifts(
    *IDLE,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    StochasticDepth,
    *(getattr(keras.layers, name) for name in _AUGMENTATIONS if hasattr(keras.layers, name)),
)
def identity(layer: Any, x: Any) -> Signal:
    """Y = x."""
    if not isinstance(x, Signal):
        raise Refused("it is called on other than one tensor")
    return x


@lifts(keras.layers.RandomCrop)
def random_crop(layer: Any, x: Any) -> Signal:
    """Y = x, where x has the sizes that it declares."""
    x = identity(layer, x)
    if x.sizes != (layer.height, layer.width):
        raise Refused(
            f"it declares images of {layer.height} x {layer.width}, and at inference returns them "
            "as they come"
        )
    return x


@lifts(keras.layers.Activation)
def activation(layer: Any, x: Signal) -> Signal:
    """Y = x, for activation='linear'."""
    if layer.activation is not keras.activations.linear:
        raise Refused(f"its activation '{name_of(layer.activation)}' is not linear")
    return x


@lifts(keras.layers.Add)
def add(layer: Any, xs: list[Signal]) -> Signal:
    """Y = sum of the inputs."""
    return weighted_sum(xs)


@lifts(keras.layers.Subtract)
def subtract(layer: Any, xs: list[Signal]) -> Signal:
    """Y = x0 - x1."""
    return weighted_sum(xs, [1.0, -1.0])


@lifts(CustomScaleLayer)
def scaled_residual(layer: Any, xs: list[Signal]) -> Signal:
    """Y = x0 + scale x1."""
    return weighted_sum(xs, [1.0, layer.scale])


@lifts(keras.layers.Average)
def average(layer: Any, xs: list[Signal]) -> Signal:
    """Y = mean of the inputs."""
    return weighted_sum(xs, [1 / len(xs)] * len(xs))


@lifts(keras.layers.Concatenate)
def concatenation(layer: Any, xs: list[Signal]) -> Signal:
    """The channels of the inputs, one after another."""
    on_channels(layer.axis, xs[0])
    return concatenate(xs)

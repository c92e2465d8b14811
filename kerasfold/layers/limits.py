"""What one stock Keras layer can say: separable pairs, and what has no layer at all."""

from __future__ import annotations

import keras

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.geometry import Geometry
from kerasfold.layers.spelling import keras_padding
from kerasfold.read.model import public_op


def is_depthwise_layer(geometry: Geometry) -> bool:
    """Whether a DepthwiseConv layer computes it, and not a Conv of so many groups."""
    return (
        geometry.is_depthwise
        and geometry.groups > 1
        and not geometry.ones
        and len(geometry.axes) in (1, 2)
        and len({axis.stride for axis in geometry.axes}) == 1
    )


def depthwise_kind(operation: keras.Operation, *steps: Geometry) -> str:
    """The class of the depthwise layer that a convolution in groups equals, or ""."""
    in_groups = type(operation) in (keras.layers.Conv1D, keras.layers.Conv2D)
    if not in_groups or not all(map(is_depthwise_layer, steps)):
        return ""
    return f"Depthwise{type(operation).__name__}"


def is_pointwise_matrix(geometry: Geometry) -> bool:
    """Whether a Dense layer computes it on images, channels last."""
    return geometry.is_pointwise and geometry.groups == 1 and not (geometry.ones or geometry.vector)


def is_separable(first: Geometry | None, last: Geometry | None) -> bool:
    """Whether a SeparableConv layer computes `last o first`."""
    return (
        first is not None
        and last is not None
        and len(first.axes) in (1, 2)
        and not (first.vector or last.vector)
        and first.is_depthwise
        and not (first.biased or first.ones or first.normalised or last.ones)
        and all(axis.size is None or axis.size > sum(axis.crop) for axis in first.axes)
        and all(axis.upsampling == 1 for axis in first.axes)
        and len({axis.stride for axis in first.axes}) == 1
        and not (max(a.stride for a in first.axes) > 1 and max(a.dilation for a in first.axes) > 1)
        and last.is_pointwise
        and last.groups == 1
    )


def check_emittable(geometry: Geometry) -> None:
    """Refuse an operator that no single Keras layer expresses."""
    if len(geometry.axes) > 3:
        raise Refused(f"an image of {len(geometry.axes)} axes, for which Keras has no convolution")
    if any(axis.size is not None and axis.size <= sum(axis.crop) for axis in geometry.axes):
        raise Refused("an output that reads nothing but padding, which no cropping layer leaves")
    if any(axis.same for axis in geometry.axes) and keras_padding(geometry) is None:
        raise Refused(
            "padding along one axis that depends on an unknown size, and none along another"
        )
    if any(axis.upsampling > 1 for axis in geometry.axes):
        if any(axis.stride > 1 for axis in geometry.axes):
            raise Refused("upsampling and stride in one operator, which no Keras layer expresses")
        if geometry.groups > 1:
            raise Refused("a transposed convolution in groups, which no Keras layer expresses")
    if geometry.vector and geometry.groups > 1:
        raise Refused(
            "one number for each channel of a whole image, which no Keras layer but a global pool "
            "gives"
        )
    if not geometry.axes and geometry.groups > 1:
        raise Refused("a scale per channel of a vector, which no Keras layer but itself expresses")


def normalises(operation: keras.Operation, channels: int) -> bool:
    """Whether a layer is a BatchNormalization of so many numbers, which any image may have."""
    own = type(operation) is keras.layers.BatchNormalization
    return own and operation.moving_mean.shape == (channels,)


_FREE = (
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.Concatenate,
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
    keras.layers.Identity,
    keras.layers.InputLayer,
)
_FREE_OPS = (
    *(keras.ops.pad, keras.ops.concatenate, keras.ops.split, keras.ops.get_item),
    *(keras.ops.reshape, keras.ops.transpose, keras.ops.squeeze, keras.ops.expand_dims),
    *(keras.ops.swapaxes, keras.ops.moveaxis),
    *(keras.ops.relu, keras.ops.relu6, keras.ops.leaky_relu, keras.ops.elu, keras.ops.selu),
    *(keras.ops.sigmoid, keras.ops.hard_sigmoid, keras.ops.tanh, keras.ops.softplus),
    *(keras.ops.silu, keras.ops.hard_silu, keras.ops.gelu, keras.ops.softmax),
    *(keras.ops.ones_like, keras.ops.cast, keras.ops.convert_to_tensor),
)


def is_free(operation: keras.Operation) -> bool:
    """Whether a call counts 0 under "layers": padding, reshaping, activations and the like."""
    return isinstance(operation, _FREE) or public_op(type(operation)) in _FREE_OPS

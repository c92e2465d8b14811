"""What one stock Keras layer can say: paddings, separable pairs, and what has no layer at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import keras

from kerasfold.affine import transposed_axis
from kerasfold.algebra.axis import Axis, Refused
from kerasfold.algebra.geometry import Geometry
from kerasfold.graph import public_op


def keras_padding(geometry: Geometry) -> Literal["valid", "same"] | None:
    """The Keras `padding=` that expresses the geometry, or None where it takes a layer."""
    if all(_is_valid(axis) for axis in geometry.axes):
        return "valid"
    return "same" if all(_is_same(axis) for axis in geometry.axes) else None


def transposed_padding(geometry: Geometry) -> dict[str, Any] | None:
    """`padding=` and `output_padding=` of a transposed convolution that is the geometry, or None.

    Without them, the layer gives its 'valid' result, of which too much has to be cropped.
    """
    axes = written(geometry).axes
    for padding in ("valid", "same"):
        found = [_output_paddings(axis, padding) for axis in axes]
        if all(None in options for options in found):
            return {"padding": padding, "output_padding": None}
        extra = [[e for e in options if e is not None] for options in found]
        if all(extra):
            return {"padding": padding, "output_padding": tuple(e[0] for e in extra)}
    return None


def _output_paddings(axis: Axis, padding: str) -> list[int | None]:
    """Values of `output_padding` with which Keras aligns one axis so.

    It is below the stride; and a 'same' layer gives at least one sample beyond L (n - 1), or
    no convolution of its output has n samples, which TensorFlow refuses.
    """
    least = 1 - axis.span % 2 if padding == "same" else 0
    return [
        extra
        for extra in (None, *range(least, axis.upsampling))
        if axis
        == transposed_axis(axis.size, axis.taps, axis.upsampling, axis.dilation, padding, extra)
    ]


def computed_sizes(geometry: Geometry) -> tuple[int | None, ...]:
    """Output samples that the layer computes along each axis, those cropped behind it included."""
    if all(axis.upsampling == 1 for axis in geometry.axes) or transposed_padding(geometry):
        return geometry.sizes
    return tuple(
        None if axis.extent is None else max(axis.extent + axis.span - 1, axis.out or 0)
        for axis in geometry.axes
    )


def is_one_layer(geometry: Geometry) -> bool:
    """Whether no separate padding or cropping layer is needed."""
    if any(axis.upsampling > 1 for axis in geometry.axes):
        return transposed_padding(geometry) is not None
    return keras_padding(geometry) is not None


def _is_valid(axis: Axis) -> bool:
    if axis.upsampling > 1:
        return False
    if axis.same or axis.crop[0] or any(axis.pad):
        return False
    if axis.size is None:
        return not axis.crop[1]
    return (axis.size - axis.span) // axis.stride + 1 == axis.out


def _is_same(axis: Axis) -> bool:
    if axis.upsampling > 1:
        return False
    if axis.same:
        return True
    if axis.crop[0] or (axis.crop[1] and axis.pad[1]):
        return False
    if axis.size is None and axis.span == 1:
        return not any(axis.crop) and not any(axis.pad)
    if axis.size is None:
        low = (axis.span - 1) // 2
        return axis.stride == 1 and not axis.crop[1] and axis.pad == (low, axis.span - 1 - low)
    out = -(-axis.size // axis.stride)
    total = max((out - 1) * axis.stride + axis.span - axis.size, 0)
    return out == axis.out and axis.pad[0] == total // 2


def is_depthwise_layer(geometry: Geometry) -> bool:
    """Whether a DepthwiseConv layer computes it, and not a Conv of so many groups."""
    return (
        geometry.is_depthwise
        and geometry.groups > 1
        and not geometry.ones
        and len(geometry.axes) in (1, 2)
        and len({axis.stride for axis in geometry.axes}) == 1
    )


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


def written(geometry: Geometry) -> Geometry:
    """The geometry as a Keras layer has to spell it out.

    Keras takes no dilation together with a stride or an upsampling: there the kernel has
    zeros between its taps. An operator that gives a vector and sees at least half of the
    image along each axis is a Dense layer on all of it.
    """
    axes = geometry.axes
    if geometry.vector and geometry.groups == 1:
        seen = [sum(j is not None for j in axis.first_reads()) for axis in axes]
        if all(2 * n >= (axis.size or 0) for n, axis in zip(seen, axes, strict=True)):
            whole = tuple(Axis(axis.size, taps=axis.size or 1) for axis in axes)
            return replace(
                geometry, axes=whole, ones=False, biased=geometry.biased or geometry.ones
            )
    steps = max((max(axis.stride, axis.upsampling) for axis in axes), default=1)
    if steps == 1 or all(axis.dilation == 1 for axis in axes):
        return geometry
    return replace(geometry, axes=tuple(replace(axis, taps=axis.span, dilation=1) for axis in axes))


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
            "global pooling with a weight per pixel and channel, which is no pooling layer"
        )
    if not geometry.axes and geometry.groups > 1:
        raise Refused("a scale per channel of a vector, which no Keras layer but itself expresses")


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
    *(keras.ops.relu, keras.ops.relu6, keras.ops.leaky_relu, keras.ops.elu, keras.ops.selu),
    *(keras.ops.sigmoid, keras.ops.hard_sigmoid, keras.ops.tanh, keras.ops.softplus),
    *(keras.ops.silu, keras.ops.hard_silu, keras.ops.gelu, keras.ops.softmax),
    keras.ops.ones_like,
)


def is_free(operation: keras.Operation) -> bool:
    """Whether a call counts 0 under "layers": padding, reshaping, activations and the like."""
    return isinstance(operation, _FREE) or public_op(type(operation)) in _FREE_OPS

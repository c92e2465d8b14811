"""How Keras spells a padding: `padding=` and `output_padding=`, read and written."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

from kerasfold.algebra.axis import Axis, Pair, Refused
from kerasfold.algebra.geometry import Geometry


def per_axis(value: Any, rank: int) -> tuple[int, ...]:
    """What Keras takes as one number for all axes, or as one for each."""
    return (value,) * rank if isinstance(value, int) else tuple(int(v) for v in value)


def padded_axis(axis: Axis, padding: str | Pair) -> Axis:
    """`axis` with a Keras padding, in normal form."""
    n, s, span = axis.size, axis.stride, axis.span
    if padding == "same":
        if n is None and s > 1 and span > 1:
            return _same(axis)
        total = span - 1 if n is None else max((math.ceil(n / s) - 1) * s + span - n, 0)
        pad = (total // 2, total - total // 2)
    elif padding == "causal":
        pad = (span - 1, 0)
    elif padding == "valid":
        pad = (0, 0)
    else:
        assert not isinstance(padding, str)
        pad = padding
    axis = Axis(n, axis.taps, s, axis.dilation, pad=pad)
    if axis.out is not None and axis.out < 1:
        raise Refused(f"an image of {n} samples is smaller than the kernel ({span})")
    return axis.tight()


def transposed_axis(
    n: int | None, taps: int, stride: int, dilation: int, padding: str, extra: int | None
) -> Axis:
    """One axis of a transposed convolution, aligned as TensorFlow's gradient of a convolution.

    The full result has L(n - 1) + span samples; 'same' drops (span - L) of them, and
    `output_padding` restates the output size (Keras, `compute_conv_transpose_output_shape`).
    """
    span = dilation * (taps - 1) + 1
    # Output samples are L (n - 1) + `tail`.
    if padding == "same":
        tail = stride if extra is None else span - 2 * (span // 2) + extra
        cut = max(span - tail, 0) // 2
    else:
        tail = max(span, stride) if extra is None else span + extra
        cut = 0
    lo = span - 1 - cut
    return Axis(
        n, taps, dilation=dilation, upsampling=stride, pad=(lo, tail + span - 2 - lo)
    ).tight()


def _same(axis: Axis) -> Axis:
    return Axis(axis.size, axis.taps, axis.stride, axis.dilation, same=True)


def nearest_axis(size: int | None, factor: int) -> Axis:
    """An axis whose samples are repeated."""
    return Axis(size, taps=factor, upsampling=factor, pad=(factor - 1, factor - 1))


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


def sees_all(geometry: Geometry) -> bool:
    """Whether a Dense layer takes all of the image."""
    return geometry.groups == 1 and written(geometry).taps == tuple(a.size for a in geometry.axes)


def strides_idly(geometry: Geometry, is_separable: bool = False) -> bool:
    """Whether an axis with a single window has a stride, which a layer need not have.

    TensorFlow computes such a convolution of one input channel wrongly, by whole units, on
    processors with AVX2 and without AVX-512; and OpenVINO 2026.4 others, in bfloat16. A depthwise
    or separable layer has one stride for all axes, and keeps it where one of them needs it.
    """
    idle = any(_is_idle(axis) for axis in geometry.axes)
    return idle and not (
        (is_separable or (geometry.is_depthwise and geometry.groups > 1))
        and any(axis.stride > 1 and not _is_idle(axis) for axis in geometry.axes)
    )


def _is_idle(axis: Axis) -> bool:
    return axis.stride > 1 and axis.out == 1


def without_idle_strides(geometry: Geometry, is_separable: bool = False) -> Geometry:
    """The same operator without the strides that `strides_idly` speaks of."""
    if not strides_idly(geometry, is_separable):
        return geometry
    axes = []
    for axis in geometry.axes:
        if _is_idle(axis):
            assert axis.extent is not None
            pad = (axis.pad[0], axis.span - axis.extent - axis.pad[0])
            axis = replace(axis, stride=1, pad=pad).tight()
        axes.append(axis)
    return replace(geometry, axes=tuple(axes))

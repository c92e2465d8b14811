"""An operator as a layer can hold it: other arrays for the same function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from kerasfold.algebra.axis import Axis, Pair
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.layers.spelling import written


def constant_ones(operator: Operator) -> Operator:
    """With a single output pixel, what an image of ones contributes is a constant."""
    assert operator.ones is not None
    seen = operator.ones
    for d, axis in enumerate(operator.geometry.axes):
        seen = np.take(seen, [t for t, j in enumerate(axis.first_reads()) if j is not None], axis=d)
    bias = operator.bias + seen.sum(axis=tuple(range(len(operator.geometry.axes))))
    return Operator(replace(operator.geometry, ones=False, biased=True), operator.kernel, bias)


def on_image(operator: Operator) -> np.ndarray | None:
    """The kernel of a single output pixel as one weight per input sample, if it sees most."""
    geometry, kernel = operator.geometry, operator.kernel
    if written(geometry).taps != tuple(axis.size for axis in geometry.axes):
        return None
    for d, axis in enumerate(geometry.axes):
        reads = axis.first_reads()
        if reads == list(range(axis.size or 0)):
            continue  # each sample its own tap
        taps = [(t, j) for t, j in enumerate(reads) if j is not None]
        placed = np.zeros((*kernel.shape[:d], axis.size or 0, *kernel.shape[d + 1 :]))
        placed[(slice(None),) * d + ([j for _, j in taps],)] = np.take(
            kernel, [t for t, _ in taps], axis=d
        )
        kernel = placed
    return kernel


def pad_value(operator: Operator, limit: float) -> float | None:
    """The value v, up to `limit`, with which padding the input does what the image of ones does.

    None where there is none. `kernel * x^ + ones * 1^` with `ones = -v sum_i kernel[:, i]` is
    `kernel * (x - v)^`: a convolution of the input padded with v.
    """
    geometry = operator.geometry
    assert operator.ones is not None
    if any(axis.same or axis.upsampling > 1 or min(axis.pad) < 0 for axis in geometry.axes):
        return None
    sums = operator.kernel.sum(axis=-2)
    size = float(np.vdot(sums, sums))
    if not size:
        return None
    value = -float(np.vdot(operator.ones, sums)) / size
    rest = np.max(np.abs(operator.ones + value * sums))
    exact = rest <= 64 * np.finfo("float64").eps * np.max(np.abs(operator.ones))
    if not exact or not abs(value) <= limit:
        return None
    fits = np.max(np.abs(unpadded(operator, value).bias), initial=0.0) <= limit
    return value if fits else None


def unpadded(operator: Operator, value: float) -> Operator:
    """The operator on an input that is already padded with `value`."""
    taps = tuple(range(len(operator.geometry.axes)))
    bias = operator.bias - value * operator.kernel.sum(axis=-2).sum(axis=taps)
    return Operator(already_padded(operator.geometry), operator.kernel, bias)


def already_padded(geometry: Geometry) -> Geometry:
    """The sizes of an operator on an input that is already padded."""
    axes = tuple(
        Axis(
            None if a.size is None else a.size - sum(a.crop) + sum(a.pad),
            a.taps,
            a.stride,
            a.dilation,
        )
        for a in geometry.axes
    )
    return replace(geometry, axes=axes, ones=False, biased=True)


def homogeneous(operator: Operator) -> Operator:
    """The same operator with its image of ones as one more input channel of each group."""
    geometry = operator.geometry
    assert operator.ones is not None
    kernel = np.concatenate([operator.kernel, operator.ones[..., None, :]], axis=-2)
    inputs, outputs = geometry.channels
    wider = Geometry(
        geometry.axes, (inputs + geometry.groups, outputs), geometry.groups, geometry.biased
    )
    return Operator(wider, kernel, operator.bias)


def written_kernel(kernel: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Geometry]:
    """The kernel of `written`: with zeros between its taps, where Keras has no dilation."""
    dense = written(geometry)
    if dense.taps == geometry.taps:
        return kernel, dense
    full = np.zeros((*dense.taps, *kernel.shape[len(dense.axes) :]))
    full[tuple(slice(None, None, axis.dilation) for axis in geometry.axes)] = kernel
    return full, dense


def input_padding(axis: Axis, side: int) -> int:
    """Samples of zeros to put before a transposed convolution that must give more than it has."""
    return max(0, -(-(axis.pad[side] - axis.span + 1) // axis.upsampling))


def constants(values: np.ndarray, x: Any, layout: str) -> np.ndarray | float:
    """What an image is multiplied by, or shifted by, with all of its axes.

    In the image's dtype, but in no half one: of weights, mixed policies store what they round, too.

    Args:
        values: along its last axes, channels last; those that are all alike become one number,
            which runtimes broadcast faster.
        x: the image.
        layout: of the image.
    """
    if np.all(values == values.flat[0]):
        return float(values.flat[0])
    values = values.reshape((1,) * (x.ndim - 1 - values.ndim) + values.shape)
    if layout == "channels_first":
        values = np.moveaxis(values, -1, 0)
    return values[None].astype(keras.backend.result_type(x.dtype, "float32"))


def keras_pairs(pairs: Sequence[Pair]) -> Any:
    """Pairs per axis as Keras takes them: of one axis, the pair itself."""
    return tuple(pairs) if len(pairs) > 1 else pairs[0]

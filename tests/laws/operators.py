"""Operators by hand, as the layers of a model are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from laws.alone import Axis, Geometry, Operator
from laws.draws import draw_weights
from laws.oracle import same_padding


def random_weights(
    *axes: Any, channels: tuple[int, int] = (2, 3), seed: int = 0, **fields: Any
) -> Any:
    """An operator with random weights."""
    return draw_weights(Geometry(axes, channels, **fields), seed)


def depthwise(*axes: Any, value: float = 1.0, channels: int = 2, **fields: Any) -> Any:
    """An operator with one number for all weights and one group per channel."""
    geometry = Geometry(axes, (channels, channels), channels, **fields)
    return Operator(geometry, np.full(geometry.kernel_shape, value), np.zeros(channels))


def nearest(size: int | None, factor: int) -> Any:
    axis = Axis(size, factor, upsampling=factor, pad=(factor - 1, factor - 1))
    return depthwise(axis, steady=True)


def average_pool(size: int | None, pool: int) -> Any:
    return depthwise(Axis(size, pool, pool).tight(), value=1 / pool)


def selection(sizes: Sequence[int | None], channels: int, kept: slice) -> Any:
    """The pointwise operator that keeps some channels."""
    kernel = np.eye(channels)[:, kept]
    geometry = Geometry(tuple(map(Axis, sizes)), kernel.shape)
    return Operator(geometry, kernel.reshape(geometry.kernel_shape), np.zeros(kernel.shape[1]))


def same3(size: int | None = 6, **fields: Any) -> Any:
    return random_weights(Axis(size, 3, pad=(1, 1)), channels=(2, 2), **fields)


def normalised(windows: Sequence[tuple[Any, np.ndarray]], channels: int = 2) -> Any:
    """A normalised operator of one window (axis, weights) per axis."""
    geometry = Geometry(
        tuple(axis for axis, _ in windows), (channels, channels), channels, normalised=True
    )
    kernel = reduce(np.multiply.outer, [weights for _, weights in windows])
    kernel = np.broadcast_to(kernel[..., None, None], geometry.kernel_shape)
    return Operator(geometry, kernel, np.zeros(channels))


def average(*sizes: int, k: int = 3, stride: int = 1, channels: int = 2) -> Any:
    """Average pooling with padding='same'."""
    axes = [Axis(n, k, stride) for n in sizes]
    axes = [replace(axis, pad=same_padding(axis, axis.size)).tight() for axis in axes]
    return normalised([(axis, np.full(k, 1 / k)) for axis in axes], channels)


def bilinear(*sizes: int, factor: int = 2, channels: int = 2) -> Any:
    """Linear interpolation between half-pixel centres."""
    low = (3 * factor - 2) // 2
    distance = np.arange(2 * factor - factor % 2) - low + (factor - 1) / 2
    window = 1 - np.abs(distance) / factor
    taps = len(window)
    return normalised(
        [(Axis(n, taps, upsampling=factor, pad=(low, low)), window) for n in sizes], channels
    )


def same(*sizes: int, k: int = 3, biased: bool = True, dilation: int = 1, seed: int = 0) -> Any:
    """A convolution with padding='same' that keeps the size."""
    axes = [Axis(n, k, 1, dilation if k > 1 else 1) for n in sizes]
    axes = [replace(axis, pad=same_padding(axis, axis.size)) for axis in axes]
    return random_weights(*axes, channels=(2, 2), biased=biased, seed=seed)


def valid(*sizes: int, k: int = 3, stride: int = 1, biased: bool = True) -> Any:
    axes = [Axis(n, k, stride).tight() for n in sizes]
    return random_weights(*axes, channels=(2, 2), biased=biased)


def transposed(size: int, k: int = 3, factor: int = 2) -> Any:
    axis = Axis(size, k, upsampling=factor, pad=(k - 1, k - 1))
    return random_weights(axis, channels=(2, 2), biased=True)


def cropping(size: int, low: int, high: int) -> Any:
    return depthwise(Axis(size, crop=(low, high)))


def padding(size: int, low: int, high: int) -> Any:
    return depthwise(Axis(size, pad=(low, high)))

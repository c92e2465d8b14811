"""Layers with some of their channels: the same weights, of those that stay; or with others'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from kerasfold.read.alike import alike_but
from kerasfold.read.model import is_keras_own, is_of_keras
from kerasfold.read.weights import as_stored

Channels: TypeAlias = np.ndarray  # those that stay, by their numbers
L = keras.layers


class Fewer(NamedTuple):
    """What a layer of fewer channels is made with.

    Attributes:
        config: what it has otherwise than the layer.
        weights: their values, by the attribute that each is.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]


def _rows_and_columns(kernel: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Some rows and columns of the matrix of each tap."""
    return kernel.take(rows, axis=-2).take(columns, axis=-1)


def _convolution(layer: Any, reads: Channels, gives: Channels) -> Fewer:
    kernel, groups = as_stored(layer.kernel), layer.groups
    width, outputs = kernel.shape[-2], kernel.shape[-1] // groups
    blocks = [
        _rows_and_columns(kernel, reads[reads // width == g] % width, gives[gives // outputs == g])
        for g in dict.fromkeys(gives // outputs)
    ]
    config = {"filters": len(gives), "groups": len(blocks)}
    return Fewer(config, {"kernel": np.concatenate(blocks, -1), **_bias(layer, gives)})


def _depthwise(layer: Any, reads: Channels, gives: Channels) -> Fewer:
    return Fewer(
        {}, {"kernel": as_stored(layer.kernel).take(reads, axis=-2), **_bias(layer, gives)}
    )


def _separable(layer: Any, reads: Channels, gives: Channels) -> Fewer:
    depthwise, pointwise = as_stored(layer.depthwise_kernel), as_stored(layer.pointwise_kernel)
    count = depthwise.shape[-1]
    rows = (reads[:, None] * count + np.arange(count)).ravel()
    weights = {
        "depthwise_kernel": depthwise.take(reads, axis=-2),
        "pointwise_kernel": _rows_and_columns(pointwise, rows, gives),
    }
    return Fewer({"filters": len(gives)}, {**weights, **_bias(layer, gives)})


def _transposed(layer: Any, reads: Channels, gives: Channels) -> Fewer:
    kernel = _rows_and_columns(as_stored(layer.kernel), gives, reads)
    return Fewer({"filters": len(gives)}, {"kernel": kernel, **_bias(layer, gives)})


def _dense(layer: Any, reads: Channels, gives: Channels) -> Fewer:
    kernel = _rows_and_columns(as_stored(layer.kernel), reads, gives)
    return Fewer({"units": len(gives)}, {"kernel": kernel, **_bias(layer, gives)})


def _normalisation(layer: Any, reads: Channels, gives: Channels) -> Fewer:
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    weights = {name: getattr(layer, name) for name in names}
    return Fewer({}, {n: as_stored(w)[gives] for n, w in weights.items() if w is not None})


def _slopes(layer: Any, reads: Channels, gives: Channels) -> Fewer:
    return Fewer({}, {"alpha": as_stored(layer.alpha)[..., gives]})


def _bias(layer: Any, gives: Channels) -> dict[str, np.ndarray]:
    return {} if layer.bias is None else {"bias": as_stored(layer.bias)[gives]}


# Layers that mix channels, or groups of them; and those that take each by itself.
MIXING: dict[Any, Callable[[Any, Channels, Channels], Fewer]] = {
    **dict.fromkeys((L.Conv1D, L.Conv2D, L.Conv3D), _convolution),
    **dict.fromkeys((L.SeparableConv1D, L.SeparableConv2D), _separable),
    **dict.fromkeys((L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), _transposed),
    L.Dense: _dense,
}
ALIGNED: dict[Any, Callable[[Any, Channels, Channels], Fewer]] = {
    **dict.fromkeys((L.DepthwiseConv1D, L.DepthwiseConv2D), _depthwise),
    L.BatchNormalization: _normalisation,
    L.PReLU: _slopes,
}
_ALL = {**MIXING, **ALIGNED}


def can_have_fewer(operation: keras.Operation) -> bool:
    """Whether a layer of fewer channels can be made of one."""
    return type(operation) in _ALL and is_stock(operation)


def is_stock(operation: keras.Operation) -> bool:
    """Whether a layer is one of Keras's, with settings that are Keras's, and no other weights."""
    return (
        is_of_keras(operation)
        and not getattr(operation, "lora_enabled", False)
        and all(is_keras_own(x) for name, x in vars(operation).items() if _is_setting(name, x))
    )


def _is_setting(name: str, value: Any) -> bool:
    """Whether an attribute is one of a layer's settings that its config may fail to rebuild."""
    return value is not None and name.endswith(("_regularizer", "_constraint", "_initializer"))


def with_fewer(layer: Any, reads: Channels, gives: Channels, linear: bool = False) -> keras.Layer:
    """A layer that reads and gives some of the channels that another does.

    It is to be read and copied, and not to be run.

    Args:
        layer: the other; it is not touched.
        reads: the channels that are read.
        gives: those that are given.
        linear: whether it is to be without the activation of the other.
    """
    config, weights = _ALL[type(layer)](layer, reads, gives)
    without = {"activation": keras.activations.linear} if linear else {}
    return alike_but(layer, {**config, **without}, weights)


def with_slopes(layer: Any, slopes: np.ndarray) -> keras.Layer:
    """A PReLU of other slopes than another; it is to be read and copied, and not to be run.

    Args:
        layer: the other; it is not touched.
        slopes: of each sample of what it is called on, or 1 along the axes that they are the same
            along.
    """
    shared = [axis for axis, n in enumerate(slopes.shape, 1) if n == 1]
    return alike_but(layer, {"shared_axes": shared}, {"alpha": slopes})

"""The layers that an operator becomes, in words: see `kerasfold.layers.build.Builder`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kerasfold.algebra.geometry import Geometry
from kerasfold.layers.limits import is_depthwise_layer, is_pointwise_matrix
from kerasfold.layers.rewrite import input_padding
from kerasfold.layers.spelling import (
    keras_padding,
    sees_all,
    transposed_padding,
    without_idle_strides,
    written,
)


def described(geometry: Geometry | None, is_matrix: bool = False, is_padded: bool = False) -> str:
    """Layers one after another, the last with its kernel, stride, dilation and groups.

    Args:
        geometry: of the operator; None is the identity.
        is_matrix: whether what is pointwise becomes a Dense layer.
        is_padded: whether a constant is padded with, in place of an image of ones.
    """
    if geometry is None:
        return "identity"
    return " + ".join(_layers(geometry, is_matrix, is_padded))


def _layers(geometry: Geometry, is_matrix: bool, is_padded: bool) -> Iterator[str]:
    rank = len(geometry.axes)
    if geometry.vector:
        if sees_all(geometry):
            yield from ("Flatten", "Dense")
            return
        image = replace(geometry, vector=False, ones=False)
        yield from (*_layers(image, is_matrix, is_padded), "Flatten")
        return
    if geometry.ones:
        yield "a padding of its own" if is_padded else "a channel of ones"
    if any(axis.upsampling > 1 for axis in geometry.axes):
        yield from _transposed(geometry)
        return
    if rank == 0 or (is_matrix and is_pointwise_matrix(geometry)):
        yield "Dense"
        return
    geometry = written(without_idle_strides(geometry))
    if keras_padding(geometry) is None:
        if any(any(axis.crop) for axis in geometry.axes):
            yield f"Cropping{rank}D"
        if any(any(axis.pad) for axis in geometry.axes) and not (geometry.ones and is_padded):
            yield f"ZeroPadding{rank}D"
    yield f"{'Depthwise' * is_depthwise_layer(geometry)}Conv{rank}D {window(geometry)}"


def _transposed(geometry: Geometry) -> Iterator[str]:
    rank, axes = len(geometry.axes), geometry.axes
    is_whole = transposed_padding(geometry) is None
    if is_whole and any(any(axis.crop) for axis in axes):
        yield f"Cropping{rank}D"
    if is_whole and any(input_padding(axis, side) for axis in axes for side in (0, 1)):
        yield f"ZeroPadding{rank}D"
    yield f"Conv{rank}DTranspose {window(written(geometry))}"
    if is_whole:
        yield f"Cropping{rank}D"


def window(geometry: Geometry) -> str:
    """Its kernel, and what else is not 1."""
    axes = geometry.axes
    said = [_times([axis.taps for axis in axes])]
    for what, numbers in (
        ("stride", [axis.stride for axis in axes]),
        ("upsampling", [axis.upsampling for axis in axes]),
        ("dilation", [axis.dilation for axis in axes]),
    ):
        if max(numbers) > 1:
            said.append(f"{what} {_times(numbers if len(set(numbers)) > 1 else numbers[:1])}")
    if geometry.groups > 1 and not is_depthwise_layer(geometry):
        said.append(f"{geometry.groups} groups")
    return ", ".join(said)


def _times(numbers: list[int]) -> str:
    return "x".join(map(str, numbers))

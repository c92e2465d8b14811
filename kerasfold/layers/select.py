"""Channels of an image, in any order, and samples of it, at a stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

Place: TypeAlias = tuple[slice, ...]  # of each axis of an image, without the batch


def selected(x: Any, channels: Sequence[int], layout: str) -> Any:
    """The channels of a tensor, in one slice where there is one.

    Args:
        x: the tensor, with a batch.
        channels: which of its channels each one is.
        layout: of the tensor.
    """
    axis = 1 if layout == "channels_first" else x.ndim - 1
    run = run_of(channels)
    if run is None:
        return keras.ops.take(x, list(channels), axis=axis)
    place: list[Any] = [slice(None)] * x.ndim
    place[axis] = run
    return x[tuple(place)]


def run_of(channels: Sequence[int]) -> slice | None:
    """The slice that channels are, or None."""
    first, step = channels[0], channels[1] - channels[0] if len(channels) > 1 else 1
    if step < 1 or list(channels) != list(range(first, channels[-1] + 1, step)):
        return None
    return slice(first, channels[-1] + 1, step)


def in_blocks(sizes: Sequence[int | None], place: Place) -> tuple[tuple[int, ...], Place] | None:
    """A slice with strides as a reshape and a slice of neighbours, or None where it is none.

    Runtimes copy neighbours together, where they go through a slice with strides one by one. Along
    an axis of m s samples, every s-th is the same one of the s blocks that the axis behind it has
    in an image of sizes (n_0 / s_0, s_0 n_1 / s_1, ..., s_last channels).

    Args:
        sizes: of the image, channels last.
        place: the slice of each axis.

    Returns:
        The sizes of the reshaped image, and the slice of it.
    """
    shape, taken, blocks, block = [], [], 1, 0
    for size, kept in zip(sizes, place, strict=True):
        step = kept.step or 1
        if size is None or size % step:
            return None
        start, stop, _ = kept.indices(size)
        count, length = len(range(start, stop, step)), size // step
        first = block * length + start // step
        shape.append(blocks * length)
        taken.append(slice(first, first + count) if count < shape[-1] else slice(None))
        blocks, block = step, start % step
    return (tuple(shape), tuple(taken)) if 1 == blocks < max(p.step or 1 for p in place) else None

"""Channels of an image, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


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

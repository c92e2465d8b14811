"""Pools of volumes, along one axis after another: TensorFlow's CPU has none of float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from kerasfold.read.inside import Made
from kerasfold.read.model import is_of_keras

AXES = 3  # of a volume


class Windows(NamedTuple):
    """What each sample along an axis is pooled of: samples [first, last).

    Attributes:
        first: by sample that is made.
        last: the same.
    """

    first: np.ndarray
    last: np.ndarray


def _sliding(pool: Any, axis: int, size: int) -> Windows:
    """Those of one length, of which 'same' padding counts for nothing."""
    length, stride = (_along(x, axis) for x in (pool.pool_size, pool.strides or pool.pool_size))
    same = pool.padding == "same"
    count = -(-size // stride) if same else (size - length) // stride + 1
    before = max((count - 1) * stride + length - size, 0) // 2 if same else 0
    first = np.arange(count) * stride - before
    return Windows(np.maximum(first, 0), np.minimum(first + length, size))


def _adaptive(pool: Any, axis: int, size: int) -> Windows:
    """Those of as many samples as are wanted, which overlap where that does not divide the size."""
    count = _along(pool.output_size, axis)
    made = np.arange(count)
    return Windows(made * size // count, -(-(made + 1) * size // count))


def _along(value: Any, axis: int) -> int:
    return int(value if np.ndim(value) == 0 else value[axis])


# The windows, and whether their means are taken, by the kind of what pools.
_POOLS: dict[str, tuple[Callable[[Any, int, int], Windows], bool]] = {
    "AveragePooling3D": (_sliding, True),
    "AveragePool": (_sliding, True),
    "MaxPooling3D": (_sliding, False),
    "MaxPool": (_sliding, False),
    "AdaptiveAveragePooling3D": (_adaptive, True),
    "AdaptiveAveragePool": (_adaptive, True),
    "AdaptiveMaxPooling3D": (_adaptive, False),
    "AdaptiveMaxPool": (_adaptive, False),
}


def pooling(made: Made) -> Callable[..., Any] | None:
    """What computes a call that pools volumes as its layer says it; None of others."""
    operation: Any = made.operation
    windows, mean = _POOLS.get(type(operation).__name__, (None, False))
    given = tree.flatten((made.args, made.kwargs))
    shape = getattr(given[0], "shape", ()) if len(given) == 1 else ()
    if windows is None or not is_of_keras(operation) or len(shape) != AXES + 2:
        return None
    layout = operation.data_format or keras.config.image_data_format()
    first = 2 if layout == "channels_first" else 1

    def pooled(*args: Any, **kwargs: Any) -> Any:
        (x,) = tree.flatten((args, kwargs))
        sizes: Sequence[int] = x.shape[first : first + AXES]
        for axis, size in enumerate(sizes):
            x = _pooled(x, first + axis, windows(operation, axis, size), mean)
        return x

    return pooled


def _pooled(x: Any, axis: int, windows: Windows, mean: bool) -> Any:
    """The mean of each window along an axis, or its maximum."""
    lengths = windows.last - windows.first
    shape = [-1 if i == axis else 1 for i in range(AXES + 2)]
    y = None
    for place in range(max(lengths)):
        # A window that is shorter has its last sample again: a maximum does not mind.
        part = ops.take(x, np.minimum(windows.first + place, windows.last - 1), axis=axis)
        if mean:
            part = ops.where((place < lengths).reshape(shape), part, ops.zeros_like(part))
        y = part if y is None else (y + part if mean else ops.maximum(y, part))
    return y / ops.cast(lengths.reshape(shape), x.dtype) if mean else y

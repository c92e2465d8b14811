"""Units that no input reached: of activations with a flat part, those that gave one value alone.

A ReLU whose inputs are all negative is 0 whatever is in front of it, so that nothing is known of
that; of a relu6 the same holds where all are above 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import activations, layers, ops

from kerasfold.backend import in_memory
from kerasfold.read.model import is_layer, public_op

GLANCE = 64  # pixels that tell of most units that they vary

_FUNCTIONS = (
    *(activations.relu, activations.relu6, activations.hard_sigmoid, activations.hard_silu),
    *(activations.hard_tanh, activations.hard_shrink, activations.soft_shrink),
    *(activations.threshold, activations.sparse_plus, activations.sparse_sigmoid),
    activations.sparsemax,
)


def _of_relu(layer: Any) -> bool:
    return not layer.negative_slope or layer.max_value is not None


def _always(_: Any) -> bool:
    return True


# Of what is flat somewhere, whether one is that is made with its arguments.
_FLAT: dict[Any, Callable[[Any], bool]] = {
    layers.ReLU: _of_relu,
    **dict.fromkeys((getattr(ops, f.__name__) for f in _FUNCTIONS), _always),
    **dict.fromkeys((ops.clip, ops.maximum, ops.minimum, ops.sign), _always),
}


def has_flat_part(operation: keras.Operation) -> bool:
    """Whether what a call gives is the same for a range of inputs, as of a ReLU."""
    if getattr(operation, "activation", None) in _FUNCTIONS:
        return True
    kind = type(operation) if is_layer(operation) else public_op(type(operation))
    return kind in _FLAT and _FLAT[kind](operation)


class Units:
    """What each unit of some calls gave on all inputs so far: one value, or several.

    A unit is one index along the axis of the channels.

    Args:
        layout: 'channels_last' or 'channels_first', of images.
    """

    def __init__(self, layout: str = "channels_last") -> None:
        self._layout = layout
        self.first: dict[str, np.ndarray] = {}  # the value that each unit gave first
        self.still: dict[str, np.ndarray] = {}  # whether it gave no other since

    def saw(self, name: str, values: Any) -> None:
        """Take in what a call gave.

        Args:
            name: of the call.
            values: (n, ..., units), or (n, units, ...) of images in channels_first.
        """
        array = in_memory(values)
        first = self._layout == "channels_first" and array.ndim > 2
        rows = np.moveaxis(array, 1, -1) if first else array
        rows = rows.reshape(-1, rows.shape[-1] if rows.ndim > 1 else 1)
        if not rows.size:
            return
        value = self.first.setdefault(name, rows[0].copy())
        still = self.still.setdefault(name, np.ones(value.shape, bool))
        if rows.shape[1:] != value.shape:  # units of no fixed number: nothing is said of them
            still[:] = False
            return
        for part in (rows[:: max(len(rows) // GLANCE, 1)], rows):
            still[still] = np.all(part[:, still] == value[still], axis=0)

    def merge(self, other: Units) -> None:
        """Take in what another saw of the same calls."""
        for name, value in other.first.items():
            mine = self.first.setdefault(name, value)
            still = self.still.setdefault(name, other.still[name])
            still &= other.still[name] & (mine == value if mine.shape == value.shape else False)

    @property
    def unreached(self) -> dict[str, float]:
        """By call, the share of its units that gave one value alone."""
        return {name: float(np.mean(still)) for name, still in self.still.items()}

    @property
    def share(self) -> float:
        """The share of all units that gave one value alone; 0.0 where there are none."""
        still = list(self.still.values())
        return float(np.mean(np.concatenate(still))) if still else 0.0

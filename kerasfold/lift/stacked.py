"""Signals side by side, as lift rules write them."""

from __future__ import annotations

from collections.abc import Sequence

from kerasfold.algebra.axis import Refused
from kerasfold.lift.signal import Signal, require_signals


def concatenate(parts: Sequence[Signal]) -> Signal:
    """Signals of one size, stacked along the channels.

    Example:
        >>> class Mirrored(keras.layers.Layer):
        ...     def call(self, inputs):
        ...         return keras.ops.concatenate([inputs, -inputs], axis=-1)
        >>> @kerasfold.lifts(Mirrored)
        ... def mirrored(layer, x):
        ...     return kerasfold.concatenate([x, x.scale(-1.0)])
        >>> from kerasfold.testing import check_lift
        >>> check_lift(Mirrored(), input_shape=(8, 8, 3))
    """
    require_signals(parts)
    first = parts[0]
    if len(parts) == 1:
        return first
    if any(p.sizes != first.sizes for p in parts):
        raise Refused(f"a concatenation of images of sizes {[p.sizes for p in parts]}")
    operands, channels = tuple(p.node.index for p in parts), sum(p.channels for p in parts)
    return first._then("concatenate", operands, first.sizes, channels)

"""Lift rules of `keras.ops` and the operators: what layers compute, called by hand.

A rule takes the operation and the arguments of the call as its author gave them, with a
`Signal` for each tensor; constants may be numbers, arrays or variables.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.lift.operands import on_channels, operand
from kerasfold.lift.registry import lifts
from kerasfold.lift.signal import Signal, concatenate
from kerasfold.read.weights import as_array


@lifts(keras.ops.add)
def add_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = x1 + x2; a constant may have one entry, or one per channel."""
    return operand(x1, x2) + operand(x2, x1)


@lifts(keras.ops.subtract)
def subtract_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = x1 - x2."""
    return operand(x1, x2) - operand(x2, x1)


@lifts(keras.ops.multiply)
def multiply_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = x1 x2, one of them constant."""
    return operand(x1, x2) * operand(x2, x1)


@lifts(keras.ops.divide, keras.ops.true_divide)
def divide_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = x1 / x2, with x2 constant."""
    if not isinstance(x1, Signal):
        raise Refused("a division by a tensor is not linear")
    return x1 / operand(x2, x1)


@lifts(keras.ops.negative)
def negative_op(op: Any, x: Signal) -> Signal:
    """Y = -x."""
    return -x


@lifts(keras.ops.concatenate)
def concatenate_op(op: Any, xs: list[Signal]) -> Signal:
    """The channels of the inputs, one after another."""
    on_channels(op.axis, xs[0])
    return concatenate(xs)


@lifts(keras.ops.pad)
def pad_op(op: Any, x: Signal, constant_values: Any = None) -> Signal:
    """y[p] = x[p - lo], zero outside."""
    if op.mode != "constant" or (constant_values is not None and np.any(as_array(constant_values))):
        raise Refused("it pads with other than zeros")
    pairs = [tuple(p) for p in op.pad_width]
    pairs = pairs * (x.rank + 2) if len(pairs) == 1 else pairs
    if any(pairs[0]) or any(pairs[x.channel_axis]):
        raise Refused("it pads the batch or the channels")
    return x.pad([p for axis, p in enumerate(pairs) if axis not in (0, x.channel_axis)])


@lifts(keras.ops.get_item)
def get_item(op: Any, x: Signal, key: Any) -> Signal:
    """Y = x[:, a:b, ..., channels]."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (x.rank + 3 - len(keys))
    keys += [slice(None)] * (x.rank + 2 - len(keys))
    if len(keys) != x.rank + 2 or not all(isinstance(k, slice) for k in keys):
        raise Refused("it indexes with other than slices")
    if keys[0] != slice(None):
        raise Refused("it slices the batch")
    channels = keys.pop(x.channel_axis)
    crops, strides = [], []
    for n, cut in zip(x.sizes, keys[1:], strict=True):
        if cut != slice(None) and n is None:
            raise Refused("it slices an image of unknown size")
        start, stop, step = cut.indices(n or 0)
        if step < 1 or (n is not None and stop <= start):
            raise Refused("it reverses or empties an axis")
        crops.append((start, 0 if n is None else n - stop))
        strides.append(step)
    y = x.crop(crops) if any(map(any, crops)) else x
    y = y.subsample(strides) if max(strides, default=1) > 1 else y
    return y if channels == slice(None) else y.take(channels)


@lifts(keras.ops.cast, keras.ops.convert_to_tensor)
def cast(op: Any, x: Signal, *rest: Any, **options: Any) -> Signal:
    """Y = x, to what dtype it is already."""
    return x

"""Lift rules of what only rearranges samples: flattening, reshaping, permuting axes.

The batch is never among what is rearranged: such a call is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from kerasfold.algebra.axis import Refused
from kerasfold.lift.operands import same_layout
from kerasfold.lift.registry import lifts
from kerasfold.lift.signal import Signal


@lifts(keras.layers.Flatten)
def flatten(layer: Any, x: Signal) -> Signal:
    """The pixels one after another, channels fastest."""
    if x.rank:
        same_layout(layer, x)
    return x.flatten()


@lifts(keras.layers.Reshape)
def reshape(layer: Any, x: Signal) -> Signal:
    """The samples in their order, in another shape."""
    return _reshaped(x, layer.target_shape)


@lifts(keras.layers.Permute)
def permute(layer: Any, x: Signal) -> Signal:
    """The axes in another order."""
    return x.permute([axis - 1 for axis in layer.dims])


@lifts(keras.ops.depth_to_space)
def depth_to_space_op(op: Any, x: Signal) -> Signal:
    """y[2 p + t, i] = x[p, (t, i)], of blocks of two."""
    same_layout(op, x)
    block, (h, w) = op.block_size, x.sizes
    channels = x.channels // block**2
    if x.layout == "channels_first":
        image = x.reshape([block, block, channels, h, w]).permute([2, 3, 0, 4, 1])
        return image.reshape([channels, _times(h, block), _times(w, block)])
    image = x.reshape([h, w, block, block, channels]).permute([0, 2, 1, 3, 4])
    return image.reshape([_times(h, block), _times(w, block), channels])


@lifts(keras.ops.space_to_depth)
def space_to_depth_op(op: Any, x: Signal) -> Signal:
    """y[p, (t, i)] = x[2 p + t, i], of blocks of two."""
    same_layout(op, x)
    block = op.block_size
    rows, columns = (None if n is None else n // block for n in x.sizes)
    if x.layout == "channels_first":
        image = x.reshape([x.channels, rows, block, columns, block]).permute([2, 4, 0, 1, 3])
        return image.reshape([x.channels * block**2, rows, columns])
    image = x.reshape([rows, block, columns, block, x.channels]).permute([0, 2, 1, 3, 4])
    return image.reshape([rows, columns, x.channels * block**2])


def _times(size: int | None, factor: int) -> int | None:
    return None if size is None else size * factor


@lifts(keras.ops.reshape)
def reshape_op(op: Any, x: Signal) -> Signal:
    """The samples of each image in their order, in another shape."""
    batch, *shape = op.newshape
    samples = math.prod(n or 0 for n in x.shape)  # 0 where it is unknown
    if batch != -1 or min(shape, default=0) < 1 or math.prod(shape) != samples:
        parts = batch == -1 and _are_steps(x.shape, shape)
        does = "parts the images, or joins those" if parts else "may mix the images"
        raise Refused(f"a reshape to {tuple(op.newshape)} {does} of a batch")
    return _reshaped(x, shape)


def _are_steps(shape: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Whether of two shapes of images one has the axes of the other behind more."""
    fewer = min(len(shape), len(other))
    return len(shape) != len(other) and [*shape][-fewer:] == [*other][-fewer:]


@lifts(keras.ops.transpose)
def transpose_op(op: Any, x: Signal) -> Signal:
    """The axes in another order."""
    return _transposed(x, range(x.rank + 2)[::-1] if op.axes is None else op.axes)


@lifts(keras.ops.swapaxes)
def swapaxes_op(op: Any, x: Signal) -> Signal:
    """Two axes in each other's place."""
    axes = list(range(x.rank + 2))
    axes[op.axis1], axes[op.axis2] = axes[op.axis2], axes[op.axis1]
    return _transposed(x, axes)


@lifts(keras.ops.moveaxis)
def moveaxis_op(op: Any, x: Signal) -> Signal:
    """Some axes in other places."""
    axes = x.rank + 2
    moved = {to % axes: source % axes for source, to in zip(op.source, op.destination, strict=True)}
    rest = iter(axis for axis in range(axes) if axis not in moved.values())
    return _transposed(x, [moved[i] if i in moved else next(rest) for i in range(axes)])


@lifts(keras.ops.squeeze)
def squeeze_op(op: Any, x: Signal) -> Signal:
    """Without some axes of one sample."""
    given = op.axis if isinstance(op.axis, (tuple, list)) else (op.axis,)
    if op.axis is None:
        given = [i for i, n in enumerate(x.shape, 1) if n == 1]
    gone = {axis % (x.rank + 2) for axis in given}
    return _reshaped(x, [n for i, n in enumerate(x.shape, 1) if i not in gone])


@lifts(keras.ops.expand_dims)
def expand_dims_op(op: Any, x: Signal) -> Signal:
    """With more axes, of one sample."""
    given = op.axis if isinstance(op.axis, (tuple, list)) else (op.axis,)
    axes = x.rank + 2 + len(given)
    added = {axis % axes for axis in given}
    if 0 in added:
        raise Refused("it makes the batch an axis of the image")
    sizes = iter(x.shape)
    return _reshaped(x, [1 if i in added else next(sizes) for i in range(1, axes)])


def _transposed(x: Signal, axes: Sequence[int]) -> Signal:
    """The axes in another order, the batch among them."""
    if axes[0] % len(axes):
        raise Refused("it moves the batch")
    return x.permute([axis % len(axes) - 1 for axis in axes[1:]])


def _reshaped(x: Signal, shape: Sequence[int | None]) -> Signal:
    """A reshape as Keras means it: -1 is the rest."""
    if not shape:
        raise Refused("it leaves no channels")
    if -1 in shape:
        known = math.prod(n for n in shape if n not in (-1, None))
        rest = None if None in x.shape else math.prod(n or 0 for n in x.shape) // known
        shape = [rest if n == -1 else n for n in shape]
    elif None in x.shape and None not in shape:
        raise Refused("a reshape of an image of unknown size to a known one")
    return x.reshape(shape)

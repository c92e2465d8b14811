"""Lift rules of `keras.ops` and the operators: what layers compute, called by hand.

A rule takes the operation and the arguments of the call as its author gave them, with a
`Signal` for each tensor; constants may be numbers, arrays or variables.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable
from typing import Any

import keras
import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.lift.contraction import contract, shared_axes, subscripts_of
from kerasfold.lift.operands import (
    constant,
    depthwise_kernel,
    on_channels,
    operand,
    refuse_misplaced,
    same_layout,
    sliced,
    standardized,
    window_of,
)
from kerasfold.lift.registry import lifts
from kerasfold.lift.signal import Signal, weighted_sum
from kerasfold.lift.stacked import concatenate
from kerasfold.read.weights import as_array


@lifts(keras.ops.add)
def add_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = x1 + x2; a constant may vary along any axes of an image."""
    refuse_misplaced(x2, x1)
    return operand(x1, x2) + operand(x2, x1)


@lifts(keras.ops.subtract)
def subtract_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = x1 - x2."""
    return operand(x1, x2) - operand(x2, x1)


@lifts(keras.ops.multiply)
def multiply_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = x1 x2, one of them constant; zero times that is zero, but for weights, which train."""
    y = operand(x1, x2) * operand(x2, x1)
    x, factor = (x1, x2) if isinstance(x1, Signal) else (x2, x1)
    trains = isinstance(factor, keras.Variable)
    return y if trains or np.any(as_array(factor)) else weighted_sum([x], [0.0])


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


@lifts(keras.ops.deg2rad)
def deg2rad_op(op: Any, x: Signal) -> Signal:
    """Y = pi / 180 x."""
    return x * (math.pi / 180)


@lifts(keras.ops.rad2deg)
def rad2deg_op(op: Any, x: Signal) -> Signal:
    """Y = 180 / pi x."""
    return x * (180 / math.pi)


@lifts(keras.ops.zeros_like)
def zeros_like_op(op: Any, x: Signal) -> Signal:
    """Y = 0."""
    return weighted_sum([x], [0.0])


@lifts(keras.ops.batch_normalization)
def batch_normalization_op(
    op: Any, x: Signal, mean: Any, variance: Any, offset: Any = None, scale: Any = None
) -> Signal:
    """Y = scale (x - mean) / sqrt(variance + epsilon) + offset."""
    return standardized(_signal(x), op, mean, variance, scale, offset)


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
    if any(pairs[0]):
        raise Refused("it pads the batch")
    y = x.pad([p for axis, p in enumerate(pairs) if axis not in (0, x.channel_axis)])
    before, after = (_zeros(y, count) for count in pairs[x.channel_axis])
    return concatenate([*before, y, *after])


def _zeros(x: Signal, channels: int) -> list[Signal]:
    """An image of so many channels of zeros, the size of another, if there are any."""
    return [weighted_sum([x.take([0] * channels)], [0.0])] if channels else []


@lifts(keras.ops.get_item)
def get_item(op: Any, x: Signal, key: Any) -> Signal:
    """Y = x[:, a:b, ..., channels]; a number is a slice of one, and its axis goes."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (x.rank + 3 - len(keys))
    keys += [slice(None)] * (x.rank + 2 - len(keys))
    if len(keys) != x.rank + 2 or not all(isinstance(k, (slice, int)) for k in keys):
        raise Refused("it indexes with other than slices and numbers")
    numbers = {axis for axis, k in enumerate(keys) if isinstance(k, int)}
    y = sliced(x, [slice(k, k + 1 or None) if isinstance(k, int) else k for k in keys])
    return _without(y, numbers)


def _without(x: Signal, axes: Collection[int]) -> Signal:
    """The same samples without some axes, each of one sample."""
    left = [n for axis, n in enumerate(x.shape, 1) if axis not in axes]
    if not left:
        raise Refused("it leaves no channels")
    return x.reshape(left)


@lifts(keras.ops.stop_gradient, keras.ops.copy)
def stop_gradient(op: Any, x: Signal) -> Signal:
    """Y = x."""
    return x


@lifts(keras.ops.cast, keras.ops.convert_to_tensor)
def cast(op: Any, x: Signal, *rest: Any, **options: Any) -> Signal:
    """Y = x, to what dtype it is already."""
    return x


@lifts(keras.ops.take)
def take_op(op: Any, x: Signal, indices: Any) -> Signal:
    """Y = x[..., indices]; of one number, the axis of the channels goes."""
    on_channels(_axis(op, x), x)
    chosen = constant(indices).read()
    if chosen.ndim > 1 or np.any((chosen < -x.channels) | (chosen >= x.channels)):
        raise Refused("it takes other than a list of channels that there are")
    y = x.take([int(i) % x.channels for i in chosen.reshape(-1)])
    return y if chosen.ndim else _without(y, {x.channel_axis})


@lifts(keras.ops.flip)
def flip_op(op: Any, x: Signal) -> Signal:
    """Y = x[..., ::-1]."""
    on_channels(_axis(op, x), x)
    return x.take(slice(None, None, -1))


@lifts(keras.ops.roll)
def roll_op(op: Any, x: Signal) -> Signal:
    """y[..., i] = x[..., i - shift]."""
    on_channels(_axis(op, x), x)
    if not isinstance(op.shift, int):
        raise Refused("it shifts by other than one number")
    return x.take(np.roll(range(x.channels), op.shift).tolist())


@lifts(keras.ops.repeat)
def repeat_op(op: Any, x: Signal) -> Signal:
    """Each sample along an axis, as often as another."""
    if not isinstance(op.repeats, int):
        raise Refused("it repeats some samples more often than others")
    return _repeated(x, _axis(op, x), op.repeats)


@lifts(keras.ops.tile)
def tile_op(op: Any, x: Signal) -> Signal:
    """The channels, or the one sample of an axis, several times."""
    times = [op.repeats] if isinstance(op.repeats, int) else list(op.repeats)
    times = [1] * (x.rank + 2 - len(times)) + times
    if len(times) > x.rank + 2 or times[0] != 1:
        raise Refused("it tiles the batch, or adds axes")
    y = x.take([*range(x.channels)] * times[x.channel_axis])
    for axis in _pixel_axes(x):
        if times[axis] > 1 and x.shape[axis - 1] != 1:
            raise Refused("it tiles an axis of several samples")
        y = _repeated(y, axis, times[axis])
    return y


def _repeated(x: Signal, axis: int, count: int) -> Signal:
    """Each sample along an axis so many times."""
    if axis == 0:
        raise Refused("it works along the batch")
    if axis == x.channel_axis:
        return x.take([i for i in range(x.channels) for _ in range(count)])
    return x.upsample([count if a == axis else 1 for a in _pixel_axes(x)])


def _pixel_axes(x: Signal) -> list[int]:
    """The axes of the Keras tensor that are neither the batch nor the channels."""
    return [axis for axis in range(1, x.rank + 2) if axis != x.channel_axis]


@lifts(keras.ops.split)
def split_op(op: Any, x: Signal) -> list[Signal]:
    """Y0, Y1, ... = x[..., :a], x[..., a:b], ..., along the channels or an axis of the image."""
    axis, cuts = _axis(op, x), op.indices_or_sections
    if isinstance(cuts, int):
        cuts = range(0, length := _length(x, axis), length // cuts)[1:]
    return _pieces(x, axis, cuts)


@lifts(keras.ops.array_split)
def array_split_op(op: Any, x: Signal) -> list[Signal]:
    """The same, where parts may be of two sizes: those of one sample more come first."""
    axis = _axis(op, x)
    parts = np.array_split(range(length := _length(x, axis)), op.indices_or_sections)
    if len(parts) > length:
        raise Refused("it makes parts of nothing")
    return _pieces(x, axis, [int(part[0]) for part in parts[1:]])


@lifts(keras.ops.unstack)
def unstack_op(op: Any, x: Signal) -> list[Signal]:
    """Y0, Y1, ... = x[:, 0], x[:, 1], ..., along the channels or an axis of the image."""
    axis = _axis(op, x)
    places = (slice(place, place + 1) for place in range(_length(x, axis)))
    return [_without(_cut(x, axis, place), {axis}) for place in places]


def _length(x: Signal, axis: int) -> int:
    """How many samples there are along an axis."""
    length = (None, *x.shape)[axis]
    if length is None:
        raise Refused("it splits an axis of unknown size")
    return length


def _pieces(x: Signal, axis: int, cuts: Iterable[int]) -> list[Signal]:
    """What an axis is cut into."""
    pieces = itertools.pairwise([0, *cuts, None])
    return [_cut(x, axis, slice(*piece)) for piece in pieces]


def _cut(x: Signal, axis: int, piece: slice) -> Signal:
    """A part of an axis."""
    return sliced(x, [piece if a == axis else slice(None) for a in range(x.rank + 2)])


@lifts(keras.ops.diff)
def diff_op(op: Any, x: Signal) -> Signal:
    """y[p] = x[p + 1] - x[p], so many times."""
    axis = _axis(op, x)
    for _ in range(op.n):
        x = _cut(x, axis, slice(1, None)) - _cut(x, axis, slice(-1))
    return x


def _axis(op: Any, x: Signal) -> int:
    """The one axis that an operation works along, from the first."""
    axes = op.axis if isinstance(op.axis, (tuple, list)) else [op.axis]
    if len(axes) != 1 or axes[0] is None:
        raise Refused("it works along other than one axis")
    return axes[0] % (x.rank + 2)


@lifts(keras.ops.stack)
def stack_op(op: Any, xs: list[Signal]) -> Signal:
    """The inputs one after another along a new axis."""
    y, shape, channels = concatenate(xs), xs[0].shape, xs[0].channel_axis - 1
    axis = op.axis % (len(shape) + 2)
    if axis == 0:
        raise Refused("it works along the batch")
    axes = [i for i in range(len(shape) + 1) if i != channels]
    axes.insert(axis - 1, channels)
    return y.reshape([*shape[:channels], len(xs), *shape[channels:]]).permute(axes)


@lifts(keras.ops.conv)
def conv_op(op: Any, x: Any, kernel: Any) -> Signal:
    """y[p, o] = sum_{t, i} kernel[t, i, o] x[p s + t r - lo, i]."""
    same_layout(op, _signal(x))
    kernel = constant(kernel)
    return x.convolve(kernel, **window_of(op), groups=x.channels // kernel.shape[-2])


@lifts(keras.ops.depthwise_conv)
def depthwise_conv_op(op: Any, x: Any, kernel: Any) -> Signal:
    """y[p, i m + j] = sum_t kernel[t, i, j] x[p s + t r - lo, i]."""
    same_layout(op, _signal(x))
    return x.convolve(depthwise_kernel(constant(kernel)), **window_of(op), groups=x.channels)


@lifts(keras.ops.separable_conv)
def separable_conv_op(op: Any, x: Any, depthwise: Any, pointwise: Any) -> Signal:
    """A depthwise convolution, then a pointwise one."""
    return depthwise_conv_op(op, x, depthwise).convolve(constant(pointwise))


@lifts(keras.ops.conv_transpose)
def conv_transpose_op(op: Any, x: Any, kernel: Any) -> Signal:
    """Y = the transpose of a strided convolution, applied to x."""
    same_layout(op, _signal(x))
    return x.convolve_transpose(constant(kernel), output_padding=op.output_padding, **window_of(op))


def _signal(x: Any) -> Signal:
    if not isinstance(x, Signal):
        raise Refused("its first operand is a constant")
    return x


@lifts(keras.ops.average_pool)
def average_pool_op(op: Any, x: Signal) -> Signal:
    """y[p] = mean over t of x[p s + t]."""
    same_layout(op, x)
    strides = op.pool_size if op.strides is None else op.strides
    return x.average(op.pool_size, strides=strides, padding=op.padding)


@lifts(keras.ops.mean)
def mean_op(op: Any, x: Signal) -> Signal:
    """Y = mean over some axes of x."""
    return _mean(op, x)[0]


@lifts(keras.ops.sum)
def sum_op(op: Any, x: Signal) -> Signal:
    """Y = sum over some axes of x."""
    y, count = _mean(op, x)
    return y * float(count)


def _mean(op: Any, x: Signal) -> tuple[Signal, int]:
    """The mean over the axes of an operation, and of how many numbers it is."""
    every = range(x.rank + 2)
    axes = every if op.axis is None else [axis % (x.rank + 2) for axis in op.axis]
    if 0 in axes:
        raise Refused("it works along the batch")
    pixels = _pixel_axes(x)
    pool = [x.shape[axis - 1] if axis in axes else 1 for axis in pixels]
    known = [n for n in pool if n is not None]
    if len(known) < len(pool):
        raise Refused("it works along an axis of unknown size")
    y, count = x, math.prod(known)
    if x.channel_axis in axes:
        count *= x.channels
        mix = np.full((*(1,) * x.rank, x.channels, 1), 1 / x.channels)
        y = y.convolve(mix, weightless=True)
    if set(pixels) == set(axes):
        return y.global_average(op.keepdims), count
    if set(pixels) & set(axes):
        y = y.average(known, strides=known)
    return y if op.keepdims else _without(y, axes), count


@lifts(keras.ops.matmul, keras.ops.dot)
def matmul_op(op: Any, x1: Any, x2: Any) -> Signal:
    """y[..., o] = sum_i x1[..., i] x2[i, o], x2 constant."""
    kernel = constant(x2)
    if len(kernel.shape) != 2:
        raise Refused(f"its weights have shape {kernel.shape}, which is no matrix")
    return contract(_signal(x1), kernel, shared_axes(x1, kernel, [-1], [0]))


@lifts(keras.ops.tensordot)
def tensordot_op(op: Any, x1: Any, x2: Any) -> Signal:
    """Y = the sum of products over some axes of x1 and x2, x2 constant."""
    kernel, axes = constant(x2), op.axes
    if isinstance(axes, int):
        axes = range(-axes, 0), range(axes)
    own, others = ([a] if isinstance(a, int) else a for a in axes)
    return contract(_signal(x1), kernel, shared_axes(x1, kernel, own, others))


@lifts(keras.ops.inner)
def inner_op(op: Any, x1: Any, x2: Any) -> Signal:
    """y[..., o] = sum_i x1[..., i] x2[o, i], x2 constant."""
    kernel = constant(x2)
    return contract(_signal(x1), kernel, shared_axes(x1, kernel, [-1], [-1]))


@lifts(keras.ops.average)
def average_op(op: Any, x: Signal, weights: Any = None) -> Signal:
    """Y = weighted mean over an axis of x."""
    axis, channels = _axis(op, x), x.channels
    shares = np.ones(_length(x, axis)) if weights is None else constant(weights).read()
    if shares.ndim != 1:
        raise Refused("its weights vary along several axes")
    if shares.sum() == 0:
        raise Refused("its weights add up to zero")
    mixes = axis == x.channel_axis
    taps = [len(shares) if a == axis else 1 for a in _pixel_axes(x)]
    kernel = (shares / shares.sum()).reshape(*taps, *((channels, 1) if mixes else (1, 1)))
    if not mixes:
        kernel = np.broadcast_to(kernel, (*taps, 1, channels))
    return _without(x.convolve(kernel, groups=1 if mixes else channels), {axis})


@lifts(keras.ops.einsum)
def einsum_op(op: Any, *operands: Any) -> Signal:
    """Y = the sum of products that an equation says, of a tensor and a constant."""
    if len(operands) != 2:
        raise Refused(f"it has {len(operands)} operands")
    x, kernel = operands if isinstance(operands[0], Signal) else reversed(operands)
    return contract(x, kernel, subscripts_of(op.subscripts, x, first=x is operands[0]))

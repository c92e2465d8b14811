"""What calls that are not affine make of what is known of their inputs: see `lift.ranges`."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops, tree

from kerasfold import backend
from kerasfold.algebra.product import Array
from kerasfold.lift.activations import acts_on_samples
from kerasfold.lift.pointwise import works_by_sample
from kerasfold.lift.ranges import Range, widened
from kerasfold.lift.successive import CLAMPS, Clamp, clamp_of, samples_seen
from kerasfold.read.graph import Call, Tensor
from kerasfold.read.model import is_keras_own, is_of_keras
from kerasfold.read.weights import as_array

Function = Callable[[Any], Any]

# Between which numbers the values of functions lie, by name, rounded outwards.
_VALUES = {
    "relu": (0.0, math.inf),
    "elu": (-math.inf, math.inf),
    "selu": (-1.7582, math.inf),
    "silu": (-0.2785, math.inf),
    "gelu": (-0.1701, math.inf),
    "mish": (-0.309, math.inf),
    "hard_silu": (-0.376, math.inf),
    "softplus": (0.0, math.inf),
    "exponential": (0.0, math.inf),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "log_sigmoid": (-math.inf, 0.0),
}
_OPS = {ops.exp: "exponential", ops.swish: "silu", ops.hard_swish: "hard_silu"}
_POOLS = (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D)
_WHOLE = (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)
MEANS = (
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
    layers.GlobalAveragePooling3D,
)
BY_CHANNEL = (*_POOLS, *_WHOLE, *MEANS)


def activated(activation: Any, x: Range) -> Range:
    """What an inline activation makes of what is known."""
    clamp = CLAMPS.get(activation) if activation.__hash__ else None
    if clamp is not None:
        return _clamped(clamp, x)
    if not is_keras_own(activation):  # of any name, in what dtype it likes
        return Range.unknown(x.rank, len(x.low))
    name = getattr(activation, "__name__", "")
    if not acts_on_samples(activation):
        return _within(name, x.rank, len(x.low))
    return _applied(activation, name, x)


def after_call(call: Call, xs: Sequence[Range], rank: int, layout: str) -> Range | None:
    """What is known of the one output of a call that is not affine, if anything is.

    Args:
        call: the call.
        xs: what is known of its inputs.
        rank: axes of the image that it gives.
        layout: of the model.
    """
    operation = call.operation
    clamp = clamp_of(call)
    if clamp is not None:
        return _clamped(clamp, xs[0])
    if call.kind in (*_POOLS, *_WHOLE):
        return _maximum(call, xs[0], rank)
    if call.kind in MEANS:
        return _mean(xs[0], rank)
    if call.kind in (layers.Activation, layers.Softmax):
        return activated(getattr(operation, "activation", keras.activations.softmax), xs[0])
    if call.kind is layers.PReLU and layout == "channels_last":
        return _sloped(as_array(operation.alpha), xs[0])
    if works_by_sample(call) and is_of_keras(operation):
        name = _OPS.get(call.kind, getattr(call.kind, "__name__", ""))
        return _applied(_function(call), name, xs[0])
    together = _OF_SEVERAL.get(call.kind)
    if together is None or len(xs) < 2 or len({(x.rank, len(x.low)) for x in xs}) > 1:
        return None
    return functools.reduce(together, xs)


def _function(call: Call) -> Function:
    """What a call computes of its tensor."""
    operation: Any = call.operation
    match call.kind:
        case layers.ReLU:
            names = ("negative_slope", "max_value", "threshold")
            settings = {name: getattr(operation, name) for name in names}
            return functools.partial(keras.activations.relu, **settings)
        case layers.LeakyReLU:
            slope = operation.negative_slope
            return functools.partial(keras.activations.leaky_relu, negative_slope=slope)
        case layers.ELU:
            return functools.partial(keras.activations.elu, alpha=operation.alpha)

    def called(x: Any) -> Any:
        args, kwargs = tree.map_structure(
            lambda value: x if isinstance(value, Tensor) else value, (call.args, call.kwargs)
        )
        return operation.call(*args, **kwargs)

    return called


def _clamped(clamp: Clamp, x: Range) -> Range:
    """min(max(x, low), high)."""
    low, high = (np.clip(end, clamp.low, clamp.high) for end in (x.low, x.high))
    image = np.where(x.fixed, np.clip(x.image, clamp.low, clamp.high), low)
    fixed = x.fixed | (low == high)
    return Range.between(low, high, x.rank).having(fixed, image)


def _within(name: str, rank: int, channels: int) -> Range:
    low, high = _VALUES.get(name, (-math.inf, math.inf))
    return Range.between(np.full(channels, low), np.full(channels, high), rank)


def _applied(function: Function, name: str, x: Range) -> Range:
    """What a function of each sample makes of what is known."""
    found = _within(name, x.rank, len(x.low))
    if not (x.fixed.any() and backend.has_double()):
        return found
    with backend.double_precision():
        image = ops.convert_to_numpy(function(ops.convert_to_tensor(x.image, dtype="float64")))
    good = np.isfinite(image).all(axis=tuple(range(x.rank)))
    if image.dtype != np.float64:
        return found
    return found.having(x.fixed & good, image)


def _sloped(alpha: Array, x: Range) -> Range:
    """X where it is positive, else alpha x."""
    image = np.maximum(x.image, 0.0) + alpha * np.minimum(x.image, 0.0)
    return Range.unknown(x.rank, len(x.low)).having(x.fixed, image)


def _maximum(call: Call, x: Range, rank: int) -> Range:
    """Maxima of windows, or of the whole image."""
    found = Range.between(x.low, x.high, rank)
    if call.kind in _WHOLE:
        image = x.image.max(axis=tuple(range(x.rank)))
        return found.having(x.fixed, image.reshape((1,) * rank + image.shape))
    image, pool = x.image, call.operation
    sizes = tuple(n if n > 1 else k for n, k in zip(image.shape, pool.pool_size, strict=False))
    for axis, windows in enumerate(samples_seen(pool, sizes)):
        if image.shape[axis] > 1:
            image = np.stack([image.take(seen, axis=axis).max(axis=axis) for seen in windows], axis)
    return found.having(x.fixed, image)


def _mean(x: Range, rank: int) -> Range:
    """The mean of an image of unknown size; of what is the same all over, that."""
    fixed = x.fixed & np.all(x.image == x.constants, axis=tuple(range(x.rank)))
    image = x.constants.reshape((1,) * rank + (-1,))
    return Range.between(x.low, x.high, rank).having(fixed, image)


def _product(x: Range, y: Range) -> Range:
    with np.errstate(invalid="ignore"):
        ends = [
            np.nan_to_num(a * b, nan=0.0, posinf=math.inf, neginf=-math.inf)
            for a, b in itertools.product((x.low, x.high), (y.low, y.high))
        ]
    zero = [z.fixed & ~z.image.any(axis=tuple(range(z.rank))) for z in (x, y)]
    fixed = (x.fixed & y.fixed) | zero[0] | zero[1]
    found = widened(np.minimum.reduce(ends), np.maximum.reduce(ends), 1, max(x.rank, y.rank))
    return found.having(fixed, x.image * y.image)


def _sum(x: Range, y: Range) -> Range:
    with np.errstate(invalid="ignore"):
        found = widened(x.low + y.low, x.high + y.high, 1, max(x.rank, y.rank))
    return found.having(x.fixed & y.fixed, x.image + y.image)


def _extreme(pick: Callable[[Array, Array], Array], x: Range, y: Range) -> Range:
    low, high = pick(x.low, y.low), pick(x.high, y.high)
    found = Range.between(low, high, max(x.rank, y.rank))
    return found.having(x.fixed & y.fixed, pick(x.image, y.image))


_OF_SEVERAL: dict[Any, Callable[[Range, Range], Range]] = {
    **dict.fromkeys((layers.Multiply, ops.multiply), _product),
    **dict.fromkeys((layers.Add, ops.add), _sum),
    **dict.fromkeys((layers.Maximum, ops.maximum), functools.partial(_extreme, np.maximum)),
    **dict.fromkeys((layers.Minimum, ops.minimum), functools.partial(_extreme, np.minimum)),
}

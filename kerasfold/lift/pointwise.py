"""Which calls work on every pixel by itself, all alike, and which only put pixels elsewhere.

Of the first, what is not read need not be computed; they may stand before or behind the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from keras import KerasTensor, layers, ops, tree

from kerasfold.lift.activations import laws_of
from kerasfold.read.graph import Call

Order: TypeAlias = tuple[int, ...]  # of each axis, which one it was, the batch among them

PERMUTING = (layers.Permute, ops.transpose, ops.swapaxes, ops.moveaxis)
# Of several tensors.
_JOINING = (
    *(layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum),
    *(layers.Minimum, ops.add, ops.subtract, ops.multiply, ops.divide, ops.true_divide),
    *(ops.divide_no_nan, ops.maximum, ops.minimum, ops.power, ops.arctan2, ops.logaddexp),
    *(ops.where, ops.greater, ops.greater_equal, ops.less, ops.less_equal, ops.equal),
    *(ops.not_equal, ops.logical_and, ops.logical_or),
)


def _always(call: Call, axes: range) -> bool:
    return True


def _by_its_laws(call: Call, axes: range) -> bool:
    return laws_of(call.operation).pointwise


def _slope_is_shared(call: Call, axes: range) -> bool:
    return all(call.operation.alpha.shape[axis - 1] == 1 for axis in axes)


def _joins_channels(call: Call, axes: range) -> bool:
    return call.operation.axis % len(call.outputs[0].shape) not in (0, *axes)


# By kind, whether a call works so along some axes, if what it is given has the sizes for it.
_CONDITIONS: dict[Any, Callable[[Call, range], bool]] = {
    **dict.fromkeys(_JOINING, _always),
    layers.PReLU: _slope_is_shared,
    layers.Concatenate: _joins_channels,
    ops.concatenate: _joins_channels,
}


def works_by_pixel(call: Call, axes: range) -> bool:
    """Whether a call makes each pixel of what it is given there, by the same function everywhere.

    Args:
        call: the call.
        axes: those of the pixels, in the tensors; what has one sample along one is repeated.
    """
    condition = _CONDITIONS.get(call.kind, _by_its_laws)
    if len(call.outputs) != 1 or not call.inputs or call.training:
        return False
    (output,) = call.outputs
    if any(x.masked for x in (*call.inputs, output)):
        return False
    return (
        all(len(x.shape) == len(output.shape) for x in call.inputs)
        and all(x.shape[axis] in (1, output.shape[axis]) for x in call.inputs for axis in axes)
        # Keras may take what varies for a bias along another axis, where that is as long.
        and _has_numbers_alone(call)
        and condition(call, axes)
    )


def works_by_sample(call: Call) -> bool:
    """Whether a call of one tensor makes each sample of the one at its place, all alike."""
    return (
        len(call.inputs) == len(call.outputs) == 1
        and not call.training
        and (call.kind in _JOINING or _is_pointwise(call.operation))
        and _has_numbers_alone(call)
    )


def joins_samples(call: Call) -> bool:
    """Whether a call of tensors of one shape makes each sample of those at its place, all alike."""
    return (
        call.kind in _JOINING
        and len(call.inputs) > 1
        and len({x.shape for x in (*call.inputs, *call.outputs)}) == 1
        and not call.training
        and _has_numbers_alone(call)
    )


def works_in_place(call: Call) -> bool:
    """Whether a call of one tensor makes each sample of the one at its place."""
    return works_by_sample(call) or (call.kind is layers.PReLU and not call.training)


def _has_numbers_alone(call: Call) -> bool:
    """Whether each array that a call is given is one number."""
    return all(np.size(x) == 1 for x in tree.flatten(call.constants) if hasattr(x, "shape"))


def _is_pointwise(operation: Any) -> bool:
    if type(operation) is layers.Rescaling:
        return np.size(operation.scale) == np.size(operation.offset) == 1
    return laws_of(operation).pointwise


def order_of_axes(call: Call) -> Order | None:
    """Which axes a call permutes how, if it does only that, and leaves the batch."""
    if call.kind not in PERMUTING:
        return None
    (x,), operation = call.inputs, call.operation
    if x.masked or x.dtype != call.outputs[0].dtype or call.cut is not None:
        return None
    sizes: Order = tuple(range(2, 2 + len(x.shape)))  # each another
    if isinstance(operation, layers.Permute):
        shape = operation.compute_output_shape(sizes)
    else:
        shape = operation.compute_output_spec(KerasTensor(sizes)).shape
    order = tuple(n - 2 for n in shape)
    return order if order[0] == 0 else None


def _permuted_axes(call: Call) -> Any:
    order = order_of_axes(call)
    return None if order is None else [i for i, axis in enumerate(order) if i != axis]


def _its_axis(call: Call) -> Any:
    return call.operation.axis


def _taken_axis(call: Call) -> Any:
    """The one that is taken along, of what is there."""
    axis, indices = call.operation.axis, np.concatenate([*map(np.ravel, call.constants)])
    size = None if axis is None else call.inputs[0].shape[axis]
    return None if size is None or np.any((indices < -size) | (indices >= size)) else axis


def _padded_axes(call: Call) -> Any:
    """Those that are padded, with samples of the image."""
    width = np.broadcast_to(call.operation.pad_width, (len(call.outputs[0].shape), 2))
    mirrors = call.operation.mode in ("reflect", "symmetric")
    return np.flatnonzero(width.any(axis=1)) if mirrors else None


# By kind, the axes along which a call puts its samples; None where it does otherwise.
_PLACING: dict[Any, Callable[[Call], Any]] = {
    **dict.fromkeys((ops.flip, ops.roll, ops.repeat), _its_axis),
    **dict.fromkeys((layers.Concatenate, ops.concatenate), _its_axis),
    **dict.fromkeys(PERMUTING, _permuted_axes),
    ops.take: _taken_axis,
    ops.pad: _padded_axes,
}


def places_pixels(call: Call, axes: range) -> bool:
    """Whether a call puts whole pixels of what it reads elsewhere, maybe several times, or none.

    Args:
        call: the call.
        axes: those of the pixels, in its output.
    """
    along = _PLACING[call.kind](call) if call.kind in _PLACING else None
    if along is None or call.training:
        return False
    (output,) = call.outputs
    rank = len(output.shape)
    return all(len(x.shape) == rank and x.dtype == output.dtype for x in call.inputs) and {
        int(axis) % rank for axis in np.ravel(along)
    } <= {*axes}


def reshapes_pixels(call: Call) -> bool:
    """Whether a call reshapes all axes but the last, the batch among them, and no pixel."""
    if call.kind is not ops.reshape or call.cut is not None:
        return False
    (x,), (output,) = call.inputs, call.outputs
    same = x.shape[-1] is not None and x.shape[-1:] == output.shape[-1:]
    return same and x.dtype == output.dtype and not (x.masked or output.masked)


def gives_maxima_of_pixels(call: Call, axes: range) -> bool:
    """Whether a call gives the maximum of each channel along some of the axes of the pixels."""
    if call.kind is not ops.max or call.operation.axis is None:
        return False
    (x,), operation = call.inputs, call.operation
    return operation.initial is None and {i % len(x.shape) for i in operation.axis} <= {*axes}


def repeats_vectors(call: Call) -> bool:
    """Whether a call makes a sequence of each vector, which is that at every step."""
    return call.kind is layers.RepeatVector


_REPEATING = (layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D)


def repeats_pixels(call: Call) -> bool:
    """Whether a call repeats each pixel."""
    nearest = getattr(call.operation, "interpolation", "nearest") == "nearest"
    return call.kind in _REPEATING and nearest

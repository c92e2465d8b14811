"""Which values an input is to be compared on: those that what reads it tells apart.

The graph is walked from its inputs, as far as tensors hold numbers of the inputs and nothing else:
moved about, cast, scaled and shifted. What reads such a tensor then says what it asks of it. A
table asks for each of its rows; all else for numbers about as large as those that it computes with:
behind `Rescaling(1 / 255)` they are some hundred in the input.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops, tree

from kerasfold.algebra.axis import Refused
from kerasfold.equivalence.asks import Ask, Asked, Blank, Numbers, Rows
from kerasfold.equivalence.reached import Sent, reached
from kerasfold.equivalence.tables import COUNTED, rows_of, tables_in
from kerasfold.read.graph import Call, Graph, Tensor
from kerasfold.read.model import input_structure, is_pure, sublayers
from kerasfold.read.weights import as_array

HASHED = 16  # numbers for each bin that a hash puts them in
LOST = 2.0**-20  # of a number that a change of it is lost beside


@dataclass(frozen=True, eq=False, slots=True)
class Held:
    """A tensor of numbers of the inputs, each times `scale` plus `offset`.

    Attributes:
        places: (1, ...) of one sample, where each number is among all those of the inputs; -1 of a
            number that is none of them.
        scale: of the same shape.
        offset: of the same shape.
    """

    places: np.ndarray
    scale: np.ndarray
    offset: np.ndarray

    @classmethod
    def of(cls, places: np.ndarray) -> Held:
        """Numbers as they are given."""
        return cls(places, *(np.broadcast_to(x, places.shape) for x in (1.0, 0.0)))

    def rows(self, values: Any, guessed: bool = False) -> Asked:
        """What looks it up in a table of these values asks for."""
        places, scale, offset = self._of_inputs()
        values = np.asarray(values)
        return [
            Rows(
                places[(scale == s) & (offset == o)],
                values if (s, o) == (1, 0) else (values - o) / s,
                guessed,
            )
            for s, o in dict.fromkeys(zip(scale.tolist(), offset.tolist(), strict=True))
        ]

    def numbers(self, centre: float = 0.0, unit: float = 1.0) -> Asked:
        """What computes with it asks for.

        Where the unit is lost beside the centre the number is a flag, as of a mask m that becomes
        1e9 * (m - 1): that asks for both of its values.
        """
        places, scale, offset = self._of_inputs()
        centres, units = (centre - offset) / scale, np.abs(unit / scale)
        flag = units < LOST * np.abs(centres)
        flags = [
            Rows(places[flag & (centres == c)], np.array([0.0, c])) for c in set(centres[flag])
        ]
        return [*flags, Numbers(places[~flag], centres[~flag], units[~flag])]

    def blank(self, value: float) -> Asked:
        """What asks for one value of all of it."""
        places, scale, offset = self._of_inputs()
        return [Blank(places, (value - offset) / scale)]

    def sent(self, whole: np.ndarray, tried: np.ndarray) -> Sent:
        """What candidates for its numbers that are some of `whole` become."""
        held = np.isin(self.places, whole)
        laws = set(zip(self.scale[held].tolist(), self.offset[held].tolist(), strict=True))
        scale, offset = laws.pop() if len(laws) == 1 else (1, 0)
        return Sent(np.unique(self.places[held]), tried * scale + offset)

    def _of_inputs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places, scales and offsets of its numbers that are some of the inputs."""
        held = self.places >= 0
        return self.places[held], self.scale[held], self.offset[held]


def tells_values(operation: keras.Operation) -> bool:
    """Whether a layer that is made of others holds some that ask for values of their own."""
    return any(type(layer) in _ASKING or type(layer) in _TELLING for layer in sublayers(operation))


# Every value of these is one that an input may have.
_ALL_VALUES = {"bool": range(2), "uint8": range(256), "int8": range(-128, 128)}


def asked(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> Asked:
    """What the calls of a graph ask of its inputs.

    Args:
        graph: of a model.
        shapes: of its inputs without the batch, in flat order.
    """
    inputs = tree.flatten(graph.inputs)
    held = {x.index: y for x, y in zip(inputs, _given(shapes), strict=True)}
    found: Asked = []
    for x in inputs:
        found += held[x.index].rows(_ALL_VALUES[x.dtype]) if x.dtype in _ALL_VALUES else []
    for call in graph.calls:
        read = [x for x in dict.fromkeys(call.inputs) if x.index in held]
        if not read:
            continue
        found += _BLANK[call.kind](call, held[read[0].index]) if call.kind in _BLANK else []
        try:
            passed = _PASSING.get(call.kind, _hidden)(call, held)
        except Refused:
            for x in read:
                found += _ASKING.get(call.kind, _computed)(call, x, held[x.index])
        else:
            held |= zip((x.index for x in call.outputs), passed, strict=True)
    for x in tree.flatten(graph.outputs):
        found += held[x.index].numbers() if x.index in held else []
    through = reached(graph, held, lambda call: _PASSING.get(call.kind) is _moved)
    rows = [Rows(places, values, guessed=True) for places, values in through]
    guesses = [x for x in found if isinstance(x, Rows) and x.guessed]
    return [*(x for x in found if x not in guesses), *rows, *(x.without(rows) for x in guesses)]


def asked_unread(model: keras.Model, shapes: Sequence[tuple[int, ...]]) -> Asked:
    """What a model that cannot be read may ask of its integers: rows that all its tables have."""
    tables = tables_in(model)
    found: Asked = []
    for spec, x in zip(tree.flatten(input_structure(model)), _given(shapes), strict=True):
        if not keras.backend.is_float_dtype(spec.dtype):
            values = range(min(tables)) if tables else _ALL_VALUES.get(spec.dtype, range(2))
            found += x.rows(values, guessed=True)
    return found


def of_both(asked: Asked, others: Sequence[Ask] = ()) -> Asked:
    """What a model asks of its inputs, and another of the same inputs.

    Both compute with numbers of their own size; of the second, with those that it says more of than
    that they are usual. Rows are those of the first: what the second has no row for it is to be
    asked all the same. It says which there are where the first is not known to
    look up, or to compute with, what it is given; and what is guessed is used where nothing is
    known.
    """
    numbers = [x for x in asked if isinstance(x, Numbers)]
    rows, guesses = (
        [x for x in asked if isinstance(x, Rows) and x.guessed is guessed]
        for guessed in (False, True)
    )
    theirs = [x for x in others if isinstance(x, Rows) and not x.guessed]
    rows += [x.without([*rows, *numbers]) for x in theirs]
    rows += [x.without(rows) for x in guesses]
    numbers += [x for x in others if isinstance(x, Numbers) and (x.is_told or not numbers)]
    blank = [x for x in (*others, *asked) if isinstance(x, Blank)]
    return [*numbers, *blank, *(x for x in rows if len(x.places))]


def _given(shapes: Sequence[tuple[int, ...]]) -> list[Held]:
    """The inputs themselves."""
    starts = itertools.accumulate(map(math.prod, shapes), initial=0)
    return [
        Held.of(np.arange(start, start + math.prod(shape)).reshape(1, *shape))
        for start, shape in zip(starts, shapes, strict=False)
    ]


# Calls that pass numbers of the inputs on.


def _hidden(call: Call, held: Mapping[int, Held]) -> list[Held]:
    """All calls that are not among those below."""
    raise Refused("hides what its input is")


def _same(call: Call, held: Mapping[int, Held]) -> list[Held]:
    """`y = x`, at inference."""
    return [held[call.inputs[0].index]]


def _moved(call: Call, held: Mapping[int, Held]) -> list[Held]:
    """`y[i] = x[place of i]`, as is seen by what the call does to places; or what is none of x."""
    read = list(dict.fromkeys(call.inputs))
    if any(x.index not in held for x in read):
        raise Refused("reads something else too")
    parts = [Held.of(np.full(1, -1)), *(held[x.index] for x in read)]  # what pads is none of x
    ends = itertools.accumulate(x.places.size for x in parts)
    numbers = {}
    for x, part, start in zip(read, parts[1:], ends, strict=False):
        number = np.arange(start, start + part.places.size, dtype="int32")
        numbers[x.index] = np.repeat(number.reshape(part.places.shape), x.shape[0] or 1, axis=0)
    args, kwargs = tree.map_structure(
        lambda x: ops.convert_to_tensor(numbers[x.index]) if isinstance(x, Tensor) else x,
        (call.args, call.kwargs),
    )
    try:
        moved = tree.flatten(call.operation(*args, **kwargs))
    except Exception:
        raise Refused("does not run on integers") from None
    columns = ((x.places, x.scale, x.offset) for x in parts)
    whole = [np.concatenate([x.ravel() for x in column]) for column in zip(*columns, strict=True)]
    return [Held(*(x[_whole(ops.convert_to_numpy(y)[:1])] for x in whole)) for y in moved]


def _whole(places: np.ndarray) -> np.ndarray:
    """Places, which some layers cast to what they compute in. Raises `Refused` of any others."""
    if places.dtype.kind in "iu":
        return places
    exact = places.dtype.kind == "f" and np.max(places, initial=0) < 1 / np.finfo(places.dtype).eps
    if not exact or np.any(places != np.rint(places)):
        raise Refused("makes other numbers of integers")
    return places.astype(int)


def _padded(call: Call, held: Mapping[int, Held]) -> list[Held]:
    """`y = x` with a border, which is none of `x` if it is a constant."""
    return _moved(replace(call, kwargs={}), held)


def _resized(call: Call, held: Mapping[int, Held]) -> list[Held]:
    """`y = x` in another size: each number is asked for as the nearest that it is made of."""
    config = {**call.operation.get_config(), "interpolation": "nearest"}
    return _moved(replace(call, operation=layers.Resizing.from_config(config)), held)


def _scaled(x: Held, scale: Any, offset: Any) -> list[Held]:
    """`y = scale * x + offset`."""
    scale, offset = as_array(scale), as_array(offset)
    if not (np.all(scale) and np.all(np.isfinite(scale)) and np.all(np.isfinite(offset))):
        raise Refused("hides what its input is")
    arrays = np.broadcast_arrays(x.places, x.scale * scale, x.offset * scale + offset)
    return [Held(*(array[:1] for array in arrays))]


def _rescaled(call: Call, held: Mapping[int, Held]) -> list[Held]:
    """`y = scale * x + offset`."""
    layer: Any = call.operation
    return _scaled(held[call.inputs[0].index], layer.scale, layer.offset)


def _normalised(call: Call, held: Mapping[int, Held]) -> list[Held]:
    """`y = (x - mean) / deviation`, or back."""
    layer: Any = call.operation
    mean = as_array(layer.mean)
    deviation = np.maximum(np.sqrt(as_array(layer.variance)), keras.backend.epsilon())
    x = held[call.inputs[0].index]
    if layer.invert:
        return _scaled(x, deviation, mean)
    with np.errstate(invalid="ignore"):  # what overflows its dtype is refused, by its result
        return _scaled(x, 1 / deviation, -mean / deviation)


def _batch_normalised(call: Call, held: Mapping[int, Held]) -> list[Held]:
    """`y = (x - mean) / deviation`; what it then scales by is what it computes."""
    layer: Any = call.operation
    x = held[call.inputs[0].index]
    axes = [a for a in range(x.places.ndim) if a != layer.axis % x.places.ndim]
    deviation = np.sqrt(as_array(layer.moving_variance) + layer.epsilon)
    mean = as_array(layer.moving_mean)
    return _scaled(x, *(np.expand_dims(v, axes) for v in (1 / deviation, -mean / deviation)))


# y as (scale, offset) of x, for x with a constant, and for a constant with x.
_ARITHMETIC: dict[Any, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    ops.add: (lambda c: (1, c), lambda c: (1, c)),
    ops.subtract: (lambda c: (1, -c), lambda c: (-1, c)),
    ops.multiply: (lambda c: (c, 0), lambda c: (c, 0)),
    ops.true_divide: (lambda c: (1 / c, 0), lambda c: (0, c)),  # c / x is refused
    ops.divide: (lambda c: (1 / c, 0), lambda c: (0, c)),
}


def _calculated(call: Call, held: Mapping[int, Held]) -> list[Held]:
    """`y` of `x` and a constant."""
    if len(call.inputs) > 1:
        raise Refused("reads two tensors")
    first, second = call.args
    swapped = isinstance(second, Tensor)
    constant = as_array(first if swapped else second)
    return _scaled(held[call.inputs[0].index], *_ARITHMETIC[call.kind][swapped](constant))


def _negative(call: Call, held: Mapping[int, Held]) -> list[Held]:
    """`y = -x`."""
    return _scaled(held[call.inputs[0].index], -1, 0)


_TELLING = (layers.Rescaling, layers.Normalization)

_PASSING: dict[Any, Callable[[Call, Mapping[int, Held]], list[Held]]] = {
    **dict.fromkeys(
        (
            *(ops.cast, ops.convert_to_tensor, ops.copy, ops.stop_gradient),
            *(layers.Identity, layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D),
            *(layers.SpatialDropout3D, layers.GaussianNoise, layers.GaussianDropout),
            *(layers.ActivityRegularization, layers.Masking, layers.RandomBrightness),
            *(layers.RandomContrast, layers.RandomFlip, layers.RandomRotation),
            *(layers.RandomTranslation, layers.RandomZoom),
        ),
        _same,
    ),
    **dict.fromkeys(
        (
            *(ops.broadcast_to, ops.concatenate, ops.expand_dims, ops.flip, ops.get_item),
            *(ops.moveaxis, ops.ravel, ops.repeat, ops.reshape, ops.roll, ops.split),
            *(ops.squeeze, ops.stack, ops.swapaxes, ops.tile, ops.transpose, ops.unstack),
            *(layers.Concatenate, layers.CenterCrop, layers.Cropping1D, layers.Cropping2D),
            *(layers.Cropping3D, layers.Flatten, layers.Permute, layers.RepeatVector),
            *(layers.Reshape, layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
        ),
        _moved,
    ),
    **dict.fromkeys(_ARITHMETIC, _calculated),
    ops.negative: _negative,
    ops.pad: _padded,
    layers.Resizing: _resized,
    layers.Rescaling: _rescaled,
    layers.Normalization: _normalised,
    layers.BatchNormalization: _batch_normalised,
}


# Calls that ask for values.

_BLANK: dict[Any, Callable[[Call, Held], Asked]] = {
    layers.Masking: lambda call, held: held.blank(call.operation.mask_value),
}


def _counted(call: Call, x: Tensor, held: Held) -> Asked:
    """Each row, by its number."""
    counts = [n for number, n in rows_of(call) if number == x]
    return held.rows(range(counts[0])) if counts else held.numbers()


def _looked_up(call: Call, _: Tensor, held: Held) -> Asked:
    """Each word, and one that is unknown."""
    layer: Any = call.operation
    words = list(layer.get_vocabulary(include_special_tokens=False))
    return held.rows([*words, "[UNK]" if isinstance(words[0], str) else max(words) + 1])


def _binned(call: Call, _: Tensor, held: Held) -> Asked:
    """Numbers on both sides of each boundary."""
    layer: Any = call.operation
    low, high = min(layer.bin_boundaries), max(layer.bin_boundaries)
    return held.numbers((low + high) / 2, (high - low) / 2 or 1.0)


def _hashed(call: Call, _: Tensor, held: Held) -> Asked:
    """So many numbers, or their digits, that each bin has one, as good as surely."""
    layer: Any = call.operation
    return held.rows(range(HASHED * layer.num_bins), guessed=True)


def _crossed(call: Call, _: Tensor, held: Held) -> Asked:
    """So many that each bin has a pair of them."""
    layer: Any = call.operation
    return held.rows(range(math.isqrt(HASHED * layer.num_bins) + 1), guessed=True)


def _computed(call: Call, x: Tensor, held: Held) -> Asked:
    """Numbers; of what is not Keras's own, integers that any table has, 0 and 1 if need be."""
    rows = tables_in(call.operation)
    unknown = "float" not in x.dtype and not is_pure(call.operation)
    values = range(min(rows, default=2))
    return held.rows(values, guessed=True) if rows or unknown else held.numbers()


_VOCABULARIES = (layers.IntegerLookup, layers.StringLookup, layers.TextVectorization)

_ASKING: dict[Any, Callable[[Call, Tensor, Held], Asked]] = {
    **dict.fromkeys(COUNTED, _counted),
    **dict.fromkeys(_VOCABULARIES, _looked_up),
    layers.Discretization: _binned,
    layers.Hashing: _hashed,
    layers.HashedCrossing: _crossed,
}

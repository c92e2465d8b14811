"""Tables that whole numbers are looked up in: the number of a row, and how many there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kerasfold.read.graph import Call, Tensor
from kerasfold.read.model import sublayers


def tables_in(operation: keras.Operation) -> list[int]:
    """How many rows each Embedding in a layer has."""
    within = sublayers(operation) if isinstance(operation, keras.Layer) else ()
    return [layer.input_dim for layer in within if isinstance(layer, layers.Embedding)]


def _taken(call: Call) -> int:
    """The size of the axis that is taken from; 1 where it is unknown."""
    operation: Any = call.operation
    table = call.args[0]
    shape = [n or 1 for n in (table.shape if isinstance(table, Tensor) else np.shape(table))]
    return math.prod(shape) if operation.axis is None else shape[operation.axis]


# Which argument is the number of a row, and how many rows there are.
COUNTED: dict[Any, tuple[int, Callable[[Any], int]]] = {
    layers.Embedding: (0, lambda call: call.operation.input_dim),
    layers.CategoryEncoding: (0, lambda call: call.operation.num_tokens),
    ops.one_hot: (0, lambda call: call.operation.num_classes),
    ops.multi_hot: (0, lambda call: call.operation.num_classes),
    ops.take: (1, _taken),
    ops.take_along_axis: (1, _taken),
}


def rows_of(call: Call) -> list[tuple[Tensor, int]]:
    """What are numbers of rows for a call, and how many rows it has."""
    if call.kind in COUNTED:
        place, count = COUNTED[call.kind]
        number = (*call.args, *call.kwargs.values())[place]  # which may be an array
        return [(number, count(call))] if isinstance(number, Tensor) else []
    rows = tables_in(call.operation)
    return [(x, min(rows)) for x in call.inputs] if rows else []

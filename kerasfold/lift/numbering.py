"""Value numbering: calls that compute the same of the same tensors are made one.

Calls are equal where what they are called with is equal, and where they are of one layer or of
layers of one class with equal configs and weights that are equal bit for bit. That holds at
inference, of what computes and nothing else: of none that is random, keeps a state or runs code
that is not Keras's, but for layers whose lift rule says what they do.
"""

from __future__ import annotations

from collections.abc import Hashable
from types import EllipsisType
from typing import Any

import keras
import numpy as np

from kerasfold.backend import in_memory
from kerasfold.lift.rules import RULES
from kerasfold.lift.writing import rewritten
from kerasfold.read.graph import Call, Graph, Tensor, given_others
from kerasfold.read.model import has_own_activation, is_layer, is_of_keras, is_pure
from kerasfold.read.weights import shape_of


def numbered(graph: Graph) -> Graph:
    """The graph without calls that are equal to one before them; itself where there are none."""
    before: dict[int, Tensor] = {}  # of a tensor that is made again, the first
    calls: list[Call] = []
    alike: dict[Hashable, Call] = {}  # the first that is called so, by what is and on what
    equals: dict[Hashable, Call] = {}  # of those that are alike, by what they compute, too
    contents: dict[int, Hashable] = {}  # of operations

    def first(tensor: Tensor) -> Tensor:
        return before.get(tensor.index, tensor)

    for given in graph.calls:
        call = given_others(given, first)
        given_to = frozen((call.args, call.kwargs))
        outside = call.rule, call.outputs[0].dtype, _shapes(call), given_to
        rival, equal = alike.setdefault(outside, call), call
        if rival is not call:  # only then is it worth it to read weights
            for other in (rival, call):
                equal = equals.setdefault((outside, _inside(other, contents)), other)
        if equal is call:
            calls.append(call)
        else:
            pairs = zip(call.outputs, equal.outputs, strict=True)
            before |= {again.index: tensor for again, tensor in pairs}
    if not before:
        return graph
    return rewritten(graph, calls, before)


def compute_alike(a: Call, b: Call) -> bool:
    """Whether two calls of one kind give the same on the same tensors."""
    return a.kind is b.kind and _inside(a, {}) == _inside(b, {})


def _shapes(call: Call) -> Hashable:
    """Of the weights of what is called."""
    return tuple(shape_of(weight) for weight in getattr(call.operation, "weights", ()))


def _inside(call: Call, contents: dict[int, Hashable]) -> Hashable:
    """Equal for calls that give the same on the same tensors; `contents` are those known."""
    if not _computes_alone(call):
        return object()
    operation = call.operation
    if id(operation) not in contents:
        contents[id(operation)] = content_of(operation)
    return contents[id(operation)]


def _computes_alone(call: Call) -> bool:
    """Whether a call gives what its inputs and weights say, and nothing else."""
    if call.training or any(x.masked for x in (*call.inputs, *call.outputs)):
        return False
    if is_of_keras(call.operation):
        return is_pure(call.operation)
    return call.rule in RULES and not has_own_activation(call.operation)


def content_of(operation: keras.Operation) -> Hashable:
    """What an operation computes: its class, what it was made with but its name, and its weights.

    Of one that is not Keras's, itself.
    """
    if not is_of_keras(operation):
        return id(operation)
    made = operation.get_config() if is_layer(operation) else vars(operation)
    config = {
        name: value
        for name, value in made.items()
        if name != "name" and not name.startswith("_") and not name.endswith("_initializer")
    }
    return type(operation), frozen((config, getattr(operation, "weights", None)))


def frozen(value: Any) -> Hashable:
    """Of any value: equal for equal ones; of what is not known, such as a function, for none."""
    match value:
        case Tensor():
            return Tensor, value.index
        case dict():
            return dict, frozenset((name, frozen(x)) for name, x in value.items())
        case list() | tuple():
            return type(value), *map(frozen, value)
        case slice():
            return slice, *map(frozen, (value.start, value.stop, value.step))
        case keras.Variable() | np.ndarray() | np.generic():
            array = np.asarray(in_memory(value))
            return array.shape, str(array.dtype), array.tobytes()
        case None | EllipsisType() | bool() | int() | float() | str():
            return type(value), repr(value)
        case _:
            return object()

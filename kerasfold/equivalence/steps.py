"""The last step before an output that makes few values of many: argmax, rounding, a threshold.

What goes into it may be off by much before an answer on the other side is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops, tree

from kerasfold.equivalence.endings import Ending
from kerasfold.read.inside import Made
from kerasfold.read.model import function_name, public_op

_CHOOSING = (ops.argmax, ops.argmin)
_ROUNDING = (ops.round, ops.floor, ops.ceil, ops.trunc, ops.sign)
_COMPARING = (
    *(ops.greater, ops.greater_equal, ops.less, ops.less_equal, ops.equal, ops.not_equal),
)


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """A call that gives whole numbers or flags of floats.

    Attributes:
        words: what it does, the same of two that do the same.
        tensors: what it is given; of two, their difference is what counts.
        shape: of what it is given, with the batch; None where it is free.
        axis: along which only differences count, as argmax goes by them; None of others.
        is_last: whether nothing after it computes with weights: its answers are the output.
    """

    words: str
    tensors: tuple[keras.KerasTensor, ...]
    shape: tuple[int | None, ...]
    axis: int | None = None
    is_last: bool = True

    def passes(self, ending: Ending) -> bool:
        """Whether a softmax or sigmoid before it changes nothing that it gives."""
        rank = len(self.tensors[0].shape)
        along = ending.axis if ending.axis is None else np.atleast_1d(ending.axis) % rank
        return self.axis is not None and (along is None or list(along) == [self.axis])

    def given(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """What counts of the values of its tensors."""
        x, *others = (np.asarray(value, "float64") for value in values)
        for other in others:
            x = np.asarray(x - other)
        if self.axis is None:
            return np.atleast_1d(x)
        largest = np.max(x, axis=self.axis, keepdims=True, initial=-np.inf)
        return x - np.where(np.isfinite(largest), largest, 0.0)


def last_step(makers: Mapping[int, Made], output: keras.KerasTensor) -> Step | None:
    """The last such step of all that an output is computed of; None where there is none.

    Args:
        makers: the call that makes each tensor, by its id.
        output: of the model.
    """
    tensor, is_last = output, True
    while id(tensor) in makers:
        made = makers[id(tensor)]
        read = {id(x): x for x in tree.flatten((made.args, made.kwargs)) if _is_symbolic(x)}
        step = _step_of(made, tuple(read.values()))
        if step is not None:
            return replace(step, is_last=is_last)
        if len(read) != 1:
            return None
        (tensor,) = read.values()
        is_last = is_last and not getattr(made.operation, "weights", ())
    return None


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def _step_of(made: Made, read: tuple[keras.KerasTensor, ...]) -> Step | None:
    """A call as such a step, if it is one."""
    operation: Any = made.operation
    if not read or not all(keras.backend.is_float_dtype(x.dtype) for x in read):
        return None
    shape = tuple(made.outputs[0].shape)
    function, name = public_op(type(operation)), function_name(type(operation))
    if function in _CHOOSING and operation.axis is not None:
        axis = operation.axis % len(read[0].shape)
        return Step(f"{name} along axis {axis}", read, tuple(read[0].shape), axis)
    if function in _ROUNDING:
        return Step(f"{name} {getattr(operation, 'decimals', '') or ''}".strip(), read, shape)
    if function in _COMPARING:
        sides = [None if _is_symbolic(x) else np.asarray(x).tolist() for x in made.args]
        words = f"{name} {next((x for x in sides if x is not None), '')}".strip()
        return Step(words if sides[0] is None else f"{words} before it", read, shape)
    if function is ops.cast and not keras.backend.is_float_dtype(operation.dtype):
        return Step(f"cast to {operation.dtype}", read, shape)
    if type(operation) is layers.Discretization:
        return Step(f"discretization {list(operation.bin_boundaries)}", read, shape)
    return None

"""Steps that make few values of many: argmax, rounding, a threshold.

What goes into it may be off by much before an answer on the other side is seen.
"""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops, tree

from kerasfold.equivalence.endings import Ending
from kerasfold.read.inside import Made
from kerasfold.read.model import function_name, public_op

FEW = 2**13  # numbers of one sample

_CHOOSING = (ops.argmax, ops.argmin)
_ROUNDING = (ops.round, ops.floor, ops.ceil, ops.trunc, ops.sign)
_COMPARING = (
    *(ops.greater, ops.greater_equal, ops.less, ops.less_equal, ops.equal, ops.not_equal),
)


@dataclass(frozen=True, slots=True)
class Step:
    """A call that gives whole numbers or flags of floats.

    Attributes:
        words: what it does, the same of two that do the same.
        shape: of what it is given, with the batch; None where it is free.
        outputs: of the model, by number, that are computed of what it gives.
        answers: those of them that are computed with no weights of it: they are its answers.
    """

    words: str
    shape: tuple[int | None, ...]
    outputs: tuple[int, ...] = ()
    answers: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """What it does, whatever constants it does it with."""
        return self.words.split()[0]

    @property
    def numbers(self) -> int:
        """How many it is given of one sample, at least."""
        return math.prod(n or 1 for n in self.shape[1:])


@dataclass(frozen=True, eq=False, slots=True)
class Taken:
    """A step, and what it is taken of.

    Attributes:
        step: the step.
        tensors: what it is given; of two, their difference is what counts.
        axis: along which only differences count, as argmax goes by them; None of others.
    """

    step: Step
    tensors: tuple[keras.KerasTensor, ...]
    axis: int | None = None

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


def steps_of(calls: Sequence[Made], outputs: Sequence[keras.KerasTensor]) -> dict[int, Taken]:
    """The steps of a model, by the number of their call, in order.

    Of those whose answers are no output, those that are given few numbers: to keep what goes into
    each would take more memory than all else.
    """
    reached: dict[int, set[int]] = defaultdict(set)  # outputs, by the tensors they are computed of
    answers: dict[int, set[int]] = defaultdict(set)  # without weights, and of one tensor each
    for number, tensor in enumerate(outputs):
        reached[id(tensor)].add(number)
        answers[id(tensor)].add(number)
    found: dict[int, Taken] = {}
    for index, made in reversed(list(enumerate(calls))):
        read = {id(x): x for x in tree.flatten((made.args, made.kwargs)) if _is_symbolic(x)}
        here, last = (set().union(*(of[id(x)] for x in made.outputs)) for of in (reached, answers))
        taken = _step_of(made, tuple(read.values()))
        if taken is not None and here and (last or taken.step.numbers <= FEW):
            step = replace(taken.step, outputs=tuple(sorted(here)), answers=tuple(sorted(last)))
            found[index] = replace(taken, step=step)
        weighted = bool(getattr(made.operation, "weights", ()))
        ends = taken is not None or len(read) != 1 or weighted
        for tensor in read:
            reached[tensor] |= here
            answers[tensor] |= set() if ends else last
    return dict(reversed(found.items()))


def paired(mine: Sequence[Step], theirs: Sequence[Step]) -> list[tuple[int, int]]:
    """The numbers of steps of two models that do the same for the same outputs; the last first.

    Then, of those that are left, of steps that do the same with other constants.
    """
    left = [dict(reversed(list(enumerate(steps)))) for steps in (mine, theirs)]
    pairs: list[tuple[int, int]] = []
    keys: list[Callable[[Step], str]] = [operator.attrgetter("words"), operator.attrgetter("kind")]
    for key in keys:
        groups: dict[Any, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for side, steps in enumerate(left):
            for number, step in steps.items():
                groups[key(step), step.outputs][side].append(number)
        pairs += [pair for group in groups.values() for pair in zip(*group, strict=False)]
        for i, j in pairs:
            left[0].pop(i, None)
            left[1].pop(j, None)
    return pairs


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def _said(constants: Any) -> str:
    """Numbers as float32 tells them apart."""
    with np.errstate(over="ignore"):
        values = np.asarray(constants, "float32")
    words = [np.format_float_positional(x, trim="-") for x in values.ravel()]
    return f"[{', '.join(words)}]" if values.ndim else words[0]


def _step_of(made: Made, read: tuple[keras.KerasTensor, ...]) -> Taken | None:
    """A call as such a step, if it is one."""
    operation: Any = made.operation
    if not read or not all(keras.backend.is_float_dtype(x.dtype) for x in read):
        return None
    shape = tuple(made.outputs[0].shape)
    function, name = public_op(type(operation)), function_name(type(operation))
    if function in _CHOOSING and operation.axis is not None:
        axis = operation.axis % len(read[0].shape)
        return Taken(Step(f"{name} along axis {axis}", tuple(read[0].shape)), read, axis)
    if function in _ROUNDING:
        words = f"{name} {getattr(operation, 'decimals', '') or ''}".strip()
        return Taken(Step(words, shape), read)
    if function in _COMPARING:
        sides = [None if _is_symbolic(x) else _said(x) for x in made.args]
        words = f"{name} {next((x for x in sides if x is not None), '')}".strip()
        return Taken(Step(words if sides[0] is None else f"{words} before it", shape), read)
    if function is ops.cast and not keras.backend.is_float_dtype(operation.dtype):
        return Taken(Step(f"cast to {operation.dtype}", shape), read)
    if type(operation) is layers.Discretization:
        return Taken(Step(f"discretization {_said(operation.bin_boundaries)}", shape), read)
    return None

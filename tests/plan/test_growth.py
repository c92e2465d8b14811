"""What lifting and planning take grows as the graph does: with its calls and what they read.

Counted in bytecodes of kerasfold that are run, which are the same each time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

import kerasfold
from kerasfold.lift.regions import lift
from kerasfold.plan.choose import plan
from kerasfold.read.graph import read

HERE = str(Path(kerasfold.__file__).parent)


def steps(run: Callable[[], Any]) -> int:
    """Bytecodes of kerasfold in a run."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(HERE):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def edges(model: keras.Model) -> int:
    """Tensors that calls read."""
    return sum(len(call.inputs) for call in read(model).calls)


def with_barriers(length: int) -> keras.Model:
    """Layers that are lifted, each before one that is not."""
    stack = [layer() for _ in range(length) for layer in (layers.BatchNormalization, layers.ReLU)]
    return keras.Sequential([keras.Input((4, 4, 2)), *stack])


def dense_net(length: int, join: type[keras.Layer], normalised: bool = False) -> keras.Model:
    """Convolutions that each read what all before it gave."""
    tensors = [keras.Input((8, 8, 4))]
    for _ in range(length):
        x = join()(tensors) if len(tensors) > 1 else tensors[0]
        if normalised:
            x = layers.BatchNormalization()(x)
        tensors.append(layers.Conv2D(4, 1)(x))
    return keras.Model(tensors[0], tensors[-1])


def test_lifting_takes_no_more_for_each_barrier_the_more_there_are() -> None:
    few, many = (read(with_barriers(length)) for length in (20, 80))
    assert 0 < steps(lambda: lift(many)) < 4.4 * steps(lambda: lift(few))


# Whether a sum may do without a tensor, and what it then costs, is worked out from all it adds; and
# so for a concatenation.
@pytest.mark.parametrize("join", [layers.Concatenate, layers.Add])
@pytest.mark.parametrize("normalised", [False, True])
def test_planning_takes_no_more_for_each_tensor_read(
    join: type[keras.Layer], normalised: bool
) -> None:
    few, many = (dense_net(length, join, normalised) for length in (12, 30))
    regions = [lift(read(model)) for model in (few, many)]
    taken = [steps(lambda each=each: plan(each, method="descent")) for each in regions]
    assert 0 < taken[1] < 1.2 * taken[0] * edges(many) / edges(few)

"""What one layer computes by itself, as one operator."""

from __future__ import annotations

import functools

import keras

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.operator import Operator, compose
from kerasfold.errors import FoldError
from kerasfold.lift.program import Program
from kerasfold.lift.regions import inline_activation
from kerasfold.lift.rules import RULES
from kerasfold.lift.signal import Signal


def operator_of(layer: keras.Layer, rank: int, channels: int) -> Operator:
    """The operator that a layer applies to images of any size.

    Args:
        layer: a built layer whose class has a lift rule.
        rank: spatial axes of the images.
        channels: of the images, for a layer that takes any number of them, as a pool does.

    Raises:
        FoldError: a layer that is not built, not linear, or no single operator.
    """
    name = f"layer '{layer.name}' of class {type(layer).__name__}"
    rule = RULES.get(type(layer))
    if rule is None:
        raise FoldError(f"{name} has no lift rule: give its kernel as an array")
    if not layer.built:
        raise FoldError(f"{name} has no weights yet: build it, as by layer.build(input_shape)")
    if inline_activation(layer) is not None:
        raise FoldError(f"{name} has an activation, which is not linear: give its kernel")
    layout = getattr(layer, "data_format", "channels_last")
    shape = (layer.get_build_config() or {}).get("input_shape")
    if layer.weights and shape:
        channels = shape[1 if layout == "channels_first" else -1]
    program = Program()
    root = program.append("root", (), (None,) * rank, channels)
    try:
        rule(layer, Signal(program, root, layout))
        steps = [node.load() for node in program.nodes if node.load is not None]
        if not steps or [node.op for node in program.nodes] != ["root", *["operator"] * len(steps)]:
            raise Refused("it is no convolution")
        return functools.reduce(lambda a, b: compose(b, a), steps)
    except (Refused, ValueError) as error:
        raise FoldError(
            f"{name} is no single convolution of images of {rank} axes ({error}): give the kernel "
            "as an array"
        ) from error

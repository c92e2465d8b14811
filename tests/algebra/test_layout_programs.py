"""Random programs of rearrangements, scales and operators do what they evaluate to."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from kerasfold.algebra import Geometry, Operator, Rearranged, Refused
from kerasfold.algebra.rearranged import along
from kerasfold.forms.evaluate import evaluate_node, identity
from kerasfold.lift.program import Program
from kerasfold.lift.signal import Signal
from kerasfold.testing import apply, run

PROGRAMS = 150


def step(x: Signal, draw: random.Random, weights: np.random.Generator) -> Signal:
    """One more step. Raises `Refused`."""
    kind = draw.choice(["reshape", "permute", "scale", "shift", "channels", "matrix", "window"])
    sizes: Any = (*x.sizes, x.channels)
    some = [n if draw.random() < 0.5 else 1 for n in sizes]
    outputs = draw.randint(1, 3)
    if kind == "reshape":
        rest, shape = math.prod(sizes), []
        while rest > 1 and draw.random() < 0.8 and len(shape) < 3:
            shape.append(draw.choice([n for n in range(1, rest + 1) if rest % n == 0]))
            rest //= shape[-1]
        return x.reshape([*shape, rest])
    if kind == "permute":
        return x.permute(draw.sample(range(len(sizes)), len(sizes)))
    if kind == "scale":
        return x.scale(weights.normal(size=some), weights.normal(size=some))
    if kind == "shift":
        return x + weights.normal(size=some)
    if kind == "channels":
        return x.scale(weights.normal(size=x.channels), weights.normal(size=x.channels))
    taps = [draw.randint(1, min(3, n)) if kind == "window" else 1 for n in sizes[:-1]]
    kernel = weights.normal(size=(*taps, x.channels, outputs))
    return x.convolve(kernel, weights.normal(size=outputs), padding=draw.choice(["valid", "same"]))


def program(draw: random.Random, weights: np.random.Generator) -> Program:
    *sizes, channels = (draw.choice([1, 2, 3, 4]) for _ in range(draw.randint(1, 3)))
    made = Program()
    x = Signal(made, made.append("root", (), tuple(sizes), channels), "channels_last")
    for _ in range(draw.randint(2, 5)):
        try:
            x = step(x, draw, weights)
        except Refused:
            continue
    return made


def done(operator: Operator | None, image: np.ndarray) -> np.ndarray:
    return image if operator is None else apply(operator, image)


def result(value: Any, image: np.ndarray) -> np.ndarray:
    """What a value makes of an image, as a form emits it."""
    if not isinstance(value, Rearranged):
        return done(value, image)
    if value.scale is None:
        return value.rearrangement.applied(done(value.value, image))
    y = value.whole.applied(done(value.value, image))
    if value.multiplies:
        y = y * along(value.after, value.scale.kernel.ravel())
    return y + along(value.after, value.scale.bias)


def sizes_of(value: Any) -> Any:
    """All of a value but its weights."""
    if isinstance(value, Operator):
        return value.geometry
    if isinstance(value, Rearranged):
        parts = sizes_of(value.value), sizes_of(value.scale)
        return value.rearrangement, value.after, value.multiplies, parts
    return value


@pytest.mark.parametrize("seed", range(3))
def test_what_a_program_evaluates_to_is_what_it_does(seed: int) -> None:
    draw, weights = random.Random(seed), np.random.default_rng(seed)
    moved = 0
    for _ in range(PROGRAMS):
        made = program(draw, weights)
        root = made.nodes[0]
        image = weights.normal(size=(*root.sizes, root.channels))
        wanted = run(made, {0: image})
        by_sizes, by_weights = {0: identity(root)}, {0: identity(root)}
        for node in made.nodes[1:]:
            (read,) = node.operands
            try:
                by_sizes[node.index] = evaluate_node(node, [by_sizes[read]], made.nodes, Geometry)
                parts = evaluate_node(node, [by_weights[read]], made.nodes, Operator)
                got = result(parts[0].terms[0], image)
            except Refused:
                break
            by_weights[node.index] = parts
            value = parts[0].terms[0]
            assert sizes_of(value) == sizes_of(by_sizes[node.index][0].terms[0])
            assert got.shape == wanted[node.index].shape
            np.testing.assert_allclose(got, wanted[node.index], rtol=1e-9, atol=1e-9)
            moved += isinstance(value, Rearranged)
    assert moved > PROGRAMS / 3

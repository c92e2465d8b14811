"""Random operators, chains and siblings, of integers that anything may pick.

`Pick` is a NumPy generator in `laws.fuzz`, and Hypothesis in the tests, which shrinks failures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from laws.alone import conv
from laws.oracle import at_sizes, exists, output_size, output_sizes, same_padding, sample_read

Pick = Callable[[int, int], int]
"""An integer from the first argument to the second, both included."""

LARGEST = {1: 12, 2: 8, 3: 5}
"""Largest input size by rank: what a test of that rank can afford."""

FRAMED = {1: 24, 2: 12, 3: 7}
"""The same for chains with a frame, whose images must be larger than it."""

KINDS = ("any", "valid", "same", "pool", "nearest", "transposed", "pointwise", "pad", "crop")


def numpy_pick(rng: np.random.Generator) -> Pick:
    """Integers from a NumPy generator."""
    return lambda low, high: int(rng.integers(low, high + 1))


def draw_axis(pick: Pick, size: int, kind: str = "any", known: bool = True) -> Any:
    """An axis in normal form that gives at least one output on `size` samples.

    It holds that size where it is `known`, and otherwise None.
    """
    held = size if known else None
    if kind == "pointwise":
        return conv.Axis(held)
    if kind == "pad":
        return conv.Axis(held, pad=(pick(0, 3), pick(0, 3)))
    if kind == "nearest":
        factor = pick(1, 3)
        return conv.Axis(held, factor, upsampling=factor, pad=(factor - 1, factor - 1))
    low = pick(0, min(2, size - 1)) if kind in ("any", "crop") else 0
    high = pick(0, min(2, size - 1 - low)) if kind in ("any", "crop") else 0
    if kind == "crop":
        return conv.Axis(held, crop=(low, high))
    upsampling = pick(1, 3) if kind in ("any", "transposed") else 1
    stride = pick(1, 3) if kind != "transposed" else 1
    dilation = 1 if kind in ("pool", "transposed") else pick(1, 3)
    pad = (pick(0, 3), pick(0, 3)) if kind in ("any", "transposed") else (0, 0)
    room = upsampling * (size - low - high - 1) + 1 + sum(pad)
    taps = pick(1, 4) if kind == "same" else pick(1, min(4, (room - 1) // dilation + 1))
    if kind == "pool":
        stride = taps
    if kind == "same":
        axis = conv.Axis(size, taps, stride, dilation, same=True)
        if known or stride == 1:
            axis = replace(axis, same=False, pad=same_padding(axis, size))
    else:
        axis = conv.Axis(size, taps, stride, dilation, upsampling, (low, high), pad)
    return replace(axis, size=held).tight()


def draw_groups(pick: Pick, inputs: int) -> tuple[int, int]:
    """Groups and output channels for `inputs` channels."""
    groups = [g for g in range(1, inputs + 1) if inputs % g == 0]
    g = groups[pick(0, len(groups) - 1)]
    return g, g * pick(1, 3 if g == 1 else 2 if g <= 2 else 1)


def draw_weights(geometry: Any, seed: int) -> Any:
    """An operator of that geometry with random weights; no weight is near zero."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)

    outputs = geometry.channels[1]
    return conv.Operator(
        geometry,
        weights(*geometry.kernel_shape),
        weights(outputs) if geometry.biased else np.zeros(outputs),
        weights(*geometry.taps, outputs) if geometry.ones else None,
    )


def draw_operator(
    pick: Pick,
    sizes: Sequence[int],
    inputs: int,
    kind: str | None = None,
    known: Sequence[bool] = (True, True, True),
) -> Any:
    """A random operator on images of `sizes`, of a random kind unless told."""
    if kind is None:
        # Half of them of no particular kind; the others so that compositions meet often.
        kind = KINDS[max(0, pick(-len(KINDS) + 2, len(KINDS) - 1))]
    axes = tuple(
        draw_axis(pick, size, kind, is_known) for size, is_known in zip(sizes, known, strict=False)
    )
    if kind in ("pool", "nearest", "pad", "crop"):
        geometry = conv.Geometry(axes, (inputs, inputs), inputs, steady=kind == "nearest")
        value = 1 / math.prod(geometry.taps) if kind == "pool" else 1.0
        return conv.Operator(geometry, np.full(geometry.kernel_shape, value), np.zeros(inputs))
    groups, outputs = draw_groups(pick, inputs)
    ones = kind in ("any", "pointwise") and pick(0, 3) == 0
    geometry = conv.Geometry(axes, (inputs, outputs), groups, pick(0, 1) == 1, ones)
    return draw_weights(geometry, pick(0, 2**31))


def draw_sizes(pick: Pick, rank: int) -> tuple[int, ...]:
    """Sizes of an image."""
    return tuple(pick(1, LARGEST[rank]) for _ in range(rank))


def draw_chain(
    pick: Pick, rank: int, length: int, known: Sequence[bool] = (True, True, True)
) -> tuple[list[Any], tuple[int, ...]]:
    """Operators, each on the output of the one before it, and the size of the image they see."""
    operators: list[Any] = []
    first = sizes = draw_sizes(pick, rank)
    channels = pick(1, 4)
    while len(operators) < length and max(sizes) <= 2 * LARGEST[rank]:
        operators.append(draw_operator(pick, sizes, channels, known=known))
        sizes = output_sizes(at_sizes(operators[-1], sizes))
        channels = operators[-1].geometry.channels[1]
    return operators, first


def draw_window(pick: Pick, size: int, channels: int, seed: int) -> tuple[Any, np.ndarray]:
    """An axis of a normalised operator, and its weights (taps, channels).

    Average pooling 'same', bilinear upsampling, or any positive weights that sum to 1 over
    the samples that a window wholly inside sees, in any place where each window sees one.
    """
    kind = pick(0, 2)
    if kind == 0:
        axis = draw_axis(pick, size, "any")
        phase = np.arange(axis.taps) * axis.dilation % axis.upsampling
        sees = len(set(phase)) == axis.upsampling and all(
            any(sample_read(axis, p, t) is not None for t in range(axis.taps))
            for p in range(output_size(axis))
        )
        if sees:
            weights = np.random.default_rng(seed).uniform(0.5, 1.5, (axis.taps, channels))
            return axis, weights / ((phase[:, None] == phase) @ weights)
    if kind == 1:
        factor = pick(1, 3)
        low = (3 * factor - 2) // 2
        distance = np.arange(2 * factor - factor % 2) - low + (factor - 1) / 2
        axis = conv.Axis(size, len(distance), upsampling=factor, pad=(low, low))
        return axis, np.repeat(1 - np.abs(distance)[:, None] / factor, channels, axis=1)
    axis = conv.Axis(size, pick(1, 4), pick(1, 3))
    axis = replace(axis, pad=same_padding(axis, size)).tight()
    return axis, np.full((axis.taps, channels), 1 / axis.taps)


def draw_normalised(pick: Pick, sizes: Sequence[int], channels: int) -> Any:
    """A random normalised operator."""
    kernel, axes = np.ones((1, channels)), []
    for size in sizes:
        axis, weights = draw_window(pick, size, channels, pick(0, 2**31))
        axes.append(axis)
        kernel = kernel[..., None, :, :] * weights[:, None, :]
    geometry = conv.Geometry(tuple(axes), (channels, channels), channels, normalised=True)
    return conv.Operator(geometry, kernel, np.zeros(channels))


def draw_links(pick: Pick, rank: int, length: int) -> list[Any]:
    """A chain, normalised operators among it."""
    operators: list[Any] = []
    sizes = tuple(pick(1, FRAMED[rank]) for _ in range(rank))
    channels = pick(1, 3)
    while len(operators) < length and max(sizes) <= 2 * FRAMED[rank]:
        draw = draw_normalised if pick(0, 3) == 0 else draw_operator
        operators.append(draw(pick, sizes, channels))
        sizes = output_sizes(operators[-1])
        channels = operators[-1].geometry.channels[1]
    return operators


def draw_box(pick: Pick, sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Some of the outputs."""
    box = []
    for size in sizes:
        first = pick(0, size - 1)
        box.append((first, pick(first + 1, size)))
    return tuple(box)


def draw_known(pick: Pick, rank: int) -> list[bool]:
    """Which axes have a known size: mostly none of them."""
    return [pick(0, 4) == 0 for _ in range(rank)]


def draw_sibling_axis(pick: Pick, axis: Any) -> Any:
    """Another window on the same input, of the same stride, upsampling and output size."""
    taps, dilation = pick(1, 4), pick(1, 3)
    crop = axis.crop if pick(0, 3) else (0, 0)
    length = axis.upsampling * (axis.size - sum(crop) - 1) + 1
    reach = axis.stride * (output_size(axis) - 1) + dilation * (taps - 1) + 1
    low = pick(-min(2, length - 1), 3)
    if length + min(low, 0) + min(reach - length - low, 0) < 1:
        return axis
    sibling = replace(
        axis, taps=taps, dilation=dilation, crop=crop, pad=(low, reach - length - low)
    )
    return sibling.tight()


def draw_siblings(pick: Pick, rank: int, count: int, same_outputs: bool) -> list[Any]:
    """Operators on one input whose sum (or whose concatenation) often exists."""
    sizes, inputs = draw_sizes(pick, rank), pick(1, 4)
    first = draw_operator(pick, sizes, inputs)
    siblings = [first]
    for _ in range(count - 1):
        if pick(0, 9) == 0:
            other = draw_operator(pick, sizes, inputs)
            if not same_outputs or other.geometry.channels == first.geometry.channels:
                siblings.append(other)
                continue
        axes = tuple(draw_sibling_axis(pick, axis) for axis in first.geometry.axes)
        groups, outputs = draw_groups(pick, inputs)
        if same_outputs:
            outputs = first.geometry.channels[1]
            groups = groups if outputs % groups == 0 else 1
        geometry = conv.Geometry(axes, (inputs, outputs), groups, pick(0, 1) == 1, pick(0, 3) == 0)
        siblings.append(draw_weights(geometry, pick(0, 2**31)))
    return siblings


def forget_sizes(operator: Any, known: Sequence[bool]) -> Any:
    """`operator` with None for the sizes that are not known; the same padding and cropping."""
    axes = tuple(
        axis if is_known else replace(axis, size=None).tight()
        for axis, is_known in zip(operator.geometry.axes, known, strict=True)
    )
    return replace(operator, geometry=replace(operator.geometry, axes=axes))


def image(operator: Any, seed: int) -> np.ndarray:
    """A random image for `operator`."""
    shape = (*(axis.size for axis in operator.geometry.axes), operator.geometry.channels[0])
    return np.random.default_rng(seed).normal(size=shape)


def chain_at_sizes(operators: Sequence[Any], sizes: Sequence[int]) -> list[Any] | None:
    """Operators for unknown sizes, on images of `sizes`; None where a tensor would be empty."""
    concrete = []
    for operator in operators:
        if any(
            axis.size not in (None, n)
            for axis, n in zip(operator.geometry.axes, sizes, strict=True)
        ):
            return None
        concrete.append(at_sizes(operator, sizes))
        if not exists(concrete[-1]):
            return None
        sizes = output_sizes(concrete[-1])
    return concrete

"""Kernels that are products, as stored: see `kerasfold.inverse.stored`.

kernel[t, v] = first[t] last[v] of each channel: a window along one axis, then along the others. Of
a dense kernel, each input or each output channel may have a window of its own so, and the rest be
what mixes the channels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from kerasfold.algebra.axis import Axis, Refused
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.product import Array
from kerasfold.inverse.numbers import Step, Steps, Turned, operator_of
from kerasfold.inverse.skeleton import thin
from kerasfold.inverse.stored import rank_one, units_apart
from kerasfold.read.weights import rounded

MOST = 8  # different kernels of a layer that are looked into

Pair: TypeAlias = tuple[Operator | Turned, Operator | Turned]


def separated(operator: Operator, dtype: str) -> Iterator[Pair]:
    """Two convolutions that one is the product of, in every way that is found.

    Of a depthwise one along the first of two axes, once more with that one turned: XLA computes
    windows along the last axis several times as fast.

    Args:
        operator: the convolution.
        dtype: of its storage, and of theirs.

    Raises:
        Refused: it is none, or not as stored.
    """
    geometry = operator.geometry
    if geometry.ones or geometry.vector or any(a.upsampling > 1 for a in geometry.axes):
        raise Refused("a product of more than windows of an image")
    wide = [d for d, axis in enumerate(geometry.axes) if axis.taps > 1]
    if len(wide) < 2 and (not wide or geometry.is_depthwise):
        raise Refused("a window along one axis")
    ways: list[tuple[int, ...]] = [(d,) for d in wide] if len(wide) > 1 else []
    sides = (True,) if geometry.is_depthwise else (True, False)
    if not geometry.is_depthwise:
        ways.append(tuple(wide))
    refusal = Refused("a kernel that is no product of two")
    found = False
    for axes, first in itertools.product(ways, sides):
        try:
            window, rest = _factors(operator, axes, first, dtype)
        except Refused as reason:
            refusal = reason
            continue
        found = True
        for strided in (True, False):
            if strided or _may_wait(geometry):
                pair = _steps(operator, window, rest, axes, first, strided)
                yield pair
                if any(map(_is_tall, pair)):
                    before, after = (Turned(x) if _is_tall(x) else x for x in pair)
                    yield before, after
    if not found:
        raise refusal.anew()


def _factors(
    operator: Operator, axes: Sequence[int], first: bool, dtype: str
) -> tuple[Array, Array]:
    """The window of each input channel, or each output channel, and what is left of the kernel.

    Args:
        operator: a convolution.
        axes: along which the windows are.
        first: whether they are of the input channels.
        dtype: of the storage.
    """
    geometry, kernel = operator.geometry, operator.kernel
    rank, (inputs, outputs) = len(geometry.axes), geometry.channels
    width, per_group = inputs // geometry.groups, outputs // geometry.groups
    taps = [n if d in axes else 1 for d, n in enumerate(geometry.taps)]
    others = [1 if d in axes else n for d, n in enumerate(geometry.taps)]
    grouped = kernel.reshape(*geometry.taps, width, geometry.groups, per_group)
    along = [d for d in range(rank) if d in axes]
    across = [d for d in range(rank) if d not in axes]
    each = (rank + 1, rank) if first and not geometry.is_depthwise else (rank + 1, rank + 2)
    mixed = rank + 2 if each[1] == rank else rank
    moved = grouped.transpose(*each, *along, *across, mixed)
    matrix = math.prod(taps), math.prod(others) * moved.shape[-1]
    blocks = (moved[at].reshape(matrix) for at in np.ndindex(*moved.shape[:2]))
    columns, rows = _unique(blocks, dtype)
    window = columns.T.reshape(*taps, 1, len(columns))
    rest = rows.reshape(*moved.shape[:2], *others, moved.shape[-1])
    back = np.moveaxis(rest, (0, 1), (each[0], each[1]))
    return window, back.reshape(*others, width, outputs)


def _unique(blocks: Iterable[Array], dtype: str) -> tuple[Array, Array]:
    """The column and the row of each block; those that are alike are looked into once."""
    found: dict[bytes, tuple[Array, Array]] = {}
    pairs = []
    for block in blocks:
        key = block.tobytes()
        if key not in found:
            if len(found) == MOST:
                raise Refused(f"more than {MOST} kernels, each a product of its own")
            found[key] = rank_one(block, dtype)[:2]
        pairs.append(found[key])
    return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])


def _may_wait(geometry: Geometry) -> bool:
    """Whether the last step may have all strides: Keras's depthwise layers stride alike."""
    return any(a.stride > 1 for a in geometry.axes) and not any(a.same for a in geometry.axes)


def _steps(
    operator: Operator,
    window: Array,
    rest: Array,
    axes: Sequence[int],
    first: bool,
    strided: bool,
) -> tuple[Operator, Operator]:
    """Two convolutions, given their kernels.

    Args:
        operator: what they are together.
        window: the kernel of the depthwise one.
        rest: that of the other.
        axes: along which the depthwise one has windows.
        first: whether it is the first.
        strided: whether the first strides along the axes of its windows; else the last does.
    """
    geometry = operator.geometry
    inputs, outputs = geometry.channels
    pairs = [
        _apart(axis, strided) if (d in axes) is first else (Axis(axis.size), axis)
        for d, axis in enumerate(geometry.axes)
    ]
    middle = window.shape[-1] if first else outputs
    groups = [inputs, outputs if geometry.is_depthwise else geometry.groups]
    if not first:
        groups = [geometry.groups, outputs]
    before, after = zip(*pairs, strict=True)
    kernels = (window, rest) if first else (rest, window)
    steps = (
        Geometry(before, (inputs, middle), groups[0]),
        Geometry(after, (middle, outputs), groups[1], geometry.biased),
    )
    return (
        Operator(steps[0], kernels[0].reshape(steps[0].kernel_shape), np.zeros(middle)),
        Operator(steps[1], kernels[1].reshape(steps[1].kernel_shape), operator.bias),
    )


def _is_tall(operator: Operator) -> bool:
    """Whether it is depthwise, of windows along the first of two axes."""
    geometry = operator.geometry
    return (
        geometry.is_depthwise
        and len(geometry.axes) == 2
        and geometry.taps[0] > geometry.taps[1] == 1
    )


def _apart(axis: Axis, strided: bool) -> tuple[Axis, Axis]:
    """An axis whose window the first of two steps has, and its stride, if so."""
    before = axis if strided else replace(axis, stride=1)
    return before, Axis(before.out, stride=axis.stride // before.stride).tight()


def difference(given: Steps, instead: Steps) -> Operator:
    """Steps less others that stand for them, as one convolution. Raises `Refused`."""
    return Operator.sum([operator_of(given), operator_of(instead).scaled(-1.0)])


def distance(given: Steps, instead: Steps, dtype: str) -> float:
    """How far steps are from a kernel that they stand for, in its last places, at the worst tap.

    Args:
        given: the kernel.
        instead: the steps, with weights as they are stored.
        dtype: of the storage.

    Raises:
        Refused: they do not compose, or are of other images.
    """
    less = difference(given, instead).kernel
    kernel = Operator.sum([operator_of(given), operator_of(instead).scaled(0.0)]).kernel
    return units_apart(kernel - less, rounded(kernel, dtype), dtype)


def merged(first: Step, last: Step) -> Steps:
    """Two steps as one, if both are convolutions, turned if one of them is. Raises `Refused`."""
    match first, last:
        case Operator(), Operator():
            return (last @ first,)
        case (Operator(), Turned(operator)):
            return (Turned(operator @ first),)
        case (Turned(operator), Operator()):
            return (Turned(last @ operator),)
    return first, last


# As `kerasfold.inverse.numbers.EXACT`, of what is stored in a dtype.
STORED: tuple[Callable[[Operator, str], Iterator[Pair]], ...] = (separated, thin)

"""Sums of products over named axes, as `einsum` says them, as matrices on rearranged images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.lift.operands import constant, operand, require_layout
from kerasfold.lift.program import Weights
from kerasfold.lift.signal import Signal
from kerasfold.read.weights import as_array

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Subscripts(NamedTuple):
    """One letter for each axis, batch included, of the tensor, of the weights and of the result."""

    given: str
    weights: str
    result: str

    def __str__(self) -> str:
        return f"{self.given},{self.weights}->{self.result}"


def subscripts_of(equation: str, x: Signal, first: bool = True) -> Subscripts:
    """The axes that an equation of two operands names.

    Args:
        equation: as `einsum` takes it.
        x: the operand that is a tensor of the model.
        first: whether it is the first of the two.
    """
    operands, arrow, result = equation.replace(" ", "").partition("->")
    parts = operands.split(",")
    if not arrow or len(parts) != 2:
        raise Refused(f"the equation '{equation}' is not of two operands and a result")
    given, weights = parts if first else reversed(parts)
    free = [letter for letter in LETTERS if letter not in equation]
    between = "".join(free[: x.rank + 2 - len(given.replace("...", ""))])
    given, result = given.replace("...", between), result.replace("...", between)
    return Subscripts(given, weights, result)


def shared_axes(
    x: Signal, kernel: Weights, own: Sequence[int], others: Sequence[int]
) -> Subscripts:
    """Those of a product over some axes of a tensor and as many of the weights."""
    given = LETTERS[: x.rank + 2]
    weights = list(LETTERS[len(given) : len(given) + len(kernel.shape)])
    for a, b in zip(own, others, strict=True):
        weights[b] = given[a]
    left = [letter for letter in given if letter not in weights]
    new = [letter for letter in weights if letter not in given]
    return Subscripts(given, "".join(weights), "".join(left + new))


def contract(x: Signal, kernel: Any, subscripts: Subscripts, bias: Any = None) -> Signal:
    """The sum of products of a signal and constant weights, plus a bias.

    It is a matrix: the axes that are summed over are its rows, those that the weights bring are
    its columns. Or a scale, where the weights have the channels alone, and the result has them.

    Raises:
        Refused: other weights for each place along an axis, or for each sample of the batch.
    """
    if x.rank:
        require_layout("channels_last", x)
    kernel = constant(kernel)
    given, weights, result = subscripts
    pixels = [axis for axis in given[1:] if axis not in weights]
    rows = [axis for axis in given if axis in weights]
    columns = [axis for axis in weights if axis not in given]
    twice = any(len(set(axes)) < len(axes) for axes in subscripts)
    if len(given) != x.rank + 2 or twice or given[0] != result[:1] or given[0] in weights:
        raise _refusal(subscripts)
    if (weights, result) == (given[-1], given):
        return x.scale(kernel.read(), 0.0 if bias is None else operand(bias, x))
    if not result[1:] or {*pixels, *columns} != set(result[1:]):
        raise _refusal(subscripts)
    size = dict(zip(weights, kernel.shape, strict=True)) | dict(
        zip(given[1:], x.shape, strict=True)
    )
    sizes = [size[axis] for axis in (*pixels, *columns)]
    widths = [kernel.shape[weights.index(axis)] for axis in columns]
    y = _permuted(x, given[1:], [*pixels, *rows])
    y = y.reshape([*sizes[: len(pixels)], math.prod(size[axis] or 1 for axis in rows)])
    order = [weights.index(axis) for axis in (*rows, *columns)]
    shape = (y.channels, math.prod(widths))
    matrix = Weights(shape, lambda: np.transpose(kernel.stored(), order).reshape(shape))
    offset = None
    if bias is not None and result.endswith("".join(columns)) and len(bias.shape) <= len(columns):
        bias, offset = None, np.broadcast_to(as_array(bias), widths).reshape(-1)
    y = y.matrix(matrix, offset).reshape(sizes)
    y = _permuted(y, [*pixels, *columns], result[1:])
    return y if bias is None else y + operand(bias, y)


def _refusal(subscripts: Subscripts) -> Refused:
    return Refused(f"'{subscripts}' is no matrix on axes of the image, nor a scale per channel")


def _permuted(x: Signal, axes: Sequence[str], wanted: Sequence[str]) -> Signal:
    """The axes of a tensor, the batch left out, in another order of their letters."""
    return x.permute([list(axes).index(axis) for axis in wanted])

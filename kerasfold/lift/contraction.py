"""Sums of products over named axes, as `einsum` says them: which are a matrix on the channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.lift.operands import constant, operand, require_layout
from kerasfold.lift.program import Weights
from kerasfold.lift.signal import Signal

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

    Raises:
        Refused: it is neither a matrix on the channels or on the whole image, nor a scale.
    """
    if x.rank:
        require_layout("channels_last", x)
    kernel = constant(kernel)
    given, weights, result = subscripts
    batch, channel = given[0], given[-1]
    new = "".join(letter for letter in weights if letter not in given)
    twice = any(len(set(axes)) < len(axes) for axes in subscripts)
    if len(given) != x.rank + 2 or twice or batch in weights or len(new) > 1:
        raise _refusal(subscripts)
    if (weights, result) == (channel, given):
        y = x.scale(kernel.read())
    elif set(weights) == {channel, *new} and result == given[:-1] + new and new:
        y = _matrix(x, _transposed(kernel, weights, channel + new), bias)
    elif set(weights) == {*given[1:], *new} and result == batch + new and new:
        y = _matrix(x.flatten(), _transposed(kernel, weights, given[1:] + new), bias)
    else:
        raise _refusal(subscripts)
    return y


def _refusal(subscripts: Subscripts) -> Refused:
    return Refused(f"'{subscripts}' is no matrix on the channels, nor on the whole image")


def _transposed(kernel: Weights, axes: str, wanted: str) -> Weights:
    order = [axes.index(letter) for letter in wanted]
    shape = tuple(kernel.shape[axis] for axis in order)
    return Weights(shape, lambda: np.transpose(kernel.read(), order))


def _matrix(x: Signal, kernel: Weights, bias: Any) -> Signal:
    """A matrix, whose rows may be several axes, on the channels."""
    *rows, columns = kernel.shape
    matrix = kernel.reshape(*(1,) * x.rank, math.prod(rows), columns)
    y = x.convolve(matrix)
    return y if bias is None else x.convolve(matrix, np.broadcast_to(operand(bias, y), columns))

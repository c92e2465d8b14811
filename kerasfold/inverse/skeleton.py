"""Pointwise kernels of low rank, as stored: a skeleton of columns or of rows, and how they mix.

Where all columns of a kernel are sums of multiples of some of them, it is those, as they are
stored, times the multiples; or so of rows. Rounded, the multiples are off where terms cancel: then
what they lack stands beside them, of the skeleton once more. A kernel of rank 1 has nothing that
cancels, and is one as stored where its factors are.

Random factors of more channels, multiplied and rounded, are of full rank: two thin kernels with
numbers of the same dtype miss such a product by far more than its last places.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from scipy import linalg

from kerasfold.algebra.axis import Axis, Refused
from kerasfold.algebra.geometry import Geometry
from kerasfold.algebra.operator import Operator
from kerasfold.algebra.product import Array
from kerasfold.inverse.stored import rank_one, units_apart
from kerasfold.read.weights import rounded

GAIN = 2  # times fewer multiplications that two kernels must have, which are two calls
LOW = (32, 16)  # ranks that are looked for: up to the one, or the other's part of a large kernel's
SINGULAR = 1e-4  # of the largest pivot: most kernels have none that is less, in float32
RANK = 1e-12  # of the largest number: what is none in a kernel of a rank, in float64
NEARLY = 1e-5  # of the largest number: less than that is what a few last places make of none
FRACTIONS = 256  # of 1: plain multiples


def thin(operator: Operator, dtype: str) -> Iterator[tuple[Operator, Operator]]:
    """Two pointwise convolutions, with few channels between them, that one is the product of.

    Args:
        operator: the convolution.
        dtype: of its storage, and of theirs.

    Raises:
        Refused: it is none, or not as stored.
    """
    geometry = operator.geometry
    alone = all(a.taps == a.upsampling == 1 and not any(a.pad) for a in geometry.axes)
    if not alone or geometry.groups > 1 or geometry.ones or geometry.vector:
        raise Refused("a product of more than matrices")
    matrix = operator.kernel.reshape(geometry.channels)
    for first, last in _factors(matrix, dtype):
        if units_apart(first @ last, rounded(matrix, dtype), dtype) <= 1:
            yield _steps(operator, first, last)
            return
    raise Refused("a kernel of low rank, but of none that its dtype holds")


def _factors(matrix: Array, dtype: str) -> Iterator[tuple[Array, Array]]:
    """Pairs of matrices whose product may be one; those with fewer channels between them first."""
    least = min(matrix.shape)
    most = min(matrix.size // (GAIN * sum(matrix.shape)), max(LOW[0], least // LOW[1]))
    if not most or not all(_may_be_of_rank(most, part) for part in (matrix, matrix[::-1, ::-1])):
        raise Refused("a kernel of full rank")
    matrix = matrix.astype("float64")
    with contextlib.suppress(Refused):
        column, row, _ = rank_one(matrix, dtype)
        yield column[:, None], row[None]
    rows, columns = _skeleton(matrix, most)
    across, down = matrix[rows], matrix[:, columns]
    core = across[:, columns]
    sides = (down, linalg.solve(core, across)), (across.T, linalg.solve(core.T, down.T))
    for times in (1, 2):
        for place, (skeleton, mix) in enumerate(sides):
            first, last = np.tile(skeleton, times), _in_parts(_near_fractions(mix), times, dtype)
            if first.shape[1] <= most:
                yield (last.T, first.T) if place else (first, last)


def _may_be_of_rank(rank: int, matrix: Array) -> bool:
    """Whether a corner of a matrix, but for zeros, is of a rank: of most matrices it is of none."""
    corner = matrix[: 2 * rank + 2, : 2 * rank + 2]
    square = corner[corner.any(axis=1)][: rank + 1, corner.any(axis=0)][:, : rank + 1]
    if min(square.shape) <= rank:
        return True
    _, upper = linalg.lu(square.astype("float32"), permute_l=True, check_finite=False)
    pivots = np.abs(np.diag(upper))
    return bool(pivots.min() < SINGULAR * pivots.max())


def _skeleton(matrix: Array, most: int) -> tuple[list[int], list[int]]:
    """As many rows and columns as the rank of a matrix, by which all are known.

    By elimination with complete pivoting: matrix = columns (rows at columns)^-1 rows.
    """
    left, rows, columns = matrix.copy(), list[int](), list[int]()
    largest = np.max(np.abs(matrix))
    for _ in range(most + 1):
        row, column = map(int, np.unravel_index(np.argmax(np.abs(left)), left.shape))
        pivot = left[row, column]
        if abs(pivot) <= NEARLY * largest:
            break
        left -= np.outer(left[:, column] / pivot, left[row])
        rows.append(row)
        columns.append(column)
    else:
        raise Refused("a kernel of full rank")
    if np.max(np.abs(left)) > RANK * largest:
        raise Refused("a kernel of low rank only nearly")
    return rows, columns


def _near_fractions(mix: Array) -> Array:
    """Numbers, but for what was rounded of plain ones, such as 0, 1 or a half."""
    plain = np.round(mix * FRACTIONS) / FRACTIONS
    return np.where(np.abs(mix - plain) < RANK, plain, mix)


def _in_parts(mix: Array, count: int, dtype: str) -> Array:
    """Matrices of a dtype, one below another, that add up to one as far as they can."""
    parts = []
    for _ in range(count):
        parts.append(rounded(mix, dtype))
        mix = mix - parts[-1]
    return np.concatenate(parts)


def _steps(operator: Operator, first: Array, last: Array) -> tuple[Operator, Operator]:
    """Two convolutions, given their kernels; the first has the strides."""
    geometry, between = operator.geometry, first.shape[1]
    inputs, outputs = geometry.channels
    before = Geometry(geometry.axes, (inputs, between))
    axes = tuple(Axis(axis.out) for axis in geometry.axes)
    after = Geometry(axes, (between, outputs), biased=geometry.biased)
    return (
        Operator(before, first.reshape(before.kernel_shape), np.zeros(between)),
        Operator(after, last.reshape(after.kernel_shape), operator.bias),
    )

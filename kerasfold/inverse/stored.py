"""Kernels that are products of two, as stored.

What is computed in float64 and stored with fewer digits is a product no longer, not even a
Gaussian; but it is one within half a unit in its last place. Two factors are a kernel *as stored*
if their product, of both with the digits that they are stored with, is nowhere more than one unit
in the last place away from it, and as good as zero wherever it is.

Of a column times a row there are as many spellings as there are numbers to multiply the one by and
divide the other by. Rounded, most of them miss; so many are tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kerasfold.algebra.axis import Refused
from kerasfold.algebra.product import Array
from kerasfold.read.weights import rounded, smallest

ZERO = 1e-12  # of the largest number: what a product may be where the kernel is zero
ROUGH = (
    8  # units that a number may differ from what a row and a column say of it, as all are rounded
)
FITTED = 6  # alternations of a fit that starts nearly there
TRIED = (2**12, 2**16)  # spellings, more where the first do not do
LAST_TRIED = 2**20  # where none of a dtype is found either
FINEST = 2.0**-23  # the last place, of a 1, up to which all numbers of a dtype are gone through
CHUNK = 2**18  # of them at a time
HELD = 0.35  # of the last place: how far what is fitted may be from what it was
PICKED = 512  # of those, that are looked at tap by tap
ENTRIES = 2**22  # taps that are looked at together
SWEEPS = 6  # in which each number of a spelling is moved to a neighbour where that is nearer
STEEP = 8  # power by which the larger of several distances counts


class Factors(NamedTuple):
    """A column and a row, and how far their product is from a matrix, in its last places."""

    column: Array
    row: Array
    units: float


def last_place(values: Array, dtype: str) -> Array:
    """One unit in the last place of numbers that are stored in a dtype."""
    digits = 2.0**-7 if dtype == "bfloat16" else float(np.finfo(dtype).eps)
    _, exponent = np.frexp(values)
    return np.maximum(np.ldexp(digits, exponent - 1), digits * smallest(dtype))


def allowed(stored: Array, dtype: str) -> Array:
    """How far a product may be from each number that is stored."""
    zero = ZERO * float(np.max(np.abs(stored), initial=0.0))
    return np.where(stored == 0, zero, last_place(stored, dtype))


def units_apart(product: Array, stored: Array, dtype: str) -> float:
    """How far a product is from what is stored, at the worst place: up to 1 is as stored."""
    off = np.abs(product - stored)
    if not off.any():
        return 0.0
    return float(np.max(np.divide(off, allowed(stored, dtype), where=off > 0, out=off)))


def rank_one(matrix: Array, dtype: str) -> Factors:
    """The column and the row that a matrix is the product of, as stored.

    Args:
        matrix: (m, n), float64.
        dtype: of its storage, and that of the factors.

    Raises:
        Refused: it is none, as far as is found.
    """
    stored = rounded(matrix, dtype)
    if not stored.any():
        return Factors(stored[:, 0], stored[0], 0.0)
    place = np.unravel_index(np.argmax(np.abs(stored)), stored.shape)
    column, row = stored[:, place[1]] / stored[place], stored[place[0]]
    most = allowed(stored, dtype)
    if np.any(np.abs(np.outer(column, row) - stored) > ROUGH * most):
        raise Refused("a kernel that is no product of two")
    column, row = _fitted(stored, most, column, row)
    double = 4 * np.finfo("float64").eps * np.abs(stored)  # what the fit is rounded by itself
    if np.any(np.abs(np.outer(column, row) - stored) > most + double):
        raise Refused("a kernel that is a product of two only nearly")
    for scales in _spellings(column, row, dtype):
        found = _nearest(stored, most, column, row, scales, dtype)
        if found.units <= 1:
            return found
    raise Refused("a kernel that is a product of two, but of none that its dtype holds")


def _fitted(stored: Array, most: Array, column: Array, row: Array) -> tuple[Array, Array]:
    """The column and the row that are nearest, in units; of equal largest numbers.

    Of numbers near 1, of which squares neither overflow nor vanish.
    """
    _, exponent = np.frexp(np.max(np.abs(row)))
    root = np.ldexp(1.0, int(exponent) // 2)  # a power of two, as its square is
    stored, row = stored / root / root, row / root / root
    weights = (np.min(most) / most) ** 2
    for _ in range(FITTED):
        column = (weights * stored) @ row / (weights @ row**2)
        row = column @ (weights * stored) / (column**2 @ weights)
    scale = np.sqrt(np.max(np.abs(row)) / np.max(np.abs(column)))
    return column * scale * root, row / scale * root


def _spellings(column: Array, row: Array, dtype: str) -> Iterator[Array]:
    """What to multiply the column by, twice as much being the same.

    First what makes a number of it, or of the row, a 1; then some; then those with which all
    numbers, as far as they are known, are of the dtype; and last many.
    """
    ones = np.concatenate([1 / column[column != 0], row[row != 0]])
    yield np.concatenate([[1.0], np.abs(ones)])
    for count in TRIED:
        yield np.exp2((np.arange(count) + 0.5) / count)
    held = _held(column, row, dtype)
    if len(held):
        yield held
    yield np.exp2((np.arange(LAST_TRIED) + 0.5) / LAST_TRIED)


def _held(column: Array, row: Array, dtype: str) -> Array:
    """What to multiply a column by, so that all numbers are of a dtype, as far as they are known.

    With the first number all that its dtype holds are gone through.
    """
    digits = float(last_place(np.ones(()), dtype))
    if digits < FINEST:
        return np.zeros(0)
    first, *others = sorted({abs(x) for x in column if x}, reverse=True)
    inverse = {abs(x) for x in row if x}
    found = []
    for start in np.arange(1, 2, CHUNK * digits):
        scales = np.arange(start, min(start + CHUNK * digits, 2), digits) / first
        for number in others:
            scales = scales[_is_held(number * scales, dtype)]
        for number in inverse:
            scales = scales[_is_held(number / scales, dtype)]
        found.append(scales)
    return np.concatenate(found)


def _is_held(numbers: Array, dtype: str) -> Array:
    """Whether numbers are those of a dtype, but for a part of their last place."""
    return np.abs(rounded(numbers, dtype) - numbers) < HELD * last_place(numbers, dtype)


def _nearest(
    stored: Array, most: Array, column: Array, row: Array, scales: Array, dtype: str
) -> Factors:
    """The best of some spellings, once each of its numbers is moved to where it is best."""
    scales = _rounding_least(stored, most, column, row, scales, dtype)
    columns, rows = rounded(column * scales, dtype), rounded(row / scales, dtype)
    best = Factors(column, row, np.inf)
    for sweep in range(SWEEPS + 1):
        off = np.abs(columns[:, :, None] * rows[:, None, :] - stored) / most
        units = off.max(axis=(1, 2))
        at = int(units.argmin())
        if units[at] < best.units:
            best = Factors(columns[at], rows[at], float(units[at]))
        if best.units <= 1 or sweep == SWEEPS:
            return best
        columns = _moved(columns, rows, stored, most, dtype)
        rows = _moved(rows, columns, stored.T, most.T, dtype)
    return best


def _rounding_least(
    stored: Array, most: Array, column: Array, row: Array, scales: Array, dtype: str
) -> Array:
    """The spellings (picked, 1) whose numbers change least where they are rounded."""
    picked = max(1, min(PICKED, ENTRIES // stored.size))
    if len(scales) <= picked:
        return scales[:, None]
    ratio = np.abs(stored) / most  # what a relative change of a number is at each tap, in units
    change = np.zeros(len(scales))
    for numbers, counts, powers in (
        (column, ratio.max(axis=1), scales),
        (row, ratio.max(axis=0), 1 / scales),
    ):
        most_of_side = np.zeros(len(scales))
        for number, count in set(zip(np.abs(numbers), counts, strict=True)):
            if number and count:
                x = number * powers
                np.maximum(most_of_side, count * np.abs(rounded(x, dtype) / x - 1), most_of_side)
        change += most_of_side
    return scales[np.argpartition(change, picked)[:picked], None]


def _moved(numbers: Array, others: Array, stored: Array, most: Array, dtype: str) -> Array:
    """Of each number (spellings, m), itself or a neighbour, what is best beside the others."""
    step = last_place(numbers, dtype)
    choices = np.stack([numbers, numbers - step, numbers + step])
    off = [
        (np.abs(one[:, :, None] * others[:, None, :] - stored) / most) ** STEEP for one in choices
    ]
    best = np.stack([one.sum(axis=2) for one in off]).argmin(axis=0)
    return np.take_along_axis(choices, best[None], axis=0)[0]

"""Samples that overflow on the way: of what is not finite there, nothing can be asked.

Of an infinity, sums are infinite or NaN by the order in which they are added up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from kerasfold.equivalence.runs import Arrays, Ran, Truth, Walk
from kerasfold.equivalence.tally import distances
from kerasfold.read.inside import Made

LARGE = 2.0**8  # numbers of which exponentials may overflow: log(0) is infinite without any
DOUBLES = 2.0**512  # of which float64 holds no square


def in_range(copy: Truth, batch: Any, first: Ran, second: Ran) -> tuple[Ran, Ran]:
    """What the copies of two models give, without what `without_outgrown` leaves out."""
    pairs = [(first.outputs, second.outputs), (first.judged, second.judged)]
    outputs, judged = (without_outgrown(copy, batch, DOUBLES, *pair) for pair in pairs)
    ours, theirs = (
        replace(ran, outputs=made, judged=before)
        for ran, made, before in zip((first, second), outputs, judged, strict=True)
    )
    return ours, theirs


def without_outgrown(
    copy: Truth, batch: Any, most: float, first: Arrays, second: Arrays
) -> tuple[Arrays, Arrays]:
    """What two models give, both NaN where either is not finite in a sample that overflows.

    Args:
        copy: of the reference, in float64.
        batch: that they ran on.
        most: what a step of a sample may be.
        first: what one gives.
        second: what the other gives.
    """
    parting = [_part(x, y) for x, y in zip(first, second, strict=True)]
    if not isinstance(copy, Walk) or not any(parting):
        return first, second
    rows = outgrown(copy, batch, most)
    columns = zip(first, second, parting, strict=True)
    pairs = [_left(x, y, rows) if apart else (x, y) for x, y, apart in columns]
    return [x for x, _ in pairs], [y for _, y in pairs]


def outgrown(copy: Walk, batch: Any, most: float) -> np.ndarray:
    """Which samples (n,) of a batch have a step beyond some size, or one that overflows float64."""
    samples = len(tree.flatten(batch)[0])
    rows, large = np.zeros(samples, bool), np.zeros(samples)

    def saw(_: Made, results: Sequence[Any]) -> None:
        for values in map(keras.ops.convert_to_numpy, results):
            if values.dtype.kind != "f" or not values.size:
                continue
            by_row = values.reshape(samples if values.size % samples == 0 else 1, -1)
            finite = np.isfinite(by_row)
            size = np.max(np.abs(by_row), axis=1, initial=0.0, where=finite)
            overflow = ~finite.all(axis=1) & (large >= LARGE)
            rows[:] = rows | overflow | (size > most)
            large[:] = np.maximum(large, size)

    copy.ran(batch, saw=saw)
    return rows


def _part(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether one of two outputs is finite somewhere, and the other is not, or otherwise."""
    floats = all(keras.backend.is_float_dtype(str(v.dtype)) for v in (x, y))
    if not floats or x.shape != y.shape or (np.isfinite(x).all() and np.isfinite(y).all()):
        return False
    return bool(np.max(distances(x, y), initial=0.0) == math.inf)


def _left(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) != len(rows):
        return x, y
    where = rows.reshape(-1, *(1,) * (x.ndim - 1)) & ~(np.isfinite(x) & np.isfinite(y))
    first, second = (np.where(where, np.asarray(np.nan, v.dtype), v) for v in (x, y))
    return first, second

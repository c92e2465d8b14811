"""Places along one axis that anyone reads, and how that passes backwards through an operator."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from .axis import Axis

Places: TypeAlias = np.ndarray | None  # a boolean for each sample; None where all are read


def samples_read(axis: Axis, outputs: np.ndarray) -> np.ndarray:
    """The input sample that each tap of some outputs reads, (outputs, taps); -1 for a zero."""
    assert axis.size is not None
    low, high = axis.crop
    at = outputs[:, None] * axis.stride - axis.pad[0] + np.arange(axis.taps) * axis.dilation
    samples = at // axis.upsampling + low
    real = (at % axis.upsampling == 0) & (samples >= low) & (samples < axis.size - high)
    return np.where(real, samples, -1)


def places_read(axis: Axis, wanted: Places) -> Places:
    """The input samples that outputs of an axis read.

    Args:
        axis: of an operator.
        wanted: outputs, (axis.out,), or None for all of them.
    """
    if axis.size is None or axis.out is None:
        return None
    if wanted is None and _reads_all(axis):
        return None
    outputs = np.arange(axis.out) if wanted is None else np.flatnonzero(wanted)
    samples = samples_read(axis, outputs)
    read = np.zeros(axis.size, bool)
    read[samples[samples >= 0]] = True
    return None if read.all() else read


def _reads_all(axis: Axis) -> bool:
    """Whether windows of neighbours leave out no sample: of most layers, and told at once."""
    windows = axis.dilation == axis.upsampling == 1 and axis.stride <= axis.taps
    if not windows or any(axis.crop) or axis.size is None or not axis.out:
        return False
    first = -axis.pad[0]
    return first <= 0 and first + axis.stride * (axis.out - 1) + axis.taps >= axis.size


def union(a: Places, b: Places) -> Places:
    """What is in one of two sets of places."""
    if a is None or b is None:
        return None
    both = a | b
    return None if both.all() else both


def progression(places: Places) -> slice:
    """The shortest slice, of equal steps, that holds all places; `slice(None)` for all."""
    if places is None:
        return slice(None)
    at = np.flatnonzero(places)
    if not at.size:
        return slice(0, 1)
    first, last = int(at[0]), int(at[-1])
    step = math.gcd(*map(int, np.diff(at))) or 1
    stop = None if last + step >= places.size else last + 1
    return slice(first or None, stop, step if step > 1 else None)

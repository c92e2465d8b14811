"""A tolerance the user names, and how errors are distributed, over any number of batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasfold.errors import FoldError

RANKS = (50, 90, 99)  # per cent of the numbers of an output


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What each number of an output may be off the truth: `atol + rtol * abs(truth)`.

    Attributes:
        atol: absolute, in the output's own unit.
        rtol: relative to the truth.

    Raises:
        FoldError: what is no number from 0 up.
    """

    atol: float = 0.0
    rtol: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("atol", self.atol), ("rtol", self.rtol)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 <= value < math.inf):
                raise FoldError(f"{name}={value!r}: expected a finite number, 0 or more")

    @classmethod
    def of(cls, atol: Any, rtol: Any) -> Tolerance | None:
        """Where either is given, the other is 0; None where neither is."""
        if atol is None and rtol is None:
            return None
        return cls(0.0 if atol is None else atol, 0.0 if rtol is None else rtol)

    def __str__(self) -> str:
        return f"atol {self.atol:g}, rtol {self.rtol:g}"


@dataclass(frozen=True, slots=True)
class Percentiles:
    """What that many per cent of the numbers of an output are off by, at most.

    Attributes:
        p50: half of them.
        p90: nine in ten.
        p99: all but one in a hundred.
        largest: all.
    """

    p50: float
    p90: float
    p99: float
    largest: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.2g}, p90 {self.p90:.2g}, p99 {self.p99:.2g}, max {self.largest:.2g}"


class Errors:
    """The errors of one output, batch by batch, in memory that does not grow.

    They are counted in a histogram whose buckets are the numbers that agree in the first 14 bits
    of their float32: an octave is 32 buckets, so that a percentile is given as at most 1/32 too
    large, and never as too small. The largest is exact. What is below 4e-40 counts as 0.
    """

    def __init__(self) -> None:
        self.histograms = (_Histogram(), _Histogram())  # of errors, and as shares of the truth

    def add(self, errors: np.ndarray, truth: np.ndarray) -> None:
        """Count a batch.

        Args:
            errors: of its numbers, none of them negative or NaN.
            truth: of the same shape.
        """
        absolute, shares = self.histograms
        absolute.add(errors)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            relative = errors / np.abs(truth.astype("float64"))
        shares.add(np.where(np.isfinite(errors) & (errors > 0), relative, errors))

    def merge(self, other: Errors) -> None:
        """Count what another counted."""
        for mine, theirs in zip(self.histograms, other.histograms, strict=True):
            mine.counts += theirs.counts
            mine.largest = max(mine.largest, theirs.largest)

    @property
    def absolute(self) -> Percentiles:
        """As they are."""
        return self.histograms[0].percentiles()

    @property
    def relative(self) -> Percentiles:
        """As shares of the truth: infinite where that is 0 and the error is not."""
        return self.histograms[1].percentiles()


_SHIFT = 18  # bits of a float32 that a bucket does not tell apart


class _Histogram:
    def __init__(self) -> None:
        self.counts = np.zeros(2 ** (31 - _SHIFT), "int64")
        self.largest = 0.0

    def add(self, errors: np.ndarray) -> None:
        with np.errstate(over="ignore", under="ignore"):
            bits = np.ascontiguousarray(errors, "float32").view("uint32").reshape(-1)
        self.counts += np.bincount(bits >> _SHIFT, minlength=len(self.counts))
        self.largest = max(self.largest, float(np.max(errors, initial=0.0)))

    def percentiles(self) -> Percentiles:
        total = np.cumsum(self.counts)
        p50, p90, p99 = (
            self._end(np.searchsorted(total, math.ceil(total[-1] * rank / 100))) for rank in RANKS
        )
        return Percentiles(p50, p90, p99, self.largest)

    def _end(self, bucket: Any) -> float:
        """The upper end of a bucket, of 0 alone 0."""
        if not bucket:
            return 0.0
        end = np.uint32((int(bucket) + 1) << _SHIFT).view("float32")
        return min(float(end), self.largest) if end < math.inf else self.largest

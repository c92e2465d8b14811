"""Paired timing: what is compared runs in turns, so that a busy machine slows all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WARM_UP = 3  # calls before any is timed; the first ones compile and allocate
SAMPLE = 2e-3  # seconds that a sample takes at least: short calls are repeated
SAMPLES_OF_95 = 6  # the fewest whose span holds the median with a probability of 95 %


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long one takes as another: the median over pairs.

    Attributes:
        median: of the ratios of paired samples; above 1, the second is faster.
        low: lower end of the 95 % interval of the median.
        high: its upper end.
    """

    median: float
    low: float
    high: float


def paired_seconds(
    calls: Sequence[Callable[[], Any]], rounds: int, seconds: float = np.inf
) -> np.ndarray:
    """Time calls in turns, in random orders; each is called once, untimed, before a sample.

    Args:
        calls: what to time.
        rounds: samples of each.
        seconds: a time after which no further round begins; at least three are run.

    Returns:
        Seconds per call, of shape (rounds, calls).
    """
    repeats = [_repeats(call) for call in calls]
    rng = np.random.default_rng(0)
    rows: list[list[float]] = []
    start = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()
    try:
        while len(rows) < rounds and (len(rows) < 3 or time.perf_counter() - start < seconds):
            row = [0.0] * len(calls)
            for index in rng.permutation(len(calls)):
                call, count = calls[index], repeats[index]
                call()  # with its own data in the caches
                before = time.perf_counter()
                for _ in range(count):
                    call()
                row[index] = (time.perf_counter() - before) / count
            rows.append(row)
    finally:
        if collecting:
            gc.enable()
    return np.array(rows)


def _repeats(call: Callable[[], Any]) -> int:
    """Calls that fill a sample, after warming up."""
    took = []
    for _ in range(WARM_UP + 2):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return max(1, round(SAMPLE / min(took)))


def ratio(first: np.ndarray, second: np.ndarray) -> Ratio:
    """The median of paired ratios `first / second`, with its 95 % interval.

    The interval is that of the order statistics: it assumes nothing of the distribution
    (Conover, Practical Nonparametric Statistics, 1999, section 3.2). Of fewer than
    `SAMPLES_OF_95` samples it is the span, which covers less than 95 %.
    """
    from scipy.stats import binom  # which takes longer to import than all of kerasfold

    ratios = np.sort(first / second)
    count = len(ratios)
    low = max(0, int(binom.ppf(0.025, count, 0.5)) - 1)
    return Ratio(float(np.median(ratios)), float(ratios[low]), float(ratios[count - 1 - low]))

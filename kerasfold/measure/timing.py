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

    def holds(self, ratio: float) -> bool:
        """Whether the interval does."""
        return self.low <= ratio <= self.high


def paired_seconds(
    calls: Sequence[Callable[[], Any]], rounds: int, seconds: float = np.inf
) -> np.ndarray:
    """Time calls in turns, in random orders: the mean of each sample of `in_turns`.

    Args:
        calls: what to time.
        rounds: samples of each.
        seconds: a time after which no further round begins; at least three are run.

    Returns:
        Seconds per call, of shape (rounds, calls).
    """
    samples = in_turns(calls, rounds, WARM_UP, seconds, np.random.default_rng(0))
    return np.stack([sample.mean(axis=1) for sample in samples], axis=1)


def in_turns(
    calls: Sequence[Callable[[], Any]],
    rounds: int,
    warm_up: int,
    seconds: float,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Time calls in turns, in random orders; each is called once, untimed, before a sample.

    Args:
        calls: what to time.
        rounds: samples of each.
        warm_up: calls of each before any is timed.
        seconds: a time after which no further round begins; at least three are run.
        rng: of the orders.

    Returns:
        For each, the seconds of its timed calls, of shape (rounds, calls in a sample).
    """
    repeats = [_repeats(call, warm_up) for call in calls]
    samples: list[list[np.ndarray]] = [[] for _ in calls]
    start = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(rounds):
            if done >= 3 and time.perf_counter() - start >= seconds:
                break
            for index in rng.permutation(len(calls)):
                samples[index].append(_sample(calls[index], repeats[index]))
    finally:
        if collecting:
            gc.enable()
    return [np.array(own) for own in samples]


def _sample(call: Callable[[], Any], count: int) -> np.ndarray:
    """The seconds of each of some calls, one after another."""
    call()  # with its own data in the caches
    stamps = [time.perf_counter()]
    for _ in range(count):
        call()
        stamps.append(time.perf_counter())
    return np.diff(stamps)


def _repeats(call: Callable[[], Any], warm_up: int) -> int:
    """Calls that fill a sample, after warming up."""
    took = []
    for _ in range(warm_up + 2):
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

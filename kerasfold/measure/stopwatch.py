"""Models against one another, over deployments: what varies is how each came to lie in memory.

A model that is deployed once is as fast as its memory, its threads and its compilation happen to
let it be, however often it is run then: an interval over runs of one deployment is too narrow
(Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, 2013). Here a *trial* deploys each
subject anew, in a random order, and runs them in turns; it gives one ratio of two subjects, and an
interval is one over trials. The first subject is deployed twice in each: against itself it is
the control, which tells whether the stopwatch can be believed.
"""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasfold.measure.timing import WARM_UP, Ratio, in_turns

STEADY = 1.5  # ratio of the ends of an interval, below which a control tells enough
FEWEST = 6  # trials of which some ranks of signs have less than 5 %
LAYOUTS = 1 << 20  # bytes, up to which memory is shifted from deployment to deployment

Deploy = Callable[[], Callable[[], Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """What some subjects took.

    Attributes:
        trials: of each trial and each subject, the control last, the seconds of the timed calls,
            of shape (rounds, calls in a sample).
    """

    trials: Sequence[Sequence[np.ndarray]]

    @property
    def control(self) -> Ratio:
        """How many times as long the first subject takes as itself, deployed once more."""
        return self._over(0, -1)

    @property
    def is_steady(self) -> bool:
        """Whether the interval of the control holds 1, and is so narrow that this tells enough."""
        control = self.control
        return control.holds(1.0) and control.high < STEADY * control.low

    def ratio(self, subject: int, first: int = 0) -> Ratio:
        """How many times as long the first subject, or one that is named, takes as another.

        Where the stopwatch is not steady, neither end of the interval is closer to the median than
        that of the control is, and both are further off by what a control that excludes 1 is off.
        """
        found, control = self._over(first, subject), self.control
        if self.is_steady:
            return found
        off = 1.0 if control.holds(1.0) else max(control.median, 1 / control.median)
        low, high = (end / control.median * found.median for end in (control.low, control.high))
        return Ratio(found.median, min(found.low, low) / off, max(found.high, high) * off)

    def calls(self, subject: int) -> np.ndarray:
        """The seconds of each of its timed calls."""
        return np.concatenate([trial[subject].ravel() for trial in self.trials])

    def _over(self, first: int, second: int) -> Ratio:
        pairs = [(trial[first], trial[second]) for trial in self.trials]
        logs = [np.median(np.log(x.mean(axis=1) / y.mean(axis=1))) for x, y in pairs]
        return over_trials(np.array(logs))


def timed(
    subjects: Sequence[Deploy],
    trials: int,
    rounds: int,
    warm_up: int = WARM_UP,
    seconds: float = np.inf,
    rng: np.random.Generator | None = None,
    fewest: int = 1,
    told: Callable[[int], object] = lambda done: None,
) -> Times:
    """Deploy subjects again and again, and run them in turns.

    Args:
        subjects: each deploys a model once more, and gives a function that runs it.
        trials: deployments of each subject.
        rounds: samples of each deployment.
        warm_up: calls of each deployment before any is timed.
        seconds: by when to end: no trial is begun that would not end by then, going by those
            before, but the fewest are.
        rng: of the orders, and of what memory is shifted by; by default one of no seed.
        fewest: trials, whatever they take.
        told: hears how many trials are done, before each.
    """
    rng = np.random.default_rng() if rng is None else rng
    deploys = [*subjects, subjects[0]]
    done: list[list[np.ndarray]] = []
    start = time.perf_counter()
    while len(done) < trials:
        spent = time.perf_counter() - start
        if len(done) >= fewest and spent * (len(done) + 1) / len(done) > seconds:
            break
        told(len(done))
        done.append(_trial(deploys, rounds, warm_up, start + seconds, rng))
        gc.collect()  # models are circles
    return Times(done)


def _trial(
    deploys: Sequence[Deploy],
    rounds: int,
    warm_up: int,
    until: float,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """One deployment of each, and what they took in turns, until a time or for three rounds."""
    order = rng.permutation(len(deploys))
    between: list[bytearray] = []
    calls: list[Callable[[], Any]] = []
    for index in order:
        between.append(bytearray(rng.integers(1, LAYOUTS)))
        calls.append(deploys[index]())
    samples = in_turns(calls, rounds, warm_up, until - time.perf_counter(), rng)
    return [samples[place] for place in np.argsort(order)]


def over_trials(logs: np.ndarray) -> Ratio:
    """The ratio of two subjects of which each trial gives the logarithm, with its 95 % interval.

    It is the median of the means of all pairs of trials, and the interval is that of the signed
    ranks (Hodges and Lehmann 1963; Hollander and Wolfe, Nonparametric Statistical Methods, section
    3.3). That assumes that the logarithms are symmetric about their middle: of two subjects that
    are alike they are so because each trial deploys them in a random order, whatever the
    distribution. Of fewer than `FEWEST` trials, which have no such interval, it is Student's; of
    one it is all that there is.
    """
    count = len(logs)
    if count < FEWEST:
        from scipy.stats import t  # which takes longer to import than all of kerasfold

        middle = float(np.mean(logs))
        half = t.ppf(0.975, count - 1) * np.std(logs, ddof=1) / count**0.5 if count > 1 else np.inf
        low, high = middle - half, middle + half
    else:
        first, second = np.triu_indices(count)
        means = np.sort((logs[first] + logs[second]) / 2)
        rank = _rank(count)
        middle, low, high = np.median(means), means[rank - 1], means[-rank]
    return Ratio(*map(float, np.exp([middle, low, high])))


@functools.cache
def _rank(count: int) -> int:
    """The place, from either end, of the means that bound an interval of 95 %."""
    ways = np.zeros(count * (count + 1) // 2 + 1)  # of signs that give each sum of ranks
    ways[0] = 1
    for rank in range(1, count + 1):
        ways[rank:] += ways[:-rank].copy()
    return int(np.searchsorted(np.cumsum(ways) / 2.0**count, 0.025, side="right"))

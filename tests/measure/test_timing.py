"""Paired timing: who is called when, and what the interval of a ratio is worth."""

from __future__ import annotations

import gc
from math import comb

import numpy as np
import pytest

from kerasfold.measure import timing
from kerasfold.measure.timing import Ratio, paired_seconds, ratio


class Calls:
    """Callables that advance a clock of their own by their seconds, and note who was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
        self.now = 0.0
        self.log: list[int] = []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        self.all = [self._call(index, took) for index, took in enumerate(seconds)]

    def _call(self, index: int, took: float):
        def call() -> None:
            self.log.append(index)
            self.now += took

        return call


def test_one_row_of_seconds_per_round(monkeypatch):
    calls = Calls(monkeypatch, 0.25, 0.5, 1.0)
    seconds = paired_seconds(calls.all, 5)
    np.testing.assert_array_equal(seconds, [[0.25, 0.5, 1.0]] * 5)


def test_rounds_end_with_the_time_but_never_before_the_third(monkeypatch):
    assert len(paired_seconds(Calls(monkeypatch, 1.0).all, 20, seconds=0)) == 3
    assert len(paired_seconds(Calls(monkeypatch, 1.0).all, 2, seconds=0)) == 2
    # a round is an untimed call and a timed one
    assert len(paired_seconds(Calls(monkeypatch, 1.0).all, 20, seconds=9)) == 5
    assert len(paired_seconds(Calls(monkeypatch, 1.0).all, 20)) == 20


def test_all_are_called_in_turns(monkeypatch):
    calls = Calls(monkeypatch, 1.0, 1.0, 1.0)
    paired_seconds(calls.all, 40)
    warm = timing.WARM_UP + 2
    assert calls.log[: 3 * warm] == [0] * warm + [1] * warm + [2] * warm
    rounds = np.reshape(calls.log[3 * warm :], (40, 3, 2))
    np.testing.assert_array_equal(rounds[..., 0], rounds[..., 1])  # first untimed, then timed
    orders = rounds[..., 0]
    np.testing.assert_array_equal(np.sort(orders), [[0, 1, 2]] * 40)
    assert len({tuple(order) for order in orders}) == 6  # in every order there is
    assert {0, 1, 2} == set(orders[:, 0])


def test_orders_are_the_same_each_time(monkeypatch):
    logs = []
    for _ in range(2):
        calls = Calls(monkeypatch, 1.0, 1.0)
        paired_seconds(calls.all, 10)
        logs.append(calls.log)
    assert logs[0] == logs[1]


def test_short_calls_are_repeated_until_they_fill_a_sample(monkeypatch):
    quick, slow = timing.SAMPLE / 8, 3 * timing.SAMPLE
    calls = Calls(monkeypatch, quick, slow)
    seconds = paired_seconds(calls.all, 4)
    np.testing.assert_allclose(seconds, [[quick, slow]] * 4)
    warm = timing.WARM_UP + 2
    assert calls.log.count(0) == warm + 4 * (1 + 8)
    assert calls.log.count(1) == warm + 4 * (1 + 1)


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_meanwhile_nor_after_a_failure(monkeypatch, enabled):
    collecting = []

    def fails() -> None:
        collecting.append(gc.isenabled())
        if len(collecting) > timing.WARM_UP + 2 + 3:
            raise RuntimeError

    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(RuntimeError):
            paired_seconds([fails], 30)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert not any(collecting[timing.WARM_UP + 2 :])


# Samples: ranks of the interval's ends, counted from each side, as tables of the sign test have
# them (Conover 1999, table A3).
@pytest.mark.parametrize(
    ("samples", "rank"),
    [(6, 1), (7, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (20, 6), (25, 8), (30, 10)],
)
def test_the_ends_are_the_order_statistics_of_the_tables(samples, rank):
    ratios = np.random.default_rng(0).permutation(np.arange(1.0, samples + 1))
    found = ratio(ratios, np.ones(samples))
    assert found == Ratio(np.median(ratios), rank, samples + 1 - rank)


@pytest.mark.parametrize("samples", [*range(6, 40), 101, 500])
def test_the_interval_is_the_narrowest_that_covers_95_percent(samples):
    found = ratio(np.arange(1.0, samples + 1), np.ones(samples))

    def coverage(rank: int) -> float:
        """That neither all but `rank - 1` samples lie above the median, nor all but below."""
        return 1 - 2 * sum(comb(samples, k) for k in range(rank)) / 2**samples

    assert coverage(int(found.low)) >= 0.95 > coverage(int(found.low) + 1)
    assert found.low + found.high == samples + 1


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5])
def test_of_few_samples_the_interval_is_their_span(samples):
    found = ratio(np.arange(1.0, samples + 1), np.ones(samples))
    assert (found.low, found.high) == (1, samples)


def test_the_fewest_samples_of_an_interval():
    fewest = timing.SAMPLES_OF_95
    assert 1 - 2 / 2**fewest >= 0.95 > 1 - 2 / 2 ** (fewest - 1)


def test_ratios_are_of_pairs():
    first, second = np.array([2.0, 8.0, 30.0]), np.array([1.0, 4.0, 10.0])
    assert ratio(first, second) == Ratio(2.0, 2.0, 3.0)
    assert ratio(second, first) == Ratio(0.5, pytest.approx(1 / 3), 0.5)


@pytest.mark.parametrize("samples", [6, 15, 30])
def test_the_interval_holds_the_true_ratio_as_often_as_it_says(samples):
    rng = np.random.default_rng(5)
    trials = 2000
    held = 0
    for _ in range(trials):
        load = rng.lognormal(0, 1, samples)  # of the machine, which slows both
        first = 1.2 * load * rng.lognormal(0, 0.1, samples)
        second = load * rng.lognormal(0, 0.1, samples)
        found = ratio(first, second)
        held += found.low <= 1.2 <= found.high
    assert held / trials >= 0.95

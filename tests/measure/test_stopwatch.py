"""Intervals over deployments: on made-up timings, never on a clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kerasfold.measure import stopwatch, timing
from kerasfold.measure.stopwatch import FEWEST, Times, over_trials, timed
from kerasfold.measure.timing import Ratio

TRIALS, ROUNDS = 12, 9


def deployments(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """How many times as long as usual a deployment happens to take."""
    if kind == "states":  # the luck of an address: one in three is slower by a fifth
        return np.where(rng.random(shape) < 1 / 3, 1.2, 1.0) * rng.lognormal(0, 0.01, shape)
    if kind == "stuck":  # one in fifteen runs on the wrong core
        return np.where(rng.random(shape) < 1 / 15, 2.0, 1.0) * rng.lognormal(0, 0.03, shape)
    return rng.lognormal(0, 0.05, shape)


def times(kind: str, rng: np.random.Generator, factors: tuple[float, ...] = (1.0, 1.0)) -> Times:
    """Subjects and the control, each trial with deployments of its own."""
    count = len(factors) + 1
    base = np.array([*factors, factors[0]]) * deployments(kind, rng, (TRIALS, count))
    load = rng.lognormal(0, 0.5, (TRIALS, ROUNDS, 1))  # of the machine, which slows all
    samples = base[:, None, :] * load * rng.lognormal(0, 0.05, (TRIALS, ROUNDS, count))
    return Times([[trial[:, [i]] for i in range(count)] for trial in samples])


@pytest.mark.parametrize("kind", ["normal", "states", "stuck"])
def test_of_a_model_against_itself_no_more_intervals_exclude_1_than_they_say(kind):
    rng = np.random.default_rng(3)
    runs = [times(kind, rng) for _ in range(300)]
    assert sum(not run.ratio(1).holds(1.0) for run in runs) <= 0.06 * len(runs)
    assert sum(not run.control.holds(1.0) for run in runs) <= 0.06 * len(runs)


@pytest.mark.parametrize("kind", ["normal", "stuck"])
def test_the_interval_holds_the_true_ratio_and_is_narrow(kind):
    rng = np.random.default_rng(4)
    found = [times(kind, rng, (1.2, 1.0)).ratio(1) for _ in range(300)]
    assert sum(ratio.holds(1.2) for ratio in found) >= 0.94 * len(found)
    assert np.median([(ratio.high - ratio.low) / 2 for ratio in found]) < 0.075
    assert np.median([ratio.median for ratio in found]) == pytest.approx(1.2, rel=0.01)


def test_one_deployment_each_says_too_much():
    """What was wrong: rounds of one deployment do not see that it is the slower one by luck."""
    rng = np.random.default_rng(5)
    runs = [times("normal", rng).trials[0] for _ in range(200)]
    excluded = [not timing.ratio(run[0][:, 0], run[1][:, 0]).holds(1.0) for run in runs]
    assert sum(excluded) > 0.2 * len(runs)


def test_a_control_that_is_off_widens_the_interval_by_that():
    logs = np.linspace(-0.01, 0.01, TRIALS)
    samples = [np.exp(logs), np.ones(TRIALS), np.full(TRIALS, 1 / 1.1)]
    trials = [[np.full((3, 1), own[i]) for own in samples] for i in range(TRIALS)]
    found, alone = Times(trials).ratio(1), over_trials(logs)
    assert Times(trials).control.median == pytest.approx(1.1, rel=1e-3)
    assert (found.low, found.high) == pytest.approx((alone.low / 1.1, alone.high * 1.1), rel=1e-3)
    steady = Times([[*trial[:2], trial[0]] for trial in trials])
    assert steady.control == Ratio(1.0, 1.0, 1.0)
    assert (steady.ratio(1).low, steady.ratio(1).high) == (alone.low, alone.high)
    assert steady.ratio(1).median == found.median


def test_no_interval_is_narrower_than_that_of_a_control_that_varies():
    """What was wrong: 0.77 (0.76 to 0.78), beside a control of 0.69 to 6.87."""
    noise = np.exp(np.linspace(-1.0, 1.0, TRIALS))
    trials = [[np.full((3, 1), own) for own in (1.0, 1 / 0.77, off)] for off in noise]
    found = Times(trials)
    assert found.control.holds(1.0)
    assert not found.is_steady
    assert found.ratio(1).median == pytest.approx(0.77)
    assert found.ratio(1).low == pytest.approx(0.77 * found.control.low)
    assert found.ratio(1).high == pytest.approx(0.77 * found.control.high)
    assert found.control.low < 0.8 < 1.25 < found.control.high


def test_one_trial_is_not_called_steady():
    found = Times([[np.ones((3, 1)), np.full((3, 1), 0.5), np.ones((3, 1))]])
    assert not found.is_steady
    assert found.ratio(1) == Ratio(2.0, 0.0, np.inf)


@pytest.mark.parametrize("count", [6, 7, 9])
def test_the_signed_ranks_are_those_of_all_signs(count):
    """Of all signs that numbers may have, those whose interval excludes 0 are 5 % or fewer."""
    sizes = np.sort(np.random.default_rng(0).exponential(size=count))
    signs = itertools.product((-1, 1), repeat=count)
    excluded = [not over_trials(np.array(own) * sizes).holds(1.0) for own in signs]
    assert 0.02 < np.mean(excluded) <= 0.05


@pytest.mark.parametrize("count", [2, 5])
def test_of_few_trials_the_interval_is_students(count):
    from scipy import stats

    logs = np.random.default_rng(1).normal(0.3, 0.1, count)
    found = over_trials(logs)
    low, high = stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)))
    assert count < FEWEST


def test_one_trial_tells_nothing_of_deployments():
    assert over_trials(np.log([2.0])) == Ratio(pytest.approx(2.0), 0.0, np.inf)


# who is deployed and called, when


class Deployments:
    """Subjects that advance a clock of their own, and note what was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *seconds: float, bringing: float) -> None:
        self.now = 0.0
        self.deployed: list[int] = []
        self.first_run: list[int] = []
        for module in (timing, stopwatch):
            monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(stopwatch, "gc", SimpleNamespace(collect=lambda: None))
        self.bringing = bringing
        self.all = [self._subject(index, took) for index, took in enumerate(seconds)]

    def _subject(self, index: int, took: float) -> Callable[[], Any]:
        def deploy() -> Callable[[], None]:
            self.deployed.append(index)
            self.now += self.bringing

            runs = itertools.count()

            def run() -> None:
                self.now += took
                if not next(runs):
                    self.first_run.append(index)

            return run

        return deploy


def test_each_trial_deploys_all_anew_in_a_random_order_and_the_first_twice(monkeypatch):
    watched = Deployments(monkeypatch, 1.0, 2.0, bringing=0.0)
    found = timed(watched.all, 12, 3, rng=np.random.default_rng(0))
    orders = np.reshape(watched.deployed, (12, 3))
    np.testing.assert_array_equal(np.sort(orders), [[0, 0, 1]] * 12)
    assert watched.first_run == watched.deployed  # none is the first to be warm more often
    assert {tuple(order) for order in orders} == {(0, 0, 1), (0, 1, 0), (1, 0, 0)}
    assert [[own.shape for own in trial] for trial in found.trials] == [[(3, 1)] * 3] * 12
    assert found.ratio(1) == Ratio(0.5, 0.5, 0.5)
    assert found.control == Ratio(1.0, 1.0, 1.0)
    np.testing.assert_array_equal(found.calls(1), np.full(36, 2.0))


def test_no_trial_begins_that_would_not_end_in_time(monkeypatch):
    # A trial takes 3 x 10 s to deploy, and of each subject 5 + 3 x 2 calls of 1 s.
    one = 3 * 10 + 3 * (timing.WARM_UP + 2 + 3 * 2)
    for seconds, trials in ((0.0, 1), (2 * one - 1, 1), (2 * one, 2), (np.inf, 4)):
        watched = Deployments(monkeypatch, 1.0, 1.0, bringing=10.0)
        assert len(timed(watched.all, 4, 3, seconds=seconds).trials) == trials


def test_the_fewest_trials_are_done_whatever_they_take(monkeypatch):
    watched = Deployments(monkeypatch, 1.0, 1.0, bringing=10.0)
    assert len(timed(watched.all, 4, 3, seconds=0.0, fewest=2).trials) == 2


def test_two_subjects_are_held_against_each_other():
    trials = [[np.full((3, 1), own) for own in (1.0, 3.0, 0.5, 1.0)] for _ in range(TRIALS)]
    assert Times(trials).ratio(2, 1) == Ratio(pytest.approx(6.0), *[pytest.approx(6.0)] * 2)


def test_what_is_done_is_told(monkeypatch):
    heard: list[int] = []
    timed(Deployments(monkeypatch, 1.0, bringing=0.0).all, 3, 3, told=heard.append)
    assert heard == [0, 1, 2]
